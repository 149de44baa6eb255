//! Calls, their attempts, the log of their transitions, idempotency and the outbox.

mod accepting;
pub(crate) mod account;
mod late;
pub(crate) mod news;
mod stored;

use std::sync::Arc;

use async_trait::async_trait;
use controlplane_core::{
    access::Mode,
    call::{AttemptStatus, CallStatus, Outcome, Rang, Reason},
    ending::{EndingClass, Talk},
    ids::{AttemptId, AuditId, CallId, EventId, KeyId, OrgId, RequestId},
    names::{CarrierName, NodeName, TrunkName},
    number::E164,
    request::{Key, KeyAction},
    throttle::Throttle,
};
use time::OffsetDateTime;

pub(crate) use self::accepting::{Seen, Verdict, decide, remembered_anew};
pub use self::{
    accepting::{Created, DayMax, Full, Idempotency, NewCall, OpenMax},
    late::{HearLate, HeardLate, LateKey, Untold},
    stored::{Attempt, AttemptEnd, Call, Claim, Pressed, Transition},
};
use crate::StoreError;

/// How long an idempotency key is kept after its call has ended; then it is free again.
pub const IDEMPOTENCY_KEPT: time::Duration = time::Duration::hours(24);

/// Who asks, for the audit row that is written in the same transaction. The default is the system itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    /// The key that was used; `None` for agents and for the system itself.
    pub key: Option<KeyId>,
    /// The node whose agent it is.
    pub node: Option<NodeName>,
    /// The HTTP request; `None` for the system itself.
    pub request: Option<RequestId>,
    /// The peer's address as text; `None` for the system itself.
    pub ip: Option<String>,
    /// What the peer calls itself, cut.
    pub user_agent: Option<String>,
}

/// An attempt about to be sent: durable before a byte of it leaves.
#[derive(Debug, Clone)]
pub struct BeginAttempt {
    /// Of which call.
    pub call: CallId,
    /// Under which claim it is driven ([`Claim::epoch`]): an earlier one is refused.
    pub epoch: i64,
    /// Chosen at random.
    pub attempt: AttemptId,
    /// Where to.
    pub node: NodeName,
    /// By which trunk.
    pub trunk: TrunkName,
    /// Whose trunk.
    pub carrier: CarrierName,
    /// Identity of the Asterisk process it will be sent to.
    pub incarnation: Option<String>,
    /// The number that it dials.
    pub to: E164,
    /// How often that number may be dialled: what the first attempt of a round must pass.
    pub throttle: Throttle,
    /// What the carrier's account may have, where several replicas share it: then it is counted here, by the database's
    /// clock, for all of them.
    pub account: Option<Account>,
    /// Now: anew with each repetition, since the deadline may come in between.
    pub at: OffsetDateTime,
    /// Id of the transition's row (the call becomes `initiated`).
    pub event_id: EventId,
}

/// What a carrier's account may have over all replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Starts in any one second; `None`: no limit.
    pub cps_max: Option<u32>,
    /// Attempts at a time; `None`: no limit.
    pub channels_max: Option<u32>,
}

/// News of a living attempt.
#[derive(Debug, Clone)]
pub struct Advance {
    /// Of which call.
    pub call: CallId,
    /// Under which claim it is driven ([`Claim::epoch`]): an earlier one is refused.
    pub epoch: i64,
    /// Which attempt.
    pub attempt: AttemptId,
    /// `Initiated`, `Ringing` or `InProgress`; never backwards (an older word is ignored).
    pub status: AttemptStatus,
    /// What is known of ringing by now.
    pub rang: Rang,
    /// When it happened.
    pub at: OffsetDateTime,
    /// Id of the call's transition, where the call's status changes with it.
    pub event_id: EventId,
}

/// A key that decides the call, the moment it is heard.
#[derive(Debug, Clone)]
pub struct Hear {
    /// Of which call.
    pub call: CallId,
    /// Under which claim it is driven ([`Claim::epoch`]): an earlier one is refused.
    pub epoch: i64,
    /// In which attempt.
    pub attempt: AttemptId,
    /// Which key.
    pub key: Key,
    /// What it means.
    pub action: KeyAction,
    /// When it was heard.
    pub at: OffsetDateTime,
    /// Id of the transition's row, where the key acknowledges.
    pub event_id: EventId,
}

