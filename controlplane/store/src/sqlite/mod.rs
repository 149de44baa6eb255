//! The store in one SQLite file: the default, for one control plane.
//!
//! One writer with group commit (`writer.rs`), a few readers, WAL, `synchronous=FULL`.

mod accepting;
mod agents;
mod audio;
mod audit;
mod bans;
mod calls;
mod cancels;
mod deliveries;
mod delivery_list;
mod events;
mod fleet;
mod guard;
mod health;
mod held;
mod keys;
mod news;
mod oncall;
mod open;
mod orgs;
mod privacy;
mod queue;
mod quick;
mod reading;
mod replicas;
mod restoring;
mod rounds;
mod search;
mod sessions;
mod sets;
mod status;
mod together;
mod traces;
mod untold;
mod webhooks;
mod writer;

use std::{fs::File, path::Path, sync::Arc};

use sqlx::{Sqlite, Transaction};

use crate::{StoreError, error::Failure};

/// A store in one SQLite file. Dropping it loses nothing: what was answered is on the disk.
pub struct SqliteStore {
    writer: writer::Writer,
    readers: open::Readers,
    quick: Arc<quick::Quick>,
    database: Arc<str>,
    /// Never changes: nobody nudges.
    nudged: tokio::sync::watch::Sender<u64>,
}

/// Nobody else has the file for as long as the result lives. The file itself may be missing or damaged.
///
/// # Errors
/// [`StoreError::Open`] if another process has it, or nothing can be written beside it.
pub async fn alone(path: impl AsRef<Path>) -> Result<File, StoreError> {
    open::alone(path.as_ref()).await
}

impl SqliteStore {
    /// Opens the file, makes it where it is missing (with its directory, mode 0600), and brings its schema
    /// up to date. Must be called within a tokio runtime, which then carries the writer.
    ///
    /// # Errors
    /// [`StoreError::Open`] if another process has it, it cannot be written, it is no database, or its
    /// schema is newer than this program.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        open::open(path.as_ref()).await
    }

    /// A reading transaction: everything it reads is of one moment.
    async fn reading(&self, operation: &'static str) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.readers.begin().await.map_err(|error| self.failed(operation, error))
    }

    async fn empty_log(&self) -> Result<bool, StoreError> {
        open::empty_log(&self.readers).await.map_err(|error| self.failed("empty the write-ahead log", error))
    }

    fn failed(&self, operation: &'static str, failure: impl Into<Failure>) -> StoreError {
        failure.into().named(operation, &self.database)
    }
}
