//! Receivers, and what is delivered to them: once each, in order, by whoever holds the lease.

use std::collections::HashMap;

use controlplane_core::{
    call::{AttemptStatus, Rang},
    ids::{AttemptId, CallId, EndpointId, OrgId},
    request::EventFilter,
    webhook::{DISABLED_AFTER, DisabledReason, Next},
};
use controlplane_store::{
    StoreError,
    calls::{Created, NewCall},
    webhooks::{
        Change, Claim, Claimed, DeliveryPage, DeliveryState, ENDPOINTS_MAX, Endpoint, EndpointChange,
        LOGGED_MAX, Lane, Rotation, Secret, Secrets, Settle, Target,
    },
};
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON, at_once, failed, system};

pub(crate) fn change(f: &mut Fixture, at: OffsetDateTime) -> Change {
    Change { org: OrgId::first(), at, actor: system(), audit_id: f.audit_id() }
}

pub(crate) fn endpoint(f: &mut Fixture, events: &[&str]) -> Endpoint {
    Endpoint {
        id: EndpointId::new(NOON, &mut f.rng),
        org: OrgId::first(),
        url: "https://example.com/hook".to_owned(),
        description: "Ü".to_owned(),
        events: events.iter().map(|event| event.parse::<EventFilter>().unwrap()).collect(),
        secrets: Secrets { current: Secret(vec![7; 32]), previous: None },
        created_at: NOON,
        failing_since: None,
        disabled: None,
    }
}

pub(crate) async fn with_endpoint(f: &mut Fixture, events: &[&str]) -> Endpoint {
    let endpoint = endpoint(f, events);
    let change = change(f, NOON);
    assert!(f.store.create_endpoint(endpoint.clone(), change).await.unwrap());
    endpoint
}

/// A call that rang and ended: events 2, 3 and 4.
pub(crate) async fn finished(f: &mut Fixture) -> CallId {
    let of = f.sending().await;
    finish(f, &of).await;
    of.0
}

async fn finish(f: &mut Fixture, of: &(CallId, AttemptId)) {
    let rings = f.advance(of, AttemptStatus::Ringing, Rang::Yes, 1);
    let _ = f.store.advance(rings).await.unwrap();
    let end = f.end_attempt(of, Some(failed()));
    let _ = f.store.end_attempt(end).await.unwrap();
}

/// The first organisation's lane of this name.
pub(crate) fn lane_of(name: &str) -> Lane {
    Lane { org: OrgId::first(), name: name.to_owned() }
}

fn names(lanes: Vec<Lane>) -> Vec<String> {
    lanes.into_iter().map(|lane| lane.name).collect()
}

fn claim_at(lane: &str, now: OffsetDateTime) -> Claim {
    Claim {
        lane: lane_of(lane),
        owner: "one".to_owned(),
        now,
        until: now + Duration::minutes(1),
        limit: 10,
        callback_secret: Secret(vec![9; 32]),
    }
}

pub(crate) async fn claim(f: &Fixture, lane: &str, now: OffsetDateTime) -> Vec<Claimed> {
    f.store.claim_deliveries(claim_at(lane, now)).await.unwrap()
}

pub(crate) fn settle(f: &mut Fixture, claimed: &Claimed, at: OffsetDateTime, next: Next) -> Settle {
    Settle {
        event: claimed.event.clone(),
        target: claimed.target.clone(),
        epoch: claimed.epoch,
        at,
        took_ms: 12,
        status: Some(if next == Next::Delivered { 200 } else { 500 }),
        error: (next != Next::Delivered).then(|| "500".to_owned()),
        next,
        audit_id: f.audit_id(),
        disabled_id: f.event(),
    }
}

pub(crate) fn page() -> DeliveryPage {
    DeliveryPage { org: Some(OrgId::first()), target: None, state: None, starting_after: None, limit: 100 }
}

