//! Calls on PostgreSQL: reading, ending.

use std::sync::Arc;

use async_trait::async_trait;
use controlplane_core::{
    access::Mode,
    call::CallStatus,
    ending::EndingClass,
    ids::{AttemptId, CallId, EventId, OrgId},
    names::NodeName,
    number::E164,
    request::Key,
    throttle::{Throttle, lie_ahead},
};
use sqlx::{PgConnection, types::time::OffsetDateTime};

use super::{PostgresStore, accepting, cancels, reading, rounds, untold};
use crate::{
    CallStore, StoreError,
    calls::{
        Advance, AttemptEnd, BeginAttempt, Begun, Call, CallEnd, CallPage, CancelRequested, Created,
        EndAttempt, EndCall, Hear, HearLate, HeardLate, IDEMPOTENCY_KEPT, Idempotency, NewCall, Page,
        RedialCall, RequestCancel, Transition, Untold, Written, news::News,
    },
    columns::{Micros, Word},
    error::Failure,
    progress::event,
    rows::{CallHead, TransitionRow, select_head, select_transitions},
};

#[async_trait]
impl CallStore for PostgresStore {
    async fn create_calls(&self, new: Arc<[NewCall]>) -> Result<Vec<Created>, StoreError> {
        let begin = accepting::begin(&new);
        let input = (new, self.replica.clone());
        self.transaction_from(begin, "create calls", input, |c, (new, owner)| {
            Box::pin(accepting::create(c, new, owner.as_ref()))
        })
        .await
    }

    async fn asked_before(
        &self,
        org: &OrgId,
        mode: Mode,
        asked: &Idempotency,
        now: OffsetDateTime,
    ) -> Result<Option<Created>, StoreError> {
        let operation = "look for an idempotency key";
        let mut moment = self.reading(operation).await?;
        promised(&mut moment, org, &asked.kept(mode), asked, now)
            .await
            .map_err(|failure| self.failed(operation, failure))
    }

