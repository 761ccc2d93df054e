//! One part of the index: names and the rules that stand at them.
//!
//! Each name that carries rules is one record in an arena: its wire form, then its rules. Records are sorted by their
//! names' hashes, and where each small cluster of them begins stands beside. Before that is read, a filter says whether a
//! name may have a record at all, and whether names stand below it. A look-up walks from the root down and ends at the
//! first name with none below, which for most names is the one below the top-level domain.
//!
//! Rules count only once their whole name has been compared. What the filter says is believed by a few bits of the hash:
//! at worst the walk goes a label too deep. The hash is keyed at random, since attackers choose names.

use std::hash::{BuildHasher, Hasher};
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
        unpack(self.packed(place as usize)).0
    }

    /// What its hashes hang on.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Calls `each` with every rule and its name; those of one name in the order in which they were added.
    pub fn each(&self, mut each: impl FnMut(&Name, Rule)) {
        let mut at = 0;
        while at < self.arena.len() {
            let (bare, rules) = self.record(at);
            // A name could be read before it was added.
            let name = Name::parse(&[bare, ROOT].concat(), 0).map(|(name, _)| name);
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
        let (mut at, end) = (self.clusters[cluster] as usize, self.clusters[cluster + 1] as usize);
        while at < end {
            let (bare, rules) = self.record(at);
            if bare == wanted {
                return Some(rules);
            }
            at = self.walk_rules(rules, |_, _| {});
        }
        None
    }

    /// The name of the record at `at`, without the root, and where its rules begin.
    fn record(&self, at: usize) -> (&[u8], usize) {
        let rules = at + 1 + usize::from(self.arena[at]);
        (&self.arena[at + 1..rules], rules)
    }

    /// Calls `each` with the rules of one name, from `at` on, and their places. Returns where they end.
    fn walk_rules(&self, mut at: usize, mut each: impl FnMut(u32, Rule)) -> usize {
        loop {
            let (rule, is_last) = unpack(self.packed(at));
            each(at as u32, rule);
            at += PACKED_OCTETS;
            if is_last {
                return at;
            }
        }
    }

    fn packed(&self, at: usize) -> Packed {
        // A place outside of the arena panics here, as `Index::rule` says.
        let octets = &self.arena[at..at + PACKED_OCTETS];
        std::array::from_fn(|octet| octets[octet])
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// How many records a cluster has on average.
const CLUSTER_RECORDS: usize = 2;

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

/// A rule in the arena: line, source, flags.
type Packed = [u8; PACKED_OCTETS];

const PACKED_OCTETS: usize = 7;

/// Flag of a rule: it covers its name alone.
const EXACT: u8 = 1;
/// Flag of a rule: the last one of its name.
const LAST: u8 = 2;

fn pack(rule: Rule) -> Packed {
    let [a, b, c, d] = rule.line.to_le_bytes();
    let [e, f] = rule.source.0.to_le_bytes();
    [a, b, c, d, e, f, if rule.covers == Covers::Exact { EXACT } else { 0 }]
}

/// A rule, and whether it is the last one of its name.
fn unpack([a, b, c, d, e, f, flags]: Packed) -> (Rule, bool) {
    let covers = if flags & EXACT == 0 { Covers::Subtree } else { Covers::Exact };
    let rule = Rule { source: SourceId(u16::from_le_bytes([e, f])), line: u32::from_le_bytes([a, b, c, d]), covers };
    (rule, flags & LAST != 0)
}

/// Rules being gathered.
#[derive(Default)]
pub struct Builder {
    pub(super) keys: Keys,
    /// For each rule in the order of adding: a record of it alone.
    added: Vec<u8>,
    /// One for each rule.
    entries: Vec<Entry>,
    /// The hashes of names that have others below them; with repetitions.
    ancestors: Vec<u64>,
    /// The last of `ancestors` at each depth: in a sorted list, neighbours have most of theirs in common.
    latest: Vec<u64>,
    left_out: usize,
}

/// A rule on its way.
#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    /// Where its record stands in [`Builder::added`].
    place: u32,
    name_octets: u8,
}

impl Builder {
    /// One with room for about so many rules, of so many octets: what grows to tens of MiB is not to be moved again and
    /// again beside those who answer.
    pub(in crate::policy) fn with_room(rules: usize, octets: usize) -> Self {
        Self { added: Vec::with_capacity(octets), entries: Vec::with_capacity(rules), ..Self::default() }
    }

    /// Adds a rule. The same name may be added any number of times, by the same source too.
    pub fn add(&mut self, name: &Name, rule: Rule) {
        let bare = bare(name.as_wire());
        let place = self.added.len();
        if place + 1 + bare.len() + PACKED_OCTETS > ARENA_OCTETS_MAX {
            self.left_out += 1;
            return;
        }
        // None is cut: a name has at most 255 octets, and the check above.
        let name_octets = bare.len() as u8;
        self.added.push(name_octets);
        self.added.extend_from_slice(bare);
        self.added.extend_from_slice(&pack(rule));
        let hash = self.hash_noting_ancestors(name);
        self.entries.push(Entry { hash, place: place as u32, name_octets });
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
        let (clusters, arena) = self.write_arena();
        let is_root = |entry: &Entry| entry.hash == ROOT_HASH && entry.name(&self.added).is_empty();
        let has_root = self.entries.iter().any(is_root);
        Part { rules: self.entries.len(), has_root, keys: self.keys, filter, clusters, arena }
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
        self.ancestors.push(hash);
    }

    /// Sorts names by hash, and brings the rules of a name together, in the order of adding.
    fn sort(&mut self) {
        let added = &self.added;
        self.entries.sort_unstable_by_key(|entry| (entry.hash, entry.place));
        for same_hash in self.entries.chunk_by_mut(|a, b| a.hash == b.hash) {
            same_hash.sort_by_key(|entry| entry.name(added));
        }
        self.ancestors.sort_unstable();
        self.ancestors.dedup();
    }

    fn filter(&self) -> Filter {
        let mut filter = Filter::for_nodes(self.entries.len() + self.ancestors.len());
        self.entries.iter().for_each(|entry| filter.add_ruled(entry.hash));
        self.ancestors.iter().for_each(|hash| filter.add_inner(*hash));
        filter
    }

    /// Writes the records, and where each cluster of them begins.
    fn write_arena(&self) -> (Box<[u32]>, Arena) {
        let clusters_max = self.entries.len().div_ceil(CLUSTER_RECORDS).max(1);
        let mut clusters = Vec::with_capacity(clusters_max + 1);
        let mut arena = Vec::with_capacity(self.added.len());
        for rules in self.entries.chunk_by(|a, b| a.hash == b.hash && a.name(&self.added) == b.name(&self.added)) {
            // The arena is no longer than `added`, whose places are 32 bits.
            clusters.resize(scaled(rules[0].hash, clusters_max) + 1, arena.len() as u32);
            self.write_record(&mut arena, rules);
        }
        clusters.resize(clusters_max + 1, arena.len() as u32);
        (clusters.into_boxed_slice(), Arena::new(arena))
    }

    fn write_record(&self, arena: &mut Vec<u8>, rules: &[Entry]) {
        arena.push(rules[0].name_octets);
        arena.extend_from_slice(rules[0].name(&self.added));
        for rule in rules {
            arena.extend_from_slice(rule.packed(&self.added));
        }
        if let Some(flags) = arena.last_mut() {
            *flags |= LAST;
        }
    }
}

impl Entry {
    fn name(self, added: &[u8]) -> &[u8] {
        let start = self.place as usize + 1;
        &added[start..start + usize::from(self.name_octets)]
    }

    fn packed(self, added: &[u8]) -> &[u8] {
        let start = self.place as usize + 1 + usize::from(self.name_octets);
        &added[start..start + PACKED_OCTETS]
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("rules", &self.entries.len()).finish_non_exhaustive()
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
        assert_eq!(
            part.arena.len(),
            1 + "example.org.".len() + many.len() * PACKED_OCTETS,
            "the name stands there once"
        );
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
