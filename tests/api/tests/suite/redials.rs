//! Dialled again later, as the customer wants: each round once, over restarts, until the deadline or a cancel.

use std::time::Duration;

use fake_pbx::{Ending, FakePbx, Plan, Said};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::{Call, Fleet, NUMBER, eventually, in_seconds, talks};

const SOON: Duration = Duration::from_millis(50);

fn redial(on: &[&str], max: u8) -> Value {
    json!({"on": on, "max": max, "delay_s": 1})
}

async fn pair() -> Fleet {
    Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .settings(|settings| settings.reconcile_timeout_ms = 4_000)
        .start()
        .await
}

async fn waits_for_round(fleet: &Fleet, id: &str, invites: u32) -> Value {
    let call = Call::again(fleet, id);
    eventually("it waits to be dialled again", async || {
        !call.now().await["redial_at"].is_null() && fleet.seen(NUMBER).invites == invites
    })
    .await;
    call.now().await
}

#[tokio::test]
async fn answered_without_a_key_it_is_dialled_again_until_somebody_acknowledges() {
    let fleet = pair().await;
    fleet.callee(NUMBER, Ending::AnswerThenBye { talk: SOON });
    let request = fleet.call(NUMBER).with("acknowledgement", json!({}));
    let call = request.with("redial", redial(&["answered_no_ack"], 2)).place().await;
    let waiting = waits_for_round(&fleet, &call.id, 1).await;
    assert_eq!((&waiting["status"], &waiting["reason"]), (&json!("queued"), &Value::Null), "{waiting}");
    fleet.callee(NUMBER, Plan::of(talks(300)).saying(SOON, Said::Key('1')));
    let ended = call.ends_as("completed", "acknowledged").await;
    let rounds: Vec<_> = ended.attempts().iter().map(|attempt| attempt["round"].clone()).collect();
    assert_eq!((rounds, ended.each("key")), (vec![json!(1), json!(2)], vec!["", "1"]), "{}", ended.text());
    assert_eq!((&ended.0["redial_at"], fleet.seen(NUMBER).invites), (&Value::Null, 2));
}

