//! Commit-confirm on disk: a change of rules is on trial until it is confirmed, and whoever does not confirm it gets the
//! old rules back from a guard outside this program (`guard`).
//!
//! ```text
//!            begin: the way back and the trial on disk,      confirmed: a word of the control plane's or the node's
//!            a guard stands, then the rules                  operator's, and a new handshake, both after the change
//! Confirmed ─────────────────────────────────────▶ On trial ─────────────────────────────────────▶ Confirmed
//!     ▲                                               │ the time is over, or the host was restarted: the guard reverts
//!     └───────────────────────────────────────────────┘ the old rules again; these are not tried again by themselves
//! ```
//!
//! Who confirms and who reverts hold the same lock and look at the same file, so that one of them wins. An agent
//! that is killed on trial, and one that never comes back, change nothing of that.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::Duration,
};

use node_agent_core::firewall::{Policy, TABLE};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{sleep, timeout};

use super::{KernelError, Nft, uptime::Uptime};
use crate::identity::StateDir;

const CONFIRMED: &str = "firewall-confirmed.json";
const TRIAL: &str = "firewall-trial.json";
const REJECTED: &str = "firewall-rejected.json";
const WAY_BACK: &str = "firewall-revert.nft";
const LOCK: &str = "firewall.lock";
/// Whoever holds the lock runs nft meanwhile, once or twice.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(45);
/// How often the way back is tried, a second apart, before the whole table goes.
const TRIES: u32 = 5;

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
    /// When they are reverted. The wall clock has no part in it.
    pub(crate) ends: Uptime,
    /// The same by the wall clock, for people.
    pub(crate) reverts_at_unix_ms: u64,
    /// The program nft: the guard reads no settings.
    pub(crate) nft: PathBuf,
}

impl Trial {
    /// What stands for a file that cannot be read: rules that nobody knows are over at once.
    fn unreadable() -> Self {
        Self {
            change: "unreadable".to_owned(),
            rules: Confirmed { policy: Policy::default(), script: String::new() },
            ends: Uptime::long_ago(),
            reverts_at_unix_ms: 0,
            nft: PathBuf::from("nft"),
        }
    }
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
    /// No guard, no change.
    #[error("nobody would revert the change: {0}")]
    Unguarded(String),
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
        self.lock_within(LOCK_WAIT).await
    }

    pub(super) async fn lock_within(&self, wait: Duration) -> Result<Lock, TrialError> {
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
        timeout(wait, take).await.map_err(|_| TrialError::Locked)??;
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
        let is_there = fs::exists(self.0.path(TRIAL)).unwrap_or(true);
        is_there.then(|| self.read(TRIAL).or_else(|| self.still_there()))?
    }

    /// A trial that cannot be read, unless it has ended between two looks.
    fn still_there(&self) -> Option<Trial> {
        fs::exists(self.0.path(TRIAL)).unwrap_or(true).then(Trial::unreadable)
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

    /// The guard stands: the rules move now, and their time counts from here.
    pub(crate) fn go_on(&self, trial: &Trial) -> io::Result<()> {
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

    pub(super) fn way_back(&self) -> String {
        fs::read_to_string(self.0.path(WAY_BACK)).unwrap_or_else(|_| remove_table())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// Brings the old rules back if this change (or any, without a name) is still on trial. The lock is to be held.
    pub(crate) async fn revert(&self, nft: &Nft, change: Option<&str>) -> Result<bool, TrialError> {
        let Some(trial) = self.trial().filter(|trial| change.is_none_or(|change| trial.change == change))
        else {
            return Ok(false);
        };
        let way_back = self.way_back();
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

/// `firewall revert`: the old rules now, if there is a change on trial.
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
