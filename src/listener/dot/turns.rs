//! Serves a stream of framed messages in turns: read what there is, answer it, write the answers at once.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::{unconstrained, yield_now};
use tokio::time::{Instant, Sleep, sleep_until};

use super::desk::{Desk, Host, OUT_OCTETS_MAX};
use super::framer::Framer;
use crate::listener::drain::Drain;
use crate::listener::{Phase, idle, until, within};
use crate::query::Now;
use crate::telemetry::Bound;

/// What is read in one turn, in octets, a last record more. Then others of the worker have theirs: a connection drained
/// until a read would block makes the others wait 8–16 ms.
const TURN_OCTETS: usize = 8 * 1_024;

/// A connection on which nothing was asked yet when a drain begins is given so long: its query may be on its way, as
/// with those taken from the accept queue.
const GRACE: Duration = Duration::from_secs(1);

/// How long a client may take to hear the end: closing at once while it still sends would reset the connection, and
/// with it answers that have not reached it.
const LINGER: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Turns<S, H> {
    stream: S,
    framer: Framer,
    desk: Desk<H>,
    /// How much of the desk's output has been written.
    written: usize,
    drain: Drain,
    timer: Pin<Box<Sleep>>,
    /// Whom the timer wakes.
    timed: Option<Waker>,
    /// When the message that is begun began.
    begun: Instant,
    /// The stream was not read, for a reason of ours.
    held: bool,
    /// Nothing more is read.
    ended: bool,
}

/// What comes after a turn.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// The next.
    Next,
    /// The next, after others have had theirs.
    Yield,
    /// None.
    Over(End),
}

/// Why there is no next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All that was to be answered is.
    Finished,
    /// No whole message came within the idle timeout.
    Idle,
    /// A message begun was not completed within the message timeout.
    Stalled,
    /// The stream is no use any more.
    Broken,
}

impl<S: AsyncBufRead + AsyncWrite + Unpin, H: Host> Turns<S, H> {
    pub(super) fn new(stream: S, host: H, phase: watch::Receiver<Phase>) -> Self {
        let desk = Desk::new(host);
        let begun = desk.active;
        let timer = Box::pin(sleep_until(begun + check_interval(&desk)));
        Self {
            stream,
            framer: Framer::default(),
            desk,
            written: 0,
            drain: Drain::new(phase),
            timer,
            timed: None,
            begun,
            held: false,
            ended: false,
        }
    }

    /// Serves until the client has gone, or a bound or the drain ends it.
    ///
    /// It takes `&mut self`, as what it awaits does: moved into a future, a connection's room would be taken again.
    pub(super) async fn run(&mut self) {
        let end = loop {
            let turn = poll_fn(|context| self.poll_turn(context)).await;
            if self.write().await.is_err() {
                break End::Broken;
            }
            match turn {
                Turn::Next => {}
                Turn::Yield => yield_now().await,
                Turn::Over(end) => break end,
            }
        };
        self.close(end).await;
    }

