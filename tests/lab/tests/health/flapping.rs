//! A carrier whose cable comes and goes every 3 s.

use std::time::Duration;

use lab::{Behaviour, pause};
use serde_json::Value;

use crate::fixture::at_ms;
use crate::trunks::{all_answered_once, calls_while, failed_over, healthy_fleet, states_during, why};

const HALF_PERIOD: Duration = Duration::from_secs(3);
const FLAPS: usize = 7;

/// Milliseconds since 1970, as the API's own times.
#[allow(clippy::disallowed_methods, reason = "compared with what the control plane wrote by this clock")]
fn wall_ms() -> i128 {
    time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000
}

#[test]
fn a_flapping_carrier_settles_in_tripped_and_costs_nothing_after_the_second_trip() {
    let fleet = healthy_fleet();
    let flapping = fleet.lab.carrier("a").unwrap();
    let calls = calls_while(&fleet, || {
        for _ in 0..FLAPS {
            flapping.behave(Behaviour::Dead).unwrap();
            pause(HALF_PERIOD);
            flapping.behave(Behaviour::Answer).unwrap();
            pause(HALF_PERIOD);
        }
    });
    all_answered_once(&fleet, &calls);
    for trunk in ["a-pbx-1", "a-pbx-2"] {
        let why = why(&fleet, trunk);
        let now_ms = wall_ms();
        let trips: Vec<i128> = (why["history"].as_array().unwrap().iter())
            .filter(|change| change["to"] == "tripped" && change["from"] != "tripped")
            .map(|change| now_ms - i128::from(change["ago_ms"].as_u64().unwrap()))
            .collect();
        let level = why["back_off_level"].as_u64().unwrap();
        println!("{trunk}: {} trips, back-off {} ms, {}", trips.len(), why["back_off_ms"], why["sentence"]);
        assert!(level >= 2, "the back-off has grown: {why}");
        assert!(["tripped", "probation"].contains(&why["state"].as_str().unwrap()), "{why}");
    }
    // The second trip of the carrier's first trunk: from then on no call meets the other phase.
    let second = second_trip(&fleet.plane.trunks().unwrap(), |name| why(&fleet, name), wall_ms());
    let lost: Vec<i128> =
        failed_over(&calls, "a").into_iter().filter(|began| *began > second + 500).collect();
    assert!(lost.is_empty(), "attempts that began {lost:?}, second trip {second}");
    let last = calls.last().map_or(0, |call| at_ms(&call["created_at"]));
    assert!(last > second, "calls went on after it");
    // Still: it is steady, and it comes back without an operator.
    let states = states_during(&fleet, "a-pbx-1", Duration::from_secs(1));
    assert!(!states.contains(&"unknown".to_owned()), "{states:?}");
}

/// When the later of the carrier's trunks had tripped twice.
fn second_trip(trunks: &[Value], why: impl Fn(&str) -> Value, now_ms: i128) -> i128 {
    let second = |name: &str| {
        let why = why(name);
        let mut trips: Vec<i128> = (why["history"].as_array().unwrap().iter())
            .filter(|change| change["to"] == "tripped")
            .map(|change| now_ms - i128::from(change["ago_ms"].as_u64().unwrap()))
            .collect();
        trips.sort_unstable();
        *trips.get(1).unwrap_or_else(|| panic!("{name} tripped less than twice: {why}"))
    };
    let names =
        trunks.iter().filter(|trunk| trunk["carrier"] == "a").map(|trunk| trunk["name"].as_str().unwrap());
    names.map(second).max().unwrap()
}
