//! What is to be delivered, and what came of it, on PostgreSQL.

use std::collections::HashMap;

use controlplane_core::{
    ids::{EndpointId, EventId, OrgId},
    webhook::{DISABLED_AFTER, DisabledReason, Next},
};
use serde_json::json;
use sqlx::{PgConnection, PgPool, types::time::OffsetDateTime};

use super::{audit, webhooks};
use crate::{
    calls::Actor,
    columns::{Micros, Word},
    error::Failure,
    rows::moment,
    webhook_rows::{
        CallbackRow, ClaimedRow, DeliveryRow, EndpointRow, TryRow, select_deliveries, select_endpoints,
        with_log,
    },
    webhooks::{
        Change, Claim, Claimed, Delivery, DeliveryPage, DeliveryState, Endpoint, LOGGED_MAX, Lane, Settle,
        Target, WebhookCounts,
    },
};

pub(super) async fn due_lanes(
    pool: &PgPool,
    now: OffsetDateTime,
    limit: u16,
) -> Result<Vec<Lane>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT lane FROM webhook_delivery
         WHERE delivered_at IS NULL AND dead_at IS NULL AND due_at <= $1
             AND (lease_until IS NULL OR lease_until <= $1)
         GROUP BY lane ORDER BY min(due_at) LIMIT $2",
    )
    .bind(Micros::from(now))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await
}

pub(super) async fn claim(c: &mut PgConnection, claim: &Claim) -> Result<Vec<Claimed>, Failure> {
    let mut rows = sqlx::query_as::<_, ClaimedRow>(
        "UPDATE webhook_delivery SET lease_owner = $1, lease_epoch = lease_epoch + 1, lease_until = $2
         WHERE (event_id, target) IN (
             SELECT d.event_id, d.target FROM webhook_delivery d
             WHERE d.lane = $3 AND d.delivered_at IS NULL AND d.dead_at IS NULL AND d.due_at <= $4
                 AND (d.lease_until IS NULL OR d.lease_until <= $4)
                 AND NOT EXISTS (SELECT 1 FROM webhook_delivery e
                     WHERE e.call_id = d.call_id AND e.target = d.target AND e.sequence < d.sequence
                         AND e.delivered_at IS NULL AND e.dead_at IS NULL)
             ORDER BY d.due_at, d.sequence LIMIT $5 FOR UPDATE SKIP LOCKED)
         RETURNING event_id, target, org_id, call_id, tries, lease_epoch, sequence, due_at",
    )
    .bind(&claim.owner)
    .bind(Micros::from(claim.until))
    .bind(&claim.lane)
    .bind(Micros::from(claim.now))
    .bind(i64::from(claim.limit))
    .fetch_all(&mut *c)
    .await?;
    rows.sort_by_key(ClaimedRow::turn);
    let mut endpoints = HashMap::new();
    let mut claimed = Vec::with_capacity(rows.len());
    for row in rows {
        match row.target().clone() {
            Target::Endpoint(id) => {
                if !endpoints.contains_key(&id) {
                    let endpoint = endpoint(c, &id).await?;
                    endpoints.insert(id.clone(), endpoint);
                }
                // It is there: a removed endpoint's deliveries are removed with it.
                if let Some(Some(endpoint)) = endpoints.get(&id) {
                    claimed.push(row.to(endpoint.url.clone(), endpoint.secrets.clone()));
                }
            }
            Target::Callback => {
                let secrets = webhooks::callback_secrets(c, row.org(), &claim.callback_secret).await?;
                let url = callback_url(c, &row.call_id).await?;
                claimed.push(row.to(url, secrets));
            }
        }
    }
    Ok(claimed)
}

async fn endpoint(c: &mut PgConnection, id: &EndpointId) -> Result<Option<Endpoint>, Failure> {
    let row = sqlx::query_as::<_, EndpointRow>(select_endpoints!("WHERE id = $1"))
        .bind(id.as_str())
        .fetch_optional(c)
        .await?;
    Ok(row.map(Endpoint::from))
}

async fn callback_url(c: &mut PgConnection, call: &str) -> Result<String, Failure> {
    let row =
        sqlx::query_as::<_, CallbackRow>("SELECT request -> 'callback' AS callback FROM call WHERE id = $1")
            .bind(call)
            .fetch_one(c)
            .await?;
    Ok(row.url())
}

