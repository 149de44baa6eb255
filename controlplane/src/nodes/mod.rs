//! One task per declared node with an AMI: keeps its session up, looks at its trunks, and tells the registry.
//!
//! A node that cannot be used says why in `node list` and stops nobody else. Everything here is a
//! reconciler: [`Nodes::reconcile`] compares the declared fleet with the running tasks.

mod check;
mod task;
mod tls;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use controlplane_core::{fleet::Ami, names::NodeName};
use node_agent_ami::ActionIds;
use tokio::{sync::Notify, task::AbortHandle};

use crate::{
    clock::{Chance, Clock},
    metrics::Metrics,
    registry::Registry,
};

/// What every node's task works with.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) ids: ActionIds,
    /// Secrets' relative paths start here.
    pub(crate) data_dir: PathBuf,
}

struct Running {
    ami: Ami,
    /// Look at the trunks now: others may have been declared.
    look: Arc<Notify>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
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

    /// Starts, restarts and stops tasks until they are those of the declared fleet.
    pub fn reconcile(&self) {
        let (fleet, _) = self.shared.registry.fleet();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|name, task| fleet.node(name).and_then(|node| node.ami.as_ref()) == Some(&task.ami));
        for node in fleet.nodes() {
            let Some(ami) = &node.ami else {
                let reason = "no agent has joined, and fleet.toml gives no ami address".to_owned();
                self.shared.registry.node_down(&node.name, reason, self.shared.clock.now());
                continue;
            };
            let task = running.entry(node.name.clone()).or_insert_with(|| {
                let look = Arc::new(Notify::new());
                let originate =
                    task::originate(self.shared.clone(), node.name.clone(), ami.clone(), look.clone());
                let mut tasks = vec![originate];
                if let Some(login) = &ami.security {
                    tasks.push(task::security(
                        self.shared.clone(),
                        node.name.clone(),
                        ami.clone(),
                        login.clone(),
                    ));
                }
                Running { ami: ami.clone(), look, tasks }
            });
            task.look.notify_one();
        }
    }
}
