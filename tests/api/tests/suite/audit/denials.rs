//! Refusals: counted, bounded, and seen by whoever they are of.

use serde_json::json;

use crate::fixture::{Fleet, eventually};

/// Many refusals of one kind are one row and a count.
#[tokio::test]
async fn refusals_are_counted_and_name_who_was_refused() {
    let fleet = Fleet::small().await;
    for _ in 0..200 {
        fleet.api.without_key().post("/v1/calls", &json!({})).await.is_problem(401, "unauthenticated");
    }
    fleet.api.post("/v1/calls", &json!({"to": "112"})).await;
    fleet.later(61);
    eventually("the count", async || {
        fleet.audit().await.iter().any(|row| row["changes"]["count"].as_u64().is_some_and(|n| n >= 190))
    })
    .await;
    let rows = fleet.audit().await;
    let of = |reason: &str| rows.iter().filter(|row| row["reason"] == reason).count();
    assert_eq!(of("unauthenticated"), 2, "{rows:?}");
    let known = rows.iter().find(|row| row["action"] == "call.create" && row["key"].is_string()).unwrap();
    assert_eq!((&known["outcome"], &known["actor_type"]), (&json!("denied"), &json!("customer")));
    assert!(known["org"].is_string(), "{known}");
    // Its organisation sees it, and no stranger's.
    let own = fleet.api.get("/v1/audit_log").await.is(200);
    let own = own["data"].as_array().unwrap().clone();
    assert!(own.iter().any(|row| row["id"] == known["id"]), "{own:?}");
    assert!(!own.iter().any(|row| row["reason"] == "unauthenticated"));
    assert!(own.iter().all(|row| row.get("seq").is_none()));
    fleet.api.get("/v1/audit_log?org=org_00000000000000000000000000").await.is_problem(422, "invalid_field");
}
