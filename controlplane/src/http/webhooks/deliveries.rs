//! `/v1/webhook_endpoints/{id}/deliveries`. `callback` in an endpoint's place: what went to calls' own callbacks.

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
};
use controlplane_core::{
    ids::{CallId, EventId, OrgId},
    request::EventKind,
    schema::Moment,
};
use controlplane_store::webhooks::{Delivery, DeliveryPage, DeliveryState, Target};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{by, find};
use crate::http::{
    State,
    answer::Accepted,
    auth::Customer,
    problem::{Code, Problem},
    shape::ListView,
};

/// Deliveries of a page where none is asked.
pub(super) const LIMIT_DEFAULT: u16 = 20;
/// Most deliveries of a page.
pub(super) const LIMIT_MAX: u16 = 100;

/// What came of sending an event to an endpoint.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebhookDelivery")]
pub(in crate::http) struct DeliveryView {
    event: EventId,
    #[schemars(extend("const" = "webhook_delivery"))]
    object: &'static str,
    /// Its id, or `callback`.
    endpoint: String,
    call: Option<CallId>,
    #[serde(rename = "type")]
    kind: EventKind,
    /// The event's place in its call.
    sequence: i64,
    #[schemars(extend("enum" = ["pending", "delivered", "dead"]))]
    state: &'static str,
    /// Since it was made, or sent again.
    tries: u32,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    next_try_at: Option<OffsetDateTime>,
    last_status: Option<u16>,
    last_error: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    delivered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    dead_at: Option<OffsetDateTime>,
    /// The latest tries, oldest first.
    log: Vec<TryView>,
    /// Whose it is; for operators alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    org: Option<OrgId>,
}

impl DeliveryView {
    /// With whose it is.
    pub(super) fn of(self, org: &OrgId) -> Self {
        Self { org: Some(org.clone()), ..self }
    }
}

/// One try.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebhookTry")]
struct TryView {
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    at: OffsetDateTime,
    took_ms: i64,
    status: Option<u16>,
    error: Option<String>,
}

pub(super) fn view(delivery: &Delivery) -> DeliveryView {
    let tries = delivery.log.iter().map(|one| TryView {
        at: one.at,
        took_ms: one.took_ms,
        status: one.status,
        error: one.error.clone(),
    });
    let waits = delivery.state() == DeliveryState::Pending;
    DeliveryView {
        event: delivery.event.clone(),
        object: "webhook_delivery",
        endpoint: delivery.target.as_str().to_owned(),
        call: delivery.call.clone(),
        kind: delivery.kind,
        sequence: delivery.sequence,
        state: delivery.state().as_str(),
        tries: delivery.tries,
        next_try_at: waits.then_some(delivery.due_at),
        last_status: delivery.last_status,
        last_error: delivery.last_error.clone(),
        created_at: delivery.created_at,
        delivered_at: delivery.delivered_at,
        dead_at: delivery.dead_at,
        log: tries.collect(),
        org: None,
    }
}

/// `?limit=&starting_after=&state=`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    /// Most deliveries of the page.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("default" = LIMIT_DEFAULT))]
    pub(super) limit: Option<u16>,
    /// Deliveries of events older than this one.
    pub(super) starting_after: Option<EventId>,
    /// Only those that are there now.
    #[schemars(extend("enum" = ["pending", "delivered", "dead"]))]
    pub(super) state: Option<String>,
}

impl ListQuery {
    pub(super) fn page(self) -> Result<DeliveryPage, Problem> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::new(Code::InvalidField, "limit: 1 to 100.").param("limit"));
        }
        let state = match self.state {
            None => None,
            Some(word) => {
                let state = DeliveryState::ALL.into_iter().find(|state| state.as_str() == word);
                let unknown =
                    || Problem::new(Code::InvalidField, "pending, delivered or dead.").param("state");
                Some(state.ok_or_else(unknown)?)
            }
        };
        Ok(DeliveryPage { org: None, target: None, state, starting_after: self.starting_after, limit })
    }
}

/// What the path names, if it is the customer's.
async fn target(state: &State, customer: &Customer, text: &str) -> Result<Target, Problem> {
    let target: Target = text.parse().map_err(|_| Problem::not_found())?;
    if let Target::Endpoint(id) = &target {
        find(state, customer, id).await?;
    }
    Ok(target)
}

pub(in crate::http) async fn list(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<DeliveryView>>, Problem> {
    let (Path(id), Query(query)) = (id?, query?);
    let target = Some(target(&state, &customer, &id).await?);
    let page = DeliveryPage { org: Some(customer.org), target, ..query.page()? };
    let (deliveries, has_more) = state.store.deliveries(page).await?;
    Ok(Json(ListView { object: "list", data: deliveries.iter().map(view).collect(), has_more }))
}

/// Sends an event again, under the same id. 202: it is due now.
pub(in crate::http) async fn replay(
    customer: Customer,
    AxumState(state): AxumState<State>,
    path: Result<Path<(String, EventId)>, PathRejection>,
) -> Result<Accepted<ReplayView>, Problem> {
    let Path((id, event)) = path?;
    let target = target(&state, &customer, &id).await?;
    let by = by(&state, &customer, state.clock.now());
    let org = Some(customer.org);
    if !state.store.replay_delivery(event.clone(), target.clone(), org, by).await? {
        return Err(Problem::new(
            Code::NotFound,
            "There is no such delivery, its event is older than 7 days, or the endpoint is disabled.",
        ));
    }
    Ok(replayed(&event, &target))
}

/// An event that is sent again.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebhookReplay")]
pub(in crate::http) struct ReplayView {
    #[schemars(extend("const" = "webhook_replay"))]
    object: &'static str,
    event: EventId,
    endpoint: String,
    #[schemars(extend("const" = "pending"))]
    state: &'static str,
}

pub(super) fn replayed(event: &EventId, target: &Target) -> Accepted<ReplayView> {
    Accepted(ReplayView {
        object: "webhook_replay",
        event: event.clone(),
        endpoint: target.as_str().to_owned(),
        state: DeliveryState::Pending.as_str(),
    })
}
