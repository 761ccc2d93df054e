//! The dates of an order, its intervals and its targets: that each is there, and that they fit together.

use std::ops::Range;

use jiff::Timestamp;
use toml::Spanned;
use toml::de::DeTable;

use super::Interval;
use super::reader::{Item, Reader};
use super::time::{TIME_EXAMPLE, time};

/// The keys of an interval, as a mistake lists them.
const INTERVAL_KEYS: &str = "from, until";

/// The dates of an order as they were written.
pub(super) struct Written<'t> {
    received: Option<Item<'t>>,
    due: Option<Item<'t>>,
    effective: Option<Item<'t>>,
    expires: Option<Item<'t>>,
    interval: Option<Item<'t>>,
}

/// The dates of an order.
pub(super) struct Dates {
    /// None: its mistake is told.
    pub(super) received: Option<Timestamp>,
    pub(super) due: Option<Timestamp>,
    pub(super) effective: Option<Timestamp>,
    pub(super) expires: Option<Timestamp>,
    /// In their order.
    pub(super) intervals: Vec<Interval>,
}

impl<'t> Written<'t> {
    pub(super) fn of(keys: &mut DeTable<'t>) -> Self {
        Self {
            received: keys.remove("received"),
            due: keys.remove("due"),
            effective: keys.remove("effective"),
            expires: keys.remove("expires"),
            interval: keys.remove("interval"),
        }
    }

    pub(super) fn dates(self, reader: &mut Reader) -> Dates {
        let expires_at = self.expires.as_ref().map(Spanned::span);
        let received = reader.required(self.received, "received", TIME_EXAMPLE, time);
        let due = reader.optional(self.due, "due", time);
        let effective = reader.optional(self.effective, "effective", time);
        let expires = reader.optional(self.expires, "expires", time);
        let intervals = intervals(self.interval, effective, expires, reader);
        if let (Some(expires), Some(at)) = (expires, expires_at) {
            // An order must end after it begins, or it would silently never hold.
            let begins = [("effective", effective), ("received", received)];
            if let Some((key, _)) = begins.into_iter().find(|(_, begin)| begin.is_some_and(|begin| expires <= begin)) {
                reader.mistake(at, format!("`expires` is not after `{key}`; the order would never be in force"));
            }
        }
        Dates { received, due, effective, expires, intervals }
    }
}

/// An interval, and where its two moments stand.
struct Placed {
    interval: Interval,
    from: Range<usize>,
    until: Range<usize>,
}

/// The intervals of an order, sorted; none where one of them is wrong, since what fits them cannot be told.
fn intervals(
    item: Option<Item>,
    effective: Option<Timestamp>,
    expires: Option<Timestamp>,
    reader: &mut Reader,
) -> Vec<Interval> {
    let Some(tables) = item.and_then(|item| reader.tables(item, "interval")) else { return Vec::new() };
    let written = tables.len();
    let mut intervals = Vec::with_capacity(written);
    for table in tables {
        let Some(placed) = interval(table, reader) else { continue };
        match placed.why_not(effective, expires) {
            Some((what, at)) => reader.mistake(at, what),
            None => intervals.push(placed),
        }
    }
    intervals.sort_by_key(|placed| placed.interval.from);
    check_overlaps(&intervals, reader);
    if intervals.len() < written {
        return Vec::new();
    }
    intervals.into_iter().map(|placed| placed.interval).collect()
}

impl Placed {
    /// What is wrong with it in an order of these dates, and where.
    fn why_not(
        &self,
        effective: Option<Timestamp>,
        expires: Option<Timestamp>,
    ) -> Option<(&'static str, Range<usize>)> {
        let Interval { from, until } = self.interval;
        let (what, at) = if until <= from {
            ("`until` is not after `from`; the interval would be none", &self.until)
        } else if effective.is_some_and(|effective| until <= effective) {
            ("`until` is not after the order's `effective`; the interval would never count", &self.until)
        } else if expires.is_some_and(|expires| expires <= from) {
            ("`from` is not before the order's `expires`; the interval would never count", &self.from)
        } else {
            return None;
        };
        Some((what, at.clone()))
    }
}

fn interval((mut keys, at): (DeTable, Range<usize>), reader: &mut Reader) -> Option<Placed> {
    let (from, until) = (keys.remove("from"), keys.remove("until"));
    reader.refuse(keys, "an interval has", INTERVAL_KEYS);
    let place = |item: &Option<Item>| item.as_ref().map_or(at.clone(), Spanned::span);
    let (from_at, until_at) = (place(&from), place(&until));
    let from = reader.part(from, ("[[interval]]", &at), "from", TIME_EXAMPLE, time);
    let until = reader.part(until, ("[[interval]]", &at), "until", TIME_EXAMPLE, time);
    Some(Placed { interval: Interval { from: from?, until: until? }, from: from_at, until: until_at })
}