pub(super) async fn settle(c: &mut PgConnection, settle: &Settle) -> Result<Option<DisabledReason>, Failure> {
    let (mut again, mut delivered, mut dead) = (None, None, None);
    match settle.next {
        Next::Delivered => delivered = Some(settle.at),
        Next::Again(at) => again = Some(at),
        Next::Dead | Next::Gone => dead = Some(settle.at),
    }
    let settled = sqlx::query_as::<_, (Word<OrgId>, String, i64)>(
        "UPDATE webhook_delivery SET tries = tries + 1, last_status = $1, last_error = $2,
             due_at = coalesce($3, due_at), delivered_at = $4, dead_at = $5, lease_owner = NULL, lease_until = NULL
         WHERE event_id = $6 AND target = $7 AND lease_epoch = $8 AND lease_owner IS NOT NULL
             AND delivered_at IS NULL AND dead_at IS NULL
         RETURNING org_id, call_id, sequence",
    )
    .bind(settle.status.map(i32::from))
    .bind(settle.error.as_deref())
    .bind(again.map(Micros::from))
    .bind(delivered.map(Micros::from))
    .bind(dead.map(Micros::from))
    .bind(settle.event.as_str())
    .bind(settle.target.as_str())
    .bind(settle.epoch)
    .fetch_optional(&mut *c)
    .await?;
    let Some((org, call, sequence)) = settled else { return Err(Failure::Fenced) };
    write_down(c, settle).await?;
    if let Some(again) = again {
        // What comes after it waits as long, so that nobody looks at it in vain.
        sqlx::query(
            "UPDATE webhook_delivery SET due_at = $1
             WHERE call_id = $2 AND target = $3 AND sequence > $4 AND delivered_at IS NULL AND dead_at IS NULL
                 AND due_at < $1",
        )
        .bind(Micros::from(again))
        .bind(&call)
        .bind(settle.target.as_str())
        .bind(sequence)
        .execute(&mut *c)
        .await?;
    } else {
        sqlx::query(
            "UPDATE webhook_delivery SET due_at = $1
             WHERE call_id = $2 AND target = $3 AND sequence > $4 AND delivered_at IS NULL AND dead_at IS NULL
                 AND due_at > $1 AND tries = 0",
        )
        .bind(Micros::from(settle.at))
        .bind(&call)
        .bind(settle.target.as_str())
        .bind(sequence)
        .execute(&mut *c)
        .await?;
    }
    match &settle.target {
        Target::Endpoint(id) => follow(c, id, &org.0, settle).await,
        Target::Callback => Ok(None),
    }
}

/// The delivery log.
async fn write_down(c: &mut PgConnection, settle: &Settle) -> Result<(), Failure> {
    let ordinal: i32 = sqlx::query_scalar(
        "INSERT INTO webhook_try (event_id, target, ordinal, at, took_ms, status, error)
         VALUES ($1, $2, (SELECT coalesce(max(ordinal), 0) + 1 FROM webhook_try
             WHERE event_id = $1 AND target = $2), $3, $4, $5, $6)
         RETURNING ordinal",
    )
    .bind(settle.event.as_str())
    .bind(settle.target.as_str())
    .bind(Micros::from(settle.at))
    .bind(settle.took_ms)
    .bind(settle.status.map(i32::from))
    .bind(settle.error.as_deref())
    .fetch_one(&mut *c)
    .await?;
    sqlx::query("DELETE FROM webhook_try WHERE event_id = $1 AND target = $2 AND ordinal <= $3")
        .bind(settle.event.as_str())
        .bind(settle.target.as_str())
        .bind(ordinal - i32::from(LOGGED_MAX))
        .execute(c)
        .await?;
    Ok(())
}

/// What follows for the endpoint.
async fn follow(
    c: &mut PgConnection,
    id: &EndpointId,
    org: &OrgId,
    settle: &Settle,
) -> Result<Option<DisabledReason>, Failure> {
    if settle.next == Next::Delivered {
        sqlx::query(
            "UPDATE webhook_endpoint SET failing_since = NULL WHERE id = $1 AND failing_since IS NOT NULL",
        )
        .bind(id.as_str())
        .execute(c)
        .await?;
        return Ok(None);
    }
    let since: Option<Micros> = sqlx::query_scalar(
        "UPDATE webhook_endpoint SET failing_since = coalesce(failing_since, $1)
         WHERE id = $2 AND disabled_at IS NULL RETURNING failing_since",
    )
    .bind(Micros::from(settle.at))
    .bind(id.as_str())
    .fetch_optional(&mut *c)
    .await?;
    let Some(since) = since else { return Ok(None) };
    let reason = if settle.next == Next::Gone {
        DisabledReason::Gone
    } else if settle.at - since.0 >= DISABLED_AFTER {
        DisabledReason::Failing
    } else {
        return Ok(None);
    };
    webhooks::disable(c, id, settle.at, reason).await?;
    let entry = audit::Entry {
        id: &settle.audit_id,
        org: Some(org),
        at: settle.at,
        actor: &Actor { key: None, request: None, ip: None },
        action: "webhook_endpoint.disable",
        target_type: "webhook",
        target_id: id.as_str(),
        changes: &json!({"reason": reason, "status": settle.status}),
    };
    audit::write(c, entry).await?;
    Ok(Some(reason))
}

