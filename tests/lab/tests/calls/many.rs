//! A thousand calls in flight on one AMI session.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::{Plan, numbers, wait_until};
use serde_json::{Value, json};

use crate::fixture::{Fleet, attempts, diagonal, end};

/// Behaviour, calls, what to add to the request, how they must end.
type Row = (u16, u16, Value, &'static str);

#[test]
fn a_thousand_calls_in_flight_end_as_their_carrier_saw_them() {
    // One session placed them all, one watched.
    in_flight(&Fleet::up(one_pbx()), 2);
}

/// One PBX and one carrier, with room for a thousand calls a second.
pub(crate) fn one_pbx() -> Plan {
    Plan { pbxes: 1, carriers: 1, trunk_cps_max: 1_000, ..diagonal() }
}

pub(crate) fn in_flight(fleet: &Fleet, sessions: usize) {
    // Long enough for a slow machine to place them all meanwhile.
    let patient = json!({"progress_timeout_s": 40, "ring_timeout_s": 30, "on_unknown": "fail"});
    let rows: [Row; 8] = [
        (numbers::RING, 600, patient.clone(), "no_answer/ring_timeout/not_reached"),
        (
            numbers::TRYING,
            200,
            json!({"progress_timeout_s": 30, "on_unknown": "fail"}),
            "failed/outcome_unknown/unknown",
        ),
        (numbers::SILENT, 150, patient.clone(), "failed/outcome_unknown/unknown"),
        (
            numbers::ANSWER,
            250,
            json!({"message": {"audio_id": "builtin:demo-congrats"}, "time_limit_s": 60}),
            "completed/played/answered",
        ),
        (numbers::BUSY, 100, json!({}), "busy/user_busy/not_reached"),
        (numbers::DECLINED, 100, json!({}), "busy/declined/not_reached"),
        (numbers::UNAVAILABLE, 100, json!({}), "failed/trunk_unavailable/not_reached"),
        (numbers::RING_THEN_486, 100, json!({}), "busy/user_busy/not_reached"),
    ];
    let wanted: Vec<_> = rows
        .iter()
        .flat_map(|(behaviour, calls, more, expected)| {
            (0..*calls).map(move |n| (numbers::number(*behaviour, n), more, *expected))
        })
        .collect();
    // Eight customers at once, so that the last is placed before the first has rung out.
    let placed: Vec<_> = std::thread::scope(|scope| {
        let customers: Vec<_> = wanted
            .chunks(wanted.len().div_ceil(8))
            .map(|share| {
                let place = |(to, more, expected): &(String, &Value, &'static str)| {
                    (to.clone(), fleet.place(to, (*more).clone()), *expected)
                };
                scope.spawn(move || share.iter().map(place).collect::<Vec<_>>())
            })
            .collect();
        customers.into_iter().flat_map(|customer| customer.join().unwrap()).collect()
    });
    // Those that ring out and are silent are all under way when the last one is placed.
    let open = || fleet.plane.metric("ringward_trunk_channels", &["a-pbx-1"]).unwrap_or(0.0);
    let mut most = 0.0_f64;
    wait_until("1,000 calls in flight", Duration::from_secs(10), "ringward_trunk_channels", || {
        most = most.max(open());
        most >= 1_000.0
    })
    .unwrap_or_else(|error| panic!("at most {most} at a time: {error}"));

    let mut wrong = Vec::new();
    let mut ended = BTreeMap::new();
    for (to, id, expected) in &placed {
        let call = fleet.ended(id);
        if end(&call) != *expected || attempts(&call, "id").len() != 1 {
            wrong.push(format!("{to}: {call}"));
        }
        ended.insert(to.clone(), call);
    }
    assert!(wrong.is_empty(), "{} of {}: {}", wrong.len(), placed.len(), wrong[0]);

    let seen = fleet.seen("a");
    for (to, _, expected) in &placed {
        let of = seen.of(to);
        assert_eq!(of.invites, 1, "{to}: {of:?}");
        let truth = match (of.answers, of.finals.keys().next(), of.rings) {
            (1, _, _) => "completed/played/answered",
            (_, Some(486), _) => "busy/user_busy/not_reached",
            (_, Some(603), _) => "busy/declined/not_reached",
            (_, Some(503), _) => "failed/trunk_unavailable/not_reached",
            (_, _, 1) => "no_answer/ring_timeout/not_reached",
            _ => "failed/outcome_unknown/unknown",
        };
        assert_eq!(truth, *expected, "{to}: {of:?}");
    }
    let text = std::fs::read_to_string(fleet.plane.log()).unwrap();
    assert_eq!(text.matches("AMI session is up").count(), sessions, "no session was lost");
    println!("{} calls, at most {most} in flight on one AMI session", placed.len());
}
