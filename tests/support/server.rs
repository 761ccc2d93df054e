//! The real binary: configured, started, awaited, asked how it is, ended.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use toml::{Table, Value};

use super::{Dot, PATIENCE, Upstream, connect_from, free_ports};

/// A running server on loopback, in a folder of its own; killed when dropped.
pub struct Server {
    child: Child,
    folder: TempDir,
    pub dot_port: u16,
    pub doh_port: u16,
    pub admin_port: u16,
}

impl Server {
    /// Starts a server whose configuration is a plain one with `overrides` (TOML) laid over it, and waits until it is
    /// ready. A `{folder}` in `overrides` becomes the server's own folder.
    pub fn start(overrides: &str) -> Self {
        Self::start_by(&[], overrides)
    }

    /// Starts a server that asks this upstream only.
    pub fn before(upstream: &Upstream, overrides: &str) -> Self {
        Self::start(&upstream.config(overrides))
    }

    /// The same, behind a command that ends by running its arguments.
    pub fn start_by(wrapper: &[&str], overrides: &str) -> Self {
        Self::start_with(&[], wrapper, overrides)
    }

    /// The same, with files (name and text) that are in its folder before it starts.
    pub fn start_with(files: &[(&str, &str)], wrapper: &[&str], overrides: &str) -> Self {
        // A port that was free a moment ago may be taken by now: by a test that runs beside this one.
        (0..3).find_map(|_| Self::try_start(files, wrapper, overrides)).expect("the server starts, see its log above")
    }

    fn try_start(files: &[(&str, &str)], wrapper: &[&str], overrides: &str) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let [dot_port, doh_port, admin_port] = free_ports();
        for (name, text) in files {
            write_file(&folder.path().join(name), text);
        }
        let config = folder.path().join("bailiwick.toml");
        let text = configuration(&folder, [dot_port, doh_port, admin_port], overrides);
        fs::write(&config, text).unwrap();
        let child = launch(&folder, wrapper);
        let mut server = Self { child, folder, dot_port, doh_port, admin_port };
        server.wait_until_ready().then_some(server)
    }

    /// Ends it and starts it again in its folder; whether it is ready then.
    pub fn restart(&mut self) -> bool {
        self.relaunch();
        self.wait_until_ready()
    }

    /// Ends it and starts it again in its folder, and does not wait until it is ready.
    pub fn relaunch(&mut self) {
        self.signal("TERM");
        self.wait();
        self.child = launch(&self.folder, &[]);
    }

    /// Starts it again in its folder once it has ended by itself; whether it is ready then.
    pub fn relaunched(&mut self) -> bool {
        self.child = launch(&self.folder, &[]);
        self.wait_until_ready()
    }

    /// Writes its configuration again, with these overrides and its own ports.
    pub fn configure(&self, overrides: &str) {
        let ports = [self.dot_port, self.doh_port, self.admin_port];
        self.write("bailiwick.toml", &configuration(&self.folder, ports, overrides));
    }

    /// Writes a file of its folder, whole at once as an editor does.
    pub fn write(&self, name: &str, text: &str) {
        write_file(&self.folder.path().join(name), text);
    }

    /// Removes a file of its folder.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// Whether it is ready; false once it has ended.
    fn wait_until_ready(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.get("/ready").is_ok_and(|response| response.starts_with("HTTP/1.1 200")) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                break;
            }
            sleep(Duration::from_millis(20));
        }
        eprintln!("not ready: {}", self.log());
        false
    }

    /// The server's folder.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The file of the development CA.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("certs/ca.pem")
    }

    /// GET on the admin listener: the whole response.
    pub fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin_port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = format!("127.0.0.1:{}", self.admin_port);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    }

    /// A client's TLS settings that trust this server's CA.
    pub fn tls(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.ca()).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let mut config =
            ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// A DoT connection as most clients make it: no ALPN, the newest TLS.
    pub fn dot(&self) -> Dot {
        self.dot_by(&self.tls(rustls::ALL_VERSIONS, &[])).unwrap()
    }

    /// A DoT connection with these TLS settings, its handshake done.
    pub fn dot_by(&self, config: &Arc<ClientConfig>) -> io::Result<Dot> {
        Dot::connect(TcpStream::connect((Ipv4Addr::LOCALHOST, self.dot_port))?, config)
    }

    /// A DoT connection from this loopback address, as an order's country may be told by it.
    pub fn dot_from(&self, source: [u8; 4]) -> Dot {
        let config = self.tls(rustls::ALL_VERSIONS, &[]);
        Dot::connect(connect_from(source, self.dot_port).unwrap(), &config).unwrap()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name (`TERM`).
    pub fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("the server does not end: {}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

fn launch(folder: &TempDir, wrapper: &[&str]) -> Child {
    let binary = env!("CARGO_BIN_EXE_bailiwick");
    let mut words = wrapper.iter().copied().chain([binary, "serve", "--config"]);
    let log = File::create(folder.path().join("log")).unwrap();
    Command::new(words.next().unwrap())
        .args(words)
        .arg(folder.path().join("bailiwick.toml"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn write_file(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let temporary = path.with_extension("new");
    fs::write(&temporary, text).unwrap();
    fs::rename(temporary, path).unwrap();
}

fn configuration(folder: &TempDir, [dot, doh, admin]: [u16; 3], overrides: &str) -> String {
    let folder = folder.path().to_str().unwrap();
    let mut config: Table = format!(
        r#"
        [listen]
        doh = ["127.0.0.1:{doh}"]
        dot = ["127.0.0.1:{dot}"]
        admin = "127.0.0.1:{admin}"
        threads = 2
        [tls]
        certificate = "{folder}/certs/server.pem"
        key = "{folder}/certs/server.key"
        [upstream]
        resolvers = ["127.0.0.1:9"]
        [state]
        folder = "{folder}/state"
        "#
    )
    .parse()
    .unwrap();
    lay_over(&mut config, overrides.replace("{folder}", folder).parse().unwrap());
    config.to_string()
}

/// Puts every value of `overrides` into `config`, tables into each other.
pub(super) fn lay_over(config: &mut Table, overrides: Table) {
    for (key, value) in overrides {
        match (config.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => lay_over(under, over),
            (_, value) => {
                config.insert(key, value);
            }
        }
    }
}
