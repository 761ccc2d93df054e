//! Asks our own listeners, as a client inside and one outside of each order, whether it is carried out.
//!
//! A probe is a real connection with a real handshake and real octets; only the country of its client is given, and
//! that in-process: the socket is bound first and registered with the pipeline, so that nothing which a client could
//! send gives it a country.

mod exchange;
mod judge;
mod sample;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::digest::Digest;
use crate::ledger::{self, probed::hexadecimal};
use crate::pipeline::Pipeline;
use crate::policy::order::{Order, Standing};
use crate::policy::origin::Country;
use crate::policy::{Policy, PolicyOrder};
use crate::telemetry::Protocol;
use exchange::Line;
use judge::Outcome;
use sample::Question;

/// A listener that is probed.
#[derive(Debug, Clone)]
pub struct Place {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it listens; an unspecified address is asked on loopback.
    pub address: SocketAddr,
    /// The path of DoH.
    pub doh_path: String,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// When the answer was there, or given up.
    pub at: jiff::Timestamp,
    /// For the ledger.
    pub probe: ledger::Probe,
}

impl Probed {
    /// Whether it shows that the order is carried out: an inside client was answered as the order says.
    #[must_use]
    pub fn shows_effect(&self) -> bool {
        self.probe.inside && self.is_right()
    }

    /// Whether the answer was what it should be.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.probe.outcome == Outcome::RIGHT
    }

    /// Whether the answer was not what it should be.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.probe.outcome == Outcome::WRONG
    }
}

/// Probes orders over our listeners.
#[derive(Debug)]
pub struct Prober {
    pipeline: Arc<Pipeline>,
    places: Vec<Place>,
}

/// On which side of an order's jurisdiction a probe's client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Side {
    inside: bool,
    country: Option<Country>,
}

impl Prober {
    /// Probes over these listeners: one of each protocol is enough, since all of a protocol are the same code.
    #[must_use]
    pub fn new(pipeline: Arc<Pipeline>, places: Vec<Place>) -> Self {
        Self { pipeline, places }
    }

    /// Probes an order, if it is in force: a sample of each of its targets that are, over each listener, from either
    /// side. None that the policy knows by this id: nothing is found.
    pub async fn probe(&self, id: &str) -> Vec<Probed> {
        let policy = self.pipeline.policy();
        let now = self.pipeline.clock().now().wall;
        let Some(number) = policy.orders().iter().position(|order| order.loaded.order.id == id) else {
            return Vec::new();
        };
        let PolicyOrder { loaded, .. } = &policy.orders()[number];
        if loaded.order.standing(now) != Standing::InForce {
            return Vec::new();
        }
        let questions = sample::of(&policy, number, now);
        let mut found = Vec::new();
        for place in &self.places {
            for side in sides(&loaded.order) {
                found.extend(self.ask(place, side, (&policy, &loaded.order), &questions).await);
            }
        }
        found
    }

