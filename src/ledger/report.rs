//! Everything that a ledger says about one order, gathered for whoever has to judge it.

use std::io::BufRead;

use jiff::Timestamp;
use serde::Serialize;

use super::key::PublicKey;
use super::probed::ProbeCase;
use super::verify::Checked;
use super::words::{self, moment, span};
use super::{Event, Head, Note};
use crate::digest::Digest;
use crate::policy::order::Target;
use crate::policy::register::{Facts, Happening};
use crate::policy::report::seconds_left;

/// The longest run of names that is tried as one target of an order, beside all of them.
const TARGET_NAMES_TRIED_MAX: usize = 64;

/// What a ledger says about an order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Case {
    /// The order's id.
    pub order: String,
    /// When this was gathered.
    pub made: Timestamp,
    /// The ledger it is from.
    pub ledger: Source,
    /// When it took effect, against its deadline.
    pub clock: Clock,
    /// The order as its file had it, first and after each amendment.
    pub versions: Vec<Version>,
    /// What it is about, one by one.
    pub targets: Vec<TargetCase>,
    /// What happened to it, in order.
    pub events: Vec<Moment>,
    /// Each probe.
    pub probes: Vec<ProbeCase>,
    /// Blocked answers in each hour since it was loaded.
    pub hours: Vec<Hour>,
    /// What the record itself says it lacks: lines cut off, events lost; and the starts of the server.
    pub interruptions: Vec<Moment>,
}

/// The ledger, and whether it holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Source {
    /// Its file, as it was named.
    pub file: String,
    /// The key that it was checked with, base64.
    pub key: String,
    /// Who says that it is the node's.
    pub key_from: String,
    /// The ledger itself does.
    pub key_is_own: bool,
    /// How many lines hold, from the first on.
    pub lines: u64,
    /// The hash of the last of them.
    pub head: Option<Digest>,
    /// The time of the first line.
    pub first: Option<Timestamp>,
    /// The time of the last line that holds.
    pub last: Option<Timestamp>,
    /// The first line that is broken, and how. Nothing behind it was looked at.
    pub broken: Option<String>,
}

/// The compliance clock of an order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Clock {
    /// When it was received.
    pub received: Option<Timestamp>,
    /// By when it must be carried out.
    pub due: Option<Timestamp>,
    /// When it was first loaded here.
    pub loaded: Option<Timestamp>,
    /// From when it was first carried out on this node.
    pub effective: Option<Timestamp>,
    /// The ledger's line that says so.
    pub line: Option<u64>,
    /// Whole seconds from there to the deadline; negative: it was late, be it by less than one.
    pub margin_seconds: Option<i64>,
    /// What ended it last, if it was not carried out again since: `suspended`, `lifted`, `expired` or `removed`.
    pub ended: Option<&'static str>,
    /// When.
    pub ended_at: Option<Timestamp>,
    /// It was ended once and carried out again later.
    pub had_breaks: bool,
    /// All that in words.
    pub in_words: String,
}

/// The order's file as it was from a moment on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Version {
    /// The ledger's line.
    pub line: u64,
    /// When it was loaded.
    pub at: Timestamp,
    /// What it says.
    pub facts: Facts,
    /// Targets that it has and the one before had not.
    pub added: Vec<String>,
    /// Targets that the one before had and it has not.
    pub removed: Vec<String>,
}

/// One name, label, prefix or list that an order is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TargetCase {
    /// As the order's file has it.
    pub target: String,
    /// When a file that has it was loaded first.
    pub loaded: Timestamp,
    /// From when it was first carried out; None: no line says so.
    pub effective: Option<Timestamp>,
    /// When a file without it was loaded.
    pub removed: Option<Timestamp>,
}

/// A line, in words.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Moment {
    /// The ledger's line.
    pub line: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: String,
}

/// Blocked answers in an hour, or what there was of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hour {
    /// The ledger's line.
    pub line: u64,
    /// Its first moment.
    pub from: Timestamp,
    /// The first behind it.
    pub until: Timestamp,
    /// Rounded to tens; None: under ten.
    pub blocked: Option<u64>,
}

impl Case {
    /// Reads a ledger up to its end or its first broken line.
    #[must_use]
    pub fn gather(input: impl BufRead, key: PublicKey, order: &str, made: Timestamp) -> Self {
        let mut case = Self::empty(order, key, made);
        let mut ledger = Checked::new(input, key);
        loop {
            match ledger.next_line() {
                Ok(None) => break,
                Err(broken) => {
                    case.ledger.broken = Some(broken.to_string());
                    break;
                }
                Ok(Some(line)) => {
                    case.ledger.first.get_or_insert(line.at);
                    case.ledger.last = Some(line.at);
                    if let Some(event) = line.event() {
                        case.take(line.number, line.at, event);
                    }
                }
            }
        }
        if let Some(Head { number, hash }) = ledger.head() {
            (case.ledger.lines, case.ledger.head) = (*number, Some(*hash));
        }
        case.clock.in_words = case.in_words();
        case
    }

