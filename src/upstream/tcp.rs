//! TCP connections to one upstream, reused and pipelined (RFC 7766 §6.2.1).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::counters::count;
use super::exchange::Errand;
use super::question::{Heard, Question, random_id};
use super::server::Server;
use super::{Connecting, Network, Stream};
use crate::query::Failure;

/// The most connections to one upstream. A second one is opened when the first has no room.
const CONNECTIONS_MAX: usize = 4;

/// The most queries that wait for an answer on one connection.
const OUTSTANDING_MAX: usize = 64;

/// A connection on which nothing was heard for so long is closed, whether it is idle or has died in silence. RFC 7766
/// §6.2.3: on the order of seconds.
const QUIET: Duration = Duration::from_secs(5);

/// A connection is made in this time.
const CONNECT: Duration = Duration::from_secs(3);

/// Octets that there is room for at each read.
const READ_OCTETS: usize = 4096;

/// The connections to one upstream. Each is owned by a task on the runtime of who first needed it; everybody else
/// talks to that task by a channel, from whatever runtime.
#[derive(Debug)]
pub(super) struct Lines {
    address: SocketAddr,
    network: Arc<dyn Network>,
    open: Mutex<Vec<Line>>,
}

/// The way to the task of one connection.
#[derive(Debug, Clone)]
struct Line {
    asks: mpsc::Sender<Ask>,
    /// Queries whose askers still wait.
    load: Arc<AtomicUsize>,
}

/// A place among the [`OUTSTANDING_MAX`] of a line, given back when dropped.
struct Place(Line);

/// A question on its way to a connection's task.
struct Ask {
    errand: Arc<Errand>,
    edns: bool,
    answer: oneshot::Sender<Result<Heard, Failure>>,
}

/// The connection ended before it brought the answer.
struct Broken;

impl Lines {
    pub(super) fn new(address: SocketAddr, network: &Arc<dyn Network>) -> Self {
        Self { address, network: Arc::clone(network), open: Mutex::default() }
    }

    /// Asks over TCP, on a connection that is there if one has room.
    ///
    /// # Errors
    /// As in [`super::exchange::End`]. That a connection was closed which others had used before is not the
    /// upstream's failure, and the question is put once more on a fresh one.
    pub(super) async fn ask(&self, server: &Server, errand: &Arc<Errand>, edns: bool) -> Result<Heard, Failure> {
        let spend = || {
            let left = errand.budget.spend();
            left.then(|| count(&server.counters.queries)).ok_or(Failure::Overloaded)
        };
        spend()?;
        let reused = self.place_on_open_line();
        let heard = match reused {
            None => self.ask_afresh(errand, edns).await,
            Some(place) => match place.ask(errand, edns).await {
                Ok(heard) => heard,
                Err(Broken) => {
                    spend()?;
                    self.ask_afresh(errand, edns).await
                }
            },
        };
        heard.inspect(|_| server.heard())
    }

    async fn ask_afresh(&self, errand: &Arc<Errand>, edns: bool) -> Result<Heard, Failure> {
        let place = self.place_on_fresh_line().ok_or(Failure::Overloaded)?;
        place.ask(errand, edns).await.unwrap_or(Err(Failure::Network))
    }

    fn place_on_open_line(&self) -> Option<Place> {
        let open = self.open();
        let line = open.iter().find(|line| line.load.load(Ordering::Relaxed) < OUTSTANDING_MAX)?;
        Some(Place::take(line))
    }

    fn place_on_fresh_line(&self) -> Option<Place> {
        let mut open = self.open();
        if open.len() >= CONNECTIONS_MAX {
            return None;
        }
        let (asks, asked) = mpsc::channel(OUTSTANDING_MAX);
        tokio::spawn(run(self.network.tcp(self.address), asked));
        let line = Line { asks, load: Arc::default() };
        let place = Place::take(&line);
        open.push(line);
        Some(place)
    }

    /// Those whose task has not ended.
    fn open(&self) -> MutexGuard<'_, Vec<Line>> {
        // Nothing under this lock can panic halfway.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|line| !line.asks.is_closed());
        open
    }
}

impl Place {
    /// Under the lock of [`Lines::open`], so that the bound holds.
    fn take(line: &Line) -> Self {
        line.load.fetch_add(1, Ordering::Relaxed);
        Self(line.clone())
    }

