//! The order file as written, with spans → [`Order`], or every mistake at file:line:column.
//!
//! serde would stop at the first value of a wrong type; the table that `toml` parses keeps every key and value with its
//! place, so that one reading finds them all.

use std::path::Path;

use toml::de::DeTable;

use super::reader::{Item, Reader};
use super::target::targets;
use super::time::day;
use super::value::{
    ISSUER_OCTETS_MAX, REFERENCE_OCTETS_MAX, blocks_unknown_origin, boolean, contact, document, effect, id,
    jurisdiction, language, lumen, state, text, web_address,
};
use super::{Order, dates};
use crate::mistake::Mistake;

/// The keys of an order, as a mistake lists them.
const ORDER_KEYS: &str = "id, issuer, reference, jurisdiction, received, due, effective, expires, state, effect, \
                          unknown-origin, about, contact, language, lumen, document, public, reinstated, \
                          [[interval]], [[target]]";

/// Reads an order file; see [`Order::read`].
pub(super) fn read(file: &Path, text: &str) -> Result<Order, Vec<Mistake>> {
    let mut reader = Reader::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        reader.mistake(error.span().unwrap_or(0..0), error.message().replace('\n', " "));
    }
    // Where the syntax is broken, what is missing or odd is as likely the parser's guess as the writer's mistake.
    if !errors.is_empty() {
        return Err(reader.into_mistakes());
    }
    let written = Written::of(table.into_inner(), &mut reader);
    match written.order(&mut reader) {
        Some(order) if reader.mistakes.is_empty() => Ok(order),
        _ => Err(reader.into_mistakes()),
    }
}

/// An order as it was written: the value of each key, if it is there, nothing of it understood yet.
struct Written<'t> {
    id: Option<Item<'t>>,
    issuer: Option<Item<'t>>,
    reference: Option<Item<'t>>,
    jurisdiction: Option<Item<'t>>,
    dates: dates::Written<'t>,
    state: Option<Item<'t>>,
    effect: Option<Item<'t>>,
    unknown_origin: Option<Item<'t>>,
    about: Option<Item<'t>>,
    contact: Option<Item<'t>>,
    language: Option<Item<'t>>,
    lumen: Option<Item<'t>>,
    document: Option<Item<'t>>,
    public: Option<Item<'t>>,
    reinstated: Option<Item<'t>>,
    target: Option<Item<'t>>,
}

impl<'t> Written<'t> {
    /// Takes the known keys; each that is left is a mistake.
    fn of(mut keys: DeTable<'t>, reader: &mut Reader) -> Self {
        let written = Self {
            id: keys.remove("id"),
            issuer: keys.remove("issuer"),
            reference: keys.remove("reference"),
            jurisdiction: keys.remove("jurisdiction"),
            dates: dates::Written::of(&mut keys),
            state: keys.remove("state"),
            effect: keys.remove("effect"),
            unknown_origin: keys.remove("unknown-origin"),
            about: keys.remove("about"),
            contact: keys.remove("contact"),
            language: keys.remove("language"),
            lumen: keys.remove("lumen"),
            document: keys.remove("document"),
            public: keys.remove("public"),
            reinstated: keys.remove("reinstated"),
            target: keys.remove("target"),
        };
        reader.refuse(keys, "an order has", ORDER_KEYS);
        written
    }

