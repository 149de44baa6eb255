//! Replicas on SQLite.
//!
//! The file has one control plane, so nothing here is used while it runs: the rules are the same as on PostgreSQL.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use controlplane_core::{
    ids::{AttemptId, CallId, OrgId, ReplicaId},
    names::CarrierName,
};
use serde_json::Value;
use sqlx::{FromRow, SqliteConnection, types::Json};
use tokio::sync::watch;

use super::{SqliteStore, reading};
use crate::{
    AuditStore as _, ReplicaStore, StoreError,
    audit::NewAuditRow,
    calls::{Account, Call},
    columns::{Micros, Word},
    error::Failure,
    replicas::{Held, Owned, Renewal, Renewed, Replica, SettingMarks, Sighting},
};

/// The database's clock, in microseconds.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"
    };
}

/// Rows of replicas that are dead and have left nothing are kept for so long, to be shown.
const FORGET: &str = concat!(
    "DELETE FROM replica WHERE expires_at < ",
    now!(),
    " - 86400000000
     AND NOT EXISTS (SELECT 1 FROM call WHERE lease_owner = replica.id AND ended_at IS NULL)"
);

#[async_trait]
impl ReplicaStore for SqliteStore {
    fn replica(&self) -> Option<&ReplicaId> {
        None
    }

    async fn renew_replica(&self, renewal: Renewal) -> Result<Renewed, StoreError> {
        let operation = "renew a replica's lease";
        self.writer.write(operation, renewal, |c, renewal| Box::pin(renew(c, renewal))).await
    }

    async fn give_up_replica(&self, replica: &ReplicaId) -> Result<(), StoreError> {
        let operation = "give a replica's lease up";
        self.writer.write(operation, replica.clone(), |c, replica| Box::pin(give_up(c, replica))).await
    }

