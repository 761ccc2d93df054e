//! What is wrong at the moment, as `/health` and `/ready` tell it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::lock;

/// What is wrong, said by the parts that know. Shared; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    reasons: Arc<Mutex<Reasons>>,
}

#[derive(Debug, Default)]
struct Reasons {
    degraded: BTreeMap<&'static str, String>,
    unready: BTreeMap<&'static str, String>,
}

/// Why one part of the process does not do as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The part: `orders`, `certificate`, `upstream`, …
    pub component: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// Health at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Why `/health` says `degraded`; by component. What makes the process unready is not repeated here.
    pub degraded: Vec<Reason>,
    /// Why `/ready` says 503; by component.
    pub unready: Vec<Reason>,
}

impl Health {
    /// Says what is wrong with a part that still serves; None: nothing any more. Each change is logged once.
    pub fn degrade(&self, component: &'static str, reason: Option<String>) {
        let changed = set(&mut lock(&self.reasons).degraded, component, reason.clone());
        match reason {
            _ if !changed => {}
            Some(reason) => tracing::warn!(component, reason, "degraded"),
            None => tracing::info!(component, "in order again"),
        }
    }

    /// Says why no queries should be sent here; None: nothing any more. Each change is logged once.
    pub fn unready(&self, component: &'static str, reason: Option<String>) {
        let changed = set(&mut lock(&self.reasons).unready, component, reason.clone());
        match reason {
            _ if !changed => {}
            Some(reason) => tracing::warn!(component, reason, "not ready"),
            None => tracing::info!(component, "ready"),
        }
    }

    /// Everything that is wrong now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let reasons = lock(&self.reasons);
        Snapshot { degraded: list(&reasons.degraded), unready: list(&reasons.unready) }
    }
}

/// Whether that changed anything.
fn set(reasons: &mut BTreeMap<&'static str, String>, component: &'static str, reason: Option<String>) -> bool {
    match reason {
        Some(reason) => reasons.insert(component, reason.clone()) != Some(reason),
        None => reasons.remove(component).is_some(),
    }
}

fn list(reasons: &BTreeMap<&'static str, String>) -> Vec<Reason> {
    reasons.iter().map(|(component, reason)| Reason { component, reason: reason.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_and_go_by_component() {
        let health = Health::default();
        assert_eq!(health.snapshot(), Snapshot::default());
        let other = health.clone();
        other.degrade("orders", Some("a.toml:1:1: not an order".to_owned()));
        other.unready("upstream", Some("192.0.2.1:53 is ourselves".to_owned()));
        let snapshot = health.snapshot();
        assert_eq!(snapshot.degraded[0].component, "orders");
        assert_eq!(snapshot.unready[0].reason, "192.0.2.1:53 is ourselves");
        health.degrade("certificate", Some("expired".to_owned()));
        health.degrade("orders", None);
        health.unready("upstream", None);
        let snapshot = health.snapshot();
        assert_eq!(snapshot.degraded, [Reason { component: "certificate", reason: "expired".to_owned() }]);
        assert!(snapshot.unready.is_empty());
    }

    #[test]
    fn only_a_change_is_one() {
        let mut reasons = BTreeMap::new();
        assert!(!set(&mut reasons, "orders", None));
        assert!(set(&mut reasons, "orders", Some("a".to_owned())));
        assert!(!set(&mut reasons, "orders", Some("a".to_owned())));
        assert!(set(&mut reasons, "orders", Some("b".to_owned())));
        assert!(set(&mut reasons, "orders", None));
    }
}
