//! Finds out what became of an attempt after a cut: the channel's own status first, then its flight record,
//! asked twice, all under the incarnation of Asterisk that the Originate was sent to.
//!
//! Without an agent nothing can be barred, so absence proves nothing: an Originate may still be on its way
//! to a channel. The caller's machine bounds all of this by `reconcile_timeout`.

use std::time::Duration;

use controlplane_core::{
    attempt::{Answer, Live, Record, Settlement},
    ids::AttemptId,
    names::NodeName,
};
use node_agent_ami::{
    AskError, ChannelId, ChannelPresence, ChannelState, DbFamily, DbKey, FLIGHT_RECORD_FAMILY, FlightPhase,
    FlightRecord, Session, Watch,
};
use tokio::time::sleep;

use super::Calls;

/// "queued" is answered before the channel exists: what is absent is asked for again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Between two looks for a session.
const SESSION_POLL: Duration = Duration::from_millis(100);

/// What was found, and the watch of a channel that lives.
pub(super) struct Found {
    pub(super) settlement: Settlement,
    pub(super) watch: Option<(Session, Watch)>,
}

/// Looks until something is found, for as long as the caller wants to wait.
pub(super) async fn settle(
    calls: &Calls,
    node: &NodeName,
    attempt: &AttemptId,
    id: &ChannelId,
    sent_to: Option<&str>,
) -> Found {
    let mut asked = false;
    loop {
        let Some((session, incarnation)) = calls.registry.session(node) else {
            sleep(SESSION_POLL).await;
            continue;
        };
        let same = sent_to == Some(incarnation.as_str());
        // Watched before it is asked for, so that nothing falls between the answer and the watch.
        let watch = session.watch(id.clone()).ok();
        match look(&session, id, same).await {
            Ok(Some(settlement @ Settlement::Living(_))) => {
                let watch = watch.map(|watch| (session, watch));
                return Found { settlement, watch };
            }
            Ok(Some(settlement)) => return Found { settlement, watch: None },
            // Another run of Asterisk carries no channel of the one before.
            Ok(None) if asked || !same => return Found { settlement: Settlement::Absent, watch: None },
            Ok(None) => {
                asked = true;
                sleep(ASK_AGAIN).await;
            }
            Err(error) => {
                tracing::warn!(%node, %attempt, %error, "reconciliation: no answer");
                sleep(SESSION_POLL).await;
            }
        }
    }
}

async fn look(session: &Session, id: &ChannelId, same: bool) -> Result<Option<Settlement>, AskError> {
    if same && let ChannelPresence::Present { state, .. } = session.channel_status(id).await? {
        return Ok(Some(Settlement::Living(live(state.unwrap_or(ChannelState::Down)))));
    }
    Ok(record(session, id).await?.map(Settlement::Recorded))
}

/// Reads an attempt's flight record.
///
/// # Errors
/// No answer: nothing is known. A record that cannot be read counts as none, and is logged.
pub(super) async fn record(session: &Session, id: &ChannelId) -> Result<Option<Record>, AskError> {
    let (Ok(family), Ok(key)) = (DbFamily::parse(FLIGHT_RECORD_FAMILY), DbKey::parse(id.as_str())) else {
        return Ok(None);
    };
    let Some(text) = session.db_get(&family, &key).await? else { return Ok(None) };
    match FlightRecord::parse(&text) {
        Ok(record) => Ok(Some(Record {
            state: live(record.state),
            ended: record.phase == FlightPhase::End,
            answer: Answer { sip_code: record.sip_code, q850: record.q850 },
        })),
        Err(error) => {
            tracing::error!(channel = %id, %error, "the dialplan wrote a flight record that cannot be read");
            Ok(None)
        }
    }
}

fn live(state: ChannelState) -> Live {
    match state {
        ChannelState::Up => Live::Up,
        ChannelState::Ringing => Live::Ringing,
        ChannelState::Down | ChannelState::Dialing | ChannelState::Ring | ChannelState::OtherState => {
            Live::Dialling
        }
    }
}
