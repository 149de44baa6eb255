//! Disabling and enabling a trunk, draining and undraining a node: asked first, and done by what `/admin/v1` does.

use axum::{
    Form, Json,
    extract::{
        Path, State as AxumState,
        rejection::{FormRejection, PathRejection},
    },
    response::Redirect,
};
use controlplane_core::names::{NodeName, TrunkName};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    confirm::{Confirm, Consequence},
    node,
    page::{Page, Part, Shell},
    session::{Visitor, unreadable},
};
use crate::{
    http::{
        State,
        operators::health::{HoldBody, hold_node, hold_trunk, undeclared},
        problem::Problem,
    },
    registry::{RouteSight, Sight},
};

/// What a confirmation sends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ReasonForm {
    reason: Option<String>,
}

impl ReasonForm {
    /// A field that was left empty is none.
    pub(super) fn reason(self) -> Option<String> {
        self.reason.map(|reason| reason.trim().to_owned()).filter(|reason| !reason.is_empty())
    }
}

fn in_flight(attempts: usize) -> Consequence {
    Consequence::new(match attempts {
        0 => "No attempt is in flight there.".to_owned(),
        1 => "1 attempt is in flight there: it goes on to its end.".to_owned(),
        n => format!("{n} attempts are in flight there: they go on to their ends."),
    })
}

/// What is left of each route when these trunks are taken away.
fn routes(state: &State, sight: &Sight, is_taken: impl Fn(&TrunkName) -> bool) -> Vec<Consequence> {
    let (fleet, _) = state.registry.fleet();
    let usable = |name: &TrunkName| {
        sight.nodes.iter().flat_map(|node| &node.trunks).any(|trunk| trunk.name == *name && trunk.usable)
    };
    let lines = fleet.routes().zip(&sight.routes).filter_map(|(route, seen)| {
        let names = || route.tiers.iter().flatten();
        names()
            .any(&is_taken)
            .then(|| left(seen, names().filter(|name| usable(name) && !is_taken(name)).count()))
    });
    lines.collect()
}

fn left(route: &RouteSight, left: usize) -> Consequence {
    let RouteSight { prefix, trunks, usable, .. } = route;
    if left == 0 {
        let text = format!(
            "Route {prefix} keeps no usable trunk of {trunks}: its calls wait, and fail at their deadline."
        );
        return Consequence::grave(text);
    }
    Consequence::new(format!("Route {prefix} keeps {left} usable trunks of {trunks} (now {usable})."))
}

async fn confirm_trunk(
    state: &State,
    visitor: &Visitor,
    name: Result<Path<TrunkName>, PathRejection>,
    held: bool,
) -> Result<Page, Problem> {
    let Path(name) = name?;
    let why = state.registry.trunk_why(Instant::now().into_std(), &name);
    let why = why.ok_or_else(|| undeclared("trunk", &name))?;
    let (verb, word) = if held { ("Disable", "disable") } else { ("Enable", "enable") };
    let question = format!("{verb} trunk {name}?");
    let shell = Shell::of(visitor, Part::Fleet, question.clone());
    let mut page = Confirm::new(shell, question, verb, format!("/trunks/{name}"));
    page.is_dangerous = held;
    page.command = Some(format!("ringward trunk {word} {name} --reason …"));
    page.consequences = if held {
        let mut lines = vec![
            Consequence::new("No new call takes it, until an operator enables it."),
            in_flight(why.channels),
        ];
        lines.extend(routes(state, &state.registry.sight(), |trunk| *trunk == name));
        lines
    } else {
        vec![Consequence::new("New calls may take it again, as soon as its own health allows it.")]
    };
    if held && why.hold.is_some() {
        page.consequences.insert(0, Consequence::new("It is disabled already: this changes nothing."));
    }
    page.page()
}

async fn confirm_node(
    state: &State,
    visitor: &Visitor,
    name: Result<Path<NodeName>, PathRejection>,
    held: bool,
) -> Result<Page, Problem> {
    let Path(name) = name?;
    let (fleet, _) = state.registry.fleet();
    fleet.node(&name).ok_or_else(|| undeclared("node", &name))?;
    let (verb, word) = if held { ("Drain", "drain") } else { ("Undrain", "undrain") };
    let question = format!("{verb} node {name}?");
    let shell = Shell::of(visitor, Part::Fleet, question.clone());
    let mut page = Confirm::new(shell, question, verb, format!("/nodes/{name}"));
    page.is_dangerous = held;
    page.command = Some(format!("ringward node {word} {name} --reason …"));
    page.consequences = if held {
        let mut lines = vec![
            Consequence::new("No new call is placed on it, until an operator undrains it."),
            in_flight(node::channels(state, &name)),
        ];
        let of_node = |trunk: &TrunkName| fleet.trunk(trunk).is_some_and(|trunk| trunk.node == name);
        lines.extend(routes(state, &state.registry.sight(), of_node));
        lines
    } else {
        vec![Consequence::new("New calls may be placed on it again, as soon as its own health allows it.")]
    };
    page.page()
}

pub(in crate::http) async fn confirm_disable(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
) -> Result<Page, Problem> {
    confirm_trunk(&state, &visitor, name, true).await
}

pub(in crate::http) async fn confirm_enable(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
) -> Result<Page, Problem> {
    confirm_trunk(&state, &visitor, name, false).await
}

pub(in crate::http) async fn confirm_drain(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
) -> Result<Page, Problem> {
    confirm_node(&state, &visitor, name, true).await
}

pub(in crate::http) async fn confirm_undrain(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
) -> Result<Page, Problem> {
    confirm_node(&state, &visitor, name, false).await
}

async fn act_on_trunk(
    state: &State,
    visitor: Visitor,
    name: Result<Path<TrunkName>, PathRejection>,
    held: bool,
    form: Result<Form<ReasonForm>, FormRejection>,
) -> Result<Redirect, Problem> {
    let Path(name) = name?;
    let body = HoldBody::because(form.map_err(unreadable)?.0.reason());
    let place = format!("/trunks/{name}");
    let Json(_) = hold_trunk(state, visitor.operator, Ok(Path(name)), held, body).await?;
    Ok(Redirect::to(&place))
}

async fn act_on_node(
    state: &State,
    visitor: Visitor,
    name: Result<Path<NodeName>, PathRejection>,
    held: bool,
    form: Result<Form<ReasonForm>, FormRejection>,
) -> Result<Redirect, Problem> {
    let Path(name) = name?;
    let body = HoldBody::because(form.map_err(unreadable)?.0.reason());
    let place = format!("/nodes/{name}");
    let Json(_) = hold_node(state, visitor.operator, Ok(Path(name)), held, body).await?;
    Ok(Redirect::to(&place))
}

pub(in crate::http) async fn disable(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
    form: Result<Form<ReasonForm>, FormRejection>,
) -> Result<Redirect, Problem> {
    act_on_trunk(&state, visitor, name, true, form).await
}

pub(in crate::http) async fn enable(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<TrunkName>, PathRejection>,
    form: Result<Form<ReasonForm>, FormRejection>,
) -> Result<Redirect, Problem> {
    act_on_trunk(&state, visitor, name, false, form).await
}

pub(in crate::http) async fn drain(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
    form: Result<Form<ReasonForm>, FormRejection>,
) -> Result<Redirect, Problem> {
    act_on_node(&state, visitor, name, true, form).await
}

pub(in crate::http) async fn undrain(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
    form: Result<Form<ReasonForm>, FormRejection>,
) -> Result<Redirect, Problem> {
    act_on_node(&state, visitor, name, false, form).await
}
