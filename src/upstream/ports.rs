//! The UDP ports that queries to one upstream leave by: a pool of connected sockets, one of them drawn for each query.
//!
//! A socket for each query would cost four times as much. Whoever wants to forge an answer without seeing our queries has
//! to meet port, ID and question of one query together:
//!
//! * The port of each query is any of the kernel's, drawn by the kernel's CSPRNG, and its ID any of 65,535, drawn by
//!   ours: as many pairs as with a fresh port for each. A datagram is held against the one query that has its ID,
//!   whatever its question, so that many queries on one port are no birthday party.
//! * A query leaves by a port of its own where there are few: one a second meets an open socket one time in 64.
//! * What is weaker: where there are many, a port lives on for [`QUERIES_MAX`] queries or [`LIFE`], so that a side
//!   channel (SAD DNS, CVE-2020-25705) that is slower than an answer still finds it open. What it buys is little: the
//!   query that is aimed at leaves by that port one time in [`SOCKETS_PER_WORKER_MAX`], unseen, and wrong guesses are
//!   counted per port, not per query: [`MISMATCHES_MAX`] of them end it, and its queries are asked over TCP. That is 1
//!   in 1.2 million for each port found out. With a fresh port for each query, and 32 guesses at it, a port found out in
//!   time bought 1 in 2,100, and there were as many times fewer to find: for each probe a quarter of it is left. So
//!   against a query that an attacker keeps waiting this is harder, and only against one that is answered before its
//!   port could be found is it not.
//! * No ID is used twice on a port, so that a late or doubled answer never meets another query.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::mem;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BytesMut;
use rand::Rng as _;
use thread_local::ThreadLocal;
use tokio::io::ReadBuf;
use tokio::time::{Instant, sleep_until};

use super::counters::{Counters, count};
use super::exchange::Errand;
use super::question::{Heard, random_id};
use super::{Datagrams, Network};

/// The most sockets that a worker draws from for one upstream; fewer where descriptors are few. Beside them there are
/// those that take no more queries and have one outstanding.
pub(super) const SOCKETS_PER_WORKER_MAX: usize = 128;

/// A socket takes so many queries…
const QUERIES_MAX: usize = 64;

/// …and none when it is so old.
const LIFE: Duration = Duration::from_secs(2);

/// After so many datagrams on one socket with IDs that it never used, somebody guesses at its port: its queries are asked
/// over TCP, where nobody can. One can come late to whoever had the port before.
const MISMATCHES_MAX: u8 = 8;

/// Room for one datagram. More than the 1232 octets that we announce, for servers that do not keep to it; what is
/// cut short even so cannot be read, and is passed over.
pub(super) const DATAGRAM_OCTETS_MAX: usize = 4096;

/// After so many datagrams of one socket, others have their turn: a flood keeps nobody else waiting.
const DATAGRAMS_PER_TURN: usize = 16;

thread_local! {
    /// Where a worker receives datagrams: neither a socket nor a query that waits holds a buffer.
    static SPACE: RefCell<[u8; DATAGRAM_OCTETS_MAX]> = const { RefCell::new([0; DATAGRAM_OCTETS_MAX]) };

    /// Where it writes those that it sends.
    static MESSAGE: RefCell<BytesMut> = RefCell::default();
}

/// What came of a query: what was heard; None, where too many guessed at it; or the network's error.
pub(super) type Outcome = Result<Option<Heard>, ErrorKind>;

/// The ports to one upstream.
#[derive(Debug)]
pub(super) struct Ports {
    address: SocketAddr,
    network: Arc<dyn Network>,
    counters: Arc<Counters>,
    /// The sockets that a worker draws from, at most.
    per_worker: usize,
    /// Each worker has a pool of its own: a socket is registered with its worker's runtime, and nobody waits for a lock.
    pools: ThreadLocal<RefCell<Pool>>,
}

/// The sockets in use, by the number that is drawn. A socket is held by the task that receives on it, and by the
/// queries that wait for it.
type Pool = Vec<Weak<Port>>;

