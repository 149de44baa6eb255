//! Commit-confirm: a change of rules is on trial until it is confirmed, and whoever does not confirm it gets the
//! old rules back from a timer outside this program.
//!
//! ```text
//!            begin: trial and the way back on disk,          confirmed: a control plane's message and an
//!            timer armed, then the rules                     operator's new handshake, both after the change
//! Confirmed ─────────────────────────────────────▶ On trial ─────────────────────────────────────▶ Confirmed
//!     ▲                                               │ the time is over: the timer runs `firewall revert`
//!     └───────────────────────────────────────────────┘ the old rules again; these are not tried again by themselves
//! ```
//!
//! Who confirms and who reverts hold the same lock and look at the same file, so that one of them wins. An agent
//! that is killed on trial, and one that never comes back, change nothing of that.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use node_agent_core::firewall::{Policy, TABLE};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::AsyncReadExt,
    process::Command,
    time::{sleep, timeout},
};

use super::{KernelError, Nft};
use crate::{identity::StateDir, settings::RevertTimer};

const CONFIRMED: &str = "firewall-confirmed.json";
const TRIAL: &str = "firewall-trial.json";
const REJECTED: &str = "firewall-rejected.json";
const WAY_BACK: &str = "firewall-revert.nft";
const LOCK: &str = "firewall.lock";
/// Whoever holds the lock runs nft meanwhile, once or twice.
const LOCK_WAIT: Duration = Duration::from_secs(45);
/// Until the timer says that it is armed.
const ARM_WAIT: Duration = Duration::from_secs(5);
/// How often the way back is tried, a second apart, before the whole table goes.
const TRIES: u32 = 5;
/// What the timer's process says once it stands by itself.
pub(crate) const ARMED: &[u8] = b"armed\n";

/// Rules that were confirmed, and what they were made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    pub(crate) policy: Policy,
    /// As rendered then: a later version of this program may render the policy differently.
    pub(crate) script: String,
}

/// Rules on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) change: String,
    pub(crate) rules: Confirmed,
    pub(crate) reverts_at_unix_ms: u64,
    /// The timer does not outlive a reboot.
    pub(crate) boot: String,
}

