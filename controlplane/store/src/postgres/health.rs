//! Health on PostgreSQL.

use async_trait::async_trait;
use controlplane_core::names::{NodeName, TrunkName};
use serde_json::json;
use sqlx::PgConnection;

use super::{PostgresStore, audit};
use crate::{
    HealthStore, StoreError,
    columns::Micros,
    error::Failure,
    health::{Hold, SaveHealth, SetHold, StoredHealth},
    health_rows::{self, HealthRow, HoldRow},
};

#[async_trait]
impl HealthStore for PostgresStore {
    async fn save_health(&self, save: SaveHealth) -> Result<(), StoreError> {
        self.transaction("save health", save, |c, save| Box::pin(save_all(c, save))).await
    }

    async fn health(&self) -> Result<StoredHealth, StoreError> {
        let rows =
            sqlx::query_as::<_, HealthRow>("SELECT kind, name, snapshot FROM health ORDER BY kind, name")
                .fetch_all(&self.pool)
                .await;
        rows.map(health_rows::health).map_err(|error| self.failed("read health", error))
    }

    async fn forget_health(&self, trunks: &[TrunkName], nodes: &[NodeName]) -> Result<(), StoreError> {
        let input = (trunks.to_vec(), nodes.to_vec());
        self.transaction("forget health", input, |c, (trunks, nodes)| Box::pin(forget(c, trunks, nodes)))
            .await
    }

    async fn set_hold(&self, set: SetHold) -> Result<bool, StoreError> {
        self.transaction("set a hold", set, |c, set| Box::pin(change(c, set))).await
    }

    async fn holds(&self) -> Result<Vec<Hold>, StoreError> {
        let rows =
            sqlx::query_as::<_, HoldRow>("SELECT kind, name, since, reason FROM hold ORDER BY kind, name")
                .fetch_all(&self.pool)
                .await;
        rows.map(health_rows::holds).map_err(|error| self.failed("list holds", error))
    }
}

async fn save_all(c: &mut PgConnection, save: &SaveHealth) -> Result<(), Failure> {
    // One statement for all: a carrier that fails takes thousands of trunks with it.
    sqlx::query(
        "INSERT INTO health (kind, name, snapshot, saved_at)
         SELECT value ->> 0, value ->> 1, value ->> 2, $2 FROM jsonb_array_elements($1) AS e (value)
         ON CONFLICT (kind, name) DO UPDATE SET snapshot = excluded.snapshot, saved_at = excluded.saved_at",
    )
    .bind(json!(health_rows::machines(save)))
    .bind(Micros::from(save.at))
    .execute(&mut *c)
    .await?;
    Ok(())
}

async fn forget(c: &mut PgConnection, trunks: &[TrunkName], nodes: &[NodeName]) -> Result<(), Failure> {
    let trunks = trunks.iter().map(|name| ("trunk", name.as_str()));
    let nodes = nodes.iter().map(|name| ("node", name.as_str()));
    for (kind, name) in trunks.chain(nodes) {
        for sql in [
            "DELETE FROM health WHERE kind = $1 AND name = $2",
            "DELETE FROM hold WHERE kind = $1 AND name = $2",
        ] {
            sqlx::query(sql).bind(kind).bind(name).execute(&mut *c).await?;
        }
    }
    Ok(())
}

async fn change(c: &mut PgConnection, set: &SetHold) -> Result<bool, Failure> {
    let (kind, name) = (set.target.kind(), set.target.name());
    let query = if set.held {
        sqlx::query(
            "INSERT INTO hold (kind, name, since, reason) VALUES ($1, $2, $3, $4)
             ON CONFLICT (kind, name) DO NOTHING",
        )
        .bind(kind)
        .bind(name)
        .bind(Micros::from(set.at))
        .bind(set.reason.as_deref())
    } else {
        sqlx::query("DELETE FROM hold WHERE kind = $1 AND name = $2").bind(kind).bind(name)
    };
    if query.execute(&mut *c).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let entry = audit::Entry {
        id: &set.audit_id,
        org: None,
        at: set.at,
        actor: &set.actor,
        action: set.target.action(set.held),
        target_type: kind,
        target_id: name,
        changes: &json!({"reason": set.reason}),
    };
    audit::write(c, entry).await?;
    Ok(true)
}