/// The end of an attempt, and of its call or round if nothing follows there: one transaction.
#[derive(Debug, Clone)]
pub struct EndAttempt {
    /// Of which call.
    pub call: CallId,
    /// Under which claim it is driven ([`Claim::epoch`]): an earlier one is refused.
    pub epoch: i64,
    /// Which attempt.
    pub attempt: AttemptId,
    /// How it ended.
    pub ending: EndingClass,
    /// The carrier's SIP answer.
    pub sip_code: Option<u16>,
    /// Asterisk's Q.850 cause.
    pub q850: Option<u16>,
    /// Whether the phone rang.
    pub rang: Rang,
    /// What happened after the answer.
    pub talk: Talk,
    /// When it ended.
    pub at: OffsetDateTime,
    /// What follows.
    pub follows: Follows,
    /// Id of the row in the log (`attempt_failed`, or the call's end).
    pub event_id: EventId,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// Another attempt of the same round, now.
    Attempt,
    /// Another round.
    Round {
        /// When it begins.
        at: OffsetDateTime,
    },
    /// Nothing: the call ends.
    End(CallEnd),
}

impl Follows {
    /// The call's end, if it ends.
    #[must_use]
    pub const fn end(self) -> Option<CallEnd> {
        match self {
            Self::End(end) => Some(end),
            Self::Attempt | Self::Round { .. } => None,
        }
    }

    /// When the next round begins, if one does.
    #[must_use]
    pub const fn redial_at(self) -> Option<OffsetDateTime> {
        match self {
            Self::Round { at } => Some(at),
            Self::Attempt | Self::End(_) => None,
        }
    }
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallEnd {
    /// Why. The status follows from it.
    pub reason: Reason,
    /// The customer's word.
    pub outcome: Outcome,
}

/// The end of a call that has no attempt under way.
#[derive(Debug, Clone)]
pub struct EndCall {
    /// Which call.
    pub call: CallId,
    /// Under which claim it is driven ([`Claim::epoch`]): an earlier one is refused.
    pub epoch: i64,
    /// How.
    pub end: CallEnd,
    /// When.
    pub at: OffsetDateTime,
    /// Id of the transition's row.
    pub event_id: EventId,
}

/// Another round for a call that has no attempt under way.
#[derive(Debug, Clone)]
pub struct RedialCall {
    /// Which call.
    pub call: CallId,
    /// Under which claim it is driven ([`Claim::epoch`]): an earlier one is refused.
    pub epoch: i64,
    /// When the round begins.
    pub redial_at: OffsetDateTime,
    /// Now.
    pub at: OffsetDateTime,
    /// Id of the transition's row.
    pub event_id: EventId,
}

/// A wish that a call ends: durable, so that a later process carries it out where this one dies.
#[derive(Debug, Clone)]
pub struct RequestCancel {
    /// Whose call.
    pub org: OrgId,
    /// Which call.
    pub call: CallId,
    /// Now.
    pub at: OffsetDateTime,
    /// For the audit row.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// What came of [`CallStore::request_cancel`].
#[derive(Debug, Clone)]
pub enum CancelRequested {
    /// There is no such call, or it is another organisation's.
    NotFound,
    /// It has ended: nothing was written.
    AlreadyEnded(Call),
    /// It is written, by this wish or by an earlier one, whose moment stays.
    Recorded(Call),
}

/// Whether a write stands. A call ends once: another end finds it ended and changes nothing. The same write
/// again (same attempt, same event) is answered as the first time: its caller did not hear that answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// Done, with the call's sequence after it.
    Yes {
        /// The call's sequence after it.
        sequence: i64,
    },
    /// The call or the attempt had ended before, by another write: nothing was changed.
    AlreadyEnded,
}

/// What came of [`CallStore::begin_attempt`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Begun {
    /// It may leave; also for the same write again.
    Yes {
        /// The call's sequence after it.
        sequence: i64,
    },
    /// It must not leave: the call or this attempt has ended, or another attempt of the call has not.
    AlreadyEnded,
    /// It must not leave: it is too late for it.
    TooLate {
        /// Why.
        why: TooLate,
        /// Whether this very write had landed before, unheard by its caller: then the attempt is open, and is to be
        /// ended as one that was never sent.
        is_open: bool,
    },
    /// It must not leave yet, and nothing was written: its number was dialled too often.
    Held {
        /// When it may be tried again.
        until: OffsetDateTime,
    },
    /// It must not leave yet, and nothing was written: the carrier's account has all that it may.
    Full {
        /// How long from now until a start is free; `None`: until an attempt ends.
        wait: Option<std::time::Duration>,
        /// How long ago the account's starts of the last second left, the newest first; zero: they have not yet.
        ago: Vec<std::time::Duration>,
    },
}

/// Why an attempt must not leave any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLate {
    /// The customer wants the call ended.
    Canceled,
    /// The call's deadline has come.
    PastDeadline,
}

