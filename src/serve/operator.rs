//! What the operator is told: over the admin listener of a running server, or from the files where none runs.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::Refusal;
use super::chronicle::Chronicle;
use crate::admin::{self, ExplainQuery, Operator};
use crate::config::Config;
use crate::dns::{Name, Qtype};
use crate::ledger::Ledger;
use crate::local::Locals;
use crate::pipeline::{self, Pipeline};
use crate::policy::Policy;
use crate::policy::explain::{Question, Verdict};
use crate::policy::load::{Before, Settings, load};
use crate::policy::report::{ClockLine, OrderLine};
use crate::telemetry::exposition::{LedgerScrape, OrderScrape, Scrape, UpstreamScrape};
use crate::telemetry::health::{Health, Snapshot};
use crate::tls::Certificates;
use crate::upstream::{LATENCY_BOUNDS_MS, Status};

/// How often the upstreams' state is put into health.
const UPSTREAM_CHECK: Duration = Duration::from_millis(500);

/// Answers the operator from the parts.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) health: Health,
    pub(super) chronicle: Arc<Chronicle>,
    /// None: none is kept.
    pub(super) ledger: Option<Arc<Ledger>>,
    pub(super) started: Timestamp,
}

impl Desk {
    fn scrape(&self) -> Scrape {
        let (policy, now) = (self.pipeline.policy(), Timestamp::now());
        Scrape {
            started: self.started,
            generation: policy.generation(),
            rules: policy.rules_by_kind().to_vec(),
            orders_in_force: policy.orders_in_force(now) as u64,
            origin_database_build: policy.database().map(|loaded| loaded.database.built()),
            orders: self.chronicle.clock_lines(&policy, now).into_iter().map(order_scrape).collect(),
            cache_entries: self.pipeline.cache().entries() as u64,
            cache_octets: self.pipeline.cache().octets() as u64,
            upstreams: self.pipeline.upstream().status().iter().map(upstream_scrape).collect(),
            certificate_expiry: Some(self.certificates.not_after()),
            ledger: self.ledger.as_deref().map(ledger_scrape),
        }
    }
}

impl Operator for Desk {
    fn health(&self) -> Snapshot {
        self.health.snapshot()
    }

    fn generation(&self) -> u64 {
        self.pipeline.policy().generation()
    }

    fn metrics(&self) -> String {
        self.pipeline.telemetry().render(&self.scrape())
    }

    fn orders(&self) -> Value {
        json(&self.chronicle.order_lines(&self.pipeline.policy(), Timestamp::now()))
    }

    fn explain(&self, query: ExplainQuery) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send>> {
        let pipeline = Arc::clone(&self.pipeline);
        Box::pin(async move {
            let explanation = pipeline.explain(&question(&query)?).await;
            serde_json::to_value(explanation).map_err(|error| error.to_string())
        })
    }
}

fn ledger_scrape(ledger: &Ledger) -> LedgerScrape {
    let head = ledger.head().map(|head| (head.number, head.hash.to_string()));
    LedgerScrape { head, waiting: ledger.waiting() as u64 }
}

fn json(lines: &[OrderLine]) -> Value {
    // Strings, numbers and dates only: this cannot fail.
    serde_json::to_value(lines).unwrap_or_default()
}

fn order_scrape(line: ClockLine) -> OrderScrape {
    let ClockLine { id, seconds_left, effective_since, targets } = line;
    OrderScrape { id, seconds_left, effective_since, targets }
}

fn question(query: &ExplainQuery) -> Result<Question, String> {
    if query.name.contains("://") || query.name.parse::<IpAddr>().is_ok() {
        return Err(format!("{}: a URL or an address, not a name; ask for its host", query.name));
    }
    let name = Name::from_text(&query.name).map_err(|error| format!("\"{}\" is not a name: {error}", query.name))?;
    let qtype = Qtype::from_text(&query.qtype)
        .ok_or_else(|| format!("\"{}\" is not a type; write a mnemonic such as AAAA, or TYPE65", query.qtype))?;
    Ok(Question { name, qtype, client: query.client, at: query.at.unwrap_or_else(Timestamp::now) })
}

