//! The load generator: queries over DoH or DoT, as many or as fast as asked, and what became of them.

pub mod connection;
pub mod desk;
pub mod dot;
pub mod engine;
pub mod exchange;
pub mod histogram;
pub mod http2;
pub mod names;
pub mod pace;
pub mod pieces;
pub mod report;
pub mod show;
pub mod tally;
pub mod target;
pub mod tls;
pub mod trust;

use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use connection::Way;
use desk::Desk;
use engine::{Engine, Plan};
pub use engine::{Glance, PATIENCE};
use http2::request::Shape;
use names::Queries;
use pace::Pace;
pub use pace::Rate;
pub use report::Report;
pub use target::Protocol;
use target::Target;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What is spoken.
    pub protocol: Protocol,
    /// To whom, as it was written.
    pub target: String,
    /// The names file.
    pub names: PathBuf,
    /// Connections.
    pub connections: usize,
    /// Queries under way on each.
    pub in_flight: usize,
    /// Queries a second in all.
    pub rate: Rate,
    /// For how long.
    pub duration: Duration,
    /// The CA's file.
    pub ca: PathBuf,
    /// Whether connections after the first resume its TLS session.
    pub resume: bool,
    /// Whether queries are padded (RFC 8467).
    pub pad: bool,
    /// Whether DoH asks by GET.
    pub get: bool,
    /// Local addresses, in turn.
    pub sources: Vec<IpAddr>,
    /// Queries on a connection; 0: no bound.
    pub queries_per_connection: u64,
    /// Whether a target that is not this machine is loaded.
    pub may_load: bool,
}

/// Loads a server, and tells how it goes ten times a second. `stop` ends it before its time.
///
/// # Errors
/// When nothing could be asked: lines that say why.
pub fn run(wanted: &Wanted, stop: &AtomicBool, glance: &mut dyn FnMut(&Glance)) -> Result<Report, Vec<String>> {
    let one = |line: String| vec![line];
    if wanted.get && wanted.protocol == Protocol::Dot {
        return Err(one("--get is a way to ask over DoH; leave it out for DoT".to_owned()));
    }
    let target = Target::find(&wanted.target, wanted.protocol, wanted.may_load).map_err(one)?;
    let queries = Queries::read(&wanted.names, wanted.pad)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    open_files(wanted.connections).map_err(one)?;
    let config = trust::config(&wanted.ca, wanted.protocol, wanted.resume).map_err(one)?;
    let shape = match wanted.protocol {
        Protocol::Doh => Some(Rc::new(Shape::new(&target.authority, &target.path, wanted.get))),
        Protocol::Dot => None,
    };
    let pace = Pace::new(wanted.rate, queries.len() as u32);
    let plan = Plan {
        way: Way { address: target.address, name: target.name, config, shape },
        connections: wanted.connections,
        sources: wanted.sources.clone(),
        rate: wanted.rate,
        duration: wanted.duration,
    };
    let desk = Desk::new(queries, pace, wanted.in_flight, wanted.queries_per_connection);
    let mut engine = Engine::new(plan, desk).map_err(|error| one(error.to_string()))?;
    let cpu = engine.run(stop, glance).map_err(|what| one(format!("{}: {what}", wanted.target)))?;
    Ok(Report::new(wanted, engine.desk, cpu))
}

/// Files that are open beside the connections: the poll, the timer, the terminal, a bit more.
const FILES_BESIDE: u64 = 32;

/// Raises the limit of open files to what the connections need.
fn open_files(connections: usize) -> Result<(), String> {
    let need = connections as u64 + FILES_BESIDE;
    match rlimit::increase_nofile_limit(need) {
        Ok(have) if have < need => Err(format!(
            "{connections} connections need {need} open files, and {have} are allowed; raise that (ulimit -Hn {need}), \
             or ask for fewer with --connections"
        )),
        // Where it cannot be told, the sockets will say.
        _ => Ok(()),
    }
}
