//! The header of the PROXY protocol, version 2, in front of a connection that a listed proxy passes on.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::io;
use std::net::IpAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Signature, version and command, family, and how long the rest is (§2.2).
pub const PREFIX_OCTETS: usize = 16;

/// What follows the prefix: addresses and TLVs. They are to fit in a first segment of 536 octets (§2.2), but what proxies
/// say of TLS can be longer; a client certificate in whole, which is what does not fit here, is nothing to us.
pub const REST_OCTETS_MAX: usize = 1_024;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, command LOCAL: the proxy's own connection, and the family means nothing.
const LOCAL: u8 = 0x20;

/// Version 2, command PROXY.
const PROXY: u8 = 0x21;

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is no header of version 2.
    Malformed,
    /// It is longer than [`REST_OCTETS_MAX`].
    TooLong,
    /// It ended before its end.
    Cut,
}

/// Reads a header from a stream, and not an octet behind it. Whose connection it is: None is the proxy's own, or one
/// whose address is no IP address.
///
/// # Errors
/// What is wrong with the header. Nothing more is to be read then.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, Fault> {
    let mut octets = [0; PREFIX_OCTETS + REST_OCTETS_MAX];
    let cut = |_: io::Error| Fault::Cut;
    let (prefix, rest) = octets.split_at_mut(PREFIX_OCTETS);
    stream.read_exact(prefix).await.map_err(cut)?;
    let length = rest_octets(prefix)?;
    stream.read_exact(&mut rest[..length]).await.map_err(cut)?;
    parse(&octets[..PREFIX_OCTETS + length])
}

/// How many octets follow the prefix.
fn rest_octets(prefix: &[u8]) -> Result<usize, Fault> {
    let Some(&[LOCAL | PROXY, _, high, low]) = prefix.strip_prefix(SIGNATURE) else { return Err(Fault::Malformed) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_OCTETS_MAX { Err(Fault::TooLong) } else { Ok(length) }
}

/// Whose connection a whole header says it is; see [`read`]. Does not allocate.
///
/// # Errors
/// What is wrong with the header.
pub fn parse(header: &[u8]) -> Result<Option<IpAddr>, Fault> {
    let (prefix, rest) = header.split_at_checked(PREFIX_OCTETS).ok_or(Fault::Cut)?;
    let length = rest_octets(prefix)?;
    if rest.len() < length {
        return Err(Fault::Cut);
    }
    // §2.2: of a LOCAL connection the whole block is to be discarded, the family too.
    if prefix[SIGNATURE.len()] == LOCAL {
        return Ok(None);
    }
    let config = ParseConfig { include_tlvs: false, allow_v1: false, allow_v2: true };
    let (header, _) = ProxyHeader::parse(&header[..PREFIX_OCTETS + length], config).map_err(|_| Fault::Malformed)?;
    match header.proxied_address() {
        // This is a connection: nobody has sent it as datagrams.
        Some(address) if address.protocol == Protocol::Datagram => Err(Fault::Malformed),
        address => Ok(address.map(|address| address.source.ip().to_canonical())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// A header of this command and family with this behind its prefix.
    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [SIGNATURE, &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
    }

    /// Addresses and ports of TCP over IPv4.
    const IPV4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x9c, 0x40, 0x03, 0x55];

    fn ipv6(source: &str) -> Vec<u8> {
        let source: std::net::Ipv6Addr = source.parse().unwrap();
        [&source.octets()[..], &[0; 16], &[0x9c, 0x40, 0x03, 0x55]].concat()
    }

    fn address(text: &str) -> Result<Option<IpAddr>, Fault> {
        Ok(text.parse().ok())
    }

    #[test]
    fn the_source_is_the_client() {
        assert_eq!(parse(&header(PROXY, 0x11, IPV4)), address("192.0.2.7"));
        assert_eq!(parse(&header(PROXY, 0x21, &ipv6("2001:db8::7"))), address("2001:db8::7"));
        assert_eq!(parse(&header(PROXY, 0x21, &ipv6("::ffff:192.0.2.7"))), address("192.0.2.7"));
        let with_tlvs = [IPV4, &[0x04, 0, 3, 1, 2, 3], &[0xea, 0, 0]].concat();
        assert_eq!(parse(&header(PROXY, 0x11, &with_tlvs)), address("192.0.2.7"));
    }

    #[test]
    fn what_has_no_ip_address_is_the_sockets() {
        for (command, family, rest) in [
            (LOCAL, 0x00, &[][..]),
            // The family of a LOCAL connection means nothing, nor does what follows.
            (LOCAL, 0x11, IPV4),
            (LOCAL, 0x11, &[1, 2, 3]),
            (LOCAL, 0xff, &[][..]),
            (PROXY, 0x00, &[]),
            (PROXY, 0x00, &[0x04, 0, 1, 7]),
            (PROXY, 0x31, &[0; 216]),
        ] {
            assert_eq!(parse(&header(command, family, rest)), Ok(None), "{command:x} {family:x}");
        }
    }

    #[test]
    fn what_is_no_header_of_version_2_is_malformed() {
        for (command, family, rest) in [
            (0x22, 0x11, IPV4),
            (0x11, 0x11, IPV4),
            (PROXY, 0x12, IPV4),
            (PROXY, 0x13, IPV4),
            (PROXY, 0x41, IPV4),
            (PROXY, 0x11, &IPV4[1..]),
            (PROXY, 0x21, IPV4),
            (PROXY, 0x31, IPV4),
        ] {
            assert_eq!(parse(&header(command, family, rest)), Err(Fault::Malformed), "{command:x} {family:x}");
        }
        assert_eq!(parse(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 853\r\n"), Err(Fault::Malformed));
        assert_eq!(parse(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 and what TLS has"), Err(Fault::Malformed));
    }

    #[test]
    fn a_header_cut_anywhere_is_cut() {
        for whole in [
            header(PROXY, 0x11, &[IPV4, &[0x04, 0, 1, 7]].concat()),
            header(PROXY, 0x21, &ipv6("2001:db8::7")),
            header(LOCAL, 0, &[1, 2, 3]),
        ] {
            for cut in 0..whole.len() {
                assert_eq!(parse(&whole[..cut]), Err(Fault::Cut), "at {cut}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_read() {
        let longest = [IPV4, &[0; REST_OCTETS_MAX - IPV4.len()]].concat();
        for rest in [IPV4, &longest] {
            let octets = [&header(PROXY, 0x11, rest)[..], b"hello"].concat();
            let mut stream = &octets[..];
            assert_eq!(read(&mut stream).await, address("192.0.2.7"));
            assert_eq!(stream, b"hello");
        }
    }

    #[tokio::test]
    async fn a_header_is_bounded_before_it_is_read() {
        let octets = header(PROXY, 0x11, &[IPV4, &[0; REST_OCTETS_MAX + 1 - IPV4.len()]].concat());
        let mut stream = &octets[..];
        assert_eq!(read(&mut stream).await, Err(Fault::TooLong));
        assert_eq!(stream.len(), REST_OCTETS_MAX + 1);
        assert_eq!(read(&mut &octets[..20]).await, Err(Fault::TooLong));
        assert_eq!(read(&mut &header(PROXY, 0x11, IPV4)[..20]).await, Err(Fault::Cut));
    }
}
