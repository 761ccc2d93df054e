//! What has happened to the orders since the register last looked.

use std::collections::{BTreeMap, HashSet};
use std::mem;

use jiff::Timestamp;

use super::{Approval, Facts, Happening, Record, Register, TARGETS_TOLD_MAX, TargetRecord, Told};
use crate::policy::Policy;
use crate::policy::load::{Fate, LoadedOrder};
use crate::policy::order::{Order, Standing, Target};

/// The most orders that are remembered. Past it those are forgotten that are gone: first what was never lifted, then
/// what was lifted longest ago.
const ORDERS_MAX: usize = 100_000;

/// The standing of an order whose file is gone, and of its targets.
const REMOVED: &str = "removed";

impl Register {
    /// Looks at the policy that every worker answers from and the orders' standing at `now`: what has happened since
    /// the last look, oldest kind first. What it says is remembered, so it is said once, across restarts too.
    pub fn follow(&mut self, policy: &Policy, now: Timestamp) -> Vec<Told> {
        let mut told = Vec::new();
        let looked = self.looked.replace(now);
        for order in policy.orders() {
            let look = Look { loaded: &order.loaded, generation: policy.generation(), looked, now };
            look.follow(&mut self.orders, &mut told);
        }
        self.follow_removed(policy, now, &mut told);
        self.forget();
        told.sort_by_key(|told| rank(&told.happening));
        told
    }

    /// Orders that are gone. One that was to be carried out is lifted by that; a draft, a trial and one that had ended
    /// by its date are not.
    fn follow_removed(&mut self, policy: &Policy, now: Timestamp, told: &mut Vec<Told>) {
        let here: HashSet<&str> = policy.orders().iter().map(|order| order.loaded.order.id.as_str()).collect();
        for (id, record) in self.orders.iter_mut().filter(|(id, _)| !here.contains(id.as_str())) {
            let before = mem::replace(&mut record.standing, REMOVED.to_owned());
            if before == REMOVED {
                continue;
            }
            record.targets.values_mut().for_each(|target| REMOVED.clone_into(&mut target.standing));
            if [Standing::InForce, Standing::Waiting, Standing::Suspended].iter().any(|each| each.as_str() == before) {
                record.lifted = Some(now);
                told.push(Told { at: now, happening: Happening::OrderLifted { order: id.clone() } });
            }
            told.push(Told { at: now, happening: Happening::OrderRemoved { order: id.clone() } });
        }
    }

    fn forget(&mut self) {
        let excess = self.orders.len().saturating_sub(ORDERS_MAX);
        if excess == 0 {
            return;
        }
        let gone = self.orders.iter().filter(|(_, record)| record.standing == REMOVED);
        let mut gone: Vec<_> = gone.map(|(id, record)| (record.lifted, record.loaded, id.clone())).collect();
        gone.sort();
        gone.iter().take(excess).for_each(|(_, _, id)| drop(self.orders.remove(id)));
    }
}

/// In which order happenings of one look are told.
fn rank(happening: &Happening) -> u8 {
    match happening {
        Happening::OrderLoaded(_) => 0,
        Happening::OrderAmended(_) => 1,
        Happening::OrderApproved { .. } => 2,
        Happening::OrderActivated { .. } => 3,
        Happening::OrderSuspended { .. } => 4,
        Happening::OrderLifted { .. } => 5,
        Happening::OrderExpired { .. } => 6,
        Happening::OrderRemoved { .. } => 7,
    }
}

/// A look at one order.
struct Look<'a> {
    loaded: &'a LoadedOrder,
    generation: u64,
    /// When this process looked before.
    looked: Option<Timestamp>,
    now: Timestamp,
}

