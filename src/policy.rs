//! Admits a query and screens a reply: the sole maker of [`Permitted`], [`Screened`] and [`Block`].
#![allow(
    clippy::result_large_err,
    reason = "either arm is one query on the stack of whoever answers it; a box would be an allocation for each block"
)]

pub mod explain;
pub mod index;
pub mod list;
pub mod load;
pub mod order;
pub mod origin;
pub mod register;
pub mod report;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod weigh;

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::dns::edns::SdeOption;
use crate::dns::{Ede, Name, Qtype};
use crate::query::{Query, Reply};
use index::{Covers, Index, Rule, RuleId, SourceId};
use load::{Exemption, ListSettings, Loaded, LoadedOrder};
use order::{Effect, Texts};
use origin::{Country, Ground, Origin};
use weigh::{Trials, Weighing, Winner};

/// A query that may be answered from the cache or forwarded. Proves that the *question* was admitted; the reply is
/// screened for each asker all the same.
#[derive(Debug, Clone)]
pub struct Permitted<'q> {
    query: Query<'q>,
    /// The first moment from which an order will block the question.
    horizon: Option<Timestamp>,
    /// The orders in trial that would have blocked the question: they were told of already.
    trials: Trials,
}

impl<'q> Permitted<'q> {
    /// The question that was admitted.
    #[must_use]
    pub fn query(&self) -> &Query<'q> {
        &self.query
    }

    /// The same, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> Permitted<'static> {
        Permitted { query: self.query.into_owned(), ..self }
    }
}

#[cfg(test)]
impl Permitted<'_> {
    /// Admits a query past every policy, for the tests of what comes behind it.
    pub(crate) fn for_tests(query: Query<'_>) -> Permitted<'_> {
        Permitted { query, horizon: None, trials: Trials::default() }
    }
}

/// A reply whose names were looked at for this asker: it may leave.
#[derive(Debug, Clone)]
pub struct Screened<'q, 'r> {
    query: Query<'q>,
    reply: Reply<'r>,
    ttl_max: Option<u32>,
}

impl<'q, 'r> Screened<'q, 'r> {
    /// The query it answers.
    #[must_use]
    pub fn query(&self) -> &Query<'q> {
        &self.query
    }

    /// The reply.
    #[must_use]
    pub fn reply(&self) -> &Reply<'r> {
        &self.reply
    }

    /// Seconds until an order that is known today will block it; no TTL may be longer.
    #[must_use]
    pub fn ttl_max(&self) -> Option<u32> {
        self.ttl_max
    }
}

/// TTL of blocked answers, in seconds, at most.
pub const BLOCK_TTL_MAX: u32 = 60;

/// A query that is answered with an order's or a list's effect instead.
#[derive(Debug, Clone)]
pub struct Block<'p, 'q> {
    query: Query<'q>,
    cause: Cause,
    effect: Effect,
    soa_labels: Option<usize>,
    ttl: u32,
    ede: Ede,
    text: &'p str,
    hold_fallback: bool,
}

/// Whose rule blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The order of this number in [`Policy::orders`].
    Order(usize),
    /// The list of this number in [`Policy::lists`].
    List(usize),
}

impl<'q> Block<'_, 'q> {
    /// The query it answers.
    #[must_use]
    pub fn query(&self) -> &Query<'q> {
        &self.query
    }

    /// Whose rule it was.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// What is answered: NXDOMAIN has become NODATA where it would deny names that are not meant.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// How many of QNAME's rightmost labels own the SOA of a negative answer.
    #[must_use]
    pub fn soa_labels(&self) -> usize {
        self.soa_labels.unwrap_or(self.query.qname.labels())
    }

    /// TTL in seconds.
    #[must_use]
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// The extended errors in their order: what it is, then what keeps Firefox from asking elsewhere.
    #[must_use]
    pub fn errors(&self) -> ([(Ede, &str); 2], usize) {
        let held = self.hold_fallback && !matches!(self.effect, Effect::Address { .. });
        ([(self.ede, self.text), (Ede::FILTERED, "")], 1 + usize::from(held))
    }
}

/// What a policy decides by, of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The client's country, where it could be told.
    pub country: Option<Country>,
}

/// The most rules whose numbers an answer keeps; with more, it is screened anew each time.
pub const FINDINGS_MAX: usize = 8;

/// A rule that a reply met, and the how-manieth of its names met it: exemptions hold name by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: RuleId,
    /// The place of the name among those the reply was screened for.
    pub name: u16,
}

