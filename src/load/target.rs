//! TARGET: where the server is, by which name it is known, and whether it may be loaded.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use rustls::pki_types::ServerName;

/// What is spoken to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// DNS over HTTPS, HTTP/2 (RFC 8484).
    Doh,
    /// DNS over TLS (RFC 7858).
    Dot,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Doh => "doh",
            Self::Dot => "dot",
        })
    }
}

/// The ports where a target names none.
const DOH_PORT: u16 = 443;
const DOT_PORT: u16 = 853;

/// The path where a target names none (RFC 8484's examples, and what servers have).
const PATH: &str = "/dns-query";

/// The longest path: requests hold it in one frame.
const PATH_OCTETS_MAX: usize = 1_024;

/// A server.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whom its certificate is to be for.
    pub name: ServerName<'static>,
    /// Host and port as a request names them.
    pub authority: String,
    /// The path of DoH.
    pub path: String,
}

/// A target as it was written.
#[derive(Debug, PartialEq, Eq)]
struct Written<'a> {
    host: &'a str,
    port: u16,
    authority: &'a str,
    path: &'a str,
}

impl Target {
    /// Reads a target and looks its name up. One that is not this machine is refused unless `may_load`.
    ///
    /// # Errors
    /// When it is no target, has no address, or is refused: a sentence.
    pub fn find(text: &str, protocol: Protocol, may_load: bool) -> Result<Self, String> {
        let written = Written::read(text, protocol).map_err(|what| format!("{text}: {what}"))?;
        let name = ServerName::try_from(written.host.to_owned())
            .map_err(|_| format!("{text}: `{}` is neither a host name nor an address", written.host))?;
        let addresses: Vec<_> =
            (written.host, written.port).to_socket_addrs().map_err(|error| format!("{text}: {error}"))?.collect();
        if let Some(address) = addresses.iter().map(SocketAddr::ip).find(|address| !is_this_machine(*address))
            && !may_load
        {
            return Err(refusal(text, written.host, address));
        }
        let address = *addresses.first().ok_or_else(|| format!("{text}: {} has no address", written.host))?;
        Ok(Self { address, name, authority: written.authority.to_owned(), path: written.path.to_owned() })
    }
}

fn is_this_machine(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn refusal(text: &str, host: &str, address: IpAddr) -> String {
    let place = match host.parse::<IpAddr>() {
        Ok(_) => format!("{address} is not this machine"),
        Err(_) => format!("{host} is at {address}, which is not this machine"),
    };
    format!(
        "{text}: {place}. A load test takes a resolver from the people who use it, as an attack does;\n\
         where it is yours, or its operator has agreed, say so with --i-may-load-this-server"
    )
}

impl<'a> Written<'a> {
    /// `https://host:port/path` for DoH, where `https://` and the path may be left out; `host:port` for DoT.
    fn read(text: &'a str, protocol: Protocol) -> Result<Self, &'static str> {
        let (usual, hint) = match protocol {
            Protocol::Doh => ("https", "write it as https://127.0.0.1:8443/dns-query"),
            Protocol::Dot => ("tls", "write it as 127.0.0.1:8853, [::1]:853 or a name"),
        };
        let (scheme, rest) = text.split_once("://").unwrap_or((usual, text));
        let (default_port, authority, path) = match protocol {
            Protocol::Dot => (DOT_PORT, rest, PATH),
            Protocol::Doh => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (DOH_PORT, authority, if path.len() > 1 { path } else { PATH })
            }
        };
        // Of a URL's scheme capitals mean nothing (RFC 3986 §3.1).
        if !scheme.eq_ignore_ascii_case(usual) || authority.contains(['/', '@', '?', '#']) {
            return Err(hint);
        }
        if path.len() > PATH_OCTETS_MAX
            || !path.bytes().all(|octet| octet.is_ascii_graphic())
            || path.contains(['?', '#'])
        {
            return Err("a path is visible ASCII without ? and #, 1024 octets at most");
        }
        let (host, port) = split_port(authority)?;
        let port = port.map_or(Ok(default_port), str::parse).map_err(|_| "a port is a number up to 65535")?;
        if host.is_empty() || port == 0 {
            return Err("a host and a port are needed, such as 127.0.0.1:8443");
        }
        Ok(Self { host, port, authority, path })
    }
}

/// A host, an IPv6 address without its brackets, and the port behind it.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or("the ] of an IPv6 address is missing")?;
        return match behind.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if behind.is_empty() => Ok((host, None)),
            None => Err("behind the ] of an IPv6 address stands a port, such as [::1]:853"),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => Err("an IPv6 address stands in brackets, such as [::1]:853"),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read() {
        let read = |text, protocol| {
            let Written { host, port, authority, path } = Written::read(text, protocol).unwrap();
            (host, port, authority, path)
        };
        for (text, want) in [
            ("https://127.0.0.1:8443/q", ("127.0.0.1", 8443, "127.0.0.1:8443", "/q")),
            ("HTTPS://dns.example", ("dns.example", 443, "dns.example", "/dns-query")),
            ("[::1]:8443/", ("::1", 8443, "[::1]:8443", "/dns-query")),
        ] {
            assert_eq!(read(text, Protocol::Doh), want);
        }
        for (text, want) in [("127.0.0.1:8853", ("127.0.0.1", 8853)), ("[::1]", ("::1", 853)), ("a.b", ("a.b", 853))] {
            let (host, port, ..) = read(text, Protocol::Dot);
            assert_eq!((host, port), want);
        }
    }

    #[test]
    fn what_is_no_target_is_told() {
        let long = format!("a/{}", "b".repeat(PATH_OCTETS_MAX));
        for text in ["", ":1", "a:0", "a:65536", "::1", "[::1", "[::1]8", "u@a", "http://a", "a/?b", "a/\u{e9}", &long]
        {
            assert!(Target::find(text, Protocol::Doh, true).is_err(), "{text}");
        }
        for text in ["https://127.0.0.1", "127.0.0.1/dns-query", "a_b c"] {
            assert!(Target::find(text, Protocol::Dot, true).is_err(), "{text}");
        }
        for text in ["http://127.0.0.1:80/dns-query", "tls://127.0.0.1", "u@127.0.0.1"] {
            let told = Target::find(text, Protocol::Doh, true).unwrap_err();
            assert!(told.ends_with("write it as https://127.0.0.1:8443/dns-query"), "{told}");
        }
    }

    #[test]
    fn only_this_machine_is_loaded_without_a_word() {
        for text in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
            assert!(Target::find(text, Protocol::Dot, false).is_ok(), "{text}");
        }
        for text in ["192.0.2.1", "[2001:db8::1]", "0.0.0.0", "[::]", "[::ffff:192.0.2.1]"] {
            let refused = Target::find(text, Protocol::Dot, false).unwrap_err();
            assert!(refused.contains("--i-may-load-this-server"), "{refused}");
            assert!(Target::find(text, Protocol::Dot, true).is_ok(), "{text}");
        }
    }
}
