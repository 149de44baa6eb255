//! Histories made by hand, each with one thing wrong.
mod events;
mod rounds;

use std::time::Duration;

use controlplane_core::{
    call::{CallStatus, OnUnknown, Rang, Reason},
    ending::EndingClass,
};

use super::{Rule, SETTLE, check};
use crate::{
    faults::{Subject, What},
    history::{Account, Asked, Attempt, Broken, Dialog, Entry, History, Posted, Pressed, Route, Told},
    load::Kind,
};

const NUMBER: &str = "+48222000001";

fn s(seconds: u64) -> Duration {
    Duration::from_secs(1_000 + seconds)
}

fn route(node: &str, carrier: &str) -> Route {
    Route { node: node.into(), carrier: carrier.into() }
}

fn attempt(node: &str, carrier: &str, ending: EndingClass, rang: Rang) -> Attempt {
    Attempt {
        id: format!("att of {node}"),
        route: route(node, carrier),
        ending: Some(ending),
        rang,
        round: 1,
        started_at: s(0),
        ended_at: Some(s(1)),
    }
}

fn dialog(node: &str, carrier: &str, at: u64, heard: Option<u64>, code: Option<u16>) -> Dialog {
    Dialog { route: route(node, carrier), number: NUMBER.into(), at: s(at), heard_at: heard.map(s), code }
}

fn log(statuses: &[CallStatus]) -> Vec<Entry> {
    let entry = |(status, sequence): (&CallStatus, i64)| Entry {
        sequence,
        status: *status,
        of_attempt: sequence > 1,
    };
    statuses.iter().zip(1..).map(entry).collect()
}

/// One call, accepted at 0, answered at 1 by pbx-1 and carrier a, ended at 3.
fn good(on_unknown: OnUnknown) -> History {
    let log = log(&[
        CallStatus::Queued,
        CallStatus::Initiated,
        CallStatus::Ringing,
        CallStatus::InProgress,
        CallStatus::Completed,
    ]);
    History {
        asked: vec![Asked {
            number: NUMBER.into(),
            kind: Kind::Answers,
            on_unknown,
            posts: 1,
            id: Some("call_1".into()),
            canceled: false,
            canceled_at: None,
            redial: None,
            deadline_at: None,
        }],
        told: vec![Told {
            id: "call_1".into(),
            number: NUMBER.into(),
            status: CallStatus::Completed,
            reason: Some(Reason::Played),
            sequence: 5,
            created_at: s(0),
            ended_at: Some(s(3)),
            deadline_at: s(300),
            acknowledged: None,
            attempts: vec![attempt("pbx-1", "a", EndingClass::Answered, Rang::Yes)],
            log,
        }],
        seen: vec![dialog("pbx-1", "a", 1, Some(1), Some(200))],
        pressed: Vec::new(),
        posted: Vec::new(),
        broken: Vec::new(),
        takeovers: Vec::new(),
        accounts: Vec::new(),
        routes: vec![route("pbx-1", "a"), route("pbx-2", "b")],
        left: vec![("pbx-1".into(), 0)],
    }
}

fn fail() -> History {
    good(OnUnknown::Fail)
}

/// One call with `retry` that failed without a ring.
fn unrung() -> History {
    let mut history = good(OnUnknown::Retry);
    let told = &mut history.told[0];
    (told.status, told.reason, told.sequence) = (CallStatus::Failed, Some(Reason::OutcomeUnknown), 3);
    told.log = log(&[CallStatus::Queued, CallStatus::Initiated, CallStatus::Failed]);
    told.attempts = vec![attempt("pbx-1", "a", EndingClass::Unknown, Rang::Maybe)];
    history.seen.clear();
    history
}

/// The events of every step, each taken at once.
fn posted(told: &[Told]) -> Vec<Posted> {
    let event = |told: &Told, entry: &Entry| Posted {
        id: format!("evt_{} of {}", entry.sequence, told.id),
        call: told.id.clone(),
        sequence: entry.sequence,
        kind: if entry.status.is_terminal() { "call.finished" } else { "call.ringing" }.into(),
        status: Some(entry.status),
        body: entry.sequence.unsigned_abs(),
        at: s(entry.sequence.unsigned_abs()),
        taken_at: Some(s(entry.sequence.unsigned_abs())),
        signed: true,
    };
    let of = |told: &Told| {
        let steps: Vec<_> = told.log.iter().filter(|entry| entry.of_attempt).collect();
        steps.into_iter().map(|entry| event(told, entry)).collect::<Vec<_>>()
    };
    told.iter().flat_map(of).collect()
}

/// The rules that a history breaks, in which every step was told.
#[track_caller]
fn broken(history: &History, rules: &[Rule]) {
    let history = History { posted: posted(&history.told), ..history.clone() };
    as_posted(&history, rules);
}

#[track_caller]
fn as_posted(history: &History, rules: &[Rule]) {
    let verdict = check(history);
    let found: Vec<_> = verdict.violations.iter().map(|violation| violation.rule).collect();
    assert_eq!(found, rules, "{:?}", verdict.violations);
}

