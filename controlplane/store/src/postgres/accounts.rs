//! Accounts of carriers that several replicas share, on PostgreSQL: counted where attempts are begun, so that no moment is between
//! the look and the start. By the database's clock: replicas' own have no part in it.
//!
//! A start counts from its beginning until a second after the first news of its attempt, which come when its Originate has left, and 50 ms for what Asterisk
//! may still do before the INVITE leaves. So however long its way to the carrier took, the carrier has no second with more starts than the account: all that it sees in one were
//! counted when the last of them began. One of which there is no news counts for three seconds: longer than an Originate takes to leave, if it ever does, and short enough that a node
//! that has fallen silent does not hold all that the account has.
//!
//! Attempts over one account begin one after the other, each within its transaction. Only accounts with a limit are counted.

use std::collections::HashMap;

use controlplane_core::{
    ids::{AttemptId, ReplicaId},
    names::CarrierName,
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use crate::{
    calls::{
        Account,
        account::{NoRoom, Room},
    },
    columns::Word,
    error::Failure,
    replicas::Held,
};

/// Class of advisory locks: whose account is counted. Taken after calls' rows, before numbers' turns.
const ACCOUNT_TURN: i32 = 5;

/// How long a start without news counts, as an interval. An attempt whose beginning had to be written again for half as long is not sent.
macro_rules! leaving_max {
    () => {
        "interval '3 seconds'"
    };
}
pub(super) use leaving_max;

/// Text that waits for the turns of these carriers' accounts, in one order, and keeps them to the transaction's end. A carrier's name
/// has no quote.
pub(super) fn turns(carriers: &[&CarrierName]) -> String {
    let each: Vec<_> = carriers.iter().map(|carrier| format!("('{carrier}')")).collect();
    format!(
        "SELECT pg_advisory_xact_lock({ACCOUNT_TURN}, turn) FROM (
             SELECT DISTINCT hashtext(carrier) AS turn FROM (VALUES {}) AS asked (carrier) ORDER BY turn) AS turns",
        each.join(", ")
    )
}

/// What is counted of the accounts, in their turn, of each of which so many more are wanted.
pub(super) async fn rooms(
    c: &mut PgConnection,
    wanted: &[(&CarrierName, Account)],
) -> Result<HashMap<CarrierName, Room>, Failure> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query_as::<_, (Word<CarrierName>, i64, Vec<i64>)>(
        concat!(
            "SELECT carrier, (SELECT count(*) FROM carrier_channel AS held WHERE held.carrier = asked.carrier),
                 ARRAY(SELECT us FROM (
                     SELECT greatest(0, (extract(epoch FROM statement_timestamp() - left_at) * 1000000)::bigint - 50000) AS us
                     FROM carrier_start AS started
                     WHERE started.carrier = asked.carrier AND left_at > statement_timestamp() - interval '1050 milliseconds'
                     UNION ALL SELECT 0 FROM carrier_start AS leaving
                     WHERE leaving.carrier = asked.carrier AND left_at IS NULL AND at > statement_timestamp() - ",
            leaving_max!(),
            ") AS counted ORDER BY us)
             FROM (SELECT DISTINCT unnest($1::text[]) AS carrier) AS asked"
        ),
    )
    .bind(wanted.iter().map(|(carrier, _)| carrier.as_str()).collect::<Vec<_>>())
    .fetch_all(&mut *c)
    .await?;
    let mut rooms = HashMap::new();
    for (Word(carrier), channels, starts_us) in rows {
        let of = wanted.iter().filter(|(wanted, _)| **wanted == carrier);
        let max = of.clone().filter_map(|(_, account)| account.channels_max).min();
        let after = channels + i64::try_from(of.count()).unwrap_or(i64::MAX);
        let forgotten = match max {
            Some(max) if after > i64::from(max) => forget_canaries(c, &carrier).await?,
            Some(_) | None => 0,
        };
        let channels = channels - i64::try_from(forgotten).unwrap_or(channels);
        rooms.insert(carrier, Room { channels, starts_us });
    }
    Ok(rooms)
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
    sqlx::raw_sql(AssertSqlSafe(turns(&[carrier]))).execute(&mut *c).await?;
    let rooms = rooms(c, &[(carrier, account)]).await?;
    let room = rooms.get(carrier);
    if let Some((room, NoRoom { wait })) = room.and_then(|room| Some((room, room.is_full(account)?))) {
        return Ok(Held::Full { wait, ago: room.ago() });
    }
    sqlx::query(
        "WITH past AS (DELETE FROM carrier_start WHERE carrier = $1 AND at < statement_timestamp() - interval '1 minute'),
             started AS (INSERT INTO carrier_start (carrier, at) VALUES ($1, clock_timestamp()))
         INSERT INTO carrier_channel (attempt_id, carrier) VALUES ($2, $1) ON CONFLICT (attempt_id) DO NOTHING",
    )
    .bind(carrier.as_str())
    .bind(of_canary(replica, attempt))
    .execute(c)
    .await?;
    Ok(Held::Yes)
}

/// A canary is over.
pub(super) async fn free(pool: &PgPool, replica: &ReplicaId, attempt: &AttemptId) -> Result<(), sqlx::Error> {
    let freed = sqlx::query("DELETE FROM carrier_channel WHERE attempt_id = $1");
    freed.bind(of_canary(replica, attempt)).execute(pool).await.map(drop)
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
