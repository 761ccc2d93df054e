//! attacks.md, HTTP/2 and HTTP/1.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bailiwick::dns::Qtype;

use crate::field::{doh, get_block, goaways, has_bitten, one_worker, others_are_served, pour, resident, rest, under};
use crate::support::http::{
    DATA, END_HEADERS, END_STREAM, FIELDS, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    frame, target,
};
use crate::support::{Dot, PATIENCE, Play, Server, Upstream, query};

/// More than a flood may cost.
const FLOOD_OCTETS: usize = 48 << 20;

/// Names that begin with `dead` are never answered; the set has each that was asked for.
fn half_dead() -> (Upstream, Arc<Mutex<HashSet<String>>>) {
    let dead = Arc::<Mutex<HashSet<String>>>::default();
    let seen = Arc::clone(&dead);
    let upstream = Upstream::start(move |asked| {
        if asked.name.starts_with("dead") {
            seen.lock().unwrap().insert(asked.name.clone());
            return Play::Silence;
        }
        Play::Respond(asked.response(0, &[asked.a(300, [192, 0, 2, 1].into())]))
    });
    (upstream, dead)
}

#[test]
fn rapid_reset_leaves_no_more_in_flight_than_the_bound() {
    let (upstream, dead) = half_dead();
    let server = one_worker(&upstream, "[limits]\nin-flight = 50");
    // Slow enough that h2 does not mind: each stream is looked at before it is reset.
    let mut attacker = doh(&server, b"h2");
    pour(&mut attacker, PREFACE);
    for at in 0..150_u32 {
        let block = get_block(&query(0, &format!("dead{at}.example"), Qtype::A));
        pour(&mut attacker, &frame(HEADERS, END_STREAM | END_HEADERS, 2 * at + 1, &block));
        sleep(Duration::from_millis(3));
        pour(&mut attacker, &frame(RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8]));
    }
    let asked = dead.lock().unwrap().len();
    assert!((1..=50).contains(&asked), "{asked} names were asked for");
    has_bitten(&server, "in-flight", 1);
    recovers(&server);
}

#[test]
fn rapid_reset_by_closed_connections_leaves_no_more_in_flight_than_the_bound() {
    let (upstream, dead) = half_dead();
    let server = one_worker(&upstream, "[limits]\nin-flight = 50");
    for connection in 0..5 {
        let mut dot = server.dot();
        dot.ask(&(0..30).map(|id| query(id, &format!("dead{connection}-{id}.example"), Qtype::A)).collect::<Vec<_>>());
        sleep(Duration::from_millis(50));
    }
    let asked = dead.lock().unwrap().len();
    assert!((1..=50).contains(&asked), "{asked} names were asked for");
    recovers(&server);
}

/// What was in flight is over after the deadline, and its places are free.
fn recovers(server: &Server) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut dot = server.dot();
        dot.ask(&[query(1, "back.example", Qtype::A)]);
        if dot.receive().rcode == 0 {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("the places are not given back");
}

#[test]
fn rapid_reset_harms_nobody_else() {
    let (upstream, _) = half_dead();
    let server = one_worker(&upstream, "");
    let flood: Vec<u8> = (0..2_000)
        .flat_map(|at| {
            let block = get_block(&query(0, &format!("dead{at}.example"), Qtype::A));
            let begin = frame(HEADERS, END_STREAM | END_HEADERS, 2 * at + 1, &block);
            [begin, frame(RST_STREAM, 0, 2 * at + 1, &[0, 0, 0, 8])].concat()
        })
        .collect();
    h2_flood(&server, &flood);
    has_bitten(&server, "http", 1);
}

#[test]
fn made_you_reset_ends_the_connection() {
    let (upstream, _) = half_dead();
    let server = one_worker(&upstream, "");
    // A window that grows by 0 is an error of the stream: the server resets it (RFC 9113 §6.9).
    let flood: Vec<u8> = (0..2_000)
        .flat_map(|at| {
            let block = get_block(&query(0, &format!("dead{at}.example"), Qtype::A));
            let begin = frame(HEADERS, END_STREAM | END_HEADERS, 2 * at + 1, &block);
            [begin, frame(WINDOW_UPDATE, 0, 2 * at + 1, &[0; 4])].concat()
        })
        .collect();
    let mut attacker = doh(&server, b"h2");
    pour(&mut attacker, &[PREFACE, &flood].concat());
    let heard = rest(&mut attacker).expect("the connection ends");
    assert!(heard.is_empty() || !goaways(&heard).is_empty());
    h2_flood(&server, &flood);
}

