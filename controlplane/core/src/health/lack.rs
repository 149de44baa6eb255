//! What is missing of a node: the evidence of its state.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::call::{UnknownWord, words};

words! {
    /// What is missing.
    Lack {
        /// Nothing was heard of it since the start.
        NeverHeard = "never_heard",
        /// Its AMI session is down.
        AmiDown = "ami_down",
        /// Its agent's link is down.
        LinkDown = "link_down",
        /// Its agent's link is up and silent.
        HeartbeatLate = "heartbeat_late",
        /// Calls fail for faults of its own.
        Faults = "faults",
        /// All is there, but not for long yet.
        Settling = "settling",
        /// Nothing.
        Nothing = "nothing",
    }
}

impl Lack {
    /// In words.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NeverHeard => "nothing was heard of it yet",
            Self::AmiDown => "its AMI session is down",
            Self::LinkDown => "its agent's link is down",
            Self::HeartbeatLate => "its agent's link is up, and its heartbeats are late",
            Self::Faults => "calls fail for faults of its own, such as a name that does not resolve",
            Self::Settling => "all is back, and must hold for a moment",
            Self::Nothing => "its agent and its AMI session are well",
        }
    }
}

/// Why its state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEvidence {
    /// What is missing, or [`Lack::Nothing`].
    pub lack: Lack,
    /// For how long, in ms.
    pub for_ms: u64,
}

impl fmt::Display for NodeEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.lack.sentence())?;
        if self.for_ms > 0 {
            write!(f, ", for {}.{} s", self.for_ms / 1_000, self.for_ms % 1_000 / 100)
        } else {
            Ok(())
        }
    }
}
