//! The loader on a machine of folders that clean themselves up.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::policy::order::Standing;
use crate::policy::tests::at;

/// A machine: `orders/`, `state/` and `lists/` in a folder that cleans itself up.
pub(super) struct Machine {
    folder: TempDir,
    pub(super) settings: Settings,
}

impl Machine {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("orders")).unwrap();
        let orders = Some(folder.path().join("orders"));
        let state = Some(folder.path().join("state"));
        Self { settings: Settings { orders, state, ..Settings::default() }, folder }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn write(&self, name: &str, octets: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), octets).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn add_list(&mut self, name: &str) {
        let file = self.path(&format!("lists/{name}.txt"));
        let (name, format, effect) = (name.to_owned(), Format::Domains, Effect::NxDomain);
        self.settings.lists.push(ListSettings { name, file, format, covers: Covers::Subtree, effect });
    }

    /// Loads as after a restart.
    fn load(&self) -> Loaded {
        self.reload(&[])
    }

    fn reload(&self, previous: &[LoadedOrder]) -> Loaded {
        load(
            &self.settings,
            &Before { orders: previous.to_vec(), ..Before::default() },
            "2026-11-22T00:00:00Z".parse().unwrap(),
        )
    }

    /// Mistakes and warnings with the folder left out of their paths.
    pub(super) fn short(&self, text: impl ToString) -> String {
        text.to_string().replace(&format!("{}/", self.folder.path().display()), "")
    }

    pub(super) fn refused(&self, loaded: &Loaded) -> Vec<String> {
        loaded.refused.iter().map(|mistake| self.short(mistake)).collect()
    }

    pub(super) fn warnings(&self, loaded: &Loaded) -> Vec<String> {
        loaded.warnings.iter().map(|warning| self.short(warning)).collect()
    }

    pub(super) fn pending(&self, mistakes: &[Mistake]) -> Vec<String> {
        mistakes.iter().map(|mistake| self.short(mistake)).collect()
    }

    /// Asserts that nothing was refused and nothing warned of.
    fn load_clean(&self) -> Loaded {
        let loaded = self.load();
        assert_eq!((self.refused(&loaded), self.warnings(&loaded)), (vec![], vec![]));
        loaded
    }
}

/// An order about one name, everywhere.
pub(super) fn order(id: &str, name: &str) -> String {
    format!(
        "id = '{id}'\nissuer = 'Example Court'\njurisdiction = ['*']\nreceived = 2026-01-01T00:00:00Z\n\
         state = 'in-force'\n[[target]]\nsubtree = ['{name}']\n"
    )
}

/// Of each order: its id, its first name, and whether it is pending.
fn seen(loaded: &Loaded) -> Vec<(String, String, bool)> {
    let seen = |loaded: &LoadedOrder| {
        let name = loaded.order.targets[0].names[0].0.to_string();
        (loaded.order.id.clone(), name, !loaded.pending.is_empty())
    };
    loaded.orders.iter().map(seen).collect()
}

fn entry(id: &str, name: &str, pending: bool) -> (String, String, bool) {
    (id.to_owned(), name.to_owned(), pending)
}

// ---- Orders ----

#[test]
fn order_files_are_read_by_name_and_other_files_are_not() {
    let machine = Machine::new();
    for (file, id) in [("b.toml", "second"), ("a.toml", "first"), ("c d.toml", "third")] {
        machine.write(&format!("orders/{file}"), order(id, "a.example"));
    }
    for other in [".a.toml", ".a.toml.swp", "a.toml~", "#a.toml#", "a.toml.bak", "README.md", "a.TOML", "toml"] {
        machine.write(&format!("orders/{other}"), "not an order");
    }
    let loaded = machine.load_clean();
    let entries = ["first", "second", "third"].map(|id| entry(id, "a.example", false));
    assert_eq!(seen(&loaded), entries);
    assert_eq!(loaded.orders[0].order.file, machine.path("orders/a.toml"));
    assert_eq!(loaded.settings, machine.settings);
}

#[test]
fn a_symlink_is_followed_and_a_folder_or_a_pipe_is_no_order() {
    let machine = Machine::new();
    machine.write("elsewhere/x", order("linked", "a.example"));
    symlink(machine.path("elsewhere/x"), machine.path("orders/a.toml")).unwrap();
    symlink(machine.path("nowhere"), machine.path("orders/b.toml")).unwrap();
    symlink("/dev/zero", machine.path("orders/c.toml")).unwrap();
    fs::create_dir(machine.path("orders/d.toml")).unwrap();
    let loaded = machine.load();
    assert_eq!(seen(&loaded), [entry("linked", "a.example", false)]);
    assert_eq!(
        machine.refused(&loaded),
        [
            "orders/b.toml: cannot be read: No such file or directory (os error 2)",
            "orders/c.toml: is not a file",
            "orders/d.toml: is not a file",
        ]
    );
}

#[test]
fn no_folder_is_no_orders_and_a_missing_one_a_mistake() {
    let mut machine = Machine::new();
    fs::remove_dir(machine.path("orders")).unwrap();
    assert_eq!(
        machine.refused(&machine.load()),
        ["orders: the folder of orders cannot be read (No such file or directory (os error 2)); \
          make it, or correct [policy] orders"]
    );
    machine.settings.orders = None;
    assert!(machine.load_clean().orders.is_empty());
}

#[test]
fn a_folder_that_goes_missing_lifts_nothing() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.write("orders/b.toml", order("y", "b.example"));
    machine.load_clean();
    fs::rename(machine.path("orders"), machine.path("away")).unwrap();
    for _ in 0..2 {
        let loaded = machine.load();
        assert_eq!(seen(&loaded), [entry("x", "a.example", true), entry("y", "b.example", true)]);
        assert_eq!((loaded.refused.len(), loaded.warnings.len()), (1, 0));
        assert_eq!(loaded.orders[0].order.file, machine.path("orders/a.toml"));
    }
    fs::rename(machine.path("away"), machine.path("orders")).unwrap();
    assert_eq!(seen(&machine.load_clean()).len(), 2);
}

