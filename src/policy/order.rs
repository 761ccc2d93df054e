//! An order: issuer, reference, jurisdiction, targets, effect, life.

mod dates;
mod file;
mod life;
mod reader;
mod subject;
mod target;
mod text;
mod time;
mod value;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;

use super::index::Covers;
use super::list::Format;
use super::origin::Country;
use crate::digest::Digest;
use crate::dns::Name;
use crate::mistake::Mistake;
pub use text::{STRUCTURED_OCTETS_MAX, Texts};

/// Where an order applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Jurisdiction {
    /// `["*"]`.
    Everywhere,
    /// These countries; at least one.
    Countries(Vec<Country>),
}

impl Jurisdiction {
    /// Whether a client of this country is in it. None, a country that cannot be told, is only in
    /// [`Self::Everywhere`]; see [`Order::applies_to`] for `unknown-origin`.
    #[must_use]
    pub fn has(&self, country: Option<Country>) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Countries(countries) => country.is_some_and(|country| countries.contains(&country)),
        }
    }

    /// As an order file has it: `*`, or the codes of the countries.
    #[must_use]
    pub fn codes(&self) -> Vec<String> {
        match self {
            Self::Everywhere => vec!["*".to_owned()],
            Self::Countries(countries) => countries.iter().map(Country::to_string).collect(),
        }
    }
}

/// What its issuer, or the operator, has made of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Being prepared; does nothing.
    Draft,
    /// Counted, answers untouched.
    Trial,
    /// Carried out between `effective` and `expires`.
    InForce,
    /// Not carried out for now.
    Suspended,
    /// Ended.
    Lifted,
}

impl State {
    /// Every state, in the order of an order's life.
    pub const ALL: [Self; 5] = [Self::Draft, Self::Trial, Self::InForce, Self::Suspended, Self::Lifted];

    /// The state that an order file calls `word`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Its word in an order file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Trial => "trial",
            Self::InForce => "in-force",
            Self::Suspended => "suspended",
            Self::Lifted => "lifted",
        }
    }
}

/// How an order stands at a moment, by its state and its dates. That its file cannot be read (`pending`) is for
/// whoever loaded it to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// `draft`.
    Draft,
    /// `trial`.
    Trial,
    /// `in-force`, before `effective`.
    Waiting,
    /// Carried out now.
    InForce,
    /// `suspended`.
    Suspended,
    /// `in-force`, from `expires` on.
    Expired,
    /// `lifted`.
    Lifted,
}

impl Standing {
    /// Its word in `bailiwick orders`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Trial => "trial",
            Self::Waiting => "waiting",
            Self::InForce => "in-force",
            Self::Suspended => "suspended",
            Self::Expired => "expired",
            Self::Lifted => "lifted",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a blocked client is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// NXDOMAIN; NODATA for an exact target.
    NxDomain,
    /// NODATA.
    NoData,
    /// REFUSED.
    Refused,
    /// These addresses, NODATA for what is not one. At least one is there.
    Address {
        /// Answer to A.
        a: Option<Ipv4Addr>,
        /// Answer to AAAA.
        aaaa: Option<Ipv6Addr>,
    },
}

impl Effect {
    /// The effect of a word: `nxdomain`, `nodata` or `refused`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "nxdomain" => Some(Self::NxDomain),
            "nodata" => Some(Self::NoData),
            "refused" => Some(Self::Refused),
            _ => None,
        }
    }
}

/// How much of the digest of what a target is about it is known by, in hexadecimal digits.
const KEY_DIGITS: usize = 16;

/// What an order is about, as far as it came together: the names of the order itself, or an addendum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// `subtree` and `exact`: each name, what of it is meant, and the line it stands on.
    pub names: Vec<(Name, Covers, u32)>,
    /// `any-tld`: each label, lower case and as an A-label, and its line.
    pub labels: Vec<(Box<str>, u32)>,
    /// `address`: each prefix, without host bits, IPv4-mapped ones as the IPv4 prefix inside, and its line.
    pub addresses: Vec<(IpNet, u32)>,
    /// `list`: a file of names.
    pub list: Option<ListTarget>,
    /// When it was added.
    pub added: Option<jiff::civil::Date>,
    /// By what paper.
    pub source: Option<String>,
    /// By when it must be carried out; None: as the order.
    pub due: Option<Timestamp>,
    /// From when it is carried out, not before the order is; None: as the order.
    pub effective: Option<Timestamp>,
    /// From when it no longer is, not after the order ends; None: as the order.
    pub expires: Option<Timestamp>,
}