    async fn call(&self, org: &OrgId, id: &CallId) -> Result<Option<Call>, StoreError> {
        let operation = "read call";
        let mut moment = self.reading(operation).await?;
        reading::find(&mut moment, org, id).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn list_calls(&self, org: &OrgId, page: Page) -> Result<CallPage, StoreError> {
        let operation = "list calls";
        let mut moment = self.reading(operation).await?;
        reading::list(&mut moment, org, &page).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn transitions(&self, org: &OrgId, id: &CallId) -> Result<Vec<Transition>, StoreError> {
        let rows = sqlx::query_as::<_, TransitionRow>(select_transitions!(
            "WHERE call_id = $1 AND org_id = $2 ORDER BY sequence"
        ))
        .bind(id.as_str())
        .bind(org.as_str())
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.failed("read the call's log", error))?;
        Ok(rows.into_iter().map(Transition::from).collect())
    }

    async fn open_calls(&self, after: Option<&CallId>, limit: u16) -> Result<Vec<Call>, StoreError> {
        let operation = "read the open calls";
        let mut moment = self.reading(operation).await?;
        reading::open(&mut moment, after, limit).await.map_err(|failure| self.failed(operation, failure))
    }

    async fn begin_attempt(&self, begin: BeginAttempt) -> Result<Begun, StoreError> {
        self.sets.tell("begin attempt", News::Begin(begin)).await?.begun("begin attempt")
    }

    async fn advance(&self, advance: Advance) -> Result<Written, StoreError> {
        self.sets.tell("advance attempt", News::Advance(advance)).await?.written("advance attempt")
    }

    async fn end_attempt(&self, end: EndAttempt) -> Result<Written, StoreError> {
        self.sets.tell("end attempt", News::End(end)).await?.written("end attempt")
    }

    async fn attempt_ends(
        &self,
        node: &NodeName,
        attempts: &[AttemptId],
    ) -> Result<Vec<AttemptEnd>, StoreError> {
        let ends = reading::ends(&self.pool, node, attempts).await;
        ends.map_err(|error| self.failed("look attempts up", error))
    }

    async fn end_call(&self, end: EndCall) -> Result<Written, StoreError> {
        self.transaction("end call", end, |c, end| Box::pin(end_alone(c, end))).await
    }

    async fn number_held(
        &self,
        org: &OrgId,
        to: &E164,
        throttle: &Throttle,
        now: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        let operation = "read how often a number was dialled";
        let latest = rounds::latest(&self.pool, org, to, throttle, now).await;
        let latest = latest.map_err(|failure| self.failed(operation, failure))?;
        if !lie_ahead(&latest, now) {
            return Ok(throttle.held_until(&latest, now));
        }
        let asked = (org.clone(), to.clone(), throttle.clone(), now);
        self.transaction(operation, asked, |c, (org, to, throttle, now)| {
            Box::pin(async move {
                rounds::take_turn(c, org, to).await?;
                rounds::held_until(c, org, to, throttle, *now).await
            })
        })
        .await
    }

    async fn hear(&self, hear: Hear) -> Result<Written, StoreError> {
        self.sets.tell("hear a key", News::Hear(hear)).await?.written("hear a key")
    }

    async fn untold_nodes(&self) -> Result<Vec<NodeName>, StoreError> {
        let nodes = untold::nodes(&self.pool).await;
        nodes.map_err(|error| self.failed("read what nodes are to be asked", error))
    }

    async fn untold(&self, node: &NodeName, limit: u16) -> Result<Vec<Untold>, StoreError> {
        let untold = untold::of(&self.pool, node, limit, self.replica.as_ref()).await;
        untold.map_err(|error| self.failed("read what a node is to be asked", error))
    }

    async fn hear_late(&self, late: HearLate) -> Result<HeardLate, StoreError> {
        self.transaction("hear a key late", late, |c, late| Box::pin(untold::hear(c, late))).await
    }

    async fn redial_call(&self, redial: RedialCall) -> Result<Written, StoreError> {
        self.transaction("redial a call", redial, |c, redial| Box::pin(rounds::redial(c, redial))).await
    }

    async fn request_cancel(&self, cancel: RequestCancel) -> Result<CancelRequested, StoreError> {
        self.transaction("request cancel", cancel, |c, cancel| Box::pin(cancels::request(c, cancel))).await
    }
}

/// Class of advisory locks: whose calls are accepted.
pub(super) const ACCEPT_TURN: i32 = 4;

async fn end_alone(c: &mut PgConnection, end: &EndCall) -> Result<Written, Failure> {
    let call = head(c, &end.call).await?.driven_under(end.epoch)?;
    if call.status.0.is_terminal() {
        return repeated(c, &call, &Entry { end: Some(end.end), ..Entry::of(&end.event_id, "", end.at) })
            .await;
    }
    if let Some(attempt) = under_way(c, &end.call).await? {
        return Err(Failure::AttemptOpen(attempt));
    }
    finish(c, call, end.end, end.at, &end.event_id, None).await
}

/// What to answer to an end that finds its work done: `Yes` if that was this very write, known by its
/// event's id, whose caller did not hear the answer.
pub(super) async fn repeated(
    c: &mut PgConnection,
    call: &CallHead,
    entry: &Entry<'_>,
) -> Result<Written, Failure> {
    let sequence = sqlx::query_scalar::<_, i64>(
        "SELECT sequence FROM call_transition
         WHERE id = $1 AND call_id = $2 AND reason IS NOT DISTINCT FROM $3
             AND attempt_id IS NOT DISTINCT FROM $4 AND ending IS NOT DISTINCT FROM $5
             AND heard_key IS NOT DISTINCT FROM $6 AND redial_at IS NOT DISTINCT FROM $7",
    )
    .bind(entry.id.as_str())
    .bind(call.id.0.as_str())
    .bind(entry.end.map(|end| end.reason.as_str()))
    .bind(entry.attempt.map(|(id, _)| id.as_str()))
    .bind(entry.attempt.and_then(|(_, ending)| ending).map(EndingClass::as_str))
    .bind(entry.key.map(|key| key.to_string()))
    .bind(entry.redial_at.map(Micros::from))
    .fetch_optional(c)
    .await?;
    Ok(sequence.map_or(Written::AlreadyEnded, |sequence| Written::Yes { sequence }))
}

/// Ends the call: row, log, outbox and the idempotency key's expiry.
pub(super) async fn finish(
    c: &mut PgConnection,
    call: CallHead,
    end: CallEnd,
    at: OffsetDateTime,
    event_id: &EventId,
    attempt: Option<(&AttemptId, Option<EndingClass>)>,
) -> Result<Written, Failure> {
    let status = end.reason.status();
    sqlx::query("UPDATE idempotency SET expires_at = $1 WHERE call_id = $2")
        .bind(Micros::from(at + IDEMPOTENCY_KEPT))
        .bind(call.id.0.as_str())
        .execute(&mut *c)
        .await?;
    next(c, call, status, Entry { end: Some(end), attempt, ..Entry::of(event_id, event(status), at) }).await
}

/// The event of a call that waits to be dialled, which no customer is told.
pub(super) const QUEUED: &str = "call.queued";

/// One step of a call's log.
pub(super) struct Entry<'a> {
    pub(super) id: &'a EventId,
    pub(super) kind: &'static str,
    pub(super) end: Option<CallEnd>,
    pub(super) attempt: Option<(&'a AttemptId, Option<EndingClass>)>,
    /// A key that acknowledges.
    pub(super) key: Option<Key>,
    /// Another round follows, then.
    pub(super) redial_at: Option<OffsetDateTime>,
    pub(super) at: OffsetDateTime,
}

impl<'a> Entry<'a> {
    /// One that tells nothing yet but that it happened.
    pub(super) const fn of(id: &'a EventId, kind: &'static str, at: OffsetDateTime) -> Self {
        Self { id, kind, end: None, attempt: None, key: None, redial_at: None, at }
    }
}

/// The call's next step: its status and sequence, the log and the outbox.
pub(super) async fn next(
    c: &mut PgConnection,
    call: CallHead,
    status: CallStatus,
    entry: Entry<'_>,
) -> Result<Written, Failure> {
    let call = CallHead { status: Word(status), sequence: call.sequence + 1, ..call };
    // While a call is open, `reason`, `outcome` and `ended_at` are empty; `redial_at` while it does not wait. One round trip.
    sqlx::query(
        "WITH stepped AS (
             UPDATE call SET status = $5, sequence = $4, reason = $6, outcome = $11,
                 ended_at = CASE WHEN $6 IS NOT NULL THEN $9::timestamptz END,
                 redial_at = $13, round = CASE WHEN $13 IS NULL THEN round ELSE round + 1 END
             WHERE id = $3
         ), logged AS (
             INSERT INTO call_transition
                 (id, org_id, call_id, sequence, status, reason, attempt_id, ending, occurred_at, outcome,
                  heard_key, redial_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $11, $12, $13)
         )
         INSERT INTO outbox (id, org_id, call_id, sequence, kind, created_at, due_at)
         VALUES ($1, $2, $3, $4, $10, $9, $9)",
    )
    .bind(entry.id.as_str())
    .bind(call.org_id.0.as_str())
    .bind(call.id.0.as_str())
    .bind(call.sequence)
    .bind(call.status.0.as_str())
    .bind(entry.end.map(|end| end.reason.as_str()))
    .bind(entry.attempt.map(|(id, _)| id.as_str()))
    .bind(entry.attempt.and_then(|(_, ending)| ending).map(EndingClass::as_str))
    .bind(Micros::from(entry.at))
    .bind(entry.kind)
    .bind(entry.end.map(|end| end.outcome.as_str()))
    .bind(entry.key.map(|key| key.to_string()))
    .bind(entry.redial_at.map(Micros::from))
    .execute(c)
    .await?;
    Ok(Written::Yes { sequence: call.sequence })
}

