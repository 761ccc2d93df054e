//! An HTTP/2 connection in turns: all requests of a read are answered in the first, and their answers leave in the next.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hyper::rt::Executor;

use super::activity::Activity;

/// Runs a stream where it is made, within its connection's turn; only one that has to wait becomes a task. A task for
/// each would cost more than most answers do.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtOnce;

impl<F: Future<Output = ()> + Unpin + Send + 'static> Executor<F> for AtOnce {
    fn execute(&self, mut stream: F) {
        // Whatever it waits for hears of the task's waker when the task polls it again.
        if Pin::new(&mut stream).poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(stream);
        }
    }
}

/// A connection whose writes wait for the end of a turn in which requests came in. h2 looks for something to write
/// between any two requests, and would write each answer apart.
#[derive(Debug)]
pub(super) struct Turns<H> {
    pub(super) http: H,
    activity: Arc<Activity>,
}

impl<H> Turns<H> {
    pub(super) const fn new(http: H, activity: Arc<Activity>) -> Self {
        Self { http, activity }
    }
}

impl<H: Future + Unpin> Future for Turns<H> {
    type Output = H::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<H::Output> {
        let turn = Pin::new(&mut self.http).poll(cx);
        if self.activity.end_turn() {
            cx.waker().wake_by_ref();
        }
        turn
    }
}
