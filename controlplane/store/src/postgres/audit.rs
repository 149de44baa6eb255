//! The audit log on PostgreSQL: rows are written in the transaction of the change they tell of, and chained later.

use async_trait::async_trait;
use controlplane_core::{
    audit::{CHAIN, Checkpoint, Hash, Signed},
    ids::{AuditId, KeyId, OrgId, RequestId},
};
use serde_json::Value;
use sqlx::{
    PgConnection, Postgres, postgres::PgArguments, query::Query, types::Json, types::time::OffsetDateTime,
};

use super::PostgresStore;
use crate::{
    AuditStore, StoreError,
    audit::{
        ActorType, AuditCounts, AuditErased, AuditFilter, AuditLease, AuditOutcome, AuditRow, AuditSealed,
        EraseAudit, NewAuditRow, actor_id, actor_type, auth_method, told,
    },
    audit_rows::{
        AuditLogRow, CheckpointRow, EVER, INSERT_AUDIT, RunRow, chain, filtered, micros, moment, runs,
        select_audit,
    },
    calls::Actor,
    columns::Micros,
    error::Failure,
};

/// One row to be written, of a change that was made.
pub(super) struct Entry<'a> {
    pub(super) id: &'a AuditId,
    pub(super) org: Option<&'a OrgId>,
    pub(super) at: OffsetDateTime,
    pub(super) actor: &'a Actor,
    pub(super) action: &'static str,
    pub(super) target_type: &'static str,
    pub(super) target_id: &'a str,
    pub(super) changes: &'a Value,
}

pub(super) async fn write(c: &mut PgConnection, entry: Entry<'_>) -> Result<(), Failure> {
    insert(c, &Row::of(&entry, AuditOutcome::Success, None)).await
}

/// Tells of what was not done, and by which rule.
pub(super) async fn denied(c: &mut PgConnection, entry: Entry<'_>, rule: &str) -> Result<(), Failure> {
    insert(c, &Row::of(&entry, AuditOutcome::Denied, Some(rule))).await
}

struct Row<'a> {
    id: &'a AuditId,
    org: Option<&'a OrgId>,
    at: OffsetDateTime,
    actor: &'a Actor,
    actor_type: ActorType,
    action: &'a str,
    target: (&'a str, &'a str),
    outcome: AuditOutcome,
    reason: Option<&'a str>,
    changes: &'a Value,
}

impl<'a> Row<'a> {
    fn of(entry: &Entry<'a>, outcome: AuditOutcome, reason: Option<&'a str>) -> Self {
        Row {
            id: entry.id,
            org: entry.org,
            at: entry.at,
            actor: entry.actor,
            actor_type: actor_type(entry.actor),
            action: entry.action,
            target: (entry.target_type, entry.target_id),
            outcome,
            reason,
            changes: entry.changes,
        }
    }

    /// `$1` to `$16` of [`INSERT_AUDIT`].
    fn bind<'q>(&self, query: Bound<'q>) -> Bound<'q> {
        query
            .bind(self.id.as_str())
            .bind(self.org.map(OrgId::as_str))
            .bind(Micros::from(self.at))
            .bind(self.actor_type.as_str())
            .bind(actor_id(self.actor))
            .bind(auth_method(self.actor, self.action))
            .bind(self.action)
            .bind(self.target.0)
            .bind(self.target.1)
            .bind(self.outcome.as_str())
            .bind(self.reason)
            .bind(self.actor.ip.as_deref())
            .bind(self.actor.user_agent.as_deref())
            .bind(self.actor.request.as_ref().map(RequestId::as_str))
            .bind(Json(self.changes))
            .bind(self.actor.key.as_ref().map(KeyId::as_str))
    }
}

async fn insert(c: &mut PgConnection, row: &Row<'_>) -> Result<(), Failure> {
    row.bind(sqlx::query(INSERT_AUDIT)).execute(c).await?;
    Ok(())
}

