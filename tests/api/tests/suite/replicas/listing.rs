//! What operators see of replicas: through the API, and on the Fleet page.

use fake_pbx::Ending;
use serde_json::Value;
use tokio::time::sleep;

use super::{beside, first};
use crate::fixture::{Browser, Fleet, NUMBER, eventually};

/// By whether they live, lead, and answer this; and what they drive.
fn shown(list: &Value) -> Vec<(bool, bool, bool, u64)> {
    let is = |replica: &Value, what: &str| replica[what].as_bool().unwrap();
    let replica =
        |r: &Value| (is(r, "alive"), is(r, "leads"), is(r, "is_this"), r["calls"].as_u64().unwrap());
    list["data"].as_array().unwrap().iter().map(replica).collect()
}

#[tokio::test]
async fn operators_see_who_lives_who_leads_and_what_each_drives() {
    let fleet = first(&["waw-1"]).await;
    let mut beside = beside(&fleet).await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let call = fleet.call(NUMBER).with("ring_timeout_s", 12).place().await;
    call.becomes("ringing").await;
    let list = fleet.operator.get("/admin/v1/replicas").await.is(200);
    assert_eq!(shown(&list), [(true, true, true, 1), (true, false, false, 0)], "{list}");
    assert_eq!((&list["enabled"], &list["lease_ms"]), (&true.into(), &2_000.into()));
    let there = beside.operator.get("/admin/v1/replicas").await.is(200);
    assert_eq!(shown(&there), [(true, true, false, 1), (true, false, true, 0)], "{there}");
    for replica in list["data"].as_array().unwrap() {
        // It is written every 400 ms.
        assert!(replica["sign_age_ms"].as_u64().unwrap() < 2_000, "{replica}");
        assert!(replica["id"].as_str().unwrap().starts_with("rep_"), "{replica}");
        assert!(replica["started_at"].is_string() && replica["name"].is_string(), "{replica}");
        assert!(replica.get("secrets").is_none(), "{replica}");
    }
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    let page = browser.page("/").await;
    let part = page.split("id=\"replicas-h\"").nth(1).expect("the page has a part for replicas");
    for replica in list["data"].as_array().unwrap() {
        assert!(part.contains(replica["id"].as_str().unwrap()), "{part}");
    }
    assert!(part.contains("leads (this one)") && !part.contains("Nobody leads"), "{part}");
    beside.kill().await;
    eventually("it is seen to be dead", async || {
        let list = fleet.operator.get("/admin/v1/replicas").await.is(200);
        shown(&list) == [(true, true, true, 1), (false, false, false, 0)]
    })
    .await;
    sleep(std::time::Duration::from_secs(1)).await;
    let list = fleet.operator.get("/admin/v1/replicas").await.is(200);
    assert!(list["data"][1]["sign_age_ms"].as_u64().unwrap() > 2_000, "{list}");
    call.cancel().await.is(202);
}

/// One that has its database to itself says so, and its page has no part for others.
#[tokio::test]
async fn who_has_the_database_alone_lists_none() {
    let fleet = Fleet::small().await;
    let list = fleet.operator.get("/admin/v1/replicas").await.is(200);
    assert_eq!((&list["enabled"], &list["data"]), (&false.into(), &Value::Array(Vec::new())));
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    assert!(!browser.page("/").await.contains("replicas-h"));
}
