//! Certificates good and bad, and handshakes with them in memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore,
    ServerConnection, SupportedProtocolVersion,
};
use tempfile::TempDir;

use super::*;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// A folder with `server.pem` and `server.key`.
struct Folder(TempDir);

impl Folder {
    fn empty() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn development() -> Self {
        let folder = Self::empty();
        make_development(&folder.settings(), &names(), now()).unwrap();
        folder
    }

    fn with(chain: &str, key: &str) -> Self {
        let folder = Self::empty();
        folder.write(chain, key);
        folder
    }

    fn write(&self, chain: &str, key: &str) {
        fs::write(self.settings().certificate, chain).unwrap();
        fs::write(self.settings().key, key).unwrap();
    }

    fn settings(&self) -> Settings {
        Settings { certificate: self.0.path().join("server.pem"), key: self.0.path().join("server.key") }
    }

    fn load(&self) -> Result<Arc<Certificates>, Error> {
        Certificates::load(&self.settings(), now())
    }

    /// The error without the folder's name.
    fn error(&self) -> String {
        self.load().unwrap_err().to_string().replace(&format!("{}/", self.0.path().display()), "")
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.path().join(file)).unwrap()
    }
}

fn names() -> Vec<String> {
    ["dns.example.net", "*.example.org", "127.0.0.1", "::1"].map(String::from).to_vec()
}

/// Certificates in a chain of three: ours, an intermediate, the root.
struct Chain {
    pem: [String; 3],
    key: String,
}

impl Chain {
    fn make(ours_until: i32) -> Self {
        let (root_params, root_key) = (ca("root"), KeyPair::generate().unwrap());
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let (between_params, between_key) = (ca("between"), KeyPair::generate().unwrap());
        let between = between_params.signed_by(&between_key, &root_issuer).unwrap();
        let between_issuer = Issuer::new(between_params, between_key);
        let key = KeyPair::generate().unwrap();
        let mut params = named("ours");
        params.not_after = rcgen::date_time_ymd(ours_until, 1, 1);
        let ours = params.signed_by(&key, &between_issuer).unwrap();
        Self { pem: [ours.pem(), between.pem(), root.pem()], key: key.serialize_pem() }
    }

    fn load(&self, order: &[usize]) -> Result<Arc<Certificates>, Error> {
        self.folder(order).load()
    }

