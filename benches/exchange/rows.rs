//! The table's rows: which run each is found in, what it is compared with, and what is to be reached.

use super::measure::Sample;
use super::run::{Asked, Protocol, Run};
use super::series::Series;

/// A figure out of a run.
pub(crate) type Part = fn(&Sample) -> f64;

/// Writes a query above which the answers of a read no longer leave together.
pub(crate) const WRITES_MAX: f64 = 0.15;

/// A line of the table, to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What `--only` finds it by.
    pub(crate) id: &'static str,
    pub(crate) group: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) source: Source,
    /// None: shown for information.
    pub(crate) target: Option<Target>,
}

/// Where a row's figures come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source {
    /// The rounds: one run's figure, and what it is compared with.
    Rounds { part: Part, ours: Run, against: Option<Against> },
    /// Connections that are held.
    Idle(Protocol),
    /// A list that changes.
    Swap,
}

/// What a figure is compared with: the word for it, and where it is found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Against(pub(crate) &'static str, Part, Run);

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// So many times what it is compared with, at most.
    Times(f64),
    /// So much more than that, at most.
    Plus(f64),
    /// So much, at most.
    AtMost(f64),
}

/// A row that has been measured.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) row: Row,
    pub(crate) ours: Series,
    /// The word for what it is compared with, and its figures.
    pub(crate) against: Option<(&'static str, Series)>,
}

const CPU: &str = "server CPU, µs a query";
const WRITES: &str = "system calls that write, a query";
const CONNECTING: &str = "server CPU, µs a connection with one query";
const WAITING: &str = "what a client waits, ms";
const MEMORY: &str = "memory of a connection that idles, KiB";
const GENERATOR: &str = "the generator's own CPU, µs a query";

/// All of them, those that share a run beside each other.
pub(crate) const ROWS: [Row; 24] = [
    cpu("doh", "DoH hits, 10 connections × 10", Run::DOH, canned(Run::DOH), Some(Target::Times(1.25))),
    cpu("doh-padded", "the same, padded", Run::DOH_PADDED, hits(Run::DOH), Some(Target::Times(1.15))),
    cpu("doh-padded", "the same", Run::DOH_PADDED, canned(Run::DOH_PADDED), None),
    cpu("doh-blocked", "DoH, blocked by orders, 10 × 10", Run::DOH_BLOCKED, hits(Run::DOH), None),
    cpu("doh-wide", "DoH hits, 100 × 1", Run::DOH_WIDE, canned(Run::DOH_WIDE), Some(Target::Times(1.15))),
    cpu(
        "dot",
        "DoT hits, 10 connections, 100,000/s",
        Run::DOT_PACED,
        canned(Run::DOT_PACED),
        Some(Target::Times(1.10)),
    ),
    user("dot", "of it user time", Run::DOT_PACED, Some(Target::Times(2.0))),
    cpu("dot-in-step", "DoT hits, 10 × 10, all answers in a write", Run::DOT, canned(Run::DOT), None),
    cpu("doh-misses", "DoH misses, 10 × 10", Run::DOH_MISSES, hits(Run::DOH), Some(Target::Plus(10.0))),
    cpu("dot-misses", "DoT misses, 10 × 10", Run::DOT_MISSES, hits(Run::DOT), Some(Target::Plus(10.0))),
    cpu("workers", "DoH hits, 10 × 10, two workers", Run::DOH_OF_TWO, one(Run::DOH), Some(Target::Times(1.10))),
    writes("doh", "DoH hits, 10 × 10", Run::DOH),
    writes("doh-padded", "the same, padded", Run::DOH_PADDED),
    Row {
        group: CONNECTING,
        ..cpu("handshakes", "full handshakes", Run::FULL, canned(Run::FULL), Some(Target::Times(1.2)))
    },
    Row { group: CONNECTING, ..cpu("resumed", "resumed ones", Run::RESUMED, canned(Run::RESUMED), None) },
    first("first-dot", "first answer on a new connection, DoT, p50", Run::DOT_NEW),
    first("first-doh", "the same, DoH", Run::DOH_NEW),
    Row {
        id: "doh",
        group: WAITING,
        figure: "DoH at saturation, 10 × 10, p99",
        source: Source::Rounds {
            part: Sample::p99_ms,
            ours: Run::DOH,
            against: Some(Against("p50", Sample::p50_ms, Run::DOH)),
        },
        target: Some(Target::Times(3.0)),
    },
    Row {
        id: "swap",
        group: WAITING,
        figure: "a policy swap at saturation, p99",
        source: Source::Swap,
        target: Some(Target::Times(1.5)),
    },
    idle("idle-doh", "HTTP/2, 10,000 held a minute", Protocol::Doh, 30.0),
    idle("idle-dot", "DoT, 10,000 held a minute", Protocol::Dot, 13.0),
    generator("doh", "DoH, 10 × 10", Run::DOH),
    generator("doh-wide", "DoH, 100 × 1", Run::DOH_WIDE),
    generator("dot-in-step", "DoT, 10 × 10", Run::DOT),
];

