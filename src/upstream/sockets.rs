//! The machine's own sockets.

use std::io::{self, ErrorKind, Read as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};
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

/// The socket has an error.
type Trouble = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A connected UDP socket that hears of ICMP errors too: such an error makes the socket neither readable nor closed, and
/// only a wait for [`Interest::ERROR`] sees it. Of room to send it does not hear: each datagram sent would wake it.
struct Udp {
    socket: Arc<AsyncFd<Socket>>,
    /// Waits for the next error while datagrams come and go: one wait serves them all.
    trouble: Option<Trouble>,
}

impl Udp {
    #[allow(
        deprecated,
        reason = "what replaces it is unsafe, for descriptors that change hands; a Socket keeps its own"
    )]
    fn new(socket: Socket) -> io::Result<Self> {
        let interest = Interest::READABLE.add(Interest::ERROR);
        Ok(Self { socket: Arc::new(AsyncFd::with_interest(socket, interest)?), trouble: None })
    }

    /// Receives a datagram that is there, or is woken by the next.
    fn poll_datagram(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut readable = ready!(self.socket.poll_read_ready(context))?;
            let read = readable.try_io(|socket| socket.get_ref().read(buffer.initialize_unfilled()));
            if let Ok(received) = read {
                return Poll::Ready(received.map(|length| buffer.advance(length)));
            }
        }
    }

    /// The error that the socket has, or is woken by the next.
    fn poll_trouble(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            let trouble = self.trouble.get_or_insert_with(|| {
                let socket = Arc::clone(&self.socket);
                Box::pin(async move { socket.ready(Interest::ERROR).await.map(|_| ()) })
            });
            let seen = ready!(trouble.as_mut().poll(context));
            self.trouble = None;
            if let Err(error) = seen {
                return Poll::Ready(error);
            }
            // What was seen is forgotten where nothing is left of it.
            let none = || ErrorKind::WouldBlock.into();
            let taken = self.socket.try_io(Interest::ERROR, |socket| Err(socket.take_error()?.unwrap_or_else(none)));
            if let Err::<(), _>(error) = taken
                && error.kind() != ErrorKind::WouldBlock
            {
                return Poll::Ready(error);
            }
        }
    }
}

impl Datagrams for Udp {
    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.socket.get_ref().send(octets).map(|_| ())
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.poll_datagram(context, buffer) {
            Poll::Pending => self.poll_trouble(context).map(Err),
            received => received,
        }
    }

    /// Each datagram that comes is an event of its own, so none is missed; and to look for one that is not there costs
    /// a system call.
    fn expect_nothing(&mut self) {
        let _ = self.socket.try_io(Interest::READABLE, |_| Err::<(), _>(ErrorKind::WouldBlock.into()));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it skips")]
mod tests {
    use std::collections::HashSet;
    use std::future::poll_fn;
    use std::net::UdpSocket as Blocking;
    use std::time::Duration;

    use futures_util::future::poll_immediate;
    use tokio::time::timeout;

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
    async fn who_waits_for_datagrams_hears_of_errors_too() {
        let server = Blocking::bind("127.0.0.1:0").unwrap();
        let mut socket = System.udp(server.local_addr().unwrap()).unwrap();
        let mut space = [0; 8];
        for _ in 0..3 {
            socket.send(b"query").unwrap();
            let client = server.recv_from(&mut [0; 8]).unwrap().1;
            server.send_to(b"answer", client).unwrap();
            let mut buffer = ReadBuf::new(&mut space);
            poll_fn(|context| socket.poll_receive(context, &mut buffer)).await.unwrap();
            assert_eq!(buffer.filled(), b"answer");
        }
        let mut buffer = ReadBuf::new(&mut space);
        let mut heard = poll_fn(|context| socket.poll_receive(context, &mut buffer));
        assert!(poll_immediate(&mut heard).await.is_none());
        drop((heard, server));
        socket.send(b"query").unwrap();
        let heard = poll_fn(|context| socket.poll_receive(context, &mut buffer));
        let heard = timeout(Duration::from_secs(5), heard).await.unwrap();
        assert_eq!(heard.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(poll_immediate(poll_fn(|context| socket.poll_receive(context, &mut buffer))).await.is_none(), "once");
    }

    #[tokio::test]
    async fn what_was_not_looked_for_is_there_when_the_next_comes() {
        let server = Blocking::bind("127.0.0.1:0").unwrap();
        let mut socket = System.udp(server.local_addr().unwrap()).unwrap();
        socket.send(b"query").unwrap();
        let client = server.recv_from(&mut [0; 8]).unwrap().1;
        let mut space = [0; 8];
        let mut heard = Vec::new();
        let mut receive = async |until: usize, socket: &mut Box<dyn Datagrams>| {
            while heard.len() < until {
                let mut buffer = ReadBuf::new(&mut space);
                let received = poll_fn(|context| socket.poll_receive(context, &mut buffer));
                timeout(Duration::from_secs(5), received).await.unwrap().unwrap();
                heard.extend_from_slice(buffer.filled());
            }
            heard.clone()
        };
        server.send_to(b"a", client).unwrap();
        server.send_to(b"b", client).unwrap();
        assert_eq!(receive(1, &mut socket).await, b"a");
        socket.expect_nothing();
        let mut none = [0; 8];
        let mut buffer = ReadBuf::new(&mut none);
        assert!(poll_immediate(poll_fn(|context| socket.poll_receive(context, &mut buffer))).await.is_none());
        server.send_to(b"c", client).unwrap();
        assert_eq!(receive(3, &mut socket).await, b"abc");
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
