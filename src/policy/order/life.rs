//! How an order and its targets stand at a moment, and when dates alone change that.

use jiff::Timestamp;

use super::{Order, Standing, State, Target};

/// A time in which something is carried out.
struct Span {
    /// Its first moment; None: since ever.
    from: Option<Timestamp>,
    /// The first moment behind it; None: for ever.
    until: Option<Timestamp>,
}

impl Order {
    /// How it stands at `now`, whatever dates its targets have of their own. `effective` and `expires`, and the `from`
    /// and `until` of intervals, are from-moments: at `expires` itself it is expired. Between intervals it is waiting,
    /// and once none of them is left, expired.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        self.standing_within(&self.span(), now)
    }

    /// How one of its targets stands at `now`.
    #[must_use]
    pub fn standing_of(&self, target: &Target, now: Timestamp) -> Standing {
        self.standing_within(&self.span_of(target), now)
    }

    /// From when one of its targets, which is waiting at `now`, is carried out next.
    #[must_use]
    pub fn begins(&self, target: &Target, now: Timestamp) -> Option<Timestamp> {
        self.change_from(Standing::Waiting, &self.span_of(target), now)
    }

    /// From when one of its targets, which is in force at `now`, no longer is.
    #[must_use]
    pub fn ends(&self, target: &Target, now: Timestamp) -> Option<Timestamp> {
        self.change_from(Standing::InForce, &self.span_of(target), now)
    }

    /// The next moment after `now` at which it or one of its targets begins or ends by dates alone.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let spans = self.targets.iter().map(|target| self.span_of(target)).chain([self.span()]);
        spans.filter_map(|span| self.next_change_within(&span, now)).min()
    }

    /// From its beginning to its end, intervals apart.
    fn span(&self) -> Span {
        Span { from: self.effective, until: self.expires }
    }

    /// A target's own dates lie within those of its order.
    fn span_of(&self, target: &Target) -> Span {
        let until = [self.expires, target.expires].into_iter().flatten().min();
        Span { from: self.effective.max(target.effective), until }
    }

    fn standing_within(&self, span: &Span, now: Timestamp) -> Standing {
        match self.state {
            State::Draft => Standing::Draft,
            State::Trial => Standing::Trial,
            State::Suspended => Standing::Suspended,
            State::Lifted => Standing::Lifted,
            State::InForce => match self.not_over(span, now) {
                None => Standing::Expired,
                Some(time) if time.from <= Some(now) => Standing::InForce,
                Some(_) => Standing::Waiting,
            },
        }
    }

    /// The first time within `span` in which the order is carried out and which is not over at `now`.
    fn not_over(&self, span: &Span, now: Timestamp) -> Option<Span> {
        let time = if self.intervals.is_empty() {
            Span { ..*span }
        } else {
            // An interval that is over before the span begins does not count. They are in order.
            let begins = span.from.max(Some(now));
            let interval = self.intervals.get(self.intervals.partition_point(|each| Some(each.until) <= begins))?;
            let until = span.until.map_or(interval.until, |until| until.min(interval.until));
            Span { from: span.from.max(Some(interval.from)), until: Some(until) }
        };
        time.until.is_none_or(|until| now < until && time.from < Some(until)).then_some(time)
    }

    fn change_from(&self, standing: Standing, span: &Span, now: Timestamp) -> Option<Timestamp> {
        (self.standing_within(span, now) == standing).then(|| self.next_change_within(span, now)).flatten()
    }

    fn next_change_within(&self, span: &Span, now: Timestamp) -> Option<Timestamp> {
        if self.state != State::InForce {
            return None;
        }
        let time = self.not_over(span, now)?;
        if time.from > Some(now) {
            return time.from;
        }
        let mut end = time.until?;
        // Where the next interval begins as this one ends, nothing changes.
        while let Some(next) = self.not_over(span, end).filter(|next| next.from <= Some(end)) {
            end = next.until?;
        }
        Some(end)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::order::Interval;

    /// An order with these lines added before its target.
    fn order(lines: &str) -> Order {
        order_with_target(lines, "")
    }

    /// An order with these lines added before and in its target.
    fn order_with_target(lines: &str, target: &str) -> Order {
        let text = format!(
            "id = 'x-1'\nissuer = 'Example Court'\nreceived = 2022-07-18T09:00:00+02:00\n{lines}\n\
             [[target]]\nsubtree = ['a.example']\n{target}\n"
        );
        Order::read(Path::new("x.toml"), &text).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    const DATED: &str = "jurisdiction = ['IT']\nstate = 'in-force'\n\
                         effective = 2022-08-01T00:00:00Z\nexpires = 2022-09-01T00:00:00Z";

    #[test]
    fn begins_and_ends_on_the_moment() {
        let order = order(DATED);
        for (now, standing) in [
            ("2022-07-31T23:59:59.999999999Z", Standing::Waiting),
            ("2022-08-01T00:00:00Z", Standing::InForce),
            ("2022-08-31T23:59:59.999999999Z", Standing::InForce),
            ("2022-09-01T00:00:00Z", Standing::Expired),
            ("2022-09-01T00:00:00.000000001Z", Standing::Expired),
        ] {
            assert_eq!(order.standing(at(now)), standing, "{now}");
        }
    }

    #[test]
    fn without_dates_it_holds_from_ever_for_ever() {
        let order = order("jurisdiction = ['*']\nstate = 'in-force'");
        for now in [Timestamp::MIN, at("2026-11-22T00:00:00Z"), Timestamp::MAX] {
            assert_eq!(order.standing(now), Standing::InForce);
            assert_eq!(order.next_change(now), None);
        }
    }

    #[test]
    fn the_next_change_is_strictly_later() {
        let order = order(DATED);
        let (effective, expires) = (order.effective.unwrap(), order.expires.unwrap());
        assert_eq!(order.next_change(at("2022-07-18T07:00:00Z")), Some(effective));
        assert_eq!(order.next_change(at("2022-07-31T23:59:59.999999999Z")), Some(effective));
        assert_eq!(order.next_change(effective), Some(expires));
        assert_eq!(order.next_change(at("2022-08-31T23:59:59.999999999Z")), Some(expires));
        assert_eq!(order.next_change(expires), None);
    }

    #[test]
    fn other_states_stand_whatever_the_time() {
        for (state, standing) in [
            ("draft", Standing::Draft),
            ("trial", Standing::Trial),
            ("suspended", Standing::Suspended),
            ("lifted", Standing::Lifted),
        ] {
            let order = order(&DATED.replace("in-force", state));
            for now in ["2022-07-01T00:00:00Z", "2022-08-15T00:00:00Z", "2022-10-01T00:00:00Z"] {
                assert_eq!(order.standing(at(now)), standing);
                assert_eq!(order.next_change(at(now)), None);
            }
            assert_eq!((order.state.as_str(), order.standing(at("2022-08-15T00:00:00Z")).as_str()), (state, state));
        }
    }

    /// Two matches, of which the second is cut short by `expires`, the first by `effective`.
    const MATCHES: &str = "jurisdiction = ['IT']\nstate = 'in-force'\n\
                           effective = 2022-08-06T19:00:00Z\nexpires = 2022-08-13T20:00:00Z\n\
                           [[interval]]\nfrom = 2022-08-13T18:00:00Z\nuntil = 2022-08-13T21:00:00Z\n\
                           [[interval]]\nfrom = 2022-08-06T18:00:00Z\nuntil = 2022-08-06T21:00:00Z\n";

    #[test]
    fn between_its_intervals_it_waits_and_behind_the_last_it_is_over() {
        let order = order(MATCHES);
        for (now, standing, next) in [
            ("2022-08-06T18:00:00Z", Standing::Waiting, "2022-08-06T19:00:00Z"),
            ("2022-08-06T18:59:59.999999999Z", Standing::Waiting, "2022-08-06T19:00:00Z"),
            ("2022-08-06T19:00:00Z", Standing::InForce, "2022-08-06T21:00:00Z"),
            ("2022-08-06T20:59:59.999999999Z", Standing::InForce, "2022-08-06T21:00:00Z"),
            ("2022-08-06T21:00:00Z", Standing::Waiting, "2022-08-13T18:00:00Z"),
            ("2022-08-13T17:59:59.999999999Z", Standing::Waiting, "2022-08-13T18:00:00Z"),
            ("2022-08-13T18:00:00Z", Standing::InForce, "2022-08-13T20:00:00Z"),
            ("2022-08-13T19:59:59.999999999Z", Standing::InForce, "2022-08-13T20:00:00Z"),
            ("2022-08-13T20:00:00Z", Standing::Expired, ""),
            ("2022-08-13T21:00:00Z", Standing::Expired, ""),
        ] {
            let (now, next) = (at(now), (!next.is_empty()).then(|| at(next)));
            assert_eq!((order.standing(now), order.next_change(now)), (standing, next), "{now}");
            let target = &order.targets[0];
            assert_eq!(order.standing_of(target, now), standing, "{now}");
            assert_eq!(order.begins(target, now), next.filter(|_| standing == Standing::Waiting), "{now}");
            assert_eq!(order.ends(target, now), next.filter(|_| standing == Standing::InForce), "{now}");
        }
    }

    #[test]
    fn where_one_interval_begins_as_another_ends_nothing_changes() {
        let joined = order(&MATCHES.replace("until = 2022-08-06T21:00:00Z", "until = 2022-08-13T18:00:00Z"));
        let meet = at("2022-08-13T18:00:00Z");
        assert_eq!(joined.standing(meet), Standing::InForce);
        assert_eq!(joined.next_change(at("2022-08-10T00:00:00Z")), Some(at("2022-08-13T20:00:00Z")));
        assert_eq!(joined.next_change(meet), Some(at("2022-08-13T20:00:00Z")));
    }

    #[test]
    fn without_another_interval_before_its_end_it_is_over_and_waits_for_nothing() {
        let order = order_with_target(MATCHES, "expires = 2022-08-10T00:00:00Z");
        let (between, target) = (at("2022-08-07T00:00:00Z"), &order.targets[0]);
        assert_eq!(
            (order.standing(between), order.standing_of(target, between)),
            (Standing::Waiting, Standing::Expired)
        );
        assert_eq!((order.begins(target, between), order.ends(target, between)), (None, None));
    }

    #[test]
    fn a_target_has_dates_of_its_own_within_those_of_its_order() {
        let order = order_with_target(DATED, "effective = 2022-08-10T00:00:00Z\nexpires = 2022-08-20T00:00:00Z");
        let target = &order.targets[0];
        for (now, standing, next) in [
            ("2022-07-20T00:00:00Z", Standing::Waiting, "2022-08-01T00:00:00Z"),
            ("2022-08-09T23:59:59.999999999Z", Standing::Waiting, "2022-08-10T00:00:00Z"),
            ("2022-08-10T00:00:00Z", Standing::InForce, "2022-08-20T00:00:00Z"),
            ("2022-08-19T23:59:59.999999999Z", Standing::InForce, "2022-08-20T00:00:00Z"),
            ("2022-08-20T00:00:00Z", Standing::Expired, "2022-09-01T00:00:00Z"),
        ] {
            assert_eq!(
                (order.standing_of(target, at(now)), order.next_change(at(now))),
                (standing, Some(at(next))),
                "{now}"
            );
        }
        assert_eq!(order.begins(target, at("2022-07-20T00:00:00Z")), target.effective);
        assert_eq!(order.ends(target, at("2022-08-15T00:00:00Z")), target.expires);
        assert_eq!(order.standing(at("2022-08-05T00:00:00Z")), Standing::InForce, "the order's own are others");
    }

    #[test]
    fn an_order_that_is_not_in_force_has_nothing_to_wait_for() {
        let order = order(&MATCHES.replace("in-force", "suspended"));
        let now = at("2022-08-06T18:00:00Z");
        assert_eq!((order.standing_of(&order.targets[0], now), order.next_change(now)), (Standing::Suspended, None));
        assert_eq!((order.begins(&order.targets[0], now), order.ends(&order.targets[0], now)), (None, None));
    }

    /// Seconds that a random order is about.
    const SECONDS: i64 = 24;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    prop_compose! {
        /// An order in force with dates, intervals and a target with dates, any of which may be missing.
        fn any_order()(
            dates in prop::array::uniform4(prop::option::of(0..SECONDS)),
            edges in prop::collection::vec(0..SECONDS, 0..8),
        ) -> Order {
            let mut order = order("jurisdiction = ['*']\nstate = 'in-force'");
            let [effective, expires, own_effective, own_expires] = dates.map(|date| date.map(second));
            (order.effective, order.expires) = (effective, expires);
            (order.targets[0].effective, order.targets[0].expires) = (own_effective, own_expires);
            let mut edges = edges;
            edges.sort_unstable();
            let pairs = edges.chunks_exact(2).filter(|pair| pair[0] < pair[1]);
            order.intervals = pairs.map(|pair| Interval { from: second(pair[0]), until: second(pair[1]) }).collect();
            order
        }
    }

    /// Whether a moment lies within these dates and the order's intervals, by looking at each.
    fn holds(order: &Order, begins: &[Option<Timestamp>], ends: &[Option<Timestamp>], now: Timestamp) -> bool {
        let is_in = |interval: &Interval| interval.from <= now && now < interval.until;
        begins.iter().flatten().all(|begin| *begin <= now)
            && ends.iter().flatten().all(|end| now < *end)
            && (order.intervals.is_empty() || order.intervals.iter().any(is_in))
    }

    /// How each second stands, by looking at all that follow it.
    fn standings(holds: impl Fn(Timestamp) -> bool) -> Vec<Standing> {
        let later = |now: i64| (now..=SECONDS).any(|later| holds(second(later)));
        let standing = |now: i64| match (holds(second(now)), later(now)) {
            (true, _) => Standing::InForce,
            (_, true) => Standing::Waiting,
            _ => Standing::Expired,
        };
        (0..=SECONDS).map(standing).collect()
    }

    fn change(standings: &[Standing], now: i64) -> Option<Timestamp> {
        let changed = |then: &i64| standings[*then as usize] != standings[now as usize];
        (now..=SECONDS).find(changed).map(second)
    }

    proptest! {
        #[test]
        fn every_moment_is_as_a_look_at_all_moments_says(order in any_order()) {
            let target = &order.targets[0];
            let own = standings(|now| holds(&order, &[order.effective], &[order.expires], now));
            let (begins, ends) = ([order.effective, target.effective], [order.expires, target.expires]);
            let of_target = standings(|now| holds(&order, &begins, &ends, now));
            for now in 0..SECONDS {
                let moment = second(now);
                let standing = of_target[now as usize];
                let change_of_target = change(&of_target, now);
                prop_assert_eq!(order.standing(moment), own[now as usize]);
                prop_assert_eq!(order.standing_of(target, moment), standing);
                prop_assert_eq!(order.begins(target, moment), change_of_target.filter(|_| standing == Standing::Waiting));
                prop_assert_eq!(order.ends(target, moment), change_of_target.filter(|_| standing == Standing::InForce));
                let next = [change(&own, now), change_of_target].into_iter().flatten().min();
                prop_assert_eq!(order.next_change(moment), next);
            }
        }
    }
}
