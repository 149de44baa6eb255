//! Attempts on PostgreSQL: begun before an Originate leaves, advanced by news and keys, ended once.

use controlplane_core::{
    call::{AttemptStatus, CallStatus, Detection},
    ids::{AttemptId, CallId},
    request::KeyAction,
};
use sqlx::PgConnection;

use super::{
    accounts,
    calls::{Entry, finish, head, next, repeated},
    rounds,
};
use crate::{
    calls::{Advance, BeginAttempt, Begun, EndAttempt, Follows, Hear, Written},
    columns::{Micros, Word},
    error::Failure,
    progress::{self, ACKNOWLEDGED, ATTEMPT_FAILED, event},
    rows::{AttemptHead, CallHead},
};

pub(super) async fn begin(c: &mut PgConnection, begin: &BeginAttempt) -> Result<Begun, Failure> {
    let call = head(c, &begin.call).await?.driven_under(begin.epoch)?;
    if call.status.0.is_terminal() {
        return Ok(Begun::AlreadyEnded);
    }
    match (under_way(c, &begin.call).await?, call.too_late(begin.at)) {
        (None, None) => {}
        (None, Some(why)) => return Ok(Begun::TooLate { why, is_open: false }),
        // The same write again, by a caller that did not hear the first one's answer.
        (Some(attempt), late) if attempt == begin.attempt => {
            let yes = Begun::Yes { sequence: call.sequence };
            return Ok(late.map_or(yes, |why| Begun::TooLate { why, is_open: true }));
        }
        (Some(_), _) => return Ok(Begun::AlreadyEnded),
    }
    if let Some(account) = begin.account
        && let Err(full) = accounts::turn(c, &begin.carrier, account).await?
    {
        return Ok(Begun::Full { wait: full.wait });
    }
    if let Some(until) = rounds::begin(c, &call, begin).await? {
        return Ok(Begun::Held { until });
    }
    if begin.account.is_some() {
        accounts::start(c, &begin.carrier, &begin.attempt).await?;
    }
    let inserted = sqlx::query(
        "INSERT INTO attempt
             (id, org_id, call_id, ordinal, node, trunk, carrier, status, rang, incarnation, started_at, round)
         VALUES ($1, $2, $3, (SELECT coalesce(max(ordinal), 0) + 1 FROM attempt WHERE call_id = $3),
             $4, $5, $6, 'sending', 'no', $7, $8, $9) ON CONFLICT (id) DO NOTHING",
    )
    .bind(begin.attempt.as_str())
    .bind(call.org_id.0.as_str())
    .bind(begin.call.as_str())
    .bind(begin.node.as_str())
    .bind(begin.trunk.as_str())
    .bind(begin.carrier.as_str())
    .bind(begin.incarnation.as_deref())
    .bind(Micros::from(begin.at))
    .bind(call.round)
    .execute(&mut *c)
    .await?;
    if inserted.rows_affected() == 0 {
        // This attempt has ended.
        return Ok(Begun::AlreadyEnded);
    }
    let entry = Entry {
        attempt: Some((&begin.attempt, None)),
        ..Entry::of(&begin.event_id, event(CallStatus::Initiated), begin.at)
    };
    match next(c, call, CallStatus::Initiated, entry).await? {
        Written::Yes { sequence } => Ok(Begun::Yes { sequence }),
        Written::AlreadyEnded => Ok(Begun::AlreadyEnded),
    }
}

pub(super) async fn advance(c: &mut PgConnection, news: &Advance) -> Result<Written, Failure> {
    let call = head(c, &news.call).await?.driven_under(news.epoch)?;
    let Some(attempt) = living(c, &call, &news.attempt).await? else { return Ok(Written::AlreadyEnded) };
    if news.status == AttemptStatus::Ended {
        return Err(Failure::Unexpected("an advance cannot end an attempt".to_owned()));
    }
    let Some(progress) = progress::next(attempt.status.0, attempt.rang.0, news.status, news.rang) else {
        return Ok(Written::Yes { sequence: call.sequence });
    };
    sqlx::query(
        "UPDATE attempt SET status = $1, rang = $2,
             ringing_at = CASE WHEN $1 = 'ringing' THEN coalesce(ringing_at, $3) ELSE ringing_at END,
             answered_at = CASE WHEN $1 = 'in_progress' THEN coalesce(answered_at, $3) ELSE answered_at END
         WHERE id = $4",
    )
    .bind(progress.status.as_str())
    .bind(progress.rang.as_str())
    .bind(Micros::from(news.at))
    .bind(news.attempt.as_str())
    .execute(&mut *c)
    .await?;
    let Some(status) = progress.call else { return Ok(Written::Yes { sequence: call.sequence }) };
    let entry =
        Entry { attempt: Some((&news.attempt, None)), ..Entry::of(&news.event_id, event(status), news.at) };
    next(c, call, status, entry).await
}

