//! Calls that a restored backup says are open. They may have ended since, so that no phone rings for one until an operator
//! releases it. What was under way at the backup is reconciled all the same, and may end the call; so do a cancel and its
//! deadline.

use std::{collections::HashSet, sync::Arc};

use controlplane_core::ids::CallId;
use controlplane_store::{StoreError, calls::Actor, restoring::Release};
use tokio::sync::watch;

use super::Calls;

/// What is held, as last read.
pub(super) struct HeldCalls {
    ids: watch::Sender<Arc<HashSet<String>>>,
}

impl Default for HeldCalls {
    fn default() -> Self {
        Self { ids: watch::Sender::new(Arc::default()) }
    }
}

impl HeldCalls {
    pub(super) fn is_held(&self, call: &CallId) -> bool {
        self.has(call.as_str())
    }

    fn has(&self, id: &str) -> bool {
        self.ids.borrow().contains(id)
    }

    /// Returns once it is not held.
    pub(super) async fn released(&self, call: &CallId) {
        // An error means that the sender is gone, and it is ours.
        let _ = self.ids.subscribe().wait_for(|held| !held.contains(call.as_str())).await;
    }
}

impl Calls {
    /// Reads what is held: before calls are taken up, and when some were released. How many calls and incidents it is.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn read_held(&self) -> Result<usize, StoreError> {
        let held: HashSet<String> = self.store.held().await?.into_iter().map(|held| held.id).collect();
        let count = held.len();
        self.metrics.held(count);
        self.held.ids.send_replace(Arc::new(held));
        Ok(count)
    }

    /// A held call or incident is asked for anew, by what shares it (`dedup_key`, an alert's group): whatever became of it
    /// before the restore, it is wanted now, and goes on. The release has its audit row.
    ///
    /// # Errors
    /// The database; it is held as before, and whoever asks is to do so again.
    pub(crate) async fn wanted_again(&self, id: &str, actor: &Actor) -> Result<(), StoreError> {
        if !self.held.has(id) {
            return Ok(());
        }
        let at = self.clock.now();
        let (actor, audit_id) = (actor.clone(), self.chance.audit_id(at));
        self.store.release(Release { ids: Some(vec![id.to_owned()]), at, actor, audit_id }).await?;
        self.read_held().await?;
        tracing::info!(id, "held since a restore, and asked for anew: it goes on");
        Ok(())
    }
}
