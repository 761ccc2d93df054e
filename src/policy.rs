//! Admits a query and screens a reply: the sole maker of [`Permitted`], [`Screened`] and [`Block`].

mod compile;
pub mod explain;
pub mod index;
mod lead;
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

use crate::digest::Digest;
use crate::dns::edns::SdeOption;
use crate::dns::{Ede, Name};
use crate::query::{Query, Reply};
use index::{Covers, Index, RuleId, Shelf};
use lead::{Lead, leads};
use load::{Bulk, Exemption, ListSettings, LoadedDatabase, LoadedOrder};
use order::{Effect, Order, Standing, Target, Texts};
use origin::{Country, Ground, Origin};
use weigh::{Trials, Weighing, Winner};

/// A query that may be answered from the cache or forwarded. Proves that the *question* was admitted; the reply is
/// screened for each asker all the same.
#[derive(Debug)]
pub struct Permitted<'q> {
    query: Held<'q>,
    /// The first moment from which an order will block the question.
    horizon: Option<Timestamp>,
    /// The orders in trial that would have blocked the question: they were told of already.
    trials: Trials,
    /// The generation of the policy in which the question met no rule at all; there it meets none at any time. None: it
    /// met one.
    clear_in: Option<u64>,
}

/// A query where it stands: it is large, and each move would copy it.
#[derive(Debug)]
enum Held<'q> {
    /// Where it was read.
    Lent(&'q Query<'q>),
    /// By itself: who asked may be gone before the answer comes.
    Owned(Box<Query<'static>>),
}

impl Permitted<'_> {
    /// The question that was admitted.
    #[must_use]
    pub fn query(&self) -> &Query<'_> {
        match &self.query {
            Held::Lent(query) => query,
            Held::Owned(query) => query,
        }
    }

    /// The same, borrowing nothing.
    #[must_use]
    pub fn to_static(&self) -> Permitted<'static> {
        Permitted { query: Held::Owned(Box::new(self.query().to_static())), ..*self }
    }
}

#[cfg(test)]
impl Permitted<'_> {
    /// Admits a query past every policy, for the tests of what comes behind it.
    pub(crate) fn for_tests(query: Query<'static>) -> Permitted<'static> {
        Permitted { query: Held::Owned(Box::new(query)), horizon: None, trials: Trials::default(), clear_in: None }
    }
}

/// A reply whose names were looked at for this asker: it may leave.
#[derive(Debug, Clone)]
pub struct Screened<'q, 'r> {
    query: &'q Query<'q>,
    reply: Reply<'r>,
    ttl_max: Option<u32>,
}

impl<'q, 'r> Screened<'q, 'r> {
    /// The query it answers.
    #[must_use]
    pub fn query(&self) -> &Query<'q> {
        self.query
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
    query: &'q Query<'q>,
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
        self.query
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

/// A rule that a reply met, and the how-manieth of its names and addresses met it: exemptions hold name by name, and for
/// an address those of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: RuleId,
    /// The place of the name or address among those the reply was screened for.
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
    /// How many names, labels and prefixes it is about, those of its list targets' files included.
    pub rules: usize,
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
    /// The octets in force.
    pub digest: Digest,
    /// EXTRA-TEXT of what it blocks.
    text: String,
}

/// Whose rules a [`SourceId`] numbers.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// A target, by its number among those of its order.
    Order {
        order: usize,
        target: usize,
    },
    List(usize),
    Exemption(usize),
    /// What a list says that is no longer asked for: its rules go when the lists are next compiled.
    Nobody,
}

/// Sources by number, for each [`Shelf`] apart. Those of lists and list targets are made anew with each policy: their
/// rules are shared with the one before, and so are the numbers that these bear.
#[derive(Debug, Default)]
struct Sources {
    written: Vec<Source>,
    lists: Vec<Source>,
    targets: Vec<Source>,
}

/// A file that a policy was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInput {
    /// `order`, `list` or `database`.
    pub kind: &'static str,
    /// The order's id, the list's name, for a list target the order's id and the file, or the database's file.
    pub id: String,
    /// The octets in force.
    pub digest: Digest,
}

