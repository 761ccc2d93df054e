//! The page at `/metrics`, in the Prometheus project's OpenMetrics text format.

use std::fmt;
use std::net::SocketAddr;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{Bound, Event, Protocol, RCODES_COUNTED, Telemetry, lock};
use crate::dns::Rcode;

/// The media type of [`Telemetry::render`]'s page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Before the name of every metric, with an underscore behind it.
pub const PREFIX: &str = "bailiwick";

/// One metric as it is described. A counter's name gets `_total` behind it, one with a unit that unit.
struct Metric {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
}

const fn metric(name: &'static str, help: &'static str) -> Metric {
    Metric { name, unit: None, help }
}

const fn seconds(name: &'static str, help: &'static str) -> Metric {
    Metric { name, unit: Some(Unit::Seconds), help }
}

/// The vocabulary: every metric there is.
mod vocabulary {
    use super::{Metric, metric, seconds};

    pub(super) static QUERIES: Metric = metric("queries", "Messages of clients that have an ID to answer under.");
    pub(super) static ANSWERS: Metric = metric("answers", "Answers to clients, by RCODE.");
    pub(super) static BLOCKS: Metric = metric("blocks", "Answers that an order or a list of the operator changed.");
    pub(super) static TRIAL_BLOCKS: Metric =
        metric("trial_blocks", "Answers that an order in trial would have changed, and did not.");
    pub(super) static CACHE_HITS: Metric = metric("cache_hits", "Queries that the cache answered.");
    pub(super) static CACHE_MISSES: Metric = metric("cache_misses", "Queries that the cache had nothing for.");
    pub(super) static CACHE_STALE: Metric = metric("cache_stale", "Queries answered past the reply's TTL (RFC 8767).");
    pub(super) static CACHE_REFRESHES: Metric =
        metric("cache_refreshes", "Replies refreshed in the background before their TTL ended.");
    pub(super) static CACHE_ENTRIES: Metric = metric("cache_entries", "Questions in the cache.");
    pub(super) static CACHE_OCTETS: Metric = metric("cache_octets", "What the cache takes, all in, in octets.");
    /// Named apart from [`CONNECTIONS`]: OpenMetrics has one family per name, be it a counter or a gauge.
    pub(super) static CONNECTIONS_OPEN: Metric = metric("connections_open", "Connections of clients that are open.");
    pub(super) static CONNECTIONS: Metric = metric("connections", "Connections of clients accepted so far.");
    pub(super) static HANDSHAKES: Metric = metric("handshakes", "TLS handshakes completed.");
    pub(super) static HANDSHAKE_FAILURES: Metric = metric("handshake_failures", "TLS handshakes that failed.");
    pub(super) static BOUNDS: Metric = metric("bounds", "How often a bound was reached.");
    pub(super) static POLICY_GENERATION: Metric =
        metric("policy_generation", "The policy that every worker answers from, counted up with each change.");
    pub(super) static POLICY_RULES: Metric = metric("policy_rules", "Rules in the policy.");
    pub(super) static ORDERS_IN_FORCE: Metric = metric("orders_in_force", "Orders that are carried out now.");
    pub(super) static ORIGIN_DATABASE_BUILD: Metric =
        seconds("origin_database_build", "When the database that tells countries was built, since 1970.");
    pub(super) static ORDER_DEADLINE: Metric =
        seconds("order_deadline", "Until an order must be carried out; negative past it.");
    pub(super) static ORDER_TARGET_DEADLINE: Metric =
        seconds("order_target_deadline", "Until a target with a deadline of its own must be carried out.");
    pub(super) static ORDER_EFFECTIVE_SINCE: Metric =
        seconds("order_effective_since", "When an order was first carried out on this node, since 1970.");
    pub(super) static UPSTREAM_UP: Metric = metric("upstream_up", "Whether an upstream resolver answers.");
    pub(super) static UPSTREAM_QUERIES: Metric = metric("upstream_queries", "Queries sent to an upstream resolver.");
    pub(super) static UPSTREAM_ANSWERS: Metric =
        metric("upstream_answers", "Replies of an upstream resolver that were taken.");
    pub(super) static UPSTREAM_FAILURES: Metric =
        metric("upstream_failures", "Queries to an upstream resolver that came to nothing.");
    pub(super) static UPSTREAM_LATENCY: Metric = seconds("upstream_latency", "From a query to its reply.");
    pub(super) static CERTIFICATE_EXPIRY: Metric =
        seconds("certificate_expiry", "When the certificate in use ends, since 1970.");
    pub(super) static LEDGER_HEAD: Metric = metric("ledger_head", "The number of the ledger's last line on the disk.");
    pub(super) static LEDGER_HEAD_INFO: Metric =
        metric("ledger_head_info", "The SHA-256 of that line, in its label, to be kept elsewhere; always 1.");
    pub(super) static LEDGER_WAITING: Metric =
        metric("ledger_events_waiting", "Events that are not in the ledger yet.");
    pub(super) static START_TIME: Metric = seconds("start_time", "When the process began, since 1970.");
    pub(super) static BUILD: Metric = metric("build_info", "The version that runs, in its label; always 1.");
}

