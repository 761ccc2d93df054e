//! The scripted upstreams: datagrams and streams in memory, in simulated time.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bailiwick::dns::message::{Header, Question, Records, flag};
use bailiwick::dns::{HEADER_OCTETS, Qtype};
use bailiwick::upstream::{Connecting, Datagrams, Network, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::script::{Bogus, Filter, Outcome, Proto, Rule, Scripted, Server};

/// All scripted upstreams, and what they have seen.
#[derive(Debug)]
pub struct Script {
    began: Instant,
    servers: HashMap<SocketAddr, Server>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seen: Vec<Seen>,
    used: HashMap<(SocketAddr, usize), u32>,
    connections: HashMap<SocketAddr, usize>,
    faults: Vec<String>,
}

/// A query that reached an upstream.
#[derive(Debug, Clone)]
struct Seen {
    server: SocketAddr,
    over: Proto,
    question: Question,
    flags: u16,
    dnssec_ok: bool,
}

impl Script {
    /// Begins now.
    pub fn new(servers: &[Server]) -> Arc<Self> {
        let servers = servers.iter().map(|server| (server.address, server.clone())).collect();
        Arc::new(Self { began: Instant::now(), servers, state: Mutex::default() })
    }

    /// Queries seen since the start.
    pub fn queries(&self, server: Option<SocketAddr>, filter: &Filter) -> usize {
        let fits = |seen: &&Seen| {
            server.is_none_or(|server| server == seen.server)
                && filter.over.is_none_or(|over| over == seen.over)
                && filter.qname.as_ref().is_none_or(|qname| *qname == seen.question.qname)
                && filter.qtype.is_none_or(|qtype| qtype == seen.question.qtype)
                && (!filter.dnssec_ok || seen.dnssec_ok)
                && (!filter.cd || seen.flags & flag::CD != 0)
        };
        self.state().seen.iter().filter(fits).count()
    }

    /// TCP connections since the start.
    pub fn connections(&self, server: SocketAddr) -> usize {
        self.state().connections.get(&server).copied().unwrap_or_default()
    }

    /// What the product did to an upstream that it must not.
    pub fn faults(&self) -> Vec<String> {
        self.state().faults.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, what: String) {
        self.state().faults.push(what);
    }

    /// What an upstream does with a query; None: nothing that could be answered.
    fn reply(&self, server: SocketAddr, over: Proto, query: &[u8]) -> Option<Scripted> {
        let seen = match self.read(server, over, query) {
            Ok(seen) => seen,
            Err(what) => {
                self.fault(format!("upstream {server} was sent {what}: {query:02x?}"));
                return None;
            }
        };
        let rules = self.servers.get(&server).map(|server| server.rules.as_slice()).unwrap_or_default();
        let mut state = self.state();
        state.seen.push(seen.clone());
        let elapsed = self.began.elapsed();
        for (number, rule) in rules.iter().enumerate().filter(|(_, rule)| fits(rule, &seen, elapsed)) {
            let used = state.used.entry((server, number)).or_default();
            if *used < rule.times {
                *used += 1;
                return Some(rule.reply.clone());
            }
        }
        let Question { qname, qtype, .. } = &seen.question;
        state.faults.push(format!("upstream {server} was asked {qname} {qtype}, of which the script says nothing"));
        None
    }

    /// What every query to an upstream must be like: the parsed question in a message of our own (protocol.md E3, O11,
    /// O12, O14; attacks.md, "record / EDNS smuggling").
    fn read(&self, server: SocketAddr, over: Proto, query: &[u8]) -> Result<Seen, String> {
        let header = Header::read(query).ok_or("less than a header")?;
        let question = Question::read(query).map_err(|error| format!("no question ({error:?})"))?;
        let mut seen = Seen { server, over, question, flags: header.flags, dnssec_ok: false };
        if header.id == 0 && over == Proto::Udp {
            return Err("the ID 0".into());
        }
        if header.has(flag::QR) || header.opcode() != 0 || header.counts[..3] != [1, 0, 0] || !header.has(flag::RD) {
            return Err(format!("a header that is not a query's: {header:?}"));
        }
        let mut records = Records::new(query, &header, seen.question.end);
        for record in records.by_ref() {
            let record = record.map_err(|error| format!("a bad record ({error:?})"))?;
            if record.rtype != Qtype::OPT {
                return Err(format!("a {} record", record.rtype));
            }
            seen.dnssec_ok = record.ttl_octets()[2] & 0x80 != 0;
            check_options(record.rdata())?;
        }
        if records.position() != query.len() {
            return Err("octets behind the last record".into());
        }
        Ok(seen)
    }
}

/// ECS is never sent (protocol.md O14), padding never in the clear (RFC 7830 §6), nothing of the client's either.
fn check_options(mut options: &[u8]) -> Result<(), String> {
    while let [c1, c0, l1, l0, rest @ ..] = options {
        let code = u16::from_be_bytes([*c1, *c0]);
        if matches!(code, 8 | 11 | 12 | 15) {
            return Err(format!("EDNS option {code}"));
        }
        options = rest.get(usize::from(u16::from_be_bytes([*l1, *l0]))..).ok_or("an option cut short")?;
    }
    Ok(())
}

fn fits(rule: &Rule, seen: &Seen, elapsed: Duration) -> bool {
    rule.qname.as_ref().is_none_or(|qname| *qname == seen.question.qname)
        && rule.qtype.is_none_or(|qtype| qtype == seen.question.qtype)
        && rule.over.is_none_or(|over| over == seen.over)
        && (rule.from..rule.until).contains(&elapsed)
}

/// The message that a script's reply stands for.
fn message(query: &[u8], scripted: &Scripted) -> Vec<u8> {
    let (Some(header), Ok(question)) = (Header::read(query), Question::read(query)) else { return Vec::new() };
    let has_opt = header.counts[3] > 0 && !scripted.without_opt;
    let count = |section| scripted.records.iter().filter(|(of, _)| *of == section).count() as u16;
    let counts = [1, count(0), count(1), count(2) + u16::from(has_opt)];
    let copied = header.flags & (flag::RD | flag::CD);
    let flags = flag::QR | copied | scripted.flags | (scripted.rcode.0 & flag::RCODE);
    let mut out = Header { id: header.id, flags, counts }.octets().to_vec();
    out.extend(&query[HEADER_OCTETS..question.end]);
    for section in 0..3 {
        for (_, record) in scripted.records.iter().filter(|(of, _)| *of == section) {
            record.write(&question.qname, &mut out);
        }
    }
    if has_opt {
        write_opt(scripted, &mut out);
    }
    out.extend(&scripted.trailing);
    out
}

fn write_opt(scripted: &Scripted, out: &mut Vec<u8>) {
    let options: Vec<u8> = scripted
        .options
        .iter()
        .flat_map(|(code, octets)| [&code.to_be_bytes()[..], &(octets.len() as u16).to_be_bytes(), octets].concat())
        .collect();
    out.extend([0, 0, 41, 4, 208, (scripted.rcode.0 >> 4) as u8, 0, 0, 0]);
    out.extend((options.len() as u16).to_be_bytes());
    out.extend(options);
}

/// A datagram that is no answer, made of the one that would be.
fn bogus(what: Bogus, query: &[u8], truth: &[u8]) -> Vec<u8> {
    let mut out = truth.to_vec();
    match what {
        Bogus::Garbage => return b"\xff\xff\xff\xff\xff garbage".to_vec(),
        Bogus::WrongId => out[1] ^= 1,
        Bogus::WrongName => out[HEADER_OCTETS + 1] ^= 1,
        Bogus::WrongType => {
            let end = Question::read(query).map_or(HEADER_OCTETS + 5, |question| question.end);
            out[end - 3] ^= 1;
        }
        Bogus::NoQuestion => {
            out.truncate(HEADER_OCTETS);
            out[4..].fill(0);
        }
        Bogus::NotAResponse => out[2] &= 0x7f,
        Bogus::Badvers => {
            let end = Question::read(query).map_or(HEADER_OCTETS + 5, |question| question.end);
            out.truncate(end);
            out[6..HEADER_OCTETS].copy_from_slice(&[0, 0, 0, 0, 0, 1]);
            out.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
        }
    }
    out
}

/// The [`Network`] of a script.
#[derive(Debug, Clone)]
pub struct Scripts(pub Arc<Script>);

impl Network for Scripts {
    fn udp(&self, server: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        Ok(Box::new(Socket {
            script: self.0.clone(),
            server,
            sender,
            receiver,
            born: Instant::now(),
            ids: HashSet::new(),
        }))
    }

    fn tcp(&self, server: SocketAddr) -> Connecting {
        let script = self.0.clone();
        Box::pin(async move {
            if script.servers.get(&server).is_none_or(|server| server.refuses_tcp) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            *script.state().connections.entry(server).or_default() += 1;
            let (ours, theirs) = tokio::io::duplex(1 << 17);
            tokio::spawn(serve(script, server, theirs));
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

/// What arrives at a socket: a datagram, or an ICMP error.
type Arrival = Result<Vec<u8>, io::ErrorKind>;

struct Socket {
    script: Arc<Script>,
    server: SocketAddr,
    sender: mpsc::UnboundedSender<Arrival>,
    receiver: mpsc::UnboundedReceiver<Arrival>,
    born: Instant,
    ids: HashSet<Vec<u8>>,
}

impl Socket {
    /// The longer a port is in use, the easier it is found out (RFC 5452 §9.2); and an ID on it is one query's.
    fn check_use(&mut self, octets: &[u8]) {
        let id = octets.get(..2).unwrap_or_default().to_vec();
        if !self.ids.insert(id) {
            self.script.fault(format!("an ID twice from one UDP port to {}", self.server));
        }
        if self.ids.len() > 64 || self.born.elapsed() >= Duration::from_secs(2) {
            self.script.fault(format!("a UDP port is in use for too long to {}", self.server));
        }
    }
}

impl Datagrams for Socket {
    fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.check_use(octets);
        let Some(scripted) = self.script.reply(self.server, Proto::Udp, octets) else { return Ok(()) };
        if scripted.outcome == Outcome::Unreachable {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        let (query, sender) = (octets.to_vec(), self.sender.clone());
        tokio::spawn(async move {
            let truth = message(&query, &scripted);
            for what in &scripted.first {
                let _ = sender.send(Ok(bogus(*what, &query, &truth)));
            }
            sleep(scripted.after).await;
            match scripted.outcome {
                Outcome::Answer => drop(sender.send(Ok(truth))),
                Outcome::Refused => drop(sender.send(Err(io::ErrorKind::ConnectionRefused))),
                Outcome::Silent | Outcome::Close | Outcome::Unreachable => {}
            }
        });
        Ok(())
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.receiver.poll_recv(context).map(|arrival| match arrival {
            // As the machine does it, what does not fit is cut off.
            Some(Ok(octets)) => {
                buffer.put_slice(&octets[..octets.len().min(buffer.remaining())]);
                Ok(())
            }
            Some(Err(kind)) => Err(kind.into()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        })
    }
}

/// A TCP connection at the upstream's end: answers each query when its time comes, so out of order.
async fn serve(script: Arc<Script>, server: SocketAddr, stream: DuplexStream) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (sender, mut receiver) = mpsc::unbounded_channel::<Option<Vec<u8>>>();
    let read = async {
        while let Ok(length) = reader.read_u16().await {
            let mut query = vec![0; usize::from(length)];
            if reader.read_exact(&mut query).await.is_err() {
                break;
            }
            let Some(scripted) = script.reply(server, Proto::Tcp, &query) else { continue };
            tokio::spawn(answer(query, scripted, sender.clone()));
        }
        // A client that closes its half still gets what it asked for.
        drop(sender);
        std::future::pending::<()>().await;
    };
    let write = async {
        while let Some(Some(octets)) = receiver.recv().await {
            let framed = [&(octets.len() as u16).to_be_bytes()[..], &octets].concat();
            if writer.write_all(&framed).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = read => {}, () = write => {} }
}

/// Sends a query's answer in its time; None: the connection is to be closed.
async fn answer(query: Vec<u8>, scripted: Scripted, sender: mpsc::UnboundedSender<Option<Vec<u8>>>) {
    let truth = message(&query, &scripted);
    for what in &scripted.first {
        let _ = sender.send(Some(bogus(*what, &query, &truth)));
    }
    sleep(scripted.after).await;
    match scripted.outcome {
        Outcome::Answer => drop(sender.send(Some(truth))),
        Outcome::Silent => std::future::pending().await,
        Outcome::Refused | Outcome::Unreachable | Outcome::Close => drop(sender.send(None)),
    }
    if scripted.then_close {
        let _ = sender.send(None);
    }
}
