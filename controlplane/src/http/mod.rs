//! The doors. Each is a listener and a router of its own, so that it can be firewalled alone.
//!
//! ```text
//! customers   POST /v1/calls            GET /v1/calls    GET /v1/calls/{id}    POST /v1/calls/{id}/cancel
//!             GET|POST /v1/audio        GET|DELETE /v1/audio/{id}          GET /v1/audio/{id}/content
//!             GET|POST /v1/webhook_endpoints    GET|PATCH|DELETE …/{id}    POST …/{id}/rotate_secret, …/{id}/test
//!             GET …/{id}/deliveries     POST …/{id}/deliveries/{event}/replay
//!             GET /v1/callback_secret   POST /v1/callback_secret/rotate    GET /v1/events
//! agents      POST /agents/v1/join      POST /agents/v1/renew
//!             GET /agents/v1/link       GET /agents/v1/ami/{stream_id}      (WebSockets)
//!             GET /agents/v1/audio/{sha256}
//! operators   POST /admin/v1/bootstrap  GET|POST /admin/v1/fleet
//!             GET /admin/v1/agents      GET /admin/v1/nodes/{name}/agent
//!             POST /admin/v1/nodes/{name}/token                POST /admin/v1/nodes/{name}/revoke
//!             GET …/nodes/{name}/why    POST …/nodes/{name}/drain, /undrain
//!             GET …/trunks/{name}/why   POST …/trunks/{name}/disable, /enable
//!             GET /admin/v1/nodes       GET /admin/v1/trunks    GET /admin/v1/routes, /routes/explain
//!             GET|POST /admin/v1/bans   POST …/bans/remove, …/bans/import    GET …/bans/why, …/bans/export
//!             GET|POST /admin/v1/allows POST …/allows/remove
//!             GET|POST /admin/v1/keys   POST /admin/v1/keys/{id}/revoke
//!             GET /admin/v1/webhooks/deliveries                POST …/{event}/replay
//!             GET /admin/v1/audit       GET|POST /admin/v1/calls, …/{id}, …/{id}/cancel
//!             GET /metrics  GET /healthz  GET /readyz
//! ```

mod agents;
mod audio;
mod auth;
mod body;
mod customers;
mod events;
mod operators;
mod patient;
mod problem;
mod shape;
mod uploads;
mod webhooks;

pub(crate) use self::{patient::Patient, uploads::Uploads};

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Response, header},
    middleware::{self, Next},
    response::IntoResponse,
    routing::{get, post},
};
use controlplane_core::ids::RequestId;
use controlplane_store::Store;

use self::problem::{Code, Problem, ProblemBody};
pub(crate) use self::shape::CallView;
use crate::{
    agents::Agents,
    audio::Audio,
    bootstrap::Bootstrap,
    calls::Calls,
    clock::{Chance, Clock},
    health::Keeping,
    metrics::Metrics,
    nodes::Nodes,
    registry::Registry,
    webhooks::Webhooks,
};

/// What handlers work with.
#[derive(Clone)]
pub struct State(Arc<Parts>);

/// The parts of [`State`].
pub struct Parts {
    /// Durable facts.
    pub store: Arc<dyn Store>,
    /// What is known now.
    pub registry: Arc<Registry>,
    /// Sessions.
    pub nodes: Arc<Nodes>,
    /// Agents.
    pub agents: Arc<Agents>,
    /// The token for a key without a key.
    pub bootstrap: Bootstrap,
    /// Calls under way.
    pub calls: Arc<Calls>,
    /// What callees hear.
    pub(crate) audio: Arc<Audio>,
    /// Uploads under way.
    pub(crate) uploads: Uploads,
    /// Health over a restart, and operators' holds.
    pub(crate) keeping: Arc<Keeping>,
    /// Events on their way to customers.
    pub webhooks: Arc<Webhooks>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub chance: Chance,
}