#[test]
fn a_change_that_cannot_be_read_leaves_the_copy_in_force_also_after_a_restart() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "before.example"));
    machine.load_clean();
    machine.write("orders/a.toml", order("x", "a..b"));
    for _ in 0..2 {
        let loaded = machine.load();
        assert_eq!(seen(&loaded), [entry("x", "before.example", true)]);
        let mistake = "orders/a.toml:7:12: \"a..b\" is not a name: empty label";
        assert_eq!(machine.pending(&loaded.orders[0].pending), [mistake]);
        assert_eq!((loaded.refused, loaded.warnings), (vec![], vec![]));
    }
    machine.write("orders/a.toml", order("x", "after.example"));
    assert_eq!(seen(&machine.load_clean()), [entry("x", "after.example", false)]);
    machine.write("orders/a.toml", "");
    assert_eq!(seen(&machine.load()), [entry("x", "after.example", true)]);
}

#[test]
fn every_cut_of_a_file_leaves_an_order_in_force() {
    let machine = Machine::new();
    let text = order("x", "before.example").replace("Court", "Cörte");
    machine.write("orders/a.toml", &text);
    machine.load_clean();
    for cut in 0..text.len() - 1 {
        machine.write("orders/a.toml", &text.as_bytes()[..cut]);
        assert_eq!(seen(&machine.load()), [entry("x", "before.example", true)], "cut at {cut}");
    }
}

#[test]
fn a_new_file_that_cannot_be_read_does_not_stop_the_others() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    machine.write("orders/b.toml", "id = 1");
    machine.write("orders/c.toml", order("z", "c.example"));
    machine.write("orders/d.toml", b"id = 'd'\n# caf\xe9");
    let loaded = machine.load();
    assert_eq!(seen(&loaded), [entry("x", "a.example", false), entry("z", "c.example", false)]);
    let refused = machine.refused(&loaded);
    assert!(refused.contains(&"orders/d.toml:2:6: not UTF-8; save the file in that encoding".to_owned()));
    assert!(
        refused.contains(&"orders/b.toml:1:6: `id` is an integer; it takes a string in quotation marks".to_owned())
    );
}

#[test]
fn a_vanished_file_lifts_its_order_once() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.write("orders/b.toml", order("y", "b.example"));
    machine.load_clean();
    machine.remove("orders/a.toml");
    let loaded = machine.load();
    assert_eq!(seen(&loaded), [entry("y", "b.example", false)]);
    assert_eq!(machine.warnings(&loaded), ["orders/a.toml: the file is gone; its order x is lifted"]);
    assert!(!machine.path("state/orders/a.toml").exists());
    machine.load_clean();
    machine.write("orders/a.toml", "broken");
    assert_eq!(machine.refused(&machine.load()).len(), 1, "a lifted order does not come back");
}

#[test]
fn a_file_that_is_being_replaced_lifts_nothing() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.write("orders/b.toml", order("y", "b.example"));
    let after = |before: &Loaded| {
        let (orders, gone) = (before.orders.clone(), Some(before.gone.clone()));
        load(&machine.settings, &Before { orders, gone, ..Before::default() }, at(0))
    };
    let at_first = after(&machine.load_clean());
    machine.remove("orders/a.toml");
    let without_a = after(&at_first);
    assert_eq!(seen(&without_a), seen(&at_first), "it may be on its way back");
    assert_eq!((machine.warnings(&without_a), without_a.gone.len()), (vec![], 1));
    assert!(machine.path("state/orders/a.toml").exists());
    // A tool goes through the folder: one is back, the next one is gone.
    machine.write("orders/a.toml", order("x", "c.example"));
    machine.remove("orders/b.toml");
    let without_b = after(&without_a);
    assert_eq!(seen(&without_b), [entry("x", "c.example", false), entry("y", "b.example", false)]);
    let at_last = after(&without_b);
    assert_eq!(seen(&at_last), [entry("x", "c.example", false)]);
    assert_eq!(machine.warnings(&at_last), ["orders/b.toml: the file is gone; its order y is lifted"]);
    assert!(after(&at_last).gone.is_empty());
}

#[test]
fn an_empty_folder_in_place_of_the_one_with_the_orders_lifts_nothing() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    fs::rename(machine.path("orders"), machine.path("not-mounted")).unwrap();
    fs::create_dir(machine.path("orders")).unwrap();
    for _ in 0..2 {
        let loaded = machine.load();
        assert_eq!(seen(&loaded), [entry("x", "a.example", true)]);
        let [mistake] = &machine.refused(&loaded)[..] else { panic!("one mistake: {:?}", loaded.refused) };
        assert!(mistake.starts_with("orders: the folder of orders is empty and not the one"), "{mistake}");
    }
    fs::remove_dir(machine.path("orders")).unwrap();
    fs::rename(machine.path("not-mounted"), machine.path("orders")).unwrap();
    assert_eq!(seen(&machine.load_clean()), [entry("x", "a.example", false)]);
    // Another folder that says of itself that there is none, and the same folder, are believed.
    for own in [false, true] {
        if !own {
            fs::rename(machine.path("orders"), machine.path("old")).unwrap();
            machine.write("orders/README", "");
        } else {
            machine.write("orders/a.toml", order("x", "a.example"));
            machine.load_clean();
            machine.remove("orders/a.toml");
            machine.remove("orders/README");
        }
        let loaded = machine.load();
        assert_eq!((seen(&loaded).len(), machine.warnings(&loaded).len()), (0, 1));
    }
}

