//! What the values of an order file mean.

use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::{Item, Meaning, Reader, is_a, is_control, quoted, string};
use super::{Document, Effect, Jurisdiction, State};
use crate::digest::Digest;
use crate::policy::origin::Country;

/// The longest id, in octets.
const ID_OCTETS_MAX: usize = 64;

/// The longest issuer, in octets: it is part of every blocked answer's EXTRA-TEXT.
pub(super) const ISSUER_OCTETS_MAX: usize = 200;

/// The longest reference, in octets.
pub(super) const REFERENCE_OCTETS_MAX: usize = 200;

/// The longest `about` or `contact`, in octets: both may be part of a blocked answer.
const URI_OCTETS_MAX: usize = 300;

/// The longest `source` of a target or `location` of a document, in octets; neither leaves this machine.
pub(super) const NOTE_OCTETS_MAX: usize = 1000;

/// The longest language tag, in octets: RFC 5646 §4.4.1 says that 35 hold every tag in use.
const LANGUAGE_OCTETS_MAX: usize = 35;

/// The longest id of a Lumen notice, in octets: it is part of a blocked answer. Those of today have eight.
const LUMEN_OCTETS_MAX: usize = 64;

pub(super) fn id(value: &DeValue) -> Meaning<String> {
    let id = text::<ID_OCTETS_MAX>(value)?;
    if id.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
        Ok(id)
    } else {
        Err(format!("is {}; it takes letters, digits and hyphens only", quoted(&id)))
    }
}

/// Text that can be shown and sent: not empty, at most so many octets, nothing that moves a cursor or turns the
/// direction of writing.
pub(super) fn text<const OCTETS_MAX: usize>(value: &DeValue) -> Meaning<String> {
    let text = string(value)?;
    if text.trim().is_empty() {
        Err("is empty; fill it in".to_owned())
    } else if text.len() > OCTETS_MAX {
        Err(format!("has {} octets; at most {OCTETS_MAX} are allowed", text.len()))
    } else if let Some(character) = text.chars().find(|character| is_control(*character)) {
        Err(format!("holds the control character U+{:04X}; take it out", u32::from(character)))
    } else {
        Ok(text.trim().to_owned())
    }
}

pub(super) fn state(value: &DeValue) -> Meaning<State> {
    let word = string(value)?;
    State::from_word(word).ok_or_else(|| {
        format!("is {}; it takes one of {}", quoted(word), State::ALL.map(|state| quoted(state.as_str())).join(", "))
    })
}

pub(super) fn blocks_unknown_origin(value: &DeValue) -> Meaning<bool> {
    match string(value)? {
        "spare" => Ok(false),
        "block" => Ok(true),
        word => Err(format!("is {}; it takes \"spare\" or \"block\"", quoted(word))),
    }
}

/// An `http:` or `https:` URL with a host, in the characters of RFC 3986.
pub(super) fn web_address(value: &DeValue) -> Meaning<String> {
    let text = uri(value)?;
    let host = after_scheme(&text, "https://").or_else(|| after_scheme(&text, "http://"));
    if host.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')) {
        Ok(text)
    } else {
        Err(format!("is {}; it takes an address such as https://court.example/orders/1", quoted(&text)))
    }
}

/// A `mailto:` (RFC 6068) or `tel:` (RFC 3966) URI, the two that structured DNS errors can carry.
pub(super) fn contact(value: &DeValue) -> Meaning<String> {
    let text = uri(value)?;
    let mail = after_scheme(&text, "mailto:").and_then(|rest| rest.split_once('@'));
    let telephone = after_scheme(&text, "tel:").is_some_and(|rest| rest.bytes().any(|octet| octet.is_ascii_digit()));
    if telephone || mail.is_some_and(|(local, host)| !local.is_empty() && !host.is_empty()) {
        Ok(text)
    } else {
        Err(format!("is {}; it takes mailto:legal@resolver.example or tel:+390255501", quoted(&text)))
    }
}

fn uri(value: &DeValue) -> Meaning<String> {
    let text = text::<URI_OCTETS_MAX>(value)?;
    match text.chars().find(|character| !is_uri_character(*character)) {
        None => Ok(text),
        Some(character) => Err(format!("holds {character:?}, which no address can; write it with % escapes")),
    }
}

/// RFC 3986 §2: unreserved, reserved, and the percent sign of escapes.
fn is_uri_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(character)
}

/// What follows a scheme, whose case does not matter (RFC 3986 §3.1).
fn after_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    text.get(..scheme.len()).filter(|start| start.eq_ignore_ascii_case(scheme)).map(|_| &text[scheme.len()..])
}

const JURISDICTION_WANTED: &str = "an array of country codes such as [\"IT\"], or [\"*\"] for everywhere";

pub(super) fn jurisdiction(item: Option<Item>, reader: &mut Reader) -> Option<Jurisdiction> {
    let Some(item) = item else {
        reader.missing("jurisdiction", "[\"IT\"]");
        return None;
    };
    let at = item.span();
    let codes = reader.array(item, "jurisdiction", JURISDICTION_WANTED)?;
    let everywhere = codes.iter().find(|code| code.get_ref().as_str() == Some("*")).map(Spanned::span);
    match everywhere {
        Some(_) if codes.len() == 1 => return Some(Jurisdiction::Everywhere),
        Some(at) => reader.mistake(at, "\"*\" is everywhere; it stands alone, or not at all"),
        None if codes.is_empty() => {
            reader.mistake(at, format!("`jurisdiction` is empty; it takes {JURISDICTION_WANTED}"))
        }
        None => {}
    }
    let codes = codes.into_iter().filter(|code| code.get_ref().as_str() != Some("*"));
    let countries: Vec<Country> =
        codes.filter_map(|code| reader.optional(Some(code), "jurisdiction", country)).collect();
    Some(Jurisdiction::Countries(unique(countries)))
}

