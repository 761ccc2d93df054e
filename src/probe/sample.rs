//! Which names of an order are asked for: a few of each target that is in force, at least one.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use jiff::Timestamp;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use crate::dns::edns::Opt;
use crate::dns::message::{Header, flag};
use crate::dns::{Name, Qclass, Qtype, Rcode};
use crate::policy::Policy;
use crate::policy::index::Covers;
use crate::policy::order::{Order, Standing, Target};

/// A question about a target.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// The target's key.
    pub(super) target: String,
    /// The name asked for.
    pub(super) name: Name,
    /// What the target means of it.
    pub(super) covers: Covers,
    /// The address that the answer would have, for a target of addresses.
    address: Option<IpAddr>,
    octets: Vec<u8>,
}

impl Question {
    fn new(target: &Target, name: Name, covers: Covers, address: Option<IpAddr>) -> Self {
        let qtype = if address.is_some_and(|address| address.is_ipv6()) { Qtype::AAAA } else { Qtype::A };
        let octets = message(&name, qtype);
        Self { target: target.key(), name, covers, address, octets }
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
    targets.flat_map(|(place, target)| of_target(policy, order, target, policy.listed_sample(number, place), now)).collect()
}

/// Of each kind of thing that the target is about the first, and one at random. What an exemption spares is not asked for.
fn of_target(policy: &Policy, order: &Order, target: &Target, listed: &[Name], now: Timestamp) -> Vec<Question> {
    let covers = target.list.as_ref().map_or(Covers::Subtree, |list| list.covers);
    let names = few(&target.names).map(|(name, covers, _)| (name.clone(), *covers));
    let under = few(&target.labels).filter_map(|(label, _)| Some((Name::from_text(&format!("{label}.com")).ok()?, Covers::Subtree)));
    let listed = few(listed).map(|name| (name.clone(), covers));
    let asked = names.chain(under).chain(listed).filter(|(name, _)| !policy.exempts(&order.id, name, now));
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

/// A query as a stub resolver makes it, with an OPT so that the answer says why.
fn message(name: &Name, qtype: Qtype) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_slice(&Header { id: rand::rng().random(), flags: flag::RD, counts: [1, 0, 0, 1] }.octets());
    out.put_slice(name.as_wire());
    out.put_u16(qtype.0);
    out.put_u16(Qclass::IN.0);
    Opt { rcode: Rcode::NOERROR, dnssec_ok: false, keepalive: None, errors: &[], padded: false }.write(&mut out, 0);
    out.to_vec()
}
