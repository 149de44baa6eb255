//! Sessions of the console: found by hash, seen, ended once.

use controlplane_core::{
    access::Role,
    ids::{AuditId, OrgId},
};
use controlplane_store::{
    calls::Actor,
    keys::{Key, Made, Whose},
    sessions::{NewSession, SESSION_IDLE_MAX, SESSION_LASTS, SESSIONS_MAX},
};
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON, system};

async fn operator(f: &mut Fixture) -> Key {
    let (mut key, audit_id) = (f.key(None, NOON), f.audit_id());
    key.scopes = Role::Viewer.words();
    key.expires_at = None;
    key.created_at = NOON - Duration::HOUR;
    assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    key
}

async fn open(f: &mut Fixture, token: u8, key: &Key, at: OffsetDateTime) -> bool {
    let audit_id: AuditId = f.audit_id();
    let session = NewSession { token_sha256: [token; 32], key: key.id.clone(), at };
    let actor = Actor { key: Some(key.id.clone()), ..system() };
    f.store.open_session(session, actor, audit_id).await.unwrap()
}

pub(crate) async fn a_session_is_found_by_its_hash_and_ends_once(mut f: Fixture) {
    let key = operator(&mut f).await;
    assert!(open(&mut f, 1, &key, NOON).await);
    assert_eq!(f.store.session(&[2; 32]).await.unwrap(), None);
    let session = f.store.session(&[1; 32]).await.unwrap().unwrap();
    assert_eq!((&session.key, session.seen_at, session.ends_at), (&key, NOON, NOON + SESSION_LASTS));
    let later = NOON + Duration::minutes(30);
    for at in [later, NOON + Duration::minutes(5)] {
        f.store.see_session(&[1; 32], at).await.unwrap();
        assert_eq!(f.store.session(&[1; 32]).await.unwrap().unwrap().seen_at, later, "it never goes back");
    }
    let session = f.store.session(&[1; 32]).await.unwrap().unwrap();
    assert!(!session.is_over(later + SESSION_IDLE_MAX - Duration::SECOND));
    assert!(session.is_over(later + SESSION_IDLE_MAX) && session.is_over(NOON + SESSION_LASTS));
    let ids = [f.audit_id(), f.audit_id()];
    let actor = Actor { key: Some(key.id.clone()), ..system() };
    for (id, ended) in ids.into_iter().zip([true, false]) {
        assert_eq!(f.store.end_session(&[1; 32], later, actor.clone(), id).await.unwrap(), ended);
    }
    assert_eq!(f.store.session(&[1; 32]).await.unwrap(), None);
    let rows = f.store.audit(10).await.unwrap();
    let told: Vec<_> = rows.iter().map(|row| (row.action.as_str(), row.record.target_id.as_str())).collect();
    let id = key.id.as_str();
    assert_eq!(told, [("session.end", id), ("session.create", id), ("key.create", id)]);
}

pub(crate) async fn only_a_living_operator_s_key_opens_one(mut f: Fixture) {
    let (customer, audit_id) = (f.key(Some(OrgId::first()), NOON), f.audit_id());
    assert_eq!(f.store.create_key(customer.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    assert!(!open(&mut f, 1, &customer, NOON).await, "a customer's");
    let key = operator(&mut f).await;
    assert!(open(&mut f, 2, &key, NOON).await);
    let audit_id = f.audit_id();
    assert!(f.store.revoke_key(&Whose::All, &key.id, NOON, system(), audit_id).await.unwrap());
    assert!(!open(&mut f, 3, &key, NOON).await, "a revoked one");
    let session = f.store.session(&[2; 32]).await.unwrap().unwrap();
    assert_eq!(session.key.revoked_at, Some(NOON), "who asks sees that it was revoked");
    assert_eq!(f.store.session(&[3; 32]).await.unwrap(), None);
}

pub(crate) async fn a_key_has_so_many_sessions_and_what_is_over_is_forgotten(mut f: Fixture) {
    let (key, other) = (operator(&mut f).await, operator(&mut f).await);
    assert!(open(&mut f, 200, &other, NOON).await);
    let max = u8::try_from(SESSIONS_MAX).unwrap();
    for n in 0..=max {
        assert!(open(&mut f, n, &key, NOON + Duration::seconds(n.into())).await);
    }
    assert_eq!(f.store.session(&[0; 32]).await.unwrap(), None, "the oldest has ended");
    for kept in [1, max, 200] {
        assert!(f.store.session(&[kept; 32]).await.unwrap().is_some(), "{kept}");
    }
    assert!(open(&mut f, 201, &other, NOON + SESSION_IDLE_MAX + Duration::MINUTE).await);
    assert_eq!(f.count("SELECT count(*) FROM console_session").await, 1);
}
