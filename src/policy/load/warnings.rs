//! Warns of exemptions and orders that do not do what their writer may think.

use jiff::Timestamp;

use super::{Bulk, Exemption, Settings};
use crate::dns::Name;
use crate::policy::index::{Covers, suffix};
use crate::policy::order::{Order, Standing};
use crate::policy::origin;

/// Of exemptions that have ended, or are to beat an order that there is not, or do not reach an order that blocks their
/// name; and of each that beats an order.
pub(super) fn of_exemptions(settings: &Settings, orders: &[&Order], bulk: &Bulk, now: Timestamp) -> Vec<String> {
    let warn = |exemption: &Exemption| {
        let whats = [
            has_ended(exemption, now),
            overrides(exemption, orders, now),
            does_not_reach(exemption, &settings.exemptions, orders, bulk, now),
        ];
        let (Exemption { name, .. }, (file, line)) = (exemption, &exemption.place);
        let subject = format!("{}:{line}: exemption {name}", file.display());
        whats.into_iter().flatten().map(move |what| format!("{subject} {what}"))
    };
    settings.exemptions.iter().flat_map(warn).collect()
}

fn has_ended(exemption: &Exemption, now: Timestamp) -> Option<String> {
    let end = exemption.expires.filter(|_| !exemption.holds(now))?;
    Some(format!("has ended at {end}; remove it"))
}

/// A slip in the id would leave the name blocked: told whether or not the exemption has ended.
fn overrides(exemption: &Exemption, orders: &[&Order], now: Timestamp) -> Option<String> {
    let id = exemption.overrides_order.as_ref()?;
    match orders.iter().find(|order| order.id == *id) {
        None => Some(format!("overrides order \"{id}\", which is not loaded")),
        Some(order) if exemption.holds(now) && is_carried_out(order, now) => Some(format!("overrides order {id}")),
        Some(_) => None,
    }
}

/// The first order that blocks the name all the same, and how many more do; none that another exemption beats there.
fn does_not_reach(
    exemption: &Exemption,
    exemptions: &[Exemption],
    orders: &[&Order],
    bulk: &Bulk,
    now: Timestamp,
) -> Option<String> {
    if !exemption.holds(now) {
        return None;
    }
    let beats =
        |other: &Exemption, order: &Order| other.beats(&order.id, now) && exemption.name.is_at_or_below(&other.name);
    let is_beaten = |order: &Order| exemptions.iter().any(|other| beats(other, order));
    let blocks =
        |order: &&&Order| is_carried_out(order, now) && meets(order, bulk, &exemption.name) && !is_beaten(order);
    let mut blocking = orders.iter().filter(blocks);
    let id = &blocking.next()?.id;
    let more = match blocking.count() {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    Some(format!("does not reach order {id}{more}, which blocks it too; only overrides-order = \"{id}\" does"))
}

/// Now, or once it begins.
fn is_carried_out(order: &Order, now: Timestamp) -> bool {
    matches!(order.standing(now), Standing::InForce | Standing::Waiting)
}

/// Whether an order has a target at a name, below it, or above it with all that is below. Of its lists only what is at
/// the name or above it: a list is not read through for a warning. What name leads to an address nobody knows.
fn meets(order: &Order, bulk: &Bulk, name: &Name) -> bool {
    let mut names = order.targets.iter().flat_map(|target| &target.names);
    let mut labels = order.targets.iter().flat_map(|target| &target.labels);
    names.any(|(target, covers, _)| {
        target.is_at_or_below(name) || (*covers == Covers::Subtree && name.is_at_or_below(target))
    }) || labels.any(|(label, _)| suffix::reaches(label, name))
        || bulk.lists_of(order, name)
}

/// Of orders that cannot apply to anyone, now or once they begin: no client is told to be in one of their countries.
pub(super) fn of_origin(settings: &Settings, orders: &[&Order], now: Timestamp) -> Vec<String> {
    let origin = &settings.origin;
    let by_listener = |order: &Order| settings.listeners.iter().any(|country| order.applies_to(Some(*country)));
    let reaches_nobody = |order: &Order| !by_listener(order) && !reaches_anyone(order, origin);
    let nobody = orders.iter().filter(|order| is_carried_out(order, now) && reaches_nobody(order));
    nobody.map(|order| applies_to_nobody(order, origin)).collect()
}

fn reaches_anyone(order: &Order, origin: &origin::Settings) -> bool {
    // Which country it tells of whom is not asked: any may be among its networks tomorrow.
    if origin.database.is_some() {
        return true;
    }
    let networks = origin.networks.iter().map(|(_, country)| Some(*country));
    // Without a default, the country of some clients cannot be told.
    networks.chain([origin.default]).any(|country| order.applies_to(country))
}

fn applies_to_nobody(order: &Order, origin: &origin::Settings) -> String {
    let (id, codes) = (&order.id, order.jurisdiction.codes());
    if !origin.is_configured() {
        return format!(
            "order {id} is for {}, and nothing tells the country of a client: it cannot apply to anyone; \
             give [origin] networks, a database or a default",
            codes.join(", ")
        );
    }
    // Beside a default there is no unknown origin.
    let or = if origin.default.is_none() { ", or set unknown-origin = \"block\"" } else { "" };
    format!(
        "order {id}: no prefix of [origin] networks and no default is in {}, so it applies to nobody; add one{or}",
        codes.join(" or ")
    )
}
