//! What a client asks, and what came back: [`Query`], [`Reply`], [`Failure`] and the time of both.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use smallvec::SmallVec;

use crate::dns::edns::{Asked, SdeOption};
use crate::dns::message::{Header, MessageError, Question, Record, Records, Section, crosses_ttl, flag};
use crate::dns::{HEADER_OCTETS, MESSAGE_OCTETS_MAX, Name, Qclass, Qtype, Rcode};

/// The two clocks, read once per query at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Time since the process began; never goes back. The cache counts in it.
    pub mono: Duration,
    /// The time of day. Orders begin and end by it.
    pub wall: Timestamp,
}

/// How a query came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// DNS over TLS (RFC 7858).
    Dot,
    /// DNS over HTTPS (RFC 8484).
    Doh,
}

/// What every answer repeats of its query.
#[derive(Debug, Clone)]
pub struct Echo<'a> {
    /// ID, whatever it is (RFC 8484 §4.1 only recommends 0).
    pub id: u16,
    /// The query's flags as they came; see [`flag`].
    pub flags: u16,
    /// The question section as it came, case and all; empty where none could be read.
    pub question: Cow<'a, [u8]>,
    /// What its OPT asked for; without one the answer has none either (RFC 6891 §7).
    pub edns: Option<Asked>,
    /// How it came.
    pub transport: Transport,
}

impl Echo<'_> {
    /// Whether a bit of [`flag`] is set in the query.
    #[must_use]
    pub const fn has(&self, bit: u16) -> bool {
        self.flags & bit != 0
    }

    /// Whether the query set DO (RFC 3225).
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|asked| asked.dnssec_ok)
    }
}

/// One well-formed question of a client.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// What the answer repeats.
    pub echo: Echo<'a>,
    /// QNAME, folded.
    pub qname: Name,
    /// QTYPE.
    pub qtype: Qtype,
    /// QCLASS.
    pub qclass: Qclass,
}

/// Octets that are not a query.
#[derive(Debug, Clone)]
pub enum Malformed<'a> {
    /// Fewer octets than a header: there is no ID to answer under.
    Short,
    /// A response (QR set). Answering one is how packet loops begin.
    Response,
    /// What is answered with an error: FORMERR, or NOTIMP for another OPCODE (RFC 8906 §3.1.4).
    Fault(Fault<'a>),
}

/// A message with a header whose rest is not a query that we take.
#[derive(Debug, Clone)]
pub struct Fault<'a> {
    /// What could be read of it.
    pub echo: Echo<'a>,
    /// FORMERR or NOTIMP.
    pub rcode: Rcode,
}

impl<'a> Query<'a> {
    /// Reads a message from a client, every octet of it, where no option is known as SDE; see [`Self::read_signalled`].
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn read(octets: &'a [u8], transport: Transport) -> Result<Self, Malformed<'a>> {
        Self::read_signalled(octets, transport, None)
    }

    /// Reads a message from a client, every octet of it; `sde` is the option that signals structured DNS errors.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn read_signalled(octets: &'a [u8], transport: Transport, sde: SdeOption) -> Result<Self, Malformed<'a>> {
        let header = Header::read(octets).ok_or(Malformed::Short)?;
        if header.has(flag::QR) {
            return Err(Malformed::Response);
        }
        let echo = Echo { id: header.id, flags: header.flags, question: Cow::Borrowed(&[]), edns: None, transport };
        let mut query = Self { echo, qname: Name::root(), qtype: Qtype(0), qclass: Qclass(0) };
        let sound = query.read_question(octets, &header, sde).is_some();
        let rcode = match header.opcode() {
            0 if sound && sections_fit(&header, query.qtype) => return Ok(query),
            0 => Rcode::FORMERR,
            _ => Rcode::NOTIMP,
        };
        Err(Malformed::Fault(Fault { echo: query.echo, rcode }))
    }

    /// Reads the one question and walks to the end of the message; fills in `echo` as far as it gets, so that even a
    /// FORMERR answers OPT with OPT (RFC 6891 §7). None where the message is not well formed.
    fn read_question(&mut self, octets: &'a [u8], header: &Header, sde: SdeOption) -> Option<()> {
        // RFC 9619 §4: more than one question is a FORMERR.
        let question = (header.counts[0] == 1).then(|| Question::read_fields(octets, &mut self.qname).ok()).flatten();
        let Some((qtype, qclass, end)) = question else {
            // Its OPT is looked for all the same.
            read_opt(octets, header, skip_questions(octets, header)?, sde, &mut self.echo);
            return None;
        };
        (self.qtype, self.qclass) = (qtype, qclass);
        self.echo.question = Cow::Borrowed(&octets[HEADER_OCTETS..end]);
        read_opt(octets, header, end, sde, &mut self.echo)?.then_some(())
    }

