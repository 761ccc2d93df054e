//! The loop: one thread, one poll, every connection.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

use super::connection::{Connection, End, Way};
use super::desk::Desk;
use super::histogram::Nanos;
use super::pace::{Rate, SECOND};
use super::tally::Wrong;

/// Handshakes at a time: more would only wait in the server's queue.
const HANDSHAKES_MAX: usize = 64;

/// How long no connection is begun after one that came to nothing.
const PAUSE: Nanos = SECOND / 10;

/// How long a connection may take to be made, and an answer to come; so long a run may last beyond its time.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long making all connections may take before what there is is loaded.
pub const RAMP_MAX: Duration = Duration::from_secs(60);

/// How often it is looked who has waited for too long, and how it goes is told.
const LOOK: Duration = Duration::from_millis(200);

/// The shortest time between two looks at the schedule: a query may leave so much later than it was due.
const TICK_MIN: Nanos = SECOND / 10_000;

/// Events taken at once.
const EVENTS_MAX: usize = 256;

/// What the schedule's timer is told by.
const TICK: Token = Token(usize::MAX);

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// How connections are made.
    pub way: Way,
    /// How many.
    pub connections: usize,
    /// From where, in turn.
    pub sources: Vec<IpAddr>,
    /// How fast queries are asked.
    pub rate: Rate,
    /// For how long.
    pub duration: Duration,
}

/// How it goes.
#[derive(Debug, Clone, Copy)]
pub struct Glance {
    /// Connections that are open, of those that are wanted.
    pub open: (usize, usize),
    /// How long the measured time has gone on, and how long it is; None: connections are still being made.
    pub elapsed: Option<(Duration, Duration)>,
    /// Answers a second, of the last second that is over.
    pub rate: f64,
    /// Median latency in it.
    pub p50: Nanos,
    /// The latency in it that 99 of 100 were not longer than.
    pub p99: Nanos,
    /// What went wrong so far.
    pub wrongs: u64,
}

/// The loop.
#[derive(Debug)]
pub struct Engine {
    plan: Plan,
    poll: Poll,
    timer: Option<OwnedFd>,
    /// What connections share, and what came of it all.
    pub desk: Desk,
    seats: Vec<Option<Connection>>,
    /// Seats whose connection is to be made.
    waiting: VecDeque<usize>,
    /// Seats whose first attempt has come to nothing yet, good or bad.
    untried: usize,
    is_tried: Vec<bool>,
    shaking: usize,
    open: usize,
    /// No connection is begun before.
    not_before: Nanos,
    has_opened: bool,
    /// At a rate: seats with room for a query, each once.
    free: VecDeque<usize>,
    is_free: Vec<bool>,
    /// CPU time of this thread when the measured time began, then what it took.
    cpu: Duration,
}

impl Engine {
    /// A loop that has done nothing yet.
    ///
    /// # Errors
    /// When the system has no poll for us.
    pub fn new(plan: Plan, desk: Desk) -> io::Result<Self> {
        let count = plan.connections;
        Ok(Self {
            poll: Poll::new()?,
            timer: None,
            desk,
            seats: (0..count).map(|_| None).collect(),
            waiting: (0..count).collect(),
            untried: count,
            is_tried: vec![false; count],
            shaking: 0,
            open: 0,
            not_before: 0,
            has_opened: false,
            free: VecDeque::new(),
            is_free: vec![false; count],
            cpu: Duration::ZERO,
            plan,
        })
    }

