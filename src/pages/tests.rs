//! The pages of orders made here, as bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use http::Request;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::view::{ORDERS_SHOWN_MAX, TARGETS_SHOWN_MAX};
use super::*;
use crate::cache::{self, Cache};
use crate::clock::Clock;
use crate::local::{self, Locals};
use crate::pipeline::{self, Parts as PipelineParts};
use crate::policy::index::Covers;
use crate::policy::load::{self, LoadedOrder};
use crate::policy::order::{Document, Effect, Interval, Jurisdiction, Order, Standing, State, Target};
use crate::policy::origin::Country;
use crate::telemetry::Telemetry;
use crate::upstream::{self, Resolvers, Upstream};

const NOW: &str = "2026-11-22T10:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn target(name: &str) -> Target {
    Target { names: vec![(Name::from_text(name).unwrap(), Covers::Subtree, 1)], ..Target::default() }
}

/// A public order in force in Italy.
fn order(id: &str) -> Order {
    Order {
        id: id.to_owned(),
        issuer: "Tribunale di Milano".to_owned(),
        reference: Some("R.G. 1/2022".to_owned()),
        jurisdiction: Jurisdiction::Countries(vec![Country::from_code("IT").unwrap()]),
        received: at("2022-07-18T09:00:00+02:00"),
        due: Some(at("2022-08-17T23:59:59+02:00")),
        effective: None,
        expires: None,
        state: State::InForce,
        effect: Effect::NxDomain,
        blocks_unknown_origin: false,
        about: None,
        contact: Some("mailto:legal@resolver.example".to_owned()),
        language: Some("it".to_owned()),
        lumen: None,
        document: None,
        public: true,
        reinstated: None,
        intervals: vec![],
        targets: vec![target("blocked.example")],
        file: "orders/x.toml".into(),
    }
}

fn policy(orders: Vec<Order>, generation: u64) -> Policy {
    let mut loaded = load::load(&load::Settings::default(), &load::Before::default(), at(NOW));
    loaded.orders = orders.into_iter().map(|order| LoadedOrder::of(order, b"octets")).collect();
    Policy::compile(&loaded, generation, at(NOW)).unwrap()
}

fn pages_of(orders: Vec<Order>, since: Option<Since>) -> Pages {
    let (day, clock) = (Duration::from_secs(86_400), Clock::simulated(at(NOW)));
    let upstreams = upstream::Settings::of(Resolvers::Listed(vec![]));
    let cache = cache::Settings { memory: 1 << 20, ttl_min: Duration::ZERO, ttl_max: day, stale: day };
    let pipeline = Pipeline::new(PipelineParts {
        policy: policy(orders, 1),
        cache: Cache::new(&cache),
        upstream: Upstream::new(&upstreams, Arc::new(upstream::System)),
        locals: Locals::new(&local::Settings::default()),
        telemetry: Telemetry::new(1),
        clock,
        settings: pipeline::Settings::default(),
    });
    Pages::new(pipeline, since)
}

fn pages(orders: Vec<Order>) -> Pages {
    pages_of(orders, None)
}

fn asked(pages: &Pages, method: &str, path: &str, accept: &str) -> Response<Bytes> {
    let request = Request::builder().method(method).uri(path).header("accept", accept).body(()).unwrap();
    pages.respond(&request.into_parts().0, at(NOW))
}

fn html(pages: &Pages, path: &str) -> String {
    let response = asked(pages, "GET", path, "text/html");
    assert_eq!((response.status().as_u16(), field(&response, "content-type")), (200, "text/html; charset=utf-8"));
    String::from_utf8(response.body().to_vec()).unwrap()
}

fn json_of(pages: &Pages, path: &str) -> Value {
    let response = asked(pages, "GET", path, "application/json");
    assert_eq!((response.status().as_u16(), field(&response, "content-type")), (200, "application/json"));
    serde_json::from_slice(response.body()).unwrap()
}

fn field<'r>(response: &'r Response<Bytes>, name: &str) -> &'r str {
    response.headers()[name].to_str().unwrap()
}

/// Text between two others.
fn between<'t>(text: &'t str, before: &str, behind: &str) -> &'t str {
    text.split_once(before).unwrap().1.split_once(behind).unwrap().0
}

