//! `/v1/webhook_endpoints`.

pub(super) mod callback;
pub(super) mod deliveries;
pub(super) mod operators;

use axum::{
    Json,
    extract::{Path, State as AxumState, rejection::PathRejection},
    response::NoContent,
};
use controlplane_core::{
    access::Scope, ids::EndpointId, request::EventFilter, schema::Moment, webhook::DisabledReason,
};
use controlplane_store::webhooks::{
    Change, ENDPOINTS_MAX, Endpoint, EndpointChange, Holder, Rotation, Secrets,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::{
    State,
    answer::Created,
    auth::Customer,
    body::JsonBody,
    problem::{Code, Problem},
    shape::ListView,
};
use crate::webhooks::{sealing::Opened, shown};

/// Longest description.
const DESCRIPTION_MAX: usize = 500;
/// Most filters of one endpoint.
const FILTERS_MAX: usize = 20;
/// How long a former secret signs too.
const ROTATION: Duration = Duration::hours(24);

/// An endpoint.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebhookEndpoint")]
pub(super) struct EndpointView {
    id: EndpointId,
    #[schemars(extend("const" = "webhook_endpoint"))]
    object: &'static str,
    url: String,
    description: String,
    events: Vec<EventFilter>,
    /// Whether it gets events.
    enabled: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    disabled_at: Option<OffsetDateTime>,
    disabled_reason: Option<DisabledReason>,
    /// Since when every try has failed: in three days it is disabled.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    failing_since: Option<OffsetDateTime>,
    /// Until when the former secret signs too.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    previous_secret_until: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    created_at: OffsetDateTime,
    /// What signs its events; for whoever may change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// An endpoint as shown. Its secrets only to whoever may change it: they let anybody speak in our name.
fn view(endpoint: &Endpoint, secret: Option<&Opened>) -> EndpointView {
    EndpointView {
        id: endpoint.id.clone(),
        object: "webhook_endpoint",
        url: endpoint.url.clone(),
        description: endpoint.description.clone(),
        events: endpoint.events.clone(),
        enabled: endpoint.disabled.is_none(),
        disabled_at: endpoint.disabled.map(|(at, _)| at),
        disabled_reason: endpoint.disabled.map(|(_, reason)| reason),
        failing_since: endpoint.failing_since,
        previous_secret_until: endpoint.secrets.previous.as_ref().map(|(_, until)| *until),
        created_at: endpoint.created_at,
        secret: secret.map(shown),
    }
}

/// Who changes something, for the audit row.
fn by(state: &State, customer: &Customer, at: OffsetDateTime) -> Change {
    Change {
        org: customer.org.clone(),
        at,
        actor: customer.actor.clone(),
        audit_id: state.chance.audit_id(at),
    }
}

fn holder(endpoint: &Endpoint) -> Holder {
    Holder::Endpoint(endpoint.org.clone(), endpoint.id.clone())
}

/// An endpoint with its secret, for whoever may change it.
fn with_secret(state: &State, endpoint: &Endpoint) -> Result<EndpointView, Problem> {
    let secrets = state.webhooks.seals().opened(&holder(endpoint), &endpoint.secrets)?;
    Ok(view(endpoint, Some(&secrets.current)))
}

fn rotation(state: &State, holder: &Holder, at: OffsetDateTime) -> Result<Rotation, Problem> {
    Ok(Rotation { secret: state.webhooks.seals().new_secret(holder)?, previous_until: at + ROTATION })
}

fn field(param: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidField, detail).param(param)
}

/// Whether these may be an endpoint's.
fn check(
    state: &State,
    url: Option<&str>,
    description: Option<&str>,
    events: Option<&[EventFilter]>,
) -> Result<(), Problem> {
    if let Some(url) = url {
        state.webhooks.may_send_to(url).map_err(|blocked| field("url", format!("{blocked}.")))?;
    }
    if description.is_some_and(|text| text.len() > DESCRIPTION_MAX || text.chars().any(char::is_control)) {
        return Err(field("description", "At most 500 bytes without control characters."));
    }
    if events.is_some_and(|events| !(1..=FILTERS_MAX).contains(&events.len())) {
        return Err(field("events", "1 to 20 filters."));
    }
    Ok(())
}

/// An endpoint as asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewWebhookEndpoint")]
pub(super) struct NewEndpointBody {
    /// An https address of the public Internet, unless your operator allows more.
    #[schemars(length(min = 1), example = "https://example.com/hook")]
    url: String,
    /// In your words, without control characters.
    #[serde(default)]
    #[schemars(length(max = DESCRIPTION_MAX))]
    description: String,
    /// Absent: all.
    #[serde(default = "every")]
    #[schemars(length(min = 1, max = FILTERS_MAX))]
    events: Vec<EventFilter>,
}

fn every() -> Vec<EventFilter> {
    vec![EventFilter::All]
}

pub(super) async fn create(
    customer: Customer,
    AxumState(state): AxumState<State>,
    JsonBody { value: body, .. }: JsonBody<NewEndpointBody>,
) -> Result<Created<EndpointView>, Problem> {
    check(&state, Some(&body.url), Some(&body.description), Some(&body.events))?;
    let now = state.clock.now();
    let (id, org) = (state.chance.endpoint_id(now), customer.org.clone());
    let current = state.webhooks.seals().new_secret(&Holder::Endpoint(org.clone(), id.clone()))?;
    let endpoint = Endpoint {
        id,
        org,
        url: body.url,
        description: body.description,
        events: body.events,
        secrets: Secrets { current, previous: None },
        created_at: now,
        failing_since: None,
        disabled: None,
    };
    let shown = with_secret(&state, &endpoint)?;
    if !state.store.create_endpoint(endpoint, by(&state, &customer, now)).await? {
        return Err(Problem::new(
            Code::LimitReached,
            format!("There are {ENDPOINTS_MAX} endpoints: remove one of them."),
        ));
    }
    Ok(Created(shown))
}

pub(super) async fn list(
    customer: Customer,
    AxumState(state): AxumState<State>,
) -> Result<Json<ListView<EndpointView>>, Problem> {
    let endpoints = state.store.endpoints(&customer.org).await?;
    Ok(Json(ListView::whole(endpoints.iter().map(|endpoint| view(endpoint, None)).collect())))
}

/// The endpoint of this address, if it is the customer's.
async fn find(state: &State, customer: &Customer, id: &EndpointId) -> Result<Endpoint, Problem> {
    state.store.endpoint(&customer.org, id).await?.ok_or_else(Problem::not_found)
}

pub(super) async fn show(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<EndpointId>, PathRejection>,
) -> Result<Json<EndpointView>, Problem> {
    let Path(id) = id?;
    let endpoint = find(&state, &customer, &id).await?;
    Ok(Json(if customer.has(Scope::Webhooks) {
        with_secret(&state, &endpoint)?
    } else {
        view(&endpoint, None)
    }))
}

/// What of an endpoint is to be another way.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "WebhookEndpointChange")]
pub(super) struct ChangeBody {
    #[schemars(length(min = 1))]
    url: Option<String>,
    #[schemars(length(max = DESCRIPTION_MAX))]
    description: Option<String>,
    #[schemars(length(min = 1, max = FILTERS_MAX))]
    events: Option<Vec<EventFilter>>,
    /// Whether it gets events.
    enabled: Option<bool>,
}

pub(super) async fn change(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<EndpointId>, PathRejection>,
    JsonBody { value: body, .. }: JsonBody<ChangeBody>,
) -> Result<Json<EndpointView>, Problem> {
    let Path(id) = id?;
    check(&state, body.url.as_deref(), body.description.as_deref(), body.events.as_deref())?;
    let what = EndpointChange {
        url: body.url,
        description: body.description,
        events: body.events,
        enabled: body.enabled,
    };
    let by = by(&state, &customer, state.clock.now());
    let endpoint = state.store.change_endpoint(id, what, by).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(with_secret(&state, &endpoint)?))
}

