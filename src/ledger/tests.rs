//! The ledger against whoever changes it, and against the disk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use proptest::prelude::*;
use tempfile::TempDir;

use super::key::SigningKey;
use super::line::{Fault, LINE_OCTETS_MAX, Line};
use super::verify::{Broken, Refused, Verified, key_named_in, verify};
use super::*;
use crate::policy::register::Facts;

/// How long anything takes at most here.
const PATIENCE: Duration = Duration::from_secs(20);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

/// A folder with a ledger in it.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn open(&self) -> Ledger {
        Ledger::open(self.folder.path(), at(0)).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(LEDGER_FILE)
    }

    fn octets(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }

    fn key(&self) -> PublicKey {
        public_key_of(self.folder.path()).unwrap().unwrap()
    }

    fn verified(&self) -> Result<Verified, Refused> {
        verify(&self.octets()[..], self.key(), None)
    }

    fn events(&self) -> Vec<Event> {
        let octets = self.octets();
        octets.split(|octet| *octet == b'\n').filter_map(|line| Line::read(line).ok()?.event()).collect()
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        thread::sleep(Duration::from_millis(5));
    }
}

fn facts(order: &str) -> Facts {
    Facts {
        order: order.to_owned(),
        digest: Digest::of(b"order"),
        issuer: "Tribunale \"di\" <b>Esempio</b> \u{202e}\u{7}".to_owned(),
        reference: Some("R.G. 1/2026".to_owned()),
        jurisdiction: vec!["IT".to_owned()],
        received: at(-1_000),
        due: Some(at(1_000)),
        state: "in-force".to_owned(),
        effective: None,
        expires: None,
        targets: vec!["subtree a.example".to_owned()],
        targets_total: 1,
    }
}

fn probe(order: &str) -> Probe {
    Probe {
        order: order.to_owned(),
        target: "subtree a.example".to_owned(),
        transport: "dot".to_owned(),
        inside: true,
        country: Some("IT".to_owned()),
        query: "000101000001000000000000".to_owned(),
        answer: None,
        certificate: Some(Digest::of(b"certificate")),
        outcome: "none".to_owned(),
        note: Some("timed out".to_owned()),
    }
}

/// One of every kind.
fn every_event() -> Vec<Event> {
    let order = || "it-1".to_owned();
    let input = Input { kind: "order".to_owned(), id: order(), digest: Digest::of(b"order") };
    let amended = Facts { targets_total: 2, ..facts("it-1") };
    let happenings = [
        Happening::OrderLoaded(facts("it-1")),
        Happening::OrderApproved { order: order(), digest: Digest::of(b"order"), by: vec!["anna".to_owned()] },
        Happening::OrderActivated {
            order: order(),
            generation: 1,
            received: at(-1_000),
            due: None,
            targets: vec!["subtree a.example".to_owned()],
        },
        Happening::OrderAmended(amended),
        Happening::OrderSuspended { order: order() },
        Happening::OrderLifted { order: order() },
        Happening::OrderExpired { order: order() },
        Happening::OrderRemoved { order: order() },
    ];
    let notes = [
        Note::Probe(probe("it-1")),
        Note::Generation { generation: 2, inputs: vec![input] },
        Note::Counts { from: at(0), until: at(3_600), blocked: BTreeMap::from([(order(), 120)]) },
        Note::TailRepaired { octets: 7, digest: Digest::of(b"torn") },
        Note::EventsLost { events: 3 },
        Note::Started { version: "0.0.0".to_owned(), key: "AA".to_owned() },
    ];
    happenings.into_iter().map(Event::Order).chain(notes.into_iter().map(Event::Node)).collect()
}

/// A ledger that has one line of every kind behind that of its start.
fn with_every_event() -> Desk {
    let desk = Desk::new();
    let ledger = desk.open();
    let tickets: Vec<_> =
        every_event().into_iter().zip(1..).map(|(event, second)| ledger.record(at(second), event)).collect();
    until("recorded", || ledger.has_recorded(*tickets.last().unwrap()));
    assert!(tickets.is_sorted() && tickets.iter().all(|ticket| ledger.has_recorded(*ticket)));
    assert_eq!((ledger.complaint(), ledger.waiting()), (None, 0));
    drop(ledger);
    desk
}

/// In which line an octet stands, its newline included.
fn line_of(octets: &[u8], at: usize) -> u64 {
    1 + octets[..at].iter().filter(|octet| **octet == b'\n').count() as u64
}

fn broken(found: Result<Verified, Refused>) -> Broken {
    match found {
        Err(Refused::Broken(broken)) => broken,
        other => panic!("{other:?}"),
    }
}

// ---- What is in it ----

