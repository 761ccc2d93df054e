//! A client of our own, which sees every octet of an answer.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream as Held};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Failure;
use super::run::Protocol;

/// How long an exchange may take, its connection and handshake included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Trusts one CA.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    config: ClientConfig,
}

impl Client {
    /// Trusts the CA of this file.
    pub(crate) fn new(ca: &Path) -> Result<Self, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        Ok(Self { config: ClientConfig::builder().with_root_certificates(roots).with_no_client_auth() })
    }

    /// Asks on a connection of its own; beside the answer, what keeps that connection open, silent from now on.
    pub(crate) async fn ask(
        &self,
        protocol: Protocol,
        server: SocketAddr,
        query: &[u8],
    ) -> Result<(Vec<u8>, Held), Failure> {
        let exchange = async {
            let (stream, held) = self.connect(protocol, server).await?;
            let answer = match protocol {
                Protocol::Doh => doh(stream, server, query).await?,
                Protocol::Dot => dot(stream, query).await?,
            };
            Ok((answer, held))
        };
        timeout(PATIENCE, exchange).await?
    }

    /// The second handle holds the socket when the first, and TLS with it, is dropped; nothing is sent then.
    async fn connect(&self, protocol: Protocol, server: SocketAddr) -> Result<(TlsStream<TcpStream>, Held), Failure> {
        let stream = TcpStream::connect(server).await?.into_std()?;
        let held = stream.try_clone()?;
        let mut config = self.config.clone();
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(ServerName::from(server.ip()), TcpStream::from_std(stream)?).await?;
        Ok((stream, held))
    }
}

async fn dot(mut stream: TlsStream<TcpStream>, query: &[u8]) -> Result<Vec<u8>, Failure> {
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Over h2 itself: its connection is no task, and so says nothing when it is dropped.
async fn doh(stream: TlsStream<TcpStream>, server: SocketAddr, query: &[u8]) -> Result<Vec<u8>, Failure> {
    let (requests, connection) = h2::client::handshake(stream).await?;
    let request = Request::post(format!("https://{server}/dns-query"))
        .header(header::CONTENT_TYPE, "application/dns-message")
        .body(())?;
    let exchange = async {
        let (response, mut body) = requests.ready().await?.send_request(request, false)?;
        body.send_data(Bytes::copy_from_slice(query), true)?;
        let (head, mut body) = response.await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("HTTP {}", head.status).into());
        }
        let mut answer = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            answer.extend_from_slice(&piece);
        }
        Ok(answer)
    };
    tokio::select! {
        answer = exchange => answer,
        end = connection => Err(format!("the connection ended: {end:?}").into()),
    }
}

/// A page of the admin listener.
pub(crate) async fn page(admin: SocketAddr, path: &str) -> Result<String, Failure> {
    let fetch = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        Ok::<_, io::Error>(page)
    };
    let page = timeout(PATIENCE, fetch).await??;
    if !page.starts_with("HTTP/1.1 200 ") {
        return Err(format!("{path}: {}", page.lines().next().unwrap_or_default()).into());
    }
    Ok(page)
}

/// The sum of a metric over its labels.
pub(crate) async fn metric(admin: SocketAddr, name: &str) -> Result<f64, Failure> {
    let page = page(admin, "/metrics").await?;
    let values = page.lines().filter_map(|line| {
        let (labelled, value) = line.rsplit_once(' ')?;
        let found = labelled.split('{').next() == Some(name);
        found.then(|| value.parse::<f64>().ok()).flatten()
    });
    Ok(values.sum())
}

/// Ports that were free a moment ago, all different.
pub(crate) fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    let held: Vec<_> = (0..N).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// The last lines of a log, for those who must find out what went wrong.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
