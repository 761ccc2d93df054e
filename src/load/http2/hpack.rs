//! HPACK as far as the status of a response needs it (RFC 7541): every field is walked, the dynamic table followed.

use std::collections::VecDeque;

use super::Fault;

/// The table that a peer may fill (RFC 9113 §6.5.2): we leave the default, as browsers do.
pub const TABLE_OCTETS_MAX: usize = 4_096;

/// What an entry counts beside its octets (RFC 7541 §4.1).
pub const ENTRY_OCTETS: usize = 32;

/// Octets of the names of the static table (RFC 7541 Appendix A), by index.
const STATIC_NAMES: [u8; 62] = [
    0, 10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6,
    4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// The statuses of the static table, from index 8.
const STATIC_STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

const STATIC_STATUS_FIRST: usize = 8;

const STATUS_NAME: &[u8] = b":status";

/// The same, Huffman-coded.
const STATUS_NAME_CODED: &[u8] = &[0xb8, 0x84, 0x8d, 0x36, 0xa3];

/// How many symbols the Huffman code has of each length (RFC 7541 Appendix B). Codes of a length are successive numbers
/// and follow those that are shorter, so that this is all that tells where a symbol ends.
const CODE_LENGTHS: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 4),
];

/// The longest code in bits.
const CODE_BITS_MAX: u32 = 30;

/// Of each length: the length, its first code, and behind its last one, both at the left of [`CODE_BITS_MAX`] bits.
const CODES: [(u32, u32, u32); CODE_LENGTHS.len()] = codes();

const fn codes() -> [(u32, u32, u32); CODE_LENGTHS.len()] {
    let mut codes = [(0, 0, 0); CODE_LENGTHS.len()];
    let (mut at, mut first) = (0, 0);
    while at < CODE_LENGTHS.len() {
        let (bits, count) = CODE_LENGTHS[at];
        let end = first + (count << (CODE_BITS_MAX - bits));
        codes[at] = (bits, first, end);
        first = end;
        at += 1;
    }
    codes
}

/// The dynamic table of what a peer sends, its fields' sizes and statuses only.
#[derive(Debug)]
pub struct Table {
    entries: VecDeque<Entry>,
    octets: usize,
    octets_max: usize,
    /// How often it was changed.
    changes: u64,
    known: Known,
}

/// The last field block, if it left the table as it was: most responses of a server have the same one.
#[derive(Debug, Default)]
struct Known {
    block: Vec<u8>,
    status: Option<u16>,
}

/// A field.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: FieldName,
    value_octets: usize,
    /// Of a `:status`.
    status: Option<u16>,
}

impl Entry {
    const fn octets(self) -> usize {
        self.name.octets + self.value_octets + ENTRY_OCTETS
    }
}

#[derive(Debug, Clone, Copy)]
struct FieldName {
    octets: usize,
    is_status: bool,
}

impl Default for Table {
    fn default() -> Self {
        let (entries, known) = (VecDeque::new(), Known::default());
        Self { entries, octets: 0, octets_max: TABLE_OCTETS_MAX, changes: 0, known }
    }
}

impl Table {
    /// Walks a field block; the status in it, which trailers have none of.
    ///
    /// # Errors
    /// When it is no field block: nothing that follows on the connection can be read then (RFC 9113 §4.3).
    pub fn read(&mut self, block: &[u8]) -> Result<Option<u16>, Fault> {
        if self.known.block == block {
            return Ok(self.known.status);
        }
        self.known.block.clear();
        self.known.status = None;
        let before = self.changes;
        let status = self.walk(block)?;
        if self.changes == before {
            self.known.block.extend_from_slice(block);
            self.known.status = status;
        }
        Ok(status)
    }

    fn walk(&mut self, block: &[u8]) -> Result<Option<u16>, Fault> {
        let mut rest = Rest(block);
        let (mut status, mut fields) = (None, 0);
        while let Some(first) = rest.0.first() {
            let found = match first {
                0x80.. => self.entry(rest.integer(7)?)?.status,
                0x40.. => {
                    let entry = self.literal(&mut rest, 6)?;
                    self.insert(entry);
                    entry.status
                }
                0x20.. if fields > 0 => return Err(Fault("a table's size changed within a field block")),
                0x20.. => {
                    self.resize(rest.integer(5)?)?;
                    continue;
                }
                _ => self.literal(&mut rest, 4)?.status,
            };
            status = status.or(found);
            fields += 1;
        }
        Ok(status)
    }

    /// The field of an index (RFC 7541 §2.3.3). Of a static one the value's size is of no use: it is never inserted.
    fn entry(&self, index: usize) -> Result<Entry, Fault> {
        let unknown = Fault("an index that no field has");
        if index == 0 {
            return Err(unknown);
        }
        if let Some(octets) = STATIC_NAMES.get(index) {
            let status = index.checked_sub(STATIC_STATUS_FIRST).and_then(|at| STATIC_STATUSES.get(at));
            let name = FieldName { octets: usize::from(*octets), is_status: status.is_some() };
            return Ok(Entry { name, value_octets: 0, status: status.copied() });
        }
        self.entries.get(index - STATIC_NAMES.len()).copied().ok_or(unknown)
    }

