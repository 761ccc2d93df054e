//! The proxies that are believed about whose connection or request they pass on.

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixSet;

/// Prefixes of addresses, of both families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefixes(JointPrefixSet<IpNet>);

impl Prefixes {
    /// Whether an address lies in one of them; an IPv4 address written as an IPv6 one is the IPv4 address. Does not
    /// allocate.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.get_lpm(&IpNet::from(address.to_canonical())).is_some()
    }

    /// A prefix of length 0: everyone of its family lies in it.
    #[must_use]
    pub fn everyone(&self) -> Option<IpNet> {
        self.0.iter().find(|prefix| prefix.prefix_len() == 0)
    }
}

impl FromIterator<IpNet> for Prefixes {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        Self(prefixes.into_iter().map(|prefix| prefix.trunc()).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Prefixes {
        texts.iter().map(|text| text.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn addresses_lie_in_prefixes_of_their_family() {
        let trusted = prefixes(&["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32"]);
        for (address, expected) in [
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("::ffff:192.0.2.1", true),
            ("2001:db8:ffff::", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(trusted.contains(address.parse().unwrap()), expected, "{address}");
        }
        assert!(!prefixes(&[]).contains([192, 0, 2, 1].into()));
    }

    #[test]
    fn a_prefix_of_everyone_is_found() {
        assert_eq!(prefixes(&["192.0.2.0/24", "0.0.0.0/1"]).everyone(), None);
        assert_eq!(prefixes(&["192.0.2.0/24", "0.0.0.0/0"]).everyone(), "0.0.0.0/0".parse().ok());
        assert_eq!(prefixes(&["::/0"]).everyone(), "::/0".parse().ok());
    }
}
