//! The resolvers that `/etc/resolv.conf` names, followed as it changes.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};

/// Where the system names its resolvers (resolv.conf(5)).
pub(super) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The most resolvers that are taken from the system; libc takes three.
pub const SYSTEM_RESOLVERS_MAX: usize = 8;

/// The most octets of the file that are read.
const FILE_OCTETS_MAX: u64 = 64 * 1024;

/// Where DNS is served.
const PORT: u16 = 53;

/// A file, and what it last said.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    last: Option<Vec<SocketAddr>>,
    /// It named somebody, and at the last look nobody.
    emptied: bool,
}

impl Follower {
    /// Nothing is read yet.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), last: None, emptied: false }
    }

    /// What the file says now, where that is something else than the last time. The whole file is read, not its time
    /// of change compared: it is tiny, and times are coarse. While it cannot be read, what it said before holds.
    pub(super) fn changed(&mut self) -> Option<Vec<SocketAddr>> {
        let addresses = parse(&read(&self.path)?);
        // A file that is being written is empty for a moment: it takes a second look to believe it.
        let emptied = addresses.is_empty() && self.last.as_ref().is_some_and(|last| !last.is_empty());
        if std::mem::replace(&mut self.emptied, emptied) != emptied && emptied {
            return None;
        }
        if self.last.as_ref() == Some(&addresses) {
            return None;
        }
        self.last = Some(addresses.clone());
        Some(addresses)
    }
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut octets = Vec::new();
    fs::File::open(path).ok()?.take(FILE_OCTETS_MAX).read_to_end(&mut octets).ok()?;
    Some(String::from_utf8_lossy(&octets).into_owned())
}

/// The addresses of `nameserver` lines, each once, at most [`SYSTEM_RESOLVERS_MAX`]. Everything else is passed over.
#[must_use]
pub fn parse(text: &str) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for address in text.lines().filter_map(nameserver) {
        if addresses.len() < SYSTEM_RESOLVERS_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

fn nameserver(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace();
    if words.next()? != "nameserver" {
        return None;
    }
    let address = words.next()?;
    match address.split_once('%') {
        None => Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, PORT)),
        Some((address, scope)) => {
            let address: Ipv6Addr = address.parse().ok()?;
            Some(SocketAddrV6::new(address, PORT, 0, scope_id(scope)?).into())
        }
    }
}

/// The number of a scope (RFC 4007 §11.2): as it stands, or of the interface with that name.
fn scope_id(scope: &str) -> Option<u32> {
    if let Ok(number) = scope.parse() {
        return Some(number);
    }
    let is_plain = !scope.is_empty() && !scope.starts_with('.') && !scope.contains('/');
    let number = fs::read_to_string(Path::new("/sys/class/net").join(is_plain.then_some(scope)?).join("ifindex"));
    number.ok()?.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it skips")]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn nameserver_lines_are_read_and_junk_is_not() {
        let text = "# nameserver 192.0.2.9\n; nameserver 192.0.2.9\nsearch example.org\noptions edns0\n\
            nameserver 192.0.2.1\n  nameserver\t192.0.2.2   # comment\nnameserver 2001:db8::1\r\n\
            nameserver fe80::1%2\nnameserver\nnameserver dns.example\nnameserver 192.0.2.300\nnameserver 192.0.2.4%2\n\
            nameserver fe80::1%../x\nnameserver fe80::1%\nnameservers 192.0.2.8\nnameserver 192.0.2.1\n\u{fffd}\0";
        let expected = ["192.0.2.1:53", "192.0.2.2:53", "[2001:db8::1]:53", "[fe80::1%2]:53"];
        assert_eq!(parse(text), addresses(&expected));
        assert_eq!(parse(""), []);
    }

    #[test]
    fn every_cut_is_read_without_a_panic() {
        let text = "nameserver 192.0.2.1\nnameserver fe80::1%lo\nnameserver 2001:db8::1";
        for cut in 0..text.len() {
            assert!(parse(&text[..cut]).len() <= 3, "cut at {cut}");
        }
    }

    #[test]
    fn an_interface_has_a_number() {
        if Path::new("/sys/class/net/lo").exists() {
            assert!(scope_id("lo").is_some_and(|number| number > 0));
        } else {
            eprintln!("skipped: no /sys/class/net/lo here");
        }
    }

    #[test]
    fn there_are_at_most_so_many() {
        let text: String = (1..20).map(|last| format!("nameserver 192.0.2.{last}\n")).collect();
        assert_eq!(parse(&text).len(), SYSTEM_RESOLVERS_MAX);
    }

    #[test]
    fn changes_are_told_once_and_a_vanished_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let mut follower = Follower::new(&path);
        assert_eq!(follower.changed(), None);
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(follower.changed(), Some(addresses(&["192.0.2.1:53"])));
        assert_eq!(follower.changed(), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(follower.changed(), None);
        fs::write(&path, "# nothing\n").unwrap();
        assert_eq!(follower.changed(), None, "it may be about to be written");
        assert_eq!(follower.changed(), Some(Vec::new()));
        assert_eq!(follower.changed(), None);
    }
}
