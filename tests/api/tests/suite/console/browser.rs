//! The console in a real Chromium, by WebDriver: at a desk's width and at a phone's, in light and in dark, without an error of
//! script or policy, as axe-core would have it, and up to date by itself.
//!
//! Debian: chromium, chromium-driver, npm (for axe-core, which is fetched once into the folder for temporary files). Pictures go where
//! `RINGWARD_SCREENSHOTS` says.

use std::{path::PathBuf, process::Stdio, time::Duration};

use controlplane_core::ids::OrgId;
use data_encoding::BASE64;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::Instant,
};

use crate::fixture::{Fleet, NUMBER, eventually, talks};

/// A browser that is driven.
struct Driver {
    /// Ends with this.
    _process: Child,
    client: Client,
    session: String,
}

impl Driver {
    async fn start(width: u32, scheme: &str) -> Self {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is installed");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().expect("it says its port");
            if let Some(port) = line.split("successfully on port ").nth(1) {
                break port.trim_end_matches('.').parse::<u16>().unwrap();
            }
        };
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        let dark = if scheme == "dark" { "--force-dark-mode" } else { "--force-light-mode" };
        let mut options = json!({"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1400", dark]});
        if width < 500 {
            options["mobileEmulation"] =
                json!({"deviceMetrics": {"width": width, "height": 1400, "pixelRatio": 1.0}});
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let made: Value = client.post(&base).json(&wanted).send().await.unwrap().json().await.unwrap();
        let id = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{made}"));
        let driver = Self { _process: process, session: format!("{base}/{id}"), client };
        let features = json!({"cmd": "Emulation.setEmulatedMedia", "params": {
            "features": [{"name": "prefers-color-scheme", "value": scheme}],
        }});
        driver.does("goog/cdp/execute", features).await;
        driver
    }

    async fn does(&self, command: &str, body: Value) -> Value {
        let answer =
            self.client.post(format!("{}/{command}", self.session)).json(&body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert!(answer["value"]["error"].is_null(), "{command}: {answer}");
        answer["value"].clone()
    }

    async fn go(&self, address: &str) {
        self.does("url", json!({"url": address})).await;
    }

    async fn script(&self, script: &str, args: Value) -> Value {
        self.does("execute/sync", json!({"script": script, "args": args})).await
    }

    /// What the page complained of since it was last asked: scripts, policies, answers that failed.
    async fn complaints(&self) -> Vec<String> {
        let told = self.does("se/log", json!({"type": "browser"})).await;
        let bad = |entry: &&Value| ["SEVERE", "WARNING"].contains(&entry["level"].as_str().unwrap());
        told.as_array().unwrap().iter().filter(bad).map(|entry| entry["message"].to_string()).collect()
    }

    async fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("RINGWARD_SCREENSHOTS").map(PathBuf::from) else { return };
        let taken = self.client.get(format!("{}/screenshot", self.session)).send().await.unwrap();
        let taken: Value = taken.json().await.unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        let png = BASE64.decode(taken["value"].as_str().unwrap().as_bytes()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
    }

    /// What axe-core finds against WCAG 2 A and AA.
    async fn barriers(&self, axe: &str) -> Vec<String> {
        self.script(axe, json!([])).await;
        let run = "const done = arguments[0]; axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa']})\
                   .then(found => done(found.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' | '))));";
        let found = self.does("execute/async", json!({"script": run, "args": []})).await;
        found.as_array().unwrap().iter().map(Value::to_string).collect()
    }
}

impl Drop for Driver {
    /// The browser would outlive its driver, also where a test fails.
    fn drop(&mut self) {
        let session = self.session.clone();
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
            runtime.block_on(async { client.delete(session).send().await.is_ok() })
        });
        // A browser that stays behind is no reason to fail a test.
        let _ = ending.join();
    }
}

/// axe-core's script, from the npm registry by npm.
async fn axe() -> String {
    let folder = std::env::temp_dir().join("ringward-axe-core-4.10.3");
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if !script.exists() {
        let fetching = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
            .arg(&folder)
            .arg("axe-core@4.10.3")
            .status();
        assert!(fetching.await.expect("npm is installed").success());
    }
    std::fs::read_to_string(script).unwrap()
}

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
        ("webhooks", "/webhooks".to_owned()),
        ("audit", "/audit".to_owned()),
    ];
    for (width, scheme) in [(1280, "light"), (390, "dark")] {
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
            let wide = driver.script("return document.documentElement.scrollWidth", json!([])).await;
            assert!(wide.as_u64().unwrap() <= u64::from(width), "{name} is {wide} wide at {width}");
            assert_eq!(driver.barriers(&axe).await, Vec::<String>::new(), "{name} at {width}");
            assert_eq!(driver.complaints().await, Vec::<String>::new(), "{name} at {width}");
        }
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
