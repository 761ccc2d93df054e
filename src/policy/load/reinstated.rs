//! An order that was lifted comes back only by a decision that its file states.

use jiff::civil::Date;

use super::orders::place_of;
use crate::mistake::Mistake;
use crate::policy::order::{Order, State};

/// The mistake of a file by which a lifted order would come back without a decision of that day (UTC) or later. Where
/// the day is not known, any decision counts.
pub(super) fn mistake(order: &Order, octets: &[u8], lifted: Option<Date>) -> Option<Mistake> {
    let is_decided = order.reinstated.is_some_and(|day| lifted.is_none_or(|lifted| lifted <= day));
    if order.state == State::Lifted || is_decided {
        return None;
    }
    let what = match lifted {
        Some(day) => format!("was lifted on {day}; give it an id of its own, or reinstated = {day}"),
        None => "was lifted; give it an id of its own, or say the day of the decision in `reinstated`".to_owned(),
    };
    Some(match place_of(octets, |table| Some(table.get("state")?.span())) {
        Some((text, span)) => Mistake::at(&order.file, text, span, what),
        None => Mistake::of_file(&order.file, what),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;

    use super::super::approvals::tests::Node;
    use super::super::tests::order;
    use super::super::{Before, Fate, Loaded};

    /// Milliseconds from the test's midnight to the last moment of that day.
    const END_OF_DAY: i64 = 86_400_000 - 1;

    fn told(node: &Node, loaded: &Loaded) -> (Vec<&'static str>, Vec<String>) {
        let states = loaded.orders.iter().map(|loaded| loaded.order.state.as_str()).collect();
        let pending = loaded.orders.iter().flat_map(|loaded| node.machine.pending(&loaded.pending)).collect();
        (states, pending)
    }

    /// A node whose order x was lifted at the last moment of a day, by its state or by its file's going.
    fn lifted(by_state: bool) -> Node {
        let mut node = Node::new(0);
        node.machine.write("orders/x.toml", order("x", "a.example"));
        node.load_at(0);
        if by_state {
            node.machine.write("orders/x.toml", order("x", "a.example").replace("in-force", "lifted"));
        } else {
            node.machine.remove("orders/x.toml");
        }
        node.load_at(END_OF_DAY);
        node.restart();
        node
    }

    #[test]
    fn a_lifted_order_comes_back_by_a_decision_of_that_day_or_later() {
        let what = "was lifted on 2026-11-22; give it an id of its own, or reinstated = 2026-11-22";
        for by_state in [true, false] {
            let mut node = lifted(by_state);
            for (state, line) in [("in-force", 5), ("trial", 5), ("draft", 5), ("suspended", 5)] {
                node.machine.write("orders/x.toml", order("x", "a.example").replace("in-force", state));
                for _ in 0..2 {
                    let loaded = node.load_at(END_OF_DAY + 1);
                    let pending = format!("orders/x.toml:{line}:9: {what}");
                    assert_eq!(told(&node, &loaded), (vec!["lifted"], vec![pending]));
                    assert_eq!((loaded.refused.len(), loaded.orders[0].fate), (0, Fate::StaysLifted));
                    node.restart();
                }
            }
            let with = |day: &str| order("x", "a.example").replace("[[", &format!("reinstated = {day}\n[["));
            node.machine.write("orders/x.toml", with("2026-11-21"));
            let loaded = node.load_at(END_OF_DAY + 1);
            assert_eq!(told(&node, &loaded).0, ["lifted"], "a decision from before");
            node.machine.write("orders/x.toml", with("2026-11-22"));
            for _ in 0..2 {
                let loaded = node.load_at(END_OF_DAY + 2);
                assert_eq!(told(&node, &loaded), (vec!["in-force"], vec![]));
                node.restart();
            }
            assert_eq!(node.before.register.orders["x"].lifted, None);
        }
    }

    #[test]
    fn a_new_id_is_a_new_order_and_a_moved_file_was_never_lifted() {
        let mut node = lifted(false);
        node.machine.write("orders/x.toml", order("x-2", "a.example"));
        let loaded = node.load_at(END_OF_DAY + 1);
        assert_eq!(told(&node, &loaded), (vec!["in-force"], vec![]));
        for name in ["b.toml", "c.toml"] {
            let from = if name == "b.toml" { "x.toml" } else { "b.toml" };
            fs::rename(node.machine.path(&format!("orders/{from}")), node.machine.path(&format!("orders/{name}")))
                .unwrap();
            let loaded = node.load_at(END_OF_DAY + 2);
            assert_eq!(told(&node, &loaded), (vec!["in-force"], vec![]));
            node.restart();
        }
    }

    #[test]
    fn a_draft_that_was_away_was_not_lifted() {
        let mut node = Node::new(0);
        let draft = order("x", "a.example").replace("in-force", "draft");
        node.machine.write("orders/x.toml", &draft);
        node.load_at(0);
        node.machine.remove("orders/x.toml");
        node.load_at(1);
        node.machine.write("orders/x.toml", order("x", "a.example"));
        let loaded = node.load_at(2);
        assert_eq!(told(&node, &loaded), (vec!["in-force"], vec![]));
    }

    #[test]
    fn without_the_register_the_copy_says_that_it_was_lifted() {
        let mut node = lifted(true);
        node.before = Before::default();
        node.machine.write("orders/x.toml", order("x", "a.example"));
        for _ in 0..2 {
            let loaded = node.load_at(END_OF_DAY + 1);
            let (states, pending) = told(&node, &loaded);
            assert_eq!(states, ["lifted"]);
            assert!(pending[0].starts_with("orders/x.toml:5:9: was lifted"), "{pending:?}");
            node.restart();
        }
    }
}
