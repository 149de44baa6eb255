//! Operators on agents: tokens, revocation, and what each link says.

use axum::{
    Json,
    extract::{Path, State as AxumState, rejection::PathRejection},
    http::StatusCode,
};
use controlplane_core::names::NodeName;
use controlplane_store::agents::NodeToken;
use node_agent_protocol::{Capability, JoinToken, PlaneUrl, TokenSecret};
use serde::Deserialize;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use super::moment;
use crate::http::{
    State,
    auth::Operator,
    body::JsonBody,
    problem::{Code, Problem},
    shape::ListView,
};

/// How long a token can be used.
const TOKEN_LIFETIME: Duration = Duration::hours(1);
/// Facts shown at once.
const FACTS_LIMIT: u16 = 100;

/// Body of `POST /admin/v1/nodes/{name}/token`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TokenBody {
    /// Where this node reaches the replicas; absent: as set by `agents.urls`.
    #[serde(default)]
    urls: Option<Vec<PlaneUrl>>,
}

pub(in crate::http) async fn token(
    operator: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
    JsonBody { value: body, .. }: JsonBody<TokenBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let Path(node) = name?;
    declared(&state, &node)?;
    let urls = body.urls.unwrap_or_else(|| state.agents.urls.clone());
    let secret = TokenSecret::new(state.chance.secret());
    let secret_sha256 = secret.sha256();
    let ca_sha256 = state.agents.authority.fingerprint();
    let token = JoinToken { urls, ca_sha256, secret, node: node.clone() };
    let text = token.to_text().map_err(|error| {
        Problem::new(
            Code::InvalidField,
            format!("{error}. Say where nodes reach this control plane: --url https://HOST:8443, or for good RINGWARD_AGENTS__URLS='[\"https://HOST:8443\"]'."),
        )
        .param("urls")
    })?;
    let now = state.clock.now();
    let expires_at = now + TOKEN_LIFETIME;
    let kept = NodeToken { secret_sha256, node: node.clone(), created_at: now, expires_at, used_at: None };
    state.store.create_node_token(kept, operator.actor, state.chance.audit_id(now)).await?;
    let answer = json!({
        "object": "node_token", "node": node, "token": text, "expires_at": moment(expires_at),
        "urls": token.urls, "command": format!("ringward-agent join {text}"),
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(in crate::http) async fn revoke(
    operator: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(node) = name?;
    let now = state.clock.now();
    let audit_id = state.chance.audit_id(now);
    // A node that is declared no more may still hold a certificate: it is revoked all the same.
    let certificates = state.store.revoke_node(&node, now, operator.actor, audit_id).await?;
    state.agents.links.cut(&node);
    tracing::warn!(%node, certificates, "a node was revoked");
    Ok(Json(json!({
        "object": "node_revocation", "node": node, "certificates": certificates, "revoked_at": moment(now),
    })))
}

/// Every declared node's agent, as this replica sees it.
pub(in crate::http) async fn list(_: Operator, AxumState(state): AxumState<State>) -> Json<ListView<Value>> {
    let (fleet, _) = state.registry.fleet();
    Json(ListView::whole(fleet.nodes().map(|node| view(&state, &node.name)).collect()))
}

pub(in crate::http) async fn show(
    _: Operator,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let Path(node) = name?;
    declared(&state, &node)?;
    let mut shown = view(&state, &node);
    let seen = state.agents.links.agent(&node).seen;
    shown["observations"] = json!(seen.as_ref().map(|seen| &*seen.observations));
    let facts = state.store.agent_facts(Some(&node), FACTS_LIMIT).await?;
    shown["facts"] = facts
        .into_iter()
        .map(|kept| {
            json!({
                "id": kept.fact.id, "kind": kept.fact.kind, "at_unix_ms": kept.fact.at_ms,
                "received_at": moment(kept.received_at), "body": kept.fact.body,
            })
        })
        .collect();
    Ok(Json(shown))
}

fn view(state: &State, node: &NodeName) -> Value {
    let agent = state.agents.links.agent(node);
    let hello = agent.link.as_ref().map(|link| &link.hello);
    let seen = agent.seen.as_ref();
    let lacking = hello.map(|hello| hello.capabilities.lacking(&Capability::USED));
    json!({
        "object": "agent",
        "node": node,
        "linked": agent.link.is_some(),
        "since": agent.link.as_ref().and_then(|link| moment(link.since)),
        "agent_version": hello.map(|hello| hello.agent_version.as_str()),
        "lacking": lacking,
        "unknown_messages": agent.link.as_ref().map(|link| link.unknown_messages),
        "observed_ms_ago": seen.map(|seen| {
            u64::try_from(Instant::now().duration_since(seen.taken).as_millis()).unwrap_or(u64::MAX)
        }),
        "clock_offset_ms": seen.map(|seen| seen.clock_offset_ms),
        "asterisk": seen.and_then(|seen| seen.observations.asterisk.as_ref()),
        "findings": seen.map(|seen| &seen.observations.findings),
        "spool": seen.map(|seen| seen.observations.spool),
        "certificate_expires_at": seen
            .and_then(|seen| OffsetDateTime::from_unix_timestamp(seen.observations.certificate_expires_unix_s?).ok())
            .and_then(moment),
        "firewall": seen.and_then(|seen| seen.observations.firewall.as_deref()),
        "policy_revision": seen.map(|seen| seen.observations.policy_revision),
    })
}

fn declared(state: &State, node: &NodeName) -> Result<(), Problem> {
    if state.agents.links.is_declared(node) {
        return Ok(());
    }
    Err(Problem::new(
        Code::NotFound,
        format!("fleet.toml declares no node {node}: `ringward apply` it first."),
    ))
}
