//! Rows that this program cannot read: they hide no other, and what it can read is read.

use controlplane_core::ids::{CallId, OrgId};
use controlplane_store::{StoreError, calls::Page};
use time::Duration;

use crate::fixture::{Fixture, NOON, request};

async fn calls(f: &mut Fixture, count: i64) -> Vec<CallId> {
    let mut ids = Vec::new();
    for s in 0..count {
        ids.push(f.accepted(NOON + Duration::seconds(s)).await);
    }
    ids
}

async fn store_request(f: &Fixture, id: &CallId, json: &str) {
    f.execute(&format!("UPDATE call SET request = '{json}' WHERE id = '{id}'")).await.unwrap();
}

/// A request with a recording that this release does not know.
const UNKNOWN_AUDIO: &str = r#"{"to": "+48221234567", "message": {"audio_id": "builtin:of-the-future"}}"#;

pub(crate) async fn an_open_call_that_cannot_be_read_hides_no_other(mut f: Fixture) {
    let ids = calls(&mut f, 6).await;
    for id in [&ids[0], &ids[1], &ids[3], &ids[5]] {
        store_request(&f, id, UNKNOWN_AUDIO).await;
    }
    let read = |after: Option<CallId>, limit| {
        let store = f.store.clone();
        async move {
            let calls = store.open_calls(after.as_ref(), limit).await.unwrap();
            calls.into_iter().map(|c| c.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(read(None, 10).await, [ids[2].clone(), ids[4].clone()]);
    // A page is filled with what comes after: an empty one means the end.
    assert_eq!(read(None, 1).await, [ids[2].clone()]);
    assert_eq!(read(Some(ids[2].clone()), 1).await, [ids[4].clone()]);
    assert_eq!(read(Some(ids[4].clone()), 1).await, []);
    let one = f.store.call(&OrgId::first(), &ids[0]).await;
    assert!(matches!(one, Err(StoreError::Corrupt { .. })), "{one:?}");
}

pub(crate) async fn a_list_is_shown_without_the_calls_that_cannot_be_read(mut f: Fixture) {
    let ids = calls(&mut f, 6).await;
    for id in [&ids[1], &ids[3], &ids[4]] {
        store_request(&f, id, UNKNOWN_AUDIO).await;
    }
    let all = Page { limit: 2, starting_after: None, ending_before: None, status: None };
    let read = |page| {
        let store = f.store.clone();
        async move {
            let page = store.list_calls(&OrgId::first(), page).await.unwrap();
            (page.calls.into_iter().map(|c| c.id).collect::<Vec<_>>(), page.has_more)
        }
    };
    assert_eq!(read(all.clone()).await, (vec![ids[5].clone(), ids[2].clone()], true));
    let next = Page { starting_after: Some(ids[2].clone()), ..all.clone() };
    assert_eq!(read(next).await, (vec![ids[0].clone()], false));
    let back = Page { ending_before: Some(ids[0].clone()), ..all.clone() };
    assert_eq!(read(back).await, (vec![ids[5].clone(), ids[2].clone()], false));
    let back = Page { limit: 1, ending_before: Some(ids[0].clone()), ..all };
    assert_eq!(read(back).await, (vec![ids[2].clone()], true));
}

pub(crate) async fn a_call_with_an_unreadable_attempt_is_not_shown_without_it(mut f: Fixture) {
    let (bad, attempt) = f.sending().await;
    let good = f.accepted(NOON + Duration::seconds(1)).await;
    f.execute(&format!("UPDATE attempt SET trunk = 'No Trunk!' WHERE id = '{attempt}'")).await.unwrap();
    // Without its attempt it would be dialled a second time.
    let open = f.store.open_calls(None, 10).await.unwrap();
    assert_eq!(open.iter().map(|c| &c.id).collect::<Vec<_>>(), [&good]);
    let page = Page { limit: 10, starting_after: None, ending_before: None, status: None };
    assert_eq!(f.store.list_calls(&OrgId::first(), page).await.unwrap().calls, open);
    let one = f.store.call(&OrgId::first(), &bad).await;
    assert!(matches!(one, Err(StoreError::Corrupt { .. })), "{one:?}");
}

pub(crate) async fn fields_of_another_release_are_passed_over(mut f: Fixture) {
    let id = f.accepted(NOON).await;
    let json = r#"{"to": "+48221234567", "voice": {"deep": [1, null]}, "metadata": {"ticket": "Ü 1"},
        "failover": {"attempts_max": 3, "spread": true},
        "message": {"audio_id": "builtin:beep", "gain_db": -3}}"#;
    store_request(&f, &id, json).await;
    assert_eq!(f.call(&id).await.request, request());
    assert_eq!(f.store.open_calls(None, 10).await.unwrap()[0].request, request());
}
