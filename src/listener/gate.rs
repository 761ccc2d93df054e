//! Bounds how many connections are open, in all and of one client.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

use crate::telemetry::Bound;

/// As whom a client counts: its IPv4 address or its IPv6 /56, which is what a subscriber is commonly given.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(u64);

impl ClientKey {
    /// The key of the client at an address. An IPv4 address written as an IPv6 one is the IPv4 address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(address.to_bits()) << 8 | 4),
            IpAddr::V6(address) => Self(((address.to_bits() >> 72) as u64) << 8 | 6),
        }
    }
}

/// Says nothing: a client's address is never written anywhere.
impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey")
    }
}

/// The places for connections, of all workers together.
#[derive(Debug)]
pub struct Gate {
    connections_max: usize,
    connections_per_client_max: usize,
    open: AtomicUsize,
    /// Clients with connections open, and how many; no client has 0, so `connections_max` bounds this too.
    clients: Mutex<HashMap<ClientKey, usize, RandomState>>,
}

impl Gate {
    /// All places free; 0: no limit.
    #[must_use]
    pub fn new(connections_max: usize, connections_per_client_max: usize) -> Arc<Self> {
        let open = AtomicUsize::new(0);
        Arc::new(Self { connections_max, connections_per_client_max, open, clients: Mutex::default() })
    }

    /// Takes a place for a connection. It is free again when the permit is dropped.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn enter(self: &Arc<Self>) -> Result<Permit, Bound> {
        let next = |open| (self.connections_max == 0 || open < self.connections_max).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).map_err(|_| Bound::Connections)?;
        Ok(Permit { gate: Arc::clone(self), has_place: true, client: None })
    }

    /// Lets a connection in beside all bounds: a probe of our own, of which one is open at a time. It takes no client's
    /// place, and a full house keeps nobody from looking whether orders are carried out.
    pub fn enter_beside(self: &Arc<Self>) -> Permit {
        Permit { gate: Arc::clone(self), has_place: false, client: None }
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn enter_as(&self, client: ClientKey) -> Result<(), Bound> {
        let mut clients = self.clients();
        let open = clients.entry(client).or_insert(0);
        if *open >= self.connections_per_client_max {
            return Err(Bound::ConnectionsPerClient);
        }
        *open += 1;
        Ok(())
    }

    fn leave_as(&self, client: ClientKey) {
        let mut clients = self.clients();
        if let Some(open) = clients.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                clients.remove(&client);
            }
        }
    }

    /// The counts are sound between any two statements above: a panic elsewhere does not spoil them.
    fn clients(&self) -> MutexGuard<'_, HashMap<ClientKey, usize, RandomState>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for a connection, free again when this is dropped.
#[derive(Debug)]
#[must_use = "the place is free again when the permit is dropped"]
pub struct Permit {
    gate: Arc<Gate>,
    /// Whether it counts among the open connections.
    has_place: bool,
    client: Option<ClientKey>,
}

impl Permit {
    /// Takes one of this client's own places too, once it is known who that is. What stands for many clients, as a
    /// proxy does, has no such bound: it takes none.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn claim(&mut self, client: ClientKey) -> Result<(), Bound> {
        if self.gate.connections_per_client_max > 0 && self.client.is_none() {
            self.gate.enter_as(client)?;
            self.client = Some(client);
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.gate.leave_as(client);
        }
        if self.has_place {
            self.gate.open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn key(address: &str) -> ClientKey {
        ClientKey::of(address.parse().unwrap())
    }

    fn enter(gate: &Arc<Gate>, client: ClientKey) -> Result<Permit, Bound> {
        let mut permit = gate.enter()?;
        permit.claim(client).map(|()| permit)
    }

    #[test]
    fn a_probe_is_let_in_where_all_places_are_taken_and_takes_none() {
        let gate = Gate::new(1, 1);
        let _all = gate.enter().unwrap();
        assert_eq!(gate.enter().unwrap_err(), Bound::Connections);
        let probe = gate.enter_beside();
        assert_eq!(gate.open(), 1);
        drop(probe);
        assert_eq!((gate.open(), gate.enter().unwrap_err()), (1, Bound::Connections));
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_56() {
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_eq!(key("2001:db8:0:ff01::1"), key("2001:db8:0:ffff:f::2"));
        assert_ne!(key("2001:db8:0:ff01::1"), key("2001:db8:0:fe01::1"));
        assert_ne!(key("::c000:201:0:0:0"), key("192.0.2.1"));
    }

    #[test]
    fn a_key_does_not_tell_its_address() {
        assert_eq!(format!("{:?}", key("192.0.2.1")), "ClientKey");
    }

    #[test]
    fn the_bound_on_all_refuses_the_next_and_recovers() {
        let gate = Gate::new(2, 0);
        let first = enter(&gate, key("192.0.2.1")).unwrap();
        let second = enter(&gate, key("192.0.2.1")).unwrap();
        assert_eq!(enter(&gate, key("192.0.2.2")).err(), Some(Bound::Connections));
        drop(first);
        let third = enter(&gate, key("192.0.2.2")).unwrap();
        assert_eq!(gate.open(), 2);
        drop((second, third));
        assert_eq!(gate.open(), 0);
    }

    #[test]
    fn the_bound_per_client_refuses_that_client_only_and_recovers() {
        let gate = Gate::new(0, 2);
        let first = enter(&gate, key("2001:db8::1")).unwrap();
        let second = enter(&gate, key("2001:db8::2")).unwrap();
        assert_eq!(enter(&gate, key("2001:db8::3")).err(), Some(Bound::ConnectionsPerClient));
        let other = enter(&gate, key("2001:db8:0:100::1")).unwrap();
        drop(second);
        let third = enter(&gate, key("2001:db8::3")).unwrap();
        drop((first, other, third));
        assert_eq!((gate.open(), gate.clients().len()), (0, 0));
    }

    #[test]
    fn who_claims_nothing_has_no_bound_of_its_own() {
        let gate = Gate::new(3, 1);
        let _proxy = [(); 2].map(|()| gate.enter().unwrap());
        let _client = enter(&gate, key("192.0.2.1")).unwrap();
        assert_eq!(gate.enter().err(), Some(Bound::Connections), "but for the one on all");
        assert_eq!(gate.clients().len(), 1);
    }

    #[test]
    fn a_refusal_takes_no_place() {
        let gate = Gate::new(1, 1);
        let _held = enter(&gate, key("192.0.2.1")).unwrap();
        for _ in 0..3 {
            assert!(enter(&gate, key("192.0.2.2")).is_err());
        }
        assert_eq!((gate.open(), gate.clients().len()), (1, 1));
    }
}
