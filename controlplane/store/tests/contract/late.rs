//! What is heard of an attempt after its end: it decides a call that goes on, and leaves one that has ended alone.

use controlplane_core::{
    call::{CallStatus, Outcome, Reason},
    ending::{EndingClass, Talk},
    ids::{AttemptId, CallId},
    names::NodeName,
    request::KeyAction,
};
use controlplane_store::calls::{
    Begun, CallEnd, EndAttempt, Follows, HearLate, HeardLate, LateKey, Pressed, Written,
};
use time::Duration;

use crate::fixture::{Fixture, NOON, failed};

fn waw() -> NodeName {
    "waw-1".parse().unwrap()
}

/// A call whose first attempt ended untold.
async fn untold(f: &mut Fixture, follows: Follows) -> (CallId, AttemptId) {
    let of = f.sending().await;
    let talk = Talk { untold: true, ..Talk::NONE };
    let end = EndAttempt { ending: EndingClass::Interrupted, talk, follows, ..f.end_attempt(&of, None) };
    assert_eq!(f.store.end_attempt(end).await.unwrap(), Written::Yes { sequence: 3 });
    of
}

fn late(f: &mut Fixture, of: &(CallId, AttemptId), key: Option<(char, KeyAction)>) -> HearLate {
    let key = key.map(|(key, action)| {
        let (reason, outcome) = match action {
            KeyAction::Acknowledge => (Reason::Acknowledged, Outcome::Acknowledged),
            KeyAction::Escalate | KeyAction::Repeat => (Reason::Escalated, Outcome::Answered),
        };
        LateKey { key: key.try_into().unwrap(), action, end: CallEnd { reason, outcome } }
    });
    let (call, attempt) = of.clone();
    let (event_id, end_event_id, audit_id) = (f.event(), f.event(), f.audit_id());
    HearLate { call, attempt, key, at: NOON + Duration::seconds(30), event_id, end_event_id, audit_id }
}

async fn audited(f: &Fixture) -> i64 {
    f.count("SELECT count(*) FROM audit_log WHERE action = 'call.hear_late' AND actor_type = 'system'").await
}

pub(crate) async fn what_ended_untold_is_found_until_it_is_told(mut f: Fixture) {
    let told = f.sending().await;
    let end = f.end_attempt(&told, None);
    let _ = f.store.end_attempt(end).await.unwrap();
    assert_eq!(f.store.untold_nodes().await.unwrap(), []);
    let of = untold(&mut f, Follows::Attempt).await;
    assert_eq!(f.store.untold_nodes().await.unwrap(), [waw()]);
    let found = f.store.untold(&waw(), 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].call, &found[0].attempt, &found[0].node), (&of.0, &of.1, &waw()));
    assert_eq!(found[0].incarnation.as_deref(), Some("1764000000"));
    assert_eq!(found[0].request, f.call(&of.0).await.request);
    assert_eq!(f.store.untold(&"fra-1".parse().unwrap(), 10).await.unwrap(), []);
    let ends = f.store.attempt_ends(&waw(), &[told.1, of.1.clone()]).await.unwrap();
    let is_untold: Vec<_> = ends.iter().map(|end| (end.attempt == of.1, end.is_untold)).collect();
    assert!(is_untold.iter().all(|(is_it, untold)| is_it == untold), "{ends:?}");

    let nothing = late(&mut f, &of, None);
    assert_eq!(f.store.hear_late(nothing.clone()).await.unwrap(), HeardLate::Nothing);
    assert_eq!(f.store.hear_late(nothing).await.unwrap(), HeardLate::Before);
    assert_eq!(f.store.untold_nodes().await.unwrap(), []);
    assert_eq!((f.log(&of.0).await.len(), audited(&f).await), (3, 0));
}

pub(crate) async fn a_key_heard_late_ends_a_call_that_waits(mut f: Fixture) {
    for (key, action, reason, outcome, steps) in [
        ('1', KeyAction::Acknowledge, Reason::Acknowledged, Outcome::Acknowledged, 5),
        ('2', KeyAction::Escalate, Reason::Escalated, Outcome::Answered, 4),
    ] {
        let of = untold(&mut f, Follows::Round { at: NOON + Duration::HOUR }).await;
        let before = audited(&f).await;
        let heard = late(&mut f, &of, Some((key, action)));
        assert_eq!(f.store.hear_late(heard.clone()).await.unwrap(), HeardLate::Ended);
        assert_eq!(f.store.hear_late(heard.clone()).await.unwrap(), HeardLate::Before);
        let call = f.call(&of.0).await;
        assert_eq!(
            (call.status, call.reason, call.outcome),
            (CallStatus::Completed, Some(reason), Some(outcome))
        );
        let pressed = Pressed { key: key.try_into().unwrap(), action, at: heard.at };
        assert_eq!((call.acknowledgement, call.attempts[0].key), (Some(pressed), Some(pressed.key)));
        assert_eq!((call.redial_at, call.ended_at), (None, Some(heard.at)));
        assert_eq!(f.log(&of.0).await.len(), steps);
        assert_eq!(audited(&f).await, before + 1);
        // No phone rings again.
        let begin = f.begin(&of.0);
        assert_eq!(f.store.begin_attempt(begin).await.unwrap(), Begun::AlreadyEnded);
    }
    assert_eq!(f.count("SELECT count(*) FROM outbox WHERE kind = 'call.acknowledged'").await, 1);
}

pub(crate) async fn a_key_heard_late_decides_a_call_that_is_dialled_again(mut f: Fixture) {
    let of = untold(&mut f, Follows::Attempt).await;
    let begin = f.begin(&of.0);
    let second = (of.0.clone(), begin.attempt.clone());
    let _ = f.store.begin_attempt(begin).await.unwrap();
    let heard = late(&mut f, &of, Some(('1', KeyAction::Acknowledge)));
    assert_eq!(f.store.hear_late(heard).await.unwrap(), HeardLate::Decided);
    let call = f.call(&of.0).await;
    assert_eq!(
        (call.status, call.acknowledgement.map(|a| a.key.as_char())),
        (CallStatus::Initiated, Some('1'))
    );
    assert_eq!((call.attempts[0].key.map(|k| k.as_char()), call.attempts[1].key), (Some('1'), None));
    let end = CallEnd { reason: Reason::Acknowledged, outcome: Outcome::Acknowledged };
    let end = f.end_attempt(&second, Some(end));
    assert_eq!(f.store.end_attempt(end).await.unwrap(), Written::Yes { sequence: 6 });
    assert_eq!(f.log(&of.0).await.len(), 6);
}

pub(crate) async fn a_key_heard_late_does_not_change_how_a_call_ended(mut f: Fixture) {
    let of = untold(&mut f, Follows::End(failed())).await;
    let heard = late(&mut f, &of, Some(('1', KeyAction::Acknowledge)));
    assert_eq!(f.store.hear_late(heard).await.unwrap(), HeardLate::TooLate);
    let call = f.call(&of.0).await;
    assert_eq!((call.reason, call.outcome), (Some(failed().reason), Some(failed().outcome)));
    assert_eq!((call.acknowledgement, call.attempts[0].key.map(|k| k.as_char())), (None, Some('1')));
    assert_eq!((f.log(&of.0).await.len(), audited(&f).await), (3, 1));
    assert_eq!(f.store.untold_nodes().await.unwrap(), []);
}
