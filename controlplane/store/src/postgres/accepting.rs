//! Accepting calls on PostgreSQL. Whatever waits is accepted together: what is there is looked at in one statement and what the new
//! ones leave is written in another, so that a call costs a share of four round trips and of one commit.
//!
//! Calls of one organisation are accepted by one transaction after the other, of whichever replica: what it looks at is all there is,
//! and no bound is exceeded. The turn is held from its beginning to its commit, some milliseconds.

use controlplane_core::ids::{CallId, KeyId, OrgId, ReplicaId, RequestId};
use serde_json::json;
use sqlx::{PgConnection, types::Json};

use super::{
    calls::{ACCEPT_TURN, load},
    traces,
};
use crate::{
    audit::{actor_id, actor_type, auth_method},
    calls::{Created, NewCall, Seen, Verdict, decide, remembered_anew},
    columns::{Micros, kept},
    error::Failure,
};

const ACTION: &str = "call.create";

/// Begins a transaction that has the turn of the calls' organisations. Turns are taken in one order, so that two
/// transactions do not wait for each other.
pub(super) fn begin(batch: &[NewCall]) -> String {
    let mut turns: Vec<i32> = batch.iter().map(|new| turn(&new.org)).collect();
    turns.sort_unstable();
    turns.dedup();
    let take = |turn: &i32| format!("; SELECT pg_advisory_xact_lock({ACCEPT_TURN}, {turn})");
    turns.iter().fold("BEGIN".to_owned(), |text, turn| text + &take(turn))
}

/// FNV-1a of the organisation's id: two that share a turn only wait for each other.
fn turn(org: &OrgId) -> i32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619);
    org.as_str().as_bytes().iter().fold(2_166_136_261, step).cast_signed()
}

/// In a transaction that [`begin`] has begun.
pub(super) async fn create(
    c: &mut PgConnection,
    batch: &[NewCall],
    owner: Option<&ReplicaId>,
) -> Result<Vec<Created>, Failure> {
    let seen = look(c, batch).await?;
    if seen.len() != batch.len() {
        return Err(Failure::Unexpected(format!("{} of {} calls were looked at", seen.len(), batch.len())));
    }
    let verdicts = decide(batch, seen);
    let accepted = batch.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Accept);
    write(c, &accepted.map(|(new, _)| new).collect::<Vec<_>>(), owner).await?;
    let mut created = Vec::with_capacity(batch.len());
    for (new, verdict) in batch.iter().zip(verdicts) {
        created.push(match verdict {
            Verdict::Accept => Created::New(new.accepted(owner)),
            Verdict::There => Created::New(load(c, &new.org, &new.id).await?),
            Verdict::KeyReused => Created::KeyReused,
            Verdict::Replay(id) => Created::Replayed(load(c, &new.org, &id).await?),
            Verdict::Share(id) => {
                remember(c, new, &id).await?;
                Created::Deduplicated(load(c, &new.org, &id).await?)
            }
            Verdict::Full(full) => Created::Full(full),
        });
    }
    Ok(created)
}

