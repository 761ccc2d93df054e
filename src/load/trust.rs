//! A client's TLS settings: whom it trusts, and the tickets that it keeps.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};

use super::target::Protocol;

/// The most tickets that are kept, each of some KiB: more connections than that do not begin at once.
const TICKETS_MAX: usize = 1_000;

/// Settings by which only a server is trusted whose certificate is by a CA of this file (PEM).
///
/// # Errors
/// When the file has no such certificate: a line.
pub fn config(ca: &Path, protocol: Protocol, resume: bool) -> Result<Arc<ClientConfig>, String> {
    let said = |what: String| format!("{}: {what}", ca.display());
    let advice = "name with --ca the CA (PEM) that the server's certificate is by";
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| said(format!("{error}; {advice}")))? {
        let certificate = certificate.map_err(|error| said(error.to_string()))?;
        roots.add(certificate).map_err(|error| said(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(said(format!("has no certificate; {advice}")));
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![match protocol {
        Protocol::Doh => b"h2".to_vec(),
        Protocol::Dot => b"dot".to_vec(),
    }];
    config.resumption = if resume { Resumption::store(Arc::new(Tickets::default())) } else { Resumption::disabled() };
    // The first random octet of a process takes the library 30 ms and more: no connection's time.
    config.crypto_provider().secure_random.fill(&mut [0]).map_err(|_| "no randomness".to_owned())?;
    Ok(Arc::new(config))
}

/// Tickets of the one server that there is, the newest used first, each once.
#[derive(Debug, Default)]
struct Tickets {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    group: Option<NamedGroup>,
    session: Option<Tls12ClientSessionValue>,
    tickets: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whoever panicked, a ticket is whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.kept().session = Some(session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().session.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.kept().session = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut kept = self.kept();
        if kept.tickets.len() == TICKETS_MAX {
            kept.tickets.pop_front();
        }
        kept.tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().tickets.pop_back()
    }
}
