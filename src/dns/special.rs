//! Special-use names: zones that no public server is asked about.

use std::sync::LazyLock;

use super::Name;

/// What there is in a special zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// NXDOMAIN for the zone's own name too: nothing exists there.
    Nothing,
    /// An empty zone: NODATA at its own name, NXDOMAIN below (RFC 6303 §3).
    Empty,
    /// Loopback addresses (RFC 6761 §6.3).
    Localhost,
    /// Discovery (RFC 9462).
    ResolverArpa,
}

/// Zones that are never forwarded, besides the reverse ones: `.onion` (RFC 7686 §2), `test`, `localhost` and `invalid`
/// (RFC 6761 §6), `home.arpa` (RFC 8375 §4), `resolver.arpa` (RFC 9462 §6).
const SPECIAL: [(&str, Kind); 6] = [
    ("onion", Kind::Nothing),
    ("test", Kind::Nothing),
    ("invalid", Kind::Nothing),
    ("localhost", Kind::Localhost),
    ("home.arpa", Kind::Empty),
    ("resolver.arpa", Kind::ResolverArpa),
];

/// Reverse zones of addresses that mean nothing outside (RFC 6303 §4; `64.100` to `127.100` are RFC 7793's,
/// `16.172` to `31.172` RFC 1918's: both are added in a loop).
const REVERSE: [&str; 17] = [
    "10.in-addr.arpa",
    "168.192.in-addr.arpa",
    "0.in-addr.arpa",
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "d.f.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
];

/// Every special zone and what there is in it.
static ZONES: LazyLock<Vec<(Name, Kind)>> = LazyLock::new(|| {
    let reverse = (16..32).map(|octet| format!("{octet}.172.in-addr.arpa"));
    let shared = (64..128).map(|octet| format!("{octet}.100.in-addr.arpa"));
    let empty = REVERSE.iter().map(ToString::to_string).chain(reverse).chain(shared);
    let special = SPECIAL.iter().map(|(name, kind)| (name.to_string(), *kind));
    let zones = special.chain(empty.map(|name| (name, Kind::Empty)));
    // Every one of these names is a constant of this file, and a test reads them.
    zones.filter_map(|(name, kind)| Some((Name::from_text(&name).ok()?, kind))).collect()
});

/// The special zone that a name is, or lies in.
#[must_use]
pub fn zone_of(name: &Name) -> Option<&'static (Name, Kind)> {
    // Nearly every query ends here: its top-level label is none of these.
    if name.is_root() || !matches!(name.label_from_root(1), b"arpa" | b"onion" | b"test" | b"invalid" | b"localhost") {
        return None;
    }
    ZONES.iter().find(|(zone, _)| name.is_at_or_below(zone))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_zone_is_a_name() {
        assert_eq!(ZONES.len(), SPECIAL.len() + REVERSE.len() + 16 + 64);
        assert_eq!(ZONES.iter().filter(|(zone, _)| zone.labels() == 34).count(), 2);
    }

    #[test]
    fn zones_hold_what_is_at_and_below_them() {
        let zone = |text: &str| zone_of(&Name::from_text(text).unwrap()).map(|(zone, _)| zone.to_string());
        assert_eq!(zone("1.1.168.192.in-addr.arpa").as_deref(), Some("168.192.in-addr.arpa"));
        assert_eq!(zone("_dns.resolver.arpa").as_deref(), Some("resolver.arpa"));
        assert_eq!(zone("test").as_deref(), Some("test"));
        assert_eq!(
            (zone("mytest"), zone("ipv4only.arpa"), zone("32.172.in-addr.arpa"), zone(".")),
            (None, None, None, None)
        );
    }
}
