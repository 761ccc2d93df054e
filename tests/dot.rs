//! DNS over TLS, as clients meet it: the real binary over real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bailiwick::dns::Qtype;
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use support::{Dot, PATIENCE, Server, Upstream, connect_from, framed, query, query_with_opt};

/// The option of RFC 7828.
const KEEPALIVE: u16 = 11;

fn a(id: u16, name: &str) -> Vec<u8> {
    query(id, name, Qtype::A)
}

/// Tries until it works: what must come back may take a moment.
fn eventually<T>(mut attempt: impl FnMut() -> io::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_hundred_queries_at_once_are_all_answered_in_any_order() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let mut dot = server.dot();
    let queries: Vec<_> = (0..100).map(|id| a(id, &format!("delay{}-{id}.example", 600 - 6 * id))).collect();
    dot.ask(&queries);
    let ids: Vec<_> = (0..100).map(|_| dot.receive().id).collect();
    assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), (0..100).collect());
    assert_ne!(ids[0], 0, "the slowest came first");
}

#[test]
fn an_answer_that_is_slow_holds_no_other_up() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let mut dot = server.dot();
    dot.ask(&[a(1, "delay1500.example")]);
    dot.ask(&[a(2, "fast.example")]);
    assert_eq!([dot.receive().id, dot.receive().id], [2, 1]);
}

#[test]
fn a_length_cut_in_two_is_put_together() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let mut dot = server.dot();
    let octets = framed(&[a(7, "split.example")]);
    for piece in [&octets[..1], &octets[1..20], &octets[20..]] {
        dot.send(piece);
        sleep(Duration::from_millis(50));
    }
    assert_eq!(dot.receive().id, 7);
}

#[test]
fn drip_is_answered() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let mut dot = server.dot();
    for octet in framed(&[a(1, "drip.example"), a(2, "drip.example")]) {
        dot.send(&[octet]);
    }
    assert_eq!(BTreeSet::from([dot.receive().id, dot.receive().id]), BTreeSet::from([1, 2]));
}

#[test]
fn a_client_that_has_said_all_is_still_answered() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let mut dot = server.dot();
    dot.ask(&[a(1, "delay300.example")]);
    dot.half_close();
    let answer = dot.receive();
    assert_eq!((answer.id, answer.addresses.len()), (1, 1));
    dot.end().unwrap();
}

#[test]
fn queries_of_one_write_are_answered_in_one_record() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    // TLS 1.2 tells tickets from application data in the clear.
    let mut dot = server.dot_by(&server.tls(&[&TLS12], &[])).unwrap();
    for id in [1, 2] {
        dot.ask(&[a(id, &format!("kept{id}.example"))]);
        dot.receive();
    }
    let before = dot.tls.sock.records(23);
    dot.ask(&[a(3, "kept1.example"), a(4, "kept2.example")]);
    assert_eq!([dot.receive().id, dot.receive().id], [3, 4]);
    assert_eq!(dot.tls.sock.records(23) - before, 1);
}

#[test]
fn alpn_is_dot_or_none() {
    let server = Server::start("");
    let versions = rustls::ALL_VERSIONS;
    let dot = server.dot_by(&server.tls(versions, &[b"dot"])).unwrap();
    assert_eq!(dot.tls.conn.alpn_protocol(), Some(&b"dot"[..]));
    let none = server.dot_by(&server.tls(versions, &[])).unwrap();
    assert_eq!(none.tls.conn.alpn_protocol(), None);
    let error = server.dot_by(&server.tls(versions, &[b"h2", b"http/1.1"])).err().unwrap();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_resumed() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let config = server.tls(&[version], &[b"dot"]);
        let mut kinds = Vec::new();
        for id in 0..2 {
            let mut dot = server.dot_by(&config).unwrap();
            dot.ask(&[a(id, "resumed.example")]);
            assert_eq!(dot.receive().id, id);
            assert_eq!(dot.tls.conn.protocol_version(), Some(spoken));
            kinds.push(dot.tls.conn.handshake_kind());
        }
        assert_ne!(kinds[0], Some(HandshakeKind::Resumed), "{spoken:?}");
        assert_eq!(kinds[1], Some(HandshakeKind::Resumed), "{spoken:?}");
    }
}

#[test]
fn two_tickets_are_sent() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let mut dot = server.dot_by(&server.tls(&[&TLS13], &[])).unwrap();
    dot.ask(&[a(1, "ticket.example")]);
    dot.receive();
    assert_eq!(dot.tls.conn.tls13_tickets_received(), 2);
}

#[test]
fn an_idle_connection_ends_with_a_close_notify() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "[limits]\nidle-timeout = \"2s\"");
    let mut dot = server.dot();
    dot.ask(&[a(1, "idle.example")]);
    dot.receive();
    dot.end().unwrap();
}

#[test]
fn a_message_begun_and_not_completed_ends_the_connection() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "[limits]\nmessage-timeout = \"1s\"");
    let mut dot = server.dot();
    let octets = framed(&[a(1, "begun.example"), a(2, "begun.example")]);
    dot.send(&octets[..octets.len() - 1]);
    assert_eq!(dot.receive().id, 1);
    dot.end().unwrap();
}

#[test]
fn what_is_no_query_ends_the_connection() {
    let server = Server::start("");
    let mut response = a(1, "loop.example");
    response[2] |= 0x80;
    for message in [Vec::new(), b"short".to_vec(), response] {
        let mut dot = server.dot();
        dot.ask(&[message]);
        dot.end().unwrap();
    }
}

