//! Who reverts a change of rules that nobody confirms: a process outside the agent's unit and session.
//!
//! ```text
//!                 there is a trial                 the way back was tried on paper
//! Nobody needed ──────────────────▶ Takes its post ────────────────────────────────▶ On guard
//!      ▲                                                                               │ the trial's time is over:
//!      └───────────────────────────────────────────────────────────────────────────────┘ reverts; or it was confirmed
//! ```
//!
//! Where systemd runs the host, `ringward-agent-guard.path` starts it as a unit of its own as soon as there is a
//! trial, and again whenever it ends while the trial is there, also after a restart of the host. Elsewhere the agent
//! starts it in a session of its own. The agent believes in it as long as it holds its lock, and moves no rule before.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::Command,
    time::{sleep, timeout},
};

use super::{
    Nft,
    ledger::{LOCK_WAIT, Ledger, Trial, TrialError},
};
use crate::{identity::StateDir, settings::RevertTimer};

/// Locked by who stands guard; holds the name of the change that it guards.
const POST: &str = "firewall-guard";
/// The unit that starts it.
const UNIT: &str = "ringward-agent-guard.path";
/// From a trial on disk until its guard stands: systemd starts a process meanwhile, on a busy machine.
pub(super) const ARM_WAIT: Duration = Duration::from_secs(10);
/// Between two looks of the agent for its guard.
const ARM_LOOK: Duration = Duration::from_millis(20);
/// Between two looks of the guard at the trial.
const LOOK: Duration = Duration::from_millis(100);

/// How a guard comes to stand.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// This very program.
    pub(crate) program: PathBuf,
    /// Where the trial lies.
    pub(crate) state_dir: PathBuf,
    /// Of the settings.
    pub(crate) kind: RevertTimer,
}

fn is_unit(kind: RevertTimer) -> bool {
    match kind {
        RevertTimer::Systemd => true,
        RevertTimer::Process => false,
        RevertTimer::Auto => fs::exists("/run/systemd/system").unwrap_or(false),
    }
}

/// For `check`: whether a change would find its guard.
pub(crate) async fn check(kind: RevertTimer) -> anyhow::Result<()> {
    if !is_unit(kind) {
        return Ok(());
    }
    let asked = Command::new("systemctl").args(["is-active", "--quiet", UNIT]).stdin(Stdio::null()).status();
    let is_active = asked.await.is_ok_and(|status| status.success());
    anyhow::ensure!(
        is_active,
        "{UNIT} does not watch, so no rule is changed: `systemctl enable --now {UNIT}`"
    );
    Ok(())
}

impl Guard {
    fn is_unit(&self) -> bool {
        is_unit(self.kind)
    }

    /// Comes back once somebody outside stands ready to revert this trial.
    pub(crate) async fn stand(&self, ledger: &Ledger, trial: &Trial) -> Result<(), TrialError> {
        if !self.is_unit() && !is_guarded(ledger, &trial.change) {
            self.start()?;
        }
        let stands = async {
            while !is_guarded(ledger, &trial.change) {
                sleep(ARM_LOOK).await;
            }
        };
        timeout(ARM_WAIT, stands).await.map_err(|_| {
            TrialError::Unguarded(if self.is_unit() {
                format!(
                    "{UNIT} has started no guard: `systemctl enable --now {UNIT}`, see `journalctl -u \
                     ringward-agent-guard`, then `ringward-agent firewall apply`"
                )
            } else {
                format!("`{} firewall guard` does not take its post", self.program.display())
            })
        })
    }

