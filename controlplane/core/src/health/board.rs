//! The health of a whole fleet: its machines by name, and the bounds over all of them.
//!
//! Owned by whoever holds the lease of the nodes. Fed by name, asked per call; says for each event what
//! changed, for the log, the metrics and the store. A name that the fleet does not have is ignored.

use std::{collections::BTreeMap, time::Instant};

use rand::Rng;

use super::{
    Around, CanaryPlan, Customers, Destination, Event, Evidence, Handled, NodeEvent, NodeEvidence,
    NodeHealth, NodeKind, NodePolicy, NodeSnapshot, NodeState, Policy, Refusal, Standing, Transition,
    TrunkHealth, TrunkSnapshot, TrunkState, Withheld,
    panic::{self, PanicChange, Panics, RouteCount},
};
use crate::{
    fleet::{Fleet, Route, RoutePrefix, Trunk},
    names::{NodeName, TrunkName},
    number::E164,
};

/// What changed when time passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A trunk's state.
    Trunk(TrunkName, Transition<TrunkState, Evidence>),
    /// A node's state.
    Node(NodeName, Transition<NodeState, NodeEvidence>),
}

/// All machines.
#[derive(Debug, Clone)]
pub struct Board {
    policy: Policy,
    node_policy: NodePolicy,
    customers: Customers,
    trunks: BTreeMap<TrunkName, TrunkHealth>,
    nodes: BTreeMap<NodeName, NodeHealth>,
    panics: Panics,
    /// Trunks that no operator has disabled, and those of them that calls have ejected: counted when a
    /// trunk changes, since every event needs them.
    members: usize,
    ejected: usize,
}

impl Board {
    /// A board without a fleet.
    #[must_use]
    pub fn new(policy: Policy, node_policy: NodePolicy) -> Self {
        Self {
            policy,
            node_policy,
            // The careful side: with several, one customer's evidence alone trips nothing.
            customers: Customers::Several,
            trunks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            panics: Panics::default(),
            members: 0,
            ejected: 0,
        }
    }

    /// How many customers there are.
    pub fn set_customers(&mut self, customers: Customers) {
        self.customers = customers;
    }

    /// Takes a fleet: new machines for what is new, those of what is gone are dropped. A trunk that moves
    /// to another node or endpoint keeps its name, and so its health.
    pub fn sync(&mut self, fleet: &Fleet, now: Instant) {
        self.trunks.retain(|name, _| fleet.trunk(name).is_some());
        self.nodes.retain(|name, _| fleet.node(name).is_some());
        self.panics.sync(fleet);
        for trunk in fleet.trunks() {
            let canary = CanaryPlan::of(trunk);
            self.trunks
                .entry(trunk.name.clone())
                .or_insert_with(|| TrunkHealth::new(now, canary, self.policy))
                .set_canary(canary);
        }
        for node in fleet.nodes() {
            let kind = if node.ami.is_some() { NodeKind::Agentless } else { NodeKind::Agent };
            self.nodes
                .entry(node.name.clone())
                .or_insert_with(|| NodeHealth::new(now, kind, self.node_policy))
                .set_kind(kind);
        }
        self.count();
    }

    /// Goes on with a trunk's machine where a snapshot was taken. One that the fleet does not have is ignored.
    pub fn restore_trunk(&mut self, now: Instant, name: &TrunkName, snapshot: TrunkSnapshot) {
        if let Some(trunk) = self.trunks.get_mut(name) {
            *trunk = TrunkHealth::restore(now, snapshot, trunk.canary(), self.policy);
            self.count();
        }
    }

    /// Goes on with a node's machine: nothing was heard of it yet, but its past is known.
    pub fn restore_node(&mut self, now: Instant, name: &NodeName, snapshot: NodeSnapshot) {
        if let Some(node) = self.nodes.get_mut(name) {
            let kind = node.kind();
            *node = NodeHealth::restore(now, snapshot, self.node_policy);
            node.set_kind(kind);
        }
    }

    /// A trunk's machine, for `why`, snapshots and canaries.
    #[must_use]
    pub fn trunk(&self, name: &TrunkName) -> Option<&TrunkHealth> {
        self.trunks.get(name)
    }

