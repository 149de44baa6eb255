//! News of calls on SQLite: what waits is written together.
//!
//! Each trip to SQLite's thread costs as much as a write. So what is there of all the calls is looked at in one trip, and what
//! follows from the news is written in another. What has no row in a statement leaves it empty.

use controlplane_core::{call::Detection, ending::EndingClass};
use sqlx::{FromRow, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments};

use super::{
    rounds,
    sets::{Texts, of_sizes, room_for, values},
};
use crate::{
    calls::{
        BeginAttempt, IDEMPOTENCY_KEPT,
        news::{Change, Found, Known, News, Of, Step, Told, Verdict, decide},
    },
    columns::Micros,
    error::Failure,
};

static LOOK_FOR_BEGINS: Texts = Texts::new(|| of_sizes(look_for_begins_sql));
static LOOK: Texts = Texts::new(|| of_sizes(look_sql));
static BEGIN: Texts = Texts::new(|| of_sizes(begin_sql));
static GO_ON: Texts = Texts::new(|| of_sizes(go_on_sql));

/// Writes what came at the same time: of begins alone or of none, each of another call (and begins each of another number),
/// and [`ROWS_MAX`](super::sets::ROWS_MAX) at most. What is told of each, in their order.
pub(super) async fn write(
    c: &mut SqliteConnection,
    news: &[News],
) -> Result<Vec<Result<Told, Failure>>, Failure> {
    let found = look(c, news).await?;
    for (news, found) in news.iter().zip(&found) {
        if let (Some(found), Some((number, _, now))) = (found, news.counted())
            && found.starts_lie_ahead(news)
        {
            rounds::bring_back(c, &found.call.org_id.0, number, now).await?;
        }
    }
    let verdicts: Vec<_> =
        news.iter().zip(&found).map(|(news, found)| decide(news, found.as_ref())).collect();
    let changes: Vec<_> = verdicts
        .iter()
        .filter_map(|verdict| match verdict {
            Ok(Verdict::Write(change)) => Some(change),
            Ok(Verdict::Tell(_)) | Err(_) => None,
        })
        .collect();
    if !changes.is_empty() {
        carry_out(c, &changes).await?;
    }
    let told = |verdict| match verdict {
        Verdict::Write(change) => change.told,
        Verdict::Tell(told) => told,
    };
    Ok(verdicts.into_iter().map(|verdict| verdict.map(told)).collect())
}

/// A call that was asked about, with the place of its news.
#[derive(FromRow)]
struct Row {
    n: i64,
    #[sqlx(flatten)]
    found: Found,
}

/// What is found of each one's call, if it is there.
async fn look(c: &mut SqliteConnection, news: &[News]) -> Result<Vec<Option<Found>>, Failure> {
    let begins = matches!(news.first(), Some(News::Begin(_)));
    let (room, sql) = room_for(news.len(), if begins { &LOOK_FOR_BEGINS } else { &LOOK });
    let mut query = sqlx::query_as::<_, Row>(sql);
    for n in 0..room {
        let of = news.get(n);
        query = query.bind(of.map(|of| of.call().as_str())).bind(of.map(|of| of.attempt().as_str()));
        query = if begins {
            let counted = of.and_then(News::counted);
            query
                .bind(counted.map(|(number, ..)| number.as_str()))
                .bind(counted.map(|(_, throttle, now)| Micros::from(now - throttle.horizon())))
        } else {
            query.bind(of.and_then(News::step).map(|step| step.as_str()))
        };
    }
    if begins {
        // As many as any of them wants to know of.
        let most = news.iter().filter_map(News::counted).map(|(_, throttle, _)| throttle.calls_max()).max();
        query = query.bind(i64::from(most.unwrap_or(0)));
    }
    let mut found: Vec<_> = std::iter::repeat_with(|| None).take(news.len()).collect();
    for row in query.fetch_all(c).await? {
        if let Some(place) = usize::try_from(row.n).ok().and_then(|n| found.get_mut(n)) {
            *place = Some(row.found);
        }
    }
    Ok(found)
}

const FOUND: &str = "asked.n, call.id, call.org_id, call.status, call.sequence, call.round, call.cancel_requested_at, call.deadline_at,
             call.lease_epoch, attempt.call_id AS attempt_of, attempt.status AS attempt_status, attempt.rang, attempt.heard_key";