pub(super) async fn remove(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<EndpointId>, PathRejection>,
) -> Result<NoContent, Problem> {
    let Path(id) = id?;
    if !state.store.delete_endpoint(id, by(&state, &customer, state.clock.now())).await? {
        return Err(Problem::not_found());
    }
    Ok(NoContent)
}

pub(super) async fn rotate(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<EndpointId>, PathRejection>,
) -> Result<Json<EndpointView>, Problem> {
    let Path(id) = id?;
    let now = state.clock.now();
    let rotation = rotation(&state, &Holder::Endpoint(customer.org.clone(), id.clone()), now)?;
    let rotated = state.store.rotate_endpoint(id, rotation, by(&state, &customer, now)).await?;
    Ok(Json(with_secret(&state, &rotated.ok_or_else(Problem::not_found)?)?))
}

/// What came of a test.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebhookTest")]
pub(super) struct TestView {
    #[schemars(extend("const" = "webhook_test"))]
    object: &'static str,
    /// Whether the receiver answered 2xx.
    delivered: bool,
    /// What it answered.
    status: Option<u16>,
    /// What went wrong.
    error: Option<String>,
    took_ms: u64,
}

/// Sends an event of the type `endpoint.test` now, and says what came of it.
pub(super) async fn test(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<EndpointId>, PathRejection>,
) -> Result<Json<TestView>, Problem> {
    let Path(id) = id?;
    let endpoint = find(&state, &customer, &id).await?;
    let secrets = state.webhooks.seals().opened(&holder(&endpoint), &endpoint.secrets)?;
    let tried = state.webhooks.test(&customer.org, &endpoint.url, &secrets).await.ok_or_else(|| {
        Problem::new(Code::TooManyTests, "Other tests are under way: wait until they have ended.")
    })?;
    Ok(Json(TestView {
        object: "webhook_test",
        delivered: tried.failure.is_none(),
        status: tried.status(),
        took_ms: u64::try_from(tried.took.as_millis()).unwrap_or(u64::MAX),
        error: tried.error,
    }))
}
