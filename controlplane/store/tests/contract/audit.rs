//! The audit log: who did what, never changed, erased only by retention.

use controlplane_core::{
    audit::{Checkpoint, Hash, Hex, Link, Signed},
    ids::{AuditId, OrgId, RequestId},
};
use controlplane_store::{
    audit::{
        ActorType, AuditErased, AuditFilter, AuditLease, AuditOutcome, AuditRow, AuditSealed, EraseAudit,
        NewAuditRow,
    },
    calls::Actor,
    keys::Made,
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::fixture::{Fixture, NOON, at_once, system};

pub(crate) async fn rows_are_newest_first_and_name_the_actor(mut f: Fixture) {
    let key = f.key(Some(OrgId::first()), NOON - Duration::days(1));
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    let actor = Actor {
        key: Some(key.id.clone()),
        request: Some(RequestId::new(NOON, &mut f.rng)),
        ip: Some("198.51.100.7".to_owned()),
        user_agent: Some("curl/8".to_owned()),
        node: None,
    };
    let mut new = f.new_call(NOON);
    new.actor = actor.clone();
    f.store.create_call(new.clone()).await.unwrap();
    let rows = f.store.audit(10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.action.as_str()).collect::<Vec<_>>(), ["call.create", "key.create"]);
    assert_eq!(
        (&rows[0].actor, rows[0].record.id.as_str(), rows[0].occurred_at),
        (&actor, new.audit_id.as_str(), NOON)
    );
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
        "UPDATE audit_log SET user_agent = 'x', chain = 'main', seq = 1",
        "INSERT INTO audit_log (id, seq, occurred_at, actor_type, action, target_type, target_id, outcome, changes)
             SELECT 'aud_00000000000000000000000000', 7, occurred_at, 'system', 'x', 'x', 'x', 'success', changes
             FROM audit_log",
    ] {
        let refused = f.execute(sql).await.unwrap_err().to_string();
        assert!(refused.contains("audit_log is append-only"), "{sql}: {refused}");
    }
    let row = &f.store.audit(10).await.unwrap()[0];
    assert_eq!((row.action.as_str(), &row.actor.ip), ("call.create", &None));
}

/// A row of nothing else.
pub(crate) fn row(f: &mut Fixture, at: OffsetDateTime, action: &str) -> NewAuditRow {
    NewAuditRow {
        id: AuditId::new(at, &mut f.rng),
        org: None,
        at,
        actor_type: ActorType::Customer,
        actor: Actor { ip: Some("198.51.100.7".to_owned()), ..Actor::default() },
        action: action.to_owned(),
        target_type: "call".to_owned(),
        target_id: "-".to_owned(),
        outcome: AuditOutcome::Denied,
        reason: Some("unauthenticated".to_owned()),
        changes: json!({"z": 1.5, "a": {"y": [1, 2, null], "b": "ü\n"}, "n": 12_345_678_901_234_i64}),
    }
}

async fn recorded(f: &mut Fixture, moments: impl IntoIterator<Item = OffsetDateTime>) {
    let rows = moments.into_iter().map(|at| row(f, at, "call.create")).collect();
    f.store.record_audit(rows).await.unwrap();
}

fn lease(owner: &str, at: OffsetDateTime) -> AuditLease {
    AuditLease { owner: owner.to_owned(), at, until: at + Duration::seconds(10) }
}

async fn sealed(f: &Fixture) -> Vec<AuditRow> {
    while f.store.is_audit_unsealed().await.unwrap() {
        f.store.seal_audit(lease("one", NOON), 100).await.unwrap();
    }
    f.store.audit_chain(&AuditFilter::default(), 0, 1_000).await.unwrap()
}

/// Every row's hash covers what is read back, and the row before it.
fn is_chained(rows: &[AuditRow]) {
    let (mut seq, mut hash) = (0, Hash::ZERO);
    for row in rows {
        let link = row.link.unwrap();
        assert_eq!(link, Link::after(seq, hash, &row.record), "{row:?}");
        (seq, hash) = (link.seq, link.hash);
    }
}

