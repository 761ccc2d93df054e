//! Answers whole messages: those answered at once into one buffer, those that wait beside it.

use std::cell::Cell;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::framer::PREFIX_OCTETS;
use crate::clock::Clock;
use crate::listener::Settings;
use crate::query::Now;
use crate::telemetry::Bound;

/// Past so many octets of answers no further one is put beside them: they are written first. A last one may exceed it.
pub(super) const OUT_OCTETS_MAX: usize = 64 * 1_024;

/// The largest output buffer that a worker keeps for its next use, in octets: [`OUT_OCTETS_MAX`] and one more answer.
const SPARE_OCTETS_MAX: usize = 2 * OUT_OCTETS_MAX;

/// What a desk needs of the rest of the product.
pub(super) trait Host {
    /// The clocks.
    fn clock(&self) -> &Clock;
    /// The bounds.
    fn settings(&self) -> &Settings;
    /// How long a connection may be without a whole message, as things stand.
    fn idle_timeout(&self) -> Duration;
    /// Counts a query of this client's; how long its next one has to wait.
    fn toll(&self, now: Now) -> Duration;
    /// Answers a message; what is answered at once is appended to `out`.
    fn answer(&self, message: &[u8], now: Now, out: &mut BytesMut) -> Step;
    /// Counts a bound that bit.
    fn bit(&self, bound: Bound);
}

/// How far a message has come.
pub(super) enum Step {
    /// Its answer stands at the end of the output buffer.
    Answered,
    /// Its answer comes later.
    Waiting(BoxFuture<'static, BytesMut>),
    /// It is nothing that can be answered.
    Unanswerable,
}

/// One connection's queries and answers, without its stream.
pub(super) struct Desk<H> {
    pub(super) host: H,
    /// Answers to be written, framed.
    pub(super) out: BytesMut,
    waiting: FuturesUnordered<BoxFuture<'static, BytesMut>>,
    /// How many those are: each turn asks several times, and the set would look at what other threads might have added.
    waiting_count: usize,
    /// No query is taken before: the client has asked too many in too short a time.
    pub(super) resumes: Option<Instant>,
    /// When the last whole message came, or the last answer that had to be waited for.
    pub(super) active: Instant,
    /// Whether a query has come yet.
    pub(super) is_fresh: bool,
    /// Something came that cannot be answered: what follows it is not read.
    pub(super) is_broken: bool,
    full_before: bool,
}

impl<H: Host> Desk<H> {
    pub(super) fn new(host: H) -> Self {
        Self {
            host,
            out: BytesMut::new(),
            waiting: FuturesUnordered::new(),
            waiting_count: 0,
            resumes: None,
            active: Instant::now(),
            is_fresh: true,
            is_broken: false,
            full_before: false,
        }
    }

    /// Whether another query may be taken now.
    pub(super) fn may_take(&self) -> bool {
        !self.is_broken && self.resumes.is_none() && !self.is_full() && self.out.len() < OUT_OCTETS_MAX
    }

    /// Whether answers are being waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting_count > 0
    }

    /// Takes a message; whether another may be taken behind it.
    pub(super) fn take(&mut self, message: &[u8], now: Now) -> bool {
        self.active = self.host.clock().instant(now.mono);
        self.is_fresh = false;
        self.pay(now);
        if self.out.capacity() == 0 {
            self.out = SPARE.take();
        }
        let start = self.out.len();
        self.out.put_u16(0);
        match self.host.answer(message, now, &mut self.out) {
            Step::Answered => frame(&mut self.out, start),
            Step::Waiting(answer) => {
                self.out.truncate(start);
                self.wait_for(answer);
            }
            Step::Unanswerable => {
                self.out.truncate(start);
                self.is_broken = true;
            }
        }
        self.may_take()
    }

    /// Puts the answers that have come by now into the output buffer.
    pub(super) fn gather(&mut self, context: &mut Context<'_>) {
        // On most turns nothing is waited for, and the set costs more to ask than to look at.
        while self.is_waiting()
            && self.out.len() < OUT_OCTETS_MAX
            && let Poll::Ready(Some(answer)) = self.waiting.poll_next_unpin(context)
        {
            self.waiting_count -= 1;
            let start = self.out.len();
            self.out.put_u16(0);
            self.out.put_slice(&answer);
            frame(&mut self.out, start);
            self.active = Instant::now();
        }
    }

    /// Empties the output buffer, which has been written, and gives it back to the worker.
    pub(super) fn clear_out(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        if out.capacity() <= SPARE_OCTETS_MAX {
            SPARE.set(out);
        }
    }

    fn pay(&mut self, now: Now) {
        let wait = self.host.toll(now);
        if !wait.is_zero() {
            self.host.bit(Bound::QueriesPerClient);
            self.resumes = Some(self.active + wait);
        }
    }

    fn wait_for(&mut self, answer: BoxFuture<'static, BytesMut>) {
        self.waiting.push(answer);
        self.waiting_count += 1;
        if self.is_full() && !self.full_before {
            self.full_before = true;
            self.host.bit(Bound::InFlightPerConnection);
        }
    }

    fn is_full(&self) -> bool {
        let in_flight_max = self.host.settings().in_flight_per_connection;
        in_flight_max > 0 && self.waiting_count >= in_flight_max
    }
}

thread_local! {
    /// The output buffer that no connection of this worker is using: an idle one has none.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// Writes the length of the answer that ends the buffer into the two octets left for it at `start`.
fn frame(out: &mut BytesMut, start: usize) {
    match u16::try_from(out.len() - start - PREFIX_OCTETS) {
        Ok(length) => out[start..start + PREFIX_OCTETS].copy_from_slice(&length.to_be_bytes()),
        // No answer is so long (RFC 1035 §4.2.2); one that were would tear the stream apart.
        Err(_) => out.truncate(start),
    }
}
