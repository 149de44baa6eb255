//! Rounds: decided with the attempt's end, counted per number, and keys that decide.

use controlplane_core::{
    call::{AttemptStatus as At, CallStatus, Detection, Outcome, Rang, Reason},
    ending::{EndingClass, Talk},
    ids::{AttemptId, CallId, OrgId},
    request::KeyAction,
    throttle::{Throttle, Window},
};
use controlplane_store::{
    StoreError,
    calls::{BeginAttempt, Begun, CallEnd, EndAttempt, EndCall, Follows, Hear, Pressed, RedialCall, Written},
};
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON, at_once, failed};

fn s(s: i64) -> Duration {
    Duration::seconds(s)
}

fn busy(f: &mut Fixture, of: &(CallId, AttemptId), redial_at: OffsetDateTime) -> EndAttempt {
    let follows = Follows::Round { at: redial_at };
    EndAttempt { ending: EndingClass::UserBusy, follows, ..f.end_attempt(of, None) }
}

pub(crate) async fn a_round_s_end_and_the_next_are_one_write(mut f: Fixture) {
    let of = f.sending().await;
    let end = busy(&mut f, &of, NOON + s(60));
    for _ in 0..3 {
        assert_eq!(f.store.end_attempt(end.clone()).await.unwrap(), Written::Yes { sequence: 3 });
    }
    let ends_it = EndAttempt { follows: Follows::End(failed()), ..end.clone() };
    assert_eq!(f.store.end_attempt(ends_it).await.unwrap(), Written::AlreadyEnded);
    let call = f.call(&of.0).await;
    assert_eq!((call.status, call.round, call.redial_at), (CallStatus::Queued, 2, Some(NOON + s(60))));
    assert_eq!((call.ended_at, call.attempts[0].round), (None, 1));
    let log = f.log(&of.0).await;
    assert_eq!((log[2].status, log[2].ending), (CallStatus::Queued, Some(EndingClass::UserBusy)));
    assert_eq!((log[2].redial_at, log[2].reason), (Some(NOON + s(60)), None));
    assert_eq!(f.count("SELECT count(*) FROM outbox WHERE kind = 'call.attempt_failed'").await, 1);
    // As a later process finds it.
    assert_eq!(f.store.open_calls(None, 10).await.unwrap(), [call]);

    let begin = f.begin(&of.0);
    let second = (of.0.clone(), begin.attempt.clone());
    assert_eq!(f.store.begin_attempt(begin).await.unwrap(), Begun::Yes { sequence: 4 });
    let call = f.call(&of.0).await;
    assert_eq!((call.status, call.round, call.redial_at), (CallStatus::Initiated, 2, None));
    assert_eq!((call.attempts[1].round, call.attempts[1].ordinal), (2, 2));
    // Failover stays in the round.
    let other = f.end_attempt(&second, None);
    let _ = f.store.end_attempt(other).await.unwrap();
    let begin = f.begin(&of.0);
    let _ = f.store.begin_attempt(begin).await.unwrap();
    let rounds: Vec<_> = f.call(&of.0).await.attempts.iter().map(|a| a.round).collect();
    assert_eq!(rounds, [1, 2, 2]);
}

pub(crate) async fn a_call_without_an_attempt_waits_for_another_round(mut f: Fixture) {
    let of = f.sending().await;
    let redial = f.redial(&of.0, NOON + s(60));
    let refused = f.store.redial_call(redial.clone()).await;
    assert!(matches!(refused, Err(StoreError::AttemptOpen { attempt, .. }) if attempt == of.1));
    let end = f.end_attempt(&of, None);
    let _ = f.store.end_attempt(end).await.unwrap();
    for _ in 0..3 {
        assert_eq!(f.store.redial_call(redial.clone()).await.unwrap(), Written::Yes { sequence: 4 });
    }
    let call = f.call(&of.0).await;
    assert_eq!((call.status, call.round, call.redial_at), (CallStatus::Queued, 2, Some(NOON + s(60))));
    let end = f.end_call(&of.0, NOON);
    assert_eq!(f.store.end_call(end).await.unwrap(), Written::Yes { sequence: 5 });
    assert_eq!(f.call(&of.0).await.redial_at, None, "it waits no more");
    let redial = f.redial(&of.0, NOON);
    assert_eq!(f.store.redial_call(redial).await.unwrap(), Written::AlreadyEnded);
    let nowhere = CallId::new(NOON, &mut f.rng);
    let redial = f.redial(&nowhere, NOON);
    assert!(matches!(f.store.redial_call(redial).await, Err(StoreError::Missing { .. })));
}

/// A cancel and a round's end at the same time: the call ends once, or waits once.
pub(crate) async fn an_end_and_a_redial_exclude_each_other(mut f: Fixture) {
    for _ in 0..20 {
        let of = f.sending().await;
        let end = f.end_attempt(&of, None);
        let _ = f.store.end_attempt(end).await.unwrap();
        let (end, redial, store) = (f.end_call(&of.0, NOON), f.redial(&of.0, NOON), f.store.clone());
        let (ended, redialled) = tokio::join!(store.end_call(end), store.redial_call(redial));
        assert!(matches!(ended.unwrap(), Written::Yes { .. }), "it can always end");
        let call = f.call(&of.0).await;
        assert!(call.ended_at.is_some() && call.redial_at.is_none());
        match redialled.unwrap() {
            Written::Yes { sequence } => assert_eq!((sequence, call.sequence, call.round), (4, 5, 2)),
            Written::AlreadyEnded => assert_eq!((call.sequence, call.round), (4, 1)),
        }
    }
}

