//! Measures the index with real names: octets a name, reading and compiling them, a hit, a miss.
//!
//! Names are drawn at random over all 1,000,000, and more of them than a core's caches keep the way to; only the six-label
//! listed ones and those beside them are as many as there are. A miss below a top-level domain ends where nothing stands
//! below its second-level name; one beside a listed name goes down to the last label; a foreign one ends at the first. A
//! hit reads the record too, and compares it whole.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick::dns::Name;
use bailiwick::policy::index::{Builder, Covers, Draft, Index, Part, Rule, SourceId};
use bailiwick::policy::list::{self, Format};
use criterion::{Criterion, criterion_group, criterion_main};

/// 730,225 names of real block lists.
const NAMES: &str = "../shared/data/domains/blocklistproject-union-730k.txt";

/// How many names the index of the look-ups has.
const INDEX_NAMES: usize = 1_000_000;

/// How many names are asked for in turn: more than a core's caches keep the way to.
const QUERIES: usize = 1 << 18;

/// How many look-ups are timed at once; their names fit into a first-level cache.
const BATCH: usize = 64;

fn main_benchmark(criterion: &mut Criterion) {
    let Ok(octets) = std::fs::read(Path::new(NAMES)) else {
        eprintln!("skipped: {NAMES} is not there");
        return;
    };
    let names = read(&octets);
    report_octets("730,225 real names", &compile(&names), names.len());
    let million = million(names);
    let part = compile(&million);
    report_octets("1,000,000 names", &part, million.len());
    let index = Index::of(part);

    bench_build(criterion, &octets);
    bench_meet(criterion, "hit, listed name", &index, &listed(&million), true);
    bench_meet(criterion, "hit, six labels, below a listed name", &index, &below_listed(&million), true);
    bench_meet(criterion, "hit, six labels, listed", &index, &listed_six_labels(&million), true);
    bench_meet(criterion, "miss, six labels", &index, &unlisted(&million), false);
    bench_meet(criterion, "miss, six labels, foreign top-level domain", &index, &foreign(&million), false);
    bench_meet(criterion, "miss, six labels, beside a listed name", &index, &beside_listed(&million), false);

    let ordered = beside_orders(&million);
    bench_meet(criterion, "hit, listed name, 1,000 names of orders beside", &ordered, &listed(&million), true);
    bench_meet(criterion, "miss, six labels, 1,000 names of orders beside", &ordered, &unlisted(&million), false);
}

/// The same names as a list's, beside those of orders.
fn beside_orders(names: &[Name]) -> Index {
    let mut draft = Draft::default();
    for (line, name) in (1..).zip(names.iter().step_by(names.len() / 1_000)) {
        draft.name(&name_of(&format!("ordered.{name}")), rule(line));
    }
    draft.build(Arc::new(compile(names)), Arc::default())
}

fn bench_build(criterion: &mut Criterion, octets: &[u8]) {
    let mut group = criterion.benchmark_group("index, 730,225 real names");
    group.sample_size(10);
    group.bench_function("read", |bencher| bencher.iter(|| read(octets).len()));
    group.bench_function("read and compile", |bencher| {
        bencher.iter(|| {
            let mut builder = Builder::default();
            list::read(
                Format::Domains,
                octets,
                |name, line| builder.add(name, rule(line)),
                |fault| panic!("{fault:?}"),
            );
            builder.build()
        });
    });
    group.finish();
}

/// Time of one look-up. The names are asked for in random order, so that the index comes from memory as it does in
/// service; each lies in the processor's cache, as it does in service too: it was just parsed.
fn bench_meet(criterion: &mut Criterion, what: &str, index: &Index, queries: &[Name], hits: bool) {
    let meets = |name: &Name| labels_met(index, name) > 0;
    let queries: Vec<_> = queries.iter().filter(|name| meets(name) == hits).cloned().collect();
    println!("{what}: {} different names", queries.len());
    let mut batches = queries.chunks_exact(BATCH).cycle();
    criterion.bench_function(&format!("index, 1,000,000 names/{what}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let batches = batches.by_ref().take(iterations.div_ceil(BATCH as u64) as usize);
            let time: Duration = batches.map(|batch| time_of_copy(index, batch)).sum();
            // Whole batches were measured.
            time.mul_f64(iterations as f64 / (iterations.div_ceil(BATCH as u64) * BATCH as u64) as f64)
        });
    });
}

