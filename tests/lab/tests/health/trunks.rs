//! Words for what operators see of trunks.

use std::time::Duration;

use lab::{Behaviour, Plan, Reach, now, pause, wait_until};
use serde_json::Value;

use crate::fixture::{Fleet, end, full};

/// Longer than anything that a test waits for takes.
const PATIENCE: Duration = Duration::from_secs(40);

/// Two PBXes with agents, two carriers on each, asked by OPTIONS every 2 s; every trunk known to work, every call answered.
pub(crate) fn healthy_fleet() -> Fleet {
    healthy(&Plan { reach: Reach::Agent, ..full() }, |toml| toml)
}

/// The same with another plan and another fleet file.
pub(crate) fn healthy(plan: &Plan, change: impl FnOnce(String) -> String) -> Fleet {
    let fleet = Fleet::up(plan.clone());
    for carrier in fleet.lab.carriers() {
        carrier.behave(Behaviour::Answer).unwrap();
    }
    let toml = fleet.lab.fleet_toml();
    let changed = change(toml.clone());
    if changed != toml {
        fleet.plane.apply(&changed).unwrap();
    }
    for trunk in fleet.plane.trunks().unwrap() {
        until(&fleet, trunk["name"].as_str().unwrap(), "healthy");
    }
    fleet
}

pub(crate) fn trunk(fleet: &Fleet, name: &str) -> Value {
    fleet.plane.trunks().unwrap().into_iter().find(|trunk| trunk["name"] == name).unwrap()
}

pub(crate) fn state(fleet: &Fleet, name: &str) -> String {
    trunk(fleet, name)["state"].as_str().unwrap().to_owned()
}

/// Waits until a trunk is in this state; gives the time.
#[track_caller]
pub(crate) fn until(fleet: &Fleet, name: &str, wanted: &str) -> Duration {
    let waited = wait_until(&format!("{name} to be {wanted}"), PATIENCE, "", || state(fleet, name) == wanted);
    waited.unwrap_or_else(|error| panic!("{error}: {}\n{}", why(fleet, name), fleet.log_tail()))
}

pub(crate) fn why(fleet: &Fleet, name: &str) -> Value {
    fleet.plane.admin("GET", &format!("/admin/v1/trunks/{name}/why"), None).unwrap()
}

/// A number of a destination of its own: the carriers of these tests do not look at numbers.
pub(crate) fn number(destination: usize, n: usize) -> String {
    format!("+48{:03}{n:06}", 300 + destination)
}

/// Places a call every 200 ms while `busy` does its work, and waits for their ends.
pub(crate) fn calls_while(fleet: &Fleet, busy: impl FnOnce() + Send) -> Vec<Value> {
    let ids = std::thread::scope(|scope| {
        let working = scope.spawn(busy);
        let mut ids = Vec::new();
        while !working.is_finished() {
            ids.push(fleet.place(&number(ids.len() % 7, ids.len()), serde_json::json!({})));
            pause(Duration::from_millis(200));
        }
        working.join().unwrap();
        ids
    });
    ids.iter().map(|id| fleet.ended(id)).collect()
}

/// Every call was answered, and each phone was reached once by the carriers' own captures.
#[track_caller]
pub(crate) fn all_answered_once(fleet: &Fleet, calls: &[Value]) {
    let truth = fleet.truth();
    for call in calls {
        assert_eq!(end(call), "completed/played/answered", "{call}");
        let to = call["to"].as_str().unwrap();
        assert_eq!(truth.reached(to), 1, "{call}");
    }
}

/// Attempts of these calls over the carrier's trunks that did not get through, with when they began, in ms
/// since 1970.
pub(crate) fn failed_over(calls: &[Value], carrier: &str) -> Vec<i128> {
    let attempts = calls.iter().flat_map(|call| call["attempts"].as_array().unwrap());
    attempts
        .filter(|attempt| attempt["carrier"] == carrier && attempt["reason"] != "answered")
        .map(|attempt| crate::fixture::at_ms(&attempt["started_at"]))
        .collect()
}

/// Watches a trunk for so long; gives every state that it was in.
pub(crate) fn states_during(fleet: &Fleet, name: &str, span: Duration) -> Vec<String> {
    let (begun, mut seen) = (now(), Vec::<String>::new());
    while begun.elapsed() < span {
        let state = state(fleet, name);
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        pause(Duration::from_millis(50));
    }
    seen
}
