//! What a target is about: a name, a label, addresses or a list, or the words of what is wrong with it.

use std::net::IpAddr;

use ipnet::IpNet;
use toml::de::DeValue;

use super::ListTarget;
use super::reader::{Item, Meaning, Reader, is_a, quoted, string};
use super::value::{digest, text};
use crate::dns::{Name, special};
use crate::policy::index::Covers;
use crate::policy::list::Format;
use crate::policy::origin::inside::unmapped;

/// The longest name of a list's file, in octets: what Linux takes for a path (PATH_MAX).
const FILE_OCTETS_MAX: usize = 4096;

/// The keys of a list, as a mistake lists them.
const LIST_KEYS: &str = "file, format, covers, sha256";

/// The name of a target.
pub(super) fn name(value: &DeValue, covers: Covers) -> Meaning<Name> {
    let text = element(value, "name")?;
    let shown = quoted(text);
    refuse_address(text)?;
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

/// The label of `any-tld`: lower case, and an A-label where it was written in Unicode.
pub(super) fn label(value: &DeValue) -> Meaning<Box<str>> {
    let text = element(value, "label")?;
    let shown = quoted(text);
    refuse_address(text)?;
    let name = Name::from_text(text).map_err(|error| format!("{shown} is not a label: {error}"))?;
    // The dot may be one of those that UTS 46 takes for a dot, or the last.
    if name.labels() != 1 || text.ends_with('.') {
        return Err(format!("{shown} is more than one label; give the label alone, without a dot or what follows it"));
    }
    let written = str::from_utf8(name.label_from_root(1)).ok().filter(|_| is_host_name(&name));
    let wrong = || format!("{shown} is not a label; give the label alone, of letters, digits, hyphens and underscores");
    written.map(Into::into).ok_or_else(wrong)
}

/// A value of an array, which a mistake calls `what`.
fn element<'v>(value: &'v DeValue, what: &str) -> Meaning<&'v str> {
    value.as_str().ok_or_else(|| format!("the {what} {}", is_a(value, "a string in quotation marks")))
}

/// An address where a name belongs.
fn refuse_address(text: &str) -> Meaning<()> {
    if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        let shown = quoted(text);
        return Err(format!("{shown} is an address; write it as address = [{shown}]"));
    }
    Ok(())
}

/// Letters, digits, hyphens, and underscores, which are legal (RFC 2181 §11).
fn is_host_name(name: &Name) -> bool {
    let is_host = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    (1..=name.labels()).all(|depth| name.label_from_root(depth).iter().all(is_host))
}

/// A prefix without host bits, IPv4-mapped ones as the IPv4 prefix inside. An address is its host prefix.
pub(super) fn address(value: &DeValue) -> Meaning<IpNet> {
    let text = element(value, "address")?;
    let shown = quoted(text);
    let prefix = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
        format!("{shown} is not an address; it takes one such as \"192.0.2.1\", or a prefix such as \"192.0.2.0/24\"")
    })?;
    let prefix = unmapped(prefix);
    if prefix.prefix_len() == 0 {
        Err(format!("{shown} is all addresses of its family; name those that the order is about"))
    } else if prefix.trunc() != prefix {
        Err(format!("{shown} has bits behind its prefix; write \"{}\", or \"{}\"", prefix.trunc(), prefix.addr()))
    } else {
        Ok(prefix)
    }
}

const LIST_WANTED: &str = "a table such as { file = \"lists/a.txt\", format = \"domains\", covers = \"subtree\" }";

/// The list of a target. What it holds is read with the other lists.
pub(super) fn list(item: Option<Item>, reader: &mut Reader) -> Option<ListTarget> {
    let item = item?;
    let at = item.span();
    let mut keys = match item.into_inner() {
        DeValue::Table(keys) => keys,
        other => {
            reader.mistake(at, format!("`list` {}", is_a(&other, LIST_WANTED)));
            return None;
        }
    };
    let part = ("list", &at);
    let file = reader.part(keys.remove("file"), part, "file", "\"lists/a.txt\"", text::<FILE_OCTETS_MAX>);
    let format = reader.part(keys.remove("format"), part, "format", "\"domains\"", format);
    let covers = reader.part(keys.remove("covers"), part, "covers", "\"subtree\"", covers);
    let sha256 = reader.optional(keys.remove("sha256"), "sha256", digest);
    reader.refuse(keys, "a list has", LIST_KEYS);
    let line = reader.line(at.start);
    Some(ListTarget { file: file?.into(), format: format?, covers: covers?, sha256, line })
}