/// The copy is what brings the names into the processor's cache; it is not timed.
fn time_of_copy(index: &Index, batch: &[Name]) -> Duration {
    let batch = batch.to_vec();
    let start = Instant::now();
    for name in &batch {
        black_box(labels_met(index, black_box(name)));
    }
    start.elapsed()
}

fn labels_met(index: &Index, name: &Name) -> usize {
    let mut met = 0;
    index.meet(name, |_, labels| met += labels);
    met
}

fn report_octets(what: &str, part: &Part, names: usize) {
    println!("{what}: {:.1} octets a name", part.octets() as f64 / names as f64);
}

fn rule(line: u32) -> Rule {
    Rule { source: SourceId(0), line, covers: Covers::Subtree }
}

fn read(octets: &[u8]) -> Vec<Name> {
    let mut names = Vec::new();
    list::read(Format::Domains, octets, |name, _| names.push(name.clone()), |fault| panic!("{fault:?}"));
    names
}

fn compile(names: &[Name]) -> Part {
    let mut builder = Builder::default();
    for (line, name) in (1..).zip(names) {
        builder.add(name, rule(line));
    }
    builder.build()
}

/// The real names, and as many as are missing to [`INDEX_NAMES`] made of them by a letter before the first label.
fn million(mut names: Vec<Name>) -> Vec<Name> {
    let missing = INDEX_NAMES - names.len();
    let short = shuffled(&names).filter(|name| first_label(name).len() < 60);
    let made: Vec<_> = short.take(missing).map(|name| name_of(&format!("x{name}"))).collect();
    names.extend(made);
    names
}

fn name_of(text: &str) -> Name {
    Name::from_text(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Names in an order that is random but the same in each run.
fn shuffled(names: &[Name]) -> impl Iterator<Item = &Name> {
    // A step that is prime to any number of names below it visits each once.
    const STEP: usize = 2_654_435_761;
    (0..names.len()).map(|at| &names[at * STEP % names.len()])
}

fn listed(names: &[Name]) -> Vec<Name> {
    shuffled(names).take(QUERIES).cloned().collect()
}

/// Six-label names below listed ones.
fn below_listed(names: &[Name]) -> Vec<Name> {
    let below = |name: &Name| name_of(&format!("{}{name}", "w.".repeat(6 - name.labels())));
    shuffled(names).filter(|name| name.labels() < 6).take(QUERIES).map(below).collect()
}

fn listed_six_labels(names: &[Name]) -> Vec<Name> {
    shuffled(names).filter(|name| name.labels() == 6).cloned().collect()
}

/// Six-label names in the top-level domains of listed ones.
fn unlisted(names: &[Name]) -> Vec<Name> {
    let unlisted = |name: &Name| name_of(&format!("w.w.w.w.{}-.{}", first_label(name), name.ancestor(1)));
    shuffled(names).filter(|name| first_label(name).len() < 60).take(QUERIES).map(unlisted).collect()
}

/// Six-label names in top-level domains that no listed name is in.
fn foreign(names: &[Name]) -> Vec<Name> {
    let foreign = |name: &Name| name_of(&format!("w.w.w.w.{}.{}-", first_label(name), first_label(name)));
    shuffled(names).filter(|name| first_label(name).len() < 60).take(QUERIES).map(foreign).collect()
}

/// Six-label names of which listed ones differ in the first label only: the longest walks.
fn beside_listed(names: &[Name]) -> Vec<Name> {
    let sibling = |name: &Name| name_of(&format!("{}-.{}", first_label(name), name.ancestor(5)));
    shuffled(names).filter(|name| name.labels() == 6 && first_label(name).len() < 60).map(sibling).collect()
}

fn first_label(name: &Name) -> String {
    String::from_utf8_lossy(name.label_from_root(name.labels())).into_owned()
}

criterion_group!(benches, main_benchmark);
criterion_main!(benches);
