//! What took effect when: append-only, hash-chained, verifiable.

mod file;
mod key;
pub mod line;
mod queue;
mod tail;
#[cfg(test)]
mod tests;
pub mod page;
pub mod probed;
pub mod report;
pub mod verify;
pub mod words;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::policy::register::Happening;

pub use key::{KEY_FILE, NotAKey, PublicKey, public_key_of};
use queue::Queue;
pub use queue::{WAITING_MAX, WAITING_OCTETS_MAX};
use writer::Writer;

/// The file of the ledger, in the state folder.
pub const LEDGER_FILE: &str = "ledger.jsonl";

/// How long whoever lets go of a ledger waits for what is still to be written.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What the ledger has lines for. None holds a client's address or a name that a client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// What happened to an order.
    Order(Happening),
    /// Anything else.
    Node(Note),
}

/// What is noted besides what happens to orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Note {
    /// A probe asked for a name of an order over a listener of ours.
    Probe(Probe),
    /// A policy is in force on every worker.
    Generation {
        /// Its number.
        generation: u64,
        /// Every file that it was made from.
        inputs: Vec<Input>,
    },
    /// Answers that orders blocked in an hour, rounded to tens, nothing under ten; by id.
    Counts {
        /// The hour's first moment.
        from: Timestamp,
        /// The first moment behind it.
        until: Timestamp,
        /// By order.
        blocked: std::collections::BTreeMap<String, u64>,
    },
    /// The last line was torn, by a crash or a full disk, and was cut off at start.
    TailRepaired {
        /// How many octets were cut off.
        octets: u64,
        /// What they were.
        digest: Digest,
    },
    /// Events were dropped before this line: the disk took none, and no more memory is kept for them.
    EventsLost {
        /// How many.
        events: u64,
    },
    /// A server has started with this ledger.
    Started {
        /// Its version.
        version: String,
        /// The public key that signs from here on, base64.
        key: String,
    },
}

/// A probe and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Probe {
    /// The order's id.
    pub order: String,
    /// The key of the target whose name was asked for.
    pub target: String,
    /// `dot` or `doh`.
    pub transport: String,
    /// Whether the client was one inside the order's jurisdiction.
    pub inside: bool,
    /// The country it was given; None: unknown.
    pub country: Option<String>,
    /// The query, hexadecimal.
    pub query: String,
    /// The answer, hexadecimal; None: none came.
    pub answer: Option<String>,
    /// The SHA-256 of the certificate that the listener showed; None: no handshake.
    pub certificate: Option<Digest>,
    /// `right`, `wrong`, or `none`: nothing came that says either.
    pub outcome: String,
    /// What was wrong, or why nothing came.
    pub note: Option<String>,
}

/// A file that a policy was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// What it is: `order`, `list`, `database` or `configuration`.
    pub kind: String,
    /// The order's id, the list's name, or the file.
    pub id: String,
    /// Its octets.
    pub digest: Digest,
}

/// Why there is no ledger. Its `Display` says what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The place of an event among those that were handed in; from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The last line that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its number, from 1.
    pub number: u64,
    /// The SHA-256 of its octets.
    pub hash: Digest,
}

/// A ledger that is written by a thread of its own. Nothing waits for it; dropped, it is closed.
#[derive(Debug)]
pub struct Ledger {
    queue: Arc<Queue>,
}

impl Ledger {
    /// Opens, or begins, the ledger in the state folder, which is ours alone. Where the disk does not let it, that is
    /// told by [`Self::complaint`], and tried again until it does.
    ///
    /// # Errors
    /// When the thread that writes cannot be started: serving goes on all the same.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, Error> {
        let queue = Arc::new(Queue::default());
        let mut writer = Writer::new(folder.to_owned(), now, Arc::clone(&queue));
        writer.begin();
        let thread = thread::Builder::new().name("ledger".to_owned()).spawn(move || writer.run());
        thread.map_err(|error| Error(format!("cannot start the thread that writes the ledger: {error}")))?;
        Ok(Self { queue })
    }

    /// Hands in an event. Never waits; past [`WAITING_MAX`] or [`WAITING_OCTETS_MAX`] the event is dropped, and that is
    /// told by [`Self::complaint`] and by a line of the ledger, once there can be one.
    pub fn record(&self, at: Timestamp, event: Event) -> Ticket {
        self.queue.put(at, &event)
    }

    /// Whether an event is on the disk.
    #[must_use]
    pub fn has_recorded(&self, ticket: Ticket) -> bool {
        self.queue.has_recorded(ticket)
    }

    /// The last line on the disk; None: there is none yet.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.queue.head()
    }

    /// How many events wait for the disk.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// What is wrong with it, for health.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.queue.complaint()
    }

    /// Writes what waits, takes no more, and lets go of the file; how many events could not be written by then.
    pub fn close(&self, patience: Duration) -> usize {
        self.queue.close(patience)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.close(CLOSE_PATIENCE);
    }
}
