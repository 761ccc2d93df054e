//! Follows the files of the configuration: what has changed is read, compiled, put in force.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use notify::Watcher;
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::bookkeeping::Books;
use super::chronicle::Chronicle;
use super::reading::Reading;
use crate::config::Config;
use crate::mistake::Mistake;
use crate::pipeline::Pipeline;
use crate::policy::Policy;
use crate::policy::load::{self, Bulk, Fate, Loaded, LoadedDatabase, LoadedOrder, Print};
use crate::telemetry::health::Health;
use crate::tls::Certificates;

/// How often the time of day is looked at for orders that begin or end.
const CLOCK_CHECK: Duration = Duration::from_millis(250);

/// How long after the first sign of a change the files are read: an editor touches a file more than once.
const SETTLE: Duration = Duration::from_millis(100);

/// How often the files are looked at where no sign comes: network file systems, links to other folders, a folder put
/// in another's place. With [`SETTLE`] it stays within the second that a change may take.
const POLL: Duration = Duration::from_millis(500);

/// What `/health` calls the lists while they cannot be looked at: what is wrong with one of them is told beside.
const READING: &str = "lists-reading";

/// How many files of one fate a reason of `/health` shows; the rest are counted.
const FILES_TOLD_MAX: usize = 3;

/// What a reload needs to know.
#[derive(Debug)]
pub(super) struct Reloader {
    pub(super) config_path: PathBuf,
    pub(super) config: Config,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) health: Health,
    pub(super) books: Books,
    pub(super) chronicle: Arc<Chronicle>,
    /// The sections that have changed and wait for a restart.
    pub(super) waiting: Vec<&'static str>,
    /// When the time of day was last looked at.
    pub(super) looked: Timestamp,
    /// The files of orders' list targets.
    pub(super) list_targets: Vec<PathBuf>,
    /// The names of order files that the last load found gone.
    pub(super) gone: BTreeSet<OsString>,
    /// The lists that have changed, being read.
    pub(super) reading: Reading,
}

/// A file as it was when it was last looked at; None: it was not there.
type Seen = (PathBuf, Option<Print>);

impl Reloader {
    /// Follows the files and the clock; never ends. `hangup` is told of each SIGHUP.
    pub(super) async fn run(mut self, hangup: Arc<Notify>) {
        let stirred = Arc::new(Notify::new());
        let mut watcher = watch(&self.folders(), &stirred);
        let mut prints = self.prints();
        let [mut clock, mut poll] = [CLOCK_CHECK, POLL].map(every);
        // They may have changed since the start read them.
        self.read_lists();
        loop {
            let mut lists = None;
            let asked = tokio::select! {
                _ = clock.tick() => {
                    self.follow_clock();
                    continue;
                }
                read = self.reading.end() => {
                    let failed = || "reading them has failed; they stay as they were".to_owned();
                    self.health.degrade(READING, read.is_none().then(failed));
                    lists = read;
                    true
                }
                () = hangup.notified() => {
                    self.reading.forget();
                    true
                }
                () = stirred.notified() => {
                    sleep(SETTLE).await;
                    false
                }
                _ = poll.tick() => {
                    if self.prints() == prints {
                        continue;
                    }
                    // A file that is being replaced is not there for a moment, and a file that is gone lifts an order.
                    sleep(SETTLE).await;
                    false
                }
            };
            // Taken before the files are read: what changes meanwhile is seen the next time.
            let found = self.prints();
            if asked || self.differ_beside_lists(&prints, &found) {
                prints = found;
                let (folders, gone) = (self.folders(), self.gone.clone());
                self.reload(lists).await;
                // What is gone for the first time lifts nothing yet; another look tells whether it is being replaced.
                if !self.gone.is_subset(&gone) {
                    prints.clear();
                    stirred.notify_one();
                }
                // Files that are followed from now on are not among the prints, so they are read once more: they may
                // have changed since they were read just now.
                if folders != self.folders() {
                    watcher = watch(&self.folders(), &stirred);
                }
            } else {
                prints = found;
            }
            self.read_lists();
            let _ = &watcher;
        }
    }