    /// A field whose name has an index in so many bits, or stands there.
    fn literal(&self, rest: &mut Rest<'_>, bits: u32) -> Result<Entry, Fault> {
        let name = match rest.integer(bits)? {
            0 => {
                let text = rest.string()?;
                let status = if text.is_coded { STATUS_NAME_CODED } else { STATUS_NAME };
                FieldName { octets: text.decoded_octets()?, is_status: text.octets == status }
            }
            index => self.entry(index)?.name,
        };
        let value = rest.string()?;
        let status = if name.is_status { Some(value.status()?) } else { None };
        Ok(Entry { name, value_octets: value.decoded_octets()?, status })
    }

    fn insert(&mut self, entry: Entry) {
        self.changes += 1;
        self.octets += entry.octets();
        self.entries.push_front(entry);
        // RFC 7541 §4.4: one that is larger than the table empties it, and does not stay either.
        self.evict();
    }

    fn resize(&mut self, octets_max: usize) -> Result<(), Fault> {
        if octets_max > TABLE_OCTETS_MAX {
            return Err(Fault("a table larger than ours"));
        }
        self.changes += 1;
        self.octets_max = octets_max;
        self.evict();
        Ok(())
    }

    fn evict(&mut self) {
        while self.octets > self.octets_max {
            let Some(last) = self.entries.pop_back() else { break };
            self.octets -= last.octets();
        }
    }
}

/// What is left of a field block.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// An integer whose first octet has `bits` of it (RFC 7541 §5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, Fault> {
        const CUT: Fault = Fault("a field block that is cut");
        let (first, mut rest) = self.0.split_first().ok_or(CUT)?;
        let most = (1_usize << bits) - 1;
        let mut value = usize::from(*first) & most;
        if value == most {
            for shift in (0..).step_by(7) {
                let (octet, behind) = rest.split_first().ok_or(CUT)?;
                rest = behind;
                // Nothing here is as large as that.
                if shift > 21 {
                    return Err(Fault("a number that is too large"));
                }
                value += usize::from(octet & 0x7f) << shift;
                if octet & 0x80 == 0 {
                    break;
                }
            }
        }
        self.0 = rest;
        Ok(value)
    }

    /// A string (RFC 7541 §5.2).
    fn string(&mut self) -> Result<Text<'a>, Fault> {
        let is_coded = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (octets, rest) = self.0.split_at_checked(length).ok_or(Fault("a field block that is cut"))?;
        self.0 = rest;
        Ok(Text { octets, is_coded })
    }
}

/// A string as it stands in a field block.
struct Text<'a> {
    octets: &'a [u8],
    is_coded: bool,
}

impl Text<'_> {
    fn decoded_octets(&self) -> Result<usize, Fault> {
        if !self.is_coded {
            return Ok(self.octets.len());
        }
        let mut count = 0;
        symbols(self.octets, |_, _| count += 1)?;
        Ok(count)
    }

    /// Three digits.
    fn status(&self) -> Result<u16, Fault> {
        let mut digits = Vec::new();
        if self.is_coded {
            symbols(self.octets, |bits, number| digits.push(digit(bits, number)))?;
        } else {
            digits.extend(self.octets.iter().map(|octet| octet.is_ascii_digit().then(|| octet - b'0')));
        }
        match digits[..] {
            [Some(a), Some(b), Some(c)] => Ok(u16::from(a) * 100 + u16::from(b) * 10 + u16::from(c)),
            _ => Err(Fault("a :status that is no status")),
        }
    }
}

/// The digit that a symbol is, told by the length of its code and its number among those of that length.
const fn digit(bits: u32, number: u32) -> Option<u8> {
    match (bits, number) {
        (5, 0..=2) => Some(number as u8),
        (6, 5..=11) => Some(number as u8 - 2),
        _ => None,
    }
}

