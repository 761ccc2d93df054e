//! Reads the orders, lists and exemptions that the settings name, and keeps the last good copy of each.

mod approvals;
mod bulk;
mod copies;
mod database;
mod lastgood;
mod lists;
mod orders;
mod print;
mod reinstated;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod warnings;

pub use approvals::lists_without_digest;

pub(super) use copies::write as write_whole;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::index::Covers;
use super::list::Format;
use super::order::{Effect, Order, Target};
use super::origin;
use super::register::Register;
use crate::digest::Digest;
use crate::dns::Name;
use crate::dns::edns::SdeOption;
use crate::mistake::Mistake;
use crate::sign::PublicKey;
pub use bulk::{Bulk, Held};
pub use database::LoadedDatabase;
use lists::Desk;
pub use lists::Files;
pub use print::Print;

/// One of the operator's own lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListSettings {
    /// Its name, in answers and metrics.
    pub name: String,
    /// Where it is.
    pub file: PathBuf,
    /// How it is written.
    pub format: Format,
    /// What its names mean.
    pub covers: Covers,
    /// What a blocked client is answered.
    pub effect: Effect,
}

/// A person's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Whose it is: part of the file name of its signatures.
    pub name: String,
    /// What verifies them.
    pub public: PublicKey,
}

/// A name that the operator's lists may not block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exemption {
    /// The name and all below it.
    pub name: Name,
    /// Why.
    pub reason: String,
    /// From when it no longer holds.
    pub expires: Option<Timestamp>,
    /// The id of the one order that it beats.
    pub overrides_order: Option<String>,
    /// The configuration file, and the line of its name there.
    pub place: (PathBuf, u32),
}

impl Exemption {
    /// Whether it has not ended.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|end| now < end)
    }

    /// Whether it holds against the order of this id, which it does only where it names it.
    #[must_use]
    pub fn beats(&self, order: &str, now: Timestamp) -> bool {
        self.overrides_order.as_deref() == Some(order) && self.holds(now)
    }
}

/// `[policy]`, `[origin]` and the state folder, as the policy needs them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The folder of order files; None: no orders.
    pub orders: Option<PathBuf>,
    /// How many different keys must have signed an order's file; 0: none.
    pub approvals: usize,
    /// Whose signatures count, each under a name of its own.
    pub keys: Vec<Key>,
    /// Whether to add a bare EDE 17 last.
    pub hold_fallback: bool,
    /// The option that signals structured DNS errors; None: off.
    pub sde_option: SdeOption,
    /// The URL, ending in `/`, under which public orders have their pages here; None: our own name is not known.
    pub pages: Option<String>,
    /// In the order of the configuration.
    pub lists: Vec<ListSettings>,
    /// In the order of the configuration.
    pub exemptions: Vec<Exemption>,
    /// Where countries come from.
    pub origin: origin::Settings,
    /// Countries that listeners say of all their clients, whatever `origin` does. Nothing but warnings comes of them here.
    pub listeners: Vec<origin::Country>,
    /// Where last good copies are kept; None (`check`, `explain` without a server): they are read from nowhere and kept nowhere.
    pub state: Option<PathBuf>,
}

/// An order as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedOrder {
    /// The order in force: the file's, or the last good copy's where the file cannot be read.
    pub order: Order,
    /// Why the file as it is now does not count; empty where it does. Not empty: the order is shown as `pending`.
    pub pending: Vec<Mistake>,
    /// The octets that the order in force was read from.
    pub digest: Digest,
    /// The names of the keys by which they are approved, sorted; empty where they are not, or need no approval.
    pub approved_by: Vec<String>,
    /// What is carried out of its file.
    pub fate: Fate,
    /// How far the file as it is now has come; None: no approval is asked for.
    pub approvals: Option<Approvals>,
    /// [`Target::key`] of each target: it takes long where there are many names.
    pub target_keys: Vec<String>,
}

