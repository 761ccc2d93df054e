//! Notes in the ledger which policy is in force from when on, and how much orders blocked, hour by hour.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{MissedTickBehavior, interval};

use crate::digest::Digest;
use crate::ledger::{Event, Input, Ledger, Note};
use crate::policy::Policy;
use crate::telemetry::Telemetry;
use crate::telemetry::health::Health;

/// How often the clock is looked at for an hour that has ended, and the ledger for a complaint.
const LOOK: Duration = Duration::from_millis(250);

/// The most inputs that one line of the ledger names; a generation of more has more lines.
const INPUTS_A_LINE_MAX: usize = 1_000;

const HOUR_SECONDS: i64 = 3_600;

/// Counts are rounded to this, and what is under it is left out: no single client can be seen in them.
const COUNTS_ROUNDED_TO: u64 = 10;

/// Notes each policy that comes in force. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Books {
    /// None: no ledger is kept.
    pub(super) ledger: Option<Arc<Ledger>>,
    /// The configuration's file.
    pub(super) config_path: PathBuf,
    /// The octets of it that are in use.
    pub(super) config: Digest,
}

impl Books {
    /// Notes that every worker answers from this policy.
    pub(super) fn note_generation(&self, policy: &Policy, now: Timestamp) {
        let Some(ledger) = &self.ledger else { return };
        let (id, digest) = (self.config_path.display().to_string(), self.config);
        let configuration = Input { kind: "configuration".to_owned(), id, digest };
        let inputs: Vec<_> = [configuration].into_iter().chain(inputs_of(policy)).collect();
        for inputs in inputs.chunks(INPUTS_A_LINE_MAX) {
            let note = Note::Generation { generation: policy.generation(), inputs: inputs.to_vec() };
            ledger.record(now, Event::Node(note));
        }
    }
}

/// The files that a policy was made from. The one place to extend where a policy is made from more than orders.
fn inputs_of(policy: &Policy) -> impl Iterator<Item = Input> {
    policy.orders().iter().map(|order| Input {
        kind: "order".to_owned(),
        id: order.loaded.order.id.clone(),
        digest: order.loaded.digest,
    })
}

/// Notes what orders blocked in each hour. Shared by the task that looks and the drain that ends it.
#[derive(Debug)]
pub(super) struct Tally {
    ledger: Arc<Ledger>,
    telemetry: Arc<Telemetry>,
    hour: Mutex<Hour>,
}

impl Tally {
    pub(super) fn new(ledger: Arc<Ledger>, telemetry: Arc<Telemetry>, now: Timestamp) -> Self {
        let hour = Mutex::new(Hour { from: now, before: telemetry.block_totals("order") });
        Self { ledger, telemetry, hour }
    }

    /// Looks at clock and ledger for ever.
    pub(super) async fn keep(self: Arc<Self>, health: Health) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.note(|hour, totals| hour.turn(Timestamp::now(), totals));
            health.degrade("ledger", self.ledger.complaint());
        }
    }

    /// Notes what was blocked in the part of the hour that is over at `now`.
    pub(super) fn finish(&self, now: Timestamp) {
        self.note(|hour, totals| Some(hour.close(now, totals)));
    }

    fn note(&self, look: impl FnOnce(&mut Hour, &dyn Fn() -> BTreeMap<String, u64>) -> Option<(Timestamp, Note)>) {
        // An hour is whole between any two statements, so a panic elsewhere leaves nothing to mend.
        let mut hour = self.hour.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, note)) = look(&mut hour, &|| self.telemetry.block_totals("order")) {
            self.ledger.record(at, Event::Node(note));
        }
    }
}

/// The hour that is being counted, or what there was of it since the start.
#[derive(Debug)]
struct Hour {
    from: Timestamp,
    /// How much each order had blocked by then.
    before: BTreeMap<String, u64>,
}

impl Hour {
    /// What is to be noted where the hour is over.
    fn turn(&mut self, now: Timestamp, totals: impl Fn() -> BTreeMap<String, u64>) -> Option<(Timestamp, Note)> {
        let hour = beginning(now);
        // The clock was set back: the hour goes on from there, and loses nothing.
        if now < self.from {
            self.from = now;
        }
        (hour > self.from).then(|| (now, self.close(hour, totals).1))
    }

