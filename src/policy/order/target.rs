//! The targets of an order file: what each is about, since when, and by what paper.

use std::ops::Range;

use toml::de::DeTable;

use super::Target;
use super::dates::{Dates, TargetDates};
use super::reader::{Item, Reader};
use super::subject::{address, label, list, name};
use super::time::day;
use super::value::{NOTE_OCTETS_MAX, text};
use crate::policy::index::Covers;

/// The keys of a target, as a mistake lists them.
const TARGET_KEYS: &str = "subtree, exact, any-tld, address, list, added, source, due, effective, expires";

const NAMES_WANTED: &str = "an array of names such as [\"site.example\"]";
const LABELS_WANTED: &str = "an array of labels such as [\"ilcorsaronero\"]";
const ADDRESSES_WANTED: &str = "an array of addresses and prefixes such as [\"192.0.2.1\", \"2001:db8::/32\"]";

pub(super) fn targets(item: Option<Item>, order: &Dates, reader: &mut Reader) -> Option<Vec<Target>> {
    let Some(item) = item else {
        reader.mistake(0..0, "`[[target]]` is missing; add one with the names that the order is about");
        return None;
    };
    let tables = reader.tables(item, "target")?;
    Some(tables.into_iter().map(|table| target(table, order, reader)).collect())
}

fn target((mut keys, at): (DeTable, Range<usize>), order: &Dates, reader: &mut Reader) -> Target {
    if !["subtree", "exact", "any-tld", "address", "list"].iter().any(|key| keys.contains_key(*key)) {
        reader.mistake(at, "a [[target]] that is about nothing; it takes subtree, exact, any-tld, address or list");
    }
    let mut names = Vec::new();
    for (key, covers) in [("subtree", Covers::Subtree), ("exact", Covers::Exact)] {
        let found = reader.each(keys.remove(key), key, NAMES_WANTED, |value| name(value, covers));
        names.extend(found.into_iter().map(|(name, line)| (name, covers, line)));
    }
    let labels = reader.each(keys.remove("any-tld"), "any-tld", LABELS_WANTED, label);
    let addresses = reader.each(keys.remove("address"), "address", ADDRESSES_WANTED, address);
    let list = list(keys.remove("list"), reader);
    let added = reader.optional(keys.remove("added"), "added", day);
    let source = reader.optional(keys.remove("source"), "source", text::<NOTE_OCTETS_MAX>);
    let [due, effective, expires] = TargetDates::of(&mut keys).read(order, reader);
    reader.refuse(keys, "a target has", TARGET_KEYS);
    Target { names, labels, addresses, list, added, source, due, effective, expires }
}
