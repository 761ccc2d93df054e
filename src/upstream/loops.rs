//! Nonces that come back to us where an upstream is ourselves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::server::Server;
use crate::dns::Name;

/// The zone that nonces are below, in wire form. Nothing is registered there. It is not one of the names that stub
/// resolvers and forwarders answer themselves (`.test`, `.invalid`, `home.arpa`, `resolver.arpa`), so they pass it on;
/// and a recursive resolver ends at the servers of `arpa`, with NXDOMAIN.
pub(super) const ZONE: &[u8] = b"\x0ebailiwick-loop\x04arpa\x00";

/// Labels of [`ZONE`].
const ZONE_LABELS: usize = 2;

/// Nonces that are remembered; the oldest is forgotten for a new one. More than one round of probes needs.
const NONCES_MAX: usize = 64;

/// The nonces that were sent out lately.
#[derive(Debug, Default)]
pub(super) struct Nonces(Mutex<VecDeque<Nonce>>);

/// A name that nobody but us knows, and who was asked for it.
#[derive(Debug)]
struct Nonce {
    qname: Name,
    server: Arc<Server>,
    seen: Arc<AtomicBool>,
}

impl Nonces {
    /// A new name to ask `server` for, and whether it came back.
    pub(super) fn send_out(&self, server: &Arc<Server>) -> (Name, Arc<AtomicBool>) {
        let (qname, seen) = (random_name(), Arc::<AtomicBool>::default());
        let nonce = Nonce { qname: qname.clone(), server: Arc::clone(server), seen: Arc::clone(&seen) };
        let mut nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if nonces.len() >= NONCES_MAX {
            nonces.pop_front();
        }
        nonces.push_back(nonce);
        (qname, seen)
    }

    /// Whether `qname` is a nonce of ours. The upstream that was asked for it is then known to be ourselves.
    pub(super) fn came_back(&self, qname: &Name) -> bool {
        if qname.labels() != ZONE_LABELS + 1 || qname.suffix(ZONE_LABELS) != ZONE {
            return false;
        }
        let nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(nonce) = nonces.iter().find(|nonce| nonce.qname == *qname) else { return false };
        nonce.seen.store(true, Ordering::Relaxed);
        nonce.server.set_loop(true);
        true
    }
}

/// 32 random hexadecimal digits below [`ZONE`].
fn random_name() -> Name {
    let digits = format!("{:032x}", rand::random::<u128>());
    let mut wire = vec![digits.len() as u8];
    wire.extend_from_slice(digits.as_bytes());
    wire.extend_from_slice(ZONE);
    // Three labels of legal lengths are a name.
    Name::parse(&wire, 0).map_or_else(|_| Name::root(), |(name, _)| name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::upstream::scripted::Script;

    fn server() -> Arc<Server> {
        let script = Script::new();
        Arc::new(Server::new("192.0.2.1:53".parse().unwrap(), &script.network(), 1, Arc::new(watch::Sender::new(0))))
    }

    #[test]
    fn a_nonce_is_32_digits_below_the_zone() {
        let name = random_name();
        let text = name.to_string();
        let (digits, zone) = text.split_once('.').unwrap();
        assert_eq!((digits.len(), zone), (32, "bailiwick-loop.arpa"));
        assert!(digits.bytes().all(|octet| octet.is_ascii_hexdigit()));
        assert_ne!(name, random_name());
    }

    #[test]
    fn only_our_own_nonces_count() {
        let (nonces, server) = (Nonces::default(), server());
        let (name, seen) = nonces.send_out(&server);
        assert!(!nonces.came_back(&random_name()) && !nonces.came_back(&Name::root()) && !server.is_loop());
        assert!(nonces.came_back(&name) && seen.load(Ordering::Relaxed) && server.is_loop());
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (nonces, server) = (Nonces::default(), server());
        let names: Vec<Name> = (0..=NONCES_MAX).map(|_| nonces.send_out(&server).0).collect();
        assert!(!nonces.came_back(&names[0]));
        assert!(nonces.came_back(&names[1]) && nonces.came_back(&names[NONCES_MAX]));
    }
}
