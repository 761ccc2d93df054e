//! The real binary over HTTP/2 and HTTP/1.1: what RFC 8484 asks for, and what attackers and odd clients do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use bailiwick::dns::Qtype;
use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

use support::http::{
    ACK, CONTINUATION, END_HEADERS, END_STREAM, FIELDS, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, encoded, frame,
    frames, target,
};
use support::{PATIENCE, Server, Upstream, query, query_with_opt};

const MEDIA_TYPE: &str = "application/dns-message";

// ---------------------------------------------------------------- what is asked, and what comes back

fn a(id: u16, name: &str) -> Vec<u8> {
    query(id, name, Qtype::A)
}

/// A response of either version of HTTP.
#[derive(Debug)]
struct Heard {
    status: u16,
    fields: HeaderMap,
    body: Bytes,
}

impl Heard {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn rcode(&self) -> u8 {
        self.body[3] & 15
    }

    /// Seconds of `private, max-age=`.
    fn max_age(&self) -> u32 {
        self.field("cache-control").strip_prefix("private, max-age=").unwrap().parse().unwrap()
    }
}

#[derive(Debug, Clone, Copy)]
enum Version {
    Http1,
    Http2,
}

const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];

/// One request on a connection of its own.
async fn ask(
    server: &Server,
    version: Version,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &[u8],
) -> Heard {
    match version {
        Version::Http1 => http1(server, &request_text(method, target, fields, body)).await.remove(0),
        Version::Http2 => {
            let mut client = H2::connect(server).await;
            let parts: &[&[u8]] = if body.is_empty() { &[] } else { &[body] };
            client.ask(method, target, fields, parts).await.unwrap()
        }
    }
}

async fn get(server: &Server, version: Version, message: &[u8]) -> Heard {
    ask(server, version, "GET", &target(message), &[], b"").await
}

async fn post(server: &Server, version: Version, message: &[u8]) -> Heard {
    ask(server, version, "POST", "/dns-query", &[("content-type", MEDIA_TYPE)], message).await
}

fn request_text(method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        text += &format!("content-length: {}\r\n", body.len());
    }
    [text.as_bytes(), b"\r\n", body].concat()
}

/// Sends these octets, and reads to the end of the connection.
async fn http1(server: &Server, octets: &[u8]) -> Vec<Heard> {
    let head_only = octets.starts_with(b"HEAD");
    let (mut reader, mut writer) = tokio::io::split(server.doh(&[b"http/1.1"]).await);
    let sent = octets.to_vec();
    let writing = tokio::spawn(async move {
        // The server may have heard enough before the end of it.
        let _ = writer.write_all(&sent).await;
        writer
    });
    let mut heard = Vec::new();
    let _ = timeout(PATIENCE, reader.read_to_end(&mut heard)).await.unwrap();
    writing.abort();
    responses(&heard, head_only)
}

