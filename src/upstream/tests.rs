//! Every rule of the upstream side, against a scripted network and in simulated time.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::scripted::{Act, Acts, Asked, Script};
use super::*;
use crate::dns::Rcode;
use crate::dns::message::{Header, Question as Asking, flag};
use crate::policy::Permitted;
use crate::query::{Query, Transport};

const DEADLINE: Duration = Duration::from_secs(5);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The nth upstream.
fn server(nth: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, nth], 53))
}

fn listed(servers: &[SocketAddr]) -> Settings {
    Settings::of(Resolvers::Listed(servers.to_vec()))
}

/// A script, and upstreams 1 to `count` in it.
fn stage(count: u8) -> (Script, Arc<Upstream>) {
    let script = Script::new();
    let servers: Vec<SocketAddr> = (1..=count).map(server).collect();
    let upstream = Upstream::new(&listed(&servers), script.network());
    (script, upstream)
}

/// A client's query for the addresses of `name`.
fn permitted(name: &str) -> Permitted<'static> {
    permitted_with(name, 0x0100, true)
}

fn permitted_with(name: &str, flags: u16, dnssec_ok: bool) -> Permitted<'static> {
    let header = Header { id: 0, flags, counts: [1, 0, 0, 1] };
    let mut octets = header.octets().to_vec();
    octets.extend_from_slice(Name::from_text(name).unwrap().as_wire());
    octets.extend_from_slice(b"\0\x01\0\x01");
    // With a cookie, a client subnet and padding, none of which may go on.
    octets.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, u8::from(dnssec_ok) << 7, 0, 0, 24]);
    octets.extend_from_slice(b"\0\x0a\0\x08\x01\x02\x03\x04\x05\x06\x07\x08\0\x08\0\x04\0\x01\0\0\0\x0c\0\0");
    Permitted::for_tests(Query::read(&octets, Transport::Dot).unwrap().to_static())
}

async fn forward(upstream: &Upstream, name: &str) -> Result<Reply<'static>, Failure> {
    upstream.forward(&Errand::new(permitted(name)), Instant::now() + DEADLINE, || {}).await
}

/// Forwards, and how long it took.
async fn timed(upstream: &Upstream, name: &str) -> (Result<Reply<'static>, Failure>, Duration) {
    let start = Instant::now();
    let outcome = forward(upstream, name).await;
    (outcome, start.elapsed())
}

/// The response to a query: its question, one address whose last octet is `mark`, this RCODE and these flags besides.
fn response(query: &[u8], rcode: Rcode, flags: u16, mark: u8) -> Vec<u8> {
    let asked = Asking::read(query).unwrap();
    let id = Header::read(query).unwrap().id;
    let flags = flag::QR | flag::RD | flag::RA | flags | rcode.0;
    let mut octets = Header { id, flags, counts: [1, 1, 0, 0] }.octets().to_vec();
    octets.extend_from_slice(&query[12..asked.end]);
    octets.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02");
    octets.push(mark);
    octets
}

fn good(asked: &Asked, mark: u8) -> Act {
    Act::Send(response(&asked.octets, Rcode::NOERROR, 0, mark))
}

fn error(asked: &Asked, rcode: Rcode) -> Act {
    Act::Send(response(&asked.octets, rcode, 0, 0))
}

fn truncated(asked: &Asked) -> Act {
    Act::Send(response(&asked.octets, Rcode::NOERROR, flag::TC, 66))
}

/// Answers after so long, with the address that ends in `mark`.
fn answers_after(millis: u64, mark: u8) -> impl FnMut(&Asked) -> Acts + Send + 'static {
    move |asked| vec![(millis, good(asked, mark))]
}

fn says(rcode: Rcode) -> impl FnMut(&Asked) -> Acts + Send + 'static {
    move |asked| vec![(1, error(asked, rcode))]
}

/// The last octet of the address in a reply.
fn mark(outcome: &Result<Reply<'static>, Failure>) -> u8 {
    *outcome.as_ref().unwrap().octets().last().unwrap()
}

fn status_of(upstream: &Upstream, nth: u8) -> Status {
    upstream.status().into_iter().find(|status| status.server == server(nth)).unwrap()
}

/// The failure, and how long it took.
async fn failed_after(upstream: &Upstream, name: &str) -> (Failure, Duration) {
    let (outcome, took) = timed(upstream, name).await;
    (failed(outcome), took)
}