async fn kinds(f: &Fixture, state: Option<DeliveryState>) -> Vec<String> {
    let (deliveries, _) = f.store.deliveries(DeliveryPage { state, ..page() }).await.unwrap();
    let mut kinds: Vec<_> = deliveries.iter().map(|d| (d.sequence, d.kind)).collect();
    kinds.sort();
    kinds.into_iter().map(|(sequence, kind)| format!("{sequence} {kind}")).collect()
}

pub(crate) async fn an_endpoint_is_made_changed_rotated_and_removed_with_its_audit_rows(mut f: Fixture) {
    let mut endpoint = with_endpoint(&mut f, &["call.*"]).await;
    let (org, id) = (OrgId::first(), endpoint.id.clone());
    assert_eq!(f.store.endpoints(&org).await.unwrap(), [endpoint.clone()]);
    let what = EndpointChange {
        url: Some("https://example.org/".to_owned()),
        events: Some(vec!["call.finished".parse().unwrap()]),
        enabled: Some(false),
        ..EndpointChange::default()
    };
    let by = change(&mut f, NOON + Duration::hours(1));
    let changed = f.store.change_endpoint(id.clone(), what.clone(), by).await.unwrap().unwrap();
    endpoint.url = "https://example.org/".to_owned();
    endpoint.events = what.events.unwrap();
    endpoint.disabled = Some((NOON + Duration::hours(1), DisabledReason::Owner));
    assert_eq!(changed, endpoint);
    let by = change(&mut f, NOON);
    let rotation = Rotation { secret: Secret(vec![8; 32]), previous_until: NOON + Duration::hours(24) };
    let rotated = f.store.rotate_endpoint(id.clone(), rotation, by).await.unwrap().unwrap();
    endpoint.secrets = Secrets {
        current: Secret(vec![8; 32]),
        previous: Some((Secret(vec![7; 32]), NOON + Duration::hours(24))),
    };
    assert_eq!(rotated, endpoint);
    let other = f.other_org().await;
    assert_eq!(f.store.endpoint(&other, &id).await.unwrap(), None);
    assert_eq!(f.store.endpoint(&org, &id).await.unwrap(), Some(endpoint));
    let foreign = Change { org: other, ..change(&mut f, NOON) };
    assert!(!f.store.delete_endpoint(id.clone(), foreign).await.unwrap());
    let by = change(&mut f, NOON);
    assert!(f.store.delete_endpoint(id.clone(), by.clone()).await.unwrap());
    assert!(!f.store.delete_endpoint(id, by).await.unwrap());
    let mut actions: Vec<_> = f.store.audit(20).await.unwrap().into_iter().map(|row| row.action).collect();
    actions.sort();
    let of = |action| format!("webhook_endpoint.{action}");
    assert_eq!(actions, ["create", "delete", "rotate_secret", "update"].map(of));
}

pub(crate) async fn an_organisation_has_so_many_endpoints_and_no_more(mut f: Fixture) {
    for n in 0..=ENDPOINTS_MAX {
        let (endpoint, change) = (endpoint(&mut f, &["call.*"]), change(&mut f, NOON));
        assert_eq!(f.store.create_endpoint(endpoint, change).await.unwrap(), n < ENDPOINTS_MAX);
    }
}

pub(crate) async fn twenty_endpoints_at_once_stay_within_the_limit(mut f: Fixture) {
    for _ in 1..ENDPOINTS_MAX {
        with_endpoint(&mut f, &["call.*"]).await;
    }
    let work = (0..20).map(|_| {
        let (store, endpoint, change) =
            (f.store.clone(), endpoint(&mut f, &["call.*"]), change(&mut f, NOON));
        async move { store.create_endpoint(endpoint, change).await.unwrap() }
    });
    let made = at_once(work.collect()).await;
    assert_eq!(made.into_iter().filter(|made| *made).count(), 1);
    assert_eq!(f.count("SELECT count(*) FROM webhook_endpoint").await, i64::from(ENDPOINTS_MAX));
}

