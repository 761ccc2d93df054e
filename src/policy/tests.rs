//! The rule of decision against a naive reading of design.md, and the corners that have names.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::load::{Files, ListSettings, Settings, load_in_hand};
use super::order::{Interval, Jurisdiction, ListTarget, Order, State, Target};
use super::*;
use crate::dns::{Qclass, Qtype};

pub(super) fn name(text: &str) -> Name {
    Name::from_text(text).unwrap()
}

/// So many milliseconds after the moment that all tests count from.
pub(super) fn at(milliseconds: i64) -> Timestamp {
    let start: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    start + SignedDuration::from_millis(milliseconds)
}

fn country(code: &str) -> Option<Country> {
    Some(Country::from_code(code).unwrap())
}

/// An order in force everywhere with these subtrees.
pub(super) fn order(id: &str, subtrees: &[&str]) -> Order {
    Order {
        id: id.to_owned(),
        issuer: "Test Court".to_owned(),
        reference: None,
        jurisdiction: Jurisdiction::Everywhere,
        received: at(0),
        due: None,
        effective: None,
        expires: None,
        state: State::InForce,
        effect: Effect::NxDomain,
        blocks_unknown_origin: false,
        about: None,
        contact: None,
        language: None,
        lumen: None,
        document: None,
        public: false,
        reinstated: None,
        intervals: vec![],
        targets: vec![target(subtrees.iter().map(|subtree| (name(subtree), Covers::Subtree)))],
        file: PathBuf::from("orders/x.toml"),
    }
}

fn target(names: impl Iterator<Item = (Name, Covers)>) -> Target {
    Target { names: (1..).zip(names).map(|(line, (name, covers))| (name, covers, line)).collect(), ..Target::default() }
}

pub(super) fn loaded(order: Order) -> LoadedOrder {
    let octets = order.id.clone();
    LoadedOrder::of(order, octets.as_bytes())
}

pub(super) fn exempt(text: &str, expires: Option<Timestamp>, overrides_order: Option<&str>) -> Exemption {
    let place = (PathBuf::from("bailiwick.toml"), 1);
    Exemption {
        name: name(text),
        reason: "a test".to_owned(),
        expires,
        overrides_order: overrides_order.map(ToOwned::to_owned),
        place,
    }
}

/// A list and what it says.
#[derive(Debug, Clone)]
pub(super) struct TestList {
    settings: ListSettings,
    text: String,
}

pub(super) fn list(text: &str, covers: Covers, effect: Effect) -> TestList {
    let settings = ListSettings {
        name: text.to_owned(),
        file: PathBuf::from(format!("lists/{text}")),
        format: list::Format::Domains,
        covers,
        effect,
    };
    TestList { settings, text: text.to_owned() }
}

pub(super) fn policy(orders: &[Order], lists: &[TestList], exemptions: &[Exemption]) -> Policy {
    policy_with(orders, lists, exemptions, Files::new())
}

/// The same, with the files of list targets.
pub(super) fn policy_with(orders: &[Order], lists: &[TestList], exemptions: &[Exemption], mut files: Files) -> Policy {
    let settings = Settings {
        exemptions: exemptions.to_vec(),
        lists: lists.iter().map(|list| list.settings.clone()).collect(),
        hold_fallback: true,
        ..Settings::default()
    };
    files.extend(lists.iter().map(|list| (list.settings.file.clone(), list.text.clone().into_bytes())));
    let loaded = load_in_hand(&settings, orders.iter().cloned().map(loaded).collect(), &files, at(0));
    assert_eq!(loaded.refused, []);
    Policy::compile(&loaded, 1, at(0)).unwrap()
}

fn query(qname: &Name) -> Query<'static> {
    Query::plain(qname.clone(), Qtype::A)
}

/// A record: owner, type, RDATA.
type Rr = (Name, Qtype, Vec<u8>);

fn reply(qname: &Name, answers: &[Rr]) -> Reply<'static> {
    reply_with(qname, answers, &[])
}

/// A reply with an answer section and an additional section.
fn reply_with(qname: &Name, answers: &[Rr], additional: &[Rr]) -> Reply<'static> {
    let mut octets = vec![0, 0, 0x81, 0x80, 0, 1, 0, answers.len() as u8, 0, 0, 0, additional.len() as u8];
    octets.extend(&*query(qname).echo.question);
    for (owner, rtype, rdata) in answers.iter().chain(additional) {
        octets.extend(owner.as_wire());
        octets.extend(rtype.0.to_be_bytes());
        octets.extend([0, 1, 0, 0, 1, 0x2c]);
        octets.extend((rdata.len() as u16).to_be_bytes());
        octets.extend(rdata);
    }
    Reply::read(&octets, qname, Qtype::A, Qclass::IN).unwrap()
}

/// An A or AAAA record.
pub(super) fn address(owner: &Name, address: IpAddr) -> Rr {
    match address {
        IpAddr::V4(v4) => (owner.clone(), Qtype::A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (owner.clone(), Qtype::AAAA, v6.octets().to_vec()),
    }
}

/// An HTTPS record; its target is `.` where there is none.
fn https(owner: &Name, target: Option<&Name>, hints: &[IpAddr]) -> Rr {
    let target = target.cloned().unwrap_or(Name::root());
    let mut rdata = [&[0, 1][..], target.as_wire()].concat();
    for hint in hints {
        match hint {
            IpAddr::V4(v4) => rdata.extend([&[0, 4, 0, 4][..], &v4.octets()].concat()),
            IpAddr::V6(v6) => rdata.extend([&[0, 6, 0, 16][..], &v6.octets()].concat()),
        }
    }
    (owner.clone(), Qtype::HTTPS, rdata)
}

fn leads(owner: &str, rtype: Qtype, to: &str) -> Rr {
    (name(owner), rtype, name(to).as_wire().to_vec())
}

/// A CNAME from each name to the next.
pub(super) fn chain(names: &[Name]) -> Reply<'static> {
    reply(&names[0], &links(names))
}

