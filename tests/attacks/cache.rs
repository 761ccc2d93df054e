//! attacks.md, the cache.

use std::net::Ipv4Addr;

use bailiwick::dns::Qtype;

use crate::field::{one_worker, others_are_served, resident};
use crate::support::{Play, Upstream, query};

/// Octets of the cache in this test.
const MEMORY: usize = 8 << 20;

/// What a process takes besides: stacks, TLS, the allocator's own.
const BESIDES: usize = 40 << 20;

/// Large answers of many sizes to names that nobody asks for twice: six times what the cache may take.
#[test]
fn memory_is_bounded_by_octets_and_not_by_entries() {
    let upstream = Upstream::start(|asked| {
        let number: u32 = asked.name.trim_start_matches("large").split('.').next().unwrap_or("").parse().unwrap_or(0);
        let count = if asked.name.starts_with("large") { 100 + number * 37 % 1_900 } else { 1 };
        let records: Vec<_> = (0..count).map(|at| asked.a(300, Ipv4Addr::from(0xc000_0201 + at))).collect();
        Play::Respond(asked.response(0, &records))
    });
    let server = one_worker(&upstream, "[cache]\nmemory = \"8MiB\"");
    let before = resident(&server);
    let mut dot = server.dot();
    let (mut octets, mut grown) = (0, 0);
    for round in 0..60 {
        let names = (0..50).map(|id| query(id, &format!("large{}.example", round * 50 + id), Qtype::A));
        dot.ask(&names.collect::<Vec<_>>());
        octets += (0..50).map(|_| dot.receive().octets.len()).sum::<usize>();
        grown = grown.max(resident(&server).saturating_sub(before));
    }
    assert!(octets > 5 * MEMORY, "{octets} octets of answers");
    assert!(grown < MEMORY + BESIDES, "memory grew by {grown} octets");
    others_are_served(&server);
}
