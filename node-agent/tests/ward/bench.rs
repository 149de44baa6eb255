//! A PBX whose ward runs in a network namespace of its own, and an operator's machine at the other end of a wire.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, mpsc::sync_channel},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use node_agent::{
    clock::{Chance, Clock},
    identity::StateDir,
    metrics::Metrics,
    settings::{FirewallMode, FirewallSettings, RevertTimer, Settings},
    spool::Spool,
    ward::{self, Parts, Ward, by_operator},
};
use node_agent_core::{
    bans::Order,
    firewall::{Carrier, Policy},
};
use tokio::{runtime::Runtime, sync::oneshot};

use crate::space::Pair;

pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_ringward-agent");
/// Seconds until an unconfirmed change is reverted: the least that settings allow.
pub(crate) const CONFIRM_S: u32 = 5;
pub(crate) const OPERATOR: &str = "192.0.2.10";
pub(crate) const SSH: &str = "192.0.2.1:22";

pub(crate) fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

pub(crate) fn policy() -> Policy {
    Policy {
        management: nets(&["192.0.2.10/32"]),
        control_plane: nets(&["203.0.113.1/32"]),
        carriers: vec![Carrier {
            name: "acme".to_owned(),
            signalling: nets(&["198.51.100.0/25"]),
            media: nets(&["198.51.100.128/25"]),
        }],
        allow: nets(&["192.0.2.16/28"]),
        ..Policy::default()
    }
}

pub(crate) fn firewall(policy: Policy) -> FirewallSettings {
    let settings = Settings::default().firewall;
    FirewallSettings {
        mode: FirewallMode::On,
        confirm_s: CONFIRM_S,
        timer: RevertTimer::Process,
        policy,
        ..settings
    }
}

pub(crate) fn order(net: &str, seconds: Option<u32>) -> Order {
    Order { net: net.parse().unwrap(), seconds, by: by_operator("pbx1", "anna", "a test"), jail: None }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A PBX, its state directory, and its sshd: something that listens.
pub(crate) struct Bench {
    pub(crate) pair: Pair,
    pub(crate) dir: tempfile::TempDir,
    sshd: TcpListener,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let pair = Pair::new(&["192.0.2.10/24"]);
        let sshd = pair.pbx.run(|| TcpListener::bind(SSH).unwrap());
        Self { pair, dir: tempfile::tempdir().unwrap(), sshd }
    }

    /// The same node after a reboot: nothing in the kernel, all on disk.
    pub(crate) fn reboot(self) -> Self {
        let Self { dir, .. } = self;
        let pair = Pair::new(&["192.0.2.10/24"]);
        let sshd = pair.pbx.run(|| TcpListener::bind(SSH).unwrap());
        Self { pair, dir, sshd }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A new TCP connection from the operator to sshd: both ends.
    pub(crate) fn connect(&self) -> Option<(TcpStream, TcpStream)> {
        let to: SocketAddr = SSH.parse().unwrap();
        let stream = self.pair.phone.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(700)).ok());
        stream.map(|stream| (stream, self.sshd.accept().unwrap().0))
    }

    pub(crate) fn is_open(&self) -> bool {
        // A busy machine may be slow once.
        self.connect().or_else(|| self.connect()).is_some()
    }

    pub(crate) fn nft(&self, script: &str) {
        self.pair.pbx.nft(script).unwrap();
    }

    pub(crate) fn has_table(&self) -> bool {
        self.pair.pbx.readback().is_there()
    }

    /// Runs the ward inside the PBX while `work` speaks with it from outside.
    pub(crate) fn with_ward<T>(&self, firewall: FirewallSettings, work: impl FnOnce(&Ward) -> T) -> T {
        let state = StateDir::open(&self.state_dir()).unwrap();
        let (clock, chance) = (Clock::system(), Chance::from_os().unwrap());
        let parts = Parts {
            node: "pbx1".to_owned(),
            settings: firewall,
            spool: Spool::open(&state, clock.clone(), chance.clone()).unwrap(),
            state,
            clock,
            chance,
            metrics: Arc::new(Metrics::new().unwrap()),
            program: PathBuf::from(AGENT),
        };
        std::thread::scope(|scope| {
            let (stop, stopped) = oneshot::channel::<()>();
            let (out, handle) = sync_channel(1);
            scope.spawn(move || {
                self.pair.pbx.run(move || {
                    runtime().block_on(async {
                        let (ward, task) = ward::start(parts);
                        out.send(ward).unwrap();
                        tokio::select! { () = task => {}, _ = stopped => {} }
                    });
                });
            });
            let done = work(&handle.recv().unwrap());
            drop(stop);
            done
        })
    }

    /// Puts a policy in force as an operator does: he connects, and a control plane is heard.
    pub(crate) fn confirm(&self, ward: &Ward) {
        wait(ward, "on_trial", 5);
        std::thread::sleep(Duration::from_millis(1100));
        ward.confirmed();
        assert!(self.is_open());
        let chatter = self.connect();
        wait(ward, "in_force", 4);
        drop(chatter);
    }

    /// The agent's program inside the PBX.
    pub(crate) fn agent(&self, config: &Path, arguments: &[&str]) -> (bool, String) {
        let output = self.pair.pbx.run(|| {
            let mut agent = std::process::Command::new(AGENT);
            agent.env_remove("SSH_CONNECTION").arg("--config").arg(config).args(arguments).output().unwrap()
        });
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

/// Waits until the firewall stands so.
pub(crate) fn wait(ward: &Ward, state: &str, seconds: u64) {
    let mut standing = ward.standing();
    let end = Instant::now() + Duration::from_secs(seconds);
    while standing.borrow_and_update().state != state {
        assert!(Instant::now() < end, "not {state} but {:?}", ward.standing().borrow());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Until it is so, and how long that took.
pub(crate) fn until(seconds: u64, what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(seconds), "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(50));
    }
    began.elapsed()
}