/// A statement with what it is given so far.
pub(super) type Bound<'q> = Query<'q, Postgres, PgArguments>;

#[async_trait]
impl AuditStore for PostgresStore {
    async fn record_audit(&self, rows: Vec<NewAuditRow>) -> Result<(), StoreError> {
        self.transaction("write audit rows", rows, |c, rows| Box::pin(record(c, rows))).await
    }

    async fn is_audit_unsealed(&self) -> Result<bool, StoreError> {
        let waiting = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM audit_log WHERE hash IS NULL)")
            .fetch_one(&self.pool)
            .await;
        waiting.map_err(|error| self.failed("look for audit rows", error))
    }

    async fn seal_audit(&self, lease: AuditLease, limit: u16) -> Result<AuditSealed, StoreError> {
        self.transaction("seal audit rows", (lease, limit), |c, (lease, limit)| {
            Box::pin(seal(c, lease, *limit))
        })
        .await
    }

    async fn audit_head(&self) -> Result<(i64, Hash), StoreError> {
        let head = sqlx::query_as::<_, (i64, Vec<u8>)>("SELECT seq, hash FROM audit_chain WHERE chain = $1")
            .bind(CHAIN)
            .fetch_one(&self.pool)
            .await;
        let (_, seq, hash) = head
            .map(|(seq, hash)| chain(Vec::new(), (seq, &hash)))
            .map_err(|error| self.failed("read the audit log's end", error))?;
        Ok((seq, hash))
    }

    async fn audit_rows(
        &self,
        filter: &AuditFilter,
        cursor: Option<&AuditId>,
        limit: u16,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let operation = "list the audit log";
        let mut reading = self.reading(operation).await?;
        list(&mut reading, filter, cursor, limit).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn audit_chain(
        &self,
        filter: &AuditFilter,
        after_seq: i64,
        limit: u16,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let rows = sqlx::query_as::<_, AuditLogRow>(filtered!(
            "($1 IS NULL OR org_id = $1)",
            "AND chain = 'main' AND seq > $8 ORDER BY seq LIMIT $9"
        ))
        .bind(filter.org.as_ref().map(OrgId::as_str))
        .bind(Micros::from(filter.after.unwrap_or(EVER.0)))
        .bind(Micros::from(filter.until.unwrap_or(EVER.1)))
        .bind(filter.actor.as_deref())
        .bind(filter.action_like())
        .bind(filter.target.as_deref())
        .bind(filter.outcome.as_deref())
        .bind(after_seq)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await;
        let rows = rows.map(|rows| rows.into_iter().map(AuditRow::from).collect());
        rows.map_err(|error| self.failed("read the audit log's chain", error))
    }

    async fn audit_runs(
        &self,
        before: OffsetDateTime,
        after_seq: i64,
        limit: u16,
    ) -> Result<Vec<Checkpoint>, StoreError> {
        let rows = sqlx::query_as::<_, RunRow>(
            "SELECT seq, prev_hash, hash FROM audit_log
             WHERE occurred_at <= $1 AND chain = 'main' AND seq > $2 ORDER BY seq LIMIT $3",
        )
        .bind(Micros::from(before))
        .bind(after_seq)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await;
        rows.map(|rows| runs(rows, before)).map_err(|error| self.failed("look for old audit rows", error))
    }

    async fn audit_checkpoints(&self) -> Result<Vec<Signed<Checkpoint>>, StoreError> {
        let rows = sqlx::query_as::<_, CheckpointRow>(
            "SELECT from_seq, to_seq, prev_hash, hash, before, key, signature FROM audit_checkpoint
             WHERE chain = $1 ORDER BY from_seq",
        )
        .bind(CHAIN)
        .fetch_all(&self.pool)
        .await;
        let rows = rows.map(|rows| rows.into_iter().map(Signed::from).collect());
        rows.map_err(|error| self.failed("read the audit log's checkpoints", error))
    }

    async fn erase_audit(&self, lease: AuditLease, erase: EraseAudit) -> Result<AuditErased, StoreError> {
        self.transaction("erase audit rows", (lease, erase), |c, (lease, erase)| {
            Box::pin(erase_rows(c, lease, erase))
        })
        .await
    }

    async fn audit_counts(&self, after: OffsetDateTime) -> Result<AuditCounts, StoreError> {
        let counts = sqlx::query_as::<_, (Option<Micros>, Option<Micros>, i64, Option<Micros>)>(
            "SELECT (SELECT min(occurred_at) FROM audit_log),
                 (SELECT min(occurred_at) FROM audit_log WHERE occurred_at > $1),
                 (SELECT count(*) FROM (SELECT 1 FROM audit_log WHERE hash IS NULL LIMIT 10000) AS waiting),
                 (SELECT sealed_at FROM audit_chain WHERE chain = $2)",
        )
        .bind(Micros::from(after))
        .bind(CHAIN)
        .fetch_one(&self.pool)
        .await;
        let counts = counts.map(|(oldest, oldest_visible, unsealed, sealed_at)| AuditCounts {
            oldest: oldest.map(OffsetDateTime::from),
            oldest_visible: oldest_visible.map(OffsetDateTime::from),
            unsealed,
            sealed_at: sealed_at.map(OffsetDateTime::from),
        });
        counts.map_err(|error| self.failed("count audit rows", error))
    }
}

