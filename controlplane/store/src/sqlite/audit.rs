//! Audit rows, written in the transaction of the change they tell of.

use controlplane_core::ids::{AuditId, OrgId};
use sqlx::{SqliteConnection, types::Json, types::time::OffsetDateTime};

use crate::{calls::Actor, columns::Micros, error::Failure};

/// One row to be written.
pub(super) struct Entry<'a> {
    pub(super) id: &'a AuditId,
    pub(super) org: Option<&'a OrgId>,
    pub(super) at: OffsetDateTime,
    pub(super) actor: &'a Actor,
    pub(super) action: &'static str,
    pub(super) target_type: &'static str,
    pub(super) target_id: &'a str,
    pub(super) changes: &'a serde_json::Value,
}

pub(super) async fn write(c: &mut SqliteConnection, entry: Entry<'_>) -> Result<(), Failure> {
    insert(c, entry, "success", None).await
}

/// Tells of what was not done, and by which rule.
pub(super) async fn denied(c: &mut SqliteConnection, entry: Entry<'_>, rule: &str) -> Result<(), Failure> {
    insert(c, entry, "denied", Some(rule)).await
}

async fn insert(
    c: &mut SqliteConnection,
    entry: Entry<'_>,
    outcome: &'static str,
    reason: Option<&str>,
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO audit_log (id, org_id, occurred_at, actor_type, actor_id, key_prefix, auth_method,
             action, target_type, target_id, outcome, ip, request_id, changes, reason)
         VALUES ($1, $2, $3,
             CASE WHEN $4 IS NULL THEN 'system'
                  WHEN EXISTS (SELECT 1 FROM api_key WHERE id = $4 AND org_id IS NOT NULL) THEN 'customer'
                  ELSE 'operator' END,
             $4, (SELECT prefix FROM api_key WHERE id = $4),
             CASE WHEN $4 IS NULL THEN NULL ELSE 'api_key' END,
             $5, $6, $7, $11, $8, $9, $10, $12)",
    )
    .bind(entry.id.as_str())
    .bind(entry.org.map(OrgId::as_str))
    .bind(Micros::from(entry.at))
    .bind(entry.actor.key.as_ref().map(|k| k.as_str()))
    .bind(entry.action)
    .bind(entry.target_type)
    .bind(entry.target_id)
    .bind(entry.actor.ip.as_deref())
    .bind(entry.actor.request.as_ref().map(|r| r.as_str()))
    .bind(Json(entry.changes))
    .bind(outcome)
    .bind(reason)
    .execute(c)
    .await?;
    Ok(())
}
