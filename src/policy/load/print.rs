//! By what a file is known to be as it was, without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file as it was when it was looked at, by the time of its last change of any kind, its size and its inode. The time
/// of change and not of writing: who may read a file matters too, and `cp -p` and tar bring an old time of writing along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print {
    changed: (i64, i64),
    octets: u64,
    inode: u64,
}

impl Print {
    /// Looks at a file; None: it is not there.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
        let seen = fs::metadata(file).ok()?;
        Some(Self { changed: (seen.ctime(), seen.ctime_nsec()), octets: seen.len(), inode: seen.ino() })
    }
}
