//! What happened, in a sentence for people.

use jiff::Timestamp;

use super::{Event, Note, Probe};
use crate::policy::register::{Facts, Happening};

/// How many targets or inputs a sentence names; the rest are counted.
const NAMED_MAX: usize = 5;

/// An event in a sentence, without what a terminal would obey.
#[must_use]
pub fn sentence(event: &Event) -> String {
    let sentence = match event {
        Event::Order(happening) => happened(happening),
        Event::Node(note) => noted(note),
    };
    printable(&sentence)
}

/// A text without control characters, without what ends a line, and without what turns the direction of what follows
/// (Unicode Bidirectional Algorithm): it came from outside, and must not look like something else.
#[must_use]
pub fn printable(text: &str) -> String {
    let misleads = |each: char| {
        each.is_control()
            || matches!(each, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.replace(misleads, "\u{fffd}")
}

/// A moment, to the second, UTC.
#[must_use]
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn happened(happening: &Happening) -> String {
    match happening {
        Happening::OrderLoaded(facts) => format!("order {} loaded: {}", facts.order, order(facts)),
        Happening::OrderAmended(facts) => format!("order {} amended: {}", facts.order, order(facts)),
        Happening::OrderApproved { order, digest, by } => {
            format!("order {order} approved by {}, file {digest}", by.join(", "))
        }
        Happening::OrderActivated { order, generation, targets, due, .. } => {
            let due = due.map_or_else(String::new, |due| format!(", due {}", moment(due)));
            let count = counted(targets.len(), "group");
            format!("order {order} carried out from now on: {count} of targets, by policy generation {generation}{due}")
        }
        Happening::OrderSuspended { order } => format!("order {order} suspended"),
        Happening::OrderLifted { order } => format!("order {order} lifted"),
        Happening::OrderExpired { order } => format!("order {order} expired"),
        Happening::OrderRemoved { order } => format!("order {order} removed: its file is gone"),
    }
}

fn order(facts: &Facts) -> String {
    let due = facts.due.map_or_else(|| "no deadline".to_owned(), |due| format!("due {}", moment(due)));
    let (issuer, state) = (&facts.issuer, &facts.state);
    let (received, targets) = (moment(facts.received), counted(facts.targets_total, "target"));
    let jurisdiction = facts.jurisdiction.join(" ");
    format!("{state}, {issuer}, for {jurisdiction}, received {received}, {due}, {targets}, file {}", facts.digest)
}

fn noted(note: &Note) -> String {
    match note {
        Note::Probe(probe) => probed(probe),
        Note::Generation { generation, inputs } => {
            let named: Vec<_> =
                inputs.iter().take(NAMED_MAX).map(|input| format!("{} {}", input.kind, input.id)).collect();
            let more = inputs.len() - named.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("policy generation {generation} in force, made from {}{more}", named.join(", "))
        }
        Note::Counts { from, until, blocked } => {
            let counts: Vec<_> = blocked.iter().map(|(id, count)| format!("{id} about {count}")).collect();
            let counts = if counts.is_empty() { "under 10 for each order".to_owned() } else { counts.join(", ") };
            format!("answers blocked from {} until {}: {counts}", moment(*from), moment(*until))
        }
        Note::TailRepaired { octets, digest } => format!("a torn last line of {octets} octets was cut off, {digest}"),
        Note::EventsLost { events } => format!("{} lost before this line", counted(*events as usize, "event")),
        Note::Started { version, key } => format!("bailiwick {version} started, key {key}"),
    }
}

fn probed(probe: &Probe) -> String {
    let Probe { order, target, transport, outcome, .. } = probe;
    let side = if probe.inside { "inside" } else { "outside" };
    let country = probe.country.as_deref().unwrap_or("country unknown");
    let note = probe.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
    format!("probe of order {order}, target {target}, over {transport} from {side} ({country}): {outcome}{note}")
}

/// `1 event`, `2 events`.
#[must_use]
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// A span in its two largest units: `2 days 3 hours`.
#[must_use]
pub fn span(seconds: i64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let mut left = seconds.unsigned_abs();
    let mut parts = Vec::new();
    for (size, name) in UNITS {
        if left >= size && parts.len() < 2 {
            parts.push(counted(usize::try_from(left / size).unwrap_or(usize::MAX), name));
            left %= size;
        } else if !parts.is_empty() {
            break;
        }
    }
    if parts.is_empty() { "less than a second".to_owned() } else { parts.join(" ") }
}
