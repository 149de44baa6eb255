//! Lists: newest first, stable, and of one organisation.

use std::sync::Arc;

use controlplane_core::{
    call::CallStatus,
    ids::{CallId, OrgId},
};
use controlplane_store::{
    calls::Page,
    search::{CallSearch, LOOKED_AT_MAX, Noted},
};
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

/// Calls are found over all organisations, by number, by metadata and by state, page by page, and no other.
pub(crate) async fn calls_are_searched_over_all_organisations(mut f: Fixture) {
    let other = f.other_org().await;
    let mut ids = Vec::new();
    for s in 0..6_u32 {
        let mut new = f.new_call(NOON + Duration::seconds(s.into()));
        new.org = if s % 2 == 0 { OrgId::first() } else { other.clone() };
        new.request.to = if s < 4 { "+48221234567" } else { "+48229999999" }.parse().unwrap();
        let ticket = [("ticket".to_owned(), format!("Ü {s}")), ("of".to_owned(), "all".to_owned())];
        new.request.metadata = ticket.into();
        ids.push(new.id.clone());
        f.store.create_call(new).await.unwrap();
    }
    let all_of = CallSearch { limit: 100, ..CallSearch::default() };
    let store = Arc::clone(&f.store);
    let find = async |search: CallSearch| {
        let found = store.search_calls(search).await.unwrap();
        (found.calls.into_iter().map(|call| call.id).collect::<Vec<_>>(), found.next)
    };
    assert_eq!(find(all_of.clone()).await, (newest_first(&ids), None));
    let to = |number: &str| Some(number.parse().unwrap());
    let by_number = CallSearch { to: to("+48221234567"), ..all_of.clone() };
    assert_eq!(find(by_number.clone()).await, (newest_first(&ids[..4]), None));
    assert_eq!(find(CallSearch { to: to("+48221234560"), ..all_of.clone() }).await, (vec![], None));
    let of_other = CallSearch { org: Some(other.clone()), ..by_number.clone() };
    assert_eq!(find(of_other).await, (vec![ids[3].clone(), ids[1].clone()], None));
    // Page by page.
    let (page, next) = find(CallSearch { limit: 3, ..by_number.clone() }).await;
    assert_eq!((&page, &next), (&newest_first(&ids[1..4]), &Some(ids[1].clone())));
    let rest = CallSearch { limit: 3, before: next, ..by_number };
    assert_eq!(find(rest).await, (vec![ids[0].clone()], None));
    let full = CallSearch { limit: 6, ..all_of.clone() };
    assert_eq!(find(full).await, (newest_first(&ids), None), "a full last page has no more");
    // By what was noted, under its key or any.
    let noted = |key: Option<&str>, value: &str| CallSearch {
        metadata: Some(Noted { key: key.map(str::to_owned), value: value.to_owned() }),
        ..all_of.clone()
    };
    assert_eq!(find(noted(Some("ticket"), "Ü 3")).await.0, [ids[3].clone()]);
    assert_eq!(find(noted(None, "Ü 4")).await.0, [ids[4].clone()]);
    assert_eq!(find(noted(Some("of"), "all")).await.0.len(), 6);
    assert_eq!(find(noted(Some("of"), "Ü 4")).await.0, []);
    assert_eq!(find(noted(None, "Ü")).await.0, [], "a part of a value is not the value");
    let end = f.end_call(&ids[2], NOON);
    let _ = f.store.end_call(end).await.unwrap();
    let failed = CallSearch { status: Some(CallStatus::Failed), ..all_of };
    assert_eq!(find(failed).await, (vec![ids[2].clone()], None));
    // One, whosoever it is.
    for id in &ids {
        assert_eq!(f.store.call_of_any(id).await.unwrap().unwrap().id, *id);
    }
    let missing = CallId::new(NOON, &mut f.rng);
    assert_eq!(f.store.call_of_any(&missing).await.unwrap(), None);
}

/// What fits nowhere is looked for among so many, and further on only when it is asked for.
pub(crate) async fn a_search_says_up_to_where_it_has_looked(mut f: Fixture) {
    let first = f.accepted(NOON).await;
    // As many as it looks at, all newer: copies, since each alone would take a minute.
    let copies = format!(
        "INSERT INTO call (id, org_id, request, status, sequence, created_at, deadline_at, ended_at, reason, outcome)
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {LOOKED_AT_MAX})
         SELECT 'call_7' || substr('0000000000000000000000000' || n || '0', -25), org_id, request, 'failed', 1, created_at,
             deadline_at, created_at, 'trunk_unavailable', 'not_reached' FROM n, call WHERE id = '{first}'"
    );
    let copies = if f.is_postgres() {
        copies
            .replace("substr('0000000000000000000000000' || n || '0', -25)", "lpad(n::text || '0', 25, '0')")
    } else {
        copies
    };
    f.execute(&copies).await.unwrap();
    let queued = CallSearch { status: Some(CallStatus::Queued), limit: 10, ..CallSearch::default() };
    let found = f.store.search_calls(queued.clone()).await.unwrap();
    assert_eq!(found.calls, []);
    let further = CallSearch { before: Some(found.next.expect("there is more")), ..queued };
    let found = f.store.search_calls(further).await.unwrap();
    assert_eq!((found.calls.len(), found.calls[0].id.clone(), found.next), (1, first, None));
}
