//! A carrier whose cable is pulled, and one that is out of lines half of the time.

use std::time::Duration;

use lab::{Behaviour, now, pause};

use crate::fixture::full;
use crate::trunks::{all_answered_once, calls_while, healthy, healthy_fleet, state, until, why};

/// OPTIONS are sent every 2 s; the agent's way and ours take at most 1.5 s more.
const KNOWN_WITHIN: Duration = Duration::from_millis(3_500);

#[test]
fn a_dead_carrier_is_routed_around_in_time_and_is_back_by_itself() {
    let fleet = healthy_fleet();
    let carrier = fleet.lab.carrier("a").unwrap();
    let mut known = Duration::ZERO;
    let mut back = Duration::ZERO;
    let calls = calls_while(&fleet, || {
        pause(Duration::from_secs(1));
        let cut = now();
        carrier.behave(Behaviour::Dead).unwrap();
        until(&fleet, "a-pbx-1", "tripped");
        until(&fleet, "a-pbx-2", "tripped");
        known = cut.elapsed();
        let why = why(&fleet, "a-pbx-1");
        assert_eq!((&why["contact"], &why["standing"]), (&"unreachable".into(), &"tripped".into()), "{why}");
        pause(Duration::from_secs(1));
        let mended = now();
        carrier.behave(Behaviour::Answer).unwrap();
        until(&fleet, "a-pbx-1", "healthy");
        until(&fleet, "a-pbx-2", "healthy");
        back = mended.elapsed();
    });
    println!("cable pulled: both trunks tripped after {known:?}; mended: healthy after {back:?}");
    assert!(known <= KNOWN_WITHIN, "{known:?}");
    assert!(back <= Duration::from_secs(20), "{back:?}");
    all_answered_once(&fleet, &calls);
    assert!(calls.len() > 20);
    // The figures by their trade names: 180 comes at once here, and the message is a beep.
    let mean = |name: &str, trunk: &str| {
        let of = |end: &str| fleet.plane.metric(&format!("ringward_trunk_{name}_{end}"), &[trunk]).unwrap();
        assert!(of("count") > 0.5, "{name}");
        of("sum") / of("count")
    };
    let b = "trunk=\"b-pbx-1\"";
    let (rtt, pdd, acd) = (mean("qualify_rtt_seconds", b), mean("pdd_seconds", b), mean("talk_seconds", b));
    let asr = fleet.plane.metric("ringward_trunk_asr_ratio", &[b]).unwrap();
    println!("qualify {rtt:.4} s, PDD {pdd:.3} s, ACD {acd:.2} s, ASR {asr:.2}");
    assert!(rtt < 0.5 && pdd < 0.5 && (0.2..6.0).contains(&acd) && asr > 0.99);
}

#[test]
fn a_carrier_out_of_lines_half_of_the_time_costs_no_call() {
    let fleet = healthy_fleet();
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Half).unwrap();
    let calls = calls_while(&fleet, || pause(Duration::from_secs(10)));
    all_answered_once(&fleet, &calls);
    println!(
        "503 to half: {} calls, a-pbx-1 {}, a-pbx-2 {}",
        calls.len(),
        state(&fleet, "a-pbx-1"),
        state(&fleet, "a-pbx-2")
    );
    let by_a =
        calls.iter().flat_map(|call| call["attempts"].as_array().unwrap()).filter(|a| a["carrier"] == "a");
    assert!(by_a.count() >= 4, "it was not given up at its first 503");
}

/// Without an agent the control plane asks for itself, every 2 s.
#[test]
fn a_node_without_an_agent_tells_of_dead_carriers_too() {
    let fleet = healthy(&full(), |toml| toml);
    let carrier = fleet.lab.carrier("a").unwrap();
    let cut = now();
    carrier.behave(Behaviour::Dead).unwrap();
    until(&fleet, "a-pbx-1", "tripped");
    until(&fleet, "a-pbx-2", "tripped");
    let known = cut.elapsed();
    println!("without agents: both trunks tripped after {known:?}");
    assert!(known <= Duration::from_secs(6), "{known:?}");
    let told = why(&fleet, "a-pbx-1");
    assert_eq!(told["cause"], "contact_unreachable", "{told}");
}
