//! The tries for one client query: who is asked when, and whose answer counts.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::exchange::Budget;
use super::question::Question;
use super::server::Server;
use crate::dns::Rcode;
use crate::query::{Failure, Reply};

/// The most upstream queries for one client query: tries, those over TCP and those without OPT together. What NXNS
/// and TC loops feed on (attacks.md).
pub const UPSTREAM_QUERIES_MAX: u8 = 6;

/// The most tries at one upstream for one client query (RFC 9520 §3.1).
pub const TRIES_PER_SERVER_MAX: u8 = 3;

/// When two tries were silent, the next is made after this; each later one after twice the time before it.
const NEXT_TRY: Duration = Duration::from_secs(1);

/// A try, and whose it is: the place among the entrants.
type Try = Pin<Box<dyn Future<Output = (usize, Result<Reply<'static>, Failure>)> + Send>>;

/// Upstreams asked for the same thing; the first good answer wins.
pub(super) struct Race {
    question: Arc<Question>,
    until: Instant,
    budget: Arc<Budget>,
    /// Places for tries beside the latest.
    further: Arc<Semaphore>,
    entrants: Vec<Entrant>,
    tries: FuturesUnordered<Try>,
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
        servers: Vec<Arc<Server>>,
        question: Question,
        budget: Arc<Budget>,
        further: Arc<Semaphore>,
        until: Instant,
    ) -> Self {
        let now = Instant::now();
        let enter = |server| Entrant { server, tries: 0, first_try: now, failed: false };
        Self {
            question: Arc::new(question),
            until,
            budget,
            further,
            entrants: servers.into_iter().map(enter).collect(),
            tries: FuturesUnordered::new(),
            failure: None,
            impatient: 0,
            next_try: now,
        }
    }

    /// Runs to the first good answer, until every upstream has failed, or until the deadline: each try ends with it.
    pub(super) async fn run(mut self, heard_out: &Arc<Semaphore>) -> Result<Reply<'static>, Failure> {
        self.start(0);
        while !self.tries.is_empty() {
            let next = self.next_entrant();
            tokio::select! {
                biased;
                Some((place, outcome)) = self.tries.next() => match outcome {
                    Ok(reply) => {
                        self.won_by(place, heard_out);
                        return Ok(reply);
                    }
                    Err(failure) => self.failed(place, failure),
                },
                () = sleep_until(self.next_try), if next.is_some() => self.go_on(next),
            }
        }
        Err(self.failure.unwrap_or(Failure::Timeout))
    }

    fn start(&mut self, place: usize) {
        let now = Instant::now();
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
        let (server, question) = (Arc::clone(&entrant.server), Arc::clone(&self.question));
        let (budget, until) = (Arc::clone(&self.budget), self.until);
        let beside = self.make_room();
        self.tries.push(Box::pin(async move {
            let outcome = server.ask(&question, &budget, until).await;
            drop(beside);
            (place, outcome)
        }));
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
        match next.filter(|_| self.budget.is_left()) {
            Some(place) => self.start(place),
            None => self.next_try = self.until,
        }
    }

    /// Somebody said no: another is asked at once, if there is one that was not.
    fn failed(&mut self, place: usize, failure: Failure) {
        self.failure = Some(self.failure.map_or(failure, |known| more_telling(known, failure)));
        if failure == Failure::Timeout && Instant::now() >= self.until {
            return;
        }
        self.entrants[place].failed = true;
        if self.entrants.iter().all(|entrant| entrant.failed) {
            self.tries.clear();
            return;
        }
        let untried = self.entrants.iter().position(|entrant| entrant.tries == 0);
        if let Some(untried) = untried.filter(|_| self.budget.is_left()) {
            self.start(untried);
        }
    }

    /// The others learn from it. Their tries go on for a while, because only what comes of them tells a slow upstream
    /// from a dead one.
    fn won_by(self, winner: usize, heard_out: &Arc<Semaphore>) {
        let now = Instant::now();
        for (place, entrant) in self.entrants.iter().enumerate() {
            if place == winner || entrant.tries == 0 {
                continue;
            }
            if entrant.failed {
                entrant.server.corrected();
            } else {
                entrant.server.slower_than(now - entrant.first_try);
            }
        }
        if !self.tries.is_empty()
            && let Ok(permit) = Arc::clone(heard_out).try_acquire_owned()
        {
            tokio::spawn(async move {
                self.tries.for_each(|_| std::future::ready(())).await;
                drop(permit);
            });
        }
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
