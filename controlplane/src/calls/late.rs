//! Attempts that ended before their node could be asked whether a key was pressed: asked when the node is there again.
//!
//! Who pressed a key behind a cut has acknowledged, whatever was made of the silence meanwhile. What is found decides a
//! call that goes on: one that waits for another round ends by it, and a phone that rings for it by now stops ringing.
//! A call that has ended stays as it ended; the key is kept with its attempt and in the audit log.
//!
//! The database knows what is to be asked, so a restart forgets none of it, and the node keeps the record until it is read.

use std::{sync::Arc, time::Duration};

use controlplane_core::{
    call::{Reason, Tried},
    ids::CallId,
    request::{Key, KeyAction},
};
use controlplane_store::{
    StoreError,
    calls::{CallEnd, HearLate, HeardLate, LateKey, Untold},
};
use node_agent_ami::{AskError, ChannelId, ChannelPresence, Incarnation, Session};
use tokio::time::{sleep, timeout};

use super::{Calls, chain, reconcile};
use crate::nodes::run_of;

/// Between two looks for what is to be asked: one read of an index that is empty where all is well.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most attempts of one node that are asked for in one look.
const AT_ONCE: u16 = 100;
/// For one node's answer to one question.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Why a call ends by a key; `None`: the key ends none.
pub(super) const fn reason(action: KeyAction) -> Option<Reason> {
    match action {
        KeyAction::Acknowledge => Some(Reason::Acknowledged),
        KeyAction::Escalate => Some(Reason::Escalated),
        KeyAction::Repeat => None,
    }
}

/// What a node says of an attempt.
enum Told {
    /// Its channel lives: there may be more to tell.
    NotYet,
    Key(Option<Key>),
}

impl Calls {
    /// Asks for ever.
    pub async fn hear_late(self: Arc<Self>) {
        loop {
            sleep(LOOK_EVERY).await;
            if let Err(error) = self.ask_nodes().await {
                tracing::warn!(error = %chain(&error), "what nodes are to be asked could not be read");
            }
        }
    }

    async fn ask_nodes(&self) -> Result<(), StoreError> {
        for node in self.store.untold_nodes().await? {
            let Some((session, incarnation)) = self.registry.session(&node) else { continue };
            for untold in self.store.untold(&node, AT_ONCE).await? {
                match timeout(ANSWER_MAX, ask(&session, &incarnation, &untold)).await {
                    Ok(Ok(Told::NotYet)) => {}
                    Ok(Ok(Told::Key(key))) => self.heard_late(untold, key).await,
                    // The next node is not kept waiting.
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
        Ok(())
    }

    async fn heard_late(&self, untold: Untold, key: Option<Key>) {
        let Untold { call, attempt, node, request, .. } = untold;
        let at = self.clock.now();
        let key = key.and_then(|key| {
            let action = request.acknowledgement.as_ref()?.meaning(key)?;
            let reason = reason(action)?;
            Some(LateKey { key, action, end: CallEnd { reason, outcome: reason.outcome(Tried::default()) } })
        });
        let late = HearLate {
            call: call.clone(),
            attempt: attempt.clone(),
            key,
            at,
            event_id: self.chance.event_id(at),
            end_event_id: self.chance.event_id(at),
            audit_id: self.chance.audit_id(at),
        };
        let heard = self.durably("hear a key late", || self.store.hear_late(late.clone())).await;
        let Some(LateKey { key, action, end }) = key else { return };
        tracing::warn!(%call, %attempt, %node, %key, %action, came = ?heard, "a key was found after its attempt had ended");
        if heard == Some(HeardLate::Ended) {
            self.metrics.call_ended(end.reason);
            self.traces.ended(&call);
        }
        // Whoever still follows the call ends what is under way for it.
        self.decide(&call, end.reason);
    }

    /// Ends an open call of ours for a key that another attempt had.
    fn decide(&self, call: &CallId, reason: Reason) {
        let mut open = self.open();
        if let Some(task) = open.get_mut(call) {
            task.decided = Some(reason);
            task.cancel.send_replace(true);
        }
    }
}

async fn ask(session: &Session, incarnation: &Incarnation, untold: &Untold) -> Result<Told, AskError> {
    let Ok(id) = ChannelId::parse(untold.attempt.as_str()) else { return Ok(Told::Key(None)) };
    // First the channel, then the record: what lives may still write it.
    let same =
        untold.incarnation.as_deref().is_some_and(|sent_to| run_of(sent_to) == run_of(incarnation.as_str()));
    let lives = same && matches!(session.channel_status(&id).await?, ChannelPresence::Present { .. });
    let record = reconcile::record(session, &id).await?;
    let decides = |key: &Key| {
        let action = untold.request.acknowledgement.as_ref().and_then(|wanted| wanted.meaning(*key));
        action.and_then(reason).is_some()
    };
    match record.and_then(|record| record.talk.key).filter(decides) {
        None if lives => Ok(Told::NotYet),
        key => Ok(Told::Key(key)),
    }
}
