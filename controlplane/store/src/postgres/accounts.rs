//! Accounts of carriers that several replicas share, on PostgreSQL: counted where attempts are begun, so that no moment is between
//! the look and the start. By the database's clock: replicas' own have no part in it.
//!
//! Attempts over one account begin one after the other, each within its transaction. Only accounts with a limit are counted.

use std::time::Duration;

use controlplane_core::{
    ids::{AttemptId, ReplicaId},
    names::CarrierName,
};
use sqlx::{PgConnection, PgPool};

use crate::{calls::Account, error::Failure, replicas::Held};

/// Class of advisory locks: whose account is counted. Taken after the call's row, before a number's turn.
const ACCOUNT_TURN: i32 = 5;

/// Why the account takes no further attempt now.
pub(super) struct Full {
    /// Until a start is free; `None`: until an attempt ends.
    pub(super) wait: Option<Duration>,
}

/// Waits for the account's turn, and keeps it to the transaction's end. `Err`: it is full.
pub(super) async fn turn(
    c: &mut PgConnection,
    carrier: &CarrierName,
    account: Account,
) -> Result<Result<(), Full>, Failure> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(ACCOUNT_TURN)
        .bind(carrier.as_str())
        .execute(&mut *c)
        .await?;
    if let Some(max) = account.channels_max.map(i64::from)
        && channels(c, carrier).await? >= max
        && (forget_canaries(c, carrier).await? == 0 || channels(c, carrier).await? >= max)
    {
        return Ok(Err(Full { wait: None }));
    }
    let Some(cps_max) = account.cps_max else { return Ok(Ok(())) };
    // Of as many starts as a second may have the first one: a second after it there is room for another.
    let wait_us = sqlx::query_scalar::<_, i64>(
        "SELECT (extract(epoch FROM at + interval '1 second' - clock_timestamp()) * 1000000)::bigint
         FROM carrier_start WHERE carrier = $1 ORDER BY at DESC OFFSET $2 LIMIT 1",
    )
    .bind(carrier.as_str())
    .bind(i64::from(cps_max) - 1)
    .fetch_optional(c)
    .await?;
    match wait_us.and_then(|us| u64::try_from(us).ok()).filter(|us| *us > 0) {
        Some(us) => Ok(Err(Full { wait: Some(Duration::from_micros(us)) })),
        None => Ok(Ok(())),
    }
}

async fn channels(c: &mut PgConnection, carrier: &CarrierName) -> Result<i64, Failure> {
    let held = sqlx::query_scalar("SELECT count(*) FROM carrier_channel WHERE carrier = $1");
    Ok(held.bind(carrier.as_str()).fetch_one(c).await?)
}

/// What holds a canary's place: its id, and whose it is, since no call's owner ends it where that one is dead.
fn of_canary(replica: &ReplicaId, attempt: &AttemptId) -> String {
    format!("{attempt} {replica}")
}

/// Canaries of replicas that are dead for longer than a canary can live hold no place. Returns how many that were.
async fn forget_canaries(c: &mut PgConnection, carrier: &CarrierName) -> Result<u64, Failure> {
    let forgotten = sqlx::query(
        "DELETE FROM carrier_channel WHERE carrier = $1 AND attempt_id LIKE '% %' AND NOT EXISTS (
             SELECT 1 FROM replica WHERE id = split_part(attempt_id, ' ', 2)
                 AND expires_at > clock_timestamp() - interval '1 minute')",
    )
    .bind(carrier.as_str())
    .execute(c)
    .await?;
    Ok(forgotten.rows_affected())
}

/// Counts a canary, if there is room.
pub(super) async fn hold(
    c: &mut PgConnection,
    replica: &ReplicaId,
    attempt: &AttemptId,
    carrier: &CarrierName,
    account: Account,
) -> Result<Held, Failure> {
    if let Err(Full { wait }) = turn(c, carrier, account).await? {
        return Ok(Held::Full { wait });
    }
    count(c, carrier, &of_canary(replica, attempt)).await?;
    Ok(Held::Yes)
}

/// A canary is over.
pub(super) async fn free(pool: &PgPool, replica: &ReplicaId, attempt: &AttemptId) -> Result<(), sqlx::Error> {
    let freed = sqlx::query("DELETE FROM carrier_channel WHERE attempt_id = $1");
    freed.bind(of_canary(replica, attempt)).execute(pool).await.map(drop)
}

/// Counts an attempt, in its account's turn.
pub(super) async fn start(
    c: &mut PgConnection,
    carrier: &CarrierName,
    attempt: &AttemptId,
) -> Result<(), Failure> {
    count(c, carrier, attempt.as_str()).await
}

async fn count(c: &mut PgConnection, carrier: &CarrierName, holder: &str) -> Result<(), Failure> {
    sqlx::query(
        "WITH past AS (DELETE FROM carrier_start WHERE carrier = $1 AND at < clock_timestamp() - interval '10 seconds'),
             started AS (INSERT INTO carrier_start (carrier, at) VALUES ($1, clock_timestamp()))
         INSERT INTO carrier_channel (attempt_id, carrier) VALUES ($2, $1) ON CONFLICT (attempt_id) DO NOTHING",
    )
    .bind(carrier.as_str())
    .bind(holder)
    .execute(c)
    .await?;
    Ok(())
}

/// Counts what claimed calls have under way: who had begun it may not have counted.
pub(super) async fn adopt(c: &mut PgConnection, calls: &[&str]) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO carrier_channel (attempt_id, carrier)
             SELECT id, carrier FROM attempt WHERE call_id = ANY($1) AND ended_at IS NULL
         ON CONFLICT (attempt_id) DO NOTHING",
    )
    .bind(calls)
    .execute(c)
    .await?;
    Ok(())
}
