//! What selection is told about trunks, what it is told about the call, and what it answers.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::{
    call::{UnknownWord, words},
    fleet::{Fleet, RoutePrefix, Trunk},
    health::Standing,
    names::{CarrierName, NodeName, RegionName, TrunkName},
};

/// Whether a trunk can take this call now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It can, and so it stands.
    Ready(Standing),
    /// It could, but a limit holds it back.
    Later {
        /// When the limit lets it; none where that depends on others (a channel that must end).
        until: Option<Instant>,
        /// Which limit.
        why: PassedOver,
    },
    /// It cannot, and nobody knows when it will.
    Unusable(PassedOver),
}

words! {
    /// Why a trunk was passed over.
    PassedOver {
        /// Its node is lost, or not linked to this replica.
        NodeDown = "node_down",
        /// An operator drains its node.
        NodeDraining = "node_draining",
        /// Its node was not checked yet: what Asterisk and dialplan are there is not known.
        NodeUnverified = "node_unverified",
        /// An operator disabled it.
        TrunkDisabled = "trunk_disabled",
        /// Its health tripped.
        TrunkTripped = "trunk_tripped",
        /// It is in probation, and its trial calls are under way.
        TrunkInProbation = "trunk_in_probation",
        /// A finding forbids its use, such as a contact that is a name and would hold the node up in DNS.
        TrunkRefused = "trunk_refused",
        /// It has started `cps_max` calls in this second.
        AtCps = "at_cps",
        /// All its channels are taken.
        AtChannels = "at_channels",
        /// Its carrier's account has started `cps_max` calls in this second.
        CarrierAtCps = "carrier_at_cps",
        /// All channels of its carrier's account are taken.
        CarrierAtChannels = "carrier_at_channels",
        /// It may not present the call's caller id.
        CallerIdNotAllowed = "caller_id_not_allowed",
        /// It would dial an emergency service.
        EmergencyNumber = "emergency_number",
        /// This call has tried it.
        Tried = "tried",
        /// Calls to numbers like this one fail on it.
        TrunkSuspendedForPrefix = "trunk_suspended_for_prefix",
        /// Calls that present this caller id fail on it.
        TrunkSuspendedForCallerId = "trunk_suspended_for_caller_id",
    }
}

impl PassedOver {
    /// Whether this stays so for the call at hand, however long it waits.
    #[must_use]
    pub const fn holds_for_the_call(self) -> bool {
        match self {
            Self::Tried | Self::CallerIdNotAllowed | Self::EmergencyNumber => true,
            Self::NodeDown
            | Self::NodeDraining
            | Self::NodeUnverified
            | Self::TrunkDisabled
            | Self::TrunkTripped
            | Self::TrunkRefused
            | Self::AtCps
            | Self::AtChannels
            | Self::CarrierAtCps
            | Self::CarrierAtChannels
            | Self::TrunkInProbation
            | Self::TrunkSuspendedForPrefix
            | Self::TrunkSuspendedForCallerId => false,
        }
    }
}

words! {
    /// Why a trunk that was ready was not chosen.
    Outranked {
        /// It is held to be broken, and the chosen one is not.
        LastResort = "last_resort",
        /// This call has tried its node, and not the chosen one's.
        SameNode = "same_node",
        /// The chosen one is of a higher tier.
        LowerTier = "lower_tier",
        /// It works less well than the chosen one, or nothing is known of it.
        Reserve = "reserve",
        /// This call has tried its carrier, and not the chosen one's.
        SameCarrier = "same_carrier",
        /// This call has tried its region, and not the chosen one's.
        SameRegion = "same_region",
        /// It was the chosen one's turn.
        Turn = "turn",
    }
}

/// What a call has tried already. A handful of names: a call has few attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tried {
    trunks: Vec<TrunkName>,
    nodes: Vec<NodeName>,
    carriers: Vec<CarrierName>,
    regions: Vec<RegionName>,
}

impl Tried {
    /// Adds the trunk of an attempt.
    pub fn add(&mut self, trunk: &Trunk, fleet: &Fleet) {
        self.add_names(&trunk.name, &trunk.node, &trunk.carrier, fleet);
    }

    /// Adds an attempt whose trunk may be gone from the fleet since: its node and carrier still count.
    pub fn add_names(&mut self, trunk: &TrunkName, node: &NodeName, carrier: &CarrierName, fleet: &Fleet) {
        self.trunks.push(trunk.clone());
        self.nodes.push(node.clone());
        self.carriers.push(carrier.clone());
        self.regions.extend(fleet.node(node).map(|n| n.region.clone()));
    }

    /// Passes over every trunk of a node to which nothing was sent: only the trunks count as tried.
    pub fn pass_over_node(&mut self, node: &NodeName, fleet: &Fleet) {
        self.trunks.extend(fleet.trunks_of(node).map(|trunk| trunk.name.clone()));
    }

    /// Whether this is the call's first choice.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.trunks.is_empty()
    }

    pub(super) fn has(&self, trunk: &Trunk) -> bool {
        self.trunks.contains(&trunk.name)
    }

    pub(super) fn has_node(&self, node: &NodeName) -> bool {
        self.nodes.contains(node)
    }

    pub(super) fn has_carrier(&self, carrier: &CarrierName) -> bool {
        self.carriers.contains(carrier)
    }

    pub(super) fn has_region(&self, region: &RegionName) -> bool {
        self.regions.contains(region)
    }
}

/// A choice, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub choice: Choice,
    /// The route that the number took; none where there is none.
    pub route: Option<RoutePrefix>,
    /// Every trunk of the route, in its order.
    pub considered: Vec<Considered>,
}

impl Decision {
    pub(super) const fn no_route() -> Self {
        Self { choice: Choice::NoRoute, route: None, considered: Vec::new() }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Send it there.
    Trunk(TrunkName),
    /// Ask again then, or when something changes: a limit holds back every trunk that is left.
    Wait {
        /// The earliest instant at which a limit is known to end.
        until: Option<Instant>,
    },
    /// No route leads there.
    NoRoute,
    /// Waiting cannot help: every trunk of the route was tried, or may not take this call at all.
    NothingLeft,
    /// Trunks are left that this call has not tried, but none can be used now: ask again when health changes.
    NothingUsable,
}

/// A trunk of the route, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// Its tier, from 0.
    pub tier: usize,
    /// The trunk.
    pub trunk: TrunkName,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a trunk in a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the choice.
    Chosen,
    /// It was ready, but another one is better.
    Outranked(Outranked),
    /// A limit holds it back.
    Later {
        /// When the limit lets it, where that is known.
        until: Option<Instant>,
        /// Which limit.
        why: PassedOver,
    },
    /// It could not be chosen.
    PassedOver(PassedOver),
}

impl Verdict {
    /// One word for it, as in JSON and in `route explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::Outranked(why) => why.as_str(),
            Self::Later { until: _, why } | Self::PassedOver(why) => why.as_str(),
        }
    }
}
