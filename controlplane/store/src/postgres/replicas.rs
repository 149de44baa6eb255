//! Replicas on PostgreSQL.
//!
//! Signs of life have a connection of their own: they must not wait for calls. A claim locks the rows of those whom it takes for
//! dead, so that none of them lives again until it is written: who renews its lease after that finds what it has lost.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use controlplane_core::{
    ids::{AttemptId, CallId, OrgId, ReplicaId},
    names::CarrierName,
};
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection, types::Json};
use tokio::sync::watch;

use super::{PostgresStore, accounts, audit, reading};
use crate::{
    ReplicaStore, StoreError,
    audit::NewAuditRow,
    calls::{Account, Call},
    columns::{Micros, Word},
    error::Failure,
    replicas::{Held, Owned, Renewal, Renewed, Replica, SettingMarks, Sighting},
};

#[async_trait]
impl ReplicaStore for PostgresStore {
    fn replica(&self) -> Option<&ReplicaId> {
        self.replica.as_ref()
    }

    async fn renew_replica(&self, renewal: Renewal) -> Result<Renewed, StoreError> {
        let renewed = self.heart.beat(&renewal, |c, renewal| Box::pin(renew(c, renewal))).await;
        renewed.map_err(|failure| self.failed("renew a replica's lease", failure))
    }

    async fn give_up_replica(&self, replica: &ReplicaId) -> Result<(), StoreError> {
        let given_up = self.heart.beat(replica, |c, replica| Box::pin(give_up(c, replica))).await;
        given_up.map_err(|failure| self.failed("give a replica's lease up", failure))
    }

