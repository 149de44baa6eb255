//! Calls at the operators' door: the same as the customers', of the first organisation.

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    http::HeaderMap,
};
use controlplane_core::{
    access::Mode,
    ids::{CallId, OrgId},
    request::CallRequest,
};

use crate::http::{
    State,
    auth::Operator,
    body::JsonBody,
    customers::{self, Asker, Ending, ListQuery, Taken},
    problem::Problem,
    shape::{CallView, ListView},
};

pub(in crate::http) async fn create(
    operator: Operator,
    AxumState(state): AxumState<State>,
    headers: HeaderMap,
    body: JsonBody<CallRequest>,
) -> Result<Taken, Problem> {
    let asker = Asker { org: OrgId::first(), actor: operator.actor, mode: Mode::Live };
    customers::accept(&state, asker, &headers, body).await
}

pub(in crate::http) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<CallView>>, Problem> {
    let Query(query) = query?;
    customers::page(&state, &OrgId::first(), query).await
}

pub(in crate::http) async fn show(
    _: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<CallId>, PathRejection>,
) -> Result<Json<CallView>, Problem> {
    let Path(id) = id?;
    customers::one(&state, &OrgId::first(), &id).await
}

pub(in crate::http) async fn cancel(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<CallId>, PathRejection>,
) -> Result<Ending, Problem> {
    let Path(id) = id?;
    customers::end(&state, &OrgId::first(), &id, operator.actor).await
}
