//! Last good copies: what was valid when it was last read, kept under the state folder.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::read_file;

/// The longest name of a copy's file, in octets: it and the ending of its temporary file fit in a file name (255).
const FILE_NAME_OCTETS_MAX: usize = 240;

/// Beside the copies of orders: which folder they were read from. No key's file begins with a dot.
const READ_FROM: &str = ".read-from";

/// The most octets of that: a number and a path.
const READ_FROM_OCTETS_MAX: u64 = 8 << 10;

/// A folder of copies, each under a key: the name of an order file, or that of a list.
pub(super) struct Copies {
    /// None: nothing is kept, and nothing is there.
    folder: Option<PathBuf>,
    /// Why copies could not be kept or removed: the first reason, and how often.
    failed: Option<(String, usize)>,
    /// A copy has taken its name since the folder was last synced.
    is_unsynced: bool,
}

impl Copies {
    /// The copies of one kind under a state folder, which is made with the first of them.
    pub(super) fn within(state: Option<&Path>, kind: &str) -> Self {
        Self { folder: state.map(|state| state.join(kind)), failed: None, is_unsynced: false }
    }

    /// The keys of all copies, sorted.
    pub(super) fn keys(&self) -> Vec<OsString> {
        let entries = self.folder.as_deref().and_then(|folder| fs::read_dir(folder).ok());
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let mut keys: Vec<OsString> = names.filter_map(|name| key_of(&name)).collect();
        keys.sort();
        keys
    }

    /// Whether there is a copy under a key, or none is to be kept.
    pub(super) fn has(&self, key: &OsStr) -> bool {
        self.folder.is_none() || self.path(key).is_some_and(|path| path.exists())
    }

    /// The copy under a key, if there is one.
    pub(super) fn read(&self, key: &OsStr, octets_max: u64) -> Option<Vec<u8>> {
        read_file(&self.path(key)?, octets_max).ok()
    }

    /// Keeps a copy in place of the one there may be.
    pub(super) fn keep(&mut self, key: &OsStr, octets: &[u8]) {
        if self.folder.is_none() || self.holds(key, octets) {
            return;
        }
        let kept = self.path(key).ok_or(io::ErrorKind::InvalidFilename.into()).and_then(|path| replace(&path, octets));
        self.is_unsynced |= kept.is_ok();
        self.note(key, kept);
    }

    /// Whether the copy under a key is these octets; it is read only where it is as long.
    fn holds(&self, key: &OsStr, octets: &[u8]) -> bool {
        let length = octets.len() as u64;
        let is_as_long = self.path(key).and_then(|path| path.metadata().ok()).is_some_and(|copy| copy.len() == length);
        is_as_long && self.read(key, length).is_some_and(|copy| copy == octets)
    }

    /// Removes the copy that there may be.
    pub(super) fn remove(&mut self, key: &OsStr) {
        if let Some(path) = self.path(key).filter(|path| path.exists()) {
            self.note(key, fs::remove_file(path));
        }
    }

    /// Notes the folder that they are read from.
    pub(super) fn note_read_from(&self, source: &Path) {
        let (Some(folder), Some(identity)) = (&self.folder, identity_of(source)) else { return };
        let file = folder.join(READ_FROM);
        if read_file(&file, READ_FROM_OCTETS_MAX).is_ok_and(|noted| noted == identity) {
            return;
        }
        // Where it cannot be kept, neither can the copies, and those tell of it.
        let _ = write(&file, &identity);
    }

    /// Whether another folder stands where they were read from: what lay there is perhaps not mounted.
    pub(super) fn were_read_from_another(&self, source: &Path) -> bool {
        let noted =
            self.folder.as_ref().and_then(|folder| read_file(&folder.join(READ_FROM), READ_FROM_OCTETS_MAX).ok());
        let path = |identity: &[u8]| identity.splitn(2, |octet| *octet == b' ').nth(1).map(<[u8]>::to_vec);
        let (Some(noted), Some(identity)) = (noted, identity_of(source)) else { return false };
        path(&noted) == path(&identity) && noted != identity
    }

    /// Whether any copy could not be kept or removed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Sees to it that all are on the disk: once for all of them, since it takes ten times as long as a copy. One warning
    /// at most: a full disk fails every copy alike.
    pub(super) fn into_warnings(mut self) -> Option<String> {
        if self.is_unsynced {
            let synced = self.folder.as_deref().map_or(Ok(()), sync_folder);
            self.note(OsStr::new("."), synced);
        }
        let (folder, (first, times)) = (self.folder?, self.failed?);
        let more = if times > 1 { format!(", and {} more", times - 1) } else { String::new() };
        Some(format!("{}: last good copies cannot be kept: {first}{more}", folder.display()))
    }

    fn note(&mut self, key: &OsStr, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            let reason = format!("{}: {error}", key.display());
            self.failed.get_or_insert((reason, 0)).1 += 1;
        }
    }

    fn path(&self, key: &OsStr) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(file_name_of(key)?))
    }
}

