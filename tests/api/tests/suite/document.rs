//! The API document and its page, as they are served; and what was found by asking as the document says.

use reqwest::Method;
use serde_json::{Value, json};

use crate::fixture::{Answer, Fleet, NUMBER};

#[tokio::test]
async fn the_document_is_served_to_whoever_asks() {
    let fleet = Fleet::small().await;
    let door = fleet.api.without_key();
    let answer = door.get("/v1/openapi.json").await;
    let document = answer.is(200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(document, controlplane::http::openapi::document());
    assert_eq!(document["openapi"], "3.1.0");
    door.get("/v1/openapi.json?a=b").await.is(200);
}

#[tokio::test]
async fn the_reference_page_lets_in_its_own_style_and_nothing_else() {
    let fleet = Fleet::small().await;
    let page = fleet.api.without_key().get("/v1/reference").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("script"), "{policy}");
    for told in ["create_call", "POST", "/v1/calls/{id}/cancel", "idempotency_key_reused"] {
        assert!(page.text.contains(told), "{told}");
    }
    // Everything else has the policy that lets in nothing.
    let problem = fleet.api.without_key().get("/v1/calls").await;
    let policy = problem.header("content-security-policy");
    assert_eq!(policy, "default-src 'none'; frame-ancestors 'none'");
}

/// An array in a body's place is no object whose fields are in their order.
#[tokio::test]
async fn a_body_is_an_object() {
    let fleet = Fleet::small().await;
    let made = fleet.api.post("/v1/api_keys", &json!({"name": "a"})).await.is(201);
    let id = made["id"].as_str().unwrap();
    let rotate = format!("/v1/api_keys/{id}/rotate");
    for wrong in [json!([]), json!([0]), json!(null), json!("a"), json!(1)] {
        fleet.api.post(&rotate, &wrong).await.is_problem(422, "invalid_field");
    }
    fleet.api.post("/v1/api_keys", &json!(["a"])).await.is_problem(422, "invalid_field");
    let hook = json!({"url": "https://example.com/hook"});
    let endpoint = fleet.api.post("/v1/webhook_endpoints", &hook).await.is(201);
    let path = format!("/v1/webhook_endpoints/{}", endpoint["id"].as_str().unwrap());
    let change = fleet.api.request(Method::PATCH, &path).json(&json!([]));
    Answer::to(change).await.is_problem(422, "invalid_field");
    fleet.api.post(&rotate, &json!({})).await.is(201);
}

/// PostgreSQL's text cannot hold NUL; both databases refuse it alike.
#[tokio::test]
async fn a_filter_of_the_audit_log_has_no_nul() {
    let fleet = Fleet::small().await;
    for param in ["actor", "action", "target"] {
        let problem = fleet.api.get(&format!("/v1/audit_log?{param}=a%00b")).await;
        assert_eq!(problem.is_problem(422, "invalid_field")["param"], param);
    }
    let rows = fleet.api.get("/v1/audit_log?actor=nobody").await.is(200);
    assert_eq!(rows["data"], Value::Array(vec![]));
}

/// A key that no call could have is refused before anything is decided, a dry run too.
#[tokio::test]
async fn an_idempotency_key_is_looked_at_in_a_dry_run_too() {
    let fleet = Fleet::small().await;
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}, "dry_run": true});
    let ask =
        |key: &str| fleet.api.request(Method::POST, "/v1/calls").header("idempotency-key", key).json(&body);
    Answer::to(ask("once")).await.is(200);
    let refused = Answer::to(ask(&"x".repeat(256))).await;
    assert_eq!(refused.is_problem(422, "invalid_field")["param"], "Idempotency-Key");
}
