//! Bans on disk: written whole, beside the old file, synced, then renamed.
//!
//! A write follows each change, but not at once: the more a write costs, the rarer it is. What a crash of this
//! program leaves out is still in the kernel; only a power cut can lose the last moments.

use std::{io, time::Duration};

use node_agent_core::bans::Snapshot;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::identity::StateDir;

const FILE: &str = "bans.json";
/// Between a change and its write.
const WRITE_AFTER: Duration = Duration::from_millis(300);
/// Writing takes at most this share of the time.
const SHARE: u32 = 20;

/// When the file is to be written, and the write under way.
#[derive(Debug)]
pub(crate) struct Keeper {
    state: StateDir,
    due: Option<Instant>,
    not_before: Instant,
    write: Option<JoinHandle<io::Result<Duration>>>,
}

impl Keeper {
    pub(crate) fn new(state: StateDir) -> Self {
        Self { state, due: None, not_before: Instant::now(), write: None }
    }

    /// What an earlier run left. A file that cannot be read is set aside: it is evidence, and bans begin anew.
    pub(crate) fn load(&self) -> Option<Snapshot> {
        let path = self.state.path(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(%error, "bans cannot be read from disk");
                return None;
            }
        };
        match serde_json::from_slice(&bytes) {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                tracing::error!(%error, "bans on disk are damaged and set aside");
                let _ = std::fs::rename(&path, self.state.path("bans.damaged.json"));
                None
            }
        }
    }

    /// Something changed.
    pub(crate) fn changed(&mut self) {
        if self.due.is_none() {
            self.due = Some((Instant::now() + WRITE_AFTER).max(self.not_before));
        }
    }

    /// Ends when a snapshot is to be given to [`Keeper::write`].
    pub(crate) async fn is_due(&mut self) {
        if let Some(write) = &mut self.write {
            let done = write.await;
            self.write = None;
            let took = match done {
                Ok(Ok(took)) => took,
                Ok(Err(error)) => {
                    tracing::error!(%error, "bans cannot be written to disk");
                    self.due = Some(Instant::now());
                    Duration::from_millis(500)
                }
                Err(error) => {
                    tracing::error!(%error, "writing bans broke");
                    Duration::from_millis(500)
                }
            };
            self.not_before = Instant::now() + took * SHARE;
            self.due = self.due.map(|due| due.max(self.not_before));
        }
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn write(&mut self, snapshot: Snapshot) {
        self.due = None;
        let state = self.state.clone();
        self.write = Some(spawn_blocking(move || {
            let began = Instant::now();
            state.write(FILE, &serde_json::to_vec(&snapshot)?)?;
            Ok(began.elapsed())
        }));
    }
}
