//! Sessions of the console on SQLite.

use async_trait::async_trait;
use controlplane_core::ids::{AuditId, KeyId};
use serde_json::json;
use sqlx::{SqliteConnection, types::time::OffsetDateTime};

use super::{SqliteStore, audit};
use crate::{
    KeyStore, SessionStore, StoreError,
    calls::Actor,
    columns::{Micros, Word},
    error::Failure,
    keys::Whose,
    sessions::{NewSession, SESSION_IDLE_MAX, SESSION_LASTS, SESSIONS_MAX, Session},
};

#[async_trait]
impl SessionStore for SqliteStore {
    async fn open_session(
        &self,
        session: NewSession,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError> {
        let input = (session, actor, audit_id);
        self.writer
            .write("open session", input, |c, (session, actor, id)| Box::pin(open(c, session, actor, id)))
            .await
    }

    async fn session(&self, token_sha256: &[u8; 32]) -> Result<Option<Session>, StoreError> {
        let row = sqlx::query_as::<_, (Word<KeyId>, Micros, Micros)>(
            "SELECT key_id, seen_at, ends_at FROM console_session WHERE token_sha256 = $1",
        )
        .bind(token_sha256.as_slice())
        .fetch_optional(&self.readers)
        .await
        .map_err(|error| self.failed("find session", error))?;
        let Some((key, seen_at, ends_at)) = row else { return Ok(None) };
        let key = self.key(&Whose::Operators, &key.0).await?;
        Ok(key.map(|key| Session { key, seen_at: seen_at.0, ends_at: ends_at.0 }))
    }

    async fn see_session(&self, token_sha256: &[u8; 32], at: OffsetDateTime) -> Result<(), StoreError> {
        self.writer
            .write("note use of session", (*token_sha256, at), |c, (token, at)| Box::pin(see(c, token, *at)))
            .await
    }

    async fn end_session(
        &self,
        token_sha256: &[u8; 32],
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<bool, StoreError> {
        let input = (*token_sha256, at, actor, audit_id);
        self.writer
            .write("end session", input, |c, (token, at, actor, id)| Box::pin(end(c, token, *at, actor, id)))
            .await
    }
}

async fn open(
    c: &mut SqliteConnection,
    session: &NewSession,
    actor: &Actor,
    audit_id: &AuditId,
) -> Result<bool, Failure> {
    let NewSession { token_sha256, key, at } = session;
    sqlx::query("DELETE FROM console_session WHERE ends_at <= $1 OR seen_at <= $2")
        .bind(Micros::from(*at))
        .bind(Micros::from(*at - SESSION_IDLE_MAX))
        .execute(&mut *c)
        .await?;
    sqlx::query(
        "DELETE FROM console_session WHERE token_sha256 IN (SELECT token_sha256 FROM console_session
             WHERE key_id = $1 ORDER BY created_at DESC LIMIT -1 OFFSET $2)",
    )
    .bind(key.as_str())
    .bind(i64::from(SESSIONS_MAX) - 1)
    .execute(&mut *c)
    .await?;
    let inserted = sqlx::query(
        "INSERT INTO console_session (token_sha256, key_id, created_at, seen_at, ends_at)
         SELECT $1, id, $2, $2, $3 FROM api_key
         WHERE id = $4 AND org_id IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
    )
    .bind(token_sha256.as_slice())
    .bind(Micros::from(*at))
    .bind(Micros::from(*at + SESSION_LASTS))
    .bind(key.as_str())
    .execute(&mut *c)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    tell(c, "session.create", key, *at, actor, audit_id).await?;
    Ok(true)
}

/// A session is told by its key: its own name is a secret.
async fn tell(
    c: &mut SqliteConnection,
    action: &'static str,
    key: &KeyId,
    at: OffsetDateTime,
    actor: &Actor,
    id: &AuditId,
) -> Result<(), Failure> {
    let entry = audit::Entry {
        id,
        org: None,
        at,
        actor,
        action,
        target_type: "key",
        target_id: key.as_str(),
        changes: &json!({}),
    };
    audit::write(c, entry).await
}

async fn see(c: &mut SqliteConnection, token: &[u8; 32], at: OffsetDateTime) -> Result<(), Failure> {
    sqlx::query("UPDATE console_session SET seen_at = $1 WHERE token_sha256 = $2 AND seen_at < $1")
        .bind(Micros::from(at))
        .bind(token.as_slice())
        .execute(c)
        .await?;
    Ok(())
}

async fn end(
    c: &mut SqliteConnection,
    token: &[u8; 32],
    at: OffsetDateTime,
    actor: &Actor,
    audit_id: &AuditId,
) -> Result<bool, Failure> {
    let ended: Option<(Word<KeyId>,)> =
        sqlx::query_as("DELETE FROM console_session WHERE token_sha256 = $1 RETURNING key_id")
            .bind(token.as_slice())
            .fetch_optional(&mut *c)
            .await?;
    let Some((key,)) = ended else { return Ok(false) };
    tell(c, "session.end", &key.0, at, actor, audit_id).await?;
    Ok(true)
}
