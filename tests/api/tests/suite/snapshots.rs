//! Whole answers, as customers and operators read them. A change here is a change of the contract.

use fake_pbx::Ending;
use insta::assert_json_snapshot;
use serde_json::json;

use crate::fixture::{Answer, Fleet, NUMBER, proof, redacted, talks};

async fn one_after_the_other() -> Fleet {
    let fleet = Fleet::of(&["fra-1", "waw-1"], &["acme", "beta"]).first_carrier_first().start().await;
    fleet.carrier("acme", Ending::Sip(503));
    fleet.carrier("beta", talks(5));
    fleet
}

#[tokio::test]
async fn calls() {
    let fleet = one_after_the_other().await;
    let body = json!({
        "to": NUMBER,
        "from": "+48221110000",
        "message": {"audio_id": "builtin:beep", "repeat": 2},
        "on_unknown": "fail",
        "metadata": {"incident": "991"},
    });
    let created = fleet.api.post("/v1/calls", &body).await.is(201);
    assert_json_snapshot!("created_call", redacted(&created));
    let call = crate::fixture::Call::again(&fleet, created["id"].as_str().unwrap());
    let ended = call.ends_as("completed", "played").await;
    assert_json_snapshot!("finished_call_with_two_attempts", redacted(&ended.0));
    assert_json_snapshot!("list_of_calls", redacted(&fleet.api.get("/v1/calls").await.is(200)));
    let none = fleet.api.get("/v1/calls?status=busy").await.is(200);
    assert_json_snapshot!("empty_list", redacted(&none));
}

#[tokio::test]
async fn problems_of_the_customers_door() {
    let fleet = Fleet::small().await;
    let call = |change: serde_json::Value| {
        let mut body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    let post = async |body: serde_json::Value| fleet.api.post("/v1/calls", &body).await;
    let show = |name: &str, answer: Answer| {
        let body = serde_json::from_str(&answer.text).unwrap();
        let headers: Vec<_> = ["content-type", "www-authenticate", "retry-after", "allow"]
            .into_iter()
            .filter(|name| !answer.header(name).is_empty())
            .map(|name| format!("{name}: {}", answer.header(name)))
            .collect();
        assert_json_snapshot!(
            format!("problem_{name}"),
            json!({"status": answer.status, "headers": headers, "body": redacted(&body)})
        );
    };
    show("invalid_number", post(call(json!({"to": "112"}))).await);
    show("unknown_field", post(call(json!({"on_unknwon": "fail"}))).await);
    show("unknown_nested_field", post(call(json!({"failover": {"attempt_max": 3}}))).await);
    show("out_of_bounds", post(call(json!({"ring_timeout_s": 121}))).await);
    show("wrong_word", post(call(json!({"on_unknown": "maybe"}))).await);
    show("missing_field", post(json!({"to": NUMBER})).await);
    show("malformed", fleet.api.post_raw("/v1/calls", "{\"to\":").await);
    show("too_large", fleet.api.post_raw("/v1/calls", " ".repeat(70_000)).await);
    let text = fleet.api.request(reqwest::Method::POST, "/v1/calls").header("content-type", "text/plain");
    show("unsupported_media_type", Answer::to(text.body("{}")).await);
    show("unauthenticated", fleet.api.without_key().get("/v1/calls").await);
    show("not_found", fleet.api.get("/v1/calls/call_00000000000000000000000000").await);
    let put = fleet.api.request(reqwest::Method::PUT, "/v1/calls");
    show("method_not_allowed", Answer::to(put).await);
    show("malformed_query", fleet.api.get("/v1/calls?limit=x").await);
    let made =
        fleet.operator.post("/admin/v1/keys", &json!({"name": "reads", "scopes": ["calls:read"]})).await;
    let reads = fleet.api.with_key(made.is(201)["secret"].as_str().unwrap());
    show("forbidden", reads.post("/v1/calls", &call(json!({}))).await);
    fleet.call(NUMBER).idempotency_key("k").place().await;
    show("idempotency_key_reused", fleet.call("+48220000000").idempotency_key("k").answer().await);
}

#[tokio::test]
async fn the_operators_door() {
    let fleet = Fleet::small().await;
    let made = fleet.operator.post("/admin/v1/keys", &json!({"name": "pager"})).await.is(201);
    assert_json_snapshot!("created_key", redacted(&made));
    let again = fleet.operator.post("/admin/v1/bootstrap", &proof(&fleet.settings.data_dir)).await;
    assert_json_snapshot!("problem_already_bootstrapped", redacted(&again.is(409)));
    let stale = fleet.apply(&fleet.toml(), "?expected_revision=0").await;
    assert_json_snapshot!("problem_stale_revision", redacted(&stale.is(409)));
    let broken = fleet
        .toml()
        .replace("node = \"waw-1\"", "node = \"waw-2\"")
        .replace("carrier = \"acme\"", "carrier = \"acmee\"");
    let broken = fleet.apply(&broken, "").await;
    assert_json_snapshot!("problem_invalid_fleet", redacted(&broken.is(422)));
    let toml = fleet.toml().replace("endpoint =", "weight = 2\nendpoint =");
    assert_json_snapshot!("fleet_dry_run", redacted(&fleet.apply(&toml, "?dry_run=true").await.is(200)));
    assert_json_snapshot!("trunks", redacted(&fleet.operator.get("/admin/v1/trunks").await.is(200)));
    let explained = fleet.operator.get("/admin/v1/routes/explain?to=%2B48221234567").await.is(200);
    assert_json_snapshot!("route_explanation", redacted(&explained));
}
