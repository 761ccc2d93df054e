//! Which keys have signed an order's file, and whether that is enough.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::Bound;
use std::path::Path;

use toml::de::DeArray;

use super::orders::{Found, place_of};
use super::{Approvals, Key, LoadedOrder, Settings, read_file};
use crate::digest::Digest;
use crate::mistake::Mistake;
use crate::policy::order::{Order, State, Target};
use crate::policy::register::Register;
use crate::sign;

/// A lift or a suspension takes one person: what was blocked by mistake is not blocked until the second is found.
const APPROVALS_OF_A_LIFT: usize = 1;

/// The mistake of a version that another has replaced.
const SUPERSEDED: &str = "is an earlier version, whose signatures count no more; say in a comment that it is back, and \
                          since when, and have it signed anew";

/// The most signatures that count nothing of which a mistake tells why.
const TOLD_MAX: usize = 3;

/// Judges order files by their signatures.
pub(super) struct Approver<'a> {
    need: usize,
    keys: &'a [Key],
    register: &'a Register,
    /// The names of the signatures' files.
    signatures: &'a BTreeSet<OsString>,
}

/// What became of a file's signatures.
pub(super) struct Judged {
    /// By whose keys it counts as approved, sorted; empty where nothing is asked for, or it does not.
    pub(super) by: Vec<String>,
    /// How far it has come; None: no approval is asked for.
    pub(super) approvals: Option<Approvals>,
    /// What it lacks.
    pub(super) lacking: Option<Mistake>,
}

impl<'a> Approver<'a> {
    pub(super) fn new(settings: &'a Settings, register: &'a Register, signatures: &'a BTreeSet<OsString>) -> Self {
        Self { need: settings.approvals, keys: &settings.keys, register, signatures }
    }

    /// Whether approvals are asked for.
    pub(super) fn asks(&self) -> bool {
        self.need > 0
    }

    /// A list that may change behind an order's back makes an order that nobody can approve.
    pub(super) fn refuse_lists_without_digest(&self, found: &mut [Found]) {
        for file in found.iter_mut().filter(|_| self.asks()) {
            let Ok((order, octets)) = &file.order else { continue };
            let mistakes = lists_without_digest(order, octets);
            if !mistakes.is_empty() {
                file.order = Err(mistakes);
            }
        }
    }

    /// Judges a valid file. `held` is the copy of its order that had its approvals before.
    pub(super) fn judge(&self, order: &Order, octets: &[u8], held: Option<&LoadedOrder>) -> Judged {
        if !self.asks() {
            return Judged { by: Vec::new(), approvals: None, lacking: None };
        }
        let (by, odd) = self.signers(&order.file, octets);
        let need = self.need_of(order.state);
        let approvals = Some(Approvals { have: by.len(), need, by: by.clone() });
        if self.is_superseded(&order.id, Digest::of(octets)) {
            return Judged { by: Vec::new(), approvals, lacking: Some(Mistake::of_file(&order.file, SUPERSEDED)) };
        }
        if by.len() >= need {
            return Judged { by, approvals, lacking: None };
        }
        // What was approved once is, whichever keys there are today.
        if let Some(by) = self.remembered(&order.id, Digest::of(octets), held) {
            return Judged { by, approvals, lacking: None };
        }
        // Nothing is carried out by it, and nothing stops being.
        let is_idle = matches!(order.state, State::Draft | State::Suspended | State::Lifted) && held.is_none();
        let lacking = (!is_idle).then(|| Mistake::of_file(&order.file, lacking(&order.file, need, &by, &odd)));
        Judged { by: Vec::new(), approvals, lacking }
    }

    fn need_of(&self, state: State) -> usize {
        match state {
            State::Suspended | State::Lifted => APPROVALS_OF_A_LIFT,
            State::Draft | State::Trial | State::InForce => self.need,
        }
    }

