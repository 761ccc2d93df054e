//! DNS over HTTPS: HTTP/1.1 and HTTP/2 ↔ `Query` and `Answer` (RFC 8484).

mod activity;
mod connection;
pub mod forwarded;
pub mod frames;
pub mod request;
mod response;
mod stream;
mod turns;

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::poll_immediate;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Version, header};
use hyper::body::{Body as _, Incoming};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::gate::ClientKey;
use super::{Asker, Connection, Settings, Shared};
use crate::answer::Written;
use crate::pipeline::{Country, Progress};
use crate::query::{Malformed, Transport};
use crate::telemetry::{Bound, Event};
use activity::Exchange;
use request::{Refusal, Source, URL_MESSAGE_OCTETS_MAX};
use response::{Addressee, Body};

/// Octets of the buffer that a worker's answers are cut from.
const ANSWERS_OCTETS: usize = 16 * 1024;

/// Octets that a request's response takes at most while it is made: what few requests wait for is not to creep into all,
/// and some allocators look longer for more.
const RESPONSE_OCTETS_MAX: usize = 1_024;

/// Octets that nearly every answer fits in, and the text of its headers.
const ANSWER_OCTETS: usize = 1024;

/// Serves a connection until it ends, in the protocol that ALPN chose; without ALPN that is HTTP/1.1.
pub fn serve(connection: Connection) -> impl Future<Output = ()> + Send {
    let http2 = connection.stream.get_ref().1.alpn_protocol() == Some(b"h2");
    serve_stream(connection, http2)
}

/// Serves a connection whatever its stream is, in HTTP/2 or HTTP/1.1.
pub fn serve_stream<S>(connection: Connection<S>, http2: bool) -> impl Future<Output = ()> + Send + use<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Connection { stream, shared, asker, forwards, country, phase } = connection;
    let desk = Arc::new(Desk { shared: Arc::clone(&shared), peer: asker, forwards, country });
    let respond = move |exchange, request| {
        let response = respond(Arc::clone(&desk), exchange, request);
        debug_assert!(size_of_val(&response) <= RESPONSE_OCTETS_MAX, "{} octets", size_of_val(&response));
        Box::pin(response)
    };
    let pressed = Arc::clone(&shared);
    let idle_timeout = move || pressed.idle_timeout();
    let end = connection::converse(stream, http2, respond, &shared.settings, idle_timeout, phase);
    // Not awaited in a block: that would keep room for it twice.
    end.map(move |bound| {
        if let Some(bound) = bound {
            shared.telemetry.count(Event::Bound(bound));
        }
    })
}

/// Makes the pages that are no DNS: `serve` hands it in, and nothing here knows what is on them.
pub trait Pages: fmt::Debug + Send + Sync + 'static {
    /// Whether a path is one of theirs.
    fn has(&self, path: &str) -> bool;

    /// The response to a request for such a path, whatever its method; the body of HEAD is left out for it. It is made
    /// on the thread that answers queries, so it is short work.
    fn respond(&self, head: &Parts, now: Timestamp) -> Response<Bytes>;
}

/// Who answers DNS messages.
trait Ask: Send + Sync + 'static {
    fn settings(&self) -> &Settings;

    /// Who asks by a request, where that is not the peer.
    fn asker(&self, headers: &HeaderMap) -> Option<Asker>;

    /// Counts a query of this asker's, by default the peer; how long it has to wait.
    fn toll(&self, asker: Option<&Asker>) -> Duration;

    /// Answers a message of this asker's, by default the peer, or says when it will be.
    fn ask(
        &self,
        asker: Option<&Asker>,
        message: &[u8],
    ) -> Result<Step<impl Future<Output = (BytesMut, Written)> + Send + use<Self>>, Refusal>;

    /// The pages, where there are any.
    fn pages(&self) -> Option<&dyn Pages> {
        None
    }

    /// The time of day.
    fn now(&self) -> Timestamp;

    /// Hears that a request met a bound.
    fn met(&self, bound: Bound);
}

