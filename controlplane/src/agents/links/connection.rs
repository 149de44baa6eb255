//! What a connection holds for as long as it lives: its admission, and a link its place.

use std::{sync::Arc, time::Duration};

use controlplane_core::{ids::AttemptId, names::NodeName, sound::SoundHash};
use node_agent_protocol::{BarAnswer, Down, HEARTBEAT, Observations, sounds::Wanted};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, interval},
};

use super::{Links, Seen};

/// What a link's task holds: the node's link is this one until it is dropped or replaced.
pub(in crate::agents) struct Membership {
    pub(super) links: Arc<Links>,
    pub(super) node: NodeName,
    pub(super) id: u64,
    pub(in crate::agents) down: mpsc::Receiver<Down>,
    pub(in crate::agents) replaced: oneshot::Receiver<()>,
}

/// What every connection of a node holds: it ends when the node is revoked.
pub(crate) struct Admission {
    pub(super) links: Arc<Links>,
    pub(super) node: NodeName,
    pub(super) id: u64,
    pub(super) revocations: watch::Receiver<u64>,
    pub(super) expires_at: OffsetDateTime,
}

impl Membership {
    /// Whose it is.
    pub(in crate::agents) fn node(&self) -> &NodeName {
        &self.node
    }

    /// A snapshot came. An older one than the last is ignored.
    pub(in crate::agents) fn observed(&self, observations: Observations) {
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
        state.tell(&self.node);
    }

    pub(in crate::agents) fn skipped(&self) {
        if let Some((held, _)) = self.links.state().held(&self.node, self.id) {
            held.state.unknown_messages += 1;
        }
    }

    pub(in crate::agents) fn kept(&self, facts: u64) {
        if let Some((held, _)) = self.links.state().held(&self.node, self.id) {
            held.state.facts += facts;
        }
    }

    pub(in crate::agents) fn barred(&self, attempt: &AttemptId, answer: BarAnswer) {
        let mut state = self.links.state();
        let waiting = state.nodes.get_mut(&self.node).and_then(|entry| entry.bars.remove(attempt));
        for reply in waiting.into_iter().flatten() {
            // Who asked may have given up.
            let _ = reply.send(answer);
        }
    }

    /// A sound is on the node now, or cannot be.
    pub(in crate::agents) fn placed(&self, sound: &SoundHash, wanted: Wanted, answer: &Result<(), String>) {
        let mut state = self.links.state();
        let Some(entry) = state.nodes.get_mut(&self.node) else { return };
        if entry.held.as_ref().is_none_or(|held| held.id != self.id) {
            return;
        }
        // Only what was asked for: an agent cannot fill this memory.
        let mut waiting = entry.placing.remove(&(*sound, wanted)).unwrap_or_default();
        if wanted == Wanted::Now {
            // What may be played is there ahead of calls, too; agents of older versions give no other answer.
            waiting.extend(entry.placing.remove(&(*sound, Wanted::Ahead)).unwrap_or_default());
        }
        if answer.is_ok() && wanted == Wanted::Now && !waiting.is_empty() {
            entry.note_placed(*sound, Instant::now());
        }
        for reply in waiting {
            // Who asked may have given up.
            let _ = reply.send(answer.clone());
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.links.state();
        let Some(entry) = state.nodes.get_mut(&self.node) else { return };
        if entry.held.as_ref().is_some_and(|held| held.id == self.id) {
            entry.held = None;
            entry.forget_questions();
            entry.tell();
        }
    }
}

impl Admission {
    /// Whose it is.
    pub(crate) fn node(&self) -> &NodeName {
        &self.node
    }

    /// Waits until it is over. Whatever the connection is doing then, it stops.
    pub(in crate::agents) async fn over(&mut self) -> Over {
        let mut look = interval(HEARTBEAT);
        loop {
            tokio::select! {
                // The sender lives as long as the node's entry, which this connection keeps.
                _ = self.revocations.changed() => return Over::Revoked,
                // By the wall clock, which may be set.
                _ = look.tick() => {
                    if self.links.clock.now() >= self.expires_at {
                        return Over::Expired;
                    }
                }
            }
        }
    }
}

/// Why a connection may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agents) enum Over {
    /// The node was revoked.
    Revoked,
    /// Its certificate has ended: a connection lives no longer than what opened it.
    Expired,
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(entry) = self.links.state().nodes.get_mut(&self.node) {
            entry.connections.remove(&self.id);
        }
    }
}
