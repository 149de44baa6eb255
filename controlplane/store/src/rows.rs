//! Rows as both databases give them. What differs (times) differs in `Micros` alone.

use controlplane_core::{
    access::Mode,
    call::{AttemptStatus, CallStatus, Detection, Outcome, Rang, Reason},
    ending::EndingClass,
    ids::{AttemptId, CallId, EventId, OrgId, ReplicaId},
    names::{CarrierName, NodeName, TrunkName},
    request::{CallRequest, Key, KeyAction},
};
use sqlx::{FromRow, types::Json};
use time::OffsetDateTime;

use crate::{
    calls::{Attempt, Call, Claim, Pressed, TooLate, Transition},
    columns::{Micros, Stored, Word},
    error::Failure,
    fleet::DeclaredFleet,
    restoring::HeldWork,
};

pub(crate) fn word<T>(word: Option<Word<T>>) -> Option<T> {
    word.map(|w| w.0)
}

pub(crate) fn moment(at: Option<Micros>) -> Option<OffsetDateTime> {
    at.map(|at| at.0)
}

/// No call has as many rounds as a u16 holds: ten redials at most.
fn round(round: i32) -> u16 {
    u16::try_from(round).unwrap_or(u16::MAX)
}

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_calls {
    ($rest:literal) => {
        concat!(
            "SELECT id, org_id, request, status, reason, outcome, sequence, created_at, \
                 deadline_at, cancel_requested_at, ended_at, round, redial_at, ack_key, ack_action, ack_at, mode, \
                 lease_owner, lease_epoch FROM call ",
            $rest
        )
    };
}
pub(crate) use select_calls;

#[derive(Debug, FromRow)]
pub(crate) struct CallRow {
    id: Word<CallId>,
    org_id: Word<OrgId>,
    request: Stored<CallRequest>,
    status: Word<CallStatus>,
    reason: Option<Word<Reason>>,
    outcome: Option<Word<Outcome>>,
    sequence: i64,
    created_at: Micros,
    deadline_at: Micros,
    cancel_requested_at: Option<Micros>,
    ended_at: Option<Micros>,
    round: i32,
    redial_at: Option<Micros>,
    ack_key: Option<Word<Key>>,
    ack_action: Option<Word<KeyAction>>,
    ack_at: Option<Micros>,
    mode: Word<Mode>,
    lease_owner: Option<Word<ReplicaId>>,
    lease_epoch: i64,
}

impl CallRow {
    pub(crate) fn id(&self) -> &str {
        self.id.0.as_str()
    }
}

impl From<CallRow> for Call {
    /// Still without its attempts.
    fn from(row: CallRow) -> Self {
        let pressed = row.ack_key.zip(row.ack_action).zip(row.ack_at);
        Self {
            id: row.id.0,
            org: row.org_id.0,
            mode: row.mode.0,
            request: row.request.0,
            status: row.status.0,
            reason: word(row.reason),
            outcome: word(row.outcome),
            sequence: row.sequence,
            created_at: row.created_at.0,
            deadline_at: row.deadline_at.0,
            cancel_requested_at: moment(row.cancel_requested_at),
            ended_at: moment(row.ended_at),
            round: round(row.round),
            redial_at: moment(row.redial_at),
            acknowledgement: pressed.map(|((key, action), at)| Pressed {
                key: key.0,
                action: action.0,
                at: at.0,
            }),
            claim: Claim { owner: word(row.lease_owner), epoch: row.lease_epoch },
            attempts: Vec::new(),
        }
    }
}

/// What is held and still open.
pub(crate) const SELECT_HELD: &str = "SELECT held.id, call.org_id, held.held_at FROM held
    JOIN call ON call.id = held.id WHERE call.ended_at IS NULL
    UNION ALL
    SELECT held.id, incident.org_id, held.held_at FROM held
    JOIN incident ON incident.id = held.id WHERE incident.phase <> 'idle'
    ORDER BY 1";

#[derive(Debug, FromRow)]
pub(crate) struct HeldWorkRow {
    id: String,
    org_id: Word<OrgId>,
    held_at: Micros,
}

impl From<HeldWorkRow> for HeldWork {
    fn from(row: HeldWorkRow) -> Self {
        Self { id: row.id, org: row.org_id.0, held_at: row.held_at.0 }
    }
}

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_attempts {
    ($rest:literal) => {
        concat!(
            "SELECT id, call_id, ordinal, round, node, trunk, carrier, status, ending, sip_code, \
                 q850, rang, heard_key, machine, incarnation, started_at, ringing_at, answered_at, ended_at FROM attempt ",
            $rest
        )
    };
}
pub(crate) use select_attempts;