fn look_for_begins_sql(begins: usize) -> String {
    let values = values(begins, 4);
    // No bare parameter as the limit: see `accepting`.
    format!(
        "WITH asked (call_id, attempt_id, number, since, n) AS ({values})
         SELECT {FOUND},
             (SELECT id FROM attempt WHERE call_id = call.id AND ended_at IS NULL) AS open_attempt,
             (SELECT coalesce(max(ordinal), 0) FROM attempt WHERE call_id = call.id) AS ordinal,
             EXISTS (SELECT 1 FROM attempt WHERE call_id = call.id AND round = call.round) AS round_begun,
             CASE WHEN asked.number IS NOT NULL THEN (SELECT json_group_array(started_at) FROM
                 (SELECT started_at FROM dialled WHERE org_id = call.org_id AND number = asked.number AND started_at > asked.since
                  ORDER BY started_at DESC LIMIT CAST(? AS INTEGER))) END AS starts
         FROM asked CROSS JOIN call ON call.id = asked.call_id LEFT JOIN attempt ON attempt.id = asked.attempt_id"
    )
}

fn look_sql(news: usize) -> String {
    let values = values(news, 3);
    format!(
        "WITH asked (call_id, attempt_id, step_id, n) AS ({values})
         SELECT {FOUND},
             step.call_id AS step_of, step.sequence AS step_sequence, step.reason AS step_reason, step.attempt_id AS step_attempt,
             step.ending AS step_ending, step.heard_key AS step_key, step.redial_at AS step_redial_at
         FROM asked CROSS JOIN call ON call.id = asked.call_id LEFT JOIN attempt ON attempt.id = asked.attempt_id
             LEFT JOIN call_transition AS step ON step.id = asked.step_id"
    )
}

/// Of attempts that begin, or of others.
async fn carry_out(c: &mut SqliteConnection, changes: &[&Change<'_>]) -> Result<(), Failure> {
    let begins = matches!(changes.first(), Some(Change { attempt: Of::New { .. }, .. }));
    let (room, sql) = room_for(changes.len(), if begins { &BEGIN } else { &GO_ON });
    let rows = || (0..room).map(|n| changes.get(n).copied());
    let mut query = sqlx::query(sql);
    if begins {
        for change in rows() {
            query = bind_new(query, change);
        }
        for start in rows().map(|change| change.and_then(counted)) {
            query = bind_horizon(query, start);
        }
        for start in rows().map(|change| change.and_then(counted)) {
            query = bind_start(query, start);
        }
    } else {
        for change in rows() {
            query = bind_known(query, change.and_then(known));
        }
        for change in rows() {
            query = bind_promise(query, change.and_then(|change| change.step.as_ref()));
        }
    }
    // The call, its log, the outbox.
    for step in rows().map(|change| change.and_then(|change| change.step.as_ref())) {
        query = bind_call(query, step);
    }
    for step in rows().map(|change| change.and_then(|change| change.step.as_ref())) {
        query = bind_log(query, step);
    }
    for step in rows().map(|change| change.and_then(|change| change.step.as_ref())) {
        query = bind_event(query, step);
    }
    query.execute(&mut *c).await?;
    for hear in changes.iter().filter_map(|change| known(change)?.decided) {
        sqlx::query("UPDATE call SET ack_key = $1, ack_action = $2, ack_at = $3 WHERE id = $4")
            .bind(hear.key.to_string())
            .bind(hear.action.as_str())
            .bind(Micros::from(hear.at))
            .bind(hear.call.as_str())
            .execute(&mut *c)
            .await?;
    }
    Ok(())
}

const fn known<'a>(change: &'a Change<'_>) -> Option<&'a Known<'a>> {
    match &change.attempt {
        Of::Known(known) => Some(known),
        Of::New { .. } => None,
    }
}

