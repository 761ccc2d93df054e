//! Sockets and ports of loopback.

use std::io;
use std::iter::repeat_with;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use socket2::{Domain, Socket, Type};

/// A connection to a port of 127.0.0.1 from a loopback address.
pub fn connect_from(source: [u8; 4], port: u16) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket.into())
}

/// Ports of TCP and UDP that were free a moment ago, all different.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| bind_both());
    held.each_ref().map(|(socket, _)| socket.local_addr().unwrap().port())
}

/// A UDP and a TCP socket on the same port.
pub(super) fn bind_both() -> (UdpSocket, TcpListener) {
    repeat_with(try_bind_both).take(BINDS_MAX).flatten().next().expect("a port that is free for both")
}

/// How often a port is looked for.
const BINDS_MAX: usize = 1_000;

/// Browsers refuse some ports; none is above this, and the kernel's own are.
const REFUSED_PORT_MAX: u16 = 32_000;

fn try_bind_both() -> Option<(UdpSocket, TcpListener)> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listener = TcpListener::bind(address).ok()?;
    (address.port() > REFUSED_PORT_MAX).then_some((socket, listener))
}
