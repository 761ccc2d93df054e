//! The pages as HTML: plain words, one column, and a style that needs nothing from elsewhere.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::PATH;
use super::view::{Kind, Line, Listing, OrderView, Shown, Targets};
use super::words::{Stage, Tense};
use crate::policy::order::Effect;

/// The one style of every page.
pub(super) const STYLE: &str = include_str!("style.css");

/// Where Lumen shows a notice, its number apart.
const LUMEN_NOTICES: &str = "https://lumendatabase.org/notices/";

/// The list of orders.
pub(super) fn list(listing: &Listing) -> Markup {
    let more = listing.total - listing.orders.len();
    let content = html! {
        h1 { "Block orders" }
        p .lead {
            "This DNS resolver carries out the orders of courts and authorities that are listed here, each only where it \
             applies. Every order has a page that says what is blocked, for whom, and what you can do."
        }
        p { "An order that may not be published is not on the list." }
        @if listing.orders.is_empty() { p .card { "No order is public here." } }
        ul .orders {
            @for order in &listing.orders { li .card { (line(order)) } }
        }
        @if more > 0 { p { "And " (more) (if more == 1 { " older one: it" } else { " older ones: each" }) " has its page under the id that a blocked answer names." } }
    };
    page("Block orders", &content)
}

fn line(order: &Line) -> Markup {
    html! {
        (badge(order.state))
        h2 lang=[order.language.as_deref()] { a href={ (PATH) "/" (order.id) } { (order.issuer) } }
        @if let Some(reference) = &order.reference { p lang=[order.language.as_deref()] { (reference) } }
        p { (countries(&order.jurisdiction)) ". Received " (day(order.received)) "." }
        p { code { (order.id) } }
    }
}

/// The page of an order.
pub(super) fn order(view: &OrderView, now: Timestamp) -> Markup {
    let Line { id, issuer, reference, language, state, .. } = &view.line;
    let (language, tense) = (language.as_deref(), state.tense());
    let content = html! {
        p .over { "Block order " code { (id) } }
        h1 lang=[language] { (issuer) }
        @if let Some(reference) = reference { p .reference lang=[language] { (reference) } }
        (badge(*state))
        p .lead { (view.standing) }
        h2 { (tense.of(["Where it applies", "Where it would apply", "Where it applied"])) }
        p { (jurisdiction(view)) }
        h2 { (tense.of(["What is answered", "What would be answered", "What was answered"])) }
        (answer(view))
        h2 { (tense.of(["What it is about", "What it is about", "What it was about"])) }
        div .card { (targets(&view.targets, *state)) }
        h2 { "Dates" }
        div .card { (dates(view, now)) }
        h2 { "What you can do" }
        (steps(view))
        p .back { a href=(PATH) { "All orders" } }
    };
    page(&format!("{issuer}: block order {id}"), &content)
}

/// What is said of a page that is not there.
pub(super) fn not_found() -> Markup {
    let content = html! {
        h1 { "No such order is public here" }
        p .lead { "There is no order of this id, or it may not be published." }
        p { a href=(PATH) { "All orders that are public here" } }
    };
    page("No such order", &content)
}

/// What is said to whoever wants to do more than look.
pub(super) fn wrong_method() -> Markup {
    page("Only to be looked at", &html! { h1 { "This page can only be looked at" } p { "It takes GET and HEAD." } })
}

fn page(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main { (content) }
                footer {
                    p { "Nothing is kept about who looks at these pages. Programs get them as JSON: " code { "Accept: application/json" } "." }
                }
            }
        }
    }
}

fn badge(state: Stage) -> Markup {
    html! { span class={ "state " (state.standing.as_str()) } { (state.badge()) } }
}

/// `Everywhere`, or the codes.
fn countries(jurisdiction: &[String]) -> Markup {
    html! {
        @if jurisdiction == ["*"] { "Everywhere" }
        @else if let [country] = jurisdiction { "Country: " (country) }
        @else { "Countries: " (jurisdiction.join(", ")) }
    }
}

fn jurisdiction(view: &OrderView) -> Markup {
    let (codes, tense) = (&view.line.jurisdiction, view.line.state.tense());
    html! {
        @if codes == &["*"] { "Everywhere: for every client of this resolver." }
        @else {
            @if let [country] = codes.as_slice() { "For clients in the country of the code " strong { (country) } }
            @else { "For clients in the countries of these codes: " strong { (codes.join(", ")) } }
            " (ISO 3166-1). Everyone else " (tense.of(["gets", "would get", "got"])) " the usual answer. "
            @if view.unknown_origin == "block" {
                "A client whose country "
                (tense.of(["cannot be told counts", "cannot be told would count", "could not be told counted"]))
                " as if it were there."
            }
            @else {
                "So "
                (tense.of(["does", "would", "did"])) " a client whose country " (tense.of(["cannot", "cannot", "could not"]))
                " be told."
            }
        }
    }
}

fn answer(view: &OrderView) -> Markup {
    let tense = view.line.state.tense();
    html! {
        @if let Some(before) = view.line.state.before_answer() { p { (before) } }
        p { (effect(view.effect, tense)) }
        p {
            "It also " (tense.of(["says", "would say", "said"])) " why: " code { "Censored" }
            ", and the id of this order (extended DNS errors, RFC 8914)."
        }
    }
}

