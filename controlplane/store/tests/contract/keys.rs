//! Keys: found by hash, revoked once, the first one made once.

use controlplane_core::ids::OrgId;
use time::Duration;

use crate::fixture::{Fixture, NOON, at_once, system};

pub(crate) async fn a_key_is_found_by_its_hash(mut f: Fixture) {
    let key = f.key(Some(OrgId::first()), NOON);
    let audit_id = f.audit_id();
    f.store.create_key(key.clone(), system(), audit_id).await.unwrap();
    assert_eq!(f.store.key_by_hash(&key.secret_sha256).await.unwrap(), Some(key.clone()));
    assert_eq!(f.store.key_by_hash(&[0; 32]).await.unwrap(), None);
    let audit_id = f.audit_id();
    let twin = f.store.create_key(key, system(), audit_id).await;
    assert!(twin.is_err(), "a secret has one key");
    let audit = f.store.audit(10).await.unwrap();
    assert_eq!((audit.len(), audit[0].action.as_str()), (1, "key.create"));
    assert_eq!(f.store.orgs().await.unwrap(), 1, "that of the first migration");
}

pub(crate) async fn a_revoked_key_stays_and_is_revoked_once(mut f: Fixture) {
    let key = f.key(Some(OrgId::first()), NOON);
    let ids = [f.audit_id(), f.audit_id(), f.audit_id()];
    f.store.create_key(key.clone(), system(), ids[0].clone()).await.unwrap();
    let at = NOON + Duration::hours(1);
    assert!(f.store.revoke_key(&key.id, at, system(), ids[1].clone()).await.unwrap());
    assert!(!f.store.revoke_key(&key.id, at, system(), ids[2].clone()).await.unwrap());
    let found = f.store.key_by_hash(&key.secret_sha256).await.unwrap().unwrap();
    assert_eq!((found.revoked_at, found.expires_at), (Some(at), key.expires_at));
    let actions: Vec<_> = f.store.audit(10).await.unwrap().into_iter().map(|row| row.action).collect();
    assert_eq!(actions, ["key.revoke", "key.create"]);
}

pub(crate) async fn the_first_operator_is_made_once(mut f: Fixture) {
    let customer = f.key(Some(OrgId::first()), NOON);
    let audit_id = f.audit_id();
    f.store.create_key(customer, system(), audit_id).await.unwrap();
    let first = f.key(None, NOON);
    let audit_id = f.audit_id();
    assert!(f.store.bootstrap_operator(first.clone(), audit_id).await.unwrap(), "a customer's key is none");
    let second = f.key(None, NOON);
    let audit_id = f.audit_id();
    assert!(!f.store.bootstrap_operator(second.clone(), audit_id).await.unwrap());
    assert_eq!(f.store.key_by_hash(&second.secret_sha256).await.unwrap(), None);
    let audit_id = f.audit_id();
    assert!(f.store.revoke_key(&first.id, NOON, system(), audit_id).await.unwrap());
    let audit_id = f.audit_id();
    assert!(f.store.bootstrap_operator(second, audit_id).await.unwrap(), "nobody is locked out for ever");
}

pub(crate) async fn twenty_bootstraps_are_one(mut f: Fixture) {
    let work = (0..20).map(|_| {
        let (key, audit_id, store) = (f.key(None, NOON), f.audit_id(), f.store.clone());
        async move { store.bootstrap_operator(key, audit_id).await.unwrap() }
    });
    let made = at_once(work.collect()).await;
    assert_eq!(made.into_iter().filter(|made| *made).count(), 1);
    assert_eq!(f.store.keys(None).await.unwrap().len(), 1);
}

pub(crate) async fn keys_are_listed_by_owner_newest_first(mut f: Fixture) {
    let mut made = Vec::new();
    for (s, org) in (0..).zip([None, Some(OrgId::first()), None]) {
        let key = f.key(org, NOON + Duration::seconds(s));
        let audit_id = f.audit_id();
        f.store.create_key(key.clone(), system(), audit_id).await.unwrap();
        made.push(key);
    }
    assert_eq!(f.store.keys(None).await.unwrap(), [made[2].clone(), made[0].clone()]);
    assert_eq!(f.store.keys(Some(&OrgId::first())).await.unwrap(), [made[1].clone()]);
}
