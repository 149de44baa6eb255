//! Deliveries as they are listed on SQLite: pages in the order of their events' numbers, the last one first, so that
//! what comes while somebody reads stands before what he has read.

use controlplane_core::ids::{EventId, OrgId};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow, types::Json};

use super::deliveries::endpoint;
use crate::{
    error::Failure,
    readable,
    webhook_rows::{DeliveryRow, RECEIVERS_MAX, TryRow, page_end, select_deliveries, whole, with_log},
    webhooks::{Delivery, DeliveryPage, DeliveryState, Target},
};

pub(super) async fn list(
    c: &mut SqliteConnection,
    page: &DeliveryPage,
) -> Result<(Vec<Delivery>, bool), Failure> {
    let mut below = match &page.starting_after {
        Some(event) => before(c, event).await?,
        None => i64::MAX,
    };
    let owner = owner(c, page).await?;
    let limit = usize::from(page.limit);
    let wanted = limit + 1 + RECEIVERS_MAX;
    let mut kept = Vec::new();
    let is_end = loop {
        let rows = rows(c, page, owner.as_deref(), below, wanted).await?;
        let is_end = rows.len() < wanted;
        let positions = rows.iter().map(|row| row.try_get("position")).collect::<Result<Vec<i64>, _>>()?;
        let (whole, next) = whole(&positions, is_end);
        kept.extend(readable::rows::<DeliveryRow, _>(&rows[..whole], "delivery", "event_id"));
        below = next;
        if is_end || kept.len() > limit {
            break is_end;
        }
    };
    let end = page_end(&kept, limit);
    let has_more = end < kept.len() || !is_end;
    kept.truncate(end);
    let events: Vec<&str> = kept.iter().map(DeliveryRow::event).collect();
    let tries = sqlx::query_as::<_, TryRow>(
        "SELECT event_id, target, at, took_ms, status, error FROM webhook_try
         WHERE event_id IN (SELECT value FROM json_each($1)) ORDER BY event_id, target, ordinal",
    )
    .bind(Json(&events))
    .fetch_all(c)
    .await?;
    Ok((with_log(kept, tries), has_more))
}

/// Deliveries of events that were numbered before `below`, newest first.
async fn rows(
    c: &mut SqliteConnection,
    page: &DeliveryPage,
    owner: Option<&str>,
    below: i64,
    limit: usize,
) -> Result<Vec<SqliteRow>, Failure> {
    let sql = if owner.is_some() {
        select_deliveries!(
            "WHERE org_id = $1 AND target = $2 AND position < $3
                 AND ($4 IS NULL OR $4 = CASE WHEN delivered_at IS NOT NULL THEN 'delivered'
                     WHEN dead_at IS NOT NULL THEN 'dead' ELSE 'pending' END)
             ORDER BY position DESC LIMIT $5"
        )
    } else {
        select_deliveries!(
            "WHERE ($1 IS NULL OR org_id = $1) AND ($2 IS NULL OR target = $2) AND position < $3
                 AND ($4 IS NULL OR $4 = CASE WHEN delivered_at IS NOT NULL THEN 'delivered'
                     WHEN dead_at IS NOT NULL THEN 'dead' ELSE 'pending' END)
             ORDER BY position DESC, target DESC LIMIT $5"
        )
    };
    let rows = sqlx::query(sql)
        .bind(owner.or(page.org.as_ref().map(OrgId::as_str)))
        .bind(page.target.as_ref().map(Target::as_str))
        .bind(below)
        .bind(page.state.map(DeliveryState::as_str))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(c)
        .await?;
    Ok(rows)
}

/// Whose the one receiver is whose deliveries are listed: an operator names it without.
async fn owner(c: &mut SqliteConnection, page: &DeliveryPage) -> Result<Option<String>, Failure> {
    match (&page.org, &page.target) {
        (Some(org), Some(_)) => Ok(Some(org.to_string())),
        (None, Some(Target::Endpoint(id))) => {
            Ok(endpoint(c, id).await?.map(|endpoint| endpoint.org.to_string()))
        }
        (None, Some(Target::Callback)) | (_, None) => Ok(None),
    }
}

/// The number that a list goes on below. An event that is erased had one after all those that were before it.
async fn before(c: &mut SqliteConnection, event: &EventId) -> Result<i64, Failure> {
    let position = sqlx::query_scalar(
        "SELECT coalesce((SELECT position FROM outbox WHERE id = $1),
             (SELECT position + 1 FROM outbox WHERE id < $1 AND position IS NOT NULL ORDER BY id DESC LIMIT 1), 0)",
    )
    .bind(event.as_str())
    .fetch_one(c)
    .await?;
    Ok(position)
}
