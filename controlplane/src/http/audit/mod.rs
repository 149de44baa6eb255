//! The audit log at the doors, and refusals on their way into it.

pub(super) mod export;
pub(super) mod proof;

use std::sync::{Arc, OnceLock};

use axum::{
    Json,
    body::Body,
    extract::{ConnectInfo, MatchedPath, Query, Request, State as AxumState, rejection::QueryRejection},
    http::{HeaderMap, Response, StatusCode, header},
};
use controlplane_core::{
    ids::{AuditId, OrgId, RequestId},
    schema::Moment,
};
use controlplane_store::{
    audit::{ActorType, AuditFilter, AuditOutcome, AuditRow},
    calls::Actor,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    State,
    auth::{Customer, Operator},
    operators::moment,
    problem::{Code, Problem, ProblemBody},
    routes::Door,
    shape::ListView,
};
use crate::{
    agents::Peer,
    audit::{actions, denials::Denial},
    doors::Client,
};

/// Rows of a page where none is asked, and at most.
const LIMIT_MAX: u16 = 100;
/// Longest user agent that is kept, in characters.
const USER_AGENT_MAX: usize = 200;
/// Longest target that is kept, in characters.
const TARGET_MAX: usize = 100;
/// What changes nothing in the database, but something outside: its success has its row from here.
const ACTS_OUTSIDE: [&str; 2] = ["webhook_endpoint.test", "trunk.canary"];

/// A refusal that has its row, with the rule, from where it was decided.
const OWN_ROW: &str = "not_permitted";

/// What the peer calls itself, cut, without what a terminal would obey.
pub(super) fn user_agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(text.chars().filter(|c| !c.is_control()).take(USER_AGENT_MAX).collect())
}

/// Who asks, once it has been found out; for the row of a refusal.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller(Arc<OnceLock<Actor>>);

impl Caller {
    /// It is this one.
    pub(super) fn is(&self, actor: &Actor) {
        // The first is who the door let in.
        let _ = self.0.set(actor.clone());
    }
}

/// A request that would change something.
pub(super) struct Asked {
    caller: Caller,
    otherwise: Actor,
    actor_type: ActorType,
    action: String,
    target_type: &'static str,
    target_id: String,
}

impl Asked {
    /// What is asked for, if it would change something.
    pub(super) fn of(door: Door, request: &mut Request, id: &RequestId) -> Option<Self> {
        // Strangers can ask for nothing that would change anything.
        if request.method().is_safe() || door == Door::Public {
            return None;
        }
        let route = request.extensions().get::<MatchedPath>()?.as_str().to_owned();
        let path = request.uri().path();
        let (action, target_type) = actions::of(request.method().as_str(), &route);
        let target_id = target(&route, path);
        let actor_type = match door {
            Door::Operators => ActorType::Operator,
            Door::Agents => ActorType::Agent,
            Door::Customers | Door::Public => ActorType::Customer,
        };
        let client = request.extensions().get::<Client>().map(|client| client.ip);
        let agent = || request.extensions().get::<ConnectInfo<Peer>>().map(|info| info.0.address.ip());
        let otherwise = Actor {
            request: Some(id.clone()),
            ip: client.or_else(agent).map(|ip| ip.to_canonical().to_string()),
            user_agent: user_agent(request.headers()),
            ..Actor::default()
        };
        let caller = Caller::default();
        request.extensions_mut().insert(caller.clone());
        Some(Self { caller, otherwise, actor_type, action, target_type, target_id })
    }

    /// Puts a refusal or a failure on its way into the audit log.
    pub(super) fn answered(self, state: &State, response: &Response<Body>) {
        let status = response.status();
        let outcome = match status {
            StatusCode::METHOD_NOT_ALLOWED => return,
            _ if status.is_client_error() => AuditOutcome::Denied,
            _ if status.is_server_error() => AuditOutcome::Failure,
            _ if ACTS_OUTSIDE.contains(&self.action.as_str()) => AuditOutcome::Success,
            _ => return,
        };
        let code = response.extensions().get::<ProblemBody>().map(|body| body.code);
        if code == Some(OWN_ROW) {
            return;
        }
        let reason = code.map_or_else(|| status.as_u16().to_string(), str::to_owned);
        let actor = self.caller.0.get().cloned().unwrap_or(self.otherwise);
        let Self { actor_type, action, target_type, target_id, .. } = self;
        let denial = Denial { actor_type, actor, action, target_type, target_id, outcome, reason };
        state.audit.denials.note(state.clock.now(), denial);
    }
}

