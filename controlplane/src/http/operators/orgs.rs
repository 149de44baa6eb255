//! Organisations: made, renamed, suspended and resumed by operators.

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
};
use controlplane_core::{ids::OrgId, names::OrgSlug};
use controlplane_store::orgs::{Org, OrgChange, OrgCreated};
use serde::Deserialize;
use serde_json::{Value, json};

use super::moment;
use crate::http::{
    State,
    auth::Operator,
    body::JsonBody,
    problem::{Code, Problem},
    shape::ListView,
};

/// Longest name.
const NAME_MAX: usize = 200;
/// Organisations of a page where none is asked, and the most.
const LIMITS: (u16, u16) = (20, 100);

fn view(org: &Org) -> Value {
    json!({
        "id": org.id, "object": "org", "slug": org.slug, "name": org.name, "created_at": moment(org.created_at),
        "suspended_at": org.suspended_at.and_then(moment),
    })
}

fn name(name: String) -> Result<String, Problem> {
    if name.trim().is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        let rule = "1 to 200 bytes without control characters.";
        return Err(Problem::new(Code::InvalidField, rule).param("name"));
    }
    Ok(name)
}

/// Body of `POST /admin/v1/orgs`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NewOrgBody {
    /// What it is called in commands, for good.
    slug: OrgSlug,
    /// What people call it; absent: the slug.
    #[serde(default)]
    name: Option<String>,
}

impl NewOrgBody {
    pub(in crate::http) fn of(slug: OrgSlug, name: Option<String>) -> Self {
        Self { slug, name }
    }
}

pub(in crate::http) async fn create(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<NewOrgBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let name = name(body.name.unwrap_or_else(|| body.slug.to_string()))?;
    let now = state.clock.now();
    let id = state.chance.org_id(now);
    let org = Org { id, slug: body.slug, name, created_at: now, suspended_at: None };
    match state.store.create_org(org.clone(), operator.actor, state.chance.audit_id(now)).await? {
        OrgCreated::Yes => Ok((StatusCode::CREATED, Json(view(&org)))),
        OrgCreated::SlugTaken => {
            Err(Problem::new(Code::SlugTaken, format!("An organisation is called {} already.", org.slug))
                .param("slug"))
        }
        OrgCreated::Full => {
            Err(Problem::new(Code::LimitReached, "There are as many organisations as there may be."))
        }
    }
}

/// `?limit=&starting_after=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    limit: Option<u16>,
    starting_after: Option<OrgId>,
}

pub(in crate::http) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<Value>>, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(LIMITS.0);
    if !(1..=LIMITS.1).contains(&limit) {
        return Err(Problem::new(Code::InvalidField, "limit: 1 to 100.").param("limit"));
    }
    let (orgs, has_more) = state.store.list_orgs(limit, query.starting_after.as_ref()).await?;
    Ok(Json(ListView { object: "list", data: orgs.iter().map(view).collect(), has_more }))
}

pub(in crate::http) async fn show(
    _: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(id) = id?;
    let org = state.store.org(&id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(view(&org)))
}

async fn change(
    state: &State,
    operator: Operator,
    id: &OrgId,
    change: OrgChange,
) -> Result<Json<Value>, Problem> {
    let now = state.clock.now();
    let audit_id = state.chance.audit_id(now);
    let org = state.store.change_org(id, change, now, operator.actor, audit_id).await?;
    // A suspended organisation's streams end.
    state.webhooks.streams.keys_changed();
    Ok(Json(view(&org.ok_or_else(Problem::not_found)?)))
}

/// Body of `PATCH /admin/v1/orgs/{id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RenameBody {
    name: String,
}

pub(in crate::http) async fn rename(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
    JsonBody { value: body, .. }: JsonBody<RenameBody>,
) -> Result<Json<Value>, Problem> {
    let Path(id) = id?;
    let name = Some(name(body.name)?);
    change(&state, operator, &id, OrgChange { name, suspended: None }).await
}

pub(in crate::http) async fn suspend(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(id) = id?;
    change(&state, operator, &id, OrgChange { name: None, suspended: Some(true) }).await
}

pub(in crate::http) async fn resume(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(id) = id?;
    change(&state, operator, &id, OrgChange { name: None, suspended: Some(false) }).await
}
