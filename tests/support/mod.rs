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

use std::time::Duration;

pub use dot::{Dot, Tap};
pub use message::{Answer, framed, query, query_with_opt};
pub use server::{Server, lay_over};
pub use sockets::{connect_from, free_ports};
pub use upstream::{Asked, Play, Upstream};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);
