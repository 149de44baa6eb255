//! A PBX of the lab: Asterisk configured from `dialplans/`, reached over AMI at port 5038.
use crate::asterisk::Asterisk;
use crate::network::{self, CableRules};
use crate::{
    Agent, Build, Hardening, HostName, Inbound, LabError, Plan, Reach, Signal, Subnet, TrunkPlan, clock,
    command, process, render,
};
use minijinja::context;
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Port of AMI.
const AMI_PORT: u16 = 5038;
/// For all of a host to be gone once its power is.
const POWER_OFF_MAX: Duration = Duration::from_secs(10);
/// Length of a secret before it is written as hexadecimal digits.
const SECRET_BYTES: usize = 24;

/// The AMI users of a PBX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmiUser {
    /// `ringward`: places calls and sees how they end.
    Calls,
    /// `ringward-security`: reads security events, orders nothing.
    Security,
    /// `ringward-agent`: the agent's own session, where there is an agent.
    Agent,
}

impl AmiUser {
    pub(crate) const ALL: [Self; 3] = [Self::Calls, Self::Security, Self::Agent];

    /// Its name at login.
    pub fn username(self) -> &'static str {
        match self {
            AmiUser::Calls => "ringward",
            AmiUser::Security => "ringward-security",
            AmiUser::Agent => "ringward-agent",
        }
    }
}

/// What is lost between a PBX and its control planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// What the PBX sends.
    Sent,
    /// What it is sent.
    Received,
}

/// A PBX.
#[derive(Clone, Debug)]
pub struct Pbx {
    pub(crate) asterisk: Asterisk,
    pub(crate) address: Ipv4Addr,
    pub(crate) trunks: Vec<TrunkPlan>,
    pub(crate) reach: Reach,
    pub(crate) agents: Build,
    /// Where control planes are.
    pub(crate) plane_address: Ipv4Addr,
}

impl Pbx {
    /// Its name, e.g. `pbx-1`.
    pub fn name(&self) -> &str {
        self.asterisk.host.as_str()
    }

    /// Its address on the bridge.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where its AMI listens: on loopback where there is an agent.
    pub fn ami_address(&self) -> SocketAddr {
        let address = match self.reach {
            Reach::Direct => self.address,
            Reach::Agent => Ipv4Addr::LOCALHOST,
        };
        SocketAddr::from((address, AMI_PORT))
    }

    /// Its agent, where the plan has agents.
    pub fn agent(&self) -> Option<Agent> {
        (self.reach == Reach::Agent)
            .then(|| Agent::new(self.host().clone(), self.asterisk.machine(), self.agents))
    }

    /// The file that holds the secret of user `ringward`, readable by root only.
    pub fn secret_file(&self) -> PathBuf {
        self.secret_file_of(AmiUser::Calls)
    }

    /// The file that holds the secret of that user.
    pub fn secret_file_of(&self, user: AmiUser) -> PathBuf {
        self.asterisk.host.folder().join(format!("{}.secret", user.username()))
    }

    /// The secret of that user.
    pub fn secret(&self, user: AmiUser) -> Result<String, LabError> {
        let path = self.secret_file_of(user);
        fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(LabError::file("read", path))
    }

    /// The trunks configured on it.
    pub fn trunks(&self) -> &[TrunkPlan] {
        &self.trunks
    }

    /// Its host: namespace and folder (`log/messages.log`, `log/security.log`, …).
    pub fn host(&self) -> &HostName {
        &self.asterisk.host
    }

    /// Runs one line on Asterisk's console.
    pub fn console(&self, line: &str) -> Result<String, LabError> {
        self.asterisk.console(line)
    }

    /// Ends Asterisk in order (it tells its AMI clients) and waits for its end.
    pub fn stop(&self) -> Result<(), LabError> {
        self.asterisk.stop()
    }

    /// Starts Asterisk again after [`Pbx::stop`] or a kill, and waits until it is booted.
    pub fn start(&self) -> Result<Duration, LabError> {
        self.asterisk.start()?;
        self.asterisk.wait_until_booted()
    }

    /// Ends Asterisk in order and starts it again.
    pub fn restart_asterisk(&self) -> Result<Duration, LabError> {
        self.stop()?;
        self.start()
    }

    /// Sends a signal to Asterisk: [`Signal::Kill`] is a crash, [`Signal::Stop`] freezes it.
    pub fn kill_asterisk(&self, signal: Signal) -> Result<(), LabError> {
        self.asterisk.signal(signal)
    }

    /// Runs a shell script on it, as root, and gives what it wrote. Only a host that is booted has a shell of
    /// its own.
    pub fn shell(&self, script: &str) -> Result<String, LabError> {
        match self.asterisk.machine() {
            Some(machine) => machine.run(&["sh", "-ec", script]),
            None => Err(LabError::Machine(format!("{} is a process, not a booted host", self.name()))),
        }
    }

    /// Takes its cable out (`false`) or puts it back.
    pub fn set_cable(&self, plugged: bool) -> Result<(), LabError> {
        network::set_cable(self.name(), plugged)
    }

    /// Cuts it off from control planes (`false`), both ways and without a word to either, or mends that. Its
    /// carriers stay.
    pub fn set_link(&self, up: bool) -> Result<(), LabError> {
        if up {
            return network::set_cable_rules(self.name(), CableRules::default());
        }
        let (sent, received) = (
            format!("ip daddr {} meta l4proto tcp counter drop", self.plane_address),
            format!("ip saddr {} meta l4proto tcp counter drop", self.plane_address),
        );
        network::set_cable_rules(self.name(), CableRules { sent: &sent, received: &received })
    }

