//! Messages that we make ourselves: a query as a stub resolver sends it, a response that gives a name an address.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::edns::Opt;
use super::message::{Header, flag};
use super::{HEADER_OCTETS, Name, Qclass, Qtype, Rcode};

/// A query for a name, with an OPT so that the answer says why it is what it is.
#[must_use]
pub fn query(id: u16, name: &Name, qtype: Qtype) -> Vec<u8> {
    let mut out = begin(Header { id, flags: flag::RD, counts: [1, 0, 0, 1] }, name, qtype);
    Opt { rcode: Rcode::NOERROR, dnssec_ok: false, keepalive: None, errors: &[], padded: false }.write(&mut out, 0);
    out.to_vec()
}

/// A response to a question for the addresses of a name: this one, for `ttl` seconds.
#[must_use]
pub fn address(name: &Name, address: IpAddr, ttl: u32) -> Vec<u8> {
    let header = Header { id: 0, flags: flag::QR | flag::RD | flag::RA, counts: [1, 1, 0, 0] };
    let mut out = begin(header, name, qtype_of(address));
    // RFC 1035 §4.1.4: the owner is the question's name.
    out.put_u16(0xc000 | HEADER_OCTETS as u16);
    out.put_u16(qtype_of(address).0);
    out.put_u16(Qclass::IN.0);
    out.put_u32(ttl);
    match address {
        IpAddr::V4(address) => {
            out.put_u16(4);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.put_u16(16);
            out.put_slice(&address.octets());
        }
    }
    out.to_vec()
}

/// A or AAAA.
#[must_use]
pub const fn qtype_of(address: IpAddr) -> Qtype {
    match address {
        IpAddr::V4(_) => Qtype::A,
        IpAddr::V6(_) => Qtype::AAAA,
    }
}

fn begin(header: Header, name: &Name, qtype: Qtype) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&header.octets());
    out.put_slice(name.as_wire());
    out.put_u16(qtype.0);
    out.put_u16(Qclass::IN.0);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use hickory_proto::op::Message;

    use super::*;

    #[test]
    fn others_can_read_them() {
        let name = Name::from_text("a.example").unwrap();
        let query = Message::from_vec(&query(7, &name, Qtype::HTTPS)).unwrap();
        assert_eq!((query.metadata.id, query.queries[0].to_string()), (7, "a.example. IN HTTPS".to_owned()));
        assert!(query.edns.is_some() && query.metadata.recursion_desired);
        for (text, qtype) in [("192.0.2.1", "A"), ("2001:db8::1", "AAAA")] {
            let response = Message::from_vec(&address(&name, text.parse().unwrap(), 9)).unwrap();
            assert_eq!(response.answers[0].to_string(), format!("a.example. 9 IN {qtype} {text}"));
        }
    }
}
