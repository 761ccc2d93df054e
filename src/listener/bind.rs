//! Opens the listening sockets, one set per worker.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol as Ip, Socket, Type};

use super::{Inlet, Place, Settings};
use crate::telemetry::Protocol;

/// Connections that wait for an accept, per socket; the machine may cut it (`net.core.somaxconn`).
pub const BACKLOG: i32 = 1_024;

/// Linux's error number where the machine has no IPv6 at all; it has no [`io::ErrorKind`].
const EAFNOSUPPORT: i32 = 97;

/// The listening sockets of one worker.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<(Inlet, TcpListener)>,
}

impl Bound {
    /// Where it listens, real ports where port 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Protocol, SocketAddr)> {
        self.inlets().map(|(inlet, address)| (inlet.protocol, address)).collect()
    }

    fn inlets(&self) -> impl Iterator<Item = (Inlet, SocketAddr)> {
        self.sockets.iter().filter_map(|(inlet, socket)| Some((*inlet, socket.local_addr().ok()?)))
    }

    /// The sockets, watched by the runtime that this is called on.
    pub(super) fn into_listeners(self) -> io::Result<Vec<(Inlet, tokio::net::TcpListener)>> {
        let watched = |(inlet, socket)| Ok((inlet, tokio::net::TcpListener::from_std(socket)?));
        self.sockets.into_iter().map(watched).collect()
    }
}

/// Why a socket cannot listen. Its `Display` is one line: what, where, and what to do.
#[derive(Debug)]
pub struct BindError {
    /// For what.
    pub protocol: Protocol,
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, address, error } = self;
        let (name, key) = words(*protocol);
        write!(f, "cannot listen for {name} on {address}: ")?;
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "another program listens there; stop it or change [listen] {key}")
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "ports below 1024 take a privilege; grant CAP_NET_BIND_SERVICE or change [listen] {key}")
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "this machine does not have that address; give it the address or change [listen] {key}")
            }
            _ => write!(f, "{error}; change [listen] {key}"),
        }
    }
}

impl std::error::Error for BindError {}

/// What a protocol is called, and its key under `[listen]`.
const fn words(protocol: Protocol) -> (&'static str, &'static str) {
    match protocol {
        Protocol::Dot => ("DoT", "dot"),
        Protocol::Doh => ("DoH", "doh"),
    }
}

/// Opens the sockets of `[listen]` for each of `workers` (at least one). The kernel spreads connections over the
/// workers (`SO_REUSEPORT`). With port 0 all workers get the same port, one that was free.
///
/// An IPv6 address that this machine does not have is passed over with a warning, so that one configuration serves
/// machines with and without IPv6, as long as the protocol has another address.
///
/// # Errors
/// When an address is in use, may not be used, or is not this machine's.
pub fn bind(settings: &Settings, workers: usize) -> Result<Vec<Bound>, BindError> {
    let mut first = open_all(Protocol::Doh, &settings.doh)?;
    first.extend(open_all(Protocol::Dot, &settings.dot)?);
    let first = Bound { sockets: first };
    let inlets: Vec<_> = first.inlets().collect();
    let others = (1..workers).map(|_| open_again(&inlets)).collect::<Result<Vec<_>, _>>()?;
    Ok(std::iter::once(first).chain(others).collect())
}

/// Opens the first worker's sockets for one protocol.
fn open_all(protocol: Protocol, places: &[Place]) -> Result<Vec<(Inlet, TcpListener)>, BindError> {
    let mut sockets = Vec::new();
    let mut missing = Vec::new();
    for &Place { address, country } in places {
        match open_unused(address) {
            Ok(socket) => sockets.push((Inlet { protocol, country }, socket)),
            Err(error) if is_missing(address, &error) => missing.push(BindError { protocol, address, error }),
            Err(error) => return Err(BindError { protocol, address, error }),
        }
    }
    if sockets.is_empty()
        && let Some(error) = missing.pop()
    {
        return Err(error);
    }
    for error in missing {
        tracing::warn!("{error}; it is passed over");
    }
    Ok(sockets)
}

/// Opens another worker's sockets, where the first worker's are.
fn open_again(inlets: &[(Inlet, SocketAddr)]) -> Result<Bound, BindError> {
    let open_one = |&(inlet, address): &(Inlet, SocketAddr)| match open(address) {
        Ok(socket) => Ok((inlet, socket)),
        Err(error) => Err(BindError { protocol: inlet.protocol, address, error }),
    };
    Ok(Bound { sockets: inlets.iter().map(open_one).collect::<Result<_, _>>()? })
}

