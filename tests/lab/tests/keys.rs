//! What a callee does with an answered call, on real Asterisk: keys, machines, silence, a missing sound. Events, flight
//! record and the carrier's side must agree. `RINGWARD_LAB_ASTERISK=16` runs the PBXes on Asterisk 16.28.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod ami_wire;

use ami_wire::{Block, Wire, plan, without_time};
use lab::{AmiUser, Carrier, KeyWay, Lab, Pbx, Plan, numbers};
use std::collections::HashMap;
use std::time::Duration;

/// The promise: from a key's release to its event.
const PROMISE: Duration = Duration::from_millis(200);
/// Longer than any call here.
const CALL_MAX: Duration = Duration::from_secs(40);

/// One call, as its events and its record told it.
#[derive(Debug, Default)]
struct Story {
    /// UserEvents as `Answered`, `Key 1`, `Machine human`, each with its time since 1970.
    told: Vec<(String, Duration)>,
    /// Q.850 of the Hangup.
    cause: String,
    ended_at: Duration,
    record: Option<String>,
}

impl Story {
    fn words(&self) -> Vec<&str> {
        self.told.iter().map(|(word, _)| word.as_str()).collect()
    }

    fn record(&self) -> String {
        without_time(self.record.as_deref()).unwrap_or_default()
    }

    /// From the answer to the event.
    fn after_answer(&self, word: &str) -> Duration {
        let at = |word: &str| self.told.iter().find(|(told, _)| told == word).map(|(_, at)| *at).unwrap();
        at(word) - at("Answered")
    }

    fn lasted(&self) -> Duration {
        self.ended_at - self.told.first().map(|(_, at)| *at).unwrap()
    }
}

fn one_plan() -> Plan {
    Plan { pbxes: 1, carriers: 1, ..plan() }
}

/// Places calls, all at once, and gives the story of each, in their order.
fn stories(wire: &mut Wire, pbx: &Pbx, calls: &[(String, String)]) -> Vec<Story> {
    let ids: Vec<String> = calls
        .iter()
        .map(|(number, variables)| wire.originate_with("carrier-a", number, 10_000, variables))
        .collect();
    let mut open: HashMap<&str, Story> = ids.iter().map(|id| (id.as_str(), Story::default())).collect();
    let mut left = calls.len();
    wire.until(CALL_MAX, |block: &Block| {
        let now = lab::since_1970();
        let Some(story) = block.get("Uniqueid").and_then(|id| open.get_mut(id)) else { return false };
        match block.get("Event") {
            Some("UserEvent") => {
                assert_eq!(block.get("Attempt"), block.get("Uniqueid"), "{block:?}");
                let name = block.get("UserEvent").unwrap().strip_prefix("Ringward").unwrap();
                let more = block.get("Key").or(block.get("Verdict")).map(|more| format!(" {more}"));
                story.told.push((format!("{name}{}", more.unwrap_or_default()), now));
            }
            Some("Hangup") => {
                story.cause = block.get("Cause").unwrap().to_owned();
                story.ended_at = now;
                left -= 1;
            }
            _ => {}
        }
        left == 0
    });
    assert_eq!(left, 0, "calls that never ended");
    let story = |id: &String| {
        let record = pbx.flight_record(id).unwrap();
        Story { record, ..open.remove(id.as_str()).unwrap() }
    };
    ids.iter().map(story).collect()
}

fn story(wire: &mut Wire, pbx: &Pbx, behaviour: u16, variables: &str) -> Story {
    stories(wire, pbx, &[(numbers::number(behaviour, 1), variables.to_owned())]).remove(0)
}

/// So many calls at once whose callees press 1 while a message of 30 s plays, and how long after the release
/// each key was told.
fn latencies(
    wire: &mut Wire,
    pbx: &Pbx,
    carrier: &Carrier,
    behaviour: u16,
    way: KeyWay,
    calls: u16,
) -> Vec<Duration> {
    let talk = "RINGWARD_AUDIO=demo-congrats RINGWARD_KEYS=12 RINGWARD_ACK_TIMEOUT=5 RINGWARD_TIME_LIMIT=30";
    let calls: Vec<_> = (0..calls).map(|n| (numbers::number(behaviour, n), talk.to_owned())).collect();
    let stories = stories(wire, pbx, &calls);
    lab::pause(Duration::from_millis(300));
    let sent = carrier.keys_sent().unwrap();
    let mut latencies = Vec::new();
    for ((number, _), story) in calls.iter().zip(&stories) {
        assert_eq!(story.words(), ["Answered", "Key 1"], "{number}: {story:?}");
        assert_eq!(story.cause, "16", "{number}");
        assert_eq!(story.record(), "2|end|Up|200|16|1|-|-", "{number}");
        let of: Vec<_> = sent.iter().filter(|key| number.ends_with(&key.number)).collect();
        assert_eq!(of.len(), 1, "{number}: {sent:?}");
        assert_eq!((of[0].key, of[0].way), ('1', way), "{number}");
        latencies.push(story.told[1].1.saturating_sub(of[0].let_go_at));
    }
    latencies.sort();
    latencies
}

