//! The registry as operators see it: `node list`, `trunk list`.

use controlplane_core::names::{CarrierName, EndpointName, NodeName, RegionName, TrunkName};
use serde::Serialize;
use time::OffsetDateTime;

use super::{Link, Registry};

/// A node as shown.
#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its region.
    pub region: RegionName,
    /// `alive`, `lost`, or `unknown` before the first answer.
    pub state: &'static str,
    /// Why it is lost.
    pub reason: Option<String>,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Start of its Asterisk, by its own clock.
    pub asterisk_started: Option<String>,
    /// AMI round trip in ms.
    pub ami_rtt_ms: Option<f64>,
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
    /// `usable`, `refused` (by what was found on its node), `node_lost`, or `unknown` (its node was not
    /// looked at yet).
    pub state: &'static str,
    /// Why it is refused or unknown, and what to do.
    pub reason: Option<String>,
    /// Attempts that hold a channel.
    pub channels: usize,
    /// Most of them.
    pub channels_max: u32,
    /// Most call starts per second.
    pub cps_max: u32,
}

impl Registry {
    /// Every declared node, by name.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeView> {
        let state = self.state();
        let view = |node: &controlplane_core::fleet::Node| {
            let entry = state.nodes.get(&node.name)?;
            let (link, reason, asterisk_started, ami_rtt_ms) = match &entry.link {
                Link::Connecting => ("unknown", Some("connecting".to_owned()), None, None),
                Link::Down { reason } => ("lost", Some(reason.clone()), None, None),
                Link::Up { session, incarnation } => (
                    "alive",
                    None,
                    Some(incarnation.as_str().to_owned()),
                    session.ping_rtt().map(|rtt| rtt.as_secs_f64() * 1_000.0),
                ),
            };
            Some(NodeView {
                name: node.name.clone(),
                region: node.region.clone(),
                state: link,
                reason,
                since: entry.since,
                asterisk_started,
                ami_rtt_ms,
                tampering: entry.tampering,
            })
        };
        state.fleet.nodes().filter_map(view).collect()
    }

    /// Every declared trunk, by name.
    #[must_use]
    pub fn trunks(&self) -> Vec<TrunkView> {
        let state = self.state();
        let view = |trunk: &controlplane_core::fleet::Trunk| {
            let entry = state.trunks.get(&trunk.name)?;
            let lost =
                state.nodes.get(&trunk.node).is_some_and(|node| matches!(node.link, Link::Down { .. }));
            let (word, reason) = match &entry.checked {
                _ if lost => ("node_lost", Some(format!("node {} is lost", trunk.node))),
                None => ("unknown", Some(format!("node {} was not looked at yet", trunk.node))),
                Some(Ok(())) => ("usable", None),
                Some(Err(finding)) => ("refused", Some(finding.text.clone())),
            };
            Some(TrunkView {
                name: trunk.name.clone(),
                node: trunk.node.clone(),
                carrier: trunk.carrier.clone(),
                endpoint: trunk.endpoint.clone(),
                state: word,
                reason,
                channels: entry.limits.channels.held(),
                channels_max: trunk.channels_max,
                cps_max: trunk.cps_max,
            })
        };
        state.fleet.trunks().filter_map(view).collect()
    }
}
