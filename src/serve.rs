//! Puts the parts together: build, run, reload, drain; the only one that knows everyone.

mod banner;
mod bookkeeping;
mod check;
mod chronicle;
mod operator;
pub mod proof;
mod proving;
mod public;
mod reading;
mod reload;
mod workers;

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::admin;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::listener::{self, Phase, Shared};
use crate::local::Locals;
use crate::mistake::Mistake;
use crate::pipeline::{Parts, Pipeline};
use crate::policy::Policy;
use crate::policy::load::{self, Loaded};
use crate::policy::register::Register;
use crate::telemetry::Telemetry;
use crate::telemetry::health::Health;
use crate::tls::{self, Certificates};
use crate::upstream::{self, Upstream};

use bookkeeping::{Books, Tally};
pub use check::{Report, check};
use chronicle::Chronicle;
use operator::Desk;
pub use operator::{explain, orders};
use proving::Proving;
use reading::Reading;
use reload::Reloader;

/// Descriptors kept for listeners, files and the operator, beside one per connection and one per query in flight.
const DESCRIPTORS_RESERVED: u64 = 512;

/// What the ledger may take at the end to write what waits, and the register to be written: queries do not wait for a
/// disk that hangs, nor does a drain.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// Why the process does not start or must end: lines to show, each with what, where and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// At least one.
    pub lines: Vec<String>,
}

impl Refusal {
    fn line(what: impl fmt::Display) -> Self {
        Self { lines: vec![what.to_string()] }
    }
}

impl From<Vec<Mistake>> for Refusal {
    fn from(mistakes: Vec<Mistake>) -> Self {
        Self { lines: mistakes.iter().map(ToString::to_string).collect() }
    }
}

/// A server whose sockets are bound and whose policy is in force: ready to run.
#[derive(Debug)]
pub struct Server {
    config: Config,
    reloader: Reloader,
    shared: Arc<Shared>,
    bound: Vec<listener::Bound>,
    admin: Option<TcpListener>,
    health: Health,
    started: Timestamp,
    ca: Option<std::path::PathBuf>,
    /// Held while the state folder is ours.
    state: Option<File>,
    /// None: none is kept.
    ledger: Option<Arc<Ledger>>,
}

