//! Hooks of the first organisation, and incidents of all, at the operators' door.

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    response::NoContent,
};
use controlplane_core::{
    ids::{HookId, IncidentId, OrgId},
    oncall::hook::HookSettings,
};
use controlplane_store::oncall::Incident;

use crate::{
    http::{
        State,
        answer::Created,
        auth::Operator,
        body::JsonBody,
        oncall::{
            hooks::{self, HookView},
            incidents::{self, IncidentView, ListQuery},
        },
        problem::Problem,
        shape::ListView,
    },
    oncall::{AN_OPERATOR, Act},
};

pub(in crate::http) async fn create_hook(
    operator: Operator,
    AxumState(state): AxumState<State>,
    JsonBody { value: settings, .. }: JsonBody<HookSettings>,
) -> Result<Created<HookView>, Problem> {
    hooks::make(&state, OrgId::first(), operator.actor, settings).await
}

pub(in crate::http) async fn list_hooks(
    _: Operator,
    AxumState(state): AxumState<State>,
) -> Result<Json<ListView<HookView>>, Problem> {
    hooks::all(&state, &OrgId::first()).await
}

pub(in crate::http) async fn show_hook(
    _: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<HookId>, PathRejection>,
) -> Result<Json<HookView>, Problem> {
    let Path(id) = id?;
    hooks::one(&state, &OrgId::first(), &id).await
}

pub(in crate::http) async fn delete_hook(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<HookId>, PathRejection>,
) -> Result<NoContent, Problem> {
    let Path(id) = id?;
    hooks::take_away(&state, OrgId::first(), operator.actor, id).await
}

pub(in crate::http) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<IncidentView>>, Problem> {
    let Query(query) = query?;
    let (incidents, has_more) = state.store.incidents(query.page(None)?).await?;
    let data = incidents.into_iter().map(IncidentView::of_org).collect();
    Ok(Json(ListView { object: "list", data, has_more }))
}

pub(in crate::http) async fn show(
    _: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Json<IncidentView>, Problem> {
    let Path(id) = id?;
    let incident = state.store.incident(None, &id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(IncidentView::of_org(incident)))
}

/// Acknowledges or resolves any organisation's; shared with the console.
pub(in crate::http) async fn act(
    state: &State,
    operator: Operator,
    id: Result<Path<IncidentId>, PathRejection>,
    act: Act,
) -> Result<Incident, Problem> {
    let Path(id) = id?;
    incidents::act(state, None, id, act, operator.actor, AN_OPERATOR.to_owned()).await
}

pub(in crate::http) async fn acknowledge(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Json<IncidentView>, Problem> {
    Ok(Json(IncidentView::of_org(act(&state, operator, id, Act::Acknowledge).await?)))
}

pub(in crate::http) async fn resolve(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Json<IncidentView>, Problem> {
    Ok(Json(IncidentView::of_org(act(&state, operator, id, Act::Resolve).await?)))
}
