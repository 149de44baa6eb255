//! Accepting a call on SQLite.
//!
//! Each trip to SQLite's thread costs as much as a write: what is there is looked at in one of them, and what a new call
//! leaves is written in another.

use controlplane_core::ids::{CallId, KeyId};
use serde_json::json;
use sqlx::{SqliteConnection, types::Json};

use super::{
    audit,
    calls::load,
    writer::{Ended, Last},
};
use crate::{
    audit_rows::insert_audit,
    calls::{Created, NewCall, Used, remember},
    columns::{Micros, Word},
    error::Failure,
};

/// What there is before a call is accepted.
#[derive(sqlx::FromRow)]
struct Seen {
    #[sqlx(flatten)]
    used: Used,
    /// The same write has landed before, and its caller did not hear the answer.
    is_there: bool,
    /// The call that its idempotency key was promised, and by which body.
    promised: Option<Word<CallId>>,
    promised_to: Option<Vec<u8>>,
    /// The open call with its `dedup_key`.
    equal: Option<Word<CallId>>,
}

pub(super) async fn create(c: &mut SqliteConnection, new: &NewCall) -> Result<Ended<Created>, Failure> {
    let Seen { used, is_there, promised, promised_to, equal } = look(c, new).await?;
    if let Some(asked) = &new.idempotency
        && let Some(id) = promised
    {
        if promised_to.as_deref() != Some(asked.body_sha256.as_slice()) {
            return Ok(Ended::Whole(Created::KeyReused));
        }
        return load(c, &new.org, &id.0).await.map(Created::Replayed).map(Ended::Whole);
    }
    if let Some(id) = equal {
        remember(c, new, &id.0).await?;
        return load(c, &new.org, &id.0).await.map(Created::Deduplicated).map(Ended::Whole);
    }
    if is_there {
        return load(c, &new.org, &new.id).await.map(Created::New).map(Ended::Whole);
    }
    // One write follows the other: nobody else takes what is free.
    if let Some(full) = new.exceeded(used, 0) {
        return Ok(Ended::Whole(Created::Full(full)));
    }
    Ok(Ended::With(Created::New(new.accepted()), written(new)?))
}

async fn look(c: &mut SqliteConnection, new: &NewCall) -> Result<Seen, Failure> {
    // An index is named, since the planner would take the one of all calls of the organisation. The limit is no bare parameter: with
    // one, SQLite prepares the statement anew for each value that it is given, which was a quarter of what its threads did.
    let seen = sqlx::query_as::<_, Seen>(
        "SELECT
             coalesce((SELECT calls FROM open_calls WHERE org_id = $1), 0) AS open_of_org,
             (SELECT count(*) FROM (SELECT 1 FROM call INDEXED BY call_open_by_number
                  WHERE org_id = $1 AND json_extract(request, '$.to') = $2 AND ended_at IS NULL LIMIT CAST($3 AS INTEGER)))
                 AS open_to_number,
             coalesce((SELECT calls FROM org_usage WHERE org_id = $1 AND day = $4), 0) AS org_today,
             coalesce((SELECT calls FROM key_usage WHERE key_id = $5 AND day = $4), 0) AS key_today,
             EXISTS (SELECT 1 FROM call WHERE id = $6) AS is_there,
             promise.call_id AS promised,
             promise.body_sha256 AS promised_to,
             (SELECT id FROM call WHERE org_id = $1 AND dedup_key = $9 AND mode = $10 AND ended_at IS NULL) AS equal
         FROM (SELECT 1) AS one LEFT JOIN idempotency AS promise ON promise.org_id = $1 AND promise.key = $7
             AND (promise.expires_at IS NULL OR promise.expires_at > $8)",
    )
    .bind(new.org.as_str())
    .bind(new.request.to.as_str())
    .bind(i64::from(new.open_max.number))
    .bind(new.day())
    .bind(new.actor.key.as_ref().map(KeyId::as_str))
    .bind(new.id.as_str())
    .bind(new.idempotency.as_ref().map(|asked| new.kept_key(asked)))
    .bind(Micros::from(new.at))
    .bind(new.request.dedup_key.as_deref())
    .bind(new.mode.as_str())
    .fetch_one(c)
    .await?;
    Ok(seen)
}

/// The call, its idempotency key, its key's count, the first step of its log, the outbox and the audit row. The counts of its
/// organisation are kept by triggers.
fn written(new: &NewCall) -> Result<Last, Failure> {
    let entry = audit::Entry {
        id: &new.audit_id,
        org: Some(&new.org),
        at: new.at,
        actor: &new.actor,
        action: "call.create",
        target_type: "call",
        target_id: new.id.as_str(),
        changes: &json!({"to": new.request.to.shortened()}),
    };
    let sql = concat!(
        "INSERT INTO call (id, org_id, request, dedup_key, status, sequence, created_at, deadline_at, mode)
         VALUES ($9, $2, $19, $20, 'queued', 1, $3, $21, $22);
         ",
        remember!("SELECT $2, $17, $18, $9, $3 WHERE $17 IS NOT NULL"),
        ";
         INSERT INTO key_usage (key_id, day, calls) SELECT $23, $24, 1 WHERE $23 IS NOT NULL
         ON CONFLICT (key_id, day) DO UPDATE SET calls = calls + 1;
         INSERT INTO call_transition (id, org_id, call_id, sequence, status, occurred_at)
         VALUES ($25, $2, $9, 1, 'queued', $3);
         INSERT INTO outbox (id, org_id, call_id, sequence, kind, created_at, due_at)
         VALUES ($25, $2, $9, 1, 'call.queued', $3, $3);
         ",
        insert_audit!("(SELECT 1) AS one")
    );
    let idempotency = new.idempotency.as_ref();
    Last::of(sql, |query| {
        audit::bind(query, &entry)
            .bind(idempotency.map(|asked| new.kept_key(asked)))
            .bind(idempotency.map(|asked| asked.body_sha256.as_slice()))
            .bind(Json(&new.request))
            .bind(new.request.dedup_key.as_deref())
            .bind(Micros::from(new.deadline_at))
            .bind(new.mode.as_str())
            .bind(new.counted_key().map(KeyId::as_str))
            .bind(new.day())
            .bind(new.event_id.as_str())
    })
}

/// For a call that was there.
async fn remember(c: &mut SqliteConnection, new: &NewCall, call: &CallId) -> Result<(), Failure> {
    let Some(asked) = &new.idempotency else { return Ok(()) };
    sqlx::query(remember!("VALUES ($1, $2, $3, $4, $5)"))
        .bind(new.org.as_str())
        .bind(new.kept_key(asked))
        .bind(asked.body_sha256.as_slice())
        .bind(call.as_str())
        .bind(Micros::from(new.at))
        .execute(c)
        .await?;
    Ok(())
}
