//! Signing in and out, what ends a session, and what comes from another page.

use serde_json::json;

use crate::fixture::{Answer, Browser, Fleet, eventually};

#[tokio::test]
async fn a_page_leads_to_the_sign_in_and_back_and_a_sign_out_ends_the_session() {
    let fleet = Fleet::small().await;
    let mut browser = Browser::at(&fleet.operator);
    let answer = browser.get("/trunks/acme-waw-1?a=b&c").await;
    assert_eq!((answer.status, answer.text.as_str()), (303, ""));
    assert_eq!(answer.header("location"), "/sign-in?next=/trunks/acme-waw-1%3Fa%3Db%26c");
    let form = browser.page(answer.header("location")).await;
    assert!(form.contains("value=\"/trunks/acme-waw-1?a=b&#38;c\""), "{form}");
    let key = fleet.operator.key.clone().unwrap();
    let answer = browser.post("/sign-in", &[("key", &key), ("next", "/trunks/acme-waw-1")]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/trunks/acme-waw-1"));
    let cookie = answer.header("set-cookie");
    let (pair, rest) = cookie.split_once(';').unwrap();
    assert_eq!(rest, " Path=/; HttpOnly; SameSite=Strict; Max-Age=43200");
    assert!(!answer.text.contains(&key) && pair.len() > 50, "{cookie}");
    browser.cookie = Some(pair.to_owned());
    assert!(browser.page("/").await.contains("bootstrap (admin)"));
    // Over TLS, as the browser itself says.
    let over_tls = browser.sends("/sign-in", &[("key", &key)]).header("origin", "https://console.example");
    let answer = Answer::to(over_tls).await;
    assert!(answer.header("set-cookie").ends_with("; Secure"), "{answer:?}");
    let answer = browser.post("/sign-out", &[]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/sign-in"));
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(browser.get("/").await.header("location"), "/sign-in?next=/");
    assert_eq!(browser.post("/sign-out", &[]).await.status, 401);
    let id = fleet.operator.get("/admin/v1/keys").await.is(200)["data"][1]["id"].clone();
    let rows = fleet.audit().await;
    let told: Vec<_> =
        rows.iter().filter(|row| row["action"].as_str().unwrap().starts_with("session.")).collect();
    let actions: Vec<_> = told.iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["session.end", "session.create", "session.create"]);
    assert!(told.iter().all(|row| row["actor"] == id && row["target_id"] == id), "{told:?}");
}

#[tokio::test]
async fn a_session_dies_with_its_key_and_lives_on_in_the_next_process() {
    let mut fleet = Fleet::small().await;
    let made = json!({"name": "on call", "operator": true, "role": "viewer"});
    let made = fleet.operator.post("/admin/v1/keys", &made).await.is(201);
    let browser = Browser::of(&fleet.operator, made["secret"].as_str().unwrap()).await;
    fleet.stop().await;
    fleet.start_again().await;
    let browser = browser.moved_to(&fleet.operator);
    assert!(browser.page("/").await.contains("on call (viewer)"));
    let revoke = format!("/admin/v1/keys/{}/revoke", made["id"].as_str().unwrap());
    fleet.operator.post(&revoke, &json!({})).await.is(200);
    assert_eq!(browser.get("/").await.status, 303);
    assert_eq!(browser.get("/live?since=0-0").await.status, 401);
}

#[tokio::test]
async fn a_session_ends_when_it_is_not_used_after_its_time_and_with_its_key_s() {
    let fleet = Fleet::small().await;
    let key = fleet.operator.key.clone().unwrap();
    let idle = Browser::of(&fleet.operator, &key).await;
    fleet.later(3_590);
    idle.page("/").await;
    fleet.later(3_590);
    idle.page("/").await;
    fleet.later(3_610);
    assert_eq!(idle.get("/").await.status, 303, "it was not used for an hour");
    let used = Browser::of(&fleet.operator, &key).await;
    for _ in 0..13 {
        fleet.later(3_300);
        used.page("/").await;
    }
    fleet.later(300);
    assert_eq!(used.get("/").await.status, 303, "twelve hours are over");
    let ends = crate::fixture::in_seconds(1_000_000);
    let body = json!({"name": "short", "operator": true, "expires_at": ends});
    let made = fleet.operator.post("/admin/v1/keys", &body).await.is(201);
    fleet.later(999_000 - 3 * 3_600 - 12 * 3_600 - 10);
    let last = Browser::of(&fleet.operator, made["secret"].as_str().unwrap()).await;
    fleet.later(1_100);
    assert_eq!(last.get("/").await.status, 303, "its key is over");
}

#[tokio::test]
async fn what_another_page_sends_is_refused_and_told() {
    let fleet = Fleet::small().await;
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let path = "/trunks/acme-waw-1/disable";
    let mut asked = Vec::new();
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "none"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:1"),
        ("origin", "https://evil.example"),
        ("x-nothing", "of a browser"),
    ] {
        let request = browser.request(reqwest::Method::POST, path).form(&[("reason", "x")]);
        let answer = Answer::to(request.header(name, value)).await;
        assert_eq!(answer.status, 403, "{name}: {value}");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        asked.push(answer.header("x-request-id").to_owned());
    }
    // The key of the operators' API opens no page, and a session opens nothing of the API.
    assert_eq!(fleet.operator.without_key().get("/admin/v1/nodes").await.status, 401);
    assert_eq!(browser.get("/admin/v1/nodes").await.status, 401);
    assert_ne!(fleet.trunk("acme-waw-1").await["state"], "disabled");
    eventually("a row", async || {
        fleet.audit().await.iter().any(|row| {
            row["action"] == "trunk.disable"
                && row["outcome"] == "denied"
                && row["request_id"] == asked[0].as_str()
        })
    })
    .await;
    let origin = format!("http://{}", fleet.operator.base().trim_start_matches("http://"));
    let own = browser.request(reqwest::Method::POST, path).form(&[("reason", "x")]).header("origin", origin);
    assert_eq!(Answer::to(own).await.status, 303, "without TLS a browser says no more than this");
}

#[tokio::test]
async fn a_wrong_key_is_refused_so_often_and_a_customer_s_always() {
    let fleet = Fleet::small().await;
    let (right, customer) = (fleet.operator.key.clone().unwrap(), fleet.api.key.clone().unwrap());
    let mut browser = Browser::at(&fleet.operator);
    let wrong = format!("{}{}", &right[..right.len() - 1], if right.ends_with('a') { 'b' } else { 'a' });
    for key in [customer.as_str(), &wrong, "", "rw_op_", "x"].into_iter().cycle().take(10) {
        let answer = browser.sign_in(key).await;
        assert_eq!(answer.status, 401, "{}", answer.text);
        assert!(answer.text.contains("name=\"key\"") && browser.cookie.is_none());
        assert!(key.len() < 10 || !answer.text.contains(key), "a key is not shown again");
    }
    let answer = browser.sign_in(&right).await;
    assert_eq!(answer.status, 429, "{}", answer.text);
    assert!((1..=61).contains(&answer.header("retry-after").parse::<u32>().unwrap()));
    eventually("rows", async || {
        fleet.audit().await.iter().any(|row| {
            row["action"] == "session.create"
                && row["reason"] == "unauthenticated"
                && row["actor_type"] == "operator"
        })
    })
    .await;
    fleet.later(61);
    assert_eq!(browser.sign_in(&right).await.status, 303);
}
