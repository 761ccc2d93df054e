//! What an answer to a probe says: that the order is carried out as it should be, that it is not, or nothing.

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::opt::EdnsOption;

use super::sample::Question;
use crate::dns::Ede;
use crate::dns::edns::option;
use crate::policy::index::Covers;
use crate::policy::order::{Effect, Order};

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As it should be; what else there is to say.
    Right(Option<String>),
    /// Not as it should be.
    Wrong(String),
    /// Nothing came that says either.
    None(String),
}

impl Outcome {
    pub(super) const RIGHT: &'static str = "right";
    pub(super) const WRONG: &'static str = "wrong";

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Right(_) => Self::RIGHT,
            Self::Wrong(_) => Self::WRONG,
            Self::None(_) => "none",
        }
    }

    pub(super) fn note(self) -> Option<String> {
        match self {
            Self::Right(note) => note,
            Self::Wrong(what) | Self::None(what) => Some(what),
        }
    }
}

/// Judges the answer to a question about an order, asked from inside or outside of its jurisdiction.
pub(super) fn judge(order: &Order, question: &Question, inside: bool, octets: &[u8]) -> Outcome {
    let Ok(answer) = Message::from_vec(octets) else {
        return Outcome::Wrong("what came is not a DNS message".to_owned());
    };
    if octets.get(..2) != question.octets().get(..2) {
        return Outcome::Wrong("what came answers another query".to_owned());
    }
    match (blocking_order(&answer), inside) {
        (Some(id), true) if id == order.id => effect(order, question, &answer),
        (Some(id), true) => Outcome::Right(Some(format!("blocked by order {id}, which goes first"))),
        (None, true) => Outcome::Wrong(format!("a client inside is not blocked: {}", answer.metadata.response_code)),
        (Some(id), false) if id == order.id => Outcome::Wrong("a client outside is blocked".to_owned()),
        (Some(id), false) => Outcome::Right(Some(format!("blocked by order {id}"))),
        (None, false) => Outcome::Right(Some(format!("not blocked: {}", answer.metadata.response_code))),
    }
}

/// The id of the order that an answer says it was blocked by (`order ID, ISSUER…` behind EDE 16).
fn blocking_order(answer: &Message) -> Option<String> {
    let options = &answer.edns.as_ref()?.options().options;
    options.iter().find_map(|(_, each)| {
        let EdnsOption::Unknown(option::EDE, data) = each else { return None };
        let (code, text) = data.split_first_chunk()?;
        let id = str::from_utf8(text).ok()?.strip_prefix("order ")?.split(',').next()?;
        (Ede(u16::from_be_bytes(*code)) == Ede::CENSORED).then(|| id.to_owned())
    })
}

/// Whether a blocked answer has the order's effect.
fn effect(order: &Order, question: &Question, answer: &Message) -> Outcome {
    let rcode = u16::from(answer.metadata.response_code);
    let empty = answer.answers.is_empty();
    let is_so = match (order.effect, question.covers) {
        (Effect::NxDomain, Covers::Subtree) => rcode == 3 && empty,
        (Effect::NxDomain, Covers::Exact) | (Effect::NoData, _) => rcode == 0 && empty,
        (Effect::Refused, _) => rcode == 5 && empty,
        (Effect::Address { a, aaaa }, _) => {
            rcode == 0
                && answer.answers.iter().all(|record| match &record.data {
                    RData::A(address) => Some(address.0) == a,
                    RData::AAAA(address) => Some(address.0) == aaaa,
                    _ => false,
                })
        }
    };
    if is_so {
        Outcome::Right(None)
    } else {
        Outcome::Wrong(format!("blocked, but not with the order's effect: {}", answer.metadata.response_code))
    }
}
