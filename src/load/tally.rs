//! What came of all that was asked: counts, latencies, seconds.

use std::collections::BTreeMap;
use std::mem;

use super::exchange::{Asked, HttpFault, Outcome};
use super::histogram::{Histogram, Nanos};
use super::pace::SECOND;
use crate::dns::Rcode;

/// What can go wrong, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// A connection that could not be made.
    Connect,
    /// A handshake or a record of TLS.
    Tls,
    /// HTTP: a status, a reset stream, frames that are none.
    Http,
    /// A message that is no answer to what was asked.
    Mismatch,
    /// No answer in time.
    Timeout,
    /// A connection that ended before an answer.
    Lost,
}

impl Wrong {
    /// All.
    pub const ALL: [Self; 6] = [Self::Connect, Self::Tls, Self::Http, Self::Mismatch, Self::Timeout, Self::Lost];

    /// Its name in JSON.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Mismatch => "mismatch",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
        }
    }
}

/// A second of the measured time, the answers that came in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    /// How many.
    pub answered: u64,
    /// Their median latency.
    pub p50: Nanos,
    /// The latency that 99 of 100 were not longer than.
    pub p99: Nanos,
    /// The longest.
    pub max: Nanos,
}

/// The counts.
#[derive(Debug, Default)]
pub struct Tally {
    /// Of each RCODE, in order. There is rarely more than one or two: a map costs more to ask.
    pub rcodes: Vec<(Rcode, u64)>,
    /// Answers whose answer section has records.
    pub with_records: u64,
    /// Answers that came when the measured time was over.
    pub late: u64,
    /// What went wrong how often, the first time in words.
    pub wrong: BTreeMap<Wrong, (u64, String)>,
    /// Handshakes in full, and by a ticket.
    pub handshakes: [u64; 2],
    /// From a connection's beginning to its first answer.
    pub first_answers: Histogram,
    /// Seconds that are over.
    pub seconds: Vec<Second>,
    begin: Option<Nanos>,
    /// Latencies of the seconds that are over.
    latencies: Histogram,
    /// Of the one that is not.
    current: Histogram,
}

impl Tally {
    /// Begins the first second; an answer to what was due before is no longer counted.
    pub const fn begin(&mut self, now: Nanos) {
        self.begin = Some(now);
    }

    /// Counts an answer to a query, which may come when the measured time is over.
    pub fn answer(&mut self, asked: Asked, rcode: Rcode, has_records: bool, now: Nanos, is_over: bool) {
        if self.begin.is_none_or(|begin| asked.due < begin) {
            return;
        }
        self.turn(now);
        self.current.record(now.saturating_sub(asked.due));
        match self.rcodes.binary_search_by_key(&rcode, |(rcode, _)| *rcode) {
            Ok(at) => self.rcodes[at].1 += 1,
            Err(at) => self.rcodes.insert(at, (rcode, 1)),
        }
        self.with_records += u64::from(has_records);
        self.late += u64::from(is_over);
    }

    /// Counts what went wrong.
    pub fn count(&mut self, wrong: Wrong, words: impl FnOnce() -> String) {
        self.wrong.entry(wrong).or_insert_with(|| (0, words())).0 += 1;
    }

    /// Counts an outcome that is no answer.
    pub fn fail(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Http(fault) => self.count(Wrong::Http, || words(fault)),
            Outcome::Mismatch => {
                self.count(Wrong::Mismatch, || "a message that is no answer to what was asked".to_owned());
            }
            Outcome::Timeout => self.count(Wrong::Timeout, || "no answer in time".to_owned()),
            Outcome::Lost => self.count(Wrong::Lost, || "the connection ended before the answer".to_owned()),
            Outcome::Answered { .. } | Outcome::GivenBack => {}
        }
    }

    /// Ends the seconds that are over by now.
    pub fn turn(&mut self, now: Nanos) {
        let Some(begin) = self.begin else { return };
        while now >= begin + (self.seconds.len() as u64 + 1) * SECOND {
            self.end_second();
        }
    }

    fn end_second(&mut self) {
        self.seconds.push(self.current_second());
        self.latencies.add(&self.current);
        self.current.clear();
    }

    /// The second that goes on.
    #[must_use]
    pub fn current_second(&self) -> Second {
        let [p50, p99] = [0.5, 0.99].map(|share| self.current.percentile(share));
        Second { answered: self.current.count(), p50, p99, max: self.current.max() }
    }

    /// Ends the last second, which may be a part of one; all latencies.
    pub fn finish(&mut self) -> Histogram {
        if self.current.count() > 0 {
            self.end_second();
        }
        mem::take(&mut self.latencies)
    }

    /// How often something went wrong.
    #[must_use]
    pub fn wrongs(&self) -> u64 {
        self.wrong.values().map(|(count, _)| count).sum()
    }
}

fn words(fault: HttpFault) -> String {
    /// RFC 9113 §7.
    const CODES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let name = |code: u32| CODES.get(code as usize).map_or_else(|| format!("error {code}"), |name| (*name).to_owned());
    match fault {
        HttpFault::Status(status) => format!("status {status}"),
        HttpFault::Reset(code) => format!("stream reset: {}", name(code)),
        HttpFault::GoAway(code) => format!("connection ended: {}", name(code)),
    }
}
