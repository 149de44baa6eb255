//! Secrets of all rows, to be sealed anew.

use serde_json::json;
use sqlx::{SqliteConnection, SqlitePool, types::time::OffsetDateTime};

use super::audit;
use crate::{
    calls::Actor,
    error::Failure,
    webhook_rows::HeldRow,
    webhooks::{Held, Holder, Secret},
};
use controlplane_core::ids::AuditId;

pub(super) async fn list(pool: &SqlitePool, after: &str, limit: u16) -> Result<Vec<Held>, sqlx::Error> {
    let rows = sqlx::query_as::<_, HeldRow>(
        "SELECT id AS holder, org_id, secret, previous_secret FROM webhook_endpoint WHERE id > $1
         UNION ALL
         SELECT org_id AS holder, org_id, secret, previous_secret FROM callback_secret WHERE org_id > $1
         ORDER BY holder LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.into_iter().map(Held::try_from).collect()
}

pub(super) struct Resealing {
    pub(super) changes: Vec<(Held, Held)>,
    pub(super) at: OffsetDateTime,
    pub(super) actor: Actor,
    pub(super) audit_id: AuditId,
}

/// What was changed since it was read stays as it is.
pub(super) async fn reseal(c: &mut SqliteConnection, resealing: &Resealing) -> Result<u64, Failure> {
    let Resealing { changes, at, actor, audit_id } = resealing;
    let mut resealed = 0;
    for (old, new) in changes {
        let sql = match &old.holder {
            Holder::Endpoint(..) => {
                "UPDATE webhook_endpoint SET secret = $1, previous_secret = $2
                 WHERE id = $3 AND secret = $4 AND previous_secret IS $5"
            }
            Holder::Callback(_) => {
                "UPDATE callback_secret SET secret = $1, previous_secret = $2
                 WHERE org_id = $3 AND secret = $4 AND previous_secret IS $5"
            }
        };
        let bytes = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.0.clone());
        let done = sqlx::query(sql)
            .bind(&new.current.0)
            .bind(bytes(&new.previous))
            .bind(old.holder.row())
            .bind(&old.current.0)
            .bind(bytes(&old.previous))
            .execute(&mut *c)
            .await?;
        resealed += done.rows_affected();
    }
    if resealed > 0 {
        let entry = audit::Entry {
            id: audit_id,
            org: None,
            at: *at,
            actor,
            action: "secrets.reseal",
            target_type: "webhook",
            target_id: "all",
            changes: &json!({"rows": resealed}),
        };
        audit::write(c, entry).await?;
    }
    Ok(resealed)
}
