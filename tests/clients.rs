//! Real programs against the real binary: what people run resolves through Bailiwick, and blocks hold in it.
//!
//! A test says `skipped: …` where its client is not installed; with `BAILIWICK_CLIENTS=required` that fails.
//! 127.0.0.1 is Italian here, 127.0.0.2 German; an Italian order is about `blocked.example.net`.
#![allow(unreachable_pub, reason = "a test has no outside")]
#![allow(clippy::expect_used, clippy::print_stderr, reason = "a test fails by panicking, and says what it skips")]

#[path = "clients/chromium.rs"]
mod chromium;
#[path = "clients/firefox.rs"]
mod firefox;
#[path = "clients/process.rs"]
mod process;
mod support;
#[path = "clients/web.rs"]
mod web;
#[path = "clients/world.rs"]
mod world;

use std::process::Command;

use bailiwick::dns::Qtype;

use chromium::Chromium;
use firefox::{Firefox, Trr};
use process::{Process, Said, find, run, wait_for};
use support::http::encoded;
use support::{free_ports, query};
use web::{PAGE, Web};
use world::{BLOCKED, CLEAN, GERMAN, World};

/// What every client of the command line must see: the clean name, the blocked name, and the same from Germany.
struct Lookups<'w> {
    world: &'w World,
    program: std::path::PathBuf,
    arguments: Vec<String>,
}

impl Lookups<'_> {
    fn ask(&self, more: &[&str]) -> Said {
        run(self.world.folder(), Command::new(&self.program).args(&self.arguments).args(more))
    }

    fn check(&self) {
        self.ask(&[CLEAN, "A"]).must_say("NOERROR").must_say("127.0.0.1");
        self.ask(&[BLOCKED, "A"]).must_say("NXDOMAIN").must_say("it-test, Tribunale di Prova").must_say("EDE: 17");
        self.ask(&[BLOCKED, "HTTPS"]).must_say("NXDOMAIN");
        self.ask(&["-b", GERMAN, BLOCKED, "A"]).must_say("NOERROR").must_say("127.0.0.1");
    }
}

/// kdig with the CA and the host's name checked, and these options.
fn kdig<'w>(world: &'w World, port: u16, options: &[&str]) -> Option<Lookups<'w>> {
    let mut arguments = vec!["@127.0.0.1".into(), "-p".into(), port.to_string()];
    arguments.push(format!("+tls-ca={}", world.ca().display()));
    arguments.push("+tls-hostname=localhost".into());
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
    Some(Lookups { world, program: find("kdig")?, arguments })
}

#[test]
fn kdig_over_tls() {
    let Some(world) = World::start(true) else { return };
    let Some(kdig) = kdig(&world, world.dot, &["+tls", "+edns"]) else { return };
    kdig.check();
    let wrong_name = kdig.ask(&["+tls-hostname=elsewhere.example", CLEAN, "A"]);
    wrong_name.must_not_say("NOERROR");
}

#[test]
fn kdig_over_https() {
    let Some(world) = World::start(true) else { return };
    for method in ["+https", "+https-get"] {
        let options = [method, "+https=/dns-query", "+edns"];
        let Some(kdig) = kdig(&world, world.doh, &options) else { return };
        kdig.check();
    }
}

#[test]
fn kdig_with_padding() {
    let Some(world) = World::start(true) else { return };
    for (port, transport) in [(world.dot, "+tls"), (world.doh, "+https")] {
        let Some(kdig) = kdig(&world, port, &[transport, "+padding", "+edns"]) else { return };
        kdig.ask(&[CLEAN, "A"]).must_say("PADDING").must_say("Received 468 B");
        kdig.ask(&[BLOCKED, "A"]).must_say("PADDING").must_say("Received 468 B");
    }
}

#[test]
fn kdig_keeps_its_connection() {
    let Some(world) = World::start(true) else { return };
    let Some(kdig) = kdig(&world, world.dot, &["+tls", "+keepopen"]) else { return };
    let said = kdig.ask(&[CLEAN, "A", BLOCKED, "A", CLEAN, "AAAA", CLEAN, "A"]);
    assert_eq!(said.text.matches("Received ").count(), 4, "{}", said.text);
}

