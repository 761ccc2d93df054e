//! The load generator against the real server, and against servers that misbehave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use support::{Server, Upstream};
use tempfile::TempDir;

const NAMES: &str = "a.example\nb.example AAAA # two\n";

/// Runs the generator in a folder with `names.txt`.
fn load(folder: &Path, words: &[&str]) -> Output {
    fs::write(folder.join("names.txt"), NAMES).unwrap();
    Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .args(["load"])
        .args(words)
        .args(["--names", "names.txt"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What it printed, as an object; its status is to be 0.
fn told(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn count(told: &Value, pointer: &str) -> u64 {
    told.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer} in {told}"))
}

fn errors(told: &Value) -> u64 {
    told["errors"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn every_way_of_asking_is_answered() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let doh = format!("https://127.0.0.1:{}", server.doh_port);
    let dot = format!("127.0.0.1:{}", server.dot_port);
    for (words, kept) in [
        (&["doh", &doh][..], true),
        (&["doh", &doh, "--get"], true),
        (&["doh", &doh, "--pad"], true),
        (&["doh", &doh, "--get", "--pad", "--in-flight", "300"], true),
        (&["dot", &dot], true),
        (&["dot", &dot, "--pad", "--in-flight", "150", "--source", "127.0.0.2", "127.0.0.3"], true),
        (&["dot", &dot, "--queries-per-connection", "3"], false),
        (&["doh", &doh, "--queries-per-connection", "3", "--resume"], false),
    ] {
        let all = [words, &["--duration", "1", "--connections", "4", "--json"]].concat();
        let told = told(&load(&server.folder(), &all));
        let answered = count(&told, "/answered");
        assert_eq!((errors(&told), count(&told, "/sent")), (0, answered), "{words:?}: {told}");
        assert!(answered > 20 && count(&told, "/rcodes/NOERROR") == answered, "{words:?}: {told}");
        // Every other query is for AAAA, and the upstream has only A.
        assert!(count(&told, "/answers_with_records").abs_diff(answered / 2) <= 4, "{words:?}: {told}");
        let [full, resumed] = ["/handshakes/full", "/handshakes/resumed"].map(|pointer| count(&told, pointer));
        assert_eq!(full + resumed == 4, kept, "{words:?}: {told}");
        assert_eq!(resumed > full, words.contains(&"--resume"), "{words:?}: {told}");
        let histogram = told["histogram"].as_array().unwrap();
        assert_eq!(histogram.iter().map(|bucket| count(bucket, "/count")).sum::<u64>(), answered);
        let seconds = told["per_second"].as_array().unwrap();
        assert_eq!(seconds.iter().map(|second| count(second, "/answered")).sum::<u64>(), answered);
        assert!(told["first_answer_us"]["min"].as_f64() > Some(0.0), "{told}");
    }
}

#[test]
fn a_rate_is_kept_and_latency_counts_from_when_a_query_was_due() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let dot = format!("127.0.0.1:{}", server.dot_port);
    let words = ["dot", &dot, "--rate", "300", "--duration", "2", "--json"];
    let told = told(&load(&server.folder(), &words));
    assert_eq!((count(&told, "/sent"), count(&told, "/unsent"), errors(&told)), (600, 0, 0), "{told}");
    assert_eq!((count(&told, "/answered"), count(&told, "/rate")), (600, 300));
}

#[test]
fn the_page_says_what_came_of_it() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let dot = format!("127.0.0.1:{}", server.dot_port);
    let output = load(&server.folder(), &["dot", &dot, "--duration", "2"]);
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && page.starts_with(&format!("DoT, {dot}\n10 connections")), "{page}");
    assert!(page.contains("  answers      NOERROR ") && page.contains("  error        none"), "{page}");
    assert!(page.contains("up to") && page.contains('\u{2588}') && page.contains("each second"), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    assert!(output.stderr.is_empty(), "no line that moves where nobody looks");
}

#[test]
fn what_cannot_be_asked_is_refused_in_words() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let folder = TempDir::new().unwrap();
    let dot = format!("127.0.0.1:{}", server.dot_port);
    let refused = |words: &[&str], what: &str| {
        let output = load(folder.path(), words);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty() && said(&output).contains(what), "{what}: {}", said(&output));
    };
    refused(&["dot", "192.0.2.1"], "192.0.2.1 is not this machine");
    refused(&["dot", "192.0.2.1"], "--i-may-load-this-server");
    refused(&["dot", &dot], "certs/ca.pem: ");
    refused(&["dot", &dot, "--ca", "names.txt"], "names.txt: has no certificate");
    let other = Server::before(&upstream, "");
    let ca = other.ca();
    refused(&["dot", &dot, "--ca", ca.to_str().unwrap()], "is not by a CA of the --ca file");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    refused(&["dot", &closed, "--ca", ca.to_str().unwrap()], "refused");
    let doh = format!("localhost:{}", server.doh_port);
    refused(&["dot", &doh, "--ca", server.ca().to_str().unwrap()], "the server speaks another protocol at this port");
    refused(&["dot", &dot, "--get"], "--get is a way to ask over DoH");

    let output = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .args(["load", "dot", &dot, "--names", "broken.txt"])
        .current_dir(folder.path())
        .output();
    assert!(said(&output.unwrap()).starts_with("broken.txt: "));
    fs::write(folder.path().join("broken.txt"), "ok.example\n a..b AAAA\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .args(["load", "dot", &dot, "--names", "broken.txt"])
        .current_dir(folder.path())
        .output();
    assert!(said(&output.unwrap()).starts_with("broken.txt:2:2: a..b: "));
}

#[test]
fn a_page_that_is_not_there_answers_nothing() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let doh = format!("127.0.0.1:{}/elsewhere", server.doh_port);
    let output = load(&server.folder(), &["doh", &doh, "--duration", "1", "--rate", "50", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(count(&told, "/answered") == 0 && count(&told, "/errors/http") >= 50, "{told}");
}

#[test]
fn a_server_that_dies_midway_is_told() {
    let upstream = Upstream::delaying();
    let mut server = Server::before(&upstream, "");
    let (folder, dot) = (server.folder(), format!("127.0.0.1:{}", server.dot_port));
    let loading = thread::spawn(move || load(&folder, &["dot", &dot, "--duration", "3", "--json"]));
    thread::sleep(Duration::from_secs(1));
    server.signal("KILL");
    server.wait();
    let told = told(&loading.join().unwrap());
    assert!(count(&told, "/answered") > 0 && count(&told, "/errors/connect") > 0, "{told}");
    assert!(count(&told, "/errors/connect") < 3_000, "no faster than it is of use: {told}");
}

/// A TLS server by a server's certificate, that does with each connection what `play` says.
fn scripted(server: &Server, alpn: &[u8], play: fn(&mut Tls)) -> u16 {
    let certs = server.folder().join("certs");
    let chain = CertificateDer::pem_file_iter(certs.join("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(certs.join("server.key")).unwrap();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let config = Arc::clone(&config);
            socket.set_nodelay(true).unwrap();
            thread::spawn(move || play(&mut StreamOwned::new(ServerConnection::new(config).unwrap(), socket)));
        }
    });
    port
}

type Tls = StreamOwned<ServerConnection, std::net::TcpStream>;

/// The next DoT query, made an answer.
fn next_answer(tls: &mut Tls) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    tls.read_exact(&mut length).ok()?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    tls.read_exact(&mut message).ok()?;
    message[2] |= 0x80;
    Some(message)
}

