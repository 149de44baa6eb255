//! Bans on disk: written whole, beside the old file, synced, then renamed.
//!
//! A write follows each change, but not at once: the more a write costs, the rarer it is, down to one in a few seconds. What a
//! crash of this program leaves out is still in the kernel; only a power cut can lose the last moments.

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
/// Writing takes at most this share of the time, as long as that makes nobody wait for longer than [`WAIT_MAX`].
const SHARE: u32 = 20;
/// From one write to the next: what was lifted before may come back after a power cut.
const WAIT_MAX: Duration = Duration::from_secs(3);

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
            self.written(took);
        }
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    fn written(&mut self, took: Duration) {
        self.not_before = Instant::now() + (took * SHARE).min(WAIT_MAX);
        self.due = self.due.map(|due| due.max(self.not_before));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a change waits after a write that took so long.
    async fn waits(took: Duration) -> Duration {
        let dir = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(StateDir::open(dir.path()).unwrap());
        keeper.written(took);
        keeper.changed();
        let began = Instant::now();
        keeper.is_due().await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_dearer_a_write_the_rarer_but_a_power_cut_loses_a_few_seconds_only() {
        assert_eq!(waits(Duration::from_millis(1)).await, WRITE_AFTER);
        assert_eq!(waits(Duration::from_millis(50)).await, Duration::from_secs(1));
        for slow in [200, 2_000, 20_000] {
            assert_eq!(waits(Duration::from_millis(slow)).await, WAIT_MAX, "{slow} ms");
        }
    }
}
