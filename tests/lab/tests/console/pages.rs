//! Every page, as it is with a real fleet behind it.

use browser::{Driver, WIDTHS};
use controlplane_core::ids::OrgId;

use crate::scene::{Scene, drive, rules};

/// Every page that is to be looked at, under its name.
fn pages(scene: &Scene) -> Vec<(&'static str, String)> {
    let org = OrgId::first();
    vec![
        ("fleet", "/".to_owned()),
        ("trunk", "/trunks/a-pbx-1".to_owned()),
        ("canary", "/trunks/a-pbx-1/canary".to_owned()),
        ("disable", "/trunks/a-pbx-1/disable".to_owned()),
        ("node", "/nodes/pbx-1".to_owned()),
        ("drain", "/nodes/pbx-1/drain".to_owned()),
        ("calls", "/calls".to_owned()),
        ("calls-found", "/calls?q=incident%3D991".to_owned()),
        ("call", format!("/calls/{}", scene.call)),
        ("new-call", "/calls/new".to_owned()),
        ("place-call", "/calls/new?to=%2B48222020077".to_owned()),
        ("incidents", "/incidents".to_owned()),
        ("incident", format!("/incidents/{}", scene.incident)),
        ("take-note", format!("/incidents/{}/acknowledge", scene.incident)),
        ("notices", "/notices".to_owned()),
        ("routes", "/routes?to=%2B48222020077".to_owned()),
        ("bans", "/bans?address=203.0.113.8".to_owned()),
        ("ban", "/bans/add?net=203.0.113.9".to_owned()),
        ("firewall", "/firewall".to_owned()),
        ("firewall-of-node", "/firewall/pbx-1".to_owned()),
        ("customers", "/customers".to_owned()),
        ("customer", format!("/customers/{org}")),
        ("limits", format!("/customers/{org}/limits")),
        ("new-key", format!("/customers/{org}/keys")),
        ("webhooks", "/webhooks".to_owned()),
        ("audit", "/audit".to_owned()),
        ("audit-verified", "/audit/verify".to_owned()),
    ]
}

async fn look(scene: &Scene, driver: &Driver, width: u32, axe: &str) {
    for (name, path) in pages(scene) {
        driver.go(&format!("{}{path}", scene.base())).await;
        driver.picture(&format!("real-{width}-{name}")).await;
        driver.is_well(width, axe, name).await;
    }
}

#[test]
fn every_page_is_well_with_a_real_fleet_behind_it() {
    let scene = Scene::up();
    drive(async {
        let axe = rules().await;
        for width in WIDTHS {
            let driver = scene.browser(width).await;
            look(&scene, &driver, width, &axe).await;
            // What a real fleet tells: its firewall, its carrier's answer, its calls.
            let text = async |path: &str| {
                driver.go(&format!("{}{path}", scene.base())).await;
                let text = driver.script("return document.body.innerText", serde_json::json!([])).await;
                text.as_str().unwrap().to_owned()
            };
            let wall = text("/firewall/pbx-1").await;
            assert!(
                wall.contains("in_force") && wall.contains("ssh, tcp 22: from management (1 network) alone"),
                "{wall}"
            );
            assert!(wall.contains("Somebody came in") && wall.contains("a (2), b (2)"), "{wall}");
            let call = text(&format!("/calls/{}", scene.call)).await;
            assert!(call.contains("incident") && call.contains("played"), "{call}");
            assert!(text("/audit/verify").await.contains("The audit log is whole"));
            assert_eq!(driver.complaints().await, Vec::<String>::new());
        }
    });
}
