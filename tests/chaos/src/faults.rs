//! What breaks, when, and for how long. Where there is one control plane, three tracks run side by side: the control plane, one node at a time, one
//! carrier at a time; where there are several, one of those at a time and nothing else; so that at any moment something is left that could carry a call.
use std::time::Duration;

use rand::{Rng as _, rngs::StdRng};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// SIGKILL of the control plane, started again at the end.
    PlaneKilled,
    /// SIGTERM of the control plane, started again at the end.
    PlaneStopped,
    /// SIGSTOP, SIGCONT of the control plane.
    PlaneFrozen,
    /// Nothing passes between the control plane and the database, and neither is told.
    DatabaseCut,
    /// The control plane ended in order, and another version of it started.
    PlaneReplaced,
    /// The same of a node's agent.
    AgentReplaced,
    /// SIGKILL of a node's agent, started again at the end.
    AgentKilled,
    /// SIGSTOP, SIGCONT of a node's agent.
    AgentFrozen,
    /// SIGKILL of a node's Asterisk, started again at the end.
    AsteriskKilled,
    /// SIGTERM of a node's Asterisk, started again at the end.
    AsteriskStopped,
    /// SIGSTOP, SIGCONT of a node's Asterisk.
    AsteriskFrozen,
    /// Nothing passes between a node and the control plane, and neither is told.
    LinkCut,
    /// Nothing that the node sends arrives at the control plane.
    LinkMute,
    /// Nothing that the control plane sends arrives at the node.
    LinkDeaf,
    /// The node's cable is out.
    CableOut,
    /// The node is gone for good.
    PoweredOff,
    /// The carrier rings, and its answers are lost.
    CarrierDeaf,
    /// The carrier drops every INVITE.
    CarrierSilent,
    /// The carrier says 503 to every call.
    CarrierRefuses,
    /// The carrier's cable is out.
    CarrierDead,
}

/// Whom it happens to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A control plane, by its place among those that there are.
    Plane(usize),
    /// A node, its Asterisk, its agent, its link.
    Node(String),
    /// A carrier.
    Carrier(String),
}

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From the start of the calls.
    pub at: Duration,
    /// To whom.
    pub subject: Subject,
    /// What.
    pub what: What,
    /// How long; what is gone for good has none.
    pub lasts: Option<Duration>,
}

/// What a plan is made for.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    /// How long calls come.
    pub length: Duration,
    /// Nodes, at least two where one is to be powered off.
    pub nodes: Vec<String>,
    /// Carriers.
    pub carriers: Vec<String>,
    /// Whether nodes have agents.
    pub agents: bool,
    /// How many control planes share the database.
    pub planes: usize,
}

/// A choice: what, and its least and longest time in ms. Freezes and cuts outlast the 7 s after which a link is given up.
type Choice = (What, u64, u64);
const PLANE: [Choice; 4] = [
    (What::PlaneKilled, 100, 3_000),
    (What::PlaneKilled, 100, 3_000),
    (What::PlaneStopped, 100, 2_000),
    (What::PlaneFrozen, 3_000, 14_000),
];
/// Of one among several. Freezes and cuts outlast the 2 s after which others claim its calls, and end within [`REPLICA_EVERY`].
const REPLICA: [Choice; 4] = [
    (What::PlaneKilled, 500, 5_000),
    (What::PlaneStopped, 500, 3_000),
    (What::PlaneFrozen, 3_000, 7_000),
    (What::DatabaseCut, 3_000, 7_000),
];
const AGENT: [Choice; 2] = [(What::AgentKilled, 100, 4_000), (What::AgentFrozen, 3_000, 14_000)];
const NODE: [Choice; 7] = [
    (What::AsteriskKilled, 500, 4_000),
    (What::AsteriskStopped, 500, 3_000),
    (What::AsteriskFrozen, 3_000, 14_000),
    (What::LinkCut, 6_000, 14_000),
    (What::LinkMute, 6_000, 14_000),
    (What::LinkDeaf, 6_000, 14_000),
    (What::CableOut, 3_000, 14_000),
];
const CARRIER: [Choice; 4] = [
    (What::CarrierDeaf, 3_000, 9_000),
    (What::CarrierSilent, 3_000, 9_000),
    (What::CarrierRefuses, 3_000, 9_000),
    (What::CarrierDead, 3_000, 9_000),
];

/// Between the beginnings of two faults of replicas.
const REPLICA_EVERY: Duration = Duration::from_secs(10);
/// Between two faults of a track, in ms.
const PLANE_GAP: std::ops::Range<u64> = 3_000..10_000;
const NODE_GAP: std::ops::Range<u64> = 1_000..6_000;
const CARRIER_GAP: std::ops::Range<u64> = 4_000..14_000;
/// The part of the run after which a node is powered off, in per cent.
const POWER_OFF: std::ops::Range<u64> = 45..70;

/// The faults of a run, track by track in the order of their beginnings.
#[must_use]
pub fn plan(ground: &Ground, chance: &mut StdRng) -> Vec<Vec<Fault>> {
    if ground.planes > 1 {
        return vec![replicas(ground, chance)];
    }
    vec![plane(ground, chance), nodes(ground, chance), carriers(ground, chance)]
}

