//! Every order as it stands, as `bailiwick orders` lists them.

use jiff::Timestamp;
use serde::Serialize;

use super::load::{Approvals, Fate, LoadedOrder};
use super::order::{Order, Standing, Target};
use super::register::{Record, Register};
use super::{Policy, PolicyOrder};

/// One order, a line of the listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OrderLine {
    /// Its id.
    pub id: String,
    /// Its issuer.
    pub issuer: String,
    /// The issuer's file number.
    pub reference: Option<String>,
    /// As it stands now: draft, trial, pending, waiting, in-force, suspended, expired or lifted.
    pub state: &'static str,
    /// Country codes, or `*`.
    pub jurisdiction: Vec<String>,
    /// How many names, labels and prefixes, those of its lists included.
    pub targets: usize,
    /// When it was received.
    pub received: Timestamp,
    /// By when it must be carried out.
    pub due: Option<Timestamp>,
    /// Whole seconds until then, rounded down: negative past it. None: it has no deadline.
    pub seconds_left: Option<i64>,
    /// Whether a deadline, its own or that of a target, is past and what it is for is not carried out.
    pub overdue: bool,
    /// When it was first loaded here.
    pub loaded: Option<Timestamp>,
    /// When the octets in force were first seen approved here; None: they were not, or nothing asks for it.
    pub approved: Option<Timestamp>,
    /// Who has signed its file as it is now; None: no approval is asked for.
    pub approvals: Option<Approvals>,
    /// From when it is carried out; None: as soon as it is loaded.
    pub effective: Option<Timestamp>,
    /// From when it was first carried out on this node.
    pub effective_since: Option<Timestamp>,
    /// When a probe first saw it carried out.
    pub probed: Option<Timestamp>,
    /// Whether the ledger has on its disk that it was carried out; None: there is no ledger.
    pub recorded: Option<bool>,
    /// From when it no longer is.
    pub expires: Option<Timestamp>,
    /// The same of each `[[target]]`.
    pub targets_clock: Vec<TargetLine>,
    /// Its file.
    pub file: String,
    /// Why its file, as it is now, does not count, or not as it says.
    pub pending: Vec<String>,
}

/// A target's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TargetLine {
    /// What it is known by in the register and the ledger.
    pub target: String,
    /// What of it stands first in the file: `subtree a.example`.
    pub first: Option<String>,
    /// How many names, labels, prefixes and lists.
    pub targets: usize,
    /// As it stands now.
    pub state: &'static str,
    /// When it was added.
    pub added: Option<jiff::civil::Date>,
    /// By when it must be carried out: its own deadline, else its order's.
    pub due: Option<Timestamp>,
    /// Whole seconds until then, rounded down: negative past it.
    pub seconds_left: Option<i64>,
    /// When it was first loaded here.
    pub loaded: Option<Timestamp>,
    /// From when it was first carried out on this node.
    pub effective_since: Option<Timestamp>,
    /// When a probe first saw it carried out.
    pub probed: Option<Timestamp>,
}

/// An order's clock, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockLine {
    /// Its id.
    pub id: String,
    /// Whole seconds until it must be carried out, rounded down: negative past it.
    pub seconds_left: Option<i64>,
    /// From when it was first carried out on this node.
    pub effective_since: Option<Timestamp>,
    /// The same of each target that has a deadline of its own: what it is known by, and its seconds.
    pub targets: Vec<(String, i64)>,
}

impl Policy {
    /// Every order as it stands at `now`, by file name; `register` has what is remembered of each.
    #[must_use]
    pub fn order_lines(&self, register: &Register, now: Timestamp) -> Vec<OrderLine> {
        self.orders().iter().map(|order| line(order, register.orders.get(&order.loaded.order.id), now)).collect()
    }

