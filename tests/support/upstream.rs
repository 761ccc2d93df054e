//! An upstream resolver that does as a test says.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use bailiwick::dns::message::Question;
use bailiwick::dns::{HEADER_OCTETS, Qtype};
use toml::Table;

use super::framed;
use super::server::lay_over;
use super::sockets::bind_both;

/// A question that came to the scripted upstream.
pub struct Asked {
    /// The query as it came.
    pub octets: Vec<u8>,
    /// QNAME, folded, without the last dot.
    pub name: String,
    /// QTYPE.
    pub qtype: Qtype,
}

impl Asked {
    fn read(octets: &[u8]) -> Option<Self> {
        let question = Question::read(octets).ok()?;
        let name = question.qname.to_string().trim_end_matches('.').to_owned();
        Some(Self { octets: octets.to_vec(), name, qtype: question.qtype })
    }

    /// A response with this RCODE and these records (wire form) in the answer section, no OPT.
    pub fn response(&self, rcode: u8, answers: &[Vec<u8>]) -> Vec<u8> {
        let end = Question::read(&self.octets).unwrap().end;
        let mut response = self.octets[..end].to_vec();
        response[2] = 0x81;
        response[3] = 0x80 | rcode;
        response[4..HEADER_OCTETS].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        response[6..8].copy_from_slice(&(answers.len() as u16).to_be_bytes());
        response.extend(answers.iter().flatten());
        response
    }

    /// The usual response: 192.0.2.1 with a TTL of 300, and nothing but for A.
    pub fn usual(&self) -> Vec<u8> {
        match self.qtype {
            Qtype::A => self.response(0, &[self.a(300, Ipv4Addr::new(192, 0, 2, 1))]),
            _ => self.response(0, &[]),
        }
    }

    /// NXDOMAIN with a SOA whose MINIMUM is 60 and whose TTL is 3,600.
    pub fn nxdomain(&self) -> Vec<u8> {
        let mut response = self.response(3, &[]);
        response[9] = 1;
        response
            .extend(b"\xc0\x0c\0\x06\0\x01\0\0\x0e\x10\0\x16\0\0\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x3c");
        response
    }

    /// An A record for the name that was asked for.
    pub fn a(&self, ttl: u32, address: Ipv4Addr) -> Vec<u8> {
        let mut record = vec![0xc0, HEADER_OCTETS as u8, 0, 1, 0, 1];
        record.extend(ttl.to_be_bytes());
        record.extend([0, 4]);
        record.extend(address.octets());
        record
    }
}

/// What the scripted upstream does about a question.
pub enum Play {
    /// Sends this response.
    Respond(Vec<u8>),
    /// Sends this response later.
    Later(Duration, Vec<u8>),
    /// Nothing.
    Silence,
}

/// A scripted upstream resolver on a UDP and TCP port of loopback; ends when dropped. What is too long for a datagram
/// is cut short there, and whole over TCP.
pub struct Upstream {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Upstream {
    /// Plays `handler` for every question.
    pub fn start(handler: impl Fn(&Asked) -> Play + Send + Sync + 'static) -> Self {
        let (socket, listener) = bind_both();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let address = socket.local_addr().unwrap();
        let (asked, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let upstream = Self { address, asked: Arc::clone(&asked), over: Arc::clone(&over) };
        let handler: Handler = Arc::new(handler);
        accept(listener, Arc::clone(&handler), Arc::clone(&over));
        thread::spawn(move || {
            let socket = Arc::new(socket);
            let mut buffer = [0; 4_096];
            while !over.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let Some(question) = Asked::read(&buffer[..length]) else { continue };
                asked.fetch_add(1, Ordering::Relaxed);
                play(&socket, from, handler(&question));
            }
        });
        upstream
    }

    /// `delay250-anything.example` has the address 192.0.2.1 after 250 ms, every other name at once.
    pub fn delaying() -> Self {
        Self::start(|asked| {
            let delay = asked.name.strip_prefix("delay").and_then(|rest| rest.split(['-', '.']).next()?.parse().ok());
            match delay {
                Some(millis) => Play::Later(Duration::from_millis(millis), asked.usual()),
                None => Play::Respond(asked.usual()),
            }
        })
    }

    /// By how a name begins: `servfail` fails, `nx` does not exist, `slow` comes after 100 ms. Every other name has the
    /// address 192.0.2.1 at once.
    pub fn labelled() -> Self {
        Self::start(|asked| match asked.name.as_str() {
            name if name.starts_with("servfail") => Play::Respond(asked.response(2, &[])),
            name if name.starts_with("nx") => Play::Respond(asked.nxdomain()),
            name if name.starts_with("slow") => Play::Later(Duration::from_millis(100), asked.usual()),
            _ => Play::Respond(asked.usual()),
        })
    }

    /// How many questions came, the server's own included.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// A configuration that asks this upstream, with `overrides` laid over it.
    pub fn config(&self, overrides: &str) -> String {
        let mut config: Table = format!("[upstream]\nresolvers = [\"{}\"]", self.address).parse().unwrap();
        lay_over(&mut config, overrides.parse().unwrap());
        config.to_string()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

type Handler = Arc<dyn Fn(&Asked) -> Play + Send + Sync>;

/// The longest response that goes into a datagram, in octets.
const DATAGRAM_OCTETS_MAX: usize = 1_232;

fn accept(listener: TcpListener, handler: Handler, over: Arc<AtomicBool>) {
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    thread::spawn(move || answer_frames(stream, &handler));
                }
                Err(_) => sleep(Duration::from_millis(5)),
            }
        }
    });
}

/// Answers one query after another until the connection ends.
fn answer_frames(mut stream: TcpStream, handler: &Handler) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut octets = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut octets)?;
        match Asked::read(&octets).map(|question| handler(&question)) {
            Some(Play::Respond(octets)) => stream.write_all(&framed(&[octets]))?,
            Some(Play::Later(delay, octets)) => {
                sleep(delay);
                stream.write_all(&framed(&[octets]))?;
            }
            Some(Play::Silence) | None => {}
        }
    }
}

/// As it goes into a datagram: its question and TC, where it is too long.
fn datagram(mut octets: Vec<u8>) -> Vec<u8> {
    if octets.len() > DATAGRAM_OCTETS_MAX {
        octets.truncate(Question::read(&octets).unwrap().end);
        octets[2] |= 0x02;
        octets[6..HEADER_OCTETS].fill(0);
    }
    octets
}

fn play(socket: &Arc<UdpSocket>, to: SocketAddr, play: Play) {
    match play {
        Play::Respond(octets) => {
            let _ = socket.send_to(&datagram(octets), to);
        }
        Play::Later(delay, octets) => {
            let socket = Arc::clone(socket);
            thread::spawn(move || {
                sleep(delay);
                let _ = socket.send_to(&datagram(octets), to);
            });
        }
        Play::Silence => {}
    }
}
