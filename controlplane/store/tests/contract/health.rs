//! Health: the latest snapshots, and holds that are audited as often as they change something.

use controlplane_core::names::{NodeName, TrunkName};
use controlplane_store::health::{Hold, HoldTarget, SaveHealth, SetHold, StoredHealth};
use serde_json::{Value, json};
use time::Duration;

use crate::fixture::{Fixture, NOON, at_once, system};

fn trunk(name: &str) -> TrunkName {
    name.parse().unwrap()
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn snapshots(trunks: &[(&str, Value)], nodes: &[(&str, Value)]) -> StoredHealth {
    StoredHealth {
        trunks: trunks.iter().map(|(name, snapshot)| (trunk(name), snapshot.clone())).collect(),
        nodes: nodes.iter().map(|(name, snapshot)| (node(name), snapshot.clone())).collect(),
    }
}

async fn save(f: &Fixture, health: StoredHealth) {
    let StoredHealth { trunks, nodes } = health;
    f.store.save_health(SaveHealth { trunks, nodes, at: NOON }).await.unwrap();
}

fn set(f: &mut Fixture, target: &HoldTarget, held: bool, reason: Option<&str>) -> SetHold {
    SetHold {
        target: target.clone(),
        held,
        reason: reason.map(str::to_owned),
        at: NOON,
        actor: system(),
        audit_id: f.audit_id(),
    }
}

pub(crate) async fn the_latest_snapshot_of_each_machine_is_kept(f: Fixture) {
    assert_eq!(f.store.health().await.unwrap(), StoredHealth::default());
    // A trunk and a node may have one name. JSON may hold what jsonb refuses.
    let odd = json!({"why": "nul \u{0} and Ü", "big": u64::MAX});
    let first =
        snapshots(&[("one", odd.clone()), ("two", json!(null))], &[("one", json!({"state": "alive"}))]);
    save(&f, first.clone()).await;
    save(&f, first.clone()).await;
    assert_eq!(f.store.health().await.unwrap(), first);
    save(&f, snapshots(&[("two", json!({"state": "tripped"}))], &[])).await;
    let both = [("one", odd), ("two", json!({"state": "tripped"}))];
    assert_eq!(f.store.health().await.unwrap(), snapshots(&both, &[("one", json!({"state": "alive"}))]));
}

pub(crate) async fn a_snapshot_that_cannot_be_read_hides_no_other(mut f: Fixture) {
    let saved = ["a", "b", "c", "d"].map(|name| (name, json!({"of": name})));
    save(&f, snapshots(&saved, &[("e", json!({}))])).await;
    f.execute("UPDATE health SET snapshot = '{\"of\": ' WHERE name = 'b'").await.unwrap();
    f.execute("UPDATE health SET name = 'No Trunk!' WHERE name = 'c'").await.unwrap();
    let readable = snapshots(&[saved[0].clone(), saved[3].clone()], &[("e", json!({}))]);
    assert_eq!(f.store.health().await.unwrap(), readable);
    // A later snapshot mends the row.
    save(&f, snapshots(&saved[1..2], &[])).await;
    assert_eq!(f.store.health().await.unwrap().trunks.len(), 3);
    for name in ["a", "b"] {
        let hold = set(&mut f, &HoldTarget::Trunk(trunk(name)), true, None);
        assert!(f.store.set_hold(hold).await.unwrap());
    }
    f.execute("UPDATE hold SET name = 'No Trunk!' WHERE name = 'a'").await.unwrap();
    let holds = f.store.holds().await.unwrap();
    assert_eq!(holds.iter().map(|h| &h.target).collect::<Vec<_>>(), [&HoldTarget::Trunk(trunk("b"))]);
}

pub(crate) async fn what_the_fleet_no_longer_has_is_forgotten_with_its_hold(mut f: Fixture) {
    let both = [("one", json!(1)), ("two", json!(2))];
    save(&f, snapshots(&both, &both)).await;
    let targets = [
        HoldTarget::Trunk(trunk("one")),
        HoldTarget::Trunk(trunk("two")),
        HoldTarget::Node(node("one")),
        HoldTarget::Node(node("two")),
    ];
    for target in &targets {
        let hold = set(&mut f, target, true, None);
        assert!(f.store.set_hold(hold).await.unwrap());
    }
    f.store.forget_health(&[trunk("one"), trunk("never-was")], &[node("two")]).await.unwrap();
    assert_eq!(f.store.health().await.unwrap(), snapshots(&both[1..], &both[..1]));
    let mut left: Vec<_> = f.store.holds().await.unwrap().into_iter().map(|h| h.target).collect();
    left.sort();
    assert_eq!(left, targets[1..3]);
}

pub(crate) async fn a_hold_is_set_and_lifted_once_each_with_its_audit_row(mut f: Fixture) {
    for (target, actions) in [
        (HoldTarget::Trunk(trunk("acme-waw-1")), ["trunk.disable", "trunk.enable"]),
        (HoldTarget::Node(node("waw-1")), ["node.drain", "node.undrain"]),
    ] {
        let before = f.store.audit(20).await.unwrap().len();
        // Lifting what is not held, and whatever is repeated, changes nothing and is not audited.
        for (held, reason, changes) in [
            (false, None, false),
            (true, Some("maintenance"), true),
            (true, Some("another reason"), false),
            (false, Some("done"), true),
            (false, None, false),
        ] {
            let mut set = set(&mut f, &target, held, reason);
            if !changes {
                set.at += Duration::hours(1);
            }
            assert_eq!(f.store.set_hold(set).await.unwrap(), changes, "{target:?} {held} {reason:?}");
            let hold = Hold { target: target.clone(), since: NOON, reason: Some("maintenance".to_owned()) };
            assert_eq!(f.store.holds().await.unwrap(), if held { vec![hold] } else { Vec::new() });
        }
        let audit = f.store.audit(20).await.unwrap();
        assert_eq!(audit.len() - before, 2);
        for (action, reason) in actions.into_iter().zip(["maintenance", "done"]) {
            let row = audit.iter().find(|row| row.action == action).expect(action);
            assert_eq!(
                (row.record.target_type.as_str(), row.changes.clone()),
                match &target {
                    HoldTarget::Trunk(_) => ("trunk", json!({"reason": reason})),
                    HoldTarget::Node(_) => ("node", json!({"reason": reason})),
                }
            );
            assert!(["acme-waw-1", "waw-1"].contains(&row.record.target_id.as_str()));
        }
    }
}

pub(crate) async fn a_hold_without_its_audit_row_is_not_set(mut f: Fixture) {
    let first = set(&mut f, &HoldTarget::Node(node("waw-1")), true, None);
    assert!(f.store.set_hold(first.clone()).await.unwrap());
    // The audit row's id is taken: neither row may be written.
    for (name, held) in [("waw-2", true), ("waw-1", false)] {
        let set = SetHold { target: HoldTarget::Node(node(name)), held, ..first.clone() };
        f.store.set_hold(set).await.unwrap_err();
    }
    let holds = f.store.holds().await.unwrap();
    assert_eq!(holds.iter().map(|h| &h.target).collect::<Vec<_>>(), [&first.target]);
}

pub(crate) async fn twenty_holds_of_one_trunk_are_one(mut f: Fixture) {
    for held in [true, false] {
        let work = (0..20).map(|_| {
            let (set, store) = (set(&mut f, &HoldTarget::Trunk(trunk("one")), held, None), f.store.clone());
            async move { store.set_hold(set).await.unwrap() }
        });
        let answers = at_once(work.collect()).await;
        assert_eq!(answers.iter().filter(|changed| **changed).count(), 1);
    }
    assert_eq!(f.count("SELECT count(*) FROM audit_log").await, 2);
    assert_eq!(f.count("SELECT count(*) FROM hold").await, 0);
}
