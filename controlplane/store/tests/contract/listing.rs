//! Lists: newest first, stable, and of one organisation.

use controlplane_core::{
    call::CallStatus,
    ids::{CallId, OrgId},
};
use controlplane_store::calls::Page;
use time::Duration;

use crate::fixture::{Fixture, NOON};

const ALL: Page = Page { limit: 100, starting_after: None, ending_before: None, status: None };

/// Calls made a second apart, oldest first.
async fn calls(f: &mut Fixture, count: i64) -> Vec<CallId> {
    let mut ids = Vec::new();
    for s in 0..count {
        ids.push(f.accepted(NOON + Duration::seconds(s)).await);
    }
    ids
}

async fn page(f: &Fixture, page: Page) -> (Vec<CallId>, bool) {
    let page = f.store.list_calls(&OrgId::first(), page).await.unwrap();
    (page.calls.into_iter().map(|c| c.id).collect(), page.has_more)
}

fn newest_first(ids: &[CallId]) -> Vec<CallId> {
    ids.iter().rev().cloned().collect()
}

pub(crate) async fn pages_are_stable_under_inserts(mut f: Fixture) {
    assert_eq!(page(&f, ALL).await, (vec![], false));
    let ids = calls(&mut f, 5).await;
    assert_eq!(page(&f, ALL).await, (newest_first(&ids), false));
    let (first, more) = page(&f, Page { limit: 2, ..ALL }).await;
    assert_eq!((&first, more), (&newest_first(&ids[3..]), true));
    f.accepted(NOON + Duration::hours(1)).await;
    let after = |ids: &[CallId]| ids.last().cloned();
    let (second, more) = page(&f, Page { limit: 2, starting_after: after(&first), ..ALL }).await;
    assert_eq!((&second, more), (&newest_first(&ids[1..3]), true));
    let (third, more) = page(&f, Page { limit: 2, starting_after: after(&second), ..ALL }).await;
    assert_eq!((&third, more), (&newest_first(&ids[..1]), false));
    let exact = page(&f, Page { limit: 1, starting_after: after(&second), ..ALL }).await;
    assert_eq!(exact, (newest_first(&ids[..1]), false), "a full last page has no more");
    assert_eq!(page(&f, Page { starting_after: after(&third), ..ALL }).await, (vec![], false));
}

pub(crate) async fn pages_backwards_are_the_nearest_newer_ones(mut f: Fixture) {
    let ids = calls(&mut f, 5).await;
    let before = |i: usize| Page { limit: 2, ending_before: Some(ids[i].clone()), ..ALL };
    assert_eq!(page(&f, before(0)).await, (newest_first(&ids[1..3]), true));
    assert_eq!(page(&f, before(2)).await, (newest_first(&ids[3..5]), false));
    assert_eq!(page(&f, before(3)).await, (newest_first(&ids[4..]), false));
    assert_eq!(page(&f, before(4)).await, (vec![], false));
    let between = Page { starting_after: Some(ids[4].clone()), ending_before: Some(ids[1].clone()), ..ALL };
    assert_eq!(page(&f, between).await, (newest_first(&ids[2..4]), false));
}

pub(crate) async fn other_organisations_are_invisible(mut f: Fixture) {
    let other = f.other_org().await;
    let mut foreign = f.new_call(NOON);
    foreign.org = other.clone();
    f.store.create_call(foreign.clone()).await.unwrap();
    assert_eq!(page(&f, ALL).await, (vec![], false));
    assert_eq!(f.store.call(&OrgId::first(), &foreign.id).await.unwrap(), None);
    assert!(f.store.transitions(&OrgId::first(), &foreign.id).await.unwrap().is_empty());
    assert_eq!(f.store.call(&other, &foreign.id).await.unwrap().unwrap().id, foreign.id);
    assert_eq!(f.store.transitions(&other, &foreign.id).await.unwrap().len(), 1);
    assert_eq!(f.store.list_calls(&other, ALL).await.unwrap().calls.len(), 1);
}

pub(crate) async fn a_status_filters(mut f: Fixture) {
    let ids = calls(&mut f, 4).await;
    for id in [&ids[0], &ids[2]] {
        let end = f.end_call(id, NOON);
        let _ = f.store.end_call(end).await.unwrap();
    }
    let with = |status| Page { limit: 1, status: Some(status), ..ALL };
    assert_eq!(page(&f, with(CallStatus::Failed)).await, (vec![ids[2].clone()], true));
    let next = Page { starting_after: Some(ids[2].clone()), ..with(CallStatus::Failed) };
    assert_eq!(page(&f, next).await, (vec![ids[0].clone()], false));
    assert_eq!(page(&f, with(CallStatus::Queued)).await, (vec![ids[3].clone()], true));
    assert_eq!(page(&f, with(CallStatus::Ringing)).await, (vec![], false));
}

pub(crate) async fn open_calls_come_oldest_first_and_leave_at_their_end(mut f: Fixture) {
    let ids = calls(&mut f, 4).await;
    let begin = f.begin(&ids[1]);
    let _ = f.store.begin_attempt(begin).await.unwrap();
    let end = f.end_call(&ids[2], NOON);
    let _ = f.store.end_call(end).await.unwrap();
    let first = f.store.open_calls(None, 2).await.unwrap();
    assert!(first.iter().map(|c| &c.id).eq(&ids[..2]));
    assert_eq!((first[0].attempts.len(), first[1].attempts.len()), (0, 1));
    let rest = f.store.open_calls(Some(&ids[1]), 2).await.unwrap();
    assert!(rest.iter().map(|c| &c.id).eq(&ids[3..]));
}
