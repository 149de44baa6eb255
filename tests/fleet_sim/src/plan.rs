//! The fleet that is simulated, as its `fleet.toml`.

use std::{fmt::Write as _, net::Ipv4Addr};

/// Nodes whose trunks serve one route. A route of a real fleet has some hundred trunks, not all of them.
const NODES_PER_ROUTE: usize = 25;
/// Numbers of routes: `+48` and three digits.
const ROUTES_MAX: usize = 1_000;
/// Carriers that the trunks of one node go to, one each.
const CARRIERS: usize = 16;

/// How large it is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Nodes.
    pub nodes: usize,
    /// Trunks of each; 32 at most.
    pub trunks_per_node: usize,
}

impl Plan {
    /// Nodes of four trunks.
    #[must_use]
    pub const fn of(nodes: usize) -> Self {
        Self { nodes, trunks_per_node: 4 }
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
        for carrier in 0..CARRIERS {
            let _ = writeln!(text, "[[carrier]]\nname = \"c{carrier}\"");
        }
        for node in 0..self.nodes {
            let _ = writeln!(text, "[[node]]\nname = \"{}\"", Self::node(node));
        }
        for node in 0..self.nodes {
            for trunk in 0..self.trunks_per_node {
                let _ = writeln!(
                    text,
                    "[[trunk]]\nname = \"{}\"\nnode = \"{}\"\ncarrier = \"c{}\"\nendpoint = \"{}\"",
                    Self::trunk(node, trunk),
                    Self::node(node),
                    (node + trunk) % CARRIERS,
                    Self::endpoint(trunk),
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
            let _ = writeln!(text, "[[route]]\nprefix = \"+48{route:03}\"\ntiers = [[{}]]", names.join(", "));
        }
        text
    }
}
