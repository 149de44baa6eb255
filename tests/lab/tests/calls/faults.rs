//! What operators meet: wrong secrets, closed ports, restarts, a control plane that dies.

use std::time::Duration;

use lab::{Signal, numbers, wait_until};
use serde_json::json;

use crate::fixture::{Fleet, attempts, diagonal, end};

/// Waits until a call has this status.
fn until(fleet: &Fleet, id: &str, status: &str) {
    let there = || fleet.plane.call(id).is_ok_and(|call| call["status"] == status);
    wait_until(&format!("{id} to be {status}"), Duration::from_secs(10), "", there)
        .unwrap_or_else(|error| panic!("{error}\n{}", fleet.log_tail()));
}

fn node(fleet: &Fleet, name: &str) -> serde_json::Value {
    fleet.plane.nodes().unwrap().into_iter().find(|node| node["name"] == name).unwrap()
}

#[test]
fn a_node_with_a_wrong_secret_says_so_and_stops_nobody() {
    let fleet = Fleet::up(diagonal());
    let wrong = fleet.folder.path().join("wrong.secret");
    std::fs::write(&wrong, "not-the-secret\n").unwrap();
    let right = fleet.lab.pbx("pbx-2").unwrap().secret_file();
    let text = fleet.lab.fleet_toml().replace(&right.display().to_string(), &wrong.display().to_string());
    fleet.plane.apply(&text).unwrap();
    let told = || {
        node(&fleet, "pbx-2")["reason"].as_str().is_some_and(|reason| reason.contains("refused manager user"))
    };
    wait_until("the wrong secret to be told", Duration::from_secs(10), "", told).unwrap_or_else(|error| {
        panic!("{error}: {}", node(&fleet, "pbx-2"));
    });
    assert_eq!(node(&fleet, "pbx-1")["up"], true);
    for n in 0..4 {
        let call = fleet.placed(&numbers::number(numbers::ANSWER, n), json!({}));
        assert_eq!(
            (end(&call).as_str(), attempts(&call, "node")),
            ("completed/played/answered", vec!["pbx-1"])
        );
    }
    let status = fleet.plane.command_line(&["status"]).unwrap();
    let shown = String::from_utf8_lossy(&status.stdout).into_owned();
    assert_eq!(status.status.code(), Some(1));
    // Suspect for its first ten seconds, then lost.
    let named = shown.contains("pbx-2 suspect") || shown.contains("pbx-2 lost");
    assert!(named && shown.contains("manager.conf"), "{shown}");
}

#[test]
fn a_closed_ami_port_is_named_and_the_node_comes_back_by_itself() {
    let fleet = Fleet::up(diagonal());
    let pbx = fleet.lab.pbx("pbx-1").unwrap();
    pbx.stop().unwrap();
    let lost = || node(&fleet, "pbx-1")["up"] == false;
    wait_until("pbx-1 to be lost", Duration::from_secs(10), "", lost).unwrap();
    let call = fleet.placed(&numbers::number(numbers::ANSWER, 1), json!({}));
    assert_eq!((end(&call).as_str(), attempts(&call, "node")), ("completed/played/answered", vec!["pbx-2"]));
    let reason = || node(&fleet, "pbx-1")["reason"].as_str().unwrap_or_default().to_owned();
    wait_until("the reason", Duration::from_secs(5), "", || reason().contains("is Asterisk running"))
        .unwrap();
    pbx.start().unwrap();
    let usable = || fleet.plane.trunks().unwrap().iter().all(|trunk| trunk["usable"] == true) && !lost();
    wait_until("pbx-1 to be back", Duration::from_secs(20), "", usable)
        .unwrap_or_else(|error| panic!("{error}: {:?}", fleet.plane.trunks()));
}

