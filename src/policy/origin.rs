//! A client's country, and the ground for it.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::joint::JointPrefixMap;

/// An assigned ISO 3166-1 alpha-2 code, upper case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// The country of an assigned code, upper case as ISO 3166-1 has it; None for any other text.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        let code = code.as_bytes().try_into().ok()?;
        ASSIGNED.binary_search(&code).ok().map(|_| Self(code))
    }

    /// The two letters as a number, which is never 0.
    #[must_use]
    pub fn to_bits(self) -> u16 {
        u16::from_be_bytes(self.0)
    }

    /// The inverse of [`Self::to_bits`], cheap enough for every query; it trusts that the number came from there.
    #[must_use]
    pub fn from_bits(bits: u16) -> Option<Self> {
        (bits != 0).then_some(Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for octet in self.0 {
            fmt::Write::write_char(f, char::from(octet))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Country({self})")
    }
}

/// How a country was come to. Its `Display` is what `explain` prints: `network 127.0.0.2/32`, `default` or `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// The longest prefix of `[origin] networks` that the address lies in.
    Network(IpNet),
    /// `[origin] default`.
    Default,
    /// Nothing says.
    Unknown,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(prefix) => write!(f, "network {prefix}"),
            Self::Default => f.write_str("default"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// `[origin]`: where countries come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Prefixes whose country is said.
    pub networks: Vec<(IpNet, Country)>,
    /// The country of everyone else.
    pub default: Option<Country>,
}

impl Settings {
    /// Whether anything at all can tell a country.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.networks.is_empty() || self.default.is_some()
    }
}

/// Tells a client's country from its address.
#[derive(Debug)]
pub struct Origin {
    networks: JointPrefixMap<IpNet, Country>,
    default: Option<Country>,
}

impl Origin {
    /// Built from its settings; the same prefix twice: the later one counts.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut networks = JointPrefixMap::new();
        for (prefix, country) in &settings.networks {
            networks.insert(canonical(*prefix), *country);
        }
        Self { networks, default: settings.default }
    }

    /// The country of an address (IPv4-mapped ones as the IPv4 address inside), and the ground. Does not allocate.
    #[must_use]
    pub fn place(&self, address: IpAddr) -> (Option<Country>, Ground) {
        match self.networks.get_lpm(&IpNet::from(address.to_canonical())) {
            Some((prefix, country)) => (Some(*country), Ground::Network(prefix)),
            None if self.default.is_some() => (self.default, Ground::Default),
            None => (None, Ground::Unknown),
        }
    }

    /// Whether anything at all can tell a country.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        !self.networks.is_empty() || self.default.is_some()
    }
}

/// The prefix without host bits, and as an IPv4 prefix where it lies within `::ffff:0:0/96`: [`Origin::place`] asks
/// about IPv4-mapped addresses as the IPv4 address inside (RFC 4291 §2.5.5.2), so an IPv6 prefix would never meet them.
fn canonical(prefix: IpNet) -> IpNet {
    match prefix {
        IpNet::V6(prefix) => mapped(prefix).map_or(IpNet::V6(prefix), IpNet::V4),
        prefix => prefix,
    }
    .trunc()
}

/// The IPv4 prefix inside an IPv4-mapped one.
fn mapped(prefix: Ipv6Net) -> Option<Ipv4Net> {
    let length = prefix.prefix_len().checked_sub(MAPPED_BITS)?;
    Ipv4Net::new(prefix.addr().to_ipv4_mapped()?, length).ok()
}

/// The length of `::ffff:0:0/96`, in bits.
const MAPPED_BITS: u8 = 96;

