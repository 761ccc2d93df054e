//! attacks.md, the upstream side: what is asked of upstreams, and what they answer.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bailiwick::dns::Qtype;

use crate::field::{bites, descriptors, has_bitten, one_worker, others_are_served, processor, random, resident};
use crate::support::{Asked, Play, Server, Upstream, query, query_with_opt};

const SERVFAIL: u16 = 2;

/// What one 64 KiB reply may cost, read, screened, kept and written.
const REPLY_COSTS: Duration = Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 50 });

fn address(asked: &Asked) -> Vec<u8> {
    asked.response(0, &[asked.a(300, Ipv4Addr::new(192, 0, 2, 1))])
}

/// Answers names that begin with `bad` by `bad`, and every other well.
fn upstream(bad: impl Fn(&Asked) -> Play + Send + Sync + 'static) -> Upstream {
    Upstream::start(move |asked| if asked.name.starts_with("bad") { bad(asked) } else { Play::Respond(address(asked)) })
}

/// A record of the answer section: owner, type, TTL of 300 and RDATA in wire form.
fn record(owner: &[u8], rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let length = rdata.len() as u16;
    [owner, &rtype.to_be_bytes(), b"\0\x01\0\0\x01\x2c", &length.to_be_bytes(), rdata].concat()
}

fn label(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

#[test]
fn replies_that_cannot_be_read_are_waited_past() {
    let upstream = upstream(|asked| {
        let whole = address(asked);
        let mut bad = whole.clone();
        match asked.name.as_bytes()[3] {
            b'0' => bad[6..8].fill(0xff),  // 65,535 answers
            b'1' => bad[4..12].fill(0xff), // 65,535 of everything
            b'2' => bad = asked.response(0, &[record(b"\xff\xff", 1, &[192, 0, 2, 66])]), // a pointer forward
            b'3' => {
                // A pointer to itself: the record's own first octet.
                let at = 0xc000 | asked.response(0, &[]).len() as u16;
                bad = asked.response(0, &[record(&at.to_be_bytes(), 1, &[192, 0, 2, 66])]);
            }
            b'4' => bad = asked.response(0, &[record(b"\xc0\x0c", 5, b"\x05cname")]), // a CNAME cut short
            b'5' => bad[4..6].fill(0),                                                // no question, with data
            _ => bad[2] &= 0x7f,                                                      // QR clear
        }
        Play::Respond(bad)
    });
    let server = one_worker(&upstream, "[upstream]\ndeadline = \"1s\"");
    let before = resident(&server);
    let mut dot = server.dot();
    dot.ask(&(0..7).map(|kind| query(kind, &format!("bad{kind}.example"), Qtype::A)).collect::<Vec<_>>());
    for _ in 0..7 {
        let answer = dot.receive();
        assert_eq!((answer.rcode, answer.addresses.len()), (SERVFAIL, 0), "{}", answer.id);
    }
    assert!(resident(&server).saturating_sub(before) < 16 << 20);
    others_are_served(&server);
}

/// Whatever octets an upstream sends behind its header and question, a client has an answer, and nobody panics.
#[test]
fn random_replies_never_end_the_server() {
    let random = Mutex::new(random());
    let upstream = upstream(move |asked| {
        let cname = record(b"\xc0\x0c", 5, b"\x03cdn\xc0\x0c");
        let https = record(b"\xc0\x0c", 65, b"\0\x01\x03svc\xc0\x0c\0\x01\0\x03\x02h2");
        let mut response = asked.response(0, &[cname, asked.a(300, Ipv4Addr::new(192, 0, 2, 1)), https]);
        response.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
        response[11] = 1;
        let end = asked.response(0, &[]).len();
        let mut random = random.lock().unwrap();
        for _ in 0..=random() % 3 {
            // ID, flags and question stay: the reply is taken for one.
            let at = 6 + random() % (response.len() - 6);
            if !(12..end).contains(&at) {
                response[at] = random() as u8;
            }
        }
        Play::Respond(response)
    });
    let server = one_worker(&upstream, "[upstream]\ndeadline = \"300ms\"\n[limits]\nin-flight-per-connection = 512");
    for round in 0..4 {
        let mut dot = server.dot();
        let names = (0..400).map(|id| query_with_opt(id, &format!("bad{round}-{id}.example"), Qtype::A, b"\0\x0c\0\0"));
        dot.ask(&names.collect::<Vec<_>>());
        (0..400).for_each(|_| drop(dot.receive_octets()));
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
    others_are_served(&server);
}

/// What it costs to forward `reply` once, and to answer from the cache, each to a client with OPT and padding.
fn costs(server: &Server, name: &str) -> (Duration, Duration) {
    let mut dot = server.dot();
    let asking = |id| query_with_opt(id, name, Qtype::A, b"\0\x0c\0\0");
    let before = processor(server);
    dot.ask(&[asking(1)]);
    let answer = dot.receive();
    assert_eq!(answer.rcode, 0, "{name}");
    assert!(answer.octets.len() > 50_000, "{} octets", answer.octets.len());
    let missed = processor(server) - before;
    let before = processor(server);
    for id in 0..10 {
        dot.ask(&[asking(id)]);
        assert_eq!(dot.receive().octets.len(), answer.octets.len());
    }
    let kept = (processor(server) - before) / 10;
    eprintln!("{name}: {missed:?}, from the cache {kept:?}");
    (missed, kept)
}

/// Replies of 64 KiB, each the worst of its kind for whoever looks at names.
fn costly(asked: &Asked) -> Play {
    let records: Vec<Vec<u8>> = match asked.name.strip_prefix("bad-").and_then(|rest| rest.split('.').next()) {
        // Each link of a chain has a name of its own.
        Some("chain") => {
            let name = |link: usize| [&label(&format!("c{link}"))[..], b"\xc0\x0c"].concat();
            (0..2_400).map(|link| record(&name(link), 5, &name(link + 1))).collect()
        }
        // Each owner is a label and a pointer to the longest name there can be.
        Some("owners") => {
            let tail_at = asked.response(0, &[]).len() as u16 + 2 + 10;
            let longest = [&b"\x01a".repeat(124)[..], b"\0"].concat();
            let tail = record(b"\xc0\x0c", 16, &longest);
            let owner =
                |number: usize| [&label(&format!("{number:x}"))[..], &(0xc000 | tail_at).to_be_bytes()].concat();
            let owners = (0..3_200).map(|number| record(&owner(number), 1, &[192, 0, 2, 1]));
            std::iter::once(tail).chain(owners).collect()
        }
        // Each name is on the operator's list.
        Some("listed") => {
            let target =
                |number: usize| [&[0, 1][..], &label(&format!("n{number}")), b"\x04list\x07example\0"].concat();
            (0..1_800).map(|number| record(b"\xc0\x0c", 65, &target(number))).collect()
        }
        _ => (0..4_000).map(|number: u16| asked.a(300, Ipv4Addr::from(0xc000_0200 + u32::from(number)))).collect(),
    };
    Play::Respond(asked.response(0, &records))
}

#[test]
fn a_long_chain_costs_no_more_than_its_octets() {
    costs_little("bad-chain.example");
}

#[test]
fn a_compression_bomb_costs_no_more_than_its_octets() {
    costs_little("bad-owners.example");
}

#[test]
fn a_reply_of_many_addresses_costs_no_more_than_its_octets() {
    costs_little("bad-addresses.example");
}

fn costs_little(name: &str) {
    let upstream = upstream(costly);
    let server = one_worker(&upstream, "");
    let (missed, kept) = costs(&server, name);
    assert!(missed < REPLY_COSTS && kept < REPLY_COSTS, "{name}: {missed:?}, from the cache {kept:?}");
}

/// Every name meets a rule that does not block: what was found is too much to be kept, and is found again at each hit.
#[test]
fn a_reply_that_meets_rules_without_end_costs_no_more_than_its_octets() {
    let upstream = upstream(costly);
    let names: String = (0..1_800).map(|number| format!("n{number}.list.example\n")).collect();
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("list.txt"), names).unwrap();
    let policy = format!(
        "[[policy.list]]\nname = \"many\"\nfile = \"{}/list.txt\"\nformat = \"domains\"\ncovers = \"subtree\"\n\
        [[policy.exemption]]\nname = \"list.example\"\nreason = \"test\"\n",
        folder.path().display()
    );
    let server = one_worker(&upstream, &policy);
    let (missed, kept) = costs(&server, "bad-listed.example");
    assert!(missed < REPLY_COSTS && kept < REPLY_COSTS, "{missed:?}, from the cache {kept:?}");
}

/// CVE-2026-27853: padding and options only where they fit.
#[test]
fn an_answer_with_no_room_for_padding_or_opt_stays_within_65535_octets() {
    let upstream = upstream(|asked| {
        let spare: usize = asked.name.strip_prefix("bad-").unwrap().split('.').next().unwrap().parse().unwrap();
        let mut response = asked.response(0, &[asked.a(300, Ipv4Addr::new(192, 0, 2, 1))]);
        let fill = 65_535 - spare - response.len() - 12;
        response.extend(record(b"\xc0\x0c", 16, &vec![0; fill]));
        response[7] = 2;
        Play::Respond(response)
    });
    let server = one_worker(&upstream, "");
    let mut dot = server.dot();
    for (spare, with_opt) in [(0, 2), (10, 2), (11, 0), (12, 0), (15, 0), (17, 0), (21, 0), (30, 0), (500, 0)] {
        let name = format!("bad-{spare}.example");
        dot.ask(&[query(1, &name, Qtype::A)]);
        let plain = dot.receive();
        assert_eq!((plain.rcode, plain.octets.len()), (0, 65_535 - spare), "without OPT");
        dot.ask(&[query_with_opt(2, &name, Qtype::A, b"\0\x0b\0\0\0\x0c\0\0")]);
        let answer = dot.receive();
        assert_eq!(answer.rcode, with_opt, "{spare} octets to spare");
        assert!(answer.options.is_some() && answer.octets.len() <= 65_535);
    }
}

/// Ten thousand dead names in flight are within the bound, and must not be felt.
#[test]
fn dead_names_by_the_thousand_do_not_harm_a_live_one() {
    let upstream = upstream(|_| Play::Silence);
    let server = Server::before(&upstream, "[listen]\nthreads = 2");
    let open = descriptors(&server);
    let mut attackers: Vec<_> = (0..39).map(|_| server.dot()).collect();
    for (number, attacker) in attackers.iter_mut().enumerate() {
        let names = (0..250).map(|id| query(id, &format!("bad{number}-{id}.example"), Qtype::A));
        attacker.ask(&names.collect::<Vec<_>>());
    }
    let start = Instant::now();
    let mut most = 0;
    while start.elapsed() < Duration::from_secs(4) {
        others_are_served(&server);
        most = most.max(descriptors(&server));
        sleep(Duration::from_millis(100));
    }
    eprintln!("{} descriptors for 9,750 dead names", most - open);
    // Two workers draw from 128 sockets each; the second and the third try of the names find those full or old, and those
    // that they replace stay open until the deadline: 768, and some for who looks on.
    assert!(most < open + 1_000, "{most} descriptors");
    assert_eq!(bites(&server, "in-flight") + bites(&server, "descriptors"), 0);
    drop(attackers);
    others_are_served(&server);
}

/// DNSBomb, CVE-2024-33655: what one connection has pending is bounded; past it nothing is refused, it is read later.
#[test]
fn what_a_connection_has_pending_is_bounded() {
    let (pending, most) = (Arc::<Mutex<HashSet<String>>>::default(), Arc::<AtomicUsize>::default());
    let (highest, seen) = (Arc::clone(&most), Mutex::new(HashSet::new()));
    let upstream = upstream(move |asked| {
        let mut names = pending.lock().unwrap();
        // Asked again, by a second try, it may be answered already; and others ask too.
        if asked.name.starts_with("bad") && seen.lock().unwrap().insert(asked.name.clone()) {
            names.insert(asked.name.clone());
        }
        highest.fetch_max(names.len(), Ordering::SeqCst);
        let (pending, name) = (Arc::clone(&pending), asked.name.clone());
        std::thread::spawn(move || {
            sleep(Duration::from_millis(100));
            pending.lock().unwrap().remove(&name);
        });
        Play::Later(Duration::from_millis(150), address(asked))
    });
    let server = one_worker(&upstream, "[limits]\nin-flight-per-connection = 16");
    let mut attacker = server.dot();
    attacker.ask(&(0..80).map(|id| query(id, &format!("bad{id}.example"), Qtype::A)).collect::<Vec<_>>());
    others_are_served(&server);
    for _ in 0..80 {
        assert_eq!(attacker.receive().rcode, 0);
    }
    assert!((8..=16).contains(&most.load(Ordering::SeqCst)), "{most:?} at a time");
    has_bitten(&server, "in-flight-per-connection", 1);
}

/// Whatever an upstream's TC says, there is an end (CVE-2026-123604, CVE-2023-26249).
#[test]
fn a_tc_loop_has_an_end() {
    let asked_for = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked_for);
    let upstream = upstream(move |asked| {
        count.fetch_add(1, Ordering::SeqCst);
        let mut response = address(asked);
        response[2] |= 2;
        Play::Respond(response)
    });
    let server = one_worker(&upstream, "");
    let mut dot = server.dot();
    dot.ask(&[query(1, "bad.example", Qtype::A)]);
    let answer = dot.receive();
    assert_eq!((answer.rcode, answer.addresses.len()), (SERVFAIL, 0), "no record of a truncated reply is believed");
    assert!(asked_for.load(Ordering::SeqCst) <= 6, "{asked_for:?} queries");
}

/// The budget of upstream queries is counted when it bites: NXNS, TC loops and servers that say no.
#[test]
fn the_budget_of_upstream_queries_bites_and_is_counted() {
    let asked_for = Arc::<AtomicUsize>::default();
    let servers: Vec<_> = (0..8)
        .map(|_| {
            let count = Arc::clone(&asked_for);
            upstream(move |asked| {
                count.fetch_add(1, Ordering::SeqCst);
                Play::Respond(asked.response(2, &[]))
            })
        })
        .collect();
    let addresses: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.address)).collect();
    let server = Server::start(&format!("[upstream]\nresolvers = [{}]", addresses.join(", ")));
    let mut dot = server.dot();
    dot.ask(&[query(1, "bad.example", Qtype::A)]);
    assert_eq!(dot.receive().rcode, SERVFAIL);
    assert_eq!(asked_for.load(Ordering::SeqCst), 6);
    has_bitten(&server, "upstream-budget", 1);
}
