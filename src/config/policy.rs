//! `[origin]` and `[policy]` as they are written: which clients are where, and what the operator blocks.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use toml::value::Datetime;

use super::table::{Bounds, Table, Value};
use crate::dns::edns::{SdeOption, option};
use crate::policy::index::Covers;
use crate::policy::list::Format;
use crate::policy::load::{self, Exemption, Key, ListSettings};
use crate::policy::order::Effect;
use crate::policy::origin::{self, Country};
use crate::sign::{self, PublicKey};

/// Of a list's name and an order's id: both end up in answers and metrics.
const ID_OCTETS_MAX: usize = 64;

/// An EDNS option; 0 is none.
const SDE_OPTION: Bounds<u32> = Bounds { default: 0, min: 0, max: 65_535 };

/// The most keys of `[[policy.key]]`: each is tried on each order.
const KEYS_MAX: u32 = 64;

/// How many keys must have signed an order's file; 0: none.
const APPROVALS: Bounds<u32> = Bounds { default: 0, min: 0, max: KEYS_MAX };

pub(super) fn origin(table: &mut Table<'_>) -> origin::Settings {
    let seen = RefCell::default();
    origin::Settings {
        networks: table.optional("networks", |value| value.each(|value, _| network(value, &seen))).unwrap_or_default(),
        database: table.optional("database", Value::path),
        default: table.optional("default", |value| value.meaning(country)),
    }
}

/// `seen` holds the prefixes so far, of which there may be very many.
fn network(value: Value<'_>, seen: &RefCell<HashSet<IpNet>>) -> Option<(IpNet, Country)> {
    let prefix = |value: Value<'_>| {
        let prefix = value.meaning(prefix)?;
        let new = seen.borrow_mut().insert(prefix);
        if new { Some(prefix) } else { value.refuse(format_args!("{prefix} is named twice; remove one")) }
    };
    value.table("a network", |table| {
        let prefix = table.required("prefix", prefix);
        let country = table.required("country", |value| value.meaning(country));
        prefix.zip(country)
    })?
}

/// A prefix without host bits, of IPv4 or IPv6.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let Ok(net) = text.parse::<IpNet>() else {
        let whole = text.parse::<IpAddr>().map(IpNet::from);
        let like = whole.map_or_else(|_| "192.0.2.0/24".to_owned(), |whole| whole.to_string());
        return Err(format!("{text:?} is not a prefix; write it as \"{like}\""));
    };
    match net {
        _ if net.trunc() != net => Err(format!("{net} has bits behind its prefix; write {}", net.trunc())),
        // Client addresses are looked up as the IPv4 addresses inside.
        IpNet::V6(net) if net.prefix_len() >= 96 && net.addr().to_ipv4_mapped().is_some() => {
            Err(format!("{net} holds IPv4-mapped addresses; write the IPv4 prefix"))
        }
        net => Ok(net),
    }
}

/// A country by its code.
pub(super) fn country(text: &str) -> Result<Country, String> {
    Country::from_code(text)
        .ok_or_else(|| format!("{text:?} is not a country; write its ISO 3166-1 code in two capitals, such as \"IT\""))
}

/// `[policy]` alone; origin and state come from elsewhere.
pub(super) fn policy(table: &mut Table<'_>) -> load::Settings {
    table.not_yet("protected", "leave it out");
    let orders = |value: Value<'_>| value.text().map(|text| (!text.is_empty()).then(|| PathBuf::from(text)));
    let (approvals, keys) = approvals(table);
    load::Settings {
        approvals,
        keys,
        orders: table.optional("orders", orders).flatten(),
        hold_fallback: table.boolean("hold-fallback", true),
        sde_option: table.optional("sde-option", sde_option).flatten(),
        lists: table.optional("list", |value| value.each(list)).unwrap_or_default(),
        exemptions: table.optional("exemption", |value| value.each(|value, _| exemption(value))).unwrap_or_default(),
        ..load::Settings::default()
    }
}

fn sde_option(value: Value<'_>) -> Option<SdeOption> {
    let code = u16::try_from(value.number(SDE_OPTION)?).ok()?;
    if option::is_taken(code) {
        return value.refuse(format_args!("{code} is another option's code; write that of SDE, or 0 for none"));
    }
    Some(NonZeroU16::new(code))
}

