//! What an operator allows customers: policies, limits, and how long what is of them is kept.

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
};
use controlplane_core::{
    guard::Policy,
    ids::{KeyId, OrgId},
    limits::{KeyLimits, OrgLimits},
    number::E164,
    retention::OrgRetention,
};
use controlplane_store::{
    guard::{RuleKind, SetRules, Subject},
    keys::Whose,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    http::{
        State,
        auth::Operator,
        body::JsonBody,
        guard,
        operators::moment,
        problem::{Code, Problem},
        shape::ListView,
    },
    rules::Raised,
};

/// Whose, as the address says.
type Named = Result<Path<String>, PathRejection>;

/// An organisation that there is, by its id, or the first one as `default`.
async fn org(state: &State, id: Named) -> Result<OrgId, Problem> {
    let Path(text) = id?;
    let id = if text == "default" { Some(OrgId::first()) } else { text.parse().ok() };
    let id = id.ok_or_else(Problem::not_found)?;
    state.store.org(&id).await?.map(|org| org.id).ok_or_else(Problem::not_found)
}

async fn set(
    state: &State,
    operator: Operator,
    subject: Subject,
    kind: RuleKind,
    rules: &(impl Serialize + Sync),
) -> Result<(), Problem> {
    let at = state.clock.now();
    let document = serde_json::to_value(rules).map_err(|error| {
        tracing::error!(%error, "rules cannot be written");
        Problem::new(Code::Internal, "Nothing was done. The log tells more under this request_id.")
    })?;
    let audit_id = state.chance.audit_id(at);
    let set = SetRules { subject, kind, document, at, actor: operator.actor, audit_id };
    let rules = std::sync::Arc::clone(&state.rules);
    let known = tokio::spawn(async move { rules.set(set).await }).await.map_err(|error| {
        tracing::error!(%error, "setting rules broke");
        Problem::new(Code::Internal, "The log tells more under this request_id. Ask again.")
    })??;
    if known { Ok(()) } else { Err(Problem::not_found()) }
}

pub(in crate::http) async fn policy(
    _: Operator,
    AxumState(state): AxumState<State>,
    id: Named,
) -> Result<Json<Policy>, Problem> {
    Ok(Json(state.rules.policy(&org(&state, id).await?).as_ref().clone()))
}

pub(in crate::http) async fn set_policy(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Named,
    JsonBody { value: policy, .. }: JsonBody<Policy>,
) -> Result<Json<Policy>, Problem> {
    policy
        .validate()
        .map_err(|error| Problem::new(Code::InvalidField, format!("{error}.")).param(error.param))?;
    set(&state, operator, Subject::Org(org(&state, id).await?), RuleKind::Policy, &policy).await?;
    Ok(Json(policy))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ExplainQuery {
    to: E164,
    from: Option<E164>,
}

/// What the guard would say; of an emergency number also which trunk would dial it.
pub(in crate::http) async fn explain(
    _: Operator,
    AxumState(state): AxumState<State>,
    id: Named,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) = query?;
    let verdict = guard::verdict(&state, &org(&state, id).await?, &query.to, query.from.as_ref());
    let mut shown = json!(guard::shown(&verdict));
    if let Err(controlplane_core::guard::Denied::Emergency { trunk, code }) = &verdict.decision {
        shown["trunk"] = trunk.as_str().into();
        shown["code"] = (*code).into();
    }
    shown["object"] = "policy_explanation".into();
    shown["to"] = json!(query.to);
    Ok(Json(shown))
}

/// What organisations have suddenly phoned, newest first.
pub(in crate::http) async fn alarms(
    _: Operator,
    AxumState(state): AxumState<State>,
) -> Json<ListView<Value>> {
    let shown = |raised: &Raised| {
        let alarm = &raised.alarm;
        json!({
            "object": "alarm", "org": raised.org, "at": moment(raised.at), "kind": alarm.kind,
            "country": alarm.country, "count": alarm.count, "max": alarm.max, "blocks": raised.blocks,
        })
    };
    Json(ListView::whole(state.rules.alarms().iter().map(shown).collect()))
}

pub(in crate::http) async fn limits(
    _: Operator,
    AxumState(state): AxumState<State>,
    id: Named,
) -> Result<Json<OrgLimits>, Problem> {
    Ok(Json(state.rules.limits(&org(&state, id).await?).as_ref().clone()))
}

pub(in crate::http) async fn set_limits(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Named,
    JsonBody { value: limits, .. }: JsonBody<OrgLimits>,
) -> Result<Json<OrgLimits>, Problem> {
    limits
        .validate()
        .map_err(|error| Problem::new(Code::InvalidField, format!("{error}.")).param(error.param))?;
    set(&state, operator, Subject::Org(org(&state, id).await?), RuleKind::Limits, &limits).await?;
    // Calls that wait may go on now.
    state.registry.nudge();
    Ok(Json(limits))
}

pub(in crate::http) async fn retention(
    _: Operator,
    AxumState(state): AxumState<State>,
    id: Named,
) -> Result<Json<OrgRetention>, Problem> {
    Ok(Json(state.rules.retention(&org(&state, id).await?)))
}

/// In force with the next look for what is old. Nothing is kept for longer than the server's settings say.
pub(in crate::http) async fn set_retention(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Named,
    JsonBody { value: retention, .. }: JsonBody<OrgRetention>,
) -> Result<Json<OrgRetention>, Problem> {
    retention
        .validate(state.privacy.longest())
        .map_err(|error| Problem::new(Code::InvalidField, format!("{error}.")).param(error.param))?;
    set(&state, operator, Subject::Org(org(&state, id).await?), RuleKind::Retention, &retention).await?;
    Ok(Json(retention))
}

/// A customer's key that there is.
async fn key(state: &State, id: Named) -> Result<KeyId, Problem> {
    let Path(text) = id?;
    let id = text.parse().map_err(|_| Problem::not_found())?;
    let key = state.store.key(&Whose::All, &id).await?.filter(|key| key.org.is_some());
    key.map(|key| key.id).ok_or_else(Problem::not_found)
}

pub(in crate::http) async fn key_limits(
    _: Operator,
    AxumState(state): AxumState<State>,
    id: Named,
) -> Result<Json<KeyLimits>, Problem> {
    Ok(Json(state.rules.key_limits(&key(&state, id).await?)))
}

pub(in crate::http) async fn set_key_limits(
    operator: Operator,
    AxumState(state): AxumState<State>,
    id: Named,
    JsonBody { value: limits, .. }: JsonBody<KeyLimits>,
) -> Result<Json<KeyLimits>, Problem> {
    limits
        .validate()
        .map_err(|error| Problem::new(Code::InvalidField, format!("{error}.")).param(error.param))?;
    set(&state, operator, Subject::Key(key(&state, id).await?), RuleKind::Limits, &limits).await?;
    Ok(Json(limits))
}
