//! The product in one function: [`Pipeline::answer`].

mod client;
mod flight;
mod passes;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod waiting;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;

use crate::answer::{Answer, Manner, Written};
use crate::cache::{Cache, Found};
use crate::clock::Clock;
use crate::crowd::Crowd;
use crate::dns::message::flag;
use crate::dns::{Name, Qclass, made};
use crate::local::{Local, Locals};
use crate::policy::explain::{Explanation, Question, Verdict};
pub use crate::policy::origin::Country;
use crate::policy::{Block, Cause, Findings, Permitted, Policy, View};
use crate::query::{Failure, Fault, Malformed, Now, Query, Reply, Transport};
use crate::telemetry::{BlockCounter, Bound, Event, Protocol, Telemetry};
use crate::upstream::{Errand, Upstream};
pub use client::Client;
use flight::{Flight, Flights, Outcome, Ticket};
use passes::Passes;
pub use passes::ProbePass;
use waiting::Place;
pub use waiting::Waiting;

/// What the pipeline itself decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `[upstream] deadline`: of a client's whole query. Default 5 s.
    pub deadline: Duration,
    /// `[cache] stale-after`, from the query's arrival. Default 500 ms.
    pub stale_after: Duration,
    /// `[upstream] trust-ad`.
    pub trust_ad: bool,
    /// `[limits] in-flight`: queries waiting for an upstream, in all; 0: no limit. Default 10,000.
    pub in_flight: usize,
    /// What edns-tcp-keepalive announces on DoT until [`Pipeline::announce_idle_timeout`]: `[limits] idle-timeout`.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            stale_after: Duration::from_millis(500),
            trust_ad: false,
            in_flight: 10_000,
            idle_timeout: Duration::from_secs(65),
        }
    }
}

impl Settings {
    /// When a client is told that nobody answered: a twentieth before its deadline, so that SERVFAIL still arrives.
    fn patience(&self) -> Duration {
        self.deadline - self.deadline / 20
    }
}

/// A timeout in units of 100 ms (RFC 7828 §3.1).
fn in_tenths(timeout: Duration) -> u16 {
    u16::try_from(timeout.as_millis() / 100).unwrap_or(u16::MAX)
}

/// The option of [`Policy::sde_option`], 0 for none.
fn in_bits(policy: &Policy) -> u16 {
    policy.sde_option().map_or(0, NonZeroU16::get)
}

/// What a pipeline is put together from.
#[derive(Debug)]
pub struct Parts {
    /// The first snapshot.
    pub policy: Policy,
    /// The cache.
    pub cache: Cache,
    /// The upstream resolvers.
    pub upstream: Arc<Upstream>,
    /// What we answer ourselves.
    pub locals: Locals,
    /// The counters.
    pub telemetry: Arc<Telemetry>,
    /// The clocks.
    pub clock: Clock,
    /// See [`Settings`].
    pub settings: Settings,
}

/// How far an answer has come.
#[derive(Debug)]
pub enum Progress {
    /// It stands at the end of the output buffer.
    Answered(Written),
    /// An upstream is being asked.
    Waiting(Waiting),
}

/// A policy, and where its blocks are counted.
#[derive(Debug)]
struct Regime {
    policy: Policy,
    orders: Vec<BlockCounter>,
    trials: Vec<BlockCounter>,
    lists: Vec<BlockCounter>,
}

impl Regime {
    fn new(policy: Policy, telemetry: &Telemetry) -> Self {
        let order_ids = || policy.orders().iter().map(|order| order.loaded.order.id.as_str());
        Self {
            orders: order_ids().map(|id| telemetry.block_counter("order", id)).collect(),
            trials: order_ids().map(|id| telemetry.trial_counter(id)).collect(),
            lists: policy.lists().iter().map(|list| telemetry.block_counter("list", &list.settings.name)).collect(),
            policy,
        }
    }

