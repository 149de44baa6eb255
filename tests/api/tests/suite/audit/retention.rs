//! Seen for 90 days, gone within 25 hours, also where erasing is killed again and again.

use std::time::Duration;

use controlplane::clock::Clock;
use controlplane_core::audit::Line;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::sleep;

use super::{all_sealed, exported, keys_made, proof};
use crate::fixture::{Fleet, eventually};

const DAY: i64 = 86_400;

#[tokio::test]
async fn a_row_is_seen_for_90_days_and_gone_within_25_hours() {
    let fleet = Fleet::small().await;
    keys_made(&fleet, 1).await;
    all_sealed(&fleet).await;
    let rows = fleet.audit().await;
    let row = rows.iter().find(|row| row["action"] == "key.create").unwrap();
    let at = OffsetDateTime::parse(row["occurred_at"].as_str().unwrap(), &Rfc3339).unwrap();
    // 90 days less one second to two, and a second to two after them.
    let age = (Clock::system().now() - at).whole_seconds() + 1;
    fleet.later(90 * DAY - age - 1);
    let seen = async || {
        let rows = fleet.audit().await;
        let export = exported(&fleet, "?action=key.*").await;
        let is_listed = rows.iter().any(|listed| listed["id"] == row["id"]);
        assert_eq!(export.contains(row["id"].as_str().unwrap()), is_listed, "{export}");
        is_listed
    };
    assert!(seen().await, "90 days are not over");
    fleet.later(3);
    assert!(!seen().await, "90 days are over");
    // Out of sight, and still proved.
    keys_made(&fleet, 1).await;
    sleep(Duration::from_secs(1)).await;
    let report = proof(&fleet).await;
    assert!(report.is_whole() && report.erased > 0, "{report:?}");
    let first = report.first.unwrap().seq;
    fleet.later(25 * 3_600);
    let erased = async || {
        let text = fleet.metrics().await;
        text.lines().any(|l| l.starts_with("ringward_audit_erased_total ") && !l.ends_with(" 0"))
    };
    eventually("erased", erased).await;
    // The table itself has nothing of them.
    let oldest = async || {
        let text = fleet.metrics().await;
        let line =
            text.lines().find(|l| l.starts_with("ringward_audit_oldest_row_seconds ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()
    };
    eventually("gone", async || (1..2 * DAY).contains(&oldest().await)).await;
    eventually("told", async || fleet.audit().await.iter().any(|row| row["action"] == "audit.erase")).await;
    all_sealed(&fleet).await;
    let report = proof(&fleet).await;
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.first.unwrap().seq, first);
}

/// Rows that are old already, as an import of them would be.
const OLD_ROWS: &str = if cfg!(feature = "postgres-tests") {
    "INSERT INTO audit_log (id, occurred_at, actor_type, action, target_type, target_id, outcome, changes)
     SELECT 'aud_' || lpad(n::text, 26, '0'), now() - interval '1 day', 'system', 'x', 'x', 'x', 'success', '{}'
     FROM generate_series(1, 6000) AS n"
} else {
    "INSERT INTO audit_log (id, occurred_at, actor_type, action, target_type, target_id, outcome, changes)
     WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 6000)
     SELECT 'aud_' || substr('00000000000000000000000000' || n, -26), unixepoch() * 1000000, 'system', 'x', 'x', 'x',
         'success', '{}' FROM n"
};

#[tokio::test]
async fn killed_while_it_erases_it_goes_on() {
    let mut fleet = Fleet::small().await;
    fleet.database.run(OLD_ROWS).await;
    let series = async |fleet: &Fleet, name: &str| {
        let text = fleet.metrics().await;
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()
    };
    eventually("sealed", async || series(&fleet, "ringward_audit_sealed_total").await >= 6_000).await;
    let checkpoints = async |fleet: &Fleet| {
        let text = exported(fleet, "?action=none").await;
        let told = text.lines().filter_map(|line| {
            let Line::AuditCheckpoint(told) = serde_json::from_str(line).unwrap() else { return None };
            Some(told.statement.to_seq)
        });
        told.max().unwrap_or(0)
    };
    fleet.later(92 * DAY);
    let mut kills = 0;
    let late = tokio::time::Instant::now() + Duration::from_secs(60);
    while checkpoints(&fleet).await < 6_000 {
        assert!(tokio::time::Instant::now() < late, "it does not go on");
        if kills < 3 && checkpoints(&fleet).await > 1_500 * kills {
            kills += 1;
            fleet.kill().await;
            fleet.start_again().await;
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert!(kills > 1, "it was killed in the middle");
    keys_made(&fleet, 1).await;
    sleep(Duration::from_secs(1)).await;
    let report = proof(&fleet).await;
    assert!(report.is_whole() && report.erased >= 6_000, "{report:?}");
}
