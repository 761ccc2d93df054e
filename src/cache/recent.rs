//! Copies of the answers asked for last, each at the place that the hash of its question says.
//!
//! In the list, a hit goes from the table to the node, and from there to its neighbours, each of them anywhere in a full
//! cache's memory: to wait for that costs more than all else a hit takes. A copy lies in one piece. It is given out for a
//! second at most, and not past what the list would change about the answer; only the order of use is heard of that late,
//! so that an entry that goes meanwhile to make room has a copy for the rest of its second.

use std::borrow::Borrow;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entry::Entry;
use super::stored::{Key, Stored};

/// The share of the cache's memory that copies take is one in so many.
const SHARE: usize = 32;

/// The most copies there are, 12 MiB of them: more would not stay in a processor's caches.
const PLACES_MAX: usize = 1 << 16;

/// How long a copy is given out before the list hears of its use again.
const UNHEARD_MS: u64 = 1_000;

/// The copies.
pub(super) struct Recents {
    places: Box<[Place]>,
}

/// Room for a copy, on cache lines of its own.
#[derive(Default)]
#[repr(align(64))]
struct Place(Mutex<Option<Recent>>);

/// A fresh reply whose names met nothing.
struct Recent {
    stored: Stored,
    kept_ms: u64,
    /// From when on the list is to be asked.
    until_ms: u64,
    /// [`crate::policy::Findings::index`].
    index: u32,
}

/// What is known of a copy that was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// How old the reply is, in seconds.
    pub(super) age: u32,
    /// The index under which its names met nothing.
    pub(super) index: u32,
}

impl Recents {
    /// Room for copies, in a cache of so many octets.
    pub(super) fn within(memory: usize) -> Self {
        let places = (memory / SHARE / size_of::<Place>()).min(PLACES_MAX);
        Self { places: (0..places).map(|_| Place::default()).collect() }
    }

    /// Writes the message of a question over what stands in `out`, where its copy is still to be given out.
    pub(super) fn get(&self, key: &Key, now: u64, out: &mut Vec<u8>) -> Option<Given> {
        let place = self.place(key)?;
        let recent = place.as_ref().filter(|recent| now < recent.until_ms && recent.is_of(key))?;
        recent.stored.write_message(out);
        // Below the lifetime, which is 32 bits wide.
        let age = (now.saturating_sub(recent.kept_ms) / 1_000) as u32;
        Some(Given { age, index: recent.index })
    }

    /// Notes what a question was answered with just now, unless another's copy has its place and is still given out: where
    /// two share a place, one of them is better off than none. Long answers are left where they are, and those that rules
    /// have to be looked at for.
    pub(super) fn put(&self, key: &Key, stored: &Stored, entry: &Entry, now: u64) {
        let until_ms = entry.same_until().min(now.saturating_add(UNHEARD_MS));
        if now < until_ms
            && stored.apart().is_none()
            && let Some((kept_ms, index)) = entry.plain()
            && let Some(mut place) = self.place(key)
            && place.as_ref().is_none_or(|there| there.until_ms <= now || there.is_of(key))
        {
            *place = Some(Recent { stored: stored.clone(), kept_ms, until_ms, index });
        }
    }

    /// Forgets a question's copy: what the list knows of it has changed.
    pub(super) fn forget(&self, key: &Key) {
        if let Some(mut place) = self.place(key) {
            place.take_if(|recent| recent.is_of(key));
        }
    }

    /// Octets it takes.
    pub(super) fn octets(&self) -> usize {
        size_of_val(&*self.places)
    }