/// What others own, as it stands at a scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    /// When the process began.
    pub started: Timestamp,
    /// The policy that every worker answers from.
    pub generation: u64,
    /// How many rules, by whose they are: `order`, `list`, `exemption`.
    pub rules: Vec<(&'static str, u64)>,
    /// Orders that are carried out now.
    pub orders_in_force: u64,
    /// When the database that tells countries was built, as it says itself; None: there is none.
    pub origin_database_build: Option<Timestamp>,
    /// Every order's clock.
    pub orders: Vec<OrderScrape>,
    /// Questions in the cache.
    pub cache_entries: u64,
    /// What they take, in octets.
    pub cache_octets: u64,
    /// The resolvers asked.
    pub upstreams: Vec<UpstreamScrape>,
    /// When the certificate in use ends.
    pub certificate_expiry: Option<Timestamp>,
    /// The ledger; None: none is kept.
    pub ledger: Option<LedgerScrape>,
}

/// How far the ledger is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerScrape {
    /// The number and the hash of the last line on the disk.
    pub head: Option<(u64, String)>,
    /// Events that wait for the disk.
    pub waiting: u64,
}

/// An order's clock.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OrderScrape {
    /// Its id.
    pub id: String,
    /// Whole seconds until it must be carried out; negative past it. None: it has no deadline.
    pub seconds_left: Option<i64>,
    /// From when it was first carried out on this node.
    pub effective_since: Option<Timestamp>,
    /// The same of each target that has a deadline of its own: what it is known by, and its seconds.
    pub targets: Vec<(String, i64)>,
}

/// What one upstream resolver has done.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamScrape {
    /// Its address.
    pub server: SocketAddr,
    /// It answers.
    pub up: bool,
    /// Queries sent.
    pub queries: u64,
    /// Replies taken.
    pub answers: u64,
    /// Queries that came to nothing, by kind: `timeout`, `network`, …
    pub failures: Vec<(&'static str, u64)>,
    /// How many replies took up to this many seconds, and longer than the bound before; by rising bound, the last one
    /// [`f64::INFINITY`].
    pub latency: Vec<(f64, u64)>,
    /// What they took in all, in seconds.
    pub latency_sum: f64,
}

/// See [`Telemetry::render`].
pub(super) fn render(telemetry: &Telemetry, scrape: &Scrape) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Page::gather(telemetry, scrape)));
    let mut page = String::new();
    match text::encode(&mut page, &registry) {
        Ok(()) => page,
        // A String takes all that is written to it, so this is never seen.
        Err(fmt::Error) => String::new(),
    }
}

