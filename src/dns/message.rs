//! A message in wire form: its header, its records in turn, and the few edits made in place.

use super::name::{Name, NameError};
use super::{HEADER_OCTETS, Qclass, Qtype, Rcode, ttl_of};

/// Header bits (RFC 1035 §4.1.1, RFC 4035 §3).
pub mod flag {
    /// The message is a response.
    pub const QR: u16 = 0x8000;
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;
    /// Recursion available.
    pub const RA: u16 = 0x0080;
    /// Authentic data.
    pub const AD: u16 = 0x0020;
    /// Checking disabled.
    pub const CD: u16 = 0x0010;
    /// The OPCODE field.
    pub const OPCODE: u16 = 0x7800;
    /// The RCODE field.
    pub const RCODE: u16 = 0x000f;
}

/// A message header (RFC 1035 §4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// ID.
    pub id: u16,
    /// Flags, OPCODE and RCODE; see [`flag`].
    pub flags: u16,
    /// QDCOUNT, ANCOUNT, NSCOUNT, ARCOUNT.
    pub counts: [u16; 4],
}

impl Header {
    /// Reads the first twelve octets, if there are so many.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let octets: &[u8; HEADER_OCTETS] = message.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
        Some(Self { id: word(0), flags: word(2), counts: [word(4), word(6), word(8), word(10)] })
    }

    /// The octets of the header.
    #[must_use]
    pub fn octets(&self) -> [u8; HEADER_OCTETS] {
        let words = [self.id, self.flags, self.counts[0], self.counts[1], self.counts[2], self.counts[3]];
        let [[a, b], [c, d], [e, f], [g, h], [i, j], [k, l]] = words.map(u16::to_be_bytes);
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    /// The RCODE field, without the bits that an OPT adds.
    #[must_use]
    pub const fn rcode(&self) -> Rcode {
        Rcode(self.flags & flag::RCODE)
    }

    /// The OPCODE; 0 is QUERY.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        ((self.flags & flag::OPCODE) >> 11) as u8
    }

    /// Whether a bit of [`flag`] is set.
    #[must_use]
    pub const fn has(&self, bit: u16) -> bool {
        self.flags & bit != 0
    }
}

/// Octets that are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// They end before what the header counts.
    Truncated,
    /// A name that is not one.
    Name(NameError),
}

impl From<NameError> for MessageError {
    fn from(error: NameError) -> Self {
        if error == NameError::Truncated { Self::Truncated } else { Self::Name(error) }
    }
}

/// The question of a message: exactly one stands there.
#[derive(Debug, Clone)]
pub struct Question {
    /// QNAME, folded.
    pub qname: Name,
    /// QTYPE.
    pub qtype: Qtype,
    /// QCLASS.
    pub qclass: Qclass,
    /// Where the octets behind it begin.
    pub end: usize,
}

impl Question {
    /// Reads the question that stands behind the header. Its name is never compressed: nothing stands before it.
    ///
    /// # Errors
    /// When the octets end, or the name is not one.
    pub fn read(message: &[u8]) -> Result<Self, MessageError> {
        let mut qname = Name::root();
        let (qtype, qclass, end) = Self::read_fields(message, &mut qname)?;
        Ok(Self { qname, qtype, qclass, end })
    }

    /// The same, field by field, with QNAME in the place of the root that `qname` is: a name is large.
    ///
    /// # Errors
    /// The same; `qname` is not usable then.
    pub fn read_fields(message: &[u8], qname: &mut Name) -> Result<(Qtype, Qclass, usize), MessageError> {
        let at = qname.read(message, HEADER_OCTETS)?;
        // A pointer to the header would make the question's length differ from its name's.
        if at != HEADER_OCTETS + qname.as_wire().len() {
            return Err(MessageError::Name(NameError::BadPointer));
        }
        let [t1, t0, c1, c0] = message.get(at..).and_then(<[u8]>::first_chunk).ok_or(MessageError::Truncated)?;
        Ok((Qtype(u16::from_be_bytes([*t1, *t0])), Qclass(u16::from_be_bytes([*c1, *c0])), at + 4))
    }

