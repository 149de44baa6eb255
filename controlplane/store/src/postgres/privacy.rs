//! Retention of what is of people, on PostgreSQL.

use async_trait::async_trait;
use controlplane_core::ids::{CallId, EventId, OrgId};
use sqlx::{PgConnection, types::time::OffsetDateTime};

use super::PostgresStore;
use crate::{
    PrivacyStore, StoreError,
    columns::{Micros, Word},
    error::Failure,
    privacy::{ERASED_NUMBER, ERASED_TEXT, ForgetNumber, NumberForgotten, Part},
};

#[async_trait]
impl PrivacyStore for PostgresStore {
    async fn erase_calls(
        &self,
        org: &OrgId,
        ended_by: OffsetDateTime,
        limit: u16,
    ) -> Result<u64, StoreError> {
        let input = (org.clone(), ended_by, limit);
        self.transaction("erase calls", input, |c, (org, by, limit)| Box::pin(erase(c, org, *by, *limit)))
            .await
    }

    async fn strip_calls(
        &self,
        org: &OrgId,
        part: Part,
        ended_by: OffsetDateTime,
        at: OffsetDateTime,
        limit: u16,
    ) -> Result<u64, StoreError> {
        let input = (org.clone(), part, ended_by, at, limit);
        self.transaction("take parts out of calls", input, |c, (org, part, by, at, limit)| {
            Box::pin(strip(c, org, *part, *by, *at, *limit))
        })
        .await
    }

    async fn erase_events(&self, org: &OrgId, before: OffsetDateTime, limit: u16) -> Result<u64, StoreError> {
        let input = (org.clone(), before, limit);
        self.transaction("erase events", input, |c, (org, before, limit)| {
            Box::pin(erase_events(c, org, *before, *limit))
        })
        .await
    }

    async fn retire_recordings(
        &self,
        org: &OrgId,
        made_by: OffsetDateTime,
        at: OffsetDateTime,
        limit: u16,
    ) -> Result<u64, StoreError> {
        let input = (org.clone(), made_by, at, limit);
        self.transaction("delete old recordings", input, |c, (org, by, at, limit)| {
            Box::pin(retire(c, org, *by, *at, *limit))
        })
        .await
    }

    async fn forget_number(&self, forget: ForgetNumber) -> Result<NumberForgotten, StoreError> {
        self.transaction("forget a number", forget, |c, forget| Box::pin(forget_part(c, forget))).await
    }
}

async fn erase(c: &mut PgConnection, org: &OrgId, by: OffsetDateTime, limit: u16) -> Result<u64, Failure> {
    let erased = sqlx::query(
        "DELETE FROM call WHERE id IN
             (SELECT id FROM call WHERE org_id = $1 AND ended_at IS NOT NULL AND ended_at <= $2
              ORDER BY ended_at LIMIT $3)",
    )
    .bind(org.as_str())
    .bind(Micros::from(by))
    .bind(i64::from(limit))
    .execute(c)
    .await?;
    Ok(erased.rows_affected())
}

async fn erase_events(
    c: &mut PgConnection,
    org: &OrgId,
    before: OffsetDateTime,
    limit: u16,
) -> Result<u64, Failure> {
    let erased = sqlx::query(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox o
             WHERE org_id = $1 AND id < $2 AND position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM webhook_delivery d
                 WHERE d.event_id = o.id AND d.delivered_at IS NULL AND d.dead_at IS NULL)
             ORDER BY position LIMIT $3)",
    )
    .bind(org.as_str())
    .bind(EventId::earliest(before).as_str())
    .bind(i64::from(limit))
    .execute(c)
    .await?;
    Ok(erased.rows_affected())
}

