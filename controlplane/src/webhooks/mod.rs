//! Events on their way to customers: numbered, delivered to webhooks, shown in streams, erased when old.
//!
//! ```text
//! a call's step ──▶ outbox row ──▶ number, deliveries ──▶ a lane's task ──▶ POST ──▶ delivered | again | dead
//!   (one transaction)          (one transaction)     └──▶ event streams
//! ```
//!
//! Every arrow is a look at the database, on a timer and on a nudge that carries no data: nothing is lost with
//! the process, and what was sent before it died, and not written down, is sent again under the same id.

mod guard;
mod lanes;
mod metrics;
mod pool;
mod render;
pub mod sealing;
mod secret_file;
mod sending;
mod signing;
mod streams;

use std::{sync::Arc, time::Duration};

use controlplane_core::ids::OrgId;
use controlplane_store::Store;
use serde_json::json;
use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

pub use self::sending::ClientError;
pub(crate) use self::{
    guard::Blocked,
    metrics::WebhookMetrics,
    render::EventView,
    sealing::OpenedSecrets,
    secret_file::{SecretError, secret_of},
    signing::shown,
    streams::{Place, Streams},
};
use self::{
    guard::{Guard, SystemLookup},
    lanes::{LANES_EACH, Lanes},
    pool::Pool,
    sealing::Seals,
    sending::{Sender, Tried},
};
use crate::{
    calls::chain,
    clock::{Chance, Clock},
    metrics::Metrics,
    settings::WebhookSettings,
    traces::Traces,
};

/// Between two looks for events without a number that nobody nudged for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What comes within this time is numbered together: each time is a commit of its own, as much as a call's step.
const GATHER: Duration = Duration::from_millis(20);
/// So often another one is found numbering before that is told: some 5 s, and the database ends who stands still after one.
const PASSED_BY_MAX: u32 = 250;
/// Calls whose events are numbered in one transaction.
const SEAL_MAX: u16 = 200;
/// Lanes that one look wakes up.
const LANES_LOOK: u16 = 1_000;
/// Tests by hand under way at a time: each is a connection for 15 s at most.
const TESTS_MAX: usize = 16;
/// Of them one organisation's.
const TESTS_EACH: usize = 2;
/// Between two looks at what operators are told.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Between two looks for what is old.
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// How long an event can be read, delivered and replayed.
pub(crate) const EVENTS_KEPT: time::Duration =
    time::Duration::days(controlplane_core::retention::EVENTS_DAYS_MAX as i64);
/// Rows that are erased in one transaction: calls wait no longer than for that.
const PURGE_MAX: u16 = 500;
/// Between two such transactions.
const PURGE_PAUSE: Duration = Duration::from_millis(100);

/// What the parts work with.
struct Shared {
    store: Arc<dyn Store>,
    clock: Clock,
    chance: Chance,
    metrics: Arc<Metrics>,
    sender: Sender,
    seals: Arc<Seals>,
    traces: Arc<Traces>,
}

/// Events on their way.
pub struct Webhooks {
    shared: Arc<Shared>,
    guard: Arc<Guard>,
    lanes: Arc<Lanes>,
    tests: Arc<Pool>,
    /// Open event streams.
    pub(crate) streams: Arc<Streams>,
}

impl Webhooks {
    /// Everything but its tasks, which [`Webhooks::keep`] starts.
    ///
    /// # Errors
    /// The file of further CAs cannot be read.
    pub fn new(
        settings: &WebhookSettings,
        store: Arc<dyn Store>,
        clock: Clock,
        chance: Chance,
        metrics: Arc<Metrics>,
        seals: Arc<Seals>,
        traces: Arc<Traces>,
    ) -> Result<Arc<Self>, ClientError> {
        let guard = Arc::new(Guard::new(settings.clone()));
        let sender =
            Sender::new(Arc::clone(&guard), Arc::new(SystemLookup::new()), settings.ca_file.as_deref())?;
        let streams = Streams::new(metrics.webhooks.streams.clone());
        let shared = Arc::new(Shared { store, clock, chance, metrics, sender, seals, traces });
        let (lanes, tests) = (Lanes::new(Arc::clone(&shared)), Pool::new(TESTS_MAX, TESTS_EACH));
        Ok(Arc::new(Self { shared, guard, lanes, tests, streams }))
    }

    /// Starts numbering, delivering, counting and erasing.
    #[must_use]
    pub fn keep(self: &Arc<Self>) -> [AbortHandle; 4] {
        [
            tokio::spawn(Arc::clone(self).number()).abort_handle(),
            tokio::spawn(Arc::clone(self).look()).abort_handle(),
            tokio::spawn(Arc::clone(self).count()).abort_handle(),
            tokio::spawn(Arc::clone(self).purge()).abort_handle(),
        ]
    }

    /// The keys that open secrets.
    pub(crate) fn seals(&self) -> &Seals {
        &self.shared.seals
    }

