//! Limits of trunks and carriers: calls wait, none is dropped, and no limit is ever overrun.

use std::time::Duration;

use fake_pbx::Ending;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::fixture::{Call, Fleet, NUMBER, talks};

fn number(n: usize) -> String {
    format!("+48{:09}", 220_000_000 + n)
}

/// Places `calls` at once and watches how many channels live at a time, until all have ended.
async fn peak_of(fleet: &Fleet, calls: usize) -> usize {
    let mut peak = 0;
    let placing = join_all((0..calls).map(|n| {
        let request = fleet.call(&number(n));
        async { request.place().await.ends_as("completed", "played").await }
    }));
    let mut placing = std::pin::pin!(placing);
    loop {
        tokio::select! {
            _ = &mut placing => return peak,
            () = sleep(Duration::from_millis(1)) => {
                peak = peak.max(fleet.pbxes().map(|pbx| pbx.live_channels().len()).sum());
            }
        }
    }
}

#[tokio::test]
async fn a_trunks_channels_are_never_overrun_and_no_call_is_dropped() {
    let lines = "channels_max = 3\ncps_max = 1000";
    let fleet = Fleet::of(&["waw-1"], &["acme"]).trunks_have(lines).start().await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(60)));
    // Looked at from outside, a moment of three may be missed; one of four must not be there.
    let peak = peak_of(&fleet, 20).await;
    assert!((2..=3).contains(&peak), "{peak}");
    assert_eq!(fleet.pbx("waw-1").seen_in_all().answers, 20);
}

/// The account's limit counts over all nodes.
#[tokio::test]
async fn a_carriers_channels_are_never_overrun() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .trunks_have("cps_max = 1000")
        .carriers_have("channels_max = 4")
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(60)));
    let peak = peak_of(&fleet, 24).await;
    assert!((2..=4).contains(&peak), "{peak}");
    assert!(fleet.pbxes().all(|pbx| pbx.seen_in_all().invites >= 8), "both nodes carry");
}

/// Starts of a trunk or carrier: no second holds more than its limit.
async fn starts_of(fleet: &Fleet, calls: usize) -> Vec<f64> {
    let ended = join_all((0..calls).map(|n| {
        let request = fleet.call(&number(n));
        async { request.place().await.ends_as("completed", "played").await }
    }))
    .await;
    let started = |attempt: &Value| seconds(attempt["started_at"].as_str().unwrap());
    let mut starts: Vec<_> = ended.iter().flat_map(|call| call.attempts().iter().map(started)).collect();
    starts.sort_by(f64::total_cmp);
    starts
}

/// Seconds of the day of an RFC 3339 time.
fn seconds(text: &str) -> f64 {
    let clock = text.split_once('T').unwrap().1.trim_end_matches('Z');
    clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}

/// The moment is taken just after the slot is: this much later at most.
const LAG_S: f64 = 0.1;

#[tokio::test]
async fn a_trunks_pace_is_never_exceeded() {
    let fleet = Fleet::of(&["waw-1"], &["acme"]).trunks_have("cps_max = 5").start().await;
    let starts = starts_of(&fleet, 12).await;
    for two in starts.windows(6) {
        assert!(two[5] - two[0] > 1.0 - LAG_S, "six starts within a second: {starts:?}");
    }
    assert!(starts[11] - starts[0] < 5.0, "slower than it may: {starts:?}");
}

#[tokio::test]
async fn a_carriers_pace_is_never_exceeded() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .trunks_have("cps_max = 1000")
        .carriers_have("cps_max = 5")
        .start()
        .await;
    let starts = starts_of(&fleet, 12).await;
    for two in starts.windows(6) {
        assert!(two[5] - two[0] > 1.0 - LAG_S, "six starts within a second: {starts:?}");
    }
}

/// Limits held it back until its deadline.
#[tokio::test]
async fn a_call_that_limits_held_back_until_its_deadline_is_throttled() {
    let fleet = Fleet::of(&["waw-1"], &["acme"]).trunks_have("channels_max = 1").start().await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let holds = fleet.call(NUMBER).place().await;
    holds.becomes("ringing").await;
    let soon = time_in(Duration::from_millis(700));
    let begun = Instant::now();
    let waits = fleet.call(&number(1)).with("deadline_at", soon).place().await;
    let ended = waits.ends_as("failed", "throttled").await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!((ended.attempts().len(), ended.outcome()), (0, "not_tried"));
    assert_eq!(fleet.seen(&number(1)).invites, 0);
    // The next one goes as soon as the channel is free.
    let next = fleet.call(&number(2)).place().await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(next.now().await["status"], "queued");
    assert_eq!(fleet.trunk("acme-waw-1").await["channels"], 1);
    holds.cancel().await;
    next.ends_as("completed", "played").await;
    holds.ends_as("canceled", "api").await;
}