fn send_framed(tls: &mut Tls, messages: &[Vec<u8>]) {
    let _ = tls.write_all(&support::framed(messages)).and_then(|()| tls.flush());
}

#[test]
fn dot_answers_may_come_in_any_shape_and_wrong_ones_are_counted() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let port = scripted(&server, b"dot", |tls| {
        // Reversed pairs: split in the midst of a length, then two in a record, then a wrong ID before the right one.
        for turn in 0.. {
            let Some(first) = next_answer(tls) else { return };
            if turn == 0 {
                send_framed(tls, &[first]);
                continue;
            }
            let Some(second) = next_answer(tls) else { return };
            let mut wrong = second.clone();
            wrong[0] ^= 0x80;
            let octets = support::framed(&[second, first, wrong]);
            let at = turn % 40 + 1;
            for part in [&octets[..at], &octets[at..]] {
                let _ = tls.write_all(part).and_then(|()| tls.flush());
            }
        }
    });
    let target = format!("127.0.0.1:{port}");
    let words =
        ["dot", &target, "--connections", "1", "--in-flight", "2", "--rate", "200", "--duration", "1", "--json"];
    let told = told(&load(&server.folder(), &words));
    // The last one may have no other to make a pair with.
    assert!(count(&told, "/answered") >= 199, "{told}");
    assert!((99..=100).contains(&count(&told, "/errors/mismatch")), "{told}");
}

fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let head = [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// The next frame: kind, stream, payload.
fn next_frame(tls: &mut Tls) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    tls.read_exact(&mut head).ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    tls.read_exact(&mut payload).ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// Speaks HTTP/2 to one client: each query, its stream and itself made an answer, goes to `answer`, and what that
/// gives is sent.
fn speak_http2(tls: &mut Tls, mut answer: impl FnMut(u32, Vec<u8>) -> Vec<u8>) {
    if tls.read_exact(&mut [0; 24]).is_err() {
        return;
    }
    let mut out = h2_frame(4, 0, 0, &[0, 1, 0, 0, 0, 0]);
    loop {
        if tls.write_all(&out).and_then(|()| tls.flush()).is_err() {
            return;
        }
        out.clear();
        match next_frame(tls) {
            None => return,
            Some((0, stream, mut message)) => {
                message[2] |= 0x80;
                out = answer(stream, message);
            }
            Some(_) => {}
        }
    }
}

#[test]
fn doh_answers_may_come_in_any_shape_and_faults_are_counted() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let port = scripted(&server, b"h2", |tls| {
        let mut turn = 0;
        speak_http2(tls, |stream, message| {
            turn += 1;
            match turn % 4 {
                // Padded, in two frames; a status in a field block of two frames; a reset; another's ID.
                0 => [
                    h2_frame(1, 4, stream, &[0x88]),
                    h2_frame(0, 0, stream, &message[..3]),
                    h2_frame(0, 9, stream, &[&[2][..], &message[3..], &[0; 2]].concat()),
                ]
                .concat(),
                1 => [
                    h2_frame(1, 0, stream, &[0x08, 3, b'2']),
                    h2_frame(9, 4, stream, b"00"),
                    h2_frame(0, 1, stream, &message),
                ]
                .concat(),
                2 => h2_frame(3, 0, stream, &[0, 0, 0, 2]),
                _ => {
                    let mut message = message;
                    message[0] = 1;
                    [h2_frame(1, 4, stream, &[0x88]), h2_frame(0, 1, stream, &message)].concat()
                }
            }
        });
    });
    let target = format!("127.0.0.1:{port}");
    let words = ["doh", &target, "--connections", "1", "--rate", "200", "--duration", "1", "--json"];
    let told = told(&load(&server.folder(), &words));
    assert_eq!(count(&told, "/sent"), 200, "{told}");
    assert_eq!((count(&told, "/answered"), count(&told, "/errors/http")), (100, 50), "{told}");
    assert_eq!((count(&told, "/errors/mismatch"), errors(&told)), (50, 100), "{told}");
}

#[test]
fn a_query_that_a_leaving_server_gives_back_is_asked_again() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    let port = scripted(&server, b"h2", |tls| {
        speak_http2(tls, |stream, message| {
            let answer = [h2_frame(1, 4, stream, &[0x88]), h2_frame(0, 1, stream, &message)].concat();
            match stream {
                0..21 => answer,
                // It answers no more than this one.
                21 => [h2_frame(7, 0, 0, &[0, 0, 0, 21, 0, 0, 0, 0]), answer].concat(),
                _ => Vec::new(),
            }
        });
    });
    let target = format!("127.0.0.1:{port}");
    let words = ["doh", &target, "--connections", "2", "--rate", "200", "--duration", "1", "--json"];
    let told = told(&load(&server.folder(), &words));
    assert_eq!((count(&told, "/answered"), errors(&told)), (200, 0), "{told}");
    assert!(count(&told, "/handshakes/full") >= 18, "eleven answers a connection: {told}");
}

#[test]
fn ctrl_c_ends_it_with_what_there_is() {
    let upstream = Upstream::delaying();
    let server = Server::before(&upstream, "");
    fs::write(server.folder().join("names.txt"), NAMES).unwrap();
    let dot = format!("127.0.0.1:{}", server.dot_port);
    let loading = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .args(["load", "dot", &dot, "--names", "names.txt", "--duration", "10m", "--rate", "100", "--json"])
        .current_dir(server.folder())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_secs(1));
    let kill = format!("kill -INT {}", loading.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let told = told(&loading.wait_with_output().unwrap());
    assert!(count(&told, "/answered") > 0 && told["seconds"].as_f64() < Some(60.0), "{told}");
}
