//! What callees hear, by what the carrier's end of the call records of the media that came.

use std::{path::Path, time::Duration};

use lab::{now, numbers, pause, wait_until};
use serde_json::json;

use crate::fixture::{Fleet, attempts, diagonal, end, over_links};

/// A part of a recording is speech if its loudest sample is above this, of 32,767.
const SPEECH: u16 = 500;
/// Samples of 20 ms.
const PART: usize = 160;

/// How many ms of a WAV of 8 kHz are speech.
fn speech_ms(file: &Path) -> usize {
    let wav = std::fs::read(file).unwrap();
    let samples: Vec<u16> =
        wav[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]]).unsigned_abs()).collect();
    samples.chunks(PART).filter(|part| part.iter().max() > Some(&SPEECH)).count() * 20
}

/// Places a call and records what its callee hears from when it is up; how much of it is speech, in ms.
fn heard(fleet: &Fleet, nth: u16, message: serde_json::Value) -> usize {
    let id = fleet.place(&numbers::number(numbers::ANSWER, nth), json!({"message": message}));
    let carrier = fleet.lab.carrier("a").unwrap();
    let up = || {
        fleet.plane.call(&id).is_ok_and(|call| call["status"] == "in_progress" || !call["ended_at"].is_null())
    };
    wait_until("the call to be up", Duration::from_secs(20), "", up)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", fleet.plane.call(&id).unwrap(), fleet.log_tail()));
    let channels = carrier.console("core show channels concise").unwrap();
    let channel = channels.lines().find_map(|line| line.split('!').next()).unwrap_or_default();
    let file = format!("heard-{nth}.wav");
    carrier.console(&format!("mixmonitor start {channel} /srv/ringward/spool/{file}")).unwrap();
    let ended = fleet.ended(&id);
    assert_eq!(end(&ended), "completed/played/answered", "{ended}\n{}", fleet.log_tail());
    assert_eq!(attempts(&ended, "node"), ["pbx-1"], "{ended}");
    let file = carrier.host().folder().join("spool").join(file);
    // The recorder writes its last part when the channel is gone.
    pause(Duration::from_millis(500));
    speech_ms(&file)
}

/// By agents, and without them into a folder that the fleet file names.
#[test]
fn a_spoken_text_is_heard_and_a_node_that_cannot_have_it_is_passed_over() {
    for plan in [over_links(diagonal()), diagonal()] {
        let fleet = Fleet::up(plan);
        // Where pbx-2's sounds would go, a file is in the way.
        let folder = fleet.lab.pbx("pbx-2").unwrap().host().sounds();
        std::fs::rename(&folder, folder.with_extension("gone")).unwrap();
        std::fs::write(&folder, "in the way").unwrap();
        let played = fleet.lab.pbx("pbx-1").unwrap().host().sounds();
        let began = now();
        let texts = [
            ("en", "The database of the shop is down. Please look at it now, and press one."),
            ("de", "Die Datenbank des Ladens ist ausgefallen. Bitte sofort nachsehen."),
        ];
        for (nth, (language, text)) in (0..).zip(texts) {
            let message = json!({"text": text, "language": language, "repeat": 2});
            let speech = heard(&fleet, nth, message);
            println!("{language}: {speech} ms of speech were heard");
            // Twice some four seconds, less what went by before the recorder was on.
            assert!((3_000..15_000).contains(&speech), "{language}: {speech} ms");
        }
        assert_eq!(fleet.seen("b").total().invites, 0, "pbx-2 was asked for a sound, and for nothing else");
        println!("two calls after {} ms", began.elapsed().as_millis());
        let sounds = std::fs::read_dir(played).unwrap().count();
        assert_eq!(sounds, 2);
    }
}