    /// Whether these octets were approved once and have been replaced since. Their signatures lie about for whoever would
    /// undo a suspension alone.
    fn is_superseded(&self, id: &str, digest: Digest) -> bool {
        let record = self.register.orders.get(id);
        record.is_some_and(|record| {
            record.superseded.contains(&digest)
                && record.approved.as_ref().is_none_or(|approved| approved.digest != digest)
        })
    }

    fn remembered(&self, id: &str, digest: Digest, held: Option<&LoadedOrder>) -> Option<Vec<String>> {
        let record = self.register.orders.get(id).and_then(|record| record.approved.as_ref());
        let record = record.filter(|approval| approval.digest == digest).map(|approval| approval.by.clone());
        record.or_else(|| held.filter(|held| held.digest == digest).map(|held| held.approved_by.clone()))
    }

    /// The names of the keys that have signed these octets, sorted, and why other signatures beside the file count
    /// nothing.
    fn signers(&self, file: &Path, octets: &[u8]) -> (Vec<String>, Vec<String>) {
        let (mut by, mut odd) = (Vec::new(), Vec::new());
        let mut foreign = self.names_of_signatures(file);
        for Key { name, public } in self.keys {
            if !foreign.remove(name) {
                continue;
            }
            let path = sign::signature_file(file, name);
            let verified = read(&path).and_then(|signature| Ok(public.verify(octets, &signature)?));
            match verified {
                Ok(()) => by.push(name.clone()),
                Err(what) => odd.push(format!("{} {what}", path.display())),
            }
        }
        let mut foreign: Vec<_> = foreign.into_iter().collect();
        foreign.sort();
        odd.extend(foreign.iter().map(|name| {
            format!("{} is by no [[policy.key]] of that name", sign::signature_file(file, name).display())
        }));
        by.sort();
        (by, odd)
    }

