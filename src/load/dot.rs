//! A DoT connection's side of the conversation: messages behind their lengths, answers in any order (RFC 7858, RFC 7766).

use std::collections::HashSet;
use std::convert::Infallible;

use super::exchange::{Asked, Outcome, Query, UnderWay, judge};
use super::histogram::Nanos;
use super::names::Queries;
use super::pieces::Pieces;

/// How many queries a connection may leave without an answer before it is given up: their IDs cannot be used again.
const UNANSWERED_MAX: usize = 1_000;

/// Octets of a length.
const LENGTH_OCTETS: usize = 2;

/// Octets of an ID.
const ID_OCTETS: usize = 2;

/// What a DoT connection is about to hear and say.
#[derive(Debug, Default)]
pub struct Dot {
    pieces: Pieces,
    under_way: UnderWay<()>,
    /// How many IDs were used; the next one is its lower 16 bits.
    ids: u32,
    /// IDs that were given up on: an answer may still come.
    unanswered: HashSet<u16>,
}

impl Dot {
    /// Queries under way.
    #[must_use]
    pub fn under_way(&self) -> &UnderWay<()> {
        &self.under_way
    }

    /// Puts a query into `out`.
    pub fn ask(&mut self, queries: &Queries, asked: Asked, out: &mut Vec<u8>) {
        while self.is_taken(self.ids as u16) {
            self.ids = self.ids.wrapping_add(1);
        }
        let message = queries.message(asked.query);
        let [l1, l0] = (message.len() as u16).to_be_bytes();
        let [i1, i0] = (self.ids as u16).to_be_bytes();
        out.extend_from_slice(&[l1, l0, i1, i0]);
        out.extend_from_slice(&message[ID_OCTETS..]);
        self.under_way.push(self.ids, asked);
        self.ids = self.ids.wrapping_add(1);
    }

    fn is_taken(&self, id: u16) -> bool {
        let goes_round = |oldest: u32| self.ids.wrapping_sub(oldest) > u32::from(u16::MAX);
        self.unanswered.contains(&id)
            || self.under_way.oldest().is_some_and(goes_round)
                && self.under_way.position(|key| key as u16 == id).is_some()
    }

    /// Reads what came, and tells what became of which query.
    pub fn read(&mut self, octets: &[u8], queries: &Queries, mut done: impl FnMut(Option<Asked>, Outcome)) {
        let octets_of = |octets: &[u8]| {
            let length = octets.first_chunk().map(|length| LENGTH_OCTETS + usize::from(u16::from_be_bytes(*length)));
            Ok::<_, Infallible>(length)
        };
        let (pieces, unanswered) = (&mut self.pieces, &mut self.unanswered);
        let under_way = &mut self.under_way;
        let Ok(()) = pieces.feed(octets, octets_of, |unit| {
            let message = &unit[LENGTH_OCTETS..];
            let id = message.first_chunk().map(|id| u16::from_be_bytes(*id));
            let position = id.and_then(|id| under_way.position(|key| key as u16 == id));
            match (id, position.and_then(|position| under_way.take(position))) {
                (Some(id), Some(Query { asked, .. })) => done(Some(asked), judge(queries, asked.query, id, message)),
                (Some(id), None) if unanswered.remove(&id) => {}
                _ => done(None, Outcome::Mismatch),
            }
            Ok(())
        });
    }

    /// Gives up on queries asked before a moment. False: on so many that the connection is of no use.
    pub fn expire(&mut self, before: Nanos, mut done: impl FnMut(Option<Asked>, Outcome)) -> bool {
        while let Some(Query { key, asked, .. }) = self.under_way.take_older(before) {
            self.unanswered.insert(key as u16);
            done(Some(asked), Outcome::Timeout);
        }
        self.unanswered.len() <= UNANSWERED_MAX
    }