#[test]
fn a_renamed_file_lifts_nothing() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    fs::rename(machine.path("orders/a.toml"), machine.path("orders/b.toml")).unwrap();
    assert_eq!(seen(&machine.load_clean()), [entry("x", "a.example", false)]);
    assert!(machine.path("state/orders/b.toml").exists());
    assert!(!machine.path("state/orders/a.toml").exists());
}

#[test]
fn of_two_files_with_one_id_the_second_is_refused() {
    let machine = Machine::new();
    machine.write("orders/b.toml", order("x", "b.example"));
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.write("orders/c.toml", order("y", "c.example"));
    let mistakes = [
        "orders/b.toml:1:6: id is already that of a.toml; give one of them an id of its own",
        "orders/b.toml:1:6: id is already that of a.toml, which stays in force; give this order an id of its own",
    ];
    for mistake in mistakes {
        let loaded = machine.load();
        assert_eq!(seen(&loaded), [entry("x", "a.example", false), entry("y", "c.example", false)]);
        assert_eq!(machine.refused(&loaded), [mistake]);
    }
    machine.remove("orders/a.toml");
    assert_eq!(seen(&machine.load_clean())[0], entry("x", "b.example", false));
}

#[test]
fn a_copied_order_leaves_the_one_in_force() {
    let mistake = "orders/copy.toml:2:8: id is already that of milan.toml, which stays in force; \
                   give this order an id of its own";
    for state in [true, false] {
        let mut machine = Machine::new();
        machine.settings.state = machine.settings.state.filter(|_| state);
        machine.write("orders/milan.toml", order("x", "a.example"));
        let mut held = machine.load_clean().orders;
        let copy = order("x", "b.example").replace("id = ", "id   = ");
        machine.write("orders/copy.toml", format!("# a copy\n{copy}"));
        // After a restart the copies on disk know it; without them the load before does.
        held.retain(|_| !state);
        for _ in 0..2 {
            let loaded = machine.reload(&held);
            assert_eq!(seen(&loaded), [entry("x", "a.example", false)]);
            assert_eq!(machine.refused(&loaded), [mistake]);
        }
        machine.remove("orders/milan.toml");
        assert_eq!(seen(&machine.reload(&held)), [entry("x", "b.example", false)]);
    }
}

#[test]
fn the_load_before_knows_better_than_a_copy_left_on_disk() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    machine.write("orders/a.toml", "broken");
    machine.write("orders/b.toml", order("x", "b.example"));
    let held = machine.load().orders;
    machine.write("orders/a.toml", order("x", "a.example"));
    assert_eq!(seen(&machine.reload(&held)), [entry("x", "b.example", false)]);
}

#[test]
fn an_order_changed_to_a_taken_id_stays_what_it_was() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.write("orders/b.toml", order("y", "b.example"));
    machine.load_clean();
    for (file, id, name) in [("a.toml", "y", "a.example"), ("b.toml", "x", "b.example")] {
        let text = fs::read(machine.path(&format!("orders/{file}"))).unwrap();
        machine.write(&format!("orders/{file}"), order(id, name));
        let loaded = machine.load();
        let is_first = file == "a.toml";
        assert_eq!(seen(&loaded), [entry("x", "a.example", is_first), entry("y", "b.example", !is_first)]);
        assert!(loaded.refused.is_empty());
        machine.write(&format!("orders/{file}"), text);
    }
}

#[test]
fn a_copy_does_not_count_beside_a_valid_file_of_its_id() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    machine.write("orders/a.toml", "broken");
    machine.write("orders/b.toml", order("x", "b.example"));
    let loaded = machine.load();
    assert_eq!(seen(&loaded), [entry("x", "b.example", false)]);
    assert!(machine.refused(&loaded)[0].starts_with("orders/a.toml:1:"));
}

#[test]
fn a_damaged_copy_is_no_copy() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    machine.write("state/orders/a.toml", "id =");
    machine.write("orders/a.toml", "broken");
    let loaded = machine.load();
    assert_eq!((seen(&loaded), loaded.refused.len()), (vec![], 1));
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    assert_eq!(fs::read(machine.path("state/orders/a.toml")).unwrap(), order("x", "a.example").as_bytes());
}

#[test]
fn an_order_file_has_a_bound() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    let file = File::create(machine.path("orders/a.toml")).unwrap();
    file.set_len(orders::ORDER_OCTETS_MAX + 1).unwrap();
    let loaded = machine.load();
    assert_eq!(seen(&loaded), [entry("x", "a.example", true)]);
    assert_eq!(machine.pending(&loaded.orders[0].pending), ["orders/a.toml: is larger than 4 MiB; split it"]);
}

#[test]
fn without_a_state_folder_nothing_is_kept_or_read() {
    let mut machine = Machine::new();
    machine.settings.state = None;
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    machine.write("orders/a.toml", "broken");
    assert_eq!(machine.load().refused.len(), 1);
    assert!(!machine.path("state").exists());
}

#[test]
fn without_copies_the_orders_of_the_load_before_stand_in() {
    let mut machine = Machine::new();
    machine.settings.state = None;
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.write("orders/b.toml", order("y", "b.example"));
    let first = machine.load_clean();
    machine.write("orders/a.toml", "broken");
    let second = machine.reload(&first.orders);
    assert_eq!(seen(&second), [entry("x", "a.example", true), entry("y", "b.example", false)]);
    assert!(second.refused.is_empty());
    machine.remove("orders/b.toml");
    let third = machine.reload(&second.orders);
    assert_eq!(seen(&third), [entry("x", "a.example", true)]);
    assert_eq!(machine.warnings(&third), ["orders/b.toml: the file is gone; its order y is lifted"]);
    fs::rename(machine.path("orders"), machine.path("away")).unwrap();
    assert_eq!(seen(&machine.reload(&third.orders)), [entry("x", "a.example", true)]);
}

