//! The upstream resolvers, asked in turn what a client asked, until one has answered.

mod counters;
mod exchange;
mod health;
mod loops;
mod ports;
mod probe;
mod question;
mod race;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod scripted;
mod server;
mod sockets;
pub mod system;
mod tcp;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::dns::Name;
use crate::query::{Failure, Reply};

pub use counters::{Counts, LATENCY_BOUNDS_MS};
pub use exchange::Errand;
pub use race::{TRIES_PER_SERVER_MAX, UPSTREAM_QUERIES_MAX};
pub use sockets::System;
pub use system::SYSTEM_RESOLVERS_MAX;

use loops::Nonces;
use ports::SOCKETS_PER_WORKER_MAX;
use race::Race;
use server::{Server, Servers};
use system::Follower;

/// `[upstream] resolvers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolvers {
    /// Those of `/etc/resolv.conf`, followed as it changes.
    System,
    /// These.
    Listed(Vec<SocketAddr>),
}

/// `[upstream]`, without what the pipeline decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// See [`Resolvers`].
    pub resolvers: Resolvers,
    /// The sockets that a worker draws from for one upstream, at most; default 128.
    pub sockets_per_worker: usize,
}

impl Settings {
    /// What is asked for of these resolvers, with as many sockets as are of use.
    #[must_use]
    pub const fn of(resolvers: Resolvers) -> Self {
        Self { resolvers, sockets_per_worker: SOCKETS_PER_WORKER_MAX }
    }

    /// The most sockets that asking these upstreams takes, beside one for each query in flight: those that so many
    /// threads draw from, and those whose last try is beside the latest of its query.
    #[must_use]
    pub fn spare_sockets_max(&self, threads: usize) -> usize {
        let beside = FURTHER_TRIES_MAX + HEARD_OUT_MAX * usize::from(UPSTREAM_QUERIES_MAX);
        self.sockets_per_worker * threads * self.resolvers_max() + beside
    }

    /// Where descriptors are few, so many threads draw from no more than `sockets` together, each from one at least:
    /// a socket that only waits to be drawn takes no connection's place.
    pub fn fit_into(&mut self, sockets: usize, threads: usize) {
        let each = sockets / (threads * self.resolvers_max()).max(1);
        self.sockets_per_worker = each.clamp(1, self.sockets_per_worker);
    }

    fn resolvers_max(&self) -> usize {
        match &self.resolvers {
            Resolvers::System => SYSTEM_RESOLVERS_MAX,
            Resolvers::Listed(listed) => listed.len(),
        }
    }
}

/// The sockets that queries to upstreams leave by: those of the machine, or a script's in tests.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// A fresh UDP socket on an unpredictable port, connected to `server`, and registered with the runtime that asks.
    ///
    /// # Errors
    /// As the machine has them: no route, no port left, no descriptor left.
    fn udp(&self, server: SocketAddr) -> io::Result<Box<dyn Datagrams>>;

    /// A TCP connection to `server`.
    fn tcp(&self, server: SocketAddr) -> Connecting;
}

/// A TCP connection being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// A connected UDP socket.
pub trait Datagrams: Send {
    /// Sends one datagram.
    ///
    /// # Errors
    /// As the machine has them: [`io::ErrorKind::WouldBlock`] where there is no room, and what ICMP has brought.
    fn send(&mut self, octets: &[u8]) -> io::Result<()>;
    /// Receives one datagram. Who waits is woken by those that a later [`Self::send`] brings about, too.
    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;
    /// Nothing more is expected: what is there already may stay until the next comes, unlooked for.
    fn expect_nothing(&mut self) {}
}

/// A connected TCP socket.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How an upstream resolver does.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Its address.
    pub server: SocketAddr,
    /// It answers.
    pub up: bool,
    /// It is ourselves, perhaps by way of others.
    pub is_loop: bool,
    /// How long it usually takes to answer, smoothed; None before its first answer.
    pub round_trip: Option<Duration>,
    /// What was asked of it, and what came of it, since it was first named.
    pub counts: Counts,
}

/// One in so many queries goes first to a resolver that is not the fastest known, so that a faster one is found.
const REMEASURE_EVERY: usize = 32;

/// The most queries whose slower tries are still heard out after a faster resolver answered. Past it they are
/// dropped, and their resolver is only known to be slower than what was waited.
const HEARD_OUT_MAX: usize = 64;

/// The most tries, of all queries together, that are under way beside the latest of their query. Past it a further try
/// takes the place of the silent ones before it: a query of ten thousand for dead names waits on one socket, not three.
const FURTHER_TRIES_MAX: usize = 1_024;

/// The upstream resolvers.
#[derive(Debug)]
pub struct Upstream {
    network: Arc<dyn Network>,
    sockets_per_worker: usize,
    servers: ArcSwap<Vec<Arc<Server>>>,
    returns: Arc<watch::Sender<u64>>,
    nonces: Nonces,
    /// Followed where the system's resolvers are asked.
    file: Option<Mutex<Follower>>,
    /// Queries forwarded, to know which one re-measures.
    forwarded: AtomicUsize,
    heard_out: Arc<Semaphore>,
    further_tries: Arc<Semaphore>,
}

impl Upstream {
    /// Nothing is sent before [`Self::forward`] or [`Self::keep_watch`].
    #[must_use]
    pub fn new(settings: &Settings, network: Arc<dyn Network>) -> Arc<Self> {
        Self::with_file(settings, network, Path::new(system::RESOLV_CONF))
    }

