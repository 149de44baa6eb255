//! The server, and transactions on it: each bounded by time, none begun while another control plane may have the database.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, SqlSafeStr as _, SqlStr,
    pool::PoolConnection,
};

use super::sole::Sole;
use crate::error::Failure;

/// How often a transaction that the server rolled back because of others is run in all.
const TRIES_MAX: u32 = 5;
/// Before the second try; each later one waits longer by as much.
const RETRY_STEP: Duration = Duration::from_millis(10);

/// A transaction's body under way.
pub(super) type Running<'c, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'c>>;
/// A transaction's body: what to do on the connection with the input. It may run more than once.
pub(super) type Body<I, T> = for<'c> fn(&'c mut PgConnection, &'c I) -> Running<'c, T>;

/// The server, for whoever writes to it. The database is this control plane's (or its replicas') until the last of them is dropped.
pub(super) struct Server {
    pub(super) pool: PgPool,
    /// For a transaction.
    pub(super) answer_max: Duration,
    pub(super) database: Arc<str>,
    pub(super) sole: Sole,
    pub(super) written: tokio::sync::watch::Sender<u64>,
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

impl Server {
    /// Runs `body` in a transaction, begun with this text, and returns when it is on the server's disk. Nothing in the text may be
    /// from outside but what its type leaves no quote.
    pub(super) async fn transaction<I, T>(
        &self,
        begin: String,
        operation: &'static str,
        input: &I,
        body: Body<I, T>,
    ) -> Result<T, Failure>
    where
        I: Send + Sync + ?Sized,
        T: Send,
    {
        let begin = AssertSqlSafe(begin).into_sql_str();
        let mut tries = 1;
        loop {
            match self.once(begin.clone(), input, body).await {
                Err(Failure::Sql(error)) if tries < TRIES_MAX && was_rolled_back(&error) => {
                    tracing::debug!(operation, tries, %error, "rolled back because of others: trying again");
                    tokio::time::sleep(RETRY_STEP * tries).await;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    /// A failure rolls back: the transaction is dropped without its commit.
    async fn once<I: ?Sized, T>(&self, begin: SqlStr, input: &I, body: Body<I, T>) -> Result<T, Failure> {
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
}

/// `serialization_failure` and `deadlock_detected`: nothing was written, and another try may succeed.
fn was_rolled_back(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "40001" || code == "40P01")
}
