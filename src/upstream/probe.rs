//! Questions of our own: whether a resolver that was down is back, and whether one is ourselves.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::io::ReadBuf;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::ports::DATAGRAM_OCTETS_MAX;
use super::question::{Question, random_id};
use super::server::Server;
use super::{Datagrams, Upstream};
use crate::dns::{Name, Qtype, Rcode};

/// Resolvers that are down are probed so often.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// A probe waits so long. Probes of one resolver overlap, so that a slow one is found too.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

/// `/etc/resolv.conf` is looked at so often.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Resolvers that are ourselves, or did not answer the question whether they are, are asked so often.
const LOOP_EVERY: Duration = Duration::from_secs(30);

/// A nonce is sent so often before its silence is believed: datagrams get lost.
const NONCE_TRIES: usize = 2;

/// Never ends.
pub(super) async fn keep_watch(upstream: &Arc<Upstream>) {
    let mut probe_tick = ticks(PROBE_EVERY);
    let mut follow_tick = ticks(FOLLOW_EVERY);
    let mut loop_tick = ticks(LOOP_EVERY);
    let mut running: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = probe_tick.tick() => {
                let servers = upstream.servers.load();
                let down = servers.iter().filter(|server| !server.is_up());
                running.extend(down.map(|server| Box::pin(check_health(Arc::clone(server))) as BoxFuture<'static, ()>));
            }
            _ = follow_tick.tick() => if upstream.follow() {
                running.extend(loop_checks(upstream, |_| true));
            },
            _ = loop_tick.tick() => running.extend(loop_checks(upstream, |server| !server.is_vouched_for())),
            Some(()) = running.next() => {}
        }
    }
}

/// The first tick is at once; ticks that were missed are not made up for.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Asks for the root's servers, which every resolver knows.
async fn check_health(server: Arc<Server>) {
    answer(&server, Question::plain(&Name::root(), Qtype::NS)).await;
}

/// Whether each of `those` resolvers is ourselves.
fn loop_checks(upstream: &Arc<Upstream>, those: fn(&Server) -> bool) -> Vec<BoxFuture<'static, ()>> {
    let servers = upstream.servers.load();
    let checked = servers.iter().filter(|server| those(server)).cloned();
    checked.map(|server| Box::pin(check_loop(Arc::clone(upstream), server)) as BoxFuture<'static, ()>).collect()
}

/// Asks for a nonce. Where it comes back to us, [`Upstream::is_own_probe`] says so before the resolver answers.
async fn check_loop(upstream: Arc<Upstream>, server: Arc<Server>) {
    let (qname, seen) = upstream.nonces.send_out(&server);
    let question = Question::plain(&qname, Qtype::A);
    for _ in 0..NONCE_TRIES {
        let rcode = answer(&server, question).await;
        if seen.load(Ordering::Relaxed) {
            return;
        }
        // Who fails may have been about to ask us: at start our own listeners may not be there yet.
        if let Some(Rcode::NOERROR | Rcode::NXDOMAIN) = rcode {
            server.vouch_for();
            return;
        }
    }
    server.set_loop(false);
}

/// The RCODE of what comes back, if anything does. More of it is not looked at: nothing that answers a probe can
/// reach a client.
async fn answer(server: &Server, question: Question<'_>) -> Option<Rcode> {
    let id = random_id();
    let mut message = BytesMut::new();
    question.write(id, true, &mut message);
    let mut socket = server.network.udp(server.address).ok()?;
    socket.send(&message).ok()?;
    let rcode = timeout(PROBE_TIMEOUT, heard_on(&mut *socket, |octets| question.rcode_in(id, octets))).await.ok()??;
    server.heard();
    Some(rcode)
}

/// The RCODE of the first datagram that has one for us; None: the network refused.
async fn heard_on(socket: &mut dyn Datagrams, rcode_in: impl Fn(&[u8]) -> Option<Rcode>) -> Option<Rcode> {
    poll_fn(|context| {
        let mut space = [MaybeUninit::uninit(); DATAGRAM_OCTETS_MAX];
        let mut buffer = ReadBuf::uninit(&mut space);
        if ready!(socket.poll_receive(context, &mut buffer)).is_err() {
            return Poll::Ready(None);
        }
        let rcode = rcode_in(buffer.filled());
        if rcode.is_some() {
            return Poll::Ready(rcode);
        }
        // After each one, others have their turn: a flood keeps nobody else waiting.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}
