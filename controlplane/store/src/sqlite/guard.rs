//! Rules for customers and their usage on SQLite.

use async_trait::async_trait;
use controlplane_core::ids::{KeyId, OrgId};
use serde_json::{Value, json};
use sqlx::{SqliteConnection, types::Json};

use super::{SqliteStore, audit};
use crate::{
    GuardStore, StoreError,
    columns::Micros,
    error::Failure,
    guard::{DayUsage, DeniedCall, InUse, SetRules, StoredRules, Subject},
};

#[async_trait]
impl GuardStore for SqliteStore {
    async fn rules(&self) -> Result<Vec<StoredRules>, StoreError> {
        let rows = sqlx::query_as::<_, (String, String, Json<Value>)>(
            "SELECT subject, kind, document FROM customer_rule ORDER BY subject, kind",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(|error| self.failed("read the rules for customers", error))?;
        let rules = rows.into_iter();
        Ok(rules.map(|(subject, kind, Json(document))| StoredRules { subject, kind, document }).collect())
    }

    async fn set_rules(&self, set: SetRules) -> Result<bool, StoreError> {
        self.writer.write("set rules for a customer", set, |c, set| Box::pin(change(c, set))).await
    }

    async fn deny_call(&self, denied: DeniedCall) -> Result<(), StoreError> {
        self.writer.write("write down a refused call", denied, |c, denied| Box::pin(deny(c, denied))).await
    }

    async fn usage(&self, org: &OrgId, from: i64, to: i64) -> Result<Vec<DayUsage>, StoreError> {
        sqlx::query_as::<_, DayUsage>(
            "SELECT day, calls, attempts, talk_us FROM org_usage
             WHERE org_id = $1 AND day BETWEEN $2 AND $3 ORDER BY day",
        )
        .bind(org.as_str())
        .bind(from)
        .bind(to)
        .fetch_all(&self.readers)
        .await
        .map_err(|error| self.failed("read usage", error))
    }

    async fn in_use(&self, org: &OrgId, key: Option<&KeyId>, day: i64) -> Result<InUse, StoreError> {
        sqlx::query_as::<_, InUse>(
            "SELECT
                 (SELECT coalesce(sum(calls), 0) FROM open_calls WHERE org_id = $1) AS open,
                 (SELECT coalesce(sum(calls), 0) FROM org_usage WHERE org_id = $1 AND day = $3) AS org_today,
                 (SELECT coalesce(sum(calls), 0) FROM key_usage WHERE key_id = $2 AND day = $3) AS key_today",
        )
        .bind(org.as_str())
        .bind(key.map(KeyId::as_str))
        .bind(day)
        .fetch_one(&self.readers)
        .await
        .map_err(|error| self.failed("read what is in use", error))
    }
}

async fn change(c: &mut SqliteConnection, set: &SetRules) -> Result<bool, Failure> {
    let (known, org) = match &set.subject {
        Subject::Org(org) => {
            let known = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM org WHERE org_id = $1");
            (known.bind(org.as_str()).fetch_one(&mut *c).await?, Some(org.clone()))
        }
        Subject::Key(key) => {
            let known = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM api_key WHERE id = $1");
            (known.bind(key.as_str()).fetch_one(&mut *c).await?, None)
        }
    };
    if known == 0 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO customer_rule (subject, kind, document, updated_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (subject, kind) DO UPDATE
             SET document = excluded.document, updated_at = excluded.updated_at",
    )
    .bind(set.subject.as_str())
    .bind(set.kind.as_str())
    .bind(Json(&set.document))
    .bind(Micros::from(set.at))
    .execute(&mut *c)
    .await?;
    let entry = audit::Entry {
        id: &set.audit_id,
        org: org.as_ref(),
        at: set.at,
        actor: &set.actor,
        action: set.kind.action(),
        target_type: set.subject.kind(),
        target_id: set.subject.as_str(),
        changes: &set.document,
    };
    audit::write(c, entry).await?;
    Ok(true)
}

/// The only place where a refusal meets the audit log.
async fn deny(c: &mut SqliteConnection, denied: &DeniedCall) -> Result<(), Failure> {
    let entry = audit::Entry {
        id: &denied.audit_id,
        org: Some(&denied.org),
        at: denied.at,
        actor: &denied.actor,
        action: "call.create",
        target_type: "number",
        target_id: &denied.to.shortened(),
        changes: &json!({"rule": denied.rule, "destination": denied.destination}),
    };
    audit::denied(c, entry, denied.rule.as_str()).await
}
