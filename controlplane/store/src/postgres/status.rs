//! Public status on PostgreSQL.

use async_trait::async_trait;
use controlplane_core::{
    ids::NoticeId,
    status::{
        CallsDay, Past, Unwritten,
        notice::{Notice, UPDATES_MAX, Update},
    },
};
use sqlx::{PgConnection, types::Json, types::time::OffsetDateTime};

use super::{PostgresStore, audit};
use crate::{
    StatusStore, StoreError,
    columns::{Micros, Word},
    error::Failure,
    status::{ChangeNotice, NOTICES_MAX, NoticeChange, NoticeChanged, ToldUntil, calls_days, region_day},
};

type NoticeRow = (Word<NoticeId>, String, Json<Vec<Update>>, Micros, Option<Micros>);

#[async_trait]
impl StatusStore for PostgresStore {
    async fn told_until(&self) -> Result<ToldUntil, StoreError> {
        let (regions, calls) = sqlx::query_as::<_, (Option<Micros>, Option<Micros>)>(
            "SELECT regions_until, calls_until FROM status_told WHERE id = 1",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(|error| self.failed("read up to when status is told", error))?;
        Ok(ToldUntil { regions: regions.map(|at| at.0), calls: calls.map(|at| at.0) })
    }

    async fn tell_regions(&self, seen: Unwritten, first_day: i64) -> Result<bool, StoreError> {
        let input = (seen, first_day);
        self.transaction("tell of regions", input, |c, (seen, first_day)| {
            Box::pin(regions(c, seen, *first_day))
        })
        .await
    }

    async fn tell_calls(
        &self,
        from: Option<OffsetDateTime>,
        until: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        // Read outside of the transaction, which holds a row: what is told of ended long enough ago not to change.
        let rows = sqlx::query_as::<_, (i64, String, i64)>(
            "SELECT CAST(floor(extract(epoch FROM call.ended_at) / 86400) AS bigint), call.reason, count(*)
             FROM org JOIN call ON call.org_id = org.org_id
             WHERE call.ended_at > $1 AND call.ended_at <= $2 AND call.mode = 'live' GROUP BY 1, 2",
        )
        .bind(Micros::from(from.unwrap_or(OffsetDateTime::UNIX_EPOCH)))
        .bind(Micros::from(until))
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.failed("count calls for status", error))?;
        let input = (from, until, calls_days(rows));
        self.transaction("tell of calls", input, |c, (from, until, days)| {
            Box::pin(calls(c, *from, *until, days))
        })
        .await
    }

    async fn past(&self, first_day: i64) -> Result<Past, StoreError> {
        let mut reading = self.reading("read the past for status").await?;
        let failed = |error| self.failed("read the past for status", error);
        let regions = sqlx::query_as::<_, (String, i64, i64, i64)>(
            "SELECT region, day, up_ms, down_ms FROM status_region_day WHERE day >= $1 ORDER BY region, day",
        )
        .bind(first_day)
        .fetch_all(&mut *reading)
        .await
        .map_err(failed)?;
        let calls = sqlx::query_as::<_, (i64, i64, i64)>(
            "SELECT day, served, missed FROM status_calls_day WHERE day >= $1 ORDER BY day",
        )
        .bind(first_day)
        .fetch_all(&mut *reading)
        .await
        .map_err(failed)?;
        let notices = sqlx::query_as::<_, NoticeRow>(
            "SELECT id, title, updates, started_at, ended_at FROM status_notice ORDER BY id DESC",
        )
        .fetch_all(&mut *reading)
        .await
        .map_err(failed)?;
        let notice = |(id, title, updates, started_at, ended_at): NoticeRow| Notice {
            id: id.0,
            title,
            updates: updates.0,
            started_at: started_at.0,
            ended_at: ended_at.map(|at| at.0),
        };
        Ok(Past {
            regions: regions.into_iter().filter_map(region_day).collect(),
            calls: calls.into_iter().map(|(day, served, missed)| CallsDay { day, served, missed }).collect(),
            notices: notices.into_iter().map(notice).collect(),
        })
    }

    async fn change_notice(&self, change: ChangeNotice) -> Result<NoticeChanged, StoreError> {
        self.transaction("change a notice", change, |c, change| Box::pin(self::change(c, change))).await
    }
}

