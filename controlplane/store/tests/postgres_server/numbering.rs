//! Numbering and settling events beside other replicas, and beside what becomes of endpoints meanwhile.

use std::{sync::Arc, time::Duration};

use controlplane_core::{
    ids::{EndpointId, EventId, OrgId, ReplicaId},
    webhook::Next,
};
use controlplane_store::{
    CallStore as _, EventStore as _, WebhookStore as _,
    calls::{Actor, Begun, Created},
    postgres::PostgresStore,
    webhooks::{
        Change, Claim, Claimed, DeliveryPage, Endpoint, EndpointChange, Lane, Secret, Secrets, Settle,
    },
};
use rand::{SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::{AuditId, SOON, begin, database, write};

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn change(rng: &mut StdRng) -> Change {
    Change { org: OrgId::first(), at: START, actor: Actor::default(), audit_id: AuditId::new(START, rng) }
}

async fn endpoint(store: &PostgresStore, rng: &mut StdRng) -> EndpointId {
    let endpoint = Endpoint {
        id: EndpointId::new(START, rng),
        org: OrgId::first(),
        url: "https://example.com/hook".to_owned(),
        description: String::new(),
        events: vec!["call.*".parse().unwrap()],
        secrets: Secrets { current: Secret(vec![7; 32]), previous: None },
        created_at: START,
        failing_since: None,
        disabled: None,
    };
    assert!(store.create_endpoint(endpoint.clone(), change(rng)).await.unwrap());
    endpoint.id
}

/// A call whose attempt begins: an event that is told.
async fn event(store: &PostgresStore, rng: &mut StdRng) {
    let Created::New(call) = write(store, rng).await.unwrap() else { panic!("it is new") };
    let begun = store.begin_attempt(begin(call.id, None, rng)).await.unwrap();
    assert_eq!(begun, Begun::Yes { sequence: 2 });
}

async fn claim(store: &PostgresStore, id: &EndpointId) -> Vec<Claimed> {
    let claim = Claim {
        lane: Lane { org: OrgId::first(), name: id.to_string() },
        owner: "one".to_owned(),
        now: START,
        until: START + Duration::from_secs(60),
        limit: 8,
        callback_secret: Secret(vec![9; 32]),
    };
    store.claim_deliveries(claim).await.unwrap()
}

fn delivered(claimed: Claimed, rng: &mut StdRng) -> Settle {
    Settle {
        event: claimed.event,
        target: claimed.target,
        epoch: claimed.epoch,
        at: START,
        took_ms: 12,
        status: Some(200),
        error: None,
        next: Next::Delivered,
        audit_id: AuditId::new(START, rng),
        disabled_id: EventId::new(START, rng),
    }
}

/// Deliveries that are locked (their endpoint is being removed, say) are settled late. Those in a set with them are for as long as a lock is waited for, and all
/// others at once, however many sets wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_locked_holds_up_no_others() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(43);
    let store = Arc::new(PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap());
    let id = endpoint(&store, rng).await;
    for _ in 0..8 {
        event(&store, rng).await;
    }
    store.seal_events(START, 100).await.unwrap();
    let mut claimed = claim(&store, &id).await;
    assert_eq!(claimed.len(), 8);
    let free = claimed.split_off(4);
    let mut raw = PgConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN").execute(&mut raw).await.unwrap();
    let tell = |store: &Arc<PostgresStore>, settle| {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.settle_delivery(settle).await })
    };
    let mut waiting = Vec::new();
    for claimed in claimed {
        let lock = "SELECT 1 FROM webhook_delivery WHERE event_id = $1 FOR UPDATE";
        sqlx::query(lock).bind(claimed.event.as_str()).execute(&mut raw).await.unwrap();
        // Apart from each other, so that each waits in a set of its own.
        waiting.push(tell(&store, delivered(claimed, rng)));
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    for settled in free.into_iter().map(|claimed| tell(&store, delivered(claimed, rng))).collect::<Vec<_>>() {
        let settled = timeout(Duration::from_millis(500), settled).await;
        assert_eq!(settled.expect("it is held up").unwrap().unwrap(), None);
    }
    sqlx::query("ROLLBACK").execute(&mut raw).await.unwrap();
    for settled in waiting {
        assert_eq!(timeout(SOON, settled).await.unwrap().unwrap().unwrap(), None);
    }
}

/// Nobody waits for a replica that numbers events, or stands still while it does.
#[tokio::test(flavor = "multi_thread")]
async fn who_finds_another_numbering_does_not_wait_for_it() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(41);
    let store = PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap();
    event(&store, rng).await;
    let mut raw = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT position FROM event_seal WHERE id = 1 FOR UPDATE")
        .execute(&mut raw)
        .await
        .unwrap();
    let beside = timeout(Duration::from_millis(500), store.seal_events(START, 100)).await;
    let beside = beside.expect("it does not wait").unwrap();
    assert_eq!((beside.is_busy, beside.events), (true, 0));
    assert!(store.is_unsealed().await.unwrap());
    sqlx::query("ROLLBACK").execute(&mut raw).await.unwrap();
    let after = store.seal_events(START, 100).await.unwrap();
    assert_eq!((after.is_busy, after.events), (false, 2));
}

/// What is made for an endpoint while it is disabled is given up with the rest; how it answers is written meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_disables_an_endpoint_finds_what_is_made_for_it_now() {
    let url = database().await;
    let rng = &mut StdRng::seed_from_u64(42);
    let store = Arc::new(PostgresStore::open_shared(&url, ReplicaId::new(rng)).await.unwrap());
    let id = endpoint(&store, rng).await;
    event(&store, rng).await;
    store.seal_events(START, 100).await.unwrap();
    let mut raw = PgConnection::connect(&url).await.unwrap();
    // As numbering does it.
    sqlx::query("BEGIN").execute(&mut raw).await.unwrap();
    sqlx::query("SELECT id FROM webhook_endpoint WHERE id = $1 FOR KEY SHARE")
        .bind(id.as_str())
        .execute(&mut raw)
        .await
        .unwrap();
    let claimed = claim(&store, &id).await.pop().unwrap();
    let settle = Settle {
        status: Some(500),
        error: Some("500".to_owned()),
        next: Next::Again(START + Duration::from_secs(5)),
        ..delivered(claimed, rng)
    };
    timeout(Duration::from_millis(500), store.settle_delivery(settle))
        .await
        .expect("it does not wait")
        .unwrap();
    let (its, by) = (Arc::clone(&store), change(rng));
    let what = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
    let of = id.clone();
    let disabling = tokio::spawn(async move { its.change_endpoint(of, what, by).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!disabling.is_finished(), "it did not wait for what is made now");
    let made = "INSERT INTO webhook_delivery
            (event_id, target, org_id, endpoint_id, call_id, sequence, kind, lane, position, created_at, due_at)
        SELECT id, $1, org_id, $1, call_id, sequence, 'call.initiated', $1, 9, created_at, created_at FROM outbox WHERE sequence = 1";
    sqlx::query(made).bind(id.as_str()).execute(&mut raw).await.unwrap();
    sqlx::query("COMMIT").execute(&mut raw).await.unwrap();
    timeout(SOON, disabling).await.unwrap().unwrap().unwrap();
    let page = DeliveryPage { org: None, target: None, state: None, starting_after: None, limit: 10 };
    let (deliveries, _) = store.deliveries(page).await.unwrap();
    assert_eq!(deliveries.len(), 2);
    assert!(deliveries.iter().all(|delivery| delivery.dead_at.is_some()), "{deliveries:?}");
}
