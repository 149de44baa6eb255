//! `/admin/v1`, and what machines ask: metrics, liveness, readiness.

pub(super) mod agents;
pub(super) mod bans;
pub(super) mod calls;
pub(super) mod erasures;
pub(super) mod fleet;
pub(super) mod health;
pub(super) mod held;
pub(super) mod keys;
pub(super) mod notices;
pub(super) mod oncall;
pub(super) mod orgs;
pub(super) mod replicas;
pub(super) mod rules;

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State as AxumState, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use controlplane_core::{names::TrunkName, number::E164, selection::Choice};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, timeout};

use super::{
    State,
    auth::Operator,
    problem::{Code, Problem},
    shape::ListView,
};
use crate::registry::{NodeView, TrunkView};

/// Readiness asks the database, and does not wait for it longer than this.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// A moment as every answer writes it.
pub(super) fn moment(at: OffsetDateTime) -> Option<String> {
    at.format(&Rfc3339).ok()
}

/// The process lives.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The process can do its work: the database answers. Nodes may be down; that is told by metrics.
pub(super) async fn readyz(AxumState(state): AxumState<State>) -> Response {
    match timeout(READY_TIMEOUT, state.store.declared_fleet()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ready\n").into_response(),
        Ok(Err(_)) | Err(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response()
        }
    }
}

pub(super) async fn metrics(AxumState(state): AxumState<State>) -> Result<Response, Problem> {
    let text = state.metrics.render(&state.registry, &state.agents.links).map_err(|error| {
        tracing::error!(%error, "metrics could not be rendered");
        Problem::new(Code::Internal, "Metrics could not be rendered.")
    })?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

pub(super) async fn nodes(_: Operator, AxumState(state): AxumState<State>) -> Json<ListView<NodeView>> {
    Json(ListView::whole(state.registry.nodes()))
}

pub(super) async fn trunks(_: Operator, AxumState(state): AxumState<State>) -> Json<ListView<TrunkView>> {
    Json(ListView::whole(state.registry.trunks()))
}

/// Every route, and for how long it has failed open, if it does.
pub(super) async fn routes(_: Operator, AxumState(state): AxumState<State>) -> Json<ListView<Value>> {
    let (fleet, _) = state.registry.fleet();
    let panics = state.registry.panics(Instant::now().into_std());
    let route = |route: &controlplane_core::fleet::Route| {
        let panic = panics.iter().find(|(prefix, _)| *prefix == route.prefix);
        let panic_for_ms = panic.map(|(_, lasted)| u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX));
        json!({"prefix": route.prefix.as_str(), "tiers": route.tiers, "panic_for_ms": panic_for_ms})
    };
    Json(ListView::whole(fleet.routes().map(route).collect()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    to: E164,
    from: Option<E164>,
}

pub(super) async fn explain(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<RouteExplanation>, Problem> {
    let Query(query) = query?;
    Ok(Json(explanation(&state, &query.to, query.from.as_ref())))
}

/// Which trunk a number would take now, and why.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RouteExplanation {
    #[schemars(extend("const" = "route_explanation"))]
    object: &'static str,
    to: E164,
    /// The prefix of the route that it takes.
    route: Option<String>,
    /// What would be done.
    #[schemars(extend("enum" = ["trunk", "wait", "no_route", "nothing_left", "nothing_usable"]))]
    choice: &'static str,
    trunk: Option<TrunkName>,
    /// Whether so few trunks are held to work that all are tried.
    panic: bool,
    /// Every trunk of the route, in its order.
    considered: Vec<Considered>,
}

/// A trunk, and what would become of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Considered {
    /// From 0.
    tier: usize,
    trunk: TrunkName,
    /// `chosen`, or why it was passed over.
    verdict: &'static str,
}

/// Who would be chosen, and why; shared with what customers ask without dialling.
pub(super) fn explanation(state: &State, to: &E164, from: Option<&E164>) -> RouteExplanation {
    let (decision, panic) = state.registry.explain(to, from, Instant::now().into_std());
    let considered = decision.considered.iter().map(|c| Considered {
        tier: c.tier,
        trunk: c.trunk.clone(),
        verdict: c.verdict.as_str(),
    });
    let (choice, chosen) = match &decision.choice {
        Choice::Trunk(trunk) => ("trunk", Some(trunk.clone())),
        Choice::Wait { .. } => ("wait", None),
        Choice::NoRoute => ("no_route", None),
        Choice::NothingLeft => ("nothing_left", None),
        Choice::NothingUsable => ("nothing_usable", None),
    };
    RouteExplanation {
        object: "route_explanation",
        to: to.clone(),
        route: decision.route.as_ref().map(|prefix| prefix.as_str().to_owned()),
        choice,
        trunk: chosen,
        panic,
        considered: considered.collect(),
    }
}
