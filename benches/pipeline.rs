//! What `Pipeline::answer` costs, from the query's octets to the answer's: blocks, and hits beside many rules and none.
//!
//! What a policy adds is measured on one pipeline, under which the policies are swapped in turn: the same queries for
//! real names, more of them than a core's caches keep the way to, so that both cache and index come from memory.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// How many names are asked for in turn where a policy is measured against none.
const COMPARED: usize = 1 << 16;

/// How often it is swapped for the other, to be measured again.
const ROUNDS: usize = 9;

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
    report_policy(&loaded.policy());
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
        let begun = Instant::now();
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
        match pipeline.answer(&pipeline.client([127, 0, 0, 1].into(), None), &query, now, &mut out) {
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

/// Says what a policy adds to each query, by what the rules say of its name.
fn report_policy(loaded: &Policy) {
    let listed: Vec<String> = list().lines().map(str::to_owned).collect();
    // A step that is prime to their number visits names in an order that is random but the same in each run.
    let drawn = || (0..listed.len()).map(|at| listed[at * 2_654_435_761 % listed.len()].as_str());
    let foreign = |name: &str| Some(format!("w.{}-.{}", name.split_once('.')?.0, name.rsplit_once('.')?.1));
    let beside = |name: &str| name.split_once('.').map(|(label, rest)| format!("{label}-.{rest}"));
    let by_order = |number| format!("www.target-{}.blocked-{}.com", number % 10, number / 10 % ORDERS);
    let clean = |name: &Option<String>| name.as_ref().is_some_and(|name| is_clean(loaded, name));
    let foreign: Vec<_> = drawn().map(foreign).filter(clean).flatten().take(COMPARED).collect();
    let beside: Vec<_> = drawn().map(beside).filter(clean).flatten().take(COMPARED).collect();
    let on_list: Vec<_> = drawn().take(COMPARED).map(str::to_owned).collect();
    let by_order: Vec<_> = (0..COMPARED).map(by_order).collect();
    let idle = |number: &usize| format!("www.target-{}.idle.com", number % 10);
    let met: Vec<_> = (0..COMPARED).map(|number| idle(&number)).collect();
    println!("a policy of {} rules against none, ns a query, medians of {ROUNDS} rounds:", loaded.rules());
    compare("hit, below a top-level domain of listed names", loaded, &foreign, Rcode::NOERROR);
    compare("hit, beside a listed name", loaded, &beside, Rcode::NOERROR);
    compare("hit, met by an order that is a draft", loaded, &met, Rcode::NOERROR);
    compare("blocked by the list", loaded, &on_list, Rcode::NXDOMAIN);
    compare("blocked by an order", loaded, &by_order, Rcode::NXDOMAIN);
}

/// Whether no rule blocks a name. What is no name is not clean.
fn is_clean(policy: &Policy, text: &str) -> bool {
    let Ok(name) = Name::from_text(text) else { return false };
    let now = Clock::system().now().wall;
    policy.admit(&Query::plain(name, Qtype::A), View { country: None }, now, |_| {}).is_ok()
}

/// Times queries under a policy and under none, in turn; each round's difference counts. Without the policy every
/// answer is a hit.
fn compare(what: &str, loaded: &Policy, names: &[String], under: Rcode) {
    let pipeline = pipeline(vec![], String::new());
    let bare = pipeline.policy();
    names.iter().for_each(|name| keep(&pipeline, name));
    let queries: Vec<_> = names.iter().map(|name| query(name, true)).collect();
    let time = |policy: &Policy, rcode: Rcode| {
        pipeline.install(policy.clone());
        // The first pass finds anew what the replies meet.
        answer_all(&pipeline, &queries, rcode);
        answer_all(&pipeline, &queries, rcode).as_nanos() as f64 / queries.len() as f64
    };
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (time(&bare, Rcode::NOERROR), time(loaded, under))).collect();
    let [none, with, mut added] = [|(none, _)| none, |(_, with)| with, |(none, with): (f64, f64)| with - none]
        .map(|figure: fn((f64, f64)) -> f64| rounds.iter().copied().map(figure).collect::<Vec<_>>());
    added.sort_by(f64::total_cmp);
    println!(
        "  {what}: none {:.0}, with {:.0}, added {:+.0} ({:+.0} to {:+.0})",
        median(none),
        median(with),
        median(added.clone()),
        added[0],
        added[ROUNDS - 1]
    );
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Answers every query, and says how long that took.
fn answer_all(pipeline: &Arc<Pipeline>, queries: &[Vec<u8>], rcode: Rcode) -> Duration {
    let client = pipeline.client([127, 0, 0, 1].into(), None);
    let now = pipeline.clock().now();
    let mut out = BytesMut::with_capacity(4096);
    let begun = Instant::now();
    for octets in queries {
        out.clear();
        let query = Query::read(octets, Transport::Dot).unwrap_or_else(|_| unreachable!("well formed"));
        match pipeline.answer(&client, &query, now, &mut out) {
            Progress::Answered(written) => assert_eq!(written.rcode, rcode),
            Progress::Waiting(_) => unreachable!("all of them are kept or blocked"),
        }
    }
    begun.elapsed()
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
            match pipeline.answer(&client, &query, now, &mut out) {
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
    let draft = order_text(0).replace("order-0", "draft").replace("in-force", "draft").replace("blocked-0", "idle");
    let texts = (0..ORDERS).map(order_text).chain([draft]);
    texts.map(|text| LoadedOrder::of(order(&text), text.as_bytes())).collect()
}

fn order(text: &str) -> Order {
    Order::read(Path::new("x.toml"), text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
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
    let upstreams = upstream::Settings::of(Resolvers::Listed(vec![]));
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
    let permitted = policy.admit(&query, View { country: None }, now.wall, |_| {});
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