    /// The question that a person asks: class IN, RD set, without EDNS.
    #[must_use]
    pub fn plain(qname: Name, qtype: Qtype) -> Query<'static> {
        let fields = [qtype.0.to_be_bytes(), Qclass::IN.0.to_be_bytes()].concat();
        let question = Cow::Owned([qname.as_wire(), &fields].concat());
        let echo = Echo { id: 0, flags: flag::RD, question, edns: None, transport: Transport::Doh };
        Query { echo, qname, qtype, qclass: Qclass::IN }
    }

    /// The same, borrowing nothing.
    #[must_use]
    pub fn to_static(&self) -> Query<'static> {
        let echo = Echo { question: Cow::Owned(self.echo.question.to_vec()), ..self.echo };
        Query { echo, qname: self.qname.clone(), qtype: self.qtype, qclass: self.qclass }
    }
}

/// A query brings no answers, and authority records only with IXFR (RFC 1995 §3).
fn sections_fit(header: &Header, qtype: Qtype) -> bool {
    header.counts[1] == 0 && (header.counts[2] == 0 || qtype == Qtype::IXFR)
}

/// Where the questions end, however many there are; the octets that are there bound the walk.
fn skip_questions(octets: &[u8], header: &Header) -> Option<usize> {
    (0..header.counts[0]).try_fold(HEADER_OCTETS, |at, _| {
        let end = Name::skip(octets, at).ok()? + 4;
        (end <= octets.len()).then_some(end)
    })
}

/// Walks the records behind the questions and fills in what their OPT asks for. Whether there is one OPT at most, where
/// it belongs, and nothing behind the last record; None where a record cannot be read.
fn read_opt(octets: &[u8], header: &Header, at: usize, sde: SdeOption, echo: &mut Echo<'_>) -> Option<bool> {
    let mut records = Records::new(octets, header, at);
    let mut sound = true;
    for record in records.by_ref() {
        let record = record.ok()?;
        record.owner().ok()?;
        if record.rtype != Qtype::OPT {
            continue;
        }
        let asked = Asked::read(record.ttl_octets(), record.rdata(), sde);
        // One OPT, of the root, in the additional section (RFC 6891 §6.1.1).
        sound &=
            asked.is_ok() && echo.edns.is_none() && octets[record.start] == 0 && record.section == Section::Additional;
        echo.edns.get_or_insert(asked.unwrap_or_default());
    }
    Some(sound && records.position() == octets.len())
}

/// How a reply's TTLs are to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Every TTL less this many seconds, all together.
    Aged(u32),
    /// Past its end, served all the same: every TTL is [`STALE_TTL`] (RFC 8767 §5).
    Stale,
}

/// TTL of stale records, in seconds (RFC 8767 §5: 30 is recommended).
pub const STALE_TTL: u32 = 30;

/// One response as it came back from an upstream or from the cache: its octets under its question, without an OPT.
/// The ID, and the case of the question, mean nothing.
#[derive(Debug, Clone)]
pub struct Reply<'a> {
    octets: Cow<'a, [u8]>,
    /// Where its records begin.
    records_at: usize,
    freshness: Freshness,
}

/// Why octets from an upstream are not a reply to a question. Such octets are passed over, and waited past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAReply {
    /// Not a response: too short, QR clear, another OPCODE, not one question, or records that cannot be read.
    Malformed,
    /// A response to another question.
    OtherQuestion,
    /// An RCODE that only an OPT can carry (BADVERS, BADCOOKIE): a matter between us and the upstream.
    Extended(Rcode),
}

impl From<MessageError> for NotAReply {
    fn from(_: MessageError) -> Self {
        Self::Malformed
    }
}

