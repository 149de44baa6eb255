//! Probation: how a trunk that had tripped is let back in.
//!
//! At most 1, 2, 4, 8, 16 calls are under way at a time, one step per call that got through. A bound on
//! calls under way, rather than a share of all calls by chance: a carrier that is still broken costs one
//! customer's call one attempt, whatever the traffic, and a quiet trunk gets its trial as surely as a busy
//! one. Where the trunk has a canary and calls had failed, the first trial is the canary's, for a while.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Policy, moment::Moment};

/// A trunk's trials in probation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probation {
    /// Calls that got through.
    pub(super) successes: u32,
    /// When the trials under way were sent.
    trials: VecDeque<Moment>,
    /// Trials that rang and have not ended: counted as successes already.
    rung: u32,
    /// Until when the first trial is the canary's.
    canary_until: Moment,
    /// When it is looked at again.
    pub(super) until: Moment,
}

impl Probation {
    pub(super) fn new(now: Moment, canary_first: bool, policy: &Policy) -> Self {
        Self {
            successes: 0,
            trials: VecDeque::new(),
            rung: 0,
            canary_until: if canary_first { now.after(policy.canary_wait) } else { now },
            until: now.after(policy.probation_steady),
        }
    }

    /// A call got through.
    pub(super) fn got_through(mut self) -> Self {
        self.successes = self.successes.saturating_add(1);
        self
    }

    /// Whether one more trial may leave; if not, when a place is free at the latest.
    pub(super) fn admits(&self, now: Moment, policy: &Policy) -> Result<(), Moment> {
        if self.successes == 0 && now < self.canary_until {
            return Err(self.canary_until);
        }
        let allowed = 1_usize << self.successes.min(16);
        let under_way = self.under_way(now, policy);
        match under_way.len().checked_sub(allowed).and_then(|over| under_way.get(over)) {
            None => Ok(()),
            Some(sent) => Err(sent.after(policy.trial_max)),
        }
    }

    /// Whether a canary is what it waits for.
    pub(super) fn wants_canary(&self, now: Moment) -> bool {
        self.successes == 0 && now < self.canary_until
    }

    pub(super) fn sent(&mut self, now: Moment, policy: &Policy) {
        let allowed = 1_usize << self.successes.min(16);
        self.trials = self.under_way(now, policy).into();
        // In panic more may leave than are admitted: what is remembered stays bounded.
        if self.trials.len() < allowed {
            self.trials.push_back(now);
        }
    }

    /// The latest one did not leave: its place is free.
    pub(super) fn not_sent(&mut self) {
        self.trials.pop_back();
    }

    fn under_way(&self, now: Moment, policy: &Policy) -> Vec<Moment> {
        self.trials.iter().copied().filter(|sent| now.since(*sent) < policy.trial_max).collect()
    }

    /// A phone rang: a place is free, and the trial is a success.
    pub(super) fn rang(&mut self) {
        self.trials.pop_front();
        self.rung = self.rung.saturating_add(1);
        self.successes = self.successes.saturating_add(1);
    }

    /// A trial has ended; says whether its success was counted when it rang.
    pub(super) fn ended(&mut self, rang: bool) -> bool {
        if rang && self.rung > 0 {
            self.rung -= 1;
            return true;
        }
        self.trials.pop_front();
        false
    }
}