fn links(names: &[Name]) -> Vec<Rr> {
    names.windows(2).map(|pair| (pair[0].clone(), Qtype::CNAME, pair[1].as_wire().to_vec())).collect()
}

/// What was decided, in a form to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decided {
    Clean { ttl_max: Option<u32> },
    Blocked { cause: Cause, effect: Effect, soa_labels: usize, ttl: u32 },
}

impl Decided {
    fn blocked(block: &Block<'_, '_>) -> Self {
        let (cause, effect) = (block.cause(), block.effect());
        Self::Blocked { cause, effect, soa_labels: block.soa_labels(), ttl: block.ttl() }
    }
}

/// Admits and screens; by what was found before, or with a look of its own. Says too which trials it told of.
fn decide(
    policy: &Policy,
    reply: &Reply<'_>,
    qname: &Name,
    view: View,
    now: Timestamp,
    kept: bool,
) -> (Decided, Vec<usize>) {
    let mut trials = vec![];
    let query = query(qname);
    let decided = match policy.admit(&query, view, now, |order| trials.push(order)) {
        Err(block) => Decided::blocked(&block),
        Ok(permitted) => {
            let findings = if kept { policy.find(&permitted, reply) } else { Findings::default() };
            match policy.screen(&permitted, reply.borrowed(), &findings, view, now, |order| trials.push(order)) {
                Err(block) => Decided::blocked(&block),
                Ok(screened) => Decided::Clean { ttl_max: screened.ttl_max() },
            }
        }
    };
    (decided, trials)
}

const NOBODY: View = View { country: None };

/// Both ways, which must agree.
fn decide_twice(policy: &Policy, reply: &Reply<'_>, qname: &str, now: Timestamp) -> Decided {
    let [kept, fresh] = [true, false].map(|kept| decide(policy, reply, &name(qname), NOBODY, now, kept).0);
    assert_eq!(kept, fresh);
    kept
}

fn is_blocked(decided: &Decided) -> bool {
    matches!(decided, Decided::Blocked { .. })
}

// ---- Corners ----

#[test]
fn an_exact_target_on_the_owner_of_a_dname_means_nothing_below_it() {
    let mut exact = order("x", &[]);
    exact.targets = vec![target([(name("old.example"), Covers::Exact)].into_iter())];
    let answers =
        [leads("old.example", Qtype::DNAME, "new.example"), leads("www.old.example", Qtype::CNAME, "www.new.example")];
    let reply = reply(&name("www.old.example"), &answers);
    assert!(!is_blocked(&decide_twice(&policy(&[exact], &[], &[]), &reply, "www.old.example", at(0))));

    let listed = list("old.example", Covers::Subtree, Effect::NxDomain);
    let policy = policy(&[], &[listed], &[exempt("www.old.example", None, None)]);
    assert!(!is_blocked(&decide_twice(&policy, &reply, "www.old.example", at(0))), "exempt below a listed name");
}

#[test]
fn a_dname_without_its_cname_leads_to_its_target() {
    let policy = policy(&[order("x", &["new.example"])], &[], &[]);
    let reply = reply(&name("www.old.example"), &[leads("old.example", Qtype::DNAME, "new.example")]);
    assert!(is_blocked(&decide_twice(&policy, &reply, "www.old.example", at(0))));
}

#[test]
fn chains_that_loop_and_targets_that_are_the_root_end() {
    let policy = policy(&[order("x", &["c.example"])], &[], &[]);
    let names = ["a.example", "b.example", "a.example", "b.example"].map(name);
    assert!(!is_blocked(&decide_twice(&policy, &chain(&names), "a.example", at(0))));
    let https = (name("a.example"), Qtype::HTTPS, b"\0\0\0".to_vec());
    assert!(!is_blocked(&decide_twice(&policy, &reply(&name("a.example"), &[https]), "a.example", at(0))));
    let https = (name("a.example"), Qtype::HTTPS, [&b"\0\x01"[..], name("c.example").as_wire()].concat());
    assert!(is_blocked(&decide_twice(&policy, &reply(&name("a.example"), &[https]), "a.example", at(0))));
}

#[test]
fn owners_that_nothing_leads_to_are_screened_too() {
    let policy = policy(&[order("x", &["c.example"])], &[], &[]);
    let stray = (name("www.c.example"), Qtype::A, vec![192, 0, 2, 1]);
    assert!(is_blocked(&decide_twice(&policy, &reply(&name("a.example"), &[stray]), "a.example", at(0))));
}

#[test]
fn an_order_blocks_from_the_very_moment_and_until_the_very_moment() {
    let dated = Order { effective: Some(at(10_000)), expires: Some(at(20_000)), ..order("x", &["a.example"]) };
    let policy = policy(&[dated], &[], &[]);
    let qname = name("a.example");
    let blocked = |ttl| Decided::Blocked { cause: Cause::Order(0), effect: Effect::NxDomain, soa_labels: 2, ttl };
    for (now, decided) in [
        (0, Decided::Clean { ttl_max: Some(10) }),
        (1, Decided::Clean { ttl_max: Some(9) }),
        (9_001, Decided::Clean { ttl_max: Some(0) }),
        (9_999, Decided::Clean { ttl_max: Some(0) }),
        (10_000, blocked(10)),
        (19_001, blocked(0)),
        (20_000, Decided::Clean { ttl_max: None }),
    ] {
        assert_eq!(decide_twice(&policy, &reply(&qname, &[]), "a.example", at(now)), decided, "{now} ms");
    }
    assert!(!policy.changed_since_made(at(9_999)));
    assert!(policy.changed_since_made(at(10_000)));
    assert!(policy.next(at(10_000)).changed_since_made(at(20_000)));
    assert_eq!((policy.next(at(10_000)).generation(), policy.next(at(20_000)).next_change), (2, None));
}

