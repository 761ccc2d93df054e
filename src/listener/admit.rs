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

use super::gate::{ClientKey, Permit};
use super::{Connection, Phase, Shared, doh, dot, within};
use crate::telemetry::{Bound, Event, Protocol, Telemetry};

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
    pub(super) fn admit(&self, protocol: Protocol, stream: TcpStream, address: SocketAddr) {
        let key = ClientKey::of(address.ip());
        match self.shared.gate.enter(key) {
            Err(bound) => self.shared.telemetry.count(Event::Bound(bound)),
            Ok(permit) => {
                let guest = Guest::new(protocol, Arc::clone(&self.shared), permit, self.open.clone());
                let (shared, phase) = (Arc::clone(&self.shared), self.phase.clone());
                tokio::spawn(serve(guest, stream, address, shared, phase));
            }
        }
    }
}

/// A connection as it is counted; its place is free again when this is dropped, in a panic too.
#[derive(Debug)]
struct Guest {
    protocol: Protocol,
    shared: Arc<Shared>,
    _permit: Permit,
    _open: mpsc::Sender<Infallible>,
}

impl Guest {
    fn new(protocol: Protocol, shared: Arc<Shared>, permit: Permit, open: mpsc::Sender<Infallible>) -> Self {
        shared.telemetry.count(Event::ConnectionOpened(protocol));
        shared.announce_idle_timeout();
        Self { protocol, shared, _permit: permit, _open: open }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.telemetry.count(Event::ConnectionClosed(self.protocol));
        self.shared.announce_idle_timeout();
    }
}

async fn serve(
    guest: Guest,
    stream: TcpStream,
    address: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
) {
    // Boxed, so that the room of the handshake is free again while the connection is served, which is much longer.
    if let Some(serving) = Box::pin(open(&guest, stream, address, shared, phase)).await {
        serving.await;
    }
}

/// Makes a connection of a socket; None where there is no TLS. What it gives serves the connection.
async fn open(
    guest: &Guest,
    stream: TcpStream,
    address: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
) -> Option<BoxFuture<'static, ()>> {
    let config = match guest.protocol {
        Protocol::Dot => &shared.dot_tls,
        Protocol::Doh => &shared.doh_tls,
    };
    let shaken = handshake(stream, Arc::clone(config), shared.settings.handshake_timeout).await;
    count_handshake(&shared.telemetry, &shaken);
    let stream = shaken.ok()?;
    let client = shared.pipeline.client(address.ip().to_canonical(), None);
    let connection = Connection { stream, shared, client, key: ClientKey::of(address.ip()), phase };
    Some(match guest.protocol {
        Protocol::Dot => Box::pin(dot::serve(connection)),
        Protocol::Doh => Box::pin(doh::serve(connection)),
    })
}

/// Why there is no TLS.
#[derive(Debug)]
enum NoTls {
    /// It took longer than `[limits] handshake-timeout`.
    Late,
    /// The client does not speak TLS as we do, or went away.
    Failed,
}

/// Shakes hands, from the accept on. A failure is told to the client by its alert.
async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    timeout: Duration,
) -> Result<TlsStream<TcpStream>, NoTls> {
    let accepted_at = Instant::now();
    let shaking = pin!(async {
        // Without it the first answer would wait 40 ms for the client's delayed ACK of the session tickets.
        stream.set_nodelay(true)?;
        let limit = |tls: &mut rustls::ServerConnection| tls.set_buffer_limit(Some(TLS_BUFFER_OCTETS_MAX));
        TlsAcceptor::from(config).accept_with(stream, limit).await
    });
    let shaken: Option<io::Result<_>> = within(timeout, accepted_at, shaking).await;
    shaken.ok_or(NoTls::Late)?.map_err(|_| NoTls::Failed)
}

fn count_handshake(telemetry: &Telemetry, shaken: &Result<TlsStream<TcpStream>, NoTls>) {
    match shaken {
        Ok(stream) => {
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            telemetry.count(Event::Handshake { resumed });
        }
        Err(NoTls::Failed) => telemetry.count(Event::HandshakeFailed),
        Err(NoTls::Late) => {
            telemetry.count(Event::HandshakeFailed);
            telemetry.count(Event::Bound(Bound::HandshakeTimeout));
        }
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
        let (shaken, mut near) =
            tokio::join!(handshake(far, server, Duration::ZERO), async { connect(near, &client).await.unwrap() });
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
        let (shaken, near) = tokio::join!(handshake(far, server, Duration::ZERO), connect(near, &client));
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
            let shaken = handshake(far, Arc::clone(&server), Duration::from_secs(5)).await;
            assert!(matches!(shaken, Err(NoTls::Late)));
            assert_eq!(start.elapsed(), Duration::from_secs(5));
        }
    }

    #[tokio::test]
    async fn what_is_not_tls_fails_at_once() {
        let (server, _) = configs();
        let (mut near, far) = connected().await;
        near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(matches!(handshake(far, server, Duration::ZERO).await, Err(NoTls::Failed)));
    }
}
