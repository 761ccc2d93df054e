//! A domain name in wire form with its case folded, walked from the root.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::HEADER_OCTETS;

/// The longest name in wire form, in octets (RFC 1035 §2.3.4).
pub const NAME_OCTETS_MAX: usize = 255;

/// The most labels a name can have, the root's not counted: 127 one-octet labels fill 254 octets.
pub const LABELS_MAX: usize = 127;

/// The most compression pointers that one name follows: one for each label is more than any compressor makes, and
/// without a bound every record of a message could lead through the same 30,000 of them.
pub const POINTERS_MAX: usize = LABELS_MAX;

/// A domain name: uncompressed wire form, ASCII letters in lower case, the root's zero octet last.
///
/// Two names are equal as DNS compares them (RFC 4343), so the wire form can be compared and hashed as it is.
#[derive(Clone)]
pub struct Name {
    octets: [u8; NAME_OCTETS_MAX],
    len: u8,
    /// Where each label's length octet stands, leftmost label first.
    offsets: [u8; LABELS_MAX],
    labels: u8,
}

/// Why octets or text are not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// The octets end inside the name.
    Truncated,
    /// A label of more than 63 octets.
    LabelTooLong,
    /// More than 255 octets in wire form.
    NameTooLong,
    /// A label type other than a plain label or a pointer (RFC 1035 §4.1.4, RFC 6891 §5).
    BadLabelType,
    /// A compression pointer that does not point to an earlier place behind the header.
    BadPointer,
    /// More than [`POINTERS_MAX`] compression pointers.
    TooManyPointers,
    /// A label without octets before the end of the name.
    EmptyLabel,
    /// A `\` that is not followed by a character or three digits up to 255 (RFC 1035 §5.1).
    BadEscape,
    /// An international name that is not valid under UTS 46.
    BadIdna,
    /// A character that has no place in a name: a space, a control character.
    BadCharacter,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "name cut short",
            Self::LabelTooLong => "label longer than 63 octets",
            Self::NameTooLong => "name longer than 255 octets",
            Self::BadLabelType => "unknown label type",
            Self::BadPointer => "compression pointer that does not point back",
            Self::TooManyPointers => "too many compression pointers",
            Self::EmptyLabel => "empty label",
            Self::BadEscape => "bad escape: \\ takes one character or three digits up to 255",
            Self::BadIdna => "not a valid international name",
            Self::BadCharacter => "character that cannot stand in a name",
        })
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The root.
    #[must_use]
    pub const fn root() -> Self {
        Self { octets: [0; NAME_OCTETS_MAX], len: 1, offsets: [0; LABELS_MAX], labels: 0 }
    }

    /// Reads the name that stands at `at` in a message, and where what follows it begins.
    ///
    /// Pointers are followed only to earlier places (RFC 1035 §4.1.4: "a prior occurrence") and at most
    /// [`POINTERS_MAX`] times, so that the names of a message take time in proportion to its octets.
    ///
    /// # Errors
    /// See [`NameError`]; the name is not usable then.
    pub fn parse(message: &[u8], at: usize) -> Result<(Self, usize), NameError> {
        let mut name = Self::root();
        let end = name.read(message, at)?;
        Ok((name, end))
    }

    /// The same, in the place of the root: a name is large, and moving it costs more than reading it.
    pub(super) fn read(&mut self, message: &[u8], at: usize) -> Result<usize, NameError> {
        let mut end = None;
        let mut place = at;
        // Each pointer must point before every place read so far; this is the lowest, and where the labels begin that
        // stand side by side: they are copied together.
        let mut lowest = at;
        let mut pointers = 0usize;
        let (mut copied, mut len) = (0usize, 0usize);
        loop {
            let length = *message.get(place).ok_or(NameError::Truncated)? as usize;
            match length {
                0 => {
                    self.octets[copied..len].copy_from_slice(&message[lowest..place]);
                    self.octets[len] = 0;
                    // Lengths of labels are below every letter.
                    self.octets[..len].make_ascii_lowercase();
                    self.len = (len + 1) as u8;
                    return Ok(end.unwrap_or(place + 1));
                }
                1..=63 => {
                    if place + 1 + length > message.len() {
                        return Err(NameError::Truncated);
                    }
                    // One octet stays free for the root.
                    if len + 1 + length >= NAME_OCTETS_MAX {
                        return Err(NameError::NameTooLong);
                    }
                    self.offsets[usize::from(self.labels)] = len as u8;
                    self.labels += 1;
                    len += 1 + length;
                    place += 1 + length;
                }
                0xc0..=0xff => {
                    let low = *message.get(place + 1).ok_or(NameError::Truncated)? as usize;
                    let target = (length & 0x3f) << 8 | low;
                    // A label made of header octets would change with the ID.
                    if target >= lowest || target < HEADER_OCTETS {
                        return Err(NameError::BadPointer);
                    }
                    pointers += 1;
                    if pointers > POINTERS_MAX {
                        return Err(NameError::TooManyPointers);
                    }
                    end.get_or_insert(place + 2);
                    self.octets[copied..len].copy_from_slice(&message[lowest..place]);
                    copied = len;
                    lowest = target;
                    place = target;
                }
                _ => return Err(NameError::BadLabelType),
            }
        }
    }

    /// Where the octets behind the name at `at` begin, without following its pointer.
    ///
    /// # Errors
    /// When the octets end inside the name or a label type is unknown.
    pub fn skip(message: &[u8], at: usize) -> Result<usize, NameError> {
        let mut place = at;
        loop {
            let length = *message.get(place).ok_or(NameError::Truncated)? as usize;
            match length {
                0 => return Ok(place + 1),
                1..=63 => place += 1 + length,
                0xc0..=0xff if place + 1 < message.len() => return Ok(place + 2),
                0xc0..=0xff => return Err(NameError::Truncated),
                _ => return Err(NameError::BadLabelType),
            }
            if place - at >= NAME_OCTETS_MAX {
                return Err(NameError::NameTooLong);
            }
        }
    }

    /// Reads a name as people write it: with or without the final dot, in any case, `\` escapes of RFC 1035 §5.1,
    /// Unicode labels made A-labels (UTS 46, non-transitional). Underscores are legal (RFC 2181 §11). `.` is the root.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn from_text(text: &str) -> Result<Self, NameError> {
        if text.is_ascii() {
            return Self::from_ascii(text.as_bytes());
        }
        if text.contains('\\') {
            return Err(NameError::BadIdna);
        }
        let ascii = idna::domain_to_ascii(text).map_err(|_| NameError::BadIdna)?;
        Self::from_ascii(ascii.as_bytes())
    }

    /// Becomes the name that is written as labels of these very octets with dots between them, no final one. In place: a
    /// name is large, and whoever reads a million of them would mostly move them.
    ///
    /// # Errors
    /// When a label is empty, or it or the name is too long; the name is then any.
    pub(crate) fn rewrite(&mut self, text: &[u8]) -> Result<(), NameError> {
        // A length octet before the first label, and the root.
        if text.len() + 2 > NAME_OCTETS_MAX {
            return Err(NameError::NameTooLong);
        }
        self.labels = 0;
        // The length of a label stands where the dot before it is written.
        let mut start = 0;
        for (at, octet) in (1..).zip(text) {
            if *octet == b'.' {
                self.end_label(start, at)?;
                start = at;
            } else {
                self.octets[at] = octet.to_ascii_lowercase();
            }
        }
        let root = 1 + text.len();
        self.end_label(start, root)?;
        self.octets[root] = 0;
        self.len = (root + 1) as u8;
        Ok(())
    }

    /// Notes a label whose length octet stands at `start`, and that ends before `end`.
    fn end_label(&mut self, start: usize, end: usize) -> Result<(), NameError> {
        self.octets[start] = match end - start - 1 {
            0 => return Err(NameError::EmptyLabel),
            length @ 1..=63 => length as u8,
            _ => return Err(NameError::LabelTooLong),
        };
        self.offsets[usize::from(self.labels)] = start as u8;
        self.labels += 1;
        Ok(())
    }

    fn from_ascii(text: &[u8]) -> Result<Self, NameError> {
        if text == b"." {
            return Ok(Self::root());
        }
        let mut draft = Draft { name: Self::root(), len: 0, label: None };
        let mut rest = text;
        while let Some((character, tail)) = next_character(rest)? {
            match character {
                Character::Dot => draft.label.take().map(drop).ok_or(NameError::EmptyLabel)?,
                Character::Octet(octet) => draft.push(octet)?,
            }
            rest = tail;
        }
        draft.finish()
    }

    /// The wire form, folded, the root's zero octet last.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }

    /// How many labels, the root's not counted.
    #[must_use]
    pub fn labels(&self) -> usize {
        usize::from(self.labels)
    }

    /// The wire form of the rightmost `count` labels and the root; `count` is at most [`Self::labels`].
    #[must_use]
    pub fn suffix(&self, count: usize) -> &[u8] {
        let skipped = self.labels() - count;
        let start = if count == 0 { usize::from(self.len) - 1 } else { usize::from(self.offsets[skipped]) };
        &self.octets[start..usize::from(self.len)]
    }

    /// Octets of the wire form left of the rightmost `count` labels.
    #[must_use]
    pub fn prefix_octets(&self, count: usize) -> usize {
        usize::from(self.len) - self.suffix(count).len()
    }

    /// The label `depth` steps from the root, 1 being the top-level one, without its length octet.
    #[must_use]
    pub fn label_from_root(&self, depth: usize) -> &[u8] {
        let start = usize::from(self.offsets[self.labels() - depth]);
        let length = usize::from(self.octets[start]);
        &self.octets[start + 1..start + 1 + length]
    }

    /// Whether this is `ancestor` or a name below it.
    #[must_use]
    pub fn is_at_or_below(&self, ancestor: &Self) -> bool {
        self.labels >= ancestor.labels && self.suffix(ancestor.labels()) == ancestor.as_wire()
    }

    /// The name made of the rightmost `count` labels.
    #[must_use]
    pub fn ancestor(&self, count: usize) -> Self {
        let mut name = Self::root();
        let suffix = self.suffix(count);
        name.octets[..suffix.len()].copy_from_slice(suffix);
        name.len = suffix.len() as u8;
        let skipped = self.labels() - count;
        let start = self.prefix_octets(count) as u8;
        for (to, from) in name.offsets.iter_mut().zip(&self.offsets[skipped..self.labels()]) {
            *to = from - start;
        }
        name.labels = count as u8;
        name
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.labels == 0
    }
}