    fn start(&self) -> Result<(), TrialError> {
        let mut command = Command::new(&self.program);
        command.args(["firewall", "guard", "--own-session", "--state-dir"]).arg(&self.state_dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = command.spawn().map(drop);
        started.map_err(|error| TrialError::Unguarded(format!("{}: {error}", self.program.display())))
    }
}

/// Whether somebody holds the post for this change.
pub(crate) fn is_guarded(ledger: &Ledger, change: &str) -> bool {
    let Ok(post) = File::open(ledger.path(POST)) else { return false };
    let is_held = matches!(post.try_lock_shared(), Err(TryLockError::WouldBlock));
    is_held && fs::read_to_string(ledger.path(POST)).is_ok_and(|text| text == change)
}

/// The post, held until it is dropped or its process ends.
struct Post(File);

impl Post {
    /// `None` while another stands there.
    fn take(ledger: &Ledger) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(ledger.path(POST))?;
        match file.try_lock() {
            Ok(()) => {
                // What another left says nothing of this one.
                file.set_len(0)?;
                Ok(Some(Self(file)))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn guards(&self, change: &str) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.write_all_at(change.as_bytes(), 0)
    }
}

/// Guards the trial in this state directory, to its end; comes back at once where there is none. `say` is told what
/// happens.
///
/// # Errors
/// [`TrialError`]: somebody has to start it again.
pub async fn guard(state_dir: &Path, say: fn(&str)) -> Result<(), TrialError> {
    let ledger = Ledger::new(StateDir::open(state_dir)?);
    keep_guard(&ledger, LOCK_WAIT, say).await
}

async fn keep_guard(ledger: &Ledger, lock_wait: Duration, say: fn(&str)) -> Result<(), TrialError> {
    let (mut post, mut guarded) = (None, String::new());
    while let Some(trial) = ledger.trial() {
        let nft = Nft::new(trial.nft.clone());
        let left_ms = trial.ends.left_ms();
        if left_ms <= 0 {
            // Whoever holds the lock for so long is frozen, and must not hold up the way back.
            let lock = ledger.lock_within(lock_wait).await;
            let _lock = if matches!(lock, Err(TrialError::Locked)) { None } else { Some(lock?) };
            if ledger.revert(&nft, Some(&trial.change)).await? {
                say(&format!("nobody confirmed the change {}: the old rules stand again", trial.change));
            }
            continue;
        }
        if post.is_none() {
            post = Post::take(ledger)?;
        }
        if let Some(post) = &post
            && guarded != trial.change
        {
            nft.check(&ledger.way_back()).await?;
            post.guards(&trial.change)?;
            guarded.clone_from(&trial.change);
            say(&format!("the change {guarded} is reverted in {} s unless it is confirmed", left_ms / 1000));
        }
        sleep(LOOK.min(Duration::from_millis(left_ms.unsigned_abs()))).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use node_agent_core::firewall::Policy;

    use super::{
        super::{ledger::Confirmed, uptime::Uptime},
        *,
    };

    fn silent(_: &str) {}

    fn trial(change: &str, seconds: u64, nft: &str) -> Trial {
        Trial {
            change: change.to_owned(),
            rules: Confirmed { policy: Policy::default(), script: "rules".to_owned() },
            ends: Uptime::now().unwrap().plus(Duration::from_secs(seconds)),
            reverts_at_unix_ms: 0,
            nft: PathBuf::from(nft),
        }
    }

    fn ledger() -> (tempfile::TempDir, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(StateDir::open(dir.path()).unwrap());
        (dir, ledger)
    }

    #[tokio::test]
    async fn a_post_is_believed_while_it_is_held_and_names_the_change() {
        let (_dir, ledger) = ledger();
        assert!(!is_guarded(&ledger, "a"));
        let post = Post::take(&ledger).unwrap().unwrap();
        assert!(!is_guarded(&ledger, "a"), "nothing was tried yet");
        post.guards("a").unwrap();
        assert!(is_guarded(&ledger, "a") && !is_guarded(&ledger, "b"));
        assert!(Post::take(&ledger).unwrap().is_none(), "one at a time");
        drop(post);
        assert!(!is_guarded(&ledger, "a"), "what is left of it proves nothing");
    }

    #[tokio::test]
    async fn a_guard_stays_to_the_end_and_waits_for_nobody_who_is_frozen() {
        let (_dir, ledger) = ledger();
        // A program that takes every script.
        ledger.begin(&trial("a", 1, "true"), "way back").unwrap();
        let _frozen = ledger.lock().await.unwrap();
        let guard = tokio::spawn({
            let ledger = ledger.clone();
            async move { keep_guard(&ledger, Duration::from_millis(200), silent).await }
        });
        sleep(Duration::from_millis(500)).await;
        assert!(is_guarded(&ledger, "a") && ledger.trial().is_some());
        timeout(Duration::from_secs(5), guard).await.unwrap().unwrap().unwrap();
        assert!(ledger.trial().is_none());
        assert_eq!(ledger.rejected().unwrap().script, "rules");
    }

    #[tokio::test]
    async fn a_confirmed_change_needs_no_guard_and_a_way_back_that_does_not_work_has_none() {
        let (_dir, ledger) = ledger();
        ledger.begin(&trial("a", 60, "true"), "way back").unwrap();
        let guard = tokio::spawn({
            let ledger = ledger.clone();
            async move { keep_guard(&ledger, LOCK_WAIT, silent).await }
        });
        sleep(Duration::from_millis(500)).await;
        assert!(is_guarded(&ledger, "a"));
        ledger.confirm(&trial("a", 60, "true").rules).unwrap();
        timeout(Duration::from_secs(5), guard).await.unwrap().unwrap().unwrap();
        assert!(ledger.rejected().is_none() && !is_guarded(&ledger, "a"));

        ledger.begin(&trial("b", 60, "false"), "way back").unwrap();
        assert!(keep_guard(&ledger, LOCK_WAIT, silent).await.is_err());
        assert!(!is_guarded(&ledger, "b"));
    }
}
