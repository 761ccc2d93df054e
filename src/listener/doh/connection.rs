//! A connection in either version of HTTP, from its first octet to its last, within its bounds.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};

use super::activity::{Activity, Exchange, Finding, Watch};
use super::frames::Frames;
use super::response::Body;
use super::stream::Watched;
use super::turns::{AtOnce, Turns};
use crate::listener::{Phase, Settings};
use crate::telemetry::Bound;

/// Streams of an HTTP/2 connection at a time; also the bound on what it may have in flight.
const STREAMS_MAX: u32 = 100;

/// Octets of a request's head in HTTP/2, 32 for each field included (RFC 9113 §6.5.2).
const FIELD_OCTETS_MAX: u32 = 8 * 1024;

/// Octets a stream may send before they are read: a whole message.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Octets of a stream's answer that h2 buffers.
const SEND_BUFFER_OCTETS: usize = 16 * 1024;

/// Streams that we reset for a client's mistakes before its connection ends (CVE-2025-8671).
const OWN_RESETS_MAX: usize = 128;

/// Streams that a client reset before we looked at them, at a time, before its connection ends (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;

/// Without a frame for as long, an HTTP/2 client is asked whether it is still there, where no other bound is tighter…
const PING_INTERVAL: Duration = Duration::from_secs(60);

/// …and has as long to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets that an HTTP/1.1 connection reads ahead: a request's head, or pipelined requests.
const READ_BUFFER_OCTETS: usize = 16 * 1024;

/// How long a connection that has not asked yet may take to, when the process is to end.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Speaks HTTP until the connection ends; by which bound, if by one.
///
/// No `async fn` carries stream and HTTP state as arguments: each would keep room for what was moved on, and an idle
/// connection is nothing but such room.
pub(super) fn converse<S, F, R, I>(
    stream: S,
    http2: bool,
    respond: F,
    settings: &Settings,
    idle_timeout: I,
    phase: watch::Receiver<Phase>,
) -> impl Future<Output = Option<Bound>> + use<S, F, R, I>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Exchange, Request<Incoming>) -> R,
    R: Future<Output = Result<Response<Body>, Infallible>> + Unpin + Send + 'static,
    I: Fn() -> Duration,
{
    let activity = Activity::new(!http2);
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity), http2.then(Frames::new)));
    let bounds = Bounds {
        watch: Watch::new(Arc::clone(&activity), settings.message_timeout),
        idle_timeout,
        message_timeout: settings.message_timeout,
        drain_timeout: settings.drain_timeout,
    };
    let begun = Arc::clone(&activity);
    let service = service_fn(move |request| respond(Exchange::begin(&begun), request));
    if http2 {
        let http = Box::pin(Turns::new(http2_settings(settings).serve_connection(stream, service), activity));
        Either::Left(run(http, |http| Pin::new(&mut http.get_mut().http).graceful_shutdown(), bounds, phase))
    } else {
        let http = Box::pin(http1_settings().serve_connection(stream, service));
        Either::Right(run(http, |http| http.graceful_shutdown(), bounds, phase))
    }
}

fn http2_settings(settings: &Settings) -> http2::Builder<AtOnce> {
    let in_flight = u32::try_from(settings.in_flight_per_connection).unwrap_or(u32::MAX);
    let streams = if in_flight == 0 { STREAMS_MAX } else { in_flight.min(STREAMS_MAX) };
    let mut builder = http2::Builder::new(AtOnce);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(FIELD_OCTETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_OCTETS)
        .max_local_error_reset_streams(OWN_RESETS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .keep_alive_interval(outlives_ping(settings).then_some(PING_INTERVAL))
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Whether a connection whose client is gone could stay for longer than a PING would let it: what it may do is bounded,
/// by default more tightly. hyper reads the clock several times a request to know when to send one.
fn outlives_ping(settings: &Settings) -> bool {
    settings.message_timeout.is_zero()
        || settings.idle_timeout.is_zero()
        || settings.idle_timeout > PING_INTERVAL + PING_TIMEOUT
}

fn http1_settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .keep_alive(true)
        .max_buf_size(READ_BUFFER_OCTETS)
        .writev(false)
        // hyper's own runs on a connection without a request too, and makes a timer for each request; `Watch` stands
        // in for it.
        .header_read_timeout(None);
    builder
}

/// What [`run`] holds a connection to.
struct Bounds<I> {
    watch: Watch,
    /// Asked for anew at each look: it shrinks as connections run out.
    idle_timeout: I,
    message_timeout: Duration,
    drain_timeout: Duration,
}

impl<I: Fn() -> Duration> Bounds<I> {
    fn look(&mut self, timer: Pin<&mut Sleep>) -> Finding {
        self.watch.look((self.idle_timeout)(), timer)
    }
}

/// Runs a connection within its bounds; `shut_down` makes it finish what is in flight, and end.
async fn run<H: Future<Output = hyper::Result<()>>>(
    mut http: Pin<Box<H>>,
    shut_down: impl FnOnce(Pin<&mut H>),
    mut bounds: Bounds<impl Fn() -> Duration>,
    mut phase: watch::Receiver<Phase>,
) -> Option<Bound> {
    let mut timer = pin!(sleep_until(Instant::now()));
    bounds.look(timer.as_mut());
    let (deadline, bound) = loop {
        tokio::select! {
            biased;
            end = http.as_mut() => return bound_of(end),
            () = bounds.watch.due(timer.as_mut()) => match bounds.look(timer.as_mut()) {
                Finding::Fine => {}
                Finding::Idle => break (Instant::now() + bounds.message_timeout, Some(Bound::IdleTimeout)),
                Finding::Stalled => return Some(Bound::MessageTimeout),
            },
            () = draining(&mut phase) => {
                let deadline = Instant::now() + bounds.drain_timeout;
                if let Some(end) = first_request(http.as_mut(), &bounds.watch).await {
                    return bound_of(end);
                }
                break (deadline, None);
            }
        }
    };
    // GOAWAY, or the end of keep-alive. A client need not heed either, so it gets so long and no longer.
    shut_down(http.as_mut());
    // How it ends now does not change why.
    let _ = timeout_at(deadline, http).await;
    bound
}

/// Until the process is to end; so it is, too, where nobody is left to say it.
async fn draining(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Draining).await;
}

/// A connection taken from the accept queue at the last moment has its first request under way: that is waited for.
/// Some: the connection has ended.
async fn first_request<H: Future<Output = hyper::Result<()>>>(
    mut http: Pin<&mut H>,
    watch: &Watch,
) -> Option<hyper::Result<()>> {
    let asked = poll_fn(|cx| match http.as_mut().poll(cx) {
        Poll::Ready(end) => Poll::Ready(Some(end)),
        Poll::Pending if watch.has_asked() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    timeout(FIRST_REQUEST, asked).await.ok().flatten()
}

/// The bound of hyper or h2 that ended a connection, if one did.
fn bound_of(end: hyper::Result<()>) -> Option<Bound> {
    end.is_err_and(|error| error.is_parse_too_large() || is_enough(&error)).then_some(Bound::Http)
}

/// Whether h2 has had enough: resets, CONTINUATION frames, empty DATA and the like without end.
fn is_enough(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_library() && cause.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}
