//! The PostgreSQL database: one control plane has it at a time, also over cuts and the server's restarts.

#![cfg(feature = "postgres-tests")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "tests: clippy.toml's allowances reach only functions marked as tests, not what they call"
)]

mod accounts;
mod numbering;
mod reads;
mod sets;

use std::time::Duration;

use controlplane_core::{
    access::Mode,
    ids::{AttemptId, AuditId, CallId, EventId, OrgId, ReplicaId},
    throttle::Throttle,
};
use controlplane_store::{
    CallStore, EventStore as _, ReplicaStore as _, StoreError,
    audit::{ActorType, AuditOutcome, NewAuditRow},
    calls::{Account, Actor, BeginAttempt, Created, DayMax, NewCall, OpenMax},
    postgres::PostgresStore,
};
use rand::{SeedableRng, TryRngCore, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::OffsetDateTime;

/// As the store has it.
const LOCK: i64 = i64::from_be_bytes(*b"RINGWARD");
/// For what is noticed by a look every second.
const SOON: Duration = Duration::from_secs(15);

/// A database of the test's own.
async fn database() -> String {
    let server = std::env::var("RINGWARD_TEST_POSTGRES_URL").expect("RINGWARD_TEST_POSTGRES_URL");
    let (address, _) = server.rsplit_once('/').unwrap();
    let name = format!("ringward_test_{:016x}", rand::rngs::OsRng.try_next_u64().unwrap());
    let mut admin = PgConnection::connect(&server).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
    format!("{address}/{name}")
}

async fn refusal(url: &str) -> String {
    match PostgresStore::open(url).await {
        Err(StoreError::Open(text)) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{url} was opened"),
    }
}

async fn write(store: &PostgresStore, rng: &mut StdRng) -> Result<Created, StoreError> {
    let at = OffsetDateTime::UNIX_EPOCH;
    let request = serde_json::json!({"to": "+48221234567", "message": {"audio_id": "builtin:beep"}});
    let new = NewCall {
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
    };
    store.create_call(new).await
}

/// Writes until it is answered so.
async fn until(store: &PostgresStore, rng: &mut StdRng, written: bool) {
    let asking = async {
        loop {
            match write(store, rng).await {
                Ok(_) if written => return,
                Err(StoreError::Unavailable { .. }) if !written => return,
                Ok(_) | Err(StoreError::Unavailable { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, asking).await.expect("soon");
}

/// The server's processes that hold the lock of this database.
async fn holders(raw: &mut PgConnection) -> Vec<i32> {
    sqlx::query_scalar(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .fetch_all(raw)
    .await
    .unwrap()
}

/// Ends the session that holds the lock, as a cut on the way to the server would, and waits until it is gone.
async fn cut(raw: &mut PgConnection) {
    let held = holders(raw).await;
    let [holder] = held[..] else { panic!("{held:?}") };
    let ended = "SELECT pg_terminate_backend($1, 5000)";
    assert!(sqlx::query_scalar::<_, bool>(ended).bind(holder).fetch_one(raw).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_control_plane_is_refused_until_the_first_is_gone() {
    let url = database().await;
    let first = PostgresStore::open(&url).await.unwrap();
    let text = refusal(&url).await;
    let name = url.rsplit('/').next().unwrap();
    for part in [name, "in use by another control plane", "stop the other one", "RINGWARD_DATABASE_URL"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    write(&first, &mut StdRng::seed_from_u64(1)).await.unwrap();
    drop(first);
    PostgresStore::open(&url).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_is_taken_again_after_a_cut() {
    let url = database().await;
    let store = PostgresStore::open(&url).await.unwrap();
    let rng = &mut StdRng::seed_from_u64(2);
    let mut raw = PgConnection::connect(&url).await.unwrap();
    cut(&mut raw).await;
    let again = async {
        while holders(&mut raw).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, again).await.expect("soon");
    until(&store, rng, true).await;
    assert!(refusal(&url).await.contains("in use"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_while_another_has_the_lock() {
    let url = database().await;
    let store = PostgresStore::open(&url).await.unwrap();
    let rng = &mut StdRng::seed_from_u64(3);
    let mut other = PgConnection::connect(&url).await.unwrap();
    let waiting = async {
        sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut other).await.unwrap();
    };
    let cutting = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cut(&mut PgConnection::connect(&url).await.unwrap()).await;
    };
    tokio::join!(waiting, cutting);
    until(&store, rng, false).await;
    let before = store.open_calls(None, 1_000).await.unwrap().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let error = write(&store, rng).await.unwrap_err();
    assert!(error.to_string().contains("other control planes"), "{error}");
    assert_eq!(store.open_calls(None, 1_000).await.unwrap().len(), before, "it can still be read");
    other.close().await.unwrap();
    until(&store, rng, true).await;
}

/// What docs/runbooks/audit.md gives a role of the service's own.
fn grants(role: &str) -> Vec<String> {
    let book = include_str!("../../../../docs/runbooks/audit.md");
    let block = book.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
    block.lines().map(|line| line.replace("ringward_service", role)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_its_own_writes_and_seals_audit_rows_and_erases_none() {
    let url = database().await;
    drop(PostgresStore::open(&url).await.unwrap());
    let mut c = PgConnection::connect(&url).await.unwrap();
    let role = format!("service_{:016x}", rand::rngs::OsRng.try_next_u64().unwrap());
    let mut run = async |sql: &str| {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut c).await.map_err(|error| error.to_string())
    };
    run(&format!("CREATE ROLE {role}")).await.unwrap();
    let mut grants = grants(&role);
    let execute = grants.pop().unwrap();
    assert!(execute.starts_with("GRANT EXECUTE ON FUNCTION audit_erase"), "{execute}");
    run(&grants.join("\n")).await.unwrap();
    run(&format!("SET ROLE {role}")).await.unwrap();
    let insert = "INSERT INTO audit_log (id, occurred_at, actor_type, action, target_type, target_id, outcome, changes)
                  VALUES ('aud_00000000000000000000000001', now(), 'system', 'x', 'x', 'x', 'success', '{}')";
    run(insert).await.unwrap();
    let erase = "SELECT audit_erase('main', 1, 1, now() + interval '1 day')";
    for sql in [
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "UPDATE audit_log SET ip = '192.0.2.1'",
        "UPDATE audit_retention SET erase_before = now()",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        erase,
    ] {
        let refused = run(sql).await.unwrap_err();
        assert!(
            refused.contains("permission denied") || refused.contains("must be owner"),
            "{sql}: {refused}"
        );
    }
    let zero = "decode(repeat('00', 32), 'hex')";
    run(&format!("UPDATE audit_log SET chain = 'main', seq = 1, prev_hash = {zero}, hash = {zero}"))
        .await
        .unwrap();
    // With the right to erase, still not what no checkpoint tells of.
    run("RESET ROLE").await.unwrap();
    run(&execute).await.unwrap();
    run(&format!("SET ROLE {role}")).await.unwrap();
    assert!(run(erase).await.unwrap_err().contains("append-only"));
    run(&format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

/// Those that share it keep out who would have it alone, and the other way round; a SQLite file is never shared.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_database_with_none_that_has_it_alone() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(5);
    let ids: Vec<ReplicaId> = (0..3).map(|_| ReplicaId::new(rng)).collect();
    let alone = PostgresStore::open(&url).await.unwrap();
    let refused = |opened: Result<PostgresStore, StoreError>| match opened {
        Err(StoreError::Open(text)) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    };
    let text = refused(PostgresStore::open_shared(&url, ids[0].clone()).await);
    assert!(text.contains("replicas.enabled"), "{text}");
    drop(alone);
    let first = PostgresStore::open_shared(&url, ids[0].clone()).await.unwrap();
    let second = PostgresStore::open_shared(&url, ids[1].clone()).await.unwrap();
    assert!(refusal(&url).await.contains("in use by another control plane"));
    // Each is the owner of what it accepts.
    let Created::New(call) = write(&second, rng).await.unwrap() else { panic!("it is new") };
    assert_eq!(call.claim.owner.as_ref(), Some(&ids[1]));
    assert_eq!(first.owned_calls(&ids[1]).await.unwrap().len(), 1);
    // A nudge reaches the others.
    let mut nudges = first.nudges();
    let nudged = async {
        loop {
            second.nudge().await;
            if tokio::time::timeout(Duration::from_millis(100), nudges.changed()).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, nudged).await.expect("soon");
    drop((first, second));
    PostgresStore::open(&url).await.unwrap();

    let file = controlplane_store::open_shared("sqlite:///tmp/ringward.db", ids[2].clone()).await;
    let Err(StoreError::Open(text)) = file else { panic!("a SQLite file is shared") };
    assert!(text.contains("one control plane") && text.contains("replicas.enabled"), "{text}");
}

/// Whoever waits for a transaction's beginning may go away at any moment: no connection is left in it.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_leaves_no_transaction_behind() {
    const LEFT: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(9);
    let store = PostgresStore::open(&url).await.unwrap();
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let _ = write(&store, rng).await.unwrap();
    for n in 0..400 {
        let soon = Duration::from_micros(n * 5);
        // Whether it came in time or not.
        let _ = tokio::time::timeout(soon, write(&store, rng)).await;
        let _ = tokio::time::timeout(soon, store.events(&OrgId::first(), 0, 1)).await;
    }
    let late = tokio::time::Instant::now() + SOON;
    while sqlx::query_scalar::<_, i64>(LEFT).fetch_one(&mut raw).await.unwrap() > 0 {
        assert!(tokio::time::Instant::now() < late, "a connection is left in a transaction");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An attempt over acme.
fn begin(call: CallId, account: Option<Account>, rng: &mut StdRng) -> BeginAttempt {
    BeginAttempt {
        call,
        epoch: 0,
        attempt: AttemptId::new(rng),
        node: "waw-1".parse().unwrap(),
        trunk: "acme-waw-1".parse().unwrap(),
        carrier: "acme".parse().unwrap(),
        incarnation: None,
        to: "+48221234567".parse().unwrap(),
        throttle: Throttle::off(),
        account,
        at: OffsetDateTime::UNIX_EPOCH - time::Duration::SECOND,
        event_id: EventId::new(OffsetDateTime::UNIX_EPOCH, rng),
    }
}

/// Whoever tells first has told it, with its row; who asks about an earlier time tells anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_several_replicas_see_is_told_once() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(8);
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores
            .push(std::sync::Arc::new(PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap()));
    }
    let row = |rng: &mut StdRng| NewAuditRow {
        id: AuditId::new(OffsetDateTime::UNIX_EPOCH, rng),
        org: None,
        at: OffsetDateTime::UNIX_EPOCH,
        actor_type: ActorType::System,
        actor: Actor::default(),
        action: "trunk.trip".to_owned(),
        target_type: "trunk".to_owned(),
        target_id: "acme-waw-1".to_owned(),
        outcome: AuditOutcome::Success,
        reason: None,
        changes: serde_json::json!({}),
    };
    let within = Duration::from_secs(600);
    let mut tasks = Vec::new();
    for n in 0..12 {
        let (store, row) = (std::sync::Arc::clone(&stores[n % 3]), row(rng));
        let telling =
            async move { store.tell_once("trunk.trip acme-waw-1", within, Some(row)).await.unwrap() };
        tasks.push(tokio::spawn(telling));
    }
    let mut told = 0;
    for task in tasks {
        told += u8::from(task.await.unwrap());
    }
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let mut rows = async || {
        let count = "SELECT count(*) FROM audit_log WHERE action = 'trunk.trip'";
        sqlx::query_scalar::<_, i64>(count).fetch_one(&mut raw).await.unwrap()
    };
    assert_eq!((told, rows().await), (1, 1));
    assert!(
        stores[1].tell_once("trunk.trip beta-waw-1", within, Some(row(rng))).await.unwrap(),
        "another one"
    );
    tokio::time::sleep(Duration::from_millis(20)).await;
    let lately = Duration::from_millis(10);
    assert!(
        stores[2].tell_once("trunk.trip acme-waw-1", lately, Some(row(rng))).await.unwrap(),
        "it is another trip"
    );
    assert_eq!(rows().await, 3);
    // No reader takes it for what was seen of a trunk.
    assert!(stores[0].sightings(Some(0)).await.unwrap().1.is_empty());
}
