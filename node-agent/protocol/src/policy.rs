//! What the gate admits. The agent holds to the last policy it got, and without one admits no Originate.

use controlplane_core::names::{CarrierName, EndpointName, NodeName, TrunkName};
use ipnet::IpNet;
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
    /// Who is never banned. Absent, from an older control plane or where it cannot be told whole: what the node heard
    /// last goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardening: Option<Box<Hardening>>,
}

/// Most networks of each list of [`Hardening`], and most in all of them together.
pub const NETS_MAX: usize = 4096;

/// Networks that are never banned on a node, whoever asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardening {
    /// The carriers of the node's trunks.
    #[serde(default)]
    pub carriers: List<CarrierNets, 512>,
    /// Replicas of the control plane, as far as they are given by address.
    #[serde(default)]
    pub control_plane: List<IpNet, NETS_MAX>,
    /// From where operators reach the node.
    #[serde(default)]
    pub management: List<IpNet, NETS_MAX>,
}

/// Where a carrier is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierNets {
    /// Its name.
    pub carrier: CarrierName,
    /// Where its SIP comes from.
    #[serde(default)]
    pub signalling: List<IpNet, NETS_MAX>,
    /// Where its RTP comes from.
    #[serde(default)]
    pub media: List<IpNet, NETS_MAX>,
}

impl Hardening {
    /// Networks in all lists.
    #[must_use]
    pub fn nets(&self) -> usize {
        let carriers = self.carriers.iter().map(|carrier| carrier.signalling.len() + carrier.media.len());
        carriers.sum::<usize>() + self.control_plane.len() + self.management.len()
    }
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
