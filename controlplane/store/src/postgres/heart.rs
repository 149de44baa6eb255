//! The connection of signs of life: its own, so that they do not wait for calls, and bounded by time.
//!
//! A connection may fall silent without a word (a firewall that forgot it, a server that moved), and TCP takes a quarter of an
//! hour to say so. A sign of life that is not answered within [`ANSWER_MAX`] gives its connection up as it stands, with no goodbye
//! that would wait for the same silence, and is written by a new one: both fit between two signs and the lease's end.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, timeout, timeout_at};

use super::server::Body;
use crate::error::Failure;

/// For the answer on a connection that answered before: some hundred times what it takes.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// For a sign of life in all: its process waits a little longer.
const BEAT_MAX: Duration = Duration::from_millis(1_150);
/// What its sessions are set to beyond all others: late is worth nothing, and one whose other end has vanished is closed.
const SESSION: [(&str, &str); 5] = [
    ("statement_timeout", "1s"),
    ("lock_timeout", "500ms"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
];

/// See the module.
pub(super) struct Heart {
    options: PgConnectOptions,
    /// Where it answered the last time.
    idle: Mutex<Option<PgConnection>>,
}

impl Heart {
    /// Connects with its first beat.
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options: options.options(SESSION), idle: Mutex::new(None) }
    }

    fn idle(&self) -> Option<PgConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs `body`, which may be run twice. It is one statement each time: a connection that is given up has locked nothing.
    pub(super) async fn beat<I: Sync, T>(&self, input: &I, body: Body<I, T>) -> Result<T, Failure> {
        let late = Instant::now() + BEAT_MAX;
        if let Some(mut connection) = self.idle() {
            match timeout(ANSWER_MAX, body(&mut connection, input)).await {
                Ok(Ok(done)) => return Ok(self.keep(connection, done)),
                Ok(Err(failure)) => {
                    tracing::debug!(?failure, "a sign of life is written by a new connection");
                }
                Err(_) => tracing::warn!(
                    "the database does not answer a sign of life: it is asked by a new connection"
                ),
            }
            // Dropped as it is: its socket is closed, and nobody waits for the other end.
        }
        let anew = async {
            let mut connection = self.options.connect().await?;
            let done = body(&mut connection, input).await?;
            Ok::<_, Failure>((connection, done))
        };
        match timeout_at(late, anew).await {
            Ok(Ok((connection, done))) => Ok(self.keep(connection, done)),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Sql(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
        }
    }

    fn keep<T>(&self, connection: PgConnection, done: T) -> T {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        done
    }
}