/// Why a change is not begun, confirmed or reverted.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// State directory.
    #[error("the state directory: {0}")]
    Io(#[from] io::Error),
    /// Another holds the lock for too long.
    #[error("another process holds {LOCK} in the state directory")]
    Locked,
    /// No timer, no change.
    #[error("no timer could be armed: {0}")]
    Timer(String),
    /// Nobody confirmed it.
    #[error("the change of rules was reverted just now")]
    Reverted,
    /// nft.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What stands on disk of confirmed rules and trials.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(StateDir);

/// Held while rules are changed.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "held for its lock")] File);

impl Ledger {
    pub(crate) fn new(state: StateDir) -> Self {
        Self(state)
    }

    pub(crate) async fn lock(&self) -> Result<Lock, TrialError> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.0.path(LOCK))?;
        let take = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(20)).await,
                    Err(TryLockError::Error(error)) => return Err(error),
                }
            }
        };
        timeout(LOCK_WAIT, take).await.map_err(|_| TrialError::Locked)??;
        Ok(Lock(file))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = fs::read(self.0.path(name)).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::error!(name, %error, "a file of the firewall cannot be read"))
            .ok()
    }

    fn write<T: Serialize>(&self, name: &str, content: &T) -> io::Result<()> {
        self.0.write(name, &serde_json::to_vec_pretty(content)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn confirmed(&self) -> Option<Confirmed> {
        self.read(CONFIRMED)
    }

    pub(crate) fn trial(&self) -> Option<Trial> {
        self.read(TRIAL)
    }

    /// Rules that were reverted and are not tried again by themselves.
    pub(crate) fn rejected(&self) -> Option<Confirmed> {
        self.read(REJECTED)
    }

    pub(crate) fn forgive(&self) -> io::Result<()> {
        self.remove(REJECTED)
    }

    /// Before the rules: the way back, then the trial.
    pub(crate) fn begin(&self, trial: &Trial, way_back: &str) -> io::Result<()> {
        self.0.write(WAY_BACK, way_back.as_bytes())?;
        self.write(TRIAL, trial)
    }

    /// These rules are good.
    pub(crate) fn confirm(&self, rules: &Confirmed) -> io::Result<()> {
        self.write(CONFIRMED, rules)?;
        self.remove(REJECTED)?;
        self.remove(TRIAL)
    }

    /// Nothing was changed after all.
    pub(crate) fn cancel(&self) -> io::Result<()> {
        self.remove(TRIAL)
    }

    /// Brings the old rules back if this change (or any, without a name) is still on trial. The lock is to be held.
    pub(crate) async fn revert(&self, nft: &Nft, change: Option<&str>) -> Result<bool, TrialError> {
        let Some(trial) = self.trial().filter(|trial| change.is_none_or(|change| trial.change == change))
        else {
            return Ok(false);
        };
        let way_back = fs::read_to_string(self.0.path(WAY_BACK)).unwrap_or_else(|_| remove_table());
        let mut outcome = nft.load(&way_back).await;
        for _ in 1..TRIES {
            if outcome.is_ok() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
            outcome = nft.load(&way_back).await;
        }
        if let Err(error) = outcome {
            tracing::error!(%error, "the old rules cannot be brought back: the table goes");
            nft.load(&remove_table()).await?;
        }
        self.write(REJECTED, &trial.rules)?;
        self.remove(TRIAL)?;
        Ok(true)
    }
}

/// Our table and nothing else; right where it is absent, too.
#[must_use]
pub fn remove_table() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

/// This run of the kernel.
pub(crate) fn boot() -> String {
    let mut text = String::new();
    let read =
        File::open("/proc/sys/kernel/random/boot_id").and_then(|mut file| file.read_to_string(&mut text));
    if read.is_ok() { text.trim().to_owned() } else { "unknown".to_owned() }
}

/// What arms the timer.
#[derive(Debug, Clone)]
pub struct Timer {
    /// This very program.
    pub program: PathBuf,
    /// Where the way back lies.
    pub state_dir: PathBuf,
    /// What runs it.
    pub nft: PathBuf,
    /// Of the settings.
    pub kind: RevertTimer,
}

impl Timer {
    /// Reverts this change in so many seconds, whatever becomes of this process.
    pub(crate) async fn arm(&self, change: &str, seconds: u32) -> Result<(), TrialError> {
        let by_systemd = match self.kind {
            RevertTimer::Systemd => true,
            RevertTimer::Process => false,
            RevertTimer::Auto => fs::exists("/run/systemd/system").unwrap_or(false),
        };
        if by_systemd {
            self.by_systemd(change, seconds).await
        } else {
            self.by_process(change, seconds).await
        }
    }

    fn revert(&self, command: &mut Command, change: &str) {
        command.args(["firewall", "revert", "--change", change, "--state-dir"]).arg(&self.state_dir);
        command.arg("--nft").arg(&self.nft);
    }

    async fn by_systemd(&self, change: &str, seconds: u32) -> Result<(), TrialError> {
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--collect", "--timer-property=AccuracySec=100ms"]);
        command.args([format!("--unit=ringward-revert-{change}"), format!("--on-active={seconds}")]);
        command.arg("--").arg(&self.program).stdin(Stdio::null()).kill_on_drop(true);
        self.revert(&mut command, change);
        let failed = |problem: String| TrialError::Timer(format!("systemd-run: {problem}"));
        let done =
            timeout(ARM_WAIT, command.output()).await.map_err(|_| failed("takes too long".to_owned()))?;
        let output = done.map_err(|error| failed(error.to_string()))?;
        let words = || failed(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        if output.status.success() { Ok(()) } else { Err(words()) }
    }

    /// It stands in a session of its own and is told nothing more.
    async fn by_process(&self, change: &str, seconds: u32) -> Result<(), TrialError> {
        let failed = |problem: String| TrialError::Timer(format!("{}: {problem}", self.program.display()));
        let mut command = Command::new(&self.program);
        self.revert(&mut command, change);
        command.args(["--after", &seconds.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let mut said = [0; ARMED.len()];
        let Some(mut output) = child.stdout.take() else { return Err(failed("has no output".to_owned())) };
        match timeout(ARM_WAIT, output.read_exact(&mut said)).await {
            Ok(Ok(_)) if said == ARMED => Ok(()),
            Ok(Ok(_)) => Err(failed("says something else".to_owned())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => {
                let _ = child.start_kill();
                Err(failed("does not say that it is armed".to_owned()))
            }
        }
    }
}

/// `firewall revert`: what the timer runs.
///
/// # Errors
/// [`TrialError`].
pub async fn revert(
    state_dir: &std::path::Path,
    nft: &Nft,
    change: Option<&str>,
) -> Result<bool, TrialError> {
    let ledger = Ledger::new(StateDir::open(state_dir)?);
    let _lock = ledger.lock().await?;
    ledger.revert(nft, change).await
}
