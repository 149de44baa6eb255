//! The store on a PostgreSQL server: for calls that must outlive the control plane's machine.
//!
//! One control plane per database, or several that all say so (`sole.rs`, `replicas.rs`).
//! Each port method is one transaction, READ COMMITTED, that first locks the row of the call it is about.
//! What the server rolled back because of others (serialisation, deadlock) is tried again, a few times.

mod accepting;
mod accounts;
mod agents;
mod attempts;
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
mod heart;
mod held;
mod keys;
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
mod sessions;
mod sole;
mod status;
mod traces;
mod untold;
mod webhooks;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use controlplane_core::ids::ReplicaId;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, SqlSafeStr as _, SqlStr, Transaction,
    pool::PoolConnection,
};

use crate::{StoreError, error::Failure};

pub use replacing::{REPLACED, Replacing};

/// How often a transaction that the server rolled back because of others is run in all.
const TRIES_MAX: u32 = 5;
/// Before the second try; each later one waits longer by as much.
const RETRY_STEP: Duration = Duration::from_millis(10);

/// A transaction's body under way.
type Running<'c, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'c>>;
/// A transaction's body: what to do on the connection with the input. It may run more than once.
type Body<I, T> = for<'c> fn(&'c mut PgConnection, &'c I) -> Running<'c, T>;

/// A store on a PostgreSQL server.
pub struct PostgresStore {
    pool: PgPool,
    /// For a transaction.
    answer_max: Duration,
    database: Arc<str>,
    /// The connection of signs of life.
    heart: heart::Heart,
    sole: sole::Sole,
    /// Whose calls it writes, where others share the database.
    replica: Option<ReplicaId>,
    written: tokio::sync::watch::Sender<u64>,
    nudged: tokio::sync::watch::Sender<u64>,
    listener: Option<tokio::task::AbortHandle>,
}

/// A connection on which a transaction begins. Whoever waits for that may go away meanwhile (a request whose client hangs up, the task
/// of a call that another replica has claimed): then the driver does not know of the transaction, which the server has begun, and
/// what the next one writes on that connection would be part of it, and lost with it. So it is closed.
struct Beginning {
    connection: Option<PoolConnection<Postgres>>,
    /// Whether the driver knows what the server knows.
    is_sound: bool,
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if !self.is_sound {
            drop(self.connection.take().map(PoolConnection::detach));
        }
    }
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

    /// As [`Self::transaction`], begun with this text, which holds nothing from outside.
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
        let begin = AssertSqlSafe(begin).into_sql_str();
        let mut tries = 1;
        loop {
            match self.once(begin.clone(), &input, body).await {
                Err(Failure::Sql(error)) if tries < TRIES_MAX && was_rolled_back(&error) => {
                    tracing::debug!(operation, tries, %error, "rolled back because of others: trying again");
                    tokio::time::sleep(RETRY_STEP * tries).await;
                    tries += 1;
                }
                result => return result.map_err(|failure| self.failed(operation, failure)),
            }
        }
    }

    /// A failure rolls back: the transaction is dropped without its commit.
    async fn once<I, T>(&self, begin: SqlStr, input: &I, body: Body<I, T>) -> Result<T, Failure> {
        if !self.sole.is_held() {
            let lost = "the lock that keeps other control planes out is not held";
            return Err(Failure::Sql(sqlx::Error::Io(std::io::Error::other(lost))));
        }
        let mut beginning = Beginning { connection: Some(self.pool.acquire().await?), is_sound: false };
        let working = async {
            let Beginning { connection, is_sound } = &mut beginning;
            let connection = connection.as_mut().ok_or(sqlx::Error::PoolClosed)?;
            let mut transaction = connection.begin_with(begin).await?;
            *is_sound = true;
            let value = body(&mut transaction, input).await?;
            transaction.commit().await?;
            Ok::<_, Failure>(value)
        };
        let Ok(worked) = tokio::time::timeout(self.answer_max, working).await else {
            // As it is: nothing more is to be heard of it.
            beginning.is_sound = false;
            let silent = "the server has not answered: the connection may have fallen silent";
            return Err(Failure::Sql(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                silent,
            ))));
        };
        let value = worked?;
        self.written.send_modify(|writes| *writes += 1);
        Ok(value)
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
        failure.into().named(operation, &self.database)
    }
}

/// `serialization_failure` and `deadlock_detected`: nothing was written, and another try may succeed.
fn was_rolled_back(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "40001" || code == "40P01")
}
