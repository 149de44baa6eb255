//! The fault list, as the trunk machine lives it.

use super::*;
use EndingClass as C;

#[test]
fn a_cable_pulled_and_put_back_costs_seconds() {
    let mut p = Played::new();
    p.feed(&Event::Reachable(None));
    let trip = p.feed(&Event::Unreachable).unwrap();
    assert_eq!((trip.from, trip.to), (TrunkState::Healthy, TrunkState::Tripped));
    assert_eq!(trip.evidence, Evidence::ContactUnreachable);
    assert_eq!(p.standing(1), Err(Refusal::Tripped));
    // An hour without news is no new evidence: the back-off does not grow.
    assert_eq!(p.wait_s(3_600), TrunkState::Tripped);
    // Nor is the old news, told by a snapshot every 2 s.
    for _ in 0..100 {
        p.feed(&Event::Unreachable);
        p.wait_s(2);
    }
    assert_eq!(p.level(), 1);
    p.feed(&Event::Reachable(None));
    assert_eq!(p.wait_s(6), TrunkState::Probation);
    assert_eq!(p.standing(1), Ok(Standing::Preferred));
    assert_eq!(p.wait_s(31), TrunkState::Healthy, "no call had failed: facts that hold are enough");
}

#[test]
fn options_answered_and_invites_dropped_is_never_healthy_by_options() {
    let mut p = Played::new();
    p.feed(&Event::Reachable(None));
    assert_eq!(p.ends(1, 1, C::CarrierSilent), TrunkState::Tripped);
    let why = p.trunk.why(p.now);
    assert_eq!(why.cause, Some(Cause::CarrierSilent));
    for _ in 0..1_000 {
        p.feed(&Event::Reachable(None));
        p.feed(&Event::Unreachable);
        p.feed(&Event::Reachable(None));
        let state = p.wait_s(15);
        assert!(matches!(state, TrunkState::Tripped | TrunkState::Probation), "{state}");
    }
    p.feed(&Event::Reachable(None));
    p.wait_s(2_000);
    assert_eq!(p.trunk.state(), TrunkState::Probation);
    assert!(p.trunk.why(p.now).sentence.contains("OPTIONS do not count"));
    for n in 0..5 {
        assert_eq!(p.trunk.state(), TrunkState::Probation);
        p.ends(1, n, C::Answered);
    }
    assert_eq!(p.trunk.state(), TrunkState::Healthy);
}

#[test]
fn a_black_hole_behind_a_carrier_that_answers_others_takes_nothing_from_them() {
    let mut p = Played::new();
    p.feed(&Event::Reachable(None));
    let silent = p.call(org(1), 1, C::CarrierSilent);
    p.now += Duration::from_secs(3);
    p.feed(&Event::Rang { destination: to(2), began: p.now });
    p.now += Duration::from_secs(4);
    p.feed(&Event::Ended(silent));
    assert_eq!(p.trunk.state(), TrunkState::Healthy);
    // On an idle trunk the first silence cannot be told from a deaf carrier; the next one can.
    let mut p = Played::new();
    assert_eq!(p.ends(1, 1, C::CarrierSilent), TrunkState::Tripped);
    p.wait_s(6);
    for n in 2..7 {
        p.wait_s(1);
        p.ends(2, n, C::Answered);
    }
    assert_eq!(p.trunk.state(), TrunkState::Healthy);
    for _ in 0..3 {
        p.wait_s(60);
        assert_eq!(p.ends(1, 1, C::CarrierSilent), TrunkState::Healthy);
    }
    assert_eq!(p.standing(1), Err(Refusal::DestinationSuspended));
    assert_eq!(p.standing(2), Ok(Standing::Preferred));
}

#[test]
fn a_flapping_carrier_settles_in_tripped_with_growing_back_off() {
    let mut p = Played::new();
    let (mut trips, mut levels, mut usable_after_second) = (0, vec![], 0);
    for _ in 0..600 {
        p.feed(&Event::Reachable(None));
        for _ in 0..3 {
            p.wait_s(1);
            usable_after_second += u32::from(trips >= 2 && p.standing(1).is_ok());
        }
        trips += u32::from(p.feed(&Event::Unreachable).is_some_and(|t| t.to == TrunkState::Tripped));
        for _ in 0..3 {
            p.wait_s(1);
            usable_after_second += u32::from(trips >= 2 && p.standing(1).is_ok());
        }
        levels.push(p.level());
    }
    assert_eq!(p.trunk.state(), TrunkState::Tripped);
    assert!(levels.is_sorted() && levels[599] >= 7, "{levels:?}");
    assert_eq!(usable_after_second, 0);
    assert_eq!(p.trunk.why(p.now).back_off_ms, 600_000);
    assert!(p.trunk.why(p.now).history.len() <= Policy::default().history_max);
    // It stops flapping: probation, service, and each ten calls forgive a step.
    p.feed(&Event::Reachable(None));
    p.wait_s(2_000);
    assert_eq!(p.trunk.state(), TrunkState::Healthy);
    let level = p.level();
    p.wait_s(86_400);
    assert_eq!(p.level(), level, "time forgives nothing");
    for n in 0..10 {
        p.ends(1, n, C::Answered);
    }
    assert_eq!(p.level(), level - 1);
}

