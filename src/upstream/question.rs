//! What an upstream is asked, and which octets answer it.

use bytes::{BufMut, BytesMut};
use rand::Rng as _;

use crate::dns::edns::Opt;
use crate::dns::message::{self, Header, flag};
use crate::dns::{Name, Qclass, Qtype, Rcode};
use crate::policy::Permitted;
use crate::query::{NotAReply, Reply};

/// A question as it goes to upstreams: rebuilt from what was parsed, never copied from a client's octets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'n> {
    /// QNAME, folded.
    pub(super) qname: &'n Name,
    /// QTYPE.
    pub(super) qtype: Qtype,
    /// QCLASS.
    pub(super) qclass: Qclass,
    /// DO.
    pub(super) dnssec_ok: bool,
    /// CD.
    pub(super) checking_disabled: bool,
}

/// A response to our question.
#[derive(Debug)]
pub(super) enum Heard {
    /// NOERROR, NXDOMAIN or YXDOMAIN.
    Good(Reply<'static>),
    /// Any other RCODE.
    Error(Rcode),
    /// TC: to be asked again over TCP. Its records are not looked at, a fragment can have been forged (attacks.md).
    Truncated,
}

/// A message ID from the operating system's entropy by way of a CSPRNG; never 0, which some servers take for none.
pub(super) fn random_id() -> u16 {
    rand::rng().random_range(1..=u16::MAX)
}

impl<'n> Question<'n> {
    /// What was admitted.
    pub(super) fn of(permitted: &'n Permitted<'_>) -> Self {
        let query = permitted.query();
        Self {
            qname: &query.qname,
            qtype: query.qtype,
            qclass: query.qclass,
            dnssec_ok: query.echo.dnssec_ok(),
            checking_disabled: query.echo.has(flag::CD),
        }
    }

    /// A question of our own.
    pub(super) const fn plain(qname: &'n Name, qtype: Qtype) -> Self {
        Self { qname, qtype, qclass: Qclass::IN, dnssec_ok: false, checking_disabled: false }
    }

    /// Appends the message to `out`; with `edns`, it ends in an OPT without options.
    pub(super) fn write(&self, id: u16, edns: bool, out: &mut BytesMut) {
        let start = out.len();
        // AD asks the upstream to tell AD in turn (RFC 6840 §5.7); who may see it is decided with the answer.
        let checking = if self.checking_disabled { flag::CD } else { 0 };
        let header = Header { id, flags: flag::RD | flag::AD | checking, counts: [1, 0, 0, u16::from(edns)] };
        out.put_slice(&header.octets());
        out.put_slice(self.qname.as_wire());
        out.put_u16(self.qtype.0);
        out.put_u16(self.qclass.0);
        if edns {
            let dnssec_ok = self.dnssec_ok;
            Opt { rcode: Rcode::NOERROR, dnssec_ok, keepalive: None, errors: &[], padded: false }.write(out, start);
        }
    }

    /// Reads octets from the upstream that was asked under `id`. None: they do not answer this question, whatever
    /// they are, and are to be waited past (RFC 5452 §9).
    pub(super) fn read(&self, id: u16, octets: &[u8]) -> Option<Heard> {
        let header = Header::read(octets).filter(|header| header.id == id && header.has(flag::QR))?;
        if header.counts[0] == 0 {
            return error_without_question(&header);
        }
        // Before the records are read: they may end anywhere.
        if header.has(flag::TC) {
            return self.is_asked_in(octets, &header).then_some(Heard::Truncated);
        }
        match Reply::read(octets, self.qname, self.qtype, self.qclass) {
            Ok(reply) if is_good(reply.rcode()) => Some(Heard::Good(reply)),
            Ok(reply) => Some(Heard::Error(reply.rcode())),
            Err(NotAReply::Extended(rcode)) => Some(Heard::Error(rcode)),
            Err(NotAReply::Malformed | NotAReply::OtherQuestion) => None,
        }
    }

    /// The RCODE of octets that are a response to this question under `id`: enough to know that somebody answers,
    /// and nothing that could be given to a client.
    pub(super) fn rcode_in(&self, id: u16, octets: &[u8]) -> Option<Rcode> {
        let header = Header::read(octets).filter(|header| header.id == id && header.has(flag::QR))?;
        let is_ours = error_without_question(&header).is_some() || self.is_asked_in(octets, &header);
        is_ours.then(|| header.rcode())
    }

    fn is_asked_in(&self, octets: &[u8], header: &Header) -> bool {
        header.opcode() == 0
            && header.counts[0] == 1
            && message::Question::end_of(octets, self.qname, self.qtype, self.qclass).is_some()
    }
}

/// A response without a question is believed only where it says no more than that the query was not taken
/// (CVE-2026-123578: otherwise the check of the question is skipped).
fn error_without_question(header: &Header) -> Option<Heard> {
    let refusal = matches!(header.rcode(), Rcode::FORMERR | Rcode::SERVFAIL | Rcode::NOTIMP | Rcode::REFUSED);
    let empty = header.opcode() == 0 && header.counts[1] == 0 && header.counts[2] == 0;
    (refusal && empty).then(|| Heard::Error(header.rcode()))
}

/// YXDOMAIN is what a DNAME says whose target is too long (RFC 6672 §2.2): an answer like any other.
fn is_good(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN | Rcode::YXDOMAIN)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static ROOT: Name = Name::root();

