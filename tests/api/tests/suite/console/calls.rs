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
    assert_eq!(browser.get(&format!("/calls?id={id}")).await.header("location"), format!("/calls/{id}"));
    assert_eq!(browser.get("/calls?id=nonsense").await.status, 422);
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
