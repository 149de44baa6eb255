//! The declared fleet: carriers, nodes, trunks, routes and management networks, as `fleet.toml` writes them.
//!
//! [`Fleet::parse`] reads the file and reports everything that is wrong with it at once; what it returns
//! is consistent: every name that is referred to is declared. As JSON, a fleet has the shape of the file,
//! and that is how it is stored. Reading stored JSON checks types but not references: a control plane must
//! not refuse at start what it accepted when it was applied.

mod check;
mod diff;
mod error;
mod field;
mod index;
mod model;
mod parse;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::index::Index;
pub use self::{
    diff::{Change, ChangeKind, FieldChange},
    error::{FleetError, Problem},
    field::{AmiAddress, AmiUsername, CountryCode, InvalidField, NumberPrefix, RoutePrefix},
    model::{
        Ami, AmiLogin, CallerIdIn, Canary, CanaryExpects, Carrier, Management, Node, OnRefusal, Route, Trunk,
    },
};
use crate::{
    call::{UnknownWord, words},
    names::{CarrierName, ManagementName, NodeName, TrunkName},
    number::E164,
};

words! {
    /// What a fleet consists of: the tables of `fleet.toml`.
    Noun {
        /// `[[carrier]]`
        Carrier = "carrier",
        /// `[[node]]`
        Node = "node",
        /// `[[trunk]]`
        Trunk = "trunk",
        /// `[[route]]`
        Route = "route",
        /// `[[management]]`
        Management = "management",
    }
}

/// Carriers, nodes, trunks, routes and management networks, each found by its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Document", into = "Document")]
pub struct Fleet {
    carriers: BTreeMap<CarrierName, Carrier>,
    nodes: BTreeMap<NodeName, Node>,
    trunks: BTreeMap<TrunkName, Trunk>,
    routes: BTreeMap<RoutePrefix, Route>,
    managements: BTreeMap<ManagementName, Management>,
    index: Index,
}

/// A fleet in the shape of its file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    carrier: Vec<Carrier>,
    #[serde(default)]
    node: Vec<Node>,
    #[serde(default)]
    trunk: Vec<Trunk>,
    #[serde(default)]
    route: Vec<Route>,
    // Left out where there is none: an earlier release reads such a fleet, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    management: Vec<Management>,
}

impl From<Document> for Fleet {
    fn from(document: Document) -> Self {
        Self {
            carriers: document.carrier.into_iter().map(|c| (c.name.clone(), c)).collect(),
            nodes: document.node.into_iter().map(|n| (n.name.clone(), n)).collect(),
            trunks: document.trunk.into_iter().map(|t| (t.name.clone(), t)).collect(),
            routes: document.route.into_iter().map(|r| (r.prefix.clone(), r)).collect(),
            managements: document.management.into_iter().map(|m| (m.name.clone(), m)).collect(),
            index: Index::default(),
        }
        .indexed()
    }
}

impl From<Fleet> for Document {
    fn from(fleet: Fleet) -> Self {
        Self {
            carrier: fleet.carriers.into_values().collect(),
            node: fleet.nodes.into_values().collect(),
            trunk: fleet.trunks.into_values().collect(),
            route: fleet.routes.into_values().collect(),
            management: fleet.managements.into_values().collect(),
        }
    }
}

impl Fleet {
    /// Reads `fleet.toml`.
    ///
    /// # Errors
    /// Everything found wrong, with lines: first what TOML itself refuses, alone; then one problem per
    /// entry whose fields are wrong; and when every entry can be read, all that contradicts between them.
    pub fn parse(text: &str) -> Result<Self, FleetError> {
        parse::parse(text)
    }

    /// Checks that a fleet which was not read by [`Fleet::parse`] is consistent, notably the result of
    /// [`Fleet::merge_without_prune`]. The indices in the problems' keys count entries in order of name.
    ///
    /// # Errors
    /// Everything that contradicts, without lines.
    pub fn check(&self) -> Result<(), FleetError> {
        let problems = check::contradictions(&self.clone().into());
        FleetError::none_or(problems.into_iter().map(|c| c.into_problem(None)).collect())
    }

    /// What `new` changes in `old`: additions and changes first, then removals, each in the order carriers,
    /// nodes, trunks, routes, management networks, by name.
    #[must_use]
    pub fn diff(old: &Self, new: &Self) -> Vec<Change> {
        diff::diff(old, new)
    }

    /// `wanted`, with all that `current` has and `wanted` lacks.
    ///
    /// What is kept can contradict what is wanted (a trunk that was renamed leaves its old name on the same
    /// endpoint, say), so ask [`Fleet::check`] before applying it.
    #[must_use]
    pub fn merge_without_prune(current: &Self, wanted: &Self) -> Self {
        let (mut merged, wanted) = (current.clone(), wanted.clone());
        merged.carriers.extend(wanted.carriers);
        merged.nodes.extend(wanted.nodes);
        merged.trunks.extend(wanted.trunks);
        merged.routes.extend(wanted.routes);
        merged.managements.extend(wanted.managements);
        merged.indexed()
    }

    fn indexed(mut self) -> Self {
        self.index = Index::of(self.trunks.values(), self.routes.values());
        self
    }

    /// A carrier by its name.
    #[must_use]
    pub fn carrier(&self, name: &CarrierName) -> Option<&Carrier> {
        self.carriers.get(name)
    }

    /// A node by its name.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// A trunk by its name.
    #[must_use]
    pub fn trunk(&self, name: &TrunkName) -> Option<&Trunk> {
        self.trunks.get(name)
    }

    /// The trunks of a node, by name.
    pub fn trunks_of<'a>(&'a self, node: &NodeName) -> impl Iterator<Item = &'a Trunk> {
        self.index.trunks_of(node).iter().filter_map(|name| self.trunks.get(name))
    }

    /// A route by its prefix.
    #[must_use]
    pub fn route(&self, prefix: &RoutePrefix) -> Option<&Route> {
        self.routes.get(prefix)
    }

    /// The routes that a trunk serves, by prefix.
    pub fn routes_of<'a>(&'a self, trunk: &TrunkName) -> impl Iterator<Item = &'a Route> {
        self.index.routes_of(trunk).iter().filter_map(|prefix| self.routes.get(prefix))
    }

    /// The route of a number: the one with the longest prefix of it.
    #[must_use]
    pub fn route_for(&self, to: &E164) -> Option<&Route> {
        let number = to.as_str();
        (1..=number.len()).rev().find_map(|end| self.routes.get(&number[..end]))
    }

    /// Every carrier, by name.
    pub fn carriers(&self) -> impl ExactSizeIterator<Item = &Carrier> {
        self.carriers.values()
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values()
    }

    /// Every trunk, by name.
    pub fn trunks(&self) -> impl ExactSizeIterator<Item = &Trunk> {
        self.trunks.values()
    }

    /// The management networks of a node: those of every entry that names it, or that names no node.
    pub fn managements_of<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = &'a Management> {
        self.managements.values().filter(move |m| m.nodes.is_empty() || m.nodes.contains(node))
    }

    /// Every entry of management networks, by name.
    pub fn managements(&self) -> impl ExactSizeIterator<Item = &Management> {
        self.managements.values()
    }

    /// Every route, by prefix.
    pub fn routes(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.routes.values()
    }
}

#[cfg(test)]
mod tests;
