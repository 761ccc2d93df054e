//! What the public is shown of an order, in the words of its JSON.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use super::words::{Stage, unicode_of};
use crate::policy::PolicyOrder;
use crate::policy::index::Covers;
use crate::policy::order::{Effect, Order, Target};

/// The most names, labels and prefixes of an order that are shown; the rest are counted.
pub(super) const TARGETS_SHOWN_MAX: usize = 100;

/// The most orders on the list, the newest; the others have their pages all the same.
pub(super) const ORDERS_SHOWN_MAX: usize = 500;

/// The list of orders.
#[derive(Debug, Serialize)]
pub(super) struct Listing {
    /// How many there are.
    pub(super) total: usize,
    /// The first of them, by when they were received, the newest first.
    pub(super) orders: Vec<Line>,
}

/// An order of the list.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) issuer: String,
    pub(super) reference: Option<String>,
    pub(super) jurisdiction: Vec<String>,
    pub(super) state: Stage,
    pub(super) received: Timestamp,
    #[serde(skip)]
    pub(super) language: Option<String>,
}

impl Listing {
    pub(super) fn new<'p>(orders: impl Iterator<Item = &'p PolicyOrder>, now: Timestamp) -> Self {
        let mut orders: Vec<&Order> = orders.map(|order| &order.loaded.order).collect();
        orders.sort_by(|one, other| other.received.cmp(&one.received).then_with(|| one.id.cmp(&other.id)));
        let lines = orders.iter().take(ORDERS_SHOWN_MAX).map(|order| Line::new(order, now)).collect();
        Self { total: orders.len(), orders: lines }
    }
}

impl Line {
    fn new(order: &Order, now: Timestamp) -> Self {
        Self {
            id: order.id.clone(),
            issuer: order.issuer.clone(),
            reference: order.reference.clone(),
            jurisdiction: order.jurisdiction.codes(),
            state: Stage::of(order, now),
            received: order.received,
            language: order.language.clone(),
        }
    }
}

/// An order's page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct OrderView {
    #[serde(flatten)]
    pub(super) line: Line,
    /// How it stands, in the words of the page.
    pub(super) standing: &'static str,
    pub(super) unknown_origin: &'static str,
    #[serde(serialize_with = "effect")]
    pub(super) effect: Effect,
    pub(super) due: Option<Timestamp>,
    pub(super) effective: Option<Timestamp>,
    pub(super) effective_here_since: Option<Timestamp>,
    pub(super) expires: Option<Timestamp>,
    pub(super) intervals: Vec<Span>,
    pub(super) about: Option<String>,
    pub(super) contact: Option<String>,
    pub(super) lumen: Option<String>,
    pub(super) document_sha256: Option<String>,
    pub(super) targets: Targets,
}

/// A time in which an order is carried out.
#[derive(Debug, Serialize)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// What an order is about.
#[derive(Debug, Serialize)]
pub(super) struct Targets {
    /// How many names, labels and prefixes its file has.
    pub(super) total: usize,
    /// The first of them.
    pub(super) shown: Vec<Shown>,
    /// How many lists of names it has beside.
    pub(super) lists: usize,
    /// How many names are on them.
    pub(super) listed: usize,
}

/// One of them.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) kind: Kind,
    pub(super) value: String,
    /// The value as people write it, where it is an internationalised name.
    pub(super) unicode: Option<String>,
    /// When it came to the order, where that was later.
    pub(super) added: Option<Date>,
    /// How it stands by its own dates.
    pub(super) state: Stage,
}

/// What of it is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// A name and all below it.
    Subtree,
    /// A name alone.
    Exact,
    /// A label under any public suffix.
    AnyTld,
    /// Addresses in an answer.
    Address,
}

impl OrderView {
    pub(super) fn new(policy_order: &PolicyOrder, since: Option<Timestamp>, now: Timestamp) -> Self {
        let order = &policy_order.loaded.order;
        let spans = order.intervals.iter().map(|each| Span { from: each.from, until: each.until });
        let state = Stage::of(order, now).known_since(since);
        Self {
            line: Line { state, ..Line::new(order, now) },
            standing: state.sentence(),
            unknown_origin: if order.blocks_unknown_origin { "block" } else { "spare" },
            effect: order.effect,
            due: order.due,
            effective: order.effective,
            effective_here_since: since,
            expires: order.expires,
            intervals: spans.collect(),
            about: order.about.clone(),
            contact: order.contact.clone(),
            lumen: order.lumen.clone(),
            document_sha256: order.document.as_ref().map(|document| document.sha256.to_string()),
            targets: Targets::new(order, policy_order.rules, now),
        }
    }
}

impl Targets {
    /// `rules`: how many there are, those on its lists included.
    fn new(order: &Order, rules: usize, now: Timestamp) -> Self {
        let targets = &order.targets;
        let count = |target: &Target| target.names.len() + target.labels.len() + target.addresses.len();
        let total = targets.iter().map(count).sum();
        Self {
            total,
            shown: targets.iter().flat_map(|target| shown(order, target, now)).take(TARGETS_SHOWN_MAX).collect(),
            lists: targets.iter().filter(|target| target.list.is_some()).count(),
            listed: rules.saturating_sub(total),
        }
    }
}

/// What a target is about, made as far as it is taken: an order may have very many names.
fn shown<'o>(order: &Order, target: &'o Target, now: Timestamp) -> impl Iterator<Item = Shown> + use<'o> {
    let (added, state) = (target.added, Stage::of_target(order, target, now));
    let names = target.names.iter().map(|(name, covers, _)| match covers {
        Covers::Subtree => (Kind::Subtree, name.to_string()),
        Covers::Exact => (Kind::Exact, name.to_string()),
    });
    let labels = target.labels.iter().map(|(label, _)| (Kind::AnyTld, label.to_string()));
    let addresses = target.addresses.iter().map(|(net, _)| (Kind::Address, net.to_string()));
    names.chain(labels).chain(addresses).map(move |(kind, value)| {
        let unicode = unicode_of(&value);
        Shown { kind, value, unicode, added, state }
    })
}

/// As an order file has it.
fn effect<S: serde::Serializer>(effect: &Effect, serializer: S) -> Result<S::Ok, S::Error> {
    match effect {
        Effect::NxDomain => serializer.serialize_str("nxdomain"),
        Effect::NoData => serializer.serialize_str("nodata"),
        Effect::Refused => serializer.serialize_str("refused"),
        Effect::Address { a, aaaa } => {
            let told = [("a", a.map(|a| a.to_string())), ("aaaa", aaaa.map(|aaaa| aaaa.to_string()))];
            serializer.collect_map(told.into_iter().filter_map(|(key, address)| Some((key, address?))))
        }
    }
}
