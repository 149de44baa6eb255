//! Incidents of every organisation: what is open first, who was phoned, and who has taken it.

use askama::Template;
use axum::{
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
    response::Redirect,
};
use controlplane_core::{
    ids::IncidentId,
    oncall::{IncidentStatus, escalation::Phase},
};
use controlplane_store::oncall::{Incident, IncidentPage};
use serde::Deserialize;

use super::{
    confirm::{Confirm, Consequence},
    page::{Page, Part, Shell, may_act},
    session::Visitor,
};
use crate::{
    http::{State, operators::oncall, problem::Problem},
    oncall::Act,
};

/// Incidents of a page, and open ones that are shown.
const LIMIT: u16 = 50;
/// Seconds between two looks while something is open.
const REFRESH_S: u32 = 2;

#[derive(Template)]
#[template(path = "incidents.html")]
struct IncidentsPage {
    shell: Shell,
    /// Only on the first page.
    open: Vec<Incident>,
    more_open: bool,
    over: Vec<Incident>,
    next: Option<IncidentId>,
}

/// What an incident is about, in one line.
fn about(incident: &Incident) -> &str {
    let firing = incident.alerts.iter().find(|alert| alert.firing);
    firing.or(incident.alerts.first()).map_or("", |alert| alert.text.as_str())
}

/// `?after=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    after: Option<IncidentId>,
}

/// `GET /incidents`
pub(in crate::http) async fn list(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(ListQuery { after }) = query?;
    let page = |open, starting_after| IncidentPage {
        open: Some(open),
        starting_after,
        limit: LIMIT,
        ..IncidentPage::default()
    };
    let (open, more_open) = match after {
        None => state.store.incidents(page(true, None)).await?,
        Some(_) => (Vec::new(), false),
    };
    let (over, has_more) = state.store.incidents(page(false, after)).await?;
    let mut shell = Shell::of(&visitor, Part::Incidents, "Incidents");
    shell.refresh_s = (!open.is_empty()).then_some(REFRESH_S);
    let next = over.last().filter(|_| has_more).map(|incident| incident.id.clone());
    Page::of(&IncidentsPage { shell, open, more_open, over, next })
}

#[derive(Template)]
#[template(path = "incident.html")]
struct IncidentPageOf {
    shell: Shell,
    incident: Incident,
    sentence: String,
    can_act: bool,
}

impl IncidentPageOf {
    fn can_acknowledge(&self) -> bool {
        self.can_act
            && matches!(self.incident.status(), IncidentStatus::Escalating | IncidentStatus::Unanswered)
    }

    fn has_more_alerts(&self) -> bool {
        i64::try_from(self.incident.alerts.len()).is_ok_and(|kept| kept < self.incident.alerts_seen)
    }

    fn can_resolve(&self) -> bool {
        self.can_act && self.incident.status() != IncidentStatus::Resolved
    }
}

/// Where it is.
fn sentence(incident: &Incident) -> String {
    let by = |who: &Option<String>| who.as_deref().unwrap_or("nobody").to_owned();
    let steps = incident.escalation.steps.len();
    match (incident.status(), &incident.escalation.phase) {
        (IncidentStatus::Acknowledged, _) => {
            format!("{} has taken note, after {steps} calls", by(&incident.acknowledged_by))
        }
        (IncidentStatus::Resolved, _) => {
            format!("It is over, by {}; {steps} calls", by(&incident.resolved_by))
        }
        (IncidentStatus::Unanswered, _) => {
            format!("Everybody was phoned, and nobody took note; {steps} calls")
        }
        (IncidentStatus::Escalating, Phase::Waiting { .. }) => {
            format!("The next number is phoned soon; {steps} calls so far")
        }
        (IncidentStatus::Escalating, Phase::Placing { .. } | Phase::Calling { .. } | Phase::Idle) => {
            format!("Somebody is being phoned, in call {steps} of {}", incident.plan.steps())
        }
    }
}

async fn find(state: &State, id: Result<Path<IncidentId>, PathRejection>) -> Result<Incident, Problem> {
    let Path(id) = id?;
    state.store.incident(None, &id).await?.ok_or_else(Problem::not_found)
}

/// `GET /incidents/{id}`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Page, Problem> {
    let incident = find(&state, id).await?;
    let mut shell = Shell::of(&visitor, Part::Incidents, format!("Incident {}", incident.id));
    shell.refresh_s = incident.resolved_at.is_none().then_some(REFRESH_S);
    let sentence = sentence(&incident);
    Page::of(&IncidentPageOf { shell, sentence, can_act: may_act(&visitor), incident })
}

async fn confirm(
    state: &State,
    visitor: &Visitor,
    id: Result<Path<IncidentId>, PathRejection>,
    act: Act,
) -> Result<Page, Problem> {
    let incident = find(state, id).await?;
    let (question, verb, word, told) = match act {
        Act::Acknowledge => ("Take note of", "Take note", "ack", "It stays open until it is resolved."),
        Act::Resolve => {
            ("Close", "Close", "resolve", "Alerts of its group that come after that are a new incident.")
        }
    };
    let question = format!("{question} {}?", incident.plan.name);
    let shell = Shell::of(visitor, Part::Incidents, question.clone());
    let mut page = Confirm::new(shell, question, verb, format!("/incidents/{}", incident.id));
    (page.asks_reason, page.is_dangerous) = (false, false);
    page.command = Some(format!("ringward incident {word} {}", incident.id));
    page.consequences = vec![
        Consequence::new("Nobody else is phoned about it, and what still rings is ended."),
        Consequence::new(told),
    ];
    page.page()
}

/// `GET /incidents/{id}/acknowledge`
pub(in crate::http) async fn confirm_acknowledge(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Page, Problem> {
    confirm(&state, &visitor, id, Act::Acknowledge).await
}

/// `GET /incidents/{id}/resolve`
pub(in crate::http) async fn confirm_resolve(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Page, Problem> {
    confirm(&state, &visitor, id, Act::Resolve).await
}

/// `POST /incidents/{id}/acknowledge`
pub(in crate::http) async fn acknowledge(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Redirect, Problem> {
    let incident = oncall::act(&state, visitor.operator, id, Act::Acknowledge).await?;
    Ok(Redirect::to(&format!("/incidents/{}", incident.id)))
}

/// `POST /incidents/{id}/resolve`
pub(in crate::http) async fn resolve(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Redirect, Problem> {
    let incident = oncall::act(&state, visitor.operator, id, Act::Resolve).await?;
    Ok(Redirect::to(&format!("/incidents/{}", incident.id)))
}
