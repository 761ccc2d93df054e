//! Says of a name what the answer would be, by which rule, on which ground, and what else matched but did not win.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::index::{RuleId, Shelf};
use super::lead::Lead;
use super::order::{Effect, Jurisdiction, Order, Standing, Target};
use super::weigh::{Bearing, Weighing, Winner, bearing};
use super::{Cause, Permitted, Policy, Source, View};
use crate::dns::{Name, Qtype};
use crate::query::Reply;

/// What an operator asks about.
#[derive(Debug, Clone)]
pub struct Question {
    /// The name.
    pub name: Name,
    /// The type.
    pub qtype: Qtype,
    /// The client; None: nobody in particular, of unknown country.
    pub client: Option<IpAddr>,
    /// When.
    pub at: Timestamp,
}

/// What the answer would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The cache or an upstream answers.
    Forward,
    /// An order or a list answers.
    Block,
    /// We answer ourselves: policy is not asked.
    Local,
}

/// The explanation, as `explain --json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The name asked about.
    pub name: String,
    /// The type asked about.
    #[serde(rename = "type")]
    pub qtype: String,
    /// The client asked about.
    pub client: Option<IpAddr>,
    /// When, in UTC.
    pub at: Timestamp,
    /// The client's country; None: unknown.
    pub country: Option<String>,
    /// How the country was come to.
    pub ground: String,
    /// What the answer would be.
    pub verdict: Verdict,
    /// What a blocked client is answered; None: not blocked.
    #[serde(serialize_with = "effect_as_written")]
    pub effect: Option<Effect>,
    /// The rule that decides; None for forward and local.
    pub by: Option<By>,
    /// The name that met that rule, or whose address did, where it is not the one asked about but one the reply leads to.
    pub through: Option<String>,
    /// The name of the exemption that kept a rule from deciding.
    pub exemption: Option<String>,
    /// What else matched but did not win.
    pub also: Vec<Also>,
    /// What an operator should know besides.
    pub note: Option<String>,
}

/// A rule and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct By {
    /// `order` or `list`.
    pub kind: &'static str,
    /// The order's id or the list's name.
    pub id: String,
    /// The file that the rule stands in: the order's, or a list's.
    pub file: String,
    /// The line of the rule, from 1.
    pub line: u32,
}

/// A rule that matched but did not win.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Also {
    /// The rule.
    #[serde(flatten)]
    pub by: By,
    /// Why it did not win.
    pub why: String,
}

fn effect_as_written<S: Serializer>(effect: &Option<Effect>, serializer: S) -> Result<S::Ok, S::Error> {
    match effect {
        None => serializer.serialize_none(),
        Some(Effect::NxDomain) => serializer.serialize_str("nxdomain"),
        Some(Effect::NoData) => serializer.serialize_str("nodata"),
        Some(Effect::Refused) => serializer.serialize_str("refused"),
        Some(Effect::Address { a, aaaa }) => {
            #[derive(Serialize)]
            struct Address {
                #[serde(skip_serializing_if = "Option::is_none")]
                a: Option<std::net::Ipv4Addr>,
                #[serde(skip_serializing_if = "Option::is_none")]
                aaaa: Option<std::net::Ipv6Addr>,
            }
            Address { a: *a, aaaa: *aaaa }.serialize(serializer)
        }
    }
}

/// A rule that a name or one of its addresses met, and what stands between it and its effect.
struct Seen {
    name: Name,
    /// None: the name itself met it.
    address: Option<IpAddr>,
    id: RuleId,
    bearing: Bearing,
}

impl Policy {
    /// Explains a question, before anybody was asked.
    #[must_use]
    pub fn explain(&self, question: &Question) -> Explanation {
        let (view, mut explanation) = self.blank(question);
        let mut weighing = Weighing::new(self, view, question.at);
        weighing.name(&question.name);
        let seen = self.seen(&Lead::Name(&question.name), view, question.at);
        self.fill(&mut explanation, &weighing, &seen, question);
        explanation
    }

    /// Explains what becomes of a reply: the names and addresses it leads to meet the same rules.
    #[must_use]
    pub fn explain_reply(&self, question: &Question, permitted: &Permitted<'_>, reply: &Reply<'_>) -> Explanation {
        let (view, mut explanation) = self.blank(question);
        let mut weighing = Weighing::new(self, view, question.at);
        let mut seen = self.seen(&Lead::Name(&question.name), view, question.at);
        self.leads(&permitted.query().qname, reply, |lead| {
            weighing.lead(&lead);
            seen.extend(self.seen(&lead, view, question.at));
        });
        self.fill(&mut explanation, &weighing, &seen, question);
        explanation
    }

