//! The rule of decision: orders first, then exemptions, then the operator's lists.

use std::net::IpAddr;

use jiff::Timestamp;

use super::index::{Covers, RuleId};
use super::order::{Order, Standing, Target};
use super::{Cause, Finding, Lead, Permitted, Policy, Source, View};
use crate::dns::Name;

/// The most orders in trial that one name is counted for.
const TRIALS_MAX: usize = 8;

/// The orders in trial that would have blocked, each once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trials {
    /// Their numbers: an order has a target at least, and targets are numbered by 16 bits.
    numbers: [u16; TRIALS_MAX],
    count: u8,
}

impl Trials {
    fn add(&mut self, number: usize) {
        let (number, count) = (number as u16, usize::from(self.count));
        if count < TRIALS_MAX && !self.numbers[..count].contains(&number) {
            self.numbers[count] = number;
            self.count += 1;
        }
    }

    /// Calls `each` with those that are not in `before`, which these began with.
    pub(super) fn since(&self, before: &Self, each: impl FnMut(usize)) {
        let new = &self.numbers[usize::from(before.count)..usize::from(self.count)];
        new.iter().map(|number| usize::from(*number)).for_each(each);
    }
}

/// The rule that decides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Winner {
    /// Whose it is.
    pub(super) cause: Cause,
    /// What it covers.
    pub(super) covers: Covers,
    /// How many labels its name has; 0 where it is not known, for a name of the reply.
    pub(super) labels: usize,
    /// Its number.
    pub(super) rule: RuleId,
}

/// Rules met so far, weighed for one client at one moment. Nothing is kept of those that cannot win, so that a
/// decision allocates nothing.
#[derive(Debug)]
pub(super) struct Weighing<'p> {
    policy: &'p Policy,
    view: View,
    now: Timestamp,
    order: Option<(usize, Winner)>,
    list: Option<(usize, Winner)>,
    ends: Option<Timestamp>,
    coming: Option<Timestamp>,
    trials: Trials,
    /// Some rule was met, whatever came of it.
    met_any: bool,
}

/// What stands between a rule and its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearing {
    /// It blocks.
    Blocks,
    /// An order that would block were it not in trial.
    Trial,
    /// An order that will block from this moment.
    Coming(Timestamp),
    /// An exemption, of this number, stands before it.
    Exempt(usize),
    /// It does not apply: the order's standing or jurisdiction says so.
    Idle,
    /// It is an exemption itself.
    IsExemption,
}

impl<'p> Weighing<'p> {
    pub(super) fn new(policy: &'p Policy, view: View, now: Timestamp) -> Self {
        let (trials, met_any) = (Trials::default(), false);
        Self { policy, view, now, order: None, list: None, ends: None, coming: None, trials, met_any }
    }

    /// Goes on where the question was admitted: what came to light then holds for the reply too.
    pub(super) fn after(policy: &'p Policy, permitted: &Permitted<'_>, view: View, now: Timestamp) -> Self {
        Self { coming: permitted.horizon, trials: permitted.trials, ..Self::new(policy, view, now) }
    }

    /// Weighs every rule that a name meets.
    pub(super) fn name(&mut self, name: &Name) {
        let policy = self.policy;
        policy.compiled.meet(name, |id, labels| {
            // Met again for the exemptions of the same name: only when a rule was met at all, which is rare.
            self.rule(id, labels, |each| policy.compiled.meet(name, |id, _| each(id)));
        });
    }

    /// Weighs every rule that a reply's name or address meets. The exemptions of an address are those of its owner.
    pub(super) fn lead(&mut self, lead: &Lead<'_>) {
        match *lead {
            Lead::Name(name) => self.name(name),
            Lead::Address(owner, address) => self.address(owner, address),
        }
    }

    fn address(&mut self, owner: &Name, address: IpAddr) {
        let policy = self.policy;
        policy.compiled.index.meet_address(address, |id| {
            self.rule(id, 0, |each| policy.compiled.meet(owner, |id, _| each(id)));
        });
    }

    /// Weighs what was found before; the exemptions of a name are among its own findings.
    pub(super) fn findings(&mut self, met: &[Finding]) {
        for finding in met {
            self.rule(finding.rule, 0, |each| {
                met.iter().filter(|other| other.name == finding.name).for_each(|other| each(other.rule));
            });
        }
    }

    /// The rule that decides, if any blocks. An order goes before every list.
    pub(super) fn winner(&self) -> Option<Winner> {
        self.order.or(self.list).map(|(_, winner)| winner)
    }

    /// The next moment at which any order that blocks ends.
    pub(super) fn ends(&self) -> Option<Timestamp> {
        self.ends
    }

