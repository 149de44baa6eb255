//! The end of a call: once, whole, and never apart from an attempt under way.

use controlplane_core::{
    call::{CallStatus, Outcome, Reason},
    ending::EndingClass,
};
use controlplane_store::{
    StoreError,
    calls::{Begun, CallEnd, Created, EndCall, Written},
};
use time::Duration;

use crate::fixture::{Fixture, NOON, at_once, failed, promise};

pub(crate) async fn a_call_ends_with_its_attempt(mut f: Fixture) {
    let mut new = f.new_call(NOON);
    new.idempotency = promise("alert-1", 1);
    assert!(matches!(f.store.create_call(new.clone()).await.unwrap(), Created::New(_)));
    let begin = f.begin(&new.id);
    let of = (new.id.clone(), begin.attempt.clone());
    let _ = f.store.begin_attempt(begin).await.unwrap();
    let call_end = CallEnd { reason: Reason::UserBusy, outcome: Outcome::NotReached };
    let mut end = f.end_attempt(&of, Some(call_end));
    end.ending = EndingClass::UserBusy;
    for _ in 0..3 {
        // Repeated by a caller that did not hear the answer.
        assert_eq!(f.store.end_attempt(end.clone()).await.unwrap(), Written::Yes { sequence: 3 });
    }
    let call = f.call(&new.id).await;
    assert_eq!((call.status, call.reason), (CallStatus::Busy, Some(Reason::UserBusy)));
    assert_eq!((call.outcome, call.ended_at), (Some(Outcome::NotReached), Some(end.at)));
    let log = f.log(&new.id).await;
    assert_eq!((log[2].status, log[2].reason), (CallStatus::Busy, Some(Reason::UserBusy)));
    assert_eq!((&log[2].attempt, log[2].ending), (&Some(of.1), Some(EndingClass::UserBusy)));
    let kept = f.moment(end.at + Duration::hours(24));
    let expiry = format!("SELECT count(*) FROM idempotency WHERE expires_at = {kept}");
    assert_eq!(f.count(&expiry).await, 1);
    assert_eq!(f.count("SELECT count(*) FROM outbox WHERE kind = 'call.finished'").await, 1);
}

pub(crate) async fn fifty_ends_are_one(mut f: Fixture) {
    let of = f.sending().await;
    let work = (0..50).map(|i| {
        // Some end the call, some only the attempt, some try to end the call alone.
        let store = f.store.clone();
        let end = f.end_attempt(&of, Some(failed()));
        let alone = f.end_call(&of.0, NOON);
        async move {
            if i % 5 == 4 {
                match store.end_call(alone).await {
                    Ok(written) => written,
                    Err(StoreError::AttemptOpen { .. }) => Written::AlreadyEnded,
                    Err(error) => panic!("{error}"),
                }
            } else {
                store.end_attempt(end).await.unwrap()
            }
        }
    });
    let answers = at_once(work.collect()).await;
    assert_eq!(answers.iter().filter(|w| **w == Written::Yes { sequence: 3 }).count(), 1);
    assert_eq!(answers.iter().filter(|w| **w == Written::AlreadyEnded).count(), 49);
    assert_eq!(f.log(&of.0).await.iter().filter(|t| t.status.is_terminal()).count(), 1);
}

pub(crate) async fn a_call_without_an_attempt_ends_alone(mut f: Fixture) {
    let id = f.accepted(NOON).await;
    let mut end = f.end_call(&id, NOON + Duration::seconds(300));
    end.end = CallEnd { reason: Reason::NoHealthyRoute, outcome: Outcome::NotTried };
    assert_eq!(f.store.end_call(end.clone()).await.unwrap(), Written::Yes { sequence: 2 });
    assert_eq!(f.store.end_call(end.clone()).await.unwrap(), Written::Yes { sequence: 2 }, "repeated");
    let same = EndCall { event_id: f.event(), ..end.clone() };
    assert_eq!(f.store.end_call(same).await.unwrap(), Written::AlreadyEnded, "another one");
    let other = EndCall { end: failed(), ..end };
    assert_eq!(f.store.end_call(other).await.unwrap(), Written::AlreadyEnded, "for another reason");
    let call = f.call(&id).await;
    assert_eq!((call.status, call.reason), (CallStatus::Failed, Some(Reason::NoHealthyRoute)));
    assert_eq!((call.outcome, call.ended_at), (Some(Outcome::NotTried), Some(NOON + Duration::seconds(300))));
    assert_eq!(f.log(&id).await.len(), 2);
}

pub(crate) async fn a_call_does_not_end_apart_from_its_attempt(mut f: Fixture) {
    let of = f.sending().await;
    let end = f.end_call(&of.0, NOON);
    let refused = f.store.end_call(end.clone()).await;
    assert!(matches!(refused, Err(StoreError::AttemptOpen { attempt, .. }) if attempt == of.1));
    assert_eq!(f.call(&of.0).await.status, CallStatus::Initiated);
    let attempt = f.end_attempt(&of, None);
    let _ = f.store.end_attempt(attempt).await.unwrap();
    assert_eq!(f.store.end_call(end).await.unwrap(), Written::Yes { sequence: 4 });
}

pub(crate) async fn a_call_without_an_attempt_ends_once_among_fifty(mut f: Fixture) {
    let id = f.accepted(NOON).await;
    let work = (0..50).map(|_| {
        let (end, store) = (f.end_call(&id, NOON), f.store.clone());
        async move { store.end_call(end).await.unwrap() }
    });
    let answers = at_once(work.collect()).await;
    assert_eq!(answers.iter().filter(|w| **w == Written::Yes { sequence: 2 }).count(), 1);
    assert_eq!(f.log(&id).await.len(), 2);
}

pub(crate) async fn end_and_next_attempt_exclude_each_other(mut f: Fixture) {
    for _ in 0..20 {
        let id = f.accepted(NOON).await;
        let (begin, end, store) = (f.begin(&id), f.end_call(&id, NOON), f.store.clone());
        let (begun, ended) =
            tokio::join!(async { store.begin_attempt(begin).await.unwrap() }, store.end_call(end));
        let call = f.call(&id).await;
        match begun {
            Begun::Yes { .. } => {
                assert!(matches!(ended, Err(StoreError::AttemptOpen { .. })));
                assert_eq!((call.ended_at, call.attempts.len()), (None, 1));
            }
            Begun::AlreadyEnded => assert!(call.ended_at.is_some() && call.attempts.is_empty()),
            Begun::Held { .. } | Begun::Full { .. } | Begun::TooLate { .. } => panic!("{begun:?}"),
        }
    }
}
