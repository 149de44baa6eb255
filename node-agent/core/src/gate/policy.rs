//! What the fleet declares for this node, and what the node itself allows at most.

use std::collections::HashMap;

use node_agent_ami::{DialDigits, EndpointName};

/// What one trunk may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkLimits {
    /// Channels at a time.
    pub channels_max: u32,
    /// Originates per second (`pace.rs` says how exactly).
    pub cps_max: u32,
    /// What may be dialled.
    pub number: NumberRule,
}

/// What may be dialled over a trunk, in the trunk's own format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberRule {
    /// What every number begins with: a plus, a prefix, both, or nothing.
    pub begins: String,
    /// Fewest digits after that.
    pub digits_min: u8,
    /// Most digits after that.
    pub digits_max: u8,
}

impl NumberRule {
    /// Whether this number may be dialled.
    #[must_use]
    pub fn admits(&self, number: &DialDigits) -> bool {
        number.as_str().strip_prefix(self.begins.as_str()).is_some_and(|digits| {
            let count = usize::from(self.digits_min)..=usize::from(self.digits_max);
            digits.bytes().all(|b| b.is_ascii_digit()) && count.contains(&digits.len())
        })
    }
}

/// Limits of the node over all trunks: the lower of its own settings, which no control plane can raise, and
/// of what the fleet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeLimits {
    /// Channels of ours at a time.
    pub channels_max: u32,
    /// Originates per second (`pace.rs` says how exactly).
    pub cps_max: u32,
}

/// Declared endpoints with their limits. Empty until a control plane has sent it: nothing is dialled before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// By the PJSIP endpoint's name.
    pub trunks: HashMap<EndpointName, TrunkLimits>,
}