/// A call makes its step. While it is open, `reason`, `outcome` and `ended_at` are empty; `redial_at` while it does not wait.
fn steps_sql(steps: usize) -> String {
    format!(
        "UPDATE call SET status = step.column2, sequence = step.column3, reason = step.column4, outcome = step.column5,
             ended_at = step.column6, redial_at = step.column7, round = round + (step.column7 IS NOT NULL)
         FROM ({of_call}) AS step WHERE call.id = step.column1;
         INSERT INTO call_transition (id, org_id, call_id, sequence, status, reason, attempt_id, ending, occurred_at, outcome,
             heard_key, redial_at)
         SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, column11, column12
             FROM ({of_log}) WHERE column1 IS NOT NULL;
         INSERT INTO outbox (id, org_id, call_id, sequence, kind, created_at, due_at)
         SELECT column1, column2, column3, column4, column5, column6, column6 FROM ({of_event}) WHERE column1 IS NOT NULL",
        of_call = values(steps, 7),
        of_log = values(steps, 12),
        of_event = values(steps, 6),
    )
}

/// Attempts, and the starts of rounds whose numbers are bounded, in place of those that no window looks at any more.
fn begin_sql(begins: usize) -> String {
    format!(
        "INSERT INTO attempt (id, org_id, call_id, ordinal, node, trunk, carrier, incarnation, started_at, round, status, rang)
         SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, 'sending', 'no'
             FROM ({of_attempt}) WHERE column1 IS NOT NULL;
         DELETE FROM dialled WHERE (call_id, round) IN
             (SELECT dialled.call_id, dialled.round FROM ({of_horizon}) AS begun CROSS JOIN dialled
              WHERE dialled.org_id = begun.column1 AND number = begun.column2 AND started_at <= begun.column3);
         INSERT INTO dialled (call_id, round, org_id, number, started_at)
             SELECT column1, column2, column3, column4, column5 FROM ({of_start}) WHERE column1 IS NOT NULL;
         {steps}",
        of_attempt = values(begins, 10),
        of_horizon = values(begins, 3),
        of_start = values(begins, 5),
        steps = steps_sql(begins),
    )
}

fn go_on_sql(news: usize) -> String {
    format!(
        "UPDATE attempt SET status = news.column2, rang = news.column3, ringing_at = coalesce(ringing_at, news.column4),
             answered_at = coalesce(answered_at, news.column5), ended_at = news.column6, ending = news.column7,
             sip_code = news.column8, q850 = news.column9, heard_key = coalesce(heard_key, news.column10),
             machine = news.column11, is_untold = coalesce(news.column12, is_untold)
         FROM ({of_attempt}) AS news WHERE attempt.id = news.column1;
         UPDATE idempotency SET expires_at = ended.column2 FROM ({of_promise}) AS ended WHERE call_id = ended.column1;
         {steps}",
        of_attempt = values(news, 12),
        of_promise = values(news, 2),
        steps = steps_sql(news),
    )
}

type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

fn bind_new<'q>(query: Bound<'q>, change: Option<&Change<'_>>) -> Bound<'q> {
    let new = change.and_then(|change| match (&change.attempt, &change.step) {
        (Of::New { begin, ordinal, round, .. }, Some(step)) => Some((*begin, *ordinal, *round, step)),
        _ => None,
    });
    query
        .bind(new.map(|(begin, ..)| begin.attempt.to_string()))
        .bind(new.map(|(.., step)| step.org.to_string()))
        .bind(new.map(|(.., step)| step.call.to_string()))
        .bind(new.map(|(_, ordinal, ..)| ordinal))
        .bind(new.map(|(begin, ..)| begin.node.to_string()))
        .bind(new.map(|(begin, ..)| begin.trunk.to_string()))
        .bind(new.map(|(begin, ..)| begin.carrier.to_string()))
        .bind(new.and_then(|(begin, ..)| begin.incarnation.clone()))
        .bind(new.map(|(begin, ..)| Micros::from(begin.at)))
        .bind(new.map(|(_, _, round, _)| round))
}

/// A start that counts towards how often its number may be dialled.
type Start<'a> = (&'a BeginAttempt, i32, &'a Step<'a>);

const fn counted<'a>(change: &'a Change<'a>) -> Option<Start<'a>> {
    match (&change.attempt, &change.step) {
        (Of::New { begin, round, counts: true, .. }, Some(step)) => Some((*begin, *round, step)),
        _ => None,
    }
}

