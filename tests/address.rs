//! Whose address a query comes from: PROXY headers, forwarders, listeners of a country; the real binary over sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use bailiwick::cache::Cache;
use bailiwick::clock::Clock;
use bailiwick::config::Config;
use bailiwick::dns::Qtype;
use bailiwick::listener::{self, Phase, Shared};
use bailiwick::local::Locals;
use bailiwick::pipeline::{Country, Parts, Pipeline};
use bailiwick::policy::{Policy, load};
use bailiwick::telemetry::{Protocol, Telemetry};
use bailiwick::upstream;
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use socket2::{Domain, Socket, Type};
use support::http::target;
use support::{Dot, PATIENCE, Server, Upstream, connect_from, free_ports, lay_over, query, query_with_opt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

// ---------------------------------------------------------------- the server, and where it thinks a client is

/// Its connections begin with a PROXY header.
const PROXY: [u8; 4] = [127, 0, 0, 11];
/// Its requests say whose they are. So do those of the next address.
const FORWARDER: [u8; 4] = [127, 0, 0, 12];
/// Nobody has listed it.
const UNLISTED: [u8; 4] = [127, 0, 0, 14];

const ITALIAN: &str = "192.0.2.7";
const GERMAN: &str = "198.51.100.7";

/// Every address of loopback is French, so that a client's own country is never taken for a proxy's.
const SETTINGS: &str = r#"
    [listen]
    proxy-from = ["127.0.0.11/32"]
    forwarded-from = ["127.0.0.12/31"]
    [origin]
    networks = [
        { prefix = "192.0.2.0/24", country = "IT" },
        { prefix = "2001:db8:1::/48", country = "IT" },
        { prefix = "198.51.100.0/24", country = "DE" },
        { prefix = "127.0.0.0/8", country = "FR" },
    ]
    [policy]
    orders = "{folder}/orders"
"#;

/// The countries that have an order; each refuses the name of its country below `example`.
const COUNTRIES: [&str; 3] = ["IT", "DE", "FR"];

fn order(country: &str) -> String {
    format!(
        "id = 'order-{country}'\nissuer = 'Test Court'\njurisdiction = ['{country}']\nreceived = 2026-01-01T00:00:00Z\n\
         state = 'in-force'\neffect = 'refused'\nunknown-origin = 'block'\n[[target]]\nsubtree = ['{country}.example']\n"
    )
}

fn server(upstream: &Upstream, overrides: &str) -> Server {
    server_in(upstream, &[], overrides)
}

fn server_in(upstream: &Upstream, wrapper: &[&str], overrides: &str) -> Server {
    let orders = COUNTRIES.map(|country| (format!("orders/{country}.toml"), order(country)));
    let files: Vec<_> = orders.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut settings: toml::Table = SETTINGS.parse().unwrap();
    lay_over(&mut settings, overrides.parse().unwrap());
    Server::start_with(&files, wrapper, &upstream.config(&settings.to_string()))
}

/// A query for each country's name.
fn queries() -> [Vec<u8>; 3] {
    COUNTRIES.map(|country| query(1, &format!("{country}.example"), Qtype::A))
}

/// The country for which these answers to [`queries`] were given; where it is not known, all are refused.
fn told(rcodes: [u16; 3]) -> &'static str {
    match rcodes.map(|rcode| rcode == 5) {
        [true, false, false] => "IT",
        [false, true, false] => "DE",
        [false, false, true] => "FR",
        [true, true, true] => "unknown",
        _ => panic!("{rcodes:?}"),
    }
}

/// The country of a DoT client.
fn country(mut dot: Dot) -> &'static str {
    told(queries().map(|query| {
        dot.ask(&[query]);
        dot.receive().rcode
    }))
}

/// Waits until a metric is so high, which may be a moment after what it counts is seen.
fn counts(server: &Server, metric: &str, expected: u64) {
    let start = Instant::now();
    loop {
        let page = server.get("/metrics").unwrap();
        let found = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse::<u64>().ok());
        if found == Some(expected) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{metric} is {found:?} instead of {expected}");
        sleep(Duration::from_millis(20));
    }
}

