//! How many calls an organisation may have open and ask for in a day, on SQLite, where one write follows the other.

use controlplane_core::{access::Mode, ids::KeyId};
use sqlx::SqliteConnection;

use crate::{
    calls::{Full, NewCall, Used},
    error::Failure,
};

/// Which bound a new call would exceed, if one. The same write again is no new call.
pub(super) async fn full(c: &mut SqliteConnection, new: &NewCall) -> Result<Option<Full>, Failure> {
    // Named, since the planner would take the index of all calls of the organisation.
    let used = sqlx::query_as::<_, Used>(
        "SELECT
             coalesce((SELECT calls FROM open_calls WHERE org_id = $1), 0) AS open_of_org,
             (SELECT count(*) FROM (SELECT 1 FROM call INDEXED BY call_open_by_number
                  WHERE org_id = $1 AND json_extract(request, '$.to') = $2 AND ended_at IS NULL LIMIT $3))
                 AS open_to_number,
             coalesce((SELECT calls FROM org_usage WHERE org_id = $1 AND day = $4), 0) AS org_today,
             coalesce((SELECT calls FROM key_usage WHERE key_id = $5 AND day = $4), 0) AS key_today",
    )
    .bind(new.org.as_str())
    .bind(new.request.to.as_str())
    .bind(i64::from(new.open_max.number))
    .bind(new.day())
    .bind(new.actor.key.as_ref().map(KeyId::as_str))
    .fetch_one(&mut *c)
    .await?;
    let Some(full) = new.exceeded(used, 0) else { return Ok(None) };
    let again = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM call WHERE id = $1")
        .bind(new.id.as_str())
        .fetch_one(c)
        .await?;
    Ok((again == 0).then_some(full))
}

/// Counts a call that was accepted by its key, unless it is a rehearsal. Its organisation's are counted by triggers.
pub(super) async fn count(c: &mut SqliteConnection, new: &NewCall) -> Result<(), Failure> {
    let Some(key) = new.actor.key.as_ref().filter(|_| new.mode == Mode::Live) else { return Ok(()) };
    sqlx::query(
        "INSERT INTO key_usage (key_id, day, calls) VALUES ($1, $2, 1)
         ON CONFLICT (key_id, day) DO UPDATE SET calls = calls + 1",
    )
    .bind(key.as_str())
    .bind(new.day())
    .execute(c)
    .await?;
    Ok(())
}
