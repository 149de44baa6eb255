//! What callees hear: texts spoken by the real espeak-ng or by an engine that a test writes, recordings, and nodes
//! that cannot play them.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use controlplane::settings::Settings;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::fixture::{Answer, Builder, Call, Fleet, NUMBER, eventually, talks};

/// A folder that every node plays from.
pub(crate) fn folder() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("audio_folder = {:?}\n", folder.path());
    (folder, line)
}

/// What every text sounds like where the engine does not matter: a tone of a second.
const SPOKEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tone.wav");

/// Every text becomes the same tone.
pub(crate) fn tones(settings: &mut Settings) {
    settings.audio.speech.command = ["/bin/cp", SPOKEN, "{output_file}"].map(str::to_owned).to_vec();
    settings.audio.speech.languages = vec!["en".parse().unwrap()];
}

async fn small(lines: &str) -> Fleet {
    let fleet = Fleet::of(&["waw-1"], &["acme"]).nodes_have(lines).settings(tones).start().await;
    fleet.callee(NUMBER, talks(5));
    fleet
}

pub(crate) fn says(text: &str, language: &str) -> Value {
    json!({"text": text, "language": language})
}

/// What the last Originate was told to play.
fn played(fleet: &Fleet) -> String {
    let actions: Vec<_> = fleet.pbxes().flat_map(fake_pbx::FakePbx::actions).collect();
    let variables = actions.iter().rev().find_map(|action| {
        let mut all = action.all("Variable");
        all.find_map(|line| line.strip_prefix("RINGWARD_AUDIO=").map(|hash| format!("ringward/{hash}")))
    });
    variables.unwrap()
}

/// The loudest sample, and the length in ms, of a WAV as it is kept: 44 bytes, then samples.
fn peak_and_ms(wav: &[u8]) -> (u16, usize) {
    assert_eq!(
        (&wav[..4], &wav[8..16], &wav[36..40]),
        (b"RIFF".as_slice(), b"WAVEfmt ".as_slice(), b"data".as_slice())
    );
    assert_eq!(wav[22..28], [1, 0, 0x40, 0x1f, 0, 0], "one channel of 8,000 Hz");
    let samples = wav[44..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs());
    (samples.max().unwrap(), (wav.len() - 44) / 16)
}

/// A second of a tone, as a WAV of 16 kHz.
pub(crate) fn tone(hertz: f32) -> Vec<u8> {
    let samples = (0..16_000_u16).map(|n| {
        let angle = f32::from(n) * hertz * std::f32::consts::TAU / 16_000.0;
        (angle.sin() * 8_000.0) as i16
    });
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let mut wav =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data".to_vec();
    wav.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    wav.extend(data);
    wav
}

async fn upload(fleet: &Fleet, media: &str, body: Vec<u8>) -> Answer {
    let request = fleet.api.request(Method::POST, "/v1/audio").header("content-type", media);
    Answer::to(request.body(body)).await
}

pub(crate) async fn ended(fleet: &Fleet, message: Value) -> Value {
    fleet.call(NUMBER).with("message", message).place().await.ends().await.0
}

#[cfg(feature = "espeak-tests")]
#[tokio::test]
async fn a_text_is_spoken_in_its_language_and_once() {
    let (folder, line) = folder();
    let fleet = Fleet::of(&["waw-1"], &["acme"]).nodes_have(&line).start().await;
    fleet.callee(NUMBER, talks(5));
    let mut sounds = std::collections::BTreeSet::new();
    for (language, text) in [
        ("en", "The database is down."),
        ("de", "Die Datenbank ist ausgefallen."),
        ("pl", "Baza danych nie działa."),
        ("uk", "База даних не працює."),
        // A form that espeak-ng does not list is spoken as its main language.
        ("en-au", "The database is down, mate."),
    ] {
        let call = ended(&fleet, says(text, language)).await;
        assert_eq!((&call["reason"], &call["outcome"]), (&json!("played"), &json!("answered")), "{call}");
        let sound = played(&fleet);
        let hash = sound.strip_prefix("ringward/").unwrap();
        let wav = std::fs::read(folder.path().join(format!("{hash}.wav"))).unwrap();
        let (peak, ms) = peak_and_ms(&wav);
        assert!(peak > 3_000 && (1_000..6_000).contains(&ms), "{language}: peak {peak}, {ms} ms");
        assert!(sounds.insert(sound), "{language}");
    }
    // Again, with nobody there to speak it: it was kept.
    let before = std::fs::read_dir(folder.path()).unwrap().count();
    ended(&fleet, says("The database is down.", "en")).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), before);
    assert!(sounds.contains(&played(&fleet)));
}

