//! The threads that serve: one runtime and one set of listeners each.

use std::sync::Arc;
use std::thread;

use tokio::runtime;
use tokio::sync::{mpsc, watch};

use super::Refusal;
use crate::config::Config;
use crate::listener::{self, Phase, Shared};

/// After so many tasks a worker looks what has come in, if it had no time to before. More than tokio's own 61, so that
/// the replies of one look are delivered before the next, and the answers made of them leave together.
const TASKS_PER_LOOK: u32 = 256;

/// How many there are: `[listen] threads`, else one per core.
pub(super) fn count(config: &Config) -> usize {
    config.threads.or_else(|| thread::available_parallelism().ok()).map_or(1, Into::into)
}

/// One thread, runtime and set of listeners per worker. The receiver hears of each that ends, and `None` when all have.
pub(super) fn start(
    bound: Vec<listener::Bound>,
    shared: &Arc<Shared>,
    phases: &watch::Receiver<Phase>,
) -> Result<mpsc::Receiver<()>, Refusal> {
    let (ended, receiver) = mpsc::channel(bound.len().max(1));
    for (number, bound) in bound.into_iter().enumerate() {
        let (shared, phase, ended) = (Arc::clone(shared), phases.clone(), ended.clone());
        let work = move || {
            let _ended = Ended(ended);
            shared.telemetry.enter(number);
            match runtime::Builder::new_current_thread().event_interval(TASKS_PER_LOOK).enable_all().build() {
                Ok(runtime) => {
                    if let Err(error) = runtime.block_on(listener::run(bound, shared, phase)) {
                        tracing::error!(%error, "worker ended");
                    }
                }
                Err(error) => tracing::error!(%error, "cannot make a runtime"),
            }
        };
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(work)
            .map_err(|error| Refusal::line(format!("cannot start a worker thread: {error}")))?;
    }
    Ok(receiver)
}

/// Tells that a worker has ended, also where it panicked.
struct Ended(mpsc::Sender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // There is room for each worker; and nobody listens any more where the whole process ends.
        let _ = self.0.try_send(());
    }
}
