//! Accepts connections until the process is to end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::Inlet;
use super::admit::Door;
use super::drain;
use crate::telemetry::{Bound, Event};

/// How long an accept that failed for want of something is not tried again.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Error numbers of an accept where file descriptors ran out, of the process and of the machine: EMFILE and ENFILE,
/// which have no [`io::ErrorKind`] and the same numbers on every Unix.
const NO_DESCRIPTORS: [i32; 2] = [24, 23];

/// Accepts on one socket until the process is to end, then what its queue has already, and closes it.
pub(super) async fn run(listener: TcpListener, inlet: Inlet, door: &Door) {
    let admit = |(stream, address)| door.admit(inlet, stream, address);
    let count = || door.shared.telemetry.count(Event::Bound(Bound::Descriptors));
    accept(async || listener.accept().await, admit, count, drain::begins(door.phase.clone())).await;
    if let Err(error) = take_queue(listener, admit) {
        tracing::warn!(%error, "connections that waited for an accept at the drain were lost");
    }
}

/// Accepts until `drain` is ready. What runs out is waited for without spinning; `out_of_descriptors` is told.
async fn accept<T>(
    mut next: impl AsyncFnMut() -> io::Result<T>,
    mut admit: impl FnMut(T),
    out_of_descriptors: impl Fn(),
    drain: impl Future<Output = ()>,
) {
    let accepting = async {
        loop {
            match next().await {
                Ok(accepted) => admit(accepted),
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if error.raw_os_error().is_some_and(|number| NO_DESCRIPTORS.contains(&number)) {
                        out_of_descriptors();
                    }
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = drain => {}
    }
}

/// Whether a connection was gone before it was accepted: the next one may be sound.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Takes the connections whose clients have been let in by the kernel: closing the socket would reset them.
fn take_queue(listener: TcpListener, mut admit: impl FnMut((TcpStream, SocketAddr))) -> io::Result<()> {
    // The runtime's own accept trusts what it last heard of the socket; the kernel knows better.
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, address)) => {
                stream.set_nonblocking(true)?;
                admit((TcpStream::from_std(stream)?, address));
            }
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;
    use std::future::pending;

    use tokio::time::{Instant, timeout};

    use super::*;

    /// Plays a script of accepts; behind its end none comes.
    async fn play(script: Vec<io::Result<u8>>) -> (Vec<u8>, usize, Duration) {
        let script = RefCell::new(VecDeque::from(script));
        let accepted = RefCell::new(Vec::new());
        let ran_out = Cell::new(0);
        let start = Instant::now();
        let end = Cell::new(start);
        let next = async || {
            let step = script.borrow_mut().pop_front();
            end.set(Instant::now());
            match step {
                Some(step) => step,
                None => pending().await,
            }
        };
        let admit = |number| accepted.borrow_mut().push(number);
        let count = || ran_out.set(ran_out.get() + 1);
        let _ = timeout(Duration::from_secs(60), accept(next, admit, count, pending())).await;
        (accepted.into_inner(), ran_out.get(), end.get() - start)
    }

    #[tokio::test(start_paused = true)]
    async fn descriptors_that_run_out_are_waited_for() {
        let no_descriptor = || Err(io::Error::from_raw_os_error(24));
        let script = vec![Ok(1), no_descriptor(), no_descriptor(), Err(io::Error::from_raw_os_error(23)), Ok(2)];
        assert_eq!(play(script).await, (vec![1, 2], 3, 3 * BACK_OFF));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_gone_costs_no_wait() {
        let script = vec![Err(io::ErrorKind::ConnectionAborted.into()), Ok(1)];
        assert_eq!(play(script).await, (vec![1], 0, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn other_errors_are_waited_out_too() {
        let script = vec![Err(io::ErrorKind::OutOfMemory.into()), Ok(1)];
        assert_eq!(play(script).await, (vec![1], 0, BACK_OFF));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_it_while_it_backs_off() {
        let next = async || -> io::Result<()> { Err(io::Error::from_raw_os_error(24)) };
        let start = Instant::now();
        accept(next, |()| {}, || {}, tokio::time::sleep(Duration::from_millis(75))).await;
        assert_eq!(start.elapsed(), Duration::from_millis(75));
    }

    #[tokio::test]
    async fn what_waits_in_the_queue_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Connected by the kernel alone: the runtime has not looked at the socket yet.
        let clients: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let mut taken = Vec::new();
        take_queue(listener, |(_, address)| taken.push(address)).unwrap();
        let expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        assert_eq!(taken, expected);
        assert!(std::net::TcpStream::connect(address).is_err(), "the listener is closed");
    }
}