#[tokio::test]
async fn what_cannot_be_spoken_or_found_is_refused_at_the_door() {
    let (_folder, line) = folder();
    let fleet = small(&line).await;
    for (message, param, said) in [
        (says("Hello", "tlh"), "message.language", "en"),
        (json!({"audio_id": "audio_00000000000000000000000000"}), "message.audio_id", "no recording"),
    ] {
        let answer = fleet.call(NUMBER).with("message", message).answer().await.is(422);
        assert_eq!((&answer["code"], &answer["param"]), (&json!("invalid_field"), &json!(param)), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(said), "{answer}");
    }
    assert_eq!(fleet.seen(NUMBER).invites, 0);
}

#[tokio::test]
async fn a_recording_is_uploaded_shown_played_and_deleted() {
    let (folder, line) = folder();
    let fleet = small(&line).await;
    let kept = upload(&fleet, "audio/wav", tone(440.0)).await.is(201);
    let id = kept["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&kept["object"], &kept["length_ms"], &kept["bytes"]),
        (&json!("audio"), &json!(1_000), &json!(16_044))
    );
    let path = format!("/v1/audio/{id}");
    assert_eq!(fleet.api.get(&path).await.is(200), kept);
    let other = upload(&fleet, "audio/x-wav; codecs=1", tone(880.0)).await.is(201);
    let list = fleet.api.get("/v1/audio?limit=1").await.is(200);
    assert_eq!((&list["data"], &list["has_more"]), (&json!([other]), &json!(true)));
    let more =
        fleet.api.get(&format!("/v1/audio?starting_after={}", other["id"].as_str().unwrap())).await.is(200);
    assert_eq!((&more["data"], &more["has_more"]), (&json!([kept]), &json!(false)));
    let request = fleet.api.request(Method::GET, &format!("{path}/content")).send().await.unwrap();
    assert_eq!(request.headers()["content-type"], "audio/wav");
    let content = request.bytes().await.unwrap();
    let (peak, ms) = peak_and_ms(&content);
    assert!((7_500..8_500).contains(&peak) && ms == 1_000, "{peak} {ms}");
    let call = ended(&fleet, json!({"audio_id": id})).await;
    assert_eq!(call["reason"], "played", "{call}");
    let sha256 = kept["sha256"].as_str().unwrap();
    assert_eq!(played(&fleet), format!("ringward/{sha256}"));
    assert_eq!(std::fs::read(folder.path().join(format!("{sha256}.wav"))).unwrap(), content);

    // A call that waits for its node plays it though it is deleted meanwhile; no further call does.
    fleet.pbxes().for_each(|pbx| {
        pbx.close_port();
        pbx.cut_links();
    });
    fleet.all_trunks_are_usable(false).await;
    let waiting = fleet.call(NUMBER).with("message", json!({"audio_id": other["id"]})).place().await;
    let deleted = Answer::to(
        fleet.api.request(Method::DELETE, &format!("/v1/audio/{}", other["id"].as_str().unwrap())),
    );
    assert_eq!(deleted.await.status, 204);
    fleet.call(NUMBER).with("message", json!({"audio_id": other["id"]})).answer().await.is(422);
    for pbx in fleet.pbxes() {
        pbx.open_port().await.unwrap();
    }
    waiting.ends_as("completed", "played").await;
    assert_eq!(played(&fleet), format!("ringward/{}", other["sha256"].as_str().unwrap()));
    for path in ["", "/content"] {
        fleet.api.get(&format!("/v1/audio/{}{path}", other["id"].as_str().unwrap())).await.is(404);
    }
    let again = fleet.api.request(Method::DELETE, &format!("/v1/audio/{}", other["id"].as_str().unwrap()));
    Answer::to(again).await.is(404);
    let actions: Vec<_> = fleet.audit().await.into_iter().map(|row| row["action"].clone()).collect();
    assert!(
        actions.contains(&json!("audio.create")) && actions.contains(&json!("audio.delete")),
        "{actions:?}"
    );
}

