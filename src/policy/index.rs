//! The compiled, immutable rules: returns every rule that a name or an address meets.
//!
//! Names stand in three parts: those written in orders and exemptions, made anew with each policy; those of lists and
//! of orders' list targets, made once and shared for as long as the files are the same. One walk from the root down
//! goes through all of them. Labels of `any-tld` and prefixes of `address` stand beside, and cost nothing where there
//! are none.

mod arena;
mod filter;
mod part;
mod prefixes;
pub(in crate::policy) mod suffix;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;

use crate::dns::Name;
pub use part::{Builder, Part};
use prefixes::Prefixes;
use suffix::Labels;

/// What a rule covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Covers {
    /// The name and all below it.
    Subtree,
    /// The name alone.
    Exact,
}

/// The number of a rule in one index: its part, and its place there. Numbers have gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// How many bits of a [`RuleId`] are the place; the two above say the part.
const PLACE_BITS: u32 = 30;

/// The most places of a part.
const PLACES_MAX: u32 = (1 << PLACE_BITS) - 1;

/// Where a rule stands; sources are numbered in each shelf apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// A name of an order or an exemption, a label or a prefix.
    Written,
    /// A name of one of the operator's lists.
    Lists,
    /// A name of an order's list target.
    Targets,
}

/// The part that stands for labels and prefixes: their rules are counted, not placed.
const OTHERS: usize = 3;

impl RuleId {
    fn new(part: usize, place: u32) -> Self {
        Self((part as u32) << PLACE_BITS | place)
    }

    fn part(self) -> usize {
        (self.0 >> PLACE_BITS) as usize
    }

    fn place(self) -> u32 {
        self.0 & PLACES_MAX
    }

    /// Where the rule stands.
    #[must_use]
    pub fn shelf(self) -> Shelf {
        match self.part() {
            1 => Shelf::Lists,
            2 => Shelf::Targets,
            _ => Shelf::Written,
        }
    }
}

/// Whose rule it is: a number that each order's target, list and exemption has on its shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceId(pub u16);

/// A rule, as it was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whose it is.
    pub source: SourceId,
    /// The line of its file it stands on, from 1.
    pub line: u32,
    /// What it covers.
    pub covers: Covers,
}

/// The rules of a policy, compiled.
pub struct Index {
    number: u32,
    parts: [Arc<Part>; OTHERS],
    labels: Labels,
    prefixes: Prefixes,
    others: Box<[Rule]>,
}

impl Index {
    /// An index of one part alone.
    #[must_use]
    pub fn of(part: Part) -> Self {
        Draft::default().build_on(Arc::new(part), [Arc::default(), Arc::default()])
    }

    /// A number that no other index of this process has; never 0.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Calls `each` with every rule that `name` meets, and how many labels that rule's own name has. From the root
    /// down; rules of one name and part in the order in which they were added; those of labels last.
    pub fn meet(&self, name: &Name, mut each: impl FnMut(RuleId, usize)) {
        self.walk(name, &mut each);
        self.labels.meet(name, |place, labels| each(RuleId::new(OTHERS, place), labels));
    }

    fn walk(&self, name: &Name, each: &mut impl FnMut(RuleId, usize)) {
        let keys = self.parts[0].keys();
        let mut goes_on = self.parts.each_ref().map(|part| !part.is_empty());
        let mut hash = part::ROOT_HASH;
        for depth in 0..=name.labels() {
            if goes_on == [false; OTHERS] {
                return;
            }
            if depth > 0 {
                hash = keys.hash_below(hash, name.label_from_root(depth));
            }
            for (number, (part, goes_on)) in self.parts.iter().zip(&mut goes_on).enumerate() {
                let met = |place| each(RuleId::new(number, place), depth);
                *goes_on = *goes_on && part.meet_at(hash, name, depth, met);
            }
        }
    }

    /// Calls `each` with every rule that an address meets, an IPv4-mapped one as the IPv4 address inside; the shortest
    /// prefix first.
    pub fn meet_address(&self, address: IpAddr, mut each: impl FnMut(RuleId)) {
        self.prefixes.meet(address, |place| each(RuleId::new(OTHERS, place)));
    }