#[test]
fn every_event_is_read_back_and_its_file_is_private() {
    let desk = with_every_event();
    let events = desk.events();
    let Event::Node(Note::Started { key, version }) = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!((key, version.as_str()), (&desk.key().to_string(), env!("CARGO_PKG_VERSION")));
    assert_eq!(events[1..], every_event());
    let verified = desk.verified().unwrap();
    assert_eq!((verified.head.number, verified.first, verified.last), (15, at(0), at(14)));
    assert_eq!(key_named_in(&desk.octets()[..]), Some(desk.key()));
    for file in [LEDGER_FILE, KEY_FILE] {
        let mode = fs::metadata(desk.folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    for line in String::from_utf8(desk.octets()).unwrap().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(["n", "at", "event", "prev", "sig"].iter().all(|key| value.get(key).is_some()), "{line}");
        assert_eq!(line.matches("\"prev\":").count() + line.matches("\"sig\":").count(), 2, "{line}");
    }
}

proptest! {
    #[test]
    fn any_event_goes_there_and_back(
        texts in proptest::collection::vec(".*", 6), number in any::<u64>(), flag in any::<bool>(), second in 0..1_000_000_i64
    ) {
        let text = |at: usize| texts[at].clone();
        let events = [
            Event::Order(Happening::OrderLoaded(Facts {
                order: text(0), issuer: text(1), reference: flag.then(|| text(2)), state: text(3),
                targets: texts.clone(), targets_total: number as usize, due: flag.then(|| at(second)), ..facts("x")
            })),
            Event::Order(Happening::OrderApproved { order: text(0), digest: Digest::of(text(1).as_bytes()), by: texts.clone() }),
            Event::Node(Note::Probe(Probe { inside: flag, query: text(4), note: flag.then(|| text(5)), ..probe(&text(0)) })),
            Event::Node(Note::Counts { from: at(0), until: at(second), blocked: BTreeMap::from([(text(0), number)]) }),
            Event::Node(Note::TailRepaired { octets: number, digest: Digest::of(text(0).as_bytes()) }),
        ];
        let folder = TempDir::new().unwrap();
        let key = SigningKey::make(folder.path()).unwrap();
        let (mut file, mut head) = (String::new(), None);
        for event in &events {
            head = Some(line::seal(&mut file, head.as_ref(), &line::body(at(second), event).unwrap(), &key));
        }
        prop_assert_eq!(verify(file.as_bytes(), key.public(), None).unwrap().head, head.unwrap());
        for (line, event) in file.lines().zip(&events) {
            let line = Line::read(line.as_bytes()).unwrap();
            let read = line.event();
            prop_assert_eq!((read.as_ref(), line.at), (Some(event), at(second)));
        }
    }
}

// ---- Whoever changes it ----

#[test]
fn each_octet_that_is_flipped_is_found_in_its_line() {
    let desk = with_every_event();
    let (good, key) = (desk.octets(), desk.key());
    let mut octets = good.clone();
    for place in 0..good.len() {
        for mask in [1 << (place % 8), 0x20] {
            octets[place] ^= mask;
            let found = broken(verify(&octets[..], key, None));
            assert_eq!(found.line, line_of(&good, place), "octet {place} ^ {mask:#x}: {found}");
            octets[place] ^= mask;
        }
    }
    assert_eq!(octets, good);
}

#[test]
fn a_ledger_cut_anywhere_is_found_by_itself_or_by_a_head() {
    let desk = with_every_event();
    let (octets, key) = (desk.octets(), desk.key());
    let head = desk.verified().unwrap().head;
    for cut in 0..octets.len() {
        match verify(&octets[..cut], key, Some(&head.hash)) {
            Ok(verified) => assert!(octets[..cut].ends_with(b"\n") && verified.known.is_none(), "cut at {cut}"),
            Err(Refused::Empty) => assert_eq!(cut, 0),
            Err(Refused::Broken(found)) => {
                assert_eq!(found, Broken { line: line_of(&octets, cut), fault: Fault::Torn }, "cut at {cut}");
            }
        }
    }
    let whole = verify(&octets[..], key, Some(&head.hash)).unwrap();
    assert_eq!(whole.known, Some(head.number));
}

#[test]
fn a_head_of_before_says_how_many_lines_follow() {
    let desk = Desk::new();
    let ledger = desk.open();
    until("started", || ledger.head().is_some());
    let before = ledger.head().unwrap();
    drop(ledger);
    drop(desk.open());
    let verified = verify(&desk.octets()[..], desk.key(), Some(&before.hash)).unwrap();
    assert_eq!((verified.known, verified.head.number), (Some(1), 2));
}

#[test]
fn lines_removed_doubled_or_exchanged_are_found() {
    let desk = with_every_event();
    let text = String::from_utf8(desk.octets()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let found = |lines: &[&str]| {
        let octets: String = lines.iter().map(|line| format!("{line}\n")).collect();
        broken(verify(octets.as_bytes(), desk.key(), None)).line
    };
    for place in 0..lines.len() - 1 {
        let mut changed = lines.clone();
        changed.remove(place);
        assert_eq!(found(&changed), place as u64 + 1, "removed");
        changed.insert(place, lines[place]);
        changed.insert(place, lines[place]);
        assert_eq!(found(&changed), place as u64 + 2, "doubled");
        changed.remove(place);
        changed.swap(place, place + 1);
        assert_eq!(found(&changed), place as u64 + 1, "exchanged");
    }
}

#[test]
fn what_a_stranger_writes_is_found_though_it_continues_the_chain() {
    let (desk, stranger) = (with_every_event(), Desk::new());
    let key = SigningKey::make(stranger.folder.path()).unwrap();
    let head = desk.verified().unwrap().head;
    let mut text = String::from_utf8(desk.octets()).unwrap();
    line::seal(&mut text, Some(&head), &line::body(at(1), &every_event()[5]).unwrap(), &key);
    assert_eq!(broken(verify(text.as_bytes(), desk.key(), None)), Broken { line: 16, fault: Fault::Signature });
    assert_eq!(broken(verify(text.as_bytes(), key.public(), None)).line, 1);
    // Rewritten from some line on with the right key: only a head that was kept elsewhere tells.
    let own = SigningKey::read(desk.folder.path()).unwrap().unwrap();
    let mut forged = String::new();
    let first = line::seal(&mut forged, None, &line::body(at(9), &every_event()[0]).unwrap(), &own);
    let forged = verify(forged.as_bytes(), desk.key(), Some(&head.hash)).unwrap();
    assert_eq!((forged.head, forged.known), (first, None));
}

#[test]
fn a_line_is_read_whole_or_refused() {
    let desk = with_every_event();
    let octets = desk.octets();
    let lines = octets.split(|octet| *octet == b'\n').filter(|line| !line.is_empty());
    for line in lines {
        for cut in 0..line.len() {
            assert!(Line::read(&line[..cut]).is_err(), "cut at {cut}");
        }
        let spaced = [&line[..1], b" ", &line[1..]].concat();
        assert!(matches!(Line::read(&spaced), Err(Fault::NotALine)));
    }
    assert!(matches!(Line::read(b"{\"n\":1}"), Err(Fault::NotALine)));
    assert!(matches!(Line::read(&vec![b' '; LINE_OCTETS_MAX + 1]), Err(Fault::TooLong)));
}

#[test]
fn a_line_without_end_is_broken_and_takes_no_memory() {
    let endless = std::io::BufReader::new(std::io::repeat(b'x'));
    let desk = with_every_event();
    let found = broken(verify(endless, desk.key(), None));
    assert_eq!(found, Broken { line: 1, fault: Fault::TooLong });
    assert_eq!(verify(&b""[..], desk.key(), None), Err(Refused::Empty));
    assert_eq!(broken(verify(&b"\n"[..], desk.key(), None)), Broken { line: 1, fault: Fault::NotJson });
}

// ---- Starts ----

#[test]
fn a_start_goes_on_behind_the_last_line() {
    let desk = Desk::new();
    for start in 1..=3 {
        let ledger = desk.open();
        until("started", || ledger.head().is_some_and(|head| head.number == 2 * start - 1));
        let ticket = ledger.record(at(1), every_event().remove(5));
        until("recorded", || ledger.has_recorded(ticket));
        assert_eq!(ledger.complaint(), None);
    }
    let verified = desk.verified().unwrap();
    assert_eq!(verified.head.number, 6);
    // A ledger that is gone is begun again, by the same key.
    fs::rename(desk.file(), desk.folder.path().join("away")).unwrap();
    let key = desk.key();
    drop(desk.open());
    assert_eq!((desk.verified().unwrap().head.number, desk.key()), (1, key));
}

/// What is logged, kept.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is logged as a ledger is opened and told of an event.
fn logged_at_a_start(desk: &Desk) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let ledger = tracing::subscriber::with_default(subscriber, || desk.open());
    let ticket = ledger.record(at(1), every_event().remove(5));
    until("recorded", || ledger.has_recorded(ticket));
    assert_eq!(ledger.complaint(), None);
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn a_ledger_that_is_missing_at_a_start_is_told_once() {
    let desk = Desk::new();
    assert_eq!(logged_at_a_start(&desk), "", "the first start of all");
    assert_eq!(logged_at_a_start(&desk), "", "one that goes on");
    let away = desk.folder.path().join("away");
    fs::rename(desk.file(), &away).unwrap();
    let told = logged_at_a_start(&desk);
    let file = desk.file();
    assert_eq!((told.lines().count(), told.contains(" WARN ")), (1, true), "{told}");
    assert!(told.contains(&format!("{}: is missing", file.display())) && told.contains("stop the service"), "{told}");
    assert_eq!(logged_at_a_start(&desk), "", "it is told once");
    fs::rename(&away, &file).unwrap();
    assert_eq!(logged_at_a_start(&desk), "", "put back");
    assert_eq!(desk.verified().unwrap().head.number, 6);
}

#[test]
fn a_key_is_never_there_before_its_ledger() {
    let desk = Desk::new();
    // A link to where nothing can be made yet.
    let elsewhere = desk.folder.path().join("elsewhere");
    symlink(elsewhere.join(LEDGER_FILE), desk.file()).unwrap();
    let ledger = desk.open();
    assert!(ledger.complaint().is_some() && !desk.folder.path().join(KEY_FILE).exists());
    fs::create_dir(&elsewhere).unwrap();
    let ticket = ledger.record(at(1), every_event().remove(5));
    until("recorded", || ledger.has_recorded(ticket) && ledger.complaint().is_none());
}

#[test]
fn what_waits_is_written_when_it_is_closed() {
    let desk = Desk::new();
    let ledger = desk.open();
    for second in 0..500 {
        ledger.record(at(second), every_event().remove(5));
    }
    assert_eq!(ledger.close(PATIENCE), 0);
    assert_eq!(desk.verified().unwrap().head, ledger.head().unwrap());
    assert_eq!(ledger.head().unwrap().number, 501);
    let late = ledger.record(at(0), every_event().remove(5));
    assert!(!ledger.has_recorded(late) && ledger.complaint().is_some());
}

#[test]
fn a_torn_last_line_is_cut_off_and_noted() {
    let good = with_every_event();
    let (octets, key) = (good.octets(), fs::read(good.folder.path().join(KEY_FILE)).unwrap());
    let last = octets[..octets.len() - 1].iter().rposition(|octet| *octet == b'\n').unwrap() + 1;
    let zeros = [&octets[..last], &[0; 300], b"\n"].concat();
    let cuts = (last + 1..octets.len()).step_by(7).map(|cut| octets[..cut].to_vec());
    for torn in cuts.chain([zeros, octets[..3].to_vec()]) {
        let desk = Desk::new();
        fs::write(desk.file(), &torn).unwrap();
        fs::write(desk.folder.path().join(KEY_FILE), &key).unwrap();
        let ledger = desk.open();
        until("started", || ledger.complaint().is_none() && ledger.waiting() == 0);
        drop(ledger);
        let whole = if torn.len() > last { last } else { 0 };
        let events = desk.events();
        let Event::Node(Note::TailRepaired { octets, digest }) = events[events.len() - 2] else { panic!("{events:?}") };
        assert_eq!((octets, digest), ((torn.len() - whole) as u64, Digest::of(&torn[whole..])));
        assert!(desk.verified().is_ok());
    }
}

#[test]
fn a_tail_longer_than_a_line_is_cut_off_too() {
    let desk = with_every_event();
    let junk = vec![b'x'; LINE_OCTETS_MAX + 70_000];
    let before = desk.octets().len();
    OpenOptions::new().append(true).open(desk.file()).unwrap().write_all(&junk).unwrap();
    drop(desk.open());
    let events = desk.events();
    let repaired = Note::TailRepaired { octets: junk.len() as u64, digest: Digest::of(&junk) };
    assert_eq!(events[15], Event::Node(repaired));
    assert!(desk.verified().is_ok() && desk.octets().len() < before + 2_000);
}

#[test]
fn a_last_line_that_does_not_hold_is_kept_and_complained_of() {
    let desk = with_every_event();
    let mut octets = desk.octets();
    let last = octets.len();
    // A digit of its event.
    let place = octets[..last].windows(9).rposition(|window| window == b"\"started\"").unwrap() + 3;
    octets[place] ^= 1;
    fs::write(desk.file(), &octets).unwrap();
    let ledger = desk.open();
    until("started", || ledger.head().is_some_and(|head| head.number == 16));
    assert!(ledger.complaint().unwrap().contains("line 15 does not hold"), "{:?}", ledger.complaint());
    drop(ledger);
    assert_eq!(broken(desk.verified()), Broken { line: 15, fault: Fault::Signature });
    assert!(desk.octets().starts_with(&octets));
    // What follows it continues it: nothing is hidden behind it.
    let kept = desk.octets();
    let line = Line::read(&kept[octets.len()..kept.len() - 1]).unwrap();
    let before = octets[..octets.len() - 1].iter().rposition(|octet| *octet == b'\n').unwrap() + 1;
    let hash = Digest::of(&octets[before..octets.len() - 1]);
    assert_eq!(line.follows(Some(&Head { number: 15, hash }), &desk.key()), Ok(()));
}

#[test]
fn a_ledger_without_its_key_is_not_continued_by_another() {
    let desk = with_every_event();
    let (before, key) = (desk.octets(), desk.folder.path().join(KEY_FILE));
    let away = desk.folder.path().join("away");
    fs::rename(&key, &away).unwrap();
    let ledger = desk.open();
    let ticket = ledger.record(at(1), every_event().remove(5));
    assert!(ledger.complaint().unwrap().contains("ledger.key: is gone; put it back"));
    fs::write(&key, "rubbish").unwrap();
    until("not a key", || ledger.complaint().is_some_and(|what| what.contains("not an Ed25519 key")));
    assert!(desk.octets() == before && !ledger.has_recorded(ticket));
    fs::rename(&away, &key).unwrap();
    until("recorded", || ledger.has_recorded(ticket) && ledger.complaint().is_none());
    assert_eq!(desk.verified().unwrap().head.number, 17);
}

// ---- The disk ----

#[test]
fn a_lost_file_is_complained_of_and_written_when_it_returns() {
    let desk = with_every_event();
    let ledger = desk.open();
    until("started", || ledger.head().is_some_and(|head| head.number == 16));
    let away = desk.folder.path().join("away");
    let (good, number) = (desk.octets(), || ledger.head().unwrap().number);
    let put_back: [&dyn Fn(); 4] = [
        &|| fs::rename(&away, desk.file()).unwrap(),
        // A copy is as good: the same octets.
        &|| fs::copy(&away, desk.file()).map(drop).unwrap(),
        &|| fs::rename(&away, desk.file()).unwrap(),
        &|| fs::rename(&away, desk.file()).unwrap(),
    ];
    let lose: [(&str, &dyn Fn()); 4] = [
        ("is gone", &|| fs::rename(desk.file(), &away).unwrap()),
        ("is gone", &|| fs::rename(desk.file(), &away).unwrap()),
        ("cut short", &|| {
            fs::copy(desk.file(), &away).unwrap();
            OpenOptions::new().write(true).open(desk.file()).unwrap().set_len(good.len() as u64 - 1).unwrap();
        }),
        ("written to", &|| {
            fs::copy(desk.file(), &away).unwrap();
            OpenOptions::new().append(true).open(desk.file()).unwrap().write_all(b"{}\n").unwrap();
        }),
    ];
    for ((what, lose), put_back) in lose.into_iter().zip(put_back) {
        let before = number();
        lose();
        until(what, || ledger.complaint().is_some_and(|complaint| complaint.contains(what)));
        let tickets = [1, 2, 3].map(|second| ledger.record(at(second), every_event().remove(5)));
        thread::sleep(Duration::from_millis(30));
        assert!((ledger.waiting(), number()) == (3, before) && !ledger.has_recorded(tickets[0]));
        put_back();
        until("back", || ledger.has_recorded(tickets[2]) && ledger.complaint().is_none());
        assert_eq!(number(), before + 3);
        assert_eq!(desk.verified().unwrap().head, ledger.head().unwrap());
    }
}

#[test]
fn another_file_in_its_place_is_not_written_to() {
    let desk = with_every_event();
    let ledger = desk.open();
    until("started", || ledger.head().is_some_and(|head| head.number == 16));
    let mut other = desk.octets();
    let length = other.len();
    other[length - 10] ^= 1;
    fs::rename(desk.file(), desk.folder.path().join("away")).unwrap();
    fs::write(desk.file(), &other).unwrap();
    let ticket = ledger.record(at(1), every_event().remove(5));
    until("seen", || ledger.complaint().is_some_and(|complaint| complaint.contains("replaced by another")));
    assert!(!ledger.has_recorded(ticket) && desk.octets() == other);
}

#[test]
fn a_full_disk_is_complained_of_and_what_waits_is_written_later() {
    let desk = Desk::new();
    symlink("/dev/full", desk.file()).unwrap();
    let ledger = desk.open();
    until("full", || ledger.complaint().is_some_and(|complaint| complaint.contains("No space left")));
    let tickets: Vec<_> = (0..100).map(|second| ledger.record(at(second), every_event().remove(5))).collect();
    assert_eq!((ledger.waiting(), ledger.head()), (100, None));
    fs::remove_file(desk.file()).unwrap();
    until("written", || ledger.has_recorded(tickets[99]) && ledger.complaint().is_none());
    assert_eq!(desk.verified().unwrap().head.number, 101);
}

#[test]
fn past_the_bound_events_are_dropped_and_a_line_says_how_many() {
    let desk = Desk::new();
    fs::create_dir(desk.file()).unwrap();
    let ledger = desk.open();
    for second in 0..WAITING_MAX as i64 {
        ledger.record(at(second), every_event().remove(5));
    }
    let dropped = [1, 2, 3].map(|second| ledger.record(at(second), every_event().remove(5)));
    assert_eq!(ledger.waiting(), WAITING_MAX);
    assert!(ledger.complaint().unwrap().contains("events are lost"));
    fs::remove_dir(desk.file()).unwrap();
    until("written", || ledger.waiting() == 0 && ledger.complaint().is_none());
    assert!(dropped.iter().all(|ticket| !ledger.has_recorded(*ticket)));
    let later = ledger.record(at(4), every_event().remove(5));
    until("recorded", || ledger.has_recorded(later));
    let events = desk.events();
    assert_eq!(events[WAITING_MAX + 1..], [Event::Node(Note::EventsLost { events: 3 }), every_event().remove(5)]);
    assert!(desk.verified().is_ok());
}

#[test]
fn memory_and_lines_have_a_bound_in_octets() {
    let desk = Desk::new();
    fs::create_dir(desk.file()).unwrap();
    let ledger = desk.open();
    let of = |octets: usize| {
        let order = "x".repeat(octets);
        Event::Order(Happening::OrderLifted { order })
    };
    let too_long = ledger.record(at(0), of(LINE_OCTETS_MAX));
    assert!(!ledger.has_recorded(too_long) && ledger.waiting() == 0);
    for second in 0..40 {
        ledger.record(at(second), of(LINE_OCTETS_MAX / 2));
    }
    assert!(ledger.waiting() < 33, "{} times half a MiB", ledger.waiting());
    assert!(ledger.complaint().unwrap().contains("events are lost"));
    fs::remove_dir(desk.file()).unwrap();
    until("written", || ledger.waiting() == 0 && ledger.complaint().is_none());
    assert!(desk.verified().is_ok());
}

#[test]
fn events_of_many_threads_keep_the_order_of_their_tickets() {
    let desk = Desk::new();
    let ledger = desk.open();
    let mut handed: Vec<_> = thread::scope(|scope| {
        let record = |thread: i64| {
            let ledger = &ledger;
            move || {
                let each = (0..200).map(|count| {
                    (ledger.record(at(thread * 1_000 + count), every_event().remove(5)), thread * 1_000 + count)
                });
                each.collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..8).map(|thread| scope.spawn(record(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    handed.sort();
    assert_eq!(ledger.close(PATIENCE), 0);
    let octets = desk.octets();
    let lines = octets.split(|octet| *octet == b'\n').filter_map(|line| Line::read(line).ok());
    let times: Vec<_> = lines.skip(1).map(|line| line.at).collect();
    assert_eq!(times, handed.iter().map(|(_, second)| at(*second)).collect::<Vec<_>>());
    assert_eq!(desk.verified().unwrap().head.number, 1_601);
}

// ---- The report ----

/// A ledger as a court would see it: an order with hostile words, an amendment, probes, counts, a lift.
fn a_case() -> (Desk, PublicKey) {
    use crate::policy::order::Target;
    let desk = Desk::new();
    let ledger = desk.open();
    let (day, order) = (86_400, || "it-1".to_owned());
    let key = |target: &str| {
        let mut key = Digest::of(target.as_bytes()).to_string();
        key.truncate(16);
        key
    };
    let target = Target::default();
    assert_eq!(target.key(), key(&target.shown().join("\n")), "as the report reads keys");
    let loaded = Facts { issuer: HOSTILE.to_owned(), due: Some(at(30 * day)), ..facts("it-1") };
    let targets = vec!["subtree a.example".to_owned(), "any-tld <script>".to_owned(), "exact b.example".to_owned()];
    let amended = Facts { targets, targets_total: 3, digest: Digest::of(b"amended"), ..loaded.clone() };
    let activated = |targets: Vec<String>, generation| Happening::OrderActivated {
        order: order(),
        generation,
        received: at(-1_000),
        due: Some(at(30 * day)),
        targets,
    };
    let record = |second, event| {
        ledger.record(at(second), event);
    };
    record(10, Event::Order(Happening::OrderLoaded(loaded)));
    record(
        11,
        Event::Order(Happening::OrderApproved {
            order: order(),
            digest: Digest::of(b"order"),
            by: vec!["anna".to_owned(), "bo".to_owned()],
        }),
    );
    record(12, Event::Order(activated(vec![key("subtree a.example")], 2)));
    let blocked = Probe {
        query: QUERY.to_owned(),
        answer: Some(BLOCKED.to_owned()),
        outcome: "right".to_owned(),
        note: None,
        ..probe("it-1")
    };
    record(13, Event::Node(Note::Probe(blocked.clone())));
    record(
        14,
        Event::Node(Note::Probe(Probe {
            inside: false,
            country: None,
            transport: "doh".to_owned(),
            outcome: "wrong".to_owned(),
            note: Some("blocked outside".to_owned()),
            ..blocked
        })),
    );
    record(15, Event::Node(Note::Probe(probe("it-1"))));
    record(16, Event::Node(Note::Probe(probe("other"))));
    for hour in 0..300 {
        let blocked = BTreeMap::from([("it-1".to_owned(), 10 * (hour as u64 % 24)), ("other".to_owned(), 70)]);
        let blocked = blocked.into_iter().filter(|(_, count)| *count > 0).collect();
        record(
            (hour + 1) * 3_600,
            Event::Node(Note::Counts { from: at(hour * 3_600), until: at((hour + 1) * 3_600), blocked }),
        );
    }
    record(20 * day, Event::Order(Happening::OrderAmended(amended)));
    record(20 * day + 1, Event::Order(activated(vec![key("any-tld <script>\nexact b.example")], 3)));
    record(40 * day, Event::Order(Happening::OrderLifted { order: order() }));
    drop(ledger);
    let key = desk.key();
    (desk, key)
}

const HOSTILE: &str = "Tribunale <script>alert(1)</script> \" onload=x ' & \u{202e}di Milano\u{7}";

/// `www.a.example A`, and NXDOMAIN with EDE 16 `order it-1`.
const QUERY: &str = "000101000001000000000001037777770161076578616d706c650000010001000029100000000000000000";
const BLOCKED: &str = concat!(
    "000181830001000000000001037777770161076578616d706c650000010001",
    "00002904d00000000000100",
    "00f000c00106f726465722069742d31"
);

#[test]
fn a_report_says_all_that_the_ledger_says_of_its_order() {
    let (desk, key) = a_case();
    let case = report::Case::gather(&desk.octets()[..], key, "it-1", at(50 * 86_400));
    assert_eq!((case.versions.len(), case.events.len(), case.probes.len(), case.hours.len()), (2, 6, 3, 300));
    let clock = &case.clock;
    assert_eq!((clock.effective, clock.margin_seconds), (Some(at(12)), Some(30 * 86_400 - 12)));
    assert!(clock.in_words.contains("That is in time: 29 days 23 hours before the deadline"), "{}", clock.in_words);
    assert!(clock.in_words.contains(" Of the targets 2 began later than that: see the table"), "{}", clock.in_words);
    assert!(clock.in_words.ends_with("It was lifted on 2026-12-28 11:06:40 UTC."), "{}", clock.in_words);
    assert_eq!(case.outcomes(), [1, 1, 1]);
    let targets: Vec<_> = case.targets.iter().map(|case| (case.target.as_str(), case.effective)).collect();
    let second = Some(at(20 * 86_400 + 1));
    assert_eq!(
        targets,
        [("subtree a.example", Some(at(12))), ("any-tld <script>", second), ("exact b.example", second)]
    );
    assert_eq!(case.versions[1].added, ["any-tld <script>", "exact b.example"]);
    assert_eq!(case.probes[0].question, "www.a.example A");
    assert_eq!(case.probes[0].answered, "NXDOMAIN, no answer record; extended error 16: order it-1");
    assert_eq!((case.probes[2].answered.as_str(), case.hours[0].blocked), ("no answer came", None));
    assert_eq!((case.ledger.lines, case.ledger.head), (311, Some(desk.verified().unwrap().head.hash)));
    let json = serde_json::to_value(&case).unwrap();
    assert_eq!(
        (&json["clock"]["margin-seconds"], &json["probes"][0]["probe"]["outcome"]),
        (&2_591_988.into(), &"right".into())
    );
    assert!(!report::Case::gather(&desk.octets()[..], key, "it-2", at(0)).is_known());
}

#[test]
fn what_is_late_or_never_is_said() {
    let desk = Desk::new();
    let ledger = desk.open();
    ledger.record(at(0), Event::Order(Happening::OrderLoaded(Facts { due: Some(at(60)), ..facts("it-1") })));
    ledger.close(PATIENCE);
    let words = |now| report::Case::gather(&desk.octets()[..], desk.key(), "it-1", at(now)).clock.in_words;
    assert!(
        words(59).ends_with("ever carried the order out. Its deadline is 2026-11-18 11:07:40 UTC."),
        "{}",
        words(59)
    );
    assert!(words(3_720).contains("had passed 1 hour 1 minute before this report"), "{}", words(3_720));
    let ledger = desk.open();
    let late = Happening::OrderActivated {
        order: "it-1".to_owned(),
        generation: 2,
        received: at(-60),
        due: Some(at(60)),
        targets: Vec::new(),
    };
    ledger.record(at(61), Event::Order(late));
    ledger.close(PATIENCE);
    let found = words(100);
    assert!(
        found.contains(", 2 minutes 1 second after it was received. That is late: 1 second after the deadline"),
        "{found}"
    );
}

#[test]
fn a_page_stands_alone_and_nothing_hostile_acts_in_it() {
    let (desk, key) = a_case();
    let mut case = report::Case::gather(&desk.octets()[..], key, "it-1", at(50 * 86_400));
    case.ledger.file = HOSTILE.to_owned();
    let page = page::page(&case);
    if let Some(file) = std::env::var_os("BAILIWICK_REPORT_TO") {
        fs::write(file, &page).unwrap();
    }
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("default-src 'none'; style-src 'sha256-"));
    for bad in [
        "<script",
        "onload=x\"",
        "\u{202e}",
        "\u{7}",
        "http:",
        "https:",
        "url(",
        "@import",
        " src=",
        " href=",
        "style=\"",
    ] {
        assert!(!page.contains(bad), "{bad} is in the page");
    }
    for good in [
        "Tribunale &lt;script&gt;alert(1)&lt;/script&gt; &quot;",
        "any-tld &lt;script&gt;",
        QUERY,
        BLOCKED,
        "www.a.example A",
        "bailiwick ledger verify",
        "“list” the names in a file",
    ] {
        assert!(page.contains(good), "{good} is not in the page");
    }
    assert!(!page.contains("more than a page can show"));
    let (open, closed) = (page.matches("<tr").count(), page.matches("</tr>").count());
    assert!(open == closed && page.matches("<table").count() == page.matches("</table>").count());
}

#[test]
fn a_break_in_carrying_out_is_said() {
    let desk = Desk::new();
    let ledger = desk.open();
    let activated = || Happening::OrderActivated {
        order: "it-1".to_owned(),
        generation: 2,
        received: at(60),
        due: None,
        targets: Vec::new(),
    };
    let loaded = Happening::OrderLoaded(facts("it-1"));
    let suspended = Happening::OrderSuspended { order: "it-1".to_owned() };
    for (second, happening) in [(0, loaded), (1, activated()), (2, suspended), (3, activated())] {
        ledger.record(at(second), Event::Order(happening));
    }
    ledger.close(PATIENCE);
    let words = report::Case::gather(&desk.octets()[..], desk.key(), "it-1", at(9)).clock.in_words;
    for said in ["59 seconds before the date on which it was received", "It was not carried out all the time since"] {
        assert!(words.contains(said), "{words}");
    }
    assert!(words.contains(" Of the targets 1 began at no time that the ledger tells"), "{words}");
}

#[test]
fn a_page_of_very_many_probes_counts_all_and_shows_what_is_wrong() {
    let (desk, key) = a_case();
    let mut case = report::Case::gather(&desk.octets()[..], key, "it-1", at(50 * 86_400));
    let (right, wrong) = (case.probes[0].clone(), case.probes[1].clone());
    case.probes = (0..20_000).map(|line| report_probe(if line == 9_000 { &wrong } else { &right }, line)).collect();
    let page = page::page(&case);
    assert!(page.contains("20000 probes: 19999 answered as the order demands") && page.contains(">1 wrongly<"));
    assert_eq!(page.matches("<tr class=\"has-octets\">").count(), 501);
    assert!(page.contains("blocked outside") && page.len() < 1_000_000, "{}", page.len());
    for day in ["2026-11-18", "2026-11-19"] {
        assert!(page.contains(&format!("<td>{day}</td>")), "{day}");
    }
}

fn report_probe(like: &probed::ProbeCase, line: u64) -> probed::ProbeCase {
    probed::ProbeCase { line, at: at(line as i64 * 5), ..like.clone() }
}

#[test]
fn a_broken_ledger_is_said_at_the_top_of_the_page() {
    let (desk, key) = a_case();
    let mut octets = desk.octets();
    let place = octets.windows(12).position(|window| window == b"order-lifted").unwrap();
    octets[place] ^= 1;
    let case = report::Case::gather(&octets[..], key, "it-1", at(50 * 86_400));
    assert_eq!(case.ledger.broken.as_deref(), Some("line 311: signature: not one by this key over these octets"));
    assert_eq!((case.ledger.lines, case.events.len()), (310, 5));
    let page = page::page(&case);
    assert!(page.find("This ledger is broken at ").unwrap() < page.find("<h1>").unwrap());
}
