//! Ours: `ringward-agent jail test`, and the running agent, in the optimised build.
use super::super::{cpu_time, cpu_time_of_ended, release};
use super::log::Log;
use super::{Taken, Words, followed};
use anyhow::{Context as _, ensure};
use lab::memory;
use lab::{ControlPlane, now};
use serde_json::Value;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const NODE: &str = "pbx-1";
const JAIL: &str = "asterisk_log";
/// For the agent to follow its log.
const START_MAX: Duration = Duration::from_secs(20);
/// From then until it is at rest.
const SETTLE: Duration = Duration::from_secs(1);

/// One `jail test`.
pub(super) fn test(path: &Path, log: &Log) -> anyhow::Result<Taken> {
    let (began, cpu) = (now(), cpu_time_of_ended()?);
    let mut child = Command::new(release("ringward-agent")?)
        .args(["jail", "test", "--jail", JAIL])
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .context("start ringward-agent")?;
    // What it says is less than a pipe holds, so it need not be read meanwhile.
    let mut peak_mb = 0.0_f64;
    while child.try_wait()?.is_none() {
        peak_mb = peak_mb.max(memory::peak_mb(child.id()).unwrap_or_default());
        lab::pause(Duration::from_millis(3));
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu_s = cpu_time_of_ended()?.saturating_sub(cpu).as_secs_f64();
    let said = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let offences: u64 = text.lines().filter_map(hits).sum();
    ensure!(
        said.status.success()
            && text.contains(&format!("Lines: {} lines", log.lines))
            && offences == log.offences,
        "it read something else: {offences} offences of {}: {text}",
        log.offences
    );
    Ok(Taken { seconds, cpu_s, peak_mb })
}

/// Of a line such as `   3) [40012] invalid_account: …`; none for logins and for what is ignored.
fn hits(line: &str) -> Option<u64> {
    let (count, what) = line.split_once(") [")?.1.split_once("] ")?;
    let is_offence = !what.starts_with("success:") && !what.starts_with("ignore:");
    is_offence.then(|| count.parse().ok()).flatten()
}

/// A control plane, and an agent that joined it, as on a PBX that follows Asterisk's log.
pub(super) struct Agent {
    folder: PathBuf,
    // Stops with it.
    _plane: ControlPlane,
}

/// Ends with its run.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    pub(super) fn join(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.join("agent");
        std::fs::create_dir_all(&folder)?;
        let fleet = format!("[[node]]\nname = \"{NODE}\"\nregion = \"lab\"\n");
        let plane = ControlPlane::start(&folder.join("plane"), &fleet)?;
        // Without the breaker, which fail2ban has not: it would hold most of these bans back.
        let settings = format!(
            "state_dir = \"{0}/state\"\naudio.folder = \"{0}/sounds\"\nmetrics.listen = \"127.0.0.1:{1}\"\n\
             [firewall]\nmode = \"simulate\"\n\
             [rules]\nforgeable_bans_per_minute_max = 1000000\n\
             [rules.jails.asterisk]\nenabled = false\n[rules.jails.sshd]\nenabled = false\n\
             [rules.jails.{JAIL}]\nenabled = true\n\
             [jails.{JAIL}]\nfiles = [\"{0}/followed.log\"]\n",
            folder.display(),
            free_port()?,
        );
        std::fs::write(folder.join("agent.toml"), settings)?;
        let agent = Self { folder, _plane: plane };
        let token = agent._plane.token(NODE)?;
        let joined = agent.command(&["join", &token])?.output()?;
        ensure!(joined.status.success(), "it did not join: {}", String::from_utf8_lossy(&joined.stderr));
        Ok(agent)
    }

    fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(release("ringward-agent")?);
        command.arg("--config").arg(self.folder.join("agent.toml")).args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// In a process that knows nobody yet.
    pub(super) fn follow(&self, log: &Log) -> anyhow::Result<Taken> {
        for known in ["repeaters.json".to_owned(), format!("places.{JAIL}.json")] {
            match std::fs::remove_file(self.folder.join("state").join(known)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        let (file, said) = (self.folder.join("followed.log"), self.folder.join("agent.log"));
        std::fs::write(&file, "")?;
        let agent = self
            .command(&["run"])?
            .stdout(Stdio::null())
            .stderr(File::create(&said)?)
            .spawn()
            .context("start ringward-agent")?;
        let agent = Running(agent);
        let mut words = Words(File::open(&said)?);
        words.wait_for("reads 1 files", START_MAX)?;
        lab::pause(SETTLE);
        let cpu = cpu_time(agent.0.id())?;
        let seconds = followed(&file, log, &mut words, "would be banned: a dry run net=")?;
        let cpu_s = cpu_time(agent.0.id())?.saturating_sub(cpu).as_secs_f64();
        let status = self.command(&["jail", "status", "--json"])?.output()?;
        let status: Value = serde_json::from_slice(&status.stdout).context("jail status")?;
        let of = &status["jails"][JAIL];
        let sum = |what: &str| -> u64 {
            of[what].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
        };
        ensure!(
            (sum("lines"), sum("offences"), sum("lost")) == (log.lines, log.offences, 0),
            "it read something else: {of}"
        );
        Ok(Taken { seconds, cpu_s, peak_mb: memory::peak_mb(agent.0.id())? })
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
