//! The life of the process, as its operator meets it: start, reload, health, commands, drain.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a test that cannot run says so")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use bailiwick::dns::Qtype;
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, HandshakeKind, StreamOwned};
use serde_json::Value;
use support::http::target;
use support::{Answer, Dot, PATIENCE, Play, Server, Upstream, connect_from, query, query_with_opt, until};
use tempfile::TempDir;

const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;

/// Orders from a folder, and 127.0.0.2 in Italy.
const POLICY: &str = r#"
    policy.orders = "{folder}/orders"
    origin.networks = [{ prefix = "127.0.0.2/32", country = "IT" }]
"#;

const ITALIAN: [u8; 4] = [127, 0, 0, 2];
const OTHER: [u8; 4] = [127, 0, 0, 1];

fn order(id: &str, jurisdiction: &str, name: &str, more: &str) -> String {
    format!(
        "id = '{id}'\nissuer = 'Tribunale di Esempio'\njurisdiction = ['{jurisdiction}']\n\
         received = 2026-01-01T09:00:00+01:00\nstate = 'in-force'\n{more}\n[[target]]\nsubtree = ['{name}']\n"
    )
}

/// Everything has an address, but `alias.example` leads to `listed.example`, and `broken.example` is a SERVFAIL.
fn upstream() -> Upstream {
    Upstream::start(|asked| {
        Play::Respond(match (asked.name.as_str(), asked.qtype) {
            ("alias.example", _) => asked.response(0, &[alias_to_listed()]),
            ("broken.example", _) => asked.response(2, &[]),
            (name, _) if name.starts_with("silent") => return Play::Silence,
            (_, Qtype::A) => asked.response(0, &[asked.a(300, Ipv4Addr::new(192, 0, 2, 1))]),
            _ => asked.response(0, &[]),
        })
    })
}

fn alias_to_listed() -> Vec<u8> {
    let mut record = vec![0xc0, 12, 0, 5, 0, 1, 0, 0, 1, 44, 0, 16];
    record.extend(b"\x06listed\x07example\0");
    record
}

fn policed(upstream: &Upstream, files: &[(&str, &str)]) -> Server {
    Server::start_with(files, &[], &upstream.config(POLICY))
}

fn rcode(server: &Server, source: [u8; 4], name: &str) -> u16 {
    let mut dot = server.dot_from(source);
    dot.ask(&[query(1, name, Qtype::A)]);
    dot.receive().rcode
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn health(server: &Server) -> Value {
    serde_json::from_str(body(&server.get("/health").unwrap())).unwrap()
}

fn is_ok(server: &Server) -> bool {
    health(server)["status"] == "ok"
}

/// The reason that a component gives, or nothing.
fn reason(server: &Server, component: &str) -> String {
    let health = health(server);
    let reasons = health["reasons"].as_array().unwrap();
    let found = reasons.iter().find(|reason| reason["component"] == component);
    found.map_or(String::new(), |reason| reason["reason"].as_str().unwrap().to_owned())
}

/// What a command printed, and its exit status.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""));
        serde_json::from_str(&self.out).unwrap()
    }

    /// Lines for the operator on standard error, log lines left out.
    fn lines(&self) -> Vec<&str> {
        self.err.lines().filter(|line| !line.contains("Z  INFO ") && !line.contains("Z  WARN ")).collect()
    }
}

/// Runs the binary in a folder to its end.
fn run(folder: &Path, words: &[&str]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .args(words)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            break;
        }
        sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|octets| String::from_utf8(octets).unwrap());
    assert!(!err.contains("panicked"), "{err}");
    Ran { code: output.status.code(), out, err }
}

fn ask(server: &Server, words: &[&str]) -> Ran {
    run(&server.folder(), &[words, &["--config", "bailiwick.toml"]].concat())
}

/// A folder with a configuration that no server runs by.
fn folder_with(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

/// Nothing listens: no command finds a server, and a start that should fail cannot succeed.
const NOWHERE: &str =
    "[listen]\ndoh = []\ndot = ['127.0.0.1:0']\nadmin = ''\n[upstream]\nresolvers = ['127.0.0.1:9']\n";

/// The body of a DoH GET over HTTP/1.1 from a loopback address.
fn https(server: &Server, source: [u8; 4], target: &str) -> Vec<u8> {
    let config = server.tls(rustls::ALL_VERSIONS, &[b"http/1.1"]);
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let socket = connect_from(source, server.doh_port).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(config, name).unwrap(), socket);
    write!(tls, "GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").unwrap();
    let mut octets = Vec::new();
    tls.read_to_end(&mut octets).unwrap();
    let end = octets.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    octets.split_off(end)
}

// ---- Start ----

#[test]
fn the_first_start_makes_certificates_and_says_what_to_try() {
    let upstream = upstream();
    let files = [("orders/it.toml", &order("it", "IT", "listed.example", "")[..])];
    let wrapper = ["sh", "-c", "exec \"$0\" \"$@\" > stdout"];
    let mut server = Server::start_with(&files, &wrapper, &upstream.config(POLICY));
    let read = |name: &str| fs::read_to_string(server.folder().join(name)).unwrap();
    let banner = read("stdout");
    assert!(banner.lines().count() <= 10, "{banner}");
    for part in [
        "1 of 1 order in force".to_owned(),
        format!("https://127.0.0.1:{}/dns-query", server.doh_port),
        format!("tls://127.0.0.1:{}", server.dot_port),
        format!("http://127.0.0.1:{}/health", server.admin_port),
        server.ca().display().to_string(),
        format!("kdig -b 127.0.0.2 @127.0.0.1 -p {} +tls-ca=", server.dot_port),
        "--interface 127.0.0.2 ".to_owned(),
    ] {
        assert!(banner.contains(&part), "{part} is not in\n{banner}");
    }
    let curl = banner.lines().rfind(|line| line.contains("curl")).unwrap();
    let url = curl.split('\'').nth(1).unwrap();
    let target = url.strip_prefix(&format!("https://127.0.0.1:{}", server.doh_port)).unwrap();
    let (here, there) = (https(&server, OTHER, target), https(&server, ITALIAN, target));
    assert_eq!((Answer::read(here).addresses.len(), Answer::read(there.clone()).rcode), (1, NXDOMAIN));
    assert!(String::from_utf8_lossy(&there).contains("order it, Tribunale di Esempio"));
    assert_eq!(read("log").lines().filter(|line| !line.contains("ulimit")).count(), 0, "{}", read("log"));
    let made = ["certs/ca.pem", "certs/server.pem", "certs/server.key"].map(|name| (name, read(name)));
    assert!(server.restart());
    for (name, text) in made {
        assert_eq!(fs::read_to_string(server.folder().join(name)).unwrap(), text, "{name} is kept");
    }
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    for (listen, key) in [
        (format!("doh = ['{at}']\ndot = []\nadmin = ''"), "[listen] doh"),
        (format!("doh = []\ndot = ['{at}']\nadmin = ''"), "[listen] dot"),
        (format!("doh = []\ndot = ['127.0.0.1:0']\nadmin = '{at}'"), "[listen] admin"),
    ] {
        let folder = folder_with(&[("a.toml", &format!("[listen]\n{listen}\n"))]);
        let ran = run(folder.path(), &["--config", "a.toml"]);
        let [line] = ran.lines()[..] else { panic!("one line: {}", ran.err) };
        assert!(line.contains(&at.to_string()) && line.contains(key) && line.contains("another program"), "{line}");
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    }
}

