//! HTTP/2 frames as they stand on the wire (RFC 9113 §4, §6).

use super::Fault;

/// Octets of a frame's head.
pub const HEAD_OCTETS: usize = 9;

/// The longest payload that we take: the default, which we leave (RFC 9113 §6.5.2).
pub const PAYLOAD_OCTETS_MAX: usize = 16_384;

/// Frame types (RFC 9113 §6).
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// RST_STREAM.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PUSH_PROMISE.
    pub const PUSH_PROMISE: u8 = 5;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// WINDOW_UPDATE.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    /// Of SETTINGS and PING.
    pub const ACK: u8 = 1;
    /// Of DATA and HEADERS.
    pub const END_STREAM: u8 = 1;
    /// Of HEADERS and CONTINUATION.
    pub const END_HEADERS: u8 = 4;
    /// Of DATA and HEADERS.
    pub const PADDED: u8 = 8;
    /// Of HEADERS.
    pub const PRIORITY: u8 = 0x20;
}

/// A frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// 0: the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// How many octets the frame has whose head stands at the front; None while the head is not whole.
    ///
    /// # Errors
    /// When it is longer than we take (FRAME_SIZE_ERROR).
    pub fn octets_of(octets: &[u8]) -> Result<Option<usize>, Fault> {
        let Some([l2, l1, l0]) = octets.get(..HEAD_OCTETS).and_then(<[u8]>::first_chunk) else { return Ok(None) };
        match u32::from_be_bytes([0, *l2, *l1, *l0]) as usize {
            payload if payload > PAYLOAD_OCTETS_MAX => Err(Fault("a frame longer than 16,384 octets")),
            payload => Ok(Some(HEAD_OCTETS + payload)),
        }
    }

    /// A whole frame.
    #[must_use]
    pub fn read(octets: &'a [u8]) -> Option<Self> {
        let ([_, _, _, kind, flags, s3, s2, s1, s0], payload) = octets.split_first_chunk::<HEAD_OCTETS>()?;
        // RFC 9113 §4.1: the first bit is reserved.
        let stream = u32::from_be_bytes([s3 & 0x7f, *s2, *s1, *s0]);
        Some(Self { kind: *kind, flags: *flags, stream, payload })
    }

    /// Whether it bears a flag.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What it carries without padding and priority, which DATA and HEADERS may have.
    ///
    /// # Errors
    /// When there is less than its flags say.
    pub fn content(&self) -> Result<&'a [u8], Fault> {
        const SHORT: Fault = Fault("a frame shorter than its padding");
        let mut content = self.payload;
        let mut padding = 0;
        if self.has(flag::PADDED) {
            let (length, rest) = content.split_first().ok_or(SHORT)?;
            (padding, content) = (usize::from(*length), rest);
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = content.get(5..).ok_or(SHORT)?;
        }
        content.len().checked_sub(padding).map(|length| &content[..length]).ok_or(SHORT)
    }

    /// The payload of a frame that has exactly so many octets.
    ///
    /// # Errors
    /// When it has more or fewer (FRAME_SIZE_ERROR).
    pub fn exactly<const N: usize>(&self) -> Result<[u8; N], Fault> {
        self.payload.try_into().map_err(|_| Fault("a frame of a wrong length"))
    }
}

/// Appends the head of a frame.
pub fn put_head(out: &mut Vec<u8>, payload_octets: usize, kind: u8, flags: u8, stream: u32) {
    let [_, l2, l1, l0] = (payload_octets as u32).to_be_bytes();
    let [s3, s2, s1, s0] = stream.to_be_bytes();
    out.extend_from_slice(&[l2, l1, l0, kind, flags, s3, s2, s1, s0]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let mut octets = Vec::new();
        put_head(&mut octets, 3, kind::HEADERS, flag::END_HEADERS, 0x8000_0005);
        octets.extend([1, 2, 3]);
        for cut in 0..HEAD_OCTETS {
            assert_eq!(Frame::octets_of(&octets[..cut]), Ok(None));
            assert!(Frame::read(&octets[..cut]).is_none());
        }
        assert_eq!(Frame::octets_of(&octets), Ok(Some(12)));
        let frame = Frame::read(&octets).unwrap();
        assert_eq!((frame.kind, frame.flags, frame.stream, frame.payload), (1, 4, 5, &[1, 2, 3][..]));
        assert!(frame.exactly::<3>().is_ok() && frame.exactly::<4>().is_err());
        assert!(Frame::octets_of(&[0, 0x40, 1, 0, 0, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn padding_and_priority_are_no_content() {
        let content =
            |kind, flags, payload: &[u8]| Frame { kind, flags, stream: 1, payload }.content().map(<[u8]>::to_vec);
        let both = flag::PADDED | flag::PRIORITY;
        assert_eq!(content(kind::DATA, flag::PADDED, &[2, 7, 0, 0]), Ok(vec![7]));
        assert_eq!(content(kind::DATA, flag::PADDED, &[0]), Ok(vec![]));
        assert_eq!(content(kind::HEADERS, both, &[1, 0, 0, 0, 0, 0, 9, 0]), Ok(vec![9]));
        assert_eq!(content(kind::DATA, flag::PRIORITY, &[1]), Ok(vec![1]), "DATA has none");
        for (flags, payload) in [(flag::PADDED, &[][..]), (flag::PADDED, &[2, 0]), (both, &[1, 0, 0, 0, 0, 0])] {
            assert!(content(kind::HEADERS, flags, payload).is_err());
        }
    }
}
