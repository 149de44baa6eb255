//! Silence: what nobody can know, and the customer's choice of what follows it.

use lab::{Behaviour, numbers};
use serde_json::{Value, json};

use crate::fixture::{Fleet, attempts, diagonal, end};

/// Places calls until one has met carrier a first under each choice, and gives those two.
fn met_a(fleet: &Fleet, more: &Value) -> [(String, Value); 2] {
    let place = |choice: &str, n: u16| {
        let to = numbers::number(numbers::ANSWER, n);
        let mut more = more.clone();
        more["on_unknown"] = choice.into();
        let id = fleet.place(&to, more);
        (to, id)
    };
    // Round robin over two trunks: of two calls in a row one meets a first.
    let placed: Vec<_> =
        ["retry", "retry", "fail", "fail"].iter().zip(0..).map(|(c, n)| (*c, place(c, n))).collect();
    let ended: Vec<_> = placed.into_iter().map(|(c, (to, id))| (c, to, fleet.ended(&id))).collect();
    ["retry", "fail"].map(|choice| {
        let met = ended.iter().find(|(c, _, call)| *c == choice && attempts(call, "carrier")[0] == "a");
        let (_, to, call) = met.unwrap_or_else(|| panic!("no call with {choice} met carrier a: {ended:?}"));
        (to.clone(), call.clone())
    })
}

#[track_caller]
fn left_as_asked(fleet: &Fleet, [retry, fail]: [(String, Value); 2], reason: &str, rang_at_a: u32) {
    assert_eq!(end(&retry.1), "completed/played/answered", "{}", retry.1);
    assert_eq!(attempts(&retry.1, "reason"), [reason, "answered"]);
    assert_eq!(attempts(&retry.1, "carrier"), ["a", "b"]);
    assert_eq!(fleet.seen("b").of(&retry.0).answers, 1);

    assert_eq!(end(&fail.1), "failed/outcome_unknown/unknown", "{}", fail.1);
    assert_eq!(attempts(&fail.1, "reason"), [reason]);
    assert_eq!(fleet.seen("b").of(&fail.0).invites, 0, "with `fail` nobody else was asked");
    let at_a = fleet.seen("a").of(&fail.0);
    assert_eq!((at_a.invites, at_a.rings), (1, rang_at_a));
}

#[test]
fn a_silent_carrier_is_left_by_timer_b() {
    silent(&Fleet::up(diagonal()));
}

pub(crate) fn silent(fleet: &Fleet) {
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Silent).unwrap();
    let met = met_a(fleet, &json!({"progress_timeout_s": 20}));
    for (_, call) in &met {
        assert_eq!(
            (&call["attempts"][0]["q850"], attempts(call, "rang")[0]),
            (&json!(18), "maybe"),
            "{call}"
        );
        let took = crate::fixture::at_ms(&call["attempts"][0]["ended_at"])
            - crate::fixture::at_ms(&call["attempts"][0]["started_at"]);
        assert!((6_000..8_000).contains(&took), "Timer B is 6.4 s, it took {took} ms");
    }
    left_as_asked(fleet, met, "carrier_silent", 0);
}

#[test]
fn a_carrier_whose_answers_are_lost_may_have_rung() {
    deaf(&Fleet::up(diagonal()));
}

pub(crate) fn deaf(fleet: &Fleet) {
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Deaf).unwrap();
    let met = met_a(fleet, &json!({"progress_timeout_s": 20}));
    left_as_asked(fleet, met, "carrier_silent", 1);
}

#[test]
fn a_carrier_that_says_trying_and_no_more_is_left_by_the_progress_timeout() {
    let fleet = Fleet::up(diagonal());
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Trying).unwrap();
    let met = met_a(&fleet, &json!({"progress_timeout_s": 2}));
    for (_, call) in &met {
        let took = crate::fixture::at_ms(&call["attempts"][0]["ended_at"])
            - crate::fixture::at_ms(&call["attempts"][0]["started_at"]);
        assert!((2_000..3_000).contains(&took), "asked for 2 s, it took {took} ms");
    }
    left_as_asked(&fleet, met, "no_progress", 0);
    assert!(fleet.seen("a").total().cancels >= 2, "what was left is cancelled");
}
