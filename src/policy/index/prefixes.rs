//! Prefixes of `address` targets: returns every one that holds an address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// Prefixes and the places of their rules.
#[derive(Default)]
pub(super) struct Prefixes {
    v4: PrefixMap<Ipv4Net, Vec<u32>>,
    v6: PrefixMap<Ipv6Net, Vec<u32>>,
    rules: usize,
}

impl Prefixes {
    /// Adds a rule. The same prefix may be added any number of times.
    pub(super) fn add(&mut self, prefix: IpNet, place: u32) {
        match prefix.trunc() {
            IpNet::V4(prefix) => self.v4.entry(prefix).or_default().push(place),
            IpNet::V6(prefix) => self.v6.entry(prefix).or_default().push(place),
        }
        self.rules += 1;
    }

    /// Calls `each` with the rules of every prefix that holds the address, the shortest first.
    pub(super) fn meet(&self, address: IpAddr, mut each: impl FnMut(u32)) {
        if self.is_empty() {
            return;
        }
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.cover_values(&whole_v4(v4)).flatten().for_each(|place| each(*place)),
            IpAddr::V6(v6) => self.v6.cover_values(&whole_v6(v6)).flatten().for_each(|place| each(*place)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rules
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rules == 0
    }
}

fn whole_v4(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(address)
}

fn whole_v6(address: Ipv6Addr) -> Ipv6Net {
    Ipv6Net::from(address)
}

impl fmt::Debug for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefixes").field("rules", &self.rules).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_that_holds_an_address_is_met() {
        let mut prefixes = Prefixes::default();
        let written = ["192.0.2.0/24", "192.0.2.7/32", "0.0.0.0/0", "192.0.2.0/24", "2001:db8::/32", "::/0"];
        for (place, prefix) in (0..).zip(written) {
            prefixes.add(prefix.parse().unwrap(), place);
        }
        let met = |address: &str| {
            let mut met = vec![];
            prefixes.meet(address.parse().unwrap(), |place| met.push(place));
            met
        };
        assert_eq!(met("192.0.2.7"), [2, 0, 3, 1]);
        assert_eq!(met("::ffff:192.0.2.8"), [2, 0, 3], "the IPv4 address inside, and no IPv6 prefix");
        assert_eq!(met("192.0.3.0"), [2]);
        assert_eq!(met("2001:db8::1"), [5, 4]);
        assert_eq!(met("2001:db9::1"), [5]);
        assert_eq!(prefixes.len(), 6);
    }
}
