//! TLS on a connection: records that came are opened where they stand, those that go are sealed into one buffer.

use std::fmt;
use std::mem;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, Error, HandshakeKind};

/// What a record takes beside what it carries: its head, its type, its tag, a nonce in TLS 1.2; with room to spare.
const RECORD_OCTETS: usize = 64;

/// What a record carries at most.
const FRAGMENT_OCTETS: usize = 16 * 1_024;

/// TLS's side of a connection.
pub struct Tls {
    connection: UnbufferedClientConnection,
    /// The beginning of a record whose rest has not come.
    held: Vec<u8>,
    /// Records that are to be sent.
    pub out: Vec<u8>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys are nobody's business.
        f.debug_struct("Tls").field("out", &self.out.len()).finish_non_exhaustive()
    }
}

/// How far a look at what came has led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many octets are done with, and there may be more to see.
    More(usize),
    /// So many are, and the rest is no whole record.
    Done(usize),
    /// The server has ended it.
    Closed,
}

/// What is to be sealed.
#[derive(Debug, Clone, Copy)]
enum Say<'a> {
    Nothing,
    Data(&'a [u8]),
    /// close_notify.
    End,
}

impl Tls {
    /// Begins a handshake: the first record is there to be sent.
    ///
    /// # Errors
    /// When the settings do not allow one.
    pub fn new(config: &Arc<ClientConfig>, name: &ServerName<'static>) -> Result<Self, Error> {
        let connection = UnbufferedClientConnection::new(Arc::clone(config), name.clone())?;
        let mut tls = Self { connection, held: Vec::new(), out: Vec::new() };
        tls.say(Say::Nothing)?;
        Ok(tls)
    }

    /// Whether nothing can be said or heard yet.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Which protocol the server has chosen.
    #[must_use]
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Whether it was resumed.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What has come in part and `octets` behind it, if anything has: what is left of that is to be held.
    pub fn with_held(&mut self, octets: &[u8]) -> Option<Vec<u8>> {
        if self.held.is_empty() {
            return None;
        }
        let mut all = mem::take(&mut self.held);
        all.extend_from_slice(octets);
        Some(all)
    }

    /// Keeps what is no whole record yet.
    pub fn hold(&mut self, rest: &[u8]) {
        self.held.extend_from_slice(rest);
    }

    /// Takes the next step with what has come; `hear` hears what was said.
    ///
    /// # Errors
    /// When it is no TLS, or nothing that should be said; an alert is to be sent then. And what `hear` finds wrong.
    pub fn step<E: From<Error>>(
        &mut self,
        octets: &mut [u8],
        hear: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Step, E> {
        step(&mut self.connection, octets, &mut self.out, Say::Nothing, hear)
    }

    /// Seals what is to be said behind what is to be sent.
    ///
    /// # Errors
    /// When nothing can be said any more.
    pub fn seal(&mut self, data: &[u8]) -> Result<(), Error> {
        self.say(Say::Data(data))
    }

    /// Says that nothing more will be said.
    ///
    /// # Errors
    /// When nothing can be said any more.
    pub fn end(&mut self) -> Result<(), Error> {
        self.say(Say::End)
    }

    fn say(&mut self, what: Say<'_>) -> Result<(), Error> {
        let Self { connection, held, out } = self;
        // All whole records were seen: there is nothing to hear.
        while let Step::More(_) = step(connection, held, out, what, |_| Ok::<_, Error>(()))? {}
        Ok(())
    }
}

fn step<E: From<Error>>(
    connection: &mut UnbufferedClientConnection,
    octets: &mut [u8],
    out: &mut Vec<u8>,
    say: Say<'_>,
    mut hear: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Step, E> {
    let UnbufferedStatus { mut discard, state } = connection.process_tls_records(octets);
    let state = match state {
        Ok(state) => state,
        Err(error) => {
            // The server hears why, if that is to be said: it is the first that is to be encoded.
            let alert = connection.process_tls_records(&mut octets[discard..]).state;
            if let Ok(ConnectionState::EncodeTlsData(mut alert)) = alert {
                append(out, 0, |room| alert.encode(room).map_err(missing_of_encode))?;
            }
            return Err(error.into());
        }
    };
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                hear(record.payload)?;
                discard += record.discard;
            }
        }
        ConnectionState::EncodeTlsData(mut data) => {
            append(out, 0, |room| data.encode(room).map_err(missing_of_encode))?;
        }
        // What was encoded stands in `out`, and is sent before what will stand behind it.
        ConnectionState::TransmitTlsData(data) => data.done(),
        ConnectionState::WriteTraffic(traffic) => {
            write(traffic, out, say)?;
            return Ok(Step::Done(discard));
        }
        ConnectionState::PeerClosed | ConnectionState::Closed => return Ok(Step::Closed),
        // The handshake waits for more; early data is nothing that a client hears.
        _ => return Ok(Step::Done(discard)),
    }
    Ok(Step::More(discard))
}

fn write(mut traffic: WriteTraffic<'_, ClientConnectionData>, out: &mut Vec<u8>, say: Say<'_>) -> Result<(), Error> {
    match say {
        Say::Nothing => Ok(()),
        Say::Data(data) => {
            let records = 1 + data.len() / FRAGMENT_OCTETS;
            append(out, data.len() + records * RECORD_OCTETS, |room| {
                traffic.encrypt(data, room).map_err(missing_of_encrypt)
            })
        }
        Say::End => append(out, RECORD_OCTETS, |room| traffic.queue_close_notify(room).map_err(missing_of_encrypt)),
    }
}

