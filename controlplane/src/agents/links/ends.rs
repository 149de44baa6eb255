//! When nodes' certificates end.

use controlplane_core::names::NodeName;

use super::Links;

impl Links {
    /// When the certificate ends that each node's agent shows, in seconds since 1970, as it last said.
    #[must_use]
    pub(crate) fn certificate_ends(&self) -> Vec<(NodeName, i64)> {
        let fleet = self.declared().borrow().fleet.clone();
        let of = |name: &NodeName| {
            let seen = self.agent(name).seen?;
            Some((name.clone(), seen.observations.certificate_expires_unix_s?))
        };
        fleet.nodes().filter_map(|node| of(&node.name)).collect()
    }
}
