//! What was done to the log by who has the database's file is found and named.

use super::{all_sealed, keys_made, proof};
use crate::fixture::{Browser, Fleet};

const UNLOCK: &str = "DROP TRIGGER audit_log_only_sealed; DROP TRIGGER audit_log_not_deleted;
                      DROP TRIGGER audit_log_not_replaced;";

/// A log of eight keys or more, without its locks, as who has the database's file makes it.
async fn unlocked() -> Fleet {
    let fleet = Fleet::small().await;
    keys_made(&fleet, 8).await;
    all_sealed(&fleet).await;
    fleet.database.run(UNLOCK).await;
    assert!(proof(&fleet).await.is_whole());
    fleet
}

async fn id(fleet: &Fleet, seq: i64) -> String {
    let rows = fleet.audit().await;
    rows.iter().find(|row| row["seq"] == seq).unwrap()["id"].as_str().unwrap().to_owned()
}

/// What the console's proof says.
async fn console(fleet: &Fleet) -> String {
    let browser = Browser::of(&fleet.operator, &fleet.operator.key.clone().unwrap()).await;
    browser.page("/audit/verify").await
}

#[tokio::test]
async fn a_log_that_is_whole_is_said_to_be_by_its_page() {
    let fleet = Fleet::small().await;
    keys_made(&fleet, 8).await;
    all_sealed(&fleet).await;
    let page = console(&fleet).await;
    assert!(
        page.contains("The audit log is whole") && page.contains("rows were proved, from row 1 ("),
        "{page}"
    );
}

#[tokio::test]
async fn one_changed_byte_is_found_and_named() {
    let fleet = unlocked().await;
    let id = id(&fleet, 5).await;
    fleet.database.run("UPDATE audit_log SET ip = '127.0.0.2' WHERE seq = 5").await;
    let report = proof(&fleet).await;
    assert_eq!(report.findings_total, 1, "{report:?}");
    let text = report.findings[0].to_string();
    assert!(text.starts_with(&format!("row 5 ({id}) was changed")), "{text}");
    let page = console(&fleet).await;
    assert!(page.contains("The audit log is NOT whole") && page.contains(&text), "{page}");
}

#[tokio::test]
async fn a_removed_row_is_found_and_named() {
    let fleet = unlocked().await;
    let (before, after) = (id(&fleet, 4).await, id(&fleet, 6).await);
    fleet.database.run("DELETE FROM audit_log WHERE seq = 5").await;
    let text = proof(&fleet).await.findings[0].to_string();
    assert!(text.contains("rows 5 to 5 are missing"), "{text}");
    assert!(text.contains(&before) && text.contains(&after), "{text}");
}

/// Also where the database's own end of the chain is set back: the heads are elsewhere.
#[tokio::test]
async fn a_cut_tail_is_found_and_named() {
    let mut fleet = unlocked().await;
    fleet.stop().await;
    fleet
        .database
        .run(
            "DELETE FROM audit_log WHERE seq > 6;
             UPDATE audit_chain SET seq = 6, hash = (SELECT hash FROM audit_log WHERE seq = 6);",
        )
        .await;
    fleet.start_again().await;
    let last = id(&fleet, 6).await;
    let text = proof(&fleet).await.findings[0].to_string();
    assert!(text.contains("the end was cut off: rows 7 to") && text.contains(&last), "{text}");
}
