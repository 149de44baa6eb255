//! Calls, attempts and their log as they are stored.

use controlplane_core::{
    access::Mode,
    call::{AttemptStatus, CallStatus, Detection, Outcome, Rang, Reason},
    ending::EndingClass,
    ids::{AttemptId, CallId, EventId, OrgId, ReplicaId},
    names::{CarrierName, NodeName, TrunkName},
    request::{CallRequest, Key, KeyAction},
};
use time::OffsetDateTime;

/// A call as stored, with its attempts in the order of their sending.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its id.
    pub id: CallId,
    /// Whose it is.
    pub org: OrgId,
    /// Whether it is placed, or only rehearsed.
    pub mode: Mode,
    /// What was asked for.
    pub request: CallRequest,
    /// Where it is.
    pub status: CallStatus,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// What came of it.
    pub outcome: Option<Outcome>,
    /// Number of the last transition; the first, `queued`, is 1.
    pub sequence: i64,
    /// Moment of acceptance.
    pub created_at: OffsetDateTime,
    /// When it gives up waiting.
    pub deadline_at: OffsetDateTime,
    /// When its cancellation was asked for first. It stays where the call ends in another way after all.
    pub cancel_requested_at: Option<OffsetDateTime>,
    /// Moment of the end.
    pub ended_at: Option<OffsetDateTime>,
    /// The round that it is in or waits for; the first is 1.
    pub round: u16,
    /// While it waits for that round: when it begins.
    pub redial_at: Option<OffsetDateTime>,
    /// The key that decided it.
    pub acknowledgement: Option<Pressed>,
    /// Who drives it.
    pub claim: Claim,
    /// Its attempts.
    pub attempts: Vec<Attempt>,
}

/// Who drives a call, where several replicas share a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Which replica; `None`: a control plane that has the database to itself, or nobody yet.
    pub owner: Option<ReplicaId>,
    /// Grows by one with every claim: a write under an earlier one is refused
    /// ([`StoreError::Fenced`](crate::StoreError::Fenced)).
    pub epoch: i64,
}

/// A key that decided a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressed {
    /// Which.
    pub key: Key,
    /// What it meant.
    pub action: KeyAction,
    /// When it was heard.
    pub at: OffsetDateTime,
}

/// One Originate as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its id, which is the ChannelId.
    pub id: AttemptId,
    /// 1 for the call's first.
    pub ordinal: i32,
    /// Of which round; the first is 1.
    pub round: u16,
    /// Where it was sent.
    pub node: NodeName,
    /// By which trunk.
    pub trunk: TrunkName,
    /// Whose trunk that was.
    pub carrier: CarrierName,
    /// Where it is.
    pub status: AttemptStatus,
    /// How it ended.
    pub ending: Option<EndingClass>,
    /// The carrier's SIP answer.
    pub sip_code: Option<u16>,
    /// Asterisk's Q.850 cause.
    pub q850: Option<u16>,
    /// Whether the phone rang.
    pub rang: Rang,
    /// The key that decided the call.
    pub key: Option<Key>,
    /// Who answered, where that was looked for and told.
    pub machine: Option<Detection>,
    /// Identity of the Asterisk process (its start) it was sent to: compared for equality only.
    pub incarnation: Option<String>,
    /// Just before the Originate left.
    pub started_at: OffsetDateTime,
    /// First 180.
    pub ringing_at: Option<OffsetDateTime>,
    /// Answer.
    pub answered_at: Option<OffsetDateTime>,
    /// End.
    pub ended_at: Option<OffsetDateTime>,
}

/// One row of a call's log.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// Its id.
    pub id: EventId,
    /// 1, 2, 3, … per call, without gaps.
    pub sequence: i64,
    /// The call's status after it.
    pub status: CallStatus,
    /// Why the call ended, on the last row.
    pub reason: Option<Reason>,
    /// What came of the call, on the last row.
    pub outcome: Option<Outcome>,
    /// The attempt it came from.
    pub attempt: Option<AttemptId>,
    /// How that attempt ended, on rows that tell of one.
    pub ending: Option<EndingClass>,
    /// The key, on the row that tells of an acknowledgement.
    pub key: Option<Key>,
    /// When the next round begins, on the row that tells of a round's end.
    pub redial_at: Option<OffsetDateTime>,
    /// When.
    pub at: OffsetDateTime,
}

/// An attempt, and when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnd {
    /// Which.
    pub attempt: AttemptId,
    /// `None`: it is open.
    pub ended_at: Option<OffsetDateTime>,
    /// Its flight record is still to be read.
    pub is_untold: bool,
}