/// `intervals` are sorted by their beginnings.
fn check_overlaps(intervals: &[Placed], reader: &mut Reader) {
    let mut last: Option<&Placed> = None;
    for placed in intervals {
        if let Some(last) = last.filter(|last| placed.interval.from < last.interval.until) {
            let line = reader.line(last.until.start);
            let what = format!(
                "`from` lies within the interval whose `until` is on line {line}; make them one, or keep them apart"
            );
            reader.mistake(placed.from.clone(), what);
        }
        if last.is_none_or(|last| last.interval.until < placed.interval.until) {
            last = Some(placed);
        }
    }
}

/// The dates of a target as they were written.
pub(super) struct TargetDates<'t> {
    due: Option<Item<'t>>,
    effective: Option<Item<'t>>,
    expires: Option<Item<'t>>,
}

/// A moment that could be read, and its place.
type Moment = Option<(Timestamp, Range<usize>)>;

impl<'t> TargetDates<'t> {
    pub(super) fn of(keys: &mut DeTable<'t>) -> Self {
        Self { due: keys.remove("due"), effective: keys.remove("effective"), expires: keys.remove("expires") }
    }

    /// `due`, `effective` and `expires`, which lie within the life of the order. `due` may be later than the order's:
    /// what is added later has a deadline of its own.
    pub(super) fn read(self, order: &Dates, reader: &mut Reader) -> [Option<Timestamp>; 3] {
        let mut moment = |item: Option<Item>, key: &str| {
            let at = item.as_ref().map(Spanned::span);
            reader.optional(item, key, time).zip(at)
        };
        let due = moment(self.due, "due");
        let effective = moment(self.effective, "effective");
        let expires = moment(self.expires, "expires");
        let wrong = [
            order.why_not_effective(&effective),
            order.why_not_expires(&expires, &effective),
            order.why_not_due(&due, &expires),
        ];
        let fits = wrong.iter().all(Option::is_none);
        for (what, at) in wrong.into_iter().flatten() {
            reader.mistake(at, what);
        }
        if fits && let Some(at) = order.between_intervals(&effective, &expires) {
            reader.mistake(at, "no [[interval]] has a moment in this target's time; it would never be in force");
        }
        [due, effective, expires].map(|moment| moment.map(|(moment, _)| moment))
    }
}

/// A mistake and its place.
type Wrong = Option<(String, Range<usize>)>;

impl Dates {
    fn why_not_effective(&self, effective: &Moment) -> Wrong {
        let (effective, at) = effective.as_ref()?;
        let what = if self.effective.is_some_and(|order| *effective < order) {
            "`effective` is before the order's; a target begins with its order, or later"
        } else if self.expires.is_some_and(|order| order <= *effective) {
            "`effective` is not before the order's `expires`; the target would never be in force"
        } else {
            return None;
        };
        Some((what.to_owned(), at.clone()))
    }

    fn why_not_expires(&self, expires: &Moment, effective: &Moment) -> Wrong {
        let (expires, at) = expires.as_ref()?;
        if self.expires.is_some_and(|order| order < *expires) {
            let what = "`expires` is after the order's; a target ends with its order, or earlier";
            return Some((what.to_owned(), at.clone()));
        }
        let own = effective.as_ref().map(|(effective, _)| *effective);
        let begins = [("`effective`", own), ("the order's `effective`", self.effective), ("`received`", self.received)];
        let (key, _) = begins.into_iter().find(|(_, begin)| begin.is_some_and(|begin| *expires <= begin))?;
        Some((format!("`expires` is not after {key}; the target would never be in force"), at.clone()))
    }

    fn why_not_due(&self, due: &Moment, expires: &Moment) -> Wrong {
        let (due, at) = due.as_ref()?;
        let own = expires.as_ref().map(|(expires, _)| *expires);
        let what = if self.received.is_some_and(|received| *due < received) {
            "`due` is before the order was `received`; correct one of them"
        } else if own.or(self.expires).is_some_and(|expires| expires < *due) {
            "`due` is after `expires`; the target would be over before it is due"
        } else {
            return None;
        };
        Some((what.to_owned(), at.clone()))
    }