    fn admit<'q>(&self, query: &'q Query<'q>, by: Sight<'_>) -> Result<Permitted<'q>, Block<'_, 'q>> {
        self.policy.admit(query, by.view, by.now.wall, |order| self.count_trial(order, by))
    }

    fn count_trial(&self, order: usize, by: Sight<'_>) {
        if !by.is_probe {
            self.trials[order].count();
        }
    }

    fn count(&self, cause: Cause) {
        match cause {
            Cause::Order(number) => self.orders[number].count(),
            Cause::List(number) => self.lists[number].count(),
        }
    }
}

/// By what one answer is decided.
#[derive(Debug, Clone, Copy)]
struct Sight<'r> {
    regime: &'r Regime,
    view: View,
    now: Now,
    /// What is blocked for it is not counted.
    is_probe: bool,
}

impl<'r> Sight<'r> {
    fn new(regime: &'r Regime, client: &Client, now: Now) -> Self {
        Self { regime, view: client.view(&regime.policy), now, is_probe: client.is_probe() }
    }
}

/// What a flight sets out with.
struct Departure {
    pipeline: Arc<Pipeline>,
    ticket: Ticket,
    now: Now,
}

thread_local! {
    /// The flights that this thread began.
    static FLIGHTS: Crowd<Departure> = const { Crowd::new() };
}

/// The product.
#[derive(Debug)]
pub struct Pipeline {
    regime: ArcSwap<Regime>,
    cache: Cache,
    upstream: Arc<Upstream>,
    locals: Locals,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    settings: Settings,
    /// What edns-tcp-keepalive announces, in units of 100 ms.
    keepalive: AtomicU16,
    /// The option that signals structured DNS errors, as the policy has it; 0: none. Beside the policy, for it is asked
    /// for before there is a query to decide over.
    sde_option: AtomicU16,
    flights: Flights,
    waiting: AtomicUsize,
    passes: Arc<Passes>,
}

/// How long a planted address is kept, in seconds: longer than a probe takes.
const PLANTED_TTL: u32 = 120;