pub(crate) async fn a_key_is_durable_the_moment_it_is_heard(mut f: Fixture) {
    let of = f.sending().await;
    let up = f.advance(&of, At::InProgress, Rang::Yes, 1);
    let _ = f.store.advance(up).await.unwrap();
    let hear = f.hear(&of, '1', KeyAction::Acknowledge);
    for _ in 0..3 {
        assert_eq!(f.store.hear(hear.clone()).await.unwrap(), Written::Yes { sequence: 4 });
    }
    let later = f.hear(&of, '2', KeyAction::Escalate);
    assert_eq!(f.store.hear(later).await.unwrap(), Written::Yes { sequence: 4 }, "the first one counts");
    let call = f.call(&of.0).await;
    let pressed = Pressed { key: hear.key, action: KeyAction::Acknowledge, at: hear.at };
    assert_eq!((call.acknowledgement, call.status), (Some(pressed), CallStatus::InProgress));
    assert_eq!((call.attempts[0].key, call.ended_at), (Some(hear.key), None));
    let log = f.log(&of.0).await;
    assert_eq!((log[3].status, log[3].key), (CallStatus::InProgress, Some(hear.key)));
    assert_eq!(f.count("SELECT count(*) FROM outbox WHERE kind = 'call.acknowledged'").await, 1);

    let end = CallEnd { reason: Reason::Acknowledged, outcome: Outcome::Acknowledged };
    let mut end = f.end_attempt(&of, Some(end));
    end.talk = Talk { machine: Some(Detection::NotSure), ..Talk::NONE };
    assert_eq!(f.store.end_attempt(end).await.unwrap(), Written::Yes { sequence: 5 });
    let call = f.call(&of.0).await;
    assert_eq!((call.acknowledgement, call.status), (Some(pressed), CallStatus::Completed));
    assert_eq!(call.attempts[0].key, Some(hear.key), "an end without it does not take it away");
    assert_eq!(call.attempts[0].machine, Some(Detection::NotSure));
    let log = f.log(&of.0).await;
    assert_eq!((log[4].reason, log[4].outcome), (Some(Reason::Acknowledged), Some(Outcome::Acknowledged)));
    assert_eq!(f.store.hear(hear.clone()).await.unwrap(), Written::Yes { sequence: 4 }, "that very write");
    let late = Hear { event_id: f.event(), ..hear };
    assert_eq!(f.store.hear(late).await.unwrap(), Written::AlreadyEnded);
}

pub(crate) async fn a_key_that_escalates_is_no_acknowledged_event(mut f: Fixture) {
    let of = f.sending().await;
    let hear = f.hear(&of, '2', KeyAction::Escalate);
    assert_eq!(f.store.hear(hear).await.unwrap(), Written::Yes { sequence: 2 });
    let pressed = f.call(&of.0).await.acknowledgement.unwrap();
    assert_eq!((pressed.key.as_char(), pressed.action), ('2', KeyAction::Escalate));
    assert_eq!(f.log(&of.0).await.len(), 2);
}

fn one_per_minute() -> Throttle {
    vec![Window { calls: 1, per_s: 60 }, Window { calls: 2, per_s: 900 }].try_into().unwrap()
}

fn throttled(f: &mut Fixture, call: &CallId, at: OffsetDateTime) -> BeginAttempt {
    BeginAttempt { throttle: one_per_minute(), at, ..f.begin(call) }
}

async fn held(f: &Fixture, org: &OrgId, to: &str, at: OffsetDateTime) -> Option<OffsetDateTime> {
    f.store.number_held(org, &to.parse().unwrap(), &one_per_minute(), at).await.unwrap()
}

