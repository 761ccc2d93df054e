//! Reads the folder of orders; a file that cannot be read, or is not approved, stays what its last good copy says.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use toml::de::DeTable;

use super::approvals::Approver;
use super::lastgood::LastGood;
use super::lists::Desk as Lists;
use super::{Before, Fate, LoadedOrder, Report, Settings, read_file, reinstated};
use crate::mistake::Mistake;
use crate::policy::order::{Order, Standing, State};
use crate::sign;

/// The largest order file that is read, in octets: a hundred thousand names. TOML takes a hundred times as much memory
/// where an attacker writes it.
pub(super) const ORDER_OCTETS_MAX: u64 = 4 << 20;

/// The most files in the folder of orders, signatures and whatever else lies there included.
const FILES_MAX: usize = 200_000;

/// Every order, by file name, and each file that cannot be read as a mistake. Beside them the names of the files that
/// are gone for the first time: their orders are as they were.
pub(super) fn load(
    settings: &Settings,
    before: &Before,
    lists: &mut Lists<'_>,
    now: Timestamp,
    report: &mut Report,
) -> (Vec<LoadedOrder>, BTreeSet<OsString>) {
    let mut last_good = LastGood::of(settings, before);
    let folder = find(settings, &last_good, report);
    let approver = Approver::new(settings, &before.register, &folder.signatures);
    let mut found = folder.files;
    approver.refuse_lists_without_digest(&mut found);
    found.iter_mut().for_each(|file| file.demand_lists(lists));
    let mut ids = refuse_second_ids(&mut found, &last_good);
    let (held, gone) = hold_first_gone(&found, &mut ids, &last_good, before);
    lift_vanished(&mut found, &held, &ids, &mut last_good, approver.asks(), now, report);
    let mut desk = Desk { approver, last_good, ids: &mut ids, report };
    let mut orders: Vec<_> = found.into_iter().filter_map(|file| desk.settle(file)).chain(held).collect();
    if folder.is_readable {
        desk.settle_missing(&mut orders, now);
    }
    orders.sort_by(|one, other| (&one.order.file, &one.order.id).cmp(&(&other.order.file, &other.order.id)));
    let Desk { last_good, report, .. } = desk;
    report.warnings.extend(last_good.into_warnings());
    (orders, gone)
}

/// What is in the folder of orders.
struct Folder {
    /// By name.
    files: Vec<Found>,
    /// The names of signatures' files.
    signatures: BTreeSet<OsString>,
    /// Whether it could be read: what is not in it is gone.
    is_readable: bool,
}

/// An order file and what became of reading it.
pub(super) struct Found {
    /// Its name in the folder, which is also the key of its copy.
    pub(super) file_name: OsString,
    pub(super) order: Result<(Order, Vec<u8>), Vec<Mistake>>,
}

impl Found {
    /// An order whose list cannot be had is no order: what was valid before stays.
    fn demand_lists(&mut self, lists: &mut Lists<'_>) {
        if let Ok((order, _)) = &self.order
            && let Err(mistakes) = lists.demand(order)
        {
            self.order = Err(mistakes);
        }
    }
}

/// Reads every order file, by file name. Where the folder itself cannot be read, each order that was good before stands
/// for a file that cannot be read: a folder that is not mounted lifts no order. Nor does the empty one that then stands
/// in its place.
fn find(settings: &Settings, last_good: &LastGood, report: &mut Report) -> Folder {
    let Some(folder) = settings.orders.as_deref() else {
        return Folder { files: Vec::new(), signatures: BTreeSet::new(), is_readable: true };
    };
    let what = match order_files(folder) {
        Ok((names, _)) if names.is_empty() && is_stand_in(folder, last_good) => STAND_IN.to_owned(),
        Ok((names, signatures)) => {
            if !names.is_empty() {
                last_good.copies.note_read_from(folder);
            }
            let files = names.into_iter().map(|name| read(folder, name)).collect();
            return Folder { files, signatures, is_readable: true };
        }
        Err(error) => format!("the folder of orders cannot be read ({error}); make it, or correct [policy] orders"),
    };
    let mistakes = vec![Mistake::of_file(folder, what)];
    report.refuse(mistakes.clone());
    let names = last_good.file_names().into_iter();
    let files = names.map(|file_name| Found { file_name, order: Err(mistakes.clone()) }).collect();
    Folder { files, signatures: BTreeSet::new(), is_readable: false }
}

