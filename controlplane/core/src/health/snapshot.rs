//! Health through a restart of the control plane, or its move to another replica.
//!
//! A snapshot holds a machine as it is, in the machine's own time: no wall clock is asked, and for the
//! machine no time passes while nobody runs it. A back-off of which 40 s were left has 40 s left.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{
    CanaryPlan, NodePolicy, Policy, TrunkHealth,
    moment::{Clock, Moment},
    node::{self, NodeHealth},
    state,
};

/// A trunk's health, to be stored at each transition and now and then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkSnapshot {
    at: Moment,
    health: state::Inner,
}

/// A node's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSnapshot {
    at: Moment,
    health: node::Inner,
}

impl TrunkHealth {
    /// All of it but policy and canary, which are configuration.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> TrunkSnapshot {
        TrunkSnapshot { at: self.clock.moment(now), health: self.inner.clone() }
    }

    /// Goes on where the snapshot was taken.
    #[must_use]
    pub fn restore(now: Instant, snapshot: TrunkSnapshot, canary: CanaryPlan, policy: Policy) -> Self {
        Self::resumed(Clock::resumed(now, snapshot.at), canary, policy, snapshot.health)
    }
}

impl NodeHealth {
    /// All of it but the policy.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> NodeSnapshot {
        NodeSnapshot { at: self.clock.moment(now), health: self.inner.clone() }
    }

    /// Goes on where the snapshot was taken. Links and sessions are of the process that is gone: the shell
    /// feeds what is up now, and `LinkDown` and `AmiDown` for what is not.
    #[must_use]
    pub fn restore(now: Instant, snapshot: NodeSnapshot, policy: NodePolicy) -> Self {
        Self::resumed(now, Clock::resumed(now, snapshot.at), policy, snapshot.health)
    }
}
