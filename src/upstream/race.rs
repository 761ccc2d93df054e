//! The tries for one client query: who is asked when, and whose answer counts.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::exchange::{End, Errand, Exchange};
use super::server::{Server, Servers};
use crate::dns::Rcode;
use crate::query::Failure;

/// The most upstream queries for one client query: tries, those over TCP and those without OPT together. What NXNS
/// and TC loops feed on (attacks.md).
pub const UPSTREAM_QUERIES_MAX: u8 = 6;

/// The most tries at one upstream for one client query (RFC 9520 §3.1).
pub const TRIES_PER_SERVER_MAX: u8 = 3;

/// When two tries were silent, the next is made after this; each later one after twice the time before it.
const NEXT_TRY: Duration = Duration::from_secs(1);

/// A try under way.
struct Try {
    /// The place of its upstream among the entrants.
    place: usize,
    since: Instant,
    exchange: Exchange,
    /// Its place beside the latest of its query.
    _beside: Option<OwnedSemaphorePermit>,
}

/// Upstreams asked for the same thing; the first good answer wins.
pub(super) struct Race {
    errand: Arc<Errand>,
    until: Instant,
    /// Places for tries beside the latest.
    further: Arc<Semaphore>,
    entrants: SmallVec<[Entrant; 1]>,
    /// At most as many as the budget has queries.
    tries: SmallVec<[Try; 1]>,
    /// The most telling failure so far.
    failure: Option<Failure>,
    /// Tries made because those before were silent.
    impatient: u32,
    next_try: Instant,
}

/// An upstream in a race.
struct Entrant {
    server: Arc<Server>,
    tries: u8,
    first_try: Instant,
    /// It said something that is no good answer.
    failed: bool,
}

impl Race {
    /// `servers` in the order in which they are to be asked; at least one.
    pub(super) fn new(
        servers: Servers,
        errand: &Arc<Errand>,
        further: Arc<Semaphore>,
        [now, until]: [Instant; 2],
    ) -> Self {
        let enter = |server| Entrant { server, tries: 0, first_try: now, failed: false };
        Self {
            errand: Arc::clone(errand),
            until,
            further,
            entrants: servers.into_iter().map(enter).collect(),
            tries: SmallVec::new(),
            failure: None,
            impatient: 0,
            next_try: now,
        }
    }

    /// Runs to the first good answer, until every upstream has failed, or until the deadline: each try ends with it.
    pub(super) async fn run(&mut self) -> End {
        self.start(0, self.next_try);
        while !self.tries.is_empty() {
            let next = self.next_entrant();
            let moment = if next.is_some() { self.next_try } else { self.until };
            match self.next_end(moment).await {
                Some((place, Ok(reply))) => {
                    self.won_by(place);
                    return Ok(reply);
                }
                Some((place, Err(failure))) => self.failed(place, failure),
                None if next.is_some() => self.go_on(next),
                None => self.time_out(),
            }
        }
        Err(self.failure.unwrap_or(Failure::Timeout))
    }

    /// What the next try comes to that ends, and whose it was. None: none ends before `moment`.
    async fn next_end(&mut self, moment: Instant) -> Option<(usize, End)> {
        let Self { tries, entrants, errand, .. } = self;
        let ended = poll_fn(|context| {
            let ended = tries.iter_mut().enumerate().find_map(|(nth, each)| {
                match each.exchange.poll(context, &entrants[each.place].server, errand) {
                    Poll::Ready(outcome) => Some((nth, outcome)),
                    Poll::Pending => None,
                }
            });
            ended.map_or(Poll::Pending, |(nth, outcome)| Poll::Ready((tries.swap_remove(nth), outcome)))
        });
        let (ended, outcome) = timeout_at(moment, ended).await.ok()?;
        self.entrants[ended.place].server.remember(self.errand.question(), ended.since, &outcome);
        Some((ended.place, outcome))
    }

    /// It is the deadline, and the tries under way were silent.
    fn time_out(&mut self) {
        let silence = Err(Failure::Timeout);
        for each in self.tries.drain(..) {
            self.entrants[each.place].server.remember(self.errand.question(), each.since, &silence);
        }
        self.note(Failure::Timeout);
    }