#[test]
fn of_two_orders_one_lifted_leaves_the_other() {
    let lifted = Order { state: State::Lifted, ..order("a", &["a.example"]) };
    let policy = policy(&[lifted, order("b", &["a.example"])], &[], &[]);
    let qname = name("a.example");
    let Decided::Blocked { cause, .. } = decide_twice(&policy, &reply(&qname, &[]), "a.example", at(0)) else {
        panic!("not blocked")
    };
    assert_eq!(cause, Cause::Order(1));
}

#[test]
fn an_answer_counts_once_for_an_order_in_trial() {
    let trial = Order { state: State::Trial, ..order("x", &["a.example", "b.example"]) };
    let policy = policy(&[trial], &[], &[]);
    let names = ["www.a.example", "b.example", "www.b.example"].map(name);
    for kept in [true, false] {
        let (decided, trials) = decide(&policy, &chain(&names), &names[0], NOBODY, at(0), kept);
        assert_eq!((decided, trials), (Decided::Clean { ttl_max: None }, vec![0]));
    }
    let (_, trials) =
        decide(&policy, &chain(&[name("c.example"), name("b.example")]), &name("c.example"), NOBODY, at(0), true);
    assert_eq!(trials, [0], "met by the chain alone");
}

#[test]
fn findings_say_nothing_of_the_verdict_and_know_their_index() {
    let dated =
        Order { jurisdiction: Jurisdiction::Countries(vec![country("IT").unwrap()]), ..order("x", &["b.example"]) };
    let first = policy(std::slice::from_ref(&dated), &[], &[]);
    let names = ["a.example", "b.example"].map(name);
    let reply = chain(&names);
    let permitted = Permitted::for_tests(query(&names[0]));
    let findings = first.find(&permitted, &reply);
    assert!(matches!(&findings.met, Met::These(met) if met.len() == 1));
    assert!(first.knows(&findings) && first.next(at(0)).knows(&findings), "the next generation shares the index");
    let screen =
        |policy: &Policy, view| policy.screen(&permitted, reply.borrowed(), &findings, view, at(0), |_| {}).is_ok();
    assert!(!screen(&first, View { country: country("IT") }));
    assert!(screen(&first, View { country: country("DE") }));
    let second = policy(&[], &[], &[]);
    assert!(!second.knows(&findings) && !second.knows(&Findings::default()));
    assert!(screen(&second, View { country: country("IT") }), "findings of another index are not believed");
}

#[test]
fn more_findings_than_are_kept_are_looked_up_again() {
    let orders: Vec<_> = (0..=FINDINGS_MAX).map(|number| order(&format!("x{number}"), &["b.example"])).collect();
    let names = ["a.example", "b.example"].map(name);
    let (all, fewer) = (policy(&orders, &[], &[]), policy(&orders[1..], &[], &[]));
    let find = |policy: &Policy| policy.find(&Permitted::for_tests(query(&names[0])), &chain(&names)).met;
    assert_eq!(find(&all), Met::Many);
    assert!(matches!(find(&fewer), Met::These(met) if met.len() == FINDINGS_MAX));
    for policy in [all, fewer] {
        assert!(is_blocked(&decide_twice(&policy, &chain(&names), "a.example", at(0))));
    }
}

