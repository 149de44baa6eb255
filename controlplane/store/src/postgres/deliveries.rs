//! What is to be delivered, and what came of it, on PostgreSQL.

use std::collections::HashMap;

use controlplane_core::{
    ids::{EndpointId, EventId, OrgId},
    request::EventKind,
    webhook::{DisabledReason, Failing, Next},
};
use serde_json::json;
use sqlx::{PgConnection, PgPool, types::Json, types::time::OffsetDateTime};

use super::{audit, webhooks};
use crate::{
    calls::Actor,
    columns::{Micros, Word, kept},
    error::Failure,
    rows::moment,
    webhook_rows::{
        CallbackRow, ClaimedRow, EndpointRow, FailingRow, disabled, from_lanes, select_endpoints,
    },
    webhooks::{
        Change, Claim, Claimed, Endpoint, LANES_SEEN_MAX, LOGGED_MAX, Lane, PENDING_COUNTED_MAX, Settle,
        Target, WebhookCounts,
    },
};

pub(super) async fn due_lanes(
    pool: &PgPool,
    now: OffsetDateTime,
    each: u16,
    limit: u16,
) -> Result<Vec<Lane>, sqlx::Error> {
    let rows = sqlx::query_as::<_, (Word<OrgId>, String)>(from_lanes!(
        "SELECT org_id, lane FROM (
             SELECT org_id, lane, due_at, row_number() OVER (PARTITION BY org_id ORDER BY due_at, lane) AS place
             FROM (SELECT l.org_id, l.lane,
                       (SELECT d.due_at FROM webhook_delivery d
                        WHERE d.org_id = l.org_id AND d.lane = l.lane AND d.delivered_at IS NULL
                            AND d.dead_at IS NULL AND d.due_at <= $2
                            AND (d.lease_until IS NULL OR d.lease_until <= $2)
                        ORDER BY d.due_at LIMIT 1) AS due_at
                   FROM lanes l WHERE l.lane IS NOT NULL) AS heads
             WHERE due_at IS NOT NULL) AS ranked
         WHERE place <= $3 ORDER BY place, due_at LIMIT $4"
    ))
    .bind(i64::from(LANES_SEEN_MAX))
    .bind(Micros::from(now))
    .bind(i64::from(each))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(org, name)| Lane { org: org.0, name }).collect())
}

/// In the index's own order, so that no more is read than is claimed, and the first of its call is looked up row by row: a server that knows little
/// of the table yet (it has not been analysed since it was small) reads all that is pending for a sort, or for a join.
pub(super) async fn claim(c: &mut PgConnection, claim: &Claim) -> Result<Vec<Claimed>, Failure> {
    let mut rows = sqlx::query_as::<_, ClaimedRow>(
        "UPDATE webhook_delivery SET lease_owner = $1, lease_epoch = lease_epoch + 1, lease_until = $2
         WHERE (event_id, target) IN (
             SELECT d.event_id, d.target FROM webhook_delivery d
             WHERE d.org_id = $6 AND d.lane = $3 AND d.delivered_at IS NULL AND d.dead_at IS NULL AND d.due_at <= $4
                 AND (d.lease_until IS NULL OR d.lease_until <= $4)
                 AND (d.call_id IS NULL OR d.sequence = (SELECT e.sequence FROM webhook_delivery e
                     WHERE e.call_id = d.call_id AND e.target = d.target AND e.delivered_at IS NULL AND e.dead_at IS NULL
                     ORDER BY e.sequence LIMIT 1))
             ORDER BY d.due_at LIMIT $5 FOR UPDATE SKIP LOCKED)
         RETURNING event_id, target, org_id, call_id, tries, lease_epoch, sequence, due_at",
    )
    .bind(&claim.owner)
    .bind(Micros::from(claim.until))
    .bind(&claim.lane.name)
    .bind(Micros::from(claim.now))
    .bind(i64::from(claim.limit))
    .bind(claim.lane.org.as_str())
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
                if let Some(call) = row.call_id.clone() {
                    claimed.push(row.to(callback_url(c, &call).await?, secrets));
                }
            }
        }
    }
    Ok(claimed)
}

