//! Whole connections of both versions in simulated time, with answers made here.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::Either;
use h2::client::{Connection as H2Connection, ResponseFuture, SendRequest};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::activity::Activity;
use super::*;
use crate::clock::Clock;
use crate::dns::Rcode;
use crate::listener::Phase;
use crate::listener::trust::Prefixes;

/// Answers by what stands behind a message's header: itself; `w`: after a second; `n`: never; `b`: 60,000 octets.
struct Canned {
    settings: Settings,
    met: Mutex<Vec<Bound>>,
    waiting: Arc<AtomicUsize>,
}

/// One page, at `/page`: its method and its moment.
#[derive(Debug)]
struct Page;

impl Pages for Page {
    fn has(&self, path: &str) -> bool {
        path == "/page"
    }

    fn respond(&self, head: &Parts, now: Timestamp) -> Response<Bytes> {
        let response = Response::builder().status(203).header("vary", "Accept");
        response.body(format!("{} at {now}", head.method).into()).unwrap()
    }
}

/// Counts one for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Ask for Canned {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn asker(&self, _: &HeaderMap) -> Option<Asker> {
        None
    }

    fn toll(&self, _: Option<&Asker>) -> Duration {
        Duration::ZERO
    }

    fn ask(
        &self,
        _: Option<&Asker>,
        message: &[u8],
    ) -> Result<Step<impl Future<Output = (BytesMut, Written)> + Send + use<>>, Refusal> {
        if message.len() < 12 {
            return Err(Refusal::Short);
        }
        let written = Written { rcode: Rcode::NOERROR, max_age: Some(60) };
        let octets = if message.get(12) == Some(&b'b') { vec![7; 60_000] } else { message.to_vec() };
        let answer = (BytesMut::from(&*octets), written);
        let counted = Counted::new(&self.waiting);
        Ok(match message.get(12) {
            Some(b'w') => Step::Waiting(Either::Left(async move {
                sleep(Duration::from_secs(1)).await;
                drop(counted);
                answer
            })),
            Some(b'n') => Step::Waiting(Either::Right(async move {
                let _counted = counted;
                pending().await
            })),
            _ => Step::Answered(answer.0.freeze(), written),
        })
    }

    fn pages(&self) -> Option<&dyn Pages> {
        Some(&Page)
    }

    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn met(&self, bound: Bound) {
        self.met.lock().unwrap().push(bound);
    }
}

/// A connection being served, and our end of it.
struct Served {
    near: DuplexStream,
    desk: Arc<Canned>,
    phase: watch::Sender<Phase>,
    end: JoinHandle<(Option<Bound>, Duration)>,
}

fn served(http2: bool) -> Served {
    served_through(http2, 256 * 1024)
}

fn settings() -> Settings {
    Settings {
        doh: Vec::new(),
        dot: Vec::new(),
        proxy_from: Prefixes::default(),
        forwarded_from: Prefixes::default(),
        doh_path: "/dns-query".to_owned(),
        connections: 0,
        connections_per_client: 0,
        queries_per_second_per_client: 0,
        in_flight_per_connection: 256,
        handshake_timeout: Duration::from_secs(5),
        message_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(65),
        drain_timeout: Duration::from_secs(10),
    }
}

/// Through a pipe that holds so many octets.
fn served_through(http2: bool, pipe_octets: usize) -> Served {
    let desk = Arc::new(Canned { settings: settings(), met: Mutex::default(), waiting: Arc::default() });
    let (near, far) = duplex(pipe_octets);
    let (phase, changes) = watch::channel(Phase::Running);
    let asked = Arc::clone(&desk);
    let end = tokio::spawn(async move {
        let start = Instant::now();
        let desk = Arc::clone(&asked);
        let respond = move |exchange, request| Box::pin(respond(Arc::clone(&desk), exchange, request));
        let idle_timeout = || asked.settings.idle_timeout;
        let bound = connection::converse(far, http2, respond, &asked.settings, idle_timeout, changes).await;
        (bound, start.elapsed())
    });
    Served { near, desk, phase, end }
}

/// A message with this behind its header, as `dns=` has it: 12 octets of ID 0x0001 and nothing are sixteen letters.
fn target(tag: &str) -> String {
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
    format!("/dns-query?dns={}", BASE64_URL_SAFE_NO_PAD.encode(message(tag)))
}

