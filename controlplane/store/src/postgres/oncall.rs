//! Hooks and incidents on PostgreSQL.

use async_trait::async_trait;
use controlplane_core::{
    access::Mode,
    ids::{CallId, HookId, IncidentId, KeyId, OrgId},
    oncall::{
        escalation::{Action, Event},
        hook::HookSettings,
    },
};
use serde_json::json;
use sqlx::{PgConnection, types::Json, types::time::OffsetDateTime};

use super::{PostgresStore, audit};
use crate::{
    OnCallStore, StoreError,
    columns::Micros,
    error::Failure,
    oncall::{HOOKS_MAX, Hook, INCIDENTS_OPEN_MAX, Incident, IncidentPage, Opened, SaveIncident, Told},
    oncall_rows::{HookRow, IncidentRow, incidents, phase_call, phase_word, select_hooks, select_incidents},
    webhooks::Change,
};

#[async_trait]
impl OnCallStore for PostgresStore {
    async fn create_hook(&self, hook: Hook, change: Change) -> Result<bool, StoreError> {
        let input = (hook, change);
        self.transaction("create hook", input, |c, (hook, change)| Box::pin(create(c, hook, change))).await
    }

    async fn hooks(&self, org: &OrgId) -> Result<Vec<Hook>, StoreError> {
        let rows = sqlx::query_as::<_, HookRow>(select_hooks!("WHERE org_id = $1 ORDER BY id"))
            .bind(org.as_str())
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed("list hooks", error))?;
        Ok(rows.into_iter().map(Hook::from).collect())
    }

    async fn hook(&self, org: &OrgId, id: &HookId) -> Result<Option<Hook>, StoreError> {
        let row = sqlx::query_as::<_, HookRow>(select_hooks!("WHERE id = $1 AND org_id = $2"))
            .bind(id.as_str())
            .bind(org.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.failed("read hook", error))?;
        Ok(row.map(Hook::from))
    }

    async fn change_hook(
        &self,
        id: HookId,
        settings: HookSettings,
        change: Change,
    ) -> Result<Option<Hook>, StoreError> {
        let input = (id, settings, change);
        self.transaction("change hook", input, |c, (id, settings, change)| {
            Box::pin(alter(c, id, settings, change))
        })
        .await
    }

    async fn delete_hook(&self, id: HookId, change: Change) -> Result<Option<Vec<CallId>>, StoreError> {
        self.transaction("delete hook", (id, change), |c, (id, change)| Box::pin(delete(c, id, change))).await
    }

    async fn open_of_group(
        &self,
        hook: &HookId,
        mode: Mode,
        key: &str,
    ) -> Result<Option<Incident>, StoreError> {
        let sql =
            select_incidents!("WHERE hook_id = $1 AND mode = $2 AND group_key = $3 AND resolved_at IS NULL");
        let row = sqlx::query_as::<_, IncidentRow>(sql)
            .bind(hook.as_str())
            .bind(mode.as_str())
            .bind(key)
            .fetch_optional(&self.pool)
            .await;
        let incident = row.and_then(|row| row.map(Incident::try_from).transpose());
        incident.map_err(|error| self.failed("find open incident", error))
    }

    async fn open_incident(&self, incident: Incident, told: Told) -> Result<Opened, StoreError> {
        let input = (incident, told);
        self.transaction("open incident", input, |c, (incident, told)| Box::pin(open(c, incident, told)))
            .await
    }

    async fn save_incident(&self, save: SaveIncident) -> Result<bool, StoreError> {
        self.transaction("save incident", save, |c, save| Box::pin(self::save(c, save))).await
    }

    async fn incident(&self, org: Option<&OrgId>, id: &IncidentId) -> Result<Option<Incident>, StoreError> {
        let sql = select_incidents!("WHERE id = $1 AND (CAST($2 AS TEXT) IS NULL OR org_id = $2)");
        let row = sqlx::query_as::<_, IncidentRow>(sql)
            .bind(id.as_str())
            .bind(org.map(OrgId::as_str))
            .fetch_optional(&self.pool)
            .await;
        let incident = row.and_then(|row| row.map(Incident::try_from).transpose());
        incident.map_err(|error| self.failed("read incident", error))
    }

    async fn incidents(&self, page: IncidentPage) -> Result<(Vec<Incident>, bool), StoreError> {
        let limit = usize::from(page.limit);
        let rows = sqlx::query(select_incidents!(
            "WHERE (CAST($1 AS TEXT) IS NULL OR org_id = $1) AND (CAST($2 AS TEXT) IS NULL OR hook_id = $2)
                 AND (CAST($3 AS TEXT) IS NULL OR status = $3)
                 AND (CAST($4 AS BOOLEAN) IS NULL OR (resolved_at IS NULL) = $4)
                 AND (CAST($5 AS TEXT) IS NULL OR id < $5)
             ORDER BY id DESC LIMIT CAST($6 AS bigint)"
        ))
        .bind(page.org.as_ref().map(OrgId::as_str))
        .bind(page.hook.as_ref().map(HookId::as_str))
        .bind(page.status.map(|status| status.as_str()))
        .bind(page.open)
        .bind(page.starting_after.as_ref().map(IncidentId::as_str))
        .bind(i64::from(page.limit) + 1)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.failed("list incidents", error))?;
        Ok((incidents(&rows[..rows.len().min(limit)]), rows.len() > limit))
    }

    async fn due_incidents(&self, now: OffsetDateTime, limit: u16) -> Result<Vec<Incident>, StoreError> {
        let rows = sqlx::query(select_incidents!(
            "LEFT JOIN call ON call.id = incident.call_id
             WHERE incident.phase <> 'idle' AND (incident.due_at <= $1
                 OR (incident.phase = 'calling' AND (call.id IS NULL OR call.ended_at IS NOT NULL)))
             AND NOT EXISTS (SELECT 1 FROM held WHERE held.id = incident.id)
             ORDER BY incident.due_at, incident.id LIMIT CAST($2 AS bigint)"
        ))
        .bind(Micros::from(now))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.failed("read due incidents", error))?;
        Ok(incidents(&rows))
    }

    async fn heard_incidents(&self, limit: u16) -> Result<Vec<Incident>, StoreError> {
        let rows = sqlx::query(select_incidents!(
            "WHERE resolved_at IS NULL AND status IN ('escalating', 'unanswered') AND EXISTS (
                 SELECT 1 FROM jsonb_array_elements(incident.steps) AS step (value) JOIN attempt ON attempt.call_id = step.value ->> 'call'
                 WHERE step.value ->> 'result' NOT IN ('acknowledged', 'passed_on') AND attempt.heard_key IS NOT NULL)
             ORDER BY id LIMIT CAST($1 AS INTEGER)"
        ))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.failed("read incidents with a key", error))?;
        Ok(incidents(&rows))
    }

    async fn erase_incidents(
        &self,
        org: &OrgId,
        resolved_by: OffsetDateTime,
        limit: u16,
    ) -> Result<u64, StoreError> {
        let input = (org.clone(), resolved_by, limit);
        self.transaction("erase incidents", input, |c, (org, by, limit)| Box::pin(erase(c, org, *by, *limit)))
            .await
    }
}

