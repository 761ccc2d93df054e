//! Writes down what happens to orders: the register on the disk, the ledger where there is one.

use std::collections::BTreeSet;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::digest::Digest;
use crate::ledger::{Event, Ledger, Ticket};
use crate::policy::Policy;
use crate::policy::register::{Facts, Happening, Register, Told};
use crate::policy::report::{ClockLine, OrderLine};

/// The most happenings that wait for the ledger; past it the oldest are given up, which the ledger complains of itself.
const UNRECORDED_MAX: usize = 10_000;

/// How long to wait before the register is written again where it could not be.
const SAVE_RETRY: Duration = Duration::from_secs(10);

/// How many overdue orders a reason of `/health` names; the rest are counted.
const OVERDUE_TOLD_MAX: usize = 5;

/// The register of a running server, and what goes from it into the ledger. No query meets it.
#[derive(Debug)]
pub(super) struct Chronicle {
    /// The state folder; None: nothing is kept.
    folder: Option<PathBuf>,
    ledger: Option<Arc<Ledger>>,
    kept: Mutex<Kept>,
    /// Held while the file is written: the last to write has the last word.
    saving: Mutex<Saved>,
    /// The folder is another's from now on.
    has_ended: AtomicBool,
    /// Orders that are carried out from now on, or in another way, and wait to be probed.
    activated: Mutex<BTreeSet<String>>,
    has_activated: Notify,
}

#[derive(Debug)]
struct Kept {
    register: Register,
    /// One for each of the register's unrecorded happenings; none without a ledger.
    tickets: Vec<Ticket>,
    /// The file is older.
    is_changed: bool,
    /// This process has looked before.
    has_looked: bool,
}

#[derive(Debug, Default)]
struct Saved {
    /// What the file was last written as.
    digest: Option<Digest>,
    failed: Option<Instant>,
}

impl Chronicle {
    /// Takes up the register as the state folder has it, and hands in again what the ledger had not on its disk.
    pub(super) fn new(folder: Option<PathBuf>, register: Register, ledger: Option<Arc<Ledger>>) -> Self {
        let hand_in = |ledger: &Arc<Ledger>| register.unrecorded.iter().map(|told| record(ledger, told)).collect();
        let tickets = ledger.as_ref().map(hand_in).unwrap_or_default();
        let kept = Mutex::new(Kept { register, tickets, is_changed: false, has_looked: false });
        let (saving, has_ended, activated, has_activated) = Default::default();
        Self { folder, ledger, kept, saving, has_ended, activated, has_activated }
    }

    /// A copy of the register, for a load.
    pub(super) fn register(&self) -> Register {
        lock(&self.kept).register.clone()
    }

    /// Looks at the policy that every worker answers from: what has happened since the last look is logged and handed
    /// to the ledger. Never waits for a disk.
    pub(super) fn follow(&self, policy: &Policy, now: Timestamp) {
        let mut kept = lock(&self.kept);
        let kept = &mut *kept;
        kept.is_changed = true;
        // What a start finds in force its banner says; of thousands of orders each would be a line.
        let is_quiet = !mem::replace(&mut kept.has_looked, true);
        for told in kept.register.follow(policy, now) {
            if !is_quiet {
                log(&told.happening);
            }
            // An amendment may change what is answered, and to whom, without a new target.
            if let Happening::OrderActivated { order, .. } | Happening::OrderAmended(Facts { order, .. }) =
                &told.happening
            {
                lock(&self.activated).insert(order.clone());
                self.has_activated.notify_one();
            }
            if let Some(ledger) = &self.ledger {
                kept.tickets.push(record(ledger, &told));
                kept.register.unrecorded.push(told);
            }
        }
        let excess = kept.register.unrecorded.len().saturating_sub(UNRECORDED_MAX);
        kept.register.unrecorded.drain(..excess);
        kept.tickets.drain(..excess.min(kept.tickets.len()));
    }

