//! What hostile user parts do to a real Asterisk, and what the product's own AMI user is spared.
mod ami_wire;

use ami_wire::{Wire, plan};
use lab::shapes::Shape;
use lab::{AmiUser, AsteriskVersion, Inbound, Lab, Plan, Volley, numbers};
use std::time::Duration;

#[test]
fn a_register_with_line_breaks_reaches_the_security_user_only() {
    let lab = Lab::up(plan()).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    let mut calls = Wire::login(pbx, AmiUser::Calls);
    let mut security = Wire::login(pbx, AmiUser::Security);
    lab.attacker().send_hostile(&Volley::one(Shape::SecondHeader), pbx).unwrap();
    let found =
        security.until(Duration::from_secs(3), |block| block.get("Event") == Some("InvalidAccountID"));
    let event = found.last().unwrap();
    let addresses: Vec<_> = event.0.iter().filter(|(key, _)| key == "RemoteAddress").collect();
    assert_eq!(addresses.len(), 2, "Asterisk writes the stranger's header before its own: {event:?}");
    let true_one = format!("IPV4/UDP/{}/", lab.attacker().address());
    assert!(addresses[1].1.starts_with(&true_one), "the true source is in the tail: {event:?}");
    let spared = calls.until(Duration::from_millis(500), |_| false);
    assert!(spared.iter().all(|block| block.get("Event") == Some("FullyBooted")), "{spared:?}");
}

#[test]
fn an_invite_over_a_trunk_makes_no_channel_where_inbound_is_closed() {
    let lab = Lab::up(plan()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut calls = Wire::login(pbx, AmiUser::Calls);
    for shape in Shape::ALL {
        carrier.send_hostile(&Volley::one(shape).invite(), pbx).unwrap();
    }
    let blocks = calls.until(Duration::from_millis(500), |_| false);
    assert!(blocks.iter().all(|block| block.get("Event") == Some("FullyBooted")), "{blocks:?}");
}

#[test]
fn an_invite_over_a_trunk_forges_a_whole_hangup_where_inbound_is_open() {
    let lab = Lab::up(Plan { inbound: Inbound::Rings, ..plan() }).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut calls = Wire::login(pbx, AmiUser::Calls);
    let victim = calls.originate("carrier-a", &numbers::number(numbers::RING, 1), 10_000);
    calls.until(Duration::from_secs(3), |block| block.is("DialState", &victim));
    carrier.send_hostile(&Volley::one(Shape::Hangup).invite().naming(&victim), pbx).unwrap();
    let blocks = calls.until(Duration::from_secs(3), |block| block.is("Hangup", &victim));
    let forged = blocks.last().unwrap();
    assert!(forged.is("Hangup", &victim), "Asterisk let the forged event through: {blocks:?}");
    assert_eq!(forged.get("Privilege"), None, "what tells it apart is what Asterisk always writes first");
    let calls_up = pbx.console("core show channels concise").unwrap();
    assert!(calls_up.contains("carrier-a"), "and the true call still rings: {calls_up}");
    if plan().asterisk == AsteriskVersion::V22 {
        assert_eq!(forged.get("Cause"), Some("17"));
    }
}
