//! The declared fleet: replaced whole, by one at a time.

use controlplane_store::fleet::{Applied, ApplyFleet};
use serde_json::json;

use crate::fixture::{Fixture, NOON, at_once, system};

fn change(f: &mut Fixture, expected_revision: i64, name: &str) -> ApplyFleet {
    ApplyFleet {
        expected_revision,
        document: json!({"nodes": [{"name": name}]}),
        at: NOON,
        actor: system(),
        audit_id: f.audit_id(),
        changes: json!({"added": [name]}),
    }
}

pub(crate) async fn there_is_none_at_first(f: Fixture) {
    assert_eq!(f.store.declared_fleet().await.unwrap(), None);
}

pub(crate) async fn a_fleet_is_applied_with_its_audit_row(mut f: Fixture) {
    for (revision, name) in [(1, "waw-1"), (2, "waw-2")] {
        let change = change(&mut f, revision - 1, name);
        assert_eq!(f.store.apply_fleet(change).await.unwrap(), Applied::Revision(revision));
        let fleet = f.store.declared_fleet().await.unwrap().unwrap();
        assert_eq!((fleet.revision, fleet.applied_at), (revision, NOON));
        assert_eq!(fleet.document, json!({"nodes": [{"name": name}]}));
    }
    let audit = f.store.audit(10).await.unwrap();
    assert_eq!((audit.len(), audit[0].action.as_str()), (2, "fleet.apply"));
    assert!(
        audit.iter().any(|row| row.changes == json!({"added": ["waw-2"]}) && row.record.target_id == "2")
    );
}

pub(crate) async fn a_stale_change_writes_nothing(mut f: Fixture) {
    let first = change(&mut f, 0, "waw-1");
    assert_eq!(f.store.apply_fleet(first).await.unwrap(), Applied::Revision(1));
    for expected in [0, 2] {
        let stale = change(&mut f, expected, "waw-2");
        assert_eq!(f.store.apply_fleet(stale).await.unwrap(), Applied::Stale(1));
    }
    assert_eq!(f.store.audit(10).await.unwrap().len(), 1);
}

pub(crate) async fn twenty_changes_of_one_revision_are_one(mut f: Fixture) {
    let work = (0..20).map(|i| {
        let (change, store) = (change(&mut f, 0, &format!("waw-{i}")), f.store.clone());
        async move { store.apply_fleet(change).await.unwrap() }
    });
    let answers = at_once(work.collect()).await;
    assert_eq!(answers.iter().filter(|a| **a == Applied::Revision(1)).count(), 1);
    assert_eq!(answers.iter().filter(|a| **a == Applied::Stale(1)).count(), 19);
    assert_eq!(f.count("SELECT count(*) FROM audit_log").await, 1);
}
