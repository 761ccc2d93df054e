//! The words of DNS: types, classes, RCODEs and extended errors.

pub mod edns;
pub mod made;
pub mod message;
pub mod name;
pub mod special;
pub mod svcb;

use std::fmt;

pub use edns::Ede;
pub use name::Name;

/// The longest message that any transport here carries, in octets (RFC 1035 §4.2.2).
pub const MESSAGE_OCTETS_MAX: usize = 65_535;

/// Octets of a message header (RFC 1035 §4.1.1).
pub const HEADER_OCTETS: usize = 12;

macro_rules! mnemonics {
    ($type:ident, $prefix:literal, { $($(#[$doc:meta])* $name:ident = $value:literal,)+ }) => {
        impl $type {
            $(#[doc = concat!("`", stringify!($name), "`, ", stringify!($value), ".")]
            pub const $name: Self = Self($value);)+

            /// The IANA mnemonic, where this build knows it.
            #[must_use]
            pub const fn mnemonic(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)+
                    _ => None,
                }
            }

            /// Reads an IANA mnemonic in any case, or the generic form of RFC 3597 §5
            #[doc = concat!("(`", $prefix, "65280`).")]
            #[must_use]
            pub fn from_text(text: &str) -> Option<Self> {
                $(if text.eq_ignore_ascii_case(stringify!($name)) { return Some(Self($value)); })+
                let number = text.get($prefix.len()..)?;
                let prefix = text.get(..$prefix.len())?;
                if prefix.eq_ignore_ascii_case($prefix) && number.bytes().all(|b| b.is_ascii_digit()) {
                    number.parse().ok().map(Self)
                } else {
                    None
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.mnemonic() {
                    Some(word) => f.write_str(word),
                    None => write!(f, concat!($prefix, "{}"), self.0),
                }
            }
        }
    };
}

/// The type of a question or a resource record (RFC 1035 §3.2.2, §3.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Qtype(pub u16);

mnemonics!(Qtype, "TYPE", {
    A = 1,
    NS = 2,
    CNAME = 5,
    SOA = 6,
    PTR = 12,
    HINFO = 13,
    MX = 15,
    TXT = 16,
    SIG = 24,
    KEY = 25,
    AAAA = 28,
    LOC = 29,
    SRV = 33,
    NAPTR = 35,
    DNAME = 39,
    OPT = 41,
    DS = 43,
    SSHFP = 44,
    RRSIG = 46,
    NSEC = 47,
    DNSKEY = 48,
    NSEC3 = 50,
    NSEC3PARAM = 51,
    TLSA = 52,
    SMIMEA = 53,
    CDS = 59,
    CDNSKEY = 60,
    OPENPGPKEY = 61,
    CSYNC = 62,
    ZONEMD = 63,
    SVCB = 64,
    HTTPS = 65,
    SPF = 99,
    TKEY = 249,
    TSIG = 250,
    IXFR = 251,
    AXFR = 252,
    ANY = 255,
    URI = 256,
    CAA = 257,
    RESINFO = 261,
});

impl Qtype {
    /// How many octets into the RDATA the name stands to which a record of this type sends its reader on: CNAME and
    /// DNAME (RFC 1035 §3.3.1, RFC 6672 §2.1), SVCB and HTTPS (RFC 9460 §2.2). None for every other type.
    #[must_use]
    pub const fn target_at(self) -> Option<usize> {
        match self {
            Self::CNAME | Self::DNAME => Some(0),
            Self::SVCB | Self::HTTPS => Some(2),
            _ => None,
        }
    }
}

/// The class of a question or a resource record (RFC 1035 §3.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Qclass(pub u16);

mnemonics!(Qclass, "CLASS", {
    IN = 1,
    CH = 3,
    HS = 4,
    NONE = 254,
    ANY = 255,
});

impl Qclass {
    /// The class of the records that we put into an answer: `*` is a class of questions only (RFC 1035 §3.2.5).
    #[must_use]
    pub const fn of_records(self) -> Self {
        if self.0 == Self::ANY.0 { Self::IN } else { self }
    }
}

/// A response code, extended ones included (RFC 1035 §4.1.1, RFC 6891 §6.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rcode(pub u16);

mnemonics!(Rcode, "RCODE", {
    NOERROR = 0,
    FORMERR = 1,
    SERVFAIL = 2,
    NXDOMAIN = 3,
    NOTIMP = 4,
    REFUSED = 5,
    YXDOMAIN = 6,
    YXRRSET = 7,
    NXRRSET = 8,
    NOTAUTH = 9,
    NOTZONE = 10,
    BADVERS = 16,
    BADCOOKIE = 23,
});

/// A TTL in seconds as it is to be understood: one with the top bit set counts as 0 (RFC 2181 §8).
#[must_use]
pub const fn ttl_of(octets: [u8; 4]) -> u32 {
    let ttl = u32::from_be_bytes(octets);
    if ttl > 0x7fff_ffff { 0 } else { ttl }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mnemonics_read_and_print() {
        assert_eq!(Qtype::from_text("https"), Some(Qtype::HTTPS));
        assert_eq!(Qtype::from_text("TYPE65280"), Some(Qtype(65280)));
        assert_eq!(Qtype::from_text("type70000"), None);
        assert_eq!(Qtype::from_text("TYPE+1"), None);
        assert_eq!(Qtype::from_text(""), None);
        assert_eq!(Qtype(65280).to_string(), "TYPE65280");
        assert_eq!(Rcode::BADVERS.to_string(), "BADVERS");
        assert_eq!(Qclass(3).to_string(), "CH");
    }

    #[test]
    fn a_ttl_with_the_top_bit_is_zero() {
        assert_eq!(ttl_of([0x80, 0, 0, 1]), 0);
        assert_eq!(ttl_of([0x7f, 0xff, 0xff, 0xff]), 0x7fff_ffff);
    }
}
