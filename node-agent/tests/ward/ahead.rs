//! An nft that is started ahead: shown by a program that takes long to start, as nft does where the machine is busy.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use node_agent::ward::{KernelError, Nft};
use tokio::time::{Instant, sleep};

/// So long does it take until it reads.
const STARTS_IN: Duration = Duration::from_millis(300);

/// Notes its number once it is ready, then each line of its script; `no` is refused.
fn slow_nft(dir: &Path) -> PathBuf {
    let path = dir.join("nft");
    let notes = dir.join("notes");
    let script = format!(
        "#!/bin/sh\nsleep 0.3\necho $$ >> {0}.pids\nscript=$(cat)\n[ -n \"$script\" ] && echo \"$script\" >> {0}\n\
         [ \"$script\" != no ] || {{ echo refused >&2; exit 1; }}\n",
        notes.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn pids(dir: &Path, wanted: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(dir.join("notes.pids")).unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(20);
    while read().lines().count() < wanted {
        assert!(Instant::now() < end, "{wanted} were not started: {}", read());
        sleep(Duration::from_millis(10)).await;
    }
    read().lines().map(str::to_owned).collect()
}

async fn took(nft: &Nft, script: &str) -> (Duration, Result<(), KernelError>) {
    let began = Instant::now();
    let done = nft.load(script).await;
    (began.elapsed(), done)
}

#[tokio::test]
async fn a_ban_does_not_wait_for_the_program_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let nft = Nft::new(slow_nft(dir.path()));
    let (first, done) = took(&nft, "first").await;
    assert!(done.is_ok() && first >= STARTS_IN, "{first:?} {done:?}");
    // The one that was started ahead is ready.
    pids(dir.path(), 2).await;
    let (second, done) = took(&nft, "second").await;
    assert!(done.is_ok() && second < STARTS_IN, "{second:?} {done:?}");
    // A refusal is told as ever, and the next one is started all the same.
    pids(dir.path(), 3).await;
    assert_eq!(nft.load("no").await, Err(KernelError::Refused("refused".to_owned())));
    // Somebody ends the one that waits: another one does it.
    let waiting = pids(dir.path(), 4).await.pop().unwrap();
    let killed = std::process::Command::new("kill").args(["-9", &waiting]).status().unwrap();
    assert!(killed.success());
    sleep(Duration::from_millis(50)).await;
    assert_eq!(nft.load("third").await, Ok(()));
    let notes = std::fs::read_to_string(dir.path().join("notes")).unwrap();
    assert_eq!(notes, "first\nsecond\nno\nthird\n");
}

#[tokio::test]
async fn what_waits_ends_with_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let nft = Nft::new(slow_nft(dir.path()));
    nft.load("first").await.unwrap();
    let waiting = pids(dir.path(), 2).await.pop().unwrap();
    let is_there = || {
        let stat = std::fs::read_to_string(format!("/proc/{waiting}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    assert!(is_there());
    drop(nft);
    let end = Instant::now() + Duration::from_secs(10);
    while is_there() {
        assert!(Instant::now() < end, "it waits still");
        sleep(Duration::from_millis(10)).await;
    }
}
