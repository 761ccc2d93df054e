//! Makes a policy of what was loaded: rules and whose they are, numbered.

use std::sync::Arc;

use jiff::Timestamp;

use super::index::{Covers, Draft, Rule, SourceId};
use super::load::{Bulk, Exemption, Loaded, LoadedList, LoadedOrder};
use super::origin::Origin;
use super::{Compiled, Policy, PolicyList, PolicyOrder, Source, Sources, next_change};

impl Policy {
    /// Compiles what was loaded. What lists say was compiled as they were read; only what is written in orders,
    /// exemptions included, is compiled here.
    ///
    /// # Errors
    /// When there are more order targets, lists and exemptions than a policy can number, or more rules; the text says
    /// so.
    pub fn compile(loaded: &Loaded, generation: u64, now: Timestamp) -> Result<Self, String> {
        let (bulk, database) = (&loaded.bulk, loaded.database.as_ref());
        let mut compiler = Compiler { bulk, draft: Draft::default(), sources: Sources::default() };
        let orders = compiler.orders(&loaded.orders, loaded.settings.pages.as_deref())?;
        let lists = compiler.lists(&loaded.lists);
        compiler.exemptions(&loaded.settings.exemptions)?;
        let left_out = compiler.draft.left_out() + bulk.left_out();
        if left_out > 0 {
            return Err(format!("{left_out} rules too many for one policy; drop a list"));
        }
        let compiled = Compiled {
            index: compiler.draft.build(bulk.lists(), bulk.targets()),
            sources: compiler.sources,
            bulk: bulk.clone(),
            orders,
            lists,
            exemptions: loaded.settings.exemptions.clone(),
            origin: Origin::new(&loaded.settings.origin, database.map(|database| Arc::clone(&database.database))),
            database: database.cloned(),
            hold_fallback: loaded.settings.hold_fallback,
            sde_option: loaded.settings.sde_option,
        };
        Ok(Self { generation, next_change: next_change(&compiled.orders, now), compiled: Arc::new(compiled) })
    }
}

/// Rules and their sources being numbered.
struct Compiler<'l> {
    bulk: &'l Bulk,
    draft: Draft,
    sources: Sources,
}

impl Compiler<'_> {
    /// Numbers a source of what is written.
    fn source(&mut self, source: Source) -> Result<SourceId, String> {
        let id = u16::try_from(self.sources.written.len())
            .map_err(|_| "more than 65,536 order targets and exemptions; join some of them".to_owned())?;
        self.sources.written.push(source);
        Ok(SourceId(id))
    }

    fn orders(&mut self, loaded: &[LoadedOrder], pages: Option<&str>) -> Result<Vec<PolicyOrder>, String> {
        self.sources.targets = vec![Source::Nobody; self.bulk.target_sources()];
        let mut orders = Vec::with_capacity(loaded.len());
        for (number, loaded) in loaded.iter().enumerate() {
            let rules = self.order(number, loaded)?;
            orders.push(PolicyOrder { loaded: loaded.clone(), rules, texts: loaded.order.texts(pages) });
        }
        Ok(orders)
    }

    /// Returns how many rules the order has.
    fn order(&mut self, number: usize, loaded: &LoadedOrder) -> Result<usize, String> {
        let order = &loaded.order;
        let mut rules = 0;
        for (place, target) in order.targets.iter().enumerate() {
            let whose = Source::Order { order: number, target: place };
            let source = self.source(whose)?;
            for (name, covers, line) in &target.names {
                self.draft.name(name, Rule { source, line: *line, covers: *covers });
            }
            for (label, line) in &target.labels {
                self.draft.label(label, source, *line);
            }
            for (prefix, line) in &target.addresses {
                self.draft.prefix(*prefix, source, *line);
            }
            rules += target.names.len() + target.labels.len() + target.addresses.len();
        }
        for (place, held) in self.bulk.list_targets(order) {
            // An order without its list would not be carried out whole: it is never loaded so.
            let held = held.ok_or_else(|| format!("order {}: the list of a target was not loaded", order.id))?;
            self.sources.targets[usize::from(held.source.0)] = Source::Order { order: number, target: place };
            rules += held.rules;
        }
        Ok(rules)
    }

    fn lists(&mut self, loaded: &[LoadedList]) -> Vec<PolicyList> {
        self.sources.lists = vec![Source::Nobody; self.bulk.list_sources()];
        let list = |(number, list): (usize, &LoadedList)| {
            self.sources.lists[usize::from(list.held.source.0)] = Source::List(number);
            let text = format!("list {}", list.settings.name);
            PolicyList { settings: list.settings.clone(), rules: list.held.rules, digest: list.held.digest, text }
        };
        loaded.iter().enumerate().map(list).collect()
    }

    fn exemptions(&mut self, exemptions: &[Exemption]) -> Result<(), String> {
        for (number, exemption) in exemptions.iter().enumerate() {
            let source = self.source(Source::Exemption(number))?;
            let line = exemption.place.1;
            self.draft.name(&exemption.name, Rule { source, line, covers: Covers::Subtree });
        }
        Ok(())
    }
}
