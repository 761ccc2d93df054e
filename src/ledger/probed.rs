//! A probe with what the octets of its query and answer say.

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use jiff::Timestamp;
use serde::Serialize;

use super::{Probe, words};
use crate::dns::Rcode;
use crate::dns::edns::option;
use crate::dns::message::Question;

/// A probe, with what its octets say.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProbeCase {
    /// The ledger's line.
    pub line: u64,
    /// When.
    pub at: Timestamp,
    /// The question in its query, such as `www.a.example A`.
    pub question: String,
    /// What its answer says.
    pub answered: String,
    /// What was kept.
    pub probe: Probe,
}

impl ProbeCase {
    /// Reads what its octets say; they may be anything.
    #[must_use]
    pub fn read(line: u64, at: Timestamp, probe: Probe) -> Self {
        let question = octets_of(&probe.query).and_then(|query| Question::read(&query).ok());
        let question =
            question.map_or_else(|| "cannot be read".to_owned(), |asked| format!("{} {}", asked.qname, asked.qtype));
        let answered = match &probe.answer {
            None => "no answer came".to_owned(),
            Some(answer) => octets_of(answer)
                .and_then(|octets| answer_in_words(&octets))
                .unwrap_or_else(|| "cannot be read".to_owned()),
        };
        Self { line, at, question, answered, probe }
    }
}

/// How a probe's octets are written, in lower case.
#[must_use]
pub fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn octets_of(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits = hexadecimal.as_bytes().chunks(2);
    let octet = |pair: &[u8]| match pair {
        [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()
        }
        _ => None,
    };
    digits.map(octet).collect()
}

/// `NXDOMAIN, no answer record; extended error 16: order it-1, Tribunale di Milano`.
fn answer_in_words(octets: &[u8]) -> Option<String> {
    let message = Message::from_vec(octets).ok()?;
    let rcode = Rcode(message.metadata.response_code.into());
    let rcode = rcode.mnemonic().map_or_else(|| format!("RCODE {}", rcode.0), str::to_owned);
    let records = match message.answers.len() {
        0 => "no answer record".to_owned(),
        count => words::counted(count, "answer record"),
    };
    let options = message.edns.iter().flat_map(|edns| edns.options().get_all(EdnsCode::Unknown(option::EDE)));
    let errors = options.filter_map(|option| match option {
        EdnsOption::Unknown(_, octets) => extended_error(octets),
        _ => None,
    });
    Some([format!("{rcode}, {records}")].into_iter().chain(errors).collect::<Vec<_>>().join("; "))
}

fn extended_error(octets: &[u8]) -> Option<String> {
    let (code, text) = octets.split_first_chunk::<2>()?;
    let (code, text) = (u16::from_be_bytes(*code), String::from_utf8_lossy(text));
    Some(if text.is_empty() { format!("extended error {code}") } else { format!("extended error {code}: {text}") })
}
