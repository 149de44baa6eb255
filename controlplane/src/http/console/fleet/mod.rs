//! The Fleet page: what is wrong and why, the regions, and the nodes with their trunks, the worst first.

mod charts;
mod replicas;
mod troubles;

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State as AxumState, rejection::QueryRejection};
use controlplane_core::{
    health::{NodeEvidence, NodeState, TrunkState},
    names::{NodeName, RegionName},
};
use serde::Deserialize;
use tokio::time::Instant;

use self::{
    charts::{Chart, charts},
    replicas::ReplicasPart,
    troubles::{Trouble, troubles},
};
use super::{
    page::{Page, Part, Shell},
    session::Visitor,
};
use crate::{
    http::{State, problem::Problem},
    metrics::pulse::Minute,
    registry::{NodeSight, Registry, Sight, TrunkSight},
};

/// Nodes of a page: with four trunks each some 45 KB.
const NODES_SHOWN: usize = 60;
/// Elements that one change tells of; beyond it the page is asked for anew.
pub(super) const CHANGED_MAX: usize = 200;
/// Longest text that is searched for, in characters.
const SEARCH_MAX: usize = 63;

/// How bad it is with a node, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Badness {
    Lost,
    TrunkDown,
    Suspect,
    Hindered,
    Held,
    Well,
}

fn badness(node: &NodeSight) -> Badness {
    let any = |is: fn(TrunkState) -> bool| node.trunks.iter().any(|trunk| is(trunk.state));
    let hinders = |state| matches!(state, TrunkState::Degraded | TrunkState::Probation);
    match node.state {
        NodeState::Lost => Badness::Lost,
        NodeState::Suspect if node.up => Badness::Suspect,
        NodeState::Alive if node.up => {
            if any(|state| state == TrunkState::Tripped) {
                Badness::TrunkDown
            } else if node.draining {
                Badness::Held
            } else if node.deaf || node.trunks.iter().any(|trunk| trunk.found) || any(hinders) {
                Badness::Hindered
            } else if any(|state| state == TrunkState::Disabled) {
                Badness::Held
            } else {
                Badness::Well
            }
        }
        NodeState::Suspect | NodeState::Alive => Badness::Lost,
    }
}

/// How a trunk is, in its cell: its own health, unless something else keeps calls from it.
pub(super) fn word(trunk: &TrunkSight) -> &'static str {
    let told_by_state = match trunk.state {
        TrunkState::Tripped | TrunkState::Probation | TrunkState::Disabled => true,
        TrunkState::Unknown | TrunkState::Healthy | TrunkState::Degraded => trunk.usable,
    };
    if trunk.found {
        "refused"
    } else if told_by_state {
        trunk.state.as_str()
    } else {
        "out of use"
    }
}

/// A node's part of the page, with its trunks.
#[derive(Template)]
#[template(path = "fleet/node.html")]
pub(super) struct NodePart<'s> {
    node: &'s NodeSight,
}

/// A region's line.
#[derive(Template)]
#[template(path = "fleet/region.html")]
struct RegionPart<'s> {
    name: &'s RegionName,
    count: Count,
}

/// How many of what there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    nodes: usize,
    alive: usize,
    trunks: usize,
    usable: usize,
}

/// The figures at the head.
#[derive(Template)]
#[template(path = "fleet/totals.html")]
struct TotalsPart {
    count: Count,
    channels: usize,
    starts: u32,
}

/// What is wrong.
#[derive(Template)]
#[template(path = "fleet/troubles.html")]
struct TroublesPart {
    troubles: Vec<Trouble>,
    /// Those that are not shown.
    more: usize,
    has_nodes: bool,
}

#[derive(Template)]
#[template(path = "fleet/page.html")]
struct FleetPage<'s> {
    shell: Shell,
    totals: TotalsPart,
    charts: Vec<Chart>,
    troubles: TroublesPart,
    replicas: Option<ReplicasPart>,
    regions: Vec<RegionPart<'s>>,
    nodes: Vec<NodePart<'s>>,
    found: usize,
    query: FleetQuery,
    /// The pages before and behind this one.
    previous: Option<usize>,
    next: Option<usize>,
}

impl FleetPage<'_> {
    fn is_filtered(&self) -> bool {
        self.query.region.is_some() || self.query.q.as_deref().is_some_and(|q| !q.is_empty())
    }
}

/// `?region=&q=&page=`
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct FleetQuery {
    region: Option<String>,
    /// A part of a node's, trunk's or carrier's name.
    q: Option<String>,
    page: Option<usize>,
}

impl FleetQuery {
    fn q(&self) -> &str {
        self.q.as_deref().unwrap_or("")
    }

    fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("")
    }

    fn takes(&self, node: &NodeSight) -> bool {
        let q = self.q();
        self.region.as_ref().is_none_or(|region| region.is_empty() || region == node.region.as_str())
            && (q.is_empty()
                || node.name.as_str().contains(q)
                || node.trunks.iter().any(|t| t.name.as_str().contains(q) || t.carrier.as_str().contains(q)))
    }
}

