//! Sources against real files and a real child.

use std::{io::Write, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use node_agent_core::offence::Kind;
use tokio::time::timeout;

use super::*;

fn intake(dir: &Path) -> (Intake, mpsc::Receiver<Piece>) {
    let (clock, chance) = (Clock::system(), Chance::seeded(1));
    let state = StateDir::open(&dir.join("state")).unwrap();
    let spool = Spool::open(&state, clock.clone(), chance).unwrap();
    Intake::new(Arc::new(Metrics::new().unwrap()), Sources::default(), spool, state, clock)
}

fn sshd() -> JailName {
    "sshd".parse().unwrap()
}

async fn offence(pieces: &mut mpsc::Receiver<Piece>) -> (Kind, String) {
    let piece = timeout(Duration::from_secs(20), pieces.recv()).await.expect("nothing came").unwrap();
    match piece.finding {
        Finding::Offence(offence) => (offence.kind, offence.source.to_string()),
        other @ (Finding::Success(_) | Finding::Neutral | Finding::Nobody(_)) => panic!("{other:?}"),
    }
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn line(n: u8) -> String {
    format!("Nov 24 12:18:42 pbx1 sshd[812]: Invalid user u{n} from 192.0.2.{n} port 40022\n")
}

fn guess(n: u8) -> (Kind, String) {
    (Kind::InvalidAccount, format!("192.0.2.{n}"))
}

/// Ends with the test.
struct Reading(tokio::task::JoinHandle<()>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn read_files(path: &Path, intake: &Intake) -> Reading {
    let matcher = matcher(&sshd(), None).unwrap();
    Reading(tokio::spawn(files::read(sshd(), vec![path.to_owned()], matcher, intake.clone())))
}

#[tokio::test]
async fn a_log_is_followed_over_a_rotation_and_read_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (intake, mut pieces) = intake(dir.path());
    let log = dir.path().join("auth.log");
    append(&log, &line(1));
    let reading = read_files(&log, &intake);
    tokio::time::sleep(Duration::from_millis(500)).await;
    append(&log, &line(2));
    assert_eq!(offence(&mut pieces).await, guess(2), "what was there before is not of now");
    append(&log, "nonsense\n");
    append(&log, &line(3));
    std::fs::rename(&log, dir.path().join("auth.log.1")).unwrap();
    append(&log, &line(4));
    assert_eq!(offence(&mut pieces).await, guess(3));
    assert_eq!(offence(&mut pieces).await, guess(4));
    let places = dir.path().join("state/places.sshd.json");
    let saved = |wanted: u64| {
        std::fs::read(&places).is_ok_and(|text| {
            let text: serde_json::Value = serde_json::from_slice(&text).unwrap();
            text["places"][log.to_str().unwrap()]["offset"] == wanted
        })
    };
    timeout(Duration::from_secs(20), async {
        while !saved(line(4).len() as u64) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    drop(reading);
    append(&log, &line(5));
    let _reading = read_files(&log, &intake);
    assert_eq!(offence(&mut pieces).await, guess(5));
    let seen = intake.metrics.evidence.seen(&sshd());
    assert_eq!((&seen["lines"]["matched"], &seen["lines"]["missed"]), (&json!(4), &json!(1)));
}

#[tokio::test]
async fn a_full_queue_makes_the_reader_wait_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (intake, mut pieces) = intake(dir.path());
    let log = dir.path().join("auth.log");
    append(&log, "");
    let _reading = read_files(&log, &intake);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let count = 5 * PIECES_MAX;
    append(&log, &line(7).repeat(count));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pieces.len(), PIECES_MAX);
    for n in 0..count {
        assert_eq!(offence(&mut pieces).await, guess(7), "{n}");
    }
}

/// What the next child prints. Whole or not at all.
fn print_next(dir: &Path, entries: &[serde_json::Value]) {
    let printed: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
    std::fs::write(dir.join("new"), printed).unwrap();
    std::fs::rename(dir.join("new"), dir.join("entries")).unwrap();
}

/// A child that prints what journald 252 prints, notes what it was asked, and ends.
fn journalctl(dir: &Path) -> PathBuf {
    let path = dir.join("journalctl");
    let dir = dir.display();
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> {dir}/asked\n/bin/mv {dir}/entries {dir}/taken && /bin/cat {dir}/taken\n\
         echo 'it ends' >&2\nexit 1\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn entry(n: u8, uid: &str) -> serde_json::Value {
    json!({
        "__CURSOR": format!("s=5b1e;i={n}"), "__REALTIME_TIMESTAMP": "1795522722523000", "_UID": uid, "_PID": "812",
        "_COMM": "sshd", "_EXE": "/usr/sbin/sshd", "_SYSTEMD_UNIT": "ssh.service", "SYSLOG_IDENTIFIER": "sshd",
        "MESSAGE": format!("Invalid user u{n} from 192.0.2.{n} port 40022"),
    })
}

#[tokio::test]
async fn the_journal_is_read_by_a_child_that_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let (intake, mut pieces) = intake(dir.path());
    let mut overlong = entry(9, "0");
    overlong["MESSAGE"] = json!("x".repeat(200_000));
    print_next(dir.path(), &[entry(1, "0"), entry(66, "1000"), overlong, json!(7), entry(2, "0")]);
    let program = journalctl(dir.path());
    let matcher = matcher(&sshd(), None).unwrap();
    let journald = journald::Journald { jail: sshd(), program, matcher, intake: intake.clone() };
    let reading = Reading(tokio::spawn(journald.read()));
    assert_eq!(offence(&mut pieces).await, guess(1));
    assert_eq!(offence(&mut pieces).await, guess(2), "a user who calls himself sshd was believed");
    print_next(dir.path(), &[entry(3, "0")]);
    assert_eq!(offence(&mut pieces).await, guess(3));
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    assert!(asked.lines().next().unwrap().contains("--lines=0 _UID=0 SYSLOG_IDENTIFIER=sshd"), "{asked}");
    let lost = intake.metrics.evidence.seen(&sshd())["lost"].clone();
    assert_eq!(lost, json!({"journal_entries": 2, "overlong_lines": 1}));
    let kept = std::fs::read_to_string(dir.path().join("state/journal.cursor")).unwrap();
    assert!(kept.contains("s=5b1e;i="), "{kept}");
    // The next one goes on where that one was.
    drop(reading);
    std::fs::remove_file(dir.path().join("asked")).unwrap();
    let (program, matcher) = (dir.path().join("journalctl"), super::matcher(&sshd(), None).unwrap());
    let again = journald::Journald { jail: sshd(), program, matcher, intake: intake.clone() };
    print_next(dir.path(), &[entry(4, "0")]);
    let _again = Reading(tokio::spawn(again.read()));
    assert_eq!(offence(&mut pieces).await, guess(4));
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    assert!(asked.contains("--no-tail --after-cursor=s=5b1e;i="), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_host_without_a_journal_is_told_of_once() {
    let dir = tempfile::tempdir().unwrap();
    let (intake, _pieces) = intake(dir.path());
    let matcher = matcher(&sshd(), None).unwrap();
    let program = dir.path().join("none");
    let journald = journald::Journald { jail: sshd(), program, matcher, intake: intake.clone() };
    let _reading = Reading(tokio::spawn(journald.read()));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let told = intake.spool.next(&std::collections::HashSet::new());
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].body.value()["subject"], "journal");
}

#[test]
fn a_jail_without_a_filter_is_refused_with_its_name() {
    let error = matcher(&"exim".parse().unwrap(), None).unwrap_err().to_string();
    assert_eq!(error, "jail exim: has sources, but no filter is shipped for it: name one in patterns");
    let error = matcher(&sshd(), Some(&PathBuf::from("/none"))).unwrap_err().to_string();
    assert!(error.starts_with("jail sshd: patterns /none: "), "{error}");
}
