//! How many starts a second may hold.
//!
//! The control plane keeps `cps_max` exactly, in any one second, as it sends. What it sent evenly arrives bunched
//! after a stall of the network or of a busy host (measured: at 100 a second on a loaded machine, some seconds
//! held more than 125). The gate is there for a control plane that keeps no pace at all, and refuses no honest
//! one: it admits twice `cps_max` in any one second, and in any ten seconds eleven times `cps_max`.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);
const SPAN_S: u32 = 10;
/// The fastest pace.
const CPS_MAX: u32 = 10_000;

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Of the last [`SPAN_S`] seconds, oldest first.
    starts: VecDeque<Instant>,
}

impl Pace {
    pub(super) fn is_free(&mut self, cps_max: u32, now: Instant) -> bool {
        while self.starts.front().is_some_and(|start| *start + SECOND * SPAN_S <= now) {
            self.starts.pop_front();
        }
        let cps_max = cps_max.min(CPS_MAX) as usize;
        let of_span = self.starts.len();
        // The start so many places back must be a second old.
        let of_second = (2 * cps_max).checked_sub(1).and_then(|back| self.starts.iter().rev().nth(back));
        of_span < cps_max * (SPAN_S as usize + 1) && of_second.is_none_or(|start| *start + SECOND <= now)
    }

    pub(super) fn take(&mut self, now: Instant) {
        self.starts.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a test's origin of time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn admitted(pace: &mut Pace, cps_max: u32, at: Instant, offered: usize) -> usize {
        (0..offered).filter(|_| pace.is_free(cps_max, at).then(|| pace.take(at)).is_some()).count()
    }

    #[test]
    fn a_flood_gets_twice_the_pace_at_once_and_little_more_than_the_pace_in_the_long_run() {
        let (now, mut pace) = (start(), Pace::default());
        let ms = |ms| now + Duration::from_millis(ms);
        assert_eq!(admitted(&mut pace, 4, ms(0), 100), 8);
        assert_eq!(admitted(&mut pace, 4, ms(999), 100), 0);
        let in_ten_seconds: usize =
            (10..100).map(|tenth| admitted(&mut pace, 4, ms(tenth * 100 - 1), 100)).sum();
        assert_eq!(8 + in_ten_seconds, 44);
        assert_eq!(admitted(&mut Pace::default(), 0, now, 5), 0);
    }

    #[test]
    fn an_honest_pace_is_never_refused_though_a_stall_bunches_it() {
        let (now, mut pace) = (start(), Pace::default());
        for second in 0..60_u64 {
            // Each fifth second's starts arrive with the next one's.
            let (count, late) = match second % 5 {
                3 => (0, 0),
                4 => (20, 0),
                _ => (10, second),
            };
            let at = now + Duration::from_secs(second) + Duration::from_millis(late);
            assert_eq!(admitted(&mut pace, 10, at, count), count, "second {second}");
        }
    }
}