/// The mistake of an empty folder that is not the one in which the orders were.
const STAND_IN: &str = "the folder of orders is empty and not the one that they were in, which lifts nothing; \
                        mount that one, or put any file into this one";

/// Whether a folder is empty to the last file, and another than the orders were read from.
fn is_stand_in(folder: &Path, last_good: &LastGood) -> bool {
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    last_good.copies.were_read_from_another(folder) && is_empty() && !last_good.file_names().is_empty()
}

/// The names of the order files in a folder, sorted, and those of signatures. Dot-files, editors' backups and whatever
/// else does not end in `.toml` are not order files.
fn order_files(folder: &Path) -> io::Result<(Vec<OsString>, BTreeSet<OsString>)> {
    let (mut orders, mut signatures) = (Vec::new(), BTreeSet::new());
    for (count, entry) in fs::read_dir(folder)?.enumerate() {
        if count == FILES_MAX {
            return Err(io::Error::other(format!("it holds more than {FILES_MAX} files")));
        }
        let name = entry?.file_name();
        if is_order_file(&name) {
            orders.push(name);
        } else if name.as_encoded_bytes().ends_with(sign::ENDING.as_bytes()) {
            signatures.insert(name);
        }
    }
    orders.sort();
    Ok((orders, signatures))
}

fn is_order_file(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}

fn read(folder: &Path, file_name: OsString) -> Found {
    let path = folder.join(&file_name);
    let octets = read_file(&path, ORDER_OCTETS_MAX).map_err(|what| vec![Mistake::of_file(&path, what)]);
    Found { file_name, order: octets.and_then(|octets| Ok((parse(&path, &octets)?, octets))) }
}

pub(super) fn parse(path: &Path, octets: &[u8]) -> Result<Order, Vec<Mistake>> {
    match str::from_utf8(octets) {
        Ok(text) => Order::read(path, text),
        Err(error) => {
            let valid = String::from_utf8_lossy(&octets[..error.valid_up_to()]);
            let what = "not UTF-8; save the file in that encoding";
            Err(vec![Mistake::at(path, &valid, valid.len()..valid.len(), what)])
        }
    }
}

/// The ids that are taken, and by which file. Of several files with one id, the one that is in force keeps it, else the
/// first; the others become mistakes.
fn refuse_second_ids(found: &mut [Found], last_good: &LastGood) -> HashMap<String, PathBuf> {
    let mut claims: HashMap<String, Vec<usize>> = HashMap::new();
    for (number, file) in found.iter().enumerate() {
        if let Ok((order, _)) = &file.order {
            claims.entry(order.id.clone()).or_default().push(number);
        }
    }
    claims.into_iter().map(|(id, claimants)| settle_claim(id, &claimants, found, last_good)).collect()
}

/// An id and the file that has it; every other claimant is refused. There is one claimant at least.
fn settle_claim(id: String, claimants: &[usize], found: &mut [Found], last_good: &LastGood) -> (String, PathBuf) {
    let is_held = |number: &&usize| claimants.len() > 1 && last_good.is_in_force(&found[**number].file_name, &id);
    let held = claimants.iter().find(is_held).copied();
    let keeper = held.unwrap_or(claimants[0]);
    let file_name = found[keeper].file_name.clone();
    for &number in claimants.iter().filter(|number| **number != keeper) {
        let file = &mut found[number];
        if let Ok((order, octets)) = &file.order {
            file.order = Err(vec![second_id(order, octets, &file_name, held.is_some())]);
        }
    }
    (id, last_good.path(&file_name))
}

fn second_id(order: &Order, octets: &[u8], keeper: &OsStr, is_held: bool) -> Mistake {
    let keeper = keeper.display();
    let what = if is_held {
        format!("id is already that of {keeper}, which stays in force; give this order an id of its own")
    } else {
        format!("id is already that of {keeper}; give one of them an id of its own")
    };
    match place_of_id(octets) {
        Some((text, span)) => Mistake::at(&order.file, text, span, what),
        None => Mistake::of_file(&order.file, what),
    }
}

