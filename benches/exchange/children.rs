//! Processes beside this one: where they run, how they are waited for, and that none outlives its handle.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Failure;
use super::account::cores;
use super::run::{Asked, Run};

/// How long a server may take until it says where it is.
const READY: Duration = Duration::from_secs(10);

/// Which cores are whose, as `taskset -c` writes them; None: everywhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// A server with one worker.
    pub(crate) server: Option<String>,
    /// The generator and the upstream.
    pub(crate) load: Option<String>,
    /// A server that is busy with two threads.
    pub(crate) two: Option<String>,
    /// The generator that asks that one: on two cores it is in its way wherever it runs, and the kernel sees to it.
    pub(crate) beside_two: Option<String>,
    /// All there are; None where nothing is pinned.
    all: Option<String>,
    /// What is said about it.
    pub(crate) said: String,
}

impl Places {
    /// The first core is the server's, the others are the generator's.
    pub(crate) async fn find() -> Self {
        let cores: Vec<_> = cores().iter().map(ToString::to_string).collect();
        let [server, load @ ..] = &cores[..] else { return Self::nothing("/proc says nothing about cores") };
        if load.is_empty() {
            return Self::nothing("there is one core only");
        }
        let there = Command::new("taskset").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
        if there.is_err() {
            return Self::nothing("there is no taskset (util-linux)");
        }
        let two = (load.len() > 1).then(|| cores[..2].join(","));
        let beside_two = (load.len() > 1).then(|| cores[2..].join(","));
        let load = load.join(",");
        let alone = if two.is_none() { "; where a server has two busy threads, nothing" } else { "" };
        let said = format!("servers to core {server}, generator and upstream to {load}{alone}");
        Self { server: Some(server.clone()), load: Some(load), two, beside_two, all: Some(cores.join(",")), said }
    }

    /// The generator's cores in a run.
    pub(crate) fn beside(&self, run: &Run) -> Option<&String> {
        if run.asked == Asked::OursOfTwo { self.beside_two.as_ref() } else { self.load.as_ref() }
    }

    /// Lets a server that was pinned to one core have those of two busy threads.
    pub(crate) async fn widen(&self, pid: u32) -> Result<(), Failure> {
        let Some(cores) = self.two.as_ref().or(self.all.as_ref()) else { return Ok(()) };
        let mut taskset = Command::new("taskset");
        taskset.args(["--all-tasks", "--cpu-list", "--pid", cores, &pid.to_string()]);
        run(taskset, READY).await.map(drop)
    }

    fn nothing(why: &str) -> Self {
        Self { said: format!("nothing: {why}"), ..Self::default() }
    }
}

/// A program that ends with its handle, pinned to cores where there are some to pin it to.
pub(crate) fn command(program: impl AsRef<OsStr>, cores: Option<&String>) -> Command {
    let mut command = match cores {
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cores]).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// A server that says its address in its first line.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it serves.
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts this program again in another part.
    pub(crate) async fn start(cores: Option<&String>, part: &[&OsStr]) -> Result<Self, Failure> {
        let mut child = command(std::env::current_exe()?, cores).args(part).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let line = timeout(READY, BufReader::new(stdout).lines().next_line()).await??;
        let address = line.ok_or_else(|| format!("{part:?} ended at once"))?.parse()?;
        Ok(Self { child, address })
    }

    /// Its number in /proc.
    pub(crate) fn pid(&self) -> Result<u32, Failure> {
        pid(&self.child)
    }
}

/// A child's number in /proc; `taskset` becomes what it starts and keeps it.
pub(crate) fn pid(child: &Child) -> Result<u32, Failure> {
    child.id().ok_or_else(|| "a server has ended".into())
}

/// Runs a program to its end, which must come in time and be a good one.
pub(crate) async fn run(mut command: Command, limit: Duration) -> Result<Vec<u8>, Failure> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let Output { status, stdout, stderr } = timeout(limit, child.wait_with_output()).await??;
    if status.success() {
        return Ok(stdout);
    }
    Err(format!("{:?}: {status}: {}", command.as_std(), String::from_utf8_lossy(&stderr)).into())
}

/// A program's folder and log in one: where it runs, and where what it says goes.
pub(crate) fn logged(command: &mut Command, folder: &Path, log: &Path) -> Result<(), Failure> {
    let log = std::fs::File::create(log)?;
    command.current_dir(folder).stdout(log.try_clone()?).stderr(log);
    Ok(())
}
