//! The agent itself, in process, between the control plane and a scripted PBX.

use std::{fs, net::SocketAddr, path::Path};

use fake_pbx::{Ending, FakePbx, Script};
use node_agent::{
    app::App as Agent,
    clock::{Chance, Clock},
    identity::StateDir,
    joining,
    settings::Settings,
};
use node_agent_protocol::BarAnswer;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::{
    link::attempt,
    plane::{Plane, node, until},
};

const NUMBER: &str = "+48221234567";

fn settings(dir: &Path, pbx: SocketAddr) -> Settings {
    let secret = dir.join("ami.secret");
    fs::write(&secret, "secret\n").unwrap();
    let mut settings = Settings { state_dir: dir.join("state"), ..Settings::default() };
    for login in [&mut settings.ami, &mut settings.observer] {
        login.address = pbx;
        login.username = "ringward".to_owned();
        login.secret_file.clone_from(&secret);
    }
    settings.metrics.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    settings
}

/// An agent in a runtime of its own, so that it can be killed as a process is.
struct Running(Option<Runtime>);

impl Running {
    async fn start(settings: Settings) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let start = move || {
            let agent =
                handle.block_on(Agent::start(settings, Clock::system(), Chance::from_os().unwrap())).unwrap();
            // It lives as long as its runtime.
            handle.spawn(async move {
                let _agent = agent;
                std::future::pending::<()>().await;
            });
        };
        tokio::task::spawn_blocking(start).await.unwrap();
        Self(Some(runtime))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

async fn node_state(plane: &Plane) -> Value {
    let nodes = plane.get("/admin/v1/nodes").await;
    nodes["data"].as_array().unwrap().iter().find(|n| n["name"] == "waw-1").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_through_the_gate_which_knows_its_attempt_and_bars_others() {
    let plane = Plane::start().await;
    let pbx = FakePbx::start(Script::default()).await.unwrap();
    pbx.set_global("PJSIP_ENDPOINT(acme,aors)", "acme");
    pbx.set_global("PJSIP_AOR(acme,contact)", "acme@@1");
    pbx.set_global("PJSIP_CONTACT(acme@@1,uri)", "sip:192.0.2.21:5060");
    pbx.set_ending(NUMBER, Ending::answer());
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), pbx.address());
    let state = StateDir::open(&settings.state_dir).unwrap();
    joining::join(&plane.token("waw-1").await, &state).await.unwrap();
    let agent = Running::start(settings.clone()).await;
    until("the node to be alive", async || node_state(&plane).await["up"] == true).await;

    let body = json!({"to": NUMBER, "message": {"audio_id": "builtin:hello-world"}});
    let (status, call) = plane.post("/admin/v1/calls", &body).await;
    assert_eq!(status, 201, "{call}");
    let path = format!("/admin/v1/calls/{}", call["id"].as_str().unwrap());
    until("the call to end", async || !plane.get(&path).await["outcome"].is_null()).await;
    let call = plane.get(&path).await;
    assert_eq!((call["status"].as_str(), pbx.seen(NUMBER).answers), (Some("completed"), 1), "{call}");

    let (links, waw) = (plane.links(), node("waw-1"));
    let sent = call["attempts"][0]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(links.bar(&waw, &sent).await, BarAnswer::Admitted);
    assert_eq!(links.bar(&waw, &attempt(1)).await, BarAnswer::Barred);
    until("the agent's first fact", async || {
        let facts = plane.agent("waw-1").await["facts"].clone();
        facts.as_array().unwrap().iter().any(|fact| fact["kind"] == "agent_started")
    })
    .await;

    drop(agent);
    until("the node to be lost", async || node_state(&plane).await["up"] == false).await;
    let _agent = Running::start(settings).await;
    until("the node to be back", async || node_state(&plane).await["up"] == true).await;
    plane.revoke("waw-1").await;
    until("the node to be cut", async || node_state(&plane).await["up"] == false).await;
    let agent = plane.agent("waw-1").await;
    assert_eq!(agent["linked"], false, "{agent}");
}
