//! Calls, as the operators' API has them: searched, one call step by step, a test call.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Form,
    body::Bytes,
    extract::{
        Path, Query, State as AxumState,
        rejection::{FormRejection, PathRejection, QueryRejection},
    },
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use controlplane_core::{
    access::Mode,
    call::{CallStatus, OnUnknown},
    ids::{CallId, OrgId},
    names::OrgSlug,
    number::E164,
    request::CallRequest,
    selection::Choice,
};
use controlplane_store::{
    calls::{Call, Transition},
    search::{CallSearch, LOOKED_AT_MAX},
};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    confirm::{Confirm, Consequence},
    page::{At, Exact, Page, Part, Shell, may_act},
    session::{Visitor, unreadable},
};
use crate::http::{
    State,
    accepting::{self, Asker},
    body::JsonBody,
    customers, guard,
    operators::calls::{find, noted, search},
    problem::{Code, Problem},
};

/// Calls of a page.
const LIMIT: u16 = 50;
/// Seconds between two looks at a call that has not ended.
const REFRESH_S: u32 = 2;

#[derive(Template)]
#[template(path = "calls.html")]
struct CallsList {
    shell: Shell,
    calls: Vec<Call>,
    /// What the organisations of these calls are called.
    slugs: BTreeMap<OrgId, OrgSlug>,
    statuses: &'static [CallStatus],
    query: ListQuery,
    next: Option<CallId>,
    /// Those of every organisation may be seen.
    sees_all: bool,
    looked_at_max: usize,
}

impl CallsList {
    fn is_asked(&self, status: &CallStatus) -> bool {
        self.query.status == status.as_str()
    }

    fn is_filtered(&self) -> bool {
        ![&self.query.q, &self.query.status, &self.query.org].iter().all(|text| text.is_empty())
    }

    fn slug<'a>(&'a self, org: &'a OrgId) -> &'a str {
        self.slugs.get(org).map_or_else(|| org.as_str(), OrgSlug::as_str)
    }
}

/// `?q=&status=&org=&after=`; what a form sends empty is not asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct ListQuery {
    /// A call's id, a number, or what its metadata says.
    q: String,
    status: String,
    org: String,
    after: Option<CallId>,
}

impl ListQuery {
    /// What is looked for.
    fn search(&self) -> Result<CallSearch, Problem> {
        let wrong = |text: &str, param: &'static str| Problem::new(Code::InvalidField, text).param(param);
        let mut search = CallSearch { before: self.after.clone(), limit: LIMIT, ..CallSearch::default() };
        if !self.status.is_empty() {
            search.status = Some(self.status.parse().map_err(|_| wrong("No such state.", "status"))?);
        }
        if !self.org.is_empty() {
            search.org = Some(
                self.org
                    .parse()
                    .map_err(|_| wrong("An organisation's id: org_ and 26 characters.", "org"))?,
            );
        }
        if self.q.starts_with('+') {
            search.to = number(Some(self.q.clone()), "q")?;
        } else if self.q.contains('\0') {
            return Err(wrong("It must not contain NUL.", "q"));
        } else if !self.q.is_empty() {
            search.metadata = Some(noted(&self.q));
        }
        Ok(search)
    }
}

/// What organisations are called, as far as they are there.
async fn slugs(state: &State, calls: &[Call]) -> Result<BTreeMap<OrgId, OrgSlug>, Problem> {
    let mut slugs = BTreeMap::new();
    for call in calls {
        if !slugs.contains_key(&call.org)
            && let Some(org) = state.store.org(&call.org).await?
        {
            slugs.insert(org.id, org.slug);
        }
    }
    Ok(slugs)
}

/// `GET /calls`
pub(in crate::http) async fn list(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(mut query) = query?;
    query.q = query.q.trim().to_owned();
    if query.q.starts_with("call_") {
        let id: CallId = query.q.parse().map_err(|_| {
            Problem::new(Code::InvalidField, "A call's id: call_ and 26 characters.").param("q")
        })?;
        return Ok(Redirect::to(&format!("/calls/{id}")).into_response());
    }
    let found = search(&state, visitor.role, query.search()?).await?;
    let list = CallsList {
        shell: Shell::of(&visitor, Part::Calls, "Calls"),
        slugs: slugs(&state, &found.calls).await?,
        calls: found.calls,
        statuses: CallStatus::ALL,
        query,
        next: found.next,
        sees_all: may_act(&visitor),
        looked_at_max: LOOKED_AT_MAX,
    };
    Ok(Page::of(&list)?.into_response())
}

/// A step of a call.
struct Step {
    at: Exact,
    /// Since it was accepted.
    after: String,
    status: CallStatus,
    text: String,
}

