//! After a restore: what was open is held until it is released, and what has ended is not counted.

use controlplane_core::ids::OrgId;
use controlplane_store::calls::Written;
use controlplane_store::restoring::{HeldWork, HoldOpen, Release};
use time::Duration;

use crate::fixture::{Fixture, NOON, system};

async fn hold(f: &mut Fixture) -> u64 {
    let hold = HoldOpen { at: NOON, actor: system(), audit_id: f.audit_id() };
    f.store.hold_open(hold).await.unwrap()
}

async fn release(f: &mut Fixture, ids: Option<&[&str]>) -> u64 {
    let ids = ids.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
    let release = Release { ids, at: NOON, actor: system(), audit_id: f.audit_id() };
    f.store.release(release).await.unwrap()
}

pub(crate) async fn what_is_open_is_held_until_it_is_released(mut f: Fixture) {
    let ended = f.accepted(NOON).await;
    let end = f.end_call(&ended, NOON);
    assert!(matches!(f.store.end_call(end).await.unwrap(), Written::Yes { .. }));
    let first = f.accepted(NOON).await;
    let second = f.accepted(NOON).await;
    assert_eq!(f.store.held().await.unwrap(), []);
    assert_eq!(hold(&mut f).await, 2);
    assert_eq!(hold(&mut f).await, 0, "twice is once");
    let later = f.accepted(NOON + Duration::seconds(1)).await;
    let mut open = [first.to_string(), second.to_string()];
    open.sort();
    let expected = open.clone().map(|id| HeldWork { id, org: OrgId::first(), held_at: NOON });
    assert_eq!(f.store.held().await.unwrap(), expected, "not {later}, which came afterwards");

    assert_eq!(release(&mut f, Some(&[first.as_str(), ended.as_str(), later.as_str(), "call_x"])).await, 1);
    assert_eq!(f.store.held().await.unwrap().len(), 1);
    let end = f.end_call(&second, NOON);
    assert!(matches!(f.store.end_call(end).await.unwrap(), Written::Yes { .. }));
    assert_eq!(f.store.held().await.unwrap(), [], "an end is the end of being held");
    assert_eq!(release(&mut f, None).await, 0);
    assert_eq!(f.count("SELECT count(*) FROM held").await, 0);
    assert_eq!(f.count("SELECT count(*) FROM audit_log WHERE action = 'held.release'").await, 2);
    assert_eq!(f.count("SELECT count(*) FROM audit_log WHERE action = 'backup.restore'").await, 2);
}
