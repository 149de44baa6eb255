//! Disable, enable, drain, undrain: asked first, done once, told in the audit log; not offered to who may not.

use serde_json::json;

use crate::fixture::{Browser, Fleet};

#[tokio::test]
async fn a_trunk_is_disabled_and_a_node_drained_after_a_question_that_says_what_will_come_of_it() {
    let fleet = Fleet::square().start().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let question = browser.page("/trunks/acme-waw-1/disable").await;
    assert!(question.contains("Disable trunk acme-waw-1?") && question.contains("No attempt is in flight"));
    assert!(question.contains("Route + keeps 3 usable trunks of 4 (now 4)."), "{question}");
    assert!(fleet.trunk("acme-waw-1").await["state"] != "disabled", "a question changes nothing");
    for (ask, noun, name, action, holds) in [
        ("/trunks/acme-waw-1/disable", "trunk", "acme-waw-1", "trunk.disable", true),
        ("/nodes/fra-1/drain", "node", "fra-1", "node.drain", true),
        ("/trunks/acme-waw-1/enable", "trunk", "acme-waw-1", "trunk.enable", false),
        ("/nodes/fra-1/undrain", "node", "fra-1", "node.undrain", false),
    ] {
        browser.page(ask).await;
        let answer = browser.post(ask, &[("reason", "carrier asked")]).await;
        assert_eq!((answer.status, answer.header("location")), (303, format!("/{noun}s/{name}").as_str()));
        let why = fleet.operator.get(&format!("/admin/v1/{noun}s/{name}/why")).await.is(200);
        assert_eq!(why["hold"]["reason"] == "carrier asked", holds, "{why}");
        let page = browser.page(&format!("/{noun}s/{name}")).await;
        assert_eq!(page.contains("carrier asked"), holds, "{page}");
        let rows = fleet.audit().await;
        let row = rows.iter().find(|row| row["action"] == action).unwrap();
        assert_eq!((&row["target_id"], &row["outcome"]), (&json!(name), &json!("success")), "{row}");
        assert_eq!(row["request_id"], answer.header("x-request-id"));
    }
    // The last of a route is said to be.
    for trunk in ["beta-waw-1", "acme-fra-1", "beta-fra-1"] {
        browser.post(&format!("/trunks/{trunk}/disable"), &[("reason", "")]).await;
    }
    let question = browser.page("/trunks/acme-waw-1/disable").await;
    assert!(question.contains("class=\"grave\">Route + keeps no usable trunk of 4"), "{question}");
    // What the operators' API refuses is refused here, by a page.
    let long = "x".repeat(400);
    let answer = browser.post("/trunks/acme-waw-1/disable", &[("reason", &long)]).await;
    assert_eq!(answer.status, 422);
    assert!(answer.text.contains("1 to 300 bytes") && answer.text.contains("<code>reason</code>"));
    for form in [&[("reason", "a"), ("more", "b")][..], &[("reason", "a"), ("reason", "b")]] {
        assert_eq!(browser.post("/trunks/acme-waw-1/disable", form).await.status, 400);
    }
    assert_eq!(browser.post("/trunks/none/disable", &[]).await.status, 404);
}

#[tokio::test]
async fn who_may_only_look_is_offered_nothing() {
    let fleet = Fleet::small().await;
    let body = json!({"name": "looks", "operator": true, "role": "viewer"});
    let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
    let viewer = Browser::of(&fleet.operator, made["secret"].as_str().unwrap()).await;
    for (path, action) in [("/trunks/acme-waw-1", "disable"), ("/nodes/waw-1", "drain")] {
        let page = viewer.page(path).await;
        assert!(!page.contains(&format!("/{action}")), "{page}");
        assert_eq!(viewer.get(&format!("{path}/{action}")).await.status, 403);
        let answer = viewer.post(&format!("{path}/{action}"), &[]).await;
        assert_eq!(answer.status, 403);
        assert!(answer.text.contains("takes the role operator"), "{}", answer.text);
    }
    assert!(fleet.trunk("acme-waw-1").await["state"] != "disabled");
}