pub(crate) async fn events_become_deliveries_once_and_only_for_who_wants_them(mut f: Fixture) {
    finished(&mut f).await;
    assert!(f.store.is_unsealed().await.unwrap());
    // Nobody listens: nothing is kept.
    assert_eq!(f.store.seal_events(NOON, 100).await.unwrap().lanes, Vec::<Lane>::new());
    assert_eq!(f.count("SELECT count(*) FROM webhook_delivery").await, 0);
    assert!(!f.store.is_unsealed().await.unwrap());
    let all = with_endpoint(&mut f, &["call.*"]).await;
    let end = with_endpoint(&mut f, &["call.finished"]).await;
    finished(&mut f).await;
    let mut lanes = names(f.store.seal_events(NOON, 100).await.unwrap().lanes);
    lanes.sort();
    let mut both = [all.id.as_str(), end.id.as_str()];
    both.sort_unstable();
    assert_eq!(lanes, both);
    assert_eq!(f.store.seal_events(NOON, 100).await.unwrap().events, 0);
    let expected =
        ["2 call.initiated", "3 call.ringing", "4 call.finished", "4 call.finished"].map(str::to_owned);
    assert_eq!(kinds(&f, None).await, expected);
    assert_eq!(kinds(&f, Some(DeliveryState::Pending)).await.len(), 4);
    let target = Some(Target::Endpoint(end.id));
    let (of_end, more) = f.store.deliveries(DeliveryPage { target, ..page() }).await.unwrap();
    assert_eq!((of_end.len(), more), (1, false));
    let other = f.other_org().await;
    let (foreign, _) = f.store.deliveries(DeliveryPage { org: Some(other), ..page() }).await.unwrap();
    assert_eq!(foreign, []);
}

pub(crate) async fn a_callback_is_a_receiver_of_its_own_call(mut f: Fixture) {
    let mut new = f.new_call(NOON);
    let callback = serde_json::json!({"url": "https://example.com:8443/x", "events": ["call.finished"]});
    new.request.callback = Some(serde_json::from_value(callback).unwrap());
    let (id, org) = (new.id.clone(), OrgId::first());
    assert!(matches!(f.store.create_call(new).await.unwrap(), Created::New(_)));
    finished(&mut f).await;
    let end = f.end_call(&id, NOON);
    let _ = f.store.end_call(end).await.unwrap();
    let lane = format!("{org} https://example.com:8443");
    assert_eq!(f.store.seal_events(NOON, 100).await.unwrap().lanes, [lane_of(&lane)]);
    let claimed = claim(&f, &lane, NOON).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(
        (&claimed[0].target, claimed[0].url.as_str()),
        (&Target::Callback, "https://example.com:8443/x")
    );
    // The secret was made by the claim, and stays.
    assert_eq!(claimed[0].secrets.current, Secret(vec![9; 32]));
    let kept = f.store.callback_secrets(org.clone(), Secret(vec![1; 32])).await.unwrap();
    assert_eq!(kept, claimed[0].secrets);
    let by = change(&mut f, NOON);
    let rotation = Rotation { secret: Secret(vec![2; 32]), previous_until: NOON + Duration::hours(1) };
    let rotated = f.store.rotate_callback(rotation, by).await.unwrap();
    assert_eq!(rotated.current, Secret(vec![2; 32]));
    assert_eq!(rotated.previous, Some((kept.current, NOON + Duration::hours(1))));
    let delivered = settle(&mut f, &claimed[0], NOON, Next::Delivered);
    assert_eq!(f.store.settle_delivery(delivered).await.unwrap(), None);
    assert_eq!(kinds(&f, Some(DeliveryState::Delivered)).await, ["2 call.finished"]);
}

