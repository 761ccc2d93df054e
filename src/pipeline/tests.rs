//! The ways of an answer that no scenario reaches.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use jiff::Timestamp;
use tokio::io::ReadBuf;

use super::*;
use crate::cache;
use crate::dns::{Name, Qclass, Qtype, Rcode};
use crate::local;
use crate::policy::load;
use crate::policy::order::Order;
use crate::upstream::{self, Connecting, Datagrams, Network, Resolvers};

/// A network that takes everything and answers nothing.
#[derive(Debug, Clone, Default)]
struct Silence {
    panics: Arc<AtomicBool>,
}

impl Network for Silence {
    fn udp(&self, _: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        Ok(Box::new(self.clone()))
    }

    fn tcp(&self, _: SocketAddr) -> Connecting {
        Box::pin(std::future::pending())
    }
}

impl Datagrams for Silence {
    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        assert!(!self.panics.load(Ordering::Relaxed), "as it is told");
        Ok(())
    }

    fn poll_receive(&mut self, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

const START: &str = "2026-11-22T00:00:00Z";

/// A pipeline without rules, whose upstream is silent.
fn pipeline(settings: Settings) -> Arc<Pipeline> {
    pipeline_over(Silence::default(), settings)
}

fn pipeline_over(network: Silence, settings: Settings) -> Arc<Pipeline> {
    let (day, clock) = (Duration::from_secs(86_400), Clock::simulated(START.parse().unwrap()));
    let loaded = load::load(&load::Settings::default(), &load::Before::default(), clock.now().wall);
    let upstreams = upstream::Settings::of(Resolvers::Listed(vec!["192.0.2.53:53".parse().unwrap()]));
    Pipeline::new(Parts {
        policy: Policy::compile(&loaded, 1, clock.now().wall).unwrap(),
        cache: Cache::new(&cache::Settings { memory: 64 << 20, ttl_min: Duration::ZERO, ttl_max: day, stale: day }),
        upstream: Upstream::new(&upstreams, Arc::new(network)),
        locals: Locals::new(&local::Settings::default()),
        telemetry: Telemetry::new(1),
        clock,
        settings,
    })
}

fn query(name: &str) -> Query<'static> {
    Query::plain(Name::from_text(name).unwrap(), Qtype::A)
}

fn ask(pipeline: &Arc<Pipeline>, name: &str) -> Progress {
    let client = pipeline.client([127, 0, 0, 1].into(), None);
    pipeline.answer(&client, &query(name), pipeline.clock().now(), &mut BytesMut::new())
}

fn rcode(progress: &Progress) -> Option<Rcode> {
    match progress {
        Progress::Answered(written) => Some(written.rcode),
        Progress::Waiting(_) => None,
    }
}

/// Puts an address into the cache that is fresh for this many seconds.
fn keep(pipeline: &Pipeline, name: &str, ttl: u8) {
    let query = query(name);
    let mut octets = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    octets.extend_from_slice(&query.echo.question);
    octets.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4, 192, 0, 2, 7]);
    let mut reply = Reply::read(&octets, &query.qname, Qtype::A, Qclass::IN).unwrap();
    let permitted = Permitted::for_tests(query);
    pipeline.cache.keep(&permitted, &mut reply, &Findings::default(), pipeline.clock.now().mono);
}

/// Leaves the cache without what it had for a name.
fn evict(pipeline: &Pipeline, name: &str) {
    keep(pipeline, name, 0);
}