    /// Every order's clock at `now`, by file name.
    #[must_use]
    pub fn clock_lines(&self, register: &Register, now: Timestamp) -> Vec<ClockLine> {
        let line = |policy_order: &PolicyOrder| {
            let LoadedOrder { order, target_keys, .. } = &policy_order.loaded;
            let targets = target_keys.iter().zip(&order.targets);
            let mut targets: Vec<_> =
                targets.filter_map(|(key, target)| Some((key.clone(), seconds_left(target.due?, now)))).collect();
            targets.sort();
            targets.dedup_by(|later, earlier| later.0 == earlier.0);
            ClockLine {
                id: order.id.clone(),
                seconds_left: order.due.map(|due| seconds_left(due, now)),
                effective_since: register.orders.get(&order.id).and_then(|record| record.effective),
                targets,
            }
        };
        self.orders().iter().map(line).collect()
    }

    /// The ids of the orders that are overdue at `now`, by file name.
    #[must_use]
    pub fn overdue(&self, register: &Register, now: Timestamp) -> Vec<&str> {
        let orders = self.orders().iter().map(|order| &order.loaded);
        let overdue = orders.filter(|loaded| is_overdue(loaded, register.orders.get(&loaded.order.id), now));
        overdue.map(|loaded| loaded.order.id.as_str()).collect()
    }

    /// How many orders are carried out at `now`, those whose file is pending included: their last good copy is.
    #[must_use]
    pub fn orders_in_force(&self, now: Timestamp) -> usize {
        self.ids_in_force(now).count()
    }

    /// Their ids, by file name.
    pub fn ids_in_force(&self, now: Timestamp) -> impl Iterator<Item = &str> {
        let orders = self.orders().iter().map(|order| &order.loaded.order);
        orders.filter(move |order| order.standing(now) == Standing::InForce).map(|order| order.id.as_str())
    }
}

/// Whole seconds until a deadline, rounded down: negative past it, 0 in its last second.
pub(crate) fn seconds_left(due: Timestamp, now: Timestamp) -> i64 {
    let left = due.duration_since(now);
    left.as_secs() - i64::from(left.subsec_nanos() < 0)
}

/// Whether a deadline is past and what it is for is not carried out: the order's, or a target's own. Not of what is
/// suspended or lifted, nor of what was carried out and is over.
fn is_overdue(loaded: &LoadedOrder, record: Option<&Record>, now: Timestamp) -> bool {
    let LoadedOrder { order, target_keys, .. } = loaded;
    let is_past = |due: Option<Timestamp>| due.is_some_and(|due| due < now);
    let standing_of = |target: &Target| order.standing_of(target, now);
    let was_effective = record.is_some_and(|record| record.effective.is_some());
    let is_carried_out = || order.targets.iter().any(|target| standing_of(target) == Standing::InForce);
    if is_past(order.due) && !is_carried_out() && is_missed(order, order.standing(now), was_effective) {
        return true;
    }
    let of_target =
        |key: &str| record.is_some_and(|record| record.targets.get(key).is_some_and(|t| t.effective.is_some()));
    let mut targets = target_keys.iter().zip(&order.targets).filter(|(_, target)| is_past(target.due));
    targets.any(|(key, target)| is_missed(order, standing_of(target), of_target(key)))
}

/// Whether what stands so past its deadline should be carried out.
fn is_missed(order: &Order, standing: Standing, was_effective: bool) -> bool {
    match standing {
        // Its targets are not, each by dates of its own.
        Standing::InForce => !was_effective,
        Standing::Suspended | Standing::Lifted => false,
        Standing::Draft | Standing::Trial => true,
        // Between two of its events.
        Standing::Waiting => !was_effective || order.intervals.is_empty(),
        Standing::Expired => !was_effective,
    }
}

