//! Traces of calls: their place is kept with them, and their spans are sent once they have ended.

use controlplane_core::{
    ids::{CallId, OrgId},
    trace::{Place, SpanId, TraceId, TraceState},
};
use controlplane_store::{
    calls::{Created, NewCall, Written},
    privacy::Part,
};
use time::Duration;

use crate::fixture::{Fixture, NOON, failed, promise};

fn place(n: u8, parent: Option<u8>, state: Option<&str>) -> Place {
    Place {
        trace: TraceId::new([n; 16]).unwrap(),
        parent: parent.and_then(|n| SpanId::new([n; 8])),
        state: state.and_then(TraceState::read),
    }
}

async fn followed(f: &mut Fixture, place: &Place) -> CallId {
    let new = NewCall { trace: Some(place.clone()), ..f.new_call(NOON) };
    let id = new.id.clone();
    assert!(matches!(f.store.create_call(new).await.unwrap(), Created::New(_)));
    id
}

async fn end(f: &mut Fixture, call: &CallId, s: i64) {
    let end = f.end_call(call, NOON + Duration::seconds(s));
    assert!(matches!(f.store.end_call(end).await.unwrap(), Written::Yes { .. }));
}

pub(crate) async fn a_call_s_place_is_kept_with_it(mut f: Fixture) {
    let places = [place(1, Some(2), Some("congo=t61")), place(3, None, None)];
    let alone = f.accepted(NOON).await;
    assert_eq!(f.store.trace(&alone).await.unwrap(), None);
    // Together with one that is not followed.
    let mut batch: Vec<NewCall> = (0..3).map(|_| f.new_call(NOON)).collect();
    (batch[0].trace, batch[2].trace) = (Some(places[0].clone()), Some(places[1].clone()));
    let ids: Vec<_> = batch.iter().map(|new| new.id.clone()).collect();
    assert_eq!(f.store.create_calls(batch.into()).await.unwrap().len(), 3);
    assert_eq!(f.store.trace(&ids[0]).await.unwrap().as_ref(), Some(&places[0]));
    assert_eq!(f.store.trace(&ids[1]).await.unwrap(), None);
    assert_eq!(f.store.trace(&ids[2]).await.unwrap().as_ref(), Some(&places[1]));
}

pub(crate) async fn a_call_asked_for_twice_keeps_its_first_place(mut f: Fixture) {
    let new = NewCall {
        trace: Some(place(1, Some(2), None)),
        idempotency: promise("alert-1", 1),
        ..f.new_call(NOON)
    };
    assert!(matches!(f.store.create_call(new.clone()).await.unwrap(), Created::New(_)));
    // The same write once more, and the same request once more.
    assert!(matches!(f.store.create_call(new.clone()).await.unwrap(), Created::Replayed(_)));
    let again = NewCall { trace: Some(place(9, Some(9), None)), ..f.again(&new, NOON) };
    assert!(matches!(f.store.create_call(again.clone()).await.unwrap(), Created::Replayed(_)));
    assert_eq!(f.store.trace(&new.id).await.unwrap(), new.trace);
    assert_eq!(f.store.trace(&again.id).await.unwrap(), None);
}

pub(crate) async fn what_has_ended_is_sent_once_oldest_first(mut f: Fixture) {
    let followed = [
        followed(&mut f, &place(1, None, None)).await,
        followed(&mut f, &place(2, Some(3), Some("a=b"))).await,
        followed(&mut f, &place(3, None, None)).await,
    ];
    let plain = f.accepted(NOON).await;
    let all: Vec<_> = followed.iter().chain([&plain]).cloned().collect();
    assert_eq!(f.store.unsent_traces(&all).await.unwrap(), [], "none has ended");
    for (n, call) in followed.iter().enumerate().take(2) {
        end(&mut f, call, i64::try_from(n).unwrap()).await;
    }
    end(&mut f, &plain, 0).await;
    let unsent = f.store.unsent_traces(&all).await.unwrap();
    assert_eq!(unsent.iter().map(|traced| &traced.call.id).collect::<Vec<_>>(), [&followed[0], &followed[1]]);
    assert_eq!(unsent[1].place, place(2, Some(3), Some("a=b")));
    assert_eq!(unsent[1].call, f.call(&followed[1]).await);
    assert_eq!(f.store.overdue_traces(NOON, 10).await.unwrap(), followed[..1]);
    let later = NOON + Duration::seconds(9);
    assert_eq!(f.store.overdue_traces(later, 1).await.unwrap(), followed[..1]);
    assert_eq!(f.store.overdue_traces(later, 10).await.unwrap(), followed[..2]);
    for _ in 0..2 {
        f.store.traces_sent(vec![followed[0].clone(), plain.clone()], later).await.unwrap();
    }
    assert_eq!(f.store.overdue_traces(later, 10).await.unwrap(), followed[1..2]);
    assert_eq!(f.store.unsent_traces(&all).await.unwrap().len(), 1);
    // Its place stays, for what is told of it later.
    assert!(f.store.trace(&followed[0]).await.unwrap().is_some());
    assert_eq!(f.store.give_up_traces(NOON, later).await.unwrap(), 0, "it ended later");
    assert_eq!(f.store.give_up_traces(later, later).await.unwrap(), 1, "the open one stays");
    assert_eq!(f.store.give_up_traces(later, later).await.unwrap(), 0);
    assert_eq!(f.count("SELECT count(*) FROM trace WHERE sent_at IS NULL").await, 1);
}

pub(crate) async fn an_attempt_s_facts_come_with_it(mut f: Fixture) {
    let call = followed(&mut f, &place(1, None, None)).await;
    let begin = f.begin(&call);
    let of = (call.clone(), begin.attempt.clone());
    let _ = f.store.begin_attempt(begin).await.unwrap();
    let ended = f.end_attempt(&of, Some(failed()));
    let _ = f.store.end_attempt(ended).await.unwrap();
    let unsent = f.store.unsent_traces(std::slice::from_ref(&call)).await.unwrap();
    assert_eq!(unsent[0].call.attempts.len(), 1);
    assert_eq!(unsent[0].call, f.call(&call).await);
}

pub(crate) async fn it_is_erased_with_its_call_and_a_customer_s_words_with_the_text(mut f: Fixture) {
    let call = followed(&mut f, &place(1, Some(2), Some("phone=48221234567"))).await;
    end(&mut f, &call, 0).await;
    let (org, by) = (OrgId::first(), NOON + Duration::SECOND);
    assert_eq!(f.store.strip_calls(&org, Part::Number, by, by, 9).await.unwrap(), 1);
    assert_eq!(f.store.trace(&call).await.unwrap(), Some(place(1, Some(2), None)));
    assert_eq!(f.store.erase_calls(&org, by, 9).await.unwrap(), 1);
    assert_eq!(f.count("SELECT count(*) FROM trace").await, 0);
}