    /// Gives up on all.
    pub fn abandon(&mut self, mut done: impl FnMut(Option<Asked>, Outcome)) {
        self.under_way.drain().for_each(|asked| done(Some(asked), Outcome::Lost));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::dns::Rcode;

    const NOERROR: Outcome = Outcome::Answered { rcode: Rcode::NOERROR, has_records: false };

    fn queries() -> Queries {
        Queries::parse(Path::new("n"), "a.example\nb.example", false).unwrap()
    }

    fn asked(query: u32) -> Asked {
        Asked { query, due: 0, sent: u64::from(query) }
    }

    /// Makes answers of the queries that were put.
    fn answers(out: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = out;
        let mut answers = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk() {
            let (message, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
            let mut answer = [&length[..], message].concat();
            answer[4] |= 0x80;
            answers.push(answer);
            rest = behind;
        }
        answers
    }

    fn read(dot: &mut Dot, octets: &[u8], queries: &Queries) -> Vec<(Option<u32>, Outcome)> {
        let mut seen = Vec::new();
        dot.read(octets, queries, |asked, outcome| seen.push((asked.map(|asked| asked.query), outcome)));
        seen
    }

    #[test]
    fn answers_in_any_order_and_pieces_are_told_apart() {
        let queries = queries();
        let mut out = Vec::new();
        let mut dot = Dot::default();
        for query in 0..2 {
            dot.ask(&queries, asked(query), &mut out);
        }
        let [first, second] = answers(&out).try_into().unwrap();
        let all = [second, first].concat();
        for cut in 0..=all.len() {
            let mut dot = Dot::default();
            for query in 0..2 {
                dot.ask(&queries, asked(query), &mut Vec::new());
            }
            let mut seen = read(&mut dot, &all[..cut], &queries);
            seen.extend(read(&mut dot, &all[cut..], &queries));
            assert_eq!(seen, [(Some(1), NOERROR), (Some(0), NOERROR)], "cut at {cut}");
        }
    }

    #[test]
    fn what_nobody_asked_is_no_answer() {
        let queries = queries();
        let mut out = Vec::new();
        let mut dot = Dot::default();
        dot.ask(&queries, asked(0), &mut out);
        let mut answer = answers(&out).remove(0);
        answer[3] = 9;
        assert_eq!(read(&mut dot, &answer, &queries), [(None, Outcome::Mismatch)]);
        assert_eq!(read(&mut dot, &[0, 1, 7, 0, 0], &queries), [(None, Outcome::Mismatch); 2], "no ID");
        answer[3] = 0;
        answer[15] = b'b';
        assert_eq!(read(&mut dot, &answer, &queries), [(Some(0), Outcome::Mismatch)], "another question");
    }

    #[test]
    fn an_answer_may_come_too_late() {
        let queries = queries();
        let mut out = Vec::new();
        let mut dot = Dot::default();
        dot.ask(&queries, asked(0), &mut out);
        dot.ask(&queries, asked(1), &mut out);
        let mut seen = Vec::new();
        assert!(dot.expire(1, |asked, outcome| seen.push((asked.map(|asked| asked.query), outcome))));
        assert_eq!(seen, [(Some(0), Outcome::Timeout)]);
        assert_eq!(read(&mut dot, &answers(&out).concat(), &queries), [(Some(1), NOERROR)]);
        assert_eq!(read(&mut dot, &answers(&out)[0], &queries), [(None, Outcome::Mismatch)], "and only once");
    }

    #[test]
    fn an_id_in_use_is_not_used_again() {
        let queries = queries();
        let mut dot = Dot { ids: 1, ..Dot::default() };
        dot.ask(&queries, asked(0), &mut Vec::new());
        dot.unanswered.insert(0);
        dot.ids = 0x1_0000;
        let mut out = Vec::new();
        dot.ask(&queries, asked(1), &mut out);
        assert_eq!(out[2..4], [0, 2], "0 was given up on, 1 is under way");
        for id in 0..=UNANSWERED_MAX {
            dot.unanswered.insert(id as u16 + 3);
        }
        assert!(!dot.expire(0, |_, _| {}), "of no more use");
    }
}