    /// Of the signatures beside a file, the names of their keys.
    fn names_of_signatures(&self, file: &Path) -> HashSet<String> {
        let file_name = file.file_name().unwrap_or_default();
        let start = file_name.as_encoded_bytes();
        let name = |signature: &OsString| {
            let rest = signature.as_encoded_bytes().strip_prefix(start)?.strip_prefix(b".")?;
            let name = rest.strip_suffix(sign::ENDING.as_bytes())?;
            String::from_utf8(name.to_vec()).ok().filter(|name| sign::check_name(name).is_ok())
        };
        let of_file = self.signatures.range::<OsStr, _>((Bound::Included(file_name), Bound::Unbounded));
        of_file.take_while(|signature| signature.as_encoded_bytes().starts_with(start)).filter_map(name).collect()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let is_large = fs::metadata(path).is_ok_and(|seen| seen.is_file() && seen.len() > sign::SIGNATURE_OCTETS_MAX);
    if is_large {
        return Err("is too large for a signature".to_owned());
    }
    read_file(path, sign::SIGNATURE_OCTETS_MAX)
}

fn lacking(file: &Path, need: usize, by: &[String], odd: &[String]) -> String {
    let names = if by.is_empty() { String::new() } else { format!(" ({})", by.join(", ")) };
    let more = odd.len().saturating_sub(TOLD_MAX);
    let odd: String = odd.iter().take(TOLD_MAX).map(|what| format!("; {what}")).collect();
    let more = if more > 0 { format!("; {more} more count nothing") } else { String::new() };
    let s = if need == 1 { "" } else { "s" };
    let have = by.len();
    let file = file.display();
    format!("has {have} of {need} approval{s}{names}; sign it with `bailiwick sign {file} --key NAME.key`{odd}{more}")
}

/// The mistakes of an order's lists that do not say what their file is: nobody can approve what may change.
#[must_use]
pub fn lists_without_digest(order: &Order, octets: &[u8]) -> Vec<Mistake> {
    let lists = order.targets.iter().enumerate();
    let lists = lists.filter(|(_, target)| target.list.as_ref().is_some_and(|list| list.sha256.is_none()));
    let what = "a list without its sha256 cannot be approved; say the SHA-256 of the file beside its name";
    let mistake = |(number, _): (usize, &Target)| {
        let place = place_of(octets, |table| {
            let targets: &DeArray<'_> = table.get("target")?.get_ref().as_array()?;
            Some(targets.get(number)?.get_ref().as_table()?.get("list")?.span())
        });
        match place {
            Some((text, span)) => Mistake::at(&order.file, text, span, what),
            None => Mistake::of_file(&order.file, what),
        }
    };
    lists.map(mistake).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(super) mod tests {
    use super::super::tests::{Machine, order};
    use super::super::{Before, Fate, Loaded, load};
    use super::*;
    use crate::policy::Policy;
    use crate::policy::order::Standing;
    use crate::policy::tests::at;
    use crate::sign::SecretKey;

    /// A machine that runs: what it loads is compiled and followed, as a server does.
    pub(in super::super) struct Node {
        pub(in super::super) machine: Machine,
        pub(in super::super) before: Before,
        people: Vec<(&'static str, SecretKey)>,
    }

    impl Node {
        pub(in super::super) fn new(approvals: usize) -> Self {
            let people: Vec<_> = ["anna", "bert", "carl"]
                .into_iter()
                .map(|name| (name, SecretKey::make(name, None).unwrap().0))
                .collect();
            let mut machine = Machine::new();
            let key = |(name, secret): &(&str, SecretKey)| Key { name: (*name).to_owned(), public: secret.public() };
            machine.settings.keys = people.iter().map(key).collect();
            machine.settings.approvals = approvals;
            Self { machine, before: Before::default(), people }
        }

        /// Loads at so many milliseconds, and follows.
        pub(in super::super) fn load_at(&mut self, now: i64) -> Loaded {
            let loaded = load(&self.machine.settings, &self.before, at(now));
            let policy = Policy::compile(&loaded, 1, at(now)).unwrap();
            self.before.register.follow(&policy, at(now));
            self.before.orders.clone_from(&loaded.orders);
            loaded
        }

        /// Of each order: its id, its first name, its standing, and the names of those who approved it.
        pub(in super::super) fn turn(&mut self) -> Vec<String> {
            let shown = |loaded: &LoadedOrder| {
                let Order { id, targets, .. } = &loaded.order;
                let standing = if loaded.fate == Fate::Copy { "pending, " } else { "" };
                let (name, by) = (&targets[0].names[0].0, loaded.approved_by.join(" "));
                format!("{id} {name}: {standing}{} by {by}", loaded.order.standing(at(0))).trim_end().to_owned()
            };
            self.load_at(0).orders.iter().map(shown).collect()
        }

        pub(in super::super) fn restart(&mut self) {
            self.before.orders.clear();
            let kept = serde_json::to_vec(&self.before.register).unwrap();
            self.before.register = serde_json::from_slice(&kept).unwrap();
        }

        /// Signs an order's file as it is now, with the key of the first and under the name of the second.
        fn sign_as(&self, file: &str, key: &str, name: &str) {
            let (_, secret) = self.people.iter().find(|(each, _)| *each == key).unwrap();
            let octets = fs::read(self.machine.path(file)).unwrap();
            self.machine.write(&format!("{file}.{name}.minisig"), secret.sign(&octets, file, at(0)).unwrap());
        }

        pub(in super::super) fn sign(&self, file: &str, names: &[&str]) {
            names.iter().for_each(|name| self.sign_as(file, name, name));
        }

        /// What the first order is pending for.
        fn pending(&mut self) -> String {
            let loaded = self.load_at(0);
            self.machine.pending(&loaded.orders[0].pending).join(" | ")
        }

        /// A node whose order x is about before.example and approved by Anna and Bert.
        fn approved() -> Self {
            let mut node = Self::new(2);
            node.machine.write("orders/x.toml", order("x", "before.example"));
            node.sign("orders/x.toml", &["anna", "bert"]);
            assert_eq!(node.turn(), [BEFORE]);
            node
        }
    }

    const BEFORE: &str = "x before.example: in-force by anna bert";
    const HELD: &str = "x before.example: pending, in-force by anna bert";

    #[test]
    fn a_first_version_is_a_draft_until_enough_have_signed() {
        let mut node = Node::new(2);
        node.machine.write("orders/x.toml", order("x", "a.example"));
        let help = "sign it with `bailiwick sign orders/x.toml --key NAME.key`";
        for (signer, state, pending) in [
            (None, "draft by", format!("orders/x.toml: has 0 of 2 approvals; {help}")),
            (Some("bert"), "draft by", format!("orders/x.toml: has 1 of 2 approvals (bert); {help}")),
            (Some("anna"), "in-force by anna bert", String::new()),
        ] {
            node.sign("orders/x.toml", signer.as_slice());
            for _ in 0..2 {
                assert_eq!(node.turn(), [format!("x a.example: {state}")]);
                assert_eq!(node.pending(), pending);
                node.restart();
            }
        }
        let loaded = node.load_at(0);
        let approvals = loaded.orders[0].approvals.clone().unwrap();
        assert_eq!((approvals.have, approvals.need, approvals.by.join(" ")), (2, 2, "anna bert".to_owned()));
        assert!(loaded.refused.is_empty());
    }

    #[test]
    fn an_unapproved_change_leaves_the_approved_copy_also_after_a_restart() {
        let mut node = Node::approved();
        node.machine.write("orders/x.toml", order("x", "after.example"));
        for _ in 0..2 {
            assert_eq!(node.turn(), [HELD]);
            let pending = node.pending();
            assert!(pending.contains("has 0 of 2 approvals") && pending.contains("is not over the file as it is now"));
            node.restart();
        }
        node.sign("orders/x.toml", &["carl"]);
        assert_eq!(node.turn(), [HELD]);
        node.sign("orders/x.toml", &["anna"]);
        assert_eq!(node.turn(), ["x after.example: in-force by anna carl"]);
    }

    #[test]
    fn what_counts_nothing_is_told() {
        let mut node = Node::new(2);
        node.machine.write("orders/x.toml", order("x", "a.example"));
        // One person under two names, a stranger's, one that cannot be read and one without end.
        node.sign_as("orders/x.toml", "anna", "anna");
        node.sign_as("orders/x.toml", "anna", "bert");
        node.sign_as("orders/x.toml", "carl", "dora");
        node.machine.write("orders/x.toml.carl.minisig", vec![b'a'; 5_000]);
        let pending = node.pending();
        for part in [
            "has 1 of 2 approvals (anna); ",
            "x.toml.bert.minisig is by another key",
            "x.toml.carl.minisig is too large for a signature",
            "x.toml.dora.minisig is by no [[policy.key]] of that name",
        ] {
            assert!(pending.contains(part), "{part} is not in {pending}");
        }
        for number in 0..10 {
            node.machine.write(&format!("orders/x.toml.k{number}.minisig"), "");
        }
        assert!(node.pending().ends_with("; 10 more count nothing"), "{}", node.pending());
        assert_eq!(node.turn(), ["x a.example: draft by"]);
    }

    #[test]
    fn one_changed_octet_is_another_file() {
        let mut node = Node::new(1);
        let text = order("x", "a.example");
        node.machine.write("orders/x.toml", &text);
        node.sign("orders/x.toml", &["anna"]);
        node.machine.write("orders/x.toml", text + "\n");
        assert_eq!(node.turn(), ["x a.example: draft by"]);
    }

    #[test]
    fn a_lift_or_a_suspension_takes_one_and_coming_back_takes_both() {
        for state in ["suspended", "lifted"] {
            let mut node = Node::approved();
            let ended = order("x", "before.example").replace("in-force", state);
            node.machine.write("orders/x.toml", &ended);
            assert_eq!(node.turn(), [HELD]);
            assert!(node.pending().contains("has 0 of 1 approval; "), "{}", node.pending());
            node.sign("orders/x.toml", &["carl"]);
            let shown = format!("x before.example: {state} by carl");
            assert_eq!(node.turn(), [&shown[..]]);
            node.restart();
            let back = ended.replace(state, "in-force").replace("[[", "reinstated = 2026-11-22\n[[");
            node.machine.write("orders/x.toml", back);
            node.sign("orders/x.toml", &["carl"]);
            assert_eq!(node.turn(), [shown.replace(&format!(": {state}"), &format!(": pending, {state}"))]);
            node.sign("orders/x.toml", &["anna"]);
            assert_eq!(node.turn(), ["x before.example: in-force by anna carl"]);
        }
    }

    #[test]
    fn an_earlier_version_takes_new_signatures_to_come_back() {
        let mut node = Node::approved();
        let first = order("x", "before.example");
        let [anna, bert] =
            ["anna", "bert"].map(|name| fs::read(node.machine.path(&format!("orders/x.toml.{name}.minisig"))));
        node.machine.write("orders/x.toml", first.replace("in-force", "suspended"));
        node.sign("orders/x.toml", &["anna"]);
        assert_eq!(node.turn(), ["x before.example: suspended by anna"]);
        // The octets of before, and the signatures on them that lay about.
        node.machine.write("orders/x.toml", &first);
        node.machine.write("orders/x.toml.anna.minisig", anna.unwrap());
        node.machine.write("orders/x.toml.bert.minisig", bert.unwrap());
        for _ in 0..2 {
            assert_eq!(node.turn(), ["x before.example: pending, suspended by anna"]);
            assert!(node.pending().starts_with("orders/x.toml: is an earlier version, "), "{}", node.pending());
            node.restart();
        }
        node.machine.write("orders/x.toml", format!("# Back since 22 November 2026.\n{first}"));
        node.sign("orders/x.toml", &["anna", "bert"]);
        assert_eq!(node.turn(), ["x before.example: in-force by anna bert"]);
    }

    #[test]
    fn a_vanished_or_replaced_file_lifts_nothing() {
        let mut node = Node::approved();
        node.machine.remove("orders/x.toml");
        for _ in 0..2 {
            assert_eq!(node.turn(), [HELD]);
            assert!(node.pending().contains("orders/x.toml: the file is gone, which lifts nothing"));
            node.restart();
        }
        // Another order in its file, and its id in another file.
        node.machine.write("orders/x.toml", order("y", "y.example"));
        for _ in 0..2 {
            assert_eq!(node.turn(), [HELD, "y y.example: draft by"]);
            node.restart();
        }
        node.machine.write("orders/z.toml", order("x", "z.example"));
        for _ in 0..2 {
            assert_eq!(node.turn(), ["y y.example: draft by", HELD]);
            node.restart();
        }
        node.machine.remove("orders/z.toml");
        fs::rename(node.machine.path("orders"), node.machine.path("away")).unwrap();
        assert!(node.load_at(0).orders.iter().any(|loaded| loaded.order.standing(at(0)) == Standing::InForce));
    }

    #[test]
    fn a_file_that_cannot_be_read_leaves_the_approved_copy() {
        let mut node = Node::approved();
        node.machine.write("orders/x.toml", "id =");
        for _ in 0..2 {
            assert_eq!(node.turn(), [HELD]);
            node.restart();
        }
        node.machine.write("orders/x.toml", order("x", "before.example"));
        assert_eq!(node.turn(), [BEFORE]);
    }

    #[test]
    fn a_lifted_order_whose_file_is_gone_is_gone() {
        let mut node = Node::approved();
        node.machine.write("orders/x.toml", order("x", "before.example").replace("in-force", "lifted"));
        node.sign("orders/x.toml", &["bert"]);
        node.turn();
        node.machine.remove("orders/x.toml");
        for _ in 0..2 {
            assert_eq!(node.turn(), [""; 0]);
            node.restart();
        }
        assert!(!node.machine.path("state/approved/x").exists());
    }

    #[test]
    fn what_was_approved_stays_so_without_signatures_or_keys_and_under_a_higher_number() {
        let mut node = Node::approved();
        for name in ["anna", "bert"] {
            node.machine.remove(&format!("orders/x.toml.{name}.minisig"));
        }
        node.machine.settings.keys.remove(0);
        node.machine.settings.approvals = 3;
        for _ in 0..2 {
            assert_eq!(node.turn(), [BEFORE]);
            node.restart();
        }
        fs::rename(node.machine.path("orders/x.toml"), node.machine.path("orders/moved.toml")).unwrap();
        assert_eq!(node.turn(), [BEFORE], "moved");
        // Without the register the copy still says it, and no longer by whom.
        node.before = Before::default();
        assert_eq!(node.turn(), ["x before.example: in-force by not-remembered"]);
    }

    #[test]
    fn what_nobody_approved_before_approvals_were_asked_for_is_a_draft() {
        let mut node = Node::new(0);
        node.machine.write("orders/x.toml", order("x", "a.example"));
        assert_eq!(node.turn(), ["x a.example: in-force by"]);
        assert_eq!(node.load_at(0).orders[0].approvals, None);
        node.machine.settings.approvals = 2;
        for text in [order("x", "a.example"), "broken".to_owned()] {
            node.machine.write("orders/x.toml", text);
            for _ in 0..2 {
                assert_eq!(node.turn(), ["x a.example: draft by"]);
                node.restart();
            }
        }
        node.machine.remove("orders/x.toml");
        assert_eq!(node.turn(), [""; 0], "a draft's file may go");
    }

    #[test]
    fn without_approvals_a_vanished_file_lifts_what_was_approved_for_good() {
        let mut node = Node::approved();
        node.machine.settings.approvals = 0;
        node.machine.remove("orders/x.toml");
        assert_eq!(node.turn(), [""; 0]);
        node.machine.settings.approvals = 2;
        for _ in 0..2 {
            assert_eq!(node.turn(), [""; 0]);
            node.restart();
        }
    }

    #[test]
    fn what_is_idle_needs_nobody() {
        let mut node = Node::new(2);
        for state in ["draft", "suspended", "lifted"] {
            node.machine.write(&format!("orders/{state}.toml"), order(state, "a.example").replace("in-force", state));
        }
        let shown = ["draft", "lifted", "suspended"].map(|state| format!("{state} a.example: {state} by"));
        assert_eq!(node.turn(), shown);
        assert!(node.load_at(0).orders.iter().all(|loaded| loaded.pending.is_empty()));
    }

    #[test]
    fn a_list_without_its_digest_cannot_be_approved() {
        let mut node = Node::new(1);
        let list = "list = { file = 'a.txt', format = 'domains', covers = 'exact' }";
        node.machine.write("orders/x.toml", format!("{}{list}\n", order("x", "a.example")));
        node.sign("orders/x.toml", &["anna"]);
        let loaded = node.load_at(0);
        let [mistake] = &node.machine.refused(&loaded)[..] else { panic!("one mistake: {:?}", loaded.refused) };
        assert!(mistake.starts_with("orders/x.toml:8:8: a list without its sha256 cannot be approved; "), "{mistake}");
        node.machine.settings.approvals = 0;
        let loaded = node.load_at(0);
        let [mistake] = &node.machine.refused(&loaded)[..] else { panic!("one mistake: {:?}", loaded.refused) };
        assert!(
            mistake.starts_with("orders/x.toml:8:1: its list a.txt cannot be read"),
            "it is asked for no more: {mistake}"
        );
    }
}
