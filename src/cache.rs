//! Replies until their TTL ends, negative and stale ones too; the clock is passed in.

mod entry;
#[cfg(test)]
mod fixture;
mod recent;
mod shard;
mod stored;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod ttl;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;

use crate::policy::{Findings, Met, Permitted};
use crate::query::{Failure, Freshness, Reply};
use entry::{Entry, Failed, State, millis};
use recent::{Given, Recents};
use shard::Shard;
use stored::{Key, Stored};

/// How many parts the cache has, each behind a lock of its own, so that cores do not queue.
pub const SHARDS: usize = 64;

/// `[cache]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Bound on what the cache takes, all in, in octets; 0: nothing is kept. Default 64 MiB. A 32nd, at most 12 MiB, is
    /// for copies of the answers asked for last; of the rest each of the [`SHARDS`] has its equal share, and no entry
    /// takes more than an eighth of that, so from 42 MiB on every message fits.
    pub memory: u64,
    /// TTLs are raised to this. Default 0.
    pub ttl_min: Duration,
    /// TTLs are cut to this. Default one day.
    pub ttl_max: Duration,
    /// How long past its end a reply may still be served (RFC 8767); 0: not at all. Default one day.
    pub stale: Duration,
}

/// What the cache has for a question.
#[derive(Debug)]
pub enum Found<'s> {
    /// A reply within its TTL.
    Fresh {
        /// It, TTLs to be counted down by its age.
        reply: Reply<'s>,
        /// What its names met, when somebody last looked.
        findings: Findings,
        /// This hit is the one to refresh it in the background.
        refresh: bool,
    },
    /// A reply past its TTL that [`Cache::stale`] still has.
    Expired {
        /// A refresh failed less than 5 s ago: serve it at once, and ask nobody.
        at_once: bool,
    },
    /// A failure that is still to be believed (RFC 9520).
    Failed(Failure),
    /// Nothing.
    Nothing,
}

/// The cache.
#[derive(Debug)]
pub struct Cache {
    /// Asked before the shards. A question's copy is put there and forgotten under the lock of its shard only, so that it
    /// never says what has been replaced there; another's may take its place once its second is over.
    recents: Recents,
    shards: [Lane; SHARDS],
    hasher: RandomState,
    bounds: ttl::Bounds,
    stale_ms: u64,
    /// Timeouts noted before this moment no longer count.
    voided_ms: AtomicU64,
}

