//! The plain resolver behind the product: it knows every name, and its address follows from it.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, UdpSocket};

use bailiwick::dns::message::{Header, flag};
use bailiwick::dns::{HEADER_OCTETS, Qclass, Qtype};
use bailiwick::query::{Query, Transport};

use super::names::{address_of, address6_of};

/// TTL of every answer, in seconds: longer than any run.
const TTL: u32 = 3_600;

/// An OPT without options, as a resolver sends it.
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// Answers over UDP on a free loopback port, which `ready` hears, until the process is ended.
pub(crate) fn serve(ready: impl FnOnce(SocketAddr)) -> io::Result<Infallible> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    ready(socket.local_addr()?);
    let mut octets = [0; 4_096];
    loop {
        // A send to a socket that is gone comes back as the next call's error.
        let Ok((length, peer)) = socket.recv_from(&mut octets) else { continue };
        if let Some(response) = response(&octets[..length]) {
            let _ = socket.send_to(&response, peer);
        }
    }
}

/// NOERROR with the name's address for A and AAAA, with nothing for other types; the question as it came, case and all.
fn response(octets: &[u8]) -> Option<Vec<u8>> {
    let query = Query::read(octets, Transport::Dot).ok()?;
    let rdata = match query.qtype {
        Qtype::A => address_of(&query.qname).octets().to_vec(),
        Qtype::AAAA => address6_of(&query.qname).octets().to_vec(),
        _ => Vec::new(),
    };
    let counts = [1, u16::from(!rdata.is_empty()), 0, u16::from(query.echo.edns.is_some())];
    let header = Header { id: query.echo.id, flags: flag::QR | flag::RD | flag::RA, counts };
    let mut response = [&header.octets()[..], &query.echo.question].concat();
    if !rdata.is_empty() {
        // RFC 1035 §4.1.4: the owner is the question's name.
        response.extend([0xc0, HEADER_OCTETS as u8]);
        response.extend(query.qtype.0.to_be_bytes());
        response.extend(Qclass::IN.0.to_be_bytes());
        response.extend(TTL.to_be_bytes());
        response.extend((rdata.len() as u16).to_be_bytes());
        response.extend(rdata);
    }
    if query.echo.edns.is_some() {
        response.extend(OPT);
    }
    Some(response)
}
