//! What is kept, for how long, and what is said of it; and what that takes.

use std::collections::HashMap;

use allocation_counter::measure;
use proptest::prelude::*;

use super::fixture::{Ask, Rr, a, ask, cname, opt, soa};
use super::*;
use crate::dns::message::flag;
use crate::dns::{Qclass, Qtype, Rcode};
use crate::policy::Finding;
use crate::policy::index::RuleId;

const MEMORY: u64 = 64 << 20;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn cache() -> Cache {
    cache_with(MEMORY, s(100))
}

fn cache_with(memory: u64, stale: Duration) -> Cache {
    Cache::new(&Settings { memory, ttl_min: s(0), ttl_max: s(86_400), stale })
}

fn keep(cache: &Cache, ask: &Ask, answer: &[Rr], now: Duration) {
    let mut reply = ask.reply(Rcode::NOERROR, answer, &[]);
    cache.keep(&ask.permitted(), &mut reply, &Findings::default(), now);
}

fn fail(cache: &Cache, ask: &Ask, failure: Failure, now: Duration) {
    cache.keep_failure(&ask.permitted(), failure, now);
}

const SERVFAIL: Failure = Failure::Upstream(Rcode::SERVFAIL);

/// What is found, in a form to compare.
#[derive(Debug, PartialEq)]
enum Seen {
    Fresh { age: u32, refresh: bool },
    Expired { at_once: bool },
    Failed(Failure),
    Nothing,
}

fn see(cache: &Cache, ask: &Ask, now: Duration) -> Seen {
    match cache.get(&ask.permitted(), now, &mut vec![]) {
        Found::Fresh { reply, refresh, .. } => match reply.freshness() {
            Freshness::Aged(age) => Seen::Fresh { age, refresh },
            Freshness::Stale => panic!("fresh and stale"),
        },
        Found::Expired { at_once } => Seen::Expired { at_once },
        Found::Failed(failure) => Seen::Failed(failure),
        Found::Nothing => Seen::Nothing,
    }
}

fn is_fresh(cache: &Cache, ask: &Ask, now: Duration) -> bool {
    matches!(see(cache, ask, now), Seen::Fresh { .. })
}

fn is_stale(cache: &Cache, ask: &Ask, now: Duration) -> bool {
    match cache.stale(&ask.permitted(), now, &mut vec![]) {
        Some((reply, _)) => reply.freshness() == Freshness::Stale,
        None => false,
    }
}

#[test]
fn a_reply_ages_by_whole_seconds_and_ends_with_its_ttl() {
    let (cache, ask) = (cache(), ask("a.example"));
    keep(&cache, &ask, &[a(60), a(9)], ms(500));
    for (now, age) in [(ms(0), 0), (ms(500), 0), (ms(1_499), 0), (ms(1_500), 1), (ms(9_499), 8)] {
        assert_eq!(see(&cache, &ask, now), Seen::Fresh { age, refresh: false });
    }
    assert_eq!(see(&cache, &ask, ms(9_500)), Seen::Expired { at_once: false });
}

