//! Keeps probing: each order once it is in force, and all of them every hour; tells ledger, register and health.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::chronicle::Chronicle;
use crate::ledger::{Event, Ledger, Note};
use crate::listener::Bound;
use crate::pipeline::Pipeline;
use crate::probe::{Place, Probed, Prober};
use crate::telemetry::Protocol;
use crate::telemetry::health::Health;

/// How often every order in force is probed.
const EVERY: Duration = Duration::from_secs(3_600);

/// Between an order and the next: an hour has room for tens of thousands, and a start with as many takes no more of the
/// machine than a few handshakes at a time.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether an order that was found wrong is still in force.
const LOOK: Duration = Duration::from_secs(1);

/// How many orders that were found wrong a reason of `/health` names; the rest are counted.
const WRONG_TOLD_MAX: usize = 3;

/// What probing needs.
#[derive(Debug)]
pub(super) struct Proving {
    prober: Prober,
    pipeline: Arc<Pipeline>,
    chronicle: Arc<Chronicle>,
    ledger: Option<Arc<Ledger>>,
    health: Health,
}

/// The first listener of each protocol: all of a protocol are the same code.
pub(super) fn places(bound: &[Bound], doh_path: &str) -> Vec<Place> {
    let addresses = bound.first().map(Bound::addresses).unwrap_or_default();
    let first = |protocol| addresses.iter().find(|(other, _)| *other == protocol);
    let place = |(protocol, address): &(Protocol, SocketAddr)| Place {
        protocol: *protocol,
        address: *address,
        doh_path: doh_path.to_owned(),
    };
    Protocol::ALL.into_iter().filter_map(first).map(place).collect()
}

/// Orders that wait for their probes: what has come into force goes before the hourly round, and is not asked for twice.
#[derive(Debug, Default)]
struct Turns {
    /// The last to come into force is the last here and the first to be probed: a start with very many keeps nobody
    /// waiting who comes after it.
    activated: Vec<String>,
    round: BTreeSet<String>,
}

/// What the last probes of each order found wrong.
#[derive(Debug, Default)]
struct Wrongs(BTreeMap<String, String>);

impl Proving {
    pub(super) fn new(
        places: Vec<Place>,
        pipeline: &Arc<Pipeline>,
        chronicle: &Arc<Chronicle>,
        ledger: Option<Arc<Ledger>>,
        health: Health,
    ) -> Self {
        let (pipeline, chronicle) = (Arc::clone(pipeline), Arc::clone(chronicle));
        Self { prober: Prober::new(Arc::clone(&pipeline), places), pipeline, chronicle, ledger, health }
    }

    /// Probes everything at once and every hour, and before the rest what has come into force; never ends.
    pub(super) async fn run(self) {
        let (mut turns, mut wrongs) = (Turns::default(), Wrongs::default());
        let mut every = interval(EVERY);
        let mut look = interval(LOOK);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // What a start finds in force is told first, so that the first round need not have it too.
            tokio::select! {
                biased;
                ids = self.chronicle.activated() => turns.put_first(ids),
                _ = every.tick() => turns.put(self.ids()),
                _ = look.tick() => {}
                () = sleep(PAUSE), if !turns.is_empty() => self.probe(turns.next(), &mut wrongs).await,
            }
            // One that is not in force any more is not wrong.
            if !wrongs.0.is_empty() {
                wrongs.retain(&self.ids());
            }
            self.health.degrade("probe", wrongs.shown());
        }
    }

    async fn probe(&self, id: Option<String>, wrongs: &mut Wrongs) {
        let Some(id) = id else { return };
        let found = self.prober.probe(&id).await;
        found.iter().for_each(|probed| self.note(probed));
        wrongs.take(&id, &found);
    }

    fn ids(&self) -> BTreeSet<String> {
        let policy = self.pipeline.policy();
        let now = self.pipeline.clock().now().wall;
        policy.ids_in_force(now).map(str::to_owned).collect()
    }

    fn note(&self, probed: &Probed) {
        if let Some(ledger) = &self.ledger {
            ledger.record(probed.at, Event::Node(Note::Probe(probed.probe.clone())));
        }
        if probed.shows_effect() {
            self.chronicle.probed(&probed.probe.order, &probed.probe.target, probed.at);
        }
    }
}

impl Turns {
    fn put_first(&mut self, ids: BTreeSet<String>) {
        self.round.retain(|id| !ids.contains(id));
        self.activated.retain(|id| !ids.contains(id));
        self.activated.extend(ids.into_iter().rev());
    }

    fn put(&mut self, ids: BTreeSet<String>) {
        self.round.extend(ids.into_iter().filter(|id| !self.activated.contains(id)));
    }

    fn next(&mut self) -> Option<String> {
        self.activated.pop().or_else(|| self.round.pop_first())
    }

    fn is_empty(&self) -> bool {
        self.activated.is_empty() && self.round.is_empty()
    }
}

impl Wrongs {
    /// Takes what was found of an order in place of what was found before; nothing where nothing came of it.
    fn take(&mut self, id: &str, found: &[Probed]) {
        let wrong = found.iter().find(|probed| probed.is_wrong());
        match wrong {
            Some(Probed { probe, .. }) => {
                let what = probe.note.as_deref().unwrap_or_default();
                self.0.insert(id.to_owned(), format!("order {id}, over {}: {what}", probe.transport));
            }
            None if found.iter().any(Probed::is_right) => drop(self.0.remove(id)),
            None => {}
        }
    }

