//! `bailiwick check`: reads everything that `serve` would read, and tells every mistake with its place.

use std::path::Path;

use jiff::Timestamp;

use crate::config::Config;
use crate::policy::Policy;
use crate::policy::list::{self, Fault};
use crate::policy::load::{self, Loaded, LoadedList, Settings};
use crate::policy::origin::Ground;
use crate::tls::Certificates;
use crate::upstream::Resolvers;

/// How many faults of a list are shown, each on a line; the rest are counted. A picture saved as a list has millions.
const FAULTS_SHOWN_MAX: usize = 1_000;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What must be mended, one line each.
    pub mistakes: Vec<String>,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// What is there; empty where there are mistakes.
    pub summary: String,
}

/// Checks a configuration and everything it names. Last good copies do not count: the files as they are now are meant.
#[must_use]
pub fn check(config_path: &Path) -> Report {
    let config = match Config::read(config_path) {
        Ok(config) => config,
        Err(mistakes) => {
            return Report { mistakes: mistakes.iter().map(ToString::to_string).collect(), ..Report::default() };
        }
    };
    let mut report = Report::default();
    let now = Timestamp::now();
    check_policy(&config, now, &mut report);
    check_certificate(&config, now, &mut report);
    check_reach(&config, &mut report);
    if !report.mistakes.is_empty() {
        report.summary.clear();
    }
    report
}

fn check_policy(config: &Config, now: Timestamp, report: &mut Report) {
    let settings = Settings { state: None, ..config.policy.clone() };
    // What was lifted, and what was approved, is known there; what is in force by a copy is not what the files say.
    let (before, warning) = load::Before::on_disk(&config.policy);
    report.warnings.extend(warning);
    let loaded = load::load(&settings, &load::Before { orders: Vec::new(), ..before }, now);
    tell_mistakes(&loaded, report);
    report.warnings.extend(loaded.warnings.iter().cloned());
    loaded.lists.iter().for_each(|list| tell_faults(list, report));
    match Policy::compile(&loaded, 1, now) {
        Ok(policy) => report.summary = summary(&policy, now) + "\n",
        Err(what) => report.mistakes.push(what),
    }
}

/// Each line of a list that cannot be read.
fn tell_faults(list: &LoadedList, report: &mut Report) {
    let (file, mut left_out) = (&list.settings.file, 0);
    let before = report.mistakes.len();
    let tell = |Fault { line, column, what }: Fault| {
        if report.mistakes.len() - before < FAULTS_SHOWN_MAX {
            report.mistakes.push(format!("{}:{line}:{column}: {what}", file.display()));
        } else {
            left_out += 1;
        }
    };
    list::read(list.settings.format, &list.octets, |_, _| {}, tell);
    if left_out > 0 {
        report.mistakes.push(format!("{}: {left_out} more lines cannot be read", file.display()));
    }
    // The warning that counts the faults and shows the first says nothing more.
    if let Some(first) = report.mistakes.get(before) {
        report.warnings.retain(|warning| !warning.contains(first));
    }
}

fn tell_mistakes(loaded: &Loaded, report: &mut Report) {
    let orders = loaded.orders.iter().flat_map(|order| &order.pending);
    let lists = loaded.lists.iter().flat_map(|list| &list.pending);
    let database = loaded.database.iter().flat_map(|database| &database.pending);
    let all = orders.chain(lists).chain(database).chain(&loaded.refused);
    report.mistakes.extend(all.map(ToString::to_string));
}

fn check_certificate(config: &Config, now: Timestamp, report: &mut Report) {
    if !config.tls.certificate.exists() && !config.tls.key.exists() {
        let file = config.tls.certificate.display();
        report.warnings.push(format!("{file}: not there yet; serve makes a development CA and certificate"));
        return;
    }
    match Certificates::load(&config.tls, now) {
        Ok(certificates) => check_names(config, &certificates, report),
        Err(error) => report.mistakes.push(error.to_string()),
    }
}

/// What nobody means to be reached, and whom nobody means to ask.
fn check_reach(config: &Config, report: &mut Report) {
    if let Some(admin) = config.admin.filter(|admin| !admin.ip().is_loopback()) {
        report.warnings.push(format!("[listen] admin: {admin} is not loopback, and asks nobody for a password"));
    }
    let listen = &config.listen;
    for (key, prefixes) in [("proxy-from", &listen.proxy_from), ("forwarded-from", &listen.forwarded_from)] {
        if let Some(prefix) = prefixes.everyone() {
            report.warnings.push(format!(
                "[listen] {key}: {prefix} is everyone, and everyone is believed; name your own proxies alone"
            ));
        }
    }
    let Resolvers::Listed(resolvers) = &config.upstream.resolvers else { return };
    let own = listen.doh.iter().chain(&listen.dot).map(|place| &place.address);
    for address in own.filter(|address| resolvers.contains(address)) {
        report.warnings.push(format!("[upstream] resolvers: {address} is this server itself, and speaks no plain DNS"));
    }
}

/// RFC 9462 §4.2: discovery only counts where the certificate has the resolver's name and addresses.
fn check_names(config: &Config, certificates: &Certificates, report: &mut Report) {
    let file = config.tls.certificate.display();
    if let Some(name) = &config.local.name
        && !certificates.covers_name(&name.to_string())
    {
        report
            .warnings
            .push(format!("{file}: does not name {name}, the [resolver] name; clients that check it will refuse it"));
    }
    for address in config.local.addresses.iter().filter(|address| !certificates.covers_address(**address)) {
        report
            .warnings
            .push(format!("{file}: does not name {address} of [resolver] addresses; discovery by it will fail"));
    }
}

/// What is in force, in a line.
pub(super) fn summary(policy: &Policy, now: Timestamp) -> String {
    let (in_force, all, lists) = (policy.orders_in_force(now), policy.orders().len(), policy.lists().len());
    let rules = policy.rules();
    let s = |count| if count == 1 { "" } else { "s" };
    let database = policy.database().map(|loaded| format!(", {}", Ground::Database(loaded.database.built())));
    format!("{in_force} of {all} order{} in force, {lists} list{}, {rules} rule{}", s(all), s(lists), s(rules))
        + &database.unwrap_or_default()
}
