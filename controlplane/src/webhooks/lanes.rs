//! Who is sent to now: one task per lane with something due, so that a receiver that hangs holds up itself.
//!
//! A lane is an endpoint, or one organisation's callbacks to one host. A lane whose last try was taken sends
//! up to [`WIDTH`] calls' events side by side; one that failed, was slow, or was never met, sends one at a time,
//! out of a pool of connections of its own: however many receivers hang, those that answer keep theirs.
//!
//! Organisations share both pools and the tasks fairly (`pool.rs`): one with a thousand slow receivers has its
//! part, and who has nothing under way waits for one try of another's at most.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use controlplane_core::{
    ids::{EventId, OrgId},
    webhook::{Answer, Failure, Next, after},
};
use controlplane_store::{
    StoreError,
    events::Event,
    webhooks::{Claim, Claimed, Holder, Lane, Settle, Target},
};
use rand::Rng;
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet, yield_now},
    time::sleep,
};

#[cfg(feature = "planted-bugs")]
use crate::calls::planted;

use crate::traces::Hop;

use super::{
    Shared,
    pool::{Permit, Pool},
    render::EventView,
    sending::{TRY_MAX, Tried},
    signing,
};

/// Events of different calls that are sent to one lane side by side.
const WIDTH: usize = 8;
/// Connections in use at receivers that took their last event quickly.
const GOOD_MAX: usize = 192;
/// Of them one organisation's.
const GOOD_EACH: usize = 64;
/// Connections in use at receivers that did not, or were never met.
const DOUBTFUL_MAX: usize = 64;
/// Of them one organisation's.
const DOUBTFUL_EACH: usize = 16;
/// A receiver that takes longer to take an event is not a good one.
const QUICK_MAX: Duration = Duration::from_secs(2);
/// Lanes with a task, shared by the organisations that have any: a lane beyond its organisation's share waits
/// for the next look. Shares shrink as organisations come, and no task is ended for it: a thousand organisations,
/// each as greedy as can be, have some 15,000.
const LANES_MAX: usize = 4_096;
/// Of them one organisation's.
pub(super) const LANES_EACH: usize = 128;
/// Lanes of an organisation that are remembered as good.
const REMEMBERED_EACH: usize = 500;
/// How long a claim holds: a try, and writing down what came of it, at a slow database too.
const LEASE: time::Duration = time::Duration::seconds(30);
/// Times that an answer is written down again when the database was away.
const SETTLE_TRIES: u32 = 20;
const SETTLE_WAIT: Duration = Duration::from_secs(1);

/// What is sent now.
struct Due {
    claimed: Claimed,
    /// `None`: it cannot be read.
    event: Option<Event>,
    permit: Permit,
}

const fn is_unavailable(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable { .. })
}

/// A lane's task, from outside.
#[derive(Default)]
struct Handle {
    /// Something may be due that the task has not seen.
    again: AtomicBool,
    nudge: Notify,
}

/// One organisation's lanes, by name.
#[derive(Default)]
struct Owned {
    active: HashMap<String, Arc<Handle>>,
    good: HashSet<String>,
}

/// Every lane's task.
pub(super) struct Lanes {
    shared: Arc<Shared>,
    owner: String,
    orgs: Mutex<HashMap<OrgId, Owned>>,
    good: Arc<Pool>,
    doubtful: Arc<Pool>,
}

