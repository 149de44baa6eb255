//! The declared fleet: carriers, nodes, trunks, routes.

use async_trait::async_trait;
use controlplane_core::ids::AuditId;
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// The declared fleet as it was applied. The document is `controlplane_core::fleet::Fleet` as JSON: one
/// row, since it is always read and replaced whole, and a half-applied fleet must not exist.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredFleet {
    /// Grows by one with every change.
    pub revision: i64,
    /// The fleet.
    pub document: serde_json::Value,
    /// When it was applied.
    pub applied_at: OffsetDateTime,
}

/// A new fleet to be declared.
#[derive(Debug, Clone)]
pub struct ApplyFleet {
    /// The revision that the change was computed against; 0 where none was declared yet.
    pub expected_revision: i64,
    /// The new document.
    pub document: serde_json::Value,
    /// Now.
    pub at: OffsetDateTime,
    /// For the audit row.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
    /// What changes, for the audit row.
    pub changes: serde_json::Value,
}

/// What came of [`FleetStore::apply_fleet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Done; the new revision.
    Revision(i64),
    /// Somebody else changed the fleet since: the revision now in force. Nothing was written.
    Stale(i64),
}

/// The declared fleet.
#[async_trait]
pub trait FleetStore {
    /// The fleet in force, if one was ever declared.
    async fn declared_fleet(&self) -> Result<Option<DeclaredFleet>, StoreError>;
    /// Replaces the fleet, with its audit row, if nobody else did since.
    async fn apply_fleet(&self, apply: ApplyFleet) -> Result<Applied, StoreError>;
}
