//! How often one number is dialled: over parallel requests, redials and restarts.

use std::time::Duration;

use controlplane_core::throttle::{Throttle, Window};
use fake_pbx::Ending;
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::fixture::{Call, Fleet, NUMBER, in_seconds, talks};

fn windows(windows: &[(u16, u32)]) -> Throttle {
    let windows: Vec<_> =
        windows.iter().map(|(calls, per_s)| Window { calls: *calls, per_s: *per_s }).collect();
    windows.try_into().unwrap()
}

async fn small(limits: &'static [(u16, u32)]) -> Fleet {
    Fleet::of(&["waw-1"], &["acme"])
        .trunks_have("cps_max = 1000")
        .settings(|settings| settings.throttle = windows(limits))
        .start()
        .await
}

#[tokio::test]
async fn a_call_over_the_limit_waits_and_is_dialled_when_its_window_frees() {
    let fleet = small(&[(1, 2)]).await;
    fleet.callee(NUMBER, talks(20));
    let began = Instant::now();
    let (first, second) = (fleet.call(NUMBER).place().await, fleet.call(NUMBER).place().await);
    let other = fleet.call("+48221234568").place().await;
    first.ends_as("completed", "played").await;
    other.ends_as("completed", "played").await;
    assert!(began.elapsed() < Duration::from_secs(2), "another number is not held: {:?}", began.elapsed());
    assert_eq!((&second.now().await["status"], fleet.seen(NUMBER).invites), (&json!("queued"), 1));
    second.ends_as("completed", "played").await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

/// Fifty at once: one dials, the others wait until their deadline, and say why they were not dialled.
#[tokio::test]
async fn fifty_parallel_calls_to_one_number_ring_it_once_per_window() {
    let fleet = small(&[(1, 60), (3, 900)]).await;
    fleet.callee(NUMBER, talks(20));
    let deadline = in_seconds(3);
    let posts = (0..50).map(|_| fleet.call(NUMBER).with("deadline_at", deadline.clone()).place());
    let calls = join_all(posts).await;
    let mut reasons = Vec::new();
    for call in &calls {
        let ended = call.ends().await;
        reasons.push(format!("{} {} {}", ended.0["status"], ended.0["reason"], ended.0["outcome"]));
    }
    let throttled = r#""failed" "throttled" "not_tried""#;
    assert_eq!(reasons.iter().filter(|reason| *reason == throttled).count(), 49, "{reasons:?}");
    assert_eq!(fleet.seen(NUMBER).invites, 1);
    assert!(fleet.metrics().await.contains("ringward_calls_throttled_total"));
}

/// One window frees for one call after the other: in the order of their acceptance, each held call counted once.
#[tokio::test]
async fn waiting_calls_are_dialled_oldest_first() {
    let fleet = small(&[(1, 1)]).await;
    fleet.callee(NUMBER, talks(20));
    let began = Instant::now();
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(fleet.call(NUMBER).place().await);
    }
    let mut started = Vec::new();
    for call in &calls {
        let ended = call.ends_as("completed", "played").await;
        started.push(ended.each("started_at")[0].to_owned());
    }
    assert!(started.is_sorted(), "{started:?}");
    let took = began.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(6)).contains(&took), "{took:?}");
    let metrics = fleet.metrics().await;
    assert!(metrics.contains("ringward_calls_throttled_total 4\n"), "{metrics}");
}

/// What held it back at first is not why it ends.
#[tokio::test]
async fn a_call_that_was_dialled_is_not_told_as_throttled() {
    let fleet = small(&[(1, 1)]).await;
    fleet.callee(NUMBER, talks(20));
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    fleet.callee(NUMBER, Ending::SilentTrying);
    let held = fleet.call(NUMBER).with("progress_timeout_s", 3).with("deadline_at", in_seconds(3));
    let ended = held.place().await.ends_as("failed", "deadline_exceeded").await;
    assert_eq!(ended.attempts().len(), 1, "{}", ended.text());
}

/// Its beginning is written, but the deadline comes before the database says so.
#[tokio::test]
async fn nothing_leaves_after_the_deadline() {
    let fleet = small(&[(1, 2)]).await;
    fleet.callee(NUMBER, talks(20));
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    let late = fleet.call(NUMBER).with("deadline_at", in_seconds(3)).place().await;
    sleep(Duration::from_secs(1)).await;
    let held = fleet.database.hold().await;
    sleep(Duration::from_millis(2_700)).await;
    held.let_go().await;
    let ended = late.ends_as("failed", "deadline_exceeded").await;
    assert_eq!((fleet.seen(NUMBER).invites, ended.outcome()), (1, "not_tried"), "{}", ended.text());
    assert_eq!(ended.endings(), ["not_sent"]);
}

/// What was dialled before a restart counts after it.
#[tokio::test]
async fn the_limit_holds_over_a_restart() {
    let mut fleet = small(&[(1, 4)]).await;
    fleet.callee(NUMBER, talks(20));
    let began = Instant::now();
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
    let id = fleet.call(NUMBER).place().await.id;
    for _ in 0..2 {
        fleet.kill().await;
        fleet.start_again().await;
        sleep(Duration::from_millis(100)).await;
        assert_eq!(fleet.seen(NUMBER).invites, 1);
    }
    Call::again(&fleet, &id).ends_as("completed", "played").await;
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(fleet.seen(NUMBER).invites, 2);
}

/// A redial is a start, failover is none; the urgent wait too; a cancel ends the wait.
#[tokio::test]
async fn redials_count_and_failover_does_not() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .settings(|settings| settings.throttle = windows(&[(2, 3_600)]))
        .start()
        .await;
    fleet.callee(NUMBER, Ending::Sip(503));
    let failed = fleet.call(NUMBER).place().await.ends_as("failed", "trunk_unavailable").await;
    assert_eq!((failed.attempts().len(), fleet.seen(NUMBER).invites), (2, 2), "{}", failed.text());
    fleet.callee(NUMBER, Ending::Busy486);
    let call =
        fleet.call(NUMBER).with("redial", json!({"on": ["busy"], "max": 3, "delay_s": 1})).place().await;
    sleep(Duration::from_millis(2_500)).await;
    let waiting = call.now().await;
    assert_eq!((&waiting["status"], fleet.seen(NUMBER).invites), (&json!("queued"), 3), "{waiting}");
    assert_eq!(call.cancel().await.status, 202);
    call.ends_as("canceled", "api").await;
    assert_eq!(fleet.seen(NUMBER).invites, 3);
}