impl Lanes {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        let owner = format!("{:016x}", shared.chance.fork().random::<u64>());
        Arc::new(Self {
            shared,
            owner,
            orgs: Mutex::default(),
            good: Pool::new(GOOD_MAX, GOOD_EACH),
            doubtful: Pool::new(DOUBTFUL_MAX, DOUBTFUL_EACH),
        })
    }

    fn orgs(&self) -> MutexGuard<'_, HashMap<OrgId, Owned>> {
        self.orgs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may be due in a lane.
    pub(super) fn nudge(self: &Arc<Self>, lane: Lane) {
        let mut orgs = self.orgs();
        let busy = orgs.values().filter(|owned| !owned.active.is_empty()).count();
        let owned = orgs.entry(lane.org.clone()).or_default();
        if let Some(handle) = owned.active.get(&lane.name) {
            handle.again.store(true, Ordering::Release);
            handle.nudge.notify_one();
        } else if owned.active.len() < (LANES_MAX / busy.max(1)).clamp(1, LANES_EACH) {
            let handle = Arc::new(Handle::default());
            owned.active.insert(lane.name.clone(), Arc::clone(&handle));
            tokio::spawn(Arc::clone(self).serve(lane, handle));
        }
    }

    async fn serve(self: Arc<Self>, lane: Lane, handle: Arc<Handle>) {
        let mut running = JoinSet::new();
        loop {
            handle.again.store(false, Ordering::Release);
            let width = if self.is_good(&lane) { WIDTH } else { 1 };
            if running.len() < width {
                let free = width - running.len();
                for due in self.claim(&lane, free).await {
                    running.spawn(Arc::clone(&self).deliver(due));
                }
            }
            if running.is_empty() {
                let mut orgs = self.orgs();
                if !handle.again.load(Ordering::Acquire) {
                    if let Some(owned) = orgs.get_mut(&lane.org) {
                        owned.active.remove(&lane.name);
                    }
                    return;
                }
                continue;
            }
            tokio::select! {
                Some(ended) = running.join_next() => {
                    self.ended(&lane, ended);
                    // What was settled together ends together, and is followed by what is claimed together.
                    yield_now().await;
                    while let Some(ended) = running.try_join_next() {
                        self.ended(&lane, ended);
                    }
                }
                () = handle.nudge.notified() => {}
            }
        }
    }

    fn ended(&self, lane: &Lane, tried: Result<bool, JoinError>) {
        match tried {
            Ok(well) => self.remember(lane, well),
            // It is tried again when its lease is over.
            Err(error) => tracing::error!(%error, "delivering an event broke"),
        }
    }

    fn is_good(&self, lane: &Lane) -> bool {
        self.orgs().get(&lane.org).is_some_and(|owned| owned.good.contains(&lane.name))
    }

    fn remember(&self, lane: &Lane, well: bool) {
        let mut orgs = self.orgs();
        let good = &mut orgs.entry(lane.org.clone()).or_default().good;
        if !well {
            good.remove(&lane.name);
        } else if !good.contains(&lane.name) {
            if good.len() >= REMEMBERED_EACH {
                good.clear();
            }
            good.insert(lane.name.clone());
        }
    }

    /// Takes what is due, each with a connection to send it by: what is claimed is sent at once.
    async fn claim(&self, lane: &Lane, limit: usize) -> Vec<Due> {
        let pool = if self.is_good(lane) { &self.good } else { &self.doubtful };
        let mut permits = vec![pool.acquire(&lane.org).await];
        while permits.len() < limit
            && let Some(permit) = pool.try_acquire(&lane.org)
        {
            permits.push(permit);
        }
        let now = self.shared.clock.now();
        let callback_secret = match self.shared.seals.new_secret(&Holder::Callback(lane.org.clone())) {
            Ok(secret) => secret,
            Err(error) => {
                tracing::error!(%error, "due events could not be claimed");
                return Vec::new();
            }
        };
        let claim = Claim {
            lane: lane.clone(),
            owner: self.owner.clone(),
            now,
            until: now + LEASE,
            limit: u16::try_from(permits.len()).unwrap_or(1),
            callback_secret,
        };
        match self.shared.store.claim_deliveries(claim).await {
            Ok(claimed) => self.read(lane, claimed, permits).await,
            Err(error) => {
                tracing::error!(%error, "due events could not be claimed; the next look tries again");
                Vec::new()
            }
        }
    }

    async fn read(&self, lane: &Lane, claimed: Vec<Claimed>, permits: Vec<Permit>) -> Vec<Due> {
        let ids: Vec<_> = claimed.iter().map(|claimed| claimed.event.clone()).collect();
        let events = match self.events(&lane.org, &ids).await {
            Ok(events) => events,
            Err(error) => {
                tracing::error!(%error, "due events could not be read; they are sent when their leases are over");
                return Vec::new();
            }
        };
        let mut events: HashMap<_, _> = events.into_iter().map(|event| (event.id.clone(), event)).collect();
        let due = |(claimed, permit): (Claimed, _)| {
            let event = events.remove(&claimed.event);
            Due { claimed, event, permit }
        };
        claimed.into_iter().zip(permits).map(due).collect()
    }

    /// Reads events together; one by one where that is refused, since one of them may be why.
    async fn events(&self, org: &OrgId, ids: &[EventId]) -> Result<Vec<Event>, StoreError> {
        let store = &self.shared.store;
        match store.events_of(org, ids).await {
            Err(error) if !is_unavailable(&error) => {}
            together => return together,
        }
        let mut events = Vec::new();
        for id in ids {
            match store.events_of(org, std::slice::from_ref(id)).await {
                Ok(event) => events.extend(event),
                Err(error) if is_unavailable(&error) => return Err(error),
                Err(error) => {
                    tracing::error!(event = %id, %error, "this event cannot be read, and is not delivered");
                }
            }
        }
        Ok(events)
    }

    /// Sends one event, and writes down what came of it. Whether it was taken, and quickly.
    async fn deliver(self: Arc<Self>, due: Due) -> bool {
        let Due { claimed, event, permit } = due;
        let shared = &self.shared;
        let mut hop = None;
        let mut body = None;
        if let Some(event) = event {
            hop = shared.traces.hop(&event, &claimed).await;
            body = serde_json::to_string(&EventView::from(event)).ok();
        }
        let Some(body) = body else {
            self.settle(&claimed, Next::Unreadable, None).await;
            return true;
        };
        let holder = match &claimed.target {
            Target::Endpoint(id) => Holder::Endpoint(claimed.org.clone(), id.clone()),
            Target::Callback => Holder::Callback(claimed.org.clone()),
        };
        let secrets = match shared.seals.opened(&holder, &claimed.secrets) {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::error!(%error, "an event cannot be signed; it is tried again when its lease is over");
                return true;
            }
        };
        #[cfg(feature = "planted-bugs")]
        if planted::is(planted::Bug::SettleBeforeSend) {
            self.settle(&claimed, Next::Delivered, None).await;
        }
        let now = shared.clock.now();
        let headers = [
            ("webhook-id", claimed.event.to_string()),
            ("webhook-timestamp", now.unix_timestamp().to_string()),
            ("webhook-signature", signing::signature(&secrets, claimed.event.as_str(), now, body.as_bytes())),
        ];
        let headers = headers.into_iter().chain(hop.iter().flat_map(Hop::headers));
        let tried = shared.sender.post(&claimed.url, headers, body).await;
        drop(permit);
        if let Some(hop) = hop {
            let failure = tried.failure.map(Failure::as_str);
            shared.traces.delivered(hop, &claimed, tried.status(), failure);
        }
        let at = shared.clock.now();
        let next = after(tried.answer, claimed.tries + 1, at, shared.chance.fork().random::<f64>());
        shared.metrics.webhooks.tried(tried.failure);
        tracing::debug!(event = %claimed.event, target = %claimed.target, ?next, took = ?tried.took, "tried");
        let well = tried.failure.is_none() && tried.took <= QUICK_MAX;
        self.settle(&claimed, next, Some(tried)).await;
        well
    }

    async fn settle(&self, claimed: &Claimed, next: Next, tried: Option<Tried>) {
        let shared = &self.shared;
        let at = shared.clock.now();
        if matches!(next, Next::Dead | Next::Unreadable | Next::Gone) {
            shared.metrics.webhooks.dead();
        }
        let unread = || Tried {
            answer: Answer::None,
            failure: None,
            error: Some("the event cannot be read".to_owned()),
            took: Duration::ZERO,
        };
        let tried = tried.unwrap_or_else(unread);
        let settle = Settle {
            event: claimed.event.clone(),
            target: claimed.target.clone(),
            epoch: claimed.epoch,
            at,
            took_ms: i64::try_from(tried.took.min(TRY_MAX).as_millis()).unwrap_or(i64::MAX),
            status: tried.status(),
            error: tried.error,
            next,
            audit_id: shared.chance.audit_id(at),
            disabled_id: shared.chance.event_id(at),
        };
        for _ in 0..SETTLE_TRIES {
            match shared.store.settle_delivery(settle.clone()).await {
                Ok(None) => return,
                Ok(Some(reason)) => {
                    shared.metrics.webhooks.disabled(reason);
                    tracing::warn!(
                        endpoint = %claimed.target, org = %claimed.org, %reason,
                        "a webhook endpoint was disabled because of how it answered"
                    );
                    return;
                }
                Err(error @ StoreError::Unavailable { .. }) => {
                    tracing::error!(%error, "what came of a delivery is not written yet, trying again");
                    sleep(SETTLE_WAIT).await;
                }
                Err(StoreError::Fenced { .. }) => {
                    tracing::debug!(event = %claimed.event, "a delivery was settled, replayed or given up elsewhere");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "what came of a delivery cannot be written");
                    return;
                }
            }
        }
    }
}