/// What is found for a request.
enum Found {
    Answer(Bytes, Written),
    /// Boxed, so that answers do not carry and move the room for it.
    Page(Box<Response<Bytes>>),
}

/// An answer that is there, or one to wait for.
enum Step<W> {
    Answered(Bytes, Written),
    Waiting(W),
}

/// Whom a connection's requests are from, and who answers them.
#[derive(Debug)]
struct Desk {
    shared: Arc<Shared>,
    peer: Asker,
    /// Whether the peer passes on requests of others.
    forwards: bool,
    /// The country that the listener says.
    country: Option<Country>,
}

impl Ask for Desk {
    fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    fn asker(&self, headers: &HeaderMap) -> Option<Asker> {
        if !self.forwards {
            return None;
        }
        let pipeline = &self.shared.pipeline;
        Some(match forwarded::source(headers, &self.shared.settings.forwarded_from)? {
            forwarded::Source::Client(address) => {
                Asker { client: pipeline.client(address, self.country), key: Some(ClientKey::of(address)) }
            }
            // Whoever hides its clients answers for them.
            forwarded::Source::Hidden(last) => {
                Asker { client: pipeline.hidden_client(self.country), key: last.map(ClientKey::of).or(self.peer.key) }
            }
        })
    }

    fn toll(&self, asker: Option<&Asker>) -> Duration {
        let Shared { rate, pipeline, .. } = &*self.shared;
        // The clock is not read for nothing.
        if !rate.is_limited() {
            return Duration::ZERO;
        }
        asker.unwrap_or(&self.peer).toll(rate, pipeline.clock().now().mono)
    }

    /// Every query that comes by HTTP passes here, once.
    fn ask(
        &self,
        asker: Option<&Asker>,
        message: &[u8],
    ) -> Result<Step<impl Future<Output = (BytesMut, Written)> + Send + use<>>, Refusal> {
        let pipeline = &self.shared.pipeline;
        let client = &asker.unwrap_or(&self.peer).client;
        match &pipeline.read(message, Transport::Doh) {
            Ok(query) => {
                let now = turns::now(|| pipeline.clock().now());
                let mut buffer = Buffer::lend();
                Ok(match pipeline.answer(client, query, now, &mut buffer.0) {
                    Progress::Answered(written) => Step::Answered(buffer.0.split().freeze(), written),
                    // Boxed, so that a request answered at once does not carry and move the room for one that is not.
                    Progress::Waiting(waiting) => Step::Waiting(Box::pin(waiting.finish())),
                })
            }
            Err(Malformed::Fault(fault)) => {
                let mut buffer = Buffer::lend();
                let written = pipeline.fault(fault, &mut buffer.0);
                Ok(Step::Answered(buffer.0.split().freeze(), written))
            }
            Err(Malformed::Short) => Err(Refusal::Short),
            Err(Malformed::Response) => Err(Refusal::Response),
        }
    }

    fn pages(&self) -> Option<&dyn Pages> {
        self.shared.pages.as_deref()
    }

    fn now(&self) -> Timestamp {
        self.shared.pipeline.clock().now().wall
    }

    fn met(&self, bound: Bound) {
        self.shared.telemetry.count(Event::Bound(bound));
    }
}