impl Ports {
    /// A worker draws from `per_worker` sockets at most, and from one at least.
    pub(super) fn new(
        address: SocketAddr,
        network: &Arc<dyn Network>,
        counters: &Arc<Counters>,
        per_worker: usize,
    ) -> Self {
        let (network, counters) = (Arc::clone(network), Arc::clone(counters));
        Self { address, network, counters, per_worker: per_worker.max(1), pools: ThreadLocal::new() }
    }

    /// Sends a question from a socket drawn at random.
    ///
    /// # Errors
    /// Of the machine, and what ICMP brought meanwhile.
    pub(super) fn ask(&self, errand: &Arc<Errand>, edns: bool, now: Instant) -> Result<Awaited, ErrorKind> {
        let port = self.draw(now).map_err(|error| error.kind())?;
        let nth = port.state().send(errand, edns)?;
        Ok(Awaited { port, nth: Some(nth) })
    }

    /// The socket at a random place of the pool, a fresh one where that takes no more: the fewer queries there are, the
    /// more of them have a port of their own.
    fn draw(&self, now: Instant) -> io::Result<Arc<Port>> {
        let empty = || RefCell::new((0..self.per_worker).map(|_| Weak::new()).collect());
        let mut pool = self.pools.get_or(empty).borrow_mut();
        let place = rand::rng().random_range(0..self.per_worker);
        if let Some(port) = pool[place].upgrade()
            && port.state().takes_more(now)
        {
            return Ok(port);
        }
        let port = Arc::new(Port(Mutex::new(State::new(self.network.udp(self.address)?, now))));
        tokio::spawn(receive(Arc::clone(&port), now + LIFE, Arc::clone(&self.counters)));
        pool[place] = Arc::downgrade(&port);
        Ok(port)
    }
}

/// A connected UDP socket and the queries that left by it.
#[derive(Debug)]
struct Port(Mutex<State>);

impl Port {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    socket: Box<dyn Datagrams>,
    born: Instant,
    /// It takes no more queries.
    is_retired: bool,
    /// Datagrams with IDs that were never used.
    mismatches: u8,
    /// The IDs of all queries that left by it…
    ids: Vec<u16>,
    /// …and where each stands.
    queries: Vec<Query>,
    outstanding: usize,
    /// Of the task that receives.
    receiver: Option<Waker>,
}

/// Where a query stands.
enum Query {
    /// It is outstanding, and its asker may be waiting already.
    Out(Arc<Errand>, Option<Waker>),
    /// Its asker has not seen yet what came of it.
    Done(Outcome),
    /// Nobody waits for it any more.
    Gone,
}

/// A query's outcome, waited for. When dropped, nobody waits.
pub(super) struct Awaited {
    port: Arc<Port>,
    /// None: its outcome was told.
    nth: Option<usize>,
}

impl Future for Awaited {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let Some(nth) = self.nth else { return Poll::Pending };
        let outcome = ready!(self.port.state().poll_outcome(nth, context));
        self.nth = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(nth) = self.nth {
            self.port.state().give_up(nth);
        }
    }
}

impl State {
    fn new(socket: Box<dyn Datagrams>, born: Instant) -> Self {
        Self {
            socket,
            born,
            is_retired: false,
            mismatches: 0,
            ids: Vec::with_capacity(QUERIES_MAX),
            queries: Vec::with_capacity(QUERIES_MAX),
            outstanding: 0,
            receiver: None,
        }
    }

    fn takes_more(&self, now: Instant) -> bool {
        !self.is_retired && self.queries.len() < QUERIES_MAX && now < self.born + LIFE
    }

    /// Nothing will come that anybody waits for, and nothing will be asked.
    fn is_over(&self) -> bool {
        self.outstanding == 0 && (self.is_retired || self.queries.len() >= QUERIES_MAX)
    }