fn country(value: &DeValue) -> Meaning<Country> {
    let code = string(value)?;
    let upper = code.to_ascii_uppercase();
    Country::from_code(code).ok_or_else(|| match upper.as_str() {
        "UK" => "holds \"UK\"; the United Kingdom's code is \"GB\"".to_owned(),
        "EU" => "holds \"EU\", which is no country; name the member states".to_owned(),
        upper if Country::from_code(upper).is_some() => {
            format!("holds {}; codes are upper case, {}", quoted(code), quoted(upper))
        }
        _ => format!("holds {}; it takes assigned ISO 3166-1 alpha-2 codes, such as \"IT\"", quoted(code)),
    })
}

/// Each country once, in the order of the file.
fn unique(countries: Vec<Country>) -> Vec<Country> {
    let mut once = Vec::with_capacity(countries.len());
    for country in countries {
        if !once.contains(&country) {
            once.push(country);
        }
    }
    once
}

pub(super) const EFFECT_WANTED: &str =
    "\"nxdomain\", \"nodata\", \"refused\" or addresses such as { a = \"192.0.2.1\", aaaa = \"2001:db8::1\" }";

pub(super) fn effect(item: Option<Item>, reader: &mut Reader) -> Option<Effect> {
    let Some(item) = item else {
        return Some(Effect::NxDomain);
    };
    let at = item.span();
    match item.into_inner() {
        DeValue::Table(keys) => address_effect(keys, at, reader),
        value => reader.optional(Some(Spanned::new(at, value)), "effect", word_effect),
    }
}

fn word_effect(value: &DeValue) -> Meaning<Effect> {
    let word = value.as_str().ok_or_else(|| is_a(value, EFFECT_WANTED))?;
    Effect::from_word(word).ok_or_else(|| format!("is {}; it takes {EFFECT_WANTED}", quoted(word)))
}

fn address_effect(mut keys: DeTable, at: Range<usize>, reader: &mut Reader) -> Option<Effect> {
    let (a, aaaa) = (keys.remove("a"), keys.remove("aaaa"));
    if a.is_none() && aaaa.is_none() {
        reader.mistake(at, format!("`effect` has no address; it takes {EFFECT_WANTED}"));
    }
    reader.refuse(keys, "an address effect has", "a, aaaa");
    let a = reader.optional(a, "a", |value| address(value, "an IPv4 address such as \"192.0.2.1\""));
    let aaaa = reader.optional(aaaa, "aaaa", |value| address(value, "an IPv6 address such as \"2001:db8::1\""));
    Some(Effect::Address { a, aaaa })
}

fn address<T: FromStr>(value: &DeValue, wanted: &str) -> Meaning<T> {
    let text = value.as_str().ok_or_else(|| is_a(value, wanted))?;
    text.parse().map_err(|_| format!("is {}; it takes {wanted}", quoted(text)))
}

/// The paper itself: nothing carries it out, it is for whoever has to show it.
pub(super) fn document(item: Option<Item>, reader: &mut Reader) -> Option<Document> {
    let item = item?;
    let at = item.span();
    let DeValue::Table(mut keys) = item.into_inner() else {
        reader.mistake(at, "`document` takes a table such as { sha256 = \"…\", location = \"…\" }");
        return None;
    };
    let (sha256, location) = (keys.remove("sha256"), keys.remove("location"));
    reader.refuse(keys, "a document has", "sha256, location");
    let sha256 = reader.part(sha256, ("document", &at), "sha256", "\"64 hexadecimal digits\"", digest);
    let location = reader.part(location, ("document", &at), "location", "\"file 2022/17\"", text::<NOTE_OCTETS_MAX>);
    Some(Document { sha256: sha256?, location: location? })
}

pub(super) fn digest(value: &DeValue) -> Meaning<Digest> {
    let text = string(value)?;
    text.parse().map_err(|_| format!("is {}; it takes 64 hexadecimal digits", quoted(text)))
}

/// A language tag in the shape of BCP 47 (RFC 5646 §2.1): `it`, `zh-Hans`, `de-CH-1996`. Whether its parts are
/// registered is not looked up.
pub(super) fn language(value: &DeValue) -> Meaning<String> {
    let tag = text::<LANGUAGE_OCTETS_MAX>(value)?;
    let subtags: Vec<&str> = tag.split('-').collect();
    let fit =
        |subtag: &&str| matches!(subtag.len(), 1..=8) && subtag.bytes().all(|octet| octet.is_ascii_alphanumeric());
    let is_language = |subtag: &str| subtag.len() > 1 && subtag.bytes().all(|octet| octet.is_ascii_alphabetic());
    // A single letter opens an extension, so that one more subtag follows.
    let ends = subtags.last().is_some_and(|last| last.len() > 1);
    if is_language(subtags[0]) && subtags.iter().all(fit) && ends {
        Ok(tag)
    } else {
        Err(format!("is {}; it takes a language tag such as \"it\" or \"de-CH\"", quoted(&tag)))
    }
}

/// The id of a notice in the Lumen database.
pub(super) fn lumen(value: &DeValue) -> Meaning<String> {
    let notice = text::<LUMEN_OCTETS_MAX>(value)?;
    if notice.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
        Ok(notice)
    } else {
        Err(format!("is {}; it takes the notice's id alone, letters, digits and hyphens", quoted(&notice)))
    }
}

pub(super) fn boolean(value: &DeValue) -> Meaning<bool> {
    value.as_bool().ok_or_else(|| is_a(value, "true or false, without quotation marks"))
}
