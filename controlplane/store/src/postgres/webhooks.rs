//! Customers' receivers on PostgreSQL, and the secrets that sign for them.

use async_trait::async_trait;
use controlplane_core::{
    ids::{AuditId, EndpointId, EventId, OrgId},
    webhook::DisabledReason,
};
use serde_json::json;
use sqlx::{PgConnection, types::Json, types::time::OffsetDateTime};

use super::{PostgresStore, audit, deliveries, delivery_list, held};
use crate::{
    StoreError, WebhookStore,
    calls::Actor,
    columns::Micros,
    error::Failure,
    webhook_rows::{EndpointRow, SecretsRow, select_endpoints},
    webhooks::{
        Change, Claim, Claimed, Delivery, DeliveryPage, ENDPOINTS_MAX, Endpoint, EndpointChange, Held, Lane,
        Rotation, Secret, Secrets, Settle, Target, WebhookCounts,
    },
};

#[async_trait]
impl WebhookStore for PostgresStore {
    async fn create_endpoint(&self, endpoint: Endpoint, change: Change) -> Result<bool, StoreError> {
        let input = (endpoint, change);
        self.transaction("create webhook endpoint", input, |c, (endpoint, change)| {
            Box::pin(create(c, endpoint, change))
        })
        .await
    }

    async fn endpoints(&self, org: &OrgId) -> Result<Vec<Endpoint>, StoreError> {
        let rows = sqlx::query_as::<_, EndpointRow>(select_endpoints!("WHERE org_id = $1 ORDER BY id"))
            .bind(org.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed("list webhook endpoints", error))?;
        Ok(rows.into_iter().map(Endpoint::from).collect())
    }

