//! What one replica sees of a trunk: evidence for all, and told once whoever sees it.

use std::time::Duration;

use controlplane::settings::{Destination, Settings};
use fake_pbx::Ending;
use serde_json::json;
use tokio::time::sleep;

use super::{beside, shares};
use crate::{
    fixture::{Door, Fleet, Receiver, eventually, talks},
    webhooks::inner,
};

/// Longer than a replica waits for the one that leads to tell.
const TOLD_LATE: Duration = Duration::from_secs(8);

fn destination(n: usize) -> String {
    format!("+48{:03}123456", 220 + n)
}

/// Acme before beta, one node, and somebody in chat.
async fn acme_first(chat: String) -> Fleet {
    let telling = move |settings: &mut Settings| {
        inner(settings);
        shares(settings);
        settings.chat.destinations = vec![Destination { url: chat, secret_file: None }];
    };
    let fleet = Fleet::of(&["waw-1"], &["acme", "beta"])
        .first_carrier_first()
        .trunks_have("cps_max = 1000")
        .settings(telling)
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(1)));
    fleet
}

async fn state_at(door: &Door) -> String {
    let why = door.get("/admin/v1/trunks/acme-waw-1/why").await.is(200);
    why["state"].as_str().unwrap().to_owned()
}

async fn fails_over_and_over(fleet: &Fleet) {
    fleet.carrier("acme", Ending::Sip(500));
    for n in 0..6 {
        fleet.call(&destination(n)).place().await.ends_as("completed", "played").await;
    }
}

/// The rows of its trips.
async fn trips(fleet: &Fleet) -> usize {
    let is_trip =
        |row: &&serde_json::Value| row["action"] == "trunk.trip" && row["target_id"] == "acme-waw-1";
    fleet.audit().await.iter().filter(is_trip).count()
}

/// Told once, in the audit log and in chat, and no second time by whoever sees it too.
async fn is_told_once(fleet: &Fleet, receiver: &Receiver) {
    eventually("the trip is in the audit log", async || trips(fleet).await == 1).await;
    let told = || {
        let tripped = |text: &str| text.matches("trunk acme-waw-1 tripped").count();
        receiver
            .got()
            .iter()
            .map(|got| tripped(got.body()["text"].as_str().unwrap_or_default()))
            .sum::<usize>()
    };
    eventually("it is told", async || told() == 1).await;
    sleep(TOLD_LATE).await;
    assert_eq!((trips(fleet).await, told()), (1, 1));
}

#[tokio::test]
async fn how_calls_end_at_one_replica_is_evidence_at_all() {
    let receiver = Receiver::start().await;
    let fleet = acme_first(receiver.url()).await;
    let beside = beside(&fleet).await;
    fails_over_and_over(&fleet).await;
    assert_eq!(state_at(&fleet.operator).await, "tripped");
    eventually("it is tripped there, too", async || state_at(&beside.operator).await == "tripped").await;
    // Nothing was sent there to find out.
    let before = fleet.originates("waw-1", "acme");
    let body = json!({"to": destination(20), "message": {"audio_id": "builtin:beep"}});
    let id = beside.api.post("/v1/calls", &body).await.is(201)["id"].as_str().unwrap().to_owned();
    let ended = super::is_sound(&beside.api, &id).await;
    assert_eq!(ended["attempts"][0]["trunk"], "beta-waw-1", "{ended}");
    assert_eq!(fleet.originates("waw-1", "acme"), before);
    is_told_once(&fleet, &receiver).await;
}

/// Who led is dead, and nobody has noticed yet.
#[tokio::test]
async fn a_trip_while_nobody_leads_is_told_once() {
    let receiver = Receiver::start().await;
    let fleet = acme_first(receiver.url()).await;
    let beside = beside(&fleet).await;
    fleet
        .database
        .run("UPDATE leader SET replica_id = 'rep_0', expires_at = now() + interval '1 hour'")
        .await;
    eventually("nobody leads", async || {
        let leads = super::metric(&fleet.operator, "ringward_replica_leads").await;
        leads + super::metric(&beside.operator, "ringward_replica_leads").await == 0
    })
    .await;
    fails_over_and_over(&fleet).await;
    assert_eq!(state_at(&fleet.operator).await, "tripped");
    fleet.database.run("UPDATE leader SET expires_at = now()").await;
    is_told_once(&fleet, &receiver).await;
}

/// Its own link, or its own trials, have shown it what the one that leads does not see.
#[tokio::test]
async fn a_trip_that_only_a_follower_sees_is_told_once() {
    let receiver = Receiver::start().await;
    let fleet = acme_first(receiver.url()).await;
    let beside = beside(&fleet).await;
    // As if the first one, which leads, had told it: nobody hears what he told himself. Once more where the other one has just
    // begun to listen.
    eventually("it is tripped there", async || {
        let told = "INSERT INTO sighting (replica_id, at, seen)
             SELECT (SELECT id FROM replica ORDER BY started_at LIMIT 1), clock_timestamp(), jsonb_agg(jsonb_build_object(
                 'trunk', 'acme-waw-1', 'node', 'waw-1', 'class', 'carrier_error', 'rang', 'no', 'sip_code', 500, 'q850', NULL,
                 'age_ms', 10, 'waited_ms', 8000, 'party', jsonb_build_object('org', (SELECT min(org_id) FROM org)),
                 'destination', '+48' || (220 + n) || '12', 'caller', NULL, 'is_near_limit', false))
             FROM generate_series(0, 5) AS n";
        fleet.database.run(told).await;
        sleep(Duration::from_millis(400)).await;
        state_at(&beside.operator).await == "tripped"
    })
    .await;
    assert_ne!(state_at(&fleet.operator).await, "tripped", "who leads sees nothing");
    is_told_once(&fleet, &receiver).await;
}
