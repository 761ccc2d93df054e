//! What a connection is doing, and since when: idle, reading a request, or writing what is not taken.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Looks at a busy connection in each `message_timeout`: a bound bites this part of it late, at most.
const LOOKS_PER_TIMEOUT: u32 = 4;

/// What a connection is doing; its task, its streams' tasks and its I/O keep it up without a look at a clock.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// HTTP/1.1: any octet may begin a request.
    http1: bool,
    /// Requests so far.
    requests: AtomicUsize,
    /// Those of them whose answer has not been taken by the transport.
    in_flight: AtomicUsize,
    /// A request's head has begun and is not complete.
    head_begun: AtomicBool,
    /// The peer takes no octets for now.
    blocked: AtomicBool,
    /// HTTP/2: requests came in this turn, and nothing is written before the next.
    in_turn: AtomicBool,
    /// How often everything written was taken.
    flushes: AtomicUsize,
    /// Rises when no answer of the generation before it is left.
    generation: AtomicUsize,
    /// Answers that wait to be taken, by the generation they were made in, the odd and the even.
    untaken: [AtomicUsize; 2],
}

impl Activity {
    pub(super) fn new(http1: bool) -> Arc<Self> {
        Arc::new(Self { http1, ..Self::default() })
    }

    /// Octets came in; `begun`: they end inside a request's head, as far as that can be seen.
    pub(super) fn read(&self, begun: bool) {
        self.head_begun.store(begun, Relaxed);
    }

    /// The peer took no more octets.
    pub(super) fn block(&self) {
        self.blocked.store(true, Relaxed);
    }

    /// The peer took everything.
    pub(super) fn flush(&self) {
        if self.blocked.load(Relaxed) {
            self.blocked.store(false, Relaxed);
            raise(&self.flushes);
        }
    }

    /// Whether writes wait for the end of the turn.
    pub(super) fn in_turn(&self) -> bool {
        self.in_turn.load(Relaxed)
    }

    /// Ends the turn; whether writes may have waited for it.
    pub(super) fn end_turn(&self) -> bool {
        let in_turn = self.in_turn();
        self.in_turn.store(false, Relaxed);
        in_turn
    }

    fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) > 0 || self.head_begun.load(Relaxed) || self.blocked.load(Relaxed)
    }

    /// The number of requests so far, while there is nothing to do.
    fn idle(&self) -> Option<usize> {
        (self.in_flight.load(Relaxed) == 0).then(|| self.requests.load(Relaxed))
    }

    /// The number of the request that has begun. One of several at a time is held by the connection's others.
    fn reading(&self) -> Option<usize> {
        self.idle().filter(|_| self.head_begun.load(Relaxed))
    }

    fn writing(&self) -> Option<usize> {
        self.blocked.load(Relaxed).then(|| self.flushes.load(Relaxed))
    }

    /// The generation before this one, while answers of it are left. A new one begins where none are.
    fn untaken(&self) -> Option<usize> {
        let before = self.generation.load(Relaxed).wrapping_sub(1);
        if self.untaken[before & 1].load(Relaxed) > 0 {
            return Some(before);
        }
        let generation = self.generation.fetch_add(1, Relaxed);
        (self.untaken[generation & 1].load(Relaxed) > 0).then_some(generation)
    }
}

/// Counts one more. A connection, its streams and its I/O are all polled and dropped on the one thread of their runtime,
/// so this need not be one step, which would cost ten times as much.
fn raise(count: &AtomicUsize) {
    count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Counts one less; see [`raise`].
fn lower(count: &AtomicUsize) {
    count.store(count.load(Relaxed).wrapping_sub(1), Relaxed);
}

/// A request, until its answer has been taken by the transport or the stream is given up.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    /// The generation its answer was made in.
    answered: Option<usize>,
}

impl Exchange {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        raise(&activity.requests);
        raise(&activity.in_flight);
        activity.in_turn.store(!activity.http1, Relaxed);
        let exchange = Self { activity: Arc::clone(activity), answered: None };
        exchange.is_read();
        exchange
    }

    /// Head or body is complete, so what was read last began no other request, as far as HTTP/1.1 shows.
    pub(super) fn is_read(&self) {
        if self.activity.http1 {
            self.activity.read(false);
        }
    }

    /// Its answer stands ready to be written.
    pub(super) fn answer(&mut self) {
        let generation = self.activity.generation.load(Relaxed);
        raise(&self.activity.untaken[generation & 1]);
        self.answered = Some(generation);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        lower(&self.activity.in_flight);
        if let Some(generation) = self.answered {
            lower(&self.activity.untaken[generation & 1]);
        }
    }
}

