//! A connection's way in: a place, a TLS handshake, its protocol.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::{HandshakeKind, ServerConfig};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::caller::{Caller, Introduced};
use super::gate::Permit;
use super::proxy::Fault;
use super::{Connection, Inlet, Phase, Shared, doh, dot, within};
use crate::telemetry::{Bound, Event, Protocol};

/// Plaintext that a connection keeps for TLS to encrypt, in octets: one record's worth. rustls would keep 64 KiB.
const TLS_BUFFER_OCTETS_MAX: usize = 16 * 1_024;

/// What every connection of a worker is given on its way in.
#[derive(Debug)]
pub(super) struct Door {
    /// What all share.
    pub(super) shared: Arc<Shared>,
    /// Changes when the process is to end.
    pub(super) phase: watch::Receiver<Phase>,
    /// Held by each connection until it ends; nothing is sent.
    pub(super) open: mpsc::Sender<Infallible>,
}

impl Door {
    /// Serves an accepted connection in a task of its own, so that a panic ends this connection only. One that finds
    /// no place is closed at once: its client hears so, and can go elsewhere.
    pub(super) fn admit(&self, inlet: Inlet, stream: TcpStream, peer: SocketAddr) {
        let caller = Caller::at(peer, &self.shared);
        match self.enter(&caller, inlet) {
            Err(bound) => self.shared.telemetry.count(Event::Bound(bound)),
            Ok(permit) => {
                let guest = Guest::new(inlet, &caller, Arc::clone(&self.shared), permit, self.open.clone());
                tokio::spawn(serve(guest, stream, caller, self.phase.clone()));
            }
        }
    }

    fn enter(&self, caller: &Caller, inlet: Inlet) -> Result<Permit, Bound> {
        if matches!(caller, Caller::Probe(_)) {
            return Ok(self.shared.gate.enter_beside());
        }
        let mut permit = self.shared.gate.enter()?;
        if let Some(key) = caller.key(inlet, &self.shared) {
            permit.claim(key)?;
        }
        Ok(permit)
    }
}

/// A connection as it is counted; its place is free again when this is dropped, in a panic too.
#[derive(Debug)]
struct Guest {
    inlet: Inlet,
    shared: Arc<Shared>,
    permit: Permit,
    /// A probe of our own is no client: it is in no count.
    is_probe: bool,
    _open: mpsc::Sender<Infallible>,
}

impl Guest {
    fn new(inlet: Inlet, caller: &Caller, shared: Arc<Shared>, permit: Permit, open: mpsc::Sender<Infallible>) -> Self {
        let guest = Self { inlet, shared, permit, is_probe: matches!(caller, Caller::Probe(_)), _open: open };
        guest.count(Event::ConnectionOpened(inlet.protocol));
        guest.shared.announce_idle_timeout();
        guest
    }

    fn count(&self, event: Event) {
        if !self.is_probe {
            self.shared.telemetry.count(event);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.count(Event::ConnectionClosed(self.inlet.protocol));
        self.shared.announce_idle_timeout();
    }
}

async fn serve(mut guest: Guest, stream: TcpStream, caller: Caller, phase: watch::Receiver<Phase>) {
    // Boxed, so that the room of the handshake is free again while the connection is served, which is much longer.
    if let Some(serving) = Box::pin(open(&mut guest, stream, caller, phase)).await {
        serving.await;
    }
}

/// Makes a connection of a socket; None where there is no TLS. What it gives serves the connection.
async fn open(
    guest: &mut Guest,
    stream: TcpStream,
    caller: Caller,
    phase: watch::Receiver<Phase>,
) -> Option<BoxFuture<'static, ()>> {
    let (shared, Inlet { protocol, country }) = (Arc::clone(&guest.shared), guest.inlet);
    let shaken = way_in(guest, stream, caller).await;
    count_handshake(guest, &shaken);
    let (stream, Introduced { asker, forwards, .. }) = shaken.ok()?;
    let connection = Connection { stream, shared, asker, forwards, country, phase };
    Some(match protocol {
        Protocol::Dot => Box::pin(dot::serve(connection)),
        Protocol::Doh => Box::pin(doh::serve(connection)),
    })
}

/// Why there is no TLS.
#[derive(Debug)]
enum NoTls {
    /// It takes longer, or more, than the bound allows.
    Over(Bound),
    /// The client does not speak TLS as we do, its proxy does not say for whom it calls, or it went away.
    Failed,
    /// There is no place for the client of a proxy.
    NoPlace(Bound),
}

impl From<Fault> for NoTls {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLong => Self::Over(Bound::ProxyHeader),
            Fault::Malformed | Fault::Cut => Self::Failed,
        }
    }
}

