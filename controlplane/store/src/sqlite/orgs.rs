//! Organisations on SQLite.

use async_trait::async_trait;
use controlplane_core::ids::{AuditId, OrgId};
use serde_json::json;
use sqlx::{SqliteConnection, types::time::OffsetDateTime};

use super::{SqliteStore, audit};
use crate::{
    OrgStore, StoreError,
    calls::Actor,
    columns::Micros,
    error::Failure,
    key_rows::{OrgRow, select_orgs},
    orgs::{ORGS_MAX, Org, OrgChange, OrgCreated},
};

#[async_trait]
impl OrgStore for SqliteStore {
    async fn orgs(&self) -> Result<u64, StoreError> {
        let orgs = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM org").fetch_one(&self.readers).await;
        orgs.map(|orgs| orgs.unsigned_abs()).map_err(|error| self.failed("count organisations", error))
    }

    async fn create_org(&self, org: Org, actor: Actor, audit_id: AuditId) -> Result<OrgCreated, StoreError> {
        let input = (org, actor, audit_id);
        self.writer
            .write("create organisation", input, |c, (org, actor, id)| Box::pin(create(c, org, actor, id)))
            .await
    }

    async fn org(&self, id: &OrgId) -> Result<Option<Org>, StoreError> {
        let row = sqlx::query_as::<_, OrgRow>(select_orgs!("WHERE org_id = $1"))
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await;
        row.map(|row| row.map(Org::from)).map_err(|error| self.failed("read organisation", error))
    }

    async fn list_orgs(&self, limit: u16, after: Option<&OrgId>) -> Result<(Vec<Org>, bool), StoreError> {
        let rows = sqlx::query_as::<_, OrgRow>(select_orgs!(
            "WHERE $1 IS NULL OR org_id < $1 ORDER BY org_id DESC LIMIT $2"
        ))
        .bind(after.map(OrgId::as_str))
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.readers)
        .await
        .map_err(|error| self.failed("list organisations", error))?;
        let has_more = rows.len() > usize::from(limit);
        Ok((rows.into_iter().take(limit.into()).map(Org::from).collect(), has_more))
    }

    async fn change_org(
        &self,
        id: &OrgId,
        change: OrgChange,
        at: OffsetDateTime,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<Option<Org>, StoreError> {
        let input = Alteration { id: id.clone(), change, at, actor, audit_id };
        self.writer.write("change organisation", input, |c, input| Box::pin(alter(c, input))).await
    }
}

async fn create(
    c: &mut SqliteConnection,
    org: &Org,
    actor: &Actor,
    audit_id: &AuditId,
) -> Result<OrgCreated, Failure> {
    let orgs: i64 = sqlx::query_scalar("SELECT count(*) FROM org").fetch_one(&mut *c).await?;
    if orgs >= i64::from(ORGS_MAX) {
        return Ok(OrgCreated::Full);
    }
    let inserted = sqlx::query(
        "INSERT INTO org (org_id, slug, name, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (slug) DO NOTHING",
    )
    .bind(org.id.as_str())
    .bind(org.slug.as_str())
    .bind(&org.name)
    .bind(Micros::from(org.created_at))
    .execute(&mut *c)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(OrgCreated::SlugTaken);
    }
    let entry = audit::Entry {
        id: audit_id,
        org: Some(&org.id),
        at: org.created_at,
        actor,
        action: "org.create",
        target_type: "org",
        target_id: org.id.as_str(),
        // Its name stays with the organisation: what is chained names nobody.
        changes: &json!({"slug": org.slug}),
    };
    audit::write(c, entry).await?;
    Ok(OrgCreated::Yes)
}

struct Alteration {
    id: OrgId,
    change: OrgChange,
    at: OffsetDateTime,
    actor: Actor,
    audit_id: AuditId,
}

async fn alter(c: &mut SqliteConnection, alteration: &Alteration) -> Result<Option<Org>, Failure> {
    let Alteration { id, change, at, actor, audit_id } = alteration;
    // A suspension that lasts keeps its beginning.
    let row = sqlx::query_as::<_, OrgRow>(
        "UPDATE org SET name = coalesce($1, name),
             suspended_at = CASE WHEN $2 IS NULL THEN suspended_at WHEN $2 THEN coalesce(suspended_at, $3) END
         WHERE org_id = $4 RETURNING org_id, slug, name, created_at, suspended_at",
    )
    .bind(change.name.as_deref())
    .bind(change.suspended)
    .bind(Micros::from(*at))
    .bind(id.as_str())
    .fetch_optional(&mut *c)
    .await?;
    let Some(org) = row.map(Org::from) else { return Ok(None) };
    let action = match change.suspended {
        Some(true) => "org.suspend",
        Some(false) => "org.resume",
        None => "org.rename",
    };
    let entry = audit::Entry {
        id: audit_id,
        org: Some(id),
        at: *at,
        actor,
        action,
        target_type: "org",
        target_id: id.as_str(),
        changes: &json!({"renamed": change.name.is_some(), "suspended": change.suspended}),
    };
    audit::write(c, entry).await?;
    Ok(Some(org))
}
