//! Calls as they are read on SQLite: one, a page, the open ones, always with their attempts.
//!
//! One that cannot be read is an error when it is asked for, and passed over in a list, which is filled with
//! what comes after it.

use controlplane_core::{
    call::CallStatus,
    ids::{AttemptId, CallId, OrgId},
    names::NodeName,
};
use sqlx::{FromRow, SqliteConnection, SqlitePool, sqlite::SqliteRow, types::Json};

use crate::{
    calls::{AttemptEnd, Call, CallPage, Page},
    columns::{Micros, Word},
    error::Failure,
    readable,
    rows::{AttemptRow, CallRow, assemble, moment, select_attempts, select_calls},
};

pub(super) async fn find(
    c: &mut SqliteConnection,
    org: &OrgId,
    id: &CallId,
) -> Result<Option<Call>, Failure> {
    let rows = sqlx::query_as::<_, CallRow>(select_calls!("WHERE id = $1 AND org_id = $2"))
        .bind(id.as_str())
        .bind(org.as_str())
        .fetch_all(&mut *c)
        .await?;
    let attempts = attempts(c, &rows).await?;
    let attempts = attempts.iter().map(AttemptRow::from_row).collect::<Result<_, _>>()?;
    Ok(assemble(rows, attempts).pop())
}

pub(super) async fn list(c: &mut SqliteConnection, org: &OrgId, page: &Page) -> Result<CallPage, Failure> {
    let backwards = page.ending_before.is_some() && page.starting_after.is_none();
    // Ids sort by time. '~' is above every id, '' below.
    let sql = if backwards {
        select_calls!(
            "WHERE org_id = $1 AND id < coalesce($2, '~') AND id > coalesce($3, '')
         AND ($4 IS NULL OR status = $4) ORDER BY id ASC LIMIT $5"
        )
    } else {
        select_calls!(
            "WHERE org_id = $1 AND id < coalesce($2, '~') AND id > coalesce($3, '')
         AND ($4 IS NULL OR status = $4) ORDER BY id DESC LIMIT $5"
        )
    };
    let limit = usize::from(page.limit);
    let mut below = page.starting_after.as_ref().map(|id| id.as_str().to_owned());
    let mut above = page.ending_before.as_ref().map(|id| id.as_str().to_owned());
    let mut calls = Vec::new();
    loop {
        // One more than asked for tells whether there is more.
        let wanted = limit + 1 - calls.len();
        let rows = sqlx::query(sql)
            .bind(org.as_str())
            .bind(below.as_deref())
            .bind(above.as_deref())
            .bind(page.status.map(CallStatus::as_str))
            .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
            .fetch_all(&mut *c)
            .await?;
        calls.extend(with_attempts(c, &rows).await?);
        let last = rows.last().filter(|_| rows.len() == wanted && calls.len() <= limit);
        let Some(last) = last else { break };
        let last = Some(readable::text(last, "id")?);
        if backwards {
            above = last;
        } else {
            below = last;
        }
    }
    let has_more = calls.len() > limit;
    calls.truncate(limit);
    if backwards {
        calls.reverse();
    }
    Ok(CallPage { calls, has_more })
}

pub(super) async fn open(
    c: &mut SqliteConnection,
    after: Option<&CallId>,
    limit: u16,
) -> Result<Vec<Call>, Failure> {
    let limit = usize::from(limit);
    let mut after = after.map(|id| id.as_str().to_owned());
    let mut calls = Vec::new();
    loop {
        let wanted = limit - calls.len();
        let rows = sqlx::query(select_calls!(
            "WHERE ended_at IS NULL AND id > coalesce($1, '') ORDER BY id LIMIT $2"
        ))
        .bind(after.as_deref())
        .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
        .fetch_all(&mut *c)
        .await?;
        calls.extend(with_attempts(c, &rows).await?);
        let last = rows.last().filter(|_| rows.len() == wanted && calls.len() < limit);
        let Some(last) = last else { return Ok(calls) };
        after = Some(readable::text(last, "id")?);
    }
}

pub(super) async fn by_ids(c: &mut SqliteConnection, ids: &[&str]) -> Result<Vec<Call>, Failure> {
    let rows = sqlx::query(select_calls!("WHERE id IN (SELECT value FROM json_each($1))"))
        .bind(Json(ids))
        .fetch_all(&mut *c)
        .await?;
    with_attempts(c, &rows).await
}

async fn with_attempts(c: &mut SqliteConnection, rows: &[SqliteRow]) -> Result<Vec<Call>, Failure> {
    let calls = readable::calls(rows);
    let attempts = attempts(c, &calls).await?;
    Ok(readable::with_attempts(calls, &attempts))
}

/// The attempts of these calls, in the order of their sending.
async fn attempts(c: &mut SqliteConnection, calls: &[CallRow]) -> Result<Vec<SqliteRow>, Failure> {
    if calls.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = calls.iter().map(CallRow::id).collect();
    let attempts = sqlx::query(select_attempts!(
        "WHERE call_id IN (SELECT value FROM json_each($1)) ORDER BY call_id, ordinal"
    ))
    .bind(Json(&ids))
    .fetch_all(c)
    .await?;
    Ok(attempts)
}

pub(super) async fn ends(
    pool: &SqlitePool,
    node: &NodeName,
    attempts: &[AttemptId],
) -> Result<Vec<AttemptEnd>, sqlx::Error> {
    let ids: Vec<&str> = attempts.iter().map(AttemptId::as_str).collect();
    let rows = sqlx::query_as::<_, (Word<AttemptId>, Option<Micros>, bool)>(
        "SELECT id, ended_at, is_untold FROM attempt
         WHERE node = $1 AND id IN (SELECT value FROM json_each($2)) ORDER BY id",
    )
    .bind(node.as_str())
    .bind(Json(ids))
    .fetch_all(pool)
    .await?;
    let end = |(id, at, is_untold): (Word<AttemptId>, _, _)| AttemptEnd {
        attempt: id.0,
        ended_at: moment(at),
        is_untold,
    };
    Ok(rows.into_iter().map(end).collect())
}
