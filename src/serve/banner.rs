//! What a server says when it has started: where it listens, and commands to try that work when pasted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::check::summary;
use crate::config::Config;
use crate::dns::message::{Header, flag};
use crate::dns::{Name, Qclass, Qtype};
use crate::listener::Place;
use crate::policy::Policy;
use crate::policy::order::{Order, Standing};

/// At most ten lines.
pub(super) fn text(config: &Config, policy: &Policy, ca: Option<&Path>, now: Timestamp) -> String {
    let doh = listed(&config.listen.doh, |at| format!("https://{at}{}", config.listen.doh_path));
    let dot = listed(&config.listen.dot, |at| format!("tls://{at}"));
    let admin =
        config.admin.map_or("off".to_owned(), |at| format!("http://{at}/health /ready /metrics /orders /explain"));
    let mut lines =
        vec![title(policy, now), format!("  DoH    {doh}"), format!("  DoT    {dot}"), format!("  admin  {admin}")];
    if let Some(ca) = ca {
        lines.push(format!("  CA     {}  (for development: clients must be told to trust it)", ca.display()));
        lines.extend(commands(config, policy, ca, now));
    }
    lines.join("\n") + "\n"
}

fn title(policy: &Policy, now: Timestamp) -> String {
    format!("bailiwick {}: {}", env!("CARGO_PKG_VERSION"), summary(policy, now))
}

fn listed(places: &[Place], shown: impl Fn(SocketAddr) -> String) -> String {
    let one = |place: &Place| match place.country {
        Some(country) => format!("{} ({country})", shown(place.address)),
        None => shown(place.address),
    };
    if places.is_empty() { "off".to_owned() } else { places.iter().map(one).collect::<Vec<_>>().join("  ") }
}

/// A listed name asked for from two addresses: one that no order means, and one that lies in an order's jurisdiction.
fn commands(config: &Config, policy: &Policy, ca: &Path, now: Timestamp) -> Vec<String> {
    let Some((name, inside)) = example(config, policy, now) else { return Vec::new() };
    // Neither command says for whom it calls.
    if [Ipv4Addr::LOCALHOST.into(), inside].iter().any(|address| config.listen.proxy_from.contains(*address)) {
        return Vec::new();
    }
    let ca = ca.display();
    let mut lines = Vec::new();
    if let Some(at) = on_loopback(&config.listen.dot) {
        let ask = |bind: &str| format!("  kdig {bind}@{} -p {} +tls-ca={ca} {name}", at.ip(), at.port());
        lines.extend([ask(""), ask(&format!("-b {inside} "))]);
    }
    if let Some(at) = on_loopback(&config.listen.doh) {
        let url = format!("https://{at}{}?dns={}", config.listen.doh_path, question(&name));
        let ask = |from: &str| format!("  curl -s {from}--cacert {ca} '{url}' | strings -n 6");
        lines.extend([ask(""), ask(&format!("--interface {inside} "))]);
    }
    if !lines.is_empty() {
        lines.insert(0, format!("Try: it resolves from 127.0.0.1, and is blocked from {inside}:"));
    }
    lines
}

/// Where 127.0.0.1 is listened on, by itself or as one of all addresses, for clients of every country.
fn on_loopback(places: &[Place]) -> Option<SocketAddr> {
    let mut addresses = places.iter().filter(|place| place.country.is_none()).map(|place| place.address);
    let at = addresses.find(|at| at.ip() == Ipv4Addr::LOCALHOST || at.ip() == Ipv4Addr::UNSPECIFIED)?;
    Some((Ipv4Addr::LOCALHOST, at.port()).into())
}

/// A name of an order in force, and a loopback address in that order's jurisdiction while 127.0.0.1 is not.
fn example(config: &Config, policy: &Policy, now: Timestamp) -> Option<(Name, IpAddr)> {
    let (outside, _) = policy.place(Ipv4Addr::LOCALHOST.into());
    let meant = |order: &&Order| order.standing(now) == Standing::InForce && !order.applies_to(outside);
    policy.orders().iter().map(|order| &order.loaded.order).filter(meant).find_map(|order| {
        let inside = |address: &IpAddr| address.is_loopback() && order.applies_to(policy.place(*address).0);
        let address = config.policy.origin.networks.iter().map(|(prefix, _)| prefix.addr()).find(inside)?;
        let (name, ..) = order.targets.first()?.names.first()?;
        Some((name.clone(), address))
    })
}

/// The `dns` parameter that asks for a name's address, with an OPT so that the answer says why.
fn question(name: &Name) -> String {
    let mut message = Header { id: 0, flags: flag::RD, counts: [1, 0, 0, 1] }.octets().to_vec();
    message.extend(name.as_wire());
    message.extend([Qtype::A.0, Qclass::IN.0].map(u16::to_be_bytes).concat());
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    URL_SAFE_NO_PAD.encode(message)
}
