//! Bans, routes, customers, deliveries and the audit log in the console.

use serde_json::json;

use super::escaping::{HOSTILE, is_escaped};
use crate::fixture::{Answer, Browser, Fleet};

#[tokio::test]
async fn an_address_is_looked_up_banned_allowed_and_let_go() {
    let fleet = Fleet::small().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    assert!(browser.page("/bans?address=203.0.113.9").await.contains("<strong>free</strong>"));
    let question = browser.page("/bans/add?net=203.0.113.9&hours=2").await;
    assert!(question.contains("Ban 203.0.113.9/32?") && question.contains("after 2 hours"), "{question}");
    assert!(question.contains("Now 203.0.113.9 is free."), "{question}");
    let form = [("net", "203.0.113.9/32"), ("hours", "2"), ("reason", HOSTILE)];
    assert_eq!(browser.post("/bans/add", &form).await.header("location"), "/bans");
    let page = browser.page("/bans?address=203.0.113.9").await;
    assert!(page.contains("<strong>banned</strong>") && page.contains("203.0.113.9/32"), "{page}");
    is_escaped(&page, true);
    assert!(browser.page("/bans?origin=control_plane").await.contains("203.0.113.9/32"));
    assert!(!browser.page("/bans?origin=waw-1").await.contains("203.0.113.9/32"));
    let kept = fleet.operator.get("/admin/v1/bans").await.is(200);
    assert!(kept["data"][0]["expires_at"].is_string() && kept["data"][0]["reason"] == HOSTILE, "{kept}");
    browser.page("/bans/remove?net=203.0.113.9/32").await;
    assert_eq!(browser.post("/bans/remove", &[("net", "203.0.113.9/32")]).await.status, 303);
    assert!(browser.page("/bans?address=203.0.113.9").await.contains("<strong>free</strong>"));
    assert_eq!(browser.post("/allows/add", &[("net", "203.0.113.9")]).await.status, 303);
    assert!(browser.page("/bans?address=203.0.113.9").await.contains("<strong>allowed</strong>"));
    browser.page("/allows/remove?net=203.0.113.9/32").await;
    assert_eq!(browser.post("/allows/remove", &[("net", "203.0.113.9")]).await.status, 303);
    // What is refused there is refused here.
    for (path, form, status) in [
        ("/bans/add", &[("net", "127.0.0.1")][..], 409),
        ("/bans/add", &[("net", "nonsense")], 422),
        ("/bans/add", &[("net", "203.0.113.9"), ("hours", "0")], 422),
        ("/bans/add", &[("net", "203.0.113.9"), ("hours", "9999999999")], 422),
        ("/bans/remove", &[("net", "203.0.113.10")], 404),
        ("/allows/add", &[("net", "0.0.0.0/0")], 409),
    ] {
        let answer = browser.post(path, form).await;
        assert_eq!(answer.status, status, "{path} {form:?}: {}", answer.text);
    }
    assert_eq!(browser.get("/bans?address=nonsense").await.status, 422);
}

#[tokio::test]
async fn a_number_is_explained() {
    let fleet = Fleet::square().start().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    fleet.operator.post("/admin/v1/trunks/acme-waw-1/disable", &json!({})).await.is(200);
    let page = browser.page("/routes?to=%2B48221234567").await;
    assert!(page.contains("It would leave over") && page.contains("by route +"), "{page}");
    assert!(page.contains("trunk_disabled") && page.contains("3 of 4"), "{page}");
    assert_eq!(browser.get("/routes?to=4822").await.status, 422);
}

