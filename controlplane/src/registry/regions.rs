//! From which regions calls can be sent now, which strangers may know, and how many attempts hold a channel.

use std::collections::BTreeMap;

use controlplane_core::names::{NodeName, RegionName};
use tokio::time::Instant;

use super::{Link, Registry};

impl Registry {
    /// Attempts of this process that hold a channel.
    #[must_use]
    pub fn channels_held(&self) -> usize {
        self.state().trunks.values().map(|trunk| trunk.limits.channels.held()).sum()
    }

    /// Every region of the fleet by name, and whether one of its trunks could take a call now.
    #[must_use]
    pub fn regions(&self) -> Vec<(RegionName, bool)> {
        let state = self.state();
        let now = Instant::now().into_std();
        let is_up = |node: &NodeName| {
            state.nodes.get(node).is_some_and(|entry| matches!(entry.link, Link::Up { .. }))
        };
        let mut regions: BTreeMap<&RegionName, bool> =
            state.fleet.nodes().map(|node| (&node.region, false)).collect();
        for trunk in state.fleet.trunks() {
            let Some(region) = state.fleet.node(&trunk.node).map(|node| &node.region) else { continue };
            // One is enough, and the rest is not looked at.
            if regions.get(region).copied().unwrap_or(true) {
                continue;
            }
            let checked = state.trunks.get(&trunk.name).is_some_and(|t| matches!(t.checked, Some(Ok(()))));
            if checked && is_up(&trunk.node) && state.board.standing_for_any(now, trunk).is_ok() {
                regions.insert(region, true);
            }
        }
        regions.into_iter().map(|(region, up)| (region.clone(), up)).collect()
    }
}