/// As often as was asked, and the last round's word is the call's. Its delay is kept.
#[tokio::test]
async fn rounds_are_used_up() {
    let fleet = Fleet::small().await;
    for (ending, on, reason, status) in [
        (Ending::Busy486, "busy", "user_busy", "busy"),
        (Ending::Sip(480), "no_answer", "unreachable", "no_answer"),
    ] {
        fleet.callee(NUMBER, ending);
        let before = fleet.seen(NUMBER).invites;
        let began = tokio::time::Instant::now();
        let call = fleet.call(NUMBER).with("redial", redial(&[on], 2)).place().await;
        let ended = call.ends_as(status, reason).await;
        assert_eq!((ended.attempts().len(), fleet.seen(NUMBER).invites - before), (3, 3), "{}", ended.text());
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

/// What no word of the list names ends the call at once: among them a callee who declined.
#[tokio::test]
async fn what_is_not_listed_is_not_dialled_again() {
    let fleet = Fleet::small().await;
    let all = ["no_answer", "busy", "machine", "answered_no_ack", "interrupted"];
    for (plan, on, reason) in [
        (Plan::of(Ending::Declined603), &all[..], "declined"),
        (Plan::of(talks(20)), &all[..], "played"),
        (Plan::of(Ending::Sip(404)), &all[..], "invalid_number"),
        (Plan::of(Ending::Busy486), &["no_answer"][..], "user_busy"),
    ] {
        fleet.callee(NUMBER, plan);
        let before = fleet.seen(NUMBER).invites;
        let call = fleet.call(NUMBER).with("redial", redial(on, 3)).place().await;
        let ended = call.ends().await;
        assert_eq!((&ended.0["reason"], fleet.seen(NUMBER).invites - before), (&json!(reason), 1));
    }
    fleet.callee(NUMBER, Plan::of(talks(300)).saying(SOON, Said::Key('2')));
    let request =
        fleet.call(NUMBER).with("acknowledgement", json!({"keys": {"1": "acknowledge", "2": "escalate"}}));
    request.with("redial", redial(&all, 3)).place().await.ends_as("completed", "escalated").await;
}

/// Each round has its own failover: all trunks anew, and `attempts_max` anew.
#[tokio::test]
async fn a_round_begins_failover_anew() {
    let fleet = pair().await;
    fleet.callee(NUMBER, Ending::Sip(503));
    let request = fleet.call(NUMBER).attempts_max(2).with("redial", redial(&["busy"], 1));
    // The first node refuses, the second meets a busy callee; and once more.
    fleet.pbx("fra-1").set_ending(NUMBER, Ending::Busy486);
    let ended = request.place().await.ends_as("busy", "user_busy").await;
    let rounds: Vec<_> = ended.attempts().iter().map(|a| (a["round"].clone(), a["reason"].clone())).collect();
    assert!(rounds.len() >= 2 && rounds.len() <= 4, "{rounds:?}");
    for round in [1, 2] {
        let of: Vec<_> =
            rounds.iter().filter(|(r, _)| *r == json!(round)).map(|(_, reason)| reason).collect();
        assert_eq!(of.last(), Some(&&json!("user_busy")), "round {round}: {rounds:?}");
    }
}

/// `on_unknown: fail` is about one round: interrupted, it is dialled again only where that is listed.
#[tokio::test]
async fn an_interrupted_round_is_dialled_again_only_where_the_customer_says_so() {
    for (on, invites, reason) in [("interrupted", 2, "played"), ("busy", 1, "interrupted")] {
        let fleet = pair().await;
        fleet.callee(NUMBER, talks(60_000));
        let request = fleet.call(NUMBER).or_fail().with("redial", redial(&[on], 2));
        let call = request.place().await;
        call.becomes("in_progress").await;
        fleet.callee(NUMBER, talks(20));
        fleet.pbxes().filter(|pbx| !pbx.live_channels().is_empty()).for_each(FakePbx::restart);
        let ended = call.ends().await;
        assert_eq!(
            (&ended.0["reason"], fleet.seen(NUMBER).invites),
            (&json!(reason), invites),
            "{}",
            ended.text()
        );
    }
}

/// Killed while it waits, more than once: the next round comes, at its time, once.
#[tokio::test]
async fn a_restart_while_it_waits_changes_nothing() {
    let mut fleet = pair().await;
    fleet.callee(NUMBER, Ending::Busy486);
    let call =
        fleet.call(NUMBER).with("redial", json!({"on": ["busy"], "max": 1, "delay_s": 2})).place().await;
    let id = call.id.clone();
    let waiting = waits_for_round(&fleet, &id, 1).await;
    for _ in 0..2 {
        fleet.kill().await;
        fleet.start_again().await;
        assert_eq!(Call::again(&fleet, &id).now().await, waiting);
    }
    fleet.callee(NUMBER, talks(20));
    let ended = Call::again(&fleet, &id).ends_as("completed", "played").await;
    assert_eq!(fleet.seen(NUMBER).invites, 2, "{}", ended.text());
    assert!(ended.attempts()[1]["started_at"].as_str() >= waiting["redial_at"].as_str(), "{}", ended.text());
}

/// Down over the whole wait: the round that is due is dialled at once.
#[tokio::test]
async fn a_round_that_became_due_while_nobody_ran_is_dialled_at_the_next_start() {
    let mut fleet = pair().await;
    fleet.callee(NUMBER, Ending::Busy486);
    let call = fleet.call(NUMBER).with("redial", redial(&["busy"], 1)).place().await;
    let id = call.id.clone();
    waits_for_round(&fleet, &id, 1).await;
    fleet.kill().await;
    sleep(Duration::from_millis(1_200)).await;
    fleet.callee(NUMBER, talks(20));
    fleet.start_again().await;
    Call::again(&fleet, &id).ends_as("completed", "played").await;
    assert_eq!(fleet.seen(NUMBER).invites, 2);
}

/// Killed at any moment around a round's end: no round is lost, none is dialled twice.
#[tokio::test]
async fn killed_at_any_moment_each_round_is_dialled_once() {
    for after_ms in [5, 15, 25, 40, 60, 90, 1_000, 1_030, 1_060, 1_100] {
        let mut fleet = pair().await;
        crate::fixture::slowly(&fleet, Duration::from_millis(10));
        fleet.callee(NUMBER, Ending::Busy486);
        let request = fleet.call(NUMBER).or_fail().with("redial", redial(&["busy"], 1));
        let id = request.place().await.id;
        sleep(Duration::from_millis(after_ms)).await;
        fleet.kill().await;
        fleet.start_again().await;
        let ended = Call::again(&fleet, &id).ends().await;
        let rounds: Vec<_> =
            ended.attempts().iter().map(|attempt| attempt["round"].as_u64().unwrap()).collect();
        let text = ended.text();
        match ended.0["reason"].as_str().unwrap() {
            "user_busy" => {
                assert_eq!((rounds, fleet.seen(NUMBER).invites), (vec![1, 2], 2), "{after_ms}: {text}");
            }
            // Killed between the row and the Originate: nobody can tell without an agent, and `fail` ends it.
            "outcome_unknown" => {
                assert!(fleet.seen(NUMBER).invites as usize <= rounds.len(), "{after_ms}: {text}");
            }
            other => panic!("{after_ms}: {other}: {text}"),
        }
    }
}

#[tokio::test]
async fn a_cancel_while_it_waits_ends_it_at_once() {
    let fleet = Fleet::small().await;
    fleet.callee(NUMBER, Ending::Busy486);
    let call = fleet.call(NUMBER).with("redial", json!({"on": ["busy"], "delay_s": 60})).place().await;
    waits_for_round(&fleet, &call.id, 1).await;
    let began = tokio::time::Instant::now();
    assert_eq!(call.cancel().await.status, 202);
    let ended = call.ends_as("canceled", "api").await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!((ended.outcome(), fleet.seen(NUMBER).invites), ("not_reached", 1));
    assert_eq!((&ended.0["redial_at"], ended.attempts().len()), (&Value::Null, 1));
}

/// A cancel that comes while it speaks is the last word: nothing is dialled again.
#[tokio::test]
async fn a_cancel_under_way_leaves_no_redial() {
    let fleet = Fleet::small().await;
    for (stage, plan) in [("ringing", Ending::NoAnswer), ("in_progress", talks(60_000))] {
        fleet.callee(NUMBER, plan);
        let before = fleet.seen(NUMBER).invites;
        let all = ["no_answer", "busy", "machine", "answered_no_ack", "interrupted"];
        let request = fleet.call(NUMBER).with("acknowledgement", json!({})).with("redial", redial(&all, 3));
        let call = request.place().await;
        call.becomes(stage).await;
        assert_eq!(call.cancel().await.status, 202);
        call.ends_as("canceled", "api").await;
        assert_eq!(fleet.seen(NUMBER).invites - before, 1, "{stage}");
    }
}

/// A round that could begin only after the deadline does not, and the call says why the last one ended.
#[tokio::test]
async fn no_round_begins_after_the_deadline() {
    let fleet = Fleet::small().await;
    fleet.callee(NUMBER, Ending::Busy486);
    let deadline = in_seconds(2);
    let request = fleet.call(NUMBER).with("deadline_at", deadline);
    let call = request.with("redial", json!({"on": ["busy"], "max": 5, "delay_s": 1})).place().await;
    call.ends_as("busy", "user_busy").await;
    let invites = fleet.seen(NUMBER).invites;
    assert!((1..=2).contains(&invites), "{invites}");
}