async fn strip(
    c: &mut PgConnection,
    org: &OrgId,
    part: Part,
    by: OffsetDateTime,
    at: OffsetDateTime,
    limit: u16,
) -> Result<u64, Failure> {
    let sql = match part {
        Part::Number => {
            "SELECT id FROM call
             WHERE org_id = $1 AND ended_at IS NOT NULL AND ended_at <= $2 AND number_erased_at IS NULL
             ORDER BY ended_at LIMIT $3"
        }
        Part::Text => {
            "SELECT id FROM call
             WHERE org_id = $1 AND ended_at IS NOT NULL AND ended_at <= $2 AND text_erased_at IS NULL
             ORDER BY ended_at LIMIT $3"
        }
    };
    let calls: Vec<String> = sqlx::query_scalar(sql)
        .bind(org.as_str())
        .bind(Micros::from(by))
        .bind(i64::from(limit))
        .fetch_all(&mut *c)
        .await?;
    take_out(c, part, &calls, at).await?;
    Ok(calls.len() as u64)
}

async fn take_out(
    c: &mut PgConnection,
    part: Part,
    calls: &[String],
    at: OffsetDateTime,
) -> Result<(), Failure> {
    let (sql, by) = match part {
        Part::Number => (
            "UPDATE call SET number_erased_at = $1, request = jsonb_set(request, '{to}', to_jsonb($2::text))
             WHERE id = ANY($3)",
            ERASED_NUMBER,
        ),
        Part::Text => (
            "UPDATE call SET text_erased_at = $1,
                 request = jsonb_set(request, '{message,text}', to_jsonb($2::text), false) - 'metadata'
             WHERE id = ANY($3)",
            ERASED_TEXT,
        ),
    };
    sqlx::query(sql).bind(Micros::from(at)).bind(by).bind(calls).execute(&mut *c).await?;
    // What a customer's own systems said may hold anything.
    sqlx::query("UPDATE trace SET state = NULL WHERE call_id = ANY($1)").bind(calls).execute(&mut *c).await?;
    if part == Part::Number {
        sqlx::query("DELETE FROM dialled WHERE call_id = ANY($1)").bind(calls).execute(c).await?;
    }
    Ok(())
}

async fn retire(
    c: &mut PgConnection,
    org: &OrgId,
    by: OffsetDateTime,
    at: OffsetDateTime,
    limit: u16,
) -> Result<u64, Failure> {
    let retired = sqlx::query(
        "UPDATE recording SET deleted_at = $1 WHERE id IN
             (SELECT id FROM recording WHERE org_id = $4 AND deleted_at IS NULL AND created_at <= $2 LIMIT $3)",
    )
    .bind(Micros::from(at))
    .bind(Micros::from(by))
    .bind(i64::from(limit))
    .bind(org.as_str())
    .execute(c)
    .await?;
    Ok(retired.rows_affected())
}

async fn forget_part(c: &mut PgConnection, forget: &ForgetNumber) -> Result<NumberForgotten, Failure> {
    let looked_at: Vec<(Word<CallId>, bool, bool)> = sqlx::query_as(
        "SELECT id, request ->> 'to' = $1 AND ($2 IS NULL OR org_id = $2), ended_at IS NOT NULL
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
    if forget.after.is_none() {
        forget_incidents(c, forget).await?;
    }
    let is_all = looked_at.len() < usize::from(forget.limit);
    Ok(NumberForgotten {
        calls: calls.len() as u64,
        open: of_number(false).count() as u64,
        next: looked_at.last().map(|(id, ..)| id.0.clone()).filter(|_| !is_all),
    })
}

/// Erases incidents that are over and have phoned a number, or would have: of what is left of one nobody could make sense.
async fn forget_incidents(c: &mut PgConnection, forget: &ForgetNumber) -> Result<(), Failure> {
    // As JSON has it: another number that begins so is another text.
    sqlx::query(
        "DELETE FROM incident WHERE resolved_at IS NOT NULL AND phase = 'idle' AND (CAST($2 AS text) IS NULL OR org_id = $2)
             AND (strpos(steps::text, $1) > 0 OR strpos(plan::text, $1) > 0)",
    )
    .bind(format!("\"{}\"", forget.number.as_str()))
    .bind(forget.org.as_ref().map(OrgId::as_str))
    .execute(c)
    .await?;
    Ok(())
}