#[test]
fn the_state_folder_is_private() {
    let machine = Machine::new();
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.load_clean();
    for (name, mode) in [("state", 0o700), ("state/orders", 0o700), ("state/orders/a.toml", 0o600)] {
        assert_eq!(fs::metadata(machine.path(name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
    }
}

#[test]
fn a_copy_that_cannot_be_written_is_a_warning() {
    let machine = Machine::new();
    // A file where the folder should be: even root cannot write below it.
    machine.write("state", "");
    machine.write("orders/a.toml", order("x", "a.example"));
    machine.write("orders/b.toml", order("y", "b.example"));
    let loaded = machine.load();
    assert_eq!((seen(&loaded).len(), loaded.refused.len()), (2, 0));
    assert_eq!(
        machine.warnings(&loaded),
        ["state/orders: last good copies cannot be kept: a.toml: Not a directory (os error 20), and 1 more"]
    );
}

#[test]
fn a_hostile_file_name_stays_in_the_folder() {
    let machine = Machine::new();
    for (index, name) in ["..%2f..toml", "a\nb.toml", "é \"'$.toml", "-rf.toml", "%.toml"].iter().enumerate() {
        machine.write(&format!("orders/{name}"), order(&format!("x-{index}"), "a.example"));
    }
    let count = |loaded: &Loaded| loaded.orders.len();
    // A name that begins with a dot is no order file's.
    assert_eq!(count(&machine.load_clean()), 4);
    assert_eq!(fs::read_dir(machine.path("state/orders")).unwrap().count(), 4 + 1, "and where they are from");
    assert_eq!(count(&machine.load_clean()), 4, "each is known again by its copy's name");
}

#[test]
fn a_name_too_long_for_a_copy_is_a_warning() {
    let machine = Machine::new();
    machine.write(&format!("orders/{}.toml", "é".repeat(100)), order("x", "a.example"));
    let loaded = machine.load();
    assert_eq!(loaded.orders.len(), 1);
    assert!(machine.warnings(&loaded)[0].starts_with("state/orders: last good copies cannot be kept: éé"));
}

#[test]
fn the_sample_orders_are_in_force() {
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    let orders = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/orders"));
    let origin = origin::Settings { default: origin::Country::from_code("IT"), ..origin::Settings::default() };
    let loaded = load(&Settings { orders, origin, ..Settings::default() }, &Before::default(), now);
    assert_eq!((&loaded.refused[..], &loaded.warnings[..]), (&[][..], &[][..]));
    let seen: Vec<_> = loaded.orders.iter().map(|loaded| (&loaded.order.id[..], loaded.order.standing(now))).collect();
    let ids = ["example-everywhere", "it-milan-2022-torrents"];
    assert_eq!(seen, ids.map(|id| (id, Standing::InForce)));
    let milan: Vec<String> = loaded.orders[1].order.targets[0].names.iter().map(|name| name.0.to_string()).collect();
    assert_eq!(milan, ["kickasstorrents.to", "limetorrents.pro", "ilcorsaronero.pro"]);
}

// ---- Lists ----

#[test]
fn lists_are_read_in_the_order_of_the_configuration() {
    let mut machine = Machine::new();
    machine.add_list("z");
    machine.add_list("a");
    machine.write("lists/z.txt", "one.example\n");
    machine.write("lists/a.txt", "two.example\n");
    let loaded = machine.load_clean();
    let texts: Vec<&[u8]> = loaded.lists.iter().map(|list| &list.octets[..]).collect();
    assert_eq!(texts, [b"one.example\n", b"two.example\n"]);
    assert_eq!(loaded.lists[1].settings.name, "a");
    assert!(machine.path("state/lists/a.domains").exists());
}

#[test]
fn a_list_that_cannot_be_read_keeps_its_last_copy() {
    let mut machine = Machine::new();
    machine.add_list("malware");
    assert_eq!(
        machine.refused(&machine.load()),
        ["lists/malware.txt: cannot be read: No such file or directory (os error 2)"]
    );
    machine.write("lists/malware.txt", "one.example\n");
    machine.load_clean();
    for (change, what) in [
        (Some(""), format!("lists/malware.txt: {}", lists::EMPTIED)),
        (Some("a..b\n"), format!("lists/malware.txt: {}", lists::EMPTIED)),
        (
            Some("\u{feff}\n <!DOCTYPE HTML>\n<title>502</title>\nstill.example\n"),
            "lists/malware.txt: is a web page, not a list; see where it is downloaded from".to_owned(),
        ),
        (None, "lists/malware.txt: cannot be read: No such file or directory (os error 2)".to_owned()),
    ] {
        match change {
            Some(text) => machine.write("lists/malware.txt", text),
            None => machine.remove("lists/malware.txt"),
        }
        let loaded = machine.load_clean();
        assert_eq!(&loaded.lists[0].octets[..], b"one.example\n");
        assert_eq!(machine.pending(&loaded.lists[0].pending), [what]);
    }
    machine.write("lists/malware.txt", b"\xff\xfet\0w\0o\0");
    assert_eq!(
        machine.pending(&machine.load_clean().lists[0].pending),
        ["lists/malware.txt: is UTF-16; save it as UTF-8"]
    );
    machine.write("lists/malware.txt", "two.example\n");
    let loaded = machine.load_clean();
    assert_eq!((&loaded.lists[0].octets[..], loaded.lists[0].pending.len()), (&b"two.example\n"[..], 0));
}

#[test]
fn a_list_that_never_had_a_rule_is_loaded_with_a_warning() {
    let mut machine = Machine::new();
    machine.add_list("mine");
    machine.write("lists/mine.txt", "");
    let loaded = machine.load();
    assert_eq!(machine.warnings(&loaded), ["list mine: lists/mine.txt has no rule"]);
    assert_eq!((loaded.lists.len(), loaded.refused.len()), (1, 0));
    machine.write("lists/mine.txt", "<html>");
    let loaded = machine.load();
    assert_eq!((loaded.lists.len(), loaded.refused.len()), (0, 1), "a web page is never a list");
}

#[test]
fn faults_are_counted_and_the_first_shown() {
    let mut machine = Machine::new();
    machine.add_list("mine");
    machine.write("lists/mine.txt", "good.example\na..b\n");
    let [warning] = &machine.warnings(&machine.load())[..] else { panic!("one warning") };
    assert!(warning.starts_with("list mine: 1 fault, the first at lists/mine.txt:2:"), "{warning}");
    machine.write("lists/mine.txt", format!("good.example\n{}", "a..b\n".repeat(50)));
    let loaded = machine.load();
    assert_eq!((loaded.lists.len(), loaded.lists[0].pending.len()), (1, 0));
    let [warning] = &machine.warnings(&loaded)[..] else { panic!("one warning") };
    assert!(warning.starts_with("list mine: 50 faults, the first at lists/mine.txt:2:"), "{warning}");
    assert_eq!(warning.matches(" | lists/mine.txt:").count(), 2, "{warning}");
    assert!(warning.contains(" | lists/mine.txt:4:"), "{warning}");
}

#[test]
fn a_list_no_longer_configured_leaves_no_copy() {
    let mut machine = Machine::new();
    machine.add_list("../../mine");
    machine.settings.lists[0].file = machine.path("lists/mine.txt");
    machine.write("lists/mine.txt", "one.example\n");
    machine.load_clean();
    assert!(machine.path("state/lists/%2e.%2f..%2fmine.domains").exists());
    machine.settings.lists.clear();
    machine.load_clean();
    assert_eq!(fs::read_dir(machine.path("state/lists")).unwrap().count(), 0);
}

// ---- Lists of orders ----

/// An order about the names of `lists/a.txt`, with these further keys of the list.
fn order_of_list(id: &str, keys: &str) -> String {
    order(id, "")
        .replace("subtree = ['']", "list = { file = 'LISTS/a.txt', format = 'domains', covers = 'subtree'KEYS }")
        .replace("KEYS", keys)
}

impl Machine {
    fn write_order(&self, text: &str) {
        let lists = self.path("lists").display().to_string();
        self.write("orders/a.toml", text.replace("LISTS", &lists));
    }

    /// As a reload has it: with what the load before knew.
    fn load_after(&self, before: &Loaded) -> Loaded {
        self.load_over(before, before.bulk.clone(), false)
    }

    fn load_over(&self, before: &Loaded, bulk: Bulk, lists_stand: bool) -> Loaded {
        let before = Before { orders: before.orders.clone(), bulk, lists_stand, ..Before::default() };
        load(&self.settings, &before, "2026-11-22T00:00:00Z".parse().unwrap())
    }
}

/// Whether a name is blocked, and by which line of which file.
fn blocked(loaded: &Loaded, text: &str) -> Option<(String, u32)> {
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    let policy = crate::policy::Policy::compile(loaded, 1, now).unwrap();
    let (name, qtype) = (Name::from_text(text).unwrap(), crate::dns::Qtype::A);
    let by = policy.explain(&crate::policy::explain::Question { name, qtype, client: None, at: now }).by?;
    Some((Path::new(&by.file).file_name().unwrap().to_str().unwrap().to_owned(), by.line))
}

fn is_in_list(line: u32) -> Option<(String, u32)> {
    Some(("a.txt".to_owned(), line))
}

#[test]
fn a_list_of_an_order_is_read_and_kept_and_stays_what_it_was_where_it_cannot_be_read() {
    let machine = Machine::new();
    machine.write_order(&order_of_list("x", ""));
    machine.write("lists/a.txt", "one.example\ntwo.example\n");
    let mut loaded = machine.load_clean();
    assert_eq!((blocked(&loaded, "www.two.example"), loaded.files.len()), (is_in_list(2), 1));
    for (change, what) in [
        (Some(""), lists::EMPTY),
        (Some("<html>"), "is a web page, not a list; see where it is downloaded from"),
        (None, "cannot be read: No such file or directory (os error 2); put the file there, or correct the name"),
    ] {
        let what = format!("orders/a.toml:7:1: its list lists/a.txt {what}");
        match change {
            Some(text) => machine.write("lists/a.txt", text),
            None => machine.remove("lists/a.txt"),
        }
        loaded = machine.load_after(&loaded);
        // After a restart, after a reload, and after another reload in which nothing has changed.
        for loaded in [machine.load(), loaded.clone(), machine.load_after(&loaded)] {
            assert_eq!(machine.pending(&loaded.orders[0].pending), [what.as_str()]);
            assert_eq!(loaded.orders[0].fate, Fate::Copy);
            assert_eq!(blocked(&loaded, "www.two.example"), is_in_list(2));
            assert_eq!((loaded.refused, loaded.warnings), (vec![], vec![]));
        }
    }
    machine.write("lists/a.txt", "three.example\na..b\n");
    loaded = machine.load_after(&loaded);
    assert_eq!((blocked(&loaded, "two.example"), blocked(&loaded, "three.example")), (None, is_in_list(1)));
    assert!(machine.warnings(&loaded)[0].starts_with("order x: 1 fault, the first at lists/a.txt:2:"));
    assert_eq!(machine.load_after(&loaded).warnings, loaded.warnings, "told again with each load");
}

#[test]
fn special_names_of_a_list_are_no_sample_of_it() {
    let machine = Machine::new();
    machine.write_order(&order_of_list("x", ""));
    machine.write("lists/a.txt", "a.test\na.localhost\nb.example\n");
    let policy = crate::policy::Policy::compile(&machine.load(), 1, at(0)).unwrap();
    let sample: Vec<_> = policy.listed_sample(0, 0).iter().map(ToString::to_string).collect();
    assert_eq!(sample, ["b.example"], "a probe of the others would find what we answer ourselves");
}

#[test]
fn an_order_whose_list_was_never_there_is_refused_and_the_order_before_stays_whole() {
    let machine = Machine::new();
    machine.write_order(&order_of_list("x", ""));
    let mistake = "orders/a.toml:7:1: its list lists/a.txt cannot be read: No such file or directory (os error 2); \
                   put the file there, or correct the name";
    let loaded = machine.load();
    assert_eq!((loaded.orders.len(), machine.refused(&loaded)), (0, vec![mistake.to_owned()]));
    assert_eq!(loaded.files, [machine.path("lists/a.txt")], "it is waited for");

    machine.write_order(&order("x", "before.example"));
    let before = machine.load_clean();
    machine.write_order(&order_of_list("x", ""));
    for loaded in [machine.load_after(&before), machine.load()] {
        assert_eq!(seen(&loaded), [entry("x", "before.example", true)]);
        assert_eq!(machine.pending(&loaded.orders[0].pending), [mistake]);
        assert_eq!(loaded.refused, []);
    }
    machine.write("lists/a.txt", "one.example");
    assert_eq!(blocked(&machine.load_after(&before), "one.example"), is_in_list(1));
}

#[test]
fn a_list_is_carried_out_only_where_it_is_what_its_sha256_says() {
    let machine = Machine::new();
    let pinned = |text: &str| order_of_list("x", &format!(", sha256 = '{}'", Digest::of(text.as_bytes())));
    machine.write_order(&pinned("one.example"));
    machine.write("lists/a.txt", "one.example");
    let first = machine.load_clean();
    machine.write("lists/a.txt", "two.example");
    let digest = Digest::of(b"two.example");
    let told = format!(
        "orders/a.toml:7:1: its list lists/a.txt has another SHA-256, {digest}; put back the file that is meant, or \
         correct sha256"
    );
    for loaded in [machine.load(), machine.load_after(&first)] {
        assert_eq!(machine.pending(&loaded.orders[0].pending), [told.as_str()]);
        assert_eq!((blocked(&loaded, "one.example"), blocked(&loaded, "two.example")), (is_in_list(1), None));
    }
    // A new order whose list is not there yet: the old one with its list.
    machine.write_order(&pinned("three.example").replace("Example Court", "Another Court"));
    for loaded in [machine.load(), machine.load_after(&first)] {
        assert_eq!((loaded.orders[0].order.issuer.as_str(), loaded.refused.len()), ("Example Court", 0));
        let told = machine.pending(&loaded.orders[0].pending);
        assert!(told[0].starts_with("orders/a.toml:7:1: its list lists/a.txt has another SHA-256, "), "{told:?}");
        assert!(told[1].starts_with("orders/a.toml: its list "), "the line would be the copy's: {told:?}");
        assert_eq!(blocked(&loaded, "one.example"), is_in_list(1));
    }
    machine.write("lists/a.txt", "three.example");
    let loaded = machine.load_after(&first);
    assert_eq!((loaded.orders[0].order.issuer.as_str(), &loaded.orders[0].pending[..]), ("Another Court", &[][..]));
    assert_eq!(blocked(&loaded, "three.example"), is_in_list(1));
}

#[test]
fn lists_that_have_not_changed_are_neither_read_nor_compiled_again() {
    let mut machine = Machine::new();
    machine.add_list("mine");
    machine.write("lists/mine.txt", "mine.example\na..b");
    machine.write_order(&order_of_list("x", ""));
    machine.write("lists/a.txt", "one.example");
    let first = machine.load();
    let same = |one: &Loaded, other: &Loaded| {
        let is_same = |one: Arc<_>, other: Arc<_>| Arc::ptr_eq(&one, &other);
        let (lists, targets) = (one.bulk.lists(), one.bulk.targets());
        (is_same(lists, other.bulk.lists()), is_same(targets, other.bulk.targets()))
    };
    machine.write("orders/b.toml", order("y", "b.example"));
    let second = machine.load_after(&first);
    assert_eq!((same(&first, &second), second.lists[0].octets.len()), ((true, true), 0));
    assert_eq!(second.warnings, first.warnings);
    machine.settings.lists[0].effect = Effect::Refused;
    machine.write_order(&format!("about = 'https://court.example'\n{}", order_of_list("x", "")));
    assert_eq!(same(&machine.load_after(&second), &second), (true, true));
    machine.write("lists/a.txt", "two.example");
    let third = machine.load_after(&second);
    assert_eq!((same(&third, &second), third.lists[0].held.rules), ((true, false), 1));
    machine.add_list("more");
    machine.write("lists/more.txt", "more.example");
    let fourth = machine.load_after(&third);
    assert_eq!(same(&fourth, &third), (false, true));
    let lines = ["mine.example", "more.example", "two.example"].map(|text| blocked(&fourth, text).unwrap().1);
    assert_eq!(lines, [1, 1, 1]);
    assert_eq!((fourth.lists[0].octets.len(), fourth.lists[1].octets.len()), (0, 12), "the one that is new");
    machine.write("lists/more.txt", "other.example\nmore.example");
    let fifth = machine.load_after(&fourth);
    assert_eq!((fifth.lists[0].octets.len(), fifth.lists[1].octets.len()), (0, 26), "the one that has changed");
    let lines = ["mine.example", "more.example", "two.example"].map(|text| blocked(&fifth, text).unwrap().1);
    assert_eq!(lines, [1, 2, 1], "the other stays");
    machine.settings.lists.remove(0);
    machine.remove("orders/a.toml");
    let sixth = machine.load_after(&fifth);
    assert_eq!(same(&sixth, &fifth), (true, true));
    for (text, line) in [("mine.example", None), ("more.example", Some(2)), ("two.example", None)] {
        assert_eq!(blocked(&sixth, text).map(|(_, line)| line), line, "{text}");
    }
}

#[test]
fn an_order_does_not_wait_for_a_list_that_is_read_apart() {
    let mut machine = Machine::new();
    machine.add_list("mine");
    machine.write("lists/mine.txt", "one.example");
    machine.write_order(&order_of_list("x", ""));
    machine.write("lists/a.txt", "three.example");
    let first = machine.load_clean();
    machine.write("lists/mine.txt", "one.example\ntwo.example");
    machine.write("lists/a.txt", "three.example\nfour.example");
    machine.write("orders/b.toml", order("y", "five.example"));
    let second = machine.load_over(&first, first.bulk.clone(), true);
    let blocks = |loaded: &Loaded| {
        ["one", "two", "three", "four", "five"].map(|name| blocked(loaded, &format!("{name}.example")).is_some())
    };
    assert_eq!(blocks(&second), [true, false, true, true, true], "all but the list of the operator's");
    let copy = || fs::read_to_string(machine.path("state/lists/mine.domains")).unwrap();
    assert!(second.bulk.is_behind(&machine.settings.lists));
    let (unkept, warning) = lists(&machine.settings, &second.bulk, || false);
    assert_eq!((copy().as_str(), warning), ("one.example", None));
    let (read, warning) = lists(&machine.settings, &second.bulk, || true);
    assert_eq!((copy().as_str(), warning), ("one.example\ntwo.example", None));
    assert!(!unkept.is_behind(&machine.settings.lists) && !read.is_behind(&machine.settings.lists));
    let third = machine.load_over(&second, second.bulk.clone().with_lists_of(&read), true);
    assert_eq!(blocks(&third), [true; 5]);
    assert_eq!(
        (third.lists[0].octets.len(), third.refused, third.warnings),
        (0, vec![], vec![]),
        "nothing is read again"
    );
    // One that is emptied stays, as ever.
    machine.write("lists/mine.txt", "");
    let (emptied, _) = lists(&machine.settings, &third.bulk, || true);
    let fourth = machine.load_over(&second, third.bulk.clone().with_lists_of(&emptied), true);
    assert_eq!((blocks(&fourth), fourth.lists[0].pending.len()), ([true; 5], 1));
}

#[test]
fn without_a_copy_the_names_in_force_stand_in_and_a_lost_copy_is_kept_again() {
    let mut machine = Machine::new();
    machine.add_list("mine");
    machine.write("lists/mine.txt", "mine.example");
    machine.write_order(&order_of_list("x", ""));
    machine.write("lists/a.txt", "one.example");
    let first = machine.load_clean();
    fs::remove_dir_all(machine.path("state")).unwrap();
    let second = machine.load_after(&first);
    assert_eq!(fs::read_dir(machine.path("state/lists")).unwrap().count(), 2);
    machine.settings.state = None;
    machine.write("lists/mine.txt", "");
    machine.remove("lists/a.txt");
    let third = machine.load_after(&second);
    assert_eq!((third.refused.len(), third.lists[0].pending.len(), third.orders[0].pending.len()), (0, 1, 1));
    assert!(blocked(&third, "mine.example").is_some() && blocked(&third, "one.example").is_some());
}

#[test]
fn one_list_may_be_that_of_several_targets_and_of_none_once_its_order_is_lifted() {
    let machine = Machine::new();
    let twice = order_of_list("x", "");
    let second = twice.split_once("[[target]]").unwrap().1.replace("subtree", "exact");
    machine.write_order(&format!("{twice}expires = 2026-01-02T00:00:00Z\n[[target]]{second}"));
    machine.write("lists/a.txt", "one.example");
    let loaded = machine.load_clean();
    let blocked = |text: &str| blocked(&machine.load_after(&loaded), text);
    assert_eq!((blocked("one.example"), blocked("www.one.example")), (is_in_list(1), None), "the subtree is expired");
    assert_eq!(loaded.bulk.target_sources(), 2);
    machine.remove("lists/a.txt");
    assert_eq!(machine.load_after(&loaded).orders[0].pending.len(), 2);
    machine.write_order(&twice.replace("in-force", "lifted"));
    let lifted = machine.load_after(&loaded);
    assert_eq!((lifted.orders[0].pending.len(), machine.warnings(&lifted)), (0, vec![]));
    assert_eq!(fs::read_dir(machine.path("state/lists")).unwrap().count(), 0);
}

#[test]
fn a_list_without_its_digest_is_told_where_approvals_are_asked_for() {
    let machine = Machine::new();
    machine.write_order(&order_of_list("x", ""));
    machine.write("lists/a.txt", "one.example");
    let loaded = machine.load_clean();
    assert_eq!(
        machine
            .pending(&lists_without_digest(&loaded.orders[0].order, &fs::read(machine.path("orders/a.toml")).unwrap())),
        [
            "orders/a.toml:7:8: a list without its sha256 cannot be approved; say the SHA-256 of the file beside its name"
        ]
    );
    let pinned = order_of_list("x", &format!(", sha256 = '{}'", Digest::of(b"one.example")));
    machine.write_order(&pinned);
    assert_eq!(
        lists_without_digest(&machine.load_clean().orders[0].order, &fs::read(machine.path("orders/a.toml")).unwrap()),
        []
    );
}

// ---- Warnings ----

#[test]
fn an_exemption_is_measured_against_labels_and_lists_of_orders_too() {
    let mut machine = Machine::new();
    machine.write_order(&format!("{}any-tld = ['shop']\n", order_of_list("x", "")));
    machine.write("lists/a.txt", "one.example");
    for (name, warned) in [("www.one.example", 1), ("shop.co.uk", 1), ("other.example", 0)] {
        machine.settings.exemptions = vec![exemption(1, name, None, None)];
        assert_eq!(machine.load().warnings.len(), warned, "{name}");
    }
}

/// An exemption of the line `number` of the configuration.
fn exemption(number: u32, name: &str, order: Option<&str>, expires: Option<&str>) -> Exemption {
    Exemption {
        name: Name::from_text(name).unwrap(),
        reason: "ticket 4711".to_owned(),
        expires: expires.map(|expires| expires.parse().unwrap()),
        overrides_order: order.map(str::to_owned),
        place: (PathBuf::from("bailiwick.toml"), number),
    }
}

#[test]
fn an_exemption_that_does_nothing_is_warned_of() {
    let mut machine = Machine::new();
    machine.write("orders/a.toml", order("known", "a.example"));
    machine.settings.exemptions = vec![
        exemption(1, "b.example", None, None),
        exemption(2, "b.example", Some("unknown"), Some("2026-11-22T00:00:00Z")),
        exemption(3, "b.example", Some("unknown"), Some("2026-11-22T00:00:01Z")),
    ];
    assert_eq!(
        machine.warnings(&machine.load()),
        [
            "bailiwick.toml:2: exemption b.example has ended at 2026-11-22T00:00:00Z; remove it",
            "bailiwick.toml:2: exemption b.example overrides order \"unknown\", which is not loaded",
            "bailiwick.toml:3: exemption b.example overrides order \"unknown\", which is not loaded",
        ]
    );
}

#[test]
fn an_override_is_reported_and_an_order_out_of_reach_warned_of() {
    let mut machine = Machine::new();
    machine.write("orders/a.toml", order("known", "a.example"));
    machine.write("orders/b.toml", order("exact", "a.example").replace("subtree", "exact"));
    machine.write("orders/draft.toml", order("draft", "a.example").replace("in-force", "draft"));
    let warnings = |machine: &mut Machine, exemptions| {
        machine.settings.exemptions = exemptions;
        machine.warnings(&machine.load())
    };
    let unreached = |name: &str, order: &str, more: &str| {
        format!(
            "bailiwick.toml:1: exemption {name} does not reach order {order}{more}, which blocks it too; \
             only overrides-order = \"{order}\" does"
        )
    };
    let more = " (and 1 more)";
    for (name, expected) in [
        ("example", vec![unreached("example", "known", more)]),
        ("a.example", vec![unreached("a.example", "known", more)]),
        ("www.a.example", vec![unreached("www.a.example", "known", "")]),
        ("b.example", vec![]),
    ] {
        assert_eq!(warnings(&mut machine, vec![exemption(1, name, None, None)]), expected);
    }
    let both = vec![exemption(1, "a.example", Some("known"), None), exemption(1, "www.a.example", None, None)];
    let overrides = |order| format!("bailiwick.toml:1: exemption a.example overrides order {order}");
    assert_eq!(warnings(&mut machine, both), [overrides("known"), unreached("a.example", "exact", "")]);
    assert_eq!(warnings(&mut machine, vec![exemption(1, "b.example", Some("draft"), None)]), Vec::<String>::new());
}

#[test]
fn an_order_for_a_country_needs_an_origin() {
    let mut machine = Machine::new();
    let add = |id: &str, lines: &str| {
        let text = order(id, "a.example").replace("['*']", "['IT', 'FR']");
        machine.write(&format!("orders/{id}.toml"), format!("{lines}\n{text}"));
    };
    add("now", "");
    add("soon", "effective = 2027-01-01T00:00:00Z");
    add("over", "expires = 2026-02-01T00:00:00Z");
    add("unknown", "unknown-origin = 'block'");
    machine.write("orders/draft.toml", order("draft", "a.example").replace("in-force", "draft"));
    machine.write("orders/everywhere.toml", order("everywhere", "a.example"));
    let what = "is for IT, FR, and nothing tells the country of a client: it cannot apply to anyone; \
                give [origin] networks, a database or a default";
    assert_eq!(machine.warnings(&machine.load()), ["now", "soon"].map(|id| format!("order {id} {what}")));
    machine.settings.listeners = origin::Country::from_code("IT").into_iter().collect();
    machine.load_clean();
    machine.settings.listeners.clear();
    machine.settings.origin.default = origin::Country::from_code("FR");
    machine.load_clean();
}

#[test]
fn an_order_for_a_country_that_no_origin_tells_applies_to_nobody() {
    let mut machine = Machine::new();
    let country = |code| origin::Country::from_code(code).unwrap();
    machine.settings.origin.networks = vec![("192.0.2.0/24".parse().unwrap(), country("IT"))];
    for (id, lines) in [("de-1", ""), ("de-2", "unknown-origin = 'block'\n")] {
        let text = order(id, "a.example").replace("['*']", "['DE', 'FR']");
        machine.write(&format!("orders/{id}.toml"), format!("{lines}{text}"));
    }
    machine.write("orders/it.toml", order("it", "a.example").replace("['*']", "['DE', 'IT']"));
    let what = "no prefix of [origin] networks and no default is in DE or FR, so it applies to nobody; add one";
    let first = format!("order de-1: {what}, or set unknown-origin = \"block\"");
    assert_eq!(machine.warnings(&machine.load()), [first]);
    machine.settings.origin.default = Some(country("AT"));
    let nobody_unknown = ["de-1", "de-2"].map(|id| format!("order {id}: {what}"));
    assert_eq!(machine.warnings(&machine.load()), nobody_unknown);
    machine.settings.origin.default = Some(country("FR"));
    machine.load_clean();
}