fn line(policy_order: &PolicyOrder, record: Option<&Record>, now: Timestamp) -> OrderLine {
    let LoadedOrder { order, pending, digest, fate, approvals, .. } = &policy_order.loaded;
    // Its file, or one of its lists, as it is now does not count.
    let is_pending = *fate == Fate::Copy || (*fate == Fate::AsWritten && !pending.is_empty());
    let approved = record.and_then(|record| record.approved.as_ref()).filter(|approval| approval.digest == *digest);
    OrderLine {
        id: order.id.clone(),
        issuer: order.issuer.clone(),
        reference: order.reference.clone(),
        state: if is_pending { "pending" } else { order.standing(now).as_str() },
        jurisdiction: order.jurisdiction.codes(),
        targets: policy_order.rules,
        received: order.received,
        due: order.due,
        seconds_left: order.due.map(|due| seconds_left(due, now)),
        overdue: is_overdue(&policy_order.loaded, record, now),
        loaded: record.map(|record| record.loaded),
        approved: approved.map(|approval| approval.at),
        approvals: approvals.clone(),
        effective: order.effective,
        effective_since: record.and_then(|record| record.effective),
        probed: record.and_then(|record| record.probed),
        recorded: None,
        expires: order.expires,
        targets_clock: target_lines(&policy_order.loaded, record, now),
        file: order.file.display().to_string(),
        pending: pending.iter().map(ToString::to_string).collect(),
    }
}

