//! Calls at the operators' door: placed for the first organisation, seen and ended of every one. Who may only look sees
//! those of the first.

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    http::HeaderMap,
};
use controlplane_core::{
    access::{Mode, Role},
    call::CallStatus,
    ids::{CallId, OrgId},
    number::E164,
    request::CallRequest,
};
use controlplane_store::{
    calls::Call,
    search::{CallSearch, CallsFound, Noted},
};
use serde::{Deserialize, Serialize};

use crate::http::{
    State,
    accepting::{Asker, Taken, accept},
    auth::Operator,
    body::JsonBody,
    customers::{self, Ending},
    problem::{Code, Problem},
    shape::CallView,
};

/// Calls of a page where none is asked, and the most.
const LIMITS: (u16, u16) = (20, 100);

pub(in crate::http) async fn create(
    operator: Operator,
    AxumState(state): AxumState<State>,
    headers: HeaderMap,
    body: JsonBody<CallRequest>,
) -> Result<Taken, Problem> {
    let asker = Asker { org: OrgId::first(), actor: operator.actor, mode: Mode::Live, trace: None };
    accept(&state, "/admin/v1/calls", asker, &headers, body).await
}

/// A call of any organisation.
#[derive(Debug, Serialize)]
pub(in crate::http) struct CallOfAny {
    #[serde(flatten)]
    call: CallView,
    org: OrgId,
}

impl From<Call> for CallOfAny {
    fn from(call: Call) -> Self {
        Self { org: call.org.clone(), call: call.into() }
    }
}

/// Whose calls somebody with this role sees: `None`: everybody's.
fn seen_by(role: Role) -> Option<OrgId> {
    (role < Role::Operator).then(OrgId::first)
}

/// A call that somebody with this role may see; shared with the console.
pub(in crate::http) async fn find(state: &State, role: Role, id: &CallId) -> Result<Call, Problem> {
    let found = match seen_by(role) {
        Some(org) => state.store.call(&org, id).await?,
        None => state.store.call_of_any(id).await?,
    };
    found.ok_or_else(Problem::not_found)
}

/// Calls that somebody with this role may see; shared with the console.
pub(in crate::http) async fn search(
    state: &State,
    role: Role,
    mut search: CallSearch,
) -> Result<CallsFound, Problem> {
    if let Some(own) = seen_by(role) {
        if search.org.as_ref().is_some_and(|asked| *asked != own) {
            let detail =
                "Calls of another organisation than the first take the role operator or a higher one.";
            return Err(Problem::new(Code::Forbidden, detail));
        }
        search.org = Some(own);
    }
    Ok(state.store.search_calls(search).await?)
}

/// What a customer has noted with a call: `key=value`, or the value alone, whatever its key.
pub(in crate::http) fn noted(text: &str) -> Noted {
    let (key, value) = text.split_once('=').unwrap_or(("", text));
    let key = Some(key.to_owned()).filter(|key| !key.is_empty());
    Noted { key, value: value.to_owned() }
}

/// `?limit=&starting_after=&status=&org=&to=&metadata=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SearchQuery {
    limit: Option<u16>,
    starting_after: Option<CallId>,
    status: Option<CallStatus>,
    /// Only this organisation's.
    org: Option<OrgId>,
    /// Only those to this number.
    to: Option<E164>,
    /// See [`noted`].
    metadata: Option<String>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(in crate::http) struct FoundView {
    object: &'static str,
    data: Vec<CallOfAny>,
    /// Whether older ones were not looked at.
    has_more: bool,
    /// What to ask for as `starting_after`, to look on: of a search, not always the last that it found.
    next: Option<CallId>,
}

pub(in crate::http) async fn list(
    operator: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<SearchQuery>, QueryRejection>,
) -> Result<Json<FoundView>, Problem> {
    let Query(SearchQuery { limit, starting_after, status, org, to, metadata }) = query?;
    let limit = limit.unwrap_or(LIMITS.0);
    if !(1..=LIMITS.1).contains(&limit) {
        return Err(Problem::new(Code::InvalidField, "limit: 1 to 100.").param("limit"));
    }
    if metadata.as_deref().is_some_and(|text| text.contains('\0')) {
        return Err(Problem::new(Code::InvalidField, "It must not contain NUL.").param("metadata"));
    }
    let metadata = metadata.as_deref().map(noted);
    let asked = CallSearch { org, to, status, metadata, before: starting_after, limit };
    let CallsFound { calls, next } = search(&state, operator.role, asked).await?;
    let data = calls.into_iter().map(CallOfAny::from).collect();
    Ok(Json(FoundView { object: "list", data, has_more: next.is_some(), next }))
}

pub(in crate::http) async fn show(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<CallId>, PathRejection>,
) -> Result<Json<CallOfAny>, Problem> {
    let Path(id) = id?;
    Ok(Json(find(&state, operator.role, &id).await?.into()))
}

pub(in crate::http) async fn cancel(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Result<Path<CallId>, PathRejection>,
) -> Result<Ending, Problem> {
    let Path(id) = id?;
    let call = find(&state, operator.role, &id).await?;
    customers::end(&state, &call.org, &id, operator.actor).await
}
