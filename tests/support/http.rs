//! A client's side of DNS over HTTPS, down to the frames of HTTP/2.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Server;

impl Server {
    /// A connection to the DoH port by these protocols, its handshake done.
    pub async fn doh(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        self.try_doh(alpn).await.unwrap()
    }

    /// The same, where the handshake may fail.
    pub async fn try_doh(&self, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        self.try_doh_behind(&[], [127, 0, 0, 1], alpn).await
    }

    /// The same from a loopback address, with these octets before its own.
    pub async fn try_doh_behind(
        &self,
        before: &[u8],
        source: [u8; 4],
        alpn: &[&[u8]],
    ) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let mut stream = socket.connect((Ipv4Addr::LOCALHOST, self.doh_port).into()).await?;
        stream.set_nodelay(true)?;
        stream.write_all(before).await?;
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        TlsConnector::from(self.tls(rustls::ALL_VERSIONS, alpn)).connect(name, stream).await
    }
}

/// A message as the `dns` parameter has it (RFC 8484 §4.1.1).
pub fn encoded(message: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(message)
}

/// Path and query of a GET for a message.
pub fn target(message: &[u8]) -> String {
    format!("/dns-query?dns={}", encoded(message))
}

/// What HTTP/2 sends first: the preface and SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

// Kinds of frames (RFC 9113 §6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

// Flags of frames.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `:method GET`, `:scheme https`, `:path /`, `:authority x`, in HPACK.
pub const FIELDS: &[u8] = b"\x82\x87\x84\x41\x01x";

/// A frame of HTTP/2 (RFC 9113 §4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Kind, flags and payload of each whole frame.
pub fn frames(mut octets: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, kind, flags, _, _, _, _, rest @ ..] = octets else { return None };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        octets = rest.get(length..)?;
        Some((*kind, *flags, &rest[..length]))
    })
}