/// What a generation shares with the one before it when only time has passed.
#[derive(Debug)]
struct Compiled {
    index: Index,
    sources: Sources,
    bulk: Bulk,
    orders: Vec<PolicyOrder>,
    lists: Vec<PolicyList>,
    exemptions: Vec<Exemption>,
    origin: Origin,
    /// What the origin has beside the settings, as it was loaded.
    database: Option<LoadedDatabase>,
    hold_fallback: bool,
    sde_option: SdeOption,
}

impl Compiled {
    /// Whose rule it is.
    fn source(&self, id: RuleId) -> Source {
        let sources = match id.shelf() {
            Shelf::Written => &self.sources.written,
            Shelf::Lists => &self.sources.lists,
            Shelf::Targets => &self.sources.targets,
        };
        sources[usize::from(self.index.rule(id).source.0)]
    }

    /// An order and one of its targets, by the numbers of a [`Source`].
    fn target(&self, order: usize, target: usize) -> (&Order, &Target) {
        let order = &self.orders[order].loaded.order;
        (order, &order.targets[target])
    }

    /// Calls `each` with every rule that a name meets and that is somebody's.
    fn meet(&self, name: &Name, mut each: impl FnMut(RuleId, usize)) {
        self.index.meet(name, |id, labels| {
            if !matches!(self.source(id), Source::Nobody) {
                each(id, labels);
            }
        });
    }

    /// Calls `each` with every rule that a name or an address of a reply meets; of an address, then with the exemptions
    /// that its owner meets.
    fn meet_lead(&self, lead: &Lead<'_>, mut each: impl FnMut(RuleId)) {
        let (owner, address) = match *lead {
            Lead::Name(name) => return self.meet(name, |id, _| each(id)),
            Lead::Address(owner, address) => (owner, address),
        };
        let mut is_met = false;
        self.index.meet_address(address, |id| {
            is_met = true;
            each(id);
        });
        if is_met && !self.exemptions.is_empty() {
            self.meet(owner, |id, _| {
                if matches!(self.source(id), Source::Exemption(_)) {
                    each(id);
                }
            });
        }
    }
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

    /// The database of `[origin]` that is in use.
    #[must_use]
    pub fn database(&self) -> Option<&LoadedDatabase> {
        self.compiled.database.as_ref()
    }

    /// The option that signals structured DNS errors.
    #[must_use]
    pub fn sde_option(&self) -> SdeOption {
        self.compiled.sde_option
    }

    /// The names of lists, for the next policy to share.
    #[must_use]
    pub fn bulk(&self) -> Bulk {
        self.compiled.bulk.clone()
    }

    /// Every file that it was made from: orders by file name, then lists in the order of the configuration, those of
    /// list targets, and the database.
    #[must_use]
    pub fn inputs(&self) -> Vec<PolicyInput> {
        let input = |kind, id, digest| PolicyInput { kind, id, digest };
        let orders = self.orders().iter().map(|order| &order.loaded);
        let of_orders = orders.clone().map(|loaded| input("order", loaded.order.id.clone(), loaded.digest));
        let of_lists = self.lists().iter().map(|list| input("list", list.settings.name.clone(), list.digest));
        let of_targets = orders.flat_map(|loaded| self.compiled.bulk.of_order(&loaded.order));
        let of_targets = of_targets.map(|(id, digest)| input("list", id, digest));
        let of_database =
            self.database().map(|loaded| input("database", loaded.file.display().to_string(), loaded.digest));
        of_orders.chain(of_lists).chain(of_targets).chain(of_database).collect()
    }

