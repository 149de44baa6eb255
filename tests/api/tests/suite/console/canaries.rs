//! A canary when an operator wants one: asked first, one at a time, told in the audit log, and never where no call may go.

use fake_pbx::Ending;
use serde_json::{Value, json};

use crate::fixture::{Browser, Fleet, eventually};

const CANARY: &str = "+48229999999";

async fn fleet() -> Fleet {
    let line = format!("canary = {{ number = \"{CANARY}\", interval_s = 86400, expects = \"rings\" }}");
    Fleet::of(&["waw-1"], &["acme", "beta"]).trunks_have(&line).start().await
}

async fn last(fleet: &Fleet, trunk: &str) -> Value {
    fleet.operator.get(&format!("/admin/v1/trunks/{trunk}/why")).await.is(200)["last_canary"].clone()
}

#[tokio::test]
async fn a_canary_leaves_when_an_operator_wants_it_and_its_end_is_told() {
    let fleet = fleet().await;
    fleet.carrier("acme", Ending::NoAnswer);
    fleet.carrier("beta", Ending::Sip(503));
    let path = "/admin/v1/trunks/acme-waw-1/canary";
    let placed = fleet.operator.post(path, &json!({})).await.is(202);
    eventually("it has ended", async || !last(&fleet, "acme-waw-1").await["ended"].is_null()).await;
    let told = last(&fleet, "acme-waw-1").await;
    assert_eq!((&told["attempt"], &told["by_operator"]), (&placed["attempt"], &json!(true)), "{told}");
    assert_eq!(told["ended"]["as_expected"], true, "{told}");
    assert_eq!(fleet.seen(CANARY).invites, 1);
    // The next one is asked for too early, and dials nobody.
    let refused = fleet.operator.post(path, &json!({})).await.is_problem(409, "canary_refused");
    assert!(refused["detail"].as_str().unwrap().contains("the next may in"), "{refused}");
    assert_eq!(fleet.seen(CANARY).invites, 1);
    // By the page, over the other trunk, which is not well.
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    assert!(browser.page("/trunks/beta-waw-1").await.contains("/trunks/beta-waw-1/canary"));
    let question = browser.page("/trunks/beta-waw-1/canary").await;
    assert!(
        question.contains("Place a canary over trunk beta-waw-1?") && question.contains("rings"),
        "{question}"
    );
    let answer = browser.post("/trunks/beta-waw-1/canary", &[]).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/trunks/beta-waw-1"));
    eventually("it is told", async || {
        browser.page("/trunks/beta-waw-1").await.contains("not as expected: congestion, SIP 503")
    })
    .await;
    eventually("both are in the audit log", async || {
        let rows = fleet.audit().await;
        let of = |trunk: &str, outcome: &str| {
            rows.iter().any(|row| {
                row["action"] == "trunk.canary" && row["target_id"] == trunk && row["outcome"] == outcome
            })
        };
        of("acme-waw-1", "success") && of("beta-waw-1", "success") && of("acme-waw-1", "denied")
    })
    .await;
    let calls = fleet.operator.get("/admin/v1/calls").await.is(200);
    assert_eq!(calls["data"], json!([]), "no canary is a customer's call");
}

#[tokio::test]
async fn none_leaves_where_no_call_may_go() {
    let fleet = fleet().await;
    let refused = async |trunk: &str| {
        let answer = fleet.operator.post(&format!("/admin/v1/trunks/{trunk}/canary"), &json!({})).await;
        answer.is_problem(409, "canary_refused")["detail"].as_str().unwrap().to_owned()
    };
    let reason = json!({"reason": "x"});
    fleet.operator.post("/admin/v1/trunks/acme-waw-1/disable", &reason).await.is(200);
    assert!(refused("acme-waw-1").await.contains("trunk_disabled"));
    fleet.operator.post("/admin/v1/nodes/waw-1/drain", &reason).await.is(200);
    assert!(refused("beta-waw-1").await.contains("node_draining"));
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    assert!(browser.page("/trunks/acme-waw-1/canary").await.contains("so it takes no canary either"));
    let answer = browser.post("/trunks/acme-waw-1/canary", &[]).await;
    assert_eq!(answer.status, 409);
    assert!(answer.text.contains("Nothing was dialled"), "{}", answer.text);
    fleet.operator.post("/admin/v1/trunks/none/canary", &json!({})).await.is_problem(404, "not_found");
    assert_eq!(fleet.seen(CANARY).invites, 0);
    // A trunk without a canary number.
    let fleet = Fleet::small().await;
    let answer = fleet.operator.post("/admin/v1/trunks/acme-waw-1/canary", &json!({})).await;
    let refused = answer.is_problem(409, "canary_refused");
    assert!(refused["detail"].as_str().unwrap().contains("no canary in fleet.toml"), "{refused}");
}
