//! Where attacks are fought: who attacks, who looks on, and what the server takes of the machine meanwhile.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use bailiwick::dns::Qtype;
use rustls::ALL_VERSIONS;

use crate::support::http::{GOAWAY, frames, target};
use crate::support::{Dot, PATIENCE, Server, Upstream, query};

/// Another client is answered in this time while an attack goes on (attacks.md).
const OTHERS_WAIT: Duration = Duration::from_secs(3);

/// An attacker waits no longer for anything.
const ATTACKER_WAIT: Duration = Duration::from_secs(2);

/// One worker: whoever looks on shares it with the attacker.
pub fn one_worker(upstream: &Upstream, overrides: &str) -> Server {
    let server = Server::before(upstream, &format!("{overrides}\n[listen]\nthreads = 1\n"));
    others_are_served(&server);
    server
}

/// A new client comes, asks for a name of its own, and has its answer in time.
pub fn others_are_served(server: &Server) {
    static NAMES: AtomicU16 = AtomicU16::new(0);
    let start = Instant::now();
    let id = NAMES.fetch_add(1, Ordering::Relaxed);
    let mut dot = server.dot();
    dot.ask(&[query(id, &format!("other{id}.example"), Qtype::A)]);
    let answer = dot.receive();
    assert_eq!((answer.id, answer.rcode, answer.addresses.len()), (id, 0, 1));
    assert!(start.elapsed() < OTHERS_WAIT, "another client waited {:?}", start.elapsed());
}

/// Attackers repeat `attack` while others come and go; afterwards others are served as before.
pub fn under(server: &Server, attack: impl Fn() + Sync) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    attack();
                }
            });
        }
        let look = || {
            for _ in 0..4 {
                sleep(Duration::from_millis(150));
                others_are_served(server);
            }
        };
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
        over.store(true, Ordering::Relaxed);
        looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    others_are_served(server);
}

/// A connection whose handshake is done, on the DoH port, by this protocol.
pub fn doh(server: &Server, alpn: &[u8]) -> Dot {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, server.doh_port)).unwrap();
    let connection = Dot::connect(socket, &server.tls(ALL_VERSIONS, &[alpn])).unwrap();
    connection.tls.sock.socket.set_read_timeout(Some(ATTACKER_WAIT)).unwrap();
    connection.tls.sock.socket.set_write_timeout(Some(ATTACKER_WAIT)).unwrap();
    connection
}

/// Sends what it can; an attacker does not mind being cut off.
pub fn pour(connection: &mut Dot, octets: &[u8]) {
    let _ = connection.tls.write_all(octets).and_then(|()| connection.tls.flush());
}

/// All that comes until the server ends the connection; None where it does not end it within [`ATTACKER_WAIT`].
pub fn rest(connection: &mut Dot) -> Option<Vec<u8>> {
    let mut heard = Vec::new();
    match connection.tls.read_to_end(&mut heard) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
        _ => Some(heard),
    }
}

/// The codes of the GOAWAY frames among these octets.
pub fn goaways(octets: &[u8]) -> Vec<u8> {
    frames(octets).filter(|(kind, ..)| *kind == GOAWAY).map(|(.., payload)| payload[7]).collect()
}

/// The field block of a GET for a message, in HPACK without a table (RFC 7541 §6.2.2).
pub fn get_block(message: &[u8]) -> Vec<u8> {
    let path = target(message);
    let mut block = b"\x82\x87\x01\x09127.0.0.1\x04".to_vec();
    let length = path.len();
    assert!((127..127 + 128).contains(&length) || length < 127);
    if length < 127 {
        block.push(length as u8);
    } else {
        block.extend([127, (length - 127) as u8]);
    }
    block.extend(path.bytes());
    block
}

/// Memory of the process in octets; 0 where the machine does not say.
pub fn resident(server: &Server) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or(0) * 1_024
}

/// Open descriptors of the process; 0 where the machine does not say.
pub fn descriptors(server: &Server) -> usize {
    fs::read_dir(format!("/proc/{}/fd", server.pid())).map_or(0, Iterator::count)
}

/// Processor time that the process took so far; 0 where the machine does not say.
pub fn processor(server: &Server) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // A hundredth of a second each, on every Linux there is.
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// How often a bound has bitten.
pub fn bites(server: &Server, bound: &str) -> u64 {
    let page = server.get("/metrics").unwrap();
    let wanted = format!("bailiwick_bounds_total{{bound=\"{bound}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&wanted)?.parse().ok()).expect("a bound that is counted")
}

/// Waits until a bound has bitten so often: a connection ends a moment before it is counted.
pub fn has_bitten(server: &Server, bound: &str, times: u64) {
    let start = Instant::now();
    while bites(server, bound) < times {
        assert!(start.elapsed() < PATIENCE, "{bound} has bitten {} times of {times}", bites(server, bound));
        sleep(Duration::from_millis(20));
    }
}

/// A query with whatever octets are wanted behind its question, and its section counts.
pub fn query_with(id: u16, counts: [u16; 4], behind: &[u8]) -> Vec<u8> {
    let words = [id, 0x0100].into_iter().chain(counts);
    let header: Vec<u8> = words.flat_map(u16::to_be_bytes).collect();
    [&header[..], b"\x01q\x07example\0\0\x01\0\x01", behind].concat()
}

/// Numbers that look random, the same in every run (xorshift).
pub fn random() -> impl FnMut() -> usize + Send {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    }
}