// ---------------------------------------------------------------- PROXY headers

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for a client, with these octets of TLVs.
fn header(client: &str, tlvs: &[u8]) -> Vec<u8> {
    let (family, addresses) = match client.parse().unwrap() {
        IpAddr::V4(client) => (0x11, [client.octets(), [203, 0, 113, 1]].concat()),
        IpAddr::V6(client) => (0x21, [client.octets(), Ipv6Addr::LOCALHOST.octets()].concat()),
    };
    block(0x21, family, &[&addresses[..], &[0x9c, 0x40, 3, 0x55], tlvs].concat())
}

fn block(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

fn trusting(server: &Server) -> Arc<ClientConfig> {
    server.tls(rustls::ALL_VERSIONS, &[])
}

/// A DoT connection whose first segment begins with these octets.
fn dot_behind(server: &Server, before: &[u8], source: [u8; 4]) -> io::Result<Dot> {
    Dot::connect_behind(before, connect_from(source, server.dot_port)?, &trusting(server))
}

/// Whether the server closes a connection of the proxy on which only this is said, and after what time.
fn closed_after(server: &Server, octets: &[u8]) -> Duration {
    let mut socket = connect_from(PROXY, server.dot_port).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let start = Instant::now();
    socket.write_all(octets).unwrap();
    let heard = socket.read(&mut [0; 64]);
    let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
    assert!(matches!(&heard, Ok(0)) || heard.as_ref().is_err_and(is_reset), "{heard:?}");
    start.elapsed()
}

#[test]
fn a_listed_proxy_says_for_whom_it_calls() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "");
    // In one segment with the ClientHello.
    for (client, expected) in [
        (ITALIAN, "IT"),
        (GERMAN, "DE"),
        ("2001:db8:1::7", "IT"),
        ("::ffff:198.51.100.7", "DE"),
        ("203.0.113.7", "unknown"),
    ] {
        let dot = dot_behind(&server, &header(client, &[]), PROXY).unwrap();
        assert_eq!(country(dot), expected, "{client}");
    }
    // Octet by octet, before it.
    let mut socket = connect_from(PROXY, server.dot_port).unwrap();
    socket.set_nodelay(true).unwrap();
    for octet in header(ITALIAN, &[4, 0, 1, 0]) {
        socket.write_all(&[octet]).unwrap();
        sleep(Duration::from_millis(2));
    }
    assert_eq!(country(Dot::connect(socket, &trusting(&server)).unwrap()), "IT");
    // Its own connections, and those of no IP address.
    let local = [block(0x20, 0, &[]), block(0x20, 0x11, &[1, 2, 3]), block(0x21, 0, &[]), block(0x21, 0x31, &[0; 216])];
    for own in local {
        assert_eq!(country(dot_behind(&server, &own, PROXY).unwrap()), "FR");
    }
}

#[test]
fn nobody_else_may_say_so() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "");
    for source in [UNLISTED, FORWARDER] {
        assert!(dot_behind(&server, &header(ITALIAN, &[]), source).is_err(), "it is no TLS");
        assert_eq!(country(server.dot_from(source)), "FR");
    }
    counts(&server, "bailiwick_handshake_failures_total", 2);
}

#[test]
fn a_listed_proxy_must_say_so_and_in_version_2() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "");
    let mut wrong = header(ITALIAN, &[]);
    wrong[12] = 0x22;
    let line = b"PROXY TCP4 192.0.2.7 203.0.113.1 40000 853\r\n";
    for before in [&b""[..], line, &wrong, &block(0x21, 0x12, &[0; 12]), &block(0x21, 0x11, &[0; 11])] {
        assert!(dot_behind(&server, before, PROXY).is_err(), "{before:?}");
    }
    counts(&server, "bailiwick_handshake_failures_total", 5);
    assert_eq!(country(dot_behind(&server, &header(GERMAN, &[]), PROXY).unwrap()), "DE");
}

