//! Attempts: begun before they are sent, one at a time, forward only, ended once.

use controlplane_core::{
    call::{AttemptStatus as At, CallStatus, Rang},
    ending::EndingClass,
    ids::{AttemptId, CallId},
};
use controlplane_store::{
    StoreError,
    calls::{AttemptEnd, Begun, EndAttempt, Follows, TooLate, Written},
};
use time::Duration;

use crate::fixture::{Fixture, NOON, at_once, failed};

pub(crate) async fn an_attempt_is_numbered_and_logged(mut f: Fixture) {
    let (call, first) = f.sending().await;
    let stored = f.call(&call).await;
    assert_eq!(stored.status, CallStatus::Initiated);
    let attempt = &stored.attempts[0];
    assert_eq!(
        (&attempt.id, attempt.ordinal, attempt.status, attempt.rang),
        (&first, 1, At::Sending, Rang::No)
    );
    assert_eq!((attempt.node.as_str(), attempt.trunk.as_str()), ("waw-1", "acme-waw-1"));
    assert_eq!((attempt.started_at, attempt.incarnation.as_deref()), (NOON, Some("1764000000")));

    let end = f.end_attempt(&(call.clone(), first.clone()), None);
    assert_eq!(f.store.end_attempt(end).await.unwrap(), Written::Yes { sequence: 3 });
    let again = f.begin(&call);
    let second = again.attempt.clone();
    assert_eq!(f.store.begin_attempt(again).await.unwrap(), Begun::Yes { sequence: 4 });
    let ordinals: Vec<_> = f.call(&call).await.attempts.into_iter().map(|a| (a.id, a.ordinal)).collect();
    assert_eq!(ordinals, [(first.clone(), 1), (second.clone(), 2)]);
    let log = f.log(&call).await;
    let words: Vec<_> = log.iter().map(|t| (t.status.as_str(), t.attempt.clone())).collect();
    let expected = [
        ("queued", None),
        ("initiated", Some(first.clone())),
        ("initiated", Some(first)),
        ("initiated", Some(second)),
    ];
    assert_eq!(words, expected);
}

pub(crate) async fn fifty_attempts_at_once_are_one(mut f: Fixture) {
    let call = f.accepted(NOON).await;
    let work = (0..50).map(|_| {
        let (begin, store) = (f.begin(&call), f.store.clone());
        async move { store.begin_attempt(begin).await.unwrap() }
    });
    let answers = at_once(work.collect()).await;
    assert_eq!(answers.iter().filter(|w| **w == Begun::Yes { sequence: 2 }).count(), 1);
    assert_eq!(answers.iter().filter(|w| **w == Begun::AlreadyEnded).count(), 49);
    assert_eq!(f.call(&call).await.attempts.len(), 1);
}

pub(crate) async fn no_attempt_begins_after_the_end(mut f: Fixture) {
    let call = f.accepted(NOON).await;
    let end = f.end_call(&call, NOON);
    let _ = f.store.end_call(end).await.unwrap();
    let begin = f.begin(&call);
    assert_eq!(f.store.begin_attempt(begin).await.unwrap(), Begun::AlreadyEnded);
    assert!(f.call(&call).await.attempts.is_empty());
}

fn too_late(why: TooLate, is_open: bool) -> Begun {
    Begun::TooLate { why, is_open }
}

pub(crate) async fn no_attempt_begins_at_the_deadline(mut f: Fixture) {
    let call = f.accepted(NOON).await;
    let deadline = f.call(&call).await.deadline_at;
    let mut begin = f.begin(&call);
    for late in [Duration::ZERO, Duration::hours(1)] {
        begin.at = deadline + late;
        let begun = f.store.begin_attempt(begin.clone()).await.unwrap();
        assert_eq!(begun, too_late(TooLate::PastDeadline, false), "{late}");
    }
    let untouched = f.call(&call).await;
    assert_eq!((untouched.sequence, untouched.attempts.len()), (1, 0));
    begin.at = deadline - Duration::microseconds(1);
    assert_eq!(f.store.begin_attempt(begin).await.unwrap(), Begun::Yes { sequence: 2 });
}

pub(crate) async fn no_attempt_begins_once_a_cancel_is_recorded(mut f: Fixture) {
    let call = f.accepted(NOON).await;
    f.cancel(&call).await;
    let begin = f.begin(&call);
    let begun = f.store.begin_attempt(begin).await.unwrap();
    assert_eq!(begun, too_late(TooLate::Canceled, false));
    assert!(f.call(&call).await.attempts.is_empty());
}

/// The first answer was lost, and by the second one it is too late: nothing has left, and the attempt is open.
pub(crate) async fn a_begin_that_is_repeated_too_late_must_not_leave(mut f: Fixture) {
    for why in [TooLate::PastDeadline, TooLate::Canceled] {
        let call = f.accepted(NOON).await;
        let mut begin = f.begin(&call);
        assert_eq!(f.store.begin_attempt(begin.clone()).await.unwrap(), Begun::Yes { sequence: 2 });
        match why {
            TooLate::PastDeadline => begin.at = f.call(&call).await.deadline_at,
            TooLate::Canceled => f.cancel(&call).await,
        }
        let of = (call.clone(), begin.attempt.clone());
        assert_eq!(f.store.begin_attempt(begin.clone()).await.unwrap(), too_late(why, true));
        let end = f.end_attempt(&of, Some(failed()));
        assert_eq!(f.store.end_attempt(end).await.unwrap(), Written::Yes { sequence: 3 });
        assert_eq!(f.store.begin_attempt(begin).await.unwrap(), Begun::AlreadyEnded);
    }
}

