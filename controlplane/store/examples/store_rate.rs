//! How many calls per second the store accepts durably on SQLite: 64 callers at a time.
//!
//! `cargo run --release -p controlplane-store --example store_rate -- /var/tmp/store_rate.db [seal]`
//!
//! With `seal` audit rows are sealed meanwhile, as the control plane does.

use std::sync::Arc;

use controlplane_core::{
    access::Mode,
    ids::{AuditId, CallId, EventId, OrgId},
};
use controlplane_store::{
    Store, StoreError,
    audit::{AuditLease, AuditSealed},
    calls::{Actor, DayMax, NewCall, OpenMax},
};
use rand::{SeedableRng, rngs::StdRng};
use time::{Duration, OffsetDateTime};

const CALLERS: usize = 64;
const CALLS_EACH: usize = 500;
/// None of them is refused.
const OPEN_MAX: u32 = 50_000;

#[tokio::main]
#[allow(clippy::print_stdout, reason = "its output is its purpose")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("name a file that does not exist yet")?;
    let store = controlplane_store::open(&format!("sqlite://{path}")).await?;
    let request = serde_json::json!({"to": "+48221234567", "message": {"audio_id": "builtin:beep"}});
    let sealer = std::env::args().nth(2).map(|_| tokio::spawn(seal(Arc::clone(&store))));
    let start = tokio::time::Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let request = serde_json::from_value(request.clone())?;
        callers.spawn(call(Arc::clone(&store), caller as u64, request));
    }
    let mut waits = Vec::with_capacity(CALLERS * CALLS_EACH);
    while let Some(done) = callers.join_next().await {
        waits.extend(done??);
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some(sealer) = sealer {
        let behind = store.audit_counts(OffsetDateTime::UNIX_EPOCH).await?.unsealed;
        sealer.abort();
        println!("{} rows are sealed, {behind} wait", store.audit_head().await?.0);
    }
    waits.sort_unstable();
    let at = |part: usize| waits.get(waits.len() * part / 100).copied().unwrap_or_default();
    println!(
        "{:.0} durable create_call per second, {CALLERS} at a time; p50 {:?}, p99 {:?}",
        (CALLERS * CALLS_EACH) as f64 / seconds,
        at(50),
        at(99)
    );
    Ok(())
}

async fn seal(store: Arc<dyn Store>) -> Result<(), StoreError> {
    let at = OffsetDateTime::UNIX_EPOCH;
    loop {
        let lease = AuditLease { owner: "one".to_owned(), at, until: at + Duration::seconds(10) };
        while matches!(store.seal_audit(lease.clone(), 250).await?, AuditSealed::Done { rows: 1.., .. }) {}
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
}

async fn call(
    store: Arc<dyn Store>,
    seed: u64,
    request: controlplane_core::request::CallRequest,
) -> Result<Vec<std::time::Duration>, StoreError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut waits = Vec::with_capacity(CALLS_EACH);
    for i in 0..CALLS_EACH {
        let at = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(i as i64);
        let new = NewCall {
            id: CallId::new(at, &mut rng),
            org: OrgId::first(),
            mode: Mode::Live,
            request: request.clone(),
            at,
            deadline_at: at + Duration::minutes(5),
            open_max: OpenMax { org: OPEN_MAX, number: OPEN_MAX },
            day_max: DayMax::default(),
            idempotency: None,
            actor: Actor::default(),
            audit_id: AuditId::new(at, &mut rng),
            event_id: EventId::new(at, &mut rng),
            trace: None,
        };
        let asked = tokio::time::Instant::now();
        store.create_call(new).await?;
        waits.push(asked.elapsed());
    }
    Ok(waits)
}
