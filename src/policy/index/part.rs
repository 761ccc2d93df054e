//! One part of the index: names and the rules that stand at them.
//!
//! Each name that carries rules is one record in an arena: its wire form, then its rules. A hash table leads from a
//! name to its record, and from each ancestor of such a name to a marker: names stand below. A look-up walks from the
//! root down and ends at the first name that is neither, which for most names is the one below the top-level domain.
//!
//! Rules count only once their whole name has been compared. That names stand below is believed by a few bits of the
//! hash: at worst the walk goes a label too deep. The hash is keyed at random, since attackers choose names.

use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use ahash::RandomState;

use super::{Covers, PLACES_MAX, Rule, SourceId};
use crate::dns::Name;

/// Names and their rules, compiled.
pub struct Part {
    rules: usize,
    /// Whether rules stand at the root; hardly ever, so that most look-ups begin a step further down.
    has_root: bool,
    keys: Keys,
    buckets: Box<[Bucket]>,
    arena: Box<[u8]>,
}

impl Default for Part {
    fn default() -> Self {
        Builder::default().build()
    }
}

impl Part {
    /// Calls `each` with the place of every rule that stands at the name `suffix`, which has this hash; `is_self` says
    /// that the name asked for is that very name and not one below it. In the order in which they were added. Returns
    /// whether names stand below.
    pub(super) fn meet_at(&self, hash: u64, suffix: &[u8], is_self: bool, each: impl FnMut(u32)) -> bool {
        if suffix == ROOT && !self.has_root {
            return !self.is_empty();
        }
        match self.find(hash, suffix) {
            Node::Absent => false,
            Node::Inner => true,
            Node::Ruled { rules } => self.yield_rules(rules, is_self, each),
        }
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
        // What stands there was written by `write_record`: a name can be read wherever one begins.
        while let Ok((name, rules)) = Name::parse(&self.arena, at) {
            at = rules;
            loop {
                let (rule, flags) = unpack(self.packed(at));
                each(&name, rule);
                at += PACKED_OCTETS;
                if flags & LAST != 0 {
                    break;
                }
            }
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
        size_of::<Self>() + size_of_val(&*self.buckets) + self.arena.len()
    }

    /// What stands at the name `suffix`, which has this hash.
    fn find(&self, hash: u64, suffix: &[u8]) -> Node {
        let tag = tag(hash);
        let mut at = home(hash, self.buckets.len());
        let mut inner = false;
        loop {
            let bucket = &self.buckets[at];
            for (_, place) in bucket.tags.iter().zip(bucket.places).filter(|(other, _)| **other == tag) {
                let start = place as usize;
                // A wire form ends with the root's octet, so none begins with another: they are equal.
                if place != MARKER && self.arena[start..].starts_with(suffix) {
                    return Node::Ruled { rules: start + suffix.len() };
                }
                // A marker, perhaps another name's, or a record that serves as one: our own record may still follow.
                inner = true;
            }
            if !bucket.spilled {
                return if inner { Node::Inner } else { Node::Absent };
            }
            at = next(at, self.buckets.len());
        }
    }

    /// Calls `each` with the rules from `at` on that hold, where `is_self` says that the query is for their very name.
    /// Returns whether names stand below.
    fn yield_rules(&self, mut at: usize, is_self: bool, mut each: impl FnMut(u32)) -> bool {
        loop {
            let (rule, flags) = unpack(self.packed(at));
            if is_self || rule.covers == Covers::Subtree {
                each(at as u32);
            }
            if flags & LAST != 0 {
                return flags & INNER != 0;
            }
            at += PACKED_OCTETS;
        }
    }

    fn packed(&self, at: usize) -> Packed {
        // The length is that of the array; a place outside of the arena panics before, as `Index::rule` says.
        std::array::from_fn(|octet| self.arena[at + octet])
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// What stands at a name.
enum Node {
    /// Nothing, nor below it.
    Absent,
    /// No rule, but names below; now and then nothing at all.
    Inner,
    /// Rules, from `rules` on in the arena.
    Ruled { rules: usize },
}

/// Slots of one cache line, each of which is empty (tag 0), a record or a marker.
#[derive(Clone, Default)]
#[repr(align(64))]
struct Bucket {
    places: [u32; BUCKET_SLOTS],
    tags: [u8; BUCKET_SLOTS],
    /// Whether a node that belongs here found it full, so that the search goes on in the next one.
    spilled: bool,
}

/// Slots in a bucket: as many as fill 64 octets.
const BUCKET_SLOTS: usize = 12;

/// How many slots of a bucket are taken on average. With 9 of 12, one look-up in eight reads a second bucket.
const BUCKET_LOAD: usize = 9;

/// The place of a node that has no record: names stand below.
const MARKER: u32 = u32::MAX;

/// The most octets of an arena: every place in it must be one that a rule's number has room for. Some 35 million rules.
const ARENA_OCTETS_MAX: usize = PLACES_MAX as usize;

/// The hash of the root; the others follow from it label by label, under the keys.
pub(super) const ROOT_HASH: u64 = 0;

/// The wire form of the root.
const ROOT: &[u8] = b"\0";

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

/// The bucket that a hash belongs to: its upper bits, scaled, so that nodes sorted by hash are sorted by bucket.
fn home(hash: u64, buckets: usize) -> usize {
    ((u128::from(hash) * buckets as u128) >> 64) as usize
}

fn next(bucket: usize, buckets: usize) -> usize {
    if bucket + 1 == buckets { 0 } else { bucket + 1 }
}

/// What a slot keeps of a hash: its lower bits, and never 0.
fn tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

/// A rule in the arena: line, source, flags.
type Packed = [u8; PACKED_OCTETS];

const PACKED_OCTETS: usize = 7;

/// Flag of a rule: it covers its name alone.
const EXACT: u8 = 1;
/// Flag of a rule: the last one of its name.
const LAST: u8 = 2;
/// Flag of a name's last rule: names stand below.
const INNER: u8 = 4;

fn pack(rule: Rule, flags: u8) -> Packed {
    let [a, b, c, d] = rule.line.to_le_bytes();
    let [e, f] = rule.source.0.to_le_bytes();
    let covers = if rule.covers == Covers::Exact { EXACT } else { 0 };
    [a, b, c, d, e, f, covers | flags]
}

fn unpack([a, b, c, d, e, f, flags]: Packed) -> (Rule, u8) {
    let covers = if flags & EXACT == 0 { Covers::Subtree } else { Covers::Exact };
    let rule = Rule { source: SourceId(u16::from_le_bytes([e, f])), line: u32::from_le_bytes([a, b, c, d]), covers };
    (rule, flags)
}

/// Rules being gathered.
#[derive(Default)]
pub struct Builder {
    pub(super) keys: Keys,
    /// For each rule in the order of adding: its name's wire form, then the rule.
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
    /// Where it stands in [`Builder::added`].
    place: u32,
    name_octets: u8,
}

/// Where a name's record stands, by the name's hash.
type Record = (u64, u32);

impl Builder {
    /// Adds a rule. The same name may be added any number of times, by the same source too.
    pub fn add(&mut self, name: &Name, rule: Rule) {
        let wire = name.as_wire();
        let place = self.added.len();
        if place + wire.len() + PACKED_OCTETS > ARENA_OCTETS_MAX {
            self.left_out += 1;
            return;
        }
        self.added.extend_from_slice(wire);
        self.added.extend_from_slice(&pack(rule, 0));
        let hash = self.hash_noting_ancestors(name);
        // Neither is cut: the check above, and a name has at most 255 octets.
        self.entries.push(Entry { hash, place: place as u32, name_octets: wire.len() as u8 });
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
        let (arena, records) = self.write_arena();
        let markers = self.markers(&records);
        let mut buckets = empty_buckets(records.len() + markers.len());
        for &(hash, place) in &records {
            put(&mut buckets, hash, place);
        }
        for &hash in &markers {
            put(&mut buckets, hash, MARKER);
        }
        let has_root = self.entries.iter().any(|entry| entry.name(&self.added) == ROOT);
        Part { rules: self.entries.len(), has_root, keys: self.keys, buckets, arena }
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

    /// Brings the rules of a name together, in the order of adding; names by hash, as the buckets are filled.
    fn sort(&mut self) {
        let added = &self.added;
        self.entries.sort_unstable_by(|a, b| {
            a.hash.cmp(&b.hash).then_with(|| a.name(added).cmp(b.name(added))).then(a.place.cmp(&b.place))
        });
        self.ancestors.sort_unstable();
        self.ancestors.dedup();
    }

    /// Writes the arena. Returns the place of each record too, by hash.
    fn write_arena(&self) -> (Box<[u8]>, Vec<Record>) {
        let mut arena = Vec::with_capacity(self.added.len());
        let mut records = Vec::with_capacity(self.entries.len());
        let mut ancestors = self.ancestors.iter().copied().peekable();
        for rules in self.entries.chunk_by(|a, b| a.hash == b.hash && a.name(&self.added) == b.name(&self.added)) {
            let hash = rules[0].hash;
            while ancestors.next_if(|ancestor| *ancestor < hash).is_some() {}
            let inner = ancestors.peek() == Some(&hash);
            // The arena is no longer than `added`, whose places are 32 bits.
            records.push((hash, arena.len() as u32));
            self.write_record(&mut arena, rules, if inner { LAST | INNER } else { LAST });
        }
        (arena.into_boxed_slice(), records)
    }

    fn write_record(&self, arena: &mut Vec<u8>, rules: &[Entry], flags_of_last: u8) {
        arena.extend_from_slice(rules[0].name(&self.added));
        for rule in rules {
            arena.extend_from_slice(rule.packed(&self.added));
        }
        if let Some(flags) = arena.last_mut() {
            *flags |= flags_of_last;
        }
    }

    /// The ancestors whose hash is no record's. The others need no marker: [`Part::find`] goes on past a record.
    fn markers(&self, records: &[Record]) -> Vec<u64> {
        let mut records = records.iter().map(|(hash, _)| *hash).peekable();
        let mut markers = self.ancestors.clone();
        markers.retain(|ancestor| {
            while records.next_if(|record| record < ancestor).is_some() {}
            records.peek() != Some(ancestor)
        });
        markers
    }
}

impl Entry {
    fn name(self, added: &[u8]) -> &[u8] {
        let start = self.place as usize;
        &added[start..start + usize::from(self.name_octets)]
    }

    fn packed(self, added: &[u8]) -> &[u8] {
        let start = self.place as usize + usize::from(self.name_octets);
        &added[start..start + PACKED_OCTETS]
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("rules", &self.entries.len()).finish_non_exhaustive()
    }
}

/// Buckets for this many nodes; at least one, and never full.
fn empty_buckets(nodes: usize) -> Box<[Bucket]> {
    vec![Bucket::default(); nodes.div_ceil(BUCKET_LOAD).max(1)].into_boxed_slice()
}

/// Puts a node into the first bucket with room from its home on. A marker whose tag is there already is not needed.
fn put(buckets: &mut [Bucket], hash: u64, place: u32) {
    let tag = tag(hash);
    let mut at = home(hash, buckets.len());
    loop {
        let bucket = &mut buckets[at];
        for slot in 0..BUCKET_SLOTS {
            if bucket.tags[slot] == 0 {
                (bucket.tags[slot], bucket.places[slot]) = (tag, place);
                return;
            }
            if place == MARKER && bucket.tags[slot] == tag {
                return;
            }
        }
        bucket.spilled = true;
        at = next(at, buckets.len());
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
    fn a_bucket_is_one_cache_line() {
        assert_eq!(size_of::<Bucket>(), 64);
        assert_eq!(align_of::<Bucket>(), 64);
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
        assert_eq!(part.buckets.len(), 1);
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
