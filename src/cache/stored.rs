//! The stored form of a question and its reply: one run of octets, compared by its key part.
//!
//! ```text
//! hash 8 │ length of QNAME 1 │ DO, CD 1 │ QNAME, folded │ QTYPE 2 │ QCLASS 2 ┊ flags 2 │ ANCOUNT to ARCOUNT 6 │ records
//! └──────────────────────────────── key ────────────────────────────────────┘ └──────────── reply, or nothing ───────┘
//! ```
//!
//! The message's own question is the key's, so no octet of it stands twice; its ID and QDCOUNT are left out. The hash is
//! part of the key so that each name is hashed once, and never again when a table grows or an entry is evicted.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, Hasher};

use ahash::RandomState;

use super::SHARDS;
use crate::dns::HEADER_OCTETS;
use crate::dns::message::flag;
use crate::query::{Query, Reply};

/// Octets of the hash.
const HASH: usize = 8;
/// Where QNAME begins.
const QNAME_AT: usize = HASH + 2;
/// Octets of QTYPE and QCLASS.
const TYPE_AND_CLASS: usize = 4;
/// Octets of flags and counts.
const FLAGS_AND_COUNTS: usize = 8;
/// The longest key: a name has 255 octets at most (RFC 1035 §3.1).
const KEY_OCTETS_MAX: usize = QNAME_AT + 255 + TYPE_AND_CLASS;

const DO: u8 = 1;
const CD: u8 = 2;

/// A question as the cache compares it: folded QNAME, QTYPE, QCLASS, DO and CD, and nothing else of the query or its
/// client.
pub(super) struct Key {
    octets: [u8; KEY_OCTETS_MAX],
    len: usize,
    hash: u64,
}

impl Key {
    /// The key of a query's question.
    pub(super) fn new(query: &Query<'_>, hasher: &RandomState) -> Self {
        let qname = query.qname.as_wire();
        let end = QNAME_AT + qname.len();
        let mut octets = [0; KEY_OCTETS_MAX];
        // A name's wire form has 255 octets at most.
        octets[HASH] = qname.len() as u8;
        octets[HASH + 1] = if query.echo.dnssec_ok() { DO } else { 0 } | if query.echo.has(flag::CD) { CD } else { 0 };
        octets[QNAME_AT..end].copy_from_slice(qname);
        octets[end..end + 2].copy_from_slice(&query.qtype.0.to_be_bytes());
        octets[end + 2..end + 4].copy_from_slice(&query.qclass.0.to_be_bytes());
        let len = end + TYPE_AND_CLASS;
        let hash = hasher.hash_one(&octets[HASH..len]);
        octets[..HASH].copy_from_slice(&hash.to_ne_bytes());
        Self { octets, len, hash }
    }

    /// The octets that are compared, whole.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// The shard it belongs to, by bits that the shard's own table makes little of: it uses the lowest and the highest.
    pub(super) fn shard(&self) -> usize {
        (self.hash >> 48) as usize % SHARDS
    }

    /// Its place among so many, by other bits again.
    pub(super) fn place(&self, places: usize) -> usize {
        ((u64::from(self.hash as u32) * places as u64) >> 32) as usize
    }

    /// The question section.
    fn question(&self) -> &[u8] {
        &self.octets[QNAME_AT..self.len]
    }
}

/// The most octets that stand beside what is known of them: an answer of four addresses, or of two by way of an alias. With
/// them a node of the list takes 192 octets, three cache lines and a size that allocators have.
const BESIDE_OCTETS: usize = 134;

/// A question with its reply, or without one where only a failure is known.
#[derive(Clone)]
pub(super) enum Stored {
    /// Few octets: to follow a pointer to them would cost more than all else that a hit takes, where they are no longer
    /// in the processor's caches.
    Beside { octets: [u8; BESIDE_OCTETS], len: u8 },
    /// Many.
    Apart(Box<[u8]>),
}

impl Stored {
    /// A question without a reply.
    pub(super) fn question(key: &Key) -> Self {
        Self::of([key.octets(), &[], &[], &[]])
    }