/// Two that keep their last good copies in one folder would remove each other's.
#[test]
fn a_state_folder_is_for_one_server() {
    let server = Server::start("");
    let state = server.folder().join("state");
    let listen = "doh = []\ndot = ['127.0.0.1:0']\nadmin = ''";
    let config = format!("[listen]\n{listen}\n[state]\nfolder = '{}'\n", state.display());
    let folder = folder_with(&[("a.toml", &config)]);
    let ran = run(folder.path(), &["--config", "a.toml"]);
    let [line] = ran.lines()[..] else { panic!("one line: {}", ran.err) };
    assert!(line.contains("state: in use by another bailiwick; give each its own [state] folder"), "{line}");
    assert_eq!(ran.code, Some(1));
}

/// A certificate with its key in PEM, by this CA or by itself, valid for `life` from a day ago on.
fn certificate(ca: Option<&Issuer<'_, KeyPair>>, is_ca: bool, name: &str, life: Duration) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let now = Duration::from_secs(Timestamp::now().as_second().unsigned_abs());
    params.not_before = date_time_ymd(1970, 1, 1) + (now - DAY);
    params.not_after = date_time_ymd(1970, 1, 1) + (now - DAY + life);
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let made = match ca {
        Some(ca) => params.signed_by(&key, ca),
        None => params.self_signed(&key),
    };
    (made.unwrap().pem(), key)
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_certificate_that_cannot_be_used_is_one_clear_line() {
    let (ca, ca_key) = certificate(None, true, "CA", 2 * DAY);
    let ca = Issuer::from_ca_cert_pem(&ca, ca_key).unwrap();
    let (good, good_key) = certificate(None, false, "good", 2 * DAY);
    let (leaf, leaf_key) = certificate(Some(&ca), false, "leaf", 2 * DAY);
    let (old, old_key) = certificate(None, false, "old", DAY / 2);
    let other = KeyPair::generate().unwrap().serialize_pem();
    let [good_key, leaf_key, old_key] = [good_key, leaf_key, old_key].map(|key| key.serialize_pem());
    for (chain, key, at, what) in [
        (&good, &other, "certs/server.key: ", "does not match"),
        (&old, &old_key, "certs/server.pem: ", "renew it"),
        (&leaf, &leaf_key, "certs/server.pem: ", "an intermediate certificate is missing"),
        (&good, &"rubbish".to_owned(), "certs/server.key: ", "has no private key"),
        (&"rubbish".to_owned(), &good_key, "certs/server.pem: ", "has no certificate"),
    ] {
        let folder = folder_with(&[("a.toml", NOWHERE), ("certs/server.pem", chain), ("certs/server.key", key)]);
        for command in ["serve", "check"] {
            let ran = run(folder.path(), &[command, "--config", "a.toml"]);
            let [line] = ran.lines()[..] else { panic!("one line: {}", ran.err) };
            assert!(line.starts_with(at) && line.contains(what), "{line}");
            assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
        }
    }
    let folder = folder_with(&[("a.toml", NOWHERE), ("certs/server.pem", &good)]);
    for make_unreadable in [|_: &Path| {}, |key: &Path| fs::create_dir(key).unwrap()] {
        make_unreadable(&folder.path().join("certs/server.key"));
        let ran = run(folder.path(), &["serve", "--config", "a.toml"]);
        let [line] = ran.lines()[..] else { panic!("one line: {}", ran.err) };
        assert!(line.starts_with("certs/server.key: cannot be read") && line.contains("[tls] key"), "{line}");
        assert_eq!(ran.code, Some(1));
    }
}

#[test]
fn mistakes_in_the_configuration_are_all_told_and_usage_is_2() {
    let text = "[listen]\ndohh = 1\nadmin = 'x'\n[cache]\nmemory = '9'\n";
    let folder = folder_with(&[("a.toml", text)]);
    for words in [&["serve"][..], &["check"], &["orders"], &["explain", "a.example"], &[]] {
        let ran = run(folder.path(), &[words, &["--config", "a.toml"]].concat());
        let places: Vec<_> = ran.err.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(places, ["a.toml:2:1", "a.toml:3:9", "a.toml:5:10"], "{}", ran.err);
        assert_eq!(ran.code, Some(1));
    }
    let missing = run(folder.path(), &["serve"]);
    assert!(missing.err.starts_with("config/bailiwick.toml: cannot be read") && missing.code == Some(1));
    for words in [&["bogus"][..], &["explain"], &["check", "--bogus"], &["explain", "a", "--client", "b"]] {
        let ran = run(folder.path(), words);
        assert!(ran.code == Some(2) && ran.err.contains("--help"), "{}", ran.err);
    }
    let help = run(folder.path(), &["--help"]);
    assert!(help.code == Some(0) && ["check", "explain", "orders"].iter().all(|word| help.out.contains(word)));
}

#[test]
fn it_runs_unprivileged_where_nothing_can_be_written() {
    let policy = POLICY.replace("{folder}/", "");
    let folder = folder_with(&[("orders/a.toml", &order("a", "*", "listed.example", ""))]);
    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = NOWHERE.replace("admin = ''", &format!("admin = '{at}'"));
    fs::write(folder.path().join("a.toml"), format!("{policy}{text}")).unwrap();
    assert_eq!(run(folder.path(), &["certs", "127.0.0.1"]).code, Some(0));
    let key = folder.path().join("certs/server.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    command.args(["--config", "a.toml"]).current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    if fs::metadata(folder.path()).unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let Ok(mut child) = command.spawn() else { return eprintln!("skipped: nobody may run the binary where it is") };
    let answered = (0..500).any(|_| {
        sleep(Duration::from_millis(20));
        let answer = TcpStream::connect(at).and_then(|mut stream| {
            stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
            stream.read(&mut [0; 1])
        });
        answer.is_ok_and(|length| length == 1)
    });
    child.kill().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(answered && said.contains("state/orders: last good copies cannot be kept: a.toml"), "{said}");
}

// ---- Reload ----

#[test]
fn an_order_is_in_force_edited_and_lifted_as_its_file_is() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/.keep", "")]);
    assert_eq!(rcode(&server, ITALIAN, "listed.example"), NOERROR);
    server.write("orders/it.toml", &order("it", "IT", "listed.example", ""));
    until("in force", || rcode(&server, ITALIAN, "www.listed.example") == NXDOMAIN);
    assert_eq!(rcode(&server, OTHER, "www.listed.example"), NOERROR, "nowhere else");
    server.write("orders/it.toml", &order("it", "IT", "another.example", ""));
    until("edited", || rcode(&server, ITALIAN, "listed.example") == NOERROR);
    assert_eq!(rcode(&server, ITALIAN, "another.example"), NXDOMAIN);
    server.remove("orders/it.toml");
    until("lifted", || rcode(&server, ITALIAN, "another.example") == NOERROR);
    until("warned of", || server.log().contains("it.toml: the file is gone; its order it is lifted"));
    assert!(is_ok(&server));
}

#[test]
fn a_folder_in_another_s_place_is_followed() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/.keep", "")]);
    let in_folder = |name: &str| server.folder().join(name);
    for (number, name) in ["one.example", "two.example"].iter().enumerate() {
        server.write(&format!("next{number}/a.toml"), &order("a", "*", name, ""));
        fs::rename(in_folder("orders"), in_folder(&format!("before{number}"))).unwrap();
        fs::rename(in_folder(&format!("next{number}")), in_folder("orders")).unwrap();
        until(name, || rcode(&server, OTHER, name) == NXDOMAIN);
    }
    server.write("orders/b.toml", &order("b", "*", "three.example", ""));
    until("three.example", || rcode(&server, OTHER, "three.example") == NXDOMAIN);
}

