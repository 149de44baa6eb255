//! News of calls on PostgreSQL: what came at the same time is looked at in one trip and written in another, whatever it is of.
//!
//! Locks are taken before anything is looked at, in the text that begins the transaction and in one order: the calls' rows by their ids,
//! accounts' turns, numbers' turns. A statement that waits for a lock would see what was there when it began to wait.

use std::collections::BTreeSet;

use controlplane_core::{number::E164, throttle::Throttle};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;

use super::{
    accounts,
    carrying_out::{begin, go_on},
    rounds,
};
use crate::{
    calls::{
        Begun,
        account::within,
        news::{Change, Found, News, Of, Told, Verdict, decide},
    },
    columns::kept,
    error::Failure,
    gathering::Group,
};

/// Begins a transaction that has locked what the set is about. Other rows may refer to these calls meanwhile.
pub(super) fn locking(news: &[News]) -> String {
    let ids: BTreeSet<_> = news.iter().map(|news| format!("'{}'", news.call())).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let mut text =
        format!("BEGIN; SELECT FROM call WHERE id IN ({}) ORDER BY id FOR NO KEY UPDATE", ids.join(", "));
    let carriers: Vec<_> = news.iter().filter_map(News::account).map(|(carrier, _)| carrier).collect();
    if !carriers.is_empty() {
        text = text + "; " + &accounts::turns(&carriers);
    }
    let counted = news.iter().filter_map(|news| Some((news.call(), news.counted()?.0)));
    let numbers: Vec<_> = counted.collect();
    if !numbers.is_empty() {
        text = text + "; " + &rounds::turns(&numbers);
    }
    text
}

/// Writes a set, in a transaction that [`locking`] has begun. What is told of each, in their order.
pub(super) async fn write(c: &mut PgConnection, set: &Group) -> Result<Vec<Result<Told, Failure>>, Failure> {
    let news = set.news();
    let found = look(c, news).await?;
    let wanted: Vec<_> = news.iter().filter_map(News::account).collect();
    let mut rooms = accounts::rooms(c, &wanted).await?;
    let mut verdicts = Vec::with_capacity(news.len());
    for (news, found) in news.iter().zip(&found) {
        let verdict = decide(news, found.as_ref()).map(|verdict| within(verdict, news, &mut rooms));
        let looks_at_starts =
            matches!(verdict, Ok(Verdict::Write(_) | Verdict::Tell(Told::Begun(Begun::Held { .. }))));
        if let (true, Some(found), Some((number, _, now))) = (looks_at_starts, found, news.counted())
            && found.starts_lie_ahead(news)
        {
            rounds::bring_back(c, &found.call.org_id.0, number, now).await?;
        }
        verdicts.push(verdict);
    }
    let changes: Vec<_> = verdicts
        .iter()
        .filter_map(|verdict| match verdict {
            Ok(Verdict::Write(change)) => Some(change),
            Ok(Verdict::Tell(_)) | Err(_) => None,
        })
        .collect();
    carry_out(c, &changes).await?;
    let told = |verdict| match verdict {
        Verdict::Write(change) => change.told,
        Verdict::Tell(told) => told,
    };
    Ok(verdicts.into_iter().map(|verdict| verdict.map(told)).collect())
}

/// Of attempts that begin, or of others.
async fn carry_out(c: &mut PgConnection, changes: &[&Change<'_>]) -> Result<(), Failure> {
    match changes.first().map(|change| &change.attempt) {
        Some(Of::New { .. }) => begin(c, changes).await,
        Some(Of::Known(_)) => go_on(c, changes).await,
        None => Ok(()),
    }
}

/// A call that was asked about, with the place of its news, from 1.
#[derive(FromRow)]
struct Row {
    n: i64,
    #[sqlx(flatten)]
    found: Found,
}

/// As far back as a number's windows look.
fn since((_, throttle, now): (&E164, &Throttle, OffsetDateTime)) -> OffsetDateTime {
    kept(now - throttle.horizon())
}

/// What is found of each one's call, if it is there.
async fn look(c: &mut PgConnection, news: &[News]) -> Result<Vec<Option<Found>>, Failure> {
    let calls: Vec<_> = news.iter().map(|news| news.call().as_str()).collect();
    let attempts: Vec<_> = news.iter().map(|news| news.attempt().as_str()).collect();
    let rows = if matches!(news.first(), Some(News::Begin(_))) {
        let counted = || news.iter().map(News::counted);
        // As many as any of them wants to know of.
        let most = counted().flatten().map(|(_, throttle, _)| throttle.calls_max()).max();
        sqlx::query_as::<_, Row>(LOOK_FOR_BEGINS)
            .bind(calls)
            .bind(attempts)
            .bind(counted().map(|of| of.map(|(number, ..)| number.as_str())).collect::<Vec<_>>())
            .bind(counted().map(|of| of.map(since)).collect::<Vec<_>>())
            .bind(i64::from(most.unwrap_or(0)))
            .fetch_all(c)
            .await?
    } else {
        sqlx::query_as::<_, Row>(LOOK)
            .bind(calls)
            .bind(attempts)
            .bind(news.iter().map(|news| news.step().map(|step| step.as_str())).collect::<Vec<_>>())
            .fetch_all(c)
            .await?
    };
    let mut found: Vec<_> = std::iter::repeat_with(|| None).take(news.len()).collect();
    for row in rows {
        if let Some(place) = usize::try_from(row.n - 1).ok().and_then(|n| found.get_mut(n)) {
            *place = Some(row.found);
        }
    }
    Ok(found)
}

macro_rules! select_found {
    ($more:literal, $from:literal) => {
        concat!(
            "SELECT asked.n, call.id, call.org_id, call.status, call.sequence, call.round, call.cancel_requested_at,
                 call.deadline_at, call.lease_epoch, attempt.call_id AS attempt_of, attempt.status AS attempt_status,
                 attempt.rang, attempt.heard_key, ",
            $more,
            $from,
            " JOIN call ON call.id = asked.call_id LEFT JOIN attempt ON attempt.id = asked.attempt_id"
        )
    };
}

const LOOK_FOR_BEGINS: &str = select_found!(
    "(SELECT id FROM attempt WHERE call_id = call.id AND ended_at IS NULL) AS open_attempt,
     (SELECT coalesce(max(ordinal), 0)::bigint FROM attempt WHERE call_id = call.id) AS ordinal,
     coalesce((SELECT true FROM attempt WHERE call_id = call.id AND round = call.round LIMIT 1), false) AS round_begun,
     CASE WHEN asked.number IS NOT NULL THEN (
         SELECT jsonb_agg((extract(epoch FROM started_at) * 1000000)::bigint ORDER BY started_at DESC) FROM (
             SELECT started_at FROM dialled
             WHERE org_id = call.org_id AND number = asked.number AND started_at > asked.since
             ORDER BY started_at DESC LIMIT $5) AS latest) END AS starts",
    " FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) WITH ORDINALITY
         AS asked (call_id, attempt_id, number, since, n)"
);

const LOOK: &str = concat!(
    select_found!(
        "step.call_id AS step_of, step.sequence AS step_sequence, step.reason AS step_reason, step.attempt_id AS step_attempt,
         step.ending AS step_ending, step.heard_key AS step_key, step.redial_at AS step_redial_at",
        " FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (call_id, attempt_id, step_id, n)"
    ),
    " LEFT JOIN call_transition AS step ON step.id = asked.step_id"
);