fn responses(mut octets: &[u8], head_only: bool) -> Vec<Heard> {
    let mut all = Vec::new();
    while !octets.is_empty() {
        let end = octets.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
        let head = std::str::from_utf8(&octets[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let mut fields = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            fields.append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let length = fields.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
        let body = if head_only { &[] } else { &octets[end..end + length] };
        all.push(Heard { status, fields, body: Bytes::copy_from_slice(body) });
        octets = &octets[end + body.len()..];
    }
    all
}

/// An HTTP/2 connection, driven by a task.
struct H2 {
    send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl H2 {
    async fn connect(server: &Server) -> Self {
        Self::connect_with(server, &h2::client::Builder::new()).await
    }

    async fn connect_with(server: &Server, settings: &h2::client::Builder) -> Self {
        let (send, connection) = settings.handshake(server.doh(&[b"h2"]).await).await.unwrap();
        Self { send, driver: tokio::spawn(connection) }
    }

    async fn begin(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        parts: &[&[u8]],
    ) -> Result<ResponseFuture, h2::Error> {
        let mut request = Request::builder().method(method).uri(format!("https://localhost{target}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.send = self.send.clone().ready().await?;
        let (response, mut body) = self.send.send_request(request.body(()).unwrap(), parts.is_empty())?;
        for (at, part) in parts.iter().enumerate() {
            // What the server has no use for it may refuse to take.
            let _ = body.send_data(Bytes::copy_from_slice(part), at + 1 == parts.len());
        }
        Ok(response)
    }

    async fn ask(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        parts: &[&[u8]],
    ) -> Result<Heard, h2::Error> {
        let response = self.begin(method, target, fields, parts).await?;
        timeout(PATIENCE, whole(response)).await.unwrap()
    }
}

async fn whole(response: ResponseFuture) -> Result<Heard, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut octets = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        octets.extend_from_slice(&data);
    }
    Ok(Heard { status: head.status.as_u16(), fields: head.headers, body: octets.freeze() })
}

// ---------------------------------------------------------------- RFC 8484

#[tokio::test]
async fn get_post_and_head_in_both_versions() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let message = a(0xcafe, "www.example.org");
    for version in VERSIONS {
        let got = get(&server, version, &message).await;
        assert_eq!((got.status, got.field("content-type")), (200, MEDIA_TYPE), "{version:?}");
        assert_eq!((&got.body[..2], got.rcode(), got.body[7]), (&b"\xca\xfe"[..], 0, 1), "ID echoed, one answer");
        assert_eq!(got.field("content-length"), got.body.len().to_string());
        assert!(got.fields.get("set-cookie").is_none() && got.fields.get("age").is_none());

        let posted = post(&server, version, &message).await;
        assert_eq!((posted.status, posted.body.len()), (200, got.body.len()));

        let head = ask(&server, version, "HEAD", &target(&message), &[], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        for field in ["content-type", "content-length"] {
            assert_eq!(head.field(field), got.field(field), "{version:?} {field}");
        }
        assert!(head.max_age() <= got.max_age());
    }
}

#[tokio::test]
async fn the_parameter_may_stand_anywhere_and_be_padded() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let message = a(0, "a.example.org");
    let encoded = encoded(&message);
    let padding = "=".repeat((4 - encoded.len() % 4) % 4);
    assert!(!padding.is_empty(), "the sample needs padding");
    for version in VERSIONS {
        for target in [
            format!("/dns-query?ct=x&dns={encoded}"),
            format!("/dns-query?a&dns={encoded}&b=c"),
            format!("/dns-query?dns={encoded}{padding}"),
        ] {
            let heard = ask(&server, version, "GET", &target, &[], b"").await;
            assert_eq!((heard.status, heard.rcode()), (200, 0), "{version:?} {target}");
        }
    }
}

#[tokio::test]
async fn a_body_may_come_in_several_data_frames() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let message = a(7, "www.example.org");
    let mut client = H2::connect(&server).await;
    let parts: [&[u8]; 5] = [&message[..1], b"", &message[1..20], &message[20..], b""];
    let heard = client.ask("POST", "/dns-query", &[("content-type", MEDIA_TYPE)], &parts).await.unwrap();
    assert_eq!((heard.status, heard.rcode(), heard.body[1]), (200, 0, 7));
}

#[tokio::test]
async fn http_errors_are_for_http_alone() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let message = a(0, "www.example.org");
    let good = target(&message);
    let mut response = message.clone();
    response[2] |= 0x80;
    let long = format!("/dns-query?dns={}", "A".repeat(5000));
    let dns = [("content-type", MEDIA_TYPE)];
    let no_type = [];
    let oblivious = [("content-type", "application/oblivious-dns-message")];
    let zipped = [("content-type", MEDIA_TYPE), ("content-encoding", "gzip")];
    let huge = vec![0; 65_536];
    for version in VERSIONS {
        for (method, target, fields, body, status) in [
            ("GET", "/", &no_type[..], &b""[..], 404),
            ("GET", "/favicon.ico", &no_type, b"", 404),
            ("GET", "/dns-query", &no_type, b"", 400),
            ("GET", "/dns-query?dns=", &no_type, b"", 400),
            ("GET", "/dns-query?dns=A*A", &no_type, b"", 400),
            ("GET", "/dns-query?dns=AAAA", &no_type, b"", 400),
            ("GET", &target(&response), &no_type, b"", 400),
            ("GET", &long, &no_type, b"", 414),
            ("POST", "/dns-query", &dns, &response, 400),
            ("POST", "/dns-query", &dns, b"short", 400),
            ("POST", "/dns-query", &no_type, &message, 415),
            ("POST", "/dns-query", &oblivious, &message, 415),
            ("POST", "/dns-query", &zipped, &message, 415),
            ("POST", "/dns-query", &dns, &huge, 413),
            ("PUT", &good, &dns, &message, 405),
            ("DELETE", &good, &no_type, b"", 405),
            ("OPTIONS", &good, &no_type, b"", 405),
        ] {
            let heard = ask(&server, version, method, target, fields, body).await;
            assert_eq!(heard.status, status, "{version:?} {method} {target}");
            assert!(heard.field("content-type").starts_with("text/plain") && !heard.body.is_empty());
            let allow = if status == 405 { "GET, HEAD, POST" } else { "" };
            assert_eq!(heard.field("allow"), allow);
        }
        let crumbs = vec![("cookie", "a=b"); 80];
        assert_eq!(ask(&server, version, "GET", &good, &crumbs, b"").await.status, 431);
        let large = "x".repeat(20_000);
        assert_eq!(ask(&server, version, "GET", &good, &[("cookie", &large)], b"").await.status, 431);
    }
}