#[tokio::test]
async fn a_page_says_what_an_order_is() {
    let pages = pages(vec![order("it-1")]);
    let page = html(&pages, "/orders/it-1");
    for said in [
        "<!DOCTYPE html><html lang=\"en\">",
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
        "<h1 lang=\"it\">Tribunale di Milano</h1>",
        "<p class=\"reference\" lang=\"it\">R.G. 1/2022</p>",
        "<strong>IT</strong>",
        "<span class=\"state in-force\">In force</span>",
        "<time datetime=\"2022-07-18T07:00:00Z\">18 July 2022, 07:00:00 UTC</time>",
        "<time datetime=\"2022-08-17T21:59:59Z\">17 August 2022, 21:59:59 UTC</time>",
        "<code>NXDOMAIN</code>",
        "<code>blocked.example</code><span>this name and all below it</span>",
        "<a href=\"mailto:legal@resolver.example\" rel=\"noopener noreferrer\">legal@resolver.example</a>",
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
    let list = html(&pages, "/orders");
    assert!(
        list.contains("<a href=\"/orders/it-1\">Tribunale di Milano</a>") && list.contains("Country: IT"),
        "{list}"
    );
    assert!(html(&self::pages(vec![]), "/orders").contains("No order is public here."));
}

#[tokio::test]
async fn json_says_the_same() {
    let pages = pages(vec![order("it-1")]);
    let line = json!({
        "id": "it-1", "issuer": "Tribunale di Milano", "reference": "R.G. 1/2022", "jurisdiction": ["IT"],
        "state": "in-force", "received": "2022-07-18T07:00:00Z",
    });
    assert_eq!(json_of(&pages, "/orders"), json!({ "total": 1, "orders": [line] }));
    let mut page = line;
    page.as_object_mut().unwrap().extend(
        json!({
            "standing": "This order is carried out now.", "unknown-origin": "spare", "effect": "nxdomain", "due": "2022-08-17T21:59:59Z", "effective": null,
            "effective-here-since": null, "expires": null, "intervals": [], "about": null,
            "contact": "mailto:legal@resolver.example", "lumen": null, "document-sha256": null,
            "targets": { "total": 1, "shown": [
                { "kind": "subtree", "value": "blocked.example", "unicode": null, "added": null, "state": "in-force" },
            ], "lists": 0, "listed": 0 },
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    assert_eq!(json_of(&pages, "/orders/it-1"), page);
}

#[tokio::test]
async fn an_order_that_is_not_public_is_not_there() {
    let pages = pages(vec![Order { public: false, ..order("hidden") }, order("shown")]);
    for accept in ["text/html", "application/json"] {
        let hidden = asked(&pages, "GET", "/orders/hidden", accept);
        assert_eq!(hidden.status(), 404);
        for unknown in ["/orders/unknown", "/orders/", "/orders/shown/", "/orders/SHOWN", "/orders/hidden/x"] {
            let unknown = asked(&pages, "GET", unknown, accept);
            assert_eq!(
                (unknown.status(), unknown.headers(), unknown.body()),
                (hidden.status(), hidden.headers(), hidden.body())
            );
        }
        let list = asked(&pages, "GET", "/orders", accept);
        let list = String::from_utf8(list.body().to_vec()).unwrap();
        assert!(list.contains("shown") && !list.contains("hidden"), "{list}");
    }
}

#[tokio::test]
async fn words_of_an_order_are_only_words() {
    let hostile = "\"><script>alert(1)</script>&amp;'<!--";
    let words = || Some(hostile.to_owned());
    let order = Order {
        issuer: hostile.to_owned(),
        reference: words(),
        about: Some("javascript:alert(1)".to_owned()),
        contact: words(),
        language: words(),
        lumen: words(),
        ..order("it-1")
    };
    let page = html(&pages(vec![order.clone()]), "/orders/it-1");
    let list = html(&pages(vec![order.clone()]), "/orders");
    for text in [page, list] {
        assert!(!text.contains("<script") && !text.contains("<!--") && !text.contains("lang=\"\">"), "{text}");
        assert!(!text.contains("href=\"javascript:"), "{text}");
        assert!(text.contains("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;"), "{text}");
    }
    let read = json_of(&pages(vec![order]), "/orders/it-1");
    assert_eq!((&read["issuer"], &read["lumen"]), (&json!(hostile), &json!(hostile)));
}

#[tokio::test]
async fn a_page_needs_nothing_but_itself() {
    let pages = pages(vec![order("it-1")]);
    for path in ["/orders", "/orders/it-1", "/orders/unknown"] {
        let response = asked(&pages, "GET", path, "");
        let page = String::from_utf8(response.body().to_vec()).unwrap();
        for outside in
            ["<script", "<link", "<img", "<iframe", "<form", " src=", "@import", "url(", " style=", " onclick"]
        {
            assert!(!page.contains(outside), "{path}: {outside}");
        }
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        let style = BASE64_STANDARD.encode(Digest::of(between(&page, "<style>", "</style>").as_bytes()).0);
        assert_eq!(
            policy,
            format!(
                "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'"
            )
        );
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "public, max-age=60"),
            ("vary", "Accept"),
        ] {
            assert_eq!(response.headers()[name], value, "{path}");
        }
    }
}

#[tokio::test]
async fn what_is_not_looking_is_refused() {
    let pages = pages(vec![order("it-1")]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/orders", "/orders/it-1", "/orders/unknown"] {
            let response = asked(&pages, method, path, "");
            assert_eq!((response.status().as_u16(), field(&response, "allow")), (405, "GET, HEAD"), "{method} {path}");
        }
    }
    assert_eq!(asked(&pages, "HEAD", "/orders", "").body(), asked(&pages, "GET", "/orders", "").body());
}

#[test]
fn paths_are_ours_or_not() {
    for (path, ours) in [
        ("/orders", true),
        ("/orders/", true),
        ("/orders/it-1", true),
        ("/orders/a/b", true),
        ("/ordersx", false),
        ("/order", false),
        ("/Orders", false),
        ("/", false),
        ("*", false),
        ("", false),
        ("/dns-query", false),
    ] {
        assert_eq!(Pages::has(path), ours, "{path}");
    }
    let name = Name::from_text("DNS.example.net").unwrap();
    assert_eq!(url(&name, 443), "https://dns.example.net/orders/");
    assert_eq!(url(&name, 8443), "https://dns.example.net:8443/orders/");
}

#[tokio::test]
async fn states_effects_and_dates_are_told_in_words() {
    let first = at("2026-11-21T00:00:00Z");
    for (changed, said) in [
        (Order { state: State::Draft, ..order("x") }, "It blocks nothing."),
        (Order { state: State::Trial, ..order("x") }, "is counted, and nothing is blocked."),
        (Order { state: State::Suspended, ..order("x") }, "is suspended."),
        (Order { state: State::Lifted, ..order("x") }, "was lifted."),
        (Order { expires: Some(first), ..order("x") }, "has ended."),
        (Order { effective: Some(at("2026-12-01T00:00:00Z")), ..order("x") }, "is not carried out yet."),
        (order("x"), "is carried out now."),
        (Order { effect: Effect::NoData, ..order("x") }, "<code>NODATA</code>"),
        (Order { effect: Effect::Refused, ..order("x") }, "<code>REFUSED</code>"),
        (
            Order { effect: Effect::Address { a: Some([192, 0, 2, 1].into()), aaaa: None }, ..order("x") },
            "own: <code>192.0.2.1</code>.",
        ),
        (Order { jurisdiction: Jurisdiction::Everywhere, ..order("x") }, "Everywhere: for every client"),
        (Order { blocks_unknown_origin: true, ..order("x") }, "counts as if it were there"),
        (order("x"), "So does a client whose country cannot be told."),
        (Order { lumen: Some("12345".into()), ..order("x") }, "<a href=\"https://lumendatabase.org/notices/12345\""),
        (
            Order { intervals: vec![Interval { from: first, until: at(NOW) }], ..order("x") },
            "<dt>Was carried out</dt><dd><time datetime=\"2026-11-21T00:00:00Z\">",
        ),
        (
            Order { document: Some(Document { sha256: Digest::of(b""), location: "/srv/x.pdf".into() }), ..order("x") },
            "SHA-256 <code>e3b0c442",
        ),
    ] {
        let page = html(&pages(vec![changed]), "/orders/x");
        assert!(page.contains(said) && !page.contains("/srv"), "{said}: {page}");
    }
    for standing in [Standing::Waiting, Standing::InForce, Standing::Expired] {
        assert!(html::STYLE.contains(&format!(".{standing}")), "{standing} has its colour");
    }
}

#[tokio::test]
async fn since_when_it_is_in_effect_here_is_told_where_it_is_known() {
    let since: Since = Box::new(|id| (id == "it-1").then(|| at("2022-07-18T10:00:01Z")));
    let pages = pages_of(vec![order("it-1"), order("it-2")], Some(since));
    let said = "<dt>In effect here since</dt><dd><time datetime=\"2022-07-18T10:00:01Z\">";
    assert!(html(&pages, "/orders/it-1").contains(said));
    assert!(!html(&pages, "/orders/it-2").contains("In effect here since"));
    assert_eq!(json_of(&pages, "/orders/it-1")["effective-here-since"], "2022-07-18T10:00:01Z");
}

#[tokio::test]
async fn targets_without_end_are_counted() {
    let mut targets: Vec<_> = (0..TARGETS_SHOWN_MAX).map(|number| target(&format!("a{number}.example"))).collect();
    let whole = html(&pages(vec![Order { targets: targets.clone(), ..order("x") }]), "/orders/x");
    assert!(whole.contains("a99.example") && !whole.contains("of which these are the first"), "{whole}");
    targets.push(Target {
        labels: vec![("ilcorsaronero".into(), 1)],
        addresses: vec![("192.0.2.0/24".parse::<IpNet>().unwrap(), 1)],
        ..Target::default()
    });
    let pages = pages(vec![Order { targets, ..order("x") }]);
    let page = html(&pages, "/orders/x");
    assert!(page.contains("102 names and addresses, of which these are the first 100:"), "{page}");
    let targets = &json_of(&pages, "/orders/x")["targets"];
    assert_eq!((&targets["total"], &targets["lists"]), (&json!(102), &json!(0)));
    assert_eq!(targets["shown"].as_array().unwrap().len(), TARGETS_SHOWN_MAX);
}

#[tokio::test]
async fn an_addendum_shows_its_own_dates() {
    let later = Target {
        added: Some("2022-09-01".parse().unwrap()),
        effective: Some(at("2027-01-01T00:00:00Z")),
        ..target("later.example")
    };
    let pages = pages(vec![Order { targets: vec![target("first.example"), later], ..order("x") }]);
    let page = html(&pages, "/orders/x");
    let (first, later) = page.split_once("first.example").unwrap().1.split_once("later.example").unwrap();
    assert!(!first.contains("added") && !first.contains("Not yet in force"), "{first}");
    assert!(later.contains("; added <time datetime=\"2022-09-01\">1 September 2022</time>"), "{later}");
    assert!(later.contains("<span class=\"state waiting\">Not yet in force</span>"), "{later}");
    let shown = &json_of(&pages, "/orders/x")["targets"]["shown"];
    assert_eq!((&shown[1]["added"], &shown[1]["state"]), (&json!("2022-09-01"), &json!("waiting")));
}

#[tokio::test]
async fn the_names_of_a_list_are_counted_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (list, orders) = (folder.path().join("names.txt"), folder.path().join("orders"));
    std::fs::create_dir(&orders).unwrap();
    std::fs::write(&list, "a.example\nb.example\nc.example\n").unwrap();
    let text = format!(
        "id = 'x'\nissuer = 'Court'\njurisdiction = ['*']\nreceived = {NOW}\nstate = 'in-force'\npublic = true\n\
         [[target]]\nsubtree = ['first.example']\n\
         list = {{ file = '{}', format = 'domains', covers = 'subtree' }}\n",
        list.display()
    );
    std::fs::write(orders.join("x.toml"), text).unwrap();
    let settings = load::Settings { orders: Some(orders), ..load::Settings::default() };
    let pages = pages(vec![]);
    let loaded = load::load(&settings, &load::Before::default(), at(NOW));
    pages.pipeline.install(Policy::compile(&loaded, 2, at(NOW)).unwrap());
    let page = html(&pages, "/orders/x");
    assert!(
        page.contains("<li>A list of 3 names, which comes with the order</li>") && page.contains("first.example"),
        "{page}"
    );
    assert!(!page.contains("b.example") && !page.contains("names.txt"), "{page}");
    let targets = &json_of(&pages, "/orders/x")["targets"];
    assert_eq!((&targets["total"], &targets["lists"], &targets["listed"]), (&json!(1), &json!(1), &json!(3)));
}

