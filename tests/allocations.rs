//! Counts what the hot path allocates: a query that policy or the cache answers allocates nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "allocations/http2.rs"]
mod http2;
#[path = "support/mmdb.rs"]
mod mmdb;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use bailiwick::cache::{self, Cache};
use bailiwick::clock::Clock;
use bailiwick::dns::{Name, Qclass, Qtype, Rcode};
use bailiwick::listener::doh::forwarded::{self, Source};
use bailiwick::listener::proxy;
use bailiwick::local::{self, Locals};
use bailiwick::pipeline::{self, Parts, Pipeline, Progress};
use bailiwick::policy::index::Covers;
use bailiwick::policy::list::Format;
use bailiwick::policy::load::{Exemption, Files, ListSettings, LoadedOrder, Settings, load_in_hand};
use bailiwick::policy::order::{Effect, Order};
use bailiwick::policy::origin::{self, Database, Origin};
use bailiwick::policy::{Findings, Policy, View};
use bailiwick::query::{Now, Query, Reply, Transport};
use bailiwick::telemetry::Telemetry;
use bailiwick::upstream::{self, Connecting, Datagrams, Network, Resolvers, Upstream};
use bytes::BytesMut;

/// No query of these tests leaves.
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

const ORDER: &str = "id = 'milan'\nissuer = 'Test Court'\njurisdiction = ['*']\nreceived = 2026-01-01T00:00:00Z\n\
    about = 'https://court.example/orders/1'\n";

fn order(id: &str, state: &str, target: &str) -> LoadedOrder {
    let text = format!("{ORDER}state = '{state}'\n[[target]]\n{target}\n").replace("milan", id);
    LoadedOrder::of(Order::read(Path::new("x.toml"), &text).unwrap(), text.as_bytes())
}

fn policy(clock: &Clock) -> Policy {
    let place = (PathBuf::from("bailiwick.toml"), 1);
    let name = Name::from_text("exempt.listed.example").unwrap();
    let exemption = Exemption { name, reason: "a test".into(), expires: None, overrides_order: None, place };
    let list = ListSettings {
        name: "malware".into(),
        file: PathBuf::from("malware.txt"),
        format: Format::Domains,
        covers: Covers::Subtree,
        effect: Effect::Address { a: Some([192, 0, 2, 1].into()), aaaa: None },
    };
    let agcom = (PathBuf::from("agcom.txt"), b"ordered.example".to_vec());
    let files = Files::from([(list.file.clone(), b"listed.example".to_vec()), agcom]);
    let settings =
        Settings { exemptions: vec![exemption], lists: vec![list], hold_fallback: true, ..Settings::default() };
    let orders = vec![
        order("milan", "in-force", "subtree = ['blocked.example']"),
        order("rome", "trial", "subtree = ['tried.example']"),
        order("turin", "in-force", "any-tld = ['ilcorsaronero', 'ilcorsaro']\naddress = ['198.51.100.0/24']"),
        order("bari", "in-force", "list = { file = 'agcom.txt', format = 'domains', covers = 'subtree' }"),
    ];
    let loaded = load_in_hand(&settings, orders, &files, clock.now().wall);
    Policy::compile(&loaded, 1, clock.now().wall).unwrap()
}

/// A pipeline whose cache knows the names that the tests ask for.
fn pipeline() -> Arc<Pipeline> {
    let day = Duration::from_secs(86_400);
    let clock = Clock::system();
    let settings = upstream::Settings::of(Resolvers::Listed(vec![]));
    let pipeline = Pipeline::new(Parts {
        policy: policy(&clock),
        cache: Cache::new(&cache::Settings { memory: 64 << 20, ttl_min: Duration::ZERO, ttl_max: day, stale: day }),
        upstream: Upstream::new(&settings, Arc::new(NoNetwork)),
        locals: Locals::new(&local::Settings::default()),
        telemetry: Telemetry::new(1),
        clock,
        settings: pipeline::Settings::default(),
    });
    for (name, target, address) in [
        ("www.example.org", None, [192, 0, 2, 7]),
        ("exempt.listed.example", None, [192, 0, 2, 7]),
        ("www.tried.example", None, [192, 0, 2, 7]),
        ("ilcorsaro.example.org", None, [192, 0, 2, 7]),
        ("address.example.org", None, [198, 51, 100, 7]),
        ("chained.example.org", Some("www.blocked.example"), [192, 0, 2, 7]),
    ] {
        keep(&pipeline, name, target, address);
    }
    pipeline
}

