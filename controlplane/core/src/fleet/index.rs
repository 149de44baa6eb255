//! What of a fleet hangs together, found without looking through all of it: every snapshot of every node asks for that
//! node's trunks, and every change of a trunk for its routes.

use std::collections::BTreeMap;

use super::{Route, RoutePrefix, Trunk};
use crate::names::{NodeName, TrunkName};

/// Names by name. Made with the fleet, which does not change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index {
    trunks_of: BTreeMap<NodeName, Vec<TrunkName>>,
    routes_of: BTreeMap<TrunkName, Vec<RoutePrefix>>,
}

impl Index {
    pub(super) fn of<'f>(
        trunks: impl Iterator<Item = &'f Trunk>,
        routes: impl Iterator<Item = &'f Route>,
    ) -> Self {
        let mut index = Self::default();
        for trunk in trunks {
            index.trunks_of.entry(trunk.node.clone()).or_default().push(trunk.name.clone());
        }
        for route in routes {
            for trunk in route.tiers.iter().flatten() {
                let of = index.routes_of.entry(trunk.clone()).or_default();
                if of.last() != Some(&route.prefix) {
                    of.push(route.prefix.clone());
                }
            }
        }
        index
    }

    pub(super) fn trunks_of(&self, node: &NodeName) -> &[TrunkName] {
        self.trunks_of.get(node).map_or(&[], Vec::as_slice)
    }

    pub(super) fn routes_of(&self, trunk: &TrunkName) -> &[RoutePrefix] {
        self.routes_of.get(trunk).map_or(&[], Vec::as_slice)
    }
}