async fn create(c: &mut PgConnection, hook: &Hook, change: &Change) -> Result<bool, Failure> {
    // One at a time per organisation, so that each counts what the others have made. Calls do not wait.
    sqlx::query("SELECT 1 FROM org WHERE org_id = $1 FOR NO KEY UPDATE")
        .bind(change.org.as_str())
        .execute(&mut *c)
        .await?;
    let inserted = sqlx::query(
        "INSERT INTO hook (id, org_id, settings, created_at) SELECT $1, $2, $3::jsonb, $4
         WHERE (SELECT count(*) FROM hook WHERE org_id = $2) < $5",
    )
    .bind(hook.id.as_str())
    .bind(change.org.as_str())
    .bind(Json(&hook.settings))
    .bind(Micros::from(change.at))
    .bind(i64::from(HOOKS_MAX))
    .execute(&mut *c)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    record(c, change, "hook.create", &hook.id, told(&hook.settings)).await?;
    Ok(true)
}

/// What the audit log has of a hook: no number whole.
fn told(settings: &HookSettings) -> serde_json::Value {
    let to: Vec<String> = settings.to.iter().map(|number| number.shortened().to_string()).collect();
    json!({"name": settings.name, "kind": settings.kind, "to": to, "rounds": settings.rounds})
}

