//! What a carrier refuses to one customer: his destinations, and 503 for them.

use lab::{Behaviour, numbers};
use serde_json::json;

use crate::fixture::end;
use crate::trunks::{healthy_fleet, trunk, why};

#[test]
fn barred_numbers_are_spared_and_take_no_trunk_from_anybody() {
    let fleet = healthy_fleet();
    for carrier in fleet.lab.carriers() {
        carrier.behave(Behaviour::Normal).unwrap();
    }
    // Both carriers say 403 to +48 22 403… and 503 to +48 22 503…, and answer all others.
    for n in 0..6 {
        for code in [403, 503] {
            let call = fleet.placed(&numbers::number(code, n), json!({"failover": {"attempts_max": 4}}));
            assert!(end(&call).starts_with("failed/"), "{call}");
        }
        let call = fleet.placed(&numbers::number(201, n), json!({}));
        assert_eq!(end(&call), "completed/played/answered", "{call}");
    }
    let mut spared = Vec::new();
    for name in ["a-pbx-1", "b-pbx-1", "a-pbx-2", "b-pbx-2"] {
        let shown = trunk(&fleet, name);
        assert!(shown["state"] != "tripped" && shown["usable"] == true, "{shown}");
        let why = why(&fleet, name);
        let scopes = why["suspensions"].as_array().unwrap().iter().map(|s| s["scope"]["destination"].clone());
        spared.extend(scopes.map(|scope| scope.as_str().unwrap().to_owned()));
    }
    println!("barred numbers: spared {spared:?}");
    assert!(spared.contains(&"+48224".to_owned()), "{spared:?}");
    let out = fleet.plane.command_line(&["trunk", "why", "a-pbx-1"]).unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    println!("{text}");
    assert!(text.contains("spared for"), "{text}");
}