    /// What these parts make together.
    fn of(parts: [&[u8]; 4]) -> Self {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > BESIDE_OCTETS {
            return Self::Apart(parts.concat().into());
        }
        let mut octets = [0; BESIDE_OCTETS];
        let mut at = 0;
        for part in parts {
            octets[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Self::Beside { octets, len: len as u8 }
    }

    fn octets(&self) -> &[u8] {
        match self {
            Self::Beside { octets, len } => &octets[..usize::from(*len)],
            Self::Apart(octets) => octets,
        }
    }

    /// A question with its reply; None where it is the reply to another question.
    pub(super) fn reply(key: &Key, reply: &Reply<'_>) -> Option<Self> {
        let (header, rest) = reply.octets().split_first_chunk::<HEADER_OCTETS>()?;
        let (question, records) = rest.split_at_checked(key.question().len())?;
        let qname_octets = question.len() - TYPE_AND_CLASS;
        // No length octet is a letter: they are below 64.
        let same = question[..qname_octets].eq_ignore_ascii_case(&key.question()[..qname_octets])
            && question[qname_octets..] == key.question()[qname_octets..];
        same.then(|| Self::of([key.octets(), &header[2..4], &header[6..], records]))
    }

    /// Writes the message over what stands in `out`; its ID is 0.
    pub(super) fn write_message(&self, out: &mut Vec<u8>) {
        let (key, reply) = self.parts();
        let (fixed, records) = reply.split_at(FLAGS_AND_COUNTS);
        out.clear();
        out.reserve(HEADER_OCTETS + key.len() - QNAME_AT + records.len());
        out.extend_from_slice(&[0, 0, fixed[0], fixed[1], 0, 1]);
        out.extend_from_slice(&fixed[2..]);
        out.extend_from_slice(&key[QNAME_AT..]);
        out.extend_from_slice(records);
    }

    /// Whether this is that reply.
    pub(super) fn holds(&self, reply: &Reply<'_>) -> bool {
        let (key, kept) = self.parts();
        let (octets, question) = (reply.octets(), key.len() - QNAME_AT);
        kept.len() >= FLAGS_AND_COUNTS
            && octets.len() == HEADER_OCTETS + question + kept.len() - FLAGS_AND_COUNTS
            && octets[2..4] == kept[..2]
            && octets[6..HEADER_OCTETS] == kept[2..FLAGS_AND_COUNTS]
            && octets[HEADER_OCTETS + question..] == kept[FLAGS_AND_COUNTS..]
    }

    /// How many octets it has an allocation of its own for.
    pub(super) fn apart(&self) -> Option<usize> {
        match self {
            Self::Beside { .. } => None,
            Self::Apart(octets) => Some(octets.len()),
        }
    }

    /// The key, and the reply behind it.
    fn parts(&self) -> (&[u8], &[u8]) {
        let octets = self.octets();
        octets.split_at(QNAME_AT + usize::from(octets[HASH]) + TYPE_AND_CLASS)
    }
}

impl PartialEq for Stored {
    /// Of the keys, as [`Borrow`] demands.
    fn eq(&self, other: &Self) -> bool {
        self.parts().0 == other.parts().0
    }
}

impl Eq for Stored {}

impl Borrow<[u8]> for Stored {
    fn borrow(&self) -> &[u8] {
        self.parts().0
    }
}

impl Hash for Stored {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<[u8]>::borrow(self).hash(state);
    }
}

/// Takes the hash that a key brings along.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct BroughtAlong(u64);

impl BuildHasher for BroughtAlong {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for BroughtAlong {
    fn write(&mut self, octets: &[u8]) {
        if let Some(hash) = octets.first_chunk() {
            self.0 = u64::from_ne_bytes(*hash);
        }
    }

    /// A slice's length, written before its octets.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::fixture::{Ask, a, ask, opt};
    use super::*;
    use crate::dns::{Qclass, Qtype, Rcode};

    fn key(ask: &Ask) -> Vec<u8> {
        Key::new(ask.permitted().query(), &RandomState::with_seeds(1, 2, 3, 4)).octets().to_vec()
    }