    /// Where the octets behind the question begin, where it is exactly this one. No name is read for it.
    #[must_use]
    pub fn end_of(message: &[u8], qname: &Name, qtype: Qtype, qclass: Qclass) -> Option<usize> {
        let wire = qname.as_wire();
        let (name, rest) = message.get(HEADER_OCTETS..)?.split_at_checked(wire.len())?;
        let ([t1, t0], [c1, c0]) = (qtype.0.to_be_bytes(), qclass.0.to_be_bytes());
        // Lengths of labels are below every letter.
        let same = name.eq_ignore_ascii_case(wire) && rest.first_chunk() == Some(&[t1, t0, c1, c0]);
        same.then_some(HEADER_OCTETS + wire.len() + 4)
    }
}

/// The section a record stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Answer section.
    Answer,
    /// Authority section.
    Authority,
    /// Additional section.
    Additional,
}

/// A resource record where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    message: &'a [u8],
    /// Where it begins.
    pub start: usize,
    /// The section it stands in.
    pub section: Section,
    /// TYPE.
    pub rtype: Qtype,
    /// CLASS; in an OPT the UDP payload size.
    pub class: Qclass,
    /// Where the four octets of the TTL stand.
    pub ttl_at: usize,
    /// Where it ends.
    pub end: usize,
}

impl<'a> Record<'a> {
    /// The owner name.
    ///
    /// # Errors
    /// When it is not a name: walking over a record does not read it.
    pub fn owner(&self) -> Result<Name, NameError> {
        Name::parse(self.message, self.start).map(|(name, _)| name)
    }

    /// Whether its owner name is a pointer to QNAME, as nearly always where it is QNAME.
    #[must_use]
    pub fn points_to_qname(&self) -> bool {
        self.message[self.start..].starts_with(&[0xc0, HEADER_OCTETS as u8])
    }

    /// The TTL's octets as they stand.
    #[must_use]
    pub fn ttl_octets(&self) -> [u8; 4] {
        let at = self.ttl_at;
        [self.message[at], self.message[at + 1], self.message[at + 2], self.message[at + 3]]
    }

    /// The TTL in seconds, one with the top bit set as 0.
    #[must_use]
    pub fn ttl(&self) -> u32 {
        ttl_of(self.ttl_octets())
    }

    /// Where the RDATA begins.
    #[must_use]
    pub fn rdata_at(&self) -> usize {
        self.ttl_at + 6
    }

    /// The RDATA; names in it may be compressed.
    #[must_use]
    pub fn rdata(&self) -> &'a [u8] {
        &self.message[self.rdata_at()..self.end]
    }

    /// The name that stands `skip` octets into the RDATA: CNAME, DNAME, NS and PTR have it at 0, MX, SVCB and HTTPS at 2.
    ///
    /// # Errors
    /// When no name stands there, or it runs past the RDATA.
    pub fn rdata_name(&self, skip: usize) -> Result<Name, NameError> {
        let (name, end) = Name::parse(self.message, self.rdata_at() + skip)?;
        if end > self.end { Err(NameError::Truncated) } else { Ok(name) }
    }

    /// MINIMUM of a SOA, its last field (RFC 1035 §3.3.13): the RDATA's last four octets.
    #[must_use]
    pub fn soa_minimum(&self) -> Option<u32> {
        self.rdata().last_chunk().map(|octets| ttl_of(*octets))
    }
}

/// Whether the name at `at`, which could be read, leads through the TTL of a record: `ttls_at`, ascending, says where
/// those stand. Such a name changes as TTLs count down; no encoder writes one.
#[must_use]
pub fn crosses_ttl(message: &[u8], mut at: usize, ttls_at: &[usize]) -> bool {
    loop {
        let (octets, next) = match message[at] {
            0 => (1, None),
            // RFC 1035 §4.1.4: two bits say that it is a pointer, the other fourteen where it leads.
            high @ 0xc0.. => (2, Some(usize::from(high & 0x3f) << 8 | usize::from(message[at + 1]))),
            length => (1 + usize::from(length), Some(at + 1 + usize::from(length))),
        };
        let first = ttls_at.partition_point(|ttl_at| ttl_at + 4 <= at);
        if ttls_at.get(first).is_some_and(|ttl_at| *ttl_at < at + octets) {
            return true;
        }
        let Some(next) = next else { return false };
        at = next;
    }
}