/// What stands in presentation form: an octet of a label, or the dot between two.
enum Character {
    Dot,
    Octet(u8),
}

/// The first character of a presentation form (RFC 1035 §5.1) and what is behind it.
fn next_character(text: &[u8]) -> Result<Option<(Character, &[u8])>, NameError> {
    let (octet, tail) = match text {
        [] => return Ok(None),
        [b'.', tail @ ..] => return Ok(Some((Character::Dot, tail))),
        [b'\\', a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', tail @ ..] => {
            let value = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
            (u8::try_from(value).map_err(|_| NameError::BadEscape)?, tail)
        }
        [b'\\', b'0'..=b'9', ..] | [b'\\'] => return Err(NameError::BadEscape),
        [b'\\', octet, tail @ ..] => (*octet, tail),
        [0..=b' ' | 0x7f, ..] => return Err(NameError::BadCharacter),
        [octet, tail @ ..] => (*octet, tail),
    };
    Ok(Some((Character::Octet(octet), tail)))
}

/// A name being written, label by label.
struct Draft {
    name: Name,
    /// Octets used.
    len: usize,
    /// Where the open label's length octet stands.
    label: Option<usize>,
}

impl Draft {
    fn push(&mut self, octet: u8) -> Result<(), NameError> {
        let label = match self.label {
            Some(label) => label,
            None => self.open()?,
        };
        if self.name.octets[label] == 63 {
            return Err(NameError::LabelTooLong);
        }
        self.name.octets[label] += 1;
        self.put(octet.to_ascii_lowercase())
    }

