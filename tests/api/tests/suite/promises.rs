//! What a customer promises by a key, and what Ringward promises in return: one call, one INVITE.

use fake_pbx::Ending;
use futures_util::future::join_all;
use serde_json::json;

use crate::fixture::{Call, Fleet, NUMBER, talks};

#[tokio::test]
async fn fifty_equal_posts_at_once_make_one_call() {
    let fleet = Fleet::square().start().await;
    let answers =
        join_all((0..50).map(|_| async { fleet.call(NUMBER).idempotency_key("alert-991").answer().await }))
            .await;
    let mut ids: Vec<_> = answers.iter().map(|answer| answer.is(201)["id"].to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let replays = answers.iter().filter(|answer| answer.header("idempotent-replayed") == "true").count();
    assert_eq!(replays, 49);
    Call::again(&fleet, ids[0].trim_matches('"')).ends_as("completed", "played").await;
    assert_eq!(fleet.seen(NUMBER).invites, 1);
    assert_eq!(fleet.api.get("/v1/calls").await.is(200)["data"].as_array().unwrap().len(), 1);
    // The replay shows the call as it is now.
    let replay = fleet.call(NUMBER).idempotency_key("alert-991").answer().await;
    assert_eq!(replay.is(201)["status"], "completed");
}

#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let fleet = Fleet::small().await;
    let first = fleet.call(NUMBER).idempotency_key("k").place().await;
    first.ends_as("completed", "played").await;
    let other = fleet.call("+48220000000").idempotency_key("k").answer().await;
    other.is_problem(422, "idempotency_key_reused");
    let other = fleet.call(NUMBER).with("on_unknown", "fail").idempotency_key("k").answer().await;
    other.is_problem(422, "idempotency_key_reused");
    assert_eq!(fleet.seen("+48220000000").invites, 0);
    // Another key is another call.
    fleet.call(NUMBER).idempotency_key("l").place().await.ends_as("completed", "played").await;
    assert_eq!(fleet.seen(NUMBER).invites, 2);
}

/// A body that is refused uses no key up.
#[tokio::test]
async fn a_refused_request_leaves_its_key_free() {
    let fleet = Fleet::small().await;
    let wrong = fleet.call(NUMBER).with("ring_timeout_s", 0).idempotency_key("k");
    wrong.answer().await.is_problem(422, "invalid_field");
    fleet.call(NUMBER).idempotency_key("k").place().await.ends_as("completed", "played").await;
}

#[tokio::test]
async fn a_key_is_remembered_over_a_restart() {
    let mut fleet = Fleet::small().await;
    let call = fleet.call(NUMBER).idempotency_key("k").place().await;
    call.ends_as("completed", "played").await;
    let id = call.id.clone();
    fleet.kill().await;
    fleet.start_again().await;
    let replay = fleet.call(NUMBER).idempotency_key("k").answer().await;
    assert_eq!((replay.is(201)["id"].as_str(), replay.header("idempotent-replayed")), (Some(&*id), "true"));
    assert_eq!(fleet.seen(NUMBER).invites, 1);
}

#[tokio::test]
async fn a_dedup_key_finds_the_open_call_and_no_ended_one() {
    let fleet = Fleet::small().await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let ask = || fleet.call(NUMBER).with("dedup_key", "alert-991");
    let answers = join_all((0..20).map(|_| async { ask().answer().await })).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(made.len(), 1);
    let id = made[0].is(201)["id"].as_str().unwrap().to_owned();
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(answer.is(200)["id"], *id);
    }
    let call = Call::again(&fleet, &id);
    call.becomes("ringing").await;
    assert_eq!(fleet.seen(NUMBER).invites, 1);
    assert_eq!(call.cancel().await.status, 202);
    call.ends_as("canceled", "api").await;
    fleet.callee(NUMBER, talks(5));
    let next = ask().place().await;
    assert_ne!(next.id, id);
    next.ends_as("completed", "played").await;
}

/// Keys belong to an organisation, and metadata of a replay is the first one's.
#[tokio::test]
async fn the_operators_door_places_calls_by_the_same_rules() {
    let fleet = Fleet::small().await;
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}, "dedup_key": "d"});
    let call = fleet.operator.post("/admin/v1/calls", &body).await.is(201);
    let id = call["id"].as_str().unwrap();
    Call::again(&fleet, id).ends_as("completed", "played").await;
    let shown = fleet.operator.get(&format!("/admin/v1/calls/{id}")).await.is(200);
    assert_eq!(shown["reason"], "played");
    let body = json!({"to": "112", "message": {"audio_id": "builtin:beep"}});
    fleet.operator.post("/admin/v1/calls", &body).await.is_problem(422, "invalid_number");
}

/// A customer who hangs up before the answer may still have been accepted: what is stored is placed at once,
/// well before the scan for calls without a task (15 s) comes round.
#[tokio::test]
async fn a_call_is_placed_although_its_customer_hung_up_before_the_answer() {
    let fleet = Fleet::square().start().await;
    let mut cut = Vec::new();
    for n in 0..60_u64 {
        let number = format!("+4822200{n:04}");
        fleet.callee(&number, talks(5));
        let body = json!({"to": number, "message": {"audio_id": "builtin:beep"}});
        let request = fleet.api.request(reqwest::Method::POST, "/v1/calls").json(&body);
        let patience = std::time::Duration::from_micros(250 * (n % 30 + 1));
        // Dropping the request closes its connection.
        if tokio::time::timeout(patience, request.send()).await.is_err() {
            cut.push(number);
        }
    }
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let list = fleet.api.get("/v1/calls?limit=100").await.is(200);
    let calls = list["data"].as_array().unwrap();
    let open: Vec<_> = calls.iter().filter(|call| call["ended_at"].is_null()).collect();
    assert!(open.is_empty(), "{} of {} accepted calls are not placed", open.len(), calls.len());
    let stored_although_cut =
        calls.iter().filter(|call| cut.iter().any(|to| call["to"] == to.as_str())).count();
    assert!(stored_although_cut > 0, "no request was cut in time: {} cut, {} stored", cut.len(), calls.len());
}
