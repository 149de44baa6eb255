//! What is held after a restore, on PostgreSQL.

use async_trait::async_trait;
use serde_json::json;
use sqlx::PgConnection;

use super::{PostgresStore, audit};
use crate::{
    RestoreStore, StoreError,
    columns::Micros,
    error::Failure,
    restoring::{HeldWork, HoldOpen, Release},
    rows::{HeldWorkRow, SELECT_HELD},
};

#[async_trait]
impl RestoreStore for PostgresStore {
    async fn hold_open(&self, hold: HoldOpen) -> Result<u64, StoreError> {
        self.transaction("hold what is open", hold, |c, hold| Box::pin(hold_all(c, hold))).await
    }

    async fn held(&self) -> Result<Vec<HeldWork>, StoreError> {
        let rows = sqlx::query_as::<_, HeldWorkRow>(SELECT_HELD).fetch_all(&self.pool).await;
        let rows = rows.map_err(|error| self.failed("list what is held", error))?;
        Ok(rows.into_iter().map(HeldWork::from).collect())
    }

    async fn release(&self, release: Release) -> Result<u64, StoreError> {
        self.transaction("release what is held", release, |c, release| Box::pin(let_go(c, release))).await
    }
}

pub(super) async fn hold_all(c: &mut PgConnection, hold: &HoldOpen) -> Result<u64, Failure> {
    let done = sqlx::query(
        "INSERT INTO held (id, held_at)
         SELECT id, $1 FROM call WHERE ended_at IS NULL
         UNION ALL
         SELECT id, $1 FROM incident WHERE phase <> 'idle'
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(Micros::from(hold.at))
    .execute(&mut *c)
    .await?;
    let entry = audit::Entry {
        id: &hold.audit_id,
        org: None,
        at: hold.at,
        actor: &hold.actor,
        action: "backup.restore",
        target_type: "fleet",
        target_id: "-",
        changes: &json!({"held": done.rows_affected()}),
    };
    audit::write(c, entry).await?;
    Ok(done.rows_affected())
}

async fn let_go(c: &mut PgConnection, release: &Release) -> Result<u64, Failure> {
    // What has ended is held no more, and nobody lets it go on.
    sqlx::query(
        "DELETE FROM held WHERE id NOT IN (SELECT id FROM call WHERE ended_at IS NULL)
         AND id NOT IN (SELECT id FROM incident WHERE phase <> 'idle')",
    )
    .execute(&mut *c)
    .await?;
    let mut released = 0;
    match &release.ids {
        None => released = sqlx::query("DELETE FROM held").execute(&mut *c).await?.rows_affected(),
        Some(ids) => {
            for id in ids {
                let done = sqlx::query("DELETE FROM held WHERE id = $1").bind(id).execute(&mut *c).await?;
                released += done.rows_affected();
            }
        }
    }
    let entry = audit::Entry {
        id: &release.audit_id,
        org: None,
        at: release.at,
        actor: &release.actor,
        action: "held.release",
        target_type: "fleet",
        target_id: "-",
        changes: &json!({"released": released, "ids": release.ids}),
    };
    audit::write(c, entry).await?;
    Ok(released)
}
