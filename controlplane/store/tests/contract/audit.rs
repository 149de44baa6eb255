//! The audit log: who did what, never changed, erased only by retention.

use controlplane_core::ids::{OrgId, RequestId};
use controlplane_store::{calls::Actor, keys::Made};
use time::Duration;

use crate::fixture::{Fixture, NOON, system};

pub(crate) async fn rows_are_newest_first_and_name_the_actor(mut f: Fixture) {
    let key = f.key(Some(OrgId::first()), NOON - Duration::days(1));
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    let actor = Actor {
        key: Some(key.id.clone()),
        request: Some(RequestId::new(NOON, &mut f.rng)),
        ip: Some("198.51.100.7".to_owned()),
    };
    let mut new = f.new_call(NOON);
    new.actor = actor.clone();
    f.store.create_call(new.clone()).await.unwrap();
    let rows = f.store.audit(10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.action.as_str()).collect::<Vec<_>>(), ["call.create", "key.create"]);
    assert_eq!((&rows[0].actor, &rows[0].id, rows[0].occurred_at), (&actor, &new.audit_id, NOON));
    assert_eq!((rows[0].org.clone(), rows[0].outcome.as_str()), (Some(OrgId::first()), "success"));
    assert_eq!(rows[1].actor, system());
    assert_eq!(f.store.audit(1).await.unwrap(), rows[..1]);
    let customer =
        "SELECT count(*) FROM audit_log WHERE actor_type = 'customer' AND key_prefix = 'rw_live_abcd'";
    assert_eq!(f.count(customer).await, 1);
    assert_eq!(f.count("SELECT count(*) FROM audit_log WHERE actor_type = 'system'").await, 1);
}

pub(crate) async fn rows_cannot_be_changed_or_erased(mut f: Fixture) {
    f.accepted(NOON).await;
    for sql in [
        "UPDATE audit_log SET action = 'nothing'",
        "UPDATE audit_log SET ip = '203.0.113.1', hash = NULL",
        "DELETE FROM audit_log",
    ] {
        let refused = f.execute(sql).await.unwrap_err().to_string();
        assert!(refused.contains("audit_log is append-only"), "{sql}: {refused}");
    }
    let row = &f.store.audit(10).await.unwrap()[0];
    assert_eq!((row.action.as_str(), &row.actor.ip), ("call.create", &None));
}

pub(crate) async fn a_row_is_sealed_once(mut f: Fixture) {
    f.accepted(NOON).await;
    let seal = "UPDATE audit_log SET chain = 'main', seq = 1, prev_hash = NULL, hash = ";
    let hash = |text: &str| format!("{seal}(SELECT secret_sha256 FROM api_key WHERE name = '{text}')");
    for name in ["one", "two"] {
        let mut key = f.key(None, NOON);
        name.clone_into(&mut key.name);
        let audit_id = f.audit_id();
        assert_eq!(f.store.create_key(key, system(), audit_id).await.unwrap(), Made::Yes);
    }
    let only = " WHERE action = 'call.create'";
    f.execute(&(hash("one") + only)).await.unwrap();
    assert!(f.execute(&(hash("two") + only)).await.is_err(), "a sealed row does not change");
    assert_eq!(f.count("SELECT count(*) FROM audit_log WHERE seq = 1 AND hash IS NOT NULL").await, 1);
}

pub(crate) async fn retention_erases_only_what_it_unlocked(mut f: Fixture) {
    f.accepted(NOON).await;
    f.accepted(NOON + Duration::hours(2)).await;
    let limit = f.moment(NOON + Duration::hours(1));
    f.execute(&format!("UPDATE audit_retention SET erase_before = {limit}")).await.unwrap();
    assert!(f.execute("DELETE FROM audit_log").await.is_err(), "one of the rows is younger");
    f.execute(&format!("DELETE FROM audit_log WHERE occurred_at < {limit}")).await.unwrap();
    assert_eq!(f.store.audit(10).await.unwrap().len(), 1);
}
