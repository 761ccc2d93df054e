//! Questions and replies for the tests of the cache.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::dns::message::flag;
use crate::dns::{Name, Qclass, Qtype, Rcode};
use crate::policy::Permitted;
use crate::query::{Query, Reply, Transport};

/// An admitted question, with what the cache must tell apart and what it must not.
pub(super) struct Ask {
    pub(super) qname: Vec<u8>,
    pub(super) qtype: Qtype,
    pub(super) qclass: Qclass,
    /// ID and flags.
    pub(super) id: u16,
    pub(super) flags: u16,
    /// The query's OPT, if any; see [`opt`].
    pub(super) opt: Vec<u8>,
}

/// A question of type A, class IN, without OPT.
pub(super) fn ask(qname: &str) -> Ask {
    let qname = Name::from_text(qname).unwrap().as_wire().to_vec();
    Ask { qname, qtype: Qtype::A, qclass: Qclass::IN, id: 0, flags: flag::RD, opt: vec![] }
}

/// An OPT with DO or without, and options.
pub(super) fn opt(dnssec_ok: bool, options: &[u8]) -> Vec<u8> {
    let ttl = [0, 0, if dnssec_ok { 0x80 } else { 0 }, 0];
    [&b"\0\0\x29\x04\xd0"[..], &ttl, &(options.len() as u16).to_be_bytes(), options].concat()
}

impl Ask {
    pub(super) fn permitted(&self) -> Permitted<'static> {
        let mut octets = self.id.to_be_bytes().to_vec();
        octets.extend(self.flags.to_be_bytes());
        octets.extend([0, 1, 0, 0, 0, 0, 0, u8::from(!self.opt.is_empty())]);
        octets.extend(self.question());
        octets.extend(&self.opt);
        Permitted::for_tests(Query::read(&octets, Transport::Dot).unwrap().to_static())
    }

    pub(super) fn reply(&self, rcode: Rcode, answer: &[Rr], authority: &[Rr]) -> Reply<'static> {
        self.response(flag::QR | flag::RA | rcode.0, answer, authority)
    }

    pub(super) fn response(&self, flags: u16, answer: &[Rr], authority: &[Rr]) -> Reply<'static> {
        let mut octets = vec![0xab, 0xcd];
        octets.extend(flags.to_be_bytes());
        octets.extend([0, 1, 0, answer.len() as u8, 0, authority.len() as u8, 0, 0]);
        octets.extend(self.question());
        for Rr(rtype, ttl, rdata) in answer.iter().chain(authority) {
            octets.extend([0xc0, 0x0c]);
            octets.extend(rtype.0.to_be_bytes());
            octets.extend(self.qclass.0.to_be_bytes());
            octets.extend(ttl.to_be_bytes());
            octets.extend((rdata.len() as u16).to_be_bytes());
            octets.extend(rdata);
        }
        let (qname, _) = Name::parse(&[&[0; 12], &self.qname[..]].concat(), 12).unwrap();
        Reply::read(&octets, &qname, self.qtype, self.qclass).unwrap()
    }

    fn question(&self) -> Vec<u8> {
        [&self.qname[..], &self.qtype.0.to_be_bytes(), &self.qclass.0.to_be_bytes()].concat()
    }
}

/// A record of the QNAME: TYPE, TTL, RDATA.
#[derive(Clone)]
pub(super) struct Rr(pub(super) Qtype, pub(super) u32, pub(super) Vec<u8>);

/// An address.
pub(super) fn a(ttl: u32) -> Rr {
    Rr(Qtype::A, ttl, vec![192, 0, 2, 1])
}

/// A link of a chain.
pub(super) fn cname(ttl: u32) -> Rr {
    Rr(Qtype::CNAME, ttl, b"\x06target\0".to_vec())
}

/// A SOA with a MINIMUM.
pub(super) fn soa(ttl: u32, minimum: u32) -> Rr {
    Rr(Qtype::SOA, ttl, [&[0; 2 + 16][..], &minimum.to_be_bytes()].concat())
}
