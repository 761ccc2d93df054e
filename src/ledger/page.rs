//! What a ledger says about one order, as one page that needs nothing else: for a court, on paper or a phone.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::probed::ProbeCase;
use super::report::{Case, Hour, Source, TargetCase, Version};
use super::words::{counted, moment, printable};
use crate::policy::register::Facts;

const STYLE: &str = include_str!("page.css");

/// The most bars of the picture of blocked answers; of more hours several stand in one bar.
const BARS_MAX: usize = 120;

/// The most probes that are shown one by one: the first of them, the last, and of those between what was wrong.
const PROBES_SHOWN_MAX: usize = 1_000;

/// How many of these are the first.
const PROBES_SHOWN_FIRST: usize = 200;

/// How many of these are the last.
const PROBES_SHOWN_LAST: usize = 300;

/// The size of the picture, in its own units.
const PICTURE: (usize, usize) = (720, 120);

/// The page. Everything in it came from outside: all of it is escaped, and nothing of it can act.
#[must_use]
pub fn page(case: &Case) -> String {
    let title = format!("Order {}", case.order);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(security());
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { (text(&title)) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body(case)) } }
        }
    };
    page.into_string()
}

/// Nothing is loaded, run or sent; the page's own style alone counts.
fn security() -> String {
    let hash = BASE64.encode(digest(&SHA256, STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}

fn body(case: &Case) -> Markup {
    html! {
        (heading(case))
        @if let Some(version) = case.versions.last() { (ordered(&version.facts, case)) }
        (effect(case))
        (targets(&case.targets))
        (events(case))
        (amendments(&case.versions))
        (probes(case))
        (blocked(&case.hours))
        (interruptions(case))
        (how_to_check(&case.ledger))
        (proves())
    }
}

/// A text from outside: its direction is its own, and it has no characters that mislead.
fn text(text: &str) -> Markup {
    html! { bdi { (printable(text)) } }
}

fn when(at: Timestamp) -> Markup {
    html! { time.when datetime=(at) { (moment(at)) } }
}

fn when_or(at: Option<Timestamp>, otherwise: &str) -> Markup {
    at.map_or_else(|| html! { (otherwise) }, when)
}

fn heading(case: &Case) -> Markup {
    let clock = &case.clock;
    let bad = match clock.margin_seconds {
        Some(margin) => margin < 0,
        None => clock.effective.is_none() && clock.due.is_some_and(|due| due < case.made),
    };
    html! {
        @if let Some(broken) = &case.ledger.broken {
            div.verdict.bad role="alert" {
                p { strong { "This ledger is broken at " (text(broken)) "." } }
                p { "What stands before that line is shown below. Nothing behind it is proved or shown." }
            }
        }
        h1 { "Order " (text(&case.order)) }
        p.soft { "What the ledger of one DNS server says about it. Made on " (when(case.made)) ". All times are UTC." }
        div.verdict.bad[bad || case.ledger.broken.is_some()] { p { (text(&case.clock.in_words)) } }
    }
}

fn ordered(facts: &Facts, case: &Case) -> Markup {
    let everywhere = facts.jurisdiction.iter().any(|code| code == "*");
    html! {
        h2 { "What was ordered" }
        dl {
            dt { "Issued by" } dd { (text(&facts.issuer)) }
            dt { "Reference" } dd { (facts.reference.as_deref().map_or_else(|| html! { "none given" }, text)) }
            dt { "Applies to clients in" }
            dd { @if everywhere { "every country" } @else { (text(&facts.jurisdiction.join(", "))) } }
            dt { "Received" } dd { (when(facts.received)) }
            dt { "To be carried out by" } dd { (when_or(facts.due, "no deadline")) }
            dt { "Not before" } dd { (when_or(facts.effective, "as soon as loaded")) }
            dt { "Until" } dd { (when_or(facts.expires, "no end named")) }
            dt { "State in its file" } dd { (text(&facts.state)) }
            dt { "Targets" } dd { (facts.targets_total) }
            dt { "Order file, SHA-256" } dd { code { (facts.digest) } }
        }
        @if case.versions.len() > 1 {
            p.soft { "As last amended; the amendments are below." }
        }
    }
}

fn effect(case: &Case) -> Markup {
    let clock = &case.clock;
    html! {
        h2 { "When it took effect on this node" }
        dl {
            dt { "Received" } dd { (when_or(clock.received, "not in this ledger")) }
            dt { "Loaded" } dd { (when_or(clock.loaded, "not in this ledger")) }
            dt { "Carried out from" }
            dd { (when_or(clock.effective, "not in this ledger")) @if let Some(line) = clock.line { " (line " (line) ")" } }
            dt { "Deadline" } dd { (when_or(clock.due, "none")) }
        }
    }
}

fn targets(targets: &[TargetCase]) -> Markup {
    html! {
        @if !targets.is_empty() {
            h2 { "Targets" }
            p.soft {
                "“subtree” is the name and all below it, “exact” the name alone, “any-tld” the name under any public \
                 ending, “address” a prefix of addresses in an answer, “list” the names in a file."
            }
            table {
                thead { tr { th { "Target" } th { "Loaded" } th { "Carried out from" } th { "Taken out" } } }
                tbody { @for case in targets { tr {
                    td { (text(&case.target)) }
                    td data-head="Loaded" { (when(case.loaded)) }
                    td data-head="Carried out from" { (when_or(case.effective, "no line says so")) }
                    td data-head="Taken out" { (when_or(case.removed, "–")) }
                } } }
            }
        }
    }
}

fn events(case: &Case) -> Markup {
    html! {
        h2 { "Course of events" }
        p.soft { "A group of targets is what the order’s file names together; each is in the table above." }
        (moments(case.events.iter().map(|each| (each.line, each.at, each.what.as_str()))))
    }
}

fn moments<'a>(moments: impl Iterator<Item = (u64, Timestamp, &'a str)>) -> Markup {
    html! {
        table {
            thead { tr { th.number { "Line" } th { "Time" } th { "What" } } }
            tbody { @for (line, at, what) in moments { tr {
                td.number data-head="Line" { (line) }
                td data-head="Time" { (when(at)) }
                td { (text(what)) }
            } } }
        }
    }
}

