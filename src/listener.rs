//! Sockets, limits, client address, drain.

mod accept;
mod admit;
pub mod bind;
mod caller;
pub mod doh;
pub mod dot;
pub mod drain;
pub mod gate;
pub mod idle;
pub mod proxy;
pub mod rate;
pub mod trust;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use crate::pipeline::{Client, Country, Pipeline};
use crate::telemetry::{Protocol, Telemetry};
use admit::Door;
pub use bind::{BindError, Bound, bind};
use gate::{ClientKey, Gate};
use rate::Rate;
use trust::Prefixes;

/// Serves the sockets of one worker until the process is to end, on the `current_thread` runtime that it is called on.
///
/// When it is: takes what is in the accept queues already, closes the listeners, and returns once every connection is
/// gone or `drain_timeout` (0: no limit) has passed; connections left then end with the runtime.
///
/// # Errors
/// When the runtime cannot watch a socket: there is nothing to serve then.
pub async fn run(bound: Bound, shared: Arc<Shared>, phase: watch::Receiver<Phase>) -> io::Result<()> {
    let drain_timeout = shared.settings.drain_timeout;
    let (open, mut closed) = mpsc::channel(1);
    let door = Door { shared, phase, open };
    let listeners = bound.into_listeners()?;
    join_all(listeners.into_iter().map(|(inlet, listener)| accept::run(listener, inlet, &door))).await;
    drop(door);
    // Nothing is ever sent: the end of the channel is the end of the last connection, which held a sender.
    let _ = within(drain_timeout, Instant::now(), closed.recv()).await;
    Ok(())
}

/// Awaits `future` until `timeout` after `from`; a timeout of 0 is none, as everywhere in `[limits]`. None: too late.
///
/// `from` is a moment that the caller knows anyway: the clock is not read, and no timer is made where `future` is ready.
async fn within<F: Future>(timeout: Duration, from: Instant, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Poll::Ready(output) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
        return Some(output);
    }
    match until(timeout, from) {
        Some(by) => tokio::time::timeout_at(by, future).await.ok(),
        None => Some(future.await),
    }
}

/// The moment `timeout` after `from`; None where it is 0: no limit.
fn until(timeout: Duration, from: Instant) -> Option<Instant> {
    if timeout.is_zero() { None } else { from.checked_add(timeout) }
}

/// Where one listener listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its address; port 0: the kernel chooses.
    pub address: SocketAddr,
    /// The country of all its clients; None: it is each client's own.
    pub country: Option<Country>,
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { address, country: None }
    }
}

/// What is known of a connection by the socket that it comes in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inlet {
    pub(crate) protocol: Protocol,
    /// See [`Place::country`].
    pub(crate) country: Option<Country>,
}

/// `[listen]`, what of it is for clients, and `[limits]`, what of it is for connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where DoH is offered.
    pub doh: Vec<Place>,
    /// Where DoT is offered.
    pub dot: Vec<Place>,
    /// Whose connections begin with a PROXY header. Default: nobody's.
    pub proxy_from: Prefixes,
    /// Whose requests say whose they are. Default: nobody's.
    pub forwarded_from: Prefixes,
    /// The path of DoH. Default `/dns-query`.
    pub doh_path: String,
    /// Open connections, in all; 0: no limit. Default 20,000.
    pub connections: usize,
    /// Open connections of one client, an IPv4 address or an IPv6 /56; 0: no limit. Default 1,000.
    pub connections_per_client: usize,
    /// Queries per second of one client; 0: no limit. Default 0.
    pub queries_per_second_per_client: u32,
    /// Queries of one connection waiting for an upstream; past it the connection is not read on. Default 256.
    pub in_flight_per_connection: usize,
    /// A handshake is complete. Default 5 s.
    pub handshake_timeout: Duration,
    /// A query, once begun, is complete; an answer, once written, is taken. Default 10 s.
    pub message_timeout: Duration,
    /// A connection without a whole message is closed. Default 65 s; shrinks as connections run out.
    pub idle_timeout: Duration,
    /// What is in flight at SIGTERM may take. Default 10 s.
    pub drain_timeout: Duration,
}

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// The product.
    pub pipeline: Arc<Pipeline>,
    /// See [`Settings`].
    pub settings: Settings,
    /// TLS of DoT.
    pub dot_tls: Arc<ServerConfig>,
    /// TLS of DoH.
    pub doh_tls: Arc<ServerConfig>,
    /// The counters.
    pub telemetry: Arc<Telemetry>,
    /// The bounds on open connections.
    pub gate: Arc<Gate>,
    /// The bound on queries per second of a client.
    pub rate: Rate,
    /// The pages on the DoH listener; None: there are none.
    pub pages: Option<Arc<dyn doh::Pages>>,
}

impl Shared {
    /// What all connections of all workers share.
    #[must_use]
    pub fn new(
        pipeline: Arc<Pipeline>,
        settings: Settings,
        dot_tls: Arc<ServerConfig>,
        doh_tls: Arc<ServerConfig>,
        telemetry: Arc<Telemetry>,
        pages: Option<Arc<dyn doh::Pages>>,
    ) -> Arc<Self> {
        let gate = Gate::new(settings.connections, settings.connections_per_client);
        let rate = Rate::new(settings.queries_per_second_per_client);
        Arc::new(Self { pipeline, settings, dot_tls, doh_tls, telemetry, gate, rate, pages })
    }

    /// How long a connection may be without a whole message as things stand: `[limits] idle-timeout`, less as
    /// connections run out ([`idle::shrunk`]). 0: no limit.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        idle::shrunk(self.settings.idle_timeout, self.gate.open(), self.settings.connections)
    }

    /// Has answers tell clients how long that is now.
    fn announce_idle_timeout(&self) {
        self.pipeline.announce_idle_timeout(self.idle_timeout());
    }
}

/// How far the end of the process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// No new connections; what is in flight is finished.
    Draining,
}

/// Who asks.
#[derive(Debug)]
pub struct Asker {
    /// To the pipeline.
    pub client: Client,
    /// To the bounds; None: they do not hold it.
    pub key: Option<ClientKey>,
}

impl Asker {
    /// Takes a token for a query of its; how long its next one has to wait.
    fn toll(&self, rate: &Rate, now: Duration) -> Duration {
        self.key.map_or(Duration::ZERO, |key| rate.take(key, now))
    }
}

/// A connection that has its TLS. `dot::serve` and `doh::serve` take it.
pub struct Connection<S = TlsStream<TcpStream>> {
    /// The encrypted stream; `TCP_NODELAY` is set.
    pub stream: S,
    /// What all share.
    pub shared: Arc<Shared>,
    /// Who asks.
    pub asker: Asker,
    /// Whether it passes on requests of others, on DoH.
    pub forwards: bool,
    /// The country that its listener says.
    pub country: Option<Country>,
    /// Changes when the process is to end.
    pub phase: watch::Receiver<Phase>,
}

/// Says nothing of what is in it: a stream's own form names its client's address.
impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}