/// What a write must know of its call, which it locks: writes of one call are one after the other.
pub(super) async fn head(c: &mut PgConnection, id: &CallId) -> Result<CallHead, Failure> {
    sqlx::query_as::<_, CallHead>(select_head!("WHERE id = $1 FOR NO KEY UPDATE"))
        .bind(id.as_str())
        .fetch_optional(c)
        .await?
        .ok_or_else(|| Failure::Missing(id.to_string()))
}

/// The call's attempt that has not ended, if there is one.
pub(super) async fn under_way(c: &mut PgConnection, call: &CallId) -> Result<Option<AttemptId>, Failure> {
    let id = sqlx::query_scalar::<_, Word<AttemptId>>(
        "SELECT id FROM attempt WHERE call_id = $1 AND ended_at IS NULL",
    )
    .bind(call.as_str())
    .fetch_optional(c)
    .await?;
    Ok(id.map(|id| id.0))
}

/// What a request with this key was answered with.
async fn promised(
    c: &mut PgConnection,
    org: &OrgId,
    kept: &str,
    asked: &Idempotency,
    now: OffsetDateTime,
) -> Result<Option<Created>, Failure> {
    let before = sqlx::query_as::<_, (Word<CallId>, Vec<u8>)>(
        "SELECT call_id, body_sha256 FROM idempotency
         WHERE org_id = $1 AND key = $2 AND (expires_at IS NULL OR expires_at > $3)",
    )
    .bind(org.as_str())
    .bind(kept)
    .bind(Micros::from(now))
    .fetch_optional(&mut *c)
    .await?;
    match before {
        Some((_, body)) if body != asked.body_sha256 => Ok(Some(Created::KeyReused)),
        Some((id, _)) => load(c, org, &id.0).await.map(Created::Replayed).map(Some),
        None => Ok(None),
    }
}

pub(super) async fn load(c: &mut PgConnection, org: &OrgId, id: &CallId) -> Result<Call, Failure> {
    reading::find(c, org, id)
        .await?
        .ok_or_else(|| Failure::Unexpected(format!("{id} is not where it belongs")))
}