    async fn replicas(&self) -> Result<Vec<Replica>, StoreError> {
        let rows = sqlx::query_as::<_, ReplicaRow>(concat!(
            "SELECT r.id, name, secrets, started_at, r.expires_at > ",
            now!(),
            " AS is_living,
                 r.expires_at > ",
            now!(),
            " AND l.replica_id IS NOT NULL AS leads,
                 (r.expires_at - ",
            now!(),
            ") / 1000 AS lease_left_ms,
                 (SELECT count(*) FROM call WHERE lease_owner = r.id AND ended_at IS NULL) AS calls
             FROM replica AS r LEFT JOIN leader AS l ON l.replica_id = r.id ORDER BY started_at, r.id"
        ))
        .fetch_all(&self.readers)
        .await
        .map_err(|error| self.failed("list replicas", error))?;
        Ok(rows.into_iter().map(Replica::from).collect())
    }

    async fn claim_calls(&self, replica: &ReplicaId, limit: u16) -> Result<Vec<Call>, StoreError> {
        let input = (replica.clone(), limit);
        self.writer
            .write("claim calls", input, |c, (replica, limit)| Box::pin(claim(c, replica, *limit)))
            .await
    }

    async fn owned_calls(&self, replica: &ReplicaId) -> Result<Vec<Owned>, StoreError> {
        let rows = sqlx::query_as::<_, (Word<CallId>, Word<OrgId>, i64)>(
            "SELECT id, org_id, lease_epoch FROM call WHERE lease_owner = $1 AND ended_at IS NULL ORDER BY id",
        )
        .bind(replica.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(|error| self.failed("list a replica's calls", error))?;
        let owned =
            |(call, org, epoch): (Word<CallId>, Word<OrgId>, i64)| Owned { call: call.0, org: org.0, epoch };
        Ok(rows.into_iter().map(owned).collect())
    }

    async fn wished_ends(&self, replica: &ReplicaId) -> Result<Vec<CallId>, StoreError> {
        let rows = sqlx::query_scalar::<_, Word<CallId>>(
            "SELECT id FROM call WHERE lease_owner = $1 AND ended_at IS NULL AND cancel_requested_at IS NOT NULL ORDER BY id",
        )
        .bind(replica.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(|error| self.failed("look for calls that shall end", error))?;
        Ok(rows.into_iter().map(|id| id.0).collect())
    }

    async fn setting_marks(&self) -> Result<SettingMarks, StoreError> {
        let (fleet, holds, rules) = sqlx::query_as::<_, (i64, i64, i64)>(
            "SELECT (SELECT revision FROM declared_fleet WHERE id = 1),
                 (SELECT revision FROM setting_mark WHERE kind = 'hold'),
                 (SELECT revision FROM setting_mark WHERE kind = 'customer_rule')",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(|error| self.failed("read the marks of settings", error))?;
        Ok(SettingMarks { fleet, holds, rules })
    }

    async fn hold_account(
        &self,
        _attempt: &AttemptId,
        _carrier: &CarrierName,
        _account: Account,
    ) -> Result<Held, StoreError> {
        // One control plane counts in memory.
        Ok(Held::Yes)
    }

    async fn free_account(&self, _attempt: &AttemptId) -> Result<(), StoreError> {
        Ok(())
    }

    async fn tell_once(
        &self,
        _what: &str,
        _within: Duration,
        row: Option<NewAuditRow>,
    ) -> Result<bool, StoreError> {
        // There is nobody else who may have.
        self.record_audit(row.into_iter().collect()).await?;
        Ok(true)
    }

    async fn tell_sighting(&self, _seen: Value) -> Result<(), StoreError> {
        // There is nobody else.
        Ok(())
    }

    async fn sightings(&self, after: Option<i64>) -> Result<(i64, Vec<Sighting>), StoreError> {
        Ok((after.unwrap_or(0), Vec::new()))
    }

    async fn nudge(&self) {
        // There is nobody else.
    }

    fn nudges(&self) -> watch::Receiver<u64> {
        // For ever as it is.
        self.nudged.subscribe()
    }
}

#[derive(FromRow)]
struct ReplicaRow {
    id: Word<ReplicaId>,
    name: String,
    secrets: Json<BTreeMap<String, String>>,
    started_at: Micros,
    is_living: bool,
    leads: bool,
    lease_left_ms: i64,
    calls: i64,
}

impl From<ReplicaRow> for Replica {
    fn from(row: ReplicaRow) -> Self {
        Self {
            id: row.id.0,
            name: row.name,
            secrets: row.secrets.0,
            started_at: row.started_at.0,
            is_living: row.is_living,
            leads: row.leads,
            lease_left_ms: row.lease_left_ms,
            calls: u64::try_from(row.calls).unwrap_or(0),
        }
    }
}

async fn renew(c: &mut SqliteConnection, renewal: &Renewal) -> Result<Renewed, Failure> {
    let lease = i64::try_from(renewal.lease.as_micros()).unwrap_or(i64::MAX);
    sqlx::query(concat!(
        "INSERT INTO replica (id, name, secrets, started_at, expires_at) VALUES ($1, $2, $3, ",
        now!(),
        ", ",
        now!(),
        " + $4)
         ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, secrets = excluded.secrets"
    ))
    .bind(renewal.replica.as_str())
    .bind(&renewal.name)
    .bind(Json(&renewal.secrets))
    .bind(lease)
    .execute(&mut *c)
    .await?;
    sqlx::query(FORGET).execute(&mut *c).await?;
    let leads = sqlx::query_scalar::<_, i64>(concat!(
        "UPDATE leader SET epoch = CASE WHEN replica_id = $1 THEN epoch ELSE epoch + 1 END, replica_id = $1,
             expires_at = ",
        now!(),
        " + $2
         WHERE id = 1 AND (replica_id = $1 OR replica_id IS NULL OR expires_at <= ",
        now!(),
        ") RETURNING epoch"
    ))
    .bind(renewal.replica.as_str())
    .bind(lease)
    .fetch_optional(&mut *c)
    .await?;
    let at = sqlx::query_scalar::<_, Micros>(concat!("SELECT ", now!())).fetch_one(c).await?;
    Ok(Renewed { leads, at: at.0 })
}

async fn give_up(c: &mut SqliteConnection, replica: &ReplicaId) -> Result<(), Failure> {
    for sql in [
        concat!("UPDATE replica SET expires_at = ", now!(), " WHERE id = $1"),
        "UPDATE leader SET replica_id = NULL WHERE replica_id = $1",
    ] {
        sqlx::query(sql).bind(replica.as_str()).execute(&mut *c).await?;
    }
    Ok(())
}

async fn claim(c: &mut SqliteConnection, replica: &ReplicaId, limit: u16) -> Result<Vec<Call>, Failure> {
    let ids = sqlx::query_scalar::<_, String>(concat!(
        "UPDATE call SET lease_owner = $1, lease_epoch = lease_epoch + 1 WHERE id IN (
             SELECT id FROM call WHERE ended_at IS NULL AND (lease_owner IS NULL OR lease_owner IN (
                 SELECT id FROM replica WHERE expires_at <= ",
        now!(),
        " AND id <> $1))
             ORDER BY id LIMIT CAST($2 AS INTEGER))
         RETURNING id"
    ))
    .bind(replica.as_str())
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut calls = reading::by_ids(c, &ids).await?;
    calls.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(calls)
}
