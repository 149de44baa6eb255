//! A real Chromium at a web page, by WebDriver: goes, clicks, takes pictures, and tells what the page complained of.
//!
//! Debian: chromium, chromium-driver, npm (for axe-core, which is fetched once into the folder for temporary files). Pictures go
//! into `target/console-shots`, or where `RINGWARD_SCREENSHOTS` says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "of tests alone: what does not work fails them"
)]

use std::{path::PathBuf, process::Stdio, time::Duration};

use data_encoding::BASE64;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};

/// How wide a desk's screen is, and a phone's.
pub const WIDTHS: [u32; 2] = [1280, 390];
/// How often a browser's driver is started anew.
const STARTS_MAX: usize = 5;
/// Longer than a page takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A browser that is driven.
pub struct Driver {
    /// Ends with this.
    _process: Child,
    client: Client,
    session: String,
}

impl Driver {
    /// One, and the port on which it listens; `None`: it has ended.
    async fn chromedriver() -> Option<(Child, u16)> {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is installed");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(port) = line.split("successfully on port ").nth(1) {
                return Some((process, port.trim_end_matches('.').parse().unwrap()));
            }
        }
        None
    }

    /// At this width, in `light` or in `dark`.
    pub async fn start(width: u32, scheme: &str) -> Self {
        // It takes any port of IPv4 and then wants the same of IPv6, which another test may have: then it ends.
        let mut started = None;
        for _ in 0..STARTS_MAX {
            started = Self::chromedriver().await;
            if started.is_some() {
                break;
            }
        }
        let (process, port) = started.expect("chromedriver says its port");
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

    /// A command of WebDriver's, of this session.
    pub async fn does(&self, command: &str, body: Value) -> Value {
        let answer =
            self.client.post(format!("{}/{command}", self.session)).json(&body).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert!(answer["value"]["error"].is_null(), "{command}: {answer}");
        answer["value"].clone()
    }

    /// Goes to an address.
    pub async fn go(&self, address: &str) {
        self.does("url", json!({"url": address})).await;
    }

    /// What a script returns.
    pub async fn script(&self, script: &str, args: Value) -> Value {
        self.does("execute/sync", json!({"script": script, "args": args})).await
    }

    /// What the page complained of since it was last asked: scripts, policies, answers that failed.
    pub async fn complaints(&self) -> Vec<String> {
        let told = self.does("se/log", json!({"type": "browser"})).await;
        let bad = |entry: &&Value| ["SEVERE", "WARNING"].contains(&entry["level"].as_str().unwrap());
        told.as_array().unwrap().iter().filter(bad).map(|entry| entry["message"].to_string()).collect()
    }

    /// Takes a picture of what is seen, under this name.
    pub async fn picture(&self, name: &str) {
        let folder = pictures();
        let taken = self.client.get(format!("{}/screenshot", self.session)).send().await.unwrap();
        let taken: Value = taken.json().await.unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        let png = BASE64.decode(taken["value"].as_str().unwrap().as_bytes()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
    }

    /// What axe-core finds against WCAG 2 A and AA.
    pub async fn barriers(&self, axe: &str) -> Vec<String> {
        self.script(axe, json!([])).await;
        let run = "const done = arguments[0]; axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa']})\
                   .then(found => done(found.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' | '))));";
        let found = self.does("execute/async", json!({"script": run, "args": []})).await;
        found.as_array().unwrap().iter().map(Value::to_string).collect()
    }
}

impl Driver {
    /// Waits until a script returns `true`; gives the time that it took.
    pub async fn until(&self, what: &str, script: &str, args: Value) -> Duration {
        let began = Instant::now();
        // Between two pages there is none to ask.
        let ask = async || {
            let body = json!({"script": script, "args": args});
            let answer = self.client.post(format!("{}/execute/sync", self.session)).json(&body).send().await;
            let answer: Value = answer.unwrap().json().await.unwrap();
            answer["value"] == true
        };
        while !ask().await {
            assert!(began.elapsed() < PATIENCE, "never: {what}, at {}", self.path().await);
            sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    }

    /// Path and query of the page.
    pub async fn path(&self) -> String {
        let path = self.script("return location.pathname + location.search", json!([])).await;
        path.as_str().unwrap_or_default().to_owned()
    }

    /// Signs in at a console, and waits for its first page.
    pub async fn sign_in(&self, base: &str, key: &str) {
        self.go(&format!("{base}/sign-in")).await;
        self.fill("key", key).await;
        self.submit("form").await;
        self.until("it is signed in", "return location.pathname === '/'", json!([])).await;
    }

    /// Fills a field in.
    pub async fn fill(&self, id: &str, text: &str) {
        self.script("document.getElementById(arguments[0]).value = arguments[1]", json!([id, text])).await;
    }

    /// Sends the first form of this kind, as a click on its button does, and waits for what comes then.
    pub async fn submit(&self, selector: &str) {
        self.leave("document.querySelector(arguments[0]).requestSubmit()", selector).await;
    }

    /// Follows the first link of this kind, and waits for its page.
    pub async fn click(&self, selector: &str) {
        self.leave("document.querySelector(arguments[0]).click()", selector).await;
    }

    async fn leave(&self, how: &str, selector: &str) {
        let found =
            self.script("return document.querySelector(arguments[0]) !== null", json!([selector])).await;
        assert_eq!(found, true, "no {selector} at {}", self.path().await);
        self.script(&format!("window.isLeft = true; {how}"), json!([selector])).await;
        let came = "return window.isLeft !== true && document.readyState === 'complete'";
        self.until(&format!("a page behind {selector}"), came, json!([])).await;
    }

    /// Fails if the page is wider than the screen, has a barrier, or complained.
    pub async fn is_well(&self, width: u32, axe: &str, name: &str) {
        let wide = self.script("return document.documentElement.scrollWidth", json!([])).await;
        assert!(wide.as_u64().unwrap() <= u64::from(width), "{name} is {wide} wide at {width}");
        assert_eq!(self.barriers(axe).await, Vec::<String>::new(), "{name} at {width}");
        assert_eq!(self.complaints().await, Vec::<String>::new(), "{name} at {width}");
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

/// Where pictures go.
fn pictures() -> PathBuf {
    if let Some(folder) = std::env::var_os("RINGWARD_SCREENSHOTS") {
        return folder.into();
    }
    let built = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    built
        .unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")))
        .join("console-shots")
}

/// axe-core's script, from the npm registry by npm.
pub async fn axe() -> String {
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