fn count<'s>(nodes: impl Iterator<Item = &'s NodeSight>) -> Count {
    nodes.fold(Count::default(), |count, node| Count {
        nodes: count.nodes + 1,
        alive: count.alive + usize::from(node.up && node.state == NodeState::Alive),
        trunks: count.trunks + node.trunks.len(),
        usable: count.usable + node.trunks.iter().filter(|trunk| trunk.usable).count(),
    })
}

fn regions(sight: &Sight) -> BTreeMap<&RegionName, Count> {
    let mut regions: BTreeMap<&RegionName, Vec<&NodeSight>> = BTreeMap::new();
    for node in &sight.nodes {
        regions.entry(&node.region).or_default().push(node);
    }
    regions.into_iter().map(|(name, nodes)| (name, count(nodes.into_iter()))).collect()
}

fn totals(sight: &Sight) -> TotalsPart {
    TotalsPart { count: count(sight.nodes.iter()), channels: sight.channels, starts: sight.starts }
}

fn troubles_part(registry: &Registry, sight: &Sight) -> TroublesPart {
    let now = Instant::now().into_std();
    let because = |trunk: &_| registry.trunk_why(now, trunk).map(|why| latest(&why));
    let node_because = |node: &NodeName| {
        let missing = |lack| NodeEvidence { lack, for_ms: 0 }.to_string();
        registry.node_why(now, node).map(|(why, _)| missing(why.lack))
    };
    let mut troubles = troubles(sight, because, node_because);
    let more = troubles.len().saturating_sub(troubles::SHOWN_MAX);
    troubles.truncate(troubles::SHOWN_MAX);
    TroublesPart { troubles, more, has_nodes: !sight.nodes.is_empty() }
}

/// What a trunk's state rests on, without times: those would change with every look.
fn latest(why: &crate::registry::TrunkWhy) -> String {
    let finding = why.finding.clone();
    let hold = why.hold.as_ref().and_then(|hold| hold.reason.clone());
    let evidence = || why.health.history.first().map(|change| change.sentence.clone());
    finding.or(hold).or_else(evidence).unwrap_or_default()
}

/// What differs between two looks.
pub(super) enum Changes {
    /// These elements.
    Parts(String),
    /// So much that the page is to be asked for anew.
    All,
}

/// The elements that changed, rendered.
pub(super) fn changes(registry: &Registry, before: &Sight, now: &Sight) -> Changes {
    let names = |sight: &Sight| sight.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    if names(before) != names(now) {
        return Changes::All;
    }
    let differs: Vec<_> = now.nodes.iter().zip(&before.nodes).filter(|(now, before)| now != before).collect();
    if differs.len() > CHANGED_MAX {
        return Changes::All;
    }
    let mut html = Page::part(&totals(now));
    if !differs.is_empty() || before.routes != now.routes {
        html += &Page::part(&troubles_part(registry, now));
        let were = regions(before);
        for (name, count) in regions(now) {
            if were.get(name) != Some(&count) {
                // A line of a table by itself is none to a parser.
                html += &format!("<table>{}</table>", Page::part(&RegionPart { name, count }));
            }
        }
    }
    for (node, _) in differs {
        html += &Page::part(&NodePart { node });
    }
    Changes::Parts(html)
}

/// The nodes that are asked for, the worst first.
fn wanted<'s>(sight: &'s Sight, query: &FleetQuery) -> Vec<&'s NodeSight> {
    let mut nodes: Vec<_> = sight.nodes.iter().filter(|node| query.takes(node)).collect();
    nodes.sort_by_key(|node| (badness(node), &node.name));
    nodes
}

/// The page as text, for a look at the fleet.
fn render(
    registry: &Registry,
    sight: &Sight,
    hour: &[Minute],
    query: FleetQuery,
    replicas: Option<ReplicasPart>,
    shell: Shell,
) -> Result<Page, Problem> {
    let nodes = wanted(sight, &query);
    let found = nodes.len();
    let page = query.page.unwrap_or(1).clamp(1, found.div_ceil(NODES_SHOWN).max(1));
    let shown = nodes.into_iter().skip((page - 1) * NODES_SHOWN).take(NODES_SHOWN);
    Page::of(&FleetPage {
        shell,
        totals: totals(sight),
        charts: charts(hour),
        troubles: troubles_part(registry, sight),
        replicas,
        regions: regions(sight).into_iter().map(|(name, count)| RegionPart { name, count }).collect(),
        nodes: shown.map(|node| NodePart { node }).collect(),
        found,
        query,
        previous: (page > 1).then(|| page - 1),
        next: (page * NODES_SHOWN < found).then_some(page + 1),
    })
}

/// `GET /`
pub(in crate::http) async fn show(
    visitor: Visitor,
    AxumState(state): AxumState<State>,
    query: Result<Query<FleetQuery>, QueryRejection>,
) -> Result<Page, Problem> {
    let Query(mut query) = query?;
    query.q = query.q.map(|q| q.trim().to_lowercase().chars().take(SEARCH_MAX).collect());
    let (since, sight) = state.console.live.page();
    let shell = Shell::of(&visitor, Part::Fleet, "Fleet").live(since);
    let replicas = ReplicasPart::of(&state).await;
    render(&state.registry, &sight, &state.console.pulse.minutes(), query, replicas, shell)
}

#[cfg(test)]
mod tests;