/// What there is of each. An open call that one may share is locked: it must not end before that is written. By ids, as sets of news
/// lock theirs.
async fn look(c: &mut PgConnection, batch: &[NewCall]) -> Result<Vec<Seen>, Failure> {
    let query = sqlx::query_as::<_, Seen>(
        "WITH asked AS MATERIALIZED (
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                 $8::timestamptz[], $9::text[], $10::text[]) WITH ORDINALITY
                 AS asked (org_id, number, number_max, day, key_id, id, kept_key, at, dedup_key, mode, n)
         ), equal AS MATERIALIZED (
             SELECT asked.n, call.id FROM asked JOIN call ON call.org_id = asked.org_id AND call.mode = asked.mode
                 AND call.dedup_key = asked.dedup_key AND call.ended_at IS NULL
             ORDER BY call.id FOR UPDATE OF call
         ), of_org AS MATERIALIZED (
             SELECT org_id, day,
                 (SELECT coalesce(sum(calls), 0)::bigint FROM open_calls AS o WHERE o.org_id = one.org_id) AS open,
                 (SELECT coalesce(sum(calls), 0)::bigint FROM org_usage AS u WHERE u.org_id = one.org_id AND u.day = one.day)
                     AS today
             FROM (SELECT DISTINCT org_id, day FROM asked) AS one
         ), of_key AS MATERIALIZED (
             SELECT key_id, day,
                 (SELECT coalesce(sum(calls), 0)::bigint FROM key_usage AS u WHERE u.key_id = one.key_id AND u.day = one.day)
                     AS today
             FROM (SELECT DISTINCT key_id, day FROM asked WHERE key_id IS NOT NULL) AS one
         )
         SELECT of_org.open AS open_of_org, of_org.today AS org_today, coalesce(of_key.today, 0) AS key_today,
             (SELECT count(*) FROM (SELECT 1 FROM call WHERE org_id = asked.org_id AND request ->> 'to' = asked.number
                 AND ended_at IS NULL LIMIT asked.number_max) AS of_number) AS open_to_number,
             coalesce((SELECT true FROM call WHERE id = asked.id), false) AS is_there,
             promise.call_id AS promised, promise.body_sha256 AS promised_to,
             (SELECT id FROM equal WHERE equal.n = asked.n) AS equal
         FROM asked JOIN of_org USING (org_id, day) LEFT JOIN of_key USING (key_id, day)
             LEFT JOIN LATERAL (
                 SELECT call_id, body_sha256 FROM idempotency WHERE org_id = asked.org_id AND key = asked.kept_key
                     AND (expires_at IS NULL OR expires_at > asked.at)
             ) AS promise ON true
         ORDER BY asked.n",
    );
    let seen = query
        .bind(each(batch, |new| new.org.as_str()))
        .bind(each(batch, |new| new.request.to.as_str()))
        .bind(each(batch, |new| i64::from(new.open_max.number)))
        .bind(each(batch, NewCall::day))
        .bind(each(batch, |new| new.actor.key.as_ref().map(KeyId::as_str)))
        .bind(each(batch, |new| new.id.as_str()))
        .bind(each(batch, kept_key))
        .bind(each(batch, |new| kept(new.at)))
        .bind(each(batch, |new| new.request.dedup_key.as_deref()))
        .bind(each(batch, |new| new.mode.as_str()))
        .fetch_all(c)
        .await?;
    Ok(seen)
}

