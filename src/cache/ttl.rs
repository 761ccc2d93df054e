//! How long a reply may be kept, and what its TTLs are for everyone who gets it.

use std::time::Duration;

use crate::dns::message::{Record, Section, flag};
use crate::dns::{Qtype, Rcode};
use crate::query::Reply;

/// Between what the TTLs are held, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    min: u32,
    max: u32,
}

impl Bounds {
    /// Whole seconds of each; where they cross, the upper one holds.
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        // A TTL has 31 bits (RFC 2181 §8).
        let seconds = |time: Duration| time.as_secs().min(0x7fff_ffff) as u32;
        Self { min: seconds(min), max: seconds(max) }
    }

    fn hold(self, ttl: u32) -> u32 {
        ttl.max(self.min).min(self.max)
    }
}

/// Whether a reply says what is so: not an error, and not cut short.
pub(super) fn is_good(reply: &Reply<'_>) -> bool {
    let header = reply.header();
    matches!(header.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) && !header.has(flag::TC)
}

/// Sets every TTL to what it is to be understood as: none with the top bit, the SOA of a negative answer with the
/// smaller of its TTL and MINIMUM (RFC 2308 §5), and all within the bounds.
pub(super) fn settle(reply: &mut Reply<'_>, qtype: Qtype, bounds: Bounds) {
    let negative = is_negative(reply, qtype);
    reply.map_ttls(|record| {
        let minimum = if negative && is_soa(record) { record.soa_minimum().unwrap_or(0) } else { u32::MAX };
        bounds.hold(record.ttl().min(minimum))
    });
}

/// How long a good reply whose TTLs are settled may be kept, in seconds, at least 1: as long as the shortest of its
/// records, for all of them are served together. None: not at all, as a negative answer without a SOA (RFC 2308 §5).
pub(super) fn lifetime(reply: &Reply<'_>, qtype: Qtype) -> Option<u32> {
    if is_negative(reply, qtype) && !reply.records().any(|record| is_soa(&record)) {
        return None;
    }
    reply.records().map(|record| record.ttl()).min().filter(|lifetime| *lifetime > 0)
}

/// NXDOMAIN, or NODATA: the answer section, be it a chain, has nothing of the type asked for.
fn is_negative(reply: &Reply<'_>, qtype: Qtype) -> bool {
    let answers =
        |record: Record<'_>| record.section == Section::Answer && (record.rtype == qtype || qtype == Qtype::ANY);
    reply.rcode() == Rcode::NXDOMAIN || !reply.records().any(answers)
}

