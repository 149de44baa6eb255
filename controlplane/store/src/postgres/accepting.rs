//! Accepting a call on PostgreSQL. What a new call leaves is written in one statement: each is a round trip to the server.

use controlplane_core::ids::{CallId, KeyId};
use serde_json::json;
use sqlx::{PgConnection, types::Json};

use super::{
    audit,
    bounds::{self, Room, Turn},
    calls::{DEDUP_TURN, IDEMPOTENCY_TURN, load, take_turns},
};
use crate::{
    audit_rows::insert_audit,
    calls::{Created, NewCall, remember},
    columns::{Micros, Word},
    error::Failure,
};

/// `None`: nothing was written, and it is to be asked again alone.
pub(super) async fn create(
    c: &mut PgConnection,
    (new, turn): &(NewCall, Turn),
) -> Result<Option<Created>, Failure> {
    if let Some(asked) = &new.idempotency {
        take_turns(c, IDEMPOTENCY_TURN, &new.org, &asked.key).await?;
        let before = sqlx::query_as::<_, (Word<CallId>, Vec<u8>)>(
            "SELECT call_id, body_sha256 FROM idempotency
             WHERE org_id = $1 AND key = $2 AND (expires_at IS NULL OR expires_at > $3)",
        )
        .bind(new.org.as_str())
        .bind(new.kept_key(asked))
        .bind(Micros::from(new.at))
        .fetch_optional(&mut *c)
        .await?;
        match before {
            Some((_, body)) if body != asked.body_sha256 => return Ok(Some(Created::KeyReused)),
            Some((id, _)) => return load(c, &new.org, &id.0).await.map(Created::Replayed).map(Some),
            None => {}
        }
    }
    if let Some(key) = &new.request.dedup_key {
        take_turns(c, DEDUP_TURN, &new.org, key).await?;
        let open = sqlx::query_scalar::<_, Word<CallId>>(
            "SELECT id FROM call WHERE org_id = $1 AND dedup_key = $2 AND mode = $3 AND ended_at IS NULL FOR UPDATE",
        )
        .bind(new.org.as_str())
        .bind(key)
        .bind(new.mode.as_str())
        .fetch_optional(&mut *c)
        .await?;
        if let Some(id) = open {
            remember(c, new, &id.0).await?;
            return load(c, &new.org, &id.0).await.map(Created::Deduplicated).map(Some);
        }
    }
    match bounds::room(c, new, *turn).await? {
        Room::Free => {}
        Room::Full(full) => return Ok(Some(Created::Full(full))),
        Room::Near => return Ok(None),
    }
    if write(c, new).await? == 0 {
        // The same write again, by a caller that did not hear the first one's answer.
        return load(c, &new.org, &new.id).await.map(Created::New).map(Some);
    }
    Ok(Some(Created::New(new.accepted())))
}

/// The call, its idempotency key, its key's count, the first step of its log, the outbox and the audit row. The counts of its
/// organisation are kept by triggers. Gives how many calls were written, 0 if it is there.
async fn write(c: &mut PgConnection, new: &NewCall) -> Result<u64, Failure> {
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
    let query = sqlx::query(concat!(
        "WITH accepted AS (
             INSERT INTO call (id, org_id, request, dedup_key, status, sequence, created_at, deadline_at, mode)
             VALUES ($9, $2, $19, $20, 'queued', 1, $3, $21, $22) ON CONFLICT (id) DO NOTHING RETURNING id
         ), remembered AS (
             ",
        remember!("SELECT $2, $17, $18, id, $3 FROM accepted WHERE $17 IS NOT NULL"),
        "
         ), counted AS (
             INSERT INTO key_usage AS u (key_id, day, shard, calls)
             SELECT $23, $24, pg_backend_pid() % 64, 1 FROM accepted WHERE $23 IS NOT NULL
             ON CONFLICT (key_id, day, shard) DO UPDATE SET calls = u.calls + 1
         ), logged AS (
             INSERT INTO call_transition (id, org_id, call_id, sequence, status, occurred_at)
             SELECT $25, $2, id, 1, 'queued', $3 FROM accepted
         ), told AS (
             INSERT INTO outbox (id, org_id, call_id, sequence, kind, created_at, due_at)
             SELECT $25, $2, id, 1, 'call.queued', $3, $3 FROM accepted
         )
         ",
        insert_audit!("accepted")
    ));
    let idempotency = new.idempotency.as_ref();
    let written = audit::bind(query, &entry)
        .bind(idempotency.map(|asked| new.kept_key(asked)))
        .bind(idempotency.map(|asked| asked.body_sha256.as_slice()))
        .bind(Json(&new.request))
        .bind(new.request.dedup_key.as_deref())
        .bind(Micros::from(new.deadline_at))
        .bind(new.mode.as_str())
        .bind(new.counted_key().map(KeyId::as_str))
        .bind(new.day())
        .bind(new.event_id.as_str())
        .execute(c)
        .await?;
    Ok(written.rows_affected())
}

/// For a call that was there.
async fn remember(c: &mut PgConnection, new: &NewCall, call: &CallId) -> Result<(), Failure> {
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