fn amendments(versions: &[Version]) -> Markup {
    let list = |name: &str, targets: &[String]| {
        html! {
            @if !targets.is_empty() {
                p { (name) }
                ul.plain { @for target in targets { li { (text(target)) } } }
            }
        }
    };
    html! {
        @if versions.len() > 1 {
            h2 { "Amendments" }
            @for version in &versions[1..] {
                h3 { (when(version.at)) " (line " (version.line) ")" }
                p.soft { "State " (text(&version.facts.state)) ", file " code { (version.facts.digest) } }
                (list("Added:", &version.added))
                (list("Taken out:", &version.removed))
                @if version.added.is_empty() && version.removed.is_empty() { p { "The targets named stayed the same." } }
            }
        }
    }
}

fn probes(case: &Case) -> Markup {
    let [right, wrong, none] = case.outcomes();
    html! {
        h2 { "Probes" }
        @if case.probes.is_empty() {
            p { "No probe of this order is in this ledger." }
        } @else {
            p {
                (counted(case.probes.len(), "probe")) ": " (right) " answered as the order demands, "
                span.bad[wrong > 0] { (wrong) " wrongly" } ", " (none) " without an answer that says either."
            }
            p.soft {
                "The server asks itself, over the connections that clients use, for names of the order: as a client inside \
                 its jurisdiction, who must be blocked, and as one outside, who must not be. Question and answer are kept \
                 as they were sent, in hexadecimal; the certificate is the SHA-256 of the one that the server showed."
            }
            @if case.probes.len() > PROBES_SHOWN_MAX { (probes_by_day(&case.probes)) }
            table.probes {
                thead { tr { th.number { "Line" } th { "Time" } th { "Asked" } th { "As a client" } th { "Answered" } th { "Outcome" } } }
                tbody { @for each in one_by_one(&case.probes) { (probe(each)) } }
            }
        }
    }
}

