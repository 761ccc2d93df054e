//! A connection: a socket, TLS over it, and what is spoken inside.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};

use super::desk::Desk;
use super::dot::Dot;
use super::exchange::Asked;
use super::histogram::Nanos;
use super::http2::Http2;
use super::http2::request::Shape;
use super::tls::{Step, Tls};

/// Where connections go, and how.
#[derive(Debug)]
pub struct Way {
    /// The server.
    pub address: SocketAddr,
    /// Its name.
    pub name: ServerName<'static>,
    /// Whom we trust.
    pub config: Arc<ClientConfig>,
    /// DoH's requests; None: DoT.
    pub shape: Option<Rc<Shape>>,
}

/// Why a connection has ended.
#[derive(Debug)]
pub enum End {
    /// It was never made.
    Connect(io::Error),
    /// TLS failed.
    Tls(rustls::Error),
    /// The server ended it before TLS was there, or spoke something else inside.
    Handshake(&'static str),
    /// What came is not what should be spoken here.
    Fault(&'static str),
    /// The server has ended it.
    Closed,
    /// Nothing more is asked on it.
    Spent,
}

impl From<rustls::Error> for End {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialing,
    Shaking,
    Open,
}

/// What is spoken inside TLS.
#[derive(Debug)]
enum Speech {
    Dot(Dot),
    Doh(Box<Http2>, Rc<Shape>),
}

/// A connection to the server.
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    tls: Tls,
    speech: Speech,
    stage: Stage,
    /// What is to be sealed and sent.
    out: Vec<u8>,
    dialed: Nanos,
    opened: Nanos,
    asked: u64,
    is_answered: bool,
}

impl Connection {
    /// Begins a connection from a local address, or whichever is usual.
    ///
    /// # Errors
    /// When there is no socket, or no port, for it.
    pub fn dial(way: &Way, from: Option<IpAddr>, registry: &Registry, token: Token, now: Nanos) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(way.address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Queries are too few octets to fill a link. One that measures and paces takes time at each write for nothing;
        // where this one is not to be had, the usual one does.
        let _ = socket.set_tcp_congestion(b"reno");
        if let Some(from) = from {
            let said = |error: io::Error| io::Error::new(error.kind(), format!("--source {from}: {error}"));
            socket.bind(&SocketAddr::new(from, 0).into()).map_err(said)?;
        }
        match socket.connect(&way.address.into()) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                return Err(io::Error::new(error.kind(), "no local port is left for a connection; name more --source"));
            }
            Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => return Err(error),
            _ => {}
        }
        let mut socket = TcpStream::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls = Tls::new(&way.config, &way.name).map_err(io::Error::other)?;
        let mut out = Vec::new();
        let speech = match &way.shape {
            None => Speech::Dot(Dot::default()),
            Some(shape) => Speech::Doh(Box::new(Http2::new(shape, &mut out)), Rc::clone(shape)),
        };
        let (stage, opened) = (Stage::Dialing, now);
        Ok(Self { socket, tls, speech, stage, out, dialed: now, opened, asked: 0, is_answered: false })
    }

    /// Whether queries can be asked.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether an answer has come.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// How many more queries can be asked now.
    #[must_use]
    pub fn room(&self, desk: &Desk) -> usize {
        if !self.is_open() {
            return 0;
        }
        let left = usize::try_from(desk.queries_left(self.asked)).unwrap_or(usize::MAX);
        left.min(match &self.speech {
            Speech::Dot(dot) => desk.in_flight.saturating_sub(dot.under_way().count()),
            Speech::Doh(http2, _) => http2.room(desk.in_flight),
        })
    }

    /// Does what can be done after an event; asks as many queries as there is room for where `fills`.
    ///
    /// # Errors
    /// When the connection has ended, or is to.
    pub fn wake(&mut self, event: &Event, desk: &mut Desk, fills: bool) -> Result<(), End> {
        if self.stage == Stage::Dialing && !self.is_connected()? {
            return Ok(());
        }
        if event.is_readable() || event.is_read_closed() {
            self.receive(desk, event.is_read_closed())?;
        }
        if fills {
            self.fill(desk);
        }
        self.flush()?;
        if self.is_spent(desk) { Err(End::Spent) } else { Ok(()) }
    }

    fn is_connected(&mut self) -> Result<bool, End> {
        if let Some(error) = self.socket.take_error().map_err(End::Connect)? {
            return Err(End::Connect(error));
        }
        match self.socket.peer_addr() {
            Ok(_) => self.stage = Stage::Shaking,
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(End::Connect(error)),
        }
        Ok(true)
    }

    /// Reads until nothing is left. A read that does not fill the buffer has emptied the socket: with more comes a new
    /// event, and with the server's end too unless that was in this one.
    fn receive(&mut self, desk: &mut Desk, to_end: bool) -> Result<(), End> {
        let mut buffer = mem::take(&mut desk.buffer);
        let result = loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => break Err(self.closed()),
                Ok(length) => {
                    desk.read_clock();
                    if let Err(end) = self.decrypt(&mut buffer[..length], desk) {
                        // The server hears why, where TLS says it; nothing more is of use.
                        let _ = self.send();
                        break Err(end);
                    }
                    if length < buffer.len() && !to_end {
                        break Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break Err(self.closed()),
            }
        };
        desk.buffer = buffer;
        result
    }

    /// What an end of the stream means.
    fn closed(&self) -> End {
        if self.is_open() { End::Closed } else { End::Handshake("the server ended the connection in the handshake") }
    }

    fn decrypt(&mut self, octets: &mut [u8], desk: &mut Desk) -> Result<(), End> {
        let mut held = self.tls.with_held(octets);
        let octets = held.as_deref_mut().unwrap_or(octets);
        let mut at = 0;
        // Behind the last record nothing is left to see, but in the handshake, which goes on by itself: to its last
        // words, which rustls may have when it is done already.
        let was_shaking = !self.is_open();
        while at < octets.len() || was_shaking {
            let Self { tls, speech, out, opened, dialed, is_answered, .. } = self;
            let step =
                tls.step(&mut octets[at..], |data| hear(speech, out, data, desk, *opened - *dialed, is_answered));
            if self.stage == Stage::Shaking && !self.tls.is_handshaking() {
                self.open(desk)?;
            }
            match step? {
                Step::More(used) => at += used,
                Step::Done(used) => {
                    at += used;
                    break;
                }
                Step::Closed => return Err(self.closed()),
            }
        }
        self.tls.hold(&octets[at..]);
        Ok(())
    }

    /// TLS is there. The first query goes with the client's last words of the handshake.
    fn open(&mut self, desk: &mut Desk) -> Result<(), End> {
        if matches!(self.speech, Speech::Doh(..)) && self.tls.alpn_protocol() != Some(b"h2") {
            return Err(End::Handshake("the server does not speak HTTP/2 (ALPN)"));
        }
        self.stage = Stage::Open;
        self.opened = desk.now;
        desk.tally.handshakes[usize::from(self.tls.is_resumed())] += 1;
        if let Some(asked) = desk.take_due() {
            self.ask(asked, desk);
        }
        Ok(())
    }

    /// Asks as many queries as there are and there is room for.
    pub fn fill(&mut self, desk: &mut Desk) {
        for _ in 0..self.room(desk) {
            let Some(asked) = desk.take_due() else { break };
            self.ask(asked, desk);
        }
    }

    /// Asks a query; [`Self::flush`] sends it.
    pub fn ask(&mut self, asked: Asked, desk: &Desk) {
        self.asked += 1;
        match &mut self.speech {
            Speech::Dot(dot) => dot.ask(&desk.queries, asked, &mut self.out),
            Speech::Doh(http2, shape) => http2.ask(shape, &desk.queries, asked, &mut self.out),
        }
    }

    /// Encrypts and sends what there is: one write, as long as the socket takes it.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn flush(&mut self) -> Result<(), End> {
        if self.is_open() && !self.out.is_empty() {
            self.tls.seal(&self.out).map_err(|_| End::Closed)?;
            self.out.clear();
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), End> {
        while !self.tls.out.is_empty() {
            match self.socket.write(&self.tls.out) {
                Ok(length) => drop(self.tls.out.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What the server said before may still be there to be read, and says more.
                Err(_) if !self.is_open() => return Err(self.closed()),
                Err(_) => return Err(End::Closed),
            }
        }
        Ok(())
    }

    /// Whether nothing more is asked on it, and nothing is under way.
    fn is_spent(&self, desk: &Desk) -> bool {
        if !self.is_open() {
            return false;
        }
        let spent = desk.queries_left(self.asked) == 0;
        match &self.speech {
            Speech::Dot(dot) => dot.under_way().count() == 0 && spent,
            Speech::Doh(http2, _) => http2.under_way() == 0 && (spent || http2.is_leaving()),
        }
    }

    /// Gives up on queries that have waited for too long, and on the connection where it takes too long to be made.
    ///
    /// # Errors
    /// When the connection is given up.
    pub fn expire(&mut self, desk: &mut Desk, patience: Nanos) -> Result<(), End> {
        let before = desk.now.saturating_sub(patience);
        if !self.is_open() {
            let late = self.dialed < before;
            return if late { Err(End::Connect(ErrorKind::TimedOut.into())) } else { Ok(()) };
        }
        let (_, settle) = desk.settle(0, &mut self.is_answered);
        let is_of_use = match &mut self.speech {
            Speech::Dot(dot) => dot.expire(before, settle),
            Speech::Doh(http2, _) => {
                http2.expire(before, &mut self.out, settle);
                true
            }
        };
        if is_of_use { self.flush() } else { Err(End::Fault("too many queries without an answer")) }
    }

    /// Ends it: what is under way is lost.
    pub fn end(mut self, desk: &mut Desk, end: &End) {
        let (_, settle) = desk.settle(0, &mut self.is_answered);
        match &mut self.speech {
            Speech::Dot(dot) => dot.abandon(settle),
            Speech::Doh(http2, _) => http2.abandon(settle),
        }
        if matches!(end, End::Spent) {
            // A server that is gone by itself needs no word.
            let _ = self.tls.end().map(|()| self.send());
        }
    }
}

/// Hears what was said on a connection that took so long to be made.
fn hear(
    speech: &mut Speech,
    out: &mut Vec<u8>,
    data: &[u8],
    desk: &mut Desk,
    shaking: Nanos,
    is_answered: &mut bool,
) -> Result<(), End> {
    let (queries, settle) = desk.settle(shaking, is_answered);
    match speech {
        Speech::Dot(dot) => {
            dot.read(data, queries, settle);
            Ok(())
        }
        Speech::Doh(http2, shape) => http2.read(data, shape, queries, out, settle).map_err(|fault| End::Fault(fault.0)),
    }
}

/// EINPROGRESS: what a connect that does not wait begins with.
const IN_PROGRESS: i32 = 115;
