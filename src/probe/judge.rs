//! What an answer to a probe says: that the order is carried out as it should be, that it is not, or nothing.

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::opt::EdnsOption;

use super::sample::Question;
use crate::dns::edns::option;
use crate::dns::{Ede, Qtype};
use crate::policy::index::Covers;
use crate::policy::order::{Effect, Order};

/// RCODEs of an answer that found something, or that nothing is there (RFC 1035 §4.1.1).
const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;

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

/// Judges the answer to a question about an order, asked from inside or outside of its jurisdiction. `goes_first` says
/// of another order's id whether that one's answer stands for both where both block a name.
pub(super) fn judge(
    order: &Order,
    question: &Question,
    inside: bool,
    octets: &[u8],
    goes_first: impl Fn(&str) -> bool,
) -> Outcome {
    let Ok(answer) = Message::from_vec(octets) else {
        return Outcome::Wrong("what came is not a DNS message".to_owned());
    };
    if octets.get(..2) != question.octets().get(..2) {
        return Outcome::Wrong("what came answers another query".to_owned());
    }
    match (blocking_order(&answer), inside) {
        (Some(id), true) if id == order.id && question.is_exempt => {
            Outcome::Wrong("blocked, though an exemption of the operator's spares the name".to_owned())
        }
        (Some(id), true) if id == order.id => effect(order, question, &answer),
        (Some(id), true) if goes_first(&id) => Outcome::Right(Some(format!("blocked by order {id}, which goes first"))),
        (Some(id), true) => Outcome::Wrong(format!("blocked by order {id} alone, which does not go first")),
        (None, _) => not_blocked(question, inside, &answer),
        (Some(id), false) if id == order.id => Outcome::Wrong("a client outside is blocked".to_owned()),
        (Some(id), false) => Outcome::Right(Some(format!("blocked by order {id}"))),
    }
}