#[test]
fn dig_over_tls_and_https() {
    let Some(world) = World::start(true) else { return };
    let Some(program) = find("dig") else { return };
    for (port, transport) in [(world.dot, "+tls"), (world.doh, "+https"), (world.doh, "+https-get")] {
        let ca = format!("+tls-ca={}", world.ca().display());
        let arguments = ["@127.0.0.1", "-p", &port.to_string(), transport, &ca, "+tls-hostname=localhost"];
        let arguments = arguments.map(str::to_owned).to_vec();
        Lookups { world: &world, program: program.clone(), arguments }.check();
    }
}

#[test]
fn curl_with_a_doh_url() {
    let Some(world) = World::start(true) else { return };
    let Some(curl) = find("curl") else { return };
    let web = Web::start();
    let load = |name: &str| {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--doh-url", &world.url()]);
        command.arg("--cacert").arg(world.ca()).arg(format!("http://{name}:{}/", web.port));
        run(world.folder(), &mut command)
    };
    load(CLEAN).must_say(PAGE);
    load(BLOCKED).must_not_say(PAGE).must_say("resolve host");
}

#[test]
fn curl_sees_the_errors_of_http() {
    let Some(world) = World::start(true) else { return };
    let Some(curl) = find("curl") else { return };
    let status = |more: &[&str]| {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--output", "/dev/null", "--write-out", "status %{http_code} %{content_type}"]);
        command.arg("--cacert").arg(world.ca()).args(more);
        run(world.folder(), &mut command)
    };
    let url = world.url();
    for version in ["--http2", "--http1.1"] {
        let query = format!("{url}?dns={}", query_parameter(CLEAN));
        status(&[version, &query]).must_say("status 200 application/dns-message");
        status(&[version, "--head", &query]).must_say("status 200 application/dns-message");
        status(&[version, &url]).must_say("status 400");
        status(&[version, "--request", "DELETE", &url]).must_say("status 405");
        status(&[version, &url.replace("dns-query", "elsewhere")]).must_say("status 404");
        status(&[version, "--data-binary", "x", &url]).must_say("status 415");
    }
}

#[test]
fn dnsperf_over_tls() {
    let Some(world) = World::start(true) else { return };
    let Some(dnsperf) = find("dnsperf") else { return };
    let names = world.folder().join("names");
    std::fs::write(&names, format!("{CLEAN} A\n{BLOCKED} A\n{CLEAN} AAAA\n{BLOCKED} HTTPS\n")).expect("the names");
    let mut command = Command::new(dnsperf);
    command.args(["-m", "dot", "-s", "127.0.0.1", "-p", &world.dot.to_string()]);
    command.args(["-c", "4", "-T", "2", "-q", "40", "-n", "250", "-d"]).arg(&names);
    let said = run(world.folder(), &mut command);
    said.must_say("Queries completed:    1000 (100.00%)").must_say("NOERROR 500").must_say("NXDOMAIN 500");
}

#[test]
fn h2load_over_https() {
    let Some(world) = World::start(true) else { return };
    let Some(h2load) = find("h2load") else { return };
    let url = format!("{}?dns={}", world.url(), query_parameter(CLEAN));
    let said = run(world.folder(), Command::new(h2load).args(["-n", "1000", "-c", "4", "-m", "20", &url]));
    said.must_say("1000 succeeded, 0 failed").must_say("1000 2xx");
}

