//! Calls per second and channels: how fast and how many at a time, per trunk and per carrier.
//!
//! Two counters without a clock. [`Window`] admits at most so many starts in any one second, exactly: a
//! token bucket would let twice as many through around a refill, and carriers answer that with 503.
//! [`Channels`] counts by the ids of the attempts that hold one, so that no release, lost or doubled, can
//! make the count drift.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use crate::ids::AttemptId;

/// The span that `cps_max` speaks of.
const SECOND: Duration = Duration::from_secs(1);
/// Most starts remembered, and so the largest pace: that of a carrier's `cps_max`.
const STARTS_MAX: u32 = 10_000;

/// Four fifths of a limit and more are near it. A limit of one or two is reached by any call, which says
/// nothing about load.
const fn near(used: usize, max: u32) -> bool {
    const SMALLEST: usize = 3;
    used >= SMALLEST && used * 5 >= max as usize * 4
}

/// At most so many starts in any one second.
///
/// The second is half open: of two starts exactly 1 s apart, the second is in the next one.
#[derive(Debug, Clone)]
pub struct Window {
    max: u32,
    /// When the latest starts were, oldest first. Those older than the longest span in use are dropped.
    starts: VecDeque<Instant>,
    slow_until: Option<Instant>,
}

/// At most `starts` in any `span`.
#[derive(Debug, Clone, Copy)]
struct Pace {
    starts: u32,
    span: Duration,
}

impl Window {
    /// A window of at most `max` starts per second; brought into 1 to 10 000.
    #[must_use]
    pub fn new(max: u32) -> Self {
        Self { max: max.clamp(1, STARTS_MAX), starts: VecDeque::new(), slow_until: None }
    }

    /// Whether a start is admitted now.
    ///
    /// # Errors
    /// The earliest instant at which one is, if nothing starts before.
    pub fn check(&self, now: Instant) -> Result<(), Instant> {
        let full = self.earliest(self.full()).unwrap_or(now);
        let earliest = match self.slow_until.filter(|until| *until > now) {
            // At half the pace, or at the full one as soon as it is back.
            Some(until) => self.earliest(self.halved()).unwrap_or(now).min(full.max(until)),
            None => full,
        };
        if earliest <= now { Ok(()) } else { Err(earliest) }
    }

    /// Counts a start, admitted or not: what has left counts, whoever decided it. By what [`Self::give_back`] knows it.
    pub fn take(&mut self, now: Instant) -> Instant {
        // Callers race by a few microseconds; the order is kept, and the error is to the careful side.
        let at = self.starts.back().map_or(now, |last| now.max(*last));
        self.starts.push_back(at);
        while self.starts.len() > STARTS_MAX as usize
            || self.starts.front().is_some_and(|first| *first + 2 * SECOND <= at)
        {
            self.starts.pop_front();
        }
        at
    }

    /// A start that [`Self::take`] counted has not left after all, and never will.
    pub fn give_back(&mut self, taken: Instant) {
        // Of several at the same instant any one will do.
        if let Some(place) = self.starts.iter().rposition(|at| *at == taken) {
            self.starts.remove(place);
        }
    }

    /// What others count is known: when the latest starts of all were, oldest first. It takes the place of what was counted here, but for what is
    /// newer than all of it, which they may not know of yet.
    pub fn is_counted(&mut self, starts: impl IntoIterator<Item = Instant>) {
        let mut known: VecDeque<_> = starts.into_iter().collect();
        let newest = known.back().copied();
        known.extend(self.starts.iter().filter(|at| newest.is_none_or(|newest| **at > newest)));
        self.starts = known;
    }

    /// Checks, and counts the start if it is admitted.
    ///
    /// # Errors
    /// As [`Window::check`].
    pub fn try_take(&mut self, now: Instant) -> Result<(), Instant> {
        self.check(now)?;
        self.take(now);
        Ok(())
    }

    /// Another limit, from now on. What started already counts against it.
    pub fn set_max(&mut self, max: u32) {
        self.max = max.clamp(1, STARTS_MAX);
    }

