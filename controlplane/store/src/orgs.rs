//! Organisations: whose everything is.

use async_trait::async_trait;
use controlplane_core::{
    ids::{AuditId, OrgId},
    names::OrgSlug,
};
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// Most organisations.
pub const ORGS_MAX: u32 = 10_000;

/// A customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Org {
    /// Its id.
    pub id: OrgId,
    /// What it is called in commands. It never changes, and no other has it.
    pub slug: OrgSlug,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Since when its keys open nothing.
    pub suspended_at: Option<OffsetDateTime>,
}

/// What came of [`OrgStore::create_org`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum OrgCreated {
    /// It is there.
    Yes,
    /// Another one has the slug. Nothing was written.
    SlugTaken,
    /// There are [`ORGS_MAX`]. Nothing was written.
    Full,
}

/// What of an organisation is to be another way. `None`: it stays.
#[derive(Debug, Clone, Default)]
pub struct OrgChange {
    /// What people call it.
    pub name: Option<String>,
    /// Whether its keys open nothing.
    pub suspended: Option<bool>,
}

/// Organisations.
#[async_trait]
pub trait OrgStore {
    /// How many there are.
    async fn orgs(&self) -> Result<u64, StoreError>;
    /// Makes one, with its audit row.
    async fn create_org(&self, org: Org, actor: Actor, audit_id: AuditId) -> Result<OrgCreated, StoreError>;
    /// One.
    async fn org(&self, id: &OrgId) -> Result<Option<Org>, StoreError>;
    /// At most so many, newest first, from the one after this on; and whether there are more.
    async fn list_orgs(&self, limit: u16, after: Option<&OrgId>) -> Result<(Vec<Org>, bool), StoreError>;
    /// Changes one, with its audit row, and gives it as it is then.
    async fn change_org(
        &self,
        id: &OrgId,
        change: OrgChange,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<Option<Org>, StoreError>;
}
