//! What is counted, in one vocabulary of metric names and labels; what is never logged.
//!
//! Never a client's address and never a name a client asked for: no [`Event`] carries either, no metric has a label
//! for it, and [`log::init`] keeps libraries from printing them. Names of orders and lists, and addresses of upstream
//! resolvers, are the operator's own.

pub mod exposition;
pub mod health;
pub mod log;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::dns::Rcode;

pub use exposition::{Scrape, UpstreamScrape};
pub use health::Health;
pub use log::{Format, init as subscriber};

/// A bound that keeps biting is logged once in this time.
const BOUND_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A transport, as metrics label it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `dot`
    Dot,
    /// `doh` over HTTP/2 or HTTP/1.1
    Doh,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dot, Self::Doh];

    /// Its label.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Dot => "dot",
            Self::Doh => "doh",
        }
    }
}

/// A bound of `[limits]` or of `attacks.md` that bit. Counted, and logged at most once a minute each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bound {
    /// `[limits] connections`
    Connections,
    /// `[limits] connections-per-client`
    ConnectionsPerClient,
    /// `[limits] queries-per-second-per-client`
    QueriesPerClient,
    /// `[limits] in-flight`
    InFlight,
    /// `[limits] in-flight-per-connection`
    InFlightPerConnection,
    /// `[limits] handshake-timeout`
    HandshakeTimeout,
    /// `[limits] message-timeout`
    MessageTimeout,
    /// `[limits] idle-timeout`
    IdleTimeout,
    /// The budget of upstream queries for one query
    UpstreamBudget,
    /// DoH body or URL octets
    RequestOctets,
    /// HTTP/2 or HTTP/1 protocol bounds (resets, header list)
    Http,
    /// File descriptors ran out at an accept
    Descriptors,
}

impl Bound {
    /// Each of them.
    pub const ALL: [Self; 12] = [
        Self::Connections,
        Self::ConnectionsPerClient,
        Self::QueriesPerClient,
        Self::InFlight,
        Self::InFlightPerConnection,
        Self::HandshakeTimeout,
        Self::MessageTimeout,
        Self::IdleTimeout,
        Self::UpstreamBudget,
        Self::RequestOctets,
        Self::Http,
        Self::Descriptors,
    ];

    /// Its label; for one of `[limits]`, its key there.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerClient => "connections-per-client",
            Self::QueriesPerClient => "queries-per-second-per-client",
            Self::InFlight => "in-flight",
            Self::InFlightPerConnection => "in-flight-per-connection",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::MessageTimeout => "message-timeout",
            Self::IdleTimeout => "idle-timeout",
            Self::UpstreamBudget => "upstream-budget",
            Self::RequestOctets => "request-octets",
            Self::Http => "http",
            Self::Descriptors => "descriptors",
        }
    }
}

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// A message arrived that has an ID to answer under.
    Query(Protocol),
    /// An answer left.
    Answer(Rcode),
    /// The cache answered.
    CacheHit,
    /// The cache had nothing.
    CacheMiss,
    /// A stale reply was served.
    CacheStale,
    /// A reply was refreshed in the background.
    CacheRefresh,
    /// A connection was accepted.
    ConnectionOpened(Protocol),
    /// It is gone.
    ConnectionClosed(Protocol),
    /// A handshake was completed; whether it resumed a session.
    Handshake {
        /// A ticket or session ID was taken.
        resumed: bool,
    },
    /// A handshake failed.
    HandshakeFailed,
    /// A bound bit.
    Bound(Bound),
}

/// RCODEs below this have a counter each; the few that are left (none is assigned a use here) share the last one.
const RCODES_COUNTED: usize = 24;

/// How many counters each worker has.
const COUNTERS: usize = Event::BOUNDS + Bound::ALL.len();

impl Event {
    // Where each kind of event begins among a worker's counters.
    const QUERIES: usize = 0;
    const ANSWERS: usize = Self::QUERIES + Protocol::ALL.len();
    const CACHE: usize = Self::ANSWERS + RCODES_COUNTED + 1;
    const OPENED: usize = Self::CACHE + 4;
    const CLOSED: usize = Self::OPENED + Protocol::ALL.len();
    const HANDSHAKES: usize = Self::CLOSED + Protocol::ALL.len();
    const BOUNDS: usize = Self::HANDSHAKES + 3;

    /// Where it is counted.
    const fn place(self) -> usize {
        match self {
            Self::Query(protocol) => Self::QUERIES + protocol as usize,
            Self::Answer(Rcode(rcode)) if (rcode as usize) < RCODES_COUNTED => Self::ANSWERS + rcode as usize,
            Self::Answer(_) => Self::ANSWERS + RCODES_COUNTED,
            Self::CacheHit => Self::CACHE,
            Self::CacheMiss => Self::CACHE + 1,
            Self::CacheStale => Self::CACHE + 2,
            Self::CacheRefresh => Self::CACHE + 3,
            Self::ConnectionOpened(protocol) => Self::OPENED + protocol as usize,
            Self::ConnectionClosed(protocol) => Self::CLOSED + protocol as usize,
            Self::Handshake { resumed } => Self::HANDSHAKES + resumed as usize,
            Self::HandshakeFailed => Self::HANDSHAKES + 2,
            Self::Bound(bound) => Self::BOUNDS + bound as usize,
        }
    }
}

