//! What leaves; failure → RCODE and EDE, one table.

use bytes::{BufMut, BytesMut};

use crate::dns::edns::{OPT_OCTETS, Opt};
use crate::dns::message::{Header, Section, flag};
use crate::dns::{Ede, HEADER_OCTETS, MESSAGE_OCTETS_MAX, Qclass, Qtype, Rcode};
use crate::local::Local;
use crate::policy::order::Effect;
use crate::policy::{Block, Screened};
use crate::query::{Echo, Failure, Freshness, Reply, STALE_TTL, Transport};

/// What every answer is written by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Whether an upstream's AD bit is passed on to those who asked for it.
    pub trust_ad: bool,
    /// What edns-tcp-keepalive announces on DoT, in units of 100 ms (RFC 7828 §3.1).
    pub keepalive: u16,
}

/// An answer that may leave: made from what was screened, blocked, failed or is our own, and from nothing else.
#[derive(Debug)]
pub struct Answer<'a> {
    echo: &'a Echo<'a>,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Screened(&'a Screened<'a, 'a>),
    Block(&'a Block<'a, 'a>),
    Failure { failure: Failure, kept: bool },
    Local(&'a Local),
}

/// An answer that stands in an output buffer, ready to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Written {
    /// Its RCODE.
    pub rcode: Rcode,
    /// How long it may be kept, in seconds: HTTP's max-age (RFC 8484 §5.1); None: not at all (`no-store`).
    pub max_age: Option<u32>,
}

/// TTLs of an answer as its records were written: those that HTTP's freshness is the smallest of.
#[derive(Debug, Default)]
struct Lifetimes {
    answer: Option<u32>,
    soa: Option<u32>,
}

/// A pointer to QNAME, which always stands behind the header.
const QNAME_POINTER: u16 = 0xc000 | HEADER_OCTETS as u16;

/// RNAME of the SOA in answers that deny a name on our own account: nobody reads mail there.
const RNAME: &[u8] = b"\x06nobody\x07invalid\x00";

impl<'a> Answer<'a> {
    /// A reply that was screened for its asker.
    #[must_use]
    pub fn screened(screened: &'a Screened<'a, 'a>) -> Self {
        Self { echo: &screened.query().echo, content: Content::Screened(screened) }
    }

    /// The effect of an order or list.
    #[must_use]
    pub fn block(block: &'a Block<'a, 'a>) -> Self {
        Self { echo: &block.query().echo, content: Content::Block(block) }
    }

    /// No reply; `kept`: a failure of a little while ago.
    #[must_use]
    pub fn failure(echo: &'a Echo<'a>, failure: Failure, kept: bool) -> Self {
        Self { echo, content: Content::Failure { failure, kept } }
    }

    /// What we answer ourselves.
    #[must_use]
    pub fn local(echo: &'a Echo<'a>, local: &'a Local) -> Self {
        Self { echo, content: Content::Local(local) }
    }

    /// Appends the answer to `out`.
    pub fn write(&self, manner: Manner, out: &mut BytesMut) -> Written {
        let mut sheet = Sheet::begin(self.echo, manner, out);
        match self.content {
            Content::Screened(screened) => sheet.reply(screened),
            Content::Block(block) => sheet.block(block),
            Content::Failure { failure, kept } => sheet.failure(failure, kept),
            Content::Local(local) => sheet.local(local),
        }
    }
}

/// What the client hears when there is no reply. SERVFAIL and not silence (RFC 5625 §6.3); an upstream's REFUSED and
/// NOTIMP are passed on, its FORMERR is about our query and not the client's.
fn failure_table(failure: Failure) -> (Rcode, Ede, &'static str) {
    match failure {
        Failure::Timeout => (Rcode::SERVFAIL, Ede::NO_REACHABLE_AUTHORITY, "no upstream answered in time"),
        Failure::Network => (Rcode::SERVFAIL, Ede::NETWORK_ERROR, "no upstream could be reached"),
        Failure::Upstream(Rcode::REFUSED) => (Rcode::REFUSED, Ede::OTHER, "the upstream answered REFUSED"),
        Failure::Upstream(Rcode::NOTIMP) => (Rcode::NOTIMP, Ede::OTHER, "the upstream answered NOTIMP"),
        Failure::Upstream(Rcode::SERVFAIL) => (Rcode::SERVFAIL, Ede::OTHER, "the upstream answered SERVFAIL"),
        Failure::Upstream(_) => (Rcode::SERVFAIL, Ede::OTHER, "the upstream answered with an error"),
        Failure::Overloaded => (Rcode::SERVFAIL, Ede::OTHER, "too many queries in flight"),
        Failure::NoUpstream => (Rcode::SERVFAIL, Ede::NOT_READY, "no upstream resolver is configured"),
        Failure::Internal => (Rcode::SERVFAIL, Ede::OTHER, "internal error"),
    }
}

/// A message being written behind what `out` already holds.
struct Sheet<'a> {
    echo: &'a Echo<'a>,
    manner: Manner,
    out: &'a mut BytesMut,
    start: usize,
}