    async fn replicas(&self) -> Result<Vec<Replica>, StoreError> {
        let rows = sqlx::query_as::<_, ReplicaRow>(
            "SELECT r.id, name, secrets, started_at, r.expires_at > clock_timestamp() AS is_living,
                 r.expires_at > clock_timestamp() AND l.replica_id IS NOT NULL AS leads,
                 (extract(epoch FROM r.expires_at - clock_timestamp()) * 1000)::bigint AS lease_left_ms,
                 (SELECT count(*) FROM call WHERE lease_owner = r.id COLLATE \"default\" AND ended_at IS NULL) AS calls
             FROM replica AS r LEFT JOIN leader AS l ON l.replica_id = r.id ORDER BY started_at, r.id",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.failed("list replicas", error))?;
        Ok(rows.into_iter().map(Replica::from).collect())
    }

    async fn claim_calls(&self, replica: &ReplicaId, limit: u16) -> Result<Vec<Call>, StoreError> {
        // Nearly always there is nothing, which costs one question and no transaction. The index of owners has the database's collation, replicas' ids have
        // another: as they are, the comparison would read the owners of all open calls.
        let is_any = sqlx::query_scalar::<_, bool>(
            "SELECT EXISTS (SELECT 1 FROM call WHERE ended_at IS NULL AND lease_owner IS NULL)
                 OR EXISTS (SELECT 1 FROM replica AS r WHERE r.expires_at <= clock_timestamp() AND r.id <> $1
                     AND (SELECT true FROM call WHERE lease_owner = r.id COLLATE \"default\" AND ended_at IS NULL LIMIT 1))",
        )
        .bind(replica.as_str())
        .fetch_one(&self.pool)
        .await
        .map_err(|error| self.failed("look for calls of the dead", error))?;
        if !is_any {
            return Ok(Vec::new());
        }
        let input = (replica.clone(), limit);
        self.transaction("claim calls", input, |c, (replica, limit)| Box::pin(claim(c, replica, *limit)))
            .await
    }

    async fn owned_calls(&self, replica: &ReplicaId) -> Result<Vec<Owned>, StoreError> {
        let rows = sqlx::query_as::<_, (Word<CallId>, Word<OrgId>, i64)>(
            "SELECT id, org_id, lease_epoch FROM call WHERE lease_owner = $1 AND ended_at IS NULL ORDER BY id",
        )
        .bind(replica.as_str())
        .fetch_all(&self.pool)
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
        .fetch_all(&self.pool)
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
        .fetch_one(&self.pool)
        .await
        .map_err(|error| self.failed("read the marks of settings", error))?;
        Ok(SettingMarks { fleet, holds, rules })
    }

    async fn hold_account(
        &self,
        attempt: &AttemptId,
        carrier: &CarrierName,
        account: Account,
    ) -> Result<Held, StoreError> {
        let Some(replica) = self.replica.clone() else { return Ok(Held::Yes) };
        let input = (replica, attempt.clone(), carrier.clone(), account);
        self.transaction("hold a place on an account", input, |c, (replica, attempt, carrier, account)| {
            Box::pin(accounts::hold(c, replica, attempt, carrier, *account))
        })
        .await
    }

    async fn free_account(&self, attempt: &AttemptId) -> Result<(), StoreError> {
        let Some(replica) = &self.replica else { return Ok(()) };
        let freed = accounts::free(&self.pool, replica, attempt).await;
        freed.map_err(|error| self.failed("free a place on an account", error))
    }

    async fn tell_once(
        &self,
        what: &str,
        within: Duration,
        row: Option<NewAuditRow>,
    ) -> Result<bool, StoreError> {
        let replica = self.replica.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default();
        let input = (replica, what.to_owned(), within, Vec::from_iter(row));
        self.transaction("tell what changed", input, |c, (replica, what, within, rows)| {
            Box::pin(tell_once(c, replica, what, *within, rows))
        })
        .await
    }

    async fn tell_sighting(&self, seen: Value) -> Result<(), StoreError> {
        let input = (self.replica.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(), seen);
        self.transaction("tell what was seen", input, |c, (replica, seen)| Box::pin(tell(c, replica, seen)))
            .await
    }

    async fn sightings(&self, after: Option<i64>) -> Result<(i64, Vec<Sighting>), StoreError> {
        let failed = |error| self.failed("read what others have seen", error);
        let Some(after) = after else {
            let last =
                sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM sighting").fetch_one(&self.pool).await;
            return Ok((last.map_err(failed)?, Vec::new()));
        };
        let rows = sqlx::query_as::<_, (i64, bool, i64, Json<Value>)>(
            "SELECT id, replica_id IS NOT DISTINCT FROM $2, (extract(epoch FROM clock_timestamp() - at) * 1000)::bigint, seen
             FROM sighting WHERE id > $1 AND jsonb_typeof(seen) = 'array' ORDER BY id LIMIT 100",
        )
        .bind(after)
        .bind(self.replica.as_ref().map(ReplicaId::as_str))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let last = rows.last().map_or(after, |row| row.0);
        let others = rows.into_iter().filter(|(_, is_own, _, _)| !is_own);
        let sighting = |(id, _, age_ms, seen): (i64, bool, i64, Json<Value>)| Sighting {
            id,
            age: Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)),
            seen: seen.0,
        };
        Ok((last, others.map(sighting).collect()))
    }

    async fn nudge(&self) {
        // In no transaction: those that notify commit one after the other.
        if self.replica.is_some()
            && let Err(error) = sqlx::query("NOTIFY ringward").execute(&self.pool).await
        {
            tracing::debug!(%error, "the other replicas were not nudged");
        }
    }

    fn nudges(&self) -> watch::Receiver<u64> {
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

/// Class of advisory locks: who tells what it has seen. Ids come in the order of commits, so that no reader passes one over.
const SIGHTING_TURN: i32 = 6;

async fn tell_once(
    c: &mut PgConnection,
    replica: &str,
    what: &str,
    within: Duration,
    rows: &[NewAuditRow],
) -> Result<bool, Failure> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, 0)").bind(SIGHTING_TURN).execute(&mut *c).await?;
    let is_told = sqlx::query_scalar::<_, bool>(
        "SELECT EXISTS (SELECT 1 FROM sighting
             WHERE at > clock_timestamp() - $1 * interval '1 microsecond' AND seen ->> 'told' = $2)",
    )
    .bind(i64::try_from(within.as_micros()).unwrap_or(i64::MAX))
    .bind(what)
    .fetch_one(&mut *c)
    .await?;
    if is_told {
        return Ok(false);
    }
    audit::record(c, rows).await?;
    tell(c, replica, &json!({"told": what})).await?;
    Ok(true)
}

async fn tell(c: &mut PgConnection, replica: &str, seen: &Value) -> Result<(), Failure> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, 0)").bind(SIGHTING_TURN).execute(&mut *c).await?;
    sqlx::query(
        "WITH past AS (DELETE FROM sighting WHERE at < clock_timestamp() - interval '1 minute')
         INSERT INTO sighting (replica_id, at, seen) VALUES ($1, clock_timestamp(), $2)",
    )
    .bind(replica)
    .bind(Json(seen))
    .execute(c)
    .await?;
    Ok(())
}

