//! The nodes of this target, and how they stand.

use std::time::Duration;

use lab::{Agent, Hosts, Plan, wait_until};
use serde_json::Value;

use crate::fixture::{Fleet, diagonal, over_links};

/// Two PBXes that are whole hosts, a carrier of its own each.
pub(crate) fn booted() -> Plan {
    Plan { hosts: Hosts::Booted, ..over_links(diagonal()) }
}

/// The same, one.
pub(crate) fn one() -> Plan {
    Plan { pbxes: 1, carriers: 1, ..booted() }
}

pub(crate) fn agent(fleet: &Fleet, name: &str) -> Agent {
    fleet.lab.pbx(name).unwrap().agent().unwrap()
}

/// `alive` while calls can be sent by it, else `lost`. (Its health says `suspect` between the two.)
pub(crate) fn state(fleet: &Fleet, name: &str) -> String {
    let nodes = fleet.plane.nodes().unwrap();
    let node = nodes.iter().find(|node| node["name"] == name).unwrap();
    if node["up"] == true { "alive" } else { "lost" }.to_owned()
}

/// Waits until a node is in this state; gives the time.
#[track_caller]
pub(crate) fn until_state(fleet: &Fleet, name: &str, wanted: &str, at_most: Duration) -> Duration {
    wait_until(&format!("{name} to be {wanted}"), at_most, "", || state(fleet, name) == wanted)
        .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", fleet.plane.nodes(), agent_log(fleet, name)))
}

/// Since when the link of a node stands.
pub(crate) fn linked_since(fleet: &Fleet, name: &str) -> Value {
    fleet.plane.agent(name).unwrap()["since"].clone()
}

/// What the node's agent says of its link.
pub(crate) fn link_words(agent: &Agent) -> String {
    agent.status().map_or_else(|error| error.to_string(), |status| status["links"].to_string())
}

/// The bodies of a node's facts of one kind, oldest first.
pub(crate) fn facts(fleet: &Fleet, name: &str, kind: &str) -> Vec<Value> {
    let agent = fleet.plane.agent(name).unwrap();
    let facts = agent["facts"].as_array().unwrap().iter().rev();
    facts.filter(|fact| fact["kind"] == kind).map(|fact| fact["body"].clone()).collect()
}

/// The findings of a node of one kind.
pub(crate) fn findings(fleet: &Fleet, name: &str, finding: &str) -> Vec<Value> {
    facts(fleet, name, "finding").into_iter().filter(|body| body["finding"] == finding).collect()
}

/// The end of an agent's log, for a failed test.
pub(crate) fn agent_log(fleet: &Fleet, name: &str) -> String {
    let log = agent(fleet, name).log().unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
