//! Events on SQLite: numbered by the one writer, so that they are read in the order in which they were numbered.

use std::collections::HashMap;

use async_trait::async_trait;
use controlplane_core::{
    ids::{EventId, OrgId},
    request::EventKind,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow, types::Json, types::time::OffsetDateTime};
use tokio::sync::watch;

use super::{SqliteStore, reading};
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
impl EventStore for SqliteStore {
    fn written(&self) -> watch::Receiver<u64> {
        self.writer.written()
    }

    async fn is_unsealed(&self) -> Result<bool, StoreError> {
        let operation = "look for events";
        let mut reader = self.quick.reader().await.map_err(|error| self.failed(operation, error))?;
        let waiting = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outbox WHERE position IS NULL)")
            .fetch_one(reader.connection())
            .await
            .map_err(|error| self.failed(operation, error))?;
        reader.done();
        Ok(waiting)
    }

    async fn seal_events(&self, at: OffsetDateTime, limit: u16) -> Result<Sealed, StoreError> {
        self.writer.write("number events", (at, limit), |c, (at, limit)| Box::pin(seal(c, *at, *limit))).await
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
        .fetch_optional(&self.readers)
        .await;
        position.map_err(|error| self.failed("find event", error))
    }

    async fn last_position(&self) -> Result<i64, StoreError> {
        let position =
            sqlx::query_scalar("SELECT position FROM event_seal WHERE id = 1").fetch_one(&self.readers).await;
        position.map_err(|error| self.failed("read the last position", error))
    }

    async fn purge(
        &self,
        before: OffsetDateTime,
        now: OffsetDateTime,
        limit: u16,
    ) -> Result<Purged, StoreError> {
        self.writer
            .write("purge events", (before, now, limit), |c, (before, now, limit)| {
                Box::pin(purge(c, *before, *now, *limit))
            })
            .await
    }
}

async fn seal(c: &mut SqliteConnection, at: OffsetDateTime, limit: u16) -> Result<Sealed, Failure> {
    // One numbering at a time, so that numbers are seen in the order in which they are given.
    let last: i64 =
        sqlx::query_scalar("SELECT position FROM event_seal WHERE id = 1").fetch_one(&mut *c).await?;
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
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    // One trip to SQLite's thread for both.
    sqlx::query(
        "UPDATE outbox SET position = $1 + n.key + 1 FROM json_each($2) AS n WHERE outbox.id = n.value;
         UPDATE event_seal SET position = $1 + $3 WHERE id = 1",
    )
    .bind(last)
    .bind(Json(&ids))
    .bind(count)
    .execute(&mut *c)
    .await?;
    let (orgs_of, calls) = owners(&rows);
    let fans = fan_out(&rows, last, &receivers(c, &orgs_of).await?, &callbacks(c, &calls).await?);
    deliver(c, &fans, at).await?;
    Ok(Sealed { events: rows.len() as u64, lanes: lanes(&fans), orgs: orgs(&rows), is_busy: false })
}

async fn receivers(c: &mut SqliteConnection, orgs: &[&str]) -> Result<Vec<Receiver>, Failure> {
    let receivers = sqlx::query_as::<_, Receiver>(
        "SELECT id, org_id, events FROM webhook_endpoint
         WHERE disabled_at IS NULL AND org_id IN (SELECT value FROM json_each($1)) ORDER BY id",
    )
    .bind(Json(orgs))
    .fetch_all(c)
    .await?;
    Ok(receivers)
}

async fn callbacks(c: &mut SqliteConnection, calls: &[&str]) -> Result<Vec<CallbackOf>, Failure> {
    let callbacks = sqlx::query_as::<_, CallbackOf>(
        "SELECT id, json_extract(request, '$.callback') AS callback FROM call
         WHERE id IN (SELECT value FROM json_each($1)) AND json_type(request, '$.callback') = 'object'",
    )
    .bind(Json(calls))
    .fetch_all(c)
    .await?;
    Ok(callbacks)
}

async fn deliver(c: &mut SqliteConnection, fans: &[Fan], at: OffsetDateTime) -> Result<(), Failure> {
    if fans.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO webhook_delivery
             (event_id, target, org_id, endpoint_id, call_id, sequence, kind, lane, position, created_at, due_at)
         SELECT value ->> 'event_id', value ->> 'target', value ->> 'org_id', value ->> 'endpoint_id',
             value ->> 'call_id', value ->> 'sequence', value ->> 'kind', value ->> 'lane',
             value ->> 'position', $2, $2
         FROM json_each($1)",
    )
    .bind(Json(fans))
    .bind(Micros::from(at))
    .execute(c)
    .await?;
    Ok(())
}

async fn list(c: &mut SqliteConnection, org: &OrgId, after: i64, limit: u16) -> Result<EventPage, Failure> {
    let mut filling = Filling::after(after, limit);
    loop {
        let (wanted, after) = filling.wants();
        let rows = sqlx::query(select_events!(
            "WHERE org_id = $1 AND position > $2 AND kind IN (SELECT value FROM json_each($3)) ORDER BY position LIMIT $4"
        ))
        .bind(org.as_str())
        .bind(after)
        .bind(Json(EventKind::ALL))
        .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
        .fetch_all(&mut *c)
        .await?;
        let last = rows.last().map(|row| row.try_get("position")).transpose()?;
        if filling.takes(rows.len(), last, complete(c, &rows).await?) {
            return Ok(filling.page());
        }
    }
}

async fn by_ids(c: &mut SqliteConnection, org: &OrgId, ids: &[EventId]) -> Result<Vec<Event>, Failure> {
    let ids: Vec<_> = ids.iter().map(EventId::as_str).collect();
    let rows = sqlx::query(select_events!(
        "WHERE id IN (SELECT value FROM json_each($1)) AND org_id = $2 AND position IS NOT NULL"
    ))
    .bind(Json(ids))
    .bind(org.as_str())
    .fetch_all(&mut *c)
    .await?;
    complete(c, &rows).await
}

/// Puts calls and logs to the events that can be read.
async fn complete(c: &mut SqliteConnection, rows: &[SqliteRow]) -> Result<Vec<Event>, Failure> {
    let rows: Vec<EventRow> = readable::rows(rows, "event", "id");
    let ids: Vec<&str> = rows.iter().filter_map(EventRow::call).collect();
    if ids.is_empty() {
        return Ok(assemble(rows, Vec::new(), &HashMap::new()));
    }
    let calls = reading::by_ids(c, &ids).await?;
    let log = sqlx::query(select_transitions!(
        "WHERE call_id IN (SELECT value FROM json_each($1)) ORDER BY call_id, sequence"
    ))
    .bind(Json(&ids))
    .fetch_all(c)
    .await?;
    Ok(assemble(rows, calls, &logs(&log)))
}

async fn purge(
    c: &mut SqliteConnection,
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
