//! Tells people what changed: trips in the audit log, and all that is worth it in chat. Each once, however many replicas see it.
//!
//! ```text
//! a change ──▶ who leads tells it, at once                              ┐
//!        └──▶ who does not keeps it: a trip for FOLLOWS_AFTER, and then │ tells it too, unless it is told by then
//!             anything else for KEPT, and tells it if it leads by then  ┘
//! ```
//!
//! So a trip is told also when nobody leads, when who led died with it, and when its evidence reached one replica alone. That it
//! is told stands in the database, written with its audit row: of several that try, one does.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::{
    chat::Change,
    health::{Changed, TrunkState},
};
use controlplane_store::{Store, StoreError, audit::NewAuditRow};
use serde_json::json;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use crate::{audit::Audit, calls::chain, chat::Chat, registry::News, replicas::Membership};

/// How long who leads has a trip to itself: longer than it takes until another one leads.
const FOLLOWS_AFTER: Duration = Duration::from_secs(3);
/// What is told so long before it is seen here is the same: replicas hear of each other's calls within half a second, and a trunk
/// does not trip again within its first back-off, five seconds.
const SAME: Duration = Duration::from_secs(3);
/// How long it is kept for whoever leads next.
const KEPT: Duration = Duration::from_secs(10);
/// Between two looks for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Until it is tried again when the database does not take it.
const AGAIN: Duration = Duration::from_secs(1);
/// Trips, or changes, that wait. A fleet that falls while the database is away fits in it; of more the oldest are not told.
const UNTOLD_MAX: usize = 20_000;

struct Untold {
    since: Instant,
    /// Of a trip.
    row: Option<NewAuditRow>,
    change: Option<Change>,
}

/// See the module.
pub(crate) struct Telling {
    store: Arc<dyn Store>,
    audit: Arc<Audit>,
    chat: Arc<Chat>,
    membership: Arc<Membership>,
    untold: Mutex<VecDeque<Untold>>,
    work: Notify,
}

impl Telling {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        audit: Arc<Audit>,
        chat: Arc<Chat>,
        membership: Arc<Membership>,
    ) -> Arc<Self> {
        Arc::new(Self { store, audit, chat, membership, untold: Mutex::default(), work: Notify::new() })
    }

    fn untold(&self) -> MutexGuard<'_, VecDeque<Untold>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has changed.
    pub(super) fn note(&self, news: &News) {
        let row = self.row_of(news);
        if self.membership.me().is_none() {
            self.audit.keep_rows(Vec::from_iter(row));
            self.chat.note(|| worth_telling(news));
            return;
        }
        if row.is_none() && self.membership.leads() {
            self.chat.note(|| worth_telling(news));
            return;
        }
        let change = worth_telling(news).filter(|_| self.chat.has_anybody());
        if row.is_none() && change.is_none() {
            return;
        }
        let mut untold = self.untold();
        if untold.len() == UNTOLD_MAX {
            untold.pop_front();
        }
        untold.push_back(Untold { since: Instant::now(), row, change });
        drop(untold);
        self.work.notify_one();
    }

    /// Why is the registry's to tell: evidence may name destinations.
    fn row_of(&self, news: &News) -> Option<NewAuditRow> {
        let News::Changed(Changed::Trunk(name, change)) = news else { return None };
        let is_trip = change.to == TrunkState::Tripped && change.from != change.to;
        let changes = json!({"from": change.from.to_string(), "to": change.to.to_string()});
        is_trip.then(|| self.audit.row("trunk.trip", "trunk", name.to_string(), changes))
    }

    /// Tells what is due for as long as the program runs; nothing waits where there are no others.
    pub(crate) fn keep(self: &Arc<Self>) -> Option<AbortHandle> {
        self.membership.me()?;
        let telling = Arc::clone(self);
        let work = async move {
            loop {
                // Sooner than the next look where something came.
                let _ = timeout(LOOK_EVERY, telling.work.notified()).await;
                if let Err(error) = telling.tell_due().await {
                    tracing::warn!(error = %chain(&error), "what changed could not be told, trying again");
                    sleep(AGAIN).await;
                }
            }
        };
        Some(tokio::spawn(work).abort_handle())
    }

    /// Of each waiting change: tells it, forgets it, or leaves it.
    async fn tell_due(&self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut *self.untold());
        let mut waiting = waiting.into_iter();
        let (mut left, mut failed) = (VecDeque::new(), None);
        for untold in waiting.by_ref() {
            let (leads, age) = (self.membership.leads(), untold.since.elapsed());
            match &untold.row {
                None if leads => self.chat.note(|| untold.change),
                None if age < KEPT => left.push_back(untold),
                None => {}
                Some(_) if !leads && (age < FOLLOWS_AFTER || !self.membership.lives()) => {
                    left.push_back(untold);
                }
                Some(row) => {
                    let what = format!("{} {}", row.action, row.target_id);
                    match self.store.tell_once(&what, age + SAME, Some(row.clone())).await {
                        Ok(true) => self.chat.note(|| untold.change),
                        Ok(false) => {}
                        Err(error) => {
                            left.push_back(untold);
                            failed = Some(error);
                            break;
                        }
                    }
                }
            }
        }
        left.extend(waiting);
        let mut untold = self.untold();
        left.append(&mut untold);
        *untold = left;
        failed.map_or(Ok(()), Err)
    }
}

/// What operators' chat is told of.
fn worth_telling(news: &News) -> Option<Change> {
    match news {
        News::Changed(changed) => Change::of_health(changed),
        News::Panic(route, change) => Some(Change::of_panic(route.as_str(), change)),
        News::Noted(_) | News::TrunkGone(_) | News::NodeGone(_) => None,
    }
}