/// A shard on cache lines of its own: a core that takes one lock does not slow another that takes the next.
#[derive(Debug)]
#[repr(align(64))]
struct Lane(Mutex<Shard>);

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let memory = usize::try_from(settings.memory).unwrap_or(usize::MAX);
        let recents = Recents::within(memory);
        let share = (memory - recents.octets()) / SHARDS;
        Self {
            recents,
            shards: std::array::from_fn(|_| Lane(Mutex::new(Shard::new(share)))),
            hasher: RandomState::new(),
            bounds: ttl::Bounds::new(settings.ttl_min, settings.ttl_max),
            stale_ms: millis(settings.stale),
            voided_ms: AtomicU64::new(0),
        }
    }

    /// Looks a question up. `scratch` receives the octets; what it held is gone.
    pub fn get<'s>(&self, permitted: &Permitted<'_>, now: Duration, scratch: &'s mut Vec<u8>) -> Found<'s> {
        let (key, now) = (self.key(permitted), millis(now));
        if let Some(Given { age, index }) = self.recents.get(&key, now, scratch) {
            let findings = Findings { index, met: Met::Nothing };
            return Found::Fresh { reply: Reply::kept(scratch, Freshness::Aged(age)), findings, refresh: false };
        }
        let mut shard = self.shard(&key);
        let Some((stored, entry)) = shard.get(key.octets()) else { return Found::Nothing };
        match entry.state(now, self.stale_ms, self.voided_ms()) {
            State::Fresh { age } => {
                stored.write_message(scratch);
                let (findings, refresh) = (entry.findings(), entry.hit(now));
                self.recents.put(&key, stored, entry, now);
                Found::Fresh { reply: Reply::kept(scratch, Freshness::Aged(age)), findings, refresh }
            }
            State::Stale { at_once } => Found::Expired { at_once },
            State::Failed(failure) => Found::Failed(failure),
            State::Over => Found::Nothing,
        }
    }

    /// The reply past its TTL, where one is kept.
    pub fn stale<'s>(
        &self,
        permitted: &Permitted<'_>,
        now: Duration,
        scratch: &'s mut Vec<u8>,
    ) -> Option<(Reply<'s>, Findings)> {
        let key = self.key(permitted);
        let mut shard = self.shard(&key);
        let (stored, entry) = shard.get(key.octets())?;
        let State::Stale { .. } = entry.state(millis(now), self.stale_ms, self.voided_ms()) else { return None };
        stored.write_message(scratch);
        Some((Reply::kept(scratch, Freshness::Stale), entry.findings()))
    }

    /// Settles the TTLs of a reply from an upstream, and keeps it where it may be kept. Where it may not, what was kept
    /// before goes all the same: the upstream has just said otherwise.
    pub fn keep(&self, permitted: &Permitted<'_>, reply: &mut Reply<'static>, findings: &Findings, now: Duration) {
        let qtype = permitted.query().qtype;
        ttl::settle(reply, qtype, self.bounds);
        if !ttl::is_good(reply) {
            return;
        }
        let key = self.key(permitted);
        let lifetime = ttl::lifetime(reply, qtype);
        let new = lifetime
            .and_then(|lifetime| Some((Stored::reply(&key, reply)?, Entry::of_reply(lifetime, findings, millis(now)))));
        let mut shard = self.shard(&key);
        self.recents.forget(&key);
        shard.remove(key.octets());
        if let Some((stored, entry)) = new {
            shard.insert(stored, entry);
        }
    }

    /// Keeps a failure, beside a stale reply where there is one. [`Failure::Overloaded`], [`Failure::NoUpstream`] and
    /// [`Failure::Internal`] say nothing about the question, and are not kept.
    pub fn keep_failure(&self, permitted: &Permitted<'_>, failure: Failure, now: Duration) {
        let (key, now) = (self.key(permitted), millis(now));
        let mut shard = self.shard(&key);
        let known = shard.get(key.octets()).map(|(_, entry)| &*entry);
        let Some(failed) = Failed::after(known.and_then(Entry::failed), failure, now) else { return };
        self.recents.forget(&key);
        if known.is_some_and(|entry| entry.may_stay(now, self.stale_ms)) {
            shard.change(key.octets(), |_, entry| entry.fail(failed));
        } else {
            shard.remove(key.octets());
            shard.insert(Stored::question(&key), Entry::of_failure(failed));
        }
    }

    /// Replaces what the names of a kept reply met: the index has changed since. Does nothing where another reply has
    /// taken the place of `reply` in the meantime, for the findings are not its own.
    pub fn refind(&self, permitted: &Permitted<'_>, reply: &Reply<'_>, findings: &Findings) {
        let key = self.key(permitted);
        let mut shard = self.shard(&key);
        self.recents.forget(&key);
        shard.change(key.octets(), |stored, entry| {
            if stored.holds(reply) {
                entry.find(findings);
            }
        });
    }

    /// Voids every kept [`Failure::Timeout`] and [`Failure::Network`]: an upstream is back.
    pub fn void_timeouts(&self, now: Duration) {
        // What was noted in this very millisecond is voided too.
        self.voided_ms.fetch_max(millis(now).saturating_add(1), Ordering::Relaxed);
    }

    /// How many questions something is kept for. Counted shard by shard, while queries go on.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.shards.iter().map(|lane| lane.lock().len()).sum()
    }

    /// Octets that it takes, all in. Counted shard by shard, while queries go on.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.recents.octets() + self.shards.iter().map(|lane| lane.lock().octets()).sum::<usize>()
    }

    fn key(&self, permitted: &Permitted<'_>) -> Key {
        Key::new(permitted.query(), &self.hasher)
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        self.shards[key.shard()].lock()
    }

    fn voided_ms(&self) -> u64 {
        self.voided_ms.load(Ordering::Relaxed)
    }
}

impl Lane {
    /// The shard. Should a thread ever panic under the lock, the shard is still sound: at worst its octets are counted
    /// wrong by one entry.
    fn lock(&self) -> MutexGuard<'_, Shard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
