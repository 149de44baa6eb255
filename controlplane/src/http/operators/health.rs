//! Why trunks and nodes are as they are, and operators' holds on them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State as AxumState, rejection::PathRejection},
    http::StatusCode,
};
use controlplane_core::{
    health::{Standing, Withheld},
    ids::AttemptId,
    names::{NodeName, TrunkName},
};
use controlplane_store::health::{HoldTarget, SetHold};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    health::CanaryRefused,
    http::{
        State,
        auth::Operator,
        body::JsonBody,
        problem::{Code, Problem},
    },
    registry::TrunkWhy,
};

/// Longest reason of a hold, in bytes.
const REASON_MAX: usize = 300;

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

pub(in crate::http) fn undeclared(noun: &str, name: &impl std::fmt::Display) -> Problem {
    Problem::new(
        Code::NotFound,
        format!(
            "The fleet in force has no {noun} {name}: see `ringward {noun} list`, or `ringward apply` it."
        ),
    )
}

/// `preferred`, `reserve`, `last_resort`, or what withholds it.
pub(in crate::http) fn standing(standing: Result<Standing, Withheld>) -> &'static str {
    match standing {
        Ok(standing) => standing.as_str(),
        Err(withheld) => withheld.why.as_str(),
    }
}

pub(in crate::http) async fn trunk_why(
    _: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(name) = name?;
    let why = state.registry.trunk_why(now(), &name).ok_or_else(|| undeclared("trunk", &name))?;
    let TrunkWhy { trunk, health, node, standing: stands, finding, hold, node_hold, channels: _ } = why;
    let asr = health.asr();
    let mut shown = json!({
        "object": "trunk_why",
        "trunk": trunk.name,
        "node": trunk.node,
        "carrier": trunk.carrier,
        "endpoint": trunk.endpoint,
        "standing": standing(stands),
        "finding": finding,
        "hold": hold,
        "asr": asr,
        "canary": trunk.canary,
        "last_canary": state.canaries.last(&name),
    });
    merge(&mut shown, &json!(health));
    shown["node_health"] = json!(node);
    shown["node_health"]["hold"] = json!(node_hold);
    Ok(Json(shown))
}

pub(in crate::http) async fn node_why(
    _: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(name) = name?;
    let (why, hold) = state.registry.node_why(now(), &name).ok_or_else(|| undeclared("node", &name))?;
    let mut shown = json!({"object": "node_why", "node": name, "hold": hold});
    merge(&mut shown, &json!(why));
    Ok(Json(shown))
}

/// Places a canary over a trunk now; shared with the console. What comes of it is told by `why`.
pub(in crate::http) async fn place_canary(state: &State, name: &TrunkName) -> Result<AttemptId, Problem> {
    if state.registry.fleet().0.trunk(name).is_none() {
        return Err(undeclared("trunk", name));
    }
    let attempt = state.canaries.now(name).await.map_err(|refused| {
        let detail = format!("{refused}. Nothing was dialled; `ringward trunk why {name}` tells more.");
        let code = match refused {
            CanaryRefused::NoDatabase => Code::Unavailable,
            CanaryRefused::NoNumber
            | CanaryRefused::UnderWay
            | CanaryRefused::Lately(_)
            | CanaryRefused::TooMany
            | CanaryRefused::Trunk(_) => Code::CanaryRefused,
        };
        Problem::new(code, detail)
    })?;
    tracing::warn!(trunk = %name, %attempt, "an operator's canary");
    Ok(attempt)
}

pub(in crate::http) async fn canary(
    _: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Path(name) = name?;
    let attempt = place_canary(&state, &name).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"object": "canary", "trunk": name, "attempt": attempt}))))
}

fn merge(into: &mut Value, from: &Value) {
    for (member, value) in from.as_object().into_iter().flatten() {
        into[member] = value.clone();
    }
}

/// Body of a hold; may be `{}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct HoldBody {
    /// Why, for the audit log and whoever reads it at night.
    #[serde(default)]
    reason: Option<String>,
}

impl HoldBody {
    /// For this reason, or for none.
    pub(in crate::http) fn because(reason: Option<String>) -> Self {
        Self { reason }
    }
}

async fn hold(
    state: &State,
    operator: Operator,
    target: HoldTarget,
    held: bool,
    body: HoldBody,
) -> Result<Json<Value>, Problem> {
    if let Some(reason) = &body.reason
        && (reason.is_empty() || reason.len() > REASON_MAX || reason.chars().any(char::is_control))
    {
        return Err(
            Problem::new(Code::InvalidField, "1 to 300 bytes without control characters.").param("reason")
        );
    }
    let at = state.clock.now();
    let set = SetHold {
        target: target.clone(),
        held,
        reason: body.reason,
        at,
        actor: operator.actor,
        audit_id: state.chance.audit_id(at),
    };
    let (keeping, registry) = (Arc::clone(&state.keeping), Arc::clone(&state.registry));
    let whole = tokio::spawn(async move { keeping.hold(&registry, set).await });
    let changed = whole
        .await
        .map_err(|_| Problem::new(Code::Internal, "The log tells more; look at what is in force."))??;
    let (noun, name) = match &target {
        HoldTarget::Trunk(trunk) => ("trunk", trunk.to_string()),
        HoldTarget::Node(node) => ("node", node.to_string()),
    };
    tracing::warn!(noun, name, held, changed, "an operator's hold");
    Ok(Json(json!({"object": "hold", noun: name, "held": held, "changed": changed})))
}

pub(in crate::http) async fn hold_trunk(
    state: &State,
    operator: Operator,
    name: Result<Path<TrunkName>, PathRejection>,
    held: bool,
    body: HoldBody,
) -> Result<Json<Value>, Problem> {
    let Path(name) = name?;
    if state.registry.fleet().0.trunk(&name).is_none() {
        return Err(undeclared("trunk", &name));
    }
    hold(state, operator, HoldTarget::Trunk(name), held, body).await
}

pub(in crate::http) async fn hold_node(
    state: &State,
    operator: Operator,
    name: Result<Path<NodeName>, PathRejection>,
    held: bool,
    body: HoldBody,
) -> Result<Json<Value>, Problem> {
    let Path(name) = name?;
    if state.registry.fleet().0.node(&name).is_none() {
        return Err(undeclared("node", &name));
    }
    hold(state, operator, HoldTarget::Node(name), held, body).await
}

pub(in crate::http) async fn disable(
    operator: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
    JsonBody { value, .. }: JsonBody<HoldBody>,
) -> Result<Json<Value>, Problem> {
    hold_trunk(&state, operator, name, true, value).await
}

pub(in crate::http) async fn enable(
    operator: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
    JsonBody { value, .. }: JsonBody<HoldBody>,
) -> Result<Json<Value>, Problem> {
    hold_trunk(&state, operator, name, false, value).await
}

pub(in crate::http) async fn drain(
    operator: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
    JsonBody { value, .. }: JsonBody<HoldBody>,
) -> Result<Json<Value>, Problem> {
    hold_node(&state, operator, name, true, value).await
}

pub(in crate::http) async fn undrain(
    operator: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
    JsonBody { value, .. }: JsonBody<HoldBody>,
) -> Result<Json<Value>, Problem> {
    hold_node(&state, operator, name, false, value).await
}
