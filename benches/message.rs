//! What reading and writing a message costs: names, queries, replies, their TTLs, and the answers that leave.

#![allow(missing_docs, clippy::print_stderr, reason = "a benchmark prints")]

use std::hint::black_box;

use bailiwick::answer::{Answer, Manner};
use bailiwick::dns::{HEADER_OCTETS, Name, Qclass, Qtype};
use bailiwick::policy::load::{Files, LoadedOrder, Settings, load_in_hand};
use bailiwick::policy::order::Order;
use bailiwick::policy::{Findings, Policy, View};
use bailiwick::query::{Freshness, Query, Reply, Transport};
use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;

/// 730,225 names of real block lists.
const NAMES: &str = "../shared/data/domains/blocklistproject-union-730k.txt";

/// How many of them are read in turn: more than a branch predictor learns by heart.
const TURNS: usize = 4_096;

const MANNER: Manner = Manner { trust_ad: false, keepalive: 650 };

/// A query that asks for padding, as most stub resolvers do; or one without an OPT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opt {
    Padded,
    Absent,
}

fn main_benchmark(criterion: &mut Criterion) {
    let names = names();
    reading(criterion, &names);
    writing(criterion, &names);
}

fn reading(criterion: &mut Criterion, names: &[Name]) {
    let texts: Vec<_> = names.iter().map(ToString::to_string).collect();
    in_turn(criterion, "name, from text", &texts, |text| Name::from_text(text).is_ok());
    let plain: Vec<_> = names.iter().map(|name| query(name, Opt::Absent)).collect();
    in_turn(criterion, "name, parsed in a query", &plain, |octets| Name::parse(octets, HEADER_OCTETS).is_ok());
    in_turn(criterion, "query, read", &plain, |octets| Query::read(octets, Transport::Doh).is_ok());
    let padded: Vec<_> = names.iter().map(|name| query(name, Opt::Padded)).collect();
    in_turn(criterion, "query, read, padded", &padded, |octets| Query::read(octets, Transport::Doh).is_ok());
    let replies: Vec<_> = names.iter().map(|name| (name, response(name))).collect();
    in_turn(criterion, "reply, read, four addresses", &replies, |(name, octets)| {
        Reply::read(octets, name, Qtype::A, Qclass::IN).is_ok()
    });
    let mut reply = reply(&names[0]);
    criterion.bench_function("reply, four TTLs counted down in place", |bench| {
        bench.iter(|| black_box(&mut reply).map_ttls(|record| record.ttl().saturating_sub(1)));
    });
}

fn writing(criterion: &mut Criterion, names: &[Name]) {
    let policy = policy();
    let (view, now) = (View { country: None }, Timestamp::UNIX_EPOCH);
    for opt in [Opt::Absent, Opt::Padded] {
        let title = |what: &str| if opt == Opt::Padded { format!("{what}, padded") } else { what.to_owned() };
        let octets: Vec<_> = names.iter().map(|name| query(name, opt)).collect();
        let replies: Vec<_> = names.iter().map(reply).collect();
        let queries = read(&octets);
        let permitted: Vec<_> =
            queries.iter().filter_map(|query| policy.admit(query, view, now, |_| {}).ok()).collect();
        let screened: Vec<_> = permitted
            .iter()
            .zip(&replies)
            .filter_map(|(permitted, reply)| {
                // As the cache hands it out: its TTLs go down by its age as it is written.
                let kept = Reply::kept(reply.octets(), Freshness::Aged(7));
                policy.screen(permitted, kept, &Findings::default(), view, now, |_| {}).ok()
            })
            .collect();
        write(criterion, &title("answer, written, four addresses"), &screened, Answer::screened);
        let below: Vec<_> = (0..TURNS).map(|number| name(&format!("www.host-{number}.blocked.example"))).collect();
        let octets: Vec<_> = below.iter().map(|name| query(name, opt)).collect();
        let queries = read(&octets);
        let blocks: Vec<_> = queries.iter().filter_map(|query| policy.admit(query, view, now, |_| {}).err()).collect();
        write(criterion, &title("answer, written, blocked"), &blocks, Answer::block);
    }
}