    /// A question's place. Should a thread ever panic under the lock, what stands there is still whole.
    fn place(&self, key: &Key) -> Option<MutexGuard<'_, Option<Recent>>> {
        let place = self.places.get(key.place(self.places.len()))?;
        Some(place.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Without the names that clients asked for.
impl fmt::Debug for Recents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recents").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl Recent {
    fn is_of(&self, key: &Key) -> bool {
        Borrow::<[u8]>::borrow(&self.stored) == key.octets()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use ahash::RandomState;

    use super::super::fixture::{Ask, a, ask};
    use super::*;
    use crate::dns::Rcode;
    use crate::policy::index::RuleId;
    use crate::policy::{Finding, Findings, Met};

    /// One place, for all questions.
    fn recents() -> Recents {
        let recents = Recents::within(SHARE * size_of::<Place>());
        assert_eq!(recents.places.len(), 1);
        recents
    }

    fn key(ask: &Ask) -> Key {
        Key::new(ask.permitted().query(), &RandomState::with_seeds(1, 2, 3, 4))
    }

    /// Puts a reply of so many addresses that is fresh for a minute from 0 on; what its names met with it.
    fn put(recents: &Recents, ask: &Ask, addresses: usize, met: Met, now: u64) {
        let (key, reply) = (key(ask), ask.reply(Rcode::NOERROR, &vec![a(60); addresses], &[]));
        let entry = Entry::of_reply(60, &Findings { index: 7, met }, 0);
        recents.put(&key, &Stored::reply(&key, &reply).unwrap(), &entry, now);
    }

    fn given(recents: &Recents, ask: &Ask, now: u64) -> Option<Given> {
        recents.get(&key(ask), now, &mut Vec::new())
    }

    #[test]
    fn a_copy_is_given_out_for_a_second_and_not_past_its_end() {
        let (recents, ask) = (recents(), ask("a.example"));
        assert_eq!(given(&recents, &ask, 2_500), None);
        put(&recents, &ask, 1, Met::Nothing, 2_500);
        assert_eq!(given(&recents, &ask, 2_999), Some(Given { age: 2, index: 7 }));
        assert_eq!(given(&recents, &ask, 3_499), Some(Given { age: 3, index: 7 }));
        assert_eq!(given(&recents, &ask, 3_500), None);
        put(&recents, &ask, 1, Met::Nothing, 59_500);
        assert_eq!(given(&recents, &ask, 59_999), Some(Given { age: 59, index: 7 }));
        assert_eq!(given(&recents, &ask, 60_000), None);
    }

    #[test]
    fn the_first_of_a_place_has_it_for_its_second_and_none_is_given_anothers() {
        let (recents, [a, b]) = (recents(), ["a.example", "b.example"].map(ask));
        put(&recents, &a, 1, Met::Nothing, 0);
        put(&recents, &b, 1, Met::Nothing, 999);
        assert_eq!([&a, &b].map(|ask| given(&recents, ask, 999).is_some()), [true, false]);
        put(&recents, &b, 1, Met::Nothing, 1_000);
        assert_eq!([&a, &b].map(|ask| given(&recents, ask, 1_000).is_some()), [false, true]);
        recents.forget(&key(&a));
        assert!(given(&recents, &b, 1_000).is_some(), "another's is not forgotten");
        recents.forget(&key(&b));
        assert_eq!(given(&recents, &b, 1_000), None);
        put(&recents, &a, 1, Met::Nothing, 1_000);
        assert!(given(&recents, &a, 1_000).is_some(), "what was forgotten holds no place");
    }

    #[test]
    fn what_is_long_or_met_rules_is_left_in_the_list() {
        let (recents, ask) = (recents(), ask("a.example"));
        put(&recents, &ask, 50, Met::Nothing, 0);
        assert_eq!(given(&recents, &ask, 0), None);
        put(&recents, &ask, 1, Met::These([Finding { rule: RuleId(1), name: 0 }].into()), 0);
        assert_eq!(given(&recents, &ask, 0), None);
    }

    #[test]
    fn there_are_few_however_large_the_cache() {
        assert_eq!(size_of::<Place>(), 192, "three cache lines");
        assert_eq!(Recents::within(64 << 20).places.len(), 10_922);
        assert_eq!(Recents::within(1 << 40).octets(), 12 << 20);
    }

    #[test]
    fn without_memory_there_is_none() {
        let (recents, ask) = (Recents::within(0), ask("a.example"));
        put(&recents, &ask, 1, Met::Nothing, 0);
        assert_eq!((given(&recents, &ask, 0), recents.octets()), (None, 0));
    }
}
