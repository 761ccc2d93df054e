//! The arithmetic of `benches/exchange`, which as a bench has no tests of its own.
#![allow(dead_code, unreachable_pub, reason = "the bench uses the rest")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../benches/exchange/account.rs"]
mod account;
#[path = "../benches/exchange/series.rs"]
mod series;

use std::process::{Command, id};

use account::{Used, cores, resident_kib};
use series::Series;

type Failure = Box<dyn std::error::Error>;

#[test]
fn a_median_stands_in_the_middle_whatever_the_order() {
    let median = |values: &[f64]| Series(values.to_vec()).median();
    assert_eq!([median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0]), median(&[7.0])], [2.0, 2.5, 7.0]);
    assert_eq!(median(&[]), 0.0);
    assert_eq!(Series(vec![3.0, 1.0, 2.0]).range(), (1.0, 3.0));
}

#[test]
fn a_ratio_is_of_the_same_round() {
    // The machine has slowed down to a tenth for a round: that says nothing about either.
    let (ours, against) = (Series(vec![2.0, 20.0, 2.2]), Series(vec![1.0, 10.0, 1.0]));
    assert_eq!(ours.with(&against, |ours, against| ours / against).median(), 2.0);
}

#[test]
fn a_process_is_accounted_for() {
    let before = Used::of(id()).unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed().as_millis() < 300 {
        std::hint::black_box(begun);
    }
    std::fs::write("/dev/null", "x").unwrap();
    let used = Used::of(id()).unwrap().since(&before);
    // Other tests of this process run meanwhile, and a tick is a hundredth of a second.
    assert!(used.cpu_us >= 50_000.0 && used.user_us <= used.cpu_us && used.writes >= 1, "{used:?}");
    assert!(resident_kib(id()).unwrap() > 1_000);
    assert!(Used::of(u32::MAX).is_err());
}

#[test]
fn the_cores_are_those_that_programs_may_use() {
    let seen = Command::new("nproc").env_remove("OMP_NUM_THREADS").output().unwrap().stdout;
    assert_eq!(cores().len().to_string(), String::from_utf8(seen).unwrap().trim());
}
