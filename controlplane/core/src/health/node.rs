//! A node's liveness.
//!
//! ```text
//!                 held for a while                 AMI down for long, or nothing at all is heard
//!  Suspect ──────────────────────────▶ Alive ──▶ Suspect ──────────────────────────────▶ Lost
//!     ▲ begins here                      heartbeats late, AMI down, faults of its own       │
//!     └──────────────────────────────────────────── AMI up again ───────────────────────────┘
//!
//!  Draining is an operator's wish beside it: no new calls, those that live go on.
//! ```
//!
//! Two witnesses, since one may be blind: the agent's link with its heartbeats, and the AMI session. AMI
//! without heartbeats is a node that carries calls and whose agent is dead; heartbeats without AMI is a
//! restarting Asterisk. Faults of its own (a name that does not resolve) are charged here, so that they
//! do not trip its carriers' trunks; they make it suspect, never lost, for some of its calls may pass.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    Lack, NodeEvidence, NodePolicy,
    evidence::{History, Kept, Transition},
    moment::{Clock, Moment, millis},
};
use crate::call::{UnknownWord, words};

words! {
    /// A node's state, in JSON, logs and metrics.
    NodeState {
        /// It answers and carries calls.
        Alive = "alive",
        /// Something is missing: used after others.
        Suspect = "suspect",
        /// No call can be sent by it. Never used, in panic neither.
        Lost = "lost",
    }
}

/// Whether a node has an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// It has: two witnesses.
    Agent,
    /// It is reached by AMI alone.
    Agentless,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeEvent {
    /// The agent's link is up.
    LinkUp,
    /// It is down.
    LinkDown,
    /// A snapshot has come.
    Heartbeat,
    /// The AMI session is logged in and fully booted.
    AmiUp,
    /// It is down, or Asterisk says that it shuts down (confirmed).
    AmiDown,
    /// A call failed by the node's fault: [`super::Charge::Node`].
    Fault,
    /// An operator drains it.
    Drain,
    /// An operator takes that back.
    Undrain,
}

/// Up or down, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Wire {
    Up(Moment),
    Down(Moment),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inner {
    kind: NodeKind,
    pub(super) state: NodeState,
    pub(super) since: Moment,
    pub(super) lack: Lack,
    link: Wire,
    ami: Wire,
    heartbeat: Moment,
    /// Since when nothing is missing.
    well_since: Option<Moment>,
    faults: VecDeque<Moment>,
    pub(super) draining: bool,
    pub(super) history: History<NodeState, NodeEvidence>,
}

impl Inner {
    fn unheard(kind: NodeKind, since: Moment) -> Self {
        Self {
            kind,
            state: NodeState::Suspect,
            since,
            lack: Lack::NeverHeard,
            link: Wire::Down(since),
            ami: Wire::Down(since),
            heartbeat: since,
            well_since: None,
            faults: VecDeque::new(),
            draining: false,
            history: History::default(),
        }
    }
}

/// The machine.
#[derive(Debug, Clone)]
pub struct NodeHealth {
    pub(super) clock: Clock,
    policy: NodePolicy,
    pub(super) inner: Inner,
}

impl NodeHealth {
    /// A node of which nothing is known.
    #[must_use]
    pub fn new(now: Instant, kind: NodeKind, policy: NodePolicy) -> Self {
        let clock = Clock::new(now);
        Self { clock, policy, inner: Inner::unheard(kind, clock.moment(now)) }
    }

