//! One part of the index: names and the rules that stand at them.
//!
//! Each name that carries rules is one record in an arena: its wire form, then its rules. Records are sorted by their
//! names' hashes, and where each small cluster of them begins stands beside. Records leave gaps, so that a cluster lies
//! close to where its hash alone says: the memory of both is waited for once, not one after the other. Before that, a
//! filter says whether a name may have a record at all, and whether names stand below it. A look-up walks from the root
//! down and ends at the first name with none below, which for most names is the one below the top-level domain.
//!
//! Rules count only once their whole name has been compared. What the filter says is believed by a few bits of the hash:
//! at worst the walk goes a label too deep. The hash is keyed at random, since attackers choose names.

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::iter;
use std::sync::LazyLock;

use ahash::RandomState;

use super::arena::Arena;
use super::filter::{Filter, scaled};
use super::{Covers, PLACES_MAX, Rule, SourceId};
use crate::dns::Name;

/// Names and their rules, compiled.
pub struct Part {
    rules: usize,
    /// Whether rules stand at the root; hardly ever, so that most look-ups begin a step further down.
    has_root: bool,
    keys: Keys,
    filter: Filter,
    /// Where each cluster begins in the arena, then where the last one ends.
    clusters: Box<[u32]>,
    arena: Arena,
}

impl Default for Part {
    fn default() -> Self {
        Builder::default().build()
    }
}

impl Part {
    /// Calls `each` with the place of every rule that stands at the rightmost `labels` labels of `name`, which have this
    /// hash, and holds for `name`. In the order in which they were added. Returns whether names stand below, of which no
    /// is certain.
    pub(super) fn meet_at(&self, hash: u64, name: &Name, labels: usize, mut each: impl FnMut(u32)) -> bool {
        if labels == 0 && !self.has_root {
            return !self.is_empty();
        }
        let (ruled, inner) = self.filter.look(hash);
        if ruled && let Some(rules) = self.find(hash, bare(name.suffix(labels))) {
            self.walk_rules(rules, |place, rule| {
                if labels == name.labels() || rule.covers == Covers::Subtree {
                    each(place);
                }
            });
        }
        inner
    }

    /// A rule by its place.
    pub(super) fn rule(&self, place: u32) -> Rule {
        // A place outside of the arena panics here, as `Index::rule` says.
        unpack(&self.arena[place as usize..])
    }

    /// What its hashes hang on.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Calls `each` with every rule and its name; those of one name in the order in which they were added.
    pub fn each(&self, mut each: impl FnMut(&Name, Rule)) {
        let (mut at, mut wire) = (0, Vec::new());
        while at < self.arena.len() {
            if self.arena[at] == GAP {
                at += 1;
                continue;
            }
            let (bare, rules) = self.record(at);
            wire.clear();
            wire.extend_from_slice(bare);
            wire.extend_from_slice(ROOT);
            // A name could be read before it was added.
            let name = Name::parse(&wire, 0).map(|(name, _)| name);
            at = self.walk_rules(rules, |_, rule| name.iter().for_each(|name| each(name, rule)));
        }
    }

    /// How many rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets it takes, all in.
    #[must_use]
    pub fn octets(&self) -> usize {
        size_of::<Self>() + self.filter.octets() + size_of_val(&*self.clusters) + self.arena.len()
    }

    /// Where the rules of a name begin, which has this hash and, without the root, this wire form.
    fn find(&self, hash: u64, wanted: &[u8]) -> Option<usize> {
        let cluster = scaled(hash, self.clusters.len() - 1);
        self.reach(cluster);
        let (mut at, end) = (self.clusters[cluster] as usize, self.clusters[cluster + 1] as usize);
        while at < end && self.arena[at] != GAP {
            let (bare, rules) = self.record(at);
            if bare == wanted {
                return Some(rules);
            }
            at = self.walk_rules(rules, |_, _| {});
        }
        None
    }

