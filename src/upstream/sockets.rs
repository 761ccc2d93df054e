//! The machine's own sockets.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UdpSocket};

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
        Ok(Box::new(Udp { socket: Arc::new(UdpSocket::from_std(socket.into())?), readiness: None }))
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

/// A connected UDP socket that hears of ICMP errors too. [`UdpSocket::poll_recv`] does not: such an error makes the
/// socket neither readable nor closed, and only a wait for [`Interest::ERROR`] sees it.
struct Udp {
    socket: Arc<UdpSocket>,
    readiness: Option<Readiness>,
}

impl fmt::Debug for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl Udp {
    fn poll_readiness(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        let readiness = self.readiness.get_or_insert_with(|| {
            let socket = Arc::clone(&self.socket);
            Box::pin(async move { socket.ready(Interest::READABLE | Interest::ERROR).await })
        });
        let ready = ready!(readiness.as_mut().poll(context));
        self.readiness = None;
        Poll::Ready(ready)
    }

    /// The error that the socket has; [`ErrorKind::WouldBlock`] where it has none.
    fn error(&self) -> io::Error {
        let none = || ErrorKind::WouldBlock.into();
        let taken = self.socket.try_io(Interest::ERROR, || Err(self.socket.take_error()?.unwrap_or_else(none)));
        taken.map_or_else(|error| error, |()| none())
    }
}

impl Datagrams for Udp {
    fn poll_send(&mut self, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<()>> {
        self.socket.poll_send(context, octets).map_ok(|_| ())
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let ready = ready!(self.poll_readiness(context))?;
            let received = match self.socket.try_recv_buf(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && ready.is_error() => Err(self.error()),
                received => received.map(|_| ()),
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
    use std::future::poll_fn;
    use std::net::UdpSocket as Blocking;

    use super::*;

    /// The ports that eight queries to `server` leave by.
    async fn ports(server: &Blocking) -> HashSet<u16> {
        let mut seen = HashSet::new();
        for _ in 0..8 {
            let mut socket = System.udp(server.local_addr().unwrap()).unwrap();
            poll_fn(|context| socket.poll_send(context, b"query")).await.unwrap();
            let mut buffer = [0; 8];
            seen.insert(server.recv_from(&mut buffer).unwrap().1.port());
        }
        seen
    }

    #[tokio::test]
    async fn ports_differ_from_query_to_query() {
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
