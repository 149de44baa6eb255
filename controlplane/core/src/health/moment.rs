//! Time as the health machines keep it: microseconds of a machine's own life.
//!
//! An `Instant` means nothing after a restart, and wall clocks jump (agents' and control planes' are minutes
//! apart at times). So a machine counts the time it has lived; a snapshot holds moments of that count, and
//! a restored machine goes on counting where the snapshot was taken.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A point in a machine's life, in µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }

    /// Zero where `earlier` is later.
    pub(super) const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Turns instants into moments and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    begun: Instant,
    /// The moment at `begun`.
    offset: Moment,
}

impl Clock {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, offset: Moment::default() }
    }

    /// Goes on at `moment`.
    pub(super) const fn resumed(now: Instant, moment: Moment) -> Self {
        Self { begun: now, offset: moment }
    }

    pub(super) fn moment(self, at: Instant) -> Moment {
        match at.checked_duration_since(self.begun) {
            Some(span) => self.offset.after(span),
            None => Moment(self.offset.0.saturating_sub(micros(self.begun.saturating_duration_since(at)))),
        }
    }

    /// What lies before the first instant of this host is the process's beginning.
    pub(super) fn instant(self, moment: Moment) -> Instant {
        let before = self.offset.since(moment);
        self.begun.checked_sub(before).unwrap_or(self.begun) + moment.since(self.offset)
    }
}

/// Whole µs, at most some 584,000 years.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// Whole ms, for reports.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