    /// Has the memory fetched in which the records of a cluster most likely lie, while where they begin is being fetched.
    fn reach(&self, cluster: usize) {
        for near in cluster..cluster + REACHED {
            // Nothing uses what is read; without the box it would not be read at all.
            black_box(self.arena.get(near * CLUSTER_OCTETS).copied());
        }
    }

    /// The name of the record at `at`, without the root, and where its rules begin.
    fn record(&self, at: usize) -> (&[u8], usize) {
        let rules = at + 1 + usize::from(self.arena[at]);
        (&self.arena[at + 1..rules], rules)
    }

    /// Calls `each` with the rules of one name, from `at` on, and their places. Returns where they end.
    fn walk_rules(&self, mut at: usize, mut each: impl FnMut(u32, Rule)) -> usize {
        loop {
            let packed = &self.arena[at..];
            each(at as u32, unpack(packed));
            at += packed_octets(packed[0]);
            if packed[0] & LAST != 0 {
                return at;
            }
        }
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// How many octets of the arena there are for a cluster: what processors fetch at once.
const CLUSTER_OCTETS: usize = 64;

/// What part of them records take, in 100: the fuller, the further from a cluster's place its records lie.
const FILLED: usize = 80;

/// How many times [`CLUSTER_OCTETS`] are fetched from a cluster's place on: nine clusters of ten end within them.
const REACHED: usize = 3;

/// By how many clusters' octets the last records may run over the place of the last one, and the arena need not move.
const OVERRUN_CLUSTERS: usize = 64;

/// Stands before the records of a cluster where those before end short of its place. No name is so long.
const GAP: u8 = u8::MAX;

/// The most octets of an arena: every place in it must be one that a rule's number has room for. Some 35 million rules.
const ARENA_OCTETS_MAX: usize = PLACES_MAX as usize;

/// The hash of the root; the others follow from it label by label, under the keys.
pub(super) const ROOT_HASH: u64 = 0;

/// The wire form of the root.
const ROOT: &[u8] = b"\0";

/// A wire form without the root's octet, with which all of them end.
fn bare(wire: &[u8]) -> &[u8] {
    &wire[..wire.len() - ROOT.len()]
}

/// What makes hashes unpredictable: the same for all parts of this process, so that one hash serves them all.
#[derive(Clone)]
pub(super) struct Keys {
    random: RandomState,
    /// Bits that tests take away from each hash, so that names collide.
    #[cfg(test)]
    pub(super) cleared: u64,
}

impl Default for Keys {
    fn default() -> Self {
        static RANDOM: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self {
            random: RANDOM.clone(),
            #[cfg(test)]
            cleared: 0,
        }
    }
}

impl Keys {
    /// The hash of the name made of `label` and the name above it.
    pub(super) fn hash_below(&self, above: u64, label: &[u8]) -> u64 {
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(above);
        hasher.write(label);
        let hash = hasher.finish();
        #[cfg(test)]
        let hash = hash & !self.cleared;
        hash
    }
}

/// The most octets of a rule in the arena: flags, line, source.
const PACKED_OCTETS_MAX: usize = 7;

/// Flag of a rule: it covers its name alone.
const EXACT: u8 = 1;
/// Flag of a rule: the last one of its name.
const LAST: u8 = 2;
/// Where the flags say how many octets of the line are left out, which are zero.
const LINE_SAVED: u32 = 2;
/// Where the flags say the same of the source.
const SOURCE_SAVED: u32 = 4;

/// A rule as it stands in the arena, and how many octets of that it takes.
fn pack(rule: Rule) -> ([u8; PACKED_OCTETS_MAX], usize) {
    let mut packed = [0; PACKED_OCTETS_MAX];
    let line_saved = (rule.line.leading_zeros() / 8).min(3) as u8;
    let source_saved = (rule.source.0.leading_zeros() / 8).min(1) as u8;
    let covers = if rule.covers == Covers::Exact { EXACT } else { 0 };
    packed[0] = covers | line_saved << LINE_SAVED | source_saved << SOURCE_SAVED;
    let source = 5 - usize::from(line_saved);
    packed[1..5].copy_from_slice(&rule.line.to_le_bytes());
    packed[source..source + 2].copy_from_slice(&rule.source.0.to_le_bytes());
    (packed, packed_octets(packed[0]))
}

/// How many octets a rule with these flags takes.
fn packed_octets(flags: u8) -> usize {
    PACKED_OCTETS_MAX - usize::from(flags >> LINE_SAVED & 3) - usize::from(flags >> SOURCE_SAVED & 1)
}

/// The rule that these octets begin with.
fn unpack(octets: &[u8]) -> Rule {
    let flags = octets[0];
    let packed = &octets[1..packed_octets(flags)];
    let (line, source) = packed.split_at(4 - usize::from(flags >> LINE_SAVED & 3));
    let number = |octets: &[u8]| octets.iter().rev().fold(0, |number, octet| number << 8 | u32::from(*octet));
    let covers = if flags & EXACT == 0 { Covers::Subtree } else { Covers::Exact };
    // No source is cut: it has two octets at most.
    Rule { source: SourceId(number(source) as u16), line: number(line), covers }
}

/// Into how many buckets names are parted while they are gathered. One of a million names' fits into a core's own caches,
/// while it is sorted and while it is written; all names at once would be waited for name by name.
const BUCKETS: usize = 256;

/// Rules being gathered.
#[derive(Default)]
pub struct Builder {
    pub(super) keys: Keys,
    /// By the upper bits of hashes: one after the other they are sorted by hash. None before the first rule.
    buckets: Vec<Bucket>,
    /// How many octets were added, in all buckets.
    octets: usize,
    /// The last ancestor at each depth: in a sorted list, neighbours have most of theirs in common.
    latest: Vec<u64>,
    left_out: usize,
}

/// Rules of names whose hashes begin alike.
#[derive(Default)]
struct Bucket {
    /// For each rule in the order of adding: a record of it alone.
    added: Vec<u8>,
    /// One for each rule.
    entries: Vec<Entry>,
    /// The hashes of names that have others below them; with repetitions.
    ancestors: Vec<u64>,
}

/// A rule on its way.
#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    /// Where its record stands in [`Bucket::added`].
    place: u32,
    name_octets: u8,
    rule_octets: u8,
}

impl Builder {
    /// One with room for about so many rules, of so many octets: what grows is moved again and again, beside those who
    /// answer.
    pub(in crate::policy) fn with_room(rules: usize, octets: usize) -> Self {
        let bucket = || Bucket {
            added: Vec::with_capacity(share(octets)),
            entries: Vec::with_capacity(share(rules)),
            ancestors: Vec::new(),
        };
        Self { buckets: iter::repeat_with(bucket).take(BUCKETS).collect(), ..Self::default() }
    }