impl<'a> Sheet<'a> {
    /// Leaves the header free and repeats the question as it was asked, case and all.
    fn begin(echo: &'a Echo<'a>, manner: Manner, out: &'a mut BytesMut) -> Self {
        let start = out.len();
        out.put_bytes(0, HEADER_OCTETS);
        out.put_slice(&echo.question);
        Self { echo, manner, out, start }
    }

    fn reply(&mut self, screened: &Screened<'_, '_>) -> Written {
        let reply = screened.reply();
        let header = reply.header();
        let question_end = HEADER_OCTETS + self.echo.question.len();
        self.out.put_slice(&reply.octets()[question_end..]);
        if self.echo.edns.is_some() && self.out.len() - self.start + OPT_OCTETS > MESSAGE_OCTETS_MAX {
            // A client that sent OPT must get one (RFC 6891 §7), and there is no room for it.
            self.out.truncate(self.start + question_end);
            return self.failure(Failure::Internal, false);
        }
        let lifetimes = self.count_down(reply, screened.ttl_max());
        let ad = header.flags & flag::AD != 0 && self.manner.trust_ad && self.wants_ad();
        let stale = stale_error(reply);
        let errors: &[(Ede, &str)] = stale.as_slice();
        self.finish(
            header.rcode(),
            if ad { flag::AD } else { 0 },
            [header.counts[1], header.counts[2], header.counts[3]],
            errors,
        );
        Written { rcode: header.rcode(), max_age: lifetimes.max_age(header.rcode()) }
    }

    /// AD is for those who set DO or AD (RFC 6840 §5.8).
    fn wants_ad(&self) -> bool {
        self.echo.dnssec_ok() || self.echo.has(flag::AD)
    }