    fn retain(&mut self, ids: &BTreeSet<String>) {
        self.0.retain(|id, _| ids.contains(id));
    }

    fn shown(&self) -> Option<String> {
        let more = match self.0.len().saturating_sub(WRONG_TOLD_MAX) {
            0 => String::new(),
            more => format!(" | and {more} more"),
        };
        let named = self.0.values().take(WRONG_TOLD_MAX).cloned().collect::<Vec<_>>().join(" | ");
        (!self.0.is_empty()).then(|| format!("{named}{more}; the ledger has what was asked and answered"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;
    use tokio::net::TcpListener;

    use super::*;
    use crate::cache::{self, Cache};
    use crate::clock::Clock;
    use crate::ledger::Probe;
    use crate::local::{self, Locals};
    use crate::pipeline;
    use crate::policy::Policy;
    use crate::policy::load::{self, Files, LoadedOrder};
    use crate::policy::order::Order;
    use crate::policy::register::Register;
    use crate::telemetry::Telemetry;
    use crate::upstream::{self, Resolvers, Upstream};

    const NOW: &str = "2026-11-22T00:00:00Z";

    /// A pipeline with an order for Italy in force, in simulated time.
    fn pipeline() -> Arc<Pipeline> {
        let text = format!(
            "id = 'x'\nissuer = 'Court'\njurisdiction = ['IT']\nreceived = {NOW}\nstate = 'in-force'\n\
             [[target]]\nsubtree = ['a.example']\n"
        );
        let order = LoadedOrder::of(Order::read(Path::new("x.toml"), &text).unwrap(), text.as_bytes());
        let (now, day) = (NOW.parse().unwrap(), Duration::from_secs(86_400));
        let loaded = load::load_in_hand(&load::Settings::default(), vec![order], &Files::new(), now);
        let resolvers = upstream::Settings::of(Resolvers::Listed(vec![]));
        Pipeline::new(pipeline::Parts {
            policy: Policy::compile(&loaded, 1, now).unwrap(),
            cache: Cache::new(&cache::Settings { memory: 1 << 20, ttl_min: Duration::ZERO, ttl_max: day, stale: day }),
            upstream: Upstream::new(&resolvers, Arc::new(upstream::System)),
            locals: Locals::new(&local::Settings::default()),
            telemetry: Telemetry::new(1),
            clock: Clock::simulated(now),
            settings: pipeline::Settings::default(),
        })
    }

    /// How often a listener, which hangs up at once, is called within so long.
    async fn calls_within(time: Duration) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let place = Place { protocol: Protocol::Dot, address, doh_path: String::new() };
        let (pipeline, chronicle) = (pipeline(), Arc::new(Chronicle::new(None, Register::default(), None)));
        let proving = Proving::new(vec![place], &pipeline, &chronicle, None, Health::default());
        let mut calls = 0;
        let answering = async {
            loop {
                drop(listener.accept().await.unwrap());
                calls += 1;
            }
        };
        let _ = tokio::time::timeout(time, async { tokio::join!(proving.run(), answering) }).await;
        calls
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_in_force_is_probed_at_once_and_every_hour() {
        // Once from inside and once from outside each time.
        for (minutes, calls) in [(1, 2), (59, 2), (61, 4), (181, 8)] {
            assert_eq!(calls_within(Duration::from_secs(60 * minutes)).await, calls, "within {minutes} minutes");
        }
    }

    fn found(order: &str, outcome: &str) -> Probed {
        let probe = Probe {
            order: order.to_owned(),
            target: String::new(),
            transport: "doh".to_owned(),
            inside: true,
            country: None,
            query: String::new(),
            answer: None,
            certificate: None,
            outcome: outcome.to_owned(),
            note: Some("what".to_owned()),
        };
        Probed { at: Timestamp::UNIX_EPOCH, probe }
    }

    #[test]
    fn what_comes_into_force_goes_before_the_round_and_is_probed_once() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        let mut turns = Turns::default();
        turns.put_first(ids(&["b"]));
        turns.put(ids(&["a", "b", "c", "d"]));
        assert_eq!(turns.next().as_deref(), Some("b"));
        assert_eq!(turns.next().as_deref(), Some("a"));
        turns.put_first(ids(&["d", "e", "f"]));
        turns.put_first(ids(&["e", "g"]));
        let rest: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(rest, ["e", "g", "d", "f", "c"]);
        assert!(turns.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_until_it_is_right_or_over() {
        let mut wrongs = Wrongs::default();
        wrongs.take("a", &[found("a", "right"), found("a", "wrong")]);
        let told = "order a, over doh: what; the ledger has what was asked and answered";
        assert_eq!(wrongs.shown().as_deref(), Some(told));
        wrongs.take("a", &[found("a", "none")]);
        wrongs.take("a", &[]);
        assert_eq!(wrongs.shown().as_deref(), Some(told), "nothing came that says otherwise");
        wrongs.take("a", &[found("a", "right")]);
        assert_eq!(wrongs.shown(), None);
        for id in ["a", "b", "c", "d"] {
            wrongs.take(id, &[found(id, "wrong")]);
        }
        assert!(wrongs.shown().is_some_and(|told| told.contains("order c") && told.contains("and 1 more")));
        wrongs.retain(&["b".to_owned()].into());
        assert!(wrongs.shown().is_some_and(|told| told.starts_with("order b") && !told.contains("more")));
    }
}