    /// Adds a rule. The same name may be added any number of times, by the same source too.
    pub fn add(&mut self, name: &Name, rule: Rule) {
        let bare = bare(name.as_wire());
        if self.octets + 1 + bare.len() + PACKED_OCTETS_MAX > ARENA_OCTETS_MAX {
            self.left_out += 1;
            return;
        }
        let (packed, rule_octets) = pack(rule);
        // None is cut: a name has at most 255 octets, and the check above.
        let (name_octets, rule_octets) = (bare.len() as u8, rule_octets as u8);
        let hash = self.hash_noting_ancestors(name);
        let Bucket { added, entries, .. } = self.bucket(hash);
        entries.push(Entry { hash, place: added.len() as u32, name_octets, rule_octets });
        added.push(name_octets);
        added.extend_from_slice(bare);
        added.extend_from_slice(&packed[..usize::from(rule_octets)]);
        self.octets += 1 + usize::from(name_octets) + usize::from(rule_octets);
    }

    /// How many rules were not taken for want of room, beyond some 35 million. A part without them must not be
    /// put in force: it would not block what was ordered.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Compiles what was added.
    #[must_use]
    pub fn build(mut self) -> Part {
        self.sort();
        let filter = self.filter();
        let (clusters, arena) = self.write_arena(ARENA_OCTETS_MAX);
        // Its hash is the least there is.
        let is_root = |entry: &Entry| entry.hash == ROOT_HASH && entry.name_octets == 0;
        let has_root = self.buckets.first().is_some_and(|first| first.entries.iter().any(is_root));
        Part { rules: self.rules(), has_root, keys: self.keys, filter, clusters, arena }
    }

