//! Every trunk of the fleet is judged bad.

use std::time::Duration;

use lab::{Behaviour, Signal, wait_until};
use serde_json::json;

use crate::fixture::attempts;
use crate::trunks::{healthy_fleet, number, until};

#[test]
fn calls_are_still_tried_when_every_trunk_is_judged_bad_and_never_over_a_lost_node() {
    let fleet = healthy_fleet();
    let panic = || fleet.plane.metric("ringward_route_panic", &["route=\"+\""]).unwrap();
    assert!(panic() < 0.5);
    for carrier in ["a", "b"] {
        fleet.lab.carrier(carrier).unwrap().behave(Behaviour::Dead).unwrap();
    }
    for trunk in ["a-pbx-1", "b-pbx-1", "a-pbx-2", "b-pbx-2"] {
        until(&fleet, trunk, "tripped");
    }
    let alarm = || panic() > 0.5;
    wait_until("the alarm", Duration::from_secs(3), "", alarm).unwrap();
    assert!(fleet.log_tail().contains("panic"), "{}", fleet.log_tail());
    let status = fleet.plane.command_line(&["status"]).unwrap();
    let told = String::from_utf8_lossy(&status.stdout).into_owned();
    println!("{told}");
    assert!(told.contains("PANIC on route +"), "{told}");
    let call = fleet.placed(&number(0, 0), json!({"failover": {"attempts_max": 3}}));
    assert!(!attempts(&call, "trunk").is_empty(), "it was tried: {call}");
    // Lost for good: no session and no agent. Panic does not override that.
    let pbx = fleet.lab.pbx("pbx-1").unwrap();
    pbx.agent().unwrap().stop().unwrap();
    pbx.kill_asterisk(Signal::Kill).unwrap();
    let lost =
        || fleet.plane.nodes().unwrap().iter().any(|node| node["name"] == "pbx-1" && node["state"] == "lost");
    wait_until("pbx-1 to be lost", Duration::from_secs(15), "", lost).unwrap();
    let call = fleet.placed(&number(1, 1), json!({"failover": {"attempts_max": 3}}));
    let nodes = attempts(&call, "node");
    assert!(!nodes.is_empty() && nodes.iter().all(|node| *node == "pbx-2"), "{call}");
    // Everything was judged wrongly, or it is over: the next calls get through.
    for carrier in ["a", "b"] {
        fleet.lab.carrier(carrier).unwrap().behave(Behaviour::Answer).unwrap();
    }
    let answered = || {
        let call = fleet.placed(&number(2, 2), json!({}));
        call["status"] == "completed"
    };
    wait_until("a call to get through", Duration::from_secs(20), "", answered).unwrap();
    wait_until("the alarm to end", Duration::from_secs(40), "", || panic() < 0.5).unwrap();
}