/// The proxy's header, where there has to be one, and the TLS handshake: both within one time, from the accept on.
async fn way_in(
    guest: &mut Guest,
    mut stream: TcpStream,
    caller: Caller,
) -> Result<(TlsStream<TcpStream>, Introduced), NoTls> {
    let Guest { inlet, shared, permit, .. } = guest;
    let config = match inlet.protocol {
        Protocol::Dot => &shared.dot_tls,
        Protocol::Doh => &shared.doh_tls,
    };
    let (accepted_at, timeout) = (Instant::now(), shared.settings.handshake_timeout);
    let introducing = caller.introduce(&mut stream, *inlet, shared);
    let late = NoTls::Over(Bound::HandshakeTimeout);
    let introduced = within(timeout, accepted_at, introducing).await.ok_or(late)??;
    if let Some(key) = introduced.claims {
        permit.claim(key).map_err(NoTls::NoPlace)?;
    }
    Ok((handshake(stream, Arc::clone(config), timeout, accepted_at).await?, introduced))
}

/// Shakes hands. A failure is told to the client by its alert.
async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    timeout: Duration,
    accepted_at: Instant,
) -> Result<TlsStream<TcpStream>, NoTls> {
    let shaking = pin!(async {
        // Without it the first answer would wait 40 ms for the client's delayed ACK of the session tickets.
        stream.set_nodelay(true)?;
        let limit = |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(TLS_BUFFER_OCTETS_MAX));
        TlsAcceptor::from(config).accept_with(stream, limit).await
    });
    let shaken: Option<io::Result<_>> = within(timeout, accepted_at, shaking).await;
    shaken.ok_or(NoTls::Over(Bound::HandshakeTimeout))?.map_err(|_| NoTls::Failed)
}

fn count_handshake(guest: &Guest, shaken: &Result<(TlsStream<TcpStream>, Introduced), NoTls>) {
    match shaken {
        Ok((stream, _)) => {
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            guest.count(Event::Handshake { resumed });
        }
        Err(NoTls::Failed) => guest.count(Event::HandshakeFailed),
        Err(NoTls::Over(bound)) => {
            guest.count(Event::HandshakeFailed);
            guest.count(Event::Bound(*bound));
        }
        Err(NoTls::NoPlace(bound)) => guest.count(Event::Bound(*bound)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(super) mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;

    /// A server's and a client's settings that trust each other.
    pub(in crate::listener) fn configs() -> (Arc<ServerConfig>, ClientConfig) {
        let made = rcgen::generate_simple_self_signed(vec!["dns.example".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let certificate = made.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let mut server =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key.into()).unwrap();
        server.alpn_protocols = vec![b"dot".to_vec()];
        (Arc::new(server), ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }

    pub(in crate::listener) async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    pub(in crate::listener) async fn connect(
        stream: TcpStream,
        config: &Arc<ClientConfig>,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from("dns.example").unwrap();
        TlsConnector::from(Arc::clone(config)).connect(name, stream).await
    }

    #[tokio::test]
    async fn a_handshake_is_made_without_delay_of_segments() {
        let (server, client) = configs();
        let (near, far) = connected().await;
        let client = Arc::new(client);
        let (shaken, mut near) = tokio::join!(handshake(far, server, Duration::ZERO, Instant::now()), async {
            connect(near, &client).await.unwrap()
        });
        let mut far = shaken.unwrap();
        assert!(far.get_ref().0.nodelay().unwrap());
        far.write_all(b"octets").await.unwrap();
        far.shutdown().await.unwrap();
        let mut octets = Vec::new();
        near.read_to_end(&mut octets).await.unwrap();
        assert_eq!(octets, b"octets");
    }

    #[tokio::test]
    async fn a_refusal_is_told_to_the_client() {
        let (server, mut client) = configs();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let (near, far) = connected().await;
        let client = Arc::new(client);
        let (shaken, near) =
            tokio::join!(handshake(far, server, Duration::ZERO, Instant::now()), connect(near, &client));
        assert!(matches!(shaken, Err(NoTls::Failed)));
        let alert = near.unwrap_err().to_string();
        assert!(alert.contains("NoApplicationProtocol"), "{alert}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_drip_end_with_the_timeout() {
        let (server, _) = configs();
        for octets in [&b""[..], b"\x16\x03\x01"] {
            let (mut near, far) = connected().await;
            near.write_all(octets).await.unwrap();
            let start = Instant::now();
            let shaken = handshake(far, Arc::clone(&server), Duration::from_secs(5), start).await;
            assert!(matches!(shaken, Err(NoTls::Over(Bound::HandshakeTimeout))));
            assert_eq!(start.elapsed(), Duration::from_secs(5));
        }
    }

    #[tokio::test]
    async fn what_is_not_tls_fails_at_once() {
        let (server, _) = configs();
        let (mut near, far) = connected().await;
        near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(matches!(handshake(far, server, Duration::ZERO, Instant::now()).await, Err(NoTls::Failed)));
    }
}
