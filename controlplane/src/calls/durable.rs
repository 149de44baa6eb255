//! Writes that must not be given up: the fate of a call is not lost because a database was away.

use std::{future::Future, time::Duration};

use controlplane_store::{
    StoreError,
    calls::{BeginAttempt, Begun},
};
use tokio::time::sleep;

use super::Calls;
#[cfg(feature = "planted-bugs")]
use super::planted::{self, Bug};

/// First wait after a write that failed; doubled up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(2);

impl Calls {
    /// Writes an attempt; its Originate may leave once this says [`Begun::Yes`]. Each try is made as of its own moment,
    /// which `begin.at` then says.
    pub(super) async fn begin_attempt(&self, begin: &mut BeginAttempt) -> Option<Begun> {
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::WriteAfterSend) {
            let (store, begin) = (std::sync::Arc::clone(&self.store), begin.clone());
            tokio::spawn(async move {
                planted::late().await;
                store.begin_attempt(begin).await
            });
            return Some(Begun::Yes { sequence: 0 });
        }
        let write = || {
            begin.at = self.clock.now();
            self.store.begin_attempt(begin.clone())
        };
        self.durably("begin an attempt", write).await
    }

    /// Writes until it is written. Every write of a call is safe to repeat: it names its rows by ids made
    /// before, and what has ended refuses a second end. `None`: the database refuses it for good: another replica has
    /// claimed the call, or a row is broken, which is logged as the error it is.
    pub(super) async fn durably<T, F>(&self, what: &'static str, mut write: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        #[cfg(feature = "planted-bugs")]
        if planted::is(Bug::WriteAfterSend) {
            // News of an attempt need its row.
            planted::late().await;
        }
        let mut wait = WAIT_MIN;
        loop {
            match write().await {
                Ok(done) => return Some(done),
                Err(error @ StoreError::Unavailable { .. }) => {
                    self.metrics.store_failure();
                    tracing::error!(what, error = %chain(&error), "not written yet, trying again");
                    sleep(wait).await;
                    wait = (wait * 2).min(WAIT_MAX);
                }
                // Another replica goes on with the call: this one's part in it is over.
                Err(StoreError::Fenced { .. }) => {
                    tracing::info!(what, "not written: another replica drives the call by now");
                    return None;
                }
                Err(error) => {
                    self.metrics.store_failure();
                    tracing::error!(what, error = %chain(&error), "the database refuses this write");
                    return None;
                }
            }
        }
    }
}

/// An error with its causes, for a log line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
