//! Calls as the API shows them.

use std::collections::BTreeMap;

use controlplane_core::{
    access::Mode,
    call::{AttemptStatus, CallStatus, Detection, Outcome, Rang, Reason},
    ending::EndingClass,
    ids::{AttemptId, CallId},
    names::{CarrierName, NodeName, TrunkName},
    number::E164,
    request::{Key, KeyAction},
    schema::Moment,
};
use controlplane_store::calls::{Attempt, Call, Pressed};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

/// A call.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Call")]
pub(crate) struct CallView {
    id: CallId,
    #[schemars(extend("const" = "call"))]
    object: &'static str,
    /// Whether it was placed by a live key; if not, it is rehearsed, and nothing of it reaches a carrier.
    livemode: bool,
    /// The number that is phoned.
    to: E164,
    /// The caller id that was asked for.
    from: Option<E164>,
    status: CallStatus,
    /// What came of it, once it has ended: the word to decide by.
    outcome: Option<Outcome>,
    /// Why it ended.
    reason: Option<Reason>,
    /// How many steps it has made; 1 is its acceptance.
    sequence: i64,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    deadline_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    ended_at: Option<OffsetDateTime>,
    /// When the next round begins, while the call waits for it.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    redial_at: Option<OffsetDateTime>,
    /// The key that decided it.
    acknowledgement: Option<PressedView>,
    attempts: Vec<AttemptView>,
    /// As it came.
    #[schemars(with = "BTreeMap<String, String>")]
    metadata: Value,
}

/// The key that decided a call.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Pressed")]
struct PressedView {
    key: Key,
    action: KeyAction,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    at: OffsetDateTime,
}

impl From<Pressed> for PressedView {
    fn from(Pressed { key, action, at }: Pressed) -> Self {
        Self { key, action, at }
    }
}

/// One try to reach the phone, over one trunk.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Attempt")]
pub(super) struct AttemptView {
    id: AttemptId,
    /// 1, and one more with each redial.
    round: u16,
    node: NodeName,
    trunk: TrunkName,
    carrier: CarrierName,
    status: AttemptStatus,
    /// How it ended.
    reason: Option<EndingClass>,
    /// What the carrier answered.
    sip_code: Option<u16>,
    /// The cause of the hang-up, by ITU-T Q.850.
    q850: Option<u16>,
    /// Whether a phone rang.
    rang: Rang,
    /// The key that was pressed.
    key: Option<Key>,
    /// Who answered, as far as one can tell; null where nobody listened for it.
    machine: Option<Detection>,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "Moment")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    ringing_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
    answered_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<Moment>")]
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

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub(super) struct ListView<T> {
    #[schemars(extend("const" = "list"))]
    pub(super) object: &'static str,
    pub(super) data: Vec<T>,
    /// Whether more follow.
    pub(super) has_more: bool,
}

impl<T> ListView<T> {
    /// A list that is shown whole.
    pub(super) fn whole(data: Vec<T>) -> Self {
        Self { object: "list", data, has_more: false }
    }
}