/// Stands in for Android's Private DNS in strict mode: DoT without ALPN, the name checked, connections kept.
#[test]
fn stubby_in_strict_mode() {
    let Some(world) = World::start(true) else { return };
    let (Some(stubby), Some(dig)) = (find("stubby"), find("dig")) else { return };
    let ask = |auth_name: &str, name: &str| {
        let [port] = free_ports();
        let file = world.folder().join(format!("stubby-{auth_name}.yml"));
        std::fs::write(&file, stubby_config(&world, port, auth_name)).expect("stubby's configuration");
        let log = world.folder().join("stubby.log");
        let _stubby = Process::start(Command::new(&stubby).arg("-C").arg(&file), &log);
        let arguments = ["@127.0.0.1", "-p", &port.to_string(), "+tries=1", "+time=5", name, "A"];
        let mut said = Said { success: false, text: String::new() };
        // A stub that has not begun yet refuses; then the answer counts, whatever it is.
        wait_for(process::RUN_TIMEOUT, || {
            said = run(world.folder(), Command::new(&dig).args(arguments));
            !said.text.contains("refused") || said.text.contains("status:")
        });
        said
    };
    ask("localhost", CLEAN).must_say("NOERROR").must_say("127.0.0.1");
    ask("localhost", BLOCKED).must_say("NXDOMAIN");
    ask("elsewhere.example", CLEAN).must_not_say("NOERROR");
}

fn stubby_config(world: &World, port: u16, auth_name: &str) -> String {
    format!(
        r#"resolution_type: GETDNS_RESOLUTION_STUB
dns_transport_list:
  - GETDNS_TRANSPORT_TLS
tls_authentication: GETDNS_AUTHENTICATION_REQUIRED
tls_query_padding_blocksize: 128
tls_ca_file: "{ca}"
idle_timeout: 10000
round_robin_upstreams: 0
listen_addresses:
  - 127.0.0.1@{port}
upstream_recursive_servers:
  - address_data: 127.0.0.1
    tls_port: {dot}
    tls_auth_name: "{auth_name}"
"#,
        ca = world.ca().display(),
        dot = world.dot
    )
}

#[test]
fn chromium_in_secure_mode() {
    let Some(world) = World::start(true) else { return };
    let web = Web::start();
    let Some(mut browser) = Chromium::start(&world.url(), &world.ca()) else { return };
    let clean = browser.load(&format!("http://{CLEAN}:{}/", web.port));
    assert!(clean.as_ref().is_ok_and(|text| text.contains(PAGE)), "the clean page: {clean:?}");
    let blocked = browser.load(&format!("http://{BLOCKED}:{}/", web.port));
    assert_eq!(blocked, Err("net::ERR_NAME_NOT_RESOLVED".into()), "the blocked page");
}

#[test]
fn firefox_in_mode_3() {
    let Some(world) = World::start(true) else { return };
    firefox_is_blocked(&world, Trr::Only);
}

/// The common mode: a block must keep Firefox from asking the system's resolver, which knows the name.
#[test]
fn firefox_in_mode_2() {
    let Some(world) = World::start(true) else { return };
    firefox_is_blocked(&world, Trr::First);
}

/// What the test above would look like without EDE 17, so that it is known to show something.
#[test]
fn firefox_in_mode_2_goes_round_a_block_without_hold_fallback() {
    let Some(world) = World::start(false) else { return };
    let web = Web::start();
    let Some(mut browser) = Firefox::start(Trr::First, &world.url(), &world.ca(), &[BLOCKED]) else { return };
    let blocked = browser.load(&format!("http://{BLOCKED}:{}/", web.port));
    assert!(blocked.as_ref().is_ok_and(|text| text.contains(PAGE)), "the system's resolver: {blocked:?}");
}

fn firefox_is_blocked(world: &World, mode: Trr) {
    let web = Web::start();
    let Some(mut browser) = Firefox::start(mode, &world.url(), &world.ca(), &[BLOCKED]) else { return };
    let clean = browser.load(&format!("http://{CLEAN}:{}/", web.port));
    assert!(clean.as_ref().is_ok_and(|text| text.contains(PAGE)), "the clean page: {clean:?}");
    let blocked = browser.load(&format!("http://{BLOCKED}:{}/", web.port));
    assert!(blocked.as_ref().is_err_and(|error| error.contains("dnsNotFound")), "the blocked page: {blocked:?}");
}

/// The `dns=` parameter that asks for a name's address, ID 0.
fn query_parameter(name: &str) -> String {
    encoded(&query(0, name, Qtype::A))
}