#[tokio::test]
async fn files_that_are_none_are_refused_and_nothing_is_kept() {
    let fleet = Fleet::of(&["waw-1"], &["acme"]).settings(|s| s.audio.org_bytes_max = 20_000).start().await;
    let mut cut = tone(440.0);
    cut.truncate(44 + 100);
    let mut rate = tone(440.0);
    rate[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    for (media, body, status, code) in [
        ("application/json", b"{}".to_vec(), 415, "unsupported_media_type"),
        ("audio/ogg", b"OggS".to_vec(), 415, "unsupported_media_type"),
        ("audio/wav", Vec::new(), 422, "invalid_audio"),
        ("audio/wav", b"<script>".to_vec(), 422, "invalid_audio"),
        ("audio/mpeg", tone(440.0), 422, "invalid_audio"),
        ("audio/wav", cut, 422, "invalid_audio"),
        ("audio/wav", rate, 422, "invalid_audio"),
        ("audio/mpeg", [b"\xff\xfb".as_slice(), &[0x90; 4_000]].concat(), 422, "invalid_audio"),
        ("audio/wav", vec![0; 10 * 1024 * 1024 + 1], 413, "too_large"),
        // Five minutes and a second of 8 kHz in 8 bits.
        ("audio/wav", long(301), 422, "invalid_audio"),
        ("audio/wav", long(2), 409, "audio_full"),
    ] {
        let length = body.len();
        let answer = upload(&fleet, media, body).await.is(status);
        assert_eq!(answer["code"], code, "{media}, {length} bytes: {answer}");
    }
    assert_eq!(fleet.api.get("/v1/audio").await.is(200)["data"], json!([]));
    fleet.api.without_key().get("/v1/audio").await.is(401);
    fleet.api.get("/v1/audio/audio_00000000000000000000000000").await.is(404);
    fleet.api.get("/v1/audio?limit=0").await.is(422);
}

/// Seconds of 8 kHz in 8 bits.
fn long(seconds: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..seconds * 8_000).map(|n| if n % 16 < 8 { 90 } else { 160 }).collect();
    let mut wav =
        b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data".to_vec();
    wav.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    wav.extend(data);
    wav
}

/// The fleet file with another folder for each node.
pub(crate) fn with_folders(fleet: &Fleet, folders: &[(&str, &Path)]) -> String {
    folders.iter().fold(fleet.toml(), |toml, (node, folder)| {
        let name = format!("name = \"{node}\"\nregion");
        assert!(toml.contains(&name));
        toml.replace(&name, &format!("name = \"{node}\"\naudio_folder = {folder:?}\nregion"))
    })
}

#[tokio::test]
async fn a_call_goes_to_the_node_that_can_play_it() {
    let fleet = Fleet::square().settings(tones).start().await;
    fleet.callee(NUMBER, talks(5));
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("file"), "in the way").unwrap();
    let (good, bad) = (place.path().join("sounds"), place.path().join("file/sounds"));
    // Without any folder no node can.
    let call = ended(&fleet, says("Nobody can play this.", "en")).await;
    assert_eq!((&call["status"], &call["reason"]), (&json!("failed"), &json!("media_error")), "{call}");
    assert_eq!((call["attempts"].as_array().unwrap().len(), fleet.seen(NUMBER).invites), (0, 0), "{call}");
    fleet.apply(&with_folders(&fleet, &[("waw-1", &good), ("fra-1", &bad)]), "").await.is(200);
    for n in 0..4 {
        let call = ended(&fleet, says(&format!("Alarm number {n}."), "en")).await;
        assert_eq!(call["reason"], "played", "{call}");
        let attempts = call["attempts"].as_array().unwrap();
        // What was sent nowhere is no attempt, and costs none.
        assert_eq!((attempts.len(), &attempts[0]["node"]), (1, &json!("waw-1")), "{call}");
    }
    // Its health is not charged: it can carry what every Asterisk has.
    for node in ["waw-1", "fra-1"] {
        assert_eq!(fleet.trunk(&format!("acme-{node}")).await["usable"], true);
    }
    // With all folders mended in time the call that waits for one goes out.
    fleet.apply(&with_folders(&fleet, &[("waw-1", &bad), ("fra-1", &bad)]), "").await.is(200);
    let waiting = fleet.call(NUMBER).with("message", says("Late, but heard.", "en")).place().await;
    sleep(Duration::from_millis(600)).await;
    std::fs::remove_file(place.path().join("file")).unwrap();
    waiting.ends_as("completed", "played").await;
}