/// The records of a message in turn. After an error there are no more.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    message: &'a [u8],
    at: usize,
    left: [u16; 3],
}

impl<'a> Records<'a> {
    /// Begins behind the question, at `at`, with the counts of the header.
    #[must_use]
    pub fn new(message: &'a [u8], header: &Header, at: usize) -> Self {
        Self { message, at, left: [header.counts[1], header.counts[2], header.counts[3]] }
    }

    /// Where the next record begins; behind the last one, the end of the message.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    fn read(&self, section: Section) -> Result<Record<'a>, MessageError> {
        let fixed = Name::skip(self.message, self.at)?;
        let octets: &[u8; 10] =
            self.message.get(fixed..).and_then(<[u8]>::first_chunk).ok_or(MessageError::Truncated)?;
        let word = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
        let end = fixed + 10 + usize::from(word(8));
        if end > self.message.len() {
            return Err(MessageError::Truncated);
        }
        Ok(Record {
            message: self.message,
            start: self.at,
            section,
            rtype: Qtype(word(0)),
            class: Qclass(word(2)),
            ttl_at: fixed + 4,
            end,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        const SECTIONS: [Section; 3] = [Section::Answer, Section::Authority, Section::Additional];
        let section = self.left.iter().position(|left| *left > 0)?;
        self.left[section] -= 1;
        let record = self.read(SECTIONS[section]);
        match &record {
            Ok(record) => self.at = record.end,
            Err(_) => self.left = [0; 3],
        }
        Some(record)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// `www.example.org A` answered by a CNAME and an address.
    const RESPONSE: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\x01\
        \x03www\x07example\x03org\0\0\x01\0\x01\
        \xc0\x0c\0\x05\0\x01\0\0\x0e\x10\0\x06\x03cdn\xc0\x10\
        \xc0\x2d\0\x01\0\x01\x80\0\0\x05\0\x04\xc0\0\x02\x01\
        \0\0\x29\x04\xd0\0\0\0\0\0\0";

    #[test]
    fn records_are_walked_in_place() {
        let header = Header::read(RESPONSE).unwrap();
        assert_eq!(header.octets(), RESPONSE[..12]);
        let question = Question::read(RESPONSE).unwrap();
        assert_eq!((question.qtype, question.qclass), (Qtype::A, Qclass::IN));
        let mut walk = Records::new(RESPONSE, &header, question.end);
        let records: Vec<_> = walk.by_ref().map(Result::unwrap).collect();
        assert_eq!(walk.position(), RESPONSE.len());
        assert_eq!(records[0].rdata_name(0).unwrap(), records[1].owner().unwrap());
        assert_eq!(records[0].ttl(), 3600);
        assert_eq!(records[1].ttl(), 0, "the top bit makes it 0");
        assert_eq!(records[1].rdata(), [192, 0, 2, 1]);
        assert_eq!((records[2].section, records[2].rtype), (Section::Additional, Qtype::OPT));
    }

    #[test]
    fn every_cut_is_an_error() {
        for cut in 0..RESPONSE.len() {
            let message = &RESPONSE[..cut];
            let whole = Header::read(message).is_some_and(|header| {
                Question::read(message)
                    .is_ok_and(|question| Records::new(message, &header, question.end).all(|r| r.is_ok()))
            });
            assert!(!whole, "cut at {cut}");
        }
    }

    #[test]
    fn counts_beyond_the_octets_end_the_walk_at_once() {
        let mut message = RESPONSE.to_vec();
        message[6..12].fill(0xff);
        let header = Header::read(&message).unwrap();
        let question = Question::read(&message).unwrap();
        assert_eq!(Records::new(&message, &header, question.end).count(), 4);
    }
}
