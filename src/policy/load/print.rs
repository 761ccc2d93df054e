//! What a file looks like from outside: enough to tell whether it has changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A file as it was when it was looked at. The time of change and not of writing: who may read a file matters too, and
/// `cp -p` and tar bring an old time of writing along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print {
    /// Of the last change of any kind: seconds since 1970, and nanoseconds.
    changed: (i64, i64),
    octets: u64,
    inode: u64,
}

impl Print {
    /// That of a file as it is now; None: it is not there.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
        let seen = fs::metadata(file).ok()?;
        Some(Self { changed: (seen.ctime(), seen.ctime_nsec()), octets: seen.len(), inode: seen.ino() })
    }

    /// Its size.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets
    }
}
