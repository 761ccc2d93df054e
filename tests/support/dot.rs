//! A client's side of DNS over TLS.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;

use bailiwick::dns::{HEADER_OCTETS, Qtype};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{Answer, PATIENCE, framed, query};

/// A client's DoT connection.
pub struct Dot {
    pub tls: StreamOwned<ClientConnection, Tap>,
}

impl Dot {
    /// Shakes hands over a socket. A server that just closes is an error.
    pub fn connect(socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Self> {
        Self::connect_behind(&[], socket, config)
    }

    /// The same, with these octets in one write before its own.
    pub fn connect_behind(before: &[u8], mut socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut first = before.to_vec();
        connection.write_tls(&mut first)?;
        socket.write_all(&first)?;
        let mut tls = StreamOwned::new(connection, Tap { socket, received: Vec::new() });
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self { tls })
    }

    /// Sends octets in one write.
    pub fn send(&mut self, octets: &[u8]) {
        self.tls.write_all(octets).unwrap();
        self.tls.flush().unwrap();
    }

    /// Sends queries in one write.
    pub fn ask(&mut self, queries: &[Vec<u8>]) {
        self.send(&framed(queries));
    }

    /// The next answer.
    pub fn receive(&mut self) -> Answer {
        Answer::read(self.receive_octets())
    }

    /// The next answer, whatever it is.
    pub fn receive_octets(&mut self) -> Vec<u8> {
        let mut length = [0; 2];
        self.tls.read_exact(&mut length).unwrap();
        let mut octets = vec![0; u16::from_be_bytes(length).into()];
        self.tls.read_exact(&mut octets).unwrap();
        octets
    }

    /// Asks for an A record and waits for the answer; Err where the connection is no use.
    pub fn try_ask(&mut self, id: u16, name: &str) -> io::Result<()> {
        self.tls.write_all(&framed(&[query(id, name, Qtype::A)]))?;
        self.tls.flush()?;
        self.tls.read_exact(&mut [0; HEADER_OCTETS])
    }

    /// Waits for the server's close_notify, behind which nothing may come; an error where it just closes.
    pub fn end(&mut self) -> io::Result<()> {
        match self.tls.read(&mut [0; 1])? {
            0 => Ok(()),
            _ => Err(io::Error::other("octets where the end should be")),
        }
    }

    /// Says that no more queries come: close_notify and FIN; answers still do.
    pub fn half_close(&mut self) {
        self.tls.conn.send_close_notify();
        self.tls.flush().unwrap();
        self.tls.sock.socket.shutdown(Shutdown::Write).unwrap();
    }
}

/// A socket that keeps what it received.
pub struct Tap {
    pub socket: TcpStream,
    received: Vec<u8>,
}

impl Tap {
    /// How many TLS records of a content type came (23: application data; in TLS 1.3 tickets are that too).
    pub fn records(&self, content_type: u8) -> usize {
        let (mut rest, mut found) = (self.received.as_slice(), 0);
        while let [kind, _, _, l1, l0, body @ ..] = rest {
            found += usize::from(*kind == content_type);
            rest = body.get(usize::from(u16::from_be_bytes([*l1, *l0]))..).unwrap_or_default();
        }
        found
    }
}

impl Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.socket.read(buffer)?;
        self.received.extend(&buffer[..length]);
        Ok(length)
    }
}

impl Write for Tap {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.socket.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
