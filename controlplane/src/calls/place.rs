//! Where an attempt is, and the slots that it holds there.

use controlplane_core::{
    fleet::Trunk,
    ids::AttemptId,
    names::{CarrierName, NodeName, TrunkName},
};

use crate::registry::Registry;

/// Where an attempt goes, or went.
pub(super) struct Place<'a> {
    pub(super) id: &'a AttemptId,
    pub(super) node: &'a NodeName,
    pub(super) trunk: &'a TrunkName,
    pub(super) carrier: &'a CarrierName,
    /// The trunk as declared; `None` if it is no longer.
    pub(super) declared: Option<&'a Trunk>,
}

impl<'a> Place<'a> {
    /// On a trunk that is declared.
    pub(super) const fn on(trunk: &'a Trunk, id: &'a AttemptId) -> Self {
        Self { id, node: &trunk.node, trunk: &trunk.name, carrier: &trunk.carrier, declared: Some(trunk) }
    }

    /// The labels of its trunk's series.
    pub(super) fn labels(&self) -> [&'a str; 3] {
        [self.node.as_str(), self.trunk.as_str(), self.carrier.as_str()]
    }
}

/// The slots of an attempt, given back when dropped: also when its task breaks.
pub(super) struct Slots<'a> {
    pub(super) registry: &'a Registry,
    pub(super) place: &'a Place<'a>,
}

impl Drop for Slots<'_> {
    fn drop(&mut self) {
        self.registry.release(self.place.trunk, self.place.carrier, self.place.id);
    }
}
