//! `/v1/incidents`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State as AxumState,
        rejection::{PathRejection, QueryRejection},
    },
};
use controlplane_core::{
    access::Mode,
    ids::{CallId, HookId, IncidentId, OrgId},
    number::E164,
    oncall::{Alert, IncidentStatus, StepResult, escalation::Step},
    schema::Moment,
};
use controlplane_store::{
    calls::Actor,
    oncall::{Incident, IncidentPage},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    http::{
        State,
        auth::Customer,
        problem::{Code, Problem},
        shape::ListView,
    },
    oncall::Act,
};

/// Incidents of a page where none is asked.
const LIMIT_DEFAULT: u16 = 20;
/// Most incidents of a page.
const LIMIT_MAX: u16 = 100;

/// What alerts of one group have become.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Incident")]
pub(in crate::http) struct IncidentView {
    id: IncidentId,
    #[schemars(extend("const" = "incident"))]
    object: &'static str,
    /// Whether its calls are placed; if not, they are rehearsed.
    livemode: bool,
    // Operators' alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    org: Option<OrgId>,
    /// Where it came in; it may be gone.
    hook: HookId,
    /// The hook's name when it began.
    name: String,
    status: IncidentStatus,
    /// What its group is known by.
    key: String,
    /// Of which the first fifty are kept.
    alerts: Vec<Alert>,
    /// How many there were.
    alerts_seen: i64,
    /// Who was phoned, in order.
    steps: Vec<StepView>,
    /// When the next number is phoned, where it waits for that.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    next_step_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    opened_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    acknowledged_at: Option<OffsetDateTime>,
    /// The call in which the key was pressed, the key by which it was said at the API, or `operator`.
    acknowledged_by: Option<String>,
    /// When nobody was left to phone.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    unanswered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    resolved_at: Option<OffsetDateTime>,
    /// The hook that was told, the key by which it was said at the API, or `operator`.
    resolved_by: Option<String>,
}

/// One number that was phoned.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "IncidentStep")]
struct StepView {
    round: u16,
    to: E164,
    /// Null where none was accepted.
    call: Option<CallId>,
    /// What the call says.
    said: Option<String>,
    /// Null while it goes on.
    result: Option<StepResult>,
    /// The code of the problem that refused the call.
    problem: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    ended_at: Option<OffsetDateTime>,
}

impl From<Step> for StepView {
    fn from(step: Step) -> Self {
        let Step { round, to, started_at, call, said, ended_at, result, problem } = step;
        Self { round, to, call, said, result, problem, started_at, ended_at }
    }
}

impl From<Incident> for IncidentView {
    fn from(incident: Incident) -> Self {
        let is_waiting =
            matches!(incident.escalation.phase, controlplane_core::oncall::escalation::Phase::Waiting { .. });
        Self {
            id: incident.id,
            object: "incident",
            livemode: incident.mode == Mode::Live,
            org: None,
            hook: incident.hook,
            name: incident.plan.name,
            status: incident.escalation.status,
            key: incident.key,
            alerts: incident.alerts,
            alerts_seen: incident.alerts_seen,
            next_step_at: incident.escalation.due().filter(|_| is_waiting),
            steps: incident.escalation.steps.into_iter().map(StepView::from).collect(),
            opened_at: incident.opened_at,
            acknowledged_at: incident.acknowledged_at,
            acknowledged_by: incident.acknowledged_by,
            unanswered_at: incident.unanswered_at,
            resolved_at: incident.resolved_at,
            resolved_by: incident.resolved_by,
        }
    }
}

impl IncidentView {
    /// With whose it is, for operators.
    pub(in crate::http) fn of_org(incident: Incident) -> Self {
        let org = Some(incident.org.clone());
        Self { org, ..incident.into() }
    }
}

/// `?limit=&starting_after=&status=&hook=&open=`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ListQuery {
    /// Most incidents of the page.
    #[schemars(range(min = 1, max = LIMIT_MAX), extend("default" = LIMIT_DEFAULT))]
    limit: Option<u16>,
    /// Incidents older than this one.
    starting_after: Option<IncidentId>,
    /// Only incidents that are there now.
    status: Option<IncidentStatus>,
    /// Only what came in by this hook.
    hook: Option<HookId>,
    /// Only those that are not resolved, or only those that are.
    open: Option<bool>,
}

impl ListQuery {
    /// Of an organisation, or of all.
    pub(in crate::http) fn page(self, org: Option<OrgId>) -> Result<IncidentPage, Problem> {
        let Self { limit, starting_after, status, hook, open } = self;
        let limit = limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::new(Code::InvalidField, "limit: 1 to 100.").param("limit"));
        }
        Ok(IncidentPage { org, hook, status, open, starting_after, limit })
    }
}

pub(in crate::http) async fn list(
    customer: Customer,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<ListView<IncidentView>>, Problem> {
    let Query(query) = query?;
    let (incidents, has_more) = state.store.incidents(query.page(Some(customer.org))?).await?;
    let data = incidents.into_iter().map(IncidentView::from).collect();
    Ok(Json(ListView { object: "list", data, has_more }))
}

pub(in crate::http) async fn show(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Json<IncidentView>, Problem> {
    let Path(id) = id?;
    let incident = state.store.incident(Some(&customer.org), &id).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(incident.into()))
}

/// Acknowledges or resolves; shared with the operators' door. `org` is `None` for operators.
pub(in crate::http) async fn act(
    state: &State,
    org: Option<OrgId>,
    id: IncidentId,
    act: Act,
    actor: Actor,
    by: String,
) -> Result<Incident, Problem> {
    // In a task of its own: a client that hangs up now must not leave a call that rings on.
    let acting = tokio::spawn(Arc::clone(&state.oncall).act(org, id, act, actor, by));
    let acted = acting.await.map_err(|error| {
        tracing::error!(%error, "changing an incident broke");
        Problem::new(Code::Internal, "The log tells more under this request_id. Ask again.")
    })??;
    acted.ok_or_else(Problem::not_found)
}

async fn by_customer(
    state: &State,
    customer: Customer,
    id: Result<Path<IncidentId>, PathRejection>,
    what: Act,
) -> Result<Json<IncidentView>, Problem> {
    let Path(id) = id?;
    if customer.mode == Mode::Test {
        let incident =
            state.store.incident(Some(&customer.org), &id).await?.ok_or_else(Problem::not_found)?;
        if incident.mode == Mode::Live {
            return Err(Problem::new(Code::Forbidden, "A test key changes incidents of test keys only."));
        }
    }
    let by = customer.actor.key.as_ref().map(ToString::to_string).unwrap_or_default();
    let incident = act(state, Some(customer.org), id, what, customer.actor, by).await?;
    Ok(Json(incident.into()))
}

pub(in crate::http) async fn acknowledge(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Json<IncidentView>, Problem> {
    by_customer(&state, customer, id, Act::Acknowledge).await
}

pub(in crate::http) async fn resolve(
    customer: Customer,
    AxumState(state): AxumState<State>,
    id: Result<Path<IncidentId>, PathRejection>,
) -> Result<Json<IncidentView>, Problem> {
    by_customer(&state, customer, id, Act::Resolve).await
}