    /// Asks until the time is over or `stop` is set, and every query has come to something. Returns the CPU time that
    /// the measured time took.
    ///
    /// # Errors
    /// When not one connection could be made: a sentence.
    pub fn run(&mut self, stop: &AtomicBool, glance: &mut dyn FnMut(&Glance)) -> Result<Duration, String> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut next_look = 0;
        loop {
            self.desk.read_clock();
            self.dial()?;
            self.distribute()?;
            if let Err(error) = self.poll.poll(&mut events, Some(LOOK))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(format!("poll: {error}"));
            }
            self.desk.read_clock();
            for event in &events {
                self.wake(event)?;
            }
            if stop.load(Ordering::Relaxed) {
                self.desk.pace.stop(self.desk.now);
            }
            if self.desk.now >= next_look {
                next_look = self.desk.now + LOOK.as_nanos() as Nanos;
                self.look(glance)?;
            }
            if self.is_done() {
                return Ok(thread_cpu().saturating_sub(self.cpu));
            }
        }
    }

    fn is_done(&self) -> bool {
        let Some((_, end)) = self.desk.pace.span() else { return false };
        // What is under way comes to something within PATIENCE, as each look sees to.
        self.desk.now >= end && (self.desk.under_way == 0 || self.desk.now > end + 2 * PATIENCE.as_nanos() as Nanos)
    }

    /// Begins connections, as many as may be under way.
    fn dial(&mut self) -> Result<(), String> {
        while self.shaking < HANDSHAKES_MAX
            && self.desk.now >= self.not_before
            && !self.desk.pace.is_over(self.desk.now)
        {
            let Some(seat) = self.waiting.pop_front() else { break };
            let sources = &self.plan.sources;
            let from = (!sources.is_empty()).then(|| sources[seat % sources.len()]);
            match Connection::dial(&self.plan.way, from, self.poll.registry(), Token(seat), self.desk.now) {
                Ok(connection) => {
                    self.seats[seat] = Some(connection);
                    self.shaking += 1;
                }
                Err(error) => self.failed(seat, false, &End::Connect(error))?,
            }
        }
        self.begin_if_ready()
    }

    fn wake(&mut self, event: &Event) -> Result<(), String> {
        if event.token() == TICK {
            // A timer that is not read does not go on.
            let read = self.timer.as_ref().map(|timer| rustix::io::read(timer, &mut [0; 8]));
            debug_assert!(!matches!(read, Some(Ok(0))), "eight octets say how often it has expired");
            return Ok(());
        }
        let Token(seat) = event.token();
        let Some(connection) = self.seats.get_mut(seat).and_then(Option::as_mut) else { return Ok(()) };
        let was_open = connection.is_open();
        let fills = self.plan.rate == Rate::Max && self.desk.pace.span().is_some();
        let woken = connection.wake(event, &mut self.desk, fills);
        if !was_open && connection.is_open() {
            self.has_opened = true;
            self.shaking -= 1;
            self.open += 1;
            self.tried(seat);
        }
        match woken {
            Ok(()) => self.list(seat),
            Err(end) => self.end(seat, &end)?,
        }
        Ok(())
    }

    /// At a rate, a connection with room is on the list of those.
    fn list(&mut self, seat: usize) {
        if self.plan.rate == Rate::Max || self.is_free[seat] {
            return;
        }
        if self.seats[seat].as_ref().is_some_and(|connection| connection.room(&self.desk) > 0) {
            self.is_free[seat] = true;
            self.free.push_back(seat);
        }
    }

    /// At a rate, gives the queries that are due to connections with room, in turn.
    fn distribute(&mut self) -> Result<(), String> {
        if self.desk.pace.span().is_none() {
            return Ok(());
        }
        let mut given = Vec::new();
        while let Some(seat) = self.free.pop_front() {
            let room = |connection: &&mut Connection| connection.room(&self.desk) > 0;
            let Some(connection) = self.seats[seat].as_mut().filter(room) else {
                self.is_free[seat] = false;
                continue;
            };
            let Some(asked) = self.desk.take_due() else {
                self.free.push_front(seat);
                break;
            };
            connection.ask(asked, &self.desk);
            given.push(seat);
            self.free.push_back(seat);
        }
        given.sort_unstable();
        given.dedup();
        for seat in given {
            if let Some(Err(end)) = self.seats[seat].as_mut().map(Connection::flush) {
                self.end(seat, &end)?;
            }
        }
        Ok(())
    }

    /// Takes a connection's end; another is made in its place.
    fn end(&mut self, seat: usize, end: &End) -> Result<(), String> {
        let Some(connection) = self.seats[seat].take() else { return Ok(()) };
        let answered = connection.is_answered();
        if connection.is_open() {
            self.open -= 1
        } else {
            self.shaking -= 1
        };
        connection.end(&mut self.desk, end);
        self.failed(seat, answered, end)
    }

    fn failed(&mut self, seat: usize, was_answered: bool, end: &End) -> Result<(), String> {
        match told(end) {
            Some((_, words)) if !self.has_opened => return Err(words),
            Some((wrong, words)) => self.desk.tally.count(wrong, || words),
            None => {}
        }
        self.redial(seat, was_answered);
        Ok(())
    }

    fn redial(&mut self, seat: usize, was_answered: bool) {
        self.tried(seat);
        if !was_answered {
            self.not_before = self.desk.now + PAUSE;
        }
        self.waiting.push_back(seat);
    }

    fn tried(&mut self, seat: usize) {
        self.untried -= usize::from(!self.is_tried[seat]);
        self.is_tried[seat] = true;
    }

    /// Begins the measured time once every connection has been tried.
    fn begin_if_ready(&mut self) -> Result<(), String> {
        let late = self.desk.now >= RAMP_MAX.as_nanos() as Nanos;
        if self.desk.pace.span().is_some() || self.untried > 0 && !late {
            return Ok(());
        }
        let now = self.desk.now;
        self.desk.pace.begin(now, now + self.plan.duration.as_nanos() as Nanos);
        self.desk.tally.begin(now);
        self.cpu = thread_cpu();
        if let Rate::PerSecond(rate) = self.plan.rate {
            return self.start_timer(rate.get()).map_err(|error| format!("timer: {error}"));
        }
        for seat in 0..self.seats.len() {
            let Some(connection) = &mut self.seats[seat] else { continue };
            connection.fill(&mut self.desk);
            if let Err(end) = connection.flush() {
                self.end(seat, &end)?;
            }
        }
        Ok(())
    }

    fn start_timer(&mut self, rate: u32) -> io::Result<()> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let every = (SECOND / Nanos::from(rate)).max(TICK_MIN);
        let every = Timespec { tv_sec: (every / SECOND) as i64, tv_nsec: (every % SECOND) as _ };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: every, it_value: every })?;
        self.poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TICK, Interest::READABLE)?;
        self.timer = Some(timer);
        Ok(())
    }

    /// Gives up on what has waited for too long, and tells how it goes.
    fn look(&mut self, glance: &mut dyn FnMut(&Glance)) -> Result<(), String> {
        for seat in 0..self.seats.len() {
            let Some(connection) = &mut self.seats[seat] else { continue };
            match connection.expire(&mut self.desk, PATIENCE.as_nanos() as Nanos) {
                Ok(()) => self.list(seat),
                Err(end) => self.end(seat, &end)?,
            }
        }
        self.desk.tally.turn(self.desk.now);
        glance(&self.glance());
        Ok(())
    }

    fn glance(&self) -> Glance {
        let tally = &self.desk.tally;
        let elapsed = self.desk.pace.span().map(|(begin, end)| Duration::from_nanos(self.desk.now.min(end) - begin));
        let (second, of) = match tally.seconds.last() {
            Some(second) => (*second, 1.0),
            None => (tally.current_second(), elapsed.unwrap_or_default().as_secs_f64()),
        };
        Glance {
            open: (self.open, self.seats.len()),
            elapsed: elapsed.map(|elapsed| (elapsed, self.plan.duration)),
            rate: if of > 0.0 { second.answered as f64 / of } else { 0.0 },
            p50: second.p50,
            p99: second.p99,
            wrongs: tally.wrongs(),
        }
    }
}

/// What an end counts as, in words; None where nothing is wrong with it.
fn told(end: &End) -> Option<(Wrong, String)> {
    match end {
        End::Connect(error) => Some((Wrong::Connect, error.to_string())),
        End::Tls(error) => Some((Wrong::Tls, tls_words(error))),
        End::Handshake(what) => Some((Wrong::Tls, (*what).to_owned())),
        End::Fault(what) => Some((Wrong::Http, (*what).to_owned())),
        End::Closed | End::Spent => None,
    }
}

fn tls_words(error: &rustls::Error) -> String {
    use rustls::{AlertDescription, CertificateError as Bad};

    match error {
        // Of a CA with the same name it is the signature that does not fit.
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "the server's certificate is not by a CA of the --ca file".to_owned()
        }
        rustls::Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "the server's certificate is not for the name or address in TARGET".to_owned()
        }
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the server's certificate has expired".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the server speaks another protocol at this port (ALPN)".to_owned()
        }
        other => other.to_string(),
    }
}

/// The CPU time of this thread.
fn thread_cpu() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.unsigned_abs(), tv_nsec as u32)
}
