//! Probes as they reach the ledger, health and the register: the real server asks itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use bailiwick::digest::Digest;
use bailiwick::dns::Qtype;
use hickory_proto::op::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use support::{Play, Server, Upstream, found, free_ports, query, until};

const NXDOMAIN: u16 = 3;

const POLICY: &str = r#"
    policy.orders = "{folder}/orders"
    origin.networks = [{ prefix = "127.0.0.2/32", country = "IT" }]
"#;

/// An order for Italy, with these targets.
fn order(id: &str, targets: &str) -> String {
    format!(
        "id = '{id}'\nissuer = 'Tribunale di Esempio'\njurisdiction = ['IT']\n\
         received = 2026-01-01T09:00:00+01:00\nstate = 'in-force'\n{targets}"
    )
}

const NAME: &str = "[[target]]\nsubtree = ['listed.example']\n";

fn upstream() -> Upstream {
    Upstream::start(|asked| match asked.qtype {
        Qtype::A => Play::Respond(asked.response(0, &[asked.a(300, Ipv4Addr::new(192, 0, 2, 1))])),
        _ => Play::Respond(asked.response(0, &[])),
    })
}

/// The probes of an order in the ledger.
fn probes(server: &Server, id: &str) -> Vec<Value> {
    let text = fs::read_to_string(server.folder().join("state/ledger.jsonl")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == "probe" && line["order"] == id).collect()
}

/// So many probes of an order, once they are there.
fn wait_for_probes(server: &Server, id: &str, count: usize) -> Vec<Value> {
    found("probes", || Some(probes(server, id)).filter(|probes| probes.len() >= count))
}

fn json(server: &Server, path: &str) -> Value {
    let response = server.get(path).unwrap();
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// What `/health` says of probes.
fn complaint(server: &Server) -> Option<String> {
    let health = json(server, "/health");
    let found = health["reasons"].as_array().unwrap().iter().find(|reason| reason["component"] == "probe");
    found.map(|reason| reason["reason"].as_str().unwrap().to_owned())
}

fn message(hex: &Value) -> Message {
    let digits = hex.as_str().unwrap();
    let octets: Vec<u8> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    Message::from_vec(&octets).unwrap()
}

#[test]
fn an_order_in_force_is_asked_for_from_either_side_over_either_listener() {
    let upstream = upstream();
    let files = [("orders/it.toml", &*order("it-1", NAME))];
    let server = Server::start_with(&files, &[], &upstream.config(POLICY));
    let probes = wait_for_probes(&server, "it-1", 4);
    let kind = |probe: &Value| (probe["transport"].clone(), probe["inside"].clone(), probe["country"].clone());
    let mut kinds: Vec<_> = probes.iter().map(|probe| format!("{:?}", kind(probe))).collect();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), 4, "{probes:#?}");
    let certificate = CertificateDer::from_pem_file(server.folder().join("certs/server.pem")).unwrap();
    for probe in &probes {
        assert_eq!(probe["outcome"], "right", "{probe:#}");
        assert_eq!(probe["certificate"], Digest::of(&certificate).to_string().as_str());
        let (asked, answer) = (message(&probe["query"]), message(&probe["answer"]));
        assert_eq!(asked.queries[0].to_string(), "listed.example. IN A");
        assert_eq!((answer.metadata.id, &answer.queries), (asked.metadata.id, &asked.queries));
        let blocked = probe["inside"] == true;
        assert_eq!(u16::from(answer.metadata.response_code), if blocked { NXDOMAIN } else { 0 });
        assert_eq!(probe["country"], if blocked { "IT" } else { "CH" });
    }
    assert_eq!(complaint(&server), None);
    assert_eq!(self::probes(&server, "it-1").len(), 4, "once each");
    let first_probed = || json(&server, "/orders")[0]["probed"].as_str().map(str::to_owned);
    found("the order's clock", first_probed);
    // A probe is nobody's query: it is in no count of clients.
    let metrics = server.get("/metrics").unwrap();
    for count in [
        "blocks_total{kind=\"order\",id=\"it-1\"}",
        "connections_total{transport=\"doh\"}",
        "queries_total{transport=\"dot\"}",
        "queries_total{transport=\"doh\"}",
        "cache_misses_total",
    ] {
        assert!(metrics.contains(&format!("bailiwick_{count} 0\n")), "{count}: {metrics}");
    }
    let mut italian = server.dot_from([127, 0, 0, 2]);
    italian.ask(&[query(1, "listed.example", Qtype::A)]);
    assert_eq!(italian.receive().rcode, NXDOMAIN);
    assert!(server.get("/metrics").unwrap().contains("bailiwick_answers_total{rcode=\"NXDOMAIN\"} 1\n"));
    assert!(server.get("/metrics").unwrap().contains("bailiwick_blocks_total{kind=\"order\",id=\"it-1\"} 1\n"));
}