fn upstream_scrape(status: &Status) -> UpstreamScrape {
    let counts = &status.counts;
    let bounds =
        LATENCY_BOUNDS_MS.iter().map(|bound| Duration::from_millis(*bound).as_secs_f64()).chain([f64::INFINITY]);
    UpstreamScrape {
        server: status.server,
        up: status.up,
        queries: counts.queries,
        answers: counts.answers,
        failures: vec![
            ("timeout", counts.timeouts),
            ("network", counts.network_errors),
            ("rcode", counts.error_rcodes),
            ("mismatch", counts.mismatches),
        ],
        latency: bounds.zip(counts.latency.iter().copied()).collect(),
        latency_sum: counts.latency_sum.as_secs_f64(),
    }
}

/// Puts the upstreams' state into health: none that answers degrades it, one that is ourselves makes us unready.
pub(super) async fn watch_upstreams(pipeline: Arc<Pipeline>, health: Health) {
    let mut tick = interval(UPSTREAM_CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let resolvers = pipeline.upstream().status();
        health.degrade("upstream", complaint(&resolvers));
        let looped = resolvers.iter().find(|status| status.is_loop);
        health.unready(
            "upstream-loop",
            looped.map(|status| format!("{} forwards to us: a loop; change [upstream] resolvers", status.server)),
        );
    }
}

fn complaint(resolvers: &[Status]) -> Option<String> {
    let down: Vec<_> = resolvers.iter().filter(|status| !status.up).map(|status| status.server.to_string()).collect();
    match (resolvers.len(), down.len()) {
        (0, _) => Some("no upstream resolver: /etc/resolv.conf names none; set [upstream] resolvers".to_owned()),
        (_, 0) => None,
        (all, some) if all == some => Some(format!("no upstream answers: {}", down.join(", "))),
        _ => Some(format!("down: {}", down.join(", "))),
    }
}

/// `bailiwick orders`: asks a running server, reads the files where there is none. An array of objects.
///
/// # Errors
/// What keeps either from telling.
pub fn orders(config_path: &Path) -> Result<Value, Refusal> {
    let config = Config::read(config_path)?;
    match ask(&config, "/orders") {
        Some(told) => told,
        None => {
            let (policy, before) = policy_of(&config)?;
            Ok(json(&policy.order_lines(&before.register, Timestamp::now())))
        }
    }
}

/// `bailiwick explain`: asks a running server, reads the files where there is none. One object.
///
/// # Errors
/// What is wrong with the question, or keeps either from telling.
pub fn explain(config_path: &Path, query: &ExplainQuery) -> Result<Value, Refusal> {
    let asked = question(query).map_err(Refusal::line)?;
    let config = Config::read(config_path)?;
    if let Some(told) = ask(&config, &query.to_path()) {
        return told;
    }
    let mut explanation = pipeline::explain(&policy_of(&config)?.0, &Locals::new(&config.local), &asked);
    if explanation.verdict == Verdict::Forward {
        explanation.note = Some(NOT_LOOKED_AT.to_owned());
    }
    serde_json::to_value(explanation).map_err(Refusal::line)
}

/// What only a running server can tell: it asks its upstreams.
const NOT_LOOKED_AT: &str =
    "no server runs here: addresses, and names behind a CNAME, DNAME, SVCB or HTTPS record, were not looked at";

fn ask(config: &Config, path: &str) -> Option<Result<Value, Refusal>> {
    let told = admin::fetch(config.admin?, path)?;
    Some(told.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())).map_err(Refusal::line))
}

/// The policy that the files make, and what is known from before: the register and what was approved are read, other
/// last good copies are the server's. Nothing is written.
fn policy_of(config: &Config) -> Result<(Policy, Before), Refusal> {
    let now = Timestamp::now();
    let (before, _) = Before::on_disk(&config.policy);
    let loaded = load(&Settings { state: None, ..config.policy.clone() }, &before, now);
    if !loaded.refused.is_empty() {
        return Err(loaded.refused.into());
    }
    Ok((Policy::compile(&loaded, 1, now).map_err(Refusal::line)?, before))
}