pub(crate) async fn rows_are_chained_as_they_are_read_back(mut f: Fixture) {
    f.accepted(NOON).await;
    let key = f.key(None, NOON);
    let audit_id = f.audit_id();
    assert_eq!(f.store.create_key(key.clone(), system(), audit_id).await.unwrap(), Made::Yes);
    recorded(&mut f, (0..5).map(|s| NOON + Duration::microseconds(s))).await;
    let rows = sealed(&f).await;
    assert_eq!(rows.len(), 7);
    is_chained(&rows);
    let denied = rows.iter().find(|row| row.outcome == "denied").unwrap();
    assert_eq!(denied.record.reason.as_deref(), Some("unauthenticated"));
    assert_eq!(denied.record.actor_type, "customer");
    assert!(!rows.iter().any(|row| row.changes.to_string().contains(&key.name)), "names stay with the key");
    let head = f.store.audit_head().await.unwrap();
    let last = rows[6].link.unwrap();
    assert_eq!(head, (7, last.hash));
    // A later row goes on behind them.
    f.accepted(NOON).await;
    let rows = sealed(&f).await;
    assert_eq!(rows[7].link.unwrap().prev_hash, last.hash);
    is_chained(&rows);
}

pub(crate) async fn a_row_is_sealed_once(mut f: Fixture) {
    recorded(&mut f, [NOON]).await;
    sealed(&f).await;
    for sql in [
        "UPDATE audit_log SET seq = 2",
        "UPDATE audit_log SET prev_hash = hash",
        "UPDATE audit_log SET chain = NULL, seq = NULL, prev_hash = NULL, hash = NULL",
    ] {
        let refused = f.execute(sql).await.unwrap_err().to_string();
        assert!(refused.contains("audit_log is append-only"), "{sql}: {refused}");
    }
    assert_eq!(f.count("SELECT count(*) FROM audit_log WHERE seq = 1 AND hash IS NOT NULL").await, 1);
}

pub(crate) async fn one_process_seals_until_its_lease_is_over(mut f: Fixture) {
    recorded(&mut f, [NOON, NOON]).await;
    let seal = |owner: &'static str, at| {
        let store = f.store.clone();
        async move { store.seal_audit(lease(owner, at), 1).await.unwrap() }
    };
    assert!(matches!(seal("one", NOON).await, AuditSealed::Done { rows: 1, seq: 1, .. }));
    assert_eq!(seal("two", NOON + Duration::seconds(9)).await, AuditSealed::NotLeader);
    let late = seal("two", NOON + Duration::seconds(10)).await;
    assert!(matches!(late, AuditSealed::Done { rows: 1, seq: 2, .. }), "{late:?}");
    assert_eq!(seal("one", NOON + Duration::seconds(11)).await, AuditSealed::NotLeader);
}

pub(crate) async fn writers_and_sealers_at_once_leave_one_chain(mut f: Fixture) {
    let writes: Vec<_> = (0..40)
        .map(|i| {
            let (rows, store) =
                (vec![row(&mut f, NOON, "call.create"), row(&mut f, NOON, "x")], f.store.clone());
            async move {
                if i % 4 == 0 {
                    store.seal_audit(lease("one", NOON), 7).await.unwrap();
                }
                store.record_audit(rows).await.unwrap();
            }
        })
        .collect();
    at_once(writes).await;
    let rows = sealed(&f).await;
    assert_eq!(rows.len(), 80);
    is_chained(&rows);
}

pub(crate) async fn rows_are_filtered_and_pages_are_stable(mut f: Fixture) {
    let call = f.accepted(NOON).await;
    recorded(&mut f, (1..=10).map(|s| NOON + Duration::seconds(s))).await;
    let asked = |filter: AuditFilter| {
        let store = f.store.clone();
        async move { store.audit_rows(&filter, None, 100).await.unwrap().len() }
    };
    let all = AuditFilter::default;
    assert_eq!(asked(all()).await, 11);
    let after = Some(NOON + Duration::seconds(8));
    assert_eq!(asked(AuditFilter { after, ..all() }).await, 2, "later than");
    assert_eq!(asked(AuditFilter { until: after, ..all() }).await, 9, "not later than");
    assert_eq!(asked(AuditFilter { outcome: Some("denied".to_owned()), ..all() }).await, 10);
    assert_eq!(asked(AuditFilter { target: Some(call.to_string()), ..all() }).await, 1);
    assert_eq!(asked(AuditFilter { action: Some("call.*".to_owned()), ..all() }).await, 11);
    assert_eq!(asked(AuditFilter { action: Some("call.cre".to_owned()), ..all() }).await, 0);
    assert_eq!(asked(AuditFilter { actor: Some("key_1".to_owned()), ..all() }).await, 0);
    assert_eq!(asked(AuditFilter { org: Some(OrgId::first()), ..all() }).await, 1);
    // Rows that come while a list is read move nothing.
    let (mut seen, mut cursor): (Vec<String>, Option<AuditId>) = (Vec::new(), None);
    loop {
        let page = f.store.audit_rows(&all(), cursor.as_ref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        cursor = Some(last.record.id.parse().unwrap());
        seen.extend(page.into_iter().map(|row| row.record.id));
        recorded(&mut f, [NOON + Duration::MINUTE]).await;
    }
    assert_eq!(seen.len(), 11);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 11, "{seen:?}");
}

