//! Events on PostgreSQL: numbered by one transaction at a time, so that they are read in the order in which they were numbered.

use std::collections::HashMap;

use async_trait::async_trait;
use controlplane_core::{
    ids::{EventId, OrgId},
    request::EventKind,
};
use sqlx::{PgConnection, Row, postgres::PgRow, types::Json, types::time::OffsetDateTime};
use tokio::sync::watch;

use super::{PostgresStore, reading};
use crate::{
    EventStore, StoreError,
    columns::Micros,
    error::Failure,
    event_rows::{EventRow, Filling, assemble, logs, select_events},
    events::{Event, EventPage, Purged, Sealed},
    fan::{CallbackOf, Fan, Receiver, Unsealed, fan_out, in_order, lanes, orgs, owners, select_unsealed},
    readable,
    rows::select_transitions,
};

#[async_trait]
impl EventStore for PostgresStore {
    fn written(&self) -> watch::Receiver<u64> {
        self.server.written.subscribe()
    }

    async fn is_unsealed(&self) -> Result<bool, StoreError> {
        let waiting = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outbox WHERE position IS NULL)")
            .fetch_one(&self.pool)
            .await;
        waiting.map_err(|error| self.failed("look for events", error))
    }

    async fn seal_events(&self, at: OffsetDateTime, limit: u16) -> Result<Sealed, StoreError> {
        self.transaction("number events", (at, limit), |c, (at, limit)| Box::pin(seal(c, *at, *limit))).await
    }

    async fn events(&self, org: &OrgId, after: i64, limit: u16) -> Result<EventPage, StoreError> {
        let operation = "read events";
        let mut moment = self.reading(operation).await?;
        list(&mut moment, org, after, limit).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn events_of(&self, org: &OrgId, ids: &[EventId]) -> Result<Vec<Event>, StoreError> {
        let operation = "read events by their ids";
        let mut moment = self.reading(operation).await?;
        by_ids(&mut moment, org, ids).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn event_position(&self, org: &OrgId, id: &EventId) -> Result<Option<i64>, StoreError> {
        let position = sqlx::query_scalar(
            "SELECT position FROM outbox WHERE id = $1 AND org_id = $2 AND position IS NOT NULL",
        )
        .bind(id.as_str())
        .bind(org.as_str())
        .fetch_optional(&self.pool)
        .await;
        position.map_err(|error| self.failed("find event", error))
    }

    async fn last_position(&self) -> Result<i64, StoreError> {
        let position =
            sqlx::query_scalar("SELECT position FROM event_seal WHERE id = 1").fetch_one(&self.pool).await;
        position.map_err(|error| self.failed("read the last position", error))
    }

    async fn purge(
        &self,
        before: OffsetDateTime,
        now: OffsetDateTime,
        limit: u16,
    ) -> Result<Purged, StoreError> {
        self.transaction("purge events", (before, now, limit), |c, (before, now, limit)| {
            Box::pin(purge(c, *before, *now, *limit))
        })
        .await
    }
}

async fn seal(c: &mut PgConnection, at: OffsetDateTime, limit: u16) -> Result<Sealed, Failure> {
    // One numbering at a time, so that numbers are seen in the order in which they are given. Nobody waits for another's: it numbers theirs too.
    let last =
        sqlx::query_scalar::<_, i64>("SELECT position FROM event_seal WHERE id = 1 FOR UPDATE SKIP LOCKED")
            .fetch_optional(&mut *c)
            .await?;
    let Some(last) = last else { return Ok(Sealed { is_busy: true, ..Sealed::default() }) };
    // Whole calls: what of a call is there is a prefix of its log, and none of it is numbered before the rest.
    let rows = sqlx::query_as::<_, Unsealed>(select_unsealed!(
        "WHERE position IS NULL AND (call_id IS NULL OR call_id IN
             (SELECT call_id FROM outbox WHERE position IS NULL ORDER BY created_at LIMIT $1))"
    ))
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    if rows.is_empty() {
        return Ok(Sealed::default());
    }
    let rows = in_order(rows);
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    sqlx::query(
        "UPDATE outbox SET position = $1 + n.place FROM unnest($2::text[]) WITH ORDINALITY AS n(id, place)
         WHERE outbox.id = n.id",
    )
    .bind(last)
    .bind(&ids)
    .execute(&mut *c)
    .await?;
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    sqlx::query("UPDATE event_seal SET position = $1 WHERE id = 1")
        .bind(last + count)
        .execute(&mut *c)
        .await?;
    let (orgs_of, calls) = owners(&rows);
    let fans = fan_out(&rows, last, &receivers(c, &orgs_of).await?, &callbacks(c, &calls).await?);
    deliver(c, &fans, at).await?;
    Ok(Sealed { events: rows.len() as u64, lanes: lanes(&fans), orgs: orgs(&rows), is_busy: false })
}