/// The text of an order file, and where in it its id stands.
fn place_of_id(octets: &[u8]) -> Option<(&str, Range<usize>)> {
    place_of(octets, |table| Some(table.get("id")?.span()))
}

/// The text of an order file, and a place in it.
pub(super) fn place_of(
    octets: &[u8],
    find: impl FnOnce(&DeTable<'_>) -> Option<Range<usize>>,
) -> Option<(&str, Range<usize>)> {
    let text = str::from_utf8(octets).ok()?;
    let table = DeTable::parse(text).ok()?;
    Some((text, find(table.get_ref())?))
}

/// The orders whose files are gone since the load before, as they were, and the names of those files. What replaces a
/// file by removing it first must not lift its order: two loads in a row have to find it gone.
fn hold_first_gone(
    found: &[Found],
    ids: &mut HashMap<String, PathBuf>,
    last_good: &LastGood,
    before: &Before,
) -> (Vec<LoadedOrder>, BTreeSet<OsString>) {
    let Some(known) = &before.gone else { return Default::default() };
    let here: HashSet<&OsString> = found.iter().map(|file| &file.file_name).collect();
    let (mut held, mut gone) = (Vec::new(), BTreeSet::new());
    for loaded in last_good.previous_orders().filter(|loaded| !ids.contains_key(&loaded.order.id)) {
        let name = loaded.order.file.file_name().map(OsStr::to_owned);
        let Some(name) = name.filter(|name| !here.contains(name)) else { continue };
        if !known.contains(&name) {
            held.push(loaded.clone());
        }
        gone.insert(name);
    }
    ids.extend(held.iter().map(|loaded| (loaded.order.id.clone(), loaded.order.file.clone())));
    (held, gone)
}

/// Lifts the orders whose files are gone: the copy of each is removed, with a warning unless another file has its id.
/// Where approvals are asked for, an approved order that is not over stays: its file is as one that cannot be read.
fn lift_vanished(
    found: &mut Vec<Found>,
    held: &[LoadedOrder],
    ids: &HashMap<String, PathBuf>,
    last_good: &mut LastGood,
    asks: bool,
    now: Timestamp,
    report: &mut Report,
) {
    let held = held.iter().filter_map(|loaded| Some(loaded.order.file.file_name()?.to_owned()));
    let here: HashSet<OsString> = found.iter().map(|file| file.file_name.clone()).chain(held).collect();
    for file_name in last_good.file_names().into_iter().filter(|name| !here.contains(name)) {
        let Some(order) = last_good.order(&file_name).filter(|held| !ids.contains_key(&held.order.id)) else {
            last_good.copies.remove(&file_name);
            continue;
        };
        let Order { file, id, .. } = &order.order;
        if asks && last_good.approved(id).is_some_and(|approved| !is_over(&approved.order, now)) {
            let mistakes = vec![gone(file)];
            found.push(Found { file_name, order: Err(mistakes) });
            continue;
        }
        report.warnings.push(format!("{}: the file is gone; its order {id} is lifted", file.display()));
        last_good.forget(&file_name, id);
    }
}

fn gone(file: &Path) -> Mistake {
    let what = "the file is gone, which lifts nothing where approvals are asked for; \
                put it back, or sign one whose state is \"lifted\"";
    Mistake::of_file(file, what)
}

/// Whether there is nothing left of an order to lift.
fn is_over(order: &Order, now: Timestamp) -> bool {
    matches!(order.standing(now), Standing::Lifted | Standing::Expired)
}

/// Decides what is carried out of each file.
struct Desk<'a> {
    approver: Approver<'a>,
    last_good: LastGood<'a>,
    /// The ids that are taken, and by which file.
    ids: &'a mut HashMap<String, PathBuf>,
    report: &'a mut Report,
}