#[test]
fn a_broken_order_stays_what_it_was_also_after_a_restart() {
    let upstream = upstream();
    let mut server = policed(&upstream, &[("orders/it.toml", &order("it", "IT", "listed.example", ""))]);
    server.write("orders/it.toml", &order("it", "IT", "li..sted", ""));
    until("degraded", || reason(&server, "orders").contains("orders/it.toml:8:12: "));
    for _ in 0..2 {
        assert_eq!(rcode(&server, ITALIAN, "listed.example"), NXDOMAIN);
        assert!(server.get("/ready").unwrap().starts_with("HTTP/1.1 200 "), "a legal matter empties no balancer");
        let order = &ask(&server, &["orders", "--json"]).json()[0];
        assert_eq!(order["state"], "pending");
        assert!(order["pending"][0].as_str().unwrap().contains("orders/it.toml:8:12: "), "{order}");
        assert!(ask(&server, &["orders"]).out.contains("pending: "));
        assert!(server.restart());
        assert!(reason(&server, "orders").contains("orders/it.toml:8:12: "));
        assert!(reason(&server, "orders").ends_with("; its last good copy stands"));
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    fs::remove_dir_all(server.folder().join("state")).unwrap();
    let ran = ask(&server, &["serve"]);
    assert_eq!((ran.code, ran.lines().len()), (Some(1), 2), "{}", ran.err);
    assert!(ran.lines()[0].contains("orders/it.toml:8:12: \"li..sted\" is not a name"));
    assert_eq!(ran.lines()[1], "not started: 1 file above has no last good copy; mend or remove it");
}

#[test]
fn a_broken_configuration_keeps_what_it_was_and_orders_do_not_wait_for_it() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/a.toml", &order("a", "*", "listed.example", ""))]);
    server.write("bailiwick.toml", "[listen\n");
    until("degraded", || reason(&server, "configuration").contains("bailiwick.toml:1:"));
    assert_eq!(rcode(&server, OTHER, "listed.example"), NXDOMAIN);
    server.write("orders/b.toml", &order("b", "*", "urgent.example", ""));
    until("in force", || rcode(&server, OTHER, "urgent.example") == NXDOMAIN);
    server.configure(&upstream.config(POLICY));
    until("in order again", || is_ok(&server));
}

#[test]
fn lists_and_exemptions_come_by_the_configuration() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/.keep", ""), ("m.txt", "malware.example\n")]);
    let list = "[[policy.list]]\nname = 'm'\nfile = '{folder}/m.txt'\nformat = 'domains'\ncovers = 'subtree'\n";
    let config = |more: &str| upstream.config(&format!("{POLICY}{list}{more}"));
    server.configure(&config(""));
    until("listed", || rcode(&server, OTHER, "a.malware.example") == NXDOMAIN);
    server.write("m.txt", "malware.example\nother.example\n");
    until("followed", || rcode(&server, OTHER, "other.example") == NXDOMAIN);
    server.configure(&config("[[policy.exemption]]\nname = 'good.malware.example'\nreason = 'ticket 4711'\n"));
    until("exempt", || rcode(&server, OTHER, "good.malware.example") == NOERROR);
    assert_eq!(rcode(&server, OTHER, "bad.malware.example"), NXDOMAIN);
    let explained = ask(&server, &["explain", "good.malware.example", "--json"]).json();
    assert_eq!((&explained["verdict"], &explained["exemption"]), (&"forward".into(), &"good.malware.example".into()));
    assert_eq!((&explained["also"][0]["id"], &explained["also"][0]["line"]), (&"m".into(), &1.into()));
    assert!(!explained["also"][0]["why"].as_str().unwrap().is_empty());
    server.configure(&config("[cache]\nmemory = '32MiB'\n"));
    until("told", || server.log().contains("changed; it takes effect after a restart section=\"[cache]\""));
    let generation = health(&server)["generation"].as_u64().unwrap();
    server.signal("HUP");
    until("SIGHUP", || health(&server)["generation"].as_u64().unwrap() > generation);
    assert_eq!(server.log().matches("takes effect after a restart").count(), 1);
}

