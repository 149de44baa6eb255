//! A human, nobody, a machine: what the callee does on real carriers is what comes of the call.

use std::time::Duration;

use lab::{Setup, numbers, wait_until};
use serde_json::json;

use crate::fixture::{Fleet, at_ms, attempts, diagonal, end};

/// From the release of a key at the carrier to its being seen through the API.
const KEY_MAX: Duration = Duration::from_millis(200);

#[allow(clippy::disallowed_methods, reason = "compared with what a capture says")]
fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

#[test]
fn a_human_who_presses_1_a_silent_one_and_a_machine_are_told_apart() {
    let fleet = Fleet::up(diagonal());
    let keys = json!({"keys": {"1": "acknowledge", "2": "escalate", "*": "repeat"}, "timeout_s": 6});
    let message = json!({"audio_id": "builtin:demo-congrats"});

    // Presses 1 after three seconds, while the message plays.
    let mut latencies = Vec::new();
    for call in 0..3 {
        let to = numbers::number(numbers::PRESS, call);
        let id = fleet.place(&to, json!({"acknowledgement": keys, "message": message}));
        let mut shown = fleet.plane.call(&id).unwrap();
        while shown["acknowledgement"].is_null() {
            assert!(shown["ended_at"].is_null(), "{shown}");
            shown = fleet.plane.call(&id).unwrap();
        }
        let seen_at = now();
        let ended = fleet.ended(&id);
        assert_eq!(end(&ended), "completed/acknowledged/acknowledged", "{ended}");
        assert_eq!(ended["acknowledgement"], shown["acknowledgement"], "written once");
        assert_eq!((attempts(&ended, "key"), &ended["acknowledgement"]["key"]), (vec!["1"], &json!("1")));
        let sent: Vec<_> =
            fleet.lab.carriers().iter().flat_map(|carrier| carrier.keys_sent().unwrap()).collect();
        let own: Vec<_> = sent.iter().filter(|key| format!("+{}", key.number) == to).collect();
        assert_eq!(own.iter().map(|key| key.key).collect::<String>(), "1", "as the carrier saw it: {sent:?}");
        latencies.push(seen_at.saturating_sub(own[0].let_go_at));
    }
    latencies.sort_unstable();
    println!("from the key's release to the API: {latencies:?}");
    assert!(latencies[1] < KEY_MAX, "from the key's release to the API: {latencies:?}");

    // Presses 2: handed on, and not dialled again although redial is wished for.
    let redial = json!({"on": ["answered_no_ack", "machine", "no_answer", "busy"], "max": 1, "delay_s": 1});
    let to = numbers::number(numbers::PRESS_2, 0);
    let ended = fleet.placed(&to, json!({"acknowledgement": keys, "message": message, "redial": redial}));
    assert_eq!(end(&ended), "completed/escalated/answered", "{ended}");
    assert_eq!(fleet.truth().invites(&to), 1);

    // Says nothing: dialled again, once.
    let to = numbers::number(numbers::MUTE, 0);
    let short = json!({"keys": {"1": "acknowledge"}, "timeout_s": 1});
    let ended = fleet.placed(&to, json!({"acknowledgement": short, "redial": redial}));
    assert_eq!(end(&ended), "completed/answered_no_ack/answered", "{ended}");
    assert_eq!((attempts(&ended, "reason"), fleet.truth().invites(&to)), (vec!["answered", "answered"], 2));
    let rounds: Vec<_> = ended["attempts"].as_array().unwrap().iter().map(|a| a["round"].clone()).collect();
    assert_eq!(rounds, [1, 2]);
    let gap = at_ms(&ended["attempts"][1]["started_at"]) - at_ms(&ended["attempts"][0]["ended_at"]);
    assert!((1_000..3_000).contains(&gap), "{gap} ms between the rounds");

    // Greets and beeps: a machine, which is not spoken to.
    let to = numbers::number(numbers::VOICEMAIL, 0);
    let detect = json!({"mode": "detect"});
    let ended = fleet.placed(&to, json!({"acknowledgement": keys, "machine_detection": detect}));
    assert_eq!(end(&ended), "completed/machine/machine", "{ended}");
    assert_eq!((attempts(&ended, "machine"), fleet.truth().invites(&to)), (vec!["machine"], 1));
}

/// In every state that a call can be in, the carrier sees the phone fall silent, and the call ends once.
#[test]
fn canceled_in_any_state_the_phone_falls_silent() {
    // One number may be dialled twice in an hour: what the third call waits for.
    let fleet = Fleet::up_with(diagonal(), |setup: Setup| setup.throttle("[{calls=2,per_s=3600}]"));
    let redial = json!({"on": ["busy"], "max": 2, "delay_s": 60});
    let (busy, ringing, speaking) = (
        numbers::number(numbers::BUSY, 0),
        numbers::number(numbers::RING, 0),
        numbers::number(numbers::ANSWER, 0),
    );
    let long = json!({"audio_id": "builtin:demo-congrats", "repeat": 10});
    let waiting = fleet.place(&busy, json!({"redial": redial}));
    let stages = [
        (waiting.clone(), "queued", "canceled/api/not_reached"),
        (fleet.place(&ringing, json!({"ring_timeout_s": 60})), "ringing", "canceled/api/not_reached"),
        (fleet.place(&speaking, json!({"message": long})), "in_progress", "canceled/api/answered"),
    ];
    for (id, stage, expected) in &stages {
        wait_until(stage, Duration::from_secs(20), "see the control plane's log", || {
            let call = fleet.plane.call(id).unwrap();
            call["status"] == *stage && (*stage != "queued" || !call["redial_at"].is_null())
        })
        .unwrap();
        fleet.plane.customer("POST", &format!("/v1/calls/{id}/cancel"), None).unwrap();
        let ended = fleet.ended(id);
        assert_eq!(end(&ended), *expected, "{ended}");
    }
    let quiet = || fleet.lab.carriers().iter().all(|carrier| carrier.channels().unwrap() == 0);
    wait_until("every phone to fall silent", Duration::from_secs(5), "see the carriers", quiet).unwrap();
    let truth = fleet.truth();
    assert_eq!([&busy, &ringing, &speaking].map(|to| truth.invites(to)), [1, 1, 1]);
    let seen = |to: &str| {
        let all: Vec<_> =
            fleet.lab.carriers().iter().map(|carrier| fleet.seen(carrier.name()).of(to)).collect();
        (all.iter().map(|seen| seen.cancels).sum::<u32>(), all.iter().map(|seen| seen.byes).sum::<u32>())
    };
    assert_eq!(
        (seen(&ringing), seen(&speaking)),
        ((1, 0), (0, 1)),
        "a CANCEL where it rang, a BYE where it spoke"
    );
    for (id, _, _) in &stages {
        assert_eq!(fleet.plane.call(id).unwrap()["status"], "canceled", "it stays so");
    }

    // Held by its number's window: the same.
    fleet.placed(&busy, json!({}));
    let held = fleet.place(&busy, json!({}));
    wait_until("it to wait", Duration::from_secs(5), "see the control plane's log", || {
        fleet.plane.metric("ringward_calls_throttled_total", &[]).unwrap() >= 1.0
    })
    .unwrap();
    assert_eq!(fleet.plane.call(&held).unwrap()["status"], "queued");
    fleet.plane.customer("POST", &format!("/v1/calls/{held}/cancel"), None).unwrap();
    assert_eq!(end(&fleet.ended(&held)), "canceled/api/not_tried");
    assert_eq!(fleet.truth().invites(&busy), 2);
}
