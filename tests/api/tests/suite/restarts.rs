//! The control plane is killed while a call is at each stage: the next process takes it up, and it ends once.

use std::time::Duration;

use fake_pbx::{Ending, FakePbx, Plan, Said};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::{Call, Ended, Fleet, NUMBER, slowly, talks};

async fn pair() -> Fleet {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .settings(|settings| settings.reconcile_timeout_ms = 4_000)
        .start()
        .await;
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(5)));
    fleet
}

/// Places a call, kills the control plane at `stage`, does `meanwhile`, starts another one.
async fn killed_at(
    fleet: &mut Fleet,
    stage: &str,
    on_unknown: &str,
    meanwhile: impl AsyncFnOnce(&Fleet),
) -> Ended {
    let request = fleet.call(NUMBER).with("on_unknown", on_unknown).with("ring_timeout_s", 2);
    let call = request.place().await;
    call.becomes(stage).await;
    let id = call.id.clone();
    fleet.kill().await;
    meanwhile(fleet).await;
    fleet.start_again().await;
    let ended = Call::again(fleet, &id).ends().await;
    // One end: what is read later is the same.
    sleep(Duration::from_millis(50)).await;
    assert_eq!(Call::again(fleet, &id).now().await, ended.0);
    ended
}

fn keys() -> Value {
    json!({"keys": {"1": "acknowledge"}, "timeout_s": 5})
}

async fn nothing(_: &Fleet) {}

#[tokio::test]
async fn killed_while_queued() {
    let mut fleet = pair().await;
    fleet.pbxes().for_each(|pbx| {
        pbx.close_port();
        pbx.cut_links();
    });
    let open = async |fleet: &Fleet| {
        for pbx in fleet.pbxes() {
            pbx.open_port().await.unwrap();
        }
    };
    let ended = killed_at(&mut fleet, "queued", "fail", open).await;
    assert_eq!((&ended.0["reason"], fleet.seen(NUMBER).invites), (&"played".into(), 1), "{}", ended.text());
}

#[tokio::test]
async fn killed_while_sent_ringing_or_up_the_call_is_followed_to_its_end() {
    for (stage, on_unknown) in [
        ("initiated", "fail"),
        ("initiated", "retry"),
        ("ringing", "fail"),
        ("ringing", "retry"),
        ("in_progress", "fail"),
        ("in_progress", "retry"),
    ] {
        let mut fleet = pair().await;
        slowly(&fleet, Duration::from_millis(600));
        fleet.callee(NUMBER, talks(600));
        let ended = killed_at(&mut fleet, stage, on_unknown, nothing).await;
        assert_eq!(ended.0["reason"], "played", "{stage} {on_unknown}: {}", ended.text());
        assert_eq!((ended.attempts().len(), fleet.seen(NUMBER).invites), (1, 1), "{stage} {on_unknown}");
        assert_eq!(ended.each("rang"), ["yes"]);
    }
}