/// What a reply's names meet, whatever the country, state or time; beside the number of the index that said so.
/// Never a verdict: each hit decides over them with the asker's view.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// [`Index::number`] of the index they were found in; 0, which no index has, where nobody looked.
    pub index: u32,
    /// The rules met.
    pub met: Met,
}

/// The rules that a reply met.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Met {
    /// None: nearly every reply.
    #[default]
    Nothing,
    /// These, at most [`FINDINGS_MAX`].
    These(Arc<[Finding]>),
    /// More than [`FINDINGS_MAX`]: screen again.
    Many,
}

/// An order as the policy carries it out.
#[derive(Debug, Clone)]
pub struct PolicyOrder {
    /// As it was loaded.
    pub loaded: LoadedOrder,
    /// EXTRA-TEXT of what it blocks.
    texts: Texts,
}

impl PolicyOrder {
    fn text_for(&self, query: &Query<'_>) -> &str {
        let structured = query.echo.edns.is_some_and(|asked| asked.structured);
        if structured { &self.texts.structured } else { &self.texts.plain }
    }
}

/// One of the operator's lists as the policy carries it out.
#[derive(Debug, Clone)]
pub struct PolicyList {
    /// As configured.
    pub settings: ListSettings,
    /// How many rules it has.
    pub rules: usize,
    /// EXTRA-TEXT of what it blocks.
    text: String,
}

/// Whose rules a [`SourceId`] numbers.
#[derive(Debug, Clone, Copy)]
enum Source {
    Order(usize),
    List(usize),
    Exemption(usize),
}

/// What a generation shares with the one before it when only time has passed.
#[derive(Debug)]
struct Compiled {
    index: Index,
    sources: Vec<Source>,
    orders: Vec<PolicyOrder>,
    lists: Vec<PolicyList>,
    exemptions: Vec<Exemption>,
    origin: Origin,
    hold_fallback: bool,
    sde_option: SdeOption,
}

/// One immutable snapshot of everything that decides.
#[derive(Debug, Clone)]
pub struct Policy {
    generation: u64,
    /// The first moment, after this snapshot was made, at which an order begins or ends.
    next_change: Option<Timestamp>,
    compiled: Arc<Compiled>,
}

impl Policy {
    /// Compiles what was loaded.
    ///
    /// # Errors
    /// When there are more order targets, lists and exemptions than a policy can number; the text says so.
    pub fn compile(loaded: &Loaded, generation: u64, now: Timestamp) -> Result<Self, String> {
        let mut compiler = Compiler::default();
        let orders = compiler.orders(&loaded.orders, loaded.settings.pages.as_deref())?;
        let lists = compiler.lists(&loaded.lists)?;
        compiler.exemptions(&loaded.settings.exemptions)?;
        if compiler.rules.left_out() > 0 {
            return Err(format!("{} rules too many for one policy; drop a list", compiler.rules.left_out()));
        }
        let compiled = Compiled {
            index: compiler.rules.build(),
            sources: compiler.sources,
            orders,
            lists,
            exemptions: loaded.settings.exemptions.clone(),
            origin: Origin::new(&loaded.settings.origin),
            hold_fallback: loaded.settings.hold_fallback,
            sde_option: loaded.settings.sde_option,
        };
        Ok(Self { generation, next_change: next_change(&compiled.orders, now), compiled: Arc::new(compiled) })
    }

