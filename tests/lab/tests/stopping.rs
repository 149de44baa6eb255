//! What a call leaves whose Asterisk is stopped in order, or reads another dialplan, while it speaks.
//! `RINGWARD_LAB_ASTERISK=16` runs the PBXes on Asterisk 16.28.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
mod ami_wire;

use ami_wire::{Block, Wire, plan, without_time};
use lab::{AmiUser, Lab, Pbx, Plan, numbers};
use std::time::Duration;

const TALK: &str = "RINGWARD_AUDIO=demo-congrats RINGWARD_KEYS=1 RINGWARD_ACK_TIMEOUT=5";

/// Places a call and reads until it is answered.
fn answered(wire: &mut Wire, behaviour: u16, variables: &str) -> String {
    let id = wire.originate_with("carrier-a", &numbers::number(behaviour, 1), 10_000, variables);
    let answered = |block: &Block| block.get("UserEvent") == Some("RingwardAnswered");
    assert!(wire.until(Duration::from_secs(5), answered).iter().any(answered));
    id
}

/// Cause of its Hangup.
fn cause(wire: &mut Wire, id: &str) -> String {
    let blocks = wire.until(Duration::from_secs(10), |block| block.is("Hangup", id));
    blocks
        .last()
        .filter(|block| block.is("Hangup", id))
        .and_then(|block| block.get("Cause"))
        .unwrap()
        .to_owned()
}

fn record(pbx: &Pbx, id: &str) -> String {
    without_time(pbx.flight_record(id).unwrap().as_deref()).unwrap_or_default()
}

/// An Asterisk that stops and a callee who says BYE may have the same cause: the record tells them apart.
#[test]
fn what_asterisk_ended_by_stopping_is_told_from_what_others_ended() {
    let lab = Lab::up(Plan { pbxes: 1, carriers: 1, ..plan() }).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let by_callee = answered(&mut wire, numbers::ANSWER_AND_HANG_UP, TALK);
    cause(&mut wire, &by_callee);
    let told = record(pbx, &by_callee);
    assert!(told.starts_with("2|end|Up|200|") && told.ends_with("|-|-|-"), "{told}");
    let by_time = answered(&mut wire, numbers::MUTE, &format!("{TALK} RINGWARD_TIME_LIMIT=3"));
    assert_eq!(cause(&mut wire, &by_time), "0");
    assert_eq!(record(pbx, &by_time), "2|end|Up|200|0|-|-|-");
    let by_manager = answered(&mut wire, numbers::MUTE, TALK);
    wire.send(&format!("Action: Hangup\r\nChannel: {by_manager}\r\nCause: 16\r\n\r\n"));
    assert_eq!(cause(&mut wire, &by_manager), "16");
    assert_eq!(record(pbx, &by_manager), "2|end|Up|200|16|-|-|-");
    for limit in ["", "RINGWARD_TIME_LIMIT=60"] {
        let mut wire = Wire::login(pbx, AmiUser::Calls);
        let by_itself = answered(&mut wire, numbers::MUTE, &format!("{TALK} {limit}"));
        lab::pause(Duration::from_millis(500));
        pbx.stop().unwrap();
        let blocks = wire.until(Duration::from_secs(5), |_| false);
        let hung_up = blocks.iter().find(|block| block.is("Hangup", &by_itself)).unwrap();
        assert_eq!(hung_up.get("Cause"), Some("0"), "{limit}");
        pbx.start().unwrap();
        assert_eq!(record(pbx, &by_itself), "2|end|Up|200|0|-|-|stopped", "{limit}");
    }
}

/// The present dialplan read anew disturbs nobody.
#[test]
fn the_same_dialplan_may_be_read_anew_while_calls_speak() {
    let lab = Lab::up(Plan { pbxes: 1, carriers: 1, ..plan() }).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let id = answered(&mut wire, numbers::PRESS, TALK);
    pbx.console("dialplan reload").unwrap();
    assert_eq!(cause(&mut wire, &id), "16");
    assert_eq!(record(pbx, &id), "2|end|Up|200|16|1|-|-");
}
