//! The framework alone: POST /v1/calls with the one insert of a call's row, durable as Ringward's is, and nothing else.
//!
//! SQLite: WAL, `synchronous=FULL`, one writer that commits all who wait together. PostgreSQL: `synchronous_commit=on`, as many
//! connections as Ringward has. No key is looked up, nothing is checked, logged, counted or placed; there is no index but the
//! primary key.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};
use sqlx::{
    ConnectOptions as _, PgPool, SqliteConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::Instant,
};

/// As in Ringward.
const BATCH_MAX: usize = 256;
const QUEUE_MAX: usize = 1_024;
const CONNECTIONS_MAX: u32 = 16;
/// How long a call may wait, in µs.
const DEADLINE_US: i64 = 300_000_000;

const INSERT: &str =
    "INSERT INTO call (id, org_id, request, dedup_key, status, sequence, created_at, deadline_at, mode)
     VALUES ($1, 'org_00000000000000000000000000', $2, NULL, 'queued', 1, $3, $4, 'live')";

/// One call to be written.
struct Row {
    id: String,
    request: Value,
    at: i64,
}

struct Server {
    database: Database,
    next: AtomicU64,
    began: Instant,
}

enum Database {
    Sqlite(mpsc::Sender<(Row, oneshot::Sender<()>)>),
    Postgres(PgPool),
}

pub(crate) async fn run(url: &str) -> anyhow::Result<()> {
    let database = if url.starts_with("sqlite:") { sqlite(url).await? } else { postgres(url).await? };
    let server = Arc::new(Server { database, next: AtomicU64::new(0), began: Instant::now() });
    let router = Router::new().route("/v1/calls", post(create)).with_state(server);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    crate::serve_until_left(&[address]).await
}

async fn create(
    State(server): State<Arc<Server>>,
    Json(request): Json<Value>,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let id = format!("call_{:026}", server.next.fetch_add(1, Ordering::Relaxed));
    let answer = Json(json!({"id": id, "object": "call", "to": request["to"], "status": "queued"}));
    let at = i64::try_from(server.began.elapsed().as_micros()).unwrap_or_default();
    let row = Row { id, request, at };
    match &server.database {
        Database::Sqlite(queue) => {
            let (written, waits) = oneshot::channel();
            queue.send((row, written)).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
            waits.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        }
        Database::Postgres(pool) => {
            let Row { id, request, at } = row;
            let insert = sqlx::query(INSERT).bind(id).bind(request).bind(at).bind(at + DEADLINE_US);
            insert.execute(pool).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        }
    }
    Ok((StatusCode::CREATED, answer))
}

async fn sqlite(url: &str) -> anyhow::Result<Database> {
    let options = url.parse::<SqliteConnectOptions>()?;
    let mut connection = options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await?;
    let table =
        "CREATE TABLE call (id TEXT NOT NULL PRIMARY KEY, org_id TEXT NOT NULL, request TEXT NOT NULL,
         dedup_key TEXT, status TEXT NOT NULL, sequence INTEGER NOT NULL, created_at INTEGER NOT NULL,
         deadline_at INTEGER NOT NULL, mode TEXT NOT NULL) STRICT";
    sqlx::query(table).execute(&mut connection).await.context("a database that is empty")?;
    let (queue, rows) = mpsc::channel(QUEUE_MAX);
    // It ends when a write fails: then everybody is answered 500, and the bench with it.
    tokio::spawn(async move { write(&mut connection, rows).await });
    Ok(Database::Sqlite(queue))
}

async fn write(
    connection: &mut SqliteConnection,
    mut rows: mpsc::Receiver<(Row, oneshot::Sender<()>)>,
) -> Result<(), sqlx::Error> {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while rows.recv_many(&mut batch, BATCH_MAX).await > 0 {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        for (Row { id, request, at }, _) in &batch {
            let insert = sqlx::query(INSERT).bind(id).bind(request).bind(at).bind(at + DEADLINE_US);
            insert.execute(&mut *connection).await?;
        }
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        for (_, written) in batch.drain(..) {
            // Who has hung up needs no answer.
            let _ = written.send(());
        }
    }
    Ok(())
}

async fn postgres(url: &str) -> anyhow::Result<Database> {
    let options = url.parse::<PgConnectOptions>()?.disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(Duration::from_secs(5))
        .test_before_acquire(false)
        .connect_with(options.options([("synchronous_commit", "on")]))
        .await?;
    let table =
        "CREATE TABLE call (id text NOT NULL PRIMARY KEY, org_id text NOT NULL, request jsonb NOT NULL,
         dedup_key text, status text NOT NULL, sequence bigint NOT NULL, created_at bigint NOT NULL,
         deadline_at bigint NOT NULL, mode text NOT NULL)";
    sqlx::query(table).execute(&pool).await.context("a database that is empty")?;
    Ok(Database::Postgres(pool))
}