    fn blank(&self, question: &Question) -> (View, Explanation) {
        let (country, ground) = match question.client {
            Some(client) => self.place(client),
            None => (None, super::Ground::Unknown),
        };
        let explanation = Explanation {
            name: question.name.to_string(),
            qtype: question.qtype.to_string(),
            client: question.client,
            at: question.at,
            country: country.map(|country| country.to_string()),
            ground: ground.to_string(),
            verdict: Verdict::Forward,
            effect: None,
            by: None,
            through: None,
            exemption: None,
            also: Vec::new(),
            note: None,
        };
        (View { country }, explanation)
    }

    fn seen(&self, lead: &Lead<'_>, view: View, now: Timestamp) -> Vec<Seen> {
        let (name, address) = match *lead {
            Lead::Name(name) => (name, None),
            Lead::Address(owner, address) => (owner, Some(address)),
        };
        let mut seen = Vec::new();
        self.compiled.meet_lead(lead, |id| {
            let same_name = |each: &mut dyn FnMut(RuleId)| self.compiled.meet(name, |id, _| each(id));
            let (bearing, _) = bearing(self, id, view, now, same_name);
            seen.push(Seen { name: name.clone(), address, id, bearing });
        });
        seen
    }

    fn fill(&self, explanation: &mut Explanation, weighing: &Weighing<'_>, seen: &[Seen], question: &Question) {
        let winner = weighing.winner();
        let mut notes = Vec::new();
        if let Some(winner) = winner {
            explanation.verdict = Verdict::Block;
            let effect = self.effect(winner);
            explanation.effect = Some(effect);
            if matches!(effect, Effect::Address { .. }) && !matches!(question.qtype, Qtype::A | Qtype::AAAA) {
                notes.push(format!("an address answers A and AAAA; {} gets NODATA", question.qtype));
            }
        }
        for each in seen {
            if let Bearing::Exempt(number) = each.bearing {
                explanation.exemption = Some(self.compiled.exemptions[number].name.to_string());
            }
            let Some(by) = self.by(each.id) else { continue };
            let wins = winner.is_some_and(|winner| winner.rule == each.id) && each.bearing == Bearing::Blocks;
            if wins && explanation.by.is_none() {
                explanation.by = Some(by);
                explanation.through = (each.name != question.name).then(|| each.name.to_string());
                notes.extend(each.address.map(|address| format!("the reply has the address {address}")));
                continue;
            }
            let mut why = self.why(each, winner, explanation.country.as_deref(), question.at);
            if let Some(address) = each.address {
                why = format!("{why} (met by the address {address} of the reply)");
            }
            explanation.also.push(Also { by, why });
        }
        explanation.note = (!notes.is_empty()).then(|| notes.join("; "));
    }

    /// None for an exemption, which has a place of its own in an explanation.
    fn by(&self, id: RuleId) -> Option<By> {
        let shown = |path: &Path| path.display().to_string();
        let line = self.compiled.index.rule(id).line;
        match self.compiled.source(id) {
            Source::Order { order, target } => {
                let (order, target) = self.compiled.target(order, target);
                let list = target.list.as_ref().filter(|_| id.shelf() == Shelf::Targets);
                let file = list.map_or(&order.file, |list| &list.file);
                Some(By { kind: "order", id: order.id.clone(), file: shown(file), line })
            }
            Source::List(number) => {
                let list = &self.compiled.lists[number].settings;
                Some(By { kind: "list", id: list.name.clone(), file: shown(&list.file), line })
            }
            Source::Exemption(_) | Source::Nobody => None,
        }
    }

    fn why(&self, seen: &Seen, winner: Option<Winner>, country: Option<&str>, now: Timestamp) -> String {
        match (seen.bearing, self.compiled.source(seen.id)) {
            (Bearing::Exempt(number), _) => {
                let exemption = &self.compiled.exemptions[number];
                format!("exempt: {} ({})", exemption.name, exemption.reason)
            }
            (Bearing::Trial, _) => "in trial: it would block".to_owned(),
            (Bearing::Coming(moment), _) => format!("takes effect at {moment}"),
            (Bearing::Idle, Source::Order { order, target }) => {
                let (order, target) = self.compiled.target(order, target);
                idle(order, target, country, now)
            }
            (_, source) => outranked(source, winner.map(|winner| winner.cause)).to_owned(),
        }
    }
}

