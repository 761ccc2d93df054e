//! A whole HTTP/2 connection in memory, the product or a canned service at its far end, and what its exchanges allocate.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use bailiwick::listener::trust::Prefixes;
use bailiwick::listener::{Asker, Connection, Phase, Settings, Shared, doh};
use bailiwick::pipeline::Pipeline;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCertUsingSni;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// The preface, SETTINGS, and a connection window that is never used up.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0";

// Kinds and flags of frames (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Requests that come in one write, and are answered together.
const STREAMS: u32 = 10;

/// Rounds until buffers have grown, and those that are counted: many, so that what one exchange in hundreds needs counts.
const ROUNDS: [u32; 2] = [20, 100];

/// Exchanges that are counted.
pub(crate) const EXCHANGES: u64 = (ROUNDS[1] * STREAMS) as u64;

/// How a request carries its message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Method {
    Get,
    Post,
}

/// Allocations of [`EXCHANGES`] with the product, and its last answer.
pub(crate) fn of_product(pipeline: &Arc<Pipeline>, method: Method, message: &[u8]) -> (u64, Vec<u8>) {
    let (phase, changes) = watch::channel(Phase::Running);
    let pipeline = Arc::clone(pipeline);
    let counted = Line::to(|stream| {
        let asker = Asker { client: pipeline.client(Ipv4Addr::LOCALHOST.into(), None), key: None };
        let connection =
            Connection { stream, shared: shared(pipeline), asker, forwards: false, country: None, phase: changes };
        doh::serve_stream(connection, true)
    })
    .count(method, message);
    drop(phase);
    counted
}

/// The same with a service that answers this to everything.
pub(crate) fn of_canned(answer: &[u8], method: Method, message: &[u8]) -> u64 {
    let answer = Bytes::copy_from_slice(answer);
    let service = service_fn(move |request| respond(request, answer.clone()));
    let serve = |stream| async move {
        let mut settings = http2::Builder::new(TokioExecutor::new());
        settings.timer(TokioTimer::new()).max_send_buf_size(16 * 1024);
        let _ = settings.serve_connection(TokioIo::new(stream), service).await;
    };
    Line::to(serve).count(method, message).0
}

async fn respond(request: Request<Incoming>, answer: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    drop(request.into_body().collect().await);
    let mut response = Response::new(Full::new(answer));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/dns-message"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600"));
    Ok(response)
}

fn shared(pipeline: Arc<Pipeline>) -> Arc<Shared> {
    let second = Duration::from_secs(1);
    let settings = Settings {
        doh: Vec::new(),
        dot: Vec::new(),
        proxy_from: Prefixes::default(),
        forwarded_from: Prefixes::default(),
        doh_path: "/dns-query".to_owned(),
        connections: 0,
        connections_per_client: 0,
        queries_per_second_per_client: 0,
        in_flight_per_connection: 256,
        handshake_timeout: 5 * second,
        message_timeout: 10 * second,
        idle_timeout: 65 * second,
        drain_timeout: 10 * second,
    };
    // Nobody shakes hands here.
    let tls = ServerConfig::builder().with_no_client_auth();
    let tls = Arc::new(tls.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new())));
    let telemetry = Arc::clone(pipeline.telemetry());
    Shared::new(pipeline, settings, Arc::clone(&tls), tls, telemetry, None)
}

/// A client's end of a connection, on the thread that serves it: all that either allocates is counted.
struct Line {
    runtime: Runtime,
    near: DuplexStream,
    stream: u32,
}

impl Line {
    fn to<F: Future<Output = ()> + Send + 'static>(serve: impl FnOnce(DuplexStream) -> F) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (mut near, far) = duplex(256 * 1024);
        let _runtime = runtime.enter();
        runtime.spawn(serve(far));
        runtime.block_on(near.write_all(OPENING)).unwrap();
        drop(_runtime);
        Self { runtime, near, stream: 1 }
    }

    /// Allocations of [`EXCHANGES`], and the last answer.
    fn count(mut self, method: Method, message: &[u8]) -> (u64, Vec<u8>) {
        let (mut heard, mut answer) = (vec![0; 64 * 1024], 0..0);
        let counts = ROUNDS.map(|rounds| {
            let requests: Vec<_> = (0..rounds).map(|_| self.requests(method, message)).collect();
            let mut ask = || requests.iter().for_each(|octets| answer = self.ask(octets, &mut heard));
            measure(&mut ask).count_total
        });
        (counts[1], heard[answer].to_vec())
    }

    fn requests(&mut self, method: Method, message: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        for _ in 0..STREAMS {
            let stream = self.stream;
            self.stream += 2;
            match method {
                Method::Get => {
                    let target = format!("/dns-query?dns={}", BASE64_URL_SAFE_NO_PAD.encode(message));
                    frame(&mut octets, HEADERS, END_HEADERS | END_STREAM, stream, &fields(2, &target, &[]));
                }
                Method::Post => {
                    let (length, path) = (message.len().to_string(), "/dns-query");
                    // content-type and content-length.
                    let more = [(31, "application/dns-message"), (28, &length)];
                    frame(&mut octets, HEADERS, END_HEADERS, stream, &fields(3, path, &more));
                    frame(&mut octets, DATA, END_STREAM, stream, message);
                }
            }
        }
        octets
    }

    /// Writes requests, and reads until as many answers have ended; where the last one's octets stand.
    fn ask(&mut self, requests: &[u8], heard: &mut [u8]) -> std::ops::Range<usize> {
        self.runtime.block_on(async {
            self.near.write_all(requests).await.unwrap();
            let (mut end, mut at, mut answers) = (0, 0, 0);
            loop {
                end += self.near.read(&mut heard[end..]).await.unwrap();
                while let Some(&[a, b, c, kind, flags, ..]) = heard[at..end].get(..9) {
                    let payload = at + 9..at + 9 + u32::from_be_bytes([0, a, b, c]) as usize;
                    if payload.end > end {
                        break;
                    }
                    at = payload.end;
                    answers += u32::from(kind == DATA && flags & END_STREAM != 0);
                    if answers == STREAMS {
                        return payload;
                    }
                }
            }
        })
    }
}

/// A field block in HPACK: a method by its number in the static table, `https`, an authority, a path, and more fields
/// whose names are there too; none is Huffman-coded or indexed (RFC 7541 §6.2.2).
fn fields(method: u8, path: &str, more: &[(u8, &str)]) -> Vec<u8> {
    let mut block = [&[0x80 | method, 0x87, 0x01, 3], &b"x.x"[..], &[4, path.len() as u8], path.as_bytes()].concat();
    for (name, value) in more {
        block.extend([&[0x0f, name - 15, value.len() as u8], value.as_bytes()].concat());
    }
    block
}

fn frame(octets: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    octets.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    octets.extend([kind, flags]);
    octets.extend(stream.to_be_bytes());
    octets.extend_from_slice(payload);
}
