//! What attempts leave on a node, records and channels, is cleared away once they have ended, and not before.

use std::time::Duration;

use api::cable::Cable;
use fake_pbx::Ending;
use serde_json::json;

use crate::{
    agent::{Node, node_state},
    plane::{Plane, until},
};

const SHORT: &str = "+48221234567";
const LONG: &str = "+48221234568";

/// A call that must never ring twice: its path, and its attempt's id once it has one.
async fn call(plane: &Plane, to: &str) -> (String, String) {
    let body = json!({"to": to, "message": {"audio_id": "builtin:hello-world"}, "on_unknown": "fail"});
    let (status, call) = plane.post("/admin/v1/calls", &body).await;
    assert_eq!(status, 201, "{call}");
    let path = format!("/admin/v1/calls/{}", call["id"].as_str().unwrap());
    until("an attempt", async || !plane.get(&path).await["attempts"].as_array().unwrap().is_empty()).await;
    let attempt = plane.get(&path).await["attempts"][0]["id"].as_str().unwrap().to_owned();
    (path, attempt)
}

async fn ended(plane: &Plane, path: &str) -> String {
    until("the call to end", async || !plane.get(path).await["outcome"].is_null()).await;
    plane.get(path).await["reason"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn flight_records_go_when_their_outcome_is_durable() {
    let plane = Plane::start().await;
    let waw = Node::join(&plane, "waw-1").await;
    waw.pbx.set_ending(SHORT, Ending::answer());
    waw.pbx.set_ending(LONG, Ending::Answer { talk: Duration::from_secs(16) });
    let waw = waw.start(&plane).await;
    let record = |attempt: &str| waw.pbx.db("ringward", attempt);
    let (long_path, long) = call(&plane, LONG).await;
    until("the record of an answer", async || record(&long).is_some()).await;
    let (path, short) = call(&plane, SHORT).await;
    assert_eq!(ended(&plane, &path).await, "played");
    until("its record to go", async || record(&short).is_none()).await;
    assert!(record(&long).is_some(), "of a call that goes on");
    // One that comes late, or that an earlier agent left.
    waw.pbx.set_db("ringward", &short, Some("1|end|Up|-|16|1"));
    assert_eq!(ended(&plane, &long_path).await, "played");
    until("both to go", async || record(&short).is_none() && record(&long).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_an_earlier_control_plane_gave_up_is_hung_up_and_no_other() {
    let plane = Plane::start().await;
    let cable = Cable::to(plane.app.agents).await;
    let waw = Node::join(&plane, "waw-1").await.by_way_of(cable.address);
    waw.pbx.set_ending(SHORT, Ending::Answer { talk: Duration::from_secs(120) });
    waw.pbx.set_ending(LONG, Ending::Answer { talk: Duration::from_secs(14) });
    let waw = waw.start(&plane).await;
    let (path, given_up) = call(&plane, SHORT).await;
    until("the answer", async || plane.get(&path).await["status"] == "in_progress").await;
    cable.keep_apart(true);
    cable.cut();
    assert_eq!(ended(&plane, &path).await, "interrupted");
    // What the process remembers of it is gone.
    let plane = plane.restart().await;
    plane.move_clock(Duration::from_secs(60));
    cable.plug_into(plane.app.agents);
    cable.keep_apart(false);
    until("the node to be back", async || node_state(&plane, "waw-1").await["state"] == "alive").await;
    let (path, open) = call(&plane, LONG).await;
    until("the survivor to be hung up", async || !waw.pbx.live_channels().contains(&given_up)).await;
    assert_eq!(waw.pbx.live_channels(), [open]);
    let line = "ringward_survivors_hung_up_total{node=\"waw-1\"} 1";
    until("it to be counted", async || plane.metrics().await.lines().any(|l| l == line)).await;
    // It is asked about while it lives, and left alone.
    assert_eq!(ended(&plane, &path).await, "played");
    assert_eq!(waw.pbx.count_actions("Hangup"), 1);
}
