//! What a node can be asked over its link: to bar an attempt, and to open AMI.

use std::time::Duration;

use controlplane_core::{
    ids::{AttemptId, StreamId},
    names::NodeName,
};
use node_agent_protocol::{BarAnswer, Capability, Down};
use tokio::{io::DuplexStream, sync::oneshot, time::timeout};

use super::{Awaited, Links};

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

impl Links {
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