async fn find(c: &mut PgConnection, org: &OrgId, id: &HookId) -> Result<Option<Hook>, Failure> {
    let row = sqlx::query_as::<_, HookRow>(select_hooks!("WHERE id = $1 AND org_id = $2"))
        .bind(id.as_str())
        .bind(org.as_str())
        .fetch_optional(c)
        .await?;
    Ok(row.map(Hook::from))
}

async fn alter(
    c: &mut PgConnection,
    id: &HookId,
    settings: &HookSettings,
    change: &Change,
) -> Result<Option<Hook>, Failure> {
    let altered = sqlx::query("UPDATE hook SET settings = $1 WHERE id = $2 AND org_id = $3")
        .bind(Json(settings))
        .bind(id.as_str())
        .bind(change.org.as_str())
        .execute(&mut *c)
        .await?;
    if altered.rows_affected() == 0 {
        return Ok(None);
    }
    record(c, change, "hook.update", id, told(settings)).await?;
    find(c, &change.org, id).await
}

async fn delete(c: &mut PgConnection, id: &HookId, change: &Change) -> Result<Option<Vec<CallId>>, Failure> {
    let deleted = sqlx::query("DELETE FROM hook WHERE id = $1 AND org_id = $2")
        .bind(id.as_str())
        .bind(change.org.as_str())
        .execute(&mut *c)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(None);
    }
    let rows =
        sqlx::query(select_incidents!("WHERE hook_id = $1 AND resolved_at IS NULL ORDER BY id FOR UPDATE"))
            .bind(id.as_str())
            .fetch_all(&mut *c)
            .await?;
    let (mut calls, mut resolved) = (Vec::new(), Vec::new());
    for mut incident in incidents(&rows) {
        let action = incident.escalation.handle(&incident.plan, Event::Resolve, change.at);
        incident.resolved_at = Some(change.at);
        incident.resolved_by = Some(id.to_string());
        write(c, &incident).await?;
        if let Some(Action::Cancel(call)) = action {
            cancel(c, &call, change.at).await?;
            calls.push(call);
        }
        resolved.push(incident.id);
    }
    record(c, change, "hook.delete", id, json!({"resolved": resolved})).await?;
    Ok(Some(calls))
}

async fn open(c: &mut PgConnection, incident: &Incident, told: &Told) -> Result<Opened, Failure> {
    // One at a time per organisation, so that each counts what the others have made. Calls do not wait.
    sqlx::query("SELECT 1 FROM org WHERE org_id = $1 FOR NO KEY UPDATE")
        .bind(incident.org.as_str())
        .execute(&mut *c)
        .await?;
    let count = "SELECT count(*) FROM incident WHERE org_id = $1 AND resolved_at IS NULL";
    let open: i64 = sqlx::query_scalar(count).bind(incident.org.as_str()).fetch_one(&mut *c).await?;
    if open >= i64::from(INCIDENTS_OPEN_MAX) {
        return Ok(Opened::Full);
    }
    let escalation = &incident.escalation;
    let inserted = sqlx::query(
        "INSERT INTO incident (id, org_id, hook_id, mode, group_key, plan, status, phase, due_at, call_id, steps, alerts,
             alerts_seen, opened_by, opened_at, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1)
         ON CONFLICT (hook_id, mode, group_key) WHERE resolved_at IS NULL DO NOTHING",
    )
    .bind(incident.id.as_str())
    .bind(incident.org.as_str())
    .bind(incident.hook.as_str())
    .bind(incident.mode.as_str())
    .bind(&incident.key)
    .bind(Json(&incident.plan))
    .bind(escalation.status.as_str())
    .bind(phase_word(&escalation.phase))
    .bind(escalation.due().map(Micros::from))
    .bind(phase_call(&escalation.phase).map(CallId::as_str))
    .bind(Json(&escalation.steps))
    .bind(Json(&incident.alerts))
    .bind(incident.alerts_seen)
    .bind(incident.opened_by.as_ref().map(KeyId::as_str))
    .bind(Micros::from(incident.opened_at))
    .execute(&mut *c)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Opened::Exists);
    }
    tell(c, incident, told, incident.opened_at).await?;
    Ok(Opened::Yes)
}