#[derive(Debug, FromRow)]
pub(crate) struct AttemptRow {
    id: Word<AttemptId>,
    call_id: Word<CallId>,
    ordinal: i32,
    round: i32,
    node: Word<NodeName>,
    trunk: Word<TrunkName>,
    carrier: Word<CarrierName>,
    status: Word<AttemptStatus>,
    ending: Option<Word<EndingClass>>,
    sip_code: Option<i32>,
    q850: Option<i32>,
    rang: Word<Rang>,
    heard_key: Option<Word<Key>>,
    machine: Option<Word<Detection>>,
    incarnation: Option<String>,
    started_at: Micros,
    ringing_at: Option<Micros>,
    answered_at: Option<Micros>,
    ended_at: Option<Micros>,
}

impl From<AttemptRow> for Attempt {
    fn from(row: AttemptRow) -> Self {
        // The columns' CHECKs keep both codes within u16.
        let code = |code: Option<i32>| code.and_then(|c| u16::try_from(c).ok());
        Self {
            id: row.id.0,
            ordinal: row.ordinal,
            round: round(row.round),
            node: row.node.0,
            trunk: row.trunk.0,
            carrier: row.carrier.0,
            status: row.status.0,
            ending: word(row.ending),
            sip_code: code(row.sip_code),
            q850: code(row.q850),
            rang: row.rang.0,
            key: word(row.heard_key),
            machine: word(row.machine),
            incarnation: row.incarnation,
            started_at: row.started_at.0,
            ringing_at: moment(row.ringing_at),
            answered_at: moment(row.answered_at),
            ended_at: moment(row.ended_at),
        }
    }
}

/// Calls with their attempts. `attempts` is in the order of ordinals.
pub(crate) fn assemble(calls: Vec<CallRow>, attempts: Vec<AttemptRow>) -> Vec<Call> {
    let mut calls: Vec<Call> = calls.into_iter().map(Call::from).collect();
    for row in attempts {
        let of = calls.iter().position(|c| c.id == row.call_id.0);
        if let Some(call) = of.and_then(|i| calls.get_mut(i)) {
            call.attempts.push(row.into());
        }
    }
    calls
}

#[derive(Debug, FromRow)]
pub(crate) struct TransitionRow {
    id: Word<EventId>,
    sequence: i64,
    status: Word<CallStatus>,
    reason: Option<Word<Reason>>,
    outcome: Option<Word<Outcome>>,
    attempt_id: Option<Word<AttemptId>>,
    ending: Option<Word<EndingClass>>,
    heard_key: Option<Word<Key>>,
    redial_at: Option<Micros>,
    occurred_at: Micros,
}

impl From<TransitionRow> for Transition {
    fn from(row: TransitionRow) -> Self {
        Self {
            id: row.id.0,
            sequence: row.sequence,
            status: row.status.0,
            reason: word(row.reason),
            outcome: word(row.outcome),
            attempt: word(row.attempt_id),
            ending: word(row.ending),
            key: word(row.heard_key),
            redial_at: moment(row.redial_at),
            at: row.occurred_at.0,
        }
    }
}

/// Columns by name, never `*`: a newer replica's migration may add some while this one runs.
macro_rules! select_transitions {
    ($rest:literal) => {
        concat!(
            "SELECT id, call_id, sequence, status, reason, outcome, attempt_id, ending, heard_key, redial_at, \
                 occurred_at FROM call_transition ",
            $rest
        )
    };
}
pub(crate) use select_transitions;

/// Columns of [`CallHead`].
macro_rules! select_head {
    ($rest:literal) => {
        concat!(
            "SELECT id, org_id, status, sequence, round, cancel_requested_at, deadline_at, lease_epoch FROM call ",
            $rest
        )
    };
}
pub(crate) use select_head;

/// What a write must know of its call.
#[derive(Debug, FromRow)]
pub(crate) struct CallHead {
    pub(crate) id: Word<CallId>,
    pub(crate) org_id: Word<OrgId>,
    pub(crate) status: Word<CallStatus>,
    pub(crate) sequence: i64,
    pub(crate) round: i32,
    pub(crate) cancel_requested_at: Option<Micros>,
    pub(crate) deadline_at: Micros,
    pub(crate) lease_epoch: i64,
}

impl CallHead {
    /// Itself, for who drives the call.
    pub(crate) fn driven_under(self, epoch: i64) -> Result<Self, Failure> {
        if self.lease_epoch == epoch { Ok(self) } else { Err(Failure::Fenced) }
    }

    /// Why no attempt of it may leave at this moment, if that is so while it is open.
    pub(crate) fn too_late(&self, at: OffsetDateTime) -> Option<TooLate> {
        if self.cancel_requested_at.is_some() {
            Some(TooLate::Canceled)
        } else if at >= self.deadline_at.0 {
            Some(TooLate::PastDeadline)
        } else {
            None
        }
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct FleetRow {
    revision: i64,
    document: Json<serde_json::Value>,
    applied_at: Micros,
}

impl From<FleetRow> for DeclaredFleet {
    fn from(row: FleetRow) -> Self {
        Self { revision: row.revision, document: row.document.0, applied_at: row.applied_at.0 }
    }
}