    #[test]
    fn the_key_is_the_question_with_do_and_cd_and_nothing_else() {
        let plain = key(&ask("www.example.org"));
        assert_eq!(plain[HASH..], *b"\x11\0\x03www\x07example\x03org\0\0\x01\0\x01");
        let same = [
            Ask { id: 0x1234, ..ask("www.example.org") },
            Ask { flags: 0, ..ask("www.example.org") },
            Ask { flags: flag::RD | flag::AD, ..ask("www.example.org") },
            Ask { opt: opt(false, b"\0\x08\0\x04\0\x01\0\0"), ..ask("www.example.org") },
            Ask { qname: b"\x03wWw\x07EXAMPLE\x03org\0".to_vec(), ..ask(".") },
        ];
        for other in same {
            assert_eq!(key(&other), plain);
        }
        let different = [
            Ask { qtype: Qtype::AAAA, ..ask("www.example.org") },
            Ask { qclass: Qclass::CH, ..ask("www.example.org") },
            Ask { flags: flag::RD | flag::CD, ..ask("www.example.org") },
            Ask { opt: opt(true, b""), ..ask("www.example.org") },
            Ask { opt: opt(true, b""), flags: flag::CD, ..ask("www.example.org") },
            ask("example.org"),
            ask(r"www\.example.org"),
            ask(r"www\000.example.org"),
            ask(r"www\255.example.org"),
        ];
        let mut keys: Vec<_> = different.iter().map(key).collect();
        keys.push(plain);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), different.len() + 1);
    }

    #[test]
    fn the_longest_name_has_a_key() {
        let label = "a".repeat(63);
        assert_eq!(key(&ask(&format!("{label}.{label}.{label}.{}", "a".repeat(61)))).len(), KEY_OCTETS_MAX);
        assert_eq!(key(&ask(".")).len(), QNAME_AT + 1 + TYPE_AND_CLASS);
    }

    #[test]
    fn a_message_comes_back_but_for_id_and_case() {
        let ask = Ask { qname: b"\x03wWw\x07EXAMPLE\x03org\0".to_vec(), ..ask(".") };
        let key = Key::new(ask.permitted().query(), &RandomState::new());
        // Octets that stand beside their entry, up to the last that do, and apart from it.
        for (addresses, apart) in [(2, false), (5, false), (6, true), (200, true)] {
            let answer = |ttl| vec![a(ttl); addresses];
            let reply = ask.reply(Rcode::NOERROR, &answer(60), &[]);
            let stored = Stored::reply(&key, &reply).unwrap();
            assert_eq!(stored.apart().is_some(), apart, "{addresses} addresses");
            let mut out = vec![9; 500];
            stored.write_message(&mut out);
            let mut wanted = reply.octets().to_vec();
            wanted[..2].fill(0);
            wanted[12..29].make_ascii_lowercase();
            assert_eq!(out, wanted);
            assert!(stored.holds(&reply));
            assert!(!stored.holds(&ask.reply(Rcode::NOERROR, &answer(61), &[])));
            assert!(!stored.holds(&ask.reply(Rcode::NOERROR, &answer(60)[1..], &[a(60)])));
            assert!(!stored.holds(&ask.reply(Rcode::NXDOMAIN, &answer(60), &[])));
            assert!(!stored.holds(&ask.reply(Rcode::NOERROR, &[], &[])));
            assert!(!Stored::question(&key).holds(&reply));
        }
    }

    #[test]
    fn a_reply_to_another_question_is_not_stored() {
        let key = Key::new(ask("www.example.org").permitted().query(), &RandomState::new());
        for other in [
            ask("www.example.com"),
            ask("a.example.org"),
            Ask { qtype: Qtype::AAAA, ..ask("www.example.org") },
            Ask { qtype: Qtype(0x41), ..ask("www.example.org") },
        ] {
            assert!(Stored::reply(&key, &other.reply(Rcode::NOERROR, &[a(60)], &[])).is_none());
        }
    }

    #[test]
    fn the_table_takes_the_hash_of_the_key() {
        let key = Key::new(ask("www.example.org").permitted().query(), &RandomState::new());
        assert_eq!(BroughtAlong::default().hash_one(key.octets()), key.hash);
        assert_eq!(BroughtAlong::default().hash_one(Stored::question(&key)), key.hash);
    }
}
