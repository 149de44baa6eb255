//! Calls as the API shows them.

use controlplane_core::{
    access::Mode,
    call::{AttemptStatus, CallStatus, Detection, Outcome, Rang, Reason},
    ending::EndingClass,
    ids::{AttemptId, CallId},
    names::{CarrierName, NodeName, TrunkName},
    number::E164,
    request::{Key, KeyAction},
};
use controlplane_store::calls::{Attempt, Call, Pressed};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

/// A call as shown.
#[derive(Debug, Serialize)]
pub(crate) struct CallView {
    id: CallId,
    object: &'static str,
    /// Whether it was placed by a live key; if not, it is rehearsed, and nothing of it reaches a carrier.
    livemode: bool,
    to: E164,
    from: Option<E164>,
    status: CallStatus,
    outcome: Option<Outcome>,
    reason: Option<Reason>,
    sequence: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    deadline_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    ended_at: Option<OffsetDateTime>,
    /// When the next round begins, while the call waits for it.
    #[serde(with = "time::serde::rfc3339::option")]
    redial_at: Option<OffsetDateTime>,
    acknowledgement: Option<PressedView>,
    attempts: Vec<AttemptView>,
    metadata: Value,
}

/// The key that decided a call, as shown.
#[derive(Debug, Serialize)]
struct PressedView {
    key: Key,
    action: KeyAction,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

impl From<Pressed> for PressedView {
    fn from(Pressed { key, action, at }: Pressed) -> Self {
        Self { key, action, at }
    }
}

/// An attempt as shown.
#[derive(Debug, Serialize)]
pub(super) struct AttemptView {
    id: AttemptId,
    round: u16,
    node: NodeName,
    trunk: TrunkName,
    carrier: CarrierName,
    status: AttemptStatus,
    reason: Option<EndingClass>,
    sip_code: Option<u16>,
    q850: Option<u16>,
    rang: Rang,
    key: Option<Key>,
    machine: Option<Detection>,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    ringing_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    answered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    ended_at: Option<OffsetDateTime>,
}

impl From<Call> for CallView {
    fn from(call: Call) -> Self {
        Self {
            id: call.id,
            object: "call",
            livemode: call.mode == Mode::Live,
            to: call.request.to,
            from: call.request.from,
            status: call.status,
            outcome: call.outcome,
            reason: call.reason,
            sequence: call.sequence,
            created_at: call.created_at,
            deadline_at: call.deadline_at,
            ended_at: call.ended_at,
            redial_at: call.redial_at,
            acknowledgement: call.acknowledgement.map(PressedView::from),
            attempts: call.attempts.into_iter().map(AttemptView::from).collect(),
            metadata: call.request.metadata.into_iter().map(|(k, v)| (k, Value::from(v))).collect(),
        }
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            id: attempt.id,
            round: attempt.round,
            node: attempt.node,
            trunk: attempt.trunk,
            carrier: attempt.carrier,
            status: attempt.status,
            reason: attempt.ending,
            sip_code: attempt.sip_code,
            q850: attempt.q850,
            rang: attempt.rang,
            key: attempt.key,
            machine: attempt.machine,
            started_at: attempt.started_at,
            ringing_at: attempt.ringing_at,
            answered_at: attempt.answered_at,
            ended_at: attempt.ended_at,
        }
    }
}

/// A list as shown.
#[derive(Debug, Serialize)]
pub(super) struct ListView<T> {
    pub(super) object: &'static str,
    pub(super) data: Vec<T>,
    pub(super) has_more: bool,
}

impl<T> ListView<T> {
    /// A list that is shown whole.
    pub(super) fn whole(data: Vec<T>) -> Self {
        Self { object: "list", data, has_more: false }
    }
}
