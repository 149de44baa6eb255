//! The public status: what it shows is made here, twice a minute and when something changes, and lies ready for whoever
//! asks. A request reads neither the database nor the registry, so that a stranger who hammers costs what a static file costs.
//!
//! Regions are looked at every two seconds, calls are counted a minute after their end; both are written by day
//! (`controlplane_core::status`). Several replicas look, and one of them writes. Only while the door is set: without it nothing
//! is looked at and nothing is written.

mod page;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controlplane_core::{
    ids::AuditId,
    names::RegionName,
    status::{DAYS, Past, Uptime, report},
};
use controlplane_store::{
    Store, StoreError,
    calls::Actor,
    guard::day_of,
    status::{ChangeNotice, NoticeChange, NoticeChanged},
};
use time::OffsetDateTime;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

pub(crate) use self::page::{POLICY, Shown, Written, style};
use crate::{calls::chain, clock::Clock, registry::Registry};

/// Between two looks at the regions.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two writes of what was seen.
const WRITE_EVERY: Duration = Duration::from_secs(30);
/// After a start, a region that is not up yet may still be on its way.
const SETTLES: Duration = Duration::from_secs(30);
/// A call's end is certainly in the database this long after the moment that it says.
const CALLS_LAG: time::Duration = time::Duration::MINUTE;
/// Calls are counted at most this much at a time: the first count goes through all that there are.
const CALLS_STEP: time::Duration = time::Duration::DAY;
/// A database that does not answer within this is asked again at the next write.
const WRITE_MAX: Duration = Duration::from_secs(20);

/// See the module.
pub struct Status {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    clock: Clock,
    name: String,
    shown: Mutex<Arc<Shown>>,
    changed: Notify,
}

impl Status {
    /// Nothing is looked at yet; [`Status::keep`] does that. `name`: what the page is called.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, registry: Arc<Registry>, clock: Clock, name: String) -> Arc<Self> {
        let shown = Mutex::new(Arc::new(Shown::of(&report(&name, clock.now(), &[], &Past::default()))));
        Arc::new(Self { store, registry, clock, name, shown, changed: Notify::new() })
    }

    /// What everybody is shown.
    pub(crate) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every notice, newest first.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn notices(&self) -> Result<Past, StoreError> {
        self.store.past(i64::MAX).await
    }

    /// Changes a notice, and shows it at once.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn change(
        &self,
        change: NoticeChange,
        actor: Actor,
        audit_id: AuditId,
    ) -> Result<NoticeChanged, StoreError> {
        let changed =
            self.store.change_notice(ChangeNotice { change, at: self.clock.now(), actor, audit_id }).await?;
        if changed == NoticeChanged::Yes {
            self.changed.notify_one();
        }
        Ok(changed)
    }

    /// Looks, writes and renders for as long as the program runs.
    #[must_use]
    pub fn keep(self: &Arc<Self>) -> AbortHandle {
        tokio::spawn(Arc::clone(self).look_on()).abort_handle()
    }

    async fn look_on(self: Arc<Self>) {
        let (began, began_at) = (Instant::now(), self.clock.now());
        let mut uptime: Option<Uptime> = None;
        let mut past = Past::default();
        let mut last: Vec<(RegionName, bool)> = Vec::new();
        let mut written: Option<Instant> = None;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                _ = ticks.tick() => false,
                () = self.changed.notified() => true,
            };
            let now = self.clock.now();
            let regions = self.registry.regions();
            let settled = began.elapsed() > SETTLES || regions.iter().all(|(_, up)| *up);
            if uptime.is_none() {
                match self.store.told_until().await {
                    Ok(until) => uptime = Some(Uptime::resumed(until.regions, began_at)),
                    Err(error) => not_now(&error),
                }
            }
            if let Some(uptime) = uptime.as_mut().filter(|_| settled) {
                uptime.look(&regions, now);
            }
            let due = told || written.is_none_or(|at| at.elapsed() >= WRITE_EVERY);
            if due {
                written = Some(Instant::now());
                match timeout(WRITE_MAX, self.write(uptime.as_mut(), now)).await {
                    Ok(Ok(read)) => past = read,
                    Ok(Err(error)) => not_now(&error),
                    Err(_) => tracing::warn!("the database took too long for the public status"),
                }
            }
            if due || regions != last {
                let shown = Arc::new(Shown::of(&report(&self.name, now, &regions, &past)));
                *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
                last = regions;
            }
        }
    }

    /// Writes what was seen, counts calls, and reads all of it.
    async fn write(&self, uptime: Option<&mut Uptime>, now: OffsetDateTime) -> Result<Past, StoreError> {
        let first_day = day_of(now) - DAYS + 1;
        if let Some(uptime) = uptime
            && let Some(unwritten) = uptime.unwritten()
        {
            let until = unwritten.until;
            if self.store.tell_regions(unwritten, first_day).await? {
                uptime.written(until);
            } else {
                uptime.told_by_another(self.store.told_until().await?.regions);
            }
        }
        let mut from = self.store.told_until().await?.calls;
        let until = now - CALLS_LAG;
        while from.is_none_or(|from| from < until) {
            let first = OffsetDateTime::from_unix_timestamp(first_day * 86_400).unwrap_or(until);
            let step = from.unwrap_or(first).max(first) + CALLS_STEP;
            let next = step.min(until);
            // Another process counts too: it is told of either way.
            if !self.store.tell_calls(from, next).await? {
                break;
            }
            from = Some(next);
        }
        self.store.past(first_day).await
    }
}

fn not_now(error: &StoreError) {
    tracing::warn!(error = %chain(error), "the public status could not be written, trying again");
}