    fn bucket(&mut self, hash: u64) -> &mut Bucket {
        if self.buckets.is_empty() {
            self.buckets.resize_with(BUCKETS, Bucket::default);
        }
        &mut self.buckets[scaled(hash, BUCKETS)]
    }

    fn rules(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.entries.len()).sum()
    }

    /// The hash of a name. Those of its ancestors are kept.
    fn hash_noting_ancestors(&mut self, name: &Name) -> u64 {
        let mut hash = ROOT_HASH;
        for depth in 1..=name.labels() {
            self.note_ancestor(depth - 1, hash);
            hash = self.keys.hash_below(hash, name.label_from_root(depth));
        }
        hash
    }

    fn note_ancestor(&mut self, depth: usize, hash: u64) {
        match self.latest.get_mut(depth) {
            Some(latest) if *latest == hash => return,
            Some(latest) => *latest = hash,
            None => self.latest.push(hash),
        }
        self.bucket(hash).ancestors.push(hash);
    }

    /// Sorts names by hash, and brings the rules of a name together, in the order of adding.
    fn sort(&mut self) {
        for Bucket { added, entries, ancestors } in &mut self.buckets {
            entries.sort_unstable_by_key(|entry| (entry.hash, entry.place));
            for same_hash in entries.chunk_by_mut(|a, b| a.hash == b.hash) {
                same_hash.sort_by_key(|entry| entry.name(added));
            }
            ancestors.sort_unstable();
            ancestors.dedup();
        }
    }

    fn filter(&self) -> Filter {
        let ancestors: usize = self.buckets.iter().map(|bucket| bucket.ancestors.len()).sum();
        let mut filter = Filter::for_nodes(self.rules() + ancestors);
        for Bucket { entries, ancestors, .. } in &self.buckets {
            entries.iter().for_each(|entry| filter.add_ruled(entry.hash));
            ancestors.iter().for_each(|hash| filter.add_inner(*hash));
        }
        filter
    }

    /// Writes the records, and where each cluster of them begins. There are fewer gaps than there should be where the
    /// arena would become longer than `octets_max`, which is not below the octets of all that was added.
    fn write_arena(&self, octets_max: usize) -> (Box<[u32]>, Arena) {
        let records_octets: usize = self.buckets.iter().map(Bucket::records_octets).sum();
        let clusters_count = (records_octets / FILLED * 100).div_ceil(CLUSTER_OCTETS).max(1);
        let mut clusters = Vec::with_capacity(clusters_count + 1);
        let mut arena = Vec::with_capacity((clusters_count + OVERRUN_CLUSTERS) * CLUSTER_OCTETS);
        // Records take no more than what was added.
        let mut room_for_gaps = octets_max - self.octets;
        for (bucket, rules) in self.buckets.iter().flat_map(Bucket::names) {
            let cluster = scaled(rules[0].hash, clusters_count);
            let gap = (cluster * CLUSTER_OCTETS).saturating_sub(arena.len()).min(room_for_gaps);
            room_for_gaps -= gap;
            arena.resize(arena.len() + gap, GAP);
            // All places are at most `octets_max`.
            clusters.resize(cluster + 1, arena.len() as u32);
            bucket.write_record(&mut arena, rules);
        }
        clusters.resize(clusters_count + 1, arena.len() as u32);
        (clusters.into_boxed_slice(), Arena::new(arena))
    }
}

/// A bucket's share of what there is, and a sixteenth more, which hardly any bucket of a million names outgrows.
fn share(all: usize) -> usize {
    all / BUCKETS + all / (16 * BUCKETS)
}

impl Bucket {
    /// The rules of each name.
    fn names(&self) -> impl Iterator<Item = (&Self, &[Entry])> {
        let is_same = |a: &Entry, b: &Entry| a.hash == b.hash && a.name(&self.added) == b.name(&self.added);
        self.entries.chunk_by(is_same).map(move |rules| (self, rules))
    }