fn failed(outcome: Result<Reply<'static>, Failure>) -> Failure {
    outcome.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_query_is_rebuilt_and_its_answer_comes_back() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), answers_after(20, 7));
    let outcome = upstream
        .forward(&Errand::new(permitted_with("WWW.Example", 0x0130, true)), Instant::now() + DEADLINE, || {})
        .await;
    assert_eq!(mark(&outcome), 7);
    let asked = script.asked();
    let expected = b"\x01\x30\0\x01\0\0\0\0\0\x01\x03www\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0";
    assert_eq!(asked[0].octets[2..], expected[..], "RD, AD, CD, a folded name and an OPT without options");
    let _ = upstream.forward(&Errand::new(permitted_with("example", 0, false)), Instant::now() + DEADLINE, || {}).await;
    let asked = script.asked();
    assert_eq!(asked[1].octets[2..4], [0x01, 0x20], "RD and AD are ours, CD is the client's");
    assert_eq!(asked[1].octets[asked[1].octets.len() - 4..], [0; 4], "no DO where the client has none");
    assert_ne!(asked[0].octets[..2], asked[1].octets[..2]);
    let status = status_of(&upstream, 1);
    assert_eq!((status.counts.queries, status.counts.answers), (2, 2));
    assert_eq!((status.counts.latency[4], status.counts.latency_sum), (2, ms(40)));
    assert_eq!(status.round_trip, Some(ms(20)));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_match_is_waited_past() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| {
        let right = response(&asked.octets, Rcode::NOERROR, 0, 7);
        let with = |at: usize, to: u8| {
            let mut wrong = response(&asked.octets, Rcode::NOERROR, 0, 66);
            wrong[at] = to;
            Act::Send(wrong)
        };
        let without_question = [&right[..4], &[0, 0, 0, 1, 0, 0, 0, 0], &right[right.len() - 16..]].concat();
        vec![
            (1, with(0, !right[0])),
            (2, with(2, 0x01)),
            (3, with(13, b'!')),
            (4, with(right.len() - 4 - 1, 0xff)),
            (5, Act::Send(without_question)),
            (6, Act::Send(Vec::new())),
            (7, Act::Send(b"garbage".to_vec())),
            (4000, Act::Send(right)),
        ]
    });
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((mark(&outcome), took), (7, ms(4000)));
    assert!(status_of(&upstream, 1).counts.mismatches >= 7);
}

#[tokio::test(start_paused = true)]
async fn who_guesses_ids_is_left_behind_over_tcp() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| {
        let mut wrong = response(&asked.octets, Rcode::NOERROR, 0, 66);
        wrong[0] ^= 1;
        (0..40).map(|_| (1, Act::Send(wrong.clone()))).collect()
    });
    script.on_tcp(server(1), answers_after(5, 7));
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((mark(&outcome), took), (7, ms(6)));
}

#[tokio::test(start_paused = true)]
async fn a_bare_error_is_believed() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| {
        vec![(1, Act::Send([&asked.octets[..2], &[0x81, 5, 0, 0, 0, 0, 0, 0, 0, 0]].concat()))]
    });
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((failed(outcome), took), (Failure::Upstream(Rcode::REFUSED), ms(1)));
}

#[tokio::test(start_paused = true)]
async fn truncated_answers_are_fetched_over_tcp() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| vec![(5, truncated(asked))]);
    script.on_tcp(server(1), answers_after(10, 7));
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((mark(&outcome), took), (7, ms(15)));
    let asked = script.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].octets[2..], asked[1].octets[2..], "the same but for the ID");
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_is_worth_nothing_without_tcp() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| vec![(5, truncated(asked))]);
    assert_eq!(failed(forward(&upstream, "a.example").await), Failure::Network);
    script.on_tcp(server(1), |_| Vec::new());
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((failed(outcome), took), (Failure::Timeout, DEADLINE));
    assert!(status_of(&upstream, 1).up, "over UDP it answers");
    script.on_tcp(server(1), |asked| vec![(1, truncated(asked))]);
    assert_eq!(failed(forward(&upstream, "a.example").await), Failure::Upstream(Rcode::SERVFAIL), "no TC loop");
}

#[tokio::test(start_paused = true)]
async fn tcp_connections_are_reused_and_pipelined() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| vec![(1, truncated(asked))]);
    script.on_tcp(server(1), |asked| {
        let mut wrong = response(&asked.octets, Rcode::NOERROR, 0, 66);
        wrong[13] = b'!';
        let delay = if asked.nth == 0 { 40 } else { 10 };
        vec![(1, Act::Send(wrong)), (2, Act::Send(vec![1])), (delay, good(asked, asked.nth as u8))]
    });
    let behind = async {
        sleep(ms(1)).await;
        timed(&upstream, "b.example").await
    };
    let (slow, quick) = tokio::join!(timed(&upstream, "a.example"), behind);
    assert_eq!((mark(&slow.0), slow.1, mark(&quick.0), quick.1), (0, ms(41), 1, ms(11)), "out of order");
    sleep(ms(4900)).await;
    assert_eq!(mark(&forward(&upstream, "c.example").await), 2);
    let connections: Vec<_> = script.asked().iter().filter_map(|asked| asked.connection).collect();
    assert_eq!(connections, [0, 0, 0]);
    sleep(ms(4900)).await;
    script.on_tcp(server(1), |asked| vec![(200, good(asked, asked.nth as u8))]);
    assert_eq!(mark(&forward(&upstream, "slow.example").await), 3, "one that is waited on is not idle");
    assert_eq!(script.asked().last().unwrap().connection, Some(0));
    sleep(ms(5100)).await;
    assert_eq!(mark(&forward(&upstream, "d.example").await), 5, "the slow one was asked for twice");
    assert_eq!(script.asked().last().unwrap().connection, Some(1), "idle ones are closed");
}