#[test]
fn the_list_of_an_order_is_followed_as_the_order_is() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/.keep", ""), ("lists/.keep", "")]);
    let file = server.folder().join("lists/agcom.txt").display().to_string();
    let text = order("agcom", "*", "", "");
    let list = format!("list = {{ file = '{file}', format = 'domains', covers = 'subtree' }}");
    server.write("orders/a.toml", &text.replace("subtree = ['']", &list));
    until("waited for", || {
        let reason = reason(&server, "orders");
        reason.contains("orders/a.toml:") && reason.contains("lists/agcom.txt cannot be read")
    });
    server.write("lists/agcom.txt", "one.example\n");
    until("in force", || rcode(&server, OTHER, "www.one.example") == NXDOMAIN);
    until("in order", || is_ok(&server));
    server.write("lists/agcom.txt", "one.example\ntwo.example\n");
    until("followed", || rcode(&server, OTHER, "two.example") == NXDOMAIN);
    let explained = ask(&server, &["explain", "two.example", "--json"]).json();
    assert_eq!((&explained["by"]["id"], &explained["by"]["line"]), (&"agcom".into(), &2.into()));
    assert!(explained["by"]["file"].as_str().unwrap().ends_with("lists/agcom.txt"));
    server.remove("lists/agcom.txt");
    until("degraded", || reason(&server, "orders").ends_with("; its last good copy stands"));
    assert_eq!(rcode(&server, OTHER, "two.example"), NXDOMAIN);
    let listed = &ask(&server, &["orders", "--json"]).json()[0];
    assert_eq!((&listed["state"], &listed["targets"]), (&"pending".into(), &2.into()));
}

#[test]
fn an_order_begins_and_ends_by_the_clock() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/.keep", "")]);
    let at = |seconds| Timestamp::now() + SignedDuration::from_secs(seconds);
    let (effective, expires) = (at(3), at(5));
    let generation = || health(&server)["generation"].as_u64().unwrap();
    server.write(
        "orders/a.toml",
        &order("a", "*", "listed.example", &format!("effective = {effective:.3}\nexpires = {expires:.3}")),
    );
    let state = || ask(&server, &["orders", "--json"]).json()[0]["state"].clone();
    until("loaded", || generation() == 2);
    if Timestamp::now() < effective - SignedDuration::from_millis(500) {
        assert_eq!((rcode(&server, OTHER, "listed.example"), state()), (NOERROR, "waiting".into()));
    }
    until("begun", || rcode(&server, OTHER, "listed.example") == NXDOMAIN);
    until("a generation", || generation() == 3);
    until("ended", || rcode(&server, OTHER, "listed.example") == NOERROR);
    until("another generation", || generation() == 4);
    assert!(Timestamp::now() >= expires);
    assert_eq!(state(), "expired");
}

#[test]
fn no_query_waits_for_a_reload_or_is_lost() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/a.toml", &order("a", "*", "listed.example", ""))]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut dot = server.dot();
            let (mut asked, mut longest) = (0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                for (name, expected) in [("listed.example", NXDOMAIN), ("clean.example", NOERROR)] {
                    let start = Instant::now();
                    dot.ask(&[query(7, name, Qtype::A)]);
                    let answer = dot.receive();
                    assert_eq!((answer.id, answer.rcode), (7, expected), "{name}");
                    longest = longest.max(start.elapsed());
                    asked += 1;
                }
            }
            (asked, longest)
        });
        for number in 0..50 {
            let generation = health(&server)["generation"].as_u64().unwrap();
            server.write("orders/b.toml", &order("b", "*", &format!("b{number}.example"), ""));
            server.signal("HUP");
            until("a reload", || health(&server)["generation"].as_u64().unwrap() > generation);
        }
        over.store(true, Ordering::Relaxed);
        let (asked, longest) = asking.join().unwrap();
        // A bound that only a query that waited for an upstream's timeout, or was lost, would break.
        assert!(asked > 100 && longest < Duration::from_secs(2), "{asked} queries, the longest {longest:?}");
    });
}

#[test]
fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/.keep", "")]);
    let path = |name: &str| server.folder().join(name);
    let config = server.tls(rustls::ALL_VERSIONS, &[]);
    let mut old = server.dot_by(&config).unwrap();
    old.ask(&[query(1, "a.example", Qtype::A)]);
    old.receive();
    let leaf = |dot: &Dot| dot.tls.conn.peer_certificates().unwrap()[0].to_vec();
    fs::create_dir(path("new")).unwrap();
    for name in ["ca.pem", "ca.key"] {
        fs::copy(path("certs").join(name), path("new").join(name)).unwrap();
    }
    assert_eq!(run(&server.folder(), &["certs", "--out", "new", "127.0.0.1"]).code, Some(0));
    for name in ["server.key", "server.pem"] {
        fs::rename(path("new").join(name), path("certs").join(name)).unwrap();
    }
    until("taken", || leaf(&server.dot()) != leaf(&old));
    old.ask(&[query(2, "a.example", Qtype::A)]);
    assert_eq!(old.receive().id, 2, "a connection from before lives");
    let resumed = server.dot_by(&config).unwrap();
    assert_eq!(resumed.tls.conn.handshake_kind(), Some(HandshakeKind::Resumed), "a ticket from before is taken");
    let (good, new) = (fs::read_to_string(path("certs/server.pem")).unwrap(), leaf(&server.dot()));
    server.write("certs/server.pem", "rubbish");
    until("refused", || reason(&server, "certificate").contains("server.pem: has no certificate"));
    assert!(reason(&server, "certificate").contains("the old one stays"));
    assert_eq!(leaf(&server.dot()), new);
    server.write("certs/server.pem", &good);
    until("in order again", || is_ok(&server));
}

#[test]
fn a_certificate_that_expires_shows_in_health() {
    let (chain, key) = certificate(None, false, "short", DAY + Duration::from_secs(4));
    let upstream = upstream();
    let files = [("certs/server.pem", &chain[..]), ("certs/server.key", &key.serialize_pem())];
    let server = Server::start_with(&files, &[], &upstream.config(""));
    until("expired", || reason(&server, "certificate-expiry").contains("expired at"));
}

// ---- Life, two persons, and the clock ----

/// The configuration of a server that asks for two approvals, and the folder of the keys of Anna and Bert.
fn two_persons() -> (String, TempDir) {
    let keys = TempDir::new().unwrap();
    let mut config = format!("{POLICY}policy.approvals = 2\n");
    for name in ["anna", "bert"] {
        let made = run(keys.path(), &["sign", "--new", name]);
        assert_eq!((made.code, made.err.as_str()), (Some(0), ""));
        config +=
            made.out.split_once("[[policy.key]]").map(|(_, key)| format!("[[policy.key]]{key}")).unwrap().as_str();
        let mode = fs::metadata(keys.path().join(format!("{name}.key"))).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "it is its owner's alone");
        let again = run(keys.path(), &["sign", "--new", name]);
        assert!(again.code == Some(1) && again.err.contains("is there already"), "{}", again.err);
    }
    (config, keys)
}