#[test]
fn a_block_says_what_it_is_and_then_holds() {
    let address = Effect::Address { a: Some([192, 0, 2, 1].into()), aaaa: None };
    let policy = policy(
        &[order("x", &["a.example"]), Order { effect: address, ..order("y", &["b.example"]) }],
        &[list("c.example", Covers::Subtree, Effect::Refused)],
        &[],
    );
    let errors = |qname: &str| {
        let query = query(&name(qname));
        let block = policy.admit(&query, NOBODY, at(0), |_| {}).unwrap_err();
        let (errors, count) = block.errors();
        errors[..count].iter().map(|(code, text)| (code.0, (*text).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(errors("a.example"), [(16, "order x, Test Court".to_owned()), (17, String::new())]);
    assert_eq!(errors("b.example"), [(16, "order y, Test Court".to_owned())]);
    assert_eq!(errors("c.example"), [(15, "list c.example".to_owned()), (17, String::new())]);
}

#[test]
fn a_target_is_carried_out_by_its_own_dates_and_an_interval_ends_a_block() {
    let mut dated = order("x", &["first.example"]);
    let addendum = target([(name("added.example"), Covers::Subtree)].into_iter());
    dated.targets.push(Target { effective: Some(at(10_000)), expires: Some(at(20_000)), ..addendum });
    dated.intervals =
        vec![Interval { from: at(0), until: at(15_000) }, Interval { from: at(18_000), until: at(99_000) }];
    let policy = policy(&[dated], &[], &[]);
    let blocked = |ttl| Decided::Blocked { cause: Cause::Order(0), effect: Effect::NxDomain, soa_labels: 2, ttl };
    let clean = |ttl_max| Decided::Clean { ttl_max };
    for (now, first, added) in [
        (9_999, blocked(5), clean(Some(0))),
        (10_000, blocked(5), blocked(5)),
        (14_999, blocked(0), blocked(0)),
        (15_000, clean(Some(3)), clean(Some(3))),
        (17_999, clean(Some(0)), clean(Some(0))),
        (18_000, blocked(60), blocked(2)),
        (20_000, blocked(60), clean(None)),
        (99_000, clean(None), clean(None)),
    ] {
        for (text, decided) in [("first.example", first), ("added.example", added)] {
            assert_eq!(decide_twice(&policy, &reply(&name(text), &[]), text, at(now)), decided, "{text}, {now} ms");
        }
    }
    assert!(policy.changed_since_made(at(10_000)) && !policy.changed_since_made(at(9_999)));
}

/// An order about these prefixes.
fn order_of_addresses(id: &str, prefixes: &[&str]) -> Order {
    let addresses = (1..).zip(prefixes).map(|(line, prefix)| (prefix.parse().unwrap(), line)).collect();
    Order { targets: vec![Target { addresses, ..Target::default() }], ..order(id, &[]) }
}

#[test]
fn addresses_beside_the_answer_count_where_it_leads_there_however_many_records_do() {
    let policy = policy(&[order_of_addresses("x", &["192.0.2.0/24"])], &[], &[]);
    let (qname, listed) = (name("a.example"), [192, 0, 2, 7].into());
    let decide = |services: usize, target: &str, owner: &str| {
        let numbered = |number| name(&format!("s{number}.example"));
        let mut answers: Vec<_> = (1..services).map(|number| https(&qname, Some(&numbered(number)), &[])).collect();
        answers.push(https(&qname, Some(&name(target)), &[]));
        let reply = reply_with(&qname, &answers, &[address(&name(owner), listed)]);
        is_blocked(&decide_twice(&policy, &reply, "a.example", at(0)))
    };
    assert!(decide(1, "s.example", "s.example") && decide(16, "s.example", "s.example"));
    assert!(!decide(1, "s.example", "ns.example") && !decide(16, "s.example", "ns.example"));
    assert!(decide(17, "s.example", "ns.example"), "with more than are told apart every address counts");
}

#[test]
fn an_address_record_of_another_class_or_length_is_none() {
    let policy = policy(&[order_of_addresses("x", &["192.0.2.0/24"])], &[], &[]);
    let qname = name("a.example");
    for rdata in [&[192, 0, 2][..], &[192, 0, 2, 7, 0], &[]] {
        let reply = reply(&qname, &[(qname.clone(), Qtype::A, rdata.to_vec())]);
        assert!(!is_blocked(&decide_twice(&policy, &reply, "a.example", at(0))), "{rdata:?}");
    }
}

#[test]
fn a_question_that_waited_is_admitted_by_what_holds_now() {
    let world = View { country: None };
    let dated = Order { effective: Some(at(10_000)), ..order("x", &["dated.example"]) };
    let lists = [list("listed.example", Covers::Subtree, Effect::NxDomain)];
    let before = policy(&[dated], &lists, &[exempt("listed.example", Some(at(20_000)), None)]);
    let ordered = policy(&[order("x", &["clear.example"])], &[], &[]);
    let after = ordered.next(at(0));
    for (qname, blocked_from) in [("dated.example", 10_000), ("listed.example", 20_000), ("clear.example", i64::MAX)] {
        let query = query(&name(qname));
        let permitted = before.admit(&query, world, at(0), |_| {}).unwrap();
        for moment in [0, 9_999, 10_000, 19_999, 20_000] {
            let again = before.admit_again(&permitted, world, at(moment)).is_ok();
            assert_eq!(again, moment < blocked_from, "{qname} at {moment}");
        }
        let again = after.admit_again(&permitted, world, at(0)).is_ok();
        assert_eq!(again, after.admit(&query, world, at(0), |_| {}).is_ok(), "{qname} by another policy");
    }
}

#[test]
fn findings_of_an_address_carry_the_exemptions_of_its_owner_and_no_more() {
    let orders = [order_of_addresses("x", &["192.0.2.0/24", "192.0.2.7/32"])];
    let policy = policy(&orders, &[], &[exempt("b.example", None, Some("x")), exempt("c.example", None, None)]);
    let qname = name("a.b.example");
    let one = reply(&qname, &[address(&qname, [192, 0, 2, 7].into())]);
    let Met::These(met) = policy.find(&Permitted::for_tests(query(&qname)), &one).met else { panic!("met") };
    assert_eq!(met.iter().map(|finding| finding.name).collect::<Vec<_>>(), [0, 0, 0], "two prefixes, one exemption");
    assert!(!is_blocked(&decide_twice(&policy, &one, "a.b.example", at(0))));
    let two =
        reply(&qname, &[address(&qname, [192, 0, 2, 7].into()), address(&name("d.example"), [192, 0, 2, 8].into())]);
    assert!(is_blocked(&decide_twice(&policy, &two, "a.b.example", at(0))), "another name's address");
}

/// An order about a label, a prefix, a name and a list.
fn order_of_all_kinds() -> (Order, Files) {
    let file = PathBuf::from("lists/a.txt");
    let (format, covers) = (list::Format::Domains, Covers::Subtree);
    let list = ListTarget { file: file.clone(), format, covers, sha256: None, line: 4 };
    let target = Target {
        labels: vec![("shop".into(), 2)],
        addresses: vec![("192.0.2.0/24".parse().unwrap(), 3)],
        list: Some(list),
        ..target([(name("a.example"), Covers::Exact)].into_iter())
    };
    let files = Files::from([(file, b"# names\nl.example\nm.example\n".to_vec())]);
    (Order { targets: vec![target], ..order("x", &[]) }, files)
}

#[test]
fn rules_of_every_kind_are_counted_and_inputs_told() {
    let (order, files) = order_of_all_kinds();
    let lists = [list("c.example", Covers::Subtree, Effect::Refused)];
    let policy = policy_with(&[order], &lists, &[exempt("d.example", None, None)], files);
    assert_eq!(policy.rules_by_kind(), [("order", 5), ("list", 1), ("exemption", 1)]);
    assert_eq!((policy.rules(), policy.order_lines(&register::Register::default(), at(0))[0].targets), (7, 5));
    let input = |kind, id: &str, octets: &[u8]| PolicyInput { kind, id: id.to_owned(), digest: Digest::of(octets) };
    assert_eq!(
        policy.inputs(),
        [
            input("order", "x", b"x"),
            input("list", "c.example", b"c.example"),
            input("list", "x: lists/a.txt", b"# names\nl.example\nm.example\n"),
        ]
    );
}

#[test]
fn an_explanation_names_the_line_of_a_label_an_address_or_a_list() {
    use super::explain::{Question, Verdict};
    let (order, files) = order_of_all_kinds();
    let policy = policy_with(&[order], &[], &[exempt("e.example", None, Some("x"))], files);
    let question = |text: &str| Question { name: name(text), qtype: Qtype::A, client: None, at: at(0) };
    for (text, file, line) in
        [("www.shop.co.uk", "orders/x.toml", 2), ("www.m.example", "lists/a.txt", 3), ("a.example", "orders/x.toml", 1)]
    {
        let by = policy.explain(&question(text)).by.unwrap();
        assert_eq!((by.kind, by.id.as_str(), by.file.as_str(), by.line), ("order", "x", file, line), "{text}");
    }
    let names = ["b.example", "www.b.example", "e.example"].map(name);
    let permitted = Permitted::for_tests(query(&names[0]));
    let listed = |owner: &Name| address(owner, [192, 0, 2, 7].into());
    let reply = reply(&names[0], &[&links(&names[..2])[..], &[listed(&names[2]), listed(&names[1])]].concat());
    let told = policy.explain_reply(&question("b.example"), &permitted, &reply);
    assert_eq!((told.verdict, told.through.as_deref()), (Verdict::Block, Some("www.b.example")));
    assert_eq!((told.by.unwrap().line, told.note.as_deref()), (3, Some("the reply has the address 192.0.2.7")));
    assert_eq!(told.exemption.as_deref(), Some("e.example"));
    assert_eq!(told.also[0].why, "exempt: e.example (a test) (met by the address 192.0.2.7 of the reply)");
}

// ---- The naive reference ----

/// Everything that decides, as design.md speaks of it.
#[derive(Debug, Clone)]
struct World {
    orders: Vec<Order>,
    /// What the files of list targets say.
    files: Files,
    lists: Vec<TestList>,
    exemptions: Vec<Exemption>,
    country: Option<Country>,
    now: Timestamp,
    /// QNAME, and where the reply leads from there.
    names: Vec<Name>,
    /// What else the reply has.
    records: Vec<Extra>,
}

/// A record of a reply beside its chain.
#[allow(clippy::large_enum_variant, reason = "a world has a handful of them")]
#[derive(Debug, Clone)]
enum Extra {
    Address(Name, IpAddr),
    Https(Name, Option<Name>, Vec<IpAddr>),
    Additional(Name, IpAddr),
}

/// A name that is met, or an address of it.
type Subject = (Name, Option<IpAddr>);

/// What a target meets: how many labels its own name has, and what it covers.
type Hit = (usize, Covers);

impl World {
    fn is_below(name: &Name, ancestor: &Name) -> bool {
        (0..=name.labels()).any(|labels| name.ancestor(labels) == *ancestor)
    }

    fn meets(name: &Name, target: &Name, covers: Covers) -> bool {
        if covers == Covers::Exact { name == target } else { Self::is_below(name, target) }
    }

    /// The public suffix of a name by ICANN's rules, in text.
    fn suffix(text: &str) -> &str {
        let suffix = psl::suffix(text.as_bytes()).unwrap();
        let start = text.len() - suffix.as_bytes().len();
        if suffix.typ() != Some(psl::Type::Private) {
            return &text[start..];
        }
        Self::suffix(text[start..].split_once('.').unwrap().1)
    }

    /// How a label meets a name: the name, or one above it, is the label directly under its public suffix; or it is a
    /// public suffix that begins with the label, by a wildcard or not.
    fn label_hits(name: &Name, label: &str) -> Vec<Hit> {
        let above = (1..=name.labels()).map(|labels| name.ancestor(labels));
        let hit = |above: Name| {
            let text = above.to_string();
            let text = text.trim_end_matches('.');
            let suffix = Self::suffix(text);
            let (first, rest) = text.split_once('.').unwrap_or((text, ""));
            let under = first == label && rest == suffix;
            let by_wildcard = first == label && rest == "ck" && text == suffix;
            let is_suffix = first == label && text == suffix && above == *name;
            if under || by_wildcard {
                Some((above.labels(), Covers::Subtree))
            } else {
                is_suffix.then_some((above.labels(), Covers::Exact))
            }
        };
        above.filter_map(hit).collect()
    }

    /// Whether an exemption keeps `name` from an order, or from the lists.
    fn is_exempt(&self, name: &Name, from: Option<&Order>, at: Timestamp) -> bool {
        self.exemptions.iter().any(|exemption| {
            Self::is_below(name, &exemption.name)
                && exemption.expires.is_none_or(|end| at < end)
                && from.is_none_or(|order| exemption.overrides_order.as_ref() == Some(&order.id))
        })
    }

    fn reaches(&self, order: &Order) -> bool {
        match (&order.jurisdiction, self.country) {
            (Jurisdiction::Everywhere, _) => true,
            (Jurisdiction::Countries(countries), Some(country)) => countries.contains(&country),
            (Jurisdiction::Countries(_), None) => order.blocks_unknown_origin,
        }
    }

    /// What of a target one name or address meets.
    fn target_hits(&self, target: &Target, (name, address): &Subject) -> Vec<Hit> {
        if let Some(address) = address {
            let address = match address {
                IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(*address, IpAddr::V4),
                IpAddr::V4(_) => *address,
            };
            let met = target.addresses.iter().filter(|(prefix, _)| prefix.contains(&address));
            return met.map(|_| (0, Covers::Subtree)).collect();
        }
        let mut all: Vec<(Name, Covers)> =
            target.names.iter().map(|(name, covers, _)| (name.clone(), *covers)).collect();
        if let Some(list) = &target.list {
            let text = str::from_utf8(&self.files[&list.file]).unwrap();
            all.extend(text.lines().map(|line| (self::name(line), list.covers)));
        }
        let of_names = all.iter().filter(|(target, covers)| Self::meets(name, target, *covers));
        let of_names = of_names.map(|(target, covers)| (target.labels(), *covers));
        of_names.chain(target.labels.iter().flat_map(|(label, _)| Self::label_hits(name, label))).collect()
    }

    /// The targets of an order, carried out or not, that these meet and no exemption takes away.
    fn hits<'o>(&self, order: &'o Order, subjects: &[Subject], at: Timestamp) -> Vec<(&'o Target, Vec<Hit>)> {
        let open: Vec<_> = subjects.iter().filter(|(name, _)| !self.is_exempt(name, Some(order), at)).collect();
        let hits = |target: &'o Target| {
            let hits: Vec<_> = open.iter().flat_map(|subject| self.target_hits(target, subject)).collect();
            (self.reaches(order) && !hits.is_empty()).then_some((target, hits))
        };
        order.targets.iter().filter_map(hits).collect()
    }

    fn is_in_force(order: &Order, target: &Target, at: Timestamp) -> bool {
        order.state == State::InForce
            && [order.effective, target.effective].into_iter().flatten().all(|effective| effective <= at)
            && [order.expires, target.expires].into_iter().flatten().all(|expires| at < expires)
            && (order.intervals.is_empty() || order.intervals.iter().any(|each| each.from <= at && at < each.until))
    }

    /// Every moment at which dates may change something.
    fn moments(&self) -> BTreeSet<Timestamp> {
        let of_order = |order: &Order| {
            let targets = order.targets.iter().flat_map(|target| [target.effective, target.expires]);
            let intervals = order.intervals.iter().flat_map(|each| [Some(each.from), Some(each.until)]);
            targets.chain(intervals).chain([order.effective, order.expires]).collect::<Vec<_>>()
        };
        let exemptions = self.exemptions.iter().map(|exemption| exemption.expires);
        self.orders.iter().flat_map(of_order).chain(exemptions).flatten().collect()
    }

    /// What is answered because of these, if they block.
    fn block(&self, subjects: &[Subject], is_qname: bool) -> Option<Decided> {
        let blocking = |order: &'_ Order| {
            let mut hits = self.hits(order, subjects, self.now);
            hits.retain(|(target, _)| Self::is_in_force(order, target, self.now));
            hits.into_iter().map(|(target, hits)| (target.clone(), hits)).collect::<Vec<_>>()
        };
        let all: Vec<_> = self.orders.iter().map(blocking).collect();
        let orders = (0..self.orders.len()).filter(|number| !all[*number].is_empty());
        let first = orders.min_by_key(|number| (self.orders[*number].received, &self.orders[*number].id));
        let Some(number) = first else { return self.block_by_list(subjects, is_qname) };
        let order = &self.orders[number];
        let hits = all[number].iter().flat_map(|(_, hits)| hits);
        let subtree = hits.filter(|(_, covers)| *covers == Covers::Subtree).map(|(labels, _)| *labels).min();
        let effect = match order.effect {
            Effect::NxDomain if subtree.is_none() => Effect::NoData,
            effect => effect,
        };
        let end = |order: &Order, target: &Target| {
            let mut later = self.moments().into_iter().filter(|moment| *moment > self.now);
            later.find(|moment| !Self::is_in_force(order, target, *moment))
        };
        let pairs = self.orders.iter().zip(&all);
        let pairs = pairs.flat_map(|(order, hits)| hits.iter().map(move |(target, _)| (order, target)));
        let ends = pairs.filter_map(|(order, target)| end(order, target)).min();
        let ttl = ends.map_or(60, |end| end.duration_since(self.now).as_secs().min(60) as u32);
        let soa_labels = subtree.filter(|_| is_qname).unwrap_or(self.names[0].labels());
        Some(Decided::Blocked { cause: Cause::Order(number), effect, soa_labels, ttl })
    }

    fn block_by_list(&self, subjects: &[Subject], is_qname: bool) -> Option<Decided> {
        self.lists.iter().enumerate().find_map(|(number, list)| {
            let covers = list.settings.covers;
            let open =
                || subjects.iter().filter(|(name, address)| address.is_none() && !self.is_exempt(name, None, self.now));
            let meets = |target: &Name| open().any(|(name, _)| Self::meets(name, target, covers));
            let longest = list.text.lines().map(name).filter(meets).map(|target| target.labels()).max()?;
            let effect = match list.settings.effect {
                Effect::NxDomain if covers == Covers::Exact => Effect::NoData,
                effect => effect,
            };
            let is_owner = is_qname && covers == Covers::Subtree;
            let soa_labels = if is_owner { longest } else { self.names[0].labels() };
            Some(Decided::Blocked { cause: Cause::List(number), effect, soa_labels, ttl: 60 })
        })
    }

    /// The first moment from now on at which an order blocks any of it.
    fn coming(&self, subjects: &[Subject]) -> Option<Timestamp> {
        let blocks = |order: &Order, at| {
            self.hits(order, subjects, at).iter().any(|(target, _)| Self::is_in_force(order, target, at))
        };
        let mut later = self.moments().into_iter().filter(|moment| *moment > self.now);
        later.find(|moment| self.orders.iter().any(|order| blocks(order, *moment)))
    }

    fn trials(&self, subjects: &[Subject]) -> BTreeSet<usize> {
        let hit = |number: &usize| {
            let order = &self.orders[*number];
            order.state == State::Trial && !self.hits(order, subjects, self.now).is_empty()
        };
        (0..self.orders.len()).filter(hit).collect()
    }

    /// QNAME, and everything that the reply leads to.
    fn subjects(&self) -> Vec<Subject> {
        let mut subjects: Vec<Subject> = self.names.iter().map(|name| (name.clone(), None)).collect();
        let mut services = vec![];
        for record in &self.records {
            match record {
                Extra::Address(owner, address) => {
                    subjects.extend([(owner.clone(), None), (owner.clone(), Some(*address))]);
                }
                Extra::Https(owner, target, hints) => {
                    let leads_to = target.as_ref().unwrap_or(owner);
                    subjects.extend([(owner.clone(), None), (leads_to.clone(), None)]);
                    subjects.extend(hints.iter().map(|hint| (leads_to.clone(), Some(*hint))));
                    services.push(leads_to.clone());
                }
                Extra::Additional(..) => {}
            }
        }
        for record in &self.records {
            if let Extra::Additional(owner, address) = record
                && services.contains(owner)
            {
                subjects.push((owner.clone(), Some(*address)));
            }
        }
        subjects
    }

    fn reply(&self) -> Reply<'static> {
        let (mut answers, mut additional) = (links(&self.names), vec![]);
        for record in &self.records {
            match record {
                Extra::Address(owner, found) => answers.push(address(owner, *found)),
                Extra::Https(owner, target, hints) => answers.push(https(owner, target.as_ref(), hints)),
                Extra::Additional(owner, found) => additional.push(address(owner, *found)),
            }
        }
        reply_with(&self.names[0], &answers, &additional)
    }

    fn decide(&self) -> (Decided, BTreeSet<usize>) {
        let subjects = self.subjects();
        if let Some(block) = self.block(&subjects[..1], true) {
            return (block, self.trials(&subjects[..1]));
        }
        let clean = || {
            let ttl_max = self.coming(&subjects).map(|moment| moment.duration_since(self.now).as_secs() as u32);
            Decided::Clean { ttl_max }
        };
        (self.block(&subjects, false).unwrap_or_else(clean), self.trials(&subjects))
    }
}

