//! The OPT pseudo-record (RFC 6891): what a query says in it, and the one that goes into an answer.

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};

use super::{MESSAGE_OCTETS_MAX, Qtype, Rcode};

/// The UDP payload size we announce, to clients (who must ignore it on a stream) and upstreams: small enough that
/// no fragment arises (the DNS flag day's 1232).
pub const UDP_PAYLOAD_OCTETS: u16 = 1232;

/// Padded answers are a multiple of this many octets (RFC 8467 §4.1).
pub const PADDING_BLOCK_OCTETS: usize = 468;

/// Option codes (IANA, "DNS EDNS0 Option Codes").
pub mod option {
    /// edns-tcp-keepalive (RFC 7828).
    pub const KEEPALIVE: u16 = 11;
    /// Padding (RFC 7830).
    pub const PADDING: u16 = 12;
    /// Extended DNS Error (RFC 8914).
    pub const EDE: u16 = 15;

    /// Whether a code stands for something else than structured DNS errors (IANA): LLQ to ZONEVERSION, Umbrella Ident,
    /// DeviceID.
    #[must_use]
    pub const fn is_taken(code: u16) -> bool {
        matches!(code, 1..=19 | 20_292 | 26_946)
    }
}

/// An INFO-CODE of an extended DNS error (RFC 8914 §4, IANA).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ede(pub u16);

impl Ede {
    /// Other; needs an EXTRA-TEXT to mean anything.
    pub const OTHER: Self = Self(0);
    /// Stale Answer.
    pub const STALE_ANSWER: Self = Self(3);
    /// Cached Error.
    pub const CACHED_ERROR: Self = Self(13);
    /// Not Ready.
    pub const NOT_READY: Self = Self(14);
    /// Blocked: the operator's own policy.
    pub const BLOCKED: Self = Self(15);
    /// Censored: imposed from outside, by an order.
    pub const CENSORED: Self = Self(16);
    /// Filtered: the client asked for it; also what keeps Firefox from asking another resolver.
    pub const FILTERED: Self = Self(17);
    /// Stale NXDOMAIN Answer.
    pub const STALE_NXDOMAIN: Self = Self(19);
    /// Not Authoritative: a query without RD that the cache cannot answer (RFC 8914 §4.21).
    pub const NOT_AUTHORITATIVE: Self = Self(20);
    /// Not Supported.
    pub const NOT_SUPPORTED: Self = Self(21);
    /// No Reachable Authority.
    pub const NO_REACHABLE_AUTHORITY: Self = Self(22);
    /// Network Error.
    pub const NETWORK_ERROR: Self = Self(23);
}

/// What the OPT of a query asks for. Options that are not listed here are ignored, as RFC 6891 §6.1.2 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asked {
    /// EDNS VERSION; we speak 0.
    pub version: u8,
    /// DO: DNSSEC records are wanted (RFC 3225).
    pub dnssec_ok: bool,
    /// A Padding option stood in the query, of whatever length (RFC 7830 §4).
    pub padding: bool,
    /// The client reads EXTRA-TEXT as I-JSON: it signals structured DNS errors (draft-ietf-dnsop-structured-dns-error).
    pub structured: bool,
}

/// The code of the option that signals structured DNS errors (SDE): the draft leaves it open, so the operator says it.
/// None: that signal is not known here; an EDE option without text, as older drafts have it, signals all the same.
pub type SdeOption = Option<NonZeroU16>;

/// The fixed fields and options of an OPT record that do not follow RFC 6891.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadOpt;