pub(super) async fn list(
    c: &mut PgConnection,
    page: &DeliveryPage,
) -> Result<(Vec<Delivery>, bool), Failure> {
    let sql = select_deliveries!(
        "WHERE ($1::text IS NULL OR org_id = $1) AND ($2::text IS NULL OR target = $2) AND event_id < coalesce($3, '~')
             AND ($4::text IS NULL OR $4 = CASE WHEN delivered_at IS NOT NULL THEN 'delivered'
                 WHEN dead_at IS NOT NULL THEN 'dead' ELSE 'pending' END)
         ORDER BY event_id DESC, target LIMIT $5"
    );
    let mut rows = sqlx::query_as::<_, DeliveryRow>(sql)
        .bind(page.org.as_ref().map(OrgId::as_str))
        .bind(page.target.as_ref().map(Target::as_str))
        .bind(page.starting_after.as_ref().map(EventId::as_str))
        .bind(page.state.map(DeliveryState::as_str))
        .bind(i64::from(page.limit) + 1)
        .fetch_all(&mut *c)
        .await?;
    let has_more = rows.len() > usize::from(page.limit);
    rows.truncate(usize::from(page.limit));
    let events: Vec<&str> = rows.iter().map(DeliveryRow::event).collect();
    let tries = sqlx::query_as::<_, TryRow>(
        "SELECT event_id, target, at, took_ms, status, error FROM webhook_try
         WHERE event_id = ANY($1) ORDER BY event_id, target, ordinal",
    )
    .bind(&events)
    .fetch_all(c)
    .await?;
    Ok((with_log(rows, tries), has_more))
}

pub(super) async fn replay(
    c: &mut PgConnection,
    event: &EventId,
    target: &Target,
    org: Option<&OrgId>,
    change: &Change,
) -> Result<bool, Failure> {
    let replayed = sqlx::query_scalar::<_, Word<OrgId>>(
        "UPDATE webhook_delivery SET tries = 0, due_at = $1, delivered_at = NULL, dead_at = NULL,
             lease_owner = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1
         WHERE event_id = $2 AND target = $3 AND ($4::text IS NULL OR org_id = $4)
             AND (endpoint_id IS NULL OR EXISTS (SELECT 1 FROM webhook_endpoint e
                 WHERE e.id = endpoint_id AND e.disabled_at IS NULL))
         RETURNING org_id",
    )
    .bind(Micros::from(change.at))
    .bind(event.as_str())
    .bind(target.as_str())
    .bind(org.map(OrgId::as_str))
    .fetch_optional(&mut *c)
    .await?;
    let Some(owner) = replayed else { return Ok(false) };
    let entry = audit::Entry {
        id: &change.audit_id,
        org: Some(&owner.0),
        at: change.at,
        actor: &change.actor,
        action: "webhook_delivery.replay",
        target_type: "webhook",
        target_id: event.as_str(),
        changes: &json!({"target": target.as_str()}),
    };
    audit::write(c, entry).await?;
    Ok(true)
}

pub(super) async fn counts(pool: &PgPool) -> Result<WebhookCounts, sqlx::Error> {
    let (pending, oldest_due): (i64, Option<Micros>) = sqlx::query_as(
        "SELECT count(*), min(due_at) FROM webhook_delivery WHERE delivered_at IS NULL AND dead_at IS NULL",
    )
    .fetch_one(pool)
    .await?;
    let disabled = sqlx::query_scalar("SELECT count(*) FROM webhook_endpoint WHERE disabled_at IS NOT NULL")
        .fetch_one(pool)
        .await?;
    Ok(WebhookCounts { pending, oldest_due: moment(oldest_due), disabled })
}
