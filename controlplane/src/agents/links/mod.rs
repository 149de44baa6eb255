//! The links that nodes hold to this replica: what each was last seen to be, and ways to ask it something.
//!
//! In memory, behind one lock that is never held across an await. A node has one link here; a newer takes the
//! place of an older one. What was last observed stays readable after the link is gone, with its age.

mod asking;
mod connection;
mod ends;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::{
    fleet::Fleet,
    ids::{AttemptId, StreamId},
    names::NodeName,
    sound::SoundHash,
};
use controlplane_store::agents::NodeCertificate;
use node_agent_protocol::{BarAnswer, Down, Hello, Observations, sounds::Wanted};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

pub use self::asking::{AmiStream, OpenAmiError};
pub(super) use self::connection::{Membership, Over};
pub(crate) use self::{
    asking::{BAR_MAX, DialledFor, PlaceAudioError},
    connection::Admission,
};
use crate::clock::{Chance, Clock};

/// Messages to one node that wait for its link to take them. Beyond it whoever asks waits, and gives up.
const DOWN_MAX: usize = 256;

/// SHA-256 of a certificate.
type Fingerprint = [u8; 32];

/// The latest snapshot of a node.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What the agent saw.
    pub observations: Arc<Observations>,
    /// When it was taken, by this process' steady clock.
    pub taken: Instant,
    /// The node's wall clock less ours, in ms, to within the time that the message took.
    pub clock_offset_ms: i64,
}

/// A link as it stands.
#[derive(Debug, Clone)]
pub struct LinkState {
    /// What the agent said of itself.
    pub hello: Arc<Hello>,
    /// Since when.
    pub since: OffsetDateTime,
    /// Messages of kinds that this version does not know.
    pub unknown_messages: u64,
    /// Facts that came in on it and are durable.
    pub facts: u64,
}

/// What is known of one node's agent.
#[derive(Debug, Clone)]
pub struct AgentState {
    /// Its link to this replica, if there is one.
    pub link: Option<LinkState>,
    /// What it last saw.
    pub seen: Option<Seen>,
}

/// Who waits for a sound to be placed, and is told how that went.
type Placed = oneshot::Sender<Result<(), String>>;

struct Held {
    id: u64,
    down: mpsc::Sender<Down>,
    state: LinkState,
    /// Of the last snapshot on this link; they begin anew with each.
    revision: u64,
    /// Ends it because another took its place.
    _replaced: oneshot::Sender<()>,
}

struct Entry {
    held: Option<Held>,
    seen: Option<Seen>,
    /// Counts what came of it: its link up or down, its snapshots.
    news: watch::Sender<u64>,
    /// Counts revocations; every connection of the node listens.
    revocations: watch::Sender<u64>,
    connections: HashMap<u64, Fingerprint>,
    bars: HashMap<AttemptId, Vec<oneshot::Sender<BarAnswer>>>,
    /// Sounds that it was asked to place.
    placing: HashMap<(SoundHash, Wanted), Vec<Placed>>,
    /// Sounds that it said it has, and when.
    placed: HashMap<SoundHash, Instant>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            held: None,
            seen: None,
            news: watch::Sender::new(0),
            revocations: watch::Sender::new(0),
            connections: HashMap::new(),
            bars: HashMap::new(),
            placing: HashMap::new(),
            placed: HashMap::new(),
        }
    }
}

/// A stream that the agent was asked to dial.
struct Awaited {
    node: NodeName,
    dialled: oneshot::Sender<Result<AmiStream, OpenAmiError>>,
}

#[derive(Default)]
struct State {
    nodes: HashMap<NodeName, Entry>,
    awaited: HashMap<StreamId, Awaited>,
    next_id: u64,
}

