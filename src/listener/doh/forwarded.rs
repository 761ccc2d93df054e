//! Whose request a listed forwarder passes on: the rightmost hop of `Forwarded` (RFC 7239) or `X-Forwarded-For` that is
//! not a listed one.
//!
//! Read from the right, since only what stands there is the forwarder's own word: whatever a client has written stands
//! to the left of it, open quotes included, and cannot reach it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, header};

use crate::listener::trust::Prefixes;

/// Hops looked at: more forwarders of one's own stand behind each other nowhere.
pub const HOPS_MAX: usize = 16;

/// Longer than any address with a port, in octets.
const NODE_OCTETS_MAX: usize = 64;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whose a request is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Of the client at this address.
    Client(IpAddr),
    /// Of one whom a forwarder does not tell, or tells in no way that we know. It was passed on by the listed hop at
    /// this address; None: by the peer itself.
    Hidden(Option<IpAddr>),
}

/// Says which, and no more: a client's address is never written anywhere.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Client(_)) { "Client" } else { "Hidden" })
    }
}

/// Whose a request from a listed peer is, by `Forwarded` or `X-Forwarded-For`. None: no hop is named, so it is the
/// peer's own. Does not allocate.
///
/// Where every hop is a listed one, the first of them is the client. Where the two name different clients, one of them
/// is a client's own work, since a forwarder writes one and passes the other on: then neither is believed.
#[must_use]
pub fn source(headers: &HeaderMap, listed: &Prefixes) -> Option<Source> {
    let forwarded = rightmost(elements(headers, &header::FORWARDED, Quotes::Count).map(forwarded), listed);
    let older = rightmost(elements(headers, &X_FORWARDED_FOR, Quotes::MeanNothing).map(node), listed);
    match (forwarded, older) {
        (Some(one), Some(other)) if one != other => Some(Source::Hidden(None)),
        (one, other) => one.or(other),
    }
}

/// The first hop that is not a listed one.
fn rightmost(hops: impl Iterator<Item = Option<IpAddr>>, listed: &Prefixes) -> Option<Source> {
    let mut last = None;
    for (number, hop) in hops.enumerate() {
        match hop {
            Some(address) if number < HOPS_MAX && listed.contains(address) => last = Some(address),
            Some(address) if number < HOPS_MAX => return Some(Source::Client(address)),
            _ => return Some(Source::Hidden(last)),
        }
    }
    last.map(Source::Client)
}

/// Whether a comma between quotation marks is one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Count,
    MeanNothing,
}

/// The elements of a list, the last one first; several fields of a name are one list (RFC 9110 §5.3), and an empty
/// element is none (§5.6.1).
fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName, quotes: Quotes) -> impl Iterator<Item = &'h [u8]> {
    let fields = headers.get_all(name).into_iter().rev();
    fields.flat_map(move |field| {
        let mut left = Some(field.as_bytes());
        std::iter::from_fn(move || {
            let (rest, element) = split_last(left?, quotes);
            left = rest;
            Some(element.trim_ascii())
        })
        .filter(|element| !element.is_empty())
    })
}

/// What stands before the last comma, if there is one, and what behind it.
fn split_last(list: &[u8], quotes: Quotes) -> (Option<&[u8]>, &[u8]) {
    let mut quoted = false;
    for (at, octet) in list.iter().enumerate().rev() {
        match octet {
            b'"' if quotes == Quotes::Count && !(quoted && is_escaped(&list[..at])) => quoted = !quoted,
            b',' if !quoted => return (Some(&list[..at]), &list[at + 1..]),
            _ => {}
        }
    }
    (None, list)
}

/// Whether what follows `before` is escaped: an odd number of backslashes ends it.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|octet| **octet == b'\\').count() % 2 == 1
}

/// The address that an element of `Forwarded` has behind `for`; None: it has no such.
fn forwarded(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut left = Some(element);
    while let Some(pairs) = left {
        let (pair, rest) = split_first(pairs);
        left = rest;
        let Some(at) = pair.iter().position(|octet| *octet == b'=') else { continue };
        if pair[..at].trim_ascii().eq_ignore_ascii_case(b"for") {
            // RFC 7239 §4: not more than once.
            if found.is_some() {
                return None;
            }
            found = Some(value(pair[at + 1..].trim_ascii())?);
        }
    }
    found
}

