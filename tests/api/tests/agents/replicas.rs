//! Two control planes on one database, each linked to each node: what a late one has in its hands rings no phone, and what it
//! gave up while it was away ends no call.

use std::{net::SocketAddr, time::Duration};

use api::cable::{Cable, To};
use controlplane::{
    app::{App, open_store},
    clock::{Chance, Clock},
    settings::Settings,
};
use fake_pbx::Ending;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tokio::{runtime::Runtime, time::sleep};

use crate::{
    agent::Node,
    plane::{FLEET, Plane, until},
};

const NUMBER: &str = "+48221234567";
/// What replicas share.
const SHARED: [&str; 3] = ["agents-ca.pem", "audit-key.der", "secrets.key"];

/// A database of the test's own, and the server that it is on.
struct Database {
    url: String,
    at: SocketAddr,
    server: String,
    name: String,
}

impl Database {
    async fn fresh() -> Self {
        let server = std::env::var("RINGWARD_TEST_POSTGRES_URL").expect("RINGWARD_TEST_POSTGRES_URL");
        let name =
            format!("ringward_agents_{}_{}", std::process::id(), Chance::from_os().unwrap().attempt_id());
        let name = name.to_lowercase();
        run(&server, format!("CREATE DATABASE {name}")).await;
        let (address, _) = server.rsplit_once('/').unwrap();
        let at = address.rsplit_once('@').unwrap().1.parse().unwrap();
        Self { url: format!("{address}/{name}"), at, server, name }
    }

    fn by_way_of(&self, address: SocketAddr) -> String {
        self.url.replace(&self.at.to_string(), &address.to_string())
    }

    async fn gone(self) {
        run(&self.server, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).await;
    }
}

async fn run(server: &str, sql: String) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

/// Another control plane on the same database, in a runtime of its own, so that it can be frozen.
struct Other {
    runtime: Option<Runtime>,
    app: App,
    http: reqwest::Client,
    key: String,
    _folder: TempDir,
}