fn sign(server: &Server, keys: &TempDir, file: &str, name: &str) {
    let key = keys.path().join(format!("{name}.key"));
    let ran = run(&server.folder(), &["sign", file, "--key", key.to_str().unwrap()]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(ran.out.contains(&format!("{file}.{name}.minisig")), "{}", ran.out);
}

fn orders(server: &Server) -> Value {
    ask(server, &["orders", "--json"]).json()
}

#[test]
fn an_order_takes_two_persons_and_its_lift_one() {
    let upstream = upstream();
    let (config, keys) = two_persons();
    let mut server = Server::start_with(&[("orders/.keep", "")], &[], &upstream.config(&config));
    server.write("orders/it.toml", &order("it", "IT", "listed.example", ""));
    until("a draft", || {
        reason(&server, "orders").contains("it.toml: has 0 of 2 approvals; sign it with `bailiwick sign")
    });
    assert!(reason(&server, "orders").ends_with("until then it is a draft, and not carried out"));
    assert!(server.log().contains("WARN") && server.log().contains("it lacks approvals, and is a draft order=\"it\""));
    sign(&server, &keys, "orders/it.toml", "anna");
    until("one", || orders(&server)[0]["approvals"]["have"] == 1);
    let line = orders(&server)[0].clone();
    assert_eq!(
        (&line["state"], &line["approvals"]["need"], &line["approvals"]["by"][0]),
        (&"draft".into(), &2.into(), &"anna".into())
    );
    assert!(ask(&server, &["orders"]).out.contains("1 of 2"));
    assert_eq!(rcode(&server, ITALIAN, "listed.example"), NOERROR);
    sign(&server, &keys, "orders/it.toml", "bert");
    until("in force", || rcode(&server, ITALIAN, "listed.example") == NXDOMAIN);
    until("in order", || is_ok(&server));
    until("recorded", || orders(&server)[0]["recorded"] == true);
    // A change waits for both, a lift for one; each also across a restart.
    server.write("orders/it.toml", &order("it", "IT", "another.example", ""));
    until("pending", || orders(&server)[0]["state"] == "pending");
    sign(&server, &keys, "orders/it.toml", "bert");
    for _ in 0..2 {
        until("one", || orders(&server)[0]["approvals"]["have"] == 1);
        let found = ["listed.example", "another.example"].map(|name| rcode(&server, ITALIAN, name));
        assert_eq!(found, [NXDOMAIN, NOERROR]);
        assert!(reason(&server, "orders").contains("has 1 of 2 approvals (bert)"));
        assert!(server.restart());
    }
    server.remove("orders/it.toml");
    until("gone", || reason(&server, "orders").contains("it.toml: the file is gone, which lifts nothing"));
    assert_eq!(rcode(&server, ITALIAN, "listed.example"), NXDOMAIN);
    server.write("orders/it.toml", &order("it", "IT", "listed.example", "").replace("in-force", "lifted"));
    sign(&server, &keys, "orders/it.toml", "anna");
    until("lifted", || rcode(&server, ITALIAN, "listed.example") == NOERROR);
    until("in order", || is_ok(&server));
    // With the server and without it, the same is told.
    server.write("orders/it.toml", &order("it", "IT", "listed.example", "reinstated = 2026-01-01"));
    until("seen", || orders(&server)[0]["approvals"]["need"] == 2);
    let with = orders(&server);
    server.signal("TERM");
    server.wait();
    let ledger = fs::read_to_string(server.folder().join("state/ledger.jsonl")).unwrap();
    let events =
        ledger.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned());
    let events: Vec<_> = events.filter(|event| event.starts_with("order-")).collect();
    let life = ["order-loaded", "order-approved", "order-activated", "order-amended", "order-approved", "order-lifted"];
    assert_eq!(events, life, "each once, across restarts");
    let without = orders(&server);
    for key in ["id", "state", "approvals", "approved", "loaded", "effective-since", "pending"] {
        assert_eq!(with[0][key], without[0][key], "{key}");
    }
}

/// Keys and how many it takes come by the configuration, to a running server too.
#[test]
fn approvals_are_asked_for_from_a_reload_on() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/it.toml", &order("it", "IT", "listed.example", ""))]);
    assert_eq!(rcode(&server, ITALIAN, "listed.example"), NXDOMAIN);
    let (config, keys) = two_persons();
    server.configure(&upstream.config(&config));
    until("asked for", || reason(&server, "orders").contains("it.toml: has 0 of 2 approvals"));
    assert_eq!(rcode(&server, ITALIAN, "listed.example"), NOERROR, "nobody approved it");
    for name in ["anna", "bert"] {
        sign(&server, &keys, "orders/it.toml", name);
    }
    until("in force", || rcode(&server, ITALIAN, "listed.example") == NXDOMAIN);
    // Without its key a signature counts no more; what it approved is approved.
    let (anna, _) = config.rsplit_once("[[policy.key]]").unwrap();
    server.configure(&upstream.config(&anna.replace("approvals = 2", "approvals = 1")));
    until("taken out", || orders(&server)[0]["approvals"]["have"] == 1);
    assert_eq!(rcode(&server, ITALIAN, "listed.example"), NXDOMAIN);
    server.configure(&upstream.config(anna));
    until("refused", || reason(&server, "configuration").contains("approvals: 2, and there are 1 [[policy.key]]"));
    assert_eq!(rcode(&server, ITALIAN, "listed.example"), NXDOMAIN);
}

#[test]
fn a_mistaken_order_is_not_signed() {
    let (_, keys) = two_persons();
    let list = "list = { file = 'a.txt', format = 'domains', covers = 'exact' }\n";
    for (text, line) in [
        (order("it", "XX", "a.example", ""), "it.toml:3:17: "),
        (order("it", "IT", "a.example", "") + list, "it.toml:9:8: a list without its sha256"),
    ] {
        fs::write(keys.path().join("it.toml"), text).unwrap();
        let ran = run(keys.path(), &["sign", "it.toml", "--key", "anna.key"]);
        assert!(ran.code == Some(1) && ran.err.starts_with(line) && ran.out.is_empty(), "{}", ran.err);
        assert!(!keys.path().join("it.toml.anna.minisig").exists());
    }
    for words in
        [&["sign"][..], &["sign", "it.toml"], &["sign", "--new", "a", "--key", "b"], &["sign", "a", "--new", "b"]]
    {
        let ran = run(keys.path(), words);
        assert_eq!(ran.code, Some(2), "{words:?}");
        assert!(ran.err.contains("sign FILE --key KEY") && ran.err.contains("sign --new NAME"), "{}", ran.err);
    }
}

