//! What is known of one upstream from what it answered: its usual round trip, and whether it is up.

use std::time::Duration;

use tokio::time::Instant;

/// So many different names in turn, unanswered and with no answer between them, and the upstream is down. Names, not
/// questions: a browser asks three types of one dead name at once.
const SILENT_NAMES_DOWN: usize = 4;

/// So many errors of the network in turn with no answer between them, and the upstream is down.
const REFUSALS_DOWN: u8 = 2;

/// A try that waited less says nothing about its upstream when it ends.
const SILENCE_MIN: Duration = Duration::from_millis(500);

/// What an unmeasured upstream is taken to need: slower than a good one, faster than a bad one.
const UNMEASURED: Duration = Duration::from_millis(100);

/// A second try is made after so many usual round trips…
const PATIENCE_ROUND_TRIPS: u32 = 3;
/// …but not before this…
const PATIENCE_MIN: Duration = Duration::from_millis(50);
/// …and not after that.
const PATIENCE_MAX: Duration = Duration::from_millis(300);

/// A new measurement counts for one part in so many of the smoothed round trip.
const SMOOTHING: u32 = 8;

/// A core without sockets and clock: moments are handed in.
#[derive(Debug)]
pub(super) struct Health {
    up: bool,
    round_trip: Option<Duration>,
    last_heard: Option<Instant>,
    /// Hashes of the different names that were not answered since `last_heard`.
    silent: Vec<u64>,
    /// Errors of the network since `last_heard`.
    refusals: u8,
}

/// The upstream went up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Up,
    Down,
}

impl Health {
    /// Nothing is known: up, until the contrary shows.
    pub(super) const fn new() -> Self {
        Self { up: true, round_trip: None, last_heard: None, silent: Vec::new(), refusals: 0 }
    }

    pub(super) const fn is_up(&self) -> bool {
        self.up
    }

    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// What upstreams are preferred by.
    pub(super) fn expected_round_trip(&self) -> Duration {
        self.round_trip.unwrap_or(UNMEASURED)
    }

    /// How long to wait for an answer before another try is made beside.
    pub(super) fn patience(&self) -> Duration {
        self.round_trip.map_or(PATIENCE_MAX, |usual| (usual * PATIENCE_ROUND_TRIPS).clamp(PATIENCE_MIN, PATIENCE_MAX))
    }

    /// Something that matches came, whatever it says.
    pub(super) fn heard(&mut self, now: Instant) -> Option<Change> {
        self.last_heard = Some(now);
        self.silent.clear();
        self.refusals = 0;
        let was_up = std::mem::replace(&mut self.up, true);
        (!was_up).then_some(Change::Up)
    }

    /// A good answer came, and took so long.
    pub(super) fn answered(&mut self, took: Duration, now: Instant) -> Option<Change> {
        self.measured(took);
        self.heard(now)
    }

    /// A good answer took so long.
    pub(super) fn measured(&mut self, took: Duration) {
        self.round_trip = Some(self.round_trip.map_or(took, |usual| (usual * (SMOOTHING - 1) + took) / SMOOTHING));
    }

    /// An answer takes at least so long: another upstream was faster, or had to be asked.
    pub(super) fn slower_than(&mut self, waited: Duration) {
        if self.expected_round_trip() < waited {
            self.measured(waited);
        }
    }

    /// A question that was asked at `since` was not answered until `now`.
    pub(super) fn silent(&mut self, name: u64, since: Instant, now: Instant) -> Option<Change> {
        // Who answered others meanwhile is there; it is the name that is dead.
        let answered_others = self.last_heard.is_some_and(|heard| heard >= since);
        if answered_others || now.duration_since(since) < SILENCE_MIN || self.silent.contains(&name) {
            return None;
        }
        if self.silent.len() < SILENT_NAMES_DOWN {
            self.silent.push(name);
        }
        if self.silent.len() >= SILENT_NAMES_DOWN { self.down() } else { None }
    }

    /// The network said that nobody is there.
    pub(super) fn refused(&mut self) -> Option<Change> {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals >= REFUSALS_DOWN { self.down() } else { None }
    }

    fn down(&mut self) -> Option<Change> {
        std::mem::replace(&mut self.up, false).then_some(Change::Down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn patience_is_three_round_trips_within_bounds() {
        let mut health = Health::new();
        assert_eq!(health.patience(), 300 * MS);
        for (round_trip, patience) in [(1, 50), (16, 50), (17, 51), (99, 297), (101, 300), (4000, 300)] {
            health.round_trip = Some(round_trip * MS);
            assert_eq!(health.patience(), patience * MS);
        }
    }

    #[test]
    fn round_trips_are_smoothed() {
        let mut health = Health::new();
        health.measured(80 * MS);
        assert_eq!(health.round_trip(), Some(80 * MS));
        health.measured(160 * MS);
        assert_eq!(health.round_trip(), Some(90 * MS));
        health.slower_than(50 * MS);
        assert_eq!(health.round_trip(), Some(90 * MS), "that it takes at least 50 ms is nothing new");
        health.slower_than(170 * MS);
        assert_eq!(health.round_trip(), Some(100 * MS));
    }

    #[test]
    fn one_dead_name_does_not_make_it_down() {
        let (mut health, start) = (Health::new(), Instant::now());
        for _ in 0..100 {
            assert_eq!(health.silent(1, start, start + 5000 * MS), None);
        }
        assert!(health.is_up());
    }

    #[test]
    fn different_names_with_no_answer_between_do() {
        let (mut health, start) = (Health::new(), Instant::now());
        let names = SILENT_NAMES_DOWN as u64;
        for name in 1..names {
            assert_eq!(health.silent(name, start, start + 5000 * MS), None);
        }
        assert_eq!(health.heard(start), None);
        for name in 1..names {
            assert_eq!(health.silent(name, start + MS, start + 5000 * MS), None, "an answer was between");
        }
        assert_eq!(health.silent(names, start + MS, start + 5000 * MS), Some(Change::Down));
        assert_eq!(health.silent(names + 1, start + MS, start + 5000 * MS), None, "once");
        assert_eq!(health.heard(start + 6000 * MS), Some(Change::Up));
    }

    #[test]
    fn silences_that_tell_nothing_are_not_counted() {
        let (mut health, start) = (Health::new(), Instant::now());
        let _ = health.heard(start + 1000 * MS);
        for name in 0..20 {
            assert_eq!(health.silent(name, start, start + 5000 * MS), None, "others were answered since");
            assert_eq!(health.silent(name, start + 4900 * MS, start + 5000 * MS), None, "too short");
        }
    }

    #[test]
    fn the_network_is_believed_sooner() {
        let mut health = Health::new();
        assert_eq!(health.refused(), None);
        assert_eq!(health.heard(Instant::now()), None);
        assert_eq!(health.refused(), None);
        assert_eq!(health.refused(), Some(Change::Down));
        assert_eq!(health.refused(), None);
    }
}
