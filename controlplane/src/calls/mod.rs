//! Calls under way: one task per call, from its acceptance to its one end.
//!
//! - [`driver`](self) decides trunk by trunk what the call does next;
//! - `attempt` runs one Originate, feeding the machine of `controlplane_core::attempt`;
//! - `reconcile` finds out what became of an attempt after a cut;
//! - `durable` writes, and does not give up when the database is away.
//!
//! The database is the truth: an attempt is written before its Originate leaves, and an end is written
//! before anything else happens. A process that dies leaves open calls, and the next one resumes them.

mod attempt;
mod driver;
mod durable;
mod reconcile;

pub(crate) use attempt::{CONTEXTS, VARIABLES};
pub(crate) use durable::chain;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controlplane_core::ids::CallId;
use controlplane_store::{Store, StoreError, calls::Call};
use tokio::sync::watch;

use crate::{
    clock::{Chance, Clock},
    metrics::Metrics,
    registry::Registry,
};

/// Most calls under way in one process; more are refused at the door with 503, never dropped.
pub const OPEN_CALLS_MAX: usize = 50_000;
/// Calls read at once when a process starts.
const RESUME_PAGE: u16 = 500;

/// How long things may take that no customer sets.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From a cut to the verdict on an attempt.
    pub reconcile: Duration,
    /// How long a call waits for a trunk that can be used at all.
    pub trunk: Duration,
}

/// See the module.
pub struct Calls {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) patience: Patience,
    /// Calls with a task, each with the switch that cancels it.
    open: Mutex<HashMap<CallId, watch::Sender<bool>>>,
}

impl Calls {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        clock: Clock,
        chance: Chance,
        patience: Patience,
    ) -> Self {
        Self { store, registry, metrics, clock, chance, patience, open: Mutex::default() }
    }

    /// Whether another call can be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len() < OPEN_CALLS_MAX
    }

    /// Starts the task of an accepted call; one that has a task already is left alone.
    pub fn start(self: &Arc<Self>, call: Call) {
        self.metrics.call_accepted();
        self.spawn(call);
    }

    fn spawn(self: &Arc<Self>, call: Call) {
        let (cancel, canceled) = watch::channel(false);
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.contains_key(&call.id) {
                return;
            }
            open.insert(call.id.clone(), cancel);
        }
        let calls = Arc::clone(self);
        tokio::spawn(async move {
            let id = call.id.clone();
            driver::drive(&calls, call, canceled).await;
            calls.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
    }

    /// Asks an open call to end; its task sees to it. `false`: it has no task here (it has ended).
    #[must_use]
    pub fn cancel(&self, id: &CallId) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(id).is_some_and(|cancel| cancel.send(true).is_ok())
    }

    /// Takes up every call that an earlier process left open.
    ///
    /// # Errors
    /// The database could not be read.
    pub async fn resume(self: &Arc<Self>) -> Result<usize, StoreError> {
        let mut resumed = 0;
        let mut after = None;
        loop {
            let page = self.store.open_calls(after.as_ref(), RESUME_PAGE).await?;
            let Some(last) = page.last() else { return Ok(resumed) };
            after = Some(last.id.clone());
            resumed += page.len();
            for call in page {
                self.metrics.call_resumed();
                self.spawn(call);
            }
        }
    }
}
