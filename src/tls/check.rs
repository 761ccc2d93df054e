//! What must hold of a certificate chain before it is served.

use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::Error;

/// What is told of a chain once it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// DNS names of the first certificate's subjectAltName.
    pub(super) names: Vec<String>,
    /// Its addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// The first end of validity in the chain.
    pub(super) not_after: Timestamp,
}

/// Checks dates and order, and that no certificate is missing between ours and a CA that clients know.
pub(super) fn chain(chain: &[CertificateDer<'_>], path: &Path, now: Timestamp) -> Result<Facts, Error> {
    let certificates = parse(chain, path)?;
    for (place, certificate) in places(&certificates) {
        dates(place, certificate, path, now)?;
    }
    order(&certificates, path)?;
    last(&certificates, path)?;
    Ok(facts(&certificates))
}

fn parse<'a>(chain: &'a [CertificateDer<'_>], path: &Path) -> Result<Vec<X509Certificate<'a>>, Error> {
    let unreadable = |place: usize| {
        Error::of(path, format_args!("certificate {place} cannot be read; get the file from your CA again"))
    };
    let parsed = chain.iter().enumerate().map(|(at, der)| match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(unreadable(at + 1)),
    });
    parsed.collect()
}

/// Certificates with their place in the file, from 1.
fn places<'a, 'c>(certificates: &'c [X509Certificate<'a>]) -> impl Iterator<Item = (usize, &'c X509Certificate<'a>)> {
    (1..).zip(certificates)
}

fn dates(place: usize, certificate: &X509Certificate<'_>, path: &Path, now: Timestamp) -> Result<(), Error> {
    let (begin, end) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    let subject = certificate.subject();
    if now.as_second() < begin {
        let begin = timestamp(begin);
        return Err(Error::of(
            path,
            format_args!("certificate {place} ({subject}) is not valid before {begin}; check this machine's clock"),
        ));
    }
    if now.as_second() > end {
        let end = timestamp(end);
        return Err(Error::of(path, format_args!("certificate {place} ({subject}) expired at {end}; renew it")));
    }
    Ok(())
}

/// Each certificate is issued by the next one (RFC 5246 §7.4.2; RFC 8446 §4.4.2 only tolerates another order).
fn order(certificates: &[X509Certificate<'_>], path: &Path) -> Result<(), Error> {
    for (at, pair) in certificates.windows(2).enumerate() {
        let issuer = pair[0].issuer();
        if issuer.as_raw() == pair[1].subject().as_raw() {
            continue;
        }
        let place = at + 1;
        return Err(match places(certificates).find(|(_, other)| other.subject().as_raw() == issuer.as_raw()) {
            Some((found, _)) if found != place => Error::of(
                path,
                format_args!(
                    "the order of the chain is wrong: certificate {found} issued certificate {place}; put each issuer right behind what it issued"
                ),
            ),
            _ => missing(path, place, &issuer.to_string()),
        });
    }
    Ok(())
}

/// The last certificate is self-signed, or a CA's whose issuer is then the root that clients have.
fn last(certificates: &[X509Certificate<'_>], path: &Path) -> Result<(), Error> {
    match certificates {
        [.., last] if last.subject().as_raw() != last.issuer().as_raw() && !last.is_ca() => {
            Err(missing(path, certificates.len(), &last.issuer().to_string()))
        }
        _ => Ok(()),
    }
}

fn missing(path: &Path, place: usize, issuer: &str) -> Error {
    Error::of(
        path,
        format_args!(
            "an intermediate certificate is missing: {issuer}, which issued certificate {place}, is not behind it; append the chain your CA gave you"
        ),
    )
}

fn facts(certificates: &[X509Certificate<'_>]) -> Facts {
    let ends = certificates.iter().map(|certificate| certificate.validity().not_after.timestamp());
    let mut facts =
        Facts { names: Vec::new(), addresses: Vec::new(), not_after: timestamp(ends.min().unwrap_or(i64::MIN)) };
    let names = certificates.first().and_then(|ours| ours.subject_alternative_name().ok().flatten());
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => facts.names.push((*name).to_owned()),
            GeneralName::IPAddress(octets) => facts.addresses.extend(address(octets)),
            _ => {}
        }
    }
    facts
}

/// The 4 or 16 octets of an iPAddress (RFC 5280 §4.2.1.6).
fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// A certificate may be dated beyond what a `Timestamp` holds.
fn timestamp(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
