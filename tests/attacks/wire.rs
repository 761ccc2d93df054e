//! attacks.md, DNS parsing: what a client sends.

use std::time::Duration;

use bailiwick::dns::Qtype;
use bailiwick::dns::message::Header;

use crate::field::{one_worker, others_are_served, processor, query_with, random, resident, under};
use crate::support::{Dot, Server, Upstream, framed, query_with_opt};

const FORMERR: u16 = 1;

/// Sends a message, and reads the RCODE of its answer.
fn rcode(dot: &mut Dot, message: &[u8]) -> u16 {
    dot.ask(&[message.to_vec()]);
    let answer = dot.receive_octets();
    assert_eq!(answer[..2], message[..2]);
    Header::read(&answer).unwrap().rcode().0
}

fn served() -> (Upstream, Server) {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "");
    (upstream, server)
}

#[test]
fn names_that_are_none_are_a_formerr() {
    let (_upstream, server) = served();
    let mut dot = server.dot();
    let question = |name: &[u8]| [b"\0\x01\x01\0\0\x01\0\0\0\0\0\0", name, b"\0\x01\0\x01"].concat();
    let long_name = [&b"\x3f"[..], &[b'a'; 63]].concat().repeat(4);
    for name in [
        &b"\xc0\x0c"[..],                  // a pointer to itself
        b"\x01a\xc0\x0c",                  // a loop
        b"\xc0\x20\0",                     // forward
        b"\xc0\x00",                       // into the header
        b"\x40aaaa\0",                     // a label type that there is not
        &[&long_name[..], b"\0"].concat(), // 257 octets
        b"\x3faaa",                        // past the end
    ] {
        assert_eq!(rcode(&mut dot, &question(name)), FORMERR, "{name:?}");
    }
    // The longest name is a name.
    let longest = [&long_name[..192], b"\x3d", &[b'a'; 61], b"\0"].concat();
    assert_eq!((longest.len(), rcode(&mut dot, &question(&longest))), (255, 0));
}

#[test]
fn an_rdlength_past_the_end_is_a_formerr() {
    let (_upstream, server) = served();
    let record = |rdlength: u16| [b"\xc0\x0c\0\x10\0\x01\0\0\0\0", &rdlength.to_be_bytes()[..], b"\x01a"].concat();
    let mut dot = server.dot();
    assert_eq!(rcode(&mut dot, &query_with(1, [1, 0, 0, 1], &record(2))), 0);
    for rdlength in [1, 3, 0xffff] {
        assert_eq!(rcode(&mut dot, &query_with(1, [1, 0, 0, 1], &record(rdlength))), FORMERR, "{rdlength}");
    }
}

#[test]
fn counts_of_65535_allocate_nothing() {
    let (_upstream, server) = served();
    let before = resident(&server);
    let mut dot = server.dot();
    for counts in [[0xffff, 0, 0, 0], [1, 0xffff, 0, 0], [1, 0, 0xffff, 0], [1, 0, 0, 0xffff], [0xffff; 4]] {
        for _ in 0..100 {
            assert_eq!(rcode(&mut dot, &query_with(1, counts, b"")), FORMERR, "{counts:?}");
        }
    }
    assert!(resident(&server).saturating_sub(before) < 8 << 20);
}

/// A message of pointers each to the one before, and of records that all begin at the last of them.
fn pointer_chain() -> Vec<u8> {
    let chain_at = 12 + 11 + 4 + 12;
    let mut behind = b"\xc0\x0c\0\x10\0\x01\0\0\0\0".to_vec();
    let pointers = (0x3fff - chain_at) / 2;
    behind.extend((2 * pointers as u16).to_be_bytes());
    behind.extend(0xc00c_u16.to_be_bytes());
    for pointer in 1..pointers {
        behind.extend((0xc000 | (chain_at + 2 * (pointer - 1)) as u16).to_be_bytes());
    }
    let last = (0xc000 | (chain_at + 2 * (pointers - 1)) as u16).to_be_bytes();
    let record = [&last[..], b"\0\x10\0\x01\0\0\0\0\0\0"].concat();
    let records = (65_535 - 27 - behind.len()) / record.len();
    behind.extend(record.repeat(records));
    query_with(1, [1, 0, 0, 1 + records as u16], &behind)
}

/// The longest query of the longest names: each record's owner is a label and a pointer to a name of 126 labels.
fn long_names() -> Vec<u8> {
    let mut behind = b"\x01a".repeat(126);
    behind.push(0);
    behind.extend(b"\0\x10\0\x01\0\0\0\0\0\0");
    let record = b"\xc0\x1b\0\x10\0\x01\0\0\0\0\0\0";
    let records = (65_535 - 27 - behind.len()) / record.len();
    behind.extend(record.repeat(records));
    query_with(1, [1, 0, 0, 1 + records as u16], &behind)
}

#[test]
fn pointers_to_pointers_cost_no_more_than_their_octets() {
    let (_upstream, server) = served();
    let mut dot = server.dot();
    let chain = pointer_chain();
    let before = processor(&server);
    for _ in 0..20 {
        assert_eq!(rcode(&mut dot, &chain), FORMERR);
    }
    let spent = (processor(&server) - before) / 20;
    // Unoptimized it took 100 ms and more before there was a bound.
    assert!(spent < Duration::from_millis(40), "{spent:?} for a query");
}

#[test]
fn the_costliest_query_is_cheap() {
    let (_upstream, server) = served();
    let mut dot = server.dot();
    let message = long_names();
    let before = processor(&server);
    for _ in 0..20 {
        assert_eq!(rcode(&mut dot, &message), 0);
    }
    let spent = (processor(&server) - before) / 20;
    assert!(spent < Duration::from_millis(if cfg!(debug_assertions) { 300 } else { 50 }), "{spent:?} for a query");
    let flood = framed(&vec![message; 8]);
    under(&server, || server.dot().send(&flood));
}

#[test]
fn thousands_of_options_are_walked_once() {
    let (_upstream, server) = served();
    let mut dot = server.dot();
    // 16,000 options without data; padding and cookies again and again.
    for option in [b"\xfd\xe9\0\0", b"\0\x0c\0\0", b"\0\x0a\0\0"] {
        let message = query_with_opt(1, "options.example", Qtype::A, &option.repeat(16_000));
        assert!(message.len() > 64_000);
        assert_eq!(rcode(&mut dot, &message), 0);
    }
    others_are_served(&server);
}

#[test]
fn random_messages_never_end_the_server() {
    let (_upstream, server) = served();
    let seed = query_with_opt(1, "random.example", Qtype::A, b"\0\x0c\0\0");
    let mut random = random();
    for _ in 0..30 {
        let mut dot = server.dot();
        let messages: Vec<_> = (0..100)
            .map(|_| {
                let mut message = seed.clone();
                for _ in 0..=random() % 4 {
                    let at = random() % message.len();
                    message[at] = random() as u8;
                }
                // A response ends the connection, which is shown elsewhere.
                message[2] &= 0x7f;
                message
            })
            .collect();
        dot.ask(&messages);
        messages.iter().for_each(|_| drop(dot.receive_octets()));
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
    others_are_served(&server);
}

/// What is answered at once, and read: the attacker keeps a worker as busy as it can.
#[test]
fn a_flood_of_queries_starves_nobody() {
    let (_upstream, server) = served();
    let flood = framed(&(0..200).map(|id| query_with(id, [1, 0, 0, 0], b"")).collect::<Vec<_>>());
    under(&server, || {
        let mut dot = server.dot();
        for _ in 0..20 {
            dot.send(&flood);
            (0..200).for_each(|_| drop(dot.receive()));
        }
    });
}
