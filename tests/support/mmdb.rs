//! Writes small databases in the MaxMind DB format, so that tests need none of anybody else's.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "for tests; each uses some of it")]

use std::net::IpAddr;

/// 2026-08-05, noon in UTC.
pub const BUILT: u64 = 1_785_931_200;

/// What a database is like.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub built: u64,
    /// 4 or 6.
    pub ip_version: u16,
    /// 24, 28 or 32.
    pub record_bits: u16,
}

impl Default for Form {
    fn default() -> Self {
        Self { built: BUILT, ip_version: 6, record_bits: 24 }
    }
}

/// What a record of the tree leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Nothing,
    Node(usize),
    /// By its place in the data section.
    Data(usize),
}

/// A database of lines `PREFIX CODE` (`country.iso_code`), `PREFIX flat CODE` (`country_code`), `PREFIX continent CODE`
/// (no country) or `PREFIX alias PREFIX` (the same node; the other prefix stands above). A longer prefix goes below a
/// shorter one.
pub fn countries(form: Form, lines: &str) -> Vec<u8> {
    let (mut nodes, mut data) = (vec![[Next::Nothing; 2]], Vec::new());
    let mut known: Vec<(String, usize)> = Vec::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (prefix, what) = line.split_once(' ').unwrap();
        let next = match what.strip_prefix("alias ") {
            Some(other) => find(&nodes, &bits(form, other)),
            None => match known.iter().find(|(text, _)| text == what) {
                Some((_, place)) => Next::Data(*place),
                None => {
                    known.push((what.to_owned(), data.len()));
                    data.extend(record(what));
                    Next::Data(known.last().unwrap().1)
                }
            },
        };
        insert(&mut nodes, &bits(form, prefix), next);
    }
    assemble(form, &nodes, &data)
}

/// A record of the data section, by what stands behind the prefix of a line.
pub fn record(what: &str) -> Vec<u8> {
    match what.split(' ').collect::<Vec<_>>()[..] {
        ["flat", code] => map(&[("country_code", text(code))]),
        ["continent", code] => map(&[("continent", map(&[("code", text(code))]))]),
        [code] => map(&[("continent", map(&[("code", text("EU"))])), ("country", map(&[("iso_code", text(code))]))]),
        _ => panic!("not a record: {what}"),
    }
}

/// Puts the tree, the data and what describes them behind each other.
pub fn assemble(form: Form, nodes: &[[Next; 2]], data: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    for node in nodes {
        let [left, right] = node.map(|next| match next {
            Next::Nothing => nodes.len() as u32,
            Next::Node(number) => number as u32,
            Next::Data(place) => (nodes.len() + 16 + place) as u32,
        });
        let (l, r) = (left.to_be_bytes(), right.to_be_bytes());
        match form.record_bits {
            24 => octets.extend([&l[1..], &r[1..]].concat()),
            28 => octets.extend([&l[1..], &[l[0] << 4 | r[0]], &r[1..]].concat()),
            _ => octets.extend([l, r].concat()),
        }
    }
    octets.extend([0; 16]);
    octets.extend(data);
    octets.extend(b"\xab\xcd\xefMaxMind.com");
    octets.extend(map(&[
        ("binary_format_major_version", number(5, 2)),
        ("binary_format_minor_version", number(5, 0)),
        ("build_epoch", number(9, form.built)),
        ("database_type", text("Test-Country")),
        ("description", map(&[("en", text("for tests"))])),
        ("ip_version", number(5, form.ip_version.into())),
        ("languages", vec![1, 4, 0x42, b'e', b'n']),
        ("node_count", number(6, nodes.len() as u64)),
        ("record_size", number(5, form.record_bits.into())),
    ]));
    octets
}

/// The bits of a prefix, from the root.
fn bits(form: Form, prefix: &str) -> Vec<usize> {
    let (address, length) = prefix.split_once('/').unwrap();
    let length: u32 = length.parse().unwrap();
    let (value, length) = match address.parse().unwrap() {
        IpAddr::V4(address) if form.ip_version == 4 => (u128::from(u32::from(address)) << 96, length),
        IpAddr::V4(address) => (u128::from(u32::from(address)), length + 96),
        IpAddr::V6(address) => (u128::from(address), length),
    };
    (0..length).map(|at| (value >> (127 - at) & 1) as usize).collect()
}

fn find(nodes: &[[Next; 2]], bits: &[usize]) -> Next {
    bits.iter().fold(Next::Node(0), |next, bit| match next {
        Next::Node(number) => nodes[number][*bit],
        other => other,
    })
}

/// What stood where a longer prefix goes is then on both sides of the way to it.
fn insert(nodes: &mut Vec<[Next; 2]>, bits: &[usize], next: Next) {
    let (last, way) = bits.split_last().unwrap();
    let mut node = 0;
    for bit in way {
        node = match nodes[node][*bit] {
            Next::Node(number) => number,
            other => {
                nodes.push([other; 2]);
                let number = nodes.len() - 1;
                nodes[node][*bit] = Next::Node(number);
                number
            }
        };
    }
    nodes[node][*last] = next;
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut octets = vec![7 << 5 | pairs.len() as u8];
    for (key, value) in pairs {
        octets.extend(text(key));
        octets.extend(value);
    }
    octets
}

/// Up to 28 octets.
fn text(text: &str) -> Vec<u8> {
    [&[2 << 5 | text.len() as u8], text.as_bytes()].concat()
}

/// Types from 8 on are written in an octet of their own.
fn number(kind: u8, number: u64) -> Vec<u8> {
    let octets: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
    let size = octets.len() as u8;
    let head = if kind < 8 { vec![kind << 5 | size] } else { vec![size, kind - 7] };
    [head, octets].concat()
}