/// Few names, so that rules meet.
fn any_name() -> impl Strategy<Value = Name> {
    name_of(3)
}

fn name_of(labels_max: usize) -> impl Strategy<Value = Name> {
    // An unknown top-level domain, suffixes by a rule, by a wildcard and by a private rule.
    let suffixes = prop_oneof![8 => Just("x"), 1 => Just("co.uk"), 1 => Just("ck"), 1 => Just("github.io")];
    let labels = prop_oneof![10 => 1..=labels_max, 1 => Just(0)];
    (labels.prop_flat_map(|count| prop::collection::vec("[ab]", count)), suffixes).prop_map(|(mut labels, suffix)| {
        labels.push(suffix.to_owned());
        name(&labels.join("."))
    })
}

fn any_label() -> impl Strategy<Value = (Box<str>, u32)> {
    prop::sample::select(vec!["a", "b", "a", "b", "co", "x", "github"]).prop_map(|label| (label.into(), 7))
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let addresses = ["192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1", "2001:db8::1", "::ffff:192.0.2.1"];
    prop::sample::select(addresses.to_vec()).prop_map(|address| address.parse().unwrap())
}

fn any_prefix() -> impl Strategy<Value = (ipnet::IpNet, u32)> {
    let prefixes = ["192.0.2.0/24", "192.0.2.1/32", "198.51.100.0/25", "2001:db8::/32", "2001:db8::1/128"];
    prop::sample::select(prefixes.to_vec()).prop_map(|prefix| (prefix.parse().unwrap(), 8))
}