thread_local! {
    /// Where the cache copies a hit to; grows to the largest message once per worker.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Pipeline {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let sde_option = AtomicU16::new(in_bits(&parts.policy));
        let regime = Regime::new(parts.policy, &parts.telemetry);
        Arc::new(Self {
            regime: ArcSwap::from_pointee(regime),
            cache: parts.cache,
            upstream: parts.upstream,
            locals: parts.locals,
            telemetry: parts.telemetry,
            clock: parts.clock,
            flights: Flights::new(parts.settings.in_flight),
            keepalive: AtomicU16::new(in_tenths(parts.settings.idle_timeout)),
            sde_option,
            settings: parts.settings,
            waiting: AtomicUsize::new(0),
            passes: Arc::default(),
        })
    }

    /// Reads a message from a client, with the signals that the policy knows.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn read<'q>(&self, octets: &'q [u8], transport: Transport) -> Result<Query<'q>, Malformed<'q>> {
        Query::read_signalled(octets, transport, NonZeroU16::new(self.sde_option.load(Ordering::Relaxed)))
    }

    /// Answers a query: the answer is appended to `out`, unless an upstream has to be asked.
    pub fn answer(self: &Arc<Self>, client: &Client, query: &Query<'_>, now: Now, out: &mut BytesMut) -> Progress {
        let regime = self.regime.load();
        let by = Sight::new(&regime, client, now);
        self.count(by, Event::Query(protocol(query.echo.transport)));
        if let Some(local) = self.locals.special(query) {
            return self.leave(by, &Answer::local(&query.echo, &local), out);
        }
        let permitted = match regime.admit(query, by) {
            Ok(permitted) => permitted,
            Err(block) => return Progress::Answered(self.blocked(by, &block, out)),
        };
        if let Some(local) = Local::for_type(permitted.query()) {
            return self.leave(by, &Answer::local(&permitted.query().echo, &local), out);
        }
        SCRATCH.with_borrow_mut(|scratch| self.answer_permitted(client, by, &permitted, scratch, out))
    }

    /// Answers what policy has nothing against, from the cache or an upstream.
    fn answer_permitted(
        self: &Arc<Self>,
        client: &Client,
        by: Sight<'_>,
        permitted: &Permitted<'_>,
        scratch: &mut Vec<u8>,
        out: &mut BytesMut,
    ) -> Progress {
        match self.cache.get(permitted, by.now.mono, scratch) {
            Found::Fresh { reply, findings, refresh } => {
                self.count(by, Event::CacheHit);
                if refresh {
                    self.refresh(permitted, by.now);
                }
                Progress::Answered(self.screen(by, permitted, reply, findings, out))
            }
            Found::Failed(failure) => {
                self.count(by, Event::CacheHit);
                self.leave(by, &Answer::failure(&permitted.query().echo, failure, true), out)
            }
            // A refresh has failed a moment ago: nobody is asked (RFC 8767 §5).
            Found::Expired { at_once: true } => self.stale_or(Failure::Timeout, by, permitted, scratch, out),
            Found::Expired { at_once: false } => self.ask(client, by, permitted, true, scratch, out),
            Found::Nothing => self.ask(client, by, permitted, false, scratch, out),
        }
    }

    /// Answers what is not a query.
    pub fn fault(&self, fault: &Fault<'_>, out: &mut BytesMut) -> Written {
        self.telemetry.count(Event::Query(protocol(fault.echo.transport)));
        let written = self.write(&Answer::local(&fault.echo, &Local::fault(fault)), out);
        self.telemetry.count(Event::Answer(written.rcode));
        written
    }

    /// The client at an address, of the country that its listener says, where it says one.
    #[must_use]
    pub fn client(&self, address: IpAddr, listener: Option<Country>) -> Client {
        Client::at(address, listener)
    }

    /// A client whose address its forwarder hides: of the country that its listener says, else of an unknown one.
    #[must_use]
    pub fn hidden_client(&self, listener: Option<Country>) -> Client {
        Client::hidden(listener)
    }

    /// Registers a probe's socket, bound to `local` and not connected yet: what comes from there is asked as a client of
    /// exactly this country (None: unknown), until the pass is dropped.
    pub fn register_probe(&self, local: SocketAddr, country: Option<Country>) -> ProbePass {
        self.passes.register(local, country)
    }

    /// Gives a made-up name of a probe's an address, as an upstream would have: a target of addresses is met by what
    /// comes back, and there is no name whose addresses are ours to say. Only the prober knows the name.
    pub fn plant(&self, name: &Name, address: IpAddr) {
        let now = self.clock.now();
        let policy = self.policy();
        let (qtype, message) = (made::qtype_of(address), made::address(name, address, PLANTED_TTL));
        let query = Query::plain(name.clone(), qtype);
        let Ok(permitted) = policy.admit(&query, View { country: None }, now.wall, |_| {}) else { return };
        let Ok(mut reply) = Reply::read(&message, name, qtype, Qclass::IN) else { return };
        let findings = policy.find(&permitted, &reply);
        self.cache.keep(&permitted, &mut reply, &findings, now.mono);
    }

    /// The probe whose socket this is, asked of the socket's own address at the accept; None: a client. Takes no lock
    /// while no probe is registered.
    #[must_use]
    pub fn probe_client(&self, peer: SocketAddr) -> Option<Client> {
        self.passes.of(peer).map(Client::probe)
    }

    /// The clock to read `now` from.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The counters.
    #[must_use]
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// The cache, to be measured.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The upstream resolvers, to be measured.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// The policy that decides now.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.regime.load().policy.clone()
    }

    /// Swaps the policy. Every answer that leaves after this returns is by the new one; the caller drops the old one.
    pub fn install(&self, policy: Policy) {
        self.sde_option.store(in_bits(&policy), Ordering::Relaxed);
        drop(self.regime.swap(Arc::new(Regime::new(policy, &self.telemetry))));
    }

    /// How long a connection may be idle from now on, as edns-tcp-keepalive is to announce it (RFC 7828 §3.3.2).
    pub fn announce_idle_timeout(&self, idle_timeout: Duration) {
        let keepalive = in_tenths(idle_timeout);
        // It hardly ever changes, and workers read it with every answer: what is the same is not written.
        if self.keepalive.load(Ordering::Relaxed) != keepalive {
            self.keepalive.store(keepalive, Ordering::Relaxed);
        }
    }

    /// How many queries wait for an upstream.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Voids the kept timeouts whenever an upstream that was down is back: what timed out may be asked again. Never ends.
    pub async fn follow_returns(self: Arc<Self>) {
        let mut returns = self.upstream.returns();
        while returns.changed().await.is_ok() {
            self.cache.void_timeouts(self.clock.now().mono);
        }
    }

    /// Explains a question, and asks the cache or an upstream where names that it leads to may matter.
    pub async fn explain(self: &Arc<Self>, question: &Question) -> Explanation {
        let policy = self.policy();
        let explanation = explain(&policy, &self.locals, question);
        if explanation.verdict != Verdict::Forward {
            return explanation;
        }
        let query = Query::plain(question.name.clone(), question.qtype);
        let country = question.client.and_then(|client| policy.place(client).0);
        let Ok(permitted) = policy.admit(&query, View { country }, question.at, |_| {}) else { return explanation };
        let errand = Errand::new(permitted.to_static());
        let flight = self.flight(&errand, self.clock.now());
        let outcome = match &flight {
            Some(flight) => flight.outcome().await,
            None => &Err(Failure::Overloaded),
        };
        match outcome {
            Ok((reply, _)) => policy.explain_reply(question, errand.permitted(), reply),
            Err(_) => {
                let note = "no upstream answered: addresses, and names behind a CNAME, DNAME, SVCB or HTTPS record, \
                            were not looked at";
                Explanation { note: Some(note.to_owned()), ..explanation }
            }
        }
    }

    fn write(&self, answer: &Answer<'_>, out: &mut BytesMut) -> Written {
        let manner = Manner { trust_ad: self.settings.trust_ad, keepalive: self.keepalive.load(Ordering::Relaxed) };
        answer.write(manner, out)
    }

    /// Writes an answer that leaves, and counts it.
    fn send(&self, by: Sight<'_>, answer: &Answer<'_>, out: &mut BytesMut) -> Written {
        let written = self.write(answer, out);
        self.count(by, Event::Answer(written.rcode));
        written
    }

    fn leave(&self, by: Sight<'_>, answer: &Answer<'_>, out: &mut BytesMut) -> Progress {
        Progress::Answered(self.send(by, answer, out))
    }

    /// Counts what a client's query came to; a probe is no client.
    fn count(&self, by: Sight<'_>, event: Event) {
        if !by.is_probe {
            self.telemetry.count(event);
        }
    }

    fn blocked(&self, by: Sight<'_>, block: &Block<'_, '_>, out: &mut BytesMut) -> Written {
        if !by.is_probe {
            by.regime.count(block.cause());
        }
        self.send(by, &Answer::block(block), out)
    }

    /// Screens a reply for one asker and writes what becomes of it.
    fn screen(
        &self,
        by: Sight<'_>,
        permitted: &Permitted<'_>,
        reply: Reply<'_>,
        mut findings: Findings,
        out: &mut BytesMut,
    ) -> Written {
        let Sight { regime, view, now, .. } = by;
        if !regime.policy.knows(&findings) {
            findings = regime.policy.find(permitted, &reply);
            self.cache.refind(permitted, &reply, &findings);
        }
        let trial = |order: usize| regime.count_trial(order, by);
        match regime.policy.screen(permitted, reply, &findings, view, now.wall, trial) {
            Ok(screened) => self.send(by, &Answer::screened(&screened), out),
            Err(block) => self.blocked(by, &block, out),
        }
    }

    /// A stale reply where there is one still, for it goes before a failure (RFC 8767 §5).
    fn stale_or(
        &self,
        failure: Failure,
        by: Sight<'_>,
        permitted: &Permitted<'_>,
        scratch: &mut Vec<u8>,
        out: &mut BytesMut,
    ) -> Progress {
        match self.cache.stale(permitted, by.now.mono, scratch) {
            Some((reply, findings)) => {
                self.count(by, Event::CacheStale);
                Progress::Answered(self.screen(by, permitted, reply, findings, out))
            }
            None => self.leave(by, &Answer::failure(&permitted.query().echo, failure, false), out),
        }
    }

    /// Makes a miss a future, unless it may not be asked upstream.
    fn ask(
        self: &Arc<Self>,
        client: &Client,
        by: Sight<'_>,
        permitted: &Permitted<'_>,
        stale: bool,
        scratch: &mut Vec<u8>,
        out: &mut BytesMut,
    ) -> Progress {
        if !permitted.query().echo.has(flag::RD) {
            return self.leave(by, &Answer::local(&permitted.query().echo, &Local::not_cached()), out);
        }
        self.count(by, Event::CacheMiss);
        let errand = Errand::new(permitted.to_static());
        let flight = |place| Some((place, self.flight(&errand, by.now)?));
        let Some((place, flight)) = self.take_place().and_then(flight) else {
            self.telemetry.count(Event::Bound(Bound::InFlight));
            return self.stale_or(Failure::Overloaded, by, permitted, scratch, out);
        };
        Progress::Waiting(Waiting { place, client: client.clone(), errand, arrived: by.now, stale, flight })
    }

    fn take_place(self: &Arc<Self>) -> Option<Place> {
        let place = Place { pipeline: Arc::clone(self) };
        let taken = self.waiting.fetch_add(1, Ordering::Relaxed);
        // Over the bound the place is given back as it drops.
        (self.settings.in_flight == 0 || taken < self.settings.in_flight).then_some(place)
    }

    fn refresh(self: &Arc<Self>, permitted: &Permitted<'_>, now: Now) {
        let event = match self.flight(&Errand::new(permitted.to_static()), now) {
            Some(_) => Event::CacheRefresh,
            None => Event::Bound(Bound::InFlight),
        };
        self.telemetry.count(event);
    }

    /// The flight for a question: the one under way, or a new one, which outlives every asker. None: too
    /// many are under way.
    fn flight(self: &Arc<Self>, errand: &Arc<Errand>, now: Now) -> Option<Flight> {
        self.flights.join(errand, |ticket| {
            FLIGHTS.with(|flights| flights.join(Departure { pipeline: Arc::clone(self), ticket, now }, fly));
        })
    }

    /// Asks the upstreams once, on behalf of all who ask the same, and keeps what comes of it.
    async fn fetch(&self, errand: &Arc<Errand>, now: Now) -> Outcome {
        let permitted = errand.permitted();
        // Our own loop probe has come round: it must not set out again.
        if self.upstream.is_own_probe(&permitted.query().qname) {
            return Err(Failure::Network);
        }
        let until = self.clock.instant(now.mono + self.settings.patience());
        let over_budget = || self.telemetry.count(Event::Bound(Bound::UpstreamBudget));
        let result = self.upstream.forward(errand, until, over_budget).await;
        let now = self.clock.mono();
        match result {
            Ok(mut reply) => {
                let findings = self.regime.load().policy.find(permitted, &reply);
                self.cache.keep(permitted, &mut reply, &findings, now);
                Ok((reply, findings))
            }
            Err(failure) => {
                self.cache.keep_failure(permitted, failure, now);
                Err(failure)
            }
        }
    }
}

async fn fly(departure: Departure) {
    let Departure { pipeline, ticket, now } = departure;
    let outcome = pipeline.fetch(ticket.errand(), now).await;
    ticket.land(outcome);
}

/// Explains a question by the policy and our own names alone.
#[must_use]
pub fn explain(policy: &Policy, locals: &Locals, question: &Question) -> Explanation {
    let explanation = policy.explain(question);
    let by_type = || Local::for_type(&Query::plain(question.name.clone(), question.qtype)).is_some();
    let note = if locals.owns(&question.name) {
        "a special name: answered here and never forwarded, before any policy (RFC 6761, RFC 6303, RFC 9462)"
    } else if explanation.verdict == Verdict::Forward && by_type() {
        "a type that is answered here and never forwarded"
    } else {
        return explanation;
    };
    let note = Some(note.to_owned());
    let (effect, by, exemption, also) = (None, None, None, Vec::new());
    Explanation { verdict: Verdict::Local, effect, by, exemption, also, note, ..explanation }
}

fn protocol(transport: Transport) -> Protocol {
    match transport {
        Transport::Dot => Protocol::Dot,
        Transport::Doh => Protocol::Doh,
    }
}
