//! The firewalls of nodes, as their agents tell: how each stands, what it lets in, and what became of its changes.
//!
//! To look at. Rules are a node's own settings, joined with what fleet.toml names, and a change of them is confirmed by who
//! comes in at the node (docs/adr/0023).

use askama::Template;
use axum::extract::{
    Path, Query, State as AxumState,
    rejection::{PathRejection, QueryRejection},
};
use controlplane_core::names::NodeName;
use controlplane_store::agents::KeptFact;
use node_agent_protocol::{FirewallSeen, FirewallState, fact_kind};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    page::{At, Page, Part, Shell},
    session::Visitor,
};
use crate::{
    agents::AgentState,
    http::{State, operators::health::undeclared, problem::Problem},
};

/// Nodes of a page.
const NODES_SHOWN: usize = 100;
/// Changes that are shown of a node.
const CHANGES_SHOWN: u16 = 30;
/// Facts that tell of changes.
const KINDS: [&str; 2] = [fact_kind::FIREWALL, fact_kind::FIREWALL_CONFIRMED];
/// Between two looks while a change is on trial.
const REFRESH_S: u32 = 2;

/// How a node's firewall stands, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    OnTrial,
    Reverted,
    Waiting,
    NotTold,
    Simulated,
    Off,
    InForce,
}

/// A node's firewall.
struct Wall {
    node: NodeName,
    urgency: Urgency,
    /// In a word, by which it is coloured.
    word: &'static str,
    reason: String,
    /// Seconds until a change on trial is reverted.
    reverts_in_s: Option<u64>,
    seen: Option<FirewallSeen>,
}

impl Wall {
    fn of(node: NodeName, agent: &AgentState) -> Self {
        let not_told = |node, reason: &str| Self {
            node,
            urgency: Urgency::NotTold,
            word: "unknown",
            reason: reason.to_owned(),
            reverts_in_s: None,
            seen: None,
        };
        let Some(seen) = &agent.seen else {
            return not_told(node, "no agent is linked: nothing is known of its firewall");
        };
        let Some(firewall) = seen.observations.firewall.as_deref().cloned() else {
            return not_told(node, "its agent is of a version that does not tell");
        };
        let age = Instant::now().duration_since(seen.taken);
        let left = firewall.reverts_in_ms.map(|ms| {
            let left = u128::from(ms).saturating_sub(age.as_millis());
            u64::try_from(left / 1_000).unwrap_or_default()
        });
        let urgency = match firewall.state {
            FirewallState::OnTrial => Urgency::OnTrial,
            FirewallState::Reverted => Urgency::Reverted,
            FirewallState::Waiting => Urgency::Waiting,
            FirewallState::Unknown => Urgency::NotTold,
            FirewallState::Simulate => Urgency::Simulated,
            FirewallState::Off => Urgency::Off,
            FirewallState::InForce => Urgency::InForce,
        };
        let reason = match &agent.link {
            Some(_) => firewall.reason.to_string(),
            None => format!("its agent is not linked now; so it was: {}", firewall.reason),
        };
        let word = firewall.state.as_str();
        Self { node, urgency, word, reason, reverts_in_s: left, seen: Some(firewall) }
    }
}

#[derive(Template)]
#[template(path = "firewall/list.html")]
struct ListPage {
    shell: Shell,
    walls: Vec<Wall>,
    found: usize,
    q: String,
    previous: Option<usize>,
    next: Option<usize>,
}

/// `?q=&page=`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct ListQuery {
    /// A part of a node's name, or a state.
    q: String,
    page: Option<usize>,
}

/// `GET /firewall`
pub(in crate::http) async fn list(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(ListQuery { q, page }) = query?;
    let q = q.trim().to_lowercase();
    let (fleet, _) = state.registry.fleet();
    let mut walls: Vec<Wall> = fleet
        .nodes()
        .map(|node| Wall::of(node.name.clone(), &state.agents.links.agent(&node.name)))
        .collect();
    walls.retain(|wall| q.is_empty() || wall.node.as_str().contains(&q) || wall.word == q);
    walls.sort_by(|a, b| (a.urgency, &a.node).cmp(&(b.urgency, &b.node)));
    let found = walls.len();
    let page = page.unwrap_or(1).clamp(1, found.div_ceil(NODES_SHOWN).max(1));
    let mut shell = Shell::of(&visitor, Part::Firewall, "Firewall");
    shell.refresh_s = walls.iter().any(|wall| wall.urgency == Urgency::OnTrial).then_some(REFRESH_S);
    Page::of(&ListPage {
        shell,
        walls: walls.into_iter().skip((page - 1) * NODES_SHOWN).take(NODES_SHOWN).collect(),
        found,
        q,
        previous: (page > 1).then(|| page - 1),
        next: (page * NODES_SHOWN < found).then_some(page + 1),
    })
}

/// A change of rules, or what became of it.
struct Event {
    /// By the node's clock.
    at: At,
    word: String,
    text: String,
    plan: Vec<String>,
}

impl From<KeptFact> for Event {
    fn from(kept: KeptFact) -> Self {
        let body = &kept.fact.body;
        let text = |member: &str| body[member].as_str().unwrap_or_default().to_owned();
        let change = Some(text("change")).filter(|change| !change.is_empty());
        let named = change.map(|change| format!(" ({change})")).unwrap_or_default();
        let (word, text) = match (kept.fact.kind.as_str(), text("event").as_str()) {
            (fact_kind::FIREWALL_CONFIRMED, _) => {
                ("vouched".to_owned(), format!("{} says on the node that he is in{named}", text("author")))
            }
            (_, "on_trial") => {
                let seconds = body["seconds"].as_u64().unwrap_or_default();
                (
                    "on_trial".to_owned(),
                    format!("New rules{named}: reverted after {seconds} s unless somebody comes in"),
                )
            }
            (_, "confirmed") => {
                ("in_force".to_owned(), format!("Somebody came in: the new rules stay{named}"))
            }
            (_, "reverted") => {
                ("reverted".to_owned(), "Nobody came in: the former rules stand again".to_owned())
            }
            (_, "in_force") => ("in_force".to_owned(), "Wider rules: nobody had to confirm them".to_owned()),
            (_, other) => ("unknown".to_owned(), other.to_owned()),
        };
        let lines = body["plan"].as_array().into_iter().flatten();
        let plan = lines.filter_map(|line| line.as_str().map(str::to_owned)).collect();
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(kept.fact.at_ms) * 1_000_000);
        Self { at: At(at.unwrap_or(kept.received_at)), word, text, plan }
    }
}

#[derive(Template)]
#[template(path = "firewall/one.html")]
struct OnePage {
    shell: Shell,
    wall: Wall,
    events: Vec<Event>,
}

/// `GET /firewall/{name}`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    name: Result<Path<NodeName>, PathRejection>,
) -> Result<Page, Problem> {
    let Path(name) = name?;
    state.registry.fleet().0.node(&name).ok_or_else(|| undeclared("node", &name))?;
    let facts = state.store.facts_of_kinds(&name, &KINDS, CHANGES_SHOWN).await?;
    let wall = Wall::of(name.clone(), &state.agents.links.agent(&name));
    let mut shell = Shell::of(&visitor, Part::Firewall, format!("Firewall of {name}"));
    shell.refresh_s = (wall.urgency == Urgency::OnTrial).then_some(REFRESH_S);
    Page::of(&OnePage { shell, wall, events: facts.into_iter().map(Event::from).collect() })
}