/// It ended while nobody looked: the flight record tells how.
#[tokio::test]
async fn what_ended_meanwhile_is_read_from_the_flight_record() {
    for (ending, reason, class) in [
        (Ending::Busy486, "user_busy", "user_busy"),
        (Ending::Declined603, "declined", "declined"),
        (talks(5), "played", "answered"),
    ] {
        let mut fleet = pair().await;
        slowly(&fleet, Duration::from_millis(200));
        fleet.callee(NUMBER, ending);
        let until_silent = async |fleet: &Fleet| {
            while fleet.pbxes().any(|pbx| !pbx.live_channels().is_empty()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = killed_at(&mut fleet, "ringing", "fail", until_silent).await;
        assert_eq!((&ended.0["reason"], ended.endings()), (&reason.into(), vec![class]), "{}", ended.text());
        assert_eq!(fleet.seen(NUMBER).invites, 1);
    }
}

/// A ring that began before the kill ends by the ring time-out after it.
#[tokio::test]
async fn a_phone_that_rings_on_is_hung_up_in_time() {
    let mut fleet = pair().await;
    fleet.callee(NUMBER, Ending::NoAnswer);
    let ended = killed_at(&mut fleet, "ringing", "retry", nothing).await;
    assert_eq!((&ended.0["reason"], ended.attempts().len()), (&"ring_timeout".into(), 1), "{}", ended.text());
    assert!(fleet.pbxes().all(|pbx| pbx.live_channels().is_empty()));
    assert_eq!(fleet.seen(NUMBER).invites, 1);
}

/// Control plane and Asterisk die together: `fail` never sends a second INVITE, `retry` does.
#[tokio::test]
async fn when_both_died_on_unknown_decides() {
    for (stage, on_unknown, reason, invites) in [
        ("initiated", "fail", "outcome_unknown", 1),
        ("initiated", "retry", "played", 2),
        ("ringing", "fail", "interrupted", 1),
        ("ringing", "retry", "played", 2),
        ("in_progress", "fail", "interrupted", 1),
        ("in_progress", "retry", "played", 2),
    ] {
        let mut fleet = pair().await;
        slowly(&fleet, Duration::from_millis(600));
        fleet.callee(NUMBER, talks(60_000));
        let restart = async |fleet: &Fleet| {
            fleet.pbxes().for_each(FakePbx::restart);
            fleet.callee(NUMBER, talks(5));
            slowly(fleet, Duration::from_millis(2));
        };
        let ended = killed_at(&mut fleet, stage, on_unknown, restart).await;
        assert_eq!(ended.0["reason"], reason, "{stage} {on_unknown}: {}", ended.text());
        assert_eq!(fleet.seen(NUMBER).invites, invites, "{stage} {on_unknown}: {}", ended.text());
    }
}

/// The node is away when the new process starts, and stays away.
#[tokio::test]
async fn when_the_node_is_away_afterwards_on_unknown_decides() {
    for (on_unknown, reason, invites) in [("fail", "interrupted", 1), ("retry", "played", 2)] {
        let mut fleet = pair().await;
        fleet.settings.reconcile_timeout_ms = 500;
        fleet.settings.node_return_ms = 1_000;
        fleet.callee(NUMBER, Ending::NoAnswer);
        let close = async |fleet: &Fleet| {
            for pbx in fleet.pbxes() {
                if !pbx.live_channels().is_empty() {
                    pbx.close_port();
                }
            }
            fleet.callee(NUMBER, talks(5));
        };
        let ended = killed_at(&mut fleet, "ringing", on_unknown, close).await;
        assert_eq!((&ended.0["reason"], fleet.seen(NUMBER).invites), (&reason.into(), invites));
    }
}

/// Nodes dial in anew after a start, and may take longer than a node that is there may take to answer: it is asked
/// all the same.
#[tokio::test]
async fn a_node_that_comes_back_later_than_reconciliation_may_take_is_still_asked() {
    for on_unknown in ["fail", "retry"] {
        let mut fleet = pair().await;
        fleet.settings.reconcile_timeout_ms = 500;
        fleet.callee(NUMBER, Plan::of(talks(1_500)).saying(Duration::from_millis(1_200), Said::Key('1')));
        let request = fleet.call(NUMBER).with("on_unknown", on_unknown).with("acknowledgement", keys());
        let call = request.place().await;
        let now = call.becomes("in_progress").await;
        let (id, node) = (call.id.clone(), now["attempts"][0]["node"].as_str().unwrap().to_owned());
        fleet.kill().await;
        fleet.pbx(&node).close_port();
        fleet.start_again().await;
        sleep(Duration::from_millis(1_500)).await;
        fleet.pbx(&node).open_port().await.unwrap();
        let ended = Call::again(&fleet, &id).ends_as("completed", "acknowledged").await;
        assert_eq!((ended.each("key"), fleet.seen(NUMBER).invites), (vec!["1"], 1), "{}", ended.text());
    }
}

/// A control plane that slept past a ring time-out hears what happened meanwhile before it acts on it.
#[tokio::test]
async fn what_happened_while_the_process_slept_is_heard_before_time_outs_are_acted_on() {
    for slept_ms in [2_500, 3_500] {
        let fleet = pair().await;
        // Answers within the ring time-out, while nobody looks.
        slowly(&fleet, Duration::from_millis(1_500));
        fleet.callee(NUMBER, Plan::of(talks(4_000)).saying(Duration::from_millis(500), Said::Key('1')));
        let request = fleet.call(NUMBER).or_fail().with("ring_timeout_s", 2).with("acknowledgement", keys());
        let call = request.place().await;
        call.becomes("ringing").await;
        fleet.freeze(Duration::from_millis(slept_ms)).await;
        let ended = call.ends_as("completed", "acknowledged").await;
        assert_eq!(
            (ended.each("key"), fleet.seen(NUMBER).invites),
            (vec!["1"], 1),
            "{slept_ms}: {}",
            ended.text()
        );
    }
}

/// A clean stop leaves calls as they are, and the next start takes them up.
#[tokio::test]
async fn a_clean_stop_hands_calls_over() {
    let mut fleet = pair().await;
    slowly(&fleet, Duration::from_millis(300));
    fleet.callee(NUMBER, talks(600));
    let call = fleet.call(NUMBER).or_fail().place().await;
    call.becomes("ringing").await;
    let id = call.id.clone();
    fleet.stop().await;
    fleet.start_again().await;
    let ended = Call::again(&fleet, &id).ends_as("completed", "played").await;
    assert_eq!((ended.attempts().len(), fleet.seen(NUMBER).invites), (1, 1));
}

/// Fifty calls at every stage at once, killed twice: each ends once, and nobody was dialled twice.
#[tokio::test]
async fn fifty_calls_survive_two_kills() {
    let mut fleet = Fleet::square().settings(|s| s.reconcile_timeout_ms = 4_000).start().await;
    slowly(&fleet, Duration::from_millis(150));
    fleet.pbxes().for_each(|pbx| pbx.set_default(talks(300)));
    let number = |n: usize| format!("+4822000{n:04}");
    let mut ids = Vec::new();
    for n in 0..50 {
        ids.push(fleet.call(&number(n)).or_fail().place().await.id);
    }
    for _ in 0..2 {
        sleep(Duration::from_millis(100)).await;
        fleet.kill().await;
        fleet.start_again().await;
    }
    for (n, id) in ids.iter().enumerate() {
        let ended = Call::again(&fleet, id).ends().await;
        let reason = ended.0["reason"].as_str().unwrap();
        assert!(matches!(reason, "played" | "outcome_unknown"), "{}", ended.text());
        assert!(fleet.seen(&number(n)).invites <= 1, "{}", ended.text());
        assert_eq!(ended.attempts().len(), 1, "{}", ended.text());
    }
}
