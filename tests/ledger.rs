//! The ledger as its operator and a court's expert meet it: kept by the real server, checked by the real command.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bailiwick::digest::Digest;
use bailiwick::dns::Qtype;
use serde_json::Value;
use support::{PATIENCE, Play, Server, Upstream, query};

const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;

const POLICY: &str = "policy.orders = '{folder}/orders'\n";

fn order(name: &str) -> String {
    format!(
        "id = 'it-1'\nissuer = 'Tribunale di Esempio'\njurisdiction = ['*']\nreceived = 2026-01-01T09:00:00+01:00\n\
         state = 'in-force'\n[[target]]\nsubtree = ['{name}']\n"
    )
}

fn upstream() -> Upstream {
    Upstream::start(|asked| Play::Respond(asked.response(0, &[asked.a(300, Ipv4Addr::new(192, 0, 2, 1))])))
}

/// The lines of a first start, those of probes apart: it has started, a generation is in force, the order is loaded and carried out.
const STARTED: usize = 4;

/// The lines of an order that is about another name, those of probes apart: a generation, the order amended, its new target carried out.
const AMENDED: usize = 3;

fn start(upstream: &Upstream, wrapper: &[&str]) -> Server {
    Server::start_with(&[("orders/it.toml", &order("listed.example"))], wrapper, &upstream.config(POLICY))
}

fn rcode(server: &Server, name: &str) -> u16 {
    let mut dot = server.dot();
    dot.ask(&[query(1, name, Qtype::A)]);
    dot.receive().rcode
}

fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < patience, "{what}: not in time");
        sleep(Duration::from_millis(20));
    }
}

/// What `/health` says of the ledger; empty where nothing.
fn complaint(server: &Server) -> String {
    let response = server.get("/health").unwrap();
    let health: Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
    let reasons = health["reasons"].as_array().unwrap();
    let found = reasons.iter().find(|reason| reason["component"] == "ledger");
    found.map_or(String::new(), |reason| reason["reason"].as_str().unwrap().to_owned())
}

