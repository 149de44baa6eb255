//! Audit rows as both databases hold them.

use controlplane_core::audit::{Checkpoint, Hash, Hex, Link, Record, Signed};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, types::Json};
use time::OffsetDateTime;

use crate::{audit::AuditRow, calls::Actor, columns::Micros};

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_audit {
    ($($rest:literal)+) => {
        concat!(
            "SELECT id, seq, org_id, occurred_at, actor_type, actor_id, key_prefix, auth_method, action, target_type, \
                 target_id, outcome, reason, ip, user_agent, request_id, changes, prev_hash, hash FROM audit_log "
            $(, $rest)+
        )
    };
}
pub(crate) use select_audit;

/// Writes a row: `$1` to `$15` are its columns, `$16` is the key.
pub(crate) const INSERT_AUDIT: &str =
    "INSERT INTO audit_log (id, org_id, occurred_at, actor_type, actor_id, key_prefix, auth_method, action,
         target_type, target_id, outcome, reason, ip, user_agent, request_id, changes)
     SELECT $1, coalesce($2, key.org_id), $3,
         CASE WHEN key.id IS NULL THEN $4 WHEN key.org_id IS NULL THEN 'operator' ELSE 'customer' END,
         $5, key.prefix, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15
     FROM (SELECT 1) AS one LEFT JOIN api_key AS key ON key.id = $16";

#[derive(Debug, FromRow)]
pub(crate) struct AuditLogRow {
    id: String,
    seq: Option<i64>,
    org_id: Option<String>,
    occurred_at: Micros,
    actor_type: String,
    actor_id: Option<String>,
    key_prefix: Option<String>,
    auth_method: Option<String>,
    action: String,
    target_type: String,
    target_id: String,
    outcome: String,
    reason: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    changes: Json<Value>,
    prev_hash: Option<Vec<u8>>,
    hash: Option<Vec<u8>>,
}

/// 32 bytes, or what else is there cut to nothing: a hash that fits no row.
fn hash(bytes: &[u8]) -> Hash {
    Hash(bytes.try_into().unwrap_or([0xff; 32]))
}

/// µs since 1970.
pub(crate) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// From µs since 1970.
pub(crate) fn moment(us: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

impl From<AuditLogRow> for AuditRow {
    fn from(row: AuditLogRow) -> Self {
        let link = match (row.seq, &row.prev_hash, &row.hash) {
            (Some(seq), Some(prev_hash), Some(own)) => {
                Some(Link { seq, prev_hash: hash(prev_hash), hash: hash(own) })
            }
            _ => None,
        };
        let is_agent = row.actor_type == "agent";
        let id = row.actor_id.as_deref();
        let actor = Actor {
            key: id.filter(|_| !is_agent).and_then(|id| id.parse().ok()),
            node: id.filter(|_| is_agent).and_then(|id| id.parse().ok()),
            request: row.request_id.as_deref().and_then(|id| id.parse().ok()),
            ip: row.ip.clone(),
            user_agent: row.user_agent.clone(),
        };
        let record = Record {
            id: row.id,
            org: row.org_id,
            occurred_at_us: micros(row.occurred_at.0),
            actor_type: row.actor_type,
            actor_id: row.actor_id,
            key_prefix: row.key_prefix,
            auth_method: row.auth_method,
            action: row.action.clone(),
            target_type: row.target_type,
            target_id: row.target_id,
            outcome: row.outcome.clone(),
            reason: row.reason,
            ip: row.ip,
            user_agent: row.user_agent,
            request_id: row.request_id,
            changes: row.changes.0.clone(),
        };
        Self {
            occurred_at: row.occurred_at.0,
            org: record.org.as_deref().and_then(|org| org.parse().ok()),
            actor,
            action: row.action,
            outcome: row.outcome,
            changes: row.changes.0,
            record,
            link,
        }
    }
}

/// A row's place, for one statement that writes many.
#[derive(Debug, Serialize)]
pub(crate) struct Placed {
    id: String,
    #[serde(flatten)]
    link: Link,
}

/// Chains rows behind the end; and the new end.
pub(crate) fn chain(rows: Vec<AuditLogRow>, end: (i64, &[u8])) -> (Vec<Placed>, i64, Hash) {
    let (mut seq, mut last) = (end.0, hash(end.1));
    let placed = rows.into_iter().map(|row| {
        let row = AuditRow::from(row);
        let link = Link::after(seq, last, &row.record);
        (seq, last) = (link.seq, link.hash);
        Placed { id: row.record.id, link }
    });
    let placed = placed.collect();
    (placed, seq, last)
}

#[derive(Debug, FromRow)]
pub(crate) struct RunRow {
    seq: i64,
    prev_hash: Vec<u8>,
    hash: Vec<u8>,
}

/// Rows in their order as runs without gaps.
pub(crate) fn runs(rows: Vec<RunRow>, before: OffsetDateTime) -> Vec<Checkpoint> {
    let mut runs: Vec<Checkpoint> = Vec::new();
    for row in rows {
        match runs.last_mut() {
            Some(run) if run.to_seq + 1 == row.seq && run.hash == hash(&row.prev_hash) => {
                (run.to_seq, run.hash) = (row.seq, hash(&row.hash));
            }
            Some(_) | None => runs.push(Checkpoint {
                from_seq: row.seq,
                to_seq: row.seq,
                prev_hash: hash(&row.prev_hash),
                hash: hash(&row.hash),
                before_us: micros(before),
            }),
        }
    }
    runs
}

#[derive(Debug, FromRow)]
pub(crate) struct CheckpointRow {
    from_seq: i64,
    to_seq: i64,
    prev_hash: Vec<u8>,
    hash: Vec<u8>,
    before: Micros,
    key: Vec<u8>,
    signature: Vec<u8>,
}

impl From<CheckpointRow> for Signed<Checkpoint> {
    fn from(row: CheckpointRow) -> Self {
        let statement = Checkpoint {
            from_seq: row.from_seq,
            to_seq: row.to_seq,
            prev_hash: hash(&row.prev_hash),
            hash: hash(&row.hash),
            before_us: micros(row.before.0),
        };
        Self { statement, key: Hex(row.key), signature: Hex(row.signature) }
    }
}

/// What a list asks for, where nothing is asked for: all moments that both databases hold.
pub(crate) const EVER: (OffsetDateTime, OffsetDateTime) =
    (time::macros::datetime!(1900-01-01 0:00 UTC), time::macros::datetime!(9999-01-01 0:00 UTC));

/// The conditions of a filter, `$1` to `$7`, after one on the organisation.
macro_rules! filtered {
    ($org:literal, $rest:literal) => {
        select_audit!(
            "WHERE " $org " AND occurred_at > $2 AND occurred_at <= $3 AND ($4 IS NULL OR actor_id = $4)
                AND ($5 IS NULL OR action LIKE $5 ESCAPE '\\') AND ($6 IS NULL OR target_id = $6)
                AND ($7 IS NULL OR outcome = $7) " $rest
        )
    };
}
pub(crate) use filtered;
