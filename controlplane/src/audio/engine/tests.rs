//! What an engine is told, and what becomes of one that misbehaves. espeak-ng itself is met in the API's suite.

use std::os::unix::fs::PermissionsExt;

use tokio::time::Instant;

use super::*;

fn engine(command: &[&str], timeout_ms: u64) -> Engine {
    let command = command.iter().map(|part| (*part).to_owned()).collect();
    let voices =
        [("en", "en"), ("fr-fr", "fr-fr")].map(|(tag, voice)| (tag.parse().unwrap(), voice.to_owned()));
    Engine::of(command, voices.into(), Duration::from_millis(timeout_ms), "")
}

/// A program of these lines of shell.
fn program(folder: &Path, lines: &str) -> String {
    let path = folder.join("engine");
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_string_lossy().into_owned()
}

fn text(text: &str) -> MessageText {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_text_comes_by_file_or_standard_input_and_never_as_an_argument() {
    let folder = tempfile::tempdir().unwrap();
    let said = "--help; $(touch /tmp/x) `id` \"quoted\" 'and' \\ {language} {text_file}";
    // Its arguments, its environment's names, and its text.
    let lines =
        "out=$1; shift; { echo \"$*\"; env | cut -d= -f1 | sort | tr '\\n' ' '; echo; cat $4; } > $out";
    let program = program(folder.path(), lines);
    let by_file = engine(&[&program, "{output_file}", "-v", "x{language}", "-f", "{text_file}"], 5_000);
    let got = String::from_utf8(by_file.speak("en", &text(said)).await.unwrap()).unwrap();
    let (arguments, rest) = got.split_once('\n').unwrap();
    assert!(arguments.starts_with("-v xen -f /") && !arguments.contains("help"), "{arguments}");
    let (names, got_text) = rest.split_once('\n').unwrap();
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), ["HOME", "LANG", "PATH", "PWD"]);
    assert_eq!(got_text, said);
    let by_input = engine(&[&program, "{output_file}"], 5_000);
    let got = String::from_utf8(by_input.speak("en", &text(said)).await.unwrap()).unwrap();
    assert!(got.starts_with('\n') && got.ends_with(said), "{got}");
}

#[tokio::test]
async fn an_engine_that_is_late_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let lines = format!("sleep 600 & echo $! >> {0}; echo $$ >> {0}; wait", pids.display());
    let program = program(folder.path(), &lines);
    let began = Instant::now();
    let late = engine(&[&program, "{output_file}"], 300).speak("en", &text("a")).await.unwrap_err();
    assert!(matches!(late, EngineError::Late(300)), "{late}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        let state = std::path::PathBuf::from(format!("/proc/{pid}/stat"));
        let lives = || std::fs::read_to_string(&state).is_ok_and(|stat| !stat.contains(") Z "));
        let until = Instant::now() + Duration::from_secs(5);
        while lives() {
            assert!(Instant::now() < until, "{pid} lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn what_an_engine_writes_is_bounded_and_its_failure_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (lines, said) in [
        // Let it be under way before it writes: the bound comes just after the start.
        ("sleep 0.3; exec head -c 200000000 /dev/zero > $1", "signal: 25"),
        ("echo no voice >&2; exit 3", "exit status: 3"),
        ("exit 0", "exit status: 0"),
        ("touch $1", "exit status: 0"),
    ] {
        let program = program(folder.path(), lines);
        let failed = engine(&[&program, "{output_file}"], 20_000).speak("en", &text("a")).await.unwrap_err();
        assert!(failed.to_string().contains(said), "{lines}: {failed}");
    }
    let missing = engine(&["/nowhere/engine", "{output_file}"], 1_000);
    let failed = missing.speak("en", &text("a")).await.unwrap_err();
    assert!(matches!(failed, EngineError::Start(..)), "{failed}");
}

#[test]
fn a_language_is_spoken_by_itself_by_its_main_or_by_a_form() {
    let engine = engine(&["x"], 1);
    let voice = |tag: &str| engine.voice(&tag.parse().unwrap()).map(str::to_owned);
    assert_eq!(voice("en").as_deref(), Some("en"));
    assert_eq!(voice("en-au").as_deref(), Some("en"));
    assert_eq!(voice("fr").as_deref(), Some("fr-fr"));
    assert_eq!(voice("fr-ca").as_deref(), Some("fr-fr"));
    assert_eq!(voice("tlh"), None);
}

#[test]
fn espeak_s_list_is_read_with_what_voices_are_listed_as_well_for() {
    let list = "Pty Language       Age/Gender VoiceName          File                 Other Languages\n \
                5  cmn             --/M      Chinese_(Mandarin,_latin_as_English) sit/cmn              (zh-cmn 5)(zh 5)\n \
                5  en-029          --/M      English_(Caribbean) gmw/en-029           (en 10)\n \
                2  en-gb           --/M      English_(Great_Britain) gmw/en            (en 2)\n \
                5  chr-US-Qaaa-x-west --/M      Cherokee_          iro/chr              \n \
                5  pl              --/M      Polish             zlw/pl               \n";
    let voices = espeak_voices(list);
    let found: Vec<_> = voices.iter().map(|(tag, voice)| (tag.as_str(), voice.as_str())).collect();
    assert_eq!(
        found,
        [
            ("cmn", "cmn"),
            ("en", "en-gb"),
            ("en-029", "en-029"),
            ("en-gb", "en-gb"),
            ("pl", "pl"),
            ("zh", "cmn"),
            ("zh-cmn", "cmn")
        ]
    );
}

#[test]
fn the_same_text_is_another_sound_with_another_voice_or_engine() {
    let (one, other) = (engine(&["a", "b"], 1), engine(&["ab"], 1));
    let keys = [
        one.key("en", &text("a")),
        one.key("fr-fr", &text("a")),
        one.key("en", &text("b")),
        other.key("en", &text("a")),
    ];
    assert_eq!(BTreeSet::from(keys).len(), keys.len());
    assert_eq!(keys[0], engine(&["a", "b"], 9).key("en", &text("a")));
}
