//! Reads the database of `[origin]` when it has changed; one that cannot be used stays what its last good copy says.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copies::Copies;
use super::print::Print;
use super::{Report, Settings, read_file};
use crate::digest::Digest;
use crate::mistake::Mistake;
use crate::policy::origin::Database;

/// The largest database that is read, in octets: twice the largest that is common, one of cities.
const DATABASE_OCTETS_MAX: u64 = 256 << 20;

/// The key of its copy, whatever the file is called.
const KEY: &str = "database.mmdb";

/// The database in use.
#[derive(Debug, Clone)]
pub struct LoadedDatabase {
    /// The file that it is configured to come from.
    pub file: PathBuf,
    /// What was read: from the file or, where that cannot be used, from it before or its last good copy.
    pub database: Arc<Database>,
    /// Of the octets that it was read from.
    pub digest: Digest,
    /// Why the file as it is now does not count; empty where it does.
    pub pending: Vec<Mistake>,
    /// The file as it was when it was read, to no effect perhaps; None: it could not be read.
    seen: Option<Print>,
    /// Its copy is on the disk.
    is_kept: bool,
}

impl LoadedDatabase {
    /// A database as its file has it.
    #[must_use]
    pub fn of(file: &Path, database: Database) -> Self {
        let digest = Digest::of(database.octets());
        let (file, database) = (file.to_owned(), Arc::new(database));
        Self { file, database, digest, pending: Vec::new(), seen: None, is_kept: false }
    }
}

/// The database that the settings name, if they name one and it, or its last good copy, can be used. What `before` has
/// is not read again where the file is as it was.
pub(super) fn load(
    settings: &Settings,
    before: Option<&LoadedDatabase>,
    report: &mut Report,
) -> Option<LoadedDatabase> {
    let mut copies = Copies::within(settings.state.as_deref(), "origin");
    let mut loaded = settings.origin.database.as_deref().and_then(|file| settle(file, before, &copies, report));
    match &mut loaded {
        Some(loaded) if !loaded.is_kept => {
            copies.keep(OsStr::new(KEY), loaded.database.octets());
            loaded.is_kept = !copies.has_failed();
        }
        None if settings.origin.database.is_none() => copies.remove(OsStr::new(KEY)),
        _ => {}
    }
    report.warnings.extend(copies.into_warnings());
    loaded
}

/// What is in use from now on.
fn settle(
    file: &Path,
    before: Option<&LoadedDatabase>,
    copies: &Copies,
    report: &mut Report,
) -> Option<LoadedDatabase> {
    // Taken before the file is read: what changes meanwhile is seen the next time.
    let print = Print::of(file);
    if let Some(before) = before.filter(|before| before.file == file && print.is_some() && before.seen == print) {
        return Some(before.clone());
    }
    let (what, seen) = match read(file, print) {
        Ok(octets) => match Database::read(octets.into()) {
            Ok(database) => return Some(LoadedDatabase { seen: print, ..LoadedDatabase::of(file, database) }),
            Err(what) => (what, print),
        },
        Err(what) => (format!("{what}; put a database there, or correct [origin] database"), None),
    };
    let pending = vec![Mistake::of_file(file, what)];
    let Some(last_good) = before.cloned().or_else(|| copied(file, copies)) else {
        report.refuse(pending);
        return None;
    };
    Some(LoadedDatabase { file: file.to_owned(), pending, seen, ..last_good })
}

fn read(file: &Path, print: Option<Print>) -> Result<Vec<u8>, String> {
    if print.is_some_and(|print| print.octets() > DATABASE_OCTETS_MAX) {
        return Err(format!("is larger than {} MiB, more than countries take", DATABASE_OCTETS_MAX >> 20));
    }
    read_file(file, DATABASE_OCTETS_MAX)
}

/// The last good copy, if it is one still.
fn copied(file: &Path, copies: &Copies) -> Option<LoadedDatabase> {
    let octets = copies.read(OsStr::new(KEY), DATABASE_OCTETS_MAX)?;
    let database = Database::read(octets.into()).ok()?;
    Some(LoadedDatabase { is_kept: true, ..LoadedDatabase::of(file, database) })
}