impl Entry {
    fn tell(&self) {
        self.news.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl State {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn held(&mut self, node: &NodeName, id: u64) -> Option<(&mut Held, &mut Option<Seen>)> {
        let Entry { held, seen, .. } = self.nodes.get_mut(node)?;
        Some((held.as_mut().filter(|held| held.id == id)?, seen))
    }

    fn tell(&self, node: &NodeName) {
        if let Some(entry) = self.nodes.get(node) {
            entry.tell();
        }
    }
}

/// The fleet in force, for policies and for who may be linked.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared {
    pub(super) fleet: Arc<Fleet>,
    pub(super) revision: i64,
}

/// See the module.
pub struct Links {
    state: Mutex<State>,
    declared: watch::Sender<Declared>,
    stopping: watch::Sender<bool>,
    clock: Clock,
    chance: Chance,
}

impl Links {
    pub(in crate::agents) fn new(clock: Clock, chance: Chance) -> Self {
        Self {
            state: Mutex::default(),
            declared: watch::Sender::new(Declared::default()),
            stopping: watch::Sender::new(false),
            clock,
            chance,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every coming and going of the node's link, and of every snapshot.
    #[must_use]
    pub fn news(&self, node: &NodeName) -> watch::Receiver<u64> {
        self.state().nodes.entry(node.clone()).or_default().news.subscribe()
    }

    /// Puts a fleet in force: linked nodes get their policy, those not declared any more lose their link.
    pub fn declare(&self, fleet: Arc<Fleet>, revision: i64) {
        self.state().nodes.retain(|node, entry| {
            fleet.node(node).is_some()
                || entry.held.is_some()
                || !entry.connections.is_empty()
                || entry.news.receiver_count() > 0
        });
        self.declared.send_replace(Declared { fleet, revision });
    }

    pub(in crate::agents) fn declared(&self) -> watch::Receiver<Declared> {
        self.declared.subscribe()
    }

    /// Whether the fleet has this node.
    #[must_use]
    pub fn is_declared(&self, node: &NodeName) -> bool {
        self.declared.borrow().fleet.node(node).is_some()
    }

    /// Ends every link: the program stops.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(in crate::agents) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// What is known of a node's agent.
    #[must_use]
    pub fn agent(&self, node: &NodeName) -> AgentState {
        let state = self.state();
        let entry = state.nodes.get(node);
        AgentState {
            link: entry.and_then(|e| e.held.as_ref()).map(|held| held.state.clone()),
            seen: entry.and_then(|e| e.seen.clone()),
        }
    }

    /// Whether the node has a link to this replica now.
    #[must_use]
    pub fn is_linked(&self, node: &NodeName) -> bool {
        self.state().nodes.get(node).is_some_and(|entry| entry.held.is_some())
    }

    /// Waits until the node is linked; `false` if it is not within `limit`.
    pub async fn linked(&self, node: &NodeName, limit: Duration) -> bool {
        let mut news = self.news(node);
        let linked = async {
            while !self.is_linked(node) {
                if news.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(limit, linked).await.is_ok()
    }

    /// Counts a connection in, so that a revocation finds it.
    pub(crate) fn admit(self: &Arc<Self>, certificate: &NodeCertificate) -> Admission {
        let NodeCertificate { node, fingerprint, expires_at, .. } = certificate;
        let mut state = self.state();
        let id = state.id();
        let entry = state.nodes.entry(node.clone()).or_default();
        entry.connections.insert(id, *fingerprint);
        let revocations = entry.revocations.subscribe();
        Admission { links: Arc::clone(self), node: node.clone(), id, revocations, expires_at: *expires_at }
    }

    /// Makes this the node's link. One that it held before ends.
    pub(in crate::agents) fn join(self: &Arc<Self>, node: &NodeName, hello: Hello) -> Membership {
        let (down, receiver) = mpsc::channel(DOWN_MAX);
        let (replacing, replaced) = oneshot::channel();
        let link =
            LinkState { hello: Arc::new(hello), since: self.clock.now(), unknown_messages: 0, facts: 0 };
        let mut state = self.state();
        let id = state.id();
        let entry = state.nodes.entry(node.clone()).or_default();
        entry.forget_questions();
        entry.held = Some(Held { id, down, state: link, revision: 0, _replaced: replacing });
        entry.tell();
        drop(state);
        Membership { links: Arc::clone(self), node: node.clone(), id, down: receiver, replaced }
    }

    /// Cuts every connection of a node, now.
    pub fn cut(&self, node: &NodeName) {
        if let Some(entry) = self.state().nodes.get(node) {
            entry.revocations.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Cuts the connections of nodes that hold one of these certificates: another replica revoked them.
    pub(in crate::agents) fn cut_certificates(&self, revoked: &HashSet<Fingerprint>) {
        for entry in self.state().nodes.values() {
            if entry.connections.values().any(|held| revoked.contains(held)) {
                entry.revocations.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
    }
}
