//! Each behaviour of a carrier, on real Asterisk: what the carrier saw, what AMI said, what the flight
//! recorder wrote. `RINGWARD_LAB_ASTERISK=16` runs the PBXes on Asterisk 16.28.
mod ami_wire;

use ami_wire::{Block, Wire, plan, without_time};
use lab::{AmiUser, AsteriskVersion, Behaviour, Inbound, Lab, NumberSeen, Plan, TrunkLayout, numbers};
use std::collections::HashMap;
use std::time::Duration;

const QUIET: Duration = Duration::from_millis(300);

fn seen(invites: u32, rings: u32, answers: u32, finals: &[(u16, u32)]) -> NumberSeen {
    let finals = finals.iter().copied().collect();
    NumberSeen { invites, rings, reached: rings.max(answers), answers, finals, ..NumberSeen::default() }
}

/// `TechCause` exists since 20.17 and 22.7.
fn tech(plan: &Plan, code: &str) -> Option<String> {
    (plan.asterisk == AsteriskVersion::V22).then(|| code.to_owned())
}

/// The Q.850 cause of an Originate that ran into its timeout: 16.28 gives none.
fn timeout_cause(plan: &Plan) -> &'static str {
    match plan.asterisk {
        AsteriskVersion::V22 => "19",
        AsteriskVersion::V16 => "0",
    }
}