#[tokio::test]
async fn the_longest_body_is_read() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let mut message = a(0, "www.example.org");
    message.resize(65_535, 0);
    for version in VERSIONS {
        let heard = post(&server, version, &message).await;
        assert_eq!((heard.status, heard.rcode()), (200, 1), "trailing octets are a FORMERR, and FORMERR is a 200");
    }
}

#[tokio::test]
async fn every_dns_answer_is_200_with_its_freshness() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    for version in VERSIONS {
        let failed = get(&server, version, &a(0, "servfail.example.org")).await;
        assert_eq!((failed.status, failed.rcode()), (200, 2));
        assert_eq!(failed.field("cache-control"), "private, no-store");

        let denied = get(&server, version, &a(0, "nx.example.org")).await;
        assert_eq!((denied.status, denied.rcode()), (200, 3));
        assert!(denied.max_age() <= 60, "the SOA's MINIMUM");

        let opcode = [&a(0, "www.example.org")[..2], b"\x29", &a(0, "www.example.org")[3..]].concat();
        let other = get(&server, version, &opcode).await;
        assert_eq!((other.status, other.rcode()), (200, 4));
    }
}

#[tokio::test]
async fn freshness_counts_down() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let message = a(0, "www.example.org");
    let mut client = H2::connect(&server).await;
    let first = client.ask("GET", &target(&message), &[], &[]).await.unwrap().max_age();
    assert!(first <= 300);
    let start = Instant::now();
    while client.ask("GET", &target(&message), &[], &[]).await.unwrap().max_age() >= first {
        assert!(start.elapsed() < PATIENCE);
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn padding_and_opt_are_for_those_who_ask() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    for version in VERSIONS {
        let plain = get(&server, version, &a(0, "www.example.org")).await;
        assert_eq!(plain.body[10..12], [0, 0], "no OPT");
        let unpadded = get(&server, version, &query_with_opt(0, "www.example.org", Qtype::A, b"")).await;
        assert_eq!((&unpadded.body[10..12], unpadded.body.len() % 468 == 0), (&[0, 1][..], false));
        let padded = get(&server, version, &query_with_opt(0, "www.example.org", Qtype::A, b"\0\x0c\0\0")).await;
        assert_eq!(padded.body.len(), 468);
    }
}

