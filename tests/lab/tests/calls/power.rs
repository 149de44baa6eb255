//! A PBX whose power goes, and does not come back: with `retry` the other one dials in time, with `fail` never.

use std::time::Duration;

use lab::{Dialog, numbers, pause, since_1970, wait_until};
use serde_json::{Value, json};

use crate::fixture::{Fleet, attempts, diagonal, over_links};

/// From the power's end to the INVITE at the other PBX's carrier.
const DIALLED_WITHIN: Duration = Duration::from_secs(10);
/// Of each kind and choice, so that each PBX has some.
const EACH: u16 = 4;
/// When everything has ended, nothing comes later than this: what a woken or forgotten part might still send.
const AND_NOTHING_AFTER: Duration = Duration::from_secs(3);

/// A call, and how far it had come when the power went.
struct Placed {
    to: String,
    id: String,
    choice: &'static str,
    was: &'static str,
}

#[test]
fn a_pbx_that_is_powered_off_without_an_agent() {
    powered_off(&Fleet::up(diagonal()));
}

#[test]
fn a_pbx_that_is_powered_off_with_its_agent() {
    powered_off(&Fleet::up(over_links(diagonal())));
}

fn powered_off(fleet: &Fleet) {
    let kinds =
        [(numbers::TRYING, "initiated"), (numbers::RING, "ringing"), (numbers::ANSWER, "in_progress")];
    let mut placed = Vec::new();
    let mut first = 0;
    for choice in ["retry", "fail"] {
        for (behaviour, was) in kinds {
            placed.extend(place(fleet, behaviour, first, choice, was));
            first += EACH;
        }
    }
    for call in &placed {
        let there = || fleet.plane.call(&call.id).is_ok_and(|told| told["status"] == call.was);
        wait_until(&format!("{} to be {}", call.id, call.was), Duration::from_secs(10), "", there)
            .unwrap_or_else(|error| panic!("{error}: {:?}", fleet.plane.call(&call.id)));
    }
    let off = since_1970();
    fleet.lab.pbx("pbx-1").unwrap().power_off().unwrap();
    // These are sent when it is dark already, and nobody knows.
    for choice in ["retry", "fail"] {
        placed.extend(place(fleet, numbers::ANSWER, first, choice, "sent"));
        first += EACH;
    }
    let ended: Vec<Value> = placed.iter().map(|call| fleet.ended(&call.id)).collect();
    pause(AND_NOTHING_AFTER);
    let seen: Vec<Dialog> = fleet.lab.carrier("b").unwrap().dialogs().unwrap();
    let mut met = 0;
    for (call, told) in placed.iter().zip(&ended) {
        if attempts(told, "node")[0] != "pbx-1" {
            continue;
        }
        met += 1;
        let dialled: Vec<_> =
            seen.iter().filter(|dialog| call.to.trim_start_matches('+') == dialog.number).collect();
        match (call.choice, &dialled[..]) {
            ("fail", []) => {}
            ("retry", [dialog]) => {
                let took = dialog.at.saturating_sub(off);
                println!("{}: dialled by pbx-2 after {} ms", call.was, took.as_millis());
                assert!(took < DIALLED_WITHIN, "{}: {took:?}: {told}\n{}", call.was, fleet.log_tail());
            }
            (choice, _) => panic!("{choice}, {}: {} INVITEs at carrier b: {told}", call.was, dialled.len()),
        }
    }
    assert!(met >= 8, "only {met} calls were at pbx-1");
}

fn place(fleet: &Fleet, behaviour: u16, first: u16, choice: &'static str, was: &'static str) -> Vec<Placed> {
    let more = json!({
        "on_unknown": choice, "ring_timeout_s": 6, "progress_timeout_s": 6, "failover": {"attempts_max": 2},
        "message": {"audio_id": "builtin:hello-world", "repeat": 6},
    });
    (first..first + EACH)
        .map(|n| {
            let to = numbers::number(behaviour, n);
            let id = fleet.place(&to, more.clone());
            Placed { to, id, choice, was }
        })
        .collect()
}
