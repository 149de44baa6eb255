//! What the registry is told about health, and what it tells of it: the fleet's machines behind the registry's
//! lock, so that a choice and the news that it rests on cannot cross.
//!
//! Changes are queued for whoever logs, counts and stores them (`crate::health`), so that nothing here waits.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

use controlplane_core::{
    fleet::{Route, RoutePrefix, Trunk},
    health::{
        self, Board, Changed, Charge, Customers, Event, Handled, Met, NodeEvent, NodeSnapshot, NodeWhy,
        Standing, TrunkSnapshot, TrunkState, Why, Withheld, panic::PanicChange,
    },
    names::{NodeName, TrunkName},
    number::E164,
};

use serde::Serialize;
use time::OffsetDateTime;

use super::{Link, Registry, State};

/// How long a trunk's pace stays halved after a 503 that was about pace.
const SLOW_FOR: Duration = Duration::from_secs(10);
/// Changes that wait to be told. A fleet of thousands that falls at once fits in it; beyond it the oldest are
/// not told, and the states are right all the same.
const NEWS_MAX: usize = 20_000;

/// What an earlier process knew, by name.
#[derive(Debug, Default)]
pub struct Kept {
    /// Trunks' machines.
    pub trunks: HashMap<TrunkName, TrunkSnapshot>,
    /// Nodes' machines.
    pub nodes: HashMap<NodeName, NodeSnapshot>,
    /// Operators' wishes.
    pub holds: Holds,
}

/// What operators hold back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds {
    /// Disabled trunks.
    pub trunks: HashMap<TrunkName, Hold>,
    /// Draining nodes.
    pub nodes: HashMap<NodeName, Hold>,
}

/// Since when, and why in the operator's words. Who it was is in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hold {
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Why.
    pub reason: Option<String>,
}

/// What changed, for log, metrics and store.
#[derive(Debug, Clone)]
pub enum News {
    /// A machine's state.
    Changed(Changed),
    /// A route fails open, or no longer.
    Panic(RoutePrefix, PanicChange),
    /// What is remembered of a trunk beyond its state: a suspension, a longer back-off.
    Noted(TrunkName),
    /// A trunk is no longer declared.
    TrunkGone(TrunkName),
    /// A node is no longer declared.
    NodeGone(NodeName),
}

/// Why a trunk is as it is, all of it.
#[derive(Debug, Clone)]
pub struct TrunkWhy {
    /// As declared.
    pub trunk: Trunk,
    /// Its own health.
    pub health: Why,
    /// Its node's.
    pub node: NodeWhy,
    /// How it stands for a call to no number in particular.
    pub standing: Result<Standing, Withheld>,
    /// What forbids its use, found by looking at its node's configuration.
    pub finding: Option<String>,
    /// An operator has disabled it.
    pub hold: Option<Hold>,
    /// An operator drains its node.
    pub node_hold: Option<Hold>,
    /// Attempts that hold a channel.
    pub channels: usize,
}

impl State {
    fn tell(&mut self, news: News) {
        if self.news.len() == NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }

    /// Returns whether calls that wait may go on, or must look elsewhere.
    pub(super) fn feed(&mut self, now: Instant, trunk: &TrunkName, event: &Event) -> (Charge, bool) {
        let suspended = |board: &Board| board.trunk(trunk).map(|t| t.suspended(now));
        let before = suspended(&self.board);
        let Some(Handled { charge, transition }) = self.board.handle(now, trunk, event, &mut self.rng) else {
            return (Charge::None, false);
        };
        // In probation, what a trial shows makes room for the next one.
        let trial = self.board.trunk(trunk).is_some_and(|t| t.state() == TrunkState::Probation);
        let moved = transition.is_some() || trial;
        if let Some(transition) = transition {
            self.tell(News::Changed(Changed::Trunk(trunk.clone(), transition)));
            let fleet = Arc::clone(&self.fleet);
            self.look_for_panic(now, fleet.routes_of(trunk));
        } else if suspended(&self.board) != before {
            self.tell(News::Noted(trunk.clone()));
        }
        (charge, moved)
    }

    pub(super) fn feed_node(&mut self, now: Instant, node: &NodeName, event: NodeEvent) -> bool {
        let Some(transition) = self.board.handle_node(now, node, event) else { return false };
        self.tell(News::Changed(Changed::Node(node.clone(), transition)));
        let fleet = Arc::clone(&self.fleet);
        let concerned: BTreeSet<_> = fleet
            .trunks_of(node)
            .flat_map(|trunk| fleet.routes_of(&trunk.name))
            .map(|route| &route.prefix)
            .collect();
        self.look_for_panic(now, concerned.into_iter().filter_map(|prefix| fleet.route(prefix)));
        true
    }

