//! One control plane per database, or several that share it by leases: one that knows nothing of leases beside another would
//! phone everybody twice. Who shares holds the lock as a reader does, who does not as a writer.
//!
//! The process holds an advisory lock of the server's, in a session that does nothing else, and looks every
//! second whether it still does. Where it does not (the server was restarted, the way to it was cut), nothing
//! is written until the lock is taken again; if another control plane has it by then, nothing more at all.
//! Between the loss and its discovery, a control plane that is started in that very moment finds the lock
//! free: only leases close that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::StoreError;

/// The lock's number. Locks of two numbers, as accepting takes them, are apart from it.
const LOCK: i64 = i64::from_be_bytes(*b"RINGWARD");
/// How long to wait for a process that is just ending to give the database up.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Between two looks whether the lock is still held, and between two tries to take it again.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A server that does not answer for this long may have given the lock to another.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// A machine that vanished is noticed by the server within a minute, not within its default of two hours.
const SESSION: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "30"), ("tcp_keepalives_interval", "10"), ("tcp_keepalives_count", "3")];

/// In which way the database is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// By one control plane.
    Alone,
    /// By all that hold it so.
    Shared,
}

/// The lock, held until this is dropped.
pub(super) struct Sole {
    held: Arc<AtomicBool>,
    keeper: JoinHandle<()>,
}

impl Sole {
    /// Whether the lock was held at the last look.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        // Its connection is closed with it, and the server frees the lock.
        self.keeper.abort();
    }
}

/// Options of the session that holds the lock.
pub(super) fn session(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().options(SESSION)
}

/// Takes the lock, or says who has it and what to do.
pub(super) async fn take(place: &str, connection: &mut PgConnection, hold: Hold) -> Result<(), StoreError> {
    let failed = |error| StoreError::Open(format!("cannot lock the PostgreSQL database {place}: {error}"));
    let deadline = Instant::now() + LOCK_WAIT;
    while !try_lock(connection, hold).await.map_err(failed)? {
        if Instant::now() >= deadline {
            return Err(StoreError::Open(refusal(place, holder(connection).await.map_err(failed)?)));
        }
        sleep(LOCK_POLL).await;
    }
    Ok(())
}

/// Keeps the lock that `connection` holds.
pub(super) fn keep(connection: PgConnection, options: PgConnectOptions, place: Arc<str>, hold: Hold) -> Sole {
    let held = Arc::new(AtomicBool::new(true));
    let keeper = tokio::spawn(watch(connection, options, place, Arc::clone(&held), hold));
    Sole { held, keeper }
}

async fn watch(
    mut connection: PgConnection,
    options: PgConnectOptions,
    place: Arc<str>,
    held: Arc<AtomicBool>,
    hold: Hold,
) {
    loop {
        while is_ours(&mut connection).await {
            sleep(CHECK_EVERY).await;
        }
        held.store(false, Ordering::Release);
        tracing::error!(
            database = %place,
            "the lock that keeps other control planes out is lost: nothing is written until it is held again"
        );
        connection = again(&options, &place, hold).await;
        held.store(true, Ordering::Release);
        tracing::info!(database = %place, "the lock that keeps other control planes out is held again");
    }
}

/// A new session that holds the lock, as soon as there can be one.
async fn again(options: &PgConnectOptions, place: &str, hold: Hold) -> PgConnection {
    let mut told = false;
    loop {
        let attempt = async {
            let mut connection = options.connect().await?;
            let locked = try_lock(&mut connection, hold).await?;
            Ok::<_, sqlx::Error>((connection, locked))
        };
        match timeout(CHECK_TIMEOUT, attempt).await {
            Ok(Ok((connection, true))) => return connection,
            Ok(Ok((mut connection, false))) if !told => {
                told = true;
                let holder = holder(&mut connection).await.unwrap_or(None);
                tracing::error!("{}", refusal(place, holder));
            }
            Ok(Ok((_, false))) => {}
            Ok(Err(error)) => tracing::debug!(database = place, %error, "not locked yet"),
            Err(_) => tracing::debug!(database = place, "not locked yet: no answer"),
        }
        sleep(CHECK_EVERY).await;
    }
}

async fn try_lock(connection: &mut PgConnection, hold: Hold) -> Result<bool, sqlx::Error> {
    let sql = match hold {
        Hold::Alone => "SELECT pg_try_advisory_lock($1)",
        Hold::Shared => "SELECT pg_try_advisory_lock_shared($1)",
    };
    sqlx::query_scalar(sql).bind(LOCK).fetch_one(connection).await
}

/// The row of the lock, for whoever holds it.
macro_rules! holding {
    ($what:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND (l.classid::bigint << 32) + l.objid::bigint = $1 ",
            $rest
        )
    };
}

async fn is_ours(connection: &mut PgConnection) -> bool {
    let ours = sqlx::query_scalar::<_, i64>(holding!("count(*)", "AND l.pid = pg_backend_pid()"))
        .bind(LOCK)
        .fetch_one(connection);
    matches!(timeout(CHECK_TIMEOUT, ours).await, Ok(Ok(1)))
}

/// Who holds the lock: the server's process, and where its client is.
async fn holder(connection: &mut PgConnection) -> Result<Option<(i32, String)>, sqlx::Error> {
    sqlx::query_as(holding!("l.pid, coalesce(host(a.client_addr), 'this server')", "LIMIT 1"))
        .bind(LOCK)
        .fetch_optional(connection)
        .await
}

fn refusal(place: &str, holder: Option<(i32, String)>) -> String {
    let (who, end) = match holder {
        Some((pid, from)) => (
            format!(" (connected from {from})"),
            format!(", or end its connection with SELECT pg_terminate_backend({pid})"),
        ),
        None => (String::new(), String::new()),
    };
    format!(
        "the PostgreSQL database {place} is in use by another control plane{who}. One database serves one control \
         plane, or several that all have replicas.enabled: stop the other one, or give this one a database of its own with \
         RINGWARD_DATABASE_URL. If the \
         other one's machine is gone, wait a minute for the server to notice{end}"
    )
}
