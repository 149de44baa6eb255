//! The control plane dies, and whoever is on call is phoned all the same, once for each turn.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{
    FIRST, SECOND, becomes, calls, each, fires, hook, incident, is_over, night_shift, presses, speaking,
    tell, told,
};
use crate::fixture::eventually;

/// Killed at many moments from the post on: each number has its turn once, and nobody is phoned twice for one.
#[tokio::test]
async fn killed_at_any_moment_each_turn_is_one_call() {
    for after_ms in [0, 10, 25, 50, 100, 200, 400, 800] {
        let (mut fleet, _folder) = speaking().await;
        fleet.callee(FIRST, presses('2'));
        fleet.callee(SECOND, presses('1'));
        let hook = hook(&fleet.api, night_shift()).await;
        let id = told(&fleet.api, &hook, &fires()).await;
        sleep(Duration::from_millis(after_ms)).await;
        fleet.kill().await;
        fleet.start_again().await;
        // Alertmanager had no answer, and posts again.
        assert_eq!(told(&fleet.api, &hook, &fires()).await, id);
        let incident = becomes(&fleet.api, &id, "acknowledged").await;
        assert_eq!(each(&incident, "to"), [FIRST, SECOND], "{after_ms} ms: {incident}");
        assert_eq!(calls(&fleet.api).await.len(), 2, "{after_ms} ms: {incident}");
    }
}

/// A backup is restored in which somebody is being phoned: nobody is, until the alert is told of again.
#[tokio::test]
async fn what_a_backup_was_phoning_for_goes_on_when_the_alert_comes_again() {
    let (mut fleet, _folder) = speaking().await;
    fleet.callee(FIRST, presses('1'));
    let hook = hook(&fleet.api, night_shift()).await;
    let id = told(&fleet.api, &hook, &fires()).await;
    becomes(&fleet.api, &id, "acknowledged").await;
    fleet.kill().await;
    // As a backup has it that was made as the alert came, restored after the key was pressed.
    let restored = "DELETE FROM idempotency;
        UPDATE incident SET status = 'escalating', phase = 'waiting', due_at = opened_at, steps = '[]', acknowledged_at = NULL,
            acknowledged_by = NULL, version = version + 1;
        INSERT INTO held (id, held_at) SELECT id, opened_at FROM incident;";
    fleet.database.run(restored).await;
    fleet.start_again().await;
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(incident(&fleet.api, &id).await["status"], "escalating");
    assert_eq!(fleet.seen(FIRST).invites, 1, "nobody is phoned");
    assert_eq!(told(&fleet.api, &hook, &fires()).await, id);
    becomes(&fleet.api, &id, "acknowledged").await;
    assert_eq!(fleet.seen(FIRST).invites, 2);
}

/// The call is accepted, and the process dies before it has written that: the next one finds it by its key.
#[tokio::test]
async fn a_call_whose_acceptance_was_not_noted_is_found_again() {
    if cfg!(feature = "postgres-tests") {
        // Triggers are written otherwise there; what the driver does is the same.
        return;
    }
    for ends in [false, true] {
        let (mut fleet, _folder) = speaking().await;
        fleet.callee(FIRST, if ends { fake_pbx::Ending::NoAnswer.into() } else { presses('1') });
        let mut body = night_shift();
        body["ring_timeout_s"] = json!(60);
        let hook = hook(&fleet.api, body).await;
        let death = "CREATE TRIGGER death BEFORE UPDATE ON incident WHEN NEW.call_id IS NOT NULL \
                     BEGIN SELECT RAISE(ABORT, 'death'); END";
        fleet.database.run(death).await;
        let id = told(&fleet.api, &hook, &fires()).await;
        eventually("the call is accepted", async || calls(&fleet.api).await.len() == 1).await;
        fleet.kill().await;
        fleet.database.run("DROP TRIGGER death").await;
        if ends {
            // It is over before anybody knows of the call: it is looked for, and ended.
            let over =
                "UPDATE incident SET status = 'resolved', resolved_at = opened_at, version = version + 1";
            fleet.database.run(over).await;
        }
        fleet.start_again().await;
        let incident = becomes(&fleet.api, &id, if ends { "resolved" } else { "acknowledged" }).await;
        let call = &calls(&fleet.api).await[0];
        eventually("the step has its call", async || {
            super::incident(&fleet.api, &id).await["steps"][0]["call"] == call["id"]
        })
        .await;
        if ends {
            crate::fixture::Call::again(&fleet, call["id"].as_str().unwrap())
                .ends_as("canceled", "api")
                .await;
        }
        assert_eq!((calls(&fleet.api).await.len(), fleet.seen(FIRST).invites <= 1), (1, true), "{incident}");
    }
}

/// It was resolved while the process was down: nobody is phoned when it is back, whoever was next.
#[tokio::test]
async fn what_is_over_when_it_is_back_phones_nobody() {
    let (mut fleet, _folder) = speaking().await;
    super::never_answers(&fleet, FIRST);
    let mut body = night_shift();
    body["ring_timeout_s"] = json!(60);
    let hook = hook(&fleet.api, body).await;
    let id = told(&fleet.api, &hook, &fires()).await;
    eventually("it rings", async || fleet.seen(FIRST).rings == 1).await;
    fleet.kill().await;
    fleet.start_again().await;
    tell(&fleet.api, &hook, &is_over()).await.is(202);
    becomes(&fleet.api, &id, "resolved").await;
    eventually("nothing rings", async || fleet.pbxes().all(|pbx| pbx.live_channels().is_empty())).await;
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!((fleet.seen(FIRST).invites, fleet.seen(SECOND).invites), (1, 0));
}
