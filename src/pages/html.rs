//! The pages as HTML: plain words, one column, and a style that needs nothing from elsewhere.

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::PATH;
use super::view::{Kind, Line, Listing, OrderView, Shown, Targets};
use crate::policy::order::{Effect, Standing};

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
        @if more > 0 { p { "And " (more) " older ones: each has its page under the id that a blocked answer names." } }
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
pub(super) fn order(view: &OrderView) -> Markup {
    let Line { id, issuer, reference, language, state, .. } = &view.line;
    let language = language.as_deref();
    let content = html! {
        p .over { "Block order " code { (id) } }
        h1 lang=[language] { (issuer) }
        @if let Some(reference) = reference { p .reference lang=[language] { (reference) } }
        (badge(*state))
        p .lead { (standing(*state)) }
        h2 { "Where it applies" }
        p { (jurisdiction(view)) }
        h2 { "What is answered" }
        p { (effect(view.effect)) }
        p { "It also says why: " code { "Censored" } ", and the id of this order (extended DNS errors, RFC 8914)." }
        h2 { "What it is about" }
        div .card { (targets(&view.targets, *state)) }
        h2 { "Dates" }
        div .card { (dates(view)) }
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

fn badge(state: Standing) -> Markup {
    let words = match state {
        Standing::Draft => "In preparation",
        Standing::Trial => "On trial",
        Standing::Waiting => "Not yet in force",
        Standing::InForce => "In force",
        Standing::Suspended => "Suspended",
        Standing::Expired => "Ended",
        Standing::Lifted => "Lifted",
    };
    html! { span class={ "state " (state.as_str()) } { (words) } }
}

fn standing(state: Standing) -> &'static str {
    match state {
        Standing::Draft => "This order is being prepared. It blocks nothing.",
        Standing::Trial => "This order is tried out: what it would block is counted, and nothing is blocked.",
        Standing::Waiting => "This order is not carried out at the moment. It will be at the times given below.",
        Standing::InForce => "This order is carried out now.",
        Standing::Suspended => "This order is suspended. It blocks nothing for now.",
        Standing::Expired => "This order has ended. It blocks nothing any more.",
        Standing::Lifted => "This order was lifted. It blocks nothing any more.",
    }
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
    let codes = &view.line.jurisdiction;
    html! {
        @if codes == &["*"] { "Everywhere: for every client of this resolver." }
        @else {
            @if let [country] = codes.as_slice() { "For clients in the country of the code " strong { (country) } }
            @else { "For clients in the countries of these codes: " strong { (codes.join(", ")) } }
            " (ISO 3166-1). Everyone else gets the usual answer. "
            @if view.unknown_origin == "block" { "A client whose country cannot be told counts as if it were there." }
            @else { "So does a client whose country cannot be told." }
        }
    }
}

fn effect(effect: Effect) -> Markup {
    html! {
        @match effect {
            Effect::NxDomain => {
                "The answer says that the name does not exist (" code { "NXDOMAIN" } "), or, where one name alone is meant, that \
                 it has no addresses."
            }
            Effect::NoData => {
                "The answer says that the name has no addresses, nor anything else that is asked for (" code { "NODATA" } ")."
            }
            Effect::Refused => { "The question is refused (" code { "REFUSED" } ")." }
            Effect::Address { a, aaaa } => {
                "The answer gives another address in place of the name’s own: "
                @if let Some(a) = a { code { (a) } }
                @if a.is_some() && aaaa.is_some() { ", " }
                @if let Some(aaaa) = aaaa { code { (aaaa) } }
                "."
            }
        }
    }
}

fn targets(targets: &Targets, state: Standing) -> Markup {
    let more = targets.total - targets.shown.len();
    html! {
        @if more > 0 {
            p { (targets.total) " names and addresses, of which these are the first " (targets.shown.len()) ":" }
        }
        ul .targets {
            @for shown in &targets.shown { li { (target(shown, state)) } }
            @if targets.lists == 1 { li { "A list that comes with the order, of this many names: " (targets.listed) } }
            @else if targets.lists > 1 { li { (targets.lists) " lists that come with the order, of this many names: " (targets.listed) } }
        }
    }
}

/// How it stands is said where its own dates make it stand otherwise than its order.
fn target(shown: &Shown, state: Standing) -> Markup {
    html! {
        code { (shown.value) }
        span {
            (meaning(shown.kind))
            @if let Some(added) = shown.added { "; added " time datetime=(added) { (added.strftime("%-d %B %Y")) } }
        }
        @if shown.state != state { (badge(shown.state)) }
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

fn dates(view: &OrderView) -> Markup {
    html! {
        dl {
            dt { "Received" } dd { (moment(view.line.received)) }
            @if let Some(due) = view.due { dt { "To be carried out by" } dd { (moment(due)) } }
            @if let Some(effective) = view.effective { dt { "In effect from" } dd { (moment(effective)) } }
            @if let Some(since) = view.effective_here_since { dt { "In effect here since" } dd { (moment(since)) } }
            @for span in &view.intervals { dt { "Carried out" } dd { (moment(span.from)) " to " (moment(span.until)) } }
            @if let Some(expires) = view.expires { dt { "Ends" } dd { (moment(expires)) } }
        }
    }
}

fn steps(view: &OrderView) -> Markup {
    let Line { issuer, reference, language, .. } = &view.line;
    html! {
        ul .steps {
            @if let Some(about) = &view.about { li { "Read the order: " (link(about)) } }
            @if let Some(lumen) = &view.lumen { li { "Read its notice in the Lumen database: " (notice(lumen)) } }
            @if let Some(digest) = &view.document_sha256 {
                li { "Compare your copy of the paper: ours has the SHA-256 " code { (digest) } }
            }
            li {
                "Object to the order. The resolver carries it out but did not make it: only "
                span lang=[language.as_deref()] { (issuer) }
                ", or a court above, can change or lift it."
                @if let Some(reference) = reference { " Name the reference " span lang=[language.as_deref()] { "“" (reference) "”" } "." }
            }
            @if let Some(contact) = &view.contact {
                li {
                    "Write to those who run this resolver, where you think that the order is carried out wrongly, or reaches more \
                     than it says: " (link(contact))
                }
            }
        }
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
