//! Alerts in, calls out: hooks, incidents and who is phoned, until somebody acknowledges.

mod escalating;
mod hooks;
mod restarts;

use std::time::Duration;

use fake_pbx::{Ending, Plan, Said};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    audio::{folder, tones},
    fixture::{Answer, Door, Fleet, eventually, talks},
};

/// Who is on call, in the order of the list.
pub(crate) const FIRST: &str = "+48221230001";
pub(crate) const SECOND: &str = "+48221230002";

/// Presses a key soon after the answer.
fn presses(key: char) -> Plan {
    Plan::of(talks(5_000)).saying(Duration::from_millis(50), Said::Key(key))
}

/// A fleet that speaks, and its sounds' folder.
async fn speaking() -> (Fleet, TempDir) {
    let (folder, line) = folder();
    let fleet = Fleet::of(&["waw-1"], &["acme"]).nodes_have(&line).settings(tones).start().await;
    for number in [FIRST, SECOND] {
        api::overheard::remember(number.trim_start_matches('+'));
    }
    (fleet, folder)
}

/// A hook that phones both, twice.
fn night_shift() -> Value {
    json!({
        "name": "Night shift", "kind": "alertmanager", "to": [FIRST, SECOND], "rounds": 2, "round_pause_s": 1,
        "ring_timeout_s": 1, "acknowledgement_timeout_s": 2
    })
}

async fn hook(door: &Door, body: Value) -> Value {
    door.post("/v1/hooks", &body).await.is(201)
}

/// One alert of a group, as Alertmanager posts it.
fn alert(trunk: &str, status: &str) -> Value {
    json!({
        "status": status, "labels": {"alertname": "RingwardTrunkTripped", "trunk": trunk, "severity": "page"},
        "annotations": {"summary": format!("Trunk {trunk} is out of service")},
        "startsAt": "2026-11-24T10:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph", "fingerprint": format!("f{trunk}")
    })
}

/// A group's payload.
fn group(status: &str, alerts: &[Value]) -> Value {
    json!({
        "receiver": "ringward", "status": status, "alerts": alerts, "groupLabels": {"alertname": "RingwardTrunkTripped"},
        "commonLabels": {"severity": "page"}, "commonAnnotations": {}, "externalURL": "http://alertmanager:9093",
        "version": "4", "groupKey": "{}/{severity=\"page\"}:{alertname=\"RingwardTrunkTripped\"}", "truncatedAlerts": 0
    })
}

fn fires() -> Value {
    group("firing", &[alert("acme-waw-1", "firing")])
}

fn is_over() -> Value {
    group("resolved", &[alert("acme-waw-1", "resolved")])
}

async fn tell(door: &Door, hook: &Value, body: &Value) -> Answer {
    door.post(hook["path"].as_str().unwrap(), body).await
}

/// Tells, and gives the incident that came of it.
async fn told(door: &Door, hook: &Value, body: &Value) -> String {
    let receipt = tell(door, hook, body).await.is(202);
    receipt["incidents"][0]["incident"].as_str().unwrap_or_else(|| panic!("{receipt}")).to_owned()
}

async fn incident(door: &Door, id: &str) -> Value {
    door.get(&format!("/v1/incidents/{id}")).await.is(200)
}

async fn becomes(door: &Door, id: &str, status: &str) -> Value {
    eventually(&format!("{id} becomes {status}"), async || incident(door, id).await["status"] == status)
        .await;
    incident(door, id).await
}

/// One word of each step, in order.
fn each<'v>(incident: &'v Value, word: &str) -> Vec<&'v str> {
    incident["steps"].as_array().unwrap().iter().map(|step| step[word].as_str().unwrap_or("")).collect()
}

async fn calls(door: &Door) -> Vec<Value> {
    door.get("/v1/calls?limit=100").await.is(200)["data"].as_array().unwrap().clone()
}

/// Rows of the audit log whose action begins so, oldest first.
async fn rows(fleet: &Fleet, action: &str) -> Vec<Value> {
    let mut rows = fleet.audit().await;
    rows.retain(|row| row["action"].as_str().unwrap().starts_with(action));
    rows.reverse();
    rows
}

fn never_answers(fleet: &Fleet, number: &str) {
    fleet.callee(number, Ending::NoAnswer);
}
