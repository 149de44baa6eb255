//! The declared fleet on PostgreSQL.

use async_trait::async_trait;
use sqlx::{PgConnection, types::Json};

use super::{PostgresStore, audit};
use crate::{
    FleetStore, StoreError,
    columns::Micros,
    error::Failure,
    fleet::{Applied, ApplyFleet, DeclaredFleet},
    rows::FleetRow,
};

#[async_trait]
impl FleetStore for PostgresStore {
    async fn declared_fleet(&self) -> Result<Option<DeclaredFleet>, StoreError> {
        let row = sqlx::query_as::<_, FleetRow>(
            "SELECT revision, document, applied_at FROM declared_fleet WHERE revision > 0",
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(|error| self.failed("read the fleet", error))?;
        Ok(row.map(DeclaredFleet::from))
    }

    async fn apply_fleet(&self, apply: ApplyFleet) -> Result<Applied, StoreError> {
        self.transaction("apply the fleet", apply, |c, apply| Box::pin(change(c, apply))).await
    }
}

async fn change(c: &mut PgConnection, apply: &ApplyFleet) -> Result<Applied, Failure> {
    let changed = sqlx::query_scalar::<_, i64>(
        "UPDATE declared_fleet SET revision = revision + 1, document = $1, applied_at = $2
         WHERE id = 1 AND revision = $3 RETURNING revision",
    )
    .bind(Json(&apply.document))
    .bind(Micros::from(apply.at))
    .bind(apply.expected_revision)
    .fetch_optional(&mut *c)
    .await?;
    let Some(revision) = changed else {
        let now = sqlx::query_scalar("SELECT revision FROM declared_fleet WHERE id = 1").fetch_one(c).await?;
        return Ok(Applied::Stale(now));
    };
    let entry = audit::Entry {
        id: &apply.audit_id,
        org: None,
        at: apply.at,
        actor: &apply.actor,
        action: "fleet.apply",
        target_type: "fleet",
        target_id: &revision.to_string(),
        changes: &apply.changes,
    };
    audit::write(c, entry).await?;
    Ok(Applied::Revision(revision))
}