/// Locked until their deliveries are there, so that whoever disables one finds all of them; not from those who write how long one has been failing.
async fn receivers(c: &mut PgConnection, orgs: &[&str]) -> Result<Vec<Receiver>, Failure> {
    let receivers = sqlx::query_as::<_, Receiver>(
        "SELECT id, org_id, events FROM webhook_endpoint
         WHERE disabled_at IS NULL AND org_id = ANY($1) ORDER BY id FOR KEY SHARE",
    )
    .bind(orgs)
    .fetch_all(c)
    .await?;
    Ok(receivers)
}

async fn callbacks(c: &mut PgConnection, calls: &[&str]) -> Result<Vec<CallbackOf>, Failure> {
    let callbacks = sqlx::query_as::<_, CallbackOf>(
        "SELECT id, request -> 'callback' AS callback FROM call
         WHERE id = ANY($1) AND jsonb_typeof(request -> 'callback') = 'object'",
    )
    .bind(calls)
    .fetch_all(c)
    .await?;
    Ok(callbacks)
}

async fn deliver(c: &mut PgConnection, fans: &[Fan], at: OffsetDateTime) -> Result<(), Failure> {
    if fans.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO webhook_delivery
             (event_id, target, org_id, endpoint_id, call_id, sequence, kind, lane, position, created_at, due_at)
         SELECT event_id, target, org_id, endpoint_id, call_id, sequence, kind, lane, position, $2, $2
         FROM jsonb_to_recordset($1) AS fan (event_id text, target text, org_id text, endpoint_id text,
             call_id text, sequence bigint, kind text, lane text, position bigint)",
    )
    .bind(Json(fans))
    .bind(Micros::from(at))
    .execute(c)
    .await?;
    Ok(())
}

async fn list(c: &mut PgConnection, org: &OrgId, after: i64, limit: u16) -> Result<EventPage, Failure> {
    let kinds: Vec<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let mut filling = Filling::after(after, limit);
    loop {
        let (wanted, after) = filling.wants();
        let rows = sqlx::query(select_events!(
            "WHERE org_id = $1 AND position > $2 AND kind = ANY($3) ORDER BY position LIMIT $4"
        ))
        .bind(org.as_str())
        .bind(after)
        .bind(&kinds)
        .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
        .fetch_all(&mut *c)
        .await?;
        let last = rows.last().map(|row| row.try_get("position")).transpose()?;
        if filling.takes(rows.len(), last, complete(c, &rows).await?) {
            return Ok(filling.page());
        }
    }
}

/// By the ids alone, and not by the index of the organisation's events, which a server that knows little of the table yet takes for small: nothing of it
/// is in these words.
async fn by_ids(c: &mut PgConnection, org: &OrgId, ids: &[EventId]) -> Result<Vec<Event>, Failure> {
    let rows =
        sqlx::query(select_events!("WHERE id = ANY($1) AND org_id || '' = $2 AND coalesce(position, 0) > 0"))
            .bind(ids.iter().map(EventId::as_str).collect::<Vec<_>>())
            .bind(org.as_str())
            .fetch_all(&mut *c)
            .await?;
    complete(c, &rows).await
}

/// Puts calls and logs to the events that can be read.
async fn complete(c: &mut PgConnection, rows: &[PgRow]) -> Result<Vec<Event>, Failure> {
    let rows: Vec<EventRow> = readable::rows(rows, "event", "id");
    let ids: Vec<&str> = rows.iter().filter_map(EventRow::call).collect();
    if ids.is_empty() {
        return Ok(assemble(rows, Vec::new(), &HashMap::new()));
    }
    let calls = reading::by_ids(c, &ids).await?;
    let log = sqlx::query(select_transitions!("WHERE call_id = ANY($1) ORDER BY call_id, sequence"))
        .bind(&ids)
        .fetch_all(c)
        .await?;
    Ok(assemble(rows, calls, &logs(&log)))
}

async fn purge(
    c: &mut PgConnection,
    before: OffsetDateTime,
    now: OffsetDateTime,
    limit: u16,
) -> Result<Purged, Failure> {
    let events = sqlx::query(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox o
             WHERE id < $1 AND position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM webhook_delivery d
                 WHERE d.event_id = o.id AND d.delivered_at IS NULL AND d.dead_at IS NULL)
             ORDER BY id LIMIT $2)",
    )
    .bind(EventId::earliest(before).as_str())
    .bind(i64::from(limit))
    .execute(&mut *c)
    .await?;
    let keys = sqlx::query(
        "DELETE FROM idempotency WHERE (org_id, key) IN
             (SELECT org_id, key FROM idempotency WHERE expires_at <= $1 LIMIT $2)",
    )
    .bind(Micros::from(now))
    .bind(i64::from(limit))
    .execute(c)
    .await?;
    Ok(Purged { events: events.rows_affected(), keys: keys.rows_affected() })
}