#[tokio::test]
async fn orders_without_end_are_counted_and_have_their_pages() {
    let day = |number: usize| at("2020-01-01T00:00:00Z") + Duration::from_secs(86_400) * u32::try_from(number).unwrap();
    let orders = (0..=ORDERS_SHOWN_MAX).map(|number| Order { received: day(number), ..order(&format!("x-{number}")) });
    let pages = pages(orders.collect());
    let list = html(&pages, "/orders");
    assert!(list.contains("/orders/x-500\"") && !list.contains("/orders/x-0\""), "the newest are shown");
    assert!(list.contains("And 1 older one: it has its page"));
    assert!(list.find("x-500\"").unwrap() < list.find("x-499\"").unwrap());
    assert!(html(&pages, "/orders/x-0").contains("In force"));
}

#[tokio::test]
async fn the_list_is_made_anew_with_each_generation() {
    let pages = pages(vec![order("it-1")]);
    let before = asked(&pages, "GET", "/orders", "");
    assert_eq!(before.body().as_ptr(), asked(&pages, "GET", "/orders", "").body().as_ptr(), "it is kept");
    pages.pipeline.install(policy(vec![Order { state: State::Lifted, ..order("it-1") }], 2));
    assert!(html(&pages, "/orders").contains("Lifted") && !html(&pages, "/orders").contains("In force"));
}

