//! The console in a real Chromium: at a desk's width and at a phone's, in light and in dark, without an error of script or policy,
//! as axe-core would have it, and up to date by itself.

use std::time::Duration;

use browser::{Driver, WIDTHS, axe};
use controlplane_core::ids::OrgId;
use fake_pbx::Ending;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::fixture::{Fleet, NUMBER, eventually, talks};

/// A fleet with something to look at.
async fn fleet() -> (Fleet, String) {
    let fleet = Fleet::square().start().await;
    fleet.callee(NUMBER, talks(5));
    let call = fleet.call(NUMBER).place().await.ends().await.0["id"].as_str().unwrap().to_owned();
    let reason = json!({"reason": "the carrier asked for it"});
    fleet.operator.post("/admin/v1/trunks/beta-fra-1/disable", &reason).await.is(200);
    let ban = json!({"net": "203.0.113.8", "reason": "scanned for extensions", "seconds": 3_600});
    fleet.operator.post("/admin/v1/bans", &ban).await.is(201);
    (fleet, call)
}

#[tokio::test]
async fn every_page_is_well_at_a_desk_and_on_a_phone() {
    let (axe, (fleet, call)) = (axe().await, fleet().await);
    let base = fleet.operator.base();
    let said = json!({"title": "Calls to Poland are slow", "text": "We look into it."});
    let notice =
        fleet.operator.post("/admin/v1/notices", &said).await.is(201)["id"].as_str().unwrap().to_owned();
    let pages = [
        ("fleet", "/".to_owned()),
        ("trunk", "/trunks/acme-waw-1".to_owned()),
        ("held", "/trunks/beta-fra-1".to_owned()),
        ("node", "/nodes/waw-1".to_owned()),
        ("disable", "/trunks/acme-waw-1/disable".to_owned()),
        ("calls", "/calls".to_owned()),
        ("call", format!("/calls/{call}")),
        ("new-call", "/calls/new".to_owned()),
        ("place", "/calls/new?to=%2B48221234567".to_owned()),
        ("routes", "/routes?to=%2B48221234567".to_owned()),
        ("bans", "/bans?address=203.0.113.8".to_owned()),
        ("ban", "/bans/add?net=203.0.113.9".to_owned()),
        ("customers", "/customers".to_owned()),
        ("customer", format!("/customers/{}", OrgId::first())),
        ("incidents", "/incidents".to_owned()),
        ("notices", "/notices".to_owned()),
        ("new-notice", "/notices/new".to_owned()),
        ("say", "/notices/new?title=Calls+are+slow&text=We+know.".to_owned()),
        ("more", format!("/notices/{notice}/more")),
        ("webhooks", "/webhooks".to_owned()),
        ("audit", "/audit".to_owned()),
        ("verified", "/audit/verify".to_owned()),
        ("firewall", "/firewall".to_owned()),
        ("wall", "/firewall/waw-1".to_owned()),
        ("new-customer", "/customers/new".to_owned()),
        ("make-customer", "/customers/new?slug=acme".to_owned()),
        ("new-key", format!("/customers/{}/keys", OrgId::first())),
        ("make-key", format!("/customers/{}/keys?name=pager&mode=live&calls%3Awrite=on", OrgId::first())),
        ("destinations", format!("/customers/{}/destinations", OrgId::first())),
        ("open-country", format!("/customers/{}/destinations?place=fr&access=open", OrgId::first())),
        ("limits", format!("/customers/{}/limits", OrgId::first())),
        ("set-limits", format!("/customers/{}/limits?ask=yes&cps_max=7", OrgId::first())),
        ("suspend", format!("/customers/{}/suspend", OrgId::first())),
        ("canary", "/trunks/acme-waw-1/canary".to_owned()),
    ];
    let [desk, phone] = WIDTHS;
    for (width, scheme) in [(desk, "light"), (phone, "dark")] {
        let driver = Driver::start(width, scheme).await;
        driver.go(&format!("{base}/trunks/acme-waw-1")).await;
        driver.picture(&format!("{width}-{scheme}-sign-in")).await;
        assert_eq!(driver.barriers(&axe).await, Vec::<String>::new(), "sign-in at {width}");
        let sign_in = "document.getElementById('key').value = arguments[0]; document.querySelector('form').requestSubmit();";
        driver.script(sign_in, json!([fleet.operator.key])).await;
        eventually("it is signed in", async || {
            driver.script("return location.pathname", json!([])).await == "/trunks/acme-waw-1"
        })
        .await;
        for (name, path) in &pages {
            driver.go(&format!("{base}{path}")).await;
            driver.picture(&format!("{width}-{scheme}-{name}")).await;
            driver.is_well(width, &axe, name).await;
        }
    }
}