#[test]
fn a_header_is_bounded_from_both_sides() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "");
    let tlvs = |octets: usize| [&[0xea][..], &((octets - 3) as u16).to_be_bytes(), &vec![7; octets - 3]].concat();
    let longest = header(ITALIAN, &tlvs(1_024 - 12));
    assert_eq!(country(dot_behind(&server, &longest, PROXY).unwrap()), "IT");
    let bites = |expected| counts(&server, "bailiwick_bounds_total{bound=\"proxy-header\"}", expected);
    bites(0);
    assert!(dot_behind(&server, &header(ITALIAN, &tlvs(1_025 - 12)), PROXY).is_err());
    // What is too long is not waited for: this bound ends it, and not that of handshakes.
    closed_after(&server, &[SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat());
    bites(2);
    counts(&server, "bailiwick_bounds_total{bound=\"handshake-timeout\"}", 0);
}

#[test]
fn half_a_header_and_a_drip_of_one_end_with_the_handshake_timeout() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "[limits]\nhandshake-timeout = \"1s\"");
    let whole = header(ITALIAN, &[]);
    let until_closed = |took: Duration| assert!(took >= Duration::from_millis(900), "{took:?}");
    until_closed(closed_after(&server, b""));
    for cut in [1, 12, 15, 16, whole.len() - 1, whole.len()] {
        until_closed(closed_after(&server, &whole[..cut]));
    }
    let mut socket = connect_from(PROXY, server.dot_port).unwrap();
    let start = Instant::now();
    let dripped = whole.iter().take_while(|octet| {
        sleep(Duration::from_millis(200));
        socket.write_all(&[**octet]).is_ok()
    });
    assert!(dripped.count() < whole.len(), "no octet buys more time");
    until_closed(start.elapsed());
    counts(&server, "bailiwick_bounds_total{bound=\"handshake-timeout\"}", 8);
    assert_eq!(country(dot_behind(&server, &whole, PROXY).unwrap()), "IT", "others are served");
}

#[test]
fn proxies_are_exempt_from_the_bound_per_client_and_their_clients_are_not() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "[limits]\nconnections-per-client = 1");
    let held = [ITALIAN, GERMAN].map(|client| dot_behind(&server, &header(client, &[]), PROXY).unwrap());
    assert!(dot_behind(&server, &header(ITALIAN, &[]), PROXY).is_err());
    counts(&server, "bailiwick_bounds_total{bound=\"connections-per-client\"}", 1);
    let _own = [(); 2].map(|()| dot_behind(&server, &block(0x20, 0, &[]), PROXY).unwrap());
    // A forwarder of requests is none of DNS over TLS.
    let _first = server.dot_from(FORWARDER);
    assert!(dot_behind(&server, &[], FORWARDER).is_err());
    drop(held);
    let start = Instant::now();
    while dot_behind(&server, &header(ITALIAN, &[]), PROXY).is_err() {
        assert!(start.elapsed() < PATIENCE);
        sleep(Duration::from_millis(50));
    }
}

// ---------------------------------------------------------------- ECS, and listeners of a country

#[test]
fn a_client_subnet_changes_nothing() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "");
    let mut dot = dot_behind(&server, &header(GERMAN, &[]), PROXY).unwrap();
    // RFC 7871 §6: family 1, 24 bits of 192.0.2.0, which is Italian.
    let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
    for (name, rcode) in [("it.example", 0), ("de.example", 5)] {
        dot.ask(&[query_with_opt(1, name, Qtype::A, &subnet)]);
        assert_eq!(dot.receive().rcode, rcode, "{name}");
    }
}

#[test]
fn a_listener_may_have_a_country_of_its_own() {
    let upstream = Upstream::labelled();
    let [german, plain] = free_ports();
    let places = format!("dot = [{{ address = \"127.0.0.1:{german}\", country = \"DE\" }}, \"127.0.0.1:{plain}\"]");
    let server = server(&upstream, &format!("[listen]\n{places}"));
    let dot = |before: &[u8], source, port| {
        country(Dot::connect_behind(before, connect_from(source, port).unwrap(), &trusting(&server)).unwrap())
    };
    for (port, own, proxied) in [(german, "DE", "DE"), (plain, "FR", "IT")] {
        assert_eq!(dot(&[], UNLISTED, port), own);
        assert_eq!(dot(&header(ITALIAN, &[]), PROXY, port), proxied);
    }
    assert!(server.log().contains(&format!("tls://127.0.0.1:{german} (DE)")), "{}", server.log());
}

// ---------------------------------------------------------------- forwarders

