//! Attacks on the real process, as another client sees them: one test for each that is known.
//!
//! An upstream with a script stands behind the server, floods come from loopback, and what is judged is whether another
//! client is answered within three seconds meanwhile, what the process takes of memory, descriptors and processor, and
//! that a bound lets through what is just below it and refuses what is just above.
//!
//! What is shown elsewhere is not shown again:
//!
//! | attack | shown by |
//! | --- | --- |
//! | CONTINUATION flood, also one that stalls | `tests/doh.rs`, `src/listener/doh/tests.rs` |
//! | empty DATA, resets: which bound they are counted under | `src/listener/doh/tests.rs` |
//! | streams of a connection, from both sides | `src/listener/doh/tests.rs` http2_streams_are_bounded |
//! | zero window on a stream, among busy ones too | `tests/doh.rs`, `src/listener/doh/tests.rs` |
//! | slow POST, in both versions | `tests/doh.rs` slowloris_is_cut_off, `src/listener/doh/tests.rs` |
//! | a body of 65,535 octets and of one more | `tests/doh.rs` the_longest_body_is_read, http_errors_are_for_http_alone |
//! | gzip body, other media types, cookie crumbs in number | `tests/doh.rs` http_errors_are_for_http_alone |
//! | smuggling by CL.TE, TE.CL, two lengths, obsolete forms | `tests/doh.rs` smuggled_requests_are_never_answered |
//! | a stream given up drops what waited for it | `src/listener/doh/tests.rs` http2_a_reset_stream_is_given_up |
//! | zone transfers over DoH | `local/zone-transfers-are-turned-down` |
//! | connections in all and of one client | `tests/dot.rs`; an IPv6 /56 is one client: `src/listener/gate.rs` |
//! | queries per second of one client | `src/listener/rate.rs` |
//! | the idle timeout shrinks under pressure | `src/listener/idle.rs` |
//! | ALPN of another protocol (ALPACA) | `tests/dot.rs` alpn_is_dot_or_none, `tests/doh.rs` another_alpn_is_refused |
//! | ticket keys rotate, no early data | `src/tls/tests.rs` |
//! | ECH passes as it came | `upstream/service-parameters-pass-as-they-came` |
//! | descriptors run out at an accept | `tests/dot.rs` descriptors_that_run_out_come_back, `src/listener/accept.rs` |
//! | trailing octets, two OPTs, overrunning options | `wire/octets-behind-the-message-are-a-formerr` and its neighbours |
//! | a response as a query, another OPCODE | `wire/a-response-is-never-answered`, `wire/opcodes-other-than-query-are-notimp` |
//! | record smuggling: the query upstream is rebuilt | `src/upstream/question.rs`, the scenarios' player |
//! | wrong ID, port, name, type, QR; no question | `upstream/a-datagram-with-…-is-waited-past` |
//! | guessed IDs (SAD DNS) | `src/upstream/tests.rs` who_guesses_ids_is_left_behind_over_tcp, `src/upstream/ports.rs` |
//! | weak entropy: ports drawn at random, for 64 queries or 2 s; IDs | `src/upstream/ports.rs`, `src/upstream/sockets.rs` |
//! | birthdays: one query upstream for one question | `upstream/the-same-question-at-once-is-asked-upstream-once` |
//! | fragments: records of a truncated reply | `src/upstream/tests.rs` truncated_answers_are_fetched_over_tcp |
//! | IDs on a stream | `src/upstream/tcp.rs` an_id_is_one_that_nobody_waits_for |
//! | failures kept, and voided | `cache/a-servfail-is-kept-…`, `upstream/an-upstream-that-is-back-voids-the-kept-failures` |
//! | keys: DO, CD, class, type, case, names that print alike | `cache/…-are-kept-apart` |
//! | leaks between clients: OPT, ID, AD, case | `cache/what-is-between-us-and-the-upstream-is-not-kept-or-passed-on` |
//! | learning from what was not asked (MaginotDNS) | `cache/nothing-is-learnt-from-what-was-not-asked` |
//! | TTLs of 0, with the top bit, too long; ghost domains | `cache/a-ttl-…`, `cache/a-long-ttl-…`, `cache/a-stale-answer-has-an-end` |
//! | negative answers without SOA, MINIMUM | `cache/a-negative-answer-without-soa-is-not-kept` and its neighbours |
//! | ways around a block: case, escapes, ANY, CH, chains, HTTPS | `policy/…`, `local/any-of-a-blocked-name-is-blocked` |
//! | a kept answer from before a reload | `policy/an-order-takes-effect-on-the-next-query-of-a-cached-name` |
//! | parsers of names, messages, lists, orders | `tests/fuzz.rs` |
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test has no outside")]
#![allow(clippy::print_stderr, reason = "what was measured is told")]

mod support;

#[path = "attacks/cache.rs"]
mod cache;
#[path = "attacks/field.rs"]
mod field;
#[path = "attacks/http.rs"]
mod http;
#[path = "attacks/policy.rs"]
mod policy;
#[path = "attacks/tls.rs"]
mod tls;
#[path = "attacks/upstream.rs"]
mod upstream;
#[path = "attacks/wire.rs"]
mod wire;

/// The versions behind which the advisories lie.
const FLOORS: [(&str, [u64; 3]); 7] = [
    ("bytes", [1, 11, 1]),
    ("h2", [0, 4, 18]),
    ("hickory-proto", [0, 26, 2]),
    ("hyper", [1, 0, 0]),
    ("lru", [0, 18, 2]),
    ("rustls", [0, 23, 18]),
    ("rustls-webpki", [0, 103, 13]),
];

#[test]
fn versions_are_above_their_advisories() {
    let lock: toml::Table = include_str!("../Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    for (name, floor) in FLOORS {
        let locked: Vec<_> = packages.iter().filter(|package| package["name"].as_str() == Some(name)).collect();
        assert!(!locked.is_empty(), "{name} is not used any more");
        for package in locked {
            let version = package["version"].as_str().unwrap();
            let numbers: Vec<u64> = version.split(['.', '+', '-']).take(3).map(|part| part.parse().unwrap()).collect();
            assert!(numbers >= floor.to_vec(), "{name} {version}");
        }
    }
}
