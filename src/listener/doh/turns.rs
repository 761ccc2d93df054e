//! An HTTP/2 connection in turns: all requests of a read are answered in the first, and their answers leave in the next.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hyper::rt::Executor;
use tokio::task::yield_now;

use super::activity::Activity;
use crate::crowd::Crowd;
use crate::query::Now;

thread_local! {
    static TIME: Cell<Time> = const { Cell::new(Time::Outside) };

    /// The streams that wait.
    static WAITING: Crowd<Stream> = const { Crowd::new() };
}

/// What is known of the time on this thread.
#[derive(Debug, Clone, Copy)]
enum Time {
    /// No turn is under way.
    Outside,
    /// A turn is, and nobody has asked for the time in it.
    Unread,
    Read(Now),
}

/// The time: read once in a turn, which lasts for a fraction of a millisecond, and anew outside of one.
pub(super) fn now(read: impl FnOnce() -> Now) -> Now {
    let now = match TIME.get() {
        Time::Read(now) => return now,
        Time::Unread | Time::Outside => read(),
    };
    if matches!(TIME.get(), Time::Unread) {
        TIME.set(Time::Read(now));
    }
    now
}

/// A turn, as far as time goes: over when this is dropped, in a panic too.
struct Turn;

impl Turn {
    fn begin() -> Self {
        TIME.set(Time::Unread);
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TIME.set(Time::Outside);
    }
}

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a stream where it is made, within its connection's turn; only one that has to wait joins the others that do. A
/// task for each would cost more than most answers do.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtOnce;

impl<F: Future<Output = ()> + Unpin + Send + 'static> Executor<F> for AtOnce {
    fn execute(&self, mut stream: F) {
        // Whatever it waits for hears of its waker there when it is polled again.
        if Pin::new(&mut stream).poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            WAITING.with(|waiting| waiting.join(Box::pin(stream), |stream: Stream| stream));
        }
    }
}

/// A connection whose writes wait for the end of a turn in which requests came in. h2 looks for something to write
/// between any two requests, and would write each answer apart.
#[derive(Debug)]
pub(super) struct Turns<H> {
    pub(super) http: H,
    activity: Arc<Activity>,
    /// The poll before this one was such a turn.
    again: bool,
}

impl<H> Turns<H> {
    pub(super) const fn new(http: H, activity: Arc<Activity>) -> Self {
        Self { http, activity, again: false }
    }
}

impl<H: Future + Unpin> Future for Turns<H> {
    type Output = H::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<H::Output> {
        let turn = Turn::begin();
        let polled = Pin::new(&mut self.http).poll(cx);
        drop(turn);
        let in_turn = self.activity.end_turn();
        match (in_turn, self.again) {
            // What is written leaves when the others that are ready have had their turn: their clients are then woken
            // once, not connection by connection.
            (true, false) => cx.waker().wake_by_ref(),
            // One turn behind the other: the sockets are looked at in between, so that no client has the worker to
            // itself.
            (true, true) => drop(pin!(yield_now()).poll(cx)),
            (false, _) => {}
        }
        self.again = in_turn && !self.again;
        polled
    }
}