impl Reply<'static> {
    /// Reads a response to `qname`, `qtype` and `qclass`: every record is walked and every owner name read, the OPT and
    /// what stands behind it cut off (hop by hop, RFC 6891 §6.2.1), octets behind the last record too.
    ///
    /// # Errors
    /// See [`NotAReply`].
    pub fn read(octets: &[u8], qname: &Name, qtype: Qtype, qclass: Qclass) -> Result<Self, NotAReply> {
        let mut header = Header::read(octets).ok_or(NotAReply::Malformed)?;
        if !header.has(flag::QR) || header.opcode() != 0 || header.counts[0] != 1 || octets.len() > MESSAGE_OCTETS_MAX {
            return Err(NotAReply::Malformed);
        }
        let Some(mut end) = Question::end_of(octets, qname, qtype, qclass) else {
            return Err(Question::read(octets).map_or_else(Into::into, |_| NotAReply::OtherQuestion));
        };
        let records_at = end;
        let records = Records::new(octets, &header, records_at);
        let mut additional = 0;
        let mut ttls_at = SmallVec::<[usize; 8]>::new();
        for record in records {
            let record = record?;
            if record.rtype == Qtype::OPT {
                let extended = u16::from(record.ttl_octets()[0]) << 4;
                if extended != 0 {
                    return Err(NotAReply::Extended(Rcode(extended | header.rcode().0)));
                }
                if record.section != Section::Additional {
                    return Err(NotAReply::Malformed);
                }
                // Records behind it would be torn from the names they point to; they are additional, and rare.
                break;
            }
            ttls_at.push(record.ttl_at);
            // What the policy will look at must be there to look at, and stay what it was when the TTLs have changed.
            let mut sound = true;
            if !record.points_to_qname() {
                record.owner().map_err(MessageError::from)?;
                sound = !crosses_ttl(octets, record.start, &ttls_at);
            }
            if let Some(skip) = record.rtype.target_at() {
                record.rdata_name(skip).map_err(MessageError::from)?;
                sound &= !crosses_ttl(octets, record.rdata_at() + skip, &ttls_at);
            }
            if !sound {
                return Err(NotAReply::Malformed);
            }
            additional += u16::from(record.section == Section::Additional);
            end = record.end;
        }
        header.counts[3] = additional;
        let mut kept = octets[..end].to_vec();
        kept[..HEADER_OCTETS].copy_from_slice(&header.octets());
        Ok(Self { octets: Cow::Owned(kept), records_at, freshness: Freshness::Aged(0) })
    }
}

impl<'a> Reply<'a> {
    /// A reply whose octets once passed [`Reply::read`], from where they were kept.
    #[must_use]
    pub fn kept(octets: &'a [u8], freshness: Freshness) -> Self {
        let records_at = Name::skip(octets, HEADER_OCTETS).unwrap_or(octets.len()) + 4;
        Self { octets: Cow::Borrowed(octets), records_at, freshness }
    }

    /// The whole message. It was checked when it was read; a walk over it meets no error.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// How its TTLs are to be shown.
    #[must_use]
    pub const fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> Header {
        // Reply::read demanded a header; an empty one stands for what cannot be.
        Header::read(&self.octets).unwrap_or(Header { id: 0, flags: 0, counts: [0; 4] })
    }

    /// RCODE; a reply has none of the extended ones.
    #[must_use]
    pub fn rcode(&self) -> Rcode {
        self.header().rcode()
    }

    /// Its records in turn.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        Records::new(&self.octets, &self.header(), self.records_at).map_while(Result::ok)
    }

    /// A borrowed view of the same reply.
    #[must_use]
    pub fn borrowed(&self) -> Reply<'_> {
        Reply { octets: Cow::Borrowed(&self.octets), ..*self }
    }

    /// Sets every TTL from what it was. The edit is in place where the reply owns its octets.
    pub fn map_ttls(&mut self, mut ttl: impl FnMut(&Record<'_>) -> u32) {
        // Most stay as they are: nothing is collected for them.
        let edit = |record: Record<'_>| {
            let ttl = ttl(&record).to_be_bytes();
            (ttl != record.ttl_octets()).then_some((record.ttl_at, ttl))
        };
        let edits: Vec<_> = self.records().filter_map(edit).collect();
        for (at, ttl) in edits {
            self.octets.to_mut()[at..at + 4].copy_from_slice(&ttl);
        }
    }
}

