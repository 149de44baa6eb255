//! Calls as they are read on SQLite: one, a page, the open ones, always with their attempts.

use controlplane_core::{
    call::CallStatus,
    ids::{CallId, OrgId},
};
use sqlx::{SqliteConnection, types::Json};

use crate::{
    calls::{Call, CallPage, Page},
    error::Failure,
    rows::{AttemptRow, CallRow, assemble, select_attempts, select_calls},
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
    Ok(with_attempts(c, rows).await?.pop())
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
    let mut rows = sqlx::query_as::<_, CallRow>(sql)
        .bind(org.as_str())
        .bind(page.starting_after.as_ref().map(CallId::as_str))
        .bind(page.ending_before.as_ref().map(CallId::as_str))
        .bind(page.status.map(CallStatus::as_str))
        .bind(i64::from(page.limit) + 1)
        .fetch_all(&mut *c)
        .await?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    if backwards {
        rows.reverse();
    }
    Ok(CallPage { calls: with_attempts(c, rows).await?, has_more })
}

pub(super) async fn open(
    c: &mut SqliteConnection,
    after: Option<&CallId>,
    limit: u16,
) -> Result<Vec<Call>, Failure> {
    let rows = sqlx::query_as::<_, CallRow>(select_calls!(
        "WHERE ended_at IS NULL AND id > coalesce($1, '') ORDER BY id LIMIT $2"
    ))
    .bind(after.map(CallId::as_str))
    .bind(i64::from(limit))
    .fetch_all(&mut *c)
    .await?;
    with_attempts(c, rows).await
}

async fn with_attempts(c: &mut SqliteConnection, calls: Vec<CallRow>) -> Result<Vec<Call>, Failure> {
    if calls.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = calls.iter().map(CallRow::id).collect();
    let attempts = sqlx::query_as::<_, AttemptRow>(select_attempts!(
        "WHERE call_id IN (SELECT value FROM json_each($1)) ORDER BY call_id, ordinal"
    ))
    .bind(Json(&ids))
    .fetch_all(c)
    .await?;
    Ok(assemble(calls, attempts))
}