/// What is carried out of an order's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// What it says.
    #[default]
    AsWritten,
    /// Nothing, or not what it says now: it or one of its lists does not count, and the copy that last did stands for it.
    Copy,
    /// Nothing: it lacks approvals, and no copy had them before. The order is a draft.
    Draft,
    /// Nothing: the order was lifted, and nothing says that it is back.
    StaysLifted,
}

/// Who has signed an order's file as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Approvals {
    /// How many different keys.
    pub have: usize,
    /// How many it takes.
    pub need: usize,
    /// Their names, sorted.
    pub by: Vec<String>,
}

impl LoadedOrder {
    /// An order as its file has it, read from these octets.
    #[must_use]
    pub fn of(order: Order, octets: &[u8]) -> Self {
        let target_keys = order.targets.iter().map(Target::key).collect();
        Self::with(order, Digest::of(octets), target_keys)
    }

    /// The same, where it may be the order of the load before: its names need not be gone through again.
    fn like(order: Order, octets: &[u8], previous: Option<&Self>) -> Self {
        let digest = Digest::of(octets);
        let same = previous.filter(|previous| previous.digest == digest);
        let keys = same.map(|previous| previous.target_keys.clone());
        let target_keys = keys.unwrap_or_else(|| order.targets.iter().map(Target::key).collect());
        Self::with(order, digest, target_keys)
    }

    fn with(order: Order, digest: Digest, target_keys: Vec<String>) -> Self {
        let (pending, approved_by, fate) = (Vec::new(), Vec::new(), Fate::AsWritten);
        Self { order, pending, digest, approved_by, fate, approvals: None, target_keys }
    }
}

/// A list as it was found.
#[derive(Debug, Clone)]
pub struct LoadedList {
    /// As configured.
    pub settings: ListSettings,
    /// The octets read: the file's, or those of the last good copy; empty where the file has not changed since the load
    /// before and nothing was read.
    pub octets: Bytes,
    /// Why the file as it is now does not count.
    pub pending: Vec<Mistake>,
    /// What was made of it.
    pub held: Held,
}

/// Everything the policy is compiled from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// As they were given.
    pub settings: Settings,
    /// By file name.
    pub orders: Vec<LoadedOrder>,
    /// In the order of the configuration.
    pub lists: Vec<LoadedList>,
    /// What tells countries beside the settings; None: none is configured, or it is among [`Self::refused`].
    pub database: Option<LoadedDatabase>,
    /// The names of lists and of list targets, compiled.
    pub bulk: Bulk,
    /// The files of list targets, of orders that are pending or refused too: a load depends on them.
    pub files: Vec<PathBuf>,
    /// The names of order files that are gone and were there at the load before: their orders stay until another load
    /// finds them gone too.
    pub gone: BTreeSet<OsString>,
    /// What an operator should know and nothing depends on: a vanished order, faults in a list, an order for a country
    /// that no source of origin tells, what an exemption does to an order, a database that has become old.
    pub warnings: Vec<String>,
    /// The mistakes of orders, lists and a database that cannot be read and have no valid copy, and of an orders folder
    /// that cannot be read. Whatever could be read is in [`Self::orders`] and [`Self::lists`] all the same: a start-up fails if
    /// there are any, a reload goes on with the rest and reports them.
    pub refused: Vec<Mistake>,
}

/// What is known from before a load.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// The orders of the load before, none at start-up: they stand in for the copies, so that a full disk or a missing
    /// state folder lifts no order.
    pub orders: Vec<LoadedOrder>,
    /// The database of the load before, none at start-up: it is not read again where its file is as it was.
    pub database: Option<LoadedDatabase>,
    /// Which orders were lifted, and which approved.
    pub register: Register,
    /// The names of lists: those whose files have not changed since are neither read nor compiled again.
    pub bulk: Bulk,
    /// Whether the operator's lists that are compiled stand as they are, whatever their files are now: [`lists`] reads
    /// those apart, so that no order waits for them. One of which nothing is compiled yet is read all the same.
    pub lists_stand: bool,
    /// The names of order files that the load before found gone; None: whichever is gone now lifts its order at once.
    pub gone: Option<BTreeSet<OsString>>,
}

