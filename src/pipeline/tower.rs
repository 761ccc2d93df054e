//! Runs the flights of a thread in one task: a task for each would cost as much as all else that is done for it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use futures_util::task::AtomicWaker;
use tokio::runtime::{Handle, Id};
use tokio::task::unconstrained;

use super::Pipeline;
use super::flight::Ticket;
use crate::query::Now;

thread_local! {
    /// The task of this thread's flights, while there are any.
    static TOWER: RefCell<Weak<Tower>> = const { RefCell::new(Weak::new()) };
}

/// What a flight sets out with.
pub(super) struct Departure {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) ticket: Ticket,
    pub(super) now: Now,
}

/// The way to the task.
struct Tower {
    /// It runs on.
    runtime: Id,
    /// Flights that have yet to begin; None: the task takes no more.
    departures: Mutex<Option<Vec<Departure>>>,
    waker: AtomicWaker,
}

/// Has a flight run on this thread's runtime, whatever becomes of who asked for it.
pub(super) fn depart(departure: Departure) {
    let runtime = Handle::current().id();
    TOWER.with_borrow_mut(|tower| {
        let known = tower.upgrade().filter(|tower| tower.runtime == runtime);
        let departure = match known {
            Some(known) => known.take(departure),
            None => Some(departure),
        };
        let Some(departure) = departure else { return };
        let begun =
            Arc::new(Tower { runtime, departures: Mutex::new(Some(vec![departure])), waker: AtomicWaker::new() });
        *tower = Arc::downgrade(&begun);
        tokio::spawn(unconstrained(run(begun)));
    });
}

impl Tower {
    /// Gives back what it takes no more.
    fn take(&self, departure: Departure) -> Option<Departure> {
        let mut departures = self.departures.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(departures) = &mut *departures else { return Some(departure) };
        departures.push(departure);
        self.waker.wake();
        None
    }

    /// Moves the departures to `begin`; where there are none and nobody is in flight, there will be no more.
    fn begin(&self, begin: &mut Vec<Departure>, is_last: bool) {
        let mut departures = self.departures.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *departures {
            Some(waiting) if !waiting.is_empty() => mem::swap(waiting, begin),
            _ if is_last => *departures = None,
            _ => {}
        }
    }
}

/// Until no flight is left.
async fn run(tower: Arc<Tower>) {
    let mut flights = FuturesUnordered::new();
    let mut begin = Vec::new();
    poll_fn(|context: &mut Context<'_>| {
        tower.waker.register(context.waker());
        loop {
            tower.begin(&mut begin, flights.is_empty());
            if begin.is_empty() && flights.is_empty() {
                return Poll::Ready(());
            }
            // A flight that panics takes no other with it.
            flights.extend(begin.drain(..).map(|departure| AssertUnwindSafe(fly(departure)).catch_unwind()));
            // Each that ends has landed.
            while ready!(flights.poll_next_unpin(context)).is_some() {}
        }
    })
    .await;
}

async fn fly(departure: Departure) {
    let Departure { pipeline, ticket, now } = departure;
    let outcome = pipeline.fetch(ticket.errand(), now).await;
    ticket.land(outcome);
}