pub(crate) async fn of_a_call_only_the_first_is_sent_until_it_is_settled(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.*"]).await;
    let lane = endpoint.id.as_str();
    finished(&mut f).await;
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    assert_eq!(f.store.due_lanes(NOON, 10, 10).await.unwrap(), [lane_of(lane)]);
    let first = claim(&f, lane, NOON).await;
    assert_eq!(first.len(), 2, "the first of each call");
    assert!(claim(&f, lane, NOON).await.is_empty());
    let later = NOON + Duration::minutes(5);
    let again = settle(&mut f, &first[0], NOON, Next::Again(later));
    f.store.settle_delivery(again).await.unwrap();
    let delivered = settle(&mut f, &first[1], NOON, Next::Delivered);
    f.store.settle_delivery(delivered).await.unwrap();
    // The call whose first event waits has nothing due; the other one goes on.
    let second = claim(&f, lane, NOON).await;
    assert_eq!(second.len(), 1);
    let dead = settle(&mut f, &second[0], NOON, Next::Dead);
    f.store.settle_delivery(dead).await.unwrap();
    let third = claim(&f, lane, NOON).await;
    assert_eq!(third.len(), 1, "what is dead holds nothing up");
    assert!(f.store.due_lanes(NOON, 10, 10).await.unwrap().is_empty());
    let retried = claim(&f, lane, later).await;
    let events: Vec<_> = retried.iter().map(|claimed| (&claimed.event, claimed.tries)).collect();
    // The third one's lease is over by then: it is sent again, at least once.
    assert_eq!(events, [(&third[0].event, 0), (&first[0].event, 1)]);
}

pub(crate) async fn what_waited_behind_a_retry_follows_at_once(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.*"]).await;
    let lane = endpoint.id.as_str();
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    let first = claim(&f, lane, NOON).await;
    let later = NOON + Duration::hours(5);
    let again = settle(&mut f, &first[0], NOON, Next::Again(later));
    f.store.settle_delivery(again).await.unwrap();
    assert!(f.store.due_lanes(later - Duration::seconds(1), 10, 10).await.unwrap().is_empty());
    for sequence in 2..=4 {
        let claimed = claim(&f, lane, later).await;
        assert_eq!(claimed.len(), 1, "{sequence}");
        let delivered = settle(&mut f, &claimed[0], later, Next::Delivered);
        f.store.settle_delivery(delivered).await.unwrap();
    }
    let all = ["2 call.initiated", "3 call.ringing", "4 call.finished"];
    assert_eq!(kinds(&f, Some(DeliveryState::Delivered)).await, all);
}

pub(crate) async fn an_older_owner_s_late_answer_is_refused(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.initiated"]).await;
    let lane = endpoint.id.as_str();
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    let old = claim(&f, lane, NOON).await;
    let later = NOON + Duration::minutes(2);
    let new = claim(&f, lane, later).await;
    assert_eq!((new.len(), new[0].epoch), (1, old[0].epoch + 1));
    for next in [Next::Delivered, Next::Dead, Next::Gone] {
        let late = settle(&mut f, &old[0], later, next);
        let refused = f.store.settle_delivery(late).await.unwrap_err();
        assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    }
    assert_eq!(kinds(&f, Some(DeliveryState::Pending)).await.len(), 1);
    let in_time = settle(&mut f, &new[0], later, Next::Delivered);
    f.store.settle_delivery(in_time.clone()).await.unwrap();
    assert!(matches!(f.store.settle_delivery(in_time).await, Err(StoreError::Fenced { .. })));
    assert_eq!(f.count("SELECT count(*) FROM webhook_try").await, 1);
}