#[tokio::test]
async fn http1_pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let names = ["slow.example.org", "www.example.org", "slow2.example.org", "a.example.org"];
    let mut requests = String::new();
    for (id, name) in (1..).zip(names) {
        requests += &format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", target(&a(id, name)));
    }
    let last = request_text("GET", &target(&a(5, "www.example.org")), &[], b"");
    let heard = http1(&server, &[requests.as_bytes(), &last].concat()).await;
    assert_eq!(heard.iter().map(|response| response.body[1]).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn no_alpn_means_http1() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let mut stream = server.doh(&[]).await;
    let request = request_text("GET", &target(&a(9, "www.example.org")), &[], b"");
    stream.write_all(&request).await.unwrap();
    let mut heard = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(responses(&heard, false)[0].body[1], 9);
}

#[tokio::test]
async fn another_alpn_is_refused() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    assert!(server.try_doh(&[b"dot"]).await.is_err());
}

// ---------------------------------------------------------------- attacks.md, HTTP/2 and HTTP/1

const SHORT_TIMEOUTS: &str = "[limits]\nmessage-timeout = \"1s\"\nidle-timeout = \"2s\"\n";

/// Reads until the server ends the connection.
async fn ends(stream: &mut TlsStream<tokio::net::TcpStream>) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("the server ends the connection");
    heard
}

#[tokio::test]
async fn an_idle_connection_ends_with_goaway_and_close_notify() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, SHORT_TIMEOUTS);
    let mut stream = server.doh(&[b"h2"]).await;
    stream.write_all(PREFACE).await.unwrap();
    let mut heard = Vec::new();
    // A first GOAWAY takes back nothing; the last one follows the answer to a PING (RFC 9113 §6.8).
    let ping = loop {
        assert_ne!(timeout(PATIENCE, stream.read_buf(&mut heard)).await.unwrap().unwrap(), 0);
        if let Some((.., ping)) = frames(&heard).find(|(kind, flags, _)| (*kind, *flags) == (PING, 0)) {
            break ping.to_vec();
        }
    };
    stream.write_all(&frame(PING, ACK, 0, &ping)).await.unwrap();
    timeout(PATIENCE, stream.read_to_end(&mut heard)).await.unwrap().expect("close_notify");
    let goaways: Vec<_> = frames(&heard).filter(|(kind, ..)| *kind == GOAWAY).collect();
    assert_eq!(goaways.last().unwrap().2, [0; 8], "NO_ERROR, no stream begun");

    let mut never_asked = server.doh(&[b"http/1.1"]).await;
    let mut heard = Vec::new();
    timeout(PATIENCE, never_asked.read_to_end(&mut heard)).await.unwrap().expect("close_notify");
    assert!(heard.is_empty());
}

#[tokio::test]
async fn slowloris_is_cut_off() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "[limits]\nmessage-timeout = \"1s\"\n");
    let mut stream = server.doh(&[b"http/1.1"]).await;
    stream.write_all(b"GET /dns-query HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    assert!(ends(&mut stream).await.is_empty());

    let mut stream = server.doh(&[b"http/1.1"]).await;
    let head =
        "POST /dns-query HTTP/1.1\r\nhost: x\r\ncontent-type: application/dns-message\r\ncontent-length: 99\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(responses(&ends(&mut stream).await, false)[0].status, 408);
}

#[tokio::test]
async fn answers_that_are_not_taken_end_the_connection_and_no_other() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "[limits]\nmessage-timeout = \"1s\"\n");
    let mut shut = H2::connect_with(&server, h2::client::Builder::new().initial_window_size(0)).await;
    let _kept = shut.begin("GET", &target(&a(0, "www.example.org")), &[], &[]).await.unwrap();
    let other = get(&server, Version::Http2, &a(0, "www.example.org")).await;
    assert_eq!(other.status, 200);
    let _ = timeout(PATIENCE, shut.driver).await.expect("the server ends the connection").unwrap();
}

#[tokio::test]
async fn a_rapid_reset_harms_nobody_else() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let mut other = H2::connect(&server).await;
    other.ask("GET", &target(&a(0, "www.example.org")), &[], &[]).await.unwrap();
    let mut flood = PREFACE.to_vec();
    for stream in (1..4000).step_by(2) {
        flood.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, FIELDS));
        flood.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    let mut attacker = server.doh(&[b"h2"]).await;
    let _ = attacker.write_all(&flood).await;
    let question = target(&a(0, "www.example.org"));
    let asked = other.ask("GET", &question, &[], &[]);
    assert_eq!(timeout(Duration::from_secs(3), asked).await.unwrap().unwrap().status, 200);
    assert!(goes_away_annoyed(&ends(&mut attacker).await));
}