/// Floods over HTTP/2, and nobody else is harmed, nor does memory grow.
fn h2_flood(server: &Server, flood: &[u8]) {
    let before = resident(server);
    under(server, || {
        let mut attacker = doh(server, b"h2");
        pour(&mut attacker, PREFACE);
        for piece in flood.chunks(16 * 1_024) {
            pour(&mut attacker, piece);
        }
        let _ = rest(&mut attacker);
    });
    let grown = resident(server).saturating_sub(before);
    assert!(grown < FLOOD_OCTETS, "memory grew by {grown} octets");
}

#[test]
fn frame_floods_harm_nobody() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "[limits]\nmessage-timeout = \"1s\"");
    let begun = frame(HEADERS, END_HEADERS, 1, FIELDS);
    let many = |frame: Vec<u8>| frame.repeat(20_000);
    for flood in [
        many(frame(PING, 0, 0, b"12345678")),
        many(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        many(frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 16])),
        many(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        [begun.clone(), many(frame(DATA, 0, 1, b""))].concat(),
        [begun, many(frame(DATA, 8, 1, b"\x00"))].concat(),
        many(frame(0xee, 0, 0, b"unknown")),
    ] {
        h2_flood(&server, &flood);
    }
}

/// A field block that puts a field of 3,900 octets into the table, then names it again and again: 4,000 to 1.
#[test]
fn an_hpack_bomb_is_refused() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "");
    let mut bomb = FIELDS.to_vec();
    bomb.extend(b"\x40\x01b\x7f\xbd\x1d");
    bomb.extend([b'x'; 3_900]);
    bomb.resize(16_000, 0xbf);
    // The two entries of the block are 62 (`b`) and 63 (`:authority`), so that both are named below.
    let again: Vec<u8> = (1..60).flat_map(|at| frame(HEADERS, 5, 2 * at + 1, &[0xbe; 16_000])).collect();
    h2_flood(&server, &[frame(HEADERS, 5, 1, &bomb), again].concat());
}

/// CVE-2026-49975: a cookie in crumbs of one octet each, and a window that lets no answer out.
#[test]
fn cookie_crumbs_with_a_shut_window_are_refused() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "[limits]\nmessage-timeout = \"1s\"");
    let shut = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    // `cookie: ` goes into the table once, and is then named by an octet.
    let crumbs = [FIELDS, b"\x60\x00", &[0xbe; 12_000]].concat();
    let streams: Vec<u8> = (0..100).flat_map(|at| frame(HEADERS, 5, 2 * at + 1, &crumbs)).collect();
    h2_flood(&server, &[shut, streams].concat());
}

#[test]
fn a_field_count_is_bounded_from_both_sides() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "");
    let status = |crumbs: usize| {
        let mut attacker = doh(&server, b"http/1.1");
        let target = target(&query(0, "fields.example", Qtype::A));
        let crumbs = "c: 1\r\n".repeat(crumbs);
        pour(
            &mut attacker,
            format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{crumbs}\r\n").as_bytes(),
        );
        status_code(&mut attacker)
    };
    assert_eq!((status(62), status(63), status(62)), ("200".to_owned(), "431".to_owned(), "200".to_owned()));
    has_bitten(&server, "http", 1);
}

#[test]
fn a_url_is_bounded_from_both_sides() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "");
    let status = |octets: usize| {
        let mut attacker = doh(&server, b"http/1.1");
        let mut target = format!("{}&x=", target(&query(0, "url.example", Qtype::A)));
        target.extend(std::iter::repeat_n('x', octets - target.len()));
        pour(&mut attacker, format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes());
        status_code(&mut attacker)
    };
    assert_eq!((status(4_096), status(4_097), status(4_096)), ("200".to_owned(), "414".to_owned(), "200".to_owned()));
    has_bitten(&server, "request-octets", 1);
}