    /// Looks at the routes that may have changed: at thousands of trunks, all of them for each change would be the work of
    /// minutes when many change at once.
    fn look_for_panic<'f>(&mut self, now: Instant, routes: impl IntoIterator<Item = &'f Route>) {
        let fleet = Arc::clone(&self.fleet);
        let State { board, nodes, trunks, .. } = self;
        // A trunk without a session, or with a finding, serves no call however well it is.
        let can_serve = |trunk: &Trunk| {
            nodes.get(&trunk.node).is_some_and(|node| matches!(node.link, Link::Up { .. }))
                && trunks.get(&trunk.name).is_some_and(|trunk| matches!(trunk.checked, Some(Ok(()))))
        };
        for (route, change) in board.look_for_panic(now, &fleet, routes, can_serve) {
            self.tell(News::Panic(route, change));
        }
    }

    /// After another fleet is in force: machines for it, and what an earlier process or an operator said.
    pub(super) fn sync_health(&mut self, now: Instant) {
        let names = |board: &Board| -> (BTreeSet<_>, BTreeSet<_>) {
            (board.trunks().map(|t| t.0.clone()).collect(), board.nodes().map(|n| n.0.clone()).collect())
        };
        let (trunks, nodes) = names(&self.board);
        self.board.sync(&self.fleet, now);
        let (trunks_now, nodes_now) = names(&self.board);
        for gone in trunks.difference(&trunks_now) {
            self.kept.holds.trunks.remove(gone);
            self.tell(News::TrunkGone(gone.clone()));
        }
        for gone in nodes.difference(&nodes_now) {
            self.kept.holds.nodes.remove(gone);
            self.tell(News::NodeGone(gone.clone()));
        }
        for name in trunks_now.difference(&trunks) {
            if let Some(snapshot) = self.kept.trunks.remove(name) {
                self.board.restore_trunk(now, name, snapshot);
            }
            self.hold_trunk(now, name);
        }
        for name in nodes_now.difference(&nodes) {
            if let Some(snapshot) = self.kept.nodes.remove(name) {
                self.board.restore_node(now, name, snapshot);
            }
            self.hold_node(now, name);
        }
    }

    fn hold_trunk(&mut self, now: Instant, name: &TrunkName) -> bool {
        let held = self.kept.holds.trunks.contains_key(name);
        let is_held = self.board.trunk(name).is_some_and(|t| t.state() == TrunkState::Disabled);
        match (held, is_held) {
            (true, false) => self.feed(now, name, &Event::Disable).1,
            (false, true) => self.feed(now, name, &Event::Enable).1,
            (true, true) | (false, false) => false,
        }
    }

    fn hold_node(&mut self, now: Instant, name: &NodeName) -> bool {
        let held = self.kept.holds.nodes.contains_key(name);
        let is_held = self.board.node(name).is_some_and(health::NodeHealth::is_draining);
        if held != is_held {
            self.feed_node(now, name, if held { NodeEvent::Drain } else { NodeEvent::Undrain });
        }
        held != is_held
    }
}

impl Registry {
    /// What an earlier process knew: taken up as the names are declared.
    pub fn remember(&self, kept: Kept) {
        self.state().kept = kept;
    }

    /// What an operator holds back, from now on.
    pub fn hold(&self, now: Instant, holds: Holds) {
        let mut state = self.state();
        state.kept.holds = holds;
        let trunks: Vec<_> = state.board.trunks().map(|t| t.0.clone()).collect();
        let nodes: Vec<_> = state.board.nodes().map(|n| n.0.clone()).collect();
        let trunks = trunks.iter().fold(false, |any, name| state.hold_trunk(now, name) | any);
        let nodes = nodes.iter().fold(false, |any, name| state.hold_node(now, name) | any);
        self.told(state, trunks || nodes);
    }

    /// How many customers there are: with several, what only one of them meets trips nothing.
    pub fn set_customers(&self, customers: Customers) {
        self.state().board.set_customers(customers);
    }

    /// News of a trunk's contact or registration, confirmed by an answer.
    pub fn observed(&self, now: Instant, trunk: &TrunkName, event: &Event) {
        let mut state = self.state();
        let moved = state.feed(now, trunk, event).1;
        self.told(state, moved);
    }

    /// A call's first 180 or its answer.
    pub fn rang(&self, now: Instant, trunk: &TrunkName, to: &E164, began: Instant) {
        let destination = health::Destination::of(to);
        self.observed(now, trunk, &Event::Rang { destination, began });
    }

    /// A customer's call has ended on a trunk.
    pub fn call_ended(&self, now: Instant, trunk: &TrunkName, node: &NodeName, call: health::Call) -> Charge {
        self.ended(now, trunk, node, &Event::Ended(call))
    }

    /// Another replica's call has ended on a trunk: evidence for a trip. What is tripped, or on probation, goes by its own
    /// trials.
    pub fn ended_elsewhere(&self, now: Instant, trunk: &TrunkName, node: &NodeName, call: health::Call) {
        let state = self.state().board.trunk(trunk).map(health::TrunkHealth::state);
        match state {
            Some(TrunkState::Unknown | TrunkState::Healthy | TrunkState::Degraded) => {
                let _ = self.call_ended(now, trunk, node, call);
            }
            Some(TrunkState::Tripped | TrunkState::Probation | TrunkState::Disabled) | None => {}
        }
    }

