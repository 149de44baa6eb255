//! The SQLite file: who may open it, what is refused and how, and that nothing acknowledged is ever lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests: clippy.toml's allowances reach only functions marked as tests, not what they call"
)]

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use controlplane_core::{
    access::Mode,
    ids::{AuditId, CallId, EventId, OrgId},
};
use controlplane_store::{
    CallStore, KeyStore, StoreError,
    calls::{Actor, DayMax, NewCall, OpenMax},
    sqlite::SqliteStore,
};
use rand::{SeedableRng, rngs::StdRng};
use sqlx::{Connection, SqliteConnection};
use time::{Duration, OffsetDateTime};

/// Names the database for the child that this test file starts of itself.
const CHILD: &str = "RINGWARD_TEST_WRITE_UNTIL_KILLED";
/// Acknowledged calls after which the child is killed.
const KILLED_AFTER: usize = 200;

fn new_call(rng: &mut StdRng, ms: i64) -> NewCall {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(ms);
    let request = serde_json::json!({"to": "+48221234567", "message": {"audio_id": "builtin:beep"}});
    NewCall {
        id: CallId::new(at, rng),
        org: OrgId::first(),
        mode: Mode::Live,
        request: serde_json::from_value(request).unwrap(),
        at,
        deadline_at: at,
        open_max: OpenMax { org: 50_000, number: 50_000 },
        day_max: DayMax::default(),
        idempotency: None,
        actor: Actor::default(),
        audit_id: AuditId::new(at, rng),
        event_id: EventId::new(at, rng),
        trace: None,
    }
}

async fn refusal(path: &Path) -> String {
    match SqliteStore::open(path).await {
        Err(StoreError::Open(text)) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was opened", path.display()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_and_file_are_made_for_this_user_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/ringward.db");
    let _store = SqliteStore::open(&path).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for file in ["ringward.db", "ringward.db-wal", "ringward.db.lock"] {
        assert_eq!(mode(&path.with_file_name(file)), 0o600, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replica_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringward.db");
    let first = SqliteStore::open(&path).await.unwrap();
    let text = refusal(&path).await;
    assert!(text.contains("ringward.db is in use") && text.contains("RINGWARD_DATABASE_URL"), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    drop(first);
    SqliteStore::open(&path).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_opened_is_named_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    std::fs::write(&path, "not a database, but long enough to be taken for one. ".repeat(100)).unwrap();
    let text = refusal(&path).await;
    assert!(text.contains("notes.txt") && text.contains("not a database"), "{text}");

    let text = refusal(&path.join("ringward.db")).await;
    assert!(text.contains("directory") && text.contains("RINGWARD_DATABASE_URL"), "{text}");
    let text = refusal(folder.path()).await;
    assert!(text.contains("is a directory"), "{text}");
    // Nobody, root included, can make files there.
    let text = refusal(Path::new("/proc/ringward.db")).await;
    assert!(text.contains("/proc/ringward.db"), "{text}");
    for (url, advice) in [
        ("ringward.db", "sqlite://PATH"),
        ("sqlite://", "names no file"),
        ("mysql://localhost/ringward", "mysql://"),
        ("postgres://nobody:secret-word@127.0.0.1:1/ringward", "127.0.0.1:1"),
    ] {
        let Err(StoreError::Open(text)) = controlplane_store::open(url).await else { panic!("{url}") };
        assert!(text.contains(advice) && !text.contains("secret-word"), "{url}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringward.db");
    drop(SqliteStore::open(&path).await.unwrap());
    let mut raw = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', TRUE, x'00', 0)",
    )
    .execute(&mut raw)
    .await
    .unwrap();
    let text = refusal(&path).await;
    assert!(text.contains("9999") && text.contains("newer than this program"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_store_has_lost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringward.db");
    let rng = &mut StdRng::seed_from_u64(1);
    let mut ids = Vec::new();
    for ms in 0..20 {
        let store = SqliteStore::open(&path).await.unwrap();
        let new = new_call(rng, ms);
        ids.push(new.id.clone());
        store.create_call(new).await.unwrap();
        drop(store);
    }
    let store = SqliteStore::open(&path).await.unwrap();
    let open = store.open_calls(None, 100).await.unwrap();
    assert!(open.iter().map(|c| &c.id).eq(&ids));
}

/// How many files of this folder this process has open.
fn open_files(folder: &Path) -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    files.filter_map(|file| std::fs::read_link(file.path()).ok()).filter(|to| to.starts_with(folder)).count()
}

/// A store whose connections have all read, and lie idle.
async fn used(path: &Path) -> std::sync::Arc<SqliteStore> {
    let store = std::sync::Arc::new(SqliteStore::open(path).await.unwrap());
    store.create_call(new_call(&mut StdRng::seed_from_u64(1), 1)).await.unwrap();
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let store = std::sync::Arc::clone(&store);
        reads.spawn(async move {
            assert!(store.key_by_hash(&[1; 32]).await.unwrap().is_none());
            assert_eq!(store.open_calls(None, 9).await.unwrap().len(), 1);
        });
    }
    reads.join_all().await;
    store
}

/// An idle connection that still held what it has read would keep the log from being emptied, and a backup with it.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_from_the_log_and_from_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringward.db");
    let store = used(&path).await;
    let mut raw = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut raw).await.unwrap();
    assert_eq!(busy, 0);
    let log = path.with_file_name("ringward.db-wal");
    assert_eq!(log.metadata().unwrap().len(), 0);
    let copy = folder.path().join("copy.db");
    sqlx::query("VACUUM INTO $1").bind(copy.display().to_string()).execute(&mut raw).await.unwrap();
    store.create_call(new_call(&mut StdRng::seed_from_u64(2), 2)).await.unwrap();
    drop(store);
    let copy = SqliteStore::open(&copy).await.unwrap();
    assert_eq!(copy.open_calls(None, 9).await.unwrap().len(), 1);
}

/// The last connection that is closed brings the log into the file and removes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_store_has_closed_every_connection_and_left_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringward.db");
    drop(used(&path).await);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while open_files(folder.path()) > 0 || path.with_file_name("ringward.db-wal").exists() {
        assert!(std::time::Instant::now() < until, "{} files are still open", open_files(folder.path()));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Not a test of its own: with [`CHILD`] set, writes calls and prints those acknowledged until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child_writes_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let store = std::sync::Arc::new(SqliteStore::open(path).await.unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = std::sync::Arc::clone(&store);
        writers.spawn(async move {
            let mut rng = StdRng::seed_from_u64(writer);
            // Bounded, should the parent die.
            for ms in 0..5_000 {
                let new = new_call(&mut rng, ms);
                let id = new.id.clone();
                store.create_call(new).await.unwrap();
                writeln!(std::io::stdout().lock(), "ack {id}").unwrap();
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringward.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writes_until_killed", "--nocapture", "--quiet"])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let acknowledged = |line: String| line.split_once("ack ").map(|(_, id)| id.to_owned());
    let mut acked: Vec<String> = lines.by_ref().filter_map(acknowledged).take(KILLED_AFTER).collect();
    child.kill().unwrap();
    // What it said between the last line read and its death counts as well; its last line may be cut.
    acked.extend(lines.filter_map(acknowledged).filter(|id| id.parse::<CallId>().is_ok()));
    child.wait().unwrap();
    assert!(acked.len() >= KILLED_AFTER);

    let store = SqliteStore::open(&path).await.unwrap();
    for id in &acked {
        let found = store.call(&OrgId::first(), &id.parse().unwrap()).await.unwrap();
        assert!(found.is_some(), "{id} was acknowledged and is gone");
    }
}