fn write<'a, T>(criterion: &mut Criterion, title: &str, from: &'a [T], answer: impl Fn(&'a T) -> Answer<'a>) {
    assert!(from.len() > TURNS / 2, "{title}: nearly nothing to write");
    let mut out = BytesMut::with_capacity(4_096);
    let mut turns = from.iter().cycle();
    criterion.bench_function(title, |bench| {
        bench.iter(|| {
            out.clear();
            turns.next().map(|from| black_box(answer(from).write(MANNER, &mut out)))
        });
    });
}

/// Times one of them; all of them succeed.
fn in_turn<T>(criterion: &mut Criterion, title: &str, items: &[T], mut succeeds: impl FnMut(&T) -> bool) {
    let mut turns = items.iter().cycle();
    criterion.bench_function(title, |bench| {
        bench.iter(|| assert!(turns.next().is_some_and(|item| succeeds(black_box(item)))));
    });
}

/// Some of the real names; made up ones where they are not there.
fn names() -> Vec<Name> {
    let Ok(text) = std::fs::read_to_string(NAMES) else {
        eprintln!("{NAMES} is not there: the names are made up");
        return (0..TURNS).map(|number| name(&format!("www.made-up-{number}.example"))).collect();
    };
    let lines = text.lines().step_by(170);
    lines.filter_map(|line| Name::from_text(line).ok()).take(TURNS).collect()
}

fn name(text: &str) -> Name {
    Name::from_text(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// One order, about `blocked.example` and all below it.
fn policy() -> Policy {
    let text = "id = 'order-1'\nissuer = 'Test Court'\njurisdiction = ['*']\nreceived = 1969-01-01T00:00:00Z\n\
                state = 'in-force'\n[[target]]\nsubtree = ['blocked.example']\n";
    let order = Order::read("x.toml".as_ref(), text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let orders = vec![LoadedOrder::of(order, b"x")];
    let settings = Settings { hold_fallback: true, ..Settings::default() };
    let loaded = load_in_hand(&settings, orders, &Files::default(), Timestamp::UNIX_EPOCH);
    Policy::compile(&loaded, 1, Timestamp::UNIX_EPOCH).unwrap_or_else(|what| panic!("{what}"))
}

fn read(queries: &[Vec<u8>]) -> Vec<Query<'_>> {
    queries.iter().filter_map(|octets| Query::read(octets, Transport::Doh).ok()).collect()
}

/// A query for A.
fn query(name: &Name, opt: Opt) -> Vec<u8> {
    let padded = opt == Opt::Padded;
    let mut octets = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(padded)];
    octets.extend_from_slice(&Query::plain(name.clone(), Qtype::A).echo.question);
    if padded {
        // RFC 8467 §4.1: to a multiple of 128 octets.
        let padding = (octets.len() + 15).next_multiple_of(128) - octets.len() - 15;
        octets.extend(b"\0\0\x29\x04\xd0\0\0\0\0");
        octets.extend((4 + padding as u16).to_be_bytes());
        octets.extend([0, 12]);
        octets.extend((padding as u16).to_be_bytes());
        octets.resize(octets.len() + padding, 0);
    }
    octets
}

/// A response with four addresses.
fn response(name: &Name) -> Vec<u8> {
    let mut octets = vec![0, 0, 0x81, 0x80, 0, 1, 0, 4, 0, 0, 0, 0];
    octets.extend_from_slice(&Query::plain(name.clone(), Qtype::A).echo.question);
    for last in 1..5 {
        octets.extend([0xc0, HEADER_OCTETS as u8, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, last]);
    }
    octets
}

fn reply(name: &Name) -> Reply<'static> {
    Reply::read(&response(name), name, Qtype::A, Qclass::IN).unwrap_or_else(|error| panic!("{error:?}"))
}

criterion_group!(benches, main_benchmark);
criterion_main!(benches);