/// The page of an order at [`NOW`], and its JSON.
fn both(order: Order) -> (String, Value) {
    let pages = pages(vec![Order { id: "x".to_owned(), ..order }]);
    (html(&pages, "/orders/x"), json_of(&pages, "/orders/x"))
}

#[tokio::test]
async fn of_what_is_over_a_page_speaks_in_the_past() {
    let (past, future) = (at("2026-11-20T00:00:00Z"), at("2026-12-20T00:00:00Z"));
    let interval = Interval { from: at("2026-11-21T00:00:00Z"), until: at("2026-11-21T03:00:00Z") };
    let due = |order: Order| Order { due: Some(future), ..order };
    for (changed, state, end) in [
        (Order { state: State::Lifted, expires: Some(future), ..order("x") }, "lifted", "<dt>Was to end</dt>"),
        (Order { effective: Some(at(NOW)), expires: Some(at(NOW)), ..order("x") }, "expired", "<dt>Ended</dt>"),
        (Order { expires: Some(past), ..order("x") }, "expired", "<dt>Ended</dt>"),
        (Order { intervals: vec![interval], expires: Some(future), ..order("x") }, "expired", "<dt>Was to end</dt>"),
    ] {
        let (page, json) = both(due(changed));
        for said in [
            "What was answered",
            "Where it applied",
            "This order changes no answer any more. While it was in force:",
            "The answer said that the name did not exist",
            "It also said why",
            "So did a client whose country could not be told.",
            "<dt>Was to be carried out by</dt>",
            "You need not do anything",
            end,
        ] {
            assert!(page.contains(said), "{state}, {said}: {page}");
        }
        for not_said in ["Object to", "The answer says", "carries it out", "<dt>To be", "<dt>Ends", "<dt>In effect"] {
            assert!(!page.contains(not_said), "{state}, {not_said}: {page}");
        }
        assert!(page.contains(json["standing"].as_str().unwrap()), "{json}");
        assert_eq!(json["state"], state);
    }
    for (effect, said) in [
        (Effect::NoData, "The answer said that the name had no addresses"),
        (Effect::Refused, "The question was refused"),
        (Effect::Address { a: Some([192, 0, 2, 1].into()), aaaa: None }, "The answer gave another address"),
    ] {
        let (page, _) = both(Order { state: State::Lifted, effect, ..order("x") });
        assert!(page.contains(said), "{said}: {page}");
    }
}