impl Before {
    /// What a state folder knows, for whoever is not its server: the register, and the orders that have their approvals.
    /// Nothing is written. The text is a warning.
    #[must_use]
    pub fn on_disk(settings: &Settings) -> (Self, Option<String>) {
        let (register, warning) = settings.state.as_deref().map(Register::read).unwrap_or_default();
        let mut before = Self { register, ..Self::default() };
        if settings.approvals > 0 {
            before.orders = lastgood::LastGood::of(settings, &before).all_approved();
        }
        (before, warning)
    }
}

/// Reads everything; `now` tells which orders are in force. A valid file's last good copy is kept under the state
/// folder, a file that cannot be read is replaced by its copy, and a vanished file's copy is removed.
#[must_use]
pub fn load(settings: &Settings, before: &Before, now: Timestamp) -> Loaded {
    let mut report = Report::default();
    let database = database::load(settings, before.database.as_ref(), &mut report);
    let mut desk = Desk::new(settings.state.as_deref(), &before.bulk);
    desk.lists_stand = before.lists_stand;
    let (orders, gone) = orders::load(settings, before, &mut desk, now, &mut report);
    Loaded { gone, ..gather(settings, orders, database, desk, report, now) }
}

/// Reads the operator's lists alone and compiles those that have changed, which may take long: a load to which this is
/// handed as what was before puts them in force at once. Their last good copies are kept if `may_keep`, asked for each
/// when all are compiled, says so. The text is a warning.
#[must_use]
pub fn lists(settings: &Settings, before: &Bulk, may_keep: impl Fn() -> bool) -> (Bulk, Option<String>) {
    Desk::new(settings.state.as_deref(), before).lists_alone(&settings.lists, may_keep)
}

/// The same of orders and files in hand: nothing is read from disk, nor kept there.
#[must_use]
pub fn load_in_hand(settings: &Settings, orders: Vec<LoadedOrder>, files: &Files, now: Timestamp) -> Loaded {
    gather(settings, orders, None, Desk::with(files, &Bulk::default()), Report::default(), now)
}

/// Brings orders and lists together, with what there is to warn of.
fn gather(
    settings: &Settings,
    mut orders: Vec<LoadedOrder>,
    database: Option<LoadedDatabase>,
    desk: Desk<'_>,
    mut report: Report,
    now: Timestamp,
) -> Loaded {
    let (lists, bulk, files) = desk.finish(&settings.lists, &mut orders, &mut report);
    let Report { mut warnings, refused } = report;
    let held: Vec<_> = orders.iter().map(|loaded| &loaded.order).collect();
    warnings.extend(warnings::of_exemptions(settings, &held, &bulk, now));
    warnings.extend(warnings::of_origin(settings, &held, now));
    warnings.extend(database.as_ref().and_then(|database| database.warning(now)));
    let (settings, gone) = (settings.clone(), BTreeSet::new());
    Loaded { settings, orders, lists, bulk, files, gone, database, warnings, refused }
}

/// What is found out on the way.
#[derive(Default)]
struct Report {
    warnings: Vec<String>,
    refused: Vec<Mistake>,
}

impl Report {
    /// Each mistake once: that of the folder stands for all its files.
    fn refuse(&mut self, mistakes: Vec<Mistake>) {
        for mistake in mistakes {
            if !self.refused.contains(&mistake) {
                self.refused.push(mistake);
            }
        }
    }
}

/// Reads a file, or says why it cannot be read.
pub(super) fn read_file(path: &Path, octets_max: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let too_large = || format!("is larger than {} MiB; split it", octets_max >> 20);
    let metadata = fs::metadata(path).map_err(unreadable)?;
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    // Before any of it is in memory; and it may grow while it is read.
    if metadata.len() > octets_max {
        return Err(too_large());
    }
    let mut octets = Vec::with_capacity(metadata.len() as usize);
    File::open(path).and_then(|file| file.take(octets_max + 1).read_to_end(&mut octets)).map_err(unreadable)?;
    if octets.len() as u64 > octets_max { Err(too_large()) } else { Ok(octets) }
}
