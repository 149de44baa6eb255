//! The one writer, with group commit.
//!
//! Every write of the process goes through one task. It takes what waits, for `BATCH_FOR` at most, runs
//! each in a SAVEPOINT of its own inside one `BEGIN IMMEDIATE … COMMIT`, and answers all of them after the
//! COMMIT: one sync to disk carries many writes. When nothing waits, a write begins at once and commits
//! alone; only news that nobody waits for rest for company first, some milliseconds at most (`gathering.rs`). Calls that are accepted go
//! ahead, every second write at most, so that they do not wait for a burst of news of calls that are placed.
//!
//! News of calls that wait are one write (`together.rs`). A write that fails, or panics, is rolled back to its savepoint and
//! takes no other with it: of news that were one write each is then tried alone. If the COMMIT
//! fails, or the database rolled the whole transaction back by itself (disk full), every write of the batch
//! is told so, and none is in the file. Whoever asked may be gone by then: the write is done all the same.

use std::{
    fs::File,
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout},
};

use super::queue::{self, Queued};
use crate::{
    StoreError,
    calls::news::{News, Told},
    error::Failure,
    gathering::Waiting,
};

/// Writes that may wait. Beyond it, callers wait for room: as many as may reasonably hang on one disk.
const QUEUE_MAX: usize = 1_024;
/// The same of those that go ahead: each is many at once.
const AHEAD_MAX: usize = 16;
/// No write begins in a batch that has taken so long: bounds how long the first of them waits for the last. A write takes
/// 0.3 to 0.5 ms, a commit about 1 ms, and calls come and go in bursts of dozens.
const BATCH_FOR: Duration = Duration::from_millis(4);

/// For all other connections to be closed before the writer's: half of what who opens the file next waits for it.
const OTHERS_CLOSE_FOR: Duration = Duration::from_secs(1);

/// A transaction's body under way.
pub(super) type Running<'c, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'c>>;

/// Closes a write's savepoint and opens the next one's: nothing takes that write back any more but the loss of the batch.
const CLOSE: &str = "RELEASE one_write; SAVEPOINT one_write";

/// A job under way.
pub(super) type Ran<'c> = Pin<Box<dyn Future<Output = ()> + Send + 'c>>;

/// A write, in a savepoint of its own.
pub(super) trait Job: Send {
    /// Runs it, and keeps its answer, or its failure.
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> Ran<'c>;
    /// Why it failed, if it did.
    fn failure(&self) -> Option<String>;
    /// What failed as one, and may succeed in part: the parts, which leave nobody to be answered here.
    fn apart(&mut self) -> Vec<Box<dyn Job>> {
        Vec::new()
    }
    /// Gives the answer, or `lost`, why the batch did not reach the disk.
    fn answer(self: Box<Self>, lost: Option<&str>);
}

/// Why a job with this result failed, if it did.
pub(super) fn failure<T>(result: Option<&Result<T, Failure>>) -> Option<String> {
    match result {
        Some(Ok(_)) => None,
        Some(Err(failure)) => Some(failure.told()),
        None => Some("the write did not run".to_owned()),
    }
}

/// A write's result, given why its batch was lost, if it was. One that failed by itself says why, also then.
pub(super) fn unless_lost<T>(result: Result<T, Failure>, lost: Option<&str>) -> Result<T, Failure> {
    match (result, lost) {
        // Whatever it was, this write had no part in it: it is worth another try.
        (Ok(_), Some(lost)) => Err(Failure::Sql(sqlx::Error::Io(io::Error::other(lost.to_owned())))),
        (result, _) => result,
    }
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
    fn run<'c>(&'c mut self, connection: &'c mut SqliteConnection) -> Ran<'c> {
        let Self { input, body, result, .. } = self;
        Box::pin(async move {
            *result = Some(unwinding(*body, connection, input).await);
        })
    }

    fn failure(&self) -> Option<String> {
        failure(self.result.as_ref())
    }

    fn answer(self: Box<Self>, lost: Option<&str>) {
        let result = self.result.unwrap_or(Err(Failure::Sql(sqlx::Error::WorkerCrashed)));
        let result = unless_lost(result, lost);
        // Nobody listens any more: the write stands, as it would if the answer had been lost on its way.
        let _ = self.reply.send(result.map_err(|failure| failure.named(self.operation, &self.database)));
    }
}

/// Runs `body`; a panic in it becomes a failure of this one write.
pub(super) async fn unwinding<I, T>(
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
    queue: mpsc::Sender<Queued>,
    /// What goes ahead of the queue.
    ahead: mpsc::Sender<Box<dyn Job>>,
    /// What may wait for company.
    resting: mpsc::Sender<Waiting>,
    database: Arc<str>,
    written: watch::Sender<u64>,
}