#[tokio::test]
async fn an_order_lifted_before_its_time_never_answered() {
    let future = at("2026-12-20T00:00:00Z");
    let since: Since = Box::new(|_| Some(at("2026-11-20T00:00:00Z")));
    let amended = Order { state: State::Lifted, effective: Some(future), ..order("x") };
    let amended = html(&pages_of(vec![amended], Some(since)), "/orders/x");
    assert!(amended.contains("While it was in force:") && amended.contains("Was in effect here from"), "{amended}");
    let (never, _) = both(Order { state: State::Lifted, effective: Some(future), ..order("x") });
    for said in ["lifted before its time came", "Had it come into force:", "would say", "Was to be in effect from"] {
        assert!(never.contains(said), "{said}: {never}");
    }
}

#[tokio::test]
async fn of_what_is_not_in_force_a_page_does_not_say_that_it_is_carried_out() {
    let since: Since = Box::new(|_| Some(at("2022-07-18T10:00:01Z")));
    let suspended = html(&pages_of(vec![Order { state: State::Suspended, ..order("x") }], Some(since)), "/orders/x");
    assert!(
        suspended.contains("Was in effect here from") && !suspended.contains("In effect here since"),
        "{suspended}"
    );
    let later = Some(at("2026-12-01T00:00:00Z"));
    for (changed, said) in [
        (Order { state: State::Draft, ..order("x") }, ["If it were in force:", "The answer would say"]),
        (Order { state: State::Trial, ..order("x") }, ["If it were in force:", "The answer would say"]),
        (Order { state: State::Suspended, ..order("x") }, ["If it is carried out again:", "The answer says"]),
        (Order { effective: later, ..order("x") }, ["no answer yet. Once it is in force:", "The answer says"]),
    ] {
        let (page, json) = both(changed);
        for said in
            said.into_iter().chain(["Object to the order. The resolver did not make it", "To be carried out by"])
        {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert!(!page.contains("carries it out") && page.contains(json["standing"].as_str().unwrap()), "{page}");
    }
    let (page, _) = both(order("x"));
    assert!(page.contains("carries it out but did not make it") && !page.contains("changes no answer"), "{page}");
}

#[tokio::test]
async fn between_two_intervals_it_is_not_said_to_be_still_to_come() {
    let interval = |from: &str, until: &str| Interval { from: at(from), until: at(until) };
    let first = interval("2026-11-21T18:00:00Z", "2026-11-21T21:00:00Z");
    let next = interval("2026-11-28T18:00:00Z", "2026-11-28T21:00:00Z");
    let (between, json) = both(Order { intervals: vec![first, next], ..order("x") });
    for said in [
        "<span class=\"state waiting\">Not in force at this time</span>",
        "is not carried out at this time. It will be again",
        "<dt>Was carried out</dt><dd><time datetime=\"2026-11-21T18:00:00Z\">",
        "<dt>To be carried out</dt><dd><time datetime=\"2026-11-28T18:00:00Z\">",
    ] {
        assert!(between.contains(said), "{said}: {between}");
    }
    assert!(!between.contains(" yet"), "{between}");
    assert!(between.contains(json["standing"].as_str().unwrap()) && json["state"] == "waiting", "{json}");
    for (intervals, effective) in [(vec![next], None), (vec![first, next], Some(first.until))] {
        let (before, _) = both(Order { intervals, effective, ..order("x") });
        assert!(before.contains("Not yet in force") && before.contains("is not carried out yet."), "{before}");
    }
    let now = interval("2026-11-22T09:00:00Z", "2026-11-22T11:00:00Z");
    let (during, _) = both(Order { intervals: vec![first, now, next], ..order("x") });
    assert!(during.contains("<dt>Carried out</dt><dd><time datetime=\"2026-11-22T09:00:00Z\">"), "{during}");
}

#[tokio::test]
async fn an_internationalised_name_is_shown_as_people_write_it() {
    let names = ["b\u{fc}cher.example", "plain.example", "xn--a.example", "xn--ls8h=.example"];
    let targets = names
        .into_iter()
        .map(target)
        .chain([Target { labels: vec![("xn--bcher-kva".into(), 1)], ..Target::default() }]);
    let (page, json) = both(Order { targets: targets.collect(), ..order("x") });
    for said in [
        "<code><bdi>b\u{fc}cher.example</bdi> (xn--bcher-kva.example)</code>",
        "<code>plain.example</code>",
        "<code>xn--a.example</code>",
        "<code>xn--ls8h=.example</code>",
        "<code><bdi>b\u{fc}cher</bdi> (xn--bcher-kva)</code>",
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
    let unicode: Vec<_> = json["targets"]["shown"].as_array().unwrap().iter().map(|shown| &shown["unicode"]).collect();
    let bare = &Value::Null;
    assert_eq!(unicode, [&json!("b\u{fc}cher.example"), bare, bare, bare, &json!("b\u{fc}cher")]);
}

#[test]
fn lists_are_counted_in_words() {
    let of = |lists, listed| html::lists(&view::Targets { total: 0, shown: vec![], lists, listed }).into_string();
    assert_eq!(of(1, 1), "A list of 1 name, which comes with the order");
    assert_eq!(of(1, 2), "A list of 2 names, which comes with the order");
    assert_eq!(of(2, 5), "2 lists, together of 5 names, which come with the order");
}