impl Target {
    /// What it is known by in the register and the ledger: digits of the SHA-256 of what it is about,
    /// whatever its order in the file, its lines and its dates, and however often a thing is named.
    #[must_use]
    pub fn key(&self) -> String {
        Self::key_of(self.shown())
    }

    /// The key of a target that is about this; see [`Self::shown`].
    #[must_use]
    pub fn key_of(mut shown: Vec<String>) -> String {
        shown.sort();
        shown.dedup();
        let mut key = Digest::of(shown.join("\n").as_bytes()).to_string();
        key.truncate(KEY_DIGITS);
        key
    }

    /// What it is about, as an order file has it: `subtree a.example`, `any-tld label`, `address 192.0.2.0/24`,
    /// `list lists/a.txt`.
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        let names = self.names.iter().map(|(name, covers, _)| match covers {
            Covers::Subtree => format!("subtree {name}"),
            Covers::Exact => format!("exact {name}"),
        });
        let labels = self.labels.iter().map(|(label, _)| format!("any-tld {label}"));
        let addresses = self.addresses.iter().map(|(prefix, _)| format!("address {prefix}"));
        let list = self.list.iter().map(|list| format!("list {}", list.file.display()));
        names.chain(labels).chain(addresses).chain(list).collect()
    }

    /// The first of what it is about.
    #[must_use]
    pub fn first_shown(&self) -> Option<String> {
        let names = self.names.iter().take(1).cloned().collect();
        let labels = self.labels.iter().take(1).cloned().collect();
        let addresses = self.addresses.iter().take(1).copied().collect();
        let first = Self { names, labels, addresses, list: self.list.clone(), ..Self::default() };
        first.shown().into_iter().next()
    }

    /// How many names, labels, prefixes and lists it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names.len() + self.labels.len() + self.addresses.len() + usize::from(self.list.is_some())
    }
}

/// A file of names that an order is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListTarget {
    /// Where it is.
    pub file: PathBuf,
    /// How it is written.
    pub format: Format,
    /// What its names mean.
    pub covers: Covers,
    /// What the file must be; an order that is signed has to say it.
    pub sha256: Option<Digest>,
    /// The line of `list` in the order's file.
    pub line: u32,
}

/// A time in which an order is carried out: an event's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment behind it.
    pub until: Timestamp,
}

/// The paper itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub sha256: Digest,
    /// Where it is kept.
    pub location: String,
}

/// A decision that we carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Letters, digits and hyphens.
    pub id: String,
    /// The court or office.
    pub issuer: String,
    /// Its file number.
    pub reference: Option<String>,
    /// Where it applies.
    pub jurisdiction: Jurisdiction,
    /// When we received it.
    pub received: Timestamp,
    /// By when it must be carried out.
    pub due: Option<Timestamp>,
    /// From when it is; None: as soon as it is loaded.
    pub effective: Option<Timestamp>,
    /// From when it no longer is.
    pub expires: Option<Timestamp>,
    /// See [`State`].
    pub state: State,
    /// See [`Effect`].
    pub effect: Effect,
    /// `unknown-origin = "block"`: it is carried out for clients whose country cannot be told.
    pub blocks_unknown_origin: bool,
    /// Where the public can read it.
    pub about: Option<String>,
    /// Whom to write to.
    pub contact: Option<String>,
    /// The language of what is told (BCP 47); None: "en".
    pub language: Option<String>,
    /// The id of its notice in the Lumen database.
    pub lumen: Option<String>,
    /// The paper itself.
    pub document: Option<Document>,
    /// `public = true`: it is shown on the public page.
    pub public: bool,
    /// It was lifted, and is carried out again by a decision of this day.
    pub reinstated: Option<jiff::civil::Date>,
    /// The times in which it is carried out, in their order, none over another; empty: at all times.
    pub intervals: Vec<Interval>,
    /// At least one.
    pub targets: Vec<Target>,
    /// The file it was read from.
    pub file: PathBuf,
}

impl Order {
    /// Reads an order file.
    ///
    /// # Errors
    /// Every mistake in it, each with its place.
    pub fn read(file: &Path, text: &str) -> Result<Self, Vec<Mistake>> {
        file::read(file, text)
    }

