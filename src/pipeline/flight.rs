//! Identical questions in flight: they are asked once, every asker shares what comes of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ahash::RandomState;
use tokio::sync::Notify;

use crate::dns::message::flag;
use crate::dns::{Qclass, Qtype};
use crate::policy::Findings;
use crate::query::{Failure, Reply};
use crate::upstream::Errand;

/// Like the cache's: so that cores do not queue.
const SHARDS: usize = 64;

/// What asking came to.
pub(super) type Outcome = Result<(Reply<'static>, Findings), Failure>;

/// One question, as the cache tells questions apart: QNAME, QTYPE, QCLASS, DO and CD.
#[derive(Debug, Clone)]
struct Key {
    errand: Arc<Errand>,
    /// Of all that is compared: taken once, for the shard and for its table.
    hash: u64,
}

impl Key {
    fn new(errand: &Arc<Errand>, hasher: &RandomState) -> Self {
        Self { errand: Arc::clone(errand), hash: hasher.hash_one(fields(errand)) }
    }
}

fn fields(errand: &Errand) -> (&[u8], Qtype, Qclass, bool, bool) {
    let query = errand.permitted().query();
    (query.qname.as_wire(), query.qtype, query.qclass, query.echo.dnssec_ok(), query.echo.has(flag::CD))
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && fields(&self.errand) == fields(&other.errand)
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the hash that a key has.
#[derive(Debug, Default, Clone, Copy)]
struct BroughtAlong(u64);

impl BuildHasher for BroughtAlong {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for BroughtAlong {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A question that is being asked.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    landing: Arc<Landing>,
    is_joined: bool,
}

/// Where askers wait for what comes of a flight.
#[derive(Debug, Default)]
struct Landing {
    outcome: OnceLock<Outcome>,
    over: Notify,
}

impl Flight {
    /// Another asker began it, perhaps on another thread.
    pub(super) const fn is_joined(&self) -> bool {
        self.is_joined
    }

    /// What comes of it, at the latest when whoever began it gives up.
    pub(super) async fn outcome(&self) -> &Outcome {
        loop {
            // Before the look: what lands between the two is heard too.
            let over = self.landing.over.notified();
            if let Some(outcome) = self.landing.outcome.get() {
                return outcome;
            }
            over.await;
        }
    }
}

/// Every question that is being asked. A clone is the same.
#[derive(Debug, Clone)]
pub(super) struct Flights(Arc<Sky>);

#[derive(Debug)]
struct Sky {
    hasher: RandomState,
    shards: Vec<Shard>,
    under_way: AtomicUsize,
    at_once_max: usize,
}

type Shard = Mutex<HashMap<Key, Flight, BroughtAlong>>;

impl Flights {
    /// At most `at_once_max` at a time; 0: no limit. A flight outlives its askers, so a bound on those is none on these.
    pub(super) fn new(at_once_max: usize) -> Self {
        let (hasher, shards) = (RandomState::new(), (0..SHARDS).map(|_| Shard::default()).collect());
        Self(Arc::new(Sky { hasher, shards, under_way: AtomicUsize::new(0), at_once_max }))
    }

    /// Joins the flight for a question; where there is none, `depart` starts one with the ticket it is handed. None:
    /// too many are under way.
    pub(super) fn join(&self, errand: &Arc<Errand>, depart: impl FnOnce(Ticket)) -> Option<Flight> {
        let key = Key::new(errand, &self.0.hasher);
        let flight = match self.shard(&key).entry(key.clone()) {
            Entry::Occupied(under_way) => return Some(Flight { is_joined: true, ..under_way.get().clone() }),
            Entry::Vacant(place) => {
                let Sky { under_way, at_once_max, .. } = &*self.0;
                let taken = under_way.fetch_add(1, Ordering::Relaxed);
                if *at_once_max != 0 && taken >= *at_once_max {
                    under_way.fetch_sub(1, Ordering::Relaxed);
                    return None;
                }
                place.insert(Flight { landing: Arc::default(), is_joined: false }).clone()
            }
        };
        depart(Ticket { key, flight: flight.clone(), flights: self.clone() });
        Some(flight)
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Flight, BroughtAlong>> {
        // By bits that the shard's own table makes little of: it uses the lowest and the highest.
        let number = (key.hash >> 48) as usize % SHARDS;
        // A panic while it was held left the map whole: every change is one call.
        self.0.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the one that asks. However it ends, the question can be asked again.
#[derive(Debug)]
pub(super) struct Ticket {
    key: Key,
    flight: Flight,
    flights: Flights,
}

impl Ticket {
    /// What is to be asked.
    pub(super) const fn errand(&self) -> &Arc<Errand> {
        &self.key.errand
    }

    /// Tells every asker what came of it.
    pub(super) fn land(self, outcome: Outcome) {
        // It lands once. Nobody may be left to hear it; the cache has it all the same.
        let _ = self.flight.landing.outcome.set(outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.flights.shard(&self.key).remove(&self.key);
        self.flights.0.under_way.fetch_sub(1, Ordering::Relaxed);
        // Where it has not landed it is gone without a word: it panicked, or its runtime ended.
        let _ = self.flight.landing.outcome.set(Err(Failure::Internal));
        self.flight.landing.over.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::dns::Name;
    use crate::policy::Permitted;
    use crate::query::Query;

    fn errand(name: &str) -> Arc<Errand> {
        Errand::new(Permitted::for_tests(Query::plain(Name::from_text(name).unwrap(), Qtype::A)))
    }

    /// Joins, and says whether a flight had to be started, with its ticket.
    fn join(flights: &Flights, errand: &Arc<Errand>) -> (Option<Flight>, Option<Ticket>) {
        let mut ticket = None;
        (flights.join(errand, |started| ticket = Some(started)), ticket)
    }

    #[tokio::test]
    async fn askers_of_one_question_share_a_flight_and_its_outcome() {
        let flights = Flights::new(0);
        let (first, ticket) = join(&flights, &errand("a.example"));
        let (second, none) = join(&flights, &errand("A.EXAMPLE"));
        assert!(none.is_none());
        ticket.unwrap().land(Err(Failure::Network));
        for flight in [first, second] {
            assert_eq!(flight.unwrap().outcome().await.as_ref().err(), Some(&Failure::Network));
        }
        assert!(join(&flights, &errand("a.example")).1.is_some(), "it can be asked again");
    }

    #[tokio::test]
    async fn a_task_that_ends_without_a_word_is_a_failure() {
        let flights = Flights::new(0);
        let (flight, ticket) = join(&flights, &errand("a.example"));
        drop(ticket);
        assert_eq!(flight.unwrap().outcome().await.as_ref().err(), Some(&Failure::Internal));
        assert!(join(&flights, &errand("a.example")).1.is_some());
    }

    #[test]
    fn questions_that_the_cache_tells_apart_have_flights_of_their_own() {
        let flights = Flights::new(0);
        let mut others = vec![errand("b.example")];
        for change in [
            |query: &mut Query<'_>| query.qtype = Qtype::AAAA,
            |query: &mut Query<'_>| query.qclass = Qclass::CH,
            |query: &mut Query<'_>| query.echo.flags |= flag::CD,
        ] {
            let mut query = Query::plain(Name::from_text("a.example").unwrap(), Qtype::A);
            change(&mut query);
            others.push(Errand::new(Permitted::for_tests(query)));
        }
        let mut tickets = vec![join(&flights, &errand("a.example")).1.unwrap()];
        for other in &others {
            tickets.push(join(&flights, other).1.unwrap());
        }
    }

    #[test]
    fn past_the_bound_no_flight_starts_and_those_under_way_are_still_joined() {
        let flights = Flights::new(2);
        let tickets = ["a.example", "b.example"].map(|name| join(&flights, &errand(name)).1.unwrap());
        assert!(matches!(join(&flights, &errand("c.example")), (None, None)));
        assert!(matches!(join(&flights, &errand("a.example")), (Some(_), None)));
        drop(tickets);
        assert!(matches!(join(&flights, &errand("c.example")), (Some(_), Some(_))));
        assert_eq!(flights.0.under_way.load(Ordering::Relaxed), 0);
    }
}
