//! The table as people read it, and as machines do.

use std::fmt::Write;

use serde_json::{Value, json};

use super::account::{cores, processor};
use super::measure::{Plan, Sample};
use super::names::{LISTED, ORDERS};
use super::rows::{Found, Target};
use super::series::Series;

/// All that was found, and under which circumstances.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) plan: Plan,
    pub(crate) pinned: String,
    /// How many of the list's names are those of real lists.
    pub(crate) real: usize,
    pub(crate) samples: Vec<Sample>,
    pub(crate) found: Vec<Found>,
    /// What was not measured, and why.
    pub(crate) left_out: Vec<String>,
}

/// Where the rest of what was promised is shown.
const ELSEWHERE: &str = "\
The cost of the policy, the index and a cache entry: cargo bench --bench pipeline, index, cache;
reading and writing messages: cargo bench --bench message; allocations: cargo test --test allocations.";

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

impl Findings {
    /// A page for a terminal; with colours where it is one.
    pub(crate) fn page(&self, coloured: bool) -> String {
        let paint = |colour: &str, text: String| if coloured { format!("{colour}{text}{PLAIN}") } else { text };
        let mut page = paint(BOLD, "What a query costs Bailiwick, beside the bare stack of the same crates".to_owned());
        page.push_str("\n\n");
        for (word, said) in self.head() {
            let _ = writeln!(page, "  {word:<10}{said}");
        }
        let mut group = "";
        for found in &self.found {
            if found.row.group != group {
                group = found.row.group;
                let _ = write!(page, "\n{}\n", paint(BOLD, heading(group)));
            }
            let mark = match found.reached() {
                Some(true) => paint(GREEN, "reached".to_owned()),
                Some(false) => paint(RED, "missed".to_owned()),
                None => String::new(),
            };
            page.push_str(format!("{}{mark}", line(found)).trim_end());
            page.push('\n');
        }
        page.push('\n');
        for left_out in &self.left_out {
            let _ = writeln!(page, "Left out: {left_out}");
        }
        let _ = writeln!(page, "{ELSEWHERE}");
        page
    }

    fn head(&self) -> [(&'static str, String); 4] {
        let Self { plan: Plan { rounds, seconds }, pinned, real, .. } = self;
        let from =
            if *real > 0 { format!("{real} of them real") } else { "made up: ../shared/data is not there".into() };
        [
            ("machine", format!("{} cores, {}", cores().len(), processor())),
            ("pinned", pinned.clone()),
            ("policy", format!("{LISTED} names of a list ({from}), {ORDERS} orders in force")),
            (
                "rounds",
                format!("{rounds} of {seconds} s a figure: median, and range; ratios: the median of the rounds' own"),
            ),
        ]
    }

    /// Everything, each round included.
    pub(crate) fn json(&self) -> Value {
        json!({
            "machine": { "cores": cores().len(), "processor": processor() },
            "pinned": self.pinned,
            "policy": { "names": LISTED, "real_names": self.real, "orders": ORDERS },
            "rounds": self.plan.rounds,
            "seconds": self.plan.seconds,
            "rows": self.found.iter().map(row_json).collect::<Vec<_>>(),
            "left_out": self.left_out,
            "runs": self.samples.iter().map(Sample::json).collect::<Vec<_>>(),
        })
    }
}

fn heading(group: &str) -> String {
    format!("{group:<46}{:<22}{:<31}{:>7}  target", "ours", "against", "ratio")
}

fn line(found: &Found) -> String {
    let against = found.against.as_ref().map(|(word, series)| format!("{word} {}", spread(series))).unwrap_or_default();
    let relation = found.relation().map(|relation| match found.row.target {
        Some(Target::Plus(_)) => format!("{relation:+.1}"),
        _ => format!("{relation:.2}"),
    });
    let target = match found.row.target {
        Some(Target::Times(limit)) => format!("≤ {limit:.2} ×"),
        Some(Target::Plus(limit)) => format!("≤ +{limit:.0}"),
        Some(Target::AtMost(limit)) => format!("≤ {limit}"),
        None => String::new(),
    };
    let (figure, ours, relation) = (found.row.figure, spread(&found.ours), relation.unwrap_or_default());
    format!("  {figure:<44}{ours:<22}{against:<31}{relation:>7}  {target:<10}")
}

/// Median and range; of one figure only itself.
fn spread(series: &Series) -> String {
    let (min, max) = series.range();
    match series.0.len() {
        0 | 1 => digits(series.median()),
        _ => format!("{} ({}–{})", digits(series.median()), digits(min), digits(max)),
    }
}

/// Three digits that mean something.
fn digits(value: f64) -> String {
    let places = match value {
        value if value < 1.0 => 3,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

fn row_json(found: &Found) -> Value {
    let target = match found.row.target {
        Some(Target::Times(times)) => json!({ "times": times }),
        Some(Target::Plus(plus)) => json!({ "plus": plus }),
        Some(Target::AtMost(limit)) => json!({ "at_most": limit }),
        None => Value::Null,
    };
    let against = found.against.as_ref().map(|(word, series)| json!({ "what": word, "figures": series_json(series) }));
    json!({
        "id": found.row.id,
        "group": found.row.group,
        "figure": found.row.figure,
        "ours": series_json(&found.ours),
        "against": against,
        "relation": found.relation(),
        "target": target,
        "reached": found.reached(),
    })
}

fn series_json(series: &Series) -> Value {
    let (min, max) = series.range();
    json!({ "median": series.median(), "min": min, "max": max, "rounds": series.0 })
}