/// Whether this is an IPv6 address that the machine does not have.
fn is_missing(address: SocketAddr, error: &io::Error) -> bool {
    let is_absent = error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT);
    address.is_ipv6() && is_absent
}

/// Opens a socket where nobody listens yet.
fn open_unused(address: SocketAddr) -> io::Result<TcpListener> {
    if address.port() != 0 {
        // SO_REUSEPORT would let us in beside another process of our own user, a Bailiwick that still runs, say, and
        // half of the connections would go there. A socket without it is not let in beside a listening one.
        socket(address)?.bind(&address.into())?;
    }
    open(address)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Ip::TCP))?;
    if address.is_ipv6() {
        // 0.0.0.0 and [::] stand beside each other, whatever the machine's default.
        socket.set_only_v6(true)?;
    }
    // A restart does not wait for the connections of before, which linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::listener::trust::Prefixes;

    fn settings(dot: &[&str]) -> Settings {
        Settings {
            doh: Vec::new(),
            dot: dot.iter().map(|address| address.parse::<SocketAddr>().unwrap().into()).collect(),
            proxy_from: Prefixes::default(),
            forwarded_from: Prefixes::default(),
            doh_path: String::new(),
            connections: 0,
            connections_per_client: 0,
            queries_per_second_per_client: 0,
            in_flight_per_connection: 0,
            handshake_timeout: Duration::ZERO,
            message_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            drain_timeout: Duration::ZERO,
        }
    }

    #[test]
    fn workers_share_the_port_that_the_kernel_chose() {
        let bound = bind(&settings(&["127.0.0.1:0", "127.0.0.2:0"]), 3).unwrap();
        assert_eq!(bound.len(), 3);
        let addresses = bound[0].addresses();
        assert_eq!(addresses.len(), 2);
        assert!(addresses.iter().all(|(protocol, address)| *protocol == Protocol::Dot && address.port() != 0));
        assert!(bound.iter().all(|bound| bound.addresses() == addresses));
        TcpStream::connect(addresses[1].1).unwrap();
    }

    #[test]
    fn a_second_server_is_noticed() {
        let running = bind(&settings(&["127.0.0.1:0"]), 2).unwrap();
        let address = running[0].addresses()[0].1;
        let error = bind(&settings(&[&address.to_string()]), 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot listen for DoT on {address}: another program listens there; stop it or change [listen] dot"
            )
        );
        drop(running);
        bind(&settings(&[&address.to_string()]), 2).unwrap();
    }

    #[test]
    fn another_program_is_noticed() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap().to_string();
        assert_eq!(bind(&settings(&[&address]), 1).unwrap_err().error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_a_connection_left_behind_is_not_a_server() {
        let first = bind(&settings(&["127.0.0.1:0"]), 1).unwrap();
        let address = first[0].addresses()[0].1;
        let client = TcpStream::connect(address).unwrap();
        let (accepted, _) = loop {
            if let Ok(accepted) = first[0].sockets[0].1.accept() {
                break accepted;
            }
        };
        // The side that closes first keeps the port in TIME_WAIT.
        drop((accepted, first));
        drop(client);
        bind(&settings(&[&address.to_string()]), 1).unwrap();
    }

    #[test]
    fn an_ipv6_address_that_is_missing_is_passed_over() {
        // 2001:db8::/32 is for documentation (RFC 3849): no machine has it.
        let bound = bind(&settings(&["[2001:db8::1]:0", "127.0.0.1:0"]), 1).unwrap();
        assert_eq!(bound[0].addresses().len(), 1);
        let alone = bind(&settings(&["[2001:db8::1]:0"]), 1).unwrap_err();
        assert!(alone.to_string().starts_with("cannot listen for DoT on [2001:db8::1]:0: "), "{alone}");
    }

    #[test]
    fn an_ipv4_address_that_is_missing_is_an_error() {
        let error = bind(&settings(&["192.0.2.1:0", "127.0.0.1:0"]), 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot listen for DoT on 192.0.2.1:0: this machine does not have that address; \
             give it the address or change [listen] dot"
        );
    }

    #[test]
    fn a_privileged_port_is_explained() {
        let error = BindError {
            protocol: Protocol::Doh,
            address: "0.0.0.0:443".parse().unwrap(),
            error: io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(
            error.to_string(),
            "cannot listen for DoH on 0.0.0.0:443: ports below 1024 take a privilege; \
             grant CAP_NET_BIND_SERVICE or change [listen] doh"
        );
    }
}