/// The first parameter of the path; `-` where there is none, or none that could be.
fn target(route: &str, path: &str) -> String {
    let mut pairs = route.split('/').zip(path.split('/'));
    let found = pairs.find(|(template, _)| template.starts_with('{')).map(|(_, value)| value);
    let found = found.filter(|value| !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic()));
    found.map_or_else(|| "-".to_owned(), |value| value.chars().take(TARGET_MAX).collect())
}

/// What lists and exports ask for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// Later than this moment.
    #[schemars(with = "Option<Moment>")]
    after: Option<String>,
    /// Not later than this moment.
    #[schemars(with = "Option<Moment>")]
    until: Option<String>,
    /// By the key with this id.
    actor: Option<String>,
    /// One action as `call.create`, or `key.*` for all that begin so.
    action: Option<String>,
    /// To the thing with this id.
    target: Option<String>,
    #[schemars(extend("enum" = ["success", "denied", "failure"]))]
    outcome: Option<String>,
    // Operators' alone.
    #[schemars(skip)]
    org: Option<OrgId>,
    /// Most rows of the page.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("default" = LIMIT_MAX))]
    limit: Option<u16>,
    /// Rows older than this one.
    starting_after: Option<AuditId>,
    // Exports' alone.
    #[schemars(skip)]
    format: Option<export::Format>,
}

impl AuditQuery {
    /// For action, actor, target and outcome, as a form sends them: what is empty is not asked for.
    pub(super) fn of(texts: [&str; 4], starting_after: Option<AuditId>) -> Self {
        let [action, actor, target, outcome] =
            texts.map(|text| Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
        Self { action, actor, target, outcome, starting_after, ..Self::default() }
    }

    fn filter(&self, state: &State) -> Result<AuditFilter, Problem> {
        let read = |text: &Option<String>, param: &'static str| {
            let wrong =
                || Problem::new(Code::InvalidField, format!("{param}: a moment as RFC 3339.")).param(param);
            let at = |text: &String| OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong());
            text.as_ref().map(at).transpose()
        };
        // PostgreSQL text cannot hold NUL, and SQLite must not differ.
        for (text, param) in [(&self.actor, "actor"), (&self.action, "action"), (&self.target, "target")] {
            if text.as_deref().is_some_and(|text| text.contains('\0')) {
                return Err(Problem::new(Code::InvalidField, "It must not contain NUL.").param(param));
            }
        }
        let horizon = state.audit.horizon();
        let outcome = self.outcome.clone();
        if outcome.as_deref().is_some_and(|word| !["success", "denied", "failure"].contains(&word)) {
            let text = "outcome: success, denied or failure.";
            return Err(Problem::new(Code::InvalidField, text).param("outcome"));
        }
        Ok(AuditFilter {
            org: self.org.clone(),
            after: Some(read(&self.after, "after")?.map_or(horizon, |after| after.max(horizon))),
            until: read(&self.until, "until")?,
            actor: self.actor.clone(),
            action: self.action.clone(),
            target: self.target.clone(),
            outcome,
        })
    }

    fn is_filtered(&self) -> bool {
        let texts = [&self.after, &self.until, &self.actor, &self.action, &self.target, &self.outcome];
        texts.iter().any(|text| text.is_some()) || self.org.is_some()
    }

    fn limit(&self) -> Result<u16, Problem> {
        let limit = self.limit.unwrap_or(LIMIT_MAX);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::new(Code::InvalidField, "limit: 1 to 100.").param("limit"));
        }
        if self.format.is_some() {
            return Err(Problem::new(Code::InvalidField, "format: of exports alone.").param("format"));
        }
        Ok(limit)
    }
}

/// A row as operators see it.
fn shown(row: &AuditRow) -> Value {
    let r = &row.record;
    json!({
        "id": r.id, "object": "audit_row", "occurred_at": moment(row.occurred_at), "org": r.org,
        "actor_type": r.actor_type, "actor": r.actor_id, "key": row.actor.key, "key_prefix": r.key_prefix,
        "auth_method": r.auth_method, "action": r.action, "target_type": r.target_type, "target_id": r.target_id,
        "outcome": r.outcome, "reason": r.reason, "ip": r.ip, "user_agent": r.user_agent,
        "request_id": r.request_id, "changes": r.changes,
        "seq": row.link.map(|link| link.seq), "hash": row.link.map(|link| link.hash),
        "prev_hash": row.link.map(|link| link.prev_hash),
    })
}

