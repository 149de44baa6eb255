//! A backup is restored: what it says is open may have ended since. No phone rings for it until an operator says so.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::{Call, Fleet, NUMBER, eventually, talks};

/// Longer than a call that is not held needs to be dialled.
const QUIET: Duration = Duration::from_millis(1_500);

/// The database as a backup has it that was made before the calls were dialled, and restored when they had ended.
const RESTORED: &str = "UPDATE call_transition SET attempt_id = NULL;
    DELETE FROM attempt;
    UPDATE call SET status = 'queued', reason = NULL, outcome = NULL, ended_at = NULL;
    INSERT INTO held (id, held_at) SELECT id, created_at FROM call;";

async fn restored(calls: usize) -> (Fleet, Vec<String>) {
    restored_with(calls, None).await
}

async fn restored_with(calls: usize, dedup_key: Option<&str>) -> (Fleet, Vec<String>) {
    let mut fleet = Fleet::small().await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(5)));
    let mut ids = Vec::new();
    for _ in 0..calls {
        let request = fleet.call(NUMBER);
        let request = match dedup_key {
            Some(key) => request.with("dedup_key", key),
            None => request,
        };
        let call = request.place().await;
        call.ends_as("completed", "played").await;
        ids.push(call.id.clone());
    }
    fleet.kill().await;
    fleet.database.run(RESTORED).await;
    fleet.start_again().await;
    ids.sort();
    (fleet, ids)
}

async fn held(fleet: &Fleet) -> Vec<String> {
    let list = fleet.operator.get("/admin/v1/held").await.is(200);
    let ids = list["data"].as_array().unwrap().iter();
    ids.map(|held| held["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn no_phone_rings_again_for_a_call_that_had_ended() {
    let (fleet, ids) = restored(3).await;
    sleep(QUIET).await;
    assert_eq!(fleet.seen(NUMBER).invites, 3, "nothing is dialled again");
    assert_eq!(held(&fleet).await, ids);
    assert!(fleet.metrics().await.contains("ringward_held 3"));
    // What comes in now is dialled as ever.
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    assert_eq!(fleet.seen(NUMBER).invites, 4);

    // The operator knows that the first has ended, and that the second was never dialled.
    Call::again(&fleet, &ids[0]).cancel().await;
    let canceled = Call::again(&fleet, &ids[0]).ends().await;
    assert_eq!((&canceled.0["status"], canceled.attempts().len()), (&json!("canceled"), 0));
    let one = fleet.operator.post("/admin/v1/held/release", &json!({"ids": [ids[1]]})).await.is(200);
    assert_eq!(one["released"], 1);
    Call::again(&fleet, &ids[1]).ends_as("completed", "played").await;
    assert_eq!((held(&fleet).await, fleet.seen(NUMBER).invites), (vec![ids[2].clone()], 5));

    let rest = fleet.operator.post("/admin/v1/held/release", &json!({})).await.is(200);
    assert_eq!(rest["released"], 1);
    Call::again(&fleet, &ids[2]).ends_as("completed", "played").await;
    assert!(held(&fleet).await.is_empty());
    let rows: Vec<Value> = fleet.audit().await;
    assert_eq!(rows.iter().filter(|row| row["action"] == "held.release").count(), 2);
}

/// The fault is there again, and the call that shares its key had ended after the backup: it is dialled, not waited for.
#[tokio::test]
async fn a_held_call_that_is_asked_for_anew_goes_on() {
    let (fleet, ids) = restored_with(1, Some("alert-7")).await;
    sleep(QUIET).await;
    assert_eq!((held(&fleet).await, fleet.seen(NUMBER).invites), (ids.clone(), 1));
    let again = fleet.call(NUMBER).with("dedup_key", "alert-7").answer().await.is(200);
    assert_eq!(again["id"], ids[0].as_str());
    Call::again(&fleet, &ids[0]).ends_as("completed", "played").await;
    assert_eq!((held(&fleet).await.len(), fleet.seen(NUMBER).invites), (0, 2));
    let rows: Vec<Value> = fleet.audit().await;
    assert_eq!(rows.iter().filter(|row| row["action"] == "held.release").count(), 1);
}

#[tokio::test]
async fn a_restart_does_not_release_and_a_deadline_ends() {
    let (mut fleet, ids) = restored(1).await;
    fleet.kill().await;
    fleet.start_again().await;
    sleep(QUIET).await;
    assert_eq!((held(&fleet).await, fleet.seen(NUMBER).invites), (ids.clone(), 1));
    fleet.kill().await;
    fleet.database.run("UPDATE call SET deadline_at = created_at").await;
    fleet.start_again().await;
    Call::again(&fleet, &ids[0]).ends_as("failed", "deadline_exceeded").await;
    eventually("nothing is held", async || held(&fleet).await.is_empty()).await;
    assert_eq!(fleet.seen(NUMBER).invites, 1);
}
