//! Nodes that could not get what a call plays: for a short, growing time others are preferred to them.
//!
//! ```text
//!        failed                    probe_failed: twice the wait, up to WAIT_MAX
//! (fit) ────────▶ shunned, one prober ──▶ shunned
//!   ▲ placed, by whomever, or PROBES_MAX │
//!   └────────────────────────────────────┘
//! ```
//! One prober per node asks beside all calls: no call spends its time on finding out. After [`PROBES_MAX`] the node is
//! forgotten, and the next call that comes to it begins anew.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::names::NodeName;

/// First wait before a probe; doubled with each that fails.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// Longest such wait.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Probes of one node in vain before it is forgotten: some ten minutes.
const PROBES_MAX: u32 = 14;

/// See the module. Nodes are those of the fleet: that bounds it.
#[derive(Debug, Default)]
pub(super) struct Shunned(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Each with its prober, and how often that asked in vain.
    nodes: HashMap<NodeName, (Prober, u32)>,
    probers: u64,
}

/// Who asks a node: one that was replaced stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prober(u64);

impl Shunned {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call could not have its sound there. `Some`: this prober is to be started.
    pub(super) fn failed(&self, node: &NodeName) -> Option<Prober> {
        let mut state = self.state();
        if state.nodes.contains_key(node) {
            return None;
        }
        state.probers += 1;
        let prober = Prober(state.probers);
        state.nodes.insert(node.clone(), (prober, 0));
        Some(prober)
    }

    /// The prober asked in vain.
    pub(super) fn probe_failed(&self, node: &NodeName, prober: Prober) {
        let mut state = self.state();
        if let Some((its, made)) = state.nodes.get_mut(node)
            && *its == prober
        {
            *made += 1;
            if *made >= PROBES_MAX {
                state.nodes.remove(node);
            }
        }
    }

    /// It has one.
    pub(super) fn placed(&self, node: &NodeName) {
        self.state().nodes.remove(node);
    }

    /// How long the prober waits before it asks; `None`: it is not needed any more.
    pub(super) fn wait(&self, node: &NodeName, prober: Prober) -> Option<Duration> {
        let made = self.state().nodes.get(node).filter(|(its, _)| *its == prober)?.1;
        Some(WAIT_MIN.saturating_mul(1 << made.min(16)).min(WAIT_MAX))
    }

    /// All of them.
    pub(super) fn nodes(&self) -> Vec<NodeName> {
        self.state().nodes.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_preferred_for_a_growing_time_and_one_asks() {
        let (shunned, node) = (Shunned::default(), "waw-1".parse::<NodeName>().unwrap());
        assert!(shunned.nodes().is_empty());
        // Ten calls fail on it: there is one prober.
        let first = shunned.failed(&node).unwrap();
        assert!((0..9).all(|_| shunned.failed(&node).is_none()));
        assert_eq!(shunned.nodes(), std::slice::from_ref(&node));
        let mut waits = Vec::new();
        while let Some(wait) = shunned.wait(&node, first) {
            waits.push(wait.as_secs());
            shunned.probe_failed(&node, first);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60, 60, 60]);
        assert!(shunned.nodes().is_empty(), "forgotten");
        // Found able, by whomever: its prober stops, also where the node has failed again meanwhile.
        let second = shunned.failed(&node).unwrap();
        shunned.probe_failed(&node, second);
        shunned.placed(&node);
        assert_eq!((shunned.wait(&node, second), shunned.nodes()), (None, Vec::new()));
        let third = shunned.failed(&node).unwrap();
        shunned.probe_failed(&node, second);
        assert_eq!((shunned.wait(&node, second), shunned.wait(&node, third)), (None, Some(WAIT_MIN)));
    }
}
