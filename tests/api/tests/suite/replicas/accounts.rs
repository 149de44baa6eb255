//! A carrier's account over all replicas, as its carrier counts it: calls and canaries.

use std::time::Duration;

use fake_pbx::Ending;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{beside, is_sound, shares};
use crate::fixture::{Door, Fleet, eventually, talks};

const CANARY: &str = "+48221239999";

async fn with_account(account: &str) -> Fleet {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .carriers_have(account)
        .trunks_have(&format!(
            "cps_max = 1000\nchannels_max = 1000\ncanary = {{ number = \"{CANARY}\", interval_s = 3600, expects = \"answered\" }}"
        ))
        .settings(shares)
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(5)));
    fleet
}

async fn post(door: &Door, number: &str) -> String {
    let body = json!({"to": number, "message": {"audio_id": "builtin:beep"}, "on_unknown": "fail"});
    door.post("/v1/calls", &body).await.is(201)["id"].as_str().unwrap().to_owned()
}

/// Each replica holds back what the others have no room for, and lets it go on when there is.
#[tokio::test]
async fn calls_of_all_replicas_fit_into_one_account() {
    let fleet = with_account("channels_max = 2").await;
    let beside = beside(&fleet).await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(700)));
    let mut placed = Vec::new();
    for n in 0..4 {
        for door in [&fleet.api, &beside.api] {
            placed.push(post(door, &format!("+4822001{n}000")).await);
        }
    }
    let mut most = 0;
    let all_end = async {
        for id in &placed {
            let ended = is_sound(&beside.api, id).await;
            assert_eq!(
                (&ended["reason"], ended["attempts"].as_array().unwrap().len()),
                (&json!("played"), 1),
                "{ended}"
            );
        }
    };
    let watched = async {
        loop {
            most = most.max(fleet.pbx("waw-1").live_channels().len());
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! { () = all_end => {}, () = watched => {} }
    assert_eq!(most, 2, "as many as there may be, and no more");
    assert_eq!(fleet.pbx("waw-1").seen_in_all().invites, 8);
}

/// What an operator, or a probation, sends counts as any call does, wherever it leaves from.
#[tokio::test]
async fn canaries_count_towards_the_account_of_all_replicas() {
    let fleet = with_account("channels_max = 1").await;
    let beside = beside(&fleet).await;
    let canary = async |door: &Door| door.post("/admin/v1/trunks/acme-waw-1/canary", &json!({})).await;
    let number = "+48220010000";
    fleet.callee(number, talks(2_000));
    let id = post(&fleet.api, number).await;
    eventually("it is answered", async || fleet.seen(number).answers == 1).await;
    let refused = canary(&beside.operator).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("carrier"), "{}", refused.text);
    assert_eq!(fleet.seen(CANARY).invites, 0);
    assert_eq!(is_sound(&beside.api, &id).await["reason"], "played");
    // And the other way round.
    fleet.callee(CANARY, Ending::Answer { talk: Duration::from_secs(2) });
    eventually("a canary leaves", async || canary(&beside.operator).await.status == 202).await;
    eventually("it is answered", async || fleet.seen(CANARY).answers == 1).await;
    let id = post(&fleet.api, number).await;
    let mut most = 0;
    let ended: Value = tokio::select! {
        ended = is_sound(&fleet.api, &id) => ended,
        () = async {
            loop {
                most = most.max(fleet.pbx("waw-1").live_channels().len());
                sleep(Duration::from_millis(5)).await;
            }
        } => unreachable!(),
    };
    assert_eq!((&ended["reason"], most), (&json!("played"), 1), "{ended}");
}

/// A canary whose replica died with it holds its place no longer than it can live.
#[tokio::test]
async fn what_a_dead_replicas_canary_held_is_free_again() {
    let fleet = with_account("channels_max = 1").await;
    let mut beside = beside(&fleet).await;
    fleet.callee(CANARY, Ending::NoAnswer);
    beside.operator.post("/admin/v1/trunks/acme-waw-1/canary", &json!({})).await.is(202);
    eventually("it rings", async || fleet.seen(CANARY).rings == 1).await;
    beside.kill().await;
    let number = "+48220010000";
    let id = post(&fleet.api, number).await;
    // Its phone may ring on.
    sleep(Duration::from_secs(4)).await;
    assert_eq!(fleet.seen(number).invites, 0, "the account has no room");
    // A minute later.
    fleet
        .database
        .run("UPDATE replica SET expires_at = expires_at - interval '1 minute' WHERE expires_at < now()")
        .await;
    assert_eq!(is_sound(&fleet.api, &id).await["reason"], "played");
}
