//! A client's country, and the ground for it.

mod country;
mod database;
pub(super) mod inside;
mod tree;

#[cfg(test)]
#[path = "../../tests/support/mmdb.rs"]
pub(crate) mod mmdb;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use prefix_trie::joint::JointPrefixMap;

pub use country::Country;
pub use database::Database;

/// How a country was come to. Its `Display` is what `explain` prints: `network 127.0.0.2/32`,
/// `database built 2026-08-05`, `default` or `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// The longest prefix of `[origin] networks` that the address lies in.
    Network(IpNet),
    /// `[origin] database`, and when it was built.
    Database(Timestamp),
    /// `[origin] default`.
    Default,
    /// Nothing says.
    Unknown,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(prefix) => write!(f, "network {prefix}"),
            Self::Database(built) => write!(f, "database built {}", Day(*built)),
            Self::Default => f.write_str("default"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The day of a moment in UTC, as `2026-08-05`.
pub(crate) struct Day(pub(crate) Timestamp);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.to_zoned(TimeZone::UTC).date())
    }
}

/// `[origin]`: where countries come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Prefixes whose country is said.
    pub networks: Vec<(IpNet, Country)>,
    /// A MaxMind DB file that says the country of what lies in none of them.
    pub database: Option<PathBuf>,
    /// The country of everyone else.
    pub default: Option<Country>,
}

impl Settings {
    /// Whether anything at all can tell a country.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.networks.is_empty() || self.database.is_some() || self.default.is_some()
    }
}

/// Tells a client's country from its address.
#[derive(Debug)]
pub struct Origin {
    networks: JointPrefixMap<IpNet, Country>,
    database: Option<Arc<Database>>,
    default: Option<Country>,
}

impl Origin {
    /// Built from its settings and the database that was read; the same prefix twice: the later one counts.
    #[must_use]
    pub fn new(settings: &Settings, database: Option<Arc<Database>>) -> Self {
        let mut networks = JointPrefixMap::new();
        for (prefix, country) in &settings.networks {
            networks.insert(inside::unmapped(*prefix).trunc(), *country);
        }
        Self { networks, database, default: settings.default }
    }

    /// The country of an address, and the ground: networks, then the database, then the default. IPv4-mapped and 6to4
    /// addresses are looked up as the IPv4 address inside; a network that has a 6to4 address as it is written comes
    /// first. Does not allocate.
    #[must_use]
    pub fn place(&self, address: IpAddr) -> (Option<Country>, Ground) {
        let (written, innermost) = (address.to_canonical(), inside::innermost(address));
        if let Some((prefix, country)) = self.network(written).or_else(|| self.network(innermost)) {
            return (Some(country), Ground::Network(prefix));
        }
        if let Some(database) = &self.database
            && let Some(country) = database.country(innermost)
        {
            return (Some(country), Ground::Database(database.built()));
        }
        match self.default {
            Some(country) => (Some(country), Ground::Default),
            None => (None, Ground::Unknown),
        }
    }