fn effect(effect: Effect, tense: Tense) -> Markup {
    let says = tense.of(["says", "would say", "said"]);
    let has = tense.of(["has", "has", "had"]);
    html! {
        @match effect {
            Effect::NxDomain => {
                "The answer " (says) " that the name " (tense.of(["does", "does", "did"])) " not exist (" code { "NXDOMAIN" }
                "), or, where one name alone " (tense.of(["is", "is", "was"])) " meant, that it " (has) " no addresses."
            }
            Effect::NoData => {
                "The answer " (says) " that the name " (has) " no addresses, nor anything else that "
                (tense.of(["is", "is", "was"])) " asked for (" code { "NODATA" } ")."
            }
            Effect::Refused => {
                "The question " (tense.of(["is", "would be", "was"])) " refused (" code { "REFUSED" } ")."
            }
            Effect::Address { a, aaaa } => {
                "The answer " (tense.of(["gives", "would give", "gave"])) " another address in place of the name’s own: "
                @if let Some(a) = a { code { (a) } }
                @if a.is_some() && aaaa.is_some() { ", " }
                @if let Some(aaaa) = aaaa { code { (aaaa) } }
                "."
            }
        }
    }
}

fn targets(targets: &Targets, state: Stage) -> Markup {
    let more = targets.total - targets.shown.len();
    html! {
        @if more > 0 {
            p { (targets.total) " names and addresses, of which these are the first " (targets.shown.len()) ":" }
        }
        ul .targets {
            @for shown in &targets.shown { li { (target(shown, state)) } }
            @if targets.lists > 0 { li { (lists(targets)) } }
        }
    }
}

pub(super) fn lists(targets: &Targets) -> Markup {
    html! {
        @if targets.lists == 1 { "A list of " } @else { (targets.lists) " lists, together of " }
        (targets.listed) (if targets.listed == 1 { " name" } else { " names" })
        @if targets.lists == 1 { ", which comes with the order" } @else { ", which come with the order" }
    }
}

/// How it stands is said where its own dates make it stand otherwise than its order.
fn target(shown: &Shown, state: Stage) -> Markup {
    html! {
        @if let Some(unicode) = &shown.unicode { code { bdi { (unicode) } " (" (shown.value) ")" } }
        @else { code { (shown.value) } }
        span {
            (meaning(shown.kind))
            @if let Some(added) = shown.added { "; added " time datetime=(added) { (added.strftime("%-d %B %Y")) } }
        }
        @if shown.state.badge() != state.badge() { (badge(shown.state)) }
    }
}

fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Subtree => "this name and all below it",
        Kind::Exact => "this name alone",
        Kind::AnyTld => "this word before any public suffix, such as .com or .co.uk, and all below it",
        Kind::Address => "answers that lead to these addresses",
    }
}

fn dates(view: &OrderView, now: Timestamp) -> Markup {
    let state = view.line.state;
    let here = if state.is_in_force() { "In effect here since" } else { "Was in effect here from" };
    html! {
        dl {
            dt { "Received" } dd { (moment(view.line.received)) }
            @if let Some(due) = view.due { dt { (state.due()) } dd { (moment(due)) } }
            @if let Some(effective) = view.effective { dt { (state.from(effective, now)) } dd { (moment(effective)) } }
            @if let Some(since) = view.effective_here_since { dt { (here) } dd { (moment(since)) } }
            @for span in &view.intervals {
                dt { (state.interval(span.from, span.until, now)) }
                dd { (moment(span.from)) " to " (moment(span.until)) }
            }
            @if let Some(expires) = view.expires { dt { (state.until(expires, now)) } dd { (moment(expires)) } }
        }
    }
}

fn steps(view: &OrderView) -> Markup {
    html! {
        ul .steps {
            @if view.line.state.is_over() { li { "You need not do anything: this resolver blocks nothing for this order." } }
            @if let Some(about) = &view.about { li { "Read the order: " (link(about)) } }
            @if let Some(lumen) = &view.lumen { li { "Read its notice in the Lumen database: " (notice(lumen)) } }
            @if let Some(digest) = &view.document_sha256 {
                li { "Compare your copy of the paper: ours has the SHA-256 " code { (digest) } }
            }
            @if !view.line.state.is_over() { li { (objection(&view.line)) } }
            @if let Some(contact) = &view.contact { li { (complaint(view.line.state)) (link(contact)) } }
        }
    }
}

fn objection(line: &Line) -> Markup {
    let Line { issuer, reference, language, state, .. } = line;
    html! {
        "Object to the order. "
        @if state.is_in_force() { "The resolver carries it out but did not make it: only " }
        @else { "The resolver did not make it: only " }
        span lang=[language.as_deref()] { (issuer) }
        ", or a court above, can change or lift it."
        @if let Some(reference) = reference { " Name the reference " span lang=[language.as_deref()] { "“" (reference) "”" } "." }
    }
}

fn complaint(state: Stage) -> &'static str {
    if state.is_in_force() {
        "Write to those who run this resolver, where you think that the order is carried out wrongly, or reaches more than it \
         says: "
    } else {
        "Write to those who run this resolver, where you think that something is blocked for this order all the same: "
    }
}

/// An address that can be followed, as long as following it runs nothing.
fn link(address: &str) -> Markup {
    let scheme = address.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    let shown = address.strip_prefix("mailto:").or_else(|| address.strip_prefix("tel:")).unwrap_or(address);
    html! {
        @if ["https", "http", "mailto", "tel"].contains(&scheme.as_str()) { a href=(address) rel="noopener noreferrer" { (shown) } }
        @else { (address) }
    }
}

fn notice(id: &str) -> Markup {
    let is_plain = id.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    html! { @if is_plain { (link(&format!("{LUMEN_NOTICES}{id}"))) } @else { (id) } }
}

/// To the second, as orders begin and end.
fn moment(moment: Timestamp) -> Markup {
    html! { time datetime=(moment) { (moment.strftime("%-d %B %Y, %H:%M:%S UTC")) } }
}

fn day(moment: Timestamp) -> Markup {
    html! { time datetime=(moment) { (moment.strftime("%-d %B %Y")) } }
}