    /// The same rules under the next number: an order has begun or ended.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Self {
        let next_change = next_change(self.orders(), now);
        Self { generation: self.generation + 1, next_change, compiled: Arc::clone(&self.compiled) }
    }

    /// Whether an order has begun or ended since this snapshot was made.
    #[must_use]
    pub fn changed_since_made(&self, now: Timestamp) -> bool {
        self.next_change.is_some_and(|moment| moment <= now)
    }

    /// Rises with every snapshot; from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The orders, by file name.
    #[must_use]
    pub fn orders(&self) -> &[PolicyOrder] {
        &self.compiled.orders
    }

    /// The operator's lists, in the order of the configuration.
    #[must_use]
    pub fn lists(&self) -> &[PolicyList] {
        &self.compiled.lists
    }

    /// The option that signals structured DNS errors.
    #[must_use]
    pub fn sde_option(&self) -> SdeOption {
        self.compiled.sde_option
    }

    /// How many rules: names of orders, lists and exemptions.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.compiled.index.len()
    }

    /// How many rules, by whose they are.
    #[must_use]
    pub fn rules_by_kind(&self) -> [(&'static str, u64); 3] {
        let targets = self.orders().iter().flat_map(|order| &order.loaded.order.targets);
        let orders: usize = targets.map(|target| target.names.len()).sum();
        let lists: usize = self.lists().iter().map(|list| list.rules).sum();
        let exemptions = self.compiled.exemptions.len();
        [("order", orders as u64), ("list", lists as u64), ("exemption", exemptions as u64)]
    }

    /// The country of a client, and the ground for it.
    #[must_use]
    pub fn place(&self, address: IpAddr) -> (Option<Country>, Ground) {
        self.compiled.origin.place(address)
    }

    /// Admits a question or blocks it. `trial` hears the number of each order in trial that would have blocked it.
    ///
    /// # Errors
    /// The [`Block`] that the client gets instead.
    pub fn admit<'p, 'q>(
        &'p self,
        query: Query<'q>,
        view: View,
        now: Timestamp,
        trial: impl FnMut(usize),
    ) -> Result<Permitted<'q>, Block<'p, 'q>> {
        let mut weighing = Weighing::new(self, view, now);
        weighing.name(&query.qname);
        weighing.trials().since(&Trials::default(), trial);
        match weighing.winner() {
            Some(winner) => Err(self.block(query, winner, &weighing, true)),
            None => Ok(Permitted { query, horizon: weighing.coming(), trials: weighing.trials() }),
        }
    }

    /// What the names of a reply meet: to be kept beside it.
    #[must_use]
    pub fn find(&self, permitted: &Permitted<'_>, reply: &Reply<'_>) -> Findings {
        let mut met = Vec::new();
        let mut position = 0u16;
        names_of(&permitted.query.qname, reply, |name| {
            self.compiled.index.meet(name, |rule, _| {
                if met.len() <= FINDINGS_MAX {
                    met.push(Finding { rule, name: position });
                }
            });
            position = position.saturating_add(1);
        });
        let met = match met.len() {
            0 => Met::Nothing,
            1..=FINDINGS_MAX => Met::These(met.into()),
            _ => Met::Many,
        };
        Findings { index: self.compiled.index.number(), met }
    }

    /// Whether findings are of this policy's index; others are to be found again.
    #[must_use]
    pub fn knows(&self, findings: &Findings) -> bool {
        findings.index == self.compiled.index.number()
    }

    /// Lets a reply through to the asker or blocks it, by what its names met. Findings of another index are not
    /// believed: the names are looked up again. `trial` hears of the orders that [`Self::admit`] has not told of:
    /// one answer counts once for each.
    ///
    /// # Errors
    /// The [`Block`] that the client gets instead.
    pub fn screen<'p, 'q, 'r>(
        &'p self,
        permitted: Permitted<'q>,
        reply: Reply<'r>,
        findings: &Findings,
        view: View,
        now: Timestamp,
        trial: impl FnMut(usize),
    ) -> Result<Screened<'q, 'r>, Block<'p, 'q>> {
        let mut weighing = Weighing::after(self, &permitted, view, now);
        match &findings.met {
            Met::Nothing if self.knows(findings) => {}
            Met::These(met) if self.knows(findings) => weighing.findings(met),
            _ => names_of(&permitted.query.qname, &reply, |name| weighing.name(name)),
        }
        weighing.trials().since(&permitted.trials, trial);
        if let Some(winner) = weighing.winner() {
            return Err(self.block(permitted.query, winner, &weighing, false));
        }
        let ttl_max = weighing.coming().map(|moment| seconds_until(moment, now));
        Ok(Screened { query: permitted.query, reply, ttl_max })
    }

    fn block<'p, 'q>(
        &'p self,
        query: Query<'q>,
        winner: Winner,
        weighing: &Weighing<'_>,
        hit_qname: bool,
    ) -> Block<'p, 'q> {
        let (ede, text) = match winner.cause {
            Cause::Order(number) => (Ede::CENSORED, self.compiled.orders[number].text_for(&query)),
            Cause::List(number) => (Ede::BLOCKED, self.compiled.lists[number].text.as_str()),
        };
        let effect = self.effect(winner);
        let soa_labels = (hit_qname && winner.covers == Covers::Subtree).then_some(winner.labels);
        let ttl = weighing.ends().map_or(BLOCK_TTL_MAX, |end| seconds_until(end, weighing.now()).min(BLOCK_TTL_MAX));
        let hold_fallback = self.compiled.hold_fallback;
        Block { query, cause: winner.cause, effect, soa_labels, ttl, ede, text, hold_fallback }
    }

    /// The effect of the rule that decides.
    fn effect(&self, winner: Winner) -> Effect {
        let written = match winner.cause {
            Cause::Order(number) => self.compiled.orders[number].loaded.order.effect,
            Cause::List(number) => self.compiled.lists[number].settings.effect,
        };
        match (written, winner.covers) {
            // NXDOMAIN denies every name below (RFC 8020); an exact rule does not mean those.
            (Effect::NxDomain, Covers::Exact) => Effect::NoData,
            (written, _) => written,
        }
    }
}

