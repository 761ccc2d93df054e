//! Events on their way to the disk: handed in without waiting, bounded, taken in batches by the writer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::{Event, Head, Note, Ticket, line};

/// The most events that wait for the disk.
pub const WAITING_MAX: usize = 10_000;

/// The most octets that they take together.
pub const WAITING_OCTETS_MAX: usize = 16 << 20;

/// The most octets of events that are written at once; one event may be longer.
const BATCH_OCTETS_MAX: usize = 1 << 20;

/// What a dropped event gets: no line will ever have it.
const DROPPED: Ticket = Ticket(u64::MAX);

/// Between those who hand in and the one who writes.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// The writer has something to do.
    stirred: Condvar,
    /// The writer has ended.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<str>>,
    octets: usize,
    /// Events put into the queue so far.
    taken_in: u64,
    /// Of those, how many are on the disk.
    recorded: u64,
    /// Events dropped since the last that was taken in, and when the last of them happened.
    lost: Option<(u64, Timestamp)>,
    head: Option<Head>,
    trouble: Option<String>,
    is_closing: bool,
    has_ended: bool,
}

/// What the writer is to do.
#[derive(Debug)]
pub(super) struct Batch {
    /// To be written, in this order; none: to see whether the file is still there.
    pub(super) bodies: Vec<Arc<str>>,
    /// Nothing comes after what waits now.
    pub(super) is_closing: bool,
}

impl Queue {
    /// Hands in an event; see [`super::Ledger::record`].
    pub(super) fn put(&self, at: Timestamp, event: &Event) -> Ticket {
        let body = line::body(at, event);
        let mut state = self.lock();
        let ticket = match body {
            Some(body) if state.has_room_for(&body) => {
                state.note_lost();
                state.take_in(body)
            }
            _ => {
                let lost = state.lost.map_or(0, |(lost, _)| lost);
                state.lost = Some((lost + 1, at));
                DROPPED
            }
        };
        drop(state);
        self.stirred.notify_one();
        ticket
    }

    /// Waits for something to write: at most `look`, and in trouble not less than that. None: all is done.
    pub(super) fn take(&self, look: Duration) -> Option<Batch> {
        let idle = |state: &mut State| !state.is_closing && (state.is_idle() || state.trouble.is_some());
        let waited = self.stirred.wait_timeout_while(self.lock(), look, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_idle() && state.is_closing {
            return None;
        }
        if state.octets <= WAITING_OCTETS_MAX / 2 && state.waiting.len() <= WAITING_MAX / 2 {
            state.note_lost();
        }
        Some(Batch { bodies: state.first(), is_closing: state.is_closing })
    }

    /// Says what became of a batch: its events are on the disk, or still wait.
    pub(super) fn settle(&self, written: usize, head: Option<&Head>, trouble: Option<String>) {
        let mut state = self.lock();
        for body in (0..written).filter_map(|_| state.waiting.pop_front()).collect::<Vec<_>>() {
            state.octets -= body.len();
        }
        state.recorded += written as u64;
        state.head = head.cloned();
        state.trouble = trouble;
    }

    /// The writer writes no more.
    pub(super) fn end(&self) {
        self.lock().has_ended = true;
        self.ended.notify_all();
    }

    /// Has what waits written and the writer end; how many events are left when that is done or the time is over.
    pub(super) fn close(&self, patience: Duration) -> usize {
        let mut state = self.lock();
        state.is_closing = true;
        self.stirred.notify_all();
        let waited = self.ended.wait_timeout_while(state, patience, |state| !state.has_ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.waiting.len()
    }

    pub(super) fn has_recorded(&self, Ticket(number): Ticket) -> bool {
        number <= self.lock().recorded
    }

    pub(super) fn head(&self) -> Option<Head> {
        self.lock().head.clone()
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    pub(super) fn complaint(&self) -> Option<String> {
        let state = self.lock();
        let lost = state.lost.map(|_| "events are lost: more wait than memory is kept for".to_owned());
        let told: Vec<_> = state.trouble.clone().into_iter().chain(lost).collect();
        (!told.is_empty()).then(|| told.join(" | "))
    }

    /// The state is whole between any two statements, so a panic elsewhere leaves nothing to mend.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.lost.is_none()
    }

    fn has_room_for(&self, body: &str) -> bool {
        !self.is_closing && self.waiting.len() < WAITING_MAX && self.octets + body.len() <= WAITING_OCTETS_MAX
    }

    /// A line says how many were dropped, where they would have stood.
    fn note_lost(&mut self) {
        if let Some((events, at)) = self.lost.take()
            && let Some(body) = line::body(at, &Event::Node(Note::EventsLost { events }))
        {
            self.take_in(body);
        }
    }

    fn take_in(&mut self, body: String) -> Ticket {
        self.octets += body.len();
        self.waiting.push_back(body.into());
        self.taken_in += 1;
        Ticket(self.taken_in)
    }

    fn first(&self) -> Vec<Arc<str>> {
        let mut octets = 0;
        let fits = |body: &&Arc<str>| {
            let first = octets == 0;
            octets += body.len();
            first || octets <= BATCH_OCTETS_MAX
        };
        self.waiting.iter().take_while(fits).cloned().collect()
    }
}
