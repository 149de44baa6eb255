//! One task per declared node: keeps its AMI session up, by its address or through its agent, looks at its
//! trunks, and tells the registry.
//!
//! A node that cannot be used says why in `node list` and stops nobody else. Everything here is a
//! reconciler: it compares the declared fleet with the running tasks.

mod check;
mod direct;
mod linked;
mod sight;
mod task;
mod tls;

pub(crate) use linked::{is_by_gate, run_of};

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controlplane_core::{
    fleet::{Ami, Fleet, Node},
    names::NodeName,
};
use controlplane_store::{Store, StoreError};
use node_agent_ami::{ActionIds, ConnectConfig};
use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    agents::Links,
    clock::{Chance, Clock},
    metrics::Metrics,
    registry::Registry,
};

/// Between two pings of a session that carries calls, and for an answer. A PBX whose power goes says nothing: its calls are
/// given up 4 s later at most, reconciled for 5 s, and ring elsewhere before 10 s are over (ADR 15).
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_MAX: Duration = Duration::from_secs(3);

/// Has a session's silence noticed in time.
fn mind_silence(config: &mut ConnectConfig) {
    config.ping_interval = PING_EVERY;
    config.ping_timeout = PING_MAX;
}

/// What every node's task works with.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) links: Arc<Links>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) ids: ActionIds,
    /// Secrets' relative paths start here.
    pub(crate) data_dir: PathBuf,
}

/// How a node's AMI is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the address that fleet.toml gives.
    Direct(Ami),
    /// Through its agent's link.
    Linked,
}

impl Way {
    fn of(node: &Node) -> Self {
        node.ami.clone().map_or(Self::Linked, Self::Direct)
    }
}

struct Running {
    way: Way,
    /// Look at the trunks now: others may have been declared.
    look: Arc<Notify>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The stored fleet cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum TakeUpError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored fleet is not one.
    #[error(
        "the stored fleet (revision {revision}) cannot be read: {source}. Was it written by a newer ringward?"
    )]
    Fleet {
        /// Its revision.
        revision: i64,
        /// Why.
        source: serde_json::Error,
    },
}

/// The running tasks.
pub struct Nodes {
    shared: Shared,
    running: Mutex<HashMap<NodeName, Running>>,
}

impl Nodes {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared, running: Mutex::default() }
    }

    /// Puts the stored fleet in force: at a start, and where another replica may have applied one.
    ///
    /// # Errors
    /// [`TakeUpError`]; what was in force stays so.
    pub async fn take_up(&self, store: &dyn Store) -> Result<(), TakeUpError> {
        let Some(stored) = store.declared_fleet().await? else { return Ok(()) };
        let revision = stored.revision;
        let fleet = serde_json::from_value(stored.document)
            .map_err(|source| TakeUpError::Fleet { revision, source })?;
        self.put_in_force(fleet, revision);
        Ok(())
    }

    /// Puts a fleet in force that the database has taken.
    pub(crate) fn put_in_force(&self, fleet: Fleet, revision: i64) {
        self.shared.registry.declare(fleet, revision, self.shared.clock.now());
        self.reconcile();
    }

    /// Starts, restarts and stops tasks until they are those of the declared fleet.
    fn reconcile(&self) {
        // First the lock, then the fleet: of two at once, the later one must not work on the older fleet.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (fleet, revision) = self.shared.registry.fleet();
        self.shared.links.declare(Arc::clone(&fleet), revision);
        self.shared.metrics.fleet.declare(&fleet);
        running.retain(|name, task| fleet.node(name).is_some_and(|node| Way::of(node) == task.way));
        for node in fleet.nodes() {
            let task = running.entry(node.name.clone()).or_insert_with(|| {
                let (shared, way) = (&self.shared, Way::of(node));
                let look = shared.registry.look(&node.name).unwrap_or_default();
                let originate = task::originate(shared.clone(), node.name.clone(), way.clone(), look.clone());
                let mut tasks = vec![originate];
                if way == Way::Linked {
                    tasks.push(sight::by_agent(shared.clone(), node.name.clone()));
                }
                if let Way::Direct(ami) = &way
                    && let Some(login) = &ami.security
                {
                    tasks.push(task::security(shared.clone(), node.name.clone(), ami.clone(), login.clone()));
                }
                Running { way, look, tasks }
            });
            task.look.notify_one();
        }
    }
}
