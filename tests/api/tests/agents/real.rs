//! The agent itself, in process, between the control plane and a scripted PBX.

use fake_pbx::Ending;
use node_agent_protocol::BarAnswer;
use serde_json::json;

use crate::{
    agent::{Node, Running, node_state},
    link::attempt,
    plane::{Plane, node, until},
};

const NUMBER: &str = "+48221234567";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_through_the_gate_which_knows_its_attempt_and_bars_others() {
    let plane = Plane::start().await;
    let mut waw_1 = Node::join(&plane, "waw-1").await.start(&plane).await;
    let pbx = &waw_1.pbx;
    pbx.set_ending(NUMBER, Ending::answer());

    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:hello-world"}});
    let (status, call) = plane.post("/admin/v1/calls", &body).await;
    assert_eq!(status, 201, "{call}");
    let path = format!("/admin/v1/calls/{}", call["id"].as_str().unwrap());
    until("the call to end", async || !plane.get(&path).await["outcome"].is_null()).await;
    let call = plane.get(&path).await;
    assert_eq!((call["status"].as_str(), pbx.seen(NUMBER).answers), (Some("completed"), 1), "{call}");

    let (links, waw) = (plane.links(), node("waw-1"));
    let sent = call["attempts"][0]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(links.bar(&waw, &sent, None).await, BarAnswer::Admitted);
    assert_eq!(links.bar(&waw, &attempt(1), None).await, BarAnswer::Barred);
    until("the agent's first fact", async || {
        let facts = plane.agent("waw-1").await["facts"].clone();
        facts.as_array().unwrap().iter().any(|fact| fact["kind"] == "agent_started")
    })
    .await;

    drop(waw_1.agent.take());
    until("the node to be lost", async || node_state(&plane, "waw-1").await["up"] == false).await;
    let _agent = Running::start(waw_1.settings.clone()).await;
    until("the node to be back", async || node_state(&plane, "waw-1").await["up"] == true).await;
    plane.revoke("waw-1").await;
    until("the node to be cut", async || node_state(&plane, "waw-1").await["up"] == false).await;
    let agent = plane.agent("waw-1").await;
    assert_eq!(agent["linked"], false, "{agent}");
}
