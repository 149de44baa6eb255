//! The drill: the database is lost and put back from the last backup, as the runbook says, word by word.

use std::time::Duration;

use lab::{numbers, pause, wait_until};
use serde_json::json;

use crate::site::Site;

/// From one round to the next.
const REDIAL_S: u64 = 10;
/// The runbook's commands are in its first block.
const RUNBOOK: &str = include_str!("../../../../docs/runbooks/restore.md");

pub(crate) fn no_phone_rings_again(site: &Site) {
    let (acknowledged, waiting) =
        (numbers::number(numbers::PRESS_TONES, 2), numbers::number(numbers::BUSY, 1));
    // One call speaks while the backup is made, one waits for its next round. Both are over when the database is lost.
    let spoken = site.place(&json!({
        "to": acknowledged, "message": {"text": "The database of the shop is down. Please press one.", "language": "en", "repeat": 3},
        "acknowledgement": {"keys": {"1": "acknowledge"}, "timeout_s": 8},
    }));
    let redialled = site.place(&json!({
        "to": waiting, "message": {"audio_id": "builtin:beep"}, "redial": {"on": ["busy"], "max": 2, "delay_s": REDIAL_S},
    }));
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        wait_until(what, Duration::from_secs(20), "", is_so).unwrap_or_else(|error| {
            panic!("{error}: {} {}", site.call(&spoken), site.call(&redialled));
        });
    };
    until("the one to speak, the other to wait", &|| {
        site.call(&spoken)["status"] == "in_progress" && site.call(&redialled)["redial_at"].is_string()
    });
    let plane = site.host("plane");
    plane.shell("systemctl start ringward-backup.service").unwrap();
    assert_eq!(site.ended(&spoken)["reason"], "acknowledged");
    site.operator(&format!("call cancel {redialled}"));
    assert_eq!(site.ended(&redialled)["status"], "canceled");
    let invites = |number: &str| -> u32 {
        let seen =
            ["a", "b"].map(|name| site.carrier(name).seen_when_quiet(Duration::from_millis(300)).unwrap());
        seen.iter().map(|seen| seen.of(number).invites).sum()
    };
    let before = (invites(&acknowledged), invites(&waiting));
    assert_eq!(before, (1, 1));

    plane.shell("rm /var/lib/ringward/ringward.db*").unwrap();
    let newest = plane.shell("ls /var/backups/ringward | tail -n 1").unwrap();
    let commands = RUNBOOK.split("```").nth(1).unwrap().replace("ringward-TIME", newest.trim());
    println!("{}", plane.shell(&commands).unwrap());
    until("the control plane to be back", &|| !site.call(&redialled).is_null());
    let held: Vec<String> =
        site.list("held list").iter().map(|held| held["id"].as_str().unwrap().to_owned()).collect();
    assert!(held.contains(&redialled), "{held:?}");
    for node in ["waw-1", "fra-1"] {
        site.trunks_of(node);
    }
    pause(Duration::from_secs(REDIAL_S + 5));
    assert_eq!((invites(&acknowledged), invites(&waiting)), before, "no phone rings again");
    assert!(site.operator("status").contains("held"), "an operator is told");

    // What comes in now is dialled as ever; what is held is when an operator says so.
    site.talk(&numbers::number(numbers::PRESS_TONES, 3), "acme-waw-1", "a");
    site.operator(&format!("held release {redialled}"));
    until("the released call to be dialled", &|| invites(&waiting) == 2);
    for id in [&redialled, &spoken] {
        plane.shell(&format!("ringward-operator call cancel {id} || true")).unwrap();
        assert!(site.ended(id)["ended_at"].is_string());
    }
    assert_eq!((site.list("held list").len(), invites(&acknowledged)), (0, 1));
}
