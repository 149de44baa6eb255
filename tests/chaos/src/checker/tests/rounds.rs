//! Redials: how many, how soon, after what, and until when.
use controlplane_core::request::{Redial, RedialOn};

use super::*;

fn redial(on: &[RedialOn], max: u8) -> Option<Redial> {
    Some(Redial { on: on.iter().copied().collect(), max, delay_s: 2 })
}

/// A busy callee who is dialled in two rounds, 2 s apart: from 0 to 1 and from 3 to 4.
fn two_rounds() -> History {
    let mut history = good(OnUnknown::Fail);
    history.asked[0].kind = Kind::Busy;
    history.asked[0].redial = redial(&[RedialOn::Busy], 1);
    let told = &mut history.told[0];
    (told.status, told.reason, told.ended_at) = (CallStatus::Busy, Some(Reason::UserBusy), Some(s(4)));
    told.log = log(&[
        CallStatus::Queued,
        CallStatus::Initiated,
        CallStatus::Queued,
        CallStatus::Initiated,
        CallStatus::Busy,
    ]);
    let first = attempt("pbx-1", "a", EndingClass::UserBusy, Rang::No);
    let second = Attempt {
        id: "att of round 2".into(),
        round: 2,
        started_at: s(3),
        ended_at: Some(s(4)),
        ..first.clone()
    };
    told.attempts = vec![first, second];
    history.seen = vec![dialog("pbx-1", "a", 0, None, Some(486)), dialog("pbx-1", "a", 3, None, Some(486))];
    history
}

/// The same with a phone that rings out: heard in each round.
fn rung_twice() -> History {
    let mut history = two_rounds();
    history.asked[0].kind = Kind::RingsOut;
    history.asked[0].redial = redial(&[RedialOn::NoAnswer], 1);
    let told = &mut history.told[0];
    (told.status, told.reason) = (CallStatus::NoAnswer, Some(Reason::RingTimeout));
    told.log[4].status = CallStatus::NoAnswer;
    for attempt in &mut told.attempts {
        (attempt.ending, attempt.rang) = (Some(EndingClass::RingTimeout), Rang::Yes);
    }
    history.seen =
        vec![dialog("pbx-1", "a", 0, Some(0), Some(487)), dialog("pbx-1", "a", 3, Some(3), Some(487))];
    history
}

#[test]
fn as_many_rounds_as_the_customer_allowed() {
    broken(&two_rounds(), &[]);
    assert_eq!(check(&two_rounds()).redials, 1);
    // Not asked for.
    let mut history = two_rounds();
    history.asked[0].redial = None;
    broken(&history, &[Rule::RoundsOver]);
    // One that was left out.
    let mut history = two_rounds();
    history.asked[0].redial = redial(&[RedialOn::Busy], 2);
    history.told[0].attempts[1].round = 3;
    broken(&history, &[Rule::RoundsOver]);
}

#[test]
fn a_round_comes_after_its_delay() {
    let mut history = two_rounds();
    history.told[0].attempts[1].started_at = s(2);
    broken(&history, &[Rule::RedialEarly]);
    // On the wire, whatever was written.
    let mut history = two_rounds();
    history.seen[1].at = s(2);
    broken(&history, &[Rule::RedialEarly]);
    // What was sent in the first round and held up is no redial.
    let mut history = two_rounds();
    let silent = attempt("pbx-2", "b", EndingClass::NotSent, Rang::No);
    history.told[0].attempts.insert(0, silent);
    history.seen.push(dialog("pbx-2", "b", 2, None, None));
    broken(&history, &[]);
}

#[test]
fn a_round_follows_what_the_customer_named() {
    let mut history = two_rounds();
    history.asked[0].redial = redial(&[RedialOn::NoAnswer], 1);
    broken(&history, &[Rule::DialledAgain]);
    let mut history = two_rounds();
    history.told[0].attempts[0].ending = Some(EndingClass::Declined);
    broken(&history, &[Rule::DialledAgain]);
    // In the same round it is failover's, and never right.
    let mut history = two_rounds();
    history.told[0].attempts[1].round = 1;
    broken(&history, &[Rule::DialledAgain, Rule::NotRedialled]);
    // Interrupted, and then nobody could be had.
    let mut history = two_rounds();
    history.asked[0].redial = redial(&[RedialOn::Interrupted], 1);
    history.told[0].attempts[0].ending = Some(EndingClass::Interrupted);
    broken(&history, &[]);
}

#[test]
fn a_round_that_was_asked_for_comes() {
    let mut history = two_rounds();
    history.asked[0].redial = redial(&[RedialOn::Busy], 2);
    broken(&history, &[Rule::NotRedialled]);
    // But for the deadline.
    history.told[0].deadline_at = s(6);
    broken(&history, &[]);
    assert_eq!(check(&history).hurried, 1);
    // Or a cancel that came too late to be told.
    history.told[0].deadline_at = s(300);
    history.asked[0].canceled = true;
    broken(&history, &[]);
}

#[test]
fn with_fail_a_phone_is_heard_once_a_round() {
    broken(&rung_twice(), &[]);
    let mut history = rung_twice();
    let more = attempt("pbx-2", "b", EndingClass::Unknown, Rang::Maybe);
    history.told[0].attempts.insert(0, more);
    history.seen.push(dialog("pbx-2", "b", 1, Some(1), None));
    broken(&history, &[Rule::RangTwice]);
    history.seen[2].heard_at = None;
    broken(&history, &[Rule::RangTwice]);
    history.asked[0].on_unknown = OnUnknown::Retry;
    broken(&history, &[]);
}

#[test]
fn nothing_is_dialled_once_it_is_over() {
    let mut history = two_rounds();
    history.asked[0].canceled = true;
    history.asked[0].canceled_at = Some(s(1));
    broken(&history, &[Rule::DialledWhenOver]);
    history.asked[0].canceled_at = Some(s(3));
    broken(&history, &[]);

    let mut history = two_rounds();
    history.told[0].deadline_at = s(1);
    broken(&history, &[Rule::DialledWhenOver]);
    history.asked[0].deadline_at = Some(s(5));
    broken(&history, &[Rule::DialledWhenOver, Rule::ToldWrong]);

    let mut history = rung_twice();
    history.asked[0].kind = Kind::Presses;
    history.asked[0].redial = redial(&[RedialOn::AnsweredNoAck], 1);
    let told = &mut history.told[0];
    (told.status, told.reason) = (CallStatus::Completed, Some(Reason::Acknowledged));
    (told.acknowledged, told.log[4].status) = (Some(('1', s(1))), CallStatus::Completed);
    for attempt in &mut told.attempts {
        attempt.ending = Some(EndingClass::Answered);
    }
    history.seen.iter_mut().for_each(|dialog| dialog.code = Some(200));
    history.pressed = vec![Pressed { at: s(1), ..pressed('1') }];
    broken(&history, &[Rule::DialledWhenOver]);
    history.told[0].acknowledged = Some(('1', s(4)));
    history.pressed[0].at = s(4);
    broken(&history, &[]);
}