pub(crate) async fn twenty_claims_at_once_take_each_delivery_once(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.*"]).await;
    for _ in 0..30 {
        finished(&mut f).await;
    }
    let work = (0..4).map(|_| {
        let store = f.store.clone();
        async move { store.seal_events(NOON, 10).await.unwrap().events }
    });
    let mut sealed: u64 = at_once(work.collect()).await.into_iter().sum();
    while f.store.is_unsealed().await.unwrap() {
        sealed += f.store.seal_events(NOON, 10).await.unwrap().events;
    }
    assert_eq!(sealed, 120);
    assert_eq!(f.count("SELECT count(DISTINCT position) FROM outbox").await, 120);
    assert_eq!(f.store.last_position().await.unwrap(), 120);
    let work = (0..20).map(|_| {
        let (store, claim) = (f.store.clone(), claim_at(endpoint.id.as_str(), NOON));
        async move { store.claim_deliveries(claim).await.unwrap() }
    });
    let mut times = HashMap::new();
    for claimed in at_once(work.collect()).await.into_iter().flatten() {
        *times.entry(claimed.event).or_insert(0) += 1;
    }
    assert_eq!(times.len(), 30, "the first of each call");
    assert!(times.values().all(|times| *times == 1));
}

pub(crate) async fn every_organisation_s_first_lane_is_before_anybody_s_second(mut f: Fixture) {
    let mut lanes = Vec::new();
    for _ in 0..5 {
        lanes.push(with_endpoint(&mut f, &["call.finished"]).await.id);
    }
    let other = f.other_org().await;
    let foreign = Endpoint { org: other.clone(), ..endpoint(&mut f, &["call.finished"]) };
    let by = Change { org: other.clone(), ..change(&mut f, NOON) };
    assert!(f.store.create_endpoint(foreign.clone(), by).await.unwrap());
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    // The other organisation's comes last, and its only lane is one of the first two all the same.
    let new = NewCall { org: other.clone(), ..f.new_call(NOON) };
    let call = new.id.clone();
    assert!(matches!(f.store.create_call(new).await.unwrap(), Created::New(_)));
    let end = f.end_call(&call, NOON);
    let _ = f.store.end_call(end).await.unwrap();
    let later = NOON + Duration::minutes(1);
    f.store.seal_events(later, 100).await.unwrap();
    let due = f.store.due_lanes(later, 10, 2).await.unwrap();
    assert_eq!(due.iter().filter(|lane| lane.org == other).count(), 1, "{due:?}");
    let due = f.store.due_lanes(later, 10, 10).await.unwrap();
    assert_eq!((due.len(), &due[1].name), (6, &foreign.id.to_string()));
    let few = f.store.due_lanes(later, 2, 10).await.unwrap();
    assert_eq!(few.len(), 3, "two of the first, one of the other: {few:?}");
    assert!(f.store.due_lanes(NOON - Duration::seconds(1), 10, 10).await.unwrap().is_empty());
}

pub(crate) async fn an_endpoint_is_disabled_when_it_is_gone_or_fails_for_days(mut f: Fixture) {
    for (reason, hours) in [(DisabledReason::Gone, 0), (DisabledReason::Failing, 72)] {
        let endpoint = with_endpoint(&mut f, &["call.*"]).await;
        let lane = endpoint.id.as_str();
        finished(&mut f).await;
        f.store.seal_events(NOON, 100).await.unwrap();
        let mut now = NOON;
        let claimed = claim(&f, lane, now).await;
        let end = if reason == DisabledReason::Gone {
            settle(&mut f, &claimed[0], now, Next::Gone)
        } else {
            let again = settle(&mut f, &claimed[0], now, Next::Again(now + Duration::hours(6)));
            assert_eq!(f.store.settle_delivery(again).await.unwrap(), None);
            for n in 1..12 {
                now = NOON + Duration::hours(6 * n);
                let claimed = claim(&f, lane, now).await;
                let again = settle(&mut f, &claimed[0], now, Next::Again(now));
                assert_eq!(f.store.settle_delivery(again).await.unwrap(), None, "not yet three days");
            }
            now = NOON + DISABLED_AFTER;
            let claimed = claim(&f, lane, now).await;
            settle(&mut f, &claimed[0], now, Next::Again(now))
        };
        assert_eq!(f.store.settle_delivery(end).await.unwrap(), Some(reason));
        let kept = f.store.endpoint(&OrgId::first(), &endpoint.id).await.unwrap().unwrap();
        assert_eq!(kept.disabled, Some((NOON + Duration::hours(hours), reason)));
        let disabled = format!(
            "SELECT count(*) FROM audit_log WHERE action = 'webhook_endpoint.disable' AND target_id = '{}'",
            endpoint.id
        );
        assert_eq!(f.count(&disabled).await, 1);
        // What it had not got is given up, and nothing new is made for it.
        finished(&mut f).await;
        f.store.seal_events(now, 100).await.unwrap();
        assert_eq!(kinds(&f, Some(DeliveryState::Pending)).await, Vec::<String>::new());
        assert_eq!(kinds(&f, Some(DeliveryState::Dead)).await.len(), 3);
        assert_eq!(f.store.webhook_counts().await.unwrap().disabled, 1);
        let by = change(&mut f, now);
        assert!(f.store.delete_endpoint(endpoint.id, by).await.unwrap());
        assert_eq!(f.count("SELECT count(*) FROM webhook_try").await, 0);
    }
}

