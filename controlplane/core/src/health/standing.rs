//! How a trunk stands for one call: what selection asks.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{
    Destination, NodeState, Scope, TrunkHealth,
    moment::Moment,
    node::NodeHealth,
    state::{Proof, State},
};
use crate::{
    call::{UnknownWord, words},
    number::E164,
    selection::{Availability, PassedOver},
};

words! {
    /// In which order trunks are used, first to last. Within a tier a reserve comes after the preferred
    /// ones; a last resort comes after everything in every tier, and only in panic.
    Standing {
        /// It works. (In probation too, for its few trial calls: after all others it would never get any.)
        Preferred = "preferred",
        /// It works less well, or nothing is known of it.
        Reserve = "reserve",
        /// It is held to be broken, and too few are left.
        LastResort = "last_resort",
    }
}

words! {
    /// Why health withholds a trunk from a call.
    Refusal {
        /// An operator has disabled it.
        Disabled = "disabled",
        /// It has tripped.
        Tripped = "tripped",
        /// It is in probation, and its trial calls are under way.
        TrialsUnderWay = "trials_under_way",
        /// Calls to this destination fail on it.
        DestinationSuspended = "destination_suspended",
        /// Calls from this caller id fail on it.
        CallerIdSuspended = "caller_id_suspended",
        /// Its node is lost.
        NodeLost = "node_lost",
        /// An operator drains its node.
        NodeDraining = "node_draining",
    }
}

impl Refusal {
    /// Whether panic may override it: never an operator's wish, never a lost node.
    #[must_use]
    pub const fn yields_to_panic(self) -> bool {
        match self {
            Self::Tripped | Self::TrialsUnderWay | Self::DestinationSuspended | Self::CallerIdSuspended => {
                true
            }
            Self::Disabled | Self::NodeLost | Self::NodeDraining => false,
        }
    }

    /// Selection's word for it.
    #[must_use]
    pub const fn passed_over(self) -> PassedOver {
        match self {
            Self::Disabled => PassedOver::TrunkDisabled,
            Self::Tripped => PassedOver::TrunkTripped,
            Self::TrialsUnderWay => PassedOver::TrunkInProbation,
            Self::DestinationSuspended => PassedOver::TrunkSuspendedForPrefix,
            Self::CallerIdSuspended => PassedOver::TrunkSuspendedForCallerId,
            Self::NodeLost => PassedOver::NodeDown,
            Self::NodeDraining => PassedOver::NodeDraining,
        }
    }
}

/// A trunk that is withheld, and until when at the latest where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withheld {
    /// Why.
    pub why: Refusal,
    /// When it is looked at again.
    pub until: Option<Instant>,
}

impl Withheld {
    const fn for_good(why: Refusal) -> Self {
        Self { why, until: None }
    }

    /// Selection's availability: a place among the trials is worth waiting for, the rest is not.
    #[must_use]
    pub const fn availability(self) -> Availability {
        match self.why {
            Refusal::TrialsUnderWay => Availability::Later { until: self.until, why: self.why.passed_over() },
            Refusal::Disabled
            | Refusal::Tripped
            | Refusal::DestinationSuspended
            | Refusal::CallerIdSuspended
            | Refusal::NodeLost
            | Refusal::NodeDraining => Availability::Unusable(self.why.passed_over()),
        }
    }
}

impl TrunkHealth {
    /// How it stands for a call to `destination` that presents `caller`.
    ///
    /// # Errors
    /// Why it is withheld.
    pub fn standing(
        &self,
        now: Instant,
        destination: &Destination,
        caller: Option<&E164>,
    ) -> Result<Standing, Withheld> {
        let at = self.clock.moment(now);
        let withheld = |why, until: Moment| Withheld { why, until: Some(self.clock.instant(until)) };
        let standing = self.standing_for_any(at)?;
        for suspended in self.inner.facts.suspensions.in_force(at) {
            match suspended.scope {
                Scope::Destination(d) if d == destination => {
                    return Err(withheld(Refusal::DestinationSuspended, suspended.until));
                }
                Scope::CallerId(c) if Some(c) == caller => {
                    return Err(withheld(Refusal::CallerIdSuspended, suspended.until));
                }
                Scope::Destination(_) | Scope::CallerId(_) => {}
            }
        }
        Ok(standing)
    }

    /// How many destinations and caller ids it does not take.
    #[must_use]
    pub fn suspended(&self, now: Instant) -> usize {
        self.inner.facts.suspensions.in_force(self.clock.moment(now)).count()
    }

    /// How it stands for calls that nothing is suspended for.
    fn standing_for_any(&self, at: Moment) -> Result<Standing, Withheld> {
        let withheld = |why, until: Moment| Withheld { why, until: Some(self.clock.instant(until)) };
        match &self.inner.state {
            State::Disabled => Err(Withheld::for_good(Refusal::Disabled)),
            State::Tripped { until, .. } => Err(withheld(Refusal::Tripped, *until)),
            State::Probation(probation) => {
                probation.admits(at, &self.policy).map_err(|t| withheld(Refusal::TrialsUnderWay, t))?;
                Ok(Standing::Preferred)
            }
            State::Healthy => Ok(Standing::Preferred),
            State::Unknown | State::Degraded => Ok(Standing::Reserve),
        }
    }

    /// Whether outcomes of calls keep it out of service: it counts against the largest ejected share.
    #[must_use]
    pub const fn is_ejected(&self) -> bool {
        match (&self.inner.state, self.inner.proof) {
            (State::Tripped { .. } | State::Probation(_), Proof::Call) => true,
            (State::Tripped { .. } | State::Probation(_), Proof::Facts)
            | (State::Unknown | State::Healthy | State::Degraded | State::Disabled, _) => false,
        }
    }
}

/// How a trunk stands, its node considered.
///
/// # Errors
/// Why it is withheld.
pub fn standing(
    node: &NodeHealth,
    trunk: &TrunkHealth,
    now: Instant,
    destination: &Destination,
    caller: Option<&E164>,
) -> Result<Standing, Withheld> {
    on_node(node, || trunk.standing(now, destination, caller))
}

/// As [`standing`], for calls that nothing is suspended for.
pub(super) fn for_any(node: &NodeHealth, trunk: &TrunkHealth, now: Instant) -> Result<Standing, Withheld> {
    on_node(node, || trunk.standing_for_any(trunk.clock.moment(now)))
}

fn on_node(
    node: &NodeHealth,
    trunk: impl FnOnce() -> Result<Standing, Withheld>,
) -> Result<Standing, Withheld> {
    if node.is_draining() {
        return Err(Withheld::for_good(Refusal::NodeDraining));
    }
    match node.state() {
        NodeState::Lost => Err(Withheld::for_good(Refusal::NodeLost)),
        NodeState::Suspect => Ok(trunk()?.max(Standing::Reserve)),
        NodeState::Alive => trunk(),
    }
}
