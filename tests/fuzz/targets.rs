//! What is done with fuzzed octets: one function per parser, each holding its results to what must be true of them.
//!
//! Shared by `tests/fuzz.rs` (stable, as plain tests) and `fuzz/` (`cargo fuzz`).

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;

use bailiwick::admin::ExplainQuery;
use bailiwick::config::Config;
use bailiwick::dns::edns::Asked;
use bailiwick::dns::message::{Header, Question, Records};
use bailiwick::dns::{Name, Qclass, Qtype, svcb};
use bailiwick::ledger::{self, Event, Note};
use bailiwick::listener::doh::forwarded::{self, Source as Hop};
use bailiwick::listener::doh::frames::Frames;
use bailiwick::listener::doh::request::{self, Source, URL_MESSAGE_OCTETS_MAX};
use bailiwick::listener::dot::framer::Framer;
use bailiwick::listener::proxy;
use bailiwick::listener::trust::Prefixes;
use bailiwick::load::exchange::{Asked as Sent, Outcome};
use bailiwick::load::http2::Http2;
use bailiwick::load::http2::request::Shape;
use bailiwick::load::names::Queries;
use bailiwick::pages::accept::{self, Form};
use bailiwick::policy::list::{self, Format};
use bailiwick::policy::order::Order;
use bailiwick::policy::origin::{self, Country, Database, Origin};
use bailiwick::query::{Query, Reply, Transport};
use bailiwick::sign::PublicKey;
use bailiwick::upstream::system;
use ipnet::IpNet;
use jiff::Timestamp;

/// A message from a client. What is taken as a query, asked again from its parts, is the same query.
pub fn query(octets: &[u8]) {
    let Ok(query) = Query::read(octets, Transport::Doh) else { return };
    let question = &query.echo.question;
    assert_eq!(octets[12..12 + question.len()], **question, "the echo is the question as it came");
    let mut again = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    again.extend(question.iter());
    let again = Query::read(&again, Transport::Dot);
    let same = again.is_ok_and(|again| again.qname == query.qname && again.qtype == query.qtype);
    assert!(same, "what was read once is read again");
}

/// A message from an upstream, asked for whatever its own question says. What is kept can be walked and read again.
pub fn reply(octets: &[u8]) {
    let Ok(question) = Question::read(octets) else { return };
    let Question { qname, qtype, qclass, .. } = &question;
    let Ok(mut reply) = Reply::read(octets, qname, *qtype, *qclass) else { return };
    assert!(reply.octets().len() <= octets.len(), "a reply never grows");
    let counts = reply.header().counts;
    let walked = reply.records().count();
    assert_eq!(
        walked,
        counts[1..].iter().map(|count| usize::from(*count)).sum::<usize>(),
        "every record can be walked"
    );
    assert!(reply.records().all(|record| record.rtype != Qtype::OPT), "an OPT is hop by hop");
    reply.map_ttls(|record| record.ttl() / 2);
    let again = Reply::read(reply.octets(), qname, *qtype, *qclass).map(|again| again.octets().to_vec());
    assert_eq!(again.as_deref(), Ok(reply.octets()), "what was kept is a reply still");
    let other = Qtype(qtype.0.wrapping_add(1));
    assert!(Reply::read(octets, qname, other, Qclass::IN).is_err(), "a reply to another question is none");
}

/// A walk over the records of anything.
pub fn records(octets: &[u8]) {
    let (Some(header), Ok(question)) = (Header::read(octets), Question::read(octets)) else { return };
    for record in Records::new(octets, &header, question.end).map_while(Result::ok) {
        let _ = (record.owner(), record.ttl(), record.soa_minimum(), record.rdata());
        if let Some(skip) = record.rtype.target_at() {
            let _ = record.rdata_name(skip);
        }
        assert!(record.start < record.end && record.end <= octets.len(), "a record lies within its message");
    }
}