pub(super) async fn endpoint(c: &mut PgConnection, id: &EndpointId) -> Result<Option<Endpoint>, Failure> {
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
        Next::Dead | Next::Unreadable | Next::Gone => dead = Some(settle.at),
    }
    // What comes after it waits as long, so that nobody looks at it in vain; or is due at once. That it is not over is asked in words that no partial
    // index has: a server that knows little of the table yet took the one of what waits for its receiver, and read all of it.
    let settled = sqlx::query_scalar::<_, Word<OrgId>>(
        "WITH settled AS (
             UPDATE webhook_delivery SET tries = tries + 1, last_status = $1, last_error = $2,
                 due_at = coalesce($3, due_at), delivered_at = $4, dead_at = $5, lease_owner = NULL, lease_until = NULL
             WHERE event_id = $6 AND target = $7 AND lease_epoch = $8 AND lease_owner IS NOT NULL
                 AND coalesce(delivered_at, dead_at) IS NULL
             RETURNING org_id, call_id, sequence),
         logged AS (
             INSERT INTO webhook_try (event_id, target, ordinal, at, took_ms, status, error)
             SELECT $6, $7, (SELECT coalesce(max(ordinal), 0) + 1 FROM webhook_try WHERE event_id = $6 AND target = $7),
                 $9, $10, $1, $2 FROM settled
             RETURNING ordinal),
         forgotten AS (
             DELETE FROM webhook_try WHERE event_id = $6 AND target = $7
                 AND ordinal <= (SELECT ordinal - $11 FROM logged)),
         following AS (
             UPDATE webhook_delivery SET due_at = coalesce($3, $9)
             WHERE call_id = (SELECT call_id FROM settled) AND target = $7 AND sequence > (SELECT sequence FROM settled)
                 AND delivered_at IS NULL AND dead_at IS NULL
                 AND CASE WHEN $3 IS NULL THEN due_at > $9 AND tries = 0 ELSE due_at < $3 END),
         well AS (
             UPDATE webhook_endpoint SET failing_since = NULL, failed_at = NULL, failing_tries = 0
             WHERE $4 IS NOT NULL AND id = (SELECT $12::text FROM settled) AND failing_since IS NOT NULL)
         SELECT org_id FROM settled",
    )
    .bind(settle.status.map(i32::from))
    .bind(settle.error.as_deref())
    .bind(again.map(Micros::from))
    .bind(delivered.map(Micros::from))
    .bind(dead.map(Micros::from))
    .bind(settle.event.as_str())
    .bind(settle.target.as_str())
    .bind(settle.epoch)
    .bind(Micros::from(settle.at))
    .bind(settle.took_ms)
    .bind(i32::from(LOGGED_MAX))
    .bind(match &settle.target {
        Target::Endpoint(id) => Some(id.as_str()),
        Target::Callback => None,
    })
    .fetch_optional(&mut *c)
    .await?;
    let Some(org) = settled else { return Err(Failure::Fenced) };
    if settle.next == Next::Delivered {
        return Ok(None);
    }
    match &settle.target {
        Target::Endpoint(id) if settle.next != Next::Unreadable => follow(c, id, &org.0, settle).await,
        Target::Endpoint(_) | Target::Callback => Ok(None),
    }
}

/// What was delivered, each as [`settle`] does it. Whether it was claimed still, of each. What follows an event is looked up event by event
/// (`OFFSET 0`): joined, a server that takes the index of what waits for small reads all of it.
pub(super) async fn delivered(c: &mut PgConnection, settles: &[Settle]) -> Result<Vec<bool>, Failure> {
    let settled = sqlx::query_scalar::<_, i64>(
        "WITH asked AS MATERIALIZED (
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::bigint[], $6::integer[])
                 WITH ORDINALITY AS asked (event_id, target, epoch, at, took_ms, status, n)),
         settled AS (
             UPDATE webhook_delivery AS d SET tries = d.tries + 1, last_status = asked.status, last_error = NULL,
                 delivered_at = asked.at, lease_owner = NULL, lease_until = NULL
             FROM asked
             WHERE d.event_id = asked.event_id AND d.target = asked.target AND d.lease_epoch = asked.epoch
                 AND d.lease_owner IS NOT NULL AND coalesce(d.delivered_at, d.dead_at) IS NULL
             RETURNING asked.n, asked.at, d.event_id, d.target, d.endpoint_id, d.call_id, d.sequence, asked.took_ms, asked.status),
         logged AS (
             INSERT INTO webhook_try (event_id, target, ordinal, at, took_ms, status)
             SELECT event_id, target,
                 (SELECT coalesce(max(ordinal), 0) + 1 FROM webhook_try AS t WHERE t.event_id = s.event_id AND t.target = s.target),
                 at, took_ms, status FROM settled AS s
             RETURNING event_id, target, ordinal),
         forgotten AS (
             DELETE FROM webhook_try AS t USING logged AS l
             WHERE t.event_id = l.event_id AND t.target = l.target AND t.ordinal <= l.ordinal - $7),
         following AS (
             UPDATE webhook_delivery AS d SET due_at = later.at
             FROM (SELECT s.at, l.event_id, l.target FROM settled AS s CROSS JOIN LATERAL (
                 SELECT e.event_id, e.target FROM webhook_delivery AS e
                 WHERE e.call_id = s.call_id AND e.target = s.target AND e.sequence > s.sequence
                     AND e.delivered_at IS NULL AND e.dead_at IS NULL AND e.due_at > s.at AND e.tries = 0 OFFSET 0) AS l) AS later
             WHERE d.event_id = later.event_id AND d.target = later.target
                 AND NOT EXISTS (SELECT 1 FROM asked WHERE asked.event_id = d.event_id AND asked.target = d.target)),
         well AS (
             UPDATE webhook_endpoint SET failing_since = NULL, failed_at = NULL, failing_tries = 0
             WHERE id IN (SELECT endpoint_id FROM settled) AND failing_since IS NOT NULL)
         SELECT n FROM settled",
    )
    .bind(each(settles, |settle| settle.event.as_str()))
    .bind(each(settles, |settle| settle.target.as_str()))
    .bind(each(settles, |settle| settle.epoch))
    .bind(each(settles, |settle| kept(settle.at)))
    .bind(each(settles, |settle| settle.took_ms))
    .bind(each(settles, |settle| settle.status.map(i32::from)))
    .bind(i32::from(LOGGED_MAX))
    .fetch_all(c)
    .await?;
    Ok((1..).take(settles.len()).map(|n| settled.contains(&n)).collect())
}

