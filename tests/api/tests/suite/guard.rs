//! The fraud guard at the door: closed until an operator opens, every refusal with its rule, counted and audited.

use controlplane_core::guard::Policy;
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fleet, NUMBER, eventually, talks};

/// A control plane as it is installed.
async fn fresh() -> Fleet {
    Fleet::of(&["waw-1"], &["acme"])
        .trunks_have("cps_max = 1000")
        .settings(|settings| settings.guard = Policy::default())
        .start()
        .await
}

async fn put(fleet: &Fleet, path: &str, body: &Value) -> Answer {
    Answer::to(fleet.operator.request(Method::PUT, path).json(body)).await
}

async fn set(fleet: &Fleet, policy: &Value) {
    put(fleet, "/admin/v1/orgs/default/policy", policy).await.is(200);
}

#[track_caller]
fn refused(answer: &Answer, rule: &str, param: &str) {
    let problem = answer.is_problem(403, "not_permitted");
    assert_eq!((&problem["rule"], &problem["param"]), (&json!(rule), &json!(param)), "{problem}");
}

#[tokio::test]
async fn nothing_may_be_phoned_until_an_operator_opens_it() {
    let fleet = fresh().await;
    refused(&fleet.call(NUMBER).answer().await, "nothing_open", "to");
    set(&fleet, &json!({"countries": {"PL": ["fixed"]}})).await;
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    refused(&fleet.call("+48501234567").answer().await, "number_type", "to");
    refused(&fleet.call("+48701234567").answer().await, "number_type", "to");
    refused(&fleet.call("+380501234567").answer().await, "country", "to");
    refused(&fleet.call("+870773111632").answer().await, "country", "to");
    // The operators' own door is no way around.
    let body = json!({"to": "+380501234567", "message": {"audio_id": "builtin:beep"}});
    refused(&fleet.operator.post("/admin/v1/calls", &body).await, "country", "to");
    assert_eq!(fleet.pbx("waw-1").seen_in_all().invites, 1);
    // Each of them is in the audit log, newest first, with its rule and who asked.
    let audit = fleet.audit().await;
    let denied: Vec<_> = audit.iter().filter(|row| row["outcome"] == "denied").collect();
    let rules: Vec<_> = denied.iter().map(|row| row["changes"]["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["country", "country", "country", "number_type", "number_type", "nothing_open"]);
    assert!(denied.iter().all(|row| row["key"].is_string() && row["request_id"].is_string()), "{denied:?}");
}

#[tokio::test]
async fn a_refusal_is_counted_audited_and_leaves_no_call() {
    let fleet = fresh().await;
    set(&fleet, &json!({"countries": {"PL": ["fixed"]}, "caller_ids": ["+48221110000"]})).await;
    refused(&fleet.call(NUMBER).with("from", "+48221110009").answer().await, "caller_id", "from");
    fleet.call(NUMBER).with("from", "+48221110000").place().await.ends_as("completed", "played").await;
    let metrics = fleet.metrics().await;
    assert!(metrics.contains("ringward_calls_denied_total{rule=\"caller_id\"} 1"), "{metrics}");
    let audit = fleet.operator.get("/admin/v1/audit").await.is(200);
    let rows = audit["data"].as_array().unwrap();
    let row = rows.iter().find(|row| row["outcome"] == "denied").unwrap();
    assert_eq!((&row["action"], &row["changes"]["rule"]), (&json!("call.create"), &json!("caller_id")));
    assert!(!row.to_string().contains(NUMBER), "the number is shortened: {row}");
    assert_eq!(rows.iter().filter(|row| row["action"] == "policy.set").count(), 1);
    assert_eq!(fleet.api.get("/v1/calls").await.is(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_emergency_number_is_refused_as_the_trunk_would_dial_it() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .trunks_have("number_format = \"national\"\ncountry_code = \"48\"")
        .settings(|settings| settings.guard = Policy::default())
        .start()
        .await;
    set(&fleet, &json!({"prefixes": {"+": "allow"}})).await;
    for number in ["+48112000000", "+48999123456", "+48997123456"] {
        refused(&fleet.call(number).answer().await, "emergency", "to");
        assert_eq!(fleet.seen(number).invites, 0);
    }
    let path = "/admin/v1/orgs/default/policy/explain?to=%2B48112000000";
    let explained = fleet.operator.get(path).await.is(200);
    assert_eq!((&explained["trunk"], &explained["code"]), (&json!("acme-waw-1"), &json!("112")));
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
}

/// A call was accepted, and its trunk became one that would dial a call for help.
#[tokio::test]
async fn an_emergency_number_is_looked_for_again_when_a_trunk_is_chosen() {
    let number = "+48112000000";
    let fleet =
        Fleet::of(&["waw-1"], &["acme"]).trunks_have("cps_max = 1000\nchannels_max = 1").start().await;
    fleet.callee(NUMBER, talks(60_000));
    let first = fleet.call(NUMBER).place().await;
    eventually("the one channel is taken", async || fleet.seen(NUMBER).answers > 0).await;
    let waiting = fleet.call(number).place().await;
    let national = "channels_max = 1\nnumber_format = \"national\"\ncountry_code = \"48\"";
    fleet.apply(&fleet.toml().replace("channels_max = 1", national), "").await.is(200);
    first.cancel().await;
    waiting.ends_as("failed", "no_healthy_route").await;
    assert_eq!(fleet.seen(number).invites, 0);
}

#[tokio::test]
async fn what_is_dear_is_closed_until_it_is_opened_by_its_kind_or_prefix() {
    let fleet = fresh().await;
    let (premium, satellite, shared) = ("+48701234567", "+870773111632", "+48801123456");
    set(&fleet, &json!({"countries": {"PL": ["fixed", "mobile"]}})).await;
    refused(&fleet.call(premium).answer().await, "number_type", "to");
    refused(&fleet.call(satellite).answer().await, "country", "to");
    refused(&fleet.call(shared).answer().await, "number_type", "to");
    let opened =
        json!({"countries": {"PL": ["premium"], "+870": ["satellite"]}, "prefixes": {"+48801": "allow"}});
    set(&fleet, &opened).await;
    for number in [premium, satellite, shared] {
        fleet.call(number).place().await.ends_as("completed", "played").await;
    }
    refused(&fleet.call(NUMBER).answer().await, "number_type", "to");
}

/// What a test key asks for is decided before the guard: it takes no policy, meets no trunk and uses nothing.
#[tokio::test]
async fn a_test_key_needs_nothing_open_and_uses_nothing() {
    let fleet = fresh().await;
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "t", "livemode": false})).await.is(201);
    let door = fleet.api.with_key(made["secret"].as_str().unwrap());
    let limits = json!({"calls_per_day": 1});
    put(&fleet, "/admin/v1/orgs/default/limits", &limits).await.is(200);
    put(&fleet, &format!("/admin/v1/keys/{}/limits", made["id"].as_str().unwrap()), &limits).await.is(200);
    let body = json!({"to": "+12025550100", "message": {"audio_id": "builtin:beep"}});
    for _ in 0..3 {
        let call = door.post("/v1/calls", &body).await.is(201);
        let path = format!("/v1/calls/{}", call["id"].as_str().unwrap());
        eventually("it ends", async || door.get(&path).await.is(200)["reason"] == "played").await;
    }
    // A number that is not one of its own is no test number, whatever a policy says of it.
    let other = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    door.post("/v1/calls", &other).await.is_problem(422, "invalid_field");
    let dry = json!({"to": "+12025550100", "message": {"audio_id": "builtin:beep"}, "dry_run": true});
    let preview = door.post("/v1/calls", &dry).await.is(200);
    assert_eq!(
        (&preview["livemode"], &preview["guard"], &preview["route"]),
        (&json!(false), &json!(null), &json!(null))
    );
    // With a live key the same number is a number like any other.
    refused(&fleet.api.post("/v1/calls", &body).await, "nothing_open", "to");
    let used = door.get("/v1/limits").await.is(200);
    assert_eq!(
        (&used["calls_per_day"]["used"], &used["calls_per_day"]["key_used"]),
        (&json!(0), &json!(0)),
        "{used}"
    );
    assert_eq!(door.get("/v1/usage").await.is(200)["data"], json!([]));
    let metrics = fleet.metrics().await;
    assert!(metrics.contains("ringward_calls_denied_total{rule=\"nothing_open\"} 1"), "{metrics}");
    assert_eq!(fleet.pbx("waw-1").seen_in_all().invites, 0);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let fleet = fresh().await;
    let dry = |number: &str| fleet.call(number).with("dry_run", true);
    let denied = dry(NUMBER).answer().await.is(200);
    assert_eq!(denied["guard"]["rule"], "nothing_open", "{denied}");
    set(&fleet, &json!({"countries": {"PL": ["fixed"]}})).await;
    let allowed = dry(NUMBER).idempotency_key("a").answer().await.is(200);
    assert_eq!(
        (&allowed["guard"]["decision"], &allowed["guard"]["country"]),
        (&json!("allowed"), &json!("PL"))
    );
    assert_eq!(
        (&allowed["route"]["choice"], &allowed["route"]["trunk"]),
        (&json!("trunk"), &json!("acme-waw-1"))
    );
    assert_eq!(fleet.api.get("/v1/calls").await.is(200)["data"], json!([]));
    assert_eq!(fleet.pbx("waw-1").seen_in_all().invites, 0);
    let audit = fleet.operator.get("/admin/v1/audit").await.is(200);
    assert!(audit["data"].as_array().unwrap().iter().all(|row| row["outcome"] != "denied"));
    // Its idempotency key is free.
    fleet.call(NUMBER).idempotency_key("a").place().await.ends_as("completed", "played").await;
}

#[tokio::test]
async fn a_policy_is_one_organisations_and_outlives_a_restart() {
    let mut fleet = fresh().await;
    let other = fleet.other_customer().await;
    set(&fleet, &json!({"countries": {"PL": ["fixed"]}})).await;
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
    refused(&other.post("/v1/calls", &body).await, "nothing_open", "to");
    fleet.stop().await;
    fleet.start_again().await;
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    let policy = fleet.operator.get("/admin/v1/orgs/default/policy").await.is(200);
    assert_eq!(policy["countries"], json!({"PL": ["fixed"]}));
}

#[tokio::test]
async fn a_policy_that_is_wrong_is_refused_and_nobodys_is_not_found() {
    let fleet = fresh().await;
    for wrong in [
        json!({"countries": {"XX": ["fixed"]}}),
        json!({"countries": {"PL": ["unassigned"]}}),
        json!({"prefixes": {"+48": "maybe"}}),
        json!({"country": {}}),
    ] {
        put(&fleet, "/admin/v1/orgs/default/policy", &wrong).await.is_problem(422, "invalid_field");
    }
    let nobody = "/admin/v1/orgs/org_0000000000000000000000000z/policy";
    put(&fleet, nobody, &json!({})).await.is_problem(404, "not_found");
    put(&fleet, "/admin/v1/orgs/other/policy", &json!({})).await.is_problem(404, "not_found");
    let customer = fleet.api.request(Method::PUT, "/admin/v1/orgs/default/policy").json(&json!({}));
    Answer::to(customer).await.is_problem(404, "not_found");
}

#[tokio::test]
async fn what_suddenly_differs_raises_an_alarm_and_may_be_refused() {
    let fleet = fresh().await;
    let policy = |block| json!({"countries": {"PL": ["fixed"], "UA": ["mobile"]}, "velocity": {"country_per_hour": 2, "block": block}});
    set(&fleet, &policy(false)).await;
    for _ in 0..4 {
        fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    }
    let alarms = fleet.operator.get("/admin/v1/alarms").await.is(200);
    let alarm = &alarms["data"][0];
    assert_eq!((&alarm["kind"], &alarm["country"]), (&json!("country_per_hour"), &json!("PL")), "{alarms}");
    assert_eq!(alarms["data"].as_array().unwrap().len(), 1, "once an hour: {alarms}");
    set(&fleet, &policy(true)).await;
    refused(&fleet.call(NUMBER).answer().await, "velocity", "to");
    fleet.call("+380501234567").place().await.ends_as("completed", "played").await;
    fleet.later(3_600);
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    let metrics = fleet.metrics().await;
    assert!(metrics.contains("ringward_guard_alarms_total{kind=\"country_per_hour\"} 1"), "{metrics}");
}

/// A request that is sent again asks for nothing new: it is answered as it was, whatever was closed or filled since.
#[tokio::test]
async fn a_request_that_is_sent_again_is_not_refused_and_raises_no_alarm() {
    let fleet = fresh().await;
    set(&fleet, &json!({"countries": {"PL": ["fixed"]}})).await;
    let sound = json!({"audio_id": "builtin:demo-congrats"});
    let first = fleet.call(NUMBER).idempotency_key("alert-1");
    let accepted = first.answer().await.is(201);
    set(&fleet, &json!({})).await;
    let again = first.answer().await;
    assert_eq!(
        (again.is(201)["id"].clone(), again.header("idempotent-replayed")),
        (accepted["id"].clone(), "true")
    );
    let other = fleet.call(NUMBER).with("message", sound).idempotency_key("alert-1").answer().await;
    other.is_problem(422, "idempotency_key_reused");
    refused(&fleet.call(NUMBER).idempotency_key("alert-2").answer().await, "nothing_open", "to");
    refused(&fleet.call(NUMBER).answer().await, "nothing_open", "to");
    let denied = fleet.operator.get("/admin/v1/audit?outcome=denied&action=call.create").await.is(200);
    let by_guard = denied["data"].as_array().unwrap().iter().filter(|row| row["changes"]["rule"].is_string());
    assert_eq!(by_guard.count(), 2, "the two that asked for something new: {denied}");

    let velocity = json!({"country_per_hour": 3, "block": true});
    set(&fleet, &json!({"countries": {"PL": ["fixed"]}, "velocity": velocity})).await;
    let third = fleet.call(NUMBER).idempotency_key("alert-3");
    third.answer().await.is(201);
    for _ in 0..5 {
        assert_eq!(third.answer().await.header("idempotent-replayed"), "true");
    }
    fleet.call(NUMBER).answer().await.is(201);
    refused(&fleet.call(NUMBER).answer().await, "velocity", "to");
    assert_eq!(first.answer().await.header("idempotent-replayed"), "true", "of before, with all blocked");
}
