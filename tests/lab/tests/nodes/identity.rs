//! Certificates and tokens that are not what they should be.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use lab::{Agent, Signal, numbers, pause, program, wait_until};
use serde_json::{Value, json};

use crate::fixture::{Fleet, attempts, end};
use crate::node::{agent, agent_log, booted, link_words, state, until_state};

fn identity(agent: &Agent) -> Value {
    serde_json::from_slice(&fs::read(agent.state_dir().join("identity.json")).unwrap()).unwrap()
}

fn set_identity(fleet: &Fleet, agent: &Agent, identity: &Value) {
    fs::write(agent.state_dir().join("identity.json"), identity.to_string()).unwrap();
    fleet.lab.pbx(agent.node()).unwrap().shell("systemctl restart ringward-agent").unwrap();
}

/// Waits until an agent says this of its link.
#[track_caller]
fn until_link(fleet: &Fleet, agent: &Agent, words: &str) {
    wait_until(&format!("the link of {} to be {words}", agent.node()), Duration::from_secs(20), "", || {
        link_words(agent).contains(words)
    })
    .unwrap_or_else(|error| panic!("{error}: {}\n{}", link_words(agent), agent_log(fleet, agent.node())));
}

#[test]
fn a_token_is_used_once_and_a_certificate_is_of_one_node() {
    let fleet = Fleet::up(booted());
    let (first, second) = (agent(&fleet, "pbx-1"), agent(&fleet, "pbx-2"));
    let token = fleet.plane.token("pbx-1").unwrap();
    assert!(first.join(&["--again", &token]).unwrap().status.success());
    // The token, overheard and used again from another host.
    let before = identity(&second);
    let replay = second.join(&["--again", &token]).unwrap();
    let words = String::from_utf8(replay.stderr).unwrap();
    assert_eq!(replay.status.code(), Some(1));
    assert!(words.contains("token_used") && words.contains("ringward node revoke pbx-1"), "{words}");
    assert_eq!(identity(&second), before, "it keeps what it has");

    // Two certificates of one node can be in use for the time of a change.
    fleet.lab.pbx("pbx-1").unwrap().shell("systemctl restart ringward-agent").unwrap();
    until_link(&fleet, &first, "up");
    // pbx-2's certificate, used as pbx-1.
    let own = identity(&first);
    let mut other = identity(&second);
    other["node"] = "pbx-1".into();
    set_identity(&fleet, &first, &other);
    until_link(&fleet, &first, "WrongNode");
    until_state(&fleet, "pbx-1", "lost", Duration::from_secs(15));
    assert_eq!(state(&fleet, "pbx-2"), "alive", "it took nobody's place");
    let call = fleet.placed(&numbers::number(numbers::ANSWER, 1), json!({}));
    assert_eq!((end(&call).as_str(), attempts(&call, "node")), ("completed/played/answered", vec!["pbx-2"]));
    set_identity(&fleet, &first, &own);
    until_state(&fleet, "pbx-1", "alive", Duration::from_secs(15));
}

#[test]
fn certificates_of_another_ca_open_nothing_on_either_side() {
    let fleet = Fleet::up(booted());
    let (first, second) = (agent(&fleet, "pbx-1"), agent(&fleet, "pbx-2"));
    let ca = fleet.folder.path().join("agents-ca.pem");
    let kept = fs::read(&ca).unwrap();
    fleet.plane.signal(Signal::Kill).unwrap();
    fs::remove_file(&ca).unwrap();
    fleet.plane.start_again().unwrap();
    // pbx-1 does not believe this control plane.
    until_link(&fleet, &first, "invalid peer certificate");
    // pbx-2 is made to; then the control plane does not believe it.
    let own = identity(&second);
    let pem = fs::read_to_string(&ca).unwrap();
    let mut fooled = own.clone();
    fooled["ca_pem"] = pem[pem.find("-----BEGIN CERTIFICATE").unwrap()..].into();
    set_identity(&fleet, &second, &fooled);
    until_link(&fleet, &second, "down");
    pause(Duration::from_secs(3));
    println!("refused: {}", link_words(&second));
    assert!(link_words(&second).contains("down"), "{}", link_words(&second));
    for node in ["pbx-1", "pbx-2"] {
        assert_eq!(
            (state(&fleet, node).as_str(), &fleet.plane.agent(node).unwrap()["linked"]),
            ("lost", &json!(false))
        );
    }
    // Its own CA back from the backup: nobody needs to join again.
    fleet.plane.signal(Signal::Kill).unwrap();
    fs::write(&ca, kept).unwrap();
    fleet.plane.start_again().unwrap();
    set_identity(&fleet, &second, &own);
    until_state(&fleet, "pbx-1", "alive", Duration::from_secs(20));
    until_state(&fleet, "pbx-2", "alive", Duration::from_secs(20));
}

/// `ringward-agent` at the attacker's, with a stolen state directory.
fn thief(fleet: &Fleet, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = fleet.lab.attacker().host().in_namespace();
    command.arg(program("ringward-agent").unwrap()).args(arguments);
    command.env("RINGWARD_AGENT_STATE_DIR", folder).stdin(Stdio::null());
    command
}

#[test]
fn a_stolen_certificate_is_worthless_once_revoked() {
    let fleet = Fleet::up(booted());
    let second = agent(&fleet, "pbx-2");
    let loot = tempfile::tempdir().unwrap();
    fs::copy(second.state_dir().join("identity.json"), loot.path().join("identity.json")).unwrap();
    let check = || -> Output { thief(&fleet, loot.path(), &["check"]).output().unwrap() };
    let said = |output: Output| String::from_utf8(output.stdout).unwrap();
    let open = said(check());
    assert!(open.contains("lets us in"), "until it is revoked it opens the door: {open}");

    let revoked = fleet.plane.command_line(&["node", "revoke", "pbx-2"]).unwrap();
    assert!(revoked.status.success(), "{revoked:?}");
    until_state(&fleet, "pbx-2", "lost", Duration::from_secs(5));
    let shut = said(check());
    assert!(shut.contains("certificate_revoked"), "{shut}");
    let call = fleet.placed(&numbers::number(numbers::ANSWER, 1), json!({}));
    assert_eq!((end(&call).as_str(), attempts(&call, "node")), ("completed/played/answered", vec!["pbx-1"]));

    // The true node joins anew, and takes no more than a restart; the thief stays outside.
    let token = fleet.plane.token("pbx-2").unwrap();
    let joined = second.join(&["--again", &token]).unwrap();
    assert!(joined.status.success(), "{joined:?}");
    let words = String::from_utf8(joined.stdout).unwrap();
    assert!(words.contains("systemctl restart ringward-agent"), "a running agent has to be told: {words}");
    fleet.lab.pbx("pbx-2").unwrap().shell("systemctl restart ringward-agent").unwrap();
    until_state(&fleet, "pbx-2", "alive", Duration::from_secs(15));
    let shut = said(check());
    assert!(shut.contains("certificate_revoked"), "{shut}");
    assert_eq!(state(&fleet, "pbx-2"), "alive");
}