/// One statement: what is given up in the middle has locked nothing. Rows of replicas that are dead and have left nothing are kept
/// for a day, to be shown.
async fn renew(c: &mut PgConnection, renewal: &Renewal) -> Result<Renewed, Failure> {
    let lease = i64::try_from(renewal.lease.as_micros()).unwrap_or(i64::MAX);
    let (leads, at) = sqlx::query_as::<_, (Option<i64>, Micros)>(
        "WITH lives AS (
             INSERT INTO replica (id, name, secrets, started_at, expires_at)
             VALUES ($1, $2, $3, clock_timestamp(), clock_timestamp() + $4 * interval '1 microsecond')
             ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, secrets = excluded.secrets),
         forgotten AS (
             DELETE FROM replica WHERE id <> $1 AND expires_at < clock_timestamp() - interval '1 day'
                 AND (SELECT true FROM call WHERE lease_owner = replica.id COLLATE \"default\" AND ended_at IS NULL LIMIT 1) IS NULL),
         led AS (
             UPDATE leader SET epoch = CASE WHEN replica_id = $1 THEN epoch ELSE epoch + 1 END, replica_id = $1,
                 expires_at = clock_timestamp() + $4 * interval '1 microsecond'
             WHERE id = 1 AND (replica_id = $1 OR replica_id IS NULL OR expires_at <= clock_timestamp()) RETURNING epoch)
         SELECT (SELECT epoch FROM led), clock_timestamp()",
    )
    .bind(renewal.replica.as_str())
    .bind(&renewal.name)
    .bind(Json(&renewal.secrets))
    .bind(lease)
    .fetch_one(c)
    .await?;
    Ok(Renewed { leads, at: at.0 })
}

async fn give_up(c: &mut PgConnection, replica: &ReplicaId) -> Result<(), Failure> {
    sqlx::query(
        "WITH dead AS (UPDATE replica SET expires_at = clock_timestamp() WHERE id = $1)
         UPDATE leader SET replica_id = NULL WHERE replica_id = $1",
    )
    .bind(replica.as_str())
    .execute(c)
    .await?;
    Ok(())
}

async fn claim(c: &mut PgConnection, replica: &ReplicaId, limit: u16) -> Result<Vec<Call>, Failure> {
    // One that is just renewing lives.
    let dead = sqlx::query_scalar::<_, String>(
        "SELECT id FROM replica WHERE expires_at <= clock_timestamp() AND id <> $1 FOR SHARE SKIP LOCKED",
    )
    .bind(replica.as_str())
    .fetch_all(&mut *c)
    .await?;
    let ids = sqlx::query_scalar::<_, String>(
        // By their owners, so that no calls of the living are read.
        "WITH free AS MATERIALIZED (
             SELECT id FROM call WHERE ended_at IS NULL AND lease_owner IS NULL
             ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
         ), dead AS MATERIALIZED (
             SELECT id FROM call WHERE ended_at IS NULL AND lease_owner = ANY($2)
             ORDER BY id LIMIT $3 - (SELECT count(*) FROM free) FOR UPDATE SKIP LOCKED
         )
         UPDATE call SET lease_owner = $1, lease_epoch = lease_epoch + 1
         WHERE id IN (SELECT id FROM free UNION ALL SELECT id FROM dead) RETURNING id",
    )
    .bind(replica.as_str())
    .bind(&dead)
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    accounts::adopt(c, &ids).await?;
    let mut calls = reading::by_ids(c, &ids).await?;
    calls.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(calls)
}