#[test]
fn past_due_and_not_carried_out_shows_in_health_and_metrics() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/.keep", "")]);
    let due = Timestamp::now() + SignedDuration::from_secs(3);
    let text = order("late", "*", "listed.example", &format!("due = {due:.3}"));
    server.write("orders/late.toml", &text.replace("in-force", "trial"));
    until("loaded", || orders(&server).as_array().unwrap().len() == 1);
    if Timestamp::now() < due - SignedDuration::from_millis(500) {
        assert!(is_ok(&server));
    }
    until("past due", || reason(&server, "deadline").starts_with("past due and not carried out: late;"));
    assert!(Timestamp::now() >= due);
    let line = orders(&server)[0].clone();
    assert!(line["overdue"] == true && line["seconds-left"].as_i64().unwrap() < 0, "{line}");
    assert!(ask(&server, &["orders"]).out.contains("overdue: "));
    server.write("orders/late.toml", &text);
    until("carried out", || is_ok(&server));
    let line = orders(&server)[0].clone();
    let since: Timestamp = line["effective-since"].as_str().unwrap().parse().unwrap();
    assert!(since > due && line["overdue"] == false && line["targets-clock"][0]["effective-since"].is_string());
    let page = server.get("/metrics").unwrap();
    assert!(page.contains("bailiwick_order_deadline_seconds{id=\"late\"} -"), "{page}");
    let since = format!("bailiwick_order_effective_since_seconds{{id=\"late\"}} {}", since.as_second());
    assert!(page.contains(&since), "{since} is not in\n{page}");
}

#[test]
fn a_lifted_order_comes_back_by_a_decision_only() {
    let upstream = upstream();
    let mut server = policed(&upstream, &[("orders/it.toml", &order("it", "IT", "listed.example", ""))]);
    let since = || orders(&server)[0]["effective-since"].clone();
    until("carried out", || since().is_string());
    let first = since();
    server.remove("orders/it.toml");
    until("lifted", || rcode(&server, ITALIAN, "listed.example") == NOERROR);
    until("logged", || server.log().contains("order removed order=\"it\""));
    server.write("orders/it.toml", &order("it", "IT", "listed.example", ""));
    for _ in 0..2 {
        until("told", || reason(&server, "orders").contains("it.toml:5:9: was lifted on "));
        assert!(reason(&server, "orders").ends_with("until then it stays lifted"));
        assert_eq!(rcode(&server, ITALIAN, "listed.example"), NOERROR);
        assert_eq!(orders(&server)[0]["state"], "lifted");
        let check = ask(&server, &["check"]);
        assert!(check.code == Some(1) && check.err.contains("it.toml:5:9: was lifted on "), "{}", check.err);
        assert!(server.restart());
    }
    let today = Timestamp::now().to_string()[..10].to_owned();
    server.write("orders/it.toml", &order("it", "IT", "listed.example", &format!("reinstated = {today}")));
    until("back", || rcode(&server, ITALIAN, "listed.example") == NXDOMAIN);
    until("in order", || is_ok(&server));
    assert_eq!(orders(&server)[0]["effective-since"], first, "the first time is remembered");
}

// ---- Commands ----

#[test]
fn check_tells_every_mistake_with_its_place() {
    let policy = "[policy]\norders = 'orders'\n[[policy.list]]\nname = 'm'\nfile = 'm.txt'\nformat = 'domains'\ncovers = 'exact'\n";
    let config = format!("{NOWHERE}{policy}");
    let good = order("a", "IT", "a.example", "");
    let folder = folder_with(&[("a.toml", &config), ("orders/a.toml", &good), ("m.txt", "good.example\n")]);
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let check = || run(folder.path(), &["check", "--config", "a.toml"]);
    let ran = check();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "1 of 1 order in force, 1 list, 2 rules\n"));
    assert!(ran.err.lines().all(|line| line.starts_with("warning: ")), "{}", ran.err);
    assert!(ran.err.contains("order a is for IT") && ran.err.contains("certs/server.pem: not there yet"));
    assert!(!folder.path().join("certs").exists() && !folder.path().join("state").exists(), "check writes nothing");
    write("m.txt", "");
    assert_eq!(check().out, "1 of 1 order in force, 1 list, 1 rule\n");
    write("orders/a.toml", &good.replace("'IT'", "'XX'").replace("'in-force'", "'inforce'"));
    write("m.txt", "good.example\na..b\nc d\n");
    fs::create_dir(folder.path().join("certs")).unwrap();
    write("certs/server.pem", "rubbish");
    write("certs/server.key", "rubbish");
    let ran = check();
    let places: Vec<_> = ran.err.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        ["orders/a.toml:3:17", "orders/a.toml:5:9", "m.txt:2:1", "m.txt:3:3", "certs/server.pem"],
        "{}",
        ran.err
    );
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
}

#[test]
fn check_warns_of_discovery_that_the_certificate_does_not_cover() {
    let resolver = "[resolver]\nname = 'dns.example.net'\naddresses = ['192.0.2.53']\n";
    let folder = folder_with(&[("a.toml", &format!("{NOWHERE}{resolver}"))]);
    assert_eq!(run(folder.path(), &["certs", "localhost"]).code, Some(0));
    let ran = run(folder.path(), &["check", "--config", "a.toml"]);
    assert_eq!((ran.code, ran.err.lines().count()), (Some(0), 2), "{}", ran.err);
    assert!(ran.err.contains("does not name dns.example.net") && ran.err.contains("does not name 192.0.2.53"));
}

#[test]
fn check_warns_of_proxies_that_are_everyone() {
    let listen = |key: &str, prefix: &str| {
        NOWHERE.replace("[listen]", &format!("[listen]\n{key} = ['192.0.2.0/24', '{prefix}']"))
    };
    for key in ["proxy-from", "forwarded-from"] {
        for (prefix, is_everyone) in [("0.0.0.0/0", true), ("::/0", true), ("0.0.0.0/1", false)] {
            let folder = folder_with(&[("a.toml", &listen(key, prefix))]);
            assert_eq!(run(folder.path(), &["certs", "localhost"]).code, Some(0));
            let ran = run(folder.path(), &["check", "--config", "a.toml"]);
            let warning = format!("warning: [listen] {key}: {prefix} is everyone, and everyone is believed;");
            assert_eq!((ran.code, ran.err.contains(&warning)), (Some(0), is_everyone), "{}", ran.err);
        }
    }
}

const EXPLAIN_KEYS: [&str; 10] =
    ["name", "type", "client", "country", "ground", "verdict", "effect", "by", "exemption", "also"];
const ORDER_KEYS: [&str; 8] = ["id", "issuer", "state", "jurisdiction", "targets", "received", "due", "effective"];