/// A column of what came of tries.
fn each<'a, T>(settles: &'a [Settle], column: impl Fn(&'a Settle) -> T) -> Vec<T> {
    settles.iter().map(column).collect()
}

/// What follows for the endpoint that has not taken it.
async fn follow(
    c: &mut PgConnection,
    id: &EndpointId,
    org: &OrgId,
    settle: &Settle,
) -> Result<Option<DisabledReason>, Failure> {
    let before = sqlx::query_as::<_, FailingRow>(
        "SELECT failing_since, failed_at, failing_tries FROM webhook_endpoint
         WHERE id = $1 AND disabled_at IS NULL FOR NO KEY UPDATE",
    )
    .bind(id.as_str())
    .fetch_optional(&mut *c)
    .await?;
    let Some(before) = before else { return Ok(None) };
    let failing = Failing::and_again(before.failing(), settle.at);
    sqlx::query(
        "UPDATE webhook_endpoint SET failing_since = $1, failed_at = $2, failing_tries = $3 WHERE id = $4",
    )
    .bind(Micros::from(failing.since))
    .bind(Micros::from(failing.last))
    .bind(i32::try_from(failing.tries).unwrap_or(i32::MAX))
    .bind(id.as_str())
    .execute(&mut *c)
    .await?;
    let reason = if settle.next == Next::Gone {
        DisabledReason::Gone
    } else if failing.is_for_good() {
        DisabledReason::Failing
    } else {
        return Ok(None);
    };
    webhooks::disable(c, id, settle.at, reason).await?;
    let entry = audit::Entry {
        id: &settle.audit_id,
        org: Some(org),
        at: settle.at,
        actor: &Actor::default(),
        action: "webhook_endpoint.disable",
        target_type: "webhook",
        target_id: id.as_str(),
        changes: &json!({"reason": reason, "status": settle.status}),
    };
    audit::write(c, entry).await?;
    tell(c, id, org, settle).await?;
    Ok(Some(reason))
}

/// Makes an event of the endpoint's end, for the organisation's other receivers and its stream.
async fn tell(c: &mut PgConnection, id: &EndpointId, org: &OrgId, settle: &Settle) -> Result<(), Failure> {
    let Some(endpoint) = endpoint(c, id).await? else { return Ok(()) };
    sqlx::query(
        "INSERT INTO outbox (id, org_id, sequence, kind, created_at, due_at, endpoint_id, data)
         VALUES ($1, $2, 1, $3, $4, $4, $5, $6)",
    )
    .bind(settle.disabled_id.as_str())
    .bind(org.as_str())
    .bind(EventKind::EndpointDisabled.as_str())
    .bind(Micros::from(settle.at))
    .bind(id.as_str())
    .bind(Json(disabled(&endpoint, settle)))
    .execute(c)
    .await?;
    Ok(())
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
    let pending = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM webhook_delivery
         WHERE delivered_at IS NULL AND dead_at IS NULL LIMIT $1) AS counted",
    )
    .bind(i64::from(PENDING_COUNTED_MAX))
    .fetch_one(pool)
    .await?;
    let oldest_due: Option<Micros> = sqlx::query_scalar(from_lanes!(
        "SELECT min(due_at) FROM (
             SELECT (SELECT min(d.due_at) FROM webhook_delivery d
                     WHERE d.org_id = l.org_id AND d.lane = l.lane AND d.delivered_at IS NULL
                         AND d.dead_at IS NULL) AS due_at
             FROM lanes l WHERE l.lane IS NOT NULL) AS heads"
    ))
    .bind(i64::from(LANES_SEEN_MAX))
    .fetch_one(pool)
    .await?;
    let disabled = sqlx::query_scalar("SELECT count(*) FROM webhook_endpoint WHERE disabled_at IS NOT NULL")
        .fetch_one(pool)
        .await?;
    Ok(WebhookCounts { pending, oldest_due: moment(oldest_due), disabled })
}