/// A program of a test's own in place of espeak-ng, which runs `lines` with the output file as `$1`.
pub(crate) fn engine(folder: &Path, lines: &str, line: &str) -> Builder {
    let program: PathBuf = folder.join("engine");
    std::fs::write(&program, format!("#!/bin/sh\necho run >> {}\n{lines}\n", folder.join("runs").display()))
        .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = vec![program.display().to_string(), "{output_file}".to_owned()];
    Fleet::of(&["waw-1"], &["acme"]).nodes_have(line).settings(move |settings| {
        settings.audio.speech.command = command;
        settings.audio.speech.languages = vec!["en".parse().unwrap()];
        settings.audio.speech.timeout_ms = 20_000;
    })
}

pub(crate) fn runs(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("runs")).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn an_engine_that_fails_or_is_silent_ends_the_call_before_anything_is_sent() {
    let (folder, line) = folder();
    std::fs::write(folder.path().join("silence.wav"), {
        let mut silence = long(1);
        silence[44..].fill(128);
        silence
    })
    .unwrap();
    for lines in ["exit 1", &format!("cp {}/silence.wav $1", folder.path().display()), "echo no audio > $1"] {
        let fleet = engine(folder.path(), lines, &line).start().await;
        let before = runs(folder.path());
        let call = ended(&fleet, says("Never heard.", "en")).await;
        assert_eq!((&call["reason"], fleet.seen(NUMBER).invites), (&json!("media_error"), 0), "{call}");
        assert_eq!(runs(folder.path()) - before, 2, "tried twice");
        fleet.call(NUMBER).with("message", says("a", "pl")).answer().await.is(422);
    }
}

#[tokio::test]
async fn a_call_that_waits_for_its_text_survives_a_kill_and_can_be_canceled() {
    let (folder, line) = folder();
    std::fs::write(folder.path().join("tone.wav"), tone(440.0)).unwrap();
    // Speaks when it is told to, and never else.
    let path = folder.path().display();
    let lines = format!("while ! [ -e {path}/speak ]; do sleep 0.05; done; cp {path}/tone.wav $1");
    let mut fleet = engine(folder.path(), &lines, &line).start().await;
    fleet.callee(NUMBER, talks(5));
    let call = fleet.call(NUMBER).with("message", says("Wait for me.", "en")).place().await;
    let other = fleet.call(NUMBER).with("message", says("Not this.", "en")).place().await;
    eventually("both texts to be spoken", async || runs(folder.path()) == 2).await;
    assert_eq!(call.now().await["status"], "queued");
    assert_eq!(other.cancel().await.status, 202);
    other.ends_as("canceled", "api").await;
    // Ten more calls with the same text wait for the same run.
    for _ in 0..10 {
        fleet.call(NUMBER).with("message", says("Wait for me.", "en")).place().await;
    }
    let id = call.id.clone();
    fleet.kill().await;
    fleet.start_again().await;
    let call = Call::again(&fleet, &id);
    assert_eq!(call.now().await["status"], "queued");
    std::fs::write(folder.path().join("speak"), "").unwrap();
    call.ends_as("completed", "played").await;
    eventually("all of them to be heard", async || fleet.seen(NUMBER).answers == 11).await;
    // One before the kill for each text, one after it for the one that was still wanted.
    assert_eq!(runs(folder.path()), 3);
}
