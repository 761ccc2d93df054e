//! Certificates: load, watch, swap; tickets; ALPN.

mod check;
mod development;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ahash::RandomState;
use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use check::Facts;
pub use development::make_development;

/// TLS 1.3 tickets sent after a full handshake: Android takes each once and keeps several, and one is too few for it.
const TICKETS_PER_HANDSHAKE: usize = 2;

/// `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The chain, PEM, our own certificate first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Why a certificate or key cannot be used. Its `Display` is one line: what, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl Error {
    /// `file: what; what to do`, as a [`crate::mistake::Mistake`] reads.
    fn of(file: &Path, what: impl fmt::Display) -> Self {
        Self(format!("{}: {what}", file.display()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The certificate in use, swapped whole when its files change.
#[derive(Debug)]
pub struct Certificates {
    settings: Settings,
    hasher: RandomState,
    current: ArcSwap<Loaded>,
}

impl Certificates {
    /// Loads and checks the chain and key.
    ///
    /// # Errors
    /// When a file cannot be read, key and certificate do not match, a date is past, or an intermediate is missing.
    pub fn load(settings: &Settings, now: Timestamp) -> Result<Arc<Self>, Error> {
        let hasher = RandomState::new();
        let loaded = Files::read(settings)?.load(settings, &hasher, now)?;
        Ok(Arc::new(Self { settings: settings.clone(), hasher, current: ArcSwap::from_pointee(loaded) }))
    }

    /// Loads the files again where their contents have changed; true: they had, and new connections get the new one.
    ///
    /// # Errors
    /// As [`Self::load`]; the old certificate stays.
    pub fn reload(&self, now: Timestamp) -> Result<bool, Error> {
        let files = Files::read(&self.settings)?;
        if files.digest(&self.hasher) == self.current.load().digest {
            return Ok(false);
        }
        self.current.store(Arc::new(files.load(&self.settings, &self.hasher, now)?));
        Ok(true)
    }

    /// When the first certificate of the chain to expire does.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.current.load().facts.not_after
    }

    /// Whether the certificate's subjectAltName has this DNS name (wildcards included).
    #[must_use]
    pub fn covers_name(&self, name: &str) -> bool {
        self.current.load().facts.names.iter().any(|presented| matches(presented, name))
    }

    /// Whether the certificate's subjectAltName has this address.
    #[must_use]
    pub fn covers_address(&self, address: IpAddr) -> bool {
        self.current.load().facts.addresses.contains(&address)
    }
}

impl ResolvesServerCert for Certificates {
    /// Whatever the client's SNI: stub resolvers that know us by address alone send none (RFC 9462 §6.3).
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}

/// A TLS server's settings: 1.2 and 1.3, tickets, no early data, and these ALPN protocols.
///
/// A client that names none of them is refused with `no_application_protocol`; one without ALPN is not (RFC 7301 §3.2).
#[must_use]
pub fn server_config(certificates: &Arc<Certificates>, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    #[expect(clippy::expect_used, reason = "the provider is a constant of this build, and has suites of both versions")]
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("aws-lc-rs has suites for TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    // DNS queries can be replayed, and a rate limit must not count a replay against the client that was overheard.
    config.max_early_data_size = 0;
    match aws_lc_rs::Ticketer::new() {
        // Keys of this process alone, changed every six hours, the last ones kept for six more.
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => tracing::warn!(%error, "no session tickets: clients will make a full handshake each time"),
    }
    Arc::new(config)
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// A chain and key that passed every check.
#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    facts: Facts,
    digest: u64,
}

/// What the two files hold at a moment.
struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(settings: &Settings) -> Result<Self, Error> {
        Ok(Self { chain: read_file(&settings.certificate, "certificate")?, key: read_file(&settings.key, "key")? })
    }

    fn digest(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((&self.chain, &self.key))
    }

    fn load(&self, settings: &Settings, hasher: &RandomState, now: Timestamp) -> Result<Loaded, Error> {
        let chain = self.chain(&settings.certificate)?;
        let key = provider().key_provider.load_private_key(self.key(&settings.key)?).map_err(|error| {
            Error::of(&settings.key, format_args!("the private key cannot be used ({error}); make a new one"))
        })?;
        // Dates and order first: they explain more than a mismatch does.
        let facts = check::chain(&chain, &settings.certificate, now)?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => Ok(Loaded { key: Arc::new(key), facts, digest: self.digest(hasher) }),
            Err(_) => Err(mismatch(settings)),
        }
    }

    fn chain(&self, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
        let chain = CertificateDer::pem_slice_iter(&self.chain).collect::<Result<Vec<_>, _>>().map_err(|error| {
            Error::of(path, format_args!("is not PEM ({error}); it must hold the chain in PEM, ours first"))
        })?;
        match chain.as_slice() {
            [] => Err(Error::of(path, "has no certificate; it must hold the chain in PEM, ours first")),
            _ => Ok(chain),
        }
    }

    fn key(&self, path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            let encrypted = self.key.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
            Error::of(
                path,
                match encrypted {
                    true => "has an encrypted private key; take the passphrase off (openssl pkey)",
                    false => "has no private key; it must hold one in PEM",
                },
            )
        })
    }
}

/// In the first line of a PKCS #8 or traditional key that needs a passphrase.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

fn read_file(path: &Path, setting: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| {
        Error::of(path, format_args!("cannot be read ({error}); check [tls] {setting} and who may read the file"))
    })
}

fn mismatch(settings: &Settings) -> Error {
    let certificate = settings.certificate.display();
    Error::of(
        &settings.key,
        format_args!(
            "does not match the first certificate of {certificate}; name the key it was made with, or put our own certificate first"
        ),
    )
}

/// Whether a name of a certificate is this name (RFC 6125 §6.4): a wildcard is the whole leftmost label, and stands for one.
fn matches(presented: &str, name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    match presented.strip_prefix("*.") {
        Some(parent) => {
            name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
        }
        None => presented.eq_ignore_ascii_case(name),
    }
}

#[cfg(test)]
mod tests;
