//! Plays every file of `tests/scenarios/`: one behaviour each, through the whole pipeline, in simulated time.
//!
//! `SCENARIO=part-of-a-name cargo test --test scenarios -- --nocapture` plays some of them.
#![allow(clippy::print_stdout, reason = "it prints what it plays")]
#![allow(unreachable_pub, missing_docs, reason = "a test has no outside")]

#[path = "scenarios/player/expect.rs"]
mod expect;
#[path = "support/mmdb.rs"]
mod mmdb;
#[path = "scenarios/player/network.rs"]
mod network;
#[path = "scenarios/player/play.rs"]
mod play;
#[path = "scenarios/player/product.rs"]
mod product;
#[path = "scenarios/player/records.rs"]
mod records;
#[path = "scenarios/player/script.rs"]
mod script;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use script::{Scenario, Trouble};

#[test]
fn every_scenario_plays_as_written() {
    let wanted = std::env::var("SCENARIO").unwrap_or_default();
    let files: Vec<_> = files().into_iter().filter(|file| file.to_string_lossy().contains(&wanted)).collect();
    assert!(!files.is_empty(), "no scenario is called {wanted:?}");
    let mut failed = 0;
    for file in &files {
        let troubles = troubles(file);
        println!("{} {}: {}", if troubles.is_empty() { "ok    " } else { "FAILED" }, area(file), script::title(file));
        for Trouble { line, what } in &troubles {
            println!("    {}:{line}: {what}", file.display());
        }
        failed += usize::from(!troubles.is_empty());
    }
    println!("{} scenarios, {failed} failed", files.len());
    assert_eq!(failed, 0, "{failed} of {} scenarios failed; their lines are above", files.len());
}

#[test]
fn every_scenario_can_be_read() {
    for file in files() {
        if let Err(Trouble { line, what }) = read(&file) {
            panic!("{}:{line}: {what}", file.display());
        }
    }
}

/// Plays one file; a panic of the product is a trouble of that file, and the others are still played.
fn troubles(file: &Path) -> Vec<Trouble> {
    let scenario = match read(file) {
        Ok(scenario) => scenario,
        Err(trouble) => return vec![trouble],
    };
    catch_unwind(AssertUnwindSafe(|| play::play(&scenario))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        vec![Trouble { line: 0, what: format!("panicked: {}", text.unwrap_or_default()) }]
    })
}

fn read(file: &Path) -> Result<Scenario, Trouble> {
    let text = std::fs::read_to_string(file).map_err(|error| Trouble { line: 0, what: error.to_string() })?;
    Scenario::read(&text)
}

/// Every scenario file, by name.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for area in ["policy", "cache", "upstream", "local", "wire"] {
        let folder = Path::new("tests/scenarios").join(area);
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "scenario")));
    }
    files.sort();
    files
}

fn area(file: &Path) -> String {
    file.parent().and_then(Path::file_name).map(|area| area.to_string_lossy().into_owned()).unwrap_or_default()
}
