//! Clocks of control plane and node that are five minutes apart.

use lab::numbers;
use serde_json::json;

use crate::fixture::{Fleet, at_ms, end};
use crate::node::one;

const APART_S: i32 = 300;

#[track_caller]
fn apart(ahead_s: i32) {
    // Joining, too, happens under it.
    let fleet = Fleet::up_with(one(), |setup| setup.clock_ahead(ahead_s));
    let agent = fleet.plane.agent("pbx-1").unwrap();
    let offset_ms = agent["clock_offset_ms"].as_i64().unwrap();
    let expected_ms = -i64::from(ahead_s) * 1_000;
    println!("control plane {ahead_s:+} s: the node's clock is told as {offset_ms} ms off");
    assert!((offset_ms - expected_ms).abs() < 1_500, "{offset_ms}");
    for n in 0..4 {
        let call = fleet.placed(&numbers::number(numbers::ANSWER, n), json!({"on_unknown": "fail"}));
        assert_eq!(end(&call), "completed/played/answered", "{call}");
        let took = at_ms(&call["ended_at"]) - at_ms(&call["created_at"]);
        assert!((0..30_000).contains(&took), "{call}");
    }
    let call = fleet.placed(&numbers::number(numbers::RING, 0), json!({"ring_timeout_s": 2}));
    assert_eq!(end(&call), "no_answer/ring_timeout/not_reached", "{call}");
}

#[test]
fn a_control_plane_that_is_ahead_links_and_calls() {
    apart(APART_S);
}

#[test]
fn a_control_plane_that_is_behind_links_and_calls() {
    apart(-APART_S);
}