/// What stands before the first semicolon, and what behind it, if there is one.
fn split_first(pairs: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, octet) in pairs.iter().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return (&pairs[..at], Some(&pairs[at + 1..])),
            _ => {}
        }
    }
    (pairs, None)
}

/// The address of a token or quoted string (RFC 9110 §5.6.4).
fn value(text: &[u8]) -> Option<IpAddr> {
    let Some(quoted) = text.strip_prefix(b"\"") else { return node(text) };
    let quoted = quoted.strip_suffix(b"\"")?;
    let (mut octets, mut length, mut escaped) = ([0; NODE_OCTETS_MAX], 0, false);
    for octet in quoted {
        if *octet == b'\\' && !escaped {
            escaped = true;
            continue;
        }
        escaped = false;
        *octets.get_mut(length)? = *octet;
        length += 1;
    }
    node(&octets[..length])
}

/// The address of a node (RFC 7239 §6), with or without a port; None for `unknown`, an obfuscated one, and all else.
/// IPv6 is taken without its brackets too, as `X-Forwarded-For` has it.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= NODE_OCTETS_MAX)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse::<Ipv6Addr>().ok()?), port)
        }
        None => {
            let at = text.find(':')?;
            (IpAddr::V4(text[..at].parse().ok()?), &text[at..])
        }
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    is_port.then(|| address.to_canonical())
}