impl Desk<'_> {
    /// The order to carry out for a file: its own, which is then kept, or the last good one, or none.
    fn settle(&mut self, file: Found) -> Option<LoadedOrder> {
        match file.order {
            Ok((order, octets)) => Some(self.settle_valid(&file.file_name, order, &octets)),
            Err(mistakes) => self.settle_mistaken(&file.file_name, mistakes),
        }
    }

    fn settle_valid(&mut self, file_name: &OsStr, order: Order, octets: &[u8]) -> LoadedOrder {
        let lifted =
            if order.state == State::Lifted { None } else { self.last_good.lifted(&order.id, file_name, octets) };
        let stays_lifted = lifted.and_then(|lifted| reinstated::mistake(&order, octets, lifted));
        let held = self.approver.asks().then(|| self.last_good.approved(&order.id)).flatten();
        let judged = self.approver.judge(&order, octets, held.as_ref());
        let approvals = judged.approvals;
        let mut pending: Vec<Mistake> = stays_lifted.into_iter().collect();
        let stays_lifted = !pending.is_empty();
        pending.extend(judged.lacking);
        let path = order.file.clone();
        let previous = self.last_good.previous(&order.id);
        let loaded = if stays_lifted {
            let copy = self.last_good.order(file_name).filter(|copy| copy.order.id == order.id);
            let lifted = copy.filter(|copy| copy.order.state == State::Lifted);
            let as_written = || LoadedOrder::like(Order { state: State::Lifted, ..order }, octets, previous);
            LoadedOrder { fate: Fate::StaysLifted, pending, ..lifted.unwrap_or_else(as_written) }
        } else if pending.is_empty() {
            self.last_good.keep(file_name, &order.id, octets, !judged.by.is_empty());
            LoadedOrder { approved_by: judged.by, ..LoadedOrder::like(order, octets, previous) }
        } else if let Some(held) = held {
            LoadedOrder { fate: Fate::Copy, pending, ..held }
        } else {
            let draft = Order { state: State::Draft, ..order };
            LoadedOrder { fate: Fate::Draft, pending, ..LoadedOrder::like(draft, octets, previous) }
        };
        let order = Order { file: path, ..loaded.order };
        LoadedOrder { order, approvals, ..loaded }
    }

    /// The last good order does not count beside a valid file of the same id: the order was moved there.
    fn settle_mistaken(&mut self, file_name: &OsStr, pending: Vec<Mistake>) -> Option<LoadedOrder> {
        let held = self.last_good.order(file_name).filter(|held| !self.ids.contains_key(&held.order.id));
        let Some(held) = held else {
            self.report.refuse(pending);
            return None;
        };
        let file = held.order.file.clone();
        self.ids.insert(held.order.id.clone(), file.clone());
        let held = if self.approver.asks() { self.as_approved(held) } else { held };
        let fate = if held.fate == Fate::AsWritten { Fate::Copy } else { held.fate };
        Some(LoadedOrder { pending, fate, order: Order { file, ..held.order }, ..held })
    }

    /// The copy that had the approvals, in place of one that may not have them. Of one that never had, a draft.
    fn as_approved(&self, held: LoadedOrder) -> LoadedOrder {
        let approvals = None;
        match self.last_good.approved(&held.order.id) {
            Some(approved) => LoadedOrder { approvals, ..approved },
            None if matches!(held.order.state, State::Lifted | State::Suspended) => LoadedOrder { approvals, ..held },
            None => {
                let order = Order { state: State::Draft, ..held.order };
                LoadedOrder { order, fate: Fate::Draft, approvals, ..held }
            }
        }
    }

    /// Approved orders that no file stands for any more. They stay where approvals are asked for; their copies go
    /// where not, so that they cannot come back.
    fn settle_missing(&mut self, orders: &mut Vec<LoadedOrder>, now: Timestamp) {
        let here: HashSet<String> = orders.iter().map(|loaded| loaded.order.id.clone()).collect();
        for id in self.last_good.approved_ids().into_iter().filter(|id| !here.contains(id)) {
            let Some(held) = self.last_good.approved(&id) else { continue };
            if !self.approver.asks() || is_over(&held.order, now) {
                self.last_good.forget_approved(&held.order.id);
            } else {
                let pending = vec![gone(&held.order.file)];
                orders.push(LoadedOrder { fate: Fate::Copy, pending, approvals: None, ..held });
            }
        }
    }
}
