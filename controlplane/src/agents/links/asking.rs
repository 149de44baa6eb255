//! What a node can be asked over its link: to bar an attempt, and to open AMI.

use std::time::Duration;

use controlplane_core::{
    ids::{AttemptId, StreamId},
    names::NodeName,
    sound::SoundHash,
};
use node_agent_protocol::{BarAnswer, Capability, Down, sounds::Wanted};
use tokio::{
    io::DuplexStream,
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{Awaited, Entry, Links};

/// How long an answer to `bar` is waited for; within the call's `reconcile_timeout`.
pub(crate) const BAR_MAX: Duration = Duration::from_secs(2);
/// Added to an attempt's age: a bar is on its way for no longer than a link may be silent (7 s), and clocks differ.
const AGE_ALLOWANCE: Duration = Duration::from_secs(15);
/// How long the agent may take to dial an AMI stream.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// Attempts of one node whose bar is being asked for at a time.
const BARS_MAX: usize = 4_096;
/// AMI streams that were asked for and not dialled yet, of all nodes.
const AWAITED_MAX: usize = 1_024;

/// Sounds that one node is asked to place at a time.
const PLACING_MAX: usize = 1_024;
/// For so long an agent's word that it has a sound is believed: it holds one that a call is about to play for longer
/// (`node_agent_protocol::sounds::HELD_FOR`). What was asked for ahead of calls is not believed at all.
const PLACED_FOR: Duration = Duration::from_secs(10);
/// Sounds of one node that are remembered as placed.
const PLACED_MAX: usize = 4_096;

/// Bytes of AMI, either way.
pub type AmiStream = DuplexStream;

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

/// Why a sound is not on a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceAudioError {
    /// The node has no link to this replica.
    #[error("its agent is not linked")]
    NotLinked,
    /// Its agent is of a version that places no sounds.
    #[error("its agent places no sounds (it lacks the capability `audio`): update it")]
    Lacking,
    /// Its agent said why not.
    #[error("its agent answers: {0}")]
    Refused(String),
    /// It was asked, and did not answer in time.
    #[error("its agent did not place the sound in time")]
    TimedOut,
    /// Too many are being placed.
    #[error("too many sounds are being placed on it")]
    Busy,
}

impl Entry {
    /// The link is another one, or gone: who asked over it asks again.
    pub(super) fn forget_questions(&mut self) {
        self.bars.clear();
        self.placing.clear();
        self.placed.clear();
    }

    pub(super) fn note_placed(&mut self, sound: SoundHash, now: Instant) {
        if self.placed.len() >= PLACED_MAX {
            self.placed.retain(|_, at| now.duration_since(*at) < PLACED_FOR);
        }
        if self.placed.len() < PLACED_MAX {
            self.placed.insert(sound, now);
        }
    }
}

impl Links {
    /// Has the node's agent place a sound, and waits until Asterisk can play it.
    ///
    /// # Errors
    /// `PlaceAudioError`, each for people to read.
    pub async fn place_audio(
        &self,
        node: &NodeName,
        sound: &SoundHash,
        wanted: Wanted,
        limit: Duration,
    ) -> Result<(), PlaceAudioError> {
        let (reply, answer) = oneshot::channel();
        let down = {
            let mut state = self.state();
            let entry = state.nodes.get_mut(node).ok_or(PlaceAudioError::NotLinked)?;
            let held = entry.held.as_ref().ok_or(PlaceAudioError::NotLinked)?;
            if !held.state.hello.capabilities.has(Capability::Audio) {
                return Err(PlaceAudioError::Lacking);
            }
            if entry.placed.get(sound).is_some_and(|at| at.elapsed() < PLACED_FOR) {
                return Ok(());
            }
            let down = held.down.clone();
            entry.placing.retain(|_, waiting| {
                waiting.retain(|reply| !reply.is_closed());
                !waiting.is_empty()
            });
            // What no call waits for leaves room for what one does.
            let places = if wanted == Wanted::Ahead { PLACING_MAX / 2 } else { PLACING_MAX };
            if entry.placing.len() >= places {
                return Err(PlaceAudioError::Busy);
            }
            entry.placing.entry((*sound, wanted)).or_default().push(reply);
            down
        };
        let ask = async {
            let asked = down.send(Down::PlaceAudio { sound: *sound, ahead: wanted == Wanted::Ahead }).await;
            asked.map_err(|_| PlaceAudioError::NotLinked)?;
            let answer = answer.await.map_err(|_| PlaceAudioError::NotLinked)?;
            answer.map_err(PlaceAudioError::Refused)
        };
        timeout(limit, ask).await.unwrap_or(Err(PlaceAudioError::TimedOut))
    }

    /// Whether this node is being asked to place this sound: then it may have it.
    pub(crate) fn is_placing(&self, node: &NodeName, sound: &SoundHash) -> bool {
        let state = self.state();
        let is_asked =
            |wanted| state.nodes.get(node).is_some_and(|entry| entry.placing.contains_key(&(*sound, wanted)));
        is_asked(Wanted::Now) || is_asked(Wanted::Ahead)
    }

    /// Asks the node's gate to let no Originate of this attempt through, which is `age` old; `None`: an hour at
    /// most. Without a link, an answer in time, or an agent that can, it is unknown.
    pub async fn bar(&self, node: &NodeName, attempt: &AttemptId, age: Option<Duration>) -> BarAnswer {
        let age_max_s = age.map(|age| (age + AGE_ALLOWANCE).as_secs() + 1);
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
            down.send(Down::Bar { attempt: attempt.clone(), age_max_s }).await.ok()?;
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

    pub(in crate::agents) fn ami_refused(&self, node: &NodeName, stream_id: &StreamId, reason: &str) {
        if let Some(DialledFor(asked)) = self.dialled(node, stream_id) {
            // Who asked may have given up.
            let _ = asked.send(Err(OpenAmiError::Refused(reason.to_owned())));
        }
    }
}

/// Who asked for a stream that was dialled.
pub(crate) struct DialledFor(pub(super) oneshot::Sender<Result<AmiStream, OpenAmiError>>);

impl DialledFor {
    /// Gives it. `false`: nobody waits any more.
    pub(in crate::agents) fn give(self, stream: AmiStream) -> bool {
        self.0.send(Ok(stream)).is_ok()
    }
}
