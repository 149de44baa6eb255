//! Retention of what is of people, on SQLite.

use async_trait::async_trait;
use controlplane_core::ids::{CallId, OrgId};
use sqlx::{SqliteConnection, types::Json, types::time::OffsetDateTime};

use super::SqliteStore;
use crate::{
    PrivacyStore, StoreError,
    columns::{Micros, Word},
    error::Failure,
    privacy::{ERASED_NUMBER, ERASED_TEXT, ForgetNumber, NumberForgotten, Part},
};

#[async_trait]
impl PrivacyStore for SqliteStore {
    async fn erase_calls(&self, ended_by: OffsetDateTime, limit: u16) -> Result<u64, StoreError> {
        self.writer
            .write("erase calls", (ended_by, limit), |c, (by, limit)| Box::pin(erase(c, *by, *limit)))
            .await
    }

    async fn strip_calls(
        &self,
        part: Part,
        ended_by: OffsetDateTime,
        at: OffsetDateTime,
        limit: u16,
    ) -> Result<u64, StoreError> {
        let input = (part, ended_by, at, limit);
        self.writer
            .write("take parts out of calls", input, |c, (part, by, at, limit)| {
                Box::pin(strip(c, *part, *by, *at, *limit))
            })
            .await
    }

    async fn retire_recordings(
        &self,
        made_by: OffsetDateTime,
        at: OffsetDateTime,
        limit: u16,
    ) -> Result<u64, StoreError> {
        self.writer
            .write("delete old recordings", (made_by, at, limit), |c, (by, at, limit)| {
                Box::pin(retire(c, *by, *at, *limit))
            })
            .await
    }

    async fn forget_number(&self, forget: ForgetNumber) -> Result<NumberForgotten, StoreError> {
        self.writer.write("forget a number", forget, |c, forget| Box::pin(forget_part(c, forget))).await
    }
}

async fn erase(c: &mut SqliteConnection, by: OffsetDateTime, limit: u16) -> Result<u64, Failure> {
    let erased = sqlx::query(
        "DELETE FROM call WHERE id IN
             (SELECT id FROM call WHERE ended_at IS NOT NULL AND ended_at <= $1 ORDER BY ended_at LIMIT $2)",
    )
    .bind(Micros::from(by))
    .bind(i64::from(limit))
    .execute(c)
    .await?;
    Ok(erased.rows_affected())
}

async fn strip(
    c: &mut SqliteConnection,
    part: Part,
    by: OffsetDateTime,
    at: OffsetDateTime,
    limit: u16,
) -> Result<u64, Failure> {
    let sql = match part {
        Part::Number => {
            "SELECT id FROM call WHERE ended_at IS NOT NULL AND ended_at <= $1 AND number_erased_at IS NULL
             ORDER BY ended_at LIMIT $2"
        }
        Part::Text => {
            "SELECT id FROM call WHERE ended_at IS NOT NULL AND ended_at <= $1 AND text_erased_at IS NULL
             ORDER BY ended_at LIMIT $2"
        }
    };
    let calls: Vec<String> =
        sqlx::query_scalar(sql).bind(Micros::from(by)).bind(i64::from(limit)).fetch_all(&mut *c).await?;
    take_out(c, part, &calls, at).await?;
    Ok(calls.len() as u64)
}

async fn take_out(
    c: &mut SqliteConnection,
    part: Part,
    calls: &[String],
    at: OffsetDateTime,
) -> Result<(), Failure> {
    let (sql, by) = match part {
        Part::Number => (
            "UPDATE call SET number_erased_at = $1, request = json_set(request, '$.to', $2)
             WHERE id IN (SELECT value FROM json_each($3))",
            ERASED_NUMBER,
        ),
        Part::Text => (
            "UPDATE call SET text_erased_at = $1,
                 request = json_remove(json_replace(request, '$.message.text', $2), '$.metadata')
             WHERE id IN (SELECT value FROM json_each($3))",
            ERASED_TEXT,
        ),
    };
    sqlx::query(sql).bind(Micros::from(at)).bind(by).bind(Json(calls)).execute(&mut *c).await?;
    if part == Part::Number {
        sqlx::query("DELETE FROM dialled WHERE call_id IN (SELECT value FROM json_each($1))")
            .bind(Json(calls))
            .execute(c)
            .await?;
    }
    Ok(())
}

async fn retire(
    c: &mut SqliteConnection,
    by: OffsetDateTime,
    at: OffsetDateTime,
    limit: u16,
) -> Result<u64, Failure> {
    let retired = sqlx::query(
        "UPDATE recording SET deleted_at = $1 WHERE id IN
             (SELECT id FROM recording WHERE deleted_at IS NULL AND created_at <= $2 LIMIT $3)",
    )
    .bind(Micros::from(at))
    .bind(Micros::from(by))
    .bind(i64::from(limit))
    .execute(c)
    .await?;
    Ok(retired.rows_affected())
}

async fn forget_part(c: &mut SqliteConnection, forget: &ForgetNumber) -> Result<NumberForgotten, Failure> {
    let looked_at: Vec<(Word<CallId>, bool, bool)> = sqlx::query_as(
        "SELECT id, json_extract(request, '$.to') = $1 AND ($2 IS NULL OR org_id = $2), ended_at IS NOT NULL
         FROM call WHERE id > $3 ORDER BY id LIMIT $4",
    )
    .bind(forget.number.as_str())
    .bind(forget.org.as_ref().map(OrgId::as_str))
    .bind(forget.after.as_ref().map_or("", CallId::as_str))
    .bind(i64::from(forget.limit))
    .fetch_all(&mut *c)
    .await?;
    let of_number = |ended: bool| {
        looked_at.iter().filter(move |(_, is_it, has_ended)| *is_it && *has_ended == ended).map(|(id, ..)| id)
    };
    let calls: Vec<String> = of_number(true).map(|id| id.0.to_string()).collect();
    if !calls.is_empty() {
        take_out(c, Part::Number, &calls, forget.at).await?;
        take_out(c, Part::Text, &calls, forget.at).await?;
    }
    let is_all = looked_at.len() < usize::from(forget.limit);
    Ok(NumberForgotten {
        calls: calls.len() as u64,
        open: of_number(false).count() as u64,
        next: looked_at.last().map(|(id, ..)| id.0.clone()).filter(|_| !is_all),
    })
}
