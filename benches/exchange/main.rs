//! What a query costs the product, against the bare stack, in one run.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr, reason = "a program, not a library")]

mod account;
mod bed;
mod canned;
mod check;
mod children;
mod client;
mod idle;
mod load;
mod measure;
mod names;
mod progress;
mod rows;
mod run;
mod series;
mod swap;
mod table;
mod upstream;

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tikv_jemallocator::Jemalloc;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use bed::{Bed, Servers};
use measure::Plan;
use progress::Progress;
use rows::{Found, ROWS, Row, Source};
use run::Protocol;
use table::Findings;

/// The product's: canned answers are to differ from it in what is done, not in what memory costs.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// How long the whole may take; past it everything is stopped.
const LIMIT: Duration = Duration::from_secs(15 * 60);

const WHOLE: Plan = Plan { rounds: 9, seconds: 1.0 };
const QUICK: Plan = Plan { rounds: 3, seconds: 0.3 };

const EXIT_STATUS: &str = "\
Rows: doh, doh-padded, doh-blocked, doh-wide, dot, dot-in-step, doh-misses, dot-misses, workers,
handshakes, resumed, first-dot, first-doh, swap, idle-doh, idle-dot.

Exit status: 0 measured, whatever the times; 1 a wrong answer, or more than 0.15 writes a query;
2 it could not be measured.";

/// Whatever keeps this from being measured.
type Failure = Box<dyn Error>;

/// An answer that is not what it must be.
#[derive(Debug)]
struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Wrong {}

/// Measures the release binary beside the bare stack, and prints both.
#[derive(Debug, Parser)]
#[command(after_help = EXIT_STATUS)]
struct Wanted {
    /// Within a minute: shorter rounds, without what has to be held for long
    #[arg(long)]
    quick: bool,
    /// Only the rows whose name begins so; may be given again
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// How many rounds; without it 9, or 3 with --quick
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Print one JSON object with every round
    #[arg(long)]
    json: bool,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What this program is when it is started by itself.
#[derive(Debug, Subcommand)]
enum Part {
    /// Serve canned answers: doh or dot, plain or padded; prints its address
    Canned { speaks: String, padded: String, certificate: PathBuf, key: PathBuf },
    /// Answer as a plain resolver that knows every name; prints its address
    Upstream,
}

fn main() -> ExitCode {
    let wanted = Wanted::parse();
    if let Some(part) = wanted.part {
        let Err(error) = serve(part);
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    match measured(&wanted) {
        Ok(findings) => {
            print(&wanted, &findings);
            ExitCode::from(u8::from(findings.found.iter().any(Found::writes_too_often)))
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(if failure.is::<Wrong>() { 1 } else { 2 })
        }
    }
}

fn serve(part: Part) -> Result<Infallible, Failure> {
    let ready = |address: SocketAddr| {
        println!("{address}");
        let _ = io::stdout().flush();
    };
    match part {
        Part::Canned { speaks, padded, certificate, key } => {
            let speaks = if speaks == "doh" { Protocol::Doh } else { Protocol::Dot };
            canned::serve(speaks, padded == "padded", &certificate, &key, ready)
        }
        Part::Upstream => Ok(upstream::serve(ready)?),
    }
}

/// Measures until it is done, its time is over, or somebody ends it: in each case what was started ends with it.
fn measured(wanted: &Wanted) -> Result<Findings, Failure> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let [mut end, mut hangup] = [signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
        tokio::select! {
            findings = measure(wanted) => findings,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            _ = end.recv() => Err("ended".into()),
            // The product would reload, and stay.
            _ = hangup.recv() => Err("ended with its terminal".into()),
            () = sleep(LIMIT) => Err("it takes too long".into()),
        }
    })
}

async fn measure(wanted: &Wanted) -> Result<Findings, Failure> {
    let mut plan = if wanted.quick { QUICK } else { WHOLE };
    plan.rounds = wanted.rounds.unwrap_or(plan.rounds).max(1);
    let is_wanted = |row: &&Row| wanted.only.is_empty() || wanted.only.iter().any(|only| row.id.starts_with(only));
    let (rows, late): (Vec<Row>, Vec<Row>) =
        ROWS.iter().filter(is_wanted).partition(|row| !wanted.quick || row.is_quick());
    if rows.is_empty() && late.is_empty() {
        return Err("--only: no row begins so; --help has them".into());
    }
    let mut left_out: Vec<_> = late.iter().map(|row| format!("{}, with --quick", row.figure)).collect();
    let runs = rows::runs(&rows);
    let swapped = rows.iter().any(|row| matches!(row.source, Source::Swap));

    let mut progress = Progress::new();
    progress.say("starting the servers, and waiting until they are at rest");
    let bed = Bed::make().await?;
    let servers = Servers::start(&bed, &runs, swapped).await?;
    check::all(&bed, &servers, &runs).await?;
    let samples = measure::rounds(&bed, &servers, &runs, plan, &mut progress).await?;
    let mut found = Vec::new();
    for row in rows {
        found.extend(match row.source {
            Source::Rounds { .. } => row.found(&samples),
            Source::Swap => match &servers.ours {
                Some(product) => swap::swaps(&bed, product, row, &mut left_out, &mut progress).await?,
                None => None,
            },
            Source::Idle(protocol) => idle::held(&bed, row, protocol, &mut left_out, &mut progress).await?,
        });
    }
    Ok(Findings { plan, pinned: bed.places.said.clone(), real: bed.real, samples, found, left_out })
}

fn print(wanted: &Wanted, findings: &Findings) {
    let text = match wanted.json {
        true => format!("{:#}\n", findings.json()),
        false => findings.page(io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()),
    };
    // Who has heard enough may close the pipe.
    let _ = io::stdout().write_all(text.as_bytes());
}
