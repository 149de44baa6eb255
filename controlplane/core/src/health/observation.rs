//! What the trunk machine is told.
//!
//! Four sources: qualify and registration (the agent, from Asterisk), endings of customers' calls, and
//! canaries. The fourth, the AMI session, is the node's and goes to [`super::node`]. The shell confirms what
//! an AMI *event* claims about contact or registration by an action before it feeds it: events can carry
//! text that strangers wrote.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::Load;
use crate::{ending::Ending, ids::OrgId, number::E164};

/// Digits of a number that name its destination: country and area or network, as in `+48221`, `+38050` and
/// `+12125`. What carriers bar and what breaks behind them is about this coarse.
const DESTINATION_DIGITS: usize = 5;

/// Where calls lead to, as far as carriers treat them alike: the first digits of a number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Destination(Box<str>);

impl Destination {
    /// The destination of a number.
    #[must_use]
    pub fn of(number: &E164) -> Self {
        Self(number.as_str()[..=DESTINATION_DIGITS].into())
    }

    /// `+` and digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// On whose behalf a call was placed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// A customer.
    Org(OrgId),
    /// Ringward itself.
    Canary,
}

/// A call that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// How.
    pub ending: Ending,
    /// When its Originate left. What was sent before a trip says nothing of the trunk after it.
    pub began: Instant,
    /// How long it waited for progress before it was given up (matters for `NoProgress` alone).
    pub waited: Duration,
    /// For whom.
    pub party: Party,
    /// Where to.
    pub destination: Destination,
    /// The caller id that it presented.
    pub caller: Option<E164>,
    /// How busy trunk and account were when it was sent.
    pub load: Load,
}

/// Whether a canary met what the operator said it would meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// It did: whatever its ending, the carrier delivers.
    AsExpected,
    /// It did not.
    Otherwise,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The contact answers qualify; with the round trip where there is one.
    Reachable(Option<Duration>),
    /// It does not.
    Unreachable,
    /// It is not asked (any more).
    NotQualified,
    /// The trunk does not register (any more).
    NotRegistering,
    /// The registration is accepted.
    Registered,
    /// The registration was accepted and is not any more, or has stopped.
    RegistrationLost,
    /// The carrier refuses the registration.
    RegistrationRejected,
    /// A call's first 180 or its answer: the earliest proof that the carrier delivers. Not for a 183.
    Rang {
        /// Where to.
        destination: Destination,
        /// When its Originate left.
        began: Instant,
    },
    /// A customer's call has ended.
    Ended(Call),
    /// A canary has ended.
    Canary(Call, Met),
    /// An operator disables the trunk.
    Disable,
    /// An operator enables it.
    Enable,
}

/// How many customers the control plane has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Customers {
    /// One: its calls are all the evidence there can be.
    One,
    /// Several: what only one of them meets is that one's affair.
    Several,
}

/// Whether a further trunk may be ejected on outcomes of calls; see [`super::panic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejection {
    /// It may.
    Allowed,
    /// The largest share is out already.
    CapReached,
}

/// What a trunk cannot know by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    /// How many customers there are.
    pub customers: Customers,
    /// Whether this trunk may be ejected on outcomes of calls.
    pub ejection: Ejection,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_country_and_area_even_of_the_shortest_number() {
        let of = |text: &str| Destination::of(&text.parse().unwrap()).to_string();
        assert_eq!(of("+48221234567"), "+48221");
        assert_eq!(of("+2901234"), "+29012");
    }
}