/// Something that was done, or was refused. Of operators it tells no more than that it was one.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditRow")]
pub(super) struct RowView {
    id: String,
    #[schemars(extend("const" = "audit_row"))]
    object: &'static str,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    occurred_at: OffsetDateTime,
    #[schemars(extend("enum" = ["customer", "operator", "agent", "system"]))]
    actor_type: String,
    /// The key's id.
    actor: Option<String>,
    key_prefix: Option<String>,
    auth_method: Option<String>,
    /// As `call.create`.
    action: String,
    target_type: String,
    target_id: String,
    #[schemars(extend("enum" = ["success", "denied", "failure"]))]
    outcome: String,
    /// Why it was denied or failed.
    reason: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    /// What changed, redacted.
    changes: Value,
}

/// A row as its organisation sees it: no place in the chain, which tells of others' rows, and of operators no more than
/// that it was one.
fn shown_to_customer(row: &AuditRow) -> RowView {
    let r = &row.record;
    let of_customer = r.actor_type == "customer";
    let own = |text: &Option<String>| text.clone().filter(|_| of_customer);
    RowView {
        id: r.id.clone(),
        object: "audit_row",
        occurred_at: row.occurred_at,
        actor_type: r.actor_type.clone(),
        actor: own(&r.actor_id),
        key_prefix: own(&r.key_prefix),
        auth_method: own(&r.auth_method),
        action: r.action.clone(),
        target_type: r.target_type.clone(),
        target_id: r.target_id.clone(),
        outcome: r.outcome.clone(),
        reason: r.reason.clone(),
        ip: own(&r.ip),
        user_agent: own(&r.user_agent),
        request_id: own(&r.request_id),
        changes: r.changes.clone(),
    }
}

async fn page<T>(
    state: &State,
    query: &AuditQuery,
    shown: fn(&AuditRow) -> T,
) -> Result<Json<ListView<T>>, Problem> {
    let (rows, has_more) = rows(state, query).await?;
    Ok(Json(ListView { object: "list", data: rows.iter().map(shown).collect(), has_more }))
}

/// A page of rows, newest first, and whether there are more.
pub(super) async fn rows(state: &State, query: &AuditQuery) -> Result<(Vec<AuditRow>, bool), Problem> {
    let limit = query.limit()?;
    let filter = query.filter(state)?;
    let mut rows = state.store.audit_rows(&filter, query.starting_after.as_ref(), limit + 1).await?;
    let has_more = rows.len() > usize::from(limit);
    rows.truncate(usize::from(limit));
    Ok((rows, has_more))
}

/// `GET /admin/v1/audit`: newest first.
pub(super) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<ListView<Value>>, Problem> {
    let Query(query) = query?;
    page(&state, &query, shown).await
}

/// `GET /v1/audit_log`: the organisation's own, newest first.
pub(super) async fn of_customer(
    customer: Customer,
    AxumState(state): AxumState<State>,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<ListView<RowView>>, Problem> {
    let Query(mut query) = query?;
    if query.org.is_some() {
        return Err(Problem::new(Code::InvalidField, "org: it is always your own.").param("org"));
    }
    query.org = Some(customer.org);
    page(&state, &query, shown_to_customer).await
}

/// `GET /admin/v1/audit/heads`: what is signed and kept outside of the database, one line each.
pub(super) async fn heads(
    _: Operator,
    AxumState(state): AxumState<State>,
) -> Result<Response<Body>, Problem> {
    let heads = state.audit.heads().await.map_err(|error| {
        tracing::error!(%error, "the audit log's heads cannot be read");
        Problem::new(Code::Internal, "The heads cannot be read. The log tells more under this request_id.")
    })?;
    let mut response = Response::new(Body::from(heads));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// `GET /admin/v1/audit/key`: what heads and checkpoints are signed with by now.
pub(super) async fn key(_: Operator, AxumState(state): AxumState<State>) -> Json<Value> {
    Json(json!({"object": "audit_key", "algorithm": "ed25519", "public_key": state.audit.public_key()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_the_first_parameter() {
        for (route, path, id) in [
            ("/v1/calls/{id}/cancel", "/v1/calls/call_1/cancel", "call_1"),
            ("/v1/calls", "/v1/calls", "-"),
            ("/v1/calls/{id}", "/v1/calls/", "-"),
            ("/admin/v1/nodes/{name}/token", "/admin/v1/nodes/%0a/token", "%0a"),
        ] {
            assert_eq!(target(route, path), id);
        }
        assert_eq!(target("/v1/calls/{id}", &format!("/v1/calls/{}", "x".repeat(500))).len(), TARGET_MAX);
    }
}