#[tokio::test(start_paused = true)]
async fn a_full_connection_is_not_alone() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| vec![(1, truncated(asked))]);
    script.on_tcp(server(1), answers_after(40, 7));
    let names: Vec<String> = (0..100).map(|nth| format!("n{nth}.example")).collect();
    let all = futures_util::future::join_all(names.iter().map(|name| forward(&upstream, name))).await;
    assert!(all.iter().all(|outcome| mark(outcome) == 7));
    let count = |connection| script.asked().iter().filter(|asked| asked.connection == Some(connection)).count();
    assert_eq!((count(0), count(1), count(2)), (64, 36, 0));
}

#[tokio::test(start_paused = true)]
async fn more_than_all_connections_take_is_refused_at_once_and_recovers() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| vec![(1, truncated(asked))]);
    script.on_tcp(server(1), answers_after(30, 7));
    let names: Vec<String> = (0..300).map(|nth| format!("n{nth}.example")).collect();
    let all = futures_util::future::join_all(names.iter().map(|name| forward(&upstream, name))).await;
    let refused = all.iter().filter(|outcome| matches!(outcome, Err(Failure::Overloaded))).count();
    assert_eq!(refused, 300 - 4 * 64);
    assert_eq!(mark(&forward(&upstream, "after.example").await), 7);
}

#[tokio::test(start_paused = true)]
async fn that_a_reused_connection_was_closed_is_nobodys_failure() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| vec![(1, truncated(asked))]);
    // As servers do that take one query a connection: the second on the first connection meets a close.
    script.on_tcp(server(1), |asked| {
        if asked.nth == 1 { vec![(1, Act::Refuse)] } else { vec![(1, good(asked, asked.nth as u8))] }
    });
    assert_eq!(mark(&forward(&upstream, "a.example").await), 0);
    assert_eq!(mark(&forward(&upstream, "b.example").await), 2);
    let connections: Vec<_> = script.asked().iter().filter_map(|asked| asked.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
    // One that is fresh and closed is.
    sleep(ms(6000)).await;
    script.on_tcp(server(1), |_| vec![(1, Act::Refuse)]);
    assert_eq!(failed(forward(&upstream, "c.example").await), Failure::Network);
}

#[tokio::test(start_paused = true)]
async fn a_closed_idle_connection_is_noticed() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| vec![(1, truncated(asked))]);
    script.on_tcp(server(1), |asked| vec![(1, good(asked, 7)), (2, Act::Refuse)]);
    assert_eq!(mark(&forward(&upstream, "a.example").await), 7);
    sleep(ms(100)).await;
    assert_eq!(mark(&forward(&upstream, "b.example").await), 7);
    assert_eq!(script.asked().len(), 4, "nothing was asked in vain");
}

#[tokio::test(start_paused = true)]
async fn the_second_try_goes_elsewhere_after_three_round_trips() {
    let (script, upstream) = stage(2);
    script.on_udp(server(1), answers_after(30, 1));
    script.on_udp(server(2), answers_after(10, 2));
    let _ = forward(&upstream, "a.example").await;
    script.on_udp(server(1), |_| Vec::new());
    let (outcome, took) = timed(&upstream, "b.example").await;
    assert_eq!((mark(&outcome), took), (2, ms(100)), "after three times 30 ms");
}

#[tokio::test(start_paused = true)]
async fn an_unmeasured_upstream_is_given_300_ms() {
    let (script, upstream) = stage(2);
    script.on_udp(server(2), answers_after(10, 2));
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((mark(&outcome), took), (2, ms(310)));
}