    /// The next moment from which an order will block what nothing blocks now.
    pub(super) fn coming(&self) -> Option<Timestamp> {
        self.coming
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// The orders in trial that would have blocked.
    pub(super) fn trials(&self) -> Trials {
        self.trials
    }

    /// Whether any rule was met, whatever came of it.
    pub(super) fn met_any(&self) -> bool {
        self.met_any
    }

    fn rule(&mut self, id: RuleId, labels: usize, same_name: impl Fn(&mut dyn FnMut(RuleId))) {
        self.met_any = true;
        let compiled = &self.policy.compiled;
        let (bearing, exempt_until) = bearing(self.policy, id, self.view, self.now, same_name);
        let winner = |cause| Winner { cause, covers: compiled.index.rule(id).covers, labels, rule: id };
        match (compiled.source(id), bearing) {
            (Source::Order { order, target }, Bearing::Blocks) => {
                let (held, target) = compiled.target(order, target);
                sooner(&mut self.ends, held.ends(target, self.now));
                self.take_order(order, winner(Cause::Order(order)));
            }
            (Source::Order { order, .. }, Bearing::Trial) => self.trials.add(order),
            (Source::Order { .. }, Bearing::Coming(moment)) => sooner(&mut self.coming, Some(moment)),
            (Source::Order { .. }, Bearing::Exempt(_)) => sooner(&mut self.coming, exempt_until),
            (Source::List(number), Bearing::Blocks) => self.take_list(number, winner(Cause::List(number))),
            _ => {}
        }
    }

    /// The order received first decides, then the lower id; of one order's rules one that covers a subtree, and of
    /// those the one nearest to the root.
    fn take_order(&mut self, number: usize, winner: Winner) {
        let order = |number: usize| &self.policy.compiled.orders[number].loaded.order;
        let wins = match self.order {
            None => true,
            Some((other, held)) if other == number => (winner.covers, winner.labels) < (held.covers, held.labels),
            Some((other, _)) => precedence(order(number)) < precedence(order(other)),
        };
        if wins {
            self.order = Some((number, winner));
        }
    }

    /// The first list decides; of one list's rules, the longest, which is met last.
    fn take_list(&mut self, number: usize, winner: Winner) {
        if self.list.is_none_or(|(other, _)| number <= other) {
            self.list = Some((number, winner));
        }
    }
}

/// Orders are ranked by receipt, then by id.
pub(super) fn precedence(order: &Order) -> (Timestamp, &str) {
    (order.received, &order.id)
}

/// What stands between a rule and its effect; where that is an exemption, the moment from which an order blocks all
/// the same: the exemption has ended, the order has begun, and it has not ended yet.
pub(super) fn bearing(
    policy: &Policy,
    id: RuleId,
    view: View,
    now: Timestamp,
    same_name: impl Fn(&mut dyn FnMut(RuleId)),
) -> (Bearing, Option<Timestamp>) {
    let compiled = &policy.compiled;
    let (bearing, order) = match compiled.source(id) {
        Source::Exemption(_) => return (Bearing::IsExemption, None),
        Source::Nobody => return (Bearing::Idle, None),
        Source::List(_) => (Bearing::Blocks, None),
        Source::Order { order, target } => {
            let (order, target) = compiled.target(order, target);
            (order_bearing(order, target, view, now), Some((order, target)))
        }
    };
    if bearing == Bearing::Idle || compiled.exemptions.is_empty() {
        return (bearing, None);
    }
    let mut found: Option<usize> = None;
    same_name(&mut |id| {
        if let Source::Exemption(number) = compiled.source(id)
            && holds(policy, number, order.map(|(order, _)| order), now)
        {
            found = Some(found.map_or(number, |held| longer(policy, held, number)));
        }
    });
    let Some(number) = found else { return (bearing, None) };
    let end = compiled.exemptions[number].expires;
    let until = match bearing {
        Bearing::Blocks => end,
        Bearing::Coming(moment) => end.map(|end| end.max(moment)),
        _ => None,
    };
    let blocks_from = |until| order.and_then(|(order, target)| blocks_from(order, target, until));
    (Bearing::Exempt(number), until.and_then(blocks_from))
}

/// The first moment, from this one on, at which one of an order's targets is in force.
fn blocks_from(order: &Order, target: &Target, moment: Timestamp) -> Option<Timestamp> {
    match order.standing_of(target, moment) {
        Standing::InForce => Some(moment),
        _ => order.begins(target, moment),
    }
}

/// Of two exemptions the one that holds longer.
fn longer(policy: &Policy, one: usize, other: usize) -> usize {
    let end = |number: usize| policy.compiled.exemptions[number].expires.unwrap_or(Timestamp::MAX);
    if end(other) > end(one) { other } else { one }
}

/// Whether an exemption holds: against lists always, against an order only where it names that order.
fn holds(policy: &Policy, number: usize, order: Option<&Order>, now: Timestamp) -> bool {
    let exemption = &policy.compiled.exemptions[number];
    order.map_or_else(|| exemption.holds(now), |order| exemption.beats(&order.id, now))
}

fn order_bearing(order: &Order, target: &Target, view: View, now: Timestamp) -> Bearing {
    if !order.applies_to(view.country) {
        return Bearing::Idle;
    }
    match order.standing_of(target, now) {
        Standing::InForce => Bearing::Blocks,
        Standing::Trial => Bearing::Trial,
        Standing::Waiting => order.begins(target, now).map_or(Bearing::Idle, Bearing::Coming),
        Standing::Draft | Standing::Suspended | Standing::Expired | Standing::Lifted => Bearing::Idle,
    }
}

fn sooner(held: &mut Option<Timestamp>, moment: Option<Timestamp>) {
    *held = held.iter().copied().chain(moment).min();
}
