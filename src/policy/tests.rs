//! The rule of decision against a naive reading of design.md, and the corners that have names.

use std::collections::BTreeSet;
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::load::{Files, ListSettings, Settings, load_in_hand};
use super::order::{Jurisdiction, Order, State, Target};
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
    let mut octets = vec![0, 0, 0x81, 0x80, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0];
    octets.extend(&*query(qname).echo.question);
    for (owner, rtype, rdata) in answers {
        octets.extend(owner.as_wire());
        octets.extend(rtype.0.to_be_bytes());
        octets.extend([0, 1, 0, 0, 1, 0x2c]);
        octets.extend((rdata.len() as u16).to_be_bytes());
        octets.extend(rdata);
    }
    Reply::read(&octets, qname, Qtype::A, Qclass::IN).unwrap()
}

fn leads(owner: &str, rtype: Qtype, to: &str) -> Rr {
    (name(owner), rtype, name(to).as_wire().to_vec())
}

/// A CNAME from each name to the next.
pub(super) fn chain(names: &[Name]) -> Reply<'static> {
    let links: Vec<_> =
        names.windows(2).map(|pair| (pair[0].clone(), Qtype::CNAME, pair[1].as_wire().to_vec())).collect();
    reply(&names[0], &links)
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
    let decided = match policy.admit(query(qname), view, now, |order| trials.push(order)) {
        Err(block) => Decided::blocked(&block),
        Ok(permitted) => {
            let findings = if kept { policy.find(&permitted, reply) } else { Findings::default() };
            match policy.screen(permitted, reply.borrowed(), &findings, view, now, |order| trials.push(order)) {
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
    let screen = |policy: &Policy, view| {
        policy.screen(permitted.clone(), reply.borrowed(), &findings, view, at(0), |_| {}).is_ok()
    };
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
        let block = policy.admit(query(&name(qname)), NOBODY, at(0), |_| {}).unwrap_err();
        let (errors, count) = block.errors();
        errors[..count].iter().map(|(code, text)| (code.0, (*text).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(errors("a.example"), [(16, "order x, Test Court".to_owned()), (17, String::new())]);
    assert_eq!(errors("b.example"), [(16, "order y, Test Court".to_owned())]);
    assert_eq!(errors("c.example"), [(15, "list c.example".to_owned()), (17, String::new())]);
}

// ---- The naive reference ----

/// Everything that decides, as design.md speaks of it.
#[derive(Debug, Clone)]
struct World {
    orders: Vec<Order>,
    lists: Vec<TestList>,
    exemptions: Vec<Exemption>,
    country: Option<Country>,
    now: Timestamp,
    /// QNAME, and where the reply leads from there.
    names: Vec<Name>,
}

impl World {
    fn is_below(name: &Name, ancestor: &Name) -> bool {
        (0..=name.labels()).any(|labels| name.ancestor(labels) == *ancestor)
    }

    fn meets(name: &Name, target: &Name, covers: Covers) -> bool {
        if covers == Covers::Exact { name == target } else { Self::is_below(name, target) }
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

    /// The names and kinds of the targets of an order, carried out or not, that these names meet and no exemption
    /// takes away.
    fn hits(&self, order: &Order, names: &[Name], at: Timestamp) -> Vec<(usize, Covers)> {
        let mut hits = vec![];
        for name in names.iter().filter(|name| self.reaches(order) && !self.is_exempt(name, Some(order), at)) {
            let targets = order.targets.iter().flat_map(|target| &target.names);
            let met = targets.filter(|(target, covers, _)| Self::meets(name, target, *covers));
            hits.extend(met.map(|(target, covers, _)| (target.labels(), *covers)));
        }
        hits
    }

    fn is_in_force(order: &Order, at: Timestamp) -> bool {
        order.state == State::InForce
            && order.effective.is_none_or(|effective| effective <= at)
            && order.expires.is_none_or(|expires| at < expires)
    }

    /// What is answered because of these names, if they block.
    fn block(&self, names: &[Name], is_qname: bool) -> Option<Decided> {
        let qname_labels = self.names[0].labels();
        let orders = (0..self.orders.len()).filter(|number| {
            let order = &self.orders[*number];
            Self::is_in_force(order, self.now) && !self.hits(order, names, self.now).is_empty()
        });
        let orders: Vec<_> = orders.collect();
        let first = orders.iter().min_by_key(|number| (self.orders[**number].received, &self.orders[**number].id));
        if let Some(&number) = first {
            let order = &self.orders[number];
            let hits = self.hits(order, names, self.now);
            let subtree = hits.iter().filter(|(_, covers)| *covers == Covers::Subtree).map(|(labels, _)| *labels).min();
            let effect = match order.effect {
                Effect::NxDomain if subtree.is_none() => Effect::NoData,
                effect => effect,
            };
            let ends = orders.iter().filter_map(|number| self.orders[*number].expires).min();
            let ttl = ends.map_or(60, |end| end.duration_since(self.now).as_secs().min(60) as u32);
            let soa_labels = subtree.filter(|_| is_qname).unwrap_or(qname_labels);
            return Some(Decided::Blocked { cause: Cause::Order(number), effect, soa_labels, ttl });
        }
        self.lists.iter().enumerate().find_map(|(number, list)| {
            let covers = list.settings.covers;
            let text = &list.text;
            let open = || names.iter().filter(|name| !self.is_exempt(name, None, self.now));
            let met: Vec<_> =
                text.lines().map(name).filter(|target| open().any(|name| Self::meets(name, target, covers))).collect();
            let longest = met.iter().map(Name::labels).max()?;
            let effect = match list.settings.effect {
                Effect::NxDomain if covers == Covers::Exact => Effect::NoData,
                effect => effect,
            };
            let soa_labels = if is_qname && covers == Covers::Subtree { longest } else { qname_labels };
            Some(Decided::Blocked { cause: Cause::List(number), effect, soa_labels, ttl: 60 })
        })
    }

    /// The first moment from now on at which an order blocks any of the names.
    fn coming(&self) -> Option<Timestamp> {
        let begins = self.orders.iter().filter_map(|order| order.effective);
        let ends = self.exemptions.iter().filter_map(|exemption| exemption.expires);
        let moments: BTreeSet<_> = begins.chain(ends).filter(|moment| *moment > self.now).collect();
        let blocks = |order: &Order, at| Self::is_in_force(order, at) && !self.hits(order, &self.names, at).is_empty();
        moments.into_iter().find(|moment| self.orders.iter().any(|order| blocks(order, *moment)))
    }

    fn trials(&self, names: &[Name]) -> BTreeSet<usize> {
        let hit = |number: &usize| {
            let order = &self.orders[*number];
            order.state == State::Trial && !self.hits(order, names, self.now).is_empty()
        };
        (0..self.orders.len()).filter(hit).collect()
    }

    fn decide(&self) -> (Decided, BTreeSet<usize>) {
        if let Some(block) = self.block(&self.names[..1], true) {
            return (block, self.trials(&self.names[..1]));
        }
        let clean = || {
            let ttl_max = self.coming().map(|moment| moment.duration_since(self.now).as_secs() as u32);
            Decided::Clean { ttl_max }
        };
        (self.block(&self.names, false).unwrap_or_else(clean), self.trials(&self.names))
    }
}

/// Few names, so that rules meet.
fn any_name() -> impl Strategy<Value = Name> {
    name_of(3)
}

fn name_of(labels_max: usize) -> impl Strategy<Value = Name> {
    prop::collection::vec("[ab]", 1..=labels_max).prop_map(|labels| name(&format!("{}.x", labels.join("."))))
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

fn any_order() -> impl Strategy<Value = Order> {
    let states = vec![
        State::InForce,
        State::InForce,
        State::InForce,
        State::Trial,
        State::Draft,
        State::Suspended,
        State::Lifted,
    ];
    let life = (prop::option::of(any_moment()), prop::option::of(1..100i64));
    let targets = prop::collection::vec(prop::collection::vec((any_name(), any_covers()), 1..3), 1..3);
    let what = (prop::sample::select(states), any_effect(), any_jurisdiction(), any::<bool>());
    (0..3i64, life, targets, what).prop_map(|(received, (effective, lasts), targets, what)| {
        let (state, effect, jurisdiction, blocks_unknown_origin) = what;
        let expires = lasts.map(|halves| effective.unwrap_or(at(0)) + SignedDuration::from_millis(halves * 500));
        let targets = targets.into_iter().map(|names| target(names.into_iter())).collect();
        let received = at(received);
        Order {
            received,
            effective,
            expires,
            state,
            effect,
            jurisdiction,
            blocks_unknown_origin,
            targets,
            ..order("", &[])
        }
    })
}

fn any_list() -> impl Strategy<Value = TestList> {
    (prop::collection::vec(any_name(), 1..4), any_covers(), any_effect()).prop_map(|(names, covers, effect)| {
        list(&names.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"), covers, effect)
    })
}

fn any_exemption() -> impl Strategy<Value = Exemption> {
    // The first order has the first of these ids, the second the other.
    let overrides = prop::sample::select(vec![None, Some("o1"), Some("o1"), Some("o4")]);
    (name_of(2), prop::option::of(any_moment()), overrides)
        .prop_map(|(name, expires, overrides)| exempt(&name.to_string(), expires, overrides))
}

fn any_world() -> impl Strategy<Value = World> {
    let rules = (
        prop::collection::vec(any_order(), 0..5),
        prop::collection::vec(any_list(), 0..3),
        prop::collection::vec(any_exemption(), 0..4),
    );
    let asked = (any_country(), any_moment(), 0..2i64, prop::collection::vec(any_name(), 1..5));
    (rules, asked).prop_map(|((mut orders, lists, exemptions), (country, now, quarter, names))| {
        for (number, order) in orders.iter_mut().enumerate() {
            // Ids in another order than the files.
            order.id = format!("o{}", (number * 3 + 1) % 5);
        }
        let now = now + SignedDuration::from_millis(250 * quarter);
        World { orders, lists, exemptions, country, now, names }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn it_decides_as_a_naive_reader_of_the_design(world in any_world()) {
        let policy = policy(&world.orders, &world.lists, &world.exemptions);
        let view = View { country: world.country };
        let reply = chain(&world.names);
        let (wanted, trials) = world.decide();
        for kept in [true, false] {
            let (decided, told) = decide(&policy, &reply, &world.names[0], view, world.now, kept);
            prop_assert_eq!(&decided, &wanted, "kept findings: {}", kept);
            prop_assert_eq!(told.len(), trials.len(), "each once");
            prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), trials.clone());
        }
    }
}
