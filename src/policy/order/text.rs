//! The EXTRA-TEXT of what an order blocks: in words, and in the JSON of structured DNS errors.

use serde::Serialize;

use super::Order;

/// The longest JSON, in octets: with it and the longest name a padded answer stays within two blocks of 468.
pub const STRUCTURED_OCTETS_MAX: usize = 512;

/// The language of what an order says where it does not say which.
const LANGUAGE_DEFAULT: &str = "en";

/// What the answers say that an order blocks; made once, when the policy is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts {
    /// `order it-milan-2022-torrents, Tribunale di Milano; <about>` (RFC 8914 §2).
    pub plain: String,
    /// The same for clients that signal structured DNS errors: I-JSON (RFC 7493), minified.
    pub structured: String,
}

impl Order {
    /// What its blocked answers say. `pages`: the URL, ending in `/`, under which a public order has its page here.
    #[must_use]
    pub fn texts(&self, pages: Option<&str>) -> Texts {
        Texts { plain: self.plain(pages), structured: self.structured() }
    }

    /// Where the public can read it: where its file says, or its page here.
    #[must_use]
    pub fn about_or_page(&self, pages: Option<&str>) -> Option<String> {
        let page = || pages.filter(|_| self.public).map(|pages| format!("{pages}{}", self.id));
        self.about.clone().or_else(page)
    }

    fn plain(&self, pages: Option<&str>) -> String {
        let Self { id, issuer, .. } = self;
        match self.about_or_page(pages) {
            Some(about) => format!("order {id}, {issuer}; {about}"),
            None => format!("order {id}, {issuer}"),
        }
    }

    /// Justification and organisation are left out, in this order, before anything else: whoever is told neither of
    /// them can still write to the contact, or look the order up by its id.
    fn structured(&self) -> String {
        let by_id = format!("order {}", self.id);
        let reference = self.reference.as_deref();
        // One of c, j and s must be there, and s may not stand beside EDE 16.
        let least = self.contact.is_none().then_some(by_id.as_str());
        let forms =
            [(reference.or(least), true, true), (least, true, true), (least, false, true), (least, false, false)];
        let written = forms.map(|(justification, organisation, database)| {
            let organisation = organisation.then_some(self.issuer.as_str());
            self.error(justification, organisation, database).to_json()
        });
        let fits = written.iter().find(|json| json.len() <= STRUCTURED_OCTETS_MAX).cloned();
        // Its id is short; a contact that is not is none that an order file can have.
        fits.unwrap_or_else(|| {
            Error { c: None, j: Some(by_id), o: None, l: Some(LANGUAGE_DEFAULT.to_owned()), fdbs: None }.to_json()
        })
    }

    fn error(&self, justification: Option<&str>, organisation: Option<&str>, database: bool) -> Error {
        let says = justification.is_some() || organisation.is_some();
        let language = self.language.as_deref().unwrap_or(LANGUAGE_DEFAULT);
        let notice = self.lumen.as_deref().filter(|_| database).map(|id| Notice { db: "lumen", id: clean(id) });
        Error {
            c: self.contact.as_deref().map(|contact| [clean(contact)]),
            j: justification.map(clean),
            o: organisation.map(clean),
            l: says.then(|| clean(language)),
            fdbs: notice.map(|notice| [notice]),
        }
    }
}

/// The members that draft-ietf-dnsop-structured-dns-error gives to EXTRA-TEXT, but never `s` (no sub-error is for
/// Censored); and `fdbs` of draft-nottingham-dnsop-censorship-transparency.
#[derive(Debug, Serialize)]
struct Error {
    /// Contact URIs.
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<[String; 1]>,
    /// Justification.
    #[serde(skip_serializing_if = "Option::is_none")]
    j: Option<String>,
    /// Organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    o: Option<String>,
    /// The language of both; with neither of them it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    l: Option<String>,
    /// Where the order is told of: databases of filtering.
    #[serde(skip_serializing_if = "Option::is_none")]
    fdbs: Option<[Notice; 1]>,
}

/// An incident in a database of filtering.
#[derive(Debug, Serialize)]
struct Notice {
    db: &'static str,
    id: String,
}