/// Puts a reply into the cache: an address, or a CNAME; with what its names meet.
fn keep(pipeline: &Pipeline, name: &str, target: Option<&str>, address: [u8; 4]) {
    let (name, policy, now) = (Name::from_text(name).unwrap(), pipeline.policy(), pipeline.clock().now());
    let rdata = target.map_or(address.to_vec(), |target| Name::from_text(target).unwrap().as_wire().to_vec());
    let rtype = if target.is_some() { Qtype::CNAME } else { Qtype::A };
    let mut octets = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    octets.extend_from_slice(&Query::plain(name.clone(), Qtype::A).echo.question);
    octets.extend([0xc0, 12, 0, rtype.0 as u8, 0, 1, 0, 0, 14, 16, 0, rdata.len() as u8]);
    octets.extend(rdata);
    // With a SOA, for a chain that ends in nothing is kept for that alone.
    octets[9] = 1;
    octets.extend([0, 0, 6, 0, 1, 0, 0, 14, 16, 0, 22, 0, 0]);
    octets.extend([0, 0, 14, 16].repeat(5));
    let mut reply = Reply::read(&octets, &name, Qtype::A, Qclass::IN).unwrap();
    let query = Query::plain(name, Qtype::A);
    let permitted = policy.admit(&query, View { country: None }, now.wall, |_| {}).unwrap();
    let findings: Findings = policy.find(&permitted, &reply);
    pipeline.cache().keep(&permitted, &mut reply, &findings, now.mono);
}

/// No OPT; one that asks for padding; one that signals structured errors beside.
const OPTS: [&[u8]; 3] =
    [b"", b"\0\0\x29\x10\0\0\0\0\0\0\x04\0\x0c\0\0", b"\0\0\x29\x10\0\0\0\0\0\0\x0a\0\x0c\0\0\0\x0f\0\x02\0\0"];

/// A query for A with one of [`OPTS`].
fn query(name: &str, opt: &[u8]) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())];
    octets.extend_from_slice(&Query::plain(Name::from_text(name).unwrap(), Qtype::A).echo.question);
    octets.extend_from_slice(opt);
    octets
}

/// Asks twice, of which the second time is counted: a worker's buffers have grown by then.
fn allocations(pipeline: &Arc<Pipeline>, octets: &[u8], transport: Transport, wanted: Rcode) -> u64 {
    let client = pipeline.client([127, 0, 0, 1].into(), None);
    let mut out = BytesMut::with_capacity(4096);
    let now: Now = pipeline.clock().now();
    let mut ask = || {
        out.clear();
        let query = pipeline.read(octets, transport).unwrap();
        match pipeline.answer(&client, &query, now, &mut out) {
            Progress::Answered(written) => assert_eq!(written.rcode, wanted),
            Progress::Waiting(_) => panic!("not known"),
        }
    };
    ask();
    measure(ask).count_total
}

#[test]
fn telling_whose_request_it_is_allocates_nothing() {
    let pipeline = pipeline();
    let listed = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    let octets = query("www.blocked.example", &[]);
    let (mut out, now) = (BytesMut::with_capacity(4096), pipeline.clock().now());
    for (name, value) in [
        ("forwarded", "for=198.51.100.1, for=\"[2001:db8::7]:4711\";by=\"a\\\"b\", for=127.0.0.1"),
        ("x-forwarded-for", "198.51.100.1, 192.0.2.7, 127.0.0.1"),
        ("forwarded", "for=unknown, for=127.0.0.1"),
    ] {
        let mut headers = http::HeaderMap::new();
        headers.append(name, value.parse().unwrap());
        let mut ask = || {
            out.clear();
            let client = match forwarded::source(&headers, &listed) {
                Some(Source::Client(address)) => pipeline.client(address, None),
                Some(Source::Hidden(_)) => pipeline.hidden_client(None),
                None => panic!("it says whose it is"),
            };
            let peer = SocketAddr::from(([127, 0, 0, 1], 4711));
            assert!(pipeline.probe_client(peer).is_none());
            let query = Query::read(&octets, Transport::Doh).unwrap();
            assert!(matches!(pipeline.answer(&client, &query, now, &mut out), Progress::Answered(_)));
        };
        ask();
        assert_eq!(measure(ask).count_total, 0, "{value}");
    }
    // A header of the PROXY protocol is no more than octets.
    let header =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10"[..], &[192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 7]].concat();
    let parse = || assert_eq!(proxy::parse(&header), Ok(Some([192, 0, 2, 7].into())));
    assert_eq!(measure(parse).count_total, 0);
}

