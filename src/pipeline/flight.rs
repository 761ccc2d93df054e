//! Identical questions in flight: one task asks, every asker shares what comes of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use tokio::sync::watch;

use crate::dns::message::flag;
use crate::dns::{Qclass, Qtype};
use crate::policy::{Findings, Permitted};
use crate::query::{Failure, Reply};

/// Like the cache's: so that cores do not queue.
const SHARDS: usize = 64;

/// What asking came to.
pub(super) type Outcome = Result<(Reply<'static>, Findings), Failure>;

/// One question, as the cache tells questions apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    qname: Box<[u8]>,
    qtype: Qtype,
    qclass: Qclass,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl Key {
    fn of(permitted: &Permitted<'_>) -> Self {
        let query = permitted.query();
        Self {
            qname: query.qname.as_wire().into(),
            qtype: query.qtype,
            qclass: query.qclass,
            dnssec_ok: query.echo.dnssec_ok(),
            checking_disabled: query.echo.has(flag::CD),
        }
    }
}

/// A question that is being asked.
#[derive(Debug, Clone)]
pub(super) struct Flight(watch::Receiver<Option<Arc<Outcome>>>);

impl Flight {
    /// What comes of it.
    pub(super) async fn outcome(mut self) -> Arc<Outcome> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Arc::new(Err(Failure::Internal))),
            // The task is gone without a word: it panicked, or its runtime ended.
            Err(_) => Arc::new(Err(Failure::Internal)),
        }
    }
}

/// Every question that is being asked. A clone is the same.
#[derive(Debug, Clone)]
pub(super) struct Flights {
    hasher: RandomState,
    shards: Arc<[Shard]>,
    under_way: Arc<AtomicUsize>,
    at_once_max: usize,
}

type Shard = Mutex<HashMap<Key, Flight, RandomState>>;

impl Flights {
    /// At most `at_once_max` at a time; 0: no limit. A flight outlives its askers, so a bound on those is none on these.
    pub(super) fn new(at_once_max: usize) -> Self {
        let hasher = RandomState::new();
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect();
        Self { hasher, shards, under_way: Arc::default(), at_once_max }
    }

    /// Joins the flight for a question; where there is none, `depart` starts one with the ticket it is handed. None:
    /// too many are under way.
    pub(super) fn join(&self, permitted: &Permitted<'_>, depart: impl FnOnce(Ticket)) -> Option<Flight> {
        let key = Key::of(permitted);
        let (sender, flight) = match self.shard(&key).entry(key.clone()) {
            Entry::Occupied(under_way) => return Some(under_way.get().clone()),
            Entry::Vacant(place) => {
                let taken = self.under_way.fetch_add(1, Ordering::Relaxed);
                if self.at_once_max != 0 && taken >= self.at_once_max {
                    self.under_way.fetch_sub(1, Ordering::Relaxed);
                    return None;
                }
                let (sender, receiver) = watch::channel(None);
                (sender, place.insert(Flight(receiver)).clone())
            }
        };
        depart(Ticket { key, sender, flights: self.clone() });
        Some(flight)
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Flight, RandomState>> {
        let number = self.hasher.hash_one(key) as usize % SHARDS;
        // A panic while it was held left the map whole: every change is one call.
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the one task that asks. However it ends, the question can be asked again.
#[derive(Debug)]
pub(super) struct Ticket {
    key: Key,
    sender: watch::Sender<Option<Arc<Outcome>>>,
    flights: Flights,
}

impl Ticket {
    /// Tells every asker what came of it.
    pub(super) fn land(self, outcome: Outcome) {
        // Nobody may be left to hear it; the cache has it all the same.
        self.sender.send_replace(Some(Arc::new(outcome)));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.flights.shard(&self.key).remove(&self.key);
        self.flights.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::dns::Name;
    use crate::query::Query;

    fn permitted(name: &str) -> Permitted<'static> {
        Permitted::for_tests(Query::plain(Name::from_text(name).unwrap(), Qtype::A))
    }

    /// Joins, and says whether a flight had to be started, with its ticket.
    fn join(flights: &Flights, permitted: &Permitted<'_>) -> (Option<Flight>, Option<Ticket>) {
        let mut ticket = None;
        (flights.join(permitted, |started| ticket = Some(started)), ticket)
    }

    #[tokio::test]
    async fn askers_of_one_question_share_a_flight_and_its_outcome() {
        let flights = Flights::new(0);
        let (first, ticket) = join(&flights, &permitted("a.example"));
        let (second, none) = join(&flights, &permitted("A.EXAMPLE"));
        assert!(none.is_none());
        ticket.unwrap().land(Err(Failure::Network));
        for flight in [first, second] {
            assert_eq!(flight.unwrap().outcome().await.as_ref().as_ref().err(), Some(&Failure::Network));
        }
        assert!(join(&flights, &permitted("a.example")).1.is_some(), "it can be asked again");
    }

    #[tokio::test]
    async fn a_task_that_ends_without_a_word_is_a_failure() {
        let flights = Flights::new(0);
        let (flight, ticket) = join(&flights, &permitted("a.example"));
        drop(ticket);
        assert_eq!(flight.unwrap().outcome().await.as_ref().as_ref().err(), Some(&Failure::Internal));
        assert!(join(&flights, &permitted("a.example")).1.is_some());
    }

    #[test]
    fn questions_that_the_cache_tells_apart_have_flights_of_their_own() {
        let flights = Flights::new(0);
        let mut others = vec![permitted("b.example")];
        for change in [
            |query: &mut Query<'_>| query.qtype = Qtype::AAAA,
            |query: &mut Query<'_>| query.qclass = Qclass::CH,
            |query: &mut Query<'_>| query.echo.flags |= flag::CD,
        ] {
            let mut query = Query::plain(Name::from_text("a.example").unwrap(), Qtype::A);
            change(&mut query);
            others.push(Permitted::for_tests(query));
        }
        let mut tickets = vec![join(&flights, &permitted("a.example")).1.unwrap()];
        for other in &others {
            tickets.push(join(&flights, other).1.unwrap());
        }
    }

    #[test]
    fn past_the_bound_no_flight_starts_and_those_under_way_are_still_joined() {
        let flights = Flights::new(2);
        let tickets = ["a.example", "b.example"].map(|name| join(&flights, &permitted(name)).1.unwrap());
        assert!(matches!(join(&flights, &permitted("c.example")), (None, None)));
        assert!(matches!(join(&flights, &permitted("a.example")), (Some(_), None)));
        drop(tickets);
        assert!(matches!(join(&flights, &permitted("c.example")), (Some(_), Some(_))));
        assert_eq!(flights.under_way.load(Ordering::Relaxed), 0);
    }
}
