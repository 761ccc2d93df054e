//! Counts what the hot path allocates: a query that policy or the cache answers allocates nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use allocation_counter::measure;
use bailiwick::cache::{self, Cache};
use bailiwick::clock::Clock;
use bailiwick::dns::{Name, Qclass, Qtype, Rcode};
use bailiwick::local::{self, Locals};
use bailiwick::pipeline::{self, Parts, Pipeline, Progress};
use bailiwick::policy::index::Covers;
use bailiwick::policy::list::Format;
use bailiwick::policy::load::{Exemption, Files, ListSettings, LoadedOrder, Settings, load_in_hand};
use bailiwick::policy::order::{Effect, Order};
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
    let settings = upstream::Settings { resolvers: Resolvers::Listed(vec![]) };
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
    let permitted = policy.admit(query, View { country: None }, now.wall, |_| {}).unwrap();
    let findings: Findings = policy.find(&permitted, &reply);
    pipeline.cache().keep(&permitted, &mut reply, &findings, now.mono);
}

/// A query for A; `opt`: with an OPT that asks for padding.
fn query(name: &str, opt: bool) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(opt)];
    octets.extend_from_slice(&Query::plain(Name::from_text(name).unwrap(), Qtype::A).echo.question);
    if opt {
        octets.extend(b"\0\0\x29\x10\0\0\0\0\0\0\x04\0\x0c\0\0");
    }
    octets
}

/// Asks twice, of which the second time is counted: a worker's buffers have grown by then.
fn allocations(pipeline: &Arc<Pipeline>, octets: &[u8], transport: Transport, wanted: Rcode) -> u64 {
    let client = pipeline.client([127, 0, 0, 1].into());
    let mut out = BytesMut::with_capacity(4096);
    let now: Now = pipeline.clock().now();
    let mut ask = || {
        out.clear();
        let query = Query::read(octets, transport).unwrap();
        match pipeline.answer(&client, query, now, &mut out) {
            Progress::Answered(written) => assert_eq!(written.rcode, wanted),
            Progress::Waiting(_) => panic!("not known"),
        }
    };
    ask();
    measure(ask).count_total
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
    let permitted = policy.admit(query, View { country: None }, pipeline.clock().now().wall, |_| {}).unwrap();
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
        for opt in [false, true] {
            for transport in [Transport::Dot, Transport::Doh] {
                let count = allocations(&pipeline, &query(name, opt), transport, rcode);
                assert_eq!(count, 0, "{name}, OPT {opt}, {transport:?}");
            }
        }
    }
}