/// Every symbol of a Huffman-coded string: the length of its code, its number among those of that length.
fn symbols(octets: &[u8], mut each: impl FnMut(u32, u32)) -> Result<(), Fault> {
    let mut rest = octets.iter();
    let (mut window, mut held) = (0_u64, 0_u32);
    loop {
        while held < CODE_BITS_MAX {
            let Some(octet) = rest.next() else { break };
            window = window << 8 | u64::from(*octet);
            held += 8;
        }
        // Behind the end stand ones, which is what padding is (RFC 7541 §5.2).
        let missing = CODE_BITS_MAX.saturating_sub(held);
        let filled = window << missing | ((1 << missing) - 1);
        let ahead = (filled >> (held + missing - CODE_BITS_MAX)) as u32 & ((1 << CODE_BITS_MAX) - 1);
        if held < 8 && ahead == (1 << CODE_BITS_MAX) - 1 {
            return Ok(());
        }
        let Some((bits, first, _)) = CODES.into_iter().find(|(_, _, end)| ahead < *end) else {
            return Err(Fault("a string with an end in it"));
        };
        if bits > held || ahead == (1 << CODE_BITS_MAX) - 1 {
            return Err(Fault("a string whose padding is none"));
        }
        each(bits, (ahead - first) >> (CODE_BITS_MAX - bits));
        held -= bits;
        window &= (1 << held) - 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn octets(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
    }

    /// RFC 7541 §C.6: three responses, Huffman-coded, in a table of 256 octets from which fields fall.
    const RESPONSES: [(&str, u16, usize); 3] = [
        (
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718
             63c7 8f0b 97c8 e9ae 82ae 43d3",
            302,
            222,
        ),
        ("4883 640e ff c1 c0 bf", 307, 222),
        (
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7
             b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
            200,
            215,
        ),
    ];

    #[test]
    fn the_table_is_followed_as_the_rfc_shows_it() {
        let mut table = Table { octets_max: 256, ..Table::default() };
        for (hex, status, size) in RESPONSES {
            assert_eq!((table.read(&octets(hex)).unwrap(), table.octets), (Some(status), size));
        }
    }

    #[test]
    fn a_block_cut_anywhere_says_no_more_than_its_whole_fields() {
        for (hex, status, _) in [RESPONSES[0], RESPONSES[2]] {
            let block = octets(hex);
            for cut in 0..block.len() {
                let mut table = Table::default();
                // The indices of the third one are of fields before it.
                table.read(&octets(RESPONSES[0].0)).unwrap();
                let read = table.read(&block[..cut]);
                assert!(matches!(read, Err(_) | Ok(None)) || read == Ok(Some(status)), "cut at {cut}: {read:?}");
            }
        }
    }

    #[test]
    fn a_status_is_read_however_it_is_written() {
        for (hex, status) in [
            ("88", 200),
            ("20 88", 200),
            ("20 3f e1 1f 8e", 500),
            ("48 03 34 32 39", 429),
            ("08 03 35 30 33", 503),
            ("18 03 35 30 32", 502),
            ("00 07 3a 73 74 61 74 75 73 03 34 30 34", 404),
            ("00 85 b8 84 8d 36 a3 82 64 02", 302),
        ] {
            assert_eq!(Table::default().read(&octets(hex)), Ok(Some(status)), "{hex}");
        }
        assert_eq!(Table::default().read(&[]), Ok(None));
        let mut table = Table::default();
        assert_eq!(table.read(&octets("48 03 34 32 39 5f 01 61")), Ok(Some(429)));
        assert_eq!(table.read(&octets("bf")), Ok(Some(429)), "by its place in the table");
        assert_eq!(table.read(&octets("7e 03 34 30 30")), Ok(None), "another field with the name of the newest");
    }

    #[test]
    fn the_same_octets_are_read_anew_where_the_table_has_changed() {
        let mut table = Table::default();
        for (hex, status) in [
            ("48 03 34 32 39", Some(429)),
            ("be", Some(429)),
            ("be", Some(429)),
            ("", None),
            ("48 03 35 30 33", Some(503)),
            ("be", Some(503)),
            ("bf", Some(429)),
            ("48 03 34 32 39", Some(429)),
            ("48 03 34 32 39", Some(429)),
            ("be c0", Some(429)),
            ("20 3f e1 1f 88", Some(200)),
        ] {
            assert_eq!(table.read(&octets(hex)), Ok(status), "{hex}");
        }
        for _ in 0..2 {
            assert!(table.read(&octets("be")).is_err(), "the table is empty");
        }
    }

    #[test]
    fn what_is_no_field_block_is_refused() {
        for hex in [
            "80",
            "be",
            "ff ff ff ff ff 7f",
            "88 20",
            "3f e2 1f",
            "48 03 34 32",
            "48 02 34 32",
            "48 03 34 32 61",
            "00 84 ff ff ff ff 00",
            "00 81 00 00",
            "00 82 07 fe 00 00",
        ] {
            assert!(Table::default().read(&octets(hex)).is_err(), "{hex}");
        }
    }

    #[test]
    fn a_field_larger_than_the_table_empties_it() {
        let mut table = Table::default();
        table.read(&octets("20 3f 09 5f 01 61")).unwrap();
        assert_eq!((table.octets_max, table.entries.len()), (40, 0), "12 + 1 + 32 is more than 40");
        table.read(&octets("40 01 61 01 62")).unwrap();
        assert_eq!((table.octets, table.entries.len()), (34, 1));
        assert!(table.read(&octets("bf")).is_err());
    }
}