#[test]
fn every_ending_by_number_is_told_by_event_record_and_wire() {
    let plan = plan();
    let lab = Lab::up(plan.clone()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    // BBB, state at Hangup, Q.850, SIP code in the event, record, what the carrier saw
    let rows = [
        (486, "Down", "17", "486", "2|end|Down|486|17|-|-|-", seen(1, 0, 0, &[(486, 1)])),
        (603, "Down", "21", "603", "2|end|Down|603|21|-|-|-", seen(1, 0, 0, &[(603, 1)])),
        (503, "Down", "34", "503", "2|end|Down|503|34|-|-|-", seen(1, 0, 0, &[(503, 1)])),
        (500, "Down", "38", "500", "2|end|Down|500|38|-|-|-", seen(1, 0, 0, &[(500, 1)])),
        (404, "Down", "1", "404", "2|end|Down|404|1|-|-|-", seen(1, 0, 0, &[(404, 1)])),
        (403, "Down", "21", "403", "2|end|Down|403|21|-|-|-", seen(1, 0, 0, &[(403, 1)])),
        (480, "Down", "19", "480", "2|end|Down|480|19|-|-|-", seen(1, 0, 0, &[(480, 1)])),
        (185, "Ringing", "34", "503", "2|end|Ringing|503|34|-|-|-", seen(1, 1, 0, &[(503, 1)])),
        (186, "Ringing", "17", "486", "2|end|Ringing|486|17|-|-|-", seen(1, 1, 0, &[(486, 1)])),
    ];
    for (behaviour, state, cause, code, record, expected) in rows {
        let number = numbers::number(behaviour, 1);
        let ending = wire.place(pbx, "carrier-a", &number, 10_000);
        assert!(ending.channel, "{number}");
        let told = (ending.state.as_str(), ending.cause.as_str(), ending.tech_cause.clone());
        assert_eq!(told, (state, cause, tech(&plan, code)), "{number}: {ending:?}");
        assert_eq!(without_time(ending.record.as_deref()).as_deref(), Some(record), "{number}");
        assert_eq!(carrier.seen_when_quiet(QUIET).unwrap().of(&number), expected, "{number}");
    }
}

#[test]
fn an_answered_call_is_recorded_as_up_whoever_hangs_up() {
    let lab = Lab::up(plan()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    for behaviour in [numbers::ANSWER, numbers::ANSWER_AT_ONCE, numbers::ANSWER_AND_HANG_UP] {
        let number = numbers::number(behaviour, 1);
        let ending = wire.place(pbx, "carrier-a", &number, 10_000);
        assert_eq!((ending.state.as_str(), ending.reason.as_str()), ("Up", "4"), "{number}: {ending:?}");
        let record = without_time(ending.record.as_deref()).unwrap();
        assert!(record.starts_with("2|end|Up|200|"), "{number}: {record}");
        let of = carrier.seen_when_quiet(QUIET).unwrap().of(&number);
        let rings = u32::from(behaviour != numbers::ANSWER_AT_ONCE);
        assert_eq!((of.invites, of.rings, of.answers, of.byes), (1, rings, 1, 1), "{number}");
    }
}

#[test]
fn no_answer_in_time_is_cancelled_and_the_state_tells_whether_it_rang() {
    let lab = Lab::up(plan()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let cause = timeout_cause(&plan());
    for (behaviour, state, rings) in [(numbers::RING, "Ringing", 1), (numbers::TRYING, "Down", 0)] {
        let number = numbers::number(behaviour, 1);
        let ending = wire.place(pbx, "carrier-a", &number, 1_500);
        assert_eq!((ending.state.as_str(), ending.cause.as_str()), (state, cause), "{ending:?}");
        assert_eq!(
            without_time(ending.record.as_deref()),
            Some(format!("2|end|{state}|-|{cause}|-|-|-")),
            "{number}"
        );
        let of = carrier.seen_when_quiet(QUIET).unwrap().of(&number);
        assert_eq!((of.invites, of.rings, of.answers, of.cancels), (1, rings, 0, 1), "{number}");
    }
}

#[test]
fn a_silent_carrier_is_left_after_timer_b_and_still_seen() {
    let lab = Lab::up(plan()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let by_number = numbers::number(numbers::SILENT, 1);
    let start = tokio::time::Instant::now();
    let ending = wire.place(pbx, "carrier-a", &by_number, 30_000);
    let took_s = start.elapsed().as_secs_f64();
    assert!((6.0..8.0).contains(&took_s), "Timer B with T1 = 100 ms is 6.4 s, not {took_s}");
    assert_eq!((ending.state.as_str(), ending.cause.as_str()), ("Down", "18"), "{ending:?}");
    assert_eq!(without_time(ending.record.as_deref()).as_deref(), Some("2|end|Down|-|18|-|-|-"));
    carrier.behave(Behaviour::Silent).unwrap();
    let carrier_wide = numbers::number(numbers::ANSWER, 1);
    assert_eq!(wire.place(pbx, "carrier-a", &carrier_wide, 30_000).cause, "18");
    carrier.behave(Behaviour::Normal).unwrap();
    assert_eq!(wire.place(pbx, "carrier-a", &numbers::number(numbers::ANSWER, 2), 9_000).state, "Up");
    let all = carrier.seen_when_quiet(QUIET).unwrap();
    assert_eq!(all.of(&by_number), seen(1, 0, 0, &[]));
    assert_eq!(all.of(&carrier_wide), seen(1, 0, 0, &[]));
}

#[test]
fn a_deaf_carrier_rings_although_the_pbx_hears_nothing() {
    let lab = Lab::up(plan()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    carrier.behave(Behaviour::Deaf).unwrap();
    let number = numbers::number(numbers::ANSWER, 1);
    let ending = wire.place(pbx, "carrier-a", &number, 30_000);
    assert_eq!((ending.state.as_str(), ending.cause.as_str()), ("Down", "18"), "{ending:?}");
    let of = carrier.seen_when_quiet(QUIET).unwrap().of(&number);
    assert_eq!((of.invites, of.rings, of.answers), (1, 1, 0));
    let contacts = pbx.console("pjsip show contacts").unwrap();
    assert!(contacts.contains(" Avail "), "OPTIONS are still answered: {contacts}");
}

#[test]
fn a_dead_carrier_is_noticed_and_then_refused_without_an_invite() {
    let lab = Lab::up(plan()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    carrier.behave(Behaviour::Dead).unwrap();
    let gone = || pbx.console("pjsip show contacts").is_ok_and(|said| said.contains("Unavail"));
    lab::wait_until("the contact to be unreachable", Duration::from_secs(10), "", gone).unwrap();
    let number = numbers::number(numbers::ANSWER, 1);
    let ending = wire.place(pbx, "carrier-a", &number, 10_000);
    assert!(!ending.channel, "{ending:?}");
    assert_eq!((ending.reason.as_str(), ending.record), ("0", None));
    assert_eq!(carrier.seen().unwrap().of(&number), NumberSeen::default());
    carrier.behave(Behaviour::Normal).unwrap();
    let back = || pbx.console("pjsip show contacts").is_ok_and(|said| said.contains(" Avail "));
    lab::wait_until("the contact to be back", Duration::from_secs(10), "", back).unwrap();
}

#[test]
fn a_name_with_two_addresses_rings_twice_inside_asterisk() {
    let plan = Plan { srv_trunk: true, ..plan() };
    let lab = Lab::up(plan).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    carrier.behave(Behaviour::Srv).unwrap();
    let number = numbers::number(numbers::ANSWER, 1);
    wire.place(pbx, "carrier-a-srv", &number, 10_000);
    let of = carrier.seen_when_quiet(QUIET).unwrap().of(&number);
    assert_eq!((of.invites, of.rings), (2, 2), "why a contact must be one literal address: {of:?}");
}

#[test]
fn a_redirect_is_never_followed() {
    let plan = Plan { inbound: Inbound::Rings, trunks: TrunkLayout::Full, ..plan() };
    let lab = Lab::up(plan).unwrap();
    let pbx = lab.pbx("pbx-1").unwrap();
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let ending = wire.place(pbx, "carrier-a", &numbers::number(numbers::REDIRECT, 1), 10_000);
    assert_eq!(ending.state, "Down", "{ending:?}");
    for carrier in lab.carriers() {
        let total = carrier.seen_when_quiet(QUIET).unwrap().total();
        assert_eq!(total.invites, u32::from(carrier.name() == "a"), "carrier {}", carrier.name());
    }
}

/// Calls that are open: number, and the state and cause that they must end with.
type Open = HashMap<String, (String, &'static str, &'static str)>;

/// Takes a Hangup into account; true when no call is open.
fn end(open: &mut Open, wrong: &mut Vec<String>, block: &Block) -> bool {
    if block.get("Event") == Some("Hangup")
        && let Some((number, state, cause)) = block.get("Uniqueid").and_then(|id| open.remove(id))
    {
        let told = (block.get("ChannelStateDesc").unwrap_or(""), block.get("Cause").unwrap_or(""));
        if told != (state, cause) {
            wrong.push(format!("{number}: {told:?}, expected {state} {cause}"));
        }
    }
    open.is_empty()
}

/// 1,000 calls on one session, all in flight together, six endings: events, records and wire agree.
#[test]
fn a_thousand_calls_in_flight_end_as_their_carrier_saw() {
    const EACH: u16 = 167;
    const RING_TIMEOUT_MS: u32 = 15_000;
    let lab = Lab::up(plan()).unwrap();
    let (pbx, carrier) = (lab.pbx("pbx-1").unwrap(), lab.carrier("a").unwrap());
    let mut wire = Wire::login(pbx, AmiUser::Calls);
    let endings = [
        (numbers::ANSWER, "Up", "16"),
        (numbers::BUSY, "Down", "17"),
        (numbers::DECLINED, "Down", "21"),
        (numbers::UNAVAILABLE, "Down", "34"),
        (numbers::RING, "Ringing", timeout_cause(&plan())),
        (numbers::SILENT, "Down", "18"),
    ];
    let mut open = Open::new();
    let mut wrong = Vec::new();
    for call in 0..EACH {
        for (behaviour, state, cause) in endings {
            let number = numbers::number(behaviour, call);
            let attempt = wire.originate("carrier-a", &number, RING_TIMEOUT_MS);
            open.insert(attempt, (number, state, cause));
        }
        // Asterisk cuts off a client that does not read.
        wire.until(Duration::from_millis(1), |block| end(&mut open, &mut wrong, block));
    }
    let total = usize::from(EACH) * endings.len();
    wire.until(Duration::from_secs(60), |block| end(&mut open, &mut wrong, block));
    assert!(open.is_empty(), "{} of {total} never ended, e.g. {:?}", open.len(), open.values().next());
    assert!(wrong.is_empty(), "{} of {total} ended otherwise: {:?}", wrong.len(), wrong.first());
    let seen = carrier.seen_when_quiet(QUIET).unwrap();
    assert_eq!(seen.by_number.len(), total);
    for (number, of) in &seen.by_number {
        assert_eq!(of.invites, 1, "{number}");
        let answers = u32::from(number.starts_with("4822200"));
        assert_eq!((of.answers, of.byes), (answers, answers), "{number}");
        assert_eq!(of.cancels, u32::from(number.starts_with("4822180")), "{number}");
    }
}