async fn save(c: &mut PgConnection, save: &SaveIncident) -> Result<bool, Failure> {
    if !write(c, &save.incident).await? {
        return Ok(false);
    }
    if let Some(call) = &save.cancel {
        cancel(c, call, save.at).await?;
    }
    if let Some(told) = &save.told {
        tell(c, &save.incident, told, save.at).await?;
    }
    Ok(true)
}

/// The incident as it is now, if nobody has changed it since it was read.
async fn write(c: &mut PgConnection, incident: &Incident) -> Result<bool, Failure> {
    let escalation = &incident.escalation;
    let written = sqlx::query(
        "UPDATE incident SET status = $1, phase = $2, due_at = $3, call_id = $4, steps = $5, alerts = $6, alerts_seen = $7,
             acknowledged_at = $8, acknowledged_by = $9, unanswered_at = $10, resolved_at = $11, resolved_by = $12,
             version = version + 1
         WHERE id = $13 AND version = $14",
    )
    .bind(escalation.status.as_str())
    .bind(phase_word(&escalation.phase))
    .bind(escalation.due().map(Micros::from))
    .bind(phase_call(&escalation.phase).map(CallId::as_str))
    .bind(Json(&escalation.steps))
    .bind(Json(&incident.alerts))
    .bind(incident.alerts_seen)
    .bind(incident.acknowledged_at.map(Micros::from))
    .bind(incident.acknowledged_by.as_deref())
    .bind(incident.unanswered_at.map(Micros::from))
    .bind(incident.resolved_at.map(Micros::from))
    .bind(incident.resolved_by.as_deref())
    .bind(incident.id.as_str())
    .bind(incident.version)
    .execute(c)
    .await?;
    Ok(written.rows_affected() > 0)
}

/// The wish that a call ends, as `cancels` writes it; what it is for is in the incident's own row.
async fn cancel(c: &mut PgConnection, call: &CallId, at: OffsetDateTime) -> Result<(), Failure> {
    sqlx::query(
        "UPDATE call SET cancel_requested_at = $1
         WHERE id = $2 AND cancel_requested_at IS NULL AND ended_at IS NULL",
    )
    .bind(Micros::from(at))
    .bind(call.as_str())
    .execute(c)
    .await?;
    Ok(())
}

async fn erase(c: &mut PgConnection, org: &OrgId, by: OffsetDateTime, limit: u16) -> Result<u64, Failure> {
    let erased = sqlx::query(
        "DELETE FROM incident WHERE id IN (SELECT id FROM incident
             WHERE org_id = $1 AND resolved_at IS NOT NULL AND resolved_at <= $2 AND phase = 'idle'
             ORDER BY resolved_at LIMIT CAST($3 AS bigint))",
    )
    .bind(org.as_str())
    .bind(Micros::from(by))
    .bind(i64::from(limit))
    .execute(c)
    .await?;
    Ok(erased.rows_affected())
}

async fn record(
    c: &mut PgConnection,
    change: &Change,
    action: &'static str,
    id: &HookId,
    changes: serde_json::Value,
) -> Result<(), Failure> {
    let entry = audit::Entry {
        id: &change.audit_id,
        org: Some(&change.org),
        at: change.at,
        actor: &change.actor,
        action,
        target_type: "hook",
        target_id: id.as_str(),
        changes: &changes,
    };
    audit::write(c, entry).await
}

async fn tell(
    c: &mut PgConnection,
    incident: &Incident,
    told: &Told,
    at: OffsetDateTime,
) -> Result<(), Failure> {
    let entry = audit::Entry {
        id: &told.id,
        org: Some(&incident.org),
        at,
        actor: &told.actor,
        action: told.action,
        target_type: "incident",
        target_id: incident.id.as_str(),
        changes: &told.changes,
    };
    audit::write(c, entry).await
}
