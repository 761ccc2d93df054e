//! A development CA with a certificate by it, for machines without one that clients trust.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::{Error, Settings, check};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the CA is valid.
const CA_LIFE: Duration = DAY.saturating_mul(3650);

/// How long the certificate is valid; Apple's clients take no more than 825 days, browsers 398 from a public CA.
const CERTIFICATE_LIFE: Duration = DAY.saturating_mul(397);

/// How far behind ours a client's clock may be.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// Makes a development CA (`ca.pem`, `ca.key` in the certificate's folder, kept where they exist) and a certificate by
/// it for `names` (DNS names and addresses), and writes chain and key. Returns the CA's file, for clients to trust.
///
/// Keys are ECDSA on P-256, and for their owner alone to read.
///
/// # Errors
/// When a file cannot be written, one of the two is there already, or the CA that is there cannot be used.
pub fn make_development(settings: &Settings, names: &[String], now: Timestamp) -> Result<PathBuf, Error> {
    for path in [&settings.certificate, &settings.key] {
        if path.exists() {
            return Err(Error::of(path, "is there already; move it away first, nothing is overwritten"));
        }
        let folder = folder(path);
        fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    }
    let names = names.iter().map(|name| subject_alt_name(name)).collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() {
        return Err(Error::of(&settings.certificate, "a certificate needs at least one name or address; give it one"));
    }
    let ca = Ca::open_or_make(folder(&settings.certificate), now)?;
    let (certificate, key) = ca.issue(names, now)?;
    write_key(&settings.key, &key)?;
    write_new(&settings.certificate, &format!("{certificate}{}", ca.pem), 0o644)?;
    Ok(ca.path)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn subject_alt_name(name: &str) -> Result<SanType, Error> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let (wildcard, rest) = name.strip_prefix("*.").map_or(("", name), |rest| ("*.", rest));
    let ascii = idna::domain_to_ascii_strict(rest.trim_end_matches('.'));
    let name_in_ascii = ascii.ok().and_then(|ascii| format!("{wildcard}{ascii}").try_into().ok());
    name_in_ascii
        .map(SanType::DnsName)
        .ok_or_else(|| Error(format!("{name}: is neither a DNS name nor an address; give one that is")))
}

/// A CA that can issue.
struct Ca {
    path: PathBuf,
    pem: String,
    key: KeyPair,
}

impl Ca {
    fn open_or_make(folder: &Path, now: Timestamp) -> Result<Self, Error> {
        let (path, key_path) = (folder.join("ca.pem"), folder.join("ca.key"));
        match (path.exists(), key_path.exists()) {
            (true, true) => Self::open(path, &key_path, now),
            (false, false) => Self::make(path, &key_path, now),
            (true, false) => Err(Error::of(&path, "is there without its ca.key; bring that back, or move this away")),
            (false, true) => {
                Err(Error::of(&key_path, "is there without its ca.pem; bring that back, or move this away"))
            }
        }
    }

    fn open(path: PathBuf, key_path: &Path, now: Timestamp) -> Result<Self, Error> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| Error::of(path, format_args!("cannot be read ({error})")))
        };
        let unusable =
            |path: &Path| Error::of(path, "cannot be used as a CA; move ca.pem and ca.key away to get new ones");
        let (pem, key_pem) = (read(&path)?, read(key_path)?);
        let key = KeyPair::from_pem(&key_pem).map_err(|_| unusable(key_path))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable(&path))?;
        check::chain(std::slice::from_ref(&certificate), &path, now)?;
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| unusable(&path))?;
        if !parsed.is_ca() || parsed.public_key().raw != key.subject_public_key_info() {
            return Err(unusable(&path));
        }
        Ok(Self { path, pem, key })
    }

    fn make(path: PathBuf, key_path: &Path, now: Timestamp) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(|error| failed(&path, &error))?;
        let mut params = params(now, CA_LIFE);
        // Several may stand in one trust store: the day tells them apart.
        let name = format!("Bailiwick development CA of {}", now.strftime("%Y-%m-%d"));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).map_err(|error| failed(&path, &error))?.pem();
        write_key(key_path, &key)?;
        write_new(&path, &pem, 0o644)?;
        Ok(Self { path, pem, key })
    }

    /// A server certificate in PEM, and its key.
    fn issue(&self, names: Vec<SanType>, now: Timestamp) -> Result<(String, KeyPair), Error> {
        let failed = |error| failed(&self.path, &error);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(now, CERTIFICATE_LIFE);
        params.distinguished_name.push(DnType::CommonName, "Bailiwick development server");
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_pem(&self.pem, &self.key).map_err(failed)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        Ok((certificate.pem(), key))
    }
}

/// Valid from now on, and for no name yet.
fn params(now: Timestamp, life: Duration) -> CertificateParams {
    // Certificates count whole seconds; before 1970 there are none.
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let mut params = CertificateParams::default();
    params.not_before = now - SKEW;
    params.not_after = now + life;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Bailiwick");
    params
}

fn write_key(path: &Path, key: &KeyPair) -> Result<(), Error> {
    write_new(path, &key.serialize_pem(), 0o600)
}

/// Writes a file that is not there yet.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::of(path, format_args!("cannot be written ({error}); make its folder writable, or give other paths in [tls]"))
}

fn failed(path: &Path, error: &rcgen::Error) -> Error {
    Error::of(path, format_args!("no certificate could be made ({error})"))
}
