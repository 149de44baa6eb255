//! Nodes that hang over a sound, and customers who send more texts than can be spoken: what that costs others.

use std::{path::Path, process::Command, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    audio::{ended, engine, folder, runs, says, tone, tones, with_folders},
    fixture::{Fleet, NUMBER, eventually, talks},
};

/// A file that hangs whoever opens it, as a share that is gone does.
struct Hangs(std::path::PathBuf);

impl Hangs {
    fn at(path: &Path) -> Self {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        Self(path.to_owned())
    }
}

impl Drop for Hangs {
    /// Lets everybody go: they find an empty file.
    fn drop(&mut self) {
        let open = std::fs::File::options().read(true).write(true).open(&self.0);
        std::fs::remove_file(&self.0).ok();
        drop(open);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_over_a_sound_costs_one_call_its_time_and_comes_back() {
    let fleet = Fleet::square().settings(tones).start().await;
    fleet.callee(NUMBER, talks(5));
    let place = tempfile::tempdir().unwrap();
    let (good, bad) = (place.path().join("good"), place.path().join("bad"));
    let folders = with_folders(&fleet, &[("waw-1", &good), ("fra-1", &good)]);
    fleet.apply(&folders, "").await.is(200);
    ended(&fleet, says("Which sound is it?", "en")).await;
    // Every text is the same tone here.
    let name = std::fs::read_dir(&good).unwrap().next().unwrap().unwrap().file_name();
    std::fs::create_dir(&bad).unwrap();
    let hangs = Hangs::at(&bad.join(name));
    fleet.apply(&with_folders(&fleet, &[("waw-1", &good), ("fra-1", &bad)]), "").await.is(200);
    let mut slow = 0;
    for n in 0..8 {
        let began = Instant::now();
        let call = ended(&fleet, says(&format!("Alarm {n}."), "en")).await;
        assert_eq!(
            (&call["reason"], &call["attempts"][0]["node"]),
            (&"played".into(), &"waw-1".into()),
            "{call}"
        );
        slow += usize::from(began.elapsed() > Duration::from_secs(4));
    }
    assert_eq!(slow, 1, "calls that waited for the node that hangs");
    drop(hangs);
    // It is asked beside the calls, and takes its share again.
    eventually("the node to carry calls", async || {
        let call = ended(&fleet, says("Is it back?", "en")).await;
        call["attempts"][0]["node"] == "fra-1"
    })
    .await;
}

#[tokio::test]
async fn who_sends_too_many_texts_is_told_so_and_what_is_kept_needs_no_turn() {
    let (folder, line) = folder();
    let path = folder.path().display().to_string();
    std::fs::write(folder.path().join("tone.wav"), tone(440.0)).unwrap();
    std::fs::write(folder.path().join("speak"), "").unwrap();
    let lines = format!("while ! [ -e {path}/speak ]; do sleep 0.05; done; cp {path}/tone.wav $1");
    let fleet = engine(folder.path(), &lines, &line).start().await;
    fleet.callee(NUMBER, talks(5));
    ended(&fleet, says("This one is kept.", "en")).await;
    // From here on nothing is spoken.
    std::fs::remove_file(folder.path().join("speak")).unwrap();
    let mut refused = None;
    for n in 0..400 {
        // No number has as many open calls as it may.
        let number = format!("+4822123{:04}", 5_000 + n);
        let answer = fleet.call(&number).with("message", says(&format!("Text {n}."), "en")).answer().await;
        if answer.status != 201 {
            refused = Some((n, answer));
            break;
        }
        if n >= 200 {
            // What was accepted gets into the line a moment later.
            sleep(Duration::from_millis(20)).await;
        }
    }
    let (accepted, refused) = refused.expect("the line is bounded");
    refused.is_problem(429, "too_many_texts");
    assert!((200..=260).contains(&accepted), "{accepted}");
    let metrics = fleet.metrics().await;
    assert!(metrics.contains("ringward_speech_waiting 20"), "{metrics}");
    fleet
        .call(NUMBER)
        .with("message", says("This one is kept.", "en"))
        .place()
        .await
        .ends_as("completed", "played")
        .await;
    assert!(runs(folder.path()) <= 3, "one for what is kept, two at a time");
}
