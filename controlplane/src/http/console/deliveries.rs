//! Webhooks' deliveries of every organisation, and sending one again.

use askama::Template;
use axum::{
    Form,
    body::Bytes,
    extract::{
        Path, Query, State as AxumState,
        rejection::{FormRejection, PathRejection, QueryRejection},
    },
    response::Redirect,
};
use controlplane_core::ids::EventId;
use controlplane_store::webhooks::{Delivery, DeliveryPage, DeliveryState};
use serde::Deserialize;

use super::{
    confirm::{Confirm, Consequence},
    page::{Page, Part, Shell, may_act},
    session::{Visitor, unreadable},
};
use crate::http::{
    State,
    body::JsonBody,
    problem::{Code, Problem},
    webhooks::operators::{self, ReplayBody},
};

/// Deliveries of a page.
const LIMIT: u16 = 50;

#[derive(Template)]
#[template(path = "webhooks.html")]
struct DeliveriesPage {
    shell: Shell,
    deliveries: Vec<Delivery>,
    words: [&'static str; 3],
    state: &'static str,
    next: Option<EventId>,
    can_act: bool,
}

/// `?state=&after=`; what a form sends empty is not asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    state: Option<String>,
    after: Option<EventId>,
}

/// `GET /webhooks`
pub(in crate::http) async fn list(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(ListQuery { state: word, after }) = query?;
    let unknown = || Problem::new(Code::InvalidField, "pending, delivered or dead.").param("state");
    let find = |word: String| {
        DeliveryState::ALL.into_iter().find(|state| state.as_str() == word).ok_or_else(unknown)
    };
    let wanted = word.filter(|word| !word.is_empty()).map(find).transpose()?;
    let page = DeliveryPage { org: None, target: None, state: wanted, starting_after: after, limit: LIMIT };
    let (deliveries, has_more) = state.store.deliveries(page).await?;
    let next = deliveries.last().filter(|_| has_more).map(|delivery| delivery.event.clone());
    Page::of(&DeliveriesPage {
        shell: Shell::of(&visitor, Part::Webhooks, "Webhooks"),
        deliveries,
        words: DeliveryState::ALL.map(DeliveryState::as_str),
        state: wanted.map_or("", DeliveryState::as_str),
        next,
        can_act: may_act(&visitor),
    })
}

/// `?endpoint=`, and what the confirmation sends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Replay {
    endpoint: String,
}

/// `GET /webhooks/{event}/replay`
pub(in crate::http) async fn confirm(
    visitor: Visitor,
    event: Result<Path<EventId>, PathRejection>,
    query: Result<Query<Replay>, QueryRejection>,
) -> Result<Page, Problem> {
    let (Path(event), Query(Replay { endpoint })) = (event?, query?);
    let question = format!("Send {event} again?");
    let shell = Shell::of(&visitor, Part::Webhooks, question.clone());
    let mut page = Confirm::new(shell, question, "Send again", "/webhooks".to_owned());
    (page.asks_reason, page.is_dangerous) = (false, false);
    page.consequences = vec![Consequence::new(format!(
        "{endpoint} gets it once more, under the same id: a receiver that keeps to the ids does nothing twice."
    ))];
    page.command = Some(format!("ringward webhook replay {event} --endpoint {endpoint}"));
    page.hidden = vec![("endpoint", endpoint)];
    page.page()
}

/// `POST /webhooks/{event}/replay`
pub(in crate::http) async fn replay(
    visitor: Visitor,
    state: AxumState<State>,
    event: Result<Path<EventId>, PathRejection>,
    form: Result<Form<Replay>, FormRejection>,
) -> Result<Redirect, Problem> {
    let Form(Replay { endpoint }) = form.map_err(unreadable)?;
    let body = JsonBody { value: ReplayBody { endpoint }, bytes: Bytes::new() };
    operators::replay(visitor.operator, state, event, body).await.map(drop)?;
    Ok(Redirect::to("/webhooks"))
}