    fn folder(&self, order: &[usize]) -> Folder {
        Folder::with(&order.iter().map(|at| self.pem[*at].as_str()).collect::<String>(), &self.key)
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["dns.example.net".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn ca(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

#[test]
fn a_development_certificate_is_good() {
    let folder = Folder::development();
    let certificates = folder.load().unwrap();
    assert_eq!(certificates.not_after().to_string(), "2027-12-24T12:00:00Z");
    assert!(!certificates.reload(now()).unwrap());
}

#[test]
fn keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::development();
    for file in ["server.key", "ca.key"] {
        assert_eq!(fs::metadata(folder.0.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn the_development_ca_is_kept_and_nothing_overwritten() {
    let folder = Folder::development();
    let (ca, chain) = (folder.read("ca.pem"), folder.read("server.pem"));
    let again = make_development(&folder.settings(), &names(), now()).unwrap_err();
    assert!(again.0.ends_with("server.pem: is there already; move it away first, nothing is overwritten"), "{again}");
    assert_eq!(folder.read("server.pem"), chain);

    fs::remove_file(folder.settings().certificate).unwrap();
    let again = make_development(&folder.settings(), &names(), now()).unwrap_err();
    assert!(again.0.contains("server.key: is there already"), "{again}");
    fs::remove_file(folder.settings().key).unwrap();
    assert_eq!(make_development(&folder.settings(), &names(), now()), Ok(folder.0.path().join("ca.pem")));
    assert_eq!(folder.read("ca.pem"), ca);
    assert_ne!(folder.read("server.pem"), chain);
    folder.load().unwrap();
}

#[test]
fn a_development_ca_that_cannot_issue_is_said_so() {
    for (ca, key, expected) in [
        (Some("x"), Some("x"), "cannot be used as a CA"),
        (Some("x"), None, "without its ca.key"),
        (None, Some("x"), "without its ca.pem"),
    ] {
        let folder = Folder::empty();
        for (file, text) in [("ca.pem", ca), ("ca.key", key)] {
            if let Some(text) = text {
                fs::write(folder.0.path().join(file), text).unwrap();
            }
        }
        let error = make_development(&folder.settings(), &names(), now()).unwrap_err();
        assert!(error.0.contains(expected), "{error}");
    }
    let folder = Folder::empty();
    let bad = make_development(&folder.settings(), &["no name".to_owned()], now()).unwrap_err();
    assert_eq!(bad.0, "no name: is neither a DNS name nor an address; give one that is");
    assert!(make_development(&folder.settings(), &[], now()).unwrap_err().0.contains("at least one name"));
}

#[test]
fn an_expired_development_ca_is_not_used() {
    let folder = Folder::development();
    fs::remove_file(folder.settings().certificate).unwrap();
    fs::remove_file(folder.settings().key).unwrap();
    let later = "2037-01-01T00:00:00Z".parse().unwrap();
    assert!(make_development(&folder.settings(), &names(), later).unwrap_err().0.contains("expired at 2036-11-19"));
}

#[test]
fn each_mistake_says_what_and_where_and_what_to_do() {
    let chain = Chain::make(2030);
    let (pem, key) = (chain.pem.concat(), chain.key.as_str());
    assert_eq!(
        Folder::empty().error(),
        "server.pem: cannot be read (No such file or directory (os error 2)); check [tls] certificate and who may read the file"
    );
    assert_eq!(
        Folder::with("", key).error(),
        "server.pem: has no certificate; it must hold the chain in PEM, ours first"
    );
    assert_eq!(
        Folder::with("-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n", key).error(),
        "server.pem: certificate 1 cannot be read; get the file from your CA again"
    );
    assert_eq!(Folder::with(&pem, "").error(), "server.key: has no private key; it must hold one in PEM");
    assert_eq!(
        Folder::with(&pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
            .error(),
        "server.key: has an encrypted private key; take the passphrase off (openssl pkey)"
    );
    let other = KeyPair::generate().unwrap().serialize_pem();
    let mismatched = Folder::with(&pem, &other).error();
    assert!(mismatched.starts_with("server.key: does not match the first certificate of "), "{mismatched}");
    assert!(mismatched.ends_with("; name the key it was made with, or put our own certificate first"), "{mismatched}");
}

#[test]
fn dates_are_checked() {
    assert_eq!(
        Chain::make(2025).folder(&[0, 1]).error(),
        "server.pem: certificate 1 (CN=ours) expired at 2025-01-01T00:00:00Z; renew it"
    );
    let early = Certificates::load(&Folder::development().settings(), "2026-01-01T00:00:00Z".parse().unwrap());
    let early = early.unwrap_err().0;
    assert!(
        early.contains("certificate 1 (O=Bailiwick, CN=Bailiwick development server) is not valid before"),
        "{early}"
    );
    assert!(early.ends_with("2026-11-22T11:00:00Z; check this machine's clock"), "{early}");
}

#[test]
fn the_chain_is_whole_and_in_order() {
    let chain = Chain::make(2030);
    for good in [&[0, 1, 2][..], &[0, 1]] {
        chain.load(good).unwrap();
    }
    assert_eq!(
        chain.folder(&[0]).error(),
        "server.pem: an intermediate certificate is missing: CN=between, which issued certificate 1, is not behind it; \
         append the chain your CA gave you"
    );
    assert!(chain.folder(&[0, 2]).error().contains("CN=between, which issued certificate 1"));
    assert_eq!(
        chain.folder(&[0, 2, 1]).error(),
        "server.pem: the order of the chain is wrong: certificate 3 issued certificate 1; put each issuer right behind what it issued"
    );
    let key = KeyPair::generate().unwrap();
    let alone = named("alone").self_signed(&key).unwrap();
    Folder::with(&alone.pem(), &key.serialize_pem()).load().unwrap();
}

#[test]
fn a_reload_swaps_or_keeps() {
    let folder = Folder::development();
    let certificates = folder.load().unwrap();
    let chain = Chain::make(2030);
    folder.write(&chain.pem[0], &chain.key);
    assert!(certificates.reload(now()).unwrap_err().0.contains("intermediate certificate is missing"));
    assert!(certificates.covers_address("127.0.0.1".parse().unwrap()), "the old one stays");
    folder.write(&chain.pem.concat(), &chain.key);
    assert_eq!(certificates.reload(now()), Ok(true));
    assert!(!certificates.covers_address("127.0.0.1".parse().unwrap()));
    assert_eq!(certificates.not_after().to_string(), "2030-01-01T00:00:00Z");
    assert_eq!(certificates.reload(now()), Ok(false));
}

#[test]
fn names_are_covered_by_the_rules_of_rfc_6125() {
    let certificates = Folder::development().load().unwrap();
    for covered in ["dns.example.net", "DNS.Example.Net.", "a.example.org", "A.EXAMPLE.ORG"] {
        assert!(certificates.covers_name(covered), "{covered}");
    }
    for other in ["example.net", "example.org", "a.b.example.org", ".example.org", "xdns.example.net", "", "127.0.0.1"]
    {
        assert!(!certificates.covers_name(other), "{other}");
    }
    for (address, covered) in [("127.0.0.1", true), ("::1", true), ("127.0.0.2", false), ("::2", false)] {
        assert_eq!(certificates.covers_address(address.parse().unwrap()), covered, "{address}");
    }
}

/// The clock of clients, stopped at [`now`].
#[derive(Debug)]
struct Stopped;

impl TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(now().as_duration().unsigned_abs()))
    }
}

/// A client that trusts the folder's CA and keeps sessions from one connection to the next.
fn client(folder: &Folder, version: &'static SupportedProtocolVersion, alpn: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(folder.read("ca.pem").as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_details(Arc::new(provider()), Arc::new(Stopped));
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A handshake to its end, and the tickets that follow it; octets pass one at a time if `drip`.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    drip: bool,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut octets = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut octets).unwrap();
        }
        for part in octets.chunks(if drip { 1 } else { octets.len().max(1) }) {
            server.read_tls(&mut &*part).unwrap();
            if let Err(error) = server.process_new_packets() {
                let mut alert = Vec::new();
                server.write_tls(&mut alert).unwrap();
                client.read_tls(&mut &*alert).unwrap();
                client.process_new_packets()?;
                return Err(error);
            }
        }
        let mut octets = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut octets).unwrap();
        }
        while !octets.is_empty() {
            let read = client.read_tls(&mut &*octets).unwrap();
            octets.drain(..read);
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

#[test]
fn sessions_resume_in_both_versions_and_after_a_swap() {
    for version in VERSIONS {
        let folder = Folder::development();
        let certificates = folder.load().unwrap();
        let server = server_config(&certificates, &[b"dot"]);
        let client = Arc::new(client(&folder, version, &[b"dot"]));
        let (_, first) = handshake(&client, &server, false).unwrap();
        assert_eq!(first.protocol_version(), Some(version.version));
        assert_eq!(first.alpn_protocol(), Some(&b"dot"[..]));
        assert_ne!(first.handshake_kind(), Some(HandshakeKind::Resumed));
        let (_, second) = handshake(&client, &server, false).unwrap();
        assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");

        fs::remove_file(folder.settings().certificate).unwrap();
        fs::remove_file(folder.settings().key).unwrap();
        make_development(&folder.settings(), &names(), now()).unwrap();
        assert_eq!(certificates.reload(now()), Ok(true));
        let (_, third) = handshake(&client, &server, false).unwrap();
        assert_eq!(third.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?} after a swap");
    }
}

/// Counts the TLS 1.3 tickets a client is given.
#[derive(Debug)]
struct Counting(Mutex<usize>, ClientSessionMemoryCache);

impl ClientSessionStore for Counting {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.1.set_kx_hint(name, group);
    }
    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.1.kx_hint(name)
    }
    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.1.set_tls12_session(name, value);
    }
    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.1.tls12_session(name)
    }
    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.1.remove_tls12_session(name);
    }
    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        *self.0.lock().unwrap() += 1;
        self.1.insert_tls13_ticket(name, value);
    }
    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.1.take_tls13_ticket(name)
    }
}