    /// Each moment at which an order begins or ends makes a new generation over the same index.
    fn follow_clock(&mut self) {
        let policy = self.pipeline.policy();
        let now = Timestamp::now();
        self.tell_expiry(now);
        let before = std::mem::replace(&mut self.looked, now);
        if let Some(warning) = policy.database().and_then(|database| becomes_old(database, before, now)) {
            tracing::warn!("{warning}");
        }
        if policy.changed_since_made(now) {
            tracing::info!(in_force = policy.orders_in_force(now), "an order has begun or ended");
            self.pipeline.install(policy.next(now));
            self.books.note_generation(&self.pipeline.policy(), now);
            self.chronicle.follow(&self.pipeline.policy(), Timestamp::now());
        }
        self.chronicle.follow_ledger();
        self.health.degrade("deadline", self.chronicle.overdue(&self.pipeline.policy(), Timestamp::now()));
        if self.chronicle.wants_saving() {
            let (chronicle, health) = (Arc::clone(&self.chronicle), self.health.clone());
            // Nobody waits for it: the next look sees whether it is to be written again.
            drop(tokio::task::spawn_blocking(move || health.degrade("register", chronicle.save().err())));
        }
    }

    /// `lists`: those that have just been read.
    async fn reload(&mut self, lists: Option<Bulk>) {
        self.reload_certificate();
        // Orders and lists are read again even where the configuration cannot be: an order does not wait for it.
        match Config::read_with_digest(&self.config_path) {
            Ok((config, digest)) => {
                self.books.config = digest;
                self.take(config);
            }
            Err(mistakes) => self.health.degrade("configuration", Some(tell(&mistakes))),
        }
        self.reload_policy(lists).await;
    }

    /// Has the lists read that have changed. Nothing waits for it, an order least of all.
    fn read_lists(&mut self) {
        let begun = self.reading.begin(&self.config.policy, self.pipeline.policy().bulk());
        if let Err(error) = begun {
            self.health.degrade(READING, Some(format!("no thread can read them: {error}; they stay as they were")));
        }
    }

    /// Whether anything has changed but lists.
    fn differ_beside_lists(&self, before: &[Seen], now: &[Seen]) -> bool {
        let is_list = |file: &PathBuf| self.config.policy.lists.iter().any(|list| list.file == *file);
        let others = |seen: &[Seen]| -> Vec<Seen> {
            // An order may have a list of the operator's for a target.
            let counts = |(file, _): &&Seen| !is_list(file) || self.list_targets.contains(file);
            seen.iter().filter(counts).cloned().collect()
        };
        others(before) != others(now)
    }

    fn take(&mut self, config: Config) {
        self.health.degrade("configuration", None);
        let waiting = needing_restart(&self.config, &config);
        // Told once, not with each reload until then.
        for section in waiting.iter().filter(|section| !self.waiting.contains(section)) {
            tracing::warn!(section, "changed; it takes effect after a restart");
        }
        self.waiting = waiting;
        // Our name and our port are those that we were started with.
        let pages = self.config.policy.pages.take();
        self.config.policy = load::Settings { pages, ..config.policy };
    }

    fn reload_certificate(&self) {
        match self.certificates.reload(Timestamp::now()) {
            Ok(changed) => {
                if changed {
                    tracing::info!("new certificate; connections from now on get it");
                }
                // Also where the files are back to what is in use.
                self.health.degrade("certificate", None);
            }
            Err(error) => self.health.degrade("certificate", Some(format!("{error}; the old one stays"))),
        }
    }

    fn tell_expiry(&self, now: Timestamp) {
        if self.certificates.not_after() < now {
            let reason = format!("expired at {}; renew it", self.certificates.not_after());
            self.health.degrade("certificate-expiry", Some(reason));
        } else {
            self.health.degrade("certificate-expiry", None);
        }
    }