fn is_soa(record: &Record<'_>) -> bool {
    record.section == Section::Authority && record.rtype == Qtype::SOA
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::fixture::{Rr, a, ask, cname, soa};
    use super::*;

    fn bounds(min: u64, max: u64) -> Bounds {
        Bounds::new(Duration::from_secs(min), Duration::from_secs(max))
    }

    fn settled(rcode: Rcode, answer: &[Rr], authority: &[Rr], bounds: Bounds) -> (Vec<u32>, Option<u32>) {
        let mut reply = ask("a.example").reply(rcode, answer, authority);
        settle(&mut reply, Qtype::A, bounds);
        (reply.records().map(|record| record.ttl()).collect(), lifetime(&reply, Qtype::A))
    }

    #[test]
    fn the_shortest_ttl_is_the_lifetime() {
        let found = settled(Rcode::NOERROR, &[a(300), a(60)], &[Rr(Qtype::NS, 90, vec![0])], bounds(0, 86_400));
        assert_eq!(found, (vec![300, 60, 90], Some(60)));
        let found = settled(Rcode::NOERROR, &[a(300)], &[Rr(Qtype::NS, 40, vec![0])], bounds(0, 86_400));
        assert_eq!(found.1, Some(40), "of any section");
    }

    #[test]
    fn a_ttl_of_zero_or_with_the_top_bit_is_not_kept() {
        let found = settled(Rcode::NOERROR, &[a(300), a(0)], &[], bounds(0, 86_400));
        assert_eq!(found, (vec![300, 0], None));
        for ttl in [0x8000_0000, 0x8000_012c, u32::MAX] {
            let found = settled(Rcode::NOERROR, &[a(ttl)], &[], bounds(0, 86_400));
            assert_eq!(found, (vec![0], None));
        }
    }

    #[test]
    fn ttls_are_raised_and_cut() {
        let found = settled(Rcode::NOERROR, &[a(0), a(29), a(30), a(31), a(100), a(101)], &[], bounds(30, 100));
        assert_eq!(found, (vec![30, 30, 30, 31, 100, 100], Some(30)));
        assert_eq!(settled(Rcode::NOERROR, &[a(0x8000_0000)], &[], bounds(30, 100)).1, Some(30));
        assert_eq!(settled(Rcode::NXDOMAIN, &[], &[soa(9, 5)], bounds(30, 100)), (vec![30], Some(30)));
        assert_eq!(settled(Rcode::NOERROR, &[a(500)], &[], bounds(30, 10)).1, Some(10), "crossed: the upper one");
        assert_eq!(settled(Rcode::NOERROR, &[a(500)], &[], bounds(0, 0)).1, None);
        assert_eq!(settled(Rcode::NOERROR, &[a(0x7fff_ffff)], &[], bounds(0, u64::MAX)).1, Some(0x7fff_ffff));
    }

    #[test]
    fn a_negative_answer_lasts_as_its_soa() {
        for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
            let found = settled(rcode, &[], &[soa(900, 60)], bounds(0, 86_400));
            assert_eq!(found, (vec![60], Some(60)), "{rcode}: MINIMUM");
            let found = settled(rcode, &[], &[soa(60, 900)], bounds(0, 86_400));
            assert_eq!(found, (vec![60], Some(60)), "{rcode}: the SOA's TTL");
            let found = settled(rcode, &[], &[soa(60, 0x8000_0001)], bounds(0, 86_400));
            assert_eq!(found, (vec![0], None), "{rcode}: MINIMUM with the top bit");
            let found = settled(rcode, &[], &[Rr(Qtype::SOA, 60, vec![0, 0, 0])], bounds(0, 86_400));
            assert_eq!(found, (vec![0], None), "{rcode}: no SOA at all, by its RDATA");
            assert_eq!(settled(rcode, &[], &[], bounds(30, 86_400)).1, None, "{rcode}: no SOA");
            let found = settled(rcode, &[soa(60, 60)], &[], bounds(0, 86_400));
            assert_eq!(found.1, None, "{rcode}: a SOA in the answer section is none");
        }
    }

    #[test]
    fn a_positive_answer_leaves_its_soa_alone() {
        let found = settled(Rcode::NOERROR, &[a(300)], &[soa(900, 60)], bounds(0, 86_400));
        assert_eq!(found, (vec![300, 900], Some(300)));
    }

    #[test]
    fn a_chain_that_ends_in_nothing_is_negative() {
        let found = settled(Rcode::NOERROR, &[cname(300)], &[soa(900, 60)], bounds(0, 86_400));
        assert_eq!(found, (vec![300, 60], Some(60)));
        assert_eq!(settled(Rcode::NOERROR, &[cname(300)], &[], bounds(0, 86_400)).1, None);
        assert_eq!(settled(Rcode::NOERROR, &[cname(300), a(30)], &[], bounds(0, 86_400)).1, Some(30));
        let found = settled(Rcode::NXDOMAIN, &[cname(30)], &[soa(900, 60)], bounds(0, 86_400));
        assert_eq!(found, (vec![30, 60], Some(30)));
    }

    #[test]
    fn any_and_cname_queries_are_answered_by_what_they_ask_for() {
        for (qtype, answer, negative) in [
            (Qtype::ANY, vec![cname(30)], false),
            (Qtype::ANY, vec![], true),
            (Qtype::CNAME, vec![cname(30)], false),
            (Qtype::CNAME, vec![a(30)], true),
        ] {
            assert_eq!(is_negative(&ask("a.example").reply(Rcode::NOERROR, &answer, &[]), qtype), negative, "{qtype}");
        }
    }

    #[test]
    fn errors_and_truncated_replies_are_not_good() {
        let ask = ask("a.example");
        assert!(is_good(&ask.reply(Rcode::NOERROR, &[], &[])));
        assert!(is_good(&ask.reply(Rcode::NXDOMAIN, &[], &[])));
        for rcode in [Rcode::FORMERR, Rcode::SERVFAIL, Rcode::NOTIMP, Rcode::REFUSED, Rcode::YXDOMAIN] {
            assert!(!is_good(&ask.reply(rcode, &[a(30)], &[])), "{rcode}");
        }
        assert!(!is_good(&ask.response(flag::QR | flag::TC, &[a(30)], &[])));
    }
}
