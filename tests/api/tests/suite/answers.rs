//! What comes of an answered call: keys, machines, messages that nobody heard. A key that was heard stays heard.

use std::time::Duration;

use fake_pbx::{Ending, FakePbx, Fault, Plan, Said};
use serde_json::{Value, json};

use crate::fixture::{Call, Fleet, NUMBER, eventually, slowly, talks};

const SOON: Duration = Duration::from_millis(50);

fn keys() -> Value {
    json!({"keys": {"1": "acknowledge", "2": "escalate", "*": "repeat"}, "timeout_s": 5})
}

/// Up for a while, and this is told soon after the answer.
fn saying(said: Said) -> Plan {
    Plan::of(talks(400)).saying(SOON, said)
}

async fn pair() -> Fleet {
    Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .settings(|settings| settings.reconcile_timeout_ms = 4_000)
        .start()
        .await
}

#[tokio::test]
async fn what_the_callee_does_is_what_comes_of_the_call() {
    let fleet = Fleet::small().await;
    let detect = json!({"mode": "detect"});
    for (plan, ack, detection, reason, outcome) in [
        (saying(Said::Key('1')), true, None, "acknowledged", "acknowledged"),
        (saying(Said::Key('2')), true, None, "escalated", "answered"),
        (saying(Said::Key('7')), true, None, "answered_no_ack", "answered"),
        (saying(Said::Key('1')), false, None, "played", "answered"),
        (Plan::of(Ending::AnswerThenBye { talk: SOON }), true, None, "answered_no_ack", "answered"),
        (saying(Said::Machine("machine")), true, Some(&detect), "machine", "machine"),
        (
            saying(Said::Machine("machine")).saying(SOON * 2, Said::Key('1')),
            true,
            Some(&json!({"mode": "detect", "on_machine": "continue"})),
            "acknowledged",
            "acknowledged",
        ),
        (saying(Said::Machine("notsure")), false, Some(&detect), "played", "answered"),
    ] {
        fleet.callee(NUMBER, plan.clone());
        let mut request = fleet.call(NUMBER);
        if ack {
            request = request.with("acknowledgement", keys());
        }
        if let Some(detection) = detection {
            request = request.with("machine_detection", detection.clone());
        }
        let ended = request.place().await.ends_as("completed", reason).await;
        assert_eq!(ended.outcome(), outcome, "{plan:?}: {}", ended.text());
    }
}

#[tokio::test]
async fn a_key_is_shown_the_moment_it_is_heard() {
    let fleet = Fleet::small().await;
    fleet.callee(NUMBER, Plan::of(talks(5_000)).saying(SOON, Said::Key('1')));
    let call = fleet.call(NUMBER).with("acknowledgement", keys()).place().await;
    eventually("it is acknowledged", async || !call.now().await["acknowledgement"].is_null()).await;
    let ended = call.ends_as("completed", "acknowledged").await;
    let acknowledgement = &ended.0["acknowledgement"];
    assert_eq!((&acknowledgement["key"], &acknowledgement["action"]), (&json!("1"), &json!("acknowledge")));
    assert!(acknowledgement["at"].is_string(), "{}", ended.text());
    assert_eq!((ended.each("key"), &ended.attempts()[0]["round"]), (vec!["1"], &json!(1)));
}

/// Whatever dies after the key was heard: the call is acknowledged, and nobody is dialled again.
#[tokio::test]
async fn a_key_that_was_heard_outlives_whatever_dies() {
    let gone_for_good = |pbx: &FakePbx| {
        pbx.close_port();
        pbx.cut_links();
    };
    let dies: [&dyn Fn(&FakePbx); 2] = [&FakePbx::restart, &gone_for_good];
    for (what, die) in ["its PBX", "its link, for good"].into_iter().zip(dies) {
        for kill in [false, true] {
            let mut fleet = pair().await;
            fleet.settings.reconcile_timeout_ms = 500;
            fleet.settings.node_return_ms = 1_000;
            fleet.callee(
                NUMBER,
                Plan::of(talks(60_000)).saying(SOON, Said::Machine("machine")).saying(SOON, Said::Key('1')),
            );
            // The key does not end the call here: what follows meets a call that still speaks.
            let call = fleet.call(NUMBER).with("acknowledgement", keys()).place().await;
            eventually("it is acknowledged", async || !call.now().await["acknowledgement"].is_null()).await;
            let id = call.id.clone();
            if kill {
                fleet.kill().await;
            }
            fleet.pbxes().filter(|pbx| !pbx.live_channels().is_empty()).for_each(die);
            if kill {
                fleet.start_again().await;
            }
            let ended = Call::again(&fleet, &id).ends_as("completed", "acknowledged").await;
            assert_eq!(fleet.seen(NUMBER).invites, 1, "{what}, kill {kill}: {}", ended.text());
        }
    }
}

