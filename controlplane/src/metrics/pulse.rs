//! How the fleet's calls went in the last hour, for whoever looks at the console: a minute a point, in memory alone.
//!
//! What ends and rings adds to four numbers; every ten seconds somebody looks at them and at the channels that are held. It
//! costs the same with one trunk and with thousands.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use controlplane_core::ending::EndingClass;
use tokio::time::{MissedTickBehavior, interval};

use crate::registry::Registry;

/// Points that are kept: an hour.
pub(crate) const MINUTES: usize = 60;
/// Looks of one minute.
const LOOKS: u32 = 6;
/// Between two of them.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What was added up since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    ended: u64,
    answered: u64,
    rang: u64,
    pdd_us: u64,
}

/// A minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Minute {
    /// Most attempts that held a channel at one look.
    pub(crate) channels: f64,
    /// Attempts begun, per second.
    pub(crate) cps: f64,
    /// Of the attempts that ended, the share that was answered, 0 to 1.
    pub(crate) asr: Option<f64>,
    /// From sending to the first ring, in seconds, on average.
    pub(crate) pdd_s: Option<f64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    ended: AtomicU64,
    answered: AtomicU64,
    rang: AtomicU64,
    pdd_us: AtomicU64,
    minutes: Mutex<VecDeque<Minute>>,
}

impl Pulse {
    pub(crate) fn ended(&self, class: EndingClass) {
        self.ended.fetch_add(1, Relaxed);
        if matches!(class, EndingClass::Answered | EndingClass::NoMedia | EndingClass::NoKeys) {
            self.answered.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn rang(&self, pdd: Duration) {
        self.rang.fetch_add(1, Relaxed);
        self.pdd_us.fetch_add(u64::try_from(pdd.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The minutes that are over, the oldest first.
    pub(crate) fn minutes(&self) -> Vec<Minute> {
        self.minutes.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn sums(&self) -> Sums {
        let read = |sum: &AtomicU64| sum.load(Relaxed);
        Sums {
            ended: read(&self.ended),
            answered: read(&self.answered),
            rang: read(&self.rang),
            pdd_us: read(&self.pdd_us),
        }
    }

    fn push(&self, minute: Minute) {
        let mut minutes = self.minutes.lock().unwrap_or_else(PoisonError::into_inner);
        if minutes.len() == MINUTES {
            minutes.pop_front();
        }
        minutes.push_back(minute);
    }

    /// Looks for as long as the program runs.
    pub(crate) async fn keep(self: Arc<Self>, registry: Arc<Registry>) {
        let mut every = interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every.tick().await;
        let (mut before, mut held) = (self.sums(), registry.channels_held());
        loop {
            let mut most = held;
            for _ in 0..LOOKS {
                every.tick().await;
                most = most.max(registry.channels_held());
            }
            let (now, holds) = (self.sums(), registry.channels_held());
            self.push(minute(before, now, held, holds, most));
            (before, held) = (now, holds);
        }
    }
}

/// A minute between two looks.
#[allow(clippy::cast_precision_loss, reason = "counts of one minute")]
fn minute(before: Sums, now: Sums, held: usize, holds: usize, most: usize) -> Minute {
    let ended = now.ended - before.ended;
    // What began is what ended and what is held more than before.
    let began = (ended as f64 + holds as f64 - held as f64).max(0.0);
    let share = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
    Minute {
        channels: most as f64,
        cps: began / (f64::from(LOOKS) * LOOK_EVERY.as_secs_f64()),
        asr: share(now.answered - before.answered, ended),
        pdd_s: share(now.pdd_us - before.pdd_us, now.rang - before.rang).map(|us| us / 1_000_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_what_came_between_two_looks() {
        let pulse = Pulse::default();
        let before = pulse.sums();
        for class in
            [EndingClass::Answered, EndingClass::Answered, EndingClass::UserBusy, EndingClass::Congestion]
        {
            pulse.ended(class);
        }
        pulse.rang(Duration::from_millis(500));
        pulse.rang(Duration::from_millis(1_500));
        let made = minute(before, pulse.sums(), 3, 5, 9);
        assert_eq!(made, Minute { channels: 9.0, cps: 0.1, asr: Some(0.5), pdd_s: Some(1.0) });
        let none = minute(pulse.sums(), pulse.sums(), 5, 2, 5);
        assert_eq!(none, Minute { channels: 5.0, cps: 0.0, asr: None, pdd_s: None });
    }

    #[test]
    fn an_hour_is_kept() {
        let pulse = Pulse::default();
        for n in 0..100_u32 {
            pulse.push(Minute { channels: n.into(), cps: 0.0, asr: None, pdd_s: None });
        }
        let kept = pulse.minutes();
        assert_eq!((kept.len(), kept[0].channels, kept[59].channels), (MINUTES, 40.0, 99.0));
    }
}
