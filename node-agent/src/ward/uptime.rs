//! Moments of one run of the kernel, for deadlines that must hold whatever becomes of the wall clock, of this process
//! and of the host: time in suspend counts, and another run of the kernel is after all of them.

use std::{fs, io, time::Duration};

use serde::{Deserialize, Serialize};

/// A moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Uptime {
    boot: String,
    ms: u64,
}

impl Uptime {
    /// Now, to 10 ms.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(crate) fn now() -> io::Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        // By CLOCK_BOOTTIME, and by this container's own where it has a clock of its own.
        let ms = parse(&fs::read_to_string("/proc/uptime")?);
        let ms = ms.ok_or_else(|| io::Error::other("/proc/uptime is not understood"))?;
        Ok(Self { boot, ms })
    }

    /// Before every other moment.
    pub(crate) fn long_ago() -> Self {
        Self { boot: String::new(), ms: 0 }
    }

    pub(crate) fn plus(mut self, time: Duration) -> Self {
        self.ms = self.ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Milliseconds from now until then; negative once it is over.
    pub(crate) fn left_ms(&self) -> i64 {
        // Who cannot tell must not wait.
        Self::now().map_or(i64::MIN, |now| self.left_ms_at(&now))
    }

    fn left_ms_at(&self, now: &Self) -> i64 {
        if self.boot != now.boot {
            return i64::MIN;
        }
        let ms = |of: &Self| i64::try_from(of.ms).unwrap_or(i64::MAX);
        ms(self).saturating_sub(ms(now))
    }
}

fn parse(uptime: &str) -> Option<u64> {
    let (seconds, hundredths) = uptime.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = hundredths.get(..2)?.parse().ok()?;
    seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(hundredths * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_over_by_this_kernels_time_and_in_every_other_run_of_it() {
        assert_eq!(parse("350735.47 234388.90\n"), Some(350_735_470));
        assert_eq!((parse(""), parse("1"), parse("x.00 1")), (None, None, None));
        let at = |boot: &str, ms| Uptime { boot: boot.to_owned(), ms };
        let ends = at("a", 5_000).plus(Duration::from_secs(60));
        for (now, left) in [
            (at("a", 5_000), 60_000),
            (at("a", 65_000), 0),
            (at("a", 70_000), -5_000),
            (at("b", 1), i64::MIN),
            (at("", 0), i64::MIN),
        ] {
            assert_eq!(ends.left_ms_at(&now), left, "{now:?}");
        }
        assert!(Uptime::long_ago().left_ms() < 0);
        let soon = Uptime::now().unwrap().plus(Duration::from_secs(9)).left_ms();
        assert!((8_000..=9_000).contains(&soon), "{soon}");
    }
}