    /// Forgets the happenings that the ledger has on its disk by now.
    pub(super) fn follow_ledger(&self) {
        let Some(ledger) = &self.ledger else { return };
        let mut kept = lock(&self.kept);
        let kept = &mut *kept;
        let is_recorded: Vec<bool> = kept.tickets.iter().map(|ticket| ledger.has_recorded(*ticket)).collect();
        if !is_recorded.contains(&true) {
            return;
        }
        kept.is_changed = true;
        // One ticket each, in the same order.
        let recorded = kept.register.unrecorded.iter().zip(&is_recorded).filter(|(_, is_recorded)| **is_recorded);
        for (told, _) in recorded {
            if let Happening::OrderActivated { order, .. } = &told.happening
                && let Some(record) = kept.register.orders.get_mut(order)
            {
                record.recorded = true;
            }
        }
        let mut each = is_recorded.iter();
        kept.register.unrecorded.retain(|_| !each.next().copied().unwrap_or(false));
        let mut each = is_recorded.iter();
        kept.tickets.retain(|_| !each.next().copied().unwrap_or(false));
    }

    /// Whether there is something to write, and no reason to wait with it.
    pub(super) fn wants_saving(&self) -> bool {
        let is_failing = || match self.saving.try_lock() {
            Ok(saved) => saved.failed.is_some_and(|failed| failed.elapsed() < SAVE_RETRY),
            // It is being written.
            Err(_) => true,
        };
        self.folder.is_some() && lock(&self.kept).is_changed && !is_failing()
    }

    /// Writes the register where it has changed, and waits for the disk: not for a runtime's thread. The error is for
    /// health.
    pub(super) fn save(&self) -> Result<(), String> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut saved = lock(&self.saving);
        if self.has_ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        let register = {
            let mut kept = lock(&self.kept);
            if !kept.is_changed {
                return Ok(());
            }
            kept.is_changed = false;
            kept.register.clone()
        };
        // Most looks find what the last one found.
        let digest = serde_json::to_vec(&register).ok().map(|octets| Digest::of(&octets));
        if digest.is_some() && saved.digest == digest {
            return Ok(());
        }
        let written = register.save(folder);
        saved.failed = written.is_err().then(Instant::now);
        saved.digest = digest.filter(|_| written.is_ok());
        written.map_err(|error| {
            lock(&self.kept).is_changed = true;
            let file = Register::file(folder);
            let what = "since when orders are carried out would be forgotten at a restart; free or mend the disk";
            format!("{}: cannot be written: {error}; {what}", file.display())
        })
    }

    /// From now on nothing is written that is not being written already.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Waits for orders that are carried out from now on, again, or in another way; each is told once.
    pub(super) async fn activated(&self) -> BTreeSet<String> {
        self.has_activated.notified().await;
        mem::take(&mut lock(&self.activated))
    }

    /// From when an order is carried out here, as far as it is recorded: what the public is told.
    pub(super) fn since(&self, id: &str) -> Option<Timestamp> {
        let kept = lock(&self.kept);
        let is_recorded = self.ledger.is_none() || kept.is_recorded(id);
        kept.register.orders.get(id).filter(|_| is_recorded)?.effective
    }

    /// A probe has seen a target of an order carried out.
    pub(super) fn probed(&self, order: &str, target: &str, at: Timestamp) {
        let mut kept = lock(&self.kept);
        let kept = &mut *kept;
        let Some(record) = kept.register.orders.get_mut(order) else { return };
        kept.is_changed |= record.probed.is_none();
        record.probed.get_or_insert(at);
        if let Some(target) = record.targets.get_mut(target) {
            kept.is_changed |= target.probed.is_none();
            target.probed.get_or_insert(at);
        }
    }

    /// Every order as it stands, with its clock.
    pub(super) fn order_lines(&self, policy: &Policy, now: Timestamp) -> Vec<OrderLine> {
        let kept = lock(&self.kept);
        let mut lines = policy.order_lines(&kept.register, now);
        if self.ledger.is_some() {
            for line in &mut lines {
                line.recorded = Some(kept.is_recorded(&line.id));
            }
        }
        lines
    }

    /// Every order's clock, for metrics.
    pub(super) fn clock_lines(&self, policy: &Policy, now: Timestamp) -> Vec<ClockLine> {
        policy.clock_lines(&lock(&self.kept).register, now)
    }

    /// Which orders are past their deadline and not carried out, for health.
    pub(super) fn overdue(&self, policy: &Policy, now: Timestamp) -> Option<String> {
        let kept = lock(&self.kept);
        let overdue = policy.overdue(&kept.register, now);
        let more = match overdue.len().saturating_sub(OVERDUE_TOLD_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = overdue.iter().take(OVERDUE_TOLD_MAX).copied().collect::<Vec<_>>().join(", ");
        let what = "past due and not carried out";
        (!overdue.is_empty()).then(|| format!("{what}: {named}{more}; `bailiwick orders` says how each stands"))
    }
}

