//! Attempts on PostgreSQL: begun before an Originate leaves, advanced by news, ended once.

use controlplane_core::{
    call::{AttemptStatus, CallStatus},
    ids::{AttemptId, CallId},
};
use sqlx::PgConnection;

use super::calls::{Entry, finish, head, next, repeated};
use crate::{
    calls::{Advance, BeginAttempt, EndAttempt, Written},
    columns::{Micros, Word},
    error::Failure,
    progress::{self, ATTEMPT_FAILED, event},
    rows::{AttemptHead, CallHead},
};

pub(super) async fn begin(c: &mut PgConnection, begin: &BeginAttempt) -> Result<Written, Failure> {
    let call = head(c, &begin.call).await?;
    if call.status.0.is_terminal() {
        return Ok(Written::AlreadyEnded);
    }
    match under_way(c, &begin.call).await? {
        None => {}
        // The same write again, by a caller that did not hear the first one's answer.
        Some(attempt) if attempt == begin.attempt => return Ok(Written::Yes { sequence: call.sequence }),
        Some(_) => return Ok(Written::AlreadyEnded),
    }
    let inserted = sqlx::query(
        "INSERT INTO attempt
             (id, org_id, call_id, ordinal, node, trunk, carrier, status, rang, incarnation, started_at)
         VALUES ($1, $2, $3, (SELECT coalesce(max(ordinal), 0) + 1 FROM attempt WHERE call_id = $3),
             $4, $5, $6, 'sending', 'no', $7, $8) ON CONFLICT (id) DO NOTHING",
    )
    .bind(begin.attempt.as_str())
    .bind(call.org_id.0.as_str())
    .bind(begin.call.as_str())
    .bind(begin.node.as_str())
    .bind(begin.trunk.as_str())
    .bind(begin.carrier.as_str())
    .bind(begin.incarnation.as_deref())
    .bind(Micros::from(begin.at))
    .execute(&mut *c)
    .await?;
    if inserted.rows_affected() == 0 {
        // This attempt has ended.
        return Ok(Written::AlreadyEnded);
    }
    let entry = Entry {
        id: &begin.event_id,
        kind: event(CallStatus::Initiated),
        end: None,
        attempt: Some((&begin.attempt, None)),
        at: begin.at,
    };
    next(c, call, CallStatus::Initiated, entry).await
}

pub(super) async fn advance(c: &mut PgConnection, news: &Advance) -> Result<Written, Failure> {
    let call = head(c, &news.call).await?;
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
    let entry = Entry {
        id: &news.event_id,
        kind: event(status),
        end: None,
        attempt: Some((&news.attempt, None)),
        at: news.at,
    };
    next(c, call, status, entry).await
}

pub(super) async fn end(c: &mut PgConnection, end: &EndAttempt) -> Result<Written, Failure> {
    let call = head(c, &end.call).await?;
    let Some(attempt) = living(c, &call, &end.attempt).await? else {
        return repeated(c, &call, &end.event_id, end.call_end, Some((&end.attempt, end.ending))).await;
    };
    sqlx::query(
        "UPDATE attempt SET status = 'ended', ending = $1, sip_code = $2, q850 = $3, rang = $4, ended_at = $5
         WHERE id = $6",
    )
    .bind(end.ending.as_str())
    .bind(end.sip_code.map(i32::from))
    .bind(end.q850.map(i32::from))
    .bind(progress::rang_at_end(attempt.rang.0, end.rang).as_str())
    .bind(Micros::from(end.at))
    .bind(end.attempt.as_str())
    .execute(&mut *c)
    .await?;
    let attempt = Some((&end.attempt, Some(end.ending)));
    if let Some(call_end) = end.call_end {
        return finish(c, call, call_end, end.at, &end.event_id, attempt).await;
    }
    let status = call.status.0;
    let entry = Entry { id: &end.event_id, kind: ATTEMPT_FAILED, end: None, attempt, at: end.at };
    next(c, call, status, entry).await
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
    let attempt =
        sqlx::query_as::<_, AttemptHead>("SELECT status, rang FROM attempt WHERE id = $1 AND call_id = $2")
            .bind(id.as_str())
            .bind(call.id.0.as_str())
            .fetch_optional(c)
            .await?
            .ok_or_else(|| Failure::Missing(id.to_string()))?;
    let over = call.status.0.is_terminal() || attempt.status.0 == AttemptStatus::Ended;
    Ok((!over).then_some(attempt))
}
