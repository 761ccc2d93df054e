//! Programs: found, run within bounds, ended through their handles.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The longest that a client may take for what it is asked.
pub const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// How often something awaited is looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Where a program is; None where it is not installed, which is said. With `BAILIWICK_CLIENTS=required` that fails.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// Says what is skipped, or fails where `BAILIWICK_CLIENTS=required`.
pub fn skip(why: &str) {
    assert!(std::env::var_os("BAILIWICK_CLIENTS").is_none_or(|value| value != "required"), "{why}");
    eprintln!("skipped: {why}");
}

/// A running program, killed and waited for when it is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it, its output in `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::create(log).expect("a log in our own folder");
        let errors = file.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// Its exit status was 0.
    pub success: bool,
    /// Standard output, then standard error.
    pub text: String,
}

impl Said {
    /// Fails, showing everything, unless it said this.
    #[track_caller]
    pub fn must_say(&self, words: &str) -> &Self {
        assert!(self.text.contains(words), "expected {words:?} in:\n{}", self.text);
        self
    }

    /// Fails, showing everything, if it said this.
    #[track_caller]
    pub fn must_not_say(&self, words: &str) -> &Self {
        assert!(!self.text.contains(words), "expected no {words:?} in:\n{}", self.text);
        self
    }
}

/// Runs a program to its end, or kills it after [`RUN_TIMEOUT`].
pub fn run(folder: &Path, command: &mut Command) -> Said {
    let log = tempfile::Builder::new().prefix("run").tempfile_in(folder).expect("a log in our own folder");
    let mut process = Process::start(command, log.path());
    let ended = wait_for(RUN_TIMEOUT, || process.has_ended());
    let text = String::from_utf8_lossy(&std::fs::read(log.path()).unwrap_or_default()).into_owned();
    assert!(ended, "{command:?} did not end within {RUN_TIMEOUT:?}:\n{text}");
    Said { success: process.0.wait().is_ok_and(|status| status.success()), text }
}

/// Waits until something holds; false when it did not in time.
pub fn wait_for(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if holds() {
            return true;
        }
        sleep(LOOK_INTERVAL);
    }
    false
}
