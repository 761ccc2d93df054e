//! Names of lists, compiled as they were read and shared by policies for as long as their files are the same.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::ListSettings;
use super::print::Print;
use crate::digest::Digest;
use crate::dns::{Name, special};
use crate::mistake::Mistake;
use crate::policy::index::{Builder, Covers, Draft, Part, Rule, SourceId};
use crate::policy::list::{self, Fault, Format};
use crate::policy::order::{ListTarget, Order, State};

/// How many of a list's names are kept beside its rules, to be probed.
const SAMPLE_MAX: usize = 4;

/// How many of a list's faults are shown; the rest are counted.
const FAULTS_SHOWN_MAX: usize = 3;

/// The names of the operator's lists, and those of orders' list targets: apart, so that neither waits for the other to
/// be compiled.
#[derive(Debug, Clone, Default)]
pub struct Bulk {
    pub(super) lists: Names,
    pub(super) targets: Names,
}

impl Bulk {
    /// The names of the operator's lists.
    pub(in crate::policy) fn lists(&self) -> Arc<Part> {
        Arc::clone(&self.lists.part)
    }

    /// These list targets beside the lists of another.
    #[must_use]
    pub fn with_lists_of(self, other: &Self) -> Self {
        Self { lists: other.lists.clone(), ..self }
    }

    /// Whether a list's file is no longer what it was when it was compiled. Only looks at the files from outside.
    #[must_use]
    pub fn is_behind(&self, lists: &[ListSettings]) -> bool {
        let unchanged = |list: &ListSettings| {
            let wanted = Wanted::of_list(list);
            self.lists.find_unchanged(&wanted, Print::of(&wanted.file)).is_some()
        };
        !lists.iter().all(unchanged)
    }

    /// The names of list targets.
    pub(in crate::policy) fn targets(&self) -> Arc<Part> {
        Arc::clone(&self.targets.part)
    }

    /// How many sources the operator's lists have, those that are no longer asked for included.
    pub(in crate::policy) fn list_sources(&self) -> usize {
        self.lists.held.len()
    }

    /// The same of list targets.
    pub(in crate::policy) fn target_sources(&self) -> usize {
        self.targets.held.len()
    }

    /// How many rules were not taken for want of room.
    pub(in crate::policy) fn left_out(&self) -> usize {
        self.lists.left_out + self.targets.left_out
    }

    /// The list targets of an order, each by its number among the order's targets.
    pub(in crate::policy) fn list_targets(&self, order: &Order) -> Vec<(usize, Option<&Held>)> {
        let wanted = Wanted::of_order(order).into_iter();
        wanted.map(|(place, wanted)| (place, self.targets.find(&wanted).map(|at| &self.targets.held[at]))).collect()
    }

    /// Whether a list of an order has a rule that a name meets.
    pub(super) fn lists_of(&self, order: &Order, name: &Name) -> bool {
        let sources: Vec<SourceId> =
            self.list_targets(order).into_iter().filter_map(|(_, held)| Some(held?.source)).collect();
        let mut is_met = false;
        if !sources.is_empty() {
            let index = Draft::default().build(Arc::default(), self.targets());
            index.meet(name, |id, _| is_met |= sources.contains(&index.rule(id).source));
        }
        is_met
    }

    /// What the files of an order's list targets are called in a ledger, and the octets in force.
    pub(in crate::policy) fn of_order(&self, order: &Order) -> Vec<(String, Digest)> {
        let held = self.list_targets(order).into_iter().filter_map(|(_, held)| held);
        held.map(|held| (format!("{}: {}", order.id, held.wanted.file.display()), held.digest)).collect()
    }
}

/// A list that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The key of its copy.
    pub(super) key: OsString,
    /// The how-manieth with this key.
    nth: usize,
    /// Whose it is, for warnings: `list NAME`, `order ID`.
    pub(super) whose: String,
    /// Where it is.
    pub(super) file: PathBuf,
    /// How it is written.
    pub(super) format: Format,
    covers: Covers,
    sha256: Option<Digest>,
    /// Where an order names it.
    named_at: Option<(PathBuf, u32)>,
}

impl Wanted {
    /// One of the operator's lists. The format is part of its key: what was written in one is not read in another.
    pub(super) fn of_list(list: &ListSettings) -> Self {
        Self {
            key: format!("{}.{}", list.name, word_of(list.format)).into(),
            nth: 0,
            whose: format!("list {}", list.name),
            file: list.file.clone(),
            format: list.format,
            covers: list.covers,
            sha256: None,
            named_at: None,
        }
    }