    /// How many rules: names, labels and prefixes of orders, names of lists and exemptions.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules_by_kind().iter().map(|(_, rules)| *rules as usize).sum()
    }

    /// Whether an exemption keeps an order from a name.
    #[must_use]
    pub fn exempts(&self, order: &str, name: &Name, now: Timestamp) -> bool {
        let mut exemptions = self.compiled.exemptions.iter();
        exemptions.any(|exemption| exemption.beats(order, now) && name.is_at_or_below(&exemption.name))
    }

    /// What an order means of a name, by its targets that are in force: all below it too where one of them does. None:
    /// the name is not among them.
    #[must_use]
    pub fn covers(&self, order: usize, name: &Name, now: Timestamp) -> Option<Covers> {
        let mut widest = None;
        self.compiled.meet(name, |id, _| match self.compiled.source(id) {
            Source::Order { order: number, target } if number == order => {
                let (order, target) = self.compiled.target(order, target);
                if order.standing_of(target, now) == Standing::InForce {
                    let covers = self.compiled.index.rule(id).covers;
                    widest = Some(widest.map_or(covers, |widest: Covers| widest.min(covers)));
                }
            }
            _ => {}
        });
        widest
    }

    /// Some names of the file that an order's target lists, by the numbers of both; none where it lists no file.
    #[must_use]
    pub fn listed_sample(&self, order: usize, target: usize) -> Vec<Name> {
        let lists = self.compiled.bulk.list_targets(&self.compiled.orders[order].loaded.order);
        let held = lists.into_iter().find(|(place, _)| *place == target).and_then(|(_, held)| held);
        held.map_or_else(Vec::new, |held| held.sample.clone())
    }

    /// How many rules, by whose they are.
    #[must_use]
    pub fn rules_by_kind(&self) -> [(&'static str, u64); 3] {
        let orders: usize = self.orders().iter().map(|order| order.rules).sum();
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
        query: &'q Query<'q>,
        view: View,
        now: Timestamp,
        trial: impl FnMut(usize),
    ) -> Result<Permitted<'q>, Block<'p, 'q>> {
        let mut weighing = Weighing::new(self, view, now);
        weighing.name(&query.qname);
        weighing.trials().since(&Trials::default(), trial);
        match weighing.winner() {
            Some(winner) => Err(self.block(query, winner, &weighing, true)),
            None => {
                let clear_in = (!weighing.met_any()).then(|| self.generation());
                let query = Held::Lent(query);
                Ok(Permitted { query, horizon: weighing.coming(), trials: weighing.trials(), clear_in })
            }
        }
    }

    /// Admits a question that has waited once more, or blocks it: [`Self::admit`], but for what is known already. Orders
    /// in trial were told of before.
    ///
    /// # Errors
    /// The [`Block`] that the client gets instead.
    pub fn admit_again<'p, 'q>(
        &'p self,
        permitted: &'q Permitted<'_>,
        view: View,
        now: Timestamp,
    ) -> Result<Permitted<'q>, Block<'p, 'q>> {
        let query = permitted.query();
        if permitted.clear_in == Some(self.generation()) {
            return Ok(Permitted { query: Held::Lent(query), ..*permitted });
        }
        self.admit(query, view, now, |_| {})
    }

    /// What the names and addresses of a reply meet: to be kept beside it.
    #[must_use]
    pub fn find(&self, permitted: &Permitted<'_>, reply: &Reply<'_>) -> Findings {
        let mut met = Vec::new();
        let mut position = 0u16;
        self.leads(&permitted.query().qname, reply, |lead| {
            self.compiled.meet_lead(&lead, |rule| {
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
        permitted: &'q Permitted<'_>,
        reply: Reply<'r>,
        findings: &Findings,
        view: View,
        now: Timestamp,
        trial: impl FnMut(usize),
    ) -> Result<Screened<'q, 'r>, Block<'p, 'q>> {
        let mut weighing = Weighing::after(self, permitted, view, now);
        match &findings.met {
            Met::Nothing if self.knows(findings) => {}
            Met::These(met) if self.knows(findings) => weighing.findings(met),
            _ => self.leads(&permitted.query().qname, &reply, |lead| weighing.lead(&lead)),
        }
        weighing.trials().since(&permitted.trials, trial);
        if let Some(winner) = weighing.winner() {
            return Err(self.block(permitted.query(), winner, &weighing, false));
        }
        let ttl_max = weighing.coming().map(|moment| seconds_until(moment, now));
        Ok(Screened { query: permitted.query(), reply, ttl_max })
    }

    /// Calls `each` with what a reply leads to and the rules are about: addresses only where a rule is.
    fn leads(&self, qname: &Name, reply: &Reply<'_>, each: impl FnMut(Lead<'_>)) {
        leads(qname, reply, self.compiled.index.has_addresses(), each);
    }

    fn block<'p, 'q>(
        &'p self,
        query: &'q Query<'q>,
        winner: Winner,
        weighing: &Weighing<'_>,
        hit_qname: bool,
    ) -> Block<'p, 'q> {
        let (ede, text) = match winner.cause {
            Cause::Order(number) => (Ede::CENSORED, self.compiled.orders[number].text_for(query)),
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
