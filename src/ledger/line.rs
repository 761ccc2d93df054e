//! One line of the ledger: how it is sealed, and how it is read back without trust.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::de::IgnoredAny;

use super::key::{PublicKey, SIGNATURE_OCTETS, SigningKey};
use super::{Event, Head};
use crate::digest::Digest;

/// The most octets of a line, its newline not counted.
pub const LINE_OCTETS_MAX: usize = 1 << 20;

/// The most octets of a line beside its event: braces, number, time, hash and signature.
const FRAME_OCTETS_MAX: usize = 512;

/// What the first line has for a hash of the line before.
pub(super) const NO_LINE: Digest = Digest([0; 32]);

/// Characters of a signature: 64 octets in base64.
const SIGNATURE_CHARACTERS: usize = SIGNATURE_OCTETS.div_ceil(3) * 4;

/// Characters of a hash.
const HASH_CHARACTERS: usize = 64;

/// An event as its line will have it, without number, hash and signature; None: longer than a line may be.
pub(super) fn body(at: Timestamp, event: &Event) -> Option<String> {
    // Maps with text for keys, numbers, texts and times only: this cannot fail.
    let event = serde_json::to_string(event).unwrap_or_default();
    let inside = event.strip_prefix('{')?.strip_suffix('}')?;
    let body = format!("\"at\":\"{at}\",{inside}");
    (body.len() + FRAME_OCTETS_MAX <= LINE_OCTETS_MAX).then_some(body)
}

/// Writes the line behind `head`, its newline included, and returns what the head is then.
pub(super) fn seal(text: &mut String, head: Option<&Head>, body: &str, key: &SigningKey) -> Head {
    let (number, prev) = head.map_or((1, NO_LINE), |head| (head.number + 1, head.hash));
    let start = text.len();
    text.push_str(&format!("{{\"n\":{number},{body},\"prev\":\"{prev}\""));
    let signature = BASE64.encode(key.sign(&text.as_bytes()[start..]));
    text.push_str(&format!(",\"sig\":\"{signature}\"}}"));
    let hash = Digest::of(&text.as_bytes()[start..]);
    text.push('\n');
    Head { number, hash }
}

/// What is broken about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be read from the disk.
    Unreadable(String),
    /// It is longer than [`LINE_OCTETS_MAX`].
    TooLong,
    /// The file ends inside it.
    Torn,
    /// It is not JSON.
    NotJson,
    /// It is JSON, and not a line of a ledger.
    NotALine,
    /// Its number does not follow that of the line before.
    Number {
        /// That of the line before, plus one.
        expected: u64,
        /// Its own.
        found: u64,
    },
    /// Its hash is not that of the line before.
    Hash,
    /// Its signature is not one by the key.
    Signature,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::TooLong => write!(f, "longer than {LINE_OCTETS_MAX} octets"),
            Self::Torn => f.write_str("torn: the file ends inside it"),
            Self::NotJson => f.write_str("not JSON"),
            Self::NotALine => f.write_str("JSON, but not a line of a ledger"),
            Self::Number { expected, found } => write!(f, "number: {found} stands where {expected} should"),
            Self::Hash => f.write_str("hash: it does not continue the line before, or that line was changed"),
            Self::Signature => f.write_str("signature: not one by this key over these octets"),
        }
    }
}

/// A line that has the form of one. Whether it is true is another question: [`Self::follows`].
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    octets: &'a [u8],
    /// Its number, from 1.
    pub number: u64,
    /// When its event happened, by the node's clock.
    pub at: Timestamp,
    event: &'a str,
    prev: Digest,
    signed: &'a [u8],
    signature: [u8; SIGNATURE_OCTETS],
}

impl<'a> Line<'a> {
    /// Reads a line, its newline not included.
    ///
    /// # Errors
    /// What keeps it from being one.
    pub fn read(octets: &'a [u8]) -> Result<Self, Fault> {
        if octets.len() > LINE_OCTETS_MAX {
            return Err(Fault::TooLong);
        }
        let text = str::from_utf8(octets).map_err(|_| Fault::NotJson)?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| Fault::NotJson)?;
        Self::of(text).ok_or(Fault::NotALine)
    }

    fn of(text: &'a str) -> Option<Self> {
        let (signed, signature) = ending(text.strip_suffix("\"}")?, SIGNATURE_CHARACTERS, ",\"sig\":\"")?;
        let (before, prev) = ending(signed.strip_suffix('"')?, HASH_CHARACTERS, ",\"prev\":\"")?;
        let (number, rest) = before.strip_prefix("{\"n\":")?.split_once(",\"at\":\"")?;
        let (at, event) = rest.split_once("\",")?;
        Some(Self {
            octets: text.as_bytes(),
            number: number.parse().ok()?,
            at: at.parse().ok()?,
            event,
            prev: prev.parse().ok()?,
            signed: signed.as_bytes(),
            // Strict: padding is demanded, and bits that say nothing must be zero.
            signature: BASE64.decode(signature).ok()?.try_into().ok()?,
        })
    }

    /// The hash by which the next line names it.
    #[must_use]
    pub fn hash(&self) -> Digest {
        Digest::of(self.octets)
    }

    /// What happened; None: something that this version has no words for.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        serde_json::from_str(&format!("{{{}}}", self.event)).ok()
    }

    /// Its octets, as they are in the file.
    #[must_use]
    pub const fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// Whether it is the line behind `head`, signed by `key`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn follows(&self, head: Option<&Head>, key: &PublicKey) -> Result<(), Fault> {
        let (expected, prev) = head.map_or((1, NO_LINE), |head| (head.number + 1, head.hash));
        if self.number != expected {
            return Err(Fault::Number { expected, found: self.number });
        }
        if self.prev != prev {
            return Err(Fault::Hash);
        }
        if key.has_signed(self.signed, &self.signature) { Ok(()) } else { Err(Fault::Signature) }
    }
}

/// What stands before `mark` and behind it, where `length` octets stand behind it.
fn ending<'a>(text: &'a str, length: usize, mark: &str) -> Option<(&'a str, &'a str)> {
    let (before, value) = text.split_at_checked(text.len().checked_sub(length)?)?;
    Some((before.strip_suffix(mark)?, value))
}