impl Writer {
    /// Starts the writer. It keeps `lock` until its connection is closed, and ends when the last `Writer`
    /// is dropped and everything that waits is written. `others` closes all other connections: the last one that is closed brings the
    /// log into the file, and of two that are closed at the same moment neither does.
    pub(super) fn start(
        connection: SqliteConnection,
        options: SqliteConnectOptions,
        database: Arc<str>,
        lock: File,
        others: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (queue, queued) = mpsc::channel(QUEUE_MAX);
        let (ahead, first) = mpsc::channel(AHEAD_MAX);
        let (resting, rest) = mpsc::channel(QUEUE_MAX);
        let written = watch::Sender::new(0);
        let waiting = queue::Waiting::new(first, queued, rest);
        let served = serve(connection, options, waiting, written.clone());
        tokio::spawn(async move {
            let connection = served.await;
            if timeout(OTHERS_CLOSE_FOR, others).await.is_err() {
                tracing::warn!("somebody still reads the database while it is closed");
            }
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "the database was not closed cleanly; nothing is lost by that");
            }
            drop(lock);
        });
        Self { queue, ahead, resting, database, written }
    }

    /// Changes with every batch that reached the disk.
    pub(super) fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
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
        let (job, answer) = self.job(operation, input, body);
        self.queue.send(Queued::One(job)).await.map_err(|_| self.gone(operation))?;
        answer.await.map_err(|_| self.gone(operation))?
    }

    /// The same, before whatever waits in the queue but every second write: for one that carries those of many.
    pub(super) async fn write_ahead<I, T>(
        &self,
        operation: &'static str,
        input: I,
        body: Body<I, T>,
    ) -> Result<T, StoreError>
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let (job, answer) = self.job(operation, input, body);
        self.ahead.send(job).await.map_err(|_| self.gone(operation))?;
        answer.await.map_err(|_| self.gone(operation))?
    }

    /// Writes what follows from news, together with what else waits of them.
    pub(super) async fn tell(&self, operation: &'static str, news: News) -> Result<Told, StoreError> {
        let (waiting, answer) = Waiting::new(operation, Arc::clone(&self.database), news);
        if waiting.may_rest() {
            self.resting.send(waiting).await.map_err(|_| self.gone(operation))?;
        } else {
            self.queue.send(Queued::News(Box::new(waiting))).await.map_err(|_| self.gone(operation))?;
        }
        answer.await.map_err(|_| self.gone(operation))?
    }

    fn job<I, T>(
        &self,
        operation: &'static str,
        input: I,
        body: Body<I, T>,
    ) -> (Box<dyn Job>, oneshot::Receiver<Result<T, StoreError>>)
    where
        I: Send + Sync + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let database = Arc::clone(&self.database);
        (Box::new(Write { operation, database, input, body, result: None, reply }), answer)
    }

    fn gone(&self, operation: &'static str) -> StoreError {
        Failure::Sql(sqlx::Error::WorkerCrashed).named(operation, &self.database)
    }
}

async fn serve(
    mut connection: SqliteConnection,
    options: SqliteConnectOptions,
    mut waiting: queue::Waiting,
    written: watch::Sender<u64>,
) -> SqliteConnection {
    while let Some(first) = waiting.next().await {
        let mut batch = vec![first];
        let lost = commit(&mut connection, &mut batch, &mut waiting).await.err();
        if let Some(lost) = &lost {
            tracing::error!(
                error = lost,
                writes = batch.len(),
                "a batch of writes did not reach the database"
            );
            // Where there is nothing to roll back, the database did it by itself, or SQLite's thread is gone.
            if execute(&mut connection, "ROLLBACK").await.is_err()
                && let Ok(fresh) = options.connect().await
            {
                connection = fresh;
            }
        }
        for job in batch {
            job.answer(lost.as_deref());
        }
        written.send_modify(|batches| *batches += 1);
    }
    connection
}

/// Runs and commits the batch, which others that wait join while it is young, or says why nothing of it is in the file.
async fn commit(
    connection: &mut SqliteConnection,
    batch: &mut Vec<Box<dyn Job>>,
    waiting: &mut queue::Waiting,
) -> Result<(), String> {
    let begun = Instant::now();
    // Statements that follow each other go together: each trip to SQLite's thread costs as much as a write.
    steps(connection, "BEGIN IMMEDIATE; SAVEPOINT one_write").await?;
    // Whether nothing was written since the savepoint.
    let mut is_fresh = true;
    let mut next = 0;
    loop {
        if next == batch.len() {
            let another = if begun.elapsed() < BATCH_FOR { waiting.another() } else { None };
            let Some(another) = another else { break };
            batch.push(another);
        }
        let Some(job) = batch.get_mut(next) else { break };
        next += 1;
        if !is_fresh {
            steps(connection, CLOSE).await?;
        }
        job.run(connection).await;
        is_fresh = false;
        if let Some(failure) = job.failure() {
            // Fails where SQLite has rolled everything back by itself, the savepoint with it (disk full, I/O
            // error): then the whole batch is lost, by what the write has met.
            execute(connection, "ROLLBACK TO one_write")
                .await
                .map_err(|error| format!("{failure} (and then: {error})"))?;
            // The savepoint is still there, and nothing behind it.
            is_fresh = true;
            let parts = job.apart();
            batch.extend(parts);
        }
    }
    steps(connection, "RELEASE one_write; COMMIT").await
}

