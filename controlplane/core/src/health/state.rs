//! A trunk's states, and all that its health consists of.

use serde::{Deserialize, Serialize};

use super::{
    Charge,
    evidence::{Cause, Evidence, History, Transition},
    facts::Facts,
    moment::Moment,
    probation::Probation,
};
use crate::{
    call::{UnknownWord, words},
    fleet::Trunk,
};

words! {
    /// A trunk's state, in JSON, logs and metrics.
    TrunkState {
        /// Nothing is known of it yet. It may be used.
        Unknown = "unknown",
        /// It works.
        Healthy = "healthy",
        /// It works, and is used after those that work better.
        Degraded = "degraded",
        /// It does not work.
        Tripped = "tripped",
        /// It did not work, and is being tried.
        Probation = "probation",
        /// An operator has disabled it.
        Disabled = "disabled",
    }
}

/// Whether the operator has given the trunk a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryPlan {
    /// No canary.
    None,
    /// The shell places canaries when [`super::TrunkHealth::wants_canary`] says so, and at its interval.
    Configured,
}

impl CanaryPlan {
    /// As the fleet declares it.
    #[must_use]
    pub const fn of(trunk: &Trunk) -> Self {
        if trunk.canary.is_some() { Self::Configured } else { Self::None }
    }
}

/// What came of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handled {
    /// What an ending was charged against; `Pace` asks for half the pace for a while.
    pub charge: Charge,
    /// The change of state, if there was one: for the log, the metrics and the store.
    pub transition: Option<Transition<TrunkState, Evidence>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Unknown,
    Healthy,
    Degraded,
    Tripped { cause: Cause, until: Moment, failed_again: bool },
    Probation(Probation),
    Disabled,
}

/// What can disprove a trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Proof {
    /// Contact and registration that hold.
    Facts,
    /// A call that gets through.
    Call,
}

impl Proof {
    /// What it takes to disprove a cause.
    pub(super) const fn against(cause: Cause) -> Self {
        if cause.by_call() { Self::Call } else { Self::Facts }
    }
}

/// All that a trunk's health consists of, in its own time: what a snapshot keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inner {
    pub(super) state: State,
    pub(super) since: Moment,
    /// How many times in a row it has failed: the back-off is doubled that often.
    pub(super) level: u32,
    /// Calls that got through since the level was last lowered.
    pub(super) forgiven_by: u32,
    pub(super) proof: Proof,
    pub(super) last_trip: Option<Moment>,
    pub(super) facts: Facts,
    pub(super) history: History<TrunkState, Evidence>,
}
