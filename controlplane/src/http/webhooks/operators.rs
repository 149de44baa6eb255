//! Deliveries of every organisation, for operators.

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
};
use controlplane_core::ids::{EventId, OrgId};
use controlplane_store::webhooks::{Change, DeliveryPage, Target};
use serde::Deserialize;

use super::deliveries::{DeliveryView, ListQuery, ReplayView, replayed, view};
use crate::http::{
    State,
    answer::Accepted,
    auth::Operator,
    body::JsonBody,
    problem::{Code, Problem},
    shape::ListView,
};

/// `?limit=&starting_after=&state=&endpoint=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct OperatorQuery {
    limit: Option<u16>,
    starting_after: Option<EventId>,
    state: Option<String>,
    /// An endpoint's id, or `callback`.
    endpoint: Option<String>,
}

fn target(text: &str) -> Result<Target, Problem> {
    let wrong = |_| Problem::new(Code::InvalidField, "An endpoint's id, or callback.").param("endpoint");
    text.parse().map_err(wrong)
}

pub(in crate::http) async fn list(
    _: Operator,
    AxumState(state): AxumState<State>,
    query: Result<Query<OperatorQuery>, QueryRejection>,
) -> Result<Json<ListView<DeliveryView>>, Problem> {
    let Query(OperatorQuery { limit, starting_after, state: wanted, endpoint }) = query?;
    let target = endpoint.as_deref().map(target).transpose()?;
    let page = ListQuery { limit, starting_after, state: wanted }.page()?;
    let (deliveries, has_more) = state.store.deliveries(DeliveryPage { target, ..page }).await?;
    let shown = deliveries.iter().map(|delivery| view(delivery).of(&delivery.org));
    Ok(Json(ListView { object: "list", data: shown.collect(), has_more }))
}

/// Body of `POST /admin/v1/webhooks/deliveries/{event}/replay`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ReplayBody {
    /// An endpoint's id, or `callback`.
    pub(in crate::http) endpoint: String,
}

pub(in crate::http) async fn replay(
    operator: Operator,
    AxumState(state): AxumState<State>,
    event: Result<Path<EventId>, PathRejection>,
    JsonBody { value: body, .. }: JsonBody<ReplayBody>,
) -> Result<Accepted<ReplayView>, Problem> {
    let (Path(event), target) = (event?, target(&body.endpoint)?);
    let at = state.clock.now();
    // The audit row is the organisation's whose delivery it is.
    let change =
        Change { org: OrgId::first(), at, actor: operator.actor, audit_id: state.chance.audit_id(at) };
    if !state.store.replay_delivery(event.clone(), target.clone(), None, change).await? {
        return Err(Problem::new(
            Code::NotFound,
            "There is no such delivery, its event is older than 7 days, or the endpoint is disabled.",
        ));
    }
    Ok(replayed(&event, &target))
}
