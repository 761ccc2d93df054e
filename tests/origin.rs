//! The database of countries, as its operator meets it: taken, replaced, broken, shown.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;
#[path = "support/mmdb.rs"]
mod mmdb;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use bailiwick::dns::Qtype;
use jiff::{Timestamp, ToSpan};
use serde_json::Value;
use support::{Dot, Play, Server, Upstream, query, until};
use tempfile::TempDir;

const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;

/// Who asks, and where the database has him.
const CLIENT: [u8; 4] = [127, 0, 0, 2];

const ORDER: &str = "id = 'x'\nissuer = 'Example Court'\njurisdiction = ['IT']\nreceived = 2026-01-01T00:00:00Z\n\
                     state = 'in-force'\n[[target]]\nsubtree = ['listed.example']\n";

const POLICY: &str = "policy.orders = \"{folder}/orders\"\norigin.database = \"{folder}/countries.mmdb\"";

/// A database that has the client in a country, built so many days ago.
fn database(country: &str, days: i64) -> Vec<u8> {
    let built = Timestamp::now().checked_sub((24 * days).hours()).unwrap().as_second() as u64;
    mmdb::countries(mmdb::Form { built, ..mmdb::Form::default() }, &format!("127.0.0.2/32 {country}"))
}

/// The day that so many days ago was, in UTC.
fn day(days: i64) -> String {
    Timestamp::now().checked_sub((24 * days).hours()).unwrap().to_string()[..10].to_owned()
}

/// As downloads do it: a new file in the old one's place.
fn put(folder: &Path, octets: &[u8]) {
    fs::write(folder.join("new"), octets).unwrap();
    fs::rename(folder.join("new"), folder.join("countries.mmdb")).unwrap();
}

fn upstream() -> Upstream {
    Upstream::start(|asked| Play::Respond(asked.response(0, &[asked.a(300, Ipv4Addr::new(192, 0, 2, 1))])))
}

/// Asks over a connection until the answer is this one.
fn until_answered(dot: &mut Dot, wanted: u16, what: &str) {
    until(what, || {
        dot.ask(&[query(1, "www.listed.example", Qtype::A)]);
        dot.receive().rcode == wanted
    });
}

fn health(server: &Server) -> String {
    server.get("/health").unwrap()
}

/// Exit status, standard output and standard error of a command.
fn run(folder: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bailiwick"));
    command.args(words).args(["--config", "bailiwick.toml"]).current_dir(folder).stdin(Stdio::null());
    let output = command.env_remove("RUST_LOG").output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|octets| String::from_utf8(octets).unwrap());
    (output.status.code(), out, err)
}

#[test]
fn a_database_is_taken_replaced_and_kept_where_a_new_one_is_broken() {
    let upstream = upstream();
    let mut server = Server::start_with(&[("orders/x.toml", ORDER)], &[], &upstream.config("policy.orders = ''"));
    let mut dot = server.dot_from(CLIENT);
    put(&server.folder(), &database("IT", 10));
    server.configure(&upstream.config(POLICY));
    until_answered(&mut dot, NXDOMAIN, "a database");
    put(&server.folder(), &database("DE", 9));
    until_answered(&mut dot, NOERROR, "another in its place, on the same connection");
    put(&server.folder(), &database("IT", 8));
    until_answered(&mut dot, NXDOMAIN, "a third");
    put(&server.folder(), &database("DE", 7)[1..]);
    until("degraded", || health(&server).contains("countries.mmdb: is not a sound MaxMind DB file ("));
    assert!(health(&server).contains("; get it again; the database stays as it was"));
    until_answered(&mut dot, NXDOMAIN, "the old one stays");
    drop(dot);
    assert!(server.restart(), "by the last good copy");
    until_answered(&mut server.dot_from(CLIENT), NXDOMAIN, "the copy");
    assert!(health(&server).contains("; the database stays as it was"));
    put(&server.folder(), &database("DE", 6));
    until("in order again", || !health(&server).contains("countries.mmdb"));
    until_answered(&mut server.dot_from(CLIENT), NOERROR, "a good one again");
}

#[test]
fn its_build_date_shows_in_explain_metrics_check_and_log() {
    let upstream = upstream();
    let server = Server::start_with(&[("orders/x.toml", ORDER)], &[], &upstream.config("policy.orders = ''"));
    assert!(!server.get("/metrics").unwrap().contains("origin_database"));
    let octets = database("IT", 60);
    put(&server.folder(), &octets);
    server.configure(&upstream.config(POLICY));
    until_answered(&mut server.dot_from(CLIENT), NXDOMAIN, "a database");
    let (code, out, err) = run(&server.folder(), &["explain", "listed.example", "--client", "127.0.0.2", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let explained: Value = serde_json::from_str(&out).unwrap();
    let built = format!("database built {}", day(60));
    assert_eq!((&explained["country"], &explained["ground"]), (&"IT".into(), &built.as_str().into()));
    let metrics = server.get("/metrics").unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix("bailiwick_origin_database_build_seconds ")).unwrap();
    let age = Timestamp::now().as_second() - value.parse::<i64>().unwrap();
    assert!((60 * 86_400..60 * 86_400 + 600).contains(&age), "{age}");
    let warning = format!("countries.mmdb: the database in use was built {}, 60 days ago; get a newer one", day(60));
    assert!(server.log().contains(&warning), "{}", server.log());
    let (code, out, err) = run(&server.folder(), &["check"]);
    assert_eq!((code, out.contains(&format!(", {built}\n"))), (Some(0), true), "{out}{err}");
    assert!(err.contains(&warning), "{err}");
}

#[test]
fn check_and_a_first_start_refuse_a_database_that_cannot_be_used() {
    let folder = TempDir::new().unwrap();
    let config = "[listen]\ndoh = []\ndot = ['127.0.0.1:0']\nadmin = ''\n[upstream]\nresolvers = ['127.0.0.1:9']\n\
                  [origin]\ndatabase = 'countries.mmdb'\n";
    fs::write(folder.path().join("bailiwick.toml"), config).unwrap();
    let no_country = mmdb::countries(mmdb::Form::default(), "127.0.0.2/32 continent EU");
    for (octets, what) in [
        (None, "countries.mmdb: cannot be read: No such file or directory (os error 2); put a database there"),
        (Some(&b""[..]), "countries.mmdb: is not a sound MaxMind DB file (invalid database: could not find MaxMind DB"),
        (Some(&no_country), "countries.mmdb: has no country in any record, neither as country.iso_code nor as"),
    ] {
        if let Some(octets) = octets {
            put(folder.path(), octets);
        }
        for command in ["check", "serve"] {
            let (code, out, err) = run(folder.path(), &[command]);
            assert!(code == Some(1) && out.is_empty() && err.contains(what), "{command}: {code:?} {out} {err}");
        }
    }
}
