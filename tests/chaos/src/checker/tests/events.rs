//! Webhooks: what was told of each step.
use super::*;

/// A good call whose events were posted as they should.
fn told() -> History {
    let history = good(OnUnknown::Retry);
    History { posted: posted(&history.told), ..history }
}

#[test]
fn every_step_but_the_acceptance_is_told() {
    as_posted(&told(), &[]);
    let verdict = check(&told());
    assert_eq!((verdict.posted, verdict.finished), (4, 1));
    for step in 0..3 {
        let mut history = told();
        history.posted.remove(step);
        // What follows it was not to be sent.
        as_posted(&history, &[Rule::Untold, Rule::OutOfOrder]);
    }
    // The end: its step, and the end itself.
    let mut history = told();
    history.posted.pop();
    as_posted(&history, &[Rule::Untold, Rule::Untold]);
    // Refused, and never sent again.
    let mut history = told();
    history.posted[3].taken_at = None;
    as_posted(&history, &[Rule::Untold]);
    history.posted.clear();
    as_posted(&history, &[Rule::Untold; 4]);
}

#[test]
fn a_call_that_waits_for_a_round_without_an_attempt_is_not_told() {
    let mut history = told();
    history.told[0].log.push(Entry { sequence: 6, status: CallStatus::Queued, of_attempt: false });
    history.told[0].log.push(Entry { sequence: 7, status: CallStatus::Completed, of_attempt: false });
    history.told[0].log[4].status = CallStatus::InProgress;
    history.told[0].sequence = 7;
    history.posted = posted(&history.told);
    let end = Posted {
        id: "evt_7".into(),
        sequence: 7,
        kind: "call.finished".into(),
        status: Some(CallStatus::Completed),
        at: s(9),
        taken_at: Some(s(9)),
        ..history.posted[3].clone()
    };
    history.posted.push(end);
    as_posted(&history, &[]);
    history.posted[4].sequence = 6;
    as_posted(&history, &[Rule::Untold, Rule::ToldWrong]);
}

#[test]
fn the_same_event_may_come_again_as_the_same_bytes() {
    let mut history = told();
    let again = Posted { at: s(9), taken_at: Some(s(9)), ..history.posted[1].clone() };
    history.posted.push(again);
    as_posted(&history, &[]);
    history.posted[4].body += 1;
    as_posted(&history, &[Rule::ToldWrong]);
}

#[test]
fn a_step_comes_once_the_one_before_was_taken() {
    let mut history = told();
    history.posted[1].at = s(9);
    history.posted[1].taken_at = Some(s(9));
    as_posted(&history, &[Rule::OutOfOrder]);
    // Refused at first: what follows waits for the second try.
    let mut history = told();
    let second = Posted { at: s(9), taken_at: Some(s(9)), ..history.posted[1].clone() };
    history.posted[1].taken_at = None;
    history.posted.push(second);
    as_posted(&history, &[Rule::OutOfOrder]);
    (history.posted[2].at, history.posted[2].taken_at) = (s(10), Some(s(10)));
    (history.posted[3].at, history.posted[3].taken_at) = (s(11), Some(s(11)));
    as_posted(&history, &[]);
}

#[test]
fn a_step_has_one_id_and_a_call_one_end() {
    let mut history = told();
    history.posted.push(Posted { id: "evt_other".into(), ..history.posted[1].clone() });
    as_posted(&history, &[Rule::ToldTwice]);
    let mut history = told();
    history.posted.push(Posted { id: "evt_other".into(), ..history.posted[3].clone() });
    as_posted(&history, &[Rule::ToldTwice, Rule::ToldTwice]);
}

#[test]
fn what_an_event_says_is_what_the_api_says() {
    let mut history = told();
    history.posted[3].status = Some(CallStatus::Failed);
    as_posted(&history, &[Rule::ToldWrong, Rule::ToldWrong]);
    let mut history = told();
    history.posted[0].status = Some(CallStatus::Ringing);
    as_posted(&history, &[Rule::ToldWrong]);
    let mut history = told();
    history.posted.push(Posted { sequence: 17, at: s(20), ..history.posted[1].clone() });
    as_posted(&history, &[Rule::ToldWrong]);
    history.posted[4].call = "call_of_nobody".into();
    as_posted(&history, &[Rule::ToldWrong]);
}

#[test]
fn every_event_is_signed() {
    let mut history = told();
    history.posted[2].signed = false;
    as_posted(&history, &[Rule::Unsigned]);
}