impl Look<'_> {
    fn follow(&self, records: &mut BTreeMap<String, Record>, told: &mut Vec<Told>) {
        let order = &self.loaded.order;
        let is_new = !records.contains_key(&order.id);
        let record = records.entry(order.id.clone()).or_insert_with(|| self.first());
        let mut tell = |happening| told.push(Told { at: self.now, happening });
        if is_new {
            tell(Happening::OrderLoaded(self.facts()));
        // What stays lifted is not carried out as its file has it now.
        } else if record.digest != self.loaded.digest && self.loaded.fate != Fate::StaysLifted {
            record.digest = self.loaded.digest;
            tell(Happening::OrderAmended(self.facts()));
        }
        if let Some(approval) = self.approval(record) {
            let (digest, by) = (approval.digest, approval.by.clone());
            tell(Happening::OrderApproved { order: order.id.clone(), digest, by });
            record.approve(approval);
        }
        self.follow_standing(record, is_new, &mut tell);
        self.follow_targets(record, told);
    }

    fn first(&self) -> Record {
        Record {
            digest: self.loaded.digest,
            standing: String::new(),
            loaded: self.now,
            approved: None,
            superseded: Vec::new(),
            effective: None,
            recorded: false,
            probed: None,
            lifted: None,
            targets: BTreeMap::new(),
        }
    }

    /// An approval that was not there before.
    fn approval(&self, record: &Record) -> Option<Approval> {
        let LoadedOrder { digest, approved_by, .. } = self.loaded;
        let is_known = record.approved.as_ref().is_some_and(|approval| approval.digest == *digest);
        let approval = || Approval { digest: *digest, by: approved_by.clone(), at: self.now };
        (!is_known && !approved_by.is_empty()).then(approval)
    }

    fn follow_standing(&self, record: &mut Record, is_new: bool, tell: &mut impl FnMut(Happening)) {
        let id = &self.loaded.order.id;
        let standing = self.loaded.order.standing(self.now);
        let before = mem::replace(&mut record.standing, standing.to_string());
        let changed = !is_new && before != REMOVED && before != standing.as_str();
        match standing {
            Standing::Suspended if changed => tell(Happening::OrderSuspended { order: id.clone() }),
            // By its file, or since it lacks approvals: what was carried out is not, for now.
            Standing::Draft | Standing::Trial if before == Standing::InForce.as_str() => {
                tell(Happening::OrderSuspended { order: id.clone() });
            }
            Standing::Expired if changed => tell(Happening::OrderExpired { order: id.clone() }),
            Standing::Lifted if changed && record.lifted.is_none() => {
                tell(Happening::OrderLifted { order: id.clone() });
            }
            _ => {}
        }
        if standing == Standing::Lifted {
            record.lifted.get_or_insert(self.now);
        } else {
            record.lifted = None;
        }
    }

    /// Which targets are carried out since when; those that are no longer in the order are forgotten.
    fn follow_targets(&self, record: &mut Record, told: &mut Vec<Told>) {
        let LoadedOrder { order, target_keys, .. } = self.loaded;
        let (mut activated, mut first) = (Vec::new(), Option::<Timestamp>::None);
        let here: HashSet<&str> = target_keys.iter().map(String::as_str).collect();
        record.targets.retain(|key, _| here.contains(key.as_str()));
        let mut done = HashSet::new();
        // Of two targets that are about the same, the one in force counts.
        let in_force = |target: &Target| order.standing_of(target, self.now) == Standing::InForce;
        let mut targets: Vec<_> = target_keys.iter().zip(&order.targets).collect();
        targets.sort_by_key(|(_, target)| !in_force(target));
        for (key, target) in targets.into_iter().filter(|(key, _)| done.insert(key.as_str())) {
            let known = record.targets.entry(key.clone()).or_insert_with(|| self.first_of_target());
            let standing = order.standing_of(target, self.now).as_str();
            let before = mem::replace(&mut known.standing, standing.to_owned());
            if in_force(target) && before != standing {
                let since = self.since(target, &before);
                known.effective.get_or_insert(since);
                first = Some(first.map_or(since, |first| first.min(since)));
                activated.push(key.clone());
            }
        }
        let Some(at) = first else { return };
        record.effective.get_or_insert(at);
        told.push(Told { at, happening: self.activated(activated) });
    }

    fn first_of_target(&self) -> TargetRecord {
        TargetRecord { standing: String::new(), loaded: self.now, effective: None, probed: None }
    }

    /// From when a target is carried out that was not at the last look. One that began by its date, while this process
    /// had it loaded, is since that date: queries are compared with it, not with when we look.
    fn since(&self, target: &Target, before: &str) -> Timestamp {
        let was_waiting = before == Standing::Waiting.as_str();
        let began = began(&self.loaded.order, target, self.now);
        began.filter(|began| was_waiting && self.looked.is_some_and(|looked| looked <= *began)).unwrap_or(self.now)
    }

    fn activated(&self, targets: Vec<String>) -> Happening {
        let Order { id, received, due, .. } = &self.loaded.order;
        Happening::OrderActivated {
            order: id.clone(),
            generation: self.generation,
            received: *received,
            due: *due,
            targets,
        }
    }

    fn facts(&self) -> Facts {
        let LoadedOrder { order, digest, .. } = self.loaded;
        Facts {
            order: order.id.clone(),
            digest: *digest,
            issuer: order.issuer.clone(),
            reference: order.reference.clone(),
            jurisdiction: order.jurisdiction.codes(),
            received: order.received,
            due: order.due,
            state: order.state.as_str().to_owned(),
            effective: order.effective,
            expires: order.expires,
            targets: order.targets.iter().flat_map(Target::shown).take(TARGETS_TOLD_MAX).collect(),
            targets_total: order.targets.iter().map(Target::count).sum(),
        }
    }
}

