//! Reads the database of `[origin]` when it has changed; one that cannot be used stays what its last good copy says.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::copies::Copies;
use super::print::Print;
use super::{Report, Settings, read_file};
use crate::digest::Digest;
use crate::mistake::Mistake;
use crate::policy::origin::{Database, Day};

/// The largest database that is read, in octets: twice the largest that is common, one of cities.
const DATABASE_OCTETS_MAX: u64 = 256 << 20;

/// From how many days on a database is old: blocks of addresses move between countries every day.
const DATABASE_DAYS_MAX: i64 = 45;

/// In seconds.
const DAY: i64 = 86_400;

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

    /// A warning of a database that was built more than 45 days ago.
    #[must_use]
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        let built = self.database.built();
        let seconds = now.as_second() - built.as_second();
        let (file, built, days) = (self.file.display(), Day(built), seconds / DAY);
        (seconds > DATABASE_DAYS_MAX * DAY)
            .then(|| format!("{file}: the database in use was built {built}, {days} days ago; get a newer one"))
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs::{self, File};
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::super::{Before, Loaded, load};
    use super::*;
    use crate::policy::origin::mmdb::{self, Form};

    /// A folder with a database of Italy or another country, and what was loaded last.
    struct Machine {
        folder: TempDir,
        settings: Settings,
        before: Before,
    }

    impl Machine {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let mut settings = Settings { state: Some(folder.path().join("state")), ..Settings::default() };
            settings.origin.database = Some(folder.path().join("countries.mmdb"));
            Self { folder, settings, before: Before::default() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// As downloads do it: a new file in the old one's place.
        fn put(&self, octets: impl AsRef<[u8]>) {
            fs::write(self.path("new"), octets).unwrap();
            fs::rename(self.path("new"), self.path("countries.mmdb")).unwrap();
        }

        /// The country that 192.0.2.1 is in, then mistakes and warnings.
        fn load(&mut self) -> (String, Vec<String>) {
            let loaded = load(&self.settings, &self.before, "2026-08-20T00:00:00Z".parse().unwrap());
            self.before.database.clone_from(&loaded.database);
            self.told(&loaded)
        }

        fn restart(&mut self) {
            self.before = Before::default();
        }

        fn told(&self, loaded: &Loaded) -> (String, Vec<String>) {
            let client = "192.0.2.1".parse().unwrap();
            let country = loaded.database.as_ref().and_then(|loaded| loaded.database.country(client));
            let pending =
                loaded.database.iter().flat_map(|loaded| &loaded.pending).map(|each| format!("pending {each}"));
            let refused = loaded.refused.iter().map(ToString::to_string);
            let folder = format!("{}/", self.folder.path().display());
            let all = pending.chain(refused).chain(loaded.warnings.iter().cloned());
            let country = country.map_or("-".to_owned(), |country| country.to_string());
            (country, all.map(|each| each.replace(&folder, "")).collect())
        }
    }

    fn database_of(country: &str) -> Vec<u8> {
        mmdb::countries(Form::default(), &format!("192.0.2.0/24 {country}"))
    }

    fn clean(country: &str) -> (String, Vec<String>) {
        (country.to_owned(), vec![])
    }

    #[test]
    fn a_new_file_takes_the_place_of_the_old_one() {
        let mut machine = Machine::new();
        for country in ["IT", "DE"] {
            machine.put(database_of(country));
            assert_eq!(machine.load(), clean(country));
            let loaded = machine.before.database.as_ref().unwrap();
            assert_eq!(loaded.digest, Digest::of(&database_of(country)));
            assert_eq!(fs::read(machine.path("state/origin/database.mmdb")).unwrap(), database_of(country));
        }
    }

    #[test]
    fn a_broken_file_leaves_the_old_one_in_use_also_after_a_restart() {
        let mut machine = Machine::new();
        machine.put(database_of("IT"));
        machine.load();
        machine.put("no database");
        let what = "pending countries.mmdb: is not a sound MaxMind DB file (invalid database: could not find MaxMind DB \
                    metadata in file); get it again";
        for _ in 0..2 {
            assert_eq!(machine.load(), ("IT".to_owned(), vec![what.to_owned()]));
            assert_eq!(machine.load(), ("IT".to_owned(), vec![what.to_owned()]), "seen before");
            machine.restart();
        }
        fs::remove_file(machine.path("countries.mmdb")).unwrap();
        let (country, told) = machine.load();
        assert_eq!(country, "IT");
        assert!(told[0].ends_with("(os error 2); put a database there, or correct [origin] database"), "{told:?}");
        machine.put(database_of("DE"));
        assert_eq!(machine.load(), clean("DE"));
    }

    #[test]
    fn without_any_good_one_the_file_is_refused() {
        let mut machine = Machine::new();
        let (country, told) = machine.load();
        assert_eq!((country.as_str(), told.len()), ("-", 1));
        assert!(told[0].starts_with("countries.mmdb: cannot be read: "), "{told:?}");
        machine.put(database_of("continent EU"));
        assert!(machine.load().1[0].starts_with("countries.mmdb: has no country in any record"));
        fs::create_dir_all(machine.path("state/origin")).unwrap();
        fs::write(machine.path("state/origin/database.mmdb"), "damaged").unwrap();
        assert_eq!(machine.load().1.len(), 1, "a damaged copy is no copy");
    }

    #[test]
    fn every_cut_of_a_file_leaves_a_database_in_use() {
        let mut machine = Machine::new();
        machine.put(database_of("IT"));
        machine.load();
        let next = database_of("DE");
        for cut in 0..next.len() {
            machine.put(&next[..cut]);
            let (country, told) = machine.load();
            assert_eq!((country.as_str(), told.len()), ("IT", 1), "cut at {cut}");
        }
    }

    #[test]
    fn an_unchanged_file_is_neither_read_nor_copied_again() {
        let mut machine = Machine::new();
        machine.put(database_of("IT"));
        machine.load();
        let first = Arc::clone(&machine.before.database.as_ref().unwrap().database);
        let copy = machine.path("state/origin/database.mmdb");
        File::options().write(true).open(&copy).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        machine.load();
        assert!(Arc::ptr_eq(&first, &machine.before.database.as_ref().unwrap().database));
        // After a restart it is read, and found to be the copy.
        machine.restart();
        machine.load();
        assert_eq!(fs::metadata(&copy).unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
        machine.put(database_of("DE"));
        machine.load();
        assert_ne!(fs::metadata(&copy).unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn a_copy_that_could_not_be_kept_is_kept_later() {
        let mut machine = Machine::new();
        machine.put(database_of("IT"));
        // A file where the folder should be: even root cannot write below it.
        fs::write(machine.path("state"), "").unwrap();
        let told = machine.load().1;
        assert!(told[0].starts_with("state/origin: last good copies cannot be kept: database.mmdb: "), "{told:?}");
        fs::remove_file(machine.path("state")).unwrap();
        assert_eq!(machine.load(), clean("IT"));
        assert!(machine.path("state/origin/database.mmdb").exists());
    }

    #[test]
    fn another_file_is_another_database_and_none_leaves_no_copy() {
        let mut machine = Machine::new();
        machine.put(database_of("IT"));
        machine.load();
        fs::write(machine.path("other.mmdb"), database_of("DE")).unwrap();
        machine.settings.origin.database = Some(machine.path("other.mmdb"));
        assert_eq!(machine.load(), clean("DE"));
        machine.settings.origin.database = None;
        assert_eq!(machine.load(), clean("-"));
        assert!(!machine.path("state/origin/database.mmdb").exists());
    }

    #[test]
    fn a_file_has_a_bound() {
        let mut machine = Machine::new();
        machine.put("");
        let file = File::options().write(true).open(machine.path("countries.mmdb")).unwrap();
        file.set_len(DATABASE_OCTETS_MAX + 1).unwrap();
        let what = "countries.mmdb: is larger than 256 MiB, more than countries take; put a database there, or correct \
                    [origin] database";
        assert_eq!(machine.load().1, [what]);
    }

    #[test]
    fn an_old_database_is_warned_of() {
        let machine = Machine::new();
        machine.put(database_of("IT"));
        let warnings = |now: &str| {
            let loaded = load(&machine.settings, &machine.before, now.parse().unwrap());
            machine.told(&loaded).1
        };
        assert_eq!(warnings("2026-09-19T12:00:00Z"), [""; 0]);
        assert_eq!(warnings("2020-01-01T00:00:00Z"), [""; 0], "a clock that is wrong makes nothing old");
        let what = "countries.mmdb: the database in use was built 2026-08-05, 45 days ago; get a newer one";
        assert_eq!(warnings("2026-09-19T12:00:01Z"), [what]);
    }

    #[test]
    fn an_order_for_a_country_can_apply_by_a_database_alone() {
        let mut machine = Machine::new();
        machine.put(database_of("DE"));
        let orders = machine.path("orders");
        fs::create_dir(&orders).unwrap();
        let order = "id = 'x'\nissuer = 'Example Court'\njurisdiction = ['IT']\nreceived = 2026-01-01T00:00:00Z\n\
                     state = 'in-force'\n[[target]]\nsubtree = ['a.example']\n";
        fs::write(orders.join("x.toml"), order).unwrap();
        machine.settings.orders = Some(orders);
        assert_eq!(machine.load(), clean("DE"));
        machine.settings.origin.database = None;
        assert!(
            machine.load().1[0].contains("cannot apply to anyone; give [origin] networks, a database or a default")
        );
    }
}