    fn open(&mut self) -> Result<usize, NameError> {
        let label = self.len;
        // A label of no octets yet; there must be room for one, and for the root.
        if label + 3 > NAME_OCTETS_MAX {
            return Err(NameError::NameTooLong);
        }
        self.put(0)?;
        self.name.offsets[usize::from(self.name.labels)] = label as u8;
        self.name.labels += 1;
        self.label = Some(label);
        Ok(label)
    }

    /// One octet always stays free for the root.
    fn put(&mut self, octet: u8) -> Result<(), NameError> {
        if self.len + 1 >= NAME_OCTETS_MAX {
            return Err(NameError::NameTooLong);
        }
        self.name.octets[self.len] = octet;
        self.len += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Name, NameError> {
        if self.len == 0 {
            return Err(NameError::EmptyLabel);
        }
        self.name.octets[self.len] = 0;
        self.name.len = (self.len + 1) as u8;
        Ok(self.name)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_wire() == other.as_wire()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_wire().hash(state);
    }
}

impl fmt::Display for Name {
    /// Presentation form without the final dot; the root is `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        if self.is_root() {
            return f.write_char('.');
        }
        for depth in (1..=self.labels()).rev() {
            for &octet in self.label_from_root(depth) {
                match octet {
                    b'.' | b'\\' => write!(f, "\\{}", char::from(octet))?,
                    b'!'..=b'~' => f.write_char(char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            if depth > 1 {
                f.write_char('.')?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    #[test]
    fn text_and_wire_meet() {
        let www = name("WWW.Example.ORG.");
        assert_eq!(www.as_wire(), b"\x03www\x07example\x03org\x00");
        assert_eq!(www, Name::parse(b"\x03wWw\x07EXAMPLE\x03org\x00", 0).unwrap().0);
        assert_eq!(www.to_string(), "www.example.org");
        assert_eq!(www.labels(), 3);
        assert_eq!(www.suffix(2), b"\x07example\x03org\x00");
        assert_eq!(www.suffix(0), b"\x00");
        assert_eq!(www.prefix_octets(2), 4);
        assert_eq!(www.label_from_root(1), b"org");
        assert_eq!(www.ancestor(2), name("example.org"));
        assert_eq!(www.ancestor(2).label_from_root(2), b"example");
        assert!(www.is_at_or_below(&name("org")));
        assert!(www.is_at_or_below(&Name::root()));
        assert!(!name("xexample.org").is_at_or_below(&name("example.org")));
    }

    #[test]
    fn escapes_and_international_names() {
        assert_eq!(name(r"a\.b.c").as_wire(), b"\x03a.b\x01c\x00");
        assert_eq!(name(r"a\.b.c").to_string(), r"a\.b.c");
        assert_eq!(name(r"\000\255x").to_string(), r"\000\255x");
        assert_eq!(name("bücher.example"), name("xn--bcher-kva.example"));
        assert_eq!(name("_dns.resolver.arpa").labels(), 3);
        assert_eq!(Name::from_text(r"a\25"), Err(NameError::BadEscape));
        assert_eq!(Name::from_text(r"a\256"), Err(NameError::BadEscape));
        assert_eq!(Name::from_text("a b"), Err(NameError::BadCharacter));
        assert_eq!(Name::from_text("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(Name::from_text(".a"), Err(NameError::EmptyLabel));
        assert_eq!(Name::from_text(""), Err(NameError::EmptyLabel));
        assert_eq!(name("."), Name::root());
    }

    #[test]
    fn a_rewritten_name_is_as_if_it_were_new() {
        let mut reused = name("quite.another.and.longer.name");
        // A length that is the octet of a dot.
        let dotted = format!("{0}.{0}.example", "c".repeat(46));
        for text in ["www.Example.ORG", "a", "_b.x-1.example", &"a.".repeat(126), &"b".repeat(63), &dotted] {
            let text = text.strip_suffix('.').unwrap_or(text);
            reused.rewrite(text.as_bytes()).unwrap();
            assert_eq!(reused, name(text));
            assert_eq!((reused.labels(), reused.to_string()), (name(text).labels(), name(text).to_string()));
            assert_eq!(reused.label_from_root(1), name(text).label_from_root(1));
        }
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "a".repeat(61));
        assert_eq!(reused.rewrite(longest.as_bytes()), Ok(()));
        assert_eq!(reused, name(&longest));
        assert_eq!(reused.rewrite(format!("{longest}a").as_bytes()), Err(NameError::NameTooLong));
        assert_eq!(reused.rewrite("a".repeat(64).as_bytes()), Err(NameError::LabelTooLong));
        for text in ["", ".", ".a", "a.", "a..b"] {
            assert_eq!(reused.rewrite(text.as_bytes()), Err(NameError::EmptyLabel), "{text}");
        }
    }

    #[test]
    fn lengths_have_their_bounds() {
        let label = "a".repeat(63);
        assert!(Name::from_text(&label).is_ok());
        assert_eq!(Name::from_text(&"a".repeat(64)), Err(NameError::LabelTooLong));
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(name(&longest).as_wire().len(), 255);
        assert_eq!(Name::from_text(&format!("{longest}a")), Err(NameError::NameTooLong));
        let most = vec!["a"; 127].join(".");
        assert_eq!(name(&most).labels(), 127);
        assert_eq!(Name::from_text(&format!("{most}.a")), Err(NameError::NameTooLong));
        for text in [&longest, &most] {
            let wire = name(text).as_wire().to_vec();
            assert_eq!(Name::parse(&wire, 0).unwrap().0, name(text));
            assert_eq!(Name::skip(&wire, 0), Ok(wire.len()));
            let mut longer = vec![1, b'a'];
            longer.extend(&wire);
            assert_eq!(Name::parse(&longer, 0).err(), Some(NameError::NameTooLong));
        }
    }

    /// Twelve octets for the header, then `octets`.
    fn message(octets: &[u8]) -> Vec<u8> {
        [&[0; HEADER_OCTETS], octets].concat()
    }

    #[test]
    fn pointers_only_point_back() {
        let www = message(b"\x03org\x00\x07example\xc0\x0c\x03www\xc0\x11");
        assert_eq!(Name::parse(&www, 27).unwrap(), (name("www.example.org"), www.len()));
        assert_eq!(Name::skip(&www, 27), Ok(www.len()));
        for bad in [&b"\xc0\x0c"[..], b"\x01a\xc0\x0c", b"\xc0\x0e\x00", b"\xc0\x0b\x00", b"\xc0\x00\x00"] {
            assert_eq!(Name::parse(&message(bad), 12).err(), Some(NameError::BadPointer), "{bad:?}");
        }
        assert_eq!(Name::parse(&message(b"\x41a\x00"), 12).err(), Some(NameError::BadLabelType));
    }

    #[test]
    fn a_name_follows_a_bounded_number_of_pointers() {
        let mut chain = message(b"\x03org\x00");
        for place in (HEADER_OCTETS + 5..).step_by(2).take(POINTERS_MAX) {
            let target = if place == HEADER_OCTETS + 5 { HEADER_OCTETS } else { place - 2 };
            chain.extend((0xc000 | target as u16).to_be_bytes());
        }
        let last = chain.len() - 2;
        assert_eq!(Name::parse(&chain, last).unwrap().0, name("org"));
        chain.extend((0xc000 | last as u16).to_be_bytes());
        assert_eq!(Name::parse(&chain, last + 2).err(), Some(NameError::TooManyPointers));
    }

    #[test]
    fn every_cut_is_an_error() {
        let example = message(b"\x03org\x00\x07example\xc0\x0c");
        for cut in 17..example.len() {
            assert!(Name::parse(&example[..cut], 17).is_err(), "cut at {cut}");
            assert!(Name::skip(&example[..cut], 17).is_err(), "cut at {cut}");
        }
    }
}
