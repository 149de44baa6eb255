//! How many calls an organisation may have open and ask for in a day, on PostgreSQL, where many are accepted at the same time.
//!
//! Transactions do not see each other's calls before they commit. Far from a bound that does no harm: there are at
//! most [`CONNECTIONS_MAX`] of them, and they share the organisation's turn. Near it a call is accepted alone, when
//! those that share are done; so no bound is exceeded, and nobody queues who is far from one.

use controlplane_core::ids::KeyId;
use sqlx::PgConnection;

use super::{calls::OPEN_TURN, open::CONNECTIONS_MAX};
use crate::{
    calls::{Full, NewCall, Used},
    error::Failure,
};

/// How a call is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// While others are.
    Shared,
    /// While none other of its organisation is.
    Alone,
}

/// Whether there is room for a new call.
pub(super) enum Room {
    Free,
    Full(Full),
    /// There may be none: to be asked again [`Turn::Alone`].
    Near,
}

/// Takes the turn, to the end of the transaction, and looks. The same write again is no new call.
pub(super) async fn room(c: &mut PgConnection, new: &NewCall, turn: Turn) -> Result<Room, Failure> {
    let (take, others) = match turn {
        Turn::Shared => ("SELECT pg_advisory_xact_lock_shared($1, hashtext($2))", i64::from(CONNECTIONS_MAX)),
        Turn::Alone => ("SELECT pg_advisory_xact_lock($1, hashtext($2))", 0),
    };
    sqlx::query(take).bind(OPEN_TURN).bind(new.org.as_str()).execute(&mut *c).await?;
    // A statement of its own: it must see what was committed while this one waited for its turn.
    let used = sqlx::query_as::<_, Used>(
        "SELECT
             (SELECT coalesce(sum(calls), 0)::bigint FROM open_calls WHERE org_id = $1) AS open_of_org,
             (SELECT count(*) FROM (SELECT 1 FROM call
                  WHERE org_id = $1 AND request ->> 'to' = $2 AND ended_at IS NULL LIMIT $3) AS of_number)
                 AS open_to_number,
             (SELECT coalesce(sum(calls), 0)::bigint FROM org_usage WHERE org_id = $1 AND day = $4) AS org_today,
             (SELECT coalesce(sum(calls), 0)::bigint FROM key_usage WHERE key_id = $5 AND day = $4) AS key_today",
    )
    .bind(new.org.as_str())
    .bind(new.request.to.as_str())
    .bind(i64::from(new.open_max.number))
    .bind(new.day())
    .bind(new.actor.key.as_ref().map(KeyId::as_str))
    .fetch_one(&mut *c)
    .await?;
    let Some(full) = new.exceeded(used, others) else { return Ok(Room::Free) };
    if turn == Turn::Shared {
        return Ok(Room::Near);
    }
    let again = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM call WHERE id = $1")
        .bind(new.id.as_str())
        .fetch_one(c)
        .await?;
    Ok(if again == 0 { Room::Full(full) } else { Room::Free })
}
