//! Serves a stream of framed messages in turns: read what there is, answer it, write the answers at once.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, Sleep, sleep_until};

use super::desk::{Desk, Host, OUT_OCTETS_MAX};
use super::framer::Framer;
use crate::listener::drain::Drain;
use crate::listener::{Phase, idle, until, within};
use crate::query::Now;
use crate::telemetry::Bound;

/// What is read in one turn, in octets, a last record more. Then others of the worker have theirs: a connection drained
/// until a read would block makes the others wait 8–16 ms.
const TURN_OCTETS: usize = 8 * 1_024;

/// A connection on which nothing was asked yet when a drain begins is given so long: its query may be on its way, as
/// with those taken from the accept queue.
const GRACE: Duration = Duration::from_secs(1);

/// How long a client may take to hear the end: closing at once while it still sends would reset the connection, and
/// with it answers that have not reached it.
const LINGER: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Turns<S, H> {
    stream: S,
    framer: Framer,
    desk: Desk<H>,
    /// How much of the desk's output has been written.
    written: usize,
    drain: Drain,
    timer: Pin<Box<Sleep>>,
    /// Whom the timer wakes.
    timed: Option<Waker>,
    /// When the message that is begun began.
    begun: Instant,
    /// The stream was not read, for a reason of ours.
    held: bool,
    /// Nothing more is read.
    ended: bool,
}

/// What comes after a turn.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// The next.
    Next,
    /// The next, after others have had theirs.
    Yield,
    /// None.
    Over(End),
}

/// Why there is no next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All that was to be answered is.
    Finished,
    /// No whole message came within the idle timeout.
    Idle,
    /// A message begun was not completed within the message timeout.
    Stalled,
    /// The stream is no use any more.
    Broken,
}

impl<S: AsyncBufRead + AsyncWrite + Unpin, H: Host> Turns<S, H> {
    pub(super) fn new(stream: S, host: H, phase: watch::Receiver<Phase>) -> Self {
        let desk = Desk::new(host);
        let begun = desk.active;
        let timer = Box::pin(sleep_until(begun + check_interval(&desk)));
        Self {
            stream,
            framer: Framer::default(),
            desk,
            written: 0,
            drain: Drain::new(phase),
            timer,
            timed: None,
            begun,
            held: false,
            ended: false,
        }
    }

    /// Serves until the client has gone, or a bound or the drain ends it.
    ///
    /// It takes `&mut self`, as what it awaits does: moved into a future, a connection's room would be taken again.
    pub(super) async fn run(&mut self) {
        let end = loop {
            let turn = poll_fn(|context| self.poll_turn(context)).await;
            if self.write().await.is_err() {
                break End::Broken;
            }
            match turn {
                Turn::Next => {}
                Turn::Yield => yield_now().await,
                Turn::Over(end) => break end,
            }
        };
        self.close(end).await;
    }