fn idle(order: &Order, target: &Target, country: Option<&str>, now: Timestamp) -> String {
    match (order.standing_of(target, now), &order.jurisdiction, country) {
        (
            Standing::InForce | Standing::Trial | Standing::Waiting,
            Jurisdiction::Countries(countries),
            Some(country),
        ) => {
            let countries: Vec<_> = countries.iter().map(ToString::to_string).collect();
            format!("the client's country, {country}, is not in its jurisdiction ({})", countries.join(", "))
        }
        (Standing::InForce | Standing::Trial | Standing::Waiting, ..) => {
            "the client's country is unknown, and its unknown-origin is \"spare\"".to_owned()
        }
        (Standing::Expired, ..) => "expired".to_owned(),
        (standing, ..) => format!("its state is {}", standing.as_str()),
    }
}

fn outranked(source: Source, winner: Option<Cause>) -> &'static str {
    match (source, winner) {
        (Source::List(_), Some(Cause::Order(_))) => "an order decides before every list",
        (Source::List(list), Some(Cause::List(winner))) if list != winner => "an earlier list decides",
        (Source::Order { order, .. }, Some(Cause::Order(winner))) if order != winner => {
            "an order received earlier decides"
        }
        _ => "another of its rules decides",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::order::State;
    use super::super::tests::{at, chain, exempt, list, name, order, policy};
    use super::super::{Covers, Permitted};
    use super::*;
    use crate::query::Query;

    fn question(text: &str) -> Question {
        Question { name: name(text), qtype: Qtype::A, client: None, at: at(0) }
    }

    /// The rules that did not win, and why.
    fn also(explanation: &Explanation) -> Vec<(&str, &str)> {
        explanation.also.iter().map(|also| (also.by.id.as_str(), also.why.as_str())).collect()
    }

    #[test]
    fn the_rule_that_decides_stands_apart_from_those_that_do_not() {
        let italy = Jurisdiction::Countries(super::super::Country::from_code("IT").into_iter().collect());
        let orders = [
            Order { received: at(1), ..order("later", &["a.example"]) },
            order("first", &["b.example", "a.example"]),
            Order { state: State::Trial, ..order("tried", &["a.example"]) },
            Order { state: State::Lifted, ..order("lifted", &["a.example"]) },
            Order { effective: Some(at(60_000)), ..order("coming", &["a.example"]) },
            Order { jurisdiction: italy, ..order("abroad", &["a.example"]) },
        ];
        let lists = [list("a.example", Covers::Subtree, Effect::Refused)];
        let explanation = policy(&orders, &lists, &[]).explain(&question("www.a.example"));
        assert_eq!((explanation.verdict, explanation.effect), (Verdict::Block, Some(Effect::NxDomain)));
        let by = explanation.by.clone().unwrap();
        assert_eq!((by.kind, by.id.as_str(), by.line, explanation.through.clone()), ("order", "first", 2, None));
        assert_eq!(
            also(&explanation),
            [
                ("later", "an order received earlier decides"),
                ("tried", "in trial: it would block"),
                ("lifted", "its state is lifted"),
                ("coming", "takes effect at 2026-11-22T00:01:00Z"),
                ("abroad", "the client's country is unknown, and its unknown-origin is \"spare\""),
                ("a.example", "an order decides before every list"),
            ]
        );
    }

    #[test]
    fn an_exempt_name_is_forwarded_and_its_rule_told() {
        let lists = [list("example.org", Covers::Subtree, Effect::NxDomain)];
        let policy = policy(&[], &lists, &[exempt("good.example.org", None, None)]);
        let explanation = policy.explain(&question("www.good.example.org"));
        assert_eq!(
            (explanation.verdict, explanation.exemption.as_deref()),
            (Verdict::Forward, Some("good.example.org"))
        );
        assert_eq!(also(&explanation), [("example.org", "exempt: good.example.org (a test)")]);
        assert_eq!(policy.explain(&question("example.org")).verdict, Verdict::Block);
    }

    #[test]
    fn a_chain_is_explained_by_the_name_that_met_the_rule() {
        let policy = policy(&[order("x", &["blocked.example"])], &[], &[]);
        let names = ["a.example", "www.blocked.example"].map(name);
        let permitted = Permitted::for_tests(Query::plain(names[0].clone(), Qtype::A));
        let explanation = policy.explain_reply(&question("a.example"), &permitted, &chain(&names));
        assert_eq!(
            (explanation.verdict, explanation.through.as_deref()),
            (Verdict::Block, Some("www.blocked.example"))
        );
        let json = serde_json::to_value(&explanation).unwrap();
        assert_eq!(
            (&json["verdict"], &json["effect"], &json["by"]["id"]),
            (&"block".into(), &"nxdomain".into(), &"x".into())
        );
    }
}
