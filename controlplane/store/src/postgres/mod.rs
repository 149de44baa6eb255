//! The store on a PostgreSQL server: for calls that must outlive the control plane's machine.
//!
//! One control plane per database, or several that all say so (`sole.rs`, `replicas.rs`).
//! Each port method is one transaction, READ COMMITTED, that first locks the row of the call it is about. News of calls that wait at the
//! same time are one, which locks the rows of all of them (`sets.rs`).
//! What the server rolled back because of others (serialisation, deadlock) is tried again, a few times.

mod accepting;
mod accounts;
mod agents;
mod audio;
mod audit;
mod bans;
mod calls;
mod cancels;
mod carrying_out;
mod deliveries;
mod delivery_list;
mod events;
mod fleet;
mod guard;
mod health;
mod heart;
mod held;
mod keys;
mod news;
mod oncall;
mod open;
mod orgs;
mod privacy;
mod reading;
mod replacing;
mod replicas;
mod restoring;
mod rounds;
mod search;
mod server;
mod sessions;
mod sets;
mod settling;
mod sole;
mod status;
mod traces;
mod untold;
mod webhooks;

use std::sync::Arc;

use controlplane_core::ids::ReplicaId;
use sqlx::{PgPool, Postgres, Transaction};

use crate::{StoreError, error::Failure};

use self::{
    server::{Body, Server},
    sets::Sets,
    settling::Settling,
};
pub use replacing::{REPLACED, Replacing};

/// A store on a PostgreSQL server.
pub struct PostgresStore {
    server: Arc<Server>,
    sets: Sets,
    settling: Settling,
    /// The same server's connections, for what reads without a transaction.
    pool: PgPool,
    /// The connection of signs of life.
    heart: heart::Heart,
    /// Whose calls it writes, where others share the database.
    replica: Option<ReplicaId>,
    nudged: tokio::sync::watch::Sender<u64>,
    listener: Option<tokio::task::AbortHandle>,
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

impl PostgresStore {
    /// Connects to `postgres://USER:PASSWORD@HOST:PORT/DATABASE` and brings the schema up to date.
    /// Must be called within a tokio runtime, which then keeps other control planes out of the database.
    ///
    /// # Errors
    /// [`StoreError::Open`] if the server cannot be reached or used, another control plane uses the
    /// database, or the schema is newer than this program.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        open::open(url, None).await
    }

    /// The same for one of several control planes that share the database, all of which must be opened so.
    ///
    /// # Errors
    /// As of [`PostgresStore::open`]; another control plane has the database to itself.
    pub async fn open_shared(url: &str, replica: ReplicaId) -> Result<Self, StoreError> {
        open::open(url, Some(replica)).await
    }

    /// Runs `body` in a transaction and returns when it is on the server's disk.
    async fn transaction<I, T>(
        &self,
        operation: &'static str,
        input: I,
        body: Body<I, T>,
    ) -> Result<T, StoreError>
    where
        I: Send + Sync,
        T: Send,
    {
        self.transaction_from("BEGIN".to_owned(), operation, input, body).await
    }

    /// As [`Self::transaction`], begun with this text: see [`Server::transaction`].
    async fn transaction_from<I, T>(
        &self,
        begin: String,
        operation: &'static str,
        input: I,
        body: Body<I, T>,
    ) -> Result<T, StoreError>
    where
        I: Send + Sync,
        T: Send,
    {
        let done = self.server.transaction(begin, operation, &input, body).await;
        done.map_err(|failure| self.failed(operation, failure))
    }

    /// A reading transaction: everything it reads is of one moment.
    async fn reading(&self, operation: &'static str) -> Result<Transaction<'static, Postgres>, StoreError> {
        let pool = self.pool.clone();
        // In a task of its own, which ends it also when whoever asked is gone: see `Beginning`.
        let begun =
            tokio::spawn(
                async move { pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await },
            );
        let begun = begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed));
        begun.map_err(|error| self.failed(operation, error))
    }

    fn failed(&self, operation: &'static str, failure: impl Into<Failure>) -> StoreError {
        failure.into().named(operation, &self.server.database)
    }
}
