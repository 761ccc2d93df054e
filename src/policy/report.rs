//! Every order as it stands, as `bailiwick orders` lists them.

use jiff::Timestamp;
use serde::Serialize;

use super::order::Standing;
use super::{Policy, PolicyOrder};

/// One order, a line of the listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
    /// From when it is carried out; None: as soon as it is loaded.
    pub effective: Option<Timestamp>,
    /// From when it no longer is.
    pub expires: Option<Timestamp>,
    /// Its file.
    pub file: String,
    /// Why its file, as it is now, does not count; the last good copy does.
    pub pending: Vec<String>,
}

impl Policy {
    /// Every order as it stands at `now`, by file name.
    #[must_use]
    pub fn order_lines(&self, now: Timestamp) -> Vec<OrderLine> {
        self.orders().iter().map(|order| line(order, now)).collect()
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

fn line(policy_order: &PolicyOrder, now: Timestamp) -> OrderLine {
    let order = &policy_order.loaded.order;
    let pending = &policy_order.loaded.pending;
    OrderLine {
        id: order.id.clone(),
        issuer: order.issuer.clone(),
        reference: order.reference.clone(),
        state: if pending.is_empty() { order.standing(now).as_str() } else { "pending" },
        jurisdiction: order.jurisdiction.codes(),
        targets: policy_order.rules,
        received: order.received,
        due: order.due,
        effective: order.effective,
        expires: order.expires,
        file: order.file.display().to_string(),
        pending: pending.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::order::{Order, State, Texts};
    use super::super::tests::{at, loaded, order, policy};
    use crate::mistake::Mistake;

    #[test]
    fn orders_are_listed_as_they_stand_at_the_moment() {
        let dated = Order { effective: Some(at(1_000)), expires: Some(at(2_000)), ..order("dated", &["a.example"]) };
        let policy =
            policy(&[dated, Order { state: State::Trial, ..order("tried", &["b.example", "c.example"]) }], &[], &[]);
        for (now, state, in_force) in [(999, "waiting", 0), (1_000, "in-force", 1), (2_000, "expired", 0)] {
            let lines = policy.order_lines(at(now));
            assert_eq!((lines[0].state, lines[1].state, lines[1].targets), (state, "trial", 2));
            assert_eq!(policy.orders_in_force(at(now)), in_force);
        }
    }

    #[test]
    fn an_order_whose_file_cannot_be_read_is_pending_and_still_in_force() {
        let mut line =
            super::super::PolicyOrder { loaded: loaded(order("x", &["a.example"])), rules: 1, texts: Texts::default() };
        assert_eq!(super::line(&line, at(0)).state, "in-force");
        line.loaded.pending.push(Mistake::of_file(Path::new("x.toml"), "what; do"));
        let shown = super::line(&line, at(0));
        assert_eq!((shown.state, shown.pending), ("pending", vec!["x.toml: what; do".to_owned()]));
    }
}
