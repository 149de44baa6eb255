//! Test keys: the whole life of a call, with its events, of which nothing reaches a PBX.

use serde_json::{Value, json};

use crate::fixture::{Door, Fleet, NUMBER, Receiver, eventually};

async fn test_key(fleet: &Fleet) -> Door {
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "t", "livemode": false})).await.is(201);
    assert!(made["secret"].as_str().unwrap().starts_with("rw_test_"), "{made}");
    fleet.api.with_key(made["secret"].as_str().unwrap())
}

async fn end(door: &Door, call: &Value) -> Value {
    let path = format!("/v1/calls/{}", call["id"].as_str().unwrap());
    eventually("the call ends", async || !door.get(&path).await.is(200)["ended_at"].is_null()).await;
    door.get(&path).await.is(200)
}

fn body(figure: u8, more: Value) -> Value {
    let mut body = json!({"to": format!("+120255501{figure:02}"), "message": {"audio_id": "builtin:beep"}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Nothing of any call came to any PBX.
fn nothing_was_sent(fleet: &Fleet) {
    for pbx in fleet.pbxes() {
        let sent: Vec<_> = pbx.actions().into_iter().filter(|a| a.get("Channel").is_some()).collect();
        assert!(sent.is_empty(), "{sent:?}");
    }
}

#[tokio::test]
async fn each_number_gives_its_outcome_and_no_pbx_hears_of_it() {
    let fleet = Fleet::square().start().await;
    let door = test_key(&fleet).await;
    let keys = json!({"acknowledgement": {"keys": {"1": "acknowledge", "2": "escalate"}}});
    let soon = json!({"deadline_at": crate::fixture::in_seconds(6)});
    let quick = json!({"ring_timeout_s": 5});
    let cases = [
        (0, &keys, "completed", "acknowledged", "acknowledged", 1),
        (0, &json!({}), "completed", "played", "answered", 1),
        (1, &keys, "completed", "answered_no_ack", "answered", 1),
        (2, &keys, "completed", "escalated", "answered", 1),
        (3, &json!({}), "completed", "machine", "machine", 1),
        (4, &json!({}), "busy", "user_busy", "not_reached", 1),
        (5, &json!({}), "busy", "declined", "not_reached", 1),
        (6, &json!({}), "no_answer", "ring_timeout", "not_reached", 1),
        (7, &json!({}), "no_answer", "unreachable", "not_reached", 1),
        (8, &json!({}), "failed", "invalid_number", "not_reached", 1),
        (9, &json!({}), "failed", "not_permitted", "not_tried", 0),
        (10, &json!({}), "failed", "no_healthy_route", "not_tried", 0),
        (11, &json!({"failover": {"attempts_max": 2}}), "failed", "trunk_unavailable", "not_reached", 2),
        (12, &keys, "completed", "acknowledged", "acknowledged", 2),
        (13, &json!({}), "failed", "media_error", "not_tried", 0),
        (14, &json!({"on_unknown": "fail"}), "failed", "outcome_unknown", "unknown", 1),
        (15, &json!({"on_unknown": "fail"}), "failed", "interrupted", "unknown", 1),
        (16, &soon, "failed", "throttled", "not_tried", 0),
        (17, &soon, "failed", "deadline_exceeded", "not_tried", 0),
        (18, &quick, "no_answer", "ring_timeout", "not_reached", 1),
    ];
    let mut placed = Vec::new();
    for (figure, more, ..) in &cases {
        let call = door.post("/v1/calls", &body(*figure, (*more).clone())).await.is(201);
        assert_eq!(call["livemode"], false, "{call}");
        placed.push(call);
    }
    for ((figure, _, status, reason, outcome, attempts), call) in cases.iter().zip(&placed) {
        let ended = end(&door, call).await;
        let seen = (&ended["status"], &ended["reason"], &ended["outcome"]);
        assert_eq!(seen, (&json!(status), &json!(reason), &json!(outcome)), "{figure}: {ended}");
        let tried = ended["attempts"].as_array().unwrap();
        assert_eq!(tried.len(), *attempts, "{figure}: {ended}");
        assert!(tried.iter().all(|attempt| attempt["trunk"] == "rehearsal"), "{ended}");
    }
    nothing_was_sent(&fleet);
}

#[tokio::test]
async fn a_rehearsal_is_told_as_a_call_is() {
    let receiver = Receiver::start().await;
    let fleet = Fleet::of(&["waw-1"], &["acme"]).settings(crate::webhooks::inner).start().await;
    let door = test_key(&fleet).await;
    door.post("/v1/webhook_endpoints", &json!({"url": receiver.url()})).await.is(201);
    let call = door.post("/v1/calls", &body(12, json!({"acknowledgement": {}}))).await.is(201);
    end(&door, &call).await;
    let told: Vec<Value> = receiver.gets(7).await.iter().map(|got| got.body()).collect();
    let kinds: Vec<&str> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected =
        ["initiated", "attempt_failed", "initiated", "ringing", "answered", "acknowledged", "finished"];
    assert_eq!(kinds, expected.map(|kind| format!("call.{kind}")), "{told:?}");
    assert!(told.iter().all(|event| event["data"]["livemode"] == false), "{told:?}");
    nothing_was_sent(&fleet);
}

#[tokio::test]
async fn a_test_key_phones_nobody_and_ends_no_live_call() {
    let fleet = Fleet::small().await;
    let door = test_key(&fleet).await;
    let call = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    let refused = door.post("/v1/calls", &call).await.is_problem(422, "invalid_field");
    assert_eq!(refused["param"], "to");
    nothing_was_sent(&fleet);
    // A live call of the same organisation, with the same keys of repetition, is another call, and is placed.
    let same = json!({"dedup_key": "alert-1"});
    let rehearsed = door.post("/v1/calls", &body(18, same.clone())).await.is(201);
    let live = fleet.api.post("/v1/calls", &body(18, same)).await.is(201);
    assert_ne!(rehearsed["id"], live["id"]);
    assert_eq!(live["livemode"], true);
    for (door, other) in [(&door, false), (&fleet.api, true)] {
        let request = door.request(reqwest::Method::POST, "/v1/calls").header("idempotency-key", "once");
        let answer = crate::fixture::Answer::to(request.json(&body(0, json!({})))).await;
        assert_eq!((answer.header("idempotent-replayed"), &answer.is(201)["livemode"]), ("", &json!(other)));
    }
    let cancel = |call: &Value| format!("/v1/calls/{}/cancel", call["id"].as_str().unwrap());
    door.post(&cancel(&live), &json!({})).await.is_problem(403, "forbidden");
    assert_eq!(door.post(&cancel(&rehearsed), &json!({})).await.status, 202);
    assert_eq!(end(&door, &rehearsed).await["status"], "canceled");
    eventually("the live call was placed", async || fleet.seen("+12025550118").invites > 0).await;
}

#[tokio::test]
async fn a_rehearsal_that_a_process_left_is_played_on() {
    let mut fleet = Fleet::small().await;
    let door = test_key(&fleet).await;
    let call = door.post("/v1/calls", &body(18, json!({"ring_timeout_s": 5}))).await.is(201);
    let path = format!("/v1/calls/{}", call["id"].as_str().unwrap());
    eventually("it rings", async || door.get(&path).await.is(200)["status"] == "ringing").await;
    fleet.kill().await;
    fleet.start_again().await;
    let door = fleet.api.with_key(door.key.as_deref().unwrap());
    let ended = end(&door, &call).await;
    assert_eq!(
        (&ended["reason"], ended["attempts"].as_array().unwrap().len()),
        (&json!("ring_timeout"), 1),
        "{ended}"
    );
    nothing_was_sent(&fleet);
}