    /// Whether it is carried out, while in force, for a client of this country; None: it cannot be told.
    #[must_use]
    pub fn applies_to(&self, country: Option<Country>) -> bool {
        self.jurisdiction.has(country) || (country.is_none() && self.blocks_unknown_origin)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// An order with these lines added before its target.
    fn order(lines: &str) -> Order {
        let text = format!(
            "id = 'x-1'\nissuer = 'Example Court'\nreceived = 2022-07-18T09:00:00+02:00\n{lines}\n\
             [[target]]\nsubtree = ['a.example']\n"
        );
        Order::read(Path::new("x.toml"), &text).unwrap()
    }

    #[test]
    fn words_go_there_and_back() {
        for state in State::ALL {
            assert_eq!(State::from_word(state.as_str()), Some(state));
        }
        assert_eq!(State::from_word("waiting"), None);
        assert_eq!(Standing::Waiting.to_string(), "waiting");
        assert_eq!(Standing::Expired.to_string(), "expired");
    }

    #[test]
    fn applies_in_its_jurisdiction_only() {
        let (italy, germany) = (Country::from_code("IT"), Country::from_code("DE"));
        let spares = order("jurisdiction = ['IT', 'FR']\nstate = 'draft'");
        assert_eq!([italy, germany, None].map(|country| spares.applies_to(country)), [true, false, false]);
        assert_eq!(spares.jurisdiction.codes(), ["IT", "FR"]);
        let blocks = order("jurisdiction = ['IT']\nstate = 'draft'\nunknown-origin = 'block'");
        assert_eq!([italy, germany, None].map(|country| blocks.applies_to(country)), [true, false, true]);
        assert!(!blocks.jurisdiction.has(None));
        let everywhere = order("jurisdiction = ['*']\nstate = 'draft'");
        assert_eq!([italy, germany, None].map(|country| everywhere.applies_to(country)), [true, true, true]);
        assert_eq!(everywhere.jurisdiction.codes(), ["*"]);
    }

    fn targets(text: &str) -> Vec<Target> {
        let mut order = order(&format!("jurisdiction = ['*']\nstate = 'draft'\n{text}"));
        order.targets.pop();
        order.targets
    }

    #[test]
    fn a_target_is_shown_as_its_file_has_it() {
        let text = "[[target]]\nsubtree = ['B\u{fc}cher.example']\nexact = ['a.example']\nany-tld = ['Mirror']\n\
                    address = ['192.0.2.0/24', '2001:db8::1']\n\
                    list = { file = 'lists/a.txt', format = 'domains', covers = 'exact' }\n";
        assert_eq!(
            targets(text)[0].shown(),
            [
                "subtree xn--bcher-kva.example",
                "exact a.example",
                "any-tld mirror",
                "address 192.0.2.0/24",
                "address 2001:db8::1/128",
                "list lists/a.txt",
            ]
        );
    }

    #[test]
    fn the_key_of_a_target_is_what_it_is_about() {
        let plain = "[[target]]\nsubtree = ['a.example', 'b.example']\nany-tld = ['mirror']\n";
        let key = targets(plain)[0].key();
        assert!(key.len() == 16 && key.bytes().all(|octet| octet.is_ascii_hexdigit()), "{key}");
        for same in [
            "[[target]]\nany-tld = ['MIRROR']\nsubtree = ['B.example.', 'a.example']\n",
            "[[target]]\nsubtree = ['a.example', 'b.example', 'a.example']\nany-tld = ['mirror', 'mirror']\n",
            "\n\n[[target]]\nsubtree = ['a.example', 'b.example']\nany-tld = ['mirror']\nadded = 2022-09-01\n\
             source = 'notice'\ndue = 2022-10-01T00:00:00Z\neffective = 2022-09-01T00:00:00Z\n\
             expires = 2023-01-01T00:00:00Z\n",
        ] {
            assert_eq!(targets(same)[0].key(), key, "{same}");
        }
        let others = [
            plain.replace("subtree", "exact"),
            plain.replace("'mirror'", "'mirrors'"),
            plain.replace("any-tld = ['mirror']", ""),
            plain.replace("'b.example'", "'b.example', 'c.example'"),
            plain.replace("any-tld = ['mirror']", "address = ['192.0.2.1']"),
        ];
        let mut keys: Vec<_> = others.iter().map(|other| targets(other)[0].key()).chain([key]).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), others.len() + 1);
    }
}