fn signed(statement: Checkpoint) -> Signed<Checkpoint> {
    Signed { statement, key: Hex(vec![1]), signature: Hex(vec![2]) }
}

fn erasing(run: Checkpoint, before: OffsetDateTime, known: &[Signed<Checkpoint>]) -> EraseAudit {
    let known: Vec<_> = known.iter().map(|known| known.statement.clone()).collect();
    let (from_seq, to_seq) = (run.from_seq, run.to_seq);
    let (joined, replaces) = run.joined(&known);
    EraseAudit { from_seq, to_seq, before, checkpoint: signed(joined), replaces }
}

pub(crate) async fn what_is_old_is_erased_in_steps_and_leaves_its_checkpoint(mut f: Fixture) {
    // The third row's clock was ahead.
    let ahead = NOON + Duration::days(300);
    recorded(&mut f, [NOON, NOON, ahead, NOON + Duration::SECOND, NOON + Duration::seconds(2)]).await;
    // Sealed as they were written, whatever their clock said.
    let rows = sealed(&f).await;
    let at = rows.iter().position(|row| row.occurred_at == ahead).unwrap();
    assert_eq!(at, 4, "ids go by time");
    let before = NOON + Duration::SECOND;
    assert!(f.store.audit_runs(NOON - Duration::microseconds(1), 0, 10).await.unwrap().is_empty());
    let runs = f.store.audit_runs(before, 0, 2).await.unwrap();
    assert_eq!(runs.iter().map(|run| (run.from_seq, run.to_seq)).collect::<Vec<_>>(), [(1, 2)]);
    let erase = erasing(runs[0].clone(), before, &[]);
    assert_eq!(f.store.erase_audit(lease("one", NOON), erase.clone()).await.unwrap(), AuditErased::Done(2));
    // Again, as after a crash that hid the answer: nothing is there, and nothing changes.
    assert!(f.store.erase_audit(lease("one", NOON), erase).await.is_err());
    let known = f.store.audit_checkpoints().await.unwrap();
    assert_eq!(
        known.iter().map(|c| (c.statement.from_seq, c.statement.to_seq)).collect::<Vec<_>>(),
        [(1, 2)]
    );
    // The next step's checkpoint takes the place of the first.
    let runs = f.store.audit_runs(before, 0, 10).await.unwrap();
    let erase = erasing(runs[0].clone(), before, &known);
    let other = f.store.erase_audit(lease("two", NOON), erase.clone()).await.unwrap();
    assert_eq!(other, AuditErased::NotLeader);
    f.store.erase_audit(lease("one", NOON), erase).await.unwrap();
    let known = f.store.audit_checkpoints().await.unwrap();
    assert_eq!(known.len(), 1);
    let told = &known[0].statement;
    assert_eq!((told.from_seq, told.to_seq, told.prev_hash), (1, 3, Hash::ZERO));
    let left = f.store.audit_chain(&AuditFilter::default(), 0, 10).await.unwrap();
    assert_eq!(left.iter().map(|row| row.link.unwrap().seq).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(left[0].link.unwrap().prev_hash, told.hash);
    let counts = f.store.audit_counts(before).await.unwrap();
    assert_eq!(counts.oldest, Some(NOON + Duration::seconds(2)));
    assert_eq!((counts.unsealed, counts.sealed_at), (0, Some(NOON)));
}

/// Erasing is all or nothing: rows that are not old, or that its checkpoint does not tell of, stay, and all others too.
pub(crate) async fn retention_erases_only_what_it_tells_of(mut f: Fixture) {
    recorded(&mut f, [NOON, NOON + Duration::hours(2)]).await;
    sealed(&f).await;
    let before = NOON + Duration::hours(1);
    let both = f.store.audit_runs(NOON + Duration::hours(3), 0, 10).await.unwrap();
    let erase = erasing(both[0].clone(), before, &[]);
    assert!(f.store.erase_audit(lease("one", NOON), erase).await.is_err(), "one of the rows is younger");
    assert!(f.store.audit_checkpoints().await.unwrap().is_empty());
    let limit = f.moment(before);
    f.execute(&format!("UPDATE audit_retention SET erase_before = {limit}")).await.unwrap();
    let refused = f.execute(&format!("DELETE FROM audit_log WHERE occurred_at < {limit}")).await;
    assert!(refused.unwrap_err().to_string().contains("append-only"), "no checkpoint tells of it");
    assert_eq!(f.store.audit(10).await.unwrap().len(), 2);
}
