//! The operator's HTTP: health, metrics, explain, orders.
//!
//! Plain HTTP for loopback, GET only, one request a connection. What a web page could reach by rebinding a name of its
//! own to this address is refused by the `Host` it then sends.

pub mod client;
pub mod explain;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::telemetry::exposition;
use crate::telemetry::health::{Reason, Snapshot};

pub use client::fetch;
pub use explain::ExplainQuery;

/// Octets of a request line and its headers.
pub const REQUEST_OCTETS_MAX: usize = 8 << 10;

/// Headers of a request.
pub const HEADERS_MAX: usize = 64;

/// Connections at a time; more wait in the accept queue.
pub const CONNECTIONS_MAX: usize = 64;

/// From accept to the last octet of the answer.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait where nothing can be accepted, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the operator can ask.
pub trait Operator: Send + Sync + 'static {
    /// What is wrong at the moment.
    fn health(&self) -> Snapshot;

    /// The policy that every worker answers from.
    fn generation(&self) -> u64;

    /// The page of [`crate::telemetry::Telemetry::render`].
    fn metrics(&self) -> String;

    /// Every order, as an array of objects.
    fn orders(&self) -> Value;

    /// What the answer to a query would be, as an object; it may ask an upstream first.
    ///
    /// # Errors
    /// What is wrong with the question, in a line.
    fn explain(&self, query: ExplainQuery) -> Explaining;
}

/// An explanation being made.
pub type Explaining = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