/// A port or an obfuscated one; nothing is done with either.
fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// What fields say, where 127.0.0.0/8 and 2001:db8:f::/48 are listed.
    fn said(fields: &[(&str, &str)]) -> Option<Source> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let listed = ["127.0.0.0/8", "2001:db8:f::/48"].iter().map(|prefix| prefix.parse().unwrap()).collect();
        source(&headers, &listed)
    }

    fn client(address: &str) -> Option<Source> {
        Some(Source::Client(address.parse().unwrap()))
    }

    fn hidden(last: &str) -> Option<Source> {
        Some(Source::Hidden(last.parse().ok()))
    }

    #[test]
    fn nodes_are_addresses_in_every_form_of_the_rfc() {
        for (text, expected) in [
            ("for=192.0.2.43", client("192.0.2.43")),
            ("FOR=192.0.2.43", client("192.0.2.43")),
            ("For=\"[2001:db8:cafe::17]:4711\"", client("2001:db8:cafe::17")),
            ("for=\"[2001:db8:cafe::17]\"", client("2001:db8:cafe::17")),
            ("for=\"[::ffff:192.0.2.43]\"", client("192.0.2.43")),
            ("for=\"192.0.2.43:47011\"", client("192.0.2.43")),
            ("for=192.0.2.43:47011", client("192.0.2.43")),
            ("for=\"192.0.2.43:_port\"", client("192.0.2.43")),
            ("for=\"192\\.0.2.43\"", client("192.0.2.43")),
            ("proto=https;for=192.0.2.43;by=203.0.113.60", client("192.0.2.43")),
            ("by=\"a;for=1.1.1.1, for=2.2.2.2\" ; for = 192.0.2.43", client("192.0.2.43")),
            ("by=\"a\\\"; for=1.1.1.1\";for=192.0.2.43", client("192.0.2.43")),
            (";;for=192.0.2.43;", client("192.0.2.43")),
        ] {
            assert_eq!(said(&[("forwarded", text)]), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_hides_the_client() {
        for text in [
            "for=unknown",
            "for=_hidden",
            "for=\"_SEVKISEK\"",
            "proto=https",
            "for",
            "for=",
            "for=\"192.0.2.43",
            "for=192.0.2.43\"",
            "for=192.0.2.43;for=192.0.2.43",
            "for=[2001:db8::1",
            "for=\"[2001:db8::1]4711\"",
            "for=\"[192.0.2.43]\"",
            "for=192.0.2.43:",
            "for=\"192.0.2.43:1 2\"",
            "for=192.0.2.256",
            "for=2001:db8::1%eth0",
            "192.0.2.43",
            "xfor=192.0.2.43",
            "for=192.0.2.43, for=unknown",
        ] {
            assert_eq!(said(&[("forwarded", text)]), hidden("none"), "{text}");
            assert_eq!(said(&[("forwarded", &format!("{text}, for=127.0.0.1"))]), hidden("127.0.0.1"), "{text}");
        }
        let long = format!("for=\"{}192.0.2.43\"", "\\0".repeat(NODE_OCTETS_MAX));
        assert_eq!(said(&[("forwarded", &long)]), hidden("none"));
    }

    #[test]
    fn the_rightmost_hop_that_is_not_listed_is_the_client() {
        for (text, expected) in [
            ("for=192.0.2.1, for=192.0.2.2", client("192.0.2.2")),
            ("for=192.0.2.1, for=192.0.2.2, for=127.0.0.1", client("192.0.2.2")),
            ("for=192.0.2.1,for=192.0.2.2,for=127.0.0.3,for=\"[2001:db8:f::1]\"", client("192.0.2.2")),
            (",, for=192.0.2.1 ,, for=127.0.0.1,", client("192.0.2.1")),
            // Nobody but forwarders: the first of them asks for itself.
            ("for=127.0.0.2, for=127.0.0.1", client("127.0.0.2")),
            ("", None),
            (" , ,", None),
        ] {
            assert_eq!(said(&[("forwarded", text)]), expected, "{text}");
            let plain = text.replace("for=", "").replace(['"', '[', ']'], "");
            assert_eq!(said(&[("x-forwarded-for", &plain)]), expected, "{plain}");
        }
        assert_eq!(said(&[]), None);
        assert_eq!(said(&[("x-forwarded-for", "192.0.2.1:4711, unknown")]), hidden("none"));
        assert_eq!(said(&[("x-forwarded-for", "[2001:db8::1]:4711")]), client("2001:db8::1"));
    }

    #[test]
    fn several_fields_are_one_list() {
        let fields = [("forwarded", "for=192.0.2.1"), ("forwarded", "for=192.0.2.2"), ("forwarded", "for=127.0.0.1")];
        assert_eq!(said(&fields), client("192.0.2.2"));
        assert_eq!(said(&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "127.0.0.1, ")]), client("192.0.2.1"));
    }

    #[test]
    fn two_headers_that_disagree_are_both_disbelieved() {
        let older = ("x-forwarded-for", "192.0.2.1");
        assert_eq!(said(&[older, ("forwarded", "for=192.0.2.1;proto=https")]), client("192.0.2.1"));
        assert_eq!(said(&[older, ("forwarded", "for=192.0.2.2")]), hidden("none"));
        assert_eq!(said(&[older, ("forwarded", "for=unknown")]), hidden("none"));
        assert_eq!(said(&[older, ("forwarded", " ,")]), client("192.0.2.1"), "it says nothing");
        assert_eq!(format!("{:?}", said(&[older])), "Some(Client)", "of an address");
    }

    #[test]
    fn what_a_client_wrote_cannot_reach_the_forwarders_word() {
        for written in ["for=\"198.51.100.1", "by=\"", "\\", "for=\"\\", "\"\\\"", "for=198.51.100.1;by=\"a\\\\\"x"] {
            let appended = format!("{written}, for=192.0.2.2");
            assert_eq!(said(&[("forwarded", &appended)]), client("192.0.2.2"), "{written}");
            let appended = format!("{written}, for=\"[2001:db8::2]\"");
            assert_eq!(said(&[("forwarded", &appended)]), client("2001:db8::2"), "{written}");
            assert_eq!(said(&[("forwarded", written), ("forwarded", "for=192.0.2.2")]), client("192.0.2.2"));
        }
    }

    #[test]
    fn hops_are_bounded_from_both_sides() {
        let hops = |listed: usize| format!("192.0.2.1{}", ", 127.0.0.1".repeat(listed));
        assert_eq!(said(&[("x-forwarded-for", &hops(HOPS_MAX - 1))]), client("192.0.2.1"));
        assert_eq!(said(&[("x-forwarded-for", &hops(HOPS_MAX))]), hidden("127.0.0.1"));
    }

    #[test]
    fn a_list_cut_anywhere_gives_no_client_that_is_not_in_it() {
        let whole = "for=198.51.100.23;by=\"a, \\\"b\";proto=https, for=\"[2001:db8:cafe::17]:4711\", for=127.0.0.1";
        for cut in 0..=whole.len() {
            for name in ["forwarded", "x-forwarded-for"] {
                if let Some(Source::Client(address)) = said(&[(name, &whole[..cut])]) {
                    let text = address.to_string();
                    assert!(whole[..cut].contains(&text), "{text} at {cut}");
                }
            }
        }
    }
}
