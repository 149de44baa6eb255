//! How often one number may be dialled for one organisation: a loop in somebody's monitoring must not hammer a phone.
//!
//! What counts is a round's start: one dialling of the callee, whatever failover makes of it. What is over a limit
//! waits until the limit lets it through; it is not dropped. No priority passes it by.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// Longest window, in seconds: a day.
const PER_S_MAX: u32 = 86_400;
/// Most starts in a window: what is read of the past at most.
const CALLS_MAX: u16 = 1_000;
/// Most windows.
const WINDOWS_MAX: usize = 10;

/// At most so many starts in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Starts, at least 1.
    pub calls: u16,
    /// In this many seconds, at least 1.
    pub per_s: u32,
}

impl Window {
    fn length(self) -> Duration {
        Duration::seconds(self.per_s.into())
    }
}

/// The windows of every number; none: no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<Window>", into = "Vec<Window>")]
pub struct Throttle(Vec<Window>);

/// Windows that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("at most 10 windows, each of 1 to 1000 calls per 1 to 86400 s")]
pub struct InvalidThrottle;

impl TryFrom<Vec<Window>> for Throttle {
    type Error = InvalidThrottle;

    fn try_from(windows: Vec<Window>) -> Result<Self, InvalidThrottle> {
        let ok = |w: &Window| (1..=CALLS_MAX).contains(&w.calls) && (1..=PER_S_MAX).contains(&w.per_s);
        if windows.len() <= WINDOWS_MAX && windows.iter().all(ok) {
            Ok(Self(windows))
        } else {
            Err(InvalidThrottle)
        }
    }
}

impl From<Throttle> for Vec<Window> {
    fn from(throttle: Throttle) -> Self {
        throttle.0
    }
}

impl Default for Throttle {
    /// 1 a minute, 3 in 15 minutes, 7 an hour, 15 in 3 hours.
    fn default() -> Self {
        let window = |(calls, per_s)| Window { calls, per_s };
        Self([(1, 60), (3, 900), (7, 3_600), (15, 10_800)].map(window).to_vec())
    }
}

impl Throttle {
    /// No limit.
    #[must_use]
    pub const fn off() -> Self {
        Self(Vec::new())
    }

    /// Whether there is no limit.
    #[must_use]
    pub const fn is_off(&self) -> bool {
        self.0.is_empty()
    }

    /// How far back starts matter.
    #[must_use]
    pub fn horizon(&self) -> Duration {
        self.0.iter().map(|window| window.length()).max().unwrap_or_default()
    }

    /// How many of the latest starts matter.
    #[must_use]
    pub fn calls_max(&self) -> u16 {
        self.0.iter().map(|window| window.calls).max().unwrap_or_default()
    }

    /// Until when another start is held, given the `latest` starts, newest first; `None`: it may be now. Of a clock
    /// that was set back: a start that seems to lie ahead ([`lie_ahead`]) counts as one of now, and must be written as
    /// one, or it would do so again and again.
    #[must_use]
    pub fn held_until(&self, latest: &[OffsetDateTime], now: OffsetDateTime) -> Option<OffsetDateTime> {
        let free = |window: &Window| {
            let last_but = latest.get(usize::from(window.calls).checked_sub(1)?)?;
            Some((*last_but).min(now) + window.length())
        };
        self.0.iter().filter_map(free).max().filter(|until| *until > now)
    }
}

/// Whether some of the `latest` starts, newest first, lie ahead of now: a clock that was set back wrote them.
#[must_use]
pub fn lie_ahead(latest: &[OffsetDateTime], now: OffsetDateTime) -> bool {
    latest.first().is_some_and(|newest| *newest > now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn at(s: i64) -> OffsetDateTime {
        NOON + Duration::seconds(s)
    }

    #[test]
    fn a_start_waits_for_the_window_that_frees_last() {
        let throttle = Throttle::default();
        assert_eq!(throttle.held_until(&[], NOON), None);
        assert_eq!(throttle.held_until(&[at(0)], at(59)), Some(at(60)));
        assert_eq!(throttle.held_until(&[at(0)], at(60)), None);
        assert_eq!(throttle.held_until(&[at(120), at(60), at(0)], at(180)), Some(at(900)));
        assert_eq!(throttle.held_until(&[at(120), at(60), at(0)], at(900)), None);
        assert_eq!(Throttle::off().held_until(&[at(0); 50], NOON), None);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_for_one_window_at_most() {
        assert_eq!(Throttle::default().held_until(&[at(100_000)], NOON), Some(at(60)));
        assert!(lie_ahead(&[at(1), at(-1)], NOON));
        assert!(!lie_ahead(&[at(0)], NOON) && !lie_ahead(&[], NOON));
    }

    #[test]
    fn windows_have_bounds() {
        let of = |calls, per_s| Throttle::try_from(vec![Window { calls, per_s }]);
        assert!(of(1, 1).is_ok() && of(1_000, 86_400).is_ok());
        for (calls, per_s) in [(0, 60), (1, 0), (1_001, 60), (1, 86_401)] {
            assert_eq!(of(calls, per_s), Err(InvalidThrottle), "{calls} per {per_s}");
        }
        assert_eq!(Throttle::try_from(vec![Window { calls: 1, per_s: 1 }; 11]), Err(InvalidThrottle));
        let json = r#"[{"calls":1,"per_s":60}]"#;
        let read: Throttle = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
    }

    proptest! {
        /// Whoever asks, whenever, and starts when he may: no window ever holds more starts than it allows, and
        /// whoever waits as told may start.
        #[test]
        fn no_window_is_ever_over_full(
            windows in prop::collection::vec((1u16..6, 1u32..300), 1..4),
            gaps in prop::collection::vec((0i64..90, any::<bool>()), 1..80),
        ) {
            let windows: Vec<_> = windows.into_iter().map(|(calls, per_s)| Window { calls, per_s }).collect();
            let throttle = Throttle::try_from(windows.clone()).unwrap();
            let (mut now, mut starts) = (NOON, Vec::new());
            for (gap, waits) in gaps {
                now += Duration::seconds(gap);
                match throttle.held_until(&starts, now) {
                    None => starts.insert(0, now),
                    Some(until) => {
                        prop_assert!(until > now && until <= now + throttle.horizon());
                        if waits {
                            now = until;
                            prop_assert_eq!(throttle.held_until(&starts, now), None);
                            starts.insert(0, now);
                        }
                    }
                }
            }
            for window in windows {
                for first in starts.windows(usize::from(window.calls) + 1) {
                    prop_assert!(first[0] - first[usize::from(window.calls)] >= window.length());
                }
            }
        }
    }
}