/// Appends what `put` puts into the room that it is given, or into as much as it says that it needs.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut put: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Error> {
    let at = out.len();
    out.resize(at + room, 0);
    let mut put_at = |out: &mut Vec<u8>| put(&mut out[at..]);
    let result = match put_at(out) {
        Err(Some(needed)) => {
            out.resize(at + needed, 0);
            put_at(out)
        }
        result => result,
    };
    out.truncate(at + result.unwrap_or(0));
    result.map(drop).map_err(|_| Error::EncryptError)
}

const fn missing_of_encode(error: EncodeError) -> Option<usize> {
    match error {
        EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncodeError::AlreadyEncoded => None,
    }
}

const fn missing_of_encrypt(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => Some(required_size),
        EncryptError::EncryptExhausted => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::{Read, Write};

    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::version::{TLS12, TLS13};
    use rustls::{RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion};

    use super::*;

    /// A client and a server, and nothing between them.
    struct Pair {
        client: Tls,
        server: ServerConnection,
        asked: Vec<u8>,
        heard: Vec<u8>,
    }

    impl Pair {
        fn new(version: &'static SupportedProtocolVersion) -> Self {
            let made = rcgen::generate_simple_self_signed(vec!["dns.example".to_owned()]).unwrap();
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            let mut roots = RootCertStore::empty();
            roots.add(made.cert.der().clone()).unwrap();
            let server = ServerConfig::builder_with_protocol_versions(&[version])
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key.into())
                .unwrap();
            let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            let client = Tls::new(&Arc::new(client), &"dns.example".try_into().unwrap()).unwrap();
            let server = ServerConnection::new(Arc::new(server)).unwrap();
            Self { client, server, asked: Vec::new(), heard: Vec::new() }
        }

        /// Carries over what either has to say, so many octets at a time, until both are silent.
        fn talk(&mut self, piece: usize) -> Result<Step, Error> {
            let mut last = Step::Done(0);
            loop {
                let mut said = mem::take(&mut self.client.out);
                let mut rest = &said[..];
                while !rest.is_empty() {
                    self.server.read_tls(&mut rest).unwrap();
                    self.server.process_new_packets()?;
                    // It ends where nothing more is there yet.
                    let _ = self.server.reader().read_to_end(&mut self.asked);
                }
                said.clear();
                while self.server.wants_write() {
                    self.server.write_tls(&mut said).unwrap();
                }
                if said.is_empty() {
                    return Ok(last);
                }
                for octets in said.chunks_mut(piece) {
                    last = self.hear(octets)?;
                }
            }
        }

        fn hear(&mut self, octets: &mut [u8]) -> Result<Step, Error> {
            let Self { client, heard, .. } = self;
            let mut held = client.with_held(octets);
            let octets = held.as_deref_mut().unwrap_or(octets);
            let mut at = 0;
            let last = loop {
                let step = client.step(&mut octets[at..], |data| {
                    heard.extend_from_slice(data);
                    Ok::<_, Error>(())
                })?;
                match step {
                    Step::More(used) => at += used,
                    Step::Done(used) => {
                        at += used;
                        break step;
                    }
                    Step::Closed => return Ok(step),
                }
            };
            client.hold(&octets[at..]);
            Ok(last)
        }
    }

    #[test]
    fn what_comes_in_pieces_is_heard_whole() {
        for version in [&TLS12, &TLS13] {
            for piece in [1, 7, 1_000, 100_000] {
                let mut pair = Pair::new(version);
                assert!(pair.client.is_handshaking());
                pair.talk(piece).unwrap();
                assert!(!pair.client.is_handshaking() && !pair.client.is_resumed());
                let long = vec![7; 3 * FRAGMENT_OCTETS];
                for said in [&b"query"[..], &long, b"query"] {
                    pair.client.seal(said).unwrap();
                    pair.talk(piece).unwrap();
                    assert!(mem::take(&mut pair.asked) == said, "{version:?} {piece} {}", said.len());
                    pair.server.writer().write_all(said).unwrap();
                    pair.talk(piece).unwrap();
                    assert!(mem::take(&mut pair.heard) == said, "{version:?} {piece} {}", said.len());
                }
                pair.client.end().unwrap();
                pair.server.read_tls(&mut &pair.client.out[..]).unwrap();
                assert!(pair.server.process_new_packets().unwrap().peer_has_closed());
                pair.client.out.clear();
                pair.server.send_close_notify();
                assert_eq!(pair.talk(piece), Ok(Step::Closed));
            }
        }
    }

    #[test]
    fn new_keys_are_answered_by_new_keys() {
        let mut pair = Pair::new(&TLS13);
        pair.talk(100).unwrap();
        for _ in 0..3 {
            pair.server.refresh_traffic_keys().unwrap();
            pair.server.writer().write_all(b"answer").unwrap();
            pair.talk(100).unwrap();
            pair.client.seal(b"query").unwrap();
            pair.talk(100).unwrap();
            let (heard, asked) = (mem::take(&mut pair.heard), mem::take(&mut pair.asked));
            assert_eq!((&heard[..], &asked[..]), (&b"answer"[..], &b"query"[..]));
        }
    }

    #[test]
    fn the_server_hears_why_nothing_more_is_heard() {
        let mut pair = Pair::new(&TLS13);
        pair.talk(100).unwrap();
        pair.server.writer().write_all(b"answer").unwrap();
        let mut said = Vec::new();
        pair.server.write_tls(&mut said).unwrap();
        *said.last_mut().unwrap() ^= 1;
        assert_eq!(pair.hear(&mut said), Err(Error::DecryptError));
        let heard = pair.talk(100).unwrap_err();
        assert_eq!(heard, Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
        assert!(pair.heard.is_empty());
    }
}