/// Serves a listener; never ends. Dropping it ends open connections with it.
pub async fn serve(listener: TcpListener, operator: Arc<dyn Operator>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    // Never closed, so a permit always comes.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let operator = Arc::clone(&operator);
                connections.spawn(async move {
                    connection(stream, operator).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one request. How it fails is between the operator's client and us, and no news.
async fn connection(stream: TcpStream, operator: Arc<dyn Operator>) {
    let service = service_fn(|request: Request<Incoming>| {
        let operator = Arc::clone(&operator);
        async move { Ok::<_, Infallible>(answer(&request, operator.as_ref()).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(CONNECTION_TIMEOUT);
    http.keep_alive(false).max_buf_size(REQUEST_OCTETS_MAX).max_headers(HEADERS_MAX);
    let _ = timeout(CONNECTION_TIMEOUT, http.serve_connection(TokioIo::new(stream), service)).await;
}

type Answer = Response<Full<Bytes>>;

async fn answer<B: Sync>(request: &Request<B>, operator: &dyn Operator) -> Answer {
    if !is_meant_for_us(request) {
        let said = "this Host is not served; use an IP address or localhost\n";
        return text(StatusCode::MISDIRECTED_REQUEST, "text/plain", said);
    }
    if request.method() != Method::GET {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return answer;
    }
    match request.uri().path() {
        "/" => text(StatusCode::OK, "text/plain", "/health /ready /metrics /orders /explain?name=&type=&client=&at=\n"),
        "/health" => json(StatusCode::OK, &health(&operator.health(), operator.generation())),
        "/ready" => readiness(&operator.health()),
        "/metrics" => text(StatusCode::OK, exposition::CONTENT_TYPE, operator.metrics()),
        "/orders" => json(StatusCode::OK, &operator.orders()),
        "/explain" => explanation(request.uri().query().unwrap_or_default(), operator).await,
        _ => text(StatusCode::NOT_FOUND, "text/plain", "no such page; / lists them\n"),
    }
}

/// Whether the request names an address, `localhost` or, as HTTP/1.0 may, no host at all. Every other name could be
/// an attacker's, resolved to us (DNS rebinding).
fn is_meant_for_us<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => return request.version() == Version::HTTP_10 && request.uri().authority().is_none(),
        (Some(host), None) => host.to_str().unwrap_or_default().parse::<Authority>(),
        // RFC 9112 §3.2: more than one is refused.
        (Some(_), Some(_)) => return false,
    };
    // RFC 9112 §3.2.2: a request that names a whole URI means that one, whatever its Host.
    host.iter().chain(request.uri().authority()).all(is_local) && host.is_ok()
}

fn is_local(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let named = address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost");
    named && !authority.as_str().contains('@')
}

/// Always 200: a legal matter never empties a load balancer.
fn health(snapshot: &Snapshot, generation: u64) -> Value {
    let reasons: Vec<_> = snapshot.unready.iter().chain(&snapshot.degraded).map(reason).collect();
    let status = if reasons.is_empty() { "ok" } else { "degraded" };
    json!({ "status": status, "reasons": reasons, "generation": generation })
}

fn readiness(snapshot: &Snapshot) -> Answer {
    if snapshot.unready.is_empty() {
        return text(StatusCode::OK, "text/plain", "ready\n");
    }
    let reasons: Vec<_> = snapshot.unready.iter().map(reason).collect();
    json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "unready", "reasons": reasons }))
}

fn reason(reason: &Reason) -> Value {
    json!({ "component": reason.component, "reason": reason.reason })
}

async fn explanation(query: &str, operator: &dyn Operator) -> Answer {
    let explained = match ExplainQuery::from_query(query) {
        Ok(query) => operator.explain(query).await,
        Err(what) => Err(what),
    };
    match explained {
        Ok(explanation) => json(StatusCode::OK, &explanation),
        Err(what) => json(StatusCode::BAD_REQUEST, &json!({ "error": what })),
    }
}

fn json(status: StatusCode, value: &Value) -> Answer {
    text(status, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[derive(Default)]
    struct Scripted(Snapshot);

    impl Operator for Scripted {
        fn health(&self) -> Snapshot {
            self.0.clone()
        }

        fn generation(&self) -> u64 {
            7
        }

        fn metrics(&self) -> String {
            "# EOF\n".to_owned()
        }

        fn orders(&self) -> Value {
            json!([{ "id": "a" }])
        }

        fn explain(&self, query: ExplainQuery) -> Explaining {
            let known = query.name != "bad";
            Box::pin(
                async move { if known { Ok(json!({ "name": query.name })) } else { Err("not a name".to_owned()) } },
            )
        }
    }

    async fn running(operator: Scripted) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, Arc::new(operator)));
        address
    }

    /// What comes back for these octets, to the end of the connection.
    async fn said(address: SocketAddr, octets: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(octets).await.unwrap();
        let mut said = Vec::new();
        // A connection reset while we still wrote has said what it had to say.
        let _ = stream.read_to_end(&mut said).await;
        String::from_utf8(said).unwrap()
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        said(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await
    }

    fn unwell() -> Snapshot {
        let reason = |component, reason: &str| Reason { component, reason: reason.to_owned() };
        Snapshot { degraded: vec![reason("orders", "a.toml:1:1: b")], unready: vec![reason("upstream", "a loop")] }
    }

    #[tokio::test]
    async fn each_page_is_there() {
        let address = running(Scripted::default()).await;
        let health = get(address, "/health").await;
        assert!(health.starts_with("HTTP/1.1 200 OK\r\n") && health.contains("content-type: application/json\r\n"));
        assert!(health.ends_with("\r\n\r\n{\"generation\":7,\"reasons\":[],\"status\":\"ok\"}\n"), "{health}");
        assert!(get(address, "/ready").await.ends_with("\r\n\r\nready\n"));
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("content-type: application/openmetrics-text") && metrics.ends_with("\r\n# EOF\n"));
        assert!(get(address, "/orders").await.ends_with("\r\n[{\"id\":\"a\"}]\n"));
        assert!(get(address, "/explain?name=a%2eexample").await.ends_with("\r\n{\"name\":\"a.example\"}\n"));
        assert!(get(address, "/").await.contains("/explain?name="));
        assert!(get(address, "/favicon.ico").await.starts_with("HTTP/1.1 404 "));
    }

    #[tokio::test]
    async fn a_bad_question_is_told_why() {
        let address = running(Scripted::default()).await;
        for (query, what) in [("name=bad", "not a name"), ("", "no name"), ("name=a&client=b", "not an IP address")] {
            let said = get(address, &format!("/explain?{query}")).await;
            assert!(said.starts_with("HTTP/1.1 400 ") && said.contains(what), "{said}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_and_only_ready_says_503() {
        let address = running(Scripted(unwell())).await;
        let health = get(address, "/health").await;
        assert!(health.starts_with("HTTP/1.1 200 ") && health.contains("\"status\":\"degraded\""));
        assert!(health.contains("a.toml:1:1: b") && health.contains("a loop"));
        let ready = get(address, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("a loop") && !ready.contains("a.toml"));
        let legal = Snapshot { unready: Vec::new(), ..unwell() };
        assert!(get(running(Scripted(legal)).await, "/ready").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn only_get_is_taken() {
        let address = running(Scripted::default()).await;
        for method in ["POST", "HEAD", "DELETE", "OPTIONS"] {
            let request = format!("{method} /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
            let said = said(address, request.as_bytes()).await;
            assert!(said.starts_with("HTTP/1.1 405 ") && said.contains("allow: GET\r\n"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_rebound_name_is_refused() {
        let address = running(Scripted::default()).await;
        for host in ["localhost", "LOCALHOST:8053", "127.0.0.1", "[::1]:8053", "192.0.2.1:80"] {
            let said = said(address, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
            assert!(said.starts_with("HTTP/1.1 200 "), "{host}: {said}");
        }
        for host in ["attacker.example", "127.0.0.1.attacker.example:8053", "a@127.0.0.1", "", "127.0.0.1\r\nHost: b"] {
            let said = said(address, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
            assert!(said.starts_with("HTTP/1.1 421 "), "{host}: {said}");
        }
        assert!(said(address, b"GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 421 "));
        assert!(said(address, b"GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 200 "));
        let whole = b"GET http://attacker.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        assert!(said(address, whole).await.starts_with("HTTP/1.1 421 "));
    }

    #[tokio::test]
    async fn a_request_has_bounds() {
        let address = running(Scripted::default()).await;
        let path = "a".repeat(REQUEST_OCTETS_MAX);
        let refused = get(address, &format!("/{path}")).await;
        assert!(refused.starts_with("HTTP/1.1 431 ") || refused.starts_with("HTTP/1.1 414 "), "{refused}");
        let headers = "A: b\r\n".repeat(HEADERS_MAX + 1);
        let said = said(address, format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    }

    #[tokio::test]
    async fn more_connections_wait_their_turn() {
        let address = running(Scripted::default()).await;
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let waiting = tokio::spawn(async move { get(address, "/ready").await });
        // The runtime has one thread: once all others have been idle for a while, this one would have been answered.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        idle.pop();
        assert!(waiting.await.unwrap().ends_with("ready\n"));
    }

    #[tokio::test]
    async fn the_commands_client_reads_it() {
        let address = running(Scripted::default()).await;
        let ask = move |path: &'static str| tokio::task::spawn_blocking(move || fetch(address, path));
        assert_eq!(ask("/orders").await.unwrap(), Some(Ok("[{\"id\":\"a\"}]\n".to_owned())));
        assert_eq!(ask("/explain?name=bad").await.unwrap(), Some(Err("not a name".to_owned())));
        assert!(ask("/nothing").await.unwrap().unwrap().unwrap_err().contains("no such page"));
    }
}