#[tokio::test]
async fn the_audit_log_is_filtered_and_exported() {
    let fleet = Fleet::small().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    browser.post("/trunks/acme-waw-1/disable", &[("reason", "x")]).await;
    let page = browser.page("/audit?action=trunk.*&actor=&target=acme-waw-1&outcome=success").await;
    assert!(page.contains(">trunk.disable</th>") && !page.contains(">key.create</th>"), "{page}");
    assert!(browser.page("/audit?action=nothing").await.contains("No such row."));
    let encoded: String = HOSTILE.bytes().map(|b| format!("%{b:02X}")).collect();
    is_escaped(&browser.page(&format!("/audit?action={encoded}")).await, true);
    assert_eq!(browser.get("/audit?outcome=nonsense").await.status, 422);
    // A hostile user agent, and a hostile target.
    let odd =
        browser.sends("/trunks/%3Cscript%3Ealert/disable", &[]).header("user-agent", "<script>alert(1)");
    Answer::to(odd).await;
    crate::fixture::eventually("its row", async || {
        browser.page("/audit?outcome=denied").await.contains("trunk.disable")
    })
    .await;
    is_escaped(&browser.page("/audit?outcome=denied").await, false);
    let answer = browser.get("/audit/export").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-ndjson"));
    assert!(answer.text.contains("\"session.create\""), "{}", answer.text);
    assert_eq!(browser.get("/audit/export?format=csv").await.status, 200);
}

#[tokio::test]
async fn a_customer_is_shown_with_keys_limits_and_usage() {
    let fleet = Fleet::small().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let org = fleet.operator.post("/admin/v1/orgs", &json!({"slug": "acme", "name": HOSTILE})).await.is(201);
    let id = org["id"].as_str().unwrap();
    let key = json!({"name": HOSTILE, "org": id});
    let key = fleet.operator.post("/admin/v1/keys", &key).await.is(201);
    let limits = json!({"calls_per_day": 1_234, "cps_max": 77});
    Answer::to(
        fleet.operator.request(reqwest::Method::PUT, &format!("/admin/v1/orgs/{id}/limits")).json(&limits),
    )
    .await
    .is(200);
    let list = browser.page("/customers").await;
    assert!(list.contains(&format!("href=\"/customers/{id}\">acme</a>")), "{list}");
    is_escaped(&list, true);
    fleet.operator.post(&format!("/admin/v1/orgs/{id}/suspend"), &json!({})).await.is(200);
    let page = browser.page(&format!("/customers/{id}")).await;
    is_escaped(&page, true);
    assert!(
        page.contains("of 1234") && page.contains(">77</dd>") && page.contains("It is suspended"),
        "{page}"
    );
    assert!(!page.contains(key["secret"].as_str().unwrap()), "a secret is shown once");
    fleet.call(crate::fixture::NUMBER).place().await.ends().await;
    let first = controlplane_core::ids::OrgId::first();
    let page = browser.page(&format!("/customers/{first}")).await;
    assert!(page.contains("<td class=\"n\">1</td>"), "{page}");
    assert_eq!(browser.get("/customers/org_7zzzzzzzzzzzzzzzzzzzzzzzz0").await.status, 404);
}

#[tokio::test]
async fn a_delivery_is_sent_again() {
    let receiver = crate::fixture::Receiver::start().await;
    let fleet = Fleet::of(&["waw-1"], &["acme"]).settings(crate::webhooks::inner).start().await;
    let hook = json!({"url": receiver.url(), "events": ["call.finished"]});
    let hook = fleet.api.post("/v1/webhook_endpoints", &hook).await.is(201);
    let endpoint = hook["id"].as_str().unwrap();
    fleet.call(crate::fixture::NUMBER).place().await.ends().await;
    let event = receiver.gets(1).await[0].id();
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    crate::fixture::eventually("it is delivered", async || {
        browser.page("/webhooks?state=delivered").await.contains(&event)
    })
    .await;
    assert!(!browser.page("/webhooks?state=dead").await.contains(&event));
    assert_eq!(browser.get("/webhooks?state=nonsense").await.status, 422);
    let path = format!("/webhooks/{event}/replay");
    assert!(browser.page(&format!("{path}?endpoint={endpoint}")).await.contains("under the same id"));
    assert_eq!(browser.post(&path, &[("endpoint", endpoint)]).await.header("location"), "/webhooks");
    assert_eq!(receiver.gets(2).await[1].id(), event);
    assert_eq!(browser.post(&path, &[("endpoint", "nonsense")]).await.status, 422);
    let none = "/webhooks/evt_00000000000000000000000000/replay";
    assert_eq!(browser.post(none, &[("endpoint", endpoint)]).await.status, 404);
}