pub(crate) async fn news_moves_the_call_forward_only(mut f: Fixture) {
    let of = f.sending().await;
    let steps = [
        (At::Initiated, CallStatus::Initiated, 2),
        (At::Ringing, CallStatus::Ringing, 3),
        (At::Ringing, CallStatus::Ringing, 3),
        (At::Initiated, CallStatus::Ringing, 3),
        (At::InProgress, CallStatus::InProgress, 4),
        (At::Ringing, CallStatus::InProgress, 4),
        (At::Sending, CallStatus::InProgress, 4),
    ];
    for (s, (word, status, sequence)) in (1..).zip(steps) {
        let news = f.advance(&of, word, Rang::No, s);
        assert_eq!(f.store.advance(news).await.unwrap(), Written::Yes { sequence }, "{word}");
        assert_eq!(f.call(&of.0).await.status, status, "{word}");
    }
    let attempt = &f.call(&of.0).await.attempts[0];
    assert_eq!(attempt.ringing_at, Some(NOON + Duration::seconds(2)));
    assert_eq!(attempt.answered_at, Some(NOON + Duration::seconds(5)));
    let words: Vec<_> = f.log(&of.0).await.iter().map(|t| t.status.as_str()).collect();
    assert_eq!(words, ["queued", "initiated", "ringing", "in_progress"]);

    let end = f.end_attempt(&of, Some(failed()));
    let _ = f.store.end_attempt(end).await.unwrap();
    let late = f.advance(&of, At::InProgress, Rang::Yes, 10);
    assert_eq!(f.store.advance(late).await.unwrap(), Written::AlreadyEnded);
}

pub(crate) async fn news_of_ringing_only_grows(mut f: Fixture) {
    let of = f.sending().await;
    // A 183 comes without a new status, and must be kept; an old word may still bring a ring.
    for (word, rang, known) in [
        (At::Initiated, Rang::No, Rang::No),
        (At::Initiated, Rang::Maybe, Rang::Maybe),
        (At::Initiated, Rang::No, Rang::Maybe),
        (At::InProgress, Rang::Maybe, Rang::Maybe),
        (At::Ringing, Rang::Yes, Rang::Yes),
        (At::InProgress, Rang::No, Rang::Yes),
    ] {
        let news = f.advance(&of, word, rang, 1);
        let _ = f.store.advance(news).await.unwrap();
        assert_eq!(f.call(&of.0).await.attempts[0].rang, known, "{word} {rang}");
    }
    let end = f.end_attempt(&of, None);
    let _ = f.store.end_attempt(end).await.unwrap();
    assert_eq!(f.call(&of.0).await.attempts[0].rang, Rang::Yes, "a ring that was seen stays seen");
}

pub(crate) async fn an_attempt_ends_once_and_its_call_goes_on(mut f: Fixture) {
    let of = f.sending().await;
    let maybe = f.advance(&of, At::Initiated, Rang::Maybe, 1);
    let _ = f.store.advance(maybe).await.unwrap();
    let end = f.end_attempt(&of, None);
    assert_eq!(f.store.end_attempt(end.clone()).await.unwrap(), Written::Yes { sequence: 3 });
    let mut other = f.end_attempt(&of, Some(failed()));
    other.ending = EndingClass::UserBusy;
    assert_eq!(f.store.end_attempt(other).await.unwrap(), Written::AlreadyEnded);
    let call = f.call(&of.0).await;
    assert_eq!((call.status, call.ended_at), (CallStatus::Initiated, None));
    let attempt = &call.attempts[0];
    assert_eq!((attempt.status, attempt.ending), (At::Ended, Some(EndingClass::Congestion)));
    assert_eq!((attempt.sip_code, attempt.q850, attempt.ended_at), (Some(503), Some(34), Some(end.at)));
    assert_eq!(attempt.rang, Rang::No, "the last word settles a maybe");
    let log = f.log(&of.0).await;
    assert_eq!((log[2].status, log[2].ending), (CallStatus::Initiated, Some(EndingClass::Congestion)));
}

pub(crate) async fn a_begin_that_is_repeated_is_one_attempt(mut f: Fixture) {
    let call = f.accepted(NOON).await;
    let begin = f.begin(&call);
    let of = (call.clone(), begin.attempt.clone());
    for _ in 0..3 {
        // The answer to the first may have been lost: the attempt is the caller's all the same.
        assert_eq!(f.store.begin_attempt(begin.clone()).await.unwrap(), Begun::Yes { sequence: 2 });
    }
    assert_eq!((f.call(&call).await.attempts.len(), f.log(&call).await.len()), (1, 2));
    let other = f.begin(&call);
    assert_eq!(f.store.begin_attempt(other).await.unwrap(), Begun::AlreadyEnded, "one at a time");
    let end = f.end_attempt(&of, None);
    let _ = f.store.end_attempt(end).await.unwrap();
    assert_eq!(f.store.begin_attempt(begin).await.unwrap(), Begun::AlreadyEnded, "it must not leave again");
    assert_eq!((f.call(&call).await.attempts.len(), f.log(&call).await.len()), (1, 3));
}

