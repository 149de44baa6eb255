//! The agent itself, in process, beside a scripted PBX.

use std::{fs, net::SocketAddr, path::Path};

use fake_pbx::{FakePbx, Script};
use node_agent::{
    app::App,
    clock::{Chance, Clock},
    identity::StateDir,
    joining,
    settings::Settings,
    ward::Ward,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::plane::{Plane, until};

/// A node: its PBX, which knows one endpoint, `acme`, and its agent.
pub(crate) struct Node {
    name: &'static str,
    pub(crate) pbx: FakePbx,
    pub(crate) settings: Settings,
    pub(crate) agent: Option<Running>,
    _dir: TempDir,
}

impl Node {
    /// A node whose agent has joined and does not run yet.
    pub(crate) async fn join(plane: &Plane, name: &'static str) -> Self {
        let pbx = FakePbx::start(Script::default()).await.unwrap();
        pbx.set_global("PJSIP_ENDPOINT(acme,aors)", "acme");
        pbx.set_global("PJSIP_AOR(acme,contact)", "acme@@1");
        pbx.set_global("PJSIP_CONTACT(acme@@1,uri)", "sip:192.0.2.21:5060");
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), pbx.address());
        let state = StateDir::open(&settings.state_dir).unwrap();
        joining::join(&plane.token(name).await, &state).await.unwrap();
        Self { name, pbx, settings, agent: None, _dir: dir }
    }

    /// The agent dials the control plane at another address.
    pub(crate) fn by_way_of(mut self, address: SocketAddr) -> Self {
        self.settings.control_planes = vec![format!("https://{address}").parse().unwrap()];
        self
    }

    /// The agent dials several control planes, at these addresses.
    #[cfg(feature = "postgres-tests")]
    pub(crate) fn linked_to(mut self, planes: &[SocketAddr]) -> Self {
        let url = |address: &SocketAddr| format!("https://{address}").parse().unwrap();
        self.settings.control_planes = planes.iter().map(url).collect();
        self
    }

    /// Starts the agent, and waits until calls can go through it.
    pub(crate) async fn start(mut self, plane: &Plane) -> Self {
        self.agent = Some(Running::start(self.settings.clone()).await);
        let name = self.name;
        until("the node to be alive", async || node_state(plane, name).await["up"] == true).await;
        until("its trunk to be usable", async || {
            let trunks = plane.get("/admin/v1/trunks").await;
            trunks["data"].as_array().unwrap().iter().any(|t| t["node"] == name && t["usable"] == true)
        })
        .await;
        self
    }
}

fn settings(dir: &Path, pbx: SocketAddr) -> Settings {
    let secret = dir.join("ami.secret");
    fs::write(&secret, "secret\n").unwrap();
    let mut settings = Settings { state_dir: dir.join("state"), ..Settings::default() };
    for login in [&mut settings.ami, &mut settings.observer, &mut settings.security] {
        login.address = pbx;
        login.username = "ringward".to_owned();
        login.secret_file.clone_from(&secret);
    }
    settings.audio.folder = dir.join("sounds");
    settings.metrics.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    settings
}

/// An agent in a runtime of its own, so that it can be killed as a process is.
pub(crate) struct Running(Option<Runtime>, Ward);

impl Running {
    pub(crate) async fn start(settings: Settings) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let start = move || {
            let agent =
                handle.block_on(App::start(settings, Clock::system(), Chance::from_os().unwrap())).unwrap();
            let ward = agent.ward().clone();
            // It lives as long as its runtime.
            handle.spawn(async move {
                let _agent = agent;
                std::future::pending::<()>().await;
            });
            ward
        };
        let ward = tokio::task::spawn_blocking(start).await.unwrap();
        Self(Some(runtime), ward)
    }

    /// Its bans.
    pub(crate) fn ward(&self) -> &Ward {
        &self.1
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

pub(crate) async fn node_state(plane: &Plane, name: &str) -> Value {
    let nodes = plane.get("/admin/v1/nodes").await;
    nodes["data"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap().clone()
}