    /// After a restart nothing was heard of it yet: what it had is its past, its faults and whether it is
    /// drained.
    pub(super) fn resumed(now: Instant, clock: Clock, policy: NodePolicy, before: Inner) -> Self {
        let Inner { kind, faults, draining, history, .. } = before;
        let inner = Inner { faults, draining, history, ..Inner::unheard(kind, clock.moment(now)) };
        Self { clock, policy, inner }
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> NodeState {
        self.inner.state
    }

    /// Whether it has an agent.
    #[must_use]
    pub const fn kind(&self) -> NodeKind {
        self.inner.kind
    }

    /// The operator has given it an agent, or taken it away.
    pub fn set_kind(&mut self, kind: NodeKind) {
        self.inner.kind = kind;
    }

    /// Whether an operator drains it.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        self.inner.draining
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Instant, event: NodeEvent) -> Option<Transition<NodeState, NodeEvidence>> {
        let at = self.clock.moment(now);
        let inner = &mut self.inner;
        match event {
            NodeEvent::LinkUp => {
                inner.link = Wire::Up(at);
                inner.heartbeat = at;
            }
            NodeEvent::LinkDown => inner.link = down(inner.link, at),
            NodeEvent::Heartbeat => {
                // A heartbeat proves its link, whatever order the news came in.
                if matches!(inner.link, Wire::Down(_)) {
                    inner.link = Wire::Up(at);
                }
                inner.heartbeat = at;
            }
            NodeEvent::AmiUp => inner.ami = Wire::Up(at),
            NodeEvent::AmiDown => inner.ami = down(inner.ami, at),
            NodeEvent::Fault => {
                if inner.faults.len() >= self.policy.faults_max.max(1) {
                    inner.faults.pop_front();
                }
                inner.faults.push_back(at);
            }
            NodeEvent::Drain => inner.draining = true,
            NodeEvent::Undrain => inner.draining = false,
        }
        self.weigh(at, now)
    }

    /// Time has passed (calling it early does nothing).
    pub fn on_deadline(&mut self, now: Instant) -> Option<Transition<NodeState, NodeEvidence>> {
        self.weigh(self.clock.moment(now), now)
    }

    /// What is missing at a moment, and since when.
    fn lack(&self, at: Moment) -> (Lack, Moment) {
        let inner = &self.inner;
        let late = inner.heartbeat.after(self.policy.heartbeat_max);
        match (inner.ami, inner.kind, inner.link) {
            (Wire::Down(since), _, _) => (Lack::AmiDown, since),
            (Wire::Up(_), NodeKind::Agent, Wire::Down(since)) => (Lack::LinkDown, since),
            (Wire::Up(_), NodeKind::Agent, Wire::Up(_)) if late <= at => {
                (Lack::HeartbeatLate, inner.heartbeat)
            }
            (Wire::Up(_), NodeKind::Agent, Wire::Up(_)) | (Wire::Up(_), NodeKind::Agentless, _) => {
                match self.faults_end().filter(|end| at < *end) {
                    Some(_) => (Lack::Faults, inner.faults.front().copied().unwrap_or(at)),
                    None => (Lack::Nothing, at),
                }
            }
        }
    }

    /// Until when faults make it suspect: they were so many within the window, and the last is not that old.
    fn faults_end(&self) -> Option<Moment> {
        let (first, last) = (self.inner.faults.front()?, self.inner.faults.back()?);
        let many = self.inner.faults.len() >= self.policy.faults_max.max(1)
            && last.since(*first) <= self.policy.faults_window;
        many.then(|| last.after(self.policy.faults_window))
    }

    fn is_lost(&self, at: Moment) -> bool {
        let Wire::Down(since) = self.inner.ami else { return false };
        // No AMI and no agent: nothing at all is heard, and waiting would only cost calls. At the start
        // everything is down, and gets its time.
        let silent = self.inner.lack != Lack::NeverHeard
            && match (self.inner.kind, self.inner.link) {
                (NodeKind::Agent, Wire::Down(_)) => true,
                (NodeKind::Agent, Wire::Up(_)) => self.inner.heartbeat.after(self.policy.heartbeat_max) <= at,
                (NodeKind::Agentless, _) => false,
            };
        silent || at.since(since) >= self.policy.lost_after
    }

