//! A fleet with something of everything that the console shows.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use browser::{Driver, axe};
use lab::{Hardening, Pbx, Plan, numbers, wait_until};
use serde_json::{Value, json};

use crate::fixture::{Fleet, full, over_links};
use crate::trunks::until;

/// A canary's number: it rings until it is hung up.
pub(crate) const CANARY: &str = "+48221809999";
/// Longer than a policy takes to a node.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct Scene {
    pub(crate) fleet: Fleet,
    /// What stands for sshd on each PBX.
    _sshd: Vec<TcpListener>,
    /// Of a call that was carried.
    pub(crate) call: String,
    /// Of an incident that is phoned about.
    pub(crate) incident: String,
}

impl Scene {
    /// Two PBXes whose agents ban, two carriers, a trunk for every pair, all well; a call that was carried and one that was not, and
    /// a webhook that heard of both.
    pub(crate) fn up() -> Self {
        let receiver = receiver();
        let plan = Plan { hardening: Hardening::usual(), ..over_links(full()) };
        let fleet = Fleet::up_with(plan, |setup| setup.webhooks_to("127.0.0.0/8"));
        let canary =
            format!("canary = {{ number = \"{CANARY}\", interval_s = 86400, expects = \"rings\" }}\nweight");
        fleet.plane.apply(&fleet.lab.fleet_toml().replace("weight", &canary)).unwrap();
        let confirm = |pbx: &Pbx| fleet.lab.confirm_rules(pbx, &pbx.agent().unwrap()).unwrap();
        let sshd = fleet.lab.pbxes().iter().map(confirm).collect();
        for trunk in fleet.plane.trunks().unwrap() {
            until(&fleet, trunk["name"].as_str().unwrap(), "healthy");
        }
        let hook = json!({"url": receiver, "events": ["call.finished"]});
        fleet.plane.customer("POST", "/v1/webhook_endpoints", Some(&hook)).unwrap();
        let carried = fleet.placed(
            &numbers::number(numbers::ANSWER_AND_HANG_UP, 1),
            json!({"metadata": {"incident": "991"}}),
        );
        fleet.placed("+48225030001", json!({"failover": {"attempts_max": 2}}));
        let ban = json!({"net": "203.0.113.8", "reason": "scanned for extensions"});
        fleet.plane.admin("POST", "/admin/v1/bans", Some(&ban)).unwrap();
        let told = || {
            let list = fleet.plane.admin("GET", "/admin/v1/webhooks/deliveries", None).unwrap();
            list["data"].as_array().unwrap().iter().filter(|row| row["state"] == "delivered").count() == 2
        };
        wait_until("both deliveries", PATIENCE, "", told).unwrap();
        let in_force =
            || fleet.plane.agent("pbx-1").is_ok_and(|agent| agent["firewall"]["state"] == "in_force");
        wait_until("the firewall to be told of", PATIENCE, "", in_force).unwrap();
        let hook = json!({
            "name": "Night shift", "kind": "json", "to": ["+48225030001"], "rounds": 1, "speech": {"alert": "{{/text}}"}
        });
        let hook = fleet.plane.customer("POST", "/v1/hooks", Some(&hook)).unwrap();
        let told = json!({"text": "The roof is on fire"});
        let receipt = fleet.plane.customer("POST", hook["path"].as_str().unwrap(), Some(&told)).unwrap();
        let incident = receipt["incidents"][0]["incident"].as_str().unwrap().to_owned();
        Self { incident, call: carried["id"].as_str().unwrap().to_owned(), fleet, _sshd: sshd }
    }

    pub(crate) fn base(&self) -> String {
        self.fleet.plane.operator_url()
    }

    /// What the operators' API says.
    pub(crate) fn api(&self, path: &str) -> Value {
        self.fleet.plane.admin("GET", path, None).unwrap()
    }

    /// A browser that is signed in.
    pub(crate) async fn browser(&self, width: u32) -> Driver {
        let driver = Driver::start(width, if width < 500 { "dark" } else { "light" }).await;
        driver.sign_in(&self.base(), self.fleet.plane.operator_key()).await;
        driver
    }
}

/// Runs a browser's work.
pub(crate) fn drive<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(work)
}

/// axe-core's script.
pub(crate) async fn rules() -> String {
    axe().await
}

/// Answers 200 to whatever is posted, as long as the test lives.
fn receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let answer = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok();
        let mut taken = Vec::new();
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut part) {
            taken.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&taken);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break;
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok();
    };
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    url
}
