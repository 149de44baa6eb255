//! API keys of customers and operators. Only hashes are kept.

use async_trait::async_trait;
use controlplane_core::ids::{AuditId, KeyId, OrgId};
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// A key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its public identity.
    pub id: KeyId,
    /// A customer's organisation; `None` for an operator's key.
    pub org: Option<OrgId>,
    /// What people call it.
    pub name: String,
    /// The first characters of the secret, by which people recognise it.
    pub prefix: String,
    /// SHA-256 of the whole secret (256 random bits need no slow hash).
    pub secret_sha256: [u8; 32],
    /// What it may do, as words (`calls:write`, `operator`, …).
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// One audit row, as read back.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Its id.
    pub id: AuditId,
    /// When.
    pub occurred_at: OffsetDateTime,
    /// Whose; `None` for the fleet's own.
    pub org: Option<OrgId>,
    /// By which key.
    pub actor: Actor,
    /// `call.create`, `fleet.apply`, `key.create`, …
    pub action: String,
    /// What kind of thing it was done to.
    pub target_type: String,
    /// Which one.
    pub target_id: String,
    /// `success`, `denied` or `failure`.
    pub outcome: String,
    /// What changed, redacted.
    pub changes: serde_json::Value,
}

/// Keys and the audit log.
#[async_trait]
pub trait KeyStore {
    /// Makes a key, with its audit row.
    async fn create_key(&self, key: Key, actor: Actor, audit_id: AuditId) -> Result<(), StoreError>;
    /// Makes the first operator key, unless an operator key that is not revoked exists: then `false`.
    async fn bootstrap_operator(&self, key: Key, audit_id: AuditId) -> Result<bool, StoreError>;
    /// The key with this hash, revoked or not.
    async fn key_by_hash(&self, secret_sha256: &[u8; 32]) -> Result<Option<Key>, StoreError>;
    /// Revokes a key, with its audit row. `false`: there is no such living key.
    async fn revoke_key(
        &self,
        id: &KeyId,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError>;
    /// Every key of an organisation, or of operators (`None`), newest first.
    async fn keys(&self, org: Option<&OrgId>) -> Result<Vec<Key>, StoreError>;
    /// How many organisations there are.
    async fn orgs(&self) -> Result<u64, StoreError>;
    /// Audit rows, newest first.
    async fn audit(&self, limit: u16) -> Result<Vec<AuditRow>, StoreError>;
}
