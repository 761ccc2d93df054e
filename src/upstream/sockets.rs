//! The machine's own sockets.

use std::io::{self, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf, Ready};
use tokio::net::TcpStream;

use super::{Connecting, Datagrams, Network, Stream};

/// The machine's own sockets.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl Network for System {
    fn udp(&self, server: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        let socket = Socket::new(Domain::for_address(server), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        // An unbound socket gets its port here. Linux takes it uniformly at random from ip_local_port_range
        // (udp_lib_get_port; from its CSPRNG since 5.19), and passes over those in use.
        socket.connect(&server.into())?;
        Ok(Box::new(Udp::new(socket)?))
    }

    fn tcp(&self, server: SocketAddr) -> Connecting {
        Box::pin(async move {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// The socket has something to say.
type Readiness = Pin<Box<dyn Future<Output = io::Result<Ready>> + Send>>;

/// A connected UDP socket that hears of ICMP errors too: such an error makes the socket neither readable nor closed, and
/// only a wait for [`Interest::ERROR`] sees it. Of room to send it does not hear: each datagram sent would wake it.
struct Udp {
    socket: Arc<AsyncFd<Socket>>,
    readiness: Option<Readiness>,
}

impl Udp {
    const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

    #[allow(
        deprecated,
        reason = "what replaces it is unsafe, for descriptors that change hands; a Socket keeps its own"
    )]
    fn new(socket: Socket) -> io::Result<Self> {
        Ok(Self { socket: Arc::new(AsyncFd::with_interest(socket, Self::INTEREST)?), readiness: None })
    }

    fn poll_readiness(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        let readiness = self.readiness.get_or_insert_with(|| {
            let socket = Arc::clone(&self.socket);
            Box::pin(async move { Ok(socket.ready(Self::INTEREST).await?.ready()) })
        });
        let ready = ready!(readiness.as_mut().poll(context));
        self.readiness = None;
        Poll::Ready(ready)
    }

    /// The error that the socket has; [`ErrorKind::WouldBlock`] where it has none.
    fn error(&self) -> io::Error {
        let none = || ErrorKind::WouldBlock.into();
        let taken = self.socket.try_io(Interest::ERROR, |socket| Err(socket.take_error()?.unwrap_or_else(none)));
        taken.map_or_else(|error| error, |()| none())
    }
}

impl Datagrams for Udp {
    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send(octets).map(|_| ())
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let ready = ready!(self.poll_readiness(context))?;
            let read = |socket: &Socket| (&*socket).read(buffer.initialize_unfilled());
            let received = match self.socket.try_io(Interest::READABLE, read) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && ready.is_error() => Err(self.error()),
                received => received.map(|length| buffer.advance(length)),
            };
            match received {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it skips")]
mod tests {
    use std::collections::HashSet;
    use std::net::UdpSocket as Blocking;

    use super::*;

    /// The ports of eight sockets to `server`.
    async fn ports(server: &Blocking) -> HashSet<u16> {
        let mut seen = HashSet::new();
        for _ in 0..8 {
            let mut socket = System.udp(server.local_addr().unwrap()).unwrap();
            socket.send(b"query").unwrap();
            let mut buffer = [0; 8];
            seen.insert(server.recv_from(&mut buffer).unwrap().1.port());
        }
        seen
    }

    #[tokio::test]
    async fn ports_differ_from_socket_to_socket() {
        let server = Blocking::bind("127.0.0.1:0").unwrap();
        let seen = ports(&server).await;
        // Eight draws from at least a thousand ports: all alike, or in a row, is as good as impossible.
        let least = seen.iter().min().unwrap();
        let most = seen.iter().max().unwrap();
        assert!(seen.len() > 4 && most - least > 16, "{seen:?}");
    }

    #[tokio::test]
    async fn ipv6_is_spoken_where_the_machine_has_it() {
        let Ok(server) = Blocking::bind("[::1]:0") else {
            eprintln!("skipped: this machine has no IPv6 loopback");
            return;
        };
        assert!(ports(&server).await.len() > 4);
    }
}
