//! The links that nodes hold to this replica: what each was last seen to be, and ways to ask it something.
//!
//! In memory, behind one lock that is never held across an await. A node has one link here; a newer takes the
//! place of an older one. What was last observed stays readable after the link is gone, with its age.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::{
    fleet::Fleet,
    ids::{AttemptId, StreamId},
    names::NodeName,
};
use node_agent_protocol::{BarAnswer, Capability, Down, Hello, Observations};
use time::OffsetDateTime;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use crate::clock::{Chance, Clock};

/// Messages to one node that wait for its link to take them. Beyond it whoever asks waits, and gives up.
const DOWN_MAX: usize = 256;
/// How long an answer to `bar` is waited for; within the call's `reconcile_timeout`.
const BAR_MAX: Duration = Duration::from_secs(2);
/// How long the agent may take to dial an AMI stream.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// Attempts of one node whose bar is being asked for at a time.
const BARS_MAX: usize = 4_096;
/// AMI streams that were asked for and not dialled yet, of all nodes.
const AWAITED_MAX: usize = 1_024;

/// Bytes of AMI, either way.
pub type AmiStream = DuplexStream;

/// SHA-256 of a certificate.
type Fingerprint = [u8; 32];

/// Why there is no AMI stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenAmiError {
    /// The node has no link to this replica.
    #[error("its agent is not linked")]
    NotLinked,
    /// Its agent is of a version without AMI streams.
    #[error("its agent carries no AMI (it lacks the capability `ami`): update it")]
    Lacking,
    /// Its agent said why not.
    #[error("its agent answers: {0}")]
    Refused(String),
    /// It was asked, and neither dialled nor answered.
    #[error("its agent did not open an AMI stream in time")]
    TimedOut,
    /// Too many are waited for.
    #[error("too many AMI streams are being opened")]
    Busy,
}

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
    /// Counts revocations; every connection of the node listens.
    revocations: watch::Sender<u64>,
    connections: HashMap<u64, Fingerprint>,
    bars: HashMap<AttemptId, Vec<oneshot::Sender<BarAnswer>>>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            held: None,
            seen: None,
            revocations: watch::Sender::new(0),
            connections: HashMap::new(),
            bars: HashMap::new(),
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