/// The number of a folder and its path. Not the device's number: that may be another after each start of the machine.
fn identity_of(folder: &Path) -> Option<Vec<u8>> {
    let mut identity = format!("{} ", fs::metadata(folder).ok()?.ino()).into_bytes();
    identity.extend(folder.as_os_str().as_bytes());
    Some(identity)
}

/// The file name of a key: letters, digits, `-`, `_` and inner dots as they are, any other octet as `%` and two digits.
/// So no key leaves its folder or hides in it. None where it would be too long.
fn file_name_of(key: &OsStr) -> Option<String> {
    let mut name = String::with_capacity(key.len());
    for &octet in key.as_bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(octet)),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("%{octet:02x}")),
        }
    }
    (1..=FILE_NAME_OCTETS_MAX).contains(&name.len()).then_some(name)
}

/// The inverse of [`file_name_of`]; None for files that it cannot have named, temporary ones among them.
fn key_of(name: &OsStr) -> Option<OsString> {
    let mut key = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        if octet == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            rest = tail;
            key.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
        } else {
            key.push(octet);
        }
    }
    let key = OsString::from_vec(key);
    (file_name_of(&key).as_deref().map(OsStr::new) == Some(name)).then_some(key)
}

/// Writes a file whole or not at all, even if the machine stops on the way: a new file, on the disk before it takes the
/// old one's name.
pub(in crate::policy) fn write(path: &Path, octets: &[u8]) -> io::Result<()> {
    replace(path, octets)?;
    // The rename is on the disk once its folder is.
    path.parent().map_or(Ok(()), sync_folder)
}

/// The same, but for the folder: until that is on the disk, too, a machine that stops may bring back the old file.
fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    // Private to the service: an order may be sealed.
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let temporary = folder.join(temporary);
    let written = write_through(&temporary, octets).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // it may never have been made
    }
    written
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn write_through(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(octets)?;
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn keys_become_file_names_and_come_back() {
        for (key, name) in [
            ("a.toml", "a.toml"),
            ("A-b_9.toml", "A-b_9.toml"),
            ("..", "%2e."),
            (".hidden", "%2ehidden"),
            ("../../etc/passwd", "%2e.%2f..%2fetc%2fpasswd"),
            ("50% é\n", "50%25%20%c3%a9%0a"),
        ] {
            assert_eq!(file_name_of(OsStr::new(key)).unwrap(), name);
            assert_eq!(key_of(OsStr::new(name)).unwrap(), key);
        }
        let octets = OsStr::from_bytes(b"\xff\x00");
        assert_eq!(key_of(OsStr::new(&file_name_of(octets).unwrap())).unwrap(), octets);
    }

    #[test]
    fn names_that_are_too_long_or_not_ours_are_none() {
        assert!(file_name_of(OsStr::new(&"a".repeat(FILE_NAME_OCTETS_MAX))).is_some());
        assert!(file_name_of(OsStr::new(&"a".repeat(FILE_NAME_OCTETS_MAX + 1))).is_none());
        assert!(file_name_of(OsStr::new("")).is_none());
        for name in [".a.toml.new", "%", "%2", "%zz", "%61", "%2E", "a b", "%+1"] {
            assert!(key_of(OsStr::new(name)).is_none(), "{name}");
        }
    }

    #[test]
    fn a_copy_is_replaced_whole_and_leaves_no_temporary_file() {
        let state = tempfile::TempDir::new().unwrap();
        let mut copies = Copies::within(Some(state.path()), "orders");
        let key = OsStr::new("a.toml");
        assert_eq!(copies.read(key, 100), None);
        for octets in [&b"one"[..], b"a longer one", b"2", b"2", b"3"] {
            copies.keep(key, octets);
            assert_eq!(copies.read(key, 100).unwrap(), octets);
        }
        assert_eq!(fs::read_dir(state.path().join("orders")).unwrap().count(), 1);
        // What a machine that stopped while writing leaves behind.
        fs::write(state.path().join("orders/.a.toml.new"), "half").unwrap();
        assert_eq!(copies.keys(), ["a.toml"]);
        copies.keep(key, b"three");
        assert_eq!(copies.read(key, 100).unwrap(), b"three");
        copies.remove(key);
        copies.remove(key);
        assert_eq!((copies.read(key, 100), copies.into_warnings()), (None, None));
    }

    #[test]
    fn an_unchanged_copy_is_not_written_again() {
        let state = tempfile::TempDir::new().unwrap();
        let mut copies = Copies::within(Some(state.path()), "orders");
        copies.keep(OsStr::new("a.toml"), b"one");
        let file = state.path().join("orders/a.toml");
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        copies.keep(OsStr::new("a.toml"), b"one");
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), long_ago);
    }
}
