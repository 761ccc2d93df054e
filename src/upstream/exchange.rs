//! One question put to one upstream over UDP, then over TCP where the answer is cut short.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::counters::count;
use super::ports::{self, Awaited};
use super::question::{Heard, Question};
use super::race::UPSTREAM_QUERIES_MAX;
use super::server::Server;
use crate::dns::Rcode;
use crate::policy::Permitted;
use crate::query::{Failure, Reply};

/// What is to be asked, and what may still be spent on it.
#[derive(Debug)]
pub struct Errand {
    permitted: Permitted<'static>,
    pub(super) budget: Budget,
}

impl Errand {
    /// Nothing is spent yet.
    #[must_use]
    pub fn new(permitted: Permitted<'static>) -> Arc<Self> {
        Arc::new(Self { permitted, budget: Budget::new(UPSTREAM_QUERIES_MAX) })
    }

    /// What was admitted.
    #[must_use]
    pub const fn permitted(&self) -> &Permitted<'static> {
        &self.permitted
    }

    /// As it goes to upstreams.
    pub(super) fn question(&self) -> Question<'_> {
        Question::of(&self.permitted)
    }
}

/// Upstream queries that may still be sent for one client query.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU8,
    has_bitten: AtomicBool,
}

impl Budget {
    /// So many.
    pub(super) const fn new(queries: u8) -> Self {
        Self { left: AtomicU8::new(queries), has_bitten: AtomicBool::new(false) }
    }

    /// Takes one, if one is left.
    pub(super) fn spend(&self) -> bool {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        self.allows(taken)
    }

    /// Whether one is left, where one is wanted.
    pub(super) fn is_left(&self) -> bool {
        self.allows(self.left.load(Ordering::Relaxed) > 0)
    }

    /// Whether one was wanted that was not there.
    pub(super) fn has_bitten(&self) -> bool {
        self.has_bitten.load(Ordering::Relaxed)
    }

    fn allows(&self, allowed: bool) -> bool {
        self.has_bitten.fetch_or(!allowed, Ordering::Relaxed);
        allowed
    }
}

/// What asking one upstream comes to: why there is no good answer, if there is none; [`Failure::Overloaded`] where the
/// budget ended before anything was known.
pub(super) type End = Result<Reply<'static>, Failure>;

/// A question put to one upstream, without a deadline of its own.
pub(super) enum Exchange {
    /// Over UDP, which is as far as nearly all go.
    Asked(Awaited),
    /// On from there. Boxed: the others need no room for it.
    GoesOn(Pin<Box<dyn Future<Output = End> + Send>>),
}

impl Exchange {
    /// Sends the question.
    pub(super) fn begin(server: &Server, errand: &Arc<Errand>, now: Instant) -> Self {
        match over_udp(server, errand, true, now) {
            Ok(awaited) => Self::Asked(awaited),
            Err(failure) => Self::GoesOn(Box::pin(ready(Err(failure)))),
        }
    }

    /// What it comes to, of the server and errand that it was begun with.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, server: &Arc<Server>, errand: &Arc<Errand>) -> Poll<End> {
        loop {
            match self {
                Self::Asked(awaited) => match ready!(Pin::new(awaited).poll(context)) {
                    // That it answers is remembered with how long it took.
                    Ok(Some(Heard::Good(reply))) => return Poll::Ready(Ok(reply)),
                    outcome => {
                        *self = Self::GoesOn(Box::pin(go_on(Arc::clone(server), Arc::clone(errand), outcome)));
                    }
                },
                Self::GoesOn(rest) => return rest.as_mut().poll(context),
            }
        }
    }
}

/// What comes behind the first outcome over UDP.
async fn go_on(server: Arc<Server>, errand: Arc<Errand>, outcome: ports::Outcome) -> End {
    let mut heard = whole(&server, &errand, true, outcome).await?;
    if let Heard::Error(Rcode::FORMERR | Rcode::NOTIMP) = heard {
        // RFC 6891 §7: a server from before EDNS says so to an OPT; without one it may answer.
        heard = match ask_without_edns(&server, &errand).await {
            Err(Failure::Overloaded) => heard,
            retried => retried?,
        };
    }
    match heard {
        Heard::Good(reply) => Ok(reply),
        Heard::Error(rcode) => Err(Failure::Upstream(rcode)),
        // Cut short over TCP too: it has an answer that nobody can be given.
        Heard::Truncated => Err(Failure::Upstream(Rcode::SERVFAIL)),
    }
}

async fn ask_without_edns(server: &Server, errand: &Arc<Errand>) -> Result<Heard, Failure> {
    let outcome = over_udp(server, errand, false, Instant::now())?.await;
    whole(server, errand, false, outcome).await
}

/// Over UDP. What the network says at once is remembered.
fn over_udp(server: &Server, errand: &Arc<Errand>, edns: bool, now: Instant) -> Result<Awaited, Failure> {
    if !errand.budget.spend() {
        return Err(Failure::Overloaded);
    }
    count(&server.counters.queries);
    server.ports.ask(errand, edns, now).map_err(|error| {
        server.refused(error);
        Failure::Network
    })
}

/// What was heard over UDP; over TCP, where that is cut short or too many guessed at it.
async fn whole(server: &Server, errand: &Arc<Errand>, edns: bool, outcome: ports::Outcome) -> Result<Heard, Failure> {
    let heard = outcome.map_err(|error| {
        server.refused(error);
        Failure::Network
    })?;
    if heard.is_some() {
        server.heard();
    }
    match heard {
        Some(Heard::Truncated) | None => server.lines.ask(server, errand, edns).await,
        Some(heard) => Ok(heard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_once() {
        let budget = Budget::new(2);
        assert!(budget.spend() && budget.is_left() && budget.spend() && !budget.has_bitten());
        assert!(!budget.spend() && !budget.is_left() && budget.has_bitten());
    }
}