fn replicas(ground: &Ground, chance: &mut StdRng) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = REPLICA_EVERY / 2;
    while at < ground.length {
        let (what, least, most) = REPLICA[chance.random_range(0..REPLICA.len())];
        let subject = Subject::Plane(chance.random_range(0..ground.planes));
        let lasts = Some(Duration::from_millis(chance.random_range(least..=most)));
        faults.push(Fault { at, subject, what, lasts });
        at += REPLICA_EVERY;
    }
    faults
}

fn plane(ground: &Ground, chance: &mut StdRng) -> Vec<Fault> {
    track(ground, chance, &PLANE, PLANE_GAP, |_| Subject::Plane(0))
}

fn carriers(ground: &Ground, chance: &mut StdRng) -> Vec<Fault> {
    let names = ground.carriers.clone();
    track(ground, chance, &CARRIER, CARRIER_GAP, move |chance| Subject::Carrier(one_of(&names, chance)))
}

fn nodes(ground: &Ground, chance: &mut StdRng) -> Vec<Fault> {
    let choices = if ground.agents { [&NODE[..], &AGENT].concat() } else { NODE.to_vec() };
    let mut left = ground.nodes.clone();
    let lost = (left.len() > 1).then(|| left.remove(chance.random_range(0..left.len())));
    let off_at =
        ground.length.mul_f64(f64::from(u32::try_from(chance.random_range(POWER_OFF)).unwrap_or(50)) / 100.0);
    let all = ground.nodes.clone();
    let mut faults =
        track(ground, chance, &choices, NODE_GAP, move |chance| Subject::Node(one_of(&all, chance)));
    let Some(lost) = lost else { return faults };
    // Once it is off, what was meant for it happens to another.
    for fault in faults.iter_mut().filter(|fault| fault.at + fault.lasts.unwrap_or_default() >= off_at) {
        if fault.subject == Subject::Node(lost.clone()) {
            fault.subject = Subject::Node(one_of(&left, chance));
        }
    }
    let fault = Fault { at: off_at, subject: Subject::Node(lost), what: What::PoweredOff, lasts: None };
    faults.push(fault);
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn track(
    ground: &Ground,
    chance: &mut StdRng,
    choices: &[Choice],
    gap: std::ops::Range<u64>,
    subject: impl Fn(&mut StdRng) -> Subject,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = Duration::from_millis(chance.random_range(gap.clone()));
    while at < ground.length {
        let (what, least, most) = choices[chance.random_range(0..choices.len())];
        let lasts = Duration::from_millis(chance.random_range(least..=most));
        faults.push(Fault { at, subject: subject(chance), what, lasts: Some(lasts) });
        at += lasts + Duration::from_millis(chance.random_range(gap.clone()));
    }
    faults
}

fn one_of(names: &[String], chance: &mut StdRng) -> String {
    names[chance.random_range(0..names.len())].clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use std::collections::BTreeSet;

    fn ground(seconds: u64) -> Ground {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Ground {
            length: Duration::from_secs(seconds),
            nodes: names(&["pbx-1", "pbx-2", "pbx-3"]),
            carriers: names(&["a", "b"]),
            agents: true,
            planes: 1,
        }
    }

    fn of(seed: u64) -> Vec<Vec<Fault>> {
        plan(&ground(200), &mut StdRng::seed_from_u64(seed))
    }

    #[test]
    fn a_seed_plans_the_same_faults() {
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn a_track_breaks_one_thing_at_a_time_and_heals_it_before_the_next() {
        for seed in 0..200 {
            for (at, track) in of(seed).iter().enumerate() {
                let healing: Vec<_> = track.iter().filter(|fault| fault.what != What::PoweredOff).collect();
                for pair in healing.windows(2) {
                    assert!(pair[0].at + pair[0].lasts.unwrap() < pair[1].at, "seed {seed}: {pair:?}");
                }
                assert!(!track.is_empty(), "seed {seed}: track {at}");
            }
        }
    }

    #[test]
    fn one_node_is_powered_off_for_good_and_left_alone_from_then_on() {
        for seed in 0..200 {
            let nodes = &of(seed)[1];
            let off: Vec<_> = nodes.iter().filter(|fault| fault.what == What::PoweredOff).collect();
            let [off] = off[..] else { panic!("seed {seed}: {off:?}") };
            let after = nodes.iter().filter(|fault| fault.at + fault.lasts.unwrap_or_default() > off.at);
            assert_eq!(after.filter(|fault| fault.subject == off.subject).count(), 0, "seed {seed}");
        }
    }

    #[test]
    fn of_several_control_planes_one_is_broken_every_ten_seconds() {
        let ground = Ground { planes: 3, ..ground(300) };
        let tracks = plan(&ground, &mut StdRng::seed_from_u64(4));
        let [track] = &tracks[..] else { panic!("{tracks:?}") };
        assert_eq!(track.len(), 30);
        for pair in track.windows(2) {
            assert_eq!(pair[0].at + REPLICA_EVERY, pair[1].at);
            assert!(pair[0].at + pair[0].lasts.unwrap() < pair[1].at, "{pair:?}");
        }
        let subjects: BTreeSet<_> = track.iter().map(|fault| fault.subject.clone()).collect();
        let kinds: BTreeSet<_> = track.iter().map(|fault| fault.what).collect();
        assert_eq!((subjects.len(), kinds.len()), (3, 4));
    }

    #[test]
    fn every_kind_comes_up() {
        let kinds: BTreeSet<_> = (0..20).flat_map(of).flatten().map(|fault| fault.what).collect();
        assert_eq!(kinds.len(), 17);
    }
}