pub(super) async fn record(c: &mut PgConnection, rows: &[NewAuditRow]) -> Result<(), Failure> {
    for new in rows {
        let row = Row {
            id: &new.id,
            org: new.org.as_ref(),
            at: new.at,
            actor: &new.actor,
            actor_type: new.actor_type,
            action: &new.action,
            target: (&new.target_type, &new.target_id),
            outcome: new.outcome,
            reason: new.reason.as_deref(),
            changes: &new.changes,
        };
        insert(c, &row).await?;
    }
    Ok(())
}

/// Takes or renews the lease; the chain's end, or `None` if another process works on it.
async fn lead(c: &mut PgConnection, lease: &AuditLease) -> Result<Option<(i64, Vec<u8>)>, Failure> {
    let end = sqlx::query_as(
        "UPDATE audit_chain SET lease_owner = $1, lease_until = $2
         WHERE chain = $3 AND (lease_owner IS NULL OR lease_owner = $1 OR lease_until <= $4)
         RETURNING seq, hash",
    )
    .bind(&lease.owner)
    .bind(Micros::from(lease.until))
    .bind(CHAIN)
    .bind(Micros::from(lease.at))
    .fetch_optional(c)
    .await?;
    Ok(end)
}

async fn seal(c: &mut PgConnection, lease: &AuditLease, limit: u16) -> Result<AuditSealed, Failure> {
    let Some((seq, hash)) = lead(c, lease).await? else { return Ok(AuditSealed::NotLeader) };
    let rows = sqlx::query_as::<_, AuditLogRow>(select_audit!("WHERE hash IS NULL ORDER BY id LIMIT $1"))
        .bind(i64::from(limit))
        .fetch_all(&mut *c)
        .await?;
    let (placed, seq, hash) = chain(rows, (seq, &hash));
    if placed.is_empty() {
        return Ok(AuditSealed::Done { rows: 0, seq, hash });
    }
    let sealed = sqlx::query(
        "UPDATE audit_log SET chain = 'main', seq = place.seq, prev_hash = place.prev_hash, hash = place.hash
         FROM (SELECT id, seq, decode(prev_hash, 'hex') AS prev_hash, decode(hash, 'hex') AS hash
               FROM jsonb_to_recordset($1) AS place (id text, seq bigint, prev_hash text, hash text)) AS place
         WHERE audit_log.id = place.id",
    )
    .bind(Json(&placed))
    .execute(&mut *c)
    .await?;
    if sealed.rows_affected() != placed.len() as u64 {
        let text = format!("{} of {} audit rows were sealed", sealed.rows_affected(), placed.len());
        return Err(Failure::Unexpected(text));
    }
    sqlx::query("UPDATE audit_chain SET seq = $1, hash = $2, sealed_at = $3 WHERE chain = $4")
        .bind(seq)
        .bind(hash.0.as_slice())
        .bind(Micros::from(lease.at))
        .bind(CHAIN)
        .execute(c)
        .await?;
    Ok(AuditSealed::Done { rows: placed.len() as u64, seq, hash })
}