impl Server {
    /// Reads the configuration and everything it names, and binds the sockets.
    ///
    /// # Errors
    /// Everything that keeps it from serving.
    pub fn build(config_path: &Path) -> Result<Self, Refusal> {
        let started = Timestamp::now();
        let (mut config, digest) = Config::read_with_digest(config_path)?;
        let written = config.clone();
        let workers = workers::count(&config);
        fit_descriptors(&mut config, workers);
        // Before anything is touched: a server that runs already has these.
        let bound = listener::bind(&config.listen, workers).map_err(Refusal::line)?;
        let admin = config.admin.map(bind_admin).transpose()?;
        let state = state_lock(&config)?;
        let (register, warning) = config.policy.state.as_deref().map(Register::read).unwrap_or_default();
        let loaded = load_all(&config, &register, started)?;
        let policy = Policy::compile(&loaded, 1, started).map_err(Refusal::line)?;
        // The first thing that is written, and only when everything that is read is in order.
        let ca = development_certificate(&config, started)?;
        let certificates = Certificates::load(&config.tls, started).map_err(Refusal::line)?;
        let health = Health::default();
        let pipeline = pipeline(&config, policy, workers);
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
        }
        reload::tell_loaded(&health, &loaded);
        let ledger = open_ledger(&config, started, &health);
        let chronicle = Arc::new(Chronicle::new(config.policy.state.clone(), register, ledger.clone()));
        let shared = shared(&config, &pipeline, &certificates, &chronicle);
        let books = Books { ledger: ledger.clone(), config_path: config_path.to_owned(), config: digest };
        let reloader = Reloader {
            config_path: config_path.to_owned(),
            config: written,
            pipeline,
            certificates,
            health: health.clone(),
            books,
            chronicle,
            waiting: Vec::new(),
            looked: started,
            list_targets: loaded.files,
            gone: loaded.gone,
            reading: Reading::default(),
        };
        Ok(Self { config, reloader, shared, bound, admin, health, started, ca, state, ledger })
    }

    /// What to tell whoever started it: where it listens, and what to try. At most ten lines.
    #[must_use]
    pub fn banner(&self) -> String {
        banner::text(&self.config, &self.reloader.pipeline.policy(), self.ca.as_deref(), self.started)
    }

    /// Serves until SIGTERM or SIGINT, then drains.
    ///
    /// # Errors
    /// When a runtime or thread cannot be made, or a worker ended on its own.
    pub fn run(self) -> Result<(), Refusal> {
        let control = runtime::Builder::new_current_thread().enable_all().build();
        control.map_err(|error| Refusal::line(format!("cannot make a runtime: {error}")))?.block_on(self.serve())
    }

    async fn serve(self) -> Result<(), Refusal> {
        let mut signals = Signals::new().map_err(|error| Refusal::line(format!("cannot wait for signals: {error}")))?;
        let (phase, phases) = watch::channel(Phase::Running);
        let places = proving::places(&self.bound, &self.config.listen.doh_path);
        let mut workers = workers::start(self.bound, &self.shared, &phases)?;
        let chronicle = Arc::clone(&self.reloader.chronicle);
        // From here on clients are answered by it.
        self.reloader.books.note_generation(&self.reloader.pipeline.policy(), Timestamp::now());
        chronicle.follow(&self.reloader.pipeline.policy(), Timestamp::now());
        save(&chronicle, &self.health).await;
        let hangup = Arc::new(Notify::new());
        let pipeline = Arc::clone(&self.reloader.pipeline);
        let certificates = Arc::clone(&self.reloader.certificates);
        let desk = Desk {
            pipeline: Arc::clone(&pipeline),
            certificates,
            health: self.health.clone(),
            chronicle: Arc::clone(&chronicle),
            ledger: self.ledger.clone(),
            started: self.started,
        };
        if let Some(listener) = self.admin {
            let listener = tokio::net::TcpListener::from_std(listener);
            let listener = listener.map_err(|error| Refusal::line(format!("the admin listener: {error}")))?;
            tokio::spawn(admin::serve(listener, Arc::new(desk)));
        }
        tokio::spawn(Arc::clone(pipeline.upstream()).keep_watch());
        tokio::spawn(Arc::clone(&pipeline).follow_returns());
        tokio::spawn(operator::watch_upstreams(Arc::clone(&pipeline), self.health.clone()));
        let proving = Proving::new(places, &pipeline, &chronicle, self.ledger.clone(), self.health.clone());
        let proving = tokio::spawn(proving.run());
        let tally = start_tally(self.ledger.as_ref(), &pipeline, &self.health);
        let reloader = tokio::spawn(self.reloader.run(Arc::clone(&hangup)));
        loop {
            tokio::select! {
                _ = signals.hangup.recv() => hangup.notify_one(),
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = workers.recv() => return Err(Refusal::line("a worker has ended on its own; the log says why")),
            }
        }
        self.health.unready("drain", Some("draining".to_owned()));
        // Whoever starts in our place while we drain has the files from now on.
        reloader.abort();
        proving.abort();
        end_ledger(tally, self.ledger).await;
        chronicle.follow_ledger();
        save(&chronicle, &self.health).await;
        // A load that is under way still must not write over what our successor keeps.
        chronicle.end();
        drop(self.state);
        // No worker is left where this fails, and that is what is waited for.
        phase.send_replace(Phase::Draining);
        while workers.recv().await.is_some() {}
        tracing::info!("drained");
        Ok(())
    }
}

/// The signals that matter.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Takes the state folder for this process: two that keep their last good copies in one would remove each other's. None
/// where there is none, or nothing can be written to it, which keeping copies will tell.
fn state_lock(config: &Config) -> Result<Option<File>, Refusal> {
    let Some(folder) = &config.policy.state else { return Ok(None) };
    let open = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(folder.join("lock"))
    };
    let Ok(file) = open() else { return Ok(None) };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let folder = folder.display();
            Err(Refusal::line(format!("{folder}: in use by another bailiwick; give each its own [state] folder")))
        }
        // A file system without locks cannot be asked.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// Where it cannot be opened, serving goes on.
fn open_ledger(config: &Config, now: Timestamp, health: &Health) -> Option<Arc<Ledger>> {
    let folder = config.policy.state.as_ref().filter(|_| config.ledger)?;
    let opened = Ledger::open(folder, now);
    health.degrade("ledger", opened.as_ref().map_or_else(|error| Some(error.to_string()), Ledger::complaint));
    opened.ok().map(Arc::new)
}