    /// Whether the ledger has any line about the order.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        !self.versions.is_empty() || !self.events.is_empty() || !self.probes.is_empty()
    }

    /// How many probes were answered rightly, wrongly, and not at all.
    #[must_use]
    pub fn outcomes(&self) -> [usize; 3] {
        let count = |outcome: &str| self.probes.iter().filter(|case| case.probe.outcome == outcome).count();
        let (right, wrong) = (count("right"), count("wrong"));
        [right, wrong, self.probes.len() - right - wrong]
    }

    fn empty(order: &str, key: PublicKey, made: Timestamp) -> Self {
        let ledger = Source {
            file: String::new(),
            key: key.to_string(),
            key_from: String::new(),
            key_is_own: false,
            lines: 0,
            head: None,
            first: None,
            last: None,
            broken: None,
        };
        Self {
            order: order.to_owned(),
            made,
            ledger,
            clock: Clock::default(),
            versions: Vec::new(),
            targets: Vec::new(),
            events: Vec::new(),
            probes: Vec::new(),
            hours: Vec::new(),
            interruptions: Vec::new(),
        }
    }

    fn take(&mut self, line: u64, at: Timestamp, event: Event) {
        match event {
            Event::Order(happening) if order_of(&happening) == self.order => {
                let what = words::sentence(&Event::Order(happening.clone()));
                self.events.push(Moment { line, at, what });
                self.happened(line, at, happening);
            }
            Event::Node(Note::Probe(probe)) if probe.order == self.order => {
                self.probes.push(ProbeCase::read(line, at, probe))
            }
            Event::Node(Note::Counts { from, until, blocked }) if !self.versions.is_empty() => {
                self.hours.push(Hour { line, from, until, blocked: blocked.get(&self.order).copied() });
            }
            Event::Node(note @ (Note::TailRepaired { .. } | Note::EventsLost { .. } | Note::Started { .. })) => {
                let what = words::sentence(&Event::Node(note));
                self.interruptions.push(Moment { line, at, what });
            }
            Event::Order(_) | Event::Node(_) => {}
        }
    }

    fn happened(&mut self, line: u64, at: Timestamp, happening: Happening) {
        match happening {
            Happening::OrderLoaded(facts) | Happening::OrderAmended(facts) => self.take_version(line, at, facts),
            Happening::OrderActivated { received, due, targets, .. } => {
                self.mark_effective(at, &targets);
                self.clock.had_breaks |= self.clock.effective.is_some() && self.clock.ended.is_some();
                (self.clock.ended, self.clock.ended_at) = (None, None);
                if self.clock.effective.is_none() {
                    let due = due.or(self.clock.due);
                    let margin_seconds = due.map(|due| seconds_left(due, at));
                    let (effective, line) = (Some(at), Some(line));
                    let loaded = self.clock.loaded;
                    self.clock = Clock {
                        received: Some(received),
                        due,
                        loaded,
                        effective,
                        line,
                        margin_seconds,
                        ..Clock::default()
                    };
                }
            }
            Happening::OrderSuspended { .. } => self.end("suspended", at),
            Happening::OrderLifted { .. } => self.end("lifted", at),
            Happening::OrderExpired { .. } => self.end("expired", at),
            Happening::OrderRemoved { .. } => self.end("removed", at),
            Happening::OrderApproved { .. } => {}
        }
    }

    fn end(&mut self, how: &'static str, at: Timestamp) {
        // A file that is gone after the order was lifted ends nothing more.
        if self.clock.ended.is_none() || how != "removed" {
            (self.clock.ended, self.clock.ended_at) = (Some(how), Some(at));
        }
    }

    fn take_version(&mut self, line: u64, at: Timestamp, facts: Facts) {
        let before = self.versions.last().map(|version| version.facts.targets.clone()).unwrap_or_default();
        let lacks = |targets: &[String], target: &String| !targets.contains(target);
        let added: Vec<_> = facts.targets.iter().filter(|target| lacks(&before, target)).cloned().collect();
        let removed: Vec<_> = before.iter().filter(|target| lacks(&facts.targets, target)).cloned().collect();
        for target in self.targets.iter_mut().filter(|case| case.removed.is_none() && removed.contains(&case.target)) {
            target.removed = Some(at);
        }
        let new = added.iter().map(|target| TargetCase {
            target: target.clone(),
            loaded: at,
            effective: None,
            removed: None,
        });
        self.targets.extend(new);
        self.clock.loaded.get_or_insert(at);
        self.clock.received.get_or_insert(facts.received);
        if self.clock.effective.is_none() {
            self.clock.due = facts.due;
        }
        self.versions.push(Version { line, at, facts, added, removed });
    }

    fn mark_effective(&mut self, at: Timestamp, keys: &[String]) {
        let Some(version) = self.versions.last() else { return };
        let named = targets_of(&version.facts.targets, keys);
        for case in &mut self.targets {
            if case.effective.is_none() && case.removed.is_none() && named.contains(&case.target) {
                case.effective = Some(at);
            }
        }
    }

    fn in_words(&self) -> String {
        let Clock { received, due, effective, margin_seconds, .. } = &self.clock;
        let Some(effective) = effective else { return self.never_in_words() };
        let since = received.map_or_else(String::new, |received| {
            let seconds = effective.as_second() - received.as_second();
            let how = if seconds < 0 { "before the date on which" } else { "after" };
            format!(", {} {how} it was received", span(seconds))
        });
        let began = format!("This node carried the order out from {} on{since}", moment(*effective));
        let rest = format!("{}{}", self.targets_in_words(*effective), self.end_in_words());
        match (due, margin_seconds) {
            (Some(due), Some(margin)) => {
                let (how, late) = if *margin >= 0 { ("before", "in time") } else { ("after", "late") };
                format!("{began}. That is {late}: {} {how} the deadline of {}.{rest}", span(*margin), moment(*due))
            }
            _ => format!("{began}. The order names no deadline.{rest}"),
        }
    }

    /// What of it was carried out later than the rest, or never: the deadline above is not said to be kept for that.
    fn targets_in_words(&self, first: Timestamp) -> String {
        let later =
            self.targets.iter().filter(|case| case.effective.is_some_and(|effective| effective > first)).count();
        let never = self.targets.iter().filter(|case| case.effective.is_none() && case.removed.is_none()).count();
        let told = |count: usize, what: &str| match count {
            0 => String::new(),
            count => format!(" Of the targets {count} {what}: see the table of targets."),
        };
        format!("{}{}", told(later, "began later than that"), told(never, "began at no time that the ledger tells"))
    }

    fn end_in_words(&self) -> String {
        let breaks = if self.clock.had_breaks {
            " It was not carried out all the time since: see the course of events."
        } else {
            ""
        };
        match (self.clock.ended, self.clock.ended_at) {
            (Some("expired"), Some(at)) => format!("{breaks} It expired on {}.", moment(at)),
            (Some(how), Some(at)) => format!("{breaks} It was {how} on {}.", moment(at)),
            _ => breaks.to_owned(),
        }
    }

    fn never_in_words(&self) -> String {
        let never = match self.ledger.broken {
            None => "No line of this ledger says that this node ever carried the order out.",
            Some(_) => "No line before the broken one says that this node ever carried the order out.",
        };
        match self.clock.due {
            None => never.to_owned(),
            Some(due) if due < self.made => {
                let since = span(self.made.as_second() - due.as_second());
                format!("{never} Its deadline of {} had passed {since} before this report was made.", moment(due))
            }
            Some(due) => format!("{never} Its deadline is {}.", moment(due)),
        }
    }
}

fn order_of(happening: &Happening) -> &str {
    match happening {
        Happening::OrderLoaded(facts) | Happening::OrderAmended(facts) => &facts.order,
        Happening::OrderApproved { order, .. }
        | Happening::OrderActivated { order, .. }
        | Happening::OrderSuspended { order }
        | Happening::OrderLifted { order }
        | Happening::OrderExpired { order }
        | Happening::OrderRemoved { order } => order,
    }
}

/// What the targets of these keys are about. A target's key is the digest of what it is about, and its parts stand
/// together in `all`; so the run of parts with that digest is it.
fn targets_of(all: &[String], keys: &[String]) -> Vec<String> {
    let is_asked_for = |run: &[String]| keys.contains(&Target::key_of(run.to_vec()));
    let mut named = Vec::new();
    for start in 0..all.len() {
        let short = all.len().min(start + TARGET_NAMES_TRIED_MAX);
        let ends = (start + 1..=short).chain((short < all.len()).then_some(all.len()));
        let runs = ends.map(|end| &all[start..end]);
        named.extend(runs.filter(|run| is_asked_for(run)).flatten().cloned());
    }
    named
}
