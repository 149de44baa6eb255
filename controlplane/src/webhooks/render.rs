//! An event as customers get it, in webhooks and in the stream: always the same, whenever it is asked for.
//!
//! It shows the call as of its transition, told from durable rows: the call's own log up to that transition
//! says which attempts there were and how far they had come. What came later is not shown, although the rows
//! have it by now.

use controlplane_core::{
    call::{AttemptStatus, CallStatus, Rang},
    request::KeyAction,
    schema::Moment,
};
use controlplane_store::{
    calls::{Attempt, Call, Pressed, Transition},
    events::{Event, Subject},
};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::http::CallView;

/// What happened to a call, or to an endpoint.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Event")]
pub(crate) struct EventView {
    id: controlplane_core::ids::EventId,
    #[serde(rename = "type")]
    kind: controlplane_core::request::EventKind,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    created_at: OffsetDateTime,
    /// Counts the steps of one call.
    sequence: i64,
    data: Data,
}

/// What it happened to, as it was then: the call, or for `endpoint.disabled` the endpoint.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Data {
    Call(Box<CallView>),
    Endpoint(#[schemars(with = "serde_json::Map<String, serde_json::Value>")] serde_json::Value),
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            kind: event.kind,
            created_at: event.at,
            sequence: event.sequence,
            data: match event.subject {
                Subject::Call(call, log) => Data::Call(Box::new(as_of(*call, &log).into())),
                Subject::Endpoint(data) => Data::Endpoint(data),
            },
        }
    }
}

/// The call as it was after the last of these transitions.
fn as_of(mut call: Call, log: &[Transition]) -> Call {
    let Some(last) = log.last() else { return call };
    call.status = last.status;
    call.reason = last.reason;
    call.sequence = last.sequence;
    call.redial_at = last.redial_at;
    call.acknowledgement = pressed(call.acknowledgement, log);
    if !last.status.is_terminal() {
        call.outcome = None;
        call.ended_at = None;
    }
    call.attempts = call.attempts.into_iter().filter_map(|attempt| attempt_as_of(attempt, log)).collect();
    call
}

/// The key that had decided the call by then. The call's row has only the last one: what acknowledged is in the log,
/// and what escalated ends the call, so that no other follows it.
fn pressed(latest: Option<Pressed>, log: &[Transition]) -> Option<Pressed> {
    let acknowledged = log.iter().rev().find_map(|row| row.key.map(|key| (key, row.at)));
    if let Some((key, at)) = acknowledged {
        return Some(Pressed { key, action: KeyAction::Acknowledge, at });
    }
    latest.filter(|latest| {
        latest.action != KeyAction::Acknowledge && log.last().is_some_and(|last| latest.at <= last.at)
    })
}

fn attempt_as_of(mut attempt: Attempt, log: &[Transition]) -> Option<Attempt> {
    let of: Vec<_> = log.iter().filter(|row| row.attempt.as_ref() == Some(&attempt.id)).collect();
    let last = of.last()?;
    if of.iter().any(|row| row.ending.is_some()) {
        return Some(attempt);
    }
    attempt.status = match last.status {
        CallStatus::InProgress => AttemptStatus::InProgress,
        CallStatus::Ringing => AttemptStatus::Ringing,
        CallStatus::Queued
        | CallStatus::Initiated
        | CallStatus::Completed
        | CallStatus::Busy
        | CallStatus::NoAnswer
        | CallStatus::Canceled
        | CallStatus::Failed => AttemptStatus::Sending,
    };
    let has_been = |status| of.iter().any(|row| row.status == status);
    let has_rung = has_been(CallStatus::Ringing);
    attempt.ringing_at = attempt.ringing_at.filter(|_| has_rung);
    attempt.answered_at = attempt.answered_at.filter(|_| has_been(CallStatus::InProgress));
    attempt.rang = if has_rung { Rang::Yes } else { Rang::No };
    attempt.key = of.iter().find_map(|row| row.key);
    attempt.machine = None;
    attempt.ending = None;
    attempt.sip_code = None;
    attempt.q850 = None;
    attempt.ended_at = None;
    Some(attempt)
}
