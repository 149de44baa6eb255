//! Spread, failover, and what is never tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::{Behaviour, Plan, numbers, wait_until};
use serde_json::json;

use crate::fixture::{Fleet, at_ms, attempts, diagonal, end, full};

#[test]
fn a_hundred_calls_are_spread_evenly_over_trunks_and_carriers() {
    spread_evenly(&Fleet::up(full()));
}

pub(crate) fn spread_evenly(fleet: &Fleet) {
    let numbers: Vec<_> = (0..100).map(|n| numbers::number(numbers::ANSWER, n)).collect();
    let ids: Vec<_> = numbers.iter().map(|to| fleet.place(to, json!({}))).collect();
    let mut by_trunk: BTreeMap<String, u32> = BTreeMap::new();
    for id in &ids {
        let call = fleet.ended(id);
        assert_eq!(end(&call), "completed/played/answered", "{call}");
        assert_eq!(attempts(&call, "rang"), ["yes"]);
        *by_trunk.entry(attempts(&call, "trunk")[0].to_owned()).or_default() += 1;
    }
    assert_eq!(by_trunk.len(), 4, "{by_trunk:?}");
    assert!(by_trunk.values().all(|calls| (24..=26).contains(calls)), "{by_trunk:?}");
    for carrier in ["a", "b"] {
        let seen = fleet.seen(carrier).total();
        let placed: u32 =
            by_trunk.iter().filter(|(trunk, _)| trunk.starts_with(carrier)).map(|(_, n)| n).sum();
        assert_eq!((seen.invites, seen.rings, seen.answers), (placed, placed, placed), "carrier {carrier}");
    }
    let truth = fleet.truth();
    assert!(numbers.iter().all(|to| truth.invites(to) == 1), "each phone was called once");
}

#[test]
fn with_a_carrier_that_answers_503_every_call_is_answered_through_the_other() {
    let fleet = Fleet::up(full());
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Code(503)).unwrap();
    let ids: Vec<_> = (0..40).map(|n| fleet.place(&numbers::number(numbers::ANSWER, n), json!({}))).collect();
    let mut placed = BTreeMap::from([("a".to_owned(), 0), ("b".to_owned(), 0)]);
    for id in &ids {
        let call = fleet.ended(id);
        assert_eq!(end(&call), "completed/played/answered", "{call}");
        let (carriers, nodes, reasons) =
            (attempts(&call, "carrier"), attempts(&call, "node"), attempts(&call, "reason"));
        if carriers.len() == 2 {
            assert_eq!((carriers[0], carriers[1]), ("a", "b"));
            assert_ne!(nodes[0], nodes[1], "failover goes to a different PBX");
            assert_eq!(reasons, ["congestion", "answered"]);
            assert_eq!(call["attempts"][0]["sip_code"], 503);
        } else {
            assert_eq!(carriers, ["b"]);
        }
        carriers.iter().for_each(|carrier| *placed.get_mut(*carrier).unwrap() += 1);
    }
    // Half of the calls would meet it, were it not spared for this destination after two failures on each trunk.
    assert!((2..=12).contains(&placed["a"]), "{placed:?}");
    assert_eq!(placed["b"], 40);
    let (a, b) = (fleet.seen("a").total(), fleet.seen("b").total());
    assert_eq!((a.invites, a.answers, a.finals.get(&503).copied()), (placed["a"], 0, Some(placed["a"])));
    assert_eq!((b.invites, b.answers), (40, 40));
}

