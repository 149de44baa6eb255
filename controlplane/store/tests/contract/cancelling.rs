//! Wishes that a call ends: durable, audited once, and of the call's own organisation.

use controlplane_core::{
    call::CallStatus,
    ids::{CallId, OrgId},
};
use controlplane_store::calls::{Actor, Call, CancelRequested, RequestCancel};
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON, at_once, system};

const AUDITED: &str = "SELECT count(*) FROM audit_log WHERE action = 'call.cancel' AND target_type = 'call'";

fn wish(f: &mut Fixture, call: &CallId, at: OffsetDateTime) -> RequestCancel {
    let (call, audit_id) = (call.clone(), f.audit_id());
    RequestCancel { org: OrgId::first(), call, at, actor: system(), audit_id }
}

fn recorded(answer: CancelRequested) -> Call {
    let CancelRequested::Recorded(call) = answer else { panic!("{answer:?}") };
    call
}

pub(crate) async fn a_cancel_is_recorded_once_with_its_audit_row(mut f: Fixture) {
    let (call, _) = f.sending().await;
    assert_eq!(f.call(&call).await.cancel_requested_at, None);
    let mut first = wish(&mut f, &call, NOON + Duration::seconds(3));
    first.actor = Actor { ip: Some("198.51.100.7".to_owned()), ..system() };
    let answered = recorded(f.store.request_cancel(first.clone()).await.unwrap());
    assert_eq!((answered.cancel_requested_at, answered.attempts.len()), (Some(first.at), 1));
    let row = &f.store.audit(1).await.unwrap()[0];
    assert_eq!(
        (row.record.id.as_str(), row.action.as_str(), &row.record.target_id[..]),
        (first.audit_id.as_str(), "call.cancel", call.as_str())
    );
    assert_eq!((&row.actor, row.occurred_at, &row.org), (&first.actor, first.at, &Some(OrgId::first())));
    // The same wish again, and a later one.
    let later = wish(&mut f, &call, NOON + Duration::seconds(8));
    for again in [first.clone(), later] {
        assert_eq!(recorded(f.store.request_cancel(again).await.unwrap()), answered);
    }
    assert_eq!(f.count(AUDITED).await, 1);
    let stored = f.call(&call).await;
    assert_eq!((stored.status, stored.sequence), (CallStatus::Initiated, 2), "it does not end the call");
    assert_eq!(stored, answered);
    assert_eq!(f.store.open_calls(None, 10).await.unwrap(), [answered]);
}

pub(crate) async fn fifty_cancels_are_one(mut f: Fixture) {
    let call = f.accepted(NOON).await;
    let work = (0..50).map(|s| {
        let (wish, store) = (wish(&mut f, &call, NOON + Duration::seconds(s)), f.store.clone());
        async move { recorded(store.request_cancel(wish).await.unwrap()).cancel_requested_at }
    });
    let moments = at_once(work.collect()).await;
    assert!(moments.iter().all(|at| at.is_some() && at == &moments[0]), "{moments:?}");
    assert_eq!(f.count(AUDITED).await, 1);
}

pub(crate) async fn an_ended_call_is_not_canceled(mut f: Fixture) {
    let call = f.accepted(NOON).await;
    let end = f.end_call(&call, NOON);
    let _ = f.store.end_call(end).await.unwrap();
    let late = wish(&mut f, &call, NOON + Duration::seconds(3));
    let answer = f.store.request_cancel(late).await.unwrap();
    let CancelRequested::AlreadyEnded(ended) = answer else { panic!("{answer:?}") };
    assert_eq!((ended.status, ended.cancel_requested_at), (CallStatus::Failed, None));
    assert_eq!(f.count(AUDITED).await, 0);
}

pub(crate) async fn a_cancel_stays_after_the_end(mut f: Fixture) {
    let call = f.accepted(NOON).await;
    let first = wish(&mut f, &call, NOON);
    recorded(f.store.request_cancel(first.clone()).await.unwrap());
    let end = f.end_call(&call, NOON + Duration::seconds(3));
    let _ = f.store.end_call(end).await.unwrap();
    assert_eq!(f.call(&call).await.cancel_requested_at, Some(NOON));
    let answer = f.store.request_cancel(first).await.unwrap();
    assert!(matches!(answer, CancelRequested::AlreadyEnded(_)), "{answer:?}");
}

pub(crate) async fn another_organisation_s_call_is_not_found(mut f: Fixture) {
    let other = f.other_org().await;
    let call = f.accepted(NOON).await;
    let foreign = RequestCancel { org: other, ..wish(&mut f, &call, NOON) };
    let answer = f.store.request_cancel(foreign).await.unwrap();
    assert!(matches!(answer, CancelRequested::NotFound), "{answer:?}");
    let nowhere = CallId::new(NOON, &mut f.rng);
    let answer = wish(&mut f, &nowhere, NOON);
    let answer = f.store.request_cancel(answer).await.unwrap();
    assert!(matches!(answer, CancelRequested::NotFound), "{answer:?}");
    assert_eq!((f.call(&call).await.cancel_requested_at, f.count(AUDITED).await), (None, 0));
}
