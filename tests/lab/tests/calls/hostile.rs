//! Strangers' text in AMI while calls run: nothing comes of it but a count.

use std::time::Duration;

use lab::shapes::Shape;
use lab::{Behaviour, Inbound, Plan, Volley, numbers, wait_until};
use serde_json::{Value, json};

use crate::fixture::{Fleet, attempts, diagonal, end};

/// Everything about trunks and nodes that must not move.
fn standing(fleet: &Fleet) -> Vec<(Value, Value)> {
    let nodes = fleet.plane.nodes().unwrap().into_iter().map(|n| (n["name"].clone(), n["state"].clone()));
    let trunks = fleet.plane.trunks().unwrap().into_iter().map(|t| (t["name"].clone(), t["state"].clone()));
    nodes.chain(trunks).collect()
}

#[test]
fn registers_and_invites_that_forge_events_change_no_call_no_trunk_and_no_answer() {
    let fleet = Fleet::up(Plan { inbound: Inbound::Rings, ..diagonal() });
    let well = || standing(&fleet).iter().all(|(_, state)| state == "alive" || state == "healthy");
    wait_until("nodes and trunks to be well", Duration::from_secs(15), "", well)
        .unwrap_or_else(|error| panic!("{error}: {:?}", standing(&fleet)));
    let before = standing(&fleet);
    // Calls of every kind run while the volleys arrive; those that ring are the victims.
    let long =
        json!({"ring_timeout_s": 20, "message": {"audio_id": "builtin:demo-congrats"}, "time_limit_s": 60});
    let rows = [
        (numbers::RING, 8, "no_answer/ring_timeout/not_reached"),
        (numbers::ANSWER, 8, "completed/played/answered"),
        (numbers::TRYING, 4, "failed/outcome_unknown/unknown"),
    ];
    let mut placed = Vec::new();
    for (behaviour, calls, expected) in rows {
        for n in 0..calls {
            let to = numbers::number(behaviour, n);
            let mut more = long.clone();
            if behaviour == numbers::TRYING {
                more["progress_timeout_s"] = 20.into();
                more["on_unknown"] = "fail".into();
            }
            placed.push((to.clone(), fleet.place(&to, more), expected));
        }
    }
    let ringing = || fleet.plane.call(&placed[0].1).is_ok_and(|call| call["status"] == "ringing");
    wait_until("the first phone to ring", Duration::from_secs(5), "", ringing).unwrap();
    // The worst case: the attacker names a living attempt. No outsider can know it.
    let victim = fleet.plane.call(&placed[0].1).unwrap()["attempts"][0]["id"].as_str().unwrap().to_owned();
    // Every source at every PBX at once: a volley waits for its answers.
    std::thread::scope(|scope| {
        for pbx in fleet.lab.pbxes() {
            let carrier = fleet.lab.carrier(if pbx.name() == "pbx-1" { "a" } else { "b" }).unwrap();
            let attacker = fleet.lab.attacker();
            let volley = |shape| Volley { count: 3, ..Volley::one(shape) };
            scope.spawn(move || {
                for shape in Shape::ALL {
                    attacker.send_hostile(&volley(shape), pbx).unwrap();
                    attacker.send_hostile(&volley(shape).invite(), pbx).unwrap();
                }
            });
            scope.spawn(move || {
                for shape in Shape::ALL {
                    carrier.send_hostile(&volley(shape).invite(), pbx).unwrap();
                }
            });
        }
    });
    assert_eq!(standing(&fleet), before, "no event moved a node or a trunk\n{}", fleet.log_tail());
    for (to, id, expected) in &placed {
        let call = fleet.ended(id);
        assert_eq!(end(&call), *expected, "{to}: {call}");
        assert_eq!(attempts(&call, "id").len(), 1, "{to}: {call}");
    }
    // Bans and limits of a later day come from other places; here the count is what tells.
    for session in ["session=\"security\"", "session=\"originate\""] {
        let told = fleet.plane.metric("ringward_ami_tampering_total", &[session]).unwrap();
        println!("{session}: {told} blocks of strangers' text");
        assert!(told >= 10.0, "{session}: {told}");
    }
    // And with the very id of a living attempt: the true end is what counts, not the forged one.
    let to = numbers::number(numbers::RING, 100);
    let id = fleet.place(&to, json!({"ring_timeout_s": 6, "on_unknown": "fail"}));
    let rings = || fleet.plane.call(&id).is_ok_and(|call| call["status"] == "ringing");
    wait_until("it to ring", Duration::from_secs(5), "", rings).unwrap();
    let call = fleet.plane.call(&id).unwrap();
    let named = call["attempts"][0]["id"].as_str().unwrap();
    assert_ne!(named, victim);
    let pbx = fleet.lab.pbx(call["attempts"][0]["node"].as_str().unwrap()).unwrap();
    let carrier = fleet.lab.carrier(call["attempts"][0]["carrier"].as_str().unwrap()).unwrap();
    for shape in [Shape::Hangup, Shape::OriginateFailure, Shape::NewstateUp, Shape::SecondUniqueid] {
        carrier.send_hostile(&Volley::one(shape).invite().naming(named), pbx).unwrap();
    }
    let call = fleet.ended(&id);
    assert_eq!(end(&call), "no_answer/ring_timeout/not_reached", "{call}\n{}", fleet.log_tail());
}

#[test]
fn hostile_requests_do_not_slow_calls_down_or_hide_a_failure() {
    let fleet = Fleet::up(diagonal());
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Code(503)).unwrap();
    let pbx = fleet.lab.pbx("pbx-1").unwrap();
    let ids: Vec<_> = (0..30)
        .map(|n| {
            fleet.lab.attacker().send_hostile(&Volley::one(Shape::ALL[n % Shape::ALL.len()]), pbx).unwrap();
            fleet.place(&numbers::number(numbers::ANSWER, n as u16), json!({}))
        })
        .collect();
    for id in ids {
        let call = fleet.ended(&id);
        assert_eq!(end(&call), "completed/played/answered", "{call}");
    }
    assert_eq!(fleet.seen("b").total().answers, 30);
}
