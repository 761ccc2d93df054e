//! Labels of `any-tld` targets: returns those that stand directly under a public suffix of a name.
//!
//! The public suffixes are those of ICANN's rules in the list that the `psl` crate carries; where a private rule is
//! met, the suffix's parent is looked at instead. A top-level domain that the list does not have is a suffix.
//!
//! A name that is itself a public suffix is met by its leftmost label. Where a wildcard made it one (`*.ck`), that label
//! is a registrant's, and what lies below is meant too. Elsewhere (`co.uk`) it is a registry's: the name alone is meant.

use std::collections::HashMap;
use std::fmt;

use ahash::RandomState;
use psl::{List, Psl as _, Type};

use crate::dns::Name;

/// A label that no rule of the public suffix list has: where it makes a suffix, a wildcard does.
const NO_ONES_LABEL: &[u8] = b"\0";

/// Labels, and for each the places of its rules: at each place one with all below, at the next one for the name alone.
#[derive(Default)]
pub(super) struct Labels {
    places: HashMap<Box<[u8]>, Vec<u32>, RandomState>,
    rules: usize,
}

impl Labels {
    /// Adds a label. The same one may be added any number of times.
    pub(super) fn add(&mut self, label: &str, place: u32) {
        self.places.entry(label.as_bytes().into()).or_default().push(place);
        self.rules += 1;
    }

    /// Calls `each` with the rules that a name meets, and how many labels of the name are the suffix and the label.
    pub(super) fn meet(&self, name: &Name, mut each: impl FnMut(u32, usize)) {
        // The suffix is looked for only where one of the labels is there at all.
        if self.places.is_empty() || !(1..=name.labels()).any(|depth| self.at(name, depth).is_some()) {
            return;
        }
        let suffix = suffix_labels(name);
        let mut met = |depth: usize, rule: u32| {
            self.at(name, depth).into_iter().flatten().for_each(|place| each(place + rule, depth));
        };
        if is_by_wildcard(name, suffix) {
            met(suffix, SUBTREE);
        } else if suffix == name.labels() {
            met(suffix, EXACT);
        }
        if suffix < name.labels() {
            met(suffix + 1, SUBTREE);
        }
    }

    fn at(&self, name: &Name, depth: usize) -> Option<&Vec<u32>> {
        self.places.get(name.label_from_root(depth))
    }

    pub(super) fn len(&self) -> usize {
        self.rules
    }
}

/// How far from a label's place the rule stands that covers all below.
const SUBTREE: u32 = 0;
/// How far from a label's place the rule stands that covers the name alone.
const EXACT: u32 = 1;

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Labels").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Whether a label is met at a name, above it or below it: there, too, where the name is a public suffix.
pub(in crate::policy) fn reaches(label: &str, name: &Name) -> bool {
    let mut labels = Labels::default();
    labels.add(label, 0);
    let mut is_met = suffix_labels(name) == name.labels();
    labels.meet(name, |_, _| is_met = true);
    is_met
}

/// How many labels the public suffix of a name has by ICANN's rules; 0 for the root.
fn suffix_labels(name: &Name) -> usize {
    let mut labels = name.labels();
    loop {
        let found = List.find((1..=labels).map(|depth| name.label_from_root(depth)));
        let suffix = labels_of(name, found.len).min(labels);
        if found.typ != Some(Type::Private) || suffix == 0 {
            return suffix;
        }
        labels = suffix - 1;
    }
}

/// How many of a name's rightmost labels take so many octets, dots between them counted.
fn labels_of(name: &Name, octets: usize) -> usize {
    let mut taken = 0;
    (1..=name.labels())
        .take_while(|depth| {
            taken += name.label_from_root(*depth).len() + usize::from(*depth > 1);
            taken <= octets
        })
        .count()
}

