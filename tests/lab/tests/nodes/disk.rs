//! The disk of the agent's state is full.

use std::time::Duration;

use lab::{ControlPlane, Lab, numbers, wait_until};
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::{Fleet, end};
use crate::node::{agent, agent_log, facts, findings, one, until_state};

const SMALL: &str = "mkdir -p /var/lib/ringward-agent && \
                     mount -t tmpfs -o size=128k,mode=700 tmpfs /var/lib/ringward-agent";
const FILL: &str = "dd if=/dev/zero of=/var/lib/ringward-agent/filler bs=1k 2>/dev/null || true";

/// Calls that the journal takes more than a page of memory for: what is in a page already is not refused.
const CALLS: u16 = 160;

#[track_caller]
fn calls_go_on(fleet: &Fleet, first: u16) {
    let place = |n| fleet.place(&numbers::number(numbers::ANSWER, n), json!({"on_unknown": "fail"}));
    let ids: Vec<_> = (first..first + CALLS).map(place).collect();
    for id in ids {
        let call = fleet.ended(&id);
        assert_eq!(end(&call), "completed/played/answered", "{call}\n{}", agent_log(fleet, "pbx-1"));
    }
}

#[test]
fn an_agent_without_room_goes_on_says_so_and_loses_no_call() {
    let lab = Lab::up(one()).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    pbx.shell(SMALL).unwrap();
    let folder = TempDir::new().unwrap();
    let plane = ControlPlane::start_for(&lab, folder.path()).unwrap();
    let fleet = Fleet { plane, lab, folder };
    let (pbx, agent) = (fleet.lab.pbx("pbx-1").unwrap(), agent(&fleet, "pbx-1"));
    pbx.shell(FILL).unwrap();
    let pid = agent.pid();
    calls_go_on(&fleet, 0);
    assert_eq!(agent.pid(), pid, "it did not fall over");
    assert!(agent.log().unwrap().contains("No space left on device"), "{}", agent_log(&fleet, "pbx-1"));
    // Facts need no disk to arrive.
    let told = || !findings(&fleet, "pbx-1", "state_not_written").is_empty();
    wait_until("the control plane to be told", Duration::from_secs(10), "", told)
        .unwrap_or_else(|error| panic!("{error}: {}", agent_log(&fleet, "pbx-1")));

    let runs = facts(&fleet, "pbx-1", "agent_started").len();
    pbx.shell("systemctl restart ringward-agent").unwrap();
    wait_until("the agent's next run to be told", Duration::from_secs(15), "", || {
        facts(&fleet, "pbx-1", "agent_started").len() > runs
    })
    .unwrap_or_else(|error| panic!("{error}: {}", agent_log(&fleet, "pbx-1")));
    until_state(&fleet, "pbx-1", "alive", Duration::from_secs(10));
    calls_go_on(&fleet, CALLS);
    assert_eq!(fleet.seen("a").total().answers, 2 * u32::from(CALLS));

    // With room again, the next run keeps its journal.
    pbx.shell("rm /var/lib/ringward-agent/filler && systemctl restart ringward-agent").unwrap();
    wait_until("the journal to be written", Duration::from_secs(15), "", || {
        let journal = std::fs::read_to_string(agent.state_dir().join("attempts")).unwrap_or_default();
        journal.lines().count() == 1
    })
    .unwrap();
    until_state(&fleet, "pbx-1", "alive", Duration::from_secs(10));
    calls_go_on(&fleet, 2 * CALLS);
    let journal = std::fs::read_to_string(agent.state_dir().join("attempts")).unwrap();
    assert_eq!(journal.lines().count(), 1 + usize::from(CALLS), "a line for the boot, one for each call");
}