    /// Where a target's dates stand, if none of the order's intervals has a moment between them.
    fn between_intervals(&self, effective: &Moment, expires: &Moment) -> Option<Range<usize>> {
        let at = effective.as_ref().or(expires.as_ref()).map(|(_, at)| at.clone())?;
        let begins = effective.as_ref().map(|(effective, _)| *effective).or(self.effective);
        let ends = expires.as_ref().map(|(expires, _)| *expires).or(self.expires);
        let next = self.intervals.partition_point(|interval| Some(interval.until) <= begins);
        let meets = |interval: &Interval| ends.is_none_or(|ends| interval.from < ends);
        (!self.intervals.is_empty() && !self.intervals.get(next).is_some_and(meets)).then_some(at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::file::tests::{MILAN, changed, mistakes, read_text};

    /// An order from 1 August 2022 to 1 September with these intervals, from and until, as days and hours of August.
    fn with_intervals(intervals: &[(&str, &str)]) -> String {
        let table = |(from, until): &(&str, &str)| {
            format!("[[interval]]\nfrom = 2022-08-{from}:00:00Z\nuntil = 2022-08-{until}:00:00Z\n")
        };
        let tables: String = intervals.iter().map(table).collect();
        format!("effective = 2022-08-01T00:00:00Z\nexpires = 2022-09-01T00:00:00Z\n{MILAN}{tables}")
    }

    #[test]
    fn intervals_come_in_their_order() {
        let text = with_intervals(&[("20T18", "20T21"), ("06T18", "06T21"), ("13T18", "13T21"), ("06T21", "06T22")]);
        let order = read_text(&text).unwrap();
        let begins: Vec<_> = order.intervals.iter().map(|interval| interval.from.to_string()).collect();
        assert_eq!(begins, ["06T18", "06T21", "13T18", "20T18"].map(|begin| format!("2022-08-{begin}:00:00Z")));
        assert!(read_text(MILAN).unwrap().intervals.is_empty());
    }

    #[test]
    fn an_interval_has_moments_and_some_within_the_order() {
        let first = |from, until| {
            let found = mistakes(&with_intervals(&[(from, until)]));
            assert_eq!(found.len(), 1, "{found:?}");
            found[0].strip_prefix("orders/milan.toml:").unwrap().to_owned()
        };
        let none = "25:9: `until` is not after `from`; the interval would be none";
        assert_eq!(first("06T18", "06T18"), none);
        assert_eq!(first("06T18", "06T17"), none);
        let text = |from: &str, until: &str| {
            let intervals = format!("[[interval]]\nfrom = {from}\nuntil = {until}\n");
            format!("{}{intervals}", with_intervals(&[]))
        };
        let before = text("2022-07-20T00:00:00Z", "2022-08-01T00:00:00Z");
        let what = "25:9: `until` is not after the order's `effective`; the interval would never count";
        assert_eq!(mistakes(&before), [format!("orders/milan.toml:{what}")]);
        let behind = text("2022-09-01T00:00:00Z", "2022-09-02T00:00:00Z");
        let what = "24:8: `from` is not before the order's `expires`; the interval would never count";
        assert_eq!(mistakes(&behind), [format!("orders/milan.toml:{what}")]);
        for (from, until) in [
            ("2022-07-20T00:00:00Z", "2022-08-01T00:00:01Z"),
            ("2022-08-31T23:59:59Z", "2022-09-02T00:00:00Z"),
            ("2022-07-20T00:00:00Z", "2022-09-02T00:00:00Z"),
        ] {
            assert!(read_text(&text(from, until)).is_ok(), "{from} {until}: partly within");
        }
    }

    #[test]
    fn no_interval_begins_within_another() {
        let overlap = |line: usize, last: usize| {
            format!(
                "orders/milan.toml:{line}:8: `from` lies within the interval whose `until` is on line {last}; make them one, or keep them apart"
            )
        };
        let two = with_intervals(&[("07T00", "08T00"), ("06T00", "07T01")]);
        assert_eq!(mistakes(&two), [overlap(24, 28)]);
        let within = with_intervals(&[("06T00", "20T00"), ("07T00", "08T00"), ("09T00", "10T00"), ("20T00", "21T00")]);
        assert_eq!(mistakes(&within), [overlap(27, 25), overlap(30, 25)]);
        let twice = with_intervals(&[("06T00", "07T00"), ("06T00", "07T00")]);
        assert_eq!(mistakes(&twice), [overlap(27, 25)]);
    }

    #[test]
    fn an_interval_is_a_table_with_two_times() {
        let of = |interval: &str| mistakes(&format!("{MILAN}{interval}")).join("\n").replace("orders/milan.toml:", "");
        assert_eq!(
            of("[[interval]]\n"),
            "21:1: `[[interval]]` has no `from`; give it one such as from = 2022-07-18T09:00:00+02:00\n\
             21:1: `[[interval]]` has no `until`; give it one such as until = 2022-07-18T09:00:00+02:00"
        );
        assert!(of("[interval]\nfrom = 1").starts_with("21:1: `interval` is one table; write [[interval]]"));
        let odd = of("[[interval]]\nfrom = 2022-08-06T18:00:00\nuntil = '18:00'\nname = 'final'");
        let odd: Vec<_> = odd.lines().collect();
        assert!(odd[0].starts_with("22:8: `from` has no offset"), "{odd:?}");
        assert!(odd[1].starts_with("23:9: `until` is a string; it takes a date"), "{odd:?}");
        assert_eq!(odd[2], "24:1: unknown key \"name\"; an interval has from, until");
        assert!(changed("id   ", "interval = []\nid   ").starts_with("1:12: `interval` is empty; write [[interval]]"));
        assert!(changed("id   ", "interval = 1\nid   ").starts_with("1:12: `interval` is an integer; it takes"));
    }

    /// What is wrong with the dates of the second target, in an order from 1 August 2022 to 1 September.
    fn of_target(dates: &str) -> String {
        let found = mistakes(&with_intervals(&[]).replace("added  =", &format!("{dates}\nadded  =")));
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].strip_prefix("orders/milan.toml:").unwrap().to_owned()
    }

    #[test]
    fn the_dates_of_a_target_lie_within_those_of_its_order() {
        let fits = |dates: &str| read_text(&with_intervals(&[]).replace("added  =", &format!("{dates}\nadded  =")));
        let first =
            fits("effective = 2022-08-01T00:00:00Z\nexpires = 2022-09-01T00:00:00Z\ndue = 2022-09-01T00:00:00Z");
        assert!(first.is_ok(), "to the second");
        assert!(fits("effective = 2022-08-31T23:59:59Z").is_ok());
        assert!(fits("expires = 2022-08-01T00:00:01Z").is_ok());
        assert_eq!(
            fits("due = 2022-08-30T00:00:00Z").unwrap().targets[1].due.unwrap().to_string(),
            "2022-08-30T00:00:00Z"
        );
        assert_eq!(
            of_target("effective = 2022-07-31T23:59:59Z"),
            "21:13: `effective` is before the order's; a target begins with its order, or later"
        );
        assert_eq!(
            of_target("effective = 2022-09-01T00:00:00Z"),
            "21:13: `effective` is not before the order's `expires`; the target would never be in force"
        );
        assert_eq!(
            of_target("expires = 2022-09-01T00:00:01Z"),
            "21:11: `expires` is after the order's; a target ends with its order, or earlier"
        );
        let never =
            |line: usize, key| format!("{line}:11: `expires` is not after {key}; the target would never be in force");
        assert_eq!(of_target("expires = 2022-08-01T00:00:00Z"), never(21, "the order's `effective`"));
        let own = "effective = 2022-08-10T00:00:00Z\nexpires = 2022-08-10T00:00:00Z";
        assert_eq!(of_target(own), never(22, "`effective`"));
        assert_eq!(
            of_target("due = 2022-07-18T06:59:59Z"),
            "21:7: `due` is before the order was `received`; correct one of them"
        );
        let late = "`due` is after `expires`; the target would be over before it is due";
        assert_eq!(of_target("due = 2022-09-01T00:00:01Z"), format!("21:7: {late}"));
        assert_eq!(of_target("expires = 2022-08-20T00:00:00Z\ndue = 2022-08-20T00:00:01Z"), format!("22:7: {late}"));
        assert!(of_target("effective = 2022-08-10").contains("`effective` is a date alone"));
        let undated = MILAN.replace("added  =", "expires = 2022-07-18T07:00:00Z\nadded  =");
        assert!(mistakes(&undated)[0].contains("`expires` is not after `received`; the target would never"));
    }

    #[test]
    fn a_target_meets_an_interval_of_its_order() {
        let with = |dates: &str| {
            with_intervals(&[("06T18", "06T21"), ("13T18", "13T21")]).replace("added  =", &format!("{dates}\nadded  ="))
        };
        for fits in
            ["effective = 2022-08-13T20:59:59Z", "expires = 2022-08-06T18:00:01Z", "expires = 2022-08-10T00:00:00Z"]
        {
            assert!(read_text(&with(fits)).is_ok(), "{fits}");
        }
        let what = "no [[interval]] has a moment in this target's time; it would never be in force";
        for (dates, column) in [
            ("effective = 2022-08-13T21:00:00Z", 13),
            ("expires = 2022-08-06T18:00:00Z", 11),
            ("effective = 2022-08-06T21:00:00Z\nexpires = 2022-08-13T18:00:00Z", 13),
        ] {
            assert_eq!(mistakes(&with(dates)), [format!("orders/milan.toml:21:{column}: {what}")], "{dates}");
        }
        let broken = with("effective = 2022-08-13T21:00:00Z").replace("08-06T18:00:00Z", "09-06T18:00:00Z");
        assert_eq!(mistakes(&broken).len(), 1, "a wrong interval is told of, and nothing that follows from it");
    }
}