    /// Sets every TTL of the copied reply; all go down together.
    fn count_down(&mut self, reply: &Reply<'_>, ttl_max: Option<u32>) -> Lifetimes {
        let mut lifetimes = Lifetimes::default();
        for record in reply.records() {
            let left = match reply.freshness() {
                Freshness::Aged(age) => record.ttl().saturating_sub(age),
                Freshness::Stale => STALE_TTL,
            };
            let ttl = left.min(ttl_max.unwrap_or(left));
            let at = self.start + record.ttl_at;
            self.out[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
            lifetimes.note(record.section, record.rtype, ttl);
        }
        lifetimes
    }

    fn block(&mut self, block: &Block<'_, '_>) -> Written {
        let (errors, count) = block.errors();
        let query = block.query();
        let ttl = block.ttl();
        let (rcode, counts) = match block.effect() {
            Effect::Refused => (Rcode::REFUSED, [0; 3]),
            Effect::NxDomain => (Rcode::NXDOMAIN, self.soa(block)),
            Effect::NoData => (Rcode::NOERROR, self.soa(block)),
            Effect::Address { a, aaaa } => {
                let counts = match (query.qclass, query.qtype, a, aaaa) {
                    (Qclass::IN, Qtype::A, Some(address), _) => self.address(query.qtype, ttl, &address.octets()),
                    (Qclass::IN, Qtype::AAAA, _, Some(address)) => self.address(query.qtype, ttl, &address.octets()),
                    _ => self.soa(block),
                };
                (Rcode::NOERROR, counts)
            }
        };
        self.finish(rcode, 0, counts, &errors[..count]);
        Written { rcode, max_age: (rcode != Rcode::REFUSED).then_some(ttl) }
    }

    fn address(&mut self, qtype: Qtype, ttl: u32, octets: &[u8]) -> [u16; 3] {
        self.out.put_u16(QNAME_POINTER);
        self.out.put_u16(qtype.0);
        self.out.put_u16(Qclass::IN.0);
        self.out.put_u32(ttl);
        self.out.put_u16(octets.len() as u16);
        self.out.put_slice(octets);
        [1, 0, 0]
    }

    /// A negative answer needs a SOA to be kept (RFC 2308 §5); ours is owned by the target, or by QNAME.
    fn soa(&mut self, block: &Block<'_, '_>) -> [u16; 3] {
        let query = block.query();
        let labels = block.soa_labels();
        if labels == 0 {
            // The root has no place in the question to point to.
            self.out.put_u8(0);
        } else {
            self.out.put_u16(QNAME_POINTER + query.qname.prefix_octets(labels) as u16);
        }
        self.soa_body(query.qclass.of_records(), block.ttl());
        [0, 1, 0]
    }

    /// What stands behind a SOA's owner. MNAME `.`: nobody serves this zone.
    fn soa_body(&mut self, class: Qclass, ttl: u32) {
        self.out.put_u16(Qtype::SOA.0);
        self.out.put_u16(class.0);
        self.out.put_u32(ttl);
        self.out.put_u16((1 + RNAME.len() + 20) as u16);
        self.out.put_u8(0);
        self.out.put_slice(RNAME);
        for field in [1, 3600, 600, 86_400, ttl] {
            self.out.put_u32(field);
        }
    }

    fn failure(&mut self, failure: Failure, kept: bool) -> Written {
        let (rcode, ede, text) = failure_table(failure);
        let errors = [(ede, text), (Ede::CACHED_ERROR, "")];
        self.finish(rcode, 0, [0; 3], &errors[..1 + usize::from(kept)]);
        Written { rcode, max_age: None }
    }

    fn local(&mut self, local: &Local) -> Written {
        let mut counts = [local.answers, 0, local.additional];
        self.out.put_slice(&local.records);
        if let Some(zone) = &local.denial {
            // The sections stand in their order: a denial never has additional records.
            self.out.put_slice(zone.name.as_wire());
            self.soa_body(zone.class, zone.ttl);
            counts[1] = 1;
        }
        let errors: &[(Ede, &str)] = local.error.as_slice();
        self.finish(local.rcode, 0, counts, errors);
        Written { rcode: local.rcode, max_age: local.max_age }
    }

    /// Writes the OPT, where the query had one, and the header.
    fn finish(&mut self, rcode: Rcode, ad: u16, counts: [u16; 3], errors: &[(Ede, &str)]) {
        let asked = u16::from(!self.echo.question.is_empty());
        let mut counts = [asked, counts[0], counts[1], counts[2]];
        if let Some(edns) = self.echo.edns {
            counts[3] += 1;
            let keepalive = (self.echo.transport == Transport::Dot).then_some(self.manner.keepalive);
            let opt = Opt { rcode, dnssec_ok: edns.dnssec_ok, keepalive, errors, padded: edns.padding };
            opt.write(self.out, self.start);
        }
        // OPCODE, RD and CD are the query's; the rest is ours.
        let repeated = self.echo.flags & (flag::OPCODE | flag::RD | flag::CD);
        let flags = flag::QR | flag::RA | repeated | ad | (rcode.0 & flag::RCODE);
        let header = Header { id: self.echo.id, flags, counts };
        self.out[self.start..self.start + HEADER_OCTETS].copy_from_slice(&header.octets());
    }
}

fn stale_error(reply: &Reply<'_>) -> Option<(Ede, &'static str)> {
    let stale = reply.freshness() == Freshness::Stale;
    let code = if reply.rcode() == Rcode::NXDOMAIN { Ede::STALE_NXDOMAIN } else { Ede::STALE_ANSWER };
    stale.then_some((code, ""))
}

impl Lifetimes {
    fn note(&mut self, section: Section, rtype: Qtype, ttl: u32) {
        let held = match section {
            Section::Answer => &mut self.answer,
            Section::Authority if rtype == Qtype::SOA => &mut self.soa,
            _ => return,
        };
        *held = Some(held.map_or(ttl, |held| held.min(ttl)));
    }

