//! When a receiver has failed for so long that it gets no more events.
//!
//! ```text
//! taking ──failure──▶ failing(since, tries) ──failure──▶ … ──3 days and 12 tries──▶ given up
//!    ▲                     │    ▲
//!    └────── delivery ─────┘    └── failure after 12 h without one: since = now, tries = 1
//! ```
//!
//! A time of failures is one only while tries follow each other. Who failed on Monday, was sent nothing, and
//! fails on Friday has failed twice, and not for four days.

use time::{Duration, OffsetDateTime};

/// A receiver that took nothing for this long gets no more, if it was tried [`DISABLED_TRIES`] times in it.
pub const DISABLED_AFTER: Duration = Duration::days(3);
/// Failures in a row, fewer than which disable nobody. One event alone makes eight.
pub const DISABLED_TRIES: u32 = 12;
/// Longer than this between two failures, and they are not of one time. The longest wait between two tries
/// of an event is 9 h.
pub const FAILING_GAP_MAX: Duration = Duration::hours(12);

/// A time in which every try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// The first failure.
    pub since: OffsetDateTime,
    /// The latest one.
    pub last: OffsetDateTime,
    /// Failures so far.
    pub tries: u32,
}

impl Failing {
    /// With one more failure. `before` is `None` if the try before was taken, or there was none.
    #[must_use]
    pub fn and_again(before: Option<Self>, at: OffsetDateTime) -> Self {
        match before {
            Some(before) if at - before.last <= FAILING_GAP_MAX => Self {
                since: before.since.min(at),
                last: before.last.max(at),
                tries: before.tries.saturating_add(1),
            },
            Some(_) | None => Self { since: at, last: at, tries: 1 },
        }
    }

    /// Whether the receiver gets no more.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        self.last - self.since >= DISABLED_AFTER && self.tries >= DISABLED_TRIES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn after(minutes: &[i64]) -> Option<Failing> {
        let mut failing = None;
        for at in minutes {
            failing = Some(Failing::and_again(failing, NOON + Duration::minutes(*at)));
        }
        failing
    }

    #[test]
    fn a_break_begins_anew() {
        let hour = 60;
        for (failures, since, tries) in [
            (vec![0], 0, 1),
            (vec![0, 12 * hour], 0, 2),
            (vec![0, 12 * hour + 1], 12 * hour + 1, 1),
            (vec![0, 5, 120 * hour], 120 * hour, 1),
            // An answer that was written down late.
            (vec![5, 0], 0, 2),
        ] {
            let failing = after(&failures).unwrap();
            assert_eq!(
                (failing.since, failing.tries),
                (NOON + Duration::minutes(since), tries),
                "{failures:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn nobody_is_given_up_without_three_days_and_twelve_tries_in_one_piece(
            gaps in proptest::collection::vec(0_i64..1_000, 1..60)
        ) {
            let (mut at, mut run) = (0, Vec::new());
            let mut failing = None;
            for gap in gaps {
                at += gap;
                if run.last().is_some_and(|last| at - last > 720) {
                    run.clear();
                }
                run.push(at);
                failing = Some(Failing::and_again(failing, NOON + Duration::minutes(at)));
                let long = at - run[0] >= 3 * 24 * 60 && run.len() >= 12;
                prop_assert_eq!(failing.unwrap().is_for_good(), long);
            }
        }
    }
}