    fn start(&mut self, place: usize, now: Instant) {
        let entrant = &mut self.entrants[place];
        if entrant.tries == 0 {
            entrant.first_try = now;
        }
        entrant.tries += 1;
        self.next_try = now
            + match self.impatient {
                0 => entrant.server.patience(),
                made => NEXT_TRY * 2u32.saturating_pow(made - 1),
            };
        let exchange = Exchange::begin(&entrant.server, &self.errand, now);
        let _beside = self.make_room();
        self.tries.push(Try { place, since: now, exchange, _beside });
    }

    /// A place for a try beside those under way. Where none is left, those end: they were silent so far.
    fn make_room(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.tries.is_empty() {
            return None;
        }
        let permit = Arc::clone(&self.further).try_acquire_owned().ok();
        if permit.is_none() {
            self.tries.clear();
        }
        permit
    }

    /// Who is asked when the tries so far are silent: who was asked least, the preferred one first.
    fn next_entrant(&self) -> Option<usize> {
        if self.next_try >= self.until {
            return None;
        }
        let may_be_asked = |entrant: &Entrant| !entrant.failed && entrant.tries < TRIES_PER_SERVER_MAX;
        let entrants = self.entrants.iter().enumerate().filter(|(_, entrant)| may_be_asked(entrant));
        entrants.min_by_key(|(_, entrant)| entrant.tries).map(|(place, _)| place)
    }

    /// The tries so far are silent.
    fn go_on(&mut self, next: Option<usize>) {
        self.impatient += 1;
        match next.filter(|_| self.errand.budget.is_left()) {
            Some(place) => self.start(place, Instant::now()),
            None => self.next_try = self.until,
        }
    }

    /// Somebody said no: another is asked at once, if there is one that was not.
    fn failed(&mut self, place: usize, failure: Failure) {
        self.note(failure);
        self.entrants[place].failed = true;
        if self.entrants.iter().all(|entrant| entrant.failed) {
            self.tries.clear();
            return;
        }
        let untried = self.entrants.iter().position(|entrant| entrant.tries == 0);
        if let Some(untried) = untried.filter(|_| self.errand.budget.is_left()) {
            self.start(untried, Instant::now());
        }
    }

    fn note(&mut self, failure: Failure) {
        self.failure = Some(self.failure.map_or(failure, |known| more_telling(known, failure)));
    }

    /// The others learn from it.
    fn won_by(&self, winner: usize) {
        for (place, entrant) in self.entrants.iter().enumerate() {
            if place == winner || entrant.tries == 0 {
                continue;
            }
            if entrant.failed {
                entrant.server.corrected();
            } else {
                entrant.server.slower_than(entrant.first_try.elapsed());
            }
        }
    }

    /// Whether more would have been asked than the budget had.
    pub(super) fn is_over_budget(&self) -> bool {
        self.errand.budget.has_bitten()
    }

    /// Whether it was won while others were still being asked.
    pub(super) fn is_under_way(&self) -> bool {
        !self.tries.is_empty()
    }

    /// The tries under way go on for a while, because only what comes of them tells a slow upstream from a dead one.
    pub(super) fn hear_out(mut self, places: &Arc<Semaphore>) {
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else { return };
        tokio::spawn(async move {
            while self.is_under_way() && self.next_end(self.until).await.is_some() {}
            self.time_out();
            drop(permit);
        });
    }
}

/// Of two failures the one that says more about why: an RCODE before silence, SERVFAIL before the others (it is about
/// the name, they are about us), silence before what the network said.
fn more_telling(one: Failure, other: Failure) -> Failure {
    let weight = |failure| match failure {
        Failure::Upstream(Rcode::SERVFAIL) => 6,
        Failure::Upstream(Rcode::REFUSED) => 5,
        Failure::Upstream(_) => 4,
        Failure::Timeout => 3,
        Failure::Network => 2,
        Failure::Overloaded => 1,
        Failure::NoUpstream | Failure::Internal => 0,
    };
    if weight(other) > weight(one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_telling_failure_is_told() {
        let in_order = [
            Failure::Overloaded,
            Failure::Network,
            Failure::Timeout,
            Failure::Upstream(Rcode::NOTIMP),
            Failure::Upstream(Rcode::REFUSED),
            Failure::Upstream(Rcode::SERVFAIL),
        ];
        for pair in in_order.windows(2) {
            assert_eq!(more_telling(pair[0], pair[1]), pair[1]);
            assert_eq!(more_telling(pair[1], pair[0]), pair[1]);
        }
    }
}