    /// Whether any rule is about addresses.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        !self.prefixes.is_empty()
    }

    /// A rule by its number, which came from [`Self::meet`] of this index.
    ///
    /// # Panics
    /// May panic for a number of another index; [`Self::number`] tells them apart.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Rule {
        match self.parts.get(id.part()) {
            Some(part) => part.rule(id.place()),
            None => self.others[id.place() as usize],
        }
    }

    /// How many names, labels and prefixes.
    #[must_use]
    pub fn len(&self) -> usize {
        let names: usize = self.parts.iter().map(|part| part.len()).sum();
        names + self.labels.len() + self.prefixes.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets that its names take, all in.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.parts.iter().map(|part| part.octets()).sum()
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("number", &self.number).field("rules", &self.len()).finish_non_exhaustive()
    }
}

/// What is written in orders and exemptions, being gathered.
#[derive(Debug, Default)]
pub struct Draft {
    names: Builder,
    labels: Labels,
    prefixes: Prefixes,
    others: Vec<Rule>,
}

impl Draft {
    /// Adds a name.
    pub fn name(&mut self, name: &Name, rule: Rule) {
        self.names.add(name, rule);
    }

    /// Adds a label of `any-tld`, in lower case.
    pub fn label(&mut self, label: &str, source: SourceId, line: u32) {
        // It may be met as a name with all below it, or as a public suffix alone: a rule for each.
        let place = self.others.len() as u32;
        self.others.extend([Covers::Subtree, Covers::Exact].map(|covers| Rule { source, line, covers }));
        self.labels.add(label, place);
    }

    /// Adds a prefix.
    pub fn prefix(&mut self, prefix: IpNet, source: SourceId, line: u32) {
        let place = self.others.len() as u32;
        self.others.push(Rule { source, line, covers: Covers::Subtree });
        self.prefixes.add(prefix, place);
    }

    /// See [`Builder::left_out`].
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.names.left_out() + self.others.len().saturating_sub(PLACES_MAX as usize)
    }

    /// Compiles it, beside the names of the operator's lists and those of list targets.
    #[must_use]
    pub fn build(mut self, lists: Arc<Part>, targets: Arc<Part>) -> Index {
        let written = Arc::new(std::mem::take(&mut self.names).build());
        self.build_on(written, [lists, targets])
    }

    fn build_on(self, written: Arc<Part>, [lists, targets]: [Arc<Part>; 2]) -> Index {
        let Self { labels, prefixes, others, .. } = self;
        Index { number: next_number(), parts: [written, lists, targets], labels, prefixes, others: others.into() }
    }
}

fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    match NEXT.fetch_add(1, Ordering::Relaxed) {
        0 => next_number(),
        number => number,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    fn part(names: &[&str], source: u16) -> Arc<Part> {
        let mut builder = Builder::default();
        for (line, text) in (1..).zip(names) {
            builder.add(&name(text), Rule { source: SourceId(source), line, covers: Covers::Subtree });
        }
        Arc::new(builder.build())
    }

    #[test]
    fn each_index_has_a_number_of_its_own() {
        let [a, b] = [0, 1].map(|_| Index::of(Part::default()).number());
        assert!(a != 0 && b != 0 && a != b);
    }

    #[test]
    fn the_parts_are_walked_together_and_told_apart() {
        let mut draft = Draft::default();
        draft.name(&name("a.example"), Rule { source: SourceId(0), line: 9, covers: Covers::Exact });
        draft.label("a", SourceId(1), 8);
        let index = draft.build(part(&["www.a.example", "example"], 2), part(&["a.example"], 3));
        let met = |text: &str| {
            let mut met = vec![];
            index.meet(&name(text), |id, labels| met.push((id.shelf(), index.rule(id), labels)));
            met.into_iter().map(|(shelf, rule, labels)| (shelf, rule.source.0, rule.line, labels)).collect::<Vec<_>>()
        };
        assert_eq!(
            met("a.example"),
            [(Shelf::Lists, 2, 2, 1), (Shelf::Written, 0, 9, 2), (Shelf::Targets, 3, 1, 2), (Shelf::Written, 1, 8, 2),]
        );
        assert_eq!(
            met("www.a.example"),
            [(Shelf::Lists, 2, 2, 1), (Shelf::Targets, 3, 1, 2), (Shelf::Lists, 2, 1, 3), (Shelf::Written, 1, 8, 2)]
        );
        assert_eq!((index.len(), index.has_addresses()), (5, false));
    }

    #[test]
    fn every_rule_of_a_part_comes_back_with_its_name() {
        let names = ["b.example", "a.example", "b.example", ".", "x.y.z"];
        let mut found = vec![];
        part(&names, 7).each(|name, rule| found.push((rule.line, name.to_string())));
        found.sort();
        let added: Vec<_> = (1..).zip(names.map(|text| name(text).to_string())).collect();
        assert_eq!(found, added);
    }
}