impl Error {
    fn to_json(&self) -> String {
        // Text only: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Text without what I-JSON has no place for: noncharacters (RFC 7493 §2.1); surrogates no text has here.
fn clean(text: &str) -> String {
    let is_noncharacter =
        |character: char| matches!(u32::from(character), 0xfdd0..=0xfdef) || u32::from(character) & 0xfffe == 0xfffe;
    text.replace(is_noncharacter, "\u{fffd}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::tests::order;
    use super::*;

    fn full() -> Order {
        Order {
            reference: Some("R.G. 1/2022".to_owned()),
            contact: Some("mailto:legal@resolver.example".to_owned()),
            language: Some("it".to_owned()),
            lumen: Some("12345".to_owned()),
            ..order("it-1", &["a.example"])
        }
    }

    /// The JSON of an order, read again: it is minified where writing it again makes the same octets long.
    fn read(order: &Order) -> Value {
        let text = order.texts(None).structured;
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.to_string().len(), text.len(), "not minified: {text}");
        assert!(text.len() <= STRUCTURED_OCTETS_MAX && value.is_object() && value.get("s").is_none());
        assert_eq!(value.get("l").is_some(), value.get("j").is_some() || value.get("o").is_some(), "{text}");
        assert!(value.get("c").is_some() || value.get("j").is_some(), "{text}");
        value
    }

    #[test]
    fn extra_text_names_the_order_and_where_to_read_it() {
        let plain = |order: &Order, pages| order.texts(pages).plain;
        let unsaid = order("x-1", &["a.example"]);
        let said = Order { about: Some("https://court.example/1".to_owned()), ..unsaid.clone() };
        assert_eq!(plain(&unsaid, None), "order x-1, Test Court");
        assert_eq!(plain(&said, None), "order x-1, Test Court; https://court.example/1");
        let pages = Some("https://dns.example.net/orders/");
        assert_eq!(plain(&unsaid, pages), "order x-1, Test Court", "it has no page: it is not public");
        let [unsaid, said] = [unsaid, said].map(|order| Order { public: true, ..order });
        assert_eq!(plain(&unsaid, pages), "order x-1, Test Court; https://dns.example.net/orders/x-1");
        assert_eq!(plain(&said, pages), "order x-1, Test Court; https://court.example/1");
        assert_eq!(plain(&unsaid, None), "order x-1, Test Court", "our own name is not known");
    }

    #[test]
    fn every_member_has_its_place() {
        assert_eq!(
            full().texts(None).structured,
            "{\"c\":[\"mailto:legal@resolver.example\"],\"j\":\"R.G. 1/2022\",\"o\":\"Test Court\",\"l\":\"it\",\
             \"fdbs\":[{\"db\":\"lumen\",\"id\":\"12345\"}]}"
        );
        assert_eq!(read(&order("x", &["a.example"])), json!({ "j": "order x", "o": "Test Court", "l": "en" }));
        let reachable = Order { reference: None, language: None, lumen: None, ..full() };
        assert_eq!(read(&reachable), json!({ "c": ["mailto:legal@resolver.example"], "o": "Test Court", "l": "en" }));
    }

    #[test]
    fn justification_then_organisation_are_left_out_whole() {
        let long = |octets: usize| Some("ü".repeat(octets / 2));
        let issuer = "Tribunale ".repeat(20).trim().to_owned();
        let first = Order { reference: long(480), ..full() };
        let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<String>();
        assert_eq!(members(&read(&first)), "cfdbslo", "no j");
        let second = Order { reference: long(480), issuer: issuer.repeat(3), ..full() };
        assert_eq!(members(&read(&second)), "cfdbs", "nothing is left for a language to be said of");
        let neither = Order { contact: None, ..second.clone() };
        assert_eq!(read(&neither)["j"], "order it-1", "in place of a contact, and what is left of a reference");
        let notice = Order { lumen: long(600), ..second };
        assert_eq!(members(&read(&notice)), "c");
        let contact = Order { contact: long(600), ..notice };
        assert_eq!(read(&contact), json!({ "j": "order it-1", "l": "en" }));
    }

    #[test]
    fn the_bound_is_reached_and_not_passed() {
        let length = |octets| Order { reference: Some("x".repeat(octets)), ..full() }.texts(None).structured.len();
        let whole = (0..600).map(length).max().unwrap();
        assert_eq!(whole, STRUCTURED_OCTETS_MAX);
        for octets in 0..600 {
            read(&Order { reference: Some("x".repeat(octets)), ..full() });
        }
    }

    #[test]
    fn the_longest_that_an_order_file_can_have_keeps_its_contact() {
        let contact = Some(format!("mailto:{}@a.example", "x".repeat(283)));
        let longest = Order { contact, reference: Some("\"".repeat(200)), issuer: "\"".repeat(200), ..full() };
        let value = read(&longest);
        assert!(value.get("c").is_some() && value.get("fdbs").is_some(), "{value}");
    }

    #[test]
    fn hostile_words_are_escaped() {
        for hostile in [
            "a\"},\"s\":1,{\"",
            "back\\slash\\u0041",
            "\u{0}\u{1}\u{1f}\n\r\t\u{7f}",
            "Cour d’appel de Liège, 裁判所, 🏛",
            "\u{202e}truoC\u{2028}\u{2029}",
            "</script><!--",
        ] {
            let words = || Some(hostile.to_owned());
            let order = Order { issuer: hostile.to_owned(), reference: words(), lumen: words(), ..full() };
            let value = read(&order);
            assert_eq!(
                (&value["o"], &value["j"], &value["fdbs"][0]["id"]),
                (&json!(hostile), &json!(hostile), &json!(hostile))
            );
            assert_eq!(value.as_object().unwrap().len(), 5, "{value}");
        }
        let noncharacters = Order { issuer: "a\u{fdd0}b\u{ffff}c\u{1fffe}d".to_owned(), ..full() };
        assert_eq!(read(&noncharacters)["o"], "a\u{fffd}b\u{fffd}c\u{fffd}d", "RFC 7493, section 2.1");
    }
}