/// How a query came to no reply. `answer` has the one table of what the client hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No upstream answered in time.
    Timeout,
    /// The network refused: no route, connection refused, connection closed.
    Network,
    /// The upstream answered with an error RCODE (SERVFAIL, REFUSED, FORMERR, NOTIMP and the like).
    Upstream(Rcode),
    /// The bound on queries in flight, or on upstream queries for one query, was reached.
    Overloaded,
    /// No upstream is configured, or the system names none.
    NoUpstream,
    /// The task that asked for us ended without a word. Never kept.
    Internal,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x03wWw\x07example\x03org\0\0\x01\0\x01\
        \0\0\x29\x10\0\0\0\x80\0\0\x08\0\x0c\0\x04\0\0\0\0";

    fn fault(octets: &[u8]) -> Fault<'_> {
        match Query::read(octets, Transport::Dot) {
            Err(Malformed::Fault(fault)) => fault,
            other => panic!("not a fault: {other:?}"),
        }
    }

    #[test]
    fn a_query_is_read_whole() {
        let query = Query::read(QUERY, Transport::Dot).unwrap();
        assert_eq!(query.qname.to_string(), "www.example.org");
        assert_eq!(&query.echo.question[..5], b"\x03wWw\x07");
        assert!(query.echo.has(flag::RD) && query.echo.has(flag::AD) && query.echo.dnssec_ok());
        assert!(query.echo.edns.unwrap().padding);
    }

    #[test]
    fn every_cut_is_malformed() {
        for cut in 0..QUERY.len() {
            match Query::read(&QUERY[..cut], Transport::Dot) {
                Err(Malformed::Short) => assert!(cut < HEADER_OCTETS),
                Err(Malformed::Fault(fault)) => assert_eq!(fault.rcode, Rcode::FORMERR),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn faults_have_their_rcode_and_keep_the_opt() {
        let mut other_opcode = QUERY.to_vec();
        other_opcode[2] |= 0x28;
        let found = fault(&other_opcode);
        assert_eq!((found.rcode, found.echo.edns.is_some(), found.echo.question.len()), (Rcode::NOTIMP, true, 21));

        let mut trailing = QUERY.to_vec();
        trailing.push(0);
        let found = fault(&trailing);
        assert_eq!((found.rcode, found.echo.edns.is_some()), (Rcode::FORMERR, true));

        let mut two_opts = QUERY.to_vec();
        two_opts[11] = 2;
        two_opts.extend(b"\0\0\x29\x10\0\0\0\0\0\0\0");
        let found = fault(&two_opts);
        assert_eq!((found.rcode, found.echo.edns.is_some()), (Rcode::FORMERR, true));

        // Whatever QDCOUNT says, OPT is answered with OPT where it can be read.
        let (question, opt) = QUERY[HEADER_OCTETS..].split_at(21);
        for questions in [0, 2, 3] {
            let mut other_count = [&QUERY[..HEADER_OCTETS], &question.repeat(questions), opt].concat();
            other_count[5] = questions as u8;
            let found = fault(&other_count);
            assert_eq!((found.rcode, found.echo.question.len()), (Rcode::FORMERR, 0));
            assert!(found.echo.edns.unwrap().padding, "{questions} questions");
        }
        let pointer = [&QUERY[..HEADER_OCTETS], b"\xc0\x0c\0\x01\0\x01", opt].concat();
        let found = fault(&pointer);
        assert_eq!((found.rcode, found.echo.question.len(), found.echo.edns.is_some()), (Rcode::FORMERR, 0, true));

        for (count, value) in [(5, 0), (5, 2), (7, 1), (9, 1)] {
            let mut counted = QUERY.to_vec();
            counted[count] = value;
            assert_eq!(fault(&counted).rcode, Rcode::FORMERR, "count {count} = {value}");
        }

        let mut response = QUERY.to_vec();
        response[2] |= 0x80;
        assert!(matches!(Query::read(&response, Transport::Dot), Err(Malformed::Response)));
    }

    const RESPONSE: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\x02\x01A\x03org\0\0\x01\0\x01\
        \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01\
        \0\0\x29\x04\xd0\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01trailing";

    fn read(octets: &[u8]) -> Result<Reply<'static>, NotAReply> {
        Reply::read(octets, &Name::from_text("a.org").unwrap(), Qtype::A, Qclass::IN)
    }

    #[test]
    fn a_reply_keeps_what_is_not_hop_by_hop() {
        let mut reply = read(RESPONSE).unwrap();
        assert_eq!(reply.header().counts, [1, 1, 0, 0]);
        assert_eq!(reply.octets().len(), 39);
        reply.map_ttls(|record| record.ttl() + 1);
        assert_eq!(reply.records().map(|record| record.ttl()).collect::<Vec<_>>(), [61]);
    }

    #[test]
    fn a_name_that_leads_through_a_ttl_is_no_reply() {
        let mut response = RESPONSE[..39].to_vec();
        response[7] = 2;
        response[11] = 0;
        // Its owner is a pointer to the last octets of the TTL before it: 0, which a TTL of 61 s would not be.
        response[29..33].copy_from_slice(&[0, 0, 0, 0]);
        response.extend(b"\xc0\x20\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
        assert_eq!(read(&response).err(), Some(NotAReply::Malformed));
        response[40] = 0x0c;
        assert!(read(&response).is_ok());
    }

    #[test]
    fn what_does_not_match_is_no_reply() {
        for cut in 0..RESPONSE.len() - 8 - 16 {
            assert!(read(&RESPONSE[..cut]).is_err(), "cut at {cut}");
        }
        let mut other = RESPONSE.to_vec();
        other[13] = b'b';
        assert_eq!(read(&other).err(), Some(NotAReply::OtherQuestion));
        other[5] = 0;
        assert_eq!(read(&other).err(), Some(NotAReply::Malformed));
        let mut extended = RESPONSE.to_vec();
        extended[44] = 1;
        assert_eq!(read(&extended).err(), Some(NotAReply::Extended(Rcode::BADVERS)));
    }
}