    /// Asks all questions over one connection; they are about an order of this policy.
    async fn ask(
        &self,
        place: &Place,
        side: Side,
        (policy, order): (&Policy, &Order),
        questions: &[Question],
    ) -> Vec<Probed> {
        let goes_first = |id: &str| {
            let ahead = |other: &Order| (other.received, &other.id) < (order.received, &order.id);
            policy.orders().iter().map(|other| &other.loaded.order).any(|other| other.id == id && ahead(other))
        };
        let mut line = Line::open(&self.pipeline, place, side.country).await;
        let certificate = line.as_ref().ok().map(Line::certificate);
        let mut found = Vec::new();
        for question in questions {
            if let Some((name, address)) = question.planted() {
                self.pipeline.plant(name, address);
            }
            let answer = match &mut line {
                Ok(line) => line.ask(question.octets()).await,
                Err(what) => Err(what.clone()),
            };
            let mut outcome = match &answer {
                Ok(octets) => judge::judge(order, question, side.inside, octets, goes_first),
                Err(what) => Outcome::None(what.clone()),
            };
            // What was wrong by the policy of before may be right by the one that came meanwhile.
            if matches!(outcome, Outcome::Wrong(_)) && self.pipeline.policy().generation() != policy.generation() {
                outcome = Outcome::None("the policy changed meanwhile".to_owned());
            }
            found.push(self.probed(place, side, order, question, certificate, answer.ok(), outcome));
        }
        found
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one line of the ledger")]
    fn probed(
        &self,
        place: &Place,
        side: Side,
        order: &Order,
        question: &Question,
        certificate: Option<Digest>,
        answer: Option<Vec<u8>>,
        outcome: Outcome,
    ) -> Probed {
        let probe = ledger::Probe {
            order: order.id.clone(),
            target: question.target.clone(),
            transport: place.protocol.key().to_owned(),
            inside: side.inside,
            country: side.country.map(|country| country.to_string()),
            query: hexadecimal(question.octets()),
            answer: answer.as_deref().map(hexadecimal),
            certificate,
            outcome: outcome.word().to_owned(),
            note: outcome.note(),
        };
        Probed { at: self.pipeline.clock().now().wall, probe }
    }
}

/// Countries that a client outside is said to be in: the first that the order does not mean.
const ELSEWHERE: [&str; 4] = ["CH", "JP", "BR", "ZA"];

/// A client inside, and one outside where there is an outside.
fn sides(order: &Order) -> Vec<Side> {
    let codes = order.jurisdiction.codes();
    let inside = codes.first().and_then(|code| Country::from_code(code));
    let mut elsewhere = ELSEWHERE.into_iter().chain(["NZ"]).filter_map(Country::from_code);
    let outside = elsewhere.find(|country| !order.applies_to(Some(*country)));
    let inside = Side { inside: true, country: inside };
    [Some(inside), outside.map(|country| Side { inside: false, country: Some(country) })]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use super::*;

    /// An order with these lines, about two names and a prefix.
    pub(super) fn order(lines: &str) -> Order {
        let text = format!(
            "id = 'x'\nissuer = 'Court'\nstate = 'in-force'\nreceived = 2026-01-01T00:00:00Z\n{lines}\n\
             [[target]]\nsubtree = ['a.example.org']\nexact = ['b.example.org']\n\
             [[target]]\naddress = ['192.0.2.0/24', '2001:db8::1']\n\
             [[target]]\nany-tld = ['label']\neffective = 2026-12-01T00:00:00Z\n"
        );
        Order::read(Path::new("x.toml"), &text).unwrap()
    }

    fn shown(order: &Order) -> Vec<(bool, String)> {
        let country = |side: &Side| side.country.map_or("-".to_owned(), |country| country.to_string());
        sides(order).iter().map(|side| (side.inside, country(side))).collect()
    }

    #[test]
    fn an_outside_is_where_the_order_does_not_apply() {
        let inside = |code: &str| (true, code.to_owned());
        let outside = |code: &str| (false, code.to_owned());
        assert_eq!(shown(&order("jurisdiction = ['IT', 'CH']")), [inside("IT"), outside("JP")]);
        assert_eq!(shown(&order("jurisdiction = ['CH', 'JP', 'BR', 'ZA']")), [inside("CH"), outside("NZ")]);
        assert_eq!(shown(&order("jurisdiction = ['*']")), [inside("-")]);
    }

    #[test]
    fn only_an_inside_client_that_is_answered_as_ordered_shows_an_effect() {
        let probe = |inside, outcome: &str| ledger::Probe {
            order: "x".to_owned(),
            target: String::new(),
            transport: "dot".to_owned(),
            inside,
            country: None,
            query: String::new(),
            answer: None,
            certificate: None,
            outcome: outcome.to_owned(),
            note: None,
        };
        for (inside, outcome, shows, wrong) in [
            (true, "right", true, false),
            (false, "right", false, false),
            (true, "wrong", false, true),
            (false, "wrong", false, true),
            (true, "none", false, false),
        ] {
            let probed = Probed { at: jiff::Timestamp::UNIX_EPOCH, probe: probe(inside, outcome) };
            assert_eq!((probed.shows_effect(), probed.is_wrong()), (shows, wrong));
        }
    }
}