#[test]
fn a_good_history_is_good() {
    broken(&fail(), &[]);
    broken(&good(OnUnknown::Retry), &[]);
    let verdict = check(&good(OnUnknown::Retry));
    assert_eq!((verdict.retry_judged, verdict.retry_excused, verdict.fail), (1, 0, 0));
}

#[test]
fn an_accepted_call_that_is_gone_is_lost() {
    let mut history = fail();
    history.told.clear();
    broken(&history, &[Rule::Lost, Rule::NotWritten]);
    history.seen.clear();
    broken(&history, &[Rule::Lost]);
    // Without an answer nothing was promised.
    history.asked[0].id = None;
    broken(&history, &[]);
}

#[test]
fn equal_posts_make_one_call() {
    let mut history = fail();
    let mut second = history.told[0].clone();
    second.id = "call_2".into();
    history.told.push(second);
    broken(&history, &[Rule::Doubled]);
    history.asked.clear();
    broken(&history, &[Rule::Doubled, Rule::NotWritten]);
}

#[test]
fn a_log_has_no_gap_and_one_end_which_is_its_last() {
    let mut history = fail();
    history.told[0].log.remove(2);
    broken(&history, &[Rule::LogBroken]);

    let mut history = fail();
    history.told[0].log.push(Entry { sequence: 6, status: CallStatus::Completed, of_attempt: true });
    history.told[0].sequence = 6;
    broken(&history, &[Rule::LogBroken, Rule::ToldTwice]);

    let mut history = fail();
    history.told[0].log.truncate(4);
    broken(&history, &[Rule::LogBroken, Rule::LogBroken, Rule::Untold]);
}

#[test]
fn a_call_ends() {
    let mut history = fail();
    let told = &mut history.told[0];
    (told.status, told.reason, told.ended_at, told.sequence) = (CallStatus::InProgress, None, None, 4);
    told.log.truncate(4);
    broken(&history, &[Rule::NotEnded]);

    let mut history = fail();
    history.told[0].attempts[0].ending = None;
    broken(&history, &[Rule::NotEnded]);
}

#[test]
fn an_invite_needs_its_attempt() {
    let mut history = good(OnUnknown::Retry);
    history.seen.push(dialog("pbx-2", "b", 2, None, None));
    broken(&history, &[Rule::NotWritten]);
    // The same way twice, written once.
    let mut history = good(OnUnknown::Retry);
    history.seen.push(dialog("pbx-1", "a", 2, None, None));
    broken(&history, &[Rule::NotWritten]);
    // Of no call at all.
    let mut history = fail();
    history.seen.push(Dialog { number: "+48222009999".into(), ..dialog("pbx-1", "a", 2, None, None) });
    broken(&history, &[Rule::NotWritten]);
}

#[test]
fn with_fail_a_phone_is_heard_once_at_most() {
    let mut history = fail();
    history.told[0].attempts.insert(0, attempt("pbx-2", "b", EndingClass::Unknown, Rang::Maybe));
    history.seen.push(dialog("pbx-2", "b", 2, Some(2), None));
    broken(&history, &[Rule::RangTwice]);
    // And not dialled once it was heard, though it stays silent there.
    history.seen[1].heard_at = None;
    broken(&history, &[Rule::RangTwice]);
    // Dialled in vain before is failover.
    history.seen[1].at = s(0);
    broken(&history, &[]);
    // With retry all of it is as the customer wished.
    history.asked[0].on_unknown = OnUnknown::Retry;
    history.seen[1] = dialog("pbx-2", "b", 2, Some(2), None);
    broken(&history, &[]);
}

#[test]
fn an_account_has_no_more_channels_and_starts_than_it_allows() {
    let mut history = fail();
    let account = |channels| Account { carrier: "a".into(), cps_max: 2, channels_max: 5, channels };
    let seen = |ms: &[u64]| -> Vec<_> {
        let dialog = |ms: &u64| Dialog {
            at: s(1) + Duration::from_millis(*ms),
            ..dialog("pbx-1", "a", 1, Some(1), Some(200))
        };
        ms.iter().map(dialog).collect()
    };
    let over = |history: &History| {
        check(history).violations.iter().filter(|violation| violation.rule == Rule::OverLimit).count()
    };
    history.accounts = vec![account(5)];
    history.seen = seen(&[0, 400, 700, 999]);
    assert_eq!(over(&history), 1, "four in a second of two");
    history.seen = seen(&[0, 400, 700, 1_000, 1_400]);
    assert_eq!(over(&history), 0, "three in each second, which is one more than two");
    history.accounts = vec![account(6)];
    assert_eq!(over(&history), 1, "channels");
}