/// A name in a message. Its wire form reads as itself, and so does its text.
pub fn name(octets: &[u8]) {
    let Ok((name, end)) = Name::parse(octets, 0) else { return };
    assert!(end <= octets.len() && name.as_wire().len() <= 255, "within bounds");
    let (again, _) = Name::parse(name.as_wire(), 0).expect("a wire form that we made");
    assert_eq!(again, name, "the wire form is stable");
    if !name.is_root() {
        assert_eq!(Name::from_text(&name.to_string()).as_ref(), Ok(&name), "the text says the name");
    }
    assert!(name.is_at_or_below(&name.ancestor(name.labels() / 2)), "a name is below its ancestors");
}

/// A name as a person writes it. What it prints reads as itself.
pub fn name_text(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let Ok(name) = Name::from_text(text) else { return };
    assert_eq!(Name::from_text(&name.to_string()).as_ref(), Ok(&name), "the text says the name");
}

/// The RDATA of an OPT.
pub fn opt(octets: &[u8]) {
    let _ = Asked::read([0, 0, 0x80, 0], octets, NonZeroU16::new(65_001));
}

/// The RDATA of an SVCB or HTTPS record.
pub fn svcb_hints(octets: &[u8]) {
    let mut found = 0;
    svcb::hints(octets, |_| found += 1);
    assert!(found * 4 <= octets.len(), "each address has octets of its own");
}

fn list(format: Format, octets: &[u8]) {
    let lines = octets.split(|octet| *octet == b'\n').count() as u32;
    let mut faults = 0;
    list::read(
        format,
        octets,
        |name, line| assert!((1..=lines).contains(&line) && name.labels() > 0, "a rule stands on a line"),
        |fault| {
            faults += 1;
            assert!((1..=lines).contains(&fault.line), "a fault stands on a line");
        },
    );
    assert!(faults <= octets.len(), "no more faults than octets");
}

/// A list of format `domains`.
pub fn list_domains(octets: &[u8]) {
    list(Format::Domains, octets);
}

/// A list of format `hosts`.
pub fn list_hosts(octets: &[u8]) {
    list(Format::Hosts, octets);
}

/// An order file. Every mistake has its place in the file.
pub fn order(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    match Order::read(Path::new("order.toml"), text) {
        Ok(order) => {
            assert!(!order.targets.is_empty() && !order.id.is_empty(), "an order has an id and a target");
            order_parts(&order);
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "a file is refused for a reason");
            // A mistake may stand behind the last line end, so on a line more than there are.
            assert!(mistakes.iter().all(|mistake| mistake.line <= text.split('\n').count()), "within the file");
        }
    }
}

/// What holds of the parts of every order that could be read.
fn order_parts(order: &Order) {
    assert!(order.intervals.is_sorted_by(|one, next| one.from < one.until && one.until <= next.from), "apart");
    for target in &order.targets {
        assert!(!target.shown().is_empty() && target.key().len() == 16, "a target is about something");
        let bare = |prefix: &IpNet| prefix.trunc() == *prefix && prefix.prefix_len() > 0;
        assert!(target.addresses.iter().all(|(prefix, _)| bare(prefix)), "no host bits, not everything");
        let is_label = |label: &str| Name::from_text(label).is_ok_and(|name| name.to_string() == label);
        assert!(target.labels.iter().all(|(label, _)| is_label(label) && !label.contains('.')), "one label");
    }
    let mut now = Timestamp::MIN;
    while let Some(next) = order.next_change(now) {
        let stands = |now| {
            let targets = order.targets.iter().map(|target| order.standing_of(target, now));
            targets.chain([order.standing(now)]).collect::<Vec<_>>()
        };
        assert!(now < next && stands(now) != stands(next), "a change is later, and is one");
        now = next;
    }
}

/// A configuration file.
pub fn config(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Err(mistakes) = Config::parse(Path::new("bailiwick.toml"), text) {
        assert!(!mistakes.is_empty(), "a file is refused for a reason");
    }
}

/// What a DoT client sends: cut anywhere, it is the same messages.
pub fn dot_frames(octets: &[u8]) {
    let (at, octets) = octets.split_first().map_or((0, octets), |(at, rest)| (usize::from(*at), rest));
    let (first, second) = octets.split_at(at.min(octets.len()));
    let messages = |parts: &[&[u8]]| {
        let (mut framer, mut messages) = (Framer::default(), Vec::new());
        for part in parts {
            framer.feed(part, |message| {
                messages.push(message.to_vec());
                true
            });
            assert!(!framer.has_whole(), "whole messages are handed on");
        }
        (messages, framer.has_begun())
    };
    assert_eq!(messages(&[octets]), messages(&[first, second]), "where a read ends changes nothing");
}

