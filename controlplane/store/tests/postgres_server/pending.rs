//! What it costs to deliver an event does not grow with what waits to be delivered, whatever the server knows of its tables.

use controlplane_core::{
    ids::{CallId, EndpointId, EventId, OrgId},
    webhook::Next,
};
use controlplane_store::{
    WebhookStore as _,
    calls::Actor,
    postgres::PostgresStore,
    webhooks::{Change, Claim, Endpoint, Lane, Secret, Secrets, Settle},
};
use rand::{SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgConnection};
use time::{Duration, OffsetDateTime};

use crate::{AuditId, SOON, database};

const PENDING: i64 = 4_000;
const ROUNDS: i64 = 4;
const EACH: i64 = 8;
/// Rows of deliveries that are read for one of them: for its claim and its settling, itself each time, what comes before and after it of its call.
const READ_MAX: i64 = 12;

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

/// Rows of deliveries that were read, once the server has told of so many that were written.
async fn read(raw: &mut PgConnection, written: i64) -> i64 {
    let told = async {
        loop {
            let (read, updated) = sqlx::query_as::<_, (i64, i64)>(
                "SELECT seq_tup_read + idx_tup_fetch, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'webhook_delivery'",
            )
            .fetch_one(&mut *raw)
            .await
            .unwrap();
            if updated >= written {
                return read;
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(SOON, told).await.expect("the server tells what it has written")
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
    let before = read(&mut raw, 0).await;
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
    let delivered = ROUNDS * EACH;
    let each = (read(&mut raw, 2 * delivered).await - before) / delivered;
    assert!(each <= READ_MAX, "{each} rows were read for an event, of {PENDING} that wait");
}
