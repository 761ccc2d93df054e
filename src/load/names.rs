//! The names file: what is asked, read once, with its mistakes at their places.

use std::fs;
use std::path::Path;

use crate::dns::edns::{OPT_OCTETS, UDP_PAYLOAD_OCTETS, option};
use crate::dns::message::{Header, flag};
use crate::dns::{HEADER_OCTETS, Name, Qclass, Qtype};
use crate::mistake::{MISTAKES_MAX, Mistake};

/// The most lines that ask something: each is some 40 octets kept, 130 padded.
const QUERIES_MAX: usize = 4_000_000;

/// Padded queries are a multiple of this many octets (RFC 8467 §4.1).
const PADDING_BLOCK_OCTETS: usize = 128;

/// Queries in wire form, their IDs 0.
#[derive(Debug, Default)]
pub struct Queries {
    octets: Vec<u8>,
    places: Vec<Place>,
}

/// Where a query stands among the octets.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u32,
    octets: u16,
    question_octets: u16,
}

impl Queries {
    /// Reads the file: `NAME [TYPE]` a line, A where no type is said, comments behind `#`.
    ///
    /// # Errors
    /// Every mistake, [`MISTAKES_MAX`] at most; a file that asks nothing is one.
    pub fn read(file: &Path, padded: bool) -> Result<Self, Vec<Mistake>> {
        let octets = fs::read(file)
            .map_err(|error| vec![Mistake::of_file(file, format!("{error}; name a file of names with --names"))])?;
        match str::from_utf8(&octets) {
            Ok(text) => Self::parse(file, text, padded),
            Err(error) => {
                let valid = String::from_utf8_lossy(&octets[..error.valid_up_to()]);
                let what = "not UTF-8; save the file in that encoding";
                Err(vec![Mistake::at(file, &valid, valid.len()..valid.len(), what)])
            }
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(file: &Path, text: &str, padded: bool) -> Result<Self, Vec<Mistake>> {
        let (mut queries, mut mistakes) = (Self::default(), Vec::new());
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            match question(line) {
                Ok(Some((name, qtype))) => queries.push(&name, qtype, padded),
                Ok(None) => {}
                Err((at, what)) => mistakes.push(Mistake::at(file, text, start + at..start + at, what)),
            }
            if mistakes.len() == MISTAKES_MAX {
                break;
            }
            if queries.places.len() > QUERIES_MAX {
                mistakes.push(Mistake::of_file(file, format!("more than {QUERIES_MAX} names; split it")));
                break;
            }
            start += line.len();
        }
        if mistakes.is_empty() && queries.places.is_empty() {
            mistakes.push(Mistake::of_file(file, "asks nothing; write a name a line, such as `www.example.org AAAA`"));
        }
        if mistakes.is_empty() { Ok(queries) } else { Err(mistakes) }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A query's octets.
    #[must_use]
    pub fn message(&self, number: u32) -> &[u8] {
        let place = self.places[number as usize];
        &self.octets[place.at as usize..][..usize::from(place.octets)]
    }

    /// The octets of a query's question.
    #[must_use]
    pub fn question(&self, number: u32) -> &[u8] {
        let place = self.places[number as usize];
        &self.octets[place.at as usize + HEADER_OCTETS..][..usize::from(place.question_octets)]
    }

    fn push(&mut self, name: &Name, qtype: Qtype, padded: bool) {
        let at = self.octets.len();
        let header = Header { id: 0, flags: flag::RD, counts: [1, 0, 0, u16::from(padded)] };
        self.octets.extend(header.octets());
        self.octets.extend(name.as_wire());
        self.octets.extend(qtype.0.to_be_bytes());
        self.octets.extend(Qclass::IN.0.to_be_bytes());
        let question_octets = self.octets.len() - at - HEADER_OCTETS;
        if padded {
            pad(&mut self.octets, at);
        }
        let octets = self.octets.len() - at;
        // A question has at most 259 octets and padding is a block; QUERIES_MAX of those are below 4 GiB.
        let place = Place { at: at as u32, octets: octets as u16, question_octets: question_octets as u16 };
        self.places.push(place);
    }
}

/// An OPT whose padding (RFC 7830) fills the last block of the message that begins at `at`.
fn pad(out: &mut Vec<u8>, at: usize) {
    let size = out.len() - at + OPT_OCTETS + 4;
    let padding = size.next_multiple_of(PADDING_BLOCK_OCTETS) - size;
    out.push(0);
    for word in [Qtype::OPT.0, UDP_PAYLOAD_OCTETS, 0, 0, 4 + padding as u16, option::PADDING, padding as u16] {
        out.extend(word.to_be_bytes());
    }
    out.resize(out.len() + padding, 0);
}

/// What a line asks, if it asks something; or where in it a mistake begins, and what it is.
fn question(line: &str) -> Result<Option<(Name, Qtype)>, (usize, String)> {
    let text = line.split('#').next().unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    let Some(name) = words.next() else { return Ok(None) };
    let place = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize;
    let asked = Name::from_text(name).map_err(|error| (place(name), format!("{name}: {error}")))?;
    let qtype = words.next().map_or(Ok(Qtype::A), |word| {
        let unknown = || (place(word), format!("`{word}` is no type; write a mnemonic, or TYPE and a number"));
        Qtype::from_text(word).ok_or_else(unknown)
    })?;
    match words.next() {
        Some(word) => Err((place(word), format!("`{word}` is too much; a line is NAME [TYPE]"))),
        None => Ok(Some((asked, qtype))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use hickory_proto::op::Message;

    use super::*;

    fn parse(text: &str, padded: bool) -> Result<Queries, Vec<String>> {
        let shown = |mistakes: Vec<Mistake>| mistakes.iter().map(ToString::to_string).collect();
        Queries::parse(Path::new("n.txt"), text, padded).map_err(shown)
    }

    #[test]
    fn a_line_is_a_name_and_maybe_a_type() {
        let text = "# names\nwww.example.org\n\n  B\u{fc}cher.example. AAAA # two\r\n_dns.example type64\n.\tNS";
        let queries = parse(text, false).unwrap();
        let asked = |number| {
            let message = Message::from_vec(queries.message(number)).unwrap();
            assert!(message.metadata.id == 0 && message.metadata.recursion_desired && message.edns.is_none());
            message.queries[0].to_string()
        };
        let all: Vec<_> = (0..queries.len() as u32).map(asked).collect();
        let want = ["www.example.org. IN A", "b\u{fc}cher.example. IN AAAA", "_dns.example. IN SVCB", ". IN NS"];
        // hickory shows A-labels as they were written.
        assert_eq!(all, want);
        assert!(queries.question(1).starts_with(b"\x0dxn--bcher-kva"));
        assert_eq!(queries.question(3), b"\0\0\x02\0\x01");
    }

    #[test]
    fn padding_fills_whole_blocks() {
        let long = [["a".repeat(63), "b".repeat(63), "c".repeat(63)].join("."), "d".repeat(61)].join(".");
        let queries = parse(&format!("a.example\n{long}\n{}.example", "e".repeat(63)), true).unwrap();
        for number in 0..3 {
            let message = Message::from_vec(queries.message(number)).unwrap();
            assert!(message.edns.is_some() && queries.message(number).len().is_multiple_of(PADDING_BLOCK_OCTETS));
            let question = queries.question(number);
            assert_eq!(question, &queries.message(number)[HEADER_OCTETS..][..question.len()]);
        }
        assert_eq!(queries.message(1).len(), 3 * PADDING_BLOCK_OCTETS);
    }

    #[test]
    fn every_mistake_has_its_place() {
        let found = parse("a..example\n ok.example AAAA NOW\n\u{e9}.example  QUAD\nok.example", false).unwrap_err();
        let places: Vec<_> = found.iter().map(|mistake| mistake.split(": ").next().unwrap()).collect();
        assert_eq!(places, ["n.txt:1:1", "n.txt:2:18", "n.txt:3:12"]);
        assert!(found[2].contains("`QUAD` is no type"), "{found:?}");
        assert!(parse(&"..\n".repeat(1_000), false).unwrap_err().len() == MISTAKES_MAX);
        assert!(parse("# none\n", false).unwrap_err()[0].starts_with("n.txt: asks nothing"));
        let missing = Queries::read(Path::new("no/such/file"), false).unwrap_err();
        assert!(missing[0].to_string().starts_with("no/such/file: "), "{missing:?}");
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("latin");
        fs::write(&file, b"a.example\nb\xfccher.example\n").unwrap();
        let latin = Queries::read(&file, false).unwrap_err();
        assert!(
            latin.len() == 1 && latin[0].to_string().ends_with("latin:2:2: not UTF-8; save the file in that encoding")
        );
    }
}
