//! What was asked of one upstream and what came of it, counted for a scrape.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the latency histogram's buckets, in milliseconds; one more bucket has what took longer.
pub const LATENCY_BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

const BUCKETS: usize = LATENCY_BOUNDS_MS.len() + 1;

/// The counters of one upstream as they stood at a moment. Health and loop probes are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Queries sent, over UDP and TCP.
    pub queries: u64,
    /// NOERROR, NXDOMAIN and YXDOMAIN responses.
    pub answers: u64,
    /// Tries that nothing matching came back to until their deadline.
    pub timeouts: u64,
    /// Tries that the network refused.
    pub network_errors: u64,
    /// Tries that ended in another RCODE.
    pub error_rcodes: u64,
    /// Datagrams passed over: another ID, another question, garbage.
    pub mismatches: u64,
    /// How many of the answers took at most [`LATENCY_BOUNDS_MS`] (and more than the bound before); the last: longer.
    pub latency: [u64; BUCKETS],
    /// The time that all answers took together.
    pub latency_sum: Duration,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) queries: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) network_errors: AtomicU64,
    pub(super) error_rcodes: AtomicU64,
    pub(super) mismatches: AtomicU64,
    latency: [AtomicU64; BUCKETS],
    latency_sum_micros: AtomicU64,
}

/// Adds one. Relaxed: a scrape needs no order between counters.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Counters {
    /// Counts an answer that took so long.
    pub(super) fn answered(&self, took: Duration) {
        let bucket = LATENCY_BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < took);
        count(&self.latency[bucket]);
        self.latency_sum_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        let latency: [u64; BUCKETS] = std::array::from_fn(|bucket| self.latency[bucket].load(Relaxed));
        Counts {
            queries: self.queries.load(Relaxed),
            answers: latency.iter().sum(),
            timeouts: self.timeouts.load(Relaxed),
            network_errors: self.network_errors.load(Relaxed),
            error_rcodes: self.error_rcodes.load(Relaxed),
            mismatches: self.mismatches.load(Relaxed),
            latency,
            latency_sum: Duration::from_micros(self.latency_sum_micros.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_fall_into_their_buckets() {
        let counters = Counters::default();
        for millis in [0, 1, 2, 3, 5000, 5001] {
            counters.answered(Duration::from_millis(millis));
        }
        let counts = counters.read();
        assert_eq!(counts.latency, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((counts.answers, counts.latency_sum), (6, Duration::from_millis(10_007)));
    }
}
