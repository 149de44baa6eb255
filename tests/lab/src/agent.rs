//! The agent of a PBX: the program `ringward-agent` in the PBX's network namespace.
use crate::pbx::AmiUser;
use crate::{HostName, LabError, Signal, clock, command, process, program};
use serde_json::Value;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// From the start to the first answer.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// What the lab asks of a PBX is more than a small one should admit.
const GATE: &str = "[gate]\nchannels_max = 5000\ncps_max = 2000\n";

/// The agent of a PBX.
#[derive(Clone, Debug)]
pub struct Agent {
    host: HostName,
}

impl Agent {
    pub(crate) fn new(host: HostName) -> Self {
        Agent { host }
    }

    /// The PBX that it is on.
    #[must_use]
    pub fn node(&self) -> &str {
        self.host.as_str()
    }

    /// Its state directory: identity, facts that wait, the gate's journal.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.host.folder().join("agent")
    }

    /// Its log, since the lab's start.
    ///
    /// # Errors
    /// There is none.
    pub fn log(&self) -> Result<String, LabError> {
        let path = self.log_file();
        fs::read_to_string(&path).map_err(LabError::file("read", path))
    }

    /// Writes its settings.
    pub(crate) fn configure(&self) -> Result<(), LabError> {
        let folder = self.host.folder();
        let secret = |user: AmiUser| folder.join(format!("{}.secret", user.username()));
        let text = format!(
            "state_dir = \"{}\"\nrtp_conf = \"{}\"\ndisk = \"{}\"\n\
             [ami]\naddress = \"127.0.0.1:5038\"\nusername = \"{}\"\nsecret_file = \"{}\"\n\
             [observer]\naddress = \"127.0.0.1:5038\"\nusername = \"{}\"\nsecret_file = \"{}\"\n{GATE}",
            self.state_dir().display(),
            folder.join("etc/rtp.conf").display(),
            folder.join("spool").display(),
            AmiUser::Calls.username(),
            secret(AmiUser::Calls).display(),
            AmiUser::Agent.username(),
            secret(AmiUser::Agent).display(),
        );
        let path = self.settings_file();
        fs::write(&path, text).map_err(LabError::file("write", path))
    }

    /// `ringward-agent join TOKEN`, as the operator types it; gives what it said and how it ended.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn join(&self, arguments: &[&str]) -> Result<Output, LabError> {
        let mut command = self.command()?;
        command.arg("join").args(arguments).stdin(Stdio::null());
        command.output().map_err(|source| LabError::Start {
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
        let path = self.log_file();
        let open =
            || File::options().create(true).append(true).open(&path).map_err(LabError::file("open", &path));
        let mut command = self.command()?;
        command.arg("run").stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        process::spawn(&self.process(), command)?;
        let what = format!("the agent of {} to answer", self.node());
        let hint = format!("see {}", path.display());
        clock::wait_until(&what, READY_WITHIN, &hint, || self.status().is_ok()).map(|_| ())
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> Result<(), LabError> {
        process::end(&self.process())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        process::signal(&self.process(), signal)
    }

    /// `ringward-agent status --json`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Value, LabError> {
        let mut command = self.command()?;
        let text = command::finish("ask an agent", command.args(["status", "--json"]))?;
        serde_json::from_str(&text).map_err(|error| LabError::Machine(format!("{error}: {text}")))
    }

    fn command(&self) -> Result<Command, LabError> {
        let mut command = self.host.in_namespace();
        command.arg(program::program("ringward-agent")?);
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
