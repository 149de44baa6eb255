//! The doors. Each is a listener and a router of its own, so that it can be firewalled alone. [`routes`] is the
//! table of what they serve, and what each route asks of whoever calls it.

mod accepting;
mod agents;
mod answer;
mod api_keys;
mod audio;
mod audit;
mod auth;
mod body;
pub(crate) mod console;
mod cors;
mod customers;
mod events;
mod guard;
mod oncall;
pub mod openapi;
mod operators;
mod pace;
mod problem;
pub mod routes;
mod shape;
mod status;
mod uploads;
mod usage;
mod webhooks;

pub(crate) use self::uploads::Uploads;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderValue, Response, header},
    middleware::{self, Next},
    response::IntoResponse,
};
use controlplane_core::ids::RequestId;
use controlplane_store::Store;
use serde_json::json;

pub use self::console::Console;
pub(crate) use self::shape::CallView;
use self::{
    console::page::AsPage,
    problem::{Code, Problem, ProblemBody},
    routes::Door,
};
use crate::{
    agents::Agents,
    audio::Audio,
    audit::Audit,
    bootstrap::Bootstrap,
    calls::{Accepting, Calls},
    clock::{Chance, Clock},
    doors::Client,
    health::{Canaries, Keeping},
    keys::{Lookup, Uses},
    metrics::Metrics,
    nodes::Nodes,
    oncall::OnCall,
    privacy::Privacy,
    registry::Registry,
    rules::Rules,
    settings::WebOrigin,
    status::Status,
    traces::Traces,
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
    /// How calls are accepted.
    pub accepting: Accepting,
    /// Whose a key is.
    pub keys: Lookup,
    /// Who is phoned about alerts.
    pub oncall: Arc<OnCall>,
    /// What operators allow customers.
    pub rules: Arc<Rules>,
    /// What callees hear.
    pub(crate) audio: Arc<Audio>,
    /// Uploads under way.
    pub(crate) uploads: Uploads,
    /// Health over a restart, and operators' holds.
    pub(crate) keeping: Arc<Keeping>,
    /// Canaries, and what became of them.
    pub(crate) canaries: Arc<Canaries>,
    /// Traces of calls.
    pub traces: Arc<Traces>,
    /// Events on their way to customers.
    pub webhooks: Arc<Webhooks>,
    /// When keys were used.
    pub(crate) uses: Arc<Uses>,
    /// What strangers may see.
    pub status: Arc<Status>,
    /// The operators' pages.
    pub console: Arc<Console>,
    /// The audit log's keeper.
    pub audit: Arc<Audit>,
    /// Retention.
    pub privacy: Arc<Privacy>,
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

/// The customers' door, at which pages of these origins may ask.
pub fn customers(state: State, origins: &[WebOrigin]) -> Router {
    frame_in(cors::open(inner(Door::Customers, &state), origins), Door::Customers, state)
}

/// The agents' door.
pub fn agents(state: State) -> Router {
    frame_in(inner(Door::Agents, &state), Door::Agents, state)
}

/// The operators' door.
pub fn operators(state: State) -> Router {
    frame_in(inner(Door::Operators, &state), Door::Operators, state)
}

/// The door for strangers, with the public status.
pub fn public(state: State) -> Router {
    frame_in(inner(Door::Public, &state), Door::Public, state)
}

fn inner(door: Door, state: &State) -> Router<State> {
    routes::router(door, state)
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "See the documentation for what this address takes.")
        })
        .layer(DefaultBodyLimit::max(body::BODY_MAX))
}

fn frame_in(routes: Router<State>, door: Door, state: State) -> Router {
    routes.layer(middleware::from_fn_with_state((state.clone(), door), frame)).with_state(state)
}

/// The request's id, for audit rows and logs.
#[derive(Debug, Clone)]
pub(super) struct RequestTag(pub(super) RequestId);

/// To browsers that came by TLS: for a year by nothing else (RFC 6797). Of this name alone; others on the same host are
/// not ours to speak for.
const HSTS: &str = "max-age=31536000";

/// Around every request: an id, security headers, and the request's place in a problem, which is a page in the console.
async fn frame(
    axum::extract::State((state, door)): axum::extract::State<(State, Door)>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let id = state.chance.request_id(state.clock.now());
    request.extensions_mut().insert(RequestTag(id.clone()));
    let told = pace::Told::default();
    request.extensions_mut().insert(told.clone());
    let asked = audit::Asked::of(door, &mut request, &id);
    let is_secure = request.extensions().get::<Client>().is_some_and(|client| client.is_secure);
    let path = request.uri().path().chars().take(200).collect::<String>();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    if let Some(asked) = asked {
        asked.answered(&state, &response);
    }
    if let Some(mut body) = response.extensions_mut().remove::<ProblemBody>() {
        body.instance = Some(path.clone());
        body.request_id = Some(id.to_string());
        let as_page = response.extensions_mut().remove::<AsPage>();
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        response = match as_page {
            Some(page) => page.show(parts, body),
            None => (parts, json!(body).to_string()).into_response(),
        };
    }
    tracing::debug!(request = %id, %method, path, status = response.status().as_u16(), "answered");
    let headers = response.headers_mut();
    pace::tell(&told, headers);
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        headers.insert("x-request-id", value);
    }
    if is_secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(HSTS));
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What an address names by its content stays what it is.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    // A page brings its own, which lets in no more than its style.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    response
}
