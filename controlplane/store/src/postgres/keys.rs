//! Keys and the audit log on PostgreSQL.

use async_trait::async_trait;
use controlplane_core::ids::{AuditId, KeyId, OrgId};
use serde_json::json;
use sqlx::{PgConnection, types::Json, types::time::OffsetDateTime};

use super::{PostgresStore, audit};
use crate::{
    KeyStore, StoreError,
    calls::Actor,
    columns::{Micros, Word},
    error::Failure,
    keys::{AuditRow, Key},
    rows::{AuditLogRow, KeyRow, select_audit, select_keys},
};

#[async_trait]
impl KeyStore for PostgresStore {
    async fn create_key(&self, key: Key, actor: Actor, audit_id: AuditId) -> Result<(), StoreError> {
        let input = (key, actor, audit_id);
        self.transaction("create key", input, |c, (key, actor, id)| Box::pin(create(c, key, actor, id))).await
    }

    async fn bootstrap_operator(&self, key: Key, audit_id: AuditId) -> Result<bool, StoreError> {
        let operation = "make the first operator key";
        self.transaction(operation, (key, audit_id), |c, (key, id)| Box::pin(bootstrap(c, key, id))).await
    }

    async fn key_by_hash(&self, secret_sha256: &[u8; 32]) -> Result<Option<Key>, StoreError> {
        let row = sqlx::query_as::<_, KeyRow>(select_keys!("WHERE secret_sha256 = $1"))
            .bind(secret_sha256.as_slice())
            .fetch_optional(&self.pool)
            .await;
        let key = row.and_then(|row| row.map(Key::try_from).transpose());
        key.map_err(|error| self.failed("find key", error))
    }

    async fn revoke_key(
        &self,
        id: &KeyId,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError> {
        let input = Revocation { id: id.clone(), at, actor, audit_id };
        self.transaction("revoke key", input, |c, input| Box::pin(revoke(c, input))).await
    }

    async fn keys(&self, org: Option<&OrgId>) -> Result<Vec<Key>, StoreError> {
        let rows = sqlx::query_as::<_, KeyRow>(select_keys!(
            "WHERE org_id IS NOT DISTINCT FROM $1 ORDER BY id DESC"
        ))
        .bind(org.map(OrgId::as_str))
        .fetch_all(&self.pool)
        .await;
        let keys = rows.and_then(|rows| rows.into_iter().map(Key::try_from).collect());
        keys.map_err(|error| self.failed("list keys", error))
    }

    async fn orgs(&self) -> Result<u64, StoreError> {
        let orgs = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM org").fetch_one(&self.pool).await;
        orgs.map(|orgs| orgs.unsigned_abs()).map_err(|error| self.failed("count organisations", error))
    }

    async fn audit(&self, limit: u16) -> Result<Vec<AuditRow>, StoreError> {
        let rows =
            sqlx::query_as::<_, AuditLogRow>(select_audit!("ORDER BY occurred_at DESC, id DESC LIMIT $1"))
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await
                .map_err(|error| self.failed("read the audit log", error))?;
        Ok(rows.into_iter().map(AuditRow::from).collect())
    }
}

async fn create(c: &mut PgConnection, key: &Key, actor: &Actor, audit_id: &AuditId) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO api_key
             (id, org_id, name, prefix, secret_sha256, scopes, created_at, expires_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(key.id.as_str())
    .bind(key.org.as_ref().map(OrgId::as_str))
    .bind(&key.name)
    .bind(&key.prefix)
    .bind(key.secret_sha256.as_slice())
    .bind(Json(&key.scopes))
    .bind(Micros::from(key.created_at))
    .bind(key.expires_at.map(Micros::from))
    .bind(key.revoked_at.map(Micros::from))
    .execute(&mut *c)
    .await?;
    let entry = audit::Entry {
        id: audit_id,
        org: key.org.as_ref(),
        at: key.created_at,
        actor,
        action: "key.create",
        target_type: "key",
        target_id: key.id.as_str(),
        changes: &json!({"name": key.name, "prefix": key.prefix, "scopes": key.scopes}),
    };
    audit::write(c, entry).await
}

async fn bootstrap(c: &mut PgConnection, key: &Key, audit_id: &AuditId) -> Result<bool, Failure> {
    // Only one bootstrap at a time looks whether there is a key.
    sqlx::query("LOCK TABLE api_key IN SHARE ROW EXCLUSIVE MODE").execute(&mut *c).await?;
    let living: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM api_key WHERE org_id IS NULL AND revoked_at IS NULL)",
    )
    .fetch_one(&mut *c)
    .await?;
    if living {
        return Ok(false);
    }
    create(c, key, &Actor { key: None, request: None, ip: None }, audit_id).await?;
    Ok(true)
}

struct Revocation {
    id: KeyId,
    at: OffsetDateTime,
    actor: Actor,
    audit_id: AuditId,
}

async fn revoke(c: &mut PgConnection, revocation: &Revocation) -> Result<bool, Failure> {
    let Revocation { id, at, actor, audit_id } = revocation;
    let revoked: Option<(Option<Word<OrgId>>,)> = sqlx::query_as(
        "UPDATE api_key SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL RETURNING org_id",
    )
    .bind(Micros::from(*at))
    .bind(id.as_str())
    .fetch_optional(&mut *c)
    .await?;
    let Some((org,)) = revoked else { return Ok(false) };
    let entry = audit::Entry {
        id: audit_id,
        org: org.as_ref().map(|o| &o.0),
        at: *at,
        actor,
        action: "key.revoke",
        target_type: "key",
        target_id: id.as_str(),
        changes: &json!({}),
    };
    audit::write(c, entry).await?;
    Ok(true)
}