    /// Takes what there is and answers it; ready when something is left to be written, or at an end.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        self.desk.gather(context);
        if let Poll::Ready(turn) = self.poll_queries(context) {
            return Poll::Ready(turn);
        }
        let could_take = self.desk.may_take();
        // Answers that are newly waited for have not been asked whether they are there.
        self.desk.gather(context);
        if self.desk.out.len() >= OUT_OCTETS_MAX {
            return Poll::Ready(Turn::Yield);
        }
        if !self.desk.out.is_empty() {
            // Mostly the socket takes it at once. The stream was read until it had no more, and wakes us when it has:
            // that it is not looked at again here is a tenth of what a turn costs.
            match self.poll_written(context) {
                // One that came makes room for queries that were not taken, or not read, for want of it.
                Poll::Ready(Ok(())) if !could_take && self.desk.may_take() => return Poll::Ready(Turn::Next),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::Over(End::Broken)),
                Poll::Pending => return Poll::Ready(Turn::Next),
            }
        }
        if (self.ended || self.desk.is_broken) && !self.desk.is_waiting() {
            return Poll::Ready(Turn::Over(End::Finished));
        }
        self.poll_due(context)
    }

    /// Reads until the stream has no more, the turn is full, or no more may be taken.
    fn poll_queries(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        self.hold_or_resume();
        let mut now = None;
        if self.desk.may_take() && self.framer.has_whole() {
            self.take_kept(&mut now);
        }
        let mut left = TURN_OCTETS;
        while !self.ended && self.desk.may_take() {
            match self.poll_read(context, &mut now) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(octets)) if octets < left => left -= octets,
                Poll::Ready(Ok(_)) => return Poll::Ready(Turn::Yield),
                // The end without a close_notify: what came before it is whole, since messages have their length.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => self.ended = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::Over(End::Broken)),
                Poll::Pending => {
                    self.ended = self.poll_drained(context);
                    break;
                }
            }
        }
        Poll::Pending
    }

    /// The time in which we did not read is not held against a client whose message is begun.
    fn hold_or_resume(&mut self) {
        let was_held = mem::replace(&mut self.held, !self.desk.may_take());
        if was_held && !self.held {
            self.begun = Instant::now();
        }
    }

    /// Takes whole messages that had to wait.
    fn take_kept(&mut self, now: &mut Option<Now>) {
        let Self { framer, desk, begun, .. } = self;
        let now = *now.get_or_insert_with(|| desk.host.clock().now());
        framer.feed(&[], |message| desk.take(message, now));
        *begun = desk.active;
    }

    /// Reads once; how many octets.
    fn poll_read(&mut self, context: &mut Context<'_>, now: &mut Option<Now>) -> Poll<io::Result<usize>> {
        let Self { stream, framer, desk, begun, .. } = self;
        let mut stream = Pin::new(stream);
        let octets = ready!(stream.as_mut().poll_fill_buf(context))?;
        let now = *now.get_or_insert_with(|| desk.host.clock().now());
        let was_begun = framer.has_begun();
        let taken = framer.feed(octets, |message| desk.take(message, now));
        if taken > 0 || !was_begun {
            *begun = if taken > 0 { desk.active } else { desk.host.clock().instant(now.mono) };
        }
        let used = octets.len();
        stream.consume(used);
        Poll::Ready(Ok(used))
    }

    /// Whether the process is to end and the stream has nothing more that would still be answered.
    fn poll_drained(&mut self, context: &mut Context<'_>) -> bool {
        self.drain.poll(context) && !self.framer.has_begun() && !self.is_in_grace()
    }

    fn is_in_grace(&self) -> bool {
        self.desk.is_fresh && Instant::now() < self.desk.active + GRACE
    }

    /// Waits for the moment at which time alone changes something.
    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        if self.is_timed(context) {
            return Poll::Pending;
        }
        loop {
            let Some((at, turn)) = self.due() else { return Poll::Pending };
            if at < self.timer.deadline() {
                self.timer.as_mut().reset(at);
            }
            // Where the task has used up its budget, a timer would be Pending without waking anybody.
            if pin!(unconstrained(self.timer.as_mut())).poll(context).is_pending() {
                self.timed = Some(context.waker().clone());
                return Poll::Pending;
            }
            if at <= self.timer.deadline() {
                self.desk.resumes = None;
                return Poll::Ready(turn);
            }
            // A moment that moves on with each query is looked at when the timer has run out, not set anew each time;
            // and in between, since the idle timeout may have shrunk.
            let check = Instant::now() + check_interval(&self.desk);
            self.timer.as_mut().reset(at.min(check));
        }
    }

    /// Whether nothing is waited for that could come before the timer runs out, and that will wake us: it was set to at
    /// most a check interval, and no idle timeout is shorter ([`idle::least`]).
    fn is_timed(&self, context: &Context<'_>) -> bool {
        self.desk.resumes.is_none()
            && !self.framer.has_begun()
            && !self.drain.has_begun()
            && !self.timer.is_elapsed()
            && self.timed.as_ref().is_some_and(|waker| waker.will_wake(context.waker()))
    }

    /// When time alone changes something, and what comes then.
    fn due(&self) -> Option<(Instant, Turn)> {
        let settings = self.desk.host.settings();
        if let Some(at) = self.desk.resumes {
            return Some((at, Turn::Next));
        }
        if self.ended || !self.desk.may_take() {
            return None;
        }
        if self.framer.has_begun() {
            return Some((until(settings.message_timeout, self.begun)?, Turn::Over(End::Stalled)));
        }
        if self.desk.is_waiting() {
            return None;
        }
        if self.drain.has_begun() {
            return Some((self.desk.active + GRACE, Turn::Over(End::Finished)));
        }
        Some((until(self.desk.host.idle_timeout(), self.desk.active)?, Turn::Over(End::Idle)))
    }

    /// Writes the answers, all in one.
    async fn write(&mut self) -> Result<(), End> {
        if self.desk.out.is_empty() {
            return Ok(());
        }
        let settings = self.desk.host.settings();
        let (timeout, since) = (settings.message_timeout, self.desk.active);
        match within(timeout, since, poll_fn(|context| self.poll_written(context))).await {
            Some(result) => result.map_err(|_: io::Error| End::Broken),
            None => {
                self.desk.host.bit(Bound::MessageTimeout);
                Err(End::Broken)
            }
        }
    }

    /// Writes the answers, or what is left of them.
    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(self.poll_write(context));
        self.written = 0;
        self.desk.clear_out();
        Poll::Ready(result)
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, desk, written, .. } = self;
        let mut stream = Pin::new(stream);
        while *written < desk.out.len() {
            match ready!(stream.as_mut().poll_write(context, &desk.out[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                octets => *written += octets,
            }
        }
        stream.poll_flush(context)
    }

    async fn close(&mut self, end: End) {
        match end {
            End::Broken => return,
            End::Finished => {}
            End::Idle => self.desk.host.bit(Bound::IdleTimeout),
            End::Stalled => self.desk.host.bit(Bound::MessageTimeout),
        }
        let _ = tokio::time::timeout(LINGER, part(&mut self.stream)).await;
    }
}

