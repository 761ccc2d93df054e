//! What a person sees: the line while it goes on, the summary with its histogram.

use std::fmt::Write;

use super::engine::{Glance, PATIENCE};
use super::histogram::{Histogram, Nanos};
use super::pace::{Rate, SECOND};
use super::tally::{Second, Tally, Wrong};
use super::target::Protocol;
use super::{Report, Wanted};

/// Columns of the live line's bar, of the histogram's, of the seconds.
const LIVE_BAR: usize = 10;
const HISTOGRAM_BAR: usize = 40;
const SECONDS_BAR: usize = 60;

/// Rows of the histogram at most.
const ROWS_MAX: usize = 16;

/// Steps between a time and its tenfold, the finest first (the E series of IEC 60063, as engineers space values).
const STEPS: [&[u64]; 4] = [
    &[100, 120, 150, 180, 220, 270, 330, 390, 470, 560, 680, 820],
    &[100, 150, 220, 330, 470, 680],
    &[100, 220, 470],
    &[100],
];

/// How it goes, in fewer than 80 columns.
#[must_use]
pub fn live(glance: &Glance) -> String {
    let Some((elapsed, whole)) = glance.elapsed else {
        let (open, wanted) = glance.open;
        return format!("connecting: {} of {} open", number(open as u64), number(wanted as u64));
    };
    let done = elapsed.as_secs_f64() / whole.as_secs_f64();
    let left = whole.saturating_sub(elapsed).as_secs_f64().ceil();
    let errors = if glance.wrongs == 1 { "error" } else { "errors" };
    format!(
        "{:>9}/s  p50 {:>7}  p99 {:>7}  {} {errors}  {}  {left} s left",
        number(glance.rate as u64),
        time(glance.p50),
        time(glance.p99),
        number(glance.wrongs),
        framed(&bar(done, LIVE_BAR), LIVE_BAR),
    )
}

fn framed(bar: &str, columns: usize) -> String {
    format!("\u{2595}{bar:<columns$}\u{258f}")
}

/// What came of it, a page.
#[must_use]
pub fn summary(report: &Report) -> String {
    let Report { wanted, tally, latencies, .. } = report;
    let mut out = format!("{}\n\n", heading(wanted, report.seconds));
    for (name, what) in facts(report) {
        let _ = writeln!(out, "  {name:<12} {what}");
    }
    for what in wrongs(tally, report.unsent) {
        let _ = writeln!(out, "  {:<12} {what}", "error");
    }
    if latencies.count() > 0 {
        out += "\n";
        out += &histogram(latencies);
    }
    out
}

fn heading(wanted: &Wanted, seconds: f64) -> String {
    let protocol = match (wanted.protocol, wanted.get) {
        (Protocol::Dot, _) => "DoT",
        (Protocol::Doh, false) => "DoH by POST",
        (Protocol::Doh, true) => "DoH by GET",
    };
    let rate = match wanted.rate {
        Rate::Max => "as fast as answered".to_owned(),
        Rate::PerSecond(rate) => format!("{} queries/s", number(rate.get().into())),
    };
    let each = match wanted.queries_per_connection {
        0 => String::new(),
        bound => format!(", {} on each", plural(bound, "query")),
    };
    let padded = if wanted.pad { ", padded" } else { "" };
    let target = wanted.target.replace(char::is_control, "\u{fffd}");
    format!(
        "{protocol}{padded}, {target}\n{} \u{d7} {} in flight{each}, {rate}, {seconds:.1} s",
        plural(wanted.connections as u64, "connection"),
        number(wanted.in_flight as u64),
    )
}

fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let Report { tally, latencies, sent, seconds, .. } = report;
    let answered = latencies.count();
    let rate = number(report.queries_per_second() as u64);
    let mut facts = vec![("queries/s", format!("{rate}   {} of {} answered", number(answered), number(*sent)))];
    if answered > 0 {
        facts.push(("latency", percentiles(latencies)));
        let rcodes = tally.rcodes.iter().map(|(rcode, count)| format!("{rcode} {}", number(*count)));
        let rcodes = rcodes.collect::<Vec<_>>().join(", ");
        facts.push(("answers", format!("{rcodes}; {} with records", number(tally.with_records))));
    }
    let [full, resumed] = tally.handshakes;
    let shaken = format!("{} in full, {} resumed", plural(full, "handshake"), number(resumed));
    facts.push(("connections", shaken));
    if tally.first_answers.count() > 0 {
        let [p50, p99] = [0.5, 0.99].map(|share| time(tally.first_answers.percentile(share)));
        facts.push(("first answer", format!("p50 {p50}, p99 {p99} from connect() on")));
    }
    // The last second may be a part of one.
    let whole = &tally.seconds[..tally.seconds.len().min(*seconds as usize)];
    if whole.len() > 1 {
        facts.push(("each second", over_time(whole)));
    }
    if *sent > 0 {
        facts.push(("generator", format!("{:.1} \u{b5}s of CPU a query", report.cpu_us_per_query())));
    }
    facts
}

