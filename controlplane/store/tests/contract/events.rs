//! Events in an order that no reader can be wrong about, and what is erased of them.

use std::sync::Arc;

use controlplane_core::{
    call::{AttemptStatus, Rang},
    ids::{EventId, OrgId},
};
use controlplane_store::{
    calls::{Call, Created, Transition},
    events::{Event, Purged, Subject},
};
use time::Duration;

use crate::fixture::{Fixture, NOON, failed, promise};

/// The call of an event, and its log.
pub(crate) fn told(event: &Event) -> (&Call, &[Transition]) {
    match &event.subject {
        Subject::Call(call, log) => (call, log),
        Subject::Endpoint(data) => panic!("of no call: {data}"),
    }
}

pub(crate) async fn events_tell_of_their_call_and_of_its_log_so_far(mut f: Fixture) {
    let of = f.sending().await;
    let rings = f.advance(&of, AttemptStatus::Ringing, Rang::Yes, 1);
    let _ = f.store.advance(rings).await.unwrap();
    let org = OrgId::first();
    assert!(f.store.events(&org, 0, 10).await.unwrap().events.is_empty(), "not numbered yet");
    assert_eq!(f.store.seal_events(NOON, 10).await.unwrap().events, 3);
    let events = f.store.events(&org, 0, 10).await.unwrap().events;
    let seen: Vec<_> =
        events.iter().map(|e| (e.position, e.kind.as_str(), e.sequence, told(e).1.len())).collect();
    // Position 1 is `queued`, which nobody is told of.
    assert_eq!(seen, [(2, "call.initiated", 2, 2), (3, "call.ringing", 3, 3)]);
    assert_eq!(*told(&events[1]).0, f.call(&of.0).await);
    assert_eq!(f.store.events(&org, 2, 10).await.unwrap().events, events[1..]);
    let page = f.store.events(&org, 0, 1).await.unwrap();
    assert_eq!((&page.events[..], page.through, page.has_more), (&events[..1], 2, true));
    assert!(!f.store.events(&org, 0, 2).await.unwrap().has_more);
    let ids = [events[1].id.clone(), f.event(), events[0].id.clone()];
    let mut by_ids = f.store.events_of(&org, &ids).await.unwrap();
    by_ids.sort_by_key(|event| event.position);
    assert_eq!(by_ids, events);
    assert_eq!(f.store.event_position(&org, &events[1].id).await.unwrap(), Some(3));
    let other = f.other_org().await;
    assert!(f.store.events(&other, 0, 10).await.unwrap().events.is_empty());
    assert_eq!(f.store.events_of(&other, &ids).await.unwrap(), []);
    assert_eq!(f.store.event_position(&other, &events[1].id).await.unwrap(), None);
}

/// Writers, sealers and a reader at the same time: what the reader has seen is all there is, once, in order.
pub(crate) async fn no_event_is_numbered_behind_a_reader(mut f: Fixture) {
    const WRITERS: usize = 8;
    const CALLS: usize = 15;
    let mut tasks = Vec::new();
    for _ in 0..WRITERS {
        let mut work = Vec::new();
        for _ in 0..CALLS {
            let new = f.new_call(NOON);
            let begin = f.begin(&new.id);
            let of = (new.id.clone(), begin.attempt.clone());
            let rings = f.advance(&of, AttemptStatus::Ringing, Rang::Yes, 1);
            work.push((new, begin, rings, f.end_attempt(&of, Some(failed()))));
        }
        let store = Arc::clone(&f.store);
        tasks.push(tokio::spawn(async move {
            for (new, begin, rings, end) in work {
                assert!(matches!(store.create_call(new).await.unwrap(), Created::New(_)));
                let _ = store.begin_attempt(begin).await.unwrap();
                let _ = store.advance(rings).await.unwrap();
                let _ = store.end_attempt(end).await.unwrap();
            }
        }));
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let sealers: Vec<_> = (0..3)
        .map(|_| {
            let (store, stopped) = (Arc::clone(&f.store), stopped.clone());
            tokio::spawn(async move {
                while !*stopped.borrow() || store.is_unsealed().await.unwrap() {
                    store.seal_events(NOON, 5).await.unwrap();
                }
            })
        })
        .collect();
    let expected = WRITERS * CALLS * 3;
    let (org, mut seen, mut position) = (OrgId::first(), Vec::new(), 0);
    let read = async {
        while seen.len() < expected {
            let page = f.store.events(&org, position, 7).await.unwrap();
            position = page.through;
            seen.extend(page.events);
        }
    };
    let write = async {
        for task in tasks {
            task.await.unwrap();
        }
        stop.send(true).unwrap();
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), async { tokio::join!(read, write) })
        .await
        .expect("the reader has skipped some");
    for sealer in sealers {
        sealer.await.unwrap();
    }
    assert_eq!(f.store.events(&org, 0, 1_000).await.unwrap().events.len(), expected);
    let mut last = std::collections::HashMap::new();
    for event in seen {
        let before = last.insert(told(&event).0.id.clone(), event.sequence).unwrap_or(1);
        assert_eq!(event.sequence, before + 1, "in order and without a gap");
    }
}

pub(crate) async fn the_past_is_purged_and_what_waits_stays(mut f: Fixture) {
    let mut new = f.new_call(NOON);
    new.idempotency = promise("alert-1", 1);
    let id = new.id.clone();
    assert!(matches!(f.store.create_call(new).await.unwrap(), Created::New(_)));
    let end = f.end_call(&id, NOON);
    let _ = f.store.end_call(end).await.unwrap();
    f.accepted(NOON).await;
    let (day, week) = (NOON + Duration::days(1), NOON + Duration::days(7));
    // The other call's event is not numbered.
    f.execute("UPDATE outbox SET position = NULL").await.unwrap();
    assert_eq!(f.store.purge(week, day - Duration::seconds(1), 100).await.unwrap(), Purged::default());
    f.store.seal_events(NOON, 100).await.unwrap();
    assert_eq!(f.store.purge(NOON, day, 100).await.unwrap(), Purged { events: 0, keys: 1 });
    assert_eq!(f.store.purge(week, day, 2).await.unwrap(), Purged { events: 2, keys: 0 });
    assert_eq!(f.store.purge(week, day, 2).await.unwrap(), Purged { events: 1, keys: 0 });
    // Numbers go on where they were.
    f.accepted(NOON).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    assert_eq!(f.count("SELECT min(position) FROM outbox").await, 4);
    assert_eq!(f.count("SELECT count(*) FROM call").await, 3);
}

pub(crate) async fn an_id_s_lower_bound_is_below_what_is_made_then(mut f: Fixture) {
    let at = NOON + Duration::milliseconds(5);
    let (made, before) =
        (EventId::new(at, &mut f.rng), EventId::new(at - Duration::milliseconds(1), &mut f.rng));
    assert!(EventId::earliest(at) <= made && before < EventId::earliest(at));
}