/// Says the end (close_notify, then FIN) and waits for the client's.
async fn part(stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.shutdown().await?;
    loop {
        let octets = stream.fill_buf().await?.len();
        if octets == 0 {
            return Ok(());
        }
        stream.consume(octets);
    }
}

/// Where there is no idle timeout there is nothing to look for, and a timer that rarely fires costs nothing.
const CHECK_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// How often an idle connection looks whether the idle timeout has shrunk: as often as the shortest would have it.
fn check_interval<H: Host>(desk: &Desk<H>) -> Duration {
    let whole = desk.host.settings().idle_timeout;
    if whole.is_zero() { CHECK_INTERVAL_MAX } else { idle::least(whole) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::future::ready;
    use std::sync::{Arc, Mutex};

    use bytes::{BufMut, BytesMut};
    use tokio::io::{AsyncReadExt, BufReader, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::{sleep, timeout};

    use super::super::desk::Step;
    use super::*;
    use crate::clock::Clock;
    use crate::listener::Settings;
    use crate::listener::admit::tests::{configs, connect, connected};
    use crate::listener::trust::Prefixes;

    /// Answers by what stands in the message: `d<millis>` later, `r` when it is first asked for, `x` never, anything else
    /// at once; with the same text.
    struct Script {
        clock: Clock,
        settings: Settings,
        toll: Duration,
        idle_timeout: Arc<Mutex<Duration>>,
        bits: Arc<Mutex<Vec<Bound>>>,
    }

    impl Host for Script {
        fn clock(&self) -> &Clock {
            &self.clock
        }

        fn settings(&self) -> &Settings {
            &self.settings
        }

        fn idle_timeout(&self) -> Duration {
            *self.idle_timeout.lock().unwrap()
        }

        fn toll(&self, _: Now) -> Duration {
            self.toll
        }

        fn answer(&self, message: &[u8], _: Now, out: &mut BytesMut) -> Step {
            if message.is_empty() || message == b"x" {
                out.put_slice(b"half an answer");
                return Step::Unanswerable;
            }
            let text = String::from_utf8(message.to_vec()).unwrap();
            if text == "r" {
                return Step::Waiting(Box::pin(ready(BytesMut::from("r"))));
            }
            match text.strip_prefix('d').and_then(|delay| delay.parse().ok()) {
                Some(millis) => Step::Waiting(Box::pin(async move {
                    sleep(Duration::from_millis(millis)).await;
                    BytesMut::from(text.as_bytes())
                })),
                None => {
                    out.put_slice(message);
                    Step::Answered
                }
            }
        }

        fn bit(&self, bound: Bound) {
            self.bits.lock().unwrap().push(bound);
        }
    }

    /// A client's end of a connection being served.
    struct Client {
        stream: DuplexStream,
        say: watch::Sender<Phase>,
        bits: Arc<Mutex<Vec<Bound>>>,
        served: JoinHandle<()>,
    }

    const PIPE_OCTETS: usize = 256 * 1_024;

    fn client() -> Client {
        client_of(|_| {})
    }

    fn client_of(change: impl FnOnce(&mut Script)) -> Client {
        client_over(PIPE_OCTETS, change)
    }

    fn script() -> Script {
        let settings = Settings {
            doh: Vec::new(),
            dot: Vec::new(),
            proxy_from: Prefixes::default(),
            forwarded_from: Prefixes::default(),
            doh_path: String::new(),
            connections: 0,
            connections_per_client: 0,
            queries_per_second_per_client: 0,
            in_flight_per_connection: 256,
            handshake_timeout: Duration::from_secs(5),
            message_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(65),
            drain_timeout: Duration::from_secs(10),
        };
        Script {
            clock: Clock::system(),
            idle_timeout: Arc::new(Mutex::new(settings.idle_timeout)),
            settings,
            toll: Duration::ZERO,
            bits: Arc::default(),
        }
    }

    fn client_over(pipe_octets: usize, change: impl FnOnce(&mut Script)) -> Client {
        let mut script = script();
        change(&mut script);
        let bits = Arc::clone(&script.bits);
        let (near, far) = duplex(pipe_octets);
        let (say, phase) = watch::channel(Phase::Running);
        let served = tokio::spawn(async move { Turns::new(BufReader::new(far), script, phase).run().await });
        Client { stream: near, say, bits, served }
    }

    fn framed(messages: &[&str]) -> Vec<u8> {
        let mut octets = Vec::new();
        for message in messages {
            octets.put_u16(message.len() as u16);
            octets.put_slice(message.as_bytes());
        }
        octets
    }

    impl Client {
        async fn send(&mut self, messages: &[&str]) {
            self.stream.write_all(&framed(messages)).await.unwrap();
        }

        async fn receive(&mut self) -> String {
            let length = self.stream.read_u16().await.unwrap();
            let mut answer = vec![0; length.into()];
            self.stream.read_exact(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        }

        /// What one read gives, which is what one write gave.
        async fn receive_once(&mut self) -> Vec<u8> {
            let mut octets = BytesMut::with_capacity(PIPE_OCTETS);
            self.stream.read_buf(&mut octets).await.unwrap();
            octets.to_vec()
        }

        /// The rest until the server's end, and how long it took.
        async fn rest(&mut self) -> (Vec<u8>, Duration) {
            let start = Instant::now();
            let mut octets = Vec::new();
            self.stream.read_to_end(&mut octets).await.unwrap();
            (octets, start.elapsed())
        }

        fn bits(&self) -> Vec<Bound> {
            self.bits.lock().unwrap().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_at_once_makes_room_for_what_was_not_taken() {
        let mut client = client_of(|script| script.settings.in_flight_per_connection = 1);
        client.send(&["r"; 5]).await;
        for _ in 0..5 {
            assert_eq!(timeout(Duration::from_secs(1), client.receive()).await.as_deref(), Ok("r"));
        }
        client.send(&["r"]).await;
        assert_eq!(timeout(Duration::from_secs(1), client.receive()).await.as_deref(), Ok("r"));
    }

    #[tokio::test(start_paused = true)]
    async fn queries_of_a_read_are_answered_in_one_write() {
        let mut client = client();
        client.send(&["one", "two", "three"]).await;
        assert_eq!(client.receive_once().await, framed(&["one", "two", "three"]));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_leave_as_they_come() {
        let mut client = client();
        client.send(&["d300", "d100", "now", "d200"]).await;
        for expected in ["now", "d100", "d200", "d300"] {
            assert_eq!(client.receive().await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_come_together_leave_in_one_write() {
        let mut client = client();
        client.send(&["d100", "d100"]).await;
        assert_eq!(client.receive_once().await, framed(&["d100", "d100"]));
    }

    #[tokio::test(start_paused = true)]
    async fn drip_is_answered_when_whole() {
        let mut client = client();
        for octet in framed(&["slow", "and", "steady"]) {
            client.stream.write_all(&[octet]).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        for expected in ["slow", "and", "steady"] {
            assert_eq!(client.receive().await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_has_its_time_from_its_first_octet() {
        let mut client = client();
        client.send(&["whole"]).await;
        let octets = framed(&["a longer message"]);
        let start = Instant::now();
        for octet in &octets[..11] {
            client.stream.write_all(&[*octet]).await.unwrap();
            sleep(Duration::from_millis(900)).await;
        }
        let (answered, _) = client.rest().await;
        assert_eq!((answered, start.elapsed()), (framed(&["whole"]), Duration::from_secs(10)));
        client.served.await.unwrap();
        assert_eq!(*client.bits.lock().unwrap(), [Bound::MessageTimeout]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_message_has_its_own_time() {
        let mut client = client();
        // Each piece ends one message and begins the next; none takes 10 s.
        let octets = framed(&["aaaa", "bbbb", "cccc"]);
        for piece in octets.chunks(5) {
            client.stream.write_all(piece).await.unwrap();
            sleep(Duration::from_secs(8)).await;
        }
        for expected in ["aaaa", "bbbb", "cccc"] {
            assert_eq!(client.receive().await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed() {
        let mut client = client();
        sleep(Duration::from_secs(60)).await;
        client.send(&["awake"]).await;
        assert_eq!(client.receive().await, "awake");
        assert_eq!(client.rest().await, (Vec::new(), Duration::from_secs(65)));
        assert_eq!(client.bits(), [Bound::IdleTimeout]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_query_puts_the_idle_timeout_off() {
        let mut client = client();
        for _ in 0..30 {
            client.send(&["awake"]).await;
            assert_eq!(client.receive().await, "awake");
            sleep(Duration::from_secs(7)).await;
        }
        assert_eq!(client.rest().await, (Vec::new(), Duration::from_secs(65 - 7)));
        assert_eq!(client.bits(), [Bound::IdleTimeout]);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_an_upstream_is_not_idle() {
        let mut client = client_of(|script| script.idle_timeout = Arc::new(Mutex::new(Duration::from_secs(2))));
        client.send(&["d4000"]).await;
        assert_eq!(client.receive().await, "d4000");
        assert_eq!(client.rest().await, (Vec::new(), Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn zero_is_no_limit() {
        let mut client = client_of(|script| {
            script.settings.idle_timeout = Duration::ZERO;
            script.idle_timeout = Arc::default();
            script.settings.message_timeout = Duration::ZERO;
            script.settings.in_flight_per_connection = 0;
        });
        sleep(Duration::from_secs(100_000)).await;
        let octets = framed(&["d1", "begun"]);
        client.stream.write_all(&octets[..6]).await.unwrap();
        sleep(Duration::from_secs(100_000)).await;
        client.stream.write_all(&octets[6..]).await.unwrap();
        assert_eq!((client.receive().await, client.receive().await), ("d1".to_owned(), "begun".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_said_all_is_answered() {
        let mut client = client();
        client.send(&["d500", "now"]).await;
        client.stream.write_all(b"\0\x09begun").await.unwrap();
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, (framed(&["now", "d500"]), Duration::from_millis(500)));
        client.served.await.unwrap();
        assert_eq!(*client.bits.lock().unwrap(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_answered_ends_the_connection_and_not_what_came_before() {
        for bad in ["x", ""] {
            let mut client = client();
            client.send(&["d500", "now", bad, "behind"]).await;
            assert_eq!(client.rest().await, (framed(&["now", "d500"]), Duration::from_millis(500)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_connection_is_not_read_on_and_nothing_is_refused() {
        let mut client = client_of(|script| script.settings.in_flight_per_connection = 2);
        client.send(&["d100", "d200", "third", "d50", "fifth"]).await;
        assert_eq!(client.receive_once().await, framed(&["d100", "third"]));
        assert_eq!(client.receive_once().await, framed(&["d50", "fifth"]));
        assert_eq!(client.receive_once().await, framed(&["d200"]));
        assert_eq!(client.bits(), [Bound::InFlightPerConnection]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_message_stands_still_while_we_do_not_read() {
        let mut client = client_of(|script| script.settings.in_flight_per_connection = 1);
        client.send(&["d9000"]).await;
        client.stream.write_all(b"\0\x05beg").await.unwrap();
        assert_eq!(client.receive().await, "d9000");
        sleep(Duration::from_secs(9)).await;
        client.stream.write_all(b"un").await.unwrap();
        assert_eq!(client.receive().await, "begun");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_too_fast_is_made_to_wait() {
        let mut client = client_of(|script| script.toll = Duration::from_millis(250));
        let start = Instant::now();
        client.send(&["one", "two", "three"]).await;
        for expected in [("one", 0), ("two", 250), ("three", 500)] {
            let answer = client.receive().await;
            assert_eq!((answer.as_str(), start.elapsed().as_millis()), expected);
        }
        assert_eq!(client.bits(), [Bound::QueriesPerClient; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_not_taken_end_the_connection() {
        let mut client = client_over(1_024, |_| {});
        let long = "l".repeat(600);
        client.send(&[&long]).await;
        client.send(&[&long]).await;
        timeout(Duration::from_secs(11), &mut client.served).await.unwrap().unwrap();
        assert_eq!(client.bits(), [Bound::MessageTimeout]);
    }

    #[tokio::test(start_paused = true)]
    async fn long_answers_leave_in_parts_and_whole() {
        let mut client = client();
        let long = "l".repeat(50_000);
        let sent = framed(&[long.as_str(); 12]);
        let (mut reading, mut writing) = tokio::io::split(client.stream);
        let (received, ()) = tokio::join!(
            async {
                let mut octets = Vec::new();
                reading.read_to_end(&mut octets).await.unwrap();
                octets
            },
            async {
                writing.write_all(&sent).await.unwrap();
                writing.shutdown().await.unwrap();
            }
        );
        assert!(received == sent);
        client.stream = reading.unsplit(writing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_answers_what_has_been_asked() {
        let mut client = client();
        client.send(&["d900", "now"]).await;
        assert_eq!(client.receive().await, "now");
        client.send(&["sent"]).await;
        client.say.send_replace(Phase::Draining);
        assert_eq!(client.rest().await, (framed(&["sent", "d900"]), Duration::from_millis(900)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_lets_a_message_be_completed() {
        let mut client = client();
        client.send(&["first"]).await;
        client.stream.write_all(b"\0\x05beg").await.unwrap();
        assert_eq!(client.receive().await, "first");
        client.say.send_replace(Phase::Draining);
        sleep(Duration::from_secs(3)).await;
        client.stream.write_all(b"un").await.unwrap();
        assert_eq!(client.rest().await, (framed(&["begun"]), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_closes_what_is_idle_at_once() {
        let mut client = client();
        client.send(&["first"]).await;
        assert_eq!(client.receive().await, "first");
        client.say.send_replace(Phase::Draining);
        assert_eq!(client.rest().await, (Vec::new(), Duration::ZERO));
        assert_eq!(client.bits(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_new_at_the_drain_may_ask_once() {
        let mut asking = client();
        asking.say.send_replace(Phase::Draining);
        sleep(Duration::from_millis(500)).await;
        asking.send(&["just in time"]).await;
        assert_eq!(asking.rest().await, (framed(&["just in time"]), Duration::ZERO));

        let mut silent = client();
        silent.say.send_replace(Phase::Draining);
        assert_eq!(silent.rest().await, (Vec::new(), GRACE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_hear_the_end_is_left() {
        let client = client();
        client.say.send_replace(Phase::Draining);
        let start = Instant::now();
        client.served.await.unwrap();
        assert_eq!(start.elapsed(), GRACE + LINGER);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_timeout_that_shrinks_ends_who_is_idle_already() {
        let idle_timeout = Arc::new(Mutex::new(Duration::from_secs(65)));
        let mut client = client_of(|script| script.idle_timeout = Arc::clone(&idle_timeout));
        sleep(Duration::from_secs(20)).await;
        *idle_timeout.lock().unwrap() = Duration::from_millis(6_500);
        let (_, waited) = client.rest().await;
        assert!(waited <= Duration::from_millis(6_501), "{waited:?}");
    }

    #[tokio::test]
    async fn many_records_are_answered_over_tls_and_the_end_is_said() {
        let (server, client) = configs();
        let (near, far) = connected().await;
        let client = Arc::new(client);
        let accepting = tokio_rustls::TlsAcceptor::from(server).accept(far);
        let (far, near) = tokio::join!(accepting, connect(near, &client));
        let (_say, phase) = watch::channel(Phase::Running);
        let served = tokio::spawn(async move { Turns::new(far.unwrap(), script(), phase).run().await });
        let mut near = near.unwrap();
        let mut expected = Vec::new();
        for number in 0..2_000 {
            let query = framed(&[&format!("query number {number}")]);
            near.write_all(&query).await.unwrap();
            near.flush().await.unwrap();
            expected.extend(query);
        }
        near.shutdown().await.unwrap();
        // Without the server's close_notify this would be an error.
        let mut answers = Vec::new();
        near.read_to_end(&mut answers).await.unwrap();
        assert!(answers == expected);
        served.await.unwrap();
    }
}
