//! What a call and its events cost does not grow with what was before them or waits beside them, whatever the server knows of its tables.

use std::collections::BTreeMap;

use controlplane_core::{
    call::{AttemptStatus, Rang},
    ids::{CallId, EndpointId, EventId, OrgId, ReplicaId},
    throttle::{Throttle, Window},
    webhook::Next,
};
use controlplane_store::{
    CallStore as _, EventStore as _, ReplicaStore as _, WebhookStore as _,
    calls::{Account, Actor, BeginAttempt, Begun, Created, Written},
    postgres::PostgresStore,
    replicas::Renewal,
    webhooks::{Change, Claim, Endpoint, Lane, Secret, Secrets, Settle},
};
use rand::{SeedableRng as _, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;

use crate::{
    AuditId, SOON, begin, database,
    sets::{advance, end},
    write,
};

const PENDING: i64 = 4_000;
const ROUNDS: i64 = 4;
const EACH: i64 = 8;
/// Rows of deliveries and of their indexes that are read for one of them: for its claim and its settling, itself each time, what comes before and
/// after it of its call. 13 were.
const READ_MAX: i64 = 24;

/// Events that wait in the endpoint's lane, each of a call of its own. What they refer to is not there.
async fn pending(raw: &mut PgConnection, endpoint: &EndpointId, rng: &mut StdRng) {
    let start = OffsetDateTime::UNIX_EPOCH;
    let events: Vec<_> = (0..PENDING).map(|_| EventId::new(start, rng).to_string()).collect();
    let calls: Vec<_> = (0..PENDING).map(|_| CallId::new(start, rng).to_string()).collect();
    sqlx::raw_sql("SET session_replication_role = replica").execute(&mut *raw).await.unwrap();
    sqlx::query(
        "INSERT INTO webhook_delivery (event_id, target, org_id, endpoint_id, call_id, sequence, kind, lane, position, created_at, due_at)
         SELECT event_id, $3, $4, $3, call_id, 2, 'call.ringing', $3, n, to_timestamp(0), to_timestamp(n / 1000.0)
         FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (event_id, call_id, n)",
    )
    .bind(events)
    .bind(calls)
    .bind(endpoint.as_str())
    .bind(OrgId::first().as_str())
    .execute(raw)
    .await
    .unwrap();
}

/// Rows and entries of indexes that were read, of each table. A session tells of all that it read when it ends.
async fn read(store: PostgresStore, raw: &mut PgConnection) -> BTreeMap<String, i64> {
    drop(store);
    let late = Instant::now() + SOON;
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'ringward'";
    while sqlx::query_scalar::<_, i64>(left).fetch_one(&mut *raw).await.unwrap() > 0 {
        assert!(Instant::now() < late, "a session is left");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let read = "SELECT relname::text, (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
             + (SELECT coalesce(sum(idx_tup_read), 0) FROM pg_stat_user_indexes AS i WHERE i.relid = t.relid))::bigint
         FROM pg_stat_user_tables AS t";
    sqlx::query_as(read).fetch_all(raw).await.unwrap().into_iter().collect()
}

/// What the server knows is of a moment when there was one of each.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_delivered_without_a_look_at_those_that_wait() {
    let url = database().await;
    let store = PostgresStore::open(&url).await.unwrap();
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let rng = &mut StdRng::seed_from_u64(31);
    let start = OffsetDateTime::UNIX_EPOCH;
    let org = OrgId::first();
    let endpoint = Endpoint {
        id: EndpointId::new(start, rng),
        org: org.clone(),
        url: "https://example.com/hook".to_owned(),
        description: String::new(),
        events: Vec::new(),
        secrets: Secrets { current: Secret(vec![7; 32]), previous: None },
        created_at: start,
        failing_since: None,
        disabled: None,
    };
    let change =
        Change { org: org.clone(), at: start, actor: Actor::default(), audit_id: AuditId::new(start, rng) };
    assert!(store.create_endpoint(endpoint.clone(), change).await.unwrap());
    let unknowing = "ALTER TABLE webhook_delivery SET (autovacuum_enabled = off)";
    sqlx::raw_sql(unknowing).execute(&mut raw).await.unwrap();
    pending(&mut raw, &endpoint.id, rng).await;
    let now = start + Duration::minutes(1);
    for _ in 0..ROUNDS {
        let claim = Claim {
            lane: Lane { org: org.clone(), name: endpoint.id.to_string() },
            owner: "one".to_owned(),
            now,
            until: now + Duration::minutes(1),
            limit: u16::try_from(EACH).unwrap(),
            callback_secret: Secret(vec![9; 32]),
        };
        let claimed = store.claim_deliveries(claim).await.unwrap();
        assert_eq!(claimed.len() as i64, EACH);
        for claimed in claimed {
            let settle = Settle {
                event: claimed.event,
                target: claimed.target,
                epoch: claimed.epoch,
                at: now,
                took_ms: 12,
                status: Some(200),
                error: None,
                next: Next::Delivered,
                audit_id: AuditId::new(now, rng),
                disabled_id: EventId::new(now, rng),
            };
            assert_eq!(store.settle_delivery(settle).await.unwrap(), None);
        }
    }
    let each = read(store, &mut raw).await["webhook_delivery"] / (ROUNDS * EACH);
    assert!(each <= READ_MAX, "{each} rows were read for an event, of {PENDING} that wait");
}