    /// A canary has ended on a trunk.
    pub fn canary_ended(
        &self,
        now: Instant,
        trunk: &TrunkName,
        node: &NodeName,
        call: health::Call,
        met: Met,
    ) {
        self.ended(now, trunk, node, &Event::Canary(call, met));
    }

    fn ended(&self, now: Instant, trunk: &TrunkName, node: &NodeName, event: &Event) -> Charge {
        let mut state = self.state();
        let (charge, mut moved) = state.feed(now, trunk, event);
        match charge {
            Charge::Node => moved |= state.feed_node(now, node, NodeEvent::Fault),
            Charge::Pace => {
                if let Some(trunk) = state.trunks.get_mut(trunk) {
                    trunk.limits.window.slow_down(now, SLOW_FOR);
                }
            }
            Charge::None
            | Charge::Success
            | Charge::Delivered
            | Charge::Trunk
            | Charge::TrunkSilent
            | Charge::TrunkAtOnce
            | Charge::Credentials
            | Charge::DestinationOrCaller
            | Charge::Rate => {}
        }
        self.told(state, moved);
        charge
    }

    /// News of a node's wires.
    pub fn node_event(&self, now: Instant, node: &NodeName, event: NodeEvent) {
        let mut state = self.state();
        let moved = state.feed_node(now, node, event);
        self.told(state, moved);
    }

    /// When [`Self::time_passed`] wants to be called.
    #[must_use]
    pub fn health_due(&self) -> Option<Instant> {
        self.state().board.next_deadline()
    }

    /// Time has passed: back-offs end, silent nodes become lost, routes are looked at for panic.
    pub fn time_passed(&self, now: Instant) {
        let mut state = self.state();
        let State { board, rng, .. } = &mut *state;
        let changed = board.on_deadline(now, rng);
        let moved = !changed.is_empty();
        for change in changed {
            state.tell(News::Changed(change));
        }
        let fleet = Arc::clone(&state.fleet);
        state.look_for_panic(now, fleet.routes());
        self.told(state, moved);
    }

    /// Takes what changed since it was last asked, oldest first.
    #[must_use]
    pub fn news(&self) -> Vec<News> {
        self.state().news.drain(..).collect()
    }

    /// Waits until something changed.
    pub async fn has_news(&self) {
        self.news.notified().await;
    }

    /// After something was fed: wakes whoever tells, and calls that wait.
    fn told(&self, state: MutexGuard<'_, State>, moved: bool) {
        let has_news = !state.news.is_empty();
        drop(state);
        if has_news {
            self.news.notify_one();
        }
        if moved {
            self.nudge();
        }
    }

    /// The machine of a trunk as it would be stored.
    #[must_use]
    pub fn trunk_snapshot(&self, now: Instant, trunk: &TrunkName) -> Option<TrunkSnapshot> {
        self.state().board.trunk(trunk).map(|trunk| trunk.snapshot(now))
    }

    /// The machine of a node as it would be stored.
    #[must_use]
    pub fn node_snapshot(&self, now: Instant, node: &NodeName) -> Option<NodeSnapshot> {
        self.state().board.node(node).map(|node| node.snapshot(now))
    }

    /// Why a trunk is as it is. `None`: it is not declared.
    #[must_use]
    pub fn trunk_why(&self, now: Instant, name: &TrunkName) -> Option<TrunkWhy> {
        let state = self.state();
        let trunk = state.fleet.trunk(name)?.clone();
        let (node, health) = (state.board.node(&trunk.node)?.why(now), state.board.trunk(name)?.why(now));
        let standing = state.board.standing_for_any(now, &trunk);
        let finding = state.trunks.get(name).and_then(|t| t.checked.as_ref()?.as_ref().err().cloned());
        let hold = state.kept.holds.trunks.get(name).cloned();
        let node_hold = state.kept.holds.nodes.get(&trunk.node).cloned();
        let finding = finding.map(|finding| finding.text);
        let channels = state.trunks.get(name).map_or(0, |trunk| trunk.limits.channels.held());
        Some(TrunkWhy { trunk, health, node, standing, finding, hold, node_hold, channels })
    }

    /// Why a node is as it is, and an operator's hold on it. `None`: it is not declared.
    #[must_use]
    pub fn node_why(&self, now: Instant, name: &NodeName) -> Option<(NodeWhy, Option<Hold>)> {
        let state = self.state();
        Some((state.board.node(name)?.why(now), state.kept.holds.nodes.get(name).cloned()))
    }

    /// The routes that fail open, and for how long.
    #[must_use]
    pub fn panics(&self, now: Instant) -> Vec<(RoutePrefix, Duration)> {
        let state = self.state();
        let since = |at: Instant| now.saturating_duration_since(at);
        state.board.panics().iter().map(|(route, at)| (route.clone(), since(at))).collect()
    }

    /// Trunks whose probation waits for a canary.
    #[must_use]
    pub fn canaries_wanted(&self, now: Instant) -> Vec<TrunkName> {
        let state = self.state();
        state.board.trunks().filter(|(_, t)| t.wants_canary(now)).map(|(name, _)| name.clone()).collect()
    }
}
