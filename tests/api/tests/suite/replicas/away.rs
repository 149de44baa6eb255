//! The database falls silent or is away: signs of life go on where they can, and nothing that was accepted is given up.

use std::time::Duration;

use fake_pbx::Plan;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{beside, is_sound, metric, shares};
use crate::fixture::{Call, Fleet, NUMBER, eventually, slowly, talks};

async fn by_cable() -> Fleet {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .trunks_have("cps_max = 1000\nchannels_max = 1000")
        .settings(shares)
        .database_by_cable()
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(5)));
    fleet
}

/// As behind a firewall that has forgotten them: nobody is told that the other end is gone, and who dials anew gets through.
#[tokio::test]
async fn signs_of_life_go_on_when_connections_fall_silent() {
    let fleet = by_cable().await;
    let beside = beside(&fleet).await;
    fleet.callee(NUMBER, talks(9_000));
    let id = fleet.call(NUMBER).or_fail().place().await.id.clone();
    Call::again(&fleet, &id).becomes("in_progress").await;
    // In the middle of a sign of life.
    fleet.cable().silence_at("agents-ca.pem");
    let silent = Instant::now();
    let mut all = false;
    // Several leases.
    while silent.elapsed() < Duration::from_secs(8) {
        if !all && silent.elapsed() > Duration::from_secs(4) {
            assert!(fleet.cable().has_silenced());
            // And all that there are by now.
            fleet.cable().silence();
            all = true;
        }
        let claimed = metric(&beside.operator, "ringward_calls_claimed_total").await;
        assert_eq!(claimed, 0, "after {:?}", silent.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    // Nor is it of no use: what waited for a silent connection is done by another one.
    let ended = is_sound(&beside.api, &id).await;
    assert_eq!((&ended["reason"], fleet.seen(NUMBER).invites), (&json!("played"), 1), "{ended}");
    assert_eq!(metric(&beside.operator, "ringward_calls_claimed_total").await, 0);
    let other = "+48221230001";
    eventually("it takes calls", async || {
        fleet.call(other).idempotency_key("a").answer().await.status == 201
    })
    .await;
    eventually("and drives them", async || fleet.seen(other).answers == 1).await;
    assert_eq!(metric(&fleet.operator, "ringward_replica_lives").await, 1);
}

/// Without its database it refuses what it cannot keep, says when to ask again, and comes back by itself; what was accepted rings
/// and speaks on meanwhile, and ends as it ended.
#[tokio::test]
async fn while_the_database_is_away_calls_are_refused_and_those_under_way_go_on() {
    let fleet = by_cable().await;
    slowly(&fleet, Duration::from_millis(700));
    let (rings, talking) = ("+48221230001", "+48221230002");
    fleet.callee(talking, talks(2_500));
    fleet.callee(rings, Plan::of(talks(1_500)));
    let spoken = fleet.call(talking).or_fail().place().await.id.clone();
    Call::again(&fleet, &spoken).becomes("in_progress").await;
    let rung = fleet.call(rings).or_fail().place().await.id.clone();
    Call::again(&fleet, &rung).becomes("ringing").await;
    fleet.cable().keep_apart(true);
    fleet.cable().cut();
    let away = Instant::now();
    let mut refused = 0;
    // Beyond the lease, and until both calls are over for their callees.
    while away.elapsed() < Duration::from_secs(6) || !fleet.pbx("waw-1").live_channels().is_empty() {
        let answer = fleet.call(NUMBER).idempotency_key("while away").answer().await;
        answer.is_problem(503, "unavailable");
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|s| s > 0), "{:?}", answer.headers);
        assert!(away.elapsed() < Duration::from_secs(60), "the calls go on for ever");
        refused += 1;
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(fleet.seen(rings).answers, 1, "it rang on, and was answered");
    fleet.cable().keep_apart(false);
    let back = Instant::now();
    eventually("it takes calls again", async || {
        fleet.call(NUMBER).idempotency_key("while away").answer().await.status == 201
    })
    .await;
    println!(
        "{refused} refused, the first accepted {} ms after the database was back",
        back.elapsed().as_millis()
    );
    for (number, id) in [(talking, &spoken), (rings, &rung)] {
        let ended = is_sound(&fleet.api, id).await;
        assert_eq!((&ended["reason"], fleet.seen(number).invites), (&json!("played"), 1), "{ended}");
    }
    eventually("the new one rings", async || fleet.seen(NUMBER).answers == 1).await;
}

/// What a call's task waits for is bounded too: its write is made again on another connection.
#[tokio::test]
async fn a_call_goes_on_when_the_connection_that_writes_it_falls_silent() {
    let fleet = by_cable().await;
    fleet.cable().silence_at("sending");
    let number = "+48221230003";
    let id = fleet.call(number).or_fail().place().await.id.clone();
    eventually("its beginning is lost", async || fleet.cable().has_silenced()).await;
    // Longer than the other tests wait for anything.
    for _ in 0..60 {
        if fleet.seen(number).invites > 0 {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    let ended = is_sound(&fleet.api, &id).await;
    assert_eq!((&ended["reason"], fleet.seen(number).invites), (&json!("played"), 1), "{ended}");
    assert_eq!(metric(&fleet.operator, "ringward_replica_lives").await, 1);
}