#[tokio::test]
async fn a_flood_of_continuation_is_refused() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let mut attacker = server.doh(&[b"h2"]).await;
    let mut flood = [PREFACE, &frame(HEADERS, END_STREAM, 1, FIELDS)].concat();
    for _ in 0..10_000 {
        flood.extend(frame(CONTINUATION, 0, 1, b"\x40\x01a\x01b"));
    }
    let _ = attacker.write_all(&flood).await;
    ends(&mut attacker).await;
    assert_eq!(get(&server, Version::Http2, &a(0, "www.example.org")).await.status, 200);
}

#[tokio::test]
async fn smuggled_requests_are_never_answered() {
    let upstream = Upstream::labelled();
    let server = Server::before(&upstream, "");
    let smuggled = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", target(&a(0, "www.example.org")));
    let post = "POST /dns-query HTTP/1.1\r\nhost: x\r\ncontent-type: application/dns-message\r\n";
    for framing in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "content-length: 5\r\ncontent-length: 50\r\n",
        "content-length: 0x5\r\n",
    ] {
        let heard = http1(&server, format!("{post}{framing}\r\n0\r\n\r\n{smuggled}").as_bytes()).await;
        assert_eq!(heard.iter().map(|response| response.status).collect::<Vec<_>>(), [400], "{framing}");
    }
}

/// Whether ENHANCE_YOUR_CALM was said; where the flood met a reset of the TCP connection, what was said may be lost.
fn goes_away_annoyed(octets: &[u8]) -> bool {
    octets.is_empty() || frames(octets).any(|(kind, _, payload)| kind == GOAWAY && payload[4..8] == [0, 0, 0, 11])
}

// ---------------------------------------------------------------- the public pages

const ORDERS: [(&str, &str); 2] = [
    (
        "orders/milan.toml",
        "id = 'it-1'\nissuer = 'Tribunale di Milano <b>'\nreference = 'R.G. 1/2022'\njurisdiction = ['*']\n\
         received = 2022-07-18T09:00:00+02:00\nstate = 'in-force'\npublic = true\nlanguage = 'it'\nlumen = '12345'\n\
         contact = 'mailto:legal@resolver.example'\n[[target]]\nsubtree = ['blocked.example']\n",
    ),
    (
        "orders/hidden.toml",
        "id = 'hidden'\nissuer = 'Secret Court'\njurisdiction = ['*']\nreceived = 2022-07-18T09:00:00+02:00\n\
         state = 'in-force'\n[[target]]\nsubtree = ['hidden.example']\n",
    ),
];

/// A server with an order that is public and one that is not.
fn server_with_orders(overrides: &str) -> Server {
    let overrides = format!(
        "resolver.name = 'dns.example.net'\npolicy.orders = '{{folder}}/orders'\npolicy.sde-option = 65001\n{overrides}"
    );
    Server::start_with(&ORDERS, &[], &overrides)
}

const AS_JSON: (&str, &str) = ("accept", "application/json");