/// What it means that no order blocked. Outside that is right only where there was something to block: an upstream that
/// fails says neither.
fn not_blocked(question: &Question, inside: bool, answer: &Message) -> Outcome {
    let rcode = answer.metadata.response_code;
    if let Some((_, planted)) = question.planted()
        && !answer.answers.iter().any(|record| address(&record.data) == Some(planted))
    {
        return Outcome::None(format!("the made-up name has not got its address: {rcode}"));
    }
    if inside && question.is_exempt {
        return Outcome::None("an exemption of the operator's spares the name from this order".to_owned());
    }
    if inside {
        return Outcome::Wrong(format!("a client inside is not blocked: {rcode}"));
    }
    match rcode.into() {
        NOERROR | NXDOMAIN => Outcome::Right(Some(format!("not blocked by an order: {rcode}"))),
        _ => Outcome::None(format!("not blocked by an order, but nothing was found either: {rcode}")),
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
            let (a, aaaa) = (a.map(IpAddr::from), aaaa.map(IpAddr::from));
            let said = if question.qtype == Qtype::AAAA { aaaa } else { a };
            rcode == 0 && answer.answers.iter().map(|record| address(&record.data)).eq(said.map(Some))
        }
    };
    if is_so {
        Outcome::Right(None)
    } else {
        Outcome::Wrong(format!("blocked, but not with the order's effect: {}", answer.metadata.response_code))
    }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use bytes::BytesMut;
    use jiff::Timestamp;

    use super::super::sample;
    use super::super::tests::order;
    use super::*;
    use crate::answer::{Answer, Manner};
    use crate::dns::{Name, made};
    use crate::local::Local;
    use crate::policy::load::{self, LoadedOrder};
    use crate::policy::{Policy, View};
    use crate::query::{Query, Transport};

    const MANNER: Manner = Manner { trust_ad: false, keepalive: 0 };

    fn policy(order: &Order) -> Policy {
        let mut loaded = load::load(&load::Settings::default(), &load::Before::default(), Timestamp::UNIX_EPOCH);
        loaded.orders.push(LoadedOrder::of(order.clone(), b""));
        Policy::compile(&loaded, 1, Timestamp::UNIX_EPOCH).unwrap()
    }

    /// What is said of the answers to a question about `order`, where `carried_out` is: asked from inside, and outside.
    fn judged(order: &Order, carried_out: &Order) -> Vec<[&'static str; 2]> {
        let policy = policy(carried_out);
        let now = "2026-11-22T00:00:00Z".parse().unwrap();
        let questions = sample::of(&policy, 0, now).into_iter().filter(|question| question.planted().is_none());
        let judged = questions.map(|question| {
            let query = Query::read(question.octets(), Transport::Dot).unwrap();
            let mut out = BytesMut::new();
            let _ = match policy.admit(&query, View { country: None }, now, |_| {}) {
                Ok(permitted) => Answer::local(&permitted.query().echo, &Local::not_cached()).write(MANNER, &mut out),
                Err(block) => Answer::block(&block).write(MANNER, &mut out),
            };
            // What found nothing says nothing; what is not ours to answer is refused here.
            if out[3] & 0xf == 5 && !out.windows(6).any(|octets| octets == b"order ") {
                out[3] &= 0xf0;
            }
            [true, false].map(|inside| judge(order, &question, inside, &out, |_| true).word())
        });
        judged.collect()
    }

    #[test]
    fn every_effect_is_known() {
        let effects =
            ["'nxdomain'", "'nodata'", "'refused'", "{ a = '192.0.2.1' }", "{ a = '192.0.2.1', aaaa = '::1' }"];
        let orders = effects.map(|effect| order(&format!("jurisdiction = ['*']\neffect = {effect}")));
        for order in &orders {
            assert_eq!(judged(order, order), [["right", "wrong"]; 2]);
        }
        for (said, done) in [(0, 1), (0, 3), (1, 2), (1, 3), (2, 0), (3, 1), (3, 2)] {
            let judged = judged(&orders[said], &orders[done]);
            assert!(judged[0] == ["wrong", "wrong"], "{} done as {}: {judged:?}", effects[said], effects[done]);
        }
    }

    #[test]
    fn of_targets_that_overlap_the_wider_one_is_expected() {
        let mut order = order("jurisdiction = ['*']");
        let above = order.targets[0].names[0].0.clone();
        order.targets[0].names[1].0 = Name::from_text(&format!("www.{above}")).unwrap();
        assert_eq!(judged(&order, &order), [["right", "wrong"]; 2]);
    }

    #[test]
    fn what_is_not_blocked_is_wrong_inside_and_right_outside() {
        let order = order("jurisdiction = ['IT']");
        assert_eq!(judged(&order, &order), [["wrong", "right"]; 2]);
    }

    #[test]
    fn what_an_exemption_spares_is_neither() {
        let order = order("jurisdiction = ['IT']");
        let mut question = sample::of(&policy(&order), 0, "2026-11-22T00:00:00Z".parse().unwrap()).remove(0);
        question.is_exempt = true;
        let mut clean = made::address(&question.name, [192, 0, 2, 1].into(), 60);
        clean[..2].copy_from_slice(&question.octets()[..2]);
        assert_eq!(
            [true, false].map(|inside| judge(&order, &question, inside, &clean, |_| true).word()),
            ["none", "right"]
        );
    }

    #[test]
    fn what_another_order_blocks_is_blocked() {
        let asked = order("jurisdiction = ['*']");
        let other = Order { id: "other".to_owned(), ..asked.clone() };
        assert_eq!(judged(&asked, &other), [["right", "right"]; 2]);
    }

    #[test]
    fn what_only_an_order_behind_it_blocks_is_not_carried_out() {
        let asked = order("jurisdiction = ['*']");
        let other = Order { id: "other".to_owned(), ..asked.clone() };
        let (policy, now) = (policy(&other), "2026-11-22T00:00:00Z".parse().unwrap());
        let question = sample::of(&policy, 0, now).remove(0);
        let query = Query::read(question.octets(), Transport::Dot).unwrap();
        let block = policy.admit(&query, View { country: None }, now, |_| {}).unwrap_err();
        let mut out = BytesMut::new();
        let _ = Answer::block(&block).write(MANNER, &mut out);
        for (goes_first, outcome) in [(true, "right"), (false, "wrong")] {
            let said = judge(&asked, &question, true, &out, |id| id == "other" && goes_first);
            assert_eq!(said.word(), outcome);
        }
    }

    #[test]
    fn what_was_not_found_says_nothing() {
        let order = order("jurisdiction = ['*']");
        let questions = sample::of(&policy(&order), 0, "2026-11-22T00:00:00Z".parse().unwrap());
        let (named, planted): (Vec<_>, Vec<_>) = questions.iter().partition(|question| question.planted().is_none());
        let answered = |question: &Question, address: [u8; 4], rcode: u8, inside: bool| {
            let mut octets = made::address(&question.name, address.into(), 60);
            octets[..2].copy_from_slice(&question.octets()[..2]);
            octets[3] |= rcode;
            judge(&order, question, inside, &octets, |_| true).word()
        };
        let elsewhere = [198, 51, 100, 1];
        for (rcode, outside) in [(0, "right"), (3, "right"), (2, "none"), (5, "none"), (4, "none")] {
            assert_eq!(answered(named[0], elsewhere, rcode, false), outside, "RCODE {rcode}");
            assert_eq!(answered(named[0], elsewhere, rcode, true), "wrong", "RCODE {rcode}");
        }
        // The made-up name has its address in the cache alone, and may have been pushed out of it.
        let planted = planted[0];
        for (inside, there) in [(true, "wrong"), (false, "right")] {
            assert_eq!(answered(planted, elsewhere, 0, inside), "none");
            assert_eq!(answered(planted, [192, 0, 2, 0], 0, inside), there);
        }
    }

    #[test]
    fn what_is_no_answer_is_wrong_wherever_it_ends() {
        let order = order("jurisdiction = ['*']");
        let question = sample::of(&policy(&order), 0, "2026-11-22T00:00:00Z".parse().unwrap()).remove(0);
        let whole = made::address(&question.name, [192, 0, 2, 1].into(), 60);
        for cut in 0..=whole.len() {
            assert_eq!(judge(&order, &question, true, &whole[..cut], |_| true).word(), "wrong", "cut at {cut}");
        }
        let mut echoed = whole;
        echoed[..2].copy_from_slice(&question.octets()[..2]);
        assert_eq!(judge(&order, &question, false, &echoed, |_| true).word(), "right");
    }
}