    /// The list targets of an order, each by its number among the order's targets. One that is lifted does nothing, and
    /// its lists may be gone.
    pub(super) fn of_order(order: &Order) -> Vec<(usize, Self)> {
        if order.state == State::Lifted {
            return Vec::new();
        }
        let lists = order.targets.iter().enumerate().filter_map(|(place, target)| Some((place, target.list.as_ref()?)));
        let mut all: Vec<(usize, Self)> = Vec::new();
        for (place, list) in lists {
            let mut wanted = Self::of_target(order, list);
            wanted.nth = all.iter().filter(|(_, other)| other.key == wanted.key).count();
            all.push((place, wanted));
        }
        all
    }

    /// Its key is of the order, the file and what the file must be, so that a change of the order which nobody has
    /// approved takes no copy's place; and it ends as that of no list of the operator's does.
    fn of_target(order: &Order, list: &ListTarget) -> Self {
        let short = |digest: Digest| digest.to_string()[..16].to_owned();
        let file = short(Digest::of(list.file.as_os_str().as_encoded_bytes()));
        let what = list.sha256.map_or_else(String::new, |sha256| format!(".{}", short(sha256)));
        Self {
            key: format!("{}.{file}{what}.{}.target", order.id, word_of(list.format)).into(),
            nth: 0,
            whose: format!("order {}", order.id),
            file: list.file.clone(),
            format: list.format,
            covers: list.covers,
            sha256: list.sha256,
            named_at: Some((order.file.clone(), list.line)),
        }
    }

    /// Whether rules compiled for another are rules for this one, if the octets are.
    fn is_as(&self, other: &Self) -> bool {
        (&self.key, self.nth, self.format, self.covers) == (&other.key, other.nth, other.format, other.covers)
    }

    /// Whether octets of this digest may be carried out.
    pub(super) fn takes(&self, digest: Digest) -> bool {
        self.sha256.is_none_or(|sha256| sha256 == digest)
    }

    /// A mistake about the whole file, told where an operator has to look: an order's list is told where the order
    /// names it.
    pub(super) fn mistake(&self, what: &str) -> Mistake {
        match &self.named_at {
            Some((order, line)) => {
                let what = format!("its list {} {what}", self.file.display());
                Mistake { file: order.clone(), line: *line as usize, column: 1, what }
            }
            None => Mistake::of_file(&self.file, what),
        }
    }

    /// The mistake of a file that cannot be had.
    pub(super) fn unreadable(&self, what: &str) -> Mistake {
        match self.named_at {
            // What is too large says itself what to do.
            Some(_) if !what.contains(';') => self.mistake(&format!("{what}; put the file there, or correct the name")),
            _ => self.mistake(what),
        }
    }

    /// The mistake of octets that [`Self::takes`] does not.
    pub(super) fn other_octets(&self, digest: Digest) -> Mistake {
        self.mistake(&format!("has another SHA-256, {digest}; put back the file that is meant, or correct sha256"))
    }
}

fn word_of(format: Format) -> &'static str {
    match format {
        Format::Domains => "domains",
        Format::Hosts => "hosts",
    }
}

/// A list whose names are compiled.
#[derive(Debug, Clone)]
pub struct Held {
    /// The number its rules bear.
    pub source: SourceId,
    /// How many there are.
    pub rules: usize,
    /// The first names of the file.
    pub sample: Vec<Name>,
    /// The octets they were read from.
    pub digest: Digest,
    wanted: Wanted,
    /// The file as it was when it was last looked at.
    print: Option<Print>,
    /// Why the file as it was then does not count.
    pub(super) pending: Vec<Mistake>,
    faults: Faults,
}

/// The lines that cannot be read: how many, and the first.
#[derive(Debug, Clone, Default)]
struct Faults {
    count: usize,
    first: Vec<Fault>,
}

impl Held {
    /// Whether it is what a look at the file would give again.
    fn still_is(&self, wanted: &Wanted, print: Option<Print>) -> bool {
        let same_file = (&self.wanted.file, self.wanted.sha256, self.print) == (&wanted.file, wanted.sha256, print);
        // A mistake in the order's file may stand on another line now.
        same_file && (self.pending.is_empty() || self.wanted.named_at == wanted.named_at)
    }

    /// What there is to say of its content.
    pub(super) fn warnings(&self) -> Vec<String> {
        let Wanted { whose, file, .. } = &self.wanted;
        let empty = (self.rules == 0).then(|| format!("{whose}: {} has no rule", file.display()));
        let faults = (self.faults.count > 0).then(|| {
            let lines =
                if self.faults.count == 1 { "1 fault".to_owned() } else { format!("{} faults", self.faults.count) };
            let first: Vec<String> = self.faults.first.iter().map(|fault| at_fault(file, fault)).collect();
            format!("{whose}: {lines}, the first at {}", first.join(" | "))
        });
        // Faults of a copy were told when it was the file.
        empty.into_iter().chain(faults.filter(|_| self.pending.is_empty())).collect()
    }
}

fn at_fault(file: &Path, fault: &Fault) -> String {
    format!("{}:{}:{}: {}", file.display(), fault.line, fault.column, fault.what)
}

