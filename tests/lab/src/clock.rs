//! The lab waits for real processes, so it reads the real clock: here, and nowhere else.
#![allow(
    clippy::disallowed_methods,
    reason = "the lab waits for real processes; nothing here decides a rule"
)]
use crate::LabError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits.
pub fn pause(how_long: Duration) {
    std::thread::sleep(how_long);
}

/// The current moment, for measuring how long something took.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The current moment since 1970, by the clock that captures, databases and logs are written with.
#[must_use]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970, for names of files.
pub(crate) fn epoch_s() -> u64 {
    since_1970().as_secs()
}

/// Waits until `is_so` answers true, looking every 20 ms; an error names `what` after `at_most`.
pub fn wait_until(
    what: &str,
    at_most: Duration,
    hint: &str,
    mut is_so: impl FnMut() -> bool,
) -> Result<Duration, LabError> {
    let start = now();
    loop {
        if is_so() {
            return Ok(start.elapsed());
        }
        if start.elapsed() >= at_most {
            return Err(LabError::Timeout { what: what.into(), waited: at_most, hint: hint.into() });
        }
        pause(LOOK_EVERY);
    }
}
