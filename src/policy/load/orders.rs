//! Reads the folder of orders; a file that cannot be read stays what its last good copy says.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::copies::Copies;
use super::lists::Desk;
use super::{Before, LoadedOrder, Report, Settings, read_file};
use crate::mistake::Mistake;
use crate::policy::order::Order;

/// The largest order file that is read, in octets: a hundred thousand names. TOML takes a hundred times as much memory
/// where an attacker writes it.
pub(super) const ORDER_OCTETS_MAX: u64 = 4 << 20;

/// Every order, by file name, and each file that cannot be read as a mistake.
pub(super) fn load(settings: &Settings, before: &Before, desk: &mut Desk<'_>, report: &mut Report) -> Vec<LoadedOrder> {
    let folder = settings.orders.as_deref().unwrap_or(Path::new(""));
    let copies = Copies::within(settings.state.as_deref(), "orders");
    let mut last_good = LastGood { folder, copies, previous: &before.orders };
    let mut found = settings.orders.as_deref().map_or(Vec::new(), |folder| find(folder, &last_good, report));
    found.iter_mut().for_each(|file| file.demand_lists(desk));
    let mut ids = refuse_second_ids(&mut found, &last_good);
    lift_vanished(&found, &ids, &mut last_good, report);
    let orders = found.into_iter().filter_map(|file| settle(file, &mut ids, &mut last_good, report)).collect();
    report.warnings.extend(last_good.copies.into_warnings());
    orders
}

/// An order file and what became of reading it.
struct Found {
    /// Its name in the folder, which is also the key of its copy.
    file_name: OsString,
    order: Result<(Order, Vec<u8>), Vec<Mistake>>,
}

impl Found {
    /// An order whose list cannot be had is no order: what was valid before stays.
    fn demand_lists(&mut self, desk: &mut Desk<'_>) {
        if let Ok((order, _)) = &self.order
            && let Err(mistakes) = desk.demand(order)
        {
            self.order = Err(mistakes);
        }
    }
}

/// Reads every order file, by file name. Where the folder itself cannot be read, each order that was good before stands
/// for a file that cannot be read: a folder that is not mounted lifts no order.
fn find(folder: &Path, last_good: &LastGood, report: &mut Report) -> Vec<Found> {
    let error = match order_files(folder) {
        Ok(names) => return names.into_iter().map(|name| read(folder, name)).collect(),
        Err(error) => error,
    };
    let what = format!("the folder of orders cannot be read ({error}); make it, or correct [policy] orders");
    let mistakes = vec![Mistake::of_file(folder, what)];
    report.refuse(mistakes.clone());
    let names = last_good.file_names().into_iter();
    names.map(|file_name| Found { file_name, order: Err(mistakes.clone()) }).collect()
}

/// The names of the order files in a folder, sorted. Dot-files, editors' backups and whatever else does not end in
/// `.toml` are not order files.
fn order_files(folder: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<io::Result<Vec<OsString>>>()?;
    names.retain(|name| is_order_file(name));
    names.sort();
    Ok(names)
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

fn parse(path: &Path, octets: &[u8]) -> Result<Order, Vec<Mistake>> {
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
    (id, last_good.folder.join(file_name))
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
    let text = str::from_utf8(octets).ok()?;
    let table = DeTable::parse(text).ok()?;
    Some((text, table.get_ref().get("id")?.span()))
}

/// Lifts the orders whose files are gone: the copy of each is removed, with a warning unless another file has its id.
fn lift_vanished(found: &[Found], ids: &HashMap<String, PathBuf>, last_good: &mut LastGood, report: &mut Report) {
    let is_found = |name: &OsString| found.binary_search_by(|file| file.file_name.cmp(name)).is_ok();
    for file_name in last_good.file_names().into_iter().filter(|name| !is_found(name)) {
        if let Some(order) = last_good.order(&file_name).filter(|held| !ids.contains_key(&held.order.id)) {
            let Order { file, id, .. } = &order.order;
            report.warnings.push(format!("{}: the file is gone; its order {id} is lifted", file.display()));
        }
        last_good.copies.remove(&file_name);
    }
}

/// The order to carry out for a file: its own, which is then kept, or the last good one, or none. The last good one
/// does not count beside a valid file of the same id: the order was moved there.
fn settle(
    file: Found,
    ids: &mut HashMap<String, PathBuf>,
    last_good: &mut LastGood,
    report: &mut Report,
) -> Option<LoadedOrder> {
    let pending = match file.order {
        Ok((order, octets)) => {
            last_good.copies.keep(&file.file_name, &octets);
            return Some(LoadedOrder::of(order, &octets));
        }
        Err(mistakes) => mistakes,
    };
    let Some(order) = last_good.order(&file.file_name).filter(|held| !ids.contains_key(&held.order.id)) else {
        report.refuse(pending);
        return None;
    };
    ids.insert(order.order.id.clone(), order.order.file.clone());
    Some(LoadedOrder { pending, ..order })
}

/// What was valid before: the orders of the load before, and the copies on disk.
struct LastGood<'a> {
    folder: &'a Path,
    copies: Copies,
    previous: &'a [LoadedOrder],
}

impl LastGood<'_> {
    /// The names of the files that had a valid order, sorted.
    fn file_names(&self) -> Vec<OsString> {
        let previous = self.previous.iter().filter_map(|loaded| loaded.order.file.file_name());
        let mut names = self.copies.keys();
        names.extend(previous.map(OsStr::to_owned));
        names.sort();
        names.dedup();
        names
    }

    /// Whether a file's order, of this id, was carried out until now: by the load before or, at a start, by the copies.
    fn is_in_force(&self, file_name: &OsStr, id: &str) -> bool {
        let of_file = |loaded: &LoadedOrder| loaded.order.file.file_name() == Some(file_name);
        let is_known = self.previous.is_empty() || self.previous.iter().any(of_file);
        is_known && self.order(file_name).is_some_and(|held| held.order.id == id)
    }

    /// The last valid order of a file: that of the load before, which is never older than the copy on disk.
    fn order(&self, file_name: &OsStr) -> Option<LoadedOrder> {
        let file = self.folder.join(file_name);
        if let Some(loaded) = self.previous.iter().find(|loaded| loaded.order.file.file_name() == Some(file_name)) {
            let mut loaded = loaded.clone();
            loaded.order.file = file;
            return Some(loaded);
        }
        let octets = self.copies.read(file_name, ORDER_OCTETS_MAX)?;
        parse(&file, &octets).ok().map(|order| LoadedOrder::of(order, &octets))
    }
}
