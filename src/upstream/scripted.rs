//! A network in memory: what each upstream does is a closure, and time is tokio's, paused or not.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::{Connecting, Datagrams, Network, Stream};

/// A query as it reached an upstream.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) server: SocketAddr,
    /// Since the script began.
    pub(super) at: Duration,
    /// The number of the TCP connection, from 0 over all upstreams; None over UDP.
    pub(super) connection: Option<usize>,
    /// How many queries this upstream got before, by the same transport.
    pub(super) nth: usize,
    pub(super) octets: Vec<u8>,
}

/// What an upstream does about a query.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// Sends these octets.
    Send(Vec<u8>),
    /// Over UDP: an ICMP error. Over TCP: closes.
    Refuse,
}

/// What an upstream does about a query, each after so many milliseconds.
pub(super) type Acts = Vec<(u64, Act)>;

type Behaviour = Box<dyn FnMut(&Asked) -> Acts + Send>;

/// The network. An upstream without a behaviour is silent over UDP and refuses TCP.
#[derive(Clone)]
pub(super) struct Script(Arc<Mutex<Inner>>);

struct Inner {
    start: Instant,
    udp: HashMap<SocketAddr, Behaviour>,
    tcp: HashMap<SocketAddr, Behaviour>,
    asked: Vec<Asked>,
    connections: usize,
    /// What making a UDP socket comes to.
    udp_error: Option<io::ErrorKind>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

impl Script {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            start: Instant::now(),
            udp: HashMap::new(),
            tcp: HashMap::new(),
            asked: Vec::new(),
            connections: 0,
            udp_error: None,
        })))
    }

    pub(super) fn network(&self) -> Arc<dyn Network> {
        Arc::new(self.clone())
    }

    pub(super) fn on_udp(&self, server: SocketAddr, behaviour: impl FnMut(&Asked) -> Acts + Send + 'static) {
        self.0.lock().unwrap().udp.insert(server, Box::new(behaviour));
    }

    pub(super) fn on_tcp(&self, server: SocketAddr, behaviour: impl FnMut(&Asked) -> Acts + Send + 'static) {
        self.0.lock().unwrap().tcp.insert(server, Box::new(behaviour));
    }

    pub(super) fn fail_sockets(&self, error: Option<io::ErrorKind>) {
        self.0.lock().unwrap().udp_error = error;
    }

    /// Every query so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().asked.clone()
    }

    fn act(&self, server: SocketAddr, connection: Option<usize>, octets: &[u8]) -> Acts {
        let mut inner = self.0.lock().unwrap();
        let like = |asked: &&Asked| asked.server == server && asked.connection.is_some() == connection.is_some();
        let nth = inner.asked.iter().filter(like).count();
        let asked = Asked { server, at: inner.start.elapsed(), connection, nth, octets: octets.to_vec() };
        inner.asked.push(asked.clone());
        let behaviours = if connection.is_some() { &mut inner.tcp } else { &mut inner.udp };
        behaviours.get_mut(&server).map(|behaviour| behaviour(&asked)).unwrap_or_default()
    }
}

impl Network for Script {
    fn udp(&self, server: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        if let Some(error) = self.0.lock().unwrap().udp_error {
            return Err(error.into());
        }
        Ok(Box::new(Socket { script: self.clone(), server, coming: Vec::new(), next: None, waker: None }))
    }

    fn tcp(&self, server: SocketAddr) -> Connecting {
        let script = self.clone();
        Box::pin(async move {
            let connection = {
                let mut inner = script.0.lock().unwrap();
                if !inner.tcp.contains_key(&server) {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                inner.connections += 1;
                inner.connections - 1
            };
            let (ours, theirs) = duplex(1 << 20);
            tokio::spawn(serve(script, server, connection, theirs));
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

async fn serve(script: Script, server: SocketAddr, connection: usize, stream: DuplexStream) {
    let (mut reader, writer) = tokio::io::split(stream);
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    while let Ok(length) = reader.read_u16().await {
        let mut octets = vec![0; usize::from(length)];
        if reader.read_exact(&mut octets).await.is_err() {
            return;
        }
        for (after, act) in script.act(server, Some(connection), &octets) {
            let writer = Arc::clone(&writer);
            tokio::spawn(async move {
                sleep(Duration::from_millis(after)).await;
                let mut writer = writer.lock().await;
                let _ = match act {
                    Act::Send(octets) => {
                        writer.write_all(&[&(octets.len() as u16).to_be_bytes(), &octets[..]].concat()).await
                    }
                    Act::Refuse => writer.shutdown().await,
                };
            });
        }
    }
}

/// A UDP socket; `coming` is what is on its way to it.
struct Socket {
    script: Script,
    server: SocketAddr,
    coming: Vec<(Instant, Act)>,
    next: Option<Pin<Box<Sleep>>>,
    waker: Option<Waker>,
}

impl Datagrams for Socket {
    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        let acts = self.script.act(self.server, None, octets);
        self.coming.extend(acts.into_iter().map(|(after, act)| (Instant::now() + Duration::from_millis(after), act)));
        self.coming.sort_by_key(|(at, _)| *at);
        self.waker.take().into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.waker = Some(context.waker().clone());
        let Some((at, _)) = self.coming.first() else { return Poll::Pending };
        let next = self.next.insert(Box::pin(sleep_until(*at)));
        if next.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        match self.coming.remove(0).1 {
            Act::Send(octets) => {
                buffer.put_slice(&octets);
                Poll::Ready(Ok(()))
            }
            Act::Refuse => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
        }
    }
}
