//! Opening the file: where it is, who else has it, whether it is ours, and which schema it has.
//!
//! Every refusal names the file and says what to do.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{SqliteStore, quick::Quick, writer::Writer};
use crate::StoreError;

/// Connections that read at the same time. Reads are short; two cores are kept busy by fewer.
const READERS_MAX: u32 = 4;
/// Another connection may hold the file for the moment of a checkpoint or of a backup's step.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory of the writer for pages, in KiB (`cache_size` below 0). With SQLite's own, 2 MB, what a batch changes was written to the log in its
/// midst and read again.
const WRITER_CACHE: &str = "-32768";
/// Pages of 4 KiB in the write-ahead log before they are brought into the file, each once: 32 MB of log. Calls that go on change the same pages again
/// and again.
const CHECKPOINT_EACH: &str = "8192";
/// Statements that the writer keeps prepared: some hundred, and of those about many rows one for each size.
const STATEMENTS_MAX: usize = 512;
/// How long to wait for a process that is just ending to give the file up.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(20);

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

pub(super) async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    directory(path)?;
    let lock = lock(path).await?;
    file(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // What a row held before is overwritten with its page.
        .pragma("secure_delete", "FAST")
        // What a savepoint might take back is kept in memory, not in a file: that was a fifth of what accepting a call took.
        .pragma("temp_store", "MEMORY")
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    let writing = options
        .clone()
        .pragma("cache_size", WRITER_CACHE)
        .pragma("wal_autocheckpoint", CHECKPOINT_EACH)
        .statement_cache_capacity(STATEMENTS_MAX);
    let mut connection = writing.connect().await.map_err(|error| refused(path, &error))?;
    migrate(path, &mut connection).await?;
    empty_log(&mut connection).await.map_err(|error| refused(path, &error))?;
    let reading = options.clone().pragma("query_only", "ON");
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(BUSY_TIMEOUT)
        // Each is tested when it comes back, and a file does not go away: another test is a trip to its thread for nothing.
        .test_before_acquire(false)
        .connect_lazy_with(reading.clone());
    let database: Arc<str> = path.display().to_string().into();
    let quick = Arc::new(Quick::new(reading));
    let others = {
        let (readers, quick) = (readers.clone(), Arc::clone(&quick));
        async move {
            readers.close().await;
            quick.close().await;
        }
    };
    Ok(SqliteStore {
        writer: Writer::start(connection, writing, Arc::clone(&database), lock, others),
        readers,
        quick,
        database,
        nudged: tokio::sync::watch::Sender::new(0),
    })
}

fn directory(path: &Path) -> Result<(), StoreError> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|error| {
        StoreError::Open(format!(
            "cannot create the directory {} for the database: {error}. Create it for this user, or name \
             another place with RINGWARD_DATABASE_URL=sqlite://PATH",
            parent.display()
        ))
    })
}

/// See [`super::alone`].
pub(super) async fn alone(path: &Path) -> Result<File, StoreError> {
    directory(path)?;
    lock(path).await
}

/// One process per file: the group commit and its answers know nothing of a second writer's.
async fn lock(path: &Path) -> Result<File, StoreError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .map_err(|error| unwritable(&beside, &error))?;
    let deadline = tokio::time::Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOCK_POLL).await;
            }
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&beside).unwrap_or_default();
                return Err(StoreError::Open(format!(
                    "the database {} is in use by another control plane (process {}). One database serves \
                     one control plane: stop the other one, or give this one a database of its own with \
                     RINGWARD_DATABASE_URL",
                    path.display(),
                    if holder.trim().is_empty() { "unknown" } else { holder.trim() },
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(&beside, &error)),
        }
    }
    // Only for whoever reads the refusal above; the lock does not depend on it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The file exists, for this user alone, and can be written.
fn file(path: &Path) -> Result<(), StoreError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| unwritable(path, &error))?;
    let meta = file.metadata().map_err(|error| unwritable(path, &error))?;
    if !meta.is_file() {
        return Err(StoreError::Open(format!("the database {} is not a regular file", path.display())));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(|error| unwritable(path, &error))?;
    }
    Ok(())
}

fn unwritable(path: &Path, error: &std::io::Error) -> StoreError {
    const ADVICE: [(ErrorKind, &str); 5] = [
        (ErrorKind::PermissionDenied, "make it writable for this user"),
        (ErrorKind::ReadOnlyFilesystem, "its file system is mounted read-only"),
        (ErrorKind::IsADirectory, "it is a directory: name a file"),
        (ErrorKind::StorageFull, "make room on its disk"),
        (ErrorKind::QuotaExceeded, "make room on its disk"),
    ];
    let advice = ADVICE.iter().find(|(kind, _)| *kind == error.kind());
    let advice = advice.map_or("check the path and its disk", |(_, advice)| advice);
    StoreError::Open(format!("cannot write the database file {}: {error}; {advice}", path.display()))
}

fn refused(path: &Path, error: &sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|e| e.code()?.parse::<u32>().ok()).map(|c| c & 0xff);
    let advice = match code {
        Some(26) => "it is not a database: move it away, or name another file",
        Some(11) => "it is damaged: restore it from a backup",
        Some(13) => "its disk is full: make room",
        Some(8 | 14) => "it, or its directory, cannot be written by this user",
        _ => "check the file and its disk",
    };
    StoreError::Open(format!("cannot open the database {}: {error}; {advice}", path.display()))
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    match MIGRATIONS.run(&mut *connection).await {
        Ok(()) => Ok(()),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(refused(path, &error))
        }
        Err(error) => Err(StoreError::Open(crate::migration_refused(&path.display().to_string(), &error))),
    }
}

/// Brings all that the write-ahead log holds into the file, and empties it: its pages are kept as they were until others are
/// written over them, also after a stop. Gives whether nobody read meanwhile, which keeps it from being emptied.
pub(super) async fn empty_log(connection: impl sqlx::SqliteExecutor<'_>) -> Result<bool, sqlx::Error> {
    let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await?;
    Ok(busy == 0)
}

/// Where readers come from.
pub(super) type Readers = SqlitePool;
