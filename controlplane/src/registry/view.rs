//! The registry as operators see it: `node list`, `trunk list`.

use controlplane_core::{
    fleet::Trunk,
    health::{NodeState, Refusal, TrunkState},
    names::{CarrierName, EndpointName, NodeName, RegionName, TrunkName},
};
use node_agent_core::observe::DIALPLAN_FIX;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{Link, Registry, State};

/// Trunks that are looked at under one hold of the lock: less than a millisecond.
const VIEWED_AT_ONCE: usize = 128;

/// A node as shown.
#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
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
    /// Why it is not alive, and what to do where that is known.
    pub reason: Option<String>,
    /// Since when its AMI session is up or down.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Start of its Asterisk, by its own clock.
    pub asterisk_started: Option<String>,
    /// AMI round trip in ms.
    pub ami_rtt_ms: Option<f64>,
    /// What is amiss with its dialplan, and what to do.
    pub finding: Option<&'static str>,
    /// Blocks of strangers' text seen in its sessions since the control plane started.
    pub tampering: u64,
}

/// A trunk as shown.
#[derive(Debug, Clone, Serialize)]
pub struct TrunkView {
    /// Its name.
    pub name: TrunkName,
    /// Its node.
    pub node: NodeName,
    /// Its carrier.
    pub carrier: CarrierName,
    /// Its PJSIP endpoint.
    pub endpoint: EndpointName,
    /// Its health.
    pub state: TrunkState,
    /// For how long, in ms.
    pub for_ms: u64,
    /// Whether its node's configuration of it was looked at.
    pub checked: bool,
    /// Whether a call could be sent over it: node, configuration and health allow it.
    pub usable: bool,
    /// Why it is not healthy or cannot be used, and what to do where that is known.
    pub reason: Option<String>,
    /// What was found on its node forbids its use.
    pub finding: Option<String>,
    /// Destinations and caller ids that it is spared for.
    pub suspensions: usize,
    /// Answer-seizure ratio of its latest calls; absent without calls.
    pub asr: Option<f64>,
    /// The latest round trip of OPTIONS, in ms.
    pub qualify_rtt_ms: Option<f64>,
    /// Attempts that hold a channel.
    pub channels: usize,
    /// Most of them.
    pub channels_max: u32,
    /// Most call starts per second.
    pub cps_max: u32,
}

impl State {
    fn trunk_view(&self, trunk: &Trunk, now: std::time::Instant) -> Option<TrunkView> {
        let entry = self.trunks.get(&trunk.name)?;
        let why = self.board.trunk(&trunk.name)?.why(now);
        let node_up = self.nodes.get(&trunk.node).is_some_and(|node| matches!(node.link, Link::Up { .. }));
        let finding = entry.checked.as_ref().and_then(|checked| checked.as_ref().err());
        let stands = self.board.standing_for_any(now, trunk);
        let reason = match (finding, &entry.checked) {
            (Some(finding), _) => Some(finding.text.clone()),
            (None, _) if !node_up => Some(format!("node {} is down", trunk.node)),
            (None, None) => Some(format!("node {} was not looked at yet", trunk.node)),
            (None, Some(_)) if stands.is_err_and(|withheld| withheld.why == Refusal::NodeDraining) => {
                Some(format!("an operator drains node {}", trunk.node))
            }
            (None, Some(_)) => (why.state != TrunkState::Healthy || !why.suspensions.is_empty())
                .then(|| why.sentence.clone()),
        };
        Some(TrunkView {
            name: trunk.name.clone(),
            node: trunk.node.clone(),
            carrier: trunk.carrier.clone(),
            endpoint: trunk.endpoint.clone(),
            state: why.state,
            for_ms: why.for_ms,
            checked: entry.checked.is_some(),
            usable: node_up && matches!(entry.checked, Some(Ok(()))) && stands.is_ok(),
            reason,
            finding: finding.map(|finding| finding.text.clone()),
            suspensions: why.suspensions.len(),
            asr: why.asr(),
            qualify_rtt_ms: why.qualify_rtt_us.map(ms),
            channels: entry.limits.channels.held(),
            channels_max: trunk.channels_max,
            cps_max: trunk.cps_max,
        })
    }
}

impl Registry {
    /// Every declared node, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let state = self.state();
        let at = Instant::now();
        let now = at.into_std();
        let view = |node: &controlplane_core::fleet::Node| {
            let entry = state.nodes.get(&node.name)?;
            let health = state.board.node(&node.name)?;
            let (up, reason, asterisk_started, ami_rtt_ms) = match &entry.link {
                Link::Connecting => (false, Some("connecting".to_owned()), None, None),
                Link::Down { reason } => (false, Some(reason.clone()), None, None),
                Link::Up { session, incarnation, .. } => (
                    true,
                    (health.state() != NodeState::Alive || health.is_draining())
                        .then(|| health.why(now).sentence),
                    Some(incarnation.as_str().to_owned()),
                    session.ping_rtt().map(|rtt| rtt.as_secs_f64() * 1_000.0),
                ),
            };
            Some(NodeView {
                name: node.name.clone(),
                region: node.region.clone(),
                state: health.state(),
                draining: health.is_draining(),
                up,
                reason,
                since: entry.since,
                asterisk_started,
                ami_rtt_ms,
                finding: entry.is_deaf(at).then_some(DIALPLAN_FIX),
                tampering: entry.tampering,
            })
        };
        state.fleet.nodes().filter_map(view).collect()
    }

    /// Every declared trunk, by name: each as it is when its turn comes. The lock is let go of between parts, so that choices
    /// and news need not wait until thousands of reasons are written.
    #[must_use]
    pub fn trunks(&self) -> Vec<TrunkView> {
        let (fleet, _) = self.fleet();
        let trunks: Vec<_> = fleet.trunks().collect();
        let mut views = Vec::with_capacity(trunks.len());
        for some in trunks.chunks(VIEWED_AT_ONCE) {
            let state = self.state();
            let now = Instant::now().into_std();
            views.extend(some.iter().filter_map(|trunk| state.trunk_view(trunk, now)));
        }
        views
    }

    /// Whether every node's session is up, or known not to be.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state().nodes.values().all(|node| match &node.link {
            Link::Connecting => false,
            Link::Down { .. } | Link::Up { .. } => true,
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "round trips are far below 2^52 µs")]
fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}