fn any_covers() -> impl Strategy<Value = Covers> {
    prop::sample::select(vec![Covers::Subtree, Covers::Exact])
}

fn any_effect() -> impl Strategy<Value = Effect> {
    let address = Effect::Address { a: Some([192, 0, 2, 1].into()), aaaa: None };
    prop::sample::select(vec![Effect::NxDomain, Effect::NxDomain, Effect::NoData, Effect::Refused, address])
}

/// A moment on the half second.
fn any_moment() -> impl Strategy<Value = Timestamp> {
    (0..200i64).prop_map(|halves| at(halves * 500))
}

fn any_country() -> impl Strategy<Value = Option<Country>> {
    prop::sample::select(vec![country("IT"), country("IT"), country("DE"), None])
}

fn any_jurisdiction() -> impl Strategy<Value = Jurisdiction> {
    let countries = |codes: &[&str]| Jurisdiction::Countries(codes.iter().filter_map(|code| country(code)).collect());
    prop::sample::select(vec![Jurisdiction::Everywhere, countries(&["IT"]), countries(&["DE", "IT"])])
}

/// From when, and until when after that.
fn any_life() -> impl Strategy<Value = (Option<Timestamp>, Option<Timestamp>)> {
    (prop::option::of(any_moment()), prop::option::of(1..100i64)).prop_map(|(effective, lasts)| {
        let end = |halves: i64| effective.unwrap_or(at(0)) + SignedDuration::from_millis(halves * 500);
        (effective, lasts.map(end))
    })
}

