//! Reads lists that have changed, on a thread of its own that leaves the processors to those who answer.

use std::future::pending;
use std::io;
use std::thread;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use tokio::sync::oneshot;

use crate::policy::load::{self, Bulk, Print};

/// How much nicer than the process the thread is: the most there is. Where every processor is busy it is left 1.5 % of
/// one, in slices of 3 ms: 0.3 s of work, a list of 730,000 names, should be in force after some 20 s then. The share is
/// what bounds how many answers meet a slice: at 10 the 99th percentile of DoT had spikes, at 15 it had none, and that of
/// DoH was too noisy to tell. A processor that is idle it has for itself.
const NICER: i32 = 19;

/// A pass over the operator's lists, if one is under way.
#[derive(Debug, Default)]
pub(super) struct Reading {
    end: Option<oneshot::Receiver<Bulk>>,
    /// The files as they were when the last pass began: one that cannot be read is not tried again until it changes.
    seen: Vec<Option<Print>>,
}

impl Reading {
    /// Begins a pass, if a file has changed since it was compiled, or since it could not be, and none is under way.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn begin(&mut self, settings: &load::Settings, before: Bulk) -> io::Result<()> {
        if self.end.is_some() || !before.is_behind(&settings.lists) {
            return Ok(());
        }
        let now = settings.lists.iter().map(|list| Print::of(&list.file)).collect();
        if self.seen == now {
            return Ok(());
        }
        let (said, end) = oneshot::channel();
        let settings = settings.clone();
        let read = move || {
            stand_back();
            // Where nobody waits for it any more, the state folder may be our successor's.
            let (bulk, warning) = load::lists(&settings, &before, || !said.is_closed());
            if let Some(warning) = warning {
                tracing::warn!("{warning}");
            }
            drop(said.send(bulk));
        };
        thread::Builder::new().name("lists".to_owned()).spawn(read)?;
        (self.end, self.seen) = (Some(end), now);
        Ok(())
    }

    /// Has the next pass look at files again that could not be read, even if they are as they were.
    pub(super) fn forget(&mut self) {
        self.seen.clear();
    }

    /// What a pass has made of the lists; waits for it, and for ever where none is under way. None: it has failed.
    pub(super) async fn end(&mut self) -> Option<Bulk> {
        let made = match &mut self.end {
            Some(end) => end.await.ok(),
            None => pending().await,
        };
        self.end = None;
        made
    }
}

/// Makes this thread nicer than the others. On Linux each thread has a niceness of its own, whatever POSIX says.
fn stand_back() {
    let this = Some(gettid());
    // The kernel takes 19 for what is beyond.
    let nicer = getpriority_process(this).and_then(|now| setpriority_process(this, now + NICER));
    if let Err(error) = nicer {
        tracing::debug!(%error, "lists are read at the niceness of the process");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::fs;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::policy::index::Covers;
    use crate::policy::list::Format;
    use crate::policy::load::ListSettings;
    use crate::policy::order::Effect;

    #[test]
    fn only_the_thread_itself_gets_nicer() {
        let niceness = || getpriority_process(Some(gettid())).unwrap();
        let before = niceness();
        let nicer = thread::spawn(move || {
            stand_back();
            niceness()
        });
        assert_eq!(nicer.join().unwrap(), (before + NICER).min(19));
        assert_eq!(niceness(), before);
    }

    #[tokio::test]
    async fn a_pass_is_made_for_each_change_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.txt");
        let (name, format, effect) = ("mine".to_owned(), Format::Domains, Effect::NxDomain);
        let list = ListSettings { name, file: file.clone(), format, covers: Covers::Subtree, effect };
        let settings = load::Settings { lists: vec![list], ..load::Settings::default() };
        let (mut reading, nothing) = (Reading::default(), Bulk::default());
        // It is not there, and is looked for once.
        reading.begin(&settings, nothing.clone()).unwrap();
        assert!(reading.end().await.unwrap().is_behind(&settings.lists));
        reading.begin(&settings, nothing.clone()).unwrap();
        assert!(reading.end.is_none());
        reading.forget();
        reading.begin(&settings, nothing.clone()).unwrap();
        assert!(reading.end().await.unwrap().is_behind(&settings.lists));
        fs::write(&file, "a.example\n").unwrap();
        reading.begin(&settings, nothing.clone()).unwrap();
        let bulk = reading.end().await.unwrap();
        assert!(!bulk.is_behind(&settings.lists));
        fs::write(&file, "b.example\nc.example\n").unwrap();
        assert!(bulk.is_behind(&settings.lists));
        // Nothing is under way, so nothing ends.
        assert!(timeout(Duration::from_millis(10), reading.end()).await.is_err());
    }

    #[tokio::test]
    async fn a_pass_that_fails_ends_too() {
        let mut reading = Reading { end: Some(oneshot::channel().1), ..Reading::default() };
        assert!(reading.end().await.is_none());
        assert!(reading.end.is_none());
    }
}