fn bind_horizon<'q>(query: Bound<'q>, start: Option<Start<'_>>) -> Bound<'q> {
    query
        .bind(start.map(|(.., step)| step.org.to_string()))
        .bind(start.map(|(begin, ..)| begin.to.to_string()))
        .bind(start.map(|(begin, ..)| Micros::from(begin.at - begin.throttle.horizon())))
}

fn bind_start<'q>(query: Bound<'q>, start: Option<Start<'_>>) -> Bound<'q> {
    query
        .bind(start.map(|(.., step)| step.call.to_string()))
        .bind(start.map(|(_, round, _)| round))
        .bind(start.map(|(.., step)| step.org.to_string()))
        .bind(start.map(|(begin, ..)| begin.to.to_string()))
        .bind(start.map(|(begin, ..)| Micros::from(begin.at)))
}

fn bind_known<'q>(query: Bound<'q>, known: Option<&Known<'_>>) -> Bound<'q> {
    let end = known.and_then(|known| known.end);
    query
        .bind(known.map(|known| known.id.to_string()))
        .bind(known.map(|known| known.status.as_str()))
        .bind(known.map(|known| known.rang.as_str()))
        .bind(known.and_then(|known| known.ringing_at).map(Micros::from))
        .bind(known.and_then(|known| known.answered_at).map(Micros::from))
        .bind(end.map(|end| Micros::from(end.at)))
        .bind(end.map(|end| end.ending.as_str()))
        .bind(end.and_then(|end| end.sip_code).map(i32::from))
        .bind(end.and_then(|end| end.q850).map(i32::from))
        .bind(known.and_then(|known| known.key).map(|key| key.to_string()))
        .bind(end.and_then(|end| end.talk.machine).map(Detection::as_str))
        .bind(end.map(|end| end.talk.untold))
}

/// When the idempotency key of a call that ends is free again.
fn bind_promise<'q>(query: Bound<'q>, step: Option<&Step<'_>>) -> Bound<'q> {
    let ended = step.filter(|step| step.end.is_some());
    query
        .bind(ended.map(|step| step.call.to_string()))
        .bind(ended.map(|step| Micros::from(step.at + IDEMPOTENCY_KEPT)))
}

fn bind_call<'q>(query: Bound<'q>, step: Option<&Step<'_>>) -> Bound<'q> {
    let end = step.and_then(|step| step.end);
    query
        .bind(step.map(|step| step.call.to_string()))
        .bind(step.map(|step| step.status.as_str()))
        .bind(step.map(|step| step.sequence))
        .bind(end.map(|end| end.reason.as_str()))
        .bind(end.map(|end| end.outcome.as_str()))
        .bind(step.filter(|step| step.end.is_some()).map(|step| Micros::from(step.at)))
        .bind(step.and_then(|step| step.redial_at).map(Micros::from))
}

fn bind_log<'q>(query: Bound<'q>, step: Option<&Step<'_>>) -> Bound<'q> {
    let end = step.and_then(|step| step.end);
    query
        .bind(step.map(|step| step.event.to_string()))
        .bind(step.map(|step| step.org.to_string()))
        .bind(step.map(|step| step.call.to_string()))
        .bind(step.map(|step| step.sequence))
        .bind(step.map(|step| step.status.as_str()))
        .bind(end.map(|end| end.reason.as_str()))
        .bind(step.map(|step| step.attempt.to_string()))
        .bind(step.and_then(|step| step.ending).map(EndingClass::as_str))
        .bind(step.map(|step| Micros::from(step.at)))
        .bind(end.map(|end| end.outcome.as_str()))
        .bind(step.and_then(|step| step.key).map(|key| key.to_string()))
        .bind(step.and_then(|step| step.redial_at).map(Micros::from))
}

fn bind_event<'q>(query: Bound<'q>, step: Option<&Step<'_>>) -> Bound<'q> {
    query
        .bind(step.map(|step| step.event.to_string()))
        .bind(step.map(|step| step.org.to_string()))
        .bind(step.map(|step| step.call.to_string()))
        .bind(step.map(|step| step.sequence))
        .bind(step.map(|step| step.kind))
        .bind(step.map(|step| Micros::from(step.at)))
}