impl State {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn held(&mut self, node: &NodeName, id: u64) -> Option<(&mut Held, &mut Option<Seen>)> {
        let Entry { held, seen, .. } = self.nodes.get_mut(node)?;
        Some((held.as_mut().filter(|held| held.id == id)?, seen))
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
    changes: watch::Sender<u64>,
    declared: watch::Sender<Declared>,
    stopping: watch::Sender<bool>,
    clock: Clock,
    chance: Chance,
}

/// What a link's task holds: the node's link is this one until it is dropped or replaced.
pub(super) struct Membership {
    links: Arc<Links>,
    node: NodeName,
    id: u64,
    pub(super) down: mpsc::Receiver<Down>,
    pub(super) replaced: oneshot::Receiver<()>,
}

/// What every connection of a node holds: it ends when the node is revoked.
pub(crate) struct Admission {
    links: Arc<Links>,
    node: NodeName,
    id: u64,
    revocations: watch::Receiver<u64>,
}

impl Links {
    pub(super) fn new(clock: Clock, chance: Chance) -> Self {
        Self {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            declared: watch::Sender::new(Declared::default()),
            stopping: watch::Sender::new(false),
            clock,
            chance,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nudge(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Tells of every link that comes or goes and of every snapshot.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Puts a fleet in force: linked nodes get their policy, those not declared any more lose their link.
    pub fn declare(&self, fleet: Arc<Fleet>, revision: i64) {
        self.state().nodes.retain(|node, entry| {
            fleet.node(node).is_some() || entry.held.is_some() || !entry.connections.is_empty()
        });
        self.declared.send_replace(Declared { fleet, revision });
    }

    pub(super) fn declared(&self) -> watch::Receiver<Declared> {
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

    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
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

    /// Waits until the node is linked; `false` if it is not within `limit`.
    pub async fn linked(&self, node: &NodeName, limit: Duration) -> bool {
        let mut changes = self.changes();
        let is_linked = || self.state().nodes.get(node).is_some_and(|entry| entry.held.is_some());
        let linked = async {
            while !is_linked() {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(limit, linked).await.is_ok()
    }

    /// Asks the node's gate to let no Originate of this attempt through. Without a link, an answer in time, or
    /// an agent that can, it is unknown.
    pub async fn bar(&self, node: &NodeName, attempt: &AttemptId) -> BarAnswer {
        let (reply, answer) = oneshot::channel();
        let down = {
            let mut state = self.state();
            let Some(entry) = state.nodes.get_mut(node) else { return BarAnswer::Unknown };
            let Some(held) = &entry.held else { return BarAnswer::Unknown };
            entry.bars.retain(|_, waiting| {
                waiting.retain(|w| !w.is_closed());
                !waiting.is_empty()
            });
            if !held.state.hello.capabilities.has(Capability::Bar) || entry.bars.len() >= BARS_MAX {
                return BarAnswer::Unknown;
            }
            entry.bars.entry(attempt.clone()).or_default().push(reply);
            held.down.clone()
        };
        let asked = async {
            down.send(Down::Bar { attempt: attempt.clone() }).await.ok()?;
            answer.await.ok()
        };
        timeout(BAR_MAX, asked).await.ok().flatten().unwrap_or(BarAnswer::Unknown)
    }

    /// Has the node's agent dial an AMI stream. The stream ends with the node's admission.
    ///
    /// # Errors
    /// [`OpenAmiError`], each for people to read.
    pub async fn open_ami(&self, node: &NodeName) -> Result<AmiStream, OpenAmiError> {
        let stream_id = self.chance.stream_id();
        let (dialled, stream) = oneshot::channel();
        let down = {
            let mut state = self.state();
            let held = state.nodes.get(node).and_then(|entry| entry.held.as_ref());
            let held = held.ok_or(OpenAmiError::NotLinked)?;
            if !held.state.hello.capabilities.has(Capability::Ami) {
                return Err(OpenAmiError::Lacking);
            }
            let down = held.down.clone();
            state.awaited.retain(|_, awaited| !awaited.dialled.is_closed());
            if state.awaited.len() >= AWAITED_MAX {
                return Err(OpenAmiError::Busy);
            }
            state.awaited.insert(stream_id.clone(), Awaited { node: node.clone(), dialled });
            down
        };
        let open = async {
            let asked = down.send(Down::OpenAmi { stream_id: stream_id.clone() }).await;
            asked.map_err(|_| OpenAmiError::NotLinked)?;
            stream.await.map_err(|_| OpenAmiError::NotLinked)?
        };
        let opened = timeout(DIAL_MAX, open).await.unwrap_or(Err(OpenAmiError::TimedOut));
        self.state().awaited.remove(&stream_id);
        opened
    }

    /// The agent dialled: gives the stream to who asked for it. `None`: nobody did, or not of this node.
    pub(crate) fn dialled(&self, node: &NodeName, stream_id: &StreamId) -> Option<DialledFor> {
        let mut state = self.state();
        if state.awaited.get(stream_id).is_none_or(|awaited| awaited.node != *node) {
            return None;
        }
        state.awaited.remove(stream_id).map(|awaited| DialledFor(awaited.dialled))
    }

    pub(super) fn ami_refused(&self, node: &NodeName, stream_id: &StreamId, reason: &str) {
        if let Some(DialledFor(asked)) = self.dialled(node, stream_id) {
            // Who asked may have given up.
            let _ = asked.send(Err(OpenAmiError::Refused(reason.to_owned())));
        }
    }

    /// Counts a connection in, so that a revocation finds it.
    pub(crate) fn admit(self: &Arc<Self>, node: &NodeName, fingerprint: Fingerprint) -> Admission {
        let mut state = self.state();
        let id = state.id();
        let entry = state.nodes.entry(node.clone()).or_default();
        entry.connections.insert(id, fingerprint);
        let revocations = entry.revocations.subscribe();
        Admission { links: Arc::clone(self), node: node.clone(), id, revocations }
    }

    /// Makes this the node's link. One that it held before ends.
    pub(super) fn join(self: &Arc<Self>, node: &NodeName, hello: Hello) -> Membership {
        let (down, receiver) = mpsc::channel(DOWN_MAX);
        let (replacing, replaced) = oneshot::channel();
        let link =
            LinkState { hello: Arc::new(hello), since: self.clock.now(), unknown_messages: 0, facts: 0 };
        let mut state = self.state();
        let id = state.id();
        let entry = state.nodes.entry(node.clone()).or_default();
        entry.bars.clear();
        entry.held = Some(Held { id, down, state: link, revision: 0, _replaced: replacing });
        drop(state);
        self.nudge();
        Membership { links: Arc::clone(self), node: node.clone(), id, down: receiver, replaced }
    }

    /// Cuts every connection of a node, now.
    pub fn cut(&self, node: &NodeName) {
        if let Some(entry) = self.state().nodes.get(node) {
            entry.revocations.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Cuts the connections of nodes that hold one of these certificates: another replica revoked them.
    pub(super) fn cut_certificates(&self, revoked: &HashSet<Fingerprint>) {
        for entry in self.state().nodes.values() {
            if entry.connections.values().any(|held| revoked.contains(held)) {
                entry.revocations.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
    }
}

/// Who asked for a stream that was dialled.
pub(crate) struct DialledFor(oneshot::Sender<Result<AmiStream, OpenAmiError>>);

impl DialledFor {
    /// Gives it. `false`: nobody waits any more.
    pub(super) fn give(self, stream: AmiStream) -> bool {
        self.0.send(Ok(stream)).is_ok()
    }
}

impl Membership {
    /// Whose it is.
    pub(super) fn node(&self) -> &NodeName {
        &self.node
    }

    /// A snapshot came. An older one than the last is ignored.
    pub(super) fn observed(&self, observations: Observations) {
        let now = Instant::now();
        let wall_ms = i64::try_from(self.links.clock.now().unix_timestamp_nanos() / 1_000_000);
        let clock_offset_ms = observations.sent_at_unix_ms.saturating_sub(wall_ms.unwrap_or(0));
        let age = Duration::from_millis(observations.taken_ms_ago);
        let taken = now.checked_sub(age).unwrap_or(now);
        let mut state = self.links.state();
        let Some((held, seen)) = state.held(&self.node, self.id) else { return };
        if observations.revision < held.revision {
            return;
        }
        held.revision = observations.revision;
        *seen = Some(Seen { observations: Arc::new(observations), taken, clock_offset_ms });
        drop(state);
        self.links.nudge();
    }

    pub(super) fn skipped(&self) {
        if let Some((held, _)) = self.links.state().held(&self.node, self.id) {
            held.state.unknown_messages += 1;
        }
    }

    pub(super) fn kept(&self, facts: u64) {
        if let Some((held, _)) = self.links.state().held(&self.node, self.id) {
            held.state.facts += facts;
        }
    }

    pub(super) fn barred(&self, attempt: &AttemptId, answer: BarAnswer) {
        let mut state = self.links.state();
        let waiting = state.nodes.get_mut(&self.node).and_then(|entry| entry.bars.remove(attempt));
        for reply in waiting.into_iter().flatten() {
            // Who asked may have given up.
            let _ = reply.send(answer);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.links.state();
        let Some(entry) = state.nodes.get_mut(&self.node) else { return };
        if entry.held.as_ref().is_some_and(|held| held.id == self.id) {
            entry.held = None;
            entry.bars.clear();
            drop(state);
            self.links.nudge();
        }
    }
}

impl Admission {
    /// Whose it is.
    pub(crate) fn node(&self) -> &NodeName {
        &self.node
    }

    /// Waits until the node is revoked. Cancel-safe.
    pub(super) async fn revoked(&mut self) {
        // The sender lives as long as the node's entry, which this connection keeps.
        let _ = self.revocations.changed().await;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(entry) = self.links.state().nodes.get_mut(&self.node) {
            entry.connections.remove(&self.id);
        }
    }
}
