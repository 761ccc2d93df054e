//! What `Pipeline::answer` costs, from the query's octets to the answer's: blocks, and hits beside many rules and none.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bailiwick::cache::{self, Cache};
use bailiwick::clock::Clock;
use bailiwick::dns::{Name, Qclass, Qtype, Rcode};
use bailiwick::local::{self, Locals};
use bailiwick::pipeline::{self, Parts, Pipeline, Progress};
use bailiwick::policy::index::Covers;
use bailiwick::policy::list::Format;
use bailiwick::policy::load::{self, Before, Files, ListSettings, LoadedOrder, Settings, load_in_hand};
use bailiwick::policy::order::{Effect, Order};
use bailiwick::policy::{Policy, View};
use bailiwick::query::{Query, Reply, Transport};
use bailiwick::telemetry::Telemetry;
use bailiwick::upstream::{self, Connecting, Datagrams, Network, Resolvers, Upstream};
use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};

/// 730,225 names of real block lists; made up ones where it is not there.
const NAMES: &str = "../shared/data/domains/blocklistproject-union-730k.txt";

/// How many names the list of the loaded pipelines has.
const LISTED: usize = 1_000_000;

/// How many orders are in force there, of ten names each.
const ORDERS: usize = 100;

/// How many names the list target of one more order has, where reloads are timed.
const LISTED_BY_ORDER: usize = 50_000;

/// How many names are asked for in turn.
const ASKED: usize = 10_000;

/// No query of this bench leaves.
#[derive(Debug)]
struct NoNetwork;

impl Network for NoNetwork {
    fn udp(&self, _: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        Err(io::ErrorKind::NetworkUnreachable.into())
    }

    fn tcp(&self, _: SocketAddr) -> Connecting {
        Box::pin(async { Err(io::ErrorKind::NetworkUnreachable.into()) })
    }
}

fn main_benchmark(criterion: &mut Criterion) {
    report_reloads();
    let (bare, loaded) = (pipeline(vec![], String::new()), pipeline(orders(), list()));
    for (policy, pipeline) in [("no rules", &bare), ("1,000,000 names and 100 orders", &loaded)] {
        (0..ASKED).for_each(|number| keep(pipeline, &clean(number)));
        for opt in [false, true] {
            let title = format!("cache hit, {policy}, {}", if opt { "padded" } else { "no OPT" });
            ask(criterion, &title, pipeline, |number| query(&clean(number), opt));
        }
    }
    let blocked = |number| format!("www.target-{}.blocked-{}.com", number % 10, number % ORDERS);
    ask(criterion, "blocked by an order", &loaded, |number| query(&blocked(number), true));
}

/// Says how long it takes from a changed file on disk to the first blocked answer, without what passes until the change
/// is seen.
fn report_reloads() {
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap_or_else(|error| panic!("{error}"));
    std::fs::create_dir(path("orders")).unwrap_or_else(|error| panic!("{error}"));
    (0..ORDERS).for_each(|number| write(&format!("orders/{number}.toml"), &order_text(number)));
    let listed: String = (0..LISTED_BY_ORDER).map(|number| format!("ordered-{number}.com\n")).collect();
    let target =
        format!("list = {{ file = '{}', format = 'domains', covers = 'subtree' }}", path("agcom.txt").display());
    write("agcom.txt", &listed);
    write("orders/agcom.toml", &format!("{}[[target]]\n{target}\n", order_text(ORDERS)));
    write("malware.txt", &list());
    let lists = vec![ListSettings { file: path("malware.txt"), ..list_settings() }];
    let (orders, state) = (Some(path("orders")), Some(path("state")));
    let settings = Settings { orders, state, lists, hold_fallback: true, ..Settings::default() };
    let pipeline = pipeline(vec![], String::new());
    let reload = |what: &str, blocked: &str| {
        let begun = std::time::Instant::now();
        let policy = pipeline.policy();
        let orders = policy.orders().iter().map(|order| order.loaded.clone()).collect();
        let before = Before { orders, bulk: policy.bulk(), ..Before::default() };
        let now = pipeline.clock().now();
        let loaded = load::load(&settings, &before, now.wall);
        let policy =
            Policy::compile(&loaded, policy.generation() + 1, now.wall).unwrap_or_else(|what| panic!("{what}"));
        let rules = policy.rules();
        pipeline.install(policy);
        let (mut out, octets) = (BytesMut::new(), query(blocked, false));
        let query = Query::read(&octets, Transport::Dot).unwrap_or_else(|_| unreachable!("well formed"));
        match pipeline.answer(&pipeline.client([127, 0, 0, 1].into(), None), query, now, &mut out) {
            Progress::Answered(written) => assert_eq!(written.rcode, Rcode::NXDOMAIN, "{blocked}"),
            Progress::Waiting(_) => panic!("{blocked} is not blocked"),
        }
        println!("{what}, {rules} rules: {} ms to the first blocked answer", begun.elapsed().as_millis());
    };
    reload("start", "target-0.blocked-7.com");
    write("orders/7.toml", &order_text(7).replace("target-0", "changed"));
    reload("an order has changed", "changed.blocked-7.com");
    write("agcom.txt", &format!("{listed}changed.com"));
    reload("the list of an order has changed", "changed.com");
    write("malware.txt", &format!("{}\nlisted.com", list()));
    reload("the operator's list has changed", "listed.com");
}