/// The officially assigned alpha-2 codes of ISO 3166-1, in order. User-assigned, reserved and withdrawn ones (XK, EU,
/// UK, AN) are not among them: no order has effect in a place that is not on the list.
#[rustfmt::skip]
const ASSIGNED: [[u8; 2]; 249] = [
    *b"AD", *b"AE", *b"AF", *b"AG", *b"AI", *b"AL", *b"AM", *b"AO", *b"AQ", *b"AR", *b"AS", *b"AT", *b"AU", *b"AW", *b"AX", *b"AZ",
    *b"BA", *b"BB", *b"BD", *b"BE", *b"BF", *b"BG", *b"BH", *b"BI", *b"BJ", *b"BL", *b"BM", *b"BN", *b"BO", *b"BQ", *b"BR", *b"BS",
    *b"BT", *b"BV", *b"BW", *b"BY", *b"BZ", *b"CA", *b"CC", *b"CD", *b"CF", *b"CG", *b"CH", *b"CI", *b"CK", *b"CL", *b"CM", *b"CN",
    *b"CO", *b"CR", *b"CU", *b"CV", *b"CW", *b"CX", *b"CY", *b"CZ", *b"DE", *b"DJ", *b"DK", *b"DM", *b"DO", *b"DZ", *b"EC", *b"EE",
    *b"EG", *b"EH", *b"ER", *b"ES", *b"ET", *b"FI", *b"FJ", *b"FK", *b"FM", *b"FO", *b"FR", *b"GA", *b"GB", *b"GD", *b"GE", *b"GF",
    *b"GG", *b"GH", *b"GI", *b"GL", *b"GM", *b"GN", *b"GP", *b"GQ", *b"GR", *b"GS", *b"GT", *b"GU", *b"GW", *b"GY", *b"HK", *b"HM",
    *b"HN", *b"HR", *b"HT", *b"HU", *b"ID", *b"IE", *b"IL", *b"IM", *b"IN", *b"IO", *b"IQ", *b"IR", *b"IS", *b"IT", *b"JE", *b"JM",
    *b"JO", *b"JP", *b"KE", *b"KG", *b"KH", *b"KI", *b"KM", *b"KN", *b"KP", *b"KR", *b"KW", *b"KY", *b"KZ", *b"LA", *b"LB", *b"LC",
    *b"LI", *b"LK", *b"LR", *b"LS", *b"LT", *b"LU", *b"LV", *b"LY", *b"MA", *b"MC", *b"MD", *b"ME", *b"MF", *b"MG", *b"MH", *b"MK",
    *b"ML", *b"MM", *b"MN", *b"MO", *b"MP", *b"MQ", *b"MR", *b"MS", *b"MT", *b"MU", *b"MV", *b"MW", *b"MX", *b"MY", *b"MZ", *b"NA",
    *b"NC", *b"NE", *b"NF", *b"NG", *b"NI", *b"NL", *b"NO", *b"NP", *b"NR", *b"NU", *b"NZ", *b"OM", *b"PA", *b"PE", *b"PF", *b"PG",
    *b"PH", *b"PK", *b"PL", *b"PM", *b"PN", *b"PR", *b"PS", *b"PT", *b"PW", *b"PY", *b"QA", *b"RE", *b"RO", *b"RS", *b"RU", *b"RW",
    *b"SA", *b"SB", *b"SC", *b"SD", *b"SE", *b"SG", *b"SH", *b"SI", *b"SJ", *b"SK", *b"SL", *b"SM", *b"SN", *b"SO", *b"SR", *b"SS",
    *b"ST", *b"SV", *b"SX", *b"SY", *b"SZ", *b"TC", *b"TD", *b"TF", *b"TG", *b"TH", *b"TJ", *b"TK", *b"TL", *b"TM", *b"TN", *b"TO",
    *b"TR", *b"TT", *b"TV", *b"TW", *b"TZ", *b"UA", *b"UG", *b"UM", *b"US", *b"UY", *b"UZ", *b"VA", *b"VC", *b"VE", *b"VG", *b"VI",
    *b"VN", *b"VU", *b"WF", *b"WS", *b"YE", *b"YT", *b"ZA", *b"ZM", *b"ZW",
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn country(code: &str) -> Country {
        Country::from_code(code).unwrap()
    }

    fn origin(networks: &[(&str, &str)], default: Option<&str>) -> Origin {
        let networks = networks.iter().map(|(prefix, code)| (prefix.parse().unwrap(), country(code))).collect();
        Origin::new(&Settings { networks, default: default.map(country) })
    }

    /// What `place` says of an address, as text.
    fn place(origin: &Origin, address: &str) -> String {
        let (country, ground) = origin.place(address.parse().unwrap());
        format!("{} {ground}", country.map_or("-".to_owned(), |country| country.to_string()))
    }

    #[test]
    fn assigned_codes_are_sorted_and_upper_case() {
        assert!(ASSIGNED.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ASSIGNED.iter().flatten().all(u8::is_ascii_uppercase));
        for code in ["IT", "DE", "AD", "ZW", "GB", "AX", "BQ", "SS"] {
            assert_eq!(country(code).to_string(), code);
        }
    }

    #[test]
    fn other_codes_are_no_country() {
        for code in ["", "I", "it", "It", "ITA", "UK", "EU", "XK", "AN", "*", "ZZ", "I\u{c0}", "é"] {
            assert_eq!(Country::from_code(code), None, "{code}");
        }
    }

    #[test]
    fn bits_go_there_and_back() {
        for code in ASSIGNED {
            let country = Country(code);
            assert_ne!(country.to_bits(), 0);
            assert_eq!(Country::from_bits(country.to_bits()), Some(country));
        }
        assert_eq!(Country::from_bits(0), None);
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
    fn whole_families_are_prefixes_too() {
        let origin = origin(&[("0.0.0.0/0", "IT"), ("::/0", "DE")], Some("CH"));
        assert_eq!(place(&origin, "255.255.255.255"), "IT network 0.0.0.0/0");
        assert_eq!(place(&origin, "ffff::1"), "DE network ::/0");
    }

    #[test]
    fn a_default_or_a_prefix_is_a_configuration() {
        assert!(!origin(&[], None).is_configured());
        assert!(origin(&[], Some("IT")).is_configured());
        assert!(origin(&[("::/0", "IT")], None).is_configured());
        assert!(!Settings::default().is_configured());
    }
}