/// The numbers of one scrape, added up.
#[derive(Debug)]
struct Page {
    queries: Vec<(&'static str, u64)>,
    answers: Vec<(String, u64)>,
    blocks: Vec<([(&'static str, String); 2], u64)>,
    trial_blocks: Vec<(String, u64)>,
    /// Hits, misses, stale, refreshes.
    cache: [u64; 4],
    opened: Vec<(&'static str, u64)>,
    open: Vec<(&'static str, u64)>,
    handshakes: [(&'static str, u64); 2],
    handshake_failures: u64,
    bounds: Vec<(&'static str, u64)>,
    scrape: Scrape,
}

impl Page {
    fn gather(telemetry: &Telemetry, scrape: &Scrape) -> Self {
        let total = |event| telemetry.total(event);
        let by_protocol =
            |event: fn(Protocol) -> Event| Protocol::ALL.map(|protocol| (protocol.key(), total(event(protocol))));
        // Closed before opened: between the two reads a connection may open, never the other way round.
        let closed = by_protocol(Event::ConnectionClosed);
        let opened = by_protocol(Event::ConnectionOpened);
        let open = opened.iter().zip(closed).map(|((key, opened), (_, closed))| (*key, opened.saturating_sub(closed)));
        Self {
            queries: by_protocol(Event::Query).into(),
            answers: answers(telemetry),
            blocks: blocks(telemetry),
            trial_blocks: lock(&telemetry.trials).iter().map(|(id, count)| (id.to_string(), count.total())).collect(),
            cache: [Event::CacheHit, Event::CacheMiss, Event::CacheStale, Event::CacheRefresh].map(total),
            open: open.collect(),
            opened: opened.into(),
            handshakes: [("false", false), ("true", true)]
                .map(|(label, resumed)| (label, total(Event::Handshake { resumed }))),
            handshake_failures: total(Event::HandshakeFailed),
            bounds: Bound::ALL.iter().map(|bound| (bound.key(), total(Event::Bound(*bound)))).collect(),
            scrape: scrape.clone(),
        }
    }
}

/// RCODEs that never were answered are left out: most are of no use to a forwarder.
fn answers(telemetry: &Telemetry) -> Vec<(String, u64)> {
    let label = |rcode: Rcode| match rcode.mnemonic() {
        Some(mnemonic) => mnemonic.to_owned(),
        None if usize::from(rcode.0) < RCODES_COUNTED => rcode.0.to_string(),
        None => "other".to_owned(),
    };
    (0..=RCODES_COUNTED as u16)
        .map(Rcode)
        .map(|rcode| (label(rcode), telemetry.total(Event::Answer(rcode))))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn blocks(telemetry: &Telemetry) -> Vec<([(&'static str, String); 2], u64)> {
    let labels = |kind: &str, id: &str| [("kind", kind.to_owned()), ("id", id.to_owned())];
    lock(&telemetry.blocks).iter().map(|((kind, id), count)| (labels(kind, id), count.total())).collect()
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        self.encode_clients(to)?;
        self.encode_cache(to)?;
        self.encode_policy(to)?;
        encode_orders(&self.scrape.orders, to)?;
        encode_upstreams(&self.scrape.upstreams, to)?;
        encode_ledger(self.scrape.ledger.as_ref(), to)?;
        self.encode_process(to)
    }
}

impl Page {
    fn encode_clients(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        counters(to, &vocabulary::QUERIES, labelled("transport", &self.queries))?;
        counters(to, &vocabulary::ANSWERS, labelled("rcode", &self.answers))?;
        counters(to, &vocabulary::CONNECTIONS, labelled("transport", &self.opened))?;
        gauges(to, &vocabulary::CONNECTIONS_OPEN, labelled("transport", &self.open))?;
        counters(to, &vocabulary::HANDSHAKES, labelled("resumed", &self.handshakes))?;
        counter(to, &vocabulary::HANDSHAKE_FAILURES, self.handshake_failures)?;
        counters(to, &vocabulary::BOUNDS, labelled("bound", &self.bounds))
    }

    fn encode_cache(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let [hits, misses, stale, refreshes] = self.cache;
        counter(to, &vocabulary::CACHE_HITS, hits)?;
        counter(to, &vocabulary::CACHE_MISSES, misses)?;
        counter(to, &vocabulary::CACHE_STALE, stale)?;
        counter(to, &vocabulary::CACHE_REFRESHES, refreshes)?;
        gauge(to, &vocabulary::CACHE_ENTRIES, self.scrape.cache_entries)?;
        gauge(to, &vocabulary::CACHE_OCTETS, self.scrape.cache_octets)
    }

    fn encode_policy(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        counters(to, &vocabulary::BLOCKS, self.blocks.iter().map(|(labels, count)| (labels.clone(), *count)))?;
        counters(to, &vocabulary::TRIAL_BLOCKS, labelled("id", &self.trial_blocks))?;
        gauge(to, &vocabulary::POLICY_GENERATION, self.scrape.generation)?;
        gauges(to, &vocabulary::POLICY_RULES, labelled("kind", &self.scrape.rules))?;
        gauge(to, &vocabulary::ORDERS_IN_FORCE, self.scrape.orders_in_force)?;
        let built = self.scrape.origin_database_build.map(Timestamp::as_second);
        built.map_or(Ok(()), |built| gauge(to, &vocabulary::ORIGIN_DATABASE_BUILD, built))
    }

    fn encode_process(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(expiry) = self.scrape.certificate_expiry {
            gauge(to, &vocabulary::CERTIFICATE_EXPIRY, expiry.as_second())?;
        }
        gauge(to, &vocabulary::START_TIME, self.scrape.started.as_second())?;
        gauges(to, &vocabulary::BUILD, [([("version", env!("CARGO_PKG_VERSION"))], 1_u64)])
    }
}

fn encode_orders(orders: &[OrderScrape], to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let labels = |order: &OrderScrape| [("id", order.id.clone())];
    let deadlines = orders.iter().filter_map(|order| Some((labels(order), order.seconds_left?)));
    gauges(to, &vocabulary::ORDER_DEADLINE, deadlines)?;
    let targets = orders.iter().flat_map(|order| {
        let labels = |target: &str| [("id", order.id.clone()), ("target", target.to_owned())];
        order.targets.iter().map(move |(target, seconds)| (labels(target), *seconds))
    });
    gauges(to, &vocabulary::ORDER_TARGET_DEADLINE, targets)?;
    let since = orders.iter().filter_map(|order| Some((labels(order), order.effective_since?.as_second())));
    gauges(to, &vocabulary::ORDER_EFFECTIVE_SINCE, since)
}

fn encode_ledger(ledger: Option<&LedgerScrape>, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let Some(LedgerScrape { head, waiting }) = ledger else { return Ok(()) };
    if let Some((number, hash)) = head {
        gauge(to, &vocabulary::LEDGER_HEAD, *number)?;
        gauges(to, &vocabulary::LEDGER_HEAD_INFO, [([("sha256", hash.as_str())], 1_u64)])?;
    }
    gauge(to, &vocabulary::LEDGER_WAITING, *waiting)
}

fn encode_upstreams(upstreams: &[UpstreamScrape], to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let each = |number: fn(&UpstreamScrape) -> u64| {
        upstreams.iter().map(move |upstream| ([("server", upstream.server.to_string())], number(upstream)))
    };
    gauges(to, &vocabulary::UPSTREAM_UP, each(|upstream| u64::from(upstream.up)))?;
    counters(to, &vocabulary::UPSTREAM_QUERIES, each(|upstream| upstream.queries))?;
    counters(to, &vocabulary::UPSTREAM_ANSWERS, each(|upstream| upstream.answers))?;
    let failures = upstreams.iter().flat_map(|upstream| {
        let labels = |kind: &str| [("server", upstream.server.to_string()), ("kind", kind.to_owned())];
        upstream.failures.iter().map(move |(kind, count)| (labels(kind), *count))
    });
    counters(to, &vocabulary::UPSTREAM_FAILURES, failures)?;
    let mut family = describe(to, &vocabulary::UPSTREAM_LATENCY, MetricType::Histogram)?;
    for upstream in upstreams {
        let labels = [("server", upstream.server.to_string())];
        let count = upstream.latency.iter().map(|(_, count)| count).sum();
        let mut encoder = family.encode_family(&labels)?;
        encoder.encode_histogram::<NoLabelSet>(upstream.latency_sum, count, &upstream.latency, None)?;
    }
    Ok(())
}

/// Each number under one label.
fn labelled<'a, V: AsRef<str>>(
    key: &'static str,
    values: &'a [(V, u64)],
) -> impl Iterator<Item = ([(&'static str, &'a str); 1], u64)> {
    values.iter().map(move |(value, number)| ([(key, value.as_ref())], *number))
}

fn describe<'e>(
    to: &'e mut DescriptorEncoder<'_>,
    metric: &'e Metric,
    kind: MetricType,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    to.encode_descriptor(metric.name, metric.help, metric.unit.as_ref(), kind)
}

fn counter(to: &mut DescriptorEncoder<'_>, metric: &Metric, value: u64) -> fmt::Result {
    describe(to, metric, MetricType::Counter)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
    to: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    values: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut family = describe(to, metric, MetricType::Counter)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
    }
    Ok(())
}

fn gauge(to: &mut DescriptorEncoder<'_>, metric: &Metric, value: impl EncodeGaugeValue) -> fmt::Result {
    describe(to, metric, MetricType::Gauge)?.encode_gauge(&value)
}

fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
    to: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    values: impl IntoIterator<Item = (L, V)>,
) -> fmt::Result {
    let mut family = describe(to, metric, MetricType::Gauge)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn scrape() -> Scrape {
        Scrape {
            started: Timestamp::from_second(1_795_000_000).unwrap(),
            generation: 3,
            rules: vec![("order", 3), ("list", 1_000_000)],
            orders_in_force: 2,
            origin_database_build: Timestamp::from_second(1_785_000_000).ok(),
            orders: vec![
                OrderScrape { id: "a".to_owned(), ..OrderScrape::default() },
                OrderScrape {
                    id: "b".to_owned(),
                    seconds_left: Some(-60),
                    effective_since: Timestamp::from_second(1_790_000_000).ok(),
                    targets: vec![("0123456789abcdef".to_owned(), 30), ("1123456789abcdef".to_owned(), 0)],
                },
            ],
            cache_entries: 7,
            cache_octets: 4096,
            upstreams: vec![UpstreamScrape {
                server: "192.0.2.1:53".parse().unwrap(),
                up: true,
                queries: 9,
                answers: 6,
                failures: vec![("timeout", 2), ("network", 1)],
                latency: vec![(0.01, 4), (0.1, 1), (f64::INFINITY, 1)],
                latency_sum: 1.5,
            }],
            certificate_expiry: Timestamp::from_second(1_800_000_000).ok(),
            ledger: Some(LedgerScrape { head: Some((7, "ab".to_owned())), waiting: 2 }),
        }
    }

    #[test]
    fn the_page_has_every_number_under_its_name() {
        let telemetry = Telemetry::new(1);
        for event in [
            Event::Query(Protocol::Doh),
            Event::Answer(Rcode::NXDOMAIN),
            Event::Answer(Rcode(11)),
            Event::Answer(Rcode(4000)),
            Event::CacheHit,
            Event::ConnectionOpened(Protocol::Dot),
            Event::ConnectionOpened(Protocol::Dot),
            Event::ConnectionClosed(Protocol::Dot),
            Event::Handshake { resumed: true },
            Event::HandshakeFailed,
            Event::Bound(Bound::InFlight),
        ] {
            telemetry.count(event);
        }
        telemetry.block_counter("order", "it-milan-2022-torrents").count();
        telemetry.trial_counter("de-draft").count();
        let page = telemetry.render(&scrape());
        for line in [
            r#"bailiwick_queries_total{transport="doh"} 1"#,
            r#"bailiwick_queries_total{transport="dot"} 0"#,
            r#"bailiwick_answers_total{rcode="NXDOMAIN"} 1"#,
            r#"bailiwick_answers_total{rcode="11"} 1"#,
            r#"bailiwick_answers_total{rcode="other"} 1"#,
            r#"bailiwick_blocks_total{kind="order",id="it-milan-2022-torrents"} 1"#,
            r#"bailiwick_trial_blocks_total{id="de-draft"} 1"#,
            "bailiwick_cache_hits_total 1",
            "bailiwick_cache_misses_total 0",
            "bailiwick_cache_entries 7",
            "bailiwick_cache_octets 4096",
            r#"bailiwick_connections_total{transport="dot"} 2"#,
            r#"bailiwick_connections_open{transport="dot"} 1"#,
            r#"bailiwick_handshakes_total{resumed="true"} 1"#,
            "bailiwick_handshake_failures_total 1",
            r#"bailiwick_bounds_total{bound="in-flight"} 1"#,
            "bailiwick_policy_generation 3",
            r#"bailiwick_policy_rules{kind="list"} 1000000"#,
            "bailiwick_orders_in_force 2",
            "bailiwick_origin_database_build_seconds 1785000000",
            r#"bailiwick_order_deadline_seconds{id="b"} -60"#,
            r#"bailiwick_order_target_deadline_seconds{id="b",target="0123456789abcdef"} 30"#,
            r#"bailiwick_order_effective_since_seconds{id="b"} 1790000000"#,
            r#"bailiwick_upstream_up{server="192.0.2.1:53"} 1"#,
            r#"bailiwick_upstream_queries_total{server="192.0.2.1:53"} 9"#,
            r#"bailiwick_upstream_failures_total{server="192.0.2.1:53",kind="timeout"} 2"#,
            r#"bailiwick_upstream_latency_seconds_bucket{le="0.1",server="192.0.2.1:53"} 5"#,
            r#"bailiwick_upstream_latency_seconds_bucket{le="+Inf",server="192.0.2.1:53"} 6"#,
            r#"bailiwick_upstream_latency_seconds_count{server="192.0.2.1:53"} 6"#,
            "bailiwick_certificate_expiry_seconds 1800000000",
            "bailiwick_ledger_head 7",
            r#"bailiwick_ledger_head_info{sha256="ab"} 1"#,
            "bailiwick_ledger_events_waiting 2",
            "bailiwick_start_time_seconds 1795000000",
            concat!("bailiwick_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "# EOF",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    /// What Prometheus refuses a page for: a metric described twice, a sample without its description, a sample twice.
    #[test]
    fn the_page_is_in_order() {
        let telemetry = Telemetry::new(1);
        let page = telemetry.render(&scrape());
        let mut types = std::collections::BTreeMap::new();
        let mut samples = std::collections::BTreeSet::new();
        for line in page.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                assert!(types.insert(name, kind).is_none(), "{name} twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                value.parse::<f64>().unwrap();
                assert!(samples.insert(series), "{series} twice");
                let name = series.split('{').next().unwrap();
                let base = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                assert!(types.contains_key(base.unwrap_or(name)), "{name} is not described");
                assert!(name.starts_with("bailiwick_"));
            }
        }
    }
}