#[test]
fn an_asterisk_that_is_killed_while_it_rings_interrupts_the_call() {
    let fleet = Fleet::up(diagonal());
    let mut followed = Vec::new();
    for (n, choice) in [(0, "retry"), (1, "fail"), (2, "retry"), (3, "fail")] {
        let to = numbers::number(numbers::RING, n);
        let id = fleet.place(&to, json!({"on_unknown": choice, "ring_timeout_s": 4}));
        until(&fleet, &id, "ringing");
        followed.push((to, id, choice));
    }
    fleet.lab.pbx("pbx-1").unwrap().kill_asterisk(Signal::Kill).unwrap();
    let mut met = 0;
    for (to, id, choice) in followed {
        let call = fleet.ended(&id);
        if attempts(&call, "node")[0] == "pbx-2" {
            assert_eq!(end(&call), "no_answer/ring_timeout/not_reached", "{call}");
            continue;
        }
        met += 1;
        assert_eq!(
            (attempts(&call, "reason")[0], attempts(&call, "rang")[0]),
            ("interrupted", "yes"),
            "{call}"
        );
        if choice == "fail" {
            assert_eq!(end(&call), "failed/interrupted/unknown", "{call}");
            assert_eq!(fleet.truth().invites(&to), 1, "with `fail` it rang once");
        } else {
            assert_eq!(attempts(&call, "node"), ["pbx-1", "pbx-2"], "{call}");
            assert_eq!(fleet.seen("b").of(&to).rings, 1, "with `retry` the other PBX rang it");
        }
    }
    assert_eq!(met, 2, "round robin: two of four were on pbx-1");
}

#[test]
fn an_asterisk_that_restarts_during_a_call_loses_nothing() {
    let fleet = Fleet::up(diagonal());
    let ids: Vec<_> = (0..6)
        .map(|n| {
            fleet.place(
                &numbers::number(numbers::ANSWER, n),
                json!({"message": {"audio_id": "builtin:hello-world", "repeat": 6}}),
            )
        })
        .collect();
    ids.iter().for_each(|id| until(&fleet, id, "in_progress"));
    fleet.lab.pbx("pbx-1").unwrap().restart_asterisk().unwrap();
    for id in &ids {
        let call = fleet.ended(id);
        assert_eq!(end(&call), "completed/played/answered", "{call}\n{}", fleet.log_tail());
    }
}

#[test]
fn a_control_plane_that_is_killed_takes_its_calls_up_again_and_rings_nobody_twice() {
    control_plane_killed(&Fleet::up(diagonal()));
}

pub(crate) fn control_plane_killed(fleet: &Fleet) {
    let mut placed = Vec::new();
    for n in 0..6 {
        placed.push((numbers::number(numbers::RING, n), "no_answer/ring_timeout/not_reached"));
        placed.push((numbers::number(numbers::ANSWER, n), "completed/played/answered"));
    }
    let followed: Vec<_> = placed
        .into_iter()
        .map(|(to, expected)| {
            let more = json!({"on_unknown": "fail", "ring_timeout_s": 6, "message": {"audio_id": "builtin:hello-world", "repeat": 6}});
            let id = fleet.place(&to, more);
            (to, id, expected)
        })
        .collect();
    let status = |to: &str| if to.starts_with("+4822180") { "ringing" } else { "in_progress" };
    followed.iter().for_each(|(to, id, _)| until(fleet, id, status(to)));
    // These have been accepted a moment ago: queued, or their Originate on its way.
    let fresh: Vec<_> = (100..110)
        .map(|n| {
            let to = numbers::number(numbers::ANSWER, n);
            let id = fleet.place(&to, json!({"on_unknown": "fail"}));
            (to, id)
        })
        .collect();
    fleet.plane.signal(Signal::Kill).unwrap();
    fleet.plane.start_again().unwrap();
    for (to, id, expected) in &followed {
        let call = fleet.ended(id);
        assert_eq!(end(&call), *expected, "{to}: {call}\n{}", fleet.log_tail());
    }
    let truth = fleet.truth();
    assert!(followed.iter().all(|(to, _, _)| truth.invites(to) == 1), "each was dialled once");
    let fresh: Vec<_> = fresh.iter().map(|(to, id)| (to, fleet.ended(id))).collect();
    let truth = fleet.truth();
    for (to, call) in &fresh {
        let invites = truth.invites(to);
        assert!(invites <= 1, "{to} was dialled {invites} times: {call}");
        let answered = end(call) == "completed/played/answered";
        assert!(answered || end(call) == "failed/outcome_unknown/unknown", "{to}: {call}");
        assert_eq!(invites > 0, answered, "{to}: what rang is told as such: {call}");
    }
}
