//! The whole fleet at one look, cheap enough to be taken twice a second: what the console shows of it.

use controlplane_core::{
    fleet::RoutePrefix,
    health::{NodeState, TrunkState},
    names::{CarrierName, NodeName, RegionName, TrunkName},
};
use tokio::time::Instant;

use super::{Link, Registry};

/// A trunk at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkSight {
    /// Its name.
    pub name: TrunkName,
    /// Its carrier.
    pub carrier: CarrierName,
    /// Its health.
    pub state: TrunkState,
    /// Whether a call could be sent over it: node, configuration and health allow it.
    pub usable: bool,
    /// What was found on its node forbids its use.
    pub found: bool,
}

/// A node at a glance, with its trunks by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSight {
    /// Its name.
    pub name: NodeName,
    /// Its region.
    pub region: RegionName,
    /// Its state.
    pub state: NodeState,
    /// Whether an operator drains it.
    pub draining: bool,
    /// Whether its AMI session is up and checked.
    pub up: bool,
    /// Whether its dialplan was found to hear no keys.
    pub deaf: bool,
    /// Its trunks.
    pub trunks: Vec<TrunkSight>,
}

/// A route at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSight {
    /// Its prefix.
    pub prefix: RoutePrefix,
    /// Its trunks.
    pub trunks: usize,
    /// Those of them that a call could be sent over.
    pub usable: usize,
    /// Whether so few are held to work that all are tried.
    pub panic: bool,
}

/// The fleet at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    /// Every declared node, by name.
    pub nodes: Vec<NodeSight>,
    /// Every declared route.
    pub routes: Vec<RouteSight>,
    /// Attempts of this process that hold a channel.
    pub channels: usize,
    /// Attempts that this process started in the last second.
    pub starts: u32,
}

impl Registry {
    /// The whole fleet at one look.
    #[must_use]
    pub fn sight(&self) -> Sight {
        let state = self.state();
        let at = Instant::now();
        let now = at.into_std();
        let mut nodes: Vec<NodeSight> = Vec::with_capacity(state.nodes.len());
        for node in state.fleet.nodes() {
            let (Some(entry), Some(health)) = (state.nodes.get(&node.name), state.board.node(&node.name))
            else {
                continue;
            };
            nodes.push(NodeSight {
                name: node.name.clone(),
                region: node.region.clone(),
                state: health.state(),
                draining: health.is_draining(),
                up: matches!(entry.link, Link::Up { .. }),
                deaf: entry.is_deaf(at),
                trunks: Vec::new(),
            });
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        for trunk in state.fleet.trunks() {
            let (Some(entry), Some(health)) = (state.trunks.get(&trunk.name), state.board.trunk(&trunk.name))
            else {
                continue;
            };
            let Ok(place) = nodes.binary_search_by(|node| node.name.cmp(&trunk.node)) else { continue };
            let Some(node) = nodes.get_mut(place) else { continue };
            node.trunks.push(TrunkSight {
                name: trunk.name.clone(),
                carrier: trunk.carrier.clone(),
                state: health.state(),
                usable: node.up
                    && matches!(entry.checked, Some(Ok(())))
                    && state.board.standing_for_any(now, trunk).is_ok(),
                found: matches!(entry.checked, Some(Err(_))),
            });
        }
        for node in &mut nodes {
            node.trunks.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let usable: std::collections::HashSet<&TrunkName> =
            nodes.iter().flat_map(|node| &node.trunks).filter(|t| t.usable).map(|t| &t.name).collect();
        let panics = state.board.panics();
        let route = |route: &controlplane_core::fleet::Route| {
            let names = || route.tiers.iter().flatten();
            RouteSight {
                prefix: route.prefix.clone(),
                trunks: names().count(),
                usable: names().filter(|name| usable.contains(name)).count(),
                panic: panics.iter().any(|(prefix, _)| *prefix == route.prefix),
            }
        };
        let routes = state.fleet.routes().map(route).collect();
        drop(usable);
        let channels = state.trunks.values().map(|trunk| trunk.limits.channels.held()).sum();
        let starts = state.carriers.values().map(|c| c.window.max().saturating_sub(c.window.left(now))).sum();
        Sight { nodes, routes, channels, starts }
    }
}
