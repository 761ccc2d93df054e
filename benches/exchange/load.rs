//! The generator, `bailiwick load`: how it is started, what it tells, and whether what it heard was right.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::bed::{Bed, PRODUCT};
use super::names::Names;
use super::run::{Handshake, Protocol, Run};
use super::{Failure, Wrong, children};

/// How long the generator may take beyond the time that it measures for.
const GRACE: Duration = Duration::from_secs(15);

/// What `bailiwick load --json` prints, as far as it is needed here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    errors: BTreeMap<String, u64>,
    rcodes: BTreeMap<String, u64>,
    answers_with_records: u64,
    handshakes: Handshakes,
    pub(crate) latency_us: Latency,
    pub(crate) first_answer_us: Latency,
    pub(crate) per_second: Vec<Second>,
    /// Of the generator's own CPU time.
    pub(crate) cpu_us_per_query: f64,
}

#[derive(Debug, Clone, Deserialize)]
struct Handshakes {
    full: u64,
    resumed: u64,
}

/// Of all answers of a run, in microseconds.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// The answers of one second.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Second {
    /// Counted from the first query on.
    pub(crate) second: u64,
    pub(crate) p99_us: f64,
}

/// Runs the generator for so long, on these cores; its report, and the same as it was printed.
pub(crate) async fn load(
    bed: &Bed,
    run: &Run,
    server: SocketAddr,
    seconds: f64,
    cores: Option<&String>,
) -> Result<(Report, Value), Failure> {
    let names = run.names.file(&bed.path(""), seconds)?;
    let target = match run.protocol {
        Protocol::Doh => format!("https://{server}/dns-query"),
        Protocol::Dot => server.to_string(),
    };
    let mut command = children::command(PRODUCT, cores);
    command.args(["load", run.protocol.word(), &target, "--json", "--names"]).arg(names);
    command.args(["--rate", &run.rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string())]);
    command.args(["--duration", &format!("{}ms", seconds * 1_000.0), "--ca"]).arg(bed.path("certs/ca.pem"));
    command.args(["--connections", &run.connections.to_string(), "--in-flight", &run.in_flight.to_string()]);
    if run.padded {
        command.arg("--pad");
    }
    if let Some(handshake) = run.connecting {
        command.args(["--queries-per-connection", "1"]);
        command.args((handshake == Handshake::Resumed).then_some("--resume"));
    }
    let printed = children::run(command, Duration::from_secs_f64(seconds) + GRACE).await?;
    let raw: Value = serde_json::from_slice(&printed)?;
    let report = Report::deserialize(&raw)?;
    report.holds(run).map_err(|what| Wrong(format!("{}: {what}: {raw}", run.title())))?;
    Ok((report, raw))
}

impl Report {
    /// Every query has an answer, and every answer is of the kind that these names have.
    fn holds(&self, run: &Run) -> Result<(), &'static str> {
        let (rcode, records) = match run.names {
            Names::Blocked => ("NXDOMAIN", 0),
            Names::Hits | Names::One | Names::Misses => ("NOERROR", self.answered),
        };
        if self.errors.values().any(|count| *count > 0) || self.sent != self.answered {
            return Err("errors, or queries without an answer");
        }
        if self.answered == 0 || self.rcodes.get(rcode) != Some(&self.answered) {
            return Err("answers of another RCODE, or none");
        }
        if self.answers_with_records != records {
            return Err("answers without the records that they must have, or with some that they must not");
        }
        let connected = match run.connecting {
            None => true,
            Some(Handshake::Full) => self.handshakes.resumed == 0 && self.handshakes.full >= self.answered,
            // The first of each has nothing to resume.
            Some(Handshake::Resumed) => self.handshakes.full <= u64::from(run.connections),
        };
        connected.then_some(()).ok_or("handshakes of another kind, or not one each")
    }
}
