//! When the next query is due: at once, or by a schedule that does not wait for answers.

use std::num::NonZeroU32;

use super::exchange::Asked;
use super::histogram::Nanos;

/// Nanoseconds of a second.
pub const SECOND: Nanos = 1_000_000_000;

/// How fast queries are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// As soon as there is room for one.
    Max,
    /// So many a second.
    PerSecond(NonZeroU32),
}

/// What is to be asked, and when.
#[derive(Debug)]
pub struct Pace {
    rate: Rate,
    names: u32,
    /// How many were handed out, warming up not counted.
    count: u64,
    /// Which of the names file's comes next.
    next: u32,
    /// The measured time; None while connections are made.
    span: Option<(Nanos, Nanos)>,
    /// What a server has given back.
    again: Vec<Asked>,
}

impl Pace {
    /// So many names in turn, at a rate.
    #[must_use]
    pub const fn new(rate: Rate, names: u32) -> Self {
        Self { rate, names, count: 0, next: 0, span: None, again: Vec::new() }
    }

    /// Begins the measured time.
    pub const fn begin(&mut self, now: Nanos, end: Nanos) {
        self.span = Some((now, end));
    }

    /// Ends the measured time, if it has begun and goes on for longer.
    pub fn stop(&mut self, now: Nanos) {
        self.span = Some(self.span.map_or((now, now), |(begin, end)| (begin, end.min(now))));
    }

    /// When the measured time begins and ends, once it has begun.
    #[must_use]
    pub const fn span(&self) -> Option<(Nanos, Nanos)> {
        self.span
    }

    /// Whether a query that was due at a moment is in the measured time.
    #[must_use]
    pub fn counts(&self, due: Nanos) -> bool {
        self.span.is_some_and(|(begin, _)| due >= begin)
    }

    /// Whether no more is asked.
    #[must_use]
    pub fn is_over(&self, now: Nanos) -> bool {
        self.span.is_some_and(|(_, end)| now >= end)
    }

    /// The query that is to be asked now, if one is. While connections are made that is the next one.
    pub fn next(&mut self, now: Nanos) -> Option<Asked> {
        if self.is_over(now) {
            return None;
        }
        if let Some(asked) = self.again.pop() {
            return Some(Asked { sent: now, ..asked });
        }
        let due = match (self.span, self.rate) {
            (None, _) | (Some(_), Rate::Max) => now,
            (Some((begin, end)), Rate::PerSecond(rate)) => {
                due(begin, self.count, rate).filter(|due| *due <= now && *due < end)?
            }
        };
        self.count += u64::from(self.span.is_some());
        let query = self.next;
        self.next = if query + 1 == self.names { 0 } else { query + 1 };
        Some(Asked { query, due, sent: now })
    }

    /// Takes back a query that was not asked after all.
    pub fn give_back(&mut self, asked: Asked) {
        self.again.push(asked);
    }

    /// How many were handed out in the measured time.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// At the end: how many were due, and there was never room for them.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        let given_back = self.again.iter().filter(|asked| self.counts(asked.due)).count() as u64;
        let (Some((begin, end)), Rate::PerSecond(rate)) = (self.span, self.rate) else { return given_back };
        // The first one is due at the beginning, and the end is not in the time.
        let due = (u128::from(end - begin) * u128::from(rate.get())).div_ceil(u128::from(SECOND)) as u64;
        given_back + due.saturating_sub(self.count)
    }
}

/// When the query of a number (from 0) is due.
fn due(begin: Nanos, number: u64, rate: NonZeroU32) -> Option<Nanos> {
    let after = u128::from(number) * u128::from(SECOND) / u128::from(rate.get());
    Some(begin + Nanos::try_from(after).ok()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn per_second(rate: u32) -> Rate {
        Rate::PerSecond(NonZeroU32::new(rate).unwrap())
    }

    #[test]
    fn a_schedule_does_not_wait() {
        let mut pace = Pace::new(per_second(4), 3);
        pace.begin(10 * SECOND, 12 * SECOND);
        let at = |pace: &mut Pace, now| pace.next(now).map(|asked| (asked.query, asked.due - 10 * SECOND, asked.sent));
        assert_eq!(at(&mut pace, 10 * SECOND), Some((0, 0, 10 * SECOND)));
        assert_eq!(at(&mut pace, 10 * SECOND), None);
        assert_eq!(at(&mut pace, 10 * SECOND + 249_999_999), None);
        // Nobody has asked for a while: what was due then is asked now, and was due then.
        let now = 10 * SECOND + 750_000_000;
        let late: Vec<_> = std::iter::from_fn(|| at(&mut pace, now)).collect();
        assert_eq!(late, [(1, 250_000_000, now), (2, 500_000_000, now), (0, 750_000_000, now)]);
        assert_eq!((pace.count(), pace.unsent()), (4, 4));
        assert_eq!(at(&mut pace, 12 * SECOND), None, "the time is over");
    }

    #[test]
    fn all_that_is_due_is_asked_whatever_the_rate() {
        for rate in [1, 3, 7, 9_999, 1_000_000] {
            let mut pace = Pace::new(per_second(rate), 10);
            pace.begin(5, 5 + SECOND);
            let count = std::iter::from_fn(|| pace.next(SECOND + 4)).count();
            assert_eq!((count, pace.unsent()), (rate as usize, 0));
        }
    }

    #[test]
    fn as_fast_as_answered_is_now() {
        let mut pace = Pace::new(Rate::Max, 2);
        assert_eq!(pace.next(1).map(|asked| asked.due), Some(1), "while connections are made");
        assert!(pace.count() == 0 && !pace.counts(1));
        pace.begin(2, 9);
        let asked = pace.next(3).unwrap();
        assert_eq!((asked.query, asked.due, asked.sent, pace.count()), (1, 3, 3, 1));
        pace.give_back(asked);
        assert_eq!(pace.unsent(), 1);
        let again = pace.next(5).unwrap();
        assert_eq!((again.query, again.due, again.sent, pace.count()), (1, 3, 5, 1));
        pace.stop(6);
        assert!(pace.is_over(6) && pace.next(6).is_none() && pace.span() == Some((2, 6)));
    }
}
