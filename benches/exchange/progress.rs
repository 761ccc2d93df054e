//! What is being done, for those who wait: one line on a terminal, which the next one replaces.

use std::io::{IsTerminal, Write, stderr};

/// Where it is told: on a terminal only, since a log has no use for it.
#[derive(Debug)]
pub(crate) struct Progress {
    live: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { live: stderr().is_terminal() }
    }

    /// Nobody may be reading, and the measurement is what matters.
    pub(crate) fn say(&mut self, what: &str) {
        if self.live {
            let _ = write!(stderr(), "\r\x1b[K{what}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say("");
    }
}