/// Apart and in their order.
fn any_intervals() -> impl Strategy<Value = Vec<Interval>> {
    let apart = prop::collection::btree_set(0..200i64, 1..7).prop_map(|halves| {
        let moments: Vec<_> = halves.into_iter().map(|halves| at(halves * 500)).collect();
        moments.chunks_exact(2).map(|pair| Interval { from: pair[0], until: pair[1] }).collect()
    });
    prop_oneof![3 => Just(vec![]), 1 => apart]
}

/// The names of a list target; its file is named when the world is put together.
fn any_listed() -> impl Strategy<Value = Option<(Vec<Name>, Covers)>> {
    prop_oneof![3 => Just(None), 1 => (prop::collection::vec(any_listed_name(), 1..3), any_covers()).prop_map(Some)]
}

fn any_target() -> impl Strategy<Value = (Target, Option<(Vec<Name>, Covers)>)> {
    let names = prop::collection::vec((any_name(), any_covers()), 0..3);
    let labels = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any_label(), 1..3)];
    let addresses = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any_prefix(), 1..3)];
    let life = prop_oneof![2 => Just((None, None)), 1 => any_life()];
    (names, labels, addresses, any_listed(), life).prop_map(|(names, labels, addresses, listed, life)| {
        let (effective, expires) = life;
        (Target { labels, addresses, effective, expires, ..target(names.into_iter()) }, listed)
    })
}

