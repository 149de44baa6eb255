//! Replicas whose machines' clocks are minutes apart, and what is found late: whose call it is decides nothing about how it ends.

use std::time::Duration;

use fake_pbx::{Plan, Said};
use serde_json::json;
use tokio::time::sleep;

use super::{becomes, first, is_sound, metric};
use crate::fixture::{Beside, Fleet, NUMBER, eventually, in_seconds, slowly, talks};

/// More than any limit of the calls below.
const APART: time::Duration = time::Duration::minutes(7);

async fn beside(fleet: &Fleet, ahead: time::Duration) -> Beside {
    let beside = Beside::ahead(fleet, ahead).await;
    eventually("the trunks are usable there", async || {
        let trunks = beside.operator.get("/admin/v1/trunks").await.is(200);
        trunks["data"].as_array().unwrap().iter().all(|trunk| trunk["usable"] == true)
    })
    .await;
    beside
}

/// Calls at several stages go over to a machine that is minutes ahead, or behind, and are none the worse.
#[tokio::test]
async fn clocks_that_differ_by_minutes_do_no_harm() {
    for ahead in [APART, -APART] {
        let mut fleet = first(&["waw-1"]).await;
        slowly(&fleet, Duration::from_millis(400));
        let beside = beside(&fleet, ahead).await;
        let numbers = ["+48220010000", "+48220020000"];
        let mut placed = Vec::new();
        for number in numbers {
            fleet.callee(number, talks(6_000));
            let call =
                fleet.call(number).or_fail().with("time_limit_s", 30).with("deadline_at", in_seconds(60));
            placed.push((number, call.place().await.id.clone()));
        }
        becomes(&beside.api, &placed[0].1, "in_progress").await;
        // What a customer means by a deadline, whoever is asked.
        let body = json!({
            "to": NUMBER, "message": {"audio_id": "builtin:beep"}, "deadline_at": in_seconds(60), "on_unknown": "fail",
        });
        let there = beside.api.post("/v1/calls", &body).await.is(201)["id"].as_str().unwrap().to_owned();
        let ended = is_sound(&beside.api, &there).await;
        assert_eq!(ended["reason"], "played", "{ahead}: {ended}");
        fleet.kill().await;
        eventually("they are claimed", async || {
            metric(&beside.operator, "ringward_calls_claimed_total").await == 2
        })
        .await;
        for (number, id) in &placed {
            let ended = is_sound(&beside.api, id).await;
            assert_eq!(
                (&ended["reason"], fleet.seen(number).invites),
                (&json!("played"), 1),
                "{ahead}: {ended}"
            );
        }
    }
}

/// A key that was pressed behind a cut is found by whoever drives the call by then.
#[tokio::test]
async fn a_key_is_heard_late_by_another_replica() {
    const PRESSED_AFTER: Duration = Duration::from_millis(1_500);
    let mut fleet = first(&["waw-1"]).await;
    let beside = super::beside(&fleet).await;
    fleet.callee(NUMBER, Plan::of(talks(3_000)).saying(PRESSED_AFTER, Said::Key('1')));
    let request = fleet
        .call(NUMBER)
        .or_fail()
        .with("acknowledgement", json!({"keys": {"1": "acknowledge"}, "timeout_s": 5}));
    let call = request.with("redial", json!({"on": ["interrupted"], "max": 1, "delay_s": 60})).place().await;
    call.becomes("in_progress").await;
    let pbx = fleet.pbx("waw-1");
    pbx.close_port();
    pbx.cut_links();
    let waits = call.becomes("queued").await;
    assert_eq!(waits["attempts"][0]["reason"], "interrupted", "{waits}");
    sleep(PRESSED_AFTER).await;
    let id = call.id.clone();
    fleet.kill().await;
    eventually("it is claimed", async || metric(&beside.operator, "ringward_calls_claimed_total").await == 1)
        .await;
    fleet.pbx("waw-1").open_port().await.unwrap();
    let ended = is_sound(&beside.api, &id).await;
    assert_eq!(
        (&ended["reason"], &ended["attempts"][0]["key"]),
        (&json!("acknowledged"), &json!("1")),
        "{ended}"
    );
    assert_eq!(fleet.seen(NUMBER).invites, 1);
    let audit = beside.operator.get("/admin/v1/audit").await.is(200);
    let heard = |row: &&serde_json::Value| row["action"] == "call.hear_late";
    assert_eq!(audit["data"].as_array().unwrap().iter().filter(heard).count(), 1, "{audit}");
}