#[test]
fn a_key_is_recorded_and_told_within_200_ms_of_its_release_while_the_message_plays() {
    let lab = Lab::up(one_plan()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    for (behaviour, way) in [
        (numbers::PRESS, KeyWay::Rfc4733),
        (numbers::PRESS_TONES, KeyWay::Tones),
        (numbers::PRESS_INFO, KeyWay::Info),
    ] {
        let latencies = latencies(&mut wire, pbx, carrier, behaviour, way, 20);
        let (median, longest) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
        println!("{way:?}: {} calls at once, median {median:?}, longest {longest:?}", latencies.len());
        assert!(longest < PROMISE, "{way:?}: {latencies:?}");
    }
    let answers: Vec<_> = lab.carrier("a").unwrap().seen().unwrap().by_number.into_values().collect();
    assert!(answers.iter().all(|seen| (seen.invites, seen.answers, seen.byes) == (1, 1, 1)), "{answers:?}");
}

#[test]
fn keys_mean_what_the_call_says() {
    let lab = Lab::up(one_plan()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let number = |behaviour| numbers::number(behaviour, 1);
    let calls = [
        // `*`, and then 1 behind the message.
        (
            number(numbers::PRESS_AGAIN),
            "RINGWARD_AUDIO=hello-world RINGWARD_KEYS=1 RINGWARD_REPEAT_KEY=s RINGWARD_ACK_TIMEOUT=5",
        ),
        // 2 repeats a message of 5.7 s that had played for 3.5 s.
        (
            number(numbers::PRESS_2),
            "RINGWARD_AUDIO=vm-intro RINGWARD_KEYS=1 RINGWARD_REPEAT_KEY=2 RINGWARD_ACK_TIMEOUT=1",
        ),
        // A key that means nothing, again and again.
        (number(numbers::PRESS_MANY), "RINGWARD_AUDIO=hello-world RINGWARD_KEYS=1 RINGWARD_ACK_TIMEOUT=5"),
        // Nobody asked for keys: none is heard, and the message is not disturbed.
        (number(numbers::PRESS_5), "RINGWARD_AUDIO=vm-intro"),
        // Nothing is pressed.
        (
            number(numbers::MUTE),
            "RINGWARD_AUDIO=hello-world RINGWARD_REPEAT=2 RINGWARD_KEYS=1 RINGWARD_ACK_TIMEOUT=2",
        ),
    ];
    let calls = calls.map(|(number, variables)| (number, variables.to_owned()));
    let [again, repeated, many, unasked, mute] =
        <[Story; 5]>::try_from(stories(&mut wire, pbx, &calls)).unwrap();
    assert_eq!(again.words(), ["Answered", "Key *", "Key 1"], "{again:?}");
    assert_eq!(again.record(), "2|end|Up|200|16|1|-|-");
    assert_eq!(repeated.words(), ["Answered", "Key 2", "Played"]);
    assert_eq!(repeated.record(), "2|end|Up|200|16|2|-|played");
    let played = repeated.after_answer("Played");
    assert!(played > Duration::from_secs(9), "heard again from its beginning: {played:?}");
    let words = many.words();
    assert_eq!((words.len(), words[1..].iter().all(|word| *word == "Key 5")), (22, true), "{many:?}");
    assert_eq!(many.record(), "2|end|Up|200|16|5|-|-", "the 21st key ends it");
    assert_eq!(unasked.words(), ["Answered", "Played"]);
    let played = unasked.after_answer("Played");
    assert!((5.0..7.0).contains(&played.as_secs_f64()), "{played:?}");
    assert_eq!(mute.words(), ["Answered", "Played"]);
    assert_eq!(mute.record(), "2|end|Up|200|16|-|-|played");
    let played = mute.after_answer("Played").as_secs_f64();
    assert!((4.5..6.5).contains(&played), "2 times 1.4 s and a wait of 2 s: {played}");
    // The carrier's side of it.
    let sent = carrier.keys_sent().unwrap();
    let of = |behaviour| sent.iter().filter(|key| number(behaviour).ends_with(&key.number)).count();
    assert_eq!((of(numbers::PRESS_AGAIN), of(numbers::PRESS_2), of(numbers::PRESS_5)), (2, 1, 1), "{sent:?}");
    assert!(of(numbers::PRESS_MANY) >= 21, "{sent:?}");
    assert_eq!(of(numbers::MUTE), 0);
}

#[test]
fn who_answered_is_guessed_where_it_is_asked() {
    let lab = Lab::up(one_plan()).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let with = |amd: &str| format!("RINGWARD_AUDIO=hello-world {amd} RINGWARD_TIME_LIMIT=35");
    let calls = [
        (numbers::number(numbers::HUMAN, 1), with("RINGWARD_AMD=hangup")),
        (numbers::number(numbers::VOICEMAIL, 1), with("RINGWARD_AMD=hangup")),
        (numbers::number(numbers::VOICEMAIL, 2), with("RINGWARD_AMD=continue RINGWARD_REPEAT=2")),
        (numbers::number(numbers::VOICEMAIL, 3), with("RINGWARD_AMD=leave RINGWARD_REPEAT=2")),
        (numbers::number(numbers::VOICEMAIL, 4), with("")),
        // One who presses a key although a machine is suspected: silence for 2.5 s is one to AMD.
        (
            numbers::number(numbers::PRESS, 1),
            "RINGWARD_AUDIO=demo-congrats RINGWARD_AMD=continue RINGWARD_KEYS=1".to_owned(),
        ),
    ];
    let [human, hung_up, went_on, left, unasked, pressed] =
        <[Story; 6]>::try_from(stories(&mut wire, pbx, &calls)).unwrap();
    assert_eq!(human.words(), ["Answered", "Machine human", "Played"], "{human:?}");
    assert_eq!(human.record(), "2|end|Up|200|16|-|human|played");
    assert_eq!(hung_up.words(), ["Answered", "Machine machine"], "{hung_up:?}");
    assert_eq!((hung_up.record().as_str(), hung_up.cause.as_str()), ("2|end|Up|200|16|-|machine|-", "16"));
    assert_eq!(went_on.words(), ["Answered", "Machine machine", "Played"], "{went_on:?}");
    assert_eq!(left.words(), ["Answered", "Machine machine", "Played"], "{left:?}");
    assert_eq!(left.record(), "2|end|Up|200|16|-|machine|played");
    let (at_once, behind) = (went_on.after_answer("Played"), left.after_answer("Played"));
    println!("verdict {:?}, left after {behind:?}", left.after_answer("Machine machine"));
    assert!(at_once < Duration::from_secs(8), "twice, and at once: {at_once:?}");
    assert!(behind > Duration::from_secs(9), "once, behind greeting, beep and 2 s of silence: {behind:?}");
    assert_eq!(unasked.words(), ["Answered", "Played"]);
    assert_eq!(pressed.words(), ["Answered", "Machine machine", "Key 1"], "{pressed:?}");
    assert_eq!(pressed.record(), "2|end|Up|200|16|1|machine|-");
}

#[test]
fn a_missing_sound_a_time_limit_and_a_hang_up_are_told_for_what_they_are() {
    let lab = Lab::up(one_plan()).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let hash = "0123456789abcdef".repeat(4);
    for (audio, keys) in [("nosuch", "RINGWARD_KEYS=1 RINGWARD_ACK_TIMEOUT=20"), (hash.as_str(), "")] {
        let missing = story(&mut wire, pbx, numbers::MUTE, &format!("RINGWARD_AUDIO={audio} {keys}"));
        assert_eq!(missing.words(), ["Answered", "Media"], "{missing:?}");
        assert_eq!(missing.record(), "2|end|Up|200|16|-|-|nomedia");
        assert!(missing.lasted() < Duration::from_secs(2), "{missing:?}");
    }
    // A path is no name: what is left of it is not a sound.
    let path = story(&mut wire, pbx, numbers::MUTE, "RINGWARD_AUDIO=/usr/share/asterisk/sounds/en/beep");
    assert_eq!(path.words(), ["Answered", "Media"], "{path:?}");
    let limited =
        "RINGWARD_AUDIO=demo-congrats RINGWARD_KEYS=1 RINGWARD_ACK_TIMEOUT=60 RINGWARD_TIME_LIMIT=3";
    let limited = story(&mut wire, pbx, numbers::MUTE, limited);
    assert_eq!(limited.words(), ["Answered"], "{limited:?}");
    assert_eq!(limited.record(), "2|end|Up|200|0|-|-|-");
    assert!((2.9..3.5).contains(&limited.lasted().as_secs_f64()), "{limited:?}");
    // The callee hangs up after a second: nothing was played to its end.
    let left =
        story(&mut wire, pbx, numbers::ANSWER_AND_HANG_UP, "RINGWARD_AUDIO=demo-congrats RINGWARD_KEYS=1");
    assert_eq!(left.words(), ["Answered"], "{left:?}");
    assert!(left.record().starts_with("2|end|Up|200|") && left.record().ends_with("|-|-|-"), "{left:?}");
}

/// The sound is pruned while its first round plays: it was heard, so the key is still waited for, and it is no missing sound.
#[test]
fn a_sound_that_goes_between_two_rounds_was_heard() {
    let lab = Lab::up(one_plan()).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let hash = "0123456789abcdef".repeat(4);
    let file = pbx.host().sounds().join(format!("{hash}.sln"));
    for (keys, waits_s) in [("RINGWARD_KEYS=1 RINGWARD_ACK_TIMEOUT=2", 2.0), ("", 0.0)] {
        // 3 s of silence at 8 kHz, 16 bit.
        std::fs::write(&file, [0_u8; 48_000]).unwrap();
        let going = file.clone();
        let prune = std::thread::spawn(move || {
            lab::pause(Duration::from_millis(1_800));
            std::fs::remove_file(going).unwrap();
        });
        let talk = format!("RINGWARD_AUDIO={hash} RINGWARD_REPEAT=2 {keys}");
        let story = story(&mut wire, pbx, numbers::MUTE, &talk);
        prune.join().unwrap();
        assert_eq!(story.words(), ["Answered", "Played"], "{keys}: {story:?}");
        assert_eq!(story.record(), "2|end|Up|200|16|-|-|played", "{keys}");
        let lasted = story.after_answer("Played").as_secs_f64();
        assert!((2.8 + waits_s..4.2 + waits_s).contains(&lasted), "{keys}: {lasted}");
    }
}

/// What AMI would let through if nobody guarded it: the dialplan takes from each value what it is for.
#[test]
fn values_are_filtered_again_by_the_dialplan() {
    let lab = Lab::up(one_plan()).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let hostile = "RINGWARD_AUDIO=hello-world|${SHELL(id)} RINGWARD_REPEAT=1\"=\" RINGWARD_KEYS=1\"|\"${SHELL(id)}\" \
                   RINGWARD_REPEAT_KEY=\"]?s RINGWARD_ACK_TIMEOUT=1; RINGWARD_AMD=\")]x RINGWARD_TIME_LIMIT=20)";
    let garbled = story(&mut wire, pbx, numbers::MUTE, hostile);
    // No such sound any more; an unknown word for machines goes on.
    assert_eq!(garbled.words(), ["Answered", "Machine machine", "Media"], "{garbled:?}");
    let hostile = hostile.replace("|${SHELL(id)} ", "|${} ");
    let played = story(&mut wire, pbx, numbers::MUTE, &hostile);
    assert_eq!(played.words(), ["Answered", "Machine machine", "Played"], "{played:?}");
    assert_eq!(played.record(), "2|end|Up|200|16|-|machine|played");
    let log = std::fs::read_to_string(pbx.host().folder().join("log/messages.log")).unwrap();
    assert!(!log.contains("ast_expr") && !log.contains("syntax error"), "{log}");
}

/// The session that places calls hears our dialplan's UserEvents and no other's.
#[test]
fn user_events_of_another_dialplan_are_filtered_out() {
    let lab = Lab::up(one_plan()).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    for (at, step) in
        ["Answer", "UserEvent(Foreign,Secret: x)", "UserEvent(RingwardOther,X: y)"].iter().enumerate()
    {
        let (application, data) = step.trim_end_matches(')').split_once('(').unwrap_or((step, ""));
        let line = format!("dialplan add extension 900,{},{application},{data:?} into lab-foreign", at + 1);
        pbx.console(&line).unwrap();
    }
    pbx.console("channel originate Local/900@lab-foreign application Wait 1").unwrap();
    let heard = wire.until(Duration::from_secs(5), |block| block.get("UserEvent") == Some("RingwardOther"));
    let named: Vec<_> = heard.iter().filter_map(|block| block.get("UserEvent")).collect();
    assert_eq!(named, ["RingwardOther"], "{heard:?}");
}