/// Charts are of whole minutes: the first one is waited for, as an operator does.
#[tokio::test]
async fn the_last_hour_is_drawn_once_a_minute_of_it_is_over() {
    let axe = axe().await;
    let (fleet, began) = (Fleet::of(&["waw-1"], &["acme"]).start().await, Instant::now());
    fleet.callee("+48221000000", talks(300_000));
    fleet.callee("+48221000001", Ending::Busy486);
    for number in 2..5 {
        fleet.callee(&format!("+4822100000{number}"), talks(5));
    }
    let long = fleet.call("+48221000000").place().await;
    long.becomes("in_progress").await;
    for number in 1..5 {
        fleet.call(&format!("+4822100000{number}")).place().await.ends().await;
    }
    let base = fleet.operator.base();
    let [desk, phone] = WIDTHS;
    let sign_in = "document.getElementById('key').value = arguments[0]; document.querySelector('form').requestSubmit();";
    // Of each chart what is read, what is told to who does not see it, and whether its line is on the screen.
    let drawn = "return [...document.querySelectorAll('.charts figure')].map(figure => {
            const path = figure.querySelector('path:not(.axis)'), box = path.getBBox();
            const seen = figure.querySelector('svg').getBoundingClientRect();
            return [figure.querySelector('b').textContent, figure.querySelector('svg').getAttribute('aria-label'),
                Math.round(box.x + box.width), seen.width > 100 && seen.right <= innerWidth,
                getComputedStyle(path).stroke !== 'none'];
        })";
    for (width, scheme) in [(desk, "light"), (phone, "dark")] {
        let driver = Driver::start(width, scheme).await;
        driver.go(&format!("{base}/")).await;
        driver.script(sign_in, json!([fleet.operator.key])).await;
        eventually("it is signed in", async || {
            driver.script("return !!document.getElementById('totals')", json!([])).await == true
        })
        .await;
        sleep_until(began + Duration::from_secs(55)).await;
        eventually("four charts", async || {
            driver.go(&format!("{base}/")).await;
            driver.script(drawn, json!([])).await.as_array().is_some_and(|charts| charts.len() == 4)
        })
        .await;
        let charts = driver.script(drawn, json!([])).await;
        let told = ["Calls in flight", "Calls begun per second", "Answered (ASR)", "Until it rings (PDD)"];
        for (chart, told) in charts.as_array().unwrap().iter().zip(told) {
            let words = chart[1].as_str().unwrap();
            assert!(words.starts_with(&format!("{told} in the last ")), "{chart}");
            assert_eq!(
                (&chart[2], &chart[3], &chart[4]),
                (&json!(240), &json!(true), &json!(true)),
                "{chart}"
            );
        }
        if width == desk {
            assert_eq!(charts[0][0], "1", "the long one holds a channel");
            assert_eq!(charts[2][0], "75 %", "three of the four that ended");
        }
        driver.picture(&format!("{width}-{scheme}-charts")).await;
        driver.is_well(width, &axe, "charts").await;
    }
}

