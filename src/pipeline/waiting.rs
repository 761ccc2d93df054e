//! A query whose answer an upstream is being asked for, until it leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;

use super::client::Client;
use super::flight::{Flight, Outcome};
use super::{Pipeline, Sight};
use crate::answer::{Answer, Written};
use crate::policy::{Findings, Permitted};
use crate::query::{Failure, Now, Reply};
use crate::telemetry::Event;
use crate::upstream::Errand;

/// Room for an answer that was waited for: one block of padding (RFC 8467 §4.1), and so nearly every answer.
const ANSWER_OCTETS: usize = 468;

/// One of the `[limits] in-flight` places; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) pipeline: Arc<Pipeline>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pipeline.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer that an upstream is being asked for. Dropping it takes nothing from others who ask the same.
#[derive(Debug)]
pub struct Waiting {
    pub(super) place: Place,
    pub(super) client: Client,
    pub(super) errand: Arc<Errand>,
    pub(super) arrived: Now,
    /// Whether the cache has a reply past its TTL to fall back on.
    pub(super) stale: bool,
    pub(super) flight: Flight,
}

impl Waiting {
    /// The answer, in a buffer of its own. Never later than the client's deadline.
    pub async fn finish(self) -> (BytesMut, Written) {
        let pipeline = &self.place.pipeline;
        let mut out = BytesMut::with_capacity(ANSWER_OCTETS);
        let outcome = if self.stale { self.outcome_so_far().await } else { Some(self.outcome().await) };
        if !matches!(outcome, Some(Ok(_)))
            && let Some(written) = self.stale(pipeline, &mut out)
        {
            return (out, written);
        }
        let outcome = match outcome {
            Some(outcome) => outcome,
            // It was evicted meanwhile: there is time left to wait in.
            None => self.outcome().await,
        };
        let written = match outcome {
            Ok((reply, findings)) => self.with_reply(pipeline, reply.borrowed(), findings.clone(), &mut out),
            Err(failure) => self.with_failure(pipeline, *failure, &mut out),
        };
        (out, written)
    }

    /// What comes of the flight. It ends by the deadline of who began it, on the thread that they wait on; who joined
    /// keeps a deadline of their own, for the thread of another may stand still.
    async fn outcome(&self) -> &Outcome {
        static SILENCE: Outcome = Err(Failure::Timeout);
        if !self.flight.is_joined() {
            return self.flight.outcome().await;
        }
        let pipeline = &self.place.pipeline;
        let until = pipeline.clock.instant(self.arrived.mono + pipeline.settings.patience());
        // Boxed, for few join.
        Box::pin(tokio::time::timeout_at(until, self.flight.outcome())).await.unwrap_or(&SILENCE)
    }

    /// What came of the flight in the time after which a stale reply is served.
    async fn outcome_so_far(&self) -> Option<&Outcome> {
        let pipeline = &self.place.pipeline;
        let until = pipeline.clock.instant(self.arrived.mono + pipeline.settings.stale_after);
        // Boxed, for few have one to fall back on.
        Box::pin(tokio::time::timeout_at(until, self.flight.outcome())).await.ok()
    }

    /// A stale reply goes before a failure (RFC 8767 §5).
    fn stale(&self, pipeline: &Pipeline, out: &mut BytesMut) -> Option<Written> {
        let mut scratch = Vec::new();
        let now = pipeline.clock.now();
        let (reply, findings) = pipeline.cache.stale(self.errand.permitted(), now.mono, &mut scratch)?;
        if !self.client.is_probe() {
            pipeline.telemetry.count(Event::CacheStale);
        }
        Some(self.with_reply(pipeline, reply, findings, out))
    }

    fn with_reply(&self, pipeline: &Pipeline, reply: Reply<'_>, findings: Findings, out: &mut BytesMut) -> Written {
        self.decided_again(pipeline, out, |by, permitted, out| pipeline.screen(by, permitted, reply, findings, out))
    }

    fn with_failure(&self, pipeline: &Pipeline, failure: Failure, out: &mut BytesMut) -> Written {
        self.decided_again(pipeline, out, |by, permitted, out| {
            pipeline.send(by, &Answer::failure(&permitted.query().echo, failure, false), out)
        })
    }

    /// The question is admitted again, by what holds now: an order may have come since it was asked.
    fn decided_again(
        &self,
        pipeline: &Pipeline,
        out: &mut BytesMut,
        leave: impl FnOnce(Sight<'_>, &Permitted<'_>, &mut BytesMut) -> Written,
    ) -> Written {
        let regime = pipeline.regime.load();
        let by = Sight::new(&regime, &self.client, pipeline.clock.now());
        match regime.policy.admit_again(self.errand.permitted(), by.view, by.now.wall) {
            Ok(permitted) => leave(by, &permitted, out),
            Err(block) => pipeline.blocked(by, &block, out),
        }
    }
}