/// The link is cut, or the control plane killed, between the key and the news of it: the flight record has it.
#[tokio::test]
async fn a_key_that_nobody_watched_is_found() {
    let fleet = pair().await;
    fleet.callee(NUMBER, saying(Said::Key('1')).with(Fault::DropAtKey));
    let call = fleet.call(NUMBER).with("acknowledgement", keys()).place().await;
    let ended = call.ends_as("completed", "acknowledged").await;
    assert_eq!((ended.each("key"), fleet.seen(NUMBER).invites), (vec!["1"], 1), "{}", ended.text());

    let mut fleet = pair().await;
    fleet.callee(NUMBER, Plan::of(talks(900)).saying(SOON * 10, Said::Key('1')));
    let call = fleet.call(NUMBER).with("acknowledgement", keys()).place().await;
    call.becomes("in_progress").await;
    let id = call.id.clone();
    fleet.kill().await;
    tokio::time::sleep(SOON * 12).await;
    fleet.start_again().await;
    let ended = Call::again(&fleet, &id).ends_as("completed", "acknowledged").await;
    assert_eq!((ended.each("key"), fleet.seen(NUMBER).invites), (vec!["1"], 1), "{}", ended.text());
}

/// The event is lost, or the end of the call overtakes it: the record is asked before the call is called unacknowledged.
#[tokio::test]
async fn a_key_whose_event_is_lost_is_found() {
    let fleet = pair().await;
    fleet.callee(NUMBER, saying(Said::Key('1')).with(Fault::NoKeyEvent));
    let call = fleet.call(NUMBER).with("acknowledgement", keys()).place().await;
    let ended = call.ends_as("completed", "acknowledged").await;
    assert_eq!((ended.each("key"), fleet.seen(NUMBER).invites), (vec!["1"], 1), "{}", ended.text());
    // One question for each call that nobody acknowledged, and none for the others.
    let asked = || fleet.pbxes().map(|pbx| pbx.count_actions("DBGet")).sum::<usize>();
    for (plan, reason, more) in
        [(saying(Said::Key('7')), "answered_no_ack", 1), (saying(Said::Key('1')), "acknowledged", 0)]
    {
        let before = asked();
        fleet.callee(NUMBER, plan);
        fleet.call(NUMBER).with("acknowledgement", keys()).place().await.ends_as("completed", reason).await;
        assert_eq!(asked(), before + more, "{reason}");
    }
}

/// A node whose dialplan is of before keys: its callee may press what he wants.
#[tokio::test]
async fn a_dialplan_that_hears_no_keys_is_told_and_avoided() {
    for known_before in [false, true] {
        let fleet = pair().await;
        fleet.callee(NUMBER, saying(Said::Key('1')));
        let old = fleet.pbx("waw-1");
        old.change_script(|script| script.hears_keys = false);
        if known_before {
            old.set_global("DIALPLAN_EXISTS(ringward-talk,s,1)", "0");
            old.restart();
            eventually("it is found", async || !fleet.node("waw-1").await["finding"].is_null()).await;
        }
        fleet.all_trunks_are_usable(true).await;
        for n in 0..4 {
            let call = fleet.call(NUMBER).with("acknowledgement", keys()).place().await;
            let ended = call.ends_as("completed", "acknowledged").await;
            let met = ended.endings();
            assert!(met == ["answered"] || (!known_before && met == ["no_keys", "answered"]), "{n}: {met:?}");
        }
        let finding = fleet.node("waw-1").await["finding"].to_string();
        assert!(finding.contains("dialplan reload"), "{finding}");
        assert!(fleet.node("fra-1").await["finding"].is_null());
        // A call that waits for no key may go there.
        let nodes = async || fleet.call(NUMBER).place().await.ends().await.each("node")[0].to_owned();
        let used = [nodes().await, nodes().await, nodes().await, nodes().await];
        assert!(used.iter().any(|node| node == "waw-1"), "{used:?}");
    }
    // No other is left: nobody knows what the callee wanted to say.
    let fleet = Fleet::of(&["waw-1"], &["acme"]).script(|script| script.hears_keys = false).start().await;
    fleet.callee(NUMBER, saying(Said::Key('1')));
    let call = fleet.call(NUMBER).with("acknowledgement", keys()).place().await;
    let ended = call.ends_as("failed", "interrupted").await;
    assert_eq!((ended.outcome(), ended.endings()), ("unknown", vec!["no_keys"]), "{}", ended.text());
}

