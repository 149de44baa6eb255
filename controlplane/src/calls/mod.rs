//! Calls under way: one task per call, from its acceptance to its one end.
//!
//! - `accepting` makes what is asked for durable;
//! - [`driver`](self) decides trunk by trunk what the call does next;
//! - `attempt` runs one Originate, feeding the machine of `controlplane_core::attempt`;
//! - `canary` runs one of our own;
//! - `reconcile` finds out what became of an attempt after a cut;
//! - `late` asks for what a node could not be asked in time;
//! - `turns` says which of the calls to one number is to dial it;
//! - `awake` keeps time-outs from being acted on by a process that slept or has just started;
//! - `gate` says which of the calls that wait for a trunk asks next, and what its organisation may have at a time;
//! - `held` keeps calls from being dialled that a restored backup says are open;
//! - `durable` writes, and does not give up when the database is away;
//! - `claims` goes on with calls of replicas that are dead, and lets go what others have claimed.
//!
//! The database is the truth: an attempt is written before its Originate leaves, and an end is written
//! before anything else happens. A process that dies leaves open calls, and the next one resumes them.

mod accepting;
mod attempt;
mod awake;
mod canary;
mod claims;
mod driver;
mod durable;
mod gate;
mod held;
mod late;
mod news;
mod originate;
mod place;
#[cfg(feature = "planted-bugs")]
pub(crate) mod planted;
mod reconcile;
mod turns;

pub use accepting::Accepting;
pub(crate) use canary::{CANARY_MAX_S, CanaryEnded, NoRoom};
pub(crate) use durable::chain;
pub(crate) use originate::{CONTEXTS, VARIABLES};

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::{call::Reason, ids::CallId, names::CarrierName, throttle::Throttle};
use controlplane_store::{
    Store, StoreError,
    calls::{Account, Call, OpenMax},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use self::{awake::Awake, gate::Gate, held::HeldCalls, turns::Turns};
use crate::{
    agents::Links,
    audio::Audio,
    clock::{Chance, Clock},
    metrics::Metrics,
    registry::Registry,
    replicas::Membership,
    rules::Rules,
    traces::Traces,
};

/// Most calls under way in one process; more are refused at the door with 503, never dropped.
pub const OPEN_CALLS_MAX: usize = 50_000;
/// Open calls read at once.
const TAKE_UP_PAGE: u16 = 500;
/// Between two scans for open calls without a task.
const TAKE_UP_EVERY: Duration = Duration::from_secs(15);

/// How long things may take that no customer sets.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From a cut to the verdict on an attempt.
    pub reconcile: Duration,
    /// How long a node may take to be back after this process started or woke before that counts.
    pub node_return: Duration,
    /// How long a call waits for a trunk that can be used at all.
    pub trunk: Duration,
}

/// What is said to a call's task.
struct Open {
    /// The switch that cancels it.
    cancel: watch::Sender<bool>,
    /// A key of an earlier attempt has decided the call so.
    decided: Option<Reason>,
    /// Under which claim it is driven.
    epoch: i64,
    /// Ends the task where it stands: another replica drives the call.
    lost: Arc<Notify>,
    /// Held by the task: one that takes its place waits until it is gone, with all that it held.
    alone: Arc<tokio::sync::Mutex<()>>,
}

/// How much of everything an organisation may have for which an operator has set nothing.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How often one number may be dialled.
    pub throttle: Throttle,
    /// How many calls may be open.
    pub open: OpenMax,
}

/// See the module.
pub struct Calls {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) links: Arc<Links>,
    pub(crate) audio: Arc<Audio>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) patience: Patience,
    pub(crate) rules: Arc<Rules>,
    /// Whether calls may leave this process.
    pub(crate) membership: Arc<Membership>,
    /// Who is told that a call has ended.
    pub(crate) traces: Arc<Traces>,
    /// Whose turn it is where trunks are full.
    pub(crate) gate: Arc<Gate>,
    /// Who is to dial a number next.
    turns: Arc<Turns>,
    /// What no phone may ring for yet.
    held: HeldCalls,
    /// Since when this process sees what happens.
    awake: Awake,
    /// Calls with a task.
    open: Mutex<HashMap<CallId, Open>>,
}