/// How many approvals it takes, and whose count.
fn approvals(table: &mut Table<'_>) -> (usize, Vec<Key>) {
    // Of keys that are mistaken it is not known how many there are.
    let keys = |value: Value<'_>| Some(value.each(key));
    let keys = table.optional("key", keys).unwrap_or_else(|| Some(Vec::new()));
    let needed = |value: Value<'_>| {
        let needed = value.number(APPROVALS)?;
        match keys.as_ref().map(Vec::len) {
            Some(there) if there < needed as usize => {
                let s = if there == 1 { "" } else { "s" };
                value.refuse(format_args!("{needed}, and there are {there} [[policy.key]]{s}; add one for each person"))
            }
            _ => Some(needed),
        }
    };
    let needed = table.optional("approvals", needed).unwrap_or(APPROVALS.default);
    (needed as usize, keys.unwrap_or_default())
}

fn key(value: Value<'_>, earlier: &[Key]) -> Option<Key> {
    if earlier.len() == KEYS_MAX as usize {
        return value.refuse(format_args!("more than {KEYS_MAX} keys; take out those that sign no more"));
    }
    let name = |value: Value<'_>| {
        let name = value.meaning(|text| sign::check_name(text).map(|()| text.to_owned()))?;
        let twice = earlier.iter().any(|earlier| earlier.name == name);
        if twice { value.refuse(format_args!("{name:?} is the name of a key above; take another")) } else { Some(name) }
    };
    let public = |value: Value<'_>| {
        let public = value.meaning(PublicKey::from_text)?;
        match earlier.iter().find(|earlier| earlier.public.is_same_key(&public)) {
            Some(same) => value.refuse(format_args!("is the key of {:?} above; each person has one", same.name)),
            None => Some(public),
        }
    };
    value.table("[[policy.key]]", |table| {
        let name = table.required("name", name);
        let public = table.required("public", public);
        Some(Key { name: name?, public: public? })
    })?
}

fn list(value: Value<'_>, earlier: &[ListSettings]) -> Option<ListSettings> {
    let name = |value: Value<'_>| {
        let name = value.meaning(id)?;
        let twice = earlier.iter().any(|earlier| earlier.name == name);
        if twice {
            value.refuse(format_args!("{name:?} is the name of a list above; take another"))
        } else {
            Some(name)
        }
    };
    value.table("[[policy.list]]", |table| {
        let name = table.required("name", name);
        let file = table.required("file", Value::path);
        let format = table.required("format", |value| value.meaning(format));
        let covers = [("subtree", Covers::Subtree), ("exact", Covers::Exact)];
        let covers = table.required("covers", |value| value.choice(&covers));
        let effect = table.optional("effect", effect).unwrap_or(Effect::NxDomain);
        Some(ListSettings { name: name?, file: file?, format: format?, covers: covers?, effect })
    })?
}

fn id(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.len() <= ID_OCTETS_MAX;
    if fits && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} cannot be shown in answers and metrics; write 1 to {ID_OCTETS_MAX} letters, digits and hyphens"
    ))
}

fn format(text: &str) -> Result<Format, String> {
    let known = "write \"domains\" or \"hosts\"";
    match text {
        "adblock" | "rpz" => Err(format!("format {text:?} is not supported yet; {known}")),
        _ => Format::from_text(text).ok_or_else(|| format!("{text:?} is not a format; {known}")),
    }
}

fn effect(value: Value<'_>) -> Option<Effect> {
    if value.is_text() {
        let words = [("nxdomain", Effect::NxDomain), ("nodata", Effect::NoData), ("refused", Effect::Refused)];
        return value.choice(&words);
    }
    value.table("an effect by address", |table| {
        let a = table.optional("a", |value| value.meaning(|text| address(text, "an IPv4")));
        let aaaa = table.optional("aaaa", |value| value.meaning(|text| address(text, "an IPv6")));
        if !table.has_any(&["a", "aaaa"]) {
            table.refuse("no address in it; write { a = \"192.0.2.1\" }, with aaaa beside it or instead");
        }
        (a.is_some() || aaaa.is_some()).then_some(Effect::Address { a, aaaa })
    })?
}

fn address<T: std::str::FromStr>(text: &str, kind: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not {kind} address; correct it"))
}