    /// [`Self::new`] with another file in the place of `/etc/resolv.conf`.
    fn with_file(settings: &Settings, network: Arc<dyn Network>, path: &Path) -> Arc<Self> {
        let (file, addresses) = match &settings.resolvers {
            Resolvers::Listed(listed) => (None, listed.clone()),
            Resolvers::System => {
                let mut follower = Follower::new(path);
                let addresses = follower.changed().unwrap_or_default();
                (Some(Mutex::new(follower)), addresses)
            }
        };
        let upstream = Self {
            network,
            sockets_per_worker: settings.sockets_per_worker,
            servers: ArcSwap::default(),
            returns: Arc::new(watch::Sender::new(0)),
            nonces: Nonces::default(),
            file,
            forwarded: AtomicUsize::new(0),
            heard_out: Arc::new(Semaphore::new(HEARD_OUT_MAX)),
            further_tries: Arc::new(Semaphore::new(FURTHER_TRIES_MAX)),
        };
        upstream.name_servers(&addresses);
        Arc::new(upstream)
    }

    /// Asks, until `until`. `over_budget` hears where that would have taken more than [`UPSTREAM_QUERIES_MAX`] upstream
    /// queries.
    ///
    /// # Errors
    /// Why there is no reply. An upstream's error RCODE is one, after another upstream was asked.
    pub async fn forward(
        &self,
        errand: &Arc<Errand>,
        until: Instant,
        over_budget: impl FnOnce(),
    ) -> Result<Reply<'static>, Failure> {
        let servers = self.in_order_of_preference();
        if servers.is_empty() {
            return Err(Failure::NoUpstream);
        }
        let now = Instant::now();
        if until <= now {
            return Err(Failure::Timeout);
        }
        let mut race = Race::new(servers, errand, Arc::clone(&self.further_tries), [now, until]);
        let outcome = race.run().await;
        if race.is_over_budget() {
            over_budget();
        }
        if race.is_under_way() {
            race.hear_out(&self.heard_out);
        }
        outcome
    }

    /// Whether this is a name that only our own loop probe asks for. Its resolver is then known to be ourselves.
    ///
    /// A name that is not directly below `bailiwick-loop.arpa` takes no lock; none allocates.
    pub fn is_own_probe(&self, qname: &Name) -> bool {
        self.nonces.came_back(qname)
    }

    /// Changes each time a resolver that was down is back.
    pub fn returns(&self) -> watch::Receiver<u64> {
        self.returns.subscribe()
    }

    /// How each resolver does.
    pub fn status(&self) -> Vec<Status> {
        self.servers.load().iter().map(|server| server.status()).collect()
    }

    /// Looks for loops, probes resolvers that are down, follows `/etc/resolv.conf`; never ends.
    pub async fn keep_watch(self: Arc<Self>) {
        probe::keep_watch(&self).await;
    }

    /// Whom to ask, the likeliest first. Resolvers that are down are left out while others are up, and those that
    /// are ourselves while others are there.
    fn in_order_of_preference(&self) -> Servers {
        let servers = self.servers.load();
        let narrowed = |keep: &dyn Fn(&Server) -> bool| -> Servers {
            servers.iter().filter(|server| keep(server)).cloned().collect()
        };
        let mut chosen = narrowed(&|server| !server.is_loop() && server.is_up());
        if chosen.is_empty() {
            chosen = narrowed(&|server| !server.is_loop());
        }
        if chosen.is_empty() {
            chosen.extend(servers.iter().cloned());
        }
        chosen.sort_by_cached_key(|server| server.expected_round_trip());
        self.let_another_go_first(&mut chosen);
        chosen
    }

    /// Once in [`REMEASURE_EVERY`] queries, moves one of those behind the first to the front.
    fn let_another_go_first(&self, order: &mut [Arc<Server>]) {
        let (round, place) = {
            let nth = self.forwarded.fetch_add(1, Ordering::Relaxed) + 1;
            (nth / REMEASURE_EVERY, nth % REMEASURE_EVERY)
        };
        if place == 0 && order.len() > 1 {
            let another = 1 + round % (order.len() - 1);
            order[..=another].rotate_right(1);
        }
    }

    /// From now on these are asked. One that was asked before keeps what is known of it.
    fn name_servers(&self, addresses: &[SocketAddr]) {
        let known = self.servers.load();
        let mut servers: Vec<Arc<Server>> = Vec::with_capacity(addresses.len());
        for &address in addresses {
            if servers.iter().any(|server| server.address == address) {
                continue;
            }
            let kept = known.iter().find(|server| server.address == address).cloned();
            servers.push(kept.unwrap_or_else(|| self.server(address)));
        }
        self.servers.store(Arc::new(servers));
    }

    fn server(&self, address: SocketAddr) -> Arc<Server> {
        Arc::new(Server::new(address, &self.network, self.sockets_per_worker, Arc::clone(&self.returns)))
    }

    /// Looks at `/etc/resolv.conf`, where it is followed.
    fn follow(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let changed = file.lock().unwrap_or_else(PoisonError::into_inner).changed();
        if let Some(addresses) = &changed {
            tracing::info!(upstreams = ?addresses, "the system names these upstreams");
            self.name_servers(addresses);
        }
        changed.is_some()
    }
}
