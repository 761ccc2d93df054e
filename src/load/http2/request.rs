//! The request of a query (RFC 8484 §4.1): its fields in HPACK, those that never change kept in the server's table.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::frames::{HEAD_OCTETS, flag, kind, put_head};
use super::hpack::{ENTRY_OCTETS, TABLE_OCTETS_MAX};

/// Indices of the static table (RFC 7541 Appendix A).
mod index {
    pub(super) const AUTHORITY: u8 = 1;
    pub(super) const GET: u8 = 2;
    pub(super) const POST: u8 = 3;
    pub(super) const PATH: u8 = 4;
    pub(super) const HTTPS: u8 = 7;
    pub(super) const ACCEPT: u8 = 19;
    pub(super) const CONTENT_LENGTH: u8 = 28;
    pub(super) const CONTENT_TYPE: u8 = 31;
}

/// The first index of the dynamic table.
const DYNAMIC_FIRST: usize = 62;

/// The media type of a message.
const MEDIA_TYPE: &[u8] = b"application/dns-message";

/// How the fields that never change are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In full, for the server to keep: what a connection's first request does.
    First,
    /// By their place in the server's table.
    Kept,
    /// In full each time: the server's table has no room for them.
    Full,
}

/// What the requests of a run have in common.
#[derive(Debug)]
pub struct Shape {
    path: Vec<u8>,
    is_get: bool,
    /// The fields that never change, by [`Form`]: those before the path of a GET, and those behind.
    forms: [(Vec<u8>, Vec<u8>); 3],
    /// What they take in the server's table.
    pub table_octets: usize,
}

impl Shape {
    /// Requests to a server (`authority`) and path, by GET or POST.
    #[must_use]
    pub fn new(authority: &str, path: &str, is_get: bool) -> Self {
        let (authority, path) = (authority.as_bytes(), path.as_bytes());
        let before: &[_] = if is_get {
            &[(index::AUTHORITY, authority)]
        } else {
            &[(index::AUTHORITY, authority), (index::PATH, path)]
        };
        let behind: &[_] = if is_get {
            &[(index::ACCEPT, MEDIA_TYPE)]
        } else {
            &[(index::ACCEPT, MEDIA_TYPE), (index::CONTENT_TYPE, MEDIA_TYPE)]
        };
        let count = before.len() + behind.len();
        let forms = [Form::First, Form::Kept, Form::Full].map(|form| {
            let mut first = vec![0x80 | if is_get { index::GET } else { index::POST }, 0x80 | index::HTTPS];
            let mut second = Vec::new();
            put_fields(&mut first, before, form, DYNAMIC_FIRST + count - 1);
            put_fields(&mut second, behind, form, DYNAMIC_FIRST + behind.len() - 1);
            (first, second)
        });
        // RFC 7541 §4.1; the names are :authority, :path, accept and content-type.
        let names = if is_get { 10 + 6 } else { 10 + 5 + 6 + 12 };
        let values: usize = before.iter().chain(behind).map(|(_, value)| value.len()).sum();
        Self { path: path.to_vec(), is_get, forms, table_octets: names + values + count * ENTRY_OCTETS }
    }

    /// How a connection's first request is written; a table's default size is what the server has said nothing about.
    #[must_use]
    pub const fn first_form(&self) -> Form {
        if self.table_octets <= TABLE_OCTETS_MAX { Form::First } else { Form::Full }
    }

    /// How many octets of a message count against the server's windows.
    #[must_use]
    pub const fn body_octets(&self, message: &[u8]) -> usize {
        if self.is_get { 0 } else { message.len() }
    }

    /// Appends the frames of a request; `resized` is the size of the server's table where that is to be said first.
    pub fn put(&self, out: &mut Vec<u8>, stream: u32, form: Form, resized: Option<usize>, message: &[u8]) {
        let at = out.len();
        let end = if self.is_get { flag::END_STREAM } else { 0 };
        put_head(out, 0, kind::HEADERS, flag::END_HEADERS | end, stream);
        if let Some(octets) = resized {
            put_integer(out, 5, 0x20, octets);
        }
        let (before, behind) = &self.forms[form as usize];
        out.extend_from_slice(before);
        if self.is_get {
            self.put_path(out, message);
        }
        out.extend_from_slice(behind);
        if !self.is_get {
            put_content_length(out, message.len());
        }
        let [_, l2, l1, l0] = ((out.len() - at - HEAD_OCTETS) as u32).to_be_bytes();
        out[at..at + 3].copy_from_slice(&[l2, l1, l0]);
        if !self.is_get {
            put_head(out, message.len(), kind::DATA, flag::END_STREAM, stream);
            out.extend_from_slice(message);
        }
    }

    /// The path of a GET, which no table need keep.
    fn put_path(&self, out: &mut Vec<u8>, message: &[u8]) {
        const PARAMETER: &[u8] = b"?dns=";
        let coded = message.len().div_ceil(3) * 4 - (3 - message.len() % 3) % 3;
        put_integer(out, 4, 0, usize::from(index::PATH));
        put_integer(out, 7, 0, self.path.len() + PARAMETER.len() + coded);
        out.extend_from_slice(&self.path);
        out.extend_from_slice(PARAMETER);
        let at = out.len();
        out.resize(at + coded, 0);
        let put = URL_SAFE_NO_PAD.encode_slice(message, &mut out[at..]);
        debug_assert_eq!(put, Ok(coded), "what was made room for");
    }
}