#[test]
fn each_target_is_asked_for_once_it_is_in_force() {
    let upstream = upstream();
    let server = Server::start_with(&[("orders/none", "")], &[], &upstream.config(POLICY));
    let targets = "[[target]]\naddress = ['198.51.100.0/24', '2001:db8:bad::/48']\n\
                   [[target]]\nany-tld = ['label']\n\
                   [[target]]\nlist = { file = '{folder}/lists/names.txt', format = 'domains', covers = 'exact' }\n\
                   [[target]]\nsubtree = ['later.example']\neffective = 2100-01-01T00:00:00Z\n";
    let targets = targets.replace("{folder}", server.folder().to_str().unwrap());
    server.write("lists/names.txt", "listed.example\n");
    server.write("orders/it.toml", &order("it-2", &targets));
    let probes = wait_for_probes(&server, "it-2", 16);
    let mut asked: Vec<_> = probes.iter().map(|probe| message(&probe["query"]).queries[0].to_string()).collect();
    asked.sort();
    asked.dedup();
    let made_up = asked.iter().filter(|question| question.contains(".probe.example. IN A")).count();
    assert!(asked.contains(&"label.com. IN A".to_owned()) && asked.contains(&"listed.example. IN A".to_owned()));
    assert!(made_up >= 2 && !asked.iter().any(|question| question.contains("later")), "{asked:?}");
    for probe in &probes {
        assert_eq!(probe["outcome"], "right", "{probe:#}");
    }
    // The name of a listed address is made up; what the client outside hears is that address.
    let outside = probes.iter().filter(|probe| probe["inside"] == false).map(|probe| message(&probe["answer"]));
    let answers: Vec<_> = outside.flat_map(|answer| answer.answers).map(|record| record.data.to_string()).collect();
    assert!(answers.contains(&"198.51.100.0".to_owned()) && answers.contains(&"2001:db8:bad::".to_owned()));
    assert_eq!(complaint(&server), None);
}

#[test]
fn a_wrong_answer_degrades_health_and_names_the_order_until_it_is_right() {
    let upstream = upstream();
    let [port] = free_ports();
    let config = upstream.config(&format!("listen.dot = ['0.0.0.0:{port}']\n{POLICY}"));
    let server = Server::start_with(&[("orders/it.toml", &order("it-1", NAME))], &[], &config);
    wait_for_probes(&server, "it-1", 4);
    assert_eq!(complaint(&server), None);
    // Somebody else takes the port on loopback, and carries nothing out.
    let stranger = Server::before(&upstream, "");
    let relay = Relay::start(port, stranger.dot_port);
    server.write("orders/other.toml", &order("it-3", "[[target]]\nsubtree = ['other.example']\n"));
    let told = found("a complaint", || complaint(&server));
    assert!(told.contains("order it-3, over dot: a client inside is not blocked"), "{told}");
    assert!(!told.contains("it-1"), "{told}");
    // The ledger is written beside: its lines may come after the complaint.
    let probes = wait_for_probes(&server, "it-3", 4);
    let wrong: Vec<_> = probes.iter().filter(|probe| probe["outcome"] == "wrong").collect();
    assert!(wrong.iter().all(|probe| probe["transport"] == "dot" && probe["inside"] == true) && !wrong.is_empty());
    let certificate = CertificateDer::from_pem_file(server.folder().join("certs/server.pem")).unwrap();
    assert_ne!(wrong[0]["certificate"], Digest::of(&certificate).to_string().as_str(), "it was not our listener");
    drop(relay);
    // Once it is lifted there is nothing to be wrong.
    server.remove("orders/other.toml");
    until("health", || complaint(&server).is_none());
}

/// Takes connections to a port of loopback, which another has for all addresses, to another port.
struct Relay {
    address: SocketAddr,
}

impl Relay {
    fn start(port: u16, to: u16) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        socket.bind(&address.into()).unwrap();
        socket.listen(16).unwrap();
        let listener = TcpListener::from(socket);
        thread::spawn(move || {
            for accepted in listener.incoming() {
                let (client, server) = (accepted.unwrap(), TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap());
                // The test's own word for the end.
                if client.peek(&mut [0; 3]).is_ok_and(|octets| octets == 3) && is_end(&client) {
                    return;
                }
                let (from, back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(from, server));
                thread::spawn(move || pass(back, client));
            }
        });
        Self { address }
    }
}

fn is_end(mut client: &TcpStream) -> bool {
    let mut first = [0; 3];
    client.peek(&mut first).is_ok() && &first == b"end" && client.read(&mut first).is_ok()
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    // Either may be gone.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = TcpStream::connect(self.address).and_then(|mut stream| stream.write_all(b"end"));
    }
}
