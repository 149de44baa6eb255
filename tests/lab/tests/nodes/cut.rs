//! The link is cut without a word to either side, while the node and its carriers go on.

use std::collections::BTreeMap;
use std::time::Duration;

use lab::{now, numbers, pause, wait_until};
use serde_json::json;

use crate::fixture::{Fleet, end};
use crate::node::{agent, booted, findings, link_words, state, until_state};
use crate::traffic::{Placed, tally, under_way, while_calls_come};

/// A session on which nothing comes is given up after 7 s; until then calls may be sent into it.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn ten_seconds() {
    cut_for(Duration::from_secs(10));
}

/// `cargo lab soak link-cut`.
#[test]
#[ignore = "takes 11 minutes"]
fn ten_minutes() {
    cut_for(Duration::from_secs(600));
}

fn cut_for(length: Duration) {
    let fleet = Fleet::up(booted());
    let (pbx, agent) = (fleet.lab.pbx("pbx-1").unwrap(), agent(&fleet, "pbx-1"));
    let mut careful = under_way(&fleet, numbers::RING, 0..4, "ringing");
    careful.extend(under_way(&fleet, numbers::ANSWER, 0..4, "in_progress"));
    let mut urgent = Vec::new();
    let ((noticed, back), fresh) = while_calls_come(&fleet, || {
        let cut = now();
        pbx.set_link(false).unwrap();
        // These are sent into the cut, half of them by pbx-1, and must be rung at any price.
        for n in 100..106 {
            let to = numbers::number(numbers::ANSWER, n);
            let id = fleet.place(&to, json!({"on_unknown": "retry"}));
            urgent.push(Placed { to, id });
        }
        // Something to tell comes up on the node meanwhile.
        pbx.shell("printf '[stray]\\ntype = endpoint\\ncontext = default\\n' >> /etc/asterisk/pjsip.conf")
            .unwrap();
        pbx.console("module reload res_pjsip.so").unwrap();
        until_state(&fleet, "pbx-1", "lost", NOTICED_WITHIN);
        let noticed = cut.elapsed();
        pause(length.saturating_sub(cut.elapsed()));
        assert_eq!(state(&fleet, "pbx-1"), "lost");
        assert!(link_words(&agent).contains("down"), "{}", link_words(&agent));
        assert!(findings(&fleet, "pbx-1", "endpoint_undeclared").is_empty(), "told through a cut");
        let mended = now();
        pbx.set_link(true).unwrap();
        until_state(&fleet, "pbx-1", "alive", Duration::from_secs(40));
        let back = mended.elapsed();
        pause(Duration::from_secs(1));
        (noticed, back)
    });
    for call in &urgent {
        let ended = fleet.ended(&call.id);
        assert_eq!(end(&ended), "completed/played/answered", "{ended}");
    }
    let told = tally(&fleet, &fresh);
    println!(
        "link cut for {} s: noticed after {} ms, back after {} ms; of {} calls placed meanwhile {told:?}",
        length.as_secs(),
        noticed.as_millis(),
        back.as_millis(),
        fresh.len()
    );
    let truth = fleet.truth();
    let mut ends = BTreeMap::new();
    for call in &careful {
        let ended = fleet.ended(&call.id);
        assert_eq!(truth.invites(&call.to), 1, "{ended}");
        *ends.entry(end(&ended)).or_insert(0) += 1;
    }
    println!("under way when it was cut: {ends:?}");
    // Interrupted: it rang, and how it went on nobody can tell in time.
    let told_so =
        ["no_answer/ring_timeout/not_reached", "completed/played/answered", "failed/interrupted/unknown"];
    assert!(ends.keys().all(|end| told_so.contains(&end.as_str())), "{ends:?}");
    let spool = || agent.status().is_ok_and(|status| status["observations"]["spool"]["facts"] == 0);
    wait_until("the spool to be empty", Duration::from_secs(10), "", spool)
        .unwrap_or_else(|error| panic!("{error}: {:?}", agent.status()));
    let stray = findings(&fleet, "pbx-1", "endpoint_undeclared");
    assert_eq!(stray.iter().filter(|body| body["subject"] == "stray").count(), 1, "{stray:?}");
    let at_stake = usize::try_from(NOTICED_WITHIN.as_millis() / 200).unwrap() / 2;
    assert!(
        told.unknown <= at_stake && told.interrupted == 0,
        "only calls of before it was noticed may be unknown: {told:?}"
    );
    assert!(back < Duration::from_secs(20), "{back:?}");
    // What was given up is silent: no channel of ours is left.
    let quiet = || pbx.console("core show channels count").unwrap().starts_with("0 active channels");
    wait_until("pbx-1 to be quiet", Duration::from_secs(15), "", quiet)
        .unwrap_or_else(|error| panic!("{error}: {}", pbx.console("core show channels").unwrap()));
}
