//! The agent, Asterisk and the control plane die and come back.

use std::time::Duration;

use lab::{Signal, now, numbers, pause, wait_until};
use serde_json::json;

use crate::fixture::{Fleet, attempts, end};
use crate::node::{agent, agent_log, booted, linked_since, one, until_state};
use crate::traffic::{all_end, tally, under_way, while_calls_come};

const RUNG_OUT: &str = "no_answer/ring_timeout/not_reached";
const PLAYED: &str = "completed/played/answered";

#[test]
fn a_killed_agent_is_started_by_systemd_and_its_calls_survive() {
    let fleet = Fleet::up(booted());
    let agent = agent(&fleet, "pbx-1");
    let (pid, since) = (agent.pid().unwrap(), linked_since(&fleet, "pbx-1"));
    let ringing = under_way(&fleet, numbers::RING, 0..6, "ringing");
    let speaking = under_way(&fleet, numbers::ANSWER, 0..6, "in_progress");
    let (took, fresh) = while_calls_come(&fleet, || {
        pause(Duration::from_secs(1));
        let killed = now();
        agent.signal(Signal::Kill).unwrap();
        let linked = || agent.pid().is_some_and(|now| now != pid) && linked_since(&fleet, "pbx-1") != since;
        wait_until("the agent to be linked again", Duration::from_secs(15), "", linked)
            .unwrap_or_else(|error| panic!("{error}\n{}", agent_log(&fleet, "pbx-1")));
        until_state(&fleet, "pbx-1", "alive", Duration::from_secs(5));
        let took = killed.elapsed();
        pause(Duration::from_secs(1));
        took
    });
    all_end(&fleet, &ringing, RUNG_OUT);
    all_end(&fleet, &speaking, PLAYED);
    let told = tally(&fleet, &fresh);
    println!("agent killed: AMI back after {} ms; meanwhile {told:?}", took.as_millis());
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(told.unknown <= 2 && told.interrupted == 0, "{told:?}");
    // The one after it answers for what the one before let through.
    assert!(told.answered >= 10, "{told:?}");
}

#[test]
fn an_agent_that_hangs_is_started_anew_by_systemd() {
    let fleet = Fleet::up(one());
    let (agent, pbx) = (agent(&fleet, "pbx-1"), fleet.lab.pbx("pbx-1").unwrap());
    let shown = pbx.shell("systemctl show -P Type -P WatchdogUSec ringward-agent").unwrap();
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["notify", "30s"]);
    // As shipped, but for the patience.
    pbx.shell(
        "mkdir -p /run/systemd/system/ringward-agent.service.d\n\
         printf '[Service]\\nWatchdogSec=2s\\n' > /run/systemd/system/ringward-agent.service.d/patience.conf\n\
         systemctl daemon-reload && systemctl restart ringward-agent",
    )
    .unwrap();
    until_state(&fleet, "pbx-1", "alive", Duration::from_secs(15));
    let pid = agent.pid().unwrap();
    pause(Duration::from_secs(5));
    assert_eq!(agent.pid(), Some(pid), "one that lives is left alone");
    agent.signal(Signal::Stop).unwrap();
    let anew = || agent.pid().is_some_and(|now| now != pid);
    wait_until("another agent", Duration::from_secs(10), "", anew)
        .unwrap_or_else(|error| panic!("{error}\n{}", agent_log(&fleet, "pbx-1")));
    until_state(&fleet, "pbx-1", "alive", Duration::from_secs(15));
}

