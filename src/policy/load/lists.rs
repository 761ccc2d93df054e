//! Reads the operator's lists and those of orders; one that cannot be read, or was emptied, stays what its last good
//! copy says.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::bulk::{Bulk, Choice, Content, Names, Wanted};
use super::copies::Copies;
use super::print::Print;
use super::{Fate, ListSettings, LoadedList, LoadedOrder, Report, read_file};
use crate::digest::Digest;
use crate::mistake::Mistake;
use crate::policy::list;
use crate::policy::order::Order;

/// The largest list file that is read, in octets: a few times the largest public list there is.
const LIST_OCTETS_MAX: u64 = 256 << 20;

/// The most lists of one kind: their rules bear a number of 16 bits.
const LISTS_MAX: usize = 1 << 16;

/// The mistake of a list that a failed download emptied.
pub(super) const EMPTIED: &str = "has no rule, and had some before";

/// The mistake of an order's list that is about nothing.
pub(super) const EMPTY: &str = "has no rule; an order's list names at least one name";

/// Files in hand, in place of those on disk.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Reads lists for one load, each file once and only where it has changed.
pub(super) struct Desk<'a> {
    in_hand: Option<&'a Files>,
    before: &'a Bulk,
    copies: Copies,
    /// Each file as it was when it was first looked at, which was before it was read.
    prints: HashMap<PathBuf, Option<Print>>,
    read: HashMap<PathBuf, Result<Bytes, String>>,
    /// The files of list targets that were looked at.
    looked_at: BTreeSet<PathBuf>,
    /// See [`super::Before::lists_stand`].
    pub(super) lists_stand: bool,
}

impl<'a> Desk<'a> {
    /// For files on disk; what is in `before` need not be read again.
    pub(super) fn new(state: Option<&Path>, before: &'a Bulk) -> Self {
        let copies = Copies::within(state, "lists");
        let (prints, read, looked_at) = Default::default();
        Self { in_hand: None, before, copies, prints, read, looked_at, lists_stand: false }
    }

    /// For files in hand.
    pub(super) fn with(files: &'a Files, before: &'a Bulk) -> Self {
        Self { in_hand: Some(files), ..Self::new(None, before) }
    }

