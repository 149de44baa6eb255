//! Rounds on PostgreSQL: another one for a call, and how often a number may be dialled.

use controlplane_core::{
    call::CallStatus,
    ids::OrgId,
    number::E164,
    throttle::{Throttle, lie_ahead},
};
use sqlx::{PgConnection, PgExecutor, types::time::OffsetDateTime};

use super::{
    attempts::under_way,
    calls::{Entry, NUMBER_TURN, QUEUED, head, next, repeated, take_turns},
};
use crate::{
    calls::{BeginAttempt, RedialCall, Written},
    columns::Micros,
    error::Failure,
    rows::CallHead,
};

/// Another round, later.
pub(super) async fn redial(c: &mut PgConnection, redial: &RedialCall) -> Result<Written, Failure> {
    let call = head(c, &redial.call).await?.driven_under(redial.epoch)?;
    let entry = Entry { redial_at: Some(redial.redial_at), ..Entry::of(&redial.event_id, QUEUED, redial.at) };
    match repeated(c, &call, &entry).await? {
        // The same write again, by a caller that did not hear the first one's answer.
        written @ Written::Yes { .. } => return Ok(written),
        Written::AlreadyEnded if call.status.0.is_terminal() => return Ok(Written::AlreadyEnded),
        Written::AlreadyEnded => {}
    }
    if let Some(attempt) = under_way(c, &redial.call).await? {
        return Err(Failure::AttemptOpen(attempt));
    }
    next(c, call, CallStatus::Queued, entry).await
}

/// Counts the start of a round with its first attempt; `Some`: its number is held until then, and no start is
/// written. Starts of one number are counted one after the other.
pub(super) async fn begin(
    c: &mut PgConnection,
    call: &CallHead,
    begin: &BeginAttempt,
) -> Result<Option<OffsetDateTime>, Failure> {
    if begin.throttle.is_off() {
        return Ok(None);
    }
    let begun = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM attempt WHERE call_id = $1 AND (round = $2 OR id = $3)",
    )
    .bind(begin.call.as_str())
    .bind(call.round)
    .bind(begin.attempt.as_str())
    .fetch_one(&mut *c)
    .await?;
    if begun > 0 {
        return Ok(None);
    }
    take_turns(c, NUMBER_TURN, &call.org_id.0, begin.to.as_str()).await?;
    let org = &call.org_id.0;
    if let Some(until) = held_until(c, org, &begin.to, &begin.throttle, begin.at).await? {
        return Ok(Some(until));
    }
    sqlx::query("DELETE FROM dialled WHERE org_id = $1 AND number = $2 AND started_at <= $3")
        .bind(org.as_str())
        .bind(begin.to.as_str())
        .bind(Micros::from(begin.at - begin.throttle.horizon()))
        .execute(&mut *c)
        .await?;
    sqlx::query(
        "INSERT INTO dialled (call_id, round, org_id, number, started_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(begin.call.as_str())
    .bind(call.round)
    .bind(org.as_str())
    .bind(begin.to.as_str())
    .bind(Micros::from(begin.at))
    .execute(c)
    .await?;
    Ok(None)
}

/// Until when a number is held, by what is written. Starts that lie ahead are of a clock that was ahead: they become
/// starts of now, so that they hold for their window, and not until that moment has come.
pub(super) async fn held_until(
    c: &mut PgConnection,
    org: &OrgId,
    to: &E164,
    throttle: &Throttle,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, Failure> {
    let latest = latest(&mut *c, org, to, throttle, now).await?;
    if lie_ahead(&latest, now) {
        sqlx::query(
            "UPDATE dialled SET started_at = $3 WHERE org_id = $1 AND number = $2 AND started_at > $3",
        )
        .bind(org.as_str())
        .bind(to.as_str())
        .bind(Micros::from(now))
        .execute(c)
        .await?;
    }
    Ok(throttle.held_until(&latest, now))
}

/// The starts that a number's windows look at, newest first.
pub(super) async fn latest(
    c: impl PgExecutor<'_>,
    org: &OrgId,
    to: &E164,
    throttle: &Throttle,
    now: OffsetDateTime,
) -> Result<Vec<OffsetDateTime>, Failure> {
    let latest = sqlx::query_scalar::<_, Micros>(
        "SELECT started_at FROM dialled WHERE org_id = $1 AND number = $2 AND started_at > $3
         ORDER BY started_at DESC LIMIT $4",
    )
    .bind(org.as_str())
    .bind(to.as_str())
    .bind(Micros::from(now - throttle.horizon()))
    .bind(i64::from(throttle.calls_max()))
    .fetch_all(c)
    .await?;
    Ok(latest.into_iter().map(OffsetDateTime::from).collect())
}