/// Places calls from their acceptance to the delivery of their last event.
async fn place(store: &PostgresStore, calls: usize, rng: &mut StdRng) {
    let start = OffsetDateTime::UNIX_EPOCH;
    let account = Account { cps_max: Some(10_000), channels_max: Some(10_000) };
    let throttle = Throttle::try_from(vec![Window { calls: 1_000, per_s: 60 }]).unwrap();
    for n in 0..calls {
        let Created::New(call) = write(store, rng).await.unwrap() else { panic!("it is new") };
        let of = BeginAttempt { throttle: throttle.clone(), ..begin(call.id.clone(), Some(account), rng) };
        assert!(matches!(store.begin_attempt(of.clone()).await.unwrap(), Begun::Yes { .. }));
        for status in [AttemptStatus::Ringing, AttemptStatus::InProgress] {
            let news = advance(&of, status, Rang::Yes, rng);
            assert!(matches!(store.advance(news).await.unwrap(), Written::Yes { .. }));
        }
        let end = end(&of, start, rng);
        assert!(matches!(store.end_attempt(end).await.unwrap(), Written::Yes { .. }));
        let now = start + Duration::seconds(n as i64);
        assert_eq!(store.seal_events(now, 100).await.unwrap().events, 5);
        let page = store.events(&OrgId::first(), 0, 1).await.unwrap();
        store.events_of(&OrgId::first(), &[page.events[0].id.clone()]).await.unwrap();
        store.call(&OrgId::first(), &call.id).await.unwrap().unwrap();
    }
}

/// Many calls that are over: what is of them is what was there, many times over, with other ids.
const FILL: &str = "SET session_replication_role = replica;
    INSERT INTO call SELECT (jsonb_populate_record(NULL::call, to_jsonb(t) || jsonb_build_object('id', 'call_' || lpad(n::text, 26, '0')))).*
        FROM (SELECT * FROM call LIMIT 1) AS t, generate_series(1, 5000) AS n;
    INSERT INTO attempt SELECT (jsonb_populate_record(NULL::attempt, to_jsonb(t) || jsonb_build_object('id', 'att_' || lpad(n::text, 26, '0'),
            'call_id', 'call_' || lpad(n::text, 26, '0')))).*
        FROM (SELECT * FROM attempt LIMIT 1) AS t, generate_series(1, 5000) AS n;
    INSERT INTO call_transition SELECT (jsonb_populate_record(NULL::call_transition, to_jsonb(t) || jsonb_build_object('id', 'evt_' || lpad(n::text, 26, '0'),
            'call_id', 'call_' || lpad(n::text, 26, '0')))).*
        FROM (SELECT * FROM call_transition LIMIT 1) AS t, generate_series(1, 5000) AS n;
    INSERT INTO outbox SELECT (jsonb_populate_record(NULL::outbox, to_jsonb(t) || jsonb_build_object('id', 'evt_' || lpad(n::text, 26, '0'),
            'call_id', 'call_' || lpad(n::text, 26, '0'), 'position', 1000000 + n))).*
        FROM (SELECT * FROM outbox LIMIT 1) AS t, generate_series(1, 5000) AS n";

