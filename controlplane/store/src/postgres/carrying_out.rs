//! What follows from news of calls, written on PostgreSQL in one statement for a whole set.
//!
//! Its call's step before its attempt: triggers count what the organisation has open with the one, and what it has used of its day with the
//! other. Who accepts locks both counts in this order too.

use controlplane_core::{call::Detection, ending::EndingClass};
use sqlx::PgConnection;

use super::accounts::leaving_max;
use crate::{
    calls::{
        BeginAttempt, IDEMPOTENCY_KEPT,
        news::{Change, Known, Of, Step},
    },
    columns::kept,
    error::Failure,
};

/// A column of the rows.
fn each<'a, R, T>(rows: &'a [R], column: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(column).collect()
}

/// An attempt that begins.
struct New<'a> {
    begin: &'a BeginAttempt,
    ordinal: i64,
    round: i32,
    counts: bool,
    step: &'a Step<'a>,
}

impl<'a> New<'a> {
    const fn of(change: &'a Change<'a>) -> Option<Self> {
        match (&change.attempt, &change.step) {
            (&Of::New { begin, ordinal, round, counts }, Some(step)) => {
                Some(Self { begin, ordinal, round, counts, step })
            }
            _ => None,
        }
    }
}

/// Attempts, the starts of rounds whose numbers are bounded, in place of those that no window looks at any more, and places on accounts.
pub(super) async fn begin(c: &mut PgConnection, changes: &[&Change<'_>]) -> Result<(), Failure> {
    let new: Vec<_> = changes.iter().filter_map(|change| New::of(change)).collect();
    sqlx::query(
        "WITH asked AS MATERIALIZED (
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[],
                 $9::timestamptz[], $10::integer[], $11::text[], $12::timestamptz[], $13::text[], $14::text[], $15::text[],
                 $16::bigint[], $17::text[])
                 AS asked (attempt_id, org_id, call_id, ordinal, node, trunk, carrier, incarnation, at, round, number, horizon,
                     account, event_id, status, sequence, kind)
         ), begun AS (
             INSERT INTO attempt (id, org_id, call_id, ordinal, node, trunk, carrier, status, rang, incarnation, started_at, round)
             SELECT attempt_id, org_id, call_id, ordinal, node, trunk, carrier, 'sending', 'no', incarnation, at, round FROM asked
         ), forgotten AS (
             DELETE FROM dialled USING asked
             WHERE dialled.org_id = asked.org_id AND dialled.number = asked.number AND dialled.started_at <= asked.horizon
         ), counted AS (
             INSERT INTO dialled (call_id, round, org_id, number, started_at)
             SELECT call_id, round, org_id, number, at FROM asked WHERE number IS NOT NULL
         ), past AS (
             DELETE FROM carrier_start USING (SELECT DISTINCT account FROM asked) AS over
             WHERE carrier = over.account AND at < statement_timestamp() - interval '1 minute'
         ), started AS (
             INSERT INTO carrier_start (carrier, at, attempt_id, left_at)
             SELECT account, clock_timestamp(), attempt_id, NULL FROM asked WHERE account IS NOT NULL
         ), held AS (
             INSERT INTO carrier_channel (attempt_id, carrier)
             SELECT attempt_id, account FROM asked WHERE account IS NOT NULL ON CONFLICT (attempt_id) DO NOTHING
         ), stepped AS (
             UPDATE call SET status = asked.status, sequence = asked.sequence, redial_at = NULL
             FROM asked WHERE call.id = asked.call_id
         ), logged AS (
             INSERT INTO call_transition (id, org_id, call_id, sequence, status, attempt_id, occurred_at)
             SELECT event_id, org_id, call_id, sequence, status, attempt_id, at FROM asked
         )
         INSERT INTO outbox (id, org_id, call_id, sequence, kind, created_at, due_at)
         SELECT event_id, org_id, call_id, sequence, kind, at, at FROM asked",
    )
    .bind(each(&new, |new| new.begin.attempt.as_str()))
    .bind(each(&new, |new| new.step.org.as_str()))
    .bind(each(&new, |new| new.step.call.as_str()))
    .bind(each(&new, |new| new.ordinal))
    .bind(each(&new, |new| new.begin.node.as_str()))
    .bind(each(&new, |new| new.begin.trunk.as_str()))
    .bind(each(&new, |new| new.begin.carrier.as_str()))
    .bind(each(&new, |new| new.begin.incarnation.as_deref()))
    .bind(each(&new, |new| kept(new.begin.at)))
    .bind(each(&new, |new| new.round))
    .bind(each(&new, |new| new.counts.then(|| new.begin.to.as_str())))
    .bind(each(&new, |new| kept(new.begin.at - new.begin.throttle.horizon())))
    .bind(each(&new, |new| new.begin.account.map(|_| new.begin.carrier.as_str())))
    .bind(each(&new, |new| new.step.event.as_str()))
    .bind(each(&new, |new| new.step.status.as_str()))
    .bind(each(&new, |new| new.step.sequence))
    .bind(each(&new, |new| new.step.kind))
    .execute(c)
    .await?;
    Ok(())
}