/// An HTTP/2 connection.
struct H2(SendRequest<Bytes>);

impl H2 {
    async fn connect(server: &Server, before: &[u8], source: [u8; 4]) -> io::Result<Self> {
        let stream = server.try_doh_behind(before, source, &[b"h2"]).await?;
        let (send, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self(send))
    }

    /// The RCODE of the answer to a query, asked with these header fields.
    async fn ask(&self, query: &[u8], fields: &[(&str, &str)]) -> u16 {
        let mut request = http::Request::get(format!("https://localhost{}", target(query)));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut send = self.0.clone().ready().await.unwrap();
        let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
        let (head, mut body) = timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
        assert_eq!(head.status, 200);
        let mut octets = BytesMut::new();
        while let Some(data) = body.data().await {
            octets.extend_from_slice(&data.unwrap());
        }
        (octets[3] & 15).into()
    }

    async fn country(&self, fields: &[(&str, &str)]) -> &'static str {
        let [it, de, fr] = queries();
        told([self.ask(&it, fields).await, self.ask(&de, fields).await, self.ask(&fr, fields).await])
    }
}

/// The RCODE of the answer to a query over HTTP/1.1, asked with these header fields.
async fn http1(server: &Server, source: [u8; 4], query: &[u8], fields: &[(&str, &str)]) -> u16 {
    let mut stream = server.try_doh_behind(&[], source, &[b"http/1.1"]).await.unwrap();
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("GET {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n", target(query));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.unwrap();
    assert!(heard.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&heard));
    let body = heard.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    (heard[body + 3] & 15).into()
}

