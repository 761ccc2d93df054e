//! The real binary with a scripted upstream, and a client's side of its transports.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each file of tests uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a failed test shows the server's log")]

mod dot;
pub mod http;
mod message;
mod server;
mod sockets;
mod upstream;

use std::thread::sleep;
use std::time::{Duration, Instant};

pub use dot::{Dot, Tap};
pub use message::{Answer, framed, query, query_with_opt};
pub use server::{Server, lay_over};
pub use sockets::{connect_from, free_ports};
pub use upstream::{Asked, Play, Upstream};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    found(what, || holds().then_some(()));
}

/// Waits until there is something to find.
pub fn found<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        sleep(LOOK);
    }
}