impl Asked {
    /// Reads an OPT record's TTL field and RDATA; `sde` is the option that signals structured DNS errors.
    ///
    /// # Errors
    /// When an option runs past the end of the RDATA. Of a version that we do not speak nothing more is asked than its
    /// number: BADVERS goes before whatever its RDATA may be (RFC 6891 §6.1.3).
    pub fn read(ttl_octets: [u8; 4], rdata: &[u8], sde: SdeOption) -> Result<Self, BadOpt> {
        let mut asked = Self { version: ttl_octets[1], dnssec_ok: ttl_octets[2] & 0x80 != 0, ..Self::default() };
        let mut rest = rdata;
        while !rest.is_empty() {
            let Some((code, data, tail)) = split_option(rest) else {
                return if asked.version > 0 { Ok(asked) } else { Err(BadOpt) };
            };
            asked.padding |= code == option::PADDING;
            asked.structured |= is_signal(code, data, sde);
            rest = tail;
        }
        Ok(asked)
    }
}

/// Whether an option signals structured DNS errors: SDE whatever is in it, or an EDE that is an INFO-CODE, of whatever
/// value, and no text.
fn is_signal(code: u16, data: &[u8], sde: SdeOption) -> bool {
    sde.is_some_and(|sde| sde.get() == code) || code == option::EDE && data.len() == 2
}

/// The first option's code and data, and the octets behind the option; None where it runs past their end.
fn split_option(rdata: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let [c1, c0, l1, l0, behind @ ..] = rdata else { return None };
    let (data, tail) = behind.split_at_checked(usize::from(u16::from_be_bytes([*l1, *l0])))?;
    Some((u16::from_be_bytes([*c1, *c0]), data, tail))
}

/// The OPT of an answer. Written last, its padding behind everything else (RFC 8467 §3).
#[derive(Debug, Clone, Copy)]
pub struct Opt<'a> {
    /// The answer's RCODE; its upper eight bits go into the OPT.
    pub rcode: Rcode,
    /// DO, copied from the query (RFC 3225 §3).
    pub dnssec_ok: bool,
    /// The idle timeout to announce, in units of 100 ms (RFC 7828), on TCP and TLS only.
    pub keepalive: Option<u16>,
    /// Extended errors in the order in which they are to stand, each with its EXTRA-TEXT.
    pub errors: &'a [(Ede, &'a str)],
    /// Whether to pad to a multiple of [`PADDING_BLOCK_OCTETS`].
    pub padded: bool,
}

/// Octets of an OPT without options.
pub const OPT_OCTETS: usize = 11;

