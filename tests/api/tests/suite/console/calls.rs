//! Calls in the console: listed, told step by step, placed and canceled.

use fake_pbx::Ending;
use serde_json::json;

use crate::fixture::{Browser, Fleet, NUMBER, talks};

#[tokio::test]
async fn a_call_is_told_with_every_attempt_and_what_was_decided_upon_it() {
    let fleet = Fleet::of(&["waw-1"], &["acme", "beta"]).first_carrier_first().start().await;
    fleet.carrier("acme", Ending::Sip(503));
    fleet.carrier("beta", talks(5));
    let ended =
        fleet.call(NUMBER).with("metadata", json!({"incident": "<b>991</b>"})).place().await.ends().await;
    assert_eq!(ended.attempts().len(), 2, "{}", ended.text());
    let id = ended.0["id"].as_str().unwrap();
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let page = browser.page(&format!("/calls/{id}")).await;
    for told in [
        "attempt 1 over acme-waw-1: congestion (SIP 503) → another trunk is tried",
        "attempt 2 over beta-waw-1",
        "→ the call ends: played",
        "Accepted to dialled",
        "Accepted to ended",
        "&#60;b&#62;991&#60;/b&#62;",
        ">503</td>",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    assert!(!page.contains("/cancel\"") && !page.contains("data-refresh"), "it has ended");
    let list = browser.page("/calls?status=completed").await;
    assert!(list.contains(&format!("href=\"/calls/{id}\"")) && list.contains(NUMBER), "{list}");
    assert!(!browser.page("/calls?status=failed").await.contains(id));
    assert_eq!(browser.get(&format!("/calls?q={id}")).await.header("location"), format!("/calls/{id}"));
    for found in ["q=%2B48221234567", "q=incident%3D%3Cb%3E991%3C%2Fb%3E", "q=%3Cb%3E991%3C%2Fb%3E"] {
        assert!(browser.page(&format!("/calls?{found}")).await.contains(id), "{found}");
    }
    for other in ["q=%2B48221234568", "q=incident%3D991", "q=nonsense"] {
        let page = browser.page(&format!("/calls?{other}")).await;
        assert!(!page.contains(id) && page.contains("No such call."), "{other}: {page}");
    }
    assert_eq!(browser.get("/calls?q=call_nonsense").await.status, 422);
    assert_eq!(browser.get("/calls?q=%2B48x").await.status, 422);
    // To the millisecond, and since its acceptance.
    let shaped = |text: &str| {
        let time = text.split_once('>').unwrap().1;
        time.as_bytes().get(19) == Some(&b'.') && time.contains(" UTC</time> <code class=\"after\">+")
    };
    let (_, steps) = page.split_once("Step by step").unwrap();
    let (steps, _) = steps.split_once("</ol>").unwrap();
    assert!(steps.split("<time").skip(1).all(shaped) && steps.contains(">+0.000 s</code>"), "{steps}");
    assert_eq!(browser.get("/calls?status=nonsense").await.status, 422);
    assert_eq!(browser.get("/calls/call_00000000000000000000000000").await.status, 404);
}

#[tokio::test]
async fn a_test_call_is_asked_about_placed_followed_and_canceled() {
    let fleet = Fleet::small().await;
    fleet.callee(NUMBER, talks(20_000));
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    assert!(browser.page("/calls/new").await.contains("name=\"to\""));
    let question = browser.page("/calls/new?to=%2B48221234567&from=").await;
    assert!(question.contains("Phone +48221234567?") && question.contains("It would leave over acme-waw-1"));
    let closed = browser.page("/calls/new?to=%2B8821234567").await;
    assert!(closed.contains("class=\"grave\""), "{closed}");
    assert_eq!(fleet.seen(NUMBER).invites, 0, "a question dials nobody");
    let answer = browser.post("/calls/new", &[("to", NUMBER)]).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let place = answer.header("location").to_owned();
    let page = browser.page(&place).await;
    assert!(page.contains("data-refresh=\"2\"") && page.contains("/cancel\""), "{page}");
    assert!(browser.page(&format!("{place}/cancel")).await.contains("It ends as canceled"));
    assert_eq!(browser.post(&format!("{place}/cancel"), &[]).await.status, 303);
    crate::fixture::eventually("it has ended", async || {
        browser.page(&place).await.contains("state canceled")
    })
    .await;
    for bad in ["0048221234567", "+48 22", "", "<b>"] {
        assert_eq!(browser.post("/calls/new", &[("to", bad)]).await.status, 422, "{bad}");
    }
    // What the fraud guard refuses over there it refuses here.
    let answer = browser.post("/calls/new", &[("to", "+8821234567")]).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text.contains("This call may not be placed"), "{}", answer.text);
}

#[tokio::test]
async fn operators_find_calls_of_every_organisation_and_viewers_those_of_the_first() {
    let mut fleet = Fleet::small().await;
    fleet.callee(NUMBER, talks(20_000));
    let other = fleet.other_customer().await;
    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:beep"}, "metadata": {"ticket": "77"}});
    let made = other.post("/v1/calls", &body).await.is(201);
    let id = made["id"].as_str().unwrap();
    let body = json!({"name": "looks", "operator": true, "role": "viewer"});
    let viewer =
        fleet.operator.post("/admin/v1/keys", &body).await.is(201)["secret"].as_str().unwrap().to_owned();
    let viewing = fleet.operator.with_key(&viewer);
    let (path, org) = (format!("/calls/{id}"), "org_00000000000000000000000004");
    let search = format!("/admin/v1/calls?to=%2B48221234567&metadata=ticket%3D77&org={org}");
    let found = fleet.operator.get(&search).await.is(200);
    assert_eq!((&found["data"][0]["id"], &found["data"][0]["org"]), (&json!(id), &json!(org)), "{found}");
    assert_eq!((&found["has_more"], &found["next"]), (&json!(false), &json!(null)));
    viewing.get(&search).await.is_problem(403, "forbidden");
    assert_eq!(viewing.get("/admin/v1/calls").await.is(200)["data"], json!([]));
    viewing.get(&format!("/admin/v1{path}")).await.is_problem(404, "not_found");
    assert_eq!(fleet.operator.get(&format!("/admin/v1{path}")).await.is(200)["org"], org);
    let (browser, looking) = (
        Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await,
        Browser::of(&fleet.operator, &viewer).await,
    );
    let list = browser.page("/calls?q=ticket%3D77").await;
    assert!(list.contains(id) && list.contains(">other</a>"), "{list}");
    assert!(browser.page(&path).await.contains(">other</a>"));
    assert!(!looking.page("/calls").await.contains(id));
    assert_eq!(looking.get(&path).await.status, 404);
    // Its end is its organisation's to see.
    assert_eq!(browser.post(&format!("{path}/cancel"), &[]).await.status, 303);
    crate::fixture::eventually("it has ended", async || {
        other.get(&format!("/v1{path}")).await.is(200)["status"] == "canceled"
    })
    .await;
    let rows = other.get("/v1/audit_log?action=call.cancel").await.is(200);
    assert_eq!(
        (&rows["data"][0]["target_id"], &rows["data"][0]["actor_type"]),
        (&json!(id), &json!("operator"))
    );
}
