//! Accepting calls on SQLite.
//!
//! Each trip to SQLite's thread costs as much as a write, and so does a savepoint. Whatever waits is accepted together: what is
//! there is looked at in few trips and what the new ones leave is written in few others.

use std::collections::BTreeMap;

use controlplane_core::ids::{CallId, KeyId, RequestId};
use serde_json::json;
use sqlx::{SqliteConnection, types::Json};

use super::{
    calls::load,
    sets::{Texts, of_sizes, parts, values},
    traces,
};
use crate::{
    audit::{actor_id, actor_type, auth_method},
    calls::{Created, Idempotency, NewCall, Seen, Verdict, decide, remembered_anew},
    columns::Micros,
    error::Failure,
};

const ACTION: &str = "call.create";
static LOOK: Texts = Texts::new(|| of_sizes(look_sql));
static REMEMBER: Texts = Texts::new(|| of_sizes(remember_sql));
static WRITE: Texts = Texts::new(|| of_sizes(write_sql));

pub(super) async fn create(c: &mut SqliteConnection, batch: &[NewCall]) -> Result<Vec<Created>, Failure> {
    let mut seen = Vec::with_capacity(batch.len());
    for (some, sql) in parts(batch, &LOOK) {
        look(c, some, sql, &mut seen).await?;
    }
    if seen.len() != batch.len() {
        return Err(Failure::Unexpected(format!("{} of {} calls were looked at", seen.len(), batch.len())));
    }
    // One write follows the other: nobody else takes what is free.
    let verdicts = decide(batch, seen);
    let accepted = batch.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Accept);
    write(c, &accepted.map(|(new, _)| new).collect::<Vec<_>>()).await?;
    let mut created = Vec::with_capacity(batch.len());
    for (new, verdict) in batch.iter().zip(verdicts) {
        created.push(match verdict {
            Verdict::Accept => Created::New(new.accepted(None)),
            Verdict::There => Created::New(load(c, &new.org, &new.id).await?),
            Verdict::KeyReused => Created::KeyReused,
            Verdict::Replay(id) => Created::Replayed(load(c, &new.org, &id).await?),
            Verdict::Share(id) => {
                if let Some(asked) = &new.idempotency {
                    remember(c, &[(new, asked, &id)]).await?;
                }
                Created::Deduplicated(load(c, &new.org, &id).await?)
            }
            Verdict::Full(full) => Created::Full(full),
        });
    }
    Ok(created)
}

/// An index is named, since the planner would take the one of all calls of the organisation. The limit is no bare parameter: with
/// one, SQLite prepares the statement anew for each value that it is given.
fn look_sql(calls: usize) -> String {
    let values = values(calls, 9);
    let most = 9 * calls + 1;
    format!(
        "WITH asked (org_id, number, day, key_id, id, kept_key, at, dedup_key, mode, n) AS ({values})
         SELECT
             coalesce((SELECT calls FROM open_calls WHERE org_id = asked.org_id), 0) AS open_of_org,
             (SELECT count(*) FROM (SELECT 1 FROM call INDEXED BY call_open_by_number
                  WHERE org_id = asked.org_id AND json_extract(request, '$.to') = asked.number AND ended_at IS NULL
                  LIMIT CAST(?{most} AS INTEGER))) AS open_to_number,
             coalesce((SELECT calls FROM org_usage WHERE org_id = asked.org_id AND day = asked.day), 0) AS org_today,
             coalesce((SELECT calls FROM key_usage WHERE key_id = asked.key_id AND day = asked.day), 0) AS key_today,
             EXISTS (SELECT 1 FROM call WHERE id = asked.id) AS is_there,
             promise.call_id AS promised,
             promise.body_sha256 AS promised_to,
             (SELECT id FROM call WHERE org_id = asked.org_id AND dedup_key = asked.dedup_key AND mode = asked.mode
                  AND ended_at IS NULL) AS equal
         FROM asked LEFT JOIN idempotency AS promise ON promise.org_id = asked.org_id AND promise.key = asked.kept_key
             AND (promise.expires_at IS NULL OR promise.expires_at > asked.at)
         ORDER BY asked.n"
    )
}

async fn look(
    c: &mut SqliteConnection,
    calls: &[NewCall],
    sql: &'static str,
    seen: &mut Vec<Seen>,
) -> Result<(), Failure> {
    let mut query = sqlx::query_as::<_, Seen>(sql);
    for new in calls {
        query = query
            .bind(new.org.as_str())
            .bind(new.request.to.as_str())
            .bind(new.day())
            .bind(new.actor.key.as_ref().map(KeyId::as_str))
            .bind(new.id.as_str())
            .bind(new.idempotency.as_ref().map(|asked| new.kept_key(asked)))
            .bind(Micros::from(new.at))
            .bind(new.request.dedup_key.as_deref())
            .bind(new.mode.as_str());
    }
    // Counted as far as any of them wants to know.
    query = query.bind(calls.iter().map(|new| i64::from(new.open_max.number)).max());
    seen.extend(query.fetch_all(c).await?);
    Ok(())
}

