//! What the control plane knows now: the declared fleet, each node's AMI session, each trunk's limits,
//! findings and health; and who takes the next attempt.
//!
//! In memory only, rebuilt within moments of a start. Behind one lock that is never held across an await:
//! a reservation looks at every trunk of one route and takes the chosen one's slots in the same breath, so
//! limits cannot be overrun by two calls that look at the same moment.

mod health;
mod regions;
mod reserve;
mod sight;
mod view;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::{
    fleet::Fleet,
    health::{Board, Event, NodeEvent, NodePolicy, Policy},
    ids::AttemptId,
    names::{CarrierName, NodeName, TrunkName},
    pacing::{Channels, Window},
    selection::Selector,
};
use node_agent_ami::{Incarnation, Session};
use node_agent_core::observe::DIALPLAN_FIX;
use rand::rngs::StdRng;
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

pub use self::{
    health::{Hold, Holds, Kept, News, TrunkWhy},
    reserve::{Assignment, NoCanary, Refused, Reserved},
    sight::{NodeSight, RouteSight, Sight, TrunkSight},
    view::{NodeView, TrunkView},
};

/// Attempts of unknown fate that a node may still carry. More than this many would be more calls than a
/// node holds.
const ABANDONED_MAX: usize = 10_000;
/// How long a given-up attempt is asked for at each look: "queued" comes before the channel does, and what a
/// kernel still holds of a cut connection may arrive late (Linux sends again for up to 15 minutes).
const ABANDONED_FOR: time::Duration = time::Duration::minutes(16);

/// How long a node is held to hear no keys since that was seen last: a flight record says it of one moment only, and
/// who looks at the node says it anew.
const DEAF_FOR: Duration = Duration::from_secs(10 * 60);

/// A node's AMI session, as far as it goes.
#[derive(Debug, Clone)]
pub enum Link {
    /// Not tried yet.
    Connecting,
    /// No session, and why.
    Down {
        /// In words, with what to do where that is known.
        reason: String,
    },
    /// Logged in, and checked.
    Up {
        /// The session.
        session: Session,
        /// Which run of Asterisk answers.
        incarnation: Incarnation,
        /// Since when, by the steady clock.
        since: std::time::Instant,
    },
}

/// Why a trunk is refused although its node is up: found by looking at the node's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was found, and what to do.
    pub text: String,
}

struct NodeState {
    link: Link,
    /// When it came up or went down.
    since: OffsetDateTime,
    /// Blocks of strangers' text seen in its sessions since this process started.
    tampering: u64,
    /// Given-up attempts and when, oldest first: hung up if their channel turns up.
    abandoned: VecDeque<(AttemptId, OffsetDateTime)>,
    /// Wakes the node's task to look at once.
    look: Arc<Notify>,
    /// Until then its dialplan is held to hear no keys.
    deaf_until: Option<Instant>,
}

impl NodeState {
    fn is_deaf(&self, now: Instant) -> bool {
        self.deaf_until.is_some_and(|until| now < until)
    }
}

struct Limits {
    window: Window,
    channels: Channels,
    /// Of a carrier: until then other replicas have all that its account may have.
    full_until: Option<std::time::Instant>,
}

struct TrunkState {
    limits: Limits,
    /// `None` until the node was looked at.
    checked: Option<Result<(), Finding>>,
}

struct State {
    fleet: Arc<Fleet>,
    revision: i64,
    nodes: BTreeMap<NodeName, NodeState>,
    trunks: HashMap<TrunkName, TrunkState>,
    carriers: HashMap<CarrierName, Limits>,
    selector: Selector,
    board: Board,
    /// For jitter.
    rng: StdRng,
    kept: Kept,
    news: VecDeque<News>,
    /// The latest canaries that have ended: no database knows them.
    canaries: VecDeque<AttemptId>,
}

/// See the module.
pub struct Registry {
    state: Mutex<State>,
    /// Wakes whoever tells of changes of health.
    news: Notify,
    /// Counts changes that may let a waiting call go on: a session up, a channel freed, a new fleet.
    changes: watch::Sender<u64>,
}