/// Times one answer; the queries stand side by side, as on a connection.
fn ask(criterion: &mut Criterion, title: &str, pipeline: &Arc<Pipeline>, query: impl Fn(usize) -> Vec<u8>) {
    let queries: Vec<_> = (0..ASKED).map(|turn| query(turn * 7_919 % ASKED)).collect();
    let client = pipeline.client([127, 0, 0, 1].into(), None);
    let now = pipeline.clock().now();
    let mut out = BytesMut::with_capacity(4096);
    let mut turn = queries.iter().cycle();
    criterion.bench_function(title, |bench| {
        bench.iter(|| {
            out.clear();
            let octets = turn.next().unwrap_or_else(|| unreachable!("a cycle"));
            let query = Query::read(octets, Transport::Dot).unwrap_or_else(|_| unreachable!("well formed"));
            match pipeline.answer(&client, query, now, &mut out) {
                Progress::Answered(written) => black_box(written),
                Progress::Waiting(_) => unreachable!("all of them are kept or blocked"),
            }
        });
    });
}

fn name(text: &str) -> Name {
    Name::from_text(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A name that no rule is about, in a top-level domain that most are.
fn clean(number: usize) -> String {
    format!("www.host-{number:05}.clean-site.com")
}

fn list() -> String {
    let mut names = std::fs::read_to_string(NAMES).unwrap_or_default();
    let missing = LISTED - names.lines().count();
    names.extend((0..missing).map(|number| format!("\nmade-up-{number}.com")));
    names
}

fn orders() -> Vec<LoadedOrder> {
    (0..ORDERS).map(|number| LoadedOrder::of(order(number), &number.to_be_bytes())).collect()
}

fn order(number: usize) -> Order {
    Order::read(Path::new("x.toml"), &order_text(number)).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn order_text(number: usize) -> String {
    let targets: Vec<_> = (0..10).map(|target| format!("'target-{target}.blocked-{number}.com'")).collect();
    format!(
        "id = 'order-{number}'\nissuer = 'Test Court'\njurisdiction = ['*']\nreceived = 2026-01-01T00:00:00Z\n\
         state = 'in-force'\n[[target]]\nsubtree = [{}]\n",
        targets.join(", ")
    )
}

fn list_settings() -> ListSettings {
    ListSettings {
        name: "malware".into(),
        file: "malware.txt".into(),
        format: Format::Domains,
        covers: Covers::Subtree,
        effect: Effect::NxDomain,
    }
}

fn pipeline(orders: Vec<LoadedOrder>, list: String) -> Arc<Pipeline> {
    let day = Duration::from_secs(86_400);
    let clock = Clock::system();
    let upstreams = upstream::Settings { resolvers: Resolvers::Listed(vec![]) };
    let settings = list_settings();
    let files = Files::from([(settings.file.clone(), list.into_bytes())]);
    let settings = Settings { lists: vec![settings], hold_fallback: true, ..Settings::default() };
    let loaded = load_in_hand(&settings, orders, &files, clock.now().wall);
    Pipeline::new(Parts {
        policy: Policy::compile(&loaded, 1, clock.now().wall).unwrap_or_else(|what| panic!("{what}")),
        cache: Cache::new(&cache::Settings { memory: 64 << 20, ttl_min: Duration::ZERO, ttl_max: day, stale: day }),
        upstream: Upstream::new(&upstreams, Arc::new(NoNetwork)),
        locals: Locals::new(&local::Settings::default()),
        telemetry: Telemetry::new(1),
        clock,
        settings: pipeline::Settings::default(),
    })
}

/// Puts a reply of one address into the cache.
fn keep(pipeline: &Pipeline, text: &str) {
    let (policy, now, name) = (pipeline.policy(), pipeline.clock().now(), name(text));
    let query = Query::plain(name.clone(), Qtype::A);
    let mut octets = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    octets.extend_from_slice(&query.echo.question);
    octets.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 14, 16, 0, 4, 192, 0, 2, 7]);
    let mut reply = Reply::read(&octets, &name, Qtype::A, Qclass::IN).unwrap_or_else(|error| panic!("{error:?}"));
    let permitted = policy.admit(query, View { country: None }, now.wall, |_| {});
    let permitted = permitted.unwrap_or_else(|_| panic!("{text} is blocked"));
    let findings = policy.find(&permitted, &reply);
    pipeline.cache().keep(&permitted, &mut reply, &findings, now.mono);
}

/// A query for A; `opt`: with an OPT that asks for padding.
fn query(text: &str, opt: bool) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(opt)];
    octets.extend_from_slice(&Query::plain(name(text), Qtype::A).echo.question);
    if opt {
        octets.extend(b"\0\0\x29\x10\0\0\0\0\0\0\x04\0\x0c\0\0");
    }
    octets
}

criterion_group!(benches, main_benchmark);
criterion_main!(benches);