    async fn endpoint(&self, org: &OrgId, id: &EndpointId) -> Result<Option<Endpoint>, StoreError> {
        let operation = "read webhook endpoint";
        let mut moment = self.reading(operation).await?;
        find(&mut moment, org, id).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn change_endpoint(
        &self,
        id: EndpointId,
        what: EndpointChange,
        change: Change,
    ) -> Result<Option<Endpoint>, StoreError> {
        let input = (id, what, change);
        self.transaction("change webhook endpoint", input, |c, (id, what, change)| {
            Box::pin(alter(c, id, what, change))
        })
        .await
    }

    async fn rotate_endpoint(
        &self,
        id: EndpointId,
        rotation: Rotation,
        change: Change,
    ) -> Result<Option<Endpoint>, StoreError> {
        let input = (id, rotation, change);
        self.transaction("rotate webhook secret", input, |c, (id, rotation, change)| {
            Box::pin(rotate(c, id, rotation, change))
        })
        .await
    }

    async fn delete_endpoint(&self, id: EndpointId, change: Change) -> Result<bool, StoreError> {
        let input = (id, change);
        self.transaction("delete webhook endpoint", input, |c, (id, change)| Box::pin(delete(c, id, change)))
            .await
    }

    async fn callback_secrets(&self, org: OrgId, new: Secret) -> Result<Secrets, StoreError> {
        let input = (org, new);
        self.transaction("read callback secret", input, |c, (org, new)| {
            Box::pin(callback_secrets(c, org, new))
        })
        .await
    }

    async fn rotate_callback(&self, rotation: Rotation, change: Change) -> Result<Secrets, StoreError> {
        let input = (rotation, change);
        self.transaction("rotate callback secret", input, |c, (rotation, change)| {
            Box::pin(rotate_callback(c, rotation, change))
        })
        .await
    }

    async fn held_secrets(&self, after: &str, limit: u16) -> Result<Vec<Held>, StoreError> {
        let held = held::list(&self.pool, after, limit).await;
        held.map_err(|error| self.failed("list secrets", error))
    }

    async fn reseal_secrets(
        &self,
        changes: Vec<(Held, Held)>,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<u64, StoreError> {
        let resealing = held::Resealing { changes, at, actor, audit_id };
        self.transaction("reseal secrets", resealing, |c, resealing| Box::pin(held::reseal(c, resealing)))
            .await
    }

    async fn due_lanes(&self, now: OffsetDateTime, each: u16, limit: u16) -> Result<Vec<Lane>, StoreError> {
        let lanes = deliveries::due_lanes(&self.pool, now, each, limit).await;
        lanes.map_err(|error| self.failed("find due deliveries", error))
    }

    async fn claim_deliveries(&self, claim: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.transaction("claim deliveries", claim, |c, claim| Box::pin(deliveries::claim(c, claim))).await
    }

    async fn settle_delivery(&self, settle: Settle) -> Result<Option<DisabledReason>, StoreError> {
        self.settling.settle(settle).await
    }

    async fn deliveries(&self, page: DeliveryPage) -> Result<(Vec<Delivery>, bool), StoreError> {
        let operation = "list deliveries";
        let mut moment = self.reading(operation).await?;
        delivery_list::list(&mut moment, &page).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn replay_delivery(
        &self,
        event: EventId,
        target: Target,
        org: Option<OrgId>,
        change: Change,
    ) -> Result<bool, StoreError> {
        let input = (event, target, org, change);
        self.transaction("replay delivery", input, |c, (event, target, org, change)| {
            Box::pin(deliveries::replay(c, event, target, org.as_ref(), change))
        })
        .await
    }

    async fn webhook_counts(&self) -> Result<WebhookCounts, StoreError> {
        let counts = deliveries::counts(&self.pool).await;
        counts.map_err(|error| self.failed("count deliveries", error))
    }
}

async fn create(c: &mut PgConnection, endpoint: &Endpoint, change: &Change) -> Result<bool, Failure> {
    // One at a time per organisation, so that each counts what the others have made. Calls do not wait.
    sqlx::query("SELECT 1 FROM org WHERE org_id = $1 FOR NO KEY UPDATE")
        .bind(change.org.as_str())
        .execute(&mut *c)
        .await?;
    let inserted = sqlx::query(
        "INSERT INTO webhook_endpoint (id, org_id, url, description, events, secret, created_at)
         SELECT $1, $2, $3, $4, $5::jsonb, $6, $7
         WHERE (SELECT count(*) FROM webhook_endpoint WHERE org_id = $2) < $8",
    )
    .bind(endpoint.id.as_str())
    .bind(change.org.as_str())
    .bind(&endpoint.url)
    .bind(&endpoint.description)
    .bind(Json(&endpoint.events))
    .bind(&endpoint.secrets.current.0)
    .bind(Micros::from(change.at))
    .bind(i64::from(ENDPOINTS_MAX))
    .execute(&mut *c)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    let changes = json!({"url": endpoint.url, "events": endpoint.events});
    record(c, change, "webhook_endpoint.create", endpoint.id.as_str(), &changes).await?;
    Ok(true)
}

async fn find(c: &mut PgConnection, org: &OrgId, id: &EndpointId) -> Result<Option<Endpoint>, Failure> {
    let row = sqlx::query_as::<_, EndpointRow>(select_endpoints!("WHERE id = $1 AND org_id = $2"))
        .bind(id.as_str())
        .bind(org.as_str())
        .fetch_optional(c)
        .await?;
    Ok(row.map(Endpoint::from))
}

async fn alter(
    c: &mut PgConnection,
    id: &EndpointId,
    what: &EndpointChange,
    change: &Change,
) -> Result<Option<Endpoint>, Failure> {
    let Some(before) = find(c, &change.org, id).await? else { return Ok(None) };
    sqlx::query(
        "UPDATE webhook_endpoint SET url = coalesce($1, url), description = coalesce($2, description),
             events = coalesce($3, events) WHERE id = $4",
    )
    .bind(what.url.as_deref())
    .bind(what.description.as_deref())
    .bind(what.events.as_ref().map(Json))
    .bind(id.as_str())
    .execute(&mut *c)
    .await?;
    match what.enabled {
        Some(false) if before.disabled.is_none() => {
            disable(c, id, change.at, DisabledReason::Owner).await?;
        }
        Some(true) if before.disabled.is_some() => {
            sqlx::query(
                "UPDATE webhook_endpoint SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL,
                     failed_at = NULL, failing_tries = 0
                 WHERE id = $1",
            )
            .bind(id.as_str())
            .execute(&mut *c)
            .await?;
        }
        Some(_) | None => {}
    }
    let changes = json!({
        "url": what.url, "description": what.description, "events": what.events, "enabled": what.enabled
    });
    record(c, change, "webhook_endpoint.update", id.as_str(), &changes).await?;
    find(c, &change.org, id).await
}

/// Gives up what is not delivered to it, and sends no more. After those who make deliveries for it now.
pub(super) async fn disable(
    c: &mut PgConnection,
    id: &EndpointId,
    at: OffsetDateTime,
    reason: DisabledReason,
) -> Result<(), Failure> {
    sqlx::query("SELECT 1 FROM webhook_endpoint WHERE id = $1 FOR UPDATE")
        .bind(id.as_str())
        .execute(&mut *c)
        .await?;
    sqlx::query("UPDATE webhook_endpoint SET disabled_at = $1, disabled_reason = $2 WHERE id = $3")
        .bind(Micros::from(at))
        .bind(reason.as_str())
        .bind(id.as_str())
        .execute(&mut *c)
        .await?;
    // Whoever is sending one of them meets the fence.
    sqlx::query(
        "UPDATE webhook_delivery SET dead_at = $1, last_error = 'the endpoint is disabled',
             lease_owner = NULL, lease_until = NULL, lease_epoch = lease_epoch + 1
         WHERE endpoint_id = $2 AND delivered_at IS NULL AND dead_at IS NULL",
    )
    .bind(Micros::from(at))
    .bind(id.as_str())
    .execute(c)
    .await?;
    Ok(())
}

async fn rotate(
    c: &mut PgConnection,
    id: &EndpointId,
    rotation: &Rotation,
    change: &Change,
) -> Result<Option<Endpoint>, Failure> {
    let rotated = sqlx::query(
        "UPDATE webhook_endpoint SET previous_secret = secret, previous_until = $1, secret = $2
         WHERE id = $3 AND org_id = $4",
    )
    .bind(Micros::from(rotation.previous_until))
    .bind(&rotation.secret.0)
    .bind(id.as_str())
    .bind(change.org.as_str())
    .execute(&mut *c)
    .await?;
    if rotated.rows_affected() == 0 {
        return Ok(None);
    }
    record(c, change, "webhook_endpoint.rotate_secret", id.as_str(), &json!({})).await?;
    find(c, &change.org, id).await
}

async fn delete(c: &mut PgConnection, id: &EndpointId, change: &Change) -> Result<bool, Failure> {
    let deleted = sqlx::query("DELETE FROM webhook_endpoint WHERE id = $1 AND org_id = $2")
        .bind(id.as_str())
        .bind(change.org.as_str())
        .execute(&mut *c)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(false);
    }
    record(c, change, "webhook_endpoint.delete", id.as_str(), &json!({})).await?;
    Ok(true)
}

pub(super) async fn callback_secrets(
    c: &mut PgConnection,
    org: &OrgId,
    new: &Secret,
) -> Result<Secrets, Failure> {
    sqlx::query(
        "INSERT INTO callback_secret (org_id, secret) VALUES ($1, $2) ON CONFLICT (org_id) DO NOTHING",
    )
    .bind(org.as_str())
    .bind(&new.0)
    .execute(&mut *c)
    .await?;
    let row = sqlx::query_as::<_, SecretsRow>(
        "SELECT secret, previous_secret, previous_until FROM callback_secret WHERE org_id = $1",
    )
    .bind(org.as_str())
    .fetch_one(c)
    .await?;
    Ok(row.into())
}

async fn rotate_callback(
    c: &mut PgConnection,
    rotation: &Rotation,
    change: &Change,
) -> Result<Secrets, Failure> {
    callback_secrets(c, &change.org, &rotation.secret).await?;
    sqlx::query(
        "UPDATE callback_secret SET previous_secret = secret, previous_until = $1, secret = $2
         WHERE org_id = $3 AND secret <> $2",
    )
    .bind(Micros::from(rotation.previous_until))
    .bind(&rotation.secret.0)
    .bind(change.org.as_str())
    .execute(&mut *c)
    .await?;
    record(c, change, "callback_secret.rotate", change.org.as_str(), &json!({})).await?;
    callback_secrets(c, &change.org, &rotation.secret).await
}

async fn record(
    c: &mut PgConnection,
    change: &Change,
    action: &'static str,
    target_id: &str,
    changes: &serde_json::Value,
) -> Result<(), Failure> {
    let entry = audit::Entry {
        id: &change.audit_id,
        org: Some(&change.org),
        at: change.at,
        actor: &change.actor,
        action,
        target_type: "webhook",
        target_id,
        changes,
    };
    audit::write(c, entry).await
}