    /// Sends a question under an ID of its own; which query of this socket it is.
    fn send(&mut self, errand: &Arc<Errand>, edns: bool) -> Result<usize, ErrorKind> {
        let id = self.free_id();
        let sent = MESSAGE.with_borrow_mut(|message| {
            message.clear();
            errand.question().write(id, edns, message);
            self.socket.send(message)
        });
        match sent {
            // For want of room the datagram is lost, as many are on their way; the next try makes up for it.
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                self.fail(error.kind());
                return Err(error.kind());
            }
            _ => {}
        }
        self.ids.push(id);
        self.queries.push(Query::Out(Arc::clone(errand), None));
        self.outstanding += 1;
        Ok(self.queries.len() - 1)
    }

    /// A random ID that was not used on this socket. Few were, so that few draws are needed.
    fn free_id(&self) -> u16 {
        loop {
            let id = random_id();
            if !self.ids.contains(&id) {
                return id;
            }
        }
    }

    /// Receives until there is nothing more for now. Ready: the socket is over.
    fn poll_receive(&mut self, context: &mut Context<'_>, counters: &Counters) -> Poll<()> {
        SPACE.with_borrow_mut(|space| {
            for _ in 0..DATAGRAMS_PER_TURN {
                if self.is_over() {
                    return Poll::Ready(());
                }
                let mut buffer = ReadBuf::new(space);
                match self.socket.poll_receive(context, &mut buffer) {
                    Poll::Ready(Ok(())) => self.deliver(buffer.filled(), counters),
                    Poll::Ready(Err(error)) => self.fail(error.kind()),
                    Poll::Pending => {
                        self.receiver.get_or_insert_with(|| context.waker().clone());
                        return Poll::Pending;
                    }
                }
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Hands a datagram to the query whose ID it has. What does not answer it is waited past: it can be anybody's
    /// (draft-li-dnsop-response-preprocessing).
    fn deliver(&mut self, octets: &[u8], counters: &Counters) {
        let id = octets.first_chunk().map_or(0, |octets| u16::from_be_bytes(*octets));
        if let Some(nth) = self.ids.iter().position(|known| *known == id) {
            let heard = match &self.queries[nth] {
                Query::Out(errand, _) => errand.question().read(id, octets),
                Query::Done(_) | Query::Gone => None,
            };
            return match heard {
                Some(heard) => {
                    self.settle(nth, Ok(Some(heard)));
                    if self.outstanding == 0 {
                        self.socket.expect_nothing();
                    }
                }
                // It cannot be read, or comes late, or twice. Who guesses meets such an ID too seldom to gain by it.
                None => count(&counters.mismatches),
            };
        }
        count(&counters.mismatches);
        self.mismatches += 1;
        if self.mismatches >= MISMATCHES_MAX {
            self.retire_with(|| Ok(None));
        }
    }

    /// The network's error is every query's, for there is nothing to tell whose it was.
    fn fail(&mut self, error: ErrorKind) {
        self.retire_with(|| Err(error));
    }

    /// Takes no more queries, and tells all that are outstanding the same.
    fn retire_with(&mut self, outcome: impl Fn() -> Outcome) {
        self.is_retired = true;
        for nth in 0..self.queries.len() {
            self.settle(nth, outcome());
        }
        self.end_if_over();
    }

    /// Tells what came of a query, if it is outstanding.
    fn settle(&mut self, nth: usize, outcome: Outcome) {
        if let Query::Out(_, asker) = &mut self.queries[nth] {
            let asker = asker.take();
            self.queries[nth] = Query::Done(outcome);
            self.outstanding -= 1;
            asker.into_iter().for_each(Waker::wake);
        }
    }

    /// What came of a query that was not told yet; `context` hears of it.
    fn poll_outcome(&mut self, nth: usize, context: &mut Context<'_>) -> Poll<Outcome> {
        match &mut self.queries[nth] {
            Query::Out(_, asker) => {
                *asker = Some(context.waker().clone());
                Poll::Pending
            }
            told => match mem::replace(told, Query::Gone) {
                Query::Done(outcome) => Poll::Ready(outcome),
                Query::Out(..) | Query::Gone => Poll::Pending,
            },
        }
    }

    fn give_up(&mut self, nth: usize) {
        if let Query::Out(..) = mem::replace(&mut self.queries[nth], Query::Gone) {
            self.outstanding -= 1;
            self.end_if_over();
        }
    }

    /// Lets the task that receives see that it has nothing more to do.
    fn end_if_over(&mut self) {
        if self.is_over() {
            self.receiver.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("outstanding", &self.outstanding).finish_non_exhaustive()
    }
}

/// The task of a socket. It ends, and closes the socket, when that takes no more queries and has none outstanding.
async fn receive(port: Arc<Port>, retires: Instant, counters: Arc<Counters>) {
    let mut old = pin!(sleep_until(retires));
    poll_fn(|context| {
        let is_old = old.as_mut().poll(context).is_ready();
        let mut state = port.state();
        state.is_retired |= is_old;
        state.poll_receive(context, &counters)
    })
    .await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use futures_util::FutureExt as _;
    use tokio::time::sleep;

    use super::*;
    use crate::dns::{Name, Qtype};
    use crate::policy::Permitted;
    use crate::query;
    use crate::upstream::Connecting;

    /// A network whose sockets do as they are told.
    #[derive(Debug, Clone, Default)]
    struct Bench(Arc<Mutex<Vec<Fake>>>);

    /// A socket: what left by it and when, and what is on its way to it.
    #[derive(Debug, Default)]
    struct Fake {
        sent: Vec<(Instant, Vec<u8>)>,
        coming: VecDeque<Result<Vec<u8>, ErrorKind>>,
        refuses: Option<ErrorKind>,
        receiver: Option<Waker>,
        is_closed: bool,
    }

    struct Socket {
        bench: Bench,
        number: usize,
    }

    impl Network for Bench {
        fn udp(&self, _: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
            let mut fakes = self.0.lock().unwrap();
            fakes.push(Fake::default());
            Ok(Box::new(Socket { bench: self.clone(), number: fakes.len() - 1 }))
        }

        fn tcp(&self, _: SocketAddr) -> Connecting {
            Box::pin(std::future::pending())
        }
    }

    impl Datagrams for Socket {
        fn send(&mut self, octets: &[u8]) -> io::Result<()> {
            self.bench.of(self.number, |fake| {
                fake.sent.push((Instant::now(), octets.to_vec()));
                fake.refuses.map_or(Ok(()), |kind| Err(kind.into()))
            })
        }

        fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.bench.of(self.number, |fake| match fake.coming.pop_front() {
                Some(came) => Poll::Ready(came.map(|octets| buffer.put_slice(&octets)).map_err(Into::into)),
                None => {
                    fake.receiver = Some(context.waker().clone());
                    Poll::Pending
                }
            })
        }
    }

    impl Drop for Socket {
        fn drop(&mut self) {
            self.bench.of(self.number, |fake| fake.is_closed = true);
        }
    }

    impl Bench {
        /// A network, the ports to an upstream in it, and its counters.
        fn new() -> (Self, Ports, Arc<Counters>) {
            let (bench, counters) = (Self::default(), Arc::default());
            let network: Arc<dyn Network> = Arc::new(bench.clone());
            let ports = Ports::new("192.0.2.1:53".parse().unwrap(), &network, &counters, SOCKETS_PER_WORKER_MAX);
            (bench, ports, counters)
        }

        fn of<T>(&self, number: usize, look: impl FnOnce(&mut Fake) -> T) -> T {
            look(&mut self.0.lock().unwrap()[number])
        }

        fn each<T>(&self, look: impl Fn(&Fake) -> T) -> Vec<T> {
            self.0.lock().unwrap().iter().map(look).collect()
        }

        fn open(&self) -> usize {
            self.each(|fake| fake.is_closed).into_iter().filter(|is_closed| !is_closed).count()
        }

        /// Something comes to a socket.
        fn comes(&self, number: usize, came: Result<Vec<u8>, ErrorKind>) {
            self.of(number, |fake| {
                fake.coming.push_back(came);
                fake.receiver.take().into_iter().for_each(Waker::wake);
            });
        }

        /// The answer to the nth query of a socket comes.
        fn answers(&self, number: usize, nth: usize) {
            let mut octets = self.of(number, |fake| fake.sent[nth].1.clone());
            octets[2] |= 0x80;
            self.comes(number, Ok(octets));
        }

        /// Every query of every socket is answered.
        fn answers_all(&self) {
            for (number, sent) in self.each(|fake| fake.sent.len()).into_iter().enumerate() {
                (0..sent).for_each(|nth| self.answers(number, nth));
            }
        }
    }

    fn question() -> Arc<Errand> {
        asking("a.example")
    }

    fn asking(name: &str) -> Arc<Errand> {
        Errand::new(Permitted::for_tests(query::Query::plain(Name::from_text(name).unwrap(), Qtype::A)))
    }

    /// Has the tasks of the sockets look at what came.
    async fn settle() {
        sleep(Duration::from_millis(1)).await;
    }

    /// So many queries on the first socket, each drawn until it is that one.
    fn ask_on_first(ports: &Ports, count: usize) -> Vec<Awaited> {
        let mut awaited = vec![ports.ask(&question(), true, Instant::now()).unwrap()];
        while awaited.len() < count {
            awaited.push(ports.ask(&question(), true, Instant::now()).unwrap());
            let last = awaited.last().unwrap();
            if !Arc::ptr_eq(&last.port, &awaited[0].port) {
                awaited.pop();
            }
        }
        awaited
    }

    fn is_heard(outcome: Option<Outcome>) -> bool {
        matches!(outcome, Some(Ok(Some(Heard::Good(_)))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_takes_64_queries_and_no_more() {
        let (bench, ports, _) = Bench::new();
        let all: Vec<_> = (0..20_000).map(|_| ports.ask(&question(), true, Instant::now()).unwrap()).collect();
        let sent = bench.each(|fake| fake.sent.len());
        assert!(sent.iter().all(|sent| *sent <= QUERIES_MAX) && sent.contains(&QUERIES_MAX));
        let full = sent.iter().filter(|sent| **sent == QUERIES_MAX).count();
        assert!(sent.len() - full <= SOCKETS_PER_WORKER_MAX, "{full} of {} are full", sent.len());
        bench.answers_all();
        settle().await;
        assert!(all.into_iter().all(|awaited| is_heard(awaited.now_or_never())));
        assert_eq!(bench.open(), sent.len() - full, "those that are full and have none outstanding are closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_takes_queries_for_two_seconds() {
        let (bench, ports, _) = Bench::new();
        for _ in 0..4_000 {
            drop(ports.ask(&question(), true, Instant::now()).unwrap());
            sleep(Duration::from_millis(5)).await;
        }
        let lives = bench.each(|fake| fake.sent.last().unwrap().0 - fake.sent[0].0);
        assert!(lives.iter().all(|life| *life < LIFE), "{lives:?}");
        assert!(lives.iter().any(|life| *life > LIFE * 9 / 10), "they are used again until then");
        assert!(bench.open() <= SOCKETS_PER_WORKER_MAX);
        sleep(LIFE).await;
        assert_eq!(bench.open(), 0, "an idle server holds none");
    }

    #[tokio::test(start_paused = true)]
    async fn few_queries_have_a_port_of_their_own_each() {
        let (bench, ports, _) = Bench::new();
        for _ in 0..4_000 {
            drop(ports.ask(&question(), true, Instant::now()).unwrap());
            sleep(Duration::from_secs(1)).await;
        }
        // At most two are open when a third is drawn; about one query in 128 meets the younger of them.
        let shared = 4_000 - bench.each(|fake| fake.sent.len()).len();
        assert!((1..100).contains(&shared), "{shared} of 4,000 queries left by the port of another");
    }

    #[tokio::test(start_paused = true)]
    async fn where_descriptors_are_few_so_are_the_sockets() {
        for per_worker in [0, 1, 6] {
            let (bench, counters) = (Bench::default(), Arc::default());
            let network: Arc<dyn Network> = Arc::new(bench.clone());
            let ports = Ports::new("192.0.2.1:53".parse().unwrap(), &network, &counters, per_worker);
            for _ in 0..1_000 {
                drop(ports.ask(&question(), true, Instant::now()).unwrap());
                settle().await;
                assert!(bench.open() <= per_worker.max(1));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_socket_is_open_while_a_query_is_outstanding() {
        let (bench, ports, _) = Bench::new();
        let mut awaited = ports.ask(&question(), true, Instant::now()).unwrap();
        assert!((&mut awaited).now_or_never().is_none());
        sleep(LIFE * 2).await;
        assert_eq!(bench.open(), 1);
        bench.answers(0, 0);
        assert!(is_heard(Some(awaited.await)));
        settle().await;
        assert_eq!(bench.open(), 0);
        let given_up = ports.ask(&question(), true, Instant::now()).unwrap();
        sleep(LIFE * 2).await;
        assert_eq!(bench.open(), 1);
        drop(given_up);
        settle().await;
        assert_eq!(bench.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_socket_of_a_query_is_drawn_evenly_and_at_random() {
        let (bench, ports, _) = Bench::new();
        let all: Vec<_> =
            (0..SOCKETS_PER_WORKER_MAX * 32).map(|_| ports.ask(&question(), true, Instant::now()).unwrap()).collect();
        let drawn: Vec<_> = all.iter().map(|awaited| Arc::as_ptr(&awaited.port)).collect();
        // 32 each, give or take 5.7: fewer than 4, or no more than 44 anywhere, is as good as impossible.
        let places = &bench.each(|fake| fake.sent.len())[..SOCKETS_PER_WORKER_MAX];
        assert!(places.iter().all(|sent| *sent >= 4) && places.iter().any(|sent| *sent > 40), "{places:?}");
        // One in 128 is followed by itself: 32 in all, give or take 5.7. A round of turns has none.
        let repeated = drawn.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!((4..80).contains(&repeated), "{repeated}");
        // Which of the others comes next tells nothing either.
        let order: Vec<_> = (1..drawn.len()).filter(|at| drawn[at - 1] == drawn[0]).map(|at| drawn[at]).collect();
        assert!(order.iter().collect::<HashSet<_>>().len() > order.len() / 2, "what follows the first socket");
    }

    #[tokio::test(start_paused = true)]
    async fn no_id_is_used_twice_on_a_socket() {
        let (bench, ports, _) = Bench::new();
        let awaited = ask_on_first(&ports, QUERIES_MAX);
        let ids: HashSet<_> = bench.of(0, |fake| fake.sent.iter().map(|(_, octets)| octets[..2].to_vec()).collect());
        assert!(ids.len() == QUERIES_MAX && !ids.contains(&vec![0, 0]));
        let mut state = awaited[0].port.state();
        state.ids = (1..=u16::MAX).filter(|id| id % 64 != 0).collect();
        let free: Vec<_> = (0..8).map(|_| state.free_id()).collect();
        assert!(free.iter().all(|id| id % 64 == 0), "{free:?}");
        drop(state);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_goes_to_the_query_of_its_id() {
        let (bench, ports, counters) = Bench::new();
        let other = asking("b.example");
        let mut first = ask_on_first(&ports, 2);
        let port = Arc::clone(&first[0].port);
        let mut odd = std::iter::repeat_with(|| ports.ask(&other, true, Instant::now()).unwrap())
            .find(|awaited| Arc::ptr_eq(&awaited.port, &port))
            .unwrap();
        bench.answers(0, 1);
        settle().await;
        assert!(is_heard(first.pop().unwrap().now_or_never()));
        let mut first = first.pop().unwrap();
        assert!((&mut first).now_or_never().is_none() && (&mut odd).now_or_never().is_none());
        // The right ID of one, the question of another: nobody's.
        let mut crossed = bench.of(0, |fake| fake.sent[0].1.clone());
        let id: Vec<u8> = bench.of(0, |fake| fake.sent.last().unwrap().1[..2].to_vec());
        crossed[..2].copy_from_slice(&id);
        crossed[2] |= 0x80;
        bench.comes(0, Ok(crossed));
        settle().await;
        assert!((&mut first).now_or_never().is_none() && (&mut odd).now_or_never().is_none());
        assert_eq!(counters.read().mismatches, 1);
        assert_eq!(port.state().mismatches, 0, "whoever sends it knows the ID: it is no guess");
    }

    #[tokio::test(start_paused = true)]
    async fn who_guesses_at_a_port_ends_it_for_all_its_queries() {
        let (bench, ports, counters) = Bench::new();
        let mut all = ask_on_first(&ports, 10);
        let wrong = || bench.comes(0, Ok(b"\0\0\x81\x80\0\x01\0\0\0\0\0\0".to_vec()));
        (1..MISMATCHES_MAX).for_each(|_| wrong());
        settle().await;
        assert!(all[0].port.state().takes_more(Instant::now()) && (&mut all[0]).now_or_never().is_none());
        bench.answers(0, 3);
        settle().await;
        assert!(is_heard(all.remove(3).now_or_never()), "the right one is heard still");
        wrong();
        settle().await;
        assert_eq!(counters.read().mismatches, u64::from(MISMATCHES_MAX));
        assert!(!all[0].port.state().takes_more(Instant::now()));
        let is_guessed_at = |awaited: Awaited| matches!(awaited.now_or_never(), Some(Ok(None)));
        assert!(all.into_iter().all(is_guessed_at), "to be asked over TCP");
        assert!(bench.of(0, |fake| fake.is_closed));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_network_is_every_querys() {
        for at_send in [false, true] {
            let (bench, ports, _) = Bench::new();
            let all = ask_on_first(&ports, 10);
            if at_send {
                bench.of(0, |fake| fake.refuses = Some(ErrorKind::ConnectionRefused));
                let refused =
                    std::iter::repeat_with(|| ports.ask(&question(), true, Instant::now())).find_map(Result::err);
                assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
            } else {
                bench.comes(0, Err(ErrorKind::ConnectionRefused));
            }
            settle().await;
            let refused = |awaited: Awaited| matches!(awaited.now_or_never(), Some(Err(ErrorKind::ConnectionRefused)));
            assert!(all.into_iter().all(refused));
            assert!(bench.of(0, |fake| fake.is_closed));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_datagram_that_finds_no_room_is_a_lost_one() {
        let (bench, ports, _) = Bench::new();
        let mut all = ask_on_first(&ports, 2);
        bench.of(0, |fake| fake.refuses = Some(ErrorKind::WouldBlock));
        while bench.of(0, |fake| fake.sent.len()) < 3 {
            all.push(ports.ask(&question(), true, Instant::now()).unwrap());
        }
        settle().await;
        assert!(all.into_iter().all(|awaited| awaited.now_or_never().is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn late_and_doubled_answers_are_passed_over_and_counted() {
        let (bench, ports, counters) = Bench::new();
        let mut all = ask_on_first(&ports, 40);
        let last = all.pop().unwrap();
        drop(all);
        (0..39).for_each(|nth| bench.answers(0, nth));
        settle().await;
        settle().await;
        assert_eq!(counters.read().mismatches, 39);
        assert!(last.port.state().takes_more(Instant::now()), "they are no guesses");
        bench.answers(0, 39);
        bench.answers(0, 39);
        settle().await;
        assert_eq!(counters.read().mismatches, 40);
        assert!(is_heard(last.now_or_never()));
    }

    #[test]
    fn the_sockets_of_a_runtime_that_has_ended_are_not_used() {
        let (bench, ports, _) = Bench::new();
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = || (0..1_000).for_each(|_| drop(ports.ask(&question(), true, Instant::now()).unwrap()));
        runtime().block_on(async { ask() });
        assert_eq!(bench.open(), 0);
        let before = bench.each(|fake| fake.sent.len());
        runtime().block_on(async { ask() });
        assert_eq!(bench.each(|fake| fake.sent.len())[..before.len()], before);
    }
}
