//! Messages as clients write and read them.

use std::net::IpAddr;

use bailiwick::dns::message::{Header, Question, Records};
use bailiwick::dns::{Name, Qtype};

/// A query with RD.
pub fn query(id: u16, name: &str, qtype: Qtype) -> Vec<u8> {
    let mut query = Vec::new();
    for word in [id, 0x0100, 1, 0, 0, 0] {
        query.extend(word.to_be_bytes());
    }
    query.extend(Name::from_text(name).unwrap().as_wire());
    query.extend(qtype.0.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// A query with RD and an OPT with these options (wire form).
pub fn query_with_opt(id: u16, name: &str, qtype: Qtype, options: &[u8]) -> Vec<u8> {
    let mut query = query(id, name, qtype);
    query[11] = 1;
    query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    query.extend((options.len() as u16).to_be_bytes());
    query.extend(options);
    query
}

/// An answer, read.
pub struct Answer {
    pub octets: Vec<u8>,
    pub id: u16,
    pub rcode: u16,
    /// Addresses in the answer section.
    pub addresses: Vec<IpAddr>,
    /// Options of its OPT, each with its data; None: no OPT.
    pub options: Option<Vec<(u16, Vec<u8>)>>,
}

impl Answer {
    /// Reads a message, every record of it.
    pub fn read(octets: Vec<u8>) -> Self {
        let header = Header::read(&octets).unwrap();
        let end = Question::read(&octets).unwrap().end;
        let (mut addresses, mut options) = (Vec::new(), None);
        for record in Records::new(&octets, &header, end).map(Result::unwrap) {
            let rdata = record.rdata();
            match record.rtype {
                Qtype::A => addresses.push(IpAddr::from(<[u8; 4]>::try_from(rdata).unwrap())),
                Qtype::AAAA => addresses.push(IpAddr::from(<[u8; 16]>::try_from(rdata).unwrap())),
                Qtype::OPT => options = Some(read_options(rdata)),
                _ => {}
            }
        }
        let (id, rcode) = (header.id, header.rcode().0);
        Self { octets, id, rcode, addresses, options }
    }

    /// The data of an option.
    pub fn option(&self, code: u16) -> Option<&[u8]> {
        self.options.as_ref()?.iter().find(|(found, _)| *found == code).map(|(_, data)| data.as_slice())
    }
}

fn read_options(mut rdata: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    while let Some(([c1, c0, l1, l0], rest)) = rdata.split_first_chunk::<4>() {
        let (data, rest) = rest.split_at(u16::from_be_bytes([*l1, *l0]).into());
        options.push((u16::from_be_bytes([*c1, *c0]), data.to_vec()));
        rdata = rest;
    }
    options
}

/// Messages, each behind its length (RFC 7766 §8).
pub fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    messages.iter().flat_map(|message| [&(message.len() as u16).to_be_bytes()[..], message].concat()).collect()
}