/// Appends fields whose names are in the static table; the first of them stands at `kept_at` in the dynamic one.
fn put_fields(out: &mut Vec<u8>, fields: &[(u8, &[u8])], form: Form, kept_at: usize) {
    for (number, (name, value)) in fields.iter().enumerate() {
        match form {
            Form::Kept => put_integer(out, 7, 0x80, kept_at - number),
            Form::First => put_integer(out, 6, 0x40, usize::from(*name)),
            Form::Full => put_integer(out, 4, 0, usize::from(*name)),
        }
        if form != Form::Kept {
            put_integer(out, 7, 0, value.len());
            out.extend_from_slice(value);
        }
    }
}

fn put_content_length(out: &mut Vec<u8>, octets: usize) {
    put_integer(out, 4, 0, usize::from(index::CONTENT_LENGTH));
    let at = out.len();
    out.push(0);
    let mut power = octets.checked_ilog10().map_or(1, |digits| 10_usize.pow(digits));
    while power > 0 {
        out.push(b'0' + (octets / power % 10) as u8);
        power /= 10;
    }
    out[at] = (out.len() - at - 1) as u8;
}

/// An integer behind the bits of `head` (RFC 7541 §5.1).
fn put_integer(out: &mut Vec<u8>, bits: u32, head: u8, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(head | value as u8);
        return;
    }
    out.push(head | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(0x80 | rest as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::load::http2::frames::Frame;

    fn put(shape: &Shape, form: Form, resized: Option<usize>, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        shape.put(&mut out, 5, form, resized, message);
        out
    }

    #[test]
    fn a_post_is_short_once_its_fields_are_kept() {
        let shape = Shape::new("a:1", "/q", false);
        let kept = put(&shape, Form::Kept, None, &[7; 33]);
        let fields = [0x83, 0x87, 0xc1, 0xc0, 0xbf, 0xbe, 0x0f, 0x0d, 2, b'3', b'3'];
        assert_eq!(kept[..9], [0, 0, 11, kind::HEADERS, flag::END_HEADERS, 0, 0, 0, 5]);
        assert_eq!(kept[9..20], fields);
        assert_eq!(kept[20..29], [0, 0, 33, kind::DATA, flag::END_STREAM, 0, 0, 0, 5]);
        assert_eq!(kept[29..], [7; 33]);
        let full = put(&shape, Form::Full, Some(0), &[7; 128]);
        let head = Frame::read(&full[..9 + usize::from(full[2])]).unwrap();
        assert_eq!(head.payload[..8], [0x20, 0x83, 0x87, 0x01, 3, b'a', b':', b'1']);
        assert!(head.payload.ends_with(&[0x0f, 0x0d, 3, b'1', b'2', b'8']));
        let first = put(&shape, Form::First, None, &[7; 33]);
        assert!(first.windows(23).any(|window| window == MEDIA_TYPE));
        assert_eq!(first[9..13], [0x83, 0x87, 0x41, 3]);
        assert_eq!(shape.table_octets, 4 * 32 + 10 + 3 + 5 + 2 + 6 + 23 + 12 + 23);
    }

    #[test]
    fn a_get_bears_the_message_in_its_path() {
        let shape = Shape::new("a", "/dns-query", true);
        for message in [&[0xff; 1][..], &[0xff; 2], &[0xff; 3], &[0xff; 128]] {
            let out = put(&shape, Form::Kept, None, message);
            let frame = Frame::read(&out).unwrap();
            assert!(frame.has(flag::END_STREAM) && frame.has(flag::END_HEADERS), "no body follows");
            let path = format!("/dns-query?dns={}", URL_SAFE_NO_PAD.encode(message));
            let mut want = vec![0x82, 0x87, 0xbf, 0x04];
            put_integer(&mut want, 7, 0, path.len());
            want.extend(path.as_bytes());
            want.push(0xbe);
            assert_eq!(frame.payload, want);
        }
    }

    #[test]
    fn integers_are_those_of_the_rfc() {
        // RFC 7541 §C.1.
        for (bits, value, want) in [(5, 10, &[10][..]), (5, 1_337, &[31, 154, 10]), (8, 42, &[42])] {
            let mut out = Vec::new();
            put_integer(&mut out, bits, 0, value);
            assert_eq!(out, want);
        }
    }

    #[test]
    fn a_table_without_room_is_not_used() {
        assert_eq!(Shape::new("a", &"/".repeat(1_000), false).first_form(), Form::First);
        assert_eq!(Shape::new("a", &"/".repeat(4_000), false).first_form(), Form::Full);
        assert_eq!(Shape::new("a", &"/".repeat(4_000), true).first_form(), Form::First, "a GET's path is not kept");
    }
}