fn start_tally(ledger: Option<&Arc<Ledger>>, pipeline: &Pipeline, health: &Health) -> Option<Arc<Tally>> {
    let (ledger, telemetry) = (Arc::clone(ledger?), Arc::clone(pipeline.telemetry()));
    let tally = Arc::new(Tally::new(ledger, telemetry, Timestamp::now()));
    tokio::spawn(Arc::clone(&tally).keep(health.clone()));
    Some(tally)
}

/// Has the register written beside the runtime, and waits for it for a while.
async fn save(chronicle: &Arc<Chronicle>, health: &Health) {
    let (chronicle, health) = (Arc::clone(chronicle), health.clone());
    let saving = tokio::task::spawn_blocking(move || health.degrade("register", chronicle.save().err()));
    if tokio::time::timeout(WRITE_PATIENCE, saving).await.is_err() {
        tracing::warn!("the register is not written yet: the disk has not taken it in time");
    }
}

/// Writes what is still to be written. What is blocked from here on, while connections end, is in no line.
async fn end_ledger(tally: Option<Arc<Tally>>, ledger: Option<Arc<Ledger>>) {
    let (Some(tally), Some(ledger)) = (tally, ledger) else { return };
    tally.finish(Timestamp::now());
    match tokio::task::spawn_blocking(move || ledger.close(WRITE_PATIENCE)).await {
        Ok(0) => {}
        Ok(events) => tracing::warn!(events, "not in the ledger: the disk did not take them in time"),
        Err(error) => tracing::warn!(%error, "the ledger did not end well"),
    }
}

/// Makes the development CA and certificate where neither file of `[tls]` exists; its CA file is told.
fn development_certificate(config: &Config, now: Timestamp) -> Result<Option<std::path::PathBuf>, Refusal> {
    let tls = &config.tls;
    if !tls.certificate.exists() && !tls.key.exists() {
        let names = development_names(config);
        return tls::make_development(tls, &names, now).map(Some).map_err(Refusal::line);
    }
    // Made at an earlier start: still worth telling.
    let ca = tls.certificate.with_file_name("ca.pem");
    Ok(ca.exists().then_some(ca))
}

/// Names and addresses a client on this machine may use, and our own.
fn development_names(config: &Config) -> Vec<String> {
    let own = config.local.name.iter().map(ToString::to_string);
    let addresses = config.local.addresses.iter().map(ToString::to_string);
    let listened = config.listen.doh.iter().chain(&config.listen.dot).map(|place| place.address.ip());
    let listened = listened.filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .into_iter()
        .chain(own)
        .chain(listened)
        .chain(addresses)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// At start everything must be readable, or have a last good copy.
fn load_all(config: &Config, register: &Register, now: Timestamp) -> Result<Loaded, Refusal> {
    let before = load::Before { register: register.clone(), ..load::Before::default() };
    let loaded = load::load(&config.policy, &before, now);
    if may_start(&loaded) { Ok(loaded) } else { Err(not_started(&loaded)) }
}

/// Whether nothing was refused but a folder of orders that cannot be read, whose orders have their copies: a folder that
/// is not mounted yet keeps nobody from serving.
fn may_start(loaded: &Loaded) -> bool {
    let is_folder = |mistake: &Mistake| Some(&mistake.file) == loaded.settings.orders.as_ref();
    loaded.refused.iter().all(|mistake| is_folder(mistake) && !loaded.orders.is_empty())
}

/// The mistakes, and what they mean for the start. Of a folder that cannot be read its own line says all.
fn not_started(loaded: &Loaded) -> Refusal {
    let mut files: Vec<_> = loaded.refused.iter().map(|mistake| &mistake.file).collect();
    files.retain(|file| Some(*file) != loaded.settings.orders.as_ref());
    files.sort();
    files.dedup();
    let mut refusal = Refusal::from(loaded.refused.clone());
    refusal.lines.extend(match files.len() {
        0 => None,
        1 => Some("not started: 1 file above has no last good copy; mend or remove it".to_owned()),
        count => Some(format!("not started: {count} files above have no last good copy; mend or remove them")),
    });
    refusal
}

/// Raises the soft limit on open files to what `[limits]` needs. Where the hard limit is lower, fewer connections are
/// taken, and fewer sockets to upstreams kept at hand: descriptors for queries to upstreams must be left.
fn fit_descriptors(config: &mut Config, workers: usize) {
    // The main thread asks too, for `explain`.
    let spare = config.upstream.spare_sockets_max(workers + 1);
    let kept = (config.pipeline.in_flight + spare) as u64 + DESCRIPTORS_RESERVED;
    let wanted = config.listen.connections as u64 + kept;
    let have = rlimit::increase_nofile_limit(wanted).unwrap_or(wanted);
    if have < wanted {
        config.upstream.fit_into(usize::try_from(have / 8).unwrap_or(usize::MAX), workers + 1);
    }
    let room = usize::try_from(have.saturating_sub(kept).max(have / 2)).unwrap_or(usize::MAX);
    if config.listen.connections > room {
        let connections = config.listen.connections;
        tracing::info!(
            "{room} connections instead of {connections} of [limits]: raise the open files (ulimit -n) to {wanted}"
        );
        config.listen.connections = room;
    }
}

fn bind_admin(address: std::net::SocketAddr) -> Result<TcpListener, Refusal> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there: stop it or change [listen] admin",
            _ => "change [listen] admin",
        };
        Refusal::line(format!("cannot listen on {address} for the operator: {error}; {help}"))
    })
}