fn target_lines(loaded: &LoadedOrder, record: Option<&Record>, now: Timestamp) -> Vec<TargetLine> {
    let line = |(key, target): (&String, &Target)| {
        let record = record.and_then(|record| record.targets.get(key));
        let due = target.due.or(loaded.order.due);
        TargetLine {
            target: key.clone(),
            first: target.first_shown(),
            targets: target.count(),
            state: loaded.order.standing_of(target, now).as_str(),
            added: target.added,
            due,
            seconds_left: due.map(|due| seconds_left(due, now)),
            loaded: record.map(|record| record.loaded),
            effective_since: record.and_then(|record| record.effective),
            probed: record.and_then(|record| record.probed),
        }
    };
    loaded.target_keys.iter().zip(&loaded.order.targets).map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::order::{Interval, State, Texts};
    use super::super::tests::{at, loaded, order, policy};
    use super::*;
    use crate::mistake::Mistake;

    #[test]
    fn orders_are_listed_as_they_stand_at_the_moment() {
        let dated = Order { effective: Some(at(1_000)), expires: Some(at(2_000)), ..order("dated", &["a.example"]) };
        let policy =
            policy(&[dated, Order { state: State::Trial, ..order("tried", &["b.example", "c.example"]) }], &[], &[]);
        for (now, state, in_force) in [(999, "waiting", 0), (1_000, "in-force", 1), (2_000, "expired", 0)] {
            let lines = policy.order_lines(&Register::default(), at(now));
            assert_eq!((lines[0].state, lines[1].state, lines[1].targets), (state, "trial", 2));
            assert_eq!(policy.orders_in_force(at(now)), in_force);
        }
    }

    #[test]
    fn an_order_whose_copy_stands_for_its_file_is_pending_and_a_draft_is_a_draft() {
        let mut line = PolicyOrder { loaded: loaded(order("x", &["a.example"])), rules: 1, texts: Texts::default() };
        assert_eq!(super::line(&line, None, at(0)).state, "in-force");
        line.loaded.pending.push(Mistake::of_file(Path::new("x.toml"), "what; do"));
        line.loaded.fate = Fate::Copy;
        let shown = super::line(&line, None, at(0));
        assert_eq!((shown.state, shown.pending), ("pending", vec!["x.toml: what; do".to_owned()]));
        line.loaded.fate = Fate::Draft;
        line.loaded.order.state = State::Draft;
        assert_eq!(super::line(&line, None, at(0)).state, "draft");
    }

    #[test]
    fn seconds_to_a_deadline_are_rounded_down() {
        for (now, left) in [(-1, 1), (0, 1), (1, 0), (999, 0), (1_000, 0), (1_001, -1), (2_000, -1), (2_001, -2)] {
            assert_eq!(seconds_left(at(1_000), at(now)), left, "{now}");
        }
        let due = at(1_000);
        let late = Timestamp::from_nanosecond(due.as_nanosecond() + 1).unwrap_or_default();
        assert_eq!(seconds_left(due, late), -1, "late by a nanosecond is late");
    }

    /// Of an order due at one second, whether it is overdue at each of these milliseconds, looked at ever before.
    fn overdue(order: &Order, nows: &[i64]) -> Vec<bool> {
        let policy = policy(std::slice::from_ref(order), &[], &[]);
        let mut register = Register::default();
        let is_overdue = |now: &i64| {
            register.follow(&policy, at(*now));
            let lines = policy.order_lines(&register, at(*now));
            assert_eq!(lines[0].overdue, !policy.overdue(&register, at(*now)).is_empty());
            lines[0].overdue
        };
        nows.iter().map(is_overdue).collect()
    }

    #[test]
    fn past_due_and_not_carried_out_is_overdue_to_the_moment() {
        let due = |order: Order| Order { due: Some(at(1_000)), ..order };
        let plain = || due(order("x", &["a.example"]));
        let stated = |state| Order { state, ..plain() };
        for (order, is_late) in [
            (plain(), false),
            (stated(State::Draft), true),
            (stated(State::Trial), true),
            (stated(State::Suspended), false),
            (stated(State::Lifted), false),
            (Order { effective: Some(at(1_000)), ..plain() }, false),
            (Order { effective: Some(at(5_000)), ..plain() }, true),
            (Order { expires: Some(at(500)), ..plain() }, false),
            (Order { expires: Some(at(-1)), ..plain() }, true),
            (Order { due: None, ..stated(State::Draft) }, false),
        ] {
            assert_eq!(overdue(&order, &[0, 1_000, 1_001, 2_000]), [false, false, is_late, is_late], "{order:?}");
        }
        let late = Order { effective: Some(at(5_000)), ..plain() };
        assert_eq!(overdue(&late, &[4_999, 5_000]), [true, false], "until it is carried out");
    }

    #[test]
    fn between_its_events_an_order_is_not_overdue() {
        let interval = |from, until| Interval { from: at(from), until: at(until) };
        let due = |intervals| Order { due: Some(at(1_000)), intervals, ..order("x", &["a.example"]) };
        let met = due(vec![interval(500, 900), interval(3_000, 4_000)]);
        assert_eq!(overdue(&met, &[0, 500, 1_001, 3_000, 4_000]), [false; 5]);
        let missed = due(vec![interval(3_000, 4_000)]);
        assert_eq!(overdue(&missed, &[1_001, 3_000, 4_000]), [true, false, false]);
    }

    #[test]
    fn a_target_has_a_deadline_of_its_own() {
        let mut two = Order { due: Some(at(9_000)), ..order("x", &["a.example"]) };
        let addendum = order("y", &["b.example", "c.example"]).targets.remove(0);
        two.targets.push(Target { due: Some(at(1_000)), effective: Some(at(2_000)), ..addendum });
        assert_eq!(overdue(&two, &[0, 1_000, 1_001, 1_999, 2_000]), [false, false, true, true, false]);
        two.state = State::Suspended;
        assert_eq!(overdue(&two, &[1_001]), [false]);
        two.state = State::InForce;
        let policy = policy(&[two], &[], &[]);
        let mut register = Register::default();
        register.follow(&policy, at(0));
        let line = policy.order_lines(&register, at(500)).remove(0);
        let clock: Vec<_> = line.targets_clock.iter().map(|t| (t.seconds_left, t.state, t.effective_since)).collect();
        assert_eq!(clock, [(Some(8), "in-force", Some(at(0))), (Some(0), "waiting", None)]);
        assert_eq!((line.targets, line.effective_since, line.loaded), (3, Some(at(0)), Some(at(0))));
        assert_eq!(line.targets_clock[1].first.as_deref(), Some("subtree b.example"));
        let clock = policy.clock_lines(&register, at(500)).remove(0);
        let key = line.targets_clock[1].target.clone();
        assert_eq!((clock.seconds_left, clock.targets), (Some(8), vec![(key, 0)]));
    }
}