#[test]
fn two_tickets_are_sent_and_no_early_data_is_taken() {
    let folder = Folder::development();
    let server = server_config(&folder.load().unwrap(), &[]);
    let store = Arc::new(Counting(Mutex::new(0), ClientSessionMemoryCache::new(8)));
    let mut client = client(&folder, &rustls::version::TLS13, &[]);
    client.resumption = Resumption::store(Arc::clone(&store) as _);
    client.enable_early_data = true;
    let client = Arc::new(client);
    handshake(&client, &server, false).unwrap();
    assert_eq!(*store.0.lock().unwrap(), 2);
    let mut second = ClientConnection::new(client, ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    assert!(second.early_data().is_none());
}

#[test]
fn alpn_is_enforced_where_it_is_offered() {
    let folder = Folder::development();
    let server = server_config(&folder.load().unwrap(), &[b"h2", b"http/1.1"]);
    for version in VERSIONS {
        let other = Arc::new(client(&folder, version, &[b"dot"]));
        assert_eq!(
            handshake(&other, &server, false).err(),
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol))
        );
        let (_, none) = handshake(&Arc::new(client(&folder, version, &[])), &server, false).unwrap();
        assert_eq!(none.alpn_protocol(), None);
    }
}

#[test]
fn a_client_hello_in_fragments_and_drips_is_read() {
    let folder = Folder::development();
    let server = server_config(&folder.load().unwrap(), &[b"dot"]);
    for version in VERSIONS {
        let mut client = client(&folder, version, &[b"dot"]);
        client.max_fragment_size = Some(64);
        let (_, server) = handshake(&Arc::new(client), &server, true).unwrap();
        assert!(!server.is_handshaking());
        assert!(matches!(server.protocol_version(), Some(ProtocolVersion::TLSv1_2 | ProtocolVersion::TLSv1_3)));
    }
}

#[test]
fn a_wire_that_is_cut_anywhere_is_no_handshake() {
    let folder = Folder::development();
    let server = server_config(&folder.load().unwrap(), &[]);
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(Arc::new(client(&folder, &rustls::version::TLS13, &[])), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    for cut in 0..hello.len() {
        let mut server = ServerConnection::new(Arc::clone(&server)).unwrap();
        server.read_tls(&mut &hello[..cut]).unwrap();
        server.process_new_packets().unwrap();
        assert!(server.is_handshaking() && !server.wants_write(), "cut at {cut}");
        server.writer().flush().unwrap();
    }
}