/// All, or as many as a page can have.
fn one_by_one(probes: &[ProbeCase]) -> Vec<&ProbeCase> {
    if probes.len() <= PROBES_SHOWN_MAX {
        return probes.iter().collect();
    }
    let (first, rest) = probes.split_at(PROBES_SHOWN_FIRST);
    let (between, last) = rest.split_at(rest.len() - PROBES_SHOWN_LAST);
    let wrong = between.iter().filter(|case| case.probe.outcome == "wrong");
    let wrong = wrong.take(PROBES_SHOWN_MAX - PROBES_SHOWN_FIRST - PROBES_SHOWN_LAST);
    first.iter().chain(wrong).chain(last).collect()
}

/// Every probe is counted, those that are not shown too.
fn probes_by_day(probes: &[ProbeCase]) -> Markup {
    let mut days = BTreeMap::<String, [usize; 3]>::new();
    for case in probes {
        let [right, wrong, none] = days.entry(case.at.strftime("%Y-%m-%d").to_string()).or_default();
        match case.probe.outcome.as_str() {
            "right" => *right += 1,
            "wrong" => *wrong += 1,
            _ => *none += 1,
        }
    }
    html! {
        p {
            "These are more than a page can show. Below, each is counted on its day; one by one stand the first "
            (PROBES_SHOWN_FIRST) ", the last " (PROBES_SHOWN_LAST) ", and of those between the first "
            (PROBES_SHOWN_MAX - PROBES_SHOWN_FIRST - PROBES_SHOWN_LAST) " that were answered wrongly. Every one, with its \
             octets, is in the ledger, and in the same report made with " code { "--json" } "."
        }
        table {
            thead { tr { th { "Day (UTC)" } th.number { "Right" } th.number { "Wrong" } th.number { "No answer that says either" } } }
            tbody { @for (day, [right, wrong, none]) in days { tr {
                td { (day) }
                td.number data-head="Right" { (right) }
                td.number data-head="Wrong" { span.bad[wrong > 0] { (wrong) } }
                td.number data-head="No answer that says either" { (none) }
            } } }
        }
    }
}

fn probe(ProbeCase { line, at, question, answered, probe }: &ProbeCase) -> Markup {
    let side = if probe.inside { "inside" } else { "outside" };
    let country = probe.country.as_deref().unwrap_or("unknown");
    let (good, bad) = (probe.outcome == "right", probe.outcome == "wrong");
    html! {
        tr.has-octets {
            td.number data-head="Line" { (line) }
            td data-head="Time" { (when(*at)) }
            td data-head="Asked" { (text(question)) ", " (text(&probe.transport)) }
            td data-head="As a client" { (side) ", country " (text(country)) }
            td data-head="Answered" { (text(answered)) }
            td data-head="Outcome" {
                span.good[good].bad[bad] { (text(&probe.outcome)) }
                @if let Some(note) = &probe.note { ": " (text(note)) }
            }
        }
        tr.octets { td colspan="6" {
            p.hex { "query " (text(&probe.query)) }
            @if let Some(answer) = &probe.answer { p.hex { "answer " (text(answer)) } }
            @if let Some(certificate) = &probe.certificate { p.hex { "certificate " (certificate) } }
        } }
    }
}

fn blocked(hours: &[Hour]) -> Markup {
    let counted_hours: Vec<_> = hours.iter().filter_map(|hour| Some((hour, hour.blocked?))).collect();
    let total: u64 = counted_hours.iter().map(|(_, blocked)| blocked).sum();
    html! {
        h2 { "Blocked answers" }
        p.soft { "Rounded to tens; fewer than ten in an hour are not told, so that no single client can be seen." }
        @if counted_hours.is_empty() {
            p { "In each of the " (counted(hours.len(), "hour")) " recorded, fewer than ten." }
        } @else {
            p { "About " (total) " in " (counted(hours.len(), "recorded hour")) "; in " (hours.len() - counted_hours.len()) " of these fewer than ten." }
            (picture(hours))
            ol.hours { @for (hour, blocked) in counted_hours {
                li { (hour.from.strftime("%Y-%m-%d %H:%M").to_string()) "–" (hour.until.strftime("%H:%M").to_string()) ": " strong { (blocked) } }
            } }
        }
    }
}

