//! The addresses that an SVCB or HTTPS record hints at (RFC 9460 §7.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Name;

/// SvcParamKey ipv4hint (RFC 9460 §14.3.2).
const IPV4HINT: u16 = 4;
/// SvcParamKey ipv6hint.
const IPV6HINT: u16 = 6;

/// Calls `each` with every address of `ipv4hint` and `ipv6hint` in the RDATA of an SVCB or HTTPS record. Parameters that
/// cannot be read end the walk; those before it count, and of a hint cut short every whole address.
pub fn hints(rdata: &[u8], mut each: impl FnMut(IpAddr)) {
    // SvcPriority, then TargetName.
    let Ok(at) = Name::skip(rdata, 2) else { return };
    let mut rest = rdata.get(at..).unwrap_or_default();
    while let Some((&[k1, k0, l1, l0], behind)) = rest.split_first_chunk::<4>() {
        let octets = usize::from(u16::from_be_bytes([l1, l0]));
        let (value, next) = behind.split_at(octets.min(behind.len()));
        match u16::from_be_bytes([k1, k0]) {
            IPV4HINT => value.as_chunks::<4>().0.iter().for_each(|v4| each(Ipv4Addr::from(*v4).into())),
            IPV6HINT => value.as_chunks::<16>().0.iter().for_each(|v6| each(Ipv6Addr::from(*v6).into())),
            _ => {}
        }
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1 . alpn=h2 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1`.
    const RDATA: &[u8] = b"\0\x01\0\0\x01\0\x03\x02h2\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02\
        \0\x06\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";

    fn hinted(rdata: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        hints(rdata, |address| found.push(address.to_string()));
        found
    }

    #[test]
    fn hints_of_both_families_are_found() {
        assert_eq!(hinted(RDATA), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        assert!(hinted(b"\0\0\x01a\0").is_empty(), "AliasMode has none");
    }

    #[test]
    fn every_cut_gives_the_addresses_that_are_whole() {
        for cut in 0..RDATA.len() {
            let whole = match cut {
                0..18 => 0,
                18..22 => 1,
                _ => 2,
            };
            assert_eq!(hinted(&RDATA[..cut]).len(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn hints_of_an_odd_length_and_out_of_order_are_read() {
        assert_eq!(hinted(b"\0\x01\0\0\x06\0\x03abc\0\x04\0\x07\xc0\0\x02\x01\xc0\0\x02"), ["192.0.2.1"]);
        assert_eq!(hinted(b"\0\x01\0\0\x04\xff\xff\xc0\0\x02\x01"), ["192.0.2.1"], "longer than the record");
    }
}