    fn weigh(&mut self, at: Moment, now: Instant) -> Option<Transition<NodeState, NodeEvidence>> {
        let (lack, since) = self.lack(at);
        let heard = !(lack == Lack::AmiDown
            && self.inner.lack == Lack::NeverHeard
            && matches!(self.inner.link, Wire::Down(_)));
        self.inner.well_since = match lack {
            Lack::Nothing => self.inner.well_since.or(Some(at)),
            Lack::NeverHeard
            | Lack::AmiDown
            | Lack::LinkDown
            | Lack::HeartbeatLate
            | Lack::Faults
            | Lack::Settling => None,
        };
        let settled = self.inner.well_since.is_some_and(|w| at.since(w) >= self.policy.steady_min);
        let (to, lack) = match (self.inner.state, lack) {
            (NodeState::Alive, Lack::Nothing) => (NodeState::Alive, Lack::Nothing),
            (NodeState::Suspect | NodeState::Lost, Lack::Nothing) if settled => {
                (NodeState::Alive, Lack::Nothing)
            }
            (NodeState::Suspect | NodeState::Lost, Lack::Nothing) => (NodeState::Suspect, Lack::Settling),
            (NodeState::Alive | NodeState::Suspect | NodeState::Lost, Lack::AmiDown) if self.is_lost(at) => {
                (NodeState::Lost, Lack::AmiDown)
            }
            // Once lost, only AMI makes it less so.
            (NodeState::Lost, Lack::AmiDown) => (NodeState::Lost, Lack::AmiDown),
            (NodeState::Alive | NodeState::Suspect, Lack::AmiDown) if !heard => {
                (NodeState::Suspect, Lack::NeverHeard)
            }
            (
                NodeState::Alive | NodeState::Suspect | NodeState::Lost,
                lack @ (Lack::AmiDown
                | Lack::LinkDown
                | Lack::HeartbeatLate
                | Lack::Faults
                | Lack::NeverHeard
                | Lack::Settling),
            ) => (NodeState::Suspect, lack),
        };
        self.inner.lack = lack;
        let from = self.inner.state;
        if from == to {
            return None;
        }
        let evidence = NodeEvidence { lack, for_ms: millis(at.since(since)) };
        self.inner.state = to;
        self.inner.since = at;
        self.inner.history.push(Kept { from, to, at, evidence }, self.policy.history_max);
        Some(Transition { from, to, at: now, evidence })
    }

    /// When [`Self::on_deadline`] wants to be called. None while the state can change by an event alone.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let inner = &self.inner;
        let late = match (inner.kind, inner.link) {
            (NodeKind::Agent, Wire::Up(_)) if inner.lack != Lack::HeartbeatLate => {
                Some(inner.heartbeat.after(self.policy.heartbeat_max))
            }
            (NodeKind::Agent, _) | (NodeKind::Agentless, _) => None,
        };
        let due = match (inner.state, inner.lack) {
            (NodeState::Lost, _) => None,
            (_, Lack::AmiDown | Lack::NeverHeard) => {
                let lost = match inner.ami {
                    Wire::Down(since) => Some(since.after(self.policy.lost_after)),
                    Wire::Up(_) => None,
                };
                earlier(lost, late)
            }
            (_, Lack::Settling) => earlier(inner.well_since.map(|w| w.after(self.policy.steady_min)), late),
            (_, Lack::Faults) => earlier(self.faults_end(), late),
            (_, Lack::Nothing | Lack::LinkDown | Lack::HeartbeatLate) => late,
        };
        due.map(|due| self.clock.instant(due))
    }

    /// For how long it has been as it is.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        self.clock.moment(now).since(self.inner.since)
    }
}

fn earlier(a: Option<Moment>, b: Option<Moment>) -> Option<Moment> {
    [a, b].into_iter().flatten().min()
}

fn down(wire: Wire, at: Moment) -> Wire {
    match wire {
        Wire::Up(_) => Wire::Down(at),
        Wire::Down(since) => Wire::Down(since),
    }
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