#[test]
fn from_the_second_trip_on_the_contact_must_have_held() {
    let mut p = Played::new();
    p.feed(&Event::Unreachable);
    p.wait_s(5);
    p.feed(&Event::Reachable(None));
    assert_eq!(p.wait_s(2), TrunkState::Probation, "the first time it is believed at once");
    p.feed(&Event::Unreachable);
    // Still down when the second back-off (10 to 12 s) ends: no flap, and no growth.
    p.wait_s(30);
    p.feed(&Event::Reachable(None));
    assert_eq!((p.wait_s(9), p.level()), (TrunkState::Tripped, 2));
    assert_eq!(p.wait_s(4), TrunkState::Probation);
}

#[test]
fn a_call_that_fails_while_it_is_tripped_for_its_contact_is_evidence_too() {
    let mut p = Played::new();
    p.feed(&Event::Unreachable);
    p.wait_s(1);
    p.ends(1, 1, C::CarrierSilent);
    assert_eq!(p.trunk.why(p.now).cause, Some(Cause::CarrierSilent));
    p.feed(&Event::Reachable(None));
    assert_eq!((p.wait_s(600), p.level()), (TrunkState::Probation, 2));
}

#[test]
fn one_customers_barred_numbers_are_suspended_for_that_trunk_and_trip_nothing() {
    for class in [C::Forbidden, C::Congestion] {
        let mut p = Played::new();
        p.feed(&Event::Reachable(None));
        for round in 0..40 {
            let barred = round % 8;
            if p.standing(barred).is_ok() {
                p.ends(1, barred, class);
            }
            assert_ne!(p.trunk.state(), TrunkState::Tripped);
            if round % 4 == 0 {
                p.ends(2, 100, C::RingTimeout);
            }
            p.wait_s(2);
        }
        assert_eq!(p.standing(3), Err(Refusal::DestinationSuspended), "{class}");
        assert!(p.standing(100).is_ok());
        let why = p.trunk.why(p.now);
        assert!(
            !why.suspensions.is_empty() && why.sentence.contains("no calls to +48003 for"),
            "{}",
            why.sentence
        );
    }
}

#[test]
fn a_403_for_a_caller_id_that_others_do_not_share_suspends_the_caller_id() {
    let mut p = Played::new();
    let refused = |p: &Played, n, class| Call { caller: Some(number(900)), ..p.call(org(1), n, class) };
    p.ends(2, 1, C::Answered);
    p.ends(2, 2, C::Answered);
    for n in [1, 2] {
        let call = refused(&p, n, C::Forbidden);
        p.feed(&Event::Ended(call));
    }
    let asks = |caller: u32| p.trunk.standing(p.now, &to(1), Some(&number(caller))).map_err(|w| w.why);
    assert_eq!(asks(900), Err(Refusal::CallerIdSuspended));
    assert_eq!(asks(901), Ok(Standing::Preferred));
}

#[test]
fn several_customers_and_destinations_trip() {
    let mut p = Played::new();
    p.feed(&Event::Reachable(None));
    assert_eq!(p.ends(1, 1, C::Congestion), TrunkState::Healthy);
    assert_eq!(p.ends(1, 2, C::CarrierError), TrunkState::Healthy);
    assert_eq!(p.ends(2, 3, C::CarrierTimeout), TrunkState::Tripped);
    let sentence = p.trunk.why(p.now).sentence;
    assert!(
        sentence.contains("the carrier failed 3 of 3 calls, to 3 destinations of 2 customers"),
        "{sentence}"
    );
}

