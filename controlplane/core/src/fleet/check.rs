//! What single entries cannot show: names used twice, names that nobody declares.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Display,
    hash::Hash,
};

use super::{Document, Noun, Problem, error::did_you_mean};
use crate::number::NumberFormat;

/// How many declared names an error lists.
const NAMES_LISTED: usize = 10;

/// A contradiction, and where it stands.
pub(super) struct Contradiction {
    pub(super) noun: Noun,
    pub(super) index: usize,
    /// The entry's key.
    pub(super) key: &'static str,
    /// The value in question, to find its line within a list over several lines.
    pub(super) value: String,
    pub(super) message: String,
}

impl Contradiction {
    pub(super) fn into_problem(self, line: Option<usize>) -> Problem {
        Problem { line, key: format!("{}[{}].{}", self.noun, self.index, self.key), message: self.message }
    }
}

/// All contradictions, table by table.
pub(super) fn contradictions(fleet: &Document) -> Vec<Contradiction> {
    let mut found = Found::default();
    found.duplicates(Noun::Carrier, "name", fleet.carrier.iter().map(|c| &c.name));
    found.duplicates(Noun::Node, "name", fleet.node.iter().map(|n| &n.name));
    found.duplicates(Noun::Trunk, "name", fleet.trunk.iter().map(|t| &t.name));
    found.duplicates(Noun::Route, "prefix", fleet.route.iter().map(|r| &r.prefix));
    found.duplicates(Noun::Management, "name", fleet.management.iter().map(|m| &m.name));
    found.trunks(fleet);
    found.routes(fleet);
    found.managements(fleet);
    // Stable: within an entry, in the order of the checks.
    found.0.sort_by_key(|c| (c.noun, c.index));
    found.0
}

#[derive(Default)]
struct Found(Vec<Contradiction>);

impl Found {
    fn add(&mut self, noun: Noun, index: usize, key: &'static str, value: &impl Display, message: String) {
        self.0.push(Contradiction { noun, index, key, value: value.to_string(), message });
    }

    fn duplicates<'a, T: Display + Eq + Hash + 'a>(
        &mut self,
        noun: Noun,
        key: &'static str,
        names: impl Iterator<Item = &'a T>,
    ) {
        let mut first = HashMap::new();
        for (index, name) in names.enumerate() {
            if let Some(earlier) = first.insert(name, index) {
                let message = format!(
                    "{noun} \"{name}\": declared already as {noun}[{earlier}]; give it another {key} or remove one"
                );
                self.add(noun, index, key, name, message);
            }
        }
    }

    fn trunks(&mut self, fleet: &Document) {
        let nodes = Declared::new(Noun::Node, fleet.node.iter().map(|n| n.name.as_str()));
        let carriers = Declared::new(Noun::Carrier, fleet.carrier.iter().map(|c| c.name.as_str()));
        let mut endpoints = HashMap::new();
        for (index, trunk) in fleet.trunk.iter().enumerate() {
            let of = format!("trunk \"{}\"", trunk.name);
            if let Some(message) = nodes.missing(&of, trunk.node.as_str()) {
                self.add(Noun::Trunk, index, "node", &trunk.node, message);
            }
            if let Some(message) = carriers.missing(&of, trunk.carrier.as_str()) {
                self.add(Noun::Trunk, index, "carrier", &trunk.carrier, message);
            }
            if let Some(other) = endpoints.insert((&trunk.node, &trunk.endpoint), &trunk.name) {
                let message = format!(
                    "{of}: endpoint \"{}\" of node \"{}\" is trunk \"{other}\" already; \
                     two trunks on one endpoint would count its calls and its health twice",
                    trunk.endpoint, trunk.node
                );
                self.add(Noun::Trunk, index, "endpoint", &trunk.endpoint, message);
            }
            if trunk.number_format == NumberFormat::National && trunk.country_code.as_str().is_empty() {
                let message = format!(
                    "{of}: number_format = \"national\" needs the country_code that it strips, as in \"48\""
                );
                self.add(Noun::Trunk, index, "number_format", &"national", message);
            }
        }
    }

    fn routes(&mut self, fleet: &Document) {
        let trunks = Declared::new(Noun::Trunk, fleet.trunk.iter().map(|t| t.name.as_str()));
        for (index, route) in fleet.route.iter().enumerate() {
            let of = format!("route \"{}\"", route.prefix);
            if route.tiers.is_empty() || route.tiers.iter().any(Vec::is_empty) {
                let message = format!("{of}: every tier needs a trunk, as in tiers = [[\"acme-waw-1\"]]");
                self.add(Noun::Route, index, "tiers", &"", message);
            }
            let mut seen = BTreeSet::new();
            for name in route.tiers.iter().flatten() {
                if let Some(message) = trunks.missing(&of, name.as_str()) {
                    self.add(Noun::Route, index, "tiers", name, message);
                } else if !seen.insert(name) {
                    let message = format!(
                        "{of}: trunk \"{name}\" stands twice; its weight sets its share, its first tier its turn"
                    );
                    self.add(Noun::Route, index, "tiers", name, message);
                }
            }
        }
    }
}

impl Found {
    fn managements(&mut self, fleet: &Document) {
        let nodes = Declared::new(Noun::Node, fleet.node.iter().map(|n| n.name.as_str()));
        for (index, management) in fleet.management.iter().enumerate() {
            let of = format!("management \"{}\"", management.name);
            if management.networks.is_empty() {
                let message = format!("{of}: name a network, as in networks = [\"192.0.2.0/28\"]");
                self.add(Noun::Management, index, "networks", &"", message);
            }
            for node in &management.nodes {
                if let Some(message) = nodes.missing(&of, node.as_str()) {
                    self.add(Noun::Management, index, "nodes", node, message);
                }
            }
        }
    }
}

/// The names of one kind.
struct Declared<'a> {
    noun: Noun,
    names: Vec<&'a str>,
    known: BTreeSet<&'a str>,
}

impl<'a> Declared<'a> {
    fn new(noun: Noun, names: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<_> = names.collect();
        Self { noun, known: names.iter().copied().collect(), names }
    }

    /// The message if `name`, to which `of` refers, is not declared.
    fn missing(&self, of: &str, name: &str) -> Option<String> {
        let noun = self.noun;
        if self.known.contains(name) {
            return None;
        }
        if self.names.is_empty() {
            return Some(format!("{of}: {noun} \"{name}\" is not declared; add a [[{noun}]] with that name"));
        }
        let mut listed = self.names[..self.names.len().min(NAMES_LISTED)].join(", ");
        if self.names.len() > NAMES_LISTED {
            listed.push_str(&format!(" and {} more", self.names.len() - NAMES_LISTED));
        }
        let hint = did_you_mean(name, self.names.iter().copied());
        Some(format!("{of}: {noun} \"{name}\" is not declared; declared {noun}s: {listed}{hint}"))
    }
}
