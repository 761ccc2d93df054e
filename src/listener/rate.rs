//! Bounds how many queries a client asks in a second, by letting it wait.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use lru::LruCache;

use super::gate::ClientKey;

/// Clients remembered, in all; past it the one longest silent is forgotten, and starts afresh.
pub const CLIENTS_MAX: usize = 65_536;

/// Parts of the store, so that cores do not queue.
const SHARDS: usize = 16;

/// What a client may ask at once after a silence: as much as in this time.
const BURST: Duration = Duration::from_secs(1);

/// A token bucket per client, of all workers and transports together. It holds a second's worth of queries.
///
/// Nothing is refused: whoever took a token too many is told how long not to read on, and TCP makes its client wait.
#[derive(Debug)]
pub struct Rate {
    /// Time a query takes from the bucket; None: no limit.
    interval: Option<Duration>,
    /// When each client's bucket will be full again (a token bucket told by one number, as GCRA does it).
    shards: Vec<Mutex<LruCache<ClientKey, Duration, RandomState>>>,
    hash: RandomState,
}

impl Rate {
    /// Every bucket full; 0: no limit.
    #[must_use]
    pub fn new(queries_per_second: u32) -> Self {
        let interval = NonZeroU32::new(queries_per_second).map(|queries| Duration::from_secs(1) / queries.get());
        let store = || Mutex::new(LruCache::unbounded_with_hasher(RandomState::new()));
        let shards = if interval.is_some() { SHARDS } else { 0 };
        Self { interval, shards: (0..shards).map(|_| store()).collect(), hash: RandomState::new() }
    }

    /// Whether there is a limit at all.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.interval.is_some()
    }

    /// Takes one query's token at `now` (of [`crate::query::Now::mono`]) and says how long to wait before the
    /// client's next query is taken: 0 while the bucket has any.
    #[must_use]
    pub fn take(&self, client: ClientKey, now: Duration) -> Duration {
        let Some(interval) = self.interval else { return Duration::ZERO };
        let shard = self.hash.hash_one(client) as usize % self.shards.len();
        // A bucket is one number: there is no half-done state that a panic could leave.
        let mut clients = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = clients.get(&client).map_or(now, |full_at| now.max(*full_at)) + interval;
        clients.put(client, full_at);
        if clients.len() > CLIENTS_MAX / SHARDS {
            clients.pop_lru();
        }
        // The next query must find a token: the bucket may lack all but one.
        (full_at + interval).saturating_sub(now + BURST)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn client(number: u32) -> ClientKey {
        ClientKey::of(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_passes_and_the_rest_waits() {
        let rate = Rate::new(10);
        let waits: Vec<_> = (0..12).map(|_| rate.take(client(1), millis(0))).collect();
        assert!(waits[..9].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[9..], [millis(100), millis(200), millis(300)]);
        assert_eq!(rate.take(client(2), millis(0)), Duration::ZERO, "another client has its own bucket");
    }

    #[test]
    fn a_bucket_fills_again() {
        let rate = Rate::new(10);
        for _ in 0..10 {
            let _ = rate.take(client(1), millis(0));
        }
        assert_eq!(rate.take(client(1), millis(100)), millis(100));
        assert_eq!(rate.take(client(1), millis(5_000)), Duration::ZERO);
    }

    #[test]
    fn who_waits_as_told_keeps_the_rate() {
        let rate = Rate::new(4);
        let mut now = millis(0);
        for _ in 0..44 {
            now += rate.take(client(1), now);
        }
        assert_eq!(now, millis(250 * (44 - 3)));
    }

    #[test]
    fn one_query_a_second_waits_after_each() {
        let rate = Rate::new(1);
        assert_eq!(rate.take(client(1), millis(0)), millis(1_000));
    }

    #[test]
    fn without_a_limit_nobody_waits_and_nothing_is_kept() {
        let rate = Rate::new(0);
        assert!((0..1_000).all(|_| rate.take(client(1), millis(0)).is_zero()));
        assert!(rate.shards.is_empty());
    }

    #[test]
    fn the_store_is_bounded() {
        let rate = Rate::new(1);
        for number in 0..2 * CLIENTS_MAX as u32 {
            let _ = rate.take(client(number), millis(0));
        }
        let kept: usize = rate.shards.iter().map(|shard| shard.lock().map_or(0, |shard| shard.len())).sum();
        assert!(kept <= CLIENTS_MAX, "{kept}");
    }
}