#[tokio::test(start_paused = true)]
async fn the_first_good_answer_wins() {
    let (script, upstream) = stage(2);
    script.on_udp(server(1), answers_after(320, 1));
    script.on_udp(server(2), answers_after(100, 2));
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((mark(&outcome), took), (1, ms(320)), "the first try went on");
    assert_eq!(script.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lone_upstream_is_asked_again() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| if asked.nth == 0 { Vec::new() } else { vec![(10, good(asked, 7))] });
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((mark(&outcome), took), (7, ms(310)));
    let asked = script.asked();
    assert_ne!(asked[0].octets[..2], asked[1].octets[..2], "with an ID of its own");
    // Once it says no, the lost try is not waited for.
    let (script, upstream) = stage(1);
    script.on_udp(
        server(1),
        |asked| {
            if asked.nth == 0 { Vec::new() } else { vec![(10, error(asked, Rcode::SERVFAIL))] }
        },
    );
    assert_eq!(failed_after(&upstream, "b.example").await, (Failure::Upstream(Rcode::SERVFAIL), ms(310)));
}

#[tokio::test(start_paused = true)]
async fn who_was_fast_and_fails_is_not_preferred_for_long() {
    for failing in [None, Some(Rcode::SERVFAIL)] {
        let (script, upstream) = stage(2);
        script.on_udp(server(1), answers_after(5, 1));
        script.on_udp(server(2), answers_after(20, 2));
        assert_eq!(mark(&forward(&upstream, "a.example").await), 1);
        script.on_udp(server(1), move |asked| failing.map(|rcode| (1, error(asked, rcode))).into_iter().collect());
        for name in ["b.example", "c.example", "d.example", "e.example", "f.example"] {
            assert_eq!(mark(&forward(&upstream, name).await), 2);
        }
        assert!(status_of(&upstream, 1).up);
        assert_eq!(timed(&upstream, "g.example").await.1, ms(20), "{failing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_put_right_by_another_at_once() {
    for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::YXRRSET] {
        let (script, upstream) = stage(2);
        script.on_udp(server(1), says(rcode));
        script.on_udp(server(2), answers_after(10, 2));
        let (outcome, took) = timed(&upstream, "a.example").await;
        assert_eq!((mark(&outcome), took), (2, ms(11)), "{rcode}");
        assert_eq!(status_of(&upstream, 1).counts.error_rcodes, 1);
        // Who has to be corrected is not preferred for its speed.
        assert_eq!(timed(&upstream, "b.example").await.1, ms(10));
    }
}

#[tokio::test(start_paused = true)]
async fn an_extended_error_is_put_right_by_another_too() {
    let (script, upstream) = stage(2);
    script.on_udp(server(1), |asked| {
        let mut octets = response(&asked.octets, Rcode::NOERROR, 0, 66);
        octets[11] = 1;
        octets.extend_from_slice(b"\0\0\x29\x04\xd0\x01\0\0\0\0\0");
        vec![(1, Act::Send(octets))]
    });
    script.on_udp(server(2), answers_after(10, 2));
    assert_eq!(mark(&forward(&upstream, "a.example").await), 2);
}

#[tokio::test(start_paused = true)]
async fn when_all_say_no_the_most_telling_is_told() {
    let cases = [
        ([Rcode::SERVFAIL, Rcode::SERVFAIL], Rcode::SERVFAIL),
        ([Rcode::REFUSED, Rcode::SERVFAIL], Rcode::SERVFAIL),
        ([Rcode::SERVFAIL, Rcode::REFUSED], Rcode::SERVFAIL),
        ([Rcode::REFUSED, Rcode::NOTAUTH], Rcode::REFUSED),
    ];
    for (rcodes, told) in cases {
        let (script, upstream) = stage(2);
        script.on_udp(server(1), says(rcodes[0]));
        script.on_udp(server(2), says(rcodes[1]));
        let (outcome, took) = timed(&upstream, "a.example").await;
        assert_eq!((failed(outcome), took, script.asked().len()), (Failure::Upstream(told), ms(2), 2));
    }
}

#[tokio::test(start_paused = true)]
async fn nxdomain_and_yxdomain_are_answers() {
    for rcode in [Rcode::NXDOMAIN, Rcode::YXDOMAIN] {
        let (script, upstream) = stage(2);
        script.on_udp(server(1), says(rcode));
        assert_eq!(forward(&upstream, "a.example").await.unwrap().rcode(), rcode);
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_server_is_asked_again_without_opt() {
    for rcode in [Rcode::FORMERR, Rcode::NOTIMP] {
        let (script, upstream) = stage(1);
        script.on_udp(server(1), move |asked| {
            let has_opt = asked.octets[11] == 1;
            vec![(5, if has_opt { error(asked, rcode) } else { good(asked, 7) })]
        });
        let (outcome, took) = timed(&upstream, "a.example").await;
        assert_eq!((mark(&outcome), took), (7, ms(10)));
        script.on_udp(server(1), says(rcode));
        assert_eq!(failed(forward(&upstream, "b.example").await), Failure::Upstream(rcode));
        assert_eq!(script.asked().len(), 4, "once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_upstream_is_marked_probed_and_welcomed_back() {
    let (script, upstream) = stage(1);
    let returns = upstream.returns();
    tokio::spawn(Arc::clone(&upstream).keep_watch());
    for name in ["a.example", "b.example", "c.example"] {
        assert_eq!(failed_after(&upstream, name).await, (Failure::Timeout, DEADLINE));
    }
    assert!(status_of(&upstream, 1).up);
    assert_eq!(failed(forward(&upstream, "d.example").await), Failure::Timeout);
    assert!(!status_of(&upstream, 1).up);
    assert_eq!(status_of(&upstream, 1).counts.timeouts, 12, "every try of every query");

    let before = script.asked().len();
    sleep(ms(2000)).await;
    let probes = script.asked().split_off(before);
    assert!((3..=5).contains(&probes.len()), "every 500 ms: {}", probes.len());
    assert!(probes.iter().all(|probe| probe.octets[12..17] == [0, 0, 2, 0, 1]), ". NS");
    assert_eq!(*returns.borrow(), 0);

    script.on_udp(server(1), |asked| vec![(10, error(asked, Rcode::REFUSED))]);
    sleep(ms(600)).await;
    assert!(status_of(&upstream, 1).up, "whoever answers anything is up");
    assert_eq!(*returns.borrow(), 1);
    let before = script.asked().len();
    sleep(ms(2000)).await;
    assert_eq!(script.asked().len(), before, "who is up is not probed");
}

#[tokio::test(start_paused = true)]
async fn one_dead_name_harms_nobody() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| if asked.octets[13] == b'd' { Vec::new() } else { vec![(10, good(asked, 7))] });
    for _ in 0..10 {
        assert_eq!(failed(forward(&upstream, "dead.example").await), Failure::Timeout);
    }
    assert!(status_of(&upstream, 1).up);
    // Nor do several, where others are answered meanwhile.
    for nth in 0..10 {
        let (dead_name, live_name) = (format!("d{nth}.example"), format!("live{nth}.example"));
        let dead = forward(&upstream, &dead_name);
        let live = async {
            sleep(ms(2000)).await;
            timed(&upstream, &live_name).await
        };
        let (dead, live) = tokio::join!(dead, live);
        assert_eq!((failed(dead), live.1), (Failure::Timeout, ms(10)));
    }
    assert!(status_of(&upstream, 1).up);
}

#[tokio::test(start_paused = true)]
async fn who_is_down_is_not_asked_while_another_is_up() {
    let (script, upstream) = stage(2);
    script.on_udp(server(2), answers_after(10, 2));
    // Asked first by the order of the list, server 1 is outrun each time; its silence is heard out.
    for name in ["a.example", "b.example", "c.example", "d.example", "e.example", "f.example"] {
        assert_eq!(mark(&forward(&upstream, name).await), 2);
        status_of(&upstream, 1);
    }
    let asked_first = script.asked().iter().filter(|asked| asked.server == server(1)).count();
    assert_eq!(asked_first, 1, "who was outrun is no longer the preferred one");
    // Rarely, it is measured again, until it is known to be down.
    for nth in 0..200 {
        let (outcome, took) = timed(&upstream, &format!("n{nth}.example")).await;
        assert!(mark(&outcome) == 2 && took <= ms(310));
        sleep(ms(100)).await;
    }
    sleep(DEADLINE).await;
    assert!(!status_of(&upstream, 1).up);
    let before = script.asked().len();
    for nth in 0..100 {
        assert_eq!(timed(&upstream, &format!("m{nth}.example")).await.1, ms(10));
    }
    assert!(script.asked()[before..].iter().all(|asked| asked.server == server(2)));
}

#[tokio::test(start_paused = true)]
async fn when_all_are_down_they_are_asked_all_the_same() {
    let (script, upstream) = stage(2);
    for nth in [1, 2] {
        script.on_udp(server(nth), |_| vec![(1, Act::Refuse)]);
    }
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((failed(outcome), took), (Failure::Network, ms(2)), "a refusal is heard at once");
    let _ = forward(&upstream, "b.example").await;
    assert!(upstream.status().iter().all(|status| !status.up && status.counts.network_errors == 2));
    script.on_udp(server(2), answers_after(10, 2));
    let mut returns = upstream.returns();
    assert_eq!(mark(&forward(&upstream, "c.example").await), 2);
    assert!(returns.has_changed().unwrap() && *returns.borrow_and_update() == 1, "back without a probe");
}

#[tokio::test(start_paused = true)]
async fn what_this_machine_lacks_is_not_held_against_an_upstream() {
    let (script, upstream) = stage(1);
    script.fail_sockets(Some(io::ErrorKind::OutOfMemory));
    for _ in 0..10 {
        assert_eq!(failed_after(&upstream, "a.example").await, (Failure::Network, ms(0)));
    }
    assert!(status_of(&upstream, 1).up);
}

#[tokio::test(start_paused = true)]
async fn a_silent_and_a_refusing_upstream_are_a_timeout() {
    let (script, upstream) = stage(2);
    script.on_udp(server(1), |_| vec![(1, Act::Refuse)]);
    assert_eq!(failed_after(&upstream, "a.example").await, (Failure::Timeout, DEADLINE));
}

#[tokio::test(start_paused = true)]
async fn a_query_has_a_budget() {
    let (script, upstream) = stage(10);
    for nth in 1..=10 {
        script.on_udp(server(nth), says(Rcode::SERVFAIL));
    }
    let mut bites = 0;
    let outcome =
        upstream.forward(&Errand::new(permitted("a.example")), Instant::now() + DEADLINE, || bites += 1).await;
    assert_eq!(failed(outcome), Failure::Upstream(Rcode::SERVFAIL));
    assert_eq!(script.asked().len(), usize::from(UPSTREAM_QUERIES_MAX));
    assert_eq!(bites, 1);
    // TCP and tries without OPT count.
    let (script, upstream) = stage(10);
    for nth in 1..=10 {
        script.on_udp(server(nth), |asked| vec![(1, truncated(asked))]);
        script.on_tcp(server(nth), says(Rcode::NOTIMP));
    }
    assert_eq!(failed(forward(&upstream, "a.example").await), Failure::Upstream(Rcode::NOTIMP));
    assert_eq!(script.asked().len(), usize::from(UPSTREAM_QUERIES_MAX));
}

#[tokio::test(start_paused = true)]
async fn tries_of_a_dead_name_are_few() {
    let (script, upstream) = stage(1);
    assert_eq!(failed(forward(&upstream, "a.example").await), Failure::Timeout);
    let moments: Vec<_> = script.asked().iter().map(|asked| asked.at).collect();
    assert_eq!(moments, [ms(0), ms(300), ms(1300)]);
    let (script, upstream) = stage(2);
    assert_eq!(failed(forward(&upstream, "a.example").await), Failure::Timeout);
    let moments: Vec<_> = script.asked().iter().map(|asked| (asked.server, asked.at)).collect();
    let (one, two) = (server(1), server(2));
    assert_eq!(moments, [(one, ms(0)), (two, ms(300)), (one, ms(1300)), (two, ms(3300))]);
}

#[tokio::test(start_paused = true)]
async fn tries_of_very_many_dead_names_take_each_others_place() {
    let (script, upstream) = stage(1);
    let _all = Arc::clone(&upstream.further_tries).try_acquire_many_owned(FURTHER_TRIES_MAX as u32).unwrap();
    script.on_udp(server(1), |asked| if asked.at < ms(300) { vec![] } else { vec![(1, good(asked, 7))] });
    let (outcome, took) = timed(&upstream, "a.example").await;
    assert_eq!((mark(&outcome), took), (7, ms(301)), "the second try is heard");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_kept_to_the_millisecond() {
    let (script, upstream) = stage(3);
    for millis in [0, 1, 49, 50, 299, 300, 301, 1300, 5000] {
        let start = Instant::now();
        let outcome = upstream.forward(&Errand::new(permitted("a.example")), start + ms(millis), || {}).await;
        assert_eq!((failed(outcome), start.elapsed()), (Failure::Timeout, ms(millis)));
    }
    for nth in 1..=3 {
        script.on_udp(server(nth), |asked| vec![(1, truncated(asked))]);
        script.on_tcp(server(nth), |_| Vec::new());
    }
    let start = Instant::now();
    let outcome = upstream.forward(&Errand::new(permitted("a.example")), start + ms(777), || {}).await;
    assert_eq!((failed(outcome), start.elapsed()), (Failure::Timeout, ms(777)));
}

#[tokio::test(start_paused = true)]
async fn the_fastest_is_found_and_preferred() {
    let (script, upstream) = stage(3);
    for (nth, millis) in [(1, 40), (2, 30), (3, 5)] {
        script.on_udp(server(nth), answers_after(millis, nth));
    }
    for nth in 0..200 {
        let _ = forward(&upstream, &format!("n{nth}.example")).await;
    }
    let before = script.asked().len();
    for nth in 0..64 {
        let _ = forward(&upstream, &format!("m{nth}.example")).await;
    }
    let others = script.asked()[before..].iter().filter(|asked| asked.server != server(3)).count();
    assert_eq!(others, 2, "one in 32 is measured again");
}

#[test]
fn the_sockets_that_threads_draw_from_are_reckoned_with() {
    let spare = |settings: Settings, threads| settings.spare_sockets_max(threads);
    let two = listed(&[server(1), server(2)]);
    assert_eq!(spare(two.clone(), 3) - spare(two, 0), 3 * 2 * SOCKETS_PER_WORKER_MAX);
    let system = Settings::of(Resolvers::System);
    assert_eq!(spare(system.clone(), 1) - spare(system, 0), SYSTEM_RESOLVERS_MAX * SOCKETS_PER_WORKER_MAX);
    assert_eq!(spare(listed(&[]), 8), FURTHER_TRIES_MAX + HEARD_OUT_MAX * 6);
    for (sockets, each) in [(0, 1), (5, 1), (12, 2), (1_000, SOCKETS_PER_WORKER_MAX)] {
        let mut fitted = listed(&[server(1), server(2)]);
        fitted.fit_into(sockets, 3);
        assert_eq!(fitted.sockets_per_worker, each);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_to_ask_is_said_at_once() {
    let (_, upstream) = stage(0);
    assert_eq!(failed(forward(&upstream, "a.example").await), Failure::NoUpstream);
    assert_eq!(upstream.status(), []);
}

/// An upstream that passes what it is asked on to ourselves while `looping`.
fn leads_back(upstream: &Arc<Upstream>, looping: &Arc<AtomicBool>) -> impl FnMut(&Asked) -> Acts + Send + 'static {
    let (upstream, looping) = (Arc::downgrade(upstream), Arc::clone(looping));
    move |asked| {
        let qname = Asking::read(&asked.octets).unwrap().qname;
        if looping.load(Ordering::Relaxed) {
            upstream.upgrade().unwrap().is_own_probe(&qname);
        }
        vec![(10, error(asked, Rcode::NXDOMAIN))]
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_is_noticed_and_cleared() {
    let (script, upstream) = stage(2);
    let looping = Arc::new(AtomicBool::new(true));
    script.on_udp(server(1), leads_back(&upstream, &looping));
    script.on_udp(server(2), answers_after(50, 2));
    tokio::spawn(Arc::clone(&upstream).keep_watch());
    sleep(ms(100)).await;
    let nonces = script.asked();
    assert_eq!(nonces.len(), 2);
    assert_ne!(nonces[0].octets[12..45], nonces[1].octets[12..45], "each has its own");
    assert!(nonces.iter().all(|asked| &asked.octets[45..65] == b"\x0ebailiwick-loop\x04arpa"));
    assert!(status_of(&upstream, 1).is_loop && status_of(&upstream, 1).up && !status_of(&upstream, 2).is_loop);

    for nth in 0..40 {
        assert_eq!(mark(&forward(&upstream, &format!("n{nth}.example")).await), 2);
    }
    assert!(script.asked()[2..].iter().all(|asked| asked.server == server(2)), "a loop is not asked");

    looping.store(false, Ordering::Relaxed);
    sleep(ms(27_000)).await;
    assert!(status_of(&upstream, 1).is_loop);
    sleep(ms(2000)).await;
    assert!(!status_of(&upstream, 1).is_loop, "after 30 s it is looked at again");
    let before = script.asked().len();
    sleep(ms(120_000)).await;
    assert_eq!(script.asked().len(), before, "who is known to be another is left in peace");
}

#[tokio::test(start_paused = true)]
async fn a_stub_that_cannot_reach_us_yet_is_looked_at_again() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), says(Rcode::SERVFAIL));
    tokio::spawn(Arc::clone(&upstream).keep_watch());
    sleep(ms(1000)).await;
    assert!(!status_of(&upstream, 1).is_loop);
    script.on_udp(server(1), leads_back(&upstream, &Arc::new(AtomicBool::new(true))));
    sleep(ms(30_000)).await;
    assert!(status_of(&upstream, 1).is_loop);
}

#[tokio::test(start_paused = true)]
async fn a_lone_loop_is_asked_all_the_same() {
    let (script, upstream) = stage(1);
    let looping = Arc::new(AtomicBool::new(true));
    script.on_udp(server(1), leads_back(&upstream, &looping));
    tokio::spawn(Arc::clone(&upstream).keep_watch());
    sleep(ms(100)).await;
    assert!(status_of(&upstream, 1).is_loop);
    assert!(forward(&upstream, "a.example").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_went_silent_is_none() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), leads_back(&upstream, &Arc::new(AtomicBool::new(true))));
    tokio::spawn(Arc::clone(&upstream).keep_watch());
    sleep(ms(100)).await;
    script.on_udp(server(1), |_| Vec::new());
    sleep(ms(34_000)).await;
    assert!(!status_of(&upstream, 1).is_loop);
}

#[tokio::test(start_paused = true)]
async fn resolv_conf_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    let script = Script::new();
    for nth in 1..=3 {
        script.on_udp(server(nth), answers_after(10, nth));
    }
    let settings = Settings::of(Resolvers::System);
    let upstream = Upstream::with_file(&settings, script.network(), &path);
    assert_eq!(failed(forward(&upstream, "a.example").await), Failure::NoUpstream);
    assert_eq!(upstream.status(), []);

    tokio::spawn(Arc::clone(&upstream).keep_watch());
    sleep(ms(1)).await;
    fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
    sleep(ms(1001)).await;
    assert_eq!(mark(&forward(&upstream, "b.example").await), 1);
    fs::write(&path, "nameserver 192.0.2.3\nnameserver 192.0.2.1\n").unwrap();
    sleep(ms(1001)).await;
    let servers: Vec<_> = upstream.status().iter().map(|status| status.server).collect();
    assert_eq!(servers, [server(3), server(1)]);
    assert_eq!(status_of(&upstream, 1).counts.answers, 1, "what is known of one that stays is kept");
    let nonces = script.asked().iter().filter(|asked| asked.octets.len() > 60).count();
    assert_eq!(nonces, 4, "each is asked whether it is ourselves, at each change");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_takes_nothing_along() {
    let (script, upstream) = stage(1);
    script.on_udp(server(1), |asked| vec![(1, truncated(asked))]);
    script.on_tcp(server(1), answers_after(100, 7));
    // So many that a connection that kept their places would be full.
    for nth in 0..200 {
        let given_up = timeout(ms(3), forward(&upstream, &format!("n{nth}.example"))).await;
        assert!(given_up.is_err());
    }
    assert_eq!(mark(&forward(&upstream, "a.example").await), 7);
    assert!(script.asked().iter().all(|asked| asked.connection.is_none_or(|connection| connection == 0)));
}

/// A real upstream on this machine: cuts its first answer over UDP short where `over_tcp`.
fn real_server(over_tcp: bool) -> SocketAddr {
    let (udp, tcp) = std::iter::repeat_with(|| UdpSocket::bind("127.0.0.1:0").unwrap())
        .find_map(|udp| TcpListener::bind(udp.local_addr().unwrap()).ok().map(|tcp| (udp, tcp)))
        .unwrap();
    let address = udp.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let flags = if over_tcp { flag::TC } else { 0 };
            let _ = udp.send_to(&response(&buffer[..length], Rcode::NOERROR, flags, 8), from);
        }
    });
    std::thread::spawn(move || {
        while let Ok((stream, _)) = tcp.accept() {
            std::thread::spawn(move || answer_frames(stream));
        }
    });
    address
}