async fn steps(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), String> {
    execute(connection, sql).await.map_err(|error| error.to_string())
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use sqlx::Row;

    use super::*;

    /// A writer on a file of its own, with a table to write to.
    async fn writer(folder: &tempfile::TempDir) -> (Writer, SqliteConnectOptions) {
        let path = folder.path().join("writer.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
        let mut connection = options.connect().await.unwrap();
        execute(&mut connection, "CREATE TABLE t (n INTEGER NOT NULL UNIQUE, filler BLOB) STRICT")
            .await
            .unwrap();
        let lock = File::create(folder.path().join("lock")).unwrap();
        let alone = std::future::ready(());
        (Writer::start(connection, options.clone(), "writer.db".into(), lock, alone), options)
    }

    /// Writes n, or fails or panics after it has written.
    fn insert<'c>(c: &'c mut SqliteConnection, n: &'c i64) -> Running<'c, i64> {
        Box::pin(async move {
            sqlx::query("INSERT INTO t (n) VALUES ($1)").bind(n).execute(c).await?;
            match n % 10 {
                7 => Err(Failure::Missing("seven".to_owned())),
                8 => panic!("eight"),
                _ => Ok(*n),
            }
        })
    }

    fn fill<'c>(c: &'c mut SqliteConnection, n: &'c i64) -> Running<'c, ()> {
        Box::pin(async move {
            let sql = "INSERT INTO t (n, filler) VALUES ($1, zeroblob(1000000))";
            sqlx::query(sql).bind(n).execute(c).await?;
            Ok(())
        })
    }

    fn pragma<'c>(c: &'c mut SqliteConnection, sql: &'c &'static str) -> Running<'c, ()> {
        Box::pin(async move { Ok(execute(c, sql).await?) })
    }

    async fn stored(options: &SqliteConnectOptions) -> Vec<i64> {
        let mut connection = options.connect().await.unwrap();
        let rows = sqlx::query("SELECT n FROM t ORDER BY n").fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_failing_or_panicking_write_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, options) = writer(&folder).await;
        let writes: Vec<_> = (0..100)
            .map(|n| {
                let writer = writer.clone();
                tokio::spawn(async move { writer.write("insert", n, insert).await })
            })
            .collect();
        for (n, write) in (0..).zip(writes) {
            let expected = n % 10 != 7 && n % 10 != 8;
            assert_eq!(write.await.unwrap().is_ok(), expected, "{n}");
        }
        let twice = writer.write("insert", 1, insert).await.unwrap_err();
        assert!(matches!(twice, StoreError::Corrupt { .. }), "{twice}");
        assert_eq!(
            stored(&options).await,
            (0..100).filter(|n| n % 10 < 7 || n % 10 == 9).collect::<Vec<_>>()
        );
    }

    /// As long as a batch's writes may take together, so that each is one of its own.
    fn slow<'c>(c: &'c mut SqliteConnection, n: &'c i64) -> Running<'c, ()> {
        Box::pin(async move {
            insert(c, n).await?;
            tokio::time::sleep(BATCH_FOR).await;
            Ok(())
        })
    }

    /// Queues so many slow writes, each of a number of its own; counts those that were answered.
    async fn burst<F>(
        writes: usize,
        write: impl Fn(i64) -> F,
    ) -> (Vec<tokio::task::JoinHandle<()>>, Arc<AtomicUsize>)
    where
        F: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let answered = Arc::new(AtomicUsize::new(0));
        let mut queued: Vec<_> = (0..)
            .filter(|n| n % 10 < 7)
            .take(writes)
            .map(|n| {
                let (write, answered) = (write(n), Arc::clone(&answered));
                Box::pin(async move {
                    write.await.unwrap();
                    answered.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        // All are in the queue when this returns, or wait for a place in it.
        for write in &mut queued {
            let _ = poll_fn(|context| std::task::Poll::Ready(write.as_mut().poll(context))).await;
        }
        (queued.into_iter().map(tokio::spawn).collect(), answered)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_goes_ahead_waits_for_the_batch_under_way_and_not_for_the_queue() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, _) = writer(&folder).await;
        let asked = writer.clone();
        let (queued, answered) = burst(300, move |n| {
            let writer = asked.clone();
            async move { writer.write("slow", n, slow).await }
        })
        .await;
        let before = answered.load(Ordering::Relaxed);
        writer.write_ahead("insert", 1_000, insert).await.unwrap();
        // Those of the batch under way, and of its own.
        let meanwhile = answered.load(Ordering::Relaxed) - before;
        assert!(meanwhile <= 4, "{meanwhile} writes of the queue were answered before it");
        for write in queued {
            write.await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_queue_moves_on_whatever_goes_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, _) = writer(&folder).await;
        let asked = writer.clone();
        let (ahead, answered) = burst(300, move |n| {
            let writer = asked.clone();
            async move { writer.write_ahead("slow", n, slow).await }
        })
        .await;
        let before = answered.load(Ordering::Relaxed);
        writer.write("insert", 1_000, insert).await.unwrap();
        let meanwhile = answered.load(Ordering::Relaxed) - before;
        assert!(meanwhile <= 4, "{meanwhile} writes went ahead of it");
        for write in ahead {
            write.await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_write_whose_caller_is_gone_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, options) = writer(&folder).await;
        for n in 0..5 {
            let asked = writer.clone();
            let mut write = Box::pin(asked.write("insert", n, insert));
            // Queued by its first poll, then dropped.
            let _ = poll_fn(|context| std::task::Poll::Ready(write.as_mut().poll(context))).await;
            drop(write);
        }
        writer.write("insert", 5, insert).await.unwrap();
        assert_eq!(stored(&options).await, [0, 1, 2, 3, 4, 5]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_disk_is_named_and_passes() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, options) = writer(&folder).await;
        // SQLite answers as it does where the disk has no room (SQLITE_FULL).
        writer.write("limit", "PRAGMA max_page_count = 20", pragma).await.unwrap();
        let full = writer.write("fill", 1, fill).await.unwrap_err();
        assert!(matches!(full, StoreError::Unavailable { .. }), "{full}");
        assert!(
            full.to_string().contains("fill: the database writer.db") && full.to_string().contains("full"),
            "{full}"
        );
        writer.write("insert", 2, insert).await.unwrap();
        writer.write("limit", "PRAGMA max_page_count = 2000", pragma).await.unwrap();
        writer.write("fill", 3, fill).await.unwrap();
        assert_eq!(stored(&options).await, [2, 3]);
    }

    /// One thread: all of these wait before the writer takes any. And no time passes, so that a batch takes what waits.
    #[tokio::test(start_paused = true)]
    async fn a_full_disk_loses_the_batch_and_blames_no_other_write() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, options) = writer(&folder).await;
        writer.write("limit", "PRAGMA max_page_count = 20", pragma).await.unwrap();
        let (before, full, after, one_more, own) = tokio::join!(
            writer.write("insert", 1, insert),
            writer.write("fill", 2, fill),
            writer.write("insert", 3, insert),
            writer.write("insert", 4, insert),
            writer.write("insert", 5, insert),
        );
        let full = full.unwrap_err().to_string();
        assert!(full.contains("fill:") && full.contains("full"), "{full}");
        let lost = before.unwrap_err();
        assert!(matches!(lost, StoreError::Unavailable { .. }), "{lost}");
        assert!(lost.to_string().contains("full"), "{lost}");
        // Had not begun: they are a batch of their own.
        for written in [after, one_more, own] {
            written.unwrap();
        }
        writer.write("insert", 6, insert).await.unwrap();
        assert_eq!(stored(&options).await, [3, 4, 5, 6]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_batch_that_is_not_committed_is_answered_so_to_all() {
        let folder = tempfile::tempdir().unwrap();
        let (writer, options) = writer(&folder).await;
        // A foreign key that is only checked at the COMMIT: each write succeeds, the batch does not.
        writer
            .write(
                "child",
                "CREATE TABLE child (n INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED) STRICT",
                pragma,
            )
            .await
            .unwrap();
        let orphan = writer.write("orphan", "INSERT INTO child (n) VALUES (99)", pragma).await;
        assert!(matches!(orphan, Err(StoreError::Unavailable { .. })), "{orphan:?}");
        writer.write("insert", 1, insert).await.unwrap();
        let mut connection = options.connect().await.unwrap();
        let orphans: i64 =
            sqlx::query_scalar("SELECT count(*) FROM child").fetch_one(&mut connection).await.unwrap();
        assert_eq!((orphans, stored(&options).await), (0, vec![1]));
    }
}
