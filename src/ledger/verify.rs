//! A ledger read line by line and checked on the way, from nothing but its file and the public key.

use std::fmt;
use std::io::{self, BufRead, Read};

use jiff::Timestamp;

use super::key::PublicKey;
use super::line::{Fault, LINE_OCTETS_MAX, Line};
use super::{Event, Head, Note};
use crate::digest::Digest;

/// The first line that is broken, and what is broken about it. Nothing behind it is proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its number, from 1: the place in the file.
    pub line: u64,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.fault)
    }
}

/// A ledger of which every line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The time of the first line.
    pub first: Timestamp,
    /// The time of the last line.
    pub last: Timestamp,
    /// The last line; its number is how many there are.
    pub head: Head,
    /// The number of the line with the hash that was asked for; None: no line has it.
    pub known: Option<u64>,
}

/// Why a ledger proves nothing as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It has no line at all.
    Empty,
    /// One line does not hold.
    Broken(Broken),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no line in it; a ledger has at least the one of its first start"),
            Self::Broken(broken) => broken.fmt(f),
        }
    }
}

/// Checks every line, in bounded memory; `known` is the hash of a line that was written down elsewhere.
///
/// # Errors
/// The first line that does not hold.
pub fn verify(input: impl BufRead, key: PublicKey, known: Option<&Digest>) -> Result<Verified, Refused> {
    let mut ledger = Checked::new(input, key);
    let (mut first, mut last, mut found) = (None, Timestamp::MIN, None);
    while let Some(line) = ledger.next_line().map_err(Refused::Broken)? {
        first.get_or_insert(line.at);
        last = line.at;
        if known == Some(&line.hash()) {
            found = Some(line.number);
        }
    }
    let (Some(first), Some(head)) = (first, ledger.head) else { return Err(Refused::Empty) };
    Ok(Verified { first, last, head, known: found })
}

/// The key that a ledger's first line names; None: it names none. It proves that all lines have one author, not who.
#[must_use]
pub fn key_named_in(input: impl BufRead) -> Option<PublicKey> {
    let mut lines = Lines::new(input);
    match Line::read(lines.next_octets().ok()??).ok()?.event()? {
        Event::Node(Note::Started { key, .. }) => key.parse().ok(),
        _ => None,
    }
}

/// The lines of a ledger, each checked before it is handed on.
#[derive(Debug)]
pub struct Checked<R> {
    lines: Lines<R>,
    key: PublicKey,
    head: Option<Head>,
}

impl<R: BufRead> Checked<R> {
    /// From the first line on.
    pub const fn new(input: R, key: PublicKey) -> Self {
        Self { lines: Lines::new(input), key, head: None }
    }

    /// The next line; None: there is none.
    ///
    /// # Errors
    /// What is wrong with it. It makes no sense to go on behind that.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, Broken> {
        let number = self.head.as_ref().map_or(1, |head| head.number + 1);
        let broken = |fault| Broken { line: number, fault };
        let Some(octets) = self.lines.next_octets().map_err(broken)? else { return Ok(None) };
        let line = Line::read(octets).map_err(broken)?;
        line.follows(self.head.as_ref(), &self.key).map_err(broken)?;
        self.head = Some(Head { number: line.number, hash: line.hash() });
        Ok(Some(line))
    }

    /// The last line that was handed on.
    pub const fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }
}

/// The lines of a file as they are, each bounded.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    octets: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// From the first line on.
    pub const fn new(input: R) -> Self {
        Self { input, octets: Vec::new() }
    }

    /// The octets of the next line without its newline; None: there is none.
    ///
    /// # Errors
    /// When it has no end, or none within its bound.
    pub fn next_octets(&mut self) -> Result<Option<&[u8]>, Fault> {
        self.octets.clear();
        let mut bounded = self.input.by_ref().take(LINE_OCTETS_MAX as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.octets);
        let read = read.map_err(|error: io::Error| Fault::Unreadable(error.to_string()))?;
        match self.octets.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(&self.octets)),
            Some(_) if read > LINE_OCTETS_MAX => Err(Fault::TooLong),
            Some(_) => Err(Fault::Torn),
        }
    }
}
