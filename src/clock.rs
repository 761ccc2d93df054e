//! The two clocks, read at the edges and handed in everywhere else.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::query::Now;

/// Reads the clocks. In tests it follows tokio's paused time, and the time of day with it.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    /// In simulated time: the time of day at `start`.
    wall_at_start: Option<Timestamp>,
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self { start: Instant::now(), wall_at_start: None }
    }

    /// A clock whose time of day is `wall` now and goes on with tokio's time, paused or not.
    #[must_use]
    pub fn simulated(wall: Timestamp) -> Self {
        Self { start: Instant::now(), wall_at_start: Some(wall) }
    }

    /// Time since the process began.
    #[must_use]
    pub fn mono(&self) -> Duration {
        self.start.elapsed()
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = self.mono();
        Now { mono, wall: self.wall_at_start.map_or_else(Timestamp::now, |wall| later(wall, mono)) }
    }

    /// The moment of tokio's clock that is `mono` of ours.
    #[must_use]
    pub fn instant(&self, mono: Duration) -> Instant {
        self.start + mono
    }
}

fn later(wall: Timestamp, mono: Duration) -> Timestamp {
    wall.saturating_add(mono).unwrap_or(Timestamp::MAX)
}
