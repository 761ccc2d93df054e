//! The thread that writes: batch by batch, again and again until the disk takes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::file::LedgerFile;
use super::queue::{Batch, Queue};
use super::{Error, Event, Head, Note, line};

/// How often the file is looked at where there is nothing to write, and tried again in trouble. Health shows what is
/// found within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Writes what the queue has to the file in the state folder.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    started: Timestamp,
    queue: Arc<Queue>,
    file: Option<LedgerFile>,
    /// What comes before all that waits in the queue: that the tail was repaired, and that we have started.
    openers: Vec<Arc<str>>,
    /// What is wrong with the ledger as it was found.
    standing: Option<String>,
}

impl Writer {
    pub(super) const fn new(folder: PathBuf, started: Timestamp, queue: Arc<Queue>) -> Self {
        Self { folder, started, queue, file: None, openers: Vec::new(), standing: None }
    }

    /// Opens the file; what keeps it from that is told, and tried again with the first batch.
    pub(super) fn begin(&mut self) {
        let trouble = self.open().err();
        self.settle(0, trouble);
    }

    /// Writes until the queue is closed.
    pub(super) fn run(mut self) {
        // That we have started does not wait for something to happen.
        self.attempt(&[]);
        while let Some(Batch { bodies, is_closing }) = self.queue.take(LOOK_INTERVAL) {
            let written = self.attempt(&bodies);
            // Nobody waits for the disk to come back any more.
            if !written && is_closing {
                break;
            }
        }
        self.queue.end();
    }

    fn attempt(&mut self, bodies: &[Arc<str>]) -> bool {
        let trouble = self.write(bodies).err();
        let written = trouble.is_none();
        self.settle(if written { bodies.len() } else { 0 }, trouble);
        written
    }

    fn write(&mut self, bodies: &[Arc<str>]) -> Result<(), Error> {
        self.open()?;
        // It was opened just now.
        let Some(file) = &mut self.file else { return Ok(()) };
        file.look()?;
        let openers = std::mem::take(&mut self.openers);
        let all: Vec<_> = openers.iter().chain(bodies).cloned().collect();
        file.append(&all).inspect_err(|_| self.openers = openers)
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.file.is_some() {
            return Ok(());
        }
        let (file, found) = LedgerFile::open(&self.folder)?;
        if found.is_missing {
            warn_of_missing(file.path());
        }
        let repaired = found.torn.map(|(octets, digest)| Note::TailRepaired { octets, digest });
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let started = Note::Started { version, key: file.public().to_string() };
        let notes = repaired.into_iter().chain([started]);
        let bodies = notes.filter_map(|note| line::body(self.started, &Event::Node(note)));
        self.openers = bodies.map(Into::into).collect();
        self.standing = found.complaint;
        self.file = Some(file);
        Ok(())
    }

    fn settle(&self, written: usize, trouble: Option<Error>) {
        let head: Option<&Head> = self.file.as_ref().and_then(LedgerFile::head);
        let told: Vec<_> = trouble.map(|Error(what)| what).into_iter().chain(self.standing.clone()).collect();
        self.queue.settle(written, head, (!told.is_empty()).then(|| told.join(" | ")));
    }
}

/// Said once: from now on there is a file again.
fn warn_of_missing(path: &Path) {
    tracing::warn!(
        "{}: is missing, though its key is there; a new ledger begins, and a report made from it knows nothing of before. \
         To go on with the one before, stop the service, put that file back in the place of this one, and start again",
        path.display()
    );
}
