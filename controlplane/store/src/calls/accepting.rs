//! Accepting a call: what is written of it, and what bounds how many there are.

use controlplane_core::{
    access::Mode,
    call::CallStatus,
    ids::{AuditId, CallId, EventId, KeyId, OrgId},
    request::CallRequest,
};
use time::OffsetDateTime;

use super::{Actor, Call};
use crate::columns::kept;

/// Binds an idempotency key to the call that answers it. An expired row gives way.
macro_rules! remember {
    ($row:literal) => {
        concat!(
            "INSERT INTO idempotency (org_id, key, body_sha256, call_id, created_at) ",
            $row,
            " ON CONFLICT (org_id, key) DO UPDATE SET body_sha256 = excluded.body_sha256,
                 call_id = excluded.call_id, created_at = excluded.created_at, expires_at = NULL"
        )
    };
}

pub(crate) use remember;

/// A call to be accepted.
#[derive(Debug, Clone)]
pub struct NewCall {
    /// Made by the caller, so that a retry of the transaction is the same call.
    pub id: CallId,
    /// Whose it is.
    pub org: OrgId,
    /// Whether it is to be placed, or only rehearsed.
    pub mode: Mode,
    /// What was asked for.
    pub request: CallRequest,
    /// Moment of acceptance.
    pub at: OffsetDateTime,
    /// When it gives up waiting.
    pub deadline_at: OffsetDateTime,
    /// How many calls may be open with it.
    pub open_max: OpenMax,
    /// How many calls may be accepted on its day (UTC) with it.
    pub day_max: DayMax,
    /// `Idempotency-Key` and SHA-256 of the canonical body.
    pub idempotency: Option<Idempotency>,
    /// For the audit row.
    pub actor: Actor,
    /// Ids of the audit row and of the first event.
    pub audit_id: AuditId,
    /// Id of the transition's row in the log.
    pub event_id: EventId,
}

impl NewCall {
    /// The idempotency key as it is kept.
    pub(crate) fn kept_key(&self, asked: &Idempotency) -> String {
        asked.kept(self.mode)
    }
}

/// The customer's promise that two requests are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// As sent, 1 to 255 bytes.
    pub key: String,
    /// SHA-256 of the request's body.
    pub body_sha256: [u8; 32],
}

impl Idempotency {
    /// The key as it is kept. A rehearsal must not be taken for the real call: its key has a prefix that no header's value has.
    pub(crate) fn kept(&self, mode: Mode) -> String {
        match mode {
            Mode::Live => self.key.clone(),
            Mode::Test => format!("test\n{}", self.key),
        }
    }
}

/// How many calls of one organisation may be open at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenMax {
    /// In all.
    pub org: u32,
    /// To one number.
    pub number: u32,
}

/// How many calls may be accepted in one day; `None`: no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DayMax {
    /// From the organisation.
    pub org: Option<u32>,
    /// By the key that asks.
    pub key: Option<u32>,
}

/// What there is of bounded things when another call asks to be accepted.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub(crate) struct Used {
    pub(crate) open_of_org: i64,
    pub(crate) open_to_number: i64,
    pub(crate) org_today: i64,
    pub(crate) key_today: i64,
}

impl NewCall {
    /// Which bound it would exceed beside what is there, and `others` that nobody sees yet.
    pub(crate) fn exceeded(&self, used: Used, others: i64) -> Option<Full> {
        let (open, day) = (self.open_max, self.day_max);
        [
            (used.open_to_number, Some(open.number), Full::Number),
            (used.open_of_org, Some(open.org), Full::Org),
            (used.key_today, day.key, Full::KeyDay),
            (used.org_today, day.org, Full::OrgDay),
        ]
        .into_iter()
        .find(|(used, max, _)| max.is_some_and(|max| used + others >= i64::from(max)))
        .map(|(_, _, full)| full)
    }

    /// The call as it is once it is accepted.
    pub(crate) fn accepted(&self) -> Call {
        Call {
            id: self.id.clone(),
            org: self.org.clone(),
            mode: self.mode,
            request: self.request.clone(),
            status: CallStatus::Queued,
            reason: None,
            outcome: None,
            sequence: 1,
            created_at: kept(self.at),
            deadline_at: kept(self.deadline_at),
            cancel_requested_at: None,
            ended_at: None,
            round: 1,
            redial_at: None,
            acknowledgement: None,
            attempts: Vec::new(),
        }
    }

    /// The key whose calls of the day it counts among. A rehearsal counts nowhere.
    pub(crate) fn counted_key(&self) -> Option<&KeyId> {
        self.actor.key.as_ref().filter(|_| self.mode == Mode::Live)
    }

    /// Its day, counted from 1970-01-01 in UTC.
    pub(crate) fn day(&self) -> i64 {
        crate::guard::day_of(self.at)
    }
}

/// Which bound is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All its calls.
    Org,
    /// Its calls to the number.
    Number,
    /// Its calls of the day.
    OrgDay,
    /// The key's calls of the day.
    KeyDay,
}

/// What came of [`super::CallStore::create_call`].
#[derive(Debug, Clone)]
pub enum Created {
    /// A new call, durable.
    New(Call),
    /// The same key and body came before: that call, as it is now.
    Replayed(Call),
    /// The same key came before with another body. Nothing was written.
    KeyReused,
    /// An open call has this `dedup_key`: that call.
    Deduplicated(Call),
    /// As many calls as may be are open, or were accepted today. Nothing was written.
    Full(Full),
}
