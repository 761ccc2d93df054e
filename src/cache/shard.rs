//! Entries in the order of their use, as far as it is heard of, bounded in octets: the least recently used go first.

use std::mem::size_of;

use lru::LruCache;

use super::entry::{Entry, Failed};
use super::stored::{BroughtAlong, Stored};
use crate::policy::{Finding, Met};

/// The largest share of a shard that one entry may take is one in so many.
const ENTRY_SHARE: usize = 8;

/// An entry's node in the list: key, value and two links.
const NODE_OCTETS: usize = allocated(size_of::<Stored>() + size_of::<Entry>() + 2 * size_of::<usize>());

/// An entry's part of the hash table at its emptiest, just doubled: two pointers and an octet of control for each of
/// 16 buckets that 7 entries share.
const TABLE_OCTETS: usize = (2 * size_of::<usize>() + 1) * 16 / 7 + 1;

/// What an allocation of so many octets takes of jemalloc, which the program runs on: whole 16 up to 128, then the next
/// of four sizes between each power of two and its double.
const fn allocated(octets: usize) -> usize {
    octets.next_multiple_of(if octets <= 128 { 16 } else { octets.next_power_of_two() / 8 })
}

/// One part of the cache.
#[derive(Debug)]
pub(super) struct Shard {
    entries: LruCache<Stored, Entry, BroughtAlong>,
    octets_max: usize,
    /// What the entries take without the table.
    octets: usize,
    /// The most entries there ever were: the table grows with them, and never shrinks.
    entries_most: usize,
}

impl Shard {
    /// An empty shard that takes `octets_max` octets at most.
    pub(super) fn new(octets_max: usize) -> Self {
        let entries = LruCache::unbounded_with_hasher(BroughtAlong::default());
        Self { entries, octets_max, octets: 0, entries_most: 0 }
    }

    /// What is kept under a key, which is then the most recently used. What the entry takes must stay as it is:
    /// [`Self::change`] is for all else.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<(&Stored, &mut Entry)> {
        self.entries.get_key_value_mut(key)
    }

    /// Keeps an entry under a key that has none, unless it takes more than its share; others make room for it.
    pub(super) fn insert(&mut self, stored: Stored, entry: Entry) {
        let octets = octets_of(&stored, &entry);
        if octets + TABLE_OCTETS > self.octets_max / ENTRY_SHARE {
            return;
        }
        self.octets += octets;
        self.entries.put(stored, entry);
        self.entries_most = self.entries_most.max(self.entries.len());
        self.make_room();
    }

    /// Changes what is kept under a key; others make room where it grew.
    pub(super) fn change(&mut self, key: &[u8], change: impl FnOnce(&Stored, &mut Entry)) {
        let Some((stored, entry)) = self.entries.get_key_value_mut(key) else { return };
        let before = octets_of(stored, entry);
        change(stored, entry);
        self.octets = self.octets - before + octets_of(stored, entry);
        self.make_room();
    }

    /// Forgets what is kept under a key.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some((stored, entry)) = self.entries.pop_entry(key) {
            self.octets -= octets_of(&stored, &entry);
        }
    }

    /// How many entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Octets it takes, all in.
    pub(super) fn octets(&self) -> usize {
        self.octets + self.entries_most * TABLE_OCTETS
    }

    fn make_room(&mut self) {
        while self.octets() > self.octets_max {
            let Some((stored, entry)) = self.entries.pop_lru() else { return };
            self.octets -= octets_of(&stored, &entry);
        }
    }
}

/// What an entry takes without its part of the table.
fn octets_of(stored: &Stored, entry: &Entry) -> usize {
    let (met, failed) = entry.parts();
    NODE_OCTETS
        + stored.apart().map_or(0, allocated)
        + met.map_or(0, octets_of_met)
        + failed.map_or(0, |_| allocated(size_of::<Failed>()))
}

