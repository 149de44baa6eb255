//! When keys were used last: kept in memory, and written down together once a minute, so that no request waits for a
//! write. What was noted since the last write is lost with the process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use controlplane_core::ids::KeyId;
use controlplane_store::{Store, keys::USES_AT_ONCE};
use time::OffsetDateTime;
use tokio::{task::AbortHandle, time::sleep};

/// Between two writes.
const EVERY: Duration = Duration::from_secs(60);
/// Keys whose use is remembered between two writes; those beyond are noted when they are used again.
const NOTED_MAX: usize = 10_000;

/// What was used since the last write.
#[derive(Default)]
pub struct Uses(Mutex<HashMap<KeyId, OffsetDateTime>>);

impl Uses {
    /// Notes that a key was used.
    pub(crate) fn note(&self, key: &KeyId, now: OffsetDateTime) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = noted.get_mut(key) {
            *at = now;
        } else if noted.len() < NOTED_MAX {
            noted.insert(key.clone(), now);
        }
    }

    fn take(&self) -> Vec<(KeyId, OffsetDateTime)> {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // In the order of ids, so that two replicas' writes do not wait for each other crosswise.
        let mut uses: Vec<_> = noted.drain().collect();
        uses.sort();
        uses
    }

    /// Writes down what was noted.
    async fn write(&self, store: &dyn Store) {
        for uses in self.take().chunks(USES_AT_ONCE) {
            if let Err(error) = store.note_uses(uses.to_vec()).await {
                tracing::warn!(%error, keys = uses.len(), "when keys were used could not be written down");
            }
        }
    }

    /// Writes for as long as the program runs.
    pub(crate) fn keep(self: Arc<Self>, store: Arc<dyn Store>) -> AbortHandle {
        let writing = async move {
            loop {
                sleep(EVERY).await;
                self.write(&*store).await;
            }
        };
        tokio::spawn(writing).abort_handle()
    }
}
