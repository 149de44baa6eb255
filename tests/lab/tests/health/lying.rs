//! A carrier that answers OPTIONS and drops every INVITE.

use std::time::Duration;

use lab::{Behaviour, Plan, Reach, wait_until};
use serde_json::json;

use crate::fixture::{attempts, diagonal, end};
use crate::trunks::{healthy, number, state, states_during, until, why};

#[test]
fn the_first_call_finds_out_and_options_alone_never_make_it_healthy() {
    // One trunk per PBX: a call of carrier a goes over pbx-1.
    let fleet = healthy(&Plan { reach: Reach::Agent, ..diagonal() }, |toml| toml);
    let lying = fleet.lab.carrier("a").unwrap();
    lying.behave(Behaviour::Silent).unwrap();
    // Whoever meets the silent carrier pays with Timer B, once.
    let mut met = 0;
    for n in 0..6 {
        let call = fleet.placed(&number(n, n), json!({}));
        assert_eq!(end(&call), "completed/played/answered", "{call}");
        met += usize::from(attempts(&call, "carrier").contains(&"a"));
    }
    assert_eq!(met, 1, "the first call finds out");
    let told = why(&fleet, "a-pbx-1");
    assert_eq!((&told["cause"], &told["contact"]), (&json!("carrier_silent"), &json!("reachable")), "{told}");
    let seen = states_during(&fleet, "a-pbx-1", Duration::from_secs(12));
    println!("OPTIONS but no INVITE: states without a call {seen:?}");
    assert!(!seen.iter().any(|state| state == "healthy" || state == "degraded"), "{seen:?}");
    assert_eq!(seen.last().unwrap(), "probation", "it waits there for a call: {seen:?}");
    // A call that gets through is what brings it back.
    lying.behave(Behaviour::Answer).unwrap();
    let back = wait_until("it to be healthy", Duration::from_secs(20), "", || {
        fleet.placed(&number(0, 100), json!({}));
        state(&fleet, "a-pbx-1") == "healthy"
    });
    back.unwrap();
}

#[test]
fn a_canary_finds_out_before_a_customer_does() {
    let canary = |toml: String| {
        let line = "canary = { number = \"+48399000001\", interval_s = 10, expects = \"rings\" }\n";
        toml.replace("weight = 1\n", &format!("weight = 1\n{line}"))
    };
    let fleet = healthy(&Plan { reach: Reach::Agent, ..diagonal() }, canary);
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Silent).unwrap();
    let took = until(&fleet, "a-pbx-1", "tripped");
    println!("canary: the lying carrier was found out after {took:?}");
    assert_eq!(fleet.plane.admin("GET", "/admin/v1/calls", None).unwrap()["data"], json!([]));
    let call = fleet.placed(&number(0, 0), json!({}));
    assert_eq!((end(&call), attempts(&call, "carrier")), ("completed/played/answered".into(), vec!["b"]));
    // And it is a canary that lets it back, not a customer.
    fleet.lab.carrier("a").unwrap().behave(Behaviour::Answer).unwrap();
    let through = || {
        let next = why(&fleet, "a-pbx-1");
        state(&fleet, "a-pbx-1") == "healthy"
            || next["next"]["what"].as_str().is_some_and(|w| w.starts_with("1 of"))
    };
    wait_until("a canary to get through", Duration::from_secs(30), "", through).unwrap();
    assert!(
        fleet.plane.metric("ringward_canaries_ended_total", &["trunk=\"a-pbx-1\"", "as_expected"]).unwrap()
            >= 1.0
    );
    assert!(
        fleet.plane.metric("ringward_canaries_ended_total", &["trunk=\"a-pbx-1\"", "otherwise"]).unwrap()
            >= 1.0
    );
    // Whoever paid, no canary is left on the carrier's lines.
    let quiet = || fleet.lab.carrier("a").unwrap().channels().unwrap() == 0;
    wait_until("no channel at the carrier", Duration::from_secs(10), "", quiet).unwrap();
}