    /// Whether each list of an order can be had: an order without one of its lists would not be carried out whole.
    ///
    /// # Errors
    /// The mistakes of those that cannot.
    pub(super) fn demand(&mut self, order: &Order) -> Result<(), Vec<Mistake>> {
        let wanted = Wanted::of_order(order).into_iter();
        let missing: Vec<Mistake> =
            wanted.filter_map(|(_, wanted)| self.choose_target(wanted).err()).flatten().collect();
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// Reads what is left to read, and keeps what is good. An order whose list cannot be had is taken out of `orders`.
    /// Returns the lists in the order of the configuration, all names compiled, and the files of list targets.
    pub(super) fn finish(
        mut self,
        settings: &[ListSettings],
        orders: &mut Vec<LoadedOrder>,
        report: &mut Report,
    ) -> (Vec<LoadedList>, Bulk, Vec<PathBuf>) {
        let (settings, of_lists) = self.lists(settings, report);
        let of_targets = self.targets(orders, report);
        let lists = self.before.lists.follow(&of_lists);
        let targets = self.before.targets.follow(&of_targets);
        let mut loaded = Vec::with_capacity(settings.len());
        for (settings, choice) in settings.into_iter().zip(&of_lists) {
            let Some(held) = self.settled(&lists, choice, report) else { continue };
            loaded.push(LoadedList { settings, octets: choice.octets(), pending: choice.pending.clone(), held });
        }
        for choice in &of_targets {
            self.settled(&targets, choice, report);
        }
        let keys: BTreeSet<&OsString> = of_lists.iter().chain(&of_targets).map(|choice| &choice.wanted.key).collect();
        for key in self.copies.keys().iter().filter(|key| !keys.contains(key)) {
            self.copies.remove(key);
        }
        report.warnings.extend(self.copies.into_warnings());
        (loaded, Bulk { lists, targets }, self.looked_at.into_iter().collect())
    }

    /// Reads the operator's lists alone, and keeps what is good if `may_keep` says so, asked for each copy once all are
    /// compiled. Returns them, and why copies could not be kept.
    pub(super) fn lists_alone(
        mut self,
        settings: &[ListSettings],
        may_keep: impl Fn() -> bool,
    ) -> (Bulk, Option<String>) {
        // What else there is to say is said by the load that puts them in force.
        let mut unsaid = Report::default();
        let (_, choices) = self.lists(settings, &mut unsaid);
        let lists = self.before.lists.follow(&choices);
        for choice in choices.iter().take_while(|_| may_keep()) {
            self.settled(&lists, choice, &mut unsaid);
        }
        (Bulk { lists, targets: self.before.targets.clone() }, self.copies.into_warnings())
    }

    fn lists(&mut self, settings: &[ListSettings], report: &mut Report) -> (Vec<ListSettings>, Vec<Choice>) {
        let (mut of, mut choices) = (Vec::new(), Vec::new());
        for list in settings {
            match self.choose_list(Wanted::of_list(list), choices.len()) {
                Ok(choice) => {
                    of.push(list.clone());
                    choices.push(choice);
                }
                Err(mistakes) => report.refuse(mistakes),
            }
        }
        (of, choices)
    }

    fn targets(&mut self, orders: &mut Vec<LoadedOrder>, report: &mut Report) -> Vec<Choice> {
        let mut choices = Vec::new();
        orders.retain_mut(|loaded| {
            let wanted = Wanted::of_order(&loaded.order).into_iter();
            let chosen: Result<Vec<Choice>, _> = wanted.map(|(_, wanted)| self.choose_target(wanted)).collect();
            let room = LISTS_MAX - choices.len();
            match chosen {
                Ok(chosen) if chosen.len() <= room => {
                    let pending = loaded.pending.len();
                    let mistakes = chosen.iter().flat_map(|choice| choice.pending.iter().cloned());
                    loaded.pending.extend(mistakes.map(|mistake| placed(mistake, loaded.fate)));
                    // A copy of its list stands for a part of the order.
                    if loaded.fate == Fate::AsWritten && loaded.pending.len() > pending {
                        loaded.fate = Fate::Copy;
                    }
                    choices.extend(chosen);
                    return true;
                }
                Ok(_) => report.refuse(vec![Mistake::of_file(&loaded.order.file, too_many())]),
                Err(mistakes) => {
                    report.refuse(mistakes.into_iter().map(|mistake| placed(mistake, loaded.fate)).collect());
                }
            }
            false
        });
        choices
    }

    /// Keeps a copy of what is good, and says what there is to say; what was made of the choice.
    fn settled(&mut self, names: &Names, choice: &Choice, report: &mut Report) -> Option<super::bulk::Held> {
        let held = &names.held[names.find(&choice.wanted)?];
        report.warnings.extend(held.warnings());
        if choice.pending.is_empty() && held.rules > 0 {
            match &choice.content {
                Content::Octets(octets, _) => self.copies.keep(&choice.wanted.key, octets),
                // The state folder was emptied, or could not be written to.
                Content::Compiled(_) if !self.copies.has(&choice.wanted.key) => {
                    if let Ok(octets) = self.octets(&choice.wanted.file) {
                        self.copies.keep(&choice.wanted.key, &octets);
                    }
                }
                Content::Compiled(_) | Content::Standing(_) => {}
            }
        }
        Some(held.clone())
    }

    fn choose_list(&mut self, wanted: Wanted, chosen: usize) -> Result<Choice, Vec<Mistake>> {
        if chosen >= LISTS_MAX {
            return Err(vec![Mistake::of_file(&wanted.file, too_many())]);
        }
        let names = &self.before.lists;
        if self.lists_stand
            && names.find_unchanged(&wanted, self.print(&wanted.file)).is_none()
            && let Some(standing) = names.standing(&wanted)
        {
            return Ok(standing);
        }
        match self.choose(names, wanted.clone(), EMPTIED) {
            // It never had a rule, and an empty list is what its operator may want.
            Err(mistakes) if mistakes.iter().all(|mistake| mistake.what == EMPTIED) => {
                let octets = self.octets(&wanted.file).unwrap_or_default();
                let print = self.print(&wanted.file);
                let digest = Digest::of(&octets);
                Ok(Choice { wanted, print, pending: Vec::new(), content: Content::Octets(octets, digest) })
            }
            choice => choice,
        }
    }

    fn choose_target(&mut self, wanted: Wanted) -> Result<Choice, Vec<Mistake>> {
        self.looked_at.insert(wanted.file.clone());
        let names = &self.before.targets;
        self.choose(names, wanted, EMPTY)
    }

    /// What is carried out for a list: what is compiled where the file has not changed, else the file, else what was
    /// good before.
    fn choose(&mut self, names: &Names, wanted: Wanted, empty: &str) -> Result<Choice, Vec<Mistake>> {
        // Taken before the file is read: what changes meanwhile is seen the next time.
        let print = self.print(&wanted.file);
        if let Some(number) = names.find_unchanged(&wanted, print) {
            let pending = names.held[number].pending.clone();
            return Ok(Choice { wanted, print, pending, content: Content::Compiled(number) });
        }
        let mistake = match self.good(&wanted, empty) {
            Ok(content) => return Ok(Choice { wanted, print, pending: Vec::new(), content }),
            Err(mistake) => mistake,
        };
        match self.last_good(names, &wanted) {
            Some(content) => Ok(Choice { wanted, print, pending: vec![mistake], content }),
            None => Err(vec![mistake]),
        }
    }

    /// The file, if it may be carried out.
    fn good(&mut self, wanted: &Wanted, empty: &str) -> Result<Content, Mistake> {
        let octets = self.octets(&wanted.file).map_err(|what| wanted.unreadable(&what))?;
        if let Some(what) = list::why_no_list(&octets) {
            return Err(wanted.mistake(what));
        }
        let digest = Digest::of(&octets);
        if !wanted.takes(digest) {
            return Err(wanted.other_octets(digest));
        }
        let has_rule = list::has_rule(wanted.format, &octets);
        if has_rule { Ok(Content::Octets(octets, digest)) } else { Err(wanted.mistake(empty)) }
    }

    /// What was good before: the names that are compiled, which are never older than the copy on disk.
    fn last_good(&self, names: &Names, wanted: &Wanted) -> Option<Content> {
        let held = |number: &usize| names.held[*number].rules > 0 && wanted.takes(names.held[*number].digest);
        if let Some(number) = names.find(wanted).filter(held) {
            return Some(Content::Compiled(number));
        }
        let copy = self.copies.read(&wanted.key, LIST_OCTETS_MAX)?;
        let digest = Digest::of(&copy);
        let is_good = wanted.takes(digest) && list::has_rule(wanted.format, &copy);
        is_good.then(|| Content::Octets(copy.into(), digest))
    }

    fn print(&mut self, file: &Path) -> Option<Print> {
        if self.in_hand.is_some() {
            return None;
        }
        *self.prints.entry(file.to_owned()).or_insert_with(|| Print::of(file))
    }

    fn octets(&mut self, file: &Path) -> Result<Bytes, String> {
        if let Some(octets) = self.read.get(file) {
            return octets.clone();
        }
        let octets: Result<Bytes, String> = match self.in_hand {
            Some(files) => {
                files.get(file).map(|octets| Bytes::copy_from_slice(octets)).ok_or("is not there".to_owned())
            }
            None => read_file(file, LIST_OCTETS_MAX).map(Into::into),
        };
        self.read.insert(file.to_owned(), octets.clone());
        octets
    }
}

/// The mistake of an order's list. The lines of a copy are not those of the file in whose place it stands.
fn placed(mistake: Mistake, fate: Fate) -> Mistake {
    if fate == Fate::Copy { Mistake::of_file(&mistake.file, mistake.what) } else { mistake }
}

fn too_many() -> String {
    format!("is a list too many: {LISTS_MAX} are; join some of them")
}
