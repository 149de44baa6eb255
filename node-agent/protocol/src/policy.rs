//! What the gate admits. The agent holds to the last policy it got, and without one admits no Originate.

use controlplane_core::names::{EndpointName, NodeName, TrunkName};
use serde::{Deserialize, Serialize};

use crate::{List, Text};

/// The whole policy of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Only grows; a smaller one than that in force is ignored, an equal one says the same.
    pub revision: u64,
    /// Whose it is.
    pub node: NodeName,
    /// The declared trunks: an Originate goes to one of their endpoints.
    pub trunks: List<TrunkPolicy, 512>,
    /// Channels of ours on the node at a time, over all trunks.
    pub channels_max: u32,
    /// Originates per second on the node, over all trunks.
    pub cps_max: u32,
    /// Contexts that an Originate may lead to, and that a hangup handler may stand in.
    pub contexts: List<Text<80>, 16>,
    /// Names of channel variables that an Originate may set.
    pub variables: List<Text<80>, 32>,
    /// Families of AstDB that DBGet may read.
    pub db_families: List<Text<80>, 8>,
}

/// What one trunk may carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrunkPolicy {
    /// Its name.
    pub trunk: TrunkName,
    /// Its endpoint.
    pub endpoint: EndpointName,
    /// Channels at a time.
    pub channels_max: u32,
    /// Originates per second.
    pub cps_max: u32,
    /// What may be dialled.
    pub number: NumberRule,
}

/// What may be dialled over a trunk, in the trunk's own format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberRule {
    /// What every number begins with: a plus, a prefix, both, or nothing.
    pub begins: Text<32>,
    /// Fewest digits after that.
    pub digits_min: u8,
    /// Most digits after that.
    pub digits_max: u8,
}

impl NumberRule {
    /// Whether this number may be dialled.
    #[must_use]
    pub fn admits(&self, number: &str) -> bool {
        let Some(digits) = number.strip_prefix(self.begins.as_str()) else { return false };
        digits.bytes().all(|b| b.is_ascii_digit())
            && (usize::from(self.digits_min)..=usize::from(self.digits_max)).contains(&digits.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rule_s_digits_are_admitted() {
        let rule = NumberRule { begins: Text::cut("+"), digits_min: 7, digits_max: 15 };
        assert!(rule.admits("+48221234567"));
        for bad in [
            "48221234567",
            "+",
            "+123456",
            "+1234567890123456",
            "+4822123456x",
            "+4822123@evil",
            "++48221234567",
            "",
        ] {
            assert!(!rule.admits(bad), "{bad}");
        }
    }
}
