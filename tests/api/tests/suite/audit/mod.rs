//! The audit log: every state-changing route leaves a row, what is old is gone, and what was done to it is named.

mod denials;
mod retention;
mod routes;
#[cfg(not(feature = "postgres-tests"))]
mod tampering;

use std::time::Duration;

use controlplane::audit::signing::is_signed;
use controlplane_core::audit::{Hex, Line, Report, Verifier};
use serde_json::json;
use tokio::time::sleep;

use crate::fixture::{Fleet, eventually};

pub(super) async fn exported(fleet: &Fleet, query: &str) -> String {
    let answer = fleet.operator.get(&format!("/admin/v1/audit/export{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.text
}

/// As `ringward audit verify` does.
pub(super) fn proved(export: &str, heads: &str) -> Report {
    let heads: Vec<Line> = heads.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let Some(Line::AuditHead(first)) = heads.first() else { panic!("no heads") };
    let mut verifier = Verifier::new(vec![first.key.clone()], |key: &Hex, bytes: &[u8], signature: &Hex| {
        is_signed(key, bytes, signature)
    });
    for line in &heads {
        let Line::AuditHead(head) = line else { panic!("{line:?}") };
        verifier.head(head);
    }
    export.lines().for_each(|line| verifier.line(line));
    verifier.finish()
}

pub(super) async fn heads(fleet: &Fleet) -> String {
    fleet.operator.get("/admin/v1/audit/heads").await.text
}

pub(super) async fn proof(fleet: &Fleet) -> Report {
    proved(&exported(fleet, "").await, &heads(fleet).await)
}

/// Everything that is there has its place in the chain.
pub(super) async fn all_sealed(fleet: &Fleet) {
    eventually("all sealed", async || fleet.audit().await.iter().all(|row| row["seq"].is_i64())).await;
}

pub(super) async fn keys_made(fleet: &Fleet, n: usize) {
    for i in 0..n {
        fleet.operator.post("/admin/v1/keys", &json!({"name": format!("k{i}")})).await.is(201);
    }
}

#[tokio::test]
async fn rows_are_sealed_within_a_second_and_proved() {
    let fleet = Fleet::small().await;
    keys_made(&fleet, 5).await;
    sleep(Duration::from_secs(1)).await;
    assert!(fleet.audit().await.iter().all(|row| row["seq"].is_i64()));
    let report = proof(&fleet).await;
    assert!(report.is_whole(), "{report:?}");
    assert!(report.rows >= 6 && report.heads >= 1, "{report:?}");
    // A part is no proof, and a sheet is a sheet.
    let part = proved(&exported(&fleet, "?action=key.*").await, &heads(&fleet).await);
    assert!(!part.is_whole());
    let csv = exported(&fleet, "?format=csv").await;
    assert_eq!(csv.lines().count() as u64, report.rows + 1);
    assert!(csv.starts_with("\"seq\",\"id\""), "{csv}");
    let metrics = fleet.metrics().await;
    assert!(metrics.contains("ringward_audit_oldest_row_seconds"), "{metrics}");
}