/// What is carried out for a list that is asked for.
pub(super) struct Choice {
    pub(super) wanted: Wanted,
    /// The file as it is now.
    pub(super) print: Option<Print>,
    /// Why it does not count.
    pub(super) pending: Vec<Mistake>,
    pub(super) content: Content,
}

/// Where its names come from.
pub(super) enum Content {
    /// They are compiled, under this number.
    Compiled(usize),
    /// So they are, and the file is another now, which is read elsewhere.
    Standing(usize),
    /// They are to be read from these octets, of this digest.
    Octets(Bytes, Digest),
}

impl Choice {
    /// What was read for it just now.
    pub(super) fn octets(&self) -> Bytes {
        match &self.content {
            Content::Compiled(_) | Content::Standing(_) => Bytes::new(),
            Content::Octets(octets, _) => octets.clone(),
        }
    }
}

/// Names of several lists in one part of the index, and whose they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    part: Arc<Part>,
    /// By source number.
    pub(super) held: Arc<[Held]>,
    left_out: usize,
}

impl Names {
    /// The number of a list whose names are here, whatever its file is now.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<usize> {
        self.held.iter().position(|held| held.wanted.is_as(wanted))
    }

    /// The same where the file has not changed since.
    pub(super) fn find_unchanged(&self, wanted: &Wanted, print: Option<Print>) -> Option<usize> {
        self.find(wanted).filter(|number| self.held[*number].still_is(wanted, print))
    }

    /// What is carried out for a list while its file, another now, is read elsewhere; None where none of its names are here.
    pub(super) fn standing(&self, wanted: &Wanted) -> Option<Choice> {
        let number = self.find(wanted)?;
        let Held { print, pending, .. } = &self.held[number];
        let (wanted, content) = (wanted.clone(), Content::Standing(number));
        Some(Choice { wanted, print: *print, pending: pending.clone(), content })
    }

    /// These names, or others where there is something new to read; what is compiled is not read again. A list that is
    /// no longer asked for stays until then, so that a lift takes no longer than a block.
    pub(super) fn follow(&self, choices: &[Choice]) -> Self {
        let mut held = self.held.to_vec();
        for choice in choices {
            match choice.content {
                Content::Compiled(number) | Content::Standing(number) => held[number] = self.kept(number, choice),
                Content::Octets(..) => return self.remade(choices),
            }
        }
        Self { held: held.into(), ..self.clone() }
    }

    fn remade(&self, choices: &[Choice]) -> Self {
        let new: usize = choices.iter().map(|choice| choice.octets().len()).sum();
        // A rule takes some six octets more than its line.
        let mut builder = Builder::with_room(self.part.len(), self.part.octets() + new + new / 2);
        let mut moved: Vec<Option<SourceId>> = vec![None; self.held.len()];
        let mut held = Vec::with_capacity(choices.len());
        for (number, choice) in choices.iter().enumerate() {
            // `Desk::choose` lets no more through than there are numbers.
            let source = SourceId(number as u16);
            held.push(match &choice.content {
                Content::Compiled(old) | Content::Standing(old) => {
                    moved[*old] = Some(source);
                    Held { source, ..self.kept(*old, choice) }
                }
                Content::Octets(octets, digest) => read(source, choice, octets, *digest, &mut builder),
            });
        }
        // Where no list stays, the names that are compiled need not be gone through.
        if moved.iter().any(Option::is_some) {
            self.part.each(|name, rule| {
                if let Some(source) = moved[usize::from(rule.source.0)] {
                    builder.add(name, Rule { source, ..rule });
                }
            });
        }
        let left_out = builder.left_out();
        Self { part: Arc::new(builder.build()), held: held.into(), left_out }
    }

    fn kept(&self, number: usize, choice: &Choice) -> Held {
        let Choice { wanted, print, pending, .. } = choice;
        Held { wanted: wanted.clone(), print: *print, pending: pending.clone(), ..self.held[number].clone() }
    }
}

/// Reads a list into a part of the index.
fn read(source: SourceId, choice: &Choice, octets: &[u8], digest: Digest, builder: &mut Builder) -> Held {
    let Choice { wanted, print, pending, .. } = choice;
    let mut rules = 0;
    let mut faults = Faults::default();
    let mut sample = Vec::new();
    let rule = |name: &Name, line| {
        rules += 1;
        // A special name is answered before policy is asked: a probe of it would find no block.
        if sample.len() < SAMPLE_MAX && special::zone_of(name).is_none() {
            sample.push(name.clone());
        }
        builder.add(name, Rule { source, line, covers: wanted.covers });
    };
    let fault = |fault| {
        faults.count += 1;
        if faults.first.len() < FAULTS_SHOWN_MAX {
            faults.first.push(fault);
        }
    };
    list::read(wanted.format, octets, rule, fault);
    Held { source, rules, sample, digest, wanted: wanted.clone(), print: *print, pending: pending.clone(), faults }
}
