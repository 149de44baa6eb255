//! What a call leaves whose Asterisk stops, or reads its dialplan anew, while it speaks.
//! `RINGWARD_LAB_ASTERISK=16` runs the PBXes on Asterisk 16.28.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod ami_wire;

use ami_wire::{Block, Wire, plan};
use lab::{AmiUser, Lab, Plan, Signal, numbers};
use std::time::Duration;

#[test]
fn measure() {
    let lab = Lab::up(Plan { pbxes: 1, carriers: 1, ..plan() }).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    for how in ["core stop now", "core stop gracefully", "TERM", "core restart now", "callee"] {
        let mut wire = Wire::login(pbx, AmiUser::Calls);
        let number = if how == "callee" { numbers::ANSWER_AND_HANG_UP } else { numbers::MUTE };
        let talk =
            "RINGWARD_AUDIO=demo-congrats RINGWARD_KEYS=1 RINGWARD_ACK_TIMEOUT=5 RINGWARD_TIME_LIMIT=30";
        let id = wire.originate_with("carrier-a", &numbers::number(number, 1), 10_000, talk);
        wire.until(Duration::from_secs(5), |block| block.get("UserEvent") == Some("RingwardAnswered"));
        lab::pause(Duration::from_millis(700));
        let at = lab::since_1970();
        match how {
            "TERM" => pbx.kill_asterisk(Signal::Term).unwrap(),
            "callee" => {}
            line => {
                let _ = pbx.console(line);
            }
        }
        let mut seen = Vec::new();
        wire.until(Duration::from_secs(4), |block: &Block| {
            seen.push((lab::since_1970() - at, block.clone()));
            false
        });
        println!("=== {how} ===");
        for (after, block) in seen {
            println!("{after:?} {:?}", block.0);
        }
        if how != "core restart now" && how != "callee" {
            lab::pause(Duration::from_secs(1));
            println!("start {:?}", pbx.start().map_err(|e| e.to_string()));
        }
        println!("record {:?}", pbx.flight_record(&id));
        lab::pause(Duration::from_secs(2));
    }
}
