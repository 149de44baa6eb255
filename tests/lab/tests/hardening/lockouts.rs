//! Attempts to lock operators out of a host: each ends with a new connection of theirs to sshd.

use std::time::Duration;

use lab::{numbers, pause};
use serde_json::json;

use crate::fixture::end;
use crate::walled::{CONFIRM_S, Walled};

/// sshd is somewhere else than this policy thinks, and everything else is dropped. Each is another policy: what was
/// reverted is not tried again.
fn lock_out(port: u16) -> String {
    format!("ssh_ports = [{port}]\nothers = \"drop\"")
}

#[test]
fn rules_without_ssh_go_at_the_deadline_whatever_becomes_of_their_agent() {
    let walled = Walled::confirmed("");
    walled.shell("ringward-agent ban add 198.18.0.9 --seconds 900 --reason scans");
    let group = "/sys/fs/cgroup/system.slice/ringward-agent.service/cgroup.kill";
    let harms = [
        ("left alone", "true".to_owned()),
        ("agent killed", "systemctl kill --kill-whom=main -s KILL ringward-agent".to_owned()),
        ("agent frozen", "systemctl kill --kill-whom=main -s STOP ringward-agent".to_owned()),
        ("control group killed", format!("echo 1 > {group}")),
        ("unit stopped", "systemctl stop ringward-agent".to_owned()),
        (
            "unit stopped, guard killed",
            "systemctl stop ringward-agent; systemctl kill -s KILL ringward-agent-guard".to_owned(),
        ),
        ("unit and guard stopped", "systemctl stop ringward-agent ringward-agent-guard.service".to_owned()),
        (
            "settings broken, agent killed",
            "echo '[' > /etc/ringward-agent.toml; systemctl kill -s KILL ringward-agent".to_owned(),
        ),
    ];
    for (port, (what, harm)) in (2_200..).zip(harms) {
        walled.settle(&lock_out(port));
        let deadline = walled.locked_out();
        walled.shell(&harm);
        walled.open_at_the_deadline(what, deadline);
        walled.shell("systemctl kill --kill-whom=main -s CONT ringward-agent || true");
        let table = walled.shell("nft list table inet ringward");
        assert!(
            table.contains("198.18.0.9 ") && table.contains("tcp dport 22 "),
            "{what}: the old rules, bans and all: {table}"
        );
    }
    walled.settle("");
    walled.until("in_force", 20);
}

#[test]
fn a_restart_of_the_host_amid_a_change_brings_the_old_rules() {
    let walled = Walled::confirmed("");
    walled.settle(&lock_out(2_222));
    walled.locked_out();
    // Nothing but what is on disk, and an agent that does not come.
    walled.shell("systemctl mask ringward-agent; sync");
    walled.pbx().reboot().unwrap();
    assert!(walled.enter().is_some(), "{}", walled.words());
    let table = walled.shell("nft list table inet ringward");
    assert!(
        table.contains("ssh from management") && !table.contains("2222"),
        "the guard wrote them: {table}"
    );
    walled.shell("systemctl unmask ringward-agent; systemctl start ringward-agent");
    walled.until("reverted", 20);
    assert!(walled.enter().is_some());
}

#[test]
fn without_a_guard_nothing_is_changed() {
    let walled = Walled::confirmed("");
    let before = walled.shell("nft -s list table inet ringward");
    walled.shell("systemctl mask --now --runtime ringward-agent-guard.path");
    let check = walled.pbx().shell("ringward-agent check");
    assert!(
        check.is_err_and(|error| error
            .to_string()
            .contains("systemctl enable --now ringward-agent-guard.path"))
    );
    walled.settle(&lock_out(2_222));
    pause(Duration::from_secs(CONFIRM_S + 5));
    let standing = walled.standing();
    assert!(
        standing.starts_with("in_force nobody would revert the change"),
        "{standing}\n{}",
        walled.words()
    );
    assert!(walled.enter().is_some());
    let rules = |text: &str| {
        text.lines().filter(|line| line.contains("comment")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rules(&walled.shell("nft -s list table inet ringward")), rules(&before));
    // And again as soon as there is one.
    walled.shell(
        "systemctl unmask --runtime ringward-agent-guard.path; systemctl start ringward-agent-guard.path",
    );
    walled.shell("ringward-agent firewall apply");
    let deadline = walled.locked_out();
    walled.open_at_the_deadline("with a guard", deadline);
}

#[test]
fn what_would_lock_out_is_refused_before_it_begins() {
    let walled = Walled::confirmed("allow = [\"198.51.100.0/28\"]");
    let carrier = walled.fleet.lab.carriers()[0].address();
    let operator = walled.fleet.lab.operator_address();
    let here = walled.pbx().address();
    for net in [
        "0.0.0.0/0",
        "::/0",
        &format!("{carrier}"),
        &format!("{operator}"),
        &format!("{here}"),
        "198.0.0.0/8",
    ] {
        let api = walled.fleet.plane.command_line(&["ban", "add", net, "--reason", "a slip"]).unwrap();
        let by_hand = walled.pbx().shell(&format!("ringward-agent ban add {net} --seconds 600"));
        // The control plane does not know a node's own addresses: the node refuses.
        assert!(!api.status.success() || net == here.to_string(), "{net}: {api:?}");
        assert!(by_hand.is_err(), "{net}");
    }
    pause(Duration::from_secs(2));
    assert!(walled.enter().is_some());
    // Past all checks, into the kernel's set itself.
    walled.shell(&format!("nft add element inet ringward ban4 {{ {carrier}, {operator} }}"));
    let call = walled.fleet.placed(&numbers::number(numbers::ANSWER, 1), json!({}));
    assert_eq!(end(&call), "completed/played/answered", "a carrier is never cut off: {call}");
    assert!(walled.enter().is_some(), "nor is management");

    // A policy without ssh, one without management, one without what is allowed.
    walled.settle("ssh_ports = []");
    walled.until("in_force", 20);
    assert!(walled.standing().contains("ssh_ports names no port"), "{}", walled.standing());
    assert!(walled.enter().is_some());
    walled.settle("allow = [\"198.51.100.0/28\"]");
    walled.until("in_force", 20);
    walled.declare("");
    pause(Duration::from_secs(3));
    assert!(walled.enter().is_some(), "{}", walled.words());
    assert!(walled.standing().starts_with("in_force"), "{}", walled.standing());
    walled.declare(&walled.management());
    walled.settle("");
    walled.until("in_force", 20);
    pause(Duration::from_secs(CONFIRM_S + 1));
    assert!(walled.enter().is_some() && walled.standing().starts_with("in_force"), "{}", walled.standing());
}
