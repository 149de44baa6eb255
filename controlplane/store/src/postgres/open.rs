//! Connecting: which server and database, and which schema it has.
//!
//! Every refusal names the server and the database, never the password, and says what to do.

use std::{str::FromStr, sync::Arc, time::Duration};

use controlplane_core::ids::ReplicaId;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{sync::watch, time::timeout};

use super::{
    PostgresStore,
    heart::Heart,
    server::Server,
    sets::Sets,
    settling::Settling,
    sole::{self, Hold},
};
use crate::StoreError;

/// Connections of one replica. Transactions are a few milliseconds: more would only queue in the server.
pub(super) const CONNECTIONS_MAX: u32 = 16;
/// How long a caller waits for a free connection, or for the server to be back.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take to say that it can be used again.
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// How long a transaction may take in all where replicas share the database, and where one has it to itself: above what the server
/// bounds each statement with. What takes longer is a connection that has fallen silent, which TCP notices after a quarter of an hour.
const SHARED_ANSWER_MAX: Duration = Duration::from_secs(12);
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Between two tries to hear nudges.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// A connection that lay idle for so long is tested before it is used; each is when it comes back. Sooner, a round trip would be
/// spent on a server that answered just now.
const TESTED_AFTER: Duration = Duration::from_secs(1);
/// What every session is set to. Time-outs below the patience of an HTTP client, so that a stuck server
/// becomes an answer.
const SESSION: [(&str, &str); 9] = [
    ("synchronous_commit", "on"),
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("timezone", "UTC"),
    // Statements take milliseconds; compiling one that the planner holds for dear takes a hundred, again and again.
    ("jit", "off"),
    // What is asked while calls run has an index, in whose order it is read. A server that planned it when the table was small reads all of a large
    // one, or sorts all that an organisation has, until it has analysed it.
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    // So no plan depends on what is asked for: each is made once.
    ("plan_cache_mode", "force_generic_plan"),
];

/// The same where replicas share the database: what one that stands still has locked (its call, its organisation's turn) must be
/// free for the others before they take it for dead.
const SHARED_SESSION: [(&str, &str); 2] = [
    ("idle_in_transaction_session_timeout", "1s"),
    // Shorter than that: of those who stand still in a queue for one row (a carrier's account), its holder alone keeps it. They
    // would else have it for a second each, one after the other.
    ("lock_timeout", "800ms"),
];

/// The schema that has the former tables while a backup is put in their place (`replacing.rs`).
pub(super) const RESTORING: &str = "ringward_restoring";

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

pub(super) async fn open(url: &str, replica: Option<ReplicaId>) -> Result<PostgresStore, StoreError> {
    let hold = if replica.is_some() { Hold::Shared } else { Hold::Alone };
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        StoreError::Open(format!(
            "the database URL cannot be read: {error}; write postgres://USER:PASSWORD@HOST:PORT/DATABASE"
        ))
    })?;
    let options = options.application_name("ringward").disable_statement_logging();
    let place = crate::place::on_server(&options);
    // Without the sessions' time-outs: a migration may take its time.
    let holding = sole::session(&options);
    let mut connection = connect(&place, &holding).await?;
    sole::take(&place, &mut connection, hold).await?;
    if is_restoring(&mut connection).await.map_err(|error| unreachable(&place, &error.to_string()))? {
        return Err(StoreError::Open(format!(
            "a restore of the PostgreSQL database {place} has begun and not ended, and what it loaded is not held: run \
             `ringward restore FOLDER` again"
        )));
    }
    migrate(&place, &mut connection).await?;
    let database = place.into();
    let sole = sole::keep(connection, holding, Arc::clone(&database), hold);
    let mut options = options.options(SESSION);
    if replica.is_some() {
        options = options.options(SHARED_SESSION);
    }
    let heart = Heart::new(options.clone());
    let nudged = watch::Sender::new(0);
    let listener =
        replica.as_ref().map(|_| tokio::spawn(listen(options.clone(), nudged.clone())).abort_handle());
    let mut pool = PgPoolOptions::new();
    if replica.is_some() {
        // One that was given up in the middle is asked, as each is when it comes back: here not for ever, since the silence of a
        // connection is not to take its place from the others.
        pool = pool.after_release(|connection, _| {
            Box::pin(async move {
                match timeout(RELEASE_MAX, connection.ping()).await {
                    Ok(answer) => answer.map(|()| true),
                    Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
                }
            })
        });
    }
    let pool = pool
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move { Ok(about.idle_for < TESTED_AFTER || connection.ping().await.is_ok()) })
        })
        .connect_lazy_with(options);
    let written = watch::Sender::new(0);
    let answer_max = if replica.is_some() { SHARED_ANSWER_MAX } else { ANSWER_MAX };
    let server = Arc::new(Server { pool: pool.clone(), answer_max, database, sole, written });
    let sets = Sets::start(Arc::clone(&server));
    let settling = Settling::start(Arc::clone(&server));
    Ok(PostgresStore { server, sets, settling, pool, heart, replica, nudged, listener })
}

pub(super) async fn connect(place: &str, options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    match timeout(ACQUIRE_TIMEOUT, options.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(unreachable(place, &error.to_string())),
        Err(_) => Err(unreachable(place, "no answer within 5 s")),
    }
}

/// Whether a restore was begun that has not ended.
pub(super) async fn is_restoring(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let there = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)");
    there.bind(RESTORING).fetch_one(connection).await
}

/// Hears other replicas' nudges, for ever. One that falls into a cut is lost: they are only nudges.
async fn listen(options: PgConnectOptions, nudged: watch::Sender<u64>) {
    let pool =
        PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options);
    loop {
        if let Err(error) = hear(&pool, &nudged).await {
            tracing::debug!(%error, "nudges are not heard: looks go on without them");
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

async fn hear(pool: &PgPool, nudged: &watch::Sender<u64>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("ringward").await?;
    loop {
        listener.recv().await?;
        nudged.send_modify(|nudges| *nudges += 1);
    }
}

fn unreachable(place: &str, error: &str) -> StoreError {
    StoreError::Open(format!(
        "cannot connect to the PostgreSQL database {place}: {error}; check that the server runs and that \
         RINGWARD_DATABASE_URL names it, its database, user and password"
    ))
}

pub(super) async fn migrate(place: &str, connection: &mut PgConnection) -> Result<(), StoreError> {
    MIGRATIONS
        .run(connection)
        .await
        .map_err(|error| StoreError::Open(crate::migration_refused(place, &error)))
}
