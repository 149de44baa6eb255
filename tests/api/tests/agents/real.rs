//! The agent itself, in process, between the control plane and a scripted PBX.

use std::time::Duration;

use fake_pbx::{Ending, Plan};
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

/// What a customer asks of a call arrives at the PBX as the dialplan reads it, through the gate that judges it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_and_machine_detection_go_through_the_gate() {
    let plane = Plane::start().await;
    let waw_1 = Node::join(&plane, "waw-1").await.start(&plane).await;
    let pbx = &waw_1.pbx;
    pbx.set_ending(NUMBER, Plan::pressing('#', Duration::from_millis(20)));
    let body = json!({
        "to": NUMBER, "message": {"audio_id": "builtin:hello-world", "repeat": 10}, "time_limit_s": 3600,
        "acknowledgement": {"keys": {"1": "acknowledge", "#": "escalate", "*": "repeat"}, "timeout_s": 60},
        "machine_detection": {"mode": "detect", "on_machine": "leave_message"},
    });
    let (status, call) = plane.post("/admin/v1/calls", &body).await;
    assert_eq!(status, 201, "{call}");
    let path = format!("/admin/v1/calls/{}", call["id"].as_str().unwrap());
    until("the call to end", async || !plane.get(&path).await["outcome"].is_null()).await;
    let call = plane.get(&path).await;
    assert_eq!(call["status"], "completed", "{call}");
    let actions = pbx.actions();
    let originate = actions.iter().find(|action| action.get("Action") == Some("Originate")).unwrap();
    let attempt = call["attempts"][0]["id"].as_str().unwrap();
    let variables: Vec<&str> = originate.all("Variable").collect();
    let ours = format!("RINGWARD_ATTEMPT={attempt}");
    let expected = [
        "CHANNEL(hangup_handler_push)=\"ringward-record,s,1\"",
        ours.as_str(),
        "RINGWARD_AUDIO=hello-world",
        "RINGWARD_REPEAT=10",
        "RINGWARD_TIME_LIMIT=3600",
        "RINGWARD_KEYS=h1",
        "RINGWARD_REPEAT_KEY=s",
        "RINGWARD_ACK_TIMEOUT=60",
        "RINGWARD_AMD=leave",
    ];
    assert_eq!(variables, expected);
    // The PBX found the key among those that end the call: the callee would have stayed for a minute.
    assert_eq!(pbx.seen(NUMBER).answers, 1);
}
