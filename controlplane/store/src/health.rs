//! Health: what the machines of trunks and nodes knew last, and what an operator keeps out of use.

use async_trait::async_trait;
use controlplane_core::{
    ids::AuditId,
    names::{NodeName, TrunkName},
};
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// Snapshots of machines, to be kept over a restart. Only the control plane knows what is in them.
#[derive(Debug, Clone, PartialEq)]
pub struct SaveHealth {
    /// Of trunks.
    pub trunks: Vec<(TrunkName, serde_json::Value)>,
    /// Of nodes.
    pub nodes: Vec<(NodeName, serde_json::Value)>,
    /// Now.
    pub at: OffsetDateTime,
}

/// The latest snapshot of each machine, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredHealth {
    /// Of trunks.
    pub trunks: Vec<(TrunkName, serde_json::Value)>,
    /// Of nodes.
    pub nodes: Vec<(NodeName, serde_json::Value)>,
}

/// What an operator can keep out of use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldTarget {
    /// A trunk, then disabled.
    Trunk(TrunkName),
    /// A node, then draining.
    Node(NodeName),
}

impl HoldTarget {
    /// As in the column `kind` and in audit rows.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Trunk(_) => "trunk",
            Self::Node(_) => "node",
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Trunk(name) => name.as_str(),
            Self::Node(name) => name.as_str(),
        }
    }

    /// What the audit row calls it.
    pub(crate) fn action(&self, held: bool) -> &'static str {
        match (self, held) {
            (Self::Trunk(_), true) => "trunk.disable",
            (Self::Trunk(_), false) => "trunk.enable",
            (Self::Node(_), true) => "node.drain",
            (Self::Node(_), false) => "node.undrain",
        }
    }
}

/// Something that an operator keeps out of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What.
    pub target: HoldTarget,
    /// Since when.
    pub since: OffsetDateTime,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

/// An operator's wish to keep something out of use, or to have it back.
#[derive(Debug, Clone)]
pub struct SetHold {
    /// What.
    pub target: HoldTarget,
    /// Whether it is to be held from now on.
    pub held: bool,
    /// Why, in the operator's words, without NUL.
    pub reason: Option<String>,
    /// Now.
    pub at: OffsetDateTime,
    /// For the audit row.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// Health.
#[async_trait]
pub trait HealthStore {
    /// Keeps snapshots, each in place of the machine's former one; machines that are not named keep theirs.
    async fn save_health(&self, save: SaveHealth) -> Result<(), StoreError>;
    /// The latest snapshots. One that cannot be read is logged and left out.
    async fn health(&self) -> Result<StoredHealth, StoreError>;
    /// Forgets trunks and nodes that the fleet no longer has, their holds with them. No audit row: whoever
    /// took them from the fleet has one.
    async fn forget_health(&self, trunks: &[TrunkName], nodes: &[NodeName]) -> Result<(), StoreError>;
    /// Holds something or lets it go, with its audit row. `false`: it was so already, nothing was written, and
    /// a hold keeps its first moment and reason.
    async fn set_hold(&self, set: SetHold) -> Result<bool, StoreError>;
    /// Everything that is held. One that cannot be read is logged and left out.
    async fn holds(&self) -> Result<Vec<Hold>, StoreError>;
}