/// The last moment, up to `now`, at which a date began what it is part of.
fn began(order: &Order, target: &Target, now: Timestamp) -> Option<Timestamp> {
    let intervals = order.intervals.iter().map(|interval| interval.from);
    let moments = intervals.chain(order.effective).chain(target.effective);
    moments.filter(|moment| *moment <= now).max()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::policy::load::{Files, Settings, load_in_hand};
    use crate::policy::order::State;
    use crate::policy::tests::{at, loaded, order};

    fn policy(orders: Vec<LoadedOrder>) -> Policy {
        let loaded = load_in_hand(&Settings::default(), orders, &Files::new(), at(0));
        Policy::compile(&loaded, 7, at(0)).unwrap()
    }

    /// An order as if read from these octets.
    fn of(order: Order, octets: &str) -> LoadedOrder {
        LoadedOrder::of(order, octets.as_bytes())
    }

    /// What happens at each look, without its facts: `loaded x`; the register goes through its file between any two.
    struct Node(Register);

    impl Node {
        fn look(&mut self, orders: &[LoadedOrder], now: Timestamp) -> Vec<String> {
            let told = self.0.follow(&policy(orders.to_vec()), now);
            told.iter().map(|told| shown(&told.happening)).collect()
        }

        fn restart(&mut self) {
            self.0 = serde_json::from_slice(&serde_json::to_vec(&self.0).unwrap()).unwrap();
        }

        fn effective(&self, id: &str) -> Option<Timestamp> {
            self.0.orders[id].effective
        }
    }

    fn shown(happening: &Happening) -> String {
        match happening {
            Happening::OrderLoaded(facts) => format!("loaded {} {}", facts.order, facts.state),
            Happening::OrderAmended(facts) => format!("amended {} {}", facts.order, facts.state),
            Happening::OrderApproved { order, by, .. } => format!("approved {order} by {}", by.join(" ")),
            Happening::OrderActivated { order, targets, .. } => format!("activated {order} {}", targets.len()),
            Happening::OrderSuspended { order } => format!("suspended {order}"),
            Happening::OrderLifted { order } => format!("lifted {order}"),
            Happening::OrderExpired { order } => format!("expired {order}"),
            Happening::OrderRemoved { order } => format!("removed {order}"),
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn dates_are_followed_to_the_second_and_told_once_across_restarts() {
        let dated = || Order { effective: Some(at(1_000)), expires: Some(at(2_000)), ..order("x", &["a.example"]) };
        let orders = [of(dated(), "1")];
        let mut node = Node(Register::default());
        assert_eq!(node.look(&orders, at(999)), ["loaded x in-force"]);
        assert_eq!(node.effective("x"), None);
        // A look comes after the moment; what is remembered is the moment.
        assert_eq!(node.look(&orders, at(1_200)), ["activated x 1"]);
        assert_eq!(node.effective("x"), Some(at(1_000)));
        node.restart();
        assert_eq!(node.look(&orders, at(1_999)), NOTHING);
        assert_eq!(node.look(&orders, at(2_000)), ["expired x"]);
        node.restart();
        assert_eq!(node.look(&orders, at(2_001)), NOTHING);
        assert_eq!(node.effective("x"), Some(at(1_000)), "the first time stays");
    }

    #[test]
    fn what_began_while_nothing_ran_is_effective_from_the_start() {
        let orders = [of(Order { effective: Some(at(1_000)), ..order("x", &["a.example"]) }, "1")];
        let mut node = Node(Register::default());
        node.look(&orders, at(0));
        node.restart();
        assert_eq!(node.look(&orders, at(5_000)), ["activated x 1"]);
        assert_eq!(node.effective("x"), Some(at(5_000)));
    }

    #[test]
    fn intervals_activate_again_and_each_target_has_its_own_first_moment() {
        let mut dated = order("x", &["a.example"]);
        dated.targets.push(Target { effective: Some(at(3_000)), ..order("y", &["b.example"]).targets.remove(0) });
        let interval = |from, until| crate::policy::order::Interval { from: at(from), until: at(until) };
        dated.intervals = vec![interval(1_000, 2_000), interval(2_500, 4_000)];
        let orders = [of(dated, "1")];
        let mut node = Node(Register::default());
        node.look(&orders, at(0));
        for (now, told) in [
            (1_000, &["activated x 1"][..]),
            (2_000, &[]),
            (2_500, &["activated x 1"]),
            (3_000, &["activated x 1"]),
            (4_000, &["expired x"]),
        ] {
            assert_eq!(node.look(&orders, at(now)), told, "{now}");
        }
        let targets = &node.0.orders["x"].targets;
        let effective: Vec<_> = orders[0].target_keys.iter().map(|key| targets[key].effective).collect();
        assert_eq!(effective, [Some(at(1_000)), Some(at(3_000))]);
    }

    #[test]
    fn a_life_is_told_in_its_order() {
        let stated = |state, octets| [of(Order { state, ..order("x", &["a.example"]) }, octets)];
        let mut node = Node(Register::default());
        for (state, octets, told) in [
            (State::Draft, "1", &["loaded x draft"][..]),
            (State::Trial, "2", &["amended x trial"]),
            (State::InForce, "3", &["amended x in-force", "activated x 1"]),
            (State::Suspended, "4", &["amended x suspended", "suspended x"]),
            (State::InForce, "3", &["amended x in-force", "activated x 1"]),
            (State::Draft, "3", &["suspended x"]),
            (State::InForce, "3", &["activated x 1"]),
            (State::Lifted, "5", &["amended x lifted", "lifted x"]),
        ] {
            assert_eq!(node.look(&stated(state, octets), at(1_000)), told);
            node.restart();
        }
        assert_eq!(node.0.orders["x"].lifted, Some(at(1_000)));
        assert_eq!(node.look(&stated(State::InForce, "6"), at(2_000)), ["amended x in-force", "activated x 1"]);
        assert_eq!((node.0.orders["x"].lifted, node.effective("x")), (None, Some(at(1_000))));
    }

    #[test]
    fn an_addendum_is_activated_by_itself_and_a_target_taken_out_is_forgotten() {
        let first = of(order("x", &["a.example"]), "1");
        let mut more = order("x", &["a.example"]);
        more.targets.extend(order("y", &["b.example"]).targets);
        let mut node = Node(Register::default());
        assert_eq!(node.look(std::slice::from_ref(&first), at(0)), ["loaded x in-force", "activated x 1"]);
        let more = of(more, "2");
        let told = node.0.follow(&policy(vec![more.clone()]), at(500));
        let Happening::OrderActivated { targets, generation: 7, .. } = &told[1].happening else { panic!("{told:?}") };
        assert_eq!(*targets, more.target_keys[1..]);
        node.look(&[first], at(900));
        assert_eq!(node.0.orders["x"].targets.len(), 1);
    }

    #[test]
    fn a_file_that_is_gone_lifts_what_was_to_be_carried_out() {
        let all = [
            of(order("force", &["a.example"]), "1"),
            of(Order { state: State::Draft, ..order("draft", &["b.example"]) }, "2"),
            of(Order { expires: Some(at(-1)), ..order("over", &["c.example"]) }, "3"),
        ];
        let mut node = Node(Register::default());
        node.look(&all, at(0));
        assert_eq!(node.look(&[], at(1)), ["lifted force", "removed draft", "removed force", "removed over"]);
        assert_eq!(node.look(&[], at(2)), NOTHING);
        let lifted = ["draft", "force", "over"].map(|id| node.0.orders[id].lifted);
        assert_eq!(lifted, [None, Some(at(1)), None]);
        node.restart();
        let mut back = all[0].clone();
        back.order.state = State::Lifted;
        back.fate = Fate::StaysLifted;
        assert_eq!(node.look(&[back], at(3)), NOTHING);
        assert_eq!(node.look(&all, at(4)), ["activated force 1"], "by a new decision");
    }

    #[test]
    fn what_is_first_seen_has_no_past() {
        let orders = [
            of(Order { state: State::Lifted, ..order("a", &["a.example"]) }, "1"),
            of(Order { state: State::Suspended, ..order("b", &["a.example"]) }, "2"),
            of(Order { expires: Some(at(0)), ..order("c", &["a.example"]) }, "3"),
        ];
        let mut node = Node(Register::default());
        assert_eq!(node.look(&orders, at(5)), ["loaded a lifted", "loaded b suspended", "loaded c in-force"]);
        assert_eq!(node.0.orders["a"].lifted, Some(at(5)), "it comes back by a decision only");
    }

    #[test]
    fn an_approval_is_told_once() {
        let mut approved = loaded(order("x", &["a.example"]));
        approved.approved_by = vec!["anna".to_owned(), "bert".to_owned()];
        let mut node = Node(Register::default());
        let told = ["loaded x in-force", "approved x by anna bert", "activated x 1"];
        assert_eq!(node.look(std::slice::from_ref(&approved), at(0)), told);
        node.restart();
        approved.approved_by.push("carl".to_owned());
        assert_eq!(node.look(std::slice::from_ref(&approved), at(1)), NOTHING);
        approved.digest = Digest::of(b"other");
        assert_eq!(node.look(&[approved], at(2)), ["amended x in-force", "approved x by anna bert carl"]);
    }

    #[test]
    fn the_register_has_a_bound_and_forgets_what_is_gone_first() {
        let mut node = Node(Register::default());
        node.look(&[loaded(order("gone", &["a.example"])), loaded(order("here", &["b.example"]))], at(0));
        node.look(&[loaded(order("here", &["b.example"]))], at(1));
        let record = Record { standing: REMOVED.to_owned(), lifted: None, ..node.0.orders["gone"].clone() };
        for number in 0..ORDERS_MAX {
            node.0.orders.insert(format!("draft-{number}"), record.clone());
        }
        node.look(&[loaded(order("here", &["b.example"]))], at(2));
        assert_eq!(node.0.orders.len(), ORDERS_MAX);
        assert!(node.0.orders.contains_key("here") && node.0.orders.contains_key("gone"));
    }
}