/// Of each call: its row, idempotency key, its key's count, the first step of its log, the outbox and the audit row. The counts of
/// their organisations are kept by triggers.
async fn write(c: &mut PgConnection, calls: &[&NewCall], owner: Option<&ReplicaId>) -> Result<(), Failure> {
    if calls.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(concat!(
        "WITH asked AS MATERIALIZED (
             SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[],
                 $8::text[], $9::bytea[], $10::text[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::text[],
                 $16::text[], $17::text[], $18::text[], $19::text[], $20::jsonb[], $21::text[])
                 AS asked (id, org_id, request, dedup_key, at, deadline_at, mode, kept_key, body_sha256, counted_key, day,
                     event_id, audit_id, actor_type, actor_id, auth_method, ip, user_agent, request_id, changes, key_id)
         ), accepted AS (
             INSERT INTO call (id, org_id, request, dedup_key, status, sequence, created_at, deadline_at, mode, lease_owner)
             SELECT id, org_id, request, dedup_key, 'queued', 1, at, deadline_at, mode, $23 FROM asked
         ), remembered AS (
             INSERT INTO idempotency (org_id, key, body_sha256, call_id, created_at)
             SELECT org_id, kept_key, body_sha256, id, at FROM asked WHERE kept_key IS NOT NULL
             ",
        remembered_anew!(),
        "
         ), counted AS (
             INSERT INTO key_usage AS u (key_id, day, shard, calls)
             SELECT counted_key, day, pg_backend_pid() % 64, count(*) FROM asked WHERE counted_key IS NOT NULL
             GROUP BY counted_key, day
             ON CONFLICT (key_id, day, shard) DO UPDATE SET calls = u.calls + excluded.calls
         ), logged AS (
             INSERT INTO call_transition (id, org_id, call_id, sequence, status, occurred_at)
             SELECT event_id, org_id, id, 1, 'queued', at FROM asked
         ), told AS (
             INSERT INTO outbox (id, org_id, call_id, sequence, kind, created_at, due_at)
             SELECT event_id, org_id, id, 1, 'call.queued', at, at FROM asked
         )
         INSERT INTO audit_log (id, org_id, occurred_at, actor_type, actor_id, key_prefix, auth_method, action, target_type,
             target_id, outcome, ip, user_agent, request_id, changes)
         SELECT audit_id, asked.org_id, at,
             CASE WHEN key.id IS NULL THEN actor_type WHEN key.org_id IS NULL THEN 'operator' ELSE 'customer' END,
             actor_id, key.prefix, auth_method, $22, 'call', asked.id, 'success', ip, user_agent, request_id, changes
         FROM asked LEFT JOIN api_key AS key ON key.id = asked.key_id"
    ));
    query
        .bind(each(calls, |new| new.id.as_str()))
        .bind(each(calls, |new| new.org.as_str()))
        .bind(each(calls, |new| Json(&new.request)))
        .bind(each(calls, |new| new.request.dedup_key.as_deref()))
        .bind(each(calls, |new| kept(new.at)))
        .bind(each(calls, |new| kept(new.deadline_at)))
        .bind(each(calls, |new| new.mode.as_str()))
        .bind(each(calls, |new| kept_key(new)))
        .bind(each(calls, |new| new.idempotency.as_ref().map(|asked| asked.body_sha256.as_slice())))
        .bind(each(calls, |new| new.counted_key().map(KeyId::as_str)))
        .bind(each(calls, |new| new.day()))
        .bind(each(calls, |new| new.event_id.as_str()))
        .bind(each(calls, |new| new.audit_id.as_str()))
        .bind(each(calls, |new| actor_type(&new.actor).as_str()))
        .bind(each(calls, |new| actor_id(&new.actor)))
        .bind(each(calls, |new| auth_method(&new.actor, ACTION)))
        .bind(each(calls, |new| new.actor.ip.as_deref()))
        .bind(each(calls, |new| new.actor.user_agent.as_deref()))
        .bind(each(calls, |new| new.actor.request.as_ref().map(RequestId::as_str)))
        .bind(each(calls, |new| Json(json!({"to": new.request.to.shortened()}))))
        .bind(each(calls, |new| new.actor.key.as_ref().map(KeyId::as_str)))
        .bind(ACTION)
        .bind(owner.map(ReplicaId::as_str))
        .execute(&mut *c)
        .await?;
    traces::begin(c, calls.iter().filter_map(|new| new.place())).await
}

fn kept_key(new: &NewCall) -> Option<String> {
    new.idempotency.as_ref().map(|asked| new.kept_key(asked))
}

/// A column of the calls.
fn each<'a, C, T>(calls: &'a [C], column: impl Fn(&'a C) -> T) -> Vec<T> {
    calls.iter().map(column).collect()
}

/// For a call that was there.
async fn remember(c: &mut PgConnection, new: &NewCall, call: &CallId) -> Result<(), Failure> {
    let Some(asked) = &new.idempotency else { return Ok(()) };
    sqlx::query(concat!(
        "INSERT INTO idempotency (org_id, key, body_sha256, call_id, created_at) VALUES ($1, $2, $3, $4, $5) ",
        remembered_anew!()
    ))
        .bind(new.org.as_str())
        .bind(new.kept_key(asked))
        .bind(asked.body_sha256.as_slice())
        .bind(call.as_str())
        .bind(Micros::from(new.at))
        .execute(c)
        .await?;
    Ok(())
}