    /// RFC 8484 §5.1: no more than the smallest TTL of the answer section; without one no more than the SOA says,
    /// whose TTL the cache has made min(TTL, MINIMUM).
    fn max_age(&self, rcode: Rcode) -> Option<u32> {
        match rcode {
            Rcode::NOERROR | Rcode::NXDOMAIN => match (self.answer, self.soa) {
                (Some(answer), Some(soa)) => Some(answer.min(soa)),
                (answer, soa) => answer.or(soa),
            },
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use hickory_proto::op::Message;
    use jiff::Timestamp;

    use super::*;
    use crate::dns::Name;
    use crate::dns::edns::Asked;
    use crate::policy::load::{Files, LoadedOrder, Settings, load_in_hand};
    use crate::policy::order::Order;
    use crate::policy::{Findings, Permitted, Policy, View};
    use crate::query::Query;

    const MANNER: Manner = Manner { trust_ad: false, keepalive: 650 };

    const NOW: &str = "2026-11-22T00:00:00Z";

    const ASKED: Asked = Asked { version: 0, dnssec_ok: false, padding: false, structured: false };

    fn query(name: &str, qtype: Qtype, edns: Option<Asked>) -> Query<'static> {
        let mut query = Query::plain(Name::from_text(name).unwrap(), qtype);
        query.echo.id = 0x1234;
        query.echo.edns = edns;
        query
    }

    /// One order about `blocked.example` and below, with these lines.
    fn policy(lines: &str) -> Policy {
        let text = format!(
            "id = 'x'\nissuer = 'Court'\njurisdiction = ['*']\nstate = 'in-force'\nreceived = {NOW}\n{lines}\n\
             [[target]]\nsubtree = ['blocked.example']\nexact = ['exact.example']\n"
        );
        let order = LoadedOrder::of(Order::read(Path::new("x.toml"), &text).unwrap(), text.as_bytes());
        let settings = Settings { hold_fallback: true, ..Settings::default() };
        let loaded = load_in_hand(&settings, vec![order], &Files::new(), Timestamp::UNIX_EPOCH);
        Policy::compile(&loaded, 1, Timestamp::UNIX_EPOCH).unwrap()
    }

    /// Writes behind octets that must stay, and reads with hickory.
    fn written(answer: &Answer<'_>, manner: Manner) -> (Written, Message, Vec<u8>) {
        let mut out = BytesMut::from(&b"before"[..]);
        let written = answer.write(manner, &mut out);
        assert_eq!(out[..6], *b"before");
        (written, Message::from_vec(&out[6..]).unwrap(), out[6..].to_vec())
    }

    fn blocked(lines: &str, name: &str, qtype: Qtype) -> (Written, Message, Vec<u8>) {
        let policy = policy(lines);
        let query = query(name, qtype, Some(ASKED));
        let block = policy.admit(&query, View { country: None }, NOW.parse().unwrap(), |_| {}).unwrap_err();
        written(&Answer::block(&block), MANNER)
    }

    fn records(message: &Message) -> Vec<String> {
        message.answers.iter().chain(&message.authorities).map(ToString::to_string).collect()
    }

    #[test]
    fn every_effect_is_a_message_that_others_can_read() {
        let soa =
            |owner: &str, ttl: u32| vec![format!("{owner}. {ttl} IN SOA . nobody.invalid. 1 3600 600 86400 {ttl}")];
        let address = "effect = { a = '192.0.2.1' }";
        for (lines, name, qtype, rcode, shown, max_age) in [
            ("", "www.blocked.example", Qtype::A, Rcode::NXDOMAIN, soa("blocked.example", 60), Some(60)),
            ("", "exact.example", Qtype::A, Rcode::NOERROR, soa("exact.example", 60), Some(60)),
            (
                "effect = 'nodata'",
                "blocked.example",
                Qtype::HTTPS,
                Rcode::NOERROR,
                soa("blocked.example", 60),
                Some(60),
            ),
            ("effect = 'refused'", "blocked.example", Qtype::A, Rcode::REFUSED, vec![], None),
            (
                address,
                "blocked.example",
                Qtype::A,
                Rcode::NOERROR,
                vec!["blocked.example. 60 IN A 192.0.2.1".to_owned()],
                Some(60),
            ),
            (address, "blocked.example", Qtype::AAAA, Rcode::NOERROR, soa("blocked.example", 60), Some(60)),
            (
                "expires = 2026-11-22T00:00:07.9Z",
                "blocked.example",
                Qtype::A,
                Rcode::NXDOMAIN,
                soa("blocked.example", 7),
                Some(7),
            ),
            (
                "expires = 2026-11-22T00:00:00.9Z",
                "blocked.example",
                Qtype::A,
                Rcode::NXDOMAIN,
                soa("blocked.example", 0),
                Some(0),
            ),
        ] {
            let (written, message, _) = blocked(lines, name, qtype);
            assert_eq!((written.rcode, written.max_age), (rcode, max_age), "{lines} {name} {qtype}");
            assert_eq!(records(&message), shown, "{lines} {name} {qtype}");
            assert_eq!((message.metadata.id, u16::from(message.metadata.response_code)), (0x1234, rcode.0));
        }
    }

    #[test]
    fn a_failure_is_told_with_its_reason_and_kept_by_nobody() {
        for (failure, rcode) in [
            (Failure::Timeout, Rcode::SERVFAIL),
            (Failure::Network, Rcode::SERVFAIL),
            (Failure::Upstream(Rcode::REFUSED), Rcode::REFUSED),
            (Failure::Upstream(Rcode::NOTIMP), Rcode::NOTIMP),
            (Failure::Upstream(Rcode::FORMERR), Rcode::SERVFAIL),
            (Failure::Overloaded, Rcode::SERVFAIL),
            (Failure::NoUpstream, Rcode::SERVFAIL),
            (Failure::Internal, Rcode::SERVFAIL),
        ] {
            for edns in [None, Some(ASKED)] {
                let query = query("a.example", Qtype::A, edns);
                let (written, message, _) = written(&Answer::failure(&query.echo, failure, true), MANNER);
                assert_eq!((written.rcode, written.max_age), (rcode, None));
                assert_eq!(message.edns.is_some(), edns.is_some(), "OPT in, OPT out");
            }
        }
    }

    /// Screens by an order with these lines.
    fn screened(
        query: Query<'static>,
        flags: u16,
        records: &[u8],
        [answers, authority]: [u8; 2],
        freshness: Freshness,
        lines: &str,
    ) -> (Written, Message, Vec<u8>) {
        let mut octets = vec![0, 0, 0, 0, 0, 1, 0, answers, 0, authority, 0, 0];
        octets[2..4].copy_from_slice(&flags.to_be_bytes());
        octets.extend_from_slice(&query.echo.question);
        octets.extend(records);
        let policy = policy(lines);
        let (view, now) = (View { country: None }, NOW.parse().unwrap());
        let permitted: Permitted<'_> = policy.admit(&query, view, now, |_| {}).unwrap();
        let reply = Reply::kept(&octets, freshness);
        let screened = policy.screen(&permitted, reply, &Findings::default(), view, now, |_| {}).unwrap();
        written(&Answer::screened(&screened), Manner { trust_ad: true, ..MANNER })
    }

    /// Records of QNAME with their TTLs: addresses, CNAMEs to the root or SOAs.
    fn rrs(rrs: &[(Qtype, u32)]) -> Vec<u8> {
        let mut octets = vec![];
        for (rtype, ttl) in rrs {
            let rdata = match *rtype {
                Qtype::A => vec![192, 0, 2, 1],
                Qtype::SOA => vec![0; 22],
                _ => vec![0],
            };
            octets.extend([0xc0, 12]);
            octets.extend([rtype.0.to_be_bytes(), [0, 1]].concat());
            octets.extend(ttl.to_be_bytes());
            octets.extend((rdata.len() as u16).to_be_bytes());
            octets.extend(rdata);
        }
        octets
    }

    #[test]
    fn max_age_is_the_smallest_ttl_that_counts() {
        let (a, cname, soa) = (|ttl| (Qtype::A, ttl), |ttl| (Qtype::CNAME, ttl), |ttl| (Qtype::SOA, ttl));
        for (rcode, records, counts, age, max_age) in [
            (0, vec![a(300), a(60)], [2, 0], Freshness::Aged(0), Some(60)),
            (0, vec![a(300), a(60)], [2, 0], Freshness::Aged(59), Some(1)),
            (0, vec![a(300), a(60)], [2, 0], Freshness::Aged(100), Some(0)),
            (0, vec![a(300)], [1, 0], Freshness::Stale, Some(30)),
            (0, vec![cname(300), soa(60)], [1, 1], Freshness::Aged(0), Some(60)),
            (0, vec![cname(30), soa(60)], [1, 1], Freshness::Aged(0), Some(30)),
            (3, vec![soa(60)], [0, 1], Freshness::Aged(1), Some(59)),
            (0, vec![], [0, 0], Freshness::Aged(0), None),
            (3, vec![], [0, 0], Freshness::Aged(0), None),
            (6, vec![a(60)], [1, 0], Freshness::Aged(0), None),
        ] {
            let query = query("a.example", Qtype::A, None);
            let (written, ..) = screened(query, flag::QR | rcode, &rrs(&records), counts, age, "");
            assert_eq!((written.rcode.0, written.max_age), (rcode, max_age), "{records:?}");
        }
    }

    #[test]
    fn no_ttl_outlives_the_begin_of_an_order_and_stale_ones_neither() {
        let soon = "effective = 2026-11-22T00:00:10.5Z";
        for (freshness, shown) in [(Freshness::Aged(0), 10), (Freshness::Stale, 10), (Freshness::Aged(295), 5)] {
            let records = rrs(&[(Qtype::A, 300)]);
            let query = query("blocked.example", Qtype::A, None);
            let (written, message, _) = screened(query, flag::QR, &records, [1, 0], freshness, soon);
            assert_eq!((message.answers[0].ttl, written.max_age), (shown, Some(shown)));
        }
    }

    #[test]
    fn flags_are_the_querys_where_they_must_be() {
        let upstream = flag::QR | flag::AA | flag::TC | flag::AD | flag::RA;
        for (asked, edns, ad) in [
            (flag::RD, None, false),
            (flag::RD | flag::AD | flag::CD, None, true),
            (0, Some(Asked { dnssec_ok: true, ..ASKED }), true),
            (flag::CD, Some(ASKED), false),
        ] {
            let mut query = query("a.example", Qtype::A, edns);
            query.echo.flags = asked;
            let (_, _, octets) = screened(query, upstream, &rrs(&[(Qtype::A, 60)]), [1, 0], Freshness::Aged(0), "");
            let wanted = flag::QR | flag::RA | asked & !flag::AD | if ad { flag::AD } else { 0 };
            assert_eq!(u16::from_be_bytes([octets[2], octets[3]]), wanted);
        }
    }

    #[test]
    fn a_reply_that_leaves_no_room_for_the_opt_is_a_failure_and_without_opt_it_passes() {
        let fill = MESSAGE_OCTETS_MAX - HEADER_OCTETS - 15 - 12;
        let mut record = vec![0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60];
        record.extend((fill as u16).to_be_bytes());
        record.resize(12 + fill, 0);
        for (edns, rcode, octets) in [(None, Rcode::NOERROR, MESSAGE_OCTETS_MAX), (Some(ASKED), Rcode::SERVFAIL, 0)] {
            let query = query("a.example", Qtype::TXT, edns);
            let (written, _, message) = screened(query, flag::QR, &record, [1, 0], Freshness::Aged(0), "");
            assert_eq!(written.rcode, rcode);
            assert!(octets == 0 || message.len() == octets);
        }
    }

    #[test]
    fn badvers_needs_the_opt_and_has_it() {
        let query = query("a.example", Qtype::A, Some(Asked { version: 1, ..ASKED }));
        let locals = crate::local::Locals::new(&crate::local::Settings::default());
        let local = locals.special(&query).unwrap();
        let (written, message, _) = written(&Answer::local(&query.echo, &local), MANNER);
        assert_eq!((written.rcode, written.max_age), (Rcode::BADVERS, None));
        assert_eq!(u16::from(message.metadata.response_code), 16);
        assert_eq!(message.edns.map(|edns| edns.version()), Some(0));
    }
}