/// Counters of one worker never share a cache line with another's; a scrape adds them up.
#[derive(Debug)]
pub struct Telemetry {
    /// One per worker, and a last one for all other threads.
    slots: Box<[Slot]>,
    /// Answers that an order or list changed, by kind and id; kept across generations of the policy.
    blocks: Mutex<Counters<(Kind, Box<str>)>>,
    /// Answers that an order in trial would have changed, by id.
    trials: Mutex<Counters<Box<str>>>,
    bites: [Bite; Bound::ALL.len()],
    start: Instant,
}

type Counters<K> = BTreeMap<K, BlockCounter>;

/// What blocks: `order` or `list`.
type Kind = Box<str>;

/// The counters of one worker. Two lines apart, since processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Slot<const N: usize = COUNTERS>([AtomicU64; N]);

impl<const N: usize> Slot<N> {
    const fn zero() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }

    fn slots(count: usize) -> Box<[Self]> {
        (0..count).map(|_| Self::zero()).collect()
    }

    fn add(&self, place: usize) {
        self.0[place].fetch_add(1, Ordering::Relaxed);
    }
}

/// When a bound was last logged.
#[derive(Debug, Default)]
struct Bite {
    /// Milliseconds since the start, plus one; 0: never.
    logged: AtomicU64,
    /// How often it had bitten then.
    told: AtomicU64,
}

/// What [`Telemetry::enter`] was never called with.
const OUTSIDE: usize = usize::MAX;

thread_local! {
    /// The number of the worker that this thread is.
    static WORKER: Cell<usize> = const { Cell::new(OUTSIDE) };
}

/// This worker's among `slots`, whose last is everyone else's.
fn mine<T>(slots: &[T]) -> &T {
    &slots[WORKER.get().min(slots.len() - 1)]
}

fn sum<const N: usize>(slots: &[Slot<N>], place: usize) -> u64 {
    slots.iter().map(|slot| slot.0[place].load(Ordering::Relaxed)).sum()
}

/// Blocked answers of one order or list, counted per worker.
#[derive(Debug, Clone)]
pub struct BlockCounter {
    slots: Arc<[Slot<1>]>,
}

impl BlockCounter {
    fn new(slots: usize) -> Self {
        Self { slots: Slot::slots(slots).into() }
    }

    /// Counts one. Neither allocates nor locks.
    pub fn count(&self) {
        mine(&self.slots).add(0);
    }

    /// How many so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        sum(&self.slots, 0)
    }
}

impl Telemetry {
    /// All at zero, for `workers` worker threads.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: Slot::slots(workers + 1),
            blocks: Mutex::default(),
            trials: Mutex::default(),
            bites: Default::default(),
            start: Instant::now(),
        })
    }

    /// Says that this thread is worker `number`, from 0; a thread that never says so counts in a slot of its own.
    pub fn enter(&self, number: usize) {
        WORKER.set(number);
    }

    /// Counts one. A relaxed add to memory of this worker; does not allocate; a bound may log a line.
    pub fn count(&self, event: Event) {
        mine(&self.slots).add(event.place());
        if let Event::Bound(bound) = event {
            self.log_bite(bound);
        }
    }

    /// How often an event was counted, by all workers.
    #[must_use]
    pub fn total(&self, event: Event) -> u64 {
        sum(&self.slots, event.place())
    }

    /// The counter of an order's (`kind` is `order`) or list's (`list`) blocked answers. The same kind and id get the
    /// same counter, whatever generation of the policy asks. Locks: for the making of a policy, not for a query.
    #[must_use]
    pub fn block_counter(&self, kind: &str, id: &str) -> BlockCounter {
        let counter = || BlockCounter::new(self.slots.len());
        lock(&self.blocks).entry((kind.into(), id.into())).or_insert_with(counter).clone()
    }

    /// How many answers each order (`kind` is `order`) or list (`list`) has blocked so far, by id.
    #[must_use]
    pub fn block_totals(&self, kind: &str) -> BTreeMap<String, u64> {
        let blocks = lock(&self.blocks);
        let of_kind = blocks.iter().filter(|((found, _), _)| **found == *kind);
        of_kind.map(|((_, id), counter)| (id.to_string(), counter.total())).collect()
    }

    /// The counter of the answers that an order in trial would have blocked; see [`Self::block_counter`].
    #[must_use]
    pub fn trial_counter(&self, id: &str) -> BlockCounter {
        let counter = || BlockCounter::new(self.slots.len());
        lock(&self.trials).entry(id.into()).or_insert_with(counter).clone()
    }

    /// The page at `/metrics`: what was counted here, beside what others own. Its type is
    /// [`exposition::CONTENT_TYPE`].
    #[must_use]
    pub fn render(&self, scrape: &Scrape) -> String {
        exposition::render(self, scrape)
    }

    /// Logs that a bound bit, unless that was done less than [`BOUND_LOG_INTERVAL`] ago.
    fn log_bite(&self, bound: Bound) {
        let Some(bites) = self.bites_to_log(bound) else { return };
        match bound {
            // Every quiet client ends so.
            Bound::IdleTimeout => tracing::debug!(bound = bound.key(), bites, "a bound was reached"),
            _ => tracing::warn!(bound = bound.key(), bites, "a bound was reached"),
        }
    }

    /// How often it has bitten since it was last logged; None: not now.
    fn bites_to_log(&self, bound: Bound) -> Option<u64> {
        let bite = &self.bites[bound as usize];
        let now = self.start.elapsed().as_millis() as u64 + 1;
        let logged = bite.logged.load(Ordering::Relaxed);
        let quiet = logged != 0 && now - logged.min(now) < BOUND_LOG_INTERVAL.as_millis() as u64;
        // Of two workers at the same moment, one logs.
        if quiet || bite.logged.compare_exchange(logged, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return None;
        }
        let total = self.total(Event::Bound(bound));
        Some(total - bite.told.swap(total, Ordering::Relaxed).min(total))
    }
}

