//! Tells a connection that the process is to end.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

use super::Phase;

/// Whether the process is to end. Asking costs one atomic load, but for the first time in a task: what wakes it when
/// the phase changes then stays registered.
pub struct Drain {
    phase: watch::Receiver<Phase>,
    begins: Pin<Box<dyn Future<Output = ()> + Send>>,
    registered: Option<Waker>,
    begun: bool,
}

impl Drain {
    /// Follows a phase.
    #[must_use]
    pub fn new(phase: watch::Receiver<Phase>) -> Self {
        let begins = Box::pin(begins(phase.clone()));
        // Only a change after the receiver's own mark counts as one.
        let begun = *phase.borrow() != Phase::Running;
        Self { phase, begins, registered: None, begun }
    }

    /// Whether it has begun. If not, the task is woken when it does.
    pub fn poll(&mut self, context: &mut Context<'_>) -> bool {
        if !self.begun {
            self.begun = self.poll_begins(context);
        }
        self.begun
    }

    /// Whether it had begun at the last [`Self::poll`].
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    fn poll_begins(&mut self, context: &mut Context<'_>) -> bool {
        let registered = self.registered.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if registered && matches!(self.phase.has_changed(), Ok(false)) {
            return false;
        }
        self.registered = Some(context.waker().clone());
        self.begins.as_mut().poll(context) == Poll::Ready(())
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// Ready once the process is to end; also where nobody is left to say so.
pub(super) async fn begins(mut phase: watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase != Phase::Running).await;
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn it_is_woken_when_the_phase_changes() {
        let (say, phase) = watch::channel(Phase::Running);
        let mut drain = Drain::new(phase);
        assert!(!poll_fn(|context| Poll::Ready(drain.poll(context))).await);
        let waits = tokio::spawn(async move {
            // Asked more than once in a task, it is still woken.
            poll_fn(|context| Poll::Ready(drain.poll(context))).await;
            poll_fn(|context| if drain.poll(context) { Poll::Ready(()) } else { Poll::Pending }).await;
            drain.has_begun()
        });
        tokio::task::yield_now().await;
        say.send_replace(Phase::Draining);
        assert!(matches!(waits.await, Ok(true)));
    }

    #[tokio::test]
    async fn a_connection_made_while_draining_knows_it() {
        let (say, mut phase) = watch::channel(Phase::Running);
        say.send_replace(Phase::Draining);
        phase.mark_unchanged();
        let mut drain = Drain::new(phase);
        assert!(poll_fn(|context| Poll::Ready(drain.poll(context))).await);
    }

    #[tokio::test]
    async fn nobody_left_to_say_so_is_the_end() {
        let (say, phase) = watch::channel(Phase::Running);
        let mut drain = Drain::new(phase);
        drop(say);
        assert!(poll_fn(|context| Poll::Ready(drain.poll(context))).await);
    }
}
