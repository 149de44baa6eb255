//! Which replica drives a call: goes on with those of the dead, and ends tasks whose call is another's.
//!
//! The database decides: a task writes under the epoch of the claim with which it began, and what comes later under an earlier
//! epoch is refused. Ending such tasks here only spares them the wait for that.

use std::{collections::HashMap, sync::Arc};

use controlplane_core::ids::{CallId, ReplicaId};
use controlplane_store::{StoreError, calls::Call};

use super::{Calls, OPEN_CALLS_MAX};

/// Calls that are claimed in one transaction: several replicas share what one has left.
const CLAIM_PAGE: u16 = 50;

impl Calls {
    /// Claims what no living replica owns, as far as there is room, and goes on with it as a new process does with what an
    /// earlier one left.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn claim(self: &Arc<Self>, me: &ReplicaId) -> Result<usize, StoreError> {
        let mut started = 0;
        loop {
            let room = OPEN_CALLS_MAX.saturating_sub(self.open().len()).min(usize::from(CLAIM_PAGE));
            let limit = u16::try_from(room).unwrap_or(CLAIM_PAGE);
            if limit == 0 {
                return Ok(started);
            }
            let calls = self.store.claim_calls(me, limit).await?;
            let is_last = calls.len() < usize::from(limit);
            started += calls.into_iter().map(|call| usize::from(self.ensure(call))).sum::<usize>();
            if is_last {
                return Ok(started);
            }
        }
    }

    /// Starts what this replica owns and has no task for: its task broke, or its acceptance was cut.
    pub(super) async fn start_owned(self: &Arc<Self>, me: &ReplicaId) -> Result<usize, StoreError> {
        let mut started = 0;
        for owned in self.store.owned_calls(me).await? {
            if !self.has_task(&owned.call)
                && let Some(call) = self.store.call(&owned.org, &owned.call).await?
            {
                started += usize::from(self.ensure(call));
            }
        }
        Ok(started)
    }

    /// Ends the tasks of calls that this replica does not own any more. Returns how many.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn keep_owned(&self, me: &ReplicaId) -> Result<usize, StoreError> {
        // First those that there are: what begins meanwhile is not among what is read.
        let tasks: Vec<(CallId, i64)> =
            self.open().iter().map(|(id, task)| (id.clone(), task.epoch)).collect();
        let owned = self.store.owned_calls(me).await?;
        let owned: HashMap<CallId, i64> = owned.into_iter().map(|owned| (owned.call, owned.epoch)).collect();
        let is_lost = |(id, epoch): &&(CallId, i64)| owned.get(id) != Some(epoch);
        Ok(tasks.iter().filter(is_lost).filter(|(id, epoch)| self.lose(id, *epoch)).count())
    }

    fn lose(&self, id: &CallId, epoch: i64) -> bool {
        let open = self.open();
        let task = open.get(id).filter(|task| task.epoch == epoch);
        task.inspect(|task| task.lost.notify_one()).is_some()
    }

    /// Ends all tasks where they stand: other replicas go on with their calls.
    pub(crate) fn let_go(&self) {
        self.open().values().for_each(|task| task.lost.notify_one());
    }

    /// Tells an open call's task what is durable: that it shall end. Where it is another replica's, that one is nudged.
    pub(crate) async fn end(self: &Arc<Self>, call: Call) {
        let is_here = self.cancel(&call.id) || self.ensure(call);
        if !is_here {
            self.store.nudge().await;
        }
    }

    /// The same of calls of this replica, wherever that was asked for.
    pub(crate) fn end_wished(&self, calls: &[CallId]) {
        // One without a task begins with its wish.
        for call in calls {
            let _ = self.cancel(call);
        }
    }
}