/// One customer cannot take everybody's room: what is refused was not accepted, and says when to ask again.
#[tokio::test]
async fn an_organisation_has_so_many_open_calls() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .trunks_have("cps_max = 1000")
        .settings(|settings| (settings.calls.org_open_max, settings.calls.number_open_max) = (10, 4))
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(Ending::NoAnswer));
    let posts = (0..50).map(|n| {
        let request = fleet.call(&number(n));
        async move { request.answer().await }
    });
    let answers = join_all(posts).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 201).collect();
    assert_eq!(refused.len(), 40);
    for answer in refused {
        let problem = answer.is_problem(429, "too_many_open_calls");
        assert_eq!((answer.header("retry-after"), &problem["param"]), ("5", &Value::Null));
    }
    let open = answers.iter().find(|answer| answer.status == 201).unwrap().is(201);
    let open = Call::again(&fleet, open["id"].as_str().unwrap());
    open.cancel().await;
    open.ends_as("canceled", "api").await;
    fleet.call(NUMBER).place().await;
    fleet.call(NUMBER).answer().await.is_problem(429, "too_many_open_calls");
}

#[tokio::test]
async fn a_number_has_so_many_open_calls() {
    let fleet = Fleet::of(&["waw-1"], &["acme"])
        .trunks_have("cps_max = 1000")
        .settings(|settings| settings.calls.number_open_max = 2)
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(Ending::NoAnswer));
    let first = fleet.call(NUMBER).idempotency_key("a");
    first.answer().await.is(201);
    fleet.call(NUMBER).place().await;
    let refused = fleet.call(NUMBER).answer().await;
    let problem = refused.is_problem(429, "too_many_open_calls");
    assert_eq!((refused.header("retry-after"), problem["param"].as_str()), ("5", Some("to")));
    assert_eq!(first.answer().await.header("idempotent-replayed"), "true");
    fleet.call(&number(1)).place().await;
}

fn time_in(time: Duration) -> String {
    let at = controlplane::clock::Clock::system().now() + time;
    let date = at.date();
    let clock = at.time();
    format!(
        "{date}T{:02}:{:02}:{:02}.{:03}Z",
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond()
    )
}

#[tokio::test]
async fn a_number_without_a_route_fails_at_once() {
    let fleet = Fleet::small().await;
    fleet.apply(&fleet.toml().replace("prefix = \"+\"", "prefix = \"+48\""), "?prune=true").await.is(200);
    let ended = fleet.call("+4930123456").place().await.ends_as("failed", "no_healthy_route").await;
    assert_eq!((ended.attempts().len(), ended.outcome()), (0, "not_tried"));
    fleet.call(NUMBER).place().await.ends_as("completed", "played").await;
}

/// Limits are of a fleet, and change with it while calls wait.
#[tokio::test]
async fn a_raised_limit_frees_waiting_calls() {
    let fleet = Fleet::of(&["waw-1"], &["acme"]).trunks_have("channels_max = 1").start().await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    fleet.call(NUMBER).place().await.becomes("ringing").await;
    let waits = fleet.call(&number(1)).place().await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(waits.now().await["status"], "queued");
    let toml = fleet.toml().replace("channels_max = 1", "channels_max = 2");
    fleet.apply(&toml, "").await.is(200);
    waits.ends_as("completed", "played").await;
}

/// Channels that were held before a kill are held after it.
#[tokio::test]
async fn channels_stay_counted_over_a_restart() {
    let mut fleet = Fleet::of(&["waw-1"], &["acme"]).trunks_have("channels_max = 1").start().await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    fleet.call(NUMBER).place().await.becomes("ringing").await;
    fleet.kill().await;
    fleet.start_again().await;
    let waits = fleet.call(&number(1)).place().await;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(waits.now().await["status"], "queued");
    assert_eq!(fleet.seen(&number(1)).invites, 0);
}
