//! What strangers are shown of the past, by day, and what operators say to everybody.

use async_trait::async_trait;
use controlplane_core::{
    ids::{AuditId, NoticeId},
    status::{
        CallsDay, Past, RegionDay, Service, Unwritten,
        notice::{Notice, Update},
        service,
    },
};
use time::OffsetDateTime;

use crate::{StoreError, calls::Actor};

/// Most notices that are kept; the oldest that are over go first, and open ones are never more.
pub const NOTICES_MAX: u16 = 200;

/// What an operator does to a notice.
#[derive(Debug, Clone)]
pub enum NoticeChange {
    /// Says something new.
    Make(Notice),
    /// Says more of it, and that it is over, or not yet.
    Tell {
        /// Which one.
        id: NoticeId,
        /// What is said.
        update: Update,
        /// Whether it is over.
        ends: bool,
    },
    /// Takes it away, as if it had never been said.
    Remove(NoticeId),
}

impl NoticeChange {
    /// Which notice.
    #[must_use]
    pub const fn id(&self) -> &NoticeId {
        match self {
            Self::Make(notice) => &notice.id,
            Self::Tell { id, .. } | Self::Remove(id) => id,
        }
    }

    pub(crate) const fn action(&self) -> &'static str {
        match self {
            Self::Make(_) => "notice.create",
            Self::Tell { .. } => "notice.update",
            Self::Remove(_) => "notice.delete",
        }
    }

    /// What the audit log has of it: all, since everybody may read it.
    pub(crate) fn told(&self) -> serde_json::Value {
        match self {
            Self::Make(notice) => serde_json::json!({"title": notice.title, "updates": notice.updates}),
            Self::Tell { update, ends, .. } => serde_json::json!({"text": update.text, "ends": ends}),
            Self::Remove(_) => serde_json::json!({}),
        }
    }
}

/// A change of a notice: one transaction, with its audit row.
#[derive(Debug, Clone)]
pub struct ChangeNotice {
    /// What is done.
    pub change: NoticeChange,
    /// Now.
    pub at: OffsetDateTime,
    /// Who.
    pub actor: Actor,
    /// Id of the audit row.
    pub audit_id: AuditId,
}

/// What came of [`StatusStore::change_notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum NoticeChanged {
    /// It is so.
    Yes,
    /// There is no such notice. Nothing was written.
    Missing,
    /// It is over, has [`UPDATES_MAX`](controlplane_core::status::notice::UPDATES_MAX) texts, or there are
    /// [`NOTICES_MAX`] open ones. Nothing was written.
    Full,
}

/// Up to when the past is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToldUntil {
    /// Of regions.
    pub regions: Option<OffsetDateTime>,
    /// Of calls.
    pub calls: Option<OffsetDateTime>,
}

/// Public status.
#[async_trait]
pub trait StatusStore {
    /// Up to when the past is told.
    async fn told_until(&self) -> Result<ToldUntil, StoreError>;
    /// Adds what was seen of regions, and forgets days before `first_day` (since 1970-01-01) and notices that were over
    /// before it. `false`: somebody else has told of this time meanwhile. Nothing was written.
    async fn tell_regions(&self, seen: Unwritten, first_day: i64) -> Result<bool, StoreError>;
    /// Adds the calls that ended after `from` and until `until`, of all organisations, by their reasons; rehearsals are
    /// none. `false`: somebody else has told of this time meanwhile. Nothing was written.
    async fn tell_calls(
        &self,
        from: Option<OffsetDateTime>,
        until: OffsetDateTime,
    ) -> Result<bool, StoreError>;
    /// What is known from this day on, and every notice, newest first.
    async fn past(&self, first_day: i64) -> Result<Past, StoreError>;
    /// Changes a notice.
    async fn change_notice(&self, change: ChangeNotice) -> Result<NoticeChanged, StoreError>;
}

/// Calls by day and reason, as days.
pub(crate) fn calls_days(rows: Vec<(i64, String, i64)>) -> Vec<CallsDay> {
    let mut days: std::collections::BTreeMap<i64, CallsDay> = std::collections::BTreeMap::new();
    for (day, reason, calls) in rows {
        // A word of another release says nothing here.
        let Ok(reason) = reason.parse() else { continue };
        let of_day = days.entry(day).or_insert(CallsDay { day, served: 0, missed: 0 });
        match service(reason) {
            Service::Served => of_day.served += calls,
            Service::Missed => of_day.missed += calls,
            Service::Apart => {}
        }
    }
    days.into_values().filter(|day| day.served + day.missed > 0).collect()
}

/// A region's day, as both databases give it. A name that none can be is passed over.
pub(crate) fn region_day((region, day, up_ms, down_ms): (String, i64, i64, i64)) -> Option<RegionDay> {
    let region = region.parse().inspect_err(|error| tracing::error!(%error, "a region's day is passed over"));
    Some(RegionDay { region: region.ok()?, day, up_ms, down_ms })
}
