//! What a look-up costs, from the query's octets on: hits among 1,000 and 1,000,000 entries, misses, and keeping a reply.
//!
//! Time stands still here, so that no copy has had its second: nearly all hits among 1,000 are of copies, and about half of
//! those among 1,000,000.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Duration;

use bailiwick::cache::{Cache, Found, Settings};
use bailiwick::dns::{Name, Qclass, Qtype};
use bailiwick::policy::{Findings, Permitted, Policy, View, load};
use bailiwick::query::{Query, Reply, Transport};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jiff::Timestamp;

const NOW: Duration = Duration::from_secs(1);

/// The questions asked in turn: enough that their entries do not fit the processor's caches.
const ASKED: usize = 100_000;

fn cache() -> Cache {
    let day = Duration::from_secs(86_400);
    Cache::new(&Settings { memory: 1 << 30, ttl_min: Duration::ZERO, ttl_max: day, stale: day })
}

/// A message with the question `www.host-N.example A`, and an answer to it that makes it 110 octets long.
fn message(number: u32, is_response: bool) -> Vec<u8> {
    let label = format!("host-{number:011}");
    let mut octets = vec![0, 0, if is_response { 0x81 } else { 0x01 }, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    octets.extend(b"\x03www");
    octets.push(label.len() as u8);
    octets.extend(label.as_bytes());
    octets.extend(b"\x07example\0\0\x01\0\x01");
    if is_response {
        octets[7] = 4;
        for last in 0..4 {
            octets.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 1, 0x2c, 0, 4, 192, 0, 2, last]);
        }
    }
    octets
}

/// Every query passes: without rules there is nothing that a policy could block.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let loaded = load::load(&load::Settings::default(), &load::Before::default(), Timestamp::UNIX_EPOCH);
    Policy::compile(&loaded, 1, Timestamp::UNIX_EPOCH).unwrap_or_else(|_| unreachable!("no rules"))
});

/// Hands a query over once it is admitted.
fn with_permitted<T>(octets: &[u8], look: impl FnOnce(&Permitted<'_>) -> T) -> T {
    let query = Query::read(octets, Transport::Doh).unwrap_or_else(|_| unreachable!("the query above is well formed"));
    let admitted = POLICY.admit(&query, View { country: None }, Timestamp::UNIX_EPOCH, |_| {});
    look(&admitted.unwrap_or_else(|_| unreachable!("no rules")))
}

fn reply(number: u32) -> Reply<'static> {
    let name = Name::from_text(&format!("www.host-{number:011}.example"));
    let name = name.unwrap_or_else(|_| unreachable!("a name"));
    Reply::read(&message(number, true), &name, Qtype::A, Qclass::IN).unwrap_or_else(|_| unreachable!("a reply"))
}

/// Numbers below `bound` in no order that a prefetcher follows.
fn scattered(bound: u32) -> impl Iterator<Item = u32> {
    (0u32..).map(move |turn| (turn.wrapping_mul(2_654_435_761) >> 4) % bound)
}

/// Asks in turn; the queries stand side by side, so that reading them costs what it does on a connection: little.
fn ask(
    criterion: &mut Criterion,
    title: &str,
    numbers: impl Iterator<Item = u32>,
    mut look: impl FnMut(&Permitted<'_>),
) {
    let queries: Vec<u8> = numbers.flat_map(|number| message(number, false)).collect();
    let mut turn = queries.chunks_exact(message(0, false).len()).cycle();
    criterion.bench_function(title, |bench| {
        bench.iter(|| turn.next().map(|octets| with_permitted(octets, &mut look)));
    });
}

fn look_ups(criterion: &mut Criterion) {
    let cache = cache();
    let mut scratch = Vec::with_capacity(65_535);
    ask(criterion, "reading the query, in each of these", scattered(1_000).take(1_000), |permitted| {
        black_box(permitted);
    });
    for (begin, entries, title) in [(0, 1_000, "hit of 1,000"), (1_000, 1_000_000, "hit of 1,000,000")] {
        for number in begin..entries {
            let octets = message(number, false);
            with_permitted(&octets, |permitted| cache.keep(permitted, &mut reply(number), &Findings::default(), NOW));
        }
        ask(criterion, title, scattered(entries).take(ASKED.min(entries as usize)), |permitted| {
            assert!(matches!(cache.get(permitted, NOW, &mut scratch), Found::Fresh { .. }));
        });
    }
    let absent = scattered(1_000_000).map(|number| 10_000_000 + number).take(ASKED);
    ask(criterion, "miss beside 1,000,000", absent, |permitted| {
        assert!(matches!(cache.get(permitted, NOW, &mut scratch), Found::Nothing));
    });
}

fn keeping(criterion: &mut Criterion) {
    let cache = cache();
    let (octets, reply) = (message(1, false), reply(1));
    let permitted = with_permitted(&octets, |permitted| permitted.to_static());
    criterion.bench_function("keep", |bench| {
        bench.iter_batched(
            || reply.clone(),
            |mut reply| cache.keep(&permitted, &mut reply, &Findings::default(), NOW),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, look_ups, keeping);
criterion_main!(benches);
