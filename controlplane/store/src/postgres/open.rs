//! Connecting: which server and database, and which schema it has.
//!
//! Every refusal names the server and the database, never the password, and says what to do.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{PostgresStore, sole};
use crate::StoreError;

/// Connections of one replica. Transactions are a few milliseconds: more would only queue in the server.
pub(super) const CONNECTIONS_MAX: u32 = 16;
/// How long a caller waits for a free connection, or for the server to be back.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that lay idle for so long is tested before it is used; each is when it comes back. Sooner, a round trip would be
/// spent on a server that answered just now.
const TESTED_AFTER: Duration = Duration::from_secs(1);
/// What every session is set to. Time-outs below the patience of an HTTP client, so that a stuck server
/// becomes an answer.
const SESSION: [(&str, &str); 6] = [
    ("synchronous_commit", "on"),
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("timezone", "UTC"),
    // Statements take milliseconds; compiling one that the planner holds for dear takes a hundred, again and again.
    ("jit", "off"),
];

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

pub(super) async fn open(url: &str) -> Result<PostgresStore, StoreError> {
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        StoreError::Open(format!(
            "the database URL cannot be read: {error}; write postgres://USER:PASSWORD@HOST:PORT/DATABASE"
        ))
    })?;
    let options = options.application_name("ringward").disable_statement_logging();
    let place = crate::place::on_server(&options);
    // Without the sessions' time-outs: a migration may take its time.
    let holding = sole::session(&options);
    let connected = tokio::time::timeout(ACQUIRE_TIMEOUT, holding.connect()).await;
    let mut connection = match connected {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(unreachable(&place, &error.to_string())),
        Err(_) => return Err(unreachable(&place, "no answer within 5 s")),
    };
    sole::take(&place, &mut connection).await?;
    migrate(&place, &mut connection).await?;
    let database = place.into();
    let sole = sole::keep(connection, holding, std::sync::Arc::clone(&database));
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move { Ok(about.idle_for < TESTED_AFTER || connection.ping().await.is_ok()) })
        })
        .connect_lazy_with(options.options(SESSION));
    Ok(PostgresStore { pool, database, sole, written: tokio::sync::watch::Sender::new(0) })
}

fn unreachable(place: &str, error: &str) -> StoreError {
    StoreError::Open(format!(
        "cannot connect to the PostgreSQL database {place}: {error}; check that the server runs and that \
         RINGWARD_DATABASE_URL names it, its database, user and password"
    ))
}

async fn migrate(place: &str, connection: &mut PgConnection) -> Result<(), StoreError> {
    MIGRATIONS
        .run(connection)
        .await
        .map_err(|error| StoreError::Open(crate::migration_refused(place, &error)))
}
