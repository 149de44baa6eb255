//! Finds out what became of an attempt after a cut: the node's gate is asked to bar it first, then Asterisk for
//! the channel's own status and its flight record, asked twice, all under the incarnation of Asterisk that the
//! Originate was sent to.
//!
//! `barred` needs no session and settles it. Without it, of a gate that cannot know or a node without an agent,
//! absence proves nothing: an Originate may still be on its way to a channel. The caller's machine bounds all
//! of this by `reconcile_timeout`.

use std::time::Duration;

use controlplane_core::{
    attempt::{Answer, Live, Record, Settlement},
    call::Detection,
    ending::Talk,
    ids::AttemptId,
    names::NodeName,
};
use node_agent_ami::{
    AskError, ChannelId, ChannelPresence, ChannelState, DbFamily, DbKey, FLIGHT_RECORD_FAMILY, FlightPhase,
    FlightRecord, Session, Verdict, Watch,
};
use node_agent_protocol::BarAnswer;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::Calls;
use crate::{
    agents::BAR_MAX,
    nodes::{is_by_gate, run_of},
};

/// "queued" is answered before the channel exists: what is absent is asked for again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A gate remembers fates for an hour at least. What is nearly as old is not asked for: the age is by wall clocks.
const BAR_AGE_MAX: Duration = Duration::from_secs(50 * 60);
/// Between two looks for a session.
const SESSION_POLL: Duration = Duration::from_millis(100);

/// What was found, and the watch of a channel that lives.
pub(super) struct Found {
    pub(super) settlement: Settlement,
    pub(super) watch: Option<(Session, Watch)>,
}

/// An attempt whose fate is looked for.
pub(super) struct Lost<'a> {
    pub(super) node: &'a NodeName,
    pub(super) attempt: &'a AttemptId,
    /// When it was written, before its Originate left.
    pub(super) started_at: OffsetDateTime,
    /// The same by the steady clock, as far as this process knows.
    pub(super) began: std::time::Instant,
    /// Incarnation of Asterisk that it was sent to.
    pub(super) sent_to: Option<&'a str>,
}

/// Looks until something is found, for as long as the caller wants to wait.
pub(super) async fn settle(calls: &Calls, lost: Lost<'_>, id: &ChannelId) -> Found {
    let found = find(calls, &lost, id).await;
    calls.metrics.reconciled(found.settlement);
    found
}

async fn find(calls: &Calls, lost: &Lost<'_>, id: &ChannelId) -> Found {
    let Lost { node, attempt, sent_to, .. } = *lost;
    let mut asked = false;
    let mut gate_told = false;
    loop {
        if !gate_told
            && calls.links.is_linked(node)
            && let Some(age) = age_before_gate(lost, calls.clock.now())
        {
            let asked_at = Instant::now();
            match calls.links.bar(node, attempt, Some(age)).await {
                BarAnswer::Barred => return Found { settlement: Settlement::Barred, watch: None },
                BarAnswer::Admitted => gate_told = true,
                // At once: the link went, and may be back for the next look. An agent that does not answer is left
                // alone, since there is time for two looks only.
                BarAnswer::Unknown => gate_told = asked_at.elapsed() >= BAR_MAX,
            }
        }
        let Some((session, incarnation)) = calls.registry.session(node) else {
            sleep(SESSION_POLL).await;
            continue;
        };
        // By whatever way: the same run of Asterisk.
        let same = sent_to.is_some_and(|sent_to| run_of(sent_to) == run_of(incarnation.as_str()));
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

/// The age of an attempt for whose whole life the node's gate can speak: it had to pass there, and is young enough
/// to be remembered.
fn age_before_gate(lost: &Lost<'_>, now: OffsetDateTime) -> Option<Duration> {
    // The longer one: a wall clock that was set back must not make it young.
    let age = Duration::try_from(now - lost.started_at)
        .ok()?
        .max(Instant::now().into_std().saturating_duration_since(lost.began));
    (lost.sent_to.is_some_and(is_by_gate) && age < BAR_AGE_MAX).then_some(age)
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
            talk: Talk {
                key: record.key.and_then(|key| key.try_into().ok()),
                machine: record.machine.map(detection),
                played: record.played,
                no_media: record.no_media,
                untold: false,
            },
            tells_keys: record.tells_keys(),
            stopped: record.stopped,
        })),
        Err(error) => {
            tracing::error!(channel = %id, %error, "the dialplan wrote a flight record that cannot be read");
            Ok(None)
        }
    }
}

/// The verdict in our words.
pub(super) const fn detection(verdict: Verdict) -> Detection {
    match verdict {
        Verdict::Human => Detection::Human,
        Verdict::Machine => Detection::Machine,
        Verdict::NotSure => Detection::NotSure,
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

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};
    use time::{Duration, macros::datetime};

    use super::*;

    #[test]
    fn only_a_young_attempt_that_had_to_pass_a_gate_may_be_barred() {
        let now = datetime!(2026-11-24 12:00 UTC);
        let node = "waw-1".parse().unwrap();
        let attempt = AttemptId::new(&mut StdRng::seed_from_u64(1));
        let gate = Some("2026-11-24 10:00:00 by gate");
        for (age, sent_to, expected) in [
            (Duration::ZERO, gate, true),
            (Duration::minutes(49), gate, true),
            // The gate may have forgotten it, and a clock may be off by a little.
            (Duration::minutes(50), gate, false),
            (Duration::hours(2), gate, false),
            (Duration::seconds(-1), gate, false),
            // By a direct session: no gate saw it.
            (Duration::ZERO, Some("2026-11-24 10:00:00"), false),
            (Duration::ZERO, None, false),
        ] {
            let began = Instant::now().into_std();
            let lost = Lost { node: &node, attempt: &attempt, started_at: now - age, began, sent_to };
            assert_eq!(age_before_gate(&lost, now).is_some(), expected, "{age} {sent_to:?}");
        }
    }

    /// A wall clock that was set back makes no attempt young.
    #[tokio::test(start_paused = true)]
    async fn the_longer_of_two_ages_counts() {
        let now = datetime!(2026-11-24 12:00 UTC);
        let (node, attempt) = ("waw-1".parse().unwrap(), AttemptId::new(&mut StdRng::seed_from_u64(1)));
        let began = Instant::now().into_std();
        sleep(BAR_AGE_MAX).await;
        let lost =
            Lost { node: &node, attempt: &attempt, started_at: now, began, sent_to: Some("x by gate") };
        assert_eq!(age_before_gate(&lost, now), None);
    }
}