    /// Ends event streams.
    pub fn stop(&self) {
        self.streams.stop();
    }

    /// Whether events may be sent to an address, as far as its text tells.
    pub(crate) fn may_send_to(&self, url: &str) -> Result<(), Blocked> {
        self.guard.url(url).map(drop)
    }

    /// Tells that a stream's reader did not keep up.
    pub(crate) fn reader_was_slow(&self) {
        self.shared.metrics.webhooks.slow_readers.inc();
    }

    /// Tells that events were passed over because they cannot be read.
    pub(crate) fn passed_over(&self, events: u64) {
        self.shared.metrics.webhooks.unreadable.inc_by(events);
    }

    /// Sends an event of no call, once, for its owner to see what comes of it. `None`: too many such tests are
    /// under way, of this organisation or in all.
    pub(crate) async fn test(&self, org: &OrgId, url: &str, secrets: &OpenedSecrets) -> Option<Tried> {
        let _place = self.tests.try_acquire(org)?;
        let now = self.shared.clock.now();
        let id = self.shared.chance.event_id(now).to_string();
        let created_at = now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        let body = json!({
            "id": id, "type": "endpoint.test", "created_at": created_at, "sequence": 1, "data": {"object": "test"}
        })
        .to_string();
        let signature = signing::signature(secrets, &id, now, body.as_bytes());
        let headers = [
            ("webhook-id", id),
            ("webhook-timestamp", now.unix_timestamp().to_string()),
            ("webhook-signature", signature),
        ];
        Some(self.shared.sender.post(url, headers, body).await)
    }

    /// Sends something that is no customer's event, once, signed where there is a secret.
    pub(crate) async fn post(
        &self,
        url: &str,
        id: &str,
        secrets: Option<&OpenedSecrets>,
        body: String,
    ) -> Tried {
        let now = self.shared.clock.now();
        let head = [("webhook-id", id.to_owned()), ("webhook-timestamp", now.unix_timestamp().to_string())];
        let Some(secrets) = secrets else { return self.shared.sender.post(url, head, body).await };
        let signature = signing::signature(secrets, id, now, body.as_bytes());
        let [id, at] = head;
        self.shared.sender.post(url, [id, at, ("webhook-signature", signature)], body).await
    }

    /// Numbers events as they come.
    async fn number(self: Arc<Self>) {
        let mut written = self.shared.store.written();
        loop {
            match self.number_all().await {
                Ok(()) => {
                    // An error means that the store is gone, and this task soon too.
                    let _ = timeout(LOOK_EVERY, written.changed()).await;
                    sleep(GATHER).await;
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "events could not be numbered, trying again");
                    sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    async fn number_all(&self) -> Result<(), controlplane_store::StoreError> {
        let mut passed_by = 0;
        while self.shared.store.is_unsealed().await? {
            let sealed = self.shared.store.seal_events(self.shared.clock.now(), SEAL_MAX).await?;
            self.shared.metrics.webhooks.sealed.inc_by(sealed.events);
            self.streams.wake(&sealed.orgs);
            sealed.lanes.into_iter().for_each(|lane| self.lanes.nudge(lane));
            if sealed.is_busy {
                sleep(GATHER).await;
                passed_by += 1;
                if passed_by == PASSED_BY_MAX {
                    // Fails where there is nothing to number by.
                    let position = self.shared.store.last_position().await?;
                    tracing::warn!(position, "another control plane has been numbering events for seconds");
                    passed_by = 0;
                }
            } else if sealed.events < SEAL_MAX.into() {
                // Of fewer calls than it may take: there was no more.
                break;
            }
        }
        Ok(())
    }

    /// Looks for what is due.
    async fn look(self: Arc<Self>) {
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let each = u16::try_from(LANES_EACH).unwrap_or(u16::MAX);
            match self.shared.store.due_lanes(self.shared.clock.now(), each, LANES_LOOK).await {
                Ok(lanes) => lanes.into_iter().for_each(|lane| self.lanes.nudge(lane)),
                Err(error) => tracing::error!(error = %chain(&error), "due events could not be looked for"),
            }
        }
    }

    async fn count(self: Arc<Self>) {
        let mut every = interval(COUNT_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            match self.shared.store.webhook_counts().await {
                Ok(counts) => self.shared.metrics.webhooks.counts(counts, self.shared.clock.now()),
                Err(error) => tracing::warn!(error = %chain(&error), "deliveries could not be counted"),
            }
        }
    }

    async fn purge(self: Arc<Self>) {
        let mut every = interval(PURGE_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            loop {
                let now = self.shared.clock.now();
                match self.shared.store.purge(now - EVENTS_KEPT, now, PURGE_MAX).await {
                    Ok(purged) if purged.events.max(purged.keys) < u64::from(PURGE_MAX) => break,
                    Ok(_) => sleep(PURGE_PAUSE).await,
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "old events could not be erased");
                        break;
                    }
                }
            }
        }
    }
}