fn format(value: &DeValue) -> Meaning<Format> {
    let word = string(value)?;
    let known = "it takes \"domains\" or \"hosts\"";
    match word {
        "adblock" | "rpz" => Err(format!("is {}, which is not supported yet; {known}", quoted(word))),
        _ => Format::from_text(word).ok_or_else(|| format!("is {}; {known}", quoted(word))),
    }
}

fn covers(value: &DeValue) -> Meaning<Covers> {
    match string(value)? {
        "subtree" => Ok(Covers::Subtree),
        "exact" => Ok(Covers::Exact),
        word => Err(format!("is {}; it takes \"subtree\" or \"exact\"", quoted(word))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::super::Target;
    use super::super::file::tests::{MILAN, changed, mistakes, read_text};
    use super::*;
    use crate::digest::Digest;

    const NAMES: &str = "exact  = [\"_mirror.example\"]";

    /// The second target of the Milan order about this line instead of its name.
    fn about(line: &str) -> Target {
        read_text(&MILAN.replace(NAMES, line)).unwrap().targets[1].clone()
    }

    /// What is wrong with that line, at line 18.
    fn wrong(line: &str) -> String {
        changed(NAMES, line)
    }

    #[test]
    fn labels_are_kept_as_a_labels_in_lower_case() {
        let longest = "x".repeat(63);
        for (written, meant) in [
            ("ilcorsaronero", "ilcorsaronero"),
            ("IlCorsaroNero", "ilcorsaronero"),
            ("B\u{fc}cher", "xn--bcher-kva"),
            ("XN--BCHER-KVA", "xn--bcher-kva"),
            ("kino_hd", "kino_hd"),
            ("_dmarc", "_dmarc"),
            ("1337x", "1337x"),
            ("com", "com"),
            ("localhost", "localhost"),
            (&longest, &longest),
        ] {
            assert_eq!(about(&format!("any-tld = ['{written}']")).labels, [(meant.into(), 18)], "{written}");
        }
        let twice = about("any-tld = ['a', 'A']").labels;
        assert_eq!(twice, [("a".into(), 18), ("a".into(), 18)], "no mistake");
    }

    #[test]
    fn what_is_not_one_label_is_a_mistake_at_its_place() {
        let alone = "is not a label; give the label alone, of letters, digits, hyphens and underscores";
        let more = "is more than one label; give the label alone, without a dot or what follows it";
        for (label, what) in [
            ("a.example", more),
            ("a.", more),
            ("a\u{3002}b", more),
            (".", more),
            ("*", alone),
            ("a*", alone),
            ("a/b", alone),
            ("a\\.b", alone),
            ("a\\032b", alone),
            (".a", "is not a label: empty label"),
            ("", "is not a label: empty label"),
            ("a b", "is not a label: character that cannot stand in a name"),
            ("a\u{fc}\u{200e}", "is not a label: not a valid international name"),
            ("192.0.2.1", "is an address; write it as address = [\"192.0.2.1\"]"),
        ] {
            let found = wrong(&format!("any-tld = ['fine', '{label}']"));
            assert_eq!(found, format!("18:20: {} {what}", quoted(label)), "{label}");
        }
        assert!(wrong(&format!("any-tld = ['{}']", "x".repeat(64))).ends_with("label longer than 63 octets"));
        assert!(wrong(&format!("any-tld = ['{}']", "\u{fc}".repeat(63))).contains("is not a label: "));
        assert_eq!(wrong("any-tld = [7]"), "18:12: the label is an integer; it takes a string in quotation marks");
        assert!(wrong("any-tld = 'a'").starts_with("18:11: `any-tld` is a string; it takes an array of labels"));
        assert!(wrong("any-tld = []").starts_with("18:11: `any-tld` is empty; it takes an array of labels"));
    }

    #[test]
    fn addresses_are_prefixes_without_host_bits() {
        for (written, meant) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("192.0.2.1/32", "192.0.2.1/32"),
            ("0.0.0.0/1", "0.0.0.0/1"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("::/1", "::/1"),
            ("::ffff:192.0.2.1", "192.0.2.1/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:c000:200/120", "192.0.2.0/24"),
            ("::ffff:0.0.0.0/97", "0.0.0.0/1"),
        ] {
            let meant: IpNet = meant.parse().unwrap();
            assert_eq!(about(&format!("address = ['{written}']")).addresses, [(meant, 18)], "{written}");
        }
    }

    #[test]
    fn what_is_not_an_address_says_what_to_write() {
        let bits = |prefix, address| format!("has bits behind its prefix; write \"{prefix}\", or \"{address}\"");
        let all = "is all addresses of its family; name those that the order is about".to_owned();
        let none =
            "is not an address; it takes one such as \"192.0.2.1\", or a prefix such as \"192.0.2.0/24\"".to_owned();
        for (address, what) in [
            ("192.0.2.1/24", bits("192.0.2.0/24", "192.0.2.1")),
            ("2001:db8::1/32", bits("2001:db8::/32", "2001:db8::1")),
            ("::ffff:192.0.2.1/120", bits("192.0.2.0/24", "192.0.2.1")),
            ("0.0.0.0/0", all.clone()),
            ("192.0.2.1/0", all.clone()),
            ("::/0", all.clone()),
            ("::ffff:0:0/96", all),
            ("192.0.2.1/33", none.clone()),
            ("192.0.2", none.clone()),
            ("192.0.2.256", none.clone()),
            ("fe80::1%eth0", none.clone()),
            ("a.example", none.clone()),
            ("", none),
        ] {
            let found = wrong(&format!("address = ['203.0.113.1', '{address}']"));
            assert_eq!(found, format!("18:27: \"{address}\" {what}"), "{address}");
        }
        assert!(wrong("address = '192.0.2.1'").starts_with("18:11: `address` is a string; it takes an array of addr"));
        assert!(wrong("address = []").starts_with("18:11: `address` is empty; it takes an array of addresses"));
        assert_eq!(wrong("address = [1]"), "18:12: the address is an integer; it takes a string in quotation marks");
    }

    #[test]
    fn a_list_is_a_file_with_its_format_and_what_it_covers() {
        let digest = Digest::of(b"a");
        let list = about(&format!(
            "list = {{ file = 'lists/agcom.txt', format = 'domains', covers = 'subtree', sha256 = '{digest}' }}"
        ));
        let (format, covers) = (Format::Domains, Covers::Subtree);
        let file = Path::new("lists/agcom.txt").to_owned();
        assert_eq!(list.list, Some(ListTarget { file, format, covers, sha256: Some(digest), line: 18 }));
        let hosts = about("list.file = 'a'\nlist.format = 'hosts'\nlist.covers = 'exact'").list.unwrap();
        assert_eq!((hosts.format, hosts.covers, hosts.sha256), (Format::Hosts, Covers::Exact, None));
    }

    #[test]
    fn what_a_list_must_say_is_asked_for() {
        let of = |list: &str| {
            let found = mistakes(&MILAN.replace(NAMES, &format!("list = {list}")));
            found.iter().map(|line| line.replace("orders/milan.toml:", "")).collect::<Vec<_>>()
        };
        assert_eq!(
            of("{}"),
            [
                "18:8: `list` has no `file`; give it one such as file = \"lists/a.txt\"",
                "18:8: `list` has no `format`; give it one such as format = \"domains\"",
                "18:8: `list` has no `covers`; give it one such as covers = \"subtree\"",
            ]
        );
        assert_eq!(
            of("{ file = '', format = 'rpz', covers = 'all', sha256 = 'ab', name = 'x' }"),
            [
                "18:17: `file` is empty; fill it in",
                "18:30: `format` is \"rpz\", which is not supported yet; it takes \"domains\" or \"hosts\"",
                "18:46: `covers` is \"all\"; it takes \"subtree\" or \"exact\"",
                "18:62: `sha256` is \"ab\"; it takes 64 hexadecimal digits",
                "18:68: unknown key \"name\"; a list has file, format, covers, sha256",
            ]
        );
        let adblock = of("{ file = 'a', format = 'adblock', covers = 'exact' }");
        assert!(adblock[0].contains("\"adblock\", which is not supported yet"), "{adblock:?}");
        assert!(of("{ file = 'a', format = 'csv', covers = 'exact' }")[0].contains("`format` is \"csv\"; it takes"));
        let text = of("'lists/a.txt'");
        assert!(text[0].starts_with("18:8: `list` is a string; it takes a table such as { file ="), "{text:?}");
        assert!(of("[{ file = 'a' }]")[0].starts_with("18:8: `list` is an array; it takes a table"));
    }

    #[test]
    fn a_target_is_about_something_of_any_kind() {
        for line in
            ["any-tld = ['a']", "address = ['192.0.2.1']", "list = { file = 'a', format = 'hosts', covers = 'exact' }"]
        {
            assert!(about(line).names.is_empty());
        }
        let nothing = "17:1: a [[target]] that is about nothing; it takes subtree, exact, any-tld, address or list";
        assert_eq!(wrong(""), nothing);
        for key in ["received", "state", "interval"] {
            let keys = "subtree, exact, any-tld, address, list, added, source, due, effective, expires";
            let what = format!("19:1: unknown key \"{key}\"; a target has {keys}");
            assert_eq!(wrong(&format!("{NAMES}\n{key} = 1")), what);
        }
    }
}
