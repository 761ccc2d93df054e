//! What was valid before: the orders of the load before, and the copies on disk.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::copies::Copies;
use super::orders::{ORDER_OCTETS_MAX, parse};
use super::{Before, Fate, LoadedOrder, Settings};
use crate::policy::order::{Order, State};
use crate::policy::register::Register;

/// Stands for the keys by which an order was approved, where the register that had them is lost.
const NOT_REMEMBERED: &str = "not-remembered";

/// What was valid before.
pub(super) struct LastGood<'a> {
    folder: &'a Path,
    /// By the name of the file.
    pub(super) copies: Copies,
    /// Those that had their approvals, by the id of the order: whatever becomes of files, it is what is in force.
    approved: Copies,
    /// The orders of the load before, by the names of their files and by their ids.
    previous: HashMap<&'a OsStr, &'a LoadedOrder>,
    previous_by_id: HashMap<&'a str, &'a LoadedOrder>,
    register: &'a Register,
}

impl<'a> LastGood<'a> {
    pub(super) fn of(settings: &'a Settings, before: &'a Before) -> Self {
        let file_name = |loaded: &'a LoadedOrder| Some((loaded.order.file.file_name()?, loaded));
        // A file may have become another order's while an approved one still stands for it: the file's own counts.
        let is_copy = |loaded: &&LoadedOrder| loaded.fate == Fate::Copy;
        let (copies, own): (Vec<_>, Vec<_>) = before.orders.iter().partition(is_copy);
        Self {
            folder: settings.orders.as_deref().unwrap_or(Path::new("")),
            copies: Copies::within(settings.state.as_deref(), "orders"),
            approved: Copies::within(settings.state.as_deref(), "approved"),
            previous: copies.into_iter().chain(own).filter_map(file_name).collect(),
            previous_by_id: before.orders.iter().map(|loaded| (&loaded.order.id[..], loaded)).collect(),
            register: &before.register,
        }
    }

    /// The path of an order file.
    pub(super) fn path(&self, file_name: &OsStr) -> PathBuf {
        self.folder.join(file_name)
    }

    /// The names of the files that had a valid order, sorted.
    pub(super) fn file_names(&self) -> Vec<OsString> {
        let mut names = self.copies.keys();
        names.extend(self.previous.keys().map(|name| (*name).to_owned()));
        names.sort();
        names.dedup();
        names
    }

    /// Whether a file's order, of this id, was carried out until now: by the load before or, at a start, by the copies.
    pub(super) fn is_in_force(&self, file_name: &OsStr, id: &str) -> bool {
        let is_known = self.previous.is_empty() || self.previous.contains_key(file_name);
        is_known && self.order(file_name).is_some_and(|held| held.order.id == id)
    }

    /// The last valid order of a file: that of the load before, which is never older than the copy on disk.
    pub(super) fn order(&self, file_name: &OsStr) -> Option<LoadedOrder> {
        let file = self.path(file_name);
        if let Some(loaded) = self.previous.get(file_name) {
            let mut loaded = LoadedOrder::clone(loaded);
            loaded.order.file = file;
            return Some(loaded);
        }
        let octets = self.copies.read(file_name, ORDER_OCTETS_MAX)?;
        parse(&file, &octets).ok().map(|order| LoadedOrder::of(order, &octets))
    }

    /// An order of the load before.
    pub(super) fn previous(&self, id: &str) -> Option<&'a LoadedOrder> {
        self.previous_by_id.get(id).copied()
    }

    /// All of them.
    pub(super) fn previous_orders(&self) -> impl Iterator<Item = &'a LoadedOrder> {
        self.previous_by_id.values().copied()
    }

    /// The last copy of an order that had its approvals.
    pub(super) fn approved(&self, id: &str) -> Option<LoadedOrder> {
        let previous = self.previous_by_id.get(id).filter(|loaded| !loaded.approved_by.is_empty());
        previous.map(|loaded| LoadedOrder::clone(loaded)).or_else(|| self.approved_on_disk(id))
    }

    fn approved_on_disk(&self, id: &str) -> Option<LoadedOrder> {
        let octets = self.approved.read(OsStr::new(id), ORDER_OCTETS_MAX)?;
        let file = self.folder.join(format!("{id}.toml"));
        let mut loaded = LoadedOrder::of(parse(&file, &octets).ok()?, &octets);
        let remembered = self.register.orders.get(id).and_then(|record| record.approved.as_ref());
        let remembered = remembered.filter(|approval| approval.digest == loaded.digest);
        loaded.approved_by = remembered.map_or_else(|| vec![NOT_REMEMBERED.to_owned()], |approval| approval.by.clone());
        Some(loaded)
    }

    /// The ids of all orders that had their approvals, sorted.
    pub(super) fn approved_ids(&self) -> Vec<String> {
        let previous = self.previous_by_id.iter().filter(|(_, loaded)| !loaded.approved_by.is_empty());
        let mut ids: Vec<_> = previous.map(|(id, _)| (*id).to_owned()).collect();
        ids.extend(self.approved.keys().into_iter().filter_map(|key| key.into_string().ok()));
        ids.sort();
        ids.dedup();
        ids
    }

    /// Every order that had its approvals.
    pub(super) fn all_approved(&self) -> Vec<LoadedOrder> {
        self.approved_ids().iter().filter_map(|id| self.approved(id)).collect()
    }

    /// Whether the order of a file that says otherwise was lifted, and on which day (UTC) where that is known: by the
    /// register, or by its copies where the register is lost, or never came to be written.
    pub(super) fn lifted(&self, id: &str, file_name: &OsStr, octets: &[u8]) -> Option<Option<Date>> {
        let record = self.register.orders.get(id);
        if let Some(moment) = record.and_then(|record| record.lifted) {
            return Some(Some(moment.to_zoned(TimeZone::UTC).date()));
        }
        let is_lifted = |order: &Order| order.id == id && order.state == State::Lifted;
        if let Some(loaded) = self.previous_by_id.get(id) {
            return is_lifted(&loaded.order).then_some(None);
        }
        let copies =
            [self.copies.read(file_name, ORDER_OCTETS_MAX), self.approved.read(OsStr::new(id), ORDER_OCTETS_MAX)];
        // Most often the copy is what the file says: nothing to read twice.
        let mut others = copies.into_iter().flatten().filter(|copy| copy != octets);
        others.any(|copy| parse(file_name.as_ref(), &copy).is_ok_and(|order| is_lifted(&order))).then_some(None)
    }

    /// Keeps the octets of a file that counts.
    pub(super) fn keep(&mut self, file_name: &OsStr, id: &str, octets: &[u8], is_approved: bool) {
        self.copies.keep(file_name, octets);
        if is_approved {
            self.approved.keep(OsStr::new(id), octets);
        }
    }

    /// Forgets an order whose file is gone.
    pub(super) fn forget(&mut self, file_name: &OsStr, id: &str) {
        self.copies.remove(file_name);
        self.forget_approved(id);
    }

    /// Forgets that an order was approved.
    pub(super) fn forget_approved(&mut self, id: &str) {
        self.approved.remove(OsStr::new(id));
    }

    /// Why copies could not be kept.
    pub(super) fn into_warnings(self) -> Vec<String> {
        self.copies.into_warnings().into_iter().chain(self.approved.into_warnings()).collect()
    }
}