const fn cpu(id: &'static str, figure: &'static str, ours: Run, against: Against, target: Option<Target>) -> Row {
    Row { id, group: CPU, figure, source: Source::Rounds { part: Sample::cpu, ours, against: Some(against) }, target }
}

const fn user(id: &'static str, figure: &'static str, ours: Run, target: Option<Target>) -> Row {
    let against = Some(Against("canned", Sample::user, ours.canned()));
    Row { id, group: CPU, figure, source: Source::Rounds { part: Sample::user, ours, against }, target }
}

const fn writes(id: &'static str, figure: &'static str, ours: Run) -> Row {
    let source = Source::Rounds { part: Sample::writes, ours, against: None };
    Row { id, group: WRITES, figure, source, target: Some(Target::AtMost(0.12)) }
}

const fn first(id: &'static str, figure: &'static str, ours: Run) -> Row {
    let source = Source::Rounds { part: Sample::first_ms, ours, against: None };
    Row { id, group: WAITING, figure, source, target: Some(Target::AtMost(5.0)) }
}

const fn idle(id: &'static str, figure: &'static str, protocol: Protocol, kib: f64) -> Row {
    Row { id, group: MEMORY, figure, source: Source::Idle(protocol), target: Some(Target::AtMost(kib)) }
}

const fn generator(id: &'static str, figure: &'static str, ours: Run) -> Row {
    let against = Some(Against("server", Sample::cpu, ours));
    let source = Source::Rounds { part: Sample::generator, ours, against };
    Row { id, group: GENERATOR, figure, source, target: Some(Target::Times(0.5)) }
}

const fn canned(run: Run) -> Against {
    Against("canned", Sample::cpu, run.canned())
}

const fn hits(run: Run) -> Against {
    Against("hits", Sample::cpu, run)
}

const fn one(run: Run) -> Against {
    Against("one", Sample::cpu, run)
}

impl Row {
    /// Whether it is measured in a minute's run too: what has to be held or needs a server of its own is not.
    pub(crate) fn is_quick(&self) -> bool {
        !self.runs().is_empty() && self.runs().iter().all(|run| run.asked != Asked::OursOfTwo)
    }

    /// Its runs, what it is compared with first.
    pub(crate) fn runs(&self) -> Vec<Run> {
        match self.source {
            Source::Rounds { ours, against, .. } => {
                against.map(|against| against.2).into_iter().chain([ours]).collect()
            }
            Source::Idle(_) | Source::Swap => Vec::new(),
        }
    }

    /// Its figures, where they are in the rounds.
    pub(crate) fn found(self, samples: &[Sample]) -> Option<Found> {
        let Source::Rounds { part, ours, against } = self.source else { return None };
        let of = |part: Part, run: Run| Series(samples.iter().filter(|sample| sample.run == run).map(part).collect());
        let against = against.map(|Against(word, part, run)| (word, of(part, run)));
        Some(Found { row: self, ours: of(part, ours), against })
    }
}

impl Found {
    /// What the target is about, and what it says.
    pub(crate) fn relation(&self) -> Option<f64> {
        let (_, against) = self.against.as_ref()?;
        Some(match self.row.target {
            Some(Target::Plus(_)) => self.ours.with(against, |ours, against| ours - against).median(),
            _ => self.ours.with(against, |ours, against| ours / against).median(),
        })
    }

    /// Whether it is; None where there is no target.
    pub(crate) fn reached(&self) -> Option<bool> {
        let (Target::Times(limit) | Target::Plus(limit) | Target::AtMost(limit)) = self.row.target?;
        Some(self.relation().unwrap_or_else(|| self.ours.median()) <= limit)
    }

    /// Whether its answers no longer leave together: that does not vary from one machine to the next.
    pub(crate) fn writes_too_often(&self) -> bool {
        self.row.group == WRITES && self.ours.median() > WRITES_MAX
    }
}

/// The runs of these rows, each once.
pub(crate) fn runs(rows: &[Row]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for run in rows.iter().flat_map(Row::runs) {
        if !runs.contains(&run) {
            runs.push(run);
        }
    }
    runs
}
