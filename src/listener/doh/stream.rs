//! The encrypted stream as hyper sees it, with an eye on what comes in and on what is not taken.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::frames::Frames;

/// A stream that tells an [`Activity`] of its reads and writes.
///
/// Its writes are never vectored: h2 then copies answers of up to 1,024 octets together into one TLS record, padded
/// ones too, where it would write each on its own.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    /// HTTP/2's frames; in HTTP/1.1 any octet may begin a request.
    frames: Option<Frames>,
}

impl<S> Watched<S> {
    pub(super) const fn new(stream: S, activity: Arc<Activity>, frames: Option<Frames>) -> Self {
        Self { stream, activity, frames }
    }

    fn note_read(&mut self, octets: &[u8]) {
        if !octets.is_empty() {
            let begun = self.frames.as_mut().is_none_or(|frames| frames.follow(octets));
            self.activity.read(begun);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.note_read(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.activity.in_turn() {
            // The connection is polled again when the turn has ended.
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, octets);
        if written.is_pending() {
            self.activity.block();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        match flushed {
            Poll::Pending => self.activity.block(),
            Poll::Ready(_) => self.activity.flush(),
        }
        flushed
    }

    /// Ends in a close_notify.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
