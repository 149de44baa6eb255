//! A carrier's cable is pulled while its trunks' cells are looked at.

use std::time::Duration;

use browser::WIDTHS;
use lab::{Behaviour, now, since_1970};
use serde_json::json;

use crate::scene::{Scene, drive, rules};
use crate::trunks::{until, why};

/// From the moment when the registry knew.
const RED_WITHIN_MS: i64 = 2_000;

/// Notes when the first element of this kind appears, in ms since 1970.
const WATCH: &str = "window.red = null; window.stays = true; const look = () => { \
    if (window.red === null && document.querySelector(arguments[0])) window.red = Date.now(); }; look(); \
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true});";

#[test]
fn a_carrier_that_dies_turns_its_trunks_red_without_a_reload() {
    let scene = Scene::up();
    drive(async {
        let axe = rules().await;
        let [desk, phone] = [scene.browser(WIDTHS[0]).await, scene.browser(WIDTHS[1]).await];
        desk.go(&format!("{}/", scene.base())).await;
        phone.go(&format!("{}/trunks/a-pbx-1", scene.base())).await;
        for (driver, red) in
            [(&desk, "a.cell.tripped[href='/trunks/a-pbx-1']"), (&phone, "h1 .state.tripped")]
        {
            let live = "return document.getElementById('live')?.textContent === 'live'";
            driver.until("it is live", live, json!([])).await;
            driver.script(WATCH, json!([red])).await;
            assert_eq!(
                driver.script("return window.red", json!([])).await,
                json!(null),
                "it is well at first"
            );
        }
        let killed = since_1970().as_millis();
        let began = now();
        scene.fleet.lab.carrier("a").unwrap().behave(Behaviour::Dead).unwrap();
        until(&scene.fleet, "a-pbx-1", "tripped");
        let (asked, told) = (since_1970().as_millis(), why(&scene.fleet, "a-pbx-1"));
        let changes = told["history"].as_array().unwrap();
        let trip = changes.iter().find(|change| change["to"] == "tripped").unwrap();
        let knew = i64::try_from(asked).unwrap() - trip["ago_ms"].as_i64().unwrap();
        for (name, driver) in [("the fleet's page at a desk", &desk), ("the trunk's page on a phone", &phone)]
        {
            driver.until("it is red", "return window.red !== null", json!([])).await;
            let red = driver.script("return window.red", json!([])).await.as_i64().unwrap();
            let (of_registry, of_kill) = (red - knew, red - i64::try_from(killed).unwrap());
            println!("{name}: red {of_registry} ms after the registry knew, {of_kill} ms after the kill");
            assert!(of_registry <= RED_WITHIN_MS, "{name}: {of_registry} ms");
            assert_eq!(driver.script("return window.stays", json!([])).await, true, "without a reload");
        }
        desk.picture("real-1280-carrier-dead").await;
        phone.picture("real-390-carrier-dead").await;
        let wrong = desk.script("return document.getElementById('troubles').innerText", json!([])).await;
        // Of the trunk, and of the whole carrier once its other trunk is known to be dead too.
        let told = ["trunk a-pbx-1", "carrier a"].iter().any(|what| wrong.as_str().unwrap().contains(what));
        assert!(told && wrong.as_str().unwrap().contains("does not answer OPTIONS"), "{wrong}");
        for (driver, width) in [(&desk, WIDTHS[0]), (&phone, WIDTHS[1])] {
            driver.is_well(width, &axe, "a dead carrier").await;
        }
        scene.fleet.lab.carrier("a").unwrap().behave(Behaviour::Answer).unwrap();
        // Probation is the first that follows: what calls had shown takes longer to be disproved.
        let tried =
            "return document.querySelector(\"a.cell[href='/trunks/a-pbx-1']:not(.tripped)\") !== null";
        desk.until("it is red no more", tried, json!([])).await;
        println!("and red no more {:?} after the kill", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(60));
    });
}
