//! The agent of a PBX: the program `ringward-agent` beside its Asterisk. On a host that is booted it is
//! ringward-agent.service, as packages will bring it; beside a mere process it is a process.
use crate::machine::Machine;
use crate::pbx::AmiUser;
use crate::{Build, Hardening, HostName, LabError, Pbx, Signal, clock, command, process, program};
use serde_json::Value;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// From the start to the first answer.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// What the lab asks of a PBX is more than a small one should admit.
const GATE: &str = "[gate]\nchannels_max = 5000\ncps_max = 2000\n";
/// The unit.
const UNIT: &str = "ringward-agent.service";
/// All that packages will bring.
const UNITS: [(&str, &str); 3] = [
    (UNIT, include_str!("../../../node-agent/systemd/ringward-agent.service")),
    ("ringward-agent-guard.path", include_str!("../../../node-agent/systemd/ringward-agent-guard.path")),
    (
        "ringward-agent-guard.service",
        include_str!("../../../node-agent/systemd/ringward-agent-guard.service"),
    ),
];
/// Where the unit keeps its state.
const STATE_DIR: &str = "/var/lib/ringward-agent";

/// The agent of a PBX.
#[derive(Clone, Debug)]
pub struct Agent {
    host: HostName,
    machine: Option<Machine>,
    build: Build,
}

impl Agent {
    pub(crate) fn new(host: HostName, machine: Option<Machine>, build: Build) -> Self {
        Agent { host, machine, build }
    }

    /// The PBX that it is on.
    #[must_use]
    pub fn node(&self) -> &str {
        self.host.as_str()
    }