#[test]
fn half_of_the_calls_failing_degrades_and_does_not_trip() {
    let mut p = Played::new();
    p.feed(&Event::Reachable(None));
    let mut degraded = 0;
    for n in 0..400_u32 {
        let class = if n % 2 == 0 { C::Answered } else { C::Congestion };
        p.ends(u64::from(n % 3), n % 7, class);
        p.wait_s(1);
        degraded += u32::from(p.trunk.state() == TrunkState::Degraded);
        assert_ne!(p.trunk.state(), TrunkState::Tripped);
    }
    assert!(degraded > 350, "{degraded}");
    assert_eq!(p.trunk.why(p.now).strains, [Strain::FewGetThrough]);
    // No call any more: it gets another chance.
    assert_eq!(p.wait_s(700), TrunkState::Healthy);
}

#[test]
fn a_503_among_successes_asks_for_half_the_pace() {
    let mut p = Played::new();
    for n in 0..8 {
        p.ends(1, n % 2, C::Answered);
    }
    let call = p.call(org(1), 1, C::Congestion);
    let handled = p.trunk.handle(p.now, &Event::Ended(call), AROUND, &mut p.rng);
    assert_eq!(handled.charge, Charge::Pace);
}

#[test]
fn calls_that_began_before_the_trip_say_nothing_after_it() {
    let mut p = Played::new();
    let (old_good, old_bad) = (p.call(org(1), 1, C::Answered), p.call(org(2), 2, C::Congestion));
    p.now += Duration::from_secs(1);
    p.feed(&Event::Unreachable);
    p.feed(&Event::Reachable(None));
    p.feed(&Event::Ended(old_good));
    assert_eq!(p.trunk.state(), TrunkState::Tripped);
    p.wait_s(7);
    p.feed(&Event::Ended(old_bad));
    assert_eq!((p.trunk.state(), p.level()), (TrunkState::Probation, 1));
}

#[test]
fn probation_ramps_up_with_what_gets_through() {
    let mut p = Played::new();
    p.ends(1, 1, C::CarrierSilent);
    p.wait_s(7);
    for allowed in [1, 2, 4, 8, 16_u32] {
        let mut sent = 0;
        while p.standing(1).is_ok() {
            p.trunk.sent(p.now);
            sent += 1;
            assert!(sent <= 16);
        }
        assert!(sent <= allowed && sent >= allowed / 2, "{sent} of {allowed}");
        let withheld = p.trunk.standing(p.now, &to(1), None).unwrap_err();
        assert!(withheld.until.is_some_and(|until| until > p.now));
        p.feed(&Event::Rang { destination: to(1), began: p.now });
    }
    assert_eq!(p.trunk.state(), TrunkState::Healthy);
}

/// It was reserved, and another limit kept it from leaving.
#[test]
fn a_trial_that_did_not_leave_frees_its_place_at_once() {
    let mut p = Played::new();
    p.ends(1, 1, C::CarrierSilent);
    p.wait_s(7);
    p.trunk.sent(p.now);
    assert_eq!(p.standing(1), Err(Refusal::TrialsUnderWay));
    p.trunk.not_sent();
    assert!(p.standing(1).is_ok());
    p.trunk.not_sent();
    p.trunk.sent(p.now);
    assert_eq!(p.standing(1), Err(Refusal::TrialsUnderWay));
}

#[test]
fn a_trial_that_rang_counts_once_and_a_lost_one_frees_its_place() {
    let mut p = Played::new();
    p.ends(1, 1, C::CarrierSilent);
    p.wait_s(7);
    p.trunk.sent(p.now);
    p.feed(&Event::Rang { destination: to(1), began: p.now });
    let call = p.call(org(1), 1, C::Answered);
    p.feed(&Event::Ended(call));
    assert!(p.trunk.why(p.now).sentence.contains("1 of 5 calls got through"));
    p.trunk.sent(p.now);
    p.trunk.sent(p.now);
    assert_eq!(p.standing(1), Err(Refusal::TrialsUnderWay));
    p.wait_s(41);
    assert!(p.standing(1).is_ok());
}

#[test]
fn where_there_is_a_canary_it_goes_first_and_customers_only_if_it_does_not_come() {
    let mut p = Played::new();
    p.trunk.set_canary(CanaryPlan::Configured);
    p.ends(1, 1, C::CarrierSilent);
    p.wait_s(7);
    assert!(p.trunk.wants_canary(p.now));
    assert_eq!(p.standing(1), Err(Refusal::TrialsUnderWay));
    let mut waited = p.clone();
    waited.wait_s(16);
    assert!(!waited.trunk.wants_canary(waited.now) && waited.standing(1).is_ok());
    let canary = p.call(Party::Canary, 9, C::UserBusy);
    p.feed(&Event::Canary(canary, Met::AsExpected));
    assert!(!p.trunk.wants_canary(p.now) && p.standing(1).is_ok());
}

