//! Lists of deliveries and events in pages: whatever comes in between, and whatever cannot be read.

use std::collections::HashSet;

use controlplane_core::ids::{EventId, OrgId};
use controlplane_store::webhooks::{DeliveryPage, Target};

use crate::{
    events::told,
    fixture::{Fixture, NOON},
    webhooks::{finished, page, with_endpoint},
};

/// Events and receivers of the deliveries that follow, page by page.
async fn rest(f: &Fixture, first: &DeliveryPage) -> Vec<(EventId, Target)> {
    let (mut seen, mut page) = (Vec::new(), first.clone());
    loop {
        let (deliveries, more) = f.store.deliveries(page.clone()).await.unwrap();
        page.starting_after = deliveries.last().map(|delivery| delivery.event.clone());
        seen.extend(deliveries.into_iter().map(|delivery| (delivery.event, delivery.target)));
        if !more {
            return seen;
        }
    }
}

pub(crate) async fn deliveries_that_come_while_a_list_is_read_move_nothing(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.*"]).await;
    for _ in 0..3 {
        finished(&mut f).await;
    }
    f.store.seal_events(NOON, 100).await.unwrap();
    let first = DeliveryPage { target: Some(Target::Endpoint(endpoint.id)), limit: 2, ..page() };
    let before = rest(&f, &first).await;
    assert_eq!(before.len(), 9);
    let (deliveries, more) = f.store.deliveries(first.clone()).await.unwrap();
    assert!(more);
    // Of the same moment: their ids are anywhere among the others'.
    for _ in 0..3 {
        finished(&mut f).await;
    }
    f.store.seal_events(NOON, 100).await.unwrap();
    let after = DeliveryPage { starting_after: Some(deliveries[1].event.clone()), ..first.clone() };
    assert_eq!(rest(&f, &after).await, before[2..], "what was there follows");
    let now = rest(&f, &first).await;
    assert_eq!((now.len(), &now[9..]), (18, &before[..]), "what came stands before it");
}

pub(crate) async fn an_event_s_deliveries_are_not_torn_apart_by_a_page_s_end(mut f: Fixture) {
    for _ in 0..3 {
        with_endpoint(&mut f, &["call.*"]).await;
    }
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    for limit in [1, 2, 4, 9] {
        let seen = rest(&f, &DeliveryPage { org: None, limit, ..page() }).await;
        let apart: HashSet<_> = seen.iter().cloned().collect();
        assert_eq!((seen.len(), apart.len()), (9, 9), "{limit}");
    }
}

async fn spoil(f: &Fixture, call: &controlplane_core::ids::CallId) {
    f.execute(&format!("UPDATE call SET request = '{{}}' WHERE id = '{call}'")).await.unwrap();
}

pub(crate) async fn events_that_cannot_be_read_end_no_list(mut f: Fixture) {
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(finished(&mut f).await);
        f.store.seal_events(NOON, 100).await.unwrap();
    }
    for call in &calls[..3] {
        spoil(&f, call).await;
    }
    // A log with a word of the future in it spoils its own call only.
    f.execute(&format!("UPDATE call_transition SET status = 'zz' WHERE call_id = '{}'", calls[1]))
        .await
        .unwrap();
    let page = f.store.events(&OrgId::first(), 0, 2).await.unwrap();
    assert!(page.events.iter().all(|event| told(event).0.id == calls[3]));
    assert_eq!(page.events.len(), 2, "a page is filled with what can be read");
    assert_eq!((page.has_more, page.passed_over, page.through), (true, 9, page.events[1].position));
    // Where nothing can be read, whoever follows goes on all the same.
    spoil(&f, &calls[3]).await;
    let page = f.store.events(&OrgId::first(), 0, 2).await.unwrap();
    assert_eq!((page.events.len(), page.through, page.has_more), (0, 16, false));
}

pub(crate) async fn a_delivery_that_cannot_be_read_hides_no_other(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.*"]).await;
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    f.execute("UPDATE webhook_delivery SET kind = 'call.of_the_future' WHERE sequence = 3").await.unwrap();
    let first = DeliveryPage { target: Some(Target::Endpoint(endpoint.id)), limit: 1, ..page() };
    assert_eq!(rest(&f, &first).await.len(), 2);
}
