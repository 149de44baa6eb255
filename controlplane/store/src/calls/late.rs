//! What is heard of an attempt after its end: the node that could not be asked in time is there again.

use controlplane_core::{
    ids::{AttemptId, AuditId, CallId, EventId},
    names::NodeName,
    request::{CallRequest, Key, KeyAction},
};
use time::OffsetDateTime;

use super::CallEnd;

/// An ended attempt of which nobody knows yet whether a key was pressed.
#[derive(Debug, Clone, PartialEq)]
pub struct Untold {
    /// Of which call.
    pub call: CallId,
    /// Which attempt.
    pub attempt: AttemptId,
    /// Where it was sent.
    pub node: NodeName,
    /// Identity of the Asterisk process that it was sent to.
    pub incarnation: Option<String>,
    /// What was asked for: it says what a key means.
    pub request: CallRequest,
}

/// What the node told of it.
#[derive(Debug, Clone)]
pub struct HearLate {
    /// Of which call.
    pub call: CallId,
    /// In which attempt.
    pub attempt: AttemptId,
    /// The key that decides the call; `None`: none was pressed, or nothing is left that tells of one.
    pub key: Option<LateKey>,
    /// Now.
    pub at: OffsetDateTime,
    /// Id of the transition's row, where the key acknowledges.
    pub event_id: EventId,
    /// Id of the row of the call's end, where it ends by it.
    pub end_event_id: EventId,
    /// Id of the audit row, which is written of a key.
    pub audit_id: AuditId,
}

/// A key that was heard late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateKey {
    /// Which.
    pub key: Key,
    /// What it means.
    pub action: KeyAction,
    /// How the call ends by it, if it has not.
    pub end: CallEnd,
}

/// What came of [`super::CallStore::hear_late`]. From each on the attempt is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum HeardLate {
    /// It was told before: nothing was written.
    Before,
    /// No key: nothing follows.
    Nothing,
    /// The call had ended: the key is kept with the attempt and in the audit log, and nothing else has changed.
    TooLate,
    /// The key decides the call, which has an attempt under way: that is to be ended.
    Decided,
    /// The key decides the call, which waited: it has ended.
    Ended,
}