#[tokio::test]
async fn a_listed_forwarder_says_whose_a_request_is() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "");
    let h2 = H2::connect(&server, &[], FORWARDER).await.unwrap();
    let cases: [(&[(&str, &str)], &str); 17] = [
        (&[], "FR"),
        (&[("forwarded", "for=192.0.2.7")], "IT"),
        (&[("forwarded", "for=\"[2001:db8:1::7]:4711\";proto=https")], "IT"),
        (&[("x-forwarded-for", "198.51.100.7")], "DE"),
        (&[("x-forwarded-for", "192.0.2.7, 198.51.100.7")], "DE"),
        // The one that a listed forwarder passes on for another, in one field and in two.
        (&[("x-forwarded-for", "192.0.2.7, 198.51.100.7, 127.0.0.13")], "DE"),
        (&[("forwarded", "for=192.0.2.7, for=198.51.100.7"), ("forwarded", "for=127.0.0.13")], "DE"),
        (&[("x-forwarded-for", "192.0.2.7, 127.0.0.14")], "FR"),
        (&[("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "198.51.100.7")], "DE"),
        (&[("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "192.0.2.7")], "unknown"),
        // What a client wrote before is not believed, and cannot swallow what comes behind it.
        (&[("forwarded", "for=\"192.0.2.7, for=198.51.100.7")], "DE"),
        // What is no address: nobody knows the client, and HTTP says nothing of it.
        (&[("forwarded", "for=unknown")], "unknown"),
        (&[("forwarded", "for=192.0.2.7, for=_hidden")], "unknown"),
        (&[("forwarded", "\"\"\",;;=for=\\")], "unknown"),
        (&[("x-forwarded-for", "192.0.2.7, not an address")], "unknown"),
        (&[("forwarded", "")], "FR"),
        (&[("forwarded", "for=127.0.0.13")], "FR"),
    ];
    for (fields, expected) in cases {
        assert_eq!(h2.country(fields).await, expected, "{fields:?}");
        let [it, de, fr] = queries();
        let rcodes = [
            http1(&server, FORWARDER, &it, fields).await,
            http1(&server, FORWARDER, &de, fields).await,
            http1(&server, FORWARDER, &fr, fields).await,
        ];
        assert_eq!(told(rcodes), expected, "HTTP/1.1, {fields:?}");
    }
}

/// Addresses that only a header tells, good ones and bad ones; written in whatever way.
const CANARIES: [&str; 6] =
    ["203.0.113.199", "203, 0, 113, 199", "cb0071c7", "2001:db8:ca:fe", "20010db800ca00fe", "canary"];

#[tokio::test]
async fn no_address_that_a_header_tells_is_written_anywhere() {
    let upstream = Upstream::labelled();
    let mut server = server_in(&upstream, &["env", "RUST_LOG=trace"], "[limits]\nconnections-per-client = 1");
    for client in ["203.0.113.199", "2001:db8:ca:fe::77"] {
        let whole = header(client, b"\xe0\0\x06canary");
        let mut dot = dot_behind(&server, &whole, PROXY).unwrap();
        for name in ["canary.it.example", "canary.example"] {
            dot.ask(&[query(1, name, Qtype::A)]);
            dot.receive();
        }
        assert!(dot_behind(&server, &whole, PROXY).is_err(), "one connection is its bound");
        let garbled = [&whole[..12], &[0x21, 0x12], &whole[14..]].concat();
        for broken in [&garbled, &whole[..20], &[&whole[..], &whole].concat()] {
            assert!(dot_behind(&server, broken, PROXY).is_err());
        }
        let h2 = H2::connect(&server, &[], FORWARDER).await.unwrap();
        let quoted = format!("for=\"[{client}]:canary\"");
        for value in [client, &format!("{client}, canary"), &format!("{client}\\\"")] {
            let fields = [("forwarded", quoted.as_str()), ("x-forwarded-for", value)];
            for fields in [&fields[..1], &fields[1..], &fields] {
                h2.ask(&query(1, "canary.de.example", Qtype::A), fields).await;
                http1(&server, FORWARDER, &query(1, "canary.example", Qtype::A), fields).await;
            }
        }
    }
    let mut written: Vec<_> =
        ["/metrics", "/health", "/orders"].map(|page| (page.to_owned(), server.get(page).unwrap())).into();
    server.signal("TERM");
    server.wait();
    let mut folders = vec![server.folder()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                written.push((path.display().to_string(), String::from_utf8_lossy(&fs::read(&path).unwrap()).into()));
            }
        }
    }
    assert!(written.iter().any(|(place, _)| place.ends_with("ledger.jsonl")) && server.log().contains("a bound"));
    for (place, text) in written {
        let found = CANARIES.iter().find(|canary| text.to_lowercase().contains(*canary));
        assert_eq!(found, None, "in {place}:\n{text}");
    }
}

#[tokio::test]
async fn nobody_else_is_believed_whose_a_request_is() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "");
    let fields = [("forwarded", "for=192.0.2.7"), ("x-forwarded-for", "192.0.2.7")];
    let h2 = H2::connect(&server, &[], UNLISTED).await.unwrap();
    assert_eq!(h2.country(&fields).await, "FR");
    assert_eq!(http1(&server, UNLISTED, &queries()[0], &fields).await, 0);
    // Neither is a proxy that may say for whom it calls, nor one for whom it does.
    let h2 = H2::connect(&server, &block(0x20, 0, &[]), PROXY).await.unwrap();
    assert_eq!(h2.country(&fields).await, "FR");
    let h2 = H2::connect(&server, &header(GERMAN, &[]), PROXY).await.unwrap();
    assert_eq!(h2.country(&fields).await, "DE");
    // Unless it calls for a forwarder.
    let h2 = H2::connect(&server, &header("127.0.0.12", &[]), PROXY).await.unwrap();
    assert_eq!(h2.country(&fields).await, "IT");
    assert!(H2::connect(&server, &header(ITALIAN, &[]), FORWARDER).await.is_err());
}

#[tokio::test]
async fn clients_of_several_countries_share_a_forwarded_connection() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "");
    let h2 = H2::connect(&server, &[], FORWARDER).await.unwrap();
    let clients =
        [("for=192.0.2.7", "IT"), ("for=198.51.100.7", "DE"), ("for=unknown", "unknown"), ("for=127.0.0.9", "FR")];
    let asked = (0..40).map(|number| {
        let (field, expected) = clients[number % clients.len()];
        let h2 = H2(h2.0.clone());
        tokio::spawn(async move { (h2.country(&[("forwarded", field)]).await, expected) })
    });
    for told in asked.collect::<Vec<_>>() {
        let (told, expected) = told.await.unwrap();
        assert_eq!(told, expected);
    }
    counts(&server, "bailiwick_connections_total{transport=\"doh\"}", 1);
}