#[test]
fn what_the_callee_did_is_never_dialled_again() {
    let fleet = Fleet::up(full());
    let rows = [
        (numbers::BUSY, "busy/user_busy/not_reached", "no"),
        (numbers::RING_THEN_486, "busy/user_busy/not_reached", "yes"),
        (numbers::DECLINED, "busy/declined/not_reached", "no"),
        (480, "no_answer/unreachable/not_reached", "no"),
        (404, "failed/invalid_number/not_reached", "no"),
        (numbers::RING_THEN_503, "no_answer/ring_timeout/not_reached", "yes"),
        (numbers::RING, "no_answer/ring_timeout/not_reached", "yes"),
        (numbers::ANSWER_AND_HANG_UP, "completed/played/answered", "yes"),
    ];
    let each = 4;
    let mut placed = Vec::new();
    for (behaviour, expected, rang) in rows {
        for n in 0..each {
            let to = numbers::number(behaviour, n);
            let id = fleet
                .place(&to, json!({"ring_timeout_s": 3, "message": {"audio_id": "builtin:demo-congrats"}}));
            placed.push((to, id, expected, rang));
        }
    }
    let mut dialled = Vec::new();
    for (to, id, expected, rang) in placed {
        let call = fleet.ended(&id);
        assert_eq!(end(&call), expected, "{to}: {call}");
        assert_eq!(attempts(&call, "rang"), [rang], "{to}: {call}");
        dialled.push(to);
    }
    let truth = fleet.truth();
    assert!(dialled.iter().all(|to| truth.invites(to) == 1), "each was dialled once: {dialled:?}");
    let rung_out = |carrier: &str| {
        fleet
            .seen(carrier)
            .by_number
            .iter()
            .filter(|(number, _)| number.starts_with("4822180"))
            .map(|(_, seen)| seen.cancels)
            .sum::<u32>()
    };
    assert_eq!(rung_out("a") + rung_out("b"), u32::from(each), "every phone that rang out was silenced");
}

#[test]
fn a_trunk_whose_contact_is_down_is_left_at_once() {
    let fleet = Fleet::up(diagonal());
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Dead).unwrap();
    let pbx = fleet.lab.pbx("pbx-1").unwrap();
    let gone = || pbx.console("pjsip show contacts").is_ok_and(|text| text.contains("Unavail"));
    wait_until("pbx-1 to notice", Duration::from_secs(15), "pjsip show contacts", gone).unwrap();
    // All at once: the control plane hears of the contact at the same moment.
    let ids: Vec<_> = std::thread::scope(|scope| {
        let place = |n| fleet.place(&numbers::number(numbers::ANSWER, n), json!({"on_unknown": "fail"}));
        let placing: Vec<_> = (0..10).map(|n| scope.spawn(move || place(n))).collect();
        placing.into_iter().map(|placing| placing.join().unwrap()).collect()
    });
    let mut left = 0;
    for id in ids {
        let call = fleet.ended(&id);
        assert_eq!(end(&call), "completed/played/answered", "{call}");
        let reasons = attempts(&call, "reason");
        assert_eq!(reasons.last(), Some(&"answered"));
        if reasons.len() == 2 {
            assert_eq!((reasons[0], attempts(&call, "rang")[0]), ("contact_down", "no"));
            let gap = at_ms(&call["attempts"][1]["started_at"]) - at_ms(&call["attempts"][0]["started_at"]);
            assert!(gap < 500, "left after {gap} ms");
            left += 1;
        }
    }
    // How many is a race with health, which spares the rest as soon as it knows: two on a busy machine, five on a quick one.
    assert!(left >= 1, "no call met the dead trunk");
    assert_eq!(fleet.seen("a").total().invites, 0);
}

#[test]
fn a_carrier_name_with_two_addresses_never_rings_twice() {
    let fleet = Fleet::up(Plan { srv_trunk: true, ..diagonal() });
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Srv).unwrap();
    let trunks = fleet.plane.trunks().unwrap();
    let by_name: Vec<_> = trunks.iter().filter(|trunk| trunk["endpoint"] == "carrier-a-srv").collect();
    assert_eq!(by_name.len(), 2, "{trunks:?}");
    for trunk in by_name {
        assert!(trunk["finding"].is_string(), "{trunk}");
        assert!(trunk["reason"].as_str().unwrap().contains("is a name"), "{trunk}");
    }
    let ids: Vec<_> = (0..12)
        .map(|n| fleet.place(&numbers::number(numbers::ANSWER, n), json!({"failover": {"attempts_max": 10}})))
        .collect();
    for id in ids {
        let call = fleet.ended(&id);
        assert!(attempts(&call, "trunk").iter().all(|trunk| !trunk.starts_with("srv")), "{call}");
    }
    let truth = fleet.truth();
    for n in 0..12 {
        let to = numbers::number(numbers::ANSWER, n);
        assert!(truth.reached(&to) <= 1, "{to} was reached {} times", truth.reached(&to));
    }
}
