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
        out.extend((message.len() as u16).to_be_bytes());
        out.extend((self.ids as u16).to_be_bytes());
        out.extend(&message[LENGTH_OCTETS..]);
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
