//! What is wrong with the fleet and why, in the order of its weight: what stops calls first. One line for what has one
//! cause: trunks of a lost node are not told again, and a carrier's trunks that are down together are one line.

use std::collections::BTreeMap;

use controlplane_core::{
    health::{NodeState, TrunkState},
    names::{CarrierName, NodeName, TrunkName},
};

use crate::registry::{NodeSight, Sight, TrunkSight};

/// Lines that are shown.
pub(super) const SHOWN_MAX: usize = 20;

/// How much it weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Calls do not get through.
    Critical,
    /// Something is broken, and calls go around it.
    Bad,
    /// Something is worse than it should be.
    Worse,
    /// An operator wants it so.
    Held,
}

impl Weight {
    /// The class of its line.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Bad => "bad",
            Self::Worse => "worse",
            Self::Held => "held",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) weight: Weight,
    /// What it is about.
    pub(super) what: String,
    /// Where more is told.
    pub(super) place: String,
    /// What is wrong.
    pub(super) sentence: String,
    /// Why.
    pub(super) because: Option<String>,
}

fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Everything that is wrong, the gravest first. Why is asked only for as many lines as are shown.
pub(super) fn troubles(
    sight: &Sight,
    because: impl Fn(&TrunkName) -> Option<String>,
    node_because: impl Fn(&NodeName) -> Option<String>,
) -> Vec<Trouble> {
    let mut found = of_routes(sight);
    found.extend(of_nodes(sight));
    found.extend(of_trunks(sight));
    found.sort_by(|(a, _), (b, _)| (a.weight, &a.what).cmp(&(b.weight, &b.what)));
    let why = |cause: &Cause| match cause {
        Cause::Trunk(name) => because(name),
        Cause::Node(name) => node_because(name),
        Cause::None => None,
    };
    let mut shown = 0;
    let told = found.into_iter().map(|(trouble, cause)| {
        shown += 1;
        let because = if shown <= SHOWN_MAX { some(why(&cause)) } else { None };
        Trouble { because, ..trouble }
    });
    told.collect()
}

/// Whom to ask why.
enum Cause {
    Trunk(TrunkName),
    Node(NodeName),
    None,
}

fn line(weight: Weight, what: String, place: String, sentence: String) -> Trouble {
    Trouble { weight, what, place, sentence, because: None }
}

fn of_routes(sight: &Sight) -> Vec<(Trouble, Cause)> {
    let mut found = Vec::new();
    for route in &sight.routes {
        let what = format!("route {}", route.prefix);
        let sentence = if route.panic {
            "so few of its trunks are held to work that calls are tried over all of them (panic)".to_owned()
        } else if route.usable == 0 {
            format!("none of its {} trunks can be used: calls wait, and fail at their deadline", route.trunks)
        } else {
            continue;
        };
        found.push((line(Weight::Critical, what, "/".to_owned(), sentence), Cause::None));
    }
    found
}

fn of_nodes(sight: &Sight) -> Vec<(Trouble, Cause)> {
    let mut found = Vec::new();
    for node in &sight.nodes {
        let trunks = node.trunks.len();
        let (weight, sentence) = match node.state {
            NodeState::Lost => (Weight::Bad, format!("lost, with {trunks} trunks")),
            NodeState::Suspect => (Weight::Bad, "suspect".to_owned()),
            NodeState::Alive if !node.up => {
                (Weight::Bad, format!("no AMI session: its {trunks} trunks cannot be used"))
            }
            NodeState::Alive if node.draining => (Weight::Held, "drained by an operator".to_owned()),
            NodeState::Alive if node.deaf => {
                (Weight::Worse, "its dialplan does not hear the keys that are pressed".to_owned())
            }
            NodeState::Alive => continue,
        };
        let place = format!("/nodes/{}", node.name);
        let cause = match node.state {
            NodeState::Alive if node.up => Cause::None,
            NodeState::Alive | NodeState::Suspect | NodeState::Lost => Cause::Node(node.name.clone()),
        };
        found.push((line(weight, format!("node {}", node.name), place, sentence), cause));
    }
    found
}

/// Whether what is wrong with its trunks is the node's.
fn is_gone(node: &NodeSight) -> bool {
    node.state == NodeState::Lost || !node.up
}

fn of_trunks(sight: &Sight) -> Vec<(Trouble, Cause)> {
    let living = || sight.nodes.iter().filter(|node| !is_gone(node)).flat_map(|node| &node.trunks);
    let mut tripped: BTreeMap<&CarrierName, Vec<&TrunkSight>> = BTreeMap::new();
    for trunk in living().filter(|trunk| trunk.state == TrunkState::Tripped) {
        tripped.entry(&trunk.carrier).or_default().push(trunk);
    }
    let mut found = Vec::new();
    for (carrier, trunks) in tripped {
        let of_carrier = living().filter(|trunk| trunk.carrier == *carrier).count();
        let down = trunks.len();
        let Some(first) = trunks.first() else { continue };
        let place = format!("/trunks/{}", first.name);
        let (what, sentence) = if down == 1 {
            (
                format!("trunk {}", first.name),
                format!("tripped; of carrier {carrier}'s {of_carrier} trunks 1"),
            )
        } else {
            (format!("carrier {carrier}"), format!("{down} of its {of_carrier} trunks are tripped"))
        };
        let weight = if down == of_carrier && down > 1 { Weight::Critical } else { Weight::Bad };
        found.push((line(weight, what, place, sentence), Cause::Trunk(first.name.clone())));
    }
    for trunk in living() {
        let told = match trunk.state {
            TrunkState::Degraded => Some((Weight::Worse, "degraded: it is used after the others")),
            TrunkState::Probation => Some((Weight::Worse, "in probation: a few calls try it")),
            TrunkState::Disabled => Some((Weight::Held, "disabled by an operator")),
            TrunkState::Unknown | TrunkState::Healthy | TrunkState::Tripped => None,
        };
        let refused = trunk.found.then_some((Weight::Bad, "its node's configuration forbids its use"));
        let Some((weight, sentence)) = refused.or(told) else { continue };
        let (what, place) = (format!("trunk {}", trunk.name), format!("/trunks/{}", trunk.name));
        found.push((line(weight, what, place, sentence.to_owned()), Cause::Trunk(trunk.name.clone())));
    }
    found
}