async fn regions(c: &mut PgConnection, seen: &Unwritten, first_day: i64) -> Result<bool, Failure> {
    let told =
        sqlx::query("UPDATE status_told SET regions_until = $1 WHERE regions_until IS NOT DISTINCT FROM $2")
            .bind(Micros::from(seen.until))
            .bind(seen.from.map(Micros::from))
            .execute(&mut *c)
            .await?;
    if told.rows_affected() == 0 {
        return Ok(false);
    }
    for day in &seen.days {
        sqlx::query(
            "INSERT INTO status_region_day (region, day, up_ms, down_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (region, day) DO UPDATE
                 SET up_ms = status_region_day.up_ms + excluded.up_ms,
                     down_ms = status_region_day.down_ms + excluded.down_ms",
        )
        .bind(day.region.as_str())
        .bind(day.day)
        .bind(day.up_ms)
        .bind(day.down_ms)
        .execute(&mut *c)
        .await?;
    }
    for sql in [
        "DELETE FROM status_region_day WHERE day < $1",
        "DELETE FROM status_calls_day WHERE day < $1",
        "DELETE FROM status_notice WHERE ended_at < to_timestamp(CAST($1 AS bigint) * 86400)",
    ] {
        sqlx::query(sql).bind(first_day).execute(&mut *c).await?;
    }
    Ok(true)
}

async fn calls(
    c: &mut PgConnection,
    from: Option<OffsetDateTime>,
    until: OffsetDateTime,
    days: &[CallsDay],
) -> Result<bool, Failure> {
    let told =
        sqlx::query("UPDATE status_told SET calls_until = $1 WHERE calls_until IS NOT DISTINCT FROM $2")
            .bind(Micros::from(until))
            .bind(from.map(Micros::from))
            .execute(&mut *c)
            .await?;
    if told.rows_affected() == 0 {
        return Ok(false);
    }
    for day in days {
        sqlx::query(
            "INSERT INTO status_calls_day (day, served, missed) VALUES ($1, $2, $3)
             ON CONFLICT (day) DO UPDATE
                 SET served = status_calls_day.served + excluded.served,
                     missed = status_calls_day.missed + excluded.missed",
        )
        .bind(day.day)
        .bind(day.served)
        .bind(day.missed)
        .execute(&mut *c)
        .await?;
    }
    Ok(true)
}

async fn change(c: &mut PgConnection, change: &ChangeNotice) -> Result<NoticeChanged, Failure> {
    let done = match &change.change {
        NoticeChange::Make(notice) => make(c, notice).await?,
        NoticeChange::Tell { id, update, ends } => tell(c, id, update, *ends).await?,
        NoticeChange::Remove(id) => {
            let removed = sqlx::query("DELETE FROM status_notice WHERE id = $1").bind(id.as_str());
            match removed.execute(&mut *c).await?.rows_affected() {
                0 => NoticeChanged::Missing,
                _ => NoticeChanged::Yes,
            }
        }
    };
    if done == NoticeChanged::Yes {
        let entry = audit::Entry {
            id: &change.audit_id,
            org: None,
            at: change.at,
            actor: &change.actor,
            action: change.change.action(),
            target_type: "notice",
            target_id: change.change.id().as_str(),
            changes: &change.change.told(),
        };
        audit::write(c, entry).await?;
    }
    Ok(done)
}

async fn make(c: &mut PgConnection, notice: &Notice) -> Result<NoticeChanged, Failure> {
    let open: i64 = sqlx::query_scalar("SELECT count(*) FROM status_notice WHERE ended_at IS NULL")
        .fetch_one(&mut *c)
        .await?;
    if open >= i64::from(NOTICES_MAX) {
        return Ok(NoticeChanged::Full);
    }
    sqlx::query(
        "DELETE FROM status_notice WHERE id IN (SELECT id FROM status_notice WHERE ended_at IS NOT NULL
             ORDER BY id DESC OFFSET $1)",
    )
    .bind(i64::from(NOTICES_MAX) - open - 1)
    .execute(&mut *c)
    .await?;
    sqlx::query(
        "INSERT INTO status_notice (id, title, updates, started_at, ended_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(notice.id.as_str())
    .bind(&notice.title)
    .bind(Json(&notice.updates))
    .bind(Micros::from(notice.started_at))
    .bind(notice.ended_at.map(Micros::from))
    .execute(c)
    .await?;
    Ok(NoticeChanged::Yes)
}

async fn tell(
    c: &mut PgConnection,
    id: &NoticeId,
    update: &Update,
    ends: bool,
) -> Result<NoticeChanged, Failure> {
    let row = sqlx::query_as::<_, (Json<Vec<Update>>, Option<Micros>)>(
        "SELECT updates, ended_at FROM status_notice WHERE id = $1 FOR UPDATE",
    )
    .bind(id.as_str())
    .fetch_optional(&mut *c)
    .await?;
    let Some((Json(mut updates), ended_at)) = row else { return Ok(NoticeChanged::Missing) };
    if ended_at.is_some() || updates.len() >= UPDATES_MAX {
        return Ok(NoticeChanged::Full);
    }
    updates.push(update.clone());
    sqlx::query("UPDATE status_notice SET updates = $1, ended_at = $2 WHERE id = $3")
        .bind(Json(updates))
        .bind(ends.then(|| Micros::from(update.at)))
        .bind(id.as_str())
        .execute(c)
        .await?;
    Ok(NoticeChanged::Yes)
}
