//! A connection of a probe's own: bound, registered, encrypted, asked over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Place;
use crate::digest::Digest;
use crate::dns::MESSAGE_OCTETS_MAX;
use crate::pipeline::{Pipeline, ProbePass};
use crate::policy::origin::Country;
use crate::telemetry::Protocol;

/// From the first octet to the end of the handshake.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// From a query to its answer: longer than any `[upstream] deadline` may be.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// The name that a probe asks for by SNI and `Host`: the certificate is the same whatever it is.
const HOST: &str = "localhost";

/// An open connection.
pub(super) struct Line {
    kind: Kind,
    certificate: Digest,
    /// The client's country holds for as long as this lives.
    _pass: ProbePass,
}

enum Kind {
    Dot(Box<TlsStream<TcpStream>>),
    Doh { requests: http2::SendRequest<Full<Bytes>>, connection: AbortHandle, path: String },
}

impl Drop for Kind {
    fn drop(&mut self) {
        if let Self::Doh { connection, .. } = self {
            connection.abort();
        }
    }
}

impl Line {
    /// Opens a connection whose client is in this country. What keeps it from that is told in a line.
    pub(super) async fn open(
        pipeline: &Arc<Pipeline>,
        place: &Place,
        country: Option<Country>,
    ) -> Result<Self, String> {
        let opened = timeout(OPEN_TIMEOUT, Self::open_whenever(pipeline, place, country)).await;
        opened.unwrap_or_else(|_| Err("no handshake in time".to_owned()))
    }

    async fn open_whenever(pipeline: &Arc<Pipeline>, place: &Place, country: Option<Country>) -> Result<Self, String> {
        let failed = |error: io::Error| format!("no connection: {error}");
        let to = reachable(place.address);
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
        // From the listener's own address, which this machine has; bound before anybody can hear of it.
        socket.bind(SocketAddr::new(to.ip(), 0)).map_err(failed)?;
        let pass = pipeline.register_probe(socket.local_addr().map_err(failed)?, country);
        let stream = socket.connect(to).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let name = ServerName::try_from(HOST).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(client_config(place.protocol)?).connect(name, stream).await;
        let stream = stream.map_err(|error| format!("no handshake: {error}"))?;
        let chain = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = Digest::of(chain.ok_or("the listener showed no certificate")?);
        let kind = match place.protocol {
            Protocol::Dot => Kind::Dot(Box::new(stream)),
            Protocol::Doh => Kind::doh(stream, &place.doh_path).await?,
        };
        Ok(Self { kind, certificate, _pass: pass })
    }

    /// What the listener showed.
    pub(super) fn certificate(&self) -> Digest {
        self.certificate
    }

    /// The answer to a query, as its octets came.
    pub(super) async fn ask(&mut self, query: &[u8]) -> Result<Vec<u8>, String> {
        let asked = async {
            match &mut self.kind {
                Kind::Dot(stream) => over_dot(stream, query).await.map_err(|error| format!("no answer: {error}")),
                Kind::Doh { requests, path, .. } => over_doh(requests, path, query).await,
            }
        };
        timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

impl Kind {
    async fn doh(stream: TlsStream<TcpStream>, path: &str) -> Result<Self, String> {
        let http = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (requests, connection) = http.map_err(|error| format!("no HTTP/2: {error}"))?;
        let connection = tokio::spawn(async move {
            // How it ends is heard by whoever asks.
            let _ = connection.await;
        });
        Ok(Self::Doh { requests, connection: connection.abort_handle(), path: path.to_owned() })
    }
}

async fn over_dot(stream: &mut TlsStream<TcpStream>, query: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    stream.flush().await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

async fn over_doh(requests: &mut http2::SendRequest<Full<Bytes>>, path: &str, query: &[u8]) -> Result<Vec<u8>, String> {
    let request = Request::post(format!("https://{HOST}{path}"))
        .header(header::CONTENT_TYPE, "application/dns-message")
        .header(header::ACCEPT, "application/dns-message")
        .body(Full::from(query.to_vec()))
        .map_err(|error| error.to_string())?;
    requests.ready().await.map_err(|error| format!("no answer: {error}"))?;
    let response = requests.send_request(request).await.map_err(|error| format!("no answer: {error}"))?;
    if !response.status().is_success() {
        return Err(format!("HTTP status {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MESSAGE_OCTETS_MAX).collect().await;
    Ok(body.map_err(|error| format!("no answer: {error}"))?.to_bytes().to_vec())
}

/// Where a listener can be asked: one of all addresses on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn client_config(protocol: Protocol) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Ours(Arc::clone(&provider)));
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![match protocol {
        Protocol::Dot => b"dot".to_vec(),
        Protocol::Doh => b"h2".to_vec(),
    }];
    Ok(Arc::new(config))
}

/// Takes whatever certificate the listener shows: which one that was is what the ledger keeps. That its key is there
/// is checked as ever.
#[derive(Debug)]
struct Ours(Arc<CryptoProvider>);

impl ServerCertVerifier for Ours {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