impl Registry {
    /// An empty fleet.
    #[must_use]
    pub fn new(rng: StdRng) -> Self {
        let state = State {
            fleet: Arc::default(),
            revision: 0,
            nodes: BTreeMap::new(),
            trunks: HashMap::new(),
            carriers: HashMap::new(),
            selector: Selector::default(),
            board: Board::new(Policy::default(), NodePolicy::default()),
            rng,
            kept: Kept::default(),
            news: VecDeque::new(),
            canaries: VecDeque::new(),
        };
        Self { state: Mutex::new(state), news: Notify::new(), changes: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed that a waiting call may go on by.
    pub(crate) fn nudge(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Tells of every change that may let a waiting call go on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The declared fleet and its revision.
    #[must_use]
    pub fn fleet(&self) -> (Arc<Fleet>, i64) {
        let state = self.state();
        (Arc::clone(&state.fleet), state.revision)
    }

    /// Puts a newly declared fleet in force. Limits change at once; what is in use stays counted; an older
    /// revision than the one in force is ignored.
    pub fn declare(&self, fleet: Fleet, revision: i64, now: OffsetDateTime) {
        let mut state = self.state();
        if revision <= state.revision && state.revision != 0 {
            return;
        }
        let state = &mut *state;
        state.nodes.retain(|name, _| fleet.node(name).is_some());
        for node in fleet.nodes() {
            state.nodes.entry(node.name.clone()).or_insert_with(|| NodeState {
                link: Link::Connecting,
                since: now,
                tampering: 0,
                abandoned: VecDeque::new(),
                look: Arc::default(),
                deaf_until: None,
            });
        }
        let mut all_moved = Vec::new();
        state.trunks.retain(|name, _| fleet.trunk(name).is_some());
        for trunk in fleet.trunks() {
            let entry = state.trunks.entry(trunk.name.clone()).or_insert_with(|| TrunkState {
                limits: Limits {
                    window: Window::new(trunk.cps_max),
                    channels: Channels::new(Some(trunk.channels_max)),
                    full_until: None,
                },
                checked: None,
            });
            entry.limits.window.set_max(trunk.cps_max);
            entry.limits.channels.set_max(Some(trunk.channels_max));
            let moved = state
                .fleet
                .trunk(&trunk.name)
                .is_none_or(|old| old.node != trunk.node || old.endpoint != trunk.endpoint);
            if moved {
                entry.checked = None;
                // At a start everything is new, and what was kept of it stays true.
                if state.fleet.trunk(&trunk.name).is_some() {
                    all_moved.push(trunk.name.clone());
                }
            }
        }
        state.carriers.retain(|name, _| fleet.carrier(name).is_some());
        for carrier in fleet.carriers() {
            let cps_max = carrier.cps_max.unwrap_or(u32::MAX);
            let entry = state.carriers.entry(carrier.name.clone()).or_insert_with(|| Limits {
                window: Window::new(cps_max),
                channels: Channels::new(carrier.channels_max),
                full_until: None,
            });
            entry.window.set_max(cps_max);
            entry.channels.set_max(carrier.channels_max);
        }
        state.fleet = Arc::new(fleet);
        state.revision = revision;
        let at = Instant::now().into_std();
        state.sync_health(at);
        // What was seen of it was seen elsewhere.
        for trunk in all_moved {
            state.feed(at, &trunk, &Event::NotQualified);
            state.feed(at, &trunk, &Event::NotRegistering);
        }
        self.news.notify_one();
        self.nudge();
    }

    /// A node's session is up; its trunks were looked at. Returns the attempts that were given up on it and
    /// may live on: the caller hangs them up.
    pub fn node_up(
        &self,
        node: &NodeName,
        session: Session,
        incarnation: Incarnation,
        checked: Vec<(TrunkName, Result<(), Finding>)>,
        now: OffsetDateTime,
    ) -> Vec<AttemptId> {
        let mut state = self.state();
        let state = &mut *state;
        for (trunk, result) in checked {
            if let Some(trunk) = state.trunks.get_mut(&trunk) {
                trunk.checked = Some(result);
            }
        }
        let Some(entry) = state.nodes.get_mut(node) else { return Vec::new() };
        if !matches!(entry.link, Link::Up { .. }) {
            entry.since = now;
        }
        entry.link = Link::Up { session, incarnation, since: Instant::now().into_std() };
        while entry.abandoned.front().is_some_and(|(_, since)| now - *since > ABANDONED_FOR) {
            entry.abandoned.pop_front();
        }
        let abandoned = entry.abandoned.iter().map(|(attempt, _)| attempt.clone()).collect();
        state.feed_node(Instant::now().into_std(), node, NodeEvent::AmiUp);
        self.news.notify_one();
        self.nudge();
        abandoned
    }

    /// A node's session is gone or cannot be had.
    pub fn node_down(&self, node: &NodeName, reason: String, now: OffsetDateTime) {
        let mut state = self.state();
        if let Some(entry) = state.nodes.get_mut(node) {
            if !matches!(entry.link, Link::Down { .. }) {
                entry.since = now;
            }
            entry.link = Link::Down { reason };
        }
        state.feed_node(Instant::now().into_std(), node, NodeEvent::AmiDown);
        drop(state);
        self.news.notify_one();
        self.nudge();
    }

    /// Strangers' text was seen in one of the node's sessions.
    pub fn tampered(&self, node: &NodeName) {
        if let Some(entry) = self.state().nodes.get_mut(node) {
            entry.tampering += 1;
        }
    }

    /// What was seen of a node's dialplan: whether it hears keys.
    pub fn hears_keys(&self, node: &NodeName, hears: bool) {
        let mut state = self.state();
        let Some(entry) = state.nodes.get_mut(node) else { return };
        let was_deaf = entry.is_deaf(Instant::now());
        entry.deaf_until = (!hears).then(|| Instant::now() + DEAF_FOR);
        drop(state);
        if !hears && !was_deaf {
            tracing::warn!(%node, fix = DIALPLAN_FIX, "the node's dialplan hears no keys");
        }
    }

    /// The node's session, if it is up.
    #[must_use]
    pub fn session(&self, node: &NodeName) -> Option<(Session, Incarnation)> {
        match &self.state().nodes.get(node)?.link {
            Link::Up { session, incarnation, .. } if session.close_reason().is_none() => {
                Some((session.clone(), incarnation.clone()))
            }
            Link::Up { .. } | Link::Down { .. } | Link::Connecting => None,
        }
    }

    /// Since when the node's session is up, if it is.
    #[must_use]
    pub fn session_since(&self, node: &NodeName) -> Option<std::time::Instant> {
        match &self.state().nodes.get(node)?.link {
            Link::Up { session, since, .. } => session.close_reason().is_none().then_some(*since),
            Link::Down { .. } | Link::Connecting => None,
        }
    }

    /// What wakes the node's task to look at its trunks, and for given-up attempts, at once.
    #[must_use]
    pub fn look(&self, node: &NodeName) -> Option<Arc<Notify>> {
        self.state().nodes.get(node).map(|entry| Arc::clone(&entry.look))
    }

    /// A given-up attempt's channel was found and is being hung up, or is known not to come.
    pub fn found(&self, node: &NodeName, attempt: &AttemptId) {
        if let Some(entry) = self.state().nodes.get_mut(node) {
            entry.abandoned.retain(|(abandoned, _)| abandoned != attempt);
        }
    }

    /// The node's agent saw a channel of an attempt that has ended: it is hung up, if it is not looked for already.
    pub fn left(&self, node: &NodeName, attempt: AttemptId, now: OffsetDateTime) {
        let is_known = |entry: &NodeState| entry.abandoned.iter().any(|(known, _)| *known == attempt);
        if !self.state().nodes.get(node).is_some_and(is_known) {
            self.abandon(node, attempt, now);
        }
    }

    /// An attempt's fate was decided without knowing it: if its channel lives, or turns up on the node
    /// later, it is hung up.
    pub fn abandon(&self, node: &NodeName, attempt: AttemptId, now: OffsetDateTime) {
        if let Some(entry) = self.state().nodes.get_mut(node) {
            if entry.abandoned.len() == ABANDONED_MAX {
                entry.abandoned.pop_front();
            }
            entry.abandoned.push_back((attempt, now));
            entry.look.notify_one();
        }
    }
}
