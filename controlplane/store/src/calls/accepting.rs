//! Accepting calls: what is written of them, what bounds how many there are, and what becomes of each that comes with others.

use std::collections::{HashMap, HashSet};

use controlplane_core::{
    access::Mode,
    call::CallStatus,
    ids::{AuditId, CallId, EventId, KeyId, OrgId, ReplicaId},
    request::CallRequest,
    trace,
};
use time::OffsetDateTime;

use super::{Actor, Call, Claim};
use crate::columns::{Word, kept};

/// What becomes of an idempotency key that is bound to a call: an expired row gives way.
macro_rules! remembered_anew {
    () => {
        "ON CONFLICT (org_id, key) DO UPDATE SET body_sha256 = excluded.body_sha256, call_id = excluded.call_id,
             created_at = excluded.created_at, expires_at = NULL"
    };
}

pub(crate) use remembered_anew;

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
    /// Where it stands in a trace, if it is followed by one.
    pub trace: Option<trace::Place>,
}

impl NewCall {
    pub(crate) fn place(&self) -> Option<(&CallId, &trace::Place)> {
        Some((&self.id, self.trace.as_ref()?))
    }

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

/// What there is of a call that asks to be accepted, before any that came with it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Seen {
    #[sqlx(flatten)]
    pub(crate) used: Used,
    /// The same write has landed before, and its caller did not hear the answer.
    pub(crate) is_there: bool,
    /// The call that its idempotency key was promised, and by which body.
    pub(crate) promised: Option<Word<CallId>>,
    pub(crate) promised_to: Option<Vec<u8>>,
    /// The open call with its `dedup_key`.
    pub(crate) equal: Option<Word<CallId>>,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is written.
    Accept,
    /// It was, by this very write.
    There,
    /// Its idempotency key came with another body.
    KeyReused,
    /// Its idempotency key was promised this call.
    Replay(CallId),
    /// This one is open with its `dedup_key`, and its idempotency key is promised it.
    Share(CallId),
    /// There is no room for it.
    Full(Full),
}

/// Decides upon calls of which this is there, each as if those before it were written.
///
/// Nobody else may accept calls of their organisations meanwhile.
pub(crate) fn decide(batch: &[NewCall], seen: Vec<Seen>) -> Vec<Verdict> {
    let mut ahead = Ahead::default();
    batch
        .iter()
        .zip(seen)
        .map(|(new, seen)| {
            let verdict = ahead.verdict(new, seen);
            ahead.pass(new, &verdict);
            verdict
        })
        .collect()
}

/// What calls of the same batch will leave, that nobody can see yet.
#[derive(Default)]
struct Ahead<'a> {
    /// By organisation and kept key.
    promised: HashMap<(&'a OrgId, String), (CallId, [u8; 32])>,
    equal: HashMap<(&'a OrgId, &'static str, &'a str), &'a CallId>,
    ids: HashSet<&'a CallId>,
    open: HashMap<&'a OrgId, i64>,
    to_number: HashMap<(&'a OrgId, &'a str), i64>,
    org_day: HashMap<(&'a OrgId, i64), i64>,
    key_day: HashMap<(&'a KeyId, i64), i64>,
}

impl<'a> Ahead<'a> {
    fn verdict(&self, new: &'a NewCall, seen: Seen) -> Verdict {
        if let Some(asked) = &new.idempotency {
            let here = self.promised.get(&(&new.org, new.kept_key(asked)));
            let (id, body) = match (here, seen.promised) {
                (Some((id, body)), _) => (Some(id.clone()), body.to_vec()),
                (None, Some(id)) => (Some(id.0), seen.promised_to.unwrap_or_default()),
                (None, None) => (None, Vec::new()),
            };
            match id {
                Some(id) if body == asked.body_sha256 => return Verdict::Replay(id),
                Some(_) => return Verdict::KeyReused,
                None => {}
            }
        }
        let here = new.equals().and_then(|equals| self.equal.get(&equals).copied().cloned());
        if let Some(id) = seen.equal.map(|id| id.0).or(here) {
            return Verdict::Share(id);
        }
        if seen.is_there || self.ids.contains(&new.id) {
            return Verdict::There;
        }
        let of = |count: Option<&i64>| count.copied().unwrap_or_default();
        let key = new.actor.key.as_ref().and_then(|key| self.key_day.get(&(key, new.day())));
        let used = Used {
            open_of_org: seen.used.open_of_org + of(self.open.get(&new.org)),
            open_to_number: seen.used.open_to_number
                + of(self.to_number.get(&(&new.org, new.request.to.as_str()))),
            org_today: seen.used.org_today + of(self.org_day.get(&(&new.org, new.day()))),
            key_today: seen.used.key_today + of(key),
        };
        new.exceeded(used).map_or(Verdict::Accept, Verdict::Full)
    }

    fn pass(&mut self, new: &'a NewCall, verdict: &Verdict) {
        let stands_for = match verdict {
            Verdict::Accept => &new.id,
            Verdict::Share(id) => id,
            Verdict::There | Verdict::KeyReused | Verdict::Replay(_) | Verdict::Full(_) => return,
        };
        if let Some(asked) = &new.idempotency {
            self.promised.insert((&new.org, new.kept_key(asked)), (stands_for.clone(), asked.body_sha256));
        }
        if *verdict != Verdict::Accept {
            return;
        }
        if let Some(equals) = new.equals() {
            self.equal.insert(equals, &new.id);
        }
        self.ids.insert(&new.id);
        *self.open.entry(&new.org).or_default() += 1;
        *self.to_number.entry((&new.org, new.request.to.as_str())).or_default() += 1;
        if new.mode == Mode::Live {
            *self.org_day.entry((&new.org, new.day())).or_default() += 1;
        }
        if let Some(key) = new.counted_key() {
            *self.key_day.entry((key, new.day())).or_default() += 1;
        }
    }
}

impl NewCall {
    /// Which bound it would exceed beside what is there.
    fn exceeded(&self, used: Used) -> Option<Full> {
        let (open, day) = (self.open_max, self.day_max);
        [
            (used.open_to_number, Some(open.number), Full::Number),
            (used.open_of_org, Some(open.org), Full::Org),
            (used.key_today, day.key, Full::KeyDay),
            (used.org_today, day.org, Full::OrgDay),
        ]
        .into_iter()
        .find(|(used, max, _)| max.is_some_and(|max| *used >= i64::from(max)))
        .map(|(_, _, full)| full)
    }

    /// What another open call must have in common with it to be shared.
    fn equals(&self) -> Option<(&OrgId, &'static str, &str)> {
        self.request.dedup_key.as_deref().map(|key| (&self.org, self.mode.as_str(), key))
    }

    /// The call as it is once it is accepted.
    pub(crate) fn accepted(&self, owner: Option<&ReplicaId>) -> Call {
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
            claim: Claim { owner: owner.cloned(), epoch: 0 },
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

/// What came of one call of [`super::CallStore::create_calls`].
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