/// A part of a list, newest first.
#[derive(Debug, Clone)]
pub struct Page {
    /// At most this many, 1 to 100.
    pub limit: u16,
    /// Only what is older than this id.
    pub starting_after: Option<CallId>,
    /// Only what is newer than this id (the nearest to it).
    pub ending_before: Option<CallId>,
    /// Only these.
    pub status: Option<CallStatus>,
}

/// One page of calls.
#[derive(Debug, Clone)]
pub struct CallPage {
    /// Newest first.
    pub calls: Vec<Call>,
    /// Whether there is more in the direction asked.
    pub has_more: bool,
}

/// Calls and what happens to them.
#[async_trait]
pub trait CallStore: Sync {
    /// Accepts calls in their order: idempotency, `dedup_key`, bounds, row, transition 1, outbox and audit of all of them in
    /// one transaction. What came of each, in that order; on an error of none anything is written.
    async fn create_calls(&self, new: Arc<[NewCall]>) -> Result<Vec<Created>, StoreError>;
    /// Accepts one call.
    async fn create_call(&self, new: NewCall) -> Result<Created, StoreError> {
        let created = self.create_calls(Arc::new([new])).await?.pop();
        created.ok_or(StoreError::Corrupt { operation: "create call", detail: "no answer".to_owned() })
    }
    /// What [`Self::create_calls`] answers to a request that came before, without creating one: the call
    /// ([`Created::Replayed`]), or that its key came with another body. `None`: it is not known.
    async fn asked_before(
        &self,
        org: &OrgId,
        mode: Mode,
        asked: &Idempotency,
        now: OffsetDateTime,
    ) -> Result<Option<Created>, StoreError>;
    /// One call of an organisation. `None` for a missing one and for another's alike.
    async fn call(&self, org: &OrgId, id: &CallId) -> Result<Option<Call>, StoreError>;
    /// An organisation's calls. Stable under inserts. A row that cannot be read is logged and passed over.
    async fn list_calls(&self, org: &OrgId, page: Page) -> Result<CallPage, StoreError>;
    /// A call's log, in order.
    async fn transitions(&self, org: &OrgId, id: &CallId) -> Result<Vec<Transition>, StoreError>;
    /// Every call that has not ended, oldest first, after `after`; for the start of a process. A row that
    /// cannot be read is logged and passed over; fewer than `limit` means that no more follow.
    async fn open_calls(&self, after: Option<&CallId>, limit: u16) -> Result<Vec<Call>, StoreError>;
    /// Writes an attempt before its Originate leaves, and with the first of a round that its number was dialled.
    async fn begin_attempt(&self, begin: BeginAttempt) -> Result<Begun, StoreError>;
    /// Until when a number may not be dialled for an organisation; `None`: now. A hint that spares a trunk's slot:
    /// [`Self::begin_attempt`] decides.
    async fn number_held(
        &self,
        org: &OrgId,
        to: &E164,
        throttle: &Throttle,
        now: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, StoreError>;
    /// A key that decides the call, before anything else happens. The first of an attempt counts.
    async fn hear(&self, hear: Hear) -> Result<Written, StoreError>;
    /// Nodes that attempts were sent to of which nobody knows yet whether a key was pressed.
    async fn untold_nodes(&self) -> Result<Vec<NodeName>, StoreError>;
    /// Of one of these nodes such attempts, at most so many.
    async fn untold(&self, node: &NodeName, limit: u16) -> Result<Vec<Untold>, StoreError>;
    /// What a node tells of an attempt that had ended untold. A key decides a call that has not ended: one that waits
    /// ends by it. One that has ended stays as it is.
    async fn hear_late(&self, late: HearLate) -> Result<HeardLate, StoreError>;
    /// News of a living attempt, and the call's status with it.
    async fn advance(&self, advance: Advance) -> Result<Written, StoreError>;
    /// The end of an attempt, and what follows it: another attempt, another round, or the call's end.
    async fn end_attempt(&self, end: EndAttempt) -> Result<Written, StoreError>;
    /// Of these attempts those that were placed on this node, each with its end, if it has ended.
    async fn attempt_ends(
        &self,
        node: &NodeName,
        attempts: &[AttemptId],
    ) -> Result<Vec<AttemptEnd>, StoreError>;
    /// The end of a call without an attempt under way.
    async fn end_call(&self, end: EndCall) -> Result<Written, StoreError>;
    /// Another round for a call without an attempt under way.
    async fn redial_call(&self, redial: RedialCall) -> Result<Written, StoreError>;
    /// Records that the call shall end, with an audit row for the first wish. It does not end it.
    async fn request_cancel(&self, cancel: RequestCancel) -> Result<CancelRequested, StoreError>;
}