#[test]
fn asterisk_restarts_under_an_agent_that_stays() {
    let fleet = Fleet::up(booted());
    let agent = agent(&fleet, "pbx-1");
    let (pid, since) = (agent.pid().unwrap(), linked_since(&fleet, "pbx-1"));
    let (took, fresh) = while_calls_come(&fleet, || {
        pause(Duration::from_secs(1));
        let began = now();
        fleet.lab.pbx("pbx-1").unwrap().restart_asterisk().unwrap();
        until_state(&fleet, "pbx-1", "alive", Duration::from_secs(20));
        let usable = || fleet.plane.trunks().unwrap().iter().all(|trunk| trunk["usable"] == true);
        wait_until("its trunk to be usable", Duration::from_secs(20), "", usable)
            .unwrap_or_else(|error| panic!("{error}: {:?}", fleet.plane.trunks()));
        began.elapsed()
    });
    let told = tally(&fleet, &fresh);
    println!("asterisk restarted: usable after {} ms; meanwhile {told:?}", took.as_millis());
    assert_eq!((agent.pid(), linked_since(&fleet, "pbx-1")), (Some(pid), since), "the link stayed");
    assert!(told.unknown + told.interrupted <= 4, "only what was under way at that moment: {told:?}");
}

/// Under systemd the folder of sounds is the agent's, and Asterisk, which is no root there, has to be let in.
#[test]
fn a_spoken_text_is_played_under_systemd() {
    let fleet = Fleet::up(one());
    let text = json!({"message": {"text": "The database is down.", "language": "en"}});
    let call = fleet.placed(&numbers::number(numbers::ANSWER, 1), text);
    assert_eq!(end(&call), PLAYED, "{call}\n{}", agent_log(&fleet, "pbx-1"));
}

/// What rings at a PBX that shuts down in order was interrupted, and nobody had let it ring out: `retry` dials again.
#[test]
fn what_rings_when_asterisk_shuts_down_in_order_is_interrupted() {
    let fleet = Fleet::up(booted());
    let ringing = under_way(&fleet, numbers::RING, 0..4, "ringing");
    let again: Vec<_> = (10..12).map(|n| numbers::number(numbers::RING, n)).collect();
    let retried: Vec<_> =
        again.iter().map(|to| fleet.place(to, json!({"on_unknown": "retry", "ring_timeout_s": 6}))).collect();
    let rings = |id: &String| fleet.plane.call(id).is_ok_and(|call| call["status"] == "ringing");
    wait_until("the others to ring", Duration::from_secs(5), "", || retried.iter().all(rings)).unwrap();
    fleet.lab.pbx("pbx-1").unwrap().restart_asterisk().unwrap();
    let mut interrupted = 0;
    for call in &ringing {
        let ended = fleet.ended(&call.id);
        let expected = match attempts(&ended, "node")[..] {
            ["pbx-1"] => "failed/interrupted/unknown",
            _ => RUNG_OUT,
        };
        assert_eq!(end(&ended), expected, "{ended}\n{}", fleet.log_tail());
        interrupted += usize::from(expected != RUNG_OUT);
    }
    assert!(interrupted > 0);
    for (to, id) in again.iter().zip(&retried) {
        let ended = fleet.ended(id);
        let dialled = fleet.truth().invites(to);
        let nodes = attempts(&ended, "node");
        let expected = if nodes[0] == "pbx-1" { 2 } else { 1 };
        assert_eq!((nodes.len(), dialled), (expected, u32::try_from(expected).unwrap()), "{ended}");
    }
}

#[test]
fn a_killed_control_plane_is_linked_to_again_at_once() {
    let fleet = Fleet::up(booted());
    let ringing = under_way(&fleet, numbers::RING, 0..6, "ringing");
    let speaking = under_way(&fleet, numbers::ANSWER, 0..6, "in_progress");
    fleet.plane.signal(Signal::Kill).unwrap();
    let began = now();
    fleet.plane.start_again().unwrap();
    fleet.plane.wait_for_nodes().unwrap();
    let took = began.elapsed();
    println!("control plane killed: both nodes alive {} ms after its start", took.as_millis());
    all_end(&fleet, &ringing, RUNG_OUT);
    all_end(&fleet, &speaking, PLAYED);
    assert!(took < Duration::from_secs(5), "{took:?}");
}