    /// Drops what goes one way between it and its control planes, without a word to either side.
    ///
    /// # Errors
    /// The packet rules cannot be loaded.
    pub fn lose(&self, what: Lost) -> Result<(), LabError> {
        let plane = self.plane_address;
        let rule = |direction: &str| format!("ip {direction} {plane} meta l4proto tcp counter drop");
        let (sent, received) = match what {
            Lost::Sent => (rule("daddr"), String::new()),
            Lost::Received => (String::new(), rule("saddr")),
        };
        network::set_cable_rules(self.name(), CableRules { sent: &sent, received: &received })
    }

    /// The power goes, and does not come back by itself: its cable is dead, and nothing of it runs any more.
    ///
    /// # Errors
    /// A process of it cannot be ended.
    pub fn power_off(&self) -> Result<(), LabError> {
        // The cable first: nothing of it says goodbye.
        self.set_cable(false)?;
        if let Some(machine) = self.asterisk.machine() {
            return machine.kill();
        }
        self.agent().map_or(Ok(()), |agent| agent.signal(Signal::Kill))?;
        process::signal(&self.asterisk.process(), Signal::Kill)
    }

    /// The power goes and comes back: what is on its disk stays, what its kernel held is gone.
    ///
    /// # Errors
    /// It does not boot again.
    pub fn reboot(&self) -> Result<Duration, LabError> {
        self.power_off()?;
        let process = self.asterisk.process();
        clock::wait_until("a host to end", POWER_OFF_MAX, "see its log/boot.log", || {
            process::alive(&process).is_none()
        })?;
        // Its network namespace outlives it.
        let mut flush = self.host().in_namespace();
        command::finish("forget a host's packet rules", flush.args(["nft", "flush", "ruleset"]))?;
        self.set_cable(true)?;
        self.start()
    }

    /// Refuses every TCP connection that a control plane would open towards it; [`Pbx::knocks`] counts them.
    pub fn refuse_connections(&self) -> Result<(), LabError> {
        let knock = "tcp flags & (syn | ack) == syn counter drop";
        let received = format!("ip saddr {} {knock}", self.plane_address);
        network::set_cable_rules(self.name(), CableRules { received: &received, ..CableRules::default() })
    }

    /// How often a control plane tried to connect since [`Pbx::refuse_connections`].
    pub fn knocks(&self) -> Result<u64, LabError> {
        network::counted_at_cable(self.name())
    }

    /// The flight record of an attempt, as it is in AstDB now.
    pub fn flight_record(&self, attempt: &str) -> Result<Option<String>, LabError> {
        let said = self.console(&format!("database get ringward {attempt}"))?;
        Ok(said.trim().strip_prefix("Value: ").map(|value| value.trim().to_owned()))
    }

    pub(crate) fn configure(&self, plan: &Plan, subnet: Subnet) -> Result<(), LabError> {
        for user in [AmiUser::Calls, AmiUser::Security, AmiUser::Agent] {
            self.write_secret(user)?;
        }
        let (permit, agent_username) = match self.reach {
            Reach::Direct => (subnet.root(), None),
            Reach::Agent => (Ipv4Addr::LOCALHOST, Some(AmiUser::Agent.username())),
        };
        self.agent().map_or(Ok(()), |agent| agent.configure(self, plan.hardening))?;
        let manager = render::MANAGER_RINGWARD.render(context! {
            bind_address => self.ami_address().ip().to_string(),
            ami_port => AMI_PORT,
            username => AmiUser::Calls.username(),
            secret => self.secret(AmiUser::Calls)?,
            security_username => AmiUser::Security.username(),
            security_secret => self.secret(AmiUser::Security)?,
            permit => [format!("{permit}/255.255.255.255")],
            agent_username => agent_username,
            agent_secret => self.secret(AmiUser::Agent)?,
            asterisk_major => plan.asterisk.major(),
        })?;
        let carriers = plan.carrier_hosts(subnet);
        let trunks: Vec<_> = self
            .trunks
            .iter()
            .map(|trunk| {
                let literal = trunk.endpoint == format!("carrier-{}", trunk.carrier);
                let address =
                    carriers.iter().find(|(name, _)| *name == trunk.carrier).map(|(_, at)| at.to_string());
                context! {
                    endpoint => trunk.endpoint,
                    contact => trunk.contact,
                    // Two endpoints cannot be known by one address: the literal trunk is the one.
                    match => if literal { address } else { None },
                    qualify_s => plan.qualify_s,
                }
            })
            .collect();
        let inbound = match plan.inbound {
            Inbound::Closed => "ringward-closed",
            Inbound::Rings => "lab-inbound",
        };
        let has_phones = plan.hardening != Hardening::Off;
        let mut pjsip = render::PJSIP_RINGWARD.render(context! {
            bind_address => self.address.to_string(),
            inbound_context => inbound,
            own_system => !has_phones,
            trunks => trunks,
        })?;
        if has_phones {
            pjsip.push_str(render::PBX_PHONES);
        }
        self.asterisk.configure(&[
            ("manager.conf", manager),
            ("pjsip.conf", pjsip),
            ("extensions.conf", render::PBX_EXTENSIONS.to_owned()),
            ("extensions_ringward.conf", render::EXTENSIONS_RINGWARD.to_owned()),
            ("amd.conf", render::AMD_RINGWARD.to_owned()),
        ])
    }

    fn write_secret(&self, user: AmiUser) -> Result<(), LabError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut bytes = [0_u8; SECRET_BYTES];
        fs::File::open("/dev/urandom")
            .and_then(|mut source| source.read_exact(&mut bytes))
            .map_err(LabError::file("read", "/dev/urandom"))?;
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.secret_file_of(user);
        let mut file = fs::File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(LabError::file("create", &path))?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(LabError::file("write", &path))
    }
}
