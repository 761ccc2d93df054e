//! An exchange: a query that was asked, what came of it, and those that are under way on a connection.

use std::collections::VecDeque;

use super::histogram::Nanos;
use super::names::Queries;
use crate::dns::message::{Header, Question, Records, Section, flag};
use crate::dns::{HEADER_OCTETS, Qtype, Rcode};

/// A query that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Which of the names file's.
    pub query: u32,
    /// When it was to be asked: its latency counts from here.
    pub due: Nanos,
    /// When it was.
    pub sent: Nanos,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response to it.
    Answered {
        /// The response's.
        rcode: Rcode,
        /// Whether its answer section has records.
        has_records: bool,
    },
    /// An HTTP status that is not 200, or a stream that the server has reset.
    Http(HttpFault),
    /// A message that is no response to it.
    Mismatch,
    /// No answer in time.
    Timeout,
    /// The connection ended before its answer.
    Lost,
    /// The server has said that it has not looked at it: it is asked again elsewhere (RFC 9113 §6.8).
    GivenBack,
}

/// Why HTTP brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpFault {
    /// This status.
    Status(u16),
    /// RST_STREAM with this error code (RFC 9113 §7).
    Reset(u32),
    /// GOAWAY with this one, which is no answer to one query.
    GoAway(u32),
}

/// What a message says about a query, whose ID was to be `id`.
#[must_use]
pub fn judge(queries: &Queries, query: u32, id: u16, message: &[u8]) -> Outcome {
    let Some(header) = Header::read(message) else { return Outcome::Mismatch };
    let rcode = header.rcode();
    let repeats = match header.counts[0] {
        1 => {
            let question = queries.question(query);
            let found = message.get(HEADER_OCTETS..HEADER_OCTETS + question.len());
            // Labels' lengths are below the letters: case is all that may differ.
            found.is_some_and(|found| found == question || found.eq_ignore_ascii_case(question))
        }
        // Of a query that it will not read a server may repeat the header alone.
        0 => matches!(rcode, Rcode::FORMERR | Rcode::SERVFAIL | Rcode::NOTIMP | Rcode::REFUSED),
        _ => false,
    };
    if header.id != id || !header.has(flag::QR) || !repeats {
        return Outcome::Mismatch;
    }
    let has_records = header.counts[1] > 0;
    let is_plain = has_records || header.counts[3] == 0;
    Outcome::Answered { rcode: if is_plain { rcode } else { extended(message, &header) }, has_records }
}

/// The RCODE with the bits that an OPT adds (RFC 6891 §6.1.3).
fn extended(message: &[u8], header: &Header) -> Rcode {
    let low = header.rcode();
    let Ok(question) = Question::read(message) else { return low };
    let mut records = Records::new(message, header, question.end).map_while(Result::ok);
    let opt = records.find(|record| record.section == Section::Additional && record.rtype == Qtype::OPT);
    opt.map_or(low, |opt| Rcode(u16::from(opt.ttl_octets()[0]) << 4 | low.0))
}

/// Queries under way on a connection, in the order in which they were asked; `T` is what has come of each so far.
#[derive(Debug)]
pub struct UnderWay<T> {
    queries: VecDeque<Query<T>>,
}

/// A query under way.
#[derive(Debug)]
pub struct Query<T> {
    /// What its answer will bear: an ID or a stream.
    pub key: u32,
    /// The query.
    pub asked: Asked,
    /// What has come of it.
    pub so_far: T,
}

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self { queries: VecDeque::new() }
    }
}

impl<T: Default> UnderWay<T> {
    /// How many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.queries.len()
    }

    /// Adds one.
    pub fn push(&mut self, key: u32, asked: Asked) {
        self.queries.push_back(Query { key, asked, so_far: T::default() });
    }

    /// The first key that stands here.
    #[must_use]
    pub fn oldest(&self) -> Option<u32> {
        self.queries.front().map(|query| query.key)
    }

    /// Where a key that fits stands. Answers come nearly in order: mostly it is the first.
    pub fn position(&self, fits: impl Fn(u32) -> bool) -> Option<usize> {
        if fits(self.queries.front()?.key) {
            return Some(0);
        }
        self.queries.iter().position(|query| fits(query.key))
    }

    /// The query at a position.
    pub fn at(&mut self, position: usize) -> Option<&mut Query<T>> {
        self.queries.get_mut(position)
    }

    /// Takes out the query at a position.
    pub fn take(&mut self, position: usize) -> Option<Query<T>> {
        if position == 0 { self.queries.pop_front() } else { self.queries.remove(position) }
    }

    /// Takes out the first one if it was asked before a moment.
    pub fn take_older(&mut self, moment: Nanos) -> Option<Query<T>> {
        if self.queries.front()?.asked.sent < moment { self.queries.pop_front() } else { None }
    }

    /// Takes out the last one if its key is above this.
    pub fn take_above(&mut self, key: u32) -> Option<Query<T>> {
        if self.queries.back()?.key > key { self.queries.pop_back() } else { None }
    }

    /// Takes out all.
    pub fn drain(&mut self) -> impl Iterator<Item = Asked> {
        self.queries.drain(..).map(|query| query.asked)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_an_answer_to_the_query_is_one() {
        let queries = Queries::parse(Path::new("n"), "a.example AAAA", false).unwrap();
        let mut answer = queries.message(0).to_vec();
        (answer[2], answer[3]) = (0x81, 0x83);
        let judged = |answer: &[u8]| judge(&queries, 0, 0, answer);
        let nxdomain = Outcome::Answered { rcode: Rcode::NXDOMAIN, has_records: false };
        assert_eq!(judged(&answer), nxdomain);
        for cut in 0..answer.len() {
            assert_eq!(judged(&answer[..cut]), Outcome::Mismatch, "cut at {cut}");
        }
        let changed = |at: usize, value: u8| {
            let mut other = answer.clone();
            other[at] = value;
            judge(&queries, 0, 0, &other)
        };
        assert_eq!(changed(13, b'A'), nxdomain, "case");
        for (at, value) in [(0, 1), (2, 0x01), (5, 0), (5, 2), (13, b'b'), (answer.len() - 3, 1), (answer.len() - 1, 3)]
        {
            assert_eq!(changed(at, value), Outcome::Mismatch, "{at} {value}");
        }
        assert_eq!(changed(7, 1), Outcome::Answered { rcode: Rcode::NXDOMAIN, has_records: true });
        assert_eq!(
            judged(&[0, 0, 0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0]),
            Outcome::Answered { rcode: Rcode::REFUSED, has_records: false }
        );
        assert_eq!(judged(&[0, 0, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]), Outcome::Mismatch);
        answer[3] = 0x80;
        answer[11] = 1;
        answer.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
        assert_eq!(judged(&answer), Outcome::Answered { rcode: Rcode::BADVERS, has_records: false });
    }
}
