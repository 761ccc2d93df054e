//! Where HTTP/2 frames begin and end in what a client sends (RFC 9113 §4.1).

/// What a client sends first (RFC 9113 §3.4).
const PREFACE_OCTETS: usize = 24;

const HEADER_OCTETS: usize = 9;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Follows frames as their octets come in; h2 itself does not say that it waits for the rest of one.
#[derive(Debug)]
pub struct Frames {
    header: [u8; HEADER_OCTETS],
    /// Octets of `header` that are there.
    read: usize,
    /// Octets still to come of the preface or of a frame's payload.
    left: usize,
    /// Between HEADERS and the frame that has END_HEADERS.
    in_field_block: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

impl Frames {
    /// In front of the preface.
    #[must_use]
    pub const fn new() -> Self {
        Self { header: [0; HEADER_OCTETS], read: 0, left: PREFACE_OCTETS, in_field_block: false }
    }

    /// Takes what was read; whether the rest of a frame, or of a field block, is still to come.
    pub fn follow(&mut self, mut octets: &[u8]) -> bool {
        while !octets.is_empty() {
            octets = if self.left > 0 { self.skip(octets) } else { self.read_header(octets) };
        }
        self.left > 0 || self.read > 0 || self.in_field_block
    }

    fn skip<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let taken = self.left.min(octets.len());
        self.left -= taken;
        &octets[taken..]
    }

    fn read_header<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        // Nearly always the whole of it is there.
        if self.read == 0
            && let Some((header, rest)) = octets.split_first_chunk()
        {
            self.begin(*header);
            return rest;
        }
        let taken = (HEADER_OCTETS - self.read).min(octets.len());
        self.header[self.read..self.read + taken].copy_from_slice(&octets[..taken]);
        self.read += taken;
        if self.read == HEADER_OCTETS {
            self.begin(self.header);
        }
        &octets[taken..]
    }

    fn begin(&mut self, header: [u8; HEADER_OCTETS]) {
        let [a, b, c, kind, flags, _, _, _, _] = header;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        self.read = 0;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.in_field_block = flags & END_HEADERS == 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The preface, SETTINGS, HEADERS and CONTINUATION, PING.
    const SENT: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
        \0\0\x03\x01\x01\0\0\0\x01abc\0\0\x02\x09\x04\0\0\0\x01de\0\0\x08\x06\0\0\0\0\0abcdefgh";

    /// Where nothing is outstanding: behind the preface and each whole frame, but not between the two of a field block.
    const ENDS: [usize; 4] = [24, 33, 33 + 12 + 11, SENT.len()];

    #[test]
    fn every_cut_knows_whether_a_rest_is_to_come() {
        for cut in 1..=SENT.len() {
            assert_eq!(Frames::new().follow(&SENT[..cut]), !ENDS.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn octets_one_at_a_time_read_the_same() {
        let mut frames = Frames::new();
        for (at, octet) in SENT.iter().enumerate() {
            assert_eq!(frames.follow(&[*octet]), !ENDS.contains(&(at + 1)), "at {at}");
        }
    }
}
