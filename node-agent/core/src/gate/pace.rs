//! How many starts one second may hold.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);
/// Most starts remembered, and so the fastest pace.
const STARTS_MAX: u32 = 10_000;

/// At most so many starts in any one second. The control plane keeps the pace exactly; what it sent evenly
/// can arrive bunched, so the gate, which is there for a control plane that keeps no pace, admits a quarter more.
#[derive(Debug, Default)]
pub(super) struct Pace {
    starts: VecDeque<Instant>,
}

impl Pace {
    pub(super) fn is_free(&mut self, cps_max: u32, now: Instant) -> bool {
        while self.starts.front().is_some_and(|start| *start + SECOND <= now) {
            self.starts.pop_front();
        }
        self.starts.len() < with_slack(cps_max) as usize
    }

    pub(super) fn take(&mut self, now: Instant) {
        self.starts.push_back(now);
    }
}

/// `cps_max` and a quarter of it, one at least; nothing for nothing.
pub(super) fn with_slack(cps_max: u32) -> u32 {
    let max = cps_max.min(STARTS_MAX);
    if max == 0 { 0 } else { max + (max / 4).max(1) }
}
