//! How an order stands, and the words that fit it: of what is over a page speaks in the past, of what is to come not yet.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::policy::order::{Order, Standing, Target};

/// How an order or one of its targets stands. In JSON it is the word of its standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) standing: Standing,
    /// A time of it has come: by its dates it is, or was, to be carried out.
    has_come: bool,
}

/// How a page speaks of what an order does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tense {
    /// It does it, now or at its times.
    Is,
    /// It would.
    Would,
    /// It did.
    Was,
}

impl Tense {
    /// The form of a verb that fits, of these three in the order above.
    pub(super) const fn of<T: Copy>(self, [is, would, was]: [T; 3]) -> T {
        match self {
            Self::Is => is,
            Self::Would => would,
            Self::Was => was,
        }
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.standing.as_str())
    }
}

impl Stage {
    /// How an order stands, whatever dates its targets have.
    pub(super) fn of(order: &Order, now: Timestamp) -> Self {
        Self { standing: order.standing(now), has_come: has_come(order, order.effective, now) }
    }

    /// How a target stands, by its own dates too.
    pub(super) fn of_target(order: &Order, target: &Target, now: Timestamp) -> Self {
        let from = order.effective.max(target.effective);
        Self { standing: order.standing_of(target, now), has_come: has_come(order, from, now) }
    }

    /// The same, where it may be known that what is over was carried out here, whatever its dates say by now.
    pub(super) const fn known_since(self, since: Option<Timestamp>) -> Self {
        Self { has_come: self.has_come || (self.is_over() && since.is_some()), ..self }
    }

    /// Nothing comes of it any more.
    pub(super) const fn is_over(self) -> bool {
        matches!(self.standing, Standing::Lifted | Standing::Expired)
    }

    pub(super) fn is_in_force(self) -> bool {
        self.standing == Standing::InForce
    }

    pub(super) const fn tense(self) -> Tense {
        match self.standing {
            Standing::InForce | Standing::Waiting | Standing::Suspended => Tense::Is,
            Standing::Draft | Standing::Trial => Tense::Would,
            Standing::Expired | Standing::Lifted if self.has_come => Tense::Was,
            Standing::Expired | Standing::Lifted => Tense::Would,
        }
    }

    /// In a word or two.
    pub(super) const fn badge(self) -> &'static str {
        match self.standing {
            Standing::Draft => "In preparation",
            Standing::Trial => "On trial",
            Standing::Waiting if self.has_come => "Not in force at this time",
            Standing::Waiting => "Not yet in force",
            Standing::InForce => "In force",
            Standing::Suspended => "Suspended",
            Standing::Expired => "Ended",
            Standing::Lifted => "Lifted",
        }
    }

    /// In a sentence or two.
    pub(super) const fn sentence(self) -> &'static str {
        match self.standing {
            Standing::Draft => "This order is being prepared. It blocks nothing.",
            Standing::Trial => "This order is tried out: what it would block is counted, and nothing is blocked.",
            Standing::Waiting if self.has_come => {
                "This order is not carried out at this time. It will be again at the times given below."
            }
            Standing::Waiting => "This order is not carried out yet. It will be from the time given below.",
            Standing::InForce => "This order is carried out now.",
            Standing::Suspended => "This order is suspended. It blocks nothing for now.",
            Standing::Expired => "This order has ended. It blocks nothing any more.",
            Standing::Lifted if self.has_come => "This order was lifted. It blocks nothing any more.",
            Standing::Lifted => "This order was lifted before its time came. It blocks nothing.",
        }
    }

    /// What is said before what is answered; None: that is answered now.
    pub(super) const fn before_answer(self) -> Option<&'static str> {
        Some(match self.standing {
            Standing::InForce => return None,
            Standing::Draft | Standing::Trial => "This order changes no answer. If it were in force:",
            Standing::Waiting if self.has_come => "This order changes no answer at this time. While it is in force:",
            Standing::Waiting => "This order changes no answer yet. Once it is in force:",
            Standing::Suspended => "This order changes no answer for now. If it is carried out again:",
            Standing::Expired | Standing::Lifted if self.has_come => {
                "This order changes no answer any more. While it was in force:"
            }
            Standing::Expired | Standing::Lifted => "This order changes no answer. Had it come into force:",
        })
    }

    /// The words for the deadline.
    pub(super) const fn due(self) -> &'static str {
        if self.is_over() { "Was to be carried out by" } else { "To be carried out by" }
    }

    /// The words for the moment from which it has effect, come or not.
    pub(super) fn from(self, from: Timestamp, now: Timestamp) -> &'static str {
        match (self.is_over(), from <= now) {
            (false, _) => "In effect from",
            (true, true) => "Was in effect from",
            (true, false) => "Was to be in effect from",
        }
    }

    /// The words for its end, come or not.
    pub(super) fn until(self, end: Timestamp, now: Timestamp) -> &'static str {
        match (self.is_over(), end <= now) {
            (true, true) if self.standing == Standing::Expired => "Ended",
            (false, false) => "Ends",
            _ => "Was to end",
        }
    }

    /// The words for one of its intervals.
    pub(super) fn interval(self, from: Timestamp, until: Timestamp, now: Timestamp) -> &'static str {
        match (self.standing, from <= now, until <= now) {
            (Standing::InForce, true, false) => "Carried out",
            (Standing::InForce | Standing::Waiting | Standing::Expired, _, true) => "Was carried out",
            (Standing::Lifted | Standing::Expired, ..) | (_, _, true) => "Was to be carried out",
            _ => "To be carried out",
        }
    }
}

/// Whether what begins `from` then has had a moment by `now`, by its dates and its order's intervals.
fn has_come(order: &Order, from: Option<Timestamp>, now: Timestamp) -> bool {
    let begun = from.is_none_or(|from| from <= now);
    let counts = |until: Timestamp| from.is_none_or(|from| from < until);
    begun && (order.intervals.is_empty() || order.intervals.iter().any(|each| each.from <= now && counts(each.until)))
}

/// The Unicode form of a name or a label with A-labels, where it is one and stands for just these (UTS 46).
pub(super) fn unicode_of(ascii: &str) -> Option<String> {
    let (unicode, outcome) = idna::domain_to_unicode(ascii);
    let is_safe = outcome.is_ok() && !unicode.is_ascii();
    let again = idna::domain_to_ascii(&unicode).ok().filter(|_| is_safe)?;
    again.eq_ignore_ascii_case(ascii).then_some(unicode)
}
