//! When a receiver gets no more events, and who is told.

use controlplane_core::{
    ids::OrgId,
    webhook::{DISABLED_AFTER, DISABLED_TRIES, DisabledReason, FAILING_GAP_MAX, Next},
};
use controlplane_store::{
    events::Subject,
    webhooks::{DeliveryState, Endpoint},
};
use time::{Duration, OffsetDateTime};

use crate::{
    fixture::{Fixture, NOON},
    webhooks::{claim, finished, page, settle, with_endpoint},
};

/// One try that fails now and is to be made again then.
async fn fails(
    f: &mut Fixture,
    endpoint: &Endpoint,
    at: OffsetDateTime,
    again: OffsetDateTime,
) -> Option<DisabledReason> {
    let claimed = claim(f, endpoint.id.as_str(), at).await;
    let failed = settle(f, &claimed[0], at, Next::Again(again));
    f.store.settle_delivery(failed).await.unwrap()
}

async fn kept(f: &Fixture, endpoint: &Endpoint) -> Endpoint {
    f.store.endpoint(&OrgId::first(), &endpoint.id).await.unwrap().unwrap()
}

pub(crate) async fn a_failure_long_ago_and_one_now_disable_nothing(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.finished"]).await;
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    let later = NOON + Duration::days(5);
    assert_eq!(fails(&mut f, &endpoint, NOON, later).await, None);
    assert_eq!(fails(&mut f, &endpoint, later, later).await, None, "one try in five days");
    let kept = kept(&f, &endpoint).await;
    assert_eq!((kept.disabled, kept.failing_since), (None, Some(later)), "it counts anew");
}

pub(crate) async fn an_event_that_cannot_be_read_is_no_failure_of_its_receiver(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.finished"]).await;
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    let claimed = claim(&f, endpoint.id.as_str(), NOON).await;
    let unread = settle(&mut f, &claimed[0], NOON, Next::Unreadable);
    assert_eq!(f.store.settle_delivery(unread).await.unwrap(), None);
    assert_eq!(kept(&f, &endpoint).await.failing_since, None);
    assert_eq!(f.store.webhook_counts().await.unwrap().pending, 0, "it is dead");
}

pub(crate) async fn three_days_of_failures_without_a_break_disable(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.finished"]).await;
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    let (mut now, mut tries) = (NOON, 0);
    while now - NOON < DISABLED_AFTER {
        let next = (now + FAILING_GAP_MAX).min(NOON + DISABLED_AFTER);
        assert_eq!(fails(&mut f, &endpoint, now, next).await, None, "not yet three days");
        (now, tries) = (next, tries + 1);
    }
    // Three days alone are not enough.
    while tries < DISABLED_TRIES - 1 {
        assert_eq!(fails(&mut f, &endpoint, now, now).await, None, "only {tries} tries");
        tries += 1;
    }
    assert_eq!(kept(&f, &endpoint).await.failing_since, Some(NOON));
    assert_eq!(fails(&mut f, &endpoint, now, now).await, Some(DisabledReason::Failing));
    assert_eq!(kept(&f, &endpoint).await.disabled, Some((now, DisabledReason::Failing)));
}

pub(crate) async fn an_endpoint_s_end_is_told_to_the_others(mut f: Fixture) {
    let gone = with_endpoint(&mut f, &["call.*"]).await;
    let other = with_endpoint(&mut f, &["call.acknowledged"]).await;
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    let last = f.store.last_position().await.unwrap();
    let claimed = claim(&f, gone.id.as_str(), NOON).await;
    let end = settle(&mut f, &claimed[0], NOON, Next::Gone);
    let id = end.disabled_id.clone();
    assert_eq!(f.store.settle_delivery(end).await.unwrap(), Some(DisabledReason::Gone));
    assert!(f.store.is_unsealed().await.unwrap());
    let sealed = f.store.seal_events(NOON, 100).await.unwrap();
    assert_eq!((sealed.events, sealed.orgs.as_slice()), (1, &[OrgId::first()][..]));
    assert_eq!(sealed.lanes, [crate::webhooks::lane_of(other.id.as_str())]);
    let events = f.store.events(&OrgId::first(), last, 10).await.unwrap().events;
    assert_eq!((events.len(), &events[0].id, events[0].kind.as_str()), (1, &id, "endpoint.disabled"));
    let Subject::Endpoint(data) = &events[0].subject else { panic!("{events:?}") };
    for (field, value) in [("id", gone.id.as_str()), ("disabled_reason", "gone"), ("url", &gone.url)] {
        assert_eq!(data[field], value, "{data}");
    }
    assert!(data.get("secret").is_none(), "{data}");
    let sent = claim(&f, other.id.as_str(), NOON).await;
    assert_eq!((sent.len(), &sent[0].event), (1, &id));
    let taken = settle(&mut f, &sent[0], NOON, Next::Delivered);
    f.store.settle_delivery(taken).await.unwrap();
    let (deliveries, _) = f.store.deliveries(page()).await.unwrap();
    assert_eq!((&deliveries[0].event, &deliveries[0].call), (&id, &None));
    assert_eq!(deliveries[0].state(), DeliveryState::Delivered);
    let week = NOON + Duration::days(7);
    assert_eq!(f.store.purge(week, NOON, 100).await.unwrap().events, 5);
}
