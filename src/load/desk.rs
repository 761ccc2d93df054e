//! What all connections share: the queries and when they are due, the counts, the clock's last reading.

use std::time::Instant;

use super::exchange::{Asked, Outcome};
use super::histogram::Nanos;
use super::names::Queries;
use super::pace::Pace;
use super::tally::Tally;

/// Octets that a read takes: four TLS records.
const READ_OCTETS: usize = 64 * 1_024;

/// What all connections share.
#[derive(Debug)]
pub struct Desk {
    /// What is asked.
    pub queries: Queries,
    /// When.
    pub pace: Pace,
    /// What came of it.
    pub tally: Tally,
    /// Queries under way on all connections.
    pub under_way: u64,
    /// Queries under way on a connection.
    pub in_flight: usize,
    /// Queries on a connection in all; 0: no bound.
    pub queries_per_connection: u64,
    /// Where reads go.
    pub buffer: Vec<u8>,
    /// The clock, as it was read last.
    pub now: Nanos,
    start: Instant,
}

impl Desk {
    /// A desk whose clock begins now.
    #[must_use]
    pub fn new(queries: Queries, pace: Pace, in_flight: usize, queries_per_connection: u64) -> Self {
        Self {
            queries,
            pace,
            tally: Tally::default(),
            under_way: 0,
            in_flight,
            queries_per_connection,
            buffer: vec![0; READ_OCTETS],
            now: 0,
            start: Instant::now(),
        }
    }

    /// Reads the clock.
    pub fn read_clock(&mut self) {
        // Five centuries fit.
        self.now = self.start.elapsed().as_nanos() as Nanos;
    }

    /// The next query, if one is due.
    pub fn take_due(&mut self) -> Option<Asked> {
        let asked = self.pace.next(self.now)?;
        self.under_way += 1;
        Some(asked)
    }

    /// How many more a connection may ask that has asked so many.
    #[must_use]
    pub const fn queries_left(&self, asked: u64) -> u64 {
        if self.queries_per_connection == 0 { u64::MAX } else { self.queries_per_connection.saturating_sub(asked) }
    }

    /// The queries, and what hears what became of them on a connection that took so long to be made.
    pub fn settle<'a>(
        &'a mut self,
        shaking: Nanos,
        is_answered: &'a mut bool,
    ) -> (&'a Queries, impl FnMut(Option<Asked>, Outcome) + 'a) {
        let Self { queries, pace, tally, under_way, now, .. } = self;
        let now = *now;
        let settle = move |asked: Option<Asked>, outcome: Outcome| {
            *under_way -= u64::from(asked.is_some());
            match (asked, outcome) {
                (Some(asked), Outcome::Answered { rcode, has_records }) => {
                    if !*is_answered {
                        *is_answered = true;
                        tally.first_answers.record(shaking + now - asked.sent);
                    }
                    tally.answer(asked, rcode, has_records, now, pace.is_over(now));
                }
                (Some(asked), Outcome::GivenBack) => pace.give_back(asked),
                (_, outcome) => tally.fail(outcome),
            }
        };
        (queries, settle)
    }
}
