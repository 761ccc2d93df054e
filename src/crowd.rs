//! Runs many short futures of a thread in one task: a task for each would cost as much as most of them do.

use std::cell::RefCell;
use std::future::poll_fn;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use futures_util::task::AtomicWaker;
use tokio::runtime::{Handle, Id};
use tokio::task::unconstrained;

/// The futures of a thread, each made of a `J`; for a `thread_local`.
pub struct Crowd<J>(RefCell<Weak<Door<J>>>);

/// The way to the task, which there is while a future is left.
struct Door<J> {
    /// It runs on.
    runtime: Id,
    /// What futures have yet to be made of; None: the task takes no more.
    outside: Mutex<Option<Vec<J>>>,
    waker: AtomicWaker,
}

impl<J> Crowd<J> {
    /// Nobody yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(Weak::new()))
    }
}

impl<J> Default for Crowd<J> {
    fn default() -> Self {
        Self::new()
    }
}

impl<J: Send + 'static> Crowd<J> {
    /// Runs what `start` makes of `job` on this thread's runtime; all of a crowd have the same `start`.
    pub fn join<F: Future<Output = ()> + Send + 'static>(&self, job: J, start: fn(J) -> F) {
        let runtime = Handle::current().id();
        let mut door = self.0.borrow_mut();
        let job = match door.upgrade().filter(|door| door.runtime == runtime) {
            Some(door) => door.enter(job),
            None => Some(job),
        };
        let Some(job) = job else { return };
        let outside = Mutex::new(Some(vec![job]));
        let opened = Arc::new(Door { runtime, outside, waker: AtomicWaker::new() });
        *door = Arc::downgrade(&opened);
        // A budget is for one future that goes on and on; here it would hold up the others. What bounds a poll is how
        // many are ready, and none of them takes long.
        tokio::spawn(unconstrained(run(opened, start)));
    }
}

impl<J> Door<J> {
    /// Gives back what is taken no more.
    fn enter(&self, job: J) -> Option<J> {
        let mut outside = self.outside();
        let Some(outside) = &mut *outside else { return Some(job) };
        outside.push(job);
        self.waker.wake();
        None
    }

    /// Lets in those outside. Where there are none and `is_empty` inside, there will be no more.
    fn let_in(&self, jobs: &mut Vec<J>, is_empty: bool) {
        let mut outside = self.outside();
        match &mut *outside {
            Some(waiting) if !waiting.is_empty() => mem::swap(waiting, jobs),
            _ if is_empty => *outside = None,
            _ => {}
        }
    }

    fn outside(&self) -> MutexGuard<'_, Option<Vec<J>>> {
        // Nothing under this lock can panic halfway.
        self.outside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until no future is left.
async fn run<J, F: Future<Output = ()>>(door: Arc<Door<J>>, start: fn(J) -> F) {
    let mut inside = FuturesUnordered::new();
    let mut jobs = Vec::new();
    poll_fn(|context: &mut Context<'_>| {
        door.waker.register(context.waker());
        loop {
            door.let_in(&mut jobs, inside.is_empty());
            if jobs.is_empty() && inside.is_empty() {
                return Poll::Ready(());
            }
            // One that panics takes no other with it, not even if it does so again as it is dropped: that is in here too.
            inside.extend(jobs.drain(..).map(|job| AssertUnwindSafe(async move { start(job).await }).catch_unwind()));
            while ready!(inside.poll_next_unpin(context)).is_some() {}
        }
    })
    .await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::pin::Pin;
    use std::time::Duration;

    use tokio::runtime::Builder;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::time::sleep;

    use super::*;

    /// Waits for so many milliseconds, then says so; never says anything, where it is to panic.
    type Job = (u64, UnboundedSender<u64>);

    const PANICS: u64 = 13;

    async fn start((millis, said): Job) {
        sleep(Duration::from_millis(millis)).await;
        assert!(millis != PANICS, "as it is told");
        said.send(millis).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn each_ends_in_its_time_and_a_panic_is_its_own() {
        let (crowd, (say, mut said)) = (Crowd::new(), unbounded_channel());
        for millis in [20, PANICS, 10, 30] {
            crowd.join((millis, say.clone()), start);
        }
        for millis in [10, 20, 30] {
            assert_eq!(said.recv().await, Some(millis));
        }
        sleep(Duration::from_millis(1)).await;
        assert_eq!(crowd.0.borrow().strong_count(), 0, "no task is left where nobody is");
        crowd.join((5, say.clone()), start);
        assert_eq!(said.recv().await, Some(5));
    }

    /// Panics, and once more if it is dropped apart from that.
    struct Falls;

    impl Future for Falls {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            panic!("as it is told")
        }
    }

    impl Drop for Falls {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "dropped when its panic was over");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_dropped_while_it_does() {
        type Any = Pin<Box<dyn Future<Output = ()> + Send>>;
        let (crowd, (say, mut said)) = (Crowd::new(), unbounded_channel());
        let jobs: [Any; 2] = [Box::pin(Falls), Box::pin(start((10, say.clone())))];
        jobs.into_iter().for_each(|job| crowd.join(job, |job: Any| job));
        assert_eq!(said.recv().await, Some(10));
    }

    #[test]
    fn a_runtime_that_stands_still_or_ends_holds_up_no_other() {
        let (crowd, (say, mut said)) = (Crowd::new(), unbounded_channel());
        let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
        let (still, running) = (runtime(), runtime());
        still.block_on(async { crowd.join((1, say.clone()), start) });
        for millis in [2, 3] {
            let join = async {
                crowd.join((millis, say.clone()), start);
                said.recv().await
            };
            assert_eq!(running.block_on(join), Some(millis));
        }
        drop(still);
        assert_eq!(said.try_recv().ok(), None, "what was begun there is gone with it");
    }
}
