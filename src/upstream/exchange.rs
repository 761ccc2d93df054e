//! One question put to one upstream over UDP, then over TCP where the answer is cut short.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::counters::count;
use super::question::{Heard, Question};
use super::server::Server;
use crate::dns::Rcode;
use crate::query::{Failure, Reply};

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

/// Asks `server`, without a deadline of its own.
///
/// # Errors
/// Why there is no good answer; [`Failure::Overloaded`] where the budget ended before anything was known.
pub(super) async fn ask(server: &Server, question: &Arc<Question>, budget: &Budget) -> Result<Reply<'static>, Failure> {
    let mut heard = ask_once(server, question, true, budget).await?;
    if let Heard::Error(Rcode::FORMERR | Rcode::NOTIMP) = heard {
        // RFC 6891 §7: a server from before EDNS says so to an OPT; without one it may answer.
        heard = match ask_once(server, question, false, budget).await {
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

async fn ask_once(server: &Server, question: &Arc<Question>, edns: bool, budget: &Budget) -> Result<Heard, Failure> {
    match over_udp(server, question, edns, budget).await? {
        // Boxed: most tries need no room for it.
        Heard::Truncated => Box::pin(server.lines.ask(server, question, edns, budget)).await,
        heard => Ok(heard),
    }
}

async fn over_udp(server: &Server, question: &Arc<Question>, edns: bool, budget: &Budget) -> Result<Heard, Failure> {
    if !budget.spend() {
        return Err(Failure::Overloaded);
    }
    count(&server.counters.queries);
    let outcome = match server.ports.ask(question, edns) {
        Ok(awaited) => awaited.await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(Some(heard)) => {
            server.heard();
            Ok(heard)
        }
        Ok(None) => Ok(Heard::Truncated),
        Err(error) => {
            server.refused(error);
            Err(Failure::Network)
        }
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
