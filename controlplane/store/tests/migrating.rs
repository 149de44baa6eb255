//! An upgrade from a database that an earlier release filled.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests: clippy.toml's allowances reach only functions marked as tests, not what they call"
)]

use std::path::Path;

use controlplane_core::{
    access::{Mode, Role},
    ids::{AuditId, OrgId},
};
use controlplane_store::{
    Store,
    calls::Actor,
    guard::{RuleKind, SetRules, Subject},
    keys::{KeyPage, Whose},
};
use rand::SeedableRng;
use sqlx::{AssertSqlSafe, migrate::Migrator};
use time::{OffsetDateTime, macros::datetime};

const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
/// The last release without webhooks.
const BEFORE: i64 = 5;

/// The last release whose keys had two scopes.
const TWO_SCOPES: i64 = 11;

/// The last release with one retention for all organisations.
const ONE_RETENTION: i64 = 14;

async fn earlier(database: &str, last: i64) -> Migrator {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database);
    let mut migrator = Migrator::new(folder).await.unwrap();
    migrator.migrations.to_mut().retain(|migration| migration.version <= last);
    migrator
}

/// Two calls that ended, one of them within the other's time, and one that rings.
fn rows(moment: impl Fn(u32) -> String) -> Vec<String> {
    let (org, mut out) = (OrgId::first(), Vec::new());
    for (call, status, steps) in
        [(1, "completed", [1, 4, 5]), (2, "failed", [2, 3, 6]), (3, "ringing", [7, 8, 9])]
    {
        let id = format!("call_{call:025}0");
        let ended = status != "ringing";
        let (reason, outcome) =
            if ended { ("'trunk_unavailable'", "'not_reached'") } else { ("NULL", "NULL") };
        out.push(format!(
            "INSERT INTO call (id, org_id, request, status, reason, outcome, sequence, created_at, deadline_at, ended_at)
             VALUES ('{id}', '{org}', '{{\"to\": \"+48221234567\", \"message\": {{\"audio_id\": \"builtin:beep\"}}}}',
                 '{status}', {reason}, {outcome}, 3, {}, {}, {})",
            moment(steps[0]),
            moment(99),
            if ended { moment(steps[2]) } else { "NULL".to_owned() },
        ));
        let kinds = ["call.queued", "call.initiated", if ended { "call.finished" } else { "call.ringing" }];
        let statuses = ["queued", "initiated", status];
        for (n, at) in (1..).zip(steps) {
            let event = format!("evt_{:025}0", call * 10 + n);
            let (kind, status, at) = (kinds[n - 1], statuses[n - 1], moment(at));
            out.push(format!(
                "INSERT INTO call_transition (id, org_id, call_id, sequence, status, occurred_at)
                 VALUES ('{event}', '{org}', '{id}', {n}, '{status}', {at})"
            ));
            out.push(format!(
                "INSERT INTO outbox (id, org_id, call_id, sequence, kind, created_at, due_at)
                 VALUES ('{event}', '{org}', '{id}', {n}, '{kind}', {at}, {at})"
            ));
        }
    }
    out
}

/// What ended before the upgrade is numbered and not told; what goes on is told.
async fn is_told_of_what_goes_on_alone(store: &dyn Store) {
    let org = OrgId::first();
    let last = store.last_position().await.unwrap();
    assert_eq!(last, 6, "what had ended has its numbers");
    assert!(store.is_unsealed().await.unwrap(), "the open call's are to be numbered");
    let sealed = store.seal_events(NOW, 100).await.unwrap();
    assert_eq!((sealed.events, sealed.lanes.len()), (3, 0));
    let new = store.events(&org, last, 100).await.unwrap();
    let ids: Vec<_> = new.events.iter().map(|event| event.id.as_str()[27..29].to_owned()).collect();
    assert_eq!(ids, ["32", "33"]);
    // The old ones are in the list, by time, and each call's in its order.
    let all = store.events(&org, 0, 100).await.unwrap();
    let ids: Vec<_> = all.events.iter().map(|event| event.id.as_str()[27..29].to_owned()).collect();
    assert_eq!(ids, ["22", "12", "13", "23", "32", "33"]);
}