async fn list(
    c: &mut PgConnection,
    filter: &AuditFilter,
    cursor: Option<&AuditId>,
    limit: u16,
) -> Result<Vec<AuditRow>, Failure> {
    let mut until = filter.until.unwrap_or(EVER.1);
    if let Some(cursor) = cursor {
        let at: Option<Micros> = sqlx::query_scalar("SELECT occurred_at FROM audit_log WHERE id = $1")
            .bind(cursor.as_str())
            .fetch_optional(&mut *c)
            .await?;
        let Some(at) = at else { return Ok(Vec::new()) };
        until = until.min(at.0);
    }
    // Two texts: each goes by an index of its own.
    let sql = match filter.org {
        Some(_) => filtered!(
            "org_id = $1",
            "AND ($8 IS NULL OR occurred_at < $3 OR id < $8) ORDER BY occurred_at DESC, id DESC LIMIT $9"
        ),
        None => filtered!(
            "$1 IS NULL",
            "AND ($8 IS NULL OR occurred_at < $3 OR id < $8) ORDER BY occurred_at DESC, id DESC LIMIT $9"
        ),
    };
    let rows = sqlx::query_as::<_, AuditLogRow>(sql)
        .bind(filter.org.as_ref().map(OrgId::as_str))
        .bind(Micros::from(filter.after.unwrap_or(EVER.0)))
        .bind(Micros::from(until))
        .bind(filter.actor.as_deref())
        .bind(filter.action_like())
        .bind(filter.target.as_deref())
        .bind(filter.outcome.as_deref())
        .bind(cursor.map(AuditId::as_str))
        .bind(i64::from(limit))
        .fetch_all(c)
        .await?;
    Ok(rows.into_iter().map(AuditRow::from).collect())
}

async fn erase_rows(
    c: &mut PgConnection,
    lease: &AuditLease,
    erase: &EraseAudit,
) -> Result<AuditErased, Failure> {
    if lead(c, lease).await?.is_none() {
        return Ok(AuditErased::NotLeader);
    }
    keep(c, erase).await?;
    // The moment itself is erased too.
    let before = Micros(moment(micros(erase.before).saturating_add(1)));
    let erased: i64 = sqlx::query_scalar("SELECT audit_erase($1, $2, $3, $4)")
        .bind(CHAIN)
        .bind(erase.from_seq)
        .bind(erase.to_seq)
        .bind(before)
        .fetch_one(c)
        .await?;
    told(erase, erased.unsigned_abs())
}

/// Writes the checkpoint in the place of those that it replaces.
async fn keep(c: &mut PgConnection, erase: &EraseAudit) -> Result<(), Failure> {
    for from_seq in &erase.replaces {
        sqlx::query("DELETE FROM audit_checkpoint WHERE chain = $1 AND from_seq = $2")
            .bind(CHAIN)
            .bind(from_seq)
            .execute(&mut *c)
            .await?;
    }
    let Signed { statement, key, signature } = &erase.checkpoint;
    sqlx::query(
        "INSERT INTO audit_checkpoint (chain, from_seq, to_seq, prev_hash, hash, before, key, signature)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(CHAIN)
    .bind(statement.from_seq)
    .bind(statement.to_seq)
    .bind(statement.prev_hash.0.as_slice())
    .bind(statement.hash.0.as_slice())
    .bind(Micros(moment(statement.before_us)))
    .bind(key.0.as_slice())
    .bind(signature.0.as_slice())
    .execute(c)
    .await?;
    Ok(())
}