fn exemption(value: Value<'_>) -> Option<Exemption> {
    value.table("[[policy.exemption]]", |table| {
        let name = table.required("name", |value| value.name().zip(Some(value.place())));
        let reason = table.required("reason", Value::words);
        let expires =
            table.optional("expires", |value| end(value.date()?).map_or_else(|what| value.refuse(what), Some));
        let overrides_order = table.optional("overrides-order", |value| value.meaning(id));
        let (name, place) = name?;
        Some(Exemption { name, reason: reason?, expires, overrides_order, place })
    })?
}

/// A date ends with that day in UTC; a time is one with an offset.
fn end(datetime: &Datetime) -> Result<Timestamp, String> {
    match (datetime.date, datetime.time, datetime.offset) {
        (Some(date), None, _) => {
            end_of_day(date).ok_or_else(|| format!("{datetime} is out of the calendar; write another"))
        }
        (Some(_), Some(_), Some(_)) => datetime
            .to_string()
            .parse()
            .map_err(|error| format!("{datetime} cannot be read: {error}; write it as 2027-01-31T12:00:00Z")),
        _ => Err(format!(
            "{datetime} is no moment; write a date, or a date and time with an offset (2027-01-31T12:00:00Z)"
        )),
    }
}

fn end_of_day(date: toml::value::Date) -> Option<Timestamp> {
    let day = Date::new(i16::try_from(date.year).ok()?, i8::try_from(date.month).ok()?, i8::try_from(date.day).ok()?);
    Some(day.ok()?.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::file::tests::{mistake, mistakes, read};
    use super::*;

    #[test]
    fn networks_are_prefixes_with_countries() {
        let networks = |networks: &str| mistake("origin", &format!("networks = [{networks}]"));
        assert!(networks("{ prefix = \"192.0.2.1/24\", country = \"IT\" }").contains("write 192.0.2.0/24"));
        assert!(networks("{ prefix = \"192.0.2.1\", country = \"IT\" }").contains("write it as \"192.0.2.1/32\""));
        assert!(networks("{ prefix = \"::ffff:192.0.2.0/120\", country = \"IT\" }").contains("IPv4-mapped"));
        assert!(networks("{ prefix = \"192.0.2.0/24\", country = \"it\" }").contains("two capitals"));
        assert!(networks("{ prefix = \"192.0.2.0/24\" }").contains("no `country`"));
        let twice = "{ prefix = \"192.0.2.0/24\", country = \"IT\" }, { prefix = \"192.0.2.0/24\", country = \"DE\" }";
        assert!(networks(twice).contains("192.0.2.0/24 is named twice"));
    }

    #[test]
    fn the_option_of_structured_errors_is_nobody_elses() {
        let found = |code: &str| read(&format!("[policy]\nsde-option = {code}")).unwrap().policy.sde_option;
        assert_eq!((found("0"), read("").unwrap().policy.sde_option), (None, None));
        assert_eq!((found("65001"), found("65_535")), (NonZeroU16::new(65_001), NonZeroU16::new(65_535)));
        for (code, what) in [
            ("15", "15 is another option's code; write that of SDE, or 0 for none"),
            ("12", "another option's"),
            ("65536", "out of bounds; it takes 0 to 65535"),
            ("-1", "out of bounds"),
            ("\"65001\"", "write a whole number"),
        ] {
            let said = mistake("policy", &format!("sde-option = {code}"));
            assert!(said.starts_with("a.toml:2:14: ") && said.contains(what), "{said}");
        }
    }

    #[test]
    fn lists_say_what_they_are() {
        let list = "[[policy.list]]\nname = \"a\"\nfile = \"a.txt\"\nformat = \"hosts\"\ncovers = \"exact\"\n";
        let found = read(&format!("{list}effect = {{ a = \"192.0.2.1\" }}")).unwrap().policy.lists;
        assert_eq!((found[0].format, found[0].covers), (Format::Hosts, Covers::Exact));
        assert_eq!(found[0].effect, Effect::Address { a: "192.0.2.1".parse().ok(), aaaa: None });
        let refused = |from: &str, to: &str| {
            let mut found = mistakes(&list.replace(from, to));
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0)
        };
        assert!(refused("covers = \"exact\"", "").contains("[[policy.list]]: no `covers`"));
        assert!(refused("format = \"hosts\"", "").contains("no `format`"));
        assert!(refused("\"hosts\"", "\"rpz\"").contains("not supported yet"));
        assert!(refused("\"hosts\"", "\"csv\"").contains("not a format"));
        assert!(refused("\"exact\"", "\"below\"").contains("\"subtree\" or \"exact\""));
        assert!(refused("\"a\"", "\"a_b\"").contains("letters, digits and hyphens"));
        assert!(mistakes(&format!("{list}{list}"))[0].contains("a list above"));
        for effect in ["{}", "{ a = \"::1\" }", "\"drop\"", "{ b = 1, a = \"192.0.2.1\" }", "7"] {
            assert_eq!(mistakes(&format!("{list}effect = {effect}")).len(), 1, "{effect}");
        }
    }

    #[test]
    fn each_person_has_a_key_and_there_are_enough_of_them() {
        let keys: [_; 2] = std::array::from_fn(|_| sign::SecretKey::make("a", None).unwrap().0.public());
        let key = |name: &str, public: &dyn std::fmt::Display| {
            format!("[[policy.key]]\nname = \"{name}\"\npublic = \"{public}\"\n")
        };
        let (anna, bert) = (key("anna", &keys[0]), key("bert", &keys[1]));
        let with = |approvals: u32, keys: &str| format!("[policy]\napprovals = {approvals}\n{keys}");
        let found = read(&with(2, &format!("{anna}{bert}"))).unwrap().policy;
        assert_eq!((found.approvals, &found.keys[1].name[..], &found.keys[1].public), (2, "bert", &keys[1]));
        assert_eq!(read(&anna).unwrap().policy.approvals, 0);
        let one = |text: String| {
            let mut found = mistakes(&text);
            assert_eq!(found.len(), 1, "{found:?}");
            found.remove(0)
        };
        for (text, what) in [
            (with(2, &anna), ":2:13: approvals: 2, and there are 1 [[policy.key]]"),
            (with(1, ""), ":2:13: approvals: 1, and there are 0 [[policy.key]]s"),
            (with(65, &anna), "is out of bounds"),
            (with(2, &format!("{anna}{}", key("anna", &keys[1]))), "is the name of a key above"),
            (with(2, &format!("{anna}{}", key("bert", &keys[0]))), "is the key of \"anna\" above"),
            (with(1, &key("a b", &keys[0])), "is no name of a key"),
            (with(1, &key("anna", &"RWQ")), "not a public key in minisign's format"),
            (with(1, "[[policy.key]]\nname = \"anna\"\n"), "no `public`"),
        ] {
            let mistake = one(text);
            assert!(mistake.contains(what), "{mistake}");
        }
        let many: String = (0..=KEYS_MAX)
            .map(|number| key(&format!("k{number}"), &sign::SecretKey::make("a", None).unwrap().0.public()))
            .collect();
        assert!(one(many).contains("more than 64 keys"));
    }

    #[test]
    fn exemptions_have_a_reason_and_an_end() {
        let exemption = "[[policy.exemption]]\nname = \"Example.org.\"\nreason = \"a\"\noverrides-order = \"b-1\"\n";
        let found =
            |expires: &str| read(&format!("{exemption}expires = {expires}")).unwrap().policy.exemptions.remove(0);
        let first = found("2027-12-31");
        assert_eq!(first.expires, "2028-01-01T00:00:00Z".parse().ok());
        assert_eq!((first.name.to_string().as_str(), first.place.1), ("example.org", 2));
        assert_eq!(first.overrides_order.as_deref(), Some("b-1"));
        assert_eq!(found("2027-12-31T01:00:00+02:00").expires, "2027-12-30T23:00:00Z".parse().ok());
        for expires in ["2027-12-31T01:00:00", "12:00:00", "\"2027-12-31\"", "9999-12-31"] {
            assert_eq!(mistakes(&format!("{exemption}expires = {expires}")).len(), 1, "{expires}");
        }
        assert!(mistakes(&exemption.replace("\"a\"", "\" \""))[0].contains("nothing in it"));
        assert!(mistakes(&exemption.replace("reason = \"a\"", ""))[0].contains("no `reason`"));
    }
}