/// Responds to a request. A stream that its client resets drops this where it stands.
///
/// What it works on is taken apart before it begins, and what few requests wait for is boxed: each would else have room of
/// its own in the memory of every one, see [`RESPONSE_OCTETS_MAX`].
fn respond(
    desk: Arc<impl Ask>,
    exchange: Exchange,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> {
    let (head, mut body) = request.into_parts();
    async move {
        let answer = answer(&*desk, &head, &mut body, &exchange).await;
        if may_send_on(&head, &body) && !matches!(answer, Err(Refusal::BodyTimeout)) {
            let _ = in_time(request::skip(&mut body), desk.settings().message_timeout).await;
            exchange.is_read();
        }
        let addressee = Addressee { head_only: head.method == Method::HEAD, close: ends_connection(&head), exchange };
        let mut buffer = Buffer::lend();
        let text = &mut buffer.0;
        Ok(match answer {
            Ok(Found::Answer(message, written)) => addressee.answer(message, written, text),
            Ok(Found::Page(page)) => addressee.page(*page, text),
            Err(refusal) => {
                if let Some(bound) = refusal.bound() {
                    desk.met(bound);
                }
                addressee.refuse(refusal, text)
            }
        })
    }
}

async fn answer(desk: &impl Ask, head: &Parts, body: &mut Incoming, exchange: &Exchange) -> Result<Found, Refusal> {
    let source = request::source(head, &desk.settings().doh_path);
    // Only what is not DoH's path may be a page's.
    let pages = desk.pages().filter(|pages| source == Err(Refusal::Path) && pages.has(head.uri.path()));
    if pages.is_none() {
        source?;
    }
    let asker = desk.asker(&head.headers);
    let toll = desk.toll(asker.as_ref());
    if !toll.is_zero() {
        desk.met(Bound::QueriesPerClient);
        Box::pin(sleep(toll)).await;
    }
    if let Some(pages) = pages {
        return Ok(Found::Page(Box::new(pages.respond(head, desk.now()))));
    }
    let step = match source? {
        // No await while the decoded message stands on the stack: what waits for an upstream does not keep it.
        Source::Parameter(text) => {
            desk.ask(asker.as_ref(), request::decode(text, &mut [0; URL_MESSAGE_OCTETS_MAX])?)?
        }
        Source::Body => {
            let message = in_time(request::body(body), desk.settings().message_timeout).await?;
            exchange.is_read();
            desk.ask(asker.as_ref(), &message)?
        }
    };
    match step {
        Step::Answered(message, written) => Ok(Found::Answer(message, written)),
        Step::Waiting(waiting) => {
            let (message, written) = waiting.await;
            Ok(Found::Answer(message.freeze(), written))
        }
    }
}

/// A body within its time; nearly every one is there already, and needs no timer.
async fn in_time<T>(
    reading: impl Future<Output = Result<T, Refusal>>,
    message_timeout: Duration,
) -> Result<T, Refusal> {
    let mut reading = pin!(reading);
    match poll_immediate(reading.as_mut()).await {
        Some(done) => done,
        None if message_timeout.is_zero() => reading.await,
        // Boxed, as what few wait for is: see `respond`.
        None => Box::pin(timeout(message_timeout, reading)).await.unwrap_or(Err(Refusal::BodyTimeout)),
    }
}

/// Whether a client may be sending still. A response ahead of its request's end is followed by RST_STREAM (RFC 9113
/// §8.1) or a reset connection, and clients that meet that while they send forget the response, curl among them: so the
/// rest is heard first. Who said `Expect: 100-continue` waits for a word of ours, and gets the response.
fn may_send_on(head: &Parts, body: &Incoming) -> bool {
    !body.is_end_stream() && !head.headers.contains_key(header::EXPECT)
}

/// A chunked request may have had a Content-Length as well, which hyper takes away unseen: whoever believed that one
/// sees requests where we see none. RFC 9112 §6.1: such a connection ends with its response.
fn ends_connection(head: &Parts) -> bool {
    head.version <= Version::HTTP_11 && head.headers.contains_key(header::TRANSFER_ENCODING)
}

thread_local! {
    /// Answers are written into one buffer of their worker's and cut off it: no connection holds one while it is idle,
    /// and an answer costs no allocation of its own.
    static ANSWERS: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// The worker's buffer, with room in it, until it is dropped. Whoever asks for it meanwhile gets an empty one.
struct Buffer(BytesMut);

impl Buffer {
    fn lend() -> Self {
        let mut buffer = ANSWERS.take();
        if buffer.capacity() < ANSWER_OCTETS {
            buffer.reserve(ANSWERS_OCTETS);
        }
        Self(buffer)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // What a panic leaves behind is nobody's answer.
        self.0.clear();
        ANSWERS.set(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests;