fn next_change(orders: &[PolicyOrder], now: Timestamp) -> Option<Timestamp> {
    orders.iter().filter_map(|order| order.loaded.order.next_change(now)).min()
}

/// Whole seconds until `moment`, rounded down; 0 where it is past.
fn seconds_until(moment: Timestamp, now: Timestamp) -> u32 {
    let left = moment.duration_since(now).as_secs();
    u32::try_from(left.max(0)).unwrap_or(u32::MAX)
}

/// Calls `each` with every name of a reply, other than QNAME, that the policy is asked about: the owners in the answer
/// section, and the names that CNAME, SVCB and HTTPS records send the client on to, whether or not a record of theirs
/// follows. Of a DNAME the owner is not among them, nor its target where the CNAME made from it is there: that CNAME
/// names what the client is led from and to, the DNAME only the trees they lie in (RFC 6672 §3.1), which an exact
/// target or an exemption further down does not mean.
fn names_of(qname: &Name, reply: &Reply<'_>, mut each: impl FnMut(&Name)) {
    let mut last = qname.clone();
    let mut once = |name: Name| {
        if name != last && name != *qname && !name.is_root() {
            each(&name);
            last = name;
        }
    };
    let answers = reply.header().counts[1];
    let has_cname = reply.records().take(usize::from(answers)).any(|record| record.rtype == Qtype::CNAME);
    for record in reply.records().take(usize::from(answers)) {
        let is_dname = record.rtype == Qtype::DNAME;
        // Reply::read has read every one of these names before.
        if !is_dname && let Ok(owner) = record.owner() {
            once(owner);
        }
        let Some(skip) = record.rtype.target_at() else { continue };
        if is_dname && has_cname {
            continue;
        }
        if let Ok(target) = record.rdata_name(skip) {
            once(target);
        }
    }
}

/// Rules and their sources being numbered.
#[derive(Default)]
struct Compiler {
    rules: index::Builder,
    sources: Vec<Source>,
}

impl Compiler {
    fn source(&mut self, source: Source) -> Result<SourceId, String> {
        let id = u16::try_from(self.sources.len())
            .map_err(|_| "more than 65,536 order targets, lists and exemptions; join some of them".to_owned())?;
        self.sources.push(source);
        Ok(SourceId(id))
    }

    fn orders(&mut self, loaded: &[LoadedOrder], pages: Option<&str>) -> Result<Vec<PolicyOrder>, String> {
        for (number, order) in loaded.iter().enumerate() {
            for target in &order.order.targets {
                let source = self.source(Source::Order(number))?;
                for (name, covers, line) in &target.names {
                    self.rules.add(name, Rule { source, line: *line, covers: *covers });
                }
            }
        }
        Ok(loaded.iter().map(|order| PolicyOrder { loaded: order.clone(), texts: order.order.texts(pages) }).collect())
    }

    fn lists(&mut self, loaded: &[load::LoadedList]) -> Result<Vec<PolicyList>, String> {
        let mut lists = Vec::with_capacity(loaded.len());
        for (number, list) in loaded.iter().enumerate() {
            let source = self.source(Source::List(number))?;
            let settings = list.settings.clone();
            let mut rules = 0;
            let add = |name: &Name, line: u32| {
                self.rules.add(name, Rule { source, line, covers: settings.covers });
                rules += 1;
            };
            // Its faults were told when it was loaded.
            list::read(settings.format, &list.octets, add, |_| {});
            let text = format!("list {}", settings.name);
            lists.push(PolicyList { settings, rules, text });
        }
        Ok(lists)
    }

    fn exemptions(&mut self, exemptions: &[Exemption]) -> Result<(), String> {
        for (number, exemption) in exemptions.iter().enumerate() {
            let source = self.source(Source::Exemption(number))?;
            let line = exemption.place.1;
            self.rules.add(&exemption.name, Rule { source, line, covers: Covers::Subtree });
        }
        Ok(())
    }
}
