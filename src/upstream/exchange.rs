//! One question put to one upstream over UDP, then over TCP where the answer is cut short.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Poll, ready};

use bytes::BytesMut;
use tokio::io::ReadBuf;

use super::Network;
use super::counters::count;
use super::question::{Heard, Question, random_id};
use super::server::Server;
use crate::dns::Rcode;
use crate::query::{Failure, Reply};

/// Room for one datagram. More than the 1232 octets that we announce, for servers that do not keep to it; what is
/// cut short even so cannot be read, and is passed over.
const DATAGRAM_OCTETS_MAX: usize = 4096;

/// After so many datagrams that do not match, somebody guesses IDs at this port: the answer is asked for over TCP,
/// where nobody can (SAD DNS, CVE-2020-25705).
const MISMATCHES_MAX: u8 = 32;

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
pub(super) async fn ask(server: &Server, question: &Question, budget: &Budget) -> Result<Reply<'static>, Failure> {
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

async fn ask_once(server: &Server, question: &Question, edns: bool, budget: &Budget) -> Result<Heard, Failure> {
    match over_udp(server, question, edns, budget).await? {
        Heard::Truncated => server.lines.ask(server, question, edns, budget).await,
        heard => Ok(heard),
    }
}

async fn over_udp(server: &Server, question: &Question, edns: bool, budget: &Budget) -> Result<Heard, Failure> {
    if !budget.spend() {
        return Err(Failure::Overloaded);
    }
    count(&server.counters.queries);
    let id = random_id();
    let mut message = BytesMut::new();
    question.write(id, edns, &mut message);
    let mut mismatches = 0;
    let accept = |octets: &[u8]| {
        let heard = question.read(id, octets);
        if heard.is_some() {
            server.heard();
            return heard;
        }
        count(&server.counters.mismatches);
        mismatches += 1;
        (mismatches == MISMATCHES_MAX).then_some(Heard::Truncated)
    };
    converse(&*server.network, server.address, &message, accept).await.map_err(|error| {
        server.refused(&error);
        Failure::Network
    })
}

/// Sends `message` from a fresh socket, and receives until a datagram is accepted. What is not accepted is waited
/// past: it can be anybody's (draft-li-dnsop-response-preprocessing).
///
/// # Errors
/// Of the machine, and what ICMP brings (connection refused).
pub(super) async fn converse<T>(
    network: &dyn Network,
    server: SocketAddr,
    message: &[u8],
    mut accept: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let mut socket = network.udp(server)?;
    poll_fn(|context| socket.poll_send(context, message)).await?;
    poll_fn(|context| {
        // On the stack of the poll: a query that waits holds no buffer.
        let mut space = [MaybeUninit::uninit(); DATAGRAM_OCTETS_MAX];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(socket.poll_receive(context, &mut buffer))?;
        if let Some(accepted) = accept(buffer.filled()) {
            return Poll::Ready(Ok(accepted));
        }
        // After each one, others have their turn: a flood keeps nobody else waiting.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
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