/// Of each call: its row, the first step of its log, the outbox, the audit row, its idempotency key and its key's count. The counts of
/// their organisations are kept by triggers.
async fn write(c: &mut SqliteConnection, calls: &[&NewCall]) -> Result<(), Failure> {
    for (calls, sql) in parts(calls, &WRITE) {
        let mut query = sqlx::query(sql);
        for new in calls {
            query = query
                .bind(new.id.as_str())
                .bind(new.org.as_str())
                .bind(Json(&new.request))
                .bind(new.request.dedup_key.as_deref())
                .bind(Micros::from(new.at))
                .bind(Micros::from(new.deadline_at))
                .bind(new.mode.as_str());
        }
        // The log, and the outbox.
        for new in calls.iter().chain(calls) {
            query = query
                .bind(new.event_id.as_str())
                .bind(new.org.as_str())
                .bind(new.id.as_str())
                .bind(Micros::from(new.at));
        }
        for new in calls {
            query = query
                .bind(new.audit_id.as_str())
                .bind(new.org.as_str())
                .bind(Micros::from(new.at))
                .bind(actor_type(&new.actor).as_str())
                .bind(actor_id(&new.actor))
                .bind(auth_method(&new.actor, ACTION))
                .bind(ACTION)
                .bind(new.id.as_str())
                .bind(new.actor.ip.as_deref())
                .bind(new.actor.user_agent.as_deref())
                .bind(new.actor.request.as_ref().map(RequestId::as_str))
                .bind(Json(json!({"to": new.request.to.shortened()})))
                .bind(new.actor.key.as_ref().map(KeyId::as_str));
        }
        query.execute(&mut *c).await?;
    }
    let promises: Vec<_> =
        calls.iter().filter_map(|new| Some((*new, new.idempotency.as_ref()?, &new.id))).collect();
    remember(c, &promises).await?;
    traces::begin(c, calls.iter().filter_map(|new| new.place())).await?;
    let mut counts = BTreeMap::new();
    for new in calls {
        if let Some(key) = new.counted_key() {
            *counts.entry((key.as_str(), new.day())).or_default() += 1;
        }
    }
    for ((key, day), calls) in counts {
        count(c, key, day, calls).await?;
    }
    Ok(())
}

fn write_sql(calls: usize) -> String {
    format!(
        "INSERT INTO call (id, org_id, request, dedup_key, created_at, deadline_at, mode, status, sequence)
             SELECT column1, column2, column3, column4, column5, column6, column7, 'queued', 1 FROM ({of_call});
         INSERT INTO call_transition (id, org_id, call_id, occurred_at, sequence, status)
             SELECT column1, column2, column3, column4, 1, 'queued' FROM ({of_step});
         INSERT INTO outbox (id, org_id, call_id, created_at, due_at, sequence, kind)
             SELECT column1, column2, column3, column4, column4, 1, 'call.queued' FROM ({of_step});
         WITH asked (id, org_id, at, actor_type, actor_id, auth_method, action, target_id, ip, user_agent, request_id, changes,
             key_id, n) AS ({of_row})
         INSERT INTO audit_log (id, org_id, occurred_at, actor_type, actor_id, key_prefix, auth_method, action, target_type,
             target_id, outcome, ip, user_agent, request_id, changes)
         SELECT asked.id, asked.org_id, at,
             CASE WHEN key.id IS NULL THEN actor_type WHEN key.org_id IS NULL THEN 'operator' ELSE 'customer' END,
             actor_id, key.prefix, auth_method, action, 'call', target_id, 'success', ip, user_agent, request_id, changes
         FROM asked LEFT JOIN api_key AS key ON key.id = asked.key_id",
        of_call = values(calls, 7),
        of_step = values(calls, 4),
        of_row = values(calls, 13),
    )
}

/// Binds idempotency keys to calls.
async fn remember(
    c: &mut SqliteConnection,
    promises: &[(&NewCall, &Idempotency, &CallId)],
) -> Result<(), Failure> {
    for (promises, sql) in parts(promises, &REMEMBER) {
        let mut query = sqlx::query(sql);
        for (new, asked, call) in promises {
            query = query
                .bind(new.org.as_str())
                .bind(new.kept_key(asked))
                .bind(asked.body_sha256.as_slice())
                .bind(call.as_str())
                .bind(Micros::from(new.at));
        }
        query.execute(&mut *c).await?;
    }
    Ok(())
}

/// `WHERE` lets SQLite tell the conflict's ON from a join's.
fn remember_sql(promises: usize) -> String {
    let values = values(promises, 5);
    format!(
        "INSERT INTO idempotency (org_id, key, body_sha256, call_id, created_at)
             SELECT column1, column2, column3, column4, column5 FROM ({values}) WHERE true {anew}",
        anew = remembered_anew!()
    )
}

async fn count(c: &mut SqliteConnection, key: &str, day: i64, calls: i64) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO key_usage (key_id, day, calls) VALUES ($1, $2, $3)
         ON CONFLICT (key_id, day) DO UPDATE SET calls = calls + excluded.calls",
    )
    .bind(key)
    .bind(day)
    .bind(calls)
    .execute(c)
    .await?;
    Ok(())
}