#[tokio::test]
async fn forwarders_are_exempt_from_the_bound_per_client() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "[limits]\nconnections-per-client = 1");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(H2::connect(&server, &[], FORWARDER).await.unwrap());
        held.push(H2::connect(&server, &header("127.0.0.13", &[]), PROXY).await.unwrap());
    }
    let _one = H2::connect(&server, &[], UNLISTED).await.unwrap();
    assert!(H2::connect(&server, &[], UNLISTED).await.is_err());
}

#[tokio::test]
async fn each_client_of_a_forwarder_has_a_rate_of_its_own() {
    let upstream = Upstream::labelled();
    let server = server(&upstream, "[limits]\nqueries-per-second-per-client = 4");
    let h2 = H2::connect(&server, &[], FORWARDER).await.unwrap();
    let ask = |field: &'static str| {
        let h2 = H2(h2.0.clone());
        tokio::spawn(async move {
            let start = Instant::now();
            assert_eq!(h2.ask(&query(1, "www.example.org", Qtype::A), &[("forwarded", field)]).await, 0);
            start.elapsed()
        })
    };
    // As many as take two seconds; those whose clients are hidden are their forwarder's.
    let of_one: Vec<_> = (0..12).map(|_| ask("for=192.0.2.7")).collect();
    let of_hidden: Vec<_> = (0..12).map(|number| ask(["for=_a", "for=_b"][number % 2])).collect();
    let of_another = ask("for=198.51.100.7").await.unwrap();
    assert!(of_another < Duration::from_secs(1), "{of_another:?}");
    for asked in [of_one, of_hidden] {
        let mut longest = Duration::ZERO;
        for took in asked {
            longest = longest.max(took.await.unwrap());
        }
        assert!(longest > Duration::from_millis(1_500), "{longest:?}");
    }
}

// ---------------------------------------------------------------- probes, registered in the process that serves

/// A worker in this process.
struct Inside {
    pipeline: Arc<Pipeline>,
    dot: SocketAddr,
    doh: SocketAddr,
    tls: Arc<ClientConfig>,
    _phase: watch::Sender<Phase>,
}

impl Inside {
    /// Serves as [`SETTINGS`] have it; 127.0.0.21 is a listed proxy too.
    fn serve(upstream: &Upstream, folder: &Path) -> Self {
        for country in COUNTRIES {
            fs::write(folder.join(format!("{country}.toml")), order(country)).unwrap();
        }
        let mut settings: toml::Table = SETTINGS.replace("{folder}/orders", folder.to_str().unwrap()).parse().unwrap();
        let listen =
            "[listen]\ndoh = ['127.0.0.1:0']\ndot = ['127.0.0.1:0']\nproxy-from = ['127.0.0.11/32', '127.0.0.21/32']";
        lay_over(&mut settings, listen.parse().unwrap());
        let config = Config::parse(Path::new("a.toml"), &upstream.config(&settings.to_string())).unwrap();
        let clock = Clock::system();
        let settings = load::Settings { state: None, ..config.policy };
        let loaded = load::load(&settings, &load::Before::default(), clock.now().wall);
        let pipeline = Pipeline::new(Parts {
            policy: Policy::compile(&loaded, 1, clock.now().wall).unwrap(),
            cache: Cache::new(&config.cache),
            upstream: upstream::Upstream::new(&config.upstream, Arc::new(upstream::System)),
            locals: Locals::new(&config.local),
            telemetry: Telemetry::new(1),
            clock,
            settings: config.pipeline,
        });
        let (server, tls) = tls();
        let telemetry = Arc::clone(pipeline.telemetry());
        let bound = listener::bind(&config.listen, 1).unwrap().remove(0);
        let address = |wanted| bound.addresses().iter().find(|(protocol, _)| *protocol == wanted).unwrap().1;
        let (dot, doh) = (address(Protocol::Dot), address(Protocol::Doh));
        let mut doh_tls = (*server).clone();
        doh_tls.alpn_protocols = vec![b"h2".to_vec()];
        let shared = Shared::new(Arc::clone(&pipeline), config.listen, server, Arc::new(doh_tls), telemetry, None);
        let (say, phase) = watch::channel(Phase::Running);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(listener::run(bound, shared, phase))
        });
        Self { pipeline, dot, doh, tls, _phase: say }
    }

    /// A connection from a socket, behind these octets.
    fn dot(&self, socket: Socket, before: &[u8]) -> io::Result<Dot> {
        socket.connect(&self.dot.into())?;
        Dot::connect_behind(before, socket.into(), &self.tls)
    }

    fn blocks(&self) -> u64 {
        let of = |country: &str| self.pipeline.telemetry().block_counter("order", &format!("order-{country}")).total();
        COUNTRIES.into_iter().map(of).sum()
    }
}