    async fn reload_policy(&mut self, lists: Option<Bulk>) {
        let (settings, pipeline) = (self.config.policy.clone(), Arc::clone(&self.pipeline));
        let (chronicle, health) = (Arc::clone(&self.chronicle), self.health.clone());
        let books = self.books.clone();
        let generation = pipeline.policy().generation() + 1;
        let gone = Some(self.gone.clone());
        // Off the runtime: the names of orders may be many. The old policy is dropped there too.
        let made = tokio::task::spawn_blocking(move || {
            let now = Timestamp::now();
            let orders = pipeline.policy().orders().iter().map(|order| order.loaded.clone()).collect();
            let held = pipeline.policy();
            let bulk = match &lists {
                Some(lists) => held.bulk().with_lists_of(lists),
                None => held.bulk(),
            };
            let (register, database) = (chronicle.register(), held.database().cloned());
            let before = load::Before { orders, register, bulk, database, lists_stand: true, gone };
            let loaded = load::load(&settings, &before, now);
            let policy = Policy::compile(&loaded, generation, now)?;
            let rules = policy.rules();
            pipeline.install(policy);
            books.note_generation(&pipeline.policy(), now);
            chronicle.follow(&pipeline.policy(), Timestamp::now());
            health.degrade("register", chronicle.save().err());
            Ok::<_, String>((loaded, rules))
        });
        match made.await {
            Ok(Ok((loaded, rules))) => {
                tracing::info!(generation, rules, orders = loaded.orders.len(), "policy in force");
                tell_loaded(&self.health, &loaded);
                self.list_targets = loaded.files;
                self.gone = loaded.gone;
            }
            Ok(Err(what)) => self.health.degrade("orders", Some(format!("{what}; the policy stays as it was"))),
            Err(error) => {
                self.health.degrade("orders", Some(format!("reload failed: {error}; the policy stays as it was")))
            }
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let lists = self.config.policy.lists.iter().map(|list| list.file.clone());
        let tls = &self.config.tls;
        let fixed = [self.config_path.clone(), tls.certificate.clone(), tls.key.clone()];
        let database = self.config.policy.origin.database.clone();
        fixed.into_iter().chain(lists).chain(database).chain(self.list_targets.iter().cloned()).collect()
    }

    fn folders(&self) -> Vec<PathBuf> {
        let parent = |file: PathBuf| match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut folders: Vec<_> =
            self.files().into_iter().map(parent).chain(self.config.policy.orders.clone()).collect();
        folders.sort();
        folders.dedup();
        folders
    }

    fn prints(&self) -> Vec<Seen> {
        let orders = self.config.policy.orders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        let mut files = self.files();
        // What editors leave beside an order is no reason to read all again.
        let counts =
            |file: &PathBuf| file.extension().is_some_and(|extension| extension == "toml" || extension == "minisig");
        files.extend(orders.flatten().map(|entry| entry.path()).filter(counts));
        files.sort();
        files.into_iter().map(print).collect()
    }
}

/// The warning of a database that was not old before: what is old when it is loaded is told then.
fn becomes_old(database: &LoadedDatabase, before: Timestamp, now: Timestamp) -> Option<String> {
    if database.warning(before).is_none() { database.warning(now) } else { None }
}

fn print(file: PathBuf) -> Seen {
    let print = Print::of(&file);
    (file, print)
}

/// Ticks so often, and not in haste where it is late.
fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Watches folders for as long as the watcher lives; None where the machine cannot, which the poll makes up for.
fn watch(folders: &[PathBuf], stirred: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    let stirred = Arc::clone(stirred);
    let told = move |event: notify::Result<notify::Event>| {
        // Reading a file stirs its folder too; that must not make us read it again.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            stirred.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(told)
        .inspect_err(|error| tracing::warn!(%error, "files cannot be watched; they are looked at twice a second"))
        .ok()?;
    for folder in folders {
        if let Err(error) = watcher.watch(folder, notify::RecursiveMode::NonRecursive) {
            tracing::warn!(folder = %folder.display(), %error, "cannot be watched; it is looked at twice a second");
        }
    }
    Some(watcher)
}

/// What a reload found that an operator must know.
pub(super) fn tell_loaded(health: &Health, loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for LoadedOrder { order, approvals, .. } in loaded.orders.iter().filter(|loaded| loaded.fate == Fate::Draft) {
        let have = approvals.as_ref().map(|approvals| approvals.have);
        let need = approvals.as_ref().map(|approvals| approvals.need);
        tracing::warn!(order = order.id, have, need, "not carried out: it lacks approvals, and is a draft");
    }
    health.degrade("orders", wrong_with_orders(loaded));
    health.degrade("lists", wrong_with_lists(loaded));
    health.degrade("origin", wrong_with_origin(loaded));
}

/// What is wrong with which order files, and what is carried out all the same.
fn wrong_with_orders(loaded: &Loaded) -> Option<String> {
    let is_list = |mistake: &Mistake| loaded.settings.lists.iter().any(|list| list.file == mistake.file);
    let is_folder = |mistake: &Mistake| Some(&mistake.file) == loaded.settings.orders.as_ref();
    let is_database = |mistake: &Mistake| Some(&mistake.file) == loaded.settings.origin.database.as_ref();
    let refused = || loaded.refused.iter().filter(|mistake| !is_list(mistake) && !is_database(mistake));
    let pending = |of: Fate| {
        let orders = loaded.orders.iter().filter(move |order| order.fate == of).flat_map(|order| &order.pending);
        orders.filter(|mistake| !is_folder(mistake))
    };
    let told = [
        // It stands for all its orders.
        fate(refused().filter(|mistake| is_folder(mistake)), "the orders stay as they were"),
        fate(refused().filter(|mistake| !is_folder(mistake)), "this order is not carried out"),
        fate(pending(Fate::Draft), "until then it is a draft, and not carried out"),
        fate(pending(Fate::StaysLifted), "until then it stays lifted"),
        fate(pending(Fate::Copy), "its last good copy stands"),
        // The order counts as it is written; what does not is a list of its.
        fate(pending(Fate::AsWritten), "its last good copy stands"),
    ];
    join(told)
}

/// The same of lists.
fn wrong_with_lists(loaded: &Loaded) -> Option<String> {
    let is_list = |mistake: &&Mistake| loaded.settings.lists.iter().any(|list| list.file == mistake.file);
    let told = [
        fate(loaded.refused.iter().filter(is_list), "this list is not in use"),
        fate(loaded.lists.iter().flat_map(|list| &list.pending), "the list stays as it was"),
    ];
    join(told)
}

/// The same of the database of `[origin]`.
fn wrong_with_origin(loaded: &Loaded) -> Option<String> {
    let is_database = |mistake: &&Mistake| Some(&mistake.file) == loaded.settings.origin.database.as_ref();
    let told = [
        fate(loaded.refused.iter().filter(is_database), "no database tells countries"),
        fate(loaded.database.iter().flat_map(|database| &database.pending), "the database stays as it was"),
    ];
    join(told)
}

fn join<const KINDS: usize>(told: [Option<String>; KINDS]) -> Option<String> {
    let told: Vec<String> = told.into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join(" | "))
}

/// The first mistake of each file, of the first few files, with what became of it; the other files are counted.
fn fate<'m>(mistakes: impl Iterator<Item = &'m Mistake>, fate: &str) -> Option<String> {
    let mut first: Vec<&Mistake> = mistakes.collect();
    first.dedup_by_key(|mistake| &mistake.file);
    let more = first.len().saturating_sub(FILES_TOLD_MAX);
    let mut told: Vec<String> = first.iter().take(FILES_TOLD_MAX).map(|mistake| format!("{mistake}; {fate}")).collect();
    if more > 0 {
        told.push(format!("{more} more; {fate}; `bailiwick check` prints all"));
    }
    (!told.is_empty()).then(|| told.join(" | "))
}

