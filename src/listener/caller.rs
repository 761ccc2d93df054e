//! Who is at the other end of a connection: a probe of ours, a proxy that says for whom it calls, or the client itself.

use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncRead;

use super::gate::ClientKey;
use super::{Asker, Inlet, Shared, proxy};
use crate::pipeline::Client;
use crate::telemetry::Protocol;

/// Who calls, as far as the socket's own address tells.
pub(super) enum Caller {
    /// A probe of our own.
    Probe(Client),
    /// A proxy of `[listen] proxy-from`, at this address.
    Proxy(IpAddr),
    /// Anyone else, at this address.
    Peer(IpAddr),
}

impl Caller {
    /// Who calls from a socket.
    pub(super) fn at(peer: SocketAddr, shared: &Shared) -> Self {
        let address = peer.ip().to_canonical();
        match shared.pipeline.probe_client(peer) {
            Some(client) => Self::Probe(client),
            None if shared.settings.proxy_from.contains(address) => Self::Proxy(address),
            None => Self::Peer(address),
        }
    }

    /// As whom it is counted already at the accept; None: nobody, or not yet.
    pub(super) fn key(&self, inlet: Inlet, shared: &Shared) -> Option<ClientKey> {
        match self {
            Self::Peer(address) => key(*address, inlet, shared),
            Self::Probe(_) | Self::Proxy(_) => None,
        }
    }

    /// Who it is at last: a proxy's header is read from the stream, and nothing behind it.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub(super) async fn introduce(
        self,
        stream: &mut (impl AsyncRead + Unpin),
        inlet: Inlet,
        shared: &Shared,
    ) -> Result<Introduced, proxy::Fault> {
        let (address, claims) = match self {
            Self::Probe(client) => {
                let asker = Asker { client, key: None };
                return Ok(Introduced { asker, claims: None, forwards: false });
            }
            Self::Peer(address) => (address, None),
            Self::Proxy(own) => match proxy::read(stream).await? {
                Some(address) => (address, key(address, inlet, shared)),
                None => (own, None),
            },
        };
        let asker = Asker { client: shared.pipeline.client(address, inlet.country), key: Some(ClientKey::of(address)) };
        Ok(Introduced { asker, claims, forwards: forwards(address, inlet, shared) })
    }
}

/// A caller that is known.
pub(super) struct Introduced {
    /// Who asks.
    pub(super) asker: Asker,
    /// As whom its connection has to be counted still.
    pub(super) claims: Option<ClientKey>,
    /// Whether it passes on requests of others.
    pub(super) forwards: bool,
}

/// As whom a connection from an address counts; None: a listed proxy, which stands for many clients.
fn key(address: IpAddr, inlet: Inlet, shared: &Shared) -> Option<ClientKey> {
    let is_listed = shared.settings.proxy_from.contains(address) || forwards(address, inlet, shared);
    (!is_listed).then(|| ClientKey::of(address))
}

/// Whether the requests of an address say whose they are: only HTTP can.
fn forwards(address: IpAddr, inlet: Inlet, shared: &Shared) -> bool {
    inlet.protocol == Protocol::Doh && shared.settings.forwarded_from.contains(address)
}
