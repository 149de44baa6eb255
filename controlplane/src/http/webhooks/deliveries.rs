//! `/v1/webhook_endpoints/{id}/deliveries`. `callback` in an endpoint's place: what went to calls' own callbacks.

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
};
use controlplane_core::ids::EventId;
use controlplane_store::webhooks::{Delivery, DeliveryPage, DeliveryState, Target};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{by, find, moment};
use crate::http::{
    State,
    auth::Customer,
    problem::{Code, Problem},
    shape::ListView,
};

/// Deliveries of a page where none is asked.
pub(super) const LIMIT_DEFAULT: u16 = 20;
/// Most deliveries of a page.
pub(super) const LIMIT_MAX: u16 = 100;

pub(super) fn view(delivery: &Delivery) -> Value {
    let tries = delivery.log.iter().map(
        |one| json!({"at": moment(one.at), "took_ms": one.took_ms, "status": one.status, "error": one.error}),
    );
    let waits = delivery.state() == DeliveryState::Pending;
    json!({
        "event": delivery.event,
        "object": "webhook_delivery",
        "endpoint": delivery.target.as_str(),
        "call": delivery.call,
        "type": delivery.kind,
        "sequence": delivery.sequence,
        "state": delivery.state().as_str(),
        "tries": delivery.tries,
        "next_try_at": waits.then(|| moment(delivery.due_at)).flatten(),
        "last_status": delivery.last_status,
        "last_error": delivery.last_error,
        "created_at": moment(delivery.created_at),
        "delivered_at": delivery.delivered_at.and_then(moment),
        "dead_at": delivery.dead_at.and_then(moment),
        "log": tries.collect::<Vec<_>>(),
    })
}

/// `?limit=&starting_after=&state=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    pub(super) limit: Option<u16>,
    pub(super) starting_after: Option<EventId>,
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
) -> Result<Json<ListView<Value>>, Problem> {
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
) -> Result<(StatusCode, Json<Value>), Problem> {
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

pub(super) fn replayed(event: &EventId, target: &Target) -> (StatusCode, Json<Value>) {
    let body = json!({
        "object": "webhook_replay", "event": event, "endpoint": target.as_str(), "state": "pending"
    });
    (StatusCode::ACCEPTED, Json(body))
}