impl Calls {
    #[allow(clippy::too_many_arguments, reason = "the parts of the program that calls use, each once")]
    pub(crate) fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        links: Arc<Links>,
        audio: Arc<Audio>,
        metrics: Arc<Metrics>,
        clock: Clock,
        chance: Chance,
        patience: Patience,
        rules: Arc<Rules>,
        membership: Arc<Membership>,
        traces: Arc<Traces>,
    ) -> Self {
        Self {
            store,
            registry,
            links,
            audio,
            metrics,
            clock,
            chance,
            patience,
            rules,
            membership,
            traces,
            gate: Arc::default(),
            turns: Arc::default(),
            held: HeldCalls::default(),
            awake: Awake::new(Instant::now().into_std()),
            open: Mutex::default(),
        }
    }

    /// Whether another call can be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.open().len() < OPEN_CALLS_MAX
    }

    /// Starts the task of a call that was accepted just now.
    pub fn start(self: &Arc<Self>, call: Call) {
        self.metrics.call_accepted();
        self.ensure(call);
    }

    /// Sees to it that an open call has a task; one that has ended needs none, and one of another replica has it there.
    /// `false`: nothing was done.
    pub fn ensure(self: &Arc<Self>, call: Call) -> bool {
        if call.status.is_terminal() || !self.membership.owns(&call) {
            return false;
        }
        let Some((task, canceled)) = Task::register(self, &call) else { return false };
        let calls = Arc::clone(self);
        tokio::spawn(async move {
            let driving = async {
                let _alone = task.alone.lock().await;
                driver::drive(&calls, call, canceled).await;
            };
            tokio::select! {
                biased;
                () = task.lost.notified() => {}
                () = driving => {}
            }
            // Dropped at the end, and when the task panics: then a later scan starts the call again.
            drop(task);
        });
        true
    }

    /// Asks an open call to end; its task sees to it. `false`: it has no task here (it has ended, or is another replica's).
    #[must_use]
    pub fn cancel(&self, id: &CallId) -> bool {
        let turn = |task: &Open| {
            task.cancel.send_if_modified(|canceled| !std::mem::replace(canceled, true));
        };
        self.open().get(id).map(turn).is_some()
    }

    /// Starts every open call that has no task here: those that an earlier process left, and those whose
    /// task broke or whose acceptance was cut between the database and this program.
    ///
    /// # Errors
    /// The database could not be read.
    pub async fn take_up(self: &Arc<Self>) -> Result<usize, StoreError> {
        if let Some(me) = self.membership.me() {
            return Ok(self.claim(me).await? + self.start_owned(me).await?);
        }
        let mut started = 0;
        let mut after = None;
        loop {
            let page = self.store.open_calls(after.as_ref(), TAKE_UP_PAGE).await?;
            let Some(last) = page.last() else { return Ok(started) };
            after = Some(last.id.clone());
            for call in page {
                if self.has_task(&call.id) {
                    continue;
                }
                // Read again: it may have ended since the page was.
                if let Some(call) = self.store.call(&call.org, &call.id).await? {
                    started += usize::from(self.ensure(call));
                }
            }
        }
    }

    /// Gives signs of life for ever, by which a freeze is noticed.
    pub async fn stay_awake(self: Arc<Self>) {
        loop {
            sleep(awake::LOOK_EVERY).await;
            self.awake.look(Instant::now().into_std());
        }
    }

    /// Takes up calls for ever: the scan that needs no nudge.
    pub async fn watch_over(self: Arc<Self>) {
        loop {
            sleep(TAKE_UP_EVERY).await;
            // Another replica may have been told to release.
            if let Err(error) = self.read_held().await {
                tracing::warn!(error = %chain(&error), "what is held could not be read");
            }
            let taken_up = match self.membership.me() {
                Some(me) => self.start_owned(me).await,
                None => self.take_up().await,
            };
            match taken_up {
                Ok(0) => {}
                Ok(calls) => {
                    self.metrics.calls_taken_up(calls);
                    tracing::error!(
                        calls,
                        "started open calls that had no task: see the log before this line"
                    );
                }
                Err(error) => tracing::warn!(error = %chain(&error), "open calls could not be read"),
            }
        }
    }

    /// What a carrier's account may have, where other replicas use it too.
    fn account(&self, carrier: &CarrierName) -> Option<Account> {
        self.membership.me()?;
        let (fleet, _) = self.registry.fleet();
        let carrier = fleet.carrier(carrier)?;
        let account = Account { cps_max: carrier.cps_max, channels_max: carrier.channels_max };
        (account.cps_max.is_some() || account.channels_max.is_some()).then_some(account)
    }

    fn has_task(&self, id: &CallId) -> bool {
        self.open().contains_key(id)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<CallId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's place among those with a task.
struct Task {
    calls: Arc<Calls>,
    id: CallId,
    lost: Arc<Notify>,
    alone: Arc<tokio::sync::Mutex<()>>,
}

impl Task {
    /// `None`: it has one.
    fn register(calls: &Arc<Calls>, call: &Call) -> Option<(Self, watch::Receiver<bool>)> {
        let (cancel, canceled) = watch::channel(call.cancel_requested_at.is_some());
        let mut open = calls.open();
        let alone = match open.get(&call.id) {
            Some(former) if former.epoch >= call.claim.epoch => return None,
            Some(former) => {
                // The call was another's for a while: what this task knows of it is of before.
                former.lost.notify_one();
                Arc::clone(&former.alone)
            }
            None => Arc::default(),
        };
        let (epoch, lost) = (call.claim.epoch, Arc::new(Notify::new()));
        let task = Self { calls: Arc::clone(calls), id: call.id.clone(), lost, alone };
        let (lost, alone) = (Arc::clone(&task.lost), Arc::clone(&task.alone));
        open.insert(call.id.clone(), Open { cancel, decided: None, epoch, lost, alone });
        calls.metrics.calls_open(open.len());
        drop(open);
        Some((task, canceled))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut open = self.calls.open();
        // Another task may have taken its place.
        if open.get(&self.id).is_some_and(|task| Arc::ptr_eq(&task.lost, &self.lost)) {
            open.remove(&self.id);
        }
        self.calls.metrics.calls_open(open.len());
    }
}
