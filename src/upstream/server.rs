//! One upstream resolver: its address, its connections and what is known of it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::RandomState;
use smallvec::SmallVec;
use tokio::sync::watch;
use tokio::time::Instant;

use super::counters::{Counters, count};
use super::health::{Change, Health};
use super::ports::Ports;
use super::question::Question;
use super::tcp::Lines;
use super::{Network, Status};
use crate::query::{Failure, Reply};

/// What an upstream that had to be corrected by another is taken to have needed.
const CORRECTED: Duration = Duration::from_secs(1);

/// Some of the upstreams, nearly always one.
pub(super) type Servers = SmallVec<[Arc<Server>; 1]>;

/// One upstream resolver.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) network: Arc<dyn Network>,
    pub(super) ports: Ports,
    pub(super) lines: Lines,
    pub(super) counters: Arc<Counters>,
    health: Mutex<Health>,
    /// Names are remembered by a keyed hash only, and only while they are unanswered.
    hasher: RandomState,
    is_loop: AtomicBool,
    /// It answered a question whose nonce did not come back.
    is_vouched_for: AtomicBool,
    returns: Arc<watch::Sender<u64>>,
}

impl Server {
    pub(super) fn new(
        address: SocketAddr,
        network: &Arc<dyn Network>,
        sockets_per_worker: usize,
        returns: Arc<watch::Sender<u64>>,
    ) -> Self {
        let counters = Arc::default();
        Self {
            address,
            network: Arc::clone(network),
            ports: Ports::new(address, network, &counters, sockets_per_worker),
            lines: Lines::new(address, network),
            counters,
            health: Mutex::new(Health::new()),
            hasher: RandomState::new(),
            is_loop: AtomicBool::new(false),
            is_vouched_for: AtomicBool::new(false),
            returns,
        }
    }

    /// What a try has come to that began at `since` is remembered.
    pub(super) fn remember(&self, question: Question<'_>, since: Instant, outcome: &Result<Reply<'static>, Failure>) {
        let now = Instant::now();
        match outcome {
            Ok(_) => {
                self.counters.answered(now - since);
                let change = self.health().answered(now - since, now);
                self.tell(change);
            }
            Err(Failure::Timeout) => {
                count(&self.counters.timeouts);
                let name = self.hasher.hash_one(question.qname);
                let change = self.health().silent(name, since, now);
                self.tell(change);
            }
            Err(Failure::Upstream(_)) => count(&self.counters.error_rcodes),
            Err(Failure::Network) => count(&self.counters.network_errors),
            Err(Failure::Overloaded | Failure::NoUpstream | Failure::Internal) => {}
        }
    }

    /// Something that matches came from it.
    pub(super) fn heard(&self) {
        let change = self.health().heard(Instant::now());
        self.tell(change);
    }

    /// The network refused. What the machine itself lacks (descriptors, ports) is not held against the upstream.
    pub(super) fn refused(&self, error: ErrorKind) {
        let of_the_way = [
            ErrorKind::ConnectionRefused,
            ErrorKind::ConnectionReset,
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
        ];
        if of_the_way.contains(&error) {
            let change = self.health().refused();
            self.tell(change);
        }
    }

    /// Another upstream answered, or answered better, while this one had so long.
    pub(super) fn slower_than(&self, waited: Duration) {
        self.health().slower_than(waited);
    }

    /// Another upstream answered well what this one answered with an error: it is not preferred for its speed.
    pub(super) fn corrected(&self) {
        self.slower_than(CORRECTED);
    }

    fn tell(&self, change: Option<Change>) {
        match change {
            None => {}
            Some(Change::Down) => tracing::warn!(upstream = %self.address, "upstream is down: it does not answer"),
            Some(Change::Up) => {
                tracing::info!(upstream = %self.address, "upstream is back");
                self.returns.send_modify(|returns| *returns = returns.wrapping_add(1));
            }
        }
    }

    /// The nonce of a loop probe came back to us, or no longer does.
    pub(super) fn set_loop(&self, is_loop: bool) {
        if self.is_loop.swap(is_loop, Ordering::Relaxed) == is_loop {
            return;
        }
        if is_loop {
            self.is_vouched_for.store(false, Ordering::Relaxed);
            tracing::warn!(upstream = %self.address, "upstream is this very service: what it is asked comes back here");
        } else {
            tracing::info!(upstream = %self.address, "upstream no longer leads back here");
        }
    }

    /// It answered, and what it was asked did not come back to us.
    pub(super) fn vouch_for(&self) {
        self.is_vouched_for.store(true, Ordering::Relaxed);
        self.set_loop(false);
    }

    pub(super) fn is_vouched_for(&self) -> bool {
        self.is_vouched_for.load(Ordering::Relaxed)
    }

    pub(super) fn is_loop(&self) -> bool {
        self.is_loop.load(Ordering::Relaxed)
    }

    pub(super) fn is_up(&self) -> bool {
        self.health().is_up()
    }

    pub(super) fn expected_round_trip(&self) -> Duration {
        self.health().expected_round_trip()
    }

    pub(super) fn patience(&self) -> Duration {
        self.health().patience()
    }

    pub(super) fn status(&self) -> Status {
        let (up, round_trip) = {
            let health = self.health();
            (health.is_up(), health.round_trip())
        };
        Status { server: self.address, up, is_loop: self.is_loop(), round_trip, counts: self.counters.read() }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Nothing under this lock can panic halfway.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