#[test]
fn a_reply_whose_addresses_meet_nothing_is_looked_through_without_allocation() {
    let (pipeline, name) = (pipeline(), Name::from_text("www.example.net").unwrap());
    let (policy, query) = (pipeline.policy(), Query::plain(name.clone(), Qtype::HTTPS));
    let mut octets = vec![0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1];
    octets.extend_from_slice(&query.echo.question);
    octets.extend(b"\xc0\x0c\0\x41\0\x01\0\0\x0e\x10\0\x0b\0\x01\0\0\x04\0\x04\xc0\0\x02\x07");
    octets.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02\x07");
    let reply = Reply::read(&octets, &name, Qtype::HTTPS, Qclass::IN).unwrap();
    let permitted = policy.admit(&query, View { country: None }, pipeline.clock().now().wall, |_| {}).unwrap();
    assert_eq!(measure(|| drop(policy.find(&permitted, &reply))).count_total, 0);
}

#[test]
fn what_policy_or_cache_answers_allocates_nothing() {
    let pipeline = pipeline();
    for (name, rcode) in [
        ("www.blocked.example", Rcode::NXDOMAIN),
        ("www.listed.example", Rcode::NOERROR),
        ("www.example.org", Rcode::NOERROR),
        ("exempt.listed.example", Rcode::NOERROR),
        ("www.tried.example", Rcode::NOERROR),
        ("chained.example.org", Rcode::NXDOMAIN),
        ("www.ilcorsaronero.co.uk", Rcode::NXDOMAIN),
        ("ilcorsaro.example.org", Rcode::NOERROR),
        ("address.example.org", Rcode::NXDOMAIN),
        ("www.ordered.example", Rcode::NXDOMAIN),
    ] {
        for opt in OPTS {
            for transport in [Transport::Dot, Transport::Doh] {
                let count = allocations(&pipeline, &query(name, opt), transport, rcode);
                assert_eq!(count, 0, "{name}, OPT {opt:?}, {transport:?}");
            }
        }
    }
}

#[test]
fn a_country_is_told_without_allocation() {
    let lines = "2001:db8::/32 IT\n192.0.2.0/24 flat FR\n198.51.100.0/24 continent EU\n203.0.113.0/24 XK";
    let networks = vec![("10.0.0.0/8".parse().unwrap(), origin::Country::from_code("DE").unwrap())];
    let settings = origin::Settings { networks, ..origin::Settings::default() };
    for (ip_version, lines) in [(6, lines), (4, lines.split_once('\n').unwrap().1)] {
        let form = mmdb::Form { ip_version, ..mmdb::Form::default() };
        let database = Database::read(mmdb::countries(form, lines).into()).unwrap();
        let origin = Origin::new(&settings, Some(Arc::new(database)));
        for (address, country) in [
            ("192.0.2.1", Some("FR")),
            ("::ffff:192.0.2.1", Some("FR")),
            ("2002:c000:201::", Some("FR")),
            ("10.1.2.3", Some("DE")),
            ("2001:db8::1", (ip_version == 6).then_some("IT")),
            ("198.51.100.1", None),
            ("203.0.113.1", None),
            ("2001:db9::1", None),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let mut told = None;
            let count = measure(|| told = origin.place(address).0).count_total;
            assert_eq!((told, count), (country.and_then(origin::Country::from_code), 0), "{address}, IPv{ip_version}");
        }
    }
}

/// Allocations of an exchange over HTTP/2, by GET and by POST: what hyper and h2 make of it. Of ours there is one in
/// hundreds, for the buffer that answers are cut from.
const OVER_HTTP2: [(http2::Method, u64); 2] = [(http2::Method::Get, 3), (http2::Method::Post, 7)];

/// How much of an allocation more is none: buffers that serve many exchanges.
const SHARE_OF_BUFFERS: u64 = http2::EXCHANGES / 10;

#[test]
fn an_answer_over_http2_allocates_no_more_than_was_recorded_nor_than_a_canned_one() {
    let pipeline = pipeline();
    for (name, rcode) in [("www.example.org", Rcode::NOERROR), ("www.blocked.example", Rcode::NXDOMAIN)] {
        for opt in OPTS {
            for (method, recorded) in OVER_HTTP2 {
                let message = query(name, opt);
                let (ours, answer) = http2::of_product(&pipeline, method, &message);
                assert_eq!((&answer[..2], u16::from(answer[3] & 15)), (&message[..2], rcode.0), "{name}");
                let canned = http2::of_canned(&answer, method, &message);
                let asked = format!("{name}, OPT {opt:?}, {method:?}");
                assert!(ours <= canned, "{ours}, and {canned} where it is canned: {asked}");
                let most = recorded * http2::EXCHANGES + SHARE_OF_BUFFERS;
                assert!(ours <= most, "{ours} in {} exchanges: {asked}", http2::EXCHANGES);
            }
        }
    }
}