#[test]
fn two_canaries_in_a_row_trip_unless_customers_get_through() {
    let mut p = Played::new();
    p.feed(&Event::Reachable(None));
    let fails = |p: &mut Played| {
        p.wait_s(1);
        let canary = p.call(Party::Canary, 9, C::Congestion);
        p.feed(&Event::Canary(canary, Met::Otherwise));
        p.trunk.state()
    };
    assert_eq!(fails(&mut p), TrunkState::Healthy);
    p.wait_s(1);
    p.ends(1, 1, C::Answered);
    assert_eq!(fails(&mut p), TrunkState::Healthy);
    assert_eq!(fails(&mut p), TrunkState::Healthy, "others are heard: it is the canary's number");
    let mut p = Played::new();
    assert_eq!(fails(&mut p), TrunkState::Unknown);
    assert_eq!(fails(&mut p), TrunkState::Tripped);
}

#[test]
fn in_panic_a_call_that_gets_through_ends_the_back_off() {
    let mut p = Played::new();
    p.ends(1, 1, C::CarrierSilent);
    p.wait_s(1);
    assert_eq!(p.ends(1, 1, C::RingTimeout), TrunkState::Probation);
}

#[test]
fn calls_that_fail_in_panic_lengthen_the_back_off_and_suspend_nobody() {
    let mut p = Played::new();
    p.ends(1, 1, C::CarrierSilent);
    for _ in 0..3 {
        p.wait_s(1);
        assert_eq!(p.ends(1, 1, C::Congestion), TrunkState::Tripped);
    }
    p.wait_s(30);
    assert_eq!((p.trunk.state(), p.level()), (TrunkState::Probation, 2));
    assert_eq!(p.standing(1), Ok(Standing::Preferred));
}

#[test]
fn at_the_cap_a_trunk_is_degraded_instead_but_facts_still_trip() {
    let mut p = Played::new();
    p.around.ejection = Ejection::CapReached;
    p.feed(&Event::Reachable(None));
    assert_eq!(p.ends(1, 1, C::CarrierSilent), TrunkState::Degraded);
    assert_eq!(p.trunk.why(p.now).strains, [Strain::Spared]);
    assert_eq!(p.standing(1), Ok(Standing::Reserve));
    assert_eq!(p.ends(1, 2, C::Unauthorized), TrunkState::Tripped);
}

#[test]
fn an_operators_hand_ends_a_back_off_but_proves_nothing() {
    let mut p = Played::new();
    p.ends(1, 1, C::CarrierSilent);
    p.feed(&Event::Disable);
    assert_eq!(p.standing(1), Err(Refusal::Disabled));
    p.feed(&Event::Enable);
    assert_eq!(p.trunk.state(), TrunkState::Probation);
    p.feed(&Event::Reachable(None));
    assert_eq!(p.wait_s(600), TrunkState::Probation);
    p.feed(&Event::Disable);
    p.feed(&Event::Unreachable);
    p.feed(&Event::Enable);
    assert_eq!(p.trunk.state(), TrunkState::Tripped);
}

#[test]
fn a_contact_that_answers_options_and_takes_no_call_is_not_believed_twice() {
    let mut p = Played::new();
    p.feed(&Event::Reachable(None));
    assert_eq!(p.ends(1, 1, C::ContactDown), TrunkState::Tripped);
    assert_eq!(p.wait_s(60), TrunkState::Healthy);
    assert_eq!(p.ends(1, 1, C::ContactDown), TrunkState::Tripped);
    assert_eq!(p.wait_s(600), TrunkState::Probation);
}

#[test]
fn words_of_why_are_plain_json() {
    let mut p = Played::new();
    p.feed(&Event::Reachable(Some(Duration::from_micros(12_345))));
    p.feed(&Event::Unreachable);
    let json = serde_json::to_value(p.trunk.why(p.now)).unwrap();
    assert_eq!(json["state"], "tripped");
    assert_eq!(json["cause"], "contact_unreachable");
    assert_eq!(json["history"][1]["sentence"], "its contact answers OPTIONS in 12.3 ms");
    assert_eq!(json["history"][0]["evidence"]["kind"], "contact_unreachable");
    assert_eq!(
        json["sentence"],
        "tripped for 0 s: its contact does not answer OPTIONS; in 5 s probation, unless contact_unreachable holds"
    );
}