/// Attempts that go on or end, with the step of the call that this makes.
struct GoesOn<'a> {
    known: &'a Known<'a>,
    step: Option<&'a Step<'a>>,
}

impl<'a> GoesOn<'a> {
    const fn of(change: &'a Change<'a>) -> Option<Self> {
        match &change.attempt {
            Of::Known(known) => Some(Self { known, step: change.step.as_ref() }),
            Of::New { .. } => None,
        }
    }

    /// The call, where anything is written of it.
    fn call(&self) -> Option<&'a str> {
        let step = self.step.map(|step| step.call);
        step.or(self.known.decided.map(|hear| &hear.call)).map(|call| call.as_str())
    }

    /// The step that ends the call.
    fn last(&self) -> Option<&'a Step<'a>> {
        self.step.filter(|step| step.end.is_some())
    }
}

/// A start that was not sent counts no more, and one of which there are news too late does not count again. While a call is open, `reason`, `outcome` and `ended_at` are empty; `redial_at` while it does not wait.
pub(super) async fn go_on(c: &mut PgConnection, changes: &[&Change<'_>]) -> Result<(), Failure> {
    let news: Vec<_> = changes.iter().filter_map(|change| GoesOn::of(change)).collect();
    let query = sqlx::query(concat!(
        "WITH asked AS MATERIALIZED (
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[],
                 $7::text[], $8::integer[], $9::integer[], $10::text[], $11::text[], $12::bool[], $13::text[], $14::text[],
                 $15::text[], $16::bigint[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::timestamptz[],
                 $23::timestamptz[], $24::timestamptz[], $25::timestamptz[], $26::text[], $27::text[], $28::text[],
                 $29::timestamptz[])
                 AS asked (attempt_id, attempt_status, rang, ringing_at, answered_at, ended_at, ending, sip_code, q850, attempt_key,
                     machine, is_untold, call_id, event_id, org_id, sequence, status, reason, outcome, step_ending, step_key,
                     redial_at, at, call_ended_at, free_at, kind, ack_key, ack_action, ack_at)
         ), stepped AS (
             UPDATE call SET status = coalesce(asked.status, call.status), sequence = coalesce(asked.sequence, call.sequence),
                 reason = asked.reason, outcome = asked.outcome, ended_at = asked.call_ended_at, redial_at = asked.redial_at,
                 round = call.round + (asked.redial_at IS NOT NULL)::integer, ack_key = coalesce(asked.ack_key, call.ack_key),
                 ack_action = coalesce(asked.ack_action, call.ack_action), ack_at = coalesce(asked.ack_at, call.ack_at)
             FROM asked WHERE call.id = asked.call_id
             RETURNING call.id
         ), went_on AS (
             UPDATE attempt SET status = asked.attempt_status, rang = asked.rang,
                 ringing_at = coalesce(attempt.ringing_at, asked.ringing_at),
                 answered_at = coalesce(attempt.answered_at, asked.answered_at), ended_at = asked.ended_at, ending = asked.ending,
                 sip_code = asked.sip_code, q850 = asked.q850, heard_key = coalesce(attempt.heard_key, asked.attempt_key),
                 machine = asked.machine, is_untold = coalesce(asked.is_untold, attempt.is_untold)
             FROM asked WHERE attempt.id = asked.attempt_id AND (SELECT count(*) FROM stepped) >= 0
         ), left_now AS (
             UPDATE carrier_start AS s
             SET left_at = CASE WHEN asked.ending = 'not_sent' THEN s.at - interval '1 minute' ELSE clock_timestamp() END
             FROM asked
             WHERE s.attempt_id = asked.attempt_id AND s.left_at IS NULL AND s.at > statement_timestamp() - ",
        leaving_max!(),
        "), freed AS (
             DELETE FROM carrier_channel USING asked
             WHERE carrier_channel.attempt_id = asked.attempt_id AND asked.ended_at IS NOT NULL
         ), promised AS (
             UPDATE idempotency SET expires_at = asked.free_at FROM asked
             WHERE idempotency.call_id = asked.call_id AND asked.free_at IS NOT NULL
         ), logged AS (
             INSERT INTO call_transition (id, org_id, call_id, sequence, status, reason, attempt_id, ending, occurred_at, outcome,
                 heard_key, redial_at)
             SELECT event_id, org_id, call_id, sequence, status, reason, attempt_id, step_ending, at, outcome, step_key, redial_at
             FROM asked WHERE event_id IS NOT NULL
         )
         INSERT INTO outbox (id, org_id, call_id, sequence, kind, created_at, due_at)
         SELECT event_id, org_id, call_id, sequence, kind, at, at FROM asked WHERE event_id IS NOT NULL"
    ));
    query
        .bind(each(&news, |news| news.known.id.as_str()))
        .bind(each(&news, |news| news.known.status.as_str()))
        .bind(each(&news, |news| news.known.rang.as_str()))
        .bind(each(&news, |news| news.known.ringing_at.map(kept)))
        .bind(each(&news, |news| news.known.answered_at.map(kept)))
        .bind(each(&news, |news| news.known.end.map(|end| kept(end.at))))
        .bind(each(&news, |news| news.known.end.map(|end| end.ending.as_str())))
        .bind(each(&news, |news| news.known.end.and_then(|end| end.sip_code).map(i32::from)))
        .bind(each(&news, |news| news.known.end.and_then(|end| end.q850).map(i32::from)))
        .bind(each(&news, |news| news.known.key.map(|key| key.to_string())))
        .bind(each(&news, |news| news.known.end.and_then(|end| end.talk.machine).map(Detection::as_str)))
        .bind(each(&news, |news| news.known.end.map(|end| end.talk.untold)))
        .bind(each(&news, GoesOn::call))
        .bind(each(&news, |news| news.step.map(|step| step.event.as_str())))
        .bind(each(&news, |news| news.step.map(|step| step.org.as_str())))
        .bind(each(&news, |news| news.step.map(|step| step.sequence)))
        .bind(each(&news, |news| news.step.map(|step| step.status.as_str())))
        .bind(each(&news, |news| news.step.and_then(|step| step.end).map(|end| end.reason.as_str())))
        .bind(each(&news, |news| news.step.and_then(|step| step.end).map(|end| end.outcome.as_str())))
        .bind(each(&news, |news| news.step.and_then(|step| step.ending).map(EndingClass::as_str)))
        .bind(each(&news, |news| news.step.and_then(|step| step.key).map(|key| key.to_string())))
        .bind(each(&news, |news| news.step.and_then(|step| step.redial_at).map(kept)))
        .bind(each(&news, |news| news.step.map(|step| kept(step.at))))
        .bind(each(&news, |news| news.last().map(|step| kept(step.at))))
        .bind(each(&news, |news| news.last().map(|step| kept(step.at + IDEMPOTENCY_KEPT))))
        .bind(each(&news, |news| news.step.map(|step| step.kind)))
        .bind(each(&news, |news| news.known.decided.map(|hear| hear.key.to_string())))
        .bind(each(&news, |news| news.known.decided.map(|hear| hear.action.as_str())))
        .bind(each(&news, |news| news.known.decided.map(|hear| kept(hear.at))))
        .execute(c)
        .await?;
    Ok(())
}