/// A number of `/metrics`; None: it is not there.
fn metric(server: &Server, name: &str) -> Option<u64> {
    let page = server.get("/metrics").unwrap();
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The head's hash as `/metrics` has it.
fn head(server: &Server) -> String {
    let page = server.get("/metrics").unwrap();
    let line = page.lines().find(|line| line.starts_with("bailiwick_ledger_head_info{")).unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

fn ledger_of(server: &Server) -> PathBuf {
    server.folder().join("state/ledger.jsonl")
}

/// The ledger's lines, those that are whole.
fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines of a running server's ledger without those of probes, which come when they come.
fn told(server: &Server) -> Vec<Value> {
    let mut lines = lines(&ledger_of(server));
    lines.retain(|line| line["event"] != "probe");
    lines
}

/// Until there are so many of them, and the probes of this many names have come as well: over either protocol, since
/// the order is for everywhere.
fn until_told(server: &Server, count: usize, names: usize) {
    let has_come = || {
        let told = if ledger_of(server).exists() { told(server).len() } else { 0 };
        told == count && lines(&ledger_of(server)).len() == count + 2 * names
    };
    until("told", PATIENCE, has_come);
    let whole = Some((count + 2 * names) as u64);
    until("in the metrics", PATIENCE, || metric(server, "bailiwick_ledger_head") == whole);
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// `bailiwick ledger`, in a folder.
fn ledger(folder: &Path, words: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .arg("ledger")
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|octets| String::from_utf8(octets).unwrap());
    assert!(!err.contains("panicked"), "{err}");
    Ran { code: output.status.code(), out, err }
}

fn asked(server: &Server, words: &[&str]) -> Ran {
    ledger(&server.folder(), &[words, &["--config", "bailiwick.toml"]].concat())
}

#[test]
fn what_a_server_does_is_in_its_ledger_and_the_ledger_can_be_checked() {
    let upstream = upstream();
    let mut server = start(&upstream, &[]);
    let digest = |name: &str| Digest::of(&fs::read(server.folder().join(name)).unwrap()).to_string();
    until_told(&server, STARTED, 1);
    let first_head = head(&server);
    let written = lines(&ledger_of(&server));
    assert_eq!((&written[0]["event"], &written[0]["n"]), (&"started".into(), &1.into()));
    let inputs = &written[1]["inputs"];
    assert_eq!((&written[1]["event"], &written[1]["generation"]), (&"generation".into(), &1.into()));
    assert_eq!((&inputs[0]["kind"], &inputs[0]["digest"]), (&"configuration".into(), &digest("bailiwick.toml").into()));
    assert_eq!((&inputs[1]["id"], &inputs[1]["digest"]), (&"it-1".into(), &digest("orders/it.toml").into()));
    server.write("orders/it.toml", &order("another.example"));
    until_told(&server, STARTED + AMENDED, 2);
    let written = told(&server);
    let events: Vec<_> = written[2..].iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["order-loaded", "order-activated", "generation", "order-amended", "order-activated"]);
    assert_eq!(written[4]["inputs"][1]["digest"], digest("orders/it.toml"));
    for _ in 0..23 {
        assert_eq!(rcode(&server, "another.example"), NXDOMAIN);
    }
    let key = asked(&server, &["key"]);
    assert_eq!((key.code, key.out.len()), (Some(0), 45), "{}", key.err);
    let verified = asked(&server, &["verify"]);
    assert_eq!((verified.code, verified.err.as_str()), (Some(0), ""));
    assert!(verified.out.contains("11 lines") && verified.out.contains(&head(&server)), "{}", verified.out);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let last = lines(&ledger_of(&server)).pop().unwrap();
    assert_eq!((&last["event"], &last["blocked"]["it-1"]), (&"counts".into(), &20.into()), "at the end too");
    let known = asked(&server, &["verify", "--head", &first_head]);
    assert!(known.code == Some(0) && known.out.contains("line 6 has the hash given; 6 more since"), "{}", known.out);
    // A line that is whole a moment later was being written.
    let text = fs::read_to_string(ledger_of(&server)).unwrap();
    fs::write(ledger_of(&server), &text[..text.len() - 9]).unwrap();
    let finished = std::thread::scope(|scope| {
        let verifying = scope.spawn(|| asked(&server, &["verify"]).code);
        sleep(Duration::from_millis(30));
        fs::write(ledger_of(&server), &text).unwrap();
        verifying.join().unwrap()
    });
    assert_eq!(finished, Some(0));
    let shown = asked(&server, &["show"]);
    assert!(shown.code == Some(0) && shown.out.lines().count() == 12, "{}", shown.out);
    assert!(shown.out.contains("policy generation 1 in force, made from configuration"), "{}", shown.out);
    assert_eq!(asked(&server, &["show", "--json"]).out, fs::read_to_string(ledger_of(&server)).unwrap());
}

/// A ledger of a few lines, and its key.
fn a_ledger() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    for _ in 0..3 {
        drop(bailiwick::ledger::Ledger::open(&state, "2026-11-22T00:00:00Z".parse().unwrap()).unwrap());
    }
    let key = bailiwick::ledger::public_key_of(&state).unwrap().unwrap().to_string();
    fs::rename(state.join("ledger.jsonl"), folder.path().join("copy.jsonl")).unwrap();
    (folder, key)
}