#[tokio::test]
async fn public_orders_have_pages_in_both_versions() {
    let server = server_with_orders("");
    for version in VERSIONS {
        let list = ask(&server, version, "GET", "/orders", &[], b"").await;
        assert_eq!((list.status, list.field("content-type")), (200, "text/html; charset=utf-8"), "{version:?}");
        let text = std::str::from_utf8(&list.body).unwrap();
        assert!(text.contains("/orders/it-1") && !text.contains("Secret Court"), "{text}");

        let page = ask(&server, version, "GET", "/orders/it-1", &[("accept", "text/html")], b"").await;
        let text = std::str::from_utf8(&page.body).unwrap();
        assert!(text.contains("Tribunale di Milano &lt;b&gt;") && text.contains("blocked.example"), "{text}");
        assert_eq!(page.field("content-length"), page.body.len().to_string());
        for (field, value) in [
            ("cache-control", "public, max-age=60"),
            ("vary", "Accept"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(page.field(field), value, "{version:?}");
        }
        let policy = page.field("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");

        let json = ask(&server, version, "GET", "/orders/it-1", &[AS_JSON], b"").await;
        assert_eq!((json.status, json.field("content-type")), (200, "application/json"));
        let told: serde_json::Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!((&told["issuer"], &told["state"]), (&"Tribunale di Milano <b>".into(), &"in-force".into()));

        let head = ask(&server, version, "HEAD", "/orders/it-1", &[], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        // What a probe finds comes to stand on the page at any moment.
        let after = ask(&server, version, "GET", "/orders/it-1", &[("accept", "text/html")], b"").await;
        assert!([&page, &after].map(|page| page.field("content-length")).contains(&head.field("content-length")));
    }
}

#[tokio::test]
async fn what_is_not_public_is_not_there_and_nothing_but_looking_is_taken() {
    let server = server_with_orders("");
    for version in VERSIONS {
        let unknown = ask(&server, version, "GET", "/orders/unknown", &[], b"").await;
        let hidden = ask(&server, version, "GET", "/orders/hidden", &[], b"").await;
        assert_eq!((hidden.status, &hidden.body), (404, &unknown.body), "{version:?}");
        let but_date = |heard: &Heard| {
            let mut fields = heard.fields.clone();
            fields.remove("date");
            fields
        };
        assert_eq!(but_date(&hidden), but_date(&unknown));
        for (method, body) in [("POST", &b"a=b"[..]), ("PUT", b"x"), ("DELETE", b""), ("OPTIONS", b"")] {
            for target in ["/orders", "/orders/it-1", "/orders/unknown"] {
                let heard = ask(&server, version, method, target, &[], body).await;
                assert_eq!((heard.status, heard.field("allow")), (405, "GET, HEAD"), "{version:?} {method} {target}");
            }
        }
        for target in ["/", "/ordersx", "/order", "/favicon.ico"] {
            let heard = ask(&server, version, "GET", target, &[], b"").await;
            assert_eq!((heard.status, heard.field("content-type")), (404, "text/plain; charset=utf-8"), "{target}");
        }
    }
}

#[tokio::test]
async fn a_page_counts_like_a_query() {
    let server = server_with_orders("limits.queries-per-second-per-client = 5");
    let mut client = H2::connect(&server).await;
    let start = Instant::now();
    for _ in 0..15 {
        assert_eq!(client.ask("GET", "/orders", &[], &[]).await.unwrap().status, 200);
    }
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_public_orders_answers_lead_to_its_page() {
    let server = server_with_orders("");
    let url = format!("order it-1, Tribunale di Milano <b>; https://dns.example.net:{}/orders/it-1", server.doh_port);
    let plain = get(&server, Version::Http2, &query_with_opt(0, "blocked.example", Qtype::A, &[])).await;
    assert!(contains(&plain.body, url.as_bytes()), "{:?}", plain.body);
    let hidden = get(&server, Version::Http2, &query_with_opt(0, "hidden.example", Qtype::A, &[])).await;
    assert!(contains(&hidden.body, b"order hidden, Secret Court") && !contains(&hidden.body, b"https:"));
    let json = "{\"c\":[\"mailto:legal@resolver.example\"],\"j\":\"R.G. 1/2022\",\"o\":\"Tribunale di Milano <b>\",\
                \"l\":\"it\",\"fdbs\":[{\"db\":\"lumen\",\"id\":\"12345\"}]}";
    for signal in [&[0, 15, 0, 2, 0, 0][..], &[0xfd, 0xe9, 0, 0]] {
        let told = get(&server, Version::Http2, &query_with_opt(0, "blocked.example", Qtype::A, signal)).await;
        assert!(contains(&told.body, json.as_bytes()), "{:?}", told.body);
    }
}

fn contains(octets: &[u8], part: &[u8]) -> bool {
    octets.windows(part.len()).any(|window| window == part)
}