fn tell(mistakes: &[Mistake]) -> String {
    let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
    match mistakes.len() {
        0 | 1 => first,
        count => format!("{first} (and {} more; `bailiwick check` prints all)", count - 1),
    }
}

/// Sections whose values are read at start only.
fn needing_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let sections = [
        ("[listen] or [limits]", old.listen != new.listen || old.admin != new.admin || old.threads != new.threads),
        ("[resolver]", old.local != new.local),
        ("[tls]", old.tls != new.tls),
        ("[upstream]", old.upstream != new.upstream),
        ("[upstream], [cache] or [limits]", old.pipeline != new.pipeline),
        ("[cache]", old.cache != new.cache),
        ("[state] ledger", old.ledger != new.ledger),
    ];
    sections.into_iter().filter(|(_, changed)| *changed).map(|(section, _)| section).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::policy::index::Covers;
    use crate::policy::list::Format;
    use crate::policy::load::{ListSettings, Settings};
    use crate::policy::order::Effect;
    use crate::policy::origin::{Database, mmdb};
    use crate::policy::register::Register;

    const ORDER: &str = "id = 'x'\nissuer = 'Example Court'\njurisdiction = ['*']\nreceived = 2026-01-01T00:00:00Z\n\
                         state = 'in-force'\n[[target]]\nsubtree = ['a.example']\n";

    /// A folder with an order that is in force and a list that was read once, and the orders held.
    fn machine(folder: &Path) -> (Settings, Vec<LoadedOrder>) {
        fs::create_dir(folder.join("orders")).unwrap();
        fs::write(folder.join("orders/x.toml"), ORDER).unwrap();
        let file = folder.join("mine.txt");
        fs::write(&file, "a.example\n").unwrap();
        let (name, format, effect) = ("mine".to_owned(), Format::Domains, Effect::NxDomain);
        let lists = vec![ListSettings { name, file, format, covers: Covers::Subtree, effect }];
        let (orders, state) = (Some(folder.join("orders")), Some(folder.join("state")));
        let settings = Settings { orders, state, lists, ..Settings::default() };
        let held = load::load(&settings, &load::Before::default(), Timestamp::now()).orders;
        (settings, held)
    }

    /// What `/health` says after a reload, the folder left out.
    fn told(folder: &Path, settings: &Settings, held: &[LoadedOrder]) -> Vec<(&'static str, String)> {
        let health = Health::default();
        let before = load::Before { orders: held.to_vec(), ..load::Before::default() };
        tell_loaded(&health, &load::load(settings, &before, Timestamp::now()));
        let short = |reason: String| reason.replace(&format!("{}/", folder.display()), "");
        health.snapshot().degraded.into_iter().map(|each| (each.component, short(each.reason))).collect()
    }

    #[test]
    fn a_change_of_any_kind_shows_in_a_print() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("order.toml");
        let write = |text: &str| fs::write(&file, text).unwrap();
        let seen = || print(file.clone());
        let mut before = seen();
        let mut changed = |how: &str| {
            let now = seen();
            assert_ne!(now, before, "{how}");
            before = now;
        };
        write("one");
        changed("made");
        // The kernel's clock for files ticks some hundred times a second.
        std::thread::sleep(Duration::from_millis(20));
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        write("two");
        File::options().write(true).open(&file).unwrap().set_modified(written).unwrap();
        changed("written over, as `cp -p` does");
        std::thread::sleep(Duration::from_millis(20));
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        changed("made readable to others, or not");
        fs::remove_file(&file).unwrap();
        changed("removed");
    }

    #[test]
    fn health_says_what_is_carried_out() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, held) = machine(folder.path());
        let told = || told(folder.path(), &settings, &held);
        assert_eq!(told(), []);
        fs::write(folder.path().join("orders/x.toml"), ORDER.replace("a.example", "a..b")).unwrap();
        let pending = "orders/x.toml:7:12: \"a..b\" is not a name: empty label; its last good copy stands";
        assert_eq!(told(), [("orders", pending.to_owned())]);
        fs::create_dir(folder.path().join("orders/new.toml")).unwrap();
        let refused = "orders/new.toml: is not a file; this order is not carried out";
        assert_eq!(told(), [("orders", format!("{refused} | {pending}"))]);
        fs::write(folder.path().join("mine.txt"), "").unwrap();
        let list = "mine.txt: has no rule, and had some before; the list stays as it was";
        assert_eq!(told()[0], ("lists", list.to_owned()));
        fs::remove_dir_all(folder.path().join("orders")).unwrap();
        let (_, reason) = &told()[1];
        assert!(reason.ends_with("correct [policy] orders; the orders stay as they were"), "{reason}");
    }

    #[test]
    fn a_list_of_an_order_that_no_longer_counts_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, _) = machine(folder.path());
        let file = folder.path().join("listed.txt");
        fs::write(&file, "listed.example\n").unwrap();
        let list = format!("list = {{ file = '{}', format = 'domains', covers = 'exact' }}\n", file.display());
        fs::write(folder.path().join("orders/x.toml"), ORDER.to_owned() + &list).unwrap();
        let loaded = load::load(&settings, &load::Before::default(), Timestamp::now());
        assert_eq!(told(folder.path(), &settings, &loaded.orders), []);
        fs::write(&file, "").unwrap();
        let what = "orders/x.toml:8:1: its list listed.txt has no rule; an order's list names at least one name; its last \
                    good copy stands";
        assert_eq!(told(folder.path(), &settings, &loaded.orders), [("orders", what.to_owned())]);
        let loaded = load::load(&settings, &load::Before::default(), Timestamp::now());
        let policy = Policy::compile(&loaded, 1, Timestamp::now()).unwrap();
        let lines = policy.order_lines(&Register::default(), Timestamp::now());
        assert_eq!((lines[0].state, lines[0].pending.len()), ("pending", 1));
    }

    #[test]
    fn a_list_that_cannot_be_read_and_has_no_copy_is_not_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let (mut settings, held) = machine(folder.path());
        settings.state = None;
        fs::write(folder.path().join("mine.txt"), "<html>").unwrap();
        let reason = "mine.txt: is a web page, not a list; see where it is downloaded from; this list is not in use";
        assert_eq!(told(folder.path(), &settings, &held), [("lists", reason.to_owned())]);
    }

    #[test]
    fn a_database_that_cannot_be_used_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let (mut settings, held) = machine(folder.path());
        settings.origin.database = Some(folder.path().join("a.mmdb"));
        let told = || told(folder.path(), &settings, &held);
        fs::write(folder.path().join("a.mmdb"), "").unwrap();
        let what = "a.mmdb: is not a sound MaxMind DB file (invalid database: could not find MaxMind DB metadata in \
                    file); get it again";
        assert_eq!(told(), [("origin", format!("{what}; no database tells countries"))]);
        fs::write(folder.path().join("a.mmdb"), mmdb::countries(mmdb::Form::default(), "192.0.2.0/24 IT")).unwrap();
        assert_eq!(told(), []);
        fs::write(folder.path().join("a.mmdb"), "").unwrap();
        assert_eq!(told(), [("origin", format!("{what}; the database stays as it was"))]);
    }

    #[test]
    fn a_database_becomes_old_once() {
        let octets = mmdb::countries(mmdb::Form::default(), "192.0.2.0/24 IT");
        let database = LoadedDatabase::of(Path::new("a.mmdb"), Database::read(octets.into()).unwrap());
        let built = database.database.built().as_second();
        let at = |seconds| Timestamp::from_second(built + 45 * 86_400 + seconds).unwrap();
        let becomes_old = |before, now| becomes_old(&database, at(before), at(now)).is_some();
        assert_eq!([becomes_old(-1, 0), becomes_old(0, 1), becomes_old(1, 2)], [false, true, false]);
    }

    #[test]
    fn a_reason_is_bounded() {
        let mistakes: Vec<_> = (0..1_000).map(|number| Mistake::of_file(Path::new(&number.to_string()), "?")).collect();
        let twice = mistakes.iter().flat_map(|mistake| [mistake, mistake]);
        assert_eq!(
            fate(twice, "gone").unwrap(),
            "0: ?; gone | 1: ?; gone | 2: ?; gone | 997 more; gone; `bailiwick check` prints all"
        );
    }
}
