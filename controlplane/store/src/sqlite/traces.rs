//! Traces of calls on SQLite.

use async_trait::async_trait;
use controlplane_core::{
    ids::CallId,
    trace::{Place, TraceState},
};
use sqlx::{SqliteConnection, types::Json, types::time::OffsetDateTime};

use super::{SqliteStore, reading};
use crate::{
    StoreError, TraceStore,
    columns::{Micros, Word},
    error::Failure,
    traces::{TraceRow, Traced, traced},
};

#[async_trait]
impl TraceStore for SqliteStore {
    async fn trace(&self, call: &CallId) -> Result<Option<Place>, StoreError> {
        let operation = "read a call's trace";
        let row = sqlx::query_as::<_, TraceRow>(
            "SELECT call_id, trace_id, parent_id, state FROM trace WHERE call_id = $1",
        )
        .bind(call.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(|error| self.failed(operation, error))?;
        row.map(TraceRow::place).transpose().map_err(|failure| self.failed(operation, failure))
    }

    async fn unsent_traces(&self, calls: &[CallId]) -> Result<Vec<Traced>, StoreError> {
        let operation = "read traces";
        let mut moment = self.reading(operation).await?;
        unsent(&mut moment, calls).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn overdue_traces(&self, ended_by: OffsetDateTime, limit: u16) -> Result<Vec<CallId>, StoreError> {
        let ids = sqlx::query_scalar::<_, Word<CallId>>(
            "SELECT trace.call_id FROM trace JOIN call ON call.id = trace.call_id
             WHERE trace.sent_at IS NULL AND call.ended_at <= $1 ORDER BY trace.call_id LIMIT $2",
        )
        .bind(Micros::from(ended_by))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(|error| self.failed("look for traces", error))?;
        Ok(ids.into_iter().map(|id| id.0).collect())
    }

    async fn traces_sent(&self, calls: Vec<CallId>, at: OffsetDateTime) -> Result<(), StoreError> {
        self.writer.write("mark traces", (calls, at), |c, (calls, at)| Box::pin(mark(c, calls, *at))).await
    }

    async fn give_up_traces(&self, ended_by: OffsetDateTime, at: OffsetDateTime) -> Result<u64, StoreError> {
        self.writer
            .write("give up traces", (ended_by, at), |c, (by, at)| Box::pin(give_up(c, *by, *at)))
            .await
    }
}

/// Writes the places of accepted calls that are followed.
pub(super) async fn begin(
    c: &mut SqliteConnection,
    places: impl Iterator<Item = (&CallId, &Place)>,
) -> Result<(), Failure> {
    for (call, place) in places {
        sqlx::query("INSERT INTO trace (call_id, trace_id, parent_id, state) VALUES ($1, $2, $3, $4)")
            .bind(call.as_str())
            .bind(place.trace.bytes().to_vec())
            .bind(place.parent.map(|span| span.bytes().to_vec()))
            .bind(place.state.as_ref().map(TraceState::as_str))
            .execute(&mut *c)
            .await?;
    }
    Ok(())
}

async fn unsent(c: &mut SqliteConnection, calls: &[CallId]) -> Result<Vec<Traced>, Failure> {
    let ids: Vec<&str> = calls.iter().map(CallId::as_str).collect();
    let rows = sqlx::query_as::<_, TraceRow>(
        "SELECT call_id, trace_id, parent_id, state FROM trace JOIN call ON call.id = trace.call_id
         WHERE call_id IN (SELECT value FROM json_each($1)) AND sent_at IS NULL AND call.ended_at IS NOT NULL
         ORDER BY call_id",
    )
    .bind(Json(ids))
    .fetch_all(&mut *c)
    .await?;
    let ids: Vec<&str> = rows.iter().map(TraceRow::call).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let calls = reading::by_ids(c, &ids).await?;
    Ok(traced(rows, calls))
}

async fn mark(c: &mut SqliteConnection, calls: &[CallId], at: OffsetDateTime) -> Result<(), Failure> {
    let ids: Vec<&str> = calls.iter().map(CallId::as_str).collect();
    sqlx::query(
        "UPDATE trace SET sent_at = $1 WHERE call_id IN (SELECT value FROM json_each($2)) AND sent_at IS NULL",
    )
    .bind(Micros::from(at))
    .bind(Json(ids))
    .execute(c)
    .await?;
    Ok(())
}

async fn give_up(c: &mut SqliteConnection, by: OffsetDateTime, at: OffsetDateTime) -> Result<u64, Failure> {
    let given_up = sqlx::query(
        "UPDATE trace SET sent_at = $1 WHERE sent_at IS NULL
             AND EXISTS (SELECT 1 FROM call WHERE call.id = trace.call_id AND call.ended_at <= $2)",
    )
    .bind(Micros::from(at))
    .bind(Micros::from(by))
    .execute(c)
    .await?;
    Ok(given_up.rows_affected())
}