pub(super) async fn hear(c: &mut PgConnection, hear: &Hear) -> Result<Written, Failure> {
    let call = head(c, &hear.call).await?.driven_under(hear.epoch)?;
    let entry = Entry {
        attempt: Some((&hear.attempt, None)),
        key: Some(hear.key),
        ..Entry::of(&hear.event_id, ACKNOWLEDGED, hear.at)
    };
    let Some(attempt) = living(c, &call, &hear.attempt).await? else {
        return repeated(c, &call, &entry).await;
    };
    if attempt.heard_key.is_some() {
        return Ok(Written::Yes { sequence: call.sequence });
    }
    sqlx::query("UPDATE attempt SET heard_key = $1 WHERE id = $2")
        .bind(hear.key.to_string())
        .bind(hear.attempt.as_str())
        .execute(&mut *c)
        .await?;
    sqlx::query("UPDATE call SET ack_key = $1, ack_action = $2, ack_at = $3 WHERE id = $4")
        .bind(hear.key.to_string())
        .bind(hear.action.as_str())
        .bind(Micros::from(hear.at))
        .bind(hear.call.as_str())
        .execute(&mut *c)
        .await?;
    let status = call.status.0;
    match hear.action {
        KeyAction::Acknowledge => next(c, call, status, entry).await,
        KeyAction::Escalate | KeyAction::Repeat => Ok(Written::Yes { sequence: call.sequence }),
    }
}

pub(super) async fn end(c: &mut PgConnection, end: &EndAttempt) -> Result<Written, Failure> {
    let call = head(c, &end.call).await?.driven_under(end.epoch)?;
    let entry = Entry {
        end: end.follows.end(),
        attempt: Some((&end.attempt, Some(end.ending))),
        redial_at: end.follows.redial_at(),
        ..Entry::of(&end.event_id, ATTEMPT_FAILED, end.at)
    };
    let Some(attempt) = living(c, &call, &end.attempt).await? else {
        return repeated(c, &call, &entry).await;
    };
    let status = call.status.0;
    let written = match end.follows {
        Follows::End(call_end) => finish(c, call, call_end, end.at, &end.event_id, entry.attempt).await,
        Follows::Round { .. } => next(c, call, CallStatus::Queued, entry).await,
        Follows::Attempt => next(c, call, status, entry).await,
    }?;
    // After the call: its triggers lock what the organisation has open, and these what it has used of its day. Who accepts locks
    // both in this order too.
    sqlx::query(
        "WITH freed AS (DELETE FROM carrier_channel WHERE attempt_id = $6)
         UPDATE attempt SET status = 'ended', ending = $1, sip_code = $2, q850 = $3, rang = $4, ended_at = $5,
             heard_key = coalesce(heard_key, $7), machine = $8, is_untold = $9
         WHERE id = $6",
    )
    .bind(end.ending.as_str())
    .bind(end.sip_code.map(i32::from))
    .bind(end.q850.map(i32::from))
    .bind(progress::rang_at_end(attempt.rang.0, end.rang).as_str())
    .bind(Micros::from(end.at))
    .bind(end.attempt.as_str())
    .bind(end.talk.key.map(|key| key.to_string()))
    .bind(end.talk.machine.map(Detection::as_str))
    .bind(end.talk.untold)
    .execute(&mut *c)
    .await?;
    Ok(written)
}

/// The call's attempt that has not ended, if there is one.
pub(super) async fn under_way(c: &mut PgConnection, call: &CallId) -> Result<Option<AttemptId>, Failure> {
    let id = sqlx::query_scalar::<_, Word<AttemptId>>(
        "SELECT id FROM attempt WHERE call_id = $1 AND ended_at IS NULL",
    )
    .bind(call.as_str())
    .fetch_optional(c)
    .await?;
    Ok(id.map(|id| id.0))
}

/// The attempt, while neither it nor its call has ended.
async fn living(
    c: &mut PgConnection,
    call: &CallHead,
    id: &AttemptId,
) -> Result<Option<AttemptHead>, Failure> {
    let attempt = sqlx::query_as::<_, AttemptHead>(
        "SELECT status, rang, heard_key FROM attempt WHERE id = $1 AND call_id = $2",
    )
    .bind(id.as_str())
    .bind(call.id.0.as_str())
    .fetch_optional(c)
    .await?
    .ok_or_else(|| Failure::Missing(id.to_string()))?;
    let over = call.status.0.is_terminal() || attempt.status.0 == AttemptStatus::Ended;
    Ok((!over).then_some(attempt))
}
