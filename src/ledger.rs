//! What took effect when: append-only, hash-chained, verifiable.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::policy::register::Happening;

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

/// A ledger that is written by a thread of its own. Cheap to share; nothing waits for it.
#[derive(Debug)]
pub struct Ledger {
    _private: (),
}

impl Ledger {
    /// Opens, or begins, the ledger in the state folder.
    ///
    /// # Errors
    /// When it cannot be: serving goes on all the same.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, Error> {
        let _ = (folder, now);
        Err(Error("not built yet".to_owned()))
    }

    /// Hands in an event. Never waits; past a bound the event is dropped, and that is told by [`Self::complaint`].
    pub fn record(&self, at: Timestamp, event: Event) -> Ticket {
        let _ = (at, event);
        Ticket(0)
    }

    /// Whether an event is on the disk.
    #[must_use]
    pub fn has_recorded(&self, ticket: Ticket) -> bool {
        let _ = ticket;
        false
    }

    /// The last line on the disk; None: there is none yet.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        None
    }

    /// What is wrong with it, for health.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        None
    }
}
