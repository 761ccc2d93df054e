//! How long a connection may be silent: less and less as connections run out.

use std::time::Duration;

/// What is left of the timeout when every place is taken; RFC 7766 §6.2.3 wants at least "a few seconds".
const LEAST: Duration = Duration::from_secs(2);

/// The timeout with `open` connections of at most `connections_max` (0: no limit): whole while fewer than half are
/// open, then falling in a straight line to [`least`] when all are.
#[must_use]
pub fn shrunk(whole: Duration, open: usize, connections_max: usize) -> Duration {
    let over_half = (open.saturating_mul(2)).saturating_sub(connections_max).min(connections_max);
    if connections_max == 0 || over_half == 0 {
        return whole;
    }
    whole - (whole - least(whole)).mul_f64(over_half as f64 / connections_max as f64)
}

/// A tenth of the timeout, but at least 2 s, and never more than the whole.
#[must_use]
pub fn least(whole: Duration) -> Duration {
    (whole / 10).max(LEAST).min(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_falls_from_half_to_a_tenth() {
        for (open, expected) in [(0, 100), (50, 100), (60, 82), (75, 55), (100, 10), (150, 10)] {
            assert_eq!(shrunk(seconds(100), open, 100), seconds(expected), "{open} of 100");
        }
    }

    #[test]
    fn it_stays_at_two_seconds_or_the_whole() {
        assert_eq!(shrunk(seconds(10), 100, 100), seconds(2));
        assert_eq!(shrunk(seconds(1), 100, 100), seconds(1));
    }

    #[test]
    fn no_limit_stays_none() {
        assert_eq!(shrunk(Duration::ZERO, 100, 100), Duration::ZERO);
        assert_eq!(shrunk(seconds(65), 1_000_000, 0), seconds(65));
    }
}
