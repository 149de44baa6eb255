//! Rounds on SQLite: another one for a call, and how often a number may be dialled.

use controlplane_core::{
    call::CallStatus,
    ids::OrgId,
    number::E164,
    throttle::{Throttle, lie_ahead},
};
use sqlx::{SqliteConnection, types::time::OffsetDateTime};

use super::calls::{Entry, QUEUED, head, next, repeated, under_way};
use crate::{
    calls::{RedialCall, Written},
    columns::Micros,
    error::Failure,
};

/// Another round, later.
pub(super) async fn redial(c: &mut SqliteConnection, redial: &RedialCall) -> Result<Written, Failure> {
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

/// Until when a number is held, by what is written. Starts that lie ahead are of a clock that was ahead: they become
/// starts of now, so that they hold for their window, and not until that moment has come.
pub(super) async fn held_until(
    c: &mut SqliteConnection,
    org: &OrgId,
    to: &E164,
    throttle: &Throttle,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, Failure> {
    let latest = latest(c, org, to, throttle, now).await?;
    if lie_ahead(&latest, now) {
        bring_back(c, org, to, now).await?;
    }
    Ok(throttle.held_until(&latest, now))
}

/// Starts that lie ahead become starts of now.
pub(super) async fn bring_back(
    c: &mut SqliteConnection,
    org: &OrgId,
    to: &E164,
    now: OffsetDateTime,
) -> Result<(), Failure> {
    sqlx::query("UPDATE dialled SET started_at = $3 WHERE org_id = $1 AND number = $2 AND started_at > $3")
        .bind(org.as_str())
        .bind(to.as_str())
        .bind(Micros::from(now))
        .execute(c)
        .await?;
    Ok(())
}

/// The starts that a number's windows look at, newest first.
pub(super) async fn latest(
    c: &mut SqliteConnection,
    org: &OrgId,
    to: &E164,
    throttle: &Throttle,
    now: OffsetDateTime,
) -> Result<Vec<OffsetDateTime>, Failure> {
    // No bare parameter as the limit: see `accepting`.
    let latest = sqlx::query_scalar::<_, Micros>(
        "SELECT started_at FROM dialled WHERE org_id = $1 AND number = $2 AND started_at > $3
         ORDER BY started_at DESC LIMIT CAST($4 AS INTEGER)",
    )
    .bind(org.as_str())
    .bind(to.as_str())
    .bind(Micros::from(now - throttle.horizon()))
    .bind(i64::from(throttle.calls_max()))
    .fetch_all(c)
    .await?;
    Ok(latest.into_iter().map(OffsetDateTime::from).collect())
}
