//! One trunk: its state and why, how it came to that, what its attempts came to.

use askama::Template;
use axum::extract::{Path, State as AxumState, rejection::PathRejection};
use controlplane_core::{
    ending::EndingClass,
    health::{Change, Contact, Registration, TrunkState},
    names::TrunkName,
};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use super::{
    page::{At, Page, Part, Shell, may_act},
    session::Visitor,
};
use crate::{
    http::{
        State,
        operators::health::{standing, undeclared},
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
    can_act: bool,
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
        can_act: may_act(&visitor),
        why,
    })
}