    async fn ask(self, errand: &Arc<Errand>, edns: bool) -> Result<Result<Heard, Failure>, Broken> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { errand: Arc::clone(errand), edns, answer };
        match self.0.asks.try_send(ask) {
            Ok(()) => answered.await.map_err(|_| Broken),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Broken),
            // While it connects, those who gave up still fill the channel.
            Err(mpsc::error::TrySendError::Full(_)) => Ok(Err(Failure::Overloaded)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The task of one connection.
async fn run(connecting: Connecting, mut asks: mpsc::Receiver<Ask>) {
    match timeout(CONNECT, connecting).await {
        Ok(Ok(stream)) => Connection::new(stream).serve(asks).await,
        Ok(Err(_)) => fail_all(&mut asks, Failure::Network),
        Err(_) => fail_all(&mut asks, Failure::Timeout),
    }
}

/// There is no connection, and nobody else may think there is.
fn fail_all(asks: &mut mpsc::Receiver<Ask>, failure: Failure) {
    asks.close();
    while let Ok(ask) = asks.try_recv() {
        // Who gave up is not told.
        let _ = ask.answer.send(Err(failure));
    }
}

/// A connection and who waits on it, by message ID.
struct Connection {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    received: BytesMut,
    to_send: BytesMut,
    waiting: HashMap<u16, Ask>,
    /// When something was last heard, or the first of those who wait began to.
    quiet_since: Instant,
}

impl Connection {
    fn new(stream: Box<dyn Stream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            received: BytesMut::new(),
            to_send: BytesMut::new(),
            waiting: HashMap::new(),
            quiet_since: Instant::now(),
        }
    }

    /// Until the connection ends or nobody needs it; those who still wait see that by their channel.
    async fn serve(mut self, mut asks: mpsc::Receiver<Ask>) {
        loop {
            self.received.reserve(READ_OCTETS);
            tokio::select! {
                read = self.reader.read_buf(&mut self.received) => match read {
                    Ok(1..) => self.deliver(),
                    Ok(0) | Err(_) => return,
                },
                written = self.writer.write_buf(&mut self.to_send), if !self.to_send.is_empty() => {
                    if !matches!(written, Ok(1..)) {
                        return;
                    }
                }
                ask = asks.recv() => match ask {
                    Some(ask) => self.take(ask),
                    None => return,
                },
                () = sleep_until(self.quiet_since + QUIET) => return,
            }
        }
    }

    /// Writes a question, under an ID that nobody else waits for.
    fn take(&mut self, ask: Ask) {
        if self.waiting.is_empty() {
            self.quiet_since = Instant::now();
        }
        // At most OUTSTANDING_MAX askers wait; more entries than that are of those who gave up.
        if self.waiting.len() >= OUTSTANDING_MAX {
            self.waiting.retain(|_, ask| !ask.answer.is_closed());
        }
        let id = free_id(&self.waiting);
        write_frame(ask.errand.question(), id, ask.edns, &mut self.to_send);
        self.waiting.insert(id, ask);
    }

    /// Hands out what came whole. What nobody waits for, or does not answer the question asked under its ID, is
    /// passed over.
    fn deliver(&mut self) {
        self.quiet_since = Instant::now();
        while let Some(message) = take_frame(&mut self.received) {
            let Some(id) = message.first_chunk().map(|octets| u16::from_be_bytes(*octets)) else { continue };
            let heard = self.waiting.get(&id).and_then(|ask| ask.errand.question().read(id, &message));
            if let Some(heard) = heard
                && let Some(ask) = self.waiting.remove(&id)
            {
                // Who gave up is not told.
                let _ = ask.answer.send(Ok(heard));
            }
        }
    }
}

/// A random ID that nobody waits for. Few do, so that few draws are needed.
fn free_id<T>(waiting: &HashMap<u16, T>) -> u16 {
    loop {
        let id = random_id();
        if !waiting.contains_key(&id) {
            return id;
        }
    }
}

/// Appends a query behind the two octets of its length (RFC 1035 §4.2.2).
fn write_frame(question: Question<'_>, id: u16, edns: bool, out: &mut BytesMut) {
    let mut message = BytesMut::new();
    question.write(id, edns, &mut message);
    // A header, a name and an OPT: far below 65,536 octets.
    out.put_u16(message.len() as u16);
    out.put_slice(&message);
}

/// Takes the first message off `received`, once it is there whole.
fn take_frame(received: &mut BytesMut) -> Option<Bytes> {
    let length = usize::from(u16::from_be_bytes(*received.first_chunk()?));
    if received.len() < 2 + length {
        return None;
    }
    received.advance(2);
    Some(received.split_to(length).freeze())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::dns::{Name, Qtype};
    use crate::policy::Permitted;
    use crate::query::Query;

    #[test]
    fn every_cut_of_a_frame_waits_for_more() {
        let qname = Name::from_text("www.example").unwrap();
        let mut whole = BytesMut::new();
        write_frame(Question::plain(&qname, Qtype::A), 0x1234, true, &mut whole);
        for cut in 0..whole.len() {
            let mut received = BytesMut::from(&whole[..cut]);
            assert_eq!(take_frame(&mut received), None, "cut at {cut}");
            assert_eq!(received.len(), cut);
            received.extend_from_slice(&whole[cut..]);
            assert_eq!(take_frame(&mut received).unwrap(), whole[2..]);
            assert!(received.is_empty());
        }
    }

    #[test]
    fn an_id_is_one_that_nobody_waits_for() {
        let waiting: HashMap<u16, ()> = (1..=u16::MAX).filter(|id| *id != 0x1234).map(|id| (id, ())).collect();
        assert_eq!(free_id(&waiting), 0x1234);
    }

    #[tokio::test]
    async fn those_who_gave_up_keep_no_place() {
        let (ours, _theirs) = tokio::io::duplex(1 << 16);
        let mut connection = Connection::new(Box::new(ours));
        for _ in 0..OUTSTANDING_MAX * 3 {
            let errand = Errand::new(Permitted::for_tests(Query::plain(Name::root(), Qtype::NS)));
            connection.take(Ask { errand, edns: true, answer: oneshot::channel().0 });
            assert!(connection.waiting.len() <= OUTSTANDING_MAX);
        }
    }

    #[test]
    fn frames_come_one_by_one() {
        let mut received = BytesMut::from(&b"\0\0\0\x01a\0\x02bc\0"[..]);
        let frames: Vec<_> = std::iter::from_fn(|| take_frame(&mut received)).collect();
        assert_eq!(frames, [&b""[..], b"a", b"bc"]);
        assert_eq!(received, b"\0"[..]);
    }
}
