//! Reads the operator's lists; one that cannot be read, or was emptied, stays what its last good copy says.

use std::ffi::{OsStr, OsString};

use super::copies::Copies;
use super::{ListSettings, LoadedList, Report, Settings, read_file};
use crate::mistake::Mistake;
use crate::policy::list::{self, Fault, Format};

/// The largest list file that is read, in octets: a few times the largest public list there is.
const LIST_OCTETS_MAX: u64 = 256 << 20;

/// How many of a list's faults are shown; the rest are counted.
const FAULTS_SHOWN_MAX: usize = 3;

/// Every list, in the order of the configuration, and each that cannot be read as a mistake.
pub(super) fn load(settings: &Settings, report: &mut Report) -> Vec<LoadedList> {
    let mut copies = Copies::within(settings.state.as_deref(), "lists");
    let keys: Vec<OsString> = settings.lists.iter().map(list_key).collect();
    for key in copies.keys().into_iter().filter(|key| !keys.contains(key)) {
        copies.remove(&key);
    }
    let lists = settings.lists.iter().filter_map(|list| load_list(list, &mut copies, report)).collect();
    report.warnings.extend(copies.into_warnings());
    lists
}

/// The key of a list's copy. The format is part of it: what was written in one is not read in another.
fn list_key(list: &ListSettings) -> OsString {
    let format = match list.format {
        Format::Domains => "domains",
        Format::Hosts => "hosts",
    };
    format!("{}.{format}", list.name).into()
}

fn load_list(settings: &ListSettings, copies: &mut Copies, report: &mut Report) -> Option<LoadedList> {
    let key = list_key(settings);
    let loaded = |octets: Vec<u8>, pending| LoadedList { settings: settings.clone(), octets: octets.into(), pending };
    let read = match read_list(settings) {
        Ok((octets, counts)) if counts.rules > 0 => {
            copies.keep(&key, &octets);
            warn_of_faults(settings, &counts, report);
            return Some(loaded(octets, Vec::new()));
        }
        read => read,
    };
    let pending = |what: &str| vec![Mistake::of_file(&settings.file, what)];
    match (read, copied_list(settings, &key, copies)) {
        // It never had a rule, and an empty list is what its operator may want.
        (Ok((octets, counts)), None) => {
            report.warnings.push(format!("list {}: {} has no rule", settings.name, settings.file.display()));
            warn_of_faults(settings, &counts, report);
            Some(loaded(octets, Vec::new()))
        }
        (Ok(_), Some(copy)) => Some(loaded(copy, pending(EMPTIED))),
        (Err(what), Some(copy)) => Some(loaded(copy, pending(&what))),
        (Err(what), None) => {
            report.refuse(pending(&what));
            None
        }
    }
}

/// The mistake of a list that a failed download emptied.
pub(super) const EMPTIED: &str = "has no rule, and had some before";

/// How many rules and faults a list has, and the first faults.
#[derive(Default)]
struct Counts {
    rules: usize,
    faults: usize,
    first: Vec<Fault>,
}

fn read_list(settings: &ListSettings) -> Result<(Vec<u8>, Counts), String> {
    let octets = read_file(&settings.file, LIST_OCTETS_MAX)?;
    if let Some(what) = list::why_no_list(&octets) {
        return Err(what.to_owned());
    }
    let counts = count(settings.format, &octets);
    Ok((octets, counts))
}

fn count(format: Format, octets: &[u8]) -> Counts {
    let mut rules = 0;
    let mut counts = Counts::default();
    let fault = |fault| {
        counts.faults += 1;
        if counts.first.len() < FAULTS_SHOWN_MAX {
            counts.first.push(fault);
        }
    };
    list::read(format, octets, |_, _| rules += 1, fault);
    Counts { rules, ..counts }
}

/// The last good copy of a list, if it is one still.
fn copied_list(settings: &ListSettings, key: &OsStr, copies: &Copies) -> Option<Vec<u8>> {
    copies.read(key, LIST_OCTETS_MAX).filter(|octets| count(settings.format, octets).rules > 0)
}

/// Warns of the lines that cannot be read; the others are loaded.
fn warn_of_faults(settings: &ListSettings, counts: &Counts, report: &mut Report) {
    if counts.faults == 0 {
        return;
    }
    let lines = if counts.faults == 1 { "1 fault".to_owned() } else { format!("{} faults", counts.faults) };
    let first: Vec<String> = counts.first.iter().map(|fault| at_fault(settings, fault)).collect();
    report.warnings.push(format!("list {}: {lines}, the first at {}", settings.name, first.join(" | ")));
}

fn at_fault(settings: &ListSettings, fault: &Fault) -> String {
    format!("{}:{}:{}: {}", settings.file.display(), fault.line, fault.column, fault.what)
}