fn answer_frames(mut stream: std::net::TcpStream) {
    use std::io::{Read as _, Write as _};
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).unwrap();
        let answer = response(&query, Rcode::NOERROR, 0, 9);
        let framed = [&(answer.len() as u16).to_be_bytes(), &answer[..]].concat();
        // In two pieces, as networks do.
        stream.write_all(&framed[..1]).unwrap();
        stream.write_all(&framed[1..]).unwrap();
    }
}

#[tokio::test]
async fn real_sockets_speak_udp() {
    let upstream = Upstream::new(&listed(&[real_server(false)]), Arc::new(System));
    // In a task, as the pipeline asks.
    let asking = tokio::spawn(async move { forward(&upstream, "a.example").await });
    assert_eq!(mark(&asking.await.unwrap()), 8);
}

#[test]
fn real_sockets_speak_tcp_from_several_runtimes() {
    let upstream = Upstream::new(&listed(&[real_server(true)]), Arc::new(System));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (one, two) = (runtime(), runtime());
    for name in ["a.example", "b.example"] {
        assert_eq!(mark(&one.block_on(forward(&upstream, name))), 9);
    }
    // The connection's task is on the first runtime; when that ends, the question goes out afresh.
    drop(one);
    assert_eq!(mark(&two.block_on(forward(&upstream, "c.example"))), 9);
    let counts = upstream.status()[0].counts;
    assert_eq!((counts.answers, counts.timeouts), (3, 0));
}

#[tokio::test]
async fn a_closed_port_is_a_network_failure_at_once() {
    // Bound so that nobody else takes the port, connected elsewhere so that it is closed to us.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.1:1").unwrap();
    let address = socket.local_addr().unwrap();
    let upstream = Upstream::new(&listed(&[address]), Arc::new(System));
    assert_eq!(failed(forward(&upstream, "a.example").await), Failure::Network);
    // Many share a socket: each hears of it.
    let names: Vec<String> = (0..500).map(|nth| format!("n{nth}.example")).collect();
    let start = std::time::Instant::now();
    let all = futures_util::future::join_all(names.iter().map(|name| forward(&upstream, name))).await;
    assert!(all.into_iter().all(|outcome| failed(outcome) == Failure::Network));
    assert!(start.elapsed() < DEADLINE / 2);
}
