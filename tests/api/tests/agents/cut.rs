//! A call whose link is cut at the worst moments: the node's gate knows whether its Originate went through.

use api::cable::{Cable, To};
use fake_pbx::Ending;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

use crate::{
    agent::Node,
    plane::{FLEET, Plane, until},
};

const NUMBER: &str = "+48221234567";

/// Two nodes with agents; the first, which is asked first, at the end of a cable.
struct Bench {
    plane: Plane,
    cable: Cable,
    waw: Node,
    fra: Node,
}

impl Bench {
    async fn start(first: impl FnOnce(&mut Node)) -> Self {
        let plane = Plane::start().await;
        plane.apply(&FLEET.replace(r#""acme-waw-1", "acme-fra-1""#, r#""acme-waw-1"], ["acme-fra-1""#)).await;
        let cable = Cable::to(plane.app.agents).await;
        let mut waw = Node::join(&plane, "waw-1").await.by_way_of(cable.address);
        first(&mut waw);
        let (waw, fra) = (waw.start(&plane).await, Node::join(&plane, "fra-1").await.start(&plane).await);
        Self { plane, cable, waw, fra }
    }

    /// A call that must never ring twice.
    async fn call(&self) -> String {
        let body =
            json!({"to": NUMBER, "message": {"audio_id": "builtin:hello-world"}, "on_unknown": "fail"});
        let (status, call) = self.plane.post("/admin/v1/calls", &body).await;
        assert_eq!(status, 201, "{call}");
        format!("/admin/v1/calls/{}", call["id"].as_str().unwrap())
    }

    /// The call at its end, and how its attempts ended.
    async fn end(&self, path: &str) -> (Value, Vec<(String, String)>) {
        until("the call to end", async || !self.plane.get(path).await["outcome"].is_null()).await;
        let call = self.plane.get(path).await;
        let word = |attempt: &Value, field: &str| attempt[field].as_str().unwrap().to_owned();
        let attempts = call["attempts"].as_array().unwrap().iter();
        let ended = attempts.map(|attempt| (word(attempt, "node"), word(attempt, "reason"))).collect();
        (call, ended)
    }

    async fn found(&self, what: &str) -> bool {
        let line = format!("ringward_reconciliations_total{{found=\"{what}\"}} 1");
        self.plane.metrics().await.lines().any(|l| l == line)
    }
}

fn pair(node: &str, reason: &str) -> (String, String) {
    (node.to_owned(), reason.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_originate_that_the_gate_did_not_see_is_barred_and_fails_over() {
    let bench = Bench::start(|_| ()).await;
    bench.cable.lose(To::Agent);
    let path = bench.call().await;
    until("an attempt that is written", async || {
        !bench.plane.get(&path).await["attempts"].as_array().unwrap().is_empty()
    })
    .await;
    until("an Originate on the cable", async || bench.cable.lost() > 300).await;
    assert_eq!(bench.plane.get(&path).await["attempts"][0]["status"], "sending");
    bench.cable.cut();
    let (call, ended) = bench.end(&path).await;
    assert_eq!(ended, [pair("waw-1", "not_sent"), pair("fra-1", "answered")], "{call}");
    assert_eq!(call["outcome"], "answered", "{call}");
    assert!(bench.found("barred").await, "{}", bench.plane.metrics().await);
    assert_eq!(bench.waw.pbx.seen(NUMBER).invites, 0);
    assert_eq!(bench.fra.pbx.seen(NUMBER).answers, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_originate_whose_answer_was_lost_is_found_and_not_sent_again() {
    let bench = Bench::start(|_| ()).await;
    bench.waw.pbx.set_ending(NUMBER, Ending::Answer { talk: Duration::from_secs(4) });
    bench.cable.lose(To::Plane);
    let path = bench.call().await;
    until("the phone to be answered", async || bench.waw.pbx.seen(NUMBER).answers == 1).await;
    assert_eq!(bench.plane.get(&path).await["attempts"][0]["status"], "sending");
    bench.cable.cut();
    let (call, ended) = bench.end(&path).await;
    assert_eq!(ended, [pair("waw-1", "answered")], "{call}");
    assert!(bench.found("living").await, "{}", bench.plane.metrics().await);
    assert_eq!((bench.waw.pbx.seen(NUMBER).rings, bench.fra.pbx.seen(NUMBER).invites), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gate_refuses_was_certainly_not_sent() {
    let bench = Bench::start(|waw| waw.settings.gate.channels_max = 0).await;
    let path = bench.call().await;
    let (call, ended) = bench.end(&path).await;
    assert_eq!(ended, [pair("waw-1", "rejected"), pair("fra-1", "answered")], "{call}");
    assert_eq!(bench.waw.pbx.count_actions("Originate"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_up_attempt_that_the_gate_has_barred_is_asked_for_once() {
    let bench = Bench::start(|_| ()).await;
    bench.cable.lose(To::Agent);
    let path = bench.call().await;
    until("an Originate on the cable", async || bench.cable.lost() > 300).await;
    bench.cable.keep_apart(true);
    bench.cable.cut();
    let (call, ended) = bench.end(&path).await;
    assert_eq!(ended, [pair("waw-1", "unknown")], "{call}");
    bench.cable.keep_apart(false);
    let hang_ups = || bench.waw.pbx.count_actions("Hangup");
    until("the node to be asked for it", async || hang_ups() == 1).await;
    for channels_max in [8, 9] {
        // Each change of the fleet is a look at the node.
        let looked = bench.waw.pbx.count_actions("Getvar");
        let fleet = FLEET
            .replace("endpoint = \"acme\"", &format!("endpoint = \"acme\"\nchannels_max = {channels_max}"));
        bench.plane.apply(&fleet).await;
        until("a look", async || bench.waw.pbx.count_actions("Getvar") >= looked + 4).await;
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(hang_ups(), 1, "it cannot turn up any more");
}