    /// How many octets the records take. Of names with the same hash only the first is counted: it only says how many
    /// clusters there are to be.
    fn records_octets(&self) -> usize {
        let records = self.entries.chunk_by(|a, b| a.hash == b.hash);
        let names: usize = records.map(|rules| 1 + usize::from(rules[0].name_octets)).sum();
        names + self.entries.iter().map(|rule| usize::from(rule.rule_octets)).sum::<usize>()
    }

    fn write_record(&self, arena: &mut Vec<u8>, rules: &[Entry]) {
        arena.push(rules[0].name_octets);
        arena.extend_from_slice(rules[0].name(&self.added));
        let mut last = arena.len();
        for rule in rules {
            last = arena.len();
            arena.extend_from_slice(rule.packed(&self.added));
        }
        arena[last] |= LAST;
    }
}

impl Entry {
    fn name(self, added: &[u8]) -> &[u8] {
        let start = self.place as usize + 1;
        &added[start..start + usize::from(self.name_octets)]
    }

    fn packed(self, added: &[u8]) -> &[u8] {
        let start = self.place as usize + 1 + usize::from(self.name_octets);
        &added[start..start + usize::from(self.rule_octets)]
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("rules", &self.rules()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says when it is skipped")]
mod tests {
    use proptest::prelude::*;

    use super::super::Index;
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    fn rule(source: u16, line: u32, covers: Covers) -> Rule {
        Rule { source: SourceId(source), line, covers }
    }

    /// An index of these names, each with the rule's place in the slice as its line.
    fn index(rules: &[(&str, Covers)]) -> Index {
        let mut builder = Builder::default();
        for (line, (text, covers)) in rules.iter().enumerate() {
            builder.add(&name(text), rule(7, line as u32, *covers));
        }
        Index::of(builder.build())
    }

    /// The lines of the rules met, and how many labels their names have.
    fn met(index: &Index, text: &str) -> Vec<(u32, usize)> {
        let mut met = Vec::new();
        index.meet(&name(text), |id, labels| met.push((index.rule(id).line, labels)));
        met
    }

    use Covers::{Exact, Subtree};

    #[test]
    fn a_subtree_is_met_at_and_below_its_name_only() {
        let index = index(&[("example.org", Subtree)]);
        assert_eq!(met(&index, "example.org"), [(0, 2)]);
        assert_eq!(met(&index, "EXAMPLE.org."), [(0, 2)]);
        assert_eq!(met(&index, "a.b.c.d.example.org"), [(0, 2)]);
        for other in ["org", ".", "xexample.org", "example.org.net", "example.com", "ample.org"] {
            assert_eq!(met(&index, other), [], "{other}");
        }
    }

    #[test]
    fn an_exact_rule_is_met_at_its_name_only() {
        let index = index(&[("example.org", Exact), ("www.example.org", Exact)]);
        assert_eq!(met(&index, "example.org"), [(0, 2)]);
        assert_eq!(met(&index, "www.example.org"), [(1, 3)]);
        assert_eq!(met(&index, "ftp.example.org"), []);
        assert_eq!(met(&index, "a.www.example.org"), []);
    }

    #[test]
    fn rules_come_from_the_root_down_then_in_the_order_of_adding() {
        let rules = [
            ("www.example.org", Subtree),
            ("example.org", Exact),
            ("org", Subtree),
            ("example.org", Subtree),
            (".", Subtree),
            ("www.example.org", Exact),
            ("www.example.org", Subtree),
        ];
        let index = index(&rules);
        assert_eq!(met(&index, "www.example.org"), [(4, 0), (2, 1), (3, 2), (0, 3), (5, 3), (6, 3)]);
        assert_eq!(met(&index, "a.www.example.org"), [(4, 0), (2, 1), (3, 2), (0, 3), (6, 3)]);
        assert_eq!(met(&index, "example.org"), [(4, 0), (2, 1), (1, 2), (3, 2)]);
        assert_eq!(met(&index, "net"), [(4, 0)]);
        assert_eq!(index.len(), rules.len());
    }

    #[test]
    fn the_root_may_carry_rules() {
        let subtree = index(&[(".", Subtree)]);
        assert_eq!(met(&subtree, "."), [(0, 0)]);
        assert_eq!(met(&subtree, "a.example"), [(0, 0)]);
        let exact = index(&[(".", Exact), ("example", Exact)]);
        assert_eq!(met(&exact, "."), [(0, 0)]);
        assert_eq!(met(&exact, "example"), [(1, 1)]);
    }

    #[test]
    fn a_rule_comes_back_as_it_was_put_in() {
        let rules = [
            rule(0, 1, Subtree),
            rule(u16::MAX, u32::MAX, Exact),
            rule(0x0102, 0x0304_0506, Subtree),
            rule(0x0102, 0x0304_0506, Subtree),
            rule(0xff, 0xff, Subtree),
            rule(0x100, 0x100, Exact),
            rule(1, 0xffff, Subtree),
            rule(1, 0x1_0000, Subtree),
            rule(1, 0xff_ffff, Exact),
            rule(1, 0x100_0000, Subtree),
            rule(1, 0, Subtree),
        ];
        let mut builder = Builder::default();
        for rule in rules {
            builder.add(&name("example.org"), rule);
        }
        assert_eq!(builder.left_out(), 0);
        let index = Index::of(builder.build());
        let mut back = Vec::new();
        index.meet(&name("example.org"), |id, _| back.push(index.rule(id)));
        assert_eq!(back, rules);
    }

    #[test]
    fn an_empty_index_has_no_rules() {
        let index = Index::of(Builder::default().build());
        assert!(index.is_empty());
        assert_eq!(index.len(), 0);
        assert_eq!(met(&index, "."), []);
        assert_eq!(met(&index, "example.org"), []);
    }

    #[test]
    fn the_longest_names_are_met() {
        let most = ["a"; 127].join(".");
        let long = "a".repeat(63);
        let longest = format!("{long}.{long}.{long}.{}", "a".repeat(61));
        let index = index(&[(&most, Exact), (&longest, Subtree)]);
        assert_eq!(met(&index, &most), [(0, 127)]);
        assert_eq!(met(&index, &most[2..]), []);
        assert_eq!(met(&index, &longest), [(1, 4)]);
    }

    #[test]
    fn a_name_may_carry_many_rules() {
        let many = vec![("example.org", Subtree); 1000];
        let index = index(&many);
        let lines: Vec<_> = met(&index, "www.example.org").into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, (0..1000).collect::<Vec<_>>());
        let part = &index.parts[0];
        let written = part.arena.iter().skip_while(|octet| **octet == GAP).count();
        // Flags, a source of one octet, and lines of one octet and of two.
        let packed = 256 * 3 + (1000 - 256) * 4;
        assert_eq!(written, 1 + "example.org.".len() + packed, "the name stands there once");
    }

    /// Names of which none is another's ancestor.
    fn many_names() -> Vec<Name> {
        (0..10_000).map(|number| name(&format!("name-{number}.example"))).collect()
    }

    /// These names, each with its place among them as its line.
    fn many() -> Builder {
        let mut builder = Builder::default();
        for (line, name) in many_names().iter().enumerate() {
            builder.add(name, rule(0, line as u32, Subtree));
        }
        builder
    }

    #[test]
    fn most_clusters_end_close_to_their_place() {
        let part = many().build();
        let (mut near, mut all) = (0, 0);
        for (cluster, ends) in part.clusters.windows(2).enumerate() {
            let (place, [begin, end]) = (cluster * CLUSTER_OCTETS, [ends[0] as usize, ends[1] as usize]);
            let Some(last) = part.arena[begin..end].iter().rposition(|octet| *octet != GAP) else { continue };
            assert!(begin >= place);
            near += usize::from(begin + last < place + REACHED * CLUSTER_OCTETS);
            all += 1;
        }
        assert!(near * 100 > all * 85, "{near} of {all}");
    }

    #[test]
    fn without_room_for_gaps_every_name_is_found_all_the_same() {
        for room in [0, 1, 1_000, 20_000] {
            let mut builder = many();
            builder.sort();
            let filter = builder.filter();
            let (clusters, arena) = builder.write_arena(builder.octets + room);
            // Each name has one rule, so that records take all that was added.
            let gaps = arena.len() - builder.octets;
            assert_eq!(gaps, room);
            let part = Part { rules: 10_000, has_root: false, keys: builder.keys, filter, clusters, arena };
            let index = Index::of(part);
            for (line, name) in many_names().iter().enumerate() {
                assert_eq!(met(&index, &name.to_string()), [(line as u32, 2)]);
            }
        }
    }

    /// Names of a small alphabet, so that they meet.
    fn any_name() -> impl Strategy<Value = Name> {
        prop::collection::vec("[ab]{1,2}", 0..6)
            .prop_map(|labels| if labels.is_empty() { Name::root() } else { name(&labels.join(".")) })
    }

    fn any_rules() -> impl Strategy<Value = Vec<(Name, Rule)>> {
        let rule = (any_name(), any::<u16>(), any::<u32>(), any::<bool>())
            .prop_map(|(name, source, line, exact)| (name, rule(source, line, if exact { Exact } else { Subtree })));
        prop::collection::vec(rule, 0..120)
    }

    /// What [`Index::meet`] promises, said naively.
    fn met_naively(rules: &[(Name, Rule)], query: &Name) -> Vec<(Rule, usize)> {
        let mut met: Vec<_> = rules
            .iter()
            .filter(|(name, rule)| if rule.covers == Exact { name == query } else { query.is_at_or_below(name) })
            .map(|(name, rule)| (*rule, name.labels()))
            .collect();
        met.sort_by_key(|(_, labels)| *labels);
        met
    }

    proptest! {
        /// Also with hashes that collide, down to one hash for all names: rules never hang on a hash alone.
        #[test]
        fn it_meets_what_a_naive_scan_meets(
            rules in any_rules(),
            queries in prop::collection::vec(any_name(), 1..40),
            cleared in prop::sample::select(vec![0, u64::MAX, !3, !(7 << 61), !(3 << 62 | 1)]),
        ) {
            let mut builder = Builder { keys: Keys { cleared, ..Keys::default() }, ..Builder::default() };
            for (name, rule) in &rules {
                builder.add(name, *rule);
            }
            let index = Index::of(builder.build());
            prop_assert_eq!(index.len(), rules.len());
            let mut back = vec![];
            index.parts[0].each(|name, rule| back.push((name.to_string(), rule)));
            let mut added: Vec<_> = rules.iter().map(|(name, rule)| (name.to_string(), *rule)).collect();
            // Those of one name stay in the order of adding.
            back.sort_by(|a, b| a.0.cmp(&b.0));
            added.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(back, added);
            for query in queries.iter().chain(rules.iter().map(|(name, _)| name)) {
                let mut met = Vec::new();
                index.meet(query, |id, labels| met.push((index.rule(id), labels)));
                prop_assert_eq!(met, met_naively(&rules, query));
            }
        }
    }

    #[test]
    fn real_names_take_at_most_40_octets_each() {
        let path = "../shared/data/domains/blocklistproject-union-730k.txt";
        let Ok(text) = std::fs::read_to_string(path) else {
            eprintln!("skipped: {path} is not there");
            return;
        };
        let names: Vec<_> = text.lines().filter_map(|line| Name::from_text(line).ok()).collect();
        let mut builder = Builder::default();
        for (line, name) in names.iter().enumerate() {
            builder.add(name, rule(0, line as u32, Subtree));
        }
        let index = Index::of(builder.build());
        assert!(index.octets() <= 40 * names.len(), "{} octets for {} names", index.octets(), names.len());
        for (line, name) in names.iter().enumerate().step_by(97) {
            let mut found = false;
            index.meet(name, |id, _| found |= index.rule(id).line == line as u32);
            assert!(found, "{name}");
        }
    }
}
