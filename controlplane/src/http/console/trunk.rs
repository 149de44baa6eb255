//! One trunk: its state and why, how it came to that, what its attempts came to; and a canary over it, now.

use askama::Template;
use axum::{
    extract::{Path, State as AxumState, rejection::PathRejection},
    response::Redirect,
};
use controlplane_core::{
    ending::EndingClass,
    health::{Change, Contact, Registration, TrunkState},
    names::TrunkName,
};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use super::{
    confirm::{Confirm, Consequence},
    page::{At, Page, Part, Shell, may_act},
    session::Visitor,
};
use crate::{
    calls::CANARY_MAX_S,
    health::LastCanary,
    http::{
        State,
        operators::health::{place_canary, standing, undeclared},
        problem::Problem,
    },
    registry::TrunkWhy,
};

#[derive(Template)]
#[template(path = "trunk.html")]
struct TrunkPage {
    shell: Shell,
    why: TrunkWhy,
    standing: &'static str,
    contact: &'static str,
    registration: &'static str,
    /// In percent.
    asr: Option<String>,
    rtt_ms: Option<String>,
    history: Vec<Changed<TrunkState>>,
    endings: Vec<(EndingClass, u64)>,
    /// What became of its latest canary.
    canary: Option<CanarySeen>,
    can_act: bool,
}

/// A trunk's latest canary.
struct CanarySeen {
    at: At,
    text: String,
}

impl From<LastCanary> for CanarySeen {
    fn from(last: LastCanary) -> Self {
        let whose = if last.by_operator { "an operator's" } else { "by the timetable" };
        let text = match last.ended {
            None => "under way".to_owned(),
            Some(told) => {
                let met = if told.met.as_expected { "as expected" } else { "not as expected" };
                let sip = told.met.sip_code.map_or_else(String::new, |code| format!(", SIP {code}"));
                format!("{met}: {}{sip}", told.met.ending)
            }
        };
        Self { at: At(last.started_at), text: format!("{text} ({whose})") }
    }
}

/// A change of the past, with its moment.
pub(super) struct Changed<S> {
    pub(super) at: At,
    pub(super) from: S,
    pub(super) to: S,
    pub(super) sentence: String,
}

/// Spans up to now, as moments.
pub(super) fn moments<S: Copy, E>(history: &[Change<S, E>], now: OffsetDateTime) -> Vec<Changed<S>> {
    let changed = |change: &Change<S, E>| Changed {
        at: ago(change.ago_ms, now),
        from: change.from,
        to: change.to,
        sentence: change.sentence.clone(),
    };
    history.iter().map(changed).collect()
}

pub(super) fn ago(ms: u64, now: OffsetDateTime) -> At {
    let span = Duration::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX));
    At(now.checked_sub(span).unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

fn contact(contact: Option<Contact>) -> &'static str {
    match contact {
        Some(Contact::Reachable) => "answers OPTIONS",
        Some(Contact::Unreachable) => "does not answer OPTIONS",
        None => "is not qualified",
    }
}

fn registration(registration: Option<Registration>) -> &'static str {
    match registration {
        Some(Registration::Registered) => "accepted",
        Some(Registration::Lost) => "lost",
        Some(Registration::Rejected) => "rejected",
        None => "does not register",
    }
}

/// `GET /trunks/{name}`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
) -> Result<Page, Problem> {
    let Path(name) = name?;
    let (since, _) = state.console.live.page();
    let why = state.registry.trunk_why(Instant::now().into_std(), &name);
    let why = why.ok_or_else(|| undeclared("trunk", &name))?;
    let mut shell = Shell::of(&visitor, Part::Fleet, format!("Trunk {name}")).live(since);
    shell.watch = Some(format!("n-{}", why.trunk.node));
    Page::of(&TrunkPage {
        shell,
        standing: standing(why.standing),
        contact: contact(why.health.contact),
        registration: registration(why.health.registration),
        asr: why.health.asr().map(|asr| format!("{:.0}", asr * 100.0)),
        rtt_ms: why.health.qualify_rtt_us.map(|us| format!("{}.{}", us / 1_000, us % 1_000 / 100)),
        history: moments(&why.health.history, state.clock.now()),
        endings: state.metrics.fleet.endings(&why.trunk),
        canary: state.canaries.last(&name).map(CanarySeen::from),
        can_act: may_act(&visitor),
        why,
    })
}

/// `GET /trunks/{name}/canary`
pub(in crate::http) async fn confirm_canary(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
) -> Result<Page, Problem> {
    let Path(name) = name?;
    let why = state.registry.trunk_why(Instant::now().into_std(), &name);
    let why = why.ok_or_else(|| undeclared("trunk", &name))?;
    let question = format!("Place a canary over trunk {name}?");
    let shell = Shell::of(&visitor, Part::Fleet, question.clone());
    let mut page = Confirm::new(shell, question, "Place a canary", format!("/trunks/{name}"));
    page.asks_reason = false;
    page.is_dangerous = false;
    page.command = Some(format!("ringward trunk canary {name}"));
    page.consequences = match &why.trunk.canary {
        None => vec![Consequence::grave("fleet.toml names no canary for it: none can be placed.")],
        Some(canary) => vec![
            Consequence::new(format!(
                "One real call to {} leaves over this trunk now, and ends by itself within {} s.",
                canary.number.shortened(),
                CANARY_MAX_S
            )),
            Consequence::new(format!(
                "It is as it should be when the call comes to this: {}.",
                canary.expects
            )),
            Consequence::new("What comes of it counts for the trunk's health as a call does."),
        ],
    };
    if let Err(withheld) = why.standing {
        let text = format!("The trunk takes no call now ({}), so it takes no canary either.", withheld.why);
        page.consequences.push(Consequence::grave(text));
    }
    page.page()
}

/// `POST /trunks/{name}/canary`
pub(in crate::http) async fn canary(
    _: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
) -> Result<Redirect, Problem> {
    let Path(name) = name?;
    place_canary(&state, &name).await?;
    Ok(Redirect::to(&format!("/trunks/{name}")))
}
