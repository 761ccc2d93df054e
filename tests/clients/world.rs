//! What the clients meet: Bailiwick, a real resolver behind it, and the names that both know.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, find, wait_for};
use crate::support::{PATIENCE, Server, free_ports};

/// A name that resolves for everyone.
pub const CLEAN: &str = "www.clean.example.net";

/// A name that an Italian order is about; the upstream resolves it.
pub const BLOCKED: &str = "www.blocked.example.net";

/// The German client's address. 127.0.0.1, which browsers come from, is Italian here.
pub const GERMAN: &str = "127.0.0.2";

/// The Italian order.
const ORDER: &str = r#"
id = "it-test"
issuer = "Tribunale di Prova"
jurisdiction = ["IT"]
received = 2026-01-01T00:00:00Z
state = "in-force"

[[target]]
subtree = ["blocked.example.net"]
"#;

/// Bailiwick with its upstream, both ended with this.
pub struct World {
    /// The port of DoH.
    pub doh: u16,
    /// The port of DoT.
    pub dot: u16,
    // Fields are dropped in this order: the programs before the folder.
    bailiwick: Server,
    _unbound: Process,
    folder: TempDir,
}

impl World {
    /// Starts both; None where unbound is not installed. `hold_fallback` as in `[policy]`.
    pub fn start(hold_fallback: bool) -> Option<Self> {
        let folder = TempDir::new().expect("a folder for temporary files");
        let [upstream] = free_ports();
        let unbound = start_unbound(&find("unbound")?, folder.path(), upstream);
        let bailiwick = start_bailiwick(upstream, hold_fallback);
        Some(Self { doh: bailiwick.doh_port, dot: bailiwick.dot_port, bailiwick, _unbound: unbound, folder })
    }

    /// A folder for what the clients need.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The development CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.bailiwick.ca()
    }

    /// The URL of DoH.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/dns-query", self.doh)
    }
}

/// Bailiwick before this upstream.
fn start_bailiwick(upstream: u16, hold_fallback: bool) -> Server {
    let overrides = format!(
        r#"
        upstream.resolvers = ["127.0.0.1:{upstream}"]
        origin.networks = [{{ prefix = "127.0.0.1/32", country = "IT" }}, {{ prefix = "{GERMAN}/32", country = "DE" }}]
        policy.orders = "{{folder}}/orders"
        policy.hold-fallback = {hold_fallback}
        "#
    );
    Server::start_with(&[("orders/it-test.toml", ORDER)], &[], &overrides)
}

/// A resolver that knows its own names, and that there are no others: nothing leaves the machine.
fn start_unbound(program: &Path, folder: &Path, port: u16) -> Process {
    let mut text = format!(
        r#"server:
  interface: 127.0.0.1@{port}
  port: {port}
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  local-zone: "." static
  local-data: ". 300 IN SOA ns.example.net. host.example.net. 1 7200 900 1209600 60"
  local-data: "example.com. 300 IN NS ns.example.net."
remote-control:
  control-enable: no
"#,
        folder = folder.display()
    );
    let mut data = String::new();
    for name in [CLEAN, BLOCKED] {
        let _ = writeln!(data, "  local-data: \"{name}. 300 IN A 127.0.0.1\"");
    }
    text = text.replace("remote-control:", &format!("{data}remote-control:"));
    let file = folder.join("unbound.conf");
    std::fs::write(&file, text).expect("unbound's configuration");
    let log = folder.join("unbound.log");
    let mut unbound = Process::start(Command::new(program).arg("-d").arg("-c").arg(&file), &log);
    let listens = wait_for(PATIENCE, || unbound.has_ended() || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(listens && !unbound.has_ended(), "unbound does not serve:\n{said}");
    unbound
}