/// What met rules take. Others may share the list; it is counted in full.
fn octets_of_met(met: &Met) -> usize {
    let list = match met {
        Met::These(list) => allocated(2 * size_of::<usize>() + list.len() * size_of::<Finding>()),
        Met::Nothing | Met::Many => 0,
    };
    allocated(size_of::<Met>()) + list
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use ahash::RandomState;

    use super::super::fixture::{a, ask};
    use super::super::stored::Key;
    use super::*;
    use crate::dns::Rcode;
    use crate::policy::Findings;
    use crate::policy::index::RuleId;
    use crate::query::Failure;

    /// Puts an entry of so many addresses under a number; returns its key.
    fn put(shard: &mut Shard, number: usize, addresses: usize) -> Vec<u8> {
        let ask = ask(&format!("n{number}.example"));
        let key = Key::new(ask.permitted().query(), &RandomState::with_seeds(1, 2, 3, 4));
        let reply = ask.reply(Rcode::NOERROR, &vec![a(60); addresses], &[]);
        shard.remove(key.octets());
        shard.insert(Stored::reply(&key, &reply).unwrap(), Entry::of_reply(60, &Findings::default(), 0));
        key.octets().to_vec()
    }

    /// What a shard should have counted.
    fn recounted(shard: &Shard) -> usize {
        shard.entries.iter().map(|(stored, entry)| octets_of(stored, entry)).sum()
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_fits() {
        let mut shard = Shard::new(20_000);
        let keys: Vec<_> = (0..60).map(|number| put(&mut shard, number, 1)).collect();
        assert_eq!(shard.len(), 60);
        assert!(shard.get(&keys[0]).is_some(), "used again");
        let mut more = 60;
        while shard.entries.contains(&keys[1][..]) {
            shard.get(&keys[0]);
            put(&mut shard, more, 1);
            more += 1;
            assert!(shard.octets() <= 20_000);
        }
        assert!(shard.get(&keys[0]).is_some());
        assert!(shard.octets() > 19_000, "not before it is full");
    }

    #[test]
    fn a_big_entry_makes_room_for_itself() {
        let mut shard = Shard::new(20_000);
        let small: Vec<_> = (0..110).map(|number| put(&mut shard, number, 1)).collect();
        let before = shard.len();
        let big = put(&mut shard, 1_000, 120);
        assert!(shard.get(&big).is_some());
        assert!(shard.get(&small[109]).is_some() && shard.get(&small[0]).is_none());
        assert!(before - shard.len() >= 8, "it takes the place of many");
        assert!(shard.octets() <= 20_000);
        assert_eq!(shard.octets, recounted(&shard));
    }

    #[test]
    fn nothing_above_an_eighth_is_kept() {
        let mut shard = Shard::new(20_000);
        let mut largest = 0;
        for addresses in 1..200 {
            let key = put(&mut shard, 1, addresses);
            let kept = shard.get(&key).is_some();
            assert_eq!(shard.len(), usize::from(kept));
            assert!(!kept || largest == addresses - 1, "{addresses} after {largest}");
            if kept {
                largest = addresses;
            }
        }
        put(&mut shard, 1, largest);
        // The next size of an allocation is 2,560.
        assert_eq!(shard.octets(), NODE_OCTETS + TABLE_OCTETS + 2_048);
    }

    #[test]
    fn what_is_added_to_an_entry_is_counted() {
        let mut shard = Shard::new(20_000);
        let key = put(&mut shard, 1, 1);
        let bare = shard.octets();
        shard.change(&key, |_, entry| entry.fail(Failed::after(None, Failure::Timeout, 0).unwrap()));
        assert_eq!(shard.octets(), bare + 16);
        let finding = Finding { rule: RuleId(1), name: 0 };
        let met = Met::These([finding; 8].into());
        shard.change(&key, |_, entry| entry.find(&Findings { index: 1, met }));
        assert_eq!(shard.octets(), bare + 16 + 32 + 80);
        shard.change(&key, |_, entry| entry.find(&Findings::default()));
        assert_eq!(shard.octets(), bare + 16);
        shard.remove(&key);
        assert_eq!((shard.len(), shard.octets), (0, 0));
    }

    #[test]
    fn growth_in_place_makes_room_too() {
        let mut shard = Shard::new(20_000);
        let keys: Vec<_> = (0..90).map(|number| put(&mut shard, number, 1)).collect();
        for key in keys.iter().rev() {
            shard.change(key, |_, entry| entry.fail(Failed::after(None, Failure::Timeout, 0).unwrap()));
            assert!(shard.octets() <= 20_000);
        }
        assert_eq!(shard.octets, recounted(&shard));
    }

    #[test]
    fn a_table_that_grew_still_counts_when_few_are_left() {
        let mut shard = Shard::new(20_000);
        for number in 0..200 {
            put(&mut shard, number, 1);
        }
        let most = shard.len();
        for number in 1_000..1_100 {
            put(&mut shard, number, 100);
        }
        assert!(shard.len() < most / 5);
        assert!(shard.octets - recounted(&shard) == 0 && shard.octets() >= recounted(&shard) + most * TABLE_OCTETS);
    }
}
