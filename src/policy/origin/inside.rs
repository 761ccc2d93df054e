//! The IPv4 address or prefix inside an IPv6 one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The first 16 bits of a 6to4 address.
const SIX_TO_FOUR: u16 = 0x2002;

/// The IPv4 address inside an IPv4-mapped one (RFC 4291 §2.5.5.2) or a 6to4 one; every other address as it is.
pub(super) fn innermost(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => six_to_four(address).map_or(IpAddr::V6(address), IpAddr::V4),
        address => address,
    }
}

/// RFC 3056 §2: the IPv4 address of the site's router stands behind 2002::/16.
fn six_to_four(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [first, high, low, ..] = address.segments();
    (first == SIX_TO_FOUR).then(|| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
}

/// The IPv4 prefix for one that lies within `::ffff:0:0/96` (RFC 4291 §2.5.5.2), every other as it is: an IPv4-mapped
/// address is looked up as the IPv4 address inside, so an IPv6 prefix would never meet it.
pub(in crate::policy) fn unmapped(prefix: IpNet) -> IpNet {
    match prefix {
        IpNet::V6(mapped) => ipv4_inside(mapped).map_or(prefix, IpNet::V4),
        prefix => prefix,
    }
}

fn ipv4_inside(prefix: Ipv6Net) -> Option<Ipv4Net> {
    let length = prefix.prefix_len().checked_sub(MAPPED_BITS)?;
    Ipv4Net::new(prefix.addr().to_ipv4_mapped()?, length).ok()
}

/// The length of `::ffff:0:0/96`, in bits.
const MAPPED_BITS: u8 = 96;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_address_inside_is_found() {
        for (address, inside) in [
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2002:c000:0201::", "192.0.2.1"),
            ("2002:c000:0201:ffff:ffff:ffff:ffff:ffff", "192.0.2.1"),
            ("2003:c000:0201::", "2003:c000:0201::"),
            ("::192.0.2.1", "::192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(innermost(address.parse().unwrap()).to_string(), inside.parse::<IpAddr>().unwrap().to_string());
        }
    }

    #[test]
    fn a_prefix_of_mapped_addresses_is_one_of_ipv4() {
        for (prefix, canon) in [
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("2002::1/16", "2002::/16"),
            ("10.1.2.3/8", "10.0.0.0/8"),
        ] {
            assert_eq!(unmapped(prefix.parse().unwrap()).trunc().to_string(), canon);
        }
    }
}