    /// Halves the pace for a while: what a 503 near the account's limit asks for. Again while it is slow
    /// already: the time is extended, never shortened, and the pace stays at half.
    pub fn slow_down(&mut self, now: Instant, for_: Duration) {
        let until = now + for_;
        self.slow_until = Some(self.slow_until.map_or(until, |u| u.max(until)));
    }

    /// Until when the pace is halved, if it is.
    #[must_use]
    pub fn slow_until(&self, now: Instant) -> Option<Instant> {
        self.slow_until.filter(|until| *until > now)
    }

    /// How many more starts this second has room for.
    #[must_use]
    pub fn left(&self, now: Instant) -> u32 {
        let latest = self.starts.iter().rev().take_while(|at| **at + SECOND > now).count();
        self.max.saturating_sub(u32::try_from(latest).unwrap_or(u32::MAX))
    }

    /// Whether the last second's starts were near the limit.
    #[must_use]
    pub fn is_near_full(&self, now: Instant) -> bool {
        let latest = self.starts.iter().rev().take_while(|at| **at + SECOND > now).count();
        near(latest, self.max)
    }

    /// The declared limit, starts per second.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.max
    }

    const fn full(&self) -> Pace {
        Pace { starts: self.max, span: SECOND }
    }

    /// Half of one per second is one in two.
    fn halved(&self) -> Pace {
        match self.max {
            0 | 1 => Pace { starts: 1, span: 2 * SECOND },
            max => Pace { starts: max / 2, span: SECOND },
        }
    }

    /// When the pace admits the next start: a span after the `starts`-th last. None: at any time.
    fn earliest(&self, pace: Pace) -> Option<Instant> {
        let nth_last = self.starts.len().checked_sub(pace.starts as usize)?;
        self.starts.get(nth_last).map(|at| *at + pace.span)
    }
}

/// Every channel is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {max} channels are taken")]
pub struct ChannelsFull {
    /// The limit.
    pub max: u32,
}

/// Channels held by attempts, at most so many at a time.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    /// None: no limit.
    max: Option<u32>,
    held: HashSet<AttemptId>,
}

impl Channels {
    /// No channel held; `max` of `None` is no limit.
    #[must_use]
    pub fn new(max: Option<u32>) -> Self {
        Self { max, held: HashSet::new() }
    }

    /// Whether a further attempt would get a channel.
    ///
    /// # Errors
    /// [`ChannelsFull`] when not.
    pub fn check(&self) -> Result<(), ChannelsFull> {
        match self.max {
            Some(max) if self.held.len() >= max as usize => Err(ChannelsFull { max }),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a channel for an attempt. An attempt that holds one keeps it.
    ///
    /// # Errors
    /// [`ChannelsFull`] when all are taken.
    pub fn acquire(&mut self, attempt: &AttemptId) -> Result<(), ChannelsFull> {
        if !self.held.contains(attempt) {
            self.check()?;
            self.held.insert(attempt.clone());
        }
        Ok(())
    }

    /// Counts a channel that exists already, limit or not: one found open after a restart.
    pub fn adopt(&mut self, attempt: &AttemptId) {
        self.held.insert(attempt.clone());
    }

    /// Gives the attempt's channel back. Harmless when it holds none.
    pub fn release(&mut self, attempt: &AttemptId) {
        self.held.remove(attempt);
    }

    /// Another limit, from now on. Nothing is taken from those that hold a channel.
    pub fn set_max(&mut self, max: Option<u32>) {
        self.max = max;
    }

    /// The limit; none: no limit.
    #[must_use]
    pub const fn max(&self) -> Option<u32> {
        self.max
    }

    /// How many are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether those held are near the limit.
    #[must_use]
    pub fn is_near_full(&self) -> bool {
        self.max.is_some_and(|max| near(self.held.len(), max))
    }

    /// Whose they are, in no order.
    pub fn holders(&self) -> impl Iterator<Item = &AttemptId> {
        self.held.iter()
    }
}

#[cfg(test)]
mod tests;
