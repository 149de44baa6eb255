//! What systemd is told, where it started this program (`sd_notify(3)`): that it serves, that it lives, that it stops. Started by
//! anybody else it tells nobody.

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// Signs of life within the time after which systemd takes the program for dead (`WatchdogSec=`).
const SIGNS: u32 = 3;

/// It serves. From now on it gives signs of life, for as long as its runtime turns: one that hangs is started anew.
pub(crate) fn serves() {
    tell(&[NotifyState::Ready]);
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    tokio::spawn(async move {
        let mut ticks = interval(within / SIGNS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    });
}

/// It was told to stop, and does.
pub(crate) fn stops() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd is not told how this program stands");
    }
}
