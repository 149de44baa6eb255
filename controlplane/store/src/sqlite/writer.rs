//! The one writer, with group commit.
//!
//! Every write of the process goes through one task. It takes all that wait (at most `BATCH_MAX`), runs
//! each in a SAVEPOINT of its own inside one `BEGIN IMMEDIATE … COMMIT`, and answers all of them after the
//! COMMIT: one sync to disk carries many writes. When nothing waits, a write begins at once and commits
//! alone: there is no timer to wait for.
//!
//! A write that fails, or panics, is rolled back to its savepoint and takes no other with it. If the COMMIT
//! fails, or the database rolled the whole transaction back by itself (disk full), every write of the batch
//! is told so, and none is in the file. Whoever asked may be gone by then: the write is done all the same.

use std::{
    fs::File,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot};

use crate::{StoreError, error::Failure};

/// Writes that may wait. Beyond it, callers wait for room: as many as may reasonably hang on one disk.
const QUEUE_MAX: usize = 1_024;
/// Most writes in one COMMIT: bounds how long the first of them waits for the last.
const BATCH_MAX: usize = 256;

/// A transaction's body under way.
pub(super) type Running<'c, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'c>>;

trait Job: Send {
    /// Runs the body and keeps its answer, or its failure.
    fn run<'c>(
        &'c mut self,
        connection: &'c mut SqliteConnection,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'c>>;
    /// Whether the body succeeded.
    fn succeeded(&self) -> bool;
    /// Gives the answer, or `lost` where the batch did not reach the disk.
    fn answer(self: Box<Self>, lost: Option<sqlx::Error>);
}

/// A transaction's body: what to do on the connection with the input.
pub(super) type Body<I, T> = for<'c> fn(&'c mut SqliteConnection, &'c I) -> Running<'c, T>;

struct Write<I, T> {
    operation: &'static str,
    database: Arc<str>,
    input: I,
    body: Body<I, T>,
    result: Option<Result<T, Failure>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<I: Send + Sync, T: Send> Job for Write<I, T> {
    fn run<'c>(
        &'c mut self,
        connection: &'c mut SqliteConnection,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'c>> {
        let Self { input, body, result, .. } = self;
        Box::pin(async move { *result = Some(unwinding(*body, connection, input).await) })
    }

    fn succeeded(&self) -> bool {
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, lost: Option<sqlx::Error>) {
        // A write that failed by itself says why, also where the batch was lost.
        let result = match (self.result, lost) {
            (Some(Err(failure)), _) => Err(failure),
            (_, Some(lost)) => Err(Failure::Sql(lost)),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(Failure::Sql(sqlx::Error::WorkerCrashed)),
        };
        // Nobody listens any more: the write stands, as it would if the answer had been lost on its way.
        let _ = self.reply.send(result.map_err(|failure| failure.named(self.operation, &self.database)));
    }
}

/// Runs `body`; a panic in it becomes a failure of this one write.
async fn unwinding<I, T>(
    body: Body<I, T>,
    connection: &mut SqliteConnection,
    input: &I,
) -> Result<T, Failure> {
    let panicked = |_| Failure::Unexpected("the write panicked".to_owned());
    let mut running = Box::pin(async move { body(connection, input).await });
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(context))) {
        Ok(poll) => poll,
        Err(panic) => std::task::Poll::Ready(Err(panicked(panic))),
    })
    .await
}

/// The way to the writer.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    database: Arc<str>,
}

impl Writer {
    /// Starts the writer. It keeps `lock` until its connection is closed, and ends when the last `Writer`
    /// is dropped and everything that waits is written.
    pub(super) fn start(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        database: Arc<str>,
        lock: File,
    ) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(serve(connection, options, jobs, lock));
        Self { queue, database }
    }

    /// Runs `body` in a transaction and returns when it is on the disk.
    pub(super) async fn write<I, T>(
        &self,
        operation: &'static str,
        input: I,
        body: Body<I, T>,
    ) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let database = Arc::clone(&self.database);
        let job = Write { operation, database, input, body, result: None, reply };
        let gone = || Failure::Sql(sqlx::Error::WorkerCrashed).named(operation, &self.database);
        self.queue.send(Box::new(job)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

async fn serve(
    mut connection: SqliteConnection,
    options: SqliteConnectOptions,
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
    lock: File,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while jobs.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let failed = commit_all(&mut connection, &mut batch).await.err();
        if let Some(error) = &failed {
            tracing::error!(%error, writes = batch.len(), "a batch of writes did not reach the database");
            let _ = execute(&mut connection, "ROLLBACK").await;
        }
        let crashed = matches!(failed, Some(sqlx::Error::WorkerCrashed));
        let text = failed.as_ref().map(ToString::to_string);
        let mut failed = failed;
        for job in batch.drain(..) {
            // sqlx::Error cannot be cloned: the first gets the driver's own, the others its text.
            let lost = text.as_ref().map(|text| {
                failed.take().unwrap_or_else(|| sqlx::Error::Io(std::io::Error::other(text.clone())))
            });
            job.answer(lost);
        }
        if crashed && let Ok(fresh) = options.connect().await {
            connection = fresh;
        }
    }
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the database was not closed cleanly; nothing is lost by that");
    }
    drop(lock);
}

async fn commit_all(
    connection: &mut SqliteConnection,
    batch: &mut [Box<dyn Job>],
) -> Result<(), sqlx::Error> {
    execute(connection, "BEGIN IMMEDIATE").await?;
    for job in batch {
        execute(connection, "SAVEPOINT one_write").await?;
        job.run(connection).await;
        if !job.succeeded() {
            // Fails where SQLite has rolled everything back by itself: then the whole batch is lost.
            execute(connection, "ROLLBACK TO one_write").await?;
        }
        execute(connection, "RELEASE one_write").await?;
    }
    execute(connection, "COMMIT").await
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(drop)
}