impl Other {
    async fn start(plane: &Plane, url: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in SHARED {
            std::fs::copy(plane.folder.path().join(file), folder.path().join(file)).unwrap();
        }
        let mut settings: Settings = crate::plane::settings(folder.path());
        settings.replicas.enabled = true;
        settings.reconcile_timeout_ms = 2_000;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        // The future is made where it runs.
        let start = move || {
            handle.block_on(async {
                let chance = Chance::from_os().unwrap();
                let store = open_store(&settings, &url, &chance).await.unwrap();
                App::start(&settings, store, Clock::system(), chance).await.unwrap()
            })
        };
        let app = tokio::task::spawn_blocking(start).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { runtime: Some(runtime), app, http, key: plane.key().to_owned(), _folder: folder }
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.app.operator);
        self.http.get(url).bearer_auth(&self.key).send().await.unwrap().json().await.unwrap()
    }

    async fn metric(&self, name: &str) -> Option<u64> {
        let url = format!("http://{}/metrics", self.app.operator);
        let text = self.http.get(url).send().await.unwrap().text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))?.parse().ok())
    }

    /// As SIGSTOP and, after `lasting`, SIGCONT.
    #[allow(clippy::disallowed_methods, reason = "its one worker is to be blocked")]
    async fn freeze(&self, lasting: Duration) {
        let frozen = self.runtime.as_ref().unwrap().spawn(async move { std::thread::sleep(lasting) });
        frozen.await.unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Two nodes; the other control plane reaches the first one, and its database, by cables.
struct Bench {
    plane: Plane,
    other: Other,
    /// To the database.
    wire: Cable,
    /// To the first node.
    cable: Cable,
    waw: Node,
    fra: Node,
    database: Database,
}

impl Bench {
    async fn start() -> Self {
        let database = Database::fresh().await;
        let plane = Plane::start_shared(&database.url).await;
        plane.apply(&FLEET.replace(r#""acme-waw-1", "acme-fra-1""#, r#""acme-waw-1"], ["acme-fra-1""#)).await;
        let wire = Cable::to(database.at).await;
        let other = Other::start(&plane, database.by_way_of(wire.address)).await;
        let cable = Cable::to(other.app.agents).await;
        let mut waw = Node::join(&plane, "waw-1").await.linked_to(&[plane.app.agents, cable.address]);
        waw.settings.metrics.listen = free();
        let waw = waw.start(&plane).await;
        let fra = Node::join(&plane, "fra-1").await.linked_to(&[plane.app.agents, other.app.agents]);
        let fra = fra.start(&plane).await;
        until("both nodes' trunks to be usable at the other one", async || {
            let trunks = other.get("/admin/v1/trunks").await;
            trunks["data"].as_array().unwrap().iter().filter(|trunk| trunk["usable"] == true).count() == 2
        })
        .await;
        Self { plane, other, wire, cable, waw, fra, database }
    }

    /// A call of the other one's, that must never ring twice.
    async fn call(&self) -> String {
        let url = format!("http://{}/admin/v1/calls", self.other.app.operator);
        let body =
            json!({"to": NUMBER, "message": {"audio_id": "builtin:hello-world"}, "on_unknown": "fail"});
        let request = self.other.http.post(url).bearer_auth(&self.other.key).json(&body);
        let call: Value = request.send().await.unwrap().json().await.unwrap();
        format!("/admin/v1/calls/{}", call["id"].as_str().unwrap_or_else(|| panic!("{call}")))
    }

    async fn is_claimed(&self) {
        until("the call to be claimed", async || {
            let metrics = self.plane.metrics().await;
            metrics.lines().any(|line| line == "ringward_calls_claimed_total 1")
        })
        .await;
    }

    /// How often the first node's gate has refused an Originate because its attempt is barred.
    async fn refused(&self) -> u64 {
        let url = format!("http://{}/metrics", self.waw.settings.metrics.listen);
        let text = self.other.http.get(url).send().await.unwrap().text().await.unwrap();
        let barred =
            |line: &&str| line.starts_with("ringward_agent_refused_total{") && line.contains("\"barred\"");
        text.lines().find(barred).map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    async fn end(&self, path: &str) -> Value {
        until("the call to end", async || !self.plane.get(path).await["outcome"].is_null()).await;
        self.plane.get(path).await
    }
}

/// A port that nobody has.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn ended(call: &Value) -> Vec<(&str, &str)> {
    let attempts = call["attempts"].as_array().unwrap().iter();
    attempts.map(|attempt| (attempt["node"].as_str().unwrap(), attempt["reason"].as_str().unwrap())).collect()
}

/// Its Originate is on the way when it freezes, and arrives when another one has dialled for the call long since.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owners_originate_is_refused_by_the_node_that_was_told_to_bar_it() {
    let bench = Bench::start().await;
    bench.fra.pbx.set_ending(NUMBER, Ending::Answer { talk: Duration::from_millis(300) });
    bench.cable.keep_back(To::Agent);
    let path = bench.call().await;
    until("an attempt that is written", async || {
        !bench.plane.get(&path).await["attempts"].as_array().unwrap().is_empty()
    })
    .await;
    until("an Originate on the cable", async || bench.cable.lost() > 300).await;
    let going_on = async {
        bench.is_claimed().await;
        bench.end(&path).await
    };
    let (call, ()) = tokio::join!(going_on, bench.other.freeze(Duration::from_secs(4)));
    assert_eq!(ended(&call), [("waw-1", "not_sent"), ("fra-1", "answered")], "{call}");
    bench.cable.let_through();
    until("its gate to refuse the late Originate", async || bench.refused().await == 1).await;
    sleep(Duration::from_millis(500)).await;
    let rung = (bench.waw.pbx.seen(NUMBER).invites, bench.fra.pbx.seen(NUMBER).invites);
    assert_eq!(rung, (0, 1), "it rang once");
    assert_eq!(bench.waw.pbx.count_actions("Originate"), 0);
    let call = bench.plane.get(&path).await;
    assert_eq!(ended(&call), [("waw-1", "not_sent"), ("fra-1", "answered")], "{call}");
    until("the late one to drive it no more", async || {
        bench.other.metric("ringward_calls_open").await == Some(0)
    })
    .await;
    bench.database.gone().await;
}

/// Cut off from database and node alike, it decides for itself that the call is lost. It is another one's by then, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_hangs_up_nothing_that_another_one_drives() {
    let bench = Bench::start().await;
    bench.waw.pbx.set_ending(NUMBER, Ending::Answer { talk: Duration::from_secs(26) });
    let path = bench.call().await;
    until("the answer", async || bench.plane.get(&path).await["status"] == "in_progress").await;
    for cable in [&bench.wire, &bench.cable] {
        cable.keep_apart(true);
        cable.cut();
    }
    bench.is_claimed().await;
    let open = || async { bench.other.metric("ringward_calls_open").await };
    assert_eq!(open().await, Some(1), "it knows of nothing");
    // By now it has given the node up, and waits for its database.
    sleep(Duration::from_secs(8)).await;
    bench.wire.keep_apart(false);
    bench.cable.keep_apart(false);
    until("its task to end", async || open().await == Some(0)).await;
    until("the node to be back there", async || {
        let nodes = bench.other.get("/admin/v1/nodes").await;
        nodes["data"].as_array().unwrap().iter().any(|node| node["name"] == "waw-1" && node["up"] == true)
    })
    .await;
    // It has looked at the node.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.waw.pbx.count_actions("Hangup"), 0, "it hangs up what is another one's");
    let call = bench.end(&path).await;
    assert_eq!((ended(&call), &call["reason"]), (vec![("waw-1", "answered")], &json!("played")), "{call}");
    bench.database.gone().await;
}

/// The same, and nobody else: what it gave up is hung up, by whoever ends its attempt.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_hung_up_by_its_owner() {
    let bench = Bench::start().await;
    bench.waw.pbx.set_ending(NUMBER, Ending::Answer { talk: Duration::from_secs(120) });
    let path = bench.call().await;
    until("the answer", async || bench.plane.get(&path).await["status"] == "in_progress").await;
    bench.cable.keep_apart(true);
    bench.cable.cut();
    let call = bench.end(&path).await;
    assert_eq!(ended(&call), [("waw-1", "interrupted")], "{call}");
    bench.cable.keep_apart(false);
    until("the survivor to be hung up", async || bench.waw.pbx.live_channels().is_empty()).await;
    bench.database.gone().await;
}