    /// A node's machine.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&NodeHealth> {
        self.nodes.get(name)
    }

    /// Every trunk, by name.
    pub fn trunks(&self) -> impl ExactSizeIterator<Item = (&TrunkName, &TrunkHealth)> {
        self.trunks.iter()
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (&NodeName, &NodeHealth)> {
        self.nodes.iter()
    }

    /// News of a trunk.
    pub fn handle(
        &mut self,
        now: Instant,
        name: &TrunkName,
        event: &Event,
        rng: &mut impl Rng,
    ) -> Option<Handled> {
        let around = self.around();
        let trunk = self.trunks.get_mut(name)?;
        let counted = |trunk: &TrunkHealth| (trunk.is_ejected(), trunk.state() == TrunkState::Disabled);
        let before = counted(trunk);
        let handled = trunk.handle(now, event, around, rng);
        if counted(trunk) != before {
            self.count();
        }
        Some(handled)
    }

    /// News of a node.
    pub fn handle_node(
        &mut self,
        now: Instant,
        name: &NodeName,
        event: NodeEvent,
    ) -> Option<Transition<NodeState, NodeEvidence>> {
        self.nodes.get_mut(name)?.handle(now, event)
    }

    /// An attempt leaves over a trunk.
    pub fn sent(&mut self, now: Instant, name: &TrunkName) {
        if let Some(trunk) = self.trunks.get_mut(name) {
            trunk.sent(now);
        }
    }

    /// It did not leave, and will not.
    pub fn not_sent(&mut self, name: &TrunkName) {
        if let Some(trunk) = self.trunks.get_mut(name) {
            trunk.not_sent();
        }
    }

    /// When [`Self::on_deadline`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let trunks = self.trunks.values().filter_map(TrunkHealth::next_deadline);
        trunks.chain(self.nodes.values().filter_map(NodeHealth::next_deadline)).min()
    }

    /// Time has passed.
    pub fn on_deadline(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<Changed> {
        let mut changed = Vec::new();
        for (name, node) in &mut self.nodes {
            changed.extend(node.on_deadline(now).map(|t| Changed::Node(name.clone(), t)));
        }
        // No deadline ejects a trunk, so the bounds stay what they are.
        let around = self.around();
        for (name, trunk) in &mut self.trunks {
            if trunk.next_deadline().is_some_and(|due| due <= now) {
                let handled = trunk.on_deadline(now, around, rng);
                changed.extend(handled.transition.map(|t| Changed::Trunk(name.clone(), t)));
            }
        }
        self.count();
        changed
    }

    /// How each trunk of a route stands for a call, panic considered: ask once per call and route. What `can_serve`
    /// denies (another caller id, no session, a finding) counts for nothing: the best health would not help it.
    #[must_use]
    pub fn for_call<'a>(
        &'a self,
        now: Instant,
        fleet: &'a Fleet,
        route: &'a Route,
        to: &E164,
        caller: Option<&'a E164>,
        can_serve: impl Fn(&Trunk) -> bool,
    ) -> ForCall<'a> {
        let destination = Destination::of(to);
        let mut count = RouteCount::default();
        for trunk in trunks(fleet, route).filter(|trunk| can_serve(trunk)) {
            count.add(self.standing(now, trunk, &destination, caller));
        }
        ForCall { board: self, now, destination, caller, panic: count.fails_open(&self.policy) }
    }

    /// How a trunk stands for a call, without panic. What the board does not know is lost. Where the call names no
    /// caller id, the trunk presents its first.
    ///
    /// # Errors
    /// Why it is withheld.
    pub fn standing(
        &self,
        now: Instant,
        trunk: &Trunk,
        destination: &Destination,
        caller: Option<&E164>,
    ) -> Result<Standing, Withheld> {
        let caller = caller.or(trunk.caller_ids.first());
        match (self.nodes.get(&trunk.node), self.trunks.get(&trunk.name)) {
            (Some(node), Some(trunk)) => super::standing(node, trunk, now, destination, caller),
            (None, _) | (_, None) => Err(Withheld { why: Refusal::NodeLost, until: None }),
        }
    }

    /// How a trunk stands for a call to no destination in particular.
    ///
    /// # Errors
    /// Why it is withheld.
    pub fn standing_for_any(&self, now: Instant, trunk: &Trunk) -> Result<Standing, Withheld> {
        match (self.nodes.get(&trunk.node), self.trunks.get(&trunk.name)) {
            (Some(node), Some(trunk)) => super::standing::for_any(node, trunk, now),
            (None, _) | (_, None) => Err(Withheld { why: Refusal::NodeLost, until: None }),
        }
    }

    /// Looks at these routes of the fleet; says whose panic began or ended. Suspensions are one destination's matter and
    /// do not count here, nor do trunks that `can_serve` denies. Call it after transitions, for the routes that they
    /// concern, and about once per second for all.
    pub fn look_for_panic<'f>(
        &mut self,
        now: Instant,
        fleet: &Fleet,
        routes: impl IntoIterator<Item = &'f Route>,
        can_serve: impl Fn(&Trunk) -> bool,
    ) -> Vec<(RoutePrefix, PanicChange)> {
        let mut changes = Vec::new();
        for route in routes {
            let mut count = RouteCount::default();
            for trunk in trunks(fleet, route).filter(|trunk| can_serve(trunk)) {
                count.add(self.standing_for_any(now, trunk));
            }
            let change = self.panics.look(now, &route.prefix, count, &self.policy);
            changes.extend(change.map(|c| (route.prefix.clone(), c)));
        }
        changes
    }

    /// The routes that fail open, and since when.
    #[must_use]
    pub const fn panics(&self) -> &Panics {
        &self.panics
    }

    fn count(&mut self) {
        self.members = self.trunks.values().filter(|t| t.state() != TrunkState::Disabled).count();
        self.ejected = self.trunks.values().filter(|t| t.is_ejected()).count();
    }

    fn around(&self) -> Around {
        let ejection = panic::ejection(self.ejected, self.members, &self.policy);
        Around { customers: self.customers, ejection }
    }
}

fn trunks<'f>(fleet: &'f Fleet, route: &'f Route) -> impl Iterator<Item = &'f Trunk> {
    route.tiers.iter().flatten().filter_map(|name| fleet.trunk(name))
}

/// How the trunks of a route stand for one call.
#[derive(Debug, Clone)]
pub struct ForCall<'a> {
    board: &'a Board,
    now: Instant,
    destination: Destination,
    caller: Option<&'a E164>,
    panic: bool,
}

impl ForCall<'_> {
    /// Whether the route fails open for this call.
    #[must_use]
    pub const fn is_panic(&self) -> bool {
        self.panic
    }

    /// How a trunk stands.
    ///
    /// # Errors
    /// Why it is withheld; [`Withheld::availability`] is selection's word for it.
    pub fn standing(&self, trunk: &Trunk) -> Result<Standing, Withheld> {
        let standing = self.board.standing(self.now, trunk, &self.destination, self.caller);
        if self.panic { panic::in_panic(standing) } else { standing }
    }
}
