//! Rounds on PostgreSQL: another one for a call, and how often a number may be dialled.

use controlplane_core::{
    call::CallStatus,
    ids::{CallId, OrgId},
    number::E164,
    throttle::{Throttle, lie_ahead},
};
use sqlx::{PgConnection, PgExecutor, types::time::OffsetDateTime};

use super::calls::{Entry, QUEUED, head, next, repeated, under_way};
use crate::{
    calls::{RedialCall, Written},
    columns::Micros,
    error::Failure,
};

/// Class of advisory locks: which number's calls begin. Taken after calls' rows and accounts' turns, or alone.
const NUMBER_TURN: i32 = 3;

/// Text that waits for the turn of each of these calls' numbers, in one order, and keeps it to the transaction's end: starts of one number are
/// counted one after the other. Two numbers of one hash only wait without need. Neither an id nor a number has a quote.
pub(super) fn turns(numbers: &[(&CallId, &E164)]) -> String {
    let each: Vec<_> = numbers.iter().map(|(call, to)| format!("('{call}', '{}')", to.as_str())).collect();
    format!(
        "SELECT pg_advisory_xact_lock({NUMBER_TURN}, turn) FROM (
             SELECT DISTINCT hashtext(call.org_id || ' ' || number) AS turn
             FROM (VALUES {}) AS asked (call_id, number) JOIN call ON call.id = asked.call_id ORDER BY turn) AS turns",
        each.join(", ")
    )
}

/// The same turn of one organisation's number.
pub(super) async fn take_turn(c: &mut PgConnection, org: &OrgId, to: &E164) -> Result<(), Failure> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(NUMBER_TURN)
        .bind(format!("{org} {}", to.as_str()))
        .execute(c)
        .await?;
    Ok(())
}

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
        bring_back(c, org, to, now).await?;
    }
    Ok(throttle.held_until(&latest, now))
}

/// Starts that lie ahead become starts of now.
pub(super) async fn bring_back(
    c: &mut PgConnection,
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