pub(crate) async fn one_delivery_ends_a_time_of_failures(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.initiated"]).await;
    let since = async |f: &Fixture| {
        f.store.endpoint(&OrgId::first(), &endpoint.id).await.unwrap().unwrap().failing_since
    };
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    let lane = endpoint.id.as_str();
    let first = claim(&f, lane, NOON).await;
    let again = settle(&mut f, &first[0], NOON, Next::Again(NOON));
    f.store.settle_delivery(again).await.unwrap();
    assert_eq!(since(&f).await, Some(NOON));
    let second = claim(&f, lane, NOON).await;
    let delivered = settle(&mut f, &second[0], NOON, Next::Delivered);
    f.store.settle_delivery(delivered).await.unwrap();
    assert_eq!(since(&f).await, None);
}

pub(crate) async fn a_delivery_is_replayed_with_its_log_kept_within_bounds(mut f: Fixture) {
    let endpoint = with_endpoint(&mut f, &["call.finished"]).await;
    let (lane, target) = (endpoint.id.as_str(), Target::Endpoint(endpoint.id.clone()));
    finished(&mut f).await;
    f.store.seal_events(NOON, 100).await.unwrap();
    let mut event = None;
    for n in 0..LOGGED_MAX + 5 {
        let claimed = claim(&f, lane, NOON).await;
        assert_eq!((claimed.len(), claimed[0].tries), (1, 0));
        let dead = settle(&mut f, &claimed[0], NOON + Duration::seconds(n.into()), Next::Dead);
        f.store.settle_delivery(dead).await.unwrap();
        let id = event.get_or_insert(claimed[0].event.clone()).clone();
        assert_eq!(claimed[0].event, id, "the same event");
        let by = change(&mut f, NOON);
        let other = f.audit_id();
        assert!(
            !f.store
                .replay_delivery(id.clone(), Target::Callback, None, Change { audit_id: other, ..by.clone() })
                .await
                .unwrap()
        );
        assert!(f.store.replay_delivery(id, target.clone(), Some(OrgId::first()), by).await.unwrap());
    }
    let (deliveries, _) = f.store.deliveries(page()).await.unwrap();
    assert_eq!(deliveries[0].log.len(), usize::from(LOGGED_MAX));
    assert_eq!(deliveries[0].log[0].at, NOON + Duration::seconds(5));
    assert_eq!(deliveries[0].last_status, Some(500));
    // Nobody replays to an endpoint that is disabled.
    let (by, what) =
        (change(&mut f, NOON), EndpointChange { enabled: Some(false), ..EndpointChange::default() });
    f.store.change_endpoint(endpoint.id, what, by).await.unwrap();
    let by = change(&mut f, NOON);
    assert!(!f.store.replay_delivery(event.unwrap(), target, None, by).await.unwrap());
}