impl Opt<'_> {
    /// Appends the record to the message that begins at `start` of `out`. Options that would carry the message past
    /// [`MESSAGE_OCTETS_MAX`] are left out, the record's fixed part never: the caller keeps [`OPT_OCTETS`] free.
    pub fn write(&self, out: &mut BytesMut, start: usize) {
        out.put_u8(0);
        out.put_u16(Qtype::OPT.0);
        out.put_u16(UDP_PAYLOAD_OCTETS);
        out.put_u8((self.rcode.0 >> 4) as u8);
        out.put_u8(0);
        out.put_u16(if self.dnssec_ok { 0x8000 } else { 0 });
        let length_at = out.len();
        out.put_u16(0);
        let room = |out: &BytesMut| MESSAGE_OCTETS_MAX - (out.len() - start);
        if let Some(timeout) = self.keepalive
            && room(out) >= 6
        {
            out.put_u16(option::KEEPALIVE);
            out.put_u16(2);
            out.put_u16(timeout);
        }
        for (code, text) in self.errors {
            if room(out) >= 6 + text.len() {
                out.put_u16(option::EDE);
                out.put_u16((2 + text.len()) as u16);
                out.put_u16(code.0);
                out.put_slice(text.as_bytes());
            }
        }
        if self.padded && room(out) >= 4 {
            let size = out.len() - start + 4;
            // RFC 8467 §4.1 wants whole blocks; the last one before 65,535 is shorter.
            let padded = size.next_multiple_of(PADDING_BLOCK_OCTETS).min(MESSAGE_OCTETS_MAX);
            out.put_u16(option::PADDING);
            out.put_u16((padded - size) as u16);
            out.put_bytes(0, padded - size);
        }
        let length = (out.len() - length_at - 2) as u16;
        out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_passed_over() {
        let rdata = [0, 8, 0, 4, 0, 1, 0, 0, 0, 12, 0, 2, 0, 0, 0, 15, 0, 3, 0, 0, 65];
        let asked = Asked::read([0, 0, 0x80, 0], &rdata, None);
        assert_eq!(asked, Ok(Asked { version: 0, dnssec_ok: true, padding: true, structured: false }));
    }

    #[test]
    fn structured_errors_are_signalled_by_either_option() {
        let sde = NonZeroU16::new(65_001);
        for (rdata, known, unknown) in [
            (&[0, 15, 0, 2, 0, 0][..], true, true),
            (&[0, 15, 0, 2, 0xff, 0xff], true, true),
            (&[0, 15, 0, 3, 0, 0, 65], false, false),
            (&[0, 15, 0, 1, 0], false, false),
            (&[0, 15, 0, 0], false, false),
            (&[0xfd, 0xe9, 0, 0], true, false),
            (&[0xfd, 0xe9, 0, 2, 1, 2], true, false),
            (&[0, 12, 0, 1, 0, 0xfd, 0xe9, 0, 0, 0, 8, 0, 0], true, false),
            (&[0, 0, 0, 0], false, false),
            (&[], false, false),
        ] {
            let structured = |sde| Asked::read([0; 4], rdata, sde).map(|asked| asked.structured);
            assert_eq!((structured(sde), structured(None)), (Ok(known), Ok(unknown)), "{rdata:?}");
        }
    }

    #[test]
    fn a_signal_cut_anywhere_is_none() {
        let rdata = [0, 8, 0, 1, 0, 0xfd, 0xe9, 0, 2, 1, 2];
        for cut in 0..rdata.len() {
            let asked = Asked::read([0; 4], &rdata[..cut], NonZeroU16::new(65_001));
            assert!(asked.is_err() || !asked.is_ok_and(|asked| asked.structured), "cut at {cut}");
        }
        assert!(Asked::read([0; 4], &rdata, NonZeroU16::new(65_001)).is_ok_and(|asked| asked.structured));
    }

    #[test]
    fn every_cut_inside_an_option_is_an_error() {
        let rdata = [0, 8, 0, 4, 0, 1, 0, 0, 0, 12, 0, 2, 0, 0];
        for cut in (1..rdata.len()).filter(|cut| *cut != 8) {
            assert_eq!(Asked::read([0; 4], &rdata[..cut], None), Err(BadOpt), "cut at {cut}");
            let other = Asked::read([0, 1, 0, 0], &rdata[..cut], None);
            assert_eq!(other.map(|asked| asked.version), Ok(1), "cut at {cut}");
        }
    }

    #[test]
    fn padding_fills_whole_blocks_and_comes_last() {
        for used in [12, 400, 453, 454, 455, 464, 468, 65_000, 65_500] {
            let mut out = BytesMut::from(&b"xx"[..]);
            out.put_bytes(1, used);
            let errors = [(Ede::CENSORED, "why"), (Ede::FILTERED, "")];
            Opt { rcode: Rcode::NOERROR, dnssec_ok: false, keepalive: None, errors: &errors, padded: true }
                .write(&mut out, 2);
            let size = out.len() - 2;
            assert!(size % PADDING_BLOCK_OCTETS == 0 || size <= MESSAGE_OCTETS_MAX && used > 65_000, "{used}: {size}");
        }
    }

    #[test]
    fn options_that_do_not_fit_are_left_out() {
        let mut out = BytesMut::zeroed(MESSAGE_OCTETS_MAX - OPT_OCTETS);
        let errors = [(Ede::CENSORED, "why")];
        Opt { rcode: Rcode::BADVERS, dnssec_ok: true, keepalive: Some(9), errors: &errors, padded: true }
            .write(&mut out, 0);
        assert_eq!(out.len(), MESSAGE_OCTETS_MAX);
        assert_eq!(out[out.len() - OPT_OCTETS..], [0, 0, 41, 4, 208, 1, 0, 0x80, 0, 0, 0]);
    }
}