/// With a server and without, the answers are the same.
#[test]
fn explain_and_orders_tell_the_same_with_a_server_and_without() {
    let upstream = upstream();
    let it = order("it", "IT", "listed.example", "due = 2026-02-01T00:00:00Z");
    let soon = order("soon", "*", "soon.example", "effective = 2099-01-01T00:00:00Z\neffect = { a = '192.0.2.80' }");
    let files = [("orders/it.toml", &it[..]), ("orders/soon.toml", &soon), ("m.txt", "listed.example\nm.example\n")];
    let list = "[[policy.list]]\nname = 'm'\nfile = '{folder}/m.txt'\nformat = 'domains'\ncovers = 'subtree'\neffect = 'nodata'\n";
    let mut server = Server::start_with(&files, &[], &upstream.config(&format!("{POLICY}{list}")));
    let alias = ask(&server, &["explain", "alias.example", "--client", "127.0.0.2", "--json"]).json();
    assert_eq!((&alias["verdict"], &alias["through"]), (&"block".into(), &"listed.example".into()), "{alias}");
    assert_eq!(alias["by"]["id"], "it");
    for _ in 0..2 {
        let explain = |words: &[&str]| {
            let told = ask(&server, &[&["explain", "--json"], words].concat()).json();
            assert!(EXPLAIN_KEYS.iter().all(|key| told.get(key).is_some()), "{told}");
            told
        };
        let clean = explain(&["clean.example", "--client", "2001:db8::1", "--type", "HTTPS"]);
        assert_eq!(
            (&clean["verdict"], &clean["by"], &clean["country"]),
            (&"forward".into(), &Value::Null, &Value::Null)
        );
        assert_eq!((&clean["type"], &clean["client"]), (&"HTTPS".into(), &"2001:db8::1".into()));
        let by_order = explain(&["www.listed.example", "--client", "127.0.0.2"]);
        assert_eq!((&by_order["verdict"], &by_order["effect"]), (&"block".into(), &"nxdomain".into()));
        assert_eq!((&by_order["country"], &by_order["by"]["kind"]), (&"IT".into(), &"order".into()));
        assert_eq!((&by_order["by"]["id"], &by_order["by"]["line"]), (&"it".into(), &8.into()));
        assert!(by_order["by"]["file"].as_str().unwrap().ends_with("orders/it.toml"));
        assert_eq!(by_order["also"][0]["id"], "m");
        let by_list = explain(&["www.listed.example", "--client", "127.0.0.1"]);
        assert_eq!((&by_list["by"]["kind"], &by_list["effect"]), (&"list".into(), &"nodata".into()));
        assert_eq!((&by_list["by"]["line"], &by_list["also"][0]["id"]), (&1.into(), &"it".into()));
        assert_eq!(explain(&["resolver.arpa"])["verdict"], "local");
        assert_eq!(explain(&["soon.example"])["verdict"], "forward");
        let then = explain(&["soon.example", "--at", "2099-01-01T01:00:00+01:00"]);
        assert_eq!((&then["verdict"], &then["effect"]["a"]), (&"block".into(), &"192.0.2.80".into()));
        let text = ask(&server, &["explain", "listed.example", "--client", "127.0.0.2"]).out;
        assert!(text.contains("verdict    block, nxdomain\nby         order it, "), "{text}");
        let orders = ask(&server, &["orders", "--json"]).json();
        assert!(ORDER_KEYS.iter().all(|key| orders[0].get(key).is_some() && orders[1].get(key).is_some()));
        assert_eq!((&orders[0]["state"], &orders[1]["state"]), (&"in-force".into(), &"waiting".into()));
        assert_eq!((&orders[0]["jurisdiction"][0], &orders[0]["targets"]), (&"IT".into(), &1.into()));
        let table = ask(&server, &["orders"]).out;
        assert!(table.starts_with("STATE") && table.lines().count() == 3, "{table}");
        let wrong = ask(&server, &["explain", "a..b"]);
        assert!(wrong.code == Some(1) && wrong.err.starts_with("\"a..b\" is not a name"), "{}", wrong.err);
        if TcpStream::connect((Ipv4Addr::LOCALHOST, server.admin_port)).is_ok() {
            server.signal("INT");
            assert_eq!(server.wait().code(), Some(0));
        }
    }
}

#[test]
fn who_reads_no_further_is_no_failure() {
    let folder = folder_with(&[("a.toml", NOWHERE)]);
    for words in [&["orders", "--config", "a.toml"][..], &["--help"], &["explain", "a.example", "--config", "a.toml"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
            .args(words)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{words:?}");
    }
}

// ---- Telling the operator ----

#[test]
fn a_loop_makes_it_unready_and_is_named() {
    let mut server = Server::start("");
    let (port, tls) = (server.dot_port, server.tls(rustls::ALL_VERSIONS, &[]));
    // A forwarder on this machine that asks us.
    let forwarder = Upstream::start(move |asked| {
        let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|socket| Dot::connect(socket, &tls));
        let Ok(mut dot) = connected else { return Play::Silence };
        dot.tls.sock.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        dot.ask(std::slice::from_ref(&asked.octets));
        let mut octets = [0; 1_024];
        match dot.tls.read(&mut octets) {
            Ok(length) if length > 2 => Play::Respond(octets[2..length].to_vec()),
            _ => Play::Silence,
        }
    });
    server.configure(&forwarder.config(""));
    server.relaunch();
    let ready = || server.get("/ready").unwrap_or_default();
    until("a loop", || ready().starts_with("HTTP/1.1 503 "));
    assert!(ready().contains(&format!("{} forwards to us: a loop", forwarder.address)), "{}", ready());
    assert!(server.get("/health").unwrap().starts_with("HTTP/1.1 200 "));
}

/// The families of the work order, as `/metrics` must have them after some traffic.
const FAMILIES: [&str; 17] = [
    "queries_total{",
    "answers_total{",
    "blocks_total{",
    "cache_hits_total",
    "cache_misses_total",
    "cache_stale_total",
    "upstream_latency_seconds_bucket{",
    "upstream_latency_seconds_count{",
    "upstream_failures_total{",
    "connections_total{",
    "connections_open{",
    "handshakes_total{",
    "handshake_failures_total",
    "policy_generation ",
    "policy_rules{",
    "orders_in_force ",
    "bounds_total{",
];

#[test]
fn metrics_are_prometheus_text_with_every_family() {
    let upstream = upstream();
    let server = policed(&upstream, &[("orders/a.toml", &order("a", "*", "listed.example", ""))]);
    for name in ["listed.example", "clean.example", "clean.example", "broken.example"] {
        rcode(&server, OTHER, name);
    }
    let response = server.get("/metrics").unwrap();
    assert!(response.to_lowercase().contains("content-type: "), "{response}");
    let page = body(&response);
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        assert!(
            name.starts_with("bailiwick_") && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
        );
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(!series.contains('{') || series.ends_with('}'), "{line}");
    }
    for family in FAMILIES {
        let is_there = page.lines().any(|line| line.starts_with(&format!("bailiwick_{family}")));
        assert!(is_there, "{family} is not on the page:\n{page}");
    }
    assert!(page.contains("bailiwick_blocks_total{kind=\"order\",id=\"a\"} 1"), "{page}");
}