    /// Ends the count at `until` and begins the next.
    fn close(&mut self, until: Timestamp, totals: impl Fn() -> BTreeMap<String, u64>) -> (Timestamp, Note) {
        let (totals, from) = (totals(), self.from.min(until));
        let since = |(id, total): (&String, &u64)| {
            let blocked = total.saturating_sub(self.before.get(id).copied().unwrap_or_default());
            (blocked >= COUNTS_ROUNDED_TO).then(|| (id.clone(), rounded(blocked)))
        };
        let blocked = totals.iter().filter_map(since).collect();
        *self = Self { from: until, before: totals };
        (until, Note::Counts { from, until, blocked })
    }
}

/// To the nearest.
const fn rounded(count: u64) -> u64 {
    count.saturating_add(COUNTS_ROUNDED_TO / 2) / COUNTS_ROUNDED_TO * COUNTS_ROUNDED_TO
}

/// The first moment of the hour, UTC, that a moment is in.
fn beginning(moment: Timestamp) -> Timestamp {
    let past = moment.as_second().rem_euclid(HOUR_SECONDS);
    let whole = Timestamp::from_second(moment.as_second()).unwrap_or(moment);
    whole.saturating_sub(SignedDuration::from_secs(past)).unwrap_or(moment)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    /// An hour that begins at the given time, and the counters that it looks at.
    fn hour(from: &str) -> (Hour, Arc<Telemetry>) {
        let telemetry = Telemetry::new(1);
        (Hour { from: at(from), before: telemetry.block_totals("order") }, telemetry)
    }

    fn block(telemetry: &Telemetry, id: &str, times: usize) {
        (0..times).for_each(|_| telemetry.block_counter("order", id).count());
    }

    fn counts(from: &str, until: &str, blocked: &[(&str, u64)]) -> Note {
        let blocked = blocked.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect();
        Note::Counts { from: at(from), until: at(until), blocked }
    }

    #[test]
    fn each_hour_is_told_once_it_is_over() {
        let (mut hour, telemetry) = hour("12:34:56.5");
        let mut turn = |now: &str| hour.turn(at(now), || telemetry.block_totals("order"));
        block(&telemetry, "a", 126);
        block(&telemetry, "few", 9);
        telemetry.block_counter("list", "a").count();
        assert_eq!((turn("12:34:56.6"), turn("12:59:59.999")), (None, None));
        let first = counts("12:34:56.5", "13:00:00", &[("a", 130)]);
        assert_eq!(turn("13:00:00"), Some((at("13:00:00"), first)));
        assert_eq!(turn("13:00:00.25"), None);
        // What was under ten is not carried on, and what comes later counts from its own first.
        block(&telemetry, "few", 1);
        block(&telemetry, "new", 14);
        block(&telemetry, "a", 10);
        let second = counts("13:00:00", "14:00:00", &[("a", 10), ("new", 10)]);
        assert_eq!(turn("14:00:00.2"), Some((at("14:00:00.2"), second)));
        let quiet = counts("14:00:00", "17:00:00", &[]);
        assert_eq!(turn("17:30:00"), Some((at("17:30:00"), quiet)), "asleep for hours");
    }

    #[test]
    fn a_drain_ends_the_hour_early() {
        let (mut hour, telemetry) = hour("12:00:00");
        block(&telemetry, "a", 55);
        let totals = || telemetry.block_totals("order");
        assert_eq!(hour.close(at("12:10:00"), totals).1, counts("12:00:00", "12:10:00", &[("a", 60)]));
        assert_eq!(hour.turn(at("13:00:00"), totals).unwrap().1, counts("12:10:00", "13:00:00", &[]));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let (mut hour, telemetry) = hour("12:30:00");
        block(&telemetry, "a", 20);
        let totals = || telemetry.block_totals("order");
        assert_eq!(hour.turn(at("10:59:00"), totals), None);
        let told = hour.turn(at("11:00:00"), totals).unwrap().1;
        assert_eq!(told, counts("10:59:00", "11:00:00", &[("a", 20)]));
        assert_eq!(beginning(at("11:00:00")), at("11:00:00"));
    }

    #[test]
    fn counts_are_rounded() {
        assert_eq!([10, 14, 15, 24, 25, u64::MAX].map(rounded)[..5], [10, 10, 20, 20, 30]);
    }
}