/// Whether the public suffix of so many labels is one by a rule like `*.ck`.
fn is_by_wildcard(name: &Name, suffix: usize) -> bool {
    if suffix < 2 {
        return false;
    }
    let parent = (1..suffix).map(|depth| name.label_from_root(depth));
    let parent_octets: usize = parent.clone().map(|label| label.len() + 1).sum();
    let found = List.find(parent.chain([NO_ONES_LABEL]));
    found.typ == Some(Type::Icann) && found.len == parent_octets + NO_ONES_LABEL.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// What a name meets of the labels `ilcorsaronero`, `github`, `co` and `com`: the label, whether with all below, and
    /// how many labels of the name it is.
    fn met(text: &str) -> Vec<(&'static str, bool, usize)> {
        const LABELS: [&str; 5] = ["ilcorsaronero", "github", "co", "com", "lan"];
        let mut labels = Labels::default();
        for (number, label) in (0..).zip(LABELS) {
            labels.add(label, 2 * number);
        }
        let mut met = vec![];
        labels.meet(&Name::from_text(text).unwrap(), |place, labels| {
            met.push((LABELS[place as usize / 2], place % 2 == 0, labels));
        });
        met
    }

    #[test]
    fn a_label_is_met_directly_under_a_public_suffix_and_below() {
        for (text, labels) in [
            ("ilcorsaronero.pro", 2),
            ("ILCORSARONERO.PRO", 2),
            ("www.ilcorsaronero.pro", 2),
            ("ilcorsaronero.co.uk", 3),
            ("www.ilcorsaronero.co.uk", 3),
            ("ilcorsaronero.ck", 2),
            ("www.ilcorsaronero.ck", 2),
            ("ilcorsaronero.www.ck", 3),
            ("ilcorsaronero.nosuchtld", 2),
            ("a.b.ilcorsaronero.nosuchtld", 2),
            ("ilcorsaronero.公司.cn", 3),
            ("www.ilcorsaronero.xn--p1ai", 2),
        ] {
            let expected = [("ilcorsaronero", true, labels)];
            // www.ck is an exception of *.ck: what is registered there is www.
            let expected = if text == "ilcorsaronero.www.ck" { &expected[..0] } else { &expected[..] };
            assert_eq!(met(text), expected, "{text}");
        }
    }

    #[test]
    fn it_is_not_met_elsewhere() {
        for text in [
            "myilcorsaronero.com",
            "ilcorsaronero.github.io",
            "ilcorsaronero.example.com",
            "ilcorsaronero.blogspot.com",
            "www.ilcorsaronero.example.co.uk",
            "example.pro",
            ".",
        ] {
            assert_eq!(met(text).iter().filter(|(label, ..)| *label == "ilcorsaronero").count(), 0, "{text}");
        }
        assert_eq!(met("ilcorsaronero.github.io"), [("github", true, 2)], "by ICANN's rules the suffix is io");
        assert_eq!(met("github.io"), [("github", true, 2)]);
    }

    #[test]
    fn a_public_suffix_is_met_by_its_leftmost_label_and_what_is_registered_under_it_is_not() {
        assert_eq!(met("co.uk"), [("co", false, 2)]);
        assert_eq!(met("com"), [("com", false, 1)]);
        assert_eq!(met("lan"), [("lan", false, 1)], "an unknown top-level domain is a suffix");
        for text in ["example.co.uk", "www.example.com", "example.com", "host.lan"] {
            assert_eq!(met(text), [], "{text}");
        }
        assert_eq!(met("com.com"), [("com", true, 2)]);
    }

    #[test]
    fn a_label_reaches_what_it_meets_and_every_public_suffix_above() {
        let reaches = |text: &str| reaches("ilcorsaronero", &Name::from_text(text).unwrap());
        for text in ["ilcorsaronero.pro", "www.ilcorsaronero.co.uk", "co.uk", "pro", "."] {
            assert!(reaches(text), "{text}");
        }
        assert!(!reaches("example.pro") && !reaches("github.io.example"));
    }

    #[test]
    fn octets_that_are_no_text_are_labels_too() {
        let name = Name::from_text("\\255\\000.ilcorsaronero.p\\000ro").unwrap();
        assert_eq!(suffix_labels(&name), 1);
        assert_eq!(met("\\255\\000.ilcorsaronero.p\\000ro"), [("ilcorsaronero", true, 2)]);
    }
}
