//! The ledger's file: opened behind its last whole line, appended to whole or not at all, found again when lost.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::key::{PublicKey, SigningKey};
use super::tail::Tail;
use super::{Error, Head, KEY_FILE, LEDGER_FILE, line};
use crate::digest::Digest;

/// The file while it is ours to write.
#[derive(Debug)]
pub(super) struct LedgerFile {
    path: PathBuf,
    file: File,
    key: SigningKey,
    /// Octets that are whole lines, on the disk.
    length: u64,
    head: Option<Head>,
    /// A write came to nothing and may have left something behind `length`.
    torn: bool,
    /// The folder does not have the file's name on the disk yet.
    fresh: bool,
}

/// What was found at opening.
#[derive(Debug)]
pub(super) struct Found {
    /// Octets of a torn last line, cut off, and their digest.
    pub(super) torn: Option<(u64, Digest)>,
    /// What is wrong with the last whole line, for as long as the process lives.
    pub(super) complaint: Option<String>,
    /// There was none, though its key is there: this one begins in the place of one that is missing.
    pub(super) is_missing: bool,
}

impl LedgerFile {
    /// Opens the ledger in a folder, or begins one, with its key.
    pub(super) fn open(folder: &Path) -> Result<(Self, Found), Error> {
        let path = folder.join(LEDGER_FILE);
        let length = match path.metadata() {
            Ok(seen) => Some(seen.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(Error(format!("{}: {error}", path.display()))),
        };
        let (key, is_missing) = match SigningKey::read(folder)? {
            Some(key) => (key, length.is_none()),
            None if length.unwrap_or(0) == 0 => {
                // The file comes first, so that a key without one is always the key of a ledger that is missing.
                create(&path).map_err(|error| cannot_be_opened(&path, &error))?;
                (SigningKey::make(folder)?, false)
            }
            None => {
                let (file, key) = (path.display(), folder.join(KEY_FILE));
                let key = key.display();
                return Err(Error(format!("{key}: is gone; put it back, or move {file} away to begin another ledger")));
            }
        };
        let opened = Self::open_with(&path, key).map_err(|error| cannot_be_opened(&path, &error));
        opened.map(|(file, found)| (file, Found { is_missing, ..found }))
    }

    fn open_with(path: &Path, key: SigningKey) -> io::Result<(Self, Found)> {
        let file = create(path)?;
        let length = file.metadata()?.len();
        let Tail { whole, torn, head, holds } = Tail::read(&file, length, &key.public())?;
        if torn.is_some() {
            file.set_len(whole)?;
            file.sync_all()?;
        }
        let complaint = (!holds).then(|| {
            let (path, number) = (path.display(), head.as_ref().map_or(0, |head| head.number));
            format!("{path}: line {number} does not hold; `bailiwick ledger verify` says which line is broken")
        });
        let fresh = whole == 0;
        let opened = Self { path: path.to_owned(), file, key, length: whole, head, torn: false, fresh };
        Ok((opened, Found { torn, complaint, is_missing: false }))
    }

    pub(super) const fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Makes sure that the file is still where and as we left it.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        self.mend().map_err(|error| self.cannot_be_written(&error))?;
        let seen = match self.path.metadata() {
            Ok(seen) => seen,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.begin_again(),
            Err(error) => return Err(self.error(&error.to_string())),
        };
        let ours = self.file.metadata().map_err(|error| self.error(&error.to_string()))?;
        if seen.len() != self.length {
            let how = if seen.len() < self.length { "cut short" } else { "written to" };
            return Err(self.error(&format!("{how} by another; put it back as it was")));
        }
        if is_same(&seen, &ours) { Ok(()) } else { self.take_up() }
    }

    /// Appends a line for each event, with one write, and waits until they are on the disk.
    pub(super) fn append(&mut self, bodies: &[Arc<str>]) -> Result<(), Error> {
        let (mut text, mut head) = (String::new(), self.head.clone());
        for body in bodies {
            head = Some(line::seal(&mut text, head.as_ref(), body, &self.key));
        }
        if text.is_empty() {
            return Ok(());
        }
        // Until this is done there may be part of a line behind the last whole one.
        self.torn = true;
        self.write(text.as_bytes()).map_err(|error| self.cannot_be_written(&error))?;
        self.torn = false;
        self.length += text.len() as u64;
        self.head = head;
        Ok(())
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.file.write_all_at(octets, self.length)?;
        self.file.sync_all()?;
        if self.fresh {
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
            self.fresh = false;
        }
        Ok(())
    }

    /// Cuts off what a write that came to nothing has left.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            // Shorter or as long: this is no place to make a file longer with zeros.
            if self.file.metadata()?.len() > self.length {
                self.file.set_len(self.length)?;
            }
            self.torn = false;
        }
        Ok(())
    }

    /// A file that is gone and had no line yet is made again; any other must come back.
    fn begin_again(&mut self) -> Result<(), Error> {
        if self.head.is_some() {
            return Err(self.error("is gone; put it back"));
        }
        let open = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path);
        self.file = open.map_err(|error| self.cannot_be_written(&error))?;
        self.fresh = true;
        Ok(())
    }

    /// Goes on with another file of the same length if it ends with the same line: ours, put back.
    fn take_up(&mut self) -> Result<(), Error> {
        let open = || {
            let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
            let tail = Tail::read(&file, self.length, &self.key.public())?;
            Ok::<_, io::Error>((file, tail))
        };
        let (file, tail) = open().map_err(|error| self.cannot_be_written(&error))?;
        if tail.torn.is_some() || tail.head.map(|head| head.hash) != self.head.as_ref().map(|head| head.hash) {
            return Err(self.error("replaced by another; put ours back"));
        }
        self.file = file;
        self.fresh = true;
        Ok(())
    }

    fn cannot_be_written(&self, error: &io::Error) -> Error {
        self.error(&format!("cannot be written: {error}"))
    }

    fn error(&self, what: &str) -> Error {
        Error(format!("{}: {what}; events wait in memory until then", self.path.display()))
    }
}

/// Opens a file that is there, or makes it.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn cannot_be_opened(path: &Path, error: &io::Error) -> Error {
    Error(format!("{}: cannot be opened: {error}", path.display()))
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}
