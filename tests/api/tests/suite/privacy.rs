//! What is of people: erased by age, and one number's on request.

use serde_json::json;

use super::audit::{all_sealed, proof};
use crate::fixture::{Answer, Fleet, NUMBER, eventually, talks};

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

/// What is set for one organisation holds for it alone, within bounds.
#[tokio::test]
async fn an_organisation_s_own_retention_goes_before_the_server_s() {
    let mut fleet = Fleet::of(&["waw-1"], &["acme"]).start().await;
    fleet.callee(NUMBER, talks(10));
    let path = "/admin/v1/orgs/default/retention";
    let put = async |fleet: &Fleet, body: serde_json::Value| {
        Answer::to(fleet.operator.request(reqwest::Method::PUT, path).json(&body)).await
    };
    assert_eq!(fleet.operator.get(path).await.is(200), json!({}));
    let refused = put(&fleet, json!({"calls_days": 7})).await;
    assert_eq!(refused.is(422)["param"], "calls_days");
    assert_eq!(put(&fleet, json!({"events_days": 8})).await.is(422)["param"], "events_days");
    let longer = put(&fleet, json!({"calls_days": 91})).await;
    assert_eq!(longer.is(422)["detail"], "calls_days: 8 to 90.", "no longer than the server's");
    let own = json!({"calls_days": 30, "numbers_days": 8, "events_days": 1});
    put(&fleet, own.clone()).await.is(200);

    let call = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    let made = fleet.api.post("/v1/calls", &call).await.is(201);
    let id = made["id"].as_str().unwrap().to_owned();
    let of_call = format!("/v1/calls/{id}");
    eventually("the end", async || !fleet.api.get(&of_call).await.is(200)["ended_at"].is_null()).await;
    let other = fleet.other_customer().await;
    let theirs = other.post("/v1/calls", &call).await.is(201);
    let of_theirs = format!("/v1/calls/{}", theirs["id"].as_str().unwrap());
    eventually("the end", async || !other.get(&of_theirs).await.is(200)["ended_at"].is_null()).await;

    for (days, is_there) in [(9, true), (22, false)] {
        fleet.later(days * DAY);
        fleet.stop().await;
        fleet.start_again().await;
        assert_eq!(fleet.operator.get(path).await.is(200), own, "it is kept");
        eventually("erased", async || {
            let answer = fleet.api.get(&of_call).await;
            if is_there { answer.text.contains("+99900000000") } else { answer.status == 404 }
        })
        .await;
        let other = fleet.api.with_key(other.key.as_deref().unwrap());
        let answer = other.get(&of_theirs).await;
        assert!(answer.is(200)["to"] == NUMBER, "the server's 90 days are theirs: {}", answer.text);
    }
    let rows = fleet.operator.get("/admin/v1/audit?action=retention.set").await.is(200);
    assert_eq!(rows["data"][0]["changes"], own);
}

/// What was set when the server kept things for longer.
#[tokio::test]
async fn a_server_s_retention_that_is_lowered_holds_for_what_was_set_before() {
    let mut fleet = Fleet::of(&["waw-1"], &["acme"]).start().await;
    fleet.callee(NUMBER, talks(10));
    let path = "/admin/v1/orgs/default/retention";
    let own = json!({"calls_days": 60, "numbers_days": 60});
    Answer::to(fleet.operator.request(reqwest::Method::PUT, path).json(&own)).await.is(200);
    let call = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    let made = fleet.api.post("/v1/calls", &call).await.is(201);
    let of_call = format!("/v1/calls/{}", made["id"].as_str().unwrap());
    eventually("the end", async || !fleet.api.get(&of_call).await.is(200)["ended_at"].is_null()).await;
    fleet.stop().await;
    fleet.settings.retention.calls_days = 20;
    fleet.settings.retention.numbers_days = 10;
    for (days, is_there) in [(11, true), (10, false)] {
        fleet.later(days * DAY);
        fleet.start_again().await;
        assert_eq!(fleet.operator.get(path).await.is(200), own, "it stays as it was set");
        eventually("erased", async || {
            let answer = fleet.api.get(&of_call).await;
            if is_there { answer.text.contains("+99900000000") } else { answer.status == 404 }
        })
        .await;
        fleet.stop().await;
    }
}
