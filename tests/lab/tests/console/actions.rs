//! Every action, by clicks, as somebody does it who has nothing but a browser; and what became of it, as the API tells.

use std::time::Duration;

use browser::{Driver, WIDTHS};
use lab::{numbers, wait_until};
use serde_json::{Value, json};

use crate::scene::{Scene, drive, rules};

/// Somebody at the console.
struct Hands<'s> {
    scene: &'s Scene,
    driver: Driver,
    width: u32,
    axe: String,
}

impl Hands<'_> {
    async fn at(&self, path: &str) {
        self.driver.go(&format!("{}{path}", self.scene.base())).await;
    }

    async fn text(&self) -> String {
        let text = self.driver.script("return document.body.innerText", json!([])).await;
        text.as_str().unwrap().to_owned()
    }

    /// From a page by its button to the question, which is looked at, and on; where it leads.
    async fn does(&self, from: &str, button: &str, name: &str) -> String {
        self.at(from).await;
        self.driver.click(button).await;
        self.confirms(name).await
    }

    /// The question is well, and is answered.
    async fn confirms(&self, name: &str) -> String {
        self.driver.picture(&format!("real-{}-ask-{name}", self.width)).await;
        self.driver.is_well(self.width, &self.axe, name).await;
        self.driver.submit("main form[method=post]").await;
        let complaints = self.driver.complaints().await;
        assert_eq!(complaints, Vec::<String>::new(), "{name} at {}", self.width);
        self.driver.path().await
    }

    /// Waits until the operators' API says so.
    fn until(&self, what: &str, path: &str, holds: impl Fn(&Value) -> bool) {
        let holds = || self.scene.fleet.plane.admin("GET", path, None).is_ok_and(|told| holds(&told));
        wait_until(what, Duration::from_secs(20), "", holds).unwrap();
    }

    async fn holds(&self) {
        for (path, verb, back) in
            [("/trunks/b-pbx-2", "disable", "enable"), ("/nodes/pbx-2", "drain", "undrain")]
        {
            let hold = |is_held: bool| move |why: &Value| why["hold"].is_null() != is_held;
            let why = format!("/admin/v1{path}/why");
            assert_eq!(self.does(path, &format!("a[href$='/{verb}']"), verb).await, path);
            self.until(verb, &why, hold(true));
            assert_eq!(self.does(path, &format!("a[href$='/{back}']"), back).await, path);
            self.until(back, &why, hold(false));
        }
    }

    async fn canary(&self) {
        // One at each width, over a trunk of its own: the next on the same would come too soon.
        let trunk = if self.width < 500 { "a-pbx-2" } else { "b-pbx-1" };
        let path = format!("/trunks/{trunk}");
        assert_eq!(self.does(&path, "a[href$='/canary']", "canary").await, path);
        let why = format!("/admin/v1{path}/why");
        self.until("the canary's end", &why, |why| why["last_canary"]["ended"]["as_expected"] == true);
        self.at(&path).await;
        assert!(self.text().await.contains("as expected"), "{}", self.text().await);
    }

    async fn calls(&self) {
        let to = numbers::number(numbers::RING, u16::try_from(self.width).unwrap());
        self.at("/calls").await;
        self.driver.click("a[href='/calls/new']").await;
        self.driver.fill("to", &to).await;
        self.driver.submit("main form").await;
        let place = self.confirms("place-call").await;
        assert!(place.starts_with("/calls/call_"), "{place}");
        let id = place.trim_start_matches("/calls/");
        let path = format!("/admin/v1/calls/{id}");
        self.until("the phone to ring", &path, |call| call["attempts"][0]["ringing_at"].is_string());
        assert_eq!(self.does(&place, "a[href$='/cancel']", "cancel").await, place);
        self.until("the call's end", &path, |call| call["ended_at"].is_string());
        // Found again by its number.
        self.at("/calls").await;
        self.driver.fill("q", &to).await;
        self.driver.submit("form[role=search]").await;
        assert!(self.text().await.contains(id));
    }

    async fn bans(&self) {
        let net = format!("203.0.113.{}", self.width % 100 + 20);
        for (word, button) in [("ban", "button.danger"), ("allow", "button[formaction]")] {
            let list = format!("/admin/v1/{word}s");
            let has = |told: &Value| {
                told["data"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|row| row["net"].as_str().unwrap().starts_with(&net))
            };
            self.at("/bans").await;
            self.driver.fill("net", &net).await;
            self.driver.click(&format!("form[action='/bans/add'] {button}")).await;
            assert_eq!(self.confirms(word).await, "/bans");
            self.until(word, &list, has);
            let remove = format!("a[href^='/{word}s/remove?net={net}']");
            assert_eq!(self.does("/bans", &remove, &format!("remove-{word}")).await, "/bans");
            self.until("it to be gone", &list, |told| !has(told));
        }
    }

    async fn customers(&self) {
        let slug = format!("acme-{}", self.width);
        self.at("/customers").await;
        self.driver.click("a[href='/customers/new']").await;
        self.driver.fill("slug", &slug).await;
        self.driver.submit("main form").await;
        let place = self.confirms("make-customer").await;
        assert!(place.starts_with("/customers/org_"), "{place}");
        let org = place.trim_start_matches("/customers/");
        // Limits.
        self.at(&place).await;
        self.driver.click("a[href$='/limits']").await;
        self.driver.fill("calls_per_day", "1000").await;
        self.driver.submit("main form").await;
        assert_eq!(self.confirms("set-limits").await, place);
        assert_eq!(self.scene.api(&format!("/admin/v1/orgs/{org}/limits"))["calls_per_day"], 1_000);
        // A key: made, rotated, revoked.
        self.driver.click("a[href$='/keys']").await;
        self.driver.fill("name", "pager").await;
        self.driver.submit("main form").await;
        let at = self.confirms("make-key").await;
        assert!(!at.contains("rw_"), "no secret in an address: {at}");
        let secret = "return document.querySelector('.secret').textContent";
        let secret = self.driver.script(secret, json!([])).await.as_str().unwrap().to_owned();
        assert!(secret.starts_with("rw_"), "{secret}");
        self.driver.is_well(self.width, &self.axe, "key-made").await;
        let keys =
            || self.scene.api(&format!("/admin/v1/keys?org={org}"))["data"].as_array().unwrap().clone();
        assert_eq!(keys().len(), 1);
        let key = keys()[0]["id"].as_str().unwrap().to_owned();
        self.does(&place, &format!("a[href='/keys/{key}/rotate']"), "rotate").await;
        assert_eq!(keys().len(), 2);
        assert_eq!(self.does(&place, &format!("a[href='/keys/{key}/revoke']"), "revoke").await, place);
        assert!(!keys().iter().find(|row| row["id"] == key.as_str()).unwrap()["revoked_at"].is_null());
        // Suspended, and resumed.
        for (verb, is_held) in [("suspend", true), ("resume", false)] {
            assert_eq!(self.does(&place, &format!("a[href$='/{verb}']"), verb).await, place);
            assert_eq!(self.scene.api(&format!("/admin/v1/orgs/{org}"))["suspended_at"].is_string(), is_held);
        }
    }

    async fn webhooks(&self) {
        assert_eq!(self.does("/webhooks", "a[href*='/replay?']", "replay").await, "/webhooks");
    }

    /// Everything is in the audit log, by this key, and nothing was refused.
    fn audited(&self) {
        for action in [
            "session.create",
            "trunk.disable",
            "trunk.enable",
            "node.drain",
            "node.undrain",
            "trunk.canary",
            "call.create",
            "call.cancel",
            "ban.add",
            "ban.remove",
            "allow.add",
            "allow.remove",
            "org.create",
            "limits.set",
            "key.create",
            "key.rotate",
            "key.revoke",
            "org.suspend",
            "org.resume",
            "webhook_delivery.replay",
        ] {
            self.until(action, &format!("/admin/v1/audit?action={action}&outcome=success"), |told| {
                told["data"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|row| row["user_agent"].as_str().is_some_and(|who| who.contains("Chrome")))
            });
        }
    }
}

#[test]
fn every_action_is_done_by_clicks_at_a_desk_and_on_a_phone() {
    let scene = Scene::up();
    drive(async {
        let axe = rules().await;
        for width in WIDTHS {
            let hands = Hands { scene: &scene, driver: scene.browser(width).await, width, axe: axe.clone() };
            hands.holds().await;
            hands.canary().await;
            hands.calls().await;
            hands.bans().await;
            hands.customers().await;
            hands.webhooks().await;
            hands.audited();
            hands.at("/").await;
            hands.driver.submit("form[action='/sign-out']").await;
            assert!(hands.driver.path().await.starts_with("/sign-in"));
        }
    });
}
