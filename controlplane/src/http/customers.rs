//! `/v1/calls`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use controlplane_core::{
    access::Mode,
    call::CallStatus,
    ids::{CallId, OrgId},
    request::CallRequest,
};
use controlplane_store::{
    StoreError,
    calls::{Actor, CancelRequested, Page, RequestCancel},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    State,
    accepting::{Asker, Taken, accept},
    auth::Customer,
    body::JsonBody,
    openapi::signature::{Answers, JSON, Sketch},
    problem::{Code, Problem},
    shape::{CallView, ListView},
};

/// Calls of a page where none is asked.
const LIMIT_DEFAULT: u16 = 20;
/// Most calls of a page.
const LIMIT_MAX: u16 = 100;

pub(super) async fn create(
    customer: Customer,
    AxumState(state): AxumState<State>,
    headers: HeaderMap,
    body: JsonBody<CallRequest>,
) -> Result<Taken, Problem> {
    let Customer { org, actor, mode, .. } = customer;
    accept(&state, "/v1/calls", Asker { org, actor, mode, trace: None }, &headers, body).await
}

pub(super) async fn show(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<CallId>, PathRejection>,
) -> Result<Json<CallView>, Problem> {
    let Path(id) = id?;
    let call = state.store.call(&customer.org, &id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(call.into()))
}

/// `?limit=&starting_after=&ending_before=&status=`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Most calls of the page.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("default" = LIMIT_DEFAULT))]
    limit: Option<u16>,
    /// Calls older than this one.
    starting_after: Option<CallId>,
    /// Calls newer than this one.
    ending_before: Option<CallId>,
    /// Only calls that are there now.
    status: Option<CallStatus>,
}

pub(super) async fn list(
    customer: Customer,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<CallView>>, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::new(Code::InvalidField, "limit: 1 to 100.").param("limit"));
    }
    if query.starting_after.is_some() && query.ending_before.is_some() {
        return Err(Problem::new(Code::InvalidField, "Only one of starting_after and ending_before.")
            .param("ending_before"));
    }
    let page = Page {
        limit,
        starting_after: query.starting_after,
        ending_before: query.ending_before,
        status: query.status,
    };
    let page = state.store.list_calls(&customer.org, page).await?;
    let data = page.calls.into_iter().map(CallView::from).collect();
    Ok(Json(ListView { object: "list", data, has_more: page.has_more }))
}

pub(super) async fn cancel(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<CallId>, PathRejection>,
) -> Result<Ending, Problem> {
    let Path(id) = id?;
    if customer.mode == Mode::Test {
        let call = state.store.call(&customer.org, &id).await?.ok_or_else(Problem::not_found)?;
        if call.mode == Mode::Live {
            return Err(Problem::new(Code::Forbidden, "A test key ends test calls only."));
        }
    }
    end(&state, &customer.org, &id, customer.actor).await
}

/// A call that was asked to end: 202, or 200 where it had.
pub(super) struct Ending(StatusCode, CallView);

impl IntoResponse for Ending {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl Answers for Ending {
    fn answer(sketch: &mut Sketch) {
        let call = sketch.answered::<CallView>();
        sketch.answer(StatusCode::ACCEPTED, JSON, call.clone());
        sketch.answer(StatusCode::OK, JSON, call);
    }
}

/// Asks a call to end; shared with the operators' door. 202: the wish is durable, and the end comes as soon
/// as the phone is silent. 200: it had ended.
pub(super) async fn end(state: &State, org: &OrgId, id: &CallId, actor: Actor) -> Result<Ending, Problem> {
    let at = state.clock.now();
    let audit_id = state.chance.audit_id(at);
    let wish = RequestCancel { org: org.clone(), call: id.clone(), at, actor, audit_id };
    let (store, calls) = (Arc::clone(&state.store), Arc::clone(&state.calls));
    // In a task of its own: a client that hangs up now must not leave a wish that nobody hears.
    let wishing = tokio::spawn(async move {
        let wished = store.request_cancel(wish).await?;
        if let CancelRequested::Recorded(call) = &wished {
            calls.end(call.clone()).await;
        }
        Ok::<_, StoreError>(wished)
    });
    let wished = wishing.await.map_err(|error| {
        tracing::error!(%error, "canceling a call broke");
        Problem::new(Code::Internal, "The log tells more under this request_id. Ask again.")
    })??;
    match wished {
        CancelRequested::NotFound => Err(Problem::not_found()),
        CancelRequested::AlreadyEnded(call) => Ok(Ending(StatusCode::OK, call.into())),
        CancelRequested::Recorded(call) => Ok(Ending(StatusCode::ACCEPTED, call.into())),
    }
}
