//! When an event is sent again: eight tries within 24 hours, then it is dead until somebody replays it.

use time::{Duration, OffsetDateTime};

/// Waits before the second and each later try, at their longest. Their sum is 23 h 35 min.
const WAITS: [Duration; 7] = [
    Duration::seconds(5),
    Duration::minutes(5),
    Duration::minutes(30),
    Duration::hours(2),
    Duration::hours(5),
    Duration::hours(7),
    Duration::hours(9),
];
/// Tries of one event in all.
pub const TRIES_MAX: u32 = WAITS.len() as u32 + 1;
/// By this share a wait may be shorter, so that what failed together is not tried together.
const JITTER: f64 = 0.2;
/// Longest `Retry-After` that is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::hours(1);

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A status, and its `Retry-After` in seconds.
    Status {
        /// The status.
        code: u16,
        /// `Retry-After`, if it came in seconds.
        retry_after_s: Option<u32>,
    },
    /// No status.
    None,
}

/// What follows from a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It arrived.
    Delivered,
    /// It is sent again then.
    Again(OffsetDateTime),
    /// It is not sent again by itself.
    Dead,
    /// It is never sent, since the event cannot be read: the receiver has no part in it.
    Unreadable,
    /// It is not sent again, and nothing else is: the receiver is gone for good (410).
    Gone,
}

/// What follows from the `tries`-th try (1 for the first), which ended `now`. `chance` is in 0..1.
#[must_use]
pub fn after(answer: Answer, tries: u32, now: OffsetDateTime, chance: f64) -> Next {
    let asked = match answer {
        Answer::Status { code: 200..=299, .. } => return Next::Delivered,
        Answer::Status { code: 410, .. } => return Next::Gone,
        Answer::Status { code: 429 | 503, retry_after_s: Some(seconds) } => {
            Duration::seconds(i64::from(seconds)).min(RETRY_AFTER_MAX)
        }
        Answer::Status { .. } | Answer::None => Duration::ZERO,
    };
    let index = usize::try_from(tries.max(1) - 1).unwrap_or(usize::MAX);
    let Some(wait) = WAITS.get(index) else { return Next::Dead };
    let wait = *wait * (1.0 - JITTER * chance.clamp(0.0, 1.0));
    Next::Again(now + wait.max(asked))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn status(code: u16, retry_after_s: Option<u32>) -> Answer {
        Answer::Status { code, retry_after_s }
    }

    #[test]
    fn the_schedule_ends_within_a_day_and_waits_ever_longer() {
        for chance in [0.0, 0.5, 1.0] {
            let (mut now, mut waits) = (NOW, Vec::new());
            for tries in 1.. {
                match after(Answer::None, tries, now, chance) {
                    Next::Again(at) => {
                        waits.push(at - now);
                        now = at;
                    }
                    next @ (Next::Delivered | Next::Dead | Next::Unreadable | Next::Gone) => {
                        assert_eq!((next, tries), (Next::Dead, TRIES_MAX));
                        break;
                    }
                }
            }
            assert!(waits.is_sorted() && now - NOW < Duration::hours(24), "{waits:?}");
            assert!(now - NOW > Duration::hours(18), "{waits:?}");
            assert!(waits[0] >= Duration::seconds(4) && waits[0] <= Duration::seconds(5), "{waits:?}");
        }
    }

    #[test]
    fn only_2xx_is_delivered_and_only_410_is_gone() {
        for code in 100..600 {
            match (code, after(status(code, None), 1, NOW, 0.0)) {
                (200..=299, Next::Delivered) | (410, Next::Gone) => {}
                (200..=299 | 410, next) => panic!("{code}: {next:?}"),
                (_, next) => assert_eq!(next, Next::Again(NOW + Duration::seconds(5)), "{code}"),
            }
        }
    }

    #[test]
    fn retry_after_lengthens_a_wait_within_bounds_and_never_shortens_it() {
        let next = |code, seconds, tries| after(status(code, Some(seconds)), tries, NOW, 0.0);
        assert_eq!(next(429, 60, 1), Next::Again(NOW + Duration::minutes(1)));
        assert_eq!(next(503, u32::MAX, 1), Next::Again(NOW + RETRY_AFTER_MAX));
        assert_eq!(next(503, 1, 4), Next::Again(NOW + Duration::hours(2)));
        assert_eq!(next(500, 60, 1), Next::Again(NOW + Duration::seconds(5)));
        assert_eq!(next(429, 60, TRIES_MAX), Next::Dead);
    }
}