fn message(tag: &str) -> Vec<u8> {
    [b"\0\x01\x01\0\0\0\0\0\0\0\0\0", tag.as_bytes()].concat()
}

fn get(tag: &str) -> String {
    format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", target(tag))
}

const POST: &str = "POST /dns-query HTTP/1.1\r\nhost: x\r\ncontent-type: application/dns-message\r\n";

impl Served {
    /// Sends octets of HTTP/1.1, and reads to the end.
    async fn say(mut self, octets: &[u8]) -> (String, Option<Bound>, Duration) {
        self.near.write_all(octets).await.unwrap();
        let mut heard = Vec::new();
        self.near.read_to_end(&mut heard).await.unwrap();
        let (bound, time) = self.end.await.unwrap();
        (String::from_utf8_lossy(&heard).into_owned(), bound, time)
    }
}

fn within(time: Duration, seconds: std::ops::RangeInclusive<u64>) {
    let found = time.as_secs_f64();
    assert!(*seconds.start() as f64 <= found && found <= *seconds.end() as f64 + 0.001, "{found} s");
}

fn statuses(heard: &str) -> Vec<&str> {
    heard.match_indices("HTTP/1.1 ").map(|(at, _)| &heard[at + 9..at + 12]).collect()
}

#[tokio::test(start_paused = true)]
async fn http1_answers_get_post_and_head() {
    let (heard, bound, _) = served(false).say(get("tag").as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
    assert!(
        heard.contains("\r\ncontent-length: 15\r\n") && heard.contains("\r\ncache-control: private, max-age=60\r\n")
    );
    assert!(heard.ends_with("tag"));
    assert_eq!(bound, Some(Bound::IdleTimeout));

    let post = format!("{POST}content-length: 15\r\n\r\n{}", String::from_utf8(message("tag")).unwrap());
    let (heard, ..) = served(false).say(post.as_bytes()).await;
    assert!(statuses(&heard) == ["200"] && heard.ends_with("tag"), "{heard}");

    let (heard, ..) = served(false).say(get("tag").replace("GET", "HEAD").as_bytes()).await;
    assert!(heard.contains("\r\ncontent-length: 15\r\n") && heard.ends_with("\r\n\r\n"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn http1_errors_say_what_and_keep_the_connection() {
    let requests = "GET / HTTP/1.1\r\nhost: x\r\n\r\nPUT /dns-query HTTP/1.1\r\nhost: x\r\n\r\n\
        OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\nGET /dns-query?dns=AAAA HTTP/1.1\r\nhost: x\r\n\r\n";
    let (heard, ..) = served(false).say(format!("{requests}{}", get("last")).as_bytes()).await;
    assert_eq!(statuses(&heard), ["404", "405", "405", "400", "200"], "{heard}");
    assert!(heard.contains("allow: GET, HEAD, POST") && heard.contains("a DNS header has 12 octets"));
    let hosts = "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n";
    let (heard, ..) = served(false).say(hosts.as_bytes()).await;
    assert_eq!(statuses(&heard), ["400", "400"], "RFC 9112 §3.2");
    let (heard, ..) = served(false).say(b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(statuses(&heard), ["405"]);
}

#[tokio::test(start_paused = true)]
async fn http1_pages_stand_beside_answers() {
    let requests = "GET /page?a=b HTTP/1.1\r\nhost: x\r\n\r\nGET /page/ HTTP/1.1\r\nhost: x\r\n\r\n\
        POST /page HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\na=b";
    let (heard, ..) = served(false).say(format!("{requests}{}", get("last")).as_bytes()).await;
    assert_eq!(statuses(&heard), ["203", "404", "203", "200"], "{heard}");
    assert!(heard.contains("\r\nvary: Accept\r\ncontent-length: 27\r\n"), "{heard}");
    assert!(heard.contains("GET at 1970-01-01T00:00:00Z") && heard.contains("POST at") && heard.ends_with("last"));
    let (heard, ..) = served(false).say(b"HEAD /page HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(heard.contains("\r\ncontent-length: 28\r\n") && heard.ends_with("\r\n\r\n"), "{heard}");
    let (heard, ..) = served(false).say(b"GET /page HTTP/1.1\r\n\r\n").await;
    assert_eq!(statuses(&heard), ["400"], "what holds for requests holds for these");
}

#[tokio::test(start_paused = true)]
async fn http2_pages_stand_beside_answers() {
    let mut client = H2::new().await;
    for (method, body) in [(Method::GET, "GET at 1970-01-01T00:00:00Z"), (Method::HEAD, "")] {
        let request = Request::builder().method(method).uri("https://x/page").body(()).unwrap();
        let page = client.ask(request, &[]).await;
        assert_eq!((page.status().as_u16(), page.body().as_ref()), (203, body.as_bytes()));
    }
    assert_eq!(client.ask(h2_get("tag"), &[]).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn http1_a_refusal_waits_for_the_end_of_its_request() {
    let refused = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 40000\r\n";
    let mut late = served(false);
    late.near.write_all(format!("{refused}\r\n").as_bytes()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let rest = format!("{}{}", "x".repeat(40_000), get("tag"));
    let (heard, bound, _) = late.say(rest.as_bytes()).await;
    // The body was no request begun: the connection ends as idle.
    assert_eq!((statuses(&heard), bound), (vec!["404", "200"], Some(Bound::IdleTimeout)), "{heard}");

    // Who asks whether to send is told at once, and is not made to.
    let (heard, ..) = served(false).say(format!("{refused}expect: 100-continue\r\n\r\n").as_bytes()).await;
    assert_eq!(statuses(&heard), ["404"], "{heard}");
}

#[tokio::test(start_paused = true)]
async fn http1_pipelined_requests_are_answered_in_order() {
    let requests: String = ["w-first", "second", "w-third", "fourth"].map(get).concat();
    let (heard, ..) = served(false).say(requests.as_bytes()).await;
    let places = ["w-first", "second", "w-third", "fourth"].map(|tag| heard.find(tag).unwrap());
    assert!(places.is_sorted(), "{places:?}");
}

#[tokio::test(start_paused = true)]
async fn http1_that_can_be_read_in_two_ways_has_one_response_and_ends() {
    let smuggled = get("smuggled");
    let (length, chunked) = ("content-length: 5\r\n", "transfer-encoding: chunked\r\n");
    for head in [format!("{length}{chunked}"), format!("{chunked}{length}")] {
        let (heard, bound, time) = served(false).say(format!("{POST}{head}\r\n0\r\n\r\n{smuggled}").as_bytes()).await;
        assert_eq!(statuses(&heard), ["400"], "{heard}");
        assert!(heard.contains("connection: close") && bound.is_none());
        within(time, 0..=0);
    }
    for head in ["content-length: 5\r\ncontent-length: 6\r\n", "content-length: +5\r\n", "transfer-encoding: x\r\n"] {
        let (heard, ..) = served(false).say(format!("{POST}{head}\r\n0\r\n\r\n{smuggled}").as_bytes()).await;
        assert_eq!(statuses(&heard), ["400"], "{head}: {heard}");
    }
    let chunks = format!("{POST}{chunked}\r\n8\r\n\0\x01\0\0\0\0\0\0\r\n7\r\n\0\0\0\0tag\r\n0\r\n\r\n");
    let (heard, ..) = served(false).say(chunks.as_bytes()).await;
    assert!(statuses(&heard) == ["200"] && heard.contains("connection: close") && heard.ends_with("tag"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn http1_bounds_have_their_status() {
    let long = format!("GET /dns-query?dns={} HTTP/1.1\r\nhost: x\r\n\r\n", "A".repeat(4096));
    let many = format!("GET /dns-query?dns=AAAA HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
    let body = format!("{POST}content-length: 65536\r\n\r\n");
    for (request, status, bound) in
        [(long, "414", Bound::RequestOctets), (many, "431", Bound::Http), (body, "413", Bound::RequestOctets)]
    {
        let connection = served(false);
        let desk = Arc::clone(&connection.desk);
        let (heard, ..) = connection.say(request.as_bytes()).await;
        assert_eq!(statuses(&heard), [status]);
        assert_eq!(*desk.met.lock().unwrap(), [bound]);
    }
    let huge = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(20_000));
    let (heard, bound, _) = served(false).say(huge.as_bytes()).await;
    assert_eq!((statuses(&heard), bound), (vec!["431"], Some(Bound::Http)));
}

#[tokio::test(start_paused = true)]
async fn http1_idle_connections_end_whether_or_not_they_asked() {
    let (heard, bound, time) = served(false).say(b"").await;
    assert_eq!((heard.as_str(), bound), ("", Some(Bound::IdleTimeout)));
    within(time, 65..=65);
    let (_, bound, time) = served(false).say(get("tag").as_bytes()).await;
    assert_eq!(bound, Some(Bound::IdleTimeout));
    within(time, 65..=68);
}

#[tokio::test(start_paused = true)]
async fn http1_heads_and_bodies_must_come_in_time() {
    for begun in ["G", "GET /dns-query HTTP/1.1\r\nhost: x\r\n", &format!("{}GET", get("whole"))] {
        let (heard, bound, time) = served(false).say(begun.as_bytes()).await;
        assert_eq!(statuses(&heard).len(), usize::from(begun.contains("AAEBA")), "{heard}");
        // Octets behind a whole request in the same read are not seen for what they are.
        if begun.ends_with("\r\n\r\nGET") {
            within(time, 65..=68);
        } else {
            assert_eq!(bound, Some(Bound::MessageTimeout), "{begun}");
            within(time, 10..=15);
        }
    }
    let (heard, _, _) = served(false).say(format!("{POST}content-length: 15\r\n\r\n\0\0").as_bytes()).await;
    assert_eq!(statuses(&heard), ["408"]);
}

#[tokio::test(start_paused = true)]
async fn http1_a_dripping_head_has_no_more_time() {
    let Served { near, end, phase: _running, .. } = served(false);
    let (mut reader, mut writer) = tokio::io::split(near);
    let drip = tokio::spawn(async move {
        for octet in get("tag").bytes().cycle().filter(|octet| *octet != b'\n') {
            sleep(Duration::from_secs(1)).await;
            if writer.write_all(&[octet]).await.is_err() {
                break;
            }
        }
    });
    let mut heard = Vec::new();
    reader.read_to_end(&mut heard).await.unwrap();
    let (bound, time) = end.await.unwrap();
    assert_eq!(bound, Some(Bound::MessageTimeout));
    within(time, 10..=16);
    drip.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn http1_answers_must_be_taken() {
    let Served { mut near, end, phase: _running, .. } = served_through(false, 1024);
    near.write_all(get("b").as_bytes()).await.unwrap();
    let (bound, time) = end.await.unwrap();
    assert_eq!(bound, Some(Bound::MessageTimeout));
    within(time, 10..=15);
}

#[tokio::test(start_paused = true)]
async fn http1_drains() {
    let Served { mut near, phase, end, .. } = served(false);
    near.write_all(get("w").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    phase.send(Phase::Draining).unwrap();
    let mut heard = String::new();
    near.read_to_string(&mut heard).await.unwrap();
    assert!(statuses(&heard) == ["200"] && heard.contains("connection: close"), "{heard}");
    within(end.await.unwrap().1, 1..=1);

    let Served { mut near, phase, end, .. } = served(false);
    near.write_all(get("n").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    phase.send(Phase::Draining).unwrap();
    within(end.await.unwrap().1, 10..=11);
}

#[tokio::test(start_paused = true)]
async fn a_connection_taken_while_draining_is_answered_once() {
    let connection = served(false);
    connection.phase.send(Phase::Draining).unwrap();
    let (heard, _, time) = connection.say(get("tag").as_bytes()).await;
    assert_eq!(statuses(&heard), ["200"]);
    within(time, 0..=0);

    let connection = served(false);
    connection.phase.send(Phase::Draining).unwrap();
    within(connection.say(b"").await.2, 1..=1);
}

/// An HTTP/2 client, its connection driven by a task.
struct H2 {
    send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
    desk: Arc<Canned>,
    phase: watch::Sender<Phase>,
    end: JoinHandle<(Option<Bound>, Duration)>,
}

async fn h2_client(settings: &h2::client::Builder) -> H2 {
    let Served { near, desk, phase, end } = served(true);
    let (send, connection): (_, H2Connection<_, Bytes>) = settings.handshake(near).await.unwrap();
    H2 { send, driver: tokio::spawn(connection), desk, phase, end }
}

impl H2 {
    async fn new() -> Self {
        h2_client(&h2::client::Builder::new()).await
    }

    async fn begin(&mut self, request: Request<()>, parts: &[&[u8]]) -> ResponseFuture {
        self.send = self.send.clone().ready().await.unwrap();
        let (response, mut body) = self.send.send_request(request, parts.is_empty()).unwrap();
        for (at, part) in parts.iter().enumerate() {
            body.send_data(Bytes::copy_from_slice(part), at + 1 == parts.len()).unwrap();
        }
        response
    }

    async fn ask(&mut self, request: Request<()>, parts: &[&[u8]]) -> Response<Bytes> {
        whole(self.begin(request, parts).await).await.unwrap()
    }
}

async fn whole(response: ResponseFuture) -> Result<Response<Bytes>, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut octets = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        octets.extend_from_slice(&data);
    }
    Ok(Response::from_parts(head, octets.freeze()))
}

fn h2_get(tag: &str) -> Request<()> {
    Request::get(format!("https://x{}", target(tag))).body(()).unwrap()
}

fn h2_post() -> Request<()> {
    let request = Request::post("https://x/dns-query").header("content-type", "application/dns-message");
    request.body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn http2_answers_get_post_and_head() {
    let mut client = H2::new().await;
    let got = client.ask(h2_get("tag"), &[]).await;
    assert_eq!((got.status(), got.body().as_ref()), (StatusCode::OK, &*message("tag")));
    let posted = client.ask(h2_post(), &[&message("tag")]).await;
    assert_eq!(posted.body(), got.body());
    let in_parts = client.ask(h2_post(), &[&message("")[..5], b"", &message("tag")[5..], b""]).await;
    assert_eq!(in_parts.body(), got.body());

    let mut head = h2_get("tag");
    *head.method_mut() = Method::HEAD;
    let head = client.ask(head, &[]).await;
    assert_eq!((head.body().len(), head.headers()["content-length"].to_str().unwrap()), (0, "15"));
    assert_eq!(head.headers(), got.headers());
}

#[tokio::test(start_paused = true)]
async fn http2_bounds_have_their_status() {
    let mut client = H2::new().await;
    let longest = client.ask(h2_post(), &[&message("a"), &[7; 65_535 - 13]]).await;
    assert_eq!((longest.status(), longest.body().len()), (StatusCode::OK, 65_535));
    let longer = client.ask(h2_post(), &[&message("a"), &[7; 65_535 - 13], b"a"]).await;
    assert_eq!(longer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let long = Request::get(format!("https://x/dns-query?dns={}", "A".repeat(4096))).body(()).unwrap();
    assert_eq!(client.ask(long, &[]).await.status(), StatusCode::URI_TOO_LONG);
    let mut many = h2_get("tag");
    (0..70).for_each(|_| _ = many.headers_mut().append("a", "b".parse().unwrap()));
    assert_eq!(client.ask(many, &[]).await.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let connect = Request::connect("x:443").body(()).unwrap();
    assert_eq!(client.ask(connect, &[]).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let mut large = h2_get("tag");
    large.headers_mut().append("a", "b".repeat(9000).parse().unwrap());
    assert_eq!(client.ask(large, &[]).await.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(*client.desk.met.lock().unwrap(), [Bound::RequestOctets, Bound::RequestOctets, Bound::Http]);
}

#[tokio::test(start_paused = true)]
async fn http2_a_refusal_waits_for_the_end_of_its_request() {
    let mut client = H2::new().await;
    for (method, path, status) in [("POST", "/dns-query", 415), ("PUT", "/dns-query", 405), ("POST", "/", 404)] {
        let request = Request::builder().method(method).uri(format!("https://x{path}")).body(()).unwrap();
        client.send = client.send.clone().ready().await.unwrap();
        let (response, mut body) = client.send.send_request(request, false).unwrap();
        sleep(Duration::from_secs(1)).await;
        body.send_data(Bytes::from_static(b"unwanted"), true).unwrap();
        assert_eq!(whole(response).await.unwrap().status(), status, "{method} {path}");
    }
    let (response, _body) = client.send.send_request(h2_post(), false).unwrap();
    assert_eq!(whole(response).await.unwrap().status(), 408, "who sends nothing is not waited for twice");
}

#[tokio::test(start_paused = true)]
async fn http2_answers_come_as_they_are_ready() {
    let mut client = H2::new().await;
    let slow = client.begin(h2_get("w"), &[]).await;
    let start = Instant::now();
    client.ask(h2_get("fast"), &[]).await;
    within(start.elapsed(), 0..=0);
    whole(slow).await.unwrap();
    within(start.elapsed(), 1..=1);
}

#[tokio::test(start_paused = true)]
async fn http2_a_body_must_come_in_time() {
    let mut client = H2::new().await;
    let (response, mut body) = client.send.send_request(h2_post(), false).unwrap();
    body.send_data(Bytes::from_static(b"\0\0"), false).unwrap();
    let start = Instant::now();
    assert_eq!(whole(response).await.unwrap().status(), StatusCode::REQUEST_TIMEOUT);
    within(start.elapsed(), 10..=10);
    assert_eq!(client.ask(h2_get("tag"), &[]).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn http2_idle_connections_end_with_goaway() {
    let mut client = H2::new().await;
    client.ask(h2_get("w"), &[]).await;
    client.driver.await.unwrap().unwrap();
    let (bound, time) = client.end.await.unwrap();
    assert_eq!(bound, Some(Bound::IdleTimeout));
    within(time, 65..=70);
}

#[tokio::test(start_paused = true)]
async fn http2_drains() {
    let mut client = H2::new().await;
    let slow = client.begin(h2_get("w"), &[]).await;
    sleep(Duration::from_millis(500)).await;
    client.phase.send(Phase::Draining).unwrap();
    assert_eq!(whole(slow).await.unwrap().status(), StatusCode::OK);
    client.driver.await.unwrap().unwrap();
    within(client.end.await.unwrap().1, 1..=1);
}

#[tokio::test(start_paused = true)]
async fn http2_a_shut_window_ends_the_connection() {
    let mut client = h2_client(h2::client::Builder::new().initial_window_size(0)).await;
    let _shut: Vec<_> = [client.begin(h2_get("b"), &[]).await, client.begin(h2_get("tag"), &[]).await].into();
    let (bound, time) = client.end.await.unwrap();
    assert_eq!(bound, Some(Bound::MessageTimeout));
    within(time, 10..=16);
}

#[tokio::test(start_paused = true)]
async fn http2_one_shut_window_among_busy_streams_ends_the_connection() {
    let mut client = h2_client(h2::client::Builder::new().initial_window_size(1000)).await;
    let _shut = client.begin(h2_get("b"), &[]).await;
    let start = Instant::now();
    while !client.end.is_finished() && start.elapsed() < Duration::from_secs(60) {
        let response = client.begin(h2_get("tag"), &[]).await;
        let _ = whole(response).await;
        sleep(Duration::from_millis(100)).await;
        if client.driver.is_finished() {
            break;
        }
    }
    let (bound, time) = client.end.await.unwrap();
    assert_eq!(bound, Some(Bound::MessageTimeout));
    within(time, 10..=25);
}

#[tokio::test(start_paused = true)]
async fn http2_a_reset_stream_is_given_up() {
    let mut client = H2::new().await;
    let mut never = client.begin(h2_get("n"), &[]).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(client.desk.waiting.load(SeqCst), 1);
    drop(std::mem::replace(&mut never, client.begin(h2_get("tag"), &[]).await));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(client.desk.waiting.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn http2_streams_are_bounded() {
    let mut client = H2::new().await;
    client.ask(h2_get("tag"), &[]).await;
    let mut never = Vec::new();
    for _ in 0..100 {
        never.push(client.begin(h2_get("n"), &[]).await);
    }
    let one_more = client.begin(h2_get("tag"), &[]).await;
    assert!(timeout(Duration::from_secs(1), whole(one_more)).await.is_err());
    assert_eq!(client.desk.waiting.load(SeqCst), 100);
    drop(never);
    assert_eq!(client.ask(h2_get("tag"), &[]).await.status(), StatusCode::OK);
}

/// Octets of HTTP/2, as a client that heeds nothing sends them.
async fn h2_raw(frames: &[u8]) -> (Option<Bound>, Duration) {
    let Served { near, end, phase: _running, .. } = served(true);
    let (mut reader, mut writer) = tokio::io::split(near);
    let octets = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", frames].concat();
    tokio::spawn(async move {
        let _ = writer.write_all(&octets).await;
        pending::<()>().await;
    });
    tokio::spawn(async move {
        let mut heard = Vec::new();
        let _ = reader.read_to_end(&mut heard).await;
    });
    end.await.unwrap()
}

/// What an HTTP/2 connection writes in answer to octets behind the preface, each write apart.
async fn h2_writes(frames: &[u8], idle_timeout: Duration, wait: Duration) -> Vec<Vec<u8>> {
    let (mut near, far) = duplex(256 * 1024);
    let writes = Arc::new(Mutex::new(Vec::new()));
    let stream = Noted { stream: far, writes: Arc::clone(&writes) };
    let (_running, changes) = watch::channel(Phase::Running);
    let settings = Settings { idle_timeout, ..settings() };
    let desk = Arc::new(Canned { settings: settings.clone(), met: Mutex::default(), waiting: Arc::default() });
    let respond = move |exchange, request| Box::pin(respond(Arc::clone(&desk), exchange, request));
    let serving = connection::converse(stream, true, respond, &settings, move || idle_timeout, changes);
    let octets = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", frames].concat();
    near.write_all(&octets).await.unwrap();
    let _ = timeout(wait, serving).await;
    std::mem::take(&mut *writes.lock().unwrap())
}

/// A stream that keeps each write.
struct Noted {
    stream: DuplexStream,
    writes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsyncRead for Noted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Noted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.lock().unwrap().push(octets.to_vec());
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn http2_answers_of_one_read_leave_in_one_write() {
    let fields = [b"\x82\x87\x41\x01x\x04", &[target("tag").len() as u8][..], target("tag").as_bytes()].concat();
    let requests: Vec<u8> = (0..20).flat_map(|at| frame(1, 5, 2 * at + 1, &fields)).collect();
    let writes = h2_writes(&requests, Duration::from_secs(65), Duration::from_secs(1)).await;
    let answers = |write: &Vec<u8>| write.windows(15).filter(|part| *part == message("tag")).count();
    let answered: Vec<_> = writes.iter().map(answers).filter(|answers| *answers > 0).collect();
    assert_eq!(answered, [20]);
}

#[tokio::test(start_paused = true)]
async fn http2_a_client_is_pinged_where_nothing_ends_its_connection_sooner() {
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0";
    for (idle_timeout, pinged) in [(65, false), (70, false), (71, true), (3600, true), (0, true)] {
        let writes = h2_writes(b"", Duration::from_secs(idle_timeout), Duration::from_secs(62)).await;
        assert_eq!(writes.iter().any(|write| write.starts_with(PING)), pinged, "{idle_timeout} s");
    }
}

#[test]
fn the_time_is_read_once_in_a_turn_and_anew_outside_of_one() {
    let reads = AtomicUsize::new(0);
    let clock = Clock::simulated(Timestamp::UNIX_EPOCH);
    let look = || {
        let _ = turns::now(|| {
            reads.fetch_add(1, SeqCst);
            clock.now()
        });
    };
    (0..3).for_each(|_| look());
    assert_eq!(reads.load(SeqCst), 3);
    for turn in 1..3 {
        let looks = Box::pin(async { (0..3).for_each(|_| look()) });
        assert_eq!(poll_immediate(turns::Turns::new(looks, Activity::new(false))).now_or_never(), Some(Some(())));
        assert_eq!(reads.load(SeqCst), 3 + turn);
    }
    look();
    assert_eq!(reads.load(SeqCst), 6);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `:method GET`, `:scheme https`, `:path /`, `:authority x`, in HPACK.
const FIELDS: &[u8] = b"\x82\x87\x84\x41\x01x";

#[tokio::test(start_paused = true)]
async fn http2_an_unfinished_field_block_must_end_in_time() {
    for frames in [frame(1, 1, 1, FIELDS), frame(1, 5, 1, FIELDS)[..12].to_vec()] {
        let (bound, time) = h2_raw(&frames).await;
        assert_eq!(bound, Some(Bound::MessageTimeout));
        within(time, 10..=15);
    }
    let (bound, time) = h2_raw(&[]).await;
    assert_eq!(bound, Some(Bound::IdleTimeout));
    within(time, 65..=75);
}

#[tokio::test(start_paused = true)]
async fn http2_floods_end_the_connection() {
    let continuations = [frame(1, 1, 1, FIELDS), frame(9, 0, 1, b"\x40\x01a\x01b").repeat(20_000)].concat();
    let resets: Vec<u8> = (0..2000)
        .flat_map(|at| [frame(1, 5, 2 * at + 1, FIELDS), frame(3, 0, 2 * at + 1, &[0, 0, 0, 8])].concat())
        .collect();
    let empty = [frame(1, 4, 1, FIELDS), frame(0, 0, 1, b"").repeat(20_000)].concat();
    for (flood, frames) in [("CONTINUATION", continuations), ("resets", resets), ("empty DATA", empty)] {
        let (bound, time) = h2_raw(&frames).await;
        assert_eq!(bound, Some(Bound::Http), "{flood}");
        within(time, 0..=15);
    }
}