#[test]
fn the_octets_come_back_settled() {
    let cache = Cache::new(&Settings { memory: MEMORY, ttl_min: s(10), ttl_max: s(50), stale: s(0) });
    let ask = ask("a.example");
    let mut reply = ask.reply(Rcode::NOERROR, &[a(1), a(0x8000_0000), a(40), a(70)], &[]);
    cache.keep(&ask.permitted(), &mut reply, &Findings::default(), s(0));
    let ttls = |reply: &Reply<'_>| reply.records().map(|record| record.ttl()).collect::<Vec<_>>();
    assert_eq!(ttls(&reply), [10, 10, 40, 50], "the first asker sees them too");
    let mut scratch = vec![7; 3];
    match cache.get(&ask.permitted(), s(9), &mut scratch) {
        Found::Fresh { reply: found, .. } => {
            assert_eq!(found.octets()[2..], reply.octets()[2..]);
            assert_eq!(found.header().flags, flag::QR | flag::RA);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(see(&cache, &ask, s(10)), Seen::Nothing);
}

#[test]
fn negatives_are_kept_as_long_as_their_soa() {
    for (rcode, answer) in [(Rcode::NXDOMAIN, vec![]), (Rcode::NOERROR, vec![]), (Rcode::NOERROR, vec![cname(600)])] {
        let (cache, ask) = (cache(), ask("a.example"));
        let mut reply = ask.reply(rcode, &answer, &[soa(900, 60)]);
        cache.keep(&ask.permitted(), &mut reply, &Findings::default(), s(0));
        assert!(is_fresh(&cache, &ask, ms(59_999)));
        assert_eq!(see(&cache, &ask, s(60)), Seen::Expired { at_once: false });
        assert!(is_stale(&cache, &ask, s(60)));
    }
}

#[test]
fn what_may_not_be_kept_is_not() {
    let (cache, ask) = (cache(), ask("a.example"));
    let replies = [
        ask.reply(Rcode::NOERROR, &[a(0)], &[]),
        ask.reply(Rcode::NOERROR, &[], &[]),
        ask.reply(Rcode::NOERROR, &[cname(60)], &[]),
        ask.reply(Rcode::NXDOMAIN, &[], &[]),
        ask.reply(Rcode::SERVFAIL, &[a(60)], &[]),
        ask.reply(Rcode::REFUSED, &[a(60)], &[]),
        ask.response(flag::QR | flag::TC, &[a(60)], &[]),
    ];
    for mut reply in replies {
        cache.keep(&ask.permitted(), &mut reply, &Findings::default(), s(0));
        assert_eq!(see(&cache, &ask, s(0)), Seen::Nothing);
    }
}

#[test]
fn a_good_reply_that_may_not_be_kept_takes_the_place_of_one_that_was() {
    let (cache, ask) = (cache(), ask("a.example"));
    keep(&cache, &ask, &[a(60)], s(0));
    let mut error = ask.reply(Rcode::REFUSED, &[], &[]);
    cache.keep(&ask.permitted(), &mut error, &Findings::default(), s(1));
    assert!(is_fresh(&cache, &ask, s(1)), "an error does not");
    keep(&cache, &ask, &[a(0)], s(2));
    assert_eq!(see(&cache, &ask, s(2)), Seen::Nothing);
}

#[test]
fn questions_that_differ_are_kept_apart() {
    let mut asks = vec![
        ask("a.example"),
        Ask { qtype: Qtype::AAAA, ..ask("a.example") },
        Ask { qclass: Qclass::CH, ..ask("a.example") },
        Ask { flags: flag::CD, ..ask("a.example") },
        Ask { opt: opt(true, b""), ..ask("a.example") },
        Ask { opt: opt(true, b""), flags: flag::CD, ..ask("a.example") },
    ];
    asks.extend([r"b.c", r"b\.c", r"b\000.c", r"b\000\.c", r"b\255.c", r"b\255", "b", "."].map(ask));
    let cache = cache();
    for (count, ask) in asks.iter().enumerate() {
        assert_eq!(see(&cache, ask, s(0)), Seen::Nothing, "{count}");
        let mut reply = ask.reply(Rcode::NXDOMAIN, &[], &[soa(60, 60)]);
        cache.keep(&ask.permitted(), &mut reply, &Findings::default(), s(0));
    }
    assert_eq!(cache.entries(), asks.len());
    let upper = Ask { qname: b"\x01A\x07eXAMPLE\0".to_vec(), id: 7, flags: flag::RD | flag::AD, ..ask(".") };
    assert!(is_fresh(&cache, &upper, s(0)), "case, ID, RD and AD are not told apart");
}

#[test]
fn timeouts_are_believed_for_a_second() {
    for failure in [Failure::Timeout, Failure::Network] {
        let (cache, ask) = (cache(), ask("a.example"));
        for start in [10, 20, 30] {
            fail(&cache, &ask, failure, s(start));
            assert_eq!(see(&cache, &ask, s(start) + ms(999)), Seen::Failed(failure));
            assert_eq!(see(&cache, &ask, s(start + 1)), Seen::Nothing);
        }
    }
}

#[test]
fn error_rcodes_are_believed_for_longer_each_time_until_a_reply_comes() {
    let (cache, ask) = (cache_with(MEMORY, s(0)), ask("a.example"));
    let mut now = s(100);
    for believed in [5, 10, 20, 30, 30] {
        fail(&cache, &ask, SERVFAIL, now);
        assert_eq!(see(&cache, &ask, now + s(believed) - ms(1)), Seen::Failed(SERVFAIL), "{believed}");
        now += s(believed);
        assert_eq!(see(&cache, &ask, now), Seen::Nothing, "{believed}");
    }
    keep(&cache, &ask, &[a(1)], now);
    now += s(1);
    assert_eq!(see(&cache, &ask, now), Seen::Nothing, "the reply has ended");
    let refused = Failure::Upstream(Rcode::REFUSED);
    fail(&cache, &ask, refused, now);
    assert_eq!(see(&cache, &ask, now + s(5) - ms(1)), Seen::Failed(refused));
    assert_eq!(see(&cache, &ask, now + s(5)), Seen::Nothing);
}

#[test]
fn a_reply_that_is_not_kept_clears_a_failure_too() {
    let (cache, ask) = (cache(), ask("a.example"));
    fail(&cache, &ask, SERVFAIL, s(0));
    keep(&cache, &ask, &[a(0)], s(1));
    assert_eq!(see(&cache, &ask, s(1)), Seen::Nothing);
}

#[test]
fn our_own_failures_are_not_kept() {
    let (cache, ask) = (cache(), ask("a.example"));
    keep(&cache, &ask, &[a(10)], s(0));
    for failure in [Failure::Overloaded, Failure::NoUpstream, Failure::Internal] {
        fail(&cache, &ask, failure, s(11));
        assert_eq!(see(&cache, &ask, s(11)), Seen::Expired { at_once: false });
        let other = fixture::ask("b.example");
        fail(&cache, &other, failure, s(11));
        assert_eq!(see(&cache, &other, s(11)), Seen::Nothing);
    }
    assert_eq!(cache.entries(), 1);
}

#[test]
fn a_reply_past_its_end_is_there_as_long_as_stale_says() {
    let (cache, ask) = (cache_with(MEMORY, s(100)), ask("a.example"));
    keep(&cache, &ask, &[a(10)], s(0));
    assert!(!is_stale(&cache, &ask, ms(9_999)), "fresh");
    assert!(is_stale(&cache, &ask, s(10)));
    assert!(is_stale(&cache, &ask, ms(109_999)));
    assert!(!is_stale(&cache, &ask, s(110)));
    assert_eq!(see(&cache, &ask, s(110)), Seen::Nothing);
}

#[test]
fn without_stale_a_reply_is_gone_at_its_end() {
    let (cache, ask) = (cache_with(MEMORY, s(0)), ask("a.example"));
    keep(&cache, &ask, &[a(10)], s(0));
    assert!(!is_stale(&cache, &ask, s(10)));
    assert_eq!(see(&cache, &ask, s(10)), Seen::Nothing);
    fail(&cache, &ask, SERVFAIL, s(11));
    assert_eq!(see(&cache, &ask, s(11)), Seen::Failed(SERVFAIL));
}

#[test]
fn a_failed_refresh_makes_a_stale_reply_served_at_once_for_five_seconds() {
    for failure in [Failure::Timeout, Failure::Network, SERVFAIL] {
        let (cache, ask) = (cache(), ask("a.example"));
        keep(&cache, &ask, &[a(10)], s(0));
        fail(&cache, &ask, failure, s(20));
        assert_eq!(see(&cache, &ask, ms(24_999)), Seen::Expired { at_once: true }, "before the failure itself");
        assert_eq!(see(&cache, &ask, s(25)), Seen::Expired { at_once: false });
        assert!(is_stale(&cache, &ask, s(25)));
    }
}

#[test]
fn a_failure_noted_while_fresh_counts_past_the_end() {
    let (cache, ask) = (cache(), ask("a.example"));
    keep(&cache, &ask, &[a(10)], s(0));
    fail(&cache, &ask, SERVFAIL, s(9));
    assert_eq!(see(&cache, &ask, s(9)), Seen::Fresh { age: 9, refresh: false });
    assert_eq!(see(&cache, &ask, s(10)), Seen::Expired { at_once: true });
}

#[test]
fn past_stale_only_the_failure_is_left() {
    let (cache, ask) = (cache(), ask("a.example"));
    let empty = cache.octets();
    keep(&cache, &ask, &vec![a(10); 100], s(0));
    let with_reply = cache.octets() - empty;
    fail(&cache, &ask, SERVFAIL, s(108));
    assert_eq!(see(&cache, &ask, s(109)), Seen::Expired { at_once: true });
    assert_eq!(see(&cache, &ask, s(110)), Seen::Failed(SERVFAIL));
    fail(&cache, &ask, SERVFAIL, s(113));
    assert!(cache.octets() - empty < with_reply / 4, "the reply's octets are free again");
    assert_eq!(see(&cache, &ask, s(122)), Seen::Failed(SERVFAIL), "twice as long");
    assert_eq!(see(&cache, &ask, s(123)), Seen::Nothing);
}

#[test]
fn the_return_of_an_upstream_voids_timeouts() {
    let (cache, asked, other) = (cache(), ask("a.example"), ask("b.example"));
    for failure in [Failure::Timeout, Failure::Network] {
        keep(&cache, &asked, &[a(1)], s(0));
        fail(&cache, &asked, failure, s(2));
        fail(&cache, &other, failure, s(2));
        cache.void_timeouts(s(1));
        assert_eq!(see(&cache, &asked, s(2)), Seen::Expired { at_once: true }, "noted later");
        assert_eq!(see(&cache, &other, s(2)), Seen::Failed(failure));
        cache.voided_ms.store(0, Ordering::Relaxed);
    }
    cache.void_timeouts(s(2));
    cache.void_timeouts(s(1));
    assert_eq!(see(&cache, &asked, s(2)), Seen::Expired { at_once: false });
    assert_eq!(see(&cache, &other, s(2)), Seen::Nothing);
    fail(&cache, &other, SERVFAIL, s(2));
    cache.void_timeouts(s(3));
    assert_eq!(see(&cache, &other, s(3)), Seen::Failed(SERVFAIL), "an error RCODE is not one");
}

#[test]
fn one_hit_near_the_end_refreshes() {
    let (cache, ask) = (cache(), ask("a.example"));
    keep(&cache, &ask, &[a(100)], s(0));
    let refresh = |now| match see(&cache, &ask, now) {
        Seen::Fresh { refresh, .. } => refresh,
        other => panic!("{other:?}"),
    };
    assert!(!refresh(s(0)) && !refresh(ms(89_999)));
    assert!(refresh(s(90)), "a tenth is left");
    assert!(!refresh(s(90)) && !refresh(ms(94_999)), "it is under way");
    assert!(refresh(s(95)), "nothing came of it");
    fail(&cache, &ask, Failure::Timeout, s(92));
    assert!(!refresh(ms(99_999)), "one in five seconds");
    keep(&cache, &ask, &[a(100)], s(95));
    assert!(!refresh(s(190)) && refresh(s(190)), "the next reply begins anew");
}

#[test]
fn a_failed_refresh_keeps_the_next_one_back() {
    let (cache, ask) = (cache(), ask("a.example"));
    keep(&cache, &ask, &[a(1_000)], s(0));
    see(&cache, &ask, s(0));
    assert_eq!(see(&cache, &ask, s(900)), Seen::Fresh { age: 900, refresh: true });
    fail(&cache, &ask, Failure::Timeout, s(904));
    assert_eq!(see(&cache, &ask, ms(908_999)), Seen::Fresh { age: 908, refresh: false });
    assert_eq!(see(&cache, &ask, s(909)), Seen::Fresh { age: 909, refresh: true });
}

#[test]
fn first_hits_and_short_ttls_do_not_refresh() {
    let (cache, asked) = (cache(), ask("a.example"));
    keep(&cache, &asked, &[a(10)], s(0));
    assert_eq!(see(&cache, &asked, s(9)), Seen::Fresh { age: 9, refresh: false }, "the first hit");
    assert_eq!(see(&cache, &asked, s(9)), Seen::Fresh { age: 9, refresh: true }, "the second");
    let short = ask("b.example");
    keep(&cache, &short, &[a(9)], s(0));
    for _ in 0..3 {
        assert_eq!(see(&cache, &short, ms(8_999)), Seen::Fresh { age: 8, refresh: false });
    }
}

fn findings(index: u32, rules: u32) -> Findings {
    let met: Vec<_> = (0..rules).map(|rule| Finding { rule: RuleId(rule), name: 0 }).collect();
    Findings { index, met: if met.is_empty() { Met::Nothing } else { Met::These(met.into()) } }
}

fn found(cache: &Cache, ask: &Ask, now: Duration) -> Findings {
    match cache.get(&ask.permitted(), now, &mut vec![]) {
        Found::Fresh { findings, .. } => findings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn findings_stay_with_their_reply() {
    let (cache, ask) = (cache(), ask("a.example"));
    let permitted = ask.permitted();
    let (mut first, mut second) = (ask.reply(Rcode::NOERROR, &[a(60)], &[]), ask.reply(Rcode::NOERROR, &[a(61)], &[]));
    for kept in [findings(1, 0), findings(1, 8), Findings { index: 2, met: Met::Many }] {
        cache.keep(&permitted, &mut first, &kept, s(0));
        assert_eq!(found(&cache, &ask, s(1)), kept);
    }
    for newer in [findings(3, 2), findings(4, 0), findings(5, 1)] {
        cache.refind(&permitted, &first, &newer);
        assert_eq!(found(&cache, &ask, s(2)), newer);
    }
    assert_eq!(cache.stale(&permitted, s(60), &mut vec![]).unwrap().1, findings(5, 1));
    cache.keep(&permitted, &mut second, &findings(6, 3), s(60));
    cache.refind(&permitted, &first, &findings(6, 0));
    assert_eq!(found(&cache, &ask, s(61)), findings(6, 3), "those of another reply do not take their place");
    cache.refind(&fixture::ask("b.example").permitted(), &first, &findings(6, 0));
}

#[test]
fn without_memory_nothing_is_kept() {
    let (cache, ask) = (cache_with(0, s(100)), ask("a.example"));
    keep(&cache, &ask, &[a(60)], s(0));
    assert_eq!(see(&cache, &ask, s(0)), Seen::Nothing);
    fail(&cache, &ask, SERVFAIL, s(0));
    assert_eq!(see(&cache, &ask, s(0)), Seen::Nothing);
    assert_eq!((cache.entries(), cache.octets()), (0, 0));
}

#[test]
fn what_is_newly_known_is_said_at_once() {
    let (cache, ask) = (cache(), ask("a.example"));
    let permitted = ask.permitted();
    let answer = |addresses, findings: Findings| {
        let mut reply = ask.reply(Rcode::NOERROR, &vec![a(60); addresses], &[]);
        cache.keep(&permitted, &mut reply, &findings, s(0));
    };
    let found = || {
        let mut scratch = vec![];
        let Found::Fresh { reply, findings, .. } = cache.get(&permitted, s(1), &mut scratch) else { panic!() };
        (reply.records().count(), findings.index)
    };
    answer(1, Findings { index: 1, met: Met::Nothing });
    assert_eq!([found(), found()], [(1, 1), (1, 1)]);
    answer(2, Findings { index: 2, met: Met::Nothing });
    assert_eq!([found(), found()], [(2, 2), (2, 2)]);
    let kept = ask.reply(Rcode::NOERROR, &[a(60), a(60)], &[]);
    cache.refind(&permitted, &kept, &Findings { index: 3, met: Met::Nothing });
    assert_eq!([found(), found()], [(2, 3), (2, 3)]);
}

/// A worker may have read the clock before another did.
#[test]
fn a_failure_is_known_to_who_asks_with_an_earlier_time() {
    let (cache, ask) = (cache(), ask("a.example"));
    keep(&cache, &ask, &[a(10)], s(0));
    assert!(is_fresh(&cache, &ask, s(1)));
    fail(&cache, &ask, SERVFAIL, s(200));
    assert_eq!(see(&cache, &ask, s(1)), Seen::Failed(SERVFAIL));
}

#[test]
fn what_is_asked_for_every_half_second_stays() {
    const MEMORY: u64 = 1 << 20;
    let (cache, asked) = (cache_with(MEMORY, s(100)), ask("a.example"));
    keep(&cache, &asked, &[a(3_000)], s(0));
    // Four times as many as there is room for; within two seconds not half of it.
    for number in 0..20_000u64 {
        let now = ms(number);
        keep(&cache, &ask(&format!("n{number}.example")), &[a(3_000)], now);
        assert!(number % 500 != 0 || is_fresh(&cache, &asked, now), "{number}");
    }
    let key = cache.key(&asked.permitted());
    assert!(cache.shard(&key).get(key.octets()).is_some(), "not its copy alone");
}

#[test]
fn from_42_mib_on_every_message_fits() {
    let ask = Ask { qtype: Qtype(16), ..ask("a.example") };
    for (memory, octets, fits) in [(42, 65_535, true), (41, 65_535, false), (41, 65_000, true)] {
        let cache = cache_with(memory << 20, s(100));
        let rest = Rr(Qtype(16), 60, vec![0; octets - 12 - "a.example".len() - 6 - 12]);
        assert_eq!(ask.reply(Rcode::NOERROR, std::slice::from_ref(&rest), &[]).octets().len(), octets);
        keep(&cache, &ask, &[rest], s(0));
        assert_eq!(cache.entries() == 1, fits, "{octets} octets in {memory} MiB");
    }
}

#[test]
fn memory_bounds_replies_and_failures_together() {
    const MEMORY: u64 = 1 << 20;
    let cache = cache_with(MEMORY, s(100));
    for number in 0..20_000 {
        let ask = ask(&format!("n{number}.example"));
        if number % 3 == 0 {
            fail(&cache, &ask, SERVFAIL, s(0));
        } else {
            keep(&cache, &ask, &vec![a(60); number % 90], s(0));
        }
        assert!(cache.octets() as u64 <= MEMORY);
    }
    assert!(cache.octets() as u64 > MEMORY * 9 / 10);
    assert!(cache.shards.iter().all(|lane| lane.lock().len() > 0), "the hash spreads them");
}

/// An answer of 110 octets: a question of 34 octets, and four addresses.
fn keep_110_octets(cache: &Cache, number: usize) {
    let ask = ask(&format!("www.host-{number:011}.example"));
    let mut reply = ask.reply(Rcode::NOERROR, &vec![a(60); 4], &[]);
    assert_eq!(reply.octets().len(), 12 + 34 + 4 * 16);
    cache.keep(&ask.permitted(), &mut reply, &Findings::default(), s(0));
}

#[test]
fn an_answer_of_110_octets_takes_260_at_most() {
    const MEMORY: usize = 4 << 20;
    let mut full = None;
    let taken = measure(|| {
        let cache = full.insert(cache_with(MEMORY as u64, s(100)));
        (0..MEMORY / 200).for_each(|number| keep_110_octets(cache, number));
    });
    let (entries, octets) = full.map(|cache| (cache.entries(), cache.octets())).unwrap();
    assert!((MEMORY * 9 / 10..=MEMORY).contains(&octets), "{octets} octets");
    assert!(MEMORY <= 260 * entries, "{} octets each", MEMORY / entries);
    // The allocator was asked for less than is counted: it rounds up, and the table is counted at its emptiest.
    let asked_for = usize::try_from(taken.bytes_current).unwrap();
    assert!(asked_for <= octets, "{asked_for} octets of {octets}");
    assert!(asked_for * 13 / 10 >= octets, "{asked_for} octets of {octets}");
}

#[test]
fn a_hit_allocates_nothing() {
    // With a copy, and without one.
    for findings in [Findings { index: 1, met: Met::Nothing }, findings(1, 8)] {
        let (cache, ask) = (cache(), ask("a.example"));
        let permitted = ask.permitted();
        let mut reply = ask.reply(Rcode::NOERROR, &[a(60)], &[]);
        cache.keep(&permitted, &mut reply, &findings, s(0));
        let absent = fixture::ask("b.example").permitted();
        let mut scratch = Vec::with_capacity(512);
        let taken = measure(|| {
            for now in [0, 0, 1, 1, 55, 59] {
                assert!(matches!(cache.get(&permitted, s(now), &mut scratch), Found::Fresh { .. }));
            }
            assert!(matches!(cache.get(&permitted, s(60), &mut scratch), Found::Expired { .. }));
            assert!(cache.stale(&permitted, s(60), &mut scratch).is_some());
            assert!(matches!(cache.get(&absent, s(0), &mut scratch), Found::Nothing));
        });
        assert_eq!(taken.count_total, 0);
    }
}

#[test]
fn threads_share_it() {
    let cache = cache_with(1 << 20, s(100));
    let asks: Vec<_> = (0..50).map(|number| ask(&format!("n{number}.example"))).collect();
    let work = |offset: usize| {
        for turn in 0..2_000 {
            let count = (turn * 7 + offset) % asks.len();
            if turn % 3 == 0 {
                keep(&cache, &asks[count], &vec![a(60); count + 1], s(0));
            }
            let mut scratch = vec![];
            if let Found::Fresh { reply, .. } = cache.get(&asks[count].permitted(), s(1), &mut scratch) {
                assert_eq!(reply.records().count(), count + 1, "whole, and its own");
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(0));
        scope.spawn(|| work(25));
    });
    assert!(cache.octets() <= 1 << 20);
}

/// Everything that was done, and every rule read off it anew at each look.
#[derive(Default)]
struct Model {
    /// By question: the reply's moment and lifetime, the hits since, the refreshes begun since.
    replies: HashMap<usize, (u64, u64, Vec<u64>, Vec<u64>)>,
    /// The failures since the last reply, oldest first.
    failures: HashMap<usize, Vec<(u64, Failure)>>,
    voided: Option<u64>,
}

impl Model {
    const STALE: u64 = 30_000;

    fn keep(&mut self, name: usize, lifetime: u64, now: u64) {
        self.failures.remove(&name);
        self.replies.remove(&name);
        if lifetime > 0 {
            self.replies.insert(name, (now, lifetime * 1_000, vec![], vec![]));
        }
    }

    /// The last failure that counts, and how long it is believed.
    fn failed(&self, name: usize) -> Option<(u64, Failure, u64)> {
        let failures = self.failures.get(&name)?;
        let &(at, failure) = failures.last()?;
        let errors = failures.iter().rev().take_while(|(_, f)| matches!(f, Failure::Upstream(_))).count();
        if errors == 0 {
            let voided = self.voided.is_some_and(|voided| at <= voided);
            return (!voided).then_some((at, failure, 1_000));
        }
        Some((at, failure, [5_000, 10_000, 20_000, 30_000][(errors - 1).min(3)]))
    }

    fn get(&mut self, name: usize, now: u64) -> Seen {
        let failed = self.failed(name);
        let last_failure = self.failures.get(&name).and_then(|failures| failures.last()).map(|(at, _)| *at);
        if let Some((kept, lifetime, hits, refreshes)) = self.replies.get_mut(&name) {
            let age = now - *kept;
            if age < *lifetime {
                let paused = |at: Option<u64>| at.is_some_and(|at| now < at + 5_000);
                let refresh = *lifetime >= 10_000
                    && !hits.is_empty()
                    && (*lifetime - age) * 10 <= *lifetime
                    && !paused(refreshes.last().copied())
                    && !paused(last_failure);
                hits.push(now);
                if refresh {
                    refreshes.push(now);
                }
                return Seen::Fresh { age: (age / 1_000) as u32, refresh };
            }
            if age < *lifetime + Self::STALE {
                return Seen::Expired { at_once: failed.is_some_and(|(at, ..)| now < at + 5_000) };
            }
        }
        match failed {
            Some((at, failure, believed)) if now < at + believed => Seen::Failed(failure),
            _ => Seen::Nothing,
        }
    }

    fn stale(&self, name: usize, now: u64) -> bool {
        self.replies
            .get(&name)
            .is_some_and(|(kept, lifetime, ..)| (*lifetime..*lifetime + Self::STALE).contains(&(now - kept)))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Get,
    Stale,
    Keep(u32),
    Fail(Failure),
    Void,
}

fn steps() -> impl Strategy<Value = Vec<(u64, usize, Step)>> {
    let failure = prop_oneof![
        Just(Failure::Timeout),
        Just(Failure::Network),
        Just(SERVFAIL),
        Just(Failure::Upstream(Rcode::REFUSED)),
        Just(Failure::Overloaded),
    ];
    let step = prop_oneof![
        8 => Just(Step::Get),
        2 => Just(Step::Stale),
        2 => prop_oneof![Just(0u32), Just(1), 2..40u32].prop_map(Step::Keep),
        3 => failure.prop_map(Step::Fail),
        1 => Just(Step::Void),
    ];
    let pause =
        prop_oneof![3 => Just(0u64), 3 => 1..1_500u64, 2 => (0..12u64).prop_map(|s| s * 1_000), 1 => 0..60_000u64];
    proptest::collection::vec((pause, 0..2usize, step), 1..150)
}

proptest! {
    #[test]
    fn it_does_as_the_model(steps in steps()) {
        let cache = cache_with(MEMORY, ms(Model::STALE));
        let asks = [ask("a.example"), ask("b.example")];
        let mut model = Model::default();
        let mut now = 0;
        for (pause, name, step) in steps {
            now += pause;
            match step {
                Step::Get => prop_assert_eq!(see(&cache, &asks[name], ms(now)), model.get(name, now)),
                Step::Stale => prop_assert_eq!(is_stale(&cache, &asks[name], ms(now)), model.stale(name, now)),
                Step::Keep(ttl) => {
                    keep(&cache, &asks[name], &[a(ttl)], ms(now));
                    model.keep(name, u64::from(ttl), now);
                }
                Step::Fail(failure) => {
                    fail(&cache, &asks[name], failure, ms(now));
                    if failure != Failure::Overloaded {
                        model.failures.entry(name).or_default().push((now, failure));
                    }
                }
                Step::Void => {
                    cache.void_timeouts(ms(now));
                    model.voided = Some(now);
                }
            }
        }
    }
}