pub(crate) async fn a_number_is_held_by_what_was_dialled(mut f: Fixture) {
    let deadline = NOON + s(10_000);
    let (first, second) = (f.long(deadline).await, f.long(deadline).await);
    let (org, number) = (OrgId::first(), "+48221234567");
    assert_eq!(held(&f, &org, number, NOON).await, None);
    let begin = throttled(&mut f, &first, NOON);
    for _ in 0..3 {
        assert_eq!(f.store.begin_attempt(begin.clone()).await.unwrap(), Begun::Yes { sequence: 2 });
    }
    assert_eq!(held(&f, &org, number, NOON + s(1)).await, Some(NOON + s(60)));
    assert_eq!(held(&f, &org, "+48221234568", NOON + s(1)).await, None);
    let other = f.other_org().await;
    assert_eq!(held(&f, &other, number, NOON + s(1)).await, None);

    let early = throttled(&mut f, &second, NOON + s(59));
    assert_eq!(f.store.begin_attempt(early).await.unwrap(), Begun::Held { until: NOON + s(60) });
    let waiting = f.call(&second).await;
    assert_eq!((waiting.status, waiting.sequence, waiting.attempts.len()), (CallStatus::Queued, 1, 0));
    // Failover of the first call is no start of a round.
    let end = f.end_attempt(&(first.clone(), begin.attempt.clone()), None);
    let _ = f.store.end_attempt(end).await.unwrap();
    let failover = throttled(&mut f, &first, NOON + s(2));
    let third = (first.clone(), failover.attempt.clone());
    assert!(matches!(f.store.begin_attempt(failover).await.unwrap(), Begun::Yes { .. }));

    let in_time = throttled(&mut f, &second, NOON + s(60));
    assert!(matches!(f.store.begin_attempt(in_time).await.unwrap(), Begun::Yes { .. }));
    // A redial is one.
    let end = busy(&mut f, &third, NOON + s(130));
    let _ = f.store.end_attempt(end).await.unwrap();
    let redial = throttled(&mut f, &first, NOON + s(130));
    assert_eq!(f.store.begin_attempt(redial).await.unwrap(), Begun::Held { until: NOON + s(900) });
    let redial = throttled(&mut f, &first, NOON + s(3_000));
    assert!(matches!(f.store.begin_attempt(redial).await.unwrap(), Begun::Yes { .. }));
    assert_eq!(f.count("SELECT count(*) FROM dialled").await, 1, "what no window reaches back to is erased");
}

pub(crate) async fn fifty_calls_to_one_number_at_once_are_one_start(mut f: Fixture) {
    let mut work = Vec::new();
    for _ in 0..50 {
        let call = f.accepted(NOON).await;
        let (begin, store) = (throttled(&mut f, &call, NOON), f.store.clone());
        work.push(async move { store.begin_attempt(begin).await.unwrap() });
    }
    let answers = at_once(work).await;
    let until = NOON + s(60);
    assert_eq!(answers.iter().filter(|b| **b == Begun::Yes { sequence: 2 }).count(), 1);
    assert_eq!(answers.iter().filter(|b| **b == Begun::Held { until }).count(), 49);
    assert_eq!(f.count("SELECT count(*) FROM attempt").await, 1);
}

/// A clock that was ahead wrote the start; it is right again.
pub(crate) async fn a_start_that_lies_ahead_holds_for_one_window(mut f: Fixture) {
    let (first, second) = (f.accepted(NOON).await, f.long(NOON + s(40_000)).await);
    let ahead = BeginAttempt { throttle: one_per_minute(), at: NOON + s(200), ..f.begin(&first) };
    let _ = f.store.begin_attempt(ahead).await.unwrap();
    let begin = throttled(&mut f, &second, NOON);
    assert_eq!(f.store.begin_attempt(begin).await.unwrap(), Begun::Held { until: NOON + s(60) });
    // As of the moment at which it was seen: waiting helps.
    let again = throttled(&mut f, &second, NOON + s(30));
    assert_eq!(f.store.begin_attempt(again).await.unwrap(), Begun::Held { until: NOON + s(60) });
    let in_time = throttled(&mut f, &second, NOON + s(60));
    assert!(matches!(f.store.begin_attempt(in_time).await.unwrap(), Begun::Yes { .. }));
}

pub(crate) async fn a_hint_does_not_forget_a_start_that_lies_ahead(mut f: Fixture) {
    let first = f.accepted(NOON).await;
    let (org, number) = (OrgId::first(), "+48221234567");
    let ahead = BeginAttempt { throttle: one_per_minute(), at: NOON + s(200), ..f.begin(&first) };
    let _ = f.store.begin_attempt(ahead).await.unwrap();
    assert_eq!(held(&f, &org, number, NOON).await, Some(NOON + s(60)));
    assert_eq!(held(&f, &org, number, NOON + s(30)).await, Some(NOON + s(60)));
    assert_eq!(held(&f, &org, number, NOON + s(60)).await, None);
}

/// What waits may end, and a call that ended is dialled no more.
pub(crate) async fn a_waiting_call_ends_as_any_other(mut f: Fixture) {
    let of = f.sending().await;
    let end = busy(&mut f, &of, NOON + s(60));
    let _ = f.store.end_attempt(end).await.unwrap();
    let canceled = CallEnd { reason: Reason::Api, outcome: Outcome::NotReached };
    let end = EndCall { end: canceled, ..f.end_call(&of.0, NOON + s(1)) };
    assert_eq!(f.store.end_call(end).await.unwrap(), Written::Yes { sequence: 4 });
    let begin = f.begin(&of.0);
    assert_eq!(f.store.begin_attempt(begin).await.unwrap(), Begun::AlreadyEnded);
    let redial = RedialCall { event_id: f.event(), ..f.redial(&of.0, NOON) };
    assert_eq!(f.store.redial_call(redial).await.unwrap(), Written::AlreadyEnded);
    let call = f.call(&of.0).await;
    assert_eq!((call.status, call.redial_at, call.round), (CallStatus::Canceled, None, 2));
}
