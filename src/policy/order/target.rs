//! The targets of an order file → names, each with what of it is meant and its line.

use std::net::IpAddr;

use toml::de::DeValue;

use super::Target;
use super::reader::{Item, Meaning, Reader, is_a, quoted};
use super::time::day;
use super::value::{NOTE_OCTETS_MAX, text};
use crate::dns::{Name, special};
use crate::policy::index::Covers;

/// The keys of a target, as a mistake lists them.
const TARGET_KEYS: &str = "subtree, exact, added, source";

/// The keys of a target that are known, and not supported yet.
const TARGET_KEYS_LATER: &[&str] =
    &["any-tld", "address", "list", "interval", "received", "due", "effective", "expires", "state"];

pub(super) fn targets(item: Option<Item>, reader: &mut Reader) -> Option<Vec<Target>> {
    let Some(item) = item else {
        reader.mistake(0..0, "`[[target]]` is missing; add one with the names that the order is about");
        return None;
    };
    let at = item.span();
    if item.get_ref().is_table() {
        reader.mistake(at, "`target` is one table; write [[target]], in double brackets");
        return None;
    }
    let tables = reader.array(item, "target", "[[target]] tables")?;
    if tables.is_empty() {
        reader.mistake(at, "`target` is empty; an order has at least one [[target]]");
    }
    Some(tables.into_iter().filter_map(|table| target(table, reader)).collect())
}

fn target(item: Item, reader: &mut Reader) -> Option<Target> {
    let at = item.span();
    let DeValue::Table(mut keys) = item.into_inner() else {
        reader.mistake(at, "`target` holds something else than a table; write [[target]], in double brackets");
        return None;
    };
    let (subtree, exact) = (keys.remove("subtree"), keys.remove("exact"));
    let (added, source) = (keys.remove("added"), keys.remove("source"));
    // A target whose only names are of a later kind has its mistake already.
    if subtree.is_none() && exact.is_none() && !TARGET_KEYS_LATER.iter().any(|key| keys.contains_key(*key)) {
        reader.mistake(at, "a [[target]] without names; it takes subtree = [\"…\"] or exact = [\"…\"]");
    }
    reader.refuse(keys, TARGET_KEYS_LATER, "a target has", TARGET_KEYS);
    let mut names = Vec::new();
    for (item, key, covers) in [(subtree, "subtree", Covers::Subtree), (exact, "exact", Covers::Exact)] {
        names_into(&mut names, item, key, covers, reader);
    }
    let added = reader.optional(added, "added", day);
    let source = reader.optional(source, "source", text::<NOTE_OCTETS_MAX>);
    Some(Target { names, added, source, ..Target::default() })
}

/// Reads an array of names, each mistake at its own place.
fn names_into(
    names: &mut Vec<(Name, Covers, u32)>,
    item: Option<Item>,
    key: &str,
    covers: Covers,
    reader: &mut Reader,
) {
    let Some(item) = item else { return };
    let at = item.span();
    let Some(elements) = reader.array(item, key, "an array of names such as [\"site.example\"]") else { return };
    if elements.is_empty() {
        reader.mistake(at, format!("`{key}` is empty; name at least one site, or take the line out"));
    }
    for element in elements {
        match name(element.get_ref(), covers) {
            Ok(name) => names.push((name, covers, reader.line(element.span().start))),
            Err(what) => reader.mistake(element.span(), what),
        }
    }
}

/// The name of a target, or all of the mistake's words.
fn name(value: &DeValue, covers: Covers) -> Meaning<Name> {
    let text = value.as_str().ok_or_else(|| format!("the name {}", is_a(value, "a string in quotation marks")))?;
    let shown = quoted(text);
    if text.parse::<IpAddr>().is_ok() {
        return Err(format!("{shown} is an address; targets are names, addresses are not supported yet"));
    }
    let name = Name::from_text(text).map_err(|error| format!("{shown} is not a name: {error}"))?;
    // A name may hold any octet; one that a person typed without an escape is a URL, a pattern or a slip.
    if !text.contains('\\') && !is_host_name(&name) {
        return Err(format!("{shown} is not a name; give the name alone, without *, scheme, port or path"));
    }
    match name.labels() {
        0 => Err("\".\" is the root, all of DNS; name the site".to_owned()),
        _ if special::zone_of(&name).is_some() => {
            Err(format!("{shown} is a special name, which is never forwarded; take it out"))
        }
        1 if covers == Covers::Subtree => Err(format!("{shown} is a whole top-level domain; name the site")),
        _ => Ok(name),
    }
}

/// Letters, digits, hyphens, and underscores, which are legal (RFC 2181 §11).
fn is_host_name(name: &Name) -> bool {
    let is_host = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=name.labels()).all(|depth| name.label_from_root(depth).iter().all(is_host))
}