/// Strangers' page: no sign-in, no script.
#[tokio::test]
async fn the_public_status_is_well_at_a_desk_and_on_a_phone() {
    let axe = axe().await;
    let fleet = Fleet::square()
        .settings(|settings| settings.status.listen = Some(([127, 0, 0, 1], 0).into()))
        .start()
        .await;
    fleet.callee(NUMBER, talks(5));
    fleet.call(NUMBER).place().await.ends().await;
    fleet.later(90);
    for (title, ends) in [("Calls to Poland are slow", false), ("A cable was cut", true)] {
        let said = json!({"title": title, "text": "We look into it.\nMore in an hour."});
        let made = fleet.operator.post("/admin/v1/notices", &said).await.is(201);
        let updates = format!("/admin/v1/notices/{}/updates", made["id"].as_str().unwrap());
        fleet.operator.post(&updates, &json!({"text": "It goes on.", "ends": ends})).await.is(200);
    }
    let base = fleet.public().base().to_owned();
    let [desk, phone] = WIDTHS;
    for (width, scheme) in [(desk, "light"), (phone, "dark")] {
        let driver = Driver::start(width, scheme).await;
        let said = "return [document.querySelectorAll('.notice').length, document.querySelectorAll('rect.whole').length]";
        eventually("everything is shown", async || {
            driver.go(&format!("{base}/")).await;
            driver.script(said, json!([])).await == json!([2, 1])
        })
        .await;
        driver.picture(&format!("{width}-{scheme}-public-status")).await;
        driver.is_well(width, &axe, "public status").await;
        driver
            .script(
                "for (const d of document.querySelectorAll('details')) d.open = true; scrollTo(0, 1e6)",
                json!([]),
            )
            .await;
        driver.picture(&format!("{width}-{scheme}-public-status-end")).await;
        driver.is_well(width, &axe, "public status, opened").await;
    }
}

#[tokio::test]
async fn a_trunk_that_dies_is_red_in_an_open_page_and_a_button_is_reached_by_keys() {
    let (fleet, _) = fleet().await;
    let base = fleet.operator.base();
    let driver = Driver::start(1280, "light").await;
    driver.go(base).await;
    let sign_in = "document.getElementById('key').value = arguments[0]; document.querySelector('form').requestSubmit();";
    driver.script(sign_in, json!([fleet.operator.key])).await;
    let light = "return document.getElementById('live')?.textContent";
    eventually("it is live", async || driver.script(light, json!([])).await == "live").await;
    driver.script("window.stays = true", json!([])).await;
    let began = Instant::now();
    fleet.pbx("waw-1").close_port();
    fleet.pbx("waw-1").cut_links();
    let cells = "return [...document.querySelectorAll('#n-waw-1 .cell.out')].length === 2 \
                 && document.getElementById('troubles').textContent.includes('node waw-1') \
                 && document.getElementById('r-r-waw-1').textContent.includes('0 of 2')";
    eventually("its trunks are out", async || driver.script(cells, json!([])).await == true).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(driver.script("return window.stays", json!([])).await, true, "without a reload");
    println!("a lost node stood in the open page after {took:?}");
    driver.picture("1280-light-fleet-after").await;
    assert_eq!(driver.complaints().await, Vec::<String>::new());
    // `/` to the search, Tab to its button, with a ring around it.
    let keys = |keys: &[&str]| {
        let press =
            |key: &&str| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        json!({"actions": [{"type": "key", "id": "k", "actions": keys.iter().flat_map(press).collect::<Vec<_>>()}]})
    };
    driver.does("actions", keys(&["/"])).await;
    assert_eq!(driver.script("return document.activeElement.id", json!([])).await, "q");
    driver.does("actions", keys(&["\u{E004}"])).await;
    let ring = "const e = document.activeElement; return [e.tagName, getComputedStyle(e).outlineWidth]";
    assert_eq!(driver.script(ring, json!([])).await, json!(["BUTTON", "3px"]));
    driver.does("actions", keys(&["g", "c"])).await;
    eventually("the calls", async || driver.script("return location.pathname", json!([])).await == "/calls")
        .await;
}
