//! What an organisation may have, set by a form: an empty field is no limit.

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
use controlplane_core::{ids::OrgId, limits::OrgLimits};
use controlplane_store::orgs::Org;
use serde::Deserialize;

use super::find;
use crate::http::{
    State,
    body::JsonBody,
    console::{
        confirm::{Confirm, Consequence},
        page::{Page, Part, Shell},
        session::{Visitor, unreadable},
    },
    operators::rules,
    problem::{Code, Problem},
};

/// The limits of the form: name, what it is called, and where it stands.
type Field = (&'static str, &'static str, fn(&mut OrgLimits) -> &mut Option<u32>);
const FIELDS: [Field; 7] = [
    ("requests_per_s", "Requests per second", |l| &mut l.requests_per_s),
    ("calls_per_day", "Calls per day (UTC)", |l| &mut l.calls_per_day),
    ("open_calls_max", "Open calls", |l| &mut l.open_calls_max),
    ("number_open_calls_max", "Open calls to one number", |l| &mut l.number_open_calls_max),
    ("cps_max", "Calls per second", |l| &mut l.cps_max),
    ("channels_max", "Attempts in flight", |l| &mut l.channels_max),
    ("weight", "Weight where trunks are full", |l| &mut l.weight),
];

/// What the form sends; `ask` says that it was sent.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct LimitsForm {
    ask: Option<String>,
    requests_per_s: String,
    calls_per_day: String,
    open_calls_max: String,
    number_open_calls_max: String,
    cps_max: String,
    channels_max: String,
    weight: String,
}

impl LimitsForm {
    fn texts(&self) -> [&str; FIELDS.len()] {
        [
            &self.requests_per_s,
            &self.calls_per_day,
            &self.open_calls_max,
            &self.number_open_calls_max,
            &self.cps_max,
            &self.channels_max,
            &self.weight,
        ]
    }

    /// The limits with what the form has; what it lacks, as the throttle of numbers, stays.
    fn over(&self, now: &OrgLimits) -> Result<OrgLimits, Problem> {
        let mut limits = now.clone();
        for ((param, _, place), text) in FIELDS.iter().zip(self.texts()) {
            let text = text.trim();
            let wrong = |_| Problem::new(Code::InvalidField, "A whole number, or nothing.").param(*param);
            *place(&mut limits) = (!text.is_empty()).then(|| text.parse().map_err(wrong)).transpose()?;
        }
        limits
            .validate()
            .map_err(|error| Problem::new(Code::InvalidField, format!("{error}.")).param(error.param))?;
        Ok(limits)
    }
}

#[derive(Template)]
#[template(path = "customers/limits.html")]
struct LimitsPage {
    shell: Shell,
    org: Org,
    /// Name, what it is called, and the limit as it is.
    fields: Vec<(&'static str, &'static str, String)>,
}

fn spoken(limit: Option<u32>) -> String {
    limit.map_or_else(|| "no limit set".to_owned(), |limit| limit.to_string())
}

/// `GET /customers/{id}/limits`: the form, and when it is sent the question.
pub(in crate::http) async fn form(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
    query: Result<Query<LimitsForm>, QueryRejection>,
) -> Result<Page, Problem> {
    let org = find(&state, id).await?;
    let Query(form) = query?;
    let mut now = state.rules.limits(&org.id).as_ref().clone();
    if form.ask.is_none() {
        let shown = |limit: Option<u32>| limit.map(|limit| limit.to_string()).unwrap_or_default();
        let shell = Shell::of(&visitor, Part::Customers, format!("Limits of {}", org.slug));
        let fields = FIELDS.iter().map(|(name, title, place)| (*name, *title, shown(*place(&mut now))));
        return Page::of(&LimitsPage { shell, fields: fields.collect(), org });
    }
    let mut then = form.over(&now)?;
    let question = format!("Set the limits of {}?", org.slug);
    let shell = Shell::of(&visitor, Part::Customers, question.clone());
    let mut page = Confirm::new(shell, question, "Set them", format!("/customers/{}", org.id));
    page.asks_reason = false;
    page.command = Some(format!("ringward limits set --org {} …", org.id));
    for (_, title, place) in FIELDS {
        let (was, is) = (*place(&mut now), *place(&mut then));
        if was != is {
            page.consequences.push(Consequence::new(format!("{title}: {} → {}.", spoken(was), spoken(is))));
        }
    }
    if page.consequences.is_empty() {
        page.consequences.push(Consequence::new("They are so already: this changes nothing."));
    } else {
        let text = "In force at once. What is under way goes on; of what waits, more may leave, or less.";
        page.consequences.push(Consequence::new(text));
    }
    page.hidden =
        FIELDS.iter().map(|field| field.0).zip(form.texts().map(|text| text.trim().to_owned())).collect();
    page.page()
}

/// `POST /customers/{id}/limits`
pub(in crate::http) async fn set(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    id: Result<Path<OrgId>, PathRejection>,
    form: Result<Form<LimitsForm>, FormRejection>,
) -> Result<Redirect, Problem> {
    let org = find(&state, id).await?;
    let value = form.map_err(unreadable)?.0.over(state.rules.limits(&org.id).as_ref())?;
    let (named, body) = (Ok(Path(org.id.to_string())), JsonBody { value, bytes: Bytes::new() });
    let _ = rules::set_limits(visitor.operator, AxumState(state), named, body).await?;
    Ok(Redirect::to(&format!("/customers/{}", org.id)))
}
