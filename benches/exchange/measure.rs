//! Rounds: every run once in each, those that are compared one after the other, and what the server used meanwhile.

use std::time::Instant;

use serde_json::{Value, json};

use super::account::Used;
use super::bed::{Bed, Servers};
use super::client::metric;
use super::load::{Report, load};
use super::names::Names;
use super::progress::Progress;
use super::run::{Asked, Run};
use super::{Failure, Wrong};

/// How often, and how long each time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
}

/// For so long each server is asked before anything counts: the cache fills, and pages are touched.
const WARM_SECONDS: f64 = 0.3;

/// Of this part of the queries at most the cache may do otherwise than the names are meant for: a name that is asked
/// for twice at once is one miss or two.
const STRAY: f64 = 0.01;

/// What a run found.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) run: Run,
    round: usize,
    used: Used,
    pub(crate) report: Report,
    raw: Value,
}

impl Sample {
    fn each(&self, total: f64) -> f64 {
        total / self.report.answered as f64
    }

    /// CPU time of the server, in µs a query.
    pub(crate) fn cpu(&self) -> f64 {
        self.each(self.used.cpu_us)
    }

    /// The user part of it.
    pub(crate) fn user(&self) -> f64 {
        self.each(self.used.user_us)
    }

    /// System calls of the server that write, a query.
    pub(crate) fn writes(&self) -> f64 {
        self.each(self.used.writes as f64)
    }

    /// From the beginning of a connection to its first answer, median, in ms.
    pub(crate) fn first_ms(&self) -> f64 {
        self.report.first_answer_us.p50 / 1_000.0
    }

    /// What the generator waits for an answer: median, in ms.
    pub(crate) fn p50_ms(&self) -> f64 {
        self.report.latency_us.p50 / 1_000.0
    }

    /// The same of one answer in a hundred.
    pub(crate) fn p99_ms(&self) -> f64 {
        self.report.latency_us.p99 / 1_000.0
    }

    /// CPU time of the generator, in µs a query.
    pub(crate) fn generator(&self) -> f64 {
        self.report.cpu_us_per_query
    }

    /// All of it, for machines.
    pub(crate) fn json(&self) -> Value {
        json!({
            "run": self.run.title(),
            "round": self.round,
            "server_cpu_us_per_query": self.cpu(),
            "server_user_us_per_query": self.user(),
            "server_writes_per_query": self.writes(),
            "load": self.raw,
        })
    }
}

/// Does them all, every other round backwards, so that neither of two that are compared is always the first.
pub(crate) async fn rounds(
    bed: &Bed,
    servers: &Servers,
    runs: &[Run],
    plan: Plan,
    progress: &mut Progress,
) -> Result<Vec<Sample>, Failure> {
    for run in runs.iter().filter(|run| run.names == Names::Hits) {
        progress.say(&format!("warming up: {}", run.title()));
        let (_, server) = servers.whom(run)?;
        load(bed, run, server, WARM_SECONDS, bed.places.beside(run)).await?;
    }
    let mut samples = Vec::with_capacity(plan.rounds * runs.len());
    let begun = Instant::now();
    for round in 1..=plan.rounds {
        let mut order: Vec<_> = runs.iter().collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for run in order {
            let (done, all) = (samples.len(), plan.rounds * runs.len());
            let left = begun.elapsed().as_secs_f64() / done.max(1) as f64 * (all - done) as f64;
            let left = if done == 0 { String::new() } else { format!(", {left:.0} s left") };
            progress.say(&format!("round {round} of {}{left}: {}", plan.rounds, run.title()));
            samples.push(sample(bed, servers, run, round, plan.seconds).await?);
        }
    }
    Ok(samples)
}

async fn sample(bed: &Bed, servers: &Servers, run: &Run, round: usize, seconds: f64) -> Result<Sample, Failure> {
    let (pid, server) = servers.whom(run)?;
    let misses_before = misses(servers, run).await?;
    let before = Used::of(pid)?;
    let (report, raw) = load(bed, run, server, seconds, bed.places.beside(run)).await?;
    let used = Used::of(pid)?.since(&before);
    let missed = misses(servers, run).await? - misses_before;
    let meant = if run.names == Names::Misses { report.answered as f64 } else { 0.0 };
    if run.asked != Asked::Canned && (missed - meant).abs() > STRAY * report.answered as f64 {
        let told = format!("{}: {missed} of {} queries were misses", run.title(), report.answered);
        return Err(Wrong(told).into());
    }
    Ok(Sample { run: *run, round, used, report, raw })
}

/// How many queries the cache had nothing for, as the product counts them.
async fn misses(servers: &Servers, run: &Run) -> Result<f64, Failure> {
    match servers.product(run) {
        Some(product) => metric(product.admin, "bailiwick_cache_misses_total").await,
        None => Ok(0.0),
    }
}
