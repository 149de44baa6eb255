//! A control plane whose clock can be moved, with an operator's key.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use api::overheard::{self, Listening};
use controlplane::{
    agents::Links,
    app::{App, open_store},
    clock::{Chance, Clock},
    settings::{AgentsDoor, Door, Settings},
};
use controlplane_core::{
    guard::{Access, Policy},
    names::NodeName,
    throttle::Throttle,
};
use controlplane_store::Store;
use node_agent_protocol::JoinToken;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two nodes with agents, a trunk on each.
pub(crate) const FLEET: &str = r#"
[[carrier]]
name = "acme"
[[node]]
name = "waw-1"
[[node]]
name = "fra-1"
[[trunk]]
name = "acme-waw-1"
node = "waw-1"
carrier = "acme"
endpoint = "acme"
[[trunk]]
name = "acme-fra-1"
node = "fra-1"
carrier = "acme"
endpoint = "acme"
[[route]]
prefix = "+"
tiers = [["acme-waw-1", "acme-fra-1"]]
"#;

/// What every text sounds like: a tone of a second.
const SPOKEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tone.wav");

pub(crate) struct Plane {
    pub(crate) app: App,
    pub(crate) store: Arc<dyn Store>,
    http: reqwest::Client,
    key: String,
    moved_s: Arc<AtomicI64>,
    pub(crate) folder: TempDir,
    ear: Listening,
}

pub(crate) fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub(crate) fn settings(folder: &Path) -> Settings {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut settings = Settings {
        data_dir: folder.to_owned(),
        api: Door::at(listen),
        operator: Door::at(listen),
        agents: AgentsDoor { listen, urls: Vec::new() },
        throttle: Throttle::off(),
        guard: Policy { prefixes: [("+48".parse().unwrap(), Access::Allow)].into(), ..Policy::default() },
        ..Settings::default()
    };
    // A text becomes the sound in this file.
    let speech = &mut settings.audio.speech;
    speech.command = ["/bin/cp", SPOKEN, "{output_file}"].map(str::to_owned).to_vec();
    speech.languages = vec!["en".parse().unwrap()];
    settings
}

/// On the file in its folder, or on a server that it shares.
async fn run(folder: &Path, moved_s: &Arc<AtomicI64>, shared: Option<&str>) -> (App, Arc<dyn Store>) {
    let mut settings = settings(folder);
    settings.replicas.enabled = shared.is_some();
    if shared.is_some() {
        settings.reconcile_timeout_ms = 2_000;
    }
    let (file, chance) = (settings.database_url(), Chance::from_os().unwrap());
    let store = open_store(&settings, shared.unwrap_or(&file), &chance).await.unwrap();
    let (system, moved) = (Clock::system(), Arc::clone(moved_s));
    let clock = Clock::of(move || system.now() + time::Duration::seconds(moved.load(Ordering::Relaxed)));
    let app = App::start(&settings, Arc::clone(&store), clock, chance).await.unwrap();
    (app, store)
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::start_on(None).await
    }

    /// One of several on a server's database.
    #[cfg(feature = "postgres-tests")]
    pub(crate) async fn start_shared(url: &str) -> Self {
        Self::start_on(Some(url)).await
    }

    async fn start_on(shared: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let moved_s = Arc::new(AtomicI64::new(0));
        let (app, store) = run(folder.path(), &moved_s, shared).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let ear = overheard::listen();
        let mut plane = Self { app, store, http, key: String::new(), moved_s, folder, ear };
        let token = std::fs::read_to_string(plane.folder.path().join("bootstrap.token")).unwrap();
        overheard::remember(token.trim());
        let (status, key) = plane.post("/admin/v1/bootstrap", &json!({"token": token.trim()})).await;
        assert_eq!(status, 201, "{key}");
        key["secret"].as_str().unwrap().clone_into(&mut plane.key);
        plane.apply(FLEET).await;
        plane
    }

    /// As SIGTERM, and a new start on the same data.
    pub(crate) async fn restart(self) -> Self {
        let Self { app, store, http, key, moved_s, folder, ear } = self;
        app.stop().await;
        drop(store);
        // The file is free when its writer has ended.
        let free = async {
            loop {
                let url = format!("sqlite://{}", folder.path().join("ringward.db").display());
                if controlplane_store::open(&url).await.is_ok() {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, free).await.unwrap();
        sleep(Duration::from_millis(200)).await;
        let (app, store) = run(folder.path(), &moved_s, None).await;
        Self { app, store, http, key, moved_s, folder, ear }
    }

    /// The operator's key, which all that share its database know.
    #[cfg(feature = "postgres-tests")]
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    pub(crate) fn links(&self) -> Arc<Links> {
        self.app.links()
    }

    pub(crate) fn move_clock(&self, by: Duration) {
        self.moved_s.fetch_add(i64::try_from(by.as_secs()).unwrap(), Ordering::Relaxed);
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.app.operator);
        let response = self.http.get(url).bearer_auth(&self.key).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap()
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.app.operator);
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("http://{}{path}", self.app.operator);
        let response = self.http.post(url).bearer_auth(&self.key).json(body).send().await.unwrap();
        let (status, answer) = (response.status().as_u16(), response.json().await.unwrap());
        overheard::remember_shown(&answer);
        (status, answer)
    }

    /// Sends a list of bans.
    pub(crate) async fn post_list(&self, path: &str, list: String) -> Value {
        let url = format!("http://{}{path}", self.app.operator);
        let response = self.http.post(url).bearer_auth(&self.key).body(list).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
        response.json().await.unwrap()
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.app.operator);
        self.http.get(url).bearer_auth(&self.key).send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn apply(&self, toml: &str) {
        let url = format!("http://{}/admin/v1/fleet?prune=true", self.app.operator);
        let request = self.http.post(url).bearer_auth(&self.key).body(toml.to_owned());
        let response = request.header("content-type", "application/toml").send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    }

    pub(crate) async fn token(&self, of: &str) -> JoinToken {
        let url = format!("https://{}", self.app.agents);
        let path = format!("/admin/v1/nodes/{of}/token");
        let (status, answer) = self.post(&path, &json!({"urls": [url]})).await;
        assert_eq!(status, 201, "{answer}");
        let text = answer["token"].as_str().unwrap();
        assert_eq!(answer["command"], format!("ringward-agent join {text}"));
        text.parse().unwrap()
    }

    pub(crate) async fn revoke(&self, of: &str) -> Value {
        let (status, answer) = self.post(&format!("/admin/v1/nodes/{of}/revoke"), &json!({})).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(crate) async fn agent(&self, of: &str) -> Value {
        self.get(&format!("/admin/v1/nodes/{of}/agent")).await
    }

    /// The actions in the audit log about a node, oldest first.
    pub(crate) async fn audited(&self, of: &str) -> Vec<String> {
        let audit = self.get("/admin/v1/audit?outcome=success").await;
        let rows = audit["data"].as_array().unwrap().iter().rev();
        rows.filter(|row| row["target_id"] == of)
            .map(|row| row["action"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Waits until `done`, for as long as anything here may take.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < end, "never came: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
