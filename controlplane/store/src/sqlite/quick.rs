//! Connections for reads that every request makes: of one statement each, so that none needs a transaction.
//!
//! The pool tests a connection when it comes back, in a task of its own: as many trips to SQLite's thread as the read itself. Here
//! one that has failed is let go, and another is opened when it is wanted.

use std::sync::{Mutex, PoisonError};

use sqlx::{ConnectOptions, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Connections that read so at the same time.
const CONNECTIONS_MAX: usize = 2;

/// See the module.
pub(super) struct Quick {
    options: SqliteConnectOptions,
    idle: Mutex<Vec<SqliteConnection>>,
    places: Semaphore,
}

/// A connection that is read with.
pub(super) struct Reader<'a> {
    of: &'a Quick,
    connection: SqliteConnection,
    _place: SemaphorePermit<'a>,
}

impl Quick {
    /// None is opened before it is wanted.
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        let idle = Mutex::new(Vec::with_capacity(CONNECTIONS_MAX));
        Self { options, idle, places: Semaphore::new(CONNECTIONS_MAX) }
    }

    /// Waits for one. Dropped without [`Reader::done`] it is closed: who failed with it leaves it to nobody.
    pub(super) async fn reader(&self) -> Result<Reader<'_>, sqlx::Error> {
        let place = self.places.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(Reader { of: self, connection, _place: place })
    }

    /// Closes those that nobody reads with.
    pub(super) async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            // What was not closed in order is closed all the same.
            let _ = connection.close().await;
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader<'_> {
    /// What to read with.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// It has read all that it was asked for.
    pub(super) fn done(self) {
        self.of.idle().push(self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn one(quick: &Quick) -> i64 {
        let mut reader = quick.reader().await.unwrap();
        let value = sqlx::query_scalar("SELECT 1").fetch_one(reader.connection()).await.unwrap();
        reader.done();
        value
    }

    #[tokio::test]
    async fn connections_are_used_again_and_one_that_failed_is_not() {
        let quick = Quick::new(SqliteConnectOptions::new().in_memory(true));
        assert_eq!((one(&quick).await, one(&quick).await), (1, 1));
        assert_eq!(quick.idle().len(), 1, "the same one");
        let mut reader = quick.reader().await.unwrap();
        assert!(sqlx::query("SELECT nothing").execute(reader.connection()).await.is_err());
        drop(reader);
        assert_eq!(quick.idle().len(), 0);
        assert_eq!(one(&quick).await, 1, "its place is free, and another is opened");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn never_more_than_there_may_be() {
        let quick = std::sync::Arc::new(Quick::new(SqliteConnectOptions::new().in_memory(true)));
        let reads: Vec<_> = (0..50)
            .map(|_| {
                let quick = std::sync::Arc::clone(&quick);
                tokio::spawn(async move { one(&quick).await })
            })
            .collect();
        for read in reads {
            assert_eq!(read.await.unwrap(), 1);
        }
        assert!(quick.idle().len() <= CONNECTIONS_MAX);
    }
}