#[test]
fn a_ledger_is_checked_from_its_file_and_the_key_alone() {
    let (folder, key) = a_ledger();
    let run = |words: &[&str]| ledger(folder.path(), words);
    let good = run(&["verify", "copy.jsonl", "--key", &key]);
    assert_eq!((good.code, good.err.as_str()), (Some(0), ""));
    assert!(good.out.contains("3 lines"), "{}", good.out);
    let own = run(&["verify", "copy.jsonl"]);
    assert!(
        own.code == Some(0) && own.err.starts_with("warning: ") && own.err.contains("not who it is"),
        "{}",
        own.err
    );
    let (other, _) = a_ledger();
    let stranger = bailiwick::ledger::public_key_of(&other.path().join("state")).unwrap().unwrap().to_string();
    let refused = run(&["verify", "copy.jsonl", "--key", &stranger]);
    assert!(refused.code == Some(1) && refused.err.contains("line 1: signature"), "{}", refused.err);
    let text = fs::read_to_string(folder.path().join("copy.jsonl")).unwrap();
    let write = |text: &str| fs::write(folder.path().join("copy.jsonl"), text).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for (changed, what) in [
        (text.replacen("2026", "2025", 1), "line 1: signature"),
        (format!("{}\n{}\n", lines[0], lines[2]), "line 2: number"),
        (text[..text.len() - 1].to_owned(), "line 3: torn"),
        (format!("{text}{{}}\n"), "line 4: JSON, but not a line"),
        (format!("{text}\n"), "line 4: not JSON"),
        (String::new(), "no line in it"),
    ] {
        write(&changed);
        let found = run(&["verify", "copy.jsonl", "--key", &key]);
        assert!(found.code == Some(1) && found.err.contains(what) && found.out.is_empty(), "{what}: {}", found.err);
    }
    write(&format!("{}\n{}\n", lines[0], lines[1]));
    let head = Digest::of(lines[2].as_bytes()).to_string();
    assert_eq!(run(&["verify", "copy.jsonl", "--key", &key]).code, Some(0), "a cut is not seen");
    let cut = run(&["verify", "copy.jsonl", "--key", &key, "--head", &head]);
    assert!(cut.code == Some(1) && cut.err.contains("no line of 2 lines has the hash"), "{}", cut.err);
}

#[test]
fn a_report_is_one_page_or_one_object() {
    use bailiwick::ledger::{Event, Ledger};
    use bailiwick::policy::register::Happening;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.toml"), "").unwrap();
    let state = folder.path().join("state");
    fs::create_dir(&state).unwrap();
    let now = "2026-11-22T00:00:00Z".parse().unwrap();
    let open = Ledger::open(&state, now).unwrap();
    open.record(now, Event::Order(Happening::OrderLifted { order: "it-1".to_owned() }));
    drop(open);
    let report = |words: &[&str]| ledger(folder.path(), &[&["report", "--config", "a.toml"], words].concat());
    let page = report(&["it-1"]);
    assert_eq!((page.code, page.err.as_str()), (Some(0), ""));
    assert!(page.out.starts_with("<!DOCTYPE html>") && page.out.contains("order it-1 lifted"));
    let object: Value = serde_json::from_str(&report(&["it-1", "--json"]).out).unwrap();
    assert_eq!((&object["order"], &object["ledger"]["lines"]), (&"it-1".into(), &2.into()));
    assert!(object["ledger"]["key-from"].as_str().unwrap().ends_with("state/ledger.key"), "{object}");
    let none = report(&["it-2"]);
    assert!(none.code == Some(1) && none.err.contains("no line about an order it-2") && none.out.is_empty());
    let file = state.join("ledger.jsonl");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("order-lifted", "order-kifted")).unwrap();
    for words in [&["it-1"][..], &["it-1", "--json"], &["it-1", "--file", "state/ledger.jsonl"]] {
        let broken = report(words);
        assert!(broken.code == Some(1) && broken.err.contains("line 2: signature"), "{}", broken.err);
        assert!(broken.out.contains("line 2: signature"));
    }
}

#[test]
fn usage_is_2_and_what_is_not_there_is_1() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        &["verify", "--head", "abc"][..],
        &["verify", "--key", "abc"],
        &["verify", "a", "b"],
        &["show", "--bogus"],
        &["bogus"],
        &[],
    ] {
        assert_eq!(ledger(folder.path(), words).code, Some(2), "{words:?}");
    }
    for words in [&["verify", "none.jsonl"][..], &["verify"], &["show", "none.jsonl"], &["key"]] {
        let ran = ledger(folder.path(), words);
        assert!(ran.code == Some(1) && ran.err.contains("cannot be read"), "{words:?}: {}", ran.err);
    }
    fs::write(folder.path().join("a.toml"), "").unwrap();
    let none = ledger(folder.path(), &["key", "--config", "a.toml"]);
    assert!(none.code == Some(1) && none.err.contains("the first start of the server makes it"), "{}", none.err);
}