impl Kept {
    /// Whether the ledger has on its disk that this order was carried out, the last time included.
    fn is_recorded(&self, id: &str) -> bool {
        let is_activation =
            |told: &Told| matches!(&told.happening, Happening::OrderActivated { order, .. } if order == id);
        let was_recorded = self.register.orders.get(id).is_some_and(|record| record.recorded);
        was_recorded && !self.register.unrecorded.iter().any(is_activation)
    }
}

fn record(ledger: &Ledger, told: &Told) -> Ticket {
    ledger.record(told.at, Event::Order(told.happening.clone()))
}

fn log(happening: &Happening) {
    match happening {
        Happening::OrderLoaded(facts) => tracing::info!(order = facts.order, state = facts.state, "order loaded"),
        Happening::OrderAmended(facts) => tracing::info!(order = facts.order, state = facts.state, "order amended"),
        Happening::OrderApproved { order, by, .. } => tracing::info!(order, by = by.join(" "), "order approved"),
        Happening::OrderActivated { order, targets, .. } => {
            tracing::info!(order, targets = targets.len(), "order carried out from now on");
        }
        Happening::OrderSuspended { order } => tracing::info!(order, "order suspended"),
        Happening::OrderLifted { order } => tracing::info!(order, "order lifted"),
        Happening::OrderExpired { order } => tracing::info!(order, "order expired"),
        Happening::OrderRemoved { order } => tracing::info!(order, "order removed"),
    }
}

