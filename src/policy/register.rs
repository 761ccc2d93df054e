//! What is remembered of each order across restarts: what it was, and when it came to what.

mod follow;
mod kept;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Every order that was ever loaded here, by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// By id.
    pub orders: BTreeMap<String, Record>,
    /// What the ledger has not on its disk yet, oldest first: it is handed in again after a restart. Empty without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<Told>,
    /// When this process looked last.
    #[serde(skip)]
    looked: Option<Timestamp>,
}

/// A happening and its moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// When it was seen.
    pub at: Timestamp,
    /// What it was.
    pub happening: Happening,
}

/// What is remembered of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Record {
    /// The octets of its file as it was last carried out, or read where it never was.
    pub digest: Digest,
    /// Its standing when it was last looked at, as `bailiwick orders` has it.
    pub standing: String,
    /// When it was first loaded here.
    pub loaded: Timestamp,
    /// When it first counted as approved here, and by whose keys; None: it never did, or nothing asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approval>,
    /// Octets that were approved once and that others have replaced since, the last ones last, at most
    /// [`SUPERSEDED_MAX`]: signatures on those say nothing of today.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub superseded: Vec<Digest>,
    /// From when it was first carried out on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Timestamp>,
    /// The ledger had on its disk that it was carried out.
    #[serde(default)]
    pub recorded: bool,
    /// When a probe first saw it carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed: Option<Timestamp>,
    /// When it was lifted; None: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifted: Option<Timestamp>,
    /// Its targets, by [`super::order::Target::key`].
    #[serde(default)]
    pub targets: BTreeMap<String, TargetRecord>,
}

/// The most versions of an order that are known to be superseded; the first of more are forgotten.
pub const SUPERSEDED_MAX: usize = 1_000;

impl Record {
    /// Takes an approval in place of the one there may be.
    pub(super) fn approve(&mut self, approval: Approval) {
        if let Some(before) = self.approved.replace(approval) {
            self.superseded.push(before.digest);
            let excess = self.superseded.len().saturating_sub(SUPERSEDED_MAX);
            self.superseded.drain(..excess);
        }
    }
}

/// Who approved an order's file, and when that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The octets that were approved.
    pub digest: Digest,
    /// The names of the keys, sorted.
    pub by: Vec<String>,
    /// When it was seen.
    pub at: Timestamp,
}

/// What is remembered of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRecord {
    /// Its standing when it was last looked at.
    pub standing: String,
    /// When it was first loaded here.
    pub loaded: Timestamp,
    /// From when it was first carried out on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Timestamp>,
    /// When a probe first saw it carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed: Option<Timestamp>,
}

/// What has happened to an order since the register last looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Happening {
    /// It was loaded for the first time.
    OrderLoaded(Facts),
    /// Its file says something else.
    OrderAmended(Facts),
    /// Enough keys have signed it.
    OrderApproved {
        /// Its id.
        order: String,
        /// The octets that were approved.
        digest: Digest,
        /// The names of the keys.
        by: Vec<String>,
    },
    /// It, or targets of it, are carried out from now on.
    OrderActivated {
        /// Its id.
        order: String,
        /// The policy by which they are.
        generation: u64,
        /// When it was received.
        received: Timestamp,
        /// By when it had to be.
        due: Option<Timestamp>,
        /// Keys of the targets.
        targets: Vec<String>,
    },
    /// It is not carried out for now.
    OrderSuspended {
        /// Its id.
        order: String,
    },
    /// It has ended, by its issuer or the operator.
    OrderLifted {
        /// Its id.
        order: String,
    },
    /// It has ended, by its date.
    OrderExpired {
        /// Its id.
        order: String,
    },
    /// Its file is gone.
    OrderRemoved {
        /// Its id.
        order: String,
    },
}

/// An order as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Facts {
    /// Its id.
    pub order: String,
    /// The octets of its file.
    pub digest: Digest,
    /// Its issuer.
    pub issuer: String,
    /// The issuer's file number.
    pub reference: Option<String>,
    /// Country codes, or `*`.
    pub jurisdiction: Vec<String>,
    /// When it was received.
    pub received: Timestamp,
    /// By when it must be carried out.
    pub due: Option<Timestamp>,
    /// Its state, as its file has it.
    pub state: String,
    /// From when it is carried out; None: as soon as it is loaded.
    pub effective: Option<Timestamp>,
    /// From when it no longer is.
    pub expires: Option<Timestamp>,
    /// Its targets as its file has them (`subtree a.example`), the first [`TARGETS_TOLD_MAX`].
    pub targets: Vec<String>,
    /// How many there are.
    pub targets_total: usize,
}

/// The most targets of an order that a [`Facts`] names.
pub const TARGETS_TOLD_MAX: usize = 1_000;