pub(crate) async fn news_that_is_repeated_changes_nothing(mut f: Fixture) {
    let of = f.sending().await;
    let ringing = f.advance(&of, At::Ringing, Rang::Yes, 1);
    for _ in 0..3 {
        assert_eq!(f.store.advance(ringing.clone()).await.unwrap(), Written::Yes { sequence: 3 });
    }
    let attempt = &f.call(&of.0).await.attempts[0];
    assert_eq!((attempt.ringing_at, f.log(&of.0).await.len()), (Some(ringing.at), 3));
}

pub(crate) async fn an_attempt_s_end_that_is_repeated_is_one(mut f: Fixture) {
    let of = f.sending().await;
    let end = f.end_attempt(&of, None);
    for _ in 0..3 {
        assert_eq!(f.store.end_attempt(end.clone()).await.unwrap(), Written::Yes { sequence: 3 });
    }
    // Another end of it, also one that looks the same, is not this one.
    let same = f.end_attempt(&of, None);
    assert_eq!(f.store.end_attempt(same).await.unwrap(), Written::AlreadyEnded);
    let mut other = end.clone();
    other.ending = EndingClass::UserBusy;
    assert_eq!(f.store.end_attempt(other).await.unwrap(), Written::AlreadyEnded);
    let with_call = EndAttempt { follows: Follows::End(failed()), ..end.clone() };
    assert_eq!(f.store.end_attempt(with_call).await.unwrap(), Written::AlreadyEnded);
    assert_eq!(f.log(&of.0).await.len(), 3);
    let begin = f.begin(&of.0);
    let _ = f.store.begin_attempt(begin).await.unwrap();
    assert_eq!(f.store.end_attempt(end).await.unwrap(), Written::Yes { sequence: 3 });
    assert_eq!(f.log(&of.0).await.len(), 4);
}

pub(crate) async fn strange_codes_are_kept(mut f: Fixture) {
    for (sip_code, q850) in [(0, 0), (99, 128), (700, 200), (999, 255)] {
        let of = f.sending().await;
        let mut end = f.end_attempt(&of, Some(failed()));
        (end.sip_code, end.q850) = (Some(sip_code), Some(q850));
        assert_eq!(f.store.end_attempt(end).await.unwrap(), Written::Yes { sequence: 3 });
        let attempt = &f.call(&of.0).await.attempts[0];
        assert_eq!((attempt.sip_code, attempt.q850), (Some(sip_code), Some(q850)));
    }
}

pub(crate) async fn nothing_is_written_of_what_never_was(mut f: Fixture) {
    let nowhere = CallId::new(NOON, &mut f.rng);
    let begin = f.begin(&nowhere);
    assert!(matches!(f.store.begin_attempt(begin).await, Err(StoreError::Missing { .. })));
    let end = f.end_call(&nowhere, NOON);
    assert!(matches!(f.store.end_call(end).await, Err(StoreError::Missing { .. })));
    let (call, _) = f.sending().await;
    let stranger = (call.clone(), AttemptId::new(&mut f.rng));
    let news = f.advance(&stranger, At::Ringing, Rang::Yes, 1);
    assert!(matches!(f.store.advance(news).await, Err(StoreError::Missing { .. })));
    let end = f.end_attempt(&stranger, Some(failed()));
    assert!(matches!(f.store.end_attempt(end).await, Err(StoreError::Missing { .. })));
    assert_eq!(f.log(&call).await.len(), 2);
}

pub(crate) async fn ends_are_told_of_a_node_s_own_attempts(mut f: Fixture) {
    let (ended, open) = (f.sending().await, f.sending().await);
    let end = f.end_attempt(&ended, None);
    let at = end.at;
    assert!(matches!(f.store.end_attempt(end).await.unwrap(), Written::Yes { .. }));
    let stranger = AttemptId::new(&mut f.rng);
    let asked = [stranger, open.1.clone(), ended.1.clone(), ended.1.clone()];
    let told = f.store.attempt_ends(&"waw-1".parse().unwrap(), &asked).await.unwrap();
    let mut expected = vec![
        AttemptEnd { attempt: ended.1, ended_at: Some(at), is_untold: false },
        AttemptEnd { attempt: open.1, ended_at: None, is_untold: false },
    ];
    expected.sort_by_key(|end| end.attempt.to_string());
    assert_eq!(told, expected);
    assert_eq!(f.store.attempt_ends(&"fra-1".parse().unwrap(), &asked).await.unwrap(), []);
    assert_eq!(f.store.attempt_ends(&"waw-1".parse().unwrap(), &[]).await.unwrap(), []);
}