    /// Takes what there is and answers it; ready when something is left to be written, or at an end.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        self.desk.gather(context);
        if let Poll::Ready(turn) = self.poll_queries(context) {
            return Poll::Ready(turn);
        }
        let could_take = self.desk.may_take();
        // Answers that are newly waited for have not been asked whether they are there.
        self.desk.gather(context);
        if self.desk.out.len() >= OUT_OCTETS_MAX {
            return Poll::Ready(Turn::Yield);
        }
        if !self.desk.out.is_empty() {
            // Mostly the socket takes it at once. The stream was read until it had no more, and wakes us when it has:
            // that it is not looked at again here is a tenth of what a turn costs.
            match self.poll_written(context) {
                // One that came makes room for queries that were not taken, or not read, for want of it.
                Poll::Ready(Ok(())) if !could_take && self.desk.may_take() => return Poll::Ready(Turn::Next),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::Over(End::Broken)),
                Poll::Pending => return Poll::Ready(Turn::Next),
            }
        }
        if (self.ended || self.desk.is_broken) && !self.desk.is_waiting() {
            return Poll::Ready(Turn::Over(End::Finished));
        }
        self.poll_due(context)
    }

    /// Reads until the stream has no more, the turn is full, or no more may be taken.
    fn poll_queries(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        self.hold_or_resume();
        let mut now = None;
        if self.desk.may_take() && self.framer.has_whole() {
            self.take_kept(&mut now);
        }
        let mut left = TURN_OCTETS;
        while !self.ended && self.desk.may_take() {
            match self.poll_read(context, &mut now) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(octets)) if octets < left => left -= octets,
                Poll::Ready(Ok(_)) => return Poll::Ready(Turn::Yield),
                // The end without a close_notify: what came before it is whole, since messages have their length.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => self.ended = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::Over(End::Broken)),
                Poll::Pending => {
                    self.ended = self.poll_drained(context);
                    break;
                }
            }
        }
        Poll::Pending
    }

    /// The time in which we did not read is not held against a client whose message is begun.
    fn hold_or_resume(&mut self) {
        let was_held = mem::replace(&mut self.held, !self.desk.may_take());
        if was_held && !self.held {
            self.begun = Instant::now();
        }
    }

    /// Takes whole messages that had to wait.
    fn take_kept(&mut self, now: &mut Option<Now>) {
        let Self { framer, desk, begun, .. } = self;
        let now = *now.get_or_insert_with(|| desk.host.clock().now());
        framer.feed(&[], |message| desk.take(message, now));
        *begun = desk.active;
    }

    /// Reads once; how many octets.
    fn poll_read(&mut self, context: &mut Context<'_>, now: &mut Option<Now>) -> Poll<io::Result<usize>> {
        let Self { stream, framer, desk, begun, .. } = self;
        let mut stream = Pin::new(stream);
        let octets = ready!(stream.as_mut().poll_fill_buf(context))?;
        let now = *now.get_or_insert_with(|| desk.host.clock().now());
        let was_begun = framer.has_begun();
        let taken = framer.feed(octets, |message| desk.take(message, now));
        if taken > 0 || !was_begun {
            *begun = if taken > 0 { desk.active } else { desk.host.clock().instant(now.mono) };
        }
        let used = octets.len();
        stream.consume(used);
        Poll::Ready(Ok(used))
    }

    /// Whether the process is to end and the stream has nothing more that would still be answered.
    fn poll_drained(&mut self, context: &mut Context<'_>) -> bool {
        self.drain.poll(context) && !self.framer.has_begun() && !self.is_in_grace()
    }

    fn is_in_grace(&self) -> bool {
        self.desk.is_fresh && Instant::now() < self.desk.active + GRACE
    }

    /// Waits for the moment at which time alone changes something.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        if self.is_timed(context) {
            return Poll::Pending;
        }
        loop {
            let Some((at, turn)) = self.due() else { return Poll::Pending };
            if at < self.timer.deadline() {
                self.timer.as_mut().reset(at);
            }
            // Where the task has used up its budget, a timer would be Pending without waking anybody.
            if pin!(unconstrained(self.timer.as_mut())).poll(context).is_pending() {
                self.timed = Some(context.waker().clone());
                return Poll::Pending;
            }
            if at <= self.timer.deadline() {
                self.desk.resumes = None;
                return Poll::Ready(turn);
            }
            // A moment that moves on with each query is looked at when the timer has run out, not set anew each time;
            // and in between, since the idle timeout may have shrunk.
            let check = Instant::now() + check_interval(&self.desk);
            self.timer.as_mut().reset(at.min(check));
        }
    }

    /// Whether nothing is waited for that could come before the timer runs out, and that will wake us: it was set to at
    /// most a check interval, and no idle timeout is shorter ([`idle::least`]).
    fn is_timed(&self, context: &Context<'_>) -> bool {
        self.desk.resumes.is_none()
            && !self.framer.has_begun()
            && !self.drain.has_begun()
            && !self.timer.is_elapsed()
            && self.timed.as_ref().is_some_and(|waker| waker.will_wake(context.waker()))
    }

    /// When time alone changes something, and what comes then.
    fn due(&self) -> Option<(Instant, Turn)> {
        let settings = self.desk.host.settings();
        if let Some(at) = self.desk.resumes {
            return Some((at, Turn::Next));
        }
        if self.ended || !self.desk.may_take() {
            return None;
        }
        if self.framer.has_begun() {
            return Some((until(settings.message_timeout, self.begun)?, Turn::Over(End::Stalled)));
        }
        if self.desk.is_waiting() {
            return None;
        }
        if self.drain.has_begun() {
            return Some((self.desk.active + GRACE, Turn::Over(End::Finished)));
        }
        Some((until(self.desk.host.idle_timeout(), self.desk.active)?, Turn::Over(End::Idle)))
    }

    /// Writes the answers, all in one.
    async fn write(&mut self) -> Result<(), End> {
        if self.desk.out.is_empty() {
            return Ok(());
        }
        let settings = self.desk.host.settings();
        let (timeout, since) = (settings.message_timeout, self.desk.active);
        match within(timeout, since, poll_fn(|context| self.poll_written(context))).await {
            Some(result) => result.map_err(|_: io::Error| End::Broken),
            None => {
                self.desk.host.bit(Bound::MessageTimeout);
                Err(End::Broken)
            }
        }
    }

    /// Writes the answers, or what is left of them.
    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(self.poll_write(context));
        self.written = 0;
        self.desk.clear_out();
        Poll::Ready(result)
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, desk, written, .. } = self;
        let mut stream = Pin::new(stream);
        while *written < desk.out.len() {
            match ready!(stream.as_mut().poll_write(context, &desk.out[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                octets => *written += octets,
            }
        }
        stream.poll_flush(context)
    }

    async fn close(&mut self, end: End) {
        match end {
            End::Broken => return,
            End::Finished => {}
            End::Idle => self.desk.host.bit(Bound::IdleTimeout),
            End::Stalled => self.desk.host.bit(Bound::MessageTimeout),
        }
        let _ = tokio::time::timeout(LINGER, part(&mut self.stream)).await;
    }
}

/// Says the end (close_notify, then FIN) and waits for the client's.
async fn part(stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.shutdown().await?;
    loop {
        let octets = stream.fill_buf().await?.len();
        if octets == 0 {
            return Ok(());
        }
        stream.consume(octets);
    }
}

/// Where there is no idle timeout there is nothing to look for, and a timer that rarely fires costs nothing.
const CHECK_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// How often an idle connection looks whether the idle timeout has shrunk: as often as the shortest would have it.
fn check_interval<H: Host>(desk: &Desk<H>) -> Duration {
    let whole = desk.host.settings().idle_timeout;
    if whole.is_zero() { CHECK_INTERVAL_MAX } else { idle::least(whole) }
}