    /// The order that was meant. Each value is read before any counts, so that all mistakes are found; None or with
    /// mistakes in `reader`: there is no order.
    fn order(self, reader: &mut Reader) -> Option<Order> {
        let id = reader.required(self.id, "id", "\"it-milan-2022-torrents\"", id);
        let issuer = reader.required(self.issuer, "issuer", "\"Tribunale di Milano\"", text::<ISSUER_OCTETS_MAX>);
        let reference = reader.optional(self.reference, "reference", text::<REFERENCE_OCTETS_MAX>);
        let jurisdiction = jurisdiction(self.jurisdiction, reader);
        let dates = self.dates.dates(reader);
        let state = reader.required(self.state, "state", "\"in-force\"", state);
        let effect = effect(self.effect, reader);
        let blocks_unknown_origin = reader.optional(self.unknown_origin, "unknown-origin", blocks_unknown_origin);
        let about = reader.optional(self.about, "about", web_address);
        let contact = reader.optional(self.contact, "contact", contact);
        let language = reader.optional(self.language, "language", language);
        let lumen = reader.optional(self.lumen, "lumen", lumen);
        let document = document(self.document, reader);
        let public = reader.optional(self.public, "public", boolean);
        let reinstated = reader.optional(self.reinstated, "reinstated", day);
        let targets = targets(self.target, &dates, reader);
        Some(Order {
            id: id?,
            issuer: issuer?,
            reference,
            jurisdiction: jurisdiction?,
            received: dates.received?,
            due: dates.due,
            effective: dates.effective,
            expires: dates.expires,
            state: state?,
            effect: effect?,
            blocks_unknown_origin: blocks_unknown_origin.unwrap_or(false),
            about,
            contact,
            language,
            lumen,
            document,
            public: public.unwrap_or(false),
            reinstated,
            intervals: dates.intervals,
            targets: targets?,
            file: reader.file.to_owned(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(super) mod tests {
    use super::super::value::EFFECT_WANTED;
    use super::*;
    use crate::dns::Name;
    use crate::mistake::MISTAKES_MAX;
    use crate::policy::index::Covers;
    use crate::policy::list::Format;
    use crate::policy::order::{Effect, Jurisdiction, State};
    use crate::policy::origin::Country;

    /// The order of the design, in which tests change one thing.
    pub(in super::super) const MILAN: &str = r#"id           = "it-milan-2022-torrents"
issuer       = "Tribunale di Milano"
reference    = "ordinanza cautelare, luglio 2022"
jurisdiction = ["IT"]
received     = 2022-07-18T09:00:00+02:00
due          = 2022-08-17T23:59:59+02:00
state        = "in-force"
about        = "https://court.example/orders/1"
contact      = "mailto:legal@resolver.example"

[[target]]
subtree = [
    "kickasstorrents.to",
    "limetorrents.pro", "Bücher.example.",
]

[[target]]
exact  = ["_mirror.example"]
added  = 2022-09-01
source = "claimant's notice of 30 August 2022"
"#;

    pub(in super::super) fn read_text(text: &str) -> Result<Order, Vec<Mistake>> {
        read(Path::new("orders/milan.toml"), text)
    }

    /// The mistakes of a file, one line each.
    pub(in super::super) fn mistakes(text: &str) -> Vec<String> {
        read_text(text).unwrap_err().iter().map(Mistake::to_string).collect()
    }

    /// The one mistake of the Milan order with `from` replaced by `to`, its file left out.
    pub(in super::super) fn changed(from: &str, to: &str) -> String {
        assert!(MILAN.contains(from), "{from}");
        let all = mistakes(&MILAN.replace(from, to));
        assert_eq!(all.len(), 1, "{to}: {all:#?}");
        all[0].strip_prefix("orders/milan.toml:").unwrap().to_owned()
    }

    /// The Milan order with a line added at its head.
    pub(in super::super) fn with(line: &str) -> Order {
        read_text(&format!("{line}\n{MILAN}")).unwrap()
    }

    /// The one mistake of the Milan order with a line added at its head.
    pub(in super::super) fn refused(line: &str) -> String {
        changed("id   ", &format!("{line}\nid   "))
    }

    fn name_of(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    #[test]
    fn an_order_is_read_whole() {
        let order = read_text(MILAN).unwrap();
        assert_eq!(order.id, "it-milan-2022-torrents");
        assert_eq!(order.issuer, "Tribunale di Milano");
        assert_eq!(order.reference.as_deref(), Some("ordinanza cautelare, luglio 2022"));
        assert_eq!(order.jurisdiction, Jurisdiction::Countries(vec![Country::from_code("IT").unwrap()]));
        assert_eq!(order.received.to_string(), "2022-07-18T07:00:00Z");
        assert_eq!(order.due.unwrap().to_string(), "2022-08-17T21:59:59Z");
        assert_eq!((order.effective, order.expires), (None, None));
        assert_eq!(order.state, State::InForce);
        assert_eq!(order.effect, Effect::NxDomain);
        assert!(!order.blocks_unknown_origin);
        assert_eq!(order.about.as_deref(), Some("https://court.example/orders/1"));
        assert_eq!(order.contact.as_deref(), Some("mailto:legal@resolver.example"));
        assert_eq!(order.file, Path::new("orders/milan.toml"));
        let [first, addendum] = &order.targets[..] else { panic!("{:?}", order.targets) };
        assert_eq!(
            first.names,
            [
                (name_of("kickasstorrents.to"), Covers::Subtree, 13),
                (name_of("limetorrents.pro"), Covers::Subtree, 14),
                (name_of("xn--bcher-kva.example"), Covers::Subtree, 14),
            ]
        );
        assert_eq!((first.added, &first.source), (None, &None));
        assert_eq!(addendum.names, [(name_of("_mirror.example"), Covers::Exact, 18)]);
        assert_eq!(addendum.added.unwrap().to_string(), "2022-09-01");
        assert_eq!(addendum.source.as_deref(), Some("claimant's notice of 30 August 2022"));
    }

    #[test]
    fn all_mistakes_are_reported_at_once_each_at_its_place() {
        let text = r#"id = "it/1"
isuer = "Tribunale di Milano"
jurisdiction = ["it"]
received = 2022-07-18
state = "in-force"

[[target]]
subtree = ["fine.example", "not..fine", "com"]
"#;
        assert_eq!(
            mistakes(text),
            [
                "orders/milan.toml:1:1: `issuer` is missing; add a line such as issuer = \"Tribunale di Milano\"",
                "orders/milan.toml:1:6: `id` is \"it/1\"; it takes letters, digits and hyphens only",
                "orders/milan.toml:2:1: unknown key \"isuer\"; an order has id, issuer, reference, jurisdiction, \
                 received, due, effective, expires, state, effect, unknown-origin, about, contact, language, lumen, \
                 document, public, reinstated, [[interval]], [[target]]",
                "orders/milan.toml:3:17: `jurisdiction` holds \"it\"; codes are upper case, \"IT\"",
                "orders/milan.toml:4:12: `received` is a date alone; give it a time and an offset, \
                 e.g. 2022-07-18T23:59:59Z or 2022-07-18T23:59:59+02:00",
                "orders/milan.toml:8:28: \"not..fine\" is not a name: empty label",
                "orders/milan.toml:8:41: \"com\" is a whole top-level domain; name the site",
            ]
        );
    }

    #[test]
    fn a_column_counts_characters() {
        let what = "\"b..a\" is not a name: empty label";
        assert_eq!(changed(r#""Bücher.example.","#, r#""bücher.example", "b..a""#), format!("14:43: {what}"));
    }

    #[test]
    fn what_is_required_must_be_there() {
        assert_eq!(
            mistakes(""),
            [
                "`id` is missing; add a line such as id = \"it-milan-2022-torrents\"",
                "`issuer` is missing; add a line such as issuer = \"Tribunale di Milano\"",
                "`jurisdiction` is missing; add a line such as jurisdiction = [\"IT\"]",
                "`received` is missing; add a line such as received = 2022-07-18T09:00:00+02:00",
                "`state` is missing; add a line such as state = \"in-force\"",
                "`[[target]]` is missing; add one with the names that the order is about",
            ]
            .map(|what| format!("orders/milan.toml:1:1: {what}"))
        );
    }

    #[test]
    fn broken_syntax_is_shown_alone() {
        let found = mistakes("id = \nissuer = [1\nstate = \"in-force\"\n");
        assert!(found[0].starts_with("orders/milan.toml:1:"), "{found:?}");
        assert!(!found.iter().any(|mistake| mistake.contains("missing; add")), "{found:?}");
        assert!(changed("issuer   ", "id = 'x'\nissuer   ").starts_with("2:1: duplicate key"));
    }

    #[test]
    fn a_value_of_another_type_says_what_it_is() {
        assert_eq!(changed("\"in-force\"", "1"), "7:16: `state` is an integer; it takes a string in quotation marks");
        assert_eq!(
            changed("[\"IT\"]", "\"IT\""),
            "4:16: `jurisdiction` is a string; it takes an array of country codes such as [\"IT\"], or [\"*\"] for everywhere"
        );
        assert_eq!(
            changed("2022-07-18T09:00:00+02:00", "\"2022-07-18T09:00:00+02:00\""),
            "5:16: `received` is a string; it takes a date without quotation marks, such as 2022-07-18T09:00:00+02:00"
        );
        assert_eq!(
            changed("[\"_mirror.example\"]", "\"_mirror.example\""),
            "18:10: `exact` is a string; it takes an array of names such as [\"site.example\"]"
        );
        assert_eq!(
            changed("\"_mirror.example\"", "7"),
            "18:11: the name is an integer; it takes a string in quotation marks"
        );
    }

    #[test]
    fn an_id_is_letters_digits_and_hyphens() {
        let set = |id: &str| MILAN.replace("it-milan-2022-torrents", id);
        for id in ["a", "A-9", "-", &"x".repeat(64)] {
            assert_eq!(read_text(&set(id)).unwrap().id, id);
        }
        for id in ["a_b", "a b", "../a", "é", "a.b", "a/b"] {
            assert!(mistakes(&set(id))[0].contains("letters, digits and hyphens only"), "{id}");
        }
        let what = "1:16: `id` has 65 octets; at most 64 are allowed";
        assert_eq!(changed("it-milan-2022-torrents", &"x".repeat(65)), what);
        assert_eq!(changed("\"it-milan-2022-torrents\"", "\"\""), "1:16: `id` is empty; fill it in");
    }

    #[test]
    fn text_that_is_sent_holds_no_control_character_and_has_a_bound() {
        assert_eq!(changed("Tribunale di Milano", "  "), "2:16: `issuer` is empty; fill it in");
        assert_eq!(
            changed("Tribunale di", "Tribunale\\u001b di"),
            "2:16: `issuer` holds the control character U+001B; take it out"
        );
        for (from, to) in [("Tribunale", "\\nT"), ("ordinanza", "\\u0000o"), ("Milano", "\\u202eM")] {
            assert!(changed(from, to).contains("control character"), "{to:?}");
        }
        assert!(read_text(&MILAN.replace("Tribunale di Milano", &"x".repeat(ISSUER_OCTETS_MAX))).is_ok());
        assert_eq!(
            changed("Tribunale di Milano", &"é".repeat(101)),
            "2:16: `issuer` has 202 octets; at most 200 are allowed"
        );
        assert!(changed("ordinanza", &"x".repeat(201)).contains("`reference` has"));
        assert!(changed("orders/1", &"x".repeat(300)).contains("`about` has"));
    }

    #[test]
    fn a_mistake_does_not_pass_control_characters_on() {
        let what = changed("in-force", "a\\u001b[2J\\u202e");
        assert!(what.contains("\"a\\u{1b}[2J\\u{202e}\""), "{what}");
        let what = changed("in-force", &"x".repeat(100));
        assert!(what.contains(&format!("\"{}…\"", "x".repeat(60))), "{what}");
    }

    #[test]
    fn times_have_an_offset() {
        assert_eq!(
            changed("2022-07-18T09:00:00+02:00", "2022-07-18T09:00:00"),
            "5:16: `received` has no offset; give it one, e.g. 2022-07-18T09:00:00Z or 2022-07-18T09:00:00+02:00"
        );
        for key in ["effective", "expires"] {
            assert_eq!(
                refused(&format!("{key} = 2030-01-01")),
                format!(
                    "1:{}: `{key}` is a date alone; give it a time and an offset, \
                     e.g. 2030-01-01T23:59:59Z or 2030-01-01T23:59:59+02:00",
                    key.len() + 4
                )
            );
        }
        assert!(changed("2022-08-17T23:59:59+02:00", "23:59:59").contains("`due` is a time alone; give it a date"));
        for (written, meant) in [
            ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
            ("2030-01-01 00:00:00z", "2030-01-01T00:00:00Z"),
            ("2030-01-01T00:00:00.25-11:30", "2030-01-01T11:30:00.25Z"),
            ("2030-01-01T00:00:00-00:00", "2030-01-01T00:00:00Z"),
        ] {
            assert_eq!(with(&format!("expires = {written}")).expires.unwrap().to_string(), meant);
        }
        assert!(refused("expires = 9999-12-31T23:59:59-12:00").contains("a moment that does not exist"));
    }

    #[test]
    fn an_order_ends_after_it_begins() {
        let never = |key: &str| format!("1:11: `expires` is not after `{key}`; the order would never be in force");
        assert_eq!(refused("expires = 2022-07-18T09:00:00+02:00"), never("received"));
        assert!(with("expires = 2022-07-18T09:00:01+02:00").expires.is_some());
        let effective = "effective = 2023-01-01T00:00:00Z";
        assert_eq!(refused(&format!("expires = 2023-01-01T00:00:00Z\n{effective}")), never("effective"));
        assert!(with(&format!("expires = 2023-01-01T00:00:01Z\n{effective}")).effective.is_some());
    }

    #[test]
    fn states_are_those_of_a_file() {
        for state in State::ALL {
            assert_eq!(read_text(&MILAN.replace("in-force", state.as_str())).unwrap().state, state);
        }
        let words = "\"draft\", \"trial\", \"in-force\", \"suspended\", \"lifted\"";
        for word in ["pending", "In-Force", "expired", ""] {
            assert_eq!(changed("in-force", word), format!("7:16: `state` is \"{word}\"; it takes one of {words}"));
        }
    }

    #[test]
    fn effects_are_words_or_addresses() {
        assert_eq!(with("effect = 'nxdomain'").effect, Effect::NxDomain);
        assert_eq!(with("effect = 'nodata'").effect, Effect::NoData);
        assert_eq!(with("effect = 'refused'").effect, Effect::Refused);
        let (a, aaaa) = ("192.0.2.1".parse().ok(), "2001:db8::1".parse().ok());
        let both = with("effect = { a = '192.0.2.1', aaaa = '2001:db8::1' }");
        assert_eq!(both.effect, Effect::Address { a, aaaa });
        assert_eq!(with("effect = { a = '192.0.2.1' }").effect, Effect::Address { a, aaaa: None });
        assert_eq!(with("effect.aaaa = '2001:db8::1'").effect, Effect::Address { a: None, aaaa });
        let wanted = EFFECT_WANTED;
        assert_eq!(refused("effect = 'drop'"), format!("1:10: `effect` is \"drop\"; it takes {wanted}"));
        assert_eq!(refused("effect = 3"), format!("1:10: `effect` is an integer; it takes {wanted}"));
        assert_eq!(refused("effect = {}"), format!("1:10: `effect` has no address; it takes {wanted}"));
        assert_eq!(
            refused("effect = { a = '2001:db8::1' }"),
            "1:16: `a` is \"2001:db8::1\"; it takes an IPv4 address such as \"192.0.2.1\""
        );
        assert_eq!(
            refused("effect = { a = '192.0.2.1', ttl = 3 }"),
            "1:29: unknown key \"ttl\"; an address effect has a, aaaa"
        );
    }

    #[test]
    fn unknown_origin_is_spared_unless_said() {
        assert!(!with("unknown-origin = 'spare'").blocks_unknown_origin);
        assert!(with("unknown-origin = 'block'").blocks_unknown_origin);
        assert_eq!(
            refused("unknown-origin = 'Block'"),
            "1:18: `unknown-origin` is \"Block\"; it takes \"spare\" or \"block\""
        );
    }

    #[test]
    fn jurisdiction_is_assigned_codes_or_everywhere() {
        let set = |codes: &str| read_text(&MILAN.replace("[\"IT\"]", codes)).unwrap().jurisdiction;
        assert_eq!(set("['*']"), Jurisdiction::Everywhere);
        assert_eq!(set("['IT', 'DE', 'IT']").codes(), ["IT", "DE"]);
        let refused = |codes: &str| changed("[\"IT\"]", codes);
        assert!(refused("[]").starts_with("4:16: `jurisdiction` is empty; it takes an array"));
        assert_eq!(refused("['IT', '*']"), "4:23: \"*\" is everywhere; it stands alone, or not at all");
        assert!(refused("['UK']").contains("the United Kingdom's code is \"GB\""));
        assert!(refused("['EU']").contains("name the member states"));
        assert!(refused("['IT', 'XX']").starts_with("4:23: `jurisdiction` holds \"XX\"; it takes assigned"));
        assert!(refused("[39]").contains("`jurisdiction` is an integer"));
    }

    #[test]
    fn addresses_for_people_are_uris() {
        for about in ["http://court.example", "HTTPS://court.example/a?b=c#d", "https://[2001:db8::1]/"] {
            assert_eq!(
                read_text(&MILAN.replace("https://court.example/orders/1", about)).unwrap().about.unwrap(),
                about
            );
        }
        for about in ["ftp://court.example", "court.example", "https://", "https:///x", "javascript:alert(1)"] {
            assert!(
                changed("https://court.example/orders/1", about).contains("it takes an address such as"),
                "{about}"
            );
        }
        assert!(changed("orders/1", "a b").contains("holds ' ', which no address can"));
        assert!(changed("orders/1", "…").contains("holds '…'"));
        assert!(read_text(&MILAN.replace("mailto:legal@resolver.example", "tel:+390255501")).is_ok());
        for contact in ["legal@resolver.example", "mailto:", "mailto:@", "mailto:x", "tel:", "https://a.example"] {
            assert!(changed("mailto:legal@resolver.example", contact).contains("it takes mailto:"), "{contact}");
        }
    }

    #[test]
    fn a_document_has_a_digest_and_a_place() {
        let digest = "0123456789abcdefABCDEF0123456789".repeat(2);
        let document = with(&format!("document = {{ sha256 = '{digest}', location = 'safe 3' }}")).document.unwrap();
        assert_eq!((document.sha256.to_string(), &document.location[..]), (digest.to_lowercase(), "safe 3"));
        assert!(refused("document = { sha256 = 'abc', location = 'safe 3' }").starts_with("1:23: `sha256` is \"abc\""));
        assert!(refused(&format!("document = {{ sha256 = '{digest}' }}")).contains("`document` has no `location`"));
        assert!(refused("document = 'safe 3'").contains("`document` takes a table"));
        let more = format!("document = {{ sha256 = '{digest}', location = 'x', pages = 3 }}");
        assert!(refused(&more).contains("unknown key \"pages\"; a document has sha256, location"));
    }

    #[test]
    fn there_is_a_target_and_each_has_a_name() {
        let head = MILAN.split("[[target]]").next().unwrap();
        let only = |targets: &str| {
            let found = mistakes(&format!("{head}{targets}"));
            assert_eq!(found.len(), 1, "{found:?}");
            found[0].clone()
        };
        assert!(only("").contains("`[[target]]` is missing"));
        assert!(only("target = []").contains("11:10: `target` is empty"));
        assert!(only("[target]\nsubtree = ['a.example']").contains("11:1: `target` is one table; write [[target]]"));
        assert!(only("target = ['a.example']").contains("11:11: `target` holds something else than a table"));
        assert!(only("[[target]]\nadded = 2022-09-01").contains("11:1: a [[target]] that is about nothing; it takes"));
        assert!(only("[[target]]\nsubtree = []").contains("12:11: `subtree` is empty"));
        assert!(
            only("[[target]]\nsubtre = ['a.example']\nexact = ['b.example']").contains("12:1: unknown key \"subtre\"")
        );
    }

    #[test]
    fn an_addendum_has_a_day() {
        assert!(changed("2022-09-01", "2022-09-01T00:00:00Z").contains("it takes the date alone, 2022-09-01"));
        assert!(changed("2022-09-01", "'x'").contains("a date without quotation marks, such as 2022-09-01"));
        assert!(changed("2022-09-01", "10:00:00").contains("`added` is a time alone"));
    }

    #[test]
    fn a_language_is_a_tag() {
        for tag in ["it", "en", "de-CH", "zh-Hans-CN", "sl-rozaj-biske-1994", "gsw", "en-a-myext"] {
            assert_eq!(with(&format!("language = '{tag}'")).language.as_deref(), Some(tag));
        }
        for tag in ["i", "it_IT", "italianissimo", "it-", "-it", "it--IT", "de-1", "42", "x-klingon", "n\u{e9}"] {
            let what = format!("1:12: `language` is \"{tag}\"; it takes a language tag such as \"it\" or \"de-CH\"");
            assert_eq!(refused(&format!("language = '{tag}'")), what);
        }
        assert!(with(&format!("language = 'de{}'", "-abcdefg-1".repeat(3) + "234")).language.is_some(), "35 octets");
        assert!(refused(&format!("language = 'de{}'", "-abcdefg-1".repeat(3) + "2345")).contains("at most 35"));
        assert!(refused("language = ['it']").contains("`language` is an array; it takes a string"));
    }

    #[test]
    fn a_lumen_notice_is_known_by_its_id() {
        assert_eq!(with("lumen = '28510413'").lumen.as_deref(), Some("28510413"));
        assert_eq!(with(&format!("lumen = '{}'", "x-9".repeat(21))).lumen.unwrap().len(), 63);
        assert!(refused("lumen = 'https://lumendatabase.org/notices/1'").contains("it takes the notice's id alone"));
        assert!(refused(&format!("lumen = '{}'", "1".repeat(65))).contains("at most 64"));
        assert_eq!(refused("lumen = 28510413"), "1:9: `lumen` is an integer; it takes a string in quotation marks");
        assert_eq!(refused("lumen = ''"), "1:9: `lumen` is empty; fill it in");
    }

    #[test]
    fn an_order_is_public_where_it_says_so() {
        assert!(!read_text(MILAN).unwrap().public);
        assert!(with("public = true").public);
        assert!(!with("public = false").public);
        let what = "1:10: `public` is a string; it takes true or false, without quotation marks";
        assert_eq!(refused("public = 'yes'"), what);
    }

    #[test]
    fn a_reinstated_order_has_the_day() {
        assert_eq!(read_text(MILAN).unwrap().reinstated, None);
        assert_eq!(with("reinstated = 2023-02-01").reinstated.unwrap().to_string(), "2023-02-01");
        assert!(refused("reinstated = true").starts_with("1:14: `reinstated` is a boolean; it takes a date"));
        assert!(refused("reinstated = 2023-02-01T00:00:00Z").contains("it takes the date alone, 2023-02-01"));
    }

    /// An order with every key there is.
    pub(in super::super) const WHOLE: &str = r#"id = "it-2022-7"
issuer = "Tribunale di Milano"
reference = "R.G. 7/2022"
jurisdiction = ["IT", "SM"]
received = 2022-07-18T09:00:00+02:00
due = 2022-08-17T23:59:59+02:00
effective = 2022-08-01T00:00:00+02:00
expires = 2027-08-01T00:00:00+02:00
state = "in-force"
effect = { a = "192.0.2.80", aaaa = "2001:db8::80" }
unknown-origin = "block"
about = "https://court.example/orders/1"
contact = "mailto:legal@resolver.example"
language = "it"
lumen = "28510413"
document = { sha256 = "0123456789abcdefABCDEF01234567890123456789abcdefABCDEF0123456789", location = "safe 3" }
public = true
reinstated = 2023-02-01

[[interval]]
from = 2022-08-13T18:00:00+02:00
until = 2022-08-13T21:00:00+02:00

[[interval]]
from = 2022-08-06T18:00:00+02:00
until = 2022-08-06T21:00:00+02:00

[[target]]
subtree = ["limetorrents.pro"]
exact = ["_mirror.example"]
any-tld = ["ilcorsaronero", "Bücher"]
address = ["192.0.2.0/24", "::ffff:203.0.113.7", "2001:db8::1"]
list = { file = "lists/agcom.txt", format = "hosts", covers = "exact", sha256 = "0123456789abcdefABCDEF01234567890123456789abcdefABCDEF0123456789" }
added = 2022-08-10
source = "claimant's notice of 10 August 2022"
due = 2022-09-10T00:00:00+02:00
effective = 2022-08-12T00:00:00+02:00
expires = 2023-01-01T00:00:00+01:00
"#;

    #[test]
    fn every_key_is_read() {
        let order = read_text(WHOLE).unwrap();
        assert_eq!((order.language.as_deref(), order.lumen.as_deref()), (Some("it"), Some("28510413")));
        assert!(order.public && order.blocks_unknown_origin);
        assert_eq!(order.reinstated.unwrap().to_string(), "2023-02-01");
        let document = order.document.unwrap();
        assert!(document.sha256.to_string().starts_with("0123456789abcdefabcdef01"));
        assert_eq!(document.location, "safe 3");
        let intervals: Vec<_> = order.intervals.iter().map(|each| format!("{} {}", each.from, each.until)).collect();
        assert_eq!(
            intervals,
            ["2022-08-06T16:00:00Z 2022-08-06T19:00:00Z", "2022-08-13T16:00:00Z 2022-08-13T19:00:00Z"]
        );
        let [target] = &order.targets[..] else { panic!("{:?}", order.targets) };
        assert_eq!(target.names.len(), 2);
        assert_eq!(target.labels, [("ilcorsaronero".into(), 31), ("xn--bcher-kva".into(), 31)]);
        let addresses = ["192.0.2.0/24", "203.0.113.7/32", "2001:db8::1/128"].map(|text| (text.parse().unwrap(), 32));
        assert_eq!(target.addresses, addresses);
        let list = target.list.as_ref().unwrap();
        assert_eq!(
            (list.file.as_path(), list.format, list.covers),
            (Path::new("lists/agcom.txt"), Format::Hosts, Covers::Exact)
        );
        assert_eq!((list.sha256, list.line), (Some(document.sha256), 33));
        assert_eq!(target.due.unwrap().to_string(), "2022-09-09T22:00:00Z");
        assert_eq!(target.effective.unwrap().to_string(), "2022-08-11T22:00:00Z");
        assert_eq!(target.expires.unwrap().to_string(), "2022-12-31T23:00:00Z");
    }

    #[test]
    fn what_the_sample_has_commented_out_is_read_too() {
        let sample = include_str!("../../../config/orders/it-milan-2022-torrents.toml");
        let is_code = |line: &str| {
            line.starts_with("[[") || line.split_once(" = ").is_some_and(|(key, _)| !key.trim_end().contains(' '))
        };
        let uncommented = |line: &str| line.strip_prefix("# ").filter(|code| is_code(code)).unwrap_or(line).to_owned();
        let text = sample.lines().map(uncommented).collect::<Vec<_>>().join("\n");
        let order = read_text(&text.replace("64 hexadecimal digits", &"0a".repeat(32))).unwrap();
        assert!(order.document.is_some() && order.public && order.reinstated.is_some() && order.intervals.len() == 1);
        assert!(order.targets[1].list.is_some() && order.targets[1].shown().len() == 6);
        for key in ORDER_KEYS.split(", ") {
            let key = key.trim_matches(['[', ']']);
            let line = |line: &str| line.starts_with(key) || line.starts_with(&format!("[[{key}"));
            assert!(text.lines().any(line), "{key} is not in the sample");
        }
    }

    #[test]
    fn the_mistakes_of_every_key_are_reported_at_once_each_at_its_place() {
        let text = WHOLE
            .replace("language = \"it\"", "language = \"it_IT\"")
            .replace("lumen = \"28510413\"", "lumen = \"2 8\"")
            .replace("public = true", "public = \"true\"")
            .replace("reinstated = 2023-02-01", "reinstated = \"then\"")
            .replace("until = 2022-08-13T21:00:00", "until = 2022-08-13T18:00:00")
            .replace("from = 2022-08-06T18:00:00+02:00\n", "form = 2022-08-06T18:00:00+02:00\n")
            .replace("\"Bücher\"", "\"Bücher.example\", \"*\"")
            .replace("192.0.2.0/24", "192.0.2.1/24")
            .replace("\"hosts\"", "\"rpz\"")
            .replace("due = 2022-09-10", "due = 2022-06-10")
            .replace("effective = 2022-08-12", "effective = 2022-07-12")
            .replace("expires = 2023", "expires = 2028");
        let places: Vec<_> =
            read_text(&text).unwrap_err().iter().map(|mistake| (mistake.line, mistake.column)).collect();
        let interval = [(22, 9), (24, 1), (25, 1)];
        let target = [(31, 29), (31, 47), (32, 12), (33, 45), (36, 7), (37, 13), (38, 11)];
        assert_eq!(places, [&[(14, 12), (15, 9), (17, 10), (18, 14)][..], &interval, &target].concat());
    }

    #[test]
    fn a_name_that_cannot_be_one_is_a_mistake_at_its_place() {
        for (name, what) in [
            ("a..b", "\"a..b\" is not a name: empty label"),
            ("", "\"\" is not a name: empty label"),
            ("a b.example", "\"a b.example\" is not a name: character that cannot stand in a name"),
            (
                "*.site.example",
                "\"*.site.example\" is not a name; give the name alone, without *, scheme, port or path",
            ),
            (
                "https://a.example/",
                "\"https://a.example/\" is not a name; give the name alone, without *, scheme, port or path",
            ),
            ("a.example:443", "\"a.example:443\" is not a name; give the name alone, without *, scheme, port or path"),
            ("192.0.2.1", "\"192.0.2.1\" is an address; write it as address = [\"192.0.2.1\"]"),
            ("2001:db8::1", "\"2001:db8::1\" is an address; write it as address = [\"2001:db8::1\"]"),
            ("192.0.2.0/24", "\"192.0.2.0/24\" is an address; write it as address = [\"192.0.2.0/24\"]"),
            (".", "\".\" is the root, all of DNS; name the site"),
            ("com", "\"com\" is a whole top-level domain; name the site"),
            ("рф", "\"рф\" is a whole top-level domain; name the site"),
        ] {
            assert_eq!(changed("limetorrents.pro", name), format!("14:5: {what}"));
        }
        for name in [
            "168.192.in-addr.arpa",
            "onion",
            "x.onion",
            "a.LOCALHOST.",
            "invalid",
            "a.test",
            "_dns.resolver.arpa",
            "x.home.arpa",
        ] {
            let special = format!("14:5: \"{name}\" is a special name, which is never forwarded; take it out");
            assert_eq!(changed("limetorrents.pro", name), special);
            assert!(changed("_mirror.example", name).contains("is a special name"), "{name}");
        }
        let long = changed("limetorrents.pro", &format!("{}.example", "a".repeat(64)));
        assert!(long.ends_with("is not a name: label longer than 63 octets"), "{long}");
    }

    #[test]
    fn names_are_taken_in_every_spelling() {
        for (name, meant) in [
            ("SITE.Example.", "site.example"),
            ("xn--bcher-kva.example", "bücher.example"),
            ("_sip._tcp.site.example", "_sip._tcp.site.example"),
            ("ipv4only.arpa", "ipv4only.arpa"),
            ("a\\\\.b.example", "a\\.b.example"),
            ("testing.notonion", "testing.notonion"),
        ] {
            let order = read_text(&MILAN.replace("limetorrents.pro", name)).unwrap();
            assert_eq!(order.targets[0].names[1].0, name_of(meant));
        }
        assert!(read_text(&MILAN.replace("_mirror.example", "com")).is_ok(), "a single label, exact");
    }

    #[test]
    fn mistakes_have_a_bound() {
        let names = vec!["\"a..b\""; MISTAKES_MAX + 5].join(", ");
        let found = mistakes(&MILAN.replace("\"limetorrents.pro\"", &names));
        assert_eq!(found.len(), MISTAKES_MAX + 1);
        assert_eq!(found.last().unwrap(), "orders/milan.toml: and 5 more mistakes");
    }

    #[test]
    fn a_byte_order_mark_and_crlf_are_read() {
        let order = read_text(&format!("\u{feff}{}", MILAN.replace('\n', "\r\n"))).unwrap();
        assert_eq!(order.targets[0].names[0].2, 13);
    }

    #[test]
    fn no_cut_panics() {
        for cut in (0..WHOLE.len()).filter(|cut| WHOLE.is_char_boundary(*cut)) {
            if let Err(found) = read_text(&WHOLE[..cut]) {
                assert!(!found.is_empty(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn no_octet_in_place_of_another_panics() {
        for place in (0..WHOLE.len()).filter(|place| WHOLE.is_char_boundary(*place)) {
            for other in ["\"", "[", "]", "{", "\n", "\0", "=", "9", "é"] {
                let _ = read_text(&format!("{}{other}{}", &WHOLE[..place], WHOLE.get(place + 1..).unwrap_or("")));
            }
        }
    }
}
