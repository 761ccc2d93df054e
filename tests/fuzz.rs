//! Fuzzes every parser as a plain test: each seed, each seed cut at every octet, and seeds changed at random.
//!
//! Two thousand changed seeds a parser; `BOLERO_RANDOM_TEST_TIME_MS=5000 cargo test --test fuzz` goes on for a time.
//! `cargo fuzz run query tests/fuzz/seeds/query` goes on with coverage, on a nightly toolchain; see `fuzz/`.
#![allow(unreachable_pub, clippy::expect_used, reason = "a test has no outside, and fails by panicking")]

#[path = "fuzz/targets.rs"]
mod targets;

use std::path::Path;

/// How many changed seeds each parser gets where no time is said.
const CHANGED_SEEDS: usize = 2_000;

macro_rules! fuzzed {
    ($($target:ident)+) => {
        $(#[test]
        fn $target() {
            let seeds = seeds(stringify!($target));
            for seed in &seeds {
                for cut in 0..=seed.len() {
                    targets::$target(&seed[..cut]);
                }
            }
            let test = bolero::check!().with_type::<(u8, Vec<(u16, u8, u8)>)>();
            let timed = std::env::var_os("BOLERO_RANDOM_TEST_TIME_MS").is_some();
            let test = if timed { test } else { test.with_iterations(CHANGED_SEEDS) };
            test.for_each(|(number, edits)| targets::$target(&changed(&seeds, *number, edits)));
        })+

        /// A parser without seeds would be fuzzed with nothing.
        #[test]
        fn every_target_is_also_one_of_cargo_fuzz() {
            for target in [$(stringify!($target)),+] {
                let file = Path::new("fuzz/fuzz_targets").join(target).with_extension("rs");
                assert!(file.exists(), "{} is missing", file.display());
            }
        }
    };
}

fuzzed!(query reply records name name_text opt svcb_hints list_domains list_hosts order config dot_frames doh_request
    http2_frames http2_responses resolv_conf explain_query database proxy_header forwarded accept signature ledger_line);

/// The seeds of a target, by file name.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new("tests/fuzz/seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a folder that can be read").path())
        .collect();
    files.sort();
    let seeds: Vec<_> = files.iter().map(|file| std::fs::read(file).expect("a seed that can be read")).collect();
    assert!(!seeds.is_empty(), "{} has no seed", folder.display());
    seeds
}

/// A seed with octets replaced, put in, taken out and repeated.
fn changed(seeds: &[Vec<u8>], number: u8, edits: &[(u16, u8, u8)]) -> Vec<u8> {
    let mut octets = seeds[usize::from(number) % seeds.len()].clone();
    for (place, kind, value) in edits {
        let at = usize::from(*place) % (octets.len() + 1);
        match kind % 5 {
            0 | 1 if at < octets.len() => octets[at] = *value,
            2 => octets.insert(at, *value),
            3 if at < octets.len() => drop(octets.remove(at)),
            _ => {
                let end = octets.len().min(at + usize::from(*value));
                octets.extend_from_within(at..end);
            }
        }
    }
    octets
}
