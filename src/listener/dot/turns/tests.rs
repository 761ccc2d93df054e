//! A framed stream in turns: what is taken, answered, held back and ended.

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