fn percentiles(latencies: &Histogram) -> String {
    let shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
    let shares = shares.map(|(name, share)| format!("{name} {}", time(latencies.percentile(share))));
    format!("{}  max {}", shares.join("  "), time(latencies.max()))
}

/// The answers of each second, between the fewest and the most.
fn over_time(seconds: &[Second]) -> String {
    const LEVELS: [char; 8] =
        ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
    let (fewest, most) = seconds
        .iter()
        .fold((u64::MAX, 0), |(fewest, most), second| (fewest.min(second.answered), most.max(second.answered)));
    let groups = seconds.chunks(seconds.len().div_ceil(SECONDS_BAR));
    let level = |group: &[Second]| {
        let mean = group.iter().map(|second| second.answered).sum::<u64>() / group.len() as u64;
        LEVELS[((mean * 7 + most / 2) / most.max(1)) as usize]
    };
    format!("{}  {} to {}", groups.map(level).collect::<String>(), number(fewest), number(most))
}

fn wrongs(tally: &Tally, unsent: u64) -> Vec<String> {
    let told = |(wrong, (count, words)): (&Wrong, &(u64, String))| {
        let count = |what| plural(*count, what);
        match wrong {
            Wrong::Connect => format!("{} failed: {words}", count("connect")),
            Wrong::Tls => format!("{} of TLS: {words}", count("failure")),
            Wrong::Http => format!("{} of HTTP or framing: {words}", count("failure")),
            Wrong::Mismatch => format!("{} not to what was asked", count("answer")),
            Wrong::Timeout => format!("{} without an answer in {} s", count("query"), PATIENCE.as_secs()),
            Wrong::Lost => format!("{} lost: {words}", count("query")),
        }
    };
    let mut lines: Vec<_> = tally.wrong.iter().map(told).collect();
    if unsent > 0 {
        let due = plural(unsent, "query");
        lines.push(format!("{due} due and never sent: more than the server, or --in-flight, takes"));
    }
    if lines.is_empty() {
        lines.push("none".to_owned());
    }
    lines
}

/// A row for each step between the shortest and the longest time: how many were up to there, and longer than the row
/// above.
fn histogram(times: &Histogram) -> String {
    let rows = rows(times);
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1);
    let mut out = format!("  {:>10}  {:<HISTOGRAM_BAR$}  {:>8}  {:>11}\n", "up to", "", "", "queries");
    for (edge, count) in rows {
        let share = 100.0 * count as f64 / times.count() as f64;
        let share = if count > 0 && share < 0.01 { "< 0.01 %".to_owned() } else { format!("{share:.2} %") };
        let bar = bar(count as f64 / most as f64, HISTOGRAM_BAR);
        let _ = writeln!(out, "  {:>10}  {bar:<HISTOGRAM_BAR$}  {share:>8}  {:>11}", time(edge), number(count));
    }
    out
}

/// Edges from the finest series that fits, each with the count up to it.
fn rows(times: &Histogram) -> Vec<(Nanos, u64)> {
    let mut edges = STEPS.iter().map(|steps| edges(steps, times.min(), times.max()));
    let fitting = edges.clone().find(|edges| edges.len() <= ROWS_MAX).or_else(|| edges.next_back()).unwrap_or_default();
    let mut rows: Vec<_> = fitting.into_iter().map(|edge| (edge, 0)).collect();
    for (longest, count) in times.buckets() {
        let at = rows.partition_point(|(edge, _)| *edge < longest);
        if let Some((_, sum)) = rows.get_mut(at) {
            *sum += count;
        }
    }
    rows
}

/// The steps from the first that is not below `min` to the first that is not below `max`.
fn edges(steps: &[u64], min: Nanos, max: Nanos) -> Vec<Nanos> {
    // From a microsecond on.
    let powers =
        (1..).map_while(|power| 10_u64.checked_pow(power)).take_while(|power| *power < SECOND * SECOND / 1_000);
    let all = powers.flat_map(|power| steps.iter().map(move |step| step * power));
    let mut edges = Vec::new();
    for edge in all.skip_while(|edge| *edge < min) {
        edges.push(edge);
        if edge >= max {
            break;
        }
    }
    edges
}

/// A bar that fills so much of its columns, to an eighth of one; what is not nothing is seen.
fn bar(share: f64, columns: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "\u{258f}", "\u{258e}", "\u{258d}", "\u{258c}", "\u{258b}", "\u{258a}", "\u{2589}"];
    let eighths = (share.clamp(0.0, 1.0) * columns as f64 * 8.0).round() as usize;
    let eighths = eighths.max(usize::from(share > 0.0));
    "\u{2588}".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// A time in three figures: `98 µs`, `1.24 ms`, `12.4 s`.
