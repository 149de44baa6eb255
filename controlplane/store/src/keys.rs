//! API keys of customers and operators. Only hashes are kept.

use async_trait::async_trait;
use controlplane_core::{
    access::Mode,
    ids::{AuditId, KeyId, OrgId},
};
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// Most living keys of an organisation, and of operators.
pub const KEYS_MAX: u16 = 100;
/// Most uses that one write notes.
pub const USES_AT_ONCE: usize = 1_000;

/// A key as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its public identity.
    pub id: KeyId,
    /// A customer's organisation; `None` for an operator's key.
    pub org: Option<OrgId>,
    /// Whether what it asks for is done, or only rehearsed.
    pub mode: Mode,
    /// What people call it.
    pub name: String,
    /// The first characters of the secret, by which people recognise it.
    pub prefix: String,
    /// SHA-256 of the whole secret (256 random bits need no slow hash).
    pub secret_sha256: [u8; 32],
    /// What it may do, as words: a customer's scopes, an operator's role and those below it.
    pub scopes: Vec<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    /// About when it was used last: written once a minute at most. Never written with the key.
    pub last_used_at: Option<OffsetDateTime>,
    /// The key that it takes the place of.
    pub rotated_from: Option<KeyId>,
    /// Since when its organisation is suspended. Never written with the key.
    pub suspended_at: Option<OffsetDateTime>,
}

/// Whose keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// Operators'.
    Operators,
    /// An organisation's.
    Org(OrgId),
}

impl Whose {
    pub(crate) const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    pub(crate) fn org(&self) -> Option<&str> {
        match self {
            Self::All | Self::Operators => None,
            Self::Org(org) => Some(org.as_str()),
        }
    }
}

/// A part of the list of keys, newest first.
#[derive(Debug, Clone)]
pub struct KeyPage {
    /// Whose.
    pub whose: Whose,
    /// At most this many, 1 to 100.
    pub limit: u16,
    /// Only what is older than this key.
    pub starting_after: Option<KeyId>,
}

/// A key that takes another one's place.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The key that ends.
    pub id: KeyId,
    /// Whose it must be.
    pub whose: Whose,
    /// When it ends, unless it ends before.
    pub until: OffsetDateTime,
    /// The key that follows it.
    pub new: Key,
}

/// What came of making a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Made {
    /// It is there.
    Yes,
    /// There are [`KEYS_MAX`] living ones. Nothing was written.
    Full,
    /// There is no such living key to take the place of. Nothing was written.
    NotFound,
}

/// Keys.
#[async_trait]
pub trait KeyStore: Sync {
    /// Makes a key, with its audit row.
    async fn create_key(&self, key: Key, actor: Actor, audit_id: AuditId) -> Result<Made, StoreError>;
    /// Makes the first operator key, unless an operator key that is not revoked exists: then `false`.
    async fn bootstrap_operator(&self, key: Key, audit_id: AuditId) -> Result<bool, StoreError>;
    /// Makes a key that takes another one's place, with its limits and an audit row; both open until the former one ends.
    async fn rotate_key(
        &self,
        rotation: Rotation,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<Made, StoreError>;
    /// The keys with these hashes, revoked or not.
    async fn keys_by_hash(&self, secrets_sha256: &[[u8; 32]]) -> Result<Vec<Key>, StoreError>;
    /// The key with this hash, revoked or not.
    async fn key_by_hash(&self, secret_sha256: &[u8; 32]) -> Result<Option<Key>, StoreError> {
        Ok(self.keys_by_hash(&[*secret_sha256]).await?.pop())
    }
    /// One key, revoked or not. `None` for a missing one and for somebody else's alike.
    async fn key(&self, whose: &Whose, id: &KeyId) -> Result<Option<Key>, StoreError>;
    /// Revokes a key, with its audit row. `false`: there is no such key that is not revoked.
    async fn revoke_key(
        &self,
        whose: &Whose,
        id: &KeyId,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError>;
    /// Keys, revoked or not, and whether there are more.
    async fn keys(&self, page: KeyPage) -> Result<(Vec<Key>, bool), StoreError>;
    /// Notes when keys were used, [`USES_AT_ONCE`] at most; an earlier moment than the noted one changes nothing.
    async fn note_uses(&self, uses: Vec<(KeyId, OffsetDateTime)>) -> Result<(), StoreError>;
}