/// An order, and what the lists of its targets say.
fn any_order() -> impl Strategy<Value = (Order, Files)> {
    let states = vec![
        State::InForce,
        State::InForce,
        State::InForce,
        State::Trial,
        State::Draft,
        State::Suspended,
        State::Lifted,
    ];
    let targets = prop::collection::vec(any_target(), 1..3);
    let what = (prop::sample::select(states), any_effect(), any_jurisdiction(), any::<bool>());
    (0..3i64, any_life(), any_intervals(), targets, what).prop_map(|(received, life, intervals, targets, what)| {
        let (state, effect, jurisdiction, blocks_unknown_origin) = what;
        let (effective, expires) = life;
        let mut files = Files::new();
        let listed = targets.into_iter().enumerate().map(|(place, (target, listed))| {
            let list = listed.map(|(names, covers)| {
                let file = PathBuf::from(format!("{place}.txt"));
                files.insert(file.clone(), lines(&names).into_bytes());
                ListTarget { file, format: list::Format::Domains, covers, sha256: None, line: 9 }
            });
            Target { list, ..target }
        });
        let targets = listed.collect();
        let received = at(received);
        let dated = Order { received, effective, expires, intervals, state, effect, ..order("", &[]) };
        (Order { jurisdiction, blocks_unknown_origin, targets, ..dated }, files)
    })
}

fn lines(names: &[Name]) -> String {
    names.iter().map(|name| format!("{name}\n")).collect()
}

/// A top-level domain is a fault in a list.
fn any_listed_name() -> impl Strategy<Value = Name> {
    any_name().prop_filter("one label", |name| name.labels() > 1)
}

fn any_list() -> impl Strategy<Value = TestList> {
    (prop::collection::vec(any_listed_name(), 1..4), any_covers(), any_effect())
        .prop_map(|(names, covers, effect)| TestList { text: lines(&names), ..list("", covers, effect) })
}

fn any_exemption() -> impl Strategy<Value = Exemption> {
    // The first order has the first of these ids, the second the other.
    let overrides = prop::sample::select(vec![None, Some("o1"), Some("o1"), Some("o4")]);
    (name_of(2), prop::option::of(any_moment()), overrides)
        .prop_map(|(name, expires, overrides)| exempt(&name.to_string(), expires, overrides))
}

fn any_extra() -> impl Strategy<Value = Extra> {
    prop_oneof![
        (any_name(), any_address()).prop_map(|(owner, address)| Extra::Address(owner, address)),
        (any_name(), prop::option::of(any_name()), prop::collection::vec(any_address(), 0..3))
            .prop_map(|(owner, target, hints)| Extra::Https(owner, target, hints)),
        (any_name(), any_address()).prop_map(|(owner, address)| Extra::Additional(owner, address)),
    ]
}

fn any_world() -> impl Strategy<Value = World> {
    let rules = (
        prop::collection::vec(any_order(), 0..5),
        prop::collection::vec(any_list(), 0..3),
        prop::collection::vec(any_exemption(), 0..4),
    );
    let names = prop::collection::vec(any_name(), 1..5);
    let asked = (any_country(), any_moment(), 0..2i64, names, prop::collection::vec(any_extra(), 0..4));
    (rules, asked).prop_map(|((orders, mut lists, exemptions), (country, now, quarter, names, records))| {
        let mut all = Files::new();
        let mut named = vec![];
        for (number, (mut order, files)) in orders.into_iter().enumerate() {
            // Ids in another order than the files.
            order.id = format!("o{}", (number * 3 + 1) % 5);
            let folder = PathBuf::from(&order.id);
            all.extend(files.into_iter().map(|(file, text)| (folder.join(file), text)));
            for list in order.targets.iter_mut().filter_map(|target| target.list.as_mut()) {
                list.file = folder.join(&list.file);
            }
            named.push(order);
        }
        for (number, list) in lists.iter_mut().enumerate() {
            list.settings.name = format!("l{number}");
            list.settings.file = PathBuf::from(format!("l{number}.txt"));
        }
        let now = now + SignedDuration::from_millis(250 * quarter);
        World { orders: named, files: all, lists, exemptions, country, now, names, records }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_500))]

    #[test]
    fn it_decides_as_a_naive_reader_of_the_design(world in any_world()) {
        let policy = policy_with(&world.orders, &world.lists, &world.exemptions, world.files.clone());
        let view = View { country: world.country };
        let reply = world.reply();
        let (wanted, trials) = world.decide();
        for kept in [true, false] {
            let (decided, told) = decide(&policy, &reply, &world.names[0], view, world.now, kept);
            prop_assert_eq!(&decided, &wanted, "kept findings: {}", kept);
            prop_assert_eq!(told.len(), trials.len(), "each once");
            prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), trials.clone());
        }
    }
}