/// Keys as the last release with two scopes made them, by their names.
fn keys(moment: &str, bytes: impl Fn(u32) -> String) -> Vec<String> {
    let customer = format!("'{}'", OrgId::first());
    let key = |(n, (org, name, scopes)): (u32, (&str, &str, &str))| {
        format!(
            "INSERT INTO api_key (id, org_id, name, prefix, secret_sha256, scopes, created_at)
             VALUES ('key_{n:025}0', {org}, '{name}', 'rw', {}, '{scopes}', {moment})",
            bytes(n)
        )
    };
    let rows = [
        (customer.as_str(), "all", r#"["calls:write","calls:read"]"#),
        (customer.as_str(), "writes", r#"["calls:write"]"#),
        (customer.as_str(), "reads", r#"["calls:read"]"#),
        ("NULL", "operator", r#"["operator"]"#),
    ];
    (0..).zip(rows).map(key).collect()
}

/// Whatever a key could do, it still can, and nothing that it could not.
async fn keys_can_do_what_they_could(store: &dyn Store) {
    let page = KeyPage { whose: Whose::All, limit: 100, starting_after: None };
    let (keys, _) = store.keys(page).await.unwrap();
    assert!(keys.iter().all(|key| key.mode == Mode::Live && key.suspended_at.is_none()));
    let found: Vec<_> = keys.iter().rev().map(|key| (key.name.as_str(), key.scopes.join(" "))).collect();
    let expected = [
        ("all", "calls:write calls:read audio webhooks"),
        ("writes", "calls:write audio webhooks"),
        ("reads", "calls:read"),
        ("operator", "viewer operator admin"),
    ];
    assert_eq!(found, expected.map(|(name, scopes)| (name, scopes.to_owned())));
    assert_eq!(Role::of(&keys[0].scopes), Some(Role::Admin));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_earlier_releases_can_do_what_they_could_on_sqlite() {
    use sqlx::{Connection, SqliteConnection};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringward.db");
    let mut raw = SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
    earlier("sqlite", TWO_SCOPES).await.run(&mut raw).await.unwrap();
    for sql in keys("0", |n| format!("x'{n:064x}'")) {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut raw).await.unwrap();
    }
    raw.close().await.unwrap();
    let store = controlplane_store::open(&format!("sqlite://{}", path.display())).await.unwrap();
    keys_can_do_what_they_could(&*store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_ended_before_webhooks_are_told_to_nobody_on_sqlite() {
    use sqlx::{Connection, SqliteConnection};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringward.db");
    let mut raw = SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
    earlier("sqlite", BEFORE).await.run(&mut raw).await.unwrap();
    let base = NOW.unix_timestamp_nanos() / 1_000;
    for sql in rows(|s| (base + i128::from(s) * 1_000_000).to_string()) {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut raw).await.unwrap();
    }
    raw.close().await.unwrap();
    let store = controlplane_store::open(&format!("sqlite://{}", path.display())).await.unwrap();
    is_told_of_what_goes_on_alone(&*store).await;
}

/// What operators had set for customers, and a kind of it that there was not before.
async fn rules_stay_and_retention_is_one(store: &dyn Store) {
    let before = store.rules().await.unwrap();
    assert_eq!((before.len(), before[0].kind.as_str(), &before[0].document), (1, "policy", &policy()));
    let (at, rng) = (NOW, &mut rand::rngs::StdRng::seed_from_u64(1));
    let set = SetRules {
        subject: Subject::Org(OrgId::first()),
        kind: RuleKind::Retention,
        document: serde_json::json!({"calls_days": 30}),
        at,
        actor: Actor::default(),
        audit_id: AuditId::new(at, rng),
    };
    assert!(store.set_rules(set).await.unwrap());
    assert_eq!(store.rules().await.unwrap().len(), 2);
}

fn policy() -> serde_json::Value {
    serde_json::json!({"countries": {"PL": ["fixed"]}})
}

fn policy_row(moment: &str) -> Vec<String> {
    let columns = "INSERT INTO customer_rule (subject, kind, document, updated_at)";
    vec![format!("{columns} VALUES ('{}', 'policy', '{}', {moment})", OrgId::first(), policy())]
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_for_customers_outlive_the_upgrade_on_sqlite() {
    use sqlx::{Connection, SqliteConnection};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringward.db");
    let mut raw = SqliteConnection::connect(&format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
    earlier("sqlite", ONE_RETENTION).await.run(&mut raw).await.unwrap();
    for sql in policy_row("0") {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut raw).await.unwrap();
    }
    raw.close().await.unwrap();
    let store = controlplane_store::open(&format!("sqlite://{}", path.display())).await.unwrap();
    rules_stay_and_retention_is_one(&*store).await;
}

#[cfg(feature = "postgres-tests")]
#[tokio::test(flavor = "multi_thread")]
async fn rules_for_customers_outlive_the_upgrade_on_postgresql() {
    let store = controlplane_store::open(&database(ONE_RETENTION, policy_row("now()")).await).await.unwrap();
    rules_stay_and_retention_is_one(&*store).await;
}

#[cfg(feature = "postgres-tests")]
async fn database(last: i64, rows: Vec<String>) -> String {
    use rand::TryRngCore;
    use sqlx::{Connection, PgConnection};
    let server = std::env::var("RINGWARD_TEST_POSTGRES_URL").expect("RINGWARD_TEST_POSTGRES_URL");
    let (address, _) = server.rsplit_once('/').unwrap();
    let name = format!("ringward_test_{:016x}", rand::rngs::OsRng.try_next_u64().unwrap());
    let mut admin = PgConnection::connect(&server).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
    let url = format!("{address}/{name}");
    let mut raw = PgConnection::connect(&url).await.unwrap();
    earlier("postgres", last).await.run(&mut raw).await.unwrap();
    for sql in rows {
        sqlx::query(AssertSqlSafe(sql)).execute(&mut raw).await.unwrap();
    }
    raw.close().await.unwrap();
    url
}

#[cfg(feature = "postgres-tests")]
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_ended_before_webhooks_are_told_to_nobody_on_postgresql() {
    let rows = rows(|s| format!("(timestamptz '2026-11-24 12:00:00Z' + interval '{s} seconds')"));
    let store = controlplane_store::open(&database(BEFORE, rows).await).await.unwrap();
    is_told_of_what_goes_on_alone(&*store).await;
}

#[cfg(feature = "postgres-tests")]
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_earlier_releases_can_do_what_they_could_on_postgresql() {
    let rows = keys("now()", |n| format!("'\\x{n:064x}'"));
    let store = controlplane_store::open(&database(TWO_SCOPES, rows).await).await.unwrap();
    keys_can_do_what_they_could(&*store).await;
}