#[test]
fn the_admin_listener_takes_get_for_its_own_host_only() {
    let server = Server::start("");
    let said = |request: &str| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.admin_port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(said("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), "200");
    assert_eq!(said("GET /health HTTP/1.1\r\nHost: attacker.example\r\n\r\n"), "421");
    assert_eq!(said("POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"), "405");
    assert_eq!(said("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"), "404");
}

// ---- Privacy ----

/// What no file and no page may have: of names, a label; of clients, an address.
const CANARIES: [&str; 3] = ["canary", "127.77.", "127, 77"];

#[test]
fn no_name_and_no_client_is_written_anywhere() {
    let upstream = upstream();
    let files = [("orders/a.toml", &order("a", "*", "listed.example", "")[..])];
    let limits = "[limits]\nconnections-per-client = 2\nqueries-per-second-per-client = 20\nmessage-timeout = '1s'\n\
                  [upstream]\ndeadline = '1s'\n";
    let wrapper = ["env", "RUST_LOG=trace"];
    let mut server = Server::start_with(&files, &wrapper, &upstream.config(&format!("{POLICY}{limits}")));
    let client = |last| [127, 77, 7, last];
    for (last, name) in (1..).zip([
        "canary.example",
        "canary.listed.example",
        "silent-canary.example",
        "canary.test",
        "canary.broken.example",
    ]) {
        let mut dot = server.dot_from(client(last));
        let edns = query_with_opt(1, name, Qtype::A, b"\0\x08\0\x07\0\x01\x18\0\x7f\x4d\x07");
        dot.ask(&[query(2, name, Qtype::A), edns]);
        dot.receive();
        dot.receive();
        https(&server, client(last + 50), &target(&query(0, name, Qtype::AAAA)));
        https(&server, client(last + 50), &target(name.as_bytes()));
        https(&server, client(last + 50), &format!("/{name}"));
        https(&server, client(last + 50), &format!("/orders/{name}"));
    }
    let mut dot = server.dot_from(client(30));
    for _ in 0..10 {
        dot.ask(&[query(1, "canary.listed.example", Qtype::A)]);
        assert_eq!(dot.receive().rcode, NXDOMAIN);
    }
    over_h2(&server, client(100));
    provoke(&server, client(200));
    for page in ["/metrics", "/health", "/ready", "/orders"] {
        clean(page, &server.get(page).unwrap());
    }
    server.signal("HUP");
    server.signal("TERM");
    server.wait();
    // The folder below has it, and it says how much was blocked.
    let ledger = fs::read_to_string(server.folder().join("state/ledger.jsonl")).unwrap();
    assert!(ledger.lines().last().unwrap().contains("\"event\":\"counts\"") && ledger.contains("\"a\":10"), "{ledger}");
    assert!(server.log().contains("a bound was reached"), "bounds were provoked:\n{}", server.log());
    let mut folders = vec![server.folder()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => clean(
                    &entry.path().display().to_string(),
                    &String::from_utf8_lossy(&fs::read(entry.path()).unwrap()),
                ),
            }
        }
    }
}

fn clean(place: &str, text: &str) {
    let text = text.to_lowercase();
    for canary in CANARIES {
        assert!(!text.contains(canary), "{place} has {canary}:\n{text}");
    }
}

/// A query, a bad one and a bad path over HTTP/2.
fn over_h2(server: &Server, source: [u8; 4]) {
    let (port, config) = (server.doh_port, server.tls(rustls::ALL_VERSIONS, &[b"h2"]));
    let good = target(&query(0, "canary-h2.example", Qtype::A));
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        let socket = connect_from(source, port).unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpStream::from_std(socket).unwrap();
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let tls = tokio_rustls::TlsConnector::from(config).connect(name, socket).await.unwrap();
        let (client, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        for target in [good, "/dns-query?dns=canary".to_owned(), "/canary".to_owned()] {
            let request = http::Request::get(format!("https://canary.example{target}")).header("x-canary", "canary");
            let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            let _ = response.await;
        }
    });
}

/// What goes wrong with clients: no TLS, another ALPN, too many connections and queries, messages cut and malformed.
fn provoke(server: &Server, source: [u8; 4]) {
    for port in [server.dot_port, server.doh_port] {
        let mut plain = connect_from(source, port).unwrap();
        let _ = plain.write_all(b"GET /canary HTTP/1.1\r\nHost: canary.example\r\n\r\n");
        let _ = plain.read(&mut [0; 64]);
    }
    let another = server.tls(rustls::ALL_VERSIONS, &[b"canary"]);
    assert!(Dot::connect(connect_from(source, server.dot_port).unwrap(), &another).is_err());
    let held: Vec<_> = (0..4).map(|_| connect_from(source, server.dot_port).unwrap()).collect();
    sleep(Duration::from_millis(100));
    drop(held);
    sleep(Duration::from_millis(300));
    let mut dot = server.dot_from([127, 77, 8, 1]);
    let _ = dot.tls.write_all(&support::framed(&vec![query(1, "canary-rate.example", Qtype::A); 100]));
    let _ = dot.tls.read(&mut [0; 4_096]);
    let mut begun = server.dot_from([127, 77, 8, 2]);
    begun.send(b"\0\x40canary");
    let _ = begun.end();
    let mut malformed = server.dot_from([127, 77, 8, 3]);
    malformed.send(&support::framed(&[b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x3fcanary".to_vec()]));
    let _ = malformed.tls.read(&mut [0; 64]);
}

// ---- Drain ----

#[test]
fn a_drain_is_seen_finishes_and_ends_well() {
    for signal in ["TERM", "INT"] {
        let upstream = Upstream::delaying();
        let mut server = Server::before(&upstream, "");
        let mut dot = server.dot();
        dot.ask(&[query(1, "delay2000.example", Qtype::A)]);
        let asked = upstream.asked();
        until("asked", || upstream.asked() > asked || upstream.asked() >= 2);
        server.signal(signal);
        until("draining", || server.get("/ready").unwrap().starts_with("HTTP/1.1 503 "));
        assert!(server.get("/ready").unwrap().contains("draining"));
        assert!(server.get("/health").unwrap().starts_with("HTTP/1.1 200 "));
        server.signal(signal);
        server.signal("HUP");
        assert_eq!(dot.receive().addresses.len(), 1);
        drop(dot);
        assert_eq!(server.wait().code(), Some(0), "{}", server.log());
        assert!(server.log().contains("drained"));
    }
}
