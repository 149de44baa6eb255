//! One node: its state and why, its trunks, its session and its agent.

use askama::Template;
use axum::extract::{Path, State as AxumState, rejection::PathRejection};
use controlplane_core::{
    health::{NodeState, NodeWhy},
    names::NodeName,
};
use tokio::time::Instant;

use super::{
    page::{At, Page, Part, Shell, may_act},
    session::Visitor,
    trunk::{Changed, moments},
};
use crate::{
    http::{State, operators::health::undeclared, problem::Problem},
    registry::{Hold, NodeSight},
};

/// Its agent's link.
struct Agent {
    version: String,
    since: At,
}

#[derive(Template)]
#[template(path = "node.html")]
struct NodePage {
    shell: Shell,
    node: NodeSight,
    why: NodeWhy,
    hold: Option<Hold>,
    /// Why it has no session.
    down: Option<String>,
    finding: Option<&'static str>,
    channels: usize,
    rtt_ms: Option<String>,
    since: At,
    asterisk_started: Option<String>,
    tampering: u64,
    agent: Option<Agent>,
    history: Vec<Changed<NodeState>>,
    can_act: bool,
}

/// `GET /nodes/{name}`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
) -> Result<Page, Problem> {
    let Path(name) = name?;
    let missing = || undeclared("node", &name);
    let (mark, sight) = state.console.live.page();
    let node = sight.nodes.into_iter().find(|node| node.name == name).ok_or_else(missing)?;
    let (why, hold) = state.registry.node_why(Instant::now().into_std(), &name).ok_or_else(missing)?;
    let view = state.registry.nodes().into_iter().find(|view| view.name == name).ok_or_else(missing)?;
    let link = state.agents.links.agent(&name).link;
    let mut shell = Shell::of(&visitor, Part::Fleet, format!("Node {name}")).live(mark);
    shell.watch = Some(format!("n-{name}"));
    Page::of(&NodePage {
        shell,
        channels: channels(&state, &name),
        node,
        hold,
        down: view.reason.filter(|_| !view.up),
        finding: view.finding,
        rtt_ms: view.ami_rtt_ms.map(|ms| format!("{ms:.1}")),
        since: At(view.since),
        asterisk_started: view.asterisk_started,
        tampering: view.tampering,
        agent: link
            .map(|link| Agent { version: link.hello.agent_version.to_string(), since: At(link.since) }),
        history: moments(&why.history, state.clock.now()),
        can_act: may_act(&visitor),
        why,
    })
}

/// Attempts in flight over a node's trunks.
pub(super) fn channels(state: &State, node: &NodeName) -> usize {
    let now = Instant::now().into_std();
    let (fleet, _) = state.registry.fleet();
    let held = |trunk: &controlplane_core::fleet::Trunk| {
        state.registry.trunk_why(now, &trunk.name).map_or(0, |why| why.channels)
    };
    fleet.trunks_of(node).map(held).sum()
}
