//! The fleet that is simulated, as its `fleet.toml`.

use std::{fmt::Write as _, net::Ipv4Addr};

/// Nodes whose trunks serve one route. A route of a real fleet has some hundred trunks, not all of them.
const NODES_PER_ROUTE: usize = 25;
/// Numbers of routes: `+48` and three digits.
const ROUTES_MAX: usize = 1_000;
/// What a busy trunk takes: calls in a second and at a time, more than any fleet in one process gets through.
const BUSY: (u32, u32) = (1_000, 2_000);

/// How large it is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Nodes.
    pub nodes: usize,
    /// Trunks of each; 32 at most.
    pub trunks_per_node: usize,
    /// Carriers, to which the trunks of a node go by turns.
    pub carriers: usize,
    /// What each carrier's account has: starts in a second, channels at a time. Its trunks have enough then.
    pub account: Option<(u32, u32)>,
}

impl Plan {
    /// Nodes of four trunks, among sixteen carriers.
    #[must_use]
    pub const fn of(nodes: usize) -> Self {
        Self { nodes, trunks_per_node: 4, carriers: 16, account: None }
    }

    /// Few nodes for many calls: each has a trunk to every carrier, and what bounds the calls are the carriers' accounts.
    #[must_use]
    pub const fn busy(nodes: usize, carriers: usize, account: (u32, u32)) -> Self {
        Self { nodes, trunks_per_node: carriers, carriers, account: Some(account) }
    }

    /// Trunks of all nodes.
    #[must_use]
    pub const fn trunks(self) -> usize {
        self.nodes * self.trunks_per_node
    }

    /// The name of a node, by its number from 0.
    #[must_use]
    pub fn node(node: usize) -> String {
        format!("n{node:05}")
    }

    /// The endpoint of a node's trunk, by its number from 0.
    #[must_use]
    pub fn endpoint(trunk: usize) -> String {
        format!("carrier-{trunk}")
    }

    /// The name of a trunk.
    #[must_use]
    pub fn trunk(node: usize, trunk: usize) -> String {
        format!("t{trunk}-{}", Self::node(node))
    }

    /// The name of a carrier, by its number from 0.
    #[must_use]
    pub fn carrier(carrier: usize) -> String {
        format!("c{carrier}")
    }

    /// The number of the carrier that a node's trunk leads to.
    #[must_use]
    pub const fn carrier_of(self, node: usize, trunk: usize) -> usize {
        (node + trunk) % self.carriers
    }

    /// Where a node dials from: each from an address of its own, as in a fleet.
    #[must_use]
    pub fn source(node: usize) -> Ipv4Addr {
        let [.., high, middle, low] = u32::try_from(node).unwrap_or(u32::MAX).to_be_bytes();
        Ipv4Addr::new(127, high.saturating_add(16), middle, low)
    }

    /// The whole file.
    #[must_use]
    pub fn fleet_toml(self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let limits = |limits: Option<(u32, u32)>| {
            limits.map_or_else(String::new, |(cps, channels)| {
                format!("\ncps_max = {cps}\nchannels_max = {channels}")
            })
        };
        for carrier in 0..self.carriers {
            let name = Self::carrier(carrier);
            let _ = writeln!(text, "[[carrier]]\nname = \"{name}\"{}", limits(self.account));
        }
        for node in 0..self.nodes {
            let _ = writeln!(text, "[[node]]\nname = \"{}\"", Self::node(node));
        }
        for node in 0..self.nodes {
            for trunk in 0..self.trunks_per_node {
                let _ = writeln!(
                    text,
                    "[[trunk]]\nname = \"{}\"\nnode = \"{}\"\ncarrier = \"{}\"\nendpoint = \"{}\"{}",
                    Self::trunk(node, trunk),
                    Self::node(node),
                    Self::carrier(self.carrier_of(node, trunk)),
                    Self::endpoint(trunk),
                    limits(self.account.map(|_| BUSY)),
                );
            }
        }
        let nodes: Vec<usize> = (0..self.nodes).collect();
        for (route, nodes) in nodes.chunks(NODES_PER_ROUTE).take(ROUTES_MAX).enumerate() {
            let names = |node: &usize| {
                let node = *node;
                (0..self.trunks_per_node).map(move |trunk| format!("\"{}\"", Self::trunk(node, trunk)))
            };
            let names: Vec<_> = nodes.iter().flat_map(names).collect();
            // All numbers, where all nodes serve them.
            let prefix =
                if self.nodes <= NODES_PER_ROUTE { "+".to_owned() } else { format!("+48{route:03}") };
            let _ = writeln!(text, "[[route]]\nprefix = \"{prefix}\"\ntiers = [[{}]]", names.join(", "));
        }
        text
    }
}
