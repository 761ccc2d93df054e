//! What an operator asks to have explained, and how it is written in a URL.

use std::net::IpAddr;

use jiff::Timestamp;

/// A question: what would this client be answered, and why? The client is the operator's own input; it is not logged
/// all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainQuery {
    /// QNAME, as it was typed.
    pub name: String,
    /// QTYPE, as it was typed; `A` where nothing was.
    pub qtype: String,
    /// Who would ask; None: a client whose country cannot be told.
    pub client: Option<IpAddr>,
    /// When; None: now.
    pub at: Option<Timestamp>,
}

/// QTYPE where none is given.
pub const QTYPE_DEFAULT: &str = "A";

impl ExplainQuery {
    /// Reads the query of a URL: `name=…&type=…&client=…&at=…`, of which only the name has to be there.
    ///
    /// # Errors
    /// What is wrong with it, in a line.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut read = Self { name: String::new(), qtype: QTYPE_DEFAULT.to_owned(), client: None, at: None };
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value).ok_or_else(|| format!("{key}: % takes two hexadecimal digits, in UTF-8"))?;
            match (key, value.as_str()) {
                // A form sends what was not filled in, too.
                (_, "") => {}
                ("name", _) => read.name = value,
                ("type", _) => read.qtype = value,
                ("client", _) => read.client = Some(value.parse().map_err(|_| "client: not an IP address".to_owned())?),
                ("at", _) => read.at = Some(value.parse().map_err(|error| format!("at: {error}"))?),
                _ => return Err("unknown key; there are name, type, client and at".to_owned()),
            }
        }
        if read.name.is_empty() { Err("no name; ask with ?name=".to_owned()) } else { Ok(read) }
    }

    /// The path and query that [`Self::from_query`] reads.
    #[must_use]
    pub fn to_path(&self) -> String {
        let mut path = format!("/explain?name={}&type={}", encoded(&self.name), encoded(&self.qtype));
        if let Some(client) = self.client {
            path += &format!("&client={}", encoded(&client.to_string()));
        }
        if let Some(at) = self.at {
            path += &format!("&at={}", encoded(&at.to_string()));
        }
        path
    }
}

/// RFC 3986 §2.1, with the `+` of HTML forms.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        octets.push(match first {
            b'+' => b' ',
            b'%' => {
                let digits = rest.split_off(..2)?;
                hex(digits[0])? << 4 | hex(digits[1])?
            }
            octet => *octet,
        });
    }
    String::from_utf8(octets).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// RFC 3986 §2.3: all but the unreserved characters.
fn encoded(text: &str) -> String {
    let encode = |octet: u8| match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(octet).to_string(),
        octet => format!("%{octet:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let query = ExplainQuery {
            name: "a b\\&=%+.münchen.example".to_owned(),
            qtype: "TYPE65280".to_owned(),
            client: "2001:db8::1".parse().ok(),
            at: "2026-11-22T01:02:03.5Z".parse().ok(),
        };
        let path = query.to_path();
        let (page, text) = path.split_once('?').unwrap();
        assert_eq!(page, "/explain");
        assert!(path.is_ascii() && !path.contains(' '));
        assert_eq!(ExplainQuery::from_query(text), Ok(query));
        for cut in 0..text.len() {
            let _ = ExplainQuery::from_query(&text[..cut]);
        }
    }

    #[test]
    fn only_the_name_has_to_be_there() {
        let query = ExplainQuery::from_query("name=a+b&type=&client=&at=").unwrap();
        assert_eq!((query.name.as_str(), query.qtype.as_str(), query.client, query.at), ("a b", "A", None, None));
        for wrong in ["", "type=A", "name=%4", "name=%zz", "name=%ff", "name=a&client=a", "name=a&at=noon", "a=b"] {
            assert!(ExplainQuery::from_query(wrong).is_err(), "{wrong}");
        }
    }
}