/// A bar for each hour, or for as many hours as it takes to fit.
fn picture(hours: &[Hour]) -> Markup {
    let (width, height) = PICTURE;
    let each = hours.len().div_ceil(BARS_MAX).max(1);
    let bars: Vec<u64> = hours.chunks(each).map(|some| some.iter().filter_map(|hour| hour.blocked).sum()).collect();
    let most = bars.iter().copied().max().unwrap_or_default().max(1);
    let step = width / bars.len().max(1);
    let bar = |blocked: u64| (u128::from(blocked) * (height as u128 - 10) / u128::from(most)) as usize;
    let label = format!("Blocked answers over time, at most {most} in {}", counted(each, "hour"));
    html! {
        figure {
            svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(label) {
                line.axis x1="0" x2=(width) y1=(height - 1) y2=(height - 1) {}
                @for (at, blocked) in bars.iter().enumerate().filter(|(_, blocked)| **blocked > 0) {
                    rect.bar x=(at * step) y=(height - 1 - bar(*blocked)) width=(step.saturating_sub(1).clamp(1, 40)) height=(bar(*blocked)) {}
                }
            }
            figcaption { (label) ", from " (when_or(hours.first().map(|hour| hour.from), "")) " to " (when_or(hours.last().map(|hour| hour.until), "")) "." }
        }
    }
}

fn interruptions(case: &Case) -> Markup {
    html! {
        h2 { "Starts and gaps of the record" }
        p.soft { "While the server did not run, nothing was carried out or recorded here. What the record lacks it says itself." }
        (moments(case.interruptions.iter().map(|each| (each.line, each.at, each.what.as_str()))))
    }
}

fn how_to_check(ledger: &Source) -> Markup {
    let head = ledger.head.map_or_else(|| "none".to_owned(), |head| head.to_string());
    let command = format!("bailiwick ledger verify ledger.jsonl --key {} --head {head}", ledger.key);
    html! {
        h2 { "How to check this" }
        dl {
            dt { "Ledger" } dd { (text(&ledger.file)) }
            dt { "Lines that hold" } dd { (ledger.lines) }
            dt { "First line" } dd { (when_or(ledger.first, "none")) }
            dt { "Last line" } dd { (when_or(ledger.last, "none")) }
            dt { "Head (SHA-256 of the last line)" } dd { code { (head) } }
            dt { "Public key (Ed25519)" } dd { code { (ledger.key) } }
            dt { "Who names the key" } dd { (text(&ledger.key_from)) }
        }
        p { "Take a copy of the ledger's file and run, on any machine:" }
        pre { code { (command) } }
        p {
            "Without that program: each line is JSON. Its “prev” is the SHA-256 of the octets of the line before, without \
             the newline (64 zeros in the first line). Its “sig” is an Ed25519 signature (RFC 8032), in base64, over the \
             octets of the line up to, and without, " code { ",\"sig\":" } "."
        }
    }
}

fn proves() -> Markup {
    html! {
        h2 { "What this proves, and what it does not" }
        ul.plain {
            li { "It proves that whoever holds the key wrote these lines, in this order, and that none of them was changed, \
                  taken out or put in between by anyone who does not hold it." }
            li { "It does not prove by itself that the lines are true. The node's own operator holds the key, and could \
                  have written the whole ledger anew. Against the operator it takes a head (the hash above, or one of \
                  before) that was given to somebody else, or time-stamped, at the time: if a line with that hash is in \
                  the ledger, all lines up to it were written by then and have not been changed since." }
            li { "A ledger whose end was cut off looks whole. Only a head that was kept elsewhere shows the cut." }
            li { "The times are those of the node's own clock." }
            li { "It speaks of one node. Other servers of the same operator have ledgers of their own." }
            li { "The probes show how the node answered at those moments to connections of its own; the counts show about \
                  how many answers were blocked. Neither says who asked: that is written down nowhere." }
        }
    }
}
