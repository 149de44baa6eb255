//! `ringward-agent check`, against a scripted Asterisk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use fake_pbx::{CoreStatus, FakePbx, Script};

/// As the manager's template makes it: this user has no class that lets it ask anything.
#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_security_events_is_not_asked_what_it_may_not_know() {
    let script = Script { core_status: CoreStatus::Refused, ..Script::default() };
    let pbx = FakePbx::start(script).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "secret\n").unwrap();
    let login =
        format!("address = '{}'\nusername = 'ringward'\nsecret_file = '{}'", pbx.address(), secret.display());
    let settings = folder.path().join("agent.toml");
    let state = folder.path().join("state");
    let text = format!(
        "state_dir = '{}'\n[ami]\n{login}\n[observer]\n{login}\n[security]\n{login}\n",
        state.display()
    );
    std::fs::write(&settings, text).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_ringward-agent"));
    check.arg("--config").arg(&settings).arg("check");
    let said = tokio::task::spawn_blocking(move || check.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&said.stdout);
    let line = |what: &str| told.lines().find(|line| line.contains(what)).unwrap_or_default().to_owned();
    assert!(
        line("reads security events").starts_with("good  AMI, user that reads security events: logged in"),
        "{told}"
    );
    // Who must be able to ask is told so.
    for user in ["user that places calls", "observer"] {
        assert!(line(user).starts_with("BAD") && line(user).contains("Permission denied"), "{told}");
    }

    pbx.refuse_login(true);
    let mut check = Command::new(env!("CARGO_BIN_EXE_ringward-agent"));
    check.arg("--config").arg(&settings).arg("check");
    let said = tokio::task::spawn_blocking(move || check.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&said.stdout);
    let line = told.lines().find(|line| line.contains("reads security events")).unwrap_or_default();
    assert!(line.starts_with("BAD"), "a wrong secret is found: {told}");
}
