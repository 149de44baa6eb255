//! What is of people: erased by age, and one number's on request.

use serde_json::json;

use super::audit::{all_sealed, proof};
use crate::fixture::{Fleet, NUMBER, eventually, talks};

const DAY: i64 = 86_400;

/// A number is taken out of its ended calls, and the chain of the audit log holds.
#[tokio::test]
async fn a_number_is_erased_on_request() {
    let fleet = Fleet::small().await;
    fleet.callee(NUMBER, talks(10));
    let call =
        json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}, "metadata": {"who": "A. Person"}});
    let made = fleet.api.post("/v1/calls", &call).await.is(201);
    let path = format!("/v1/calls/{}", made["id"].as_str().unwrap());
    eventually("the end", async || !fleet.api.get(&path).await.is(200)["ended_at"].is_null()).await;
    let erased = fleet.operator.post("/admin/v1/erasures", &json!({"number": NUMBER})).await.is(200);
    assert_eq!((&erased["calls"], &erased["open_calls"]), (&json!(1), &json!(0)));
    let after = fleet.api.get(&path).await;
    assert_eq!(after.is(200)["to"], "+99900000000");
    assert!(!after.text.contains("Person") && !after.text.contains(NUMBER), "{}", after.text);
    let rows = fleet.operator.get("/admin/v1/audit?action=number.erase").await.is(200);
    assert_eq!(rows["data"][0]["changes"], json!({"calls": 1, "open_calls": 0}));
    assert_eq!(rows["data"][1]["changes"], json!({"begun": true}));
    assert!(rows["data"].as_array().unwrap().iter().all(|row| row["target_id"] == erased["reference"]));
    assert!(!rows.to_string().contains(&NUMBER[1..]));
    all_sealed(&fleet).await;
    assert!(proof(&fleet).await.is_whole());
}

#[tokio::test]
async fn calls_are_erased_by_age() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(|settings| {
            settings.retention.calls_days = 30;
            settings.retention.numbers_days = 8;
        })
        .start()
        .await;
    fleet.callee(NUMBER, talks(10));
    let call = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    let made = fleet.api.post("/v1/calls", &call).await.is(201);
    let path = format!("/v1/calls/{}", made["id"].as_str().unwrap());
    eventually("the end", async || !fleet.api.get(&path).await.is(200)["ended_at"].is_null()).await;
    let mut fleet = fleet;
    for (days, is_there) in [(9, true), (22, false)] {
        fleet.later(days * DAY);
        fleet.stop().await;
        fleet.start_again().await;
        eventually("erased", async || {
            let answer = fleet.api.get(&path).await;
            if is_there { answer.text.contains("+99900000000") } else { answer.status == 404 }
        })
        .await;
    }
}
