//! Keys on PostgreSQL.

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
    key_rows::{KeyRow, select_keys},
    keys::{KEYS_MAX, Key, KeyPage, Made, Rotation, USES_AT_ONCE, Whose},
};

#[async_trait]
impl KeyStore for PostgresStore {
    async fn create_key(&self, key: Key, actor: Actor, audit_id: AuditId) -> Result<Made, StoreError> {
        let input = (key, actor, audit_id);
        self.transaction("create key", input, |c, (key, actor, id)| Box::pin(create(c, key, actor, id))).await
    }

    async fn bootstrap_operator(&self, key: Key, audit_id: AuditId) -> Result<bool, StoreError> {
        let operation = "make the first operator key";
        self.transaction(operation, (key, audit_id), |c, (key, id)| Box::pin(bootstrap(c, key, id))).await
    }

    async fn rotate_key(
        &self,
        rotation: Rotation,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<Made, StoreError> {
        let input = (rotation, actor, audit_id);
        self.transaction("rotate key", input, |c, (rotation, actor, id)| {
            Box::pin(rotate(c, rotation, actor, id))
        })
        .await
    }

    async fn keys_by_hash(&self, secrets_sha256: &[[u8; 32]]) -> Result<Vec<Key>, StoreError> {
        let wanted: Vec<&[u8]> = secrets_sha256.iter().map(<[u8; 32]>::as_slice).collect();
        let rows = sqlx::query_as::<_, KeyRow>(select_keys!("WHERE secret_sha256 = ANY($1)"))
            .bind(wanted)
            .fetch_all(&self.pool)
            .await;
        let keys = rows.and_then(|rows| rows.into_iter().map(Key::try_from).collect());
        keys.map_err(|error| self.failed("find keys", error))
    }

    async fn key(&self, whose: &Whose, id: &KeyId) -> Result<Option<Key>, StoreError> {
        let row = sqlx::query_as::<_, KeyRow>(select_keys!(
            "WHERE id = $1 AND ($2 OR org_id IS NOT DISTINCT FROM $3)"
        ))
        .bind(id.as_str())
        .bind(whose.is_all())
        .bind(whose.org())
        .fetch_optional(&self.pool)
        .await;
        let key = row.and_then(|row| row.map(Key::try_from).transpose());
        key.map_err(|error| self.failed("read key", error))
    }

    async fn revoke_key(
        &self,
        whose: &Whose,
        id: &KeyId,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError> {
        let input = Revocation { whose: whose.clone(), id: id.clone(), at, actor, audit_id };
        self.transaction("revoke key", input, |c, input| Box::pin(revoke(c, input))).await
    }

    async fn keys(&self, page: KeyPage) -> Result<(Vec<Key>, bool), StoreError> {
        let rows = sqlx::query_as::<_, KeyRow>(select_keys!(
            "WHERE ($1 OR org_id IS NOT DISTINCT FROM $2) AND ($3::text IS NULL OR id < $3) ORDER BY id DESC LIMIT $4"
        ))
        .bind(page.whose.is_all())
        .bind(page.whose.org())
        .bind(page.starting_after.as_ref().map(KeyId::as_str))
        .bind(i64::from(page.limit) + 1)
        .fetch_all(&self.pool)
        .await;
        let keys = rows.and_then(|rows| rows.into_iter().map(Key::try_from).collect::<Result<Vec<_>, _>>());
        let mut keys = keys.map_err(|error| self.failed("list keys", error))?;
        let has_more = keys.len() > usize::from(page.limit);
        keys.truncate(page.limit.into());
        Ok((keys, has_more))
    }

    async fn note_uses(&self, uses: Vec<(KeyId, OffsetDateTime)>) -> Result<(), StoreError> {
        self.transaction("note uses of keys", uses, |c, uses| Box::pin(note(c, uses))).await
    }
}

async fn create(c: &mut PgConnection, key: &Key, actor: &Actor, audit_id: &AuditId) -> Result<Made, Failure> {
    if !insert(c, key).await? {
        return Ok(Made::Full);
    }
    // A request without a key makes one by force of the data directory.
    let is_forced = actor.key.is_none() && actor.request.is_some();
    let entry = audit::Entry {
        id: audit_id,
        org: key.org.as_ref(),
        at: key.created_at,
        actor,
        action: "key.create",
        target_type: "key",
        target_id: key.id.as_str(),
        // Its name stays with the key: what is chained names nobody.
        changes: &json!({
            "prefix": key.prefix, "scopes": key.scopes, "mode": key.mode, "forced": is_forced
        }),
    };
    audit::write(c, entry).await?;
    Ok(Made::Yes)
}

/// `false`: there are as many as there may be.
async fn insert(c: &mut PgConnection, key: &Key) -> Result<bool, Failure> {
    let org = key.org.as_ref().map(OrgId::as_str);
    // One key of an organisation at a time is counted.
    sqlx::query("SELECT 1 FROM org WHERE org_id = $1 FOR NO KEY UPDATE").bind(org).execute(&mut *c).await?;
    let inserted = sqlx::query(
        "INSERT INTO api_key
             (id, org_id, mode, name, prefix, secret_sha256, scopes, created_at, expires_at, revoked_at, rotated_from)
         SELECT $1, $2, $3, $4, $5, $6, $7::jsonb, $8::timestamptz, $9::timestamptz, $10::timestamptz, $11
         WHERE (SELECT count(*) FROM api_key WHERE org_id IS NOT DISTINCT FROM $2 AND revoked_at IS NULL
             AND (expires_at IS NULL OR expires_at > $8)) < $12",
    )
    .bind(key.id.as_str())
    .bind(org)
    .bind(key.mode.as_str())
    .bind(&key.name)
    .bind(&key.prefix)
    .bind(key.secret_sha256.as_slice())
    .bind(Json(&key.scopes))
    .bind(Micros::from(key.created_at))
    .bind(key.expires_at.map(Micros::from))
    .bind(key.revoked_at.map(Micros::from))
    .bind(key.rotated_from.as_ref().map(KeyId::as_str))
    .bind(i64::from(KEYS_MAX))
    .execute(c)
    .await?;
    Ok(inserted.rows_affected() > 0)
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
    let made = create(c, key, &Actor::default(), audit_id).await?;
    Ok(made == Made::Yes)
}

async fn rotate(
    c: &mut PgConnection,
    rotation: &Rotation,
    actor: &Actor,
    audit_id: &AuditId,
) -> Result<Made, Failure> {
    let Rotation { id, whose, until, new } = rotation;
    let living: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM api_key WHERE id = $1 AND ($2 OR org_id IS NOT DISTINCT FROM $3) AND revoked_at IS NULL
             AND (expires_at IS NULL OR expires_at > $4))",
    )
    .bind(id.as_str())
    .bind(whose.is_all())
    .bind(whose.org())
    .bind(Micros::from(new.created_at))
    .fetch_one(&mut *c)
    .await?;
    if !living {
        return Ok(Made::NotFound);
    }
    if !insert(c, new).await? {
        return Ok(Made::Full);
    }
    sqlx::query(
        "UPDATE api_key SET expires_at = $1 WHERE id = $2 AND (expires_at IS NULL OR expires_at > $1)",
    )
    .bind(Micros::from(*until))
    .bind(id.as_str())
    .execute(&mut *c)
    .await?;
    // What an operator allows the one, the other has too.
    sqlx::query(
        "INSERT INTO customer_rule (subject, kind, document, updated_at)
         SELECT $1, kind, document, $2 FROM customer_rule WHERE subject = $3",
    )
    .bind(new.id.as_str())
    .bind(Micros::from(new.created_at))
    .bind(id.as_str())
    .execute(&mut *c)
    .await?;
    let entry = audit::Entry {
        id: audit_id,
        org: new.org.as_ref(),
        at: new.created_at,
        actor,
        action: "key.rotate",
        target_type: "key",
        target_id: id.as_str(),
        changes: &json!({"new": new.id, "prefix": new.prefix, "scopes": new.scopes}),
    };
    audit::write(c, entry).await?;
    Ok(Made::Yes)
}

struct Revocation {
    whose: Whose,
    id: KeyId,
    at: OffsetDateTime,
    actor: Actor,
    audit_id: AuditId,
}

async fn revoke(c: &mut PgConnection, revocation: &Revocation) -> Result<bool, Failure> {
    let Revocation { whose, id, at, actor, audit_id } = revocation;
    let revoked: Option<(Option<Word<OrgId>>,)> = sqlx::query_as(
        "UPDATE api_key SET revoked_at = $1
         WHERE id = $2 AND ($3 OR org_id IS NOT DISTINCT FROM $4) AND revoked_at IS NULL RETURNING org_id",
    )
    .bind(Micros::from(*at))
    .bind(id.as_str())
    .bind(whose.is_all())
    .bind(whose.org())
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

async fn note(c: &mut PgConnection, uses: &[(KeyId, OffsetDateTime)]) -> Result<(), Failure> {
    for (id, at) in uses.iter().take(USES_AT_ONCE) {
        sqlx::query(
            "UPDATE api_key SET last_used_at = $1 WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)",
        )
        .bind(Micros::from(*at))
        .bind(id.as_str())
        .execute(&mut *c)
        .await?;
    }
    Ok(())
}