#[derive(Template)]
#[template(path = "call.html")]
struct OneCall {
    shell: Shell,
    call: Call,
    sentence: String,
    /// What took how long.
    gaps: Vec<(&'static str, String)>,
    steps: Vec<Step>,
    on_unknown: &'static str,
    /// The slug of its organisation.
    customer: String,
    can_act: bool,
}

fn seconds(from: OffsetDateTime, to: OffsetDateTime) -> String {
    format!("{:.2} s", (to - from).as_seconds_f64())
}

/// From acceptance to dialling, to the first ring, to the answer, to the end.
fn gaps(call: &Call) -> Vec<(&'static str, String)> {
    let first = call.attempts.first();
    let rang = call.attempts.iter().find_map(|attempt| Some((attempt.started_at, attempt.ringing_at?)));
    let answered = call.attempts.iter().find_map(|attempt| Some((attempt.started_at, attempt.answered_at?)));
    let gap =
        |name, of: Option<(OffsetDateTime, OffsetDateTime)>| of.map(|(from, to)| (name, seconds(from, to)));
    [
        gap("Accepted to dialled", first.map(|attempt| (call.created_at, attempt.started_at))),
        gap("Dialled to ringing", rang),
        gap("Dialled to answered", answered),
        gap("Accepted to acknowledged", call.acknowledgement.map(|pressed| (call.created_at, pressed.at))),
        gap("Accepted to ended", call.ended_at.map(|ended| (call.created_at, ended))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What came of it, or where it is.
fn sentence(call: &Call) -> String {
    let tries = call.attempts.len();
    let attempts = if tries == 1 { "1 attempt".to_owned() } else { format!("{tries} attempts") };
    match (call.reason, call.outcome, call.redial_at) {
        (Some(reason), Some(outcome), _) => {
            format!("{outcome}: it ended as {}, for {reason}, after {attempts}", call.status)
        }
        (Some(reason), None, _) => format!("It ended as {}, for {reason}, after {attempts}", call.status),
        (None, _, Some(at)) => {
            format!("It waits for round {}, which begins at {}; {attempts} so far", call.round, At(at))
        }
        (None, ..) => format!("It is under way, in round {}; {attempts} so far", call.round),
    }
}

/// What a step says, and what was decided upon it.
fn step(call: &Call, transition: &Transition, next: Option<&Transition>) -> Step {
    let of =
        transition.attempt.as_ref().and_then(|id| call.attempts.iter().find(|attempt| attempt.id == *id));
    let mut text = match of {
        Some(attempt) => format!("attempt {} over {}", attempt.ordinal, attempt.trunk),
        None if transition.sequence == 1 => "accepted".to_owned(),
        None => String::new(),
    };
    if let Some(ending) = transition.ending {
        text += &format!(": {ending}");
        if let Some(code) = of.and_then(|attempt| attempt.sip_code) {
            text += &format!(" (SIP {code})");
        }
    }
    if let Some(key) = transition.key {
        text += &format!(", key {key} was pressed");
    }
    text += &match (transition.reason, transition.redial_at, transition.ending, next) {
        (Some(reason), ..) => format!(" → the call ends: {reason}"),
        (None, Some(at), ..) => format!(" → dialled again at {}", At(at)),
        (None, None, Some(_), Some(_)) => " → another trunk is tried".to_owned(),
        (None, None, ..) => String::new(),
    };
    let after = format!("+{:.3} s", (transition.at - call.created_at).as_seconds_f64());
    Step { at: Exact(transition.at), after, status: transition.status, text }
}

/// `GET /calls/{id}`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<CallId>, PathRejection>,
) -> Result<Page, Problem> {
    let call = find(&state, visitor.role, &id?.0).await?;
    let log = state.store.transitions(&call.org, &call.id).await?;
    let steps = (0..).zip(&log).map(|(n, transition)| step(&call, transition, log.get(n + 1))).collect();
    let mut shell = Shell::of(&visitor, Part::Calls, format!("Call {}", call.id));
    shell.refresh_s = call.ended_at.is_none().then_some(REFRESH_S);
    let org = state.store.org(&call.org).await?;
    Page::of(&OneCall {
        shell,
        sentence: sentence(&call),
        gaps: gaps(&call),
        steps,
        on_unknown: match call.request.on_unknown {
            OnUnknown::Retry => "it is dialled again",
            OnUnknown::Fail => "it is not dialled again",
        },
        customer: org.map_or_else(|| call.org.to_string(), |org| org.slug.to_string()),
        can_act: may_act(&visitor),
        call,
    })
}

/// `GET /calls/{id}/cancel`
pub(in crate::http) async fn confirm_cancel(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<CallId>, PathRejection>,
) -> Result<Page, Problem> {
    let call = find(&state, visitor.role, &id?.0).await?;
    let question = format!("Cancel the call to {}?", call.request.to);
    let shell = Shell::of(&visitor, Part::Calls, question.clone());
    let mut page = Confirm::new(shell, question, "Cancel the call", format!("/calls/{}", call.id));
    page.asks_reason = false;
    page.command = Some(format!("ringward call cancel {}", call.id));
    page.consequences = vec![if call.ended_at.is_some() {
        Consequence::new("It has ended already: this changes nothing.")
    } else {
        Consequence::new(format!(
            "It is {} now. It ends as canceled, as soon as the phone is silent.",
            call.status
        ))
    }];
    page.page()
}

/// `POST /calls/{id}/cancel`
pub(in crate::http) async fn cancel(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<CallId>, PathRejection>,
) -> Result<Redirect, Problem> {
    let Path(id) = id?;
    let call = find(&state, visitor.role, &id).await?;
    customers::end(&state, &call.org, &id, visitor.operator.actor).await?;
    Ok(Redirect::to(&format!("/calls/{id}")))
}

#[derive(Template)]
#[template(path = "new_call.html")]
struct NewCall {
    shell: Shell,
}

/// A test call: `?to=&from=`, and what the confirmation sends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TestCall {
    to: Option<String>,
    from: Option<String>,
}

pub(super) fn number(text: Option<String>, param: &'static str) -> Result<Option<E164>, Problem> {
    let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let wrong = |error| Problem::new(Code::InvalidNumber, format!("{error}.")).param(param);
    text.map(|text| text.parse::<E164>().map_err(wrong)).transpose()
}

/// `GET /calls/new`: the form, and with a number what would be done.
pub(in crate::http) async fn form(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<TestCall>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(TestCall { to, from }) = query?;
    let (Some(to), from) = (number(to, "to")?, number(from, "from")?) else {
        return Page::of(&NewCall { shell: Shell::of(&visitor, Part::Calls, "Place a test call") });
    };
    let question = format!("Phone {to}?");
    let shell = Shell::of(&visitor, Part::Calls, question.clone());
    let mut page = Confirm::new(shell, question, "Place the call", "/calls".to_owned());
    page.asks_reason = false;
    page.is_dangerous = false;
    page.command = Some(format!("ringward call place {to} --audio builtin:beep"));
    page.consequences = preview(&state, &to, from.as_ref());
    page.hidden = vec![("to", to.to_string())];
    page.hidden.extend(from.map(|from| ("from", from.to_string())));
    page.page()
}

/// What the fraud guard and the routes say of it.
fn preview(state: &State, to: &E164, from: Option<&E164>) -> Vec<Consequence> {
    let verdict = guard::verdict(state, &OrgId::first(), to, from);
    let sentence = verdict.sentence();
    let guard =
        if verdict.decision.is_ok() { Consequence::new(sentence) } else { Consequence::grave(sentence) };
    let (decision, panic) = state.registry.explain(to, from, Instant::now().into_std());
    let route = match decision.choice {
        Choice::Trunk(trunk) => Consequence::new(format!("It would leave over {trunk}, and play a beep.")),
        Choice::Wait { .. } => Consequence::new("It would wait: every trunk is at a limit."),
        Choice::NoRoute => Consequence::grave("No route takes it."),
        Choice::NothingLeft | Choice::NothingUsable => {
            Consequence::grave("No trunk of its route can be used now.")
        }
    };
    let mut told = vec![guard, route];
    if panic {
        told.push(Consequence::grave("Its route is in panic: all trunks are tried."));
    }
    told
}

/// `POST /calls/new`
pub(in crate::http) async fn place(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    form: Result<Form<TestCall>, FormRejection>,
) -> Result<Redirect, Problem> {
    let Form(TestCall { to, from }) = form.map_err(unreadable)?;
    let missing = || Problem::new(Code::InvalidNumber, "A number to phone.").param("to");
    let (to, from) = (number(to, "to")?.ok_or_else(missing)?, number(from, "from")?);
    let mut asked = json!({"to": to, "message": {"audio_id": "builtin:beep"}});
    if let Some(from) = from {
        asked["from"] = json!(from);
    }
    let value: CallRequest = serde_json::from_value(asked).map_err(|error| {
        tracing::error!(%error, "a test call could not be made");
        Problem::new(Code::Internal, "Nothing was done. The log tells more under this request_id.")
    })?;
    let asker = Asker {
        org: OrgId::first(),
        actor: visitor.operator.actor,
        mode: Mode::Live,
        trace: state.traces.begin_alone(),
    };
    let body = JsonBody { value, bytes: Bytes::new() };
    let placed = accepting::place(&state, asker, &HeaderMap::new(), body).await?;
    Ok(Redirect::to(&placed.call().map_or_else(|| "/calls".to_owned(), |call| format!("/calls/{}", call.id))))
}
