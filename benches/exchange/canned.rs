//! The bare stack: servers of the same crates and settings as the product, that answer everything with the same octets.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as Listener};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bailiwick::dns::edns::Opt;
use bailiwick::dns::{Rcode, made};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Failure;
use super::names::{Names, address_of};
use super::run::Protocol;

/// TTL of the answer, in seconds.
const TTL: u32 = 3_600;

/// Octets that one read takes from a DoT connection.
const READ_OCTETS: usize = 8 * 1_024;

/// Serves on a free loopback port, which `ready` hears, until the process is ended.
pub(crate) fn serve(
    speaks: Protocol,
    padded: bool,
    certificate: &Path,
    key: &Path,
    ready: impl FnOnce(SocketAddr),
) -> Result<Infallible, Failure> {
    let config = tls(speaks, certificate, key)?;
    let listener = Listener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    ready(listener.local_addr()?);
    let answer = answer(padded)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let acceptor = TlsAcceptor::from(config);
        loop {
            let (stream, _) = listener.accept().await?;
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let Ok(stream) = shake(stream, acceptor).await else { return };
                // A client may go away at any time.
                match speaks {
                    Protocol::Doh => converse(stream, answer).await,
                    Protocol::Dot => drop(pipeline(stream, &answer).await),
                }
            });
        }
    })
}

async fn shake(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(16 * 1_024))).await
}

fn tls(speaks: Protocol, certificate: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .map_err(io::Error::other)?
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).map_err(io::Error::other)?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
    config.alpn_protocols = vec![speaks.alpn().to_vec()];
    Ok(Arc::new(config))
}

/// The right answer to the one name that canned servers are asked for, under ID 0; padded as RFC 8467 §4.1 has it.
pub(crate) fn answer(padded: bool) -> Result<Bytes, Failure> {
    let name = Names::One.sample(0)?;
    let mut answer = BytesMut::from(&made::address(&name, address_of(&name).into(), TTL)[..]);
    if padded {
        Opt { rcode: Rcode::NOERROR, dnssec_ok: false, keepalive: None, errors: &[], padded }.write(&mut answer, 0);
        // ARCOUNT
        answer[11] = 1;
    }
    Ok(answer.freeze())
}

async fn converse(stream: TlsStream<TcpStream>, answer: Bytes) {
    let service = service_fn(move |request: Request<Incoming>| respond(request, answer.clone()));
    // The client ends the connection, in an error as often as not.
    let _ = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(8 * 1_024)
        .initial_stream_window_size(64 * 1_024)
        .initial_connection_window_size(256 * 1_024)
        .max_send_buf_size(16 * 1_024)
        .serve_connection(TokioIo::new(Plain(stream)), service)
        .await;
}

async fn respond(request: Request<Incoming>, answer: Bytes) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let query = request.into_body().collect().await?.to_bytes();
    std::hint::black_box(&query);
    let mut response = Response::new(Full::new(answer));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/dns-message"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=299"));
    Ok(response)
}

/// A stream whose writes are not vectored, as the product's.
struct Plain<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Plain<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Plain<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Answers all queries of a read in one write.
async fn pipeline(mut stream: TlsStream<TcpStream>, answer: &[u8]) -> io::Result<()> {
    let (mut read, mut out) = (BytesMut::with_capacity(READ_OCTETS), BytesMut::with_capacity(READ_OCTETS));
    loop {
        read.reserve(READ_OCTETS);
        if stream.read_buf(&mut read).await? == 0 {
            return stream.shutdown().await;
        }
        while let Some(query) = message(&mut read) {
            out.put_u16(answer.len() as u16);
            out.put_slice(&query[..2.min(query.len())]);
            out.put_slice(&answer[2..]);
        }
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
    }
}

fn message(read: &mut BytesMut) -> Option<BytesMut> {
    let (length, rest) = read.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    (rest.len() >= length).then(|| read.split_to(2 + length).split_off(2))
}
