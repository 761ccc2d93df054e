//! attacks.md, TLS and TCP.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use bailiwick::dns::Qtype;
use rustls::pki_types::ServerName;
use rustls::{ALL_VERSIONS, ClientConnection};

use crate::field::{descriptors, has_bitten, one_worker, others_are_served, processor, resident};
use crate::support::{PATIENCE, Server, Upstream, framed, query};

/// A ClientHello, and the connection that sent it.
fn client_hello(server: &Server) -> (ClientConnection, Vec<u8>) {
    let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let mut connection = ClientConnection::new(server.tls(ALL_VERSIONS, &[]), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    (connection, hello)
}

fn connect(server: &Server) -> TcpStream {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.dot_port)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// One TLS record as many, each with so many octets of it.
fn fragmented(record: &[u8], octets: usize) -> Vec<u8> {
    let (header, body) = record.split_at(5);
    let pieces = body.chunks(octets);
    pieces.flat_map(|piece| [&header[..3], &(piece.len() as u16).to_be_bytes(), piece].concat()).collect()
}

/// Reads to the end, whether it is an orderly one or not.
fn heard(socket: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = socket.read_to_end(&mut heard);
    heard
}

#[test]
fn a_fragmented_client_hello_completes_the_handshake() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "");
    for octets in [1, 7, 200] {
        let (mut connection, hello) = client_hello(&server);
        let mut socket = connect(&server);
        socket.write_all(&fragmented(&hello, octets)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).unwrap();
        }
        connection.writer().write_all(&framed(&[query(7, "fragments.example", Qtype::A)])).unwrap();
        connection.complete_io(&mut socket).unwrap();
        let mut answer = [0; 4];
        rustls::Stream::new(&mut connection, &mut socket).read_exact(&mut answer).unwrap();
        assert_eq!(answer[2..], [0, 7], "fragments of {octets}");
    }
}

#[test]
fn a_client_hello_with_a_close_notify_does_not_spin() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "[limits]\nhandshake-timeout = \"2s\"");
    let close_notify = b"\x15\x03\x03\0\x02\x01\0";
    let held: Vec<_> = (0..20)
        .map(|_| {
            let (_, hello) = client_hello(&server);
            let mut socket = connect(&server);
            socket.write_all(&[&hello[..], close_notify].concat()).unwrap();
            socket
        })
        .collect();
    sleep(Duration::from_millis(500));
    let before = processor(&server);
    sleep(Duration::from_secs(1));
    let spent = processor(&server) - before;
    assert!(spent < Duration::from_millis(400), "{spent:?} of a second for nothing");
    others_are_served(&server);
    held.into_iter().for_each(|mut socket| drop(heard(&mut socket)));
}

#[test]
fn silence_half_a_hello_and_drip_end_with_the_handshake_timeout_and_harm_nobody() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "[limits]\nhandshake-timeout = \"1s\"");
    let (before, open) = (resident(&server), descriptors(&server));
    let (_, hello) = client_hello(&server);
    let mut sockets: Vec<_> = (0..300).map(|_| connect(&server)).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        let sent = [&b""[..], &hello[..hello.len() / 2], &hello[..1]][number % 3];
        socket.write_all(sent).unwrap();
    }
    others_are_served(&server);
    sockets.iter_mut().for_each(|socket| drop(heard(socket)));
    has_bitten(&server, "handshake-timeout", 300);
    assert!(resident(&server).saturating_sub(before) < 32 << 20);
    assert!(descriptors(&server) <= open + 2, "they are given back");
}

/// A ClientHello as TLS 1.2 and older had it: no extension names another version. All else is what the server takes.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    let suites = b"\0\x06\xc0\x2b\xc0\x2f\xc0\x30";
    let groups = b"\0\x0a\0\x04\0\x02\0\x1d";
    let signatures = b"\0\x0d\0\x06\0\x04\x04\x03\x08\x04";
    let formats = b"\0\x0b\0\x02\x01\0";
    let extensions = [&groups[..], signatures, formats].concat();
    let length = (extensions.len() as u16).to_be_bytes();
    let body = [&version[..], &[7; 32], b"\0", suites, b"\x01\0", &length, &extensions].concat();
    let message = [&b"\x01\0"[..], &(body.len() as u16).to_be_bytes(), &body].concat();
    [&b"\x16\x03\x01"[..], &(message.len() as u16).to_be_bytes(), &message].concat()
}

#[test]
fn versions_before_tls_1_2_are_refused() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "");
    for version in [[3, 0], [3, 1], [3, 2]] {
        let mut socket = connect(&server);
        socket.write_all(&old_hello(version)).unwrap();
        // A fatal alert: protocol_version.
        assert_eq!(heard(&mut socket), [21, 3, 3, 0, 2, 2, 70], "{version:?}");
    }
    let mut socket = connect(&server);
    socket.write_all(&old_hello([3, 3])).unwrap();
    let mut answer = [0; 6];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!((answer[0], answer[5]), (22, 2), "TLS 1.2 has its ServerHello");
}

#[test]
fn what_is_not_tls_is_ended_at_once() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "[limits]\nhandshake-timeout = \"1m\"");
    let plain = framed(&[query(1, "plain.example", Qtype::A)]);
    // A record of 65,535 octets is more than TLS has.
    for octets in [&b"GET / HTTP/1.1\r\n\r\n"[..], &plain, b"\x16\x03\x01\xff\xff\x01", &[0; 64]] {
        let mut socket = connect(&server);
        socket.write_all(octets).unwrap();
        let said = heard(&mut socket);
        assert!(said.is_empty() || said[0] == 21, "an alert, or nothing");
    }
    others_are_served(&server);
}

/// A client that keeps changing its keys (RFC 8446 §4.6.3) makes work of each record, and no more than that.
#[test]
fn handshakes_without_end_harm_nobody() {
    let upstream = Upstream::delaying();
    let server = one_worker(&upstream, "");
    let config = server.tls(ALL_VERSIONS, &[]);
    crate::field::under(&server, || {
        let _ = server.dot_by(&config);
    });
}
