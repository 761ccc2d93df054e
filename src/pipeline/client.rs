//! Who asks, and in which country that is.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::policy::origin::Country;
use crate::policy::{Policy, View};

/// Who asks: made once per connection (per request behind a forwarder), opaque to listeners.
pub struct Client {
    placed: Placed,
    /// The generation its country was decided in, and the country: it is decided once per generation.
    decided: AtomicU64,
}

/// What tells a client's country.
#[derive(Clone, Copy)]
enum Placed {
    /// Its address, by the policy.
    At(IpAddr),
    /// Its listener, or nothing where it has no address: it stays what it is.
    Said(Option<Country>),
    /// Its probe.
    Probe(Option<Country>),
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self { placed: self.placed, decided: AtomicU64::new(self.decided.load(Ordering::Relaxed)) }
    }
}

/// Says nothing: a client's address is never written anywhere.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// The client at an address; where its listener has a country of its own, that is the client's.
    pub(super) fn at(address: IpAddr, listener: Option<Country>) -> Self {
        Self::new(listener.map_or(Placed::At(address), |country| Placed::Said(Some(country))))
    }

    /// A client whose address nobody tells.
    pub(super) fn hidden(listener: Option<Country>) -> Self {
        Self::new(Placed::Said(listener))
    }

    /// A probe of our own, as a client of this country.
    pub(super) fn probe(country: Option<Country>) -> Self {
        Self::new(Placed::Probe(country))
    }

    const fn new(placed: Placed) -> Self {
        Self { placed, decided: AtomicU64::new(0) }
    }

    /// Whether it is a probe of our own, whose blocks are nobody's.
    pub(super) const fn is_probe(&self) -> bool {
        matches!(self.placed, Placed::Probe(_))
    }

    /// What of it matters to a policy. Neither allocates nor locks.
    pub(super) fn view(&self, policy: &Policy) -> View {
        let address = match self.placed {
            Placed::At(address) => address,
            Placed::Said(country) | Placed::Probe(country) => return View { country },
        };
        let decided = self.decided.load(Ordering::Relaxed);
        if decided >> 16 == policy.generation() {
            return View { country: Country::from_bits(decided as u16) };
        }
        let (country, _) = policy.place(address);
        let bits = country.map_or(0, Country::to_bits);
        self.decided.store(policy.generation() << 16 | u64::from(bits), Ordering::Relaxed);
        View { country }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::policy::load::{self, Loaded};

    fn loaded(default: Option<Country>) -> Loaded {
        let mut loaded = load::load(&load::Settings::default(), &load::Before::default(), Timestamp::UNIX_EPOCH);
        loaded.settings.origin.default = default;
        loaded
    }

    fn policy(loaded: &Loaded, generation: u64) -> Policy {
        Policy::compile(loaded, generation, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn a_client_is_never_shown() {
        assert_eq!(format!("{:?}", Client::at("192.0.2.77".parse().unwrap(), None)), "Client");
    }

    #[test]
    fn a_client_is_placed_once_in_each_generation() {
        let italy = Country::from_code("IT");
        let (unknown, abroad) = (loaded(None), loaded(italy));
        let client = Client::at([127, 0, 0, 1].into(), None);
        for (loaded, generation, country) in
            [(&unknown, 1, None), (&abroad, 1, None), (&abroad, 2, italy), (&unknown, 3, None)]
        {
            let policy = policy(loaded, generation);
            assert_eq!(client.view(&policy), View { country });
            assert_eq!(client.clone().view(&policy), View { country });
        }
    }

    #[test]
    fn what_a_listener_says_goes_before_what_an_address_says() {
        let (italy, germany) = (Country::from_code("IT"), Country::from_code("DE"));
        let policy = policy(&loaded(germany), 1);
        for (client, country) in [
            (Client::at([127, 0, 0, 1].into(), None), germany),
            (Client::at([127, 0, 0, 1].into(), italy), italy),
            // Without an address there is nothing that the default is the default of.
            (Client::hidden(None), None),
            (Client::hidden(italy), italy),
            (Client::probe(None), None),
            (Client::probe(italy), italy),
        ] {
            assert_eq!(client.view(&policy), View { country });
        }
    }
}
