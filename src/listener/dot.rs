//! DNS over TLS: two-octet framing, pipelining, answers out of order (RFC 7858, 7766).

mod desk;
pub mod framer;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::{Asker, Connection, Settings, Shared};
use crate::clock::Clock;
use crate::pipeline::{Progress, Waiting};
use crate::query::{Malformed, Now, Transport};
use crate::telemetry::{Bound, Event};
use desk::{Host, Step};
use turns::Turns;

/// Serves a connection until it ends.
pub fn serve(connection: Connection) -> impl Future<Output = ()> + Send {
    let Connection { stream, shared, asker, phase, .. } = connection;
    let mut turns = Turns::new(stream, Guest { shared, asker }, phase);
    async move { turns.run().await }
}

/// A client before the pipeline.
struct Guest {
    shared: Arc<Shared>,
    asker: Asker,
}

impl Host for Guest {
    fn clock(&self) -> &Clock {
        self.shared.pipeline.clock()
    }

    fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    fn idle_timeout(&self) -> Duration {
        self.shared.idle_timeout()
    }

    fn toll(&self, now: Now) -> Duration {
        self.asker.toll(&self.shared.rate, now.mono)
    }

    fn answer(&self, message: &[u8], now: Now, out: &mut BytesMut) -> Step {
        let pipeline = &self.shared.pipeline;
        match &pipeline.read(message, Transport::Dot) {
            Ok(query) => match pipeline.answer(&self.asker.client, query, now, out) {
                Progress::Answered(_) => Step::Answered,
                Progress::Waiting(waiting) => Step::Waiting(Box::pin(finish(waiting))),
            },
            Err(Malformed::Fault(fault)) => {
                let _ = pipeline.fault(fault, out);
                Step::Answered
            }
            // There is no ID to answer under; and answering a response is how packet loops begin.
            Err(Malformed::Short | Malformed::Response) => Step::Unanswerable,
        }
    }

    fn bit(&self, bound: Bound) {
        self.shared.telemetry.count(Event::Bound(bound));
    }
}

async fn finish(waiting: Waiting) -> BytesMut {
    waiting.finish().await.0
}