fn pipeline(config: &Config, policy: Policy, workers: usize) -> Arc<Pipeline> {
    Pipeline::new(Parts {
        policy,
        cache: Cache::new(&config.cache),
        upstream: Upstream::new(&config.upstream, Arc::new(upstream::System)),
        locals: Locals::new(&config.local),
        telemetry: Telemetry::new(workers),
        clock: Clock::system(),
        settings: config.pipeline.clone(),
    })
}

fn shared(
    config: &Config,
    pipeline: &Arc<Pipeline>,
    certificates: &Arc<Certificates>,
    chronicle: &Arc<Chronicle>,
) -> Arc<Shared> {
    let dot_tls = tls::server_config(certificates, &[b"dot"]);
    let doh_tls = tls::server_config(certificates, &[b"h2", b"http/1.1"]);
    let telemetry = Arc::clone(pipeline.telemetry());
    let pages = public::pages(pipeline, chronicle);
    Shared::new(Arc::clone(pipeline), config.listen.clone(), dot_tls, doh_tls, telemetry, Some(pages))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_read_starts_with_the_copies_of_its_orders() {
        let folder = tempfile::tempdir().unwrap();
        let (orders, state) = (folder.path().join("orders"), folder.path().join("state"));
        let settings =
            load::Settings { orders: Some(orders.clone()), state: Some(state.clone()), ..load::Settings::default() };
        let load = || load::load(&settings, &load::Before::default(), Timestamp::now());
        assert!(!may_start(&load()), "there is no copy");
        std::fs::create_dir(&orders).unwrap();
        let order = "id = 'x'\nissuer = 'Court'\njurisdiction = ['*']\nreceived = 2026-01-01T00:00:00Z\n\
                     state = 'in-force'\n[[target]]\nsubtree = ['a.example']\n";
        std::fs::write(orders.join("a.toml"), order).unwrap();
        assert!(may_start(&load()));
        std::fs::rename(&orders, folder.path().join("away")).unwrap();
        let loaded = load();
        assert!(may_start(&loaded) && loaded.orders.len() == 1 && !loaded.refused.is_empty());
        std::fs::create_dir(&orders).unwrap();
        std::fs::write(orders.join("b.toml"), "id = 1").unwrap();
        assert!(!may_start(&load()), "a file without a copy");
    }

    #[test]
    fn a_start_that_fails_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let settings = load::Settings { orders: Some(folder.path().join("orders")), ..load::Settings::default() };
        let last_line = || {
            let loaded = load::load(&settings, &load::Before::default(), Timestamp::now());
            not_started(&loaded).lines.pop().unwrap()
        };
        assert!(last_line().contains("the folder of orders cannot be read"), "{}", last_line());
        std::fs::create_dir(folder.path().join("orders")).unwrap();
        std::fs::write(folder.path().join("orders/a.toml"), "id = 1\nissuer = 2").unwrap();
        assert_eq!(last_line(), "not started: 1 file above has no last good copy; mend or remove it");
        std::fs::write(folder.path().join("orders/b.toml"), "").unwrap();
        assert_eq!(last_line(), "not started: 2 files above have no last good copy; mend or remove them");
    }
}