/// A counter map is whole between any two statements, so a panic elsewhere leaves nothing to mend.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_place_of_its_own() {
        let mut events: Vec<_> = (0..=RCODES_COUNTED as u16).map(|rcode| Event::Answer(Rcode(rcode))).collect();
        for protocol in Protocol::ALL {
            events.extend([
                Event::Query(protocol),
                Event::ConnectionOpened(protocol),
                Event::ConnectionClosed(protocol),
            ]);
        }
        events.extend([Event::CacheHit, Event::CacheMiss, Event::CacheStale, Event::CacheRefresh]);
        events.extend([Event::Handshake { resumed: false }, Event::Handshake { resumed: true }]);
        events.push(Event::HandshakeFailed);
        events.extend(Bound::ALL.map(Event::Bound));
        let mut places: Vec<_> = events.iter().map(|event| event.place()).collect();
        places.sort_unstable();
        assert_eq!(places, (0..COUNTERS).collect::<Vec<_>>());
        assert_eq!(Event::Answer(Rcode(4095)).place(), Event::ANSWERS + RCODES_COUNTED);
    }

    #[test]
    fn workers_count_apart_and_are_added_up() {
        let telemetry = Telemetry::new(2);
        std::thread::scope(|scope| {
            for worker in [0, 1, 1, 700] {
                let telemetry = &telemetry;
                scope.spawn(move || {
                    telemetry.enter(worker);
                    telemetry.count(Event::CacheHit);
                });
            }
            // One that never says who it is.
            scope.spawn(|| telemetry.count(Event::CacheHit));
        });
        let hits = |slot: &Slot| slot.0[Event::CacheHit.place()].load(Ordering::Relaxed);
        assert_eq!(telemetry.slots.iter().map(hits).collect::<Vec<_>>(), [1, 2, 2]);
        assert_eq!(telemetry.total(Event::CacheHit), 5);
        assert_eq!(telemetry.total(Event::CacheMiss), 0);
    }

    #[test]
    fn no_two_workers_share_a_cache_line() {
        assert_eq!((align_of::<Slot>(), align_of::<Slot<1>>()), (128, 128));
        assert_eq!(size_of::<Slot>() % 128, 0);
    }

    #[test]
    fn a_counter_outlives_a_generation() {
        let telemetry = Telemetry::new(1);
        telemetry.block_counter("order", "a").count();
        telemetry.block_counter("order", "a").count();
        telemetry.block_counter("list", "a").count();
        telemetry.trial_counter("a").count();
        assert_eq!(telemetry.block_counter("order", "a").total(), 2);
        assert_eq!(telemetry.block_counter("list", "a").total(), 1);
        assert_eq!(telemetry.trial_counter("a").total(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_is_logged_once_a_minute() {
        let telemetry = Telemetry::new(1);
        let bite = || {
            mine(&telemetry.slots).add(Event::Bound(Bound::InFlight).place());
            telemetry.bites_to_log(Bound::InFlight)
        };
        assert_eq!(bite(), Some(1));
        assert_eq!((bite(), bite()), (None, None));
        tokio::time::advance(BOUND_LOG_INTERVAL - Duration::from_millis(1)).await;
        assert_eq!(bite(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(bite(), Some(4));
        // Another bound has its own minute.
        telemetry.count(Event::Bound(Bound::Http));
        assert_eq!(telemetry.bites_to_log(Bound::Http), None);
    }

    #[test]
    fn bounds_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = Bound::ALL.iter().map(|bound| bound.key()).collect();
        assert_eq!(names.len(), Bound::ALL.len());
        for (number, bound) in Bound::ALL.into_iter().enumerate() {
            assert_eq!(bound as usize, number);
        }
    }
}