/// Content-Length is looked at before the body. What is not taken is heard out for a while, so that an honest sender
/// reads the refusal; who announces a body and does not send it is refused all the same, when `message-timeout` is over.
#[test]
fn a_body_that_is_too_long_is_refused_whether_it_comes_or_not() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "[limits]\nmessage-timeout = \"1s\"");
    for octets in ["65536", "4294967296", "18446744073709551615"] {
        let mut attacker = doh(&server, b"http/1.1");
        let head = format!(
            "POST /dns-query HTTP/1.1\r\nhost: x\r\ncontent-type: application/dns-message\r\ncontent-length: {octets}\r\n\r\n"
        );
        pour(&mut attacker, head.as_bytes());
        let status = status_code(&mut attacker);
        // What is no number for hyper is a head that is too large.
        assert!(["413", "431"].contains(&&*status), "{octets}: {status}");
    }
    others_are_served(&server);
}

#[test]
fn slowloris_and_slow_posts_in_numbers_harm_nobody_and_end() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "[limits]\nmessage-timeout = \"1s\"");
    let before = resident(&server);
    let head: &[u8] = b"GET /dns-query HTTP/1.1\r\nhost: x\r\n";
    let post: &[u8] = b"POST /dns-query HTTP/1.1\r\nhost: x\r\ncontent-type: application/dns-message\r\ncontent-length: 65535\r\n\r\nx";
    let begun = [PREFACE, &frame(HEADERS, 0, 1, FIELDS)].concat();
    let attackers: Vec<_> = [(&b"http/1.1"[..], head), (b"http/1.1", post), (b"h2", &begun)]
        .into_iter()
        .flat_map(|attack| std::iter::repeat_n(attack, 20))
        .map(|(alpn, octets)| {
            let mut attacker = doh(&server, alpn);
            pour(&mut attacker, octets);
            attacker
        })
        .collect();
    others_are_served(&server);
    for mut attacker in attackers {
        attacker.tls.sock.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(rest(&mut attacker).is_some(), "the connection ends");
    }
    has_bitten(&server, "message-timeout", 60);
    assert!(resident(&server).saturating_sub(before) < FLOOD_OCTETS);
}

#[test]
fn answers_that_are_not_read_are_bounded() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "[limits]\nmessage-timeout = \"1s\"");
    let before = resident(&server);
    let get = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", target(&query(0, "unread.example", Qtype::A))).repeat(500);
    let frames = crate::support::framed(&vec![query(0, "unread.example", Qtype::A); 500]);
    under(&server, || {
        let mut http = doh(&server, b"http/1.1");
        let mut dot = server.dot();
        dot.tls.sock.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        http.tls.sock.socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        for _ in 0..100 {
            pour(&mut http, get.as_bytes());
            pour(&mut dot, &frames);
        }
    });
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < FLOOD_OCTETS, "memory grew by {grown} octets");
}

/// Whom a request says it is for is no ground for anything: the country is that of the socket's address.
#[test]
fn a_forwarded_for_is_not_believed() {
    let order = "id = \"it-1\"\nissuer = \"Court\"\njurisdiction = [\"IT\"]\nreceived = 2026-01-01T00:00:00Z\nstate = \"in-force\"\n\
        [[target]]\nsubtree = [\"blocked.example\"]\n";
    let upstream = Upstream::delaying();
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("it.toml"), order).unwrap();
    let policy = format!(
        "[policy]\norders = \"{}\"\n[origin]\nnetworks = [{{ prefix = \"127.0.0.1/32\", country = \"IT\" }}]",
        folder.path().display()
    );
    let server = one_worker(&upstream, &policy);
    let target = target(&query(0, "blocked.example", Qtype::A));
    for field in ["x-forwarded-for: 192.0.2.1", "forwarded: for=192.0.2.1", "x-real-ip: 192.0.2.1"] {
        let mut client = doh(&server, b"http/1.1");
        pour(
            &mut client,
            format!("GET {target} HTTP/1.1\r\nhost: x\r\n{field}\r\nconnection: close\r\n\r\n").as_bytes(),
        );
        let heard = rest(&mut client).unwrap();
        let body = heard.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(heard[body + 3] & 15, 3, "NXDOMAIN in spite of {field}");
    }
}

/// The status of the response to an HTTP/1 request that ends its connection.
fn status_code(attacker: &mut Dot) -> String {
    let heard = rest(attacker).expect("the connection ends");
    String::from_utf8_lossy(&heard).split(' ').nth(1).unwrap_or_default().to_owned()
}