    fn question() -> Question<'static> {
        static QNAME: LazyLock<Name> = LazyLock::new(|| name("WWW.Example"));
        Question { dnssec_ok: true, checking_disabled: true, ..Question::plain(&QNAME, Qtype::AAAA) }
    }

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    fn written(question: &Question<'_>, edns: bool) -> Vec<u8> {
        let mut out = BytesMut::new();
        question.write(0x1234, edns, &mut out);
        out.to_vec()
    }

    #[test]
    fn a_query_carries_what_was_parsed_and_nothing_else() {
        let with_opt = written(&question(), true);
        assert_eq!(
            with_opt,
            b"\x12\x34\x01\x30\0\x01\0\0\0\0\0\x01\x03www\x07example\0\0\x1c\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0"
        );
        let without = written(&Question::plain(&ROOT, Qtype::NS), false);
        assert_eq!(without, b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\0\0\0\x02\0\x01");
    }

    /// A response with one address, and an OPT.
    fn response() -> Vec<u8> {
        let mut octets = written(&question(), false);
        octets[2] |= 0x80;
        octets[7] = 1;
        octets[11] = 1;
        octets.extend(b"\xc0\x0c\0\x1c\0\x01\0\0\0\x3c\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01");
        octets.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
        octets
    }

    fn heard(octets: &[u8]) -> Option<Heard> {
        question().read(0x1234, octets)
    }

    #[test]
    fn what_matches_is_heard() {
        assert!(matches!(heard(&response()), Some(Heard::Good(reply)) if reply.header().counts == [1, 1, 0, 0]));
        let mut with_rcode = response();
        for (rcode, good) in [(0, true), (1, false), (2, false), (3, true), (4, false), (5, false), (6, true)] {
            with_rcode[3] = with_rcode[3] & 0xf0 | rcode;
            assert_eq!(matches!(heard(&with_rcode), Some(Heard::Good(_))), good, "{rcode}");
            assert_eq!(matches!(heard(&with_rcode), Some(Heard::Error(_))), !good, "{rcode}");
        }
        let mut extended = response();
        let at = extended.len() - 6;
        extended[at] = 1;
        assert!(matches!(heard(&extended), Some(Heard::Error(Rcode::BADVERS))));
    }

    #[test]
    fn every_cut_is_waited_past() {
        let whole = response();
        for cut in 0..whole.len() {
            assert!(heard(&whole[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn a_truncated_response_may_end_anywhere_behind_its_question() {
        let mut whole = response();
        whole[2] |= 0x02;
        let question_ends = 12 + 13 + 4;
        for cut in 0..whole.len() {
            assert_eq!(matches!(heard(&whole[..cut]), Some(Heard::Truncated)), cut >= question_ends, "cut at {cut}");
        }
        whole[14] = b'v';
        assert!(heard(&whole).is_none());
    }

    #[test]
    fn what_does_not_match_is_waited_past() {
        let changed = |at: usize, to: u8| {
            let mut octets = response();
            octets[at] = to;
            octets
        };
        assert!(heard(&changed(1, 0x35)).is_none(), "ID");
        assert!(heard(&changed(2, 0x01)).is_none(), "QR");
        assert!(heard(&changed(2, 0x89)).is_none(), "OPCODE");
        assert!(heard(&changed(5, 2)).is_none(), "QDCOUNT");
        assert!(heard(&changed(14, b'v')).is_none(), "QNAME");
        assert!(heard(&changed(26, 0x1d)).is_none(), "QTYPE");
        assert!(heard(&changed(28, 3)).is_none(), "QCLASS");
    }

    #[test]
    fn without_a_question_only_a_bare_error_is_believed() {
        let header = |rcode: u8, answers: u8| [0x12, 0x34, 0x81, rcode, 0, 0, 0, answers, 0, 0, 0, 0];
        for rcode in 0..16 {
            let believed =
                matches!(heard(&header(rcode, 0)), Some(Heard::Error(Rcode(found))) if found == u16::from(rcode));
            assert_eq!(believed, matches!(rcode, 1 | 2 | 4 | 5), "{rcode}");
            assert!(heard(&header(rcode, 1)).is_none());
        }
    }

    #[test]
    fn a_probe_only_learns_that_somebody_answers() {
        let octets = response();
        assert_eq!(question().rcode_in(0x1234, &octets), Some(Rcode::NOERROR));
        assert_eq!(question().rcode_in(0x1235, &octets), None);
        assert_eq!(Question::plain(&ROOT, Qtype::NS).rcode_in(0x1234, &octets), None);
        for cut in 0..12 + 13 + 4 {
            assert_eq!(question().rcode_in(0x1234, &octets[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn ids_differ_and_are_never_zero() {
        let ids: std::collections::HashSet<u16> = (0..256).map(|_| random_id()).collect();
        assert!(ids.len() > 200 && !ids.contains(&0));
    }
}
