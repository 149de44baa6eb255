//! The program itself: joined to a control plane, killed amid a change, asked by an operator, removed.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use node_agent::{identity::StateDir, joining};
use node_agent_core::firewall::{Others, Policy};

use crate::{
    bench::{AGENT, Bench, policy, until},
    control_plane::{ControlPlane, settings},
};

/// A control plane and an agent, both inside the PBX.
pub(crate) fn agent(bench: &Bench, policy: &Policy, name: &str) -> PathBuf {
    let mut settings = settings(bench.dir.path(), "127.0.0.1:9".parse().unwrap());
    settings.firewall = crate::bench::firewall(policy.clone());
    settings.firewall.confirm_s = CONFIRM_S;
    settings.metrics.listen = "127.0.0.1:9465".parse().unwrap();
    let config = bench.dir.path().join(name);
    // As JSON would be read by nobody: the settings' own form is TOML.
    let text = toml_of(&serde_json::to_value(&settings).unwrap());
    std::fs::write(&config, text).unwrap();
    config
}

/// Only what differs from the defaults and is plain.
fn toml_of(settings: &serde_json::Value) -> String {
    let firewall = &settings["firewall"];
    let policy = &firewall["policy"];
    format!(
        "state_dir = {}\n[ami]\naddress = \"127.0.0.1:9\"\nusername = \"x\"\nsecret_file = {}\n\
         [observer]\naddress = \"127.0.0.1:9\"\nusername = \"x\"\nsecret_file = {}\n\
         [audio]\nfolder = {}\n[metrics]\nlisten = \"127.0.0.1:9465\"\n\
         [firewall]\nmode = \"on\"\nconfirm_s = {}\ntimer = \"process\"\n\
         [firewall.policy]\nmanagement = {}\nssh_ports = {}\nothers = {}\n",
        settings["state_dir"],
        settings["ami"]["secret_file"],
        settings["ami"]["secret_file"],
        settings["audio"]["folder"],
        firewall["confirm_s"],
        policy["management"],
        policy["ssh_ports"],
        policy["others"],
    )
}

/// A link has to come up within it.
const CONFIRM_S: u32 = 10;

pub(crate) struct Running(Child);

impl Running {
    fn start(bench: &Bench, config: &Path) -> Self {
        Self::start_of(bench, Path::new(AGENT), config)
    }

    /// Of another build.
    pub(crate) fn start_of(bench: &Bench, program: &Path, config: &Path) -> Self {
        let log =
            std::fs::File::options().append(true).create(true).open(bench.dir.path().join("log")).unwrap();
        let child = bench.pair.pbx.run(|| {
            let mut agent = Command::new(program);
            let agent = agent.arg("--config").arg(config).arg("run");
            agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
        });
        Self(child)
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[cfg_attr(not(feature = "real-nft"), ignore = "needs root and nft: --features real-nft")]
fn killed_amid_a_change_the_old_rules_come_back_and_an_operator_is_answered() {
    let bench = Bench::new();
    let good = agent(&bench, &policy(), "good.toml");
    let bad = Policy { ssh_ports: vec![2222], others: Others::Drop, ..policy() };
    let bad = agent(&bench, &bad, "bad.toml");
    let broken = bench.dir.path().join("good.toml.broken");
    std::fs::write(&broken, "[firewal]\n").unwrap();
    bench.nft("add table inet other");

    // The control plane lives in the PBX as long as the test: it is heard over a real link.
    std::thread::scope(|scope| {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (out, joined) = std::sync::mpsc::sync_channel(1);
        let bench = &bench;
        scope.spawn(move || {
            bench.pair.pbx.run(move || {
                crate::bench::runtime().block_on(async {
                    let mut plane =
                        ControlPlane::start(time::OffsetDateTime::now_utc().unix_timestamp()).await;
                    let state = StateDir::open(&bench.state_dir()).unwrap();
                    joining::join(&plane.token(), &state).await.unwrap();
                    out.send(()).unwrap();
                    let talk = async {
                        // Of the first agent; the second one is killed before it is heard of.
                        let mut link = plane.link().await;
                        while link.tell("{\"kind\":\"of_a_newer_version\"}").await {
                            tokio::time::sleep(Duration::from_millis(200)).await;
                        }
                        std::future::pending::<()>().await;
                    };
                    tokio::select! { () = talk => {}, _ = stopped => {} }
                });
            });
        });
        joined.recv().unwrap();
        let log = || std::fs::read_to_string(bench.dir.path().join("log")).unwrap_or_default();

        let running = Running::start(bench, &good);
        let status = || bench.agent(&good, &["firewall", "status"]).1;
        until(10, "on trial", || status().starts_with("on_trial"));
        until(9, &format!("confirmed\n{}", log()), || bench.is_open() && status().starts_with("in_force"));
        let (done, text) = bench.agent(
            &good,
            &["ban", "add", "203.0.113.9", "--seconds", "900", "--reason", "scans", "--author", "anna"],
        );
        assert!(done, "{text}");
        let (done, text) = bench.agent(&good, &["ban", "add", "0.0.0.0/0"]);
        assert!(!done && text.contains("0.0.0.0/0 is everything"), "{text}");
        let list = bench.agent(&good, &["ban", "list"]).1;
        assert!(list.contains("203.0.113.9/32\t") && list.contains("anna on waw-1\tscans"), "{list}");
        let why = bench.agent(&good, &["ban", "why", "203.0.113.9"]).1;
        assert!(why.starts_with("banned as 203.0.113.9/32 by anna on waw-1: scans"), "{why}");
        assert!(bench.agent(&good, &["allow", "add", "203.0.113.9"]).1.starts_with("allowed; 1 bans lifted"));
        assert!(bench.agent(&good, &["allow", "remove", "203.0.113.9"]).0);
        let (done, text) = bench.agent(&good, &["firewall", "remove"]);
        assert!(!done && text.contains("stop it first"), "{text}");
        running.kill();
        assert!(bench.has_table(), "its end leaves the protection");

        let plan = bench.agent(&bad, &["firewall", "plan"]).1;
        assert!(plan.contains("- chain input") && plan.contains("it reverts after 10 s"), "{plan}");
        let running = Running::start(bench, &bad);
        until(10, "locked out", || bench.connect().is_none());
        running.kill();
        assert!(bench.connect().is_none(), "still locked out after the kill");
        let took = until(u64::from(CONFIRM_S) + 2, "the way in is open", || bench.connect().is_some());
        println!("killed on trial: the way in is open after {took:?}");
        let held = bench.pair.pbx.readback();
        let mut good_policy = policy();
        for list in [&mut good_policy.control_plane, &mut good_policy.allow] {
            list.clear();
        }
        good_policy.carriers.clear();
        assert_eq!(node_agent_core::firewall::Plan::of(&good_policy).difference(&held), [""; 0]);

        // A timer that hangs on the settings would be none.
        assert!(!bench.agent(&broken, &["firewall", "plan"]).0);
        let state = bench.state_dir();
        let (done, text) =
            bench.agent(&broken, &["firewall", "revert", "--state-dir", state.to_str().unwrap()]);
        assert!(done && text.contains("nothing to revert"), "{text}");
        let (done, text) = bench.agent(&good, &["firewall", "remove"]);
        assert!(done && !bench.has_table(), "{text}");
        bench.nft("list table inet other");
        drop(stop);
    });
}