    /// The longest prefix that an address lies in.
    fn network(&self, address: IpAddr) -> Option<(IpNet, Country)> {
        self.networks.get_lpm(&IpNet::from(address)).map(|(prefix, country)| (prefix, *country))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn country(code: &str) -> Country {
        Country::from_code(code).unwrap()
    }

    fn origin(networks: &[(&str, &str)], default: Option<&str>) -> Origin {
        let networks = networks.iter().map(|(prefix, code)| (prefix.parse().unwrap(), country(code))).collect();
        Origin::new(&Settings { networks, database: None, default: default.map(country) }, None)
    }

    /// What `place` says of an address, as text.
    fn place(origin: &Origin, address: &str) -> String {
        let (country, ground) = origin.place(address.parse().unwrap());
        format!("{} {ground}", country.map_or("-".to_owned(), |country| country.to_string()))
    }

    #[test]
    fn longest_prefix_wins() {
        let networks = [("10.0.0.0/8", "DE"), ("10.1.0.0/16", "IT"), ("10.1.2.3/32", "FR"), ("2001:db8::/32", "AT")];
        let origin = origin(&networks, None);
        assert_eq!(place(&origin, "10.2.0.1"), "DE network 10.0.0.0/8");
        assert_eq!(place(&origin, "10.1.255.255"), "IT network 10.1.0.0/16");
        assert_eq!(place(&origin, "10.1.2.3"), "FR network 10.1.2.3/32");
        assert_eq!(place(&origin, "2001:db8:ffff::1"), "AT network 2001:db8::/32");
        assert_eq!(place(&origin, "2001:db9::1"), "- unknown");
        assert_eq!(place(&origin, "11.0.0.0"), "- unknown");
    }

    #[test]
    fn the_order_of_prefixes_does_not_matter_but_the_later_of_two_equal_ones_counts() {
        let origin = origin(&[("10.1.0.0/16", "IT"), ("10.0.0.0/8", "DE"), ("10.99.1.1/8", "FR")], None);
        assert_eq!(place(&origin, "10.1.0.1"), "IT network 10.1.0.0/16");
        assert_eq!(place(&origin, "10.2.0.1"), "FR network 10.0.0.0/8");
    }

    #[test]
    fn default_is_for_everyone_else() {
        let origin = origin(&[("127.0.0.2/32", "IT")], Some("CH"));
        assert_eq!(place(&origin, "127.0.0.2"), "IT network 127.0.0.2/32");
        assert_eq!(place(&origin, "127.0.0.1"), "CH default");
        assert_eq!(place(&origin, "::1"), "CH default");
    }

    #[test]
    fn mapped_addresses_are_the_ipv4_address_inside() {
        let v4 = origin(&[("127.0.0.2/32", "IT"), ("::/0", "DE")], None);
        assert_eq!(place(&v4, "::ffff:127.0.0.2"), "IT network 127.0.0.2/32");
        assert_eq!(place(&v4, "::ffff:127.0.0.1"), "- unknown");
        assert_eq!(place(&v4, "::7f00:2"), "DE network ::/0");
        let v6 = origin(&[("::ffff:10.0.0.0/104", "FR")], None);
        assert_eq!(place(&v6, "10.9.9.9"), "FR network 10.0.0.0/8");
        assert_eq!(place(&v6, "::ffff:10.9.9.9"), "FR network 10.0.0.0/8");
    }

    #[test]
    fn networks_come_before_the_database_and_the_default_behind_it() {
        let settings = Settings {
            networks: vec![("192.0.2.0/28".parse().unwrap(), country("DE"))],
            database: None,
            default: Some(country("CH")),
        };
        let lines = "2001:db8::/32 IT\n192.0.2.0/24 FR\n198.51.100.0/24 continent EU";
        let database = Database::read(mmdb::countries(mmdb::Form::default(), lines).into()).unwrap();
        let origin = Origin::new(&settings, Some(Arc::new(database)));
        for (address, told) in [
            ("192.0.2.1", "DE network 192.0.2.0/28"),
            ("192.0.2.16", "FR database built 2026-08-05"),
            ("::ffff:192.0.2.16", "FR database built 2026-08-05"),
            ("2001:db8::1", "IT database built 2026-08-05"),
            ("198.51.100.1", "CH default"),
            ("203.0.113.1", "CH default"),
        ] {
            assert_eq!(place(&origin, address), told, "{address}");
        }
    }

    #[test]
    fn a_6to4_address_is_itself_for_networks_and_then_the_address_inside() {
        let settings = Settings {
            networks: vec![
                ("2002:c000:201::/48".parse().unwrap(), country("DE")),
                ("198.51.100.0/24".parse().unwrap(), country("AT")),
            ],
            ..Settings::default()
        };
        let lines = "192.0.2.0/24 FR\n2002::/16 IT";
        let database = Database::read(mmdb::countries(mmdb::Form::default(), lines).into()).unwrap();
        let origin = Origin::new(&settings, Some(Arc::new(database)));
        for (address, told) in [
            ("2002:c000:201::1", "DE network 2002:c000:201::/48"),
            ("2002:c000:202::1", "FR database built 2026-08-05"),
            ("2002:c633:6401::1", "AT network 198.51.100.0/24"),
            ("2002:c000:301::1", "- unknown"),
        ] {
            assert_eq!(place(&origin, address), told, "{address}");
        }
    }

    #[test]
    fn whole_families_are_prefixes_too() {
        let origin = origin(&[("0.0.0.0/0", "IT"), ("::/0", "DE")], Some("CH"));
        assert_eq!(place(&origin, "255.255.255.255"), "IT network 0.0.0.0/0");
        assert_eq!(place(&origin, "ffff::1"), "DE network ::/0");
    }

    #[test]
    fn a_default_a_prefix_or_a_database_is_a_configuration() {
        let networks = vec![("::/0".parse().unwrap(), country("IT"))];
        assert!(!Settings::default().is_configured());
        assert!(Settings { networks, ..Settings::default() }.is_configured());
        assert!(Settings { database: Some("a.mmdb".into()), ..Settings::default() }.is_configured());
        assert!(Settings { default: Some(country("IT")), ..Settings::default() }.is_configured());
    }
}
