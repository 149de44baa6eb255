//! How many calls an organisation may have open, on SQLite, where one write follows the other.

use sqlx::SqliteConnection;

use crate::{
    calls::{Full, NewCall},
    error::Failure,
};

/// Which bound a new call would exceed, if one. The same write again is no new call.
pub(super) async fn full(c: &mut SqliteConnection, new: &NewCall) -> Result<Option<Full>, Failure> {
    // Named, since the planner would take the index of all calls of the organisation.
    let (of_org, of_number) = sqlx::query_as::<_, (i64, i64)>(
        "SELECT
             coalesce((SELECT calls FROM open_calls WHERE org_id = $1), 0),
             (SELECT count(*) FROM (SELECT 1 FROM call INDEXED BY call_open_by_number
                  WHERE org_id = $1 AND json_extract(request, '$.to') = $2 AND ended_at IS NULL LIMIT $3))",
    )
    .bind(new.org.as_str())
    .bind(new.request.to.as_str())
    .bind(i64::from(new.open_max.number))
    .fetch_one(&mut *c)
    .await?;
    let Some(full) = new.open_max.exceeded(of_org, of_number, 0) else { return Ok(None) };
    let again = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM call WHERE id = $1")
        .bind(new.id.as_str())
        .fetch_one(c)
        .await?;
    Ok((again == 0).then_some(full))
}