fn time(time: Nanos) -> String {
    let (unit, name) = match time {
        0..999_500 => (1e3, "\u{b5}s"),
        999_500..999_500_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = time as f64 / unit;
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    let shown = format!("{value:.digits$}");
    // A whole edge of the histogram is shown as one.
    let shown = if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.') } else { &shown };
    format!("{shown} {name}")
}

/// A count with its thousands apart.
fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count of things.
fn plural(count: u64, thing: &str) -> String {
    let things = match thing.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{thing}s"),
    };
    format!("{} {}", number(count), if count == 1 { thing } else { &things })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_have_three_figures() {
        for (nanos, shown) in [
            (0, "0 \u{b5}s"),
            (1_234, "1.23 \u{b5}s"),
            (98_000, "98 \u{b5}s"),
            (98_760, "98.8 \u{b5}s"),
            (999_499, "999 \u{b5}s"),
            (999_999, "1 ms"),
            (1_500_000, "1.5 ms"),
            (123_456_789, "123 ms"),
            (999_999_999, "1 s"),
            (12_345_678_901, "12.3 s"),
        ] {
            assert_eq!(time(nanos), shown);
        }
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [plural(1, "query"), plural(2, "query"), plural(0, "connect")],
            ["1 query", "2 queries", "0 connects"]
        );
    }

    #[test]
    fn bars_fill_their_columns() {
        assert_eq!([0.0, 0.001, 0.5, 1.0, 2.0].map(|share| bar(share, 4)), ["", "\u{258f}", "██", "████", "████"]);
        assert_eq!(bar(0.40625, 4), "█▋");
    }

    #[test]
    fn a_histogram_is_a_page() {
        let mut times = Histogram::default();
        for (value, count) in [(52_000, 10), (66_000, 400), (90_000, 800), (140_000, 200), (900_000, 1)] {
            (0..count).for_each(|_| times.record(value));
        }
        let shown = histogram(&times);
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{shown}");
        assert!(lines.len() <= ROWS_MAX + 1);
        let row = |edge: &str| lines.iter().find(|line| line.trim_start().starts_with(edge)).unwrap().to_owned();
        assert!(
            row("100 \u{b5}s").contains(&"█".repeat(HISTOGRAM_BAR)) && row("100 \u{b5}s").ends_with("800"),
            "{shown}"
        );
        assert!(row("68 \u{b5}s").ends_with("  28.35 %          400"), "{shown}");
        assert!(row("1 ms").contains('\u{258f}') && row("1 ms").ends_with("  1"), "{shown}");
        let counted: u64 = rows(&times).iter().map(|(_, count)| count).sum();
        assert_eq!(counted, times.count(), "every time is in a row");
    }

    #[test]
    fn every_span_of_times_fits_the_page() {
        for (min, max) in [(0, 0), (1, 2), (999, 1_001), (50_000, 60_000), (1, 100_000_000_000), (1, u64::MAX)] {
            let mut times = Histogram::default();
            times.record(min);
            times.record(max);
            let rows = rows(&times);
            assert!(!rows.is_empty() && rows.len() <= ROWS_MAX, "{min} {max}: {}", rows.len());
            assert_eq!(rows.iter().map(|(_, count)| count).sum::<u64>(), 2, "{min} {max}");
        }
    }

    #[test]
    fn a_line_says_how_it_goes() {
        let (p50, p99) = (98_000, 310_000);
        let mut glance = Glance { open: (312, 10_000), elapsed: None, rate: 96_412.7, p50, p99, wrongs: 1 };
        assert_eq!(live(&glance), "connecting: 312 of 10,000 open");
        glance.elapsed = Some((Duration::from_millis(5_500), Duration::from_secs(11)));
        assert_eq!(live(&glance), "   96,412/s  p50   98 \u{b5}s  p99  310 \u{b5}s  1 error  ▕█████     ▏  6 s left");
        glance.wrongs = 1_234_567;
        assert!(live(&glance).chars().count() < 80, "{}", live(&glance));
    }

    #[test]
    fn seconds_are_drawn_between_none_and_the_most() {
        let seconds = |counts: &[u64]| {
            counts.iter().map(|answered| Second { answered: *answered, ..Second::default() }).collect::<Vec<_>>()
        };
        assert_eq!(over_time(&seconds(&[1_000, 500, 0, 1_000])), "█▅▁█  0 to 1,000");
        assert_eq!(over_time(&seconds(&[19_998, 20_001])), "██  19,998 to 20,001");
        let many = over_time(&seconds(&[7; 3_600]));
        assert_eq!(many.chars().take_while(|level| *level == '█').count(), SECONDS_BAR);
    }
}
