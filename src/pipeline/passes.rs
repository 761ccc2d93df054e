//! The sockets that probes of our own ask from, and the countries they ask as.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::policy::origin::Country;

/// The passes that are held now. Nothing that comes over a connection makes one.
#[derive(Debug, Default)]
pub(super) struct Passes {
    /// How many there are: read at each accept, which takes the lock only where there are any.
    count: AtomicUsize,
    /// As many as probes are under way at a time, which is a handful.
    held: Mutex<Vec<Held>>,
}

#[derive(Debug)]
struct Held {
    number: u64,
    from: (IpAddr, u16),
    country: Option<Country>,
}

/// The registration of a probe's socket; dropped, it is gone. Hold it for as long as the socket is open, since whoever
/// has the address and port next is no probe.
#[derive(Debug)]
#[must_use = "dropped, the probe is a client like any other"]
pub struct ProbePass {
    passes: Arc<Passes>,
    number: u64,
}

impl Passes {
    /// Registers the socket bound to `local`, which is to ask as a client of `country`.
    pub(super) fn register(self: &Arc<Self>, local: SocketAddr, country: Option<Country>) -> ProbePass {
        let mut held = self.held();
        let number = held.last().map_or(0, |last| last.number + 1);
        held.push(Held { number, from: ends(local), country });
        self.count.store(held.len(), Ordering::Release);
        ProbePass { passes: Arc::clone(self), number }
    }

    /// As what a probe at `peer` asks; None: it is no probe.
    pub(super) fn of(&self, peer: SocketAddr) -> Option<Option<Country>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let from = ends(peer);
        self.held().iter().rev().find(|held| held.from == from).map(|held| held.country)
    }

    /// The list is whole between any two statements, so a panic elsewhere leaves nothing to mend.
    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ProbePass {
    fn drop(&mut self) {
        let mut held = self.passes.held();
        held.retain(|held| held.number != self.number);
        self.passes.count.store(held.len(), Ordering::Release);
    }
}

/// What two names of one socket have in common: neither a scope nor whether IPv4 is written as IPv6.
fn ends(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_pass_holds_until_it_is_dropped() {
        let passes = Arc::<Passes>::default();
        let italy = Country::from_code("IT");
        assert_eq!(passes.of(at("127.0.0.1:4000")), None);
        let (inside, outside) =
            (passes.register(at("127.0.0.1:4000"), italy), passes.register(at("127.0.0.1:4001"), None));
        assert_eq!(passes.of(at("127.0.0.1:4000")), Some(italy));
        assert_eq!(passes.of(at("[::ffff:127.0.0.1]:4000")), Some(italy));
        assert_eq!(passes.of(at("127.0.0.1:4001")), Some(None), "of an unknown country");
        for other in ["127.0.0.1:4002", "127.0.0.2:4000", "[::1]:4000"] {
            assert_eq!(passes.of(at(other)), None, "{other}");
        }
        drop(inside);
        assert_eq!(passes.of(at("127.0.0.1:4000")), None, "a port used again is a client's");
        assert_eq!(passes.of(at("127.0.0.1:4001")), Some(None));
        drop(outside);
        assert_eq!(passes.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_a_pass_no_lock_is_taken() {
        let passes = Arc::<Passes>::default();
        drop(passes.register(at("127.0.0.1:4000"), None));
        // Taking it twice would wait for ever.
        let _held = passes.held();
        assert_eq!(passes.of(at("127.0.0.1:4000")), None);
    }

    #[test]
    fn a_pass_goes_wherever_its_probe_does() {
        let pass = Arc::<Passes>::default().register(at("127.0.0.1:4000"), None);
        std::thread::spawn(move || drop(pass)).join().unwrap();
    }

    #[test]
    fn a_port_registered_again_outlives_the_pass_before() {
        let passes = Arc::<Passes>::default();
        let (italy, germany) = (Country::from_code("IT"), Country::from_code("DE"));
        let first = passes.register(at("127.0.0.1:4000"), italy);
        let second = passes.register(at("127.0.0.1:4000"), germany);
        drop(first);
        assert_eq!(passes.of(at("127.0.0.1:4000")), Some(germany));
        drop(second);
        assert_eq!(passes.of(at("127.0.0.1:4000")), None);
    }
}
