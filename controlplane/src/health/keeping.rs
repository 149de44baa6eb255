//! Health over a restart: machines are written when they change, and operators' holds when they are set.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use controlplane_core::{
    health::{Changed, Customers},
    names::{NodeName, TrunkName},
};
use controlplane_store::{
    Store, StoreError,
    health::{HoldTarget, SaveHealth, SetHold},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{
    calls::chain,
    clock::Clock,
    registry::{Hold, Holds, Kept, News, Registry},
    replicas::Membership,
};

/// Between two writes: a carrier that fails takes many trunks with it, and they are written together.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// Until a write is tried again that the database did not take.
const AGAIN: Duration = Duration::from_secs(1);

/// Between two counts of customers: the first call of a second one is in no hurry.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// What waits to be written: names alone, so that it is bounded by the fleet.
#[derive(Debug, Default)]
struct Unwritten {
    trunks: BTreeSet<TrunkName>,
    nodes: BTreeSet<NodeName>,
    gone: Gone,
}

#[derive(Debug, Clone, Default)]
struct Gone {
    trunks: BTreeSet<TrunkName>,
    nodes: BTreeSet<NodeName>,
}

/// See the module.
pub(crate) struct Keeping {
    store: Arc<dyn Store>,
    unwritten: Mutex<Unwritten>,
    work: Notify,
    /// One hold at a time, from the database to the registry.
    holding: tokio::sync::Mutex<()>,
}

impl Keeping {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        let holding = tokio::sync::Mutex::default();
        Arc::new(Self { store, unwritten: Mutex::default(), work: Notify::new(), holding })
    }

    /// Sets an operator's hold and puts it in force. Says whether it changed anything. Run it in a task of its own: an
    /// asker who leaves must not part what the database took from what is in force.
    ///
    /// # Errors
    /// The database; what was in force stays so.
    pub(crate) async fn hold(&self, registry: &Registry, set: SetHold) -> Result<bool, StoreError> {
        let _one = self.holding.lock().await;
        let changed = self.store.set_hold(set).await?;
        registry.hold(Instant::now().into_std(), self.holds().await?);
        self.store.nudge().await;
        Ok(changed)
    }

    /// Puts in force what another replica holds.
    ///
    /// # Errors
    /// The database; what was in force stays so.
    pub(crate) async fn read_holds(&self, registry: &Registry) -> Result<(), StoreError> {
        let _one = self.holding.lock().await;
        registry.hold(Instant::now().into_std(), self.holds().await?);
        Ok(())
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, news: &News) {
        let mut unwritten = self.unwritten();
        match news {
            News::Changed(Changed::Trunk(trunk, _)) | News::Noted(trunk) => {
                unwritten.gone.trunks.remove(trunk);
                unwritten.trunks.insert(trunk.clone());
            }
            News::Changed(Changed::Node(node, _)) => {
                unwritten.gone.nodes.remove(node);
                unwritten.nodes.insert(node.clone());
            }
            News::TrunkGone(trunk) => {
                unwritten.trunks.remove(trunk);
                unwritten.gone.trunks.insert(trunk.clone());
            }
            News::NodeGone(node) => {
                unwritten.nodes.remove(node);
                unwritten.gone.nodes.insert(node.clone());
            }
            News::Panic(..) => return,
        }
        drop(unwritten);
        self.work.notify_one();
    }

    /// Writes what changes, for as long as the program runs: that of the replica that leads.
    pub(crate) fn keep(
        self: &Arc<Self>,
        registry: Arc<Registry>,
        clock: Clock,
        membership: Arc<Membership>,
    ) -> AbortHandle {
        let keeping = Arc::clone(self);
        let work = async move {
            loop {
                keeping.work.notified().await;
                sleep(WRITE_EVERY).await;
                // What has changed meanwhile is written by the one that leads, or here when this one does.
                while !membership.leads() {
                    sleep(AGAIN).await;
                }
                while let Err(error) = keeping.write(&registry, &clock).await {
                    tracing::warn!(error = %chain(&error), "health could not be written, trying again");
                    sleep(AGAIN).await;
                }
            }
        };
        tokio::spawn(work).abort_handle()
    }

    async fn write(&self, registry: &Registry, clock: &Clock) -> Result<(), StoreError> {
        let taken = std::mem::take(&mut *self.unwritten());
        let written = self.write_these(&taken, registry, clock).await;
        if written.is_err() {
            // What came meanwhile is newer.
            let mut unwritten = self.unwritten();
            let Unwritten { trunks, nodes, gone } = taken;
            let again = |name: &TrunkName| !unwritten.trunks.contains(name);
            let gone_trunks: Vec<_> = gone.trunks.into_iter().filter(again).collect();
            let again = |name: &NodeName| !unwritten.nodes.contains(name);
            let gone_nodes: Vec<_> = gone.nodes.into_iter().filter(again).collect();
            unwritten.gone.trunks.extend(gone_trunks);
            unwritten.gone.nodes.extend(gone_nodes);
            unwritten.trunks.extend(trunks);
            unwritten.nodes.extend(nodes);
        }
        written
    }

    async fn write_these(
        &self,
        these: &Unwritten,
        registry: &Registry,
        clock: &Clock,
    ) -> Result<(), StoreError> {
        let Unwritten { trunks, nodes, gone } = these;
        if !gone.trunks.is_empty() || !gone.nodes.is_empty() {
            let (trunks, nodes): (Vec<_>, Vec<_>) =
                (gone.trunks.iter().cloned().collect(), gone.nodes.iter().cloned().collect());
            self.store.forget_health(&trunks, &nodes).await?;
        }
        let now = Instant::now().into_std();
        let trunk = |name: &TrunkName| Some((name.clone(), json(&registry.trunk_snapshot(now, name)?)?));
        let node = |name: &NodeName| Some((name.clone(), json(&registry.node_snapshot(now, name)?)?));
        let save = SaveHealth {
            trunks: trunks.iter().filter_map(trunk).collect(),
            nodes: nodes.iter().filter_map(node).collect(),
            at: clock.now(),
        };
        if save.trunks.is_empty() && save.nodes.is_empty() {
            return Ok(());
        }
        self.store.save_health(save).await
    }

    /// What an earlier process wrote.
    ///
    /// # Errors
    /// The database. A machine that cannot be read begins anew, which is logged.
    pub(crate) async fn read(&self) -> Result<Kept, StoreError> {
        let stored = self.store.health().await?;
        Ok(Kept {
            trunks: readable(stored.trunks).into_iter().collect(),
            nodes: readable(stored.nodes).into_iter().collect(),
            holds: self.holds().await?,
        })
    }

    /// Whether one customer's calls are all the evidence there can be.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn customers(&self) -> Result<Customers, StoreError> {
        Ok(if self.store.orgs().await? > 1 { Customers::Several } else { Customers::One })
    }

    /// Counts customers now and then, for as long as the program runs.
    pub(crate) fn count_customers(self: &Arc<Self>, registry: Arc<Registry>) -> AbortHandle {
        let keeping = Arc::clone(self);
        let work = async move {
            loop {
                sleep(COUNT_EVERY).await;
                match keeping.customers().await {
                    Ok(customers) => registry.set_customers(customers),
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "organisations could not be counted");
                    }
                }
            }
        };
        tokio::spawn(work).abort_handle()
    }

    /// What operators hold back.
    ///
    /// # Errors
    /// The database.
    async fn holds(&self) -> Result<Holds, StoreError> {
        let mut holds = Holds::default();
        for hold in self.store.holds().await? {
            let known = Hold { since: hold.since, reason: hold.reason };
            match hold.target {
                HoldTarget::Trunk(trunk) => holds.trunks.insert(trunk, known),
                HoldTarget::Node(node) => holds.nodes.insert(node, known),
            };
        }
        Ok(holds)
    }
}

fn json(machine: &impl Serialize) -> Option<Value> {
    serde_json::to_value(machine)
        .inspect_err(|error| tracing::error!(%error, "a health machine cannot be written"))
        .ok()
}

fn readable<N: Ord + Display, T: DeserializeOwned>(stored: Vec<(N, Value)>) -> BTreeMap<N, T> {
    let machine = |(name, document): (N, Value)| match serde_json::from_value(document) {
        Ok(machine) => Some((name, machine)),
        Err(error) => {
            tracing::warn!(%name, %error, "stored health cannot be read (another version wrote it?): it begins anew");
            None
        }
    };
    stored.into_iter().filter_map(machine).collect()
}