/// What a look at a connection finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing to object to.
    Fine,
    /// No request for as long as the idle timeout.
    Idle,
    /// A request that does not end, or an answer that is not taken, for as long as the message timeout.
    Stalled,
}

/// Looks at a connection now and then: often while it is busy, else when it would be idle for too long.
#[derive(Debug)]
pub(super) struct Watch {
    activity: Arc<Activity>,
    message_timeout: Duration,
    idle: Since,
    reading: Since,
    writing: Since,
    untaken: Since,
    /// Requests up to the last look.
    requests: usize,
    /// The next look comes soon enough for a busy connection.
    soon: bool,
}

impl Watch {
    pub(super) fn new(activity: Arc<Activity>, message_timeout: Duration) -> Self {
        let [idle, reading, writing, untaken] = [Since(None); 4];
        Self { activity, message_timeout, idle, reading, writing, untaken, requests: 0, soon: false }
    }

    /// Looks at the connection, and sets `timer` to the next look.
    pub(super) fn look(&mut self, idle_timeout: Duration, mut timer: Pin<&mut Sleep>) -> Finding {
        let now = Instant::now();
        let idle = self.idle.age(self.activity.idle(), now);
        let stalled = [
            self.reading.age(self.activity.reading(), now),
            self.writing.age(self.activity.writing(), now),
            self.untaken.age(self.activity.untaken(), now),
        ];
        if stalled.into_iter().any(|age| over(age, self.message_timeout)) {
            return Finding::Stalled;
        }
        // A head that has begun is not idle: the message timeout is its bound.
        if over(idle, idle_timeout) && !self.activity.is_busy() {
            return Finding::Idle;
        }
        self.requests = self.activity.requests.load(Relaxed);
        self.soon = self.activity.is_busy();
        let left = bound(idle_timeout).saturating_sub(idle.unwrap_or_default()).max(SHORTEST);
        timer.as_mut().reset(now + left.min(if self.soon { self.interval() } else { LONGEST }));
        Finding::Fine
    }

    /// Whether there has been a request.
    pub(super) fn has_asked(&self) -> bool {
        self.activity.requests.load(Relaxed) > 0
    }

    /// Until the next look is due. Where the connection got busy since the last one, that is sooner than was thought.
    pub(super) async fn due(&mut self, mut timer: Pin<&mut Sleep>) {
        poll_fn(|cx| {
            if !self.soon && (self.activity.is_busy() || self.requests != self.activity.requests.load(Relaxed)) {
                self.soon = true;
                let next = (Instant::now() + self.interval()).min(timer.deadline());
                timer.as_mut().reset(next);
            }
            timer.as_mut().poll(cx)
        })
        .await;
    }

    fn interval(&self) -> Duration {
        (bound(self.message_timeout) / LOOKS_PER_TIMEOUT).max(SHORTEST)
    }
}

/// Looks are never closer to each other.
const SHORTEST: Duration = Duration::from_millis(50);

/// An idle connection is looked at as often: its timeout may have shrunk.
const LONGEST: Duration = Duration::from_secs(10);

/// Stands for no bound at all; short enough to be added to any moment.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A timeout of zero is none.
const fn bound(timeout: Duration) -> Duration {
    if timeout.is_zero() { FOREVER } else { timeout }
}

fn over(age: Option<Duration>, timeout: Duration) -> bool {
    age.is_some_and(|age| age >= bound(timeout))
}

/// Since when the same thing has been seen, look by look.
#[derive(Debug, Clone, Copy)]
struct Since(Option<(usize, Instant)>);

impl Since {
    fn age(&mut self, seen: Option<usize>, now: Instant) -> Option<Duration> {
        self.0 = match (self.0, seen) {
            (Some((before, since)), Some(thing)) if before == thing => Some((thing, since)),
            (_, thing) => thing.map(|thing| (thing, now)),
        };
        self.0.map(|(_, since)| now - since)
    }
}
