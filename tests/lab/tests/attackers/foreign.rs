//! Toll fraud as an agent can see it: calls go out over a trunk of the fleet, and Ringward did not place them.

use std::fs;
use std::time::Duration;

use lab::{Agent, Pbx, numbers, pause, wait_until};
use serde_json::json;

use crate::fixture::{Fleet, end, full, over_links};

const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// Whoever got in dials over the trunk, as a phone does by the dialplan; it is answered, and stays on the line.
fn dial_out(pbx: &Pbx, n: u16) {
    let number = numbers::number(numbers::ANSWER, n);
    let line = format!("dialplan add extension {n},1,Dial,\"PJSIP/{number}@carrier-a\" into lab-phones");
    pbx.console(&line).unwrap();
    pbx.console(&format!("channel originate Local/{n}@lab-phones application Wait 60")).unwrap();
}

fn foreign(agent: &Agent) -> f64 {
    agent.metric("ringward_agent_foreign_calls").unwrap()
}

fn hung_up(agent: &Agent) -> f64 {
    agent.metric("ringward_agent_foreign_calls_hung_up_total").unwrap_or_default()
}

#[test]
fn calls_of_somebody_else_are_told_and_hung_up_where_that_is_set_and_ringward_s_go_on() {
    let fleet = Fleet::up(over_links(full()));
    let pbx = fleet.lab.pbx("pbx-1").unwrap();
    let agent = pbx.agent().unwrap();
    dial_out(pbx, 1);
    wait_until("it to be told", SEEN_WITHIN, "", || foreign(&agent) > 0.5).unwrap();
    let told = || fleet.plane.agent("pbx-1").is_ok_and(|agent| agent.to_string().contains("foreign_calls"));
    wait_until("the control plane to know", SEEN_WITHIN, "", told).unwrap();
    assert!(hung_up(&agent) < 0.5, "by itself the agent only tells");

    let settings = pbx.host().folder().join("agent.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let set = text.replace("[gate]\n", "[gate]\nforeign_calls = \"hang_up\"\n");
    assert_ne!(text, set);
    fs::write(&settings, set).unwrap();
    agent.stop().unwrap();
    agent.start().unwrap();
    fleet.plane.wait_for_nodes().unwrap();
    // Ringward's own calls, over the same trunks, ring and speak meanwhile.
    let message = || json!({"message": {"audio_id": "builtin:tt-monkeys"}});
    let own: Vec<_> =
        (10..16).map(|n| fleet.place(&numbers::number(numbers::ANSWER, n), message())).collect();
    (2..5).for_each(|n| dial_out(pbx, n));
    wait_until("all of them to be hung up", SEEN_WITHIN, "", || hung_up(&agent) > 3.5)
        .unwrap_or_else(|error| panic!("{error}: {}", hung_up(&agent)));
    pause(Duration::from_secs(4));
    assert!(foreign(&agent) < 0.5 && (hung_up(&agent) - 4.0).abs() < 0.5, "{}", hung_up(&agent));
    for call in own {
        let call = fleet.ended(&call);
        assert_eq!(end(&call), "completed/played/answered", "{call}");
    }
}
