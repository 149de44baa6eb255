//! After a restore: what a backup says is open may have ended since, so that it is held until an operator lets it go on.

use async_trait::async_trait;
use controlplane_core::ids::{AuditId, OrgId};
use serde::Serialize;
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// Holds whatever is open.
#[derive(Debug, Clone)]
pub struct HoldOpen {
    /// Now.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// Lets held calls and incidents go on.
#[derive(Debug, Clone)]
pub struct Release {
    /// Which; `None`: all.
    pub ids: Option<Vec<String>>,
    /// Now.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// A call or an incident that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldWork {
    /// `call_…` or `inc_…`.
    pub id: String,
    /// Whose it is.
    pub org: OrgId,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub held_at: OffsetDateTime,
}

/// The port.
#[async_trait]
pub trait RestoreStore {
    /// Holds every open call and every incident that would phone somebody; how many there are more.
    async fn hold_open(&self, hold: HoldOpen) -> Result<u64, StoreError>;
    /// What is held and still open, by id.
    async fn held(&self) -> Result<Vec<HeldWork>, StoreError>;
    /// Lets go on, with an audit row; how many were held. What has ended meanwhile is forgotten without being counted.
    async fn release(&self, release: Release) -> Result<u64, StoreError>;
}