impl State {
    /// Puts the parts behind one handle.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for State {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The customers' door.
pub fn customers(state: State) -> Router {
    let routes = Router::new()
        .route("/v1/calls", post(customers::create).get(customers::list))
        .route("/v1/calls/{id}", get(customers::show))
        .route("/v1/calls/{id}/cancel", post(customers::cancel))
        .route("/v1/audio", post(audio::create).get(audio::list))
        .route("/v1/audio/{id}", get(audio::show).delete(audio::delete))
        .route("/v1/audio/{id}/content", get(audio::content))
        .route("/v1/webhook_endpoints", post(webhooks::create).get(webhooks::list))
        .route(
            "/v1/webhook_endpoints/{id}",
            get(webhooks::show).patch(webhooks::change).delete(webhooks::remove),
        )
        .route("/v1/webhook_endpoints/{id}/rotate_secret", post(webhooks::rotate))
        .route("/v1/webhook_endpoints/{id}/test", post(webhooks::test))
        .route("/v1/webhook_endpoints/{id}/deliveries", get(webhooks::deliveries::list))
        .route("/v1/webhook_endpoints/{id}/deliveries/{event}/replay", post(webhooks::deliveries::replay))
        .route("/v1/callback_secret", get(webhooks::callback::show))
        .route("/v1/callback_secret/rotate", post(webhooks::callback::rotate))
        .route("/v1/events", get(events::list))
        .route("/healthz", get(operators::healthz));
    finish(routes, state)
}

/// The agents' door.
pub fn agents(state: State) -> Router {
    let routes = Router::new()
        .route(node_agent_protocol::JOIN_PATH, post(agents::join))
        .route(node_agent_protocol::RENEW_PATH, post(agents::renew))
        .route(node_agent_protocol::LINK_PATH, get(agents::link))
        .route("/agents/v1/ami/{stream_id}", get(agents::ami))
        .route("/agents/v1/audio/{sound}", get(agents::audio));
    finish(routes, state)
}

/// The operators' door.
pub fn operators(state: State) -> Router {
    let routes = Router::new()
        .route("/admin/v1/bootstrap", post(operators::keys::bootstrap))
        .route("/admin/v1/fleet", get(operators::fleet::show).post(operators::fleet::apply))
        .route("/admin/v1/nodes", get(operators::nodes))
        .route("/admin/v1/nodes/{name}/token", post(operators::agents::token))
        .route("/admin/v1/nodes/{name}/revoke", post(operators::agents::revoke))
        .route("/admin/v1/nodes/{name}/agent", get(operators::agents::show))
        .route("/admin/v1/nodes/{name}/why", get(operators::health::node_why))
        .route("/admin/v1/nodes/{name}/drain", post(operators::health::drain))
        .route("/admin/v1/nodes/{name}/undrain", post(operators::health::undrain))
        .route("/admin/v1/trunks/{name}/why", get(operators::health::trunk_why))
        .route("/admin/v1/trunks/{name}/disable", post(operators::health::disable))
        .route("/admin/v1/trunks/{name}/enable", post(operators::health::enable))
        .route("/admin/v1/agents", get(operators::agents::list))
        .route("/admin/v1/trunks", get(operators::trunks))
        .route("/admin/v1/routes", get(operators::routes))
        .route("/admin/v1/routes/explain", get(operators::explain))
        .route("/admin/v1/bans", get(operators::bans::bans).post(operators::bans::ban))
        .route("/admin/v1/bans/remove", post(operators::bans::unban))
        .route("/admin/v1/bans/why", get(operators::bans::why))
        .route("/admin/v1/bans/import", post(operators::bans::lists::import))
        .route("/admin/v1/bans/export", get(operators::bans::lists::export))
        .route("/admin/v1/allows", get(operators::bans::allows).post(operators::bans::allow))
        .route("/admin/v1/allows/remove", post(operators::bans::disallow))
        .route("/admin/v1/keys", get(operators::keys::list).post(operators::keys::create))
        .route("/admin/v1/keys/{id}/revoke", post(operators::keys::revoke))
        .route("/admin/v1/audit", get(operators::audit))
        .route("/admin/v1/webhooks/deliveries", get(webhooks::operators::list))
        .route("/admin/v1/webhooks/deliveries/{event}/replay", post(webhooks::operators::replay))
        .route("/admin/v1/calls", post(operators::calls::create).get(operators::calls::list))
        .route("/admin/v1/calls/{id}", get(operators::calls::show))
        .route("/admin/v1/calls/{id}/cancel", post(operators::calls::cancel))
        .route("/metrics", get(operators::metrics))
        .route("/healthz", get(operators::healthz))
        .route("/readyz", get(operators::readyz));
    finish(routes, state)
}

fn finish(routes: Router<State>, state: State) -> Router {
    routes
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "See the documentation for what this address takes.")
        })
        .layer(DefaultBodyLimit::max(body::BODY_MAX))
        .layer(middleware::from_fn_with_state(state.clone(), frame))
        .with_state(state)
}

/// The request's id, for audit rows and logs.
#[derive(Debug, Clone)]
pub(super) struct RequestTag(pub(super) RequestId);

/// Around every request: an id, security headers, and the request's place in a problem.
async fn frame(
    axum::extract::State(state): axum::extract::State<State>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let id = state.chance.request_id(state.clock.now());
    request.extensions_mut().insert(RequestTag(id.clone()));
    let path = request.uri().path().chars().take(200).collect::<String>();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    if let Some(ProblemBody(mut body)) = response.extensions_mut().remove::<ProblemBody>() {
        body["instance"] = path.clone().into();
        body["request_id"] = id.as_str().into();
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        response = (parts, body.to_string()).into_response();
    }
    tracing::debug!(request = %id, %method, path, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert("x-request-id", value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