/// Whoever panicked while holding it left no half of anything behind that matters more than going on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::policy::load::{Before, Settings, load};

    const ORDER: &str = "id = 'x'\nissuer = 'Example Court'\njurisdiction = ['*']\nreceived = 2026-01-01T00:00:00Z\n\
                         due = 2026-02-01T00:00:00Z\nstate = 'in-force'\n[[target]]\nsubtree = ['a.example']\n";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn open(state: &Path) -> Chronicle {
        let (register, warning) = Register::read(state);
        assert_eq!(warning, None);
        Chronicle::new(Some(state.to_owned()), register, None)
    }

    /// The policy of one order file.
    fn policy(folder: &Path, text: &str) -> Policy {
        fs::create_dir_all(folder.join("orders")).unwrap();
        fs::write(folder.join("orders/x.toml"), text).unwrap();
        let settings = Settings { orders: Some(folder.join("orders")), ..Settings::default() };
        Policy::compile(&load(&settings, &Before::default(), at(0)), 1, at(0)).unwrap()
    }

    #[test]
    fn what_is_kept_is_there_after_a_restart_and_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let policy = policy(folder.path(), ORDER);
        let state = folder.path().join("state");
        let chronicle = open(&state);
        assert!(!chronicle.wants_saving());
        chronicle.follow(&policy, at(0));
        chronicle.probed("x", &policy.orders()[0].loaded.target_keys[0], at(1));
        chronicle.probed("nobody", "knows", at(1));
        assert!(chronicle.wants_saving());
        chronicle.save().unwrap();
        assert!(!chronicle.wants_saving());
        let written = fs::metadata(Register::file(&state)).unwrap().modified().unwrap();
        chronicle.follow(&policy, at(5));
        chronicle.save().unwrap();
        assert_eq!(fs::metadata(Register::file(&state)).unwrap().modified().unwrap(), written);
        let chronicle = open(&state);
        chronicle.follow(&policy, at(9));
        let line = chronicle.order_lines(&policy, at(9)).remove(0);
        assert_eq!((line.effective_since, line.probed, line.recorded), (Some(at(0)), Some(at(1)), None));
        assert_eq!(line.targets_clock[0].probed, Some(at(1)));
        assert!(chronicle.clock_lines(&policy, at(9))[0].seconds_left.unwrap() < 0);
    }

    #[test]
    fn what_the_ledger_had_not_written_is_handed_in_again() {
        let folder = tempfile::tempdir().unwrap();
        let policy = policy(folder.path(), ORDER);
        let state = folder.path().join("state");
        let until_recorded = |chronicle: &Chronicle| {
            let start = Instant::now();
            while chronicle.order_lines(&policy, at(0))[0].recorded != Some(true) {
                assert!(start.elapsed() < SAVE_RETRY, "not recorded");
                chronicle.follow_ledger();
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let told = || {
            let lines = fs::read_to_string(state.join("ledger.jsonl")).unwrap();
            lines.matches("\"event\":\"order-activated\"").count()
        };
        // A crash before the ledger has it: the register says so.
        let chronicle = Chronicle::new(Some(state.clone()), Register::default(), None);
        chronicle.follow(&policy, at(0));
        let happenings = Register::default().follow(&policy, at(0));
        lock(&chronicle.kept).register.unrecorded = happenings;
        chronicle.save().unwrap();
        // What was carried out before there was a ledger is in none.
        let mut unknown = Register::read(&state).0;
        unknown.unrecorded.clear();
        let ledger = Arc::new(Ledger::open(&folder.path().join("other"), at(1)).unwrap());
        let late = Chronicle::new(None, unknown, Some(ledger));
        assert_eq!(late.order_lines(&policy, at(1))[0].recorded, Some(false));
        for _ in 0..2 {
            let ledger = Arc::new(Ledger::open(&state, at(1)).unwrap());
            let chronicle = Chronicle::new(Some(state.clone()), Register::read(&state).0, Some(Arc::clone(&ledger)));
            chronicle.follow(&policy, at(2));
            until_recorded(&chronicle);
            assert_eq!(told(), 1, "once");
            assert!(lock(&chronicle.kept).register.unrecorded.is_empty());
            chronicle.save().unwrap();
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_is_told_and_tried_again_later() {
        let folder = tempfile::tempdir().unwrap();
        let policy = policy(folder.path(), ORDER);
        let state = folder.path().join("state");
        fs::write(&state, "").unwrap();
        let chronicle = Chronicle::new(Some(state.clone()), Register::default(), None);
        chronicle.follow(&policy, at(0));
        assert!(chronicle.save().unwrap_err().contains("register.json: cannot be written: "));
        assert!(!chronicle.wants_saving(), "not at once");
        fs::remove_file(&state).unwrap();
        chronicle.save().unwrap();
        assert!(Register::file(&state).exists());
    }

    #[test]
    fn after_its_end_the_file_is_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let policy = policy(folder.path(), ORDER);
        let state = folder.path().join("state");
        let chronicle = open(&state);
        chronicle.follow(&policy, at(0));
        chronicle.end();
        chronicle.save().unwrap();
        assert!(!Register::file(&state).exists());
    }

    #[test]
    fn what_is_past_due_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let chronicle = Chronicle::new(None, Register::default(), None);
        let drafted = policy(folder.path(), &ORDER.replace("in-force", "draft"));
        chronicle.follow(&drafted, at(0));
        let reason = chronicle.overdue(&drafted, at(0)).unwrap();
        assert!(reason.starts_with("past due and not carried out: x; "), "{reason}");
        let in_force = policy(folder.path(), ORDER);
        chronicle.follow(&in_force, at(1));
        assert_eq!(chronicle.overdue(&in_force, at(1)), None);
        chronicle.save().unwrap();
    }
}