/// The URL of a DoH request.
pub fn doh_request(octets: &[u8]) {
    let Ok(request) = http::Request::get(octets).header("host", "dns.example").body(()) else { return };
    let (head, ()) = request.into_parts();
    if let Ok(Source::Parameter(text)) = request::source(&head, "/dns-query") {
        let mut into = [0; URL_MESSAGE_OCTETS_MAX];
        let decoded = request::decode(text, &mut into).map(<[u8]>::len);
        assert!(decoded.is_err() || decoded.is_ok_and(|length| length <= text.len()), "base64 shrinks");
    }
}

/// What an HTTP/2 client sends: cut anywhere, the same is still to come.
pub fn http2_frames(octets: &[u8]) {
    let (mut whole, mut drip) = (Frames::new(), Frames::new());
    let dripped = octets.chunks(1).fold(false, |_, octet| drip.follow(octet));
    assert!(octets.is_empty() || whole.follow(octets) == dripped, "where a read ends changes nothing");
}

/// What an HTTP/2 server sends to the load generator. Cut anywhere, it is the same; each query comes to one end at most.
pub fn http2_responses(octets: &[u8]) {
    const ASKED: u64 = 8;
    let (at, octets) = octets.split_first().map_or((0, octets), |(at, rest)| (usize::from(*at), rest));
    let (first, second) = octets.split_at(at.min(octets.len()));
    let queries = Queries::parse(Path::new("names"), "a.example", false).expect("a name");
    let shape = Shape::new("a", "/dns-query", false);
    let outcomes = |parts: &[&[u8]]| {
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        let mut http2 = Http2::new(&shape, &mut out);
        (0..ASKED).for_each(|due| http2.ask(&shape, &queries, Sent { query: 0, due, sent: due }, &mut out));
        let mut done = |asked: Option<Sent>, outcome: Outcome| ends.extend(asked.map(|asked| (asked.due, outcome)));
        let whole = parts.iter().try_for_each(|part| http2.read(part, &shape, &queries, &mut out, &mut done));
        http2.abandon(done);
        (whole, ends)
    };
    let (whole, ends) = outcomes(&[octets]);
    assert_eq!((&whole, &ends), (&outcomes(&[first, second]).0, &outcomes(&[first, second]).1), "where a read ends");
    let each: std::collections::BTreeSet<_> = ends.iter().map(|(due, _)| due).collect();
    assert_eq!((each.len() as u64, ends.len() as u64), (ASKED, ASKED), "each query ends once");
}

/// What a proxy sends first. What follows it changes nothing, and what is left out makes it no header.
pub fn proxy_header(octets: &[u8]) {
    let Ok(address) = proxy::parse(octets) else { return };
    let length = proxy::PREFIX_OCTETS + usize::from(u16::from_be_bytes([octets[14], octets[15]]));
    assert!(length <= octets.len() && length <= proxy::PREFIX_OCTETS + proxy::REST_OCTETS_MAX, "within its bound");
    assert_eq!(proxy::parse(&octets[..length]), Ok(address), "what follows is not looked at");
    assert_eq!(proxy::parse(&octets[..length - 1]), Err(proxy::Fault::Cut), "half a header is none");
}

/// `Forwarded` and `X-Forwarded-For`, a field a line. What a listed forwarder appends is believed whatever stands before.
pub fn forwarded(octets: &[u8]) {
    let listed: Prefixes = ["127.0.0.0/8".parse().expect("a prefix")].into_iter().collect();
    for (name, appended) in [("forwarded", ", for=\"[2001:db8::7]:53\""), ("x-forwarded-for", ", 2001:db8::7")] {
        let mut headers = http::HeaderMap::new();
        for line in octets.split(|octet| *octet == b'\n') {
            let Ok(value) = http::HeaderValue::from_bytes(line) else { return };
            headers.append(name, value);
        }
        match forwarded::source(&headers, &listed) {
            Some(Hop::Hidden(Some(last))) => assert!(listed.contains(last), "only a listed hop hides one"),
            Some(Hop::Hidden(None) | Hop::Client(_)) | None => {}
        }
        let last = octets.rsplit(|octet| *octet == b'\n').next().unwrap_or_default();
        let value = [last, appended.as_bytes()].concat();
        headers.append(name, http::HeaderValue::from_bytes(&value).expect("made of two that are"));
        let client = "2001:db8::7".parse().expect("an address");
        assert_eq!(forwarded::source(&headers, &listed), Some(Hop::Client(client)), "the forwarder's own word");
    }
}

