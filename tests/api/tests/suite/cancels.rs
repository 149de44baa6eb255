//! A customer ends a call: in every state, once, and the phone falls silent.

use std::time::Duration;

use fake_pbx::{Ending, FakePbx};

use crate::fixture::{Call, Fleet, NUMBER, eventually, slowly, talks};

async fn silent(fleet: &Fleet) {
    eventually("no channel is left", async || fleet.pbxes().all(|pbx| pbx.live_channels().is_empty())).await;
}

#[tokio::test]
async fn canceled_while_queued_nothing_is_sent() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .before(|pbxes| pbxes.values().for_each(FakePbx::close_port))
        .start()
        .await;
    let call = fleet.call(NUMBER).place().await;
    assert_eq!(call.cancel().await.status, 202);
    let ended = call.ends_as("canceled", "api").await;
    assert_eq!((ended.attempts().len(), ended.outcome()), (0, "not_tried"));
    fleet.pbx("waw-1").open_port().await.unwrap();
    fleet.all_trunks_are_usable(true).await;
    assert_eq!(fleet.seen(NUMBER).invites, 0);
}

#[tokio::test]
async fn canceled_under_way_the_phone_falls_silent() {
    for (stage, ending, reason, status) in [
        ("initiated", Ending::SilentTrying, "api", "canceled"),
        ("ringing", Ending::NoAnswer, "api", "canceled"),
        // Also while the message plays: the outcome tells that somebody was there.
        ("in_progress", talks(60_000), "api", "canceled"),
    ] {
        let fleet = Fleet::square().start().await;
        fleet.callee(NUMBER, ending);
        let call = fleet.call(NUMBER).place().await;
        call.becomes(stage).await;
        assert_eq!(call.cancel().await.is(202)["id"], *call.id);
        let ended = call.ends_as(status, reason).await;
        silent(&fleet).await;
        assert_eq!((ended.attempts().len(), fleet.seen(NUMBER).invites), (1, 1), "{stage}");
        let answered = if stage == "in_progress" { "answered" } else { "not_reached" };
        assert_eq!(ended.outcome(), answered, "{stage}");
    }
}

/// Between the acceptance and the node's answer.
#[tokio::test]
async fn canceled_at_once_it_ends_and_nothing_rings_on() {
    let fleet = Fleet::square().start().await;
    slowly(&fleet, Duration::from_millis(50));
    fleet.pbxes().for_each(|pbx| pbx.set_default(Ending::NoAnswer));
    for n in 0..10 {
        let call = fleet.call(&format!("+4822000000{n}")).place().await;
        call.cancel().await;
        let ended = call.ends_as("canceled", "api").await;
        assert!(ended.attempts().len() <= 1);
    }
    silent(&fleet).await;
}

#[tokio::test]
async fn canceled_after_its_end_or_twice_it_changes_nothing() {
    let fleet = Fleet::small().await;
    let call = fleet.call(NUMBER).place().await;
    let ended = call.ends_as("completed", "played").await;
    for _ in 0..2 {
        eventually("it has no task any more", async || call.cancel().await.status == 200).await;
    }
    assert_eq!(call.now().await, ended.0);
    fleet.callee(NUMBER, Ending::NoAnswer);
    let call = fleet.call(NUMBER).place().await;
    call.becomes("ringing").await;
    let (one, two) = tokio::join!(call.cancel(), call.cancel());
    assert!(one.status <= 202 && two.status <= 202);
    call.ends_as("canceled", "api").await;
}

/// A cancel that meets a cut is not forgotten.
#[tokio::test]
async fn canceled_while_the_link_is_down() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .settings(|settings| settings.reconcile_timeout_ms = 4_000)
        .start()
        .await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let call = fleet.call(NUMBER).with("ring_timeout_s", 60).place().await;
    let ringing = call.becomes("ringing").await;
    let pbx = fleet.pbx(ringing["attempts"][0]["node"].as_str().unwrap());
    pbx.close_port();
    pbx.cut_links();
    eventually("the link is known to be lost", async || {
        fleet.node(ringing["attempts"][0]["node"].as_str().unwrap()).await["up"] == false
    })
    .await;
    assert_eq!(call.cancel().await.status, 202);
    pbx.open_port().await.unwrap();
    call.ends_as("canceled", "api").await;
    silent(&fleet).await;
    assert_eq!(fleet.seen(NUMBER).invites, 1);
}

/// A cancel that was accepted outlives the process that accepted it.
#[tokio::test]
async fn a_cancel_survives_a_kill() {
    let mut fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(|settings| settings.reconcile_timeout_ms = 4_000)
        .start()
        .await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let call = fleet.call(NUMBER).with("ring_timeout_s", 6).place().await;
    call.becomes("ringing").await;
    // The order to hang up does not reach the PBX before the kill.
    fleet.pbx("waw-1").freeze(true);
    assert_eq!(call.cancel().await.status, 202);
    let id = call.id.clone();
    fleet.kill().await;
    fleet.pbx("waw-1").restart();
    fleet.pbx("waw-1").freeze(false);
    fleet.start_again().await;
    let ended = Call::again(&fleet, &id).ends().await;
    assert_eq!(ended.0["reason"], "api", "{}", ended.text());
    assert_eq!(fleet.seen(NUMBER).invites, 1, "{}", ended.text());
}

/// What waits for a PBX that does not answer costs nothing while it waits.
#[tokio::test]
async fn a_canceled_call_waits_without_work() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(|settings| settings.reconcile_timeout_ms = 2_000)
        .start()
        .await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let call = fleet.call(NUMBER).place().await;
    call.becomes("ringing").await;
    fleet.pbx("waw-1").freeze(true);
    assert_eq!(call.cancel().await.status, 202);
    let before = fleet.busy();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let worked = fleet.busy() - before;
    assert!(worked < Duration::from_millis(200), "busy for {worked:?} of a second");
    fleet.pbx("waw-1").freeze(false);
    call.ends_as("canceled", "api").await;
    silent(&fleet).await;
}

/// The node does not come back in time: the call ends as canceled, and what lived on is hung up later.
#[tokio::test]
async fn canceled_on_a_node_that_stays_away_its_survivor_is_hung_up() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .settings(|settings| settings.reconcile_timeout_ms = 500)
        .start()
        .await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let call = fleet.call(NUMBER).with("ring_timeout_s", 60).place().await;
    call.becomes("ringing").await;
    let pbx = fleet.pbx("waw-1");
    pbx.close_port();
    pbx.cut_links();
    assert_eq!(call.cancel().await.status, 202);
    call.ends_as("canceled", "api").await;
    assert_eq!(pbx.live_channels().len(), 1, "it rings on, unheard");
    pbx.open_port().await.unwrap();
    silent(&fleet).await;
}