#[tokio::test(start_paused = true)]
async fn clients_that_go_away_leave_no_more_flights_behind_than_the_bound() {
    let pipeline = pipeline(Settings { in_flight: 2, ..Settings::default() });
    for name in ["a.example", "b.example"] {
        assert_eq!(rcode(&ask(&pipeline, name)), None, "dropped at once");
    }
    assert_eq!(pipeline.waiting(), 0);
    assert_eq!(rcode(&ask(&pipeline, "c.example")), Some(Rcode::SERVFAIL));
    assert_eq!(rcode(&ask(&pipeline, "a.example")), None, "joins");
    assert_eq!(pipeline.telemetry().total(Event::Bound(Bound::InFlight)), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rcode(&ask(&pipeline, "c.example")), None, "they have ended");
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_panics_takes_no_other_with_it() {
    let network = Silence::default();
    let pipeline = pipeline_over(network.clone(), Settings::default());
    let begun = pipeline.clock().now().mono;
    let waiting = |name| match ask(&pipeline, name) {
        Progress::Waiting(waiting) => waiting,
        Progress::Answered(_) => panic!("answered"),
    };
    let other = waiting("a.example");
    tokio::task::yield_now().await;
    network.panics.store(true, Ordering::Relaxed);
    let (_, broken) = waiting("b.example").finish().await;
    assert_eq!((broken.rcode, pipeline.clock().now().mono - begun), (Rcode::SERVFAIL, Duration::ZERO));
    network.panics.store(false, Ordering::Relaxed);
    let (_, silent) = other.finish().await;
    assert_eq!(silent.rcode, Rcode::SERVFAIL);
    assert!(pipeline.clock().now().mono - begun >= Duration::from_millis(4_750), "it went on");
    assert_eq!(rcode(&ask(&pipeline, "c.example")), None, "and so do those after it");
}

#[tokio::test(start_paused = true)]
async fn past_the_bound_a_stale_reply_goes_before_a_failure() {
    let pipeline = pipeline(Settings { in_flight: 1, ..Settings::default() });
    keep(&pipeline, "stale.example", 10);
    tokio::time::sleep(Duration::from_secs(11)).await;
    let waiting = ask(&pipeline, "a.example");
    assert_eq!(rcode(&ask(&pipeline, "stale.example")), Some(Rcode::NOERROR));
    assert_eq!(rcode(&ask(&pipeline, "b.example")), Some(Rcode::SERVFAIL));
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn whose_stale_reply_is_gone_waits_until_the_deadline() {
    let pipeline = pipeline(Settings::default());
    for (is_evicted, waited) in [(false, 500), (true, 4_750)] {
        keep(&pipeline, "stale.example", 10);
        tokio::time::sleep(Duration::from_secs(11)).await;
        let arrived = pipeline.clock().now().mono;
        let Progress::Waiting(waiting) = ask(&pipeline, "stale.example") else { panic!("answered") };
        if is_evicted {
            evict(&pipeline, "stale.example");
        }
        let (_, written) = waiting.finish().await;
        let took = pipeline.clock().now().mono - arrived;
        assert!(took >= Duration::from_millis(waited) && took < Duration::from_millis(waited + 5), "{took:?}");
        assert_eq!(written.rcode, if is_evicted { Rcode::SERVFAIL } else { Rcode::NOERROR });
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(pipeline.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_later_asker_of_one_flight_has_a_stale_after_of_its_own() {
    let pipeline = pipeline(Settings::default());
    keep(&pipeline, "stale.example", 10);
    tokio::time::sleep(Duration::from_secs(11)).await;
    let Progress::Waiting(first) = ask(&pipeline, "stale.example") else { panic!("answered") };
    tokio::time::sleep(Duration::from_millis(400)).await;
    let arrived = pipeline.clock().now().mono;
    let Progress::Waiting(second) = ask(&pipeline, "stale.example") else { panic!("answered") };
    let ((_, first), (_, second)) = tokio::join!(first.finish(), second.finish());
    assert_eq!((first.rcode, second.rcode), (Rcode::NOERROR, Rcode::NOERROR));
    assert!(pipeline.clock().now().mono - arrived >= Duration::from_millis(500));
}

#[test]
fn who_joined_a_flight_whose_thread_stands_still_keeps_their_own_deadline() {
    let pipeline = pipeline(Settings { deadline: Duration::from_millis(200), ..Settings::default() });
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (still, running) = (runtime(), runtime());
    let _first = still.block_on(async { ask(&pipeline, "a.example") });
    let Progress::Waiting(second) = running.block_on(async { ask(&pipeline, "a.example") }) else { panic!("answered") };
    let start = pipeline.clock().now().mono;
    let bounded = async { tokio::time::timeout(Duration::from_secs(10), second.finish()).await };
    let (_, written) = running.block_on(bounded).unwrap();
    let took = pipeline.clock().now().mono - start;
    assert_eq!(written.rcode, Rcode::SERVFAIL);
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn questions_that_are_never_forwarded_are_explained_as_local() {
    let pipeline = pipeline(Settings::default());
    for (name, qtype, verdict) in [
        ("a.example", Qtype::ANY, Verdict::Local),
        ("a.example", Qtype::AXFR, Verdict::Local),
        ("_dns.resolver.arpa", Qtype::SVCB, Verdict::Local),
        ("a.example", Qtype::A, Verdict::Forward),
    ] {
        let at = pipeline.clock().now().wall;
        let question = Question { name: Name::from_text(name).unwrap(), qtype, client: None, at };
        assert_eq!(pipeline.explain(&question).await.verdict, verdict, "{name} {qtype}");
    }
}

#[test]
fn the_signal_of_structured_errors_is_the_policy_in_forces() {
    let pipeline = pipeline(Settings::default());
    let mut octets = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1][..], &query("a.example").echo.question].concat();
    octets.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 4, 0xfd, 0xe9, 0, 0]);
    let structured = || pipeline.read(&octets, Transport::Dot).unwrap().echo.edns.unwrap().structured;
    let mut loaded = load::load(&load::Settings::default(), &load::Before::default(), Timestamp::UNIX_EPOCH);
    let mut install = |sde_option, generation| {
        loaded.settings.sde_option = NonZeroU16::new(sde_option);
        pipeline.install(Policy::compile(&loaded, generation, Timestamp::UNIX_EPOCH).unwrap());
    };
    assert!(!structured(), "off by default");
    install(65_001, 2);
    assert!(structured());
    install(65_002, 3);
    assert!(!structured());
    install(0, 4);
    assert!(!structured());
}

/// Two orders for Italy: one in force, one in trial.
fn with_orders(pipeline: &Pipeline) {
    let mut loaded = load::load(&load::Settings::default(), &load::Before::default(), Timestamp::UNIX_EPOCH);
    for (id, state) in [("milan", "in-force"), ("rome", "trial")] {
        let text = format!(
            "id = '{id}'\nissuer = 'Court'\njurisdiction = ['IT']\nreceived = 2026-01-01T00:00:00Z\n\
             state = '{state}'\n[[target]]\nsubtree = ['{id}.example']\n"
        );
        let order = Order::read(Path::new("x.toml"), &text).unwrap();
        loaded.orders.push(load::LoadedOrder::of(order, text.as_bytes()));
    }
    pipeline.install(Policy::compile(&loaded, 2, pipeline.clock.now().wall).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_of_its_country_and_its_blocks_are_not_counted() {
    let pipeline = pipeline(Settings::default());
    with_orders(&pipeline);
    keep(&pipeline, "rome.example", 10);
    let (italy, local) = (Country::from_code("IT"), "127.0.0.1:4000".parse().unwrap());
    let blocks = |pipeline: &Pipeline| {
        let telemetry = pipeline.telemetry();
        [telemetry.block_counter("order", "milan").total(), telemetry.trial_counter("rome").total()]
    };
    let ask = |client: &Client, name| {
        rcode(&pipeline.answer(client, &query(name), pipeline.clock().now(), &mut BytesMut::new()))
    };
    let pass = pipeline.register_probe(local, italy);
    let probe = pipeline.probe_client(local).unwrap();
    assert_eq!(ask(&probe, "milan.example"), Some(Rcode::NXDOMAIN));
    assert_eq!(ask(&probe, "rome.example"), Some(Rcode::NOERROR));
    assert_eq!(blocks(&pipeline), [0, 0]);
    let client = pipeline.client(local.ip(), italy);
    assert_eq!(ask(&client, "milan.example"), Some(Rcode::NXDOMAIN));
    assert_eq!(ask(&client, "rome.example"), Some(Rcode::NOERROR));
    assert_eq!(blocks(&pipeline), [1, 1]);
    drop(pass);
    assert!(pipeline.probe_client(local).is_none());
}