#[test]
fn with_retry_a_phone_is_heard_while_a_way_is_fit() {
    let mut history = unrung();
    broken(&history, &[Rule::Unrung]);
    let node = |name: &str, from, until: Option<u64>| Broken {
        subject: Subject::Node(name.into()),
        what: What::AsteriskKilled,
        replica: None,
        from: s(from),
        until: until.map(s),
    };
    // One of two ways was broken: the other could have taken it.
    history.broken = vec![node("pbx-1", 0, Some(2))];
    broken(&history, &[Rule::Unrung]);
    // Both, one by its carrier.
    history.broken.push(Broken {
        subject: Subject::Carrier("b".into()),
        what: What::CarrierSilent,
        replica: None,
        from: s(2),
        until: Some(s(4)),
    });
    broken(&history, &[]);
    assert_eq!(check(&history).retry_excused, 1);
    // Mended long before.
    history.told[0].created_at = s(3) + SETTLE;
    history.told[0].ended_at = Some(s(9) + SETTLE);
    broken(&history, &[Rule::Unrung]);
    // Never mended.
    history.broken = vec![node("pbx-1", 0, None), node("pbx-2", 0, None)];
    broken(&history, &[]);
    // What happens to the control plane is no excuse.
    history.broken = vec![Broken {
        subject: Subject::Plane(0),
        what: What::PlaneKilled,
        replica: None,
        from: s(0),
        until: None,
    }];
    broken(&history, &[Rule::Unrung]);
}

#[test]
fn what_need_not_ring_may_stay_unrung() {
    let mut history = unrung();
    history.asked[0].kind = Kind::Refused;
    broken(&history, &[]);
}

#[test]
fn a_callee_who_answered_for_himself_is_left_alone() {
    for ending in [EndingClass::UserBusy, EndingClass::Declined, EndingClass::RingTimeout] {
        let mut history = good(OnUnknown::Retry);
        history.told[0].attempts.insert(0, attempt("pbx-2", "b", ending, Rang::No));
        broken(&history, &[Rule::DialledAgain]);
    }
}

#[test]
fn what_is_told_was_seen() {
    // Told no, and it rang.
    let mut history = fail();
    history.told[0].attempts[0].rang = Rang::No;
    broken(&history, &[Rule::ToldWrong]);
    // Told yes, and it did not.
    let mut history = fail();
    history.seen[0].heard_at = None;
    broken(&history, &[Rule::ToldWrong]);
    // Told an answer that nobody gave.
    let mut history = fail();
    history.seen[0].code = Some(487);
    broken(&history, &[Rule::ToldWrong]);
    // Told busy.
    let mut history = fail();
    let told = &mut history.told[0];
    (told.status, told.reason) = (CallStatus::Busy, Some(Reason::UserBusy));
    told.log[4].status = CallStatus::Busy;
    broken(&history, &[Rule::ToldWrong]);
}

#[test]
fn an_open_channel_is_told() {
    let mut history = fail();
    history.left[0].1 = 2;
    broken(&history, &[Rule::LeftOpen]);
}

#[test]
fn an_invite_after_the_end_is_counted() {
    let mut history = unrung();
    history.seen.push(dialog("pbx-1", "a", 9, Some(9), None));
    broken(&history, &[]);
    assert_eq!(check(&history).late, 1);
}

#[test]
fn only_what_was_canceled_is_told_so() {
    let mut history = unrung();
    let told = &mut history.told[0];
    (told.status, told.reason) = (CallStatus::Canceled, Some(Reason::Api));
    told.log[2].status = CallStatus::Canceled;
    broken(&history, &[Rule::Unrung, Rule::ToldWrong]);
    history.asked[0].canceled = true;
    broken(&history, &[]);
}

fn pressed(key: char) -> Pressed {
    Pressed { carrier: "a".into(), number: NUMBER.into(), key, at: s(2) }
}

#[test]
fn what_is_acknowledged_was_pressed() {
    let mut history = fail();
    history.asked[0].kind = Kind::Presses;
    let told = &mut history.told[0];
    (told.reason, told.acknowledged) = (Some(Reason::Acknowledged), Some(('1', s(2))));
    broken(&history, &[Rule::NotPressed]);
    history.pressed = vec![pressed('2')];
    broken(&history, &[Rule::NotPressed]);
    history.pressed = vec![pressed('1')];
    broken(&history, &[]);
    assert_eq!(check(&history).acknowledged, 1);
    history.told[0].acknowledged = None;
    broken(&history, &[Rule::ToldWrong, Rule::Unheard]);
}

#[test]
fn what_was_pressed_over_a_fit_way_is_told() {
    let mut history = fail();
    history.asked[0].kind = Kind::Presses;
    history.told[0].reason = Some(Reason::AnsweredNoAck);
    history.pressed = vec![pressed('1')];
    broken(&history, &[Rule::Unheard]);
    let asterisk = |node: &str| Broken {
        subject: Subject::Node(node.into()),
        what: What::AsteriskKilled,
        replica: None,
        from: s(2),
        until: Some(s(9)),
    };
    history.broken = vec![asterisk("pbx-2")];
    broken(&history, &[Rule::Unheard]);
    history.broken = vec![asterisk("pbx-1")];
    broken(&history, &[]);
    // Another key, or none asked for.
    history.broken.clear();
    history.pressed = vec![pressed('5')];
    broken(&history, &[]);
    history.asked[0].kind = Kind::Answers;
    history.pressed = vec![pressed('1')];
    broken(&history, &[]);
}
