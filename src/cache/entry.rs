//! What is known beside a question and its octets: since when, until when, what its names met, and how asking failed.

use std::time::Duration;

use crate::policy::{Findings, Met};
use crate::query::Failure;

/// A refresh that failed keeps the next one back for so long (RFC 8767 §5), and so does one begun.
const REFRESH_PAUSE_MS: u64 = 5_000;

/// Replies with a smaller TTL, in seconds, are not refreshed ahead of their end.
const REFRESH_TTL_MIN: u32 = 10;

/// A timeout is believed for so long: the least that RFC 9520 §3.2 allows, for it is the upstream's as likely as the
/// name's.
const TIMEOUT_BELIEVED_S: u8 = 1;

/// An error RCODE is believed for so long, and twice as long as the time before when it comes again…
const ERROR_BELIEVED_S: u8 = 5;

/// …up to this (RFC 9520 §3.2 allows 5 minutes).
const ERROR_BELIEVED_MAX_S: u8 = 30;

/// A moment that does not come.
const NEVER: u64 = u64::MAX;

/// A moment of the clock, or a length of time, in milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER)
}

/// All that is known of one question beside its octets. Kept small: there are as many as answers.
#[derive(Debug)]
pub(super) struct Entry {
    /// When the reply came.
    kept_ms: u64,
    /// From when a hit refreshes the reply. [`NEVER`] before the first hit: it takes a second one.
    refresh_from_ms: u64,
    /// How long the reply is fresh, in seconds; 0: there is no reply.
    lifetime: u32,
    /// [`Findings::index`].
    index: u32,
    /// What the names met; None, and no allocation: nothing.
    met: Option<Box<Met>>,
    /// How asking failed since the reply came.
    failed: Option<Box<Failed>>,
}

/// What an entry is good for at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its reply is within its TTL, and so many seconds old.
    Fresh { age: u32 },
    /// Its reply is past its TTL, and may still be served.
    Stale { at_once: bool },
    /// It has no reply to serve, and the failure is to be believed.
    Failed(Failure),
    /// Nothing.
    Over,
}

impl Entry {
    /// An entry for a reply that is fresh for `lifetime` seconds, at least 1.
    pub(super) fn of_reply(lifetime: u32, findings: &Findings, now: u64) -> Self {
        let mut entry = Self { kept_ms: now, refresh_from_ms: NEVER, lifetime, index: 0, met: None, failed: None };
        entry.find(findings);
        entry
    }

    /// An entry for a question that has no reply.
    pub(super) fn of_failure(failed: Failed) -> Self {
        let failed = Some(Box::new(failed));
        Self { kept_ms: 0, refresh_from_ms: NEVER, lifetime: 0, index: 0, met: None, failed }
    }

    /// What it is good for. Replies are served `stale_ms` past their end; timeouts noted before `voided_ms` do not count.
    pub(super) fn state(&self, now: u64, stale_ms: u64, voided_ms: u64) -> State {
        let failed = self.failed().filter(|failed| failed.counts(voided_ms));
        if now < self.end_ms() {
            // Below the lifetime, which is 32 bits wide.
            State::Fresh { age: (now.saturating_sub(self.kept_ms) / 1_000) as u32 }
        } else if now < self.gone_ms(stale_ms) {
            State::Stale { at_once: failed.is_some_and(|failed| failed.is_recent(now)) }
        } else {
            failed.filter(|failed| failed.is_believed(now)).map_or(State::Over, |failed| State::Failed(failed.failure))
        }
    }

    /// Notes a hit on the fresh reply. True where this one is to refresh it: at most a tenth of its TTL is left, it was
    /// hit before, and no refresh began or failed in the last five seconds.
    pub(super) fn hit(&mut self, now: u64) -> bool {
        if self.lifetime < REFRESH_TTL_MIN {
            return false;
        }
        if self.refresh_from_ms == NEVER {
            self.refresh_from_ms = self.kept_ms.saturating_add(u64::from(self.lifetime) * 900);
            return false;
        }
        let due = now >= self.refresh_from_ms && !self.failed().is_some_and(|failed| failed.is_recent(now));
        if due {
            self.refresh_from_ms = now.saturating_add(REFRESH_PAUSE_MS);
        }
        due
    }

    /// What the names met.
    pub(super) fn findings(&self) -> Findings {
        Findings { index: self.index, met: self.met.as_deref().cloned().unwrap_or_default() }
    }

    /// Notes what the names met.
    pub(super) fn find(&mut self, findings: &Findings) {
        self.index = findings.index;
        self.met = (findings.met != Met::Nothing).then(|| Box::new(findings.met.clone()));
    }

    /// How asking failed last.
    pub(super) fn failed(&self) -> Option<&Failed> {
        self.failed.as_deref()
    }

    /// Notes how asking failed.
    pub(super) fn fail(&mut self, failed: Failed) {
        self.failed = Some(Box::new(failed));
    }

    /// Whether a failure may be noted on it: it has no reply, or one that may still be served.
    pub(super) fn may_stay(&self, now: u64, stale_ms: u64) -> bool {
        self.lifetime == 0 || now < self.gone_ms(stale_ms)
    }

    /// When its reply came, and the index under which its names met nothing; None where they met something.
    pub(super) fn plain(&self) -> Option<(u64, u32)> {
        self.met.is_none().then_some((self.kept_ms, self.index))
    }

    /// Until when hits on the fresh reply are answered the same and do nothing else, once it was hit.
    pub(super) fn same_until(&self) -> u64 {
        self.end_ms().min(self.refresh_from_ms)
    }

    /// What it refers to.
    pub(super) fn parts(&self) -> (Option<&Met>, Option<&Failed>) {
        (self.met.as_deref(), self.failed.as_deref())
    }

    /// When the reply is no longer fresh; 0 where there is none.
    fn end_ms(&self) -> u64 {
        self.kept_ms.saturating_add(u64::from(self.lifetime) * 1_000)
    }

    /// When the reply may no longer be served; 0 where there is none.
    fn gone_ms(&self, stale_ms: u64) -> u64 {
        if self.lifetime == 0 { 0 } else { self.end_ms().saturating_add(stale_ms) }
    }
}

/// How asking failed, and for how long that is believed (RFC 9520).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    at_ms: u64,
    failure: Failure,
    believed_s: u8,
}

impl Failed {
    /// A failure that comes after `previous` without a reply between; None where it is not to be kept.
    pub(super) fn after(previous: Option<&Self>, failure: Failure, now: u64) -> Option<Self> {
        let believed_s = match failure {
            Failure::Timeout | Failure::Network => TIMEOUT_BELIEVED_S,
            Failure::Upstream(_) => match previous {
                Some(Self { failure: Failure::Upstream(_), believed_s, .. }) => {
                    (2 * believed_s).min(ERROR_BELIEVED_MAX_S)
                }
                _ => ERROR_BELIEVED_S,
            },
            Failure::Overloaded | Failure::NoUpstream | Failure::Internal => return None,
        };
        Some(Self { at_ms: now, failure, believed_s })
    }

    /// Whether it still says anything: a timeout does not once its upstream is back.
    fn counts(&self, voided_ms: u64) -> bool {
        matches!(self.failure, Failure::Upstream(_)) || self.at_ms >= voided_ms
    }

    /// Whether it keeps the next refresh back.
    fn is_recent(&self, now: u64) -> bool {
        now < self.at_ms.saturating_add(REFRESH_PAUSE_MS)
    }

    fn is_believed(&self, now: u64) -> bool {
        now < self.at_ms.saturating_add(u64::from(self.believed_s) * 1_000)
    }
}
