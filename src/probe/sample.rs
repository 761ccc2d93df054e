//! Which names of an order are asked for: a few of each target that is in force, at least one.

use std::net::IpAddr;

use jiff::Timestamp;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use crate::dns::{Name, Qtype, made};
use crate::policy::Policy;
use crate::policy::index::Covers;
use crate::policy::order::{Standing, Target};

/// A question about a target.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// The target's key.
    pub(super) target: String,
    /// The name asked for.
    pub(super) name: Name,
    /// A, or what the address is an address of.
    pub(super) qtype: Qtype,
    /// What the order means of it.
    pub(super) covers: Covers,
    /// Whether an exemption of the operator's keeps the order from it.
    pub(super) is_exempt: bool,
    /// The address that the answer would have, for a target of addresses.
    address: Option<IpAddr>,
    octets: Vec<u8>,
}

impl Question {
    fn new(target: &Target, name: Name, covers: Covers, address: Option<IpAddr>) -> Self {
        let qtype = address.map_or(Qtype::A, made::qtype_of);
        let octets = made::query(rand::rng().random(), &name, qtype);
        Self { target: target.key(), name, qtype, covers, is_exempt: false, address, octets }
    }

    /// The same where another target of the order means more of the name: that one decides.
    fn widened(self, covers: Option<Covers>) -> Self {
        Self { covers: covers.map_or(self.covers, |covers| covers.min(self.covers)), ..self }
    }

    /// The query.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// A made-up name, and the address that it is to have before it is asked for: an address has no name that one
    /// could ask for, and what an upstream says is not ours.
    pub(super) fn planted(&self) -> Option<(&Name, IpAddr)> {
        self.address.map(|address| (&self.name, address))
    }
}

/// Questions about each target that is in force of the order with this number.
pub(super) fn of(policy: &Policy, number: usize, now: Timestamp) -> Vec<Question> {
    let order = &policy.orders()[number].loaded.order;
    let in_force = |(_, target): &(usize, &Target)| order.standing_of(target, now) == Standing::InForce;
    let targets = order.targets.iter().enumerate().filter(in_force);
    targets
        .flat_map(|(place, target)| of_target(target, &policy.listed_sample(number, place)))
        .map(|question| {
            let covers = policy.covers(number, &question.name, now);
            let is_exempt = policy.exempts(&order.id, &question.name, now);
            Question { is_exempt, ..question.widened(covers) }
        })
        .collect()
}

/// Of each kind of thing that the target is about the first, and one at random.
fn of_target(target: &Target, listed: &[Name]) -> Vec<Question> {
    let covers = target.list.as_ref().map_or(Covers::Subtree, |list| list.covers);
    let names = few(&target.names).map(|(name, covers, _)| (name.clone(), *covers));
    let under = few(&target.labels)
        .filter_map(|(label, _)| Some((Name::from_text(&format!("{label}.com")).ok()?, Covers::Subtree)));
    let listed = few(listed).map(|name| (name.clone(), covers));
    let asked = names.chain(under).chain(listed);
    let asked = asked.map(|(name, covers)| Question::new(target, name, covers, None));
    let addresses = few(&target.addresses).filter_map(|(prefix, _)| Some((made_up()?, prefix.addr())));
    asked.chain(addresses.map(|(name, address)| Question::new(target, name, Covers::Subtree, Some(address)))).collect()
}

/// The first, and another at random where there is one.
fn few<T>(all: &[T]) -> impl Iterator<Item = &T> {
    let rest = all.get(1..).unwrap_or_default();
    all.first().into_iter().chain(rest.choose(&mut rand::rng()))
}

/// A name that nobody else can know, below one that is reserved for documentation (RFC 2606).
fn made_up() -> Option<Name> {
    Name::from_text(&format!("{:032x}.probe.example", rand::rng().random::<u128>())).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::tests::order;
    use super::*;
    use crate::policy::load::{self, LoadedOrder};
    use crate::policy::order::Order;

    fn policy(order: Order, exempt: &[&str]) -> Policy {
        let mut loaded = load::load(&load::Settings::default(), &load::Before::default(), Timestamp::UNIX_EPOCH);
        loaded.orders.push(LoadedOrder::of(order, b""));
        loaded.settings.exemptions.extend(exempt.iter().map(|name| load::Exemption {
            name: Name::from_text(name).unwrap(),
            reason: "a test".to_owned(),
            expires: None,
            overrides_order: Some("x".to_owned()),
            place: Default::default(),
        }));
        Policy::compile(&loaded, 1, Timestamp::UNIX_EPOCH).unwrap()
    }

    /// The names asked for at a moment, those made up by their addresses.
    fn asked(policy: &Policy, now: &str) -> Vec<String> {
        let shown = |question: &Question| match question.planted() {
            Some((_, address)) => address.to_string(),
            None => question.name.to_string(),
        };
        of(policy, 0, now.parse().unwrap()).iter().map(shown).collect()
    }

    #[test]
    fn each_target_in_force_is_asked_for() {
        let policy = policy(order("jurisdiction = ['IT']"), &[]);
        let early = ["a.example.org", "b.example.org", "192.0.2.0", "2001:db8::1"].map(str::to_owned);
        assert_eq!(asked(&policy, "2026-11-30T23:59:59Z"), early);
        assert_eq!(asked(&policy, "2026-12-01T00:00:00Z"), [&early[..], &["label.com".to_owned()]].concat());
        let keys: Vec<_> = policy.orders()[0].loaded.order.targets.iter().map(Target::key).collect();
        let questions = of(&policy, 0, "2026-12-01T00:00:00Z".parse().unwrap());
        assert!(keys.iter().all(|key| questions.iter().any(|question| question.target == *key)));
    }

    #[test]
    fn what_is_exempt_is_asked_for_as_such() {
        let policy = policy(order("jurisdiction = ['IT']"), &["a.example.org"]);
        let questions = of(&policy, 0, "2026-11-30T00:00:00Z".parse().unwrap());
        let exempt = questions.iter().filter(|question| question.is_exempt).map(|question| question.name.to_string());
        assert_eq!((exempt.collect::<Vec<_>>(), questions.len()), (vec!["a.example.org".to_owned()], 4));
    }

    #[test]
    fn of_many_the_first_and_one_more() {
        let all: Vec<u8> = (0..100).collect();
        for _ in 0..50 {
            let some: Vec<_> = few(&all).collect();
            assert!(some.len() == 2 && *some[0] == 0 && *some[1] > 0);
        }
        assert_eq!((few(&all[..1]).count(), few(&all[..0]).count()), (1, 0));
    }

    #[test]
    fn no_two_made_up_names_are_the_same() {
        assert_ne!(made_up().unwrap(), made_up().unwrap());
    }
}