    /// Its state directory, as this machine reaches it: identity, facts that wait, the gate's journal.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        match &self.machine {
            Some(machine) => machine.path(STATE_DIR),
            None => self.host.folder().join("agent"),
        }
    }

    /// Its log, since the lab's start.
    ///
    /// # Errors
    /// There is none.
    pub fn log(&self) -> Result<String, LabError> {
        if let Some(machine) = &self.machine {
            return machine.run(&["journalctl", "--no-pager", "--output=cat", "--identifier=ringward-agent"]);
        }
        let path = self.log_file();
        fs::read_to_string(&path).map_err(LabError::file("read", path))
    }

    /// Writes its settings.
    pub(crate) fn configure(&self, pbx: &Pbx, hardening: Hardening) -> Result<(), LabError> {
        let hardening = hardened(hardening, self.machine.is_some());
        if let Some(machine) = &self.machine {
            // The rest is as the program has it by itself.
            machine.write("/etc/ringward-agent.toml", &format!("{GATE}{hardening}"), 0o644)?;
            for (user, name) in
                [(AmiUser::Calls, "ami"), (AmiUser::Agent, "observer"), (AmiUser::Security, "security")]
            {
                machine.write(&format!("/etc/ringward-agent/{name}.secret"), &pbx.secret(user)?, 0o600)?;
            }
            let write = |(unit, text): (&str, &str)| {
                machine.write(&format!("/usr/lib/systemd/system/{unit}"), text, 0o644)
            };
            return UNITS.into_iter().try_for_each(write);
        }
        let folder = self.host.folder();
        let text = format!(
            "state_dir = \"{}\"\nrtp_conf = \"{}\"\ndisk = \"{}\"\naudio.folder = \"{}\"\n\
             [ami]\naddress = \"127.0.0.1:5038\"\nusername = \"{}\"\nsecret_file = \"{}\"\n\
             [observer]\naddress = \"127.0.0.1:5038\"\nusername = \"{}\"\nsecret_file = \"{}\"\n\
             [security]\naddress = \"127.0.0.1:5038\"\nusername = \"{}\"\nsecret_file = \"{}\"\n{GATE}{hardening}",
            self.state_dir().display(),
            folder.join("etc/rtp.conf").display(),
            folder.join("spool").display(),
            self.host.sounds().display(),
            AmiUser::Calls.username(),
            pbx.secret_file_of(AmiUser::Calls).display(),
            AmiUser::Agent.username(),
            pbx.secret_file_of(AmiUser::Agent).display(),
            AmiUser::Security.username(),
            pbx.secret_file_of(AmiUser::Security).display(),
        );
        let path = self.settings_file();
        fs::write(&path, text).map_err(LabError::file("write", path))
    }

    /// `ringward-agent join TOKEN`, as the operator types it; gives what it said and how it ended.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn join(&self, arguments: &[&str]) -> Result<Output, LabError> {
        let mut command = self.command(&["join"])?;
        command.args(arguments).stdin(Stdio::null()).output().map_err(|source| LabError::Start {
            what: format!("join {}", self.node()),
            program: "ringward-agent".into(),
            source,
        })
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It does not answer: not joined, or a wrong setting; its log tells.
    pub fn start(&self) -> Result<(), LabError> {
        match &self.machine {
            Some(machine) => machine.run(&["systemctl", "enable", "--quiet", "--now", UNIT]).map(|_| ())?,
            None => self.spawn()?,
        }
        let what = format!("the agent of {} to answer", self.node());
        clock::wait_until(&what, READY_WITHIN, "see its log", || self.status().is_ok()).map(|_| ())
    }

    fn spawn(&self) -> Result<(), LabError> {
        let path = self.log_file();
        let open =
            || File::options().create(true).append(true).open(&path).map_err(LabError::file("open", &path));
        let mut command = self.command(&["run"])?;
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        process::spawn(&self.process(), command).map(|_| ())
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> Result<(), LabError> {
        match &self.machine {
            Some(machine) => machine.run(&["systemctl", "stop", UNIT]).map(|_| ()),
            None => process::end(&self.process()),
        }
    }

    /// Sends it a signal. systemd starts a killed one again by itself.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        match &self.machine {
            Some(machine) => machine.signal(UNIT, signal),
            None => process::signal(&self.process(), signal),
        }
    }

    /// `ringward-agent status --json`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Value, LabError> {
        let text = command::finish("ask an agent", &mut self.command(&["status", "--json"])?)?;
        serde_json::from_str(&text).map_err(|error| LabError::Machine(format!("{error}: {text}")))
    }

    /// How its firewall stands, as operators ask for it: `in_force`, `on_trial …`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn firewall(&self) -> Result<String, LabError> {
        command::finish("ask an agent", &mut self.command(&["firewall", "status"])?)
    }

    /// The sum of a metric's series, as Prometheus on the node reads them.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metric(&self, name: &str) -> Result<f64, LabError> {
        let url = "http://127.0.0.1:9465/metrics";
        let broken = |error: ureq::Error| LabError::Machine(format!("{} {url}: {error}", self.node()));
        let read = || ureq::get(url).call().and_then(|mut answer| answer.body_mut().read_to_string());
        let text = self.host.inside(|| read().map_err(broken))?;
        let of = |line: &&str| line.split(['{', ' ']).next() == Some(name);
        Ok(text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Its pid as this machine counts, if it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.machine {
            Some(machine) => machine.main_pid(UNIT),
            None => process::alive(&self.process()),
        }
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, LabError> {
        if let Some(machine) = &self.machine {
            return machine.command(&[&["ringward-agent"], arguments].concat());
        }
        let mut command = self.host.in_namespace();
        command.arg(match self.build {
            Build::Beside => program::program("ringward-agent")?,
            Build::Release => program::release_program("ringward-agent")?,
        });
        command.args(arguments);
        command.env("RINGWARD_AGENT_CONFIG", self.settings_file());
        Ok(command)
    }

    fn settings_file(&self) -> PathBuf {
        self.host.folder().join("agent.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.host.folder().join("log/agent.log")
    }

    fn process(&self) -> String {
        format!("agent-{}", self.node())
    }
}

/// Settings of firewall and jails.
fn hardened(hardening: Hardening, is_booted: bool) -> String {
    let Hardening::On { forgeable_bans_per_minute_max } = hardening else { return String::new() };
    // Beside a mere process there is no systemd, and no journal but that of the machine which the lab runs on.
    let alone = if is_booted { "" } else { "timer = \"process\"\n[rules.jails.sshd]\nenabled = false\n" };
    format!(
        "[firewall]\nmode = \"on\"\n{alone}[rules]\nforgeable_bans_per_minute_max = {forgeable_bans_per_minute_max}\n"
    )
}