/// A server's and a client's settings that trust each other.
fn tls() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificate = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key.into());
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server.unwrap()), Arc::new(client))
}

/// A socket bound to a loopback address, to a port of its own (0) or to this one, and that address. Closed, it leaves
/// nothing behind that keeps its port.
fn bound(source: [u8; 4], port: u16) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket.bind(&SocketAddr::from((source, port)).into()).unwrap();
    let local = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, local)
}

#[test]
fn a_probe_asks_as_a_client_of_exactly_its_country_and_is_not_counted() {
    let (upstream, folder) = (Upstream::labelled(), tempfile::tempdir().unwrap());
    let inside = Inside::serve(&upstream, folder.path());
    // From a listed proxy's address too: a probe has nobody to call for.
    for source in [[127, 0, 0, 20], [127, 0, 0, 21]] {
        for (asked, expected) in [(Country::from_code("IT"), "IT"), (Country::from_code("DE"), "DE"), (None, "unknown")]
        {
            let (socket, local) = bound(source, 0);
            let _pass = inside.pipeline.register_probe(local, asked);
            assert_eq!(country(inside.dot(socket, &[]).unwrap()), expected, "{source:?}");
        }
    }
    assert_eq!(inside.blocks(), 0);
    assert_eq!(country(inside.dot(bound([127, 0, 0, 20], 0).0, &[]).unwrap()), "FR");
    assert_eq!(inside.blocks(), 1, "a client's is");
}

#[test]
fn nothing_that_a_client_could_send_makes_it_a_probe() {
    let (upstream, folder) = (Upstream::labelled(), tempfile::tempdir().unwrap());
    let inside = Inside::serve(&upstream, folder.path());
    let (socket, local) = bound([127, 0, 0, 20], 0);
    let pass = inside.pipeline.register_probe(local, Country::from_code("IT"));
    // A header that names the probe's own socket: from nobody, and from a listed proxy.
    let addresses = [&[127, 0, 0, 20, 127, 0, 0, 1][..], &local.port().to_be_bytes(), &[3, 0x55]].concat();
    let named = block(0x21, 0x11, &addresses);
    assert!(inside.dot(bound(UNLISTED, 0).0, &named).is_err());
    assert_eq!(country(inside.dot(bound(PROXY, 0).0, &named).unwrap()), "FR");
    // The same port of another address, another port of the same.
    assert_eq!(country(inside.dot(bound(UNLISTED, local.port()).0, &[]).unwrap()), "FR");
    assert_eq!(country(inside.dot(bound([127, 0, 0, 20], 0).0, &[]).unwrap()), "FR");
    // The port, used again behind the pass.
    assert_eq!(country(inside.dot(socket, &[]).unwrap()), "IT");
    drop(pass);
    assert_eq!(country(inside.dot(bound([127, 0, 0, 20], local.port()).0, &[]).unwrap()), "FR");
}

#[tokio::test]
async fn no_forwarder_names_a_probe() {
    let (upstream, folder) = (Upstream::labelled(), tempfile::tempdir().unwrap());
    let inside = Inside::serve(&upstream, folder.path());
    let (_socket, local) = bound([127, 0, 0, 20], 0);
    let _pass = inside.pipeline.register_probe(local, Country::from_code("IT"));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((FORWARDER, 0).into()).unwrap();
    let stream = socket.connect(inside.doh).await.unwrap();
    let name = ServerName::from(inside.doh.ip());
    let mut tls = (*inside.tls).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let named = format!("for=\"{local}\"");
    assert_eq!(H2(send).country(&[("forwarded", &named)]).await, "FR");
}