#[test]
fn what_cannot_be_read_is_a_formerr() {
    let server = Server::start("");
    let mut dot = server.dot();
    let mut malformed = a(9, "malformed.example");
    malformed.pop();
    dot.ask(&[malformed[..12].to_vec()]);
    let answer = dot.receive_octets();
    assert_eq!((&answer[..2], answer[3] & 0xf), (&[0, 9][..], 1));
}

#[test]
fn the_idle_timeout_is_announced_to_whom_has_an_opt() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let mut dot = server.dot();
    dot.ask(&[query_with_opt(1, "keepalive.example", Qtype::A, &[0, KEEPALIVE as u8, 0, 0])]);
    // RFC 7828 §3.1: in units of 100 ms.
    assert_eq!(dot.receive().option(KEEPALIVE), Some(&650_u16.to_be_bytes()[..]));
    dot.ask(&[a(2, "keepalive.example")]);
    assert!(dot.receive().options.is_none());
}

#[test]
fn the_idle_timeout_announced_is_the_one_that_holds_now() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "[limits]\nconnections = 4\nidle-timeout = \"20s\"");
    let mut dot = server.dot();
    let mut announced = || {
        dot.ask(&[query_with_opt(1, "keepalive.example", Qtype::A, &[0, KEEPALIVE as u8, 0, 0])]);
        dot.receive().option(KEEPALIVE).map(<[u8]>::to_vec)
    };
    assert_eq!(announced(), Some(vec![0, 200]));
    // As connections run out it shrinks to a tenth, and at least 2 s.
    let others = [(); 3].map(|()| server.dot());
    assert_eq!(announced(), Some(vec![0, 20]));
    drop(others);
    eventually(|| if announced() == Some(vec![0, 20]) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) });
}

#[test]
fn a_drain_answers_what_is_in_flight() {
    let upstream = Upstream::delaying();
    let mut server = Server::before(&upstream, "");
    let mut dot = server.dot();
    dot.ask(&[a(1, "delay1000.example"), a(2, "fast.example")]);
    assert_eq!(dot.receive().id, 2);
    server.signal("TERM");
    let answer = dot.receive();
    assert_eq!((answer.id, answer.addresses.len()), (1, 1));
    dot.end().unwrap();
    drop(dot);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_drain_does_not_wait_for_who_asks_nothing() {
    let mut server = Server::start("[limits]\ndrain-timeout = \"10m\"");
    let _silent = server.dot();
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn one_client_too_many_connections_hurts_no_other_and_recovers() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "[limits]\nconnections-per-client = 2");
    let config = server.tls(rustls::ALL_VERSIONS, &[]);
    let (first, _second) = (server.dot(), server.dot());
    assert!(server.dot_by(&config).is_err());
    let mut other = Dot::connect(connect_from([127, 0, 0, 3], server.dot_port).unwrap(), &config).unwrap();
    other.try_ask(1, "other.example").unwrap();
    drop(first);
    eventually(|| server.dot_by(&config)?.try_ask(2, "again.example"));
}

#[test]
fn connections_in_all_are_bounded_and_recover() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "[limits]\nconnections = 3");
    let config = server.tls(rustls::ALL_VERSIONS, &[]);
    let held = [server.dot(), server.dot(), server.dot()];
    assert!(server.dot_by(&config).is_err());
    drop(held);
    eventually(|| server.dot_by(&config)?.try_ask(1, "again.example"));
}

#[test]
fn descriptors_that_run_out_come_back() {
    let upstream = Upstream::delaying();
    let limited = ["sh", "-c", "ulimit -n 96; exec \"$0\" \"$@\""];
    let server = Server::start_by(&limited, &upstream.config(""));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.dot_port));
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    drop(silent);
    eventually(|| server.dot_by(&server.tls(rustls::ALL_VERSIONS, &[]))?.try_ask(1, "again.example"));
}

/// Sockets to upstreams that only wait to be drawn take no descriptor that a query or a connection needs.
#[test]
fn few_descriptors_are_enough_for_many_misses() {
    let upstream = Upstream::delaying();
    let limited = ["sh", "-c", "ulimit -n 96; exec \"$0\" \"$@\""];
    let server = Server::start_by(&limited, &upstream.config("[listen]\nthreads = 1"));
    let mut dots: Vec<_> = (0..10).map(|_| server.dot()).collect();
    for round in 0..40 {
        for (nth, dot) in dots.iter_mut().enumerate() {
            dot.ask(&[a(1, &format!("miss{round}-{nth}.example"))]);
        }
        assert!(dots.iter_mut().all(|dot| dot.receive().addresses.len() == 1), "round {round}");
    }
    drop(server.dot());
}

#[test]
fn a_handshake_that_does_not_come_is_not_waited_for() {
    let server = Server::start("[limits]\nhandshake-timeout = \"1s\"");
    let mut silent = TcpStream::connect((Ipv4Addr::LOCALHOST, server.dot_port)).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(io::Read::read(&mut silent, &mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_second_server_on_the_same_port_says_so() {
    let server = Server::start("");
    let config = server.folder().join("bailiwick.toml");
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .args(["serve", "--config"])
        .arg(config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success());
    assert!(said.contains("another program listens there"), "{said}");
}