#[test]
fn a_lost_ledger_is_told_within_a_second_and_serving_goes_on() {
    let upstream = upstream();
    let server = start(&upstream, &[]);
    until_told(&server, STARTED, 1);
    let (file, away) = (ledger_of(&server), server.folder().join("away"));
    fs::rename(&file, &away).unwrap();
    // A busy machine may take longer than the second it is.
    until("told", Duration::from_secs(3), || complaint(&server).contains("ledger.jsonl: is gone; put it back"));
    server.write("orders/it.toml", &order("another.example"));
    until("in force", PATIENCE, || rcode(&server, "another.example") == NXDOMAIN);
    assert_eq!((rcode(&server, "listed.example"), file.exists()), (NOERROR, false));
    let waiting = Some((AMENDED + 2) as u64);
    until("waiting", PATIENCE, || metric(&server, "bailiwick_ledger_events_waiting") == waiting);
    fs::rename(&away, &file).unwrap();
    until_told(&server, STARTED + AMENDED, 2);
    until("in order again", PATIENCE, || complaint(&server).is_empty());
    assert_eq!(asked(&server, &["verify"]).code, Some(0));
}

/// A limit on the size of files stands for a disk that is full: it bites inside a line, too.
#[test]
fn a_full_disk_is_told_and_nothing_half_written_stays() {
    let upstream = upstream();
    let wrapper = ["sh", "-c", "trap '' XFSZ; ulimit -S -f 8; exec \"$0\" \"$@\""];
    let mut server = start(&upstream, &wrapper);
    let mut changes = 0;
    until("full", PATIENCE, || {
        changes += 1;
        server.write("orders/it.toml", &order(&format!("n{changes}.example")));
        until("in force", PATIENCE, || rcode(&server, &format!("n{changes}.example")) == NXDOMAIN);
        complaint(&server).contains("cannot be written: File too large")
    });
    let full = lines(&ledger_of(&server)).len();
    assert!(metric(&server, "bailiwick_ledger_events_waiting").unwrap() > 0);
    let pid = server.pid().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().unwrap().success());
    until("in order again", PATIENCE, || complaint(&server).is_empty());
    assert!(lines(&ledger_of(&server)).len() > full);
    let verified = asked(&server, &["verify"]);
    assert_eq!((verified.code, verified.err.as_str()), (Some(0), ""));
    // Each generation has its line, once.
    server.signal("TERM");
    server.wait();
    let mut generations = lines(&ledger_of(&server));
    generations.retain(|line| line["event"] == "generation");
    let generations: Vec<_> = generations.iter().filter_map(|line| line["generation"].as_u64()).collect();
    assert_eq!(generations, (1..=generations.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_server_that_is_killed_leaves_a_ledger_that_goes_on() {
    let upstream = upstream();
    let mut server = start(&upstream, &[]);
    until_told(&server, STARTED, 1);
    // A moment before, the register would have them handed in again.
    let register = || fs::read_to_string(server.folder().join("state/register.json")).unwrap_or_default();
    until("kept", PATIENCE, || register().contains("it-1") && !register().contains("unrecorded"));
    server.signal("KILL");
    server.wait();
    let whole = fs::read(ledger_of(&server)).unwrap();
    fs::write(ledger_of(&server), [&whole[..], b"{\"n\":5,\"at\":\"20"].concat()).unwrap();
    assert_eq!(asked(&server, &["verify"]).code, Some(1));
    assert!(server.relaunched());
    until_told(&server, STARTED + 3, 2);
    let events: Vec<_> = told(&server).iter().map(|line| line["event"].clone()).collect();
    let first = ["started", "generation", "order-loaded", "order-activated"];
    assert_eq!(events, [&first[..], &["tail-repaired", "started", "generation"]].concat());
    assert_eq!((asked(&server, &["verify"]).code, complaint(&server)), (Some(0), String::new()));
}

#[test]
fn without_a_ledger_none_is_kept() {
    let server = Server::start("state.ledger = false");
    assert!(!ledger_of(&server).exists() && complaint(&server).is_empty());
    assert_eq!(metric(&server, "bailiwick_ledger_events_waiting"), None);
    let ran = asked(&server, &["verify"]);
    assert!(ran.code == Some(1) && ran.err.contains("ledger.jsonl: cannot be read"), "{}", ran.err);
}
