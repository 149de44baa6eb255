//! Every event in every state.

use super::*;

/// The states as they come about; two ways to trip, since they are left in different ways.
const STATES: [&str; 8] = [
    "unknown",
    "healthy",
    "degraded",
    "tripped by contact",
    "tripped by silence",
    "probation of contact",
    "probation of silence",
    "disabled",
];

fn brought_to(state: &str) -> Played {
    let mut p = Played::new();
    match state {
        "unknown" => {}
        "healthy" => {
            p.feed(&Event::Reachable(None));
        }
        "degraded" => {
            for ms in [500, 501, 502] {
                p.feed(&Event::Reachable(Some(Duration::from_millis(ms))));
            }
        }
        "tripped by contact" => {
            p.feed(&Event::Unreachable);
        }
        "tripped by silence" => {
            p.ends(1, 1, EndingClass::CarrierSilent);
        }
        "probation of contact" => {
            p.feed(&Event::Unreachable);
            p.feed(&Event::Reachable(None));
            p.wait_s(7);
        }
        "probation of silence" => {
            p.ends(1, 1, EndingClass::CarrierSilent);
            p.wait_s(7);
        }
        "disabled" => {
            p.feed(&Event::Disable);
        }
        other => panic!("{other}"),
    }
    p
}

const EVENTS: [&str; 18] = [
    "reachable",
    "unreachable",
    "registered",
    "registration lost",
    "registration rejected",
    "rang",
    "answered",
    "busy",
    "one 503",
    "silent",
    "no channel",
    "401",
    "node's fault",
    "canary ok",
    "canary failed",
    "disable",
    "enable",
    "due",
];

fn happens(p: &mut Played, event: &str) {
    let ended = |p: &Played, class| Event::Ended(p.call(org(2), 2, class));
    let event = match event {
        "reachable" => Event::Reachable(None),
        "unreachable" => Event::Unreachable,
        "registered" => Event::Registered,
        "registration lost" => Event::RegistrationLost,
        "registration rejected" => Event::RegistrationRejected,
        "rang" => Event::Rang { destination: to(2), began: p.now },
        "answered" => ended(p, EndingClass::Answered),
        "busy" => ended(p, EndingClass::UserBusy),
        "one 503" => ended(p, EndingClass::Congestion),
        "silent" => ended(p, EndingClass::CarrierSilent),
        "no channel" => ended(p, EndingClass::ContactDown),
        "401" => ended(p, EndingClass::Unauthorized),
        "node's fault" => ended(p, EndingClass::NodeFault),
        "canary ok" => Event::Canary(p.call(Party::Canary, 9, EndingClass::UserBusy), Met::AsExpected),
        "canary failed" => Event::Canary(p.call(Party::Canary, 9, EndingClass::Congestion), Met::Otherwise),
        "disable" => Event::Disable,
        "enable" => Event::Enable,
        "due" => {
            p.now = p.trunk.next_deadline().unwrap_or(p.now);
            p.due();
            return;
        }
        other => panic!("{other}"),
    };
    p.feed(&event);
}

#[test]
fn the_whole_table() {
    // U unknown, H healthy, G degraded, T tripped, P probation, D disabled
    let table = [
        //                        U R r a R o a 5 s n 4 N c C d e d
        ("unknown", "H T H T T H H H U T T T U H U D U U"),
        ("healthy", "H T H T T H H H H T T T H H H D H H"),
        ("degraded", "G T G T T G G G G T T T G G G D G G"),
        ("tripped by contact", "T T T T T P P P T T T T T P T D T T"),
        ("tripped by silence", "T T T T T P P P T T T T T P T D T P"),
        ("probation of contact", "P T P T T P P P T T T T P P T D P H"),
        ("probation of silence", "P T P T T P P P T T T T P P T D P P"),
        ("disabled", "D D D D D D D D D D D D D D D D U D"),
    ];
    assert_eq!(table.map(|row| row.0), STATES);
    for (state, row) in table {
        for (event, expected) in EVENTS.iter().zip(row.split(' ')) {
            let mut p = brought_to(state);
            let before = p.trunk.state();
            p.now += Duration::from_millis(10);
            happens(&mut p, event);
            let letter = match p.trunk.state() {
                TrunkState::Unknown => "U",
                TrunkState::Healthy => "H",
                TrunkState::Degraded => "G",
                TrunkState::Tripped => "T",
                TrunkState::Probation => "P",
                TrunkState::Disabled => "D",
            };
            assert_eq!(letter, expected, "{state}: {event}");
            if before != p.trunk.state() {
                let why = p.trunk.why(p.now);
                assert_eq!((why.history[0].from, why.history[0].to), (before, p.trunk.state()));
                assert!(!why.history[0].sentence.is_empty() && why.for_ms == 0);
            }
        }
    }
}