/// The key was pressed behind a cut that lasted longer than anybody waits for. When the node is there again the key is
/// found, and nobody is dialled any more.
#[tokio::test]
async fn a_key_pressed_behind_a_long_cut_is_heard_when_the_node_is_back() {
    for (redials, reason, outcome) in
        [(true, "acknowledged", "acknowledged"), (false, "interrupted", "unknown")]
    {
        let mut fleet = Fleet::of(&["waw-1"], &["acme"])
            .settings(|settings| settings.reconcile_timeout_ms = 300)
            .start()
            .await;
        fleet.callee(NUMBER, Plan::of(talks(3_000)).saying(SOON * 12, Said::Key('1')));
        let mut request = fleet.call(NUMBER).or_fail().with("acknowledgement", keys());
        if redials {
            request = request.with("redial", json!({"on": ["interrupted"], "max": 1, "delay_s": 60}));
        }
        let call = request.place().await;
        call.becomes("in_progress").await;
        let pbx = fleet.pbx("waw-1");
        pbx.close_port();
        pbx.cut_links();
        if redials {
            let waits = call.becomes("queued").await;
            assert_eq!(waits["attempts"][0]["reason"], "interrupted", "{waits}");
        } else {
            call.ends_as("failed", "interrupted").await;
        }
        tokio::time::sleep(SOON * 12).await;
        let id = call.id.clone();
        // It is not forgotten over a restart.
        fleet.kill().await;
        fleet.pbx("waw-1").open_port().await.unwrap();
        fleet.start_again().await;
        let call = Call::again(&fleet, &id);
        eventually("the key is found", async || call.now().await["attempts"][0]["key"] == "1").await;
        let ended = call.ends().await;
        assert_eq!((&ended.0["reason"], ended.outcome()), (&json!(reason), outcome), "{}", ended.text());
        assert_eq!(fleet.seen(NUMBER).invites, 1);
        let audit = fleet.audit().await;
        assert_eq!(audit.iter().filter(|row| row["action"] == "call.hear_late").count(), 1, "{audit:?}");
    }
}

/// Meanwhile another node rings for it: that ends at once.
#[tokio::test]
async fn a_key_heard_late_ends_what_rings_by_then() {
    let fleet = Fleet::of(&["waw-1", "fra-1"], &["acme"])
        .settings(|settings| settings.reconcile_timeout_ms = 300)
        .start()
        .await;
    fleet.callee(NUMBER, Plan::of(talks(3_000)).saying(SOON * 12, Said::Key('1')));
    let call = fleet.call(NUMBER).with("acknowledgement", keys()).place().await;
    let now = call.becomes("in_progress").await;
    let first = now["attempts"][0]["node"].as_str().unwrap().to_owned();
    for pbx in ["waw-1", "fra-1"].into_iter().filter(|node| *node != first) {
        fleet.pbx(pbx).set_ending(NUMBER, Ending::NoAnswer);
    }
    let pbx = fleet.pbx(&first);
    pbx.close_port();
    pbx.cut_links();
    eventually("the other one rings", async || call.now().await["attempts"][1]["rang"] == "yes").await;
    tokio::time::sleep(SOON * 12).await;
    pbx.open_port().await.unwrap();
    let ended = call.ends_as("completed", "acknowledged").await;
    assert_eq!((ended.endings(), ended.outcome()), (vec!["interrupted", "canceled"], "acknowledged"));
    assert_eq!(ended.attempts()[0]["key"], "1", "{}", ended.text());
    assert!(fleet.pbxes().all(|pbx| pbx.live_channels().is_empty()), "nothing rings any more");
}

/// The control plane is killed at many moments around a key: it is acknowledged, once, and dialled once.
#[tokio::test]
async fn killed_at_any_moment_around_a_key_it_is_acknowledged_once() {
    for after_ms in [0, 30, 60, 90, 120, 160, 200, 300] {
        let mut fleet = pair().await;
        slowly(&fleet, Duration::from_millis(20));
        fleet.callee(NUMBER, saying(Said::Key('1')));
        let call = fleet.call(NUMBER).or_fail().with("acknowledgement", keys()).place().await;
        let id = call.id.clone();
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        fleet.kill().await;
        fleet.start_again().await;
        let ended = Call::again(&fleet, &id).ends().await;
        // Killed before the Originate arrived, nobody can tell without an agent, and `fail` ends it.
        let (reason, invites) = match fleet.seen(NUMBER).invites {
            0 => ("outcome_unknown", 0),
            _ => ("acknowledged", 1),
        };
        assert_eq!(
            (&ended.0["reason"], fleet.seen(NUMBER).invites),
            (&json!(reason), invites),
            "{after_ms} ms: {}",
            ended.text()
        );
    }
}

/// The callee answered and heard nothing: another node says it, unless a second ring must not be.
#[tokio::test]
async fn a_message_that_nobody_heard_is_said_by_another_node() {
    for (on_unknown, status, reason, endings) in [
        ("retry", "completed", "played", vec!["no_media", "answered"]),
        ("fail", "failed", "media_error", vec!["no_media"]),
    ] {
        let fleet = pair().await;
        fleet.pbx("waw-1").set_ending(NUMBER, saying(Said::NoMedia));
        fleet.pbx("fra-1").set_ending(NUMBER, talks(20));
        // Until the node without the sound is the one that is chosen first.
        let mut first = String::new();
        for _ in 0..4 {
            let ended = fleet.call(NUMBER).with("on_unknown", on_unknown).place().await.ends().await;
            ended.endings()[0].clone_into(&mut first);
            if first == "no_media" {
                let text = ended.text();
                assert_eq!(
                    (&ended.0["status"], &ended.0["reason"]),
                    (&json!(status), &json!(reason)),
                    "{text}"
                );
                assert_eq!((ended.endings(), ended.each("rang")[0]), (endings, "yes"), "{text}");
                break;
            }
        }
        assert_eq!(first, "no_media", "{on_unknown}: waw-1 was never chosen first");
    }
}