/// `/etc/resolv.conf`.
pub fn resolv_conf(octets: &[u8]) {
    assert!(system::parse(&String::from_utf8_lossy(octets)).len() <= system::SYSTEM_RESOLVERS_MAX, "within its bound");
}

/// The field Accept of a request for a page. JSON is sent only to those who could mean it; lines are one list.
pub fn accept(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let form = accept::preferred(text.lines());
    let may_mean_json = text.contains("/*") || text.to_ascii_lowercase().contains("application/json");
    assert!(form == Form::Html || may_mean_json, "nobody asked for JSON");
    assert_eq!(
        accept::preferred([text.lines().collect::<Vec<_>>().join(",").as_str()].into_iter()),
        form,
        "lines are one list"
    );
}

/// The file of a signature, by the key that has signed `test`. One that counts is over that, whole; a key that is read
/// is written as it was.
pub fn signature(octets: &[u8]) {
    const PUBLIC: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let key = PublicKey::from_text(PUBLIC);
    let counts = |over: &[u8]| key.as_ref().is_ok_and(|key| key.verify(over, octets).is_ok());
    assert!(!counts(b"Test"), "a signature is over one text");
    if counts(b"test") {
        assert!(octets.len() >= PUBLIC.len(), "a signature is whole");
    }
    for line in String::from_utf8_lossy(octets).lines() {
        let Ok(key) = PublicKey::from_text(line) else { continue };
        assert_eq!(key.to_string(), line, "a key is one line");
    }
}

/// The query of `/explain`. What is read can be written and read again.
pub fn explain_query(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    let Ok(query) = ExplainQuery::from_query(text) else { return };
    let path = query.to_path();
    let (_, again) = path.split_once('?').expect("a path with a query");
    assert_eq!(ExplainQuery::from_query(again), Ok(query), "what was written is read");
}

/// A database of countries. What is read tells every address an assigned country, or none.
pub fn database(octets: &[u8]) {
    let Ok(database) = Database::read(octets.into()) else { return };
    let origin = Origin::new(&origin::Settings::default(), Some(Arc::new(database)));
    let place = |address: IpAddr| {
        let country = origin.place(address).0;
        assert!(country.is_none_or(|country| Country::from_code(&country.to_string()).is_some()), "an assigned code");
    };
    for bit in 0..128 {
        for address in [1_u128 << bit, u128::MAX << bit, 0x2001_0db8 << 96 | 1 << bit, 0x2002 << 112 | 1 << bit] {
            place(IpAddr::V6(address.into()));
            place(IpAddr::V4((address as u32).into()));
        }
    }
}

/// A line of a ledger that somebody hands in, and all that is made of it.
pub fn ledger_line(octets: &[u8]) {
    if let Some(key) = ledger::verify::key_named_in(octets) {
        assert_eq!(key.to_string().parse(), Ok(key), "what was written is read");
        let case = ledger::report::Case::gather(octets, key, "it-1", Timestamp::UNIX_EPOCH);
        assert!(!ledger::page::page(&case).contains("<script"), "nothing acts");
    }
    let Ok(line) = ledger::line::Line::read(octets) else { return };
    assert_eq!(line.octets(), octets, "nothing is left out");
    let Some(event) = line.event() else { return };
    assert!(!ledger::words::sentence(&event).contains(char::is_control), "nothing for a terminal to obey");
    if let Event::Node(Note::Probe(probe)) = event {
        let case = ledger::probed::ProbeCase::read(line.number, line.at, probe);
        assert!(!case.question.is_empty() && !case.answered.is_empty(), "something is said");
    }
}