/// The server has planned what it is asked when there was next to nothing, and keeps to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_placed_without_a_look_at_those_that_are_over() {
    const CALLS: usize = 12;
    let url = database().await;
    let store =
        PostgresStore::open_shared(&url, ReplicaId::new(&mut StdRng::seed_from_u64(1))).await.unwrap();
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let rng = &mut StdRng::seed_from_u64(32);
    for table in ["call", "attempt", "call_transition", "outbox"] {
        let unknowing = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
        sqlx::raw_sql(AssertSqlSafe(unknowing)).execute(&mut raw).await.unwrap();
    }
    place(&store, CALLS, rng).await;
    sqlx::raw_sql(FILL).execute(&mut raw).await.unwrap();
    place(&store, CALLS, rng).await;
    let read = read(store, &mut raw).await;
    println!("{read:?}");
    for (table, rows) in read {
        let each = rows / (2 * CALLS) as i64;
        assert!(each < 200, "{each} rows of {table} were read for a call, beside 5,000 that are over");
    }
}

/// Nor is anything else read of the living ones' calls than who owns them.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_the_dead_are_claimed_without_a_look_at_those_of_the_living() {
    const DEAD: usize = 40;
    const PAGE: u16 = 10;
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(33);
    let [one, living, dead] = [(); 3].map(|()| ReplicaId::new(rng));
    let store = PostgresStore::open_shared(&url, one.clone()).await.unwrap();
    for replica in [&one, &living, &dead] {
        let (name, secrets) = ("cp".to_owned(), BTreeMap::new());
        let lease = std::time::Duration::from_secs(600);
        store.renew_replica(Renewal { replica: replica.clone(), name, secrets, lease }).await.unwrap();
    }
    let Created::New(_) = write(&store, rng).await.unwrap() else { panic!("it is new") };
    let mut raw = PgConnection::connect(&url).await.unwrap();
    let fill = format!(
        "ALTER TABLE call SET (autovacuum_enabled = off);
         UPDATE replica SET expires_at = now() - interval '1 minute' WHERE id = '{dead}';
         SET session_replication_role = replica;
         INSERT INTO call SELECT (jsonb_populate_record(NULL::call, to_jsonb(t) || jsonb_build_object('id',
                 'call_' || lpad(n::text, 26, '0'), 'lease_owner', CASE WHEN n <= 5000 THEN '{living}' ELSE '{dead}' END))).*
             FROM (SELECT * FROM call LIMIT 1) AS t, generate_series(1, 5000 + {DEAD}) AS n"
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut raw).await.unwrap();
    for _ in 0..=DEAD / usize::from(PAGE) {
        // Their ids are none that can be read: they are claimed all the same.
        store.claim_calls(&one, PAGE).await.ok();
    }
    let each = read(store, &mut raw).await["call"] / DEAD as i64;
    println!("{each} rows for each");
    let left = "SELECT count(*) FROM call WHERE lease_owner = $1";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).bind(dead.as_str()).fetch_one(&mut raw).await.unwrap(), 0);
    assert!(
        each < 60,
        "{each} rows of calls were read for each that was claimed, beside 5,000 of the living"
    );
}
